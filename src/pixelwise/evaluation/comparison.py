"""Compare models on the images on which all of them were scored.

Intervals of differences are those of `metrics.intervals` for the difference of two scores, so that differences in difficulty
between images cancel. Runs that differ only in their seed form a recipe; the spread between its runs is an independent source of
error, and between recipes no difference is reported that different seeds alone would often produce.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from itertools import combinations
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pixelwise.errors import DataError, UsageError
from pixelwise.evaluation.score_counts import Recipe, RunCounts, aligned, cautions, group_by_recipe, listed
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
    make_score,
)
from pixelwise.metrics.scores import interval_method, overlap_scores
from pixelwise.types import Score, spread

MEANS = ("miou", "miou_present", "mean_dice", "pixel_accuracy")
# Limit on the permutations of runs between recipes; if there are more, a random sample is used.
_DIVISIONS = 10_000
# Random swaps of two models.
_SWAPS = 9_999
# Limit on the numbers processed at once.
_NUMBERS = 1 << 22


@dataclass(frozen=True)
class Standing:
    """Scores of one model, or means over the runs of one recipe, with intervals."""

    name: str
    runs: tuple[str, ...]
    means: dict[str, Score]
    classes: dict[str, Score]

    def to_dict(self) -> dict[str, Any]:
        """Return the plain form, with the keys of `scores.json`."""
        plain: dict[str, Any] = {"name": self.name, "runs": list(self.runs)}
        for name, score in self.means.items():
            plain |= spread(name, score)
        return plain | {"classes": [{"name": name, **spread("iou", score)} for name, score in self.classes.items()]}


@dataclass(frozen=True)
class Difference:
    """The difference in one score between B and A.

    Args:
        name: of the score, or of the class whose IoU it is.
        a: the score of A; None if undefined.
        b: the score of B.
        difference: B minus A.
        low: lower end of the 95 % interval; None if too few images determine the difference.
        high: upper end of the 95 % interval.
        n: number of images behind the score; for a class, those in which the ground truth, A or B has it.
        p: two-sided p-value, from the largest level whose interval excludes 0. It is at least the probability that as many fair
            coins fall alike, and at least the share of swaps of the two models in random images, or of permutations of the runs
            between the recipes, with such a difference.
        shown: whether the interval excludes 0 and p is at most 0.05; for a class, also after adjustment for the number of classes.
        p_adjusted: for a class: Holm 1979.
        shown_alone: for a class: `shown` without the adjustment.
    """

    name: str
    a: float | None
    b: float | None
    difference: float | None
    low: float | None
    high: float | None
    n: int
    p: float | None
    shown: bool
    p_adjusted: float | None = None
    shown_alone: bool | None = None

    @property
    def margin(self) -> float:
        """Half the width of the interval; 0 without an interval."""
        return 0.0 if self.low is None or self.high is None else (self.high - self.low) / 2


@dataclass(frozen=True)
class Pair:
    """B compared with A: `means` by the names of `MEANS`, the IoU of each class, and a summary in sentences."""

    a: str
    b: str
    means: dict[str, Difference]
    classes: tuple[Difference, ...]
    sentences: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return the plain form."""
        class_only = ("name", "p_adjusted", "shown_alone")
        means = {
            name: {key: value for key, value in asdict(entry).items() if key not in class_only}
            for name, entry in self.means.items()
        }
        rows = [asdict(entry) for entry in self.classes]
        return {"a": self.a, "b": self.b, **means, "classes": rows, "sentences": list(self.sentences)}


@dataclass(frozen=True)
class Comparison:
    """The result of comparing models.

    Args:
        standings: one per model or recipe, the baseline first.
        pairs: each of the others (B) compared with the baseline (A).
        images: number of images on which all were scored.
        convention: how scores and differences are defined.
        interval: how the intervals were computed, and what they do not include.
        notices: warnings and remarks.
        interval_method: how the intervals were computed, for programs.
    """

    standings: tuple[Standing, ...]
    pairs: tuple[Pair, ...]
    images: int
    convention: str
    interval: str
    notices: tuple[str, ...]
    interval_method: Mapping[str, Any] = field(default_factory=dict)

    def ranking(self) -> tuple[Standing, ...]:
        """Sort by mIoU, the best first."""
        return tuple(sorted(self.standings, key=lambda s: -(s.means["miou"].value or 0.0)))

    def to_dict(self) -> dict[str, Any]:
        """Return the plain form."""
        return {
            "names": [standing.name for standing in self.standings],
            "images": self.images,
            "ranking": [standing.name for standing in self.ranking()],
            "scores": [standing.to_dict() for standing in self.standings],
            "pairs": [pair.to_dict() for pair in self.pairs],
            "convention": self.convention,
            "interval": self.interval,
            "interval_method": dict(self.interval_method),
            "notices": list(self.notices),
        }


