"""Compressed DICOM pixels equal the uncompressed original, for every kind of stored value."""

from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import pydicom
import pytest
from pydicom.encaps import encapsulate, encapsulate_extended
from pydicom.uid import (
    HTJ2K,
    UID,
    HTJ2KLossless,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGExtended12Bit,
    JPEGLossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    JPEGLSNearLossless,
    RLELossless,
)
from tests.imageio.dicom_files import AXIAL, ORIGIN, SPACING, dataset, save

from pixelwise.errors import ImageError
from pixelwise.imageio.dicom import read_file, read_pixels
from pixelwise.imageio.dicom_pixels import _PLUGINS, decode
from pixelwise.imageio.sources import open_source

SIZE = (37, 30)


def encoded(syntax: UID, frame: np.ndarray, bits: int) -> bytes:
    """Compress a frame without loss with imagecodecs, or with pydicom for RLE."""
    if syntax in (JPEGLossless, JPEGLosslessSV1):
        return imagecodecs.ljpeg_encode(frame.view(f"u{frame.itemsize}"), bitspersample=bits)
    if syntax == JPEGLSLossless:
        return imagecodecs.jpegls_encode(frame.view(f"u{frame.itemsize}"))
    if syntax == JPEG2000Lossless:
        return imagecodecs.jpeg2k_encode(frame, codecformat="J2K", reversible=True, level=0, bitspersample=bits)
    return imagecodecs.htj2k_encode(frame)


def compressed(one: Any, frames: np.ndarray, syntax: UID, bits: int, extended: bool = False) -> Any:
    """Replace the pixels of a data set by compressed ones."""
    if syntax == RLELossless:
        one.compress(RLELossless, frames, encoding_plugin="pydicom", generate_instance_uid=False)
        return one
    pieces = [encoded(syntax, frame, bits) for frame in (frames if frames.ndim == 3 else frames[np.newaxis])]
    if extended:
        one.PixelData, one.ExtendedOffsetTable, one.ExtendedOffsetTableLengths = encapsulate_extended(pieces)
    else:
        one.PixelData = encapsulate(pieces)
    one["PixelData"].VR = "OB"
    one["PixelData"].is_undefined_length = True
    one.file_meta.TransferSyntaxUID = syntax
    return one


KINDS: dict[str, tuple[str, int, dict[str, Any]]] = {
    "12 of 16 bits": ("uint16", 12, {"RescaleSlope": 1, "RescaleIntercept": -1024}),
    "16 bits": ("uint16", 16, {}),
    "8 bits": ("uint8", 8, {}),
    "signed": ("int16", 16, {"RescaleSlope": 1, "RescaleIntercept": 0}),
    "signed, 12 bits": ("int16", 12, {}),
    "white is 0": (
        "uint16",
        12,
        {"PhotometricInterpretation": "MONOCHROME1", "RescaleIntercept": -7, "RescaleSlope": 1},
    ),
    "slope of a fraction": ("uint16", 12, {"RescaleSlope": 0.37, "RescaleIntercept": -12.5}),
    "negative slope": ("int16", 12, {"RescaleSlope": -2, "RescaleIntercept": 3}),
}
SYNTAXES = [RLELossless, JPEGLossless, JPEGLosslessSV1, JPEGLSLossless, JPEG2000Lossless, HTJ2KLossless, HTJ2K]


def stored(dtype: str, bits: int, count: int = 0) -> np.ndarray:
    """Return smooth values with both ends of the range, (H, W) or (count, H, W)."""
    low = -(2 ** (bits - 1)) if dtype.startswith("int") else 0
    shape = (count, *SIZE) if count else SIZE
    ramp = np.linspace(low, low + 2**bits - 1, int(np.prod(shape))).reshape(shape)
    noise = np.random.default_rng(bits).integers(-20, 20, shape)
    values = np.clip(ramp + noise, low, low + 2**bits - 1).astype(dtype)
    values[..., 0, 0], values[..., -1, -1] = low, low + 2**bits - 1
    return values


def expected(kind: str, values: np.ndarray) -> np.ndarray:
    """Return the real values by hand from the standard."""
    dtype, bits, tags = KINDS[kind]
    low = -(2 ** (bits - 1)) if dtype.startswith("int") else 0
    plain = values.astype(float)
    if tags.get("PhotometricInterpretation") == "MONOCHROME1":
        plain = low + (low + 2**bits - 1) - plain
    return plain * tags.get("RescaleSlope", 1) + tags.get("RescaleIntercept", 0)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("syntax", [None, ImplicitVRLittleEndian, *SYNTAXES], ids=lambda uid: uid and uid.name)
def test_a_compressed_slice_equals_the_original(tmp_path: Path, syntax: UID | None, kind: str) -> None:
    dtype, bits, tags = KINDS[kind]
    values = stored(dtype, bits)
    place = {
        "ImagePositionPatient": ORIGIN.tolist(),
        "ImageOrientationPatient": list(AXIAL),
        "PixelSpacing": list(SPACING),
    }
    one = dataset(values, BitsStored=bits, HighBit=bits - 1, **place, **tags)
    if syntax == ImplicitVRLittleEndian:
        one.file_meta.TransferSyntaxUID = syntax
    elif syntax is not None:
        one = compressed(one, values, syntax, bits)
    image = open_source(save(tmp_path / "a", one)).read()[0][0, 0]
    np.testing.assert_allclose(image, expected(kind, values), rtol=1e-6)
    integers = all(float(tags.get(name, 0)).is_integer() for name in ("RescaleSlope", "RescaleIntercept"))
    assert image.dtype.kind == ("f" if not integers else values.dtype.kind if not tags else image.dtype.kind)


