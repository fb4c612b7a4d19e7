"""The georeference of GeoTIFFs, compared with GDAL, and their validity."""

import importlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import tifffile
from affine import Affine

from pixelwise.config import DataConfig
from pixelwise.datasets.dataset import open_data
from pixelwise.errors import ImageError, MaskError, PairingError
from pixelwise.formats.reading import read_record_image, require_pair
from pixelwise.formats.records import Record
from pixelwise.formats.vector_features import crs_name, transformer
from pixelwise.grid import Grid
from pixelwise.imageio.georeference import read_grid
from pixelwise.imageio.images import fill_invalid, read_header, read_image, read_size, read_with_validity

NORTH_UP = Affine(0.5, 0, 733601, 0, -0.5, 3725139)
OWN = "+proj=tmerc +lat_0=48 +lon_0=11.5 +k=1 +x_0=0 +y_0=0 +ellps=GRS80 +units=m"


def write(path: Path, array: np.ndarray, transform: Affine = NORTH_UP, crs: Any = "EPSG:32616", **profile: Any) -> Path:
    array = array if array.ndim == 3 else array[np.newaxis]
    bands, height, width = array.shape
    with rasterio.open(
        path, "w", driver="GTiff", width=width, height=height, count=bands, dtype=array.dtype, crs=crs,
        transform=transform, **profile,
    ) as file:  # fmt: skip
        file.write(array)
    return path


def corner(gdal: Affine, x: float, y: float) -> tuple[float, float]:
    """Apply a geotransform as GDAL defines it."""
    return gdal.a * x + gdal.b * y + gdal.c, gdal.d * x + gdal.e * y + gdal.f


ZEROS = np.zeros((6, 8), np.uint8)


@pytest.mark.parametrize(
    ("transform", "crs", "unit"),
    [
        (NORTH_UP, "EPSG:32616", "m"),
        (Affine(10, 0, 399960, 0, -20, 5100000), "EPSG:32633", "m"),
        (NORTH_UP @ Affine.rotation(30) @ Affine.shear(5), "EPSG:32616", "m"),
        (Affine(1e-4, 0, -84.5, 0, -1e-4, 33.6), "EPSG:4326", "deg"),
        (Affine(1, 0, 984000, 0, -1, 205000), "EPSG:2263", "us-ft"),
        (Affine(30, 0, 0, 0, -30, 0), OWN, "m"),
    ],
    ids=["utm", "oblong pixels", "rotated", "degrees", "feet", "own system"],
)
@pytest.mark.parametrize("meaning", ["Area", "Point"])
def test_pixel_positions_equal_those_of_gdal(
    tmp_path: Path, transform: Affine, crs: str, unit: str, meaning: str
) -> None:
    path = write(tmp_path / "a.tif", ZEROS, transform, crs, tiled=False)
    with rasterio.open(path, "r+", driver="GTiff") as file:
        file.update_tags(AREA_OR_POINT=meaning)
    with rasterio.open(path, driver="GTiff") as file:
        gdal, code = file.transform, file.crs.to_epsg()
    grid = read_image(path)[1]
    assert (grid.unit, grid.calibration) == (unit, "GeoTransform")
    assert grid.crs == (f"EPSG:{code}" if crs != OWN else None)
    assert grid.pixel_size == pytest.approx(abs(gdal.determinant))
    assert grid.spacing == pytest.approx((np.hypot(gdal.b, gdal.e), np.hypot(gdal.a, gdal.d)))
    for row, column in ((0, 0), (5, 7), (2, 3)):
        world = grid.to_world(np.array([[row, column]]))[0]
        np.testing.assert_allclose(world, corner(gdal, column + 0.5, row + 0.5), rtol=1e-12)


