"""Accumulate the areas of connected regions per class, mask by mask, in constant memory.

Areas are counted in a histogram: exactly up to 1024 pixels, in steps of 1.1 % above.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from pixelwise.datasets.intensity import percentiles_of_counts
from pixelwise.geometry.contours import components

PERCENTS = (5.0, 50.0, 95.0)
_EXACT, _STEPS, _DOUBLINGS = 1024, 64, 40
_SIDE = 4096  # larger masks are cropped, since labelling regions takes about fifty bytes per pixel


class ObjectSizes:
    """Accumulate the 4-connected regions of each class; ignored pixels form no region.

    Args:
        classes: K.
    """

    def __init__(self, classes: int) -> None:
        self.counts = np.zeros((classes, _EXACT + _STEPS * _DOUBLINGS), np.int64)
        self.images = np.zeros(classes, np.int64)
        coarse = _EXACT * 2 ** ((np.arange(_STEPS * _DOUBLINGS) + 0.5) / _STEPS)
        self.levels = np.concatenate([np.arange(_EXACT, dtype=np.float64), coarse])

    def add(self, mask: NDArray[Any]) -> None:
        """Add the regions of a mask (H, W) of class indices; of a larger one those of the central 4096×4096 pixels.

        Of a volume (D, H, W), the middle slice is added.
        """
        mask = mask if mask.ndim == 2 else mask[len(mask) // 2]
        top, left = (max(side - _SIDE, 0) // 2 for side in mask.shape)
        mask = mask[top : top + _SIDE, left : left + _SIDE]
        regions, count = components(mask)
        flat = regions.reshape(-1)
        classes = np.zeros(count, np.int64)
        classes[flat] = mask.reshape(-1)
        area = np.bincount(flat, minlength=count)
        known = classes < len(self.images)
        np.add.at(self.counts, (classes[known], _bins(area[known])), 1)
        self.images[np.unique(classes[known])] += 1

    def sizes(self) -> tuple[tuple[float, float, float] | None, ...]:
        """Return the 5 %, 50 % and 95 % quantiles of the areas in pixels per class; None for classes that never occur."""
        return tuple(self._quantiles(k) if self.images[k] else None for k in range(len(self.images)))

    def _quantiles(self, k: int) -> tuple[float, float, float]:
        small, middle, large = (round(v, 1) for v in percentiles_of_counts(self.levels, self.counts[k], PERCENTS))
        return small, middle, large

    def per_image(self) -> tuple[float | None, ...]:
        """Return the mean number of regions per image that shows the class; None for classes that never occur."""
        totals = self.counts.sum(1)
        return tuple(
            round(float(n / shown), 2) if shown else None for n, shown in zip(totals, self.images, strict=True)
        )


def _bins(area: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the histogram bins of areas."""
    steps = np.floor(np.log2(np.maximum(area, 1) / _EXACT) * _STEPS).astype(np.int64)
    return np.where(area < _EXACT, area, _EXACT + np.clip(steps, 0, _STEPS * _DOUBLINGS - 1))
