"""Make a training step fit the memory there is: measure what a crop takes, and divide the step where it is too much.

Comes in: the work as it will be done. Goes out: `train.batch_size` and `train.accumulate` with the same product, and the
reason. Knows nothing of the data or of why the rest was chosen.

On CUDA the allocator counts. On a processor the system does: Linux keeps the highest mark of a process's memory, and lets it
begin anew. Where neither is at hand nothing is measured, and nothing changed.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path

import torch

from pixelwise.config import Config, Reasons, replace
from pixelwise.losses import Loss
from pixelwise.models.base import SegmentationModel
from pixelwise.training.loader import Crops, batches
from pixelwise.training.loop import gradients
from pixelwise.training.machine import free_memory, hand_back

# Of what is free now: on a device hardly anything else wants some; on a processor the rest of the machine does.
SHARE = {"cuda": 0.8, "cpu": 0.5}
_CROPS = 2
_STATUS, _CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")


def fit_memory(config: Config, model: SegmentationModel, loss: Loss, crops: Crops) -> tuple[Config, Reasons]:
    """Divide the step into as many batches as the memory wants; to be asked where nobody chose the batch.

    Args:
        config: with `train.batch_size` as learning wants it, precision and layout.
        model: the network; it stays as it is.
        loss: what is made small.
        crops: the training stream; its first two are looked at.
    """
    device = torch.device(config.train.device or "cpu")
    taken = step_bytes(config, model, loss, crops)
    hand_back()  # what the measurement took is free again
    free = free_memory(device)
    if taken is None or free is None:
        return config, {}
    weights = sum(p.numel() * p.element_size() for p in model.parameters())
    # Gradients, two moments and the average: there once, however many crops there are.
    per_crop, fixed = max(taken - weights, 0) / _CROPS, 4 * weights
    cells = -(-(config.train.crop or (1, 1))[0] // model.stride) * -(-(config.train.crop or (1, 1))[1] // model.stride)
    return divided(config, per_crop, fixed, free * SHARE.get(device.type, 0.5), least=2 if cells < 2 else 1)


def divided(config: Config, per_crop: float, fixed: float, limit: float, least: int = 1) -> tuple[Config, Reasons]:
    """Choose the largest batch within the limit that divides the wanted one; accumulation makes up for the rest.

    The learning rate and all else that follows from crops a step stay as they are.

    Args:
        config: with the wanted `train.batch_size`.
        per_crop: bytes that each crop of a batch takes.
        fixed: bytes that a step takes in any case.
        limit: bytes there are.
        least: crops that a batch must have.
    """
    wanted = config.train.batch_size or 1
    needs = f"measured {_told(per_crop)} a crop and {_told(fixed)} beside, of the {_told(limit)} that a run may take"
    possible = [size for size in range(wanted, 0, -1) if wanted % size == 0 and size >= min(least, wanted)]
    batch = next((size for size in possible if fixed + size * per_crop <= limit), possible[-1])
    parts = wanted // batch
    if fixed + batch * per_crop > limit:
        needs += ": not enough even so; a smaller crop takes less"
    if parts == 1:
        return config, {"train.batch_size": needs}
    accumulate = config.train.accumulate * parts
    reason = f"{wanted} crops a step in {parts} batches: {needs}"
    return replace(config, train={"batch_size": batch, "accumulate": accumulate}), {
        "train.batch_size": reason,
        "train.accumulate": f"{parts} batches make the step that was wanted",
    }


def _told(count: float) -> str:
    return f"{count / 2**30:.1f} GiB" if count >= 2**30 else f"{count / 2**20:.0f} MiB"


def step_bytes(config: Config, model: SegmentationModel, loss: Loss, crops: Crops) -> int | None:
    """Measure what the gradients of two crops take at their peak, beside the weights; None where nobody counts.

    Once before, so that what libraries make on their first call is not taken for a need.
    """
    train = config.train
    device = torch.device(train.device or "cpu")
    layout = torch.channels_last if train.channels_last else torch.contiguous_format
    batch = next(batches(crops, batch_size=_CROPS, start=0, count=1, workers=0))
    copied = copy.deepcopy(model).to(device).to(memory_format=layout).train()

    def work() -> None:
        gradients(copied, loss, [batch], train)
        copied.zero_grad(set_to_none=True)

    work()
    return peak_bytes(work, device)


def peak_bytes(work: Callable[[], None], device: torch.device) -> int | None:
    """Run the work, and give how many bytes it took at its peak beyond what was there before; None where nobody counts."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        work()
        torch.cuda.synchronize(device)
        return int(torch.cuda.max_memory_allocated(device) - before)
    if device.type != "cpu":
        return None
    hand_back()  # else the step would find what the one before gave back
    if not _begin_anew():
        return None
    resting = _marked("VmRSS")
    work()
    peak = _marked("VmHWM")
    return None if resting is None or peak is None else max(peak - resting, 0)


def _begin_anew() -> bool:
    """Let the highest mark of this process's memory begin at what it takes now: proc(5), /proc/pid/clear_refs."""
    try:
        _CLEAR.write_text("5", encoding="ascii")
    except OSError:
        return False
    return _STATUS.exists()


def _marked(key: str) -> int | None:
    lines = _STATUS.read_text(encoding="utf-8", errors="replace").splitlines()
    return next((1024 * int(line.split()[1]) for line in lines if line.startswith(f"{key}:")), None)
