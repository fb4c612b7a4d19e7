"""NumPy arrays in .npy and .npz files: the header first, the values on demand. Nothing is ever unpickled.

An archive must hold one array. Arrays are (H, W), or have bands on their first or last axis: on the side that leaves a square
image if only one does, otherwise the shorter one, or the last if both are equal. Three bands of uint8 are colours, booleans are
0 and 1; alpha is not assumed.
"""

from __future__ import annotations

import zipfile
from typing import IO, BinaryIO

import numpy as np
from numpy.lib import format as npy

from pixelwise.imageio.raster import Decoder, Header, Raster, Refused, as_samples

_SHOWN = 4
_SAVE = "Save one image or mask per file, as numbers: np.save(path, array)."


def open_array(file: BinaryIO) -> tuple[Header, Decoder]:
    """Read the header of a .npy file.

    Raises:
        Refused: objects, or an array that is no image. EOFError, ValueError: the file is truncated or broken.
    """
    end = file.seek(0, 2)
    file.seek(0)
    header, first, size = _read_header(file, "NPY")
    if file.tell() + size > end:
        raise EOFError("truncated")

    def decode() -> Raster:
        file.seek(0)
        return _decode(file, header, first)

    return header, decode


def open_archive(file: BinaryIO) -> tuple[Header, Decoder]:
    """Read the header of the only array in an .npz file.

    Raises:
        Refused: another ZIP archive, several arrays, objects, or an array that is no image. EOFError, ValueError: see
            `open_array`.
    """
    try:
        archive = zipfile.ZipFile(file)
    except zipfile.BadZipFile as error:
        raise EOFError("truncated") from error  # the table of contents is at the end
    names = [info.filename for info in archive.infolist()]
    keys = [name.removesuffix(".npy") for name in names if name.endswith(".npy")]
    if not keys:
        found = "a ZIP archive without arrays"
        raise Refused("an archive of one array (.npz)", found, "Extract it, or remove the file.")
    if len(keys) > 1:
        shown = ", ".join(keys[:_SHOWN]) + (f" and {len(keys) - _SHOWN} more" if len(keys) > _SHOWN else "")
        do = f"Save the one that matters: np.save(path, np.load(file)[{keys[0]!r}])."
        raise Refused("an archive of one array", f"{len(keys)} ({shown})", do)
    entry = archive.getinfo(f"{keys[0]}.npy")
    with archive.open(entry) as stream:
        header, first, size = _read_header(stream, "NPZ")
        if stream.tell() + size > entry.file_size:
            raise EOFError("truncated")

    def decode() -> Raster:
        with archive.open(entry) as stream:
            raster = _decode(stream, header, first)
            stream.read(1)  # reading to the end verifies the checksum
            return raster

    return header, decode


def _read_header(stream: IO[bytes], name: str) -> tuple[Header, bool, int]:
    """Return the header, whether the bands are on the first axis, and the bytes of the values."""
    version = npy.read_magic(stream)
    read = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
    shape, _, dtype = read(stream)
    if dtype.kind not in "buif" or dtype.itemsize > 8:
        raise Refused("an array of numbers of at most 64 bits", f"one of {dtype}", _SAVE)
    if len(shape) not in (2, 3) or min(shape) < 1:
        raise Refused("an array of shape (H, W), (H, W, C) or (C, H, W)", f"shape {shape}", _SAVE)
    first = len(shape) == 3 and _bands_first(shape)
    size = (shape[1], shape[2]) if first else (shape[0], shape[1])
    samples = 1 if len(shape) == 2 else shape[0] if first else shape[2]
    stored = np.dtype(np.uint8) if dtype.kind == "b" else dtype.newbyteorder("=")
    header = Header(
        name,
        size,
        samples,
        "bit" if dtype.kind == "b" and samples == 1 else "rgb" if samples == 3 and dtype == np.uint8 else "grey",
        stored,
        1 if dtype.kind == "b" else 8 * dtype.itemsize,
    )
    return header, first, int(np.prod(shape, dtype=object)) * dtype.itemsize


def _bands_first(shape: tuple[int, ...]) -> bool:
    """Whether the bands of an array of three axes are on its first one."""
    if (shape[0] == shape[1]) != (shape[1] == shape[2]):
        return shape[1] == shape[2]
    return shape[0] < shape[2]


def _decode(stream: IO[bytes], header: Header, first: bool) -> Raster:
    values = npy.read_array(stream, allow_pickle=False)
    values = np.moveaxis(values, 0, -1) if first else values
    return Raster(header, as_samples(values).astype(header.dtype, copy=False))
