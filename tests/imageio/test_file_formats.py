"""BMP, GIF, AVIF, JPEG 2000, PNM and NumPy files: every kind of pixel against an independent reader."""

import io
import itertools
import shutil
import struct
import zipfile
from pathlib import Path

import imagecodecs
import numpy as np
import pytest
import rasterio
import rasterio.shutil
from PIL import Image, features

from pixelwise.errors import ImageError, MaskError
from pixelwise.imageio.file_formats import IMAGE_SUFFIXES, image_files
from pixelwise.imageio.images import Limits, read_header, read_image, read_mask_values, read_size
from pixelwise.imageio.masks import MaskRule, read_ids, read_mask
from pixelwise.imageio.sources import open_source
from pixelwise.imageio.writing import write_prediction
from pixelwise.labels import Labels
from pixelwise.types import Prediction

pytestmark = pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
H, W = 13, 17
rng = np.random.default_rng(0)
avif = pytest.mark.skipif(not features.check("avif"), reason="this Pillow has no AVIF")


def noise(dtype, *bands, top=None):
    info = np.iinfo(dtype)
    return rng.integers(info.min, (info.max if top is None else top) + 1, (H, W, *bands)).astype(dtype)


def bands_first(values):
    return np.moveaxis(np.atleast_3d(values), -1, 0)


def agree(path, expected):
    """The image is as expected (C, H, W), and so is its header."""
    image, _ = read_image(path)
    header = read_header(path)
    assert image.dtype == expected.dtype == header.read_dtype
    assert read_size(path) == image.shape
    np.testing.assert_array_equal(image, expected)


def message(function, *arguments, error=ImageError) -> str:
    with pytest.raises(error) as caught:
        function(*arguments)
    return str(caught.value)


# BMP -----------------------------------------------------------------------------------------------------------------


def bmp(values, bits, palette=(), *, header=40, used=None, flip=False) -> bytes:
    """Write an uncompressed BMP of indices or (H, W, 3) by its specification."""
    height, width = values.shape[:2]
    rows = []
    for row in values if flip else values[::-1]:
        line = (
            row[..., ::-1].tobytes()
            if bits == 24
            else np.packbits(np.unpackbits(row[:, None].astype(np.uint8), axis=1)[:, 8 - bits :].reshape(-1)).tobytes()
        )
        rows.append(line + b"\0" * (-len(line) % 4))
    table = b"".join(bytes(c[::-1]) + b"\0" * (header != 12) for c in palette)
    if header == 12:
        head = struct.pack("<IHHHH", 12, width, height, 1, bits)
    else:
        size = -height if flip else height
        head = struct.pack("<IiiHHIIiiII", header, width, size, 1, bits, 0, 0, 0, 0, used or 0, 0) + bytes(header - 40)
    offset = 14 + len(head) + len(table)
    body = head + table + b"".join(rows)
    return b"BM" + struct.pack("<IHHI", 14 + len(body), 0, 0, offset) + body


BLACK, WHITE = (0, 0, 0), (255, 255, 255)


BMP_PALETTES = [
    (bits, kind, header, flip)
    for bits in (1, 4, 8)
    for kind in ("colours", "greys", "ramp", "two", "two reversed")
    for header in (12, 40, 108, 124)
    for flip in (False, True)
    # The first header knows neither the order of rows nor the size of the palette.
    if header != 12 or not (flip or (2 if "two" in kind else 2**bits) < 2**bits)
]


