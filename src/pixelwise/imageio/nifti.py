"""Read NIfTI files: the header, the stored values, and label tables.

The header is compared with the size of the file before memory is allocated; deflate compresses by a factor of 1032 at most.
Uncompressed files are memory-mapped.

Source: NIfTI-1.1 and NIfTI-2 headers through nibabel; label tables as in the extension of Caret and Connectome Workbench (code
30) and in TotalSegmentator.
"""

from __future__ import annotations

import gzip
import math
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
from numpy.typing import NDArray

from pixelwise.errors import DataError, ImageError
from pixelwise.imageio import volume_values
from pixelwise.imageio.extras import need
from pixelwise.imageio.raster import Refused
from pixelwise.imageio.safe_reading import reading, require_file
from pixelwise.imageio.volumes import VolumeHeader, scaled, scaled_type

SUFFIXES = (".nii", ".nii.gz")
_TO_MM = {"meter": 1e3, "micron": 1e-3}
_MAX_RATIO = 1032
_MAX_HEADER = 1 << 24


def is_nifti(path: Path) -> bool:
    """Whether a file has the name of a NIfTI file."""
    return path.name.lower().endswith(SUFFIXES)


def read_header(path: Path, error: type[DataError] = ImageError) -> VolumeHeader:
    """Read the header of a NIfTI file.

    Raises:
        DataError: an `error` if it is no NIfTI file, or broken.
    """
    return _described(path, error)[0]


def read_raw_header(path: Path) -> Any:
    """Read nibabel's header of a file, with all its fields.

    Raises:
        ImageError: not a NIfTI file, or a broken one.
    """
    nibabel = need("nibabel", "volumes", path)
    with reading(path, ImageError, "NIfTI file"), _opened(path) as (stream, _):
        return _header_of(nibabel, stream.read(540))


def read_stored(path: Path, error: type[DataError] = ImageError) -> tuple[NDArray[Any], float, float]:
    """Return the stored values (i, j, k) or (i, j, k, C), slope and intercept; check the limits before.

    Compressed files are decompressed completely, and kept for a while (see `volume_values`).

    Raises:
        DataError: an `error` if the file is truncated or broken.
    """
    header, offset, dtype, slope, intercept = _described(path, error)
    shape = (*header.shape, header.bands) if header.bands > 1 else header.shape

    def load() -> NDArray[Any]:
        with reading(path, error, "NIfTI file"), _opened(path) as (stream, compressed):
            if not compressed:
                return np.memmap(path, dtype, "r", offset, shape, "F")
            return volume_values.decompress(stream, offset, dtype, math.prod(shape)).reshape(shape, order="F")

    return volume_values.keep((path,), load), slope, intercept


def read_box(path: Path, box: tuple[slice, ...], error: type[DataError] = ImageError) -> NDArray[Any]:
    """Return the values (i, j, k) or (i, j, k, C) of a box along the file's axes, after scaling.

    Raises:
        DataError: an `error` if the file is truncated or broken.
    """
    header = read_header(path, error)
    stored, slope, intercept = read_stored(path, error)
    return scaled(stored[box], header.dtype, slope, intercept)


_Described = tuple[VolumeHeader, int, np.dtype[Any], float, float]


def _described(path: Path, error: type[DataError]) -> _Described:
    with reading(path, error, "NIfTI file"):
        require_file(path, "a NIfTI file")
        return _describe(volume_values.key_of(path))


