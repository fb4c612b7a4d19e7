"""Images and the raw values of masks, decoded from PNG, JPEG, TIFF and WebP.

Comes in: the path of one local file. Goes out: an image (C, H, W) in the file's own bit depth with its `Grid`, or the
values of a mask before they mean anything. Knows nothing of classes, data sets or torch.

What every reader here holds to:

- The content decides the format, never the name; nothing but a regular local file is opened.
- The header is read and `Limits` are held before a pixel is decoded. A file that ends early fails by name.
- EXIF orientation (and the TIFF tag) is applied, to images and masks alike.
- Alpha is not a band of light. Fully opaque, it is dropped; else the image is laid over black, so that colours hidden
  behind alpha 0 never leak. Where more than half of the pixels are half transparent the fourth band is hardly alpha
  (some writers call near infrared so), and the file is refused.
- Palettes become their colours; CMYK becomes RGB by (1 - C) · (1 - K), colour profiles are left aside; grey of less than
  8 bits is stretched to 0–255. Everything else stays as stored: 8 and 16 bits, whole numbers or floats, 1…N bands.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

import numpy as np
from numpy.typing import NDArray

from pixelwise.errors import DataError, ImageError, MaskError
from pixelwise.grid import Grid
from pixelwise.imageio.raster import Header, Raster, Refused, Source, open_webp, open_with_pillow
from pixelwise.imageio.safe_reading import reading, require_file
from pixelwise.labels import Colour

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".webp")

_MAGIC = (
    (b"\x89PNG\r\n\x1a\n", "PNG"),
    (b"\xff\xd8\xff", "JPEG"),
    (b"II*\0", "TIFF"),
    (b"MM\0*", "TIFF"),
    (b"II+\0", "TIFF"),
    (b"MM\0+", "TIFF"),
)
_FOREIGN = (
    (b"GIF8", "a GIF"),
    (b"BM", "a BMP"),
    (b"%PDF", "a PDF"),
    (b"\0\0\0\x0cjP  ", "a JPEG 2000"),
    (b"PK\x03\x04", "a ZIP archive"),
    (b"\x1f\x8b", "a gzip archive"),
    (b"version https://git-lfs", "a Git LFS pointer"),
    (b"<", "a web page or XML"),
)
_T = TypeVar("_T")


@dataclass(frozen=True)
class Limits:
    """Hold what a header may claim before anything is decoded: pixels, bands, and bytes of memory once decoded."""

    pixels: int = 400_000_000
    bands: int = 1024
    bytes: int = 16_000_000_000


@dataclass(frozen=True)
class RawMask:
    """Hold the values of a mask file, before they mean anything.

    Args:
        values: (H, W) integers; (H, W, 3) uint8 colours where `kind` is "colour", or "lossy" in colour.
        kind: "index" (grey integers), "palette" (indices into `palette`), "binary" (1-bit, 0 and 1), "colour", or
            "lossy" (a compression that changes values).
        palette: the colours of a "palette" mask.
        format: PNG, JPEG, TIFF or WebP.

    """

    values: NDArray[Any]
    kind: str
    palette: list[Colour] | None
    format: str


def read_image(path: Path | str, limits: Limits = Limits()) -> tuple[NDArray[Any], Grid]:
    """Read an image.

    Returns:
        The image (C, H, W), contiguous, in the type of the file (uint8, uint16, int16, float32, …), and its grid.

    Raises:
        ImageError: no readable image, one beyond the limits, or one with NaN or infinite pixels.

    """
    return read_measured(path, None, limits)[:2]


def read_measured(
    path: Path | str, nodata: float | None, limits: Limits = Limits()
) -> tuple[NDArray[Any], Grid, NDArray[np.bool_] | None]:
    """Do what `read_image` does, where one value stands for "nothing was measured here".

    Fractions: a pixel was measured where all of its bands were. Whole numbers: where any was, since 0 is a colour, too.

    Returns:
        The image, its grid, and which pixels (H, W) were measured (None where `nodata` is). Among fractions the others
        hold the smallest value that was, so that -9999 or NaN meets no network; whole numbers stay as stored.

    """

    def work(source: Source) -> tuple[NDArray[Any], Grid, NDArray[np.bool_] | None]:
        header, decode = source
        _hold(header, limits)
        light = _light(decode())
        light, measured = (light, None) if nodata is None else _measured(light, nodata)
        require_finite(light)
        return np.ascontiguousarray(np.moveaxis(light, -1, 0)), header.grid or Grid(), measured

    return _with_source(Path(path), ImageError, work)


def read_header(path: Path | str) -> Header:
    """Read what a file says of its pixels.

    Raises:
        ImageError: no readable header.

    """
    return _with_source(Path(path), ImageError, lambda source: source[0])


def read_size(path: Path | str) -> tuple[int, int, int]:
    """Give (bands, H, W) as `read_image` would, from the header alone.

    Raises:
        ImageError: no readable header.

    """
    header = read_header(path)
    return (header.bands, *header.turned_size)


def read_orientation(path: Path | str) -> int:
    """Give the EXIF orientation, 1–8, that `read_image` undoes; 1 where the file says none.

    Raises:
        ImageError: no readable header.

    """
    return read_header(path).orientation


def read_mask_values(path: Path | str, limits: Limits = Limits()) -> RawMask:
    """Read the values of a mask as they are stored, turned upright.

    Raises:
        MaskError: no readable image, one beyond the limits, several bands, transparent pixels, or fractions.

    """
    path = Path(path)

    def work(source: Source) -> RawMask:
        header, decode = source
        _hold(header, limits)
        raster = decode()
        values = _opaque(raster)
        kind = {"bit": "binary", "grey": "index", "palette": "palette", "rgb": "colour"}.get(header.kind, "cmyk")
        wanted = {"colour": 3}.get(kind, 1)
        if values.shape[2] != wanted or (kind == "colour" and values.dtype != np.uint8) or kind == "cmyk":
            found = f"{values.shape[2]} bands of {values.dtype.name}"
            raise Refused("one band of class ids, or RGB colours of 8 bits", found, "Save the mask as an 8-bit PNG.")
        if kind == "binary" and header.inverted:
            values = 1 - values
        values = np.ascontiguousarray(values if kind == "colour" else whole(values[..., 0]))
        colours = None if raster.palette is None else [(r, g, b) for r, g, b, _ in raster.palette.tolist()]
        return RawMask(values, "lossy" if header.lossy else kind, colours, header.format)

    return _with_source(path, MaskError, work)


def to_rgb8(image: NDArray[Any]) -> NDArray[np.uint8]:
    """Make an image that a screen can show.

    8-bit values stay; others are stretched per band between their 2nd and 98th percentile. One or two bands are shown
    as the grey of the first, more as the first three.

    Args:
        image: (C, H, W).

    Returns:
        (H, W, 3) uint8.

    """
    shown = np.moveaxis(image[: 3 if len(image) >= 3 else 1], 0, -1)
    if shown.dtype != np.uint8:
        step = max(1, int((shown.shape[0] * shown.shape[1] / 1_000_000) ** 0.5))
        some = shown[::step, ::step].reshape(-1, shown.shape[2]).astype(np.float32)
        low, high = np.nan_to_num(np.nanpercentile(some, (2, 98), axis=0)).astype(np.float32)
        span = np.where(high > low, high - low, 1)
        with np.errstate(over="ignore", invalid="ignore"):
            scaled = (shown.astype(np.float32) - low) / span
        shown = (np.clip(np.nan_to_num(scaled), 0, 1) * 255 + 0.5).astype(np.uint8)
    return np.ascontiguousarray(np.broadcast_to(shown, (*shown.shape[:2], 3)))


def list_images(folder: Path | str) -> list[Path]:
    """List the images that lie directly in a folder, by `IMAGE_SUFFIXES`, 2 before 10; hidden files are left out.

    Raises:
        ImageError: no such folder.

    """
    folder = Path(folder)
    if not folder.is_dir():
        found = "a file" if folder.exists() else "nothing"
        raise ImageError(folder, expected="a folder of images", found=found, do="Check the path.")
    files = [p for p in folder.iterdir() if p.suffix.lower() in IMAGE_SUFFIXES and not p.name.startswith(".")]
    return sorted((p for p in files if p.is_file()), key=lambda p: natural_key(p.name))


def natural_key(name: str) -> tuple[list[tuple[int, str]], str]:
    """Give a key that sorts numbers inside names by value: img2 before img10."""
    parts = re.split(r"([0-9]+)", name.lower())
    return [(int(part), "") if place % 2 else (0, part) for place, part in enumerate(parts)], name


def _with_source(path: Path, error: type[DataError], work: Callable[[Source], _T]) -> _T:
    """Open a file, do the work with its header and decoder, and turn every failure into one `error` with the path."""
    with reading(path, error, "image") as meant:
        require_file(path, "a PNG, JPEG, TIFF or WebP file")
        with path.open("rb") as file:
            meant.name = _format(file)
            return work(_open(file, meant.name))


def _format(file: BinaryIO) -> str:
    start = file.read(32)
    for magic, name in _MAGIC:
        if start.startswith(magic):
            return name
    if start[:4] == b"RIFF" and start[8:12] == b"WEBP":
        return "WebP"
    foreign = next((name for magic, name in _FOREIGN if start.startswith(magic)), None)
    if start[4:8] == b"ftyp":
        foreign = "a HEIC, AVIF or video"
    if foreign is None:
        text = all(byte in b"\t\n\r" or 32 <= byte < 127 for byte in start)
        foreign = f"a text file that begins with {start[:20].decode()!r}" if text else "an unknown format"
    raise Refused("a PNG, JPEG, TIFF or WebP file", foreign, "Save the image as PNG or TIFF, or take the file out.")


def _open(file: BinaryIO, name: str) -> Source:
    if name == "WebP":
        return open_webp(file)
    if name != "TIFF":
        return open_with_pillow(file, name)
    from pixelwise.imageio.tiff import open_tiff  # tifffile takes long to import, and most data sets hold no TIFF

    return open_tiff(file)


def _hold(header: Header, limits: Limits) -> None:
    height, width = header.size
    if height * width > limits.pixels:
        raise Refused(
            f"at most {limits.pixels:,} pixels",
            f"{width}×{height} = {height * width:,} in the header",
            "Cut the image into parts, or read it with larger Limits.",
        )
    if header.samples > limits.bands:
        raise Refused(f"at most {limits.bands} bands", str(header.samples), "Choose the bands that matter.")
    size = height * width * max(header.samples, header.bands) * header.dtype.itemsize
    if size > limits.bytes:
        raise Refused(f"at most {limits.bytes:,} bytes once decoded", f"{size:,}", "Cut the image into parts.")


def _light(raster: Raster) -> NDArray[Any]:
    """Give the bands of light (H, W, C) of a raster, as the module's rules say."""
    header, values = raster.header, raster.values
    if raster.palette is not None:
        if values.max() >= len(raster.palette):
            found = f"index {values.max()}"
            raise Refused(f"palette indices 0–{len(raster.palette) - 1}", found, "Save the image as RGB.")
        colours = raster.palette[values[..., 0]]
        return _over_black(colours[..., :3], colours[..., 3:], 255)
    top = _top(header)
    alpha = None
    if raster.clear is not None:
        alpha = np.where(np.all(raster.values == raster.clear, axis=-1, keepdims=True), 0, top).astype(values.dtype)
    if header.alpha is not None:
        alpha = values[..., header.alpha : header.alpha + 1]
        values = np.delete(values, header.alpha, axis=-1)
        if header.premultiplied:
            _require_alpha(alpha, top)
            alpha = None
    if header.inverted:  # of the light alone: alpha is never turned around
        values = (top - values).astype(values.dtype)
    if header.kind == "cmyk":
        ink = values[..., 3:4]
        values = np.concatenate([_times(top - values[..., :3], top - ink, top), values[..., 4:]], axis=-1)
    if alpha is not None:
        values = _over_black(values, alpha, top)
    if header.bits < 8 and values.dtype == np.uint8:
        values = (values.astype(np.uint16) * 255 // top).astype(np.uint8)
    return values


def _top(header: Header) -> int:
    """Give the stored value that means fully bright or fully opaque."""
    if header.dtype.kind == "u":
        return 2**header.bits - 1
    return int(np.iinfo(header.dtype).max) if header.dtype.kind == "i" else 1


def _over_black(values: NDArray[Any], alpha: NDArray[Any], top: int) -> NDArray[Any]:
    if np.all(alpha == top):
        return values
    _require_alpha(alpha, top)
    return _times(values, alpha, top)


def _require_alpha(alpha: NDArray[Any], top: int) -> None:
    between = float(np.mean((alpha > 0) & (alpha < top)))
    if between > 0.5:
        raise Refused(
            "an alpha band that is mostly opaque or clear",
            f"values between in {between:.0%} of the pixels",
            "If it is a band of light (near infrared, say), mark it so "
            "(tifffile.imwrite(…, extrasamples=['unspecified'])); else save the image without alpha.",
        )


def _times(values: NDArray[Any], share: NDArray[Any], top: int) -> NDArray[Any]:
    """Multiply by share / top, rounded where the values are whole numbers."""
    if values.dtype.kind == "f":
        return values * share
    wide = np.uint32 if values.dtype.itemsize <= 2 and values.dtype.kind == "u" else np.float64
    product = values.astype(wide) * share.astype(wide)
    return ((product + wide(top // 2)) // wide(top)).astype(values.dtype)


def require_finite(light: NDArray[Any]) -> None:
    """Refuse an image (H, W, C) with NaN or infinite pixels.

    Raises:
        Refused: it has some.
    """
    if light.dtype.kind != "f" or np.isfinite(light).all():
        return
    counts = {"NaN": np.isnan(light).any(axis=-1).sum(), "infinite": np.isinf(light).any(axis=-1).sum()}
    found = " and ".join(f"{int(n)} {what} pixel{'s' * (int(n) != 1)}" for what, n in counts.items() if n)
    raise Refused(
        "finite values",
        found,
        "Fill those pixels with a number and mark them as ignored in the mask, or cut the image to where it has data.",
    )


def _measured(light: NDArray[Any], nodata: float) -> tuple[NDArray[Any], NDArray[np.bool_]]:
    """Tell where (H, W) something was measured; fill fractions that were not."""
    if light.dtype.kind != "f":
        whole_number = np.isfinite(nodata) and nodata == np.round(nodata)
        return light, (light != int(nodata)).any(axis=-1) if whole_number else np.ones(light.shape[:2], bool)
    with np.errstate(over="ignore"):
        absent = (np.isnan(light) if np.isnan(nodata) else light == light.dtype.type(nodata)).any(axis=-1)
    if absent.any():
        least = np.zeros(light.shape[2], light.dtype) if absent.all() else light[~absent].min(axis=0)
        light = np.where(absent[..., np.newaxis], least, light)
    return light, ~absent


def _opaque(raster: Raster) -> NDArray[Any]:
    """Give a mask's values without their alpha, which must hide nothing."""
    place, values = raster.header.alpha, raster.values
    if place is None:
        return values
    hidden = int(np.count_nonzero(values[..., place] != _top(raster.header)))
    if hidden:
        found = f"{hidden} transparent pixel{'s' * (hidden != 1)}"
        raise Refused("an opaque mask", found, "Save the mask without transparency.")
    return np.delete(values, place, axis=-1)


def whole(values: NDArray[Any]) -> NDArray[Any]:
    """Give integers; floats that hold whole numbers are taken as such.

    Raises:
        Refused: fractions, or numbers beyond all ids.
    """
    if values.dtype.kind != "f":
        return values
    odd = int(np.count_nonzero(~np.isfinite(values) | (values != np.round(values))))
    top = 0.0 if odd else float(np.abs(values).max())
    if odd or top > 2**31:
        found = f"{odd} fractions or NaN among float values" if odd else f"float values up to ±{top:.3g}"
        raise Refused("whole numbers", found, "Save the mask as whole numbers.")
    return values.astype(np.int32 if top < 2**31 else np.int64)
