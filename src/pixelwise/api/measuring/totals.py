"""Totals over many predictions of which some images are labelled: `pixelwise measure PREDICTIONS --truth LABELLED`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pixelwise.api.measuring.predicted import PredictedImage, images_in_folder, listed_images, read_summary
from pixelwise.api.measuring.scales import ScaleOf
from pixelwise.api.predicting.requests import SUMMARY
from pixelwise.api.size_calibration import require_unused
from pixelwise.config import DataConfig, SplitConfig, read_request
from pixelwise.datasets.dataset import Dataset, DataSplits, Record, open_data
from pixelwise.errors import DataError, LabelsError
from pixelwise.evaluation.mask_folder import MaskFolder, open_masks
from pixelwise.evaluation.score_counts import listed
from pixelwise.formats.reading import window_of
from pixelwise.labels import Labels
from pixelwise.measuring.grid_scale import class_sizes, grid_scale, size_unit
from pixelwise.measuring.scale import Scale
from pixelwise.measuring.totals import FEWEST_UNITS, Estimator, Total, estimate_totals
from pixelwise.tiles import Window
from pixelwise.types import Measurement

_COVERED = 0.999
_PREDICT = (
    "Predict all of them with one command, into one folder; or give --truth a data set with predicted images only."
)
_UNUSED = "Label other images, which the model was neither trained nor validated on, and predict them."


@dataclass(frozen=True)
class TotalOfClass:
    """The total of one class, in a unit.

    Args:
        name: of the class.
        total: the estimate, with its interval, and what that covers.
        naive: the sum of the predictions.
        naive_bias: its error as a share of the estimate; None if that is 0.
        present: number of labelled units with the class.
    """

    name: str
    total: Measurement
    naive: Measurement
    naive_bias: float | None
    present: int


@dataclass(frozen=True)
class TotalsReport:
    """Totals over all predicted images.

    Args:
        classes: one entry per class.
        images, units: number of labelled images, and of their groups.
        population: number of predicted images.
        provenance: where the unit comes from, or why there is none.
        notices: what was assumed or left out.
    """

    classes: tuple[TotalOfClass, ...]
    images: int
    units: int
    population: int
    provenance: str
    notices: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return the plain form."""
        return asdict(self)


def estimate_truth(
    predictions: str | Path,
    labelled: str | Path,
    *,
    model: str | Path | None = None,
    estimator: Estimator = "difference",
    overrides: Sequence[str] = (),
    scale_of: ScaleOf = grid_scale,
) -> TotalsReport:
    """Estimate the total size of each class over all predicted images, from those of them that are labelled.

    Args:
        predictions: an output folder of `predict`, or a folder of masks from any tool, named as the images.
        labelled: a data set with masks for some of the images, which were drawn at random: a folder, a `data.yaml` or an annotation
            file.
        model: the model or run folder of the predictions; by default the one that `predictions.json` names.
        estimator: "difference" or "regression", see `measuring.totals`.
        overrides: configuration overrides of `data` and `evaluate` for `labelled`, such as "data.group=(patient[0-9]+)_".
        scale_of: returns the size of the pixels of an image.

    Raises:
        DataError: fewer than 10 labelled images or groups, images that the model was trained on, or images without a prediction.
        LabelsError: other classes than the predictions'.
    """
    folder = Path(predictions)
    config, base = read_request(Path(labelled), overrides)
    known = read_summary(folder)
    data, notices = _predicted_images(open_data(_undivided(config.data), base), known)
    masks = open_masks(folder, data, config.evaluate.masks, missing=_PREDICT)
    notices += masks.notices
    _require_classes(labelled, data.labels, known)
    notices += _require_unused(model or (known or {}).get("model"), data, labelled)
    population, without = _population(folder, known, masks)
    differences, groups = _differences(population, data, masks, scale_of, labelled)
    _require_enough(groups, labelled, len(population))
    scales = [scale_of(image.grid, image.shape) for image in population]
    unit = _one_unit(scales, population)
    sizes = np.array([_image_sizes(image, scale) for image, scale in zip(population, scales, strict=True)])
    places = list(differences)
    truth = np.array([sizes[place] + differences[place] for place in places])
    totals = estimate_totals(sizes, truth, places, groups, estimator=estimator)
    left_out = (f"left out, since they have no mask (videos): {listed(without, 3)}",) if without else ()
    notices += (*left_out, *_regressed(estimator, totals))
    return TotalsReport(
        classes=tuple(_of_class(name, total, *unit) for name, total in zip(data.labels.names, totals, strict=True)),
        images=totals[0].images,
        units=totals[0].units,
        population=len(population),
        provenance=scales[0].reason or scales[0].provenance,
        notices=tuple(notices),
    )


