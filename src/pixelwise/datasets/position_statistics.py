"""Measure how classes depend on the position in the image: on the slice, the row, the column, on left and right.

Pixels are counted in sixteenths of the depth, the height and the width.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

BANDS = 16
_RESAMPLES = 19


class Positions:
    """Accumulate the positions of classes over masks.

    Args:
        classes: K.
    """

    def __init__(self, classes: int) -> None:
        self.slices = np.zeros((BANDS, classes), np.int64)
        self.rows = np.zeros((BANDS, classes), np.int64)
        # The first without mirroring; in each of the others every image is mirrored at random.
        self.columns = np.zeros((1 + _RESAMPLES, BANDS, classes), np.int64)

    def add(self, mask: NDArray[Any], seed: Sequence[int]) -> NDArray[np.int64]:
        """Add a mask (*S) of class indices and return its pixels per class; `seed` determines the random mirroring."""
        classes = self.rows.shape[1]
        if mask.ndim == 3:
            self.slices += count_rows(mask.reshape(len(mask), -1), classes)
        # A volume is an image whose rows, or columns, are those of all slices.
        by_row = mask if mask.ndim == 2 else mask.swapaxes(0, 1).reshape(mask.shape[1], -1)
        rows, columns = count_rows(by_row, classes), count_columns(mask.reshape(-1, mask.shape[-1]), classes)
        self.rows += rows
        mirrored = np.random.default_rng(list(seed)).random(_RESAMPLES) < 0.5
        self.columns[0] += columns
        self.columns[1:] += np.where(mirrored[:, None, None], columns[::-1], columns)
        return rows.sum(0)

    def one_sided(self) -> tuple[tuple[float | None, ...], tuple[float | None, ...]]:
        """Return `one_sided` of the data and by chance, per class; None for classes that never occur.

        The value by chance is the maximum of 19 resamples in which every image is mirrored at random: if left and right
        are equivalent, the data are like these resamples. It is high for a class that occurs in few images.
        """
        observed, *resampled = (one_sided(columns) for columns in self.columns)
        occurs = self.columns[0].sum(0) > 0
        data, chance = (
            tuple(round(float(v), 4) if known else None for v, known in zip(values, occurs, strict=True))
            for values in (observed, np.max(resampled, axis=0))
        )
        return data, chance


def count_rows(mask: NDArray[Any], classes: int, bands: int = BANDS) -> NDArray[np.int64]:
    """Count pixels per (band of the height, class): (bands, K) of a mask (H, W)."""
    band = np.arange(mask.shape[0]) * bands // max(mask.shape[0], 1)
    known = np.minimum(mask, classes).astype(np.int64)
    joint = np.bincount((known + band[:, None] * (classes + 1)).reshape(-1), minlength=bands * (classes + 1))
    return joint.reshape(bands, classes + 1)[:, :classes]


def count_columns(mask: NDArray[Any], classes: int) -> NDArray[np.int64]:
    """Count pixels per (sixteenth of the width, class): (16, K) of a mask (H, W).

    Columns are counted from both sides, so that a mirrored mask has mirrored counts; a central column is left out.
    """
    half = mask.shape[1] // 2
    left, right = (count_rows(side[:, :half].T, classes, BANDS // 2) for side in (mask, mask[:, ::-1]))
    return np.concatenate([left, right[::-1]])


def spread(bands: NDArray[np.int64]) -> float:
    """Compute the mutual information of band and class over the entropy of class, 0…1, from counts (bands, K).

    Source: Theil's uncertainty coefficient, U(class | band).
    """
    entropy = _entropy(bands.sum(0))
    return min(1.0, max(0.0, _information(bands) / entropy)) if entropy > 0 else 0.0


def one_sided(columns: NDArray[np.int64]) -> NDArray[np.float64]:
    """Compute per class the share of its pixels without counterpart at the same distance on the other side, 0…1.

    It is 0 if the left half mirrors the right half on average, as for a road in the middle of every image, and 1 for a
    left kidney. Pixels are counted as shares of those not ignored at each distance.

    Args:
        columns: (bands, K) counts, from left to right, an even number of bands.
    """
    half = len(columns) // 2
    left, right = columns[:half].astype(np.float64), columns[: half - 1 : -1].astype(np.float64)
    left_total, right_total = left.sum(1, keepdims=True), right.sum(1, keepdims=True)
    both = (left_total > 0) & (right_total > 0)
    weight = np.where(both, left_total + right_total, 0.0)
    left, right = left / np.maximum(left_total, 1), right / np.maximum(right_total, 1)
    differ, found = (weight * np.abs(left - right)).sum(0), (weight * (left + right)).sum(0)
    return np.divide(differ, found, out=np.zeros_like(differ), where=found > 0)


def _entropy(counts: NDArray[np.int64]) -> float:
    shares = counts[counts > 0] / max(1, counts.sum())
    return -float((shares * np.log(shares)).sum())


def _information(counts: NDArray[np.int64]) -> float:
    """Compute the mutual information of the two axes of counts, in nats."""
    total = counts.sum()
    if not total:
        return 0.0
    joint = counts / total
    independent = joint.sum(1)[:, None] * joint.sum(0)[None, :]
    positive = joint > 0
    return float((joint[positive] * np.log(joint[positive] / independent[positive])).sum())
