"""The README's snippets run as they stand."""

import re
import shutil
from pathlib import Path

import pytest

from pixelwise.models.catalogue import table

README = Path(__file__).parents[1] / "README.md"


def snippets(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README.read_text(), re.S)


@pytest.fixture
def my_data(discs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder as the README describes it, in the current folder."""
    data = tmp_path / "my_data"
    for kind in ("images", "masks"):
        shutil.copytree(discs / "train" / kind, data / kind)
        first = sorted((data / kind).iterdir())[0]
        shutil.copy(first, data / kind / f"a{first.suffix}")
    shutil.copy(discs / "labels.yaml", data)
    shutil.copytree(data / "images", tmp_path / "my_pictures")
    monkeypatch.chdir(tmp_path)
    return data


def test_the_python_snippets_run(my_data: Path) -> None:
    first, second = snippets("python")
    names: dict = {}
    exec(first, names)
    assert names["prediction"].mask.shape == (64, 64)
    assert names["model"].labels.names == ("background", "disc")
    exec(second, names)
    assert sum(p.numel() for p in names["model"].parameters()) == 31_037_698


def test_the_commands_exist_with_these_options(my_data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from typer.main import get_command

    from pixelwise.cli import app

    commands = [line.split("#")[0].split() for text in snippets("sh")[1:] for line in text.splitlines()]
    verbs = [
        "check",
        "train",
        "evaluate",
        "evaluate",
        "compare",
        "predict",
        "check",
        "convert",
        "train",
        "train",
        "import-weights",
        "push",
    ]
    assert [c[1] for c in commands] == verbs
    for command in commands:
        assert command[0] == "pixelwise"
        get_command(app).commands[command[1]].make_context(command[1], command[2:])  # type: ignore[attr-defined]


def test_the_table_of_networks_is_that_of_the_catalogue() -> None:
    shown = README.read_text().partition("<!-- models -->\n")[2].partition("\n<!-- end -->")[0]
    assert shown == table()


@pytest.mark.slow
def test_what_the_readme_says_of_answering_background_everywhere(tmp_path: Path) -> None:
    from pixelwise.api import draw_demo_data
    from pixelwise.config import DataConfig
    from pixelwise.datasets.dataset import open_data
    from pixelwise.evaluation import majority

    test = open_data(DataConfig(), draw_demo_data(tmp_path / "demo")).test
    assert test is not None
    scores = majority(test)
    said = re.search(
        r"On the (\d+) test images of the demo, a model that always answers \*(\w+)\* is right in \*\*(\d+) %\*\* of the "
        r"pixels, and has an mIoU of \*\*(\d+) %\*\*",
        README.read_text(),
    )
    assert said is not None
    accuracy, miou = scores.pixel_accuracy.value or 0, scores.miou.value or 0
    assert said.groups() == (str(len(test)), "background", f"{100 * accuracy:.0f}", f"{100 * miou:.0f}")
