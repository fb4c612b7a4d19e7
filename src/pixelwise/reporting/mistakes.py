"""What is wrong and where: the confusion matrix, and errors by the size of objects and by the distance to a border.

Comes in: the plain scores and the classes. Goes out: sections. Knows nothing of runs or images.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pixelwise.reporting.charts import bar
from pixelwise.reporting.layout import Cell, Section, lead, paragraph, table, tabs
from pixelwise.reporting.markup import Child, Markup, join, named, tag
from pixelwise.reporting.numbers import link, percent, plural, short
from pixelwise.reporting.thumbnails import exact

Plain = Mapping[str, Any]
Floats = NDArray[np.float64]
# A matrix with names and numbers can be read up to so many classes.
_READABLE = 40
_STRONGEST = 12
_MOST_CLASSES = 20
_OPEN = "(open)"
_VIEWS: tuple[tuple[str, int | None, str, str], ...] = (
    (
        "By true class",
        1,
        "Of the pixels of each true class (row), the percentage that was given each class (column): the diagonal is ",
        "recall",
    ),
    (
        "By predicted class",
        0,
        "Of the pixels that were given each class (column), the percentage that is each true class (row): the diagonal is ",
        "precision",
    ),
    ("Pixels", None, "Pixels of each true class (row) that were given each class (column).", ""),
)
_HIT, _MISS = np.array([37, 99, 200]), np.array([200, 70, 20])


def confusion(scores: Plain) -> Section | None:
    """Show which classes are taken for which."""
    matrix = _matrix(scores)
    if matrix is None or not matrix.any():
        return None
    names = [str(row.get("name")) for row in scores["classes"]]
    # What the prediction left open is a miss of its class, and so belongs to the whole of a row.
    given = names if matrix.shape[1] == len(names) else [*names, _OPEN]
    body: list[Child] = []
    if len(names) > 1:
        body += [lead("Which classes are taken for which, strongest first."), _strongest(matrix, names, given)]
    panels = []
    for name, axis, says, key in _VIEWS:
        words = join(says, link(key, key) if key else None, "." if key else None)
        values = matrix.astype(np.float64) if axis is None else _shares(matrix, axis)
        shown = (
            _readable(values, names, given, axis is None) if len(names) <= _READABLE else _image(values, axis is None)
        )
        panels.append((name, join(paragraph(words), shown)))
    body.append(tag("h3", "Confusion matrix"))
    body.append(tabs("matrix", "Confusion matrix", panels))
    return Section("confusion", "Confusions", join(body))


def _matrix(scores: Plain) -> NDArray[np.int64] | None:
    """Give the counts (K, K), or (K, K + 1) with the pixels that the prediction left open in the last column."""
    matrix = np.asarray(scores.get("confusion") or [], np.int64)
    classes = scores.get("classes") or ()
    if not classes or matrix.shape != (len(classes), len(classes)):
        return None
    pixels = np.array([row.get("pixels") or 0 for row in classes], np.int64)
    left_open = pixels - matrix.sum(1)
    return (
        np.column_stack([matrix, left_open]) if scores.get("unassigned_pixels") and (left_open >= 0).all() else matrix
    )


def _shares(matrix: NDArray[np.int64], axis: int) -> Floats:
    whole = matrix.sum(axis, keepdims=True).astype(np.float64)
    return np.divide(matrix, whole, out=np.full(matrix.shape, np.nan), where=whole > 0)


def _strongest(matrix: NDArray[np.int64], names: Sequence[str], given: Sequence[str]) -> Markup:
    wrong = matrix.copy()
    np.fill_diagonal(wrong, 0)
    errors = int(wrong.sum())
    if not errors:
        return paragraph("No counted pixel was given a wrong class.")
    order = np.argsort(-wrong, axis=None, kind="stable")[:_STRONGEST]
    top, rows = float(wrong.max()) / errors, []
    for t, p in (divmod(int(place), len(given)) for place in order):
        if not wrong[t, p]:
            break
        share, of_class = wrong[t, p] / errors, wrong[t, p] / matrix[t].sum()
        words: list[Child] = [" is taken for "] if p < len(names) else [" is "]
        other: Child = named(given[p], 30) if p < len(names) else "left open"
        who = tag("span", named(names[t], 30), tag("span", words, class_="arrow"), other, class_="who")
        numbers = _beside(
            percent(share),
            "of all wrong pixels",
            f"{percent(of_class)} of the class, n\u00a0{short(int(wrong[t, p]))}\u00a0px",
        )
        rows.append(
            tag("li", who, bar(share, f"{percent(share)} of all wrong pixels", top=top, kind="bar wrong"), numbers)
        )
    return tag("ol", rows, class_="whiskers wide")


def _beside(value: str, what: str, more: str) -> Markup:
    """Write a value beside its bar: what it is, and more in small."""
    return tag("span", tag("span", value, class_="v"), f" {what}", tag("small", more), class_="what")


def _readable(values: Floats, names: Sequence[str], given: Sequence[str], counts: bool) -> Markup:
    largest = float(np.nanmax(values)) if np.isfinite(values).any() else 1.0
    rows: list[list[Child | Cell]] = []
    for t, name in enumerate(names):
        cells: list[Child | Cell] = [Cell(named(name, 24))]
        for p, value in enumerate(values[t].tolist()):
            if value != value:
                cells.append(Cell("–", kind="none"))
                continue
            weight = 100 * (value / largest) ** 0.5 if counts and largest else 100 * value
            text = short(value) if counts else _points(value)
            cells.append(Cell(text, kind=f"number {'hit' if t == p else 'miss'}", weight=weight))
        rows.append(cells)
    heads: list[Child] = [
        tag("span", "true ↓ given →", class_="corner"),
        *(tag("span", named(name, 24), class_="turned") for name in given),
    ]
    kind = "matrix" if len(names) <= 14 else "matrix tight"
    return table(heads, rows, "Confusion matrix, rows truth, columns prediction", kind=kind)


def _points(share: float) -> str:
    """Write a share in percent without its sign, for narrow cells."""
    value = 100 * share
    return "0" if value == 0 else "<1" if value < 0.95 else f"{value:.0f}" if value < 99.5 or value == 100 else ">99"


def _image(values: Floats, counts: bool) -> Markup:
    """Paint a matrix of many classes: a pixel per cell, blue on the diagonal, orange elsewhere."""
    largest = float(np.nanmax(values)) if counts and np.isfinite(values).any() else 1.0
    strength = np.sqrt(np.nan_to_num(values) / (largest or 1.0))[..., None]
    colour = np.where(np.eye(*values.shape)[..., None] > 0, _HIT, _MISS)
    pixels = (246 + (colour - 246) * strength + 0.5).astype(np.uint8)
    panel = exact(pixels)
    says = "Confusion matrix as an image, true classes from top to bottom, given classes from left to right"
    note = paragraph(
        "True classes from top to bottom, given ones from left to right, in the order of the table of classes; darker is more.",
        kind="quiet",
    )
    return join(tag("img", src=panel.uri, alt=says, width=panel.width, height=panel.height, class_="pixels"), note)


def by_size(scores: Plain) -> Section | None:
    """Show how many objects of each size are found."""
    found = (scores.get("tables") or {}).get("by_size") or {}
    classes = [one for one in found.get("classes") or () if sum(one.get("objects") or ())]
    if not classes:
        return None
    ends = found["up_to_pixels"]
    heads: list[Child] = ["Class", *(_range(ends, place) for place in range(len(ends)))]
    ranked = sorted(classes, key=lambda one: -sum(one["objects"]))[:_MOST_CLASSES]
    shown = [one for one in classes if one in ranked]
    rows: list[list[Child | Cell]] = []
    for one in shown:
        cells: list[Child | Cell] = [Cell(named(one.get("name"), 30))]
        for objects, hits in zip(one["objects"], one["found"], strict=True):
            if not objects:
                cells.append(Cell("–", kind="none"))
                continue
            share = hits / objects
            text = join(tag("span", percent(share, 0), class_="v"), tag("small", f"n\u00a0{short(objects)}"))
            cells.append(Cell(text, share, "number hit", 100 * share))
        rows.append(cells)
    says = (
        "Connected true regions of each class by their area in pixels: the share of which at least half of the pixels "
        "was given the class, and how many there are (n)."
    )
    left = len(classes) - len(shown)
    rest = (
        paragraph(
            f"The {plural(left, 'class')} with fewer objects are left out here; scores.json has them.", kind="quiet"
        )
        if left
        else None
    )
    return Section(
        "sizes",
        "By object size",
        join(lead(says), table(heads, rows, "Share of objects found, by size", kind="heat"), rest),
    )


def _range(ends: Sequence[int | None], place: int) -> str:
    low, high = (ends[place - 1] if place else 0), ends[place]
    if high is None:
        return f"> {_plain(low or 0)} px"
    return f"≤ {_plain(high)} px" if not low else f"{_plain(low)}–{_plain(high)}"


def _plain(pixels: int) -> str:
    return str(pixels) if pixels < 10_000 else f"{pixels / 1000:.0f}k"


def by_distance(scores: Plain) -> Section | None:
    """Show how error falls with the distance to a true border."""
    found = (scores.get("tables") or {}).get("by_distance") or {}
    pixels, wrong = found.get("pixels") or [], found.get("wrong") or []
    if not sum(pixels):
        return None
    ends, errors = found["up_to_pixels"], sum(wrong)
    top = max((w / n for w, n in zip(wrong, pixels, strict=True) if n), default=1.0)
    rows = []
    for place, (n, w) in enumerate(zip(pixels, wrong, strict=True)):
        if not n:
            continue
        low, high = (ends[place - 1] if place else 0), ends[place]
        name = f"beyond {low} px" if high is None else f"{low}–{high} px"
        share = w / n
        part = f"{percent(w / errors)} of all errors, " if errors else ""
        numbers = _beside(percent(share), "wrong", f"{part}n\u00a0{short(n)}\u00a0px")
        chart = bar(share, f"{percent(share)} wrong", top=top, kind="bar wrong")
        rows.append(tag("li", tag("span", name, class_="who"), chart, numbers))
    says = (
        "The share of wrong pixels by their distance to the nearest border between two true classes. Errors that stay "
        "close to borders are often a matter of how those were drawn."
    )
    return Section("distances", "By distance to the border", join(lead(says), tag("ol", rows, class_="whiskers wide")))
