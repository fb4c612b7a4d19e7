"""What is summed up of every image beside the confusion matrix: a meter per family of metrics.

Comes in: a sample with its prediction, and where asked its probabilities band by band. Goes out: sums per image, the scores
of their totals, and tables for a report. Knows nothing of predictors, files or how the data set is walked through.

A meter says what its numbers are called (`figures`: a key of `metrics.definitions`, and the class it is of or None), turns a
image into sums that add up (`see`), and sums into scores (`values`, see `metrics.intervals.Statistic`).
"""

from __future__ import annotations

from collections.abc import Collection, Hashable, Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from pixelwise.errors import DataError, UsageError
from pixelwise.labels import Labels
from pixelwise.metrics import boundary, calibration, surface
from pixelwise.metrics.confusion import mean_defined, ratio
from pixelwise.metrics.intervals import Floats, score_sums
from pixelwise.types import Prediction, Sample, Score

METRICS = ("boundary", "surface", "calibration", "diagnosis")
DEFAULT_METRICS = ("boundary", "calibration", "diagnosis")
_SURFACE_ROWS = {name: row for row, name in enumerate(surface.SUMS)}
Figure = tuple[str, int | None]
Found = tuple[dict[str, Score], list[dict[str, Score]]]


class Scoring(Protocol):
    """Score totals."""

    figures: tuple[Figure, ...]

    def values(self, totals: Floats, whole: Floats) -> Floats:
        """Score totals (R, M): (R, S), in the order of `figures`."""
        ...

    def says(self) -> str:
        """Say in words how it measures."""
        ...


class Meter(Scoring, Protocol):
    """Sum up images, and score the totals."""

    def see(self, sample: Sample, prediction: Prediction) -> Floats:
        """Give the sums (M,) of one image."""
        ...


def _spread(labels: Labels, over_all: Sequence[str], each: Sequence[str]) -> tuple[Figure, ...]:
    classes = range(labels.num_classes)
    return (*((key, None) for key in over_all), *((key, k) for key in each for k in classes))


def _filled(values: Floats, whole: Floats) -> Floats:
    """Average over classes; where a draw lacks one, as over all images."""
    return mean_defined(np.where(np.isnan(values), whole, values))


class ImageMeter:
    """Average over images what each scores alone: another number than that of one matrix, under another name."""

    def __init__(self, labels: Labels) -> None:
        self.labels = labels
        self.figures = _spread(labels, ("image_miou", "image_dice"), ("image_iou",))

    def of(self, counts: NDArray[np.int64]) -> Floats:
        """Give the sums of one image's counts (4, K), as `Tally` holds them."""
        hits, truth, predicted, _ = counts
        each = ratio(hits, truth + predicted - hits)
        values = np.array([mean_defined(each), mean_defined(2 * each / (1 + each)), *each])
        return np.concatenate([np.nan_to_num(values), ~np.isnan(values)])

    def values(self, totals: Floats, whole: Floats) -> Floats:
        """Divide sums of values by how many images have one."""
        value, count = np.split(totals, 2, axis=1)
        return ratio(value, count)

    def says(self) -> str:
        """Say how it measures."""
        return "image_: mean over images of each image's own score"


