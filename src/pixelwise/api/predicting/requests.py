"""What a prediction was asked for, the engine that it uses, and its summary."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from typing import Any

from pixelwise.api.loading import Model
from pixelwise.api.predicting.class_totals import summed
from pixelwise.api.predicting.journal import JOURNAL
from pixelwise.api.predicting.outputs import Outputs
from pixelwise.api.predicting.run import Predicted, Progress
from pixelwise.api.predicting.sources import Item
from pixelwise.api.predicting.video import example_frame
from pixelwise.errors import DataError
from pixelwise.inference.augmentation import mirrored_axes
from pixelwise.inference.engines import AUTO, Example
from pixelwise.inference.predictor import Predictor
from pixelwise.labels import Labels
from pixelwise.storage import write_json
from pixelwise.types import ModelSpec

SUMMARY = "predictions.json"
RESULTS = (SUMMARY, JOURNAL, "masks", "overlays", "probabilities", "confidence", "frames", "polygons")


def write_summary(result: Predicted, labels: Labels) -> None:
    """Write `predictions.json`."""
    write_json(
        result.folder / SUMMARY, {"labels": labels.to_dict(), "totals": summed(result.images), **result.to_dict()}
    )


def model_facts(predictor: Predictor | Model) -> dict[str, str]:
    """Return what `predictions.json` says about the model: its place and the SHA-256 of its weights; nothing of a predictor."""
    if isinstance(predictor, Predictor):
        return {}
    return {"model": str(predictor.folder.resolve()), "model_sha256": predictor.card.sha256}


def open_engine(
    predictor: Predictor | Model,
    named: Mapping[str, Item],
    begun: Mapping[str, Any] | None,
    progress: Progress | None,
    count: int,
) -> tuple[Predictor, dict[str, Any] | None]:
    """Return the predictor, and what is recorded about its engine; None for a predictor that was given.

    Args:
        predictor: a predictor, or the model to open.
        named: the files.
        begun: the engine that an unfinished folder recorded, which is kept if it is available.
        progress: see `predict_files`.
        count: number of files in the job.
    """
    if isinstance(predictor, Predictor):
        return predictor, None
    model = predictor.with_engine(begun)
    if model is None:

        def announce() -> None:
            if progress is not None:
                progress(0, len(named), "choosing the engine")

        model = predictor.for_images(_examples(named.values(), predictor.spec), count, announce)
    facts = {} if model.engine is None else model.engine.facts()
    if begun and [begun.get(key) for key in ("name", "precision")] != [facts["name"], facts["precision"]]:
        before = f"{begun.get('name')} {begun.get('precision')}, with which the folder was begun, is not available"
        facts["why"] = f"{before}; {facts['why']}"
    return model.predictor, facts


def _examples(items: Iterable[Item], spec: ModelSpec) -> Iterator[Example]:
    """Open the files that can be opened."""
    for item in items:
        with suppress(DataError):
            if item.is_video:
                yield example_frame(item.path)
            elif not item.error:
                source = item.open(spec)
                yield Example(source.shape, source.read)


def request_for(
    predictor: Predictor | Model, model: str, named: Mapping[str, Item] | None, outputs: Outputs
) -> dict[str, Any]:
    """Return what must be equal for a folder to be resumed; the sources may have been moved."""
    spec = predictor.spec
    requested = predictor.engines if isinstance(predictor, Model) else None
    return {
        "model": model,
        "tile": None if spec.tile is None else list(spec.tile),
        "overlap": spec.overlap,
        "flips": [list(axes) for axes in mirrored_axes(spec.mirrors if spec.flips else (), spec.dimensions)],
        "overlays": outputs.overlays,
        "probabilities": outputs.probabilities,
        "confidence": outputs.confidence,
        "polygons": list(outputs.polygons),
        "simplify": outputs.simplify,
        "mosaic": outputs.mosaic,
        "resample": outputs.resample,
        "dicom": outputs.dicom,
        "generate_uids": outputs.generate_uids,
        "video": outputs.video.to_dict(),
        "backend": None if requested is None or requested.backend == AUTO else requested.backend,
        "precision": None if requested is None else requested.precision,
        "sources": None if named is None else list(named),
    }
