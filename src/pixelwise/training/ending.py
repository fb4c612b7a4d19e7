"""The end of a run: calibrate and score the best model, and write its card, its README and `scores.json`.

The end is part of a time limit. If it would take longer than the time that is left, fewer images are used, and that is reported.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Collection
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from pixelwise.config import Config, ResolvedConfig
from pixelwise.datasets.dataset import Dataset
from pixelwise.datasets.set_aside import whole_units
from pixelwise.errors import DataError, convert_memory_errors
from pixelwise.evaluation import ImagePredictor, evaluate, fitted_temperature
from pixelwise.evaluation.calibrating import IMAGES
from pixelwise.evaluation.kept import KeptMasks, RecordingPredictor, keep_all
from pixelwise.evaluation.meters import reads_probabilities
from pixelwise.inference.engines import engine_facts
from pixelwise.inference.predictor import Predictor
from pixelwise.inference.torch_backend import open_torch
from pixelwise.machine import free_memory
from pixelwise.measuring.size_counts import SizeRecorder
from pixelwise.metrics.temperature import Temperature
from pixelwise.models.base import SegmentationModel
from pixelwise.models.card import ModelCard
from pixelwise.models.readme import write_readme
from pixelwise.models.weights import load_model, save_model
from pixelwise.storage import write_json
from pixelwise.training.assembly import MODEL, make_predictor
from pixelwise.training.interrupt import StopSignal
from pixelwise.training.runlog import Listener
from pixelwise.training.size_calibration import calibrated_sizes
from pixelwise.training.validation import CachedImages, evenly_spaced, image_memory, seconds_per_image, spread

SCORES = "scores.json"
_REPORT_IMAGES, _FEWEST_SCORED = 28, 10
# Of the free memory, for probabilities.
_MEMORY_SHARE = 0.25
# To encode an image for the report, which limits its size.
_SECONDS_TO_SHOW = 0.1
_FEWER = (
    "{0} of {1} validation images were scored, to keep the time limit. For all of them: "
    "pixelwise evaluate {2} {2}/config.yaml --split val"
)

_FEWER_SIZES = "{0} of {1} images that were set aside calibrated the intervals of sizes, to keep the time limit."


@dataclass(frozen=True)
class EndCost:
    """Estimated seconds of the end of a run.

    Args:
        scoring: per image, to predict and score it.
        fitting: per image, to predict it and sample it for the temperature.
        calibrated, scored, shown: number of images that are calibrated on, scored and shown without a time limit.
        kept: number of images whose prediction for the temperature is kept for the scores.
        apart: number of images that calibrate intervals of sizes.
    """

    scoring: float
    fitting: float
    calibrated: int
    scored: int
    shown: int
    kept: int
    apart: int = 0

    @property
    def seconds(self) -> float:
        """Seconds of the whole end."""
        again = max(self.calibrated - self.kept, 0)
        return self.scoring * (self.scored + self.apart) + self.fitting * again + _SECONDS_TO_SHOW * self.shown


class _Deadline:
    """The time that is left for the end of a run, and how many images can be used within it.

    Args:
        until: the deadline, in seconds of `time.monotonic`.
        cost: the estimate.
    """

    def __init__(self, until: float, cost: EndCost) -> None:
        self.until, self.cost = until, cost
        self.slowdown = 1.0
        self.kept = 0

    def measured(self, seconds: float, images: int) -> None:
        """Update the estimate by the time that calibration took."""
        self.slowdown = max(seconds / max(self.cost.fitting * images, 1e-9), 1.0)
        self.kept = min(images, self.cost.kept)

    def scored(self) -> int:
        """Return the number of images to score, which leaves time for the intervals of sizes and the report."""
        left = self._left() - self.cost.scoring * self.cost.apart
        left += self.cost.fitting * self.kept  # they need not be predicted again
        return self._within(left, self.cost.scored)

    def apart(self) -> int:
        """Return the number of images to calibrate intervals of sizes on, which leaves time for the report."""
        return self._within(self._left(), self.cost.apart)

    def _left(self) -> float:
        """Return the seconds until the report, if the machine were as fast as estimated."""
        return (self.until - time.monotonic()) / self.slowdown - _SECONDS_TO_SHOW * self.cost.shown

    def _within(self, seconds: float, images: int) -> int:
        within = int(seconds / self.cost.scoring) if self.cost.scoring > 0 else images
        return min(max(within, _FEWEST_SCORED), images)


def end_cost(config: Config, model: SegmentationModel, card: ModelCard, val: Dataset, apart: int = 0) -> EndCost:
    """Estimate the seconds of calibration, scoring and report from three images; `apart` more calibrate sizes."""
    settings = config.evaluate
    recording = RecordingPredictor(make_predictor(config, model, card), memory=sys.maxsize)
    # A temperature other than 1 takes time.
    calibrated_card = replace(card, spec=replace(card.spec, temperature=2.0 if settings.temperature else 1.0))
    predictor = make_predictor(config, model, calibrated_card)

    def score(split: Dataset) -> None:
        with suppress(DataError):  # these images may have only ignored pixels
            evaluate(
                split,
                predictor,
                metrics=settings.metrics,
                surface_tolerance=settings.surface_tolerance,
                intervals=False,
            )

    scoring = seconds_per_image(score, val)
    calibrated = min(len(val), IMAGES) if settings.temperature else 0
    shown = min(len(val), _REPORT_IMAGES) if settings.report else 0
    fitting, kept = 0.0, 0
    if calibrated:
        fitting = seconds_per_image(lambda split: fitted_temperature(split, recording), val)
        each = max((prediction.mask.size for prediction, _ in recording.kept.values()), default=1)
        kept = min(_memory_for_probabilities(settings.metrics) // (4 * val.labels.num_classes * each), calibrated)
    model.train()
    return EndCost(scoring, fitting, calibrated, len(val), shown, kept, apart)


def _memory_for_probabilities(metrics: Collection[str]) -> int:
    """Return how many bytes of probabilities to keep between calibration and scoring: none if they are not scored."""
    return int((free_memory() or 0) * _MEMORY_SHARE) if reads_probabilities(metrics) else 0


def finish(
    config: ResolvedConfig,
    val: Dataset,
    out: Path,
    notify: Listener,
    deadline: float | None = None,
    masks: KeptMasks | None = None,
    sizes: Dataset | None = None,
) -> Path:
    """Calibrate and score the best model, mark the run as finished, and return its folder.

    Each image is predicted once, unless the probabilities of the images that are calibrated on do not fit into memory.

    Args:
        config: of the run.
        val: the validation split.
        out: the run folder.
        notify: called with each event.
        deadline: when to be ready, in seconds of `time.monotonic`; None: score all images.
        masks: keeps the predicted masks, for the report.
        sizes: images that calibrate intervals of sizes, which are used for nothing else; None if there are none.

    Raises:
        Interrupted: the same request resumes with this function.
        OutOfMemoryError: likewise, and the request may select fewer metrics.
    """
    model, card = load_model(out / MODEL)
    settings = config.evaluate
    apart = 0 if sizes is None else len(sizes)
    limit = None if deadline is None else _Deadline(deadline, end_cost(config, model, card, val, apart))
    images = CachedImages(val if limit is None else spread(val, limit.scored()), image_memory())
    progress = partial(_progress, notify)
    do = "Training is complete. Run the same command with --set evaluate.metrics=[], or on a machine with more memory."
    with StopSignal(out, "training is complete, but not scored") as stop, convert_memory_errors(out, do):
        # The same predictor as that of `load`, so that scores are those of the saved model.
        backend = open_torch(out / MODEL, device=config.train.device)
        predictor: ImagePredictor = Predictor(backend)
        if settings.temperature:
            recording = RecordingPredictor(
                Predictor(backend, temperature=1.0), _memory_for_probabilities(settings.metrics)
            )
            started = time.monotonic()
            fitted = fitted_temperature(images, recording, progress=progress("calibrating"), stop=stop.check)
            if limit is not None:
                limit.measured(time.monotonic() - started, min(len(images), IMAGES))
                images = _fewer(images, limit.scored())
            spec = replace(card.spec, temperature=fitted.value)
            card = replace(card, spec=spec, calibration=_calibration(fitted))
            predictor = recording.replayed(Predictor(backend, temperature=fitted.value), fitted.value)
            notify({"event": "calibrated", **_calibration(fitted)})
        notices = [_FEWER.format(len(images), len(val), out)] if len(images) < len(val) else []
        for notice in notices:
            notify({"event": "notice", "text": notice})
        recorder = SizeRecorder(val.labels.num_classes)
        result = evaluate(
            images,
            predictor,
            metrics=settings.metrics,
            surface_tolerance=settings.surface_tolerance,
            intervals=settings.resamples > 0,
            progress=progress("scoring"),
            stop=stop.check,
            keep=keep_all(recorder.keep, None if masks is None else masks.add),
        )
        if sizes is not None:
            chosen = sizes if limit is None else whole_units(sizes, limit.apart())
            if len(chosen) < apart:
                notices.append(_FEWER_SIZES.format(len(chosen), apart))
                notify({"event": "notice", "text": notices[-1]})
            known = recorder.sizes(result.images)
            found = calibrated_sizes(known, chosen, predictor, progress("calibrating sizes"), stop.check)
            card = replace(card, size_calibration=None if found is None else found.to_dict())
    engine = engine_facts(backend.engine, backend.precision)
    plain = {"split": "val", **replace(result, notices=(*notices, *result.notices), engine=engine).to_dict()}
    _write(out, model, card, plain)
    notify({"event": "finished", "scores": plain, "folder": str(out)})
    return out


def _progress(notify: Listener, event: str) -> Callable[[int, int], None]:
    """Return a function that reports the images done, and their number, as events of one kind."""
    return lambda done, total: notify({"event": event, "done": done, "total": total})


def _write(out: Path, model: SegmentationModel, card: ModelCard, scores: dict[str, Any]) -> None:
    """Write the model with its scores, its README, and last `scores.json`, which marks the run as finished."""
    step = (card.scores or {}).get("step")
    save_model(out / MODEL, model, replace(card, scores={"step": step, "val": _short(scores)}))
    write_readme(out / MODEL)
    write_json(out / SCORES, scores)


def _fewer(images: CachedImages, count: int) -> CachedImages:
    """Return `count` evenly spaced images, if possible of those that were calibrated on, which are predicted already."""
    if count >= len(images):
        return images
    calibrated = images.subset(evenly_spaced(len(images), IMAGES))
    chosen = images if count > len(calibrated) else calibrated
    return chosen.subset(evenly_spaced(len(chosen), count))


def _calibration(fitted: Temperature) -> dict[str, Any]:
    """Return the calibration for the model card; NaN becomes null."""
    plain = {key: None if value != value else value for key, value in asdict(fitted).items()}
    return {"temperature": plain.pop("value"), "fitted_on": "val", **plain}


def _short(plain: dict[str, Any]) -> dict[str, Any]:
    """Return the scores for the model card, without details per image."""
    return {key: value for key, value in plain.items() if key not in ("per_image", "tables", "notices", "confusion")}
