"""Run folders are read even if they are incomplete or damaged."""

from __future__ import annotations

import json

import pytest
import yaml

from pixelwise.config import Config, config_from_dict, dump_config
from pixelwise.reporting.runfolder import Setting, read_run, read_settings


def test_settings_have_values_and_reasons():
    labels = {"names": ["a # b", "it's", '"q"', "no: way", "x"], "ignore_index": [255]}
    config = config_from_dict({"data": {"root": "/tmp/# place", "labels": labels}})
    reasons = {"train.steps": "10 epochs # of 3 images", "data.labels": 'it\'s "so"', "model.name": "[odd: reason"}
    found = read_settings(dump_config(config, reasons))
    plain = config.model_dump()
    assert [(one.section, one.key) for one in found] == [(s, k) for s, values in plain.items() for k in values]
    for one in found:
        value = yaml.safe_load(one.value)
        assert json.dumps(value, default=list) == json.dumps(plain[one.section][one.key], default=list), one
        assert one.reason == reasons.get(f"{one.section}.{one.key}", "")


def test_handwritten_files_are_read():
    text = "seed: 3 # top\nlist:\n  a:\n    - 1\n    - 2\n  b: {c: 1} # why\n  text: |\n    two\n    lines\nlast: x"
    assert read_settings(text) == [
        Setting("seed", "", "3", "top"),
        Setting("list", "a", "- 1\n    - 2", ""),
        Setting("list", "b", "{c: 1}", "why"),
        Setting("list", "text", "|\n    two\n    lines", ""),
        Setting("last", "", "x", ""),
    ]


@pytest.mark.parametrize(
    "text", ["", "a: [", "- 1\n- 2", "a: !!python/object:os.system x", "a: &x [*x]", "\t", "[" * 5000]
)
def test_other_texts_have_no_settings_and_raise_no_error(text):
    assert all(isinstance(one, Setting) for one in read_settings(text))


def test_an_incomplete_log_is_read(run):
    found = read_run(run)
    assert len(found.of("step")) == 40
    assert len(found.of("validation")) == 2
    assert found.card["calibration"]["temperature"] == 1.25
    assert len(found.settings) == sum(len(values) for values in Config().model_dump().values())


def test_a_missing_folder_is_empty(tmp_path):
    found = read_run(tmp_path / "nowhere")
    assert (found.settings, found.config, found.data, found.card, found.events) == ((), "", {}, {}, ())
