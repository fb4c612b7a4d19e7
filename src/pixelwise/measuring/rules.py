"""Verdicts on images by rules: pass, review or reject, from the sizes of classes and regions; and demerit points.

rules:
- class: crack
longest_axis: {review: "> 2 mm", reject: "> 5 mm"}
- class: pinhole
count: {reject: "> 10"}
points:
classes:
- class: stain
longest_axis: {3 in: 1, 6 in: 2, 9 in: 3, more: 4}
most: {points: 4, per: 1 yd}
per: 100 yd²
reject: "> 40"
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from pixelwise.errors import ConfigError
from pixelwise.measuring.physical_units import UNITS, converted, parse_size
from pixelwise.measuring.regions import SMALLEST_CONTOUR
from pixelwise.types import Measurement, Region

Outcome = Literal["pass", "review", "reject"]
OUTCOMES: tuple[Outcome, ...] = ("pass", "review", "reject")
# Measures of single regions, with what they are in two and three dimensions.
OF_REGIONS = {
    "area": ("area", "square pixels"),
    "volume": ("volume", "voxels"),
    "perimeter": ("length", "pixels"),
    "longest_axis": ("length", "pixels"),
    "length": ("length", "pixels"),
    "width": ("length", "pixels"),
    "surface": ("area", "square pixels"),
    "distance": ("length",),
    "confidence": ("share", "number"),
}
OF_IMAGES = {
    "total_area": ("area", "square pixels"),
    "total_volume": ("volume", "voxels"),
    "share": ("share", "number"),
    "count": ("number", "number"),
}
ALL_IMAGES = "all images"
_LIMIT = re.compile(r"\s*([<>])\s*(.+)")
_SHOWN = 5
# Regions of so many pixels have these, except where they are too large to be traced.
_ALWAYS = ("perimeter", "longest_axis")


@dataclass(frozen=True)
class Limit:
    """A value that must not be exceeded, or not be undercut.

    Args:
        above: whether larger values violate it; otherwise smaller ones do.
        value: in `unit`.
        unit: see `physical_units.UNITS`.
    """

    above: bool
    value: float
    unit: str

    def __str__(self) -> str:
        """Return the text it was read from."""
        return f"{'>' if self.above else '<'} {self.value:g} {self.unit}".rstrip()

    def violated_by(self, size: Measurement, where: str) -> bool:
        """Whether a size violates the limit.

        Raises:
            ConfigError: a size in another kind of unit, such as pixels.
        """
        value = in_unit(size, self.unit, where)
        return value > self.value if self.above else value < self.value


@dataclass(frozen=True)
class Rule:
    """Limits of one measure of a class; `review` or `reject` may be missing."""

    class_name: str
    measure: str
    review: Limit | None
    reject: Limit | None


@dataclass(frozen=True)
class PointTable:
    """Points for each region of a class, by a measure.

    Args:
        class_name: the class.
        measure: of the region.
        steps: (limit, unit, points), ascending; a region gets the points of the first limit that it does not exceed.
        more: points beyond the last limit.
    """

    class_name: str
    measure: str
    steps: tuple[tuple[float, str, float], ...]
    more: float

    def points(self, size: Measurement, where: str) -> float:
        """Return the points for a size."""
        for limit, unit, points in self.steps:
            if in_unit(size, unit, where) <= limit:
                return points
        return self.more


@dataclass(frozen=True)
class Score:
    """Demerit points, related to the area that was inspected.

    Args:
        tables: points by class.
        most: largest sum of points in a stretch of the image; None for no limit.
        stretch: (length, unit) of such a stretch, along the rows' direction of progress: from the top to the bottom.
        per: (area, unit) that the points are related to.
        overall: whether all images are one piece, such as a roll, with one verdict.
        review, reject: limits of the related points.
    """

    tables: tuple[PointTable, ...]
    most: float | None
    stretch: tuple[float, str]
    per: tuple[float, str]
    overall: bool
    review: Limit | None
    reject: Limit | None


@dataclass(frozen=True)
class Inspected:
    """What is known about one image.

    Args:
        image: its name.
        classes: per class name: share of the pixels, 0…1, and total size.
        regions: its regions.
        area: of all pixels with a class.
        height: of a row of pixels, in the middle of the image.
    """

    image: str
    classes: Mapping[str, tuple[float, Measurement]]
    regions: Sequence[Region]
    area: Measurement
    height: Measurement


@dataclass(frozen=True)
class Verdict:
    """The verdict on an image.

    Args:
        image: its name; `ALL_IMAGES` for a score over all.
        outcome: pass, review or reject.
        reasons: which limits were violated, by what; the score.
        points: demerit points per unit of area; None without a score.
    """

    image: str
    outcome: Outcome
    reasons: tuple[str, ...]
    points: float | None = None


@dataclass(frozen=True)
class Rules:
    """Rules for images of some classes."""

    rules: tuple[Rule, ...]
    score: Score | None

    @classmethod
    def from_dict(cls, plain: Any, classes: Sequence[str], where: str = "measure.rules") -> Rules:
        """Read rules.

        Args:
            plain: a mapping with `rules`, `points` or both.
            classes: the names that may occur.
            where: for messages.

        Raises:
            ConfigError: an unknown key, class, measure or unit, or no rules.
        """
        if not isinstance(plain, Mapping) or not plain or set(plain) - {"rules", "points"}:
            raise _invalid(where, "a mapping with `rules`, `points` or both", plain)
        entries = plain.get("rules", [])
        if not isinstance(entries, list):
            raise _invalid(f"{where}: rules", "a list", entries)
        rules = [rule for n, entry in enumerate(entries, 1) for rule in _rules(entry, classes, f"{where}: rule {n}")]
        points = plain.get("points")
        return cls(tuple(rules), None if points is None else _score(points, classes, f"{where}: points"))

    def verdicts(self, images: Sequence[Inspected]) -> list[Verdict]:
        """Return the verdict on each image, and on all of them if their points are added up.

        Raises:
            ConfigError: a limit in a unit that the images do not have.
        """
        found = [self._verdict(image) for image in images]
        if self.score is not None and self.score.overall and images:
            score = self.score
            total = sum(_points(score, image) for image in images)
            area = sum(in_unit(image.area, score.per[1], f"points: {image.image}") for image in images)
            missing = [f"{image.image}: {text}" for image in images for text in _without_points(score, image)]
            found.append(_judged(ALL_IMAGES, [], missing, score, total / area * score.per[0]))
        return found

    def _verdict(self, image: Inspected) -> Verdict:
        """Return the verdict on one image."""
        reasons: dict[Outcome, list[str]] = {"review": [], "reject": []}
        for rule in self.rules:
            reasons["review"] += _unmeasured(rule.class_name, rule.measure, image)
            for name, size in _sizes(rule, image):
                outcome, limit = _violated(rule, size, f"{rule.class_name}: {rule.measure}")
                if outcome is not None:
                    reasons[outcome].append(f"{name}: {rule.measure} {_text(size)} {limit}")
        score = self.score
        if score is not None:
            reasons["review"] += _without_points(score, image)
        if score is None or score.overall:
            return _judged(image.image, reasons["reject"], reasons["review"], None, None)
        area = in_unit(image.area, score.per[1], f"points: {image.image}")
        return _judged(
            image.image, reasons["reject"], reasons["review"], score, _points(score, image) / area * score.per[0]
        )


def in_unit(size: Measurement, unit: str, where: str) -> float:
    """Return a size in another unit.

    Raises:
        ConfigError: they measure different things, such as pixels and millimetres.
    """
    value = converted(size.value, size.unit, unit)
    if value is None:
        pixels = size.unit in ("px", "px²", "voxels")
        do = (
            "Add the distance between pixels, such as --spacing 0.21mm, or write the limit in pixels."
            if pixels
            else "Change the unit."
        )
        raise ConfigError(f"measure.rules: {where}", expected=f"a size in {unit or 'numbers'}", found=size.unit, do=do)
    return value


def _violated(rule: Rule, size: Measurement, where: str) -> tuple[Outcome | None, Limit | None]:
    if rule.reject is not None and rule.reject.violated_by(size, where):
        return "reject", rule.reject
    if rule.review is not None and rule.review.violated_by(size, where):
        return "review", rule.review
    return None, None


def _sizes(rule: Rule, image: Inspected) -> list[tuple[str, Measurement]]:
    """Return the sizes that a rule is about, with the names of what has them."""
    if rule.class_name not in image.classes:
        return []
    share, total = image.classes[rule.class_name]
    regions = [region for region in image.regions if region.class_name == rule.class_name]
    if rule.measure == "count":
        return [(rule.class_name, Measurement(len(regions), "", "regions"))]
    if rule.measure == "share":
        return [(rule.class_name, Measurement(100 * share, "%", total.estimator))]
    if rule.measure in OF_IMAGES:
        return [(rule.class_name, total)]
    named = [(f"{region.class_name} (region {region.number})", _of_region(region, rule.measure)) for region in regions]
    return [(name, size) for name, size in named if size is not None]


def _without_points(score: Score, image: Inspected) -> list[str]:
    """Return the regions that get no points since they lack the measure."""
    return [text for table in score.tables for text in _unmeasured(table.class_name, table.measure, image)]


def _unmeasured(class_name: str, measure: str, image: Inspected) -> list[str]:
    """Return the regions that lack a measure although every region of their size has it."""
    return [
        f"{region.class_name} (region {region.number}): no {measure}"
        for region in image.regions
        if measure in _ALWAYS and region.class_name == class_name
        if measure not in region.measurements and region.pixels >= SMALLEST_CONTOUR
    ]


def _of_region(region: Region, measure: str) -> Measurement | None:
    if measure == "confidence":
        return None if region.confidence is None else Measurement(100 * region.confidence, "%", "mean confidence")
    return region.measurements.get(measure)


def _points(score: Score, image: Inspected) -> float:
    """Return the points of an image, with no more than allowed in each stretch."""
    height = in_unit(image.height, score.stretch[1], f"points: {image.image}") / score.stretch[0]
    stretches: dict[int, float] = {}
    for table in score.tables:
        for region in image.regions:
            size = _of_region(region, table.measure) if region.class_name == table.class_name else None
            if size is not None:
                at = math.floor(region.centroid[0] * height)
                points = table.points(size, f"{table.class_name}: {table.measure}")
                stretches[at] = stretches.get(at, 0.0) + points
    most = math.inf if score.most is None else score.most
    return sum(min(points, most) for points in stretches.values())


def _judged(
    image: str, reject: Sequence[str], review: Sequence[str], score: Score | None, points: float | None
) -> Verdict:
    """Return a verdict from the limits that were violated and the points."""
    outcome: Outcome = "reject" if reject else "review" if review else "pass"
    reasons = [*reject, *review]
    if len(reasons) > _SHOWN:
        reasons = [*reasons[:_SHOWN], f"{len(reasons) - _SHOWN} more"]
    if score is not None and points is not None:
        reasons.append(f"{points:.1f} points per {score.per[0]:g} {score.per[1]}")
        limits = Rule("", "points", score.review, score.reject)
        by_points, limit = _violated(limits, Measurement(points, "", "points"), "points")
        if by_points is not None:
            reasons[-1] += f" {limit}"
            outcome = max(outcome, by_points, key=OUTCOMES.index)
    return Verdict(image, outcome, tuple(reasons), points)


def _text(size: Measurement) -> str:
    return f"{size.value:.4g} {size.unit}".rstrip()


# Reading --------------------------------------------------------------------------------------------------------------


def _rules(entry: Any, classes: Sequence[str], where: str) -> list[Rule]:
    """Return the rules of an entry, one for each of its measures."""
    name = _class_of(entry, classes, where)
    known = {**OF_REGIONS, **OF_IMAGES}
    measures = {key: value for key, value in entry.items() if key != "class"}
    if not measures or set(measures) - set(known):
        raise _invalid(where, f"one or more of {', '.join(known)}", ", ".join(map(str, measures)) or "none of them")
    return [
        Rule(name, measure, *_limits(limits, known[measure], f"{where}: {measure}"))
        for measure, limits in measures.items()
    ]


def _class_of(entry: Any, classes: Sequence[str], where: str) -> str:
    if not isinstance(entry, Mapping) or "class" not in entry:
        raise _invalid(where, "a mapping with `class`", entry)
    if entry["class"] not in classes:
        raise _invalid(f"{where}: class", f"one of {', '.join(classes)}", entry["class"])
    return str(entry["class"])


def _limits(plain: Any, kinds: Sequence[str], where: str) -> tuple[Limit | None, Limit | None]:
    """Return the limits `review` and `reject` of a mapping."""
    if not isinstance(plain, Mapping) or not plain or set(plain) - {"review", "reject"}:
        raise _invalid(where, '`review`, `reject` or both, such as {reject: "> 5 mm"}', plain)
    return _limit(plain.get("review"), kinds, where), _limit(plain.get("reject"), kinds, where)


def _limit(text: Any, kinds: Sequence[str], where: str) -> Limit | None:
    if text is None:
        return None
    found = _LIMIT.fullmatch(text) if isinstance(text, str) else None
    size = None if found is None else parse_size(found[2])
    if found is None or size is None or UNITS[size[1]][0] not in kinds:
        units = [unit for unit, (kind, _) in UNITS.items() if kind in kinds and unit]
        expected = f'"> 5" or "< 5"{" with a unit: " + ", ".join(units) if units else ""}'
        raise _invalid(where, expected, text)
    value, unit = size
    return (
        Limit(found[1] == ">", 100 * value, "%")
        if (unit, kinds[0]) == ("", "share")
        else Limit(found[1] == ">", value, unit)
    )


def _score(plain: Any, classes: Sequence[str], where: str) -> Score:
    """Return the score that a mapping describes."""
    keys = {"classes", "most", "per", "of", "review", "reject"}
    if not isinstance(plain, Mapping) or set(plain) - keys or not isinstance(plain.get("classes"), list):
        raise _invalid(where, "`classes`, a list, and `per`; optional: `most`, `of`, `review`, `reject`", plain)
    of = plain.get("of", "image")
    if of not in ("image", "all"):
        raise _invalid(f"{where}: of", "image or all", of)
    most, stretch = _most(plain.get("most"), f"{where}: most")
    per = parse_size(str(plain.get("per")))
    if per is None or UNITS[per[1]][0] not in ("area", "square pixels") or per[0] <= 0:
        raise _invalid(f"{where}: per", "an area, such as 100 yd²", plain.get("per"))
    limits = [_limit(plain.get(name), ("number",), f"{where}: {name}") for name in ("review", "reject")]
    tables = [
        table for n, entry in enumerate(plain["classes"], 1) for table in _tables(entry, classes, f"{where}: class {n}")
    ]
    return Score(tuple(tables), most, stretch, per, of == "all", *limits)


def _most(plain: Any, where: str) -> tuple[float | None, tuple[float, str]]:
    """Return the most points in a stretch, and its length."""
    if plain is None:
        return None, (1.0, "m")
    stretch = (
        parse_size(str(plain.get("per"))) if isinstance(plain, Mapping) and set(plain) == {"points", "per"} else None
    )
    if stretch is None or UNITS[stretch[1]][0] not in ("length", "pixels") or not _is_number(plain["points"]):
        raise _invalid(where, "{points: 4, per: 1 yd}", plain)
    return float(plain["points"]), stretch


def _tables(entry: Any, classes: Sequence[str], where: str) -> list[PointTable]:
    """Return the tables of points of an entry, one for each of its measures."""
    name = _class_of(entry, classes, where)
    measures = {key: value for key, value in entry.items() if key != "class"}
    if not measures or set(measures) - set(OF_REGIONS):
        raise _invalid(
            where, f"one or more of {', '.join(OF_REGIONS)}", ", ".join(map(str, measures)) or "none of them"
        )
    return [_table(name, measure, plain, f"{where}: {measure}") for measure, plain in measures.items()]


def _table(name: str, measure: str, plain: Any, where: str) -> PointTable:
    expected = "limits with their points, such as {3 in: 1, 6 in: 2, more: 4}"
    if not isinstance(plain, Mapping) or "more" not in plain or not all(map(_is_number, plain.values())):
        raise _invalid(where, expected, plain)
    steps = []
    for text, points in plain.items():
        if text != "more":
            size = parse_size(str(text))
            if size is None or UNITS[size[1]][0] not in OF_REGIONS[measure]:
                raise _invalid(where, expected, text)
            steps.append((*size, float(points)))
    return PointTable(
        name, measure, tuple(sorted(steps, key=lambda step: step[0] * UNITS[step[1]][1])), float(plain["more"])
    )


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value) and value >= 0


def _invalid(where: str, expected: str, found: Any) -> ConfigError:
    return ConfigError(where, expected=expected, found=str(found)[:120], do="See docs/measure.md, Rules.")
