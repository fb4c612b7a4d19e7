"""TIFF files of every layout against GDAL: the same values, or a refusal that is listed here."""

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import rasterio
import tifffile

from pixelwise.errors import ImageError
from pixelwise.imageio.file_formats import open_as
from pixelwise.imageio.images import Header, _with_file, read_image, read_mask_values, read_with_validity
from pixelwise.imageio.raster import Decoder
from pixelwise.imageio.sources import open_source
from pixelwise.tiles import Window

HEIGHT, WIDTH = 37, 41  # multiples of no tile and no strip
TYPES = ("uint8", "int8", "uint16", "int16", "uint32", "int32", "uint64", "int64", "float32", "float64")
PREDICTED = ("LZW", "DEFLATE", "ZSTD")
LERC = ("LERC", "LERC_DEFLATE", "LERC_ZSTD")
LOST = "LERC in big-endian byte order, with values that were lost when it was written"

pytestmark = pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")


class Layout(NamedTuple):
    """How a file is written."""

    dtype: str
    bands: int
    predictor: int
    byteorder: str
    planar: bool
    tiled: bool
    big: bool


def layouts(compression: str, times: int = 1) -> Iterator[Layout]:
    """Yield each type × predictor × byte order × planar × tiled; the number of bands and BigTIFF go round."""
    turn = itertools.count()
    for dtype, byteorder, planar, tiled in itertools.product(TYPES, ("<", ">"), (False, True), (False, True)):
        for predictor in (1, 2, 3) if compression in PREDICTED else (1,):
            if predictor == 3 and not dtype.startswith("float"):
                continue
            for _ in range(times):
                k = next(turn)
                bands = (2, 3, 4, 5)[k % 4] if planar else (1, 3, 5, 2, 4)[k % 5]
                yield Layout(dtype, bands, predictor, byteorder, planar, tiled, big=k % 7 == 0)


def values_of(dtype: str, bands: int, rng: np.random.Generator) -> np.ndarray:
    """Draw values over the whole range of a type, with its extremes."""
    shape = (bands, HEIGHT, WIDTH)
    if np.dtype(dtype).kind == "f":
        return (rng.standard_normal(shape) * 1e3).astype(dtype)
    limits = np.iinfo(dtype)
    values = rng.integers(limits.min, limits.max, shape, dtype=dtype, endpoint=True)
    values.flat[:2] = limits.min, limits.max
    return values


def write(path: Path, values: np.ndarray, **options: Any) -> None:
    bands, height, width = values.shape
    options = {"photometric": "RGB" if bands == 3 else "MINISBLACK", "alpha": "NO"} | options
    size = {"width": width, "height": height, "count": bands, "dtype": values.dtype}
    with rasterio.open(path, "w", driver="GTiff", **size, **options) as file:
        file.write(values)


def write_layout(path: Path, values: np.ndarray, compression: str, layout: Layout) -> None:
    blocks = {"blockxsize": 16, "blockysize": 32} if layout.tiled else {"blockysize": 11}
    predictor = {"predictor": layout.predictor} if layout.predictor > 1 else {}
    write(
        path, values, compress=compression, endianness="BIG" if layout.byteorder == ">" else "LITTLE",
        interleave="BAND" if layout.planar else "PIXEL", tiled=layout.tiled, bigtiff="YES" if layout.big else "NO",
        **blocks, **predictor,
    )  # fmt: skip


def by_gdal(path: Path) -> np.ndarray:
    with rasterio.open(path, driver="GTiff") as file:
        array: np.ndarray = file.read()
        return array


def as_stored(path: Path) -> np.ndarray:
    """Decode (C, H, W) without the conversion of grey of fewer than 8 bits."""

    def work(_: Header, decode: Decoder) -> np.ndarray:
        return np.moveaxis(decode().values, -1, 0)

    return _with_file(path, ImageError, open_as, work)


