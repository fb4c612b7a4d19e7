"""Resample images to another pixel spacing, whole or window by window, and masks back to the grid of the image."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pixelwise.grid import METRES, Grid
from pixelwise.imageio.sources import Readable
from pixelwise.tiles import Window

Image = tuple[NDArray[Any], NDArray[np.bool_] | None]


@dataclass(frozen=True, eq=False)
class ResampledSource:
    """A source on a grid with other spacings.

    Values are means weighted by a triangle as wide as the larger of the two spacings on either side (the antialiased bilinear
    filter of image libraries). Pixels without data have no weight; a pixel holds data if more than half of its weight does.

    Args:
        source: the image.
        factors: pixels of the source per pixel along each axis; below 1 the image is enlarged.
    """

    source: Readable
    factors: tuple[float, ...]

    @property
    def shape(self) -> tuple[int, ...]:
        """*S: each side divided by its factor, rounded, at least 1."""
        return tuple(max(1, round(n / f)) for n, f in zip(self.source.shape, self.factors, strict=True))

    @property
    def dtype(self) -> np.dtype[Any]:
        """The type of the pixel values."""
        return self.source.dtype

    @property
    def ratios(self) -> tuple[float, ...]:
        """Pixels of the source per pixel along each axis, exactly: the sides are rounded."""
        return tuple(n / m for n, m in zip(self.source.shape, self.shape, strict=True))

    def read(self, window: Window | None = None) -> Image:
        """Read a window, or everything: the image (C, *S), and valid (*S), or None if all its pixels are valid."""
        window = window or Window((0,) * len(self.shape), self.shape)
        tables = [
            triangle(start, stop, ratio, size)
            for start, stop, ratio, size in zip(window.start, window.stop, self.ratios, self.source.shape, strict=True)
        ]
        needed = Window(tuple(first for first, _ in tables), tuple(first + w.shape[1] for first, w in tables))
        image, valid = self.source.read(needed)
        weights = [table for _, table in tables]
        known = np.ones(image.shape[1:], np.float32) if valid is None else valid.astype(np.float32)
        values = np.where(known > 0, image, 0).astype(np.float64 if image.dtype.itemsize > 4 else np.float32)
        share = _along(weights, known[None])
        mean = _along(weights, values) / np.where(share > 0, share, 1)
        if image.dtype.kind != "f":
            limits = np.iinfo(image.dtype)
            mean = np.clip(np.rint(mean), limits.min, limits.max)
        # Above one half by more than rounding, so that windows agree.
        held = share[0] > 0.50001
        return mean.astype(image.dtype), None if held.all() else held

    def source_window(self, window: Window) -> Window:
        """Return the pixels of the source whose centres are in a window of this grid: windows side by side have none in common."""
        bounds = [
            (int(np.ceil(start * ratio - 0.5)), int(np.ceil(stop * ratio - 0.5)))
            for start, stop, ratio in zip(window.start, window.stop, self.ratios, strict=True)
        ]
        return Window(tuple(a for a, _ in bounds), tuple(b for _, b in bounds))

    def restore(self, values: NDArray[Any], window: Window) -> NDArray[Any]:
        """Return values (…, *window.shape) on the pixels of `source_window`: of each, those of the pixel that holds its centre."""
        place = self.source_window(window)
        for axis, (a, b) in enumerate(zip(place.start, place.stop, strict=True)):
            pixels = np.floor((np.arange(a, b) + 0.5) / self.ratios[axis]).astype(np.intp) - window.start[axis]
            values = np.take(values, np.clip(pixels, 0, window.shape[axis] - 1), axis - len(place.start))
        return values


def triangle(start: int, stop: int, ratio: float, size: int) -> tuple[int, NDArray[np.float32]]:
    """Return the weights by which pixels along an axis are averaged to pixels of another spacing.

    Args:
        start: the first new pixel.
        stop: the one after the last.
        ratio: old pixels per new one.
        size: number of old pixels.

    Returns:
        The first old pixel that is needed, and the weights (stop - start, n) of it and the following ones; rows sum to 1.
    """
    radius = max(ratio, 1.0)
    centres = (np.arange(start, stop) + 0.5) * ratio - 0.5
    first, last = max(0, int(np.ceil(centres[0] - radius))), min(size - 1, int(np.floor(centres[-1] + radius)))
    distance = np.abs(np.arange(first, last + 1) - centres[:, None]) / radius
    table = np.clip(1 - distance, 0, None)
    return first, (table / table.sum(1, keepdims=True)).astype(np.float32)


def _along(weights: Sequence[NDArray[np.float32]], values: NDArray[Any]) -> NDArray[Any]:
    """Apply weights (m, n) along each spatial axis of values (C, *n)."""
    for axis, table in enumerate(weights, 1):
        values = np.moveaxis(np.tensordot(table, values, (1, axis)), 0, axis)
    return values


def factors_to(grid: Grid, shape: Sequence[int], spacing: Sequence[float], unit: str) -> tuple[float, ...] | None:
    """Return how many pixels of a grid correspond to one of another spacing along each axis; None if that is unknown.

    Args:
        grid: of the image.
        shape: its size *S.
        spacing: the other spacing along the last axes; the others get a factor of 1.
        unit: of it.
    """
    if unit in METRES:
        own = grid.metres(shape)
        wanted = tuple(METRES[unit] * size for size in spacing)
    else:
        own = grid.spacing if grid.unit == unit != "px" else None
        wanted = tuple(spacing)
    if own is None or len(own) < len(wanted):
        return None
    first = len(own) - len(wanted)
    return (1.0,) * first + tuple(b / a for a, b in zip(own[first:], wanted, strict=True))
