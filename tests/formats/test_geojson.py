"""GeoTIFFs with features in GeoJSON: painted where GDAL paints them, and nothing taken for labelled that was not."""

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
from pixelwise.formats.dataset_root import Place
from pixelwise.formats.geo_features import read_features

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
    """Give a ring around pixels, in the world of `raster`."""
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


def whole(splits: DataSplits) -> dict[str, np.ndarray]:
    """Give the masks of all rasters, pieces put together."""
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


# Where they are painted ------------------------------------------------------------------------------------------------


def test_polygons_with_holes_and_of_several_parts_cover_the_pixels_they_surround(tmp_path: Path) -> None:
    raster(tmp_path / "a.tif")
    raster(tmp_path / "b.tif", top=TOP - 10 * PIXEL)
    vector(
        tmp_path / "x.geojson",
        area(box(5, 5, 25, 20), box(10, 8, 15, 12), kind="Polygon"),
        area([box(30, 20, 34, 24)], [box(40, 30, 50, 35), box(42, 31, 44, 33)], kind="MultiPolygon"),
        area([box(55, 0, 58, 4), box(56, 1, 57, 2)], [box(56, 1, 57, 2)], kind="MultiPolygon"),  # a part in a hole
    )
    masks = whole(opened(tmp_path))
    wanted = np.zeros(SIZE, np.uint8)
    wanted[5:20, 5:25] = 1
    wanted[8:12, 10:15] = 0
    wanted[20:24, 30:34] = wanted[30:35, 40:50] = 1
    wanted[31:33, 42:44] = 0
    wanted[0:4, 55:58] = 1
    np.testing.assert_array_equal(masks["a.tif"], wanted)
    np.testing.assert_array_equal(masks["b.tif"][:30], wanted[10:])
    assert not masks["b.tif"][30:].any()


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck), database=None)
@given(
    st.lists(st.tuples(st.integers(-20, 140), st.integers(-20, 100)), min_size=3, max_size=8, unique=True),
    st.sampled_from([0.0, 17.0, 90.0, 200.0]),
)
def test_pixels_are_those_that_gdal_paints(tmp_path_factory: Any, corners: Any, angle: float) -> None:
    # Both take the centre of a pixel, and differ in where they put one that lies on an edge: so no corner is near one.
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
    assert (whole(opened(root, images="a.tif"))["a.tif"] != gdal).sum() <= 2


def test_features_in_longitudes_and_latitudes_are_carried_over(tmp_path: Path) -> None:
    raster(tmp_path / "a.tif")
    raster(tmp_path / "b.tif")
    back = Transformer.from_crs(UTM, "EPSG:4326", always_xy=True)
    ring = [list(back.transform(x, y)) for x, y in box(10, 5, 40, 30)]
    vector(tmp_path / "x.geojson", area(ring), crs=None)
    splits = opened(tmp_path)
    mask = whole(splits)["a.tif"]
    wanted = np.zeros(SIZE, np.uint8)
    wanted[5:30, 10:40] = 1
    assert (mask != wanted).sum() <= 2 * (25 + 30)
    assert (mask[6:29, 11:39] == 1).all()
    assert "features in EPSG:4326 are carried into EPSG:32616" in splits.notices


def test_long_edges_follow_the_curve_that_straight_lines_become(tmp_path: Path) -> None:
    # Thirty kilometres along a parallel in pixels of 30 m: the middle of the edge lies four pixels off a straight line.
    transform = Affine(30, 0, 300_000, 0, -30, 6_700_000)
    raster(tmp_path / "a.tif", (400, 1200), transform=transform)
    back = Transformer.from_crs(UTM, "EPSG:4326", always_xy=True)
    west, east, north, south = *back.transform(301_000, 6_695_000), *back.transform(334_000, 6_690_000)
    (west, north), (east, south) = back.transform(301_000, 6_695_000), back.transform(334_000, 6_690_000)
    ring = [[west, north], [east, north], [east, south], [west, south], [west, north]]
    vector(tmp_path / "x.geojson", area(ring), crs=None)
    mask = whole(opened(tmp_path, images="a.tif"))["a.tif"]
    rows, columns = np.mgrid[:400, :1200] + 0.5
    x, y = back.transform(300_000 + 30 * columns, 6_700_000 - 30 * rows)
    exact = (x > west) & (x < east) & (y > south) & (y < north)
    assert (mask != exact).sum() < 0.002 * exact.sum()


