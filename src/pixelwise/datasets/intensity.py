"""Accumulate statistics of the pixel values of a data set per band, image by image, in constant memory.

Integers of 8 and 16 bits are counted in a histogram: everything is exact except the percentiles of single classes. For
other types, mean, standard deviation and extremes are exact, and percentiles are those of a sample stratified by class
(`PixelSample`): with 65,536 pixels, the 0.5 % percentile is between those of 0.44 and 0.56 %, with 95 % confidence.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

PERCENTS = (0.5, 50.0, 99.5)
_MAX_LOSS = 5.0  # % of each class that may be outside the core at either end
_CHUNK = 1 << 20
_SAMPLE, _SAMPLE_PER_CLASS = 1 << 16, 1 << 11


class IntensityStatistics(NamedTuple):
    """Statistics per band, with the names of `types.Fingerprint`."""

    mean: tuple[float, ...]
    std: tuple[float, ...]
    extremes: tuple[tuple[float, float], ...]
    percentiles: tuple[tuple[float, float, float], ...]
    core: tuple[tuple[float, float], ...]
    core_mean: tuple[float, ...]
    core_std: tuple[float, ...]


class Intensities:
    """Accumulate images of one pixel type.

    Args:
        bands: C.
        dtype: the pixel type.
        classes: K.
    """

    def __init__(self, bands: int, dtype: np.dtype[Any], classes: int) -> None:
        narrow = dtype.kind in "biu" and dtype.itemsize <= 2
        self.histogram = Histogram(bands, dtype) if narrow else None
        self.moments = None if narrow else Moments()
        # Images of 8 bits have no long tails that should be clipped.
        self.sample = None if narrow and dtype.itemsize == 1 else PixelSample(bands, classes)

    def add(self, image: NDArray[Any], mask: NDArray[Any], counted: NDArray[np.bool_], seed: Sequence[int]) -> None:
        """Add an image.

        Args:
            image: (C, H, W).
            mask: (H, W) class indices; other values are not sampled.
            counted: (H, W), false for ignored pixels.
            seed: random seed of the pixels sampled from this image.
        """
        pixels = np.compress(counted.reshape(-1), image.reshape(len(image), -1), axis=1)
        if self.histogram is not None:
            self.histogram.add(pixels)
        if self.moments is not None:
            self.moments.add(pixels)
        if self.sample is not None:
            self.sample.add(image, mask, np.random.default_rng(list(seed)))

    def statistics(self) -> IntensityStatistics:
        """Return the statistics of the images added so far, which must have a pixel that is not ignored."""
        sums = self.histogram or self.moments
        assert sums is not None
        percentiles = tuple(self._percentiles(band) for band in range(len(sums.mean)))
        core = self._core(sums.extremes, percentiles)
        inside = [self._clipped(band, *bounds) for band, bounds in enumerate(core)]
        return IntensityStatistics(
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
            assert self.sample is not None
            values, weights = self.sample.weighted(band)
            low, middle, high = weighted_percentiles(values, weights, PERCENTS)
        return low, middle, high

    def _core(
        self, extremes: Sequence[tuple[float, float]], percentiles: Sequence[tuple[float, float, float]]
    ) -> tuple[tuple[float, float], ...]:
        """Return the range per band that holds 99 % of the pixels, and at least 90 % of those of every class.

        Percentiles over all pixels alone would clip what distinguishes a rare class: bright spots, metal in a body.
        """
        if self.sample is None:
            return ()
        core = []
        for band, (low, _, high) in enumerate(percentiles):
            ends = self.sample.class_percentiles(band, (_MAX_LOSS, 100 - _MAX_LOSS))
            low, high = min([low, *(e[0] for e in ends)]), max([high, *(e[1] for e in ends)])
            # A band that is constant except for a few pixels is informative in these only.
            core.append((low, high) if low < high else extremes[band])
        return tuple(core)

    def _clipped(self, band: int, low: float, high: float) -> tuple[float, float]:
        """Return mean and standard deviation of the values clipped to low…high."""
        values: NDArray[Any]
        weights: NDArray[Any]
        if self.histogram is not None:
            values, weights = self.histogram.levels, self.histogram.counts[band]
        else:
            assert self.sample is not None
            values, weights = self.sample.weighted(band)
        inside = np.clip(values, low, high)
        mean = float(np.average(inside, weights=weights))
        return mean, float(np.sqrt(np.average((inside - mean) ** 2, weights=weights)))


class Histogram:
    """Histogram per band of an integer type of at most 16 bits.

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
        """Mean per band."""
        return (self.counts @ self.levels) / max(1, self.count)

    @property
    def std(self) -> NDArray[np.float64]:
        """Population standard deviation per band."""
        squares = (self.levels - self.mean[:, None]) ** 2
        return np.sqrt((self.counts * squares).sum(1) / max(1, self.count))

    @property
    def extremes(self) -> tuple[tuple[float, float], ...]:
        """Minimum and maximum per band."""
        held = [self.levels[np.flatnonzero(counts)] for counts in self.counts]
        return tuple((float(levels[0]), float(levels[-1])) for levels in held)

    def percentiles(self, band: int, percents: Sequence[float]) -> list[float]:
        """Compute percentiles of a band, as `numpy.percentile` of all pixels."""
        return percentiles_of_counts(self.levels, self.counts[band], percents)


