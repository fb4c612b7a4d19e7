"""Inspect all images of a data set in parallel; checks are made from the resulting `Survey`.

The first images are inspected in this process. If that takes longer than starting processes would, the rest is inspected
by one process per core, a few images at a time. The order of the results does not depend on the number of processes. When the work is
stopped, every process ends after its current image; when this process dies, at once.
"""

from __future__ import annotations

import multiprocessing
import multiprocessing.connection
import os
import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
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

from pixelwise.checking.inspection import Inspection, inspect_image
from pixelwise.checking.regions import COLUMNS, Column
from pixelwise.datasets.dataset import Dataset, DataSplits
from pixelwise.formats.records import Record
from pixelwise.labels import Labels
from pixelwise.machine import cores
from pixelwise.types import Sample

Progress = Callable[[int, int], None]
_SERIAL_SECONDS = 0.5
_CHUNK_SIZE = 16
_CHUNKS_AHEAD = 3
_ALIGNED = 256  # number of masks, evenly drawn, whose alignment is examined


@dataclass(frozen=True)
class Survey:
    """Everything that checks are made from.

    Args:
        splits: the opened data set; `Inspection.split` and `Inspection.index` refer to it.
        inspections: one per image: train, val, test, each in the order of its records.
        skip_bad: whether training will leave out unusable files.
    """

    splits: DataSplits
    inspections: tuple[Inspection, ...]
    skip_bad: bool = True

    @property
    def labels(self) -> Labels:
        """The classes."""
        return self.splits.labels

    @cached_property
    def usable(self) -> tuple[Inspection, ...]:
        """The images that could be read, with their masks."""
        return tuple(image for image in self.inspections if image.error is None)

    @property
    def skips_unusable(self) -> bool:
        """Whether training leaves out unusable files and still has images in train and val."""
        return self.skip_bad and bool(self.in_split("train")) and bool(self.in_split("val"))

    @property
    def root(self) -> Path:
        """The folder of the data set."""
        return Path(str(self.splits.description.get("root", ".")))

    @cached_property
    def datasets(self) -> dict[str, Dataset]:
        """The splits by name, in the order train, val, test."""
        return {dataset.name: dataset for dataset in self.splits}

    def in_split(self, split: str | None) -> list[Inspection]:
        """Return the usable images of one split, or of all."""
        return [image for image in self.usable if split in (None, image.split)]

    def record(self, image: Inspection) -> Record:
        """Return the files of an image."""
        return self.datasets[image.split].records[image.index]

    def image_name(self, image: Inspection) -> str:
        """Return the file of an image; with the image's id if it is a slice or a window of the file."""
        record = self.record(image)
        is_file = record.plane is None and record.window is None
        return str(record.image) if is_file else f"{record.image} ({record.id})"

    def mask_name(self, image: Inspection) -> str:
        """Return the file of a mask; with the image's id if the file holds several masks."""
        record = self.record(image)
        is_file = record.source is None and record.plane is None and record.window is None
        return str(record.mask) if is_file else f"{record.mask} ({record.id})"

    def redivide_options(self, splits: Iterable[str]) -> str:
        """Return the options that divide all images again; "" if none of `splits` is given by folders or lists."""
        given = self.splits.description.get("split", {}).get("given") or ()
        if set(given).isdisjoint(splits):
            return ""
        # Without split.test there would no longer be a test split.
        return "--set data.split.anew=true" + (" --set data.split.test=0.2" if self.splits.test is not None else "")

    def table(self, split: str | None = None) -> NDArray[np.int64]:
        """Sum the tables of one split, or of all: (K + 1, COLUMNS) int64, ignored pixels last (see `Column`)."""
        return self._sums[split or ""][0]

    def image_counts(self, split: str | None = None) -> NDArray[np.int64]:
        """Count the images that show each class: (K + 1,) int64, ignored pixels last."""
        return self._sums[split or ""][1]

    def pixel_counts(self, split: str | None = None) -> NDArray[np.int64]:
        """Count the pixels per class: (K + 1,) int64, ignored pixels last."""
        return self.table(split)[:, Column.PIXELS]

    @cached_property
    def _sums(self) -> dict[str, tuple[NDArray[np.int64], NDArray[np.int64]]]:
        """Tables and image counts per split, and over all ("")."""
        size = self.labels.num_classes + 1
        sums = {name: (np.zeros((size, COLUMNS), np.int64), np.zeros(size, np.int64)) for name in ("", *self.datasets)}
        for image in self.usable:
            rows = image.table[:, Column.CLASS]
            for table, images in (sums[image.split], sums[""]):
                table[rows] += image.table
                images[rows] += 1
        for table, _ in sums.values():
            table[:, Column.CLASS] = np.arange(size)
        return sums


