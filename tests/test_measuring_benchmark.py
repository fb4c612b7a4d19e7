"""The benchmark of connected components: all methods on a small mask, memory, and the table."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from benchmarks import measuring
from scipy import ndimage

from pixelwise.measuring.components import find_components
from pixelwise.measuring.scale import pixels
from pixelwise.tiles import Window


@pytest.mark.parametrize("kind", measuring.KINDS)
def test_the_methods_find_the_same_regions(kind: str) -> None:
    pytest.importorskip("skimage")
    work = measuring.methods(measuring.draw(kind, 128))
    counts = {name: method() for name, method in work.items()}
    assert len(set(counts.values())) == 1
    assert counts[measuring.OURS] > measuring.CLASSES


def test_a_mask_of_any_size_takes_less_memory_than_its_pixels() -> None:
    side = 12_000
    assert measuring.peak(measuring.OURS, "streamed", side) < side**2 / 2**20


def test_the_streamed_mask_is_the_same_by_windows() -> None:
    source = measuring.Stripes(400)
    whole = source.read(Window((0, 0), (400, 400)))
    window = Window((37, 110), (260, 399))
    np.testing.assert_array_equal(source.read(window), whole[window.slices])
    expected = sum(ndimage.label(whole == k, np.ones((3, 3)))[1] for k in range(2))
    assert len(find_components(source, pixels(2, ""), band_pixels=400 * 7).pixels) == expected > 2


def test_the_table(tmp_path: Path) -> None:
    assert measuring.table(tmp_path / "none.json") == measuring.NOT_MEASURED
    times = {measuring.OURS: 100.0, measuring.SKIMAGE: 250.0, measuring.SCIPY: 900.0}
    rows = [
        {"method": name, "kind": kind, "regions": 1234, "ms": ms, "mib": 50.0}
        for name, ms in times.items()
        for kind in measuring.KINDS
    ]
    facts = {"processor": "X", "commit": "a1", "rounds": 7, "side": 4096, "streamed_side": 12_000, "streamed_mib": 80.2}
    measuring.write_json(tmp_path / "a.json", facts | {"versions": dict.fromkeys(times, "1"), "rows": rows})
    lines = measuring.table(tmp_path / "a.json").splitlines()
    assert lines[0].startswith("| method | 1,234 smooth regions, ms | ratio |")
    assert lines[3] == "| scikit-image 1 | 250 | 2.5 | 50 | 250 | 2.5 | 50 |"
    assert lines[-1].endswith("pixelwise at a1. 12,000 × 12,000 pixels band by band: 80 MiB.")