def compare(runs: Sequence[RunCounts], *, seed: int = 0, notices: Sequence[str] = ()) -> Comparison:
    """Compare models that were scored on the same images, each with the first.

    Args:
        runs: the counts of each model; runs of one recipe with different seeds are combined.
        seed: random seed of the sample of permutations, if a recipe has many runs.
        notices: notices to include in the result.

    Raises:
        UsageError: fewer than two runs.
        DataError: the runs have other images, masks, classes or groups, or no pixel counts.
    """
    if len(runs) < 2:
        raise UsageError("compare", expected="two runs or more", found=str(len(runs)), do="List the runs to compare.")
    runs, group_notices = aligned(runs)
    recipes, recipe_notices = group_by_recipe(runs)
    scored = _Scored(runs, recipes, seed)
    standings = tuple(scored.standing(g) for g in range(len(recipes)))
    pairs = tuple(scored.pair(0, g) for g in range(1, len(recipes)))
    notices = [*notices, *group_notices, *recipe_notices, *cautions(runs, recipes)]
    notices += [*_different_classes(standings), *_few_images(scored, pairs)]
    k = sum(score.value is not None for score in standings[0].classes.values())
    method = interval_method(scored.units[:, 0, 1].sum(1).astype(np.float64), scored.unit_kind)
    return Comparison(standings, pairs, len(runs[0].ids), _CONVENTION, _interval(scored, k), tuple(notices), method)


class _Scored:
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

    def standing(self, g: int) -> Standing:
        """Score one recipe."""
        n = [len(self.counts)] * len(MEANS) + self._shows(self.counts, [g]).sum(0).tolist()
        low, high = np.full_like(self.values[g], np.nan), np.full_like(self.values[g], np.nan)
        if len(self.units) >= FEWEST_UNITS:
            spread = self._spread([(1, self._members([g]))], "share")
            low, high = (np.where(spread.withheld(), np.nan, bound) for bound in spread.bounds())
        scores = [make_score(*entry) for entry in zip(self.values[g], low, high, n, strict=False)]
        names = tuple(self.runs[i].name for i in self.recipes[g].members)
        means = dict(zip(MEANS, scores, strict=False))
        classes = dict(zip(self.classes, scores[len(MEANS) :], strict=True))
        return Standing(self.recipes[g].name, names, means, classes)

    def pair(self, a: int, b: int) -> Pair:
        """Compare two recipes."""
        differing = self._differing([a, b])
        coins = np.concatenate([[differing.any(1).sum()] * len(MEANS), differing.sum(0)])
        low, high, p = self._difference(a, b)
        p_of_runs = self._permutation_p(a, b)[: len(coins)]
        p_of_swaps = self._swap_p(a, b)[: len(coins)]
        p = np.where(np.isnan(p), p, np.fmax(np.fmax(np.maximum(p, _same_side_p(coins)), p_of_swaps), p_of_runs))
        n = [len(self.counts)] * len(MEANS) + self._shows(self.counts, [a, b]).sum(0).tolist()
        alone = ((low > 0) | (high < 0)) & (p <= 1 - LEVEL)
        adjusted = np.concatenate([np.full(len(MEANS), np.nan), holm(p[len(MEANS) :])])
        shown = alone & ~(adjusted > 1 - LEVEL)
        values_a, values_b = self.values[a, : len(coins)], self.values[b, : len(coins)]
        values = np.stack([values_a, values_b, values_b - values_a, low, high], 1)

        def entry(i: int, name: str) -> Difference:
            value_a, value_b, difference, lower, upper = map(_plain, values[i])
            of_class = (_plain(adjusted[i]), bool(alone[i])) if i >= len(MEANS) else (None, None)
            judged = (n[i], _plain(p[i]), bool(shown[i]), *of_class)
            return Difference(name, value_a, value_b, difference, lower, upper, *judged)

        means = {name: entry(i, name) for i, name in enumerate(MEANS)}
        classes = tuple(entry(i, name) for i, name in enumerate(self.classes, len(MEANS)))
        pair = Pair(self.recipes[a].name, self.recipes[b].name, means, classes, ())
        runs = (len(self.recipes[a].members), len(self.recipes[b].members))
        few = bool(_same_side_p(coins[:1])[0] > 1 - LEVEL)
        evidence = _Evidence(self.units_text(), runs, not differing.any(), few, _plain(p_of_runs[0]))
        return replace(pair, sentences=_sentences(pair, evidence))

    def _difference(self, a: int, b: int) -> tuple[Floats, Floats, Floats]:
        """Return bounds and p-values of the difference of `MEANS` and the IoU of each class; NaN where too few units tell."""
        count = len(MEANS) + len(self.classes)
        if len(self.units) < FEWEST_UNITS:
            undefined = np.full(count, np.nan)
            return undefined, undefined.copy(), undefined.copy()
        spread = self._spread([(-1, self._members([a])), (1, self._members([b]))], "difference")
        withheld = spread.withheld()[:count]
        withheld[len(MEANS) :] |= self._shows(self.units, [a, b]).sum(0) < FEWEST_WITH_CLASS
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
        lowest = _separation_p(len(smaller), len(both) - len(smaller))
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

    def units_text(self) -> str:
        """Describe the units: 233 images, or 30 groups of 233 images."""
        images = _plural(len(self.counts), "image")
        return images if self.unit_kind == "images" else f"{_plural(len(self.units), 'group')} of {images}"

    def _members(self, recipes: Sequence[int]) -> list[int]:
        """Return the positions of their runs, sorted by name, so that the order of the arguments does not matter."""
        return sorted((i for g in recipes for i in self.recipes[g].members), key=lambda i: self.runs[i].name)

    def _shows(self, counts: NDArray[np.int64], recipes: Sequence[int]) -> NDArray[np.bool_]:
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


