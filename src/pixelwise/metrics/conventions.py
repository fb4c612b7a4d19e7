"""The rules by which other libraries turn the same masks into a "mIoU", each under its own name.

Comes in: per image and class, the pixels found, true, predicted, and predicted where the truth is void. Goes out: the
numbers that a peer's own call would print, with intervals. Knows nothing of masks or of the peers' code.

Our own number is always `miou`. These are for holding ours beside a figure from elsewhere, and say which call they stand for.
Tests hold those of smp, torchmetrics and MONAI against that call; mmseg's, Ultralytics' and sceneparsing's follow their
published rule. Where a peer cannot leave void pixels out, they are left out here all the same.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from pixelwise.errors import UsageError
from pixelwise.metrics.confusion import Counts, Ratios, mean_defined, ratio
from pixelwise.metrics.intervals import Floats, score_sums
from pixelwise.types import Score, spread

_Parts = tuple[Floats, Floats, Floats, Floats]


@dataclass(frozen=True)
class Rule:
    """Hold one way to make one number: sums per image (N, M), and what is made of their totals (R, M) → (R,).

    Args:
        call: the peer's call that gives it.
        says: the rule in words.
        sums: (N, 4, K) counts → (N, M) numbers that add up over images.
        value: totals (R, M), classes K → (R,).
        knows_void: the call can leave void out.
    """

    call: str
    says: str
    sums: Callable[[Floats], Floats]
    value: Callable[[Floats, int], Ratios]
    knows_void: bool = True


@dataclass(frozen=True)
class PeerScore:
    """Hold a number by a peer's rule."""

    call: str
    says: str
    score: Score

    def to_dict(self) -> dict[str, Any]:
        """Give the plain form."""
        return {"call": self.call, "says": self.says, **spread("value", self.score)}


def _flat(counts: Floats) -> Floats:
    return counts.reshape(len(counts), -1)


def _parts(totals: Floats, k: int) -> _Parts:
    hits, truth, predicted, on_void = np.moveaxis(totals.reshape(len(totals), 4, k), 1, 0)
    return hits, truth, predicted, on_void


def _iou(totals: Floats, k: int) -> Ratios:
    hits, truth, predicted, _ = _parts(totals, k)
    return ratio(hits, truth + predicted - hits)


def _mean_over_union(totals: Floats, k: int) -> Ratios:
    return mean_defined(_iou(totals, k))


def _mean_over_true(totals: Floats, k: int) -> Ratios:
    _, truth, _, _ = _parts(totals, k)
    return mean_defined(np.where(truth > 0, _iou(totals, k), np.nan))


def _accuracy_of_classes(totals: Floats, k: int) -> Ratios:
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


def _void_as_error(totals: Floats, k: int) -> Ratios:
    hits, truth, predicted, on_void = _parts(totals, k)
    return mean_defined(ratio(hits, truth + predicted + on_void - hits))


def _per_image(rule: Callable[[Floats, int], Ratios]) -> Callable[[Floats], Floats]:
    """Take a number of each image, and whether it has one."""

    def sums(counts: Floats) -> Floats:
        values = rule(_flat(counts), counts.shape[2])
        return np.stack([np.nan_to_num(values), ~np.isnan(values)], 1)

    return sums


def _mean_of_images(totals: Floats, k: int) -> Ratios:
    return ratio(totals[:, 0], totals[:, 1])


def _per_class_and_image(only_true: bool) -> Callable[[Floats], Floats]:
    """Take the IoU of each class in each image, and whether it has one: (N, 2·K)."""

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
    # Classes that no image shows count 0, as theirs do.
    return np.nan_to_num(ratio(totals[:, :k], totals[:, k:])).mean(1)


