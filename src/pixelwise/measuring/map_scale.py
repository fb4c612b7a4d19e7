"""Geodesic areas of the pixels of a map, whatever its coordinate reference system.

Pixels times their nominal size are wrong where a projection enlarges areas: by 15 to 46 % in India in Web Mercator. In degrees a pixel has
no nominal area at all. Here the area of a pixel is that on the ellipsoid of the system's datum.

The ratio of areas is computed at nodes some kilometres apart, from geodesics along the rows and columns (Karney 2013,
doi:10.1007/s00190-012-0578-z, in PROJ), and interpolated linearly between them; the error is less than 1e-6 of the area for images of less than
10,000 km.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from pixelwise.errors import DataError
from pixelwise.grid import Grid
from pixelwise.measuring.scale import Array
from pixelwise.tiles import Window

# Metres between nodes, and half the length of the geodesics.
_APART, _REACH = 10_000.0, 50.0
_MOST_NODES = 1025
_SAME = 1e-9


class MapScale:
    """The geodesic areas of the pixels of a map; see `Scale`.

    Args:
        grid: with a coordinate reference system and an affine.
        shape: (H, W) of the image.

    Raises:
        DataError: the system is unknown to PROJ or not one of the Earth, or a part of the image is outside of it.
        ImportError: pyproj is not installed.
    """

    unit = "m"
    reason = None

    def __init__(self, grid: Grid, shape: Sequence[int]) -> None:
        from pyproj import CRS, Transformer
        from pyproj.exceptions import ProjError

        try:
            system = CRS.from_user_input(grid.crs)
            geod, geodetic = system.get_geod(), system.geodetic_crs
        except ProjError as error:
            raise _unusable(grid, str(error)) from error
        if geod is None or geodetic is None or grid.affine is None:
            raise _unusable(grid, "a local system")
        self.grid, self.shape = grid, tuple(shape)
        self._geod: Any = geod
        self._to_degrees: Any = Transformer.from_crs(system, geodetic, always_xy=True)
        ellipsoid = system.ellipsoid.name if system.ellipsoid else "the ellipsoid"
        self._nodes = self._compute_nodes()
        self.provenance = f"geodesic areas on {ellipsoid}, from the position of the pixels in {grid.crs}"

    def sizes(self, window: Window) -> Array:
        """Return the area of each pixel of a window in m², (H, W), or (H, 1) where it depends on the row only."""
        rows, columns, areas = self._nodes
        place = [
            np.arange(start, stop, dtype=np.float64) for start, stop in zip(window.start, window.stop, strict=True)
        ]
        by_row = _interpolated(areas, rows, place[0])
        if (np.ptp(areas, axis=1) <= _SAME * areas.max(1)).all():
            return by_row[:, :1]
        return _interpolated(by_row.T, columns, place[1]).T

    def _compute_nodes(self) -> tuple[Array, Array, Array]:
        """Return rows (n) and columns (m) of the nodes, and the areas of pixels there (n, m)."""
        pixel = self._pixel_metres()
        rows, columns = (
            np.linspace(0, size - 1, _count(size, metres)) for size, metres in zip(self.shape, pixel, strict=True)
        )
        at = np.stack(np.meshgrid(rows, columns, indexing="ij"), -1).reshape(-1, 2)
        reach = [_REACH / metres for metres in pixel]
        along = [self._geodesics(at, np.array(step)) for step in ((reach[0], 0.0), (0.0, reach[1]))]
        (azimuth, length), (other, width) = along
        areas = np.abs(np.sin(np.radians(azimuth - other))) * length * width / (4 * reach[0] * reach[1])
        if not (np.isfinite(areas).all() and (areas > 0).all()):
            raise _unusable(self.grid, "pixels outside of the area of the system")
        return rows, columns, areas.reshape(len(rows), len(columns))

    def _pixel_metres(self) -> tuple[float, float]:
        """Return the approximate size of a pixel at the centre of the image, between rows and between columns."""
        centre = np.array([[(size - 1) / 2 for size in self.shape]])
        found = [float(self._geodesics(centre, np.array(step))[1][0]) / 2 for step in ((0.5, 0.0), (0.0, 0.5))]
        if not all(math.isfinite(metres) and metres > 0 for metres in found):
            raise _unusable(self.grid, "pixels outside of the area of the system")
        return 2 * found[0], 2 * found[1]

    def _geodesics(self, at: Array, step: Array) -> tuple[Array, Array]:
        """Return azimuth in degrees and length in metres of the geodesics from `at` - step to `at` + step, (N,) each."""
        start, stop = (self._to_degrees.transform(*self.grid.to_world(at + sign * step).T) for sign in (-1, 1))
        if not np.isfinite([*start, *stop]).all():
            raise _unusable(self.grid, "pixels outside of the area of the system")
        azimuth, back, length = self._geod.inv(*start, *stop)
        # In the middle of the geodesic: its direction changes towards the poles.
        middle = np.degrees(
            np.angle(np.exp(1j * np.radians(azimuth)) + np.exp(1j * np.radians(np.asarray(back) + 180)))
        )
        return middle, np.asarray(length)


def _count(size: int, metres: float) -> int:
    """Return the number of nodes along an axis."""
    return min(max(2, math.ceil(size * metres / _APART) + 1), _MOST_NODES) if size > 1 else 1


def _interpolated(values: Array, places: Array, at: Array) -> Array:
    """Interpolate rows (n, m) at ascending places (n,) linearly at `at` (k,), (k, m)."""
    if len(places) == 1:
        return np.repeat(values, len(at), 0)
    index = np.clip(np.searchsorted(places, at) - 1, 0, len(places) - 2)
    share = ((at - places[index]) / (places[index + 1] - places[index]))[:, None]
    return values[index] * (1 - share) + values[index + 1] * share


def _unusable(grid: Grid, found: str) -> DataError:
    return DataError(
        "coordinate reference system",
        expected="one of the Earth, with the whole image inside its area",
        found=f"{grid.crs}: {found}",
        do="Reproject the image, or give --spacing.",
    )
