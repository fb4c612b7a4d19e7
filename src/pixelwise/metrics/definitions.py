"""Definitions of all scores, read from `definitions.yaml` when first used, and the documentation page made from them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any, Literal

Better = Literal["higher", "lower", "neither"]


@dataclass(frozen=True)
class Definition:
    """The definition of a score.

    Args:
        title: common name.
        formula: in plain characters, see `SYMBOLS`.
        says: explanation in one or two sentences.
        over: what it is computed over, and how absent classes and ignored pixels are treated.
        source: paper with arXiv id or DOI.
        unit: of its values.
        better: whether higher or lower values are better.
    """

    title: str
    formula: str
    says: str
    over: str
    source: str
    unit: str = "share, 0…1"
    better: Better = "higher"


# Loaded on first access, by `__getattr__`.
SYMBOLS: str
FAMILIES: Mapping[str, Mapping[str, Definition]]
DEFINITIONS: Mapping[str, Definition]


def __getattr__(name: str) -> Any:
    if name == "SYMBOLS":
        return _content()["symbols"]
    if name == "FAMILIES":
        return _families()
    if name == "DEFINITIONS":
        return _definitions()
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


@cache
def _content() -> dict[str, Any]:
    import yaml

    text = resources.files("pixelwise.metrics").joinpath("definitions.yaml").read_text(encoding="utf-8")
    content: dict[str, Any] = yaml.safe_load(text)
    return content


@cache
def _families() -> dict[str, dict[str, Definition]]:
    return {
        family: {key: Definition(**values) for key, values in entries.items()}
        for family, entries in _content()["families"].items()
    }


@cache
def _definitions() -> dict[str, Definition]:
    return {key: definition for entries in _families().values() for key, definition in entries.items()}


def documentation() -> str:
    """Return the documentation page as Markdown: every score by its key, by family."""
    content = _content()
    better = {"neither": "neither higher nor lower is better"}
    lines = ["# Metrics", "", content["introduction"], content["symbols"], ""]
    lines += ["This page is generated from `pixelwise.metrics.definitions`."]
    for family, entries in _families().items():
        lines += ["", f"## {family}"]
        lines += ["", content["functions"].rstrip()] if "pq" in entries else []
        for key, d in entries.items():
            lines += ["", f"### `{key}`: {d.title}", "", d.says, "", f"    {d.formula}", ""]
            lines += [f"- Over: {d.over}", f"- Unit: {d.unit}; {better.get(d.better, f'{d.better} is better')}"]
            lines.append(f"- Source: {d.source}")
    return "\n".join(lines) + "\n"
