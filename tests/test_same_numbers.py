"""The same masks give the same numbers, whoever scores them: training, the verbs, Python, or a reference on the PNG files."""

from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image
from sklearn.metrics import confusion_matrix, jaccard_score

from pixelwise import api
from pixelwise.cli.evaluate import run as evaluate_verb
from pixelwise.training.runlog import read_log


@pytest.fixture(scope="module")
def trained(discs, tmp_path_factory):
    out = tmp_path_factory.mktemp("same") / "run"
    tiny = ["model.features=[4,8]", "model.stem=1", "train.crop=[32,32]", "train.batch_size=4", "train.precision=fp32",
            "train.channels_last=false", "train.validations=2", "predict.tile=[32,32]"]  # fmt: skip
    api.train(discs, steps=12, out=out, overrides=tiny)
    return out


def test_all_ways_to_score_agree(trained, discs, tmp_path, capsys):
    config = trained / "config.yaml"
    written = json.loads((trained / "scores.json").read_text())
    best = max(e["miou"] for e in read_log(trained / "log.jsonl") if e["event"] == "validation")
    in_python = api.evaluate(trained, config, split="val")
    predicted = api.predict(trained, str(discs / "val" / "images"), out=tmp_path / "out", overlays=False)
    of_files = api.evaluate(tmp_path / "out" / "masks", config, split="val")
    evaluate_verb(str(trained), str(config), split="val", as_json=True)
    of_the_verb = json.loads(capsys.readouterr().out)

    truth, answer = [], []
    for entry in predicted.images:
        name = entry["mask"].removeprefix("masks/")
        truth.append(np.asarray(Image.open(discs / "val" / "masks" / name)).ravel())
        answer.append(np.asarray(Image.open(tmp_path / "out" / entry["mask"])).ravel())
    truth, answer = np.concatenate(truth), np.concatenate(answer)
    reference = jaccard_score(truth, answer, average=None)

    assert best == written["miou"] == in_python.scores.miou.value == of_files.scores.miou.value == of_the_verb["miou"]
    assert written["miou"] == pytest.approx(reference.mean(), abs=1e-12)
    assert [c["iou"] for c in written["classes"]] == pytest.approx(reference, abs=1e-12)
    np.testing.assert_array_equal(written["confusion"], confusion_matrix(truth, answer))
    plain, again = in_python.to_dict(), of_files.to_dict()
    for key in ("classes", "confusion", "baseline", "per_image", "boundary_miou", "miou_low", "miou_high"):
        if key == "classes":  # masks have no probabilities, and so no calibration
            for one, other in zip(plain[key], again[key], strict=True):
                assert {k: v for k, v in one.items() if not k.startswith("calibration")} == other
        else:
            assert plain[key] == again[key], key
    for key in ("miou", "miou_low", "miou_high", "ece", "per_image", "tables", "confusion"):
        assert written[key] == json.loads(json.dumps(plain[key])) == of_the_verb[key], key


def test_the_model_carries_its_temperature_and_its_scores(trained):
    card = json.loads((trained / "model" / "model.json").read_text())
    scores = json.loads((trained / "scores.json").read_text())
    assert card["calibration"]["fitted_on"] == "val"
    assert card["calibration"]["nll_after"] <= card["calibration"]["nll_before"]
    assert card["scores"]["val"]["miou"] == scores["miou"]
    assert "per_image" not in card["scores"]["val"]
    readme = (trained / "model" / "README.md").read_text()
    assert f"mIoU **{100 * scores['miou']:.1f} %" in readme
    model = api.load(trained)
    assert model.predictor.temperature == card["calibration"]["temperature"] != 1.0


def test_without_a_temperature_none_is_kept(discs, tmp_path, tiny):
    run = api.train(discs, steps=2, out=tmp_path / "run", overrides=[*tiny, "evaluate.temperature=false"])
    assert run.model.card.calibration is None
    assert run.model.predictor.temperature == 1.0
