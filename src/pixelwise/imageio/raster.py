"""One image file as stored: its header first, its pixels on demand; PNG, JPEG and WebP through Pillow.

Comes in: an open file. Goes out: a `Header`, and a function that decodes the pixels exactly as they are stored: no
colour conversion, no rescaling, no turning. Knows nothing of classes, limits or what the pixels are for.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, BinaryIO, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFile, JpegImagePlugin, PngImagePlugin, WebPImagePlugin

from pixelwise.grid import Grid

Kind = Literal["bit", "grey", "palette", "rgb", "cmyk"]


class Refused(Exception):  # noqa: N818 - becomes the error of whoever asked for the file
    """Say what was expected of a file, what was found, and what to do; whoever knows the path adds it."""

    def __init__(self, expected: str, found: str, do: str) -> None:
        self.expected, self.found, self.do = expected, found, do
        super().__init__(f"expected {expected}, found {found}. {do}")


@dataclass(frozen=True)
class Header:
    """Hold what a file says of its pixels before they are decoded.

    Args:
        format: PNG, JPEG, TIFF or WebP.
        size: (H, W) as stored, before `orientation`.
        samples: values per pixel as stored, alpha included.
        kind: what the first samples mean; images of several bands without a colour meaning are "grey".
        dtype: type of the stored values.
        bits: bits per stored value; fewer than 8 lie in the low bits of a byte.
        alpha: place of the alpha sample; None where there is none.
        premultiplied: whether the colours are multiplied by alpha already.
        inverted: whether 0 is stored for white ("bit" and "grey" only).
        orientation: EXIF orientation, 1–8.
        lossy: whether the compression changes values.
        grid: where the pixels lie in the world; None where the file does not say.
        nodata: stored value of pixels where nothing was measured; None where the file names none.

    """

    format: str
    size: tuple[int, int]
    samples: int
    kind: Kind
    dtype: np.dtype[Any]
    bits: int = 8
    alpha: int | None = None
    premultiplied: bool = False
    inverted: bool = False
    orientation: int = 1
    lossy: bool = False
    grid: Grid | None = None
    nodata: float | None = None

    @property
    def bands(self) -> int:
        """Count the bands of light: palettes give 3, CMYK gives 3, alpha is none."""
        return {"palette": 2, "cmyk": -1}.get(self.kind, 0) + self.samples - (self.alpha is not None)

    @property
    def turned_size(self) -> tuple[int, int]:
        """Give (H, W) after `orientation`."""
        return self.size if self.orientation < 5 else (self.size[1], self.size[0])


@dataclass(frozen=True)
class Raster:
    """Hold the decoded pixels.

    Args:
        header: what the file said.
        values: (H, W, samples), as stored but turned upright.
        palette: (N, 4) uint8, colours and alpha per index, of a "palette" raster.
        clear: stored value, one per sample, that stands for "transparent"; None where the file names none.

    """

    header: Header
    values: NDArray[Any]
    palette: NDArray[np.uint8] | None = None
    clear: tuple[int, ...] | None = None


Source = tuple[Header, Callable[[], Raster]]

_CLASSES: dict[str, type[ImageFile.ImageFile]] = {
    "PNG": PngImagePlugin.PngImageFile,
    "JPEG": JpegImagePlugin.JpegImageFile,
}
# Pillow's mode → meaning, samples, place of alpha.
MODES: dict[str, tuple[Kind, int, int | None]] = {
    "1": ("bit", 1, None),
    "L": ("grey", 1, None),
    "I;16": ("grey", 1, None),
    "LA": ("grey", 2, 1),
    "P": ("palette", 1, None),
    "RGB": ("rgb", 3, None),
    "RGBA": ("rgb", 4, 3),
    "CMYK": ("cmyk", 4, None),
}


def open_with_pillow(file: BinaryIO, name: str) -> Source:
    """Read the header of a PNG or JPEG.

    The classes of Pillow are called by name, not through `Image.open`: content decides the format, no other decoder is
    ever tried, and the limits on size are the caller's, not Pillow's warning.

    Raises:
        Refused: a mode or a number of frames that is not understood. Pillow's own exceptions where the file is broken.

    """
    late = _walk_png(file) if name == "PNG" else None
    file.seek(0)
    image = _CLASSES[name](file)
    if late is not None:
        image.info.setdefault("exif", late)
    frames = int(getattr(image, "n_frames", 1))
    if frames > 1:
        raise _animated(f"{frames} frames")
    raw = str(image.tile[0][3]) if name == "PNG" else image.mode
    header = _header(image, name, raw, lossy=name == "JPEG")

    def decode() -> Raster:
        values = unstretched(_stored(file, image, name, raw), header.kind, header.bits)
        clear = image.info.get("transparency")
        palette = read_palette(image) if header.kind == "palette" else None
        key = None if palette is not None or clear is None else (clear,) if isinstance(clear, int) else tuple(clear)
        return Raster(header, turn(as_samples(values), header.orientation), palette, key)

    return header, decode


def open_webp(file: BinaryIO) -> Source:
    """Read the header of a WebP from its chunks, since Pillow makes room for the pixels as soon as it opens one.

    Raises:
        Refused: an animation. Pillow's own exceptions where the file is broken.

    """
    size, has_alpha, lossless, exif = _walk_webp(file)
    alpha = 3 if has_alpha else None
    kind: Kind = "rgb"
    dtype = np.dtype(np.uint8)
    orientation = 1 if exif is None else _orientation_in(lambda: _exif_of(exif))
    header = Header("WebP", size, 4 if has_alpha else 3, kind, dtype, 8, alpha, False, False, orientation, not lossless)

    def decode() -> Raster:
        most = 2 * (Image.MAX_IMAGE_PIXELS or 2**62)
        if size[0] * size[1] > most:  # Pillow refuses it, by a limit that belongs to the whole process
            found = f"{size[1]}×{size[0]} = {size[0] * size[1]:,}"
            raise Refused(f"a WebP of at most {most:,} pixels", found, "Save the image as TIFF.")
        file.seek(0)
        image = WebPImagePlugin.WebPImageFile(file)
        image.load()
        values = np.asarray(image)
        if values.shape != (*size, header.samples):
            raise ValueError(f"{size} pixels of {header.samples} in the header, {values.shape} in the file")
        return Raster(header, turn(values, orientation))

    return header, decode


def _animated(found: str) -> Refused:
    return Refused("one image", f"an animation of {found}", "Save each frame as a file of its own.")


def _header(image: ImageFile.ImageFile, name: str, raw: str, *, lossy: bool) -> Header:
    """Gather what Pillow read; `raw` is its word for the layout of a PNG's bytes ("L;4", "RGB;16B")."""
    if image.mode not in MODES:
        found = f"pixels of kind {image.mode}"
        raise Refused("grey, palette, RGB or CMYK pixels", found, "Save the image as 8-bit RGB.")
    kind, samples, alpha = ("grey", 2, 1) if raw == "LA;16B" else MODES[image.mode]
    depth = raw.partition(";")[2].rstrip("B")
    bits = int(depth) if depth else 1 if image.mode == "1" else 8
    dtype = np.dtype(np.uint16 if bits == 16 else np.uint8)
    orientation = read_orientation(image)
    size = (image.height, image.width)
    return Header(name, size, samples, kind, dtype, bits, alpha, orientation=orientation, lossy=lossy)