def test_features_beyond_every_raster_and_without_area_are_told_with_their_number(tmp_path: Path) -> None:
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
    assert "2 of 3 features lie on no raster and are left out (x.geojson)" in notices
    assert "3 features are points, lines or empty and cover no pixels (x.geojson)" in notices


# What is labelled ------------------------------------------------------------------------------------------------------


def test_rasters_among_the_features_hold_background_and_those_far_away_are_asked(tmp_path: Path) -> None:
    for k, name in enumerate(("a", "b", "c")):
        raster(tmp_path / f"{name}.tif", left=LEFT + 30 * k)
    vector(tmp_path / "x.geojson", area(box(1, 1, 5, 5)), area(box(130, 1, 135, 5)))
    splits = opened(tmp_path)
    assert {name: bool(mask.any()) for name, mask in whole(splits).items()} == {"a.tif": 1, "b.tif": 0, "c.tif": 1}
    assert any("no feature lies on b.tif: 1 of 3 rasters hold background only" in told for told in splits.notices)
    raster(tmp_path / "far.tif", left=LEFT + 5000)
    found = r"raster without a feature anywhere near: 1 \(far\.tif\)"
    with pytest.raises(PairingError, match=found) as error:
        opened(tmp_path)
    assert error.value.do == "Name those that are labelled: --set 'data.images=[a.tif, b.tif, c.tif]'."
    told = "1 of 4 rasters lie far from all features: Name those that are labelled: --set 'data.images=[a.tif, b.tif, c.tif]'"
    assert told in opened(tmp_path, skip_bad=True).notices
    assert len(opened(tmp_path, images=["a.tif", "b.tif", "c.tif"]).train) == 3
    assert opened(tmp_path, skip_bad=True).skipped == ("far.tif: raster without a feature anywhere near",)
    assert len(opened(tmp_path, images="*.tif").train) == 4, "who names it says that it was looked at"


def test_a_raster_with_an_empty_vector_file_of_its_name_holds_background(tmp_path: Path) -> None:
    raster(tmp_path / "img1.tif")
    raster(tmp_path / "img2.tif", left=LEFT + 9000)
    vector(tmp_path / "geo/img1.geojson", area(box(1, 1, 5, 5)))
    vector(tmp_path / "geo/img2.geojson")
    split = opened(tmp_path).train
    assert [(record.id, record.mask.name) for record in split.records] == [
        ("img1", "img1.geojson"),
        ("img2", "img2.geojson"),
    ]


def test_pixels_without_data_count_in_nothing(tmp_path: Path) -> None:
    array = np.ones((3, *SIZE), np.uint8)
    array[:, :10] = 0
    array[0, 10:20] = 0  # a dark colour, but one
    raster(tmp_path / "a.tif", array=array, nodata=0)
    raster(tmp_path / "b.tif", array=array)
    vector(tmp_path / "x.geojson", area(box(0, 0, 60, 40)))
    masks = whole(opened(tmp_path))
    assert (masks["a.tif"][:10] == 255).all()
    assert (masks["a.tif"][10:] == 1).all()
    assert (masks["b.tif"] == 1).all()


