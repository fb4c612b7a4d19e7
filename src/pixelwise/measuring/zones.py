"""Areas of classes within zones, such as crops by district, divided exactly at the borders of the zones.

A pixel at a border counts by the share of its area on either side. Masks are read band by band.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from pixelwise.errors import DataError
from pixelwise.formats.vector_features import transformer
from pixelwise.grid import Grid
from pixelwise.measuring.map_scale import MapScale
from pixelwise.measuring.masks import MaskSource, bands
from pixelwise.measuring.pixel_shares import Edges, ring_of
from pixelwise.measuring.scale import Array, Scale
from pixelwise.measuring.zone_files import Zone, Zones, read_zones
from pixelwise.tiles import Window
from pixelwise.types import Measurement

__all__ = ["Zone", "ZoneTotal", "Zones", "read_zones", "sum_zone_totals", "zone_totals"]

ESTIMATOR = "pixel count, divided at the border of the zone"
_BAND_PIXELS = 1 << 22
# An edge that is straight in the system of the zones is curved in that of the image. Points are added until it errs by so many pixels.
_STRAIGHT = 1e-5
_ROUNDS = 9
# Places across an image whose coordinates in the system of the zones limit what is transformed, and the margin around.
_PLACES, _MARGIN = 33, 0.05
_Transform = Callable[[Array], Array]


@dataclass(frozen=True)
class ZoneTotal:
    """The size of one class in one zone.

    Args:
        zone: its name.
        number: of the zone, 1…N in the order of the file.
        class_index: class index.
        class_name: name of the class.
        pixels: number of pixels; those at the border count by their shares, so it is no whole number.
        share: of the area of the zone that shows a class, 0…1; 0 if none does.
        size: the area.
        ignored: pixels of the zone without data, likewise.
        inside: share of the zone that is inside the image, 0…1; None if the image is no map, or the area of the zone is unknown.
    """

    zone: str
    number: int
    class_index: int
    class_name: str
    pixels: float
    share: float
    size: Measurement
    ignored: float
    inside: float | None


def zone_totals(
    mask: MaskSource, grid: Grid, scale: Scale, zones: Zones, *, band_pixels: int = _BAND_PIXELS
) -> list[ZoneTotal]:
    """Measure each class in each zone; zones may overlap, and may lie outside of the image.

    Args:
        mask: (H, W).
        grid: of the image, with a position.
        scale: of the image.
        zones: see `read_zones`.
        band_pixels: about how many pixels are read at a time.

    Returns:
        One entry per zone and class, in the order of the zones.

    Raises:
        DataError: a volume, an image without a position, or zones in a system that cannot be transformed to that of the image.
    """
    _require_map(mask, grid, zones)
    count = mask.labels.num_classes
    edges = _edges(mask.shape, grid, zones)
    boxes = [each.box(mask.shape) for each in edges]
    pixels, sizes = np.zeros((len(edges), count + 1)), np.zeros((len(edges), count + 1))
    for band in bands(mask.shape, max(band_pixels // mask.shape[1], 1)):
        parts = {i: part for i, box in enumerate(boxes) if box is not None and (part := _common(box, band)) is not None}
        if not parts:
            continue
        around = _around(parts.values())
        values = np.minimum(mask.read(around), count)
        areas = np.broadcast_to(scale.sizes(around), around.shape)
        for i, part in parts.items():
            within = tuple(slice(a - c, b - c) for a, b, c in zip(part.start, part.stop, around.start, strict=True))
            shares, classes = edges[i].shares(part), values[within].reshape(-1)
            pixels[i] += np.bincount(classes, shares.reshape(-1), count + 1)
            sizes[i] += np.bincount(classes, (shares * areas[within]).reshape(-1), count + 1)
    inside = _inside(zones, grid, scale, sizes.sum(axis=1))
    return [
        total
        for i, zone in enumerate(zones.zones)
        for total in _totals(mask, zone, pixels[i], sizes[i], scale.unit, inside[i])
    ]


def sum_zone_totals(images: Iterable[Sequence[ZoneTotal]]) -> list[ZoneTotal]:
    """Sum the totals of zones over images that do not overlap, per zone, class and unit, in the order in which they first occur.

    Args:
        images: results of `zone_totals` with the same zones.
    """
    sums: dict[tuple[int, int, str], list[ZoneTotal]] = {}
    for total in (total for image in images for total in image):
        sums.setdefault((total.number, total.class_index, total.size.unit), []).append(total)
    areas: dict[tuple[int, str], float] = {}
    for (number, _, unit), totals in sums.items():
        areas[number, unit] = areas.get((number, unit), 0.0) + sum(total.size.value for total in totals)
    found = []
    for (number, _, unit), totals in sums.items():
        value, whole = sum(total.size.value for total in totals), areas[number, unit]
        inside = [total.inside for total in totals if total.inside is not None]
        found.append(
            replace(
                totals[0],
                pixels=sum(total.pixels for total in totals),
                share=value / whole if whole else 0.0,
                size=replace(totals[0].size, value=value),
                ignored=sum(total.ignored for total in totals),
                inside=min(sum(inside), 1.0) if len(inside) == len(totals) else None,
            )
        )
    return found


def _totals(
    mask: MaskSource, zone: Zone, pixels: Array, sizes: Array, unit: str, inside: float | None
) -> list[ZoneTotal]:
    known = float(sizes[:-1].sum())
    return [
        ZoneTotal(
            zone=zone.name,
            number=zone.number,
            class_index=k,
            class_name=name,
            pixels=float(pixels[k]),
            share=float(sizes[k]) / known if known else 0.0,
            size=Measurement(float(sizes[k]), f"{unit}²", ESTIMATOR),
            ignored=float(pixels[-1]),
            inside=inside,
        )
        for k, name in enumerate(mask.labels.names)
    ]


def _require_map(mask: MaskSource, grid: Grid, zones: Zones) -> None:
    if len(mask.shape) != 2:
        do = "Leave out the zones, or measure images and volumes with separate commands."
        raise DataError(mask.id or "image", expected="an image, for zones", found="a volume", do=do)
    expected = "a position in a coordinate reference system, for images and their zones"
    do = "Save it with its system, for example as GeoTIFF or GeoPackage."
    if grid.affine is None or (grid.crs is None and zones.crs is not None):
        found = "no position" if grid.affine is None else "no system"
        raise DataError(mask.id or "image", expected=expected, found=found, do=do)
    if grid.crs is not None and zones.crs is None:
        raise DataError(zones.path, expected=expected, found="no system", do=do)


def _common(box: Window, band: Window) -> Window | None:
    """Return the rows of a box that are in a band."""
    top, bottom = max(box.start[0], band.start[0]), min(box.stop[0], band.stop[0])
    return Window((top, box.start[1]), (bottom, box.stop[1])) if top < bottom else None


def _around(windows: Iterable[Window]) -> Window:
    corners = np.array([(*window.start, *window.stop) for window in windows])
    return Window(tuple(corners[:, :2].min(axis=0).tolist()), tuple(corners[:, 2:].max(axis=0).tolist()))


# Edges ----------------------------------------------------------------------------------------------------------------


def _edges(shape: Sequence[int], grid: Grid, zones: Zones) -> list[Edges]:
    """Return the edges of each zone on the pixels of an image (H, W)."""
    shapely = _shapely(zones)
    geometries = np.array([None, *(zone.geometry for zone in zones.zones)], object)[1:]
    if grid.crs is None or zones.crs is None or grid.crs == zones.crs:
        return [_edges_of(shapely, each, lambda points: ring_of(grid.to_pixels(points))) for each in geometries]
    to_image, _ = transformer(zones.crs, grid.crs, zones.path)
    to_zones, _ = transformer(grid.crs, zones.crs, zones.path)
    limits = _limits(shapely, shape, grid, to_zones)

    def transform(points: Array) -> Array:
        return ring_of(grid.to_pixels(to_image(points)))

    found = []
    for zone, geometry in zip(zones.zones, shapely.intersection(geometries, limits), strict=True):
        edges = _edges_of(shapely, geometry, lambda points: _along(points, transform))
        if not np.isfinite(edges.segments).all():
            raise DataError(
                f"{zones.path}: {zone.name}",
                expected="a zone that can be transformed to the system of the image",
                found=f"points outside of the area of {grid.crs[:60]}",
                do="Cut the zones to the surroundings of the images, or save them in the system of the images.",
            )
        found.append(edges)
    return found


def _shapely(zones: Zones) -> Any:
    from pixelwise.imageio.extras import need

    return need("shapely", "geo", zones.path)


def _edges_of(shapely: Any, geometry: Any, to_pixels: _Transform) -> Edges:
    # A collection, which cutting may leave, holds multipolygons.
    polygons = [
        part
        for part in shapely.get_parts(shapely.get_parts(geometry))
        if part.geom_type == "Polygon" and not part.is_empty
    ]
    return Edges.from_rings(
        [
            (to_pixels(np.asarray(shapely.get_coordinates(ring))), k > 0)
            for polygon in polygons
            for k, ring in enumerate((polygon.exterior, *polygon.interiors))
        ]
    )


def _limits(shapely: Any, shape: Sequence[int], grid: Grid, to_zones: _Transform) -> Any:
    """Return boxes around an image in the system of the zones: two for one across the antimeridian."""
    at = [np.linspace(-0.5, size - 0.5, _PLACES) for size in shape]
    places = to_zones(np.asarray(grid.to_world(np.stack(np.meshgrid(*at, indexing="ij"), -1).reshape(-1, 2))))
    places = places[np.isfinite(places).all(axis=1)]
    degrees = bool(len(places)) and np.abs(places).max() <= 180 and np.ptp(places[:, 0]) > 180
    sides = [places[places[:, 0] < 0], places[places[:, 0] >= 0]] if degrees else [places]
    boxes = []
    for side in sides:
        if len(side):
            low, high = side.min(axis=0), side.max(axis=0)
            margin = _MARGIN * (high - low).max()
            boxes.append(shapely.box(*(low - margin), *(high + margin)))
    return shapely.union_all(boxes)


def _along(points: Array, transform: _Transform) -> Array:
    """Transform a ring, with more points where its edges are curved in the image."""
    for _ in range(_ROUNDS):
        first, step = points[:-1], np.diff(points, axis=0)
        thirds = np.stack([first + step / 3, first + step * 2 / 3], axis=1)
        there = transform(points)
        middle = transform(thirds.reshape(-1, 2)).reshape(-1, 2, 2)
        bent = _distances_from_lines(middle, there[:-1], there[1:]).max(axis=1) > _STRAIGHT
        if not bent.any():
            return there
        places = np.repeat(np.flatnonzero(bent) + 1, 2)
        points = np.insert(points, places, thirds[bent].reshape(-1, 2), axis=0)
    return transform(points)


def _distances_from_lines(points: Array, first: Array, last: Array) -> Array:
    """Return the distances of points (N, 2, 2) from lines through first and last points (N, 2), (N, 2); 0 if not finite."""
    along = last - first
    length = np.linalg.norm(along, axis=1)
    away = points - first[:, None]
    with np.errstate(invalid="ignore", divide="ignore"):
        cross = np.abs(along[:, None, 0] * away[:, :, 1] - along[:, None, 1] * away[:, :, 0])
        found = np.where(length[:, None] > 0, cross / length[:, None], np.linalg.norm(away, axis=2))
    return np.nan_to_num(found, nan=0.0, posinf=0.0)


# Shares of zones ------------------------------------------------------------------------------------------------------


def _inside(zones: Zones, grid: Grid, scale: Scale, covered: Array) -> list[float | None]:
    """Return the share of each zone that is inside the image, from geodesic areas; None without a map."""
    if not isinstance(scale, MapScale) or zones.crs is None:
        return [None] * len(zones.zones)
    whole = [_geodesic_area(zone.geometry, zones) for zone in zones.zones]
    return [
        min(float(part) / area, 1.0) if np.isfinite(area) and area > 0 else None
        for part, area in zip(covered, whole, strict=True)
    ]


def _geodesic_area(geometry: Any, zones: Zones) -> float:
    """Return the area of a zone in m² on the ellipsoid of its system; not finite if it is outside of the area of the system."""
    from pyproj import CRS, Transformer

    shapely = _shapely(zones)
    system = CRS.from_user_input(zones.crs)
    geod = system.get_geod()
    assert geod is not None  # as of every system that was transformed to that of a map
    left, bottom, right, top = geometry.bounds
    fine = shapely.segmentize(geometry, max(right - left, top - bottom) / 100)
    to_degrees = Transformer.from_crs(system, system.geodetic_crs, always_xy=True)
    total = 0.0
    for polygon in shapely.get_parts(fine):
        for k, ring in enumerate((polygon.exterior, *polygon.interiors)):
            area = abs(geod.polygon_area_perimeter(*to_degrees.transform(*shapely.get_coordinates(ring).T))[0])
            total += -area if k else area
    return total
