"""The spatial reference of an array: pixel spacing, unit, affine transform and CRS.

Only this module converts between pixels and physical units.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from pixelwise.errors import DataError

Affine = tuple[tuple[float, ...], ...]

# Metres per unit of length.
METRES = {"m": 1.0, "mm": 1e-3, "cm": 1e-2, "km": 1e3, "ft": 0.3048, "us-ft": 1200 / 3937}
_RADIANS = {"deg": np.pi / 180, "rad": 1.0, "grad": np.pi / 200}
_EARTH = 6_371_008.8  # mean radius of the Earth, metres (IUGG)
_MERCATOR, _MERCATOR_RADIUS = "EPSG:3857", 6_378_137.0


@dataclass(frozen=True)
class Grid:
    """The spatial reference of an array.

    Args:
        spacing: distance between neighbouring pixel centres per axis, in array order: (row, column) or (slice, row, column).
        unit: unit of `spacing`: "mm", "m", "deg", …, or "px" if unknown.
        affine: homogeneous matrix from pixel (x, y[, z]), with pixel centres at integers, to world coordinates; None if unknown.
        crs: coordinate reference system as an authority code or WKT; None if unknown.
        calibration: source of the spacing ("PixelSpacing", "GeoTransform", …); None if unknown.

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
                do="Use the homogeneous matrix for the axes of the array.",
            )
        # Tuples of floats make grids comparable and hashable.
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
        """The number of spatial axes: 2 or 3."""
        return len(self.spacing)

    @property
    def pixel_size(self) -> float:
        """The area (2-D) or volume (3-D) of one pixel in `unit` squared or cubed.

        With an affine, this is |det| of its linear part, which is also correct for sheared grids.
        """
        if self.affine is not None:
            return float(abs(np.linalg.det(np.asarray(self.affine, float)[:-1, :-1])))
        return float(np.prod(self.spacing))

    @property
    def has_lengths(self) -> bool:
        """Whether spacings are lengths: not of angles, and not of Web Mercator (EPSG:3857), which enlarges them."""
        return self.unit in METRES and self.crs != _MERCATOR

    def metres(self, shape: Sequence[int]) -> tuple[float, ...] | None:
        """Return the approximate spacing in metres at the centre of an image of size *S; None if it is unknown.

        Degrees are converted on a sphere at the latitude of the centre. Web Mercator (EPSG:3857) enlarges lengths by
        1 / cos(latitude), which is undone.
        """
        if self.unit in METRES:
            scale = METRES[self.unit]
            if self.crs == _MERCATOR and self.affine is not None:
                scale /= float(np.cosh(self._centre(shape)[1] / _MERCATOR_RADIUS))
            return tuple(scale * size for size in self.spacing)
        if self.unit in _RADIANS and self.affine is not None and self.ndim == 2:
            angle = _RADIANS[self.unit]
            rows, columns = (_EARTH * angle * size for size in self.spacing)
            return rows, columns * max(float(np.cos(self._centre(shape)[1] * angle)), 1e-6)
        return None

    def _centre(self, shape: Sequence[int]) -> tuple[float, ...]:
        """Return the world coordinates (x, y[, z]) of the centre of an image of size *S."""
        middle = np.array([[(size - 1) / 2 for size in shape[-self.ndim :]]])
        return tuple(self.to_world(middle)[0].tolist())

    def to_world(self, pixels: NDArray[np.floating]) -> NDArray[np.floating]:
        """Convert pixel positions (N, ndim), in (row, column) order with centres at integers, to world (x, y[, z]).

        Without an affine, world coordinates are the pixel position times the spacing.
        """
        xyz = np.asarray(pixels, float)[:, ::-1]
        if self.affine is None:
            return xyz * np.asarray(self.spacing)[::-1]
        matrix = np.asarray(self.affine, float)
        return xyz @ matrix[:-1, :-1].T + matrix[:-1, -1]

    def to_pixels(self, world: NDArray[np.floating]) -> NDArray[np.floating]:
        """Convert world positions (N, ndim), (x, y[, z]), to pixel positions in (row, column) order."""
        points = np.asarray(world, float)
        if self.affine is None:
            return (points / np.asarray(self.spacing)[::-1])[:, ::-1]
        matrix = np.asarray(self.affine, float)
        return np.linalg.solve(matrix[:-1, :-1], (points - matrix[:-1, -1]).T).T[:, ::-1]

    def require_same(self, other: Grid, where: object) -> None:
        """Raise if `other`, such as that of a mask, differs from this grid by more than 1e-4 of a pixel.

        Raises:
            DataError: spacing, unit, affine or CRS differ.
        """
        for field in ("spacing", "unit", "affine", "crs"):
            mine = getattr(self, field)
            theirs = getattr(other, field)
            if mine == theirs:
                continue
            numeric = field in ("spacing", "affine") and mine is not None and theirs is not None
            tolerance = 1e-4 * self._finest(field)
            if numeric and np.shape(mine) == np.shape(theirs) and np.allclose(mine, theirs, 0, tolerance):
                continue
            raise DataError(
                where,
                expected=f"the image's {field} {mine}",
                found=str(theirs),
                do="Resample the mask to the image's grid.",
            )

    def _finest(self, field: str) -> float:
        """Return the smallest distance between neighbouring pixels, in the unit of `field`."""
        if field == "spacing" or self.affine is None:
            return min(self.spacing)
        return float(np.linalg.norm(np.asarray(self.affine)[:-1, :-1], axis=0).min())

    def with_axes(self, ndim: int) -> Grid:
        """Return this grid if it has `ndim` axes, otherwise one with a spacing of 1 pixel."""
        return self if ndim == self.ndim else replace(Grid(), spacing=(1.0,) * ndim)
