"""Test mIoU after equal minutes of training from scratch: pixelwise with its defaults, the tutorial's recipe, smp's example.

    python -m benchmarks.quality_per_minute --root ../shared/data --set camvid

Same images, same split, same input size, same wall time including reading; one process a run, one after the other.
Every finished run is one file in `benchmarks/results/quality_per_minute/`, and is not done again. With `--table` the
results so far are printed as Markdown.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch

from benchmarks.protocol import RECIPES, SETS, TRAINING_ALONE, processor

RESULTS = Path(__file__).parent / "results" / "quality_per_minute"
METHODS = ("pixelwise", "tutorial", "smp")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", type=Path, help="folder with the data sets")
    parser.add_argument("--set", choices=SETS, action="append", dest="sets", help="one set; all where not given")
    parser.add_argument("--method", choices=METHODS, action="append", dest="methods")
    parser.add_argument("--seed", type=int, action="append", dest="seeds", help="0, 1 and 2 where not given")
    parser.add_argument("--minutes", type=float, default=4.0)
    parser.add_argument("--table", action="store_true", help="print the results so far and stop")
    parser.add_argument("--one", nargs=3, metavar=("SET", "METHOD", "SEED"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one:
        run_one(args.one[0], args.one[1], int(args.one[2]), args.minutes, args.root)
    elif not args.table:
        # Seed by seed, so that an early stop leaves whole comparisons.
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
        # The recipe's data section alone: everything else is derived.
        plain = pin_paths(config.data, base).model_dump(mode="json", exclude_defaults=True)
        described = folder / "data.json"
        described.write_text(json.dumps({"data": plain | {"labels": splits.labels.to_dict()}}))
        run = pixelwise.train(
            described,
            out=folder / "run",
            seed=seed,
            time_limit=minutes * 60 - (time.monotonic() - began),
            overrides=TRAINING_ALONE,
        )
        predictor = run.model.predictor
        steps = max(
            json.loads(line).get("step", 0)
            for line in (run.folder / "log.jsonl").read_text(encoding="utf-8").splitlines()
        )
    else:
        train = {"tutorial": peers.tutorial, "smp": peers.documented_smp}[method]
        channels = splits.train.read(0).image.shape[0]
        predictor, steps = train(splits.train, channels, seed, minutes * 60 - (time.monotonic() - began))
    seconds = time.monotonic() - began
    scores = evaluate(splits.test, predictor).scores.to_dict()
    scores.pop("confusion")
    RESULTS.mkdir(parents=True, exist_ok=True)
    facts = {"set": name, "method": method, "seed": seed, "minutes": minutes, "seconds": seconds, "steps": steps}
    facts |= {"torch": torch.__version__, "processor": processor(), "cores": torch.get_num_threads()}
    path = result_path(name, method, seed, minutes)
    path.write_text(json.dumps(facts | {"scores": scores}, indent=1) + "\n", encoding="utf-8")
    shutil.rmtree(folder)
    print(f"  mIoU {scores['miou']:.4f} after {seconds:.0f} s, {steps} steps", file=sys.stderr, flush=True)


def table(minutes: float) -> str:
    """Give the mean, and the smallest and largest over the seeds, per set and method."""
    rows = [f"| set | {' | '.join(METHODS)} |", "|---" * (len(METHODS) + 1) + "|"]
    for name in SETS:
        cells = []
        for method in METHODS:
            found = [
                json.loads(p.read_text(encoding="utf-8"))
                for p in sorted(RESULTS.glob(f"{name}-{minutes:g}min-{method}-*.json"))
            ]
            values = [100 * f["scores"]["miou"] for f in found]
            spread = (
                f"{statistics.mean(values):.1f} ({min(values):.1f}–{max(values):.1f}, n = {len(values)})"
                if values
                else "–"
            )
            cells.append(spread)
        rows.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(rows)


if __name__ == "__main__":
    main()
