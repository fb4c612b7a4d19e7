"""Grey images among coloured ones are converted, in training and in prediction alike."""

from __future__ import annotations

import numpy as np
import pytest
import tifffile
from PIL import Image

import pixelwise
from pixelwise.config import DataConfig
from pixelwise.datasets.dataset import open_data
from pixelwise.errors import ImageError
from pixelwise.formats.reading import as_bands, mixed_forms


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
    for dtype in ("uint16", "float32"):
        assert "--set data.bands=rgb" in mixed_forms({(1, dtype), (3, dtype)})
    for forms in ({(3, "uint8"), (4, "uint8")}, {(1, "uint16"), (3, "uint8")}, {(1, "uint8"), (1, "uint16")}):
        assert mixed_forms(forms) == "Save all images with the same bands and pixel type, or split the data set."


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


def drawn(mode, rng):
    """Draw an image in a mode of Pillow."""
    noise = Image.fromarray(rng.integers(0, 256, (32, 32, 3), dtype=np.uint8))
    if mode in ("LA", "RGBA"):
        noise.putalpha(255)
    return noise.convert(mode)


GREY = (("L", "png"), ("L", "jpg"), ("1", "png"), ("LA", "png"), ("L", "tif"))
COLOUR = (
    ("RGB", "png"),
    ("RGB", "jpg"),
    ("P", "png"),
    ("RGBA", "png"),
    ("RGB", "webp"),
    ("CMYK", "jpg"),
    ("RGB", "tif"),
)


@pytest.mark.parametrize("grey", GREY, ids=str)
@pytest.mark.parametrize("colour", COLOUR, ids=str)
def test_every_mixture_of_8_bits_becomes_rgb(mixed, grey, colour):
    """The values are those that Pillow converts to."""
    rng = np.random.default_rng(0)
    for k, path in enumerate(sorted((mixed / "images").iterdir())):
        mode, suffix = grey if k < 3 else colour
        path.unlink()
        drawn(mode, rng).save(path.with_suffix(f".{suffix}"), **({"lossless": True} if suffix == "webp" else {}))
    splits = open_data(DataConfig(), mixed)
    assert "3 of 8 images are grey: converted to RGB (data.bands=rgb)" in splits.notices
    assert splits.description["bands"] == "rgb"
    for split in splits:
        for k, record in enumerate(split.records):
            image = split.read(k).image
            if "CMYK" not in colour:
                expected = np.moveaxis(np.asarray(Image.open(record.image).convert("RGB")), -1, 0)
                np.testing.assert_array_equal(image, expected)
            assert (image.shape, image.dtype) == ((3, 32, 32), np.uint8)


@pytest.mark.parametrize(
    "forms",
    [((1, "uint16"), (3, "uint8")), ((1, "uint16"), (3, "uint16")), ((1, "float32"), (3, "float32")),
     ((1, "uint8"), (4, "uint8")), ((3, "uint8"), (4, "uint8")), ((1, "uint8"), (1, "uint16"))],
    ids=str,
)  # fmt: skip
def test_other_mixtures_are_an_error_with_a_fix(mixed, tiny, tmp_path, forms):
    """The bands of measurements may be anything; `data.bands` is advised only where it helps."""
    rng = np.random.default_rng(0)
    for k, path in enumerate(sorted((mixed / "images").iterdir())):
        path.unlink()
        bands, dtype = forms[k % 2]
        values = rng.integers(0, 200, (bands, 32, 32)).astype(dtype)
        planes = {"photometric": "minisblack", "planarconfig": "separate" if bands > 1 else None}
        tifffile.imwrite(path.with_suffix(".tif"), values if bands > 1 else values[0], **planes)
    splits = open_data(DataConfig(), mixed)
    assert splits.description["bands"] is None
    with pytest.raises(ImageError) as caught:
        pixelwise.train(mixed, steps=2, out=tmp_path / "run", overrides=tiny)
    helps = {bands for bands, _ in forms} == {1, 3} and len({dtype for _, dtype in forms}) == 1
    assert ("--set data.bands=rgb" in str(caught.value)) == helps
    [found] = [one for one in pixelwise.check(mixed).findings if one.kind == "mixed-pictures"]
    assert (found.severity, "--set data.bands=rgb" in found.fix) == ("error", helps)
    if helps:
        assert not pixelwise.check(mixed, overrides=["data.bands=rgb"]).blocks


def test_a_model_of_mixed_images_accepts_both(mixed, tiny, tmp_path_factory):
    out = tmp_path_factory.mktemp("runs")
    events = []
    run = pixelwise.train(mixed, steps=2, out=out / "run", overrides=tiny, listener=events.append)
    notice = "4 of 8 images are grey: converted to RGB (data.bands=rgb)"
    assert notice in [event["text"] for event in events if event["event"] == "notice"]
    text = (run.folder / "config.yaml").read_text(encoding="utf-8")
    assert "bands: rgb  # grey and colour images are mixed" in text
    model = pixelwise.load(run.folder)
    assert (model.card.spec.channels, model.card.spec.colour_mode) == (3, "rgb")
    grey = np.random.default_rng(1).integers(0, 255, (1, 20, 20), dtype=np.uint8)
    np.testing.assert_array_equal(model.predict(grey).mask, model.predict(np.repeat(grey, 3, 0)).mask)
    assert pixelwise.evaluate(model, mixed, split="val").scores.images == 2
    checkup = pixelwise.check(mixed)
    assert not checkup.blocks
    assert notice in [finding.what for finding in checkup.findings]
    pixelwise.convert(mixed, to="coco", out=out / "coco")
    assert pixelwise.evaluate(model, out / "coco", split="val").scores.images == 2
