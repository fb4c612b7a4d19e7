"""Fit a training step into memory: measure the memory of a crop, and split the step into smaller batches if needed.

CUDA's allocator and, on the CPU, Linux record the peak memory and can reset it. On other systems nothing is measured or
changed.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from pathlib import Path

import torch

from pixelwise.config import Reasons, ResolvedConfig, ResolvedTrain
from pixelwise.training.assembly import Components
from pixelwise.training.loader import batches
from pixelwise.training.loop import gradients, on_device
from pixelwise.training.machine import free_memory, release_freed_memory

# Usable share of the free memory: the CPU shares it with the rest of the machine.
SHARE = {"cuda": 0.8, "cpu": 0.5}
_CROPS = 2
_STATUS, _CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")


def fit_memory(config: ResolvedConfig, components: Components) -> tuple[dict[str, int], Reasons]:
    """Return values of `train.batch_size` and `train.accumulate` with which a step fits into memory, and the reasons."""
    device = torch.device(config.train.device)
    peak = step_bytes(config, components)
    release_freed_memory()  # of the measurement
    free = free_memory(device)
    if peak is None or free is None:
        return {}, {}
    model = components.model
    weights = sum(p.numel() * p.element_size() for p in model.parameters())
    cells = math.prod(-(-side // stride) for side, stride in zip(config.train.crop, model.strides, strict=True))
    return divided(
        config.train,
        per_crop=max(peak - weights, 0) / _CROPS,
        fixed=4 * weights,  # gradients, two moments and the average
        limit=free * SHARE.get(device.type, 0.5),
        least=2 if cells < 2 else 1,
    )


def divided(
    train: ResolvedTrain, per_crop: float, fixed: float, limit: float, least: int = 1
) -> tuple[dict[str, int], Reasons]:
    """Choose the largest batch within a memory limit that divides the desired batch; accumulation keeps the step.

    Args:
        train: with the desired `batch_size`.
        per_crop: bytes per crop of a batch.
        fixed: bytes of a step that do not depend on the batch.
        limit: available bytes.
        least: smallest permitted batch.

    Returns:
        The values of `train` to change, and the reasons.
    """
    desired = train.batch_size
    reason = f"measured {_readable(per_crop)} per crop plus {_readable(fixed)}; {_readable(limit)} available"
    possible = [size for size in range(desired, 0, -1) if desired % size == 0 and size >= min(least, desired)]
    batch = next((size for size in possible if fixed + size * per_crop <= limit), possible[-1])
    count = desired // batch
    if fixed + batch * per_crop > limit:
        reason += ", which is not enough; a smaller crop needs less"
    if count == 1:
        return {}, {"train.batch_size": reason}
    return {"batch_size": batch, "accumulate": train.accumulate * count}, {
        "train.batch_size": f"{desired} crops per step in {count} batches: {reason}",
        "train.accumulate": f"{count} batches per step, since a single one does not fit into memory",
    }


def _readable(count: float) -> str:
    return f"{count / 2**30:.1f} GiB" if count >= 2**30 else f"{count / 2**20:.0f} MiB"


def step_bytes(config: ResolvedConfig, components: Components) -> int | None:
    """Measure the peak memory in bytes of the gradients of two crops, weights excluded; None if it is unknown.

    The first run is not measured, since libraries allocate memory on their first call.
    """
    train = config.train
    batch = next(batches(components.crops, batch_size=_CROPS, start=0, count=1, workers=0))
    model = on_device(copy.deepcopy(components.model), train)

    def work() -> None:
        gradients(model, components.loss, [batch], train)
        model.zero_grad(set_to_none=True)

    work()
    return peak_bytes(work, torch.device(train.device))


def peak_bytes(work: Callable[[], None], device: torch.device) -> int | None:
    """Run `work` and return its peak memory in bytes beyond the memory in use before; None if it is unknown."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        work()
        torch.cuda.synchronize(device)
        return int(torch.cuda.max_memory_allocated(device) - before)
    if device.type != "cpu":
        return None
    release_freed_memory()  # otherwise `work` would reuse memory that counts as in use
    if not _reset_peak():
        return None
    before_work = _status_bytes("VmRSS")
    work()
    peak = _status_bytes("VmHWM")
    return None if before_work is None or peak is None else max(peak - before_work, 0)


def _reset_peak() -> bool:
    """Reset the recorded peak memory of this process: proc(5), /proc/pid/clear_refs."""
    try:
        _CLEAR.write_text("5", encoding="ascii")
    except OSError:
        return False
    return _STATUS.exists()


def _status_bytes(key: str) -> int | None:
    lines = _STATUS.read_text(encoding="utf-8", errors="replace").splitlines()
    return next((1024 * int(line.split()[1]) for line in lines if line.startswith(f"{key}:")), None)