_MATRIX = "one matrix over all images"
CONVENTIONS: Mapping[str, tuple[Rule, ...]] = {
    "smp": (
        Rule("iou_score(reduction='macro')", f"{_MATRIX}; a class without a union counts 1", _flat, _absent_is(1.0)),
        Rule(
            "iou_score(reduction='macro-imagewise')",
            "mean over images of the mean over all classes; a class without a union counts 1",
            _per_image(_absent_is(1.0)),
            _mean_of_images,
        ),
        Rule("iou_score(reduction='micro')", f"{_MATRIX}; all classes' pixels added up before dividing", _flat, _micro),
        Rule(
            "iou_score(reduction='micro-imagewise')",
            "mean over images; in each, all classes' pixels added up before dividing; one without any counts 1",
            _per_image(_micro_or_one),
            _mean_of_images,
        ),
    ),
    "torchmetrics": (
        Rule(
            "JaccardIndex(task='multiclass', average='macro')",
            f"{_MATRIX}; mean over classes with a union",
            _flat,
            _mean_over_union,
        ),
        Rule(
            "JaccardIndex(task='multiclass', average='micro')",
            f"{_MATRIX}; all classes' pixels added up before dividing",
            _flat,
            _micro,
        ),
        Rule(
            "segmentation.MeanIoU(input_format='index')",
            "mean over all pairs of an image and a class with a union there",
            _per_class_and_image(only_true=False),
            _mean_of_pairs,
            knows_void=False,
        ),
    ),
    "mmseg": (
        Rule("IoUMetric: mIoU", f"{_MATRIX}; mean over classes with a union", _flat, _mean_over_union),
        Rule("IoUMetric: mAcc", "mean recall over classes that the truth shows", _flat, _accuracy_of_classes),
        Rule("IoUMetric: aAcc", "share of pixels that are right", _flat, _pixel_accuracy),
    ),
    "ultralytics": (
        Rule(
            "SemanticMetrics: mIoU",
            f"{_MATRIX}; mean over classes that the truth shows: predicting a class that is nowhere costs it nothing",
            _flat,
            _mean_over_true,
        ),
    ),
    "monai": (
        Rule(
            "MeanIoU(reduction='mean')",
            "mean over images of the mean over the classes that their truth shows",
            _per_image(_mean_over_true),
            _mean_of_images,
        ),
        Rule(
            "MeanIoU(reduction='mean_batch').mean()",
            "mean over classes of the mean over images whose truth shows the class; a class that none shows counts 0",
            _per_class_and_image(only_true=True),
            _mean_of_class_means,
        ),
    ),
    "sceneparsing": (
        Rule("Mean IoU", f"{_MATRIX}; mean over all classes, one without a union counts 0", _flat, _absent_is(0.0)),
        Rule("Pixel Accuracy", "share of labelled pixels that are right", _flat, _pixel_accuracy),
    ),
    "void-as-error": (
        Rule(
            "mIoU, void as error",
            f"{_MATRIX}; what is predicted on void pixels is a false positive of its class",
            _flat,
            _void_as_error,
        ),
    ),
}


def peer_scores(
    name: str,
    counts: Counts,
    groups: Sequence[Hashable],
    *,
    ignored: bool = False,
    resamples: int = 1000,
    seed: int = 0,
) -> tuple[PeerScore, ...]:
    """Give the numbers that a peer would print.

    Args:
        name: one of `CONVENTIONS`.
        counts: (N, 4, K) per image and class: pixels found, true, predicted, predicted on void.
        groups: one per image, None stands for itself.
        ignored: whether there are ignored pixels.
        resamples: draws of the bootstrap.
        seed: equal seeds draw the same images as for our own scores.

    Raises:
        UsageError: an unknown name.
    """
    require_convention(name)
    k, found = counts.shape[2], []
    for rule in CONVENTIONS[name]:

        def statistic(totals: Floats, _: Floats, rule: Rule = rule) -> Floats:
            return rule.value(totals, k)[:, None]

        sums = rule.sums(counts.astype(np.float64))
        score = score_sums(sums, statistic, groups, resamples=resamples, seed=seed)[0]
        unknown = "" if rule.knows_void or not ignored else "; void is left out, which this call cannot do"
        found.append(PeerScore(rule.call, rule.says + unknown, score))
    return tuple(found)


def require_convention(name: str) -> None:
    """Raise where nobody knows this convention.

    Raises:
        UsageError: an unknown name.
    """
    if name not in CONVENTIONS:
        raise UsageError("--convention", expected=", ".join(CONVENTIONS), found=name, do="Choose one of these.")
