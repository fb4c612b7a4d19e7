"""Cores and free memory within the limits of control groups."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from pixelwise import machine
from pixelwise.inference.torch_backend import limit_threads

MANY = 64


@pytest.fixture
def system(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A system of 64 cores and 1000 kB of available memory, without control groups; the folder holds proc and cgroup."""
    monkeypatch.setattr(machine, "_PROC", tmp_path / "proc")
    monkeypatch.setattr(machine, "_GROUPS", tmp_path / "cgroup")
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(MANY)), raising=False)
    write(tmp_path, {"proc/meminfo": "MemTotal: 2000 kB\nMemAvailable: 1000 kB\n"})
    return tmp_path


def write(root: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)


CONTAINER_V2 = "0::/\n"
PROCESS_V2 = "0::/user.slice/job.scope\n"
PROCESS_V1 = "9:memory:/docker/one\n4:cpu,cpuacct:/docker/one\n1:name=systemd:/\n0::/\n"


@pytest.mark.parametrize(
    ("group", "files", "cores"),
    [
        pytest.param("", {}, MANY, id="no control groups"),
        pytest.param(CONTAINER_V2, {"cpu.max": "max 100000\n"}, MANY, id="no quota"),
        pytest.param(CONTAINER_V2, {"cpu.max": "200000 100000\n"}, 2, id="container"),
        pytest.param(CONTAINER_V2, {"cpu.max": "150000 100000\n"}, 2, id="one and a half cores are two"),
        pytest.param(CONTAINER_V2, {"cpu.max": "10000 100000\n"}, 1, id="a tenth of a core is one"),
        pytest.param(PROCESS_V2, {"user.slice/job.scope/cpu.max": "300000 100000"}, 3, id="own group"),
        pytest.param(PROCESS_V2, {"user.slice/cpu.max": "400000 100000"}, 4, id="group above"),
        pytest.param(
            PROCESS_V2,
            {"user.slice/cpu.max": "400000 100000", "user.slice/job.scope/cpu.max": "max 100000"},
            4,
            id="group above a group without a quota",
        ),
        pytest.param(PROCESS_V2, {"other.slice/cpu.max": "100000 100000"}, MANY, id="another group"),
        pytest.param(
            PROCESS_V1,
            {"cpu/cpu.cfs_quota_us": "500000", "cpu/cpu.cfs_period_us": "100000"},
            5,
            id="container, version 1",
        ),
        pytest.param(
            PROCESS_V1,
            {"cpu/docker/one/cpu.cfs_quota_us": "250000", "cpu/docker/one/cpu.cfs_period_us": "50000"},
            5,
            id="own group, version 1",
        ),
        pytest.param(
            PROCESS_V1,
            {"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"},
            MANY,
            id="no quota, version 1",
        ),
        pytest.param(CONTAINER_V2, {"cpu.max": "garbage"}, MANY, id="unreadable"),
    ],
)
def test_cores_are_limited_by_the_quota(system: Path, group: str, files: dict[str, str], cores: int) -> None:
    write(system, {"proc/self/cgroup": group, **{f"cgroup/{name}": text for name, text in files.items()}})
    assert machine.cores() == cores


def test_cores_are_limited_by_the_affinity(system: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(system, {"proc/self/cgroup": CONTAINER_V2, "cgroup/cpu.max": "800000 100000"})
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 5, 7})
    assert machine.cores() == 3
    monkeypatch.delattr(os, "sched_getaffinity")
    assert machine.cores() == min(8, os.cpu_count() or 1)


@pytest.mark.parametrize(
    ("group", "files", "free"),
    [
        pytest.param("", {}, 1_024_000, id="no control groups"),
        pytest.param(CONTAINER_V2, {"memory.max": "max", "memory.current": "700"}, 1_024_000, id="no limit"),
        pytest.param(CONTAINER_V2, {"memory.max": "1000\n", "memory.current": "700\n"}, 300, id="container"),
        pytest.param(
            CONTAINER_V2,
            {"memory.max": "1000", "memory.current": "700", "memory.stat": "anon 100\ninactive_file 250\n"},
            550,
            id="file cache is free",
        ),
        pytest.param(CONTAINER_V2, {"memory.max": "500", "memory.current": "700"}, 0, id="more than the limit in use"),
        pytest.param(
            CONTAINER_V2, {"memory.max": "900000000", "memory.current": "0"}, 1_024_000, id="less in the system"
        ),
        pytest.param(
            PROCESS_V2, {"user.slice/memory.max": "1000", "user.slice/memory.current": "1"}, 999, id="group above"
        ),
        pytest.param(
            PROCESS_V1,
            {
                "memory/docker/one/memory.limit_in_bytes": "1000",
                "memory/docker/one/memory.usage_in_bytes": "400",
                "memory/docker/one/memory.stat": "cache 300\ntotal_inactive_file 100\n",
            },
            700,
            id="own group, version 1",
        ),
    ],
)
def test_free_memory_is_limited_by_the_control_group(
    system: Path, group: str, files: dict[str, str], free: int
) -> None:
    write(system, {"proc/self/cgroup": group, **{f"cgroup/{name}": text for name, text in files.items()}})
    assert machine.free_memory() == free


def test_free_memory_without_proc_is_that_of_sysconf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "_PROC", tmp_path)
    monkeypatch.setattr(machine, "_GROUPS", tmp_path)
    monkeypatch.setattr(os, "sysconf", {"SC_AVPHYS_PAGES": 25, "SC_PAGE_SIZE": 4096}.__getitem__)
    assert machine.free_memory() == 25 * 4096

    def unknown(_: str) -> int:
        raise ValueError("unrecognized configuration name")

    monkeypatch.setattr(os, "sysconf", unknown)
    assert machine.free_memory() is None


def test_torch_uses_no_more_threads_than_the_quota(system: Path) -> None:
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(3)
        write(system, {"proc/self/cgroup": CONTAINER_V2, "cgroup/cpu.max": "200000 100000"})
        limit_threads()
        assert torch.get_num_threads() == 2
        torch.set_num_threads(1)
        limit_threads()
        assert torch.get_num_threads() == 1
    finally:
        torch.set_num_threads(threads)


def test_the_module_reads_this_machine() -> None:
    printed = subprocess.run(
        [sys.executable, "-c", "from pixelwise import machine; print(machine.cores(), machine.free_memory())"],
        capture_output=True, text=True, check=True,
    ).stdout.split()  # fmt: skip
    assert 1 <= int(printed[0]) <= (os.cpu_count() or 1)
    if Path("/proc/meminfo").exists():
        assert 0 < int(printed[1]) < os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "processor: 0\nmodel name\t: Fast 9\nflags\t\t: fpu amx_bf16 avx2\n\nprocessor: 1\n",
            ("Fast 9", ("amx_bf16", "avx2")),
        ),
        ("processor: 0\nFeatures: fp asimddp i8mm\n", ("aarch64", ("asimddp", "i8mm"))),
        ("", ("aarch64", ())),
    ],
)
def test_the_processor_has_a_name_and_instruction_sets(
    system: Path, monkeypatch: pytest.MonkeyPatch, text: str, expected: tuple[str, tuple[str, ...]]
) -> None:
    monkeypatch.setattr(machine.platform, "processor", lambda: "")
    monkeypatch.setattr(machine.platform, "machine", lambda: "aarch64")
    write(system, {"proc/cpuinfo": text})
    assert machine.processor() == expected
