import io
import logging
import struct
import time
import warnings
import zlib
from pathlib import Path

import numpy as np
import pytest
import tifffile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image, ImageOps

from pixelwise.errors import ImageError, Interrupted, MaskError
from pixelwise.grid import Grid
from pixelwise.imageio import images
from pixelwise.imageio.file_formats import READABLE
from pixelwise.imageio.images import (
    IMAGE_SUFFIXES,
    Limits,
    list_images,
    read_image,
    read_mask_values,
    read_orientation,
    read_size,
    read_with_validity,
    to_rgb8,
)
from pixelwise.imageio.silencing import silenced

DATA = Path(__file__).parents[3] / "shared" / "data"
fast = settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
rng = np.random.default_rng(0)


def chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def png(values, depth, colour_type, *, before=b"", after=b"", size=None) -> bytes:
    """Write a PNG by its specification, independently of the decoder's own encoder."""
    values = values.reshape(*values.shape[:2], -1)
    rows = []
    for row in values:
        bits = "".join(format(int(v), f"0{depth}b") for v in row.reshape(-1))
        bits += "0" * (-len(bits) % 8)
        rows.append(b"\0" + int(bits, 2).to_bytes(len(bits) // 8, "big"))
    height, width = size or values.shape[:2]
    head = struct.pack(">IIBBBBB", width, height, depth, colour_type, 0, 0, 0)
    body = chunk(b"IHDR", head) + before + chunk(b"IDAT", zlib.compress(b"".join(rows))) + after + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


def saved(path, image, **options):
    image.save(path, **options)
    return path


def message(function, *arguments, error=ImageError) -> str:
    with pytest.raises(error) as caught:
        function(*arguments)
    return str(caught.value)


@pytest.mark.parametrize("depth", [8, 16])
@pytest.mark.parametrize(("colour_type", "samples", "bands"), [(0, 1, 1), (2, 3, 3), (4, 2, 1), (6, 4, 3)])
def test_png_keeps_its_depth(tmp_path, depth, colour_type, samples, bands):
    values = rng.integers(0, 2**depth, (5, 7, samples))
    if samples in (2, 4):
        values[..., -1] = 2**depth - 1
    path = tmp_path / "a.png"
    path.write_bytes(png(values, depth, colour_type))
    image, grid = read_image(path)
    assert image.dtype == (np.uint16 if depth == 16 else np.uint8)
    assert image.flags.c_contiguous
    assert grid == Grid()
    np.testing.assert_array_equal(image, values[..., :bands].transpose(2, 0, 1))
    assert read_size(path) == (bands, 5, 7)


@fast
@given(hnp.arrays(np.uint16, hnp.array_shapes(min_dims=3, max_dims=3, max_side=9).map(lambda s: (s[0], s[1], 3))))
def test_16_bit_colours_survive_bit_for_bit(tmp_path, values):
    (tmp_path / "a.png").write_bytes(png(values, 16, 2))
    np.testing.assert_array_equal(read_image(tmp_path / "a.png")[0], values.transpose(2, 0, 1))


@pytest.mark.parametrize("depth", [1, 2, 4])
def test_low_bit_depths_are_stretched_in_images_and_kept_in_masks(tmp_path, depth):
    values = np.arange(12).reshape(3, 4) % 2**depth
    path = tmp_path / "a.png"
    path.write_bytes(png(values, depth, 0))
    np.testing.assert_array_equal(read_image(path)[0][0], values * 255 // (2**depth - 1))
    raw = read_mask_values(path)
    np.testing.assert_array_equal(raw.values, values)
    assert raw.kind == ("binary" if depth == 1 else "index")


def test_palette_becomes_colours_in_images_and_stays_indices_in_masks(tmp_path):
    indices = np.array([[0, 1, 2], [2, 1, 0]], np.uint8)
    image = Image.fromarray(indices)
    image.putpalette([10, 20, 30, 40, 50, 60, 70, 80, 90])
    path = saved(tmp_path / "a.png", image)
    np.testing.assert_array_equal(read_image(path)[0][:, 0, 2], [70, 80, 90])
    assert read_size(path) == (3, 2, 3)
    raw = read_mask_values(path)
    np.testing.assert_array_equal(raw.values, indices)
    assert (raw.kind, raw.palette[:2]) == ("palette", [(10, 20, 30), (40, 50, 60)])


def test_palette_index_without_a_colour_is_refused(tmp_path):
    path = tmp_path / "a.png"
    path.write_bytes(png(np.array([[0, 5]]), 8, 3, before=chunk(b"PLTE", bytes(6))))
    assert message(read_image, path) == f"{path}: expected palette indices 0–1, found index 5. Save the image as RGB."


@pytest.mark.parametrize("name", ["a.jpg", "a.webp"])
def test_lossy_formats(tmp_path, name):
    smooth = np.add.outer(np.arange(40), np.arange(60)).astype(np.uint8)
    colours = np.stack([smooth, smooth[::-1], smooth * 2], -1)
    path = saved(tmp_path / name, Image.fromarray(colours), quality=95)
    image, _ = read_image(path)
    assert (image.shape, image.dtype, read_size(path)) == ((3, 40, 60), np.uint8, (3, 40, 60))
    assert np.abs(image.astype(int) - colours.transpose(2, 0, 1)).mean() < 3
    assert read_mask_values(path).kind == "lossy"


def test_lossless_webp_is_exact_and_allowed_for_masks(tmp_path):
    colours = rng.integers(0, 256, (6, 8, 3), dtype=np.uint8)
    path = saved(tmp_path / "a.webp", Image.fromarray(colours), lossless=True, exact=True)
    np.testing.assert_array_equal(read_image(path)[0], colours.transpose(2, 0, 1))
    assert read_mask_values(path).kind == "colour"


@pytest.mark.parametrize(("name", "mode"), [("a.jpg", "CMYK"), ("a.tif", "CMYK")])
def test_cmyk_becomes_rgb(tmp_path, name, mode):
    ink = Image.fromarray(np.broadcast_to(np.array([0, 128, 255, 64], np.uint8), (16, 16, 4)).copy(), mode)
    path = saved(tmp_path / name, ink)
    image, _ = read_image(path)
    assert read_size(path) == (3, 16, 16)
    expected = [255 * 191 / 255, 127 * 191 / 255, 0]
    assert np.abs(image[:, 8, 8].astype(float) - expected).max() <= 2


def test_alpha_composites_the_image_over_black(tmp_path):
    colours = np.array([[[200, 100, 50, 255], [200, 100, 50, 0], [200, 100, 50, 128]]], np.uint8)
    for name in ("a.png", "a.tif"):
        image, _, valid = read_with_validity(saved(tmp_path / name, Image.fromarray(colours)))
        np.testing.assert_array_equal(image[:, 0].T, [[200, 100, 50], [0, 0, 0], [100, 50, 25]])
        assert valid is None


def test_alpha_16_bit_and_grey(tmp_path):
    path = tmp_path / "a.png"
    path.write_bytes(png(np.array([[[60000, 0], [60000, 65535], [60000, 32768]]]), 16, 4))
    np.testing.assert_array_equal(read_image(path)[0], [[[0, 60000, 30000]]])


def test_premultiplied_alpha_is_not_applied_twice(tmp_path):
    values = np.full((4, 4, 4), 100, np.uint8)
    values[..., 3] = 255
    values[0, 0] = [50, 50, 50, 128]
    tifffile.imwrite(tmp_path / "a.tif", values, photometric="rgb", extrasamples=["assocalpha"])
    assert read_image(tmp_path / "a.tif")[0][:, 0, 0].tolist() == [50, 50, 50]


@pytest.mark.parametrize(("depth", "key"), [(8, 7), (16, 700)])
def test_a_transparent_colour_is_black(tmp_path, depth, key):
    values = np.full((2, 2, 3), key)
    values[0, 0, 1] += 1
    path = tmp_path / "a.png"
    path.write_bytes(png(values, depth, 2, before=chunk(b"tRNS", struct.pack(">3H", key, key, key))))
    image, _, valid = read_with_validity(path)
    np.testing.assert_array_equal(image[1], [[key + 1, 0], [0, 0]])
    assert valid is None


def test_transparent_palette_entries_are_black(tmp_path):
    path = tmp_path / "a.png"
    extra = chunk(b"PLTE", bytes([9, 9, 9, 8, 8, 8])) + chunk(b"tRNS", bytes([0]))
    path.write_bytes(png(np.array([[0, 1]]), 8, 3, before=extra))
    image, _, valid = read_with_validity(path)
    np.testing.assert_array_equal(image, [[[0, 8]]] * 3)
    assert valid is None
    np.testing.assert_array_equal(read_mask_values(path).values, [[0, 1]])


def test_a_fourth_band_that_is_hardly_alpha_is_refused(tmp_path):
    path = tmp_path / "field.tif"
    tifffile.imwrite(path, rng.integers(1, 255, (9, 9, 4), dtype=np.uint8), photometric="rgb")
    text = message(read_image, path)
    assert text.startswith(
        f"{path}: expected an alpha band that is mostly opaque or transparent, found partly transparent values in 100%"
    )
    assert "near infrared" in text
    tifffile.imwrite(
        path, rng.integers(1, 255, (9, 9, 4), dtype=np.uint8), photometric="rgb", extrasamples=["unspecified"]
    )
    assert read_image(path)[0].shape == (4, 9, 9)


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int16", "float32", "float16", "float64", "uint32"])
@pytest.mark.parametrize("planar", ["contig", "separate"])
@pytest.mark.parametrize("bands", [2, 5])
@pytest.mark.parametrize("compression", [None, "zlib"])
def test_tiff_bands(tmp_path, dtype, planar, bands, compression):
    values = (rng.random((bands, 6, 7)) * 100).astype(dtype)
    path = tmp_path / "a.tif"
    stored = values if planar == "separate" else values.transpose(1, 2, 0)
    tifffile.imwrite(path, stored, planarconfig=planar, photometric="minisblack", compression=compression)
    image, _ = read_image(path)
    assert image.dtype == dtype
    assert image.flags.c_contiguous
    np.testing.assert_array_equal(image, values)
    assert read_size(path) == (bands, 6, 7)


def test_tiff_big_endian_tiles_and_bigtiff(tmp_path):
    values = rng.integers(0, 65536, (70, 50), dtype=np.uint16)
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, values, byteorder=">", tile=(32, 32), compression="zlib", predictor=True, bigtiff=True)
    image, _ = read_image(path)
    assert image.dtype.isnative
    np.testing.assert_array_equal(image[0], values)


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.uint16, np.int32, np.float32])
@pytest.mark.parametrize(
    ("samples", "planar"), [(1, None), (3, "contig"), (3, "separate"), (5, "contig"), (5, "separate")]
)
@pytest.mark.parametrize("byteorder", ["<", ">"])
@pytest.mark.parametrize("compression", ["lzw", "deflate", "zstd", "lzma", "packbits"])
def test_compression_keeps_every_value(tmp_path, dtype, samples, planar, byteorder, compression):
    values = (rng.random((samples, 5, 6)) * 200 - 100 * (np.dtype(dtype).kind == "i")).astype(dtype)
    values.flat[:2] = (np.finfo if np.dtype(dtype).kind == "f" else np.iinfo)(dtype).max, 0
    stored = values.transpose(1, 2, 0) if planar == "contig" else values[0] if samples == 1 else values
    predictor = compression == "lzw" and np.dtype(dtype).kind != "f"
    options = {"planarconfig": planar, "compression": compression, "predictor": predictor, "byteorder": byteorder}
    photometric = "rgb" if samples == 3 else "minisblack"
    tifffile.imwrite(tmp_path / "a.tif", stored, photometric=photometric, **options)
    image, _ = read_image(tmp_path / "a.tif")
    assert image.dtype == dtype
    assert image.dtype.isnative
    np.testing.assert_array_equal(image, values)
    assert read_size(tmp_path / "a.tif") == image.shape


