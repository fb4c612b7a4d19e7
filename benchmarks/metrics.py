"""How fast one 1024×2048 image is counted, beside torchmetrics and segmentation_models.pytorch, in the same run.

    python -m benchmarks.metrics                 # measures, writes benchmarks/results/metrics.json, prints the table

The masks are drawn: regions of 8 to 64 pixels, a tenth of them wrongly predicted, 2 % void. Every library counts the same
arrays, of the type it wants them in, on all cores it takes; rounds alternate between libraries and the median is kept. Memory is what
counting adds to a fresh process at its peak, the masks themselves not counted (Linux).
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.protocol import processor

RESULT = Path(__file__).parent / "results" / "metrics.json"
SHAPE, CLASSES, VOID = (1024, 2048), (19, 150), 255
OURS, TORCHMETRICS, SMP = "pixelwise", "torchmetrics", "segmentation_models.pytorch"


def masks(num_classes: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Draw truth and prediction (H, W) uint8: patches, as masks have them, not noise."""
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
    truth[np.kron(generator.random((64, 128)) < 0.02, np.ones((16, 16), bool))] = VOID
    return truth, prediction


def counters(num_classes: int) -> dict[str, Callable[[np.ndarray, np.ndarray], Callable[[], float]]]:
    """Give, per library, what prepares an image and then counts it down to a mean IoU."""

    def ours(truth: np.ndarray, prediction: np.ndarray) -> Callable[[], float]:
        from pixelwise.metrics.confusion import ConfusionMatrix, mean_iou

        return lambda: float(mean_iou(ConfusionMatrix(num_classes, VOID).update(truth, prediction)))

    def torchmetrics_(truth: np.ndarray, prediction: np.ndarray) -> Callable[[], float]:
        import torch
        from torchmetrics.classification import MulticlassJaccardIndex

        t, p = torch.from_numpy(truth).long()[None], torch.from_numpy(prediction).long()[None]
        return lambda: float(MulticlassJaccardIndex(num_classes, ignore_index=VOID, validate_args=False)(p, t))

    def smp(truth: np.ndarray, prediction: np.ndarray) -> Callable[[], float]:
        import segmentation_models_pytorch.metrics as peer
        import torch

        t, p = torch.from_numpy(truth).long()[None], torch.from_numpy(prediction).long()[None]

        def count() -> float:
            stats = peer.get_stats(p, t, mode="multiclass", num_classes=num_classes, ignore_index=VOID)
            return float(peer.iou_score(*stats, reduction="macro"))

        return count

    return {OURS: ours, TORCHMETRICS: torchmetrics_, SMP: smp}


def measure(rounds: int) -> list[dict[str, Any]]:
    """Time every library at every number of classes, round by round."""
    rows = []
    for num_classes in CLASSES:
        truth, prediction = masks(num_classes)
        work = {name: prepare(truth, prediction) for name, prepare in counters(num_classes).items()}
        values = {name: count() for name, count in work.items()}
        if max(values.values()) - min(values.values()) > 1e-5:
            raise SystemExit(f"{num_classes} classes: expected one mean IoU, found {values}.")
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
    """Give what counting one image adds to the memory of a fresh process at its peak, MiB."""
    command = [sys.executable, "-m", "benchmarks.metrics", "--peak", name, "--classes", str(num_classes)]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def _print_peak(name: str, num_classes: int) -> None:
    truth, prediction = masks(num_classes)
    prepare = counters(num_classes)[name]
    prepare(truth[:8], prediction[:8])()  # loads what is loaded at first use
    work = prepare(truth, prediction)
    Path("/proc/self/clear_refs").write_text("5")  # from here on the peak is counted anew
    before = _memory("VmRSS")
    work()
    print(max(_memory("VmHWM") - before, 0.0))


def _memory(key: str) -> float:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(float(line.split()[1]) for line in lines if line.startswith(f"{key}:")) / 1024


def table() -> str:
    """Write the committed measurements as a table, with ratios to ours."""
    data = json.loads(RESULT.read_text(encoding="utf-8"))
    rows = {(row["library"], row["classes"]): row for row in data["rows"]}
    lines = ["| library | " + " | ".join(f"{k} classes, ms | ratio | memory, MiB" for k in CLASSES) + " |"]
    lines.append("|---" * (1 + 3 * len(CLASSES)) + "|")
    for name in (OURS, SMP, TORCHMETRICS):
        cells = []
        for k in CLASSES:
            row, own = rows[name, k], rows[OURS, k]
            cells.append(f"{row['ms']:.1f} | {row['ms'] / own['ms']:.1f} | {row['mib']:.0f}")
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
    RESULT.write_text(json.dumps(data, indent=1) + "\n", encoding="utf-8")
    print(table())


if __name__ == "__main__":
    main()