def _stored(file: BinaryIO, image: ImageFile.ImageFile, name: str, raw: str) -> NDArray[Any]:
    """Decode to (H, W) or (H, W, samples); Pillow alone would cut colours of 16 bits down to 8.

    Pillow unpacks such colours to their high byte; asked for the other byte order it gives the low one, so two passes
    of its decoder give every bit, at its speed. Grey with alpha of 16 bits each is read as four bytes in one pass.
    """
    if raw == "LA;16B":
        with_raw_mode(image, "RGBA")
        image.load()
        return np.ascontiguousarray(np.asarray(image)).view(">u2").astype(np.uint16)
    image.load()
    high = np.asarray(image)
    if raw not in ("RGB;16B", "RGBA;16B"):
        return high
    file.seek(0)
    again = _CLASSES[name](file)
    with_raw_mode(again, raw[:-1] + "L")
    again.load()
    return high.astype(np.uint16) << 8 | np.asarray(again)


def with_raw_mode(image: ImageFile.ImageFile, raw: str) -> None:
    """Ask Pillow's decoder for another layout of the same bytes; call it before the pixels are loaded."""
    tiles: list[Any] = []
    for codec, extents, offset, given in image.tile:
        layout: Any = raw if isinstance(given, str) else (raw, *(given or ())[1:])
        tiles.append(ImageFile._Tile(codec, extents, offset, layout))
    image.tile = tiles


