"""How well the edges of classes are drawn: counts of bands and contours, and the ratios taken from them.

Comes in: truth and prediction as class indices (*S). Goes out: int64 counts per class that add up over images, boundary
IoU and the boundary F-score. Knows nothing of names, units, instances or models; distances here are in pixels.

Ignored pixels belong to no class and are no outside either: a class that ends at them has no edge there. The border of
the image is an edge for the bands of boundary IoU, as its authors have it, and none for the contours of the F-score.
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
    """Give the width of the band for an image of this size: a share of its diagonal, at least one pixel.

    Rounded to even at halves, as in the reference implementation of Cheng et al. 2021, arXiv:2103.16562.

    Args:
        shape: *S.
        share: of the diagonal; the authors take 0.02 for COCO and 0.005 for the larger images of Cityscapes.

    Raises:
        UsageError: a share that is no positive number.

    """
    if not (math.isfinite(share) and share > 0):
        raise UsageError(
            "share", expected="a positive share of the diagonal", found=str(share), do="The authors take 0.02."
        )
    return max(1, round(share * math.sqrt(sum(int(n) ** 2 for n in shape))))


def boundary_band(region: NDArray[Any], width: float) -> Bools:
    """Give the pixels of a region that lie within `width` pixels of its outside, (*S).

    The same as the region without what remains of it after `width` erosions by a full 3×3(×3) square, where all beyond
    the image is outside: Cheng et al. 2021, arXiv:2103.16562.

    Args:
        region: bool (*S).
        width: in pixels, counted as a king walks; fractions are cut off.

    Raises:
        UsageError: a width below one.
        MaskError: a region that is not bool.

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
    """Give the pixels that lie in the band of their own value, for all values of a mask at once, (*S).

    `class_bands(m, w) & (m == c)` is `boundary_band(m == c, w)` for every value c. With an ignore index, pixels of that
    value are in no band, and only known pixels of another value (or the image's border) make one.

    Args:
        mask: integers (*S): classes, or ids of segments.
        width: as in `boundary_band`.
        ignore_index: the value that is neither inside nor outside; None where every value counts.

    Raises:
        UsageError: a width below one.
        MaskError: a mask that is not of whole numbers.

    """
    if mask.dtype.kind not in "ui":
        raise MaskError("mask", expected="whole numbers", found=str(mask.dtype), do="Give class indices or ids.")
    steps = _steps(width)
    band = np.ones(mask.shape, np.bool_)
    low = high = mask
    if ignore_index is not None:
        void = mask == ignore_index
        band[void] = False
        # Void must neither lower the smallest value of a window nor raise the largest.
        limits = np.iinfo(mask.dtype)
        low, high = (np.where(void, np.asarray(end, mask.dtype), mask) for end in (limits.max, limits.min))
    if mask.size and min(mask.shape) > 2 * steps:
        core = tuple(slice(steps, n - steps) for n in mask.shape)
        # A window shows one value alone where its smallest is its largest: one pass does for every class.
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
    """Count the bands of every class in one image: in both, in the truth, in the prediction, (3, K).

    Sums over images give boundary IoU at the level of the data set. Every image has the width of its own size.

    Args:
        truth: integers (*S), class indices or the ignore index.
        prediction: integers (*S), class indices; anything where the truth is ignored.
        num_classes: K.
        ignore_index: true pixels with this value count in nothing and make no edge, whatever was predicted there.
        share: of the diagonal, see `boundary_width`.
        where: what messages call the image.

    Raises:
        MaskError: shapes that differ, or counted pixels outside 0…K-1.
        UsageError: an ignore index that is a class, or a share that is not positive.

    """
    true, predicted = known_classes(truth, prediction, num_classes, ignore_index, where)
    width = boundary_width(truth.shape, share)
    bands = [class_bands(mask, width, num_classes) for mask in (true, predicted)]
    both = bands[0] & bands[1] & (true == predicted)
    return np.stack([_per_class(m[b], num_classes) for m, b in ((true, both), (true, bands[0]), (predicted, bands[1]))])


def boundary_iou(counts: NDArray[Any]) -> Ratios:
    """Give boundary IoU per class, (…, K), from (…, 3, K): Cheng et al. 2021; NaN for a class that neither shows."""
    both, true, predicted = (counts[..., row, :] for row in range(3))
    return ratio(both, true + predicted - both)


