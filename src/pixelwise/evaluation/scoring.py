"""Walk through a data set, predict every image, and score it.

Comes in: a data set of labelled images and a predictor. Goes out: an `Evaluation`. Knows nothing of models, of training, or
of what a metric is: see `meters` and `diagnosis`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Iterator
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from pixelwise.errors import DataError, LabelsError
from pixelwise.evaluation import meters
from pixelwise.evaluation.diagnosis import Diagnosis
from pixelwise.grid import Grid
from pixelwise.labels import Labels
from pixelwise.metrics.confusion import ConfusionMatrix, Counts, margins, mean_defined, ratio
from pixelwise.metrics.conventions import PeerScore, peer_scores, require_convention
from pixelwise.metrics.scores import Tally
from pixelwise.types import Prediction, Sample, Score, Scores


class LabelledImages(Protocol):
    """Anything with a length, labels, and samples that can be read one by one."""

    @property
    def labels(self) -> Labels:
        """Name the classes."""
        ...

    def __len__(self) -> int: ...

    def read(self, index: int, /) -> Sample:
        """Read one image with its mask."""
        ...


class ImagePredictor(Protocol):
    """Anything that turns an image into a `Prediction` on the image's own grid."""

    def __call__(
        self, image: NDArray[Any], grid: Grid, valid: NDArray[np.bool_] | None = None, *, id: str = ""
    ) -> Prediction:
        """Predict one image (C, *S), of which only the pixels in valid (*S) hold data."""
        ...


@runtime_checkable
class Observable(Protocol):
    """A predictor that shows its probabilities while it predicts."""

    def observed(
        self,
        image: NDArray[Any],
        grid: Grid,
        valid: NDArray[np.bool_] | None,
        id: str,
        observe: Callable[[int, NDArray[np.float32]], None],
        /,
    ) -> Prediction:
        """Predict one image; call `observe(top, probabilities (K, rows, W))` for its rows from first to last."""
        ...


Progress = Callable[[int, int], None]
Stop = Callable[[], None]


@dataclass(frozen=True)
class ImageScore:
    """Hold how one image did, and the counts from which any score of several images can be made again.

    Args:
        id: the image.
        miou: of this image alone, not a part of the headline; None where nothing counts.
        pixel_accuracy: of this image alone.
        pixels: how many count.
        group: what it belongs to; None where it stands alone.
        truth: SHA-256 of its mask of class indices, the first 16 digits: tells whether others were scored on the same.
        counts: (class, pixels found, true, predicted, predicted on void) of every class that is not all zero.
    """

    id: str
    miou: float | None
    pixel_accuracy: float | None
    pixels: int
    group: str | None = None
    truth: str = ""
    counts: tuple[tuple[int, int, int, int, int], ...] = ()