def agree_in_windows(path: Path, rng: np.random.Generator) -> None:
    """Compare a random window with the same window of the whole image."""
    source = open_source(path)
    image, valid = source.read()
    start = tuple(int(rng.integers(side)) for side in source.shape)
    window = Window(
        start, tuple(int(rng.integers(a + 1, side + 1)) for a, side in zip(start, source.shape, strict=True))
    )
    piece, inside = source.read(window)
    assert (piece.dtype, piece.flags.c_contiguous, piece.dtype.isnative) == (image.dtype, True, True)
    np.testing.assert_array_equal(piece, image[:, *window.slices])
    expected = None if valid is None or valid[window.slices].all() else valid[window.slices]
    np.testing.assert_array_equal(inside, expected)


@pytest.mark.parametrize("compression", ["NONE", *PREDICTED, "PACKBITS", "LZMA", *LERC])
def test_every_layout_that_gdal_writes_is_read_as_gdal_does(tmp_path: Path, compression: str) -> None:
    rng, path = np.random.default_rng(0), tmp_path / "a.tif"
    compared, wrong, refused = 0, [], []
    for layout in layouts(compression, times=1 if compression == "LZMA" else 2):
        if compression in LERC and layout.dtype in ("uint64", "int64"):
            continue  # not in LERC
        write_layout(path, values_of(layout.dtype, layout.bands, rng), compression, layout)
        expected = by_gdal(path)
        compared += 1
        try:
            image = read_image(path)[0]
        except ImageError as error:
            refused.append((error.found, layout))
            continue
        if image.dtype != expected.dtype or not image.dtype.isnative or not np.array_equal(image, expected):
            wrong.append(layout)
        else:
            source = open_source(path)
            assert (source.channels, source.dtype, source.shape) == (len(expected), expected.dtype, (HEIGHT, WIDTH))
            agree_in_windows(path, rng)
    assert compared >= 80
    assert not wrong
    # libtiff swaps bytes before it encodes, and takes some swapped numbers for NaN.
    assert {found for found, _ in refused} <= ({LOST} if compression in LERC else set())
    assert all(layout.byteorder == ">" and layout.dtype.startswith("float") for _, layout in refused)


@pytest.mark.parametrize("bits", [1, 2, 3, 4, 7, 9, 10, 12, 14, 17, 31])
@pytest.mark.parametrize("photometric", ["MINISBLACK", "MINISWHITE"])
def test_packed_integers_are_read_as_gdal_does(tmp_path: Path, bits: int, photometric: str) -> None:
    rng, path = np.random.default_rng(bits), tmp_path / "a.tif"
    dtype = "uint8" if bits <= 8 else "uint16" if bits <= 16 else "uint32"
    compressions = ["NONE", "LZW", "DEFLATE", "ZSTD", *(["CCITTFAX4", "CCITTFAX3", "CCITTRLE"] if bits == 1 else [])]
    layouts = itertools.product(compressions, ("LITTLE", "BIG"), (False, True), (1, 3))
    for compression, endianness, tiled, bands in layouts:
        if bands == 3 and (photometric == "MINISWHITE" or compression.startswith("CCITT")):
            continue
        values = rng.integers(0, 2**bits, (bands, HEIGHT, WIDTH)).astype(dtype)
        blocks = {"tiled": True, "blockxsize": 16, "blockysize": 32} if tiled else {}
        options = {"compress": compression, "endianness": endianness, "nbits": bits, "photometric": photometric}
        write(path, values, **options, **blocks)
        np.testing.assert_array_equal(by_gdal(path), values)
        np.testing.assert_array_equal(as_stored(path), values, f"{compression} {endianness} {tiled} {bands}")
        agree_in_windows(path, rng)
        if bands == 1 and bits > 1:
            np.testing.assert_array_equal(read_mask_values(path).values, values[0])


@pytest.mark.parametrize("bits", [16, 24])
@pytest.mark.parametrize("endianness", ["LITTLE", "BIG"])
def test_floats_of_fewer_bits_are_read_as_gdal_does(tmp_path: Path, bits: int, endianness: str) -> None:
    values = values_of("float32", 2, np.random.default_rng(0))
    for compression in ("NONE", "DEFLATE"):
        write(tmp_path / "a.tif", values, nbits=bits, endianness=endianness, compress=compression)
        np.testing.assert_array_equal(read_image(tmp_path / "a.tif")[0], by_gdal(tmp_path / "a.tif"))
        agree_in_windows(tmp_path / "a.tif", np.random.default_rng(0))


