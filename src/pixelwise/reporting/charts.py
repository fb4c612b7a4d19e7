"""Charts as plain SVG that takes its colours from the page: whiskers and bars in rows, and lines in a frame.

Comes in: numbers and names. Goes out: `Markup`. Knows nothing of scores, runs or where a chart stands.

Rows are as wide as the page lets them be, and so are drawn in percent. Frames have a fixed 360 units of width, the
width of a phone, so that their texts stay readable there.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from pixelwise.reporting.markup import Markup, join, shortened, tag

WIDTH, HEIGHT = 360, 240
_LEFT, _RIGHT, _TOP, _BOTTOM = 42, 14, 28, 40
# About as wide as a character of 11 units.
_CHARACTER = 6.2
Point = tuple[float, float]


def whisker(
    value: float | None,
    low: float | None,
    high: float | None,
    says: str,
    *,
    reference: float | None = None,
    scale: tuple[float, float] = (0.0, 1.0),
) -> Markup:
    """Draw a value as a dot, its interval as a line, and a reference as a small upright, in one row.

    Args:
        value: None where undefined: an empty track.
        low: lower end of the interval; None where there is none.
        high: upper end.
        says: what the row shows, for those who do not see it.
        reference: what to compare with.
        scale: ends of the row.
    """
    place = _percent(scale)
    parts = [tag("line", x1="0%", x2="100%", y1=11, y2=11, class_="track")]
    parts += [tag("line", x1=f"{p}%", x2=f"{p}%", y1=8, y2=14, class_="track") for p in (0, 25, 50, 75, 100)]
    if reference is not None:
        parts.append(tag("line", x1=place(reference), x2=place(reference), y1=3, y2=19, class_="reference"))
    if low is not None and high is not None:
        parts.append(tag("line", x1=place(low), x2=place(high), y1=11, y2=11, class_="interval"))
        parts += [tag("line", x1=place(end), x2=place(end), y1=7, y2=15, class_="end") for end in (low, high)]
    if value is not None:
        parts.append(tag("circle", cx=place(value), cy=11, r=4.5, class_="dot"))
    return tag("svg", parts, class_="row", width="100%", height=22, role="img", aria_label=says)


def bar(share: float | None, says: str, *, top: float = 1.0, kind: str = "bar") -> Markup:
    """Draw a share as a bar in one row; `top` fills it."""
    parts = [tag("rect", x=0, y=4, width="100%", height=14, rx=2, class_="bed")]
    if share:
        width = 100 * min(max(share / top, 0.0), 1.0) if top > 0 else 0.0
        parts.append(tag("rect", x=0, y=4, width=f"{width:.2f}%", height=14, rx=2, class_=kind))
    return tag("svg", parts, class_="row", width="100%", height=22, role="img", aria_label=says)


def _percent(scale: tuple[float, float]) -> Callable[[float], str]:
    low, high = scale
    span = high - low or 1.0
    return lambda value: f"{100 * min(max((value - low) / span, 0.0), 1.0):.2f}%"


@dataclass(frozen=True)
class Axis:
    """Say what an axis shows.

    Args:
        name: with the unit.
        low, high: its ends.
        ticks: where numbers stand.
        form: writes a tick.
    """

    name: str
    low: float
    high: float
    ticks: tuple[float, ...]
    form: Callable[[float], str] = field(default=lambda value: f"{value:g}")


@dataclass(frozen=True)
class Line:
    """Hold what is drawn into a frame: points in its units, joined or not.

    Args:
        points: (x, y).
        name: stands beside the last point; empty for none.
        kind: "first", "second", "faint" or "guide": how it looks.
        joined: draw a line through the points.
        dots: radius of each point, or one for all; none where empty.
        told: what each point says when pointed at.
    """

    points: Sequence[Point]
    name: str = ""
    kind: str = "first"
    joined: bool = True
    dots: Sequence[float] = ()
    told: Sequence[str] = ()


@dataclass(frozen=True)
class Mark:
    """Name a place in a frame."""

    x: float
    y: float
    text: str


def nice_axis(
    name: str, values: Sequence[float], form: Callable[[float], str] | None = None, zero: bool = True
) -> Axis:
    """Make an axis that holds the values, its ticks at 1, 2 or 5 times a power of ten."""
    finite = [v for v in values if math.isfinite(v)] or [0.0, 1.0]
    low, high = min(finite), max(finite)
    low = min(low, 0.0) if zero else low
    span = high - low or abs(high) or 1.0
    step = 10.0 ** math.floor(math.log10(span / 4))
    step *= next(m for m in (1, 2, 5, 10) if span / (step * m) <= 5)
    first, last = math.floor(low / step + 1e-9), max(math.ceil(high / step - 1e-9), math.floor(low / step + 1e-9) + 1)
    ticks = tuple(i * step for i in range(first, last + 1))
    return Axis(name, ticks[0], ticks[-1], ticks, form or (lambda value: f"{value:g}"))


def frame(
    x: Axis, y: Axis, lines: Sequence[Line], says: str, marks: Sequence[Mark] = (), height: int = HEIGHT
) -> Markup:
    """Draw lines in a frame with two axes.

    Args:
        x: the axis from left to right.
        y: the axis upwards.
        lines: drawn in this order.
        says: what is to be seen, for those who do not see it.
        marks: places with a word beside them.
        height: in units; the width is 360.
    """

    def px(value: float) -> float:
        return round(_LEFT + (WIDTH - _LEFT - _RIGHT) * (value - x.low) / (x.high - x.low or 1.0), 2)

    def py(value: float) -> float:
        return round(height - _BOTTOM - (height - _TOP - _BOTTOM) * (value - y.low) / (y.high - y.low or 1.0), 2)

    parts: list[Markup] = [_axes(x, y, px, py, height)]
    parts += [_drawn(line, px, py) for line in lines]
    parts += [_labelled(px(mark.x), py(mark.y), mark.text) for mark in marks]
    box = f"0 0 {WIDTH} {height}"
    return tag("svg", parts, viewBox=box, class_="frame", role="img", aria_label=says)


def _axes(x: Axis, y: Axis, px: Callable[[float], float], py: Callable[[float], float], height: int) -> Markup:
    bottom, right = height - _BOTTOM, WIDTH - _RIGHT
    parts = []
    for tick in y.ticks:
        parts.append(tag("line", x1=_LEFT, x2=right, y1=py(tick), y2=py(tick), class_="grid"))
        parts.append(tag("text", y.form(tick), x=_LEFT - 6, y=py(tick) + 4, text_anchor="end"))
    for tick in x.ticks:
        anchor = "end" if px(tick) > right - 8 else "middle"
        parts.append(tag("text", x.form(tick), x=px(tick), y=bottom + 16, text_anchor=anchor))
    parts.append(tag("line", x1=_LEFT, x2=right, y1=bottom, y2=bottom, class_="axis"))
    parts.append(tag("text", x.name, x=right, y=height - 6, text_anchor="end", class_="name"))
    parts.append(tag("text", y.name, x=0, y=10, class_="name") if y.name else Markup(""))
    return join(parts)


def _drawn(line: Line, px: Callable[[float], float], py: Callable[[float], float]) -> Markup:
    places = [(px(a), py(b)) for a, b in line.points if math.isfinite(a) and math.isfinite(b)]
    if not places:
        return Markup("")
    parts = []
    if line.joined and len(places) > 1:
        parts.append(tag("polyline", points=" ".join(f"{a},{b}" for a, b in places), class_=f"line {line.kind}"))
    radii = list(line.dots) * (len(places) if len(line.dots) == 1 else 1)
    for place, ((a, b), radius) in enumerate(zip(places, radii, strict=False)):
        told = tag("title", line.told[place]) if place < len(line.told) else None
        parts.append(tag("circle", told, cx=a, cy=b, r=round(radius, 2), class_=f"point {line.kind}"))
    if line.name:
        parts.append(_labelled(*places[-1], line.name, f"label {line.kind}"))
    return join(parts)


def _labelled(a: float, b: float, text: str, kind: str = "label") -> Markup:
    """Write beside a place, on the side where there is room."""
    text = shortened(text, 40)
    width = _CHARACTER * len(text)
    fits_right = a + 8 + width <= WIDTH - 2
    x, anchor = (a + 8, "start") if fits_right else (max(a - 4, width + 2), "end")
    y = b - 8 if b > _TOP + 6 else b + 16
    return tag("text", text, x=round(x, 2), y=round(y, 2), text_anchor=anchor, class_=kind)
