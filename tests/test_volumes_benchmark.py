"""The benchmark of volumes: all methods on a small volume, and the table."""

from __future__ import annotations

from pathlib import Path

import nibabel
import numpy as np
import pytest
from benchmarks import volumes


def test_every_method_predicts_a_volume(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(volumes, "TILE", 16)
    volumes.write_model(tmp_path / "model", 3)
    volume = volumes.draw(tmp_path / "volume.nii", 20)
    for method in volumes.METHODS:
        facts = volumes.run(method, str(tmp_path / "model"), str(volume), str(tmp_path / method))
        assert facts["seconds"] > 0
        assert facts["bytes"] > 1e6
    masks = [np.asarray(nibabel.load(next((tmp_path / method).rglob("*.nii*"))).dataobj) for method in volumes.METHODS]
    assert all(mask.shape == (20, 20, 20) for mask in masks)
    assert (masks[0] == masks[1]).mean() > 0.7  # other weights of overlapping tiles


def test_the_table(tmp_path: Path) -> None:
    assert volumes.table(tmp_path / "none.json") == volumes.NOT_MEASURED
    rows = {"256": {"predict": [{"seconds": 100.0, "bytes": 2e9}], "whole": [{"signal": 11}]}}
    facts = {"cores": 2, "processor": "X", "torch": "2", "monai": "1", "commit": "a1", "classes": 100}
    volumes.write_json(tmp_path / "a.json", facts | {"rows": rows})
    assert volumes.table(tmp_path / "a.json").splitlines()[2:5] == [
        "| 256³, 100 classes | predict | 100 | 2.00 GB |",
        "| 256³, 100 classes | MONAI | – | ≥ 7 GB |",
        "| 256³, 100 classes | whole | crashes | – |",
    ]
