"""Polygons of a map in longitude and latitude, as RFC 7946 has them.

A straight line in one coordinate reference system is a curve in another. Borders get further points where a straight line
in longitude and latitude would be off by more than `_TOLERANCE` of a pixel. This is done to the borders, not to the polygons,
so that neighbours get the same points.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pixelwise.errors import DataError, MaskError
from pixelwise.formats.vector_features import LONGITUDE_LATITUDE, transformer
from pixelwise.geometry.pixel_polygons import Borders
from pixelwise.grid import Grid
from pixelwise.imageio.extras import need

Points = NDArray[np.float64]
_TOLERANCE = 0.02  # pixels
_MOST_PIECES = 256
_DIGITS = 4  # of a pixel
_WORLD = 360.0


class Geographic:
    """Transform borders of a mask to WGS 84, and form the rings of polygons.

    Args:
        grid: with an affine and a coordinate reference system.
        where: what is written, for messages.

    Raises:
        DataError: no known transformation from the system to WGS 84.
        ImageError: pyproj or shapely is not installed.
    """

    def __init__(self, grid: Grid, where: object) -> None:
        self.grid, self.where = grid, where
        self._shapely = need("shapely", "geo", where)
        self._polygon = need("shapely.geometry", "geo", where)
        try:
            self._to_degrees = transformer(str(grid.crs), LONGITUDE_LATITUDE, where)[0]
        except MaskError as error:
            raise self._unusable(str(grid.crs)[:60]) from error

    def borders(self, borders: Borders) -> Borders:
        """Return borders in degrees, densified where needed and rounded to 1e-4 of a pixel."""
        points, starts = borders.points, borders.starts
        if not len(points):
            return borders
        inside = np.ones(len(points), bool)
        inside[starts[1:] - 1] = False  # no edge from the last point of an arc
        first = np.flatnonzero(inside)
        degrees = self._degrees(points)
        pieces = np.ones(len(points), np.int64)
        pieces[first] = self._pieces(points[first], points[first + 1], degrees[first], degrees[first + 1])
        owner = np.repeat(np.arange(len(points)), pieces)
        step = np.arange(len(owner)) - np.repeat(np.cumsum(pieces) - pieces, pieces)
        following = np.minimum(owner + 1, len(points) - 1)
        share = (step / pieces[owner])[:, None]
        dense = points[owner] * (1 - share) + points[following] * share
        counts = np.append(0, np.cumsum(pieces))
        edges = degrees[first + 1] - degrees[first]
        edges[:, 0] = _wrapped(edges[:, 0])
        lengths = np.hypot(*edges.T) / np.hypot(*(points[first + 1] - points[first]).T)
        digits = min(max(7, math.ceil(-math.log10(max(float(np.median(lengths)), 1e-11))) + _DIGITS), 15)
        return borders.with_points(np.round(self._degrees(dense), digits), counts[starts])

    def geometry(self, rings: Sequence[Points]) -> dict[str, Any]:
        """Return rings in degrees, the outer one first, as a Polygon, or a MultiPolygon cut at the antimeridian."""
        outer, *holes = rings
        if not any(_crosses(ring) for ring in rings):
            return {"type": "Polygon", "coordinates": [_closed(outer, 1), *(_closed(hole, -1) for hole in holes)]}
        outer, *holes = (self._cut(_unwrapped(ring)) for ring in rings)
        shape = self._shapely.difference(outer, self._shapely.union_all(holes)) if holes else outer
        orient = self._shapely.geometry.polygon.orient
        parts = [orient(part) for part in getattr(shape, "geoms", [shape]) if part.geom_type == "Polygon"]
        merged = parts[0] if len(parts) == 1 else self._polygon.MultiPolygon(parts)
        return dict(self._polygon.mapping(merged))

    def _cut(self, ring: Points) -> Any:
        """Return the area of a ring of continuous longitudes, cut at ±180°; of one around a pole, up to the pole."""
        if abs(ring[-1, 0] - ring[0, 0]) > _WORLD / 2:
            turn = math.copysign(_WORLD, ring[-1, 0] - ring[0, 0])
            closing = ring[:1] + np.array([turn, 0.0])
            pole = math.copysign(90.0, float(ring[:, 1].mean()))
            ring = np.concatenate([ring, closing, [[closing[0, 0], pole], [ring[0, 0], pole]]])
        area = self._polygon.Polygon(ring)
        parts = []
        for turns in range(math.floor((ring[:, 0].min() + 180) / _WORLD), math.ceil((ring[:, 0].max() + 180) / _WORLD)):
            box = self._shapely.box(turns * _WORLD - 180, -90, turns * _WORLD + 180, 90)
            part = self._shapely.intersection(area, box)
            parts.append(self._shapely.transform(part, lambda points, by=turns * _WORLD: points - [by, 0.0]))
        return self._shapely.union_all(parts)

    def _pieces(self, first: Points, last: Points, start: Points, stop: Points) -> NDArray[np.int64]:
        """Return the number of equal pieces of each edge from its deviation in the middle, which grows with the square of its length."""
        middle = self._degrees((first + last) / 2)
        edge, off = stop - start, middle - start
        edge[:, 0], off[:, 0] = _wrapped(edge[:, 0]), _wrapped(off[:, 0])
        off -= edge / 2
        shrink = np.cos(np.radians(middle[:, 1]))
        for vectors in (edge, off):
            vectors[:, 0] *= shrink
        lengths = np.maximum(np.hypot(*edge.T), 1e-300)
        pixels = np.hypot(*off.T) * np.hypot(*(last - first).T) / lengths
        return np.clip(np.ceil(np.sqrt(pixels / _TOLERANCE)), 1, _MOST_PIECES).astype(np.int64)

    def _degrees(self, points: Points) -> Points:
        world = np.asarray(self.grid.to_world(points[:, ::-1] - 0.5), np.float64)
        found = np.asarray(self._to_degrees(world), np.float64)
        if not np.isfinite(found).all():
            raise self._unusable(f"{str(self.grid.crs)[:60]}, and pixels outside of its area")
        found = found.copy()
        found[:, 0] = np.where(np.abs(found[:, 0]) == _WORLD / 2, found[:, 0], _wrapped(found[:, 0]))
        return found

    def _unusable(self, found: str) -> DataError:
        return DataError(
            self.where,
            expected="a coordinate reference system with a known transformation to WGS 84, for GeoJSON",
            found=found,
            do="Write a GeoPackage, which keeps the system of the image.",
        )


def _wrapped(degrees: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return angles in -180…180; those that are there already are not changed."""
    return degrees - np.round(degrees / _WORLD) * _WORLD


def _crosses(ring: Points) -> bool:
    """Return whether a ring crosses the antimeridian; its points are less than 180° apart."""
    return bool((np.abs(ring[:, 0] - np.roll(ring[:, 0], 1)) > _WORLD / 2).any())


def _unwrapped(ring: Points) -> Points:
    """Return a ring with continuous longitudes."""
    steps = np.diff(ring[:, 0])
    turns = np.append(0.0, np.cumsum(np.round(steps / _WORLD)))
    return ring - np.stack([turns * _WORLD, np.zeros(len(ring))], 1)


def _closed(ring: Points, sign: int) -> list[list[float]]:
    """Return a closed ring, counter-clockwise for 1, clockwise for -1."""
    x, y = (ring - ring[0]).T
    area = float(np.sum(x * np.roll(y, -1) - np.roll(x, -1) * y))
    ordered = ring if area * sign > 0 else ring[::-1]
    return [*ordered.tolist(), ordered[0].tolist()]
