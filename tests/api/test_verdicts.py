"""Rules from a file, from the model and from the command line."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image
from typer.testing import CliRunner

import pixelwise
from pixelwise import cli
from pixelwise.errors import ConfigError
from pixelwise.models.card import read_card


def masks(folder: Path) -> Path:
    """Three masks with a square defect of 0, 4 and 8 pixels."""
    folder.mkdir()
    for side in (0, 4, 8):
        mask = np.zeros((30, 40), np.uint8)
        mask[5 : 5 + side, 9 : 9 + side] = 1
        Image.fromarray(mask).save(folder / f"{side}.png")
    (folder / "labels.yaml").write_text("names: [cloth, hole]\n")
    return folder


RULES = {"rules": [{"class": "hole", "longest_axis": {"review": "> 4 mm", "reject": "> 1 cm"}}]}


def test_verdicts_by_a_file(tmp_path: Path) -> None:
    file = tmp_path / "rules.yaml"
    file.write_text(yaml.safe_dump(RULES))
    result = pixelwise.measure(
        masks(tmp_path / "m"), spacing="1mm", out=tmp_path / "out", overrides=[f"measure.rules={file}"]
    )
    assert result.verdicts is not None
    assert [each.outcome for each in result.verdicts] == ["pass", "review", "reject"]
    rows = list(csv.DictReader((tmp_path / "out" / "verdicts.csv").read_text().splitlines()))
    assert [row["verdict"] for row in rows] == ["pass", "review", "reject"]
    plain = json.loads((tmp_path / "out" / "measurements.json").read_text())
    assert [each["outcome"] for each in plain["verdicts"]] == ["pass", "review", "reject"]


def test_the_command_fails_on_request(tmp_path: Path) -> None:
    file = tmp_path / "rules.yaml"
    file.write_text(yaml.safe_dump(RULES))
    folder = str(masks(tmp_path / "m"))

    def code(*words: str) -> int:
        return CliRunner().invoke(cli.app, ["measure", folder, "--spacing", "1mm", *words]).exit_code

    assert code("--set", f"measure.rules={file}") == 0
    assert code("--set", f"measure.rules={file}", "--fail") == 1
    file.write_text(yaml.safe_dump({"rules": [{"class": "hole", "count": {"reject": "> 1"}}]}))
    assert code("--set", f"measure.rules={file}", "--fail") == 0
    assert code("--fail") == 1  # an error, printed by the caller


def test_rules_given_in_training_are_kept_in_the_model(discs: Path, tiny: tuple[str, ...], tmp_path: Path) -> None:
    file = tmp_path / "rules.yaml"
    file.write_text(yaml.safe_dump({"rules": [{"class": "disc", "count": {"reject": "> 1000"}}]}))
    overrides = [*tiny, "train.validations=1", "evaluate.metrics=[]", f"measure.rules={file}"]
    run = pixelwise.train(discs, out=tmp_path / "run", steps=2, overrides=overrides)
    assert read_card(run.folder / "model").rules == yaml.safe_load(file.read_text())
    pixelwise.predict(run.folder, discs / "test" / "images", out=tmp_path / "out")
    result = pixelwise.measure(tmp_path / "out", regions=False)
    assert result.verdicts is not None
    assert {each.outcome for each in result.verdicts} == {"pass"}
    file.write_text(yaml.safe_dump({"rules": [{"class": "dics", "count": {"reject": "> 1000"}}]}))
    with pytest.raises(ConfigError, match="class: expected one of"):
        pixelwise.train(discs, out=tmp_path / "other", steps=2, overrides=overrides)
