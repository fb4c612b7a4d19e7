"""Which pixels hold data: nodata, masks inside and beside files, and alpha, against GDAL or stored values."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import tifffile
from affine import Affine
from PIL import Image

import pixelwise
from pixelwise.config import DataConfig, read_request
from pixelwise.datasets.dataset import open_data
from pixelwise.errors import ImageError
from pixelwise.formats.reading import read_record_image
from pixelwise.formats.records import Record
from pixelwise.imageio.georeference import parse_nodata
from pixelwise.imageio.images import fill_invalid, read_header, read_image, read_with_validity
from pixelwise.imageio.sources import open_source
from pixelwise.tiles import Window

PLACE = {"transform": Affine(0.5, 0, 733601, 0, -0.5, 3725139), "crs": "EPSG:32616"}
SHAPE = (9, 12)

pytestmark = pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")


def write(path: Path, values: np.ndarray, **profile: Any) -> Path:
    values = values if values.ndim == 3 else values[np.newaxis]
    size = {"count": len(values), "height": values.shape[1], "width": values.shape[2], "dtype": values.dtype}
    with rasterio.open(path, "w", **({"driver": "GTiff"} | size | profile)) as file:
        file.write(values)
    return path


def by_gdal(path: Path) -> np.ndarray:
    with rasterio.open(path) as file:
        mask: np.ndarray = file.dataset_mask() > 0
        return mask


def valid_of(path: Path, nodata: float | None = None) -> np.ndarray:
    image, _, valid = read_with_validity(path, nodata)
    return np.ones(image.shape[1:], bool) if valid is None else valid


# Nodata -----------------------------------------------------------------------------------------------------------------

FLOATS = (
    "-3.4e38", "-3.4028234663852886e+38", "-3.40282346638529e+38", "-3.4028235e+38", "-3.402823e+38", "-1.79769313486231e+308",
    "1e-300", "1e20", "9.96921e+36", "-1e34", "-9999", "-9999.9", "-99999.0000001", "0.1", "0", "nan", "inf", "-inf",
    " -9999 ", "-9999,5", "1.#QNAN", "-1.#IND",
)  # fmt: skip
INTEGERS = (
    "0",
    "255",
    "-1",
    "1e1",
    "255.0",
    "-9999",
    "-32768",
    "65535",
    "65536",
    "2147483647",
    "4294967295",
    "inf",
    "nan",
)
LARGE = ("9223372036854775807", "9007199254740993", "-9223372036854775808", "18446744073709551615")


def _cast(text: str, dtype: str) -> Any:
    value = parse_nodata(text)
    assert value is not None
    if np.dtype(dtype).kind == "f":
        with np.errstate(over="ignore"):
            return np.dtype(dtype).type(value)
    limits = np.iinfo(dtype)
    return int(value) if np.isfinite(value) and limits.min <= value <= limits.max else limits.max


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("text", FLOATS)
def test_nodata_of_floats_is_that_of_gdal(tmp_path: Path, dtype: str, text: str) -> None:
    nodata = _cast(text, dtype)
    stored = np.array([[nodata, 1, 2], [3, nodata, -7]], dtype)
    tifffile.imwrite(tmp_path / "a.tif", stored, extratags=[(42113, "s", 0, text, True)])
    np.testing.assert_array_equal(by_gdal(tmp_path / "a.tif"), [[False, True, True], [True, False, True]])
    np.testing.assert_array_equal(valid_of(tmp_path / "a.tif"), [[False, True, True], [True, False, True]])


@pytest.mark.parametrize("dtype", ["uint8", "int8", "uint16", "int16", "uint32", "int32"])
def test_nodata_of_integers_is_that_of_gdal(tmp_path: Path, dtype: str) -> None:
    for text in INTEGERS:
        stored = np.array([[_cast(text, dtype), 1, 2], [3, 100, np.iinfo(dtype).min]], dtype)
        tifffile.imwrite(tmp_path / "a.tif", stored, extratags=[(42113, "s", 0, text, True)])
        np.testing.assert_array_equal(valid_of(tmp_path / "a.tif"), by_gdal(tmp_path / "a.tif"), text)


@pytest.mark.parametrize("text", LARGE)
def test_nodata_of_64_bits_is_exact(tmp_path: Path, text: str) -> None:
    value = int(text)
    near = value - 1 if value > 0 else value + 1
    stored = np.array([[value, near]], "uint64" if value > 2**63 else "int64")
    tifffile.imwrite(tmp_path / "a.tif", stored, extratags=[(42113, "s", 0, text, True)])
    assert valid_of(tmp_path / "a.tif").tolist() == [[False, True]]


@pytest.mark.parametrize("text", ["abc", "", "1;2"])
def test_what_is_no_number_is_no_nodata(tmp_path: Path, text: str) -> None:
    tifffile.imwrite(tmp_path / "a.tif", np.zeros(SHAPE, np.uint8), extratags=[(42113, "s", 0, text, True)])
    assert read_header(tmp_path / "a.tif").nodata is None
    assert valid_of(tmp_path / "a.tif").all()


@pytest.mark.parametrize(
    ("bits", "kind"),
    [(bits, kind) for bits in (1, 2, 4, 8, 12, 16) for kind in ("MINISBLACK", "MINISWHITE")]
    + [(8, "PALETTE"), (16, "PALETTE")],  # as GDAL writes palettes
)
def test_nodata_is_compared_with_stored_values(tmp_path: Path, bits: int, kind: str) -> None:
    dtype = "uint8" if bits <= 8 else "uint16"
    stored = np.random.default_rng(bits).integers(0, min(2**bits, 9), SHAPE).astype(dtype)
    options = {"nbits": bits} if bits not in (8, 16) else {}
    for nodata in {0, 1, 2**bits - 1}:
        stored[0, :3] = nodata
        path = tmp_path / f"{nodata}.tif"
        size = {"height": SHAPE[0], "width": SHAPE[1], "count": 1, "dtype": dtype}
        with rasterio.open(path, "w", driver="GTiff", nodata=nodata, photometric=kind, **size, **options) as file:
            if kind == "PALETTE":  # every index is white
                file.write_colormap(1, dict.fromkeys(range(2**bits), (255, 255, 255)))
            file.write(stored, 1)
        np.testing.assert_array_equal(valid_of(path), stored != nodata, f"nodata {nodata}")
        np.testing.assert_array_equal(by_gdal(path), stored != nodata)


def test_bands_are_combined_by_what_nodata_can_mean(tmp_path: Path) -> None:
    """0 and 255 are also colours; a negative number, or any number among floats, is not."""
    for dtype, nodata in itertools.product(("uint8", "int16", "uint16", "float32"), (0, 100, -9999)):
        if dtype.startswith("u") and nodata < 0:
            continue
        stored = np.full((3, 1, 4), 5, dtype)
        stored[:, 0, 1] = stored[0, 0, 2] = stored[1, 0, 3] = nodata
        path = write(tmp_path / "a.tif", stored, nodata=nodata)
        some = dtype == "float32" or nodata < 0
        expected = (stored != nodata).all(0) if some else (stored != nodata).any(0)
        np.testing.assert_array_equal(valid_of(path), expected, f"{dtype} {nodata}")
        np.testing.assert_array_equal(valid_of(write(tmp_path / "b.tif", stored), nodata), expected)


def test_nodata_of_the_user_is_added_to_that_of_the_file(tmp_path: Path) -> None:
    path = write(tmp_path / "a.tif", np.array([[-9999, -32768, 3, 4]], np.int16), nodata=-9999)
    assert valid_of(path).tolist() == [[False, True, True, True]]
    assert valid_of(path, -32768).tolist() == [[False, False, True, True]]
    assert open_source(path, nodata=-32768).read()[1] is not None
    np.testing.assert_array_equal(open_source(path, nodata=-32768).read()[1], [[False, False, True, True]])


# Masks inside and beside files -------------------------------------------------------------------------------------------


def mask_of(shape: tuple[int, int]) -> np.ndarray:
    shown = np.random.default_rng(1).random(shape) > 0.3
    shown[:2] = False
    return shown


@pytest.mark.parametrize("internal", [True, False])
@pytest.mark.parametrize("georeferenced", [True, False])
@pytest.mark.parametrize("compress", ["none", "deflate", "lzw"])
def test_masks_of_gdal_mark_valid_pixels(tmp_path: Path, internal: bool, georeferenced: bool, compress: str) -> None:
    shown, place = mask_of((40, 50)), PLACE if georeferenced else {}
    for dtype, bands, tiled in itertools.product(("uint8", "uint16", "float32"), (1, 3), (False, True)):
        values = np.full((bands, 40, 50), 7, dtype)
        path = tmp_path / f"{dtype}{bands}{tiled}.tif"
        blocks = {"tiled": True, "blockxsize": 16, "blockysize": 16} if tiled else {}
        with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=internal):
            write(path, values, compress=compress, **place, **blocks)
            with rasterio.open(path, "r+") as file:
                file.write_mask(shown)
        assert path.with_name(f"{path.name}.msk").exists() is not internal
        image, _, valid = read_with_validity(path)
        np.testing.assert_array_equal(valid, shown)
        np.testing.assert_array_equal(by_gdal(path), shown)
        np.testing.assert_array_equal(image, values)
        np.testing.assert_array_equal(open_source(path).read(Window((5, 9), (30, 41)))[1], shown[5:30, 9:41])


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".webp"])
def test_masks_lie_beside_any_image(tmp_path: Path, suffix: str) -> None:
    shown = mask_of(SHAPE)
    path = tmp_path / f"a{suffix}"
    Image.new("RGB", SHAPE[::-1], (200, 100, 50)).save(path)
    tifffile.imwrite(f"{path}.msk", shown.astype(np.uint8) * 255, compression="deflate")
    np.testing.assert_array_equal(valid_of(path), shown)


def test_masks_are_turned_with_their_image(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("L", SHAPE[::-1]).save(tmp_path / "a.jpg", exif=exif)
    shown = mask_of(SHAPE)
    tifffile.imwrite(tmp_path / "a.jpg.msk", shown.astype(np.uint8))
    np.testing.assert_array_equal(valid_of(tmp_path / "a.jpg"), np.rot90(shown, -1))


def test_a_pixel_hidden_in_one_band_of_a_mask_is_not_valid(tmp_path: Path) -> None:
    path = write(tmp_path / "a.tif", np.full((2, 1, 4), 7, np.uint8))
    tifffile.imwrite(
        f"{path}.msk", np.array([[[255, 0, 255, 0]], [[255, 255, 0, 0]]], np.uint8), planarconfig="separate"
    )
    assert valid_of(path).tolist() == [[True, False, False, False]]


def test_masks_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "a.tif", np.full((1, 4, 6), 7, np.uint8))
    beside = tmp_path / "a.tif.msk"
    tifffile.imwrite(beside, np.ones((6, 4), np.uint8))
    expected = r"a\.tif\.msk: expected a mask of 4×6 pixels, the height and width of the image, found 6×4\. Write the mask again"
    with pytest.raises(ImageError, match=expected):
        read_image(path)
    beside.write_text("no mask")
    with pytest.raises(ImageError, match=r"a\.tif\.msk: expected a complete TIFF with the mask of an image"):
        read_image(path)
    with tifffile.TiffWriter(tmp_path / "b.tif") as file:
        file.write(np.zeros((4, 6), np.uint8), metadata=None)
        file.write(np.ones((2, 3), bool), subfiletype=4, photometric="minisblack", metadata=None)
    with pytest.raises(ImageError, match=r"b\.tif: expected an internal mask of 4×6 pixels.*found 2×3"):
        read_image(tmp_path / "b.tif")


# Nodata in .aux.xml ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("driver", "name"), [("PNG", "a.png"), ("GTiff", "a.tif")])
def test_nodata_beside_an_image_is_read(tmp_path: Path, driver: str, name: str) -> None:
    values = np.array([[0, 7, 9, 9]], np.uint8)
    path = write(tmp_path / name, values, driver=driver)
    (tmp_path / f"{name}.aux.xml").write_text(
        '<PAMDataset><PAMRasterBand band="1"><NoDataValue>7.0E+00</NoDataValue></PAMRasterBand></PAMDataset>'
    )
    np.testing.assert_array_equal(valid_of(path), values != 7)
    np.testing.assert_array_equal(by_gdal(path), values != 7)
    assert read_header(path).nodata == 7


def test_other_files_beside_an_image_are_no_nodata(tmp_path: Path) -> None:
    path = write(tmp_path / "a.tif", np.array([[0, 7]], np.uint8))
    beside = tmp_path / "a.tif.aux.xml"
    value = "<PAMRasterBand><NoDataValue>7</NoDataValue></PAMRasterBand>"
    for text in (
        "",
        "<PAMDataset/>",
        f"<PAMDataset>{value}",
        f'<!DOCTYPE a [<!ENTITY b "c">]><PAMDataset>{value}</PAMDataset>',
    ):
        beside.write_text(text)
        assert valid_of(path).all(), text
    beside.write_text(f"<PAMDataset>{value}{value.replace('7', '8')}</PAMDataset>")
    with pytest.raises(ImageError, match=r"a\.tif\.aux\.xml: expected one nodata value for all bands, found 2: 7, 8"):
        read_image(path)


# Alpha -------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int16", "int32", "float32", "float64"])
@pytest.mark.parametrize("bands", [2, 4, 5])
@pytest.mark.parametrize("alpha", ["YES", "PREMULTIPLIED"])
def test_alpha_of_a_georeferenced_file_marks_valid_pixels(tmp_path: Path, dtype: str, bands: int, alpha: str) -> None:
    place, shown = 1 if bands == 2 else 3, mask_of(SHAPE)
    photometric = "MINISBLACK" if bands == 2 else "RGB"
    top = np.iinfo(dtype).max if np.dtype(dtype).kind in "iu" else 1
    for opaque, interleave in itertools.product({1, 255, int(top)}, ("PIXEL", "BAND")):
        values = np.random.default_rng(0).integers(1, 100, (bands, *SHAPE)).astype(dtype)
        values[place] = opaque
        values[:, ~shown] *= (np.arange(bands) != place).astype(dtype)[:, None] if alpha == "YES" else 0
        path = write(tmp_path / "a.tif", values, photometric=photometric, alpha=alpha, interleave=interleave, **PLACE)
        image, _, valid = read_with_validity(path)
        np.testing.assert_array_equal(valid, shown)
        np.testing.assert_array_equal(image[:, shown], np.delete(values, place, 0)[:, shown])
        if dtype in ("uint8", "uint16") and bands < 5:  # GDAL knows no other alpha
            np.testing.assert_array_equal(by_gdal(path), shown)


def test_partly_transparent_pixels_are_valid_and_composited(tmp_path: Path) -> None:
    for dtype, top in (("uint8", 255), ("uint16", 65535), ("float32", 1)):
        values = np.full((4, 1, 6), 100, dtype)
        values[3] = [[0, top / 2, top, top, top, top]]
        path = write(tmp_path / "a.tif", values, photometric="RGB", alpha="YES", **PLACE)
        image, _, valid = read_with_validity(path)
        assert valid is not None
        assert valid.tolist() == [[False, True, True, True, True, True]]
        np.testing.assert_allclose(image[0, 0], [0, 50, 100, 100, 100, 100], atol=0.5)


# In a data set -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["internal mask", ".msk", "alpha", ".aux.xml"])
def test_invalid_pixels_are_ignored_in_training(tmp_path: Path, how: str) -> None:
    shown, truth = mask_of(SHAPE), np.eye(*SHAPE, dtype=np.uint8)
    (tmp_path / "images").mkdir()
    (tmp_path / "masks").mkdir()
    for name in "abc":
        path = tmp_path / "images" / f"{name}.tif"
        values = np.full((3, *SHAPE), 9, np.uint8)
        if how == "alpha":
            with_alpha = np.concatenate([values, shown[None] * np.uint8(255)])
            write(path, with_alpha, photometric="RGB", alpha="YES", **PLACE)
        elif how == ".aux.xml":
            write(path, np.where(shown, values, 0).astype(np.uint8), **PLACE)
            Path(f"{path}.aux.xml").write_text(
                "<PAMDataset><PAMRasterBand><NoDataValue>0</NoDataValue></PAMRasterBand></PAMDataset>"
            )
        else:
            with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=how == "internal mask"):
                write(path, values, **PLACE)
                with rasterio.open(path, "r+") as file:
                    file.write_mask(shown)
        Image.fromarray(truth).save(tmp_path / "masks" / f"{name}.png")
    config = DataConfig.model_validate({"labels": ["ground", "field"], "split": {"val": 0}})
    splits = open_data(config, tmp_path)
    assert splits.train is not None
    assert len(splits.train) == 3, "a .msk file is no image"
    assert not splits.problems
    ignore = splits.labels.ignore_index
    np.testing.assert_array_equal(splits.train.read(0).truth(ignore), np.where(shown, truth, ignore))
    before = splits.train.hash()
    if how == ".msk":
        tifffile.imwrite(tmp_path / "images" / "a.tif.msk", np.ones(SHAPE, np.uint8))
        assert splits.train.hash() != before
        assert splits.train.read(0).valid is None


def test_the_nodata_of_the_configuration_applies_to_all_images(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    (tmp_path / "masks").mkdir()
    values = np.random.default_rng(0).random(SHAPE).astype(np.float32)
    for name, gap in zip("abc", (-9999, -9999, np.nan), strict=True):
        values[0, :5] = gap
        tifffile.imwrite(tmp_path / "images" / f"{name}.tif", values)
        Image.fromarray(np.eye(*SHAPE, dtype=np.uint8)).save(tmp_path / "masks" / f"{name}.png")
    plain = {"labels": ["ground", "field"], "split": {"val": 0}}
    numbers = open_data(DataConfig.model_validate(plain | {"nodata": -9999}), tmp_path).train
    nan = open_data(DataConfig.model_validate(plain | {"nodata": "nan"}), tmp_path).train
    assert numbers is not None
    assert nan is not None
    for split, good in ((numbers, (0, 1)), (nan, (2,))):
        for index in good:
            valid = split.read(index).valid
            assert valid is not None
            assert (valid == np.where(np.arange(SHAPE[1]) < 5, np.arange(SHAPE[0])[:, None] > 0, True)).all()
    assert nan.read(0).valid is None
    with pytest.raises(ImageError, match=r"NaN pixels.*--set data\.nodata=nan"):
        numbers.read(2)


@pytest.mark.parametrize("how", [".msk", "data.nodata"])
def test_a_converted_data_set_knows_the_same_invalid_pixels(tmp_path: Path, how: str) -> None:
    shown, data = mask_of(SHAPE), tmp_path / "data"
    for name in "abc":
        for folder in ("images", "masks"):
            (data / folder).mkdir(parents=True, exist_ok=True)
        path = data / "images" / f"{name}.tif"
        tifffile.imwrite(path, np.where(shown, np.arange(SHAPE[1]), -9999).astype(np.int16))
        if how == ".msk":
            tifffile.imwrite(f"{path}.msk", shown.astype(np.uint8))
        Image.fromarray(np.eye(*SHAPE, dtype=np.uint8)).save(data / "masks" / f"{name}.png")
    settings = ["data.labels=[ground, field]"] + (["data.nodata=-9999"] if how == "data.nodata" else [])
    out = tmp_path / "out"
    result = pixelwise.convert(data, to="masks", out=out, overrides=settings)
    assert result.changed_pixels == 0
    config, base = read_request(out / "data.yaml")
    back = open_data(config.data, base).train
    assert back is not None
    sample = back.read(0)
    ignored = sample.truth(back.labels.ignore_index) == back.labels.ignore_index
    np.testing.assert_array_equal(ignored, ~shown)
    assert fill_invalid(sample.image, sample.valid).min() >= 0


def test_volumes_have_nodata_too(tmp_path: Path) -> None:
    nibabel = pytest.importorskip("nibabel")
    volume = np.zeros((6, 7, 5), np.int16)
    volume[:, :2] = -2000
    nibabel.save(nibabel.Nifti1Image(volume, np.diag([1, 1, 4, 1])), tmp_path / "a.nii")
    image, valid = open_source(tmp_path / "a.nii", nodata=-2000).read()
    np.testing.assert_array_equal(valid, image[0] != -2000)
    assert open_source(tmp_path / "a.nii").read()[1] is None


def test_a_window_of_a_record_keeps_its_mask(tmp_path: Path) -> None:
    shown = mask_of(SHAPE)
    path = write(tmp_path / "a.tif", np.full(SHAPE, 3, np.uint8))
    tifffile.imwrite(f"{path}.msk", shown.astype(np.uint8))
    valid = read_record_image(Record("a", path, None, window=(2, 3, 5, 6)))[2]
    np.testing.assert_array_equal(valid, shown[2:7, 3:9])
