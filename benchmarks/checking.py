"""Time and memory of `pixelwise check`.

    python -m benchmarks.checking                # measure, write benchmarks/results/checking.json, print the table

The images are synthetic road scenes of CamVid's size, 480×360: JPEG of quality 90 with PNG masks of eleven classes. Timed are
the inspection of all images (decoding, statistics, hashes) in one process and in one process per core, and all checks. Times are
medians after a warm-up round. Memory is what the inspection adds to a fresh process, at the end and at its peak (Linux), with the
same files listed repeatedly. Finally, all checks run on 100,000 synthetic inspections, a fifth of them in val, since their cost
grows with the number of pairs. Every tenth image of train has a near-duplicate in val, turned or mirrored.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from benchmarks.protocol import added_memory, processor, read_json, write_json
from pixelwise.checking import Inspection, Survey, run_checks, take_survey
from pixelwise.checking.signature_search import SYMMETRIES, frequencies, turn
from pixelwise.config import DataConfig
from pixelwise.datasets.dataset import DataSplits, open_data
from pixelwise.demo.synthetic import draw_scene, road_labels
from pixelwise.machine import cores

RESULT = Path(__file__).parent / "results" / "checking.json"
SIZE = (360, 480)
CLASSES = ("background", "road", "vehicle", "pedestrian", "sky", "terrain", "vegetation", "building", "pole", "pavement", "lane marking")  # fmt: skip
COUNTS, MANY = (2_000, 10_000), 100_000


def draw(folder: Path, images: int) -> None:
    """Write a synthetic data set, four in five images for train."""
    palette = [value for colour in road_labels(CLASSES).colours for value in colour]
    for k in range(images):
        image, mask = draw_scene(0, k, SIZE, CLASSES)
        split = folder / ("val" if k % 5 == 4 else "train")
        for kind in ("images", "masks"):
            (split / kind).mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.moveaxis(image, 0, -1)).save(split / "images" / f"{k:05}.jpg", quality=90)
        coloured = Image.fromarray(mask)
        coloured.putpalette(palette)
        coloured.save(split / "masks" / f"{k:05}.png")
    (folder / "labels.yaml").write_text(json.dumps({"names": list(CLASSES)}), encoding="utf-8")


def time_inspection(folder: Path, rounds: int) -> list[dict[str, Any]]:
    """Time the inspection in one process and in one per core, alternating, and the checks."""
    splits = open_data(DataConfig(), folder)
    total = sum(len(split) for split in splits)
    taken: dict[int, list[float]] = {0: [], cores(): []}
    check_seconds = []
    for number in range(rounds + 1):
        for workers, seconds in taken.items():
            began = time.perf_counter()
            survey = take_survey(splits, workers=workers)
            seconds += [time.perf_counter() - began] if number else []
        began = time.perf_counter()
        run_checks(survey)
        check_seconds.append(time.perf_counter() - began)
    rows = [{"processes": w or 1, "per_second": total / statistics.median(s)} for w, s in taken.items()]
    return [*rows, {"judge_seconds": statistics.median(check_seconds), "pictures": total}]


def repeated(splits: DataSplits, count: int) -> DataSplits:
    """Repeat the train images until there are `count`."""
    assert splits.train is not None
    return replace(splits, train=splits.train.subset(k % len(splits.train) for k in range(count)), val=None)


def memory(folder: Path, count: int) -> dict[str, Any]:
    """Measure the memory that a survey of `count` images adds to a fresh process, MiB."""
    command = [sys.executable, "-m", "benchmarks.checking", "--memory", str(folder), "--count", str(count)]
    return dict(json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout))


def _print_memory(folder: Path, count: int) -> None:
    splits = open_data(DataConfig(), folder)
    take_survey(repeated(splits, 64), workers=0)  # load what is loaded on first use
    splits = repeated(splits, count)
    kept, peak = added_memory(lambda: take_survey(splits, workers=0))
    print(json.dumps({"pictures": count, "kept_mib": kept / 2**20, "peak_mib": peak / 2**20}))


def time_many(folder: Path) -> dict[str, Any]:
    """Time all checks of many inspections, derived from real ones with other signatures and file digests."""
    splits = open_data(DataConfig(), folder)
    assert splits.val is not None
    inspections = take_survey(repeated(splits, 512), workers=0).inspections
    outside = MANY // 5
    val = splits.val.subset(k % len(splits.val) for k in range(outside))
    splits = replace(repeated(splits, MANY - outside), val=val)
    rng = np.random.default_rng(0)
    spectrum = 1 / np.hypot(*frequencies())  # as in photographs
    waves = rng.standard_normal((MANY, 143)) * spectrum
    copies = MANY // 10
    turned = turn(waves[:copies].astype(np.float32), rng.integers(0, len(SYMMETRIES), copies))
    waves[-copies:] = turned + 0.02 * rng.standard_normal((copies, 143)) * spectrum
    waves *= 127 / np.linalg.norm(waves, axis=1, keepdims=True)
    rows = np.rint(waves).astype(np.int8)
    synthetic: list[Inspection] = [
        replace(
            inspections[k % len(inspections)],
            split="train" if k < MANY - outside else "val",
            index=k if k < MANY - outside else k - MANY + outside,
            digest=k.to_bytes(16, "big"),
            signature=rows[k].tobytes(),
        )
        for k in range(MANY)
    ]
    survey = Survey(splits, tuple(synthetic))
    began = time.perf_counter()
    findings = run_checks(survey)
    seconds = time.perf_counter() - began
    found = next(finding.count for finding in findings if finding.kind == "near-duplicates-across-parts")
    if found < 1.9 * copies:
        raise SystemExit(f"expected {2 * copies} near-duplicates, found {found}.")
    return {"pictures": MANY, "judge_seconds": seconds}


def table() -> str:
    """Return a table of the committed measurements."""
    data = read_json(RESULT)
    lines = ["| | |", "|---|---|"]
    for row in data["looks"]:
        where = "one process" if row["processes"] == 1 else f"{row['processes']} processes"
        lines.append(f"| images per second, {where} | {row['per_second']:.0f} |")
    for row in data["memory"]:
        cells = f"{row['pictures']:,} images, MiB (peak) | {row['kept_mib']:.1f} ({row['peak_mib']:.1f})"
        lines.append(f"| memory added by inspecting {cells} |")
    for row in data["judge"]:
        lines.append(f"| all checks of {row['pictures']:,} images, s | {row['judge_seconds']:.2f} |")
    size = f"{SIZE[1]}×{SIZE[0]}, JPEG with PNG mask"
    return "\n".join(
        [*lines, "", f"{data['pictures']} synthetic images, {size}; {data['rounds']} rounds on {data['machine']}."]
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--memory", help=argparse.SUPPRESS)
    parser.add_argument("--count", type=int, default=COUNTS[0], help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.memory:
        _print_memory(Path(options.memory), options.count)
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        draw(folder, options.images)
        *speeds, checks = time_inspection(folder, options.rounds)
        grown = [memory(folder, count) for count in COUNTS]
        many = time_many(folder)
    machine = f"{cores()} cores of {processor()}"
    data = {"machine": machine, "pictures": options.images, "rounds": options.rounds}
    data |= {"looks": speeds, "memory": grown, "judge": [checks, many]}
    write_json(RESULT, data)
    print(table())


if __name__ == "__main__":
    main()
