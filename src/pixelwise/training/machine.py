"""Free memory of a device, threads, and the memory allocator."""

from __future__ import annotations

import contextlib
import ctypes
import sys
from collections.abc import Iterator

import torch

from pixelwise import machine

# Parameter numbers and values of glibc's mallopt(3).
_TRIM_THRESHOLD, _TOP_PAD, _MMAP_THRESHOLD, _MMAP_MAX = -1, -2, -3, -4
_KEEP = {_MMAP_MAX: 0, _TRIM_THRESHOLD: 2**31 - 1, _TOP_PAD: 64 * 2**20}
# The values that glibc's dynamic thresholds reach in a process with large blocks.
_DEFAULT = {_MMAP_MAX: 65536, _MMAP_THRESHOLD: 32 * 2**20, _TRIM_THRESHOLD: 64 * 2**20, _TOP_PAD: 128 * 1024}


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

    On CUDA: free memory of the device plus unused memory of the allocator. On the CPU: see `pixelwise.machine`.
    """
    if device.type == "cuda":
        unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return int(torch.cuda.mem_get_info(device)[0] + unused)
    return machine.free_memory() if device.type == "cpu" else None
