"""Geometry of the line charts that `macros.html` draws as SVG.

Charts have a fixed width of 360 units, the width of a phone, so that their text stays readable there.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from pixelwise.reporting.rendering import shortened

# Approximate width of a character at a font size of 11 units.
_CHARACTER = 6.2
Point = tuple[float, float]


def _general(value: float) -> str:
    return f"{value:g}"


@dataclass(frozen=True)
class Axis:
    """An axis of a chart.

    Args:
        name: title with the unit.
        low, high: its ends.
        ticks: positions of the tick labels.
        form: formats a tick label.
    """

    name: str
    low: float
    high: float
    ticks: tuple[float, ...]
    form: Callable[[float], str] = _general

    @classmethod
    def fitting(
        cls, name: str, values: Sequence[float], form: Callable[[float], str] = _general, zero: bool = True
    ) -> Axis:
        """Return an axis that covers the values, with ticks at 1, 2 or 5 times a power of ten.

        Args:
            name: title with the unit.
            values: values to cover.
            form: formats a tick label.
            zero: whether the axis includes 0.
        """
        finite = [v for v in values if math.isfinite(v)] or [0.0, 1.0]
        low = min(*finite, 0.0) if zero else min(finite)
        high = max(finite)
        span = high - low or abs(high) or 1.0
        step = 10.0 ** math.floor(math.log10(span / 4))
        step *= next(m for m in (1, 2, 5, 10) if span / (step * m) <= 5)
        first = math.floor(low / step + 1e-9)
        last = max(math.ceil(high / step - 1e-9), first + 1)
        ticks = tuple(i * step for i in range(first, last + 1))
        return cls(name, ticks[0], ticks[-1], ticks, form)


@dataclass(frozen=True)
class Line:
    """A series of points.

    Args:
        points: (x, y) in the units of the axes.
        kind: style: "first", "second", "faint" or "guide".
        joined: whether the points are joined by a line.
        radii: radius of each point, or one for all; no points are drawn if empty.
        tooltips: tooltip of each point.
    """

    points: Sequence[Point]
    kind: str = "first"
    joined: bool = True
    radii: Sequence[float] = ()
    tooltips: Sequence[str] = ()


@dataclass(frozen=True)
class Mark:
    """A text label at a position."""

    x: float
    y: float
    text: str


@dataclass(frozen=True)
class Chart:
    """A line chart.

    Args:
        label: description for screen readers.
        x, y: horizontal and vertical axis.
        lines: series, drawn in this order.
        marks: labels.
        height: height in units.
    """

    label: str
    x: Axis
    y: Axis
    lines: Sequence[Line]
    marks: Sequence[Mark] = ()
    height: int = 240
    width = 360
    left = 42
    right = 346
    top = 28

    @property
    def bottom(self) -> int:
        """The vertical position of the horizontal axis."""
        return self.height - 40

    def px(self, value: float) -> float:
        """Return the horizontal position of a value."""
        share = (value - self.x.low) / (self.x.high - self.x.low or 1.0)
        return round(self.left + (self.right - self.left) * share, 2)

    def py(self, value: float) -> float:
        """Return the vertical position of a value."""
        share = (value - self.y.low) / (self.y.high - self.y.low or 1.0)
        return round(self.bottom - (self.bottom - self.top) * share, 2)

    def positions(self, line: Line) -> list[Point]:
        """Return the positions of the finite points of a line."""
        return [(self.px(a), self.py(b)) for a, b in line.points if math.isfinite(a) and math.isfinite(b)]

    def dots(self, line: Line) -> list[tuple[float, float, float, str]]:
        """Return position, radius and tooltip of each dot of a line."""
        positions = self.positions(line)
        radii = list(line.radii) * (len(positions) if len(line.radii) == 1 else 1)
        tooltips = [*line.tooltips, *[""] * len(positions)]
        return [(x, y, round(r, 2), t) for (x, y), r, t in zip(positions, radii, tooltips, strict=False)]

    def labels(self) -> list[tuple[float, float, str, str]]:
        """Return position, anchor and text of each mark, placed where there is room."""
        out = []
        for mark in self.marks:
            x, y, text = self.px(mark.x), self.py(mark.y), shortened(mark.text, 40)
            width = _CHARACTER * len(text)
            fits_right = x + 8 + width <= self.width - 2
            left, anchor = (x + 8, "start") if fits_right else (max(x - 4, width + 2), "end")
            out.append((round(left, 2), round(y - 8 if y > self.top + 6 else y + 16, 2), anchor, text))
        return out
