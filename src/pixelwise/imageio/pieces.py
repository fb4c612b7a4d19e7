"""Decode the strips or tiles of a TIFF page one by one, and keep some of them.

A window needs few of the pieces of a large file. Neighbouring windows need the same pieces again, and many files consist of one
compressed strip, so decoded pieces are kept per process, up to a number of bytes.
"""

from __future__ import annotations

import itertools
import os
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Any, BinaryIO, TypeVar

import numpy as np
from numpy.typing import NDArray

from pixelwise.tiles import Window

_T = TypeVar("_T")
_MOST_BYTES = 256 << 20
_MOST_FILES = 16
_SETTLED = 2.0  # seconds; a younger file may be written again without a new time of modification


class Cache:
    """Recently used values by key, up to a total size; to be used by several threads. The latest value is always kept.

    Args:
        most: total size.
        size: the size of a value.
    """

    def __init__(self, most: int, size: Callable[[Any], int]) -> None:
        self._most, self._size, self._total = most, size, 0
        self._values: OrderedDict[Hashable, Any] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: Hashable, make: Callable[[], _T]) -> _T:
        """Return the value of a key; it is made if it is not there."""
        with self._lock:
            if key in self._values:
                self._values.move_to_end(key)
                found: _T = self._values[key]
                return found
        value = make()
        with self._lock:
            if key not in self._values:
                self._values[key] = value
                self._total += self._size(value)
            while self._total > self._most and len(self._values) > 1:
                self._total -= self._size(self._values.popitem(last=False)[1])
        return value


class Kept:
    """What is kept of files: opened headers, and decoded pixels."""

    def __init__(self) -> None:
        self.files = Cache(_MOST_FILES, lambda opened: 1)
        self.pixels = Cache(_MOST_BYTES, lambda values: int(values.nbytes))


_kept: dict[int, Kept] = {}


def kept() -> Kept:
    """Return what this process keeps; a forked process begins anew, since locks may be taken in its copy."""
    process = os.getpid()
    return _kept.get(process) or _kept.setdefault(process, Kept())


def identity(file: BinaryIO) -> Hashable | None:
    """Return a key for the content of an open file; None if it was written a moment ago, so that it must not be kept."""
    status = os.fstat(file.fileno())
    changed = max(status.st_mtime, status.st_ctime)
    if abs(time.time() - changed) < _SETTLED:
        return None
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns


def keep(cache: Cache, key: Hashable | None, what: Hashable, make: Callable[[], _T]) -> _T:
    """Return a value of a file, from the cache unless the file has no key (see `identity`)."""
    return make() if key is None else cache.get((key, what), make)


@dataclass(frozen=True)
class Pieces:
    """The strips or tiles of a page of tifffile.

    Args:
        page: of which the file need not be open any more.
        decode: decodes the data and index of a piece to (H, W, samples of a plane).
        size: (H, W) of a piece.
    """

    page: Any
    decode: Callable[[bytes, int], NDArray[Any]]
    size: tuple[int, int]

    def read(self, file: BinaryIO, box: Window, key: Hashable | None = None) -> NDArray[Any]:
        """Decode a box of the page as stored, to (planes, H, W, samples of a plane).

        Args:
            file: the open file.
            box: (H, W).
            key: of the file, to keep its pieces; see `identity`.
        """
        planes, _, height, width, samples = self.page.shaped
        image = np.full((planes, *box.shape, samples), self.page.nodata, self.page.dtype)
        spans = [range(a // step, -(-b // step)) for a, b, step in zip(box.start, box.stop, self.size, strict=True)]
        counts = [-(-height // self.size[0]), -(-width // self.size[1])]
        for plane, row, column in itertools.product(range(planes), *spans):
            values = self._piece(file, (plane * counts[0] + row) * counts[1] + column, key)
            if values is None:
                continue
            y, x = row * self.size[0], column * self.size[1]
            top, left = max(box.start[0], y), max(box.start[1], x)
            part = values[top - y : box.stop[0] - y, left - x : box.stop[1] - x]
            at = top - box.start[0], left - box.start[1]
            image[plane, at[0] : at[0] + part.shape[0], at[1] : at[1] + part.shape[1]] = part
        return image

    def _piece(self, file: BinaryIO, index: int, key: Hashable | None) -> NDArray[Any] | None:
        """Decode a piece without what it holds beyond the image; None if it was never written."""
        page = self.page
        if index >= min(len(page.dataoffsets), len(page.databytecounts)):
            return None
        offset, count = page.dataoffsets[index], page.databytecounts[index]
        if not offset or not count:
            return None

        def make() -> NDArray[Any]:
            file.seek(offset)
            return self.decode(file.read(count), index)

        return keep(kept().pixels, key, (page.offset, index), make)


def read_rows(page: Any, file: BinaryIO, box: Window) -> NDArray[Any]:
    """Read a box of a page whose values are stored one after another, as `Pieces.read` does.

    Raises:
        EOFError: the file ends early.
    """
    planes, _, height, width, samples = page.shaped
    dtype = np.dtype(page.dtype).newbyteorder(page.parent.byteorder)
    (top, left), (bottom, right) = box.start, box.stop
    image = np.empty((planes, *box.shape, samples), dtype)
    rows = [(plane, slice(top, bottom)) for plane in range(planes)]
    if right - left < width:
        rows = [(plane, slice(row, row + 1)) for plane in range(planes) for row in range(top, bottom)]
    for plane, part in rows:
        target = image[plane, part.start - top : part.stop - top]
        file.seek(page.dataoffsets[0] + ((plane * height + part.start) * width + left) * samples * dtype.itemsize)
        data = file.read(target.nbytes)
        if len(data) < target.nbytes:
            raise EOFError("truncated")
        target[:] = np.frombuffer(data, dtype).reshape(target.shape)
    return image
