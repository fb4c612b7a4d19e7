"""The benchmark of polygons: both methods on a small mask, and the table."""

from __future__ import annotations

from pathlib import Path

from benchmarks import vectors


def test_the_methods_find_the_same_polygons() -> None:
    rows = vectors.measure(128, 1)
    assert {row["kind"] for row in rows} == set(vectors.KINDS)
    assert all(row["polygons"] > vectors.CLASSES for row in rows)


def test_the_table(tmp_path: Path) -> None:
    assert vectors.table(tmp_path / "none.json") == vectors.NOT_MEASURED
    times = {vectors.OURS: 100.0, vectors.GDAL: 250.0}
    rows = [
        {"method": name, "kind": kind, "polygons": 1234, "ms": ms}
        for name, ms in times.items()
        for kind in vectors.KINDS
    ]
    facts = {"processor": "X", "commit": "a1", "rounds": 7, "side": 4096, "versions": dict.fromkeys(times, "1")}
    vectors.write_json(tmp_path / "a.json", facts | {"rows": rows})
    lines = vectors.table(tmp_path / "a.json").splitlines()
    assert lines[0].startswith("| method | 1,234 smooth polygons, ms | ratio |")
    assert lines[3] == "| rasterio 1 | 250 | 2.5 | 250 | 2.5 |"
