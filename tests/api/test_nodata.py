"""`data.nodata` from training to evaluation and prediction: the model knows which pixels hold no data."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

import pixelwise
from pixelwise.models.card import read_card
from pixelwise.training.run import Request, train_run

SIZE = 32
MISSING = np.arange(SIZE) < 6


def draw(root: Path, mark: float) -> Path:
    rng = np.random.default_rng(0)
    truth = np.zeros((SIZE, SIZE), np.uint8)
    truth[:, 12:] = 1
    for split, count in (("train", 4), ("val", 3)):
        for k in range(count):
            image = (rng.random((SIZE, SIZE)) + truth).astype(np.float32)
            image[MISSING] = mark
            for folder in ("images", "masks"):
                (root / split / folder).mkdir(parents=True, exist_ok=True)
            tifffile.imwrite(root / split / "images" / f"{split}{k}.tif", image)
            Image.fromarray(truth).save(root / split / "masks" / f"{split}{k}.png")
    (root / "labels.yaml").write_text("names: [ground, road]\n")
    return root


@pytest.mark.parametrize(("mark", "text"), [(-9999.0, "-9999"), (1e20, "1e+20"), (np.nan, "nan")])
def test_a_model_ignores_the_nodata_of_its_training_data(tmp_path: Path, mark: float, text: str) -> None:
    data = draw(tmp_path / "data", mark)
    settings = ("model.features=[4, 8]", "evaluate.report=false", f"data.nodata={text}")
    run = train_run(Request(str(data), steps=2, overrides=settings), tmp_path / "run")
    card = read_card(run / "model")
    np.testing.assert_equal(card.spec.nodata, mark)
    json.loads((run / "model" / "model.json").read_text(), parse_constant=lambda name: pytest.fail(name))
    found = json.loads((run / "data.json").read_text())["fingerprint"]
    assert 0 <= found["mean"][0] <= 2
    assert found["std"][0] < 1

    model = pixelwise.load(run)
    path = data / "val" / "images" / "val0.tif"
    ignore = model.labels.ignore_index
    for source in (path, tifffile.imread(path)):
        prediction = model.predict(source)
        np.testing.assert_array_equal((prediction.mask == ignore).all(axis=1), MISSING)
        np.testing.assert_array_equal(prediction.valid, np.broadcast_to(~MISSING[:, None], (SIZE, SIZE)))

    pixelwise.predict(run, [str(data / "val" / "images")], out=tmp_path / "predicted")
    written = np.asarray(Image.open(tmp_path / "predicted" / "masks" / "val0.png"))
    assert not np.isin(written[MISSING], (0, 1)).any()
    result = pixelwise.evaluate(run, data, split="val")
    assert result.scores.ignored_pixels == 3 * MISSING.sum() * SIZE


def test_nodata_is_a_number_or_nan(tmp_path: Path) -> None:
    data = draw(tmp_path / "data", -9999)
    for wrong in ("none given", "yes"):
        with pytest.raises(pixelwise.errors.ConfigError, match=r"data\.nodata"):
            pixelwise.check(data, overrides=[f"data.nodata={wrong}"])
