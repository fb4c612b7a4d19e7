"""16-bit images with outliers: values that are clipped in training are clipped in prediction, too."""

import json
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

import pixelwise
from pixelwise.config import load_config

END = ("evaluate.metrics=[]", "evaluate.temperature=false", "evaluate.report=false")


@pytest.fixture(scope="module")
def glints(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Discs of value 900 on a background of 300; a thousandth of the pixels has values up to 60,000."""
    root, rng = tmp_path_factory.mktemp("glints"), np.random.default_rng(0)
    for part, count in (("train", 6), ("val", 2)):
        for folder in ("images", "masks"):
            (root / part / folder).mkdir(parents=True)
        for k in range(count):
            y, x = np.mgrid[:64, :64]
            mask = ((y - rng.integers(20, 44)) ** 2 + (x - rng.integers(20, 44)) ** 2 < 150).astype(np.uint8)
            image = rng.normal(300 + 600.0 * mask, 50)
            image[rng.random(image.shape) < 0.001] = 60_000
            tifffile.imwrite(root / part / "images" / f"{k}.tif", image.clip(0, 65535).astype(np.uint16))
            Image.fromarray(mask).save(root / part / "masks" / f"{k}.png")
    return root


def test_the_range_is_derived_saved_and_used(glints: Path, tiny: tuple[str, ...], tmp_path: Path) -> None:
    run = pixelwise.train(glints, out=tmp_path / "run", steps=3, overrides=(*tiny, *END))
    config = load_config(tmp_path / "run" / "config.yaml")
    assert isinstance(config.model.clip, list)
    ((low, high),) = config.model.clip
    assert 100 < low < 250
    assert 900 < high < 1100
    assert (config.model.std or [0])[0] < 300  # about 2000 without clipping
    card = json.loads((tmp_path / "run" / "model" / "model.json").read_text())
    assert card["clip"] == [pytest.approx([low, high])]
    image = tifffile.imread(glints / "val" / "images" / "0.tif")
    assert image.max() == 60_000
    of_all, of_clipped, of_others = (
        run.model.predictor(full_image[None], probabilities=True).probabilities
        for full_image in (image, image.clip(0, 5000), image // 2)
    )
    assert of_all is not None
    np.testing.assert_array_equal(of_all, of_clipped)
    assert not np.array_equal(of_all, of_others)


def test_a_model_with_pretrained_weights_clips_as_they_did(glints: Path, tiny: tuple[str, ...], tmp_path: Path) -> None:
    first = pixelwise.train(
        glints, out=tmp_path / "first", steps=2, overrides=(*tiny, *END, "model.clip=[[150.0, 2000.0]]")
    )
    second = pixelwise.train(
        glints, out=tmp_path / "second", steps=2, weights=first.folder / "model", overrides=(*tiny, *END)
    )
    config = load_config(second.folder / "config.yaml")
    assert config.model.clip == [(150.0, 2000.0)]
    assert "clip: [[150.0, 2000.0]]  # pretrained weights" in (second.folder / "config.yaml").read_text()
    off = pixelwise.train(glints, out=tmp_path / "off", steps=2, overrides=(*tiny, *END, "model.clip=none"))
    assert json.loads((off.folder / "model" / "model.json").read_text())["clip"] is None