class BoundaryMeter:
    """Judge only what lies near the borders: boundary IoU and boundary F-score."""

    def __init__(self, labels: Labels, share: float = 0.02, tolerance: float = 0.0075) -> None:
        self.labels, self.share, self.tolerance = labels, share, tolerance
        self.figures = _spread(labels, ("boundary_miou", "mean_boundary_f1"), ("boundary_iou", "boundary_f1"))

    def see(self, sample: Sample, prediction: Prediction) -> Floats:
        """Count bands and contours of each class."""
        truth, predicted, k, void = with_open_class(sample, prediction)
        own = slice(self.labels.num_classes)
        diagonal = float(np.hypot.reduce(truth.shape))
        reach = max(1.0, self.tolerance * diagonal)
        bands = boundary.boundary_counts(truth, predicted, k, void, self.share, sample.id)
        contours = boundary.contour_counts(truth, predicted, k, void, reach, sample.id)
        return np.concatenate([bands[:, own].ravel(), contours[:, own].ravel()]).astype(np.float64)

    def values(self, totals: Floats, whole: Floats) -> Floats:
        """Give means over classes, and each class."""
        each, all_each = self._each(totals), self._each(whole)
        means = [_filled(a, b) for a, b in zip(each, all_each, strict=True)]
        return np.concatenate([np.stack(means, 1), *each], 1)

    def _each(self, totals: Floats) -> tuple[Floats, Floats]:
        k = self.labels.num_classes
        bands, contours = np.split(totals, [3 * k], axis=1)
        return boundary.boundary_iou(bands.reshape(-1, 3, k)), boundary.boundary_f_score(contours.reshape(-1, 4, k))

    def says(self) -> str:
        """Say how it measures."""
        return (
            f"boundary_iou within {100 * self.share:g} % of each image's diagonal of a border; boundary_f1 with contours matched "
            f"within {100 * self.tolerance:g} % of it, one pixel at least"
        )


class SurfaceMeter:
    """Measure how far surfaces lie apart, in the unit of the grid: Hausdorff, 95 %, mean, and surface Dice."""

    def __init__(self, labels: Labels, tolerance: float | None = None) -> None:
        self.labels, self.tolerance = labels, tolerance
        self.unit: str | None = None
        each = ("hausdorff", "hausdorff95", "surface_distance", "surface_dice", "missed", "invented")
        self.figures = _spread(labels, (), each)

    def see(self, sample: Sample, prediction: Prediction) -> Floats:
        """Sum up the distances of each class."""
        truth, predicted, k, void = with_open_class(sample, prediction)
        grid = sample.grid.with_axes(truth.ndim)
        self._require_unit(sample.id, grid.unit)
        reach = max(grid.spacing) if self.tolerance is None else self.tolerance
        sums = surface.surface_sums(truth, predicted, k, void, grid.spacing, reach, sample.id)
        return np.asarray(sums[:, : self.labels.num_classes], np.float64).ravel()

    def _require_unit(self, where: str, unit: str) -> None:
        self.unit = self.unit or unit
        if unit != self.unit or unit == "deg":
            raise DataError(
                where,
                expected="images of one unit of length" if unit != "deg" else "a unit of length",
                found=f"{unit} after {self.unit}" if unit != self.unit else "degrees",
                do="Score them apart, or leave surface out: --set evaluate.metrics=[boundary,calibration,diagnosis].",
            )

    def values(self, totals: Floats, whole: Floats) -> Floats:
        """Give each class's means over the images in which they are defined."""
        sums = totals.reshape(len(totals), -1, self.labels.num_classes)
        both, missed, invented = (sums[:, _SURFACE_ROWS[name]] for name in ("both", "missed", "invented"))
        means = surface.mean_surface_scores(sums).reshape(len(totals), -1)
        return np.concatenate([means, ratio(missed, both + missed), ratio(invented, both + invented)], axis=1)

    def says(self) -> str:
        """Say how it measures."""
        unit = self.unit or "px"
        reach = "the coarsest spacing of each image" if self.tolerance is None else f"{self.tolerance:g} {unit}"
        return f"surface distances in {unit}, means over images where truth and prediction show the class; surface_dice within {reach}"


