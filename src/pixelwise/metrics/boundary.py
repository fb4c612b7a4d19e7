"""Boundary IoU and the boundary F-score, from counts of bands and contours per class that add up over images.

Distances are in pixels. Ignored pixels belong to no class and are not outside either: a class that ends at them has no edge there.
The border of the image is an edge for the bands of boundary IoU, as defined by its authors, but not for the contours of the
F-score.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import find_objects
from scipy.spatial import KDTree

from pixelwise.errors import MaskError, UsageError
from pixelwise.metrics.confusion import ConfusionMatrix, Counts, Ratios, ratio

Bools = NDArray[np.bool_]
_Fold = Callable[[NDArray[Any], NDArray[Any]], NDArray[Any]]


def boundary_width(shape: Sequence[int], share: float = 0.02) -> int:
    """Return the width of the band for an image of this size: a share of its diagonal, at least one pixel.

    Halves are rounded to even, as in the reference implementation of Cheng et al. 2021, arXiv:2103.16562.

    Args:
        shape: *S.
        share: of the diagonal; the authors use 0.02 for COCO and 0.005 for the larger images of Cityscapes.

    Raises:
        UsageError: the share is not a positive number.
    """
    if not (math.isfinite(share) and share > 0):
        raise UsageError(
            "share", expected="a positive share of the diagonal", found=str(share), do="Use 0.02, as the authors do."
        )
    return max(1, round(share * math.sqrt(sum(int(n) ** 2 for n in shape))))


def boundary_band(region: NDArray[Any], width: float) -> Bools:
    """Return the pixels of a region within `width` pixels of its outside, (*S).

    Equal to the region minus its erosion by `width` steps with a full 3×3(×3) square, with everything beyond the image outside:
    Cheng et al. 2021, arXiv:2103.16562.

    Args:
        region: bool (*S).
        width: in pixels (chessboard distance), truncated to an integer.

    Raises:
        UsageError: the width is below one.
        MaskError: the region is not bool.
    """
    if region.dtype != np.bool_:
        raise MaskError("region", expected="bool", found=str(region.dtype), do="Compare the mask with one class.")
    steps = _steps(width)
    band = np.zeros(region.shape, np.bool_)
    if region.any():
        box = find_objects(region.view(np.uint8))
        inside = np.ascontiguousarray(region[box[0]])
        band[box[0]] = inside
        core = tuple(slice(steps, n - steps) for n in inside.shape)
        if min(inside.shape) > 2 * steps:
            band[box[0]][core] &= ~_slide(inside, 2 * steps + 1, np.logical_and)
    return band


def class_bands(mask: NDArray[Any], width: float, ignore_index: int | None = None) -> Bools:
    """Return the pixels in the band of their own value, for all values of a mask at once, (*S).

    `class_bands(m, w) & (m == c)` equals `boundary_band(m == c, w)` for every value c. With an ignore index, ignored pixels are
    in no band, and bands are only along counted pixels of another value and the border of the image.

    Args:
        mask: integers (*S): classes, or ids of segments.
        width: as in `boundary_band`.
        ignore_index: value of ignored pixels; None if there are none.

    Raises:
        UsageError: the width is below one.
        MaskError: the mask is not of integers.
    """
    if mask.dtype.kind not in "ui":
        raise MaskError("mask", expected="integers", found=str(mask.dtype), do="Pass class indices or ids.")
    steps = _steps(width)
    band = np.ones(mask.shape, np.bool_)
    low = high = mask
    if ignore_index is not None:
        ignored = mask == ignore_index
        band[ignored] = False
        # Ignored pixels must neither lower the minimum of a window nor raise its maximum.
        limits = np.iinfo(mask.dtype)
        low, high = (np.where(ignored, np.asarray(end, mask.dtype), mask) for end in (limits.max, limits.min))
    if mask.size and min(mask.shape) > 2 * steps:
        core = tuple(slice(steps, n - steps) for n in mask.shape)
        # A window has a single value if its minimum is its maximum, so one pass is enough for all classes.
        band[core] &= _slide(low, 2 * steps + 1, np.minimum) != _slide(high, 2 * steps + 1, np.maximum)
    return band


def boundary_counts(
    truth: NDArray[Any],
    prediction: NDArray[Any],
    num_classes: int,
    ignore_index: int = 255,
    share: float = 0.02,
    where: object = "prediction",
) -> Counts:
    """Count the band pixels of every class in one image: in both, in the truth, in the prediction, (3, K).

    Sums over images give boundary IoU over the data set. The width of the band depends on the size of each image.

    Args:
        truth: integers (*S), class indices or the ignore index.
        prediction: integers (*S), class indices; any value where the truth is ignored.
        num_classes: K.
        ignore_index: value of ignored pixels of the truth; there is no edge along them.
        share: of the diagonal, see `boundary_width`.
        where: name of the image in error messages.

    Raises:
        MaskError: different shapes, or counted pixels outside 0…K-1.
        UsageError: the ignore index is a class index, or the share is not positive.
    """
    true, predicted = known_classes(truth, prediction, num_classes, ignore_index, where)
    width = boundary_width(truth.shape, share)
    bands = [class_bands(mask, width, num_classes) for mask in (true, predicted)]
    both = bands[0] & bands[1] & (true == predicted)
    return np.stack([_per_class(m[b], num_classes) for m, b in ((true, both), (true, bands[0]), (predicted, bands[1]))])


def boundary_iou(counts: NDArray[Any]) -> Ratios:
    """Compute boundary IoU per class, (…, K), from (…, 3, K): Cheng et al. 2021; NaN for a class in neither mask."""
    both, true, predicted = (counts[..., row, :] for row in range(3))
    return ratio(both, true + predicted - both)


def contours(mask: NDArray[Any], ignore_index: int | None = None) -> Bools:
    """Return the pixels with a face neighbour of another value, (*S): the inner boundary of every class at once.

    There is no contour along ignored pixels or the border of the image.

    Args:
        mask: integers (*S).
        ignore_index: value of ignored pixels; None if there are none.
    """
    edge = np.zeros(mask.shape, np.bool_)
    known = None if ignore_index is None else mask != ignore_index
    for axis in range(mask.ndim):
        here, there = ((slice(None),) * axis + (part,) for part in (slice(None, -1), slice(1, None)))
        differ = mask[here] != mask[there]
        if known is not None:
            differ &= known[here] & known[there]
        edge[here] |= differ
        edge[there] |= differ
    return edge


def contour_counts(
    truth: NDArray[Any],
    prediction: NDArray[Any],
    num_classes: int,
    ignore_index: int = 255,
    tolerance: float = 1.0,
    where: object = "prediction",
) -> Counts:
    """Count the contour pixels of every class in one image, and those matched by the other contour, (4, K).

    Martin et al. 2004 and Csurka et al. 2013. A pixel is matched if the other contour of the same class is within the tolerance,
    as in DAVIS (Perazzi et al. 2016), without one-to-one assignment. Contours are those of `contours`.

    Args:
        truth: integers (*S), class indices or the ignore index.
        prediction: integers (*S), class indices; any value where the truth is ignored.
        num_classes: K.
        ignore_index: value of ignored pixels of the truth; there is no contour along them.
        tolerance: Euclidean, in pixels; Csurka et al. use 0.0075 of the diagonal, DAVIS 0.008.
        where: name of the image in error messages.

    Returns:
        Rows: matched predicted pixels, all predicted, matched true pixels, all true. Rows add up over images.

    Raises:
        MaskError: different shapes, or counted pixels outside 0…K-1.
        UsageError: the ignore index is a class index, or the tolerance is negative or not finite.
    """
    if not (math.isfinite(tolerance) and tolerance >= 0):
        raise UsageError("tolerance", expected="a distance in pixels", found=str(tolerance), do="Use zero or more.")
    true, predicted = known_classes(truth, prediction, num_classes, ignore_index, where)
    edges = [contours(mask, num_classes) for mask in (predicted, true)]
    classes = [mask[edge] for mask, edge in zip((predicted, true), edges, strict=True)]
    # Pixels where both contours have the same class need no search.
    same = edges[0] & edges[1] & (true == predicted)
    places = [_places(mask, edge, tolerance) for mask, edge in zip((predicted, true), edges, strict=True)]
    matched = [same[edge] for edge in edges]
    for own, other in ((0, 1), (1, 0)):
        matched[own][~matched[own]] = _near(places[own][~matched[own]], places[other], tolerance)
    rows = [classes[0][matched[0]], classes[0], classes[1][matched[1]], classes[1]]
    return np.stack([_per_class(row, num_classes) for row in rows])


def contour_precision(counts: NDArray[Any]) -> Ratios:
    """Compute the share of predicted contour that is matched, (…, K), from (…, 4, K); NaN without a predicted contour."""
    return ratio(counts[..., 0, :], counts[..., 1, :])


def contour_recall(counts: NDArray[Any]) -> Ratios:
    """Compute the share of true contour that is matched, (…, K), from (…, 4, K); NaN without a true contour."""
    return ratio(counts[..., 2, :], counts[..., 3, :])


def boundary_f_score(counts: NDArray[Any]) -> Ratios:
    """Compute the harmonic mean of contour precision and recall, (…, K), from (…, 4, K): Csurka et al. 2013.

    NaN for a class without any contour, 0 if only one of the masks has one.
    """
    both = np.nan_to_num(contour_precision(counts)), np.nan_to_num(contour_recall(counts))
    score = np.nan_to_num(ratio(2 * both[0] * both[1], both[0] + both[1]))
    return np.where(counts[..., 1, :] + counts[..., 3, :] > 0, score, np.nan)


def known_classes(
    truth: NDArray[Any], prediction: NDArray[Any], num_classes: int, ignore_index: int, where: object = "prediction"
) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return copies of both masks in the smallest type, with K in both where the truth is ignored.

    Raises:
        MaskError: different shapes, or counted pixels outside 0…K-1.
        UsageError: the ignore index is a class index.
    """
    ConfusionMatrix(num_classes, ignore_index).update(truth, prediction, where)  # validates the masks
    ignored = truth == ignore_index
    kind = np.min_scalar_type(num_classes)
    both = truth.astype(kind), prediction.astype(kind)
    for mask in both:
        mask[ignored] = num_classes
    return both


