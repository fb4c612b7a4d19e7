"""How a run ends: its best model is calibrated, scored as it will be used, and described.

Comes in: the configuration, the validation part, and the run folder with the best model. Goes out: `model/` with its
temperature, scores and README, and `scores.json`. Knows nothing of how the model was trained.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from pixelwise.config import Config
from pixelwise.datasets.dataset import Dataset
from pixelwise.errors import DataError, memory_respected
from pixelwise.evaluation import evaluate, fitted_temperature
from pixelwise.evaluation.calibrating import IMAGES
from pixelwise.inference.predictor import Predictor
from pixelwise.inference.torch_backend import TorchBackend
from pixelwise.metrics.temperature import Temperature
from pixelwise.models.base import SegmentationModel
from pixelwise.models.hub import write_readme
from pixelwise.models.weights import ModelCard, load_model, save_model
from pixelwise.storage import write_json
from pixelwise.training.assembly import MODEL, make_predictor
from pixelwise.training.interrupt import StopSignal
from pixelwise.training.runlog import Listener

SCORES = "scores.json"
_SHOWN = 28  # images in a report


def final_seconds(config: Config, model: SegmentationModel, card: ModelCard, val: Dataset) -> float:
    """Measure on two images how long the end takes: calibration, all metrics, and what a report predicts again.

    The draws behind the intervals and the drawing of the page, which hardly depend on the images, are not in it.
    """
    few = val.subset(range(min(len(val), 2)))
    predictor, settings = make_predictor(config, model, card), config.evaluate

    def score(split: Dataset) -> float:
        began = time.perf_counter()
        with suppress(DataError):  # raised at the end where no pixel of these counts
            evaluate(
                split, predictor, metrics=settings.metrics, surface_tolerance=settings.surface_tolerance, resamples=0
            )
        return time.perf_counter() - began

    score(few.subset([0]))
    scoring, began = score(few), time.perf_counter()
    again = (min(len(val), IMAGES) if settings.temperature else 0) + (min(len(val), _SHOWN) if settings.report else 0)
    if again:
        fitted_temperature(few, predictor)
    fitting = time.perf_counter() - began
    model.train()
    return (scoring * len(val) + fitting * again) / len(few)


def finish(config: Config, val: Dataset, out: Path, tell: Listener) -> Path:
    """Calibrate the best model, score it with intervals, and mark the run as finished; give its folder.

    Args:
        config: of the run; its `evaluate` section says what is scored.
        val: the validation part.
        out: the run folder.
        tell: is told how far it is.

    Raises:
        Interrupted: the same request goes on here.
        OutOfMemoryError: the same request, told to score less, goes on here, too.
    """
    model, card = load_model(out / MODEL)
    device, settings = config.train.device or "cpu", config.evaluate

    def told(event: str) -> Callable[[int, int], None]:
        return lambda done, total: tell({"event": event, "done": done, "total": total})

    do = "Type the same command with --set evaluate.metrics=[], or on a machine with more memory: what was learned is kept."
    with StopSignal(out) as stop, memory_respected(out, do):
        if settings.temperature:
            uncorrected = Predictor(TorchBackend(model, card.spec, device), temperature=1.0)
            fitted = fitted_temperature(val, uncorrected, progress=told("calibrating"), stop=stop.check)
            spec = replace(card.spec, temperature=fitted.value)
            card = replace(card, spec=spec, calibration=_calibration(fitted))
            tell({"event": "calibrated", **_calibration(fitted)})
        # As `load` and with it every other verb predicts: what is scored is what is shipped.
        result = evaluate(
            val,
            Predictor(TorchBackend(model, card.spec, device)),
            metrics=settings.metrics,
            surface_tolerance=settings.surface_tolerance,
            resamples=settings.resamples,
            progress=told("scoring"),
            stop=stop.check,
        )
    plain = {"split": "val", **result.to_dict()}
    step = (card.scores or {}).get("step")
    save_model(out / MODEL, model, replace(card, scores={"step": step, "val": _short(plain)}))
    write_readme(out / MODEL)
    write_json(out / SCORES, plain)
    tell({"event": "finished", "scores": plain, "folder": str(out)})
    return out


def _calibration(fitted: Temperature) -> dict[str, Any]:
    """Give what the model's card says of its temperature; what no pixel determined is null."""
    plain = {key: None if value != value else value for key, value in asdict(fitted).items()}
    return {"temperature": plain.pop("value"), "fitted_on": "val", **plain}


def _short(plain: dict[str, Any]) -> dict[str, Any]:
    """Leave out of the scores what a model's card need not carry."""
    return {key: value for key, value in plain.items() if key not in ("per_image", "tables", "notices", "confusion")}
