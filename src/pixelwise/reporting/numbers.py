"""Numbers as people read them, each with its interval, its n and the way to its definition.

Comes in: plain scores. Goes out: texts and `Markup`. Knows nothing of where on a page they stand.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pixelwise.metrics.definitions import DEFINITIONS
from pixelwise.reporting.markup import Markup, join, tag

NOTHING = "–"


@dataclass(frozen=True)
class Value:
    """Hold one score as it stands in `scores.json`: None where undefined."""

    key: str
    value: float | None
    low: float | None
    high: float | None
    n: int | None

    @property
    def bounded(self) -> tuple[float, float] | None:
        """Give both ends of the interval, or None."""
        return None if self.low is None or self.high is None else (self.low, self.high)


def value_of(plain: Mapping[str, Any], key: str) -> Value:
    """Read a score with `_low`, `_high` and `_n`; what is missing or no finite number is None."""
    n = _number(plain.get(f"{key}_n"))
    ends = _number(plain.get(f"{key}_low")), _number(plain.get(f"{key}_high"))
    return Value(key, _number(plain.get(key)), *ends, None if n is None else int(n))


def _number(value: Any) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if math.isfinite(value) else None


def is_share(key: str) -> bool:
    """Tell whether a score lies in 0…1."""
    return key not in DEFINITIONS or DEFINITIONS[key].unit == "share, 0…1"


def decimal(value: float | None, key: str = "") -> str:
    """Write a score: three decimals for shares, three digits for lengths and others."""
    if value is None:
        return NOTHING
    if is_share(key):
        return f"{value:.3f}"
    return f"{value:.3f}" if abs(value) < 10 else f"{value:.1f}" if abs(value) < 1000 else count(round(value))


def interval(value: Value) -> str:
    """Write both ends of an interval, or nothing."""
    if value.bounded is None:
        return ""
    low, high = value.bounded
    return f"{decimal(low, value.key)}–{decimal(high, value.key)}"


def count(number: int | float | None) -> str:
    """Write a whole number, its thousands apart by narrow spaces that do not break."""
    return NOTHING if number is None else f"{round(number):,}".replace(",", "\u202f")


def short(number: float) -> str:
    """Write a count in three digits: 987, 12.3k, 4.56M."""
    size = abs(number)
    for unit, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if size >= unit * 0.9995:
            scaled = number / unit
            return f"{scaled:.{max(0, 2 - len(str(int(abs(scaled)))) + 1)}f}{letter}"
    return f"{number:.0f}"


def percent(share: float | None, digits: int | None = None) -> str:
    """Write a share in percent; small ones with a decimal, none that is not 0 as 0."""
    if share is None:
        return NOTHING
    value = 100 * share
    if digits is None:
        digits = 1 if abs(value) < 9.95 and value != round(value) else 0
    if value and abs(value) < 0.5 * 10**-digits:
        return f"<\u2009{10**-digits:g}\u202f%"
    # What is nearly all is not all.
    if digits == 0 and 99.5 <= value < 100:
        return f"{value:.1f}\u202f%" if value < 99.95 else ">\u200999.9\u202f%"
    return f"{value:.{digits}f}\u202f%"


def plural(number: int, word: str) -> str:
    """Write how many: 1 image, 2 images, 2 classes."""
    many = f"{word}es" if word.endswith("s") else f"{word}s"
    return f"{count(number)}\u00a0{word if number == 1 else many}"


def title_of(key: str) -> str:
    """Name a score."""
    return DEFINITIONS[key].title if key in DEFINITIONS else key.replace("_", " ")


def link(key: str, text: str | None = None) -> Markup:
    """Name a score, and lead to its definition on the same page."""
    shown = text or title_of(key)
    if key not in DEFINITIONS:
        return join(shown)
    return tag("a", shown, href=f"#def-{key}", class_="term")


def cell(value: Value) -> Markup:
    """Show a score in a table: its value, and small beneath it the interval and n."""
    shown = tag("span", decimal(value.value, value.key), class_="v")
    if value.value is None:
        shown = tag("span", NOTHING, class_="v none", title="undefined")
    beneath = [part for part in (interval(value), f"n\u00a0{count(value.n)}" if value.n is not None else "") if part]
    return join(shown, tag("small", " · ".join(beneath)) if beneath else None)
