"""Turn a time limit into a number of steps, from a short measurement and later from the measured speed."""

from __future__ import annotations

import copy
import functools
import itertools
import re
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass

import torch

from pixelwise.batch import Batch
from pixelwise.config import Config, Reasons, ResolvedConfig, ResolvedTrain, draft, replace
from pixelwise.errors import ResourceError
from pixelwise.models.base import SegmentationModel, evaluating, memory_layout
from pixelwise.training.assembly import Components
from pixelwise.training.features import FeatureBank, storable_bytes
from pixelwise.training.finetune import Frozen, is_encoder_frozen
from pixelwise.training.loader import batches
from pixelwise.training.loop import gradients, on_device
from pixelwise.training.optim import AveragedWeights, adamw
from pixelwise.training.timing import alternating, first_or_clearly_faster, mean_without_slowest, median_ratio, typical
from pixelwise.training.validation import validated_images

# Another precision or format must take at most this share of the time.
_FASTER = 0.9
_EMULATED, _NOTICEABLE = 1.5, 0.02
_RESERVE = 0.96
_VALIDATION_SHARE = 0.1
_MOST_VALIDATIONS, _FEWEST_VALIDATIONS = 10, 3
# Fewer images do not show which weights are better.
FEWEST_VALIDATED = 32
# Storing features takes at most the larger share of the time limit; more than one copy, the smaller one.
FILL_SHARE, _COPIES_SHARE = 0.4, 0.12
# A copy is worth storing if several crops of it are used.
_FEWEST_USES, _USES_PER_COPY, _MOST_COPIES = 1.5, 3.0, 64
_NOMINAL_STEPS, _TRIAL_CROPS = 1000, 8
# The end of a run is shortened only if it would exceed the time limit by more than a twentieth.
TOLERANCE = 1.05


@dataclass(frozen=True)
class Trial:
    """A precision and memory format."""

    precision: str
    channels_last: bool

    def __str__(self) -> str:
        return f"{self.precision}{' channels-last' if self.channels_last else ''}"


def choose_precision(config: Config, components: Components) -> tuple[Config, Reasons]:
    """Choose fp32 or bf16, and channels last or not, by timing the model on two crops; values that are set are kept.

    The first combination is kept unless another one is clearly faster. bf16 is timed only if its forward pass alone is not
    slower: processors without bf16 units emulate it.
    """
    train = config.train
    formats = [train.channels_last] if train.channels_last is not None else [False, True]
    precisions = [train.precision] if train.precision else ["fp32", "bf16"]
    trials = [
        Trial(precision, channels_last)
        for precision in precisions
        for channels_last in (formats if precision == "fp32" or len(formats) == 1 else [True])
    ]
    best, reason = trials[0], "the memory format in which bf16 is fast"
    if len(trials) > 1:
        best, reason = _fastest(config, components, trials)
    unset = [key for key in ("precision", "channels_last") if getattr(train, key) is None]
    chosen = replace(config, train={"precision": best.precision, "channels_last": best.channels_last})
    return chosen, {f"train.{key}": reason for key in unset}


def _fastest(config: Config, components: Components, trials: Sequence[Trial]) -> tuple[Trial, str]:
    """Time the gradients of a batch of two crops with fp32 and others; return the trial to choose, and the reason."""
    batch = next(batches(components.crops, batch_size=2, start=0, count=1, workers=0))
    settings = [draft(replace(config, train=vars(trial))).train for trial in trials]
    device = torch.device(settings[0].device)
    # Both precisions have the same weights in the same format.
    models = {train.channels_last: on_device(copy.deepcopy(components.model), train) for train in settings}
    timed = [
        k
        for k, train in enumerate(settings)
        if train.precision == "fp32" or not _is_emulated(models[train.channels_last], batch, train)
    ]

    def work(train: ResolvedTrain) -> None:
        gradients(models[train.channels_last], components.loss, [batch], train)
        models[train.channels_last].zero_grad(set_to_none=True)

    seconds = alternating([functools.partial(work, settings[k]) for k in timed], device)
    best = trials[timed[first_or_clearly_faster(seconds, _FASTER)]]
    took = dict.fromkeys(trials, "slower")
    took |= {trials[k]: f"{1000 * typical(each):.0f} ms" for k, each in zip(timed, seconds, strict=True)}
    return best, f"measured on 2 crops: {', '.join(f'{trial} {text}' for trial, text in took.items())}"


