"""Pixels and sizes of the classes in predicted images, counted while the masks are written."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pixelwise.imageio.sources import Source
from pixelwise.labels import Labels
from pixelwise.measuring.grid_scale import class_sizes, grid_scale, size_unit
from pixelwise.measuring.masks import bands
from pixelwise.tiles import Window

_BAND_PIXELS = 1 << 22


class ClassTotals:
    """Pixels and sizes of the classes in one image.

    Args:
        labels: the classes.
        source: the image, for its grid and size *S.
    """

    def __init__(self, labels: Labels, source: Source) -> None:
        self.labels, self.shape = labels, tuple(source.shape)
        self.scale = grid_scale(source.grid, self.shape)
        self.pixels = np.zeros(labels.num_classes, np.int64)
        self.sizes = np.zeros(labels.num_classes)

    def add(self, window: Window, mask: NDArray[Any]) -> None:
        """Count the mask of a window, class indices or the ignore index."""
        count = self.labels.num_classes
        self.pixels += np.bincount(mask.ravel(), minlength=self.labels.ignore_index + 1)[:count]
        self.sizes += class_sizes(mask, self.scale.sizes(window), count)

    def add_whole(self, mask: NDArray[Any]) -> None:
        """Count the mask of the whole image, (*S)."""
        for band in bands(self.shape, max(_BAND_PIXELS // math.prod(self.shape[1:]), 1)):
            self.add(band, mask[band.slices])

    def state(self) -> dict[str, Any]:
        """Return what was counted, as plain values."""
        return {"counts": self.pixels.tolist(), "sizes": self.sizes.tolist()}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Continue from a `state`."""
        self.pixels, self.sizes = np.asarray(state["counts"], np.int64), np.asarray(state["sizes"], np.float64)

    def entry(self) -> dict[str, Any]:
        """Return what `predictions.json` says: shares of the pixels, and per class pixels and size with the unit."""
        unit, factor = size_unit(self.scale, len(self.shape))
        total = math.prod(self.shape)
        named = list(zip(self.labels.names, self.pixels.tolist(), (factor * self.sizes).tolist(), strict=True))
        shares = {name: round(pixels / total, 6) for name, pixels, _ in named}
        if self.scale.unit == "px":
            return {"shares": shares, "classes": {name: {"pixels": pixels} for name, pixels, _ in named}}
        classes = {name: {"pixels": pixels, "size": size, "unit": unit} for name, pixels, size in named}
        return {"shares": shares, "classes": classes}


def summed(entries: Iterable[Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """Return the sums of `ClassTotals.entry` over images, by class: `pixels`, and `sizes` by unit."""
    totals: dict[str, dict[str, Any]] = {}
    for entry in entries:
        for name, found in entry.get("classes", {}).items():
            total = totals.setdefault(name, {"pixels": 0, "sizes": {}})
            total["pixels"] += found["pixels"]
            if "unit" in found:
                total["sizes"][found["unit"]] = total["sizes"].get(found["unit"], 0.0) + found["size"]
    return totals
