"""Predict many files into a folder, and resume an unfinished one."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from pixelwise.api.loading import Model
from pixelwise.api.predicting.bands import require_bands
from pixelwise.api.predicting.journal import JOURNAL, Journal, journal_lines, resumed
from pixelwise.api.predicting.outputs import Loaded, Outputs, predict_source
from pixelwise.api.predicting.polygons import require_images
from pixelwise.api.predicting.requests import RESULTS, SUMMARY, model_facts, open_engine, request_for, write_summary
from pixelwise.api.predicting.run import Predicted, Progress, Run
from pixelwise.api.predicting.sources import find_sources
from pixelwise.api.predicting.video import VIDEO_KEYS, video_settings
from pixelwise.api.predicting.watching import watch_folder
from pixelwise.api.scoring import require_sections
from pixelwise.config import Config, with_overrides
from pixelwise.errors import Interrupted, UsageError
from pixelwise.imageio.sources import open_source
from pixelwise.inference.predictor import Predictor
from pixelwise.storage import claim_folder, require_claimable
from pixelwise.types import Prediction

# Settings of the section `predict` that are no fields of `ModelSpec`.
_OUTPUT_KEYS = {"confidence", "dicom", "generate_uids", "mosaic", "polygons", "resample", "simplify"}

__all__ = [
    "Outputs",
    "Predicted",
    "find_sources",
    "predict_file",
    "predict_files",
    "predict_settings",
    "watch_folder",
]


def predict_files(
    predictor: Predictor | Model,
    sources: Sequence[str],
    out: Path,
    *,
    model: str = "",
    overwrite: bool = False,
    progress: Progress | None = None,
    **outputs: Any,
) -> Predicted:
    """Predict every source and write `masks/`, `overlays/`, `probabilities/` and `predictions.json` into `out`.

    A mask has the format of its source where that keeps ids and geometry: GeoTIFF for GeoTIFF, NIfTI for NIfTI, else PNG.

    Args:
        predictor: the way from image to Prediction; or a model, whose engine is chosen by the first images. A folder that is
            resumed keeps its engine.
        sources: files, folders, globs.
        out: a new or empty folder, or an unfinished one of the same call, which is resumed.
        model: identifies the weights, so that another model does not resume the folder.
        overwrite: replace an earlier result in `out`. Files in `out` are never sources.
        progress: called with (done, total, name) after each file, and with more about it during a scene or a video.
        **outputs: fields of `Outputs`.

    Raises:
        UsageError: a source without images.
        OutputExistsError: `out` holds other files, a finished result, or an unfinished one of another call.
        ResourceError: the disk is full.
        Interrupted: stopped by Ctrl-C; the same call resumes.
    """
    wanted = Outputs(**outputs)
    inside = out.resolve()
    found = find_sources(sources, predictor.spec, mosaic=wanted.mosaic)
    named = {name: item for name, item in found.items.items() if inside not in item.files[0].resolve().parents}
    if not named:
        raise UsageError(out, expected="images outside of --out", found="none", do="Choose another --out.")
    require_images(named.values(), wanted.polygons)
    request = request_for(predictor, model, named, wanted)
    done = resumed(out, request, overwrite)
    if done is None:
        require_claimable(out, overwrite, RESULTS, SUMMARY)
    facts = model_facts(predictor)
    begun = None if done is None else journal_lines(out / JOURNAL)[:1]
    predictor, engine = open_engine(predictor, named, begun[0].get("engine") if begun else None, progress, len(named))
    if done is None:
        # Claimed only now, so that a model that cannot be opened does not remove an earlier result.
        claim_folder(out, overwrite, RESULTS, SUMMARY)
        # Written first, so that an unfinished folder is recognised as one of ours.
        write_summary(Predicted(out, (), ()), predictor.spec.labels)
        done = {}
    with closing(Journal(out / JOURNAL, request | {"engine": engine})) as journal:
        try:
            result = Run(predictor, named, out, wanted, journal, progress, model).all(done)
        except KeyboardInterrupt:
            finished = f"{len(journal.written)} of {len(named)} files are finished"
            raise Interrupted(out, found=finished) from None
    result = replace(result, engine=engine, notices=found.notices, model=facts)
    write_summary(result, predictor.spec.labels)
    (out / JOURNAL).unlink()
    return result


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
    source = open_source(path, across=model.spec.across, nodata=model.spec.nodata)
    require_bands(source, model.spec)
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
    video = {"video": video_settings(overrides)} if keys & VIDEO_KEYS else {}
    chosen = {key: getattr(config, key) for key in keys}
    return (
        {key: value for key, value in chosen.items() if key not in _OUTPUT_KEYS | VIDEO_KEYS},
        {key: value for key, value in chosen.items() if key in _OUTPUT_KEYS} | video,
    )
