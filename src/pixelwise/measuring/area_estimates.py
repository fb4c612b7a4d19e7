"""Areas of classes on a map, and its accuracy, from a stratified random sample of points with reference answers.

The pixel count of a map has the bias of the model. A sample of points, each answered by a person, gives areas without that bias: with
strata h of known area W_h (shares of the map) and the share p_h of the answers in each,

    P = Σ W_h p_h,    V(P) = Σ W_h² p_h (1 - p_h) / (n_h - 1)        (Cochran 1977, ch. 5; Olofsson et al. 2014, doi:10.1016/j.rse.2014.02.015)

Strata are parts of one map class each, so that the cells of the error matrix are sums over strata, too (Stehman 2014,
doi:10.1080/01431161.2014.930207). In a stratum every pixel was equally likely to be drawn; where pixels differ in area, p_h is the ratio of the
areas of the points, and n_h their effective number (Σa)² / Σa².

The interval of "stratified" is that of Wilson (1927), extended to strata: all P for which |P̂ - P| ≤ z √V, where V is computed not from the
estimated p_h, but from the most likely p_h with Σ W_h p_h = P. With one stratum it is Wilson's interval. In simulated surveys it covered
94 % and more at prevalences of 3 % and 20 %; with the variance of the estimated shares it would have been 81 % and more, with map classes as strata
61 % and more (docs/decisions/0023). Producer's accuracy is the ratio of two independent areas, and has the interval of Donner & Zou (2012,
doi:10.1177/0962280210383082) from theirs. The intervals of "olofsson" are ± z standard errors, as published.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri

from pixelwise.measuring.sampling import Stratum

Estimator = Literal["stratified", "olofsson"]
Floats = NDArray[np.float64]
LEVEL = 0.95
# Strata with fewer answers have no variance, and are joined with a neighbour.
FEWEST_ANSWERS = 2
# Number of points of a stratum of which every pixel was answered.
_ALL = 1e15
_STEPS = 60
_MULTIPLIERS = (-20.0, 50.0)


@dataclass(frozen=True)
class Estimate:
    """A share, 0…1, with its standard error and confidence interval."""

    value: float
    error: float
    low: float
    high: float


@dataclass(frozen=True, eq=False)
class AreaEstimates:
    """What a sample tells about K classes on a map.

    Args:
        shares: of each class in the area of the map, from the answers.
        mapped: (K,) share of each class on the map, by its pixels.
        users: user's accuracy of each class, the share of its area on the map that is right; None for classes that are not on the map.
        producers: producer's accuracy, the share of its true area that is mapped as such; None if no answer names the class.
        overall: share of the map that is right.
        matrix: (K, K) estimated shares of the area, rows map, columns answers.
        counts: (K, K) int64, points.
        joined: numbers of the strata that were joined with a neighbour, for lack of answers.
    """

    shares: tuple[Estimate, ...]
    mapped: Floats
    users: tuple[Estimate | None, ...]
    producers: tuple[Estimate | None, ...]
    overall: Estimate
    matrix: Floats
    counts: NDArray[np.int64]
    joined: tuple[int, ...]


@dataclass(frozen=True, eq=False)
class _Cells:
    """Strata with their answers.

    Args:
        area: (G,) share of the map.
        class_index: (G,) on the map.
        shares: (G, K) of the answers in the area of each.
        points: (G,) effective number of points.
    """

    area: Floats
    class_index: NDArray[np.int64]
    shares: Floats
    points: Floats


class TooFewAnswersError(ValueError):
    """A map class has fewer than two answers.

    Args:
        class_index: class index.
        found: number of its answers.
    """

    def __init__(self, class_index: int, found: int) -> None:
        super().__init__(f"class {class_index} has {found} answers, and {FEWEST_ANSWERS} are needed")
        self.class_index, self.found = class_index, found


def estimate_areas(
    strata: Sequence[Stratum],
    stratum: NDArray[np.int64],
    answers: NDArray[np.int64],
    num_classes: int,
    *,
    sizes: Floats | None = None,
    estimator: Estimator = "stratified",
    level: float = LEVEL,
) -> AreaEstimates:
    """Estimate the share of each class in the area of a map, and the accuracy of the map.

    Args:
        strata: all strata of the map.
        stratum: (n,) number of the stratum of each answered point, from 0 on.
        answers: (n,) class index that a person saw there.
        num_classes: K.
        sizes: (n,) area of the pixel of each point; None if all pixels have the same.
        estimator: "stratified", or "olofsson" for intervals of ± z standard errors, without a finite-population correction.
        level: of the confidence intervals, 0…1.

    Raises:
        TooFewAnswersError: a map class has fewer than 2 answers.
    """
    sizes = np.ones(len(answers)) if sizes is None else np.asarray(sizes, np.float64)
    cell_of, joined = _join(strata, stratum)
    cells = _cells(strata, cell_of, stratum, answers, sizes, num_classes, finite=estimator == "stratified")
    interval = _Interval(estimator, float(ndtri((1 + level) / 2)))
    classes = range(num_classes)
    own = cells.class_index
    right = cells.shares[np.arange(len(own)), own]
    matrix = np.zeros((num_classes, num_classes))
    np.add.at(matrix, own, cells.area[:, None] * cells.shares)
    counts = np.zeros((num_classes, num_classes), np.int64)
    np.add.at(counts, (np.array([each.class_index for each in strata])[stratum], answers), 1)
    return AreaEstimates(
        shares=tuple(interval.of_sum(cells.area, cells.shares[:, k], cells.points) for k in classes),
        mapped=np.bincount(own, cells.area, num_classes).astype(np.float64),
        users=tuple(interval.of_users(cells, k) for k in classes),
        producers=tuple(interval.of_producers(cells, k) for k in classes),
        overall=interval.of_sum(cells.area, right, cells.points),
        matrix=matrix,
        counts=counts,
        joined=joined,
    )


def _join(strata: Sequence[Stratum], stratum: NDArray[np.int64]) -> tuple[NDArray[np.int64], tuple[int, ...]]:
    """Return the cell of each stratum, so that each cell has enough answers, and the numbers of the joined strata.

    A stratum with too few is joined with the next more doubtful one of its class, or else with the next more certain one.
    """
    found = np.bincount(stratum, minlength=len(strata))
    cell_of = np.arange(len(strata))
    joined: list[int] = []
    for k in sorted({each.class_index for each in strata}):
        own = sorted((h for h, each in enumerate(strata) if each.class_index == k), key=lambda h: strata[h].low)
        if found[own].sum() < FEWEST_ANSWERS:
            raise TooFewAnswersError(k, int(found[own].sum()))
        cells: list[list[int]] = []
        for h in own:
            if cells and (found[h] < FEWEST_ANSWERS or found[cells[-1]].sum() < FEWEST_ANSWERS):
                cells[-1].append(h)
            else:
                cells.append([h])
        for cell in cells:
            cell_of[cell] = cell[0]
            joined += cell if len(cell) > 1 else []
    return cell_of, tuple(joined)


def _cells(
    strata: Sequence[Stratum],
    cell_of: NDArray[np.int64],
    stratum: NDArray[np.int64],
    answers: NDArray[np.int64],
    sizes: Floats,
    num_classes: int,
    *,
    finite: bool,
) -> _Cells:
    """Sum up the answers of each cell; `finite` counts the pixels that were not drawn only."""
    pixels, area = (np.array(values) for values in zip(*((s.pixels, s.area) for s in strata), strict=True))
    # Each answer represents the pixels of its stratum that have none.
    weights = sizes * (pixels / np.maximum(np.bincount(stratum, minlength=len(strata)), 1))[stratum]
    firsts = np.unique(cell_of)
    cell = np.searchsorted(firsts, cell_of)
    at, count = cell[stratum], len(firsts)
    sums = np.zeros((count, num_classes))
    np.add.at(sums, (at, answers), weights)
    total = sums.sum(1)
    points = total**2 / np.bincount(at, weights**2, count)
    if finite:
        open_share = 1 - np.bincount(at, minlength=count) / np.bincount(cell, pixels, count)
        points = np.minimum(points / np.maximum(open_share, 1 / _ALL), _ALL)
    areas = np.bincount(cell, area, count)
    return _Cells(areas / areas.sum(), np.array([strata[h].class_index for h in firsts]), sums / total[:, None], points)


@dataclass(frozen=True)
class _Interval:
    """How intervals are computed, with z standard errors."""

    estimator: Estimator
    z: float

    def of_sum(self, area: Floats, p: Floats, points: Floats) -> Estimate:
        """Return Σ W_h p_h from areas W (G,), shares p (G,), and numbers of points (G,)."""
        value, error = float(area @ p), math.sqrt(float(_variance(area, p, points)))
        if self.estimator == "olofsson":
            return self._symmetric(value, error)
        low, high = (float(limit) for limit in score_limits(area, p, points, self.z))
        return Estimate(value, error, min(low, value), max(high, value))

    def of_users(self, cells: _Cells, k: int) -> Estimate | None:
        """Return the user's accuracy of a class."""
        own = cells.class_index == k
        if not own.any():
            return None
        return self.of_sum(cells.area[own] / cells.area[own].sum(), cells.shares[own, k], cells.points[own])

    def of_producers(self, cells: _Cells, k: int) -> Estimate | None:
        """Return the producer's accuracy of a class: the ratio of what is mapped right to that and what is missed."""
        own, p = cells.class_index == k, cells.shares[:, k]
        total = float(cells.area @ p)
        if total == 0:
            return None
        right, missed = (self.of_sum(cells.area[part], p[part], cells.points[part]) for part in (own, ~own))
        value = right.value / total
        residual = np.where(own, 1 - value, value) * cells.area
        error = math.sqrt(float(_variance(residual, p, cells.points))) / total
        if self.estimator == "olofsson":
            return self._symmetric(value, error)
        return Estimate(value, error, *_share_limits(right, missed))

    def _symmetric(self, value: float, error: float) -> Estimate:
        return Estimate(value, error, max(value - self.z * error, 0.0), min(value + self.z * error, 1.0))


