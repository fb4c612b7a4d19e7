"""Time and memory of the stored features of a frozen encoder, per megapixel, with 100 and 500 images of CamVid.

    python -m benchmarks.feature_cache --root data        # two runs, a few minutes
    python -m benchmarks.feature_cache --table            # print the committed results as Markdown

One copy of each image. Images of all three splits are used, since nothing is scored. One process per run. Writes one JSON file
per run to `benchmarks/results/feature_cache/`. Larger numbers of images are extrapolated from the largest one, and marked.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import yaml
from PIL import Image

from benchmarks.protocol import (
    NOT_MEASURED,
    RECIPES,
    machine,
    parse,
    parser_with_root,
    read_json,
    read_log,
    run_each,
    version,
    write_json,
)

RESULTS = Path(__file__).parent / "results" / "feature_cache"
COUNTS, EXTRAPOLATED = (100, 500), (10_000,)
_VAL = 4  # images; validation is not measured
_OVERRIDES = ("train.copies=1", "train.freeze=encoder", "evaluate.metrics=[]", "evaluate.report=false")


def main() -> None:
    parser = parser_with_root(__doc__)
    parser.add_argument("--count", type=int, action="append", dest="counts", help="images (repeatable)")
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder for the results")
    parser.add_argument("--one", nargs=1, type=int, metavar="COUNT", help=argparse.SUPPRESS)
    args = parse(parser)
    if args.one:
        run_one(args.one[0], args)
        return
    if not args.table:
        run_each("feature_cache", args, runs(args))
    print(table(args.results))


def runs(args: argparse.Namespace) -> Iterator[tuple[Path, Sequence[object]]]:
    """Yield result file and number of images of each run."""
    for count in args.counts or COUNTS:
        yield args.results / f"{count}.json", (count,)


def run_one(count: int, args: argparse.Namespace) -> None:
    """Store the features of some images, and write time and size."""
    import pixelwise

    with tempfile.TemporaryDirectory() as place:
        description, megapixels = write_description(args.root / "camvid", count, Path(place))
        run = pixelwise.train(description, model="fpn", out=Path(place) / "run", seed=0, steps=2, overrides=_OVERRIDES)
        stored = next(event for event in read_log(run.folder) if event["event"] == "features stored")
        config = yaml.safe_load((run.folder / "config.yaml").read_text(encoding="utf-8"))
    if stored["stored"] != count:
        raise SystemExit(f"Features of {stored['stored']} of {count} images were stored: free memory or disk space.")
    facts: dict[str, Any] = {"images": count, "megapixels": megapixels, "commit": version(), "model": config["model"]}
    facts |= {key: stored[key] for key in ("seconds", "bytes", "place")}
    write_json(args.results / f"{count}.json", facts | machine())


def write_description(root: Path, count: int, folder: Path) -> tuple[Path, float]:
    """Write a data.yaml with `count` images of CamVid for training; return its path and the megapixels of these images."""
    splits = ("train", "val", "test")
    every = [f"{split}/{path.stem}" for split in splits for path in sorted((root / split).glob("*.jpg"))]
    lists = {"train": every[:count], "val": every[count : count + _VAL]}
    if not lists["val"]:
        raise SystemExit(f"{root}: expected more than {count} images, found {len(every)}.")
    for split, names in lists.items():
        (folder / f"{split}.txt").write_text("".join(f"{name}\n" for name in names))
    data = {
        "root": str(root.resolve()),
        "images": [f"{split}/*.jpg" for split in splits],
        "masks": "{parent}annot/{stem}.png",
        **{split: f"{split}.txt" for split in lists},
        "labels": yaml.safe_load((RECIPES / "camvid.yaml").read_text())["data"]["labels"],
    }
    path = folder / "data.yaml"
    path.write_text(yaml.safe_dump(data, sort_keys=False))
    megapixels = 0.0
    for name in lists["train"]:
        with Image.open(root / f"{name}.jpg") as image:
            megapixels += image.width * image.height / 1e6
    return path, megapixels


def table(results: Path = RESULTS) -> str:
    """Return the results as Markdown, with extrapolated rows at the end."""
    measured = sorted((read_json(path) for path in results.glob("*.json")), key=lambda facts: facts["images"])
    if not measured:
        return NOT_MEASURED
    lines = [
        "| images | megapixels | time | s per megapixel | size | MiB per megapixel | stored in |",
        "|---:|---:|---:|---:|---:|---:|---|",
        *(_row(f"{facts['images']:,}", facts, 1.0, facts["place"]) for facts in measured),
    ]
    largest = measured[-1]
    for count in EXTRAPOLATED:
        lines.append(_row(f"{count:,} (extrapolated)", largest, count / largest["images"], "–"))
    about = f"{largest['cores']} cores of {largest['processor']}, torch {largest['torch']}"
    encoder = f"One copy per image, encoder {largest['model']['encoder']}, fp16"
    return "\n".join([*lines, "", f"{encoder}; {about}; pixelwise at {largest['commit']}."])


def _row(title: str, facts: dict[str, Any], factor: float, place: str) -> str:
    pixels, seconds, size = (
        factor * value for value in (facts["megapixels"], facts["seconds"], facts["bytes"] / 2**20)
    )
    return (
        f"| {title} | {pixels:,.0f} | {seconds:,.0f} s | {seconds / pixels:.2f} | {size:,.0f} MiB | {size / pixels:.0f} "
        f"| {place} |"
    )


if __name__ == "__main__":
    main()
