"""Charts draw values at the right positions."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pixelwise.reporting.charts import Axis, Chart, Line, Mark
from pixelwise.reporting.rendering import environment
from pixelwise.reporting.results import Value

UNIT = Axis("share", 0, 1, (0, 0.5, 1))


def draw(macro, *arguments):
    return getattr(environment().get_template("macros.html").module, macro)(*arguments)


def test_a_whisker_is_at_its_value():
    drawn = draw("whisker", Value("iou", 0.25, 0.2, 0.4, 3), "quarter", 0.9)
    assert '<circle cx="25.00%"' in drawn
    assert 'x1="20.00%" x2="40.00%"' in drawn
    assert 'x1="90.00%" x2="90.00%"' in drawn
    assert 'aria-label="quarter"' in drawn


def test_an_undefined_score_leaves_the_track():
    drawn = draw("whisker", Value("iou"), "undefined")
    assert "circle" not in drawn
    assert "interval" not in drawn
    assert "track" in drawn
    assert 'class="bar' not in draw("bar", None, "none")


def test_bars_are_relative_to_the_longest():
    assert 'width="50.00%"' in draw("bar", 0.2, "half", 0.4)
    assert 'width="100.00%"' in draw("bar", 3, "too long", 1)


@given(st.lists(st.floats(-1e9, 1e9, allow_subnormal=False), min_size=1, max_size=20), st.booleans())
def test_an_axis_covers_its_values_with_few_even_ticks(values, zero):
    axis = Axis.fitting("x", values, zero=zero)
    slack = 1e-6 * max(abs(axis.low), abs(axis.high))
    assert axis.low - slack <= min(values)
    assert max(values) <= axis.high + slack
    assert 2 <= len(axis.ticks) <= 9
    steps = [b - a for a, b in zip(axis.ticks, axis.ticks[1:], strict=False)]
    assert max(steps) == pytest.approx(min(steps), rel=1e-3)


def test_lines_go_through_their_points():
    drawn = draw(
        "chart", Chart("diagonal", UNIT, UNIT, [Line([(0, 0), (1, 1)], radii=(3,), tooltips=["start", "end"])])
    )
    (points,) = re.findall(r'polyline points="([^"]*)"', drawn)
    (x0, y0), (x1, y1) = (tuple(map(float, place.split(","))) for place in points.split())
    assert x0 < x1 <= Chart.width
    assert 0 <= y1 < y0 <= 240
    assert "<title>end</title>" in drawn


def test_points_that_are_not_finite_are_left_out():
    drawn = draw("chart", Chart("broken", UNIT, UNIT, [Line([(0, 0), (0.5, float("nan")), (1, float("inf"))])]))
    assert "nan" not in drawn
    assert "inf" not in drawn


@given(st.floats(0, 1), st.floats(0, 1), st.text(st.characters(categories=["L"]), min_size=1, max_size=60))
def test_labels_stay_inside(x, y, text):
    drawn = draw("chart", Chart("label", UNIT, UNIT, [], [Mark(x, y, text)]))
    place, anchor = re.findall(r'<text x="([0-9.]+)" y="[0-9.]+" text-anchor="(\w+)" class="label"', drawn)[0]
    width = 6.2 * min(len(text), 40)
    assert float(place) - (width if anchor == "end" else 0) >= 0
    assert float(place) + (width if anchor == "start" else 0) <= Chart.width
