import importlib
import json
import subprocess
import sys
from pathlib import Path

import pytest

import pixelwise

HEAVY = ("torch", "torchvision", "scipy", "PIL", "tifffile", "rich", "matplotlib", "transformers", "timm")


def loaded_after(code: str) -> set[str]:
    """Run `code` in a fresh process and tell which modules it brought in."""
    out = subprocess.run(
        [
            sys.executable,
            "-c",
            f"{code}\nimport sys, json; print(json.dumps([m for m in sys.modules if '.' not in m]))",
        ],
        check=True,
        capture_output=True,
        text=True,
    )
    return set(json.loads(out.stdout.splitlines()[-1]))


def test_the_names_are_sorted_and_each_stands_once() -> None:
    assert list(pixelwise.__all__) == sorted(set(pixelwise.__all__))
    assert 10 <= len(pixelwise.__all__) <= 25
    assert set(pixelwise.__all__) | {"__version__"} == set(dir(pixelwise))


@pytest.mark.parametrize("name", pixelwise.__all__)
def test_every_name_is_there_described_and_at_home(name: str) -> None:
    value = getattr(pixelwise, name)
    assert value.__name__ == name
    assert value.__doc__
    assert getattr(importlib.import_module(value.__module__), name) is value
    scope: dict[str, object] = {}
    exec(f"from pixelwise import {name}", scope)
    assert scope[name] is value


def test_verbs_are_not_hidden_by_modules() -> None:
    importlib.import_module("pixelwise.evaluation")
    importlib.import_module("pixelwise.checking")
    for verb in ("check", "evaluate", "load", "predict", "train"):
        assert callable(getattr(pixelwise, verb))


def test_what_is_not_there_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="module 'pixelwise' has no attribute 'trian'"):
        pixelwise.trian  # noqa: B018
    assert not hasattr(pixelwise, "_trian")


def test_import_brings_in_nothing_heavy() -> None:
    assert not loaded_after("import pixelwise").intersection((*HEAVY, "numpy", "yaml", "pydantic"))
    assert not loaded_after("import pixelwise, pixelwise.cli, pixelwise.api").intersection(HEAVY)
    assert "yaml" not in loaded_after("import pixelwise.metrics.definitions")


def test_values_and_configuration_need_no_torch() -> None:
    assert not loaded_after(
        "from pixelwise import Config, Fingerprint, Grid, Labels, Prediction, Sample, Scores; import pixelwise.metrics"
    ).intersection(("torch", "torchvision"))


def test_import_touches_neither_threads_nor_environment_nor_files(tmp_path: Path) -> None:
    code = (
        "import os, random, threading; before = dict(os.environ), random.getstate(), threading.active_count()\n"
        "import pixelwise, pixelwise.api, pixelwise.cli\n"
        "assert before == (dict(os.environ), random.getstate(), threading.active_count())"
    )
    subprocess.run([sys.executable, "-B", "-c", code], check=True, cwd=tmp_path)
    assert not list(tmp_path.iterdir())


def test_the_version_is_that_of_the_package() -> None:
    from importlib.metadata import version

    assert pixelwise.__version__ == version("pixelwise")