@pytest.mark.parametrize("extended", [False, True], ids=["basic offsets", "extended offsets"])
@pytest.mark.parametrize("syntax", SYNTAXES, ids=lambda uid: uid.name)
@pytest.mark.parametrize("kind", ["12 of 16 bits", "signed", "8 bits"])
def test_any_frames_of_a_compressed_file_equal_the_originals(
    tmp_path: Path, syntax: UID, kind: str, extended: bool
) -> None:
    dtype, bits, tags = KINDS[kind]
    values = stored(dtype, bits, 4)
    one = dataset(values, BitsStored=bits, HighBit=bits - 1, Modality="US", **tags)
    path = save(tmp_path / "a", compressed(one, values, syntax, bits, extended and syntax != RLELossless))
    frames = read_file(path).frames
    for chosen in ([0, 1, 2, 3], [2], [3, 1]):
        for k, decoded in zip(chosen, decode([frames[k] for k in chosen]), strict=True):
            np.testing.assert_array_equal(decoded, expected(kind, values[k]))


@pytest.mark.parametrize(
    "syntax", [None, JPEGLosslessSV1, JPEGLSLossless, JPEG2000Lossless], ids=lambda uid: uid and uid.name
)
def test_the_sign_of_12_bits_is_extended(tmp_path: Path, syntax: UID | None) -> None:
    values = stored("int16", 12)
    one = dataset(values & 0x0FFF, Modality="DX", BitsStored=12, HighBit=11)
    if syntax is not None:
        one = compressed(one, (values & 0x0FFF).view(np.uint16), syntax, 12)
    np.testing.assert_array_equal(open_source(save(tmp_path / "a", one)).read()[0][0], values)


@pytest.mark.parametrize("dtype", ["uint16", "int16"])
@pytest.mark.parametrize("count", [0, 3])
def test_bits_that_are_stored_above_unused_ones_are_the_value(tmp_path: Path, dtype: str, count: int) -> None:
    values = stored(dtype, 12, count)
    one = dataset(values << 4, Modality="US", BitsStored=12, HighBit=15)
    path = save(tmp_path / "a", one)
    found = np.stack(list(decode(read_file(path).frames)))
    np.testing.assert_array_equal(found, values.reshape(found.shape))


def test_lossy_compressions_are_close(tmp_path: Path) -> None:
    values = (stored("uint8", 8) // 4 * 3).astype(np.uint8)
    wide = stored("uint16", 12)
    for syntax, pixels, data, most in (
        (JPEGBaseline8Bit, values, imagecodecs.jpeg_encode(values, level=98), 8),
        (JPEGExtended12Bit, wide, imagecodecs.jpeg_encode(wide, level=98, bitspersample=12), 80),
        (JPEGLSNearLossless, values, imagecodecs.jpegls_encode(values, level=3), 3),
    ):
        bits = 8 if pixels.dtype == np.uint8 else 12
        one = dataset(pixels, BitsStored=bits, HighBit=bits - 1, Modality="DX")
        one.PixelData = encapsulate([data])
        one["PixelData"].is_undefined_length = True
        one.file_meta.TransferSyntaxUID = syntax
        image = open_source(save(tmp_path / syntax, one)).read()[0][0]
        assert image.dtype == pixels.dtype
        assert np.abs(image.astype(int) - pixels).max() <= most, syntax.name


def test_big_endian_files_are_read() -> None:
    folder = Path(pydicom.__file__).parent / "data/test_files"
    little, big = (read_pixels(folder / f"{name}.dcm")[1] for name in ("MR_small", "MR_small_bigendian"))
    np.testing.assert_array_equal(big, little)


@pytest.mark.parametrize("colour", ["RGB", "YBR_FULL"])
def test_colours_of_jpeg_are_rgb(tmp_path: Path, colour: str) -> None:
    smooth = np.linspace(0, 255, 48 * 40).reshape(48, 40)
    values = np.stack([smooth, smooth[::-1], np.full_like(smooth, 90)], axis=-1).astype(np.uint8)
    one = dataset(values, BitsStored=8, HighBit=7, Modality="XC", PhotometricInterpretation=colour)
    options = {"colorspace": "RGB", "outcolorspace": "YCbCr" if colour == "YBR_FULL" else "RGB"}
    one.PixelData = encapsulate([imagecodecs.jpeg_encode(values, level=98, subsampling="444", **options)])
    one["PixelData"].is_undefined_length = True
    one.file_meta.TransferSyntaxUID = JPEGBaseline8Bit
    image = open_source(save(tmp_path / "a", one)).read()[0]
    assert np.abs(image.transpose(1, 2, 0).astype(int) - values).max() <= 8


def test_decoders_under_the_gpl_are_never_used() -> None:
    assert not [name for name in _PLUGINS if "pylibjpeg" in name]


@pytest.mark.parametrize("name", ["J2K_pixelrep_mismatch", "693_J2KI", "JPGExtended", "MR_small_jp2klossless"])
def test_files_of_scanners_are_read(name: str) -> None:
    path = Path(pydicom.__file__).parent / f"data/test_files/{name}.dcm"
    image = read_pixels(path)[1] if name != "JPGExtended" else open_source(path).read()[0]
    assert image.max() > image.min()


def test_broken_compressed_pixels_are_refused_by_name(tmp_path: Path) -> None:
    values = stored("uint16", 12)
    for syntax in SYNTAXES:
        one = compressed(dataset(values, Modality="DX"), values, syntax, 12)
        whole = save(tmp_path / "broken", one).read_bytes()
        (tmp_path / "broken").write_bytes(whole[: len(whole) * 2 // 3])
        with pytest.raises(ImageError, match="broken: expected"):
            open_source(tmp_path / "broken").read()
