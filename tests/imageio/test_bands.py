"""Grey images among coloured ones are converted on request, in training and in prediction alike."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

import pixelwise
from pixelwise.config import DataConfig
from pixelwise.datasets.dataset import open_data
from pixelwise.errors import ImageError
from pixelwise.formats.reading import as_bands, mixed_bands


def test_grey_is_repeated_and_colours_become_luma():
    grey, colour = np.array([[[7, 200]]], np.uint8), np.array([[[255]], [[0]], [[0]]], np.uint8)
    np.testing.assert_array_equal(as_bands(grey, "rgb"), [[[7, 200]]] * 3)
    assert as_bands(colour, "grey").tolist() == [[[76]]]  # 0.299 · 255, rounded
    assert as_bands(colour, "grey").dtype == np.uint8
    assert as_bands(grey, "grey") is grey
    assert as_bands(colour, "rgb") is colour
    assert as_bands(colour, None) is colour
    four = np.zeros((4, 1, 1), np.uint8)
    assert as_bands(four, "rgb") is four


def test_16_bit_and_float_pixels_keep_their_type():
    for dtype, top in ((np.uint16, 65535), (np.float32, 1.0)):
        white = np.full((3, 2, 2), top, dtype)
        assert as_bands(white, "grey").dtype == dtype
        assert as_bands(white, "grey").max() == pytest.approx(top)


def test_only_grey_and_rgb_are_converted():
    assert "--set data.bands=rgb" in mixed_bands({1, 3})
    assert mixed_bands({3, 4}) == "Convert the images to the same bands, or split the data set."


@pytest.fixture
def mixed(tmp_path):
    rng = np.random.default_rng(0)
    for k in range(8):
        (tmp_path / "images").mkdir(exist_ok=True)
        (tmp_path / "masks").mkdir(exist_ok=True)
        shape = (32, 32, 3) if k % 2 else (32, 32)
        Image.fromarray(rng.integers(0, 255, shape, dtype=np.uint8)).save(tmp_path / "images" / f"{k}.png")
        mask = np.zeros((32, 32), np.uint8)
        mask[:16, k:] = 1
        Image.fromarray(mask).save(tmp_path / "masks" / f"{k}.png")
    (tmp_path / "labels.yaml").write_text("names: [background, thing]\n")
    return tmp_path


def test_a_data_set_returns_equal_bands(mixed):
    for bands, channels in (("rgb", 3), ("grey", 1)):
        splits = open_data(DataConfig(bands=bands), mixed)
        assert {part.read(k).image.shape[0] for part in splits for k in range(len(part))} == {channels}


def test_training_gives_advice_and_the_model_accepts_both(mixed, tiny, tmp_path_factory):
    out = tmp_path_factory.mktemp("runs")
    with pytest.raises(ImageError, match=r"--set data\.bands=rgb"):
        pixelwise.train(mixed, steps=2, out=out / "a", overrides=tiny)
    run = pixelwise.train(mixed, steps=2, out=out / "b", overrides=[*tiny, "data.bands=rgb"])
    model = pixelwise.load(run.folder)
    assert (model.card.spec.channels, model.card.spec.colour_mode) == (3, "rgb")
    grey = np.random.default_rng(1).integers(0, 255, (1, 20, 20), dtype=np.uint8)
    np.testing.assert_array_equal(model.predict(grey).mask, model.predict(np.repeat(grey, 3, 0)).mask)
    assert [finding.kind for finding in pixelwise.check(mixed).findings if "data.bands=rgb" in finding.fix]
    assert not pixelwise.check(mixed, overrides=["data.bands=rgb"]).blocks