def _steps(width: float) -> int:
    if not (math.isfinite(width) and width >= 1):
        raise UsageError("width", expected="one pixel or more", found=str(width), do="Use boundary_width(shape).")
    return int(width)


def _slide(array: NDArray[Any], size: int, fold: _Fold) -> NDArray[Any]:
    """Reduce every full window of `size` pixels per axis, by doubling: log2(size) passes per axis instead of size."""
    for axis in range(array.ndim):
        span, lines = 1, np.moveaxis(array, axis, 0)
        while span < size:
            step = min(span, size - span)
            lines = fold(lines[:-step], lines[step:])
            span += step
        array = np.moveaxis(lines, 0, axis)
    return array


def _per_class(classes: NDArray[Any], num_classes: int) -> Counts:
    return np.bincount(classes, minlength=num_classes)[:num_classes].astype(np.int64)


def _places(mask: NDArray[Any], edge: Bools, tolerance: float) -> NDArray[np.float64]:
    """Return the coordinates of edge pixels, (N, ndim + 1); the last axis is the class, scaled so that no two are near."""
    return np.column_stack([np.argwhere(edge), mask[edge] * (2 * tolerance + 2)]).astype(np.float64)


def _near(places: NDArray[np.float64], others: NDArray[np.float64], tolerance: float) -> Bools:
    if not (len(places) and len(others)):
        return np.zeros(len(places), np.bool_)
    # A balanced tree is slow to build for points on a lattice. The upper bound is exclusive, hence "+ 1".
    tree = KDTree(others, balanced_tree=False, compact_nodes=False)
    distance, _ = tree.query(places, distance_upper_bound=tolerance + 1)
    return np.asarray(distance <= tolerance)
