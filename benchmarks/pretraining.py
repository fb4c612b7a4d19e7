"""What pretraining is worth: CamVid with 10, 30, 100 and 367 images, from scratch and after drawn road scenes.

    python -m benchmarks.pretraining --root data --model unet

Comes in: the folder with the sets. Goes out: one JSON file per run in `benchmarks/results/pretraining/`, the table with
`--table`. First a network learns all materials of the drawn scenes; then, per number of images and seed, one network begins
with its weights (the head is new) and one with fresh ones, with equal time. Runs that are done are not done again.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import statistics
import sys
from pathlib import Path

import yaml

from benchmarks.protocol import RECIPES, TRAINING_ALONE, processor

RESULTS = Path(__file__).parent / "results" / "pretraining"
MATERIALS = ("background", "sky", "terrain", "vegetation", "building", "pole", "pavement", "road", "lane marking",
             "vehicle", "pedestrian")  # fmt: skip
COUNTS, SEEDS, ARMS = (10, 30, 100, 367), (0, 1, 2), ("scratch", "drawn")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", type=Path, help="folder with the data sets")
    parser.add_argument("--model", default="unet")
    parser.add_argument("--pretraining", type=float, default=10.0, help="minutes on the drawn scenes")
    parser.add_argument("--minutes", type=float, default=2.0, help="of each run on CamVid")
    parser.add_argument("--count", type=int, action="append", dest="counts")
    parser.add_argument("--seed", type=int, action="append", dest="seeds")
    parser.add_argument("--out", type=Path, default=Path("runs") / "pretraining")
    parser.add_argument("--table", action="store_true", help="print the results so far and stop")
    args = parser.parse_args()
    if not args.table:
        if args.root is None:
            parser.error("--root: expected the folder with the data sets, found none. Name it, or say --table.")
        source = pretrained(args)
        for seed in args.seeds or SEEDS:
            for count in args.counts or COUNTS:
                for arm in ARMS:
                    path = result_path(args.model, arm, count, seed, args.minutes)
                    if not path.exists():
                        work(args, arm, count, seed, source, path)
    print(table(args.model, args.minutes))


def result_path(model: str, arm: str, count: int, seed: int, minutes: float) -> Path:
    return RESULTS / f"{model.replace('/', '_')}-{minutes:g}min-{arm}-{count}-{seed}.json"


def pretrained(args: argparse.Namespace) -> Path:
    import pixelwise
    from pixelwise.demo.synthetic import write_road_scenes

    data, run = args.out / "scenes", args.out / f"drawn-{args.model.replace('/', '_')}"
    if not data.exists():
        write_road_scenes(data, train=600, val=40, test=0, size=(360, 480), classes=MATERIALS)
    if not (run / "scores.json").exists():
        print(f"{args.pretraining:g} minutes on drawn scenes", file=sys.stderr, flush=True)
        pixelwise.train(data, model=args.model, out=run, seed=0, time_limit=args.pretraining * 60)
    return run / "model"


def work(args: argparse.Namespace, arm: str, count: int, seed: int, source: Path, path: Path) -> None:
    import pixelwise

    described = subset(args.root / "camvid", count, seed, args.out / f"camvid-{count}-{seed}")
    run = pixelwise.train(
        described,
        model=args.model,
        weights=source if arm == "drawn" else None,
        out=args.out / f"{args.model.replace('/', '_')}-{arm}-{count}-{seed}",
        seed=seed,
        time_limit=args.minutes * 60,
        overrides=TRAINING_ALONE,
    )
    scores = pixelwise.evaluate(run.model, described).scores.to_dict()
    scores.pop("confusion")
    facts = {"model": args.model, "arm": arm, "pictures": count, "seed": seed, "minutes": args.minutes}
    facts |= {"pretraining": args.pretraining, "processor": processor(), "scores": scores}
    RESULTS.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(facts, indent=1) + "\n")
    print(f"{count} images, {arm}, seed {seed}: mIoU {scores['miou']:.4f}", file=sys.stderr, flush=True)


def subset(root: Path, count: int, seed: int, folder: Path) -> Path:
    """Describe CamVid with `count` of its training images, the first by SHA-256 of (seed, name)."""
    folder.mkdir(parents=True, exist_ok=True)
    recipe = yaml.safe_load((RECIPES / "camvid.yaml").read_text())["data"]
    names = {split: sorted(p.stem for p in (root / split).glob("*.jpg")) for split in ("train", "val", "test")}
    names["train"] = sorted(names["train"], key=lambda n: hashlib.sha256(f"{seed}:{n}".encode()).digest())[:count]
    for split, stems in names.items():
        (folder / f"{split}.txt").write_text("".join(f"{split}/{stem}\n" for stem in stems))
    data = {
        "root": str(root.resolve()),
        "images": [f"{split}/*.jpg" for split in names],
        "masks": "{parent}annot/{stem}.png",
        **{split: f"{split}.txt" for split in names},
        "labels": recipe["labels"],
    }
    (folder / "data.yaml").write_text(yaml.safe_dump(data, sort_keys=False))
    return folder / "data.yaml"


def table(model: str, minutes: float) -> str:
    """Give the mean, and the least and most over the seeds, per number of images."""
    lines = ["| CamVid images | from scratch | after drawn scenes |", "|---|---|---|"]
    for count in COUNTS:
        cells = []
        for arm in ARMS:
            paths = [result_path(model, arm, count, seed, minutes) for seed in SEEDS]
            values = [100 * json.loads(p.read_text())["scores"]["miou"] for p in paths if p.exists()]
            spread = (
                f"{statistics.mean(values):.1f} ({min(values):.1f}–{max(values):.1f}, n = {len(values)})"
                if values
                else "–"
            )
            cells.append(spread)
        lines.append(f"| {count} | {' | '.join(cells)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