def test_an_unknown_compression_is_named(tmp_path):
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, np.zeros((5, 6), np.uint8), compression="deflate")
    with tifffile.TiffFile(path, mode="r+") as tif:
        tif.pages[0].tags["Compression"].overwrite(32771)
    assert message(read_image, path) == (
        f"{path}: expected a compression that imagecodecs can decode, found CCIRLEW. "
        "Save the file without compression, or with deflate."
    )


@pytest.mark.parametrize("subsampling", [None, (2, 2)])
def test_ycbcr_becomes_rgb(tmp_path, subsampling):
    colours = np.full((16, 16, 3), (200, 100, 50), np.uint8)
    path = tmp_path / "a.tif"
    if subsampling:
        tifffile.imwrite(path, colours, photometric="rgb", compression="jpeg", subsampling=subsampling)
    else:
        converted = np.asarray(Image.fromarray(colours).convert("YCbCr"))
        tifffile.imwrite(path, converted, photometric="ycbcr", compression="lzw", subsampling=(1, 1))
    assert np.abs(read_image(path)[0].astype(int) - colours.transpose(2, 0, 1)).max() <= 3
    assert read_mask_values(path).kind == "lossy"


def test_log_messages_of_tifffile_are_not_printed(tmp_path, capfd):
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, np.zeros((5, 6), np.uint8))
    read_image(path)
    with silenced():
        logging.getLogger("tifffile").warning("a warning")
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("compression", ["jpeg", "tiff_lzw", "packbits", "tiff_deflate"])
def test_tiff_compressions(tmp_path, compression):
    colours = np.full((16, 16, 3), (200, 100, 50), np.uint8)
    path = saved(tmp_path / "a.tif", Image.fromarray(colours), compression=compression)
    assert np.abs(read_image(path)[0].astype(int) - colours.transpose(2, 0, 1)).max() <= (
        3 if compression == "jpeg" else 0
    )
    assert read_mask_values(path).kind == ("lossy" if compression == "jpeg" else "colour")