@pytest.mark.parametrize(("bits", "kind", "header", "flip"), BMP_PALETTES)
def test_bmp_with_a_palette(tmp_path, bits, kind, header, flip):
    count = 2 if "two" in kind else 2**bits
    palette = {
        "colours": [(10 * k % 256, 7 * k % 256, 255 - k) for k in range(count)],
        "greys": [(255 - 3 * k % 256,) * 3 for k in range(count)],
        "ramp": [(k,) * 3 for k in range(count)],
        "two": [BLACK, WHITE],
        "two reversed": [WHITE, BLACK],
    }[kind]
    values = rng.integers(0, count, (H, W)).astype(np.uint8)
    path = tmp_path / "a.bmp"
    path.write_bytes(bmp(values, bits, palette, header=header, used=count, flip=flip))
    colours = np.array(palette, np.uint8)[values]
    image, _ = read_image(path)
    np.testing.assert_array_equal(np.broadcast_to(image, (3, H, W)), bands_first(colours))
    raw = read_mask_values(path)
    two = bits == 1 and "two" in kind
    np.testing.assert_array_equal(raw.values, colours[..., 0] // 255 if two else values)
    assert raw.kind == "binary" if two else raw.kind in ("palette", "index")


@pytest.mark.parametrize("flip", [False, True])
def test_bmp_colours(tmp_path, flip):
    values = noise(np.uint8, 3)
    (tmp_path / "a.bmp").write_bytes(bmp(values, 24, flip=flip))
    agree(tmp_path / "a.bmp", bands_first(values))
    assert read_mask_values(tmp_path / "a.bmp").kind == "colour"


@pytest.mark.parametrize("alpha", [None, 0, 255])
def test_bmp_of_four_bytes_per_pixel(tmp_path, alpha):
    """Without masks of bits, the fourth byte has no meaning; with them it is alpha, unless it is zero everywhere."""
    values = noise(np.uint8, 3)
    stored = np.dstack([values[..., ::-1], np.full((H, W), alpha or 0, np.uint8)])[::-1]
    fields = struct.pack("<IIII", 0xFF0000, 0xFF00, 0xFF, 0xFF000000) + bytes(52)
    head = struct.pack(
        "<IiiHHIIiiII", 40 if alpha is None else 108, W, H, 1, 32, 0 if alpha is None else 3, 0, 0, 0, 0, 0
    )
    head += b"" if alpha is None else fields
    body = head + stored.tobytes()
    (tmp_path / "a.bmp").write_bytes(b"BM" + struct.pack("<IHHI", 14 + len(body), 0, 0, 14 + len(head)) + body)
    agree(tmp_path / "a.bmp", bands_first(values))
    assert read_mask_values(tmp_path / "a.bmp").values.shape == (H, W, 3)


@pytest.mark.parametrize("driver", ["Pillow", "GDAL"])
@pytest.mark.parametrize("bands", [1, 3])
def test_bmp_of_other_programs(tmp_path, bands, driver):
    values = noise(np.uint8, *(() if bands == 1 else (bands,)))
    path = tmp_path / "a.bmp"
    if driver == "Pillow":
        Image.fromarray(values).save(path)
    else:
        with rasterio.open(path, "w", driver="BMP", width=W, height=H, count=bands, dtype="uint8") as file:
            file.write(bands_first(values))
    agree(path, bands_first(values))


def test_bmp_in_run_lengths(tmp_path):
    rows = [[0] * 5 + [1] * 12, [2] * 17]
    pixels = b"".join(
        bytes([5, r[0], 12, r[-1], 0, 0]) if r[0] != r[-1] else bytes([17, r[0], 0, 0]) for r in rows[::-1]
    )
    palette = bytes(range(4 * 4))
    head = struct.pack("<IiiHHIIiiII", 40, 17, 2, 1, 8, 1, len(pixels) + 2, 0, 0, 4, 0)
    body = head + palette + pixels + b"\0\1"
    (tmp_path / "a.bmp").write_bytes(b"BM" + struct.pack("<IHHI", 14 + len(body), 0, 0, 14 + 40 + 16) + body)
    np.testing.assert_array_equal(read_mask_values(tmp_path / "a.bmp").values, rows)


# GIF -----------------------------------------------------------------------------------------------------------------


def gif(values, palette, **options) -> bytes:
    """Encode palette indices as they are, without the renumbering of Pillow."""
    image = Image.fromarray(values)
    image.putpalette([v for colour in palette for v in colour])
    buffer = io.BytesIO()
    image.save(buffer, "GIF", optimize=False, palette=bytes(v for colour in palette for v in colour), **options)
    return buffer.getvalue()


@pytest.mark.parametrize("palette", [[BLACK, WHITE], [WHITE, BLACK], [(k,) * 3 for k in (9, 0, 5, 255, 3, 1, 2, 77)]])
def test_gif_masks_of_grey_palettes_hold_grey_values(tmp_path, palette):
    values = rng.integers(0, len(palette), (H, W)).astype(np.uint8)
    (tmp_path / "a.gif").write_bytes(gif(values, palette))
    expected = np.array(palette, np.uint8)[values][..., 0]
    with Image.open(tmp_path / "a.gif") as image:
        np.testing.assert_array_equal(np.asarray(image.convert("L")), expected)
    raw = read_mask_values(tmp_path / "a.gif")
    assert raw.kind == "index"
    np.testing.assert_array_equal(raw.values, expected)
    agree(tmp_path / "a.gif", expected[None])


def test_gif_masks_of_0_and_255_are_two_classes(tmp_path):
    values = rng.integers(0, 2, (H, W)).astype(np.uint8)
    Image.fromarray(values * 255).save(tmp_path / "a.gif")
    mask, notices = read_mask(tmp_path / "a.gif", Labels(("background", "vessel")))
    np.testing.assert_array_equal(mask, values)
    assert len(notices) == 1


@pytest.mark.parametrize("ids", [[0, 1, 2], [0, 5, 9], [3, 255]])
def test_gif_keeps_ids_that_pillow_writes(tmp_path, ids):
    values = rng.choice(ids, (H, W)).astype(np.uint8)
    Image.fromarray(values).save(tmp_path / "a.gif")
    np.testing.assert_array_equal(read_ids(tmp_path / "a.gif", MaskRule(binary=False))[0], values)


def test_gif_masks_of_colours_are_read_by_their_colours(tmp_path):
    labels = Labels(("a", "b", "c"), colours=((0, 0, 0), (200, 0, 0), (0, 0, 200)))
    palette = [(0, 0, 200), (9, 9, 9), (0, 0, 0), (200, 0, 0)]
    values = rng.choice([0, 2, 3], (H, W)).astype(np.uint8)
    (tmp_path / "a.gif").write_bytes(gif(values, palette))
    np.testing.assert_array_equal(read_mask(tmp_path / "a.gif", labels)[0], np.array([2, 9, 0, 1])[values])
    agree(tmp_path / "a.gif", bands_first(np.array(palette, np.uint8)[values]))


def test_transparency_in_a_gif(tmp_path):
    values = rng.integers(0, 2, (H, W)).astype(np.uint8)
    (tmp_path / "a.gif").write_bytes(gif(values, [(0, 0, 0), (255, 255, 255)], transparency=1))
    assert not read_image(tmp_path / "a.gif")[0].any()  # over black
    np.testing.assert_array_equal(read_ids(tmp_path / "a.gif", MaskRule(binary=False))[0], values * 255)


def test_animated_gif_is_refused(tmp_path):
    frames = [Image.fromarray(noise(np.uint8)) for _ in range(3)]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:])
    assert "found an animation of several frames. Save each" in message(read_image, tmp_path / "a.gif")


