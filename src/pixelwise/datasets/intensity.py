"""Sum up the pixel values of a data set per band: mean, deviation, extremes, percentiles, and the range of nearly all.

Comes in: images one after the other, with their masks. Goes out: `Facts`. Knows nothing of files or of what the facts
are used for. Memory does not grow with the number of images:

    8 and 16 bits, whole numbers    all values are counted: all is exact but what `core` asks of single classes
    wider, and fractions            mean, deviation and extremes are exact; percentiles are those of pixels drawn evenly
                                    from every class (`DrawnPixels`), each weighed by how many it stands for: with 65,536
                                    drawn ones the 0.5 % percentile lies between those of 0.44 and 0.56 %, 19 times of 20
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

PERCENTS = (0.5, 50.0, 99.5)
# No class may lose more than this at either end of the core.
_LOST = 5.0
_CHUNK = 1 << 20
_DRAWN, _DRAWN_PER_CLASS = 1 << 16, 1 << 11


class Facts(NamedTuple):
    """Hold what is known of the values, per band, as `types.Fingerprint` names it."""

    mean: tuple[float, ...]
    std: tuple[float, ...]
    extremes: tuple[tuple[float, float], ...]
    percentiles: tuple[tuple[float, float, float], ...]
    core: tuple[tuple[float, float], ...]
    core_mean: tuple[float, ...]
    core_std: tuple[float, ...]


class Intensities:
    """Sum up images of one pixel type.

    Args:
        bands: C.
        dtype: the pixel type.
        classes: K.
    """

    def __init__(self, bands: int, dtype: np.dtype[Any], classes: int) -> None:
        narrow = dtype.kind in "biu" and dtype.itemsize <= 2
        self.histogram = Histogram(bands, dtype) if narrow else None
        self.moments = None if narrow else Moments()
        # Images of 8 bits have no tails that a network would have to be spared.
        self.drawn = None if narrow and dtype.itemsize == 1 else DrawnPixels(bands, classes)

    def add(self, image: NDArray[Any], mask: NDArray[Any], counted: NDArray[np.bool_], seed: Sequence[int]) -> None:
        """Add an image.

        Args:
            image: (C, H, W).
            mask: (H, W) class indices; what is not a class is left out of the classes.
            counted: (H, W), which pixels count.
            seed: what is drawn from this image is a function of it.
        """
        pixels = np.compress(counted.reshape(-1), image.reshape(len(image), -1), axis=1)
        if self.histogram is not None:
            self.histogram.add(pixels)
        if self.moments is not None:
            self.moments.add(pixels)
        if self.drawn is not None:
            self.drawn.add(image, mask, np.random.default_rng(list(seed)))

    def facts(self) -> Facts:
        """Give what is known now; at least one pixel must have counted."""
        sums = self.histogram or self.moments
        assert sums is not None
        percentiles = tuple(self._percentiles(band) for band in range(len(sums.mean)))
        core = self._core(sums.extremes, percentiles)
        inside = [self._clipped(band, *bounds) for band, bounds in enumerate(core)]
        return Facts(
            mean=tuple(sums.mean.tolist()),
            std=tuple(sums.std.tolist()),
            extremes=sums.extremes,
            percentiles=percentiles,
            core=core,
            core_mean=tuple(mean for mean, _ in inside),
            core_std=tuple(std for _, std in inside),
        )

    def _percentiles(self, band: int) -> tuple[float, float, float]:
        if self.histogram is not None:
            low, middle, high = self.histogram.percentiles(band, PERCENTS)
        else:
            assert self.drawn is not None
            values, weights = self.drawn.weighed(band)
            low, middle, high = weighted_percentiles(values, weights, PERCENTS)
        return low, middle, high

    def _core(
        self, extremes: Sequence[tuple[float, float]], percentiles: Sequence[tuple[float, float, float]]
    ) -> tuple[tuple[float, float], ...]:
        """Give the range of nearly all values per band: 99 % of the pixels, and at least 90 % of those of every class.

        Percentiles over all pixels alone would cut off what a rare class is known by: bright spots, metal in a body.
        """
        if self.drawn is None:
            return ()
        core = []
        for band, (low, _, high) in enumerate(percentiles):
            ends = self.drawn.class_percentiles(band, (_LOST, 100 - _LOST))
            low, high = min([low, *(e[0] for e in ends)]), max([high, *(e[1] for e in ends)])
            # A band that is constant but for a few pixels says something in these alone.
            core.append((low, high) if low < high else extremes[band])
        return tuple(core)

    def _clipped(self, band: int, low: float, high: float) -> tuple[float, float]:
        """Give mean and standard deviation of the values brought into low…high."""
        values: NDArray[Any]
        weights: NDArray[Any]
        if self.histogram is not None:
            values, weights = self.histogram.levels, self.histogram.counts[band]
        else:
            assert self.drawn is not None
            values, weights = self.drawn.weighed(band)
        inside = np.clip(values, low, high)
        mean = float(np.average(inside, weights=weights))
        return mean, float(np.sqrt(np.average((inside - mean) ** 2, weights=weights)))


class Histogram:
    """Count every value of a type of at most 16 bits, per band.

    Args:
        bands: C.
        dtype: of the pixels.
    """

    def __init__(self, bands: int, dtype: np.dtype[Any]) -> None:
        self.first = int(np.iinfo(dtype).min) if dtype.kind == "i" else 0
        size = 2 ** (8 * dtype.itemsize)
        self.counts = np.zeros((bands, size), np.int64)
        self.levels = np.arange(size, dtype=np.float64) + self.first

    def add(self, pixels: NDArray[Any]) -> None:
        """Add pixels (C, N)."""
        size = self.counts.shape[1]
        for counts, values in zip(self.counts, pixels, strict=True):
            for start in range(0, len(values), _CHUNK):
                counts += np.bincount(values[start : start + _CHUNK].astype(np.int64) - self.first, minlength=size)

    @property
    def count(self) -> int:
        """Count the pixels."""
        return int(self.counts[0].sum())

    @property
    def mean(self) -> NDArray[np.float64]:
        """Give the mean per band."""
        return (self.counts @ self.levels) / max(1, self.count)

    @property
    def std(self) -> NDArray[np.float64]:
        """Give the standard deviation per band (of the population)."""
        squares = (self.levels - self.mean[:, None]) ** 2
        return np.sqrt((self.counts * squares).sum(1) / max(1, self.count))

    @property
    def extremes(self) -> tuple[tuple[float, float], ...]:
        """Give the smallest and the largest value per band."""
        held = [self.levels[np.flatnonzero(counts)] for counts in self.counts]
        return tuple((float(levels[0]), float(levels[-1])) for levels in held)

    def percentiles(self, band: int, percents: Sequence[float]) -> list[float]:
        """Give percentiles of a band, as numpy's of all pixels at once."""
        return percentiles_of_counts(self.levels, self.counts[band], percents)


