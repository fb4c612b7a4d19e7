"""Measure the facts of a data set from which a configuration is derived: sizes, means, class shares, thickness.

Comes in: a `Dataset`. Goes out: a `Fingerprint`. Knows nothing of models, training or what the facts are used for.
Every sum is streamed in float64 or int64: no more than one picture is in memory.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pixelwise.data.dataset import Dataset
from pixelwise.errors import DataError, ImageError
from pixelwise.labels import Labels
from pixelwise.types import Fingerprint, Sample

Progress = Callable[[int, int], None]

_ROW_BANDS = 16
_CHUNK = 1 << 20


def fingerprint(dataset: Dataset, *, limit: int = 200, seed: int = 0, progress: Progress | None = None) -> Fingerprint:
    """Look at up to `limit` pictures, chosen by (seed, id), and sum up what they hold.

    Args:
        dataset: the training part.
        limit: the most pictures to decode.
        seed: another seed, another choice.
        progress: is called with (done, total) after each picture.

    Raises:
        DataError: not one class, or only one, occurs.
        ImageError: pictures among those differ in bands or pixel type (two are named).

    """
    order = sorted(range(len(dataset)), key=lambda i: _draw(seed, dataset.records[i].id))[:limit]
    facts = _Facts(dataset.labels)
    for done, index in enumerate(order, 1):
        facts.add(dataset.read(index), str(dataset.records[index].image))
        if progress is not None:
            progress(done, len(order))
    facts.require_classes(dataset)
    return facts.result(dataset.hash())


def _draw(seed: int, name: str) -> bytes:
    return hashlib.sha256(f"{seed}:{name}".encode("utf-8", "surrogateescape")).digest()


class _Facts:
    """Sum up pictures one after the other."""

    def __init__(self, labels: Labels) -> None:
        count = labels.num_classes
        self.labels = labels
        self.first = ""
        self.form: tuple[int, str] = (0, "")
        self.sizes: list[tuple[int, int]] = []
        self.moments = Moments()
        self.rows = np.zeros((_ROW_BANDS, count), np.int64)
        self.image_counts = np.zeros(count, np.int64)
        self.ignored = 0
        self.thickness: list[list[float]] = [[] for _ in range(count)]

    def add(self, sample: Sample, name: str) -> None:
        image, mask = sample.image, sample.mask
        form = (image.shape[0], image.dtype.name)
        if not self.sizes:
            self.first, self.form = name, form
        if form != self.form:
            raise ImageError(
                name,
                expected=f"{_form(self.form)}, as in {self.first}",
                found=_form(form),
                do="Convert the pictures to one kind, or make two data sets of them.",
            )
        if mask is None:
            raise DataError(name, expected="a mask", found="none", do="A fingerprint needs masks for every picture.")
        self.sizes.append((int(image.shape[1]), int(image.shape[2])))
        counted = mask != self.labels.ignore_index
        self.ignored += int(mask.size - counted.sum())
        self.moments.add(image, counted)
        rows = count_rows(mask, self.labels)
        self.rows += rows
        self.image_counts += rows.sum(0) > 0
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
        pixels = self.rows.sum(0)
        by_area = sorted(self.sizes, key=lambda size: (size[0] * size[1], size))
        ignored_share = self.ignored / max(1, self.ignored + int(pixels.sum()))
        return Fingerprint(
            images=len(self.sizes),
            channels=self.form[0],
            dtype=self.form[1],
            sizes=(by_area[0], by_area[len(by_area) // 2], by_area[-1]),
            mean=tuple(self.moments.mean.tolist()),
            std=tuple(self.moments.std.tolist()),
            pixel_counts=tuple(pixels.tolist()),
            image_counts=tuple(self.image_counts.tolist()),
            ignored_share=ignored_share,
            thickness=tuple(float(np.median(values)) if values else None for values in self.thickness),
            row_spread=row_spread(self.rows),
            hash=digest,
        )


def _form(form: tuple[int, str]) -> str:
    return f"{form[0]} band{'s' if form[0] != 1 else ''} of {form[1]}"


class Moments:
    """Sum up mean and variance per band in float64, without the cancellation of Σx² − (Σx)² (Chan et al. 1983)."""

    def __init__(self) -> None:
        self.count = 0
        self.mean: NDArray[np.float64] = np.zeros(0)
        self._squares: NDArray[np.float64] = np.zeros(0)

    def add(self, image: NDArray[Any], counted: NDArray[np.bool_]) -> None:
        """Add the counted pixels (H, W) of an image (C, H, W)."""
        if not self.count:
            self.mean, self._squares = np.zeros(len(image)), np.zeros(len(image))
        pixels = image[:, counted]
        for start in range(0, pixels.shape[1], _CHUNK):
            part = pixels[:, start : start + _CHUNK].astype(np.float64)
            count, mean = part.shape[1], part.mean(1)
            total, shift = self.count + count, mean - self.mean
            self._squares += ((part - mean[:, None]) ** 2).sum(1) + shift**2 * (self.count * count / total)
            self.mean = self.mean + shift * (count / total)
            self.count = total

    @property
    def std(self) -> NDArray[np.float64]:
        """Give the standard deviation per band (of the population)."""
        return np.sqrt(self._squares / max(1, self.count))


def count_rows(mask: NDArray[Any], labels: Labels) -> NDArray[np.int64]:
    """Count pixels per (sixteenth of the height, class): (16, K) of a mask (H, W)."""
    height, count = mask.shape[0], labels.num_classes
    band = np.arange(height) * _ROW_BANDS // height
    known = np.minimum(mask, count).astype(np.int64)
    joint = np.bincount((known + band[:, None] * (count + 1)).reshape(-1), minlength=_ROW_BANDS * (count + 1))
    return joint.reshape(_ROW_BANDS, count + 1)[:, :count]


def class_thickness(mask: NDArray[Any], labels: Labels) -> list[float | None]:
    """Give 2 × area / perimeter per class in pixels, None for classes that the mask (H, W) does not show.

    The perimeter counts the edges between a pixel of the class and a neighbour (of four) that is not of it; the
    picture's border is no edge. A long strip has its width, a disc of radius r has πr/4 (its rim is a staircase), and
    nothing has more than the picture's shorter side.
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


def row_spread(rows: NDArray[np.int64]) -> float:
    """Give the mutual information of row band and class over the entropy of class, 0…1, from counts (bands, K).

    Source: Theil's uncertainty coefficient, U(class | row).
    """
    total = rows.sum()
    if not total:
        return 0.0
    joint = rows / total
    of_class, of_band = rows.sum(0) / total, rows.sum(1) / total
    entropy = -float(sum(p * np.log(p) for p in of_class if p > 0))
    independent = of_band[:, None] * of_class[None, :]
    some = joint > 0
    information = float((joint[some] * np.log(joint[some] / independent[some])).sum())
    return min(1.0, max(0.0, information / entropy)) if entropy > 0 else 0.0
