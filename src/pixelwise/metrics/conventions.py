"""Scores by the conventions of other libraries, computed from the same masks.

Our own score is always `miou`; these are for comparison with published figures, and each names the call it reproduces. smp,
torchmetrics and MONAI are tested against that call; mmseg, Ultralytics and sceneparsing follow their published rule. Ignored
pixels are left out even if the library's call cannot do so.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from pixelwise.errors import UsageError, nearest
from pixelwise.metrics.confusion import Counts, Ratios, mean_defined, ratio
from pixelwise.metrics.intervals import Floats, Statistic, score_sums
from pixelwise.types import Score, spread

_Parts = tuple[Floats, Floats, Floats, Floats]


def _flat(counts: Floats) -> Floats:
    return counts.reshape(len(counts), -1)


@dataclass(frozen=True)
class Rule:
    """How a library computes a score.

    Args:
        call: the library's call.
        says: the rule in words.
        value: maps totals (R, M) and the number of classes K to values (R,).
        sums: maps counts (N, 4, K) to numbers (N, M) that add up over images; by default the counts.
        can_ignore: whether the call can leave out ignored pixels.
    """

    call: str
    says: str
    value: Callable[[Floats, int], Ratios]
    sums: Callable[[Floats], Floats] = _flat
    can_ignore: bool = True


@dataclass(frozen=True)
class PeerScore:
    """A score by another library's convention."""

    call: str
    says: str
    score: Score

    def to_dict(self) -> dict[str, Any]:
        """Return the plain form."""
        return {"call": self.call, "says": self.says, **spread("value", self.score)}


def _parts(totals: Floats, k: int) -> _Parts:
    hits, truth, predicted, on_ignored = np.moveaxis(totals.reshape(len(totals), 4, k), 1, 0)
    return hits, truth, predicted, on_ignored


def _iou(totals: Floats, k: int) -> Ratios:
    hits, truth, predicted, _ = _parts(totals, k)
    return ratio(hits, truth + predicted - hits)


def _mean_over_union(totals: Floats, k: int) -> Ratios:
    return mean_defined(_iou(totals, k))


def _mean_over_true(totals: Floats, k: int) -> Ratios:
    _, truth, _, _ = _parts(totals, k)
    return mean_defined(np.where(truth > 0, _iou(totals, k), np.nan))


def _mean_recall(totals: Floats, k: int) -> Ratios:
    hits, truth, _, _ = _parts(totals, k)
    return mean_defined(ratio(hits, truth))


def _pixel_accuracy(totals: Floats, k: int) -> Ratios:
    hits, truth, _, _ = _parts(totals, k)
    return ratio(hits.sum(1), truth.sum(1))


def _absent_is(value: float) -> Callable[[Floats, int], Ratios]:
    def mean(totals: Floats, k: int) -> Ratios:
        return np.nan_to_num(_iou(totals, k), nan=value).mean(1)

    return mean


def _micro(totals: Floats, k: int) -> Ratios:
    hits, truth, predicted, _ = _parts(totals, k)
    return ratio(hits.sum(1), (truth + predicted - hits).sum(1))


def _micro_or_one(totals: Floats, k: int) -> Ratios:
    return np.nan_to_num(_micro(totals, k), nan=1.0)


def _ignored_as_error(totals: Floats, k: int) -> Ratios:
    hits, truth, predicted, on_ignored = _parts(totals, k)
    return mean_defined(ratio(hits, truth + predicted + on_ignored - hits))


def _per_image(rule: Callable[[Floats, int], Ratios]) -> Callable[[Floats], Floats]:
    """Return sums of the value of each image (0 if undefined), and whether it is defined, (N, 2)."""

    def sums(counts: Floats) -> Floats:
        values = rule(_flat(counts), counts.shape[2])
        return np.stack([np.nan_to_num(values), ~np.isnan(values)], 1)

    return sums


def _mean_of_images(totals: Floats, k: int) -> Ratios:
    return ratio(totals[:, 0], totals[:, 1])


def _per_class_and_image(only_true: bool) -> Callable[[Floats], Floats]:
    """Return sums of the IoU of each class in each image (0 if undefined), and whether it is defined, (N, 2·K)."""

    def sums(counts: Floats) -> Floats:
        k = counts.shape[2]
        values = _iou(_flat(counts), k)
        if only_true:
            values = np.where(counts[:, 1] > 0, values, np.nan)
        return np.concatenate([np.nan_to_num(values), ~np.isnan(values)], 1)

    return sums


def _mean_of_pairs(totals: Floats, k: int) -> Ratios:
    return ratio(totals[:, :k].sum(1), totals[:, k:].sum(1))


