"""Time and memory of a forward and backward pass of the default loss, compared with other libraries.

    python -m benchmarks.losses

Writes `benchmarks/results/losses.json` and prints the table. The loss is half cross-entropy, half Dice, of random float32
logits on the CPU. Times are medians over rounds that alternate between the libraries. Memory is the peak that the pass adds to
a fresh process, without libraries and logits (Linux). No pixels are ignored, since MONAI's loss does not support this.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.protocol import added_memory, processor, read_json, write_json

RESULT = Path(__file__).parent / "results" / "losses.json"
SHAPES = ((8, 4, 256, 256), (4, 19, 512, 512), (2, 150, 512, 512))
Loss = Callable[[Tensor, Tensor], Tensor]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--channels-last", action="store_true", help="use logits in the channels-last layout")
    parser.add_argument("--out", type=Path, help="JSON file; default: results/losses.json")
    parser.add_argument(
        "--memory", nargs=2, metavar=("LIBRARY", "SHAPE"), help="only print the peak memory of one case, bytes"
    )
    args = parser.parse_args()
    if args.memory:
        library, shape = args.memory
        print(peak(library, tuple(int(n) for n in shape.split("x")), args.channels_last))
        return
    peaks = {(s, n): peak_in_a_fresh_process(n, s, args.channels_last) for s in SHAPES for n in LIBRARIES}
    rows = [row for shape in SHAPES for row in measure(shape, args.rounds, args.channels_last)]
    for row in rows:
        row["peak_bytes"] = peaks[tuple(row["shape"]), row["library"]]
    packages = ("torch", "segmentation-models-pytorch", "monai")
    facts = {"processor": processor(), "threads": torch.get_num_threads(), "rounds": args.rounds}
    facts |= {"channels_last": args.channels_last, "versions": {name: version(name) for name in packages}, "rows": rows}
    out = args.out or RESULT.with_stem("losses_channels_last" if args.channels_last else RESULT.stem)
    write_json(out, facts)
    print(table(out))


def pixelwise_loss(classes: int) -> Loss:
    from pixelwise.config import LossConfig
    from pixelwise.losses import combined_loss

    return combined_loss(LossConfig(), num_classes=classes).of_logits


def smp_loss(classes: int) -> Loss:
    import segmentation_models_pytorch as smp

    entropy, overlap = torch.nn.CrossEntropyLoss(), smp.losses.DiceLoss("multiclass")
    return lambda logits, masks: 0.5 * entropy(logits, masks) + 0.5 * overlap(logits, masks)


def monai_loss(classes: int) -> Loss:
    from monai.losses import DiceCELoss

    both = DiceCELoss(softmax=True, to_onehot_y=True, batch=True, lambda_dice=0.5, lambda_ce=0.5)
    return lambda logits, masks: both(logits, masks[:, None])


LIBRARIES = {"pixelwise": pixelwise_loss, "segmentation_models_pytorch": smp_loss, "monai": monai_loss}


def random_inputs(shape: tuple[int, ...], channels_last: bool) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    layout = torch.channels_last if channels_last else torch.contiguous_format
    logits = torch.empty(shape, memory_format=layout).normal_(generator=generator).requires_grad_()
    return logits, torch.randint(0, shape[1], (shape[0], *shape[2:]), generator=generator)


def once(loss: Loss, logits: Tensor, masks: Tensor) -> float:
    logits.grad = None
    began = time.perf_counter()
    loss(logits, masks).backward()
    return time.perf_counter() - began


def measure(shape: tuple[int, ...], rounds: int, channels_last: bool) -> list[dict[str, Any]]:
    logits, masks = random_inputs(shape, channels_last)
    losses = {name: make(shape[1]) for name, make in LIBRARIES.items()}
    times: dict[str, list[float]] = {name: [] for name in losses}
    for turn in range(rounds + 1):
        for name, loss in losses.items():
            seconds = once(loss, logits, masks)
            if turn:  # the first is a warm-up
                times[name].append(seconds)
    return [
        {
            "shape": list(shape),
            "library": name,
            "seconds": statistics.median(times[name]),
            "fastest": min(times[name]),
            "slowest": max(times[name]),
        }
        for name in losses
    ]


def peak_in_a_fresh_process(name: str, shape: tuple[int, ...], channels_last: bool) -> int:
    command = [sys.executable, "-m", "benchmarks.losses", "--memory", name, "x".join(map(str, shape))]
    command += ["--channels-last"] if channels_last else []
    return int(subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()[-1])


def peak(name: str, shape: tuple[int, ...], channels_last: bool) -> int:
    """Return the peak memory that one pass adds to this process, bytes."""
    loss = LIBRARIES[name](shape[1])
    once(loss, *random_inputs((1, shape[1], 8, 8), channels_last))  # load what is loaded on first use
    logits, masks = random_inputs(shape, channels_last)
    return added_memory(lambda: once(loss, logits, masks))[1]


def table(path: Path = RESULT) -> str:
    """Return a table of the measurements with ratios to pixelwise."""
    data = read_json(path)
    reference = {tuple(row["shape"]): row for row in data["rows"] if row["library"] == "pixelwise"}
    lines = ["| logits | library | median | × pixelwise | peak memory | × pixelwise |", "|---|---|---|---|---|---|"]
    for row in data["rows"]:
        ours, seconds, size = reference[tuple(row["shape"])], row["seconds"], row["peak_bytes"]
        cells = [
            "×".join(str(n) for n in row["shape"]),
            row["library"],
            f"{1e3 * seconds:.1f} ms",
            f"{seconds / ours['seconds']:.2f}",
            f"{size / 2**20:.0f} MiB",
            f"{size / max(ours['peak_bytes'], 1):.2f}",
        ]
        lines.append("| " + " | ".join(cells) + " |")
    versions = ", ".join(f"{name} {number}" for name, number in data["versions"].items())
    layout = ", channels-last logits" if data["channels_last"] else ""
    machine = f"{data['threads']} threads of {data['processor']}"
    return "\n".join([*lines, "", f"{data['rounds']} rounds on {machine}{layout}; {versions}."])


if __name__ == "__main__":
    main()
