"""Prose in plain English: words and phrases that docstrings, comments, messages and pages do not use.

Checked are the docstrings, comments and strings of several words in `src`, `benchmarks` and `conformance`, the text of the
templates, the pages in `docs` (but not the log and the decision records), README, CONTRIBUTING and CHANGELOG, and the comments
of the recipes. Identifiers, single-word strings (keys of files and options) and code in backticks are not prose.
"""

from __future__ import annotations

import ast
import io
import re
import tokenize
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parents[1]
SOURCES = sorted(path for folder in ("src", "benchmarks", "conformance") for path in (ROOT / folder).rglob("*.py"))
TEMPLATES = sorted(path for path in (ROOT / "src").rglob("*") if path.suffix in (".html", ".j2", ".css", ".js"))
PAGES = [
    *(path for path in sorted((ROOT / "docs").glob("*.md")) if path.name != "log.md"),
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")),
]
RECIPES = sorted((ROOT / "recipes").glob("*.yaml"))

# A class of these formats is called so.
WITH_A_VOID_CLASS = {"camvid.py", "cityscapes.py", "colour_maps.py", "voc.py"}
VOID = r"void(?!-as-error| as error)|Void (?:pixels?|counts?|is|are)"
# Pattern → what to write instead. Lower case only: capitalised words may be names ("Void" of CamVid).
BANNED = {
    r"(?:pictures?|Pictures?)(?!\(s\))": "image",
    VOID: "ignored pixels",
    r"unassigned|counts? in nothing|count in no (?:score|metric)": "ignored",
    r"twins?|Twins?": "near-duplicate",
    r"outlines?": "contour",
    r"(?:train|training|val|validation|test) parts?|parts? \(train": "split",
    r"(?:stands?|standing) still": "is frozen",
    r"(?:makes?|made|make) small": "minimise",
    r"as (?:it|they) (?:lies?|stands?)|stands? (?:in|beside|behind|there)|lies? there": "a plain verb",
    r"(?:is|are|was|were) (?:told|asked)(?! for| to)": "is reported",
    r"(?:what|as) is said|is said|are said": "is reported",
    r"[Cc]omes? in:|[Gg]oes? out:": "one or two sentences on what the module does",
    r"[Kk]now(?:s|ing)? nothing (?:of|about)": "must not import",
    r"takes? part": "is used",
    r"by heart|of strangers|in peace|reckon(?:s|ed|ing)?": "a plain phrase",
    r"in silence": "silently",
    r"[Nn]obody|[Ss]omebody|[Ww]hoever": "a plain sentence",
}
OPENERS = {r"(?:Give|Tell|Say)s?\b": "Return, Describe, Raise, Write …"}
CODE = re.compile(r"```.*?```|``.*?``|`[^`\n]*`|<!--.*?-->", re.S)
QUOTED_WORD = re.compile(r"(?<!\w)([\"'“‘])[\w-]+([\"'”’])(?!\w)")


class Violation(NamedTuple):
    """One banned phrase in one line."""

    path: Path
    line: int
    phrase: str
    instead: str

    def __str__(self) -> str:
        path = self.path.relative_to(ROOT) if self.path.is_relative_to(ROOT) else self.path
        return f"{path}:{self.line}: {self.phrase!r} → {self.instead}"


class Prose(NamedTuple):
    """A piece of text and the line on which it starts."""

    line: int
    text: str
    opening: bool = False


def of_python(text: str) -> Iterator[Prose]:
    """Yield docstrings, comments and strings of several words."""
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type == tokenize.COMMENT:
            yield Prose(token.start[0], token.string)
    tree = ast.parse(text)
    docstrings = set()
    inside = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            first = node.body[0] if node.body else None
            if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant):
                docstrings.add(first.value)
        if isinstance(node, ast.JoinedStr):
            inside |= {value for value in node.values if isinstance(value, ast.Constant)}
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            parts = [v.value if isinstance(v, ast.Constant) else "{}" for v in node.values]
            yield Prose(node.lineno, "".join(map(str, parts)))
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and node not in inside:
            opening = node in docstrings
            if opening or len(node.value.split()) > 1:
                yield Prose(node.lineno, node.value, opening)


