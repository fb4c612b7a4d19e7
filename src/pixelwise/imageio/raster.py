"""PNG, JPEG and WebP files, decoded by Pillow: the header first, the pixels on demand.

Pixels are returned exactly as they are stored, without conversion of colours or values.
"""

from __future__ import annotations

import struct
from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable, Iterator
from dataclasses import dataclass, replace
from typing import Any, BinaryIO, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFile, JpegImagePlugin, PngImagePlugin, WebPImagePlugin

from pixelwise.grid import Grid
from pixelwise.tiles import Window

Kind = Literal["bit", "grey", "palette", "rgb", "cmyk"]


class Refused(Exception):  # noqa: N818 - `safe_reading.reading` turns it into a DataError with the path
    """A file that cannot be used, with the three parts of the error: expected, found, do."""

    def __init__(self, expected: str, found: str, do: str) -> None:
        self.expected, self.found, self.do = expected, found, do
        super().__init__(f"expected {expected}, found {found}. {do}")


@dataclass(frozen=True)
class Header:
    """The header of an image file.

    Args:
        format: "PNG", "JPEG", "TIFF", … (see `file_formats`).
        size: (H, W) as stored, before `orientation`.
        samples: values per pixel as stored, including alpha.
        kind: meaning of the first samples; several bands without a colour meaning are "grey".
        dtype: type of the stored values.
        bits: bits per stored value; fewer than 8 are stored in the low bits of a byte.
        alpha: index of the alpha sample; None without alpha.
        premultiplied: whether the colours are already multiplied by alpha.
        inverted: whether 0 means white ("bit" and "grey" only).
        orientation: EXIF orientation, 1–8.
        lossy: whether the compression changes values.
        grid: georeference; None if the file has none.
        nodata: stored value of pixels without data; None if the file defines none.
        georeferenced: whether the file has a transform or ground control points, with or without a usable `grid`.
        maximum: stored integer that means full brightness; None for the largest of `bits`.
        names: names of the bands; () if the file has none.
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
    georeferenced: bool = False
    maximum: int | None = None
    names: tuple[str, ...] = ()

    @property
    def read_dtype(self) -> np.dtype[Any]:
        """Type of the bands after conversion: palettes become 8-bit colours."""
        return np.dtype(np.uint8) if self.kind == "palette" else self.dtype

    @property
    def bands(self) -> int:
        """Number of bands after conversion: 3 for palettes and CMYK, without alpha."""
        return {"palette": 2, "cmyk": -1}.get(self.kind, 0) + self.samples - (self.alpha is not None)

    @property
    def oriented_size(self) -> tuple[int, int]:
        """(H, W) after `orientation` is applied."""
        return self.size if self.orientation < 5 else (self.size[1], self.size[0])


def top_value(header: Header) -> int:
    """Return the stored value that means full brightness or opacity."""
    if header.dtype.kind == "u":
        return header.maximum or 2**header.bits - 1
    return int(np.iinfo(header.dtype).max) if header.dtype.kind == "i" else 1


@dataclass(frozen=True)
class Raster:
    """The decoded pixels of an image file.

    Args:
        header: the file's header.
        values: (H, W, samples), as stored but with the orientation applied.
        palette: (N, 4) uint8, colours and alpha per index, of a "palette" raster.
        transparent: stored value, one per sample, of transparent pixels; None if the file defines none.
        opaque: (H, W), false where the file's mask of valid pixels is zero; None if it has no such mask.
    """

    header: Header
    values: NDArray[Any]
    palette: NDArray[np.uint8] | None = None
    transparent: tuple[int, ...] | None = None
    opaque: NDArray[np.bool_] | None = None

    def cut(self, window: Window) -> Raster:
        """Return a copy of a window."""
        opaque = None if self.opaque is None else self.opaque[window.slices].copy()
        return replace(self, values=self.values[window.slices].copy(), opaque=opaque)

    @property
    def nbytes(self) -> int:
        """The memory of the values."""
        return int(self.values.nbytes)


Decoder = Callable[[], Raster]


class WindowDecoder(ABC):
    """A decoder that can decode a window without the rest of the image."""

    @abstractmethod
    def __call__(self) -> Raster:
        """Decode the whole image."""

    @abstractmethod
    def window(self, file: BinaryIO, window: Window, most: int, key: Hashable | None) -> Raster:
        """Decode a window.

        Args:
            file: the open file, which may be another handle than the one whose header was read.
            window: of the image with its orientation applied.
            most: pixels that may be decoded at once.
            key: of the file, to keep decoded pieces; None to keep nothing.

        Raises:
            Refused: a strip or tile has more than `most` pixels.
        """

    @abstractmethod
    def boxes(self) -> Iterator[Window]:
        """Yield windows that cover the image and can be decoded without decoding much else."""


_CLASSES: dict[str, type[ImageFile.ImageFile]] = {
    "PNG": PngImagePlugin.PngImageFile,
    "JPEG": JpegImagePlugin.JpegImageFile,
}
# Pillow's mode: kind, samples, index of alpha.
_MODES: dict[str, tuple[Kind, int, int | None]] = {
    "1": ("bit", 1, None),
    "L": ("grey", 1, None),
    "I;16": ("grey", 1, None),
    "LA": ("grey", 2, 1),
    "P": ("palette", 1, None),
    "RGB": ("rgb", 3, None),
    "RGBA": ("rgb", 4, 3),
    "CMYK": ("cmyk", 4, None),
}


def open_with_pillow(file: BinaryIO, name: str) -> tuple[Header, Decoder]:
    """Read the header of a PNG or JPEG.

    Pillow's classes are used directly instead of `Image.open`, so that no other decoder is tried and Pillow's own limit on
    the size does not apply.

    Raises:
        Refused: an unsupported mode, or an animation. Pillow's own exceptions if the file is broken.
    """
    exif = _find_png_exif(file) if name == "PNG" else None
    file.seek(0)
    image = _CLASSES[name](file)
    if exif is not None:
        image.info.setdefault("exif", exif)
    frames = int(getattr(image, "n_frames", 1))
    if frames > 1:
        raise animated(f"{frames} frames")
    raw = str(image.tile[0][3]) if name == "PNG" else image.mode
    header = _header(image, name, raw, lossy=name == "JPEG")

    def decode() -> Raster:
        values = _stored(file, image, raw)
        if header.kind == "grey" and header.bits < 8:  # Pillow stretches to 0–255, which would change ids
            values = values // (255 // (2**header.bits - 1))
        values = apply_orientation(as_samples(values), header.orientation)
        if header.kind == "palette":
            return Raster(header, values, _palette(image))
        key = image.info.get("transparency")
        return Raster(header, values, transparent=None if key is None else tuple(np.atleast_1d(key).tolist()))

    return header, decode


def open_webp(file: BinaryIO) -> tuple[Header, Decoder]:
    """Read the header of a WebP from its chunks, since Pillow allocates the pixels when it opens a file.

    Raises:
        Refused: an animation. Pillow's own exceptions if the file is broken.
    """
    size, has_alpha, lossless, exif = _walk_webp(file)
    orientation = 1 if exif is None else orientation_in(lambda: _parse_exif(exif))
    header = Header(
        "WebP",
        size,
        samples=4 if has_alpha else 3,
        kind="rgb",
        dtype=np.dtype(np.uint8),
        alpha=3 if has_alpha else None,
        orientation=orientation,
        lossy=not lossless,
    )

    def decode() -> Raster:
        most = 2 * (Image.MAX_IMAGE_PIXELS or 2**62)
        if size[0] * size[1] > most:  # Pillow refuses it, by a limit of the whole process
            found = f"{size[1]}×{size[0]} = {size[0] * size[1]:,}"
            raise Refused(f"a WebP of at most {most:,} pixels", found, "Save the image as TIFF.")
        file.seek(0)
        image = WebPImagePlugin.WebPImageFile(file)
        image.load()
        values = np.asarray(image)
        if values.shape != (*size, header.samples):
            raise ValueError(f"{size} pixels of {header.samples} in the header, {values.shape} in the file")
        return Raster(header, apply_orientation(values, orientation))

    return header, decode


def animated(found: str) -> Refused:
    """Return the error for a file with several frames."""
    return Refused("one image", f"an animation of {found}", "Save each frame as a separate file.")


def _header(image: ImageFile.ImageFile, name: str, raw: str, *, lossy: bool) -> Header:
    """Make the header; `raw` is Pillow's name for the layout of a PNG's bytes ("L;4", "RGB;16B")."""
    if image.mode not in _MODES:
        found = f"pixels of kind {image.mode}"
        raise Refused("grey, palette, RGB or CMYK pixels", found, "Save the image as 8-bit RGB.")
    kind, samples, alpha = ("grey", 2, 1) if raw == "LA;16B" else _MODES[image.mode]
    depth = raw.partition(";")[2].rstrip("B")
    bits = int(depth) if depth else 1 if image.mode == "1" else 8
    dtype = np.dtype(np.uint16 if bits == 16 else np.uint8)
    orientation = orientation_in(lambda: Image.Image.getexif(image))  # PngImageFile.getexif would decode the image
    size = (image.height, image.width)
    return Header(name, size, samples, kind, dtype, bits, alpha, orientation=orientation, lossy=lossy)


def _stored(file: BinaryIO, image: ImageFile.ImageFile, raw: str) -> NDArray[Any]:
    """Decode to (H, W) or (H, W, samples)."""
    if raw not in ("LA;16B", "RGB;16B", "RGBA;16B"):
        image.load()
        return np.asarray(image)
    import imagecodecs  # Pillow reduces these to 8 bits

    file.seek(0)
    bands = len(raw.partition(";")[0])  # without the alpha that a transparent colour adds
    return np.asarray(imagecodecs.png_decode(file.read()))[..., :bands]


def as_samples(values: NDArray[Any]) -> NDArray[Any]:
    """Return (H, W, samples) from (H, W) or (H, W, samples); booleans become uint8."""
    values = values.astype(np.uint8) if values.dtype == bool else values
    return values[..., np.newaxis] if values.ndim == 2 else values


def _palette(image: Image.Image) -> NDArray[np.uint8]:
    """Return the palette as (N, 4): red, green, blue, alpha per index."""
    colours = np.asarray(image.getpalette("RGB") or [], np.uint8).reshape(-1, 3)
    palette = np.full((len(colours), 4), 255, np.uint8)
    palette[:, :3] = colours
    alpha = image.info.get("transparency")
    if isinstance(alpha, bytes):
        palette[: len(alpha), 3] = np.frombuffer(alpha, np.uint8)[: len(palette)]
    elif isinstance(alpha, int) and alpha < len(palette):
        palette[alpha, 3] = 0
    return palette


def require_mask_size(found: tuple[int, int], size: tuple[int, int], name: str) -> None:
    """Raise unless a mask of valid pixels has the size (H, W) of its image, both as stored.

    Raises:
        Refused: it has another; `name` says which mask it is.
    """
    if found != size:
        raise Refused(
            f"{name} of {size[0]}×{size[1]} pixels, the height and width of the image",
            f"{found[0]}×{found[1]}",
            "Write the mask again for this image, or remove it.",
        )


def apply_orientation(values: NDArray[Any], orientation: int) -> NDArray[Any]:
    """Apply EXIF orientation 1–8 to (H, W, …) (Exif 2.3, tag 274)."""
    if orientation >= 5:
        values = values.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        values = values[::-1]
    if orientation in (2, 3, 6, 7):
        values = values[:, ::-1]
    return values


def stored_window(window: Window, header: Header) -> Window:
    """Convert a window of the image with its orientation applied to one of the image as stored."""
    starts, stops = _mirrored(window, header.oriented_size, header.orientation)
    if header.orientation >= 5:
        return Window(starts[::-1], stops[::-1])
    return Window(starts, stops)


def oriented_window(window: Window, header: Header) -> Window:
    """Convert a window of the image as stored to one of the image with its orientation applied; see `stored_window`."""
    if header.orientation >= 5:
        window = Window(window.start[::-1], window.stop[::-1])
    return Window(*_mirrored(window, header.oriented_size, header.orientation))


def _mirrored(window: Window, size: tuple[int, int], orientation: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Return start and stop of a window, counted from the other end along the axes that `apply_orientation` reverses."""
    reverses = orientation in (3, 4, 7, 8), orientation in (2, 3, 6, 7)
    spans = [
        (whole - stop, whole - start) if reverse else (start, stop)
        for start, stop, whole, reverse in zip(window.start, window.stop, size, reverses, strict=True)
    ]
    return tuple(start for start, _ in spans), tuple(stop for _, stop in spans)


