"""Time and memory of the mean IoU of one 1024×2048 image, compared with torchmetrics and segmentation_models.pytorch.

    python -m benchmarks.metrics                 # measure, write benchmarks/results/metrics.json, print the table

The masks are synthetic: regions of 8 to 64 pixels, a tenth of them predicted wrongly, 2 % ignored. Every library gets the same
values in the dtype it expects and may use all cores; rounds alternate between the libraries, and times are medians. Memory is
the peak that counting adds to a fresh process, without the masks (Linux).
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.protocol import added_memory, processor, read_json, write_json

RESULT = Path(__file__).parent / "results" / "metrics.json"
SHAPE, CLASSES, IGNORE = (1024, 2048), (19, 150), 255
OURS, TORCHMETRICS, SMP = "pixelwise", "torchmetrics", "segmentation_models.pytorch"


def masks(num_classes: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Return a ground truth and a prediction (H, W) uint8, with regions rather than noise."""
    generator = np.random.default_rng(seed)
    truth, prediction = np.zeros(SHAPE, np.uint8), np.zeros(SHAPE, np.uint8)
    for size in (64, 32, 16, 8):
        rows, columns = SHAPE[0] // size, SHAPE[1] // size
        classes = generator.integers(0, num_classes, (rows, columns), np.uint8)
        wrong = np.where(
            generator.random((rows, columns)) < 0.1,
            generator.integers(0, num_classes, (rows, columns), np.uint8),
            classes,
        )
        chosen = np.kron(generator.random((rows, columns)) < 0.3, np.ones((size, size), bool))
        for mask, values in ((truth, classes), (prediction, wrong)):
            mask[chosen] = np.kron(values, np.ones((size, size), np.uint8))[chosen]
    truth[np.kron(generator.random((64, 128)) < 0.02, np.ones((16, 16), bool))] = IGNORE
    return truth, prediction


def counters(num_classes: int) -> dict[str, Callable[[np.ndarray, np.ndarray], Callable[[], float]]]:
    """Return a function per library that converts the masks and returns a function for the mean IoU."""

    def ours(truth: np.ndarray, prediction: np.ndarray) -> Callable[[], float]:
        from pixelwise.metrics.confusion import ConfusionMatrix, mean_iou

        return lambda: float(mean_iou(ConfusionMatrix(num_classes, IGNORE).update(truth, prediction)))

    def torchmetrics_(truth: np.ndarray, prediction: np.ndarray) -> Callable[[], float]:
        import torch
        from torchmetrics.classification import MulticlassJaccardIndex

        t, p = torch.from_numpy(truth).long()[None], torch.from_numpy(prediction).long()[None]
        return lambda: float(MulticlassJaccardIndex(num_classes, ignore_index=IGNORE, validate_args=False)(p, t))

    def smp(truth: np.ndarray, prediction: np.ndarray) -> Callable[[], float]:
        import segmentation_models_pytorch.metrics as peer
        import torch

        t, p = torch.from_numpy(truth).long()[None], torch.from_numpy(prediction).long()[None]

        def count() -> float:
            stats = peer.get_stats(p, t, mode="multiclass", num_classes=num_classes, ignore_index=IGNORE)
            return float(peer.iou_score(*stats, reduction="macro"))

        return count

    return {OURS: ours, TORCHMETRICS: torchmetrics_, SMP: smp}


def measure(rounds: int) -> list[dict[str, Any]]:
    """Measure every library with every number of classes, in alternating rounds."""
    rows = []
    for num_classes in CLASSES:
        truth, prediction = masks(num_classes)
        work = {name: prepare(truth, prediction) for name, prepare in counters(num_classes).items()}
        values = {name: count() for name, count in work.items()}
        if max(values.values()) - min(values.values()) > 1e-5:
            raise SystemExit(f"{num_classes} classes: expected the same mean IoU from all libraries, found {values}.")
        taken: dict[str, list[float]] = {name: [] for name in work}
        for _ in range(rounds):
            for name, count in work.items():
                began = time.perf_counter()
                count()
                taken[name].append(time.perf_counter() - began)
        for name, seconds in taken.items():
            peak = _peak(name, num_classes)
            rows.append({"library": name, "classes": num_classes, "ms": 1000 * statistics.median(seconds), "mib": peak})
    return rows


def _peak(name: str, num_classes: int) -> float:
    """Return the peak memory that counting one image adds to a fresh process, MiB."""
    command = [sys.executable, "-m", "benchmarks.metrics", "--peak", name, "--classes", str(num_classes)]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def _print_peak(name: str, num_classes: int) -> None:
    truth, prediction = masks(num_classes)
    prepare = counters(num_classes)[name]
    prepare(truth[:8], prediction[:8])()  # load what is loaded on first use
    work = prepare(truth, prediction)
    print(added_memory(work)[1] / 2**20)


def table() -> str:
    """Return a table of the committed measurements with ratios to pixelwise."""
    data = read_json(RESULT)
    rows = {(row["library"], row["classes"]): row for row in data["rows"]}
    lines = ["| library | " + " | ".join(f"{k} classes, ms | ratio | memory, MiB" for k in CLASSES) + " |"]
    lines.append("|---" * (1 + 3 * len(CLASSES)) + "|")
    for name in (OURS, SMP, TORCHMETRICS):
        cells = []
        for k in CLASSES:
            row, reference = rows[name, k], rows[OURS, k]
            cells.append(f"{row['ms']:.1f} | {row['ms'] / reference['ms']:.1f} | {row['mib']:.0f}")
        lines.append(f"| {name} {data['versions'][name]} | " + " | ".join(cells) + " |")
    return "\n".join([*lines, "", f"{data['rounds']} rounds on {data['machine']}, torch {data['versions']['torch']}."])


def main() -> None:
    from importlib.metadata import version

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--peak", help=argparse.SUPPRESS)
    parser.add_argument("--classes", type=int, default=CLASSES[0], help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.peak:
        _print_peak(options.peak, options.classes)
        return
    import torch

    names = {OURS: OURS, TORCHMETRICS: TORCHMETRICS, SMP: "segmentation-models-pytorch", "torch": "torch"}
    versions = {name: version(package) for name, package in names.items()}
    machine = f"{torch.get_num_threads()} threads of {processor()}"
    data = {"machine": machine, "rounds": options.rounds, "versions": versions, "rows": measure(options.rounds)}
    write_json(RESULT, data)
    print(table())


if __name__ == "__main__":
    main()
