"""The sizes of the classes in predicted images: `pixelwise measure PREDICTIONS`."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pixelwise.api.loading import load
from pixelwise.api.measuring.predicted import (
    PredictedImage,
    class_sizes,
    listed_images,
    read_summary,
    size_unit,
)
from pixelwise.api.measuring.region_table import plain_regions, region_columns, regions_table
from pixelwise.api.measuring.spacing import scale_rule
from pixelwise.api.measuring.tables import Column, csv_text, require_pyarrow, write_parquet
from pixelwise.api.measuring.totals import TotalsReport, estimate_truth
from pixelwise.api.predicting.requests import SUMMARY
from pixelwise.config import Config, with_overrides
from pixelwise.errors import DataError, PixelwiseError, UsageError
from pixelwise.imageio.masks import MaskRule
from pixelwise.imageio.scene_writing import class_ids
from pixelwise.labels import Labels
from pixelwise.measuring.components import BAND_PIXELS
from pixelwise.measuring.conformal import SizeCalibration, SizeInterval, boundary_lengths_of, interval_of
from pixelwise.measuring.regions import find_regions
from pixelwise.measuring.scale import Scale
from pixelwise.storage import claim_folder, require_claimable, write_atomic, write_json
from pixelwise.types import Measurement, Region

CLASSES, REGIONS, MEASUREMENTS = "classes.csv", "regions.csv", "measurements.json"
CLASSES_PARQUET, REGIONS_PARQUET = "classes.parquet", "regions.parquet"
FILES = (CLASSES, REGIONS, CLASSES_PARQUET, REGIONS_PARQUET, MEASUREMENTS)
ESTIMATOR = "pixel count"


@dataclass(frozen=True)
class ClassSize:
    """The size of one class in one image.

    Args:
        image: the image file.
        name: of the class.
        pixels: number of predicted pixels.
        share: of the pixels of the image, 0…1.
        size: area or volume, with its interval; its note says what the interval covers, or why there is none.
        provenance: where the unit comes from, or why there is none.
    """

    image: str
    name: str
    pixels: int
    share: float
    size: Measurement
    provenance: str


@dataclass(frozen=True)
class Measured:
    """What `measure` found.

    Args:
        classes: one entry per image and class.
        regions: connected pixels of one class, image by image.
        totals: estimated totals over all images; None without labelled images.
        notices: what was assumed or left out.
    """

    classes: tuple[ClassSize, ...]
    regions: tuple[Region, ...] = ()
    totals: TotalsReport | None = None
    notices: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Return the plain form of `measurements.json`."""
        plain: dict[str, Any] = {"classes": [asdict(each) for each in self.classes], **plain_regions(self.regions)}
        plain |= {} if self.totals is None else {"totals": self.totals.to_dict()}
        return plain | {"notices": list(self.notices)}


def measure(
    predictions: str | Path,
    *,
    out: str | Path | None = None,
    spacing: str | None = None,
    truth: str | Path | None = None,
    regions: bool = True,
    overrides: Sequence[str] = (),
    overwrite: bool = False,
) -> Measured:
    """Measure the area or volume of each class in predicted images, and of its regions.

    Units come from the pixel spacing of the images. Sizes have prediction intervals if the model has calibrated ones (see
    docs/measure.md).

    Args:
        predictions: an output folder of `predict`.
        out: a new folder for `classes.csv`, `regions.csv` and `measurements.json`; with the override "measure.parquet=true" also for
            `classes.parquet` and `regions.parquet`.
        spacing: distance between neighbouring pixels of images, such as "0.21mm", or "0.21mm,0.18mm" along rows and columns in array
            order; it takes precedence over that of the files.
        truth: a data set with masks for some of the images, drawn at random, from which totals over all images are estimated.
        regions: also measure the regions of each class; takes longer.
        overrides: configuration overrides of `measure`, and of `data` and `evaluate` for `truth`.
        overwrite: replace an earlier result in `out`.

    Raises:
        DataError: no predictions, or a mask that cannot be read; see also `estimate_truth`.
        UsageError: a spacing that is not a length.
        OutputExistsError: `out` holds files.
    """
    folder = Path(predictions)
    own = [text for text in overrides if text.startswith("measure.")]
    others = [text for text in overrides if text not in own]
    parquet = with_overrides(Config(), own).measure.parquet
    if parquet:
        _require_parquet(out)
    scale_of = scale_rule(spacing)
    if out is not None:
        require_claimable(Path(out), overwrite, FILES, MEASUREMENTS)
    known = read_summary(folder)
    if known is None:
        do = "Predict the images first: pixelwise predict MODEL IMAGES --out DIR"
        raise DataError(
            folder, expected=f"an output folder of predict, with images in its {SUMMARY}", found="none", do=do
        )
    labels = Labels.from_dict(known["labels"])
    labels = labels if labels.ignore_ids else replace(labels, ignore_ids=(class_ids(labels)[1],))
    images, without = listed_images(folder, known, labels, MaskRule(binary=False))
    calibration, notices = _calibration(known)
    notices += [f"{name}: not measured, since it has no mask" for name in without]
    classes: list[ClassSize] = []
    found: list[Region] = []
    for image in images:
        scale = scale_of(image.grid, image.shape)
        classes += _measured(image, scale, calibration)
        found += _regions(image, scale) if regions else []
    totals = None
    if truth is not None:
        totals = estimate_truth(folder, truth, overrides=others, scale_of=scale_of)
        notices += totals.notices
    result = Measured(tuple(classes), tuple(found), totals, tuple(notices))
    if out is not None:
        claim_folder(Path(out), overwrite, FILES, MEASUREMENTS)
        write_atomic(Path(out) / CLASSES, _table(result))
        write_atomic(Path(out) / REGIONS, regions_table(result.regions))
        write_json(Path(out) / MEASUREMENTS, result.to_dict())
        if parquet:
            write_parquet(Path(out) / CLASSES_PARQUET, _class_columns(result))
            write_parquet(Path(out) / REGIONS_PARQUET, region_columns(result.regions))
    return result


