"""Charts put numbers where they belong."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pixelwise.reporting.charts import WIDTH, Axis, Line, Mark, bar, frame, nice_axis, whisker

UNIT = Axis("share", 0, 1, (0, 0.5, 1))


def test_a_whisker_stands_at_its_value():
    drawn = whisker(0.25, 0.2, 0.4, "quarter", reference=0.9)
    assert '<circle cx="25.00%"' in drawn
    assert 'x1="20.00%" x2="40.00%"' in drawn
    assert 'x1="90.00%" x2="90.00%"' in drawn
    assert 'aria-label="quarter"' in drawn


def test_nothing_to_draw_leaves_the_track():
    drawn = whisker(None, None, None, "undefined")
    assert "circle" not in drawn
    assert "interval" not in drawn
    assert "track" in drawn
    assert 'class="bar"' not in bar(None, "none")


def test_bars_are_shares_of_the_longest():
    assert 'width="50.00%"' in bar(0.2, "half", top=0.4)
    assert 'width="100.00%"' in bar(3, "too long", top=1)


@given(st.lists(st.floats(-1e9, 1e9, allow_subnormal=False), min_size=1, max_size=20), st.booleans())
def test_an_axis_holds_its_values_with_few_even_ticks(values, zero):
    axis = nice_axis("x", values, zero=zero)
    slack = 1e-6 * max(abs(axis.low), abs(axis.high))
    assert axis.low - slack <= min(values)
    assert max(values) <= axis.high + slack
    assert 2 <= len(axis.ticks) <= 9
    steps = [b - a for a, b in zip(axis.ticks, axis.ticks[1:], strict=False)]
    assert max(steps) == pytest.approx(min(steps), rel=1e-3)


def test_lines_run_through_their_points():
    drawn = frame(UNIT, UNIT, [Line([(0, 0), (1, 1)], dots=(3,), told=["start", "end"])], "diagonal", height=240)
    (points,) = re.findall(r'polyline points="([^"]*)"', drawn)
    (x0, y0), (x1, y1) = (tuple(map(float, place.split(","))) for place in points.split())
    assert x0 < x1 <= WIDTH
    assert 0 <= y1 < y0 <= 240
    assert "<title>end</title>" in drawn


def test_points_that_are_no_numbers_are_left_out():
    drawn = frame(UNIT, UNIT, [Line([(0, 0), (0.5, float("nan")), (1, float("inf"))])], "broken")
    assert "nan" not in drawn
    assert "inf" not in drawn


@given(st.floats(0, 1), st.floats(0, 1), st.text(st.characters(categories=["L"]), min_size=1, max_size=60))
def test_labels_stay_inside(x, y, text):
    drawn = frame(UNIT, UNIT, [], "label", [Mark(x, y, text)])
    place, anchor = re.findall(r'<text x="([0-9.]+)" y="[0-9.]+" text-anchor="(\w+)" class="label"', drawn)[0]
    width = 6.2 * min(len(text), 40)
    assert float(place) - (width if anchor == "end" else 0) >= 0
    assert float(place) + (width if anchor == "start" else 0) <= WIDTH
