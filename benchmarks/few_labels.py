"""What a few labelled images are worth: CamVid with 1, 5, 20, 100 and all 367 training images, three ways to train.

    python -m benchmarks.few_labels --root data                  # 45 runs of 4 minutes
    python -m benchmarks.few_labels --root data --count 20 --method default --seed 0

The default of pixelwise, its pretrained network with all layers trained from the start, and its network from random weights.
Each seed draws its own images; validation on the official 101 images, scores of the official test split. One process per run,
one after the other. Writes one JSON file per run to `benchmarks/results/few_labels/` and prints the table. Finished runs are
not repeated.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.pretraining import subset
from benchmarks.protocol import (
    NOT_MEASURED,
    last_step,
    machine,
    parse,
    parser_with_root,
    read_json,
    run_each,
    spread,
    version,
    write_json,
)

RESULTS = Path(__file__).parent / "results" / "few_labels"
COUNTS, SEEDS, MINUTES = (1, 5, 20, 100, 367), (0, 1, 2), 4.0
# Method → title, and arguments of `pixelwise train`.
METHODS: Mapping[str, tuple[str, Mapping[str, str]]] = {
    "default": ("default", {}),
    "end_to_end": ("all layers from the start", {"model": "fpn", "weights": "imagenet", "freeze": "none"}),
    "scratch": ("from scratch", {"weights": "none"}),
}


def main() -> None:
    parser = parser_with_root(__doc__)
    parser.add_argument("--count", type=int, action="append", dest="counts", help="training images (repeatable)")
    parser.add_argument("--method", choices=tuple(METHODS), action="append", dest="methods")
    parser.add_argument("--seed", type=int, action="append", dest="seeds", help="default: 0, 1 and 2")
    parser.add_argument("--minutes", type=float, default=MINUTES)
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder for the results")
    parser.add_argument("--one", nargs=4, metavar=("COUNT", "MINUTES", "METHOD", "SEED"), help=argparse.SUPPRESS)
    args = parse(parser)
    if args.one:
        count, minutes, method, seed = args.one
        run_one(int(count), float(minutes), method, int(seed), args)
        return
    if not args.table:
        run_each("few_labels", args, runs(args))
    print(table(args.minutes, args.results))


def runs(args: argparse.Namespace) -> Iterator[tuple[Path, Sequence[object]]]:
    """Yield result file, number of images, minutes, method and seed of each run; seeds are the outer loop."""
    for seed in args.seeds or SEEDS:
        for count in args.counts or COUNTS:
            for method in args.methods or METHODS:
                path = result_path(count, args.minutes, method, seed, args.results)
                yield path, (count, f"{args.minutes:g}", method, seed)


def result_path(count: int, minutes: float, method: str, seed: int, results: Path = RESULTS) -> Path:
    return results / f"{minutes:g}min-{count}-{method}-{seed}.json"


def run_one(count: int, minutes: float, method: str, seed: int, args: argparse.Namespace) -> None:
    """Train once, score the test split, and write the result."""
    import pixelwise

    with tempfile.TemporaryDirectory() as place:
        description = subset(args.root / "camvid", count, seed, Path(place) / "data")
        began = time.monotonic()
        run = pixelwise.train(
            description,
            out=Path(place) / "run",
            seed=seed,
            time_limit=minutes * 60,
            **METHODS[method][1],
        )
        seconds = time.monotonic() - began
        facts: dict[str, Any] = {"images": count, "method": method, "seed": seed, "minutes": minutes}
        facts |= {"seconds": seconds, "steps": last_step(run.folder), "commit": version()}
        facts |= machine() | {"val_miou": run.scores["miou"]}
        scores = pixelwise.evaluate(run.model, description).scores.to_dict()
    scores.pop("confusion")
    write_json(result_path(count, minutes, method, seed, args.results), facts | {"scores": scores})
    message = f"  mIoU {scores['miou']:.4f} after {seconds:.0f} s, {facts['steps']} steps"
    print(message, file=sys.stderr, flush=True)


def table(minutes: float = MINUTES, results: Path = RESULTS) -> str:
    """Return a table of test mIoU over the seeds per number of images and method."""
    measured = [read_json(path) for path in sorted(results.glob(f"{minutes:g}min-*.json"))]
    if not measured:
        return NOT_MEASURED
    titles = [title for title, _ in METHODS.values()]
    lines = [f"| CamVid images | {' | '.join(titles)} |", "|---" * (len(titles) + 1) + "|"]
    for count in sorted({facts["images"] for facts in measured}):
        cells = [
            spread([100 * f["scores"]["miou"] for f in measured if (f["images"], f["method"]) == (count, method)])
            for method in METHODS
        ]
        lines.append(f"| {count} | {' | '.join(cells)} |")
    commits = ", ".join(sorted({facts["commit"] for facts in measured}))
    about = measured[0]
    footnote = f"{about['cores']} cores of {about['processor']}, torch {about['torch']}; pixelwise at {commits}."
    return "\n".join([*lines, "", footnote])


if __name__ == "__main__":
    main()
