"""Validation images that are set aside for intervals of sizes: which, how many, and that they serve no other purpose."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import pixelwise
from pixelwise.config import Config, load_config, resolve
from pixelwise.config import replace as with_values
from pixelwise.datasets.dataset import Dataset, open_data
from pixelwise.datasets.set_aside import set_aside, whole_units
from pixelwise.errors import ConfigError, DataError, UsageError
from pixelwise.formats.records import Record
from pixelwise.imageio.masks import MaskRule
from pixelwise.labels import Labels
from pixelwise.measuring.conformal import SizeCalibration, interval_of
from pixelwise.models.card import read_card
from pixelwise.training import ending
from pixelwise.training.size_calibration import plan_size_calibration

VAL = 60


def images(count: int, per_group: int | None = None) -> Dataset:
    """A split of images without files."""
    groups = [None if per_group is None else f"patient {i // per_group}" for i in range(count)]
    records = [Record(f"image {i:04}", Path(f"{i}.png"), None, group) for i, group in enumerate(groups)]
    return Dataset(Labels(("a", "b")), tuple(records), MaskRule(), "val")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from pixelwise.demo.synthetic import write_discs

    folder = tmp_path_factory.mktemp("sizes") / "data"
    write_discs(folder, train=6, val=VAL, test=16, size=(32, 32), seed=0)
    return folder


@pytest.fixture(scope="module")
def run(data: Path, tiny: tuple[str, ...]) -> Path:
    return pixelwise.train(data, out=data.parent / "run", steps=4, overrides=tiny).folder


def facts(run: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((run / "data.json").read_text())
    return found


@pytest.mark.parametrize(
    ("units", "expected"), [(1, 0), (56, 0), (57, 19), (60, 19), (76, 19), (80, 20), (796, 199), (5000, 199)]
)
@pytest.mark.parametrize("per_group", [None, 1, 3])
def test_how_many_are_set_aside(units: int, expected: int, per_group: int | None) -> None:
    val = images(units * (per_group or 1), per_group)
    config, reason, notice = plan_size_calibration(Config(), val)
    assert config.train.size_calibration == expected
    assert ("groups" if per_group else "images") in reason
    assert (notice is None) == (expected > 0)
    if notice is not None:
        assert (
            f"57 validation {'groups' if per_group else 'images'} are needed to set some aside, found {units}" in notice
        )
    divided = set_aside(val, expected)
    assert len(divided.val) >= 2 * len(divided.sizes or ()), "scores keep two thirds of the images"


def test_a_number_of_the_user_is_kept_or_refused() -> None:
    chosen = with_values(Config(), train={"size_calibration": 9})
    assert plan_size_calibration(chosen, images(10)) == (chosen, "", None)
    none = with_values(Config(), train={"size_calibration": 0})
    assert plan_size_calibration(none, images(10)) == (none, "", None)
    for count in (1, 8, 30, 31):
        with pytest.raises(ConfigError, match="9 or more and fewer than the 30 validation groups") as caught:
            plan_size_calibration(with_values(Config(), train={"size_calibration": count}), images(90, 3))
        assert "evaluate.calibrate_sizes=true" in caught.value.do


@pytest.mark.parametrize("per_group", [None, 1, 4])
def test_whole_groups_are_set_aside_whatever_the_order_of_the_files(per_group: int | None) -> None:
    val = images(80, per_group)
    divided = set_aside(val, 10)
    assert divided.sizes is not None
    assert divided.sizes.groups() == 10
    assert len(divided.sizes) == 10 * (per_group or 1)
    apart, rest = ({record.id for record in each.records} for each in (divided.sizes, divided.val))
    assert not apart & rest
    assert len(apart | rest) == 80
    assert per_group is None or not {r.group for r in divided.sizes.records} & {r.group for r in divided.val.records}
    turned = set_aside(replace(val, records=val.records[::-1]), 10)
    assert turned.sizes is not None
    assert {record.id for record in turned.sizes.records} == apart
    # More images in the split, or more set aside: the earlier ones stay set aside.
    more = set_aside(val, 12).sizes
    assert more is not None
    assert apart < {record.id for record in more.records}
    # Whole groups one after the other, so that fewer can be used.
    for count in range(len(divided.sizes)):
        part = whole_units(divided.sizes, count)
        assert len(part) == count // (per_group or 1) * (per_group or 1)


def test_nothing_is_set_aside_without_a_number() -> None:
    val = images(80)
    for count in (None, 0):
        assert set_aside(val, count).val is val


def test_they_serve_no_other_purpose(run: Path, data: Path) -> None:
    used = facts(run)["used"]
    assert len(used["sizes"]) == 19
    assert len(used["val"]) == VAL - 19
    assert not set(used["sizes"]) & set(used["val"])
    scored = {image["id"] for image in json.loads((run / "scores.json").read_text())["per_image"]}
    assert scored == set(used["val"])
    text = (run / "config.yaml").read_text()
    assert "size_calibration: 19  # of 60 validation images, set aside for intervals of sizes" in text


def test_the_model_holds_the_calibration(run: Path) -> None:
    calibration = SizeCalibration.from_dict(read_card(run / "model").size_calibration)
    assert calibration is not None
    assert (calibration.level, calibration.images, calibration.units, calibration.grouped) == (0.9, 19, 19, False)
    assert calibration.pixels == (32 * 32, 32 * 32)
    assert sum(limit.images for limit in (calibration.predicted[1], calibration.missing[1])) == 19
    assert "like the 19 validation images" in interval_of(calibration, 0, 900, 60, 32 * 32).note


def test_the_limits_are_those_of_a_separate_evaluation(run: Path) -> None:
    """The images that were set aside, opened by name and predicted with the finished model."""
    config = load_config(run / "config.yaml")
    val = open_data(config.data, run).val
    assert val is not None
    apart = facts(run)["used"]["sizes"]
    model = pixelwise.load(run)
    errors = []
    for index, record in enumerate(val.records):
        if record.id in apart:
            sample = val.read(index)
            mask = model.predictor(sample.image, sample.grid, sample.valid, id=sample.id).mask
            assert sample.mask is not None
            errors.append(abs(int((mask == 0).sum()) - int((sample.mask == 0).sum())))
    calibration = SizeCalibration.from_dict(read_card(run / "model").size_calibration)
    assert calibration is not None
    limit = calibration.predicted[0]
    if limit.score == "share":
        assert limit.quantile == pytest.approx(sorted(errors)[17] / 1024)  # ⌈0.9 · 20⌉ = 18
    assert limit.images == 19


def test_a_run_without_them_is_as_before(data: Path, tiny: tuple[str, ...], tmp_path: Path) -> None:
    overrides = (*tiny, "train.size_calibration=0")
    folder = pixelwise.train(data, out=tmp_path / "run", steps=2, overrides=overrides).folder
    assert read_card(folder / "model").size_calibration is None
    assert json.loads((folder / "scores.json").read_text())["images"] == VAL
    assert "sizes" not in facts(folder)["used"]


def train_without_end(data: Path, out: Path, monkeypatch: pytest.MonkeyPatch, **options: Any) -> None:
    """Train a run that fails before its calibration and scores."""

    def fail(*args: object, **kwargs: object) -> None:
        raise DataError("end", expected="…", found="…", do="…")

    with monkeypatch.context() as patch:
        patch.setattr("pixelwise.training.run.finish", fail)
        with pytest.raises(DataError):
            pixelwise.train(data, out=out, **options)


def test_a_run_of_an_older_version_is_resumed_without_them(
    data: Path, tiny: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its configuration has no such key, and all of its validation images have chosen checkpoints."""

    out = tmp_path / "run"
    train_without_end(data, out, monkeypatch, steps=2, overrides=tiny)
    lines = [line for line in (out / "config.yaml").read_text().splitlines() if "size_calibration" not in line]
    (out / "config.yaml").write_text("\n".join(lines) + "\n")
    pixelwise.train(data, out=out, steps=2, overrides=tiny)
    assert read_card(out / "model").size_calibration is None
    assert json.loads((out / "scores.json").read_text())["images"] == VAL


