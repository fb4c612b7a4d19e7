"""How far a score would move with other images of the same kind: bootstrap over images.

Comes in: sums per image (or per group of images that belong together) and a statistic of their total. Goes out: the
bounds of a percentile interval. Knows nothing of what the sums mean.

Images are drawn, not pixels: neighbouring pixels are wrong together, and an interval over pixels would be far too
narrow. For the same reason groups are drawn whole where images come in groups (a patient's slices, a video's frames).
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pixelwise.types import Score

Floats = NDArray[np.float64]
LEVEL = 0.95
# Bounds the memory: so many numbers, drawn or added up, are held at once.
_DRAWS = 1 << 22
_PIECE = 256


def bootstrap(
    sums: NDArray[Any], statistic: Callable[[Floats], Floats], *, resamples: int = 1000, seed: int = 0
) -> tuple[Floats, Floats]:
    """Draw images with replacement and take the 2.5 and 97.5 % points of a statistic: Efron & Tibshirani 1993, ch. 13.

    Args:
        sums: (N, M) numbers per image that add up over images.
        statistic: takes totals (R, M), gives (R, S); NaN where undefined.
        resamples: how many times N images are drawn.
        seed: equal seeds give equal bounds.

    Returns:
        Lower and upper bounds (S,), taken over the draws that define the statistic; NaN where none does, or where fewer
        than two images leave nothing to draw from.

    """
    count = len(sums)
    total = np.asarray(sums, np.float64)
    if count < 2 or resamples < 2:
        undefined = np.full(statistic(total.sum(0, keepdims=True)).shape[1], np.nan)
        return undefined, undefined.copy()
    return percentiles(np.concatenate([statistic(totals) for totals in drawn_totals(total, resamples, seed)]))


def drawn_totals(sums: NDArray[Any], resamples: int, seed: int) -> Iterator[Floats]:
    """Draw images with replacement, as many as there are, and add up: some of the `resamples` rows at a time.

    Args:
        sums: (N, M) numbers per image.
        resamples: rows (M) in all.
        seed: equal seeds draw the same images, however many rows come at a time.

    Yields:
        Totals (R, M); drop each before the next is asked for, and the memory stays bounded.

    """
    count, width = sums.shape
    total, generator = np.asarray(sums, np.float64), np.random.default_rng(seed)
    rows = max(1, _DRAWS // max(count, width))
    for start in range(0, resamples, rows):
        n = min(rows, resamples - start)
        drawn = generator.integers(0, count, (n, count))
        drawn += count * np.arange(n)[:, None]
        times = np.bincount(drawn.reshape(-1), minlength=n * count).reshape(n, count)
        # Of whole numbers below 2^53 the product is exact; of fractions its last digits may depend on the threads.
        yield times.astype(np.float64) @ total


Statistic = Callable[[Floats, Floats], Floats]
"""Turn totals (R, M) into values (R, S), NaN where undefined. The second argument, (1, M) or (R, M), says which parts
(classes, say) a mean is over: a draw that lacks one of them takes its value from there, else the mean would be over other
parts from draw to draw."""


def score_sums(
    sums: NDArray[Any], statistic: Statistic, groups: Sequence[Hashable], *, resamples: int = 1000, seed: int = 0
) -> list[Score]:
    """Score a data set from what adds up over its images: values, 95 % intervals, and n.

    Args:
        sums: (N, M) numbers per image.
        statistic: see `Statistic`.
        groups: one per image; images of one group are drawn together, None stands for itself.
        resamples: draws of the bootstrap; less than 2 leaves the intervals out.
        seed: equal seeds draw the same images, whatever is scored.

    Returns:
        S scores; n counts the images on which a score is defined, taken alone.

    """
    whole = np.asarray(sums, np.float64).sum(0, keepdims=True)
    units, _ = by_group(sums, groups)
    values = statistic(whole, whole)[0]
    low, high = bootstrap(units, lambda totals: statistic(totals, whole), resamples=resamples, seed=seed)
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
    """Add up the images of each group, one without a group for itself; say whether these are "images" or "groups"."""
    if all(group is None for group in groups):
        return sums, "images"
    place: dict[Hashable, int] = {}
    # A tuple, so that no group's own name is taken for an image's number.
    names = [("alone", i) if group is None else ("group", group) for i, group in enumerate(groups)]
    index = [place.setdefault(name, len(place)) for name in names]
    units = np.zeros((len(place), *sums.shape[1:]), sums.dtype)
    np.add.at(units, index, sums)
    return units, "groups"


def percentiles(values: Floats, level: float = LEVEL) -> tuple[Floats, Floats]:
    """Give the bounds (S,) between which the middle `level` of each column of (R, S) lies, NaN left out."""
    low, high = np.full(values.shape[1], np.nan), np.full(values.shape[1], np.nan)
    tails = [(1 - level) / 2, (1 + level) / 2]
    whole = ~np.isnan(values).any(0)
    if whole.any():
        low[whole], high[whole] = np.quantile(values[:, whole], tails, axis=0)
    for column in np.flatnonzero(~whole):
        defined = values[~np.isnan(values[:, column]), column]
        if defined.size:
            low[column], high[column] = np.quantile(defined, tails)
    return low, high
