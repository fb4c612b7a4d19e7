"""Compute the fingerprint of a data set from which a configuration is derived: sizes, intensities, classes, objects.

Statistics are accumulated image by image: only one image is in memory.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pixelwise.datasets.dataset import Dataset
from pixelwise.datasets.intensity import Intensities
from pixelwise.datasets.object_sizes import ObjectSizes
from pixelwise.datasets.position_statistics import Positions, spread
from pixelwise.errors import DataError, ImageError
from pixelwise.formats.reading import mixed_forms
from pixelwise.grid import Grid
from pixelwise.imageio.band_names import require_band_order
from pixelwise.imageio.file_formats import TIFF_SUFFIXES
from pixelwise.imageio.images import read_header
from pixelwise.labels import Labels
from pixelwise.types import Fingerprint, Sample

Progress = Callable[[int, int], None]

_SAME_SPACING = 1e-3  # relative difference due to rounding


def fingerprint(dataset: Dataset, *, limit: int = 200, seed: int = 0, progress: Progress | None = None) -> Fingerprint:
    """Compute the fingerprint from up to `limit` images, chosen by (seed, id).

    If these show one class only, more images are read until there is another, which may be rare.

    Args:
        dataset: the train split.
        limit: maximum number of images if they show two classes.
        seed: random seed of the choice.
        progress: called with (done, total) after each image.

    Raises:
        DataError: fewer than two classes occur.
        ImageError: images differ in bands, their order (by their names) or pixel type.
    """
    drawn = sorted(range(len(dataset)), key=lambda i: _hash(seed, dataset.records[i].id))
    order, rest = drawn[:limit], drawn[limit:]
    # Slices of a volume are read one after the other, so that it is decompressed once.
    order.sort(key=lambda i: str(dataset.records[i].image) if dataset.records[i].plane is not None else "")
    statistics = _Statistics(dataset.labels)

    def add(index: int) -> None:
        record = dataset.records[index]
        statistics.add_names(record.image)
        statistics.add(dataset.read(index), str(record.image), int.from_bytes(_hash(seed, record.id)[:8], "big"))

    for done, index in enumerate(order, 1):
        add(index)
        if progress is not None:
            progress(done, len(order))
    for index in rest:
        if np.count_nonzero(statistics.image_counts) >= 2:
            break
        add(index)
    statistics.require_classes(dataset)
    return statistics.result(dataset.hash())


def _hash(seed: int, name: str) -> bytes:
    return hashlib.sha256(f"{seed}:{name}".encode("utf-8", "surrogateescape")).digest()


class _Statistics:
    """Accumulate images."""

    def __init__(self, labels: Labels) -> None:
        count = labels.num_classes
        self.labels = labels
        self.first = ""
        self.form: tuple[int, str] = (0, "")
        self.sizes: list[tuple[int, ...]] = []
        self.spacings = Spacings()
        self.bands: dict[tuple[str, ...], Path] = {}  # names, and the first image that has them
        self.positions = Positions(count)
        self.objects = ObjectSizes(count)
        self.pixel_counts = np.zeros(count, np.int64)
        self.image_counts = np.zeros(count, np.int64)
        self.ignored = 0
        self.thickness: list[list[float]] = [[] for _ in range(count)]
        self.deviations: list[NDArray[np.float64]] = []

    def add_names(self, path: Path) -> None:
        """Add the names of the bands of an image, and compare them with those of the others."""
        if path.suffix.lower() not in TIFF_SUFFIXES:
            return
        names = read_header(path).names
        for others, first in self.bands.items():
            require_band_order(path, names, others, f"in {first.name}")
        self.bands.setdefault(names, path)

    def add(self, sample: Sample, name: str, seed: int) -> None:
        image, mask = sample.image, sample.truth(self.labels.ignore_index)
        form = (image.shape[0], image.dtype.name)
        if not self.sizes:
            self.first, self.form = name, form
            self.intensities = Intensities(image.shape[0], image.dtype, self.labels.num_classes)
        if form != self.form:
            raise ImageError(
                name,
                expected=f"{_form(self.form)}, as in {self.first}",
                found=_form(form),
                do=mixed_forms({form, self.form}),
            )
        if mask is None:
            raise DataError(name, expected="a mask", found="none", do="A fingerprint needs a mask for every image.")
        self.sizes.append(tuple(map(int, mask.shape)))
        self.spacings.add(sample.grid, mask.shape)
        counted = mask != self.labels.ignore_index
        self.ignored += int(mask.size - counted.sum())
        self.intensities.add(image, mask, counted, (seed, 0))
        pixels = self.positions.add(mask, (seed, 1))
        self.pixel_counts += pixels
        self.image_counts += pixels > 0
        self.objects.add(mask)
        if mask.ndim == 3:
            self.deviations.append(image.reshape(len(image), -1).std(axis=1, dtype=np.float64))
        for k, thickness in enumerate(class_thickness(mask, self.labels)):
            if thickness is not None:
                self.thickness[k].append(thickness)

    def require_classes(self, dataset: Dataset) -> None:
        present = np.flatnonzero(self.image_counts)
        if len(present) >= 2:
            return
        only = f"only {self.labels.names[present[0]]!r}" if len(present) else "only ignored pixels"
        raise DataError(
            f"{dataset.name or 'data'} masks",
            expected="at least two classes",
            found=f"{only} in {len(self.sizes)} masks",
            do="Check the masks, and that labels.yaml and data.mask_values name the ids that they hold.",
        )

    def result(self, digest: str) -> Fingerprint:
        by_area = sorted(self.sizes, key=lambda size: (math.prod(size), size))
        spacing, unit, differ = self.spacings.result()
        one_sided, by_chance = self.positions.one_sided()
        return Fingerprint(
            images=len(self.sizes),
            channels=self.form[0],
            dtype=self.form[1],
            sizes=(by_area[0], by_area[len(by_area) // 2], by_area[-1]),
            distinct_sizes=len(set(self.sizes)),
            spacing=spacing,
            spacing_unit=unit,
            spacings_differ=differ,
            **self.intensities.statistics()._asdict(),
            pixel_counts=tuple(self.pixel_counts.tolist()),
            image_counts=tuple(self.image_counts.tolist()),
            ignored_share=self.ignored / max(1, self.ignored + int(self.pixel_counts.sum())),
            thickness=tuple(float(np.median(values)) if values else None for values in self.thickness),
            object_sizes=self.objects.sizes(),
            objects_per_image=self.objects.per_image(),
            row_spread=spread(self.positions.rows),
            column_spread=spread(self.positions.columns[0]),
            one_sided=one_sided,
            one_sided_by_chance=by_chance,
            depth_spread=spread(self.positions.slices) if self.positions.slices.any() else None,
            contrast_ratio=contrast_ratio(self.deviations),
            hash=digest,
            bands=next(iter(self.bands)) if len(self.bands) == 1 else (),
        )


def contrast_ratio(deviations: Sequence[NDArray[np.float64]]) -> float | None:
    """Return the largest over the smallest standard deviation (C,) of an image, of the band with the largest ratio.

    Constant bands are left out; None without images.
    """
    if not deviations:
        return None
    table = np.stack(deviations)
    bands = [column[column > 0] for column in table.T]
    return max((float(band.max() / band.min()) for band in bands if band.size), default=1.0)


def _form(form: tuple[int, str]) -> str:
    return f"{form[0]} band{'s' if form[0] != 1 else ''} of {form[1]}"


class Spacings:
    """Accumulate the pixel spacings of images, in the most frequent unit; those of maps that are no lengths, in metres."""

    def __init__(self) -> None:
        self.spacings: dict[tuple[str, int], list[tuple[float, ...]]] = {}  # by unit and number of axes

    def add(self, grid: Grid, shape: Sequence[int]) -> None:
        """Add the grid of an image of size *S."""
        metres = None if grid.has_lengths else grid.metres(shape)
        spacing, unit = (grid.spacing, grid.unit) if metres is None else (metres, "m")
        self.spacings.setdefault((unit, len(spacing)), []).append(spacing)

    def result(self) -> tuple[tuple[float, ...], str, bool]:
        """Return the median spacing per axis, its unit, and whether spacings or units differ."""
        (unit, _), spacings = max(self.spacings.items(), key=lambda item: len(item[1]))
        table = np.array(spacings)
        low, high = table.min(0), table.max(0)
        differ = len(self.spacings) > 1 or bool((high - low > _SAME_SPACING * low).any())
        return tuple(np.median(table, axis=0).tolist()), unit, differ


def class_thickness(mask: NDArray[Any], labels: Labels) -> list[float | None]:
    """Compute 2 × area / perimeter per class in pixels, None for classes that the mask (*S) does not show.

    The perimeter counts the faces between a pixel of the class and a neighbour of another; the border of the image is
    no face. A long strip has its width, a disc of radius r has πr/4 (its rim is a staircase), and the shorter side of
    the image is the upper limit. In a volume, it is 2 × volume / surface, and a plate has its thickness.
    """
    count = labels.num_classes
    known = np.minimum(mask, count).astype(np.int64)
    area = np.bincount(known.reshape(-1), minlength=count + 1)
    edges = np.zeros(count + 1, np.int64)
    for axis in range(mask.ndim):
        along = np.moveaxis(known, axis, 0)
        one, other = along[1:], along[:-1]
        differ = one != other
        edges += np.bincount(one[differ], minlength=count + 1) + np.bincount(other[differ], minlength=count + 1)
    shorter = float(min(mask.shape))
    return [min(shorter, 2 * float(area[k]) / max(1, int(edges[k]))) if area[k] else None for k in range(count)]