def test_files_without_georeference_have_a_grid_of_pixels(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "plain.tif", ZEROS)
    assert read_image(tmp_path / "plain.tif")[1] == Grid()
    with pytest.warns(rasterio.errors.NotGeoreferencedWarning):
        write(tmp_path / "no_place.tif", ZEROS, Affine.identity(), None)
    assert read_image(tmp_path / "no_place.tif")[1] == Grid()
    write(tmp_path / "no_system.tif", ZEROS, crs=None)
    assert read_image(tmp_path / "no_system.tif")[1] == Grid(), "without a system, 0.5 may be metres or feet"


def test_the_sign_of_the_pixel_scale_is_ignored_as_in_gdal(tmp_path: Path) -> None:
    keys = (1, 1, 0, 3, 1024, 0, 1, 1, 3072, 0, 1, 32616, 3076, 0, 1, 9001)
    place = ((33550, "d", 3, (0.5, -0.5, 0.0)), (33922, "d", 6, (0, 0, 0, 100.0, 200.0, 0)), (34735, "H", 16, keys))
    tifffile.imwrite(tmp_path / "a.tif", ZEROS, extratags=[(*tag, True) for tag in place])
    with rasterio.open(tmp_path / "a.tif", driver="GTiff") as file:
        expected = corner(file.transform, 4.5, 2.5)
    np.testing.assert_allclose(read_image(tmp_path / "a.tif")[1].to_world(np.array([[2.0, 4]]))[0], expected)


@pytest.mark.parametrize(
    "broken", [(), (1, 1, 0, 9), (1, 1, 0, 1, 1024, 0, 1), ("x",), (1, 1, 0, 2, 1024, 0, 1, 7, 0, 0, 0, 0)]
)
def test_a_broken_georeference_is_ignored(broken: tuple[Any, ...]) -> None:
    class Tag:
        def __init__(self, value: Any) -> None:
            self.value = value

    tags = {34735: Tag(broken), 33550: Tag((0.5, 0.5, 0)), 33922: Tag((0, 0, 0, 1, 2, 0))}
    assert read_grid(tags) is None
    whole = (1, 1, 0, 3, 1024, 0, 1, 1, 3072, 0, 1, 32616, 3076, 0, 1, 9001)
    assert read_grid(tags | {34735: Tag(whole)}) is not None
    for odd in ((0, 0, 0), (float("nan"), 1, 0), ("a", "b", "c"), ()):
        assert read_grid(tags | {34735: Tag(whole), 33550: Tag(odd)}) is None


def test_a_unit_that_the_file_omits_is_looked_up(monkeypatch: pytest.MonkeyPatch) -> None:
    class Tag:
        def __init__(self, *value: Any) -> None:
            self.value = value

    tags = {34735: Tag(1, 1, 0, 2, 1024, 0, 1, 1, 3072, 0, 1, 2263), 33550: Tag(2, 2, 0), 33922: Tag(0, 0, 0, 1, 2, 0)}
    grid = read_grid(tags)
    assert grid is not None
    assert (grid.unit, grid.spacing) == ("us-ft", (2, 2))
    monkeypatch.setitem(__import__("sys").modules, "pyproj", None)
    assert read_grid(tags) is None


# Nodata ----------------------------------------------------------------------------------------------------------------


def test_integers_are_valid_where_any_band_is_not_nodata(tmp_path: Path) -> None:
    array = np.full((3, 2, 3), 7, np.uint8)
    array[:, 0, 0] = 0
    array[0, 1, 1] = 0
    path = write(tmp_path / "a.tif", array, nodata=0)
    assert read_header(path).nodata == 0
    image, _, valid = read_with_validity(path)
    np.testing.assert_array_equal(valid, [[False, True, True], [True, True, True]])
    np.testing.assert_array_equal(image, array)
    with rasterio.open(path, driver="GTiff") as file:
        np.testing.assert_array_equal(valid, file.dataset_mask() > 0)
    both = read_with_validity(path, nodata=7)[2]
    np.testing.assert_array_equal(both, (array != 0).any(axis=0) & (array != 7).any(axis=0))


