"""Features of GeoJSON files: areas with properties, in a coordinate reference system.

Comes in: the path of a file. Goes out: `Features`. Knows nothing of rasters, pixels or classes.

Source: RFC 7946 (longitude and latitude where nothing is said), and the `crs` member of GeoJSON 2008, which GDAL and QGIS still
write for other systems.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pixelwise.errors import MaskError
from pixelwise.formats.projection import LONGITUDE_LATITUDE, plain_name

Rings = tuple[NDArray[np.float64], ...]
_NO_AREA = ("Point", "MultiPoint", "LineString", "MultiLineString")


@dataclass(frozen=True, eq=False)
class Feature:
    """Hold one area: polygons, each with its outer ring and its holes (N, 2), and its properties."""

    polygons: tuple[Rings, ...]
    properties: dict[str, Any]

    def rings(self) -> Iterator[NDArray[np.float64]]:
        """Give all rings."""
        for polygon in self.polygons:
            yield from polygon


@dataclass(frozen=True, eq=False)
class Features:
    """Hold what a file holds.

    Args:
        path: the file.
        crs: the system of the points, as `projection.plain_name` writes it.
        areas: in the order of the file.
        without_area: how many features are points, lines or nothing.
    """

    path: Path
    crs: str
    areas: tuple[Feature, ...]
    without_area: int


def read_features(path: Path, plain: Any) -> Features:
    """Understand a feature collection.

    Args:
        path: the file, for messages.
        plain: its JSON.

    Raises:
        MaskError: no feature collection, points that are no numbers, or a system that is unknown or does not fit them.
    """
    if not is_collection(plain):
        found = f"type {plain.get('type')!r}" if isinstance(plain, dict) else "no object"
        raise MaskError(path, expected="a GeoJSON FeatureCollection", found=found, do="Export it again.")
    areas, without = [], 0
    for number, feature in enumerate(plain["features"], 1):
        try:
            polygons = tuple(_polygons(feature.get("geometry")))
            properties = dict(feature.get("properties") or {})
        except (AttributeError, KeyError, TypeError, ValueError, IndexError, RecursionError) as error:
            found = f"one that cannot be read ({' '.join(str(error).split())[:120]})"
            where = f"{path}: feature {number}"
            raise MaskError(
                where, expected="a geometry as in RFC 7946", found=found, do="Correct it, or take it out."
            ) from error
        if polygons:
            areas.append(Feature(polygons, properties))
        else:
            without += 1
    return Features(path, _system(path, plain, areas), tuple(areas), without)


def is_collection(plain: Any) -> bool:
    """Say whether JSON is a feature collection."""
    return (
        isinstance(plain, dict) and plain.get("type") == "FeatureCollection" and isinstance(plain.get("features"), list)
    )


def _polygons(geometry: Any) -> Iterator[Rings]:
    """Give the polygons of a geometry; none of points and lines.

    Raises:
        ValueError: another type, too few points, or points that are no numbers.
    """
    if geometry is None or geometry["type"] in _NO_AREA:
        return
    kind = geometry["type"]
    if kind == "Polygon" and not geometry["coordinates"]:
        return  # RFC 7946, section 3.1: empty coordinates are as good as no geometry
    if kind == "Polygon":
        yield _rings(geometry["coordinates"])
    elif kind == "MultiPolygon":
        yield from (_rings(rings) for rings in geometry["coordinates"])
    elif kind == "GeometryCollection":
        for one in geometry["geometries"]:
            yield from _polygons(one)
    else:
        raise ValueError(f"type {kind!r}")


def _rings(coordinates: Any) -> Rings:
    rings = tuple(np.array([point[:2] for point in ring], np.float64) for ring in coordinates)
    for ring in rings:
        if ring.ndim != 2 or ring.shape[1] != 2 or len(ring) < 4 or not np.isfinite(ring).all():
            raise ValueError("a ring of fewer than four points, or points that are no numbers")
    if not rings:
        raise ValueError("a polygon without rings")
    return rings


def _system(path: Path, plain: dict[str, Any], areas: list[Feature]) -> str:
    """Read the coordinate reference system; without one, points must be longitudes and latitudes."""
    if "crs" not in plain:
        widest = max((float(np.abs(ring).max()) for area in areas for ring in area.rings()), default=0.0)
        if widest > 360:
            raise MaskError(
                path,
                expected="longitudes and latitudes, since it has no `crs`",
                found=f"coordinates up to {widest:.0f}",
                do='Export it in EPSG:4326, or name its system: "crs": {"type": "name", "properties": {"name": "EPSG:…"}}.',
            )
        return LONGITUDE_LATITUDE
    try:
        told = plain["crs"]["properties"]
        name = f"EPSG:{int(told['code'])}" if plain["crs"]["type"] == "EPSG" else str(told["name"])
    except (KeyError, TypeError, ValueError):
        name = "none"
    known = plain_name(name)
    if known is None:
        do = "Export the features in EPSG:4326, or in the system of the rasters."
        raise MaskError(path, expected="a coordinate reference system by its code", found=f"crs {name[:80]!r}", do=do)
    return known