# PNM -----------------------------------------------------------------------------------------------------------------


def pnm(values, magic, maximum, comment=b"") -> bytes:
    height, width = values.shape[:2]
    limit = b"" if magic in (b"P1", b"P4") else b"%d\n" % maximum
    head = magic + b"\n" + comment + b"%d %d\n" % (width, height) + limit
    if magic == b"P4":
        return head + np.packbits(values.astype(bool), axis=1).tobytes()
    if magic in (b"P1", b"P2", b"P3"):
        return head + b"\n".join(b" ".join(b"%d" % v for v in row.reshape(-1)) for row in values.tolist() and values)
    return head + values.astype(">u2" if maximum > 255 else "u1").tobytes()


@pytest.mark.parametrize("comment", [b"", b"# a comment 1 2\n#another\n"])
@pytest.mark.parametrize("maximum", [1, 3, 100, 255, 256, 4095, 65535])
@pytest.mark.parametrize("magic", [b"P2", b"P3", b"P5", b"P6"])
def test_anymaps(tmp_path, magic, maximum, comment):
    bands = 3 if magic in (b"P3", b"P6") else 1
    values = rng.integers(0, maximum + 1, (H, W, bands))
    values[0, 0] = maximum
    path = tmp_path / "a.ppm"
    path.write_bytes(pnm(values, magic, maximum, comment))
    if maximum < 255:  # Pillow stretches in the same way
        with Image.open(path) as image:
            expected = bands_first(np.asarray(image.convert("RGB" if bands == 3 else "L")))
            assert np.abs(expected.astype(int) - np.rint(bands_first(values) * 255 / maximum)).max() <= 1
        expected = np.floor(bands_first(values) * 255 / maximum + 0.5)
    else:
        expected = bands_first(values)
    agree(path, expected.astype(np.uint16 if maximum > 255 else np.uint8))
    if bands == 1:
        raw = read_mask_values(path)
        np.testing.assert_array_equal(raw.values, values[..., 0])
        assert raw.kind == ("binary" if maximum == 1 else "index")


