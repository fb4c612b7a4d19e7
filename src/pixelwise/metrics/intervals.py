"""Bootstrap intervals over images.

Images are resampled rather than pixels: errors of neighbouring pixels are correlated, and an interval over pixels would be far
too narrow. For the same reason, groups of images (the slices of a patient, the frames of a video) are resampled as a whole.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pixelwise.types import Score

Floats = NDArray[np.float64]
LEVEL = 0.95
# Limit on the numbers held at once, to bound the memory.
_DRAWS = 1 << 22
_PIECE = 256


def bootstrap(
    sums: NDArray[Any], statistic: Callable[[Floats], Floats], *, resamples: int = 1000, seed: int = 0
) -> tuple[Floats, Floats]:
    """Compute a 95 % percentile bootstrap interval over images: Efron & Tibshirani 1993, ch. 13.

    Args:
        sums: (N, M) numbers per image that add up over images.
        statistic: maps totals (R, M) to values (R, S); NaN if undefined.
        resamples: number of resamples.
        seed: random seed.

    Returns:
        Lower and upper bounds (S,) over the draws in which the statistic is defined; NaN if there are none, or fewer than two
        images or resamples.
    """
    count = len(sums)
    total = np.asarray(sums, np.float64)
    if count < 2 or resamples < 2:
        undefined = np.full(statistic(total.sum(0, keepdims=True)).shape[1], np.nan)
        return undefined, undefined.copy()
    return percentiles(np.concatenate([statistic(totals) for totals in drawn_totals(total, resamples, seed)]))


def drawn_totals(sums: NDArray[Any], resamples: int, seed: int) -> Iterator[Floats]:
    """Yield the totals of N images drawn with replacement, in blocks of rows that bound the memory.

    Args:
        sums: (N, M) numbers per image.
        resamples: number of rows in total.
        seed: random seed; the draws do not depend on the size of the blocks.

    Yields:
        Totals (R, M).
    """
    count, width = sums.shape
    total, generator = np.asarray(sums, np.float64), np.random.default_rng(seed)
    rows = max(1, _DRAWS // max(count, width))
    for start in range(0, resamples, rows):
        n = min(rows, resamples - start)
        drawn = generator.integers(0, count, (n, count))
        drawn += count * np.arange(n)[:, None]
        times = np.bincount(drawn.reshape(-1), minlength=n * count).reshape(n, count)
        # The product is exact for integers below 2^53; for fractions the last digits may depend on the number of threads.
        yield times.astype(np.float64) @ total


Statistic = Callable[[Floats, Floats], Floats]
"""Maps totals (R, M) to values (R, S), NaN if undefined. The second argument, reference totals (1, M) or (R, M), defines which
classes a mean is over: a draw that lacks one of them uses its reference value, so that all means are over the same classes."""


def score_sums(
    sums: NDArray[Any], statistic: Statistic, groups: Sequence[Hashable], *, resamples: int = 1000, seed: int = 0
) -> list[Score]:
    """Score a data set from sums per image: values, 95 % intervals, and n.

    Args:
        sums: (N, M) numbers per image.
        statistic: see `Statistic`.
        groups: one per image; images of one group are resampled together, None for an image without a group.
        resamples: number of bootstrap resamples; below 2 there are no intervals.
        seed: random seed; equal seeds draw the same images for every statistic.

    Returns:
        S scores; n is the number of images for which a score is defined on its own.
    """
    reference = np.asarray(sums, np.float64).sum(0, keepdims=True)
    units, _ = by_group(sums, groups)
    values = statistic(reference, reference)[0]
    low, high = bootstrap(units, lambda totals: statistic(totals, reference), resamples=resamples, seed=seed)
    n: NDArray[Any] = np.zeros(len(values), np.int64)
    for start in range(0, len(sums), _PIECE):
        alone = np.asarray(sums[start : start + _PIECE], np.float64)
        n += (~np.isnan(statistic(alone, alone))).sum(0)
    return [make_score(*entry) for entry in zip(values, low, high, n, strict=True)]


def make_score(value: float, low: float, high: float, n: int) -> Score:
    """Return a `Score` with None for NaN; an undefined value has no interval and n 0."""
    if np.isnan(value):
        return Score(None, n=0)
    return Score(float(value), None if np.isnan(low) else float(low), None if np.isnan(high) else float(high), int(n))


def by_group(sums: NDArray[Any], groups: Sequence[Hashable]) -> tuple[NDArray[Any], str]:
    """Sum the images of each group; an image without a group stays alone. Also return the kind of unit, "images" or "groups"."""
    if all(group is None for group in groups):
        return sums, "images"
    place: dict[Hashable, int] = {}
    # Tuples, so that group names cannot be confused with image numbers.
    names = [("alone", i) if group is None else ("group", group) for i, group in enumerate(groups)]
    index = [place.setdefault(name, len(place)) for name in names]
    units = np.zeros((len(place), *sums.shape[1:]), sums.dtype)
    np.add.at(units, index, sums)
    return units, "groups"


def percentiles(values: Floats, level: float = LEVEL) -> tuple[Floats, Floats]:
    """Return the bounds (S,) of the central `level` of each column of (R, S), without NaN."""
    low, high = np.full(values.shape[1], np.nan), np.full(values.shape[1], np.nan)
    tails = [(1 - level) / 2, (1 + level) / 2]
    complete = ~np.isnan(values).any(0)
    if complete.any():
        low[complete], high[complete] = np.quantile(values[:, complete], tails, axis=0)
    for column in np.flatnonzero(~complete):
        defined = values[~np.isnan(values[:, column]), column]
        if defined.size:
            low[column], high[column] = np.quantile(defined, tails)
    return low, high
