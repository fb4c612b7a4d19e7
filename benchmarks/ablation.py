"""What each derived choice is worth: one of them at a time is replaced by what a plain script would do, all else derived.

    python -m benchmarks.ablation --root ../shared/data            # all: four sets, three seeds, three hours; resumable
    python -m benchmarks.ablation --root ../shared/data --only camvid --seeds 0
    OMP_NUM_THREADS=1 taskset -c 0 python -m benchmarks.ablation … # two of these side by side, each on a core of its own
    python -m benchmarks.ablation --table

Comes in: the folder with the sets. Goes out: one JSON file per run in `benchmarks/results/ablation/`, and the table. Equal
time per run, preparation included; the score is test mIoU of the model that was best on validation (of CamVid every eighth
validation image, else a large network would spend the time there). Runs that are done are not done again. Where the plain
script's value is the derived one anyway, there is nothing to compare, and no run. The machine must be left alone: what is
compared is what is learned in a time.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from benchmarks.pretraining import subset
from benchmarks.protocol import RECIPES, TRAINING_ALONE, processor

RESULTS = Path(__file__).parent / "results" / "ablation"
SEEDS, SECONDS = (0, 1, 2), 90.0
# Rows and columns of the images; None: of many sizes, so that no crop shows them all whole.
SETS: Mapping[str, tuple[int, int] | None] = {
    "camvid": (360, 480),
    "drive": (584, 565),
    "aerial_roads": (400, 400),
    "fine_defects": None,
}
# Blowholes and cracks alone, 0.3 % of the pixels: two classes, of which one is rare.
FINE_DEFECTS = 'data.images=["MT_Blowhole/Imgs/*.jpg", "MT_Crack/Imgs/*.jpg"]'
# The plain network is left out of "all": on whole images a processor makes not one step with it in this time.
DERIVED, ALL = "derived", "all but the network"
# Choice → what a plain script does, in words, and as overrides of the configuration.
CHOICES: Mapping[str, tuple[str, Mapping[str, Any]]] = {
    "normalisation": (
        "mean and deviation 0.5 of the range",
        {"model.mean": 127.5, "model.std": 127.5, "model.clip": "none"},  # of each band, see `fixed`
    ),
    "crop": ("whole images", {"train.crop": None}),  # see `fixed`
    "class weights": ("none", {"loss.class_weights": "none"}),
    "sampling": ("crops anywhere", {"train.class_crops": 0.0}),
    "augmentation": (
        "left and right mirrored",
        {
            "augment.flip_horizontal": 0.5,
            "augment.flip_vertical": 0.0,
            "augment.rotate": 0.0,
            "augment.scale": [1.0, 1.0],
            "augment.brightness": 0.0,
            "augment.contrast": 0.0,
            "augment.noise": 0.0,
        },
    ),
    "head's rate": ("as all layers", {"train.head_rate": 1.0}),
    "network": ("full resolution, 32 to 256 channels", {"model.stem": 1, "model.features": [32, 64, 128, 256]}),
    "loss": ("cross-entropy", {"loss.cross_entropy": 1.0, "loss.dice": 0.0}),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", type=Path, help="folder with the data sets")
    parser.add_argument("--only", choices=tuple(SETS), action="append", help="one set; all where not given")
    parser.add_argument("--choice", choices=(*CHOICES, ALL), action="append", help="one choice; all where not given")
    parser.add_argument("--seeds", type=int, nargs="+", default=SEEDS)
    parser.add_argument("--seconds", type=float, default=SECONDS, help="of each run")
    parser.add_argument("--steps", type=int, help="in place of seconds, to try it out")
    parser.add_argument("--results", type=Path, default=RESULTS, help="where the files go")
    parser.add_argument("--table", action="store_true", help="print the results so far and stop")
    args = parser.parse_args()
    length = f"{args.steps}steps" if args.steps else f"{args.seconds:g}s"
    if not args.table:
        if args.root is None:
            parser.error("--root: expected the folder with the data sets, found none. Name it, or say --table.")
        # Seed by seed, so that an early stop leaves whole comparisons.
        for seed in args.seeds:
            for name in args.only or SETS:
                for choice in (DERIVED, *choices(name)):
                    if choice in (DERIVED, *(args.choice or choices(name))):
                        work(args, name, choice, seed, length)
    print(table(length, args.results))


def result_path(name: str, choice: str, seed: int, length: str, results: Path = RESULTS) -> Path:
    return results / f"{name}-{length}-{choice.replace(' ', '_').replace(chr(39), '')}-{seed}.json"


def choices(name: str) -> tuple[str, ...]:
    """Name what can be fixed on a set."""
    return (*(choice for choice in CHOICES if choice != "crop" or SETS[name]), ALL)


def fixed(name: str, choice: str) -> dict[str, Any]:
    """Give what replaces the derived values: dotted key → value."""
    if choice == DERIVED:
        return {}
    if choice == ALL:
        return {
            key: value
            for each in choices(name)
            if each not in ("network", ALL)
            for key, value in fixed(name, each).items()
        }
    values, sides, bands = dict(CHOICES[choice][1]), SETS[name], 1 if name == "fine_defects" else 3
    if "train.crop" in values and sides:
        # Whole images, as far as a network of five scales takes them.
        values["train.crop"] = [side // 32 * 32 for side in sides]
    for key in values.keys() & {"model.mean", "model.std"}:
        values[key] = [values[key]] * bands
    return values


def same(values: Mapping[str, Any], config: Mapping[str, Any]) -> bool:
    """Tell whether a derived configuration has these values anyway."""
    return all(config[key.split(".")[0]][key.split(".")[1]] == value for key, value in values.items())


def work(args: argparse.Namespace, name: str, choice: str, seed: int, length: str) -> None:
    path, values = result_path(name, choice, seed, length, args.results), fixed(name, choice)
    if path.exists():
        return
    if values and same(values, read(result_path(name, DERIVED, seed, length, args.results))["config"]):
        print(f"{name}, {choice}, seed {seed}: as derived", file=sys.stderr, flush=True)
        return
    folder = Path(tempfile.mkdtemp())
    try:
        facts = {"set": name, "choice": choice, "fixed": values, "seed": seed, "length": length}
        facts |= measured(args, name, values, seed, folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    args.results.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")
    told = f"{name}, {choice}, seed {seed}: test mIoU {facts['miou']:.4f}, {facts['steps']} steps"
    print(told, file=sys.stderr, flush=True)


def measured(args: argparse.Namespace, name: str, values: Mapping[str, Any], seed: int, folder: Path) -> dict[str, Any]:
    """Train and score; the run lies in a folder that is thrown away."""
    import torch

    import pixelwise

    recipe = "magnetic_tile" if name == "fine_defects" else name
    root = (args.root / recipe).resolve()
    described, where = RECIPES / f"{recipe}.yaml", [f"data.root={root}"]
    if name == "fine_defects":
        where.append(FINE_DEFECTS)
    if name == "camvid":
        described, where = subset(root, 10**6, 0, folder / "camvid"), []
        listed = described.parent / "val.txt"
        listed.write_text("".join(f"{line}\n" for line in listed.read_text().split()[::8]))
    overrides = (*where, *TRAINING_ALONE, *(f"{key}={json.dumps(value)}" for key, value in values.items()))
    limits: dict[str, Any] = {"steps": args.steps} if args.steps else {"time_limit": args.seconds}
    run = pixelwise.train(described, out=folder / "run", seed=seed, overrides=overrides, **limits)
    scores = pixelwise.evaluate(run.model, described, overrides=where).scores.to_dict()
    config = yaml.safe_load((run.folder / "config.yaml").read_text(encoding="utf-8"))
    events = [json.loads(line) for line in (run.folder / "log.jsonl").read_text(encoding="utf-8").splitlines()]
    facts = {"steps": max(e.get("step", 0) for e in events), "seconds": max(e.get("seconds", 0.0) for e in events)}
    facts |= {"miou": scores["miou"], "val_miou": max(e["miou"] for e in events if e["event"] == "validation")}
    facts |= {"classes": {c["name"]: c["iou"] for c in scores["classes"]}}
    facts |= {"torch": torch.__version__, "processor": processor(), "cores": torch.get_num_threads()}
    return facts | {"config": {section: config[section] for section in ("model", "train", "augment", "loss")}}


def read(path: Path) -> dict[str, Any]:
    plain: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return plain


def table(length: str = f"{SECONDS:g}s", results: Path = RESULTS) -> str:
    """Give test mIoU as derived and with each choice fixed, and what the derived one is ahead, seed by seed."""
    lines = ["| set | choice | in its place | derived | fixed | derived is ahead by |", "|---" * 6 + "|"]
    for name in SETS:
        derived = found(name, DERIVED, length, results)
        for choice in choices(name):
            other = found(name, choice, length, results)
            words = CHOICES[choice][0] if choice in CHOICES else "all at once"
            values = fixed(name, choice)
            if derived and all(same(values, facts["config"]) for facts in derived.values()):
                lines.append(f"| {name} | {choice} | {words} | | | the same here |")
            elif seeds := sorted(derived.keys() & other.keys()):
                ours, theirs = ([100 * runs[seed]["miou"] for seed in seeds] for runs in (derived, other))
                ahead = [a - b for a, b in zip(ours, theirs, strict=True)]
                cells = f"{spread(ours)} | {spread(theirs)} | {spread(ahead, '+')}, n = {len(seeds)}"
                lines.append(f"| {name} | {choice} | {words} | {cells} |")
    return "\n".join(lines) if len(lines) > 2 else "Not measured yet: the command above does it."


def found(name: str, choice: str, length: str, results: Path) -> dict[int, dict[str, Any]]:
    """Give the runs so far by seed."""
    paths = {seed: result_path(name, choice, seed, length, results) for seed in SEEDS}
    return {seed: read(path) for seed, path in paths.items() if path.exists()}


def spread(values: Sequence[float], sign: str = "") -> str:
    """Give the mean, and the least and the most."""
    mean, low, high = (f"{v:{sign}.1f}" for v in (statistics.mean(values), min(values), max(values)))
    return f"{mean} ({low} to {high})" if sign else f"{mean} ({low}–{high})"


if __name__ == "__main__":
    main()
