"""Regions of interest in the frames of a video: named polygons in pixel coordinates, given as a mapping or a file.

Points are (x, y), with (0, 0) at the upper left corner of the frame as it is shown; a pixel is inside if its centre is.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pixelwise.errors import ConfigError, DataError
from pixelwise.geometry.contours import fill
from pixelwise.imageio.safe_reading import read_text

Polygon = list[list[list[float]]]  # rings of points; rings inside of a ring are holes
Regions = Mapping[str, Sequence[Polygon]]
_KEY = "predict.regions"
_DO = "Write {name: [[x, y], [x, y], [x, y]]}, or a GeoJSON file of polygons with the property name."


def read_regions(value: Any) -> dict[str, list[Polygon]]:
    """Read the polygons of each region.

    Args:
        value: None; the path of a JSON or GeoJSON file; or a mapping from name to a ring [[x, y], …], to a polygon as a list of
            rings, or to a list of polygons, as in a JSON file.

    Raises:
        ConfigError: anything else, or a region without a name or with fewer than three points.
    """
    if value is None:
        return {}
    where: object = _KEY
    if isinstance(value, str):
        where = Path(value)
        try:
            value = json.loads(read_text(where))
        except (ValueError, RecursionError) as error:
            raise ConfigError(where, expected="a JSON file", found=str(error)[:160], do="Correct the file.") from error
    named = list(_features(value, where)) if _is_geojson(value) else _items(value, where)
    regions: dict[str, list[Polygon]] = {}
    for name, coordinates in named:
        regions.setdefault(str(name), []).extend(_polygons(coordinates, f"{where}: {name}"))
    return regions


def region_pixels(regions: Regions, size: tuple[int, int], path: Path) -> dict[str, NDArray[np.intp]]:
    """Return the indices of the pixels of each region in a flat frame of `size` (H, W).

    Raises:
        DataError: a region without a pixel in the frames of the video `path`.
    """
    pixels = {}
    for name, polygons in regions.items():
        inside = np.zeros(size, bool)
        for polygon in polygons:
            top, left, part = fill(tuple(np.array(ring, np.float64) for ring in polygon), size)
            inside[top : top + part.shape[0], left : left + part.shape[1]] |= part
        pixels[name] = np.flatnonzero(inside)
        if not len(pixels[name]):
            raise DataError(
                path,
                expected=f"frames with pixels in the region {name!r}",
                found=f"frames of {size[1]}×{size[0]} pixels, and a region outside of them or of no size",
                do="Give the points in pixels (x, y), from the upper left corner of the frame.",
            )
    return pixels


def _is_geojson(value: Any) -> bool:
    return isinstance(value, Mapping) and value.get("type") in ("Feature", "FeatureCollection")


def _features(value: Any, where: object) -> Sequence[tuple[Any, Any]]:
    features = value.get("features") if value["type"] == "FeatureCollection" else [value]
    found = []
    for feature in features if isinstance(features, list) else ():
        with_name = feature if isinstance(feature, Mapping) else {}
        name = (with_name.get("properties") or {}).get("name", with_name.get("id"))
        geometry = with_name.get("geometry") or {}
        if name is None or geometry.get("type") not in ("Polygon", "MultiPolygon"):
            kind = geometry.get("type") or "no geometry"
            raise ConfigError(
                where,
                expected="polygons with the property name",
                found=f"{kind}" + ("" if name is not None else " without a name"),
                do=_DO,
            )
        found.append((name, geometry.get("coordinates")))
    return found or _items(None, where)


def _items(value: Any, where: object) -> Sequence[tuple[Any, Any]]:
    if not isinstance(value, Mapping) or not value:
        raise ConfigError(where, expected="named polygons", found=repr(value)[:80], do=_DO)
    return list(value.items())


def _polygons(coordinates: Any, where: str) -> list[Polygon]:
    """Return a ring, a polygon, or a list of polygons as a list of polygons."""
    depth, first = 0, coordinates
    while isinstance(first, list | tuple) and first:
        depth, first = depth + 1, first[0]
    nested = {2: [[coordinates]], 3: [coordinates], 4: coordinates}.get(depth, [])
    try:
        polygons = [[[[float(x), float(y)] for x, y, *_ in ring] for ring in polygon] for polygon in nested]
    except (TypeError, ValueError):
        polygons = []
    points = [point for polygon in polygons for ring in polygon for point in ring]
    if not points or not np.isfinite(points).all() or min(len(ring) for rings in polygons for ring in rings) < 3:
        raise ConfigError(
            where, expected="at least three points [x, y]", found=repr(coordinates)[:80], do="Correct the points."
        )
    return polygons