@pytest.mark.parametrize("compression", [None, "group4", "tiff_lzw"])
def test_1_bit_tiff(tmp_path, compression):
    bits = rng.random((9, 11)) > 0.5
    path = saved(tmp_path / "a.tif", Image.fromarray(bits), compression=compression)
    np.testing.assert_array_equal(read_image(path)[0][0], bits * 255)
    raw = read_mask_values(path)
    np.testing.assert_array_equal(raw.values, bits)
    assert raw.kind == "binary"


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("compression", [None, "lzw"])
def test_tiff_where_zero_is_white(tmp_path, compression, dtype):
    top = np.iinfo(dtype).max
    values = rng.integers(0, top, (4, 5), dtype=dtype, endpoint=True)
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, values, photometric="miniswhite", compression=compression)
    np.testing.assert_array_equal(read_image(path)[0][0], top - values)
    np.testing.assert_array_equal(read_mask_values(path).values, values)


def test_alpha_is_not_inverted(tmp_path):
    values = rng.integers(0, 256, (4, 5), dtype=np.uint8)
    both = np.stack([values, np.full_like(values, 255)], -1)
    tifffile.imwrite(
        tmp_path / "a.tif", both, photometric="miniswhite", extrasamples=["unassalpha"], planarconfig="contig"
    )
    np.testing.assert_array_equal(read_image(tmp_path / "a.tif")[0], 255 - values[None])


