"""docs/losses.md: its snippets run, and its keys and defaults match the configuration."""

from __future__ import annotations

import re
from pathlib import Path

import yaml

import pixelwise.losses
from pixelwise.config import LossConfig

PAGE = Path(__file__).parents[2] / "docs" / "losses.md"


def snippets(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.S)


def test_python_snippets_run():
    names: dict = {}
    for text in snippets("python"):
        exec(text, names)
    assert names["value"].item() > 0
    assert len(snippets("python")) == 3


def test_yaml_is_a_valid_configuration():
    (text,) = snippets("yaml")
    assert LossConfig.model_validate(yaml.safe_load(text)["loss"]) == LossConfig(cldice=0.2, cldice_classes=[1])


def test_table_lists_all_keys_defaults_and_functions():
    rows = [line.split("|")[1:3] for line in PAGE.read_text(encoding="utf-8").splitlines() if line.startswith("| `")]
    documented = dict(pair for keys, _ in rows for pair in re.findall(r"`(\w+)` \(([^)]*)\)", keys))
    words = {None: ("none", "all but the first")}
    for key, value in documented.items():
        default = LossConfig.model_fields[key].default
        assert value in words[None] if default is None else float(value) == default, key
    # Described below the table, because their values are words.
    described = re.findall(r"`(class_weights|dice_per|terms)[`:]", PAGE.read_text(encoding="utf-8"))
    assert set(documented) | set(described) == set(LossConfig.model_fields)
    functions = [name for _, cell in rows for name in re.findall(r"`(\w+)`", cell)]
    assert len(functions) == len(rows)
    assert set(functions) <= set(pixelwise.losses.__all__)
