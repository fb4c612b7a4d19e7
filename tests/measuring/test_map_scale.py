"""Areas of pixels on maps against the geodesic areas of their outlines, in several systems, latitudes and rotations."""

from __future__ import annotations

import numpy as np
import pytest
from pyproj import CRS, Geod, Transformer

from pixelwise.errors import DataError
from pixelwise.grid import Grid
from pixelwise.measuring.map_scale import MapScale
from pixelwise.tiles import Window

PLACES = {
    "Nagpur": (79.1, 21.1),
    "Punjab": (75.3, 31.0),
    "Oslo": (10.7, 59.9),
    "Quito": (-78.5, -0.2),
    "Texas": (-97.7, 30.3),
}
SYSTEMS = {
    "web mercator": "EPSG:3857",
    "degrees": "EPSG:4326",
    "utm": None,
    "albers": "EPSG:5070",
    "feet": "EPSG:2263",
    "kelvin feet": "EPSG:2229",
}


def system(name: str, lon: float) -> str:
    return SYSTEMS[name] or f"EPSG:{32601 + int((lon + 180) // 6)}"


def grid_at(crs: str, lon: float, lat: float, metres: float, angle: float) -> Grid:
    """A grid whose first pixel is at a place, with pixels of about a size, rotated."""
    there = CRS.from_user_input(crs)
    x, y = Transformer.from_crs("EPSG:4326", there, always_xy=True).transform(lon, lat)
    step = metres / 111_000 if there.is_geographic else metres / there.axis_info[0].unit_conversion_factor
    c, s = np.cos(angle), np.sin(angle)
    affine = ((step * c, -step * s, x), (-step * s, -step * c, y), (0.0, 0.0, 1.0))
    return Grid((step, step), "m", affine, crs)


def outline_area(grid: Grid, window: Window) -> float:
    """The geodesic area inside the outline of a window, with many points along its edges."""
    (top, left), (bottom, right) = ([a - 0.5 for a in corner] for corner in (window.start, window.stop))
    t = np.linspace(0, 1, 400, endpoint=False)
    edges = [
        (np.full_like(t, top), left + t * (right - left)),
        (top + t * (bottom - top), np.full_like(t, right)),
        (np.full_like(t, bottom), right - t * (right - left)),
        (bottom - t * (bottom - top), np.full_like(t, left)),
    ]
    points = np.concatenate([np.stack(edge, 1) for edge in edges])
    crs = CRS.from_user_input(grid.crs)
    lon, lat = Transformer.from_crs(crs, crs.geodetic_crs, always_xy=True).transform(*grid.to_world(points).T)
    return abs(crs.get_geod().polygon_area_perimeter(lon, lat)[0])


