"""Label Studio's coding of brush strokes: a stream of bits with repeated and single values, four of them for each pixel.

Comes in: a list of bytes and how many pixels there are, or a mask. Goes out: run lengths of what a stroke covers, or the list.
Knows nothing of files, tasks or labels.

Source: thi.ng/rle-pack, with which Label Studio writes it. 32 bits say how many values follow once decoded, 5 the bits of a
value less 1, four times 4 the bits of four sizes of count less 1. Then records: 1 bit "repeated", 2 bits which size of count,
the count less 1, and one value to be repeated, or as many as the count says. The values are red, green, blue and alpha of every
pixel, row by row. A pixel is covered where its alpha is not zero, as Label Studio's own conversion to COCO has it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

_HEADER = 32 + 5 + 4 * 4
_COUNT_BITS = (3, 4, 8, 16)  # as Label Studio writes them; read is whatever the header says


def decode_brush(coded: Sequence[int], pixels: int) -> NDArray[np.int64]:
    """Decode a brush stroke.

    Args:
        coded: values 0–255.
        pixels: how many the image has; memory is taken for what is in `coded` only.

    Returns:
        Run lengths that add up to `pixels`, what is not covered first.

    Raises:
        TypeError: no list of whole numbers.
        ValueError: another number of pixels, values of another size, or a stream that ends early or goes too far.

    """
    data = bytes(list(coded))  # a number would be as many bytes
    head = int.from_bytes(data[:8].ljust(8, b"\0"), "big") >> 11
    total, word = head >> 21, (head >> 16 & 31) + 1
    sizes = tuple((head >> shift & 15) + 1 for shift in (12, 8, 4, 0))
    if total != 4 * pixels or word != 8:
        raise ValueError(f"{total} values of {word} bits for {pixels} pixels of 4 × 8 bits")
    lengths, values, end = _records(data, total, sizes)
    if end > 8 * len(data):
        raise ValueError("coded pixels that end early")
    ends = np.cumsum(np.array(lengths, np.int64)) // 4  # a run holds the alpha of as many pixels as end in it
    many = np.diff(ends, prepend=0)
    seen = np.array(values, np.uint8)[many > 0] > 0
    ends = ends[many > 0]
    last = np.flatnonzero(np.diff(seen, append=~seen[-1:]))
    runs = np.diff(ends[last], prepend=0)
    return np.concatenate([[0], runs]) if seen[:1].any() else runs


def _records(data: bytes, total: int, sizes: Sequence[int]) -> tuple[list[int], list[int], int]:
    """Follow the records: lengths and values of the runs, and the bit at which they end."""
    lengths: list[int] = []
    values: list[int] = []
    place, done, bits = _HEADER, 0, 8 * len(data)
    while done < total and place < bits:
        # A record's head and its first value lie within 34 bits, wherever in a byte they begin.
        window = int.from_bytes(data[place >> 3 : (place >> 3) + 5].ljust(5, b"\0"), "big") << (place & 7)
        size = sizes[window >> 37 & 3]
        count = (window >> (37 - size) & ((1 << size) - 1)) + 1
        repeated = window >> 39 & 1
        place += 3 + size
        done += count
        if done > total:
            raise ValueError("coded pixels that go beyond the image")
        if repeated:
            lengths.append(count)
            values.append(window >> (29 - size) & 255)
            place += 8
        else:
            end = place + 8 * count
            chunk = int.from_bytes(data[place >> 3 : (end + 7) >> 3], "big") >> (-end & 7)
            if end <= bits:
                lengths += [1] * count
                values += (chunk & ((1 << 8 * count) - 1)).to_bytes(count, "big")
            place = end
    return lengths, values, place if done == total else bits + 1


def encode_brush(mask: NDArray[Any]) -> list[int]:
    """Code a mask (H, W): what is not zero is covered."""
    flat = (mask != 0).reshape(-1)
    ends = np.flatnonzero(np.diff(flat, append=~flat[-1:])) + 1
    sizes = "".join(f"{size - 1:04b}" for size in _COUNT_BITS)
    bits = [f"{4 * flat.size:032b}{8 - 1:05b}{sizes}"]
    for end, length in zip(ends.tolist(), np.diff(ends, prepend=0).tolist(), strict=True):
        value, left = "1" * 8 if flat[end - 1] else "0" * 8, 4 * length
        while left:
            count = min(left, 1 << _COUNT_BITS[-1])
            which = next(k for k, size in enumerate(_COUNT_BITS) if count <= 1 << size)
            bits.append(f"1{which:02b}{count - 1:0{_COUNT_BITS[which]}b}{value}")
            left -= count
    stream = "".join(bits)
    stream += "0" * (-len(stream) % 8)
    return list(int(stream, 2).to_bytes(len(stream) // 8, "big"))
