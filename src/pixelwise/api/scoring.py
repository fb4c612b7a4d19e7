"""The verbs `evaluate` and `compare`, and checks shared with other verbs."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING

from pixelwise.api import reporting
from pixelwise.api.loading import Model, holds_masks, load, load_card
from pixelwise.api.reporting import SCORES
from pixelwise.api.size_calibration import require_calibratable, write_size_calibration
from pixelwise.errors import DataError, UsageError

if TYPE_CHECKING:
    from pixelwise.config import Config
    from pixelwise.datasets.dataset import Dataset, DataSplits
    from pixelwise.evaluation import Evaluation, ImagePredictor
    from pixelwise.evaluation.comparison import Comparison
    from pixelwise.inference.engines import Example
    from pixelwise.models.card import ModelCard
    from pixelwise.types import ModelSpec

# Images whose band names are compared with those of the training.
_COMPARED = 20


def evaluate(
    model: str | Path | Model,
    data: str | Path,
    *,
    split: str = "test",
    metrics: Sequence[str] | None = None,
    convention: str | None = None,
    out: str | Path | None = None,
    overrides: Sequence[str] = (),
    overwrite: bool = False,
    backend: str = "auto",
    precision: str | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Evaluation:
    """Score a model, or masks written by any tool, on one split of a data set, at native size and with intervals over images.

    Args:
        model: a run or model folder, or a loaded model; or a folder of mask files named as the images.
        data: a folder, a `data.yaml`, a recipe, or the `config.yaml` of a run.
        split: train, val or test.
        metrics: families in addition to the overlap of areas, see `metric_names`; by default `evaluate.metrics` of the
            configuration. Calibration needs a model, since masks have no probabilities.
        convention: another library's convention to report as well: smp, torchmetrics, mmseg, ultralytics, monai,
            sceneparsing or void-as-error.
        out: a new folder for `scores.json` and `report.html`.
        overrides: configuration overrides of `data` and `evaluate`, such as "evaluate.metrics=[boundary]".
        overwrite: replace an earlier result in `out`.
        backend: engine, see `load`; for the path of a model.
        precision: of the engine, likewise.
        progress: called with (images done, number of images) after each image.

    Raises:
        DataError: the data set has no such split, or other classes than the model.
        UsageError: an unknown metric family or convention.
        OutputExistsError: `out` holds files.
    """
    from pixelwise.config import read_request
    from pixelwise.evaluation import evaluate as score
    from pixelwise.evaluation.kept import KeptMasks, keep_all
    from pixelwise.measuring.size_counts import SizeRecorder
    from pixelwise.storage import claim_folder, require_claimable

    config, base = read_request(Path(data), overrides)
    require_sections(overrides, "data", "evaluate")
    loaded = _loaded(model, backend, precision)
    subset, scored, notices = _opened(loaded, model, data, split, config, base, metrics or ())
    settings = config.evaluate
    files = (SCORES, reporting.REPORT)
    if out is not None:
        require_claimable(Path(out), overwrite, files, SCORES)
    predictor = scored.predictor if isinstance(scored, Model) else scored
    masks = KeptMasks()
    recorder = None
    if settings.calibrate_sizes:
        notices += require_calibratable(scored, _folder(model), subset, data)
        recorder = SizeRecorder(subset.labels.num_classes)
    result = score(
        subset,
        predictor,
        metrics=settings.metrics if metrics is None else metrics,
        convention=convention,
        surface_tolerance=settings.surface_tolerance,
        intervals=settings.resamples > 0,
        progress=progress,
        keep=keep_all(None if out is None else masks.add, None if recorder is None else recorder.keep),
    )
    engine = scored.engine.facts() if isinstance(scored, Model) and scored.engine is not None else None
    if recorder is not None and isinstance(scored, Model):
        notices = (*notices, write_size_calibration(scored, recorder.sizes(result.images), split))
    result = replace(result, notices=(*notices, *result.notices), engine=engine)
    if out is not None:
        # Claimed only now, so that an evaluation that fails does not remove an earlier result.
        claim_folder(Path(out), overwrite, files, SCORES)
        options = {"split": split, "metrics": ",".join(metrics) or "none" if metrics is not None else None}
        options |= {"convention": convention, "backend": None if backend == "auto" else backend, "precision": precision}
        command = _command(model, data, options, overrides)
        _write(Path(out), model, data, split, result, subset, masks.predictor(lambda: predictor), command)
    return result


def metric_names() -> tuple[str, ...]:
    """Return the names of the metric families that `evaluate` accepts."""
    from pixelwise.evaluation import METRICS

    return METRICS


def _opened(
    loaded: Model | None,
    model: str | Path | Model,
    data: str | Path,
    split: str,
    config: Config,
    base: Path,
    metrics: Sequence[str],
) -> tuple[Dataset, ImagePredictor | Model, tuple[str, ...]]:
    """Open the images, and the masks or the model with its engine to score, with notices."""
    from pixelwise.datasets.dataset import open_data, without_unreadable
    from pixelwise.evaluation.mask_folder import open_masks

    section = config.data
    if loaded is not None and section.nodata is None:
        section = section.model_copy(update={"nodata": loaded.spec.nodata})
    if loaded is not None and loaded.spec.dimensions == 3:
        section = section.model_copy(update={"volumes": "whole"})
    whole = section.volumes == "whole"
    section = section.model_copy(update={"neighbours": 0 if whole or loaded is None else loaded.spec.neighbours})
    splits = open_data(section, base)
    splits = without_unreadable(splits) if config.data.skip_bad else splits
    subset, apart = _without_set_aside(split_of(splits, split, data), config)
    notices = (*splits.notices, *splits.skipped, *apart)
    if loaded is None:
        masks = open_masks(Path(str(model)), subset, config.evaluate.masks)
        if "calibration" in metrics:
            notices = (*notices, "masks have no probabilities: calibration is not scored")
        return subset, masks, (*notices, *masks.notices)
    require_classes(subset, loaded, data)
    _require_bands(subset, loaded.spec)
    loaded = loaded.for_images(_examples(subset), len(subset))
    return subset, loaded, (*notices, *_other_split(splits, split, loaded.card))


def _require_bands(subset: Dataset, spec: ModelSpec) -> None:
    """Raise if some of the images have the bands of the training in another order."""
    from pixelwise.imageio.band_names import require_band_order
    from pixelwise.imageio.file_formats import TIFF_SUFFIXES
    from pixelwise.imageio.images import read_header

    if spec.trained_bands:
        for record in subset.records[:: max(1, len(subset) // _COMPARED)]:
            if record.image.suffix.lower() in TIFF_SUFFIXES:
                require_band_order(record.image, read_header(record.image).names, spec.trained_bands, "in training")


def _without_set_aside(subset: Dataset, config: Config) -> tuple[Dataset, tuple[str, ...]]:
    """Return a split without the images that a run has set aside by its configuration, and a notice if there are some."""
    from pixelwise.datasets.set_aside import set_aside

    count = config.train.size_calibration or 0
    if subset.name != "val" or not 0 < count < subset.groups():
        return subset, ()
    rest = set_aside(subset, count).val
    text = f"{len(subset) - len(rest)} of {len(subset)} images are not scored: the run set them aside for intervals of sizes"
    return rest, (text,)


def _examples(subset: Dataset) -> Iterator[Example]:
    """Read the images that can be read."""
    from pixelwise.inference.engines import Example

    for index in range(len(subset)):
        with suppress(DataError):
            sample = subset.read(index)
            yield Example.of(sample.image, sample.valid)


def _command(
    model: str | Path | Model, data: str | Path, options: dict[str, str | None], overrides: Sequence[str]
) -> str:
    """Return the command that repeats the evaluation."""
    words = ["pixelwise", "evaluate", str(_folder(model)), str(data)]
    for name, value in options.items():
        words += [] if value is None else [f"--{name}", value]
    for text in overrides:
        words += ["--set", text]
    return " ".join(map(quote, [*words, "--out", "again"]))


def _folder(model: str | Path | Model) -> Path:
    return model.folder if isinstance(model, Model) else Path(model)


def _write(
    out: Path,
    model: str | Path | Model,
    data: str | Path,
    split: str,
    result: Evaluation,
    subset: Dataset,
    predictor: ImagePredictor,
    command: str,
) -> None:
    """Write scores and report, with the absolute path of the model."""
    from pixelwise.evaluation import ScoresFile
    from pixelwise.evaluation.score_counts import training_recipe
    from pixelwise.storage import RUN_MARKER, write_json

    folder = _folder(model)
    path = folder.resolve() if folder.exists() else folder
    plain = ScoresFile(result, str(path), str(data), split, training_recipe(folder)).to_dict()
    write_json(out / SCORES, plain)
    card = load_card(folder)
    run = None if card is None else next((p for p in (folder, folder.parent) if (p / RUN_MARKER).is_file()), None)
    shown = plain if card is None else plain | {"calibration": card.get("calibration")}
    reporting.write(out / reporting.REPORT, shown, subset, predictor, run, [command])


def _loaded(model: str | Path | Model, backend: str, precision: str | None) -> Model | None:
    """Load a model; return None for a folder of masks.

    Raises:
        UsageError: an engine for masks, or for a loaded model.
    """
    if not isinstance(model, Model) and not holds_masks(Path(model)):
        return load(model, backend=backend, precision=precision)
    if (backend, precision) != ("auto", None):
        found = "a loaded model" if isinstance(model, Model) else "masks"
        do = "Pass it to load." if isinstance(model, Model) else "Leave it out."
        raise UsageError("backend or precision", expected="the path of a model", found=found, do=do)
    return model if isinstance(model, Model) else None


def require_sections(overrides: Sequence[str], *sections: str) -> None:
    """Raise a `UsageError` for overrides of other sections than those a verb uses."""
    for text in overrides:
        if text.strip().partition(".")[0] not in sections:
            raise UsageError(
                f"--set {text}",
                expected=f"a key of {' or '.join(sections)}",
                found="a key that this command does not use",
                do="Leave it out; prediction settings are those of the model's model.json.",
            )


def split_of(splits: DataSplits, name: str, where: object) -> Dataset:
    """Return one split of a data set; raise a `DataError` if there is none of this name."""
    subsets = {split.name: split for split in splits}
    if name not in subsets:
        names = list(subsets)
        fix = f"Choose --split {names[-1]}."
        raise DataError(where, expected=f"a split {name!r}", found=", ".join(names), do=fix)
    return subsets[name]


def require_classes(split: Dataset, loaded: Model, data: object) -> None:
    """Raise a `DataError` if data and model have different classes."""
    if split.labels.names != loaded.labels.names:
        raise DataError(
            data,
            expected=f"the model's classes {', '.join(loaded.labels.names)}",
            found=", ".join(split.labels.names),
            do="Name the same classes in the same order in labels.yaml.",
        )


def _other_split(splits: DataSplits, split: str, card: ModelCard) -> tuple[str, ...]:
    """Warn if the split was drawn at random, and the model was trained on another train split."""
    drawn = split in splits.description["split"].get("achieved", {}) and splits.train is not None
    if not drawn or card.names_hash is None or splits.train is None or splits.train.names_hash() == card.names_hash:
        return ()
    return (
        f"{split} was drawn at random and differs from the split used in training: the model may have been trained on some of "
        "these images. Use the run's config.yaml as DATA to evaluate the original split.",
    )


def compare(
    runs: Sequence[str | Path],
    *,
    data: str | Path | None = None,
    split: str | None = None,
    resamples: int | None = None,
    overrides: Sequence[str] = (),
    progress: Callable[[str, int, int], None] | None = None,
) -> Comparison:
    """Compare models with the first of them on the same images, with intervals and a verdict for each difference.

    Args:
        runs: two or more run folders, folders written by `evaluate` with `out`, or `scores.json` files. With `data` also model
            folders and folders of masks. Runs that differ only in their seed are compared as one recipe.
        data: evaluate all on one split of this data set first.
        split: the split of `data`; test by default.
        resamples: deprecated, without effect: intervals do not come from resampling any more.
        overrides: configuration overrides of `data` and `evaluate`, with `data` only.
        progress: called with (name, images done, number of images) after each image that is evaluated.

    Raises:
        UsageError: fewer than two runs, or a split without `data`.
        DataError: no counts per image, or different images, masks or classes.
    """
    from pixelwise.evaluation.comparison import compare as compare_counts
    from pixelwise.evaluation.score_counts import read_run_counts, run_counts, run_names, with_recipe
    from pixelwise.inference.exported import is_exported

    if resamples is not None:
        warnings.warn("compare(resamples=…) has no effect any more", DeprecationWarning, stacklevel=2)
    if len(runs) < 2:
        raise UsageError("compare", expected="two runs or more", found=str(len(runs)), do="List the runs to compare.")
    if data is None and (split is not None or overrides):
        raise UsageError(
            f"--split {split}" if split is not None else f"--set {overrides[0]}",
            expected="--data as well",
            found="none",
            do="Name the images with --data, or leave this out to compare existing scores.",
        )
    subset = split or "test"
    counts, notices = [], []
    for path, name in zip(map(Path, runs), run_names(runs), strict=True):
        if data is None or (path.is_file() and not is_exported(path)):
            counts.append(read_run_counts(path, name))
            continue
        report_progress = partial(progress, name) if progress is not None else None
        # Only counts are needed: no intervals, and no other metrics.
        settings = (*overrides, "evaluate.resamples=0")
        result = evaluate(path, data, split=subset, metrics=(), overrides=settings, progress=report_progress)
        notices += [f"{name}: {notice}" for notice in result.notices]
        run = with_recipe(run_counts(result, path, name), path)
        counts.append(replace(run, selected=subset == "val" and run.recipe is not None))
    return compare_counts(counts, notices=notices)
