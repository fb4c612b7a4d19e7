"""Areas in zones against shapely, pixel by pixel; files of zones; zones in other systems than the image."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyogrio.raw
import pytest
import shapely
from pyproj import CRS, Geod, Transformer

from pixelwise.errors import DataError
from pixelwise.grid import Grid
from pixelwise.labels import Labels
from pixelwise.measuring.map_scale import MapScale
from pixelwise.measuring.masks import ArrayMask
from pixelwise.measuring.pixel_shares import Edges
from pixelwise.measuring.scale import AffineScale
from pixelwise.measuring.zones import Zone, Zones, read_zones, sum_zone_totals, zone_totals
from pixelwise.tiles import Window

LABELS = Labels(("field", "forest", "water"), ignore_ids=(255,))
UTM = "EPSG:32644"


def drawn(shape: tuple[int, int], seed: int = 0) -> ArrayMask:
    values = np.random.default_rng(seed).integers(0, 4, shape)
    return ArrayMask(np.where(values == 3, LABELS.ignore_index, values), LABELS, "map")


def grid_of(angle: float = 0.0, pixel: float = 10.0, crs: str | None = UTM, at=(500_000.0, 2_300_000.0)) -> Grid:
    c, s = pixel * np.cos(angle), pixel * np.sin(angle)
    return Grid((pixel, pixel), "m", ((c, s, at[0]), (s, -c, at[1]), (0, 0, 1)), crs)


def star(rng: np.random.Generator, centre: tuple[float, float], radius: float, hole: bool = False) -> shapely.Polygon:
    angles = np.sort(rng.random(9)) * 2 * np.pi
    reach = radius * (0.4 + 0.6 * rng.random(9))
    points = np.stack([centre[0] + reach * np.cos(angles), centre[1] + reach * np.sin(angles)], 1)
    inner = [centre + 0.2 * (points - centre)] if hole else []
    return shapely.Polygon(points, inner)


def zones_of(*geometries: object, crs: str | None = UTM) -> Zones:
    return Zones(Path("z.gpkg"), crs, tuple(Zone(k, f"z{k}", {}, each) for k, each in enumerate(geometries, 1)))


def by_shapely(geometry: object, shape: tuple[int, int]) -> np.ndarray:
    """Shares of pixels, of a geometry on (column, row) with pixels from whole number to whole number."""
    rows, columns = np.indices(shape)
    boxes = shapely.box(columns, rows, columns + 1, rows + 1)
    return shapely.area(shapely.intersection(boxes, geometry))


def world(geometry: object, grid: Grid) -> object:
    """A geometry on (column, row) in the coordinates of a grid."""
    return shapely.transform(geometry, lambda points: grid.to_world(points[:, ::-1] - 0.5))


@pytest.mark.parametrize("seed", range(12))
def test_shares_of_pixels_agree_with_shapely(seed: int) -> None:
    rng = np.random.default_rng(seed)
    shape = (17, 23)
    centre = (rng.uniform(-4, 27), rng.uniform(-4, 20))
    geometry = star(rng, centre, rng.uniform(0.2, 25), hole=seed % 2 == 0)
    if seed % 3 == 0:  # corners on those of pixels, and edges along them
        geometry = shapely.set_precision(geometry, 1.0)
    rings = [
        (shapely.get_coordinates(ring)[:: 1 if seed % 4 else -1, ::-1], k > 0)
        for part in shapely.get_parts(geometry)
        for k, ring in enumerate((part.exterior, *part.interiors))
    ]
    edges = Edges.from_rings(rings)
    expected = by_shapely(geometry, shape)
    np.testing.assert_allclose(edges.shares(Window((0, 0), shape)), expected, atol=1e-12)
    part = Window((3, 5), (11, 14))
    np.testing.assert_allclose(edges.shares(part), expected[part.slices], atol=1e-12)
    box = edges.box(shape)
    outside = np.ones(shape, bool)
    if box is not None:
        outside[box.slices] = False
    assert not expected[outside].any()


@pytest.mark.parametrize("angle", [0.0, 0.3, 2.0])
@pytest.mark.parametrize("band_pixels", [1, 100, 1 << 20])
def test_classes_in_zones(angle: float, band_pixels: int) -> None:
    rng, grid, mask = np.random.default_rng(3), grid_of(angle), drawn((40, 30))
    shapes = [
        star(rng, (15, 20), 18, hole=True),
        shapely.MultiPolygon([star(rng, (5, 5), 4), star(rng, (25, 33), 6)]),
        star(rng, (29, 2), 12),
        shapely.box(7.25, 3.5, 7.5, 38),
        shapely.box(100, 100, 120, 120),
    ]
    zones = zones_of(*(world(each, grid) for each in shapes))
    scale = AffineScale(np.eye(2) * 10, "m", "")
    found = zone_totals(mask, grid, scale, zones, band_pixels=band_pixels)
    assert [(total.zone, total.class_name) for total in found][:4] == [("z1", n) for n in LABELS.names] + [
        ("z2", "field")
    ]
    for k, geometry in enumerate(shapes):
        shares = by_shapely(geometry, mask.shape)
        for total in found[3 * k : 3 * k + 3]:
            count = shares[mask.mask == total.class_index].sum()
            assert total.pixels == pytest.approx(count, abs=1e-7)
            assert total.size.value == pytest.approx(100 * count, abs=1e-5)
            assert (total.size.unit, total.inside) == ("m²", None)
            assert total.ignored == pytest.approx(shares[mask.mask == LABELS.ignore_index].sum(), abs=1e-7)
    assert all(total.pixels == pytest.approx(0) and total.share == pytest.approx(0) for total in found[12:])


def tiles(bounds: tuple[float, float, float, float], count: int, seed: int) -> list[shapely.Polygon]:
    """Quadrilaterals that cover a box, with irregular corners inside."""
    rng = np.random.default_rng(seed)
    x, y = (np.linspace(low, high, count + 1) for low, high in (bounds[::2], bounds[1::2]))
    corners = np.stack(np.meshgrid(x, y, indexing="ij"), -1)
    corners[1:-1, 1:-1] += rng.uniform(-0.3, 0.3, corners[1:-1, 1:-1].shape) * (x[1] - x[0], y[1] - y[0])
    return [
        shapely.Polygon([corners[i, j], corners[i + 1, j], corners[i + 1, j + 1], corners[i, j + 1]])
        for i in range(count)
        for j in range(count)
    ]


@pytest.mark.parametrize("crs", [UTM, "EPSG:4326", "EPSG:3857"])
def test_zones_that_tile_an_image_sum_to_the_whole(crs: str) -> None:
    mask, grid = drawn((300, 200)), grid_of(0.2)
    scale = MapScale(grid, mask.shape)
    corners = grid.to_world(np.array([(-30.0, -30.0), (330, -30), (-30, 230), (330, 230)]))
    x, y = Transformer.from_crs(UTM, crs, always_xy=True).transform(*corners.T)
    zones = zones_of(*tiles((min(x), min(y), max(x), max(y)), 5, 1), crs=crs)
    found = zone_totals(mask, grid, scale, zones, band_pixels=5000)
    for k in range(3):
        totals = [total for total in found if total.class_index == k]
        assert sum(total.pixels for total in totals) == pytest.approx((mask.mask == k).sum(), rel=1e-9)
        sizes = np.broadcast_to(scale.sizes(Window((0, 0), mask.shape)), mask.shape)
        assert sum(total.size.value for total in totals) == pytest.approx(sizes[mask.mask == k].sum(), rel=1e-9)


def test_borders_that_are_straight_in_degrees_are_curved_in_the_image() -> None:
    grid = grid_of(pixel=1000.0, at=(300_000.0, 2_500_000.0))
    mask = ArrayMask(np.zeros((400, 400), np.uint8), LABELS, "map")
    zone = shapely.box(79.5, 19.5, 82.5, 22.0)
    found = zone_totals(mask, grid, MapScale(grid, mask.shape), zones_of(zone, crs="EPSG:4326"))
    there = shapely.transform(
        shapely.segmentize(zone, 0.001),
        lambda p: grid.to_pixels(np.stack(Transformer.from_crs("EPSG:4326", UTM, always_xy=True).transform(*p.T), 1))[
            :, ::-1
        ],
    )
    assert found[0].pixels == pytest.approx(there.area, rel=1e-7)
    straight = shapely.transform(
        zone,
        lambda p: grid.to_pixels(np.stack(Transformer.from_crs("EPSG:4326", UTM, always_xy=True).transform(*p.T), 1))[
            :, ::-1
        ],
    )
    assert abs(straight.area / there.area - 1) > 1e-5
    assert found[0].inside == pytest.approx(1, abs=1e-4)


def test_the_share_of_a_zone_inside_and_sums_over_images() -> None:
    left, right = grid_of(), grid_of(at=(500_000.0 + 50 * 10, 2_300_000.0))
    masks = [drawn((60, 50), seed) for seed in (1, 2)]
    whole = shapely.box(500_100, 2_299_500, 500_900, 2_299_900)
    zones = zones_of(whole)
    each = [zone_totals(m, g, MapScale(g, m.shape), zones) for m, g in zip(masks, (left, right), strict=True)]
    assert [totals[0].inside for totals in each] == [pytest.approx(share, abs=1e-3) for share in (395 / 800, 405 / 800)]
    found = sum_zone_totals(each)
    assert [total.class_name for total in found] == list(LABELS.names)
    assert found[0].inside == pytest.approx(1, abs=1e-3)
    assert sum(total.pixels for total in found) + found[0].ignored == pytest.approx(80 * 40)
    assert sum(total.share for total in found) == pytest.approx(1)
    joined = ArrayMask(np.concatenate([mask.mask for mask in masks], 1), LABELS)
    at_once = zone_totals(joined, left, MapScale(left, joined.shape), zones)
    for one, other in zip(found, at_once, strict=True):
        assert one.pixels == pytest.approx(other.pixels)
        assert one.size.value == pytest.approx(other.size.value, rel=1e-7)


def test_images_across_the_antimeridian() -> None:
    crs = "EPSG:32660"
    x, y = Transformer.from_crs("EPSG:4326", crs, always_xy=True).transform(179.9, -17.0)
    grid = grid_of(pixel=500.0, crs=crs, at=(x, y))
    mask = ArrayMask(np.zeros((60, 100), np.uint8), LABELS, "map")
    zone = shapely.MultiPolygon([shapely.box(179.95, -17.2, 180, -17.05), shapely.box(-180, -17.2, -179.9, -17.05)])
    far = shapely.box(-20.0, -60.0, 30.0, 60.0)
    found = zone_totals(mask, grid, MapScale(grid, mask.shape), zones_of(zone, far, crs="EPSG:4326"))
    geod = Geod(ellps="WGS84")
    expected = abs(geod.geometry_area_perimeter(shapely.segmentize(shapely.box(0, -17.2, 0.15, -17.05), 0.001))[0])
    assert found[0].size.value == pytest.approx(expected, rel=1e-5)
    assert found[3].pixels == pytest.approx(0)


def closed_form(west: float, south: float, east: float, north: float, name: str) -> float:
    """The area of a rectangle of longitudes and latitudes on an ellipsoid."""
    geod = Geod(ellps=name)
    e, b = geod.es**0.5, geod.b

    def upto(degrees: float) -> float:
        s = np.sin(np.radians(degrees))
        return s / (1 - (e * s) ** 2) + np.arctanh(e * s) / e

    return b * b / 2 * np.radians(east - west) * (upto(north) - upto(south))


PLACES = {
    "web mercator, Punjab": ("EPSG:3857", 75.3, 31.0, "EPSG:4326", "WGS84"),
    "web mercator, Oslo": ("EPSG:3857", 10.7, 59.9, "EPSG:4326", "WGS84"),
    "degrees, Nagpur": ("EPSG:4326", 79.1, 21.1, "EPSG:4326", "WGS84"),
    "utm, Punjab": ("EPSG:32643", 75.3, 31.0, "EPSG:4326", "WGS84"),
    "albers, Texas": ("EPSG:5070", -97.7, 30.3, "EPSG:4269", "GRS80"),
    "state plane in feet, New York": ("EPSG:2263", -73.9, 40.7, "EPSG:4269", "GRS80"),
}


def image_at(name: str, metres: float, angle: float, size: int) -> tuple[Grid, tuple[float, float]]:
    """A square image around a place, with pixels of about a size."""
    crs, lon, lat, degrees, _ = PLACES[name]
    system = CRS.from_user_input(crs)
    stretch = 1 / np.cos(np.radians(lat)) if crs == "EPSG:3857" else 1.0
    step = metres / 111_000 if system.is_geographic else stretch * metres / system.axis_info[0].unit_conversion_factor
    c, s = step * np.cos(angle), step * np.sin(angle)
    x, y = Transformer.from_crs(degrees, crs, always_xy=True).transform(lon, lat)
    corner = np.array([x, y]) - np.array([[c, s], [s, -c]]) @ [size / 2, size / 2]
    return Grid((step, step), "m", ((c, s, corner[0]), (s, -c, corner[1]), (0, 0, 1)), crs), (lon, lat)


@pytest.mark.parametrize("angle", [0.0, 0.7])
@pytest.mark.parametrize("name", PLACES)
def test_rectangles_of_longitudes_and_latitudes(name: str, angle: float) -> None:
    grid, (lon, lat) = image_at(name, 10.0, angle, 400)
    mask = ArrayMask(np.zeros((400, 400), np.uint8), LABELS, "map")
    box = (lon - 0.009, lat - 0.01, lon + 0.008, lat + 0.007)
    found = zone_totals(mask, grid, MapScale(grid, mask.shape), zones_of(shapely.box(*box), crs=PLACES[name][3]))
    assert found[0].size.value == pytest.approx(closed_form(*box, PLACES[name][4]), rel=1e-6)
    assert found[0].inside == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize("angle", [0.0, 0.7])
@pytest.mark.parametrize("metres", [2.0, 5.0])
@pytest.mark.parametrize("name", PLACES)
def test_geodesic_circles(name: str, metres: float, angle: float) -> None:
    size = int(1300 / metres)
    if PLACES[name][0] == "EPSG:4326":
        size = int(size / np.cos(np.radians(PLACES[name][2])))
    grid, (lon, lat) = image_at(name, metres, angle, size)
    scale = MapScale(grid, (size, size))
    at = np.indices((size, size)).reshape(2, -1).T.astype(float)
    x, y = Transformer.from_crs(PLACES[name][0], PLACES[name][3], always_xy=True).transform(*grid.to_world(at).T)
    away = Geod(ellps=PLACES[name][4]).inv(x, y, np.full_like(x, lon), np.full_like(y, lat))[2].reshape(size, size)
    inside = away < 500
    assert inside[1:-1, 1:-1].sum() == inside.sum()
    area = np.broadcast_to(scale.sizes(Window((0, 0), (size, size))), inside.shape)[inside].sum()
    # Which pixels are inside errs by about the square root of the number at the rim.
    discretisation = 2 * np.sqrt(2 * np.pi * 500 / metres) * metres**2
    assert abs(area - np.pi * 500**2) < 0.001 * np.pi * 500**2 + discretisation
    if PLACES[name][0] == "EPSG:3857":
        assert grid.pixel_size * inside.sum() > 1.3 * np.pi * 500**2


# Files ----------------------------------------------------------------------------------------------------------------


def write(
    path: Path, geometries: list, crs: str | None = UTM, layer: str = "zones", append: bool = False, **fields: list
) -> Path:
    arrays = [np.array(values, object if isinstance(values[0], str | None) else None) for values in fields.values()]
    pyogrio.raw.write(
        path,
        shapely.to_wkb(geometries),
        arrays,
        list(fields),
        layer=layer,
        geometry_type=shapely.from_wkb(shapely.to_wkb(geometries[0])).geom_type,
        crs=crs,
        append=append,
    )
    return path


BOXES = [shapely.box(500_100, 2_299_500, 500_400, 2_299_900), shapely.box(500_400, 2_299_500, 500_500, 2_299_900)]


def test_geopackages_shapefiles_and_geojson_agree(tmp_path: Path) -> None:
    mask, grid = drawn((60, 50)), grid_of()
    fields = {"code": [7, 9], "name": ["Wardha", "Nagpur"]}
    paths = [write(tmp_path / f"z.{suffix}", BOXES, **fields) for suffix in ("gpkg", "shp")]
    features = [
        {"type": "Feature", "properties": {"name": name}, "geometry": json.loads(shapely.to_geojson(box))}
        for name, box in zip(fields["name"], BOXES, strict=True)
    ]
    plain = {"type": "FeatureCollection", "features": features, "crs": {"type": "name", "properties": {"name": UTM}}}
    paths.append(tmp_path / "z.geojson")
    paths[-1].write_text(json.dumps(plain))
    scale = MapScale(grid, mask.shape)
    results = [zone_totals(mask, grid, scale, read_zones(path)) for path in paths]
    assert [total.zone for total in results[0]] == ["Wardha"] * 3 + ["Nagpur"] * 3
    for other in results[1:]:
        for one, two in zip(results[0], other, strict=True):
            assert (one.zone, one.class_name) == (two.zone, two.class_name)
            assert one.size.value == pytest.approx(two.size.value, rel=1e-9)
    assert read_zones(paths[0]).zones[0].properties == {"code": 7, "name": "Wardha"}


@pytest.mark.parametrize(
    ("fields", "names"),
    [
        ({"DISTRICT": ["a", "b"]}, ["a", "b"]),
        ({"state": ["x", "x"], "NAME": ["a", "b"]}, ["a", "b"]),
        ({"name": ["x", "x"], "other": ["a", "b"]}, ["a", "b"]),
        ({"name": ["x", "x"]}, ["1", "2"]),
        ({"code": [1, 2]}, ["1", "2"]),
    ],
)
def test_names(tmp_path: Path, fields: dict, names: list[str]) -> None:
    found = read_zones(write(tmp_path / "z.gpkg", BOXES, **fields))
    assert [zone.name for zone in found.zones] == names


def test_zones_that_cross_themselves_are_repaired(tmp_path: Path) -> None:
    bow = shapely.Polygon([(500_000, 2_299_900), (500_100, 2_299_800), (500_100, 2_299_900), (500_000, 2_299_800)])
    overlapping = shapely.MultiPolygon(
        [shapely.box(500_200, 2_299_500, 500_300, 2_299_600), shapely.box(500_250, 2_299_500, 500_350, 2_299_600)]
    )
    shapes = [shapely.MultiPolygon([bow]), overlapping, shapely.MultiPolygon([BOXES[0]])]
    zones = read_zones(write(tmp_path / "z.gpkg", shapes, name=["bow", "two", "box"]))
    assert zones.notices == (f"{tmp_path / 'z.gpkg'}: repaired zones whose borders cross: bow, two",)
    mask, grid = ArrayMask(np.zeros((60, 50), np.uint8), LABELS), grid_of()
    found = zone_totals(mask, grid, MapScale(grid, mask.shape), zones)
    assert [found[k].pixels for k in (0, 3, 6)] == pytest.approx([50, 150, 1200])


def test_files_that_cannot_be_used(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="found nothing"):
        read_zones(tmp_path / "none.gpkg")
    (tmp_path / "z.kml").write_text("<kml/>")
    with pytest.raises(DataError, match="Convert it to GeoPackage"):
        read_zones(tmp_path / "z.kml")
    (tmp_path / "z.gpkg").write_text("<OGRVRTDataSource/>")
    with pytest.raises(DataError, match="another format"):
        read_zones(tmp_path / "z.gpkg")
    (tmp_path / "z.json").write_text('{"type": "gdal_streamed_alg", "command_line": "gdal vector pipeline ! read x"}')
    with pytest.raises(DataError, match="feature collection"):
        read_zones(tmp_path / "z.json")
    (tmp_path / "broken.gpkg").write_bytes(b"SQLite format 3\x00" + bytes(200))
    with pytest.raises(DataError, match=r"broken\.gpkg"):
        read_zones(tmp_path / "broken.gpkg")
    lines = write(tmp_path / "lines.gpkg", [shapely.LineString([(0, 0), (1, 1)])], name=["a"])
    with pytest.raises(DataError, match="one layer with areas"):
        read_zones(lines)
    two = write(tmp_path / "two.gpkg", BOXES, layer="first", name=["a", "b"])
    write(two, BOXES, layer="second", append=True, name=["a", "b"])
    with pytest.raises(DataError, match="found first, second"):
        read_zones(two)


def test_images_and_zones_without_a_place() -> None:
    scale = AffineScale(np.eye(2), "m", "")
    with pytest.raises(DataError, match="found no position"):
        zone_totals(drawn((9, 9)), Grid(), scale, zones_of(BOXES[0]))
    with pytest.raises(DataError, match=r"map: .* found no system"):
        zone_totals(drawn((9, 9)), grid_of(crs=None), scale, zones_of(BOXES[0]))
    with pytest.raises(DataError, match=r"z\.gpkg: .* found no system"):
        zone_totals(drawn((9, 9)), grid_of(), scale, zones_of(BOXES[0], crs=None))
    volume = ArrayMask(np.zeros((2, 3, 4), np.uint8), LABELS, "v")
    with pytest.raises(DataError, match="v: expected an image, for zones"):
        zone_totals(volume, Grid((1, 1, 1)), scale, zones_of(BOXES[0]))
    local = zone_totals(drawn((60, 50)), grid_of(crs=None), scale, zones_of(BOXES[0], crs=None))
    assert sum(total.pixels for total in local) + local[0].ignored == pytest.approx(1200)
