"""Tables with typed columns, written as CSV and as Parquet."""

from __future__ import annotations

import csv
import importlib
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pixelwise.errors import UsageError
from pixelwise.storage import atomic_path

Value = int | float | str | None
# Of Parquet, by the type of the values.
_TYPES = {int: "int64", float: "float64", str: "string"}


@dataclass(frozen=True)
class Column:
    """A column of a table.

    Args:
        name: its name, unique in the table.
        kind: int, float or str: the type of the values, also if all are missing.
        values: one per row; None where there is none.
        form: how numbers are written in CSV, such as ".6g"; Parquet keeps all digits.
    """

    name: str
    kind: type[int] | type[float] | type[str]
    values: Sequence[Value]
    form: str = ""


def csv_text(columns: Sequence[Column]) -> str:
    """Return a table as CSV, with empty cells for missing values."""
    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow([column.name for column in columns])
    cells = [["" if value is None else format(value, column.form) for value in column.values] for column in columns]
    rows.writerows(zip(*cells, strict=True))
    return text.getvalue()


def write_parquet(path: Path, columns: Sequence[Column]) -> None:
    """Write a table as Parquet, atomically, with the columns of the CSV as int64, float64 and string.

    Raises:
        UsageError: pyarrow is not installed.
        ResourceError: the disk does not take the file.
    """
    arrow, parquet = require_pyarrow()
    arrays = {each.name: arrow.array(_plain(each), getattr(arrow, _TYPES[each.kind])()) for each in columns}
    with atomic_path(path) as temporary:
        parquet.write_table(arrow.table(arrays), temporary)


def require_pyarrow() -> tuple[Any, Any]:
    """Return the modules `pyarrow` and `pyarrow.parquet`.

    Raises:
        UsageError: they are not installed.
    """
    try:
        return importlib.import_module("pyarrow"), importlib.import_module("pyarrow.parquet")
    except ImportError as error:
        raise UsageError(
            "--set measure.parquet=true",
            expected="the package pyarrow",
            found="it is not installed",
            do="Run: pip install 'pixelwise[tables]'.",
        ) from error


def _plain(column: Column) -> list[Value]:
    """Return values that Parquet takes: text without the bytes of file names that are no UTF-8 (see `storage.write_atomic`)."""
    if column.kind is not str:
        return list(column.values)
    texts = (None if value is None else str(value) for value in column.values)
    return [None if text is None else text.encode("utf-8", "backslashreplace").decode() for text in texts]
