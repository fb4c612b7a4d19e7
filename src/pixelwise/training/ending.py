"""The end of a run: calibrate and score the best model, and write its card, its README and `scores.json`.

The end is part of a time limit. If it would take longer than the time that is left, fewer images are used, and that is reported.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from pixelwise.config import Config, ResolvedConfig
from pixelwise.datasets.dataset import Dataset
from pixelwise.errors import DataError, convert_memory_errors
from pixelwise.evaluation import evaluate, fitted_temperature
from pixelwise.evaluation.calibrating import IMAGES
from pixelwise.inference.engines import engine_facts
from pixelwise.inference.predictor import Predictor
from pixelwise.inference.torch_backend import TorchBackend
from pixelwise.metrics.temperature import Temperature
from pixelwise.models.base import SegmentationModel
from pixelwise.models.card import ModelCard
from pixelwise.models.readme import write_readme
from pixelwise.models.weights import load_model, save_model
from pixelwise.storage import write_json
from pixelwise.training.assembly import MODEL, make_predictor, spread
from pixelwise.training.interrupt import StopSignal
from pixelwise.training.runlog import Listener

SCORES = "scores.json"
_REPORT_IMAGES = 28
_FEWEST_CALIBRATED, _FEWEST_SCORED = 8, 10
_FEWER = (
    "{0} of {1} validation images were scored, to keep the time limit. For all of them: "
    "pixelwise evaluate {2} {2}/config.yaml --split val"
)


@dataclass(frozen=True)
class EndCost:
    """Estimated seconds of the end of a run.

    Args:
        scoring: per image that is scored.
        fitting: per image that is used for the temperature or shown in the report.
        calibrated, scored, shown: number of images that are calibrated on, scored and shown without a time limit.
    """

    scoring: float
    fitting: float
    calibrated: int
    scored: int
    shown: int

    @property
    def seconds(self) -> float:
        """Seconds of the whole end."""
        return self.scoring * self.scored + self.fitting * (self.calibrated + self.shown)


class _Deadline:
    """The time that is left for the end of a run, and how many images can be used within it.

    Args:
        until: the deadline, in seconds of `time.monotonic`.
        cost: the estimate.
    """

    def __init__(self, until: float, cost: EndCost) -> None:
        self.until, self.cost = until, cost
        self.slowdown = 1.0

    def calibrated(self) -> int:
        """Return the number of images to calibrate on: the same share as of all other images."""
        share = (self.until - time.monotonic()) / max(self.cost.seconds, 1e-9)
        return max(int(min(share, 1.0) * self.cost.calibrated), _FEWEST_CALIBRATED)

    def measured(self, seconds: float, images: int) -> None:
        """Update the estimate by the time that calibration took."""
        self.slowdown = max(seconds / max(self.cost.fitting * images, 1e-9), 1.0)

    def scored(self) -> int:
        """Return the number of images to score, which leaves time for the report."""
        left = (self.until - time.monotonic()) / self.slowdown - self.cost.fitting * self.cost.shown
        within = int(left / self.cost.scoring) if self.cost.scoring > 0 else self.cost.scored
        return min(max(within, _FEWEST_SCORED), self.cost.scored)


def end_cost(config: Config, model: SegmentationModel, card: ModelCard, val: Dataset) -> EndCost:
    """Estimate the seconds of calibration, scoring and report from two images."""
    sample = spread(val, 2)
    predictor = make_predictor(config, model, card)
    settings = config.evaluate

    def score(split: Dataset) -> float:
        started = time.perf_counter()
        with suppress(DataError):  # these images may have only ignored pixels
            evaluate(
                split,
                predictor,
                metrics=settings.metrics,
                surface_tolerance=settings.surface_tolerance,
                intervals=False,
            )
        return time.perf_counter() - started

    score(sample.subset([0]))
    scoring = score(sample)
    calibrated = min(len(val), IMAGES) if settings.temperature else 0
    shown = min(len(val), _REPORT_IMAGES) if settings.report else 0
    fitting = 0.0
    if calibrated or shown:
        started = time.perf_counter()
        fitted_temperature(sample, predictor)
        fitting = time.perf_counter() - started
    model.train()
    each = len(sample)
    return EndCost(scoring / each, fitting / each, calibrated, len(val), shown)


def finish(config: ResolvedConfig, val: Dataset, out: Path, notify: Listener, deadline: float | None = None) -> Path:
    """Calibrate and score the best model, mark the run as finished, and return its folder.

    Args:
        config: of the run.
        val: the validation split.
        out: the run folder.
        notify: called with each event.
        deadline: when to be ready, in seconds of `time.monotonic`; None: score all images.

    Raises:
        Interrupted: the same request resumes with this function.
        OutOfMemoryError: likewise, and the request may select fewer metrics.
    """
    model, card = load_model(out / MODEL)
    device, settings = config.train.device, config.evaluate
    limit = None if deadline is None else _Deadline(deadline, end_cost(config, model, card, val))

    def progress(event: str) -> Callable[[int, int], None]:
        return lambda done, total: notify({"event": event, "done": done, "total": total})

    do = "Training is complete. Run the same command with --set evaluate.metrics=[], or on a machine with more memory."
    with StopSignal(out, "training is complete, but not scored") as stop, convert_memory_errors(out, do):
        if settings.temperature:
            uncorrected = Predictor(TorchBackend(model, card.spec, device), temperature=1.0)
            sample = spread(val, IMAGES if limit is None else limit.calibrated())
            started = time.monotonic()
            fitted = fitted_temperature(sample, uncorrected, progress=progress("calibrating"), stop=stop.check)
            if limit is not None:
                limit.measured(time.monotonic() - started, len(sample))
            spec = replace(card.spec, temperature=fitted.value)
            card = replace(card, spec=spec, calibration=_calibration(fitted))
            notify({"event": "calibrated", **_calibration(fitted)})
        scored = val if limit is None else spread(val, limit.scored())
        notices = [_FEWER.format(len(scored), len(val), out)] if len(scored) < len(val) else []
        for notice in notices:
            notify({"event": "notice", "text": notice})
        # The same predictor as that of `load`, so that scores are those of the saved model.
        result = evaluate(
            scored,
            Predictor(TorchBackend(model, card.spec, device)),
            metrics=settings.metrics,
            surface_tolerance=settings.surface_tolerance,
            intervals=settings.resamples > 0,
            progress=progress("scoring"),
            stop=stop.check,
        )
    engine = engine_facts("torch", "fp32")
    result = replace(result, notices=(*notices, *result.notices), engine=engine)
    plain = {"split": "val", **result.to_dict()}
    step = (card.scores or {}).get("step")
    save_model(out / MODEL, model, replace(card, scores={"step": step, "val": _short(plain)}))
    write_readme(out / MODEL)
    write_json(out / SCORES, plain)
    notify({"event": "finished", "scores": plain, "folder": str(out)})
    return out


def _calibration(fitted: Temperature) -> dict[str, Any]:
    """Return the calibration for the model card; NaN becomes null."""
    plain = {key: None if value != value else value for key, value in asdict(fitted).items()}
    return {"temperature": plain.pop("value"), "fitted_on": "val", **plain}


def _short(plain: dict[str, Any]) -> dict[str, Any]:
    """Return the scores for the model card, without details per image."""
    return {key: value for key, value in plain.items() if key not in ("per_image", "tables", "notices", "confusion")}
