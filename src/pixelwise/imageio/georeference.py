"""Read the georeference of a GeoTIFF from its tags.

`Grid.affine` maps pixel centres at whole numbers, GDAL's geotransform the upper left corner of the first pixel; the difference
of half a pixel is applied here, except to files that use centres themselves (PixelIsPoint).

Source: OGC GeoTIFF 1.1 (19-008r4), sections 7.1 (keys) and 7.2 (raster space and the model); GDAL's tag 42113 (nodata).
"""

from __future__ import annotations

import re
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pixelwise.errors import DataError
from pixelwise.grid import Grid

_SCALE, _TIEPOINTS, _MATRIX, _KEYS, _NODATA = 33550, 33922, 34264, 34735, 42113
_MODEL, _RASTER, _GEOGRAPHIC, _ANGULAR, _PROJECTED, _LINEAR = 1024, 1025, 2048, 2054, 3072, 3076
_POINT, _USER_DEFINED = 2, 32767
_LENGTHS = {9001: "m", 9002: "ft", 9003: "us-ft"}
_WINDOWS_NAN = re.compile(r"-?1\.#(QNAN|SNAN|IND)\d*", re.I)
_ANGLES = {9101: "rad", 9102: "deg", 9105: "grad"}


def read_grid(tags: Any) -> Grid | None:
    """Read the grid; None without a transform, a coordinate reference system, or a unit.

    Args:
        tags: by code, with a `value` each, as in tifffile.
    """
    if _KEYS not in tags:
        return None
    try:
        keys = _keys(tags[_KEYS].value)
        corner = _matrix(tags)
        unit, crs = _system(keys)
        if corner is None or unit is None:
            return None
        if keys.get(_RASTER) != _POINT:
            corner[:2, 2] += corner[:2, :2].sum(1) / 2
        columns, rows = np.linalg.norm(corner[:2, :2], axis=0).tolist()
        return Grid((rows, columns), unit, tuple(map(tuple, corner.tolist())), crs, "GeoTransform")
    except (TypeError, ValueError, IndexError, AttributeError, DataError):
        return None  # the pixels can be read without a georeference


def has_position(tags: Any) -> bool:
    """Whether a page has a transform or ground control points."""
    return _MATRIX in tags or _TIEPOINTS in tags


def read_nodata(tags: Any) -> float | None:
    """Read the value of pixels without data; None if the file defines none."""
    return parse_nodata(str(tags[_NODATA].value)) if _NODATA in tags else None


def parse_nodata(text: str) -> float | None:
    """Parse a nodata value as GDAL does, integers exactly; None if it is not a number."""
    text = text.strip("\0 \t\r\n").replace(",", ".")  # some locales write a decimal comma
    if _WINDOWS_NAN.fullmatch(text):
        return float("nan")
    for number in (int, float):
        try:
            return number(text)
        except ValueError:
            continue
    return None


def _keys(directory: Any) -> dict[int, int]:
    """Return the keys with integer values; texts and real numbers are stored in other tags."""
    rows = [directory[place : place + 4] for place in range(4, 4 + 4 * int(directory[3]), 4)]
    return {int(key): int(value) for key, place, _, value in rows if place == 0}


def _matrix(tags: Any) -> NDArray[np.float64] | None:
    """Return the matrix (3, 3) from raster space (x, y) to the world."""
    if _MATRIX in tags:
        matrix = np.array(tags[_MATRIX].value, np.float64).reshape(4, 4)
        return matrix[np.ix_((0, 1, 3), (0, 1, 3))]
    if _SCALE not in tags or _TIEPOINTS not in tags:
        return None
    width, height = (float(value) for value in tags[_SCALE].value[:2])
    height = abs(height)  # as GDAL does: north is up, whatever the sign
    column, row, _, x, y, _ = (float(value) for value in tags[_TIEPOINTS].value[:6])
    return np.array([[width, 0, x - column * width], [0, -height, y + row * height], [0, 0, 1]])


def _system(keys: dict[int, int]) -> tuple[str | None, str | None]:
    """Return the unit and the coordinate reference system; a user-defined system has no code."""
    if keys.get(_MODEL) == 1:
        code, unit = keys.get(_PROJECTED, _USER_DEFINED), _LENGTHS.get(keys.get(_LINEAR, 0))
    elif keys.get(_MODEL) == 2:
        code, unit = keys.get(_GEOGRAPHIC, _USER_DEFINED), _ANGLES.get(keys.get(_ANGULAR, 9102))
    else:
        return None, None
    known = 0 < code < _USER_DEFINED
    if known and _LINEAR not in keys and keys[_MODEL] == 1:
        unit = _unit_of(code)
    return unit, f"EPSG:{code}" if known else None


def _unit_of(code: int) -> str | None:
    """Look up the unit of a projected system that the file does not state; None without pyproj."""
    try:
        from pyproj import CRS

        name = CRS.from_epsg(code).axis_info[0].unit_name
    except Exception:  # not installed, or no such code
        return None
    return {"metre": "m", "foot": "ft", "US survey foot": "us-ft"}.get(name)
