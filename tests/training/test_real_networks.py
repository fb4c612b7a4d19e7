"""The most popular networks on real images: train, interrupt, resume, score, predict."""

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tifffile
import torch
import yaml
from PIL import Image
from safetensors.torch import load_file
from transformers import SegformerConfig, SegformerForSemanticSegmentation

import pixelwise
from pixelwise.errors import Interrupted
from pixelwise.training.runlog import read_log

pytestmark = pytest.mark.slow
NETWORKS = ["segformer-b0", "deeplabv3-resnet50", "deeplabv3plus/resnet34", "unet", "a checkpoint"]
COUNTS = {"train": 8, "val": 2, "test": 2}
SMALL = ("train.batch_size=2", "train.crop=[128,128]", "train.precision=fp32", "train.channels_last=false")


@pytest.fixture
def camvid(real: Callable[[str], Path], tmp_path: Path) -> Path:
    """Copy a few images of CamVid."""
    root, folder = real("camvid"), tmp_path / "camvid"
    for part, count in COUNTS.items():
        places = [folder / part / what for what in ("images", "masks")]
        for place in places:
            place.mkdir(parents=True)
        for image in sorted((root / part).glob("*.jpg"))[:count]:
            shutil.copy(image, places[0])
            shutil.copy(root / f"{part}annot" / f"{image.stem}.png", places[1])
    recipe = yaml.safe_load((Path(__file__).parents[2] / "recipes" / "camvid.yaml").read_text())
    (folder / "labels.yaml").write_text(yaml.safe_dump(recipe["data"]["labels"]))
    return folder


@pytest.fixture
def four_bands(real: Callable[[str], Path], tmp_path: Path) -> Path:
    """Write aerial images as 16-bit TIFFs with a fourth band, excess green."""
    root, folder = real("aerial_roads"), tmp_path / "four"
    images = iter(sorted((root / "images").glob("*.png")))
    for part, count in COUNTS.items():
        for what in ("images", "masks"):
            (folder / part / what).mkdir(parents=True)
        for _ in range(count):
            image = next(images)
            red, green, blue = np.asarray(Image.open(image).convert("RGB")).astype(int).transpose(2, 0, 1) * 200
            bands = np.stack([red, green, blue, np.clip(2 * green - red - blue, 0, 65535)]).astype(np.uint16)
            path = folder / part / "images" / f"{image.stem}.tif"
            tifffile.imwrite(path, bands, photometric="minisblack", planarconfig="separate")
            road = np.asarray(Image.open(root / "groundtruth" / image.name).convert("L")) > 127
            Image.fromarray(road.astype(np.uint8)).save(folder / part / "masks" / image.name)
    (folder / "labels.yaml").write_text("names: [background, road]\n")
    return folder


def checkpoint(folder: Path) -> Path:
    """Save a SegFormer with random weights in the format of the Hub."""
    torch.manual_seed(0)
    network = SegformerForSemanticSegmentation(SegformerConfig(id2label=dict(enumerate("abcdefg"))))
    network.save_pretrained(folder)
    (folder / "README.md").write_text("---\nlicense: cc0-1.0\n---\n")
    return folder


def weights(run: pixelwise.Run) -> dict[str, torch.Tensor]:
    return load_file(run.folder / "model" / "model.safetensors")


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("kind", ["camvid", "four_bands"])
def test_train_score_and_predict(name: str, kind: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    data: Path = request.getfixturevalue(kind)
    name = str(checkpoint(tmp_path / "checkpoint")) if name == "a checkpoint" else name

    def stop(event: dict[str, object]) -> None:
        if event["event"] == "step" and event["step"] == 2:
            raise Interrupted(tmp_path, found="checkpoint saved")

    whole = pixelwise.train(data, model=name, steps=4, out=tmp_path / "whole", overrides=SMALL)
    with pytest.raises(Interrupted):
        pixelwise.train(data, model=name, steps=4, out=tmp_path / "cut", overrides=SMALL, listener=stop)
    cut = pixelwise.train(data, model=name, steps=4, out=tmp_path / "cut", overrides=SMALL)
    assert any(event["event"] == "resume" for event in read_log(cut.folder / "log.jsonl"))
    one, other = weights(whole), weights(cut)
    assert one.keys() == other.keys()
    assert all(torch.equal(one[key], other[key]) for key in one)
    result = pixelwise.evaluate(cut.model, data)
    assert 0 <= (result.scores.miou.value or -1) <= 1
    image = next(iter(sorted((data / "test" / "images").iterdir())))
    mask = cut.model.predict(image).mask
    assert mask.shape == ((360, 480) if kind == "camvid" else (400, 400))
    assert mask.max() < cut.model.card.labels.num_classes
