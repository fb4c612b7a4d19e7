"""How fast a data set is checked, and what memory that takes.

    python -m benchmarks.checking                # measures, writes benchmarks/results/checking.json, prints the table

The images are drawn road scenes of CamVid's size, 480×360: JPEG of quality 90 with PNG masks of eleven classes. What is
timed is every look at them (decoding, statistics, hashes) in one process, in one per core, and then all checks. A first round
brings the files into the system's cache and is not counted; of the others the median is kept. Memory is what looking at so many
images adds to a fresh process, at the end and at its peak (Linux); for it the same files are listed again and again. Last,
checks are made of 100,000 images that nobody drew, of which every tenth has a near copy: what grows with the number of pairs.
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

from benchmarks.protocol import processor
from pixelwise.checking import Inspection, Survey, run_checks, take_survey
from pixelwise.checking.survey import count_cores
from pixelwise.config import DataConfig
from pixelwise.datasets.dataset import DataSplits, open_data
from pixelwise.demo.synthetic import draw_scene, road_labels

RESULT = Path(__file__).parent / "results" / "checking.json"
SIZE = (360, 480)
CLASSES = ("background", "road", "vehicle", "pedestrian", "sky", "terrain", "vegetation", "building", "pole", "pavement", "lane marking")  # fmt: skip
COUNTS, MANY = (2_000, 10_000), 100_000


def draw(folder: Path, images: int) -> None:
    """Draw a data set, four in five images for train."""
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


def time_looks(folder: Path, rounds: int) -> list[dict[str, Any]]:
    """Time the looks in one process and in as many as there are cores, by turns; and the checks."""
    splits = open_data(DataConfig(), folder)
    total = sum(len(split) for split in splits)
    taken: dict[int, list[float]] = {0: [], count_cores(): []}
    judged = []
    for number in range(rounds + 1):
        for workers, seconds in taken.items():
            began = time.perf_counter()
            survey = take_survey(splits, workers=workers)
            seconds += [time.perf_counter() - began] if number else []
        began = time.perf_counter()
        run_checks(survey)
        judged.append(time.perf_counter() - began)
    rows = [{"processes": w or 1, "per_second": total / statistics.median(s)} for w, s in taken.items()]
    return [*rows, {"judge_seconds": statistics.median(judged), "pictures": total}]


def listed_again(splits: DataSplits, count: int) -> DataSplits:
    """List the images of train again and again, until there are so many."""
    assert splits.train is not None
    return replace(splits, train=splits.train.subset(k % len(splits.train) for k in range(count)), val=None)


def memory(folder: Path, count: int) -> dict[str, Any]:
    """Give what a survey of so many images adds to a fresh process."""
    command = [sys.executable, "-m", "benchmarks.checking", "--memory", str(folder), "--count", str(count)]
    return dict(json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout))


def _print_memory(folder: Path, count: int) -> None:
    splits = open_data(DataConfig(), folder)
    take_survey(listed_again(splits, 64), workers=0)  # loads what is loaded at first use
    splits = listed_again(splits, count)
    Path("/proc/self/clear_refs").write_text("5")  # from here on the peak is counted anew
    before = _status("VmRSS")
    survey = take_survey(splits, workers=0)
    kept, peak = _status("VmRSS") - before, _status("VmHWM") - before
    print(json.dumps({"pictures": len(survey.inspections), "kept_mib": kept, "peak_mib": peak}))


def _status(key: str) -> float:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(float(line.split()[1]) for line in lines if line.startswith(f"{key}:")) / 1024


def time_many(folder: Path) -> dict[str, Any]:
    """Time all checks of images that are made up from those that were drawn: other sketches, files, and places."""
    splits = listed_again(open_data(DataConfig(), folder), MANY)
    seen = take_survey(listed_again(splits, 512), workers=0).inspections
    rng = np.random.default_rng(0)
    spectrum = 1 / (1 + np.arange(143)) ** 0.7  # long waves make up most of an image
    waves = rng.standard_normal((MANY, 143)) * spectrum
    copies = MANY // 10
    waves[-copies:] = waves[:copies] + 0.02 * rng.standard_normal((copies, 143)) * spectrum
    waves *= 127 / np.linalg.norm(waves, axis=1, keepdims=True)
    rows = np.rint(waves).astype(np.int8)
    made: list[Inspection] = [
        replace(seen[k % len(seen)], index=k, digest=k.to_bytes(16, "big"), signature=rows[k].tobytes())
        for k in range(MANY)
    ]
    survey = Survey(splits, tuple(made))
    began = time.perf_counter()
    findings = run_checks(survey)
    seconds = time.perf_counter() - began
    found = next(finding.count for finding in findings if finding.kind == "near-duplicates")
    if found < 1.9 * copies:
        raise SystemExit(f"expected {2 * copies} images with a near copy, found {found}.")
    return {"pictures": MANY, "judge_seconds": seconds}


def table() -> str:
    """Write the committed measurements as a table."""
    data = json.loads(RESULT.read_text(encoding="utf-8"))
    lines = ["| | |", "|---|---|"]
    for row in data["looks"]:
        where = "one process" if row["processes"] == 1 else f"{row['processes']} processes"
        lines.append(f"| looks a second, {where} | {row['per_second']:.0f} |")
    for row in data["memory"]:
        lines.append(
            f"| memory added by {row['pictures']:,} looks, MiB (peak) | {row['kept_mib']:.1f} ({row['peak_mib']:.1f}) |"
        )
    for row in data["judge"]:
        lines.append(f"| all checks of {row['pictures']:,} images, s | {row['judge_seconds']:.2f} |")
    size = f"{SIZE[1]}×{SIZE[0]}, JPEG with PNG mask"
    return "\n".join(
        [*lines, "", f"{data['pictures']} drawn images, {size}; {data['rounds']} rounds on {data['machine']}."]
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pictures", type=int, default=1000)
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
        *looks, judged = time_looks(folder, options.rounds)
        grown = [memory(folder, count) for count in COUNTS]
        many = time_many(folder)
    machine = f"{count_cores()} cores of {processor()}"
    data = {"machine": machine, "pictures": options.images, "rounds": options.rounds}
    data |= {"looks": looks, "memory": grown, "judge": [judged, many]}
    RESULT.write_text(json.dumps(data, indent=1) + "\n", encoding="utf-8")
    print(table())


if __name__ == "__main__":
    main()