def _mean_of_class_means(totals: Floats, k: int) -> Ratios:
    # Classes that are in no image count as 0, as in MONAI.
    return np.nan_to_num(ratio(totals[:, :k], totals[:, k:])).mean(1)


_MATRIX, _SUMMED = "one matrix over all images", "all classes' pixels added up before dividing"
CONVENTIONS: Mapping[str, tuple[Rule, ...]] = {
    "smp": (
        Rule("iou_score(reduction='macro')", f"{_MATRIX}; a class without a union counts as 1", _absent_is(1.0)),
        Rule(
            "iou_score(reduction='macro-imagewise')",
            "mean over images of the mean over all classes; a class without a union counts as 1",
            _mean_of_images,
            _per_image(_absent_is(1.0)),
        ),
        Rule("iou_score(reduction='micro')", f"{_MATRIX}; {_SUMMED}", _micro),
        Rule(
            "iou_score(reduction='micro-imagewise')",
            f"mean over images; in each, {_SUMMED}; an image without counted pixels counts as 1",
            _mean_of_images,
            _per_image(_micro_or_one),
        ),
    ),
    "torchmetrics": (
        Rule(
            "JaccardIndex(task='multiclass', average='macro')",
            f"{_MATRIX}; mean over classes with a union",
            _mean_over_union,
        ),
        Rule("JaccardIndex(task='multiclass', average='micro')", f"{_MATRIX}; {_SUMMED}", _micro),
        Rule(
            "segmentation.MeanIoU(input_format='index')",
            "mean over all pairs of an image and a class with a union there",
            _mean_of_pairs,
            _per_class_and_image(only_true=False),
            can_ignore=False,
        ),
    ),
    "mmseg": (
        Rule("IoUMetric: mIoU", f"{_MATRIX}; mean over classes with a union", _mean_over_union),
        Rule("IoUMetric: mAcc", "mean recall over classes in the ground truth", _mean_recall),
        Rule("IoUMetric: aAcc", "share of correct pixels", _pixel_accuracy),
    ),
    "ultralytics": (
        Rule(
            "SemanticMetrics: mIoU",
            f"{_MATRIX}; mean over classes in the ground truth: predicting an absent class has no IoU of its own",
            _mean_over_true,
        ),
    ),
    "monai": (
        Rule(
            "MeanIoU(reduction='mean')",
            "mean over images of the mean over the classes in their ground truth",
            _mean_of_images,
            _per_image(_mean_over_true),
        ),
        Rule(
            "MeanIoU(reduction='mean_batch').mean()",
            "mean over classes of the mean over images whose ground truth has the class; a class that is in none counts as 0",
            _mean_of_class_means,
            _per_class_and_image(only_true=True),
        ),
    ),
    "sceneparsing": (
        Rule("Mean IoU", f"{_MATRIX}; mean over all classes; a class without a union counts as 0", _absent_is(0.0)),
        Rule("Pixel Accuracy", "share of labelled pixels that are correct", _pixel_accuracy),
    ),
    "void-as-error": (
        Rule(
            "mIoU, void as error",
            f"{_MATRIX}; predictions on ignored pixels are false positives of their class",
            _ignored_as_error,
        ),
    ),
}


def peer_scores(
    name: str,
    counts: Counts,
    groups: Sequence[Hashable],
    *,
    ignored: bool = False,
) -> tuple[PeerScore, ...]:
    """Return the scores that another library would report, without intervals.

    Args:
        name: one of `CONVENTIONS`.
        counts: (N, 4, K), as from `metrics.scores.Tally.counts`.
        groups: one per image; None for an image without a group.
        ignored: whether there are ignored pixels.

    Raises:
        UsageError: an unknown name.
    """
    require_convention(name)
    k, found = counts.shape[2], []
    for rule in CONVENTIONS[name]:

        def statistic(totals: Floats, _: Floats, rule: Rule = rule) -> Floats:
            return rule.value(totals, k)[:, None]

        sums = rule.sums(counts.astype(np.float64))
        score = score_sums(sums, Statistic(statistic, (name,)), groups, intervals=False)[0]
        note = "" if rule.can_ignore or not ignored else "; ignored pixels are left out, which this call cannot do"
        found.append(PeerScore(rule.call, rule.says + note, score))
    return tuple(found)


def require_convention(name: str) -> None:
    """Raise a `UsageError` for an unknown convention."""
    if name not in CONVENTIONS:
        do = nearest(name, CONVENTIONS)
        raise UsageError("--convention", expected=", ".join(CONVENTIONS), found=name, do=do)
