"""What the machine gives a run: how many cores, how much memory, and that it is not handed back and forth.

Comes in: nothing, or a device. Goes out: counts, and a setting for the time of a run. Knows nothing of models or data.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import torch

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


def hand_back() -> None:
    """Give the system what was freed and kept, where there is glibc."""
    libc = _glibc()
    if libc is not None:
        libc.malloc_trim(0)


def free_memory(device: torch.device) -> int | None:
    """Count the bytes that could be taken now; None where nobody says.

    On CUDA what the driver has left and the allocator holds unused; else what the system calls available, or what is left
    of the control group's limit (containers) where that is less.
    """
    if device.type == "cuda":
        unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return int(torch.cuda.mem_get_info(device)[0] + unused)
    if device.type != "cpu":
        return None
    groups = [_left(Path("/sys/fs/cgroup"), *_V2), _left(Path("/sys/fs/cgroup/memory"), *_V1)]
    known = [count for count in (_number(Path("/proc/meminfo"), "MemAvailable:", 1024), *groups) if count is not None]
    return min(known) if known else None


_V2 = ("memory.max", "memory.current", "inactive_file")
_V1 = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")


def _left(folder: Path, limit: str, used: str, cache: str) -> int | None:
    """Read what is left of a control group's limit, its files' cache counted as free; "max" stands for no limit."""
    try:
        most, taken = ((folder / name).read_text(encoding="ascii").strip() for name in (limit, used))
    except OSError:
        return None
    if not (most.isdigit() and taken.isdigit()):
        return None
    return max(int(most) - int(taken) + (_number(folder / "memory.stat", cache, 1) or 0), 0)


def _number(path: Path, key: str, unit: int) -> int | None:
    """Read the number that stands behind a word at the beginning of a line."""
    try:
        lines = [line.split() for line in path.read_text(encoding="ascii").splitlines()]
    except OSError:
        return None
    return next((unit * int(words[1]) for words in lines if len(words) > 1 and words[0] == key), None)