def total(scale: MapScale, window: Window) -> float:
    return float(np.broadcast_to(scale.sizes(window), window.shape).sum())


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("name", ["web mercator", "degrees", "utm"])
@pytest.mark.parametrize(("metres", "shape"), [(0.5, (300, 500)), (30.0, (2000, 1500)), (300.0, (800, 900))])
def test_areas_are_geodesic(place: str, name: str, metres: float, shape: tuple[int, int]) -> None:
    lon, lat = PLACES[place]
    for angle in (0.0, 0.4, 2.0):
        grid = grid_at(system(name, lon), lon, lat, metres, angle)
        scale = MapScale(grid, shape)
        for window in (Window((0, 0), shape), Window((50, 20), (shape[0] // 2, shape[1] // 3))):
            assert total(scale, window) == pytest.approx(outline_area(grid, window), rel=2e-5)


@pytest.mark.parametrize(
    ("name", "lon", "lat"), [("albers", -97.7, 30.3), ("feet", -73.9, 40.7), ("kelvin feet", -118.2, 34.0)]
)
def test_albers_and_state_planes_in_feet(name: str, lon: float, lat: float) -> None:
    grid = grid_at(system(name, lon), lon, lat, 10.0, 0.3)
    window = Window((0, 0), (1000, 700))
    assert total(MapScale(grid, window.stop), window) == pytest.approx(outline_area(grid, window), rel=1e-6)


@pytest.mark.parametrize(("place", "excess"), [("Nagpur", 1.15), ("Punjab", 1.36)])
def test_web_mercator_enlarges_fields_in_india(place: str, excess: float) -> None:
    lon, lat = PLACES[place]
    grid = grid_at("EPSG:3857", lon, lat, 10.0, 0.0)
    window = Window((0, 0), (50, 50))
    assert 100 * 2500 / total(MapScale(grid, (50, 50)), window) == pytest.approx(excess, abs=0.01)


def test_a_circle_of_500_metres() -> None:
    """At Oslo, rasterised in Web Mercator: within a thousandth, and the bound of the pixel grid."""
    lon, lat = PLACES["Oslo"]
    geod = Geod(ellps="WGS84")
    grid = grid_at("EPSG:3857", lon, lat, 4.0, 0.0)
    x, y = Transformer.from_crs("EPSG:4326", "EPSG:3857", always_xy=True).transform(lon, lat)
    row, column = grid.to_pixels(np.array([[x, y]]))[0]
    grid = Grid(grid.spacing, "m", ((4.0, 0.0, x - 4 * 400), (0.0, -4.0, y + 4 * 400), (0.0, 0.0, 1.0)), "EPSG:3857")
    rows, columns = np.mgrid[0:801, 0:801]
    places = grid.to_world(np.stack([rows.ravel(), columns.ravel()], 1))
    lons, lats = Transformer.from_crs("EPSG:3857", "EPSG:4326", always_xy=True).transform(*places.T)
    distance = geod.inv(np.full(len(lons), lon), np.full(len(lons), lat), lons, lats)[2]
    inside = (distance <= 500).reshape(801, 801)
    area = float((inside * MapScale(grid, (801, 801)).sizes(Window((0, 0), (801, 801)))).sum())
    assert (row, column) == pytest.approx((0, 0), abs=1e-6)
    assert area == pytest.approx(np.pi * 500**2, rel=2e-3)


def test_across_the_antimeridian() -> None:
    grid = Grid((0.01, 0.01), "deg", ((0.01, 0.0, 179.5), (0.0, -0.01, -16.0), (0.0, 0.0, 1.0)), "EPSG:4326")
    near = Grid((0.01, 0.01), "deg", ((0.01, 0.0, 100.0), (0.0, -0.01, -16.0), (0.0, 0.0, 1.0)), "EPSG:4326")
    window = Window((0, 0), (100, 100))
    assert total(MapScale(grid, (100, 100)), window) == pytest.approx(
        total(MapScale(near, (100, 100)), window), rel=1e-9
    )


@pytest.mark.parametrize("crs", ["EPSG:999999", "nonsense", 'LOCAL_CS["mine",UNIT["metre",1]]'])
def test_systems_that_are_not_of_the_earth_are_refused(crs: str) -> None:
    with pytest.raises(DataError, match="coordinate reference system: expected one of the Earth"):
        MapScale(Grid((1, 1), "m", ((1.0, 0.0, 0.0), (0.0, -1.0, 0.0), (0.0, 0.0, 1.0)), crs), (10, 10))


def test_pixels_outside_of_the_earth_are_refused() -> None:
    grid = Grid((1, 1), "deg", ((1.0, 0.0, 0.0), (0.0, -1.0, 120.0), (0.0, 0.0, 1.0)), "EPSG:4326")
    with pytest.raises(DataError, match="pixels outside of the area of the system"):
        MapScale(grid, (40, 40))


@pytest.mark.parametrize("name", SYSTEMS)
def test_lengths_of_steps_are_those_of_geodesics(name: str) -> None:
    place = "Texas" if SYSTEMS[name] in ("EPSG:5070", "EPSG:2263", "EPSG:2229") else "Nagpur"
    _require_same_lengths(grid_at(system(name, PLACES[place][0]), *PLACES[place], 10.0, 0.4), (3000, 2000))


def test_lengths_are_continuous_at_a_pole() -> None:
    affine = ((10.0, 0.0, -9_995.0), (0.0, -10.0, 9_995.0), (0.0, 0.0, 1.0))
    _require_same_lengths(Grid((10.0, 10.0), "m", affine, "EPSG:3413"), (2000, 2000))


@pytest.mark.parametrize("shape", [(1, 1), (1, 3000), (3000, 1)])
def test_lengths_in_one_row(shape: tuple[int, int]) -> None:
    _require_same_lengths(grid_at("EPSG:3857", *PLACES["Oslo"], 10.0, 0.0), shape)


def _require_same_lengths(grid: Grid, shape: tuple[int, int]) -> None:
    rng = np.random.default_rng(0)
    scale = MapScale(grid, shape)
    middle = rng.uniform(0, np.array(shape) - 1, (200, 2))
    step = rng.normal(size=(200, 2))
    found = np.linalg.norm(np.einsum("nij,nj->ni", scale.jacobians(middle), step), axis=1)
    expected = scale.distances(middle - step / 2, middle + step / 2)
    np.testing.assert_allclose(found, expected, rtol=2e-6)
    pixel = Window((0, 0), (1, 1))
    area = np.linalg.det(scale.jacobians(np.zeros((1, 2))))
    np.testing.assert_allclose(np.abs(area), scale.sizes(pixel).reshape(-1), rtol=1e-6)