@pytest.mark.parametrize("maximum", [255, 65535])
@pytest.mark.parametrize("bands", [1, 3])
def test_anymaps_of_gdal(tmp_path, bands, maximum):
    dtype = np.uint8 if maximum == 255 else np.uint16
    path = tmp_path / ("a.pgm" if bands == 1 else "a.ppm")
    values = noise(dtype, bands)
    with rasterio.open(path, "w", driver="PNM", width=W, height=H, count=bands, dtype=dtype, MAXVAL=maximum) as file:
        file.write(bands_first(values))
    agree(path, bands_first(values))


@pytest.mark.parametrize("magic", [b"P1", b"P4"])
def test_bitmaps_have_white_as_1(tmp_path, magic):
    values = rng.integers(0, 2, (H, W))  # 1 is black
    path = tmp_path / "a.pbm"
    path.write_bytes(pnm(values, magic, 1))
    with Image.open(path) as image:
        np.testing.assert_array_equal(np.asarray(image), values == 0)
    agree(path, ((1 - values) * 255).astype(np.uint8)[None])
    raw = read_mask_values(path)
    np.testing.assert_array_equal(raw.values, 1 - values)
    assert raw.kind == "binary"


def test_bits_as_text_without_spaces(tmp_path):
    (tmp_path / "a.pbm").write_bytes(b"P1 3 2\n101\n010")
    np.testing.assert_array_equal(read_mask_values(tmp_path / "a.pbm").values, [[0, 1, 0], [1, 0, 1]])


@pytest.mark.parametrize("maximum", [1, 200, 255, 1000])
@pytest.mark.parametrize(
    ("kind", "depth", "bands"),
    [
        ("GRAYSCALE", 1, 1),
        ("GRAYSCALE_ALPHA", 2, 1),
        ("RGB", 3, 3),
        ("RGB_ALPHA", 4, 3),
        ("SPECTRAL", 5, 5),
        ("", 4, 4),
    ],
)
def test_arbitrary_maps(tmp_path, kind, depth, bands, maximum):
    values = rng.integers(0, maximum + 1, (H, W, depth))
    if bands < depth:
        values[..., -1] = maximum
    head = f"P7\nWIDTH {W}\nHEIGHT {H}\n# x\nDEPTH {depth}\nMAXVAL {maximum}\nTUPLTYPE {kind}\nENDHDR\n".encode()
    (tmp_path / "a.pam").write_bytes(head + values.astype(">u2" if maximum > 255 else "u1").tobytes())
    expected = bands_first(values[..., :bands])
    expected = np.floor(expected * 255 / maximum + 0.5) if maximum < 255 else expected
    agree(tmp_path / "a.pam", expected.astype(np.uint16 if maximum > 255 else np.uint8))


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("bands", [1, 3])
def test_float_maps_begin_at_the_bottom(tmp_path, bands, order):
    values = rng.normal(size=(H, W, bands)).astype(np.float32)
    head = f"{'PF' if bands == 3 else 'Pf'}\n{W} {H}\n{'-1.0' if order == '<' else '1'}\n".encode()
    (tmp_path / "a.pfm").write_bytes(head + values[::-1].astype(f"{order}f4").tobytes())
    agree(tmp_path / "a.pfm", bands_first(values))


