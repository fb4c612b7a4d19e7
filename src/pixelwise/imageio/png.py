"""Encode PNG files, several times faster than Pillow at about the same size.

libdeflate compresses all rows in one call. Every row has the filter "up" (differences to the row above) instead of the best of
five, which makes photographs a fifth smaller than no filter and takes hardly any time.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_GREY, _RGB, _PALETTE = 0, 2, 3
_UP = 2
# Levels of libdeflate: higher ones take long for photographs and make them hardly smaller.
_COLOUR_LEVEL, _ID_LEVEL = 1, 6
_LONGEST = 1 << 30  # bytes per chunk; PNG allows 2^31 - 1


def encode(pixels: NDArray[Any], palette: NDArray[np.uint8] | None = None) -> bytes:
    """Encode an image as PNG.

    Args:
        pixels: (H, W) uint8 or uint16, or (H, W, 3) uint8.
        palette: colours (N, 3) of the values of a uint8 image.
    """
    import imagecodecs

    colour = pixels.ndim == 3
    kind = _RGB if colour else _GREY if palette is None else _PALETTE
    height, width = pixels.shape[:2]
    header = struct.pack(">IIBBBBB", width, height, 8 * pixels.dtype.itemsize, kind, 0, 0, 0)
    compressed = imagecodecs.deflate_encode(_filtered(pixels), level=_COLOUR_LEVEL if colour else _ID_LEVEL)
    parts = [_SIGNATURE, *_chunk(b"IHDR", header)]
    if palette is not None:
        parts += _chunk(b"PLTE", palette.tobytes())
    for start in range(0, len(compressed), _LONGEST):
        parts += _chunk(b"IDAT", memoryview(compressed)[start : start + _LONGEST])
    return b"".join([*parts, *_chunk(b"IEND", b"")])


def _filtered(pixels: NDArray[Any]) -> bytearray:
    """Return the filtered bytes of all rows, each behind the number of the filter."""
    big_endian = np.ascontiguousarray(pixels, pixels.dtype.newbyteorder(">"))
    values = big_endian.view(np.uint8).reshape(len(pixels), -1)
    content = bytearray(len(values) * (1 + values.shape[1]))
    rows = np.frombuffer(content, np.uint8).reshape(len(values), -1)
    rows[:, 0] = _UP
    rows[0, 1:] = values[0]
    np.subtract(values[1:], values[:-1], out=rows[1:, 1:])
    return content


def _chunk(name: bytes, content: bytes | memoryview) -> Iterator[bytes | memoryview]:
    yield struct.pack(">I", len(content)) + name
    yield content
    yield struct.pack(">I", zlib.crc32(content, zlib.crc32(name)))