def test_24_bit_integers_in_big_endian_order_are_refused(tmp_path: Path) -> None:
    values = np.random.default_rng(0).integers(0, 2**24, (1, 5, 6)).astype(np.uint32)
    write(tmp_path / "a.tif", values, nbits=24)
    np.testing.assert_array_equal(read_image(tmp_path / "a.tif")[0], values)
    write(tmp_path / "b.tif", values, nbits=24, endianness="BIG")
    with pytest.raises(
        ImageError, match=r"found 24-bit integers in big-endian byte order.* Save the image with 32 bits"
    ):
        read_image(tmp_path / "b.tif")


@pytest.mark.parametrize("compression", [None, "lzw", "deflate", "zstd", "lzma", "packbits", "lerc"])
def test_files_of_tifffile_are_read_as_gdal_does(tmp_path: Path, compression: str | None) -> None:
    rng, path = np.random.default_rng(0), tmp_path / "a.tif"
    compared = 0
    for layout in layouts(str(compression).upper()):
        floats = layout.dtype.startswith("float")
        if (layout.predictor == 2 and floats) or (
            compression == "lerc" and (layout.byteorder == ">" or "64" in layout.dtype)
        ):
            continue  # not written by tifffile
        values = values_of(layout.dtype, layout.bands, rng)
        stored = values[0] if layout.bands == 1 else values if layout.planar else values.transpose(1, 2, 0)
        planar = None if layout.bands == 1 else "separate" if layout.planar else "contig"
        tifffile.imwrite(
            path, stored, byteorder=layout.byteorder, compression=compression, planarconfig=planar,
            predictor=layout.predictor if layout.predictor > 1 else False, photometric="minisblack",
            compressionargs={"level": 1} if compression in ("lzma", "zstd", "deflate") else None,
            tile=(16, 32) if layout.tiled else None, rowsperstrip=None if layout.tiled else 11, bigtiff=layout.big,
        )  # fmt: skip
        np.testing.assert_array_equal(by_gdal(path), values)
        np.testing.assert_array_equal(read_image(path)[0], values, str(layout))
        agree_in_windows(path, rng)
        compared += 1
    assert compared >= 24


@pytest.mark.parametrize("bands", [3, 4])
@pytest.mark.parametrize("tiled", [False, True])
def test_lossless_webp_in_tiff_is_read_as_gdal_does(tmp_path: Path, bands: int, tiled: bool) -> None:
    values = np.random.default_rng(0).integers(1, 256, (bands, HEIGHT, WIDTH), dtype=np.uint8)
    blocks = {"tiled": True, "blockxsize": 16, "blockysize": 32} if tiled else {}
    write(tmp_path / "a.tif", values, compress="WEBP", webp_lossless="YES", photometric="RGB", **blocks)
    np.testing.assert_array_equal(read_image(tmp_path / "a.tif")[0], by_gdal(tmp_path / "a.tif"))
    agree_in_windows(tmp_path / "a.tif", np.random.default_rng(0))


@pytest.mark.parametrize(
    ("photometric", "bands"),
    [*itertools.product(["MINISBLACK", "MINISWHITE"], [1, 2, 3, 4]), ("RGB", 3), ("RGB", 4), ("CMYK", 4)],
)
@pytest.mark.parametrize("planar", [False, True])
def test_jpeg_in_tiff_is_decoded_as_gdal_does(tmp_path: Path, photometric: str, bands: int, planar: bool) -> None:
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    values = np.stack([5 * x, 6 * y, 3 * (x + y), 255 - 5 * x])[:bands].astype(np.uint8)
    for tiled, endianness in itertools.product((False, True), ("LITTLE", "BIG")):
        blocks = {"tiled": True, "blockxsize": 16, "blockysize": 32} if tiled else {"blockysize": 16}
        options = {"interleave": "BAND" if planar else "PIXEL", "endianness": endianness, "photometric": photometric}
        write(tmp_path / "a.tif", values, compress="JPEG", jpeg_quality=95, **options, **blocks)
        image = as_stored(tmp_path / "a.tif")
        assert np.abs(image.astype(int) - values).max() <= 5
        agree_in_windows(tmp_path / "a.tif", np.random.default_rng(0))
        if photometric != "CMYK":  # which GDAL converts to RGB
            np.testing.assert_array_equal(image, by_gdal(tmp_path / "a.tif"))


