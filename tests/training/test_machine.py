"""Free memory and the allocator."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from pixelwise.training import machine

# Allocate and free 100 arrays of 40 MB, and count the page faults of the last ten.
_COUNT = """
import resource, numpy
from pixelwise.training.machine import keep_freed_memory

def faults():
    for i in range(100):
        if i == 90:
            before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        numpy.ones(5_000_000)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

by_itself = faults()
with keep_freed_memory() as kept:
    print(kept, by_itself, faults())
"""


def test_freed_memory_is_reused_without_page_faults() -> None:
    printed = subprocess.run([sys.executable, "-c", _COUNT], capture_output=True, text=True, check=True).stdout.split()
    kept, by_itself, inside = printed[0], int(printed[1]), int(printed[2])
    if kept == "False":
        pytest.skip("this C library has no mallopt")
    # 10 × 40 MB in pages of 2 MiB, or many more of 4 KiB.
    assert by_itself >= 190
    assert inside < 50


def test_the_setting_is_reset_after_an_error() -> None:
    def fail() -> None:
        with machine.keep_freed_memory():
            raise KeyError("inside")

    with pytest.raises(KeyError, match="inside"):
        fail()


def test_systems_without_glibc_are_supported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    with machine.keep_freed_memory() as kept:
        assert not kept


@pytest.mark.skipif(not Path("/proc/meminfo").exists(), reason="the free memory of this system is unknown")
def test_free_memory_depends_on_the_device() -> None:
    free = machine.free_memory(torch.device("cpu"))
    assert free is not None
    assert 0 < free < os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    assert machine.free_memory(torch.device("meta")) is None