def test_an_interruption_is_not_a_broken_image(tmp_path, monkeypatch):
    Image.new("RGB", (4, 4)).save(tmp_path / "a.png")

    def stop(*_):
        raise Interrupted("run", found="checkpoint saved")

    monkeypatch.setattr(images, "_bands", stop)
    with pytest.raises(Interrupted):
        read_image(tmp_path / "a.png")


@pytest.mark.parametrize("name", ["a.jpg", "a.png", "a.tif"])
def test_orientation_from_the_header(tmp_path, name):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (4, 6)).save(tmp_path / name, exif=exif)
    assert read_orientation(tmp_path / name) == 6
    Image.new("RGB", (4, 6)).save(tmp_path / name)
    assert read_orientation(tmp_path / name) == 1


def test_palette_tiff(tmp_path):
    table = np.zeros((3, 256), np.uint16)
    table[:, 1] = (65535, 256, 0)
    tifffile.imwrite(tmp_path / "a.tif", np.array([[0, 1]], np.uint8), photometric="palette", colormap=table)
    np.testing.assert_array_equal(read_image(tmp_path / "a.tif")[0][:, 0], [[0, 255], [0, 1], [0, 0]])
    assert read_mask_values(tmp_path / "a.tif").kind == "palette"


def test_several_pages_are_ambiguous_but_overviews_are_not(tmp_path):
    path = tmp_path / "stack.tif"
    tifffile.imwrite(path, np.zeros((5, 8, 8), np.uint8), photometric="minisblack")
    assert message(read_image, path).startswith(f"{path}: expected one image in the file, found 5 pages. Save slices")
    tifffile.imwrite(path, np.zeros((3, 8, 8), np.float32), imagej=True)
    assert "expected one image in the file, found" in message(read_size, path)
    with tifffile.TiffWriter(path) as tif:
        tif.write(np.full((8, 8), 7, np.uint8))
        tif.write(np.full((4, 4), 7, np.uint8), subfiletype=1)
    assert read_image(path)[0].shape == (1, 8, 8)


