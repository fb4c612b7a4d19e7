"""Turn a time limit into a number of steps, by a short measurement, and later by the pace so far.

Comes in: the work as it will be done, and the seconds there are. Goes out: precision, memory layout, steps, validations,
each with its reason. Knows nothing of the data or of why the rest was chosen.
"""

from __future__ import annotations

import copy
import statistics
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

import torch

from pixelwise.batch import Batch
from pixelwise.config import Config, Reasons, replace
from pixelwise.errors import ResourceError
from pixelwise.losses import Loss
from pixelwise.models.base import SegmentationModel
from pixelwise.training.loader import Crops, batches
from pixelwise.training.loop import gradients
from pixelwise.training.optim import AveragedWeights, adamw

_FASTER = 0.95
_RESERVE = 0.96
_SHARE_VALIDATING = 0.12


@dataclass(frozen=True)
class Trial:
    """Name one way to compute, and the seconds one small batch took with it."""

    precision: str
    channels_last: bool
    seconds: float


def choose_precision(config: Config, model: SegmentationModel, loss: Loss, crops: Crops) -> tuple[Config, Reasons]:
    """Decide fp32 or bf16, channels last or not, by timing the model itself on two crops; what the user set stays.

    bf16 is tried only where its forward pass alone is not slower: on processors without bf16 units it is emulated.
    """
    train = config.train
    formats = [train.channels_last] if train.channels_last is not None else [False, True]
    precisions = [train.precision] if train.precision else ["fp32", "bf16"]
    if len(formats) * len(precisions) == 1:
        return config, {}
    batch = next(batches(crops, batch_size=2, start=0, count=1, workers=0))
    trials: list[Trial] = []
    for precision in precisions:
        for channels_last in formats if precision == "fp32" or len(formats) == 1 else [True]:
            limit = min((t.seconds for t in trials), default=float("inf"))
            trials.append(_try(config, model, loss, batch, precision, channels_last, limit))
    best = min(
        trials, key=lambda t: t.seconds * (1.0 if (t.precision, t.channels_last) == ("fp32", False) else 1 / _FASTER)
    )
    table = ", ".join(
        f"{t.precision}{' channels-last' if t.channels_last else ''} "
        + ("slower" if t.seconds == float("inf") else f"{1000 * t.seconds:.0f} ms")
        for t in trials
    )
    reason = f"measured on 2 crops: {table}"
    chosen = replace(config, train={"precision": best.precision, "channels_last": best.channels_last})
    keys = [k for k in ("precision", "channels_last") if getattr(train, k) is None]
    return chosen, {f"train.{key}": reason for key in keys}


def _try(
    config: Config,
    model: SegmentationModel,
    loss: Loss,
    batch: Batch,
    precision: str,
    channels_last: bool,
    limit: float,
) -> Trial:
    setting = replace(config, train={"precision": precision, "channels_last": channels_last}).train
    layout = torch.channels_last if channels_last else torch.contiguous_format
    device = torch.device(setting.device or "cpu")
    copied = copy.deepcopy(model).to(device).to(memory_format=layout).train()
    if precision == "bf16":
        with torch.no_grad(), torch.autocast(device.type, torch.bfloat16):
            part = batch.images[:1, :, :64, :64].to(device, memory_format=layout)
            copied.eval()
            emulated = _seconds(lambda: copied(part), device, 2)
        with torch.no_grad():
            plain = _seconds(lambda: copied(part), device, 2)
        if emulated > 1.5 * plain and emulated > 0.02:
            return Trial(precision, channels_last, float("inf"))
        copied.train()
    return Trial(precision, channels_last, _seconds(lambda: gradients(copied, loss, [batch], setting), device, 2))


def _seconds(work: Callable[[], object], device: torch.device, times: int) -> float:
    """Give the fastest of `times` runs after one that warms up."""
    work()
    taken = []
    for _ in range(times):
        if device.type == "cuda":
            torch.cuda.synchronize()
        began = time.perf_counter()
        work()
        if device.type == "cuda":
            torch.cuda.synchronize()
        taken.append(time.perf_counter() - began)
    return min(taken)