def _require_parquet(out: str | Path | None) -> None:
    """Raise a `UsageError` if there is no folder for the tables, or pyarrow is not installed."""
    if out is None:
        where = "--set measure.parquet=true"
        raise UsageError(where, expected="a folder for the tables", found="no --out", do="Add --out FOLDER.")
    require_pyarrow()


def _calibration(known: Mapping[str, Any]) -> tuple[SizeCalibration | None, list[str]]:
    """Return the calibrated intervals of the model of predictions, and a notice if that model is not there."""
    place = known.get("model")
    if place is None:
        return None, ["the predictions do not name their model: sizes have no intervals"]
    try:
        card = load(place).card if Path(place).exists() else None
    except PixelwiseError:
        card = None
    if card is None:
        return None, [f"{place}: the model of the predictions is not there, so that sizes have no intervals"]
    if card.sha256 != known.get("model_sha256"):
        return None, [f"{place}: not the model of the predictions any more, so that sizes have no intervals"]
    return SizeCalibration.from_dict(card.size_calibration), []


def _measured(image: PredictedImage, scale: Scale, calibration: SizeCalibration | None) -> list[ClassSize]:
    """Measure the classes of one image, band by band."""
    labels = image.labels
    counts = np.zeros(labels.ignore_index + 1, np.int64)
    sizes = np.zeros(labels.num_classes)
    for band in image.bands():
        mask = image.read(band)
        counts += np.bincount(mask.reshape(-1), minlength=len(counts))
        sizes += class_sizes(mask, scale.sizes(band), labels.num_classes)
    boundary = boundary_lengths_of(image)
    unit, factor = size_unit(scale, len(image.shape))
    total, ignored = int(counts.sum()), int(counts[labels.num_classes :].sum())
    found = []
    for k, name in enumerate(labels.names):
        interval = interval_of(calibration, k, int(counts[k]), int(boundary[k]), total, ignored)
        size = _measurement(
            factor * sizes[k], unit, int(counts[k]), interval, factor * _mean_size(scale, image, sizes, counts)
        )
        found.append(
            ClassSize(image.id, name, int(counts[k]), int(counts[k]) / total, size, scale.reason or scale.provenance)
        )
    return found


def _regions(image: PredictedImage, scale: Scale) -> list[Region]:
    """Return the regions of one image; a volume file is read as a whole, once."""
    volume = len(image.shape) == 3
    band_pixels = math.prod(image.shape) if volume else BAND_PIXELS
    return find_regions(image, scale, image.grid, size_unit(scale, len(image.shape)), band_pixels=band_pixels)


def _mean_size(
    scale: Scale, image: PredictedImage, sizes: NDArray[np.floating[Any]], counts: NDArray[np.int64]
) -> float:
    """Return the mean size of a pixel with a class."""
    known = int(counts[: len(sizes)].sum())
    return float(sizes.sum() / known) if known else float(scale.sizes(image.bands()[0]).mean())


def _measurement(value: float, unit: str, pixels: int, interval: SizeInterval, pixel_size: float) -> Measurement:
    """Return a size with its interval, which is in pixels, in the same unit."""
    each = value / pixels if pixels else pixel_size
    low, high = (None if limit is None else each * limit for limit in (interval.low, interval.high))
    return Measurement(float(value), unit, ESTIMATOR, low=low, high=high, note=interval.note)


def _table(result: Measured) -> str:
    """Return a row per image and class as CSV."""
    return csv_text(_class_columns(result))


def _class_columns(result: Measured) -> list[Column]:
    """Return a row per image and class."""
    classes, sizes = result.classes, [each.size for each in result.classes]
    return [
        Column("image", str, [each.image for each in classes]),
        Column("class", str, [each.name for each in classes]),
        Column("pixels", int, [each.pixels for each in classes]),
        Column("share", float, [each.share for each in classes], ".6f"),
        Column("size", float, [size.value for size in sizes], ".6g"),
        Column("unit", str, [size.unit for size in sizes]),
        Column("low", float, [size.low for size in sizes], ".6g"),
        Column("high", float, [size.high for size in sizes], ".6g"),
        Column("provenance", str, [each.provenance for each in classes]),
        Column("note", str, [size.note for size in sizes]),
    ]
