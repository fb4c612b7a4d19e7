"""Label Studio's encoding of brush masks: thi.ng/rle-pack, a bit stream of the RGBA values of every pixel, row by row.

The header has 32 bits for the number of decoded values, 5 for the bits of a value minus 1, and 4 × 4 for the four sizes of
counts minus 1. Then follow records: 1 bit "repeated", 2 bits for the size of the count, the count minus 1, and one value
that is repeated, or as many values as the count says. A pixel is covered if its alpha is not zero, as in Label Studio's own
conversion to COCO.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pixelwise.formats.shapes import row_runs

_HEADER = 32 + 5 + 4 * 4
_COUNT_BITS = (3, 4, 8, 16)  # as written by Label Studio; the decoder follows the header


def decode_brush(coded: Sequence[int], pixels: int) -> NDArray[np.int64]:
    """Decode a brush mask to run lengths that add up to `pixels`, starting with zeros.

    Args:
        coded: bytes, 0–255.
        pixels: number of pixels of the image; no memory is allocated for them.

    Raises:
        TypeError: not a list of integers.
        ValueError: another number of pixels, values of another size, or a stream that is too short or too long.
    """
    data = bytes(list(coded))  # bytes(number) would allocate that many bytes
    head = int.from_bytes(data[:8].ljust(8, b"\0"), "big") >> 11
    total = head >> 21
    word = (head >> 16 & 31) + 1
    sizes = tuple((head >> shift & 15) + 1 for shift in (12, 8, 4, 0))
    if total != 4 * pixels or word != 8:
        raise ValueError(f"{total} values of {word} bits for {pixels} pixels of 4 × 8 bits")
    lengths, values = _records(data, total, sizes)
    ends = np.cumsum(np.array(lengths, np.int64)) // 4  # every fourth value is an alpha
    has_alpha = np.diff(ends, prepend=0) > 0
    covered = np.array(values, np.uint8)[has_alpha] > 0
    ends = ends[has_alpha]
    runs = np.diff(ends[np.flatnonzero(np.diff(covered, append=~covered[-1:]))], prepend=0)
    return np.concatenate([[0], runs]) if covered[:1].any() else runs


def _records(data: bytes, total: int, sizes: Sequence[int]) -> tuple[list[int], list[int]]:
    """Return the lengths and values of the runs of all records."""
    lengths: list[int] = []
    values: list[int] = []
    position = _HEADER
    decoded = 0
    while decoded < total and position < 8 * len(data):
        # The head of a record and its first value fit into 34 bits, and so into 5 bytes from any bit position.
        window = int.from_bytes(data[position >> 3 : (position >> 3) + 5].ljust(5, b"\0"), "big") << (position & 7)
        size = sizes[window >> 37 & 3]
        count = (window >> (37 - size) & ((1 << size) - 1)) + 1
        position += 3 + size
        decoded += count
        if decoded > total:
            raise ValueError("a stream longer than the image")
        if window >> 39 & 1:
            lengths.append(count)
            values.append(window >> (29 - size) & 255)
            position += 8
        else:
            end = position + 8 * count
            chunk = int.from_bytes(data[position >> 3 : (end + 7) >> 3], "big") >> (-end & 7)
            if end <= 8 * len(data):
                lengths += [1] * count
                values += (chunk & ((1 << 8 * count) - 1)).to_bytes(count, "big")
            position = end
    if decoded < total or position > 8 * len(data):
        raise ValueError("a stream that ends early")
    return lengths, values


def encode_brush(mask: NDArray[Any]) -> list[int]:
    """Encode a mask (H, W); pixels that are not zero are covered."""
    header = f"{4 * mask.size:032b}{8 - 1:05b}" + "".join(f"{size - 1:04b}" for size in _COUNT_BITS)
    bits = [header]
    for number, pixels in enumerate(row_runs(mask != 0).tolist()):
        value = "1" * 8 if number % 2 else "0" * 8
        remaining = 4 * pixels
        while remaining:
            count = min(remaining, 1 << _COUNT_BITS[-1])
            which = next(k for k, size in enumerate(_COUNT_BITS) if count <= 1 << size)
            bits.append(f"1{which:02b}{count - 1:0{_COUNT_BITS[which]}b}{value}")
            remaining -= count
    stream = "".join(bits)
    stream += "0" * (-len(stream) % 8)
    return list(int(stream, 2).to_bytes(len(stream) // 8, "big"))
