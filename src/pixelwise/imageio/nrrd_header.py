"""Parse the headers of NRRD files.

Axes without a direction in space hold bands. Coordinates are converted from left, back and head to right, front and head; without
`space`, and in spaces that are not those of a body, the axes are taken as left, back and head, as ITK does.

Source: teem.sourceforge.net/nrrd/format.html.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pixelwise.errors import DataError
from pixelwise.imageio import volume_values
from pixelwise.imageio.raster import Refused
from pixelwise.imageio.safe_reading import reading, require_file
from pixelwise.imageio.volumes import VolumeHeader

MAGIC = b"NRRD000"
COMPRESSED = ("gzip", "bzip2")
_MAX_HEADER = 1 << 24
_TYPES = {
    "int8": "int8, int8_t, signed char",
    "uint8": "uint8, uint8_t, uchar, unsigned char",
    "int16": "int16, int16_t, short, short int, signed short, signed short int",
    "uint16": "uint16, uint16_t, ushort, unsigned short, unsigned short int",
    "int32": "int32, int32_t, int, signed int",
    "uint32": "uint32, uint32_t, uint, unsigned int",
    "int64": "int64, int64_t, longlong, long long, long long int, signed long long, signed long long int",
    "uint64": "uint64, uint64_t, ulonglong, unsigned long long, unsigned long long int",
    "float32": "float",
    "float64": "double",
}
_DTYPES = {name: dtype for dtype, names in _TYPES.items() for name in names.split(", ")}
_ENCODINGS = {"gz": "gzip", "bz2": "bzip2", "txt": "text", "ascii": "text"}
# Bytes of values per byte of the file, at most.
_MAX_RATIO = {"raw": 1, "gzip": 1032, "bzip2": 1 << 21, "hex": 1, "text": 8}
_SYNONYMS = {
    "datafile": "data file", "lineskip": "line skip", "byteskip": "byte skip", "centers": "centerings",
    "spacedimension": "space dimension", "spaceunits": "space units", "spaceorigin": "space origin",
    "spacedirections": "space directions", "measurementframe": "measurement frame",
}  # fmt: skip
_SHORT_SPACES = {"ras": "right-anterior-superior", "las": "left-anterior-superior", "lps": "left-posterior-superior"}
_TO_MM = {"m": 1e3, "meter": 1e3, "cm": 10.0, "um": 1e-3, "µm": 1e-3, "micron": 1e-3}
_TO_RAS = np.diag([-1.0, -1.0, 1.0])


@dataclass(frozen=True, eq=False)
class NrrdHeader:
    """The header of an NRRD file.

    Args:
        volume: shape and affine of the axes of space.
        fields: name → value, as text.
        pairs: free key → value.
        data: file with the values.
        start: position in `data` behind the header.
        encoding: "raw", "gzip", "bzip2", "hex" or "text".
        dtype: as stored.
        sizes: of all axes, the fastest first.
        spatial: numbers of the axes of space.
    """

    volume: VolumeHeader
    fields: Mapping[str, str]
    pairs: Mapping[str, str]
    data: Path
    start: int
    encoding: str
    dtype: np.dtype[Any]
    sizes: tuple[int, ...]
    spatial: tuple[int, ...]

    def skip(self, what: str) -> int:
        """Return how many of "line" or "byte" to skip before the values; -1 if they end with the file."""
        return int(self.fields.get(f"{what} skip", 0))


def describe(path: Path, error: type[DataError]) -> NrrdHeader:
    """Read the header of an NRRD file.

    Raises:
        DataError: an `error` if it is no NRRD file, broken, or names a data file in another folder.
    """
    with reading(path, error, "NRRD file"):
        require_file(path, "an NRRD file")
        return _describe(volume_values.key_of(path))


def split_axes(name: str, value: str) -> list[str]:
    """Return the value of a field for each axis: words, texts in quotes, or vectors in parentheses.

    Args:
        name: of the field.
        value: its text.
    """
    pattern = r"none|\([^)]*\)" if name == "space directions" else r'"(?:[^"\\]|\\.)*"' if '"' in value else r"\S+"
    return re.findall(pattern, value)


@lru_cache(maxsize=4096)
def _describe(key: volume_values.Key) -> NrrdHeader:
    path, _, size = key
    fields, pairs, end = _parse(path)
    sizes = tuple(int(value) for value in _required(fields, "sizes").split())
    if len(sizes) != int(_required(fields, "dimension")) or min(sizes, default=0) < 1:
        raise Refused("a positive size for each axis", f"sizes {fields['sizes']}", "Export the volume again.")
    dtype = _dtype(fields)
    encoding = _required(fields, "encoding").lower()
    encoding = _ENCODINGS.get(encoding, encoding)
    if encoding not in _MAX_RATIO:
        raise Refused(f"encoding {', '.join(_MAX_RATIO)}", repr(encoding), "Save the volume with gzip compression.")
    data = _data_file(path, fields)
    start = end if data == path else 0
    needed = math.prod(sizes) * dtype.itemsize
    available = size if data == path else data.stat().st_size
    if needed > (available - start) * _MAX_RATIO[encoding]:
        raise EOFError("truncated")
    spatial = _spatial(fields, len(sizes))
    bands = [axis for axis in range(len(sizes)) if axis not in spatial]
    if sum(sizes[axis] > 1 for axis in bands) > 1 or not 2 <= len(spatial) <= 3:
        found = f"{len(spatial)} axes of space and {len(bands)} others"
        raise Refused("three axes of space and one of bands", found, "Save one volume per file.")
    affine, unit, calibration = _affine(fields, spatial, len(sizes))
    i, j, k = (*(sizes[axis] for axis in spatial), 1)[:3]
    count = math.prod(sizes[axis] for axis in bands)
    timed = count > 1 and any(kind == "time" for kind in split_axes("kinds", fields.get("kinds", "")))
    native = dtype.newbyteorder("=")
    volume = VolumeHeader(path, (i, j, k), count, native, affine, calibration, needed, timed, unit)
    return NrrdHeader(volume, fields, pairs, data, start, encoding, dtype, sizes, spatial)


def _parse(path: Path) -> tuple[dict[str, str], dict[str, str], int]:
    """Return the fields by their names in lower case, the free pairs, and where the header ends."""
    fields: dict[str, str] = {}
    pairs: dict[str, str] = {}
    with path.open("rb") as file:
        if not file.readline(16).startswith(MAGIC):
            raise Refused("an NRRD file", "something else", "Save the volume as .nrrd, or remove the file.")
        while file.tell() < _MAX_HEADER:
            raw = file.readline(_MAX_HEADER)
            line = raw.rstrip(b"\r\n").decode("utf-8", "replace")
            if not line:  # an empty line, or the end of a header without values
                return fields, pairs, file.tell()
            if line.startswith("#"):
                continue
            match = re.match(r"([^:]+):(=?) ?(.*)", line, re.S)
            if match is None:
                raise Refused("a field in each line of the header", repr(line[:60]), "Export the volume again.")
            if match[2]:
                pairs[match[1]] = re.sub(r"\\(n|\\)", lambda m: "\n" if m[1] == "n" else "\\", match[3])
            else:
                name = match[1].strip().lower()
                fields[_SYNONYMS.get(name, name)] = match[3].strip()
    raise Refused(f"a header of at most {_MAX_HEADER:,} bytes", "a longer one", "Export the volume again.")


def _required(fields: Mapping[str, str], name: str) -> str:
    if name not in fields:
        raise Refused(f"a field {name!r} in the header", "none", "Export the volume again.")
    return fields[name]


def _dtype(fields: Mapping[str, str]) -> np.dtype[Any]:
    name = _required(fields, "type").lower()
    if name not in _DTYPES:
        raise Refused("whole or real numbers", f"type {name}", "Save the volume as short or float.")
    dtype = np.dtype(_DTYPES[name])
    endian = fields.get("endian", "little").lower()
    if endian not in ("little", "big"):
        raise Refused("endian little or big", repr(endian), "Export the volume again.")
    return dtype.newbyteorder(">" if endian == "big" else "<")


def _data_file(path: Path, fields: Mapping[str, str]) -> Path:
    """Return the file with the values: the header's own, or one beside it."""
    name = fields.get("data file")
    if name is None:
        return path
    if name.startswith("LIST") or re.search(r"%[0-9]*d", name):
        do = "Save the volume as one .nrrd file."
        raise Refused("one data file", f"several ({name[:60]})", do)
    if name in ("", ".", "..") or PurePosixPath(name).name != name or re.search(r"[\\:\0]", name):
        do = "Move it beside the header, write its plain name there, or save the volume as one .nrrd file."
        raise Refused("a data file beside the header", repr(name[:60]), do)
    data = path.parent / name
    if not data.is_file():
        found = f"no file {name!r}" if not data.exists() else f"{name!r}, which is no regular file"
        raise Refused("a data file beside the header", found, "Copy both files into one folder.")
    return data


