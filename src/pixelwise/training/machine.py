"""What the machine gives a run: how many cores, and memory that is not handed back and forth.

Comes in: nothing. Goes out: a count, and a setting for the time of a run. Knows nothing of models or data.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import sys
from collections.abc import Iterator

# glibc's mallopt(3): number of the parameter and its value.
_TRIM_THRESHOLD, _TOP_PAD, _MMAP_THRESHOLD, _MMAP_MAX = -1, -2, -3, -4
_KEEP = {_MMAP_MAX: 0, _TRIM_THRESHOLD: 2**31 - 1, _TOP_PAD: 64 * 2**20}
# Where a process that handles large blocks arrives by itself: glibc lets both thresholds grow until they are set.
_USUAL = {_MMAP_MAX: 65536, _MMAP_THRESHOLD: 32 * 2**20, _TRIM_THRESHOLD: 64 * 2**20, _TOP_PAD: 128 * 1024}


def cores() -> int:
    """Count the processor cores that this process may use; not every system tells, then all there are."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@contextlib.contextmanager
def freed_memory_kept() -> Iterator[bool]:
    """Keep what tensors give back for the next ones, and hand it to the system at the end only.

    By itself glibc returns large blocks at once, so that every training step gets its memory anew, page by page, each
    cleared by the system: some 30,000 page faults a step. Gives whether there is such a setting (Linux with glibc).
    """
    libc = _glibc()
    if libc is None:
        yield False
        return
    for parameter, value in _KEEP.items():
        libc.mallopt(parameter, value)
    try:
        yield True
    finally:
        for parameter, value in _USUAL.items():
            libc.mallopt(parameter, value)
        libc.malloc_trim(0)


def _glibc() -> ctypes.CDLL | None:
    if not sys.platform.startswith("linux"):
        return None
    try:
        libc = ctypes.CDLL("libc.so.6")
        return libc if hasattr(libc, "mallopt") and hasattr(libc, "malloc_trim") else None
    except OSError:
        return None