def contours(mask: NDArray[Any], ignore_index: int | None = None) -> Bools:
    """Give the pixels with a face neighbour of another value, (*S): the inner boundary of every class at once.

    Ignored pixels are no contour and make none, nor does the border of the image.

    Args:
        mask: integers (*S).
        ignore_index: the value that makes no contour; None where every value counts.

    """
    edge = np.zeros(mask.shape, np.bool_)
    known = None if ignore_index is None else mask != ignore_index
    for axis in range(mask.ndim):
        # Each pixel and the next along the axis.
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
    """Count the contour pixels of every class in one image, and those that the other contour comes near, (4, K).

    Martin et al. 2004 and Csurka et al. 2013; a pixel is matched where the other's contour of the same class lies within
    the tolerance, as in DAVIS (Perazzi et al. 2016), not one to one. Contours are those of `contours`.

    Args:
        truth: integers (*S), class indices or the ignore index.
        prediction: integers (*S), class indices; anything where the truth is ignored.
        num_classes: K.
        ignore_index: true pixels with this value count in nothing and make no contour, whatever was predicted there.
        tolerance: Euclidean, in pixels; Csurka et al. take 0.0075 of the diagonal, DAVIS 0.008.
        where: what messages call the image.

    Returns:
        Rows: predicted pixels that match, all predicted, true pixels that match, all true. Rows add up over images.

    Raises:
        MaskError: shapes that differ, or counted pixels outside 0…K-1.
        UsageError: an ignore index that is a class, or a tolerance that is negative or not finite.

    """
    if not (math.isfinite(tolerance) and tolerance >= 0):
        raise UsageError("tolerance", expected="a distance in pixels", found=str(tolerance), do="Give zero or more.")
    true, predicted = known_classes(truth, prediction, num_classes, ignore_index, where)
    edges = [contours(mask, num_classes) for mask in (predicted, true)]
    classes = [mask[edge] for mask, edge in zip((predicted, true), edges, strict=True)]
    # Where both draw the same class there is nothing to look for.
    same = edges[0] & edges[1] & (true == predicted)
    places = [_places(mask, edge, tolerance) for mask, edge in zip((predicted, true), edges, strict=True)]
    matched = [same[edge] for edge in edges]
    for own, other in ((0, 1), (1, 0)):
        matched[own][~matched[own]] = _near(places[own][~matched[own]], places[other], tolerance)
    rows = [classes[0][matched[0]], classes[0], classes[1][matched[1]], classes[1]]
    return np.stack([_per_class(row, num_classes) for row in rows])


def contour_precision(counts: NDArray[Any]) -> Ratios:
    """Give the share of predicted contour that matches, (…, K), from (…, 4, K); NaN without a predicted contour."""
    return ratio(counts[..., 0, :], counts[..., 1, :])


def contour_recall(counts: NDArray[Any]) -> Ratios:
    """Give the share of true contour that was found, (…, K), from (…, 4, K); NaN without a true contour."""
    return ratio(counts[..., 2, :], counts[..., 3, :])


def boundary_f_score(counts: NDArray[Any]) -> Ratios:
    """Give the harmonic mean of contour precision and recall, (…, K), from (…, 4, K): Csurka et al. 2013.

    NaN for a class without any contour, 0 where only one of the two draws one.
    """
    both = np.nan_to_num(contour_precision(counts)), np.nan_to_num(contour_recall(counts))
    score = np.nan_to_num(ratio(2 * both[0] * both[1], both[0] + both[1]))
    return np.where(counts[..., 1, :] + counts[..., 3, :] > 0, score, np.nan)


def known_classes(
    truth: NDArray[Any], prediction: NDArray[Any], num_classes: int, ignore_index: int, where: object = "prediction"
) -> tuple[NDArray[Any], NDArray[Any]]:
    """Give copies of both masks in the smallest type, with K in both wherever the truth is ignored.

    Raises:
        MaskError: shapes that differ, or counted pixels outside 0…K-1.
        UsageError: an ignore index that is a class.

    """
    ConfusionMatrix(num_classes, ignore_index).update(truth, prediction, where)  # refuses what it cannot count
    void = truth == ignore_index
    kind = np.min_scalar_type(num_classes)
    both = truth.astype(kind), prediction.astype(kind)
    for mask in both:
        mask[void] = num_classes
    return both


def _steps(width: float) -> int:
    if not (math.isfinite(width) and width >= 1):
        raise UsageError("width", expected="one pixel or more", found=str(width), do="Take boundary_width(shape).")
    return int(width)


def _slide(array: NDArray[Any], size: int, fold: _Fold) -> NDArray[Any]:
    """Fold every full window of `size` pixels per axis, by doubling: log2(size) passes per axis, not size."""
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
    """Give the edge's pixels (N, ndim + 1); the class is an axis too, so far apart that no two classes come near."""
    return np.column_stack([np.argwhere(edge), mask[edge] * (2 * tolerance + 2)]).astype(np.float64)


def _near(places: NDArray[np.float64], others: NDArray[np.float64], tolerance: float) -> Bools:
    if not (len(places) and len(others)):
        return np.zeros(len(places), np.bool_)
    # Pixels lie on a lattice, on which a balanced tree is slow to build. The bound itself is not searched, hence "+ 1".
    tree = KDTree(others, balanced_tree=False, compact_nodes=False)
    distance, _ = tree.query(places, distance_upper_bound=tolerance + 1)
    return np.asarray(distance <= tolerance)