def test_broken_anymaps(tmp_path):
    path = tmp_path / "a.pgm"
    for content, found in (
        (b"P5 3 2 255\n" + bytes(6) + b"P5 3 2 255\n" + bytes(6), "found several. Save each"),
        (b"P5 3 2 10\n" + bytes([1, 2, 3, 4, 5, 11]), "value 11, but 10 as maximum"),
        (b"P2 3 2 255\n1 2 3 4 5 x", "cannot be decoded"),
        (b"P2 3 2 255\n1 2 3 4 5 6 7", "7 values for 6"),
        (b"P2 3 2 255\n1 2 3 4 5 ", "ends early"),
        (b"P5 3 0 255\n", "a size of"),
        (b"P5 3 2 70000\n" + bytes(12), "a maximum of 70000"),
    ):
        path.write_bytes(content)
        assert found in message(read_image, path), content


# JPEG 2000 -----------------------------------------------------------------------------------------------------------


def jp2(tmp_path, values, name="a.jp2", colormap=None, **options):
    """Write a JPEG 2000 file with GDAL; return its path and what GDAL reads from it."""
    bands = bands_first(values)
    profile = {"width": W, "height": H, "count": len(bands), "dtype": bands.dtype, "photometric": "minisblack"}
    with rasterio.open(tmp_path / "source.tif", "w", driver="GTiff", **profile) as file:
        file.write(bands)
        if colormap:
            file.write_colormap(1, colormap)
    path = tmp_path / name
    rasterio.shutil.copy(tmp_path / "source.tif", path, driver="JP2OpenJPEG", **options)
    with rasterio.open(path) as file:
        return path, file.read()


EXACT = {"REVERSIBLE": "YES", "QUALITY": "100"}


@pytest.mark.parametrize("codec", ["JP2", "J2K"])
@pytest.mark.parametrize("bands", [1, 2, 3, 4, 7])
@pytest.mark.parametrize(("dtype", "bits"), [("uint8", 8), ("uint16", 16), ("uint16", 12), ("int16", 16)])
def test_jpeg2000_without_loss(tmp_path, dtype, bits, bands, codec):
    values = noise(dtype, bands, top=None if bits != 12 else 4095)
    path, read = jp2(tmp_path, values, f"a.{codec.lower()}", CODEC=codec, NBITS=str(bits), **EXACT)
    np.testing.assert_array_equal(read, bands_first(values))
    agree(path, bands_first(values))
    if bands == 1:
        np.testing.assert_array_equal(read_mask_values(path).values, values[..., 0])