@dataclass(frozen=True)
class Evaluation:
    """Hold how good a predictor is on a data set.

    Args:
        scores: over the whole data set, with intervals.
        images: one entry per image, in the data set's order; `pixels` are those that count.
        baseline: the scores of predicting the most frequent true class everywhere, on the same images.
        baseline_class: the name of that class.
        peer: the numbers by another library's convention, where asked for, and its name.
        tables: reliability, risk and coverage, errors by size and distance, suspects: plain values.
        unassigned_pixels: counted pixels that the prediction left open; they are misses of their class.
        notices: what was decided or left out when the data set was opened.

    """

    scores: Scores
    images: tuple[ImageScore, ...]
    baseline: Scores
    baseline_class: str
    peer: tuple[str, tuple[PeerScore, ...]] | None = None
    tables: dict[str, Any] = field(default_factory=dict)
    unassigned_pixels: int = 0
    notices: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Give the plain form: that of the scores, with `baseline`, `per_image`, `tables` and `notices` behind."""
        accuracy, miou = self.baseline.pixel_accuracy.value, self.baseline.miou.value
        plain = self.scores.to_dict() | {"unassigned_pixels": self.unassigned_pixels}
        if self.peer is not None:
            name, found = self.peer
            plain["peer"] = {"convention": name, "scores": [score.to_dict() for score in found]}
        plain["baseline"] = {"answer": self.baseline_class, "pixel_accuracy": accuracy, "miou": miou}
        plain["per_image"] = [asdict(image) for image in self.images]
        return plain | {"tables": self.tables, "notices": list(self.notices)}


def evaluate(
    dataset: LabelledImages,
    predictor: ImagePredictor,
    *,
    metrics: Collection[str] = meters.DEFAULT_METRICS,
    convention: str | None = None,
    surface_tolerance: float | None = None,
    resamples: int = 1000,
    seed: int = 0,
    progress: Progress | None = None,
    stop: Stop | None = None,
) -> Evaluation:
    """Score a predictor on every image of a data set.

    Args:
        dataset: images with masks; where they come in groups, intervals are over groups.
        predictor: called as `predictor(image, grid, valid, id=…)`; its probabilities are scored where it is `Observable`.
        metrics: families beside the overlap of areas: of `METRICS`.
        convention: another library's, whose number is to be given beside ours: of `metrics.conventions`.
        surface_tolerance: distance for surface Dice, in the unit of the grids; each image's coarsest spacing where not given.
        resamples: draws of the bootstrap behind the intervals.
        seed: equal seeds give equal intervals.
        progress: called with (images done, images in all) after each.
        stop: called before each image; raises to end the work.

    Raises:
        DataError: no images, an image without a mask, or no pixel that counts.
        MaskError: a prediction of another size than its truth, or of unknown classes.
        LabelsError: a predictor of other classes than the data set's.
        UsageError: an unknown family of metrics or convention.

    """
    meters.require_metrics(metrics)
    if convention is not None:
        require_convention(convention)
    work = _Work(dataset.labels, metrics, isinstance(predictor, Observable), surface_tolerance)
    for seen in _images(dataset, predictor, work.band if work.observes else None, progress, stop):
        work.see(seen)
    return work.result(convention, resamples, seed)


class _Seen:
    """Hold an image with its prediction, and count it: found over true and predicted class, and what was left open."""

    def __init__(self, sample: Sample, prediction: Prediction, counter: ConfusionMatrix) -> None:
        self.sample, self.prediction = sample, prediction
        truth, mask, void = sample.mask, prediction.mask, counter.ignore_index
        assert truth is not None
        k = counter.num_classes
        self.open = np.zeros(k, np.int64)
        if mask.shape == truth.shape and (mask == void).any():
            # One class more for a pixel that the prediction leaves open: a miss of its true class, found nowhere.
            known, answer, wider, other_void = meters.with_open_class(sample, prediction)
            wide = ConfusionMatrix(wider, other_void).update(known, answer, sample.id)
            self.matrix, self.open = wide[:k, :k].copy(), wide[:k, k].copy()
        else:
            self.matrix = counter.update(truth, mask, sample.id)
        counted = int(self.matrix.sum() + self.open.sum())
        self.ignored = truth.size - counted
        on_void = mask[truth == void] if self.ignored else np.zeros(0, np.int64)
        self.on_void = np.bincount(on_void[on_void < k].astype(np.int64), minlength=k).astype(np.int64)


class _Work:
    """Bring together all that looks at an image."""

    def __init__(
        self, labels: Labels, metrics: Collection[str], observable: bool, surface_tolerance: float | None
    ) -> None:
        self.labels, self.tally, self.shown = labels, Tally(labels), observable
        self.diagnosis = Diagnosis(labels) if "diagnosis" in metrics else None
        self.images: list[ImageScore] = []
        self.alone = meters.ImageMeter(labels)
        self.calibration = meters.CalibrationMeter(labels) if observable and "calibration" in metrics else None
        self.meters: list[meters.Meter] = []
        if "boundary" in metrics:
            self.meters.append(meters.BoundaryMeter(labels))
        if "surface" in metrics:
            self.meters.append(meters.SurfaceMeter(labels, surface_tolerance))
        if self.calibration is not None:
            self.meters.append(self.calibration)
        self.sums: list[list[Any]] = [[] for _ in self.meters]
        self.image_sums: list[Any] = []
        self.open = 0

    @property
    def observes(self) -> bool:
        return self.shown and (self.calibration is not None or self.diagnosis is not None)

    def band(self, sample: Sample, top: int, probabilities: NDArray[np.float32]) -> None:
        if self.calibration is not None:
            self.calibration.band(sample, top, probabilities)
        if self.diagnosis is not None:
            self.diagnosis.band(probabilities)

    def see(self, seen: _Seen) -> None:
        self.tally.add(
            seen.matrix,
            ignored_pixels=seen.ignored,
            on_void=seen.on_void,
            unassigned=seen.open,
            group=seen.sample.group,
        )
        self.open += int(seen.open.sum())
        self.image_sums.append(self.alone.of(self.tally.last()))
        for meter, sums in zip(self.meters, self.sums, strict=True):
            sums.append(meter.see(seen.sample, seen.prediction))
        if self.diagnosis is not None:
            self.diagnosis.see(seen.sample, seen.prediction)
        self.images.append(_image_score(seen, self.tally.last()))

    def _left_open(self) -> list[str]:
        if not self.open:
            return []
        return [
            f"{self.open} counted pixels were left open by the prediction: misses of their class, not in the matrix"
        ]

    def result(self, convention: str | None, resamples: int, seed: int) -> Evaluation:
        _require_counted(self.tally.matrix)
        scores = self.tally.scores(resamples=resamples, seed=seed)
        over_all: dict[str, Score] = {}
        each: list[dict[str, Score]] = [{} for _ in self.labels.names]
        all_meters: tuple[meters.Scoring, ...] = (self.alone, *self.meters)
        for meter, sums in zip(all_meters, (self.image_sums, *self.sums), strict=True):
            means, classes = meters.found(meter, sums, self.tally.groups, self.labels.num_classes, resamples, seed)
            over_all |= means
            each = [a | b for a, b in zip(each, classes, strict=True)]
        scores = replace(
            scores,
            more=over_all,
            classes=tuple(replace(c, more=more) for c, more in zip(scores.classes, each, strict=True)),
            convention="; ".join([scores.convention, *self._left_open(), *(meter.says() for meter in all_meters)]),
        )
        peer = None
        if convention is not None:
            peer = (
                convention,
                peer_scores(
                    convention,
                    self.tally.counts(),
                    self.tally.groups,
                    void=self.tally.ignored_pixels > 0,
                    resamples=resamples,
                    seed=seed,
                ),
            )
        tables = self.diagnosis.tables() if self.diagnosis else {}
        tables |= self.calibration.tables() if self.calibration else {}
        constant = self.labels.names[int(self.tally.counts()[:, 1].sum(0).argmax())]
        baseline = self.tally.majority(resamples=resamples, seed=seed)
        large = self.diagnosis.too_large if self.diagnosis else 0
        notices = (f"{large} images are too large to look for objects and suspects in",) if large else ()
        return Evaluation(scores, tuple(self.images), baseline, constant, peer, tables, self.open, notices)


def quick_miou(
    dataset: LabelledImages,
    predictor: ImagePredictor,
    *,
    progress: Progress | None = None,
    stop: Stop | None = None,
) -> tuple[float, Counts]:
    """Give the mIoU that `evaluate` would give, and the int64 matrix (K, K), without intervals.

    Arguments and errors as in `evaluate`, but NaN where no pixel counts: a few images of many may well be all ignored.
    """
    total, tally = (
        np.zeros((dataset.labels.num_classes,) * 2, np.int64),
        np.zeros((3, dataset.labels.num_classes), np.int64),
    )
    for seen in _images(dataset, predictor, None, progress, stop):
        total += seen.matrix
        tally += np.stack(margins(seen.matrix))
        tally[1] += seen.open
    hits, truth, predicted = tally
    return float(mean_defined(ratio(hits, truth + predicted - hits))), total


def majority(dataset: LabelledImages, *, resamples: int = 1000, seed: int = 0) -> Scores:
    """Score the constant prediction of a data set's most frequent class: it needs the truths alone.

    On imbalanced data its pixel accuracy is high and its mIoU low, which is why mIoU is the headline.

    Raises:
        DataError: no images, an image without a mask, or no pixel that counts.

    """

    def constant(
        image: NDArray[Any], grid: Grid, valid: NDArray[np.bool_] | None = None, *, id: str = ""
    ) -> Prediction:
        return Prediction(np.zeros(image.shape[1:], dataset.labels.dtype), dataset.labels, grid, id)

    return evaluate(dataset, constant, metrics=(), resamples=resamples, seed=seed).baseline


def _images(
    dataset: LabelledImages,
    predictor: ImagePredictor,
    band: Callable[[Sample, int, NDArray[np.float32]], None] | None,
    progress: Progress | None,
    stop: Stop | None,
) -> Iterator[_Seen]:
    """Predict and count each image; `band` is shown its probabilities."""
    labels, total = dataset.labels, len(dataset)
    counter = ConfusionMatrix(labels.num_classes, labels.ignore_index)
    for i in range(total):
        if stop is not None:
            stop()
        sample = dataset.read(i)
        sample = replace(sample, mask=sample.truth(labels.ignore_index))
        if sample.mask is None:
            raise DataError(
                sample.id, expected="a mask to score against", found="none", do="Add the mask, or use predict."
            )
        if band is not None and isinstance(predictor, Observable):
            prediction = predictor.observed(sample.image, sample.grid, sample.valid, sample.id, partial(band, sample))
        else:
            prediction = predictor(sample.image, sample.grid, sample.valid, id=sample.id)
        _require_labels(sample.id, labels, prediction.labels)
        yield _Seen(sample, prediction, counter)
        if progress is not None:
            progress(i + 1, total)


def _image_score(seen: _Seen, counts: Counts) -> ImageScore:
    """Describe an image from its matrix and its counts (4, K)."""
    hits, truth, predicted, _ = counts
    union = truth + predicted - hits
    miou = float((hits[union > 0] / union[union > 0]).mean()) if union.any() else None
    accuracy = float(hits.sum() / truth.sum()) if truth.any() else None
    kept = [(k, *map(int, counts[:, k])) for k in np.flatnonzero(counts.any(0)).tolist()]
    assert seen.sample.mask is not None
    digest = truth_digest(seen.sample.mask)
    rows = tuple((k, h, t, p, v) for k, h, t, p, v in kept)
    return ImageScore(seen.sample.id, miou, accuracy, int(truth.sum()), seen.sample.group, digest, rows)


def truth_digest(mask: NDArray[Any]) -> str:
    """Give the first 16 digits of a SHA-256 over a mask of class indices: by it the same truth is known again."""
    digest = hashlib.sha256(f"{mask.shape} {mask.dtype.str}".encode())
    digest.update(np.ascontiguousarray(mask).data)
    return digest.hexdigest()[:16]


def _require_labels(where: str, wanted: Labels, found: Labels) -> None:
    if wanted.names != found.names:
        raise LabelsError(
            where,
            expected=f"predictions of the data set's classes {', '.join(wanted.names)}",
            found=", ".join(found.names),
            do="Name the classes in labels.yaml as the model's model.json does, or train on this data set.",
        )


def _require_counted(matrix: Counts) -> None:
    if not matrix.any():
        raise DataError(
            "evaluation",
            expected="at least one pixel that counts",
            found="no images, or only ignored pixels",
            do="Name a split with labelled pixels, or correct ignore_index in labels.yaml.",
        )
