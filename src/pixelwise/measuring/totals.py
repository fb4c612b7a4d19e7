"""Totals over many images of which some are labelled, with confidence intervals.

The sum of the predicted sizes has the bias of the model. Images that are labelled and predicted show it: with sizes y in the ground
truth and x in the prediction, the difference estimator of the total over N images, of which a random n are labelled, is

    Σ x + N · mean(y - x)         (Cochran 1977, ch. 7.7; Särndal, Swensson & Wretman 1992, ch. 6.3)

which is unbiased whatever the model does. The regression estimator fits the slope of y on x instead of the slope 1. Both have the
finite-population correction 1 - n/N. Groups of labelled images (patient, scene, sequence) are clusters: their summed residuals are
the units of the variance.

Sizes are skewed and many images lack a class, so few differences may hold most of the variance. As in `metrics.intervals`, with m, the
effective number of squared residuals (Σu²)² / Σu⁴, the variance is multiplied by 1 + 1/m, and Student's t has 2 · 3/4 / (1/m - 1/n)
degrees of freedom, at most n - 1. Of t with n - 1, the percentile and the studentised bootstrap, all covered less in
simulated surveys of skewed sizes and rare classes (docs/decisions/0021). So did a choice of the estimator by the data.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtrit

from pixelwise.measuring.conformal import unit_numbers

Estimator = Literal["difference", "regression"]
LEVEL = 0.95
# Fewer labelled images or groups, or fewer of them with a class, have no interval.
FEWEST_UNITS, FEWEST_WITH_CLASS = 10, 5
# With the class in fewer labelled units, few or none of the images in which it is missed may be among them. The lowest coverage of
# simulated surveys is stated then.
_RARE, _COVERED_IF_RARE = 100, 88
_KURTOSIS = 0.75
_SMALLEST = 1e-12
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Total:
    """The total size of one class over all images.

    Args:
        value: the estimate.
        low, high: confidence interval; None if too few labelled images determine it.
        naive: the sum of the predicted sizes.
        estimator: "difference" or "regression".
        images: number of labelled images; `units`: of groups of them, or of images without groups.
        present: number of these units in which the class is labelled or predicted.
        population: number of images.
        note: what the interval covers, or why there is none.
    """

    value: float
    low: float | None
    high: float | None
    naive: float
    estimator: Estimator
    images: int
    units: int
    present: int
    population: int
    note: str

    @property
    def naive_bias(self) -> float | None:
        """The error of the sum of the predictions, as a share of the estimate; None if that is 0."""
        return (self.naive - self.value) / self.value if self.value else None


def estimate_totals(
    predicted: Floats,
    truth: Floats,
    labelled: Sequence[int] | NDArray[np.int64],
    groups: Sequence[str | None] | None = None,
    *,
    estimator: Estimator = "difference",
    level: float = LEVEL,
) -> tuple[Total, ...]:
    """Estimate the total size of each class over all images.

    Args:
        predicted: (N, K) predicted sizes in all images, in any unit.
        truth: (n, K) true sizes in the labelled images.
        labelled: (n,) their positions among all images.
        groups: (n,) what each labelled image belongs to; None for an image on its own.
        estimator: "difference", or "regression" for a model whose sizes are wrong by a factor, with 20 or more labelled units.
        level: of the confidence interval, 0…1.

    Returns:
        K totals. The interval assumes that each image was equally likely to be labelled: images at random, or whole groups.
    """
    predicted, truth = np.asarray(predicted, np.float64), np.asarray(truth, np.float64)
    known = predicted[np.asarray(labelled, np.int64)]
    units = unit_numbers(groups or (None,) * len(known))
    return tuple(
        _total(predicted[:, k], known[:, k], truth[:, k], units, estimator, level) for k in range(predicted.shape[1])
    )


def _total(
    everywhere: Floats, x: Floats, y: Floats, units: NDArray[np.int64], estimator: Estimator, level: float
) -> Total:
    """Estimate the total of one class from predictions (N,), and predictions and truth (n,) of the labelled images."""
    population, n = len(everywhere), len(x)
    if estimator == "regression" and len(np.unique(units)) >= 2 * FEWEST_UNITS and np.ptp(x) > 0:
        total, residuals = _regression(everywhere, x, y)
    else:
        estimator = "difference"
        total, residuals = everywhere.sum() + population * (y - x).mean(), (y - x - (y - x).mean()) / n
    sums = np.bincount(units, residuals).astype(np.float64)
    count = len(sums)
    present = len(np.unique(units[(x > 0) | (y > 0)]))
    total = max(float(total), float(y.sum()))  # which is there for certain
    low: float | None = None
    high: float | None = None
    if n == population:
        low = high = total
    elif count >= FEWEST_UNITS and present >= FEWEST_WITH_CLASS:
        freedom = count - (1 if estimator == "difference" else 2)
        reach = population * np.sqrt(1 - n / population) * _reach(sums, freedom, level)
        low, high = max(total - float(reach), float(y.sum())), total + float(reach)
    note = _note(n, population, count, present, level)
    return Total(total, low, high, float(everywhere.sum()), estimator, n, count, present, population, note)


def _regression(everywhere: Floats, x: Floats, y: Floats) -> tuple[float, Floats]:
    """Return the regression estimate, and the residuals (n,) times their weights, enlarged by leverage (HC3)."""
    n, centred = len(x), x - x.mean()
    square = centred @ centred
    slope = centred @ y / square
    residuals = y - y.mean() - slope * centred
    weights = 1 / n + (everywhere.mean() - x.mean()) * centred / square
    leverage = np.minimum(1 / n + centred**2 / square, 1 - 1 / n)
    return len(everywhere) * float(weights @ y), weights * residuals / (1 - leverage)


def _reach(sums: Floats, freedom: int, level: float) -> float:
    """Return half the width of the interval of a mean, from the weighted residuals of its units, (g,)."""
    squares = sums**2
    total = squares.sum()
    if total == 0:
        return 0.0
    effective = total**2 / (squares**2).sum()
    excess = max(1 / effective - 1 / len(sums), _SMALLEST)
    variance = total * len(sums) / (len(sums) - 1) * (1 + 1 / effective)
    return float(stdtrit(min(max(2 * _KURTOSIS / excess, 1.0), freedom), (1 + level) / 2) * np.sqrt(variance))


def _note(images: int, population: int, units: int, present: int, level: float) -> str:
    """Return the sentence on what an interval covers, or why there is none."""
    what = "images" if units == images else "groups of images"
    if images == population:
        return "all images are labelled"
    if units < FEWEST_UNITS:
        return f"no interval: {units} labelled {what}, and {FEWEST_UNITS} are needed"
    if present < FEWEST_WITH_CLASS:
        return f"no interval: the class is in {present} of {units} labelled {what}, and {FEWEST_WITH_CLASS} are needed"
    text = (
        f"{100 * level:g} % confidence interval, if the {images} labelled of {population} images"
        f"{'' if what == 'images' else f', in {units} groups,'} were drawn at random"
    )
    if present < _RARE:
        text += (
            f"; the class is in {present} of them, and if the model misses one of ten such images, {_COVERED_IF_RARE} % of these intervals "
            "hold the total"
        )
    return text