# Space ----------------------------------------------------------------------------------------------------------------


def _spatial(fields: Mapping[str, str], dimension: int) -> tuple[int, ...]:
    """Return the axes of space: those with a direction, those of a kind of space, or all of up to three axes.

    Raises:
        Refused: neither is known of more than three axes.
    """
    directions = split_axes("space directions", fields.get("space directions", ""))
    if directions:
        if len(directions) != dimension:
            found = fields["space directions"][:80]
            raise Refused(f"{dimension} space directions", found, "Export the volume again.")
        return tuple(axis for axis, vector in enumerate(directions) if vector != "none")
    kinds = [kind.lower() for kind in split_axes("kinds", fields.get("kinds", ""))]
    if len(kinds) == dimension and "???" not in kinds:
        return tuple(axis for axis, kind in enumerate(kinds) if kind in ("domain", "space"))
    if dimension > 3:
        found = f"{dimension} axes without space directions or kinds"
        raise Refused("axes of space and of bands", found, "Save one volume per file.")
    return tuple(range(dimension))


def _affine(fields: Mapping[str, str], spatial: Sequence[int], dimension: int) -> tuple[NDArray[np.float64], str, str]:
    """Return the matrix from (i, j, k) to right, front and head; the unit; and what the spacing was taken from.

    A flat image is as thick as its pixels are long, so that it is one slice.
    """
    columns, unit, calibration = _columns(fields, spatial, dimension)
    signs, scale = _to_lps(fields), np.ones(3)
    for axis, name in enumerate(split_axes("space units", fields.get("space units", ""))[:3]):
        scale[axis] = _TO_MM.get(name.strip('"').lower(), 1.0)
    affine = np.eye(4)
    for place, column in enumerate(columns):
        affine[: len(column), place] = column
        affine[len(column) : 3, place] = 0
    if len(columns) == 2:
        normal = np.cross(affine[:3, 0], affine[:3, 1])
        thickness = np.linalg.norm(affine[:3, :2], axis=0).max()
        affine[:3, 2] = normal / (np.linalg.norm(normal) or 1) * thickness
    origin = _vector(fields.get("space origin", "(0,0,0)"))
    affine[: len(origin), 3] = origin
    affine[:3] = _TO_RAS @ (affine[:3] * (signs * scale)[:, np.newaxis])
    return affine, unit, calibration