def test_animations_are_refused(tmp_path):
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue")]
    for name in ("a.png", "a.webp"):
        path = saved(tmp_path / name, frames[0], save_all=True, append_images=frames[1:])
        assert "expected one image, found an animation of" in message(read_image, path)


def test_nan_and_infinity_are_counted(tmp_path):
    values = np.zeros((6, 7, 2), np.float32)
    values[0, :3] = np.nan
    values[1, 0, 0] = np.inf
    path = tmp_path / "field.tif"
    tifffile.imwrite(path, values, photometric="minisblack", planarconfig="contig")
    assert message(read_image, path) == (
        f"{path}: expected finite values, found 3 NaN pixels and 1 infinite pixel. Fill those pixels with a number and "
        "mark them as ignored in the mask, or crop the image to where it has data."
    )


def test_complex_numbers_are_refused(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", np.zeros((4, 4), np.complex64))
    assert "expected grey, palette, RGB or CMYK pixels of whole or real numbers" in message(
        read_size, tmp_path / "a.tif"
    )


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("name", ["a.png", "a.jpg", "a.webp", "a.tif", "lzw.tif"])
def test_orientation_is_applied_as_pillow_would(tmp_path, orientation, name):
    colours = np.zeros((16, 24, 3), np.uint8)
    colours[:8, :8, 0], colours[8:, 16:, 1] = 255, 128
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"compression": "tiff_lzw"} if name == "lzw.tif" else {"lossless": True} if name == "a.webp" else {}
    path = saved(tmp_path / name, Image.fromarray(colours), exif=exif, **options)
    with Image.open(path) as opened:
        expected = np.asarray(ImageOps.exif_transpose(opened))
    image, _ = read_image(path)
    np.testing.assert_array_equal(image, expected.transpose(2, 0, 1))
    assert read_size(path) == image.shape
    np.testing.assert_array_equal(read_mask_values(path).values, expected)


