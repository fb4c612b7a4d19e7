"""Portable anymaps: PBM, PGM, PPM and PAM with up to 16 bits in binary or as text, and PFM with floats.

Values are returned as they are stored, with the maximum that the file defines. In PBM, 1 is black.

Source: the formats as described at netpbm.sourceforge.net (pbm, pgm, ppm, pam); PFM by P. Debevec.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from pixelwise.imageio.raster import Decoder, Header, Kind, Raster, Refused, as_samples

_SAMPLES = {b"P1": 1, b"P2": 1, b"P3": 3, b"P4": 1, b"P5": 1, b"P6": 3, b"Pf": 1, b"PF": 3}
_TEXT = (b"P1", b"P2", b"P3")
_BITS = (b"P1", b"P4")
_FLOATS = (b"Pf", b"PF")
_MOST = 1 << 16  # bytes of a header
# One number, after white space and comments. A single white space follows the last one.
_NUMBER = re.compile(rb"(?:\s|#[^\r\n]*[\r\n])+(-?[0-9.]+(?:[eE][-+]?[0-9]+)?)(?=[\s#])")


@dataclass(frozen=True)
class _Map:
    """The header of an anymap: its kind, (H, W), samples per pixel, maximum (scale of PFM), and the place of the values."""

    magic: bytes
    size: tuple[int, int]
    samples: int
    maximum: float
    start: int
    tuples: str = ""  # what the samples of PAM mean

    @property
    def dtype(self) -> np.dtype[np.generic]:
        """Type of the values in a binary file."""
        if self.magic in _FLOATS:
            return np.dtype("<f4" if self.maximum < 0 else ">f4")
        return np.dtype(">u2" if self.maximum > 255 else "u1")

    @property
    def count(self) -> int:
        """Number of values."""
        return math.prod(self.size) * self.samples

    @property
    def bytes(self) -> int:
        """Length of the values; the smallest possible one as text."""
        if self.magic == b"P4":
            return self.size[0] * -(-self.size[1] // 8)
        if self.magic == b"P1":
            return self.count
        return 2 * self.count - 1 if self.magic in _TEXT else self.count * self.dtype.itemsize


def open_pnm(file: BinaryIO) -> tuple[Header, Decoder]:
    """Read the header of an anymap.

    Raises:
        Refused: several images. EOFError, ValueError: the file is truncated or broken.
    """
    end = file.seek(0, 2)
    file.seek(0)
    start = file.read(_MOST)
    map_ = _parse_pam(start) if start[:2] == b"P7" else _parse(start)
    if min(map_.size) < 1 or map_.samples < 1:
        raise ValueError(f"a size of {map_.size} in the header")
    if map_.start + map_.bytes > end:
        raise EOFError("truncated")
    header = _header(map_)

    def decode() -> Raster:
        file.seek(map_.start)
        values = _parse_text(map_, file.read()) if map_.magic in _TEXT else _read_values(map_, file)
        if map_.magic not in _FLOATS and values.max() > map_.maximum:
            raise ValueError(f"value {values.max()}, but {map_.maximum:g} as maximum in the header")
        return Raster(header, as_samples(values).astype(header.dtype, copy=False))

    return header, decode


def _header(map_: _Map) -> Header:
    kind: Kind = "bit" if map_.magic in _BITS or (map_.maximum == map_.samples == 1) else "grey"
    name = map_.tuples.upper()
    colour = map_.magic in (b"P3", b"P6") or name.startswith("RGB")
    if colour and map_.samples >= 3:
        kind = "rgb"
    maximum = None if map_.magic in _FLOATS else int(map_.maximum)
    has_alpha = name.endswith("_ALPHA") and map_.samples == (4 if kind == "rgb" else 2)
    return Header(
        "PNM",
        map_.size,
        map_.samples,
        kind,
        map_.dtype.newbyteorder("="),
        8 * map_.dtype.itemsize if maximum is None else maximum.bit_length(),
        map_.samples - 1 if has_alpha else None,
        inverted=map_.magic in _BITS,
        maximum=maximum,
    )


def _parse(start: bytes) -> _Map:
    """Parse width, height and, except in PBM, the maximum or the scale.

    Raises:
        EOFError: the header ends early. ValueError: an invalid number.
    """
    magic = start[:2]
    numbers: list[str] = []
    place = 2
    while len(numbers) < (2 if magic in _BITS else 3):
        match = _NUMBER.match(start, place)
        if match is None:
            raise EOFError("truncated") if place > len(start) - 16 else ValueError("no number in the header")
        numbers.append(match[1].decode())
        place = match.end()
    maximum = float(numbers[2]) if magic in _FLOATS else int(numbers[2]) if len(numbers) > 2 else 1
    if maximum == 0 or (magic not in _FLOATS and not 0 < maximum < 65536):
        raise ValueError(f"a maximum of {maximum:g} in the header")
    if magic not in _TEXT and start[place : place + 1] == b"#":  # a comment behind the last number
        place = start.index(b"\n", place)
    return _Map(magic, (int(numbers[1]), int(numbers[0])), _SAMPLES[magic], maximum, place + 1)


def _parse_pam(start: bytes) -> _Map:
    """Parse the lines of a PAM header.

    Raises:
        EOFError: the header ends early. ValueError: an invalid number.
    """
    place = start.find(b"ENDHDR\n")
    if place < 0:
        raise EOFError("truncated")
    lines = (line.split(None, 1) for line in start[2:place].decode("latin-1").splitlines())
    fields = {line[0]: line[1].strip() for line in lines if len(line) == 2 and not line[0].startswith("#")}
    width, height, depth, maximum = (int(fields.get(key, 0)) for key in ("WIDTH", "HEIGHT", "DEPTH", "MAXVAL"))
    if not 0 < maximum < 65536:
        raise ValueError(f"a maximum of {maximum} in the header")
    return _Map(b"P7", (height, width), depth, maximum, place + len(b"ENDHDR\n"), fields.get("TUPLTYPE", ""))


def _read_values(map_: _Map, file: BinaryIO) -> NDArray[np.generic]:
    """Read the values of a binary file: (H, W, samples).

    Raises:
        Refused: another image follows.
    """
    data = file.read(map_.bytes)
    if len(data) < map_.bytes:
        raise EOFError("truncated")
    following = file.read(3)
    if following[:1] == b"P" and following[1:2] in b"1234567Ff" and following[2:].isspace():
        raise Refused("one image in the file", "several", "Save each image as a separate file.")
    height, width = map_.size
    if map_.magic == b"P4":
        return np.unpackbits(np.frombuffer(data, np.uint8).reshape(height, -1), axis=1)[:, :width]
    values = np.frombuffer(data, map_.dtype).reshape(height, width, map_.samples)
    return values[::-1] if map_.magic in _FLOATS else values  # PFM begins with the lowest row


def _parse_text(map_: _Map, data: bytes) -> NDArray[np.generic]:
    """Parse the values of a text file: (H, W, samples).

    Raises:
        EOFError: too few values. ValueError: no number, or too many values.
    """
    data = re.sub(rb"#[^\r\n]*", b"", data)
    if map_.magic == b"P1":  # digits need no space between them
        digits = np.frombuffer(bytes(data), np.uint8)
        values = digits[~np.isin(digits, np.frombuffer(b" \t\r\n\v\f", np.uint8))].astype(np.int64) - ord("0")
    else:
        values = np.array(data.split(), dtype="S6").astype(np.int64)
    if len(values) < map_.count:
        raise EOFError("truncated")
    if len(values) > map_.count or values.min() < 0:
        raise ValueError(f"{len(values)} values for {map_.count} in the header")
    return values.reshape(*map_.size, map_.samples)
