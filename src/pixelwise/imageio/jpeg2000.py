"""JPEG 2000 files, decoded by imagecodecs: the header first, the pixels on demand.

Windows are decoded by GDAL where rasterio is installed, which uses the same library (OpenJPEG) and returns the same values. Palettes,
alpha, single bits and YCC, which GDAL converts, are always decoded as a whole.

Samples of 1 to 16 bits, signed or not, and any number of bands are returned as they are stored. Palettes are kept. A file is
lossy if its wavelet is the irreversible one; a file with the reversible wavelet is regarded as lossless.

Source: ISO/IEC 15444-1, annex A (codestream: SIZ and COD) and annex I (boxes of JP2: colr, pclr, cdef, jp2c). The position
that some files store in further boxes (GMLJP2, GeoJP2) is not read.
"""

from __future__ import annotations

import struct
from collections.abc import Hashable, Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pixelwise.imageio.extras import need
from pixelwise.imageio.raster import Decoder, Header, Kind, Raster, Refused, WindowDecoder, as_samples
from pixelwise.tiles import Window, windows

_SIGNATURE = b"\0\0\0\x0cjP  "
_SIZ = b"\xff\x4f\xff\x51"  # start of codestream, and its first segment
_COD = 0xFF52
_END = b"\xff\xd9"
_SRGB, _GREY, _YCC = 16, 17, 18  # enumerated colour spaces
_OPACITY, _PREMULTIPLIED = 1, 2
_CACHE = 64  # MB of GDAL's block cache
_SIDE = 1024


@dataclass
class _Boxes:
    """The boxes of a JP2 file that matter for the pixels."""

    colours: int | None = None  # enumerated colour space
    palette: NDArray[np.uint8] | None = None  # (N, 4)
    opacity: tuple[int, bool] | None = None  # the alpha sample, and whether colours are multiplied by it
    start: int = 0  # place of the codestream
    end: int = 0


@dataclass(frozen=True)
class _Stream:
    """The header of a codestream: (H, W), samples, bits, whether they are signed, subsampled and lossy."""

    size: tuple[int, int]
    samples: int
    bits: int
    signed: bool
    subsampled: bool
    lossy: bool


def open_jpeg2000(file: BinaryIO) -> tuple[Header, Decoder]:
    """Read the header of a JP2 file or a bare codestream.

    Raises:
        Refused: samples of different types or more than 16 bits. EOFError, ValueError: the file is truncated or broken.
    """
    file.seek(0)
    end = file.seek(0, 2)
    file.seek(0)
    boxes = _read_boxes(file, end) if file.read(8) == _SIGNATURE else _Boxes(start=0, end=end)
    stream = _read_stream(file, boxes)
    file.seek(boxes.end - 2)
    if file.read(2) != _END:
        raise EOFError("truncated")
    header = _header(boxes, stream)

    def decode() -> Raster:
        import imagecodecs

        file.seek(boxes.start)
        values = as_samples(np.asarray(imagecodecs.jpeg2k_decode(file.read(boxes.end - boxes.start))))
        if values.shape != (*stream.size, stream.samples):
            raise ValueError(f"{stream.size} pixels of {stream.samples} in the header, {values.shape} in the file")
        if boxes.colours == _YCC and stream.samples == 3:
            values = np.asarray(Image.fromarray(np.ascontiguousarray(values), "YCbCr").convert("RGB"))
        return Raster(header, values, boxes.palette)

    plain = header.kind in ("grey", "rgb") and header.alpha is None and boxes.palette is None and boxes.colours != _YCC
    if plain and stream.bits > 1 and find_spec("rasterio") is not None:
        return header, Jpeg2000Decoder(header, decode)
    return header, decode


class Jpeg2000Decoder(WindowDecoder):
    """Decodes an image of JPEG 2000, and windows of it by GDAL."""

    def __init__(self, header: Header, decode: Decoder) -> None:
        self._header, self._decode = header, decode

    def __call__(self) -> Raster:
        """Decode the whole image."""
        return self._decode()

    def window(self, file: BinaryIO, window: Window, most: int, key: Hashable | None) -> Raster:
        """Decode a window; see `WindowDecoder.window`."""
        rasterio = need("rasterio", "geo", file.name)
        place = rasterio.windows.Window.from_slices(*window.slices)
        with (
            rasterio.Env(GDAL_CACHEMAX=_CACHE),
            rasterio.open(Path(file.name).resolve(), driver="JP2OpenJPEG") as image,
        ):
            values = np.moveaxis(image.read(window=place), 0, -1)
            found = (image.shape, values.shape[2], values.dtype)
        expected = (self._header.size, self._header.samples, self._header.dtype)
        if found != expected:
            raise ValueError(f"{expected} in the header, {found} in the file")
        return Raster(self._header, values)

    def boxes(self) -> Iterator[Window]:
        """Yield windows that cover the image."""
        return iter(windows(self._header.size, (_SIDE, _SIDE), (0, 0)))


