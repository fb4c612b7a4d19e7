"""Processor cores, free memory, and the memory allocator of this machine."""

from __future__ import annotations

import contextlib
import ctypes
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import torch

# Parameter numbers and values of glibc's mallopt(3).
_TRIM_THRESHOLD, _TOP_PAD, _MMAP_THRESHOLD, _MMAP_MAX = -1, -2, -3, -4
_KEEP = {_MMAP_MAX: 0, _TRIM_THRESHOLD: 2**31 - 1, _TOP_PAD: 64 * 2**20}
# The values that glibc's dynamic thresholds reach in a process with large blocks.
_DEFAULT = {_MMAP_MAX: 65536, _MMAP_THRESHOLD: 32 * 2**20, _TRIM_THRESHOLD: 64 * 2**20, _TOP_PAD: 128 * 1024}


def cores() -> int:
    """Return the number of processor cores that this process may use; if unknown, all cores of the machine."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@contextlib.contextmanager
def keep_freed_memory() -> Iterator[bool]:
    """Keep freed memory in the process for reuse inside the block; yield whether the system supports it (Linux, glibc).

    By default glibc returns large blocks to the system at once, so each training step allocates its memory again, with
    about 30,000 page faults.
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
        for parameter, value in _DEFAULT.items():
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


def release_freed_memory() -> None:
    """Return freed memory to the system (glibc only)."""
    libc = _glibc()
    if libc is not None:
        libc.malloc_trim(0)


def free_memory(device: torch.device) -> int | None:
    """Return the number of bytes that can be allocated now; None if it is unknown.

    On CUDA: free memory of the device plus unused memory of the allocator. On the CPU: available memory of the system, or
    what remains of the limit of the control group (containers) if that is less.
    """
    if device.type == "cuda":
        unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return int(torch.cuda.mem_get_info(device)[0] + unused)
    if device.type != "cpu":
        return None
    counts = [
        _read_number(Path("/proc/meminfo"), "MemAvailable:", 1024),
        _control_group_free(Path("/sys/fs/cgroup"), "memory.max", "memory.current", "inactive_file"),
        _control_group_free(
            Path("/sys/fs/cgroup/memory"), "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"
        ),
    ]
    return min((count for count in counts if count is not None), default=None)


def _control_group_free(folder: Path, limit: str, used: str, cache: str) -> int | None:
    """Read the remaining bytes of a control group, file cache counted as free; None if there is no limit ("max")."""
    try:
        most, taken = ((folder / name).read_text(encoding="ascii").strip() for name in (limit, used))
    except OSError:
        return None
    if not (most.isdigit() and taken.isdigit()):
        return None
    return max(int(most) - int(taken) + (_read_number(folder / "memory.stat", cache, 1) or 0), 0)


def _read_number(path: Path, key: str, unit: int) -> int | None:
    """Read the number that follows a key at the beginning of a line."""
    try:
        lines = [line.split() for line in path.read_text(encoding="ascii").splitlines()]
    except OSError:
        return None
    return next((unit * int(words[1]) for words in lines if len(words) > 1 and words[0] == key), None)
