"""README and docs: commands exist with their options, Python snippets run, links lead somewhere, names exist."""

from __future__ import annotations

import importlib
import re
import shlex
import shutil
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

import pixelwise

ROOT = Path(__file__).parents[1]
DOCS = sorted((ROOT / "docs").glob("*.md"))
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(page for page in DOCS if page.name != "log.md")]
QUICK = ("train.validations=1", "evaluate.metrics=[]")
RUN_ELSEWHERE = {"losses.md"}  # tests/losses/test_page.py
EACH_PAGE = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)


def blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", page.read_text(encoding="utf-8"), re.S | re.M)


def prose(page: Path) -> str:
    return re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.S | re.M)


WITH_PYTHON = [page for page in PAGES if page.name not in RUN_ELSEWHERE and blocks(page, "python")]


@pytest.fixture(scope="module")
def trained(discs: Path, tiny: tuple[str, ...], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of two steps."""
    folder = tmp_path_factory.mktemp("trained") / "run"
    pixelwise.train(discs, out=folder, steps=2, overrides=[*tiny, *QUICK])
    return folder


@pytest.fixture
def user_folder(
    discs: Path, trained: Path, tiny: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Path:
    """The current folder, with `my_data` as the pages describe it and a trained `run`; training takes seconds."""
    data = tmp_path / "my_data"
    for kind in ("images", "masks"):
        shutil.copytree(discs / "train" / kind, data / kind)
        first = min((data / kind).iterdir())
        first.rename(data / kind / f"a{first.suffix}")
    shutil.copy(discs / "labels.yaml", data)
    shutil.copytree(trained, tmp_path / "run")
    monkeypatch.chdir(tmp_path)
    train = pixelwise.train

    def train_quickly(*args: Any, overrides: Sequence[str] = (), **options: Any) -> Any:
        return train(*args, overrides=[*tiny, *QUICK, *overrides], **options)

    monkeypatch.setattr(pixelwise, "train", train_quickly)
    return tmp_path


@pytest.mark.parametrize("page", WITH_PYTHON, ids=lambda page: page.name)
def test_python_snippets_run_in_order(page: Path, user_folder: Path) -> None:
    if page.name == "README.md":
        shutil.rmtree(user_folder / "run")  # it trains its own
    names: dict = {"__name__": page.stem}
    for number, text in enumerate(blocks(page, "python"), 1):
        exec(compile(text, f"{page.name}, snippet {number}", "exec"), names)


@EACH_PAGE
def test_commands_exist_with_their_options(page: Path) -> None:
    from typer.main import get_command

    from pixelwise.cli import app

    commands = get_command(app).commands  # type: ignore[attr-defined]
    for line in "".join(blocks(page, "sh")).splitlines():
        words = shlex.split(line, comments=True)
        if words[:1] == ["pixelwise"]:
            assert words[1] in commands, line
            commands[words[1]].make_context(words[1], words[2:])


@EACH_PAGE
def test_options_and_keys_in_the_text_exist(page: Path) -> None:
    from typer.main import get_command

    from pixelwise.cli import app
    from pixelwise.config import Config, with_overrides

    text = page.read_text(encoding="utf-8")
    for quoted, plain in re.findall(r"--set (?:'([^'\n]+)'|([a-z]+\.[a-z_.]+=[^\s`']+))", text):
        if "…" not in quoted + plain:
            with_overrides(Config(), [quoted or plain])
    commands = get_command(app).commands.values()  # type: ignore[attr-defined]
    known = {
        name for command in commands for option in command.params for name in (*option.opts, *option.secondary_opts)
    }
    spans = re.findall(r"`(--[a-z-]+)[^`]*`", prose(page))
    assert set(spans) <= known | {"--version", "--help"}


@EACH_PAGE
def test_links_lead_to_files_and_headings(page: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", prose(page)):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, heading = target.partition("#")
        file = (page.parent / path) if path else page
        assert file.exists(), target
        if heading:
            titles = re.findall(r"^#+ (.*)$", prose(file), re.M)
            assert heading in {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}, target


def test_every_page_is_in_the_index() -> None:
    linked = set(re.findall(r"\]\(([\w-]+\.md)\)", (ROOT / "docs" / "index.md").read_text(encoding="utf-8")))
    assert linked == {page.name for page in DOCS} - {"index.md"}


@pytest.mark.parametrize("page", ["CONTRIBUTING.md", "docs/architecture.md"])
def test_the_drawn_layers_are_those_of_the_contract(page: str) -> None:
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["importlinter"][
        "contracts"
    ]
    (drawing,) = [text for text in blocks(ROOT / page, "text") if text.startswith("cli")]
    drawn = [re.split(r"\s{2,}", line)[0].replace(" | ", " : ") for line in drawing.splitlines()]
    assert drawn == contracts[0]["layers"]


@pytest.mark.parametrize("page", ["architecture.md", "extending.md"])
def test_names_in_the_developer_pages_exist(page: str) -> None:
    packages = "|".join(path.stem for path in (ROOT / "src" / "pixelwise").iterdir() if path.stem[0] != "_")
    names = set(re.findall(rf"`((?:{packages})(?:\.\w+)+)(?:\(\))?`", prose(ROOT / "docs" / page)))
    assert names
    files = {".yaml", ".json", ".csv"}
    missing = sorted(name for name in names if Path(name).suffix not in files and not exists(name))
    assert not missing


def exists(name: str) -> bool:
    """Whether a dotted name below pixelwise is a module or an attribute of one."""
    module, rest = "pixelwise", name.split(".")
    value: object = importlib.import_module(module)
    for position, word in enumerate(rest):
        try:
            module += f".{word}"
            value = importlib.import_module(module)
        except ModuleNotFoundError:
            for attribute in rest[position:]:
                fields = getattr(value, "__dataclass_fields__", {})
                if not hasattr(value, attribute) and attribute not in fields:
                    return False
                value = getattr(value, attribute, None)
            return True
    return True
