"""How good predictions are over a data set: every score with its interval, and the conventions in words.

Comes in: one confusion matrix per picture. Goes out: `Scores`. Knows nothing of images, models or files.

The headline is taken from one matrix over the whole data set. A mean of per-picture (or per-batch) values is another
number, which depends on how pixels are cut into pictures, and is not called mIoU here.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Sequence
from dataclasses import replace

import numpy as np

from pixelwise.errors import DataError
from pixelwise.labels import Labels
from pixelwise.metrics.confusion import Counts, Ratios, margins, mean_defined, ratio
from pixelwise.metrics.intervals import Floats, bootstrap
from pixelwise.types import ClassScores, Score, Scores

_MEANS = ("miou", "miou_present", "mean_dice", "pixel_accuracy", "frequency_weighted_iou")
_FEW = 10


class Tally:
    """Keep what scores need of each picture: 3·K sums instead of a K·K matrix, and one matrix over all.

    Args:
        labels: names the K classes.

    """

    def __init__(self, labels: Labels) -> None:
        k = labels.num_classes
        self.labels, self.matrix, self.ignored_pixels = labels, np.zeros((k, k), np.int64), 0
        self._margins: list[Counts] = []
        self._groups: list[Hashable] = []

    def add(self, matrix: Counts, *, ignored_pixels: int = 0, group: Hashable = None) -> None:
        """Take in one picture's matrix (K, K); pictures of one group are drawn together for intervals."""
        self.matrix += matrix
        self.ignored_pixels += ignored_pixels
        self._margins.append(np.stack(margins(matrix)))
        self._groups.append(group)

    def scores(self, *, resamples: int = 1000, seed: int = 0) -> Scores:
        """Give all scores with 95 % intervals over pictures, or over groups where there are any.

        Raises:
            DataError: no picture was taken in.

        """
        return self._scores(self._sums(), self.matrix, resamples, seed)

    def majority(self, *, resamples: int = 1000, seed: int = 0) -> Scores:
        """Give the scores of predicting the most frequent true class everywhere: what any model must beat."""
        truth = self._sums()[:, 1]
        best = int(truth.sum(0).argmax())
        constant = np.zeros((len(truth), 3, truth.shape[1]), np.int64)
        constant[:, 0, best], constant[:, 1], constant[:, 2, best] = truth[:, best], truth, truth.sum(1)
        matrix = np.zeros_like(self.matrix)
        matrix[:, best] = truth.sum(0)
        scores = self._scores(constant, matrix, resamples, seed)
        name = self.labels.names[best]
        return replace(scores, convention=f"every pixel predicted as {name!r}; {scores.convention}")

    def _sums(self) -> Counts:
        """Give (N, 3, K): found, true and predicted pixels of each picture."""
        if not self._margins:
            raise DataError("scores", expected="at least one picture", found="none", do="Name a split with pictures.")
        return np.stack(self._margins)

    def _scores(self, sums: Counts, matrix: Counts, resamples: int, seed: int) -> Scores:
        k = self.labels.num_classes
        units, kind = _by_group(sums, self._groups)
        whole = sums.sum(0).reshape(1, -1).astype(np.float64)
        values = _statistics(whole, whole)[0]
        low, high = bootstrap(
            units.reshape(len(units), -1), lambda totals: _statistics(totals, whole), resamples=resamples, seed=seed
        )
        found = [_score(*entry) for entry in zip(values, low, high, strict=True)]
        means = dict(zip(_MEANS, found, strict=False))
        iou, dice, precision, recall = (found[5 + i * k : 5 + (i + 1) * k] for i in range(4))
        truth, predicted = matrix.sum(1), matrix.sum(0)
        classes = tuple(
            ClassScores(name, iou[c], dice[c], precision[c], recall[c], pixels=int(truth[c]))
            for c, name in enumerate(self.labels.names)
        )
        excluded = tuple(name for name, n in zip(self.labels.names, truth + predicted, strict=True) if n == 0)
        return Scores(
            **means,
            classes=classes,
            images=len(sums),
            ignored_pixels=self.ignored_pixels,
            excluded=excluded,
            convention=_convention(self.labels, excluded, int((truth > 0).sum())),
            interval=_interval(len(units), kind, len(sums), resamples, seed),
            confusion=matrix.copy(),
        )


