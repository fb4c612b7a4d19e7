"""From one coordinate reference system to another: names made alike, and points carried over.

Comes in: names of systems, points x, y. Goes out: points. Knows nothing of files, features or pixels.

x is always the easting or the longitude, y the northing or the latitude, whatever order a system's authority writes them in:
GeoTIFF and GeoJSON both do so. Nothing is fetched from a network, and no shift between datums is made up.
"""

from __future__ import annotations

import re
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from pixelwise.errors import MaskError
from pixelwise.imageio.extras import need

Points = NDArray[np.float64]
LONGITUDE_LATITUDE = "EPSG:4326"
_URN = re.compile(r"(?:urn:(?:x-)?ogc:def:crs:)?([A-Za-z_0-9]+):(?:[0-9.]*:)?([A-Za-z0-9]+)")


def plain_name(name: str) -> str | None:
    """Write a system as AUTHORITY:CODE; None for what is no name of an authority: a path, a PROJ pipeline."""
    found = _URN.fullmatch(name.strip())
    if found is None:
        return LONGITUDE_LATITUDE if name.strip().upper() == "CRS84" else None
    plain = f"{found[1].upper()}:{found[2].upper()}"
    return LONGITUDE_LATITUDE if plain == "OGC:CRS84" else plain


def carrier(source: str, target: str, where: object) -> tuple[Callable[[Points], Points], Callable[[], str]]:
    """Find how points are carried from one system to another.

    Args:
        source: as `plain_name` writes it.
        target: likewise, or WKT.
        where: the file with the points, for messages.

    Returns:
        A function from points (N, 2) to points, infinite where there are none; and one that says afterwards how exact it is.

    Raises:
        MaskError: an unknown system, or no known way between the two.
        ImageError: pyproj is not installed.
    """
    if source == target:
        return lambda points: points, lambda: ""
    pyproj = need("pyproj", "geo", where)
    pyproj.network.set_network_enabled(active=False)
    try:
        # Without "ballpark": a shift between datums that nobody knows would be taken as none.
        way = pyproj.Transformer.from_crs(source, target, always_xy=True, allow_ballpark=False)
    except pyproj.exceptions.ProjError as error:
        said = " ".join(str(error).split()).removeprefix("Error creating Transformer from CRS.")
        found = f"none{said[:160].rstrip('.')}"
        do = "Save the features in the coordinate reference system of the rasters."
        raise MaskError(where, expected=f"a known way from {source} to {_short(target)}", found=found, do=do) from error

    def carry(points: Points) -> Points:
        x, y = way.transform(points[:, 0], points[:, 1])
        return np.stack([x, y], axis=1)

    def told() -> str:
        try:
            accuracy = float(way.get_last_used_operation().accuracy)
        except pyproj.exceptions.ProjError:
            return ""
        return f", good to {accuracy:g} m" if accuracy > 0 else ""

    return carry, told


def _short(name: str) -> str:
    return name if len(name) < 40 else f"{name[:36]} …"
