"""Scores of several runs on the same images, with intervals and p-values of their differences.

The interval of a difference is that of `metrics.intervals` for the difference of two scores. A p-value is at least that of two
tests by exchange: swapping the two models in random images, and dividing the runs of two recipes anew.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pixelwise.errors import DataError
from pixelwise.evaluation.score_counts import Recipe, RunCounts
from pixelwise.metrics.confusion import mean_defined, ratio
from pixelwise.metrics.intervals import (
    FEWEST_UNITS,
    FEWEST_WITH_CLASS,
    LEVEL,
    Floats,
    Scale,
    Spread,
    Statistic,
    by_group,
    estimate,
)
from pixelwise.metrics.scores import overlap_scores

MEANS = ("miou", "miou_present", "mean_dice", "pixel_accuracy")
# Limit on the permutations of runs between recipes; if there are more, a random sample is used.
_DIVISIONS = 10_000
# Random swaps of two models.
_SWAPS = 9_999
# Limit on the numbers processed at once.
_NUMBERS = 1 << 22


@dataclass(frozen=True)
class Judged:
    """The differences of `MEANS` and of the IoU of each class between two recipes, (S,) each; NaN where undefined.

    Args:
        values: the scores of A, of B, and B minus A, (S, 3).
        low, high: the 95 % interval.
        p: two-sided p-value.
        n: number of images behind each score.
        identical: whether all counts are the same.
        few: whether so few units differ that all could favour the same model by chance.
        p_of_runs: the permutation p-value of the mIoU; NaN for one run each.
    """

    values: Floats
    low: Floats
    high: Floats
    p: Floats
    n: list[int]
    identical: bool
    few: bool
    p_of_runs: float


class PairedScores:
    """The scores of all runs and recipes, and the intervals of recipes and of differences between them.

    The scores are `MEANS`, then the IoU and the Dice of each class; Dice only for the interval of its mean.
    """

    def __init__(self, runs: Sequence[RunCounts], recipes: Sequence[Recipe], seed: int) -> None:
        self.runs, self.recipes, self.seed = runs, recipes, seed
        self.classes = runs[0].classes
        # (images, runs, 3, classes)
        self.counts = np.stack([run.counts for run in runs], 1)
        flat = self.counts.reshape(len(self.counts), -1)
        if not flat.any():
            raise DataError(
                "compare", expected="at least one counted pixel", found="none", do="Compare on other images."
            )
        units, self.unit_kind = by_group(flat, runs[0].groups)
        self.units = units.reshape(-1, *self.counts.shape[1:])
        total = flat.sum(0, keepdims=True)
        # (runs, scores) and (recipes, scores)
        self.run_values = self._of_runs(total, total)[0]
        self.values = np.stack([mean_defined(self.run_values[self._members([g])].T) for g in range(len(recipes))])

    def _of_runs(self, totals: NDArray[Any], reference: NDArray[Any]) -> Floats:
        """Score totals (R, runs · 3 · K) as (R, runs, scores)."""
        k, count = len(self.classes), totals.shape[1] // (3 * len(self.classes))
        pieces = zip(np.split(totals, count, 1), np.split(reference, count, 1), strict=True)
        scores = [overlap_scores(piece, reference_piece) for piece, reference_piece in pieces]
        return np.stack([np.concatenate([s[:, : len(MEANS)], s[:, 5 : 5 + 2 * k]], 1) for s in scores], 1)

    def _spread(self, sides: Sequence[tuple[int, Sequence[int]]], scale: Scale) -> Spread:
        """Estimate the spread over units of a sum of recipes' scores.

        Args:
            sides: sign and recipe: one for a standing, two for a difference.
            scale: of the result.
        """
        members = [i for _, runs in sides for i in runs]
        units = self.units[:, members].reshape(len(self.units), -1)
        borders = np.cumsum([0, *(len(runs) for _, runs in sides)])

        def values(totals: Floats, reference: Floats) -> Floats:
            each = self._of_runs(totals, reference)
            blocks = zip(sides, borders, borders[1:], strict=False)
            return np.sum([sign * mean_defined(np.moveaxis(each[:, a:b], 1, -1)) for (sign, _), a, b in blocks], 0)

        k = len(self.classes)
        names = (*MEANS, *["iou"] * k, *["dice"] * k)
        spread = estimate(units, Statistic(values, names, self._weights, self._parts, dict.fromkeys(names, scale)))
        return replace(spread, extra=self._seeds(sides, spread))

    def _weights(self, units: Floats) -> Floats:
        """Return the denominators of the scores (U, S), averaged over the runs."""
        hits, truth, predicted = np.moveaxis(units.reshape(len(units), -1, 3, len(self.classes)), 2, 0)
        pixels = np.repeat(truth[:, 0].sum(1, keepdims=True), len(MEANS), 1)
        return np.concatenate([pixels, (truth + predicted - hits).mean(1), (truth + predicted).mean(1)], 1)

    def _parts(self, totals: Floats) -> Mapping[int, Sequence[int]]:
        """Return the class scores that each mean is over: those that are defined for any run."""
        _, truth, predicted = np.moveaxis(totals.reshape(-1, 3, len(self.classes)), 1, 0)
        defined, present = np.flatnonzero((truth + predicted).any(0)), np.flatnonzero(truth.any(0))
        iou, dice = len(MEANS), len(MEANS) + len(self.classes)
        return {0: (iou + defined).tolist(), 1: (iou + present).tolist(), 2: (dice + defined).tolist()}

    def _seeds(self, sides: Sequence[tuple[int, Sequence[int]]], spread: Spread) -> tuple[Floats, Floats] | None:
        """Return the standard errors of the runs' means (S,), and their degrees of freedom (Welch 1947); None for single runs."""
        several = [self.run_values[list(runs)] for _, runs in sides if len(runs) > 1]
        if not several:
            return None
        variances = np.stack([np.nan_to_num(runs.var(0, ddof=1)) / len(runs) for runs in several])
        freedom = np.array([[len(runs) - 1.0] for runs in several])
        total = variances.sum(0)
        squares = np.maximum((variances**2 / freedom).sum(0), np.finfo(np.float64).tiny)
        return np.sqrt(total), np.clip(total**2 / squares, freedom.min(), freedom.sum())

    def interval(self, g: int) -> tuple[Floats, Floats, list[int]]:
        """Return the bounds (S,) of the scores of one recipe, NaN where too few units determine them, and n."""
        n = [len(self.counts)] * len(MEANS) + self.shows(self.counts, [g]).sum(0).tolist()
        low, high = np.full_like(self.values[g], np.nan), np.full_like(self.values[g], np.nan)
        if len(self.units) >= FEWEST_UNITS:
            spread = self._spread([(1, self._members([g]))], "share")
            low, high = (np.where(spread.withheld(), np.nan, bound) for bound in spread.bounds())
        return low, high, n

    def judge(self, a: int, b: int) -> Judged:
        """Compare two recipes."""
        differing = self._differing([a, b])
        coins = np.concatenate([[differing.any(1).sum()] * len(MEANS), differing.sum(0)])
        low, high, p = self._difference(a, b)
        p_of_runs = self._permutation_p(a, b)[: len(coins)]
        p_of_swaps = self._swap_p(a, b)[: len(coins)]
        p = np.where(np.isnan(p), p, np.fmax(np.fmax(np.maximum(p, _same_side_p(coins)), p_of_swaps), p_of_runs))
        n = [len(self.counts)] * len(MEANS) + self.shows(self.counts, [a, b]).sum(0).tolist()
        values_a, values_b = self.values[a, : len(coins)], self.values[b, : len(coins)]
        values = np.stack([values_a, values_b, values_b - values_a], 1)
        few = bool(_same_side_p(coins[:1])[0] > 1 - LEVEL)
        return Judged(values, low, high, p, n, not differing.any(), few, float(p_of_runs[0]))

    def _difference(self, a: int, b: int) -> tuple[Floats, Floats, Floats]:
        """Return bounds and p-values of the difference of `MEANS` and the IoU of each class; NaN where too few units tell."""
        count = len(MEANS) + len(self.classes)
        if len(self.units) < FEWEST_UNITS:
            undefined = np.full(count, np.nan)
            return undefined, undefined.copy(), undefined.copy()
        spread = self._spread([(-1, self._members([a])), (1, self._members([b]))], "difference")
        withheld = spread.withheld()[:count]
        withheld[len(MEANS) :] |= self.shows(self.units, [a, b]).sum(0) < FEWEST_WITH_CLASS
        # A difference of two shares is between -1 and 1.
        found = (*np.clip(spread.bounds(), -1.0, 1.0), spread.p_values())
        low, high, p = (np.where(withheld, np.nan, values[:count]) for values in found)
        return low, high, p

    def _permutation_p(self, a: int, b: int) -> Floats:
        """Return two-sided p-values (S,) of permuting the runs between the recipes; NaN for one run each.

        If the recipes were equally good, each division of their runs would be equally likely: Fisher 1935, The Design of
        Experiments, ch. 3. No value is below 2 / C(runs, runs of A),
        the probability that all runs of one recipe are better than all of the other.
        """
        both, smaller = self._members([a, b]), min((self._members([g]) for g in (a, b)), key=len)
        if len(both) == 2:
            return np.full(self.values.shape[1], np.nan)
        divisions = _divisions(len(both), [both.index(i) for i in smaller], self.seed)
        values, observed = self.run_values[both], np.abs(self.values[b] - self.values[a])
        blocks = _blocks(len(divisions), len(observed))
        share = np.concatenate([_share_as_far(values[:, s], observed[s], divisions) for s in blocks])
        lowest = separation_p(len(smaller), len(both) - len(smaller))
        return np.where(np.isnan(observed), np.nan, np.maximum(share, lowest))

    def _swap_p(self, a: int, b: int) -> Floats:
        """Return two-sided p-values (S,) of swapping the two models in random units; NaN for recipes of several runs.

        If the models were equally good, each swap would be equally likely (Fisher 1935). As a lower bound of p, this keeps one or
        two units from deciding a mean whose other classes do not differ.
        """
        members = self._members([a]) + self._members([b])
        if len(members) > 2:
            return np.full(self.values.shape[1], np.nan)
        flat = self.units[:, members].reshape(len(self.units), 2, -1).astype(np.float64)
        # In an order that depends neither on that of the images nor on which model is A.
        flat = flat[np.lexsort(np.concatenate([flat.sum(1), np.abs(flat[:, 1] - flat[:, 0])], 1).T)]
        first, second = flat.sum(0)
        change = flat[:, 1] - flat[:, 0]
        total, observed = np.concatenate([first, second])[None], np.abs(self.values[b] - self.values[a])
        generator, extreme = np.random.default_rng([self.seed, 3]), np.zeros(len(observed), np.int64)
        rows = max(1, _NUMBERS // max(len(flat), total.shape[1]))
        for start in range(0, _SWAPS, rows):
            moved = generator.integers(0, 2, (min(rows, _SWAPS - start), len(flat))) @ change
            values = self._of_runs(np.concatenate([first + moved, second - moved], 1), total)
            extreme += (~(np.abs(values[:, 1] - values[:, 0]) < observed - 1e-12)).sum(0)
        return np.where(np.isnan(observed), np.nan, (extreme + 1) / (_SWAPS + 1))

    def _members(self, recipes: Sequence[int]) -> list[int]:
        """Return the positions of their runs, sorted by name, so that the order of the arguments does not matter."""
        return sorted((i for g in recipes for i in self.recipes[g].members), key=lambda i: self.runs[i].name)

    def shows(self, counts: NDArray[np.int64], recipes: Sequence[int]) -> NDArray[np.bool_]:
        """Whether each image or unit (N, K) has a class in its ground truth or in a prediction."""
        return np.asarray(counts[:, self._members(recipes)].any((1, 2)))

    def _differing(self, recipes: Sequence[int]) -> NDArray[np.bool_]:
        """Whether in each unit (U, K) the counts of a class differ between runs."""
        members = self.units[:, self._members(recipes)]
        return np.asarray((members != members[:, :1]).any((1, 2)))


def _blocks(rows: int, columns: int) -> Iterator[slice]:
    """Split columns into blocks, so that rows times columns stays bounded."""
    width = max(1, _NUMBERS // rows)
    for start in range(0, columns, width):
        yield slice(start, start + width)


def _divisions(count: int, observed: Sequence[int], seed: int) -> Floats:
    """Return ways (L, runs) to divide runs into two sides, 1 for one side: all of them, or a random sample with the observed one.

    The observed division is part of the sample: Phipson & Smyth 2010, Permutation p-values should never be zero.
    """
    if math.comb(count, len(observed)) <= _DIVISIONS:
        places = np.array(list(combinations(range(count), len(observed))))
    else:
        drawn = np.random.default_rng([seed, 2]).random((_DIVISIONS - 1, count)).argsort(1)[:, : len(observed)]
        places = np.concatenate([[observed], drawn])
    divisions = np.zeros((len(places), count))
    np.put_along_axis(divisions, places, 1.0, 1)
    return divisions


def _share_as_far(values: Floats, observed: Floats, divisions: Floats) -> Floats:
    """Return the share (S,) of divisions of runs (runs, S) whose means are at least as far apart as observed."""
    defined = ~np.isnan(values)
    filled = np.where(defined, values, 0.0)
    one, other = (ratio(side @ filled, side @ defined) for side in (divisions, 1 - divisions))
    # The tolerance covers a different order of summation. A side without a value counts as far apart.
    return np.asarray((~(np.abs(one - other) < observed - 1e-12)).mean(0))


def _same_side_p(coins: NDArray[Any]) -> Floats:
    """Return the probability that all of so many fair coins fall the same way.

    If A and B were equally good, each image in which they differ would favour either with equal probability. As a lower bound of
    p, this keeps a few images from showing any difference.
    """
    return np.minimum(2.0 ** (1 - coins.astype(np.float64)), 1.0)


def separation_p(a: int, b: int) -> float:
    """Return the probability that all of `a` runs are above or all below all of `b`, if their recipes are equally good."""
    return 2 / math.comb(a + b, a)


def holm(p: Floats) -> Floats:
    """Adjust p-values (M,) for multiple comparisons: Holm 1979, Scand. J. Statist. 6. NaN stays NaN and is not counted."""
    adjusted = np.full(p.shape, np.nan)
    kept = np.flatnonzero(~np.isnan(p))
    order = kept[np.argsort(p[kept], kind="stable")]
    factors = np.arange(len(order), 0, -1)
    adjusted[order] = np.minimum(1.0, np.maximum.accumulate(factors * p[order]))
    return adjusted
