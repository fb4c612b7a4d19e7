"""The interface of metric families, and what they share.

A meter turns each image into sums that add up over images (`add`), and totals of these sums into scores (`values`, see
`metrics.intervals.Statistic`). `figures` names the scores: a key of `metrics.definitions`, and a class index or None.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pixelwise.labels import Labels
from pixelwise.metrics.confusion import Counts, mean_defined
from pixelwise.metrics.intervals import Floats, Scale, Statistic, score_sums
from pixelwise.types import Prediction, Sample, Score

Figure = tuple[str, int | None]


class MeterOptions(NamedTuple):
    """Options of the metric families.

    Args:
        labels: the classes.
        surface_tolerance: distance for surface Dice, in the unit of the grids; None for the coarsest spacing of each image.
    """

    labels: Labels
    surface_tolerance: float | None = None


class Meter:
    """Sum up images and score the totals; by default it has no scores, and probabilities are not read."""

    figures: tuple[Figure, ...] = ()
    means: Mapping[str, str] = {}
    """The key per class that a key over all classes is the mean of; its interval is combined from those of the classes."""
    scales: Mapping[str, Scale] = {}
    """The scale of keys that are not shares between 0 and 1."""
    reads_probabilities = False
    """Whether `band` is called for predictors that offer probabilities."""
    needs_probabilities = False
    """Whether the family is skipped for predictors without probabilities."""

    def __init__(self, options: MeterOptions) -> None:
        self.labels = options.labels

    def band(self, sample: Sample, top: int, probabilities: NDArray[np.float32]) -> None:
        """Read rows (K, rows, W) of the image that is being predicted, starting at row `top`."""

    def add(self, sample: Sample, prediction: Prediction, counts: Counts) -> Floats:
        """Return the sums (M,) of one image; `counts` (4, K) are those of `metrics.scores.Tally`."""
        return np.zeros(0)

    def values(self, totals: Floats, reference: Floats) -> Floats:
        """Score totals (R, M) as (R, S), in the order of `figures`; see `metrics.intervals.Statistic`."""
        return np.zeros((len(totals), 0))

    def weights(self, sums: Floats) -> Floats | None:
        """Map the sums of units (N, M) to their share in the denominator of each score (N, S).

        None if every image in which a score is defined counts alike.
        """
        return None

    def convention(self) -> str:
        """Describe how the scores are computed; empty if there is nothing to say."""
        return ""

    def tables(self) -> Mapping[str, Any]:
        """Return fields of `results.Tables`."""
        return {}

    def notices(self) -> tuple[str, ...]:
        """Return messages for the user."""
        return ()


def class_figures(labels: Labels, overall: Sequence[str], per_class: Sequence[str]) -> tuple[Figure, ...]:
    """Return the figures of keys over all classes, then those of keys per class."""
    classes = range(labels.num_classes)
    return (*((key, None) for key in overall), *((key, k) for key in per_class for k in classes))


def mean_over_classes(values: Floats, reference: Floats) -> Floats:
    """Average over classes; classes that the totals lack take their value from the whole data set."""
    return mean_defined(np.where(np.isnan(values), reference, values))


def with_unpredicted_class(sample: Sample, prediction: Prediction) -> tuple[NDArray[Any], NDArray[Any], int, int]:
    """Return truth, prediction, number of classes and ignore index, with an extra class for pixels without a prediction."""
    labels, truth = prediction.labels, sample.mask
    assert truth is not None
    k, ignore_index = labels.num_classes, labels.ignore_index
    unpredicted = prediction.mask == ignore_index
    if not unpredicted.any():
        return truth, prediction.mask, k, ignore_index
    # -1, because the extra class may have the value of the ignore index.
    wide = np.where(truth == ignore_index, -1, truth.astype(np.int32))
    return wide, np.where(unpredicted, k, prediction.mask.astype(np.int32)), k + 1, -1


def meter_statistic(meter: Meter) -> Statistic:
    """Return the scores of a meter with what their intervals need."""
    keys = [key for key, _ in meter.figures]
    members = {key: [place for place, other in enumerate(keys) if other == key] for key in keys}

    def means(totals: Floats) -> Mapping[int, Sequence[int]]:
        values = meter.values(totals[None], totals[None])[0]
        return {
            members[mean][0]: [place for place in members[part] if not np.isnan(values[place])]
            for mean, part in meter.means.items()
        }

    return Statistic(meter.values, keys, meter.weights, means, meter.scales)


def meter_scores(
    meter: Meter, sums: Sequence[Floats], groups: Sequence[Hashable], num_classes: int, intervals: bool
) -> tuple[dict[str, Score], list[dict[str, Score]]]:
    """Score the sums of a meter: overall scores by key, and for each class its scores by key."""
    overall: dict[str, Score] = {}
    per_class: list[dict[str, Score]] = [{} for _ in range(num_classes)]
    if meter.figures:
        scores = score_sums(np.stack(sums), meter_statistic(meter), groups, intervals=intervals)
        for (key, k), score in zip(meter.figures, scores, strict=True):
            (overall if k is None else per_class[k])[key] = score
    return overall, per_class
