"""The tables in docs/results.md match the committed measurements."""

import pytest
from benchmarks import report


def test_the_page_matches_the_measurements() -> None:
    page = report.PAGE.read_text(encoding="utf-8")
    assert report.filled(page) == page


def test_edited_tables_are_regenerated() -> None:
    page = report.PAGE.read_text(encoding="utf-8")
    assert report.filled(page.replace("| camvid |", "| edited |")) == page


def test_missing_marks_raise() -> None:
    with pytest.raises(SystemExit, match="expected one mark"):
        report.filled("no marks")
