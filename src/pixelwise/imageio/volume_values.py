"""Decompress the values of volumes, and keep those of the most recently used files.

Neighbouring slices of a compressed file are so not decompressed again. A process keeps the last two files, or more up to 256 MiB, and
at most 64 in all.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

_CHUNK = 1 << 24
_KEPT_BYTES = 1 << 28
_KEPT_FILES = 64  # a mapped file stays open, and the number of open files is limited

Key = tuple[Path, int, int]
_KEPT: OrderedDict[tuple[Key, ...], NDArray[Any]] = OrderedDict()


def key_of(path: Path) -> Key:
    """Return what identifies the content of a file: its path, time of change, and size."""
    status = path.stat()
    return path, status.st_mtime_ns, status.st_size


def keep(paths: Sequence[Path], load: Callable[[], NDArray[Any]]) -> NDArray[Any]:
    """Return the values of a volume, from memory or by `load`.

    Args:
        paths: its files.
        load: reads the values.
    """
    key = tuple(map(key_of, paths))
    if key in _KEPT:
        _KEPT.move_to_end(key)
        return _KEPT[key]
    values = load()
    _KEPT[key] = values
    while len(_KEPT) > 2 and (len(_KEPT) > _KEPT_FILES or _bytes_kept() > _KEPT_BYTES):
        _KEPT.popitem(last=False)
    return values


def _bytes_kept() -> int:
    return sum(values.nbytes for values in _KEPT.values() if not isinstance(values, np.memmap))


def decompress(stream: Any, offset: int, dtype: np.dtype[Any], count: int) -> NDArray[Any]:
    """Read `count` values behind `offset` bytes of a stream, which must hold them.

    They are read in chunks, so that a truncated file takes no more memory than it fills.

    Raises:
        EOFError: the stream ends early.
    """
    while offset > 0:
        skipped = len(stream.read(min(offset, _CHUNK)))
        if not skipped:
            raise EOFError("truncated")
        offset -= skipped
    values = np.empty(count, dtype)
    left = values.view(np.uint8).data
    while len(left):
        got = stream.readinto(left[:_CHUNK])
        if not got:
            raise EOFError("truncated")
        left = left[got:]
    stream.read(1)  # reading to the end verifies the checksum
    return values
