"""Overlap scores over a data set with intervals, and their conventions in words.

The main scores come from one confusion matrix over the whole data set. A mean of per-image or per-batch values differs from
it and depends on how pixels are divided into images; it is not called mIoU here.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np

from pixelwise.errors import DataError
from pixelwise.labels import Labels
from pixelwise.metrics.confusion import Counts, Ratios, margins, mean_defined, ratio
from pixelwise.metrics.intervals import (
    FEWEST_UNITS,
    FEWEST_WITH_CLASS,
    METHOD,
    Floats,
    Statistic,
    by_group,
    score_sums,
)
from pixelwise.types import ClassScores, Scores

_MEANS = ("miou", "miou_present", "mean_dice", "pixel_accuracy", "frequency_weighted_iou")
_PER_CLASS = ("iou", "dice", "precision", "recall")
_SHOWN = 6


class Tally:
    """Collect what scores need: 4·K counts per image, and one confusion matrix over all images.

    Args:
        labels: the K classes.
    """

    def __init__(self, labels: Labels) -> None:
        k = labels.num_classes
        self.labels, self.matrix, self.ignored_pixels = labels, np.zeros((k, k), np.int64), 0
        self._counts: list[Counts] = []
        self.groups: list[Hashable] = []

    def add(
        self,
        matrix: Counts,
        *,
        ignored_pixels: int = 0,
        on_ignored: Counts | None = None,
        unpredicted: Counts | None = None,
        group: Hashable = None,
    ) -> Counts:
        """Add one image and return its counts (4, K), as in `counts`.

        Args:
            matrix: int64 (K, K), rows truth, columns prediction.
            ignored_pixels: number of ignored pixels.
            on_ignored: (K,) predicted pixels where the truth is ignored, for conventions that count them.
            unpredicted: (K,) true pixels without a predicted class, which are misses as in cityscapesScripts.
            group: images of one group are one unit of the intervals; None for an image without a group.
        """
        self.matrix += matrix
        self.ignored_pixels += ignored_pixels
        zeros = np.zeros(len(matrix), np.int64)
        hits, truth, predicted = margins(matrix)
        truth = truth + (zeros if unpredicted is None else unpredicted)
        self._counts.append(np.stack([hits, truth, predicted, zeros if on_ignored is None else on_ignored]))
        self.groups.append(group)
        return self._counts[-1]

    def counts(self) -> Counts:
        """Return the counts per image and class, (N, 4, K).

        Rows: true positives, true pixels, predicted pixels, and pixels predicted where the truth is ignored.

        Raises:
            DataError: no image was added.
        """
        if not self._counts:
            raise DataError("scores", expected="at least one image", found="none", do="Name a split with images.")
        return np.stack(self._counts)

    def scores(self, *, intervals: bool = True) -> Scores:
        """Return all scores, with 95 % intervals over images, or over groups if there are any.

        Raises:
            DataError: no image was added.
        """
        return self._scores(self.counts()[:, :3], self.matrix, intervals)

    def majority(self, *, intervals: bool = True) -> Scores:
        """Return the scores of predicting the most frequent true class everywhere, a baseline for any model."""
        truth = self.counts()[:, 1]
        best = int(truth.sum(0).argmax())
        constant = np.zeros((len(truth), 3, truth.shape[1]), np.int64)
        constant[:, 0, best], constant[:, 1], constant[:, 2, best] = truth[:, best], truth, truth.sum(1)
        matrix = np.zeros_like(self.matrix)
        matrix[:, best] = truth.sum(0)
        scores = self._scores(constant, matrix, intervals)
        name = self.labels.names[best]
        return replace(scores, convention=f"every pixel predicted as {name!r}; {scores.convention}")

    def _scores(self, sums: Counts, matrix: Counts, intervals: bool) -> Scores:
        k = self.labels.num_classes
        flat = sums.reshape(len(sums), -1)
        units, kind = by_group(flat, self.groups)
        found = score_sums(flat, overlap_statistic(k), self.groups, intervals=intervals)
        means: dict[str, Any] = dict(zip(_MEANS, found, strict=False))
        iou, dice, precision, recall = (found[5 + i * k : 5 + (i + 1) * k] for i in range(4))
        _, truth, predicted = sums.sum(0)
        classes = tuple(
            ClassScores(name, iou[c], dice[c], precision[c], recall[c], pixels=int(truth[c]))
            for c, name in enumerate(self.labels.names)
        )
        excluded = tuple(name for name, n in zip(self.labels.names, truth + predicted, strict=True) if n == 0)
        present = (units.reshape(-1, 3, k)[:, 1:].sum(1) > 0).sum(0)
        rare = {name: int(n) for name, n in zip(self.labels.names, present, strict=True) if 0 < n < FEWEST_WITH_CLASS}
        pixels = units.reshape(-1, 3, k)[:, 1].sum(1).astype(np.float64)
        return Scores(
            **means,
            classes=classes,
            images=len(sums),
            ignored_pixels=self.ignored_pixels,
            excluded=excluded,
            convention=_convention(self.labels, excluded, int((truth > 0).sum())),
            interval=interval_sentence(len(units), kind, len(sums), rare, k - len(excluded), intervals),
            interval_method=interval_method(pixels, kind, intervals),
            confusion=matrix.copy(),
        )


def scores(
    matrices: Iterable[Counts],
    labels: Labels,
    *,
    ignored_pixels: int = 0,
    groups: Sequence[Hashable] | None = None,
    intervals: bool = True,
) -> Scores:
    """Score a data set from one int64 (K, K) matrix per image, as an array (N, K, K) or any iterable.

    Args:
        matrices: at least one; rows truth, columns prediction.
        labels: names of the K classes.
        ignored_pixels: number of ignored pixels, for the record.
        groups: one per image; images of one group are one unit of the intervals, None for an image without a group.
        intervals: whether to compute intervals.
    """
    tally = Tally(labels)
    for i, matrix in enumerate(matrices):
        tally.add(matrix, ignored_pixels=ignored_pixels if i == 0 else 0, group=groups[i] if groups else None)
    return tally.scores(intervals=intervals)


def overlap_scores(totals: Floats, reference: Floats) -> Ratios:
    """Score totals (R, 3·K) of true positives, true pixels and predicted pixels.

    Returns:
        (R, 5 + 4·K): five means, then per class IoU, Dice, precision and recall. Means are over the classes defined by the
        reference (1, 3·K), the totals of the data set: see `metrics.intervals.Statistic`.
    """
    hits, truth, predicted = np.split(totals, 3, axis=1)
    iou, dice = ratio(hits, truth + predicted - hits), ratio(2 * hits, truth + predicted)
    all_hits, all_truth, all_predicted = np.split(reference, 3, axis=1)
    all_iou = ratio(all_hits, all_truth + all_predicted - all_hits)
    all_dice = ratio(2 * all_hits, all_truth + all_predicted)
    counted = truth.sum(1)
    means = [
        mean_defined(np.where(np.isnan(iou), all_iou, iou)),
        mean_defined(np.where(all_truth > 0, np.where(truth > 0, iou, all_iou), np.nan)),
        mean_defined(np.where(np.isnan(dice), all_dice, dice)),
        ratio(hits.sum(1), counted),
        ratio((truth * np.nan_to_num(iou)).sum(1), counted),
    ]
    return np.concatenate([np.stack(means, 1), iou, dice, ratio(hits, predicted), ratio(hits, truth)], 1)


def _convention(labels: Labels, excluded: Sequence[str], present: int) -> str:
    k = labels.num_classes
    absent = f", without {', '.join(excluded)}" if excluded else ""
    return (
        f"one confusion matrix over all images; means over {k - len(excluded)} of {k} classes in ground truth or prediction"
        f"{absent}; miou_present over the {present} in the ground truth; ignored pixels are excluded"
    )


def overlap_statistic(num_classes: int) -> Statistic:
    """Return the scores of `overlap_scores` with what their intervals need."""
    names = (*_MEANS, *(name for name in _PER_CLASS for _ in range(num_classes)))
    return Statistic(overlap_scores, names, _overlap_weights, partial(_parts, num_classes=num_classes))


def _overlap_weights(sums: Floats) -> Floats:
    """Return the denominators of `overlap_scores` per unit; for means, which take their intervals from classes, the pixels."""
    hits, truth, predicted = np.split(sums, 3, axis=1)
    pixels = np.repeat(truth.sum(1, keepdims=True), len(_MEANS), axis=1)
    return np.concatenate([pixels, truth + predicted - hits, truth + predicted, predicted, truth], axis=1)


def _parts(totals: Floats, num_classes: int) -> Mapping[int, Sequence[int]]:
    """Return the positions of the class scores that `miou`, `miou_present` and `mean_dice` are over."""
    _, truth, predicted = np.split(totals, 3)
    defined, present = np.flatnonzero(truth + predicted), np.flatnonzero(truth)
    iou, dice = len(_MEANS), len(_MEANS) + num_classes
    return {0: (iou + defined).tolist(), 1: (iou + present).tolist(), 2: (dice + defined).tolist()}


def interval_method(pixels: Floats, kind: str, intervals: bool = True) -> dict[str, Any]:
    """Describe the method of the intervals for programs: method, unit, n, and the effective number of units by pixels.

    Args:
        pixels: (N,) counted pixels per unit.
        kind: "images" or "groups".
        intervals: whether they were requested.
    """
    n, squares = len(pixels), float((pixels**2).sum())
    effective = float(pixels.sum()) ** 2 / squares if squares else 0.0
    method = METHOD if intervals and n >= FEWEST_UNITS else "none"
    return {"method": method, "unit": kind.removesuffix("s"), "n": n, "effective_n": round(effective, 1)}


def interval_sentence(
    units: int, kind: str, images: int, rare: Mapping[str, int], classes: int, intervals: bool = True
) -> str:
    """Describe how intervals were made, and which scores have none.

    Args:
        units: number of images or groups.
        kind: "images" or "groups".
        images: number of images.
        rare: number of units with each class that is in too few of them for an interval.
        classes: number of classes that the mIoU is over.
        intervals: whether they were requested.
    """
    if not intervals:
        return "none: not requested"
    counted = f"{units} {kind if units != 1 else kind.removesuffix('s')}"
    over = counted if kind == "images" else f"{counted} of {images} images"
    if units < FEWEST_UNITS:
        return f"none: {over} {'is' if units == 1 else 'are'} too few, at least {FEWEST_UNITS} are needed"
    parts = [
        f"95 % jackknife over {over}, with Student's t on the logit scale, the effective number of {kind} per "
        "class, and variances shrunk towards their mean over the classes; those of means over classes are combined from the "
        "classes"
    ]
    if rare:
        shown = ", ".join(f"{name} ({n})" for name, n in list(rare.items())[:_SHOWN])
        more = f" and {len(rare) - _SHOWN} more" if len(rare) > _SHOWN else ""
        parts.append(
            f"no interval for classes in fewer than {FEWEST_WITH_CLASS} {kind}: {shown}{more}; they are "
            f"{100 * len(rare) / max(classes, 1):.0f} % of the mIoU, whose interval is less certain for it"
        )
    return "; ".join(parts)
