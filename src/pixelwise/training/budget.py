"""Turn a time limit into a number of steps, from a short measurement and later from the measured speed."""

from __future__ import annotations

import copy
import re
import statistics
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

import torch

from pixelwise.batch import Batch
from pixelwise.config import Config, Reasons, ResolvedConfig, draft, replace
from pixelwise.errors import ResourceError
from pixelwise.training.assembly import Components
from pixelwise.training.loader import batches
from pixelwise.training.loop import gradients, on_device
from pixelwise.training.optim import AveragedWeights, adamw

_FASTER = 0.95
_RESERVE = 0.96
_VALIDATION_SHARE = 0.12
# The end of a run is shortened only if it would exceed the time limit by more than a twentieth.
TOLERANCE = 1.05


@dataclass(frozen=True)
class Trial:
    """A precision and memory format, and the seconds that one small batch took with them."""

    precision: str
    channels_last: bool
    seconds: float

    def __str__(self) -> str:
        layout = " channels-last" if self.channels_last else ""
        took = "slower" if self.seconds == float("inf") else f"{1000 * self.seconds:.0f} ms"
        return f"{self.precision}{layout} {took}"


def choose_precision(config: Config, components: Components) -> tuple[Config, Reasons]:
    """Choose fp32 or bf16, and channels last or not, by timing the model on two crops; values that are set are kept.

    bf16 is timed only if its forward pass alone is not slower: processors without bf16 units emulate it.
    """
    train = config.train
    formats = [train.channels_last] if train.channels_last is not None else [False, True]
    precisions = [train.precision] if train.precision else ["fp32", "bf16"]
    if len(formats) * len(precisions) == 1:
        return config, {}
    batch = next(batches(components.crops, batch_size=2, start=0, count=1, workers=0))
    trials: list[Trial] = []
    for precision in precisions:
        for channels_last in formats if precision == "fp32" or len(formats) == 1 else [True]:
            setting = draft(replace(config, train={"precision": precision, "channels_last": channels_last}))
            trials.append(Trial(precision, channels_last, _batch_seconds(setting, components, batch)))
    best = min(
        trials, key=lambda t: t.seconds * (1.0 if (t.precision, t.channels_last) == ("fp32", False) else 1 / _FASTER)
    )
    reason = f"measured on 2 crops: {', '.join(map(str, trials))}"
    unset = [key for key in ("precision", "channels_last") if getattr(train, key) is None]
    chosen = replace(config, train={"precision": best.precision, "channels_last": best.channels_last})
    return chosen, {f"train.{key}": reason for key in unset}


def _batch_seconds(config: ResolvedConfig, components: Components, batch: Batch) -> float:
    """Measure the seconds of the gradients of a batch; infinity if bf16 is emulated."""
    train = config.train
    device = torch.device(train.device)
    model = on_device(copy.deepcopy(components.model), train)
    if train.precision == "bf16":
        layout = torch.channels_last if train.channels_last else torch.contiguous_format
        window = batch.images[:1, :, :64, :64].to(device, memory_format=layout)
        model.eval()
        with torch.no_grad(), torch.autocast(device.type, torch.bfloat16):
            bf16 = _fastest(lambda: model(window), device)
        with torch.no_grad():
            fp32 = _fastest(lambda: model(window), device)
        if bf16 > 1.5 * fp32 and bf16 > 0.02:
            return float("inf")
        model.train()
    return _fastest(lambda: gradients(model, components.loss, [batch], train), device)


def _fastest(work: Callable[[], object], device: torch.device) -> float:
    """Return the seconds of the faster of two runs after one warm-up."""
    work()
    seconds = []
    for _ in range(2):
        if device.type == "cuda":
            torch.cuda.synchronize()
        started = time.perf_counter()
        work()
        if device.type == "cuda":
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - started)
    return min(seconds)


