"""Distances between surfaces: Hausdorff and average distance, surface Dice, in 2-D or 3-D and in the unit of the spacing.

The method is that of Nikolov et al. 2018, arXiv:1809.04430 (google-deepmind/surface-distance). A surface consists of elements
between 2×2(×2) pixel centres, one wherever these are not all inside or all outside. Each has the length or area of the line or
surface that separates its pixels, so that results depend less on the orientation of a surface than with counted pixels. Elements
form a layer of finite thickness: between oblique surfaces that are apart, mean distances are underestimated by up to half a
pixel's diagonal. Everything beyond the image is outside, so a region that is cut off there has a surface there.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import find_objects
from scipy.spatial import KDTree

from pixelwise.errors import MaskError, UsageError
from pixelwise.metrics.boundary import known_classes
from pixelwise.metrics.confusion import Ratios, ratio

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
_Point = tuple[float, ...]

SUMS = ("both", "hausdorff", "hausdorff_95", "average_distance", "surface_dice", "either", "missed", "invented")
"""The rows of `surface_sums`."""


@dataclass(frozen=True)
class SurfaceDistances:
    """The distance of every element of two surfaces to the other surface, and its size.

    Args:
        truth_distances: from the elements of the true surface to the predicted one, (N,), ascending; infinite if the
            prediction has no surface.
        truth_sizes: length (2-D) or area (3-D) of the same elements, (N,).
        prediction_distances: from the elements of the predicted surface to the true one, (M,), ascending.
        prediction_sizes: of the same elements, (M,).
    """

    truth_distances: Floats
    truth_sizes: Floats
    prediction_distances: Floats
    prediction_sizes: Floats


def surface_distances(truth: NDArray[Any], prediction: NDArray[Any], spacing: Sequence[float]) -> SurfaceDistances:
    """Compute the distances between the surfaces of two regions: Nikolov et al. 2018.

    Distances are exact, from the centre of an element to the nearest one of the other surface.

    Args:
        truth: bool (*S), two or three axes.
        prediction: bool (*S).
        spacing: distance between neighbouring pixel centres per axis, in array order, as `Grid.spacing`.

    Raises:
        MaskError: regions that are not bool, have other axes, or different shapes.
        UsageError: the spacing does not match the axes or is not positive.
    """
    steps = _checked(truth, prediction, spacing)
    either = truth | prediction
    if not either.any():
        return SurfaceDistances(*(np.zeros(0) for _ in range(4)))
    box = find_objects(either.view(np.uint8))[0]
    sizes = _element_sizes(tuple(steps.tolist()))
    codes = [_codes(region[box]) for region in (truth, prediction)]
    # Only the first and the last code, all outside and all inside, have no size.
    elements = [sizes[code] > 0 for code in codes]
    places = [np.argwhere(element) for element in elements]
    values = []
    for own, other in ((0, 1), (1, 0)):
        distance = np.zeros(len(places[own]))
        apart = ~elements[other][tuple(places[own].T)]
        distance[apart] = _nearest_distances(places[own][apart], places[other], steps)
        size = sizes[codes[own][tuple(places[own].T)]]
        order = np.lexsort((size, distance))
        values += [distance[order], size[order]]
    return SurfaceDistances(*values)


def hausdorff(distances: SurfaceDistances, percentile: float = 100) -> float:
    """Compute the Hausdorff distance or a robust variant: the larger of both directions' percentiles, weighted by size.

    The percentile is the smallest distance within which that share of a surface's size lies: Nikolov et al. 2018.

    Returns:
        A distance in the unit of the spacing; infinite if one region is empty, NaN if both are.

    Raises:
        UsageError: the percentile is not in 0…100.
    """
    if not 0 <= percentile <= 100:
        raise UsageError("percentile", expected="0 to 100", found=str(percentile), do="Use 95 for the usual HD95.")
    d = distances
    if not (d.truth_sizes.size and d.prediction_sizes.size):
        return _undefined_distance(d)
    ends = []
    for values, sizes in ((d.truth_distances, d.truth_sizes), (d.prediction_distances, d.prediction_sizes)):
        rank = np.searchsorted(np.cumsum(sizes) / sizes.sum(), percentile / 100)
        ends.append(float(values[min(int(rank), len(values) - 1)]))
    return max(ends)


def average_surface_distance(distances: SurfaceDistances) -> tuple[float, float]:
    """Compute the mean distance, weighted by size, from truth to prediction and from prediction to truth.

    Returns:
        Both directions in the unit of the spacing; infinite if one region is empty, NaN if both are.
    """
    d = distances
    if not (d.truth_sizes.size and d.prediction_sizes.size):
        return _undefined_distance(d), _undefined_distance(d)
    return (
        float(np.average(d.truth_distances, weights=d.truth_sizes)),
        float(np.average(d.prediction_distances, weights=d.prediction_sizes)),
    )


def symmetric_surface_distance(distances: SurfaceDistances) -> float:
    """Compute ASSD: the mean over the elements of both surfaces together, weighted by size.

    It differs from the mean of the two directions, because the larger surface has more weight.

    Returns:
        A distance in the unit of the spacing; infinite if one region is empty, NaN if both are.
    """
    d = distances
    if not (d.truth_sizes.size and d.prediction_sizes.size):
        return _undefined_distance(d)
    total = d.truth_distances @ d.truth_sizes + d.prediction_distances @ d.prediction_sizes
    return float(total / (d.truth_sizes.sum() + d.prediction_sizes.sum()))


def surface_overlap(distances: SurfaceDistances, tolerance: float) -> tuple[float, float]:
    """Compute the share of the true surface within the tolerance of the predicted one, and the reverse.

    Returns:
        Shares by size; 0 if only the other region is empty, NaN if the region itself is.

    Raises:
        UsageError: the tolerance is negative or not finite.
    """
    d = distances
    within = _within(d, tolerance)
    return _share(within[0], float(d.truth_sizes.sum())), _share(within[1], float(d.prediction_sizes.sum()))


def surface_dice(distances: SurfaceDistances, tolerance: float) -> float:
    """Compute the share of both surfaces together that is within the tolerance: NSD of Nikolov et al. 2018.

    Returns:
        A share by size; 0 if one region is empty, NaN if both are.

    Raises:
        UsageError: the tolerance is negative or not finite.
    """
    d = distances
    return _share(sum(_within(d, tolerance)), float(d.truth_sizes.sum() + d.prediction_sizes.sum()))


def surface_sums(
    truth: NDArray[Any],
    prediction: NDArray[Any],
    num_classes: int,
    ignore_index: int,
    spacing: Sequence[float],
    tolerance: float,
    where: object = "prediction",
) -> Floats:
    """Measure every class of one image as sums that add up over images, (8, K), rows as in `SUMS`.

    Distances are summed over images where truth and prediction contain the class, counted by `both`. A class in only one of them
    has no distance, and is counted by `missed` (only in the truth) or `invented` (only in the prediction). Surface Dice is summed
    over images where either contains the class, and is 0 if one does not.

    Ignored pixels belong to no region, neither true nor predicted. A region that ends at them has a surface there, which is the
    same in truth and prediction if the prediction is correct up to them.

    Args:
        truth: integers (*S), class indices or the ignore index.
        prediction: integers (*S), class indices; any value where the truth is ignored.
        num_classes: K.
        ignore_index: value of ignored pixels of the truth.
        spacing: as in `surface_distances`.
        tolerance: of surface Dice, in the unit of the spacing.
        where: name of the image in error messages.

    Raises:
        MaskError: different shapes, or counted pixels outside 0…K-1.
        UsageError: the ignore index is a class index, or an invalid spacing or tolerance.
    """
    masks = known_classes(truth, prediction, num_classes, ignore_index, where)
    _require_spacing(truth.ndim, spacing)
    _require_tolerance(tolerance)
    boxes = [find_objects(mask.astype(np.int32) + 1, max_label=num_classes) for mask in masks]
    sums = np.zeros((len(SUMS), num_classes))
    for value, (own, other) in enumerate(zip(*boxes, strict=True)):
        if own is None or other is None:
            missed, invented = own is not None, other is not None
            sums[5:, value] = missed or invented, missed, invented
            continue
        box = tuple(slice(min(a.start, b.start), max(a.stop, b.stop)) for a, b in zip(own, other, strict=True))
        d = surface_distances(masks[0][box] == value, masks[1][box] == value, spacing)
        far = hausdorff(d), hausdorff(d, 95), symmetric_surface_distance(d)
        sums[:, value] = 1, *far, surface_dice(d, tolerance), 1, 0, 0
    return sums


def mean_surface_scores(sums: NDArray[Any]) -> Ratios:
    """Compute the means over images of HD, HD95, ASSD and surface Dice per class, (…, 4, K), from (…, 8, K).

    NaN if no image defines them: distances need an image where both contain the class, surface Dice one where either does.
    """
    both, either = sums[..., :1, :], sums[..., 5:6, :]
    return np.concatenate([ratio(sums[..., 1:4, :], both), ratio(sums[..., 4:5, :], either)], axis=-2)


def _checked(truth: NDArray[Any], prediction: NDArray[Any], spacing: Sequence[float]) -> Floats:
    for name, region in (("truth", truth), ("prediction", prediction)):
        if region.dtype != np.bool_ or region.ndim not in (2, 3):
            raise MaskError(
                name,
                expected="a bool array with two or three axes",
                found=f"{region.dtype} with {region.ndim}",
                do="Compare the mask with one class.",
            )
    if truth.shape != prediction.shape:
        raise MaskError(
            "prediction",
            expected=f"the size of the truth, {truth.shape}",
            found=str(prediction.shape),
            do="Measure at native size: resize logits before deciding, never the truth.",
        )
    return _require_spacing(truth.ndim, spacing)


def _require_spacing(ndim: int, spacing: Sequence[float]) -> Floats:
    steps = np.asarray(spacing, np.float64)
    if steps.shape != (ndim,) or not (np.isfinite(steps) & (steps > 0)).all():
        raise UsageError(
            "spacing", expected=f"{ndim} positive distances", found=str(tuple(spacing)), do="Use Grid.spacing."
        )
    return steps


def _require_tolerance(tolerance: float) -> None:
    if not (math.isfinite(tolerance) and tolerance >= 0):
        raise UsageError("tolerance", expected="a distance", found=str(tolerance), do="Use zero or more.")


def _undefined_distance(d: SurfaceDistances) -> float:
    """Return infinity if one of the regions is empty, NaN if both are."""
    return math.inf if d.truth_sizes.size or d.prediction_sizes.size else math.nan


def _within(d: SurfaceDistances, tolerance: float) -> tuple[float, float]:
    _require_tolerance(tolerance)
    # Allow for rounding: three steps of 0.1 mm are 0.30000000000000004 mm, but within 0.3 mm.
    limit = tolerance * (1 + 1e-9)
    return (
        float(d.truth_sizes[d.truth_distances <= limit].sum()),
        float(d.prediction_sizes[d.prediction_distances <= limit].sum()),
    )


def _share(part: float, whole: float) -> float:
    return part / whole if whole > 0 else math.nan


def _nearest_distances(places: NDArray[np.intp], others: NDArray[np.intp], steps: Floats) -> Floats:
    """Return the distance from each lattice point to the nearest of the others."""
    if not len(others):
        return np.full(len(places), np.inf)
    # A balanced tree is slow to build on a lattice, where many points share a coordinate.
    tree = KDTree(others * steps, balanced_tree=False, compact_nodes=False)
    _, nearest = tree.query(places * steps)
    # Computed from integer offsets, so that equal offsets have equal distances everywhere.
    return np.sqrt((((places - others[nearest]) * steps) ** 2).sum(1))


def _codes(region: Bools) -> NDArray[np.uint8]:
    """Encode which pixels of each 2×2(×2) neighbourhood are inside, including neighbourhoods across the border."""
    codes = np.pad(region, 1).astype(np.uint8)
    for axis in reversed(range(region.ndim)):
        lines = np.moveaxis(codes, axis, 0)
        bits = 1 << (region.ndim - 1 - axis)
        codes = np.moveaxis(lines[:-1] | np.left_shift(lines[1:], bits, dtype=np.uint8), 0, axis)
    return codes


@lru_cache(maxsize=64)
def _element_sizes(spacing: tuple[float, ...]) -> Floats:
    """Return the length or area of each code, (2^2^ndim,), for a spacing."""
    codes, facets = _facets(len(spacing))
    sizes = np.bincount(codes, _sizes(facets * spacing), 1 << (1 << len(spacing)))
    return sizes.astype(np.float64, copy=False)


def _sizes(facets: Floats) -> Floats:
    """Return the length of segments (F, 2, 2) or the area of triangles (F, 3, 3)."""
    edges = facets[:, 1:] - facets[:, :1]
    if facets.shape[-1] == 2:
        return np.asarray(np.linalg.norm(edges[:, 0], axis=1), np.float64)
    return np.asarray(np.linalg.norm(np.cross(edges[:, 0], edges[:, 1]), axis=1) / 2, np.float64)


@cache
def _facets(ndim: int) -> tuple[NDArray[np.intp], Floats]:
    """Return the facets that separate the corners of the unit cube for every code: codes (F,), facet corners (F, ndim, ndim).

    Marching cubes (Lorensen & Cline 1987) computed by a rule instead of a table. The surface passes halfway between an inside and
    an outside corner. Corners of the smaller side that touch only diagonally are separated. If the points around a component are
    not in a plane, there are several triangulations; as in the published sizes, the largest on the unit cube is used.
    """
    corners = list(itertools.product((0, 1), repeat=ndim))
    codes, facets = [], []
    for code in range(1, (1 << len(corners)) - 1):
        inside = [corner for i, corner in enumerate(corners) if code >> i & 1]
        outside = [corner for i, corner in enumerate(corners) if not code >> i & 1]
        for part in _components(min(inside, outside, key=len)):
            middles = _middles(part, [corner for corner in corners if corner not in part])
            ways = [[middles]] if ndim == 2 else _triangulations(_ring(middles))
            # Ties have the same size for every spacing.
            best = max(ways, key=lambda way: _sizes(np.array(way)).sum())
            codes += [code] * len(best)
            facets += best
    return np.array(codes), np.array(facets, np.float64)


def _components(corners: list[tuple[int, ...]]) -> Iterator[list[tuple[int, ...]]]:
    """Yield the groups of corners that are connected by edges of the cube."""
    left = list(corners)
    while left:
        part = [left.pop(0)]
        for corner in part:  # grows during the iteration
            part += [other for other in left if math.dist(corner, other) == 1]
            left = [other for other in left if other not in part]
        yield part


def _middles(part: list[tuple[int, ...]], rest: list[tuple[int, ...]]) -> list[_Point]:
    """Return the midpoints of the edges between a group of corners and the rest."""
    return [
        tuple((a + b) / 2 for a, b in zip(own, other, strict=True))
        for own in part
        for other in rest
        if math.dist(own, other) == 1
    ]


def _ring(middles: list[_Point]) -> list[_Point]:
    """Order midpoints of edges so that each shares a face of the cube with the next."""
    left = middles[1:]
    ring = middles[:1]
    while left:
        ring.append(next(m for m in left if any(a == b != 0.5 for a, b in zip(m, ring[-1], strict=True))))
        left.remove(ring[-1])
    return ring


def _triangulations(ring: list[_Point]) -> Iterator[list[list[_Point]]]:
    """Yield all triangulations of a polygon."""
    if len(ring) < 3:
        yield []
    for k in range(1, len(ring) - 1):
        for left in _triangulations(ring[: k + 1]):
            for right in _triangulations(ring[k:]):
                yield [*left, [ring[0], ring[k], ring[-1]], *right]