def _undivided(config: DataConfig) -> DataConfig:
    """Keep images together that belong to no split, unless a division is given: a buffer between blocks would cost pixels of scenes."""
    return config.model_copy(update={"split": SplitConfig(val=0)}) if config.split == SplitConfig() else config


def _predicted_images(data: DataSplits, known: Mapping[str, Any] | None) -> tuple[Dataset, tuple[str, ...]]:
    """Join the splits of a data set, without those of which `predictions.json` lists no image while it lists images of others.

    Returns:
        The images, with the split as prefix of ids that occur twice; and notices.
    """
    files = {Path(str(entry.get("file"))).resolve() for entry in (known or {}).get("images", ())}
    splits = [split for split in data if any(not files.isdisjoint(_sources(record)) for record in split.records)]
    splits = splits or list(data)
    left_out = [split.name for split in data if split not in splits]
    notices = [f"the split {name} is left out, since none of its images were predicted" for name in left_out]
    ids = Counter(record.id for split in splits for record in split.records)
    records = tuple(
        record if ids[record.id] == 1 else replace(record, id=f"{split.name}/{record.id}")
        for split in splits
        for record in split.records
    )
    return replace(splits[0], records=records, name=""), (*data.skipped, *notices)


def _sources(record: Record) -> tuple[Path, ...]:
    """Return what `predict` may have been given for an image: its file, or the folder of its series."""
    return record.image.resolve(), record.image.parent.resolve()


def _require_classes(where: object, labels: Labels, known: Mapping[str, Any] | None) -> None:
    names = tuple(((known or {}).get("labels") or {}).get("names") or labels.names)
    if names != labels.names:
        raise LabelsError(
            where,
            expected=f"the classes of the predictions, {', '.join(names)}",
            found=", ".join(labels.names),
            do="Name the same classes in the same order in labels.yaml.",
        )


def _require_unused(model: str | Path | None, data: Dataset, labelled: object) -> tuple[str, ...]:
    """Raise an error if the labelled images were used in training; return a notice if that is not known."""
    if model is None:
        return ("the model of the predictions is unknown: make sure that it was not trained on the labelled images",)
    unknown = require_unused(Path(model), data, labelled, "a total", _UNUSED)
    return () if unknown is None else (unknown,)


def _population(
    folder: Path, known: Mapping[str, Any] | None, masks: MaskFolder
) -> tuple[list[PredictedImage], list[str]]:
    """Return the predicted images, and the files without a mask."""
    if known is None:
        return images_in_folder(folder, masks.labels, masks.rule), []
    return listed_images(folder, known, masks.labels, masks.rule)


def _image_sizes(image: PredictedImage, scale: Scale) -> NDArray[np.floating[Any]]:
    """Return the predicted size of each class, (K,)."""
    num_classes = image.labels.num_classes
    return np.sum([class_sizes(image.read(band), scale.sizes(band), num_classes) for band in image.bands()], axis=0)