def step_seconds(config: ResolvedConfig, components: Components, steps: int) -> float:
    """Measure the seconds of one training step, data loading included: the mean of `steps` after one warm-up."""
    train = config.train
    model = on_device(copy.deepcopy(components.model), train)
    optimizer = adamw(model, 1e-6, 0.0)
    averaged = AveragedWeights(model, 0.9)
    count = (steps + 1) * train.accumulate
    stream = batches(components.crops, batch_size=train.batch_size, start=0, count=count, workers=train.workers)
    seconds = []
    for step in range(steps + 1):
        started = time.perf_counter()
        gradients(model, components.loss, [next(stream) for _ in range(train.accumulate)], train)
        optimizer.step()
        averaged.update(model, step)
        optimizer.zero_grad(set_to_none=True)
        seconds.append(time.perf_counter() - started)
    return statistics.fmean(seconds[1:])


def plan_steps(
    config: Config, per_step: float, per_validation: float, *, left: float, limit: float, final: float
) -> tuple[Config, Reasons]:
    """Set `train.steps`, and `train.validations` if it is unset, so that training fits the remaining time.

    Args:
        config: the configuration.
        per_step: seconds of one step.
        per_validation: seconds of one validation.
        left: seconds until the limit, final scoring included.
        limit: the limit that the user gave, in seconds; for the reason.
        final: seconds of the final scoring.

    Raises:
        ResourceError: not even one step fits.
    """
    usable = (left - final) * _RESERVE
    count = config.train.validations or max(1, min(10, round(_VALIDATION_SHARE * usable / max(per_validation, 1e-9))))
    steps = fitting_steps(per_step, per_validation, count, left, final)
    if steps < 1:
        raise ResourceError(
            "--time-limit",
            expected=f"time for one step ({per_step:.1f} s), a validation ({per_validation:.1f} s) "
            f"and the final scoring ({final:.1f} s)",
            found=f"{max(left, 0):.0f} s left of {limit:.0f} s after the preparation",
            do="Allow more time, choose a smaller model (--set model.features=[16,32,64]), "
            "or score less (--set evaluate.metrics=[]).",
        )
    reasons = {
        "train.steps": f"{limit:.0f} s limit, measured {per_step:.3f} s per step, {per_validation:.1f} s per "
        f"validation, {final:.1f} s for the final scoring"
    }
    if config.train.validations is None:
        reasons["train.validations"] = f"about {100 * _VALIDATION_SHARE:.0f} % of the time, at most 10"
    return replace(config, train={"steps": steps, "validations": count}), reasons


def slower_pace(marks: Sequence[tuple[int, float]], validations: Collection[int], per_validation: float) -> float:
    """Return the seconds per step: of the run so far or since the last mark, whichever is slower.

    Planning too few steps wastes less than planning too many.

    Args:
        marks: (step, seconds of training until then), from the beginning until now.
        validations: steps at which the model is validated.
        per_validation: estimated seconds of one validation; at least a tenth of the time is attributed to steps.
    """
    now, seconds = marks[-1]
    paces = [
        (seconds - earlier - per_validation * sum(step < scored <= now for scored in validations)) / (now - step)
        for step, earlier in (marks[0], marks[-2])
    ]
    return max(*paces, 0.1 * seconds / now)


def fitting_steps(per_step: float, per_validation: float, validations: int, left: float, final: float) -> int:
    """Return how many steps fit into `left` seconds besides validations and final scoring; may be negative."""
    return int(((left - final) * _RESERVE - validations * per_validation) / per_step)


def parse_duration(text: str) -> float:
    """Return the seconds of "90", "90s", "10m" or "1h30m".

    Raises:
        ValueError: another format, or a duration of zero.
    """
    match = re.fullmatch(r"(?:(\d+(?:\.\d+)?)h)?(?:(\d+(?:\.\d+)?)m)?(?:(\d+(?:\.\d+)?)s?)?", text.strip().lower())
    numbers = [float(number or 0) for number in match.groups()] if match else [0.0, 0.0, 0.0]
    seconds = numbers[0] * 3600 + numbers[1] * 60 + numbers[2]
    if seconds <= 0:
        raise ValueError(text)
    return seconds
