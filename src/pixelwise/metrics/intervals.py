"""95 % confidence intervals over images, with measured coverage.

Images are the units, not pixels: errors of neighbouring pixels are correlated, and an interval over pixels would be far too
narrow. For the same reason, groups of images (the slices of a patient, the frames of a video) are one unit.

A score is a function of sums over units. Its standard error comes from the deviations d of the score when one unit is left out
(the jackknife: Efron & Stein 1981, doi:10.1214/aos/1176345462). What makes intervals of few images too narrow is corrected:

- A class may be concentrated in a few units. With w, the share of a unit in the score's denominator, the effective number of
  units is m = 1 / Σw² (Kish 1965), and the variance is the unbiased Σ(1 - w)·d² (HC2: MacKinnon & White 1985) times 1 + 1/m.
- The variance of a class with few effective units is itself uncertain. Relative to that of a share, p·(1 - p)/m, it is shrunk
  towards the mean of all classes as if that were known from one unit (empirical Bayes: Efron & Morris 1973).
- Student's t has at most m degrees of freedom, and fewer if a few units hold most of the deviations: those of a variance with the
  kurtosis of the deviations (Satterthwaite 1946), times 3/4, since a sample underestimates its kurtosis. The factor was chosen on
  the populations of the study below.
- Shares are asymmetric near 0 and 1, so the bounds are computed on the logit scale, those of distances on the log scale.
  A share of exactly 0 or 1 has the exact bound of m independent units (Clopper & Pearson 1934).
- A mean over classes takes its bounds from those of the classes and the correlations of their deviations (MOVER: Zou & Donner 2008,
  doi:10.1002/sim.3095); they are at least as wide as for independent classes.

`benchmarks/intervals.py` measures the coverage, also of other methods.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit, logit, stdtrit

from pixelwise.types import Score

Floats = NDArray[np.float64]
Scale = Literal["share", "distance", "difference"]
LEVEL = 0.95
METHOD = "jackknife-logit-t"
# Fewer units, or fewer units with a class, have no interval: its coverage was measured to be too low.
FEWEST_UNITS, FEWEST_WITH_CLASS = 10, 5
_PRIOR_UNITS = 1.0
_KURTOSIS = 0.75
_ROUNDING = 1e-12
# A share of 0 or 1 is treated as if this part of a further unit were different.
_EDGE = 0.02
_PIECE = 256


@dataclass(frozen=True)
class Statistic:
    """S scores as a function of M sums over units.

    Args:
        values: maps totals (R, M) to scores (R, S), NaN if undefined. The second argument, reference totals (1, M) or (R, M),
            defines which classes a mean is over: a class that is missing from the totals has its reference score in means.
        names: of the scores (S,); scores of equal names, one per class, form a family, over which variances are pooled.
        weights: maps sums of units (N, M) to what each contributes to the denominator of each score (N, S), 0 where the score is
            undefined for the unit alone; None, or a result of None: 1 where it is defined.
        means: maps the totals (M,) to the positions of the scores that a mean is over, by the position of the mean.
        scales: by name; "share" (0…1) if not given.
    """

    values: Callable[[Floats, Floats], Floats]
    names: Sequence[str]
    weights: Callable[[Floats], Floats | None] | None = None
    means: Callable[[Floats], Mapping[int, Sequence[int]]] | None = None
    scales: Mapping[str, Scale] | None = None

    def unit_weights(self, sums: NDArray[Any]) -> Floats:
        """Return the weights (N, S) of units."""
        pieces = []
        for start in range(0, len(sums), _PIECE):
            piece = np.asarray(sums[start : start + _PIECE], np.float64)
            weights = None if self.weights is None else self.weights(piece)
            defined = ~np.isnan(self.values(piece, piece)) if weights is None else weights
            pieces.append(defined.astype(np.float64))
        return np.concatenate(pieces)


@dataclass(frozen=True)
class Spread:
    """How uncertain S scores are.

    Args:
        values: the scores (S,); NaN if undefined.
        errors: standard errors (S,) on the scale of the score; NaN for means.
        freedom: degrees of freedom (S,).
        effective: effective number of units (S,).
        present: number of units (S,) in which the score is defined.
        scales: of the scores.
        means: positions of the parts of each mean, and the correlations of their deviations, by the position of the mean.
        units: number of units that count in any score.
        deviations: of the scores (N, S) when one unit is left out.
        extra: standard errors (S,) of an independent source, such as the seeds of training, on the scale of the score, and their
            degrees of freedom (S,); None if there is none.
    """

    values: Floats
    errors: Floats
    freedom: Floats
    effective: Floats
    present: NDArray[np.int64]
    scales: Sequence[Scale]
    means: Mapping[int, tuple[NDArray[np.int64], Floats]]
    units: int
    deviations: Floats
    extra: tuple[Floats, Floats] | None = None

    def bounds(self, level: float | Floats = LEVEL) -> tuple[Floats, Floats]:
        """Return the lower and upper bounds (S,), NaN for undefined scores; `level` may be one per score (S,)."""
        levels = np.broadcast_to(np.asarray(level, np.float64), self.values.shape)
        low, high = self._alone(levels)
        for mean, (parts, correlations) in self.means.items():
            part_low, part_high = self._alone(np.full_like(levels, levels[mean]))
            low[mean] = self.values[mean] - _combined(self.values[parts] - part_low[parts], correlations)
            high[mean] = self.values[mean] + _combined(part_high[parts] - self.values[parts], correlations)
        if self.extra is not None:
            further = stdtrit(self.extra[1], (1 + levels) / 2) * self.extra[0]
            low = self.values - np.hypot(self.values - low, further)
            high = self.values + np.hypot(high - self.values, further)
        least, most = np.array([_ENDS[scale] for scale in self.scales]).reshape(-1, 2).T
        return np.maximum(low, least), np.minimum(high, most)

    def _alone(self, levels: Floats) -> tuple[Floats, Floats]:
        """Return the bounds (S,) of every score from its own standard error."""
        reach = stdtrit(self.freedom, (1 + levels) / 2) * self.errors
        low, high = np.full_like(reach, np.nan), np.full_like(reach, np.nan)
        for scale, (forward, backward) in _TRANSFORMS.items():
            chosen = np.array([each == scale for each in self.scales], bool) & ~np.isnan(self.values)
            if scale == "distance":
                chosen &= self.values > 0  # no interval of a distance of 0
            middle = forward(_inside(self.values[chosen], self.effective[chosen], scale))
            low[chosen] = np.minimum(backward(middle - reach[chosen]), self.values[chosen])
            high[chosen] = np.maximum(backward(middle + reach[chosen]), self.values[chosen])
        share = np.array([each == "share" for each in self.scales], bool)
        rest = 1 - ((1 - levels) / 2) ** (1 / self.effective)
        high = np.where(share & (self.values == 0), np.maximum(high, rest), high)
        low = np.where(share & (self.values == 1), np.minimum(low, 1 - rest), low)
        return low, high

    def p_values(self) -> Floats:
        """Return two-sided p-values (S,): 1 minus the largest level whose interval excludes 0, at least 1e-15."""
        # Decimal logarithms; a level closer to 1 would round to 1, whose interval is infinite.
        smallest, largest = np.full_like(self.values, -15.0), np.zeros_like(self.values)
        for _ in range(30):
            middle = (smallest + largest) / 2
            excluded = self._excluded(1 - 10**middle)
            largest, smallest = np.where(excluded, middle, largest), np.where(excluded, smallest, middle)
        return np.where(np.isnan(self.values), np.nan, np.where(self.values == 0, 1.0, 10**largest))

    def _excluded(self, levels: Floats) -> NDArray[np.bool_]:
        """Whether 0 is outside of the interval (S,), each of its own level."""
        low, high = self.bounds(levels)
        return (low > 0) | (high < 0)

    def withheld(self) -> NDArray[np.bool_]:
        """Return which scores (S,) have no interval, since too few units determine them."""
        alone = self.present < FEWEST_WITH_CLASS
        alone[list(self.means)] = False
        return alone | (self.units < FEWEST_UNITS)


_ENDS: dict[Scale, tuple[float, float]] = {"share": (0, 1), "distance": (0, np.inf), "difference": (-np.inf, np.inf)}
_TRANSFORMS: dict[Scale, tuple[Callable[[Floats], Floats], Callable[[Floats], Floats]]] = {
    "share": (logit, expit),
    "distance": (np.log, np.exp),
    "difference": (lambda x: x, lambda x: x),
}


def _combined(reach: Floats, correlations: Floats) -> float:
    """Return the reach of a mean from those of its parts; correlations do not make it smaller than for independent parts."""
    return float(np.sqrt(max(reach @ correlations @ reach, reach @ reach))) / max(len(reach), 1)


def _inside(values: Floats, effective: Floats, scale: Scale) -> Floats:
    """Move values off the ends of their scale, where the transform is infinite."""
    if scale == "share":
        edge = _EDGE / (effective + 1)
        return np.clip(values, edge, 1 - edge)
    return np.maximum(values, np.finfo(np.float64).tiny) if scale == "distance" else values


def estimate(units: NDArray[Any], statistic: Statistic) -> Spread:
    """Estimate how uncertain the scores of a data set are.

    Args:
        units: (N, M) sums per unit, N ≥ 1.
        statistic: the scores.
    """
    sums = np.asarray(units, np.float64)
    total = sums.sum(0, keepdims=True)
    values = statistic.values(total, total)[0]
    deviations = np.concatenate(
        [
            values - statistic.values(total - sums[start : start + _PIECE], total)
            for start in range(0, len(sums), _PIECE)
        ]
    )
    # The only unit with a class has all of its weight; and without errors of rounding, which would have a kurtosis.
    deviations[np.isnan(deviations) | (np.abs(deviations) <= _ROUNDING * np.abs(values))] = 0.0
    weights = statistic.unit_weights(sums)
    weights = weights / np.maximum(weights.sum(0), np.finfo(np.float64).tiny)
    effective = 1 / np.maximum((weights**2).sum(0), 1 / max(len(sums), 1))
    variance = ((1 - weights) * deviations**2).sum(0)
    names = statistic.names
    scales: list[Scale] = [(statistic.scales or {}).get(name, "share") for name in names]
    unit = np.array([_unit_variance(*each) for each in zip(values, effective, scales, strict=True)])
    shrunk = np.full(len(values), np.nan)
    for name in dict.fromkeys(names):
        family = np.flatnonzero([other == name for other in names] & ~np.isnan(values))
        shrunk[family] = _shrunk(variance[family] * effective[family] / unit[family], effective[family])
    with np.errstate(divide="ignore", invalid="ignore"):
        errors = np.sqrt(shrunk / effective * (1 + 1 / effective) * unit) / _slope(unit, scales)
    means = {} if statistic.means is None else statistic.means(total[0])
    correlations = {
        mean: _correlated(deviations, np.array([part for part in parts if not np.isnan(values[part])], np.int64))
        for mean, parts in means.items()
    }
    counted = int((weights > 0).any(1).sum())
    present = (weights > 0).sum(0).astype(np.int64)
    freedom = _freedom(deviations, effective)
    return Spread(values, errors, freedom, effective, present, scales, correlations, counted, deviations)


def _freedom(deviations: Floats, effective: Floats) -> Floats:
    """Return the degrees of freedom (S,) of the variances: 2 / (Σd⁴ / (Σd²)² - 1 / N) times 3/4, between 1 and `effective`."""
    squares = deviations**2
    total = np.maximum(squares.sum(0) ** 2, np.finfo(np.float64).tiny)
    excess = np.maximum((squares**2).sum(0) / total - 1 / len(deviations), np.finfo(np.float64).tiny)
    return np.clip(_KURTOSIS * 2 / excess, 1.0, np.maximum(effective, 1.0))


def _unit_variance(value: float, effective: float, scale: Scale) -> float:
    """Return the variance to which those of a family are relative: p·(1 - p) of a share, x² of a distance."""
    if np.isnan(value) or scale == "difference":
        return 1.0
    inside = float(_inside(np.array([value]), np.array([effective]), scale)[0])
    return inside * (1 - inside) if scale == "share" else max(inside**2, np.finfo(np.float64).tiny)


def _slope(unit: Floats, scales: Sequence[Scale]) -> Floats:
    """Return the factor between the standard error of a score and that of its transform (the delta method)."""
    return np.array(
        [{"share": u, "distance": np.sqrt(u), "difference": 1.0}[s] for u, s in zip(unit, scales, strict=True)]
    )


def _shrunk(relative: Floats, effective: Floats) -> Floats:
    """Shrink the relative variances of a family towards their mean."""
    freedom = np.maximum(effective - 1, 0)
    if not freedom.sum():
        return np.ones_like(relative)  # every class is in a single unit: as for shares of 0 and 1
    mean = (freedom * relative).sum() / freedom.sum()
    return (freedom * relative + _PRIOR_UNITS * mean) / (freedom + _PRIOR_UNITS)


def _correlated(deviations: Floats, parts: NDArray[np.int64]) -> tuple[NDArray[np.int64], Floats]:
    """Return the parts of a mean and the correlations of their deviations."""
    products = deviations[:, parts].T @ deviations[:, parts]
    sizes = np.sqrt(np.diag(products))
    sizes[sizes == 0] = 1.0
    correlations = products / np.outer(sizes, sizes)
    np.fill_diagonal(correlations, 1.0)
    return parts, correlations


def narrowness(deviations: Floats, sequences: Sequence[Sequence[int]]) -> float:
    """Return how many times too narrow an interval over images is if neighbouring images are alike.

    That is the square root of 1 + 2 Σ r, with r the correlations of deviations at lags 1, 2, … until they fall below 0.05
    (Bartlett 1946; Geyer 1992). 1 if the first is not larger than chance would give in one of a hundred orders.

    Args:
        deviations: (N,) of a score when one image is left out.
        sequences: positions of the images of each sequence, in order.
    """
    centred = deviations - deviations.mean()
    total, count = float(centred @ centred), sum(map(len, sequences))
    longest = max(map(len, sequences), default=0)
    ordered = [centred[list(sequence)] for sequence in sequences]
    factor = 1.0
    for lag in range(1, longest // 4):
        r = sum(float(each[lag:] @ each[:-lag]) for each in ordered if len(each) > lag) / total if total else 0.0
        if r < 0.05 or (lag == 1 and r < 2.6 / np.sqrt(count)):
            break
        factor += 2 * r
    return float(np.sqrt(factor))


def score_sums(
    sums: NDArray[Any], statistic: Statistic, groups: Sequence[Hashable], *, intervals: bool = True
) -> list[Score]:
    """Score a data set from sums per image: values, 95 % intervals, and n.

    Args:
        sums: (N, M) numbers per image.
        statistic: the scores.
        groups: one per image; images of one group are one unit, None for an image without a group.
        intervals: whether to compute intervals.

    Returns:
        S scores; n is the number of images for which a score is defined on its own. Without an interval if too few units
        determine the score.
    """
    reference = np.asarray(sums, np.float64).sum(0, keepdims=True)
    values = statistic.values(reference, reference)[0]
    low, high = np.full_like(values, np.nan), np.full_like(values, np.nan)
    units, _ = by_group(sums, groups)
    if intervals and len(units) >= FEWEST_UNITS:
        spread = estimate(units, statistic)
        low, high = (np.where(spread.withheld(), np.nan, bound) for bound in spread.bounds())
    n = (statistic.unit_weights(sums) > 0).sum(0)
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
