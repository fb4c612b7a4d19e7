"""Families of metrics in addition to the overlap of areas, registered by name in `METERS`.

To add a family, write a subclass of `evaluation.base.Meter` in a module of its own and add it to `METERS`.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pixelwise.errors import DataError, UsageError, nearest
from pixelwise.evaluation.base import (
    Meter,
    MeterOptions,
    class_figures,
    mean_over_classes,
    with_unpredicted_class,
)
from pixelwise.evaluation.diagnosis import Diagnosis
from pixelwise.evaluation.results import CoverageTable, ReliabilityTable, RiskCurve
from pixelwise.metrics import boundary, calibration, surface
from pixelwise.metrics.confusion import Counts, mean_defined, ratio
from pixelwise.metrics.intervals import Floats, Scale
from pixelwise.types import Prediction, Sample

_SURFACE_ROWS = {name: row for row, name in enumerate(surface.SUMS)}


class ImageMeter(Meter):
    """Means over images of each image's own scores, which differ from the scores of one matrix over all images."""

    def __init__(self, options: MeterOptions) -> None:
        self.figures = class_figures(options.labels, ("image_miou", "image_dice"), ("image_iou",))

    def add(self, sample: Sample, prediction: Prediction, counts: Counts) -> Floats:
        """Return the image's scores (0 if undefined), then whether each is defined."""
        hits, truth, predicted, _ = counts
        iou = ratio(hits, truth + predicted - hits)
        values = np.array([mean_defined(iou), mean_defined(2 * iou / (1 + iou)), *iou])
        return np.concatenate([np.nan_to_num(values), ~np.isnan(values)])

    def values(self, totals: Floats, reference: Floats) -> Floats:
        """Divide sums of scores by the number of images that define them."""
        value, count = np.split(totals, 2, axis=1)
        return ratio(value, count)

    def convention(self) -> str:
        """Describe the mean."""
        return "image_*: mean over images of each image's own score"


class BoundaryMeter(Meter):
    """Boundary IoU and boundary F-score, which consider only pixels near borders."""

    means: Mapping[str, str] = {"boundary_miou": "boundary_iou", "mean_boundary_f1": "boundary_f1"}

    def __init__(self, options: MeterOptions, share: float = 0.02, tolerance: float = 0.0075) -> None:
        self.num_classes, self.share, self.tolerance = options.labels.num_classes, share, tolerance
        keys = ("boundary_miou", "mean_boundary_f1"), ("boundary_iou", "boundary_f1")
        self.figures = class_figures(options.labels, *keys)

    def add(self, sample: Sample, prediction: Prediction, counts: Counts) -> Floats:
        """Count bands and contours of each class."""
        truth, predicted, k, ignore_index = with_unpredicted_class(sample, prediction)
        reach = max(1.0, self.tolerance * float(np.hypot.reduce(truth.shape)))
        bands = boundary.boundary_counts(truth, predicted, k, ignore_index, self.share, sample.id)
        contours = boundary.contour_counts(truth, predicted, k, ignore_index, reach, sample.id)
        known = slice(self.num_classes)
        return np.concatenate([bands[:, known].ravel(), contours[:, known].ravel()]).astype(np.float64)

    def values(self, totals: Floats, reference: Floats) -> Floats:
        """Return the means over classes, then the scores of each class."""
        each, reference_each = self._each(totals), self._each(reference)
        means = [mean_over_classes(a, b) for a, b in zip(each, reference_each, strict=True)]
        return np.concatenate([np.stack(means, 1), *each], 1)

    def weights(self, sums: Floats) -> Floats | None:
        """Return the pixels of the union of the bands, and of both contours."""
        k = self.num_classes
        rows = sums.reshape(len(sums), -1, k)
        union, contour = rows[:, 1] + rows[:, 2] - rows[:, 0], rows[:, 4] + rows[:, 6]
        return np.concatenate([union.sum(1, keepdims=True), contour.sum(1, keepdims=True), union, contour], 1)

    def _each(self, totals: Floats) -> tuple[Floats, Floats]:
        k = self.num_classes
        bands, contours = np.split(totals, [3 * k], axis=1)
        return boundary.boundary_iou(bands.reshape(-1, 3, k)), boundary.boundary_f_score(contours.reshape(-1, 4, k))

    def convention(self) -> str:
        """Describe the widths."""
        return (
            f"boundary_iou within {100 * self.share:g} % of each image's diagonal of a border; boundary_f1 with contours matched "
            f"within {100 * self.tolerance:g} % of it, at least one pixel"
        )