def _is_emulated(model: SegmentationModel, batch: Batch, train: ResolvedTrain) -> bool:
    """Whether bf16 makes the forward pass of a small window clearly slower."""
    device = torch.device(train.device)
    dimensions = batch.images.ndim - 2
    sides = (slice(64 if dimensions == 2 else 16),) * dimensions
    window = batch.images[:1, :, *sides].to(device, memory_format=memory_layout(dimensions, train.channels_last))

    def forward(bf16: bool) -> None:
        with torch.no_grad(), torch.autocast(device.type, torch.bfloat16, bf16):
            model(window)

    with evaluating(model):
        fp32, bf16 = alternating([lambda: forward(False), lambda: forward(True)], device)
    return median_ratio(bf16, fp32) > _EMULATED and typical(bf16) > _NOTICEABLE


@dataclass(frozen=True)
class Pace:
    """Seconds per step of a run whose encoder is frozen in a first share of the steps.

    A unit is a step of average cost, so a run of n steps takes n units, whatever n is.

    Args:
        frozen: seconds of a step with a frozen encoder.
        full: seconds of any other step.
        share: share of the steps that are of the first kind.
    """

    frozen: float
    full: float
    share: float

    @property
    def mean(self) -> float:
        """Seconds of a unit."""
        return self.share * self.frozen + (1 - self.share) * self.full

    def units(self, step: int, border: int) -> float:
        """Return the units of the steps before `step`, where the encoder is frozen before `border`."""
        return (min(step, border) * self.frozen + max(step - border, 0) * self.full) / self.mean

    def total_steps(self, units: float, step: int, border: int) -> int:
        """Return the number of steps of a run of which `units` remain after `step`."""
        if step < border:  # the border moves with the number of steps
            return int(self.units(step, border) + units)
        return int(step + units * self.mean / self.full)


def measure_pace(config: ResolvedConfig, components: Components, bank: FeatureBank | None, steps: int) -> Pace:
    """Measure the seconds per step, with a frozen encoder and without; `bank` has the features of the former, if stored."""
    train = config.train
    share = frozen_share(train, components.model)
    frozen = full = 0.0

    def crops() -> Iterator[Batch]:
        count = (steps + 1) * train.accumulate
        return batches(components.crops, batch_size=train.batch_size, start=0, count=count, workers=train.workers)

    if share > 0:
        held = draft(replace(config, train={"unfreeze": None}))
        frozen = step_seconds(held, components, steps, crops() if bank is None else _few_features(bank, train))
    if share < 1:
        moving = config if train.unfreeze is None else draft(replace(config, train={"freeze": "none"}))
        full = step_seconds(moving, components, steps, crops())
    return Pace(frozen, full, share)


