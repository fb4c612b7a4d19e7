"""The page on formats: its table matches the registry, and its `data.yaml` is valid."""

from __future__ import annotations

import re
from pathlib import Path

import yaml

from pixelwise.config import DataConfig
from pixelwise.formats import FORMATS

PAGE = (Path(__file__).parents[2] / "docs" / "formats.md").read_text(encoding="utf-8")


def test_the_table_is_the_registry():
    rows = re.findall(r"^\| `([\w-]+)` \| [^|]+ \| (yes|no) \|([^|]*)\|$", PAGE, re.M)
    assert {name for name, *_ in rows} == set(FORMATS)
    for name, written, loses in rows:
        assert (written == "yes") == (FORMATS[name].write is not None), name
        assert (loses.strip() in ("nothing", "")) == (not FORMATS[name].loses), name


def test_the_yaml_is_a_data_section():
    (text,) = re.findall(r"```yaml\n(.*?)```", PAGE, re.S)
    config = DataConfig.model_validate(yaml.safe_load(text))
    assert config.format in FORMATS