def step_seconds(config: Config, model: SegmentationModel, loss: Loss, crops: Crops, steps: int) -> float:
    """Measure one whole training step, drawing its batches included: the mean of `steps` after one that warms up."""
    train = config.train
    layout = torch.channels_last if train.channels_last else torch.contiguous_format
    copied = copy.deepcopy(model).to(train.device or "cpu").to(memory_format=layout).train()
    optimizer, averaged = adamw(copied, 1e-6, 0.0), AveragedWeights(copied, 0.9)
    stream = batches(
        crops,
        batch_size=train.batch_size or 1,
        start=0,
        count=(steps + 1) * train.accumulate,
        workers=train.workers or 0,
    )
    taken = []
    for step in range(steps + 1):
        began = time.perf_counter()
        gradients(copied, loss, [next(stream) for _ in range(train.accumulate)], train)
        optimizer.step()
        averaged.update(copied, step)
        optimizer.zero_grad(set_to_none=True)
        taken.append(time.perf_counter() - began)
    return statistics.fmean(taken[1:])


def plan_steps(
    config: Config, per_step: float, per_validation: float, *, left: float, limit: float, final: float | None = None
) -> tuple[Config, Reasons]:
    """Fill the time that is left with steps and validations.

    Args:
        config: `train.steps` and `train.validations` are set where they are gaps.
        per_step: seconds of one step.
        per_validation: seconds to score the validation part once.
        left: seconds until the limit; the final scoring is taken off here.
        limit: the limit as the user gave it, for the reason.
        final: seconds of the final scoring; as a validation where not given.

    Raises:
        ResourceError: there is no time for a single step.
    """
    final = per_validation if final is None else final
    usable = (left - final) * _RESERVE
    count = config.train.validations or max(1, min(10, round(_SHARE_VALIDATING * usable / max(per_validation, 1e-9))))
    steps = fitting_steps(per_step, per_validation, count, left, final)
    if steps < 1:
        raise ResourceError(
            "--time-limit",
            expected=f"time for one step ({per_step:.1f} s), a validation ({per_validation:.1f} s) and the final scoring ({final:.1f} s)",
            found=f"{max(left, 0):.0f} s left of {limit:.0f} s after preparation",
            do="Give more time, a smaller model (--set model.features=[16,32,64]) or a shorter end (--set evaluate.metrics=[]).",
        )
    reason = f"{limit:.0f} s limit, measured {per_step:.3f} s a step, {per_validation:.1f} s a validation, {final:.1f} s for the end"
    reasons = {"train.steps": reason}
    if config.train.validations is None:
        reasons["train.validations"] = f"about {100 * _SHARE_VALIDATING:.0f} % of the time, at most 10"
    return replace(config, train={"steps": steps, "validations": count}), reasons


def slower_pace(marks: Sequence[tuple[int, float]], validations: Collection[int], per_validation: float) -> float:
    """Give the seconds of one step: the slower of the pace so far and of the pace lately.

    Too few steps waste less than too many.

    Args:
        marks: (step, seconds in training until then), the beginning first, now last.
        validations: steps at which the validation part was or will be scored.
        per_validation: seconds of one scoring; however slow that was believed to be, a tenth of the time went into steps.
    """
    now, seconds = marks[-1]
    paces = [
        (seconds - earlier - per_validation * sum(step < scored <= now for scored in validations)) / (now - step)
        for step, earlier in (marks[0], marks[-2])
    ]
    return max(*paces, 0.1 * seconds / now)


def fitting_steps(
    per_step: float, per_validation: float, validations: int, left: float, final: float | None = None
) -> int:
    """Give how many steps fit into `left` seconds beside the validations and the final scoring; negative where none."""
    final = per_validation if final is None else final
    return int(((left - final) * _RESERVE - validations * per_validation) / per_step)


def parse_duration(text: str) -> float:
    """Read "90", "90s", "10m", "1h30m" as seconds.

    Raises:
        ValueError: anything else, or nothing above zero.
    """
    import re

    match = re.fullmatch(r"(?:(\d+(?:\.\d+)?)h)?(?:(\d+(?:\.\d+)?)m)?(?:(\d+(?:\.\d+)?)s?)?", text.strip().lower())
    parts = [float(p or 0) for p in match.groups()] if match else [0.0]
    seconds = sum(p * f for p, f in zip(parts, (3600, 60, 1), strict=False))
    if seconds <= 0:
        raise ValueError(text)
    return seconds
