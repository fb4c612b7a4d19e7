"""Write the tiles of an uncompressed TIFF in place, so that what was committed survives a kill.

GDAL creates the file without any tile and reads it in the end, but does not write the tiles: it writes its directory of tiles only
when it closes a file, and does not report when that fails on a full disk. Here every tile has a fixed place, and its entry is
written after its content. A tile without an entry holds no data.

Source: TIFF 6.0, section 15 (tiled images); GDAL's sparse files.
"""

from __future__ import annotations

import itertools
import os
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pixelwise.tiles import Window

_OFFSETS, _COUNTS = 324, 325
_PAGE = 4096  # bytes; tiles begin at multiples of it


class TileFile:
    """An uncompressed tiled TIFF, with one plane per band, that is written in place.

    Args:
        path: of the file, created by GDAL without any tile, or by an earlier writer.
        nodata: value of pixels that are not written, in tiles that are.

    Raises:
        OSError: it cannot be opened. ValueError, tifffile.TiffFileError: it is not complete.
    """

    def __init__(self, path: Path, nodata: float) -> None:
        import tifffile  # slow to import

        with tifffile.TiffFile(path) as tif:
            page = tif.pages.first
            self.planes, _, self.height, self.width, _ = page.shaped
            self._tile = (page.tilelength, page.tilewidth)
            self._dtype = np.dtype(page.dtype).newbyteorder(tif.byteorder)
            self._nodata = nodata
            self._entries = [
                (page.tags[code], _entries(page.tags[code], tif.byteorder)) for code in (_OFFSETS, _COUNTS)
            ]
            end = max(tag.valueoffset + tag.valuebytecount for tag in page.tags)
        self._grid = (self.planes, -(-self.height // self._tile[0]), -(-self.width // self._tile[1]))
        self._size = self._tile[0] * self._tile[1] * self._dtype.itemsize
        self._start = (end // _PAGE + 1) * _PAGE
        self._written = (self._entries[0][1] > 0) & (self._entries[1][1] > 0)
        if len(self._written) != np.prod(self._grid):
            raise ValueError(f"{len(self._written)} entries for {self._grid} tiles")
        self._file = path.open("r+b")

    def write(self, window: Window, values: NDArray[Any]) -> None:
        """Write the values (planes, H, W) of a window.

        Raises:
            OSError: the disk does not take them. ValueError: they have another shape or type.
        """
        if (values.shape, values.dtype) != ((self.planes, *window.shape), self._dtype):
            expected = f"{(self.planes, *window.shape)} {self._dtype}"
            raise ValueError(f"expected values of shape and type {expected}, found {values.shape} {values.dtype}")
        (top, left), (bottom, right) = window.start, window.stop
        height, width = self._tile
        rows = range(top // height, -(-bottom // height))
        columns = range(left // width, -(-right // width))
        for plane, row, column in itertools.product(range(self.planes), rows, columns):
            y, x = row * height, column * width
            rows_inside = slice(max(top, y), min(bottom, y + height))
            columns_inside = slice(max(left, x), min(right, x + width))
            index = int(np.ravel_multi_index((plane, row, column), self._grid))
            piece = values[plane, _from(rows_inside, top), _from(columns_inside, left)]
            if not self._written[index] and (piece == self._nodata).all():
                continue
            tile = self._read(index)
            tile[_from(rows_inside, y), _from(columns_inside, x)] = piece
            self._file.seek(self._start + index * self._size)
            self._file.write(tile.tobytes())
            self._written[index] = True

    def _read(self, index: int) -> NDArray[Any]:
        if not self._written[index]:
            return np.full(self._tile, self._nodata, self._dtype)
        self._file.seek(self._start + index * self._size)
        return np.frombuffer(bytearray(self._file.read(self._size)), self._dtype).reshape(self._tile)

    def commit(self) -> None:
        """Write all tiles to disk, and their entries after them.

        Raises:
            OSError: the disk does not take them.
        """
        self._sync()
        self._write_entries()
        self._sync()

    def _write_entries(self) -> None:
        places = self._start + np.flatnonzero(self._written) * self._size
        for (tag, entries), values in zip(self._entries, (places, self._size), strict=True):
            entries[self._written] = values
            self._file.seek(tag.valueoffset)
            self._file.write(entries.tobytes())

    def _sync(self) -> None:
        self._file.flush()
        os.fsync(self._file.fileno())

    def close(self, durable: bool = True) -> None:
        """Commit and close the file; without `durable`, it survives the end of the process but not a crash of the machine."""
        if self._file.closed:
            return
        try:
            self.commit() if durable else self._write_entries()
        finally:
            self._file.close()


def _entries(tag: Any, byteorder: str) -> NDArray[Any]:
    """Return the values of a tag in its type, which is read by its TIFF code."""
    dtype = {3: "u2", 4: "u4", 16: "u8"}[int(tag.dtype)]
    return np.atleast_1d(np.asarray(tag.value)).astype(byteorder + dtype)


def _from(part: slice, start: int) -> slice:
    """Count a slice from another start."""
    return slice(part.start - start, part.stop - start)