class Moments:
    """Mean, variance and extremes per band in float64, updated without cancellation (Chan et al. 1983)."""

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
        step = max(_CHUNK // max(len(pixels), 1), 1)
        for start in range(0, pixels.shape[1], step):
            chunk = pixels[:, start : start + step].astype(np.float64)
            count, mean = chunk.shape[1], chunk.mean(1)
            total, shift = self.count + count, mean - self.mean
            self._squares += ((chunk - mean[:, None]) ** 2).sum(1) + shift**2 * (self.count * count / total)
            self.mean = self.mean + shift * (count / total)
            self._least = np.minimum(self._least, chunk.min(1))
            self._most = np.maximum(self._most, chunk.max(1))
            self.count = total

    @property
    def std(self) -> NDArray[np.float64]:
        """Population standard deviation per band."""
        return np.sqrt(self._squares / max(1, self.count))

    @property
    def extremes(self) -> tuple[tuple[float, float], ...]:
        """Minimum and maximum per band."""
        return tuple(zip(self._least.tolist(), self._most.tolist(), strict=True))


class PixelSample:
    """Uniform sample of the pixels of each class: those with the smallest random keys.

    The keys depend on the image only, so the sample does not depend on the order of the images.

    Args:
        bands: C.
        classes: K; the sample of each has 65,536 / K pixels, but at least 2048.
    """

    def __init__(self, bands: int, classes: int) -> None:
        self.most = max(_SAMPLE // max(classes, 1), _SAMPLE_PER_CLASS)
        self.counts = np.zeros(classes, np.int64)
        self.keys = [np.zeros(0) for _ in range(classes)]
        self.values = [np.zeros((bands, 0)) for _ in range(classes)]

    def add(self, image: NDArray[Any], mask: NDArray[Any], rng: np.random.Generator) -> None:
        """Add the pixels of an image (C, H, W) with the classes of a mask (H, W); other values are skipped."""
        pixels, ids, classes = image.reshape(len(image), -1), mask.reshape(-1), len(self.counts)
        # Values that are no class are mapped to K, whose limit admits no key.
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

    def weighted(self, band: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return the sampled values of a band, and the number of pixels that each represents."""
        values = [held[band] for held in self.values]
        weights = [
            np.full(len(held), count / max(len(held), 1)) for held, count in zip(values, self.counts, strict=True)
        ]
        return np.concatenate(values), np.concatenate(weights)

    def class_percentiles(self, band: int, percents: Sequence[float]) -> list[list[float]]:
        """Compute percentiles of a band within each class that occurs."""
        return [np.percentile(held[band], list(percents)).tolist() for held in self.values if held.shape[1]]


def percentiles_of_counts(
    levels: NDArray[np.float64], counts: NDArray[np.int64], percents: Sequence[float]
) -> list[float]:
    """Compute percentiles from counts of ascending levels, as `numpy.percentile` of all values."""
    until = np.cumsum(counts)
    ranks = np.asarray(percents) / 100 * (until[-1] - 1)
    below = np.floor(ranks)
    low, high = (levels[np.searchsorted(until, rank, side="right")] for rank in (below, np.ceil(ranks)))
    found: list[float] = (low + (high - low) * (ranks - below)).tolist()
    return found


def weighted_percentiles(
    values: NDArray[np.float64], weights: NDArray[np.float64], percents: Sequence[float]
) -> list[float]:
    """Compute percentiles of weighted values, as `numpy.percentile` if the weights are equal.

    Each value is at the middle of its weight; values are interpolated linearly.
    """
    order = np.argsort(values, kind="stable")
    values, weights = values[order], weights[order]
    middle = np.cumsum(weights) - weights / 2
    place = (middle - middle[0]) / max(middle[-1] - middle[0], 1e-300)
    found: list[float] = np.interp(np.asarray(percents) / 100, place, values).tolist()
    return found
