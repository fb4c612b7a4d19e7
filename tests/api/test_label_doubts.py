"""`check --model`: labels that a confident model contradicts, the strongest first, in JSON and on the page."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

import pixelwise
from pixelwise.api import Model
from pixelwise.errors import DataError
from pixelwise.evaluation import diagnosis
from pixelwise.labels import Labels
from pixelwise.types import ModelSpec, Prediction

LABELS = Labels(("background", "thing"))


class Sure:
    """Predict bright pixels as "thing" with a probability of 97 %."""

    def observed(self, image, grid, valid, id, observe):
        mask = (image[0] > 127).astype(np.uint8)
        probabilities = np.where(np.stack([mask == 0, mask == 1]), 0.97, 0.03).astype(np.float32)
        observe(0, probabilities)
        return Prediction(mask, LABELS, grid, id)

    def __call__(self, image, grid, valid=None, *, id="", probabilities=False):
        return Prediction((image[0] > 127).astype(np.uint8), LABELS, grid, id)


@pytest.fixture
def data(tmp_path):
    """Draw 24 images of a bright square; two of the labels are wrong, one in many more pixels."""
    for k in range(24):
        split = tmp_path / "d" / ("train" if k < 12 else "val")
        image = np.zeros((48, 64), np.uint8)
        image[10:34, k : k + 24] = 200 + k
        mask = (image > 127).astype(np.uint8)
        if k == 3:
            mask[:] = 0  # forgotten
        if k == 15:
            mask[36:46, 2:14] = 1  # invented
        for kind, pixels in (("images", image), ("masks", mask)):
            (split / kind).mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(split / kind / f"p{k:02}.png")
    (tmp_path / "d" / "labels.yaml").write_text("names: [background, thing]\n")
    return tmp_path / "d"


class SureModel(Model):
    predictor = Sure()


def model(tmp_path, labels=LABELS):
    return SureModel(tmp_path, SimpleNamespace(labels=labels, spec=ModelSpec(labels, 3)), None)


def test_wrong_labels_are_ranked_with_their_regions(data, tmp_path):
    calls = []
    result = pixelwise.check(data, model=model(tmp_path), progress=lambda done, total: calls.append((done, total)))
    assert [(one["id"], one["truth"], one["prediction"], one["pixels"]) for one in result.suspects] == [
        ("train/p03", "background", "thing", 24 * 24),
        ("val/p15", "thing", "background", 10 * 12),
    ]
    assert result.suspects[0]["box"] == (10, 3, 34, 27)
    (doubts,) = [finding for finding in result.findings if finding.kind == "labels-in-doubt"]
    assert doubts.severity == "warning"
    assert doubts.where == ("train/p03", "val/p15")
    assert doubts.examples == (("train", 3), ("val", 3))
    assert "2 images have labels in doubt" in doubts.what
    assert "in train/p03, 576 pixels of 'background' are predicted as 'thing'" in doubts.why
    assert calls[-1] == (24, 24)


def test_incomplete_lists_and_images_not_compared_are_reported(data, tmp_path, monkeypatch):
    monkeypatch.setattr(diagnosis, "MOST_SUSPECTS", 1)
    (doubts,) = [one for one in pixelwise.check(data, model=model(tmp_path)).findings if one.kind == "labels-in-doubt"]
    assert doubts.what.startswith("at least 2 images have labels in doubt")
    assert doubts.what.endswith("in at least 2 regions")
    monkeypatch.setattr(diagnosis, "MOST_PIXELS", 10)
    told = [one for one in pixelwise.check(data, model=model(tmp_path)).findings if one.kind == "not-doubted"]
    assert [one.what for one in told] == [
        f"{split}: 12 images are too large to analyse object sizes and possible annotation errors"
        for split in ("train", "val")
    ]


def test_the_page_shows_suspects(data, tmp_path):
    pixelwise.check(data, model=model(tmp_path), out=tmp_path / "page.html")
    text = (tmp_path / "page.html").read_text()
    assert "Possible annotation errors" in text
    assert "with a confidence of 97\u202f%" in text


def test_without_a_model_there_are_no_suspects(data):
    plain = pixelwise.check(data).to_dict()
    assert "suspects" not in plain
    assert "labels-in-doubt" not in [finding["kind"] for finding in plain["findings"]]


def test_a_model_of_other_classes_is_refused(data, tmp_path):
    with pytest.raises(DataError, match="expected the model's classes a, b, found background, thing"):
        pixelwise.check(data, model=model(tmp_path, Labels(("a", "b"))))


def test_without_usable_images_the_first_error_is_raised(tmp_path):
    for k in range(3):
        for kind, name in (("images", f"p{k}.png"), ("masks", f"p{k}.png")):
            (tmp_path / kind).mkdir(exist_ok=True)
            Image.fromarray(np.zeros((8, 9 if kind == "masks" else 8), np.uint8)).save(tmp_path / kind / name)
    (tmp_path / "labels.yaml").write_text("names: [background, thing]\n")
    with pytest.raises(DataError, match=r"expected 8×8 pixels, the height and width of p0\.png, found 8×9"):
        pixelwise.check(tmp_path)
