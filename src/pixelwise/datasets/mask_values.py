"""Read all masks of a data set to decide what their values mean.

One mask among thousands may hold the value that decides, so none is left out. Files are decoded in threads, which run in
parallel because decoders release Python's lock, and their values are kept in case the data set is opened again.
"""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import TypeVar

import numpy as np

from pixelwise.errors import DataError
from pixelwise.formats.reading import read_truth_ids
from pixelwise.formats.records import Record
from pixelwise.imageio.images import RawMask, read_mask_values, read_whole_mask
from pixelwise.imageio.mask_heuristics import MIDDLE, MaskValues
from pixelwise.imageio.masks import MaskRule, require_lossless, values_as_ids
from pixelwise.tiles import Window

_THREADS, _AHEAD = 4, 16
_KEPT = 1 << 14  # masks
_ROWS = 1024  # of a scene that are read at once
_AS_STORED = MaskRule(binary=False)
_T = TypeVar("_T")


def mask_files(records: Sequence[Record]) -> list[Path]:
    """Return the mask files, each once; without annotations and volumes."""
    return sorted({r.mask for r in records if r.mask is not None and r.source is None and r.plane is None})


def in_threads(work: Callable[[Path], _T], paths: Sequence[Path]) -> Iterator[tuple[Path, _T | DataError]]:
    """Yield each path with the result of `work`, or with the error that it raised, in order; a few are computed ahead."""

    def attempt(path: Path) -> _T | DataError:
        try:
            return work(path)
        except DataError as error:
            return error

    running: deque[tuple[Path, Future[_T | DataError]]] = deque()
    with ThreadPoolExecutor(_THREADS) as pool:
        try:
            for path in paths:
                running.append((path, pool.submit(attempt, path)))
                if len(running) > _AHEAD:
                    first, result = running.popleft()
                    yield first, result.result()
            while running:
                first, result = running.popleft()
                yield first, result.result()
        finally:
            for _, result in running:
                result.cancel()


def without_errors(work: Callable[[Path], _T], paths: Sequence[Path]) -> Iterator[_T]:
    """Yield the results of `work` for the masks that can be read; the others raise again when they are used."""
    for _, result in in_threads(work, paths):
        if not isinstance(result, DataError):
            yield result


def read_values(path: Path) -> MaskValues:
    """Read which values a mask file holds.

    Raises:
        DataError: it cannot be read.
    """
    with suppress(OSError):  # explained by the reader
        status = path.stat()
        return _read_values(path, status.st_mtime_ns, status.st_size)
    return _values_of(path)


@lru_cache(maxsize=_KEPT)
def _read_values(path: Path, changed: int, size: int) -> MaskValues:
    return _values_of(path)


def _values_of(path: Path) -> MaskValues:
    whole = read_whole_mask(path)
    return MaskValues.of(whole) if isinstance(whole, RawMask) else MaskValues.of_windows(_strips(path, whole))


def _strips(path: Path, size: tuple[int, int]) -> Iterator[RawMask]:
    """Read a mask of (H, W) some rows at a time."""
    height, width = size
    for top in range(0, height, _ROWS):
        yield read_mask_values(path, window=Window((top, 0), (min(top + _ROWS, height), width)))


def read_middle(path: Path) -> RawMask:
    """Read a mask; of a scene only the middle, which is what `mask_heuristics` looks at.

    Raises:
        DataError: it cannot be read.
    """
    whole = read_whole_mask(path)
    if isinstance(whole, RawMask):
        return whole
    start = tuple(max(side - MIDDLE, 0) // 2 for side in whole)
    stop = tuple(min(first + MIDDLE, side) for first, side in zip(start, whole, strict=True))
    return read_mask_values(path, window=Window(start, stop))


@dataclass
class MaskIds:
    """The ids in all masks, and what they say about 255: it is a class in masks of 0 and 255, unless it is ignored.

    Args:
        ids: in any mask; without those of 1-bit masks, whose white may be either 1 or 255.
        bits: in 1-bit masks.
        pairs: masks of 0 and 255 only, in which 255 looks like the second class.
        others: masks with other ids.
        ignoring: those of them that also hold 255, which can only be ignored there.
        last: the mask added last.
        error: the first one; masks that cannot be read are left out here, and raise again when they are used.
    """

    ids: set[int] = field(default_factory=set)
    bits: set[int] = field(default_factory=set)
    pairs: list[Path] = field(default_factory=list)
    others: list[Path] = field(default_factory=list)
    ignoring: list[Path] = field(default_factory=list)
    last: Path | None = None
    error: DataError | None = None

    def add(self, path: Path, ids: set[int]) -> None:
        """Add the ids of a mask other than a 1-bit mask."""
        self.ids |= ids
        if ids == {0, 255}:
            self.pairs.append(path)
        elif not ids <= {0, 255}:
            self.others.append(path)
            if 255 in ids:
                self.ignoring.append(path)


def list_ids(records: Sequence[Record], until: Callable[[MaskIds], bool]) -> MaskIds:
    """List the ids in all masks, until the condition holds."""
    found = MaskIds()
    for path, values in in_threads(read_values, mask_files(records)):
        found.last = path
        try:
            if isinstance(values, DataError):
                raise values
            if values.kind == "binary":
                found.bits.update(values.values.tolist())
            elif values.kind in ("index", "palette"):
                found.add(path, set(values.values.tolist()))
            else:
                raw = read_middle(path)
                require_lossless(path, raw, _AS_STORED)
                found.add(path, set(np.unique(values_as_ids(path, raw, _AS_STORED)[0]).tolist()))
        except DataError as error:
            found.error = found.error or error
        if until(found):
            return found
    for path, ids in _volume_ids(records, found):
        found.last = path
        found.add(path, ids)
        if until(found):
            break
    return found


def _volume_ids(records: Sequence[Record], found: MaskIds) -> Iterator[tuple[Path, set[int]]]:
    """Yield the ids of each volume of labels; errors are added to `found`."""
    volumes = (record for record in records if record.plane is not None and record.source is None)
    slices = (record for record in volumes if record.mask is not None)
    for path, of_volume in itertools.groupby(slices, key=lambda record: record.mask):
        assert path is not None
        ids: set[int] = set()
        for record in of_volume:
            try:
                ids.update(np.unique(read_truth_ids(record, _AS_STORED)).tolist())
            except DataError as error:
                found.error = found.error or error
        yield path, ids
