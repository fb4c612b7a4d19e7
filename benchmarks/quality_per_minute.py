"""Test scores after equal time: pixelwise by default and from scratch, a tutorial U-Net, and smp's documented example.

    python -m benchmarks.quality_per_minute --root data                       # seven sets, three seeds, 4 minutes each
    python -m benchmarks.quality_per_minute --root data --minutes 1 --minutes 10 --seed 0
    python -m benchmarks.quality_per_minute --root data --set camvid --method pixelwise

Same images, split and wall time from the first read file on; one process per run, one after the other. Writes one JSON file per
run to `benchmarks/results/quality_per_minute/` and prints the table. Finished runs are not repeated.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

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
from benchmarks.sets import SETS, describe

RESULTS = Path(__file__).parent / "results" / "quality_per_minute"
# Arguments of `pixelwise train` besides data, time limit and seed.
OURS: Mapping[str, Mapping[str, str]] = {"pixelwise": {}, "scratch": {"weights": "none"}}
METHODS = (*OURS, "tutorial", "smp", "smp_pretrained")
# Scores of single classes for the second table: set, class, key.
CLASS_SCORES = (
    ("drive", "vessel", "dice"),
    ("magnetic_tile", "defect", "iou"),
    ("magnetic_tile", "defect", "dice"),
    ("aerial_roads", "road", "iou"),
    ("nuclei", "nucleus", "dice"),
    ("hippocampus", "anterior", "dice"),
    ("hippocampus", "posterior", "dice"),
    ("aerial_roads_4band", "road", "iou"),
)
SCORE_NAMES = {"iou": "IoU", "dice": "Dice"}
Found = dict[tuple[str, float, str], list[dict[str, Any]]]


def main() -> None:
    parser = parser_with_root(__doc__)
    parser.add_argument("--set", choices=SETS, action="append", dest="sets", help="data set (repeatable); default: all")
    parser.add_argument("--method", choices=METHODS, action="append", dest="methods")
    parser.add_argument(
        "--seed", type=int, action="append", dest="seeds", help="random seed (repeatable); default: 0, 1 and 2"
    )
    parser.add_argument(
        "--minutes", type=float, action="append", dest="budgets", help="time of each run (repeatable); default: 4"
    )
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder for the results")
    parser.add_argument("--one", nargs=4, metavar=("SET", "MINUTES", "METHOD", "SEED"), help=argparse.SUPPRESS)
    args = parse(parser)
    if args.one:
        name, minutes, method, seed = args.one
        run_one(name, float(minutes), method, int(seed), args)
        return
    if not args.table:
        run_each("quality_per_minute", args, runs(args))
    print(table(args.results))


def runs(args: argparse.Namespace) -> Iterator[tuple[Path, Sequence[object]]]:
    """Yield result file, set, minutes, method and seed of each run.

    Seeds are the outer loop and methods the inner one, so that an interrupted benchmark has complete comparisons.
    """
    for minutes in args.budgets or (4.0,):
        for seed in args.seeds or (0, 1, 2):
            for name in args.sets or SETS:
                for method in args.methods or METHODS:
                    yield result_path(name, minutes, method, seed, args.results), (name, f"{minutes:g}", method, seed)


def result_path(name: str, minutes: float, method: str, seed: int, results: Path = RESULTS) -> Path:
    return results / f"{name}-{minutes:g}min-{method}-{seed}.json"


def run_one(name: str, minutes: float, method: str, seed: int, args: argparse.Namespace) -> None:
    """Train once, score the test split, and write the result."""
    from benchmarks import peers  # imported before the time begins, as is torch
    from pixelwise.config import read_request
    from pixelwise.datasets.dataset import open_data
    from pixelwise.evaluation import evaluate

    with tempfile.TemporaryDirectory() as place:
        description = describe(name, args.root, Path(place) / "data")
        config, base = read_request(description)
        began = time.monotonic()
        if method in OURS:
            predictor, facts = ours(method, description, seed, minutes * 60, Path(place) / "run")
        else:
            train = open_data(config.data, base).train
            assert train is not None
            predictor, steps = peers.METHODS[method](train, seed, began + minutes * 60)
            facts = {"steps": steps}
        seconds = time.monotonic() - began
        test = open_data(config.data, base).test
        assert test is not None
        scores = evaluate(test, predictor).scores.to_dict()
    scores.pop("confusion")
    about = {"set": name, "method": method, "seed": seed, "minutes": minutes, "seconds": seconds, "commit": version()}
    write_json(result_path(name, minutes, method, seed, args.results), about | facts | machine() | {"scores": scores})
    message = f"  mIoU {scores['miou']:.4f} after {seconds:.0f} s, {facts['steps']} steps"
    print(message, file=sys.stderr, flush=True)


def ours(method: str, description: Path, seed: int, seconds: float, out: Path) -> tuple[Any, dict[str, Any]]:
    """Train with pixelwise, nothing left out: calibration, all scores of val and the report are part of the time."""
    import pixelwise

    run = pixelwise.train(description, out=out, seed=seed, time_limit=seconds, **OURS[method])
    config = yaml.safe_load((run.folder / "config.yaml").read_text(encoding="utf-8"))
    facts = {"steps": last_step(run.folder), "val_miou": run.scores["miou"], "model": config["model"]}
    return run.model.predictor, facts


def found(results: Path) -> Found:
    """Return the results so far by set, minutes and method."""
    by_key: Found = {}
    for path in sorted(results.glob("*.json")):
        facts = read_json(path)
        by_key.setdefault((facts["set"], facts["minutes"], facts["method"]), []).append(facts)
    return by_key


def table(results: Path = RESULTS) -> str:
    """Return a table of test mIoU, one of single classes, and what was measured on which machine."""
    measured = found(results)
    if not measured:
        return NOT_MEASURED
    head = ["", *METHODS]
    lines = [_row(["mIoU", *METHODS]), "|---" * len(head) + "|"]
    lines += rows(measured, SETS, lambda scores: scores["miou"])
    lines += ["", _row(["one class", *METHODS]), "|---" * len(head) + "|"]
    for name, label, key in CLASS_SCORES:
        title = f"{name}, {SCORE_NAMES[key]} of {label}"
        lines += rows(measured, [name], lambda scores, label=label, key=key: _class(scores, label)[key], title)
    return "\n".join([*lines, "", footnote(measured)])


def rows(
    measured: Found, names: Iterable[str], score: Callable[[dict[str, Any]], float | None], title: str | None = None
) -> list[str]:
    """Return a row per set and budget that has results: the score in percent over the seeds, per method."""
    lines = []
    for name in names:
        for minutes in sorted({key[1] for key in measured if key[0] == name}):
            cells = [
                spread([100 * (score(facts["scores"]) or 0.0) for facts in measured.get((name, minutes, method), [])])
                for method in METHODS
            ]
            lines.append(_row([f"{title or name}, {minutes:g} min", *cells]))
    return lines


def footnote(measured: Found) -> str:
    """Name the machines and, for our own methods, the commits; more than one is a reason to measure again."""
    every = [facts for group in measured.values() for facts in group]
    machines = sorted({f"{facts['cores']} cores of {facts['processor']}, torch {facts['torch']}" for facts in every})
    commits = sorted({facts["commit"] for facts in every if facts["method"] in OURS})
    return f"{'; '.join(machines)}; pixelwise at {', '.join(commits) or '–'}."


def _class(scores: dict[str, Any], label: str) -> dict[str, Any]:
    return next(each for each in scores["classes"] if each["name"] == label)


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    main()