def test_a_resumed_run_sets_the_same_images_aside(
    run: Path, data: Path, tiny: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "run"
    train_without_end(data, out, monkeypatch, steps=4, overrides=tiny)
    pixelwise.train(data, out=out, steps=4, overrides=tiny)
    assert facts(out)["used"] == facts(run)["used"]
    assert read_card(out / "model").size_calibration == read_card(run / "model").size_calibration


def test_a_late_end_calibrates_on_fewer_images(run: Path, data: Path) -> None:
    val = open_data(load_config(run / "config.yaml").data, run).val
    assert val is not None
    divided = set_aside(val, 19)
    events: list[dict[str, Any]] = []
    before = (run / "model" / "model.json").read_bytes(), (run / "scores.json").read_bytes()
    config = resolve(load_config(run / "config.yaml"))
    ending.finish(config, divided.val, run, events.append, time.monotonic() - 1, sizes=divided.sizes)
    calibration = SizeCalibration.from_dict(read_card(run / "model").size_calibration)
    assert calibration is not None
    assert calibration.images == 10
    assert any("10 of 19 images that were set aside" in event.get("text", "") for event in events)
    ending.finish(config, divided.val, run, events.append, sizes=divided.sizes)
    assert SizeCalibration.from_dict(read_card(run / "model").size_calibration) is not None
    assert json.loads((run / "model" / "model.json").read_bytes()) == json.loads(before[0])
    assert json.loads((run / "scores.json").read_bytes()) == json.loads(before[1])


def test_the_commands_of_the_report_repeat_the_scores(run: Path) -> None:
    """The configuration of the run says which images were set aside."""
    again = pixelwise.evaluate(run, run / "config.yaml", split="val")
    assert again.scores.to_dict()["miou"] == pytest.approx(json.loads((run / "scores.json").read_text())["miou"])
    assert len(again.images) == VAL - 19
    assert any("19 of 60 images are not scored" in notice for notice in again.notices)
    pixelwise.report(run, out=run.parent / "again.html")


# The command that adds them


def test_evaluate_adds_them_to_a_model(data: Path, tiny: tuple[str, ...], tmp_path: Path) -> None:
    folder = pixelwise.train(data, out=tmp_path / "run", steps=2, overrides=(*tiny, "train.size_calibration=0")).folder
    weights = (folder / "model" / "model.safetensors").read_bytes()
    for split in ("train", "val"):
        with pytest.raises(DataError, match="neither trained nor validated on"):
            pixelwise.evaluate(folder, data, split=split, overrides=["evaluate.calibrate_sizes=true"])
    plain = pixelwise.evaluate(folder, data)
    result = pixelwise.evaluate(folder, data, overrides=["evaluate.calibrate_sizes=true"])
    assert result.scores.to_dict() == plain.scores.to_dict()
    assert any("calibrated on 12 images" in notice and "4 others" in notice for notice in result.notices)
    card = read_card(folder / "model")
    calibration = SizeCalibration.from_dict(card.size_calibration)
    assert calibration is not None
    assert (calibration.images, calibration.split) == (12, "test")
    assert "like the 12 test images" in interval_of(calibration, 0, 900, 60, 1024).note
    assert (folder / "model" / "model.safetensors").read_bytes() == weights
    pixelwise.load(folder).predict(next((data / "test" / "images").iterdir()))


def test_evaluate_refuses_what_cannot_be_calibrated(run: Path, data: Path, discs: Path, tmp_path: Path) -> None:
    setting = ["evaluate.calibrate_sizes=true"]
    before = (run / "model" / "model.json").read_bytes()
    with pytest.raises(DataError, match="11 images or more to calibrate intervals of sizes, found 4"):
        pixelwise.evaluate(run, discs, overrides=setting)
    with pytest.raises(UsageError, match="a run or model folder, into which the calibration is written, found masks"):
        pixelwise.evaluate(data / "test" / "masks", data, overrides=setting)
    assert (run / "model" / "model.json").read_bytes() == before


def test_a_model_apart_from_its_run_is_calibrated_with_a_warning(run: Path, data: Path, tmp_path: Path) -> None:
    import shutil

    alone = tmp_path / "model"
    shutil.copytree(run / "model", alone)
    result = pixelwise.evaluate(alone, data, overrides=["evaluate.calibrate_sizes=true"])
    assert any("was trained on are unknown" in notice for notice in result.notices)
    assert (read_card(alone).size_calibration or {})["split"] == "test"