class SurfaceMeter(Meter):
    """Distances between surfaces in the unit of the grid: Hausdorff, its 95 % percentile, mean, and surface Dice."""

    scales: Mapping[str, Scale] = dict.fromkeys(("hausdorff", "hausdorff95", "surface_distance"), "distance")

    def __init__(self, options: MeterOptions) -> None:
        self.num_classes, self.tolerance = options.labels.num_classes, options.surface_tolerance
        self.unit: str | None = None
        keys = ("hausdorff", "hausdorff95", "surface_distance", "surface_dice", "missed", "invented")
        self.figures = class_figures(options.labels, (), keys)

    def add(self, sample: Sample, prediction: Prediction, counts: Counts) -> Floats:
        """Sum up the distances of each class."""
        truth, predicted, k, ignore_index = with_unpredicted_class(sample, prediction)
        grid = sample.grid.with_axes(truth.ndim)
        self._require_unit(sample.id, grid.unit)
        reach = max(grid.spacing) if self.tolerance is None else self.tolerance
        sums = surface.surface_sums(truth, predicted, k, ignore_index, grid.spacing, reach, sample.id)
        return np.asarray(sums[:, : self.num_classes], np.float64).ravel()

    def _require_unit(self, where: str, unit: str) -> None:
        self.unit = self.unit or unit
        if unit != self.unit or unit == "deg":
            raise DataError(
                where,
                expected="the same unit of length in all images" if unit != "deg" else "a unit of length",
                found=f"{unit} after {self.unit}" if unit != self.unit else "degrees",
                do="Evaluate them separately, or without surface: --set evaluate.metrics=[boundary,calibration,diagnosis].",
            )

    def values(self, totals: Floats, reference: Floats) -> Floats:
        """Return each class's means over the images in which they are defined."""
        sums = totals.reshape(len(totals), -1, self.num_classes)
        both, missed, invented = (sums[:, _SURFACE_ROWS[name]] for name in ("both", "missed", "invented"))
        means = surface.mean_surface_scores(sums).reshape(len(totals), -1)
        return np.concatenate([means, ratio(missed, both + missed), ratio(invented, both + invented)], axis=1)

    def convention(self) -> str:
        """Describe unit and tolerance."""
        unit = self.unit or "px"
        reach = "the coarsest spacing of each image" if self.tolerance is None else f"{self.tolerance:g} {unit}"
        return (
            f"surface distances in {unit}, means over images where ground truth and prediction contain the class; surface_dice "
            f"within {reach}"
        )


