"""Verdicts by rules, and demerit points, on regions made by hand."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from pixelwise.errors import ConfigError
from pixelwise.measuring.physical_units import converted, parse_size
from pixelwise.measuring.rules import ALL_IMAGES, Inspected, Rules
from pixelwise.tiles import Window
from pixelwise.types import Measurement, Region

CLASSES = ("cloth", "stain", "hole")
# ASTM D5430, option of the four-point system.
FOUR_POINTS = {
    "points": {
        "classes": [
            {"class": "stain", "longest_axis": {"3 in": 1, "6 in": 2, "9 in": 3, "more": 4}},
            {"class": "hole", "longest_axis": {"1 in": 2, "more": 4}},
        ],
        "most": {"points": 4, "per": "1 yd"},
        "per": "100 yd²",
        "of": "all",
        "review": "> 28",
        "reject": "> 40",
    }
}


def region(
    number: int, name: str, inches: float, row: float, unit: str = "mm", confidence: float | None = None
) -> Region:
    factor = 25.4 if unit == "mm" else 1.0
    sizes = {
        "area": Measurement(4.0 * factor**2, f"{unit}²", "pixel count"),
        "longest_axis": Measurement(inches * factor, unit, "largest distance"),
    }
    box = Window((int(row), 0), (int(row) + 1, 1))
    index = CLASSES.index(name)
    return Region("a", number, index, name, 40, box, (row, 5.0), None, False, 0, confidence, sizes)


def image(*regions: Region, name: str = "a", square_yards: float = 5.0, unit: str = "mm") -> Inspected:
    """An image with rows of one inch."""
    factor = 25.4 if unit == "mm" else 1.0
    area = Measurement(square_yards * 36**2 * factor**2, f"{unit}²", "pixel count")
    classes = {each: (0.25, Measurement(100.0 * factor**2, f"{unit}²", "pixel count")) for each in CLASSES}
    return Inspected(name, classes, regions, area, Measurement(factor, unit, "spacing"))


def outcome(plain: Any, *images: Inspected) -> list[tuple[str, str]]:
    return [(each.image, each.outcome) for each in Rules.from_dict(plain, CLASSES).verdicts(images)]


def test_the_four_point_system_by_hand() -> None:
    # 1 + 2 + 3 + 4 points in different yards; then 2 + 4 points in one yard, of which 4 count: 14 points on 5 + 5 square yards.
    first = image(
        region(1, "stain", 3, 0), region(2, "stain", 6, 40), region(3, "stain", 9, 80), region(4, "stain", 9.1, 120)
    )
    second = image(region(1, "hole", 1, 10), region(2, "hole", 1.1, 30), name="b")
    (only,) = [
        each for each in Rules.from_dict(FOUR_POINTS, CLASSES).verdicts([first, second]) if each.image == ALL_IMAGES
    ]
    assert only.points == pytest.approx(14 / 10 * 100)
    assert only.outcome == "reject"
    assert only.reasons == ("140.0 points per 100 yd² > 40",)
    assert outcome(FOUR_POINTS, image(region(1, "stain", 1, 0), square_yards=2.0))[-1] == (ALL_IMAGES, "reject")
    assert outcome(FOUR_POINTS, image(region(1, "stain", 1, 0), square_yards=3.0))[-1] == (ALL_IMAGES, "review")
    assert outcome(FOUR_POINTS, image(region(1, "stain", 1, 0), square_yards=4.0))[-1] == (ALL_IMAGES, "pass")
    each_image = {"points": FOUR_POINTS["points"] | {"of": "image"}}
    assert outcome(each_image, first, image(name="c")) == [("a", "reject"), ("c", "pass")]


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        ({"class": "stain", "longest_axis": {"review": "> 5 cm", "reject": "> 10 cm"}}, "review"),
        ({"class": "stain", "longest_axis": {"review": "> 5 cm", "reject": "> 70 mm"}}, "reject"),
        ({"class": "stain", "longest_axis": {"reject": "> 76.3 mm"}}, "pass"),
        ({"class": "hole", "longest_axis": {"reject": "> 1 mm"}}, "pass"),
        ({"class": "stain", "area": {"reject": "> 4.1 in^2"}}, "pass"),
        ({"class": "stain", "area": {"reject": "> 3.9 in2"}}, "reject"),
        ({"class": "stain", "count": {"reject": "> 1"}}, "reject"),
        ({"class": "stain", "count": {"reject": "< 1"}}, "pass"),
        ({"class": "hole", "count": {"review": "< 1"}}, "review"),
        ({"class": "stain", "share": {"reject": "> 20 %"}}, "reject"),
        ({"class": "stain", "share": {"reject": "> 0.3"}}, "pass"),
        ({"class": "stain", "total_area": {"reject": "> 99 in²"}}, "reject"),
        ({"class": "stain", "confidence": {"review": "< 50 %"}}, "review"),
        ({"class": "stain", "confidence": {"review": "< 0.3"}}, "pass"),
        ({"class": "stain", "width": {"reject": "> 1 mm"}}, "pass"),
        ({"class": "stain", "perimeter": {"reject": "> 1 m"}}, "review"),
    ],
)
def test_limits(rule: dict[str, Any], expected: str) -> None:
    two = image(region(1, "stain", 3, 0, confidence=0.4), region(2, "stain", 1, 9))
    assert outcome({"rules": [rule]}, two) == [("a", expected)]


def test_a_region_without_the_measure_of_a_table_is_reviewed() -> None:
    large = replace(region(1, "stain", 3, 0), measurements={"area": Measurement(4e6, "mm²", "pixel count")})
    assert outcome(FOUR_POINTS, image(large)) == [("a", "review"), (ALL_IMAGES, "review")]
    (_, whole) = Rules.from_dict(FOUR_POINTS, CLASSES).verdicts([image(large)])
    assert whole.reasons == ("a: stain (region 1): no longest_axis", "0.0 points per 100 yd²")


def test_reasons_name_the_region_its_size_and_the_limit() -> None:
    rules = {"rules": [{"class": "stain", "longest_axis": {"reject": "> 2 cm"}}]}
    (verdict,) = Rules.from_dict(rules, CLASSES).verdicts([image(region(7, "stain", 3, 0))])
    assert verdict.reasons == ("stain (region 7): longest_axis 76.2 mm > 2 cm",)
    many = image(*(region(n, "stain", 3, n) for n in range(9)))
    (verdict,) = Rules.from_dict(rules, CLASSES).verdicts([many])
    assert verdict.reasons[-1] == "4 more"


def test_limits_in_millimetres_need_a_unit() -> None:
    rules = {"rules": [{"class": "stain", "longest_axis": {"reject": "> 2 cm"}}]}
    with pytest.raises(ConfigError, match=r"expected a size in cm, found px\. Add the distance between pixels"):
        outcome(rules, image(region(1, "stain", 3, 0, unit="px"), unit="px"))
    in_pixels = {"rules": [{"class": "stain", "longest_axis": {"reject": "> 2 px"}}]}
    assert outcome(in_pixels, image(region(1, "stain", 3, 0, unit="px"), unit="px")) == [("a", "reject")]


@pytest.mark.parametrize(
    ("plain", "message"),
    [
        ([], "expected a mapping with `rules`, `points` or both"),
        ({"rule": []}, "expected a mapping with `rules`"),
        (
            {"rules": [{"class": "scratch", "count": {"reject": "> 1"}}]},
            "rule 1: class: expected one of cloth, stain, hole",
        ),
        ({"rules": [{"class": "stain"}]}, "rule 1: expected one or more of area"),
        ({"rules": [{"class": "stain", "girth": {"reject": "> 1"}}]}, "found girth"),
        ({"rules": [{"class": "stain", "area": {"reject": "> 1 mm"}}]}, "rule 1: area: expected"),
        ({"rules": [{"class": "stain", "area": {"reject": "1 mm²"}}]}, "rule 1: area: expected"),
        ({"rules": [{"class": "stain", "area": {"fail": "> 1 mm²"}}]}, "`review`, `reject` or both"),
        ({"rules": [{"class": "stain", "count": {"reject": 3}}]}, "rule 1: count: expected"),
        ({"points": {"classes": [], "per": "3 m"}}, "per: expected an area"),
        ({"points": {"classes": [{"class": "hole", "area": {"1 mm²": 1}}], "per": "1 m²"}}, "limits with their points"),
        ({"points": {"classes": [], "per": "1 m²", "most": {"points": 4}}}, "most: expected"),
        ({"points": {"classes": [], "per": "1 m²", "of": "roll"}}, "of: expected image or all"),
    ],
)
def test_what_is_wrong_is_named(plain: Any, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Rules.from_dict(plain, CLASSES)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2mm", (2, "mm")),
        ("1.5 cm^2", (1.5, "cm²")),
        ("3m3", (3, "m³")),
        ("5 %", (5, "%")),
        ("7", (7, "")),
        ("1 ha", (1, "ha")),
    ],
)
def test_sizes_in_text(text: str, expected: tuple[float, str]) -> None:
    assert parse_size(text) == expected


def test_conversions() -> None:
    assert converted(1, "in", "mm") == pytest.approx(25.4)
    assert converted(1, "ha", "m²") == pytest.approx(1e4)
    assert converted(1, "l", "ml") == pytest.approx(1000)
    assert converted(1, "cm³", "ml") == pytest.approx(1)
    assert converted(1, "px", "mm") is converted(1, "parsec", "mm") is None
    assert parse_size("2 parsec") is parse_size("-2 mm") is parse_size("") is None
