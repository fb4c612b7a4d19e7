"""Read NRRD volumes (.nrrd, .seg.nrrd, .nhdr with a data file beside it), and write masks in NRRD.

Source: teem.sourceforge.net/nrrd/format.html; names and colours of segments as in the segmentations of 3D Slicer (.seg.nrrd).
"""

from __future__ import annotations

import bz2
import gzip
import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from pixelwise.errors import DataError, ImageError
from pixelwise.imageio import volume_values
from pixelwise.imageio.nrrd_header import COMPRESSED, MAGIC, NrrdHeader, describe, split_axes
from pixelwise.imageio.raster import Refused
from pixelwise.imageio.safe_reading import reading, require_file
from pixelwise.imageio.volumes import VolumeHeader
from pixelwise.labels import Labels

SUFFIXES = (".seg.nrrd", ".nrrd", ".nhdr")
_PER_AXIS = ("space directions", "spacings", "thicknesses", "centerings", "units", "kinds")
_OF_SPACE = ("space units", "space origin", "measurement frame")


def is_nrrd(path: Path) -> bool:
    """Whether a file has the name of an NRRD file."""
    return path.name.lower().endswith(SUFFIXES)


def starts_nrrd(start: bytes) -> bool:
    """Whether a file is NRRD, by its first bytes."""
    return start.startswith(MAGIC)


def read_header(path: Path, error: type[DataError] = ImageError) -> VolumeHeader:
    """Read the header of an NRRD file.

    Raises:
        DataError: an `error` if it is no NRRD file, broken, or names a data file in another folder.
    """
    return describe(path, error).volume


def read_box(path: Path, box: tuple[slice, ...], error: type[DataError] = ImageError) -> NDArray[Any]:
    """Return the values (i, j, k) or (i, j, k, C) of a box along the file's axes.

    Raises:
        DataError: an `error` if the file is truncated or broken.
    """
    header = describe(path, error)

    def load() -> NDArray[Any]:
        bands = [axis for axis in range(len(header.sizes)) if axis not in header.spatial]
        ordered = _stored(header).reshape(header.sizes, order="F").transpose(*header.spatial, *bands)
        # At most one axis of bands is longer than 1, so that joining them copies nothing.
        many = header.volume.bands > 1
        return ordered.reshape((*header.volume.shape, header.volume.bands) if many else header.volume.shape)

    with reading(path, error, "NRRD file"):
        require_file(header.data, f"the data file {header.data.name} beside the header")
        return volume_values.keep((path, header.data), load)[box].astype(header.volume.dtype, copy=False)


def read_data_file(path: Path) -> Path:
    """Return the file with the values: that of the header, or one beside it.

    Raises:
        ImageError: it is no NRRD file, broken, or names a data file in another folder.
    """
    return describe(path, ImageError).data


def read_label_table(path: Path) -> dict[int, str]:
    """Read the names of ids from the segments that 3D Slicer describes; empty if there are none."""
    try:
        pairs = describe(path, ImageError).pairs
    except DataError:
        return {}  # reported when the values are read
    names = {}
    for key, name in pairs.items():
        match = re.fullmatch(r"(Segment\d+)_Name", key)
        value = pairs.get(f"{match[1]}_LabelValue", "") if match else ""
        if value.isdecimal() and name.strip():
            names[int(value)] = name.strip()
    return names