@pytest.mark.parametrize("nodata", [float("nan"), -9999.0, -3.4028234663852886e38])
def test_floats_are_valid_where_no_band_is_nodata_and_keep_their_values(tmp_path: Path, nodata: float) -> None:
    array = np.arange(12, dtype=np.float32).reshape(2, 2, 3) + 5
    array[0, 0, 0] = array[1, 1, 2] = nodata
    path = write(tmp_path / "a.tif", array, nodata=nodata)
    image, _, valid = read_with_validity(path)
    assert valid is not None
    np.testing.assert_array_equal(valid, [[False, True, True], [True, True, False]])
    np.testing.assert_array_equal(image, array)
    filled = fill_invalid(image, valid)
    assert filled[:, 0, 0].tolist() == [6, 12]
    assert filled[:, 1, 2].tolist() == [6, 12]
    assert fill_invalid(image, valid, (1.5, 2))[:, 0, 0].tolist() == [1.5, 2]
    image, _, valid = read_with_validity(
        write(tmp_path / "b.tif", np.full((1, 2, 2), nodata, np.float32), nodata=nodata)
    )
    assert valid is not None
    assert not valid.any()
    assert not fill_invalid(image, valid).any()


def test_a_nodata_value_outside_of_the_type_matches_no_pixel(tmp_path: Path) -> None:
    path = write(tmp_path / "a.tif", ZEROS)
    for nodata in (-9999.0, 0.5, 300.0, float("inf"), float("nan")):
        assert read_with_validity(path, nodata)[2] is None


def test_nodata_is_compared_with_stored_values(tmp_path: Path) -> None:
    nodata = [(42113, "s", 0, "2", True)]
    stored = np.array([[0, 1, 2], [2, 3, 3]], np.uint8)
    white = np.full((3, 256), 65535, np.uint16)
    tifffile.imwrite(tmp_path / "palette.tif", stored, photometric="palette", colormap=white, extratags=nodata)
    tifffile.imwrite(tmp_path / "inverted.tif", stored, photometric="miniswhite", extratags=nodata)
    tifffile.imwrite(tmp_path / "4bit.tif", stored, photometric="minisblack", bitspersample=4, extratags=nodata)
    for name in ("palette", "inverted", "4bit"):
        image, _, valid = read_with_validity(tmp_path / f"{name}.tif")
        np.testing.assert_array_equal(valid, stored != 2, name)
        assert image.shape[1:] == (2, 3)


@pytest.mark.parametrize("compress", ["none", "deflate"])
def test_an_internal_mask_marks_invalid_pixels(tmp_path: Path, compress: str) -> None:
    shown = np.ones((64, 64), bool)
    shown[:, :10] = False
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True):
        path = write(tmp_path / "a.tif", np.full((2, 64, 64), 5, np.uint8), compress=compress)
        with rasterio.open(path, "r+") as file:
            file.write_mask(shown)
            file.build_overviews([2, 4])
    image, _, valid = read_with_validity(path)
    np.testing.assert_array_equal(valid, shown)
    assert (image == 5).all()
    assert not path.with_name("a.tif.msk").exists()


def test_alpha_marks_invalid_pixels_of_a_georeferenced_file_only(tmp_path: Path) -> None:
    bands = np.full((4, 5, 6), 200, np.uint8)
    bands[3] = 255
    bands[3, 0] = 0
    path = write(tmp_path / "a.tif", bands, photometric="RGB", alpha="yes")
    image, _, valid = read_with_validity(path)
    np.testing.assert_array_equal(valid, bands[3] > 0)
    assert (image.shape, image[:, 0].max(), image[:, 1:].min()) == ((3, 5, 6), 0, 200)
    cut_out = tmp_path / "cut_out.tif"
    tifffile.imwrite(cut_out, np.moveaxis(bands, 0, -1), photometric="rgb", extrasamples=["unassalpha"])
    composited, _, valid = read_with_validity(cut_out)
    np.testing.assert_array_equal(composited, image)
    assert valid is None


