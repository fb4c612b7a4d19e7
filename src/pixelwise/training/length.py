"""The length of a run: the number of steps from epochs or a time limit, and what depends on it.

That is whether a pretrained encoder is frozen, and how many augmented copies per image have stored features. Within a time limit the
number of steps is corrected during training, since the speed of a shared machine changes.
"""

from __future__ import annotations

import json
import re
import time
from dataclasses import dataclass, replace
from pathlib import Path

import pixelwise.config as configs
from pixelwise.config import Config, Reasons
from pixelwise.datasets.dataset import Dataset
from pixelwise.errors import ResourceError
from pixelwise.models.base import SegmentationModel
from pixelwise.models.card import ModelCard
from pixelwise.storage import write_atomic
from pixelwise.training import assembly, budget, memory, plan
from pixelwise.training.assembly import Components
from pixelwise.training.ending import end_cost
from pixelwise.training.features import FeatureBank
from pixelwise.training.loop import Work, fit
from pixelwise.training.network_plan import choose_freezing
from pixelwise.training.runlog import Listener
from pixelwise.training.schedule import last_step, next_recount, validation_steps
from pixelwise.training.validation import validated_images
from pixelwise.types import Fingerprint

CONFIG = "config.yaml"
_STEPS = "train.steps"
_DEFAULT_EPOCHS = 100.0
_PACE_STEPS = 3


@dataclass(frozen=True)
class Begun:
    """What is known of a run before its length.

    Args:
        components: model, images and loss.
        card: of the model.
        val: the validation split.
        facts: fingerprint of the training split.
        out: the run folder.
        sizes: images that calibrate intervals of sizes; None if there are none.
    """

    components: Components
    card: ModelCard
    val: Dataset
    facts: Fingerprint
    out: Path
    sizes: Dataset | None = None

    def end_seconds(self, config: Config, model: SegmentationModel) -> float:
        """Estimate the seconds of the end of the run."""
        return end_cost(config, model, self.card, self.val, 0 if self.sizes is None else len(self.sizes)).seconds


def measure(config: Config, reasons: Reasons, components: Components) -> tuple[Config, Reasons]:
    """Choose precision and memory format, and fit the batch into memory unless the user chose it."""
    config, measured = budget.choose_precision(config, components)
    if "train.batch_size" in reasons:
        values, fitted = memory.fit_memory(configs.draft(config), components)
        config = configs.replace(config, train=values)
        measured |= {key: "; ".join(filter(None, (reasons.get(key), reason))) for key, reason in fitted.items()}
    return config, measured


def planned(epochs: float | None, config: Config, begun: Begun) -> tuple[Config, Reasons]:
    """Set the number of steps from the epochs, and the validations, unless they are set."""
    components = begun.components
    images = len(components.crops)
    train = configs.draft(config).train
    reasons: Reasons = {}
    steps = config.train.steps
    if steps is None:
        epochs = _DEFAULT_EPOCHS if epochs is None else epochs
        per_step = train.batch_size * train.accumulate
        steps = max(round(epochs * images / per_step), 1)
        reasons[_STEPS] = f"{epochs:g} epochs of {images} images, {per_step} per step"
    config = configs.replace(config, train={"steps": steps})
    config, frozen = choose_freezing(config, steps)
    config, copied, _ = with_copies(config, components, begun.out)
    config, validated = _with_validations(config, steps, begun)
    return config, reasons | frozen | copied | validated