def test_rasters_of_fractions_with_nan_for_nodata_are_read(tmp_path: Path) -> None:
    array = np.ones((1, *SIZE), np.float32)
    array[0, :10] = np.nan
    for name in "ab":
        raster(tmp_path / f"{name}.tif", array=array, nodata=np.nan)
    vector(tmp_path / "x.geojson", area(box(0, 0, 60, 40)))
    sample = opened(tmp_path).train.read(0)
    np.testing.assert_array_equal(np.isfinite(sample.image[0]), sample.valid)
    assert (sample.truth(255)[:10] == 255).all()


def test_one_raster_is_divided_into_blocks_with_a_notice(tmp_path: Path) -> None:
    raster(tmp_path / "a.tif")
    vector(tmp_path / "x.geojson", area(box(5, 5, 55, 35)))
    splits = opened(tmp_path, split={"val": 0.2})
    assert {split.name: len(split) for split in splits} == {"train": 7, "val": 2}
    wanted = np.zeros(SIZE, np.uint8)
    wanted[5:35, 5:55] = 1
    np.testing.assert_array_equal(whole(splits)["a.tif"], wanted)
    assert any("there is one raster only, so it is divided into 3×3 blocks" in told for told in splits.notices)
    sample, record = splits.train.read(0), splits.train.records[0]
    top, left, height, width = record.window
    assert sample.image.shape == (1, height, width)
    world = sample.grid.to_world(np.array([[0.0, 0.0]]))[0]
    assert world.tolist() == [LEFT + (left + 0.5) * PIXEL, TOP - (top + 0.5) * PIXEL]


def test_parts_are_told_by_folders(tmp_path: Path) -> None:
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


def test_a_property_that_all_have_names_the_classes_and_later_features_lie_on_top(tmp_path: Path) -> None:
    splits = two(tmp_path, {"Class": "road", "name": "x"}, {"Class": "field", "name": "y"})
    assert splits.labels.names == ("background", "field", "road")
    assert whole(splits)["a.tif"][0, [0, 19, 20, 59]].tolist() == [2, 2, 1, 1]
    assert any("the property 'Class' names the classes (field, road)" in told for told in splits.notices)
    assert opened(tmp_path, ignored=["road"]).labels.names == ("background", "field")
    assert whole(opened(tmp_path, ignored=["road"]))["a.tif"][0, 0] == 255
    assert opened(tmp_path, attribute="name").labels.names == ("background", "x", "y")
    assert opened(tmp_path, unlabelled="ignore").labels.names == ("field", "road")


def test_numbers_are_names_too(tmp_path: Path) -> None:
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
def test_without_such_a_property_all_features_are_one_class(
    tmp_path: Path, first: dict[str, Any], second: dict[str, Any], only: str
) -> None:
    splits = two(tmp_path, first, second, "fields")
    assert splits.labels.names == ("background", only)


def test_a_class_that_some_features_lack_is_asked_for(tmp_path: Path) -> None:
    with pytest.raises(
        MaskError, match=r"expected a class for every feature, as its property 'Class', found 1 of 2 without"
    ):
        two(tmp_path, {"Class": "a", "crop": None}, {"Class": None})


def test_a_property_that_is_asked_for_must_be_there(tmp_path: Path) -> None:
    two(tmp_path, {"crop": "rice", "use": 1}, {"crop": "rye"})
    with pytest.raises(
        MaskError, match=r"data\.attribute: expected features with the property 'use', found 1 of 2.* crop"
    ):
        opened(tmp_path, attribute="use")
    with pytest.raises(MaskError, match="found none"):
        opened(tmp_path, attribute="nothing")


# What is refused -------------------------------------------------------------------------------------------------------


def test_features_that_lie_on_no_raster_at_all_are_an_error(tmp_path: Path) -> None:
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
        ("urn:ogc:def:crs:IAU_2015::30100", "expected a known way from IAU_2015:30100 to EPSG:32616"),
        ("+proj=utm +zone=16 +nadgrids=/etc/passwd", "expected a coordinate reference system by its code"),
        ("", "found crs ''"),
    ],
)
def test_a_system_that_is_missing_or_unknown_is_an_error(tmp_path: Path, crs: str | None, found: str) -> None:
    raster(tmp_path / "a.tif")
    vector(tmp_path / "x.geojson", area(box(0, 0, 30, 40)), crs=crs)
    with pytest.raises(MaskError, match=found):
        opened(tmp_path)


