"""Pixels and sizes in `predictions.json` are those of `measure`, for images, scenes and volumes."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from tests.api.test_measure import LABELS, bright, predicted
from tests.inference.backends import predictor_of

import pixelwise
from pixelwise.api.predicting import predict_files, scenes


@pytest.mark.parametrize("as_scenes", [False, True])
def test_sizes_are_those_of_measure(tmp_path: Path, as_scenes: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = predicted(tmp_path)
    if as_scenes:
        monkeypatch.setattr(scenes, "LARGE", 1)
        predictor = predictor_of(bright, LABELS, channels=1, tile=(8, 8))
        predict_files(predictor, [str(tmp_path / "in")], tmp_path / "again")
        folder = tmp_path / "again"
    summary = json.loads((folder / "predictions.json").read_text())
    entries = {entry["file"]: entry for entry in summary["images"]}
    measured = pixelwise.measure(folder, regions=False).classes
    assert len(measured) == 2 * len(entries)
    for each in measured:
        found = entries[each.image]["classes"][each.name]
        assert found["pixels"] == each.pixels
        assert found.get("unit", "px²") == each.size.unit
        assert found.get("size", each.pixels) == pytest.approx(each.size.value, rel=1e-12)
    totals = summary["totals"]
    assert totals["bright"]["pixels"] == sum(each.pixels for each in measured if each.name == "bright")
    for unit in ("m²", "ml"):
        own = [each.size.value for each in measured if each.name == "bright" and each.size.unit == unit]
        assert totals["bright"]["sizes"][unit] == pytest.approx(np.sum(own))
