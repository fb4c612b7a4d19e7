"""Tables of `measure`: Parquet holds the columns of the CSV, with types."""

from __future__ import annotations

import csv
import sys
from pathlib import Path
from typing import Any

import pytest
from tests.api.test_measure import predicted

import pixelwise
from pixelwise.api.measuring.tables import Column, csv_text, write_parquet
from pixelwise.errors import ConfigError, UsageError

TEXTS = {"image", "class", "unit", "provenance", "note", "touches_border"}
WHOLE = ("pixels", "region", "holes", "first_", "end_")
PARQUET = ["measure.parquet=true"]


def rows_of(path: Path) -> tuple[list[str], list[dict[str, str]]]:
    with path.open(encoding="utf-8", newline="") as file:
        reader = csv.DictReader(file)
        rows = list(reader)
        return list(reader.fieldnames or ()), rows


def same(cell: str, value: Any) -> bool:
    if cell == "" or value is None:
        return cell == "" and value is None
    return cell == value if isinstance(value, str) else float(cell) == pytest.approx(value, rel=1e-4, abs=1e-6)


def test_parquet_holds_the_columns_of_the_csv(tmp_path: Path) -> None:
    """Images and volumes, with and without units, so that cells are missing."""
    parquet = pytest.importorskip("pyarrow.parquet")
    folder = predicted(tmp_path)
    pixelwise.measure(folder, out=tmp_path / "sizes", overrides=PARQUET)
    missing = 0
    for name in ("classes", "regions"):
        columns, rows = rows_of(tmp_path / f"sizes/{name}.csv")
        table = parquet.read_table(tmp_path / f"sizes/{name}.parquet")
        assert table.column_names == columns
        for column in columns:
            kind = "string" if column in TEXTS else "int64" if column.startswith(WHOLE) else "double"
            assert str(table.schema.field(column).type) == kind, column
            values = table.column(column).to_pylist()
            assert len(values) == len(rows) > 10
            assert all(same(row[column], value) for row, value in zip(rows, values, strict=True)), column
            missing += values.count(None)
    assert missing > 10
    pixelwise.measure(folder, out=tmp_path / "sizes", overwrite=True)
    assert not list((tmp_path / "sizes").glob("*.parquet")), "a table of an earlier run is not left behind"


def test_an_empty_table_keeps_its_types_and_names_that_are_no_utf8_are_escaped(tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    columns = [Column("image", str, []), Column("pixels", int, []), Column("size", float, [], ".6g")]
    write_parquet(tmp_path / "empty.parquet", columns)
    kinds = [str(field.type) for field in parquet.read_table(tmp_path / "empty.parquet").schema]
    assert kinds == ["string", "int64", "double"]
    assert csv_text(columns) == "image,pixels,size\n"
    write_parquet(tmp_path / "name.parquet", [Column("image", str, ["a\udcff.png", None])])
    values = parquet.read_table(tmp_path / "name.parquet").column("image").to_pylist()
    assert values == ["a\\udcff.png", None]


def test_parquet_needs_a_folder_and_its_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UsageError, match=r"expected a folder for the tables, found no --out\. Add --out FOLDER"):
        pixelwise.measure(tmp_path, overrides=PARQUET)
    with pytest.raises(ConfigError, match=r"measure\.parquets"):
        pixelwise.measure(tmp_path, out=tmp_path / "sizes", overrides=["measure.parquets=true"])
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(UsageError, match=r"pip install 'pixelwise\[tables\]'"):
        pixelwise.measure(tmp_path, out=tmp_path / "sizes", overrides=PARQUET)
    assert not (tmp_path / "sizes").exists()