class CalibrationMeter(Meter):
    """Agreement of probabilities with the frequency at which they are correct."""

    means: Mapping[str, str] = {"classwise_ece": "calibration_error"}
    scales: Mapping[str, Scale] = {"brier": "distance", "nll": "distance"}
    reads_probabilities = True
    needs_probabilities = True

    def __init__(self, options: MeterOptions) -> None:
        labels = options.labels
        self.ignore_index, self.layout = labels.ignore_index, calibration.Layout(labels.num_classes)
        self.total = np.zeros(self.layout.size)
        self.coverage = calibration.coverage_counts(
            np.zeros((labels.num_classes, 0), np.float32), np.zeros(0, np.uint8), ignore_index=labels.ignore_index
        )
        self.image_sums = np.zeros(self.layout.size)
        keys = tuple(calibration.calibration_scores(self.total[None], self.layout))
        self.figures = class_figures(labels, keys, ("calibration_error",))

    def band(self, sample: Sample, top: int, probabilities: NDArray[np.float32]) -> None:
        """Add some rows to the sums of the image."""
        assert sample.mask is not None
        truth, ignored = sample.mask[top : top + probabilities.shape[1]], self.ignore_index
        self.image_sums += calibration.calibration_sums(probabilities, truth, ignore_index=ignored, where=sample.id)
        self.coverage += calibration.coverage_counts(probabilities, truth, ignore_index=ignored, where=sample.id)

    def add(self, sample: Sample, prediction: Prediction, counts: Counts) -> Floats:
        """Return the sums of the bands since the last image."""
        sums, self.image_sums = self.image_sums, np.zeros_like(self.image_sums)
        self.total += sums
        return sums

    def values(self, totals: Floats, reference: Floats) -> Floats:
        """Return the scores over all classes, then the error of each class."""
        scores = calibration.calibration_scores(totals, self.layout)
        each, reference_each = (calibration.classwise_errors(sums, self.layout) for sums in (totals, reference))
        scores["classwise_ece"] = mean_over_classes(each, reference_each)
        return np.concatenate([np.stack(list(scores.values()), 1), each], 1)

    def weights(self, sums: Floats) -> Floats | None:
        """Return the counted pixels; for a class, where it is in the truth."""
        parts = self.layout.split(sums)
        shown = parts.classes[:, 2].sum(-1) > 0
        overall = np.repeat(parts.pixels[:, None], len(self.figures) - self.layout.num_classes, 1)
        return np.concatenate([overall, np.where(shown, parts.pixels[:, None], 0.0)], 1)

    def convention(self) -> str:
        """Describe the bins."""
        return f"calibration over counted pixels, {self.layout.bins} bins of equal width"

    def tables(self) -> Mapping[str, Any]:
        """Return the reliability diagram, and scores and risk among the most confident pixels."""
        bins = calibration.reliability(self.total, self.layout)
        covered = calibration.coverage_scores(self.coverage)
        coverages, risks = calibration.risk_coverage(self.total, self.layout)
        return {
            "reliability": ReliabilityTable(
                tuple(bins.edges.tolist()),
                tuple(bins.pixels.tolist()),
                _numbers(bins.confidence),
                _numbers(bins.accuracy),
            ),
            "risk_coverage": CoverageTable(
                covered.coverages,
                _numbers(covered.pixel_accuracy),
                _numbers(covered.mean_iou),
                tuple(covered.classes.tolist()),
            ),
            "curve": RiskCurve(tuple(coverages.tolist()), tuple(risks.tolist())),
        }


def _numbers(values: NDArray[Any]) -> tuple[float | None, ...]:
    return tuple(None if np.isnan(v) else v for v in values.tolist())


# The families that `evaluate` knows, in the order in which their scores are reported.
METERS: dict[str, type[Meter]] = {
    "boundary": BoundaryMeter,
    "surface": SurfaceMeter,
    "calibration": CalibrationMeter,
    "diagnosis": Diagnosis,
}
METRICS = tuple(METERS)
DEFAULT_METRICS = ("boundary", "calibration", "diagnosis")


def require_metrics(names: Collection[str], where: str = "--metrics") -> None:
    """Raise a `UsageError` for a name that is not in `METERS`; `where` is the option or key the names come from."""
    for name in names:
        if name not in METERS:
            raise UsageError(where, expected=", ".join(METERS), found=name, do=nearest(name, METERS))


def reads_probabilities(names: Collection[str]) -> bool:
    """Whether one of the families reads the probabilities of predictors that have them."""
    return any(METERS[name].reads_probabilities for name in names)


def make_meters(names: Collection[str], options: MeterOptions, *, probabilities: bool) -> list[Meter]:
    """Make the meters of the requested families, without those that need probabilities if there are none.

    Raises:
        UsageError: an unknown name.
    """
    require_metrics(names)
    chosen = [kind for name, kind in METERS.items() if name in names]
    return [kind(options) for kind in chosen if probabilities or not kind.needs_probabilities]