class CalibrationMeter:
    """Hold probabilities against how often they are true."""

    def __init__(self, labels: Labels) -> None:
        self.labels, self.layout = labels, calibration.Layout(labels.num_classes)
        self.total = np.zeros(self.layout.size)
        self.coverage = calibration.coverage_counts(
            np.zeros((labels.num_classes, 0), np.float32), np.zeros(0, np.uint8), ignore_index=labels.ignore_index
        )
        self.now = np.zeros(self.layout.size)
        names = tuple(calibration.calibration_scores(self.total[None], self.layout))
        self.figures = _spread(labels, names, ("calibration_error",))

    def band(self, sample: Sample, top: int, probabilities: NDArray[np.float32]) -> None:
        """Take in some rows (K, rows, W) of the image that is being predicted."""
        assert sample.mask is not None
        truth, void = sample.mask[top : top + probabilities.shape[1]], self.labels.ignore_index
        self.now += calibration.calibration_sums(probabilities, truth, ignore_index=void, where=sample.id)
        self.coverage += calibration.coverage_counts(probabilities, truth, ignore_index=void, where=sample.id)

    def see(self, sample: Sample, prediction: Prediction) -> Floats:
        """Close the image."""
        sums, self.now = self.now, np.zeros_like(self.now)
        self.total += sums
        return sums

    def values(self, totals: Floats, whole: Floats) -> Floats:
        """Give the scores over all classes, and each class's error."""
        scores = calibration.calibration_scores(totals, self.layout)
        each, all_each = (calibration.classwise_errors(sums, self.layout) for sums in (totals, whole))
        scores["classwise_ece"] = _filled(each, all_each)
        return np.concatenate([np.stack(list(scores.values()), 1), each], 1)

    def says(self) -> str:
        """Say how it measures."""
        return f"calibration over counted pixels, {self.layout.bins} bins of equal width"

    def tables(self) -> dict[str, Any]:
        """Give the reliability diagram, and scores among the most confident pixels, as plain values."""
        bins = calibration.reliability(self.total, self.layout)
        parts = {name: _plain(getattr(bins, name)) for name in ("edges", "pixels", "confidence", "accuracy")}
        covered = calibration.coverage_scores(self.coverage)
        risk = {
            "coverage": list(covered.coverages),
            "pixel_accuracy": _plain(covered.pixel_accuracy),
            "miou": _plain(covered.mean_iou),
            "classes": _plain(covered.classes),
        }
        coverages, risks = calibration.risk_coverage(self.total, self.layout)
        curve = {"coverage": _plain(coverages), "risk": _plain(risks)}
        return {"reliability": parts, "risk_coverage": risk, "curve": curve}


def _plain(values: NDArray[Any]) -> list[Any]:
    return [None if isinstance(v, float) and np.isnan(v) else v for v in np.asarray(values).tolist()]


def with_open_class(sample: Sample, prediction: Prediction) -> tuple[NDArray[Any], NDArray[Any], int, int]:
    """Give truth, prediction, how many classes and the void value: one class more where the prediction leaves pixels open."""
    labels, truth = prediction.labels, sample.mask
    assert truth is not None
    k, void = labels.num_classes, labels.ignore_index
    open_ = prediction.mask == void
    if not open_.any():
        return truth, prediction.mask, k, void
    # Not the void value of so many classes: the class that was added may bear it.
    wide = np.where(truth == void, -1, truth.astype(np.int32))
    return wide, np.where(open_, k, prediction.mask.astype(np.int32)), k + 1, -1


def require_metrics(names: Collection[str]) -> None:
    """Raise where nobody knows a family of metrics.

    Raises:
        UsageError: an unknown name.
    """
    for name in names:
        if name not in METRICS:
            raise UsageError("--metrics", expected=", ".join(METRICS), found=name, do="Choose of these.")


def found(
    meter: Scoring, sums: Sequence[Floats], groups: Sequence[Hashable], num_classes: int, resamples: int, seed: int
) -> Found:
    """Score what a meter summed up: over all classes by key, and per class by key."""
    scores = score_sums(np.stack(sums), meter.values, groups, resamples=resamples, seed=seed)
    over_all: dict[str, Score] = {}
    each: list[dict[str, Score]] = [{} for _ in range(num_classes)]
    for (key, of), score in zip(meter.figures, scores, strict=True):
        (over_all if of is None else each[of])[key] = score
    return over_all, each
