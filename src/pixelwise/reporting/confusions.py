"""The sections of the report about errors: the confusion matrix, and errors by object size and distance to boundaries."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pixelwise.reporting.numbers import short
from pixelwise.reporting.rendering import Section
from pixelwise.reporting.results import Results
from pixelwise.reporting.thumbnails import Thumbnail, encode_png

Floats = NDArray[np.float64]
# Larger matrices are shown as an image.
_MOST_READABLE = 40
_MOST_CONFUSIONS = 12
_MOST_CLASSES = 20
_UNASSIGNED = "(no class)"
_HIT, _MISS = np.array([37, 99, 200]), np.array([200, 70, 20])


@dataclass(frozen=True)
class Confusion:
    """A pair of classes that is confused.

    Args:
        true, predicted: names of the classes.
        pixels: number of pixels.
        share: share of all wrong pixels.
        share_of_class: share of the pixels of the true class.
    """

    true: str
    predicted: str
    pixels: int
    share: float
    share_of_class: float


@dataclass(frozen=True)
class MatrixCell:
    """A cell of the confusion matrix: text, 0…100 for the strength of its tint (None: undefined), and whether it is correct."""

    text: str
    weight: float | None
    hit: bool


@dataclass(frozen=True)
class MatrixView:
    """One normalisation of the confusion matrix, as rows of cells or as an image; `diagonal` is the score on its diagonal."""

    title: str
    text: str
    diagonal: str
    rows: Sequence[Sequence[MatrixCell]]
    image: Thumbnail | None


def confusion(results: Results) -> Section | None:
    """Show the most frequent confusions and the confusion matrix."""
    matrix = results.confusion
    if matrix is None or not matrix.any():
        return None
    names = [entry.name for entry in results.classes]
    # Pixels without a predicted class are errors of their class, so they belong to the total of its row.
    columns = names if matrix.shape[1] == len(names) else [*names, _UNASSIGNED]
    views = [
        _view(
            "By true class",
            "Percentage of the pixels of each true class (row) that was predicted as each class (column)",
            "recall",
            _shares(matrix, 1),
        ),
        _view(
            "By predicted class",
            "Percentage of the pixels predicted as each class (column) that belongs to each true class (row)",
            "precision",
            _shares(matrix, 0),
        ),
        _view(
            "Pixels",
            "Pixels of each true class (row) that were predicted as each class (column)",
            "",
            matrix.astype(np.float64),
        ),
    ]
    return Section(
        "confusion",
        "Confusions",
        {"names": names, "columns": columns, "strongest": _strongest(matrix, names, columns), "views": views},
    )


def _shares(matrix: NDArray[np.int64], axis: int) -> Floats:
    total = matrix.sum(axis, keepdims=True).astype(np.float64)
    return np.divide(matrix, total, out=np.full(matrix.shape, np.nan), where=total > 0)


def _strongest(matrix: NDArray[np.int64], names: Sequence[str], columns: Sequence[str]) -> list[Confusion]:
    wrong = matrix.copy()
    np.fill_diagonal(wrong, 0)
    order = np.argsort(-wrong, axis=None, kind="stable")[:_MOST_CONFUSIONS]
    pairs = [divmod(int(k), len(columns)) for k in order]
    return [
        Confusion(names[t], columns[p], int(wrong[t, p]), wrong[t, p] / wrong.sum(), wrong[t, p] / matrix[t].sum())
        for t, p in pairs
        if wrong[t, p]
    ]


def _view(title: str, text: str, diagonal: str, values: Floats) -> MatrixView:
    largest = 1.0
    if not diagonal:
        largest = float(np.nanmax(values)) or 1.0
    if len(values) > _MOST_READABLE:
        return MatrixView(title, text, diagonal, (), _matrix_image(values / largest))
    rows = []
    for t, row in enumerate(values.tolist()):
        cells = []
        for p, value in enumerate(row):
            if np.isnan(value):
                cells.append(MatrixCell("–", None, t == p))
            elif diagonal:
                cells.append(MatrixCell(_points(value), 100 * value, t == p))
            else:
                cells.append(MatrixCell(short(value), 100 * (value / largest) ** 0.5, t == p))
        rows.append(cells)
    return MatrixView(title, text, diagonal, rows, None)


def _points(share: float) -> str:
    """Format a share in percent without the sign, for narrow cells."""
    value = 100 * share
    if value == 0:
        return "0"
    if value < 0.95:
        return "<1"
    return f"{value:.0f}" if value < 99.5 or value == 100 else ">99"


def _matrix_image(shares: Floats) -> Thumbnail:
    """Draw a matrix with one pixel per cell, blue on the diagonal and orange elsewhere."""
    strength = np.sqrt(np.nan_to_num(shares))[..., None]
    colour = np.where(np.eye(*shares.shape)[..., None] > 0, _HIT, _MISS)
    return encode_png((246 + (colour - 246) * strength + 0.5).astype(np.uint8))


def by_size(results: Results) -> Section | None:
    """Show the share of detected objects by size."""
    table = results.evaluation.tables.by_size
    classes = [entry for entry in table.classes if sum(entry.objects)] if table else []
    if not table or not classes:
        return None
    most = sorted(classes, key=lambda entry: -sum(entry.objects))[:_MOST_CLASSES]
    rows = [(entry.name, list(zip(entry.found, entry.objects, strict=True))) for entry in classes if entry in most]
    values = {"heads": _size_ranges(table.up_to_pixels), "rows": rows, "omitted": len(classes) - len(rows)}
    return Section("sizes", "By object size", values)


def _size_ranges(ends: Sequence[int | None]) -> list[str]:
    names = []
    low = 0
    for high in ends:
        if high is None:
            names.append(f"> {_thousands(low)} px")
        else:
            names.append(f"{_thousands(low)}–{_thousands(high)} px" if low else f"≤ {_thousands(high)} px")
            low = high
    return names


def _thousands(pixels: int) -> str:
    return str(pixels) if pixels < 10_000 else f"{pixels / 1000:.0f}k"


def by_distance(results: Results) -> Section | None:
    """Show the share of wrong pixels by distance to the nearest annotated boundary."""
    table = results.evaluation.tables.by_distance
    if table is None or not sum(table.pixels):
        return None
    rows = []
    low = 0
    for high, total, errors in zip(table.up_to_pixels, table.pixels, table.wrong, strict=True):
        name = f"beyond {low} px" if high is None else f"{low}–{high} px"
        low = high or low
        if total:
            rows.append((name, total, errors))
    top = max(errors / total for _, total, errors in rows)
    return Section("distances", "By distance to boundaries", {"rows": rows, "errors": sum(table.wrong), "top": top})
