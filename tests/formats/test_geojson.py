"""GeoTIFFs with features in GeoJSON: rasterisation agrees with GDAL, and unannotated rasters are reported."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from affine import Affine
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pyproj import Transformer
from rasterio.features import rasterize

from pixelwise.config import DataConfig
from pixelwise.datasets.convert import convert
from pixelwise.datasets.dataset import DataSplits, open_data
from pixelwise.errors import DataError, ImageError, MaskError, PairingError
from pixelwise.formats import FORMATS, find_format
from pixelwise.formats.dataset_root import DatasetRoot
from pixelwise.formats.vector_features import read_features

UTM = "EPSG:32616"
LEFT, TOP, PIXEL = 733601.0, 3725139.0, 0.5
SIZE = (40, 60)


def raster(
    path: Path, size: tuple[int, int] = SIZE, left: float = LEFT, top: float = TOP, crs: Any = UTM, **profile: Any
) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    array = np.random.default_rng(len(path.name)).integers(1, 255, (1, *size)).astype(np.uint8)
    array = profile.pop("array", array)
    transform = profile.pop("transform", Affine(PIXEL, 0, left, 0, -PIXEL, top))
    with rasterio.open(
        path, "w", driver="GTiff", height=size[0], width=size[1], count=len(array), dtype=array.dtype, crs=crs,
        transform=transform, **profile,
    ) as file:  # fmt: skip
        file.write(array)
    return path


def box(left: float, top: float, right: float, bottom: float) -> list[list[float]]:
    """Return a ring around pixels, in the coordinates of `raster`."""
    corners = [(left, top), (right, top), (right, bottom), (left, bottom), (left, top)]
    return [[LEFT + x * PIXEL, TOP - y * PIXEL] for x, y in corners]


def area(*rings: Any, kind: str = "Polygon", **properties: Any) -> dict[str, Any]:
    return {"type": "Feature", "properties": properties, "geometry": {"type": kind, "coordinates": list(rings)}}


def vector(path: Path, *features: Any, crs: Any = UTM, **more: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    plain = {"type": "FeatureCollection", "features": list(features), **more}
    if crs is not None:
        plain["crs"] = {"type": "name", "properties": {"name": crs}}
    path.write_text(json.dumps(plain))
    return path


def opened(root: Path, **config: Any) -> DataSplits:
    return open_data(DataConfig.model_validate({"split": {"val": 0, "test": 0}, **config}), root)


def full_masks(splits: DataSplits) -> dict[str, np.ndarray]:
    """Return the masks of all rasters, with blocks merged."""
    masks: dict[str, np.ndarray] = {}
    for split in splits:
        for index, record in enumerate(split.records):
            mask = split.read(index).truth(255)
            top, left, height, width = record.window or (0, 0, *mask.shape)
            size = (max(top + height, 0), max(left + width, 0))
            canvas = masks.setdefault(record.image.name, np.zeros((0, 0), np.uint8))
            if canvas.shape[0] < size[0] or canvas.shape[1] < size[1]:
                grown = np.zeros((max(size[0], canvas.shape[0]), max(size[1], canvas.shape[1])), np.uint8)
                grown[: canvas.shape[0], : canvas.shape[1]] = canvas
                masks[record.image.name] = canvas = grown
            canvas[top : top + height, left : left + width] = mask
    return masks


# Position -------------------------------------------------------------------------------------------------------------


def test_polygons_with_holes_and_multipolygons(tmp_path: Path) -> None:
    raster(tmp_path / "a.tif")
    raster(tmp_path / "b.tif", top=TOP - 10 * PIXEL)
    vector(
        tmp_path / "x.geojson",
        area(box(5, 5, 25, 20), box(10, 8, 15, 12), kind="Polygon"),
        area([box(30, 20, 34, 24)], [box(40, 30, 50, 35), box(42, 31, 44, 33)], kind="MultiPolygon"),
        area([box(55, 0, 58, 4), box(56, 1, 57, 2)], [box(56, 1, 57, 2)], kind="MultiPolygon"),  # a polygon in a hole
    )
    masks = full_masks(opened(tmp_path))
    expected = np.zeros(SIZE, np.uint8)
    expected[5:20, 5:25] = 1
    expected[8:12, 10:15] = 0
    expected[20:24, 30:34] = expected[30:35, 40:50] = 1
    expected[31:33, 42:44] = 0
    expected[0:4, 55:58] = 1
    np.testing.assert_array_equal(masks["a.tif"], expected)
    np.testing.assert_array_equal(masks["b.tif"][:30], expected[10:])
    assert not masks["b.tif"][30:].any()


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck), database=None)
@given(
    st.lists(st.tuples(st.integers(-20, 140), st.integers(-20, 100)), min_size=3, max_size=8, unique=True),
    st.sampled_from([0.0, 17.0, 90.0, 200.0]),
)
def test_masks_match_gdal(tmp_path_factory: Any, corners: Any, angle: float) -> None:
    # Both use pixel centres, but treat centres on an edge differently, so the corners avoid them.
    points = [(x / 2 + 0.137, y / 2 + 0.211) for x, y in corners]
    root = tmp_path_factory.mktemp("gdal")
    transform = Affine(PIXEL, 0, LEFT, 0, -PIXEL, TOP) @ Affine.rotation(angle)
    raster(root / "a.tif", transform=transform)
    ring = [
        [transform.a * x + transform.b * y + transform.c, transform.d * x + transform.e * y + transform.f]
        for x, y in [*points, points[0]]
    ]
    vector(root / "x.geojson", area(ring))
    gdal = rasterize([{"type": "Polygon", "coordinates": [ring]}], out_shape=SIZE, transform=transform)
    if not gdal.any():
        return
    assert (full_masks(opened(root, images="a.tif"))["a.tif"] != gdal).sum() <= 2


def test_features_in_longitude_and_latitude_are_transformed(tmp_path: Path) -> None:
    raster(tmp_path / "a.tif")
    raster(tmp_path / "b.tif")
    back = Transformer.from_crs(UTM, "EPSG:4326", always_xy=True)
    ring = [list(back.transform(x, y)) for x, y in box(10, 5, 40, 30)]
    vector(
        tmp_path / "x.geojson", area(ring, [ring[0]] * 4), area([ring[0]] * 4), area([*ring[:2], *ring[:2]]), crs=None
    )
    splits = opened(tmp_path)
    mask = full_masks(splits)["a.tif"]
    expected = np.zeros(SIZE, np.uint8)
    expected[5:30, 10:40] = 1
    assert (mask != expected).sum() <= 2 * (25 + 30)
    assert (mask[6:29, 11:39] == 1).all()
    assert "features are transformed from EPSG:4326 to EPSG:32616" in splits.notices


def test_long_edges_follow_the_curve_of_the_transformation(tmp_path: Path) -> None:
    # An edge of 30 km along a parallel, with pixels of 30 m: its middle is four pixels off a straight line.
    transform = Affine(30, 0, 300_000, 0, -30, 6_700_000)
    raster(tmp_path / "a.tif", (400, 1200), transform=transform)
    back = Transformer.from_crs(UTM, "EPSG:4326", always_xy=True)
    west, east, north, south = *back.transform(301_000, 6_695_000), *back.transform(334_000, 6_690_000)
    (west, north), (east, south) = back.transform(301_000, 6_695_000), back.transform(334_000, 6_690_000)
    ring = [[west, north], [east, north], [east, south], [west, south], [west, north]]
    vector(tmp_path / "x.geojson", area(ring), crs=None)
    mask = full_masks(opened(tmp_path, images="a.tif"))["a.tif"]
    rows, columns = np.mgrid[:400, :1200] + 0.5
    x, y = back.transform(300_000 + 30 * columns, 6_700_000 - 30 * rows)
    exact = (x > west) & (x < east) & (y > south) & (y < north)
    assert (mask != exact).sum() < 0.002 * exact.sum()


def test_features_outside_all_rasters_or_without_area_are_counted(tmp_path: Path) -> None:
    raster(tmp_path / "a.tif")
    raster(tmp_path / "b.tif")
    vector(
        tmp_path / "x.geojson",
        area(box(1, 1, 5, 5)),
        area(box(900, 1, 950, 5)),
        area(box(60, 1, 70, 5)),  # touches the edge, from outside
        {"type": "Feature", "properties": {}, "geometry": {"type": "Point", "coordinates": [LEFT, TOP]}},
        {"type": "Feature", "properties": None, "geometry": None},
        area(),  # POLYGON EMPTY
    )
    notices = opened(tmp_path).notices
    assert "2 of 3 features are on no raster and are left out (x.geojson)" in notices
    assert "3 features are points, lines or empty and cover no pixels (x.geojson)" in notices


# Annotated rasters ----------------------------------------------------------------------------------------------------


def test_rasters_without_features_are_background_or_problems(tmp_path: Path) -> None:
    for k, name in enumerate(("a", "b", "c")):
        raster(tmp_path / f"{name}.tif", left=LEFT + 30 * k)
    vector(tmp_path / "x.geojson", area(box(1, 1, 5, 5)), area(box(130, 1, 135, 5)))
    splits = opened(tmp_path)
    assert {name: bool(mask.any()) for name, mask in full_masks(splits).items()} == {"a.tif": 1, "b.tif": 0, "c.tif": 1}
    assert "1 of 3 rasters have no features: b.tif" in splits.notices
    raster(tmp_path / "far.tif", left=LEFT + 5000)
    found = r"raster far from all features: 1 \(far\.tif\)"
    with pytest.raises(PairingError, match=found) as error:
        opened(tmp_path)
    assert error.value.do == "List the annotated rasters: --set 'data.images=[a.tif, b.tif, c.tif]'."
    notice = "1 of 4 rasters are far from all features: List the annotated rasters: --set 'data.images=[a.tif, b.tif, c.tif]'"
    assert notice in opened(tmp_path, skip_bad=True).notices
    assert len(opened(tmp_path, images=["a.tif", "b.tif", "c.tif"]).train) == 3
    assert opened(tmp_path, skip_bad=True).skipped == ("far.tif: raster far from all features",)
    assert len(opened(tmp_path, images="*.tif").train) == 4


def test_a_raster_with_an_empty_vector_file_of_its_name_is_background(tmp_path: Path) -> None:
    raster(tmp_path / "img1.tif")
    raster(tmp_path / "img2.tif", left=LEFT + 9000)
    vector(tmp_path / "geo/img1.geojson", area(box(1, 1, 5, 5)))
    vector(tmp_path / "geo/img2.geojson")
    split = opened(tmp_path).train
    assert [(record.id, record.mask.name) for record in split.records] == [
        ("img1", "img1.geojson"),
        ("img2", "img2.geojson"),
    ]


def test_nodata_pixels_are_ignored(tmp_path: Path) -> None:
    array = np.ones((3, *SIZE), np.uint8)
    array[:, :10] = 0
    array[0, 10:20] = 0  # dark, but not nodata in all bands
    raster(tmp_path / "a.tif", array=array, nodata=0)
    raster(tmp_path / "b.tif", array=array)
    vector(tmp_path / "x.geojson", area(box(0, 0, 60, 40)))
    masks = full_masks(opened(tmp_path))
    assert (masks["a.tif"][:10] == 255).all()
    assert (masks["a.tif"][10:] == 1).all()
    assert (masks["b.tif"] == 1).all()


def test_float_rasters_with_nan_as_nodata(tmp_path: Path) -> None:
    array = np.ones((1, *SIZE), np.float32)
    array[0, :10] = np.nan
    for name in "ab":
        raster(tmp_path / f"{name}.tif", array=array, nodata=np.nan)
    vector(tmp_path / "x.geojson", area(box(0, 0, 60, 40)))
    sample = opened(tmp_path).train.read(0)
    np.testing.assert_array_equal(np.isfinite(sample.image[0]), sample.valid)
    assert (sample.truth(255)[:10] == 255).all()


def test_a_single_raster_is_divided_into_blocks(tmp_path: Path) -> None:
    raster(tmp_path / "a.tif")
    vector(tmp_path / "x.geojson", area(box(5, 5, 55, 35)))
    splits = opened(tmp_path, split={"val": 0.2})
    assert {split.name: len(split) for split in splits} == {"train": 7, "val": 2}
    expected = np.zeros(SIZE, np.uint8)
    expected[5:35, 5:55] = 1
    found = np.full(SIZE, -1)  # nothing between the splits
    for split in splits:
        for index, record in enumerate(split.records):
            top, left, height, width = record.window
            found[top : top + height, left : left + width] = split.read(index).mask
    np.testing.assert_array_equal(found[found >= 0], expected[found >= 0])
    assert 0.7 < (found >= 0).mean() < 1
    assert any("the only raster is divided into 3×3 blocks" in notice for notice in splits.notices)
    sample, record = splits.train.read(0), splits.train.records[0]
    top, left, height, width = record.window
    assert sample.image.shape == (1, height, width)
    world = sample.grid.to_world(np.array([[0.0, 0.0]]))[0]
    assert world.tolist() == [LEFT + (left + 0.5) * PIXEL, TOP - (top + 0.5) * PIXEL]


def test_splits_come_from_folders(tmp_path: Path) -> None:
    raster(tmp_path / "train/a.tif")
    raster(tmp_path / "val/b.tif")
    vector(tmp_path / "x.geojson", area(box(5, 5, 55, 35)))
    assert {split.name: len(split) for split in opened(tmp_path)} == {"train": 1, "val": 1}


# Classes ---------------------------------------------------------------------------------------------------------------


def two(root: Path, first: dict[str, Any], second: dict[str, Any], name: str = "x") -> DataSplits:
    for k in "ab":
        raster(root / f"{k}.tif")
    vector(root / f"{name}.geojson", area(box(0, 0, 30, 40), **first), area(box(20, 0, 60, 40), **second))
    return opened(root)


def test_a_common_property_gives_the_classes_and_later_features_are_on_top(tmp_path: Path) -> None:
    splits = two(tmp_path, {"Class": "road", "name": "x"}, {"Class": "field", "name": "y"})
    assert splits.labels.names == ("background", "field", "road")
    assert full_masks(splits)["a.tif"][0, [0, 19, 20, 59]].tolist() == [2, 2, 1, 1]
    assert any(
        "the classes are the values of the property 'Class' (field, road)" in notice for notice in splits.notices
    )
    assert opened(tmp_path, ignored=["road"]).labels.names == ("background", "field")
    assert full_masks(opened(tmp_path, ignored=["road"]))["a.tif"][0, 0] == 255
    assert opened(tmp_path, attribute="name").labels.names == ("background", "x", "y")
    assert opened(tmp_path, unlabelled="ignore").labels.names == ("field", "road")


def test_numbers_as_class_names(tmp_path: Path) -> None:
    assert two(tmp_path, {"label": 3}, {"label": 12}).labels.names == ("background", "12", "3")
    assert two(tmp_path / "x", {"class": 1.0}, {"class": 2.0}).labels.names == ("background", "1", "2")


@pytest.mark.parametrize(
    ("first", "second", "only"),
    [
        ({"building": "yes", "name": "a"}, {"building": "yes", "name": ""}, "building"),
        ({}, {}, "fields"),
        ({"class": "yes"}, {"class": "Yes"}, "class"),
    ],
    ids=["yes", "nothing", "a class called yes"],
)
def test_without_a_class_property_all_features_are_one_class(
    tmp_path: Path, first: dict[str, Any], second: dict[str, Any], only: str
) -> None:
    splits = two(tmp_path, first, second, "fields")
    assert splits.labels.names == ("background", only)


def test_a_class_missing_in_some_features_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(
        MaskError, match=r"expected a class for every feature in the property 'Class', found 1 of 2 without"
    ):
        two(tmp_path, {"Class": "a", "crop": None}, {"Class": None})


def test_a_requested_property_must_be_in_all_features(tmp_path: Path) -> None:
    two(tmp_path, {"crop": "rice", "use": 1}, {"crop": "rye"})
    with pytest.raises(
        MaskError, match=r"data\.attribute: expected features with the property 'use', found 1 of 2.* crop"
    ):
        opened(tmp_path, attribute="use")
    with pytest.raises(MaskError, match="found none"):
        opened(tmp_path, attribute="nothing")


# Errors --------------------------------------------------------------------------------------------------------------


def test_no_feature_on_any_raster_is_an_error(tmp_path: Path) -> None:
    raster(tmp_path / "a.tif")
    vector(tmp_path / "x.geojson", area(box(5000, 0, 5100, 40)))
    with pytest.raises(
        DataError, match=r"found none of 1 features in EPSG:32616 on 1 rasters in EPSG:32616. Check that"
    ):
        opened(tmp_path)


@pytest.mark.parametrize(
    ("crs", "found"),
    [
        (None, r"expected longitudes and latitudes, since it has no `crs`, found coordinates up to 3725139"),
        ("urn:ogc:def:crs:IAU_2015::30100", "expected a transformation from IAU_2015:30100 to EPSG:32616"),
        ("+proj=utm +zone=16 +nadgrids=/etc/passwd", "expected a coordinate reference system by its code"),
        ("", "found crs ''"),
    ],
)
def test_missing_or_unknown_crs_is_an_error(tmp_path: Path, crs: str | None, found: str) -> None:
    raster(tmp_path / "a.tif")
    vector(tmp_path / "x.geojson", area(box(0, 0, 30, 40)), crs=crs)
    with pytest.raises(MaskError, match=found):
        opened(tmp_path)


def test_null_and_old_crs_members(tmp_path: Path) -> None:
    plain: dict[str, Any] = {"type": "FeatureCollection", "features": [], "crs": None}
    with pytest.raises(MaskError, match="found crs 'none'"):
        read_features(tmp_path / "x", plain)
    assert read_features(tmp_path / "x", plain | {"crs": {"type": "EPSG", "properties": {"code": 32616}}}).crs == UTM


def test_a_raster_without_georeference_is_an_error_or_skipped(tmp_path: Path) -> None:
    raster(tmp_path / "a.tif")
    raster(tmp_path / "b.tif")
    raster(tmp_path / "c.tif", crs=None)
    vector(tmp_path / "x.geojson", area(box(0, 0, 30, 40)))
    with pytest.raises(ImageError, match=r"c\.tif: expected a GeoTIFF with a coordinate reference system.* gdal_edit"):
        opened(tmp_path)
    assert len(opened(tmp_path, skip_bad=True).skipped) == 1


def test_a_crs_without_a_code_is_read_by_gdal(tmp_path: Path) -> None:
    own = "+proj=tmerc +lat_0=33 +lon_0=-84 +k=1 +x_0=0 +y_0=0 +datum=WGS84 +units=m"
    for k in "ab":
        raster(tmp_path / f"{k}.tif", left=0, top=0, crs=own)
    transform = Transformer.from_crs(rasterio.crs.CRS.from_string(own).to_wkt(), "EPSG:4326", always_xy=True)
    ring = [list(transform.transform((x - LEFT), (y - TOP))) for x, y in box(10, 10, 30, 30)]
    vector(tmp_path / "x.geojson", area(ring), crs="EPSG:4326")
    mask = full_masks(opened(tmp_path))["a.tif"]
    assert abs(int(mask.sum()) - 400) <= 40
    assert (mask[11:29, 11:29] == 1).all()


def test_unknown_datum_shifts_are_errors(tmp_path: Path) -> None:
    raster(tmp_path / "a.tif", left=0, top=0, crs="+proj=tmerc +lat_0=33 +lon_0=-84 +ellps=GRS80 +units=m")
    vector(tmp_path / "x.geojson", area(box(0, 0, 30, 40)))
    with pytest.raises(
        MaskError, match=r"expected a transformation from EPSG:32616 to PROJCS.*found none\. Save the features"
    ):
        opened(tmp_path)


def test_a_virtual_raster_named_tif_is_not_opened(tmp_path: Path) -> None:
    raster(tmp_path / "a.tif")
    (tmp_path / "b.tif").write_text('<VRTDataset rasterXSize="60" rasterYSize="40"></VRTDataset>')
    vector(tmp_path / "x.geojson", area(box(0, 0, 30, 40)))
    with pytest.raises(ImageError, match=r"b\.tif: expected a PNG, JPEG, .* file, found a web page or XML"):
        opened(tmp_path)


@pytest.mark.parametrize(
    ("feature", "found"),
    [
        (area([[0, 0], [1, 1]]), "requires at least 4 coordinates"),
        (area([[0, 0], [1, 1], ["x", 2], [0, 0]]), "feature 1: expected a geometry as in RFC 7946"),
        (area([[0, 0], [1, float("inf")], [1, 2], [0, 0]]), "coordinates that are not finite"),
        ({"type": "Feature", "geometry": {"type": "Curve", "coordinates": []}}, "type: 'curve'"),
        ({"type": "Feature", "geometry": {"coordinates": []}}, "found a malformed one"),
        ("text", "found a malformed one"),
        (area(5), "found a malformed one"),
    ],
)
def test_malformed_features_are_errors(tmp_path: Path, feature: Any, found: str) -> None:
    raster(tmp_path / "a.tif")
    vector(tmp_path / "x.geojson", feature)
    with pytest.raises(MaskError, match=rf"x\.geojson: feature 1: .*{found}|{found}"):
        opened(tmp_path)


def test_other_json_is_not_read_and_malformed_json_is_an_error(tmp_path: Path) -> None:
    two(tmp_path, {}, {})
    (tmp_path / "notes.json").write_text('{"shapes": 1}')
    opened(tmp_path)
    (tmp_path / "y.geojson").write_text("{")
    with pytest.raises(MaskError, match=r"y\.geojson: expected a JSON file"):
        opened(tmp_path)
    assert len(opened(tmp_path, annotations="x.geojson").train) == 2


def test_images_other_than_geotiffs_are_problems(tmp_path: Path) -> None:
    two(tmp_path, {}, {})
    (tmp_path / "preview.png").touch()
    with pytest.raises(PairingError, match=r"image that is not a GeoTIFF: 1 \(preview\.png\)"):
        opened(tmp_path)


# Detection -------------------------------------------------------------------------------------------------------------


def test_detection(tmp_path: Path) -> None:
    two(tmp_path / "a", {}, {})
    kind, why = find_format(DatasetRoot(tmp_path / "a", tmp_path / "a", DataConfig()))
    assert (kind.name, why) == ("geojson", "x.geojson has features")
    vector(tmp_path / "b/x.geojson", area(box(0, 0, 1, 1)))
    (tmp_path / "b/a.png").touch()
    assert FORMATS["geojson"].detect(DatasetRoot(tmp_path / "b", tmp_path / "b", DataConfig())) is None


def test_the_type_can_come_last_in_the_file(tmp_path: Path) -> None:
    raster(tmp_path / "a.tif")
    plain = {"features": [area(box(5, 5, 25, 20))] * 60, "type": "FeatureCollection"}
    (tmp_path / "x.geojson").write_text(json.dumps(plain))
    assert FORMATS["geojson"].detect(DatasetRoot(tmp_path, tmp_path, DataConfig())) == "x.geojson has features"


def test_rasters_and_blocks_are_converted(tmp_path: Path) -> None:
    for many in (1, 2):
        root = tmp_path / str(many)
        for k in range(many):
            raster(root / "in" / f"{k}.tif", nodata=7)
        vector(root / "in/x.geojson", area(box(5, 5, 55, 35)))
        (root / "out").mkdir()
        done = convert(opened(root / "in"), FORMATS["masks"], root / "out")
        assert (done.images, done.changed_pixels) == (9 if many == 1 else 2, 0)


def test_real_buildings_match_gdal(real: Any) -> None:
    root = real("geotiff")
    with pytest.raises(PairingError, match=r"2 \(RGB\.byte\.tif, pan1\.tif\)") as error:
        open_data(DataConfig(), root)
    assert error.value.do == "List the annotated rasters: --set 'data.images=sample_geotiff.tif'."
    splits = opened(root, images="sample_geotiff.tif")
    assert splits.labels.names == ("background", "building")
    plain = json.loads((root / "geotiff_labels.geojson").read_text())
    with rasterio.open(root / "sample_geotiff.tif", driver="GTiff") as file:
        gdal = rasterize([one["geometry"] for one in plain["features"]], out_shape=file.shape, transform=file.transform)
    np.testing.assert_array_equal(full_masks(splits)["sample_geotiff.tif"], gdal)