def _differences(
    population: Sequence[PredictedImage], data: Dataset, masks: MaskFolder, scale_of: ScaleOf, labelled: object
) -> tuple[dict[int, NDArray[np.float64]], list[str | None]]:
    """Return the true minus the predicted sizes (K,) of the labelled images by their place, and what these belong to.

    Slices of one volume and windows of one scene are summed. Ignored pixels count as predicted right.
    """
    places = {image.path.resolve(): place for place, image in enumerate(population)}
    found: dict[int, NDArray[np.float64]] = {}
    groups: dict[int, str | None] = {}
    seen: Counter[int] = Counter()
    for index, record in enumerate(data.records):
        path = masks.masks[record.id].mask
        assert path is not None
        place = places.get(path.resolve())
        if place is None:
            do = "Predict the image again, with all others, into one folder."
            raise DataError(record.id, expected=f"a prediction listed in {SUMMARY}", found=f"only {path}", do=do)
        sample = data.read(index)
        truth = sample.truth(data.labels.ignore_index)
        if truth is None:
            raise DataError(record.id, expected="an annotated mask", found="none", do="Add the mask.")
        predicted = masks(sample.image, sample.grid, sample.valid, id=record.id).mask
        counted = truth != data.labels.ignore_index
        window = window_of(record) or Window((0,) * truth.ndim, truth.shape)
        image = population[place]
        sizes = scale_of(image.grid, image.shape).sizes(
            window if record.plane is None else Window((0,) * len(image.shape), image.shape)
        )
        each = sizes if sizes.size == 1 else np.broadcast_to(sizes, truth.shape)[counted]
        k = data.labels.num_classes
        difference = class_sizes(truth[counted], each, k) - class_sizes(predicted[counted], each, k)
        found[place] = found.get(place, np.zeros(k)) + difference
        groups.setdefault(place, record.group)
        seen[place] += truth.size
    partly = [
        str(population[place].path) for place in found if seen[place] < _COVERED * np.prod(population[place].shape)
    ]
    if partly:
        raise DataError(
            labelled,
            expected="labels of whole images",
            found=f"labels of a part of {listed(partly, 3)}",
            do="Predict the labelled windows as images of their own, or label the whole images.",
        )
    return found, [groups[place] for place in found]


def _require_enough(groups: Sequence[str | None], labelled: object, population: int) -> None:
    units = len({(group is None, index if group is None else group) for index, group in enumerate(groups)})
    if units < min(FEWEST_UNITS, population):
        what = "images" if all(group is None for group in groups) else "groups of images"
        raise DataError(
            labelled,
            expected=f"{FEWEST_UNITS} labelled {what} or more",
            found=str(units),
            do=f"Label {FEWEST_UNITS - units} more of the predicted {what}, drawn at random.",
        )


def _one_unit(scales: Sequence[Scale], population: Sequence[PredictedImage]) -> tuple[str, float]:
    """Return the unit of all sizes, and by what sizes in the unit of the scales are multiplied.

    Raises:
        DataError: images differ in unit or dimensions.
    """
    units = {(scale.unit, len(image.shape)): str(image.path) for scale, image in zip(scales, population, strict=True)}
    if len(units) > 1:
        texts = [f"{path} in {unit}, {n}-D" for (unit, n), path in units.items()]
        raise DataError(
            "total", expected="images in one unit", found="; ".join(texts[:3]), do="Give --spacing for all."
        )
    return size_unit(scales[0], len(population[0].shape))


def _of_class(name: str, total: Total, unit: str, factor: float) -> TotalOfClass:
    low, high = (None if bound is None else factor * bound for bound in (total.low, total.high))
    estimate = Measurement(
        factor * total.value, unit, f"{total.estimator} estimator", low=low, high=high, note=total.note
    )
    naive = Measurement(factor * total.naive, unit, "sum of the predictions", note="has the bias of the model")
    return TotalOfClass(name, estimate, naive, total.naive_bias, total.present)


def _regressed(asked: Estimator, totals: Sequence[Total]) -> tuple[str, ...]:
    if asked == "difference" or all(total.estimator == asked for total in totals):
        return ()
    return (
        f"fewer than {2 * FEWEST_UNITS} labelled units, or a class that is never predicted: difference estimator instead",
    )
