"""The value of pretraining: CamVid with 10, 30, 100 and 367 images, from scratch and after synthetic road scenes.

    python -m benchmarks.pretraining --root data --model unet

Writes one JSON file per run to `benchmarks/results/pretraining/` and prints the table. First, a network is trained on all
classes of the synthetic scenes; then, per number of images and seed, one network starts from its weights (with a new head) and
one from random weights, with equal training time. Finished runs are not repeated.
"""

from __future__ import annotations

import argparse
import hashlib
import sys
from pathlib import Path

import yaml

from benchmarks.protocol import (
    RECIPES,
    TRAINING_ALONE,
    parse,
    parser_with_root,
    processor,
    read_json,
    spread,
    write_json,
)

RESULTS = Path(__file__).parent / "results" / "pretraining"
MATERIALS = ("background", "sky", "terrain", "vegetation", "building", "pole", "pavement", "road", "lane marking",
             "vehicle", "pedestrian")  # fmt: skip
COUNTS, SEEDS, ARMS = (10, 30, 100, 367), (0, 1, 2), ("scratch", "drawn")


def main() -> None:
    parser = parser_with_root(__doc__)
    parser.add_argument("--model", default="unet")
    parser.add_argument("--pretraining", type=float, default=10.0, help="minutes of training on the synthetic scenes")
    parser.add_argument("--minutes", type=float, default=2.0, help="minutes of each run on CamVid")
    parser.add_argument("--count", type=int, action="append", dest="counts")
    parser.add_argument("--seed", type=int, action="append", dest="seeds")
    parser.add_argument("--out", type=Path, default=Path("runs") / "pretraining")
    args = parse(parser)
    if not args.table:
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
        print(f"{args.pretraining:g} minutes on synthetic scenes", file=sys.stderr, flush=True)
        pixelwise.train(data, model=args.model, out=run, seed=0, time_limit=args.pretraining * 60)
    return run / "model"


def work(args: argparse.Namespace, arm: str, count: int, seed: int, source: Path, path: Path) -> None:
    import pixelwise

    description = subset(args.root / "camvid", count, seed, args.out / f"camvid-{count}-{seed}")
    run = pixelwise.train(
        description,
        model=args.model,
        weights=source if arm == "drawn" else None,
        out=args.out / f"{args.model.replace('/', '_')}-{arm}-{count}-{seed}",
        seed=seed,
        time_limit=args.minutes * 60,
        overrides=TRAINING_ALONE,
    )
    scores = pixelwise.evaluate(run.model, description).scores.to_dict()
    scores.pop("confusion")
    facts = {"model": args.model, "arm": arm, "pictures": count, "seed": seed, "minutes": args.minutes}
    facts |= {"pretraining": args.pretraining, "processor": processor(), "scores": scores}
    write_json(path, facts)
    print(f"{count} images, {arm}, seed {seed}: mIoU {scores['miou']:.4f}", file=sys.stderr, flush=True)


def subset(root: Path, count: int, seed: int, folder: Path) -> Path:
    """Write a data.yaml for CamVid with `count` of its training images, the first by SHA-256 of (seed, name)."""
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
    """Return a table of test mIoU over the seeds per number of images."""
    lines = ["| CamVid images | from scratch | after synthetic scenes |", "|---|---|---|"]
    for count in COUNTS:
        cells = []
        for arm in ARMS:
            paths = [result_path(model, arm, count, seed, minutes) for seed in SEEDS]
            cells.append(spread([100 * read_json(path)["scores"]["miou"] for path in paths if path.exists()]))
        lines.append(f"| {count} | {' | '.join(cells)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
