"""Sum up how large the objects of a data set are: the areas of connected regions, class by class.

Comes in: masks one after the other. Goes out: per class three quantiles of the area, and how many there are in an image.
Knows nothing of files or of what the numbers are used for. Memory does not grow with the number of masks: areas are
counted by size, each up to 1024 pixels by itself, larger ones in steps of 1.1 %.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from pixelwise.datasets.intensity import percentiles_of_counts
from pixelwise.geometry.contours import components

PERCENTS = (5.0, 50.0, 95.0)
_ALONE, _STEPS, _DOUBLINGS = 1024, 64, 40
# Regions are found in at most this much of an image's middle: what finds them takes some fifty bytes a pixel.
_SIDE = 4096


class ObjectSizes:
    """Sum up the regions of 4-connected pixels of each class; pixels that count in nothing are no object.

    Args:
        classes: K.
    """

    def __init__(self, classes: int) -> None:
        self.counts = np.zeros((classes, _ALONE + _STEPS * _DOUBLINGS), np.int64)
        self.images = np.zeros(classes, np.int64)
        beyond = _ALONE * 2 ** ((np.arange(_STEPS * _DOUBLINGS) + 0.5) / _STEPS)
        self.levels = np.concatenate([np.arange(_ALONE, dtype=np.float64), beyond])

    def add(self, mask: NDArray[Any]) -> None:
        """Add the regions of a mask (H, W) of class indices; of a very large one those of its middle 4096×4096."""
        top, left = (max(side - _SIDE, 0) // 2 for side in mask.shape)
        mask = mask[top : top + _SIDE, left : left + _SIDE]
        regions, count = components(mask)
        flat = regions.reshape(-1)
        kinds = np.zeros(count, np.int64)
        kinds[flat] = mask.reshape(-1)
        area = np.bincount(flat, minlength=count)
        known = kinds < len(self.images)
        np.add.at(self.counts, (kinds[known], _places(area[known])), 1)
        self.images[np.unique(kinds[known])] += 1

    def sizes(self) -> tuple[tuple[float, float, float] | None, ...]:
        """Give per class 5 %, median and 95 % of the areas in pixels; None for classes that never occur."""
        return tuple(self._of(k) if self.images[k] else None for k in range(len(self.images)))

    def _of(self, k: int) -> tuple[float, float, float]:
        small, middle, large = (round(v, 1) for v in percentiles_of_counts(self.levels, self.counts[k], PERCENTS))
        return small, middle, large

    def per_image(self) -> tuple[float | None, ...]:
        """Give per class the mean number of regions in an image that shows it; None for classes that never occur."""
        many = self.counts.sum(1)
        return tuple(round(float(n / shown), 2) if shown else None for n, shown in zip(many, self.images, strict=True))


def _places(area: NDArray[np.int64]) -> NDArray[np.int64]:
    """Give the step in which an area is counted."""
    steps = np.floor(np.log2(np.maximum(area, 1) / _ALONE) * _STEPS).astype(np.int64)
    return np.where(area < _ALONE, area, _ALONE + np.clip(steps, 0, _STEPS * _DOUBLINGS - 1))