def take_survey(
    splits: DataSplits, progress: Progress | None = None, *, skip_bad: bool = True, workers: int | None = None
) -> Survey:
    """Inspect every image of an opened data set.

    Args:
        splits: an opened data set; open it with `skip_bad`, so that one bad file does not hide the others.
        progress: called with (done, total).
        skip_bad: whether training will leave out what opening left out.
        workers: number of processes; 0 for none; None for one per core, or none if that is fast enough.
    """
    total = sum(len(split) for split in splits)
    stride = -(-total // _ALIGNED) or 1
    chunks = [_Chunk(split, start, stride) for split in splits for start in range(0, len(split), _CHUNK_SIZE)]
    inspections: list[Inspection] = []
    with closing(_inspect_all(chunks, workers)) as results:  # stops the processes on any exception
        for result in results:
            inspections += result
            if progress is not None:
                progress(len(inspections), total)
    return Survey(splits, tuple(inspections), skip_bad)


class _Chunk(NamedTuple):
    """Adjacent images of a split."""

    split: Dataset
    start: int
    stride: int  # alignment is examined for one image in so many

    def extract(self) -> _Chunk:
        """Return the chunk with a data set of its images only, to be sent to a process."""
        return self._replace(split=self.split.subset(range(self.start, min(self.start + _CHUNK_SIZE, len(self.split)))))


def _inspect_all(chunks: list[_Chunk], workers: int | None) -> Generator[list[Inspection], None, None]:
    """Inspect the chunks in order, here or in processes."""
    left = deque(chunks)
    deadline = time.monotonic() + (_SERIAL_SECONDS if workers is None else 0)
    workers = cores() if workers is None else workers
    while left and (workers < 2 or time.monotonic() < deadline):
        yield _inspect_chunk(left.popleft().extract())
    if left:
        yield from _inspect_in_processes(left, min(workers, len(left)))


def _inspect_in_processes(left: deque[_Chunk], workers: int) -> Iterator[list[Inspection]]:
    running: deque[tuple[_Chunk, Future[list[Inspection]]]] = deque()
    try:
        stop = multiprocessing.Event()
        pool = ProcessPoolExecutor(workers, initializer=_start_worker, initargs=(stop,))
    except (OSError, ImportError, NotImplementedError):  # the system has no shared semaphores
        yield from (_inspect_chunk(chunk.extract()) for chunk in left)
        return
    try:
        while left or running:
            while left and len(running) < _CHUNKS_AHEAD * workers:
                running.append((left[0], pool.submit(_inspect_chunk, left[0].extract())))
                left.popleft()  # only now, since submit raises if the pool is broken
            yield running[0][1].result()
            running.popleft()
    except (BrokenProcessPool, OSError):
        # A process was killed, most likely for its memory, or could not be started: continue in this process.
        for chunk in (*(chunk for chunk, _ in running), *left):
            yield _inspect_chunk(chunk.extract())
    finally:
        stop.set()
        pool.shutdown(wait=False, cancel_futures=True)


_stop: Event | None = None


def _start_worker(stop: Event) -> None:
    """Set up a process: interrupts are handled by the parent, and the process ends with it."""
    global _stop
    _stop = stop
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_exit_with, args=(parent.sentinel,), daemon=True).start()


def _exit_with(sentinel: int) -> None:
    multiprocessing.connection.wait([sentinel])
    os._exit(1)


def _inspect_chunk(chunk: _Chunk) -> list[Inspection]:
    """Inspect the images of an extracted chunk, until the work is stopped."""
    inspections: list[Inspection] = []
    recent: deque[Sample] = deque(maxlen=2)
    for index in range(len(chunk.split)):
        if _stop is not None and _stop.is_set():
            break
        place = chunk.start + index
        align = place % chunk.stride == 0
        inspections.append(inspect_image(chunk.split, index, place, align=align, recent=recent))
    return inspections