def test_nan_in_valid_pixels_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "a.tif", np.full((2, 2), np.nan, np.float32))
    with pytest.raises(ImageError, match="found 4 NaN pixels"):
        read_image(path)
    gap = write(tmp_path / "b.tif", np.array([[np.nan, -9999, 1]], np.float32), nodata=-9999)
    with pytest.raises(ImageError, match="found 1 NaN pixel"):
        read_image(gap)


# Windows and pairs ------------------------------------------------------------------------------------------------------


def test_a_window_keeps_its_position(tmp_path: Path) -> None:
    array = np.arange(48, dtype=np.uint8).reshape(6, 8)
    path = write(tmp_path / "a.tif", array, NORTH_UP @ Affine.rotation(20), nodata=20)
    whole = read_record_image(Record("a", path, None))[1]
    image, grid, valid = read_record_image(Record("a/1", path, None, window=(2, 3, 4, 5)))
    np.testing.assert_array_equal(image[0], array[2:6, 3:8])
    assert valid is not None
    assert (~valid).nonzero() == (np.array([0]), np.array([1]))
    np.testing.assert_allclose(grid.to_world(np.array([[1.0, 2]])), whole.to_world(np.array([[3.0, 5]])))
    assert read_size(path) == (1, 6, 8)


def test_a_mask_with_another_georeference_is_refused(tmp_path: Path) -> None:
    image, mask = write(tmp_path / "a.tif", ZEROS), write(tmp_path / "m.tif", ZEROS)
    require_pair(Record("a", image, mask))
    moved = write(tmp_path / "moved.tif", ZEROS, NORTH_UP @ Affine.translation(1, 0))
    with pytest.raises(PairingError, match=r"moved\.tif: expected a\.tif's affine .*Resample the mask"):
        require_pair(Record("a", image, moved))
    other = write(tmp_path / "other.tif", ZEROS, crs="EPSG:32617")
    with pytest.raises(PairingError, match=r"other\.tif: expected a\.tif's crs EPSG:32616, found EPSG:32617"):
        require_pair(Record("a", image, other))
    tifffile.imwrite(tmp_path / "plain.tif", ZEROS)
    require_pair(Record("a", image, tmp_path / "plain.tif"))


def test_pairs_in_folders_must_have_the_same_georeference(tmp_path: Path) -> None:
    truth = np.eye(6, 8, dtype=np.uint8)
    for folder, array in (("images", ZEROS), ("masks", truth)):
        (tmp_path / folder).mkdir()
        for name in "abc":
            write(tmp_path / folder / f"{name}.tif", array)
    config = DataConfig.model_validate({"labels": ["ground", "field"], "split": {"val": 0}})
    part = open_data(config, tmp_path).train
    assert part is not None
    sample = part.read(0)
    assert (sample.grid.crs, sample.grid.unit, sample.grid.spacing) == ("EPSG:32616", "m", (0.5, 0.5))
    np.testing.assert_array_equal(sample.mask, truth)
    write(tmp_path / "masks" / "b.tif", truth, NORTH_UP @ Affine.translation(1, 0))
    with pytest.raises(PairingError, match=r"masks/b\.tif: expected b\.tif's affine .*Resample the mask"):
        open_data(config, tmp_path)
    splits = open_data(config.model_copy(update={"skip_bad": True}), tmp_path)
    assert splits.train is not None
    assert [record.id for record in splits.train.records] == ["a", "c"]
    assert len(splits.skipped) == 1


