"""The processor, and the cores and memory that this process may use, within the limits of containers (control groups).

Source: Linux kernel documentation, admin-guide/cgroup-v2.rst (cpu.max, memory.max) and scheduler/sched-bwc.rst (version 1).
"""

from __future__ import annotations

import math
import os
import platform
from collections.abc import Iterator
from pathlib import Path

_PROC, _GROUPS = Path("/proc"), Path("/sys/fs/cgroup")
# Instruction sets that decide how fast networks are computed, as Linux names them.
_INSTRUCTIONS = frozenset(
    {"avx", "avx2", "fma", "avx_vnni", "avx512f", "avx512_vnni", "avx512_bf16", "avx512_fp16"}
    | {"amx_bf16", "amx_int8", "amx_fp16", "asimddp", "asimdhp", "bf16", "i8mm", "sve", "sve2", "svebf16"}
)


def cores() -> int:
    """Return the number of cores that this process may use: by affinity, and by the CPU quota of its control group."""
    count = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quotas = [quota for folder in _control_groups("cpu") if (quota := _cpu_quota(folder)) is not None]
    return min(count, max(math.ceil(min(quotas, default=count)), 1))


def processor() -> tuple[str, tuple[str, ...]]:
    """Return the name of the processor, and its instruction sets for vectors and matrices as far as they are known."""
    try:
        lines = (_PROC / "cpuinfo").read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError):
        lines = []
    facts = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in lines)}
    words = facts.get("flags", facts.get("Features", "")).split()
    name = facts.get("model name") or platform.processor() or platform.machine()
    return name, tuple(sorted(_INSTRUCTIONS.intersection(words)))


def free_memory() -> int | None:
    """Return the bytes of memory that this process can still allocate; None if it is unknown.

    That is the memory available in the system, or what remains of the limit of a control group if that is less.
    """
    counts = [_read_number(_PROC / "meminfo", "MemAvailable:", 1024)]
    for folder in _control_groups("memory"):
        counts.append(_memory_left(folder, "memory.max", "memory.current", "inactive_file"))
        counts.append(_memory_left(folder, "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"))
    known = [count for count in counts if count is not None]
    return min(known) if known else _physical_pages()


def _physical_pages() -> int | None:
    """Return the free physical memory by sysconf, for systems without /proc."""
    try:
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (ValueError, OSError, AttributeError):
        return None


def _control_groups(controller: str) -> Iterator[Path]:
    """Yield the folders of the control groups of this process, version 2 and 1; each group limits those below it.

    In most containers the own group is mounted as the root.
    """
    try:
        lines = (_PROC / "self" / "cgroup").read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError):
        lines = []
    names = [line.split(":", 2)[1:] for line in lines if line.count(":") >= 2]
    for root, wanted in ((_GROUPS, ""), (_GROUPS / controller, controller)):  # version 2 lists no controllers
        yield root
        for listed, path in names:
            if wanted in listed.split(","):
                folder = root / path.strip("/")
                yield from (each for each in (folder, *folder.parents) if root in each.parents)


def _cpu_quota(folder: Path) -> float | None:
    """Return the CPU quota of a control group in cores; None without one."""
    words = _words(folder / "cpu.max") or _words(folder / "cpu.cfs_quota_us") + _words(folder / "cpu.cfs_period_us")
    if len(words) != 2 or not all(word.isdigit() for word in words):  # "max", or -1 in version 1
        return None
    quota, period = map(int, words)
    return quota / period if quota and period else None


def _memory_left(folder: Path, limit: str, used: str, cache: str) -> int | None:
    """Return the remaining bytes of a control group, counting file cache as free; None if it has no limit."""
    most, taken = _words(folder / limit), _words(folder / used)
    if not (len(most) == len(taken) == 1 and most[0].isdigit() and taken[0].isdigit()):
        return None
    return max(int(most[0]) - int(taken[0]) + (_read_number(folder / "memory.stat", cache, 1) or 0), 0)


def _words(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="ascii").split()
    except (OSError, UnicodeDecodeError):
        return []


def _read_number(path: Path, key: str, unit: int) -> int | None:
    """Read the number that follows a key at the beginning of a line."""
    try:
        lines = [line.split() for line in path.read_text(encoding="ascii").splitlines()]
    except OSError:
        return None
    return next((unit * int(words[1]) for words in lines if len(words) > 1 and words[0] == key), None)