def _with_validations(config: Config, steps: int, begun: Begun) -> tuple[Config, Reasons]:
    """Set the validations of a run with a given number of steps; the time is measured if there are many images."""
    most = max(1, min(10, steps // 20))
    train, images = config.train, len(begun.val)
    reasons: Reasons = {}
    if train.validation_images is None and images > budget.FEWEST_VALIDATED:
        trial = configs.draft(config)
        bank = _trial_bank(config, begun.components, begun.out)
        seconds = steps * budget.measure_pace(trial, begun.components, bank, _PACE_STEPS).mean
        per_image = assembly.validation_seconds(trial, begun.components.model, begun.card, begun.val)
        config, reasons = budget.plan_validations(config, seconds, per_image, images, most)
    elif train.validations is None:
        config = configs.replace(config, train={"validations": most})
        reasons = {"train.validations": "at most one per 20 steps, and at most 10"}
    return config, reasons


def within(limit: float, started: float, config: Config, begun: Begun) -> tuple[Config, Reasons]:
    """Set the number of steps and validations that fit the time limit, by measuring steps, validation and scoring."""
    components, crops = begun.components, begun.components.crops
    trial = configs.draft(config)
    images = len(begun.val)
    per_image = assembly.validation_seconds(trial, components.model, begun.card, begun.val)
    final = begun.end_seconds(trial, components.model)

    def steps_for(config: Config, measured_steps: int, filling: float = 0.0) -> tuple[Config, Reasons]:
        bank = _trial_bank(config, components, begun.out)
        per_step = budget.measure_pace(configs.draft(config), components, bank, measured_steps).mean
        left = limit - filling - (time.monotonic() - started)
        return budget.plan_steps(config, per_step, per_image, images=images, left=left, limit=limit, final=final)

    # Augmentation depends on the number of steps, and the time of a step depends on the augmentation.
    whole = configs.replace(config, train={"freeze": config.train.freeze or "none"})
    try:
        rough, _ = steps_for(whole, 3)
    except ResourceError:  # there may be time for steps with a frozen encoder
        rough = configs.replace(whole, train={"steps": 1})
    settled, _ = plan.settle(rough, begun.facts, crops.dataset.groups())
    crops.transform = assembly.transform(configs.draft(settled), crops.dataset)
    config, frozen = choose_freezing(config, rough.train.steps or 0)
    if frozen and config.train.freeze != "none":
        rough, _ = steps_for(config, 3)
    with_number, copied, filling = with_copies(
        configs.replace(config, train={"steps": rough.train.steps}), components, begun.out, limit
    )
    config, reasons = steps_for(configs.replace(config, train={"copies": with_number.train.copies}), 12, filling)
    return config, reasons | frozen | copied


def with_copies(
    config: Config, components: Components, out: Path, limit: float | None = None
) -> tuple[Config, Reasons, float]:
    """Set the number of copies per image whose features are stored, unless it is set.

    Returns:
        The configuration with the planned number of steps, the reason, and the seconds that storing the features takes.
    """
    given, images = config.train.copies, len(components.crops)
    train = configs.draft(config).train
    bank = _trial_bank(config, components, out)
    if bank is None:
        why = "the encoder is not frozen" if train.device == "cpu" else "not measured on this device"
        reason = {} if given is not None else {"train.copies": why}
        return configs.replace(config, train={"copies": given or 0}), reason, 0.0
    per_copy, size = bank.cost()
    uses = budget.frozen_share(train, components.model) * train.steps * train.batch_size * train.accumulate
    reasons: Reasons = {}
    copies = given
    if copies is None:
        copies, reasons["train.copies"] = budget.choose_copies(images, per_copy, size, limit, uses)
    seconds = min(copies * images * per_copy, budget.FILL_SHARE * limit) if limit else 0.0
    return configs.replace(config, train={"copies": copies}), reasons, seconds


def _trial_bank(config: Config, components: Components, out: Path) -> FeatureBank | None:
    """Return a bank for measurements; None if features are not stored, whatever the length of the run."""
    by_default = components.model.separable and configs.draft(config).train.device == "cpu"
    if config.train.copies == 0 or not (config.train.copies or by_default):
        return None
    trial = configs.replace(config, train={"copies": config.train.copies or 1})
    return assembly.make_bank(configs.draft(trial), components, out)


def fit_within(limit: float, started: float, work: Work, begun: Begun, listener: Listener | None) -> tuple[Work, float]:
    """Train, and update the number of steps several times, since the speed of a shared machine changes.

    Returns:
        The input of the loop with its final number of steps, and the deadline of its end, in seconds of `time.monotonic`.
    """
    work = replace(work, fill_limit=budget.FILL_SHARE * limit)
    pace = budget.Pace(1.0, 1.0, 0.0)
    if 0 < work.frozen_until(0, last_step(work.config.train)) < last_step(work.config.train):
        pace = budget.measure_pace(work.config, begun.components, work.bank, _PACE_STEPS)
    measured = (work.config, work.model, begun.card, begun.val)
    per_validation = assembly.validation_seconds(*measured) * validated_images(work.config.train, len(begun.val))
    final = begun.end_seconds(work.config, work.model)
    resumed = 0.0  # seconds of training in earlier processes
    marks = [(0, 0.0)]
    recounted = False
    while (border := next_recount(work.config.train)) is not None:
        state = fit(work, listener, until=border, recounted=recounted)
        if not recounted:
            resumed = max(state.seconds - (time.monotonic() - started), 0.0)
        if state.validation_seconds is not None:  # the end predicts the same images as a validation
            final *= max(state.validation_seconds / max(per_validation, 1e-9), 1.0)
            per_validation = max(state.validation_seconds, per_validation)
        train = work.config.train
        due = validation_steps(train)
        marks.append((border, state.seconds))
        frozen = work.frozen_until(0, last_step(train))
        units_before = {step: pace.units(step, frozen) for step, _ in marks}
        per_unit = budget.slower_pace(marks, due, per_validation, units_before.__getitem__)
        left = limit - resumed - (time.monotonic() - started)
        units = budget.fitting_steps(per_unit, per_validation, max(sum(d > border for d in due), 1), left, final)
        recounts = (*train.recounts, (border, max(pace.total_steps(units, border, frozen), border + 1)))
        _write_recounts(work.folder / CONFIG, recounts)
        work = replace(work, config=configs.replace(work.config, train={"recounts": recounts}))
        recounted = True
    state = fit(work, listener, recounted=recounted)
    if not recounted:
        resumed = max(state.seconds - (time.monotonic() - started), 0.0)
    return work, started + budget.TOLERANCE * limit - resumed


def _write_recounts(path: Path, recounts: tuple[tuple[int, int], ...]) -> None:
    """Replace one line of config.yaml, keeping the reasons in the others."""
    line = (
        f"  recounts: {json.dumps(recounts)}  # [step, new total number of steps], by the speed measured during the run"
    )
    text, count = re.subn(r"^  recounts: .*$", line, path.read_text(encoding="utf-8"), count=1, flags=re.M)
    assert count == 1, "config.yaml has all keys"
    write_atomic(path, text)
