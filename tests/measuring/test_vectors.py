"""Polygons of masks in files, read back by GDAL, pycocotools and our own readers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyogrio
import pytest
import rasterio
import shapely
from affine import Affine
from pycocotools.coco import COCO
from pyproj import Transformer
from rasterio.features import rasterize
from shapely.geometry import shape
from shapely.geometry.polygon import orient

from pixelwise.config import DataConfig
from pixelwise.datasets.dataset import open_data
from pixelwise.errors import DataError
from pixelwise.grid import Grid
from pixelwise.imageio.images import read_header
from pixelwise.labels import Labels
from pixelwise.measuring.map_scale import MapScale
from pixelwise.measuring.masks import ArrayMask
from pixelwise.measuring.vectors import write_vectors
from pixelwise.tiles import Window

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

LABELS = Labels(("field", "forest", "water"), ids=(1, 2, 7))
SIZE = (24, 33)
PLACES: dict[str, tuple[str, Affine]] = {
    "utm": ("EPSG:32633", Affine(10, 0, 500000, 0, -10, 5_500_000)),
    "large pixels": ("EPSG:32633", Affine(3000, 0, 300000, 0, -3000, 7_000_000)),
    "south-up": ("EPSG:32633", Affine(10, 0, 500000, 0, 10, 5_500_000)),
    "rotated": ("EPSG:32633", Affine(4.3, 3.6, 500000, 2.6, -6.0, 5_500_000)),
    "degrees": ("EPSG:4326", Affine(1e-3, 0, 11.5, 0, -1e-3, 48.1)),
    "conic": ("EPSG:3035", Affine(100, 0, 4_400_000, 0, -100, 2_900_000)),
}


def random_mask(seed: int = 0, size: tuple[int, int] = SIZE, ignored: bool = True) -> np.ndarray:
    """Return patches with holes and corners that touch."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 3, (size[0] // 3, size[1] // 3)).repeat(3, 0).repeat(3, 1).astype(np.uint8)
    mask = np.where(rng.random(coarse.shape) < 0.08, rng.integers(0, 3, coarse.shape), coarse).astype(np.uint8)
    mask[:4, -5:] = 255 if ignored else 2
    return mask


