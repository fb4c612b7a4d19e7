"""Confusion matrices, and the ratios computed from them.

Counts are int64 throughout (float32 cannot count beyond 2^24), and ratios are computed once, from the totals.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from pixelwise.errors import MaskError, UsageError

Counts = NDArray[np.int64]
Ratios = NDArray[np.float64]
# Pixels counted at once, chosen to stay in the cache.
_CHUNK = 1 << 18


class ConfusionMatrix:
    """An int64 confusion matrix (K, K) over any number of images, rows truth, columns prediction.

    Args:
        num_classes: K.
        ignore_index: value of ignored pixels of the truth; predictions there are not counted.

    Raises:
        UsageError: the ignore index is a class index.
    """

    def __init__(self, num_classes: int, ignore_index: int = 255) -> None:
        if num_classes < 1 or 0 <= ignore_index < num_classes:
            raise UsageError(
                "ignore_index",
                expected=f"a value outside the class indices 0–{num_classes - 1}",
                found=str(ignore_index),
                do="Choose another value for ignored pixels, such as Labels.ignore_index.",
            )
        self.num_classes, self.ignore_index = num_classes, ignore_index
        self.matrix: Counts = np.zeros((num_classes, num_classes), np.int64)

    def update(self, truth: NDArray[Any], prediction: NDArray[Any], where: object = "prediction") -> Counts:
        """Add one image, and return the matrix of this image alone.

        Args:
            truth: integers (*S), class indices or the ignore index.
            prediction: integers (*S), class indices; any value where the truth is ignored.
            where: name of the image in error messages.

        Raises:
            MaskError: different shapes, or counted pixels outside 0…K-1.
        """
        counts = _count(truth, prediction, self.num_classes, self.ignore_index, where)
        self.matrix += counts
        return counts

    def __add__(self, other: ConfusionMatrix) -> ConfusionMatrix:
        """Return the sum of both matrices."""
        if (self.num_classes, self.ignore_index) != (other.num_classes, other.ignore_index):
            raise UsageError(
                "confusion matrix",
                expected=f"{self.num_classes} classes and ignore index {self.ignore_index}",
                found=f"{other.num_classes} and {other.ignore_index}",
                do="Add counts over the same labels.",
            )
        both = ConfusionMatrix(self.num_classes, self.ignore_index)
        both.matrix = self.matrix + other.matrix
        return both


def _count(truth: NDArray[Any], prediction: NDArray[Any], num_classes: int, ignore_index: int, where: object) -> Counts:
    if truth.shape != prediction.shape:
        raise MaskError(
            where,
            expected=f"the size of the truth, {truth.shape}",
            found=str(prediction.shape),
            do="Score at native size: resize logits before deciding, never the truth.",
        )
    for name, array in (("truth", truth), ("prediction", prediction)):
        if array.dtype.kind not in "uib":
            raise MaskError(where, expected="integers", found=f"{name} of {array.dtype}", do="Pass class indices.")
    rows, columns = (_as_bytes(truth), _as_bytes(prediction)) if num_classes <= 256 else (None, None)
    if rows is None or columns is None:
        return _count_any(truth, prediction, num_classes, ignore_index, where)
    table = _count_bytes(rows, columns)
    matrix = table[:num_classes, :num_classes]
    if 0 <= ignore_index < 256:
        table[ignore_index] = 0
    if int(table.sum()) != int(matrix.sum()):
        _require_classes(table.sum(1), "truth", num_classes, ignore_index, where)
        _require_classes(table.sum(0), "prediction", num_classes, ignore_index, where)
    return matrix.copy()


def _as_bytes(array: NDArray[Any]) -> NDArray[np.uint8] | None:
    """Return the flat array as uint8, or None if a value is out of range."""
    flat = array.reshape(-1)
    if flat.dtype != np.uint8 and flat.size and not (int(flat.min()) >= 0 and int(flat.max()) <= 255):
        return None
    return flat.astype(np.uint8, copy=False)


def _count_bytes(truth: NDArray[np.uint8], prediction: NDArray[np.uint8]) -> Counts:
    """Count all pairs of bytes, (256, 256); ignored pixels get a row of their own, so no mask is needed."""
    table = np.zeros(65536, np.int64)
    for start in range(0, truth.size, _CHUNK):
        keys = np.left_shift(truth[start : start + _CHUNK], 8, dtype=np.uint16)
        keys |= prediction[start : start + _CHUNK]
        table += np.bincount(keys, minlength=65536)
    return table.reshape(256, 256)


def _count_any(
    truth: NDArray[Any], prediction: NDArray[Any], num_classes: int, ignore_index: int, where: object
) -> Counts:
    """Count pairs of any integers, in chunks to bound the memory."""
    table = np.zeros(num_classes**2, np.int64)
    rows, columns = truth.reshape(-1), prediction.reshape(-1)
    for start in range(0, rows.size, _CHUNK):
        # uint64 values beyond int64 become negative and are reported as invalid.
        t, p = (flat[start : start + _CHUNK].astype(np.int64) for flat in (rows, columns))
        counted = t != ignore_index
        t, p = t[counted], p[counted]
        for name, values in (("truth", t), ("prediction", p)):
            invalid = values[(values < 0) | (values >= num_classes)]
            if invalid.size:
                raise _invalid_class(name, int(invalid[0]), num_classes, ignore_index, where)
        table += np.bincount(t * num_classes + p, minlength=num_classes**2)
    return table.reshape(num_classes, num_classes)


def _require_classes(counts: Counts, name: str, num_classes: int, ignore_index: int, where: object) -> None:
    invalid = np.flatnonzero(counts[num_classes:])
    if invalid.size:
        raise _invalid_class(name, int(invalid[0]) + num_classes, num_classes, ignore_index, where)


def _invalid_class(name: str, value: int, num_classes: int, ignore_index: int, where: object) -> MaskError:
    ignored = f" or the ignore index {ignore_index}" if name == "truth" else " where the truth is not ignored"
    return MaskError(
        where,
        expected=f"class indices 0–{num_classes - 1}{ignored}",
        found=f"{value} in the {name}",
        do="Check that truth and prediction use the same labels.",
    )


def margins(matrix: Counts) -> tuple[Counts, Counts, Counts]:
    """Return per class the true positives (the diagonal), true pixels and predicted pixels, (…, K) each."""
    return np.diagonal(matrix, axis1=-2, axis2=-1), matrix.sum(-1), matrix.sum(-2)


def iou(matrix: Counts) -> Ratios:
    """Compute intersection over union per class, (…, K): TP / (TP + FP + FN); NaN without a union."""
    hits, truth, predicted = margins(matrix)
    return ratio(hits, truth + predicted - hits)


def dice(matrix: Counts) -> Ratios:
    """Compute the Dice coefficient (F1) per class, (…, K): 2 TP / (2 TP + FP + FN); NaN without a union."""
    hits, truth, predicted = margins(matrix)
    return ratio(2 * hits, truth + predicted)


def precision(matrix: Counts) -> Ratios:
    """Compute TP / (TP + FP) per class, (…, K); NaN for a class that was never predicted."""
    hits, _, predicted = margins(matrix)
    return ratio(hits, predicted)


def recall(matrix: Counts) -> Ratios:
    """Compute TP / (TP + FN) per class, (…, K); NaN for a class absent from the truth."""
    hits, truth, _ = margins(matrix)
    return ratio(hits, truth)


def pixel_accuracy(matrix: Counts) -> Ratios:
    """Compute the share of counted pixels that are correct, (…); NaN without counted pixels."""
    hits, truth, _ = margins(matrix)
    return ratio(hits.sum(-1), truth.sum(-1))


def frequency_weighted_iou(matrix: Counts) -> Ratios:
    """Compute the mean IoU weighted by the true pixels of each class, (…): Long et al. 2015, arXiv:1411.4038."""
    _, truth, _ = margins(matrix)
    return ratio((truth * np.nan_to_num(iou(matrix))).sum(-1), truth.sum(-1))


def mean_iou(matrix: Counts) -> Ratios:
    """Compute the mean IoU over the classes with a union, (…); NaN if there are none."""
    return mean_defined(iou(matrix))


def ratio(part: NDArray[Any], total: NDArray[Any]) -> Ratios:
    """Divide; NaN where the total is 0."""
    result = np.full(np.broadcast(part, total).shape, np.nan)
    np.divide(part, total, out=result, where=np.asarray(total) > 0)
    return result


def mean_defined(values: Ratios) -> Ratios:
    """Compute the mean over the last axis without NaN; NaN if all values are NaN."""
    defined = ~np.isnan(values)
    return ratio(np.where(defined, values, 0.0).sum(-1), defined.sum(-1))