def test_exif_behind_the_pixels_is_read(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    path = tmp_path / "a.png"
    path.write_bytes(png(np.zeros((2, 3)), 8, 0, after=chunk(b"eXIf", exif.tobytes()[6:])))
    assert read_size(path) == (1, 3, 2)
    assert read_image(path)[0].shape == (1, 3, 2)


def test_broken_exif_is_ignored(tmp_path):
    path = tmp_path / "a.png"
    path.write_bytes(png(np.zeros((2, 3)), 8, 0, before=chunk(b"eXIf", b"garbage")))
    assert read_image(path)[0].shape == (1, 2, 3)


@pytest.mark.parametrize("name", ["a.png", "a.tif"])
def test_a_header_of_30000_by_30000_is_refused_before_decoding(tmp_path, name):
    path = tmp_path / name
    if name == "a.png":
        path.write_bytes(png(np.zeros((1, 1)), 8, 0, size=(30000, 30000)))
    else:
        rows = iter([zlib.compress(b"")])
        tifffile.imwrite(path, rows, shape=(30000, 30000), dtype=np.uint8, compression="zlib", rowsperstrip=30000)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        start = time.perf_counter()
        text = message(read_image, path)
    assert time.perf_counter() - start < 2
    assert text == (
        f"{path}: expected at most 400,000,000 pixels, found 30000×30000 = 900,000,000 in the header. "
        "Cut the image into parts, or read it with larger Limits."
    )
    assert read_size(path) == (1, 30000, 30000)
    assert "expected at most 400,000,000 pixels" in message(read_mask_values, path, error=MaskError)


def test_pillows_own_limit_does_not_apply(tmp_path, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 600)
    for name in ("a.png", "a.jpg", "a.webp", "a.tif"):
        path = saved(tmp_path / name, Image.new("L" if name != "a.webp" else "RGB", (30, 30)))
        assert read_image(path)[0].shape[1:] == (30, 30)


def test_a_webp_beyond_pillows_limit_is_refused_by_name(tmp_path, monkeypatch):
    path = saved(tmp_path / "a.webp", Image.new("RGB", (30, 30)))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 300)
    assert read_size(path) == (3, 30, 30)
    assert "expected a WebP of at most 600 pixels, found 30×30 = 900. Save the image as TIFF." in message(
        read_image, path
    )
    assert "expected at most 100 pixels" in message(read_image, path, Limits(pixels=100))


@pytest.mark.parametrize("lossless", [True, False])
@pytest.mark.parametrize("mode", ["RGB", "RGBA"])
def test_webp_header_agrees_with_its_pixels(tmp_path, lossless, mode):
    colours = rng.integers(0, 256, (13, 17, len(mode)), dtype=np.uint8)
    if mode == "RGBA":
        colours[..., 3] = np.where(colours[..., 3] > 99, 255, 0)
    exif = Image.Exif()
    exif[0x0112] = 6
    for options in ({}, {"exif": exif}):
        path = saved(tmp_path / "a.webp", Image.fromarray(colours), lossless=lossless, **options)
        image, _ = read_image(path)
        assert image.shape == read_size(path) == ((3, 17, 13) if options else (3, 13, 17))