def geotiff(path: Path, crs: str, transform: Affine, size: tuple[int, int] = SIZE) -> Grid:
    """Write an image, and return its grid."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with rasterio.open(
        path, "w", driver="GTiff", height=size[0], width=size[1], count=1, dtype="uint8", crs=crs, transform=transform
    ) as file:
        file.write(np.full((1, *size), 9, np.uint8))
    grid = read_header(path).grid
    assert grid is not None
    return grid


def by_name(root: Path) -> np.ndarray:
    """Return the only mask of a data set, with the class indices of `LABELS`."""
    splits = open_data(DataConfig.model_validate({"split": {"val": 0, "test": 0}}), root)
    found = np.full(SIZE, 255, np.uint8)
    for split in splits:
        for index, record in enumerate(split.records):
            mask = split.read(index).truth(255)
            top, left, height, width = record.window or (0, 0, *mask.shape)
            names = split.labels.names
            table = np.array([LABELS.names.index(name) if name in LABELS.names else 255 for name in names], np.uint8)
            found[top : top + height, left : left + width] = np.where(
                mask == 255, 255, table[np.minimum(mask, len(table) - 1)]
            )
    return found


def features(path: Path) -> list[dict[str, Any]]:
    return list(json.loads(path.read_text(encoding="utf-8"))["features"])


@pytest.mark.parametrize("place", PLACES)
def test_geojson_is_read_back_to_the_same_mask(place: str, tmp_path: Path) -> None:
    crs, transform = PLACES[place]
    mask = random_mask()
    grid = geotiff(tmp_path / "scene.tif", crs, transform)
    path = tmp_path / "scene.geojson"
    count = write_vectors(ArrayMask(mask, LABELS), grid, path, format="geojson")
    found = features(path)
    assert len(found) == count
    np.testing.assert_array_equal(by_name(tmp_path), mask)
    shapes = [shape(feature["geometry"]) for feature in found]
    assert all(one.is_valid and one.equals_exact(orient(one)) for one in shapes)
    back = Transformer.from_crs("EPSG:4326", crs, always_xy=True)
    areas = [
        shapely.transform(one, lambda points: np.stack(back.transform(*points.T), 1)).area / abs(transform.determinant)
        for one in shapes
    ]
    np.testing.assert_allclose(areas, [feature["properties"]["pixels"] for feature in found], rtol=0.01)
    assert sum(areas) == pytest.approx((mask != 255).sum(), rel=1e-3)


@pytest.mark.parametrize("place", PLACES)
def test_geopackage_is_read_by_gdal_to_the_same_mask(place: str, tmp_path: Path) -> None:
    crs, transform = PLACES[place]
    mask = random_mask(1)
    grid = geotiff(tmp_path / "scene.tif", crs, transform)
    scale = MapScale(grid, SIZE)
    path = tmp_path / "polygons" / "scene.gpkg"
    write_vectors(ArrayMask(mask, LABELS), grid, path, format="gpkg", scale=scale)
    assert [file.name for file in path.parent.iterdir()] == ["scene.gpkg"]
    meta, _, geometry, columns = pyogrio.raw.read(path)
    assert meta["crs"] == crs
    table = dict(zip(meta["fields"], columns, strict=True))
    assert list(table) == ["class", "id", "pixels", "area_m2"]
    shapes = shapely.from_wkb(geometry)
    assert shapely.is_valid(shapes).all()
    burnt = rasterize(zip(shapes, table["id"], strict=True), SIZE, fill=255, transform=transform, dtype="uint8")
    ids = np.array([*LABELS.ids, *[255] * 253], np.uint8)
    np.testing.assert_array_equal(burnt, ids[mask])
    np.testing.assert_allclose(shapely.area(shapes), table["pixels"] * abs(transform.determinant), rtol=1e-9)
    pixel_areas = np.broadcast_to(scale.sizes(_whole()), SIZE)
    assert table["area_m2"].sum() == pytest.approx(pixel_areas[mask != 255].sum())
    names = np.array(LABELS.names)[np.searchsorted(LABELS.ids, table["id"])]
    assert names.tolist() == table["class"].tolist()


def _whole() -> Window:
    return Window((0, 0), SIZE)


@pytest.mark.parametrize("seed", range(5))
def test_coco_is_read_by_pycocotools_to_the_same_mask(seed: int, tmp_path: Path) -> None:
    mask = random_mask(seed)
    path = tmp_path / "scene.json"
    count = write_vectors(ArrayMask(mask, LABELS, "images/scene.png"), Grid(), path, format="coco")
    coco = COCO(path)
    found = np.full(SIZE, 255, np.uint8)
    for row in coco.loadAnns(coco.getAnnIds()):
        inside = coco.annToMask(row).astype(bool)
        assert (found[inside] == 255).all()
        found[inside] = LABELS.ids.index(row["category_id"])
        rows, columns = np.nonzero(inside)
        low, high = (columns.min(), rows.min()), (columns.max() + 1, rows.max() + 1)
        assert row["bbox"] == [*low, high[0] - low[0], high[1] - low[1]]
        assert row["area"] == inside.sum()
    np.testing.assert_array_equal(found, mask)
    assert len(coco.anns) == count
    kinds = {type(row["segmentation"]) for row in coco.anns.values()}
    assert kinds == {list, dict}


def test_images_without_map_give_pixels_and_say_so(tmp_path: Path) -> None:
    mask = random_mask()
    path = tmp_path / "image.geojson"
    write_vectors(ArrayMask(mask, LABELS), Grid((0.2, 0.2), "mm"), path, format="geojson")
    plain = json.loads(path.read_text())
    assert plain["coordinates"] == "pixels from the upper left corner of the image, x to the right and y down"
    shapes = [shape(feature["geometry"]) for feature in plain["features"]]
    assert [one.area for one in shapes] == [feature["properties"]["pixels"] for feature in plain["features"]]
    ids = [feature["properties"]["id"] for feature in plain["features"]]
    burnt = rasterize(zip(shapes, ids, strict=True), SIZE, fill=255, dtype="uint8")
    np.testing.assert_array_equal(burnt, np.array([*LABELS.ids, *[255] * 253], np.uint8)[mask])


def test_geojson_is_cut_at_the_antimeridian(tmp_path: Path) -> None:
    mask = np.zeros((20, 40), np.uint8)
    mask[5:15, 10:30] = 1
    mask[8:12, 15:25] = 2
    transform = Affine(0.1, 0, 178, 0, -0.1, 10)
    grid = geotiff(tmp_path / "a.tif", "EPSG:4326", transform, mask.shape)
    path = tmp_path / "a.geojson"
    write_vectors(ArrayMask(mask, LABELS), grid, path, format="geojson")
    found = features(path)
    assert [feature["geometry"]["type"] for feature in found] == ["MultiPolygon"] * 3
    for feature in found:
        one = shape(feature["geometry"])
        assert one.is_valid
        assert one.bounds[0] == -180
        assert one.bounds[2] == 180
        assert one.area == pytest.approx(feature["properties"]["pixels"] * 0.01)
        assert all(part.exterior.is_ccw for part in one.geoms)


@pytest.mark.parametrize(("crs", "sign"), [("EPSG:3413", 1), ("EPSG:3031", -1)])
def test_geojson_around_a_pole_ends_at_the_pole(crs: str, sign: int, tmp_path: Path) -> None:
    mask = np.zeros((40, 40), np.uint8)
    mask[10:30, 10:30] = 1
    transform = Affine(20_000, 0, -390_000, 0, -20_000, 410_000)
    grid = geotiff(tmp_path / "a.tif", crs, transform, mask.shape)
    path = tmp_path / "a.geojson"
    write_vectors(ArrayMask(mask, LABELS), grid, path, format="geojson")
    outer, inner = (shape(feature["geometry"]) for feature in features(path))
    assert outer.is_valid
    assert inner.is_valid
    assert outer.intersection(inner).area < 1e-6
    assert inner.bounds[3 if sign > 0 else 1] == sign * 90
    assert inner.contains(shapely.Point(10, sign * 89.9))
    assert outer.bounds[0] == -180
    assert outer.bounds[2] == 180


def test_a_raster_of_the_whole_world_is_not_cut(tmp_path: Path) -> None:
    mask = np.zeros((18, 36), np.uint8)
    grid = geotiff(tmp_path / "a.tif", "EPSG:4326", Affine(10, 0, -180, 0, -10, 90), mask.shape)
    write_vectors(ArrayMask(mask, LABELS), grid, tmp_path / "a.geojson", format="geojson")
    (feature,) = features(tmp_path / "a.geojson")
    assert shape(feature["geometry"]).area == 360 * 180


def test_neighbours_share_their_points_in_degrees(tmp_path: Path) -> None:
    crs, transform = PLACES["large pixels"]
    mask = random_mask()
    grid = geotiff(tmp_path / "scene.tif", crs, transform)
    write_vectors(ArrayMask(mask, LABELS), grid, tmp_path / "scene.geojson", format="geojson")
    shapes = [shape(feature["geometry"]) for feature in features(tmp_path / "scene.geojson")]
    assert sum(one.area for one in shapes) == pytest.approx(shapely.union_all(shapes).area, rel=1e-12)


def test_small_regions_are_left_out(tmp_path: Path) -> None:
    mask = np.zeros((6, 6), np.uint8)
    mask[2, 2] = 1
    count = write_vectors(ArrayMask(mask, LABELS), Grid(), tmp_path / "a.json", format="coco", smallest=2)
    assert count == 1


@pytest.mark.parametrize("format", ["geojson", "gpkg", "coco"])
def test_masks_without_regions_give_files_without_polygons(format: Any, tmp_path: Path) -> None:
    mask = np.full((4, 4), 255, np.uint8)
    path = tmp_path / ("a.gpkg" if format == "gpkg" else "a.json")
    assert write_vectors(ArrayMask(mask, LABELS), Grid(), path, format=format) == 0
    if format == "gpkg":
        assert pyogrio.read_info(path)["features"] == 0
        assert list(pyogrio.read_info(path)["fields"]) == ["class", "id", "pixels"]
    else:
        assert json.loads(path.read_text())["annotations" if format == "coco" else "features"] == []


def test_volumes_are_refused(tmp_path: Path) -> None:
    mask = np.zeros((2, 4, 4), np.uint8)
    with pytest.raises(DataError, match="expected an image, for polygons, found a volume"):
        write_vectors(ArrayMask(mask, LABELS), Grid((1, 1, 1)), tmp_path / "a.json", format="coco")


def test_a_system_that_is_not_of_the_earth_is_refused(tmp_path: Path) -> None:
    crs = 'LOCAL_CS["hall",UNIT["metre",1],AXIS["x",EAST],AXIS["y",NORTH]]'
    grid = Grid((1, 1), "m", ((1, 0, 0), (0, -1, 0), (0, 0, 1)), crs)
    with pytest.raises(DataError, match="Write a GeoPackage, which keeps the system of the image"):
        write_vectors(ArrayMask(random_mask(), LABELS), grid, tmp_path / "a.json", format="geojson")
    write_vectors(ArrayMask(random_mask(), LABELS), grid, tmp_path / "a.gpkg", format="gpkg")
    assert not (tmp_path / "a.json").exists()


@pytest.mark.parametrize("format", ["geojson", "coco"])
def test_simplified_polygons_have_fewer_points(tmp_path: Path, format: Any) -> None:
    rows, columns = np.indices((60, 60))
    ring = ((rows - 30) ** 2 + (columns - 30) ** 2 < 25**2) & ((rows - 30) ** 2 + (columns - 30) ** 2 > 10**2)
    mask = ArrayMask(ring.astype(np.uint8), Labels(("land", "lake")))
    sizes = []
    for simplify in (0.0, 1.0):
        path = tmp_path / f"{simplify}.json"
        assert write_vectors(mask, Grid(), path, format=format, simplify=simplify) == 3
        plain = json.loads(path.read_text())
        sizes.append(path.stat().st_size)
        rows_of = plain["features" if format == "geojson" else "annotations"]
        pixels = [row["properties"]["pixels"] if format == "geojson" else row["area"] for row in rows_of]
        assert sum(pixels) == 3600
    assert sizes[1] < 0.7 * sizes[0]
