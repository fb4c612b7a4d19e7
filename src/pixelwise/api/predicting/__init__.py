"""Predict many files into a folder, and resume an unfinished one."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from pixelwise.api.loading import Model
from pixelwise.api.predicting.journal import JOURNAL, Journal, journal_lines, resumed
from pixelwise.api.predicting.outputs import Loaded, Outputs, predict_source
from pixelwise.api.predicting.run import Predicted, Progress, Run
from pixelwise.api.predicting.sources import find_sources
from pixelwise.api.scoring import require_sections
from pixelwise.config import Config, with_overrides
from pixelwise.errors import DataError, Interrupted, UsageError
from pixelwise.imageio.sources import open_source
from pixelwise.inference.augmentation import mirrored_axes
from pixelwise.inference.engines import AUTO, Example
from pixelwise.inference.predictor import Predictor
from pixelwise.storage import claim_folder, require_claimable, write_json
from pixelwise.types import Prediction

SUMMARY = "predictions.json"
RESULTS = (SUMMARY, JOURNAL, "masks", "overlays", "probabilities", "confidence")
# Settings of the section `predict` that are no fields of `ModelSpec`.
_OUTPUT_KEYS = {"confidence", "resample"}

__all__ = ["Outputs", "Predicted", "find_sources", "predict_file", "predict_files", "predict_settings"]


def predict_files(
    predictor: Predictor | Model,
    sources: Sequence[str],
    out: Path,
    *,
    model: str = "",
    overlays: bool = True,
    probabilities: bool = False,
    confidence: bool = False,
    resample: bool = False,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> Predicted:
    """Predict every source and write `masks/`, `overlays/`, `probabilities/` and `predictions.json` into `out`.

    A mask has the format of its source where that keeps ids and geometry: GeoTIFF for GeoTIFF, NIfTI for NIfTI, else PNG.

    Args:
        predictor: the way from image to Prediction; or a model, whose engine is chosen by the first images. A folder that is
            resumed keeps its engine.
        sources: files, folders, globs.
        out: a new or empty folder, or an unfinished one of the same call, which is resumed.
        model: identifies the weights, so that another model does not resume the folder.
        overlays: also write the masks drawn over the images.
        probabilities: also write them: of a GeoTIFF as bands of one, else (K, *S) float16 as `.npz` with key `probabilities`.
        confidence: also write the largest probability at each pixel, in percent.
        resample: predict images at the pixel spacing of the training, and return masks on their own grids.
        overwrite: replace an earlier result in `out`. Files in `out` are never sources.
        progress: called with (done, total, name) after each file.

    Raises:
        UsageError: a source without images.
        OutputExistsError: `out` holds other files, a finished result, or an unfinished one of another call.
        ResourceError: the disk is full.
        Interrupted: stopped by Ctrl-C; the same call resumes.
    """
    inside = out.resolve()
    named = {name: path for name, path in find_sources(sources).items() if inside not in path.resolve().parents}
    if not named:
        raise UsageError(out, expected="images outside of --out", found="none", do="Choose another --out.")
    outputs = Outputs(overlays, probabilities, confidence, resample)
    request = _request(predictor, model, named, outputs)
    done = resumed(out, request, overwrite)
    if done is None:
        require_claimable(out, overwrite, RESULTS, SUMMARY)
    begun = None if done is None else journal_lines(out / JOURNAL)[:1]
    predictor, engine = _opened(predictor, named, begun[0].get("engine") if begun else None, progress)
    if done is None:
        # Claimed only now, so that a model that cannot be opened does not remove an earlier result.
        claim_folder(out, overwrite, RESULTS, SUMMARY)
        # Written first, so that an unfinished folder is recognised as one of ours.
        write_json(out / SUMMARY, Predicted(out, (), ()).to_dict())
        done = {}
    with closing(Journal(out / JOURNAL, request | {"engine": engine})) as journal:
        try:
            result = Run(predictor, named, out, outputs, journal, progress).all(done)
        except KeyboardInterrupt:
            found = f"{len(journal.written)} of {len(named)} files are finished"
            raise Interrupted(out, found=found) from None
    result = replace(result, engine=engine)
    write_json(out / SUMMARY, {"labels": predictor.spec.labels.to_dict(), **result.to_dict()})
    (out / JOURNAL).unlink()
    return result


def _opened(
    predictor: Predictor | Model, named: Mapping[str, Path], begun: Mapping[str, Any] | None, progress: Progress | None
) -> tuple[Predictor, dict[str, Any] | None]:
    """Return the predictor, and what is recorded about its engine; None for a predictor that was given.

    Args:
        predictor: a predictor, or the model to open.
        named: the files.
        begun: the engine that an unfinished folder recorded, which is kept if it is available.
        progress: see `predict_files`.
    """
    if isinstance(predictor, Predictor):
        return predictor, None
    model = predictor.with_engine(begun)
    if model is None:

        def announce() -> None:
            if progress is not None:
                progress(0, len(named), "choosing the engine")

        model = predictor.for_images(_examples(named.values(), predictor.spec.nodata), len(named), announce)
    facts = {} if model.engine is None else model.engine.facts()
    if begun and [begun.get(key) for key in ("name", "precision")] != [facts["name"], facts["precision"]]:
        before = f"{begun.get('name')} {begun.get('precision')}, with which the folder was begun, is not available"
        facts["why"] = f"{before}; {facts['why']}"
    return model.predictor, facts


def _examples(paths: Iterable[Path], nodata: float | None) -> Iterator[Example]:
    """Open the files that can be opened."""
    for path in paths:
        with suppress(DataError):
            source = open_source(path, nodata=nodata)
            yield Example(source.shape, source.read)


def _request(predictor: Predictor | Model, model: str, named: Mapping[str, Path], outputs: Outputs) -> dict[str, Any]:
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
        "resample": outputs.resample,
        "backend": None if requested is None or requested.backend == AUTO else requested.backend,
        "precision": None if requested is None else requested.precision,
        "sources": list(named),
    }


def predict_file(model: Model, path: Path, *, probabilities: bool = False) -> tuple[NDArray[Any], Prediction]:
    """Read an image or a volume and predict it.

    Args:
        model: the model.
        path: of the file.
        probabilities: return them too, (K, *S) float32.

    Returns:
        The image (C, *S), and the prediction.

    Raises:
        ImageError: the file cannot be read.
        DataError: not an image of the kind that the model was trained on.
    """
    source = open_source(path, nodata=model.spec.nodata)
    loaded = Loaded(source, *source.read())
    predictor = model.for_shape(loaded.image.shape[1:]).predictor
    return loaded.image, predict_source(predictor, loaded, probabilities)


def predict_settings(overrides: Sequence[str]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return what `predict.a=b` texts set: fields of `ModelSpec`, and arguments of `predict_files`.

    Raises:
        UsageError: a key of another section.
        ConfigError: an unknown key or an invalid value.
    """
    require_sections(overrides, "predict")
    config = with_overrides(Config(), overrides).predict
    keys = {text.partition("=")[0].strip().removeprefix("predict.") for text in overrides}
    chosen = {key: getattr(config, key) for key in keys}
    return (
        {key: value for key, value in chosen.items() if key not in _OUTPUT_KEYS},
        {key: value for key, value in chosen.items() if key in _OUTPUT_KEYS},
    )
