"""Predict every image of a data set and score the predictions at native size."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from pixelwise.datasets.sequences import rows_of_tiles, sequences
from pixelwise.errors import DataError, LabelsError
from pixelwise.evaluation.base import Meter, MeterOptions, meter_scores, with_unpredicted_class
from pixelwise.evaluation.meters import DEFAULT_METRICS, ImageMeter, make_meters
from pixelwise.evaluation.results import Evaluation, ImageScore, Tables
from pixelwise.grid import Grid
from pixelwise.labels import Labels
from pixelwise.metrics.confusion import ConfusionMatrix, Counts, margins, mean_defined, ratio
from pixelwise.metrics.conventions import PeerScore, peer_scores, require_convention
from pixelwise.metrics.intervals import estimate, narrowness
from pixelwise.metrics.scores import Tally, overlap_statistic
from pixelwise.types import Prediction, Sample, Score, Scores


class LabelledImages(Protocol):
    """A sequence of samples with common labels."""

    @property
    def labels(self) -> Labels:
        """The classes."""
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
    """A predictor that passes its probabilities to a callback."""

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
_Band = Callable[[Sample, int, NDArray[np.float32]], None]
_FEWEST_IN_SEQUENCES = 20
_MUCH_TOO_NARROW = 1.2


def evaluate(
    dataset: LabelledImages,
    predictor: ImagePredictor,
    *,
    metrics: Collection[str] = DEFAULT_METRICS,
    convention: str | None = None,
    surface_tolerance: float | None = None,
    intervals: bool = True,
    progress: Progress | None = None,
    stop: Stop | None = None,
    keep: Callable[[Prediction], None] | None = None,
) -> Evaluation:
    """Score a predictor on every image of a data set.

    Args:
        dataset: images with masks; if they have groups, intervals are over groups.
        predictor: called as `predictor(image, grid, valid, id=…)`; its probabilities are scored if it is `Observable`.
        metrics: families in addition to the overlap of areas, from `METRICS`.
        convention: another library's convention to report as well, from `metrics.conventions.CONVENTIONS`.
        surface_tolerance: distance for surface Dice, in the unit of the grids; by default the coarsest spacing of each image.
        intervals: whether to compute 95 % intervals.
        progress: called with (images done, number of images) after each image.
        stop: called before each image; may raise to interrupt the evaluation.
        keep: called with each prediction, for example to show some of them in a report.

    Raises:
        DataError: no images, an image without a mask, or no counted pixel.
        MaskError: a prediction of another size than its truth, or of unknown classes.
        LabelsError: a predictor of other classes than the data set's.
        UsageError: an unknown metric family or convention.
    """
    labels = dataset.labels
    options = MeterOptions(labels, surface_tolerance)
    meters = [ImageMeter(options), *make_meters(metrics, options, probabilities=isinstance(predictor, Observable))]
    if convention is not None:
        require_convention(convention)
    tally, images, unpredicted = Tally(labels), list[ImageScore](), 0
    sums: list[list[Any]] = [[] for _ in meters]
    places: list[tuple[Grid, tuple[int, ...]]] = []
    for counted in _images(dataset, predictor, _band_reader(meters), progress, stop):
        counts = tally.add(
            counted.matrix,
            ignored_pixels=counted.ignored_pixels,
            on_ignored=counted.on_ignored,
            unpredicted=counted.unpredicted,
            group=counted.sample.group,
        )
        unpredicted += int(counted.unpredicted.sum())
        for meter, meter_sums in zip(meters, sums, strict=True):
            meter_sums.append(meter.add(counted.sample, counted.prediction, counts))
        images.append(_image_score(counted.sample, counts))
        if keep is not None:
            keep(counted.prediction)
        places.append((counted.sample.grid, counted.prediction.mask.shape))
    _require_counted(tally.matrix)
    tables = Tables(**{name: table for meter in meters for name, table in meter.tables().items()})
    dependence = _dependence(tally, [image.id for image in images], *zip(*places, strict=True)) if intervals else ()
    return Evaluation(
        scores=_scores(tally, meters, sums, unpredicted, intervals),
        images=tuple(images),
        baseline=tally.majority(intervals=intervals),
        baseline_class=labels.names[int(tally.counts()[:, 1].sum(0).argmax())],
        peer=None if convention is None else (convention, _peer_scores(convention, tally)),
        tables=tables,
        unassigned_pixels=unpredicted,
        notices=(*dependence, *(notice for meter in meters for notice in meter.notices())),
    )


def _peer_scores(convention: str, tally: Tally) -> tuple[PeerScore, ...]:
    return peer_scores(convention, tally.counts(), tally.groups, ignored=tally.ignored_pixels > 0)


def _enough(found: Sequence[Sequence[int]]) -> bool:
    return sum(map(len, found)) >= _FEWEST_IN_SEQUENCES


def _dependence(
    tally: Tally, ids: Sequence[str], grids: Sequence[Grid], sizes: Sequence[Sequence[int]]
) -> tuple[str, ...]:
    """Warn if the errors of neighbouring frames or tiles without groups are alike, so that the intervals are too narrow."""
    orders = [found for found in (sequences(ids), rows_of_tiles(grids, sizes)) if _enough(found)]
    if any(group is not None for group in tally.groups) or not orders:
        return ()
    sums = tally.counts()[:, :3]
    spread = estimate(sums.reshape(len(sums), -1), overlap_statistic(tally.labels.num_classes))
    factor, found = max(
        ((narrowness(spread.deviations[:, 0], each), each) for each in orders), key=lambda pair: pair[0]
    )
    if factor < _MUCH_TOO_NARROW:
        return ()
    example = ", ".join(ids[position] for position in max(found, key=len)[:3])
    return (
        f"neighbouring images ({example}, …) have similar errors, as frames of a video or tiles of a scene do: the interval of "
        f"the mIoU is about {factor:.1f} times too narrow. Name the videos or scenes with data.group, so that they are counted "
        "as units",
    )


def _band_reader(meters: list[Meter]) -> _Band | None:
    """Return a callback that passes probabilities to the meters that read them; None if there are none."""
    readers = [meter for meter in meters if meter.reads_probabilities]

    def band(sample: Sample, top: int, probabilities: NDArray[np.float32]) -> None:
        for meter in readers:
            meter.band(sample, top, probabilities)

    return band if readers else None


def _scores(tally: Tally, meters: list[Meter], sums: list[list[Any]], unpredicted: int, intervals: bool) -> Scores:
    """Return the overlap scores with those of all meters added."""
    scores = tally.scores(intervals=intervals)
    overall: dict[str, Score] = {}
    per_class: list[dict[str, Score]] = [{} for _ in scores.classes]
    for meter, meter_sums in zip(meters, sums, strict=True):
        more, each = meter_scores(meter, meter_sums, tally.groups, len(per_class), intervals)
        overall |= more
        per_class = [a | b for a, b in zip(per_class, each, strict=True)]
    sentences = [scores.convention]
    if unpredicted:
        sentences.append(
            f"{unpredicted} counted pixels have no predicted class: they are misses of their class, not in the matrix"
        )
    sentences += [meter.convention() for meter in meters]
    classes = tuple(replace(row, more=more) for row, more in zip(scores.classes, per_class, strict=True))
    return replace(scores, more=overall, classes=classes, convention="; ".join(filter(None, sentences)))


class _CountedImage:
    """An image with its prediction, its confusion matrix, and its pixels without a predicted class.

    Attributes:
        matrix: int64 (K, K), rows truth, columns prediction.
        unpredicted: (K,) true pixels without a predicted class.
        ignored_pixels: number of ignored pixels.
        on_ignored: (K,) predicted pixels where the truth is ignored.
    """

    def __init__(self, sample: Sample, prediction: Prediction, counter: ConfusionMatrix) -> None:
        self.sample, self.prediction = sample, prediction
        truth, mask, ignore_index = sample.mask, prediction.mask, counter.ignore_index
        assert truth is not None
        k = counter.num_classes
        self.unpredicted = np.zeros(k, np.int64)
        if mask.shape == truth.shape and (mask == ignore_index).any():
            wide_truth, wide_mask, wide_k, wide_ignore = with_unpredicted_class(sample, prediction)
            wide = ConfusionMatrix(wide_k, wide_ignore).update(wide_truth, wide_mask, sample.id)
            self.matrix, self.unpredicted = wide[:k, :k].copy(), wide[:k, k].copy()
        else:
            self.matrix = counter.update(truth, mask, sample.id)
        self.ignored_pixels = truth.size - int(self.matrix.sum() + self.unpredicted.sum())
        on_ignored = mask[truth == ignore_index] if self.ignored_pixels else np.zeros(0, np.int64)
        self.on_ignored = np.bincount(on_ignored[on_ignored < k].astype(np.int64), minlength=k).astype(np.int64)


def quick_miou(
    dataset: LabelledImages,
    predictor: ImagePredictor,
    *,
    progress: Progress | None = None,
    stop: Stop | None = None,
) -> tuple[float, Counts]:
    """Return the mIoU of `evaluate` and the int64 matrix (K, K), without intervals.

    Arguments and errors as in `evaluate`, but the mIoU is NaN if no pixel counts.
    """
    total = np.zeros((dataset.labels.num_classes,) * 2, np.int64)
    unpredicted = np.zeros(dataset.labels.num_classes, np.int64)
    for counted in _images(dataset, predictor, None, progress, stop):
        total += counted.matrix
        unpredicted += counted.unpredicted
    hits, truth, predicted = margins(total)
    return float(mean_defined(ratio(hits, truth + unpredicted + predicted - hits))), total


def majority(dataset: LabelledImages, *, intervals: bool = True) -> Scores:
    """Score the constant prediction of the most frequent class, from the masks alone.

    On imbalanced data its pixel accuracy is high and its mIoU low, which is why mIoU is the main score.

    Raises:
        DataError: no images, an image without a mask, or no counted pixel.
    """

    def constant(
        image: NDArray[Any], grid: Grid, valid: NDArray[np.bool_] | None = None, *, id: str = ""
    ) -> Prediction:
        return Prediction(np.zeros(image.shape[1:], dataset.labels.dtype), dataset.labels, grid, id)

    return evaluate(dataset, constant, metrics=(), intervals=intervals).baseline


def _images(
    dataset: LabelledImages,
    predictor: ImagePredictor,
    band: _Band | None,
    progress: Progress | None,
    stop: Stop | None,
) -> Iterator[_CountedImage]:
    """Predict and count each image, passing its probabilities to `band` if the predictor offers them."""
    labels, total = dataset.labels, len(dataset)
    counter = ConfusionMatrix(labels.num_classes, labels.ignore_index)
    for i in range(total):
        if stop is not None:
            stop()
        sample = dataset.read(i)
        sample = replace(sample, mask=sample.truth(labels.ignore_index))
        if sample.mask is None:
            raise DataError(sample.id, expected="an annotated mask", found="none", do="Add the mask, or use predict.")
        if band is not None and isinstance(predictor, Observable):
            prediction = predictor.observed(sample.image, sample.grid, sample.valid, sample.id, partial(band, sample))
        else:
            prediction = predictor(sample.image, sample.grid, sample.valid, id=sample.id)
        _require_labels(sample.id, labels, prediction.labels)
        yield _CountedImage(sample, prediction, counter)
        if progress is not None:
            progress(i + 1, total)


def _image_score(sample: Sample, counts: Counts) -> ImageScore:
    """Score one image from its counts (4, K)."""
    hits, truth, predicted, _ = counts
    union = truth + predicted - hits
    miou = float((hits[union > 0] / union[union > 0]).mean()) if union.any() else None
    accuracy = float(hits.sum() / truth.sum()) if truth.any() else None
    rows = tuple((k, *map(int, counts[:, k])) for k in np.flatnonzero(counts.any(0)).tolist())
    assert sample.mask is not None
    return ImageScore(
        sample.id,
        miou,
        accuracy,
        int(truth.sum()),
        sample.group,
        truth_digest(sample.mask),
        rows,  # type: ignore[arg-type]
    )


def truth_digest(mask: NDArray[Any]) -> str:
    """Return the first 16 digits of a SHA-256 over a mask of class indices, which identify the same ground truth."""
    digest = hashlib.sha256(f"{mask.shape} {mask.dtype.str}".encode())
    digest.update(np.ascontiguousarray(mask).data)
    return digest.hexdigest()[:16]


def _require_labels(where: str, expected: Labels, found: Labels) -> None:
    if expected.names != found.names:
        raise LabelsError(
            where,
            expected=f"predictions of the data set's classes {', '.join(expected.names)}",
            found=", ".join(found.names),
            do="Name the classes in labels.yaml as in the model's model.json, or train on this data set.",
        )


def _require_counted(matrix: Counts) -> None:
    if not matrix.any():
        raise DataError(
            "evaluation",
            expected="at least one counted pixel",
            found="no images, or only ignored pixels",
            do="Choose a split with labelled pixels, or correct ignore_index in labels.yaml.",
        )
