"""Ablation of the derived configuration: one derived choice at a time is replaced by what a plain script would use.

    python -m benchmarks.ablation --root data            # four data sets, three seeds, three hours; resumable
    python -m benchmarks.ablation --root data --only camvid --seeds 0
    python -m benchmarks.ablation --root data --network fpn    # 11 choices, four sets, 11 hours
    OMP_NUM_THREADS=1 taskset -c 0 python -m benchmarks.ablation …    # run two of these in parallel, one per core
    python -m benchmarks.ablation --table

Writes one JSON file per run to `benchmarks/results/ablation/` and prints the table. All runs have equal time, including
preparation. The score of the U-Net is the test mIoU of the model with the best val score (of CamVid every eighth val image,
since a large network would spend its time on validation); that of the network with a pretrained encoder is its val mIoU, since
its rules are chosen with this table. Finished runs are not repeated. If the plain value equals the derived one, the run
is skipped. The machine must be otherwise idle.
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
from benchmarks.protocol import (
    NOT_MEASURED,
    RECIPES,
    TRAINING_ALONE,
    last_step,
    machine,
    parse,
    parser_with_root,
    read_json,
    read_log,
    version,
    write_json,
)

RESULTS = Path(__file__).parent / "results" / "ablation"
SEEDS = (0, 1, 2)
# Network → data set → size of the images; None if they have various sizes, so that no crop size fits them all, or if the
# network has no choice of crop.
SETS: Mapping[str, Mapping[str, tuple[int, int] | None]] = {
    "unet": {"camvid": (360, 480), "drive": (584, 565), "aerial_roads": (400, 400), "fine_defects": None},
    "fpn": {"camvid": None, "drive": None, "magnetic_tile": None, "aerial_roads": None},
}
# Network → seconds of each run, and the split whose mIoU is in the table.
SECONDS: Mapping[str, float] = {"unet": 90.0, "fpn": 240.0}
SCORED: Mapping[str, str] = {"unet": "test", "fpn": "val"}
KEYS = {"test": "miou", "val": "val_miou"}
# Only blowholes and cracks, 0.3 % of the pixels: two classes, one of them rare.
FINE_DEFECTS = 'data.images=["MT_Blowhole/Imgs/*.jpg", "MT_Crack/Imgs/*.jpg"]'
# ALL excludes the plain network: on whole images, a CPU does not finish one step with it in this time.
DERIVED, ALL = "derived", "all but the network"
# Choice → what a plain script does: its description and overrides of the configuration.
UNET: Mapping[str, tuple[str, Mapping[str, Any]]] = {
    "normalisation": (
        "mean and standard deviation of half the range",
        {"model.mean": 127.5, "model.std": 127.5, "model.clip": "none"},  # for each band, see `fixed`
    ),
    "crop": ("whole images", {"train.crop": None}),  # see `fixed`
    "class weights": ("none", {"loss.class_weights": "none"}),
    "sampling": ("crops at random positions", {"train.class_crops": 0.0}),
    "augmentation": (
        "horizontal flips only",
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
    "head's rate": ("same as other layers", {"train.head_rate": 1.0}),
    "network": ("full resolution, 32 to 256 channels", {"model.stem": 1, "model.features": [32, 64, 128, 256]}),
    "loss": ("cross-entropy", {"loss.cross_entropy": 1.0, "loss.dice": 0.0}),
}
FPN: Mapping[str, tuple[str, Mapping[str, Any]]] = {
    "copies": ("one copy of each image", {"train.copies": 1}),
    "fine features": ("features of stride 2 and a full-resolution stem", {"model.fine": True}),
    "no fine features": ("neither of them", {"model.fine": False}),
    "narrow decoder": ("32 channels", {"model.width": 32}),
    "wide decoder": ("128 channels", {"model.width": 128}),
    "larger encoder": ("EfficientNet-Lite2", {"model.encoder": "tf_efficientnet_lite2"}),
    "stored features": ("encoder computed in every step", {"train.copies": 0}),
    "unfreezing": ("encoder frozen to the end", {"train.unfreeze_start": 1.0, "train.unfreeze": 1.0}),
    "frozen encoder": ("all layers from the start", {"train.freeze": "none"}),
    "class weights": ("none", {"loss.class_weights": "none"}),
    "loss": ("cross-entropy", {"loss.cross_entropy": 1.0, "loss.dice": 0.0}),
}
CHOICES: Mapping[str, Mapping[str, tuple[str, Mapping[str, Any]]]] = {"unet": UNET, "fpn": FPN}


def main() -> None:
    parser = parser_with_root(__doc__)
    parser.add_argument("--network", choices=tuple(CHOICES), default="unet")
    parser.add_argument("--only", action="append", help="data set (repeatable); default: all of the network")
    parser.add_argument("--choice", action="append", help="choice (repeatable); default: all of the network")
    parser.add_argument("--seeds", type=int, nargs="+", default=SEEDS)
    parser.add_argument("--seconds", type=float, help="time of each run; default: 90 (unet), 240 (fpn)")
    parser.add_argument("--steps", type=int, help="instead of --seconds, for a trial")
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder for the results")
    args = parse(parser)
    network = args.network
    for given, known in ((args.only, SETS[network]), (args.choice, (*CHOICES[network], ALL))):
        for name in given or ():
            if name not in known:
                parser.error(f"{name}: expected one of {', '.join(known)} for {network}.")
    args.seconds = args.seconds or SECONDS[network]
    length = f"{args.steps}steps" if args.steps else f"{args.seconds:g}s"
    if not args.table:
        # Seeds are the outer loop, so that an interrupted benchmark has complete comparisons.
        for seed in args.seeds:
            for name in args.only or SETS[network]:
                for choice in (DERIVED, *choices(network, name)):
                    if choice in (DERIVED, *(args.choice or choices(network, name))):
                        work(args, name, choice, seed, length)
    print(table(network, length, args.results))


def result_path(network: str, name: str, choice: str, seed: int, length: str, results: Path = RESULTS) -> Path:
    return results / network / f"{name}-{length}-{choice.replace(' ', '_').replace(chr(39), '')}-{seed}.json"


def choices(network: str, name: str) -> tuple[str, ...]:
    """Return the choices that can be replaced for a data set."""
    single = tuple(choice for choice in CHOICES[network] if choice != "crop" or SETS[network][name])
    return (*single, ALL) if network == "unet" else single


def fixed(network: str, name: str, choice: str) -> dict[str, Any]:
    """Return what replaces the derived values: dotted key → value."""
    if choice == DERIVED:
        return {}
    if choice == ALL:
        return {
            key: value
            for each in choices(network, name)
            if each not in ("network", ALL)
            for key, value in fixed(network, name, each).items()
        }
    values, sides, bands = dict(CHOICES[network][choice][1]), SETS[network][name], 1 if name == "fine_defects" else 3
    if "train.crop" in values and sides:
        # The largest multiples of 32 within the image.
        values["train.crop"] = [side // 32 * 32 for side in sides]
    for key in values.keys() & {"model.mean", "model.std"}:
        values[key] = [values[key]] * bands
    return values


def same(values: Mapping[str, Any], config: Mapping[str, Any]) -> bool:
    """Whether a derived configuration already has these values."""
    return all(config[key.split(".")[0]][key.split(".")[1]] == value for key, value in values.items())


def work(args: argparse.Namespace, name: str, choice: str, seed: int, length: str) -> None:
    network = args.network
    path, values = result_path(network, name, choice, seed, length, args.results), fixed(network, name, choice)
    if path.exists():
        return
    derived = result_path(network, name, DERIVED, seed, length, args.results)
    if values and same(values, read_json(derived)["config"]):
        print(f"{name}, {choice}, seed {seed}: same as derived", file=sys.stderr, flush=True)
        return
    folder = Path(tempfile.mkdtemp())
    try:
        facts = {"set": name, "choice": choice, "fixed": values, "seed": seed, "length": length}
        facts |= measured(args, name, values, seed, folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    write_json(path, facts)
    score = facts[KEYS[SCORED[network]]]
    message = f"{name}, {choice}, seed {seed}: {SCORED[network]} mIoU {score:.4f}, {facts['steps']} steps"
    print(message, file=sys.stderr, flush=True)


def measured(args: argparse.Namespace, name: str, values: Mapping[str, Any], seed: int, folder: Path) -> dict[str, Any]:
    """Train in a temporary folder and score."""
    import pixelwise

    recipe = "magnetic_tile" if name == "fine_defects" else name
    root = (args.root / recipe).resolve()
    description, location = RECIPES / f"{recipe}.yaml", [f"data.root={root}"]
    if name == "fine_defects":
        location.append(FINE_DEFECTS)
    if name == "camvid" and args.network == "unet":
        description, location = subset(root, 10**6, 0, folder / "camvid"), []
        val_list = description.parent / "val.txt"
        val_list.write_text("".join(f"{line}\n" for line in val_list.read_text().split()[::8]))
    overrides = (*location, *TRAINING_ALONE, *(f"{key}={json.dumps(value)}" for key, value in values.items()))
    limits: dict[str, Any] = {"steps": args.steps} if args.steps else {"time_limit": args.seconds}
    run = pixelwise.train(description, model=args.network, out=folder / "run", seed=seed, overrides=overrides, **limits)
    config = yaml.safe_load((run.folder / "config.yaml").read_text(encoding="utf-8"))
    facts: dict[str, Any] = {"seconds": max(event.get("seconds", 0.0) for event in read_log(run.folder))}
    facts |= {"steps": last_step(run.folder), "val_miou": run.scores["miou"], "commit": version()}
    scores = run.scores
    if SCORED[args.network] == "test":
        scores = pixelwise.evaluate(run.model, description, overrides=location).scores.to_dict()
        facts["miou"] = scores["miou"]
    facts["classes"] = {c["name"]: c["iou"] for c in scores["classes"]}
    return (
        facts | machine() | {"config": {section: config[section] for section in ("model", "train", "augment", "loss")}}
    )


def table(network: str = "unet", length: str | None = None, results: Path = RESULTS) -> str:
    """Return a table of mIoU as derived and with each choice replaced, and the difference per seed."""
    length = length or f"{SECONDS[network]:g}s"
    key = KEYS[SCORED[network]]
    lines = ["| set | choice | replaced by | derived | replaced | derived − replaced |", "|---" * 6 + "|"]
    for name in SETS[network]:
        derived = found(network, name, DERIVED, length, results)
        for choice in choices(network, name):
            other = found(network, name, choice, length, results)
            replacement = CHOICES[network][choice][0] if choice in CHOICES[network] else "all at once"
            values = fixed(network, name, choice)
            if derived and all(same(values, facts["config"]) for facts in derived.values()):
                lines.append(f"| {name} | {choice} | {replacement} | | | same value |")
            elif seeds := sorted(derived.keys() & other.keys()):
                derived_values, other_values = ([100 * runs[seed][key] for seed in seeds] for runs in (derived, other))
                ahead = [a - b for a, b in zip(derived_values, other_values, strict=True)]
                cells = f"{mean_and_range(derived_values)} | {mean_and_range(other_values)} | {mean_and_range(ahead, '+')}, n = {len(seeds)}"
                lines.append(f"| {name} | {choice} | {replacement} | {cells} |")
    return "\n".join(lines) if len(lines) > 2 else NOT_MEASURED


def found(network: str, name: str, choice: str, length: str, results: Path) -> dict[int, dict[str, Any]]:
    """Return the results so far by seed."""
    paths = {seed: result_path(network, name, choice, seed, length, results) for seed in SEEDS}
    return {seed: read_json(path) for seed, path in paths.items() if path.exists()}


def mean_and_range(values: Sequence[float], sign: str = "") -> str:
    """Format the mean and the range."""
    mean, low, high = (f"{v:{sign}.1f}" for v in (statistics.mean(values), min(values), max(values)))
    return f"{mean} ({low} to {high})" if sign else f"{mean} ({low}–{high})"


if __name__ == "__main__":
    main()
