"""Tell how classes depend on where in the image they are: on the row, on the column, on left and right.

Comes in: masks one after the other. Goes out: shares between 0 and 1. Knows nothing of files or of what the numbers are
used for. Everything is counted in sixteenths of the height and the width.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

BANDS = 16
_DRAWS = 19


class Positions:
    """Sum up where classes are.

    Args:
        classes: K.
    """

    def __init__(self, classes: int) -> None:
        self.rows = np.zeros((BANDS, classes), np.int64)
        # The first as the images are; in each of the others every image is mirrored or not, as a coin falls.
        self.columns = np.zeros((1 + _DRAWS, BANDS, classes), np.int64)

    def add(self, mask: NDArray[Any], seed: Sequence[int]) -> NDArray[np.int64]:
        """Add a mask (H, W) of class indices, and give its pixels per class; `seed` decides how the coins fall."""
        classes = self.rows.shape[1]
        rows, columns = count_rows(mask, classes), count_columns(mask, classes)
        self.rows += rows
        mirrored = np.random.default_rng(list(seed)).random(_DRAWS) < 0.5
        self.columns[0] += columns
        self.columns[1:] += np.where(mirrored[:, None, None], columns[::-1], columns)
        return rows.sum(0)

    def one_sided(self) -> tuple[tuple[float | None, ...], tuple[float | None, ...]]:
        """Give per class how much of it has nothing opposite, and how much that would be by chance; None: it never occurs.

        By chance: the most of 19 times in which every image was mirrored or not, as a coin falls. Where mirroring
        changes nothing, the true counts are no different from these. A class in a few images alone has much.
        """
        own, *others = (one_sided(columns) for columns in self.columns)
        shown, chance = self.columns[0].sum(0) > 0, np.max(others, axis=0)
        of_data, of_chance = (
            tuple(round(float(v), 4) if some else None for v, some in zip(values, shown, strict=True))
            for values in (own, chance)
        )
        return of_data, of_chance


def count_rows(mask: NDArray[Any], classes: int, bands: int = BANDS) -> NDArray[np.int64]:
    """Count pixels per (band of the height, class): (bands, K) of a mask (H, W)."""
    band = np.arange(mask.shape[0]) * bands // max(mask.shape[0], 1)
    known = np.minimum(mask, classes).astype(np.int64)
    joint = np.bincount((known + band[:, None] * (classes + 1)).reshape(-1), minlength=bands * (classes + 1))
    return joint.reshape(bands, classes + 1)[:, :classes]


def count_columns(mask: NDArray[Any], classes: int) -> NDArray[np.int64]:
    """Count pixels per (sixteenth of the width, class): (16, K) of a mask (H, W).

    From both sides to the middle, so that a mirrored mask has the mirrored counts; a column in the very middle is left out.
    """
    half = mask.shape[1] // 2
    left, right = (count_rows(side[:, :half].T, classes, BANDS // 2) for side in (mask, mask[:, ::-1]))
    return np.concatenate([left, right[::-1]])


def spread(bands: NDArray[np.int64]) -> float:
    """Give the mutual information of band and class over the entropy of class, 0…1, from counts (bands, K).

    Source: Theil's uncertainty coefficient, U(class | band).
    """
    entropy = _entropy(bands.sum(0))
    return min(1.0, max(0.0, _information(bands) / entropy)) if entropy > 0 else 0.0


def one_sided(columns: NDArray[np.int64]) -> NDArray[np.float64]:
    """Give per class the share of its pixels that has no equal opposite, at the same distance from the middle: 0…1.

    0 where the left half is the mirror image of the right one on the whole, as with a road in the middle of every image;
    1 for a left kidney. Pixels are counted as shares of those that count, distance by distance.

    Args:
        columns: (bands, K) counts, from left to right, an even number of bands.
    """
    half = len(columns) // 2
    left, right = columns[:half].astype(np.float64), columns[: half - 1 : -1].astype(np.float64)
    of_left, of_right = left.sum(1, keepdims=True), right.sum(1, keepdims=True)
    both = (of_left > 0) & (of_right > 0)
    weight = np.where(both, of_left + of_right, 0.0)
    left, right = left / np.maximum(of_left, 1), right / np.maximum(of_right, 1)
    differ, found = (weight * np.abs(left - right)).sum(0), (weight * (left + right)).sum(0)
    return np.divide(differ, found, out=np.zeros_like(differ), where=found > 0)


def _entropy(counts: NDArray[np.int64]) -> float:
    shares = counts[counts > 0] / max(1, counts.sum())
    return -float((shares * np.log(shares)).sum())


def _information(counts: NDArray[np.int64]) -> float:
    """Give the mutual information of the two axes of counts, in nats."""
    total = counts.sum()
    if not total:
        return 0.0
    joint = counts / total
    independent = joint.sum(1)[:, None] * joint.sum(0)[None, :]
    some = joint > 0
    return float((joint[some] * np.log(joint[some] / independent[some])).sum())