def score_limits(area: Floats, p: Floats, points: Floats, z: float) -> tuple[Floats, Floats]:
    """Return the limits of Σ W_h p_h, each (...), from areas W (G,), shares p (..., G), and numbers of points (G,).

    The limits are found by bisection for the multiplier of the constraint Σ W_h p_h = P.
    """
    value = p @ area
    limits = []
    for side in (1, -1):
        below, above = (np.full(value.shape, limit) for limit in _MULTIPLIERS)
        for _ in range(_STEPS):
            middle = (below + above) / 2
            moved = _most_likely(area, p, points, side * np.exp(middle))
            outside = np.abs(value - moved @ area) > z * np.sqrt(_variance(area, moved, points))
            below, above = np.where(outside, below, middle), np.where(outside, middle, above)
        limits.append(_most_likely(area, p, points, side * np.exp(above)) @ area)
    return limits[0], limits[1]


def _variance(area: Floats, p: Floats, points: Floats) -> Floats:
    """Return Σ W_h² p_h (1 - p_h) / (n_h - 1), (...), from shares p (..., G)."""
    return np.asarray((area**2 * p * (1 - p) / np.maximum(points - 1, 1 / _ALL)).sum(-1))


def _most_likely(area: Floats, p: Floats, points: Floats, multiplier: Floats) -> Floats:
    """Return the shares (..., G) that maximise the likelihood of binomial counts minus multiplier (...) times Σ W_h p_h.

    The derivative of x log p + (n - x) log(1 - p) - m W p is zero at a root of m W p² - (n + m W) p + x.
    """
    x, a = p * points, np.asarray(multiplier)[..., None] * area
    b = points + a
    root = np.sqrt(np.maximum(b * b - 4 * a * x, 0))
    # Of two equal expressions the one without cancellation.
    ahead = np.where(b >= 0, 2 * x, b - root)
    below = np.where(b >= 0, b + root, 2 * a)
    return np.clip(np.divide(ahead, below, out=np.zeros_like(ahead), where=below != 0), 0, 1)


def _share_limits(first: Estimate, second: Estimate) -> tuple[float, float]:
    """Return the limits of first / (first + second) of two independent estimates (MOVER; Donner & Zou 2012, eq. 4)."""
    if first.value < second.value:
        low, high = _share_limits(second, first)
        return 1 - high, 1 - low
    a, b = first.value, second.value  # the ratio b / a does not exceed 1
    product = a * b

    def ratio(of_b: float, of_a: float, side: int) -> float:
        below = of_a * (2 * a - of_a)
        root = math.sqrt(max(product**2 - of_b * (2 * b - of_b) * below, 0.0))
        return (product + side * root) / below if below > 0 else (math.inf if side > 0 else 0.0)

    most, least = ratio(second.high, first.low, 1), ratio(second.low, first.high, -1)
    return 1 / (1 + most), 1 / (1 + max(least, 0.0))


def plain(estimate: Estimate | None) -> dict[str, Any] | None:
    """Return the plain form of an estimate."""
    if estimate is None:
        return None
    return {"value": estimate.value, "error": estimate.error, "low": estimate.low, "high": estimate.high}
