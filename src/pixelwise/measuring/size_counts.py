"""Sizes of classes from the counts of an evaluation, and from the contours of the predictions that it made."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from pixelwise.measuring.conformal import ImageSizes, boundary_lengths
from pixelwise.types import Prediction


class CountedImage(Protocol):
    """The counts of one evaluated image (`evaluation.results.ImageScore`)."""

    @property
    def id(self) -> str:
        """The image."""

    @property
    def pixels(self) -> int:
        """Number of annotated pixels."""

    @property
    def group(self) -> str | None:
        """What it belongs to."""

    @property
    def counts(self) -> Sequence[Sequence[int]]:
        """(class, true positives, true pixels, predicted pixels, …) of each class that occurs."""


class SizeRecorder:
    """Keep the length of the contours of predictions, for `evaluation.evaluate(keep=recorder.keep)`.

    Args:
        num_classes: K.
    """

    def __init__(self, num_classes: int) -> None:
        self.num_classes = num_classes
        self.found: dict[str, tuple[NDArray[np.int64], int]] = {}

    def keep(self, prediction: Prediction) -> None:
        """Record one prediction."""
        self.found[prediction.id] = boundary_lengths(prediction.mask, self.num_classes), prediction.mask.size

    def sizes(self, images: Iterable[CountedImage]) -> ImageSizes:
        """Return the sizes in the evaluated images, without those that have only ignored pixels."""
        counted = [image for image in images if image.pixels and image.id in self.found]
        truth, predicted = np.zeros((2, len(counted), self.num_classes), np.int64)
        for row, image in enumerate(counted):
            for k, _, true_pixels, predicted_pixels, *_ in image.counts:
                truth[row, k], predicted[row, k] = true_pixels, predicted_pixels
        boundaries = [self.found[image.id][0] for image in counted]
        return ImageSizes(
            truth=truth,
            predicted=predicted,
            boundary=np.array(boundaries, np.int64).reshape(truth.shape),
            annotated=np.array([image.pixels for image in counted], np.int64),
            pixels=np.array([self.found[image.id][1] for image in counted], np.int64),
            groups=tuple(image.group for image in counted),
        )