def test_limits_on_bands_and_bytes(tmp_path):
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, np.zeros((4, 4, 9), np.float32), photometric="minisblack", planarconfig="contig")
    assert "expected at most 8 bands, found 9" in message(read_image, path, Limits(bands=8))
    assert "expected at most 575 bytes once decoded, found 576" in message(read_image, path, Limits(bytes=575))
    assert read_image(path, Limits(16, 9, 576))[0].shape == (9, 4, 4)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("a.png", {}),
        ("a.jpg", {}),
        ("a.webp", {}),
        ("a.tif", {}),
        ("a.tif", {"compression": "tiff_lzw"}),
        ("a.tif", {"compression": "tiff_deflate"}),
        ("a.tif", {"compression": "jpeg"}),
    ],
)
def test_truncated_files_fail_by_name(tmp_path, name, options):
    path = saved(tmp_path / name, Image.fromarray(rng.integers(0, 256, (60, 60, 3), dtype=np.uint8)), **options)
    whole = path.read_bytes()
    assert read_image(path)[0].shape == (3, 60, 60)
    for end in (12, 40, len(whole) // 3, len(whole) // 2, len(whole) - 30, len(whole) - 1):
        path.write_bytes(whole[:end])
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            text = message(read_image, path)
        assert text.startswith(f"{path}: expected a complete ")
        assert text.endswith("Copy or export the file again, or remove it.")


def test_truncated_png_and_jpeg_are_reported_as_such(tmp_path):
    for name, kind in (("a.png", "PNG"), ("a.jpg", "JPEG")):
        path = saved(tmp_path / name, Image.fromarray(rng.integers(0, 256, (60, 60, 3), dtype=np.uint8)))
        path.write_bytes(path.read_bytes()[:2000])
        assert f"{path}: expected a complete {kind}, found one that ends early (truncated)." in message(
            read_image, path
        )


def test_a_strip_that_was_never_written_is_refused(tmp_path):
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, rng.integers(0, 255, (8, 8), dtype=np.uint8), rowsperstrip=4, compression="zlib")
    with tifffile.TiffFile(path, mode="r+") as tif:
        counts = tif.pages[0].tags["StripByteCounts"]
        counts.overwrite([counts.value[0], 0])
    assert "expected every strip or tile of the image, found 1 of 2 never written" in message(read_image, path)


def test_other_files_are_named(tmp_path):
    path = tmp_path / "notes.png"
    path.write_text("hello world, this is text")
    assert message(read_image, path) == (
        f"{path}: expected a {READABLE} file, found a text file that begins with 'hello world, this is'. "
        "Save the image as PNG or TIFF, or remove the file."
    )
    path.write_bytes(b"")
    assert "found an empty file" in message(read_image, path)
    path.write_bytes(b"\x00\x00\x00\x18ftypheic")
    assert "found a HEIC" in message(read_image, path)
    path.write_bytes(b"\x00\x00\x00\x18ftypisom")
    assert "found a video" in message(read_image, path)
    path.write_bytes(b"NRRD0004" + bytes(50))
    assert "found an NRRD volume" in message(read_size, path)
    path.write_bytes(b"BM of a sentence")
    assert "found a text file" in message(read_size, path)
    path.write_bytes(bytes(range(200, 256)))
    assert "found an unknown format" in message(read_mask_values, path, error=MaskError)
    assert "found a folder" in message(read_image, tmp_path)
    missing = f"expected a {READABLE} file, found nothing. Check the path."
    for place in (
        tmp_path / "no.png",
        path / "deeper.png",
        "https://example.org/a.png",
        "/vsicurl/http://127.0.0.1/a.tif",
    ):
        assert missing in message(read_image, place)


def test_the_name_does_not_decide(tmp_path):
    path = saved(tmp_path / "a.png", Image.new("RGB", (8, 8)), format="JPEG")
    assert read_mask_values(path).format == "JPEG"


@fast
@given(st.sampled_from(["PNG", "JPEG", "TIFF", "WEBP"]), st.integers(0, 10**6), st.binary(min_size=1, max_size=4))
def test_corrupted_files_give_an_image_or_an_image_error(tmp_path, kind, place, noise):
    buffer = io.BytesIO()
    Image.fromarray(np.arange(300, dtype=np.uint8).reshape(10, 10, 3)).save(buffer, kind)
    data = bytearray(buffer.getvalue())
    place %= len(data)
    data[place : place + len(noise)] = noise
    path = tmp_path / "a.bin"
    path.write_bytes(data)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            bands, height, width = read_image(path, Limits(pixels=10_000_000, bands=100))[0].shape
        except ImageError as error:
            text = str(error)
        else:
            text = f"{path}: expected nothing of {bands * height * width} values"
    assert text.startswith(f"{path}: expected ")


