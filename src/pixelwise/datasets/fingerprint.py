"""Measure the facts of a data set from which a configuration is derived: sizes, values, class shares, objects, places.

Comes in: a `Dataset`. Goes out: a `Fingerprint`. Knows nothing of models, training or what the facts are used for.
Everything is summed up image by image: no more than one is in memory.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pixelwise.datasets.dataset import Dataset
from pixelwise.datasets.intensity import Intensities
from pixelwise.datasets.object_sizes import ObjectSizes
from pixelwise.datasets.position_statistics import Positions, spread
from pixelwise.errors import DataError, ImageError
from pixelwise.formats.reading import mixed_bands
from pixelwise.grid import Grid
from pixelwise.labels import Labels
from pixelwise.types import Fingerprint, Sample

Progress = Callable[[int, int], None]

# Spacings that differ by less are the same, written with other digits.
_SAME_SPACING = 1e-3


def fingerprint(dataset: Dataset, *, limit: int = 200, seed: int = 0, progress: Progress | None = None) -> Fingerprint:
    """Look at up to `limit` images, chosen by (seed, id), and sum up what they hold.

    Where these show one class only, more are looked at until there is another: a rare one may be in one of a thousand.

    Args:
        dataset: the training part.
        limit: the most images to decode where they show two classes.
        seed: another seed, another choice.
        progress: is called with (done, total) after each image.

    Raises:
        DataError: not one class, or only one, occurs.
        ImageError: images among those differ in bands or pixel type (two are named).

    """
    drawn = sorted(range(len(dataset)), key=lambda i: _draw(seed, dataset.records[i].id))
    order, rest = drawn[:limit], drawn[limit:]
    # Slices of a volume one after the other, so that it is unpacked once.
    order.sort(key=lambda i: str(dataset.records[i].image) if dataset.records[i].plane is not None else "")
    facts = _Facts(dataset.labels)

    def look(index: int) -> None:
        record = dataset.records[index]
        facts.add(dataset.read(index), str(record.image), int.from_bytes(_draw(seed, record.id)[:8], "big"))

    for done, index in enumerate(order, 1):
        look(index)
        if progress is not None:
            progress(done, len(order))
    for index in rest:
        if facts.classes() >= 2:
            break
        look(index)
    facts.require_classes(dataset)
    return facts.result(dataset.hash())


def _draw(seed: int, name: str) -> bytes:
    return hashlib.sha256(f"{seed}:{name}".encode("utf-8", "surrogateescape")).digest()


class _Facts:
    """Sum up images one after the other."""

    def __init__(self, labels: Labels) -> None:
        count = labels.num_classes
        self.labels = labels
        self.first = ""
        self.form: tuple[int, str] = (0, "")
        self.sizes: list[tuple[int, int]] = []
        self.spacings = Spacings()
        self.positions = Positions(count)
        self.objects = ObjectSizes(count)
        self.pixel_counts = np.zeros(count, np.int64)
        self.image_counts = np.zeros(count, np.int64)
        self.ignored = 0
        self.thickness: list[list[float]] = [[] for _ in range(count)]

    def add(self, sample: Sample, name: str, seed: int) -> None:
        image, mask = sample.image, sample.truth(self.labels.ignore_index)
        form = (image.shape[0], image.dtype.name)
        if not self.sizes:
            self.first, self.form = name, form
            self.values = Intensities(image.shape[0], image.dtype, self.labels.num_classes)
        if form != self.form:
            raise ImageError(
                name,
                expected=f"{_form(self.form)}, as in {self.first}",
                found=_form(form),
                do=mixed_bands({form[0], self.form[0]}),
            )
        if mask is None:
            raise DataError(name, expected="a mask", found="none", do="A fingerprint needs masks for every image.")
        self.sizes.append((int(image.shape[1]), int(image.shape[2])))
        self.spacings.add(sample.grid)
        counted = mask != self.labels.ignore_index
        self.ignored += int(mask.size - counted.sum())
        self.values.add(image, mask, counted, (seed, 0))
        pixels = self.positions.add(mask, (seed, 1))
        self.pixel_counts += pixels
        self.image_counts += pixels > 0
        self.objects.add(mask)
        for k, thickness in enumerate(class_thickness(mask, self.labels)):
            if thickness is not None:
                self.thickness[k].append(thickness)

    def classes(self) -> int:
        return int(np.count_nonzero(self.image_counts))

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
        by_area = sorted(self.sizes, key=lambda size: (size[0] * size[1], size))
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
            **self.values.facts()._asdict(),
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
            hash=digest,
        )


def _form(form: tuple[int, str]) -> str:
    return f"{form[0]} band{'s' if form[0] != 1 else ''} of {form[1]}"


class Spacings:
    """Sum up how far apart neighbouring pixels are, in the unit that most images have."""

    def __init__(self) -> None:
        self.held: Counter[tuple[str, tuple[float, ...]]] = Counter()

    def add(self, grid: Grid) -> None:
        """Add the grid of an image."""
        self.held[grid.unit, grid.spacing] += 1

    def result(self) -> tuple[tuple[float, ...], str, bool]:
        """Give the median per axis, its unit, and whether spacings or units differ."""
        units: Counter[tuple[str, int]] = Counter()
        for (unit, spacing), many in self.held.items():
            units[unit, len(spacing)] += many
        (unit, axes), _ = units.most_common(1)[0]
        all_of_it = [
            spacing
            for (u, spacing), many in self.held.items()
            if (u, len(spacing)) == (unit, axes)
            for _ in range(many)
        ]
        table = np.array(all_of_it)
        low, high = table.min(0), table.max(0)
        differ = len(units) > 1 or bool((high - low > _SAME_SPACING * low).any())
        return tuple(np.median(table, axis=0).tolist()), unit, differ


def class_thickness(mask: NDArray[Any], labels: Labels) -> list[float | None]:
    """Give 2 × area / perimeter per class in pixels, None for classes that the mask (H, W) does not show.

    The perimeter counts the edges between a pixel of the class and a neighbour (of four) that is not of it; the
    image's border is no edge. A long strip has its width, a disc of radius r has πr/4 (its rim is a staircase), and
    nothing has more than the image's shorter side.
    """
    count = labels.num_classes
    known = np.minimum(mask, count).astype(np.int64)
    area = np.bincount(known.reshape(-1), minlength=count + 1)
    edges = np.zeros(count + 1, np.int64)
    for one, other in ((known[1:], known[:-1]), (known[:, 1:], known[:, :-1])):
        differ = one != other
        edges += np.bincount(one[differ], minlength=count + 1) + np.bincount(other[differ], minlength=count + 1)
    shorter = float(min(mask.shape))
    return [min(shorter, 2 * float(area[k]) / max(1, int(edges[k]))) if area[k] else None for k in range(count)]
