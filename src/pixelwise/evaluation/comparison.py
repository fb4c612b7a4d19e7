"""Tell whether the difference between models is real: a paired bootstrap over the images that all were scored on.

Comes in: what `scores.json` holds of each model, the counts per image and class. Goes out: a `Comparison`: scores,
differences with intervals, and sentences. Knows nothing of models, of terminals, or of how the counts were made.

The same images are drawn for all models (Efron & Tibshirani 1993, An Introduction to the Bootstrap, ch. 13 and 16): most
of what makes one draw harder than another is common to them and falls out of the difference. Runs that differ in their
seed alone are one recipe, whose runs are drawn as well; between recipes no difference is shown that seeds alone would
often make.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pixelwise.errors import DataError, UsageError
from pixelwise.evaluation.score_counts import Counted, Recipe, aligned, cautions, recipes_of
from pixelwise.evaluation.verdicts import Difference, Grounds, Pair, counted_of, fall_apart, listed, sentences
from pixelwise.metrics.confusion import mean_defined, ratio
from pixelwise.metrics.intervals import LEVEL, Floats, by_group, drawn_totals, percentiles
from pixelwise.metrics.scores import overlap_scores
from pixelwise.types import Score, spread

MEANS = ("miou", "miou_present", "mean_dice", "pixel_accuracy")
_FEW = 10
# So many ways to divide runs are looked at; where there are more, as many are drawn.
_DIVISIONS = 10_000
# Bounds the memory: so many numbers are worked on at once, beside the scores of each draw.
_NUMBERS = 1 << 22


@dataclass(frozen=True)
class Standing:
    """Hold the scores of one model, or the mean over the runs of one recipe, with intervals."""

    name: str
    runs: tuple[str, ...]
    means: dict[str, Score]
    classes: dict[str, Score]

    def to_dict(self) -> dict[str, Any]:
        """Give the plain form, with the keys of `scores.json`."""
        plain: dict[str, Any] = {"name": self.name, "runs": list(self.runs)}
        for name, score in self.means.items():
            plain |= spread(name, score)
        return plain | {"classes": [{"name": name, **spread("iou", score)} for name, score in self.classes.items()]}


@dataclass(frozen=True)
class Comparison:
    """Hold how models compare.

    Args:
        standings: one per model or recipe, the baseline first.
        pairs: every other one (B) against the baseline (A).
        images: images that all were scored on.
        convention: what the scores and differences are.
        interval: how the bounds were made, and what they leave out.
        notices: what to mind.
    """

    standings: tuple[Standing, ...]
    pairs: tuple[Pair, ...]
    images: int
    convention: str
    interval: str
    notices: tuple[str, ...]

    def ranking(self) -> tuple[Standing, ...]:
        """Sort by mIoU, the best first."""
        return tuple(sorted(self.standings, key=lambda s: -(s.means["miou"].value or 0.0)))

    def to_dict(self) -> dict[str, Any]:
        """Give the plain form."""
        return {
            "names": [standing.name for standing in self.standings],
            "images": self.images,
            "ranking": [standing.name for standing in self.ranking()],
            "scores": [standing.to_dict() for standing in self.standings],
            "pairs": [pair.to_dict() for pair in self.pairs],
            "convention": self.convention,
            "interval": self.interval,
            "notices": list(self.notices),
        }


def compare(
    runs: Sequence[Counted], *, resamples: int | None = None, seed: int = 0, notices: Sequence[str] = ()
) -> Comparison:
    """Compare models that were scored on the same images, each with the first.

    Args:
        runs: what was counted of each; those of one recipe with different seeds are taken together.
        resamples: draws of the bootstrap; where not given 2000, or 100 for each class, so that the smallest p that they
            can tell survives the adjustment.
        seed: equal seeds give equal intervals.
        notices: what is to be told beside what is found here.

    Raises:
        UsageError: fewer than two runs.
        DataError: they were not scored on the same images, masks, classes and groups; or no pixel counts.
    """
    if len(runs) < 2:
        raise UsageError("compare", expected="two runs or more", found=str(len(runs)), do="Name what to compare.")
    runs, grouped = aligned(runs)
    recipes, pooled = recipes_of(runs)
    work = _Draws(runs, recipes, max(resamples or 100 * len(runs[0].classes), 2 if resamples else 2000), seed)
    standings = tuple(work.standing(g) for g in range(len(recipes)))
    pairs = tuple(work.pair(0, g) for g in range(1, len(recipes)))
    told = [*notices, *grouped, *pooled, *cautions(runs, recipes), *_uneven(standings), *_few(work, pairs)]
    k = sum(score.value is not None for score in standings[0].classes.values())
    return Comparison(standings, pairs, len(runs[0].ids), _convention(), _interval(work, k), tuple(told))


class _Draws:
    """Draw images for all runs and runs within recipes, and read scores and differences off the draws."""

    def __init__(self, runs: Sequence[Counted], recipes: Sequence[Recipe], resamples: int, seed: int) -> None:
        self.runs, self.recipes, self.resamples, self.seed = runs, recipes, resamples, seed
        self.classes = runs[0].classes
        # (images, runs, 3, classes)
        self.counts = np.stack([run.counts for run in runs], 1)
        flat = self.counts.reshape(len(self.counts), -1)
        if not flat.any():
            raise DataError(
                "compare", expected="at least one pixel that counts", found="none", do="Compare on other images."
            )
        units, self.kind = by_group(flat, runs[0].groups)
        self.units = units.reshape(-1, *self.counts.shape[1:])
        whole = flat.sum(0, keepdims=True)
        # (runs, scores) and (recipes, scores)
        self.alone = self._of_runs(whole, whole)[0]
        self.values = self._of_recipes(self.alone[None])[0]
        self.drawn = self._draw(units, whole)

    def _draw(self, units: NDArray[np.int64], whole: NDArray[np.int64]) -> Floats:
        """Give (draws, recipes, scores); NaN where one unit leaves nothing to draw from."""
        if len(units) < 2:
            return np.full_like(self.values[None], np.nan)
        picks, kept = self._picks(), np.empty((self.resamples, *self.values.shape))
        start = 0
        for totals in drawn_totals(units, self.resamples, self.seed):
            rows = slice(start, start + len(totals))
            kept[rows] = self._of_recipes(self._of_runs(totals, whole), [picked[rows] for picked in picks])
            start = rows.stop
        return kept

    def _picks(self) -> list[NDArray[np.int64]]:
        """Draw runs of each recipe with replacement (draws, runs), one fewer than there are.

        As many draws as there are runs would show less spread than there is, by 1 / runs: Rao & Wu 1988, Resampling
        inference with complex survey data, draw one fewer.
        """
        # By name, so that the order in which they were given changes no draw.
        rank = {name: i for i, name in enumerate(sorted(recipe.name for recipe in self.recipes))}
        picks = []
        for recipe in self.recipes:
            generator, count = np.random.default_rng([self.seed, 1, rank[recipe.name]]), len(recipe.members)
            picks.append(generator.integers(0, count, (self.resamples, max(count - 1, 1))))
        return picks

    def _of_runs(self, totals: NDArray[Any], whole: NDArray[Any]) -> Floats:
        """Turn totals (R, runs · 3 · K) into (R, runs, means and the IoU of each class)."""
        k = len(self.classes)
        parts = zip(np.split(totals, len(self.runs), 1), np.split(whole, len(self.runs), 1), strict=True)
        scores = [overlap_scores(part, over_all) for part, over_all in parts]
        return np.stack([np.concatenate([s[:, : len(MEANS)], s[:, 5 : 5 + k]], 1) for s in scores], 1)

    def _of_recipes(self, values: Floats, picks: Sequence[NDArray[np.int64]] | None = None) -> Floats:
        """Take the mean of (R, runs, scores) over the runs of each recipe, or over those that were picked."""
        found = []
        for g in range(len(self.recipes)):
            members = values[:, self._members([g])]
            if picks is not None:
                members = np.take_along_axis(members, picks[g][:, :, None], 1)
            found.append(mean_defined(np.moveaxis(members, 1, -1)))
        return np.stack(found, 1)

    def standing(self, g: int) -> Standing:
        """Score one recipe."""
        blocks = _blocks(len(self.drawn), self.drawn.shape[2])
        low, high = np.concatenate([percentiles(self.drawn[:, g, part]) for part in blocks], 1)
        shows = self._shows(self.counts, [g])
        n = [len(self.counts)] * len(MEANS) + shows.sum(0).tolist()
        scores = [_score(*entry) for entry in zip(self.values[g], low, high, n, strict=True)]
        names = tuple(self.runs[i].name for i in self.recipes[g].members)
        means = dict(zip(MEANS, scores, strict=False))
        classes = dict(zip(self.classes, scores[len(MEANS) :], strict=True))
        return Standing(self.recipes[g].name, names, means, classes)

    def pair(self, a: int, b: int) -> Pair:
        """Compare two recipes."""
        differing = self._differing([a, b])
        coins = np.concatenate([[differing.any(1).sum()] * len(MEANS), differing.sum(0)])
        drawn, blocks = self.drawn, _blocks(len(self.drawn), len(coins))
        low, high, p = np.concatenate([_judged(drawn[:, b, s] - drawn[:, a, s], coins[s]) for s in blocks], 1)
        by_seeds = self._by_seeds(a, b)
        p = np.where(np.isnan(p), p, np.fmax(p, by_seeds))
        n = [len(self.counts)] * len(MEANS) + self._shows(self.counts, [a, b]).sum(0).tolist()
        # Every draw of a class that one unit alone shows is the same: no spread can be seen.
        lone = np.concatenate([np.zeros(len(MEANS), bool), self._shows(self.units, [a, b]).sum(0) < 2])
        low, high, p = (np.where(lone, np.nan, found) for found in (low, high, p))
        alone = ((low > 0) | (high < 0)) & (p <= 1 - LEVEL)
        adjusted = np.concatenate([np.full(len(MEANS), np.nan), holm(p[len(MEANS) :])])
        shown = alone & ~(adjusted > 1 - LEVEL)

        def entry(i: int, name: str) -> Difference:
            found = (self.values[a, i], self.values[b, i], self.values[b, i] - self.values[a, i], low[i], high[i])
            of_class = (_plain(adjusted[i]), bool(alone[i])) if i >= len(MEANS) else (None, None)
            value_a, value_b, between, *bounds = map(_plain, found)
            return Difference(
                name, value_a, value_b, between, bounds[0], bounds[1], n[i], _plain(p[i]), bool(shown[i]), *of_class
            )

        means = {name: entry(i, name) for i, name in enumerate(MEANS)}
        classes = tuple(entry(i, name) for i, name in enumerate(self.classes, len(MEANS)))
        pair = Pair(self.recipes[a].name, self.recipes[b].name, means, classes, ())
        runs = (len(self.recipes[a].members), len(self.recipes[b].members))
        few = bool(_coins_alike(coins[:1])[0] > 1 - LEVEL)
        grounds = Grounds(self.said_units(), runs, not differing.any(), few, _plain(by_seeds[0]))
        return replace(pair, sentences=sentences(pair, grounds))

    def _by_seeds(self, a: int, b: int) -> Floats:
        """Give two-sided p-values (S,): how often the runs, divided at random, lie as far apart; NaN for one run each.

        If the recipes were equally good, each division of their runs would be as likely: Fisher 1935, The Design of
        Experiments, ch. 3. The draws of few runs spread too little to tell. None is below the chance 2 / C(runs, runs of A)
        that all runs of one lie beyond all of the other.
        """
        both, smaller = self._members([a, b]), min((self._members([g]) for g in (a, b)), key=len)
        if len(both) == 2:
            return np.full(self.values.shape[1], np.nan)
        ways = _divisions(len(both), [both.index(i) for i in smaller], self.seed)
        values, observed = self.alone[both], np.abs(self.values[b] - self.values[a])
        blocks = _blocks(len(ways), len(observed))
        share = np.concatenate([_as_far(values[:, s], observed[s], ways) for s in blocks])
        return np.where(
            np.isnan(observed), np.nan, np.maximum(share, fall_apart(len(smaller), len(both) - len(smaller)))
        )

    def said_units(self) -> str:
        """Say over what was drawn: 233 images, or 30 groups of 233 images."""
        images = counted_of(len(self.counts), "image")
        return images if self.kind == "images" else f"{counted_of(len(self.units), 'group')} of {images}"

    def _members(self, recipes: Sequence[int]) -> list[int]:
        """Give the places of their runs, by name, so that the order in which they were given changes no draw."""
        return sorted((i for g in recipes for i in self.recipes[g].members), key=lambda i: self.runs[i].name)

    def _shows(self, counts: NDArray[np.int64], recipes: Sequence[int]) -> NDArray[np.bool_]:
        """Tell which images or units (N, K) show a class in their truth or in a prediction."""
        return np.asarray(counts[:, self._members(recipes)].any((1, 2)))

    def _differing(self, recipes: Sequence[int]) -> NDArray[np.bool_]:
        """Tell in which units (U, K) the counts of a class are not the same for all."""
        members = self.units[:, self._members(recipes)]
        return np.asarray((members != members[:, :1]).any((1, 2)))


def _blocks(rows: int, columns: int) -> Iterator[slice]:
    """Cut columns into blocks, so that rows times columns stays bounded."""
    width = max(1, _NUMBERS // rows)
    for start in range(0, columns, width):
        yield slice(start, start + width)


def _divisions(count: int, held: Sequence[int], seed: int) -> Floats:
    """Give ways (L, runs) to divide runs, 1 for one side: all, or as many as are looked at, `held` among them.

    That which was found counts as one of the drawn: Phipson & Smyth 2010, Permutation p-values should never be zero.
    """
    if math.comb(count, len(held)) <= _DIVISIONS:
        places = np.array(list(combinations(range(count), len(held))))
    else:
        drawn = np.random.default_rng([seed, 2]).random((_DIVISIONS - 1, count)).argsort(1)[:, : len(held)]
        places = np.concatenate([[held], drawn])
    ways = np.zeros((len(places), count))
    np.put_along_axis(ways, places, 1.0, 1)
    return ways


def _as_far(values: Floats, observed: Floats, ways: Floats) -> Floats:
    """Give the share (S,) of ways in which the means of both sides of runs (runs, S) are at least so far apart."""
    defined = ~np.isnan(values)
    filled = np.where(defined, values, 0.0)
    one, other = (ratio(side @ filled, side @ defined) for side in (ways, 1 - ways))
    # The same numbers, added in another order; a side without a value is no evidence of a difference.
    return np.asarray((~(np.abs(one - other) < observed - 1e-12)).mean(0))


def _judged(drawn: Floats, coins: NDArray[Any]) -> tuple[Floats, Floats, Floats]:
    """Give the bounds (S,) and p-values of differences (R, S)."""
    return (*percentiles(drawn), _p_values(drawn, coins))


def _coins_alike(coins: NDArray[Any]) -> Floats:
    return np.asarray(2.0 ** (1 - coins.astype(np.float64)))


def _p_values(drawn: Floats, coins: NDArray[Any]) -> Floats:
    """Give two-sided p-values (S,) of differences (R, S): twice the smaller share of draws on one side of 0.

    One is added to draws and counts, so that none is 0 (Davison & Hinkley 1997, Bootstrap Methods, ch. 4). If A and B were
    equally good, each image in which they differ could as well favour the other: `coins` such images all fall the same
    way with probability 2 / 2^coins, and no p may be below that. Few images, all alike, would else show anything.
    """
    defined = (~np.isnan(drawn)).sum(0)
    side = np.minimum((drawn <= 0).sum(0), (drawn >= 0).sum(0))
    p = np.minimum(1.0, np.maximum(2 * (side + 1) / (defined + 1), _coins_alike(coins)))
    return np.where(defined > 0, p, np.nan)


def holm(p: Floats) -> Floats:
    """Adjust p-values (M,) so that with probability 0.95 none of those below 0.05 is chance: Holm 1979, Scand. J. Statist. 6.

    NaN stays and counts in nothing.
    """
    adjusted = np.full(p.shape, np.nan)
    kept = np.flatnonzero(~np.isnan(p))
    order = kept[np.argsort(p[kept], kind="stable")]
    factors = np.arange(len(order), 0, -1)
    adjusted[order] = np.minimum(1.0, np.maximum.accumulate(factors * p[order]))
    return adjusted


def _convention() -> str:
    return (
        "differences are B less A; one confusion matrix over all images; means over the classes that truth or prediction "
        "shows, miou_present over those that the truth shows; a recipe's scores are means over its runs"
    )


def _interval(work: _Draws, classes: int) -> str:
    """Say how the bounds were made."""
    if len(work.units) < 2:
        return f"none: one {work.kind.removesuffix('s')} leaves nothing to draw from"
    several = any(len(recipe.members) > 1 for recipe in work.recipes)
    seeds = (
        "the runs of a recipe are drawn, too, one fewer than there are; where there is one run, what another seed would give "
        "is not in the interval"
        if several
        else "one run each: what another seed would give is not in these intervals"
    )
    divided = (
        ", and between recipes of several runs where at most one in twenty ways to divide the same runs gives as much"
    )
    chance = f"; of {classes} classes about one in twenty would be shown by chance if each were judged alone, so their "
    chance += "verdicts are adjusted (Holm 1979)"
    many = f"; the mIoU of {len(work.recipes)} models is not adjusted for their number" if len(work.recipes) > 2 else ""
    return (
        f"95 % percentile bootstrap over {work.said_units()}, {work.resamples} resamples, seed {work.seed}, the same images for all; "
        f"a class that a draw lacks counts in the means as over all images; {seeds}; a difference is shown where its interval "
        f"excludes 0 and at least six {work.kind} differ{divided if several else ''}{chance if classes > 1 else ''}{many}"
    )


def _uneven(standings: Sequence[Standing]) -> list[str]:
    """Tell where means are over other classes."""
    first, told = standings[0], []
    for other in standings[1:]:
        odd = [n for n, s in other.classes.items() if (s.value is None) != (first.classes[n].value is None)]
        if odd:
            told.append(
                f"{first.name} and {other.name} have means over other classes, for only one of them predicts "
                f"{listed(odd, 3)}, which no truth shows; miou_present is over the same classes for both"
            )
    return told


def _few(work: _Draws, pairs: Sequence[Pair]) -> list[str]:
    """Tell what rests on few images."""
    if len(work.units) < _FEW:
        return [f"fewer than {_FEW} {work.kind} give intervals that are too narrow"]
    rare = [entry.name for entry in pairs[0].classes if 0 < entry.n < _FEW] if pairs else []
    return [f"fewer than {_FEW} images show {listed(rare, 6)}: these intervals are too narrow"] if rare else []


def _score(value: float, low: float, high: float, n: int) -> Score:
    return Score(None, n=0) if math.isnan(value) else Score(float(value), _plain(low), _plain(high), int(n))


def _plain(value: float) -> float | None:
    return None if math.isnan(value) else float(value)