def test_ycbcr_in_jpeg_is_nearly_that_of_gdal(tmp_path: Path) -> None:
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    values = np.stack([5 * x, 6 * y, 3 * (x + y)]).astype(np.uint8)
    write(tmp_path / "a.tif", values, compress="JPEG", photometric="YCBCR", jpeg_quality=95)
    difference = np.abs(read_image(tmp_path / "a.tif")[0].astype(int) - by_gdal(tmp_path / "a.tif"))
    assert difference.max() <= 6, "colours at half resolution are enlarged in two ways"
    for tiled in (True, False):
        blocks = {"tiled": True, "blockxsize": 16, "blockysize": 16} if tiled else {"blockysize": 16}
        write(tmp_path / "b.tif", values, compress="JPEG", photometric="YCBCR", jpeg_quality=95, **blocks)
        agree_in_windows(tmp_path / "b.tif", np.random.default_rng(0))


# LERC has masks of its own ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("compression", LERC)
@pytest.mark.parametrize(("bands", "interleave"), [(1, "PIXEL"), (3, "PIXEL"), (3, "BAND")])
@pytest.mark.parametrize("everywhere", [False, True])
def test_nan_survives_lerc(
    tmp_path: Path, dtype: str, compression: str, bands: int, interleave: str, everywhere: bool
) -> None:
    values = values_of(dtype, bands, np.random.default_rng(0))
    values[slice(None) if everywhere else 0, 3:9, 5:9] = np.nan
    write(tmp_path / "a.tif", values, compress=compression, interleave=interleave, nodata=np.nan)
    image, _, valid = read_with_validity(tmp_path / "a.tif")
    np.testing.assert_array_equal(image, values)
    np.testing.assert_array_equal(valid, ~np.isnan(values).any(axis=0))
    agree_in_windows(tmp_path / "a.tif", np.random.default_rng(1))


@pytest.mark.parametrize("bands", [2, 4])
@pytest.mark.parametrize("between", [False, True])
def test_alpha_survives_lerc(tmp_path: Path, bands: int, between: bool) -> None:
    values = np.random.default_rng(0).integers(1, 255, (bands, HEIGHT, WIDTH), dtype=np.uint8)
    values[-1] = 255
    values[-1, 3:9, 5:9] = 0
    values[-1, 20, 20] = 100 if between else 255
    write(tmp_path / "a.tif", values, compress="LERC", photometric="RGB" if bands == 4 else "MINISBLACK", alpha="YES")
    np.testing.assert_array_equal(as_stored(tmp_path / "a.tif"), by_gdal(tmp_path / "a.tif"))
    agree_in_windows(tmp_path / "a.tif", np.random.default_rng(1))


# Sparse files -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("compression", ["NONE", "LZW", "LERC"])
@pytest.mark.parametrize(
    ("dtype", "nodata"), [("uint8", 7), ("int16", -9999), ("float32", np.nan), ("float32", -3.4e38)]
)
def test_absent_tiles_hold_no_data(tmp_path: Path, compression: str, dtype: str, nodata: float) -> None:
    path = tmp_path / "a.tif"
    options = {"tiled": True, "blockxsize": 16, "blockysize": 16, "sparse_ok": True, "compress": compression}
    size = {"width": 64, "height": 48, "count": 2, "dtype": dtype}
    written = float(np.float32(nodata)) if dtype == "float32" else nodata
    with rasterio.open(path, "w", driver="GTiff", nodata=written, **size, **options) as file:
        file.write(np.full((2, 16, 16), 5, dtype), window=((16, 32), (16, 32)))
    image, _, valid = read_with_validity(path)
    np.testing.assert_array_equal(image, by_gdal(path))
    assert valid is not None
    assert valid.sum() == 256
    agree_in_windows(path, np.random.default_rng(0))
    assert valid[16:32, 16:32].all()
    with rasterio.open(path, "w", driver="GTiff", **size, **options) as file:
        file.write(np.full((2, 16, 16), 5, dtype), window=((16, 32), (16, 32)))
    with pytest.raises(ImageError, match=r"never written.*or with a nodata value"):
        read_image(path)
