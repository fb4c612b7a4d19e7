"""The figures in docs/results.md are those that follow from the committed measurements."""

import pytest
from benchmarks import report


def test_the_page_shows_what_was_measured() -> None:
    page = report.PAGE.read_text(encoding="utf-8")
    assert report.filled(page) == page


def test_a_changed_figure_is_put_right() -> None:
    page = report.PAGE.read_text(encoding="utf-8")
    assert report.filled(page.replace("| camvid |", "| forged |")) == page


def test_a_page_without_marks_is_refused() -> None:
    with pytest.raises(SystemExit, match="expected one mark"):
        report.filled("no marks")