def test_a_system_that_is_null_is_unknown_and_the_old_form_is_understood(tmp_path: Path) -> None:
    plain: dict[str, Any] = {"type": "FeatureCollection", "features": [], "crs": None}
    with pytest.raises(MaskError, match="found crs 'none'"):
        read_features(tmp_path / "x", plain)
    assert read_features(tmp_path / "x", plain | {"crs": {"type": "EPSG", "properties": {"code": 32616}}}).crs == UTM


def test_a_raster_without_a_place_stops_or_is_left_out(tmp_path: Path) -> None:
    raster(tmp_path / "a.tif")
    raster(tmp_path / "b.tif")
    raster(tmp_path / "c.tif", crs=None)
    vector(tmp_path / "x.geojson", area(box(0, 0, 30, 40)))
    with pytest.raises(ImageError, match=r"c\.tif: expected a GeoTIFF with a coordinate reference system.* gdal_edit"):
        opened(tmp_path)
    assert len(opened(tmp_path, skip_bad=True).skipped) == 1


def test_a_system_without_a_code_is_read_by_gdals_geotiff_driver_alone(tmp_path: Path) -> None:
    own = "+proj=tmerc +lat_0=33 +lon_0=-84 +k=1 +x_0=0 +y_0=0 +datum=WGS84 +units=m"
    for k in "ab":
        raster(tmp_path / f"{k}.tif", left=0, top=0, crs=own)
    carry = Transformer.from_crs(rasterio.crs.CRS.from_string(own).to_wkt(), "EPSG:4326", always_xy=True)
    ring = [list(carry.transform((x - LEFT), (y - TOP))) for x, y in box(10, 10, 30, 30)]
    vector(tmp_path / "x.geojson", area(ring), crs="EPSG:4326")
    mask = whole(opened(tmp_path))["a.tif"]
    assert abs(int(mask.sum()) - 400) <= 40
    assert (mask[11:29, 11:29] == 1).all()


def test_no_shift_to_a_datum_that_nobody_knows_is_made_up(tmp_path: Path) -> None:
    raster(tmp_path / "a.tif", left=0, top=0, crs="+proj=tmerc +lat_0=33 +lon_0=-84 +ellps=GRS80 +units=m")
    vector(tmp_path / "x.geojson", area(box(0, 0, 30, 40)))
    with pytest.raises(
        MaskError, match=r"expected a known way from EPSG:32616 to PROJCS.*found none\. Save the features"
    ):
        opened(tmp_path)


def test_a_virtual_raster_that_is_called_tif_is_never_opened_as_one(tmp_path: Path) -> None:
    raster(tmp_path / "a.tif")
    (tmp_path / "b.tif").write_text('<VRTDataset rasterXSize="60" rasterYSize="40"></VRTDataset>')
    vector(tmp_path / "x.geojson", area(box(0, 0, 30, 40)))
    with pytest.raises(ImageError, match=r"b\.tif: expected a PNG, JPEG, TIFF or WebP file, found a web page or XML"):
        opened(tmp_path)