def encode_mask(path: Path, ids: NDArray[Any], labels: Labels) -> bytes:
    """Return an NRRD file with class ids, on the voxels of another and with its fields of space unchanged.

    Classes are described as segments of 3D Slicer, except that of id 0, which Slicer shows as background.

    Args:
        path: of the image.
        ids: (i, j, k) class ids.
        labels: the classes.

    Raises:
        ImageError: the image can no longer be read.
    """
    header = describe(path, ImageError)
    fields, axes = header.fields, header.spatial
    lines = ["NRRD0005", f"type: {ids.dtype.name}", f"dimension: {len(axes)}"]
    lines += [f"{name}: {fields[name]}" for name in ("space", "space dimension") if name in fields]
    lines.append("sizes: " + " ".join(str(header.sizes[axis]) for axis in axes))
    for name in _PER_AXIS:
        values = split_axes(name, fields.get(name, ""))
        if len(values) == len(header.sizes):
            lines.append(f"{name}: {' '.join(values[axis] for axis in axes)}")
    lines += ["endian: little", "encoding: gzip"]
    lines += [f"{name}: {fields[name]}" for name in _OF_SPACE if name in fields]
    lines += _segments(ids, labels)
    content = ids.astype(ids.dtype.newbyteorder("<"), copy=False).tobytes("F")
    return "\n".join(lines).encode() + b"\n\n" + gzip.compress(content, mtime=0)


def _segments(ids: NDArray[Any], labels: Labels) -> Iterator[str]:
    """Yield the lines that describe classes to 3D Slicer."""
    yield "Segmentation_MasterRepresentation:=Binary labelmap"
    yield "Segmentation_ContainedRepresentationNames:=Binary labelmap|"
    yield "Segmentation_ReferenceImageExtentOffset:=0 0 0"
    classes = [each for each in zip(labels.ids, labels.names, labels.colours, strict=True) if each[0] != 0]
    whole = " ".join(f"0 {size - 1}" for size in ids.shape)
    for number, (id_, name, colour) in enumerate(classes):
        segment = f"Segment{number}"
        text = name.replace("\\", "\\\\").replace("\n", "\\n")
        yield f"{segment}_Color:={' '.join(f'{value / 255:.6g}' for value in colour)}"
        yield f"{segment}_ColorAutoGenerated:=0"
        yield f"{segment}_Extent:={whole}"
        yield f"{segment}_ID:=Segment_{id_}"
        yield f"{segment}_LabelValue:={id_}"
        yield f"{segment}_Layer:=0"
        yield f"{segment}_Name:={text}"
        yield f"{segment}_NameAutoGenerated:=0"
        yield f"{segment}_Tags:=Segmentation.Status:completed|"


def _stored(header: NrrdHeader) -> NDArray[Any]:
    """Return all values, the fastest axis first; of an uncompressed file, mapped into memory."""
    count = math.prod(header.sizes)
    size = count * header.dtype.itemsize
    with header.data.open("rb") as file:
        file.seek(header.start)
        for _ in range(header.skip("line")):
            if not file.readline():
                raise EOFError("truncated")
        skipped = header.skip("byte")
        if skipped < -1 or (skipped == -1 and header.encoding != "raw"):
            raise Refused("a byte skip of at least 0", str(skipped), "Export the volume again.")
        if header.encoding in COMPRESSED:
            with gzip.GzipFile(fileobj=file) if header.encoding == "gzip" else bz2.BZ2File(file) as stream:
                return volume_values.decompress(stream, skipped, header.dtype, count)
        offset = header.data.stat().st_size - size if skipped == -1 else file.tell() + skipped
        if header.encoding == "raw":
            if offset + size > header.data.stat().st_size:
                raise EOFError("truncated")
            return np.memmap(header.data, header.dtype, "r", offset, (count,))
        file.seek(offset)
        return _from_text(file, header, count)


def _from_text(file: BinaryIO, header: NrrdHeader, count: int) -> NDArray[Any]:
    if header.encoding == "hex":
        content = bytes.fromhex(file.read().decode("ascii"))
        if len(content) < count * header.dtype.itemsize:
            raise EOFError("truncated")
        return np.frombuffer(content, header.dtype, count)
    words = re.split(rb"[\s,]+", file.read().strip())
    if len(words) < count:
        raise EOFError("truncated")
    return np.array(words[:count]).astype(np.float64 if header.dtype.kind == "f" else np.int64).astype(header.dtype)
