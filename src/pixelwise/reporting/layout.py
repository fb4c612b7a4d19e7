"""The pieces that every part of the page is made of: sections, tables, tabs, figures.

Comes in: finished pieces and texts. Goes out: `Markup`. Knows nothing of scores.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pixelwise.reporting.markup import Child, Markup, join, tag


@dataclass(frozen=True)
class Section:
    """Hold a part of the page.

    Args:
        id: its anchor.
        title: its heading, and its entry in the contents.
        body: what it holds.
    """

    id: str
    title: str
    body: Markup


@dataclass(frozen=True)
class Cell:
    """Hold a cell of a table.

    Args:
        content: what it shows.
        sort: by what its column is sorted; None comes last.
        kind: its class in the style sheet.
        weight: 0…100, how strongly it is tinted; None for not at all.
    """

    content: Child
    sort: float | str | None = None
    kind: str | None = None
    weight: float | None = None


def paragraph(*children: Child, kind: str | None = None) -> Markup:
    """Make a paragraph."""
    return tag("p", *children, class_=kind)


def lead(*children: Child) -> Markup:
    """Make the sentence that says what a section shows."""
    return tag("p", *children, class_="lead")


def table(
    head: Sequence[Child],
    rows: Sequence[Sequence[Child | Cell]],
    caption: str,
    *,
    kind: str = "",
    sortable: bool = False,
) -> Markup:
    """Make a table in a box that scrolls by itself, its first column naming the rows.

    Args:
        head: the columns' names.
        rows: cells; the first of each is its name.
        caption: what the table shows, for those who hear it.
        kind: classes in the style sheet.
        sortable: let a click on a column's name sort by it.
    """
    names = [tag("th", name, scope="col") for name in head]
    body = [tag("tr", [_cell(cell, place == 0) for place, cell in enumerate(row)]) for row in rows]
    inner = tag(
        "table",
        tag("caption", caption, class_="unseen"),
        tag("thead", tag("tr", names)),
        tag("tbody", body),
        class_=kind or None,
        data_sortable=sortable,
    )
    return tag("div", inner, class_="scroll", role="region", aria_label=caption, tabindex=0)


def _cell(cell: Child | Cell, first: bool) -> Markup:
    one = cell if isinstance(cell, Cell) else Cell(cell)
    attributes: dict[str, Any] = {"class_": one.kind, "data_sort": one.sort}
    if one.weight is not None:
        attributes["style"] = f"--w:{one.weight:.0f}%"
    return tag("th", one.content, scope="row", **attributes) if first else tag("td", one.content, **attributes)


def facts(entries: Sequence[tuple[Child, Child]]) -> Markup:
    """Make a list of names and what stands for each."""
    return tag("dl", [tag("div", tag("dt", name), tag("dd", value)) for name, value in entries], class_="facts")


def tabs(id: str, says: str, panels: Sequence[tuple[str, Markup]]) -> Markup:
    """Make panels of which one is seen at a time: radio buttons, so that it works without any script."""
    heads = []
    for place, (name, _) in enumerate(panels):
        heads.append(tag("input", type="radio", name=id, id=f"{id}-{place}", checked=place == 0))
        heads.append(tag("label", name, for_=f"{id}-{place}"))
    bodies = [tag("div", tag("h3", name, class_="printed"), body, class_="panel") for name, body in panels]
    return tag("div", heads, tag("div", bodies, class_="panels"), class_="tabs", role="group", aria_label=says)


def figure(image: Markup, title: Child, *caption: Child, kind: str | None = None) -> Markup:
    """Make a figure with a title above and words beneath."""
    below = tag("p", *caption) if caption else None
    return tag("figure", tag("figcaption", tag("strong", title), below), image, class_=kind)


def grid(pieces: Sequence[Child], kind: str = "pair") -> Markup:
    """Put pieces side by side where there is room."""
    return tag("div", *pieces, class_=f"grid {kind}")


def details(summary: Child, *body: Child) -> Markup:
    """Make a part that opens on a click."""
    return tag("details", tag("summary", summary), join(*body))
