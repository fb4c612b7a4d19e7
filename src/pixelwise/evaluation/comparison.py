"""Compare models on the images on which all of them were scored.

Intervals of differences are those of `metrics.intervals` for the difference of two scores, so that differences in difficulty
between images cancel. Runs that differ only in their seed form a recipe; the spread between its runs is an independent source of
error, and between recipes no difference is reported that different seeds alone would often produce.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, NamedTuple

import numpy as np

from pixelwise.errors import UsageError
from pixelwise.evaluation.paired_scores import MEANS, PairedScores, holm, separation_p
from pixelwise.evaluation.score_counts import RunCounts, aligned, cautions, group_by_recipe, listed
from pixelwise.metrics.intervals import FEWEST_UNITS, FEWEST_WITH_CLASS, LEVEL, make_score
from pixelwise.metrics.scores import interval_method
from pixelwise.types import Score, spread


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
    scored = PairedScores(runs, recipes, seed)
    standings = tuple(_standing(scored, g) for g in range(len(recipes)))
    pairs = tuple(_pair(scored, 0, g) for g in range(1, len(recipes)))
    notices = [*notices, *group_notices, *recipe_notices, *cautions(runs, recipes)]
    notices += [*_different_classes(standings), *_few_images(scored, pairs)]
    k = sum(score.value is not None for score in standings[0].classes.values())
    method = interval_method(scored.units[:, 0, 1].sum(1).astype(np.float64), scored.unit_kind)
    return Comparison(standings, pairs, len(runs[0].ids), _CONVENTION, _interval(scored, k), tuple(notices), method)


def _standing(scored: PairedScores, g: int) -> Standing:
    """Return the scores of one recipe."""
    recipe, k = scored.recipes[g], len(MEANS)
    scores = [make_score(*entry) for entry in zip(scored.values[g], *scored.interval(g), strict=False)]
    names = tuple(scored.runs[i].name for i in recipe.members)
    means = dict(zip(MEANS, scores[:k], strict=True))
    return Standing(recipe.name, names, means, dict(zip(scored.classes, scores[k:], strict=True)))


def _pair(scored: PairedScores, a: int, b: int) -> Pair:
    """Compare two recipes."""
    found, k = scored.judge(a, b), len(MEANS)
    alone = ((found.low > 0) | (found.high < 0)) & (found.p <= 1 - LEVEL)
    adjusted = np.concatenate([np.full(k, np.nan), holm(found.p[k:])])
    shown = alone & ~(adjusted > 1 - LEVEL)
    values = np.column_stack([found.values, found.low, found.high])

    def entry(i: int, name: str) -> Difference:
        value_a, value_b, difference, lower, upper = map(_plain, values[i])
        of_class = (_plain(adjusted[i]), bool(alone[i])) if i >= k else (None, None)
        judged = (found.n[i], _plain(found.p[i]), bool(shown[i]), *of_class)
        return Difference(name, value_a, value_b, difference, lower, upper, *judged)

    means = {name: entry(i, name) for i, name in enumerate(MEANS)}
    classes = tuple(entry(i, name) for i, name in enumerate(scored.classes, k))
    pair = Pair(scored.recipes[a].name, scored.recipes[b].name, means, classes, ())
    runs = (len(scored.recipes[a].members), len(scored.recipes[b].members))
    evidence = _Evidence(_units(scored), runs, found.identical, found.few, _plain(found.p_of_runs))
    return replace(pair, sentences=_sentences(pair, evidence))


def _units(scored: PairedScores) -> str:
    """Describe the units: 233 images, or 30 groups of 233 images."""
    images = _plural(len(scored.counts), "image")
    return images if scored.unit_kind == "images" else f"{_plural(len(scored.units), 'group')} of {images}"


_CONVENTION = (
    "differences are the model (B) minus the first (A); one confusion matrix over all images; means over the classes in "
    "ground truth or prediction, miou_present over those in the ground truth; scores of a recipe are means over its runs"
)


def _interval(scored: PairedScores, classes: int) -> str:
    """Describe how the intervals and verdicts were computed."""
    if len(scored.units) < FEWEST_UNITS:
        are = "is" if len(scored.units) == 1 else "are"
        return f"none: {_units(scored)} {are} too few, at least {FEWEST_UNITS} are needed"
    several = any(len(recipe.members) > 1 for recipe in scored.recipes)
    shown = f"a difference is shown if its interval excludes 0 and at least six {scored.unit_kind} differ"
    if several:
        runs = "the spread between the runs of a recipe is included; for a single run, the effect of the seed is not in the interval"
        shown += ", and between recipes of several runs if at most one in twenty permutations of the runs gives as much"
    else:
        runs = "one run each: the effect of the seed is not in these intervals"
        shown += f", and if at most one in twenty random swaps of the models in the {scored.unit_kind} gives as much"
    parts = [
        f"95 % jackknife over {_units(scored)}, the same for all, with Student's t, the effective number of "
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


def _few_images(scored: PairedScores, pairs: Sequence[Pair]) -> list[str]:
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
    if evidence.p_of_runs is not None and (chance := separation_p(a, b)) > 1 - LEVEL:
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