def _few_features(bank: FeatureBank, train: ResolvedTrain) -> Iterator[Batch]:
    """Yield the same few batches again and again, as if all features were stored: computing more takes too long."""
    count = max(min(_TRIAL_CROPS // train.batch_size, 4), 1)
    return itertools.cycle(list(bank.batches(batch_size=train.batch_size, start=0, count=count)))


def frozen_share(train: ResolvedTrain, model: SegmentationModel) -> float:
    """Return the share of the steps in which the whole encoder is frozen."""
    nominal = train.model_copy(update={"steps": _NOMINAL_STEPS, "recounts": ()})
    layers = len(model.encoder_stages())
    return sum(is_encoder_frozen(nominal, layers, step) for step in range(_NOMINAL_STEPS)) / _NOMINAL_STEPS


def step_seconds(config: ResolvedConfig, components: Components, steps: int, stream: Iterator[Batch]) -> float:
    """Measure the seconds of one training step, data loading included.

    The mean of `steps` after one warm-up, without the slowest one: by a single slow step, a run would be planned with a
    fraction of the steps that it has time for, and its encoder would be frozen.
    """
    train = config.train
    model = on_device(copy.deepcopy(components.model), train)
    optimizer = adamw(model, 1e-6, 0.0)
    averaged = AveragedWeights(model, 0.9)
    Frozen(model, train.model_copy(update={"head_warmup": 0.0})).hold(0)
    seconds = []
    for step in range(steps + 1):
        started = time.perf_counter()
        gradients(model, components.loss, [next(stream) for _ in range(train.accumulate)], train)
        optimizer.step()
        averaged.update(model, step)
        optimizer.zero_grad(set_to_none=True)
        seconds.append(time.perf_counter() - started)
    return mean_without_slowest(seconds[1:])


def choose_copies(images: int, per_copy: float, size: int, limit: float | None, uses: float) -> tuple[int, str]:
    """Choose the number of augmented copies per image whose features are stored.

    Args:
        images: number of training images.
        per_copy: seconds of the features of one copy.
        size: bytes of the features of one copy.
        limit: time limit in seconds; None if there is none.
        uses: how many crops of all images together are used while the encoder is frozen.

    Returns:
        The number, and the reason; 0 if storing does not pay, since most copies would be used only once.
    """
    cost = f"{1000 * per_copy:.0f} ms and {size / 2**20:.1f} MB per copy of {images} images"
    if uses < _FEWEST_USES * images:
        return 0, f"{cost}, of each of which only {uses / images:.1f} crops would be used"
    limits = {
        f"at most {_MOST_COPIES}": float(_MOST_COPIES),
        f"{uses / images:.0f} crops of each image are used": uses / images / _USES_PER_COPY,
        "as many as fit into memory": storable_bytes() / (images * size),
    }
    if limit is not None:
        limits[f"{100 * _COPIES_SHARE:.0f} % of the time limit"] = _COPIES_SHARE * limit / (images * per_copy)
    why = min(limits, key=lambda key: limits[key])
    return max(int(limits[why]), 1), f"{cost}; {why}"


def plan_validations(
    config: Config, seconds: float, per_image: float, images: int, most: int = _MOST_VALIDATIONS
) -> tuple[Config, Reasons]:
    """Set `train.validations` and `train.validation_images`, unless they are set, so that they take a tenth of the time.

    If all images can be scored only once or twice in this time, a subset is scored more often; not with fewer images than
    `FEWEST_VALIDATED`, though.

    Args:
        config: the configuration.
        seconds: of the training, validations included.
        per_image: seconds per image of a validation.
        images: number of images of the validation split.
        most: largest number of validations.
    """
    train, allowed = config.train, _VALIDATION_SHARE * seconds / max(per_image, 1e-9)
    subset, count = train.validation_images, train.validations
    reasons: Reasons = {}
    if subset is None:
        wanted = count or min(max(int(allowed / images), _FEWEST_VALIDATIONS), most)
        fitting = max(int(allowed / wanted), FEWEST_VALIDATED)
        if fitting < images:
            subset = fitting
            reasons["train.validation_images"] = (
                f"of {images}, evenly spaced: {1000 * per_image:.0f} ms per image; the final scores are those of all images"
            )
    if count is None:
        count = max(min(int(allowed / min(subset or images, images)), most), 1)
        reasons["train.validations"] = f"about {100 * _VALIDATION_SHARE:.0f} % of the time, at most {most}"
    return replace(config, train={"validations": count, "validation_images": subset}), reasons


def plan_steps(
    config: Config, per_step: float, per_image: float, *, images: int, left: float, limit: float, final: float
) -> tuple[Config, Reasons]:
    """Set `train.steps`, and unless they are set the validations, so that training fits the remaining time.

    Args:
        config: the configuration.
        per_step: seconds of one step.
        per_image: seconds per image of a validation.
        images: number of images of the validation split.
        left: seconds until the limit, final scoring included.
        limit: the limit that the user gave, in seconds; for the reason.
        final: seconds of the final scoring.

    Raises:
        ResourceError: not even one step fits.
    """
    config, reasons = plan_validations(config, (left - final) * _RESERVE, per_image, images)
    per_validation = per_image * validated_images(config.train, images)
    steps = fitting_steps(per_step, per_validation, config.train.validations or 1, left, final)
    if steps < 1:
        raise ResourceError(
            "--time-limit",
            expected=f"time for one step ({per_step:.1f} s), a validation ({per_validation:.1f} s) "
            f"and the final scoring ({final:.1f} s)",
            found=f"{max(left, 0):.0f} s left of {limit:.0f} s after the preparation",
            do="Allow more time, choose a smaller model (--set model.features=[16,32,64]), "
            "or score less (--set evaluate.metrics=[]).",
        )
    reasons["train.steps"] = (
        f"{limit:.0f} s limit, measured {per_step:.3f} s per step, {per_validation:.1f} s per validation, {final:.1f} s for "
        "the final scoring"
    )
    return replace(config, train={"steps": steps}), reasons


def slower_pace(
    marks: Sequence[tuple[int, float]],
    validations: Collection[int],
    per_validation: float,
    units: Callable[[int], float] = float,
) -> float:
    """Return the seconds per step: of the run so far or since the last mark, whichever is slower.

    Planning too few steps wastes less than planning too many.

    Args:
        marks: (step, seconds of training until then), from the beginning until now.
        validations: steps at which the model is validated.
        per_validation: estimated seconds of one validation; at least a tenth of the time is attributed to steps.
        units: the cost of the steps before a step, in steps of average cost.
    """
    now, seconds = marks[-1]
    paces = [
        (seconds - earlier - per_validation * sum(step < scored <= now for scored in validations))
        / (units(now) - units(step))
        for step, earlier in (marks[0], marks[-2])
    ]
    return max(*paces, 0.1 * seconds / units(now))


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
