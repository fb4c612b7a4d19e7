"""All looks at a data set: a `Seen` for every image, taken in parallel, in the order of the parts.

Comes in: `DataSplits`. Goes out: a `Survey`, from which all checks are made. Knows nothing of the checks.

The first images are looked at here; where that takes longer than starting processes would, the rest goes to one process per
core, a few images at a time, each with the records of these alone. What comes back is in order, whatever the number of
processes. When the work is stopped, every process ends after the image it is at; when this process is gone, at once.
"""

from __future__ import annotations

import multiprocessing
import multiprocessing.connection
import os
import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import closing
from dataclasses import dataclass
from functools import cached_property
from multiprocessing.synchronize import Event
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pixelwise.checking.inspection import Seen, look
from pixelwise.checking.regions import COLUMNS, Column
from pixelwise.datasets.dataset import Dataset, DataSplits
from pixelwise.formats.records import Record
from pixelwise.labels import Labels
from pixelwise.types import Sample

Progress = Callable[[int, int], None]
_ALONE = 0.5  # seconds
_PIECE = 16
_AHEAD = 3
_DRIFTS = 256  # so many masks tell whether they are shifted


@dataclass(frozen=True)
class Survey:
    """Hold everything that checks are made from.

    Args:
        splits: the data set as it was opened; `Seen.part` and `Seen.index` point into it.
        seen: one per image: train, val, test, each in the order of its records.
        skip_bad: whether training will leave unusable files out.
    """

    splits: DataSplits
    seen: tuple[Seen, ...]
    skip_bad: bool = True

    @property
    def labels(self) -> Labels:
        """Give the classes."""
        return self.splits.labels

    @cached_property
    def good(self) -> tuple[Seen, ...]:
        """Give what could be read."""
        return tuple(one for one in self.seen if one.error is None)

    @property
    def leaves_out(self) -> bool:
        """Tell whether training leaves out what cannot be read, and has something left to learn and to choose by."""
        return self.skip_bad and bool(self.of("train")) and bool(self.of("val"))

    @property
    def root(self) -> Path:
        """Give the folder that the data set lies in."""
        return Path(str(self.splits.description.get("root", ".")))

    @cached_property
    def datasets(self) -> dict[str, Dataset]:
        """Give the parts by name, in the order train, val, test."""
        return {dataset.name: dataset for dataset in self.splits}

    def of(self, split: str) -> list[Seen]:
        """Give what could be read of one part."""
        return [one for one in self.good if one.split == split]

    def record(self, one: Seen) -> Record:
        """Give the files of an image."""
        return self.datasets[one.split].records[one.index]

    def table(self, split: str | None = None) -> NDArray[np.int64]:
        """Sum up the tables of one part, or of all: (K + 1, COLUMNS) int64, the ignored pixels last (see `Column`)."""
        return self._sums[split or ""][0]

    def images(self, split: str | None = None) -> NDArray[np.int64]:
        """Count the images that show each class: (K + 1,) int64, the ignored pixels last."""
        return self._sums[split or ""][1]

    def counts(self, split: str | None = None) -> NDArray[np.int64]:
        """Sum up the pixels per class: (K + 1,) int64, the ignored ones last."""
        return self.table(split)[:, Column.PIXELS]

    @cached_property
    def _sums(self) -> dict[str, tuple[NDArray[np.int64], NDArray[np.int64]]]:
        """Sum up tables and count images, per part and ("") over all."""
        size = self.labels.num_classes + 1
        sums = {name: (np.zeros((size, COLUMNS), np.int64), np.zeros(size, np.int64)) for name in ("", *self.datasets)}
        for one in self.good:
            rows = one.table[:, Column.CLASS]
            for table, images in (sums[one.split], sums[""]):
                table[rows] += one.table
                images[rows] += 1
        for table, _ in sums.values():
            table[:, Column.CLASS] = np.arange(size)
        return sums


def take_survey(
    splits: DataSplits, progress: Progress | None = None, *, skip_bad: bool = True, workers: int | None = None
) -> Survey:
    """Look at every image of an opened data set.

    Args:
        splits: an opened data set; with `skip_bad`, so that one bad file hides no other.
        progress: is called with (done, total), now and then and at the end.
        skip_bad: whether training will leave out what opening left out.
        workers: processes; 0 looks in this one; None: as many as there are cores, or none where that is quick.
    """
    total = sum(len(split) for split in splits)
    every = -(-total // _DRIFTS) or 1
    pieces = [_Piece(split, start, every) for split in splits for start in range(0, len(split), _PIECE)]
    seen: list[Seen] = []
    with closing(_looks(pieces, workers)) as looks:  # whatever stops this stops the processes, too
        for piece in looks:
            seen += piece
            if progress is not None:
                progress(len(seen), total)
    return Survey(splits, tuple(seen), skip_bad)


class _Piece(NamedTuple):
    """Name some neighbouring images of a part."""

    split: Dataset
    start: int
    every: int  # one in so many images is looked at closer

    def cut(self) -> _Piece:
        """Give a piece whose data set is them alone: it is sent to a process."""
        return self._replace(split=self.split.subset(range(self.start, min(self.start + _PIECE, len(self.split)))))


def _looks(pieces: list[_Piece], workers: int | None) -> Generator[list[Seen], None, None]:
    """Look at the pieces, in order, here or in processes."""
    left = deque(pieces)
    deadline = time.monotonic() + (_ALONE if workers is None else 0)
    workers = count_cores() if workers is None else workers
    while left and (workers < 2 or time.monotonic() < deadline):
        piece = left.popleft()
        yield _look_at(piece.cut())
    if left:
        yield from _looks_in_processes(left, min(workers, len(left)))


def count_cores() -> int:
    """Count the cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _looks_in_processes(left: deque[_Piece], workers: int) -> Iterator[list[Seen]]:
    running: deque[tuple[_Piece, Future[list[Seen]]]] = deque()
    try:
        stop = multiprocessing.Event()
        pool = ProcessPoolExecutor(workers, initializer=_begin, initargs=(stop,))
    except (OSError, ImportError, NotImplementedError):  # a system without what processes share
        yield from (_look_at(piece.cut()) for piece in left)
        return
    try:
        while left or running:
            while left and len(running) < _AHEAD * workers:
                running.append((left[0], pool.submit(_look_at, left[0].cut())))
                left.popleft()  # only now: a pool that has broken takes nothing more
            yield running[0][1].result()
            running.popleft()
    except (BrokenProcessPool, OSError):
        # A process was killed, most likely for its memory, or could not be started: one after the other, it may fit.
        for piece in (*(piece for piece, _ in running), *left):
            yield _look_at(piece.cut())
    finally:
        stop.set()
        pool.shutdown(wait=False, cancel_futures=True)


_stop: Event | None = None


def _begin(stop: Event) -> None:
    """Set a process up: stopping is the parent's affair, and without a parent there is nothing to do."""
    global _stop
    _stop = stop
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_leave_with, args=(parent.sentinel,), daemon=True).start()


def _leave_with(sentinel: int) -> None:
    multiprocessing.connection.wait([sentinel])
    os._exit(1)


def _look_at(piece: _Piece) -> list[Seen]:
    """Look at the images of a piece that was cut out, until the work is stopped."""
    seen: list[Seen] = []
    kept: deque[Sample] = deque(maxlen=2)
    for index in range(len(piece.split)):
        if _stop is not None and _stop.is_set():
            break
        place = piece.start + index
        seen.append(look(piece.split, index, place, drift=place % piece.every == 0, kept=kept))
    return seen