def _separation_p(a: int, b: int) -> float:
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


_CONVENTION = (
    "differences are the model (B) minus the first (A); one confusion matrix over all images; means over the classes in "
    "ground truth or prediction, miou_present over those in the ground truth; scores of a recipe are means over its runs"
)


def _interval(scored: _Scored, classes: int) -> str:
    """Describe how the intervals and verdicts were computed."""
    if len(scored.units) < FEWEST_UNITS:
        are = "is" if len(scored.units) == 1 else "are"
        return f"none: {scored.units_text()} {are} too few, at least {FEWEST_UNITS} are needed"
    several = any(len(recipe.members) > 1 for recipe in scored.recipes)
    shown = f"a difference is shown if its interval excludes 0 and at least six {scored.unit_kind} differ"
    if several:
        runs = "the spread between the runs of a recipe is included; for a single run, the effect of the seed is not in the interval"
        shown += ", and between recipes of several runs if at most one in twenty permutations of the runs gives as much"
    else:
        runs = "one run each: the effect of the seed is not in these intervals"
        shown += f", and if at most one in twenty random swaps of the models in the {scored.unit_kind} gives as much"
    parts = [
        f"95 % jackknife over {scored.units_text()}, the same for all, with Student's t, the effective number of "
        f"{scored.unit_kind} per class, and variances shrunk towards their mean over the classes",
        runs,
        shown,
    ]
    if classes > 1:
        parts.append(
            f"of {classes} classes about one in twenty would be shown by chance without adjustment, so the verdicts on classes "
            "are adjusted (Holm 1979)"
        )
    if len(scored.recipes) > 2:
        parts.append(f"the mIoU of {len(scored.recipes)} models is not adjusted for their number")
    return "; ".join(parts)


def _different_classes(standings: Sequence[Standing]) -> list[str]:
    """Report means over different classes."""
    first, notices = standings[0], []
    for other in standings[1:]:
        names = [n for n, s in other.classes.items() if (s.value is None) != (first.classes[n].value is None)]
        if names:
            notices.append(
                f"{first.name} and {other.name} have means over different classes, because only one of them predicts "
                f"{listed(names, 3)}, absent from the ground truth; miou_present is over the same classes for both"
            )
    return notices


