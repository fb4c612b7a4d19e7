"""Where the pixels of an array lie in the world: the only place where pixels become millimetres.

Comes in: spacing, unit, affine, CRS, calibration, as a file header gave them. Goes out: a frozen `Grid` with positions,
and the size of one pixel. Knows nothing of files, classes or tensors.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from pixelwise.errors import DataError

Affine = tuple[tuple[float, ...], ...]


@dataclass(frozen=True)
class Grid:
    """Place an array in the world.

    Args:
        spacing: distance between neighbouring pixel centres per axis, in array order: (row, column) or (slice, row, column).
        unit: the unit of `spacing`: "px" where nothing is known, else "mm", "m", "deg", …
        affine: homogeneous matrix from pixel (x, y[, z]), its centre at whole numbers, to world coordinates; None where unknown.
        crs: coordinate reference system as an authority code or WKT; None where unknown.
        calibration: how the spacing was obtained ("PixelSpacing", "GeoTransform", …); None where unknown.

    Raises:
        DataError: a spacing that is not positive and finite, or an affine of the wrong shape or without an inverse.
    """

    spacing: tuple[float, ...] = (1.0, 1.0)
    unit: str = "px"
    affine: Affine | None = None
    crs: str | None = None
    calibration: str | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "spacing", tuple(float(s) for s in self.spacing))
        if self.ndim not in (2, 3) or not all(np.isfinite(s) and s > 0 for s in self.spacing):
            raise DataError(
                "grid.spacing",
                expected="two or three positive distances",
                found=str(self.spacing),
                do="Correct the header of the file.",
            )
        if self.affine is None:
            return
        if np.shape(self.affine) != (self.ndim + 1, self.ndim + 1):
            raise DataError(
                "grid.affine",
                expected=f"a {self.ndim + 1}×{self.ndim + 1} matrix",
                found=f"shape {np.shape(self.affine)}",
                do="Give the homogeneous matrix of as many axes as the array has.",
            )
        # Tuples, so that grids can be compared and hashed whatever the reader of the file gave.
        object.__setattr__(self, "affine", tuple(tuple(float(v) for v in row) for row in self.affine))
        if not (np.isfinite(self.affine).all() and self.pixel_size > 0):
            raise DataError(
                "grid.affine",
                expected="a matrix with an inverse",
                found=str(self.affine),
                do="Correct the header of the file.",
            )

    @property
    def ndim(self) -> int:
        """Count the spatial axes: 2 or 3."""
        return len(self.spacing)

    @property
    def pixel_size(self) -> float:
        """Give the area (2-D) or volume (3-D) of one pixel in `unit` squared or cubed.

        With an affine this is |det| of its linear part, which stays right for rotated and sheared grids (the product
        of the spacings does not).
        """
        if self.affine is not None:
            return float(abs(np.linalg.det(np.asarray(self.affine, float)[:-1, :-1])))
        return float(np.prod(self.spacing))

    def to_world(self, pixels: NDArray[np.floating]) -> NDArray[np.floating]:
        """Map pixel positions (N, ndim), (row, column) order with centres at whole numbers, to world (x, y[, z]).

        Without an affine, world is the spacing times the pixel position.
        """
        xyz = np.asarray(pixels, float)[:, ::-1]
        if self.affine is None:
            return xyz * np.asarray(self.spacing)[::-1]
        matrix = np.asarray(self.affine, float)
        return xyz @ matrix[:-1, :-1].T + matrix[:-1, -1]

    def to_pixels(self, world: NDArray[np.floating]) -> NDArray[np.floating]:
        """Map world positions (N, ndim), (x, y[, z]), to pixel positions (row, column) order: undo `to_world`."""
        points = np.asarray(world, float)
        if self.affine is None:
            return (points / np.asarray(self.spacing)[::-1])[:, ::-1]
        matrix = np.asarray(self.affine, float)
        return np.linalg.solve(matrix[:-1, :-1], (points - matrix[:-1, -1]).T).T[:, ::-1]

    def require_same(self, other: Grid, where: object) -> None:
        """Raise where `other` does not lie on this grid (image and mask, say); 1e-4 of a pixel is forgiven.

        Raises:
            DataError: spacing, unit, affine or CRS differ.
        """
        for field in ("spacing", "unit", "affine", "crs"):
            mine, theirs = getattr(self, field), getattr(other, field)
            if mine == theirs:
                continue
            numeric = field in ("spacing", "affine") and mine is not None and theirs is not None
            if (
                numeric
                and np.shape(mine) == np.shape(theirs)
                and np.allclose(mine, theirs, 0, 1e-4 * self._finest(field))
            ):
                continue
            raise DataError(
                where,
                expected=f"the image's {field} {mine}",
                found=str(theirs),
                do="Resample the mask to the image's grid.",
            )

    def _finest(self, field: str) -> float:
        """Give the smallest distance between neighbouring pixels, in the numbers that `field` is written in."""
        if field == "spacing" or self.affine is None:
            return min(self.spacing)
        return float(np.linalg.norm(np.asarray(self.affine)[:-1, :-1], axis=0).min())

    def with_axes(self, ndim: int) -> Grid:
        """Give a grid of `ndim` axes: itself where it fits, else one of unit spacing in pixels."""
        return self if ndim == self.ndim else replace(Grid(), spacing=(1.0,) * ndim)