def scores(
    matrices: Iterable[Counts],
    labels: Labels,
    *,
    ignored_pixels: int = 0,
    groups: Sequence[Hashable] | None = None,
    resamples: int = 1000,
    seed: int = 0,
) -> Scores:
    """Score a data set from one int64 (K, K) matrix per picture, as an array (N, K, K) or any iterable.

    Args:
        matrices: at least one; rows truth, columns prediction.
        labels: names of the K classes.
        ignored_pixels: how many pixels counted in nothing, for the record.
        groups: one per picture; equal ones are drawn together for intervals, None stands for itself.
        resamples: draws of the bootstrap; less than 2 leaves the intervals out.
        seed: equal seeds give equal intervals.

    """
    tally = Tally(labels)
    for i, matrix in enumerate(matrices):
        tally.add(matrix, ignored_pixels=ignored_pixels if i == 0 else 0, group=groups[i] if groups else None)
    return tally.scores(resamples=resamples, seed=seed)


def _statistics(totals: Floats, whole: Floats) -> Ratios:
    """Turn totals (R, 3·K) of found, true and predicted pixels into (R, 5 + 4·K): `_MEANS`, then per class IoU, Dice, precision, recall.

    Means are over the classes that `whole` (1, 3·K), the sum over the data set, defines: a draw of pictures that lacks one of
    them takes its value of the whole set, else the mean would be over other classes from draw to draw.
    """
    hits, truth, predicted = np.split(totals, 3, axis=1)
    iou, dice = ratio(hits, truth + predicted - hits), ratio(2 * hits, truth + predicted)
    all_hits, all_truth, all_predicted = np.split(whole, 3, axis=1)
    all_iou, all_dice = (
        ratio(all_hits, all_truth + all_predicted - all_hits),
        ratio(2 * all_hits, all_truth + all_predicted),
    )
    everything = truth.sum(1)
    means = [
        mean_defined(np.where(np.isnan(iou), all_iou, iou)),
        mean_defined(np.where(all_truth > 0, np.where(truth > 0, iou, all_iou), np.nan)),
        mean_defined(np.where(np.isnan(dice), all_dice, dice)),
        ratio(hits.sum(1), everything),
        ratio((truth * np.nan_to_num(iou)).sum(1), everything),
    ]
    return np.concatenate([np.stack(means, 1), iou, dice, ratio(hits, predicted), ratio(hits, truth)], 1)


def _by_group(sums: Counts, groups: Sequence[Hashable]) -> tuple[Counts, str]:
    """Add up the pictures of each group; a picture without a group is one of its own."""
    if all(group is None for group in groups):
        return sums, "images"
    place: dict[Hashable, int] = {}
    # A tuple, so that no group's own name is taken for a picture's number.
    names = [("alone", i) if group is None else ("group", group) for i, group in enumerate(groups)]
    index = [place.setdefault(name, len(place)) for name in names]
    units = np.zeros((len(place), *sums.shape[1:]), np.int64)
    np.add.at(units, index, sums)
    return units, "groups"


def _score(value: float, low: float, high: float) -> Score:
    plain = [None if np.isnan(v) else float(v) for v in (value, low, high)]
    return Score(*plain) if plain[0] is not None else Score(None)


def _convention(labels: Labels, excluded: Sequence[str], present: int) -> str:
    k = labels.num_classes
    absent = f", without {', '.join(excluded)}" if excluded else ""
    return (
        f"one confusion matrix over all images; means over the {k - len(excluded)} of {k} classes that truth or prediction "
        f"shows{absent}; miou_present over the {present} that the truth shows; ignored pixels count in nothing"
    )


def _interval(units: int, kind: str, images: int, resamples: int, seed: int) -> str:
    if units < 2:
        return f"none: one {kind.removesuffix('s')} leaves nothing to draw from"
    if resamples < 2:
        return "none: no resamples asked for"
    drawn = f"{units} {kind}" if kind == "images" else f"{units} groups of {images} images"
    few = f"; fewer than {_FEW} {kind} give intervals that are too narrow" if units < _FEW else ""
    return (
        f"95 % percentile bootstrap over {drawn}, {resamples} resamples, seed {seed}; a class that a draw lacks counts in the "
        f"means as over all images{few}"
    )
