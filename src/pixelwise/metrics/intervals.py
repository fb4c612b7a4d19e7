"""How far a score would move with other pictures of the same kind: bootstrap over pictures.

Comes in: sums per picture (or per group of pictures that belong together) and a statistic of their total. Goes out: the
bounds of a percentile interval. Knows nothing of what the sums mean.

Pictures are drawn, not pixels: neighbouring pixels are wrong together, and an interval over pixels would be far too
narrow. For the same reason groups are drawn whole where pictures come in groups (a patient's slices, a video's frames).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
LEVEL = 0.95
# Bounds the memory: so many draws are held at once.
_DRAWS = 1 << 22


def bootstrap(
    sums: NDArray[Any], statistic: Callable[[Floats], Floats], *, resamples: int = 1000, seed: int = 0
) -> tuple[Floats, Floats]:
    """Draw pictures with replacement and take the 2.5 and 97.5 % points of a statistic: Efron & Tibshirani 1993, ch. 13.

    Args:
        sums: (N, M) numbers per picture that add up over pictures.
        statistic: takes totals (R, M), gives (R, S); NaN where undefined.
        resamples: how many times N pictures are drawn.
        seed: equal seeds give equal bounds.

    Returns:
        Lower and upper bounds (S,), taken over the draws that define the statistic; NaN where none does, or where fewer
        than two pictures leave nothing to draw from.

    """
    count = len(sums)
    total = np.asarray(sums, np.float64)
    if count < 2 or resamples < 2:
        undefined = np.full(statistic(total.sum(0, keepdims=True)).shape[1], np.nan)
        return undefined, undefined.copy()
    generator = np.random.default_rng(seed)
    rows = max(1, _DRAWS // count)
    values = []
    for start in range(0, resamples, rows):
        n = min(rows, resamples - start)
        drawn = generator.integers(0, count, (n, count))
        drawn += count * np.arange(n)[:, None]
        times = np.bincount(drawn.reshape(-1), minlength=n * count).reshape(n, count)
        # Whole numbers below 2^53: the product is exact, on any number of threads.
        values.append(statistic(times.astype(np.float64) @ total))
    return percentiles(np.concatenate(values))


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
