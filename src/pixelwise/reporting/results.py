"""The results of an evaluation as the report shows them: scores by key, the confusion matrix, and where they come from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pixelwise.evaluation import Evaluation, ImageScore, ScoresFile
from pixelwise.metrics.definitions import DEFINITIONS
from pixelwise.types import ClassScores, Score, Scores

_UNDEFINED = Score(None)


class Value(NamedTuple):
    """A score with its key, its 95 % interval and its number of images; None where undefined."""

    key: str
    value: float | None = None
    low: float | None = None
    high: float | None = None
    n: int | None = None

    @classmethod
    def of(cls, key: str, score: Score) -> Value:
        """Return a score with its key."""
        return cls(key, score.value, score.low, score.high, score.n)


@dataclass(frozen=True)
class ClassResult:
    """The scores of one class, and its number of annotated pixels."""

    name: str
    pixels: int
    scores: Mapping[str, Value]

    def score(self, key: str) -> Value:
        """Return a score; undefined if it was not computed."""
        return self.scores.get(key, Value(key))


@dataclass(frozen=True)
class Results:
    """The results of an evaluation.

    Args:
        file: the evaluation, with model, data and split where known.
        scores: scores over all classes by key, without those that were not computed.
        classes: scores by class.
        calibration: how the probabilities were calibrated.
    """

    file: ScoresFile
    scores: Mapping[str, Value]
    classes: tuple[ClassResult, ...]
    calibration: Mapping[str, Any]

    @classmethod
    def from_dict(cls, plain: Mapping[str, Any]) -> Results:
        """Read the content of `scores.json`, with "calibration" where known; raises as `ScoresFile.from_dict`."""
        file = ScoresFile.from_dict(plain)
        scores = file.evaluation.scores
        means = ("miou", "miou_present", "mean_dice", "pixel_accuracy", "frequency_weighted_iou")
        classes = tuple(
            ClassResult(row.name, row.pixels, _values(row, ("iou", "dice", "precision", "recall")))
            for row in scores.classes
        )
        return cls(file, _values(scores, means), classes, plain.get("calibration") or {})

    @property
    def evaluation(self) -> Evaluation:
        """The evaluation."""
        return self.file.evaluation

    def score(self, key: str) -> Value:
        """Return a score over all classes; undefined if it was not computed."""
        return self.scores.get(key, Value(key))

    @property
    def score_keys(self) -> list[str]:
        """The keys of the scores over all classes, in the order of their definitions."""
        return [key for key in DEFINITIONS if key in self.scores]

    @property
    def class_score_keys(self) -> list[str]:
        """The keys of the scores by class, in the order of their definitions; unknown keys last."""
        keys = {key for entry in self.classes for key in entry.scores}
        return [key for key in DEFINITIONS if key in keys] + sorted(keys - set(DEFINITIONS))

    @property
    def confusion(self) -> NDArray[np.int64] | None:
        """The confusion matrix, (K, K) int64, rows annotated, columns predicted classes; None if unknown.

        Pixels without a predicted class are in an additional last column, if there are any.
        """
        matrix = self.evaluation.scores.confusion
        if not self.classes or matrix.shape != (len(self.classes), len(self.classes)):
            return None
        missing = np.array([entry.pixels for entry in self.classes], np.int64) - matrix.sum(1)
        return np.column_stack([matrix, missing]) if self.evaluation.unassigned_pixels else matrix


def _values(scores: Scores | ClassScores, names: tuple[str, ...]) -> dict[str, Value]:
    """Return the scores that were computed, by key."""
    found = {name: getattr(scores, name) for name in names} | dict(scores.more)
    return {key: Value.of(key, score) for key, score in found.items() if score != _UNDEFINED}


def area_error(image: ImageScore) -> float | None:
    """Return the sum over classes of |predicted − annotated pixels|, divided by the counted pixels; None if undefined.

    It is 0 if every class covers the correct area, wherever it is, and at most 2.
    """
    if not image.pixels or not image.counts:
        return None
    return sum(abs(predicted - true) for _, _, true, predicted, _ in image.counts) / image.pixels
