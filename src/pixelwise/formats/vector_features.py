"""Read areas from GeoJSON with shapely, and transform points between coordinate reference systems with pyproj.

x is the easting or longitude and y the northing or latitude, whatever axis order a system defines, as in GeoTIFF and
GeoJSON. Nothing is downloaded, and transformations with unknown datum shifts are refused.

Source: RFC 7946 (longitude and latitude by default), and the `crs` member of GeoJSON 2008, which GDAL and QGIS still write.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pixelwise.errors import MaskError
from pixelwise.imageio.extras import need

Points = NDArray[np.float64]
LONGITUDE_LATITUDE = "EPSG:4326"
_URN = re.compile(r"(?:urn:(?:x-)?ogc:def:crs:)?([A-Za-z_0-9]+):(?:[0-9.]*:)?([A-Za-z0-9]+)")


@dataclass(frozen=True, eq=False)
class Features:
    """The areas of a file.

    Args:
        path: the file.
        crs: the coordinate reference system, as AUTHORITY:CODE.
        areas: (N,) shapely multipolygons, in the order of the file.
        properties: of each area.
        without_area: number of features that are points, lines or empty.
    """

    path: Path
    crs: str
    areas: NDArray[np.object_]
    properties: tuple[dict[str, Any], ...]
    without_area: int


def is_collection(path: Path, document: Any) -> bool:
    """Return whether JSON is a feature collection.

    Raises:
        MaskError: it is meant to be one, by its suffix or its list of features, but is none: without its features, the
            areas would be background.
    """
    plain = document if isinstance(document, dict) else {}
    if plain.get("type") == "FeatureCollection" and isinstance(plain.get("features"), list):
        return True
    if path.suffix.lower() == ".geojson" or isinstance(plain.get("features"), list):
        found = f"type {plain['type']!r:.40}" if "type" in plain else "no type"
        found = "no list of features" if plain.get("type") == "FeatureCollection" else found
        do = "Save it as a FeatureCollection, or move it elsewhere."
        raise MaskError(path, expected="a feature collection, as in RFC 7946", found=found, do=do)
    return False


def read_features(path: Path, collection: dict[str, Any]) -> Features:
    """Read a feature collection.

    Args:
        path: the file, for messages.
        collection: its JSON (see `is_collection`).

    Raises:
        MaskError: malformed geometries, or a coordinate reference system that is unknown or does not fit them.
        ImageError: shapely is not installed.
    """
    shapely = need("shapely", "geo", path)
    geometry = need("shapely.geometry", "geo", path)
    areas = []
    properties = []
    for number, feature in enumerate(collection["features"], 1):
        try:
            plain = feature["geometry"]
            _require_rings(plain)
            shape = geometry.shape({"type": "GeometryCollection", "geometries": []} if plain is None else plain)
            polygons = list(_polygons(shape))
            if not np.isfinite(shapely.get_coordinates(shape)).all():
                raise ValueError("coordinates that are not finite")
            attributes = dict(feature.get("properties") or {})
        except (
            AttributeError,
            LookupError,
            TypeError,
            ValueError,
            RecursionError,
            shapely.errors.ShapelyError,
        ) as error:
            found = f"a malformed one ({' '.join(str(error).split())[:120]})"
            where = f"{path}: feature {number}"
            do = "Correct it, or remove it."
            raise MaskError(where, expected="a geometry as in RFC 7946", found=found, do=do) from error
        if polygons:
            areas.append(geometry.MultiPolygon(polygons))
            properties.append(attributes)
    array = np.array([None, *areas], object)[1:]  # without None, numpy could try to convert a single geometry
    crs = _crs(path, collection, shapely.get_coordinates(array))
    return Features(path, crs, array, tuple(properties), len(collection["features"]) - len(areas))


def _require_rings(geometry: Any) -> None:
    """Raise ValueError if a polygon has malformed rings, which shapely would drop; null and no rings at all are valid."""
    kind = geometry["type"] if geometry is not None else ""
    polygons = (
        [geometry["coordinates"]] if kind == "Polygon" else geometry["coordinates"] if kind == "MultiPolygon" else []
    )
    for polygon in polygons:
        if any(len(ring) == 0 for ring in polygon):
            raise ValueError("a ring without positions")
    for part in geometry.get("geometries", ()) if geometry is not None else ():
        _require_rings(part)


def _polygons(geometry: Any) -> Iterator[Any]:
    """Yield the polygons of a geometry, also of nested collections, without rings of length 0, which GEOS cannot divide."""
    if geometry.geom_type == "Polygon":
        if geometry.exterior.length > 0:
            yield type(geometry)(geometry.exterior, [ring for ring in geometry.interiors if ring.length > 0])
    else:
        for part in getattr(geometry, "geoms", ()):
            yield from _polygons(part)


def _crs(path: Path, collection: dict[str, Any], points: Points) -> str:
    """Read the coordinate reference system; without one, points must be longitudes and latitudes."""
    if "crs" not in collection:
        largest = float(np.abs(points).max(initial=0))
        if largest > 360:
            raise MaskError(
                path,
                expected="longitudes and latitudes, since it has no `crs`",
                found=f"coordinates up to {largest:.0f}",
                do='Export it in EPSG:4326, or add its system: "crs": {"type": "name", "properties": {"name": "EPSG:…"}}.',
            )
        return LONGITUDE_LATITUDE
    try:
        values = collection["crs"]["properties"]
        name = f"EPSG:{int(values['code'])}" if collection["crs"]["type"] == "EPSG" else str(values["name"])
    except (KeyError, TypeError, ValueError):
        name = "none"
    crs = crs_name(name)
    if crs is None:
        do = "Export the features in EPSG:4326, or in the system of the rasters."
        raise MaskError(path, expected="a coordinate reference system by its code", found=f"crs {name[:80]!r}", do=do)
    return crs


def crs_name(name: str) -> str | None:
    """Convert a name or URN to AUTHORITY:CODE; None for anything else, such as a path or a PROJ pipeline."""
    match = _URN.fullmatch(name.strip())
    if match is None:
        return LONGITUDE_LATITUDE if name.strip().upper() == "CRS84" else None
    code = f"{match[1].upper()}:{match[2].upper()}"
    return LONGITUDE_LATITUDE if code == "OGC:CRS84" else code


def transformer(source: str, target: str, where: object) -> tuple[Callable[[Points], Points], Callable[[], str]]:
    """Return how to transform points between coordinate reference systems.

    Args:
        source: as returned by `crs_name`.
        target: likewise, or WKT.
        where: the file with the points, for messages.

    Returns:
        A function from points (N, 2) to points, infinite if they cannot be transformed; and one that describes the accuracy
        afterwards.

    Raises:
        MaskError: an unknown system, or no known transformation.
        ImageError: pyproj is not installed.
    """
    if source == target:
        return lambda points: points, lambda: ""
    pyproj = need("pyproj", "geo", where)
    pyproj.network.set_network_enabled(active=False)
    try:
        # A "ballpark" transformation would silently assume that an unknown datum shift is zero.
        transformation = pyproj.Transformer.from_crs(source, target, always_xy=True, allow_ballpark=False)
    except pyproj.exceptions.ProjError as error:
        reason = " ".join(str(error).split()).removeprefix("Error creating Transformer from CRS.")
        name = target if len(target) < 40 else f"{target[:36]} …"
        found = f"none{reason[:160].rstrip('.')}"
        do = "Save the features in the coordinate reference system of the rasters."
        raise MaskError(where, expected=f"a transformation from {source} to {name}", found=found, do=do) from error

    def transform(points: Points) -> Points:
        return np.stack(transformation.transform(points[:, 0], points[:, 1]), axis=1)

    def describe_accuracy() -> str:
        try:
            accuracy = float(transformation.get_last_used_operation().accuracy)
        except pyproj.exceptions.ProjError:
            return ""
        return f", accurate to {accuracy:g} m" if accuracy > 0 else ""

    return transform, describe_accuracy
