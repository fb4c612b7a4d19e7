"""The images that a run is validated and scored on: kept in memory within a bound, and a subset of them."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

import numpy as np

from pixelwise.config import TrainConfig
from pixelwise.datasets.dataset import Dataset
from pixelwise.labels import Labels
from pixelwise.machine import free_memory
from pixelwise.types import Sample

# Of the free memory, for decoded images.
_MEMORY_SHARE = 0.125
_TRIALS = 3


def evenly_spaced(length: int, count: int) -> list[int]:
    """Return `count` evenly spaced indices of a sequence, its first and last included, or all if it has no more."""
    if count >= length:
        return list(range(length))
    indices: list[int] = np.linspace(0, length - 1, count).round().astype(int).tolist()
    return indices


def spread(split: Dataset, count: int) -> Dataset:
    """Return `count` evenly spaced images of a split, or all if it has no more."""
    return split if count >= len(split) else split.subset(evenly_spaced(len(split), count))


def validated_images(train: TrainConfig, images: int) -> int:
    """Return how many of the images of the validation split are scored during training."""
    return min(train.validation_images or images, images)


def image_memory() -> int:
    """Return how many bytes of decoded images may be kept in memory."""
    return int((free_memory() or 0) * _MEMORY_SHARE)


@dataclass
class _Cache:
    """Samples by their index, and the bytes that are left for more."""

    left: int
    samples: dict[int, Sample] = field(default_factory=dict)


class CachedImages:
    """The images of a split (`evaluation.LabelledImages`), decoded once as far as they fit into memory.

    Args:
        split: the images.
        memory: bytes that decoded images may take; further images are decoded whenever they are read.
    """

    def __init__(self, split: Dataset, memory: int) -> None:
        self.split, self.indices, self.cache = split, list(range(len(split))), _Cache(memory)

    @property
    def labels(self) -> Labels:
        """The classes."""
        return self.split.labels

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.indices)

    def read(self, index: int, /) -> Sample:
        """Return one image with its mask; errors as those of `Dataset.read`."""
        place = self.indices[index]
        if place in self.cache.samples:
            return self.cache.samples[place]
        sample = self.split.read(place)
        size = sum(array.nbytes for array in (sample.image, sample.mask, sample.valid) if array is not None)
        if size <= self.cache.left:
            self.cache.left -= size
            self.cache.samples[place] = sample
        return sample

    def subset(self, indices: Iterable[int]) -> CachedImages:
        """Return some of the images, in the given order, with the same memory."""
        chosen = CachedImages(self.split, 0)
        chosen.indices, chosen.cache = [self.indices[index] for index in indices], self.cache
        return chosen


def seconds_per_image(work: Callable[[Dataset], object], split: Dataset) -> float:
    """Measure the seconds that `work` takes per image: the median of three evenly spaced ones, after a warm-up.

    With a median, a moment in which the machine is busy does not determine how the time of a run is divided.
    """
    sample = spread(split, _TRIALS)
    work(sample.subset([0]))
    seconds = []
    for index in range(len(sample)):
        started = time.perf_counter()
        work(sample.subset([index]))
        seconds.append(time.perf_counter() - started)
    return statistics.median(seconds)
