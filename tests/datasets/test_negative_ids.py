"""Masks with negative ids: the advice of the one message works in every command."""

import shlex

import numpy as np
import pytest
import tifffile
from PIL import Image

import pixelwise
from pixelwise.errors import MaskError

LABELS = "names: [ground, house]\n"


@pytest.fixture
def data(tmp_path):
    rng = np.random.default_rng(0)
    for k in range(6):
        image = rng.integers(0, 255, (32, 32), dtype=np.uint8)
        mask = (image > 100).astype(np.int16)
        mask[:8, : 8 + k] = -1
        mask[8, 8] = -9999 if k == 3 else 0
        for folder, values in (("images", image), ("masks", mask)):
            (tmp_path / folder).mkdir(exist_ok=True)
            tifffile.imwrite(tmp_path / folder / f"{k}.tif", values)
    return tmp_path


def options(text: str) -> list[str]:
    """Return the options of the first command line that a text suggests."""
    return [shlex.split(text[text.index("--set") :])[1].rstrip(";")]


def ignored(folder, overrides) -> str:
    splits = pixelwise.check(folder, overrides=overrides)
    return next(finding.what for finding in splits.findings if "are ignored" in finding.what)


@pytest.mark.parametrize("described", [True, False])
def test_the_mapping_that_the_message_gives_works_when_typed(data, tiny, described, tmp_path_factory):
    if described:
        (data / "labels.yaml").write_text(LABELS)
        findings = [finding for finding in pixelwise.check(data).findings if finding.severity == "error"]
        assert len(findings) == 1
        text = findings[0].fix
        assert "-1 in 6 masks" in findings[0].what
        assert "-9999 in 1 mask (1 pixels)" in findings[0].what
    else:
        with pytest.raises(MaskError, match=r"0\.tif: expected class ids 0, 1, found -1 in 64 pixels, 6\.25 % of the"):
            pixelwise.check(data)
        with pytest.raises(MaskError) as caught:
            pixelwise.check(data)
        text = str(caught.value)
    overrides = options(text)
    assert overrides == ["data.mask_values={-9999: 255, -1: 255, 0: 0, 1: 1}"]
    assert not pixelwise.check(data, overrides=overrides).blocks
    assert "ignored, in 6 of 6 masks" in ignored(data, overrides)
    out = tmp_path_factory.mktemp("runs") / "run"
    run = pixelwise.train(data, steps=2, out=out, overrides=[*tiny, *overrides])
    assert pixelwise.load(run.folder).card.spec.labels.num_classes == 2


def test_an_ignore_index_may_be_negative(data, tiny, tmp_path_factory):
    (data / "labels.yaml").write_text(LABELS + "ignore_index: [-1, -9999]\n")
    assert not pixelwise.check(data).blocks
    assert "ignored, in 6 of 6 masks" in ignored(data, [])
    out = tmp_path_factory.mktemp("runs")
    run = pixelwise.train(data, steps=2, out=out / "run", overrides=tiny)
    pixelwise.predict(run.folder, [str(data / "images")], out=out / "predicted")
    with Image.open(out / "predicted/masks/0.png") as mask:
        assert set(np.unique(np.asarray(mask))) <= {0, 1}
    assert pixelwise.evaluate(out / "predicted", data, split="train").scores
    assert pixelwise.evaluate(data / "masks", data, split="train").scores.miou.value == 1  # masks with negative ids
    converted = pixelwise.convert(data, to="masks", out=out / "converted")
    assert converted is not None
    assert not pixelwise.check(out / "converted").blocks