def test_files_without_ids_are_refused_as_masks(tmp_path):
    path = tmp_path / "a.tif"
    tifffile.imwrite(
        path, np.arange(80, dtype=np.uint8).reshape(4, 4, 5), photometric="minisblack", planarconfig="contig"
    )
    assert "found 5 bands of uint8" in message(read_mask_values, path, error=MaskError)
    tifffile.imwrite(path, np.array([[0.5, 1, 2]], np.float32))
    assert "expected whole numbers, found 1 fractions or NaN" in message(read_mask_values, path, error=MaskError)
    tifffile.imwrite(path, np.array([[3.0, 1, 2]], np.float32))
    assert read_mask_values(path).values.tolist() == [[3, 1, 2]]
    saved(path, Image.new("RGBA", (3, 2), (1, 2, 3, 0)))
    assert "expected an opaque mask, found 6 transparent pixels" in message(read_mask_values, path, error=MaskError)
    saved(path, Image.new("RGBA", (3, 2), (1, 2, 3, 255)))
    assert read_mask_values(path).values.shape == (2, 3, 3)


def test_to_rgb8():
    colours = rng.integers(0, 256, (3, 4, 5), dtype=np.uint8)
    np.testing.assert_array_equal(to_rgb8(colours), colours.transpose(1, 2, 0))
    np.testing.assert_array_equal(to_rgb8(colours[:1])[..., 2], colours[0])
    np.testing.assert_array_equal(to_rgb8(np.concatenate([colours, colours])), colours.transpose(1, 2, 0))
    ramp = np.linspace(1000, 2000, 101, dtype=np.float32).reshape(1, 1, 101)
    shown = to_rgb8(ramp)[0, :, 0]
    assert (shown[2], shown[50], shown[98]) == (0, 128, 255)
    assert np.all(np.diff(shown.astype(int)) >= 0)
    assert to_rgb8(np.full((2, 3, 3), 7, np.uint16)).tolist() == np.zeros((3, 3, 3)).tolist()


def test_list_images(tmp_path):
    for name in ("img10.png", "img2.JPG", "img1.tiff", ".hidden.png", "notes.txt", "b.webp"):
        (tmp_path / name).write_bytes(b"")
    (tmp_path / "folder.png").mkdir()
    assert [p.name for p in list_images(tmp_path)] == ["b.webp", "img1.tiff", "img2.JPG", "img10.png"]
    assert ".png" in IMAGE_SUFFIXES
    assert message(list_images, tmp_path / "no").endswith("expected a folder of images, found nothing. Check the path.")


def test_decoding_a_small_jpeg_is_quick(tmp_path):
    noise = Image.fromarray(rng.integers(0, 256, (90, 120, 3), dtype=np.uint8)).resize((480, 360))
    path = saved(tmp_path / "a.jpg", noise, quality=90)
    took = []
    for _ in range(15):
        start = time.perf_counter()
        read_image(path)
        took.append(time.perf_counter() - start)
    assert min(took) < 0.03, "about 3 ms on an idle machine"


@pytest.mark.skipif(not DATA.exists(), reason="the real images are not here")
@pytest.mark.parametrize(
    "pattern", ["camvid/test/*.*", "drive/test/*/*", "magnetic_tile/MT_Break/Imgs/*", "geotiff/*.tif"]
)
def test_real_images(pattern):
    files = sorted(p for p in DATA.glob(pattern) if p.suffix in IMAGE_SUFFIXES)[:4]
    assert files
    for path in files:
        image, _ = read_image(path)
        assert image.shape == read_size(path)