@pytest.mark.parametrize("nodata", [float("nan"), -9999.0])
def test_pixels_without_data_are_ignored_in_folders(tmp_path: Path, nodata: float) -> None:
    array = np.random.default_rng(0).random((1, 6, 8)).astype(np.float32)
    array[0, 2:4, 3] = nodata
    (tmp_path / "images").mkdir()
    (tmp_path / "masks").mkdir()
    for name in "abc":
        write(tmp_path / "images" / f"{name}.tif", array, nodata=nodata)
        write(tmp_path / "masks" / f"{name}.tif", np.eye(6, 8, dtype=np.uint8))
    part = open_data(DataConfig.model_validate({"labels": ["ground", "field"], "split": {"val": 0}}), tmp_path).train
    assert part is not None
    sample = part.read(0)
    expected = np.eye(6, 8, dtype=np.uint8)
    np.testing.assert_array_equal(sample.mask, expected)
    expected[2:4, 3] = part.labels.ignore_index
    np.testing.assert_array_equal(sample.truth(part.labels.ignore_index), expected)
    np.testing.assert_array_equal(sample.image, array)


# Reference systems ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("urn:ogc:def:crs:EPSG::32616", "EPSG:32616"),
        ("urn:ogc:def:crs:EPSG:6.9:4326", "EPSG:4326"),
        ("EPSG:25832", "EPSG:25832"),
        ("urn:ogc:def:crs:OGC:1.3:CRS84", "EPSG:4326"),
        ("OGC:CRS84", "EPSG:4326"),
        ("CRS84", "EPSG:4326"),
        ("ESRI:54009", "ESRI:54009"),
        ("+proj=longlat +nadgrids=/etc/passwd", None),
        ("/etc/passwd", None),
        ("http://example.org/crs", None),
        ("none", None),
    ],
)
def test_crs_names_are_normalised(name: str, code: str | None) -> None:
    assert crs_name(name) == code


def test_points_are_transformed_with_x_before_y() -> None:
    transform, describe_accuracy = transformer("EPSG:4326", "EPSG:32616", "a.geojson")
    # The central meridian of zone 16 is 87° west: 500 km east by definition.
    x, y = transform(np.array([[-87.0, 0.0]]))[0]
    assert (x, y) == pytest.approx((500_000, 0), abs=1e-3)
    assert describe_accuracy() == ""
    same = np.array([[1.0, 2.0]])
    assert transformer("EPSG:32616", "EPSG:32616", "a.geojson")[0](same) is same


def test_datum_shifts_have_an_accuracy() -> None:
    transform, describe_accuracy = transformer("EPSG:4267", "EPSG:32616", "a.geojson")
    assert np.isfinite(transform(np.array([[-87.0, 35.0]]))).all()
    assert describe_accuracy().startswith(", accurate to ")


def test_systems_without_a_known_transformation_are_errors() -> None:
    with pytest.raises(MaskError, match=r"a\.geojson: expected a transformation from IAU_2015:30100 to EPSG:32616"):
        transformer("IAU_2015:30100", "EPSG:32616", "a.geojson")
    with pytest.raises(MaskError, match="expected a transformation from EPSG:999999"):
        transformer("EPSG:999999", "EPSG:32616", "a.geojson")


def test_a_missing_package_is_named_with_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> None:
        raise ImportError(name)

    monkeypatch.setattr(importlib, "import_module", missing)
    with pytest.raises(ImageError, match=r"expected the package pyproj.* pip install 'pixelwise\[geo\]'"):
        transformer("EPSG:4326", "EPSG:32616", "a.geojson")
    assert transformer("EPSG:1", "EPSG:1", "a")[1]() == ""


def test_real_rasters_have_the_positions_of_gdal(real: Any) -> None:
    paths = sorted(real("geotiff").glob("*.tif"))
    assert len(paths) == 3
    for path in paths:
        grid = read_image(path)[1]
        with rasterio.open(path, driver="GTiff") as file:
            assert (grid.crs, read_header(path).nodata) == (file.crs.to_string(), file.nodata)
            np.testing.assert_allclose(
                grid.to_world(np.array([[9.0, 4]]))[0], corner(file.transform, 4.5, 9.5), rtol=1e-12
            )
