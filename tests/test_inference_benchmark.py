"""The benchmark of inference: its methods agree on a small network, and its tables have their ratios."""

from pathlib import Path

import numpy as np
import pytest
import torch
from benchmarks import inference
from benchmarks.inference import Case
from PIL import Image

from pixelwise.labels import Labels
from pixelwise.models.card import ModelCard
from pixelwise.models.catalogue import build_model
from pixelwise.models.weights import load_model, save_model
from pixelwise.types import ModelSpec

TORCH = {"torch": inference.BACKENDS["torch"]}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A small U-Net of three classes."""
    torch.manual_seed(0)
    arguments = {"in_channels": 3, "num_classes": 3, "features": [4, 8], "mean": [120.0] * 3, "std": [60.0] * 3}
    card = ModelCard({"name": "unet", "arguments": arguments}, ModelSpec(Labels(("a", "b", "c")), 3))
    save_model(tmp_path / "model", build_model("unet", **arguments), card)
    return tmp_path / "model"


@pytest.fixture
def images(tmp_path: Path) -> list[Path]:
    generator = np.random.default_rng(0)
    for number in range(3):
        Image.fromarray(generator.integers(0, 256, (36, 48, 3), np.uint8)).save(tmp_path / f"{number}.jpg")
    return sorted(tmp_path.glob("*.jpg"))


def test_engines_are_compared_with_the_plain_loop(
    folder: Path, images: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inference, "BACKENDS", {**TORCH, "none": ""})
    case = Case("unet", (32, 40))
    eager, exact, half, *missing = inference.measure_engines(case, folder, images, rounds=2, compiled=False)
    assert [row["method"] for row in missing] == ["none fp32", "none bf16"]
    assert all("expected one of torch" in row["unavailable"] for row in missing)
    assert [row["method"] for row in (eager, exact, half)] == ["eager", "torch fp32", "torch bf16"]
    assert eager["equal"] == eager["miou"] == 1
    assert exact["equal"] > 0.99
    assert 0.5 < half["equal"] <= exact["equal"]
    assert all(0 < row["fastest"] <= row["seconds"] <= row["slowest"] for row in (eager, exact, half))


def test_images_are_enlarged_and_cut_to_the_size(images: list[Path]) -> None:
    assert inference.resized(images[0], (36, 48)).shape == (3, 36, 48)
    expected = np.moveaxis(np.asarray(Image.open(images[0])), -1, 0)
    np.testing.assert_array_equal(inference.resized(images[0], (36, 48)), expected)
    assert inference.resized(images[0], (64, 64)).shape == (3, 64, 64)


def test_more_classes_keep_all_other_weights(folder: Path, tmp_path: Path) -> None:
    out = inference.with_classes(folder, 7, tmp_path / "seven")
    before, after = load_model(folder)[0].state_dict(), load_model(out)[0].state_dict()
    changed = [name for name in before if not torch.equal(before[name], after[name])]
    assert changed == ["head.weight", "head.bias"]
    assert after["head.bias"].shape == (7,)


def test_agreement_of_masks() -> None:
    one, other = np.array([[0, 0, 1, 1]]), np.array([[0, 1, 1, 1]])
    assert inference.agreement([one], [other]) == {"equal": 0.75, "miou": pytest.approx((1 / 2 + 2 / 3) / 2)}
    assert inference.agreement([one], [one + 3]) == {"equal": 0, "miou": 0}


def test_a_folder_is_predicted_by_all_methods(
    folder: Path, images: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inference, "BACKENDS", TORCH)
    monkeypatch.setattr(inference, "DEFAULT", Case("unet", (36, 48)))

    def command(_: Path, out: Path, __: Path) -> None:
        inference.write_json(out / "predictions.json", {"engine": {"name": "openvino", "precision": "fp32"}})

    monkeypatch.setattr(inference, "_command", command)
    rows = inference.measure_folder(folder, images, 3, 1, compiled=False)
    assert [row["method"] for row in rows] == [
        *(f"torch fp32: {w}" for w in ("model alone", "masks and overlays", "masks")),
        "plain loop: masks",
        "SMP U-Net, eager: masks",
        "command, openvino fp32: masks and overlays",
    ]
    assert [row["alone"] is not None for row in rows] == [True] * 3 + [False] * 3


def test_the_tables(tmp_path: Path) -> None:
    assert inference.table(tmp_path / "none.json") == inference.NOT_MEASURED
    rows = [
        {"method": "eager", "seconds": 0.2, "equal": 1.0, "miou": 1.0},
        {"method": "openvino bf16", "seconds": 0.05, "equal": 0.9991, "miou": 0.99512},
        {"method": "onnxruntime bf16", "unavailable": "precision: expected fp32"},
    ]
    alone = {"method": "torch fp32: model alone", "per_second": 40.0, "alone": 40.0}
    folder = [alone, {"method": "torch fp32: masks", "per_second": 38.0, "alone": 40.0}]
    folder.append({"method": "plain loop: masks", "per_second": 20.0, "alone": None})
    about = {"cores": 2, "processor": "X", "features": ["amx_bf16"], "versions": {"torch": "2"}, "commit": "a1"}
    content = {"machine": about, "engines": {"unet": {"rounds": 3, "steps": 300, "rows": rows}}}
    inference.write_json(tmp_path / "a.json", content | {"folder": {"images": 10, "rounds": 3, "rows": folder}})
    lines = inference.table(tmp_path / "a.json").splitlines()
    assert lines[2:4] == [
        "| unet | eager | 200.0 | 1.00 | 100.000% | 100.000% |",
        "| unet | openvino bf16 | 50.0 | 4.00 | 99.910% | 99.512% |",
    ]
    assert lines[7:10] == [
        "| torch fp32: model alone | 40.0 | 100% |",
        "| torch fp32: masks | 38.0 | 95% |",
        "| plain loop: masks | 20.0 | – |",
    ]
    assert lines[-1] == "2 cores of X (amx_bf16); networks after 300 steps, 3 rounds; torch 2; pixelwise at a1."


def test_features_of_the_processor(tmp_path: Path) -> None:
    (tmp_path / "cpuinfo").write_text("processor: 0\nflags\t: fpu avx2 avx512f amx_bf16\n")
    assert inference.cpu_features(tmp_path / "cpuinfo") == ["avx2", "avx512f", "amx_bf16"]
    assert inference.cpu_features(tmp_path / "none") == []