def as_samples(values: NDArray[Any]) -> NDArray[Any]:
    """Give (H, W, samples) from (H, W) or (H, W, samples); 1-bit values become 0 and 1 in a byte."""
    values = values.astype(np.uint8) if values.dtype == bool else values
    return values[..., np.newaxis] if values.ndim == 2 else values


def unstretched(values: NDArray[Any], kind: Kind, bits: int) -> NDArray[Any]:
    """Undo Pillow's stretch of 2- and 4-bit greys to 0–255: 3 stays 3, or ids would change."""
    return values // (255 // (2**bits - 1)) if kind == "grey" and bits < 8 else values


def read_palette(image: Image.Image) -> NDArray[np.uint8]:
    """Give the palette as (N, 4): red, green, blue, alpha per index."""
    colours = np.asarray(image.getpalette("RGB") or [], np.uint8).reshape(-1, 3)
    palette = np.full((len(colours), 4), 255, np.uint8)
    palette[:, :3] = colours
    clear = image.info.get("transparency")
    if isinstance(clear, bytes):
        palette[: len(clear), 3] = np.frombuffer(clear, np.uint8)[: len(palette)]
    elif isinstance(clear, int) and clear < len(palette):
        palette[clear, 3] = 0
    return palette


def read_orientation(image: Image.Image) -> int:
    """Give the EXIF orientation, 1 where there is none or it is broken, without decoding pixels."""
    return _orientation_in(lambda: Image.Image.getexif(image))  # PngImageFile.getexif would decode the whole image


def turn(values: NDArray[Any], orientation: int) -> NDArray[Any]:
    """Turn (H, W, …) upright as EXIF orientation 1–8 asks (Exif 2.3, tag 274)."""
    if orientation >= 5:
        values = values.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        values = values[::-1]
    if orientation in (2, 3, 6, 7):
        values = values[:, ::-1]
    return values


def _walk_png(file: BinaryIO) -> bytes | None:
    """Go from chunk to chunk without decoding; give an EXIF block wherever it lies (some tools append it).

    Raises:
        EOFError: the file ends before its last chunk.

    """
    file.seek(0, 2)
    end, place, exif = file.tell(), 8, None
    while True:
        file.seek(place)
        start = file.read(8)
        if len(start) < 8:
            raise EOFError("truncated")
        length, name = struct.unpack(">I4s", start)
        if place + length + 12 > end:
            raise EOFError("truncated")
        if name == b"IEND":
            return exif
        if name == b"eXIf":
            exif = file.read(length)
        place += length + 12


def _walk_webp(file: BinaryIO) -> tuple[tuple[int, int], bool, bool, bytes | None]:
    """Go from chunk to chunk (WebP container specification): (H, W), has alpha, is lossless, EXIF block.

    Raises:
        Refused: an animation. EOFError: the file ends before its last chunk, or holds no image.

    """
    end, place = file.seek(0, 2), 12
    canvas: tuple[tuple[int, int], bool] | None = None
    lossless: bool | None = None
    exif = None
    file.seek(4)
    whole = 8 + int.from_bytes(file.read(4), "little")
    if whole > end:
        raise EOFError("truncated")
    while place + 8 <= whole:
        file.seek(place)
        name, length = struct.unpack("<4sI", file.read(8))
        data = file.read(10 if name != b"EXIF" else length)
        if name in (b"ANIM", b"ANMF"):
            raise _animated("several frames")
        if name == b"VP8X":
            width, height = int.from_bytes(data[4:7], "little") + 1, int.from_bytes(data[7:10], "little") + 1
            canvas = (height, width), bool(data[0] & 0x10)
        elif name == b"VP8L":
            bits = int.from_bytes(data[1:5], "little")
            lossless = True
            canvas = canvas or (((bits >> 14 & 0x3FFF) + 1, (bits & 0x3FFF) + 1), bool(bits >> 28 & 1))
        elif name == b"VP8 ":
            width, height = struct.unpack("<HH", data[6:10])
            lossless = False
            canvas = canvas or ((height & 0x3FFF, width & 0x3FFF), False)
        elif name == b"EXIF":
            exif = data
        place += 8 + length + length % 2
    if canvas is None or lossless is None:
        raise EOFError("truncated")
    return *canvas, lossless, exif


def _exif_of(block: bytes) -> Image.Exif:
    exif = Image.Exif()
    exif.load(block)
    return exif


def _orientation_in(exif: Callable[[], Image.Exif]) -> int:
    try:
        value = exif().get(0x0112, 1)
    except Exception:  # a broken EXIF block says nothing, and images with one are common
        return 1
    return int(value) if value in range(1, 9) else 1