@lru_cache(maxsize=4096)
def _describe(key: volume_values.Key) -> _Described:
    """Return header, offset of the first value, stored type, slope and intercept."""
    path, _, size = key
    nibabel = need("nibabel", "volumes", path)
    with _opened(path) as (stream, compressed):
        start = stream.read(540)
        plain = _header_of(nibabel, start)
        offset = int(plain.get_data_offset())
        shape, bands = _shape(tuple(int(n) for n in plain.get_data_shape()))
        dtype = np.dtype(plain.get_data_dtype())
        if dtype.kind not in "iuf" or dtype.itemsize > 8:
            name = f"{plain['datatype']} of {plain['bitpix']} bits"
            raise Refused("whole or real numbers", f"data type {name}", "Save the volume as int16 or float32.")
        needed = offset + math.prod(shape) * bands * dtype.itemsize
        if offset < 0 or needed > size * (_MAX_RATIO if compressed else 1):
            raise EOFError("truncated")
    given = plain.get_slope_inter()
    slope, intercept = (1.0, 0.0) if given[0] is None else (float(given[0]), float(given[1]))
    affine = np.array(plain.get_best_affine(), np.float64)
    affine[:3] *= _TO_MM.get(plain.get_xyzt_units()[0], 1.0)
    calibration = "sform" if plain["sform_code"] > 0 else "qform" if plain["qform_code"] > 0 else "pixdim"
    ends = (0, 0) if dtype.kind == "f" else (int(np.iinfo(dtype).min), int(np.iinfo(dtype).max))
    read_as = scaled_type(dtype.newbyteorder("="), ends, slope, intercept)
    timed = bands > 1 and plain.get_xyzt_units()[1] in ("sec", "msec", "usec")
    header = VolumeHeader(path, shape, bands, read_as, affine, calibration, needed - offset, timed)
    return header, offset, dtype, slope, intercept


@contextmanager
def _opened(path: Path) -> Iterator[tuple[Any, bool]]:
    """Open a file; yield its decompressed content, and whether it is compressed."""
    with path.open("rb") as file:
        compressed = file.read(2) == b"\x1f\x8b"
        file.seek(0)
        if compressed:
            with gzip.GzipFile(fileobj=file) as stream:
                yield stream, True
        else:
            yield file, False


def _header_of(nibabel: Any, start: bytes) -> Any:
    """Parse a NIfTI-1 or NIfTI-2 header from the first bytes of a file."""
    for size, magic, at, kind in ((348, b"n+1\0", 344, "Nifti1Header"), (540, b"n+2\0", 4, "Nifti2Header")):
        if size in (int.from_bytes(start[:4], "little"), int.from_bytes(start[:4], "big")):
            if len(start) < size:
                raise EOFError("truncated")
            if start[at : at + 4] == magic:
                return getattr(nibabel, kind)(start[:size])
    if start[344:348] == b"ni1\0":
        raise Refused("header and values in one file", "a pair of .hdr and .img", "Save it as .nii or .nii.gz.")
    raise Refused("a NIfTI file", "something else", "Save the volume as .nii.gz, or remove the file.")


def _shape(axes: tuple[int, ...]) -> tuple[tuple[int, int, int], int]:
    """Return the voxels along i, j, k, and the values per voxel, which are in the fourth axis or, as vectors, in the fifth."""
    space = (*axes, 1, 1, 1)[:3]
    bands = [n for n in axes[3:] if n != 1]
    if len(bands) > 1 or min(axes, default=0) < 1:
        found = "×".join(map(str, axes)) or "nothing"
        raise Refused("three spatial axes and one of bands", found, "Save one volume per file.")
    return (space[0], space[1], space[2]), bands[0] if bands else 1


def read_label_table(path: Path) -> dict[int, str]:
    """Read the names of ids from the label table that some programs write into the file; empty if there is none."""
    try:
        with _opened(path) as (stream, _):
            head = stream.read(540)
            offset = int(_header_of(need("nibabel", "volumes", path), head).get_data_offset())
            if offset > _MAX_HEADER:
                return {}
            extensions = (head + stream.read(max(offset - len(head), 0)))[:offset]
        start, end = extensions.find(b"<LabelTable"), extensions.find(b"</LabelTable>")
        return _names(extensions[start : end + len(b"</LabelTable>")]) if 0 <= start < end else {}
    except (Refused, OSError, EOFError, ValueError, zlib.error, ElementTree.ParseError):
        return {}  # the values can be read without names


def _names(table: bytes) -> dict[int, str]:
    """Parse key and text of every Label; without a document type, the XML has no entities."""
    labels = ElementTree.fromstring(table).iter("Label")
    names = {int(label.get("Key", "-1")): "".join(label.itertext()).strip() for label in labels}
    return {number: name for number, name in names.items() if number >= 0 and name}
