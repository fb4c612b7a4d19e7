"""Fixtures of the report tests: an evaluation of synthetic images, and a run folder."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tests.reporting.drawn import Case, draw

from pixelwise.labels import Labels


@pytest.fixture(scope="session")
def case() -> Case:
    return draw(Labels(("background", "road", "vehicle", "person")))


@pytest.fixture(scope="session")
def scores(case: Case) -> dict[str, Any]:
    return case.scores(convention="smp")


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """Write a small run folder, as training does."""
    from pixelwise.config import Config, dump_config

    folder = tmp_path / "run"
    (folder / "model").mkdir(parents=True)
    (folder / "config.yaml").write_text(dump_config(Config(), {"train.seed": "because # of <b>this</b>"}))
    fingerprint = {
        "images": 9, "channels": 3, "dtype": "uint8", "sizes": [[20, 30], [20, 30], [40, 50]], "mean": [1.0, 2.0, 3.0],
        "std": [1.0, 1.0, 1.0], "pixel_counts": [900, 50, 40, 0], "image_counts": [9, 5, 4, 0], "ignored_share": 0.01,
        "thickness": [20.0, 4.0, 3.5, None], "row_spread": 0.25, "hash": "a1" * 32,
    }  # fmt: skip
    data = {"fingerprint": fingerprint, "splits": {"images": {"train": 9, "val": 3}, "layout": "flat", "root": "/x"}}
    (folder / "data.json").write_text(json.dumps(data))
    events = [{"event": "step", "step": s, "loss": 1 / s, "gradient_norm": 0.1 * s, "seconds": s} for s in range(1, 41)]
    events += [{"event": "validation", "step": s, "miou": s / 80, "best": True} for s in (20, 40)]
    events += [{"event": "skipped", "step": 7, "loss": "nan", "gradient_norm": "inf", "samples": ["a"]}]
    lines = "".join(json.dumps(event) + "\n" for event in events)
    (folder / "log.jsonl").write_text(lines + '{"event": "step", "step": 41, "lo')
    card = {"calibration": {"temperature": 1.25, "fitted_on": "val", "ece_before": 0.08, "ece_after": 0.02}}
    (folder / "model" / "model.json").write_text(json.dumps(card))
    return folder
