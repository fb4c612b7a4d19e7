"""Geodesic areas and lengths on a map, whatever its coordinate reference system.

Pixels times their nominal size are wrong where a projection enlarges areas: by 15 to 46 % in India in Web Mercator. In degrees a pixel has
no nominal area at all. Here the area of a pixel is that on the ellipsoid of the system's datum.

Areas and lengths are computed at nodes some kilometres apart, from geodesics along the rows and columns (Karney 2013,
doi:10.1007/s00190-012-0578-z, in PROJ), and interpolated linearly between them; the error is less than 1e-6 of the area for images of less than
10,000 km. What is interpolated of lengths is the metric tensor JᵀJ, which unlike directions to the north is continuous at the poles.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

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
        rows, columns, areas, _ = self._nodes
        place = [
            np.arange(start, stop, dtype=np.float64) for start, stop in zip(window.start, window.stop, strict=True)
        ]
        by_row = _interpolated(areas, rows, place[0])
        if (np.ptp(areas, axis=1) <= _SAME * areas.max(1)).all():
            return by_row[:, :1]
        return _interpolated(by_row.T, columns, place[1]).T

    def jacobians(self, positions: Array) -> Array:
        """See `Scale.jacobians`; a triangular matrix."""
        rows, columns, _, metric = self._nodes
        along, mixed, across = _interpolated_at(metric, rows, columns, positions).T
        matrices = np.zeros((len(positions), 2, 2))
        matrices[:, 0, 0] = np.sqrt(along)
        matrices[:, 0, 1] = mixed / matrices[:, 0, 0]
        matrices[:, 1, 1] = np.sqrt(across - matrices[:, 0, 1] ** 2)
        return matrices

    def distances(self, first: Array, second: Array) -> Array:
        """Return the lengths of the geodesics between positions in m, (N,)."""
        ends = [
            coordinate for at in (first, second) for coordinate in self._to_degrees.transform(*self.grid.to_world(at).T)
        ]
        if not np.isfinite(ends).all():
            return np.full(len(first), np.nan)
        return np.asarray(self._geod.inv(*ends)[2], np.float64)

    def _compute_nodes(self) -> tuple[Array, Array, Array, Array]:
        """Return rows (n) and columns (m) of the nodes, the areas of pixels (n, m), and the metric tensor (n, m, 3): rr, rc, cc."""
        pixel = self._pixel_metres()
        rows, columns = (
            np.linspace(0, size - 1, _count(size, metres)) for size, metres in zip(self.shape, pixel, strict=True)
        )
        at = np.stack(np.meshgrid(rows, columns, indexing="ij"), -1).reshape(-1, 2)
        reach = [_REACH / metres for metres in pixel]
        steps = np.array([(reach[0], 0.0), (0.0, reach[1]), reach, (reach[0], -reach[1])])
        along, across, sum_, difference = (self._lengths(at, step) ** 2 for step in steps)
        # Of displacements of `reach` from `at`; lengths unlike directions to the north are defined at the poles.
        mixed = (sum_ - difference) / 4
        metric = np.stack([along, mixed, across], -1) / (4 * np.outer(reach, reach)[[0, 0, 1], [0, 1, 1]])
        areas = np.sqrt(metric[:, 0] * metric[:, 2] - metric[:, 1] ** 2)
        if not (np.isfinite(areas).all() and (areas > 0).all()):
            raise _unusable(self.grid, "pixels outside of the area of the system")
        nodes = (len(rows), len(columns))
        return rows, columns, areas.reshape(nodes), metric.reshape(*nodes, 3)

    def _pixel_metres(self) -> tuple[float, float]:
        """Return the approximate size of a pixel at the centre of the image, between rows and between columns."""
        centre = np.array([[(size - 1) / 2 for size in self.shape]])
        found = [float(self._lengths(centre, np.array(step))[0]) for step in ((0.5, 0.0), (0.0, 0.5))]
        if not all(math.isfinite(metres) and metres > 0 for metres in found):
            raise _unusable(self.grid, "pixels outside of the area of the system")
        return found[0], found[1]

    def _lengths(self, at: Array, step: Array) -> Array:
        """Return the lengths in metres of the geodesics from `at` - step to `at` + step, (N,)."""
        found = self.distances(at - step, at + step)
        if not np.isfinite(found).all():
            raise _unusable(self.grid, "pixels outside of the area of the system")
        return found


def _count(size: int, metres: float) -> int:
    """Return the number of nodes along an axis."""
    return min(max(2, math.ceil(size * metres / _APART) + 1), _MOST_NODES) if size > 1 else 1


def _interpolated(values: Array, places: Array, at: Array) -> Array:
    """Interpolate rows (n, m) at ascending places (n,) linearly at `at` (k,), (k, m)."""
    if len(places) == 1:
        return np.repeat(values, len(at), 0)
    index, share = _between(places, at)
    return values[index] * (1 - share[:, None]) + values[index + 1] * share[:, None]


def _interpolated_at(values: Array, rows: Array, columns: Array, positions: Array) -> Array:
    """Interpolate values (n, m, v) at nodes (n,) × (m,) linearly at positions (N, 2), (N, v)."""
    index, share = zip(
        *(_between(places, at) for places, at in zip((rows, columns), positions.T, strict=True)), strict=True
    )
    total = np.zeros((len(positions), values.shape[2]))
    for corner in ((0, 0), (0, 1), (1, 0), (1, 1)):
        weight = np.prod([part if last else 1 - part for part, last in zip(share, corner, strict=True)], axis=0)
        at = [np.minimum(i + last, size - 1) for i, last, size in zip(index, corner, values.shape, strict=False)]
        total += weight[:, None] * values[at[0], at[1]]
    return total


def _between(places: Array, at: Array) -> tuple[NDArray[np.intp], Array]:
    """Return the index of the place before each of `at`, and the share of the way to the next place."""
    if len(places) == 1:
        return np.zeros(len(at), np.intp), np.zeros(len(at))
    index = np.clip(np.searchsorted(places, at) - 1, 0, len(places) - 2)
    return index, (at - places[index]) / (places[index + 1] - places[index])


def _unusable(grid: Grid, found: str) -> DataError:
    return DataError(
        "coordinate reference system",
        expected="one of the Earth, with the whole image inside its area",
        found=f"{grid.crs}: {found}",
        do="Reproject the image, or give --spacing.",
    )
