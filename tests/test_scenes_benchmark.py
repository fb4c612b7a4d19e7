"""The benchmark of scenes: all methods on a small scene, and the table."""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import pytest
import rasterio
from benchmarks import scenes
from PIL import Image


@pytest.fixture(scope="module")
def model(discs: Path, tiny: tuple[str, ...], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of two steps."""
    import pixelwise

    folder = tmp_path_factory.mktemp("scenes") / "run"
    overrides = [*tiny, "train.validations=1", "evaluate.metrics=[]", "predict.tile=[64,64]"]
    pixelwise.train(discs, out=folder, steps=2, overrides=overrides)
    return folder / "model"


def test_every_method_predicts_a_scene(model: Path, discs: Path, tmp_path: Path) -> None:
    images = discs / "train" / "images"
    scene = scenes.draw(tmp_path / "scene.tif", 150, images)
    with rasterio.open(scene) as file:
        assert file.shape == (150, 150)
        pixels = file.read()
    pieces = [np.asarray(Image.open(path).convert("RGB")) for path in scenes.chosen(images)]
    for top, left in np.ndindex(3, 3):
        found = np.moveaxis(pixels[:, 64 * top : 64 * top + 64, 64 * left : 64 * left + 64], 0, -1)
        assert any(np.array_equal(found, piece[: len(found), : found.shape[1]]) for piece in pieces)
    args = argparse.Namespace(model=model, backend="torch", precision="fp32")
    for method in scenes.METHODS:
        facts = scenes.run(args, method, str(scene), str(tmp_path / method))
        assert facts["seconds"] > 0
        assert facts["bytes"] > 1e6
    with (
        rasterio.open(tmp_path / "predict" / "masks" / "scene.tif") as ours,
        rasterio.open(tmp_path / "plain loop" / "mask.tif") as theirs,
    ):
        assert (ours.read() == theirs.read()).mean() > 0.9


def test_the_table(tmp_path: Path) -> None:
    assert scenes.table(tmp_path / "none.json") == scenes.NOT_MEASURED
    rows = {"model alone": 10.0, "predict": 11.0, "whole": 20.0}
    found = {name: [{"seconds": seconds, "bytes": 2e9}] * 3 for name, seconds in rows.items()}
    facts = {"cores": 2, "processor": "X", "torch": "2", "backend": "openvino", "precision": "fp32", "commit": "a1"}
    scenes.write_json(tmp_path / "a.json", facts | {"rows": {"8000": found}})
    lines = scenes.table(tmp_path / "a.json").splitlines()
    assert lines[2:6] == [
        "| 8,000 × 8,000 | model alone | 10.0 | 6.40 | 100% | 2.00 GB |",
        "| 8,000 × 8,000 | predict | 11.0 | 5.82 | 91% | 2.00 GB |",
        "| 8,000 × 8,000 | plain loop | – | – | – | ≥ 3 GB |",
        "| 8,000 × 8,000 | whole | 20.0 | 3.20 | 50% | 2.00 GB |",
    ]
    assert lines[-1] == "Medians; 2 cores of X, torch 2, openvino fp32; pixelwise at a1."


def test_results_of_other_sides_are_kept_on_the_same_machine(tmp_path: Path) -> None:
    facts = {"cores": 2, "torch": "2", "backend": "openvino"}
    assert scenes.earlier(tmp_path / "a.json", facts) == ({}, set())
    scenes.write_json(tmp_path / "a.json", facts | {"commit": "a1, b2", "rows": {"8000": {"predict": []}}})
    assert scenes.earlier(tmp_path / "a.json", facts) == ({"8000": {"predict": []}}, {"a1", "b2"})
    assert scenes.earlier(tmp_path / "a.json", facts | {"cores": 4}) == ({}, set())