@pytest.mark.parametrize(
    ("feature", "found"),
    [
        (area([[0, 0], [1, 1]]), "a ring of fewer than four points"),
        (area([[0, 0], [1, 1], ["x", 2], [0, 0]]), "feature 1: expected a geometry as in RFC 7946"),
        (area([[0, 0], [1, float("inf")], [1, 2], [0, 0]]), "points that are no numbers"),
        (area([], kind="MultiPolygon"), "a polygon without rings"),
        ({"type": "Feature", "geometry": {"type": "Curve", "coordinates": []}}, "type 'Curve'"),
        ({"type": "Feature", "geometry": {"coordinates": []}}, "cannot be read"),
        ("text", "cannot be read"),
        (area(5), "cannot be read"),
    ],
)
def test_broken_features_are_named(tmp_path: Path, feature: Any, found: str) -> None:
    raster(tmp_path / "a.tif")
    vector(tmp_path / "x.geojson", feature)
    with pytest.raises(MaskError, match=rf"x\.geojson: feature 1: .*{found}|{found}"):
        opened(tmp_path)


def test_other_json_is_passed_over_and_broken_json_is_named(tmp_path: Path) -> None:
    two(tmp_path, {}, {})
    (tmp_path / "notes.json").write_text('{"shapes": 1}')
    opened(tmp_path)
    (tmp_path / "y.geojson").write_text("{")
    with pytest.raises(MaskError, match=r"y\.geojson: expected a JSON file"):
        opened(tmp_path)
    assert len(opened(tmp_path, annotations="x.geojson").train) == 2


def test_images_that_are_no_geotiffs_are_told(tmp_path: Path) -> None:
    two(tmp_path, {}, {})
    (tmp_path / "preview.png").touch()
    with pytest.raises(PairingError, match=r"image that is no GeoTIFF: 1 \(preview\.png\)"):
        opened(tmp_path)


# Around ----------------------------------------------------------------------------------------------------------------


def test_features_beside_geotiffs_are_recognised_and_other_places_are_not(tmp_path: Path) -> None:
    two(tmp_path / "a", {}, {})
    kind, why = find_format(Place(tmp_path / "a", tmp_path / "a", DataConfig()))
    assert (kind.name, why) == ("geojson", "x.geojson holds features")
    vector(tmp_path / "b/x.geojson", area(box(0, 0, 1, 1)))
    (tmp_path / "b/a.png").touch()
    assert FORMATS["geojson"].detect(Place(tmp_path / "b", tmp_path / "b", DataConfig())) is None


def test_features_are_recognised_wherever_their_type_stands(tmp_path: Path) -> None:
    raster(tmp_path / "a.tif")
    plain = {"features": [area(box(5, 5, 25, 20))] * 60, "type": "FeatureCollection"}
    (tmp_path / "x.geojson").write_text(json.dumps(plain))
    assert FORMATS["geojson"].detect(Place(tmp_path, tmp_path, DataConfig())) == "x.geojson holds features"


def test_rasters_and_pieces_can_be_written_in_another_format(tmp_path: Path) -> None:
    for many in (1, 2):
        root = tmp_path / str(many)
        for k in range(many):
            raster(root / "in" / f"{k}.tif", nodata=7)
        vector(root / "in/x.geojson", area(box(5, 5, 55, 35)))
        (root / "out").mkdir()
        done = convert(opened(root / "in"), FORMATS["masks"], root / "out")
        assert (done.images, done.changed_pixels) == (9 if many == 1 else 2, 0)


def test_the_real_buildings_are_where_gdal_paints_them(real: Any) -> None:
    root = real("geotiff")
    with pytest.raises(PairingError, match=r"2 \(RGB\.byte\.tif, pan1\.tif\)") as error:
        open_data(DataConfig(), root)
    assert error.value.do == "Name those that are labelled: --set 'data.images=sample_geotiff.tif'."
    splits = opened(root, images="sample_geotiff.tif")
    assert splits.labels.names == ("background", "building")
    plain = json.loads((root / "geotiff_labels.geojson").read_text())
    with rasterio.open(root / "sample_geotiff.tif", driver="GTiff") as file:
        gdal = rasterize([one["geometry"] for one in plain["features"]], out_shape=file.shape, transform=file.transform)
    np.testing.assert_array_equal(whole(splits)["sample_geotiff.tif"], gdal)
