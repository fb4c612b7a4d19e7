"""The same masks give the same numbers, whoever scores them: training, the verbs, Python, or a reference on the PNG files."""

from __future__ import annotations

import html
import json
import os
import shutil
import signal

import numpy as np
import pytest
from PIL import Image
from sklearn.metrics import confusion_matrix, jaccard_score

from pixelwise import api, reporting
from pixelwise.cli.evaluate import run as evaluate_verb
from pixelwise.config import load_config
from pixelwise.errors import DataError, Interrupted, OutOfMemoryError, ResourceError
from pixelwise.training import ending
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
    assert written["miou_low"] is None  # four images are too few
    twelve = api.evaluate(trained, config, split="train").to_dict()
    evaluate_verb(str(trained), str(config), split="train", as_json=True)
    again = json.loads(capsys.readouterr().out)
    assert again["miou_low"] == twelve["miou_low"] < again["miou"] < twelve["miou_high"] == again["miou_high"]
    assert again["interval_method"] == twelve["interval_method"]

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
        if key == "classes":  # masks have no probabilities, so calibration is not scored
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
    assert model.predictor.spec.temperature == card["calibration"]["temperature"] != 1.0


def test_without_a_temperature_none_is_kept(discs, tmp_path, tiny):
    run = api.train(discs, steps=2, out=tmp_path / "run", overrides=[*tiny, "evaluate.temperature=false"])
    assert run.model.card.calibration is None
    assert run.model.predictor.spec.temperature == 1.0


@pytest.fixture
def copied(trained, discs, tmp_path):
    """A copy of a run and its data, for modification."""
    shutil.copytree(discs, tmp_path / "data")
    shutil.copytree(trained, tmp_path / "run")
    config = (tmp_path / "run" / "config.yaml").read_text().replace(str(discs), str(tmp_path / "data"))
    (tmp_path / "run" / "config.yaml").write_text(config)
    (tmp_path / "run" / "report.html").unlink()
    return tmp_path


def test_a_report_names_missing_and_modified_images(copied):
    first, second = sorted((copied / "data" / "val" / "images").iterdir())[:2]
    first.unlink()
    (copied / "data" / "val" / "masks" / first.name).unlink()
    mask = copied / "data" / "val" / "masks" / second.name
    Image.fromarray(np.zeros_like(np.asarray(Image.open(mask)))).save(mask)
    page = api.report(copied / "run").read_text()
    assert "expected the evaluated image, found none" in page
    assert "expected the evaluated mask, found another mask" in page


def test_a_report_needs_a_finished_run(copied):
    (copied / "run" / "scores.json").unlink()
    with pytest.raises(DataError, match=r"expected a finished run, found no scores\.json"):
        api.report(copied / "run")


def test_a_report_that_cannot_be_written_is_a_notice(discs, tmp_path, tiny, monkeypatch):
    def full(*_, **__):
        raise ResourceError("report.html", expected="room to write", found="none", do="Free space.")

    monkeypatch.setattr(reporting, "write_report", full)
    told = []
    run = api.train(discs, steps=2, out=tmp_path / "run", overrides=[*tiny], listener=told.append)
    assert run.scores["images"] == 4
    notices = [event["text"] for event in told if event["event"] == "notice"]
    assert "no report was written: report.html: expected room to write, found none. Free space." in notices


def test_a_report_has_the_command_to_reproduce_it(trained, discs, tmp_path):
    api.evaluate(
        trained, discs, split="val", metrics=("surface",), convention="smp", out=tmp_path / "my scores",
        overrides=["evaluate.surface_tolerance=2"],
    )  # fmt: skip
    page = html.unescape((tmp_path / "my scores" / "report.html").read_text())
    said = f"pixelwise evaluate {trained} {discs} --split val --metrics surface --convention smp --set evaluate.surface_tolerance=2 --out again"
    assert said in page
    plain = json.loads((tmp_path / "my scores" / "scores.json").read_text())
    assert plain["model"] == str(trained.resolve())
    assert plain["recipe"]["seed"] == 0
    assert plain["peer"]["convention"] == "smp"


def test_masks_have_no_calibration_and_say_so(trained, discs, tmp_path):
    api.predict(trained, str(discs / "val" / "images"), out=tmp_path / "out", overlays=False)
    result = api.evaluate(tmp_path / "out", discs, split="val", metrics=("calibration",))
    assert "masks have no probabilities: calibration is not scored" in result.notices


def test_a_run_that_failed_at_its_end_may_end_otherwise(discs, tmp_path, tiny, monkeypatch):
    real = ending.evaluate

    def short_of_memory(*_, **__):
        raise MemoryError("a very large image")

    monkeypatch.setattr(ending, "evaluate", short_of_memory)
    with pytest.raises(OutOfMemoryError, match=r"Run the same command with --set evaluate\.metrics=\[\]"):
        api.train(discs, steps=2, out=tmp_path / "run", overrides=[*tiny])
    monkeypatch.setattr(ending, "evaluate", real)
    told = []
    run = api.train(
        discs, steps=2, out=tmp_path / "run", overrides=[*tiny, "evaluate.metrics=[]"], listener=told.append
    )
    assert any(event["event"] == "resume" for event in told)
    assert run.scores["tables"] == {}
    written = load_config(tmp_path / "run" / "config.yaml")
    assert written.evaluate.metrics == []
    text = (tmp_path / "run" / "config.yaml").read_text()
    assert text.count("evaluate:") == 1
    assert "learning_rate: " in text
    assert "  # " in text


def test_a_stop_at_the_end_leaves_a_run_that_goes_on(discs, tmp_path, tiny):
    def stop(event):
        if event["event"] == "scoring":
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(Interrupted, match="Run the same command again to resume"):
        api.train(discs, steps=2, out=tmp_path / "run", overrides=[*tiny], listener=stop)
    assert not (tmp_path / "run" / "scores.json").exists()
    assert api.train(discs, steps=2, out=tmp_path / "run", overrides=[*tiny]).scores["images"] == 4
