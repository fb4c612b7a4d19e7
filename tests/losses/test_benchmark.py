"""The benchmark of the default loss: its table and its measurement of memory."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from benchmarks import losses


def test_the_table_follows_from_the_file(tmp_path):
    rows = [
        {"shape": [1, 2, 8, 8], "library": "pixelwise", "seconds": 0.002, "peak_bytes": 2**20},
        {"shape": [1, 2, 8, 8], "library": "monai", "seconds": 0.005, "peak_bytes": 3 * 2**20},
    ]
    facts = {"processor": "a chip", "threads": 2, "rounds": 15, "channels_last": False, "versions": {"torch": "2.9"}}
    (tmp_path / "losses.json").write_text(json.dumps(facts | {"rows": rows}))
    assert losses.table(tmp_path / "losses.json").splitlines()[2:] == [
        "| 1×2×8×8 | pixelwise | 2.0 ms | 1.00 | 1 MiB | 1.00 |",
        "| 1×2×8×8 | monai | 5.0 ms | 2.50 | 3 MiB | 3.00 |",
        "",
        "15 rounds on 2 threads of a chip; torch 2.9.",
    ]


GREEDY = """
import torch
from benchmarks import losses

torch.ones(64 * 2**20)  # freed at once
held = []

def greedy(logits, masks):
    if logits.shape[-1] > 8:
        held.append(torch.ones(16 * 2**20))
    return logits.sum() * 0

losses.LIBRARIES["greedy"] = lambda classes: greedy
print(losses.peak("greedy", (1, 2, 16, 16), False))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="memory is read from /proc")
def test_peak_memory_excludes_earlier_peaks():
    """The pass holds 64 MiB after an earlier peak of 256 MiB.

    In a separate process, like the benchmark: a process that already trained reuses its freed memory.
    """
    root = Path(__file__).parents[2]
    done = subprocess.run([sys.executable, "-c", GREEDY], cwd=root, check=True, capture_output=True, text=True)
    assert 60 * 2**20 < int(done.stdout) < 80 * 2**20
