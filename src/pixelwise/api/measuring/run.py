"""The sizes of the classes in masks: `pixelwise measure MASKS`."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pixelwise.api.measuring.result import FILES, MEASUREMENTS, ClassSize, Measured, write_result
from pixelwise.api.measuring.scales import scale_rule
from pixelwise.api.measuring.sources import Masks, Measurable, open_masks
from pixelwise.api.measuring.tables import require_pyarrow
from pixelwise.api.measuring.totals import estimate_truth
from pixelwise.api.measuring.verdicts import inspected, rules_of
from pixelwise.api.measuring.zone_table import Footprint, zone_notices
from pixelwise.config import Config, with_overrides
from pixelwise.errors import UsageError
from pixelwise.measuring.components import BAND_PIXELS
from pixelwise.measuring.conformal import SizeInterval, boundary_lengths_of, interval_of
from pixelwise.measuring.grid_scale import class_sizes, size_unit
from pixelwise.measuring.ground_plane import GroundPlane
from pixelwise.measuring.regions import find_regions
from pixelwise.measuring.rules import Inspected
from pixelwise.measuring.scale import Scale
from pixelwise.measuring.zones import Zones, ZoneTotal, read_zones, sum_zone_totals, zone_totals
from pixelwise.storage import claim_folder, require_claimable
from pixelwise.types import Measurement, Region

ESTIMATOR = "pixel count"
# Intervals are known in pixels. They say nothing in a unit where the largest pixel is so many times the smallest one.
_MOST_UNEQUAL = 1.5
_UNEQUAL = SizeInterval(None, None, "no interval: the pixels of this image differ too much in size")


def measure(
    predictions: str | Path,
    *,
    out: str | Path | None = None,
    spacing: str | None = None,
    scale_bar: str | None = None,
    ground_plane: str | None = None,
    zones: str | Path | None = None,
    truth: str | Path | None = None,
    regions: bool = True,
    overrides: Sequence[str] = (),
    overwrite: bool = False,
) -> Measured:
    """Measure the area or volume of each class in masks, and of its regions.

    Units come from the pixel spacing of the images. Sizes have prediction intervals if the model has calibrated ones (see
    docs/measure.md).

    Args:
        predictions: an output folder of `predict`; a mask file of any tool, or a folder of them; or a data set, whose masks are measured.
        out: a new folder for `classes.csv`, `regions.csv`, `zones.csv`, `verdicts.csv` and `measurements.json`.
        spacing: distance between neighbouring pixels of images, such as "0.21mm", or "0.21mm,0.18mm" along rows and columns in array
            order; it takes precedence over that of the files.
        scale_bar: a line of known length in every image, "x1,y1,x2,y2=50mm", instead of a spacing.
        ground_plane: four or more points of every image and their places on a plane in metres, "x,y=X,Y;…", or a YAML or JSON file
            with them, instead of a spacing.
        zones: a GeoPackage, Shapefile or GeoJSON file with polygons; each class is also measured in each of them.
        truth: a data set with masks for some of the images, drawn at random, from which totals over all images are estimated.
        regions: also measure the regions of each class; takes longer.
        overrides: configuration overrides: "measure.rules=FILE", "measure.parquet=true"; of `data` for a data set, and of `data` and `evaluate` for `truth`.
        overwrite: replace an earlier result in `out`.

    Raises:
        ConfigError: rules that cannot be read or applied.
        DataError: no masks, or one that cannot be read; see also `estimate_truth`.
        UsageError: a spacing, scale bar or ground plane that cannot be read, or more than one of them.
        OutputExistsError: `out` holds files.
    """
    folder = Path(predictions)
    own = [text for text in overrides if text.startswith("measure.")]
    others = [text for text in overrides if text not in own]
    parquet = with_overrides(Config(), own).measure.parquet
    if parquet:
        _require_parquet(out)
    scale_of = scale_rule(spacing, scale_bar=scale_bar, ground_plane=ground_plane)
    areas = None if zones is None else read_zones(zones)
    if out is not None:
        require_claimable(Path(out), overwrite, FILES, MEASUREMENTS)
    source = open_masks(folder, [] if truth is not None else others)
    rules = rules_of(own, source)
    found = [
        _of_image(image, scale_of(image.grid, image.shape), source, areas, regions or rules is not None)
        for image in source.masks
    ]
    in_zones = sum_zone_totals(each.zones for each in found)
    notices = [*source.notices, *(each.notice for each in found if each.notice is not None)]
    notices += [] if areas is None else zone_notices(areas, in_zones, [each.place for each in found])
    totals = None if truth is None else estimate_truth(folder, truth, overrides=others, scale_of=scale_of)
    notices += [] if totals is None else totals.notices
    result = Measured(
        tuple(size for each in found for size in each.classes),
        tuple(region for each in found for region in each.regions),
        tuple(in_zones),
        totals,
        None if rules is None else tuple(rules.verdicts([each.inspected for each in found])),
        tuple(dict.fromkeys(notices)),
    )
    if out is not None:
        claim_folder(Path(out), overwrite, FILES, MEASUREMENTS)
        write_result(result, Path(out), parquet=parquet)
    return result


def _require_parquet(out: str | Path | None) -> None:
    """Raise a `UsageError` if there is no folder for the tables, or pyarrow is not installed."""
    if out is None:
        where = "--set measure.parquet=true"
        raise UsageError(where, expected="a folder for the tables", found="no --out", do="Add --out FOLDER.")
    require_pyarrow()


@dataclass(frozen=True, eq=False)
class _OfImage:
    """What was found in one image."""

    classes: list[ClassSize]
    regions: list[Region]
    zones: list[ZoneTotal]
    inspected: Inspected
    place: Footprint
    notice: str | None


def _of_image(image: Measurable, scale: Scale, source: Masks, areas: Zones | None, regions: bool) -> _OfImage:
    classes = _measured(image, scale, source)
    found = _regions(image, scale) if regions else []
    return _OfImage(
        classes,
        found,
        [] if areas is None else zone_totals(image, image.grid, scale, areas),
        inspected(image, scale, {each.name: (each.share, each.size) for each in classes}, found),
        Footprint(image.id, image.grid, image.shape),
        scale.horizon_note(image.shape) if isinstance(scale, GroundPlane) else None,
    )


@dataclass(frozen=True, eq=False)
class _Tally:
    """Pixels and sizes in one image.

    Args:
        counts: (K + 1 or more,) pixels per class index, and beyond those ignored.
        sizes: (K,) in the unit of the scale.
        smallest, largest: size of a pixel.
    """

    counts: NDArray[np.int64]
    sizes: NDArray[np.float64]
    smallest: float
    largest: float

    @classmethod
    def of(cls, image: Measurable, scale: Scale) -> _Tally:
        """Count an image band by band."""
        labels = image.labels
        counts = np.zeros(labels.ignore_index + 1, np.int64)
        sizes = np.zeros(labels.num_classes)
        smallest, largest = np.inf, 0.0
        for band in image.bands():
            mask, each = image.read(band), scale.sizes(band)
            counts += np.bincount(mask.reshape(-1), minlength=len(counts))
            sizes += class_sizes(mask, each, labels.num_classes)
            smallest, largest = min(smallest, float(each.min())), max(largest, float(each.max()))
        return cls(counts, sizes, smallest, largest)

    @property
    def known(self) -> int:
        """Number of pixels with a class."""
        return int(self.counts[: len(self.sizes)].sum())

    def pixel_size(self, k: int) -> float:
        """Return the mean size of the pixels of class k; of all if it has none."""
        if self.counts[k]:
            return float(self.sizes[k] / self.counts[k])
        return float(self.sizes.sum() / self.known) if self.known else (self.smallest + self.largest) / 2


def _measured(image: Measurable, scale: Scale, source: Masks) -> list[ClassSize]:
    """Measure the classes of one image."""
    calibration = source.calibration
    tally, boundary = _Tally.of(image, scale), boundary_lengths_of(image)
    unit, factor = size_unit(scale, len(image.shape))
    total = int(tally.counts.sum())
    unequal = calibration is not None and tally.largest > _MOST_UNEQUAL * tally.smallest
    found = []
    for k, name in enumerate(image.labels.names):
        pixels = int(tally.counts[k])
        interval = interval_of(calibration, k, pixels, int(boundary[k]), total, total - tally.known)
        interval = _UNEQUAL if unequal else interval
        interval = SizeInterval(None, None, source.note) if source.note else interval
        each = factor * tally.pixel_size(k)
        low, high = (None if limit is None else each * limit for limit in (interval.low, interval.high))
        value = factor * float(tally.sizes[k])
        size = Measurement(value, unit, ESTIMATOR, low=low, high=high, note=interval.note)
        found.append(ClassSize(image.id, name, pixels, pixels / total, size, scale.reason or scale.provenance))
    return found


def _regions(image: Measurable, scale: Scale) -> list[Region]:
    """Return the regions of one image; a volume file is read as a whole, once."""
    volume = len(image.shape) == 3
    band_pixels = math.prod(image.shape) if volume else BAND_PIXELS
    return find_regions(image, scale, image.grid, size_unit(scale, len(image.shape)), band_pixels=band_pixels)
