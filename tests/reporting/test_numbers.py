"""Formatting of numbers."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pixelwise.reporting.numbers import count, decimal, interval, percent, plural, short
from pixelwise.reporting.results import Value

THIN = "\u202f"


@pytest.mark.parametrize(
    ("number", "text"),
    [(0, "0"), (987, "987"), (1000, "1.00k"), (12_345, "12.3k"), (123_456, "123k"), (999_999, "1.00M"), (4.56e6, "4.56M"), (2e9, "2.00G")],
)  # fmt: skip
def test_short_counts_have_three_digits(number, text):
    assert short(number) == text


@given(st.integers(1, 10**12))
def test_short_counts_are_accurate_to_half_a_percent(number):
    text = short(number)
    scale = {"k": 1e3, "M": 1e6, "G": 1e9}.get(text[-1], 1)
    assert float(text.rstrip("kMG")) * scale == pytest.approx(number, rel=0.0051)


@pytest.mark.parametrize(
    ("share", "text"),
    [(0, "0"), (1, "100"), (0.5, "50"), (0.031, "3.1"), (0.03, "3"), (0.0996, "10"), (0.9961, "99.6"), (0.570, "57")],
)
def test_percent(share, text):
    assert percent(share) == f"{text}{THIN}%"


def test_only_exact_values_are_shown_as_0_and_100_percent():
    assert percent(0.0001) == f"<\u20090.1{THIN}%"
    assert percent(0.99999) == f">\u200999.9{THIN}%"
    assert percent(None) == "–"


def test_counts_and_plurals():
    assert count(1234567) == f"1{THIN}234{THIN}567"
    assert plural(1, "image") == "1\u00a0image"
    assert plural(2, "class") == "2\u00a0classes"


def test_lengths_are_not_formatted_as_shares():
    assert decimal(0.12345, "iou") == "0.123"
    assert decimal(60.2078, "hausdorff") == "60.2"
    assert decimal(2.7008, "hausdorff") == "2.701"


def test_intervals():
    assert interval(Value("iou", 0.5, 0.25, 0.75, 3)) == "0.250–0.750"
    assert interval(Value("iou", 0.5, None, 0.75, 3)) == ""
