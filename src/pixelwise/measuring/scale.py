"""From pixels to physical sizes: areas of pixels and distances between them, with the origin of the unit."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from pixelwise.tiles import Window

Array = NDArray[np.float64]


class Scale(Protocol):
    """The physical size of the pixels of one image with n axes, possibly different from place to place.

    Positions are in array order, (row, column) or (slice, row, column), with pixel centres at integers.
    """

    @property
    def unit(self) -> str:
        """Unit of lengths: "m" or "mm"; "px" if the image has no spacing."""

    @property
    def provenance(self) -> str:
        """Where the unit comes from, in one sentence, such as "PixelSpacing, calibrated to the body"."""

    @property
    def reason(self) -> str | None:
        """Why sizes are in pixels, in one sentence; None if there is a unit."""

    def sizes(self, window: Window) -> Array:
        """Return the area (n = 2) or volume (n = 3) of each pixel of a window, in `unit`ⁿ, in a shape that broadcasts to the window's."""

    def jacobians(self, positions: Array) -> Array:
        """Return, for positions (N, n), matrices (N, n, n) from displacements in pixels to displacements in `unit`.

        The axes of the displacements in `unit` are orthogonal, of one length, and otherwise arbitrary: only lengths and angles count.
        """

    def distances(self, first: Array, second: Array) -> Array:
        """Return the distances (N,) in `unit` between positions (N, n) and positions (N, n)."""


@dataclass(frozen=True, eq=False)
class AffineScale:
    """A scale that is the same everywhere in an image.

    Args:
        matrix: (n, n), from displacements in pixels, in array order, to displacements in `unit`.
        unit, provenance, reason: see `Scale`.
    """

    matrix: Array
    unit: str
    provenance: str
    reason: str | None = None

    def sizes(self, window: Window) -> Array:
        """See `Scale.sizes`: |det| of the matrix, also for sheared grids."""
        return np.full((1,) * len(window.shape), abs(np.linalg.det(self.matrix)))

    def jacobians(self, positions: Array) -> Array:
        """See `Scale.jacobians`."""
        return np.broadcast_to(self.matrix, (len(positions), *self.matrix.shape))

    def distances(self, first: Array, second: Array) -> Array:
        """See `Scale.distances`."""
        return np.linalg.norm((second - first) @ self.matrix.T, axis=1)


def pixels(ndim: int, reason: str) -> AffineScale:
    """Return a scale in pixels, for an image whose spacing is unknown for a reason."""
    return AffineScale(np.eye(ndim), "px", "no spacing", reason)
