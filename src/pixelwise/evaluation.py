"""How good a predictor is on a data set: data set × predictor × metrics → Scores.

Comes in: a data set of labelled pictures and anything that turns a picture into a `Prediction`. Goes out: scores with
intervals, one line per picture, and what a constant guess would have scored. Knows nothing of models or training.

Everything is scored at the picture's native size, through the same predictor that later predicts: what you score is what
you ship.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from pixelwise.errors import DataError, LabelsError
from pixelwise.grid import Grid
from pixelwise.labels import Labels
from pixelwise.metrics.confusion import ConfusionMatrix, Counts, mean_iou, pixel_accuracy
from pixelwise.metrics.scores import Tally
from pixelwise.types import Prediction, Sample, Scores


class LabelledPictures(Protocol):
    """Anything with a length, labels, and samples that can be read one by one."""

    @property
    def labels(self) -> Labels:
        """Name the classes."""
        ...

    def __len__(self) -> int: ...

    def read(self, index: int, /) -> Sample:
        """Read one picture with its mask."""
        ...


class PicturePredictor(Protocol):
    """Anything that turns a picture into a `Prediction` on the picture's own grid."""

    def __call__(self, image: NDArray[Any], grid: Grid, *, id: str = "") -> Prediction:
        """Predict one picture (C, *S)."""
        ...


Progress = Callable[[int, int], None]
Stop = Callable[[], None]


@dataclass(frozen=True)
class ImageScore:
    """Hold how one picture did: its own mIoU (not a part of the headline's) and pixel accuracy; None where undefined."""

    id: str
    miou: float | None
    pixel_accuracy: float | None
    pixels: int


@dataclass(frozen=True)
class Evaluation:
    """Hold how good a predictor is on a data set.

    Args:
        scores: over the whole data set, with intervals.
        images: one entry per picture, in the data set's order; `pixels` are those that count.
        baseline: the scores of predicting the most frequent true class everywhere, on the same pictures.
        baseline_class: the name of that class.
        notices: what was decided or left out when the data set was opened.

    """

    scores: Scores
    images: tuple[ImageScore, ...]
    baseline: Scores
    baseline_class: str
    notices: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Give the plain form: that of the scores, with `baseline` and `per_image` behind."""
        accuracy, miou = self.baseline.pixel_accuracy.value, self.baseline.miou.value
        baseline = {"answer": self.baseline_class, "pixel_accuracy": accuracy, "miou": miou}
        per_image = [asdict(image) for image in self.images]
        return self.scores.to_dict() | {"baseline": baseline, "per_image": per_image, "notices": list(self.notices)}


def evaluate(
    dataset: LabelledPictures,
    predictor: PicturePredictor,
    *,
    resamples: int = 1000,
    seed: int = 0,
    progress: Progress | None = None,
    stop: Stop | None = None,
) -> Evaluation:
    """Score a predictor on every picture of a data set.

    Args:
        dataset: pictures with masks; where they come in groups, intervals are over groups.
        predictor: called as `predictor(image, grid, id=…)`.
        resamples: draws of the bootstrap behind the intervals.
        seed: equal seeds give equal intervals.
        progress: called with (pictures done, pictures in all) after each.
        stop: called before each picture; raises to end the work.

    Raises:
        DataError: no pictures, a picture without a mask, or no pixel that counts.
        MaskError: a prediction of another size than its truth, or of unknown classes.
        LabelsError: a predictor of other classes than the data set's.

    """
    tally, images = Tally(dataset.labels), []
    for sample, matrix, ignored in _counts(dataset, predictor, progress, stop):
        tally.add(matrix, ignored_pixels=ignored, group=sample.group)
        images.append(_image_score(sample.id, matrix))
    _require_counted(tally.matrix)
    scores = tally.scores(resamples=resamples, seed=seed)
    constant = dataset.labels.names[int(tally.matrix.sum(1).argmax())]
    return Evaluation(scores, tuple(images), tally.majority(resamples=resamples, seed=seed), constant)


def quick_miou(
    dataset: LabelledPictures,
    predictor: PicturePredictor,
    *,
    progress: Progress | None = None,
    stop: Stop | None = None,
) -> tuple[float, Counts]:
    """Give the mIoU that `evaluate` would give, and the int64 matrix (K, K), without intervals.

    Arguments and errors as in `evaluate`, but NaN where no pixel counts: a few pictures of many may well be all ignored.
    """
    total = np.zeros((dataset.labels.num_classes,) * 2, np.int64)
    for _, matrix, _ in _counts(dataset, predictor, progress, stop):
        total += matrix
    return float(mean_iou(total)), total


def majority(dataset: LabelledPictures, *, resamples: int = 1000, seed: int = 0) -> Scores:
    """Score the constant prediction of a data set's most frequent class: it needs the truths alone.

    On imbalanced data its pixel accuracy is high and its mIoU low, which is why mIoU is the headline.

    Raises:
        DataError: no pictures, a picture without a mask, or no pixel that counts.

    """

    def constant(image: NDArray[Any], grid: Grid, *, id: str = "") -> Prediction:
        return Prediction(np.zeros(image.shape[1:], dataset.labels.dtype), dataset.labels, grid, id)

    return evaluate(dataset, constant, resamples=resamples, seed=seed).baseline


def _counts(
    dataset: LabelledPictures, predictor: PicturePredictor, progress: Progress | None, stop: Stop | None
) -> Iterator[tuple[Sample, Counts, int]]:
    """Give each sample with its matrix and the number of its ignored pixels."""
    labels, total = dataset.labels, len(dataset)
    counter = ConfusionMatrix(labels.num_classes, labels.ignore_index)
    for i in range(total):
        if stop is not None:
            stop()
        sample = dataset.read(i)
        if sample.mask is None:
            raise DataError(
                sample.id, expected="a mask to score against", found="none", do="Add the mask, or use predict."
            )
        prediction = predictor(sample.image, sample.grid, id=sample.id)
        _require_labels(sample.id, labels, prediction.labels)
        matrix = counter.update(sample.mask, prediction.mask, sample.id)
        yield sample, matrix, sample.mask.size - int(matrix.sum())
        if progress is not None:
            progress(i + 1, total)


def _image_score(id: str, matrix: Counts) -> ImageScore:
    miou, accuracy = (None if np.isnan(v) else float(v) for v in (mean_iou(matrix), pixel_accuracy(matrix)))
    return ImageScore(id, miou, accuracy, int(matrix.sum()))


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
            found="no pictures, or only ignored pixels",
            do="Name a split with labelled pixels, or correct ignore_index in labels.yaml.",
        )