@pytest.mark.parametrize("bits", [1, 2, 4])
def test_jpeg2000_of_few_bits_is_stretched_in_images_and_kept_in_masks(tmp_path, bits):
    values = noise(np.uint8, top=2**bits - 1)
    path, _ = jp2(tmp_path, values, NBITS=str(bits), **EXACT)
    agree(path, (values * (255 // (2**bits - 1)))[None])
    np.testing.assert_array_equal(read_mask_values(path).values, values)


def test_jpeg2000_with_a_palette(tmp_path):
    palette = {k: (k * 60, 10, 20, 255) for k in range(4)}
    values = noise(np.uint8, top=3)
    path, read = jp2(tmp_path, values, colormap=palette, **EXACT)
    np.testing.assert_array_equal(read[0], values)
    raw = read_mask_values(path)
    assert (raw.kind, raw.palette[2]) == ("palette", (120, 10, 20))
    np.testing.assert_array_equal(raw.values, values)
    agree(path, bands_first(np.array([palette[k][:3] for k in range(4)], np.uint8)[values]))


def test_lossy_jpeg2000(tmp_path):
    smooth = np.add.outer(np.arange(H) * 9, np.arange(W) * 5).astype(np.uint8)
    path, read = jp2(tmp_path, smooth)
    agree(path, read)
    assert "found lossy JPEG 2000" in message(read_mask, path, Labels(("a", "b")), error=MaskError)
    path, read = jp2(tmp_path, np.dstack([smooth, smooth, smooth[::-1]]))
    agree(path, read)


# NumPy ---------------------------------------------------------------------------------------------------------------

NUMBERS = ["u1", "<u2", ">u2", "<u4", "<i2", ">i4", "<i8", "i1", "<f2", "<f4", ">f8"]


@pytest.mark.parametrize("archive", [None, np.savez, np.savez_compressed])
@pytest.mark.parametrize("dtype", NUMBERS)
def test_arrays(tmp_path, dtype, archive):
    dtype = np.dtype(dtype)
    for shape, fortran in itertools.product([(H, W), (1, H, W), (3, H, W), (H, W, 3), (H, W, 5)], [False, True]):
        values = rng.integers(0, 100, shape).astype(dtype)
        values = np.asfortranarray(values) if fortran else values
        path = tmp_path / ("a.npy" if archive is None else "a.npz")
        np.save(path, values) if archive is None else archive(path, values)
        expected = values[None] if len(shape) == 2 else values if shape[0] < H else np.moveaxis(values, -1, 0)
        agree(path, expected.astype(dtype.newbyteorder("=")))
        if len(expected) == 1:
            np.testing.assert_array_equal(read_mask_values(path).values, expected[0])


@pytest.mark.parametrize(
    ("shape", "bands"),
    [
        ((3, 9, 9), 3),
        ((9, 9, 3), 3),
        ((9, 9, 20), 20),
        ((20, 9, 9), 20),
        ((9, 12, 4), 4),
        ((4, 12, 9), 4),
        ((5, 9, 5), 5),
    ],
)
def test_the_axis_of_bands(tmp_path, shape, bands):
    np.save(tmp_path / "a.npy", np.zeros(shape, np.uint8))
    assert len(read_image(tmp_path / "a.npy")[0]) == bands


def test_boolean_masks(tmp_path):
    values = rng.integers(0, 2, (H, W)).astype(bool)
    np.save(tmp_path / "a.npy", values)
    raw = read_mask_values(tmp_path / "a.npy")
    assert raw.kind == "binary"
    np.testing.assert_array_equal(raw.values, values)
    agree(tmp_path / "a.npy", np.where(values, 255, 0).astype(np.uint8)[None])


def test_float_masks_hold_whole_numbers(tmp_path):
    np.save(tmp_path / "a.npy", np.array([[0.0, 1.0, -1.0]]))
    np.testing.assert_array_equal(read_mask_values(tmp_path / "a.npy").values, [[0, 1, -1]])
    np.save(tmp_path / "a.npy", np.array([[0.0, 1.5]]))
    assert "found 1 fractions" in message(read_mask_values, tmp_path / "a.npy", error=MaskError)


def test_arrays_that_are_no_images(tmp_path):
    path, archive = tmp_path / "a.npy", tmp_path / "a.npz"
    for values, found in (
        (np.array([{}, []], object), "found one of object"),
        (np.zeros((2, 2), complex), "found one of complex128"),
        (np.array([["a"]]), "found one of <U1"),
        (np.zeros((2, 2), "M8[s]"), "found one of datetime64[s]"),
        (np.zeros(4), "found shape (4,)"),
        (np.zeros((1, 2, 3, 4)), "found shape (1, 2, 3, 4)"),
        (np.zeros((0, 4)), "found shape (0, 4)"),
    ):
        np.save(path, values, allow_pickle=True)
        assert found in message(read_image, path)
        np.savez(archive, values)
        assert found in message(read_image, archive)
    np.savez(archive, image=np.zeros((2, 2)), mask=np.zeros((2, 2)))
    assert message(read_image, archive).endswith(
        "found 2 (image, mask). Save the one that matters: np.save(path, np.load(file)['image'])."
    )
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("a.txt", "x")
    assert "found a ZIP archive without arrays" in message(read_image, archive)


# AVIF ----------------------------------------------------------------------------------------------------------------


@avif
@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA"])
def test_avif(tmp_path, mode):
    smooth = np.add.outer(np.arange(40), np.arange(60)).astype(np.uint8)
    values = {"L": smooth, "RGB": np.dstack([smooth] * 3), "RGBA": np.dstack([smooth] * 3 + [smooth * 0 + 255])}[mode]
    exif = Image.Exif()
    exif[0x0112] = 6
    path = tmp_path / "a.avif"
    Image.fromarray(values).save(path, quality=95, exif=exif)
    image, _ = read_image(path)
    assert image.shape == read_size(path) == (1 if mode == "L" else 3, 60, 40)
    assert np.abs(image.astype(int) - np.rot90(smooth, -1)).max() < 8
    assert "found lossy AVIF" in message(read_mask, path, Labels(("a", "b")), error=MaskError)


@avif
@pytest.mark.parametrize("bits", [10, 12])
def test_avif_of_more_bits(tmp_path, bits):
    values = (np.add.outer(np.arange(40), np.arange(60)) * 2 ** (bits - 8)).astype(np.uint16)
    path = tmp_path / "a.avif"
    path.write_bytes(imagecodecs.avif_encode(np.dstack([values] * 3), bitspersample=bits, level=100))
    image, _ = read_image(path)
    assert image.dtype == np.uint16 == read_header(path).dtype
    assert np.abs(image.astype(int) - values).max() < 2**bits / 64


# All of them ---------------------------------------------------------------------------------------------------------


def files(tmp_path) -> dict[str, bytes]:
    """One file of each kind, all of noise, so that there is no redundancy."""
    grey, colours = noise(np.uint8), noise(np.uint8, 3)
    made = {"a.ppm": pnm(colours, b"P6", 255), "a.pgm": pnm(noise(np.uint16, 1), b"P5", 65535), "t.pgm": b""}
    made["t.pgm"] = pnm(grey[..., None], b"P2", 255)[:-4]
    made["a.pbm"] = pnm(grey % 2, b"P4", 1)
    made["a.bmp"] = bmp(colours, 24)
    made["a.gif"] = gif(grey, [(k, 255 - k, k) for k in range(256)])
    made["a.j2k"] = imagecodecs.jpeg2k_encode(colours, reversible=True, level=0, codecformat="j2k")
    made["a.jp2"] = imagecodecs.jpeg2k_encode(grey, reversible=True, level=0)
    for name, save in (("a.npy", np.save), ("a.npz", np.savez), ("b.npz", np.savez_compressed)):
        save(tmp_path / name, colours)
        made[name] = (tmp_path / name).read_bytes()
    if features.check("avif"):
        Image.fromarray(colours).save(tmp_path / "a.avif")
        made["a.avif"] = (tmp_path / "a.avif").read_bytes()
    return made


def test_truncated_files_are_errors(tmp_path):
    for name, content in files(tmp_path).items():
        path = tmp_path / name
        # The terminator of a GIF and the padding of the last row of a BMP are not needed; a number as text may be cut.
        end = len(content) - {"a.gif": 2, "a.bmp": 1, "t.pgm": 8}.get(name, 0)
        for length in {*range(1, min(end, 60), 3), *range(60, end, max(end // 12, 1)), end - 1}:
            path.write_bytes(content[:length])
            text = message(read_image, path)
            assert str(path) in text, (name, length)


def test_limits_are_checked_before_decoding(tmp_path):
    for name, content in files(tmp_path).items():
        if name == "t.pgm":
            continue
        (tmp_path / name).write_bytes(content)
        found = message(lambda path: read_image(path, Limits(pixels=200)), tmp_path / name)
        assert f"at most 200 pixels, found {W}×{H} = {W * H} in the header" in found


@pytest.mark.parametrize("size", [(100_000, 100_000), (2**31 - 1, 3)])
def test_a_large_header_allocates_nothing(tmp_path, size):
    width, height = size
    head = np.lib.format.header_data_from_array_1_0(np.zeros((1, 1), np.uint8)) | {"shape": (height, width)}
    buffer = io.BytesIO()
    np.lib.format.write_array_header_1_0(buffer, head)
    stream = bytearray(imagecodecs.jpeg2k_encode(noise(np.uint8), reversible=True, level=0, codecformat="j2k"))
    stream[8:16] = struct.pack(">II", width, height)
    coloured = bmp(noise(np.uint8, 3), 24)
    for name, content in (
        ("a.npy", buffer.getvalue()),
        ("a.pgm", b"P5 %d %d 255\n" % (width, height)),
        ("a.j2k", bytes(stream)),
        ("a.bmp", coloured[:18] + struct.pack("<ii", width, height) + coloured[26:]),
    ):
        (tmp_path / name).write_bytes(content)
        text = message(read_image, tmp_path / name)
        assert "in the header" in text or "ends early" in text, text


def test_the_content_decides(tmp_path):
    for name, content in files(tmp_path).items():
        if name == "t.pgm":
            continue
        (tmp_path / name).write_bytes(content)
        shutil.copy(tmp_path / name, tmp_path / "x.png")
        np.testing.assert_array_equal(read_image(tmp_path / "x.png")[0], read_image(tmp_path / name)[0])


def test_predictions_of_all_kinds_are_png(tmp_path):
    labels = Labels(("a", "b"))
    for name, content in files(tmp_path).items():
        if name == "t.pgm":
            continue
        (tmp_path / name).write_bytes(content)
        source = open_source(tmp_path / name)
        image, valid = source.read()
        assert image.shape == (source.channels, *source.shape)
        assert image.dtype == source.dtype
        prediction = Prediction(np.ones(source.shape, np.uint8), labels, source.grid, "a", None, valid)
        written = write_prediction(prediction, tmp_path / "out" / name, like=source)
        assert written.name == f"{Path(name).stem}.png"


def test_suffixes():
    names = [
        f"a{suffix}" for suffix in (".png", ".JPG", ".jfif", ".jpe", ".bmp", ".gif", ".jp2", ".j2k", ".pgm", ".avif")
    ]
    assert [path.name for path in image_files(map(Path, [*names, "a.txt", "a.nii", "a.seg.nrrd"]))] == names
    assert [path.name for path in image_files([Path("a.npy"), Path("b.NPZ")])] == ["a.npy", "b.NPZ"]
    assert ".npy" in IMAGE_SUFFIXES


def test_arrays_beside_images_are_caches_unless_their_name_adds_something():
    names = ["i/a.jpg", "i/a.npy", "i/features.npz", "i/a_mask.npy", "i/mask_a.npy", "n/b.npy", "n/c.npz"]
    images = [path.as_posix() for path in image_files(map(Path, names))]
    assert images == ["i/a.jpg", "i/a_mask.npy", "i/mask_a.npy", "n/b.npy", "n/c.npz"]