def _header(boxes: _Boxes, stream: _Stream) -> Header:
    if stream.subsampled or (boxes.colours == _YCC and (stream.bits, stream.signed) != (8, False)):
        found = "subsampled or YCC samples"
        raise Refused("samples at full resolution, or YCC of 8 bits", found, "Save the image as RGB.")
    kind: Kind = "grey"
    if boxes.palette is not None and stream.samples == 1:
        kind = "palette"
    elif stream.samples >= 3 and not stream.signed and boxes.colours in (_SRGB, _YCC):
        kind = "rgb"
    elif stream.samples == 3 and not stream.signed and boxes.colours is None and stream.bits == 8:
        kind = "rgb"  # a bare codestream, or a colour profile
    elif stream.samples == stream.bits == 1:
        kind = "bit"
    alpha, premultiplied = boxes.opacity or (None, False)
    if alpha is not None and not 0 < alpha < stream.samples:
        alpha, premultiplied = None, False
    size = 8 if stream.bits <= 8 else 16
    return Header(
        "JPEG 2000",
        stream.size,
        stream.samples,
        kind,
        np.dtype(f"{'int' if stream.signed else 'uint'}{size}"),
        stream.bits,
        alpha,
        premultiplied=premultiplied,
        lossy=stream.lossy,
    )


def _read_boxes(file: BinaryIO, end: int) -> _Boxes:
    """Walk through the boxes.

    Raises:
        EOFError: the file ends before a box does, or has no codestream.
    """
    boxes = _Boxes()
    for name, start, stop in _walk(file, 0, end):
        if name == b"jp2h":
            for inner, first, last in _walk(file, start, stop):
                file.seek(first)
                content = file.read(min(last - first, 1 << 20))
                if inner == b"colr" and boxes.colours is None and content[:1] == b"\1":
                    boxes.colours = int.from_bytes(content[3:7], "big")
                elif inner == b"pclr":
                    boxes.palette = _palette(content)
                elif inner == b"cdef":
                    boxes.opacity = _opacity(content)
        elif name == b"jp2c":
            boxes.start, boxes.end = start, stop
            return boxes
    raise EOFError("truncated")


def _walk(file: BinaryIO, place: int, end: int) -> Iterator[tuple[bytes, int, int]]:
    """Yield name, start and end of the content of each box."""
    while place + 8 <= end:
        file.seek(place)
        length, name = struct.unpack(">I4s", file.read(8))
        start = place + 8
        if length == 1:
            length = int.from_bytes(file.read(8), "big")
            start += 8
        stop = end if length == 0 else place + length
        if stop > end or stop < start:
            raise EOFError("truncated")
        yield name, start, stop
        place = stop


def _palette(content: bytes) -> NDArray[np.uint8]:
    """Parse a palette of 8-bit columns: (N, 4).

    Raises:
        Refused: entries of other depths.
    """
    count, columns = struct.unpack(">HB", content[:3])
    depths = content[3 : 3 + columns]
    table = np.frombuffer(content, np.uint8, count * columns, 3 + columns) if set(depths) == {7} else None
    if table is None or columns not in (1, 3, 4):
        raise Refused("a palette of 8-bit colours", f"{columns} columns of other depths", "Save the image as RGB.")
    table = table.reshape(count, columns)
    palette = np.full((count, 4), 255, np.uint8)
    palette[:, :3] = table[:, :3]  # one column is grey
    if columns == 4:
        palette[:, 3] = table[:, 3]
    return palette


def _opacity(content: bytes) -> tuple[int, bool] | None:
    """Find the alpha sample among the definitions of channels."""
    count = int.from_bytes(content[:2], "big")
    channels = struct.iter_unpack(">HHH", content[2 : 2 + 6 * count])
    return next((((n, kind == _PREMULTIPLIED)) for n, kind, _ in channels if kind in (_OPACITY, _PREMULTIPLIED)), None)


def _read_stream(file: BinaryIO, boxes: _Boxes) -> _Stream:
    """Read size and samples from SIZ, and the wavelet from COD.

    Raises:
        Refused: samples of different types, or more than 16 bits. EOFError, ValueError: truncated or broken.
    """
    file.seek(boxes.start)
    if file.read(4) != _SIZ:
        raise ValueError("no codestream")
    segment = _segment(file)
    _, right, bottom, left, top, _, _, _, _, samples = struct.unpack(">HIIIIIIIIH", segment[:36])
    parts = segment[36 : 36 + 3 * samples]
    if len(parts) < 3 * samples or not samples or right <= left or bottom <= top:
        raise EOFError("truncated")
    depths = set(parts[::3])
    bits = max(depths) % 128 + 1
    if len(depths) > 1 or bits > 16:
        found = f"{len(depths)} types" if len(depths) > 1 else f"{bits} bits"
        raise Refused("samples of one type, of at most 16 bits", found, "Save the image as 8 or 16 bits.")
    subsampled = any(step != 1 for k, step in enumerate(parts) if k % 3)
    return _Stream((bottom - top, right - left), samples, bits, max(depths) >= 128, subsampled, _is_lossy(file))


def _is_lossy(file: BinaryIO) -> bool:
    """Whether the wavelet in the main header is the irreversible one."""
    while True:
        marker = int.from_bytes(file.read(2), "big")
        if marker < 0xFF01 or marker in (0xFF90, 0xFFD9):
            raise EOFError("truncated")
        content = _segment(file)
        if marker == _COD:
            return content[9:10] != b"\1"


def _segment(file: BinaryIO) -> bytes:
    length = int.from_bytes(file.read(2), "big") - 2
    content = file.read(max(length, 0))
    if length < 0 or len(content) < length:
        raise EOFError("truncated")
    return content