def _columns(
    fields: Mapping[str, str], spatial: Sequence[int], dimension: int
) -> tuple[list[NDArray[np.float64]], str, str]:
    """Return the step along each axis of space, the unit, and what the spacing was taken from."""
    directions = split_axes("space directions", fields.get("space directions", ""))
    if directions:
        return [_vector(directions[axis]) for axis in spatial], "mm", "space directions"
    spacings = [float(value) for value in fields.get("spacings", "").split()]
    known = len(spacings) == dimension and all(np.isfinite(spacings[axis]) and spacings[axis] for axis in spatial)
    steps = [spacings[axis] if known else 1.0 for axis in spatial]
    columns = list(np.diag([*steps, 1.0][:3])[: len(steps)])
    return columns, "mm" if known else "px", "spacings" if known else "none"


def _vector(text: str) -> NDArray[np.float64]:
    """Parse "(1,0,0)".

    Raises:
        Refused: no vector of two or three numbers.
    """
    try:
        values = np.array([float(value) for value in text.strip("() ").split(",")])
    except ValueError:
        values = np.zeros(0)
    if len(values) not in (2, 3):
        raise Refused("vectors of two or three numbers", text[:60], "Export the volume again.")
    return values


def _to_lps(fields: Mapping[str, str]) -> NDArray[np.float64]:
    """Return the signs that convert the world coordinates of a file to left, back and head."""
    space = fields.get("space", "").lower().removesuffix("-time")
    space = _SHORT_SPACES.get(space, space)
    words = space.split("-")
    return np.array([-1.0 if words[0] == "right" else 1.0, -1.0 if words[1:2] == ["anterior"] else 1.0, 1.0])