def _find_png_exif(file: BinaryIO) -> bytes | None:
    """Walk through the chunks and return the EXIF block, which some tools append behind the pixels.

    Raises:
        EOFError: the file ends before its last chunk.
    """
    end = file.seek(0, 2)
    place = 8
    exif = None
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
    """Walk through the chunks (WebP container specification): (H, W), has alpha, is lossless, EXIF block.

    Raises:
        Refused: an animation. EOFError: the file ends before its last chunk, or contains no image.
    """
    end = file.seek(0, 2)
    place = 12
    canvas: tuple[tuple[int, int], bool] | None = None
    lossless: bool | None = None
    exif = None
    file.seek(4)
    length_of_file = 8 + int.from_bytes(file.read(4), "little")
    if length_of_file > end:
        raise EOFError("truncated")
    while place + 8 <= length_of_file:
        file.seek(place)
        name, length = struct.unpack("<4sI", file.read(8))
        data = file.read(10 if name != b"EXIF" else length)
        if name in (b"ANIM", b"ANMF"):
            raise animated("several frames")
        if name == b"VP8X":
            width = int.from_bytes(data[4:7], "little") + 1
            height = int.from_bytes(data[7:10], "little") + 1
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


def _parse_exif(block: bytes) -> Image.Exif:
    exif = Image.Exif()
    exif.load(block)
    return exif


def orientation_in(exif: Callable[[], Image.Exif]) -> int:
    """Return the orientation, 1–8, of an EXIF block; 1 if it has none or is broken."""
    try:
        value = exif().get(0x0112, 1)
    except Exception:  # images with a broken EXIF block are common and readable
        return 1
    return int(value) if value in range(1, 9) else 1
