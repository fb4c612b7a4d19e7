"""The end of a run: calibrate and score the best model, and write its card, its README and `scores.json`."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from pixelwise.config import Config, ResolvedConfig
from pixelwise.datasets.dataset import Dataset
from pixelwise.errors import DataError, convert_memory_errors
from pixelwise.evaluation import evaluate, fitted_temperature
from pixelwise.evaluation.calibrating import IMAGES
from pixelwise.inference.predictor import Predictor
from pixelwise.inference.torch_backend import TorchBackend
from pixelwise.metrics.temperature import Temperature
from pixelwise.models.base import SegmentationModel
from pixelwise.models.card import ModelCard
from pixelwise.models.readme import write_readme
from pixelwise.models.weights import load_model, save_model
from pixelwise.storage import write_json
from pixelwise.training.assembly import MODEL, make_predictor
from pixelwise.training.interrupt import StopSignal
from pixelwise.training.runlog import Listener

SCORES = "scores.json"
_REPORT_IMAGES = 28


def final_seconds(config: Config, model: SegmentationModel, card: ModelCard, val: Dataset) -> float:
    """Estimate the seconds of calibration, scoring and predictions for the report from two images.

    The bootstrap and the rendering of the report are not included.
    """
    sample = val.subset(range(min(len(val), 2)))
    predictor = make_predictor(config, model, card)
    settings = config.evaluate

    def score(split: Dataset) -> float:
        started = time.perf_counter()
        with suppress(DataError):  # these images may have only ignored pixels
            evaluate(
                split, predictor, metrics=settings.metrics, surface_tolerance=settings.surface_tolerance, resamples=0
            )
        return time.perf_counter() - started

    score(sample.subset([0]))
    scoring = score(sample)
    started = time.perf_counter()
    repeated = min(len(val), IMAGES) if settings.temperature else 0
    repeated += min(len(val), _REPORT_IMAGES) if settings.report else 0
    if repeated:
        fitted_temperature(sample, predictor)
    fitting = time.perf_counter() - started
    model.train()
    return (scoring * len(val) + fitting * repeated) / len(sample)


def finish(config: ResolvedConfig, val: Dataset, out: Path, notify: Listener) -> Path:
    """Calibrate and score the best model, mark the run as finished, and return its folder.

    Raises:
        Interrupted: the same request resumes with this function.
        OutOfMemoryError: likewise, and the request may select fewer metrics.
    """
    model, card = load_model(out / MODEL)
    device, settings = config.train.device, config.evaluate

    def progress(event: str) -> Callable[[int, int], None]:
        return lambda done, total: notify({"event": event, "done": done, "total": total})

    do = "Training is complete. Run the same command with --set evaluate.metrics=[], or on a machine with more memory."
    with StopSignal(out, "training is complete, but not scored") as stop, convert_memory_errors(out, do):
        if settings.temperature:
            uncorrected = Predictor(TorchBackend(model, card.spec, device), temperature=1.0)
            fitted = fitted_temperature(val, uncorrected, progress=progress("calibrating"), stop=stop.check)
            spec = replace(card.spec, temperature=fitted.value)
            card = replace(card, spec=spec, calibration=_calibration(fitted))
            notify({"event": "calibrated", **_calibration(fitted)})
        # The same predictor as that of `load`, so that scores are those of the saved model.
        result = evaluate(
            val,
            Predictor(TorchBackend(model, card.spec, device)),
            metrics=settings.metrics,
            surface_tolerance=settings.surface_tolerance,
            resamples=settings.resamples,
            progress=progress("scoring"),
            stop=stop.check,
        )
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