class Moments:
    """Sum up mean, variance and extremes per band in float64, without the cancellation of Σx² − (Σx)² (Chan et al. 1983)."""

    def __init__(self) -> None:
        self.count = 0
        self.mean: NDArray[np.float64] = np.zeros(0)
        self._squares: NDArray[np.float64] = np.zeros(0)
        self._least: NDArray[np.float64] = np.zeros(0)
        self._most: NDArray[np.float64] = np.zeros(0)

    def add(self, pixels: NDArray[Any]) -> None:
        """Add pixels (C, N)."""
        if not self.count:
            self.mean, self._squares = np.zeros(len(pixels)), np.zeros(len(pixels))
            self._least, self._most = np.full(len(pixels), np.inf), np.full(len(pixels), -np.inf)
        step = max(_CHUNK // max(len(pixels), 1), 1)  # however many bands there are
        for start in range(0, pixels.shape[1], step):
            split = pixels[:, start : start + step].astype(np.float64)
            count, mean = split.shape[1], split.mean(1)
            total, shift = self.count + count, mean - self.mean
            self._squares += ((split - mean[:, None]) ** 2).sum(1) + shift**2 * (self.count * count / total)
            self.mean = self.mean + shift * (count / total)
            self._least, self._most = np.minimum(self._least, split.min(1)), np.maximum(self._most, split.max(1))
            self.count = total

    @property
    def std(self) -> NDArray[np.float64]:
        """Give the standard deviation per band (of the population)."""
        return np.sqrt(self._squares / max(1, self.count))

    @property
    def extremes(self) -> tuple[tuple[float, float], ...]:
        """Give the smallest and the largest value per band."""
        return tuple(zip(self._least.tolist(), self._most.tolist(), strict=True))


class DrawnPixels:
    """Keep pixels drawn evenly from all of a class, of every class up to as many: those with the smallest random keys.

    What is kept depends neither on the order of the images nor on how many there are: each brings its own keys.

    Args:
        bands: C.
        classes: K; each keeps a K-th of 65,536, but at least 2048.
    """

    def __init__(self, bands: int, classes: int) -> None:
        self.most = max(_DRAWN // max(classes, 1), _DRAWN_PER_CLASS)
        self.counts = np.zeros(classes, np.int64)
        self.keys = [np.zeros(0) for _ in range(classes)]
        self.values = [np.zeros((bands, 0)) for _ in range(classes)]

    def add(self, image: NDArray[Any], mask: NDArray[Any], rng: np.random.Generator) -> None:
        """Add the pixels of an image (C, H, W) by the class that the mask (H, W) gives; other ids are left out."""
        pixels, ids, classes = image.reshape(len(image), -1), mask.reshape(-1), len(self.counts)
        # Above the last class stands what counts in nothing: it has no key small enough.
        limits = np.array([keys.max() if len(keys) == self.most else 1.0 for keys in self.keys] + [-1.0])
        for start in range(0, ids.size, _CHUNK):
            known = np.minimum(ids[start : start + _CHUNK], classes).astype(np.int64)
            self.counts += np.bincount(known, minlength=classes + 1)[:classes]
            keys = rng.random(known.size)
            near = np.flatnonzero(keys < limits[known])
            for k in np.unique(known[near]).tolist():
                mine = near[known[near] == k]
                self._keep(k, keys[mine], pixels[:, start + mine])

    def _keep(self, k: int, keys: NDArray[np.float64], values: NDArray[Any]) -> None:
        keys = np.concatenate([self.keys[k], keys])
        values = np.concatenate([self.values[k], values.astype(np.float64)], axis=1)
        if len(keys) > self.most:
            smallest = np.argpartition(keys, self.most)[: self.most]
            keys, values = keys[smallest], values[:, smallest]
        self.keys[k], self.values[k] = keys, values

    def weighed(self, band: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Give the values of a band that are kept, and for how many pixels each of them stands."""
        values = [held[band] for held in self.values]
        weights = [
            np.full(len(held), count / max(len(held), 1)) for held, count in zip(values, self.counts, strict=True)
        ]
        return np.concatenate(values), np.concatenate(weights)

    def class_percentiles(self, band: int, percents: Sequence[float]) -> list[list[float]]:
        """Give percentiles of a band within each class that occurs."""
        return [np.percentile(held[band], list(percents)).tolist() for held in self.values if held.shape[1]]


def percentiles_of_counts(
    levels: NDArray[np.float64], counts: NDArray[np.int64], percents: Sequence[float]
) -> list[float]:
    """Give percentiles of values that are counted by level, ascending: as numpy's of all values one by one."""
    until = np.cumsum(counts)
    ranks = np.asarray(percents) / 100 * (until[-1] - 1)
    below = np.floor(ranks)
    low, high = (levels[np.searchsorted(until, rank, side="right")] for rank in (below, np.ceil(ranks)))
    found: list[float] = (low + (high - low) * (ranks - below)).tolist()
    return found


def weighted_percentiles(
    values: NDArray[np.float64], weights: NDArray[np.float64], percents: Sequence[float]
) -> list[float]:
    """Give percentiles of values with weights; with equal ones they are numpy's.

    Each value stands at the middle of its weight; in between they are interpolated.
    """
    order = np.argsort(values, kind="stable")
    values, weights = values[order], weights[order]
    middle = np.cumsum(weights) - weights / 2
    place = (middle - middle[0]) / max(middle[-1] - middle[0], 1e-300)
    found: list[float] = np.interp(np.asarray(percents) / 100, place, values).tolist()
    return found
