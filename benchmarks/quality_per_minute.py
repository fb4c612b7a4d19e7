"""Test mIoU after equal training time from scratch: pixelwise with its defaults, a tutorial U-Net, and smp's example.

    python -m benchmarks.quality_per_minute --root data --set camvid

Same images, split, input size and wall time including reading; one process per run, one after the other. Writes one JSON file
per run to `benchmarks/results/quality_per_minute/` and prints the table. Finished runs are not repeated.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.protocol import (
    RECIPES,
    SETS,
    TRAINING_ALONE,
    last_step,
    machine,
    parse,
    parser_with_root,
    read_json,
    spread,
    write_json,
)

RESULTS = Path(__file__).parent / "results" / "quality_per_minute"
METHODS = ("pixelwise", "tutorial", "smp")


def main() -> None:
    parser = parser_with_root(__doc__)
    parser.add_argument("--set", choices=SETS, action="append", dest="sets", help="data set (repeatable); default: all")
    parser.add_argument("--method", choices=METHODS, action="append", dest="methods")
    parser.add_argument(
        "--seed", type=int, action="append", dest="seeds", help="random seed (repeatable); default: 0, 1 and 2"
    )
    parser.add_argument("--minutes", type=float, default=4.0)
    parser.add_argument("--one", nargs=3, metavar=("SET", "METHOD", "SEED"), help=argparse.SUPPRESS)
    args = parse(parser)
    if args.one:
        run_one(args.one[0], args.one[1], int(args.one[2]), args.minutes, args.root)
    elif not args.table:
        # Methods are the inner loop, so that an interrupted benchmark has complete comparisons.
        for name in args.sets or SETS:
            for seed in args.seeds or (0, 1, 2):
                for method in args.methods or METHODS:
                    if not result_path(name, method, seed, args.minutes).exists():
                        start_one(name, method, seed, args)
    print(table(args.minutes))


def result_path(name: str, method: str, seed: int, minutes: float) -> Path:
    return RESULTS / f"{name}-{minutes:g}min-{method}-{seed}.json"


def start_one(name: str, method: str, seed: int, args: argparse.Namespace) -> None:
    print(f"{name}, {method}, seed {seed}: {args.minutes:g} minutes", file=sys.stderr, flush=True)
    command = [sys.executable, "-m", "benchmarks.quality_per_minute", "--root", str(args.root)]
    subprocess.run([*command, "--minutes", str(args.minutes), "--one", name, method, str(seed)], check=True)


def run_one(name: str, method: str, seed: int, minutes: float, root: Path) -> None:
    import pixelwise
    from benchmarks import peers
    from pixelwise.config import read_request
    from pixelwise.datasets.dataset import open_data, pin_paths
    from pixelwise.evaluation import evaluate

    began, recipe = time.monotonic(), RECIPES / f"{name}.yaml"
    overrides = (f"data.root={root / name}",)
    config, base = read_request(recipe, overrides)
    splits = open_data(config.data, base)
    assert splits.train is not None
    assert splits.test is not None
    folder = Path(tempfile.mkdtemp())
    if method == "pixelwise":
        # Only the recipe's data section; everything else is derived.
        data = pin_paths(config.data, base).model_dump(mode="json", exclude_defaults=True)
        description = folder / "data.json"
        description.write_text(json.dumps({"data": data | {"labels": splits.labels.to_dict()}}))
        run = pixelwise.train(
            description,
            out=folder / "run",
            seed=seed,
            time_limit=minutes * 60 - (time.monotonic() - began),
            overrides=TRAINING_ALONE,
        )
        predictor = run.model.predictor
        steps = last_step(run.folder)
    else:
        train = {"tutorial": peers.tutorial, "smp": peers.documented_smp}[method]
        channels = splits.train.read(0).image.shape[0]
        predictor, steps = train(splits.train, channels, seed, minutes * 60 - (time.monotonic() - began))
    seconds = time.monotonic() - began
    scores = evaluate(splits.test, predictor).scores.to_dict()
    scores.pop("confusion")
    facts = {"set": name, "method": method, "seed": seed, "minutes": minutes, "seconds": seconds, "steps": steps}
    write_json(result_path(name, method, seed, minutes), facts | machine() | {"scores": scores})
    shutil.rmtree(folder)
    print(f"  mIoU {scores['miou']:.4f} after {seconds:.0f} s, {steps} steps", file=sys.stderr, flush=True)


def table(minutes: float) -> str:
    """Return a table of test mIoU over the seeds per data set and method."""
    rows = [f"| set | {' | '.join(METHODS)} |", "|---" * (len(METHODS) + 1) + "|"]
    for name in SETS:
        cells = []
        for method in METHODS:
            found = [read_json(path) for path in sorted(RESULTS.glob(f"{name}-{minutes:g}min-{method}-*.json"))]
            cells.append(spread([100 * facts["scores"]["miou"] for facts in found]))
        rows.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(rows)


if __name__ == "__main__":
    main()