def of_page(text: str) -> Iterator[Prose]:
    """Yield a whole page of Markdown."""
    yield Prose(1, text)


def of_template(text: str) -> Iterator[Prose]:
    """Yield the comments of a template, style sheet or script, and the text between tags."""
    for match in re.finditer(r"/\*.*?\*/|(?<!:)//[^\n]*|\{#.*?#\}|>[^<]+<", text, re.S):
        yield Prose(1 + text.count("\n", 0, match.start()), match[0])


def of_yaml(text: str) -> Iterator[Prose]:
    """Yield the comments of a YAML file."""
    for number, line in enumerate(text.splitlines(), 1):
        if "#" in line:
            yield Prose(number, line[line.index("#") :])


def violations(path: Path, text: str, prose: Callable[[str], Iterator[Prose]]) -> list[Violation]:
    """List the banned phrases of a file."""
    found = []
    for piece in prose(text):
        # Code and quoted words are blanked, not removed: lines and columns stay.
        plain = CODE.sub(lambda match: re.sub(r"\S", " ", match[0]), piece.text)
        plain = QUOTED_WORD.sub(lambda match: " " * len(match[0]), plain)
        for pattern, instead in BANNED.items():
            if pattern == VOID and path.name in WITH_A_VOID_CLASS:
                continue
            for match in re.finditer(rf"(?<![\w-])(?:{pattern})(?!\w)", plain):
                line = piece.line + plain.count("\n", 0, match.start())
                found.append(Violation(path, line, match[0], instead))
        if piece.opening:
            for pattern, instead in OPENERS.items():
                match = re.match(pattern, piece.text)
                if match:
                    found.append(Violation(path, piece.line, f"{match[0]} …", instead))
    return sorted(set(found))


def report(paths: list[Path], prose: Callable[[str], Iterator[Prose]]) -> None:
    """Fail with one line per violation."""
    found = [each for path in paths for each in violations(path, path.read_text(encoding="utf-8"), prose)]
    if found:
        pytest.fail(f"{len(found)} phrases to rewrite:\n" + "\n".join(map(str, found)), pytrace=False)


def test_the_source_is_written_in_plain_english():
    report(SOURCES, of_python)


def test_the_templates_are_written_in_plain_english():
    report(TEMPLATES, of_template)


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
def test_the_pages_are_written_in_plain_english(page):
    report([page], of_page)


def test_the_recipes_are_written_in_plain_english():
    report(RECIPES, of_yaml)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ('"""Read a picture."""', ["picture"]),
        ('def f():\n    """Give a number."""', ["Give …"]),
        ("x = 1  # void counts in nothing", ["counts in nothing", "void"]),
        ('raise E(f"{a} is told twice")', ["is told"]),
        ('"""The words `picture` and "void" are keys."""\npicture = {"pictures": 1, "void": 2}', []),
        ('"""The convention void-as-error, in `unassigned_pixels`; a training partition."""', []),
        ('raise E("every train part")', ["train part"]),
    ],
)
def test_prose_is_distinguished_from_code(text, found):
    assert [each.phrase for each in violations(Path("x.py"), text, of_python)] == found


def test_violations_name_their_line():
    text = '"""One.\n\nTwo\npictures."""\n# a twin\n'
    assert [(each.line, each.phrase) for each in violations(Path("x.py"), text, of_python)] == [
        (4, "pictures"),
        (5, "twin"),
    ]
    page = "# Title\n\n```sh\npicture\n```\n\nA picture.\n"
    assert [each.line for each in violations(Path("x.md"), page, of_page)] == [7]
