"""From pixels to physical sizes: areas and volumes of pixels, with the origin of the unit."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from pixelwise.tiles import Window

Array = NDArray[np.float64]


class Scale(Protocol):
    """The physical size of the pixels of one image with n axes, possibly different from place to place."""

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


def pixels(ndim: int, reason: str) -> AffineScale:
    """Return a scale in pixels, for an image whose spacing is unknown for a reason."""
    return AffineScale(np.eye(ndim), "px", "no spacing", reason)