def _few_images(scored: _Scored, pairs: Sequence[Pair]) -> list[str]:
    """Report classes without an interval, since too few units contain them."""
    if len(scored.units) < FEWEST_UNITS:
        return []
    rare = (
        [entry.name for entry in pairs[0].classes if entry.difference is not None and entry.low is None]
        if pairs
        else []
    )
    return [f"no interval for {listed(rare, 6)}: in fewer than {FEWEST_WITH_CLASS} {scored.unit_kind}"] if rare else []


class _Evidence(NamedTuple):
    """What a comparison is based on.

    Args:
        units: the units of the intervals, in words.
        runs: number of runs of A and of B.
        identical: whether all counts are the same.
        few: whether so few units differ that all could favour the same model by chance.
        p_of_runs: the permutation p-value of the mIoU; None for one run each.
    """

    units: str
    runs: tuple[int, int]
    identical: bool
    few: bool
    p_of_runs: float | None


def _sentences(pair: Pair, evidence: _Evidence) -> tuple[str, ...]:
    """Summarise a comparison in sentences."""
    a, b, miou, units = pair.a, pair.b, pair.means["miou"], evidence.units
    if evidence.identical:
        return (f"{b} and {a} have the same counts in every image: there is no difference ({units}).",)
    if miou.shown:
        better, higher = _direction(miou)
        sentences = [f"{b} is {better} than {a}: its mIoU is {_points(miou)} {higher} ({units})."]
    else:
        measured = ""
        if miou.difference is not None and miou.low is not None and miou.high is not None:
            interval = f"95 % interval {miou.low * 100:+.1f} to {miou.high * 100:+.1f}"
            measured = f" ({miou.difference * 100:+.1f} points, {interval})"
        sentences = [f"No difference in mIoU between {b} and {a} can be shown with {units}{measured}."]
        sentences += _reason_not_shown(miou, evidence)
    defined = [entry for entry in pair.classes if entry.difference is not None]
    for entry in sorted((e for e in defined if e.shown), key=lambda e: -(e.difference or 0.0)):
        images = _plural(entry.n, "image")
        sentences.append(f"{b} is {_direction(entry)[0]} than {a} on {entry.name} by {_points(entry)} ({images}).")
    if undecided := [entry.name for entry in defined if not entry.shown]:
        sentences.append(f"On {listed(undecided, 6)} no difference can be shown with {units}.")
    if alone := [entry.name for entry in defined if entry.shown_alone and not entry.shown]:
        sentences.append(
            f"Without adjustment, {listed(alone, 6)} would count as shown; among {len(defined)} classes this may be chance."
        )
    if 1 in evidence.runs:
        single = "One run each" if evidence.runs == (1, 1) else f"One run of {a if evidence.runs[0] == 1 else b}"
        sentences.append(f"{single}: the effect of the seed is not in this interval.")
    return tuple(sentences)


def _reason_not_shown(miou: Difference, evidence: _Evidence) -> list[str]:
    """Explain why a difference is not shown although its interval excludes 0."""
    excludes_0 = miou.low is not None and miou.high is not None and miou.low * miou.high > 0
    a, b = evidence.runs
    if evidence.p_of_runs is not None and (chance := _separation_p(a, b)) > 1 - LEVEL:
        return [
            f"{a} and {b} runs are too few: runs of equally good recipes are completely separated in {100 * chance:.0f} % of "
            "comparisons."
        ]
    if excludes_0 and evidence.few:
        return ["Too few of them differ: all could favour the same model by chance."]
    if excludes_0 and evidence.p_of_runs is not None and evidence.p_of_runs > 1 - LEVEL:
        return [f"In {100 * evidence.p_of_runs:.0f} % of random divisions of the same runs the difference is as large."]
    return []


def _direction(entry: Difference) -> tuple[str, str]:
    return ("better", "higher") if (entry.difference or 0.0) > 0 else ("worse", "lower")


def _points(entry: Difference) -> str:
    digits = 1 if entry.margin >= 0.001 else 2
    return f"{abs(entry.difference or 0.0) * 100:.{digits}f} ± {entry.margin * 100:.{digits}f} points"


def _plural(n: int, noun: str) -> str:
    return f"{n} {noun}" if n == 1 else f"{n} {noun}s"


def _plain(value: float) -> float | None:
    return None if math.isnan(value) else float(value)
