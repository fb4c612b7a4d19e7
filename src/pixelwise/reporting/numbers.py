"""Format scores, counts and shares as text."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pixelwise.metrics.definitions import DEFINITIONS

if TYPE_CHECKING:
    from pixelwise.reporting.results import Value

UNDEFINED = "–"


def is_share(key: str) -> bool:
    """Whether a score ranges over 0…1."""
    return key not in DEFINITIONS or DEFINITIONS[key].unit == "share, 0…1"


def title_of(key: str) -> str:
    """Return the title of a score."""
    return DEFINITIONS[key].title if key in DEFINITIONS else key.replace("_", " ")


def decimal(value: float | None, key: str = "") -> str:
    """Format a score: three decimals for shares, about three digits for other units."""
    if value is None:
        return UNDEFINED
    if is_share(key) or abs(value) < 10:
        return f"{value:.3f}"
    return f"{value:.1f}" if abs(value) < 1000 else count(round(value))


def interval(value: Value) -> str:
    """Format a confidence interval; empty if there is none."""
    if value.low is None or value.high is None:
        return ""
    return f"{decimal(value.low, value.key)}–{decimal(value.high, value.key)}"


def count(number: int | float | None) -> str:
    """Format a whole number with narrow no-break spaces between groups of three digits."""
    return UNDEFINED if number is None else f"{round(number):,}".replace(",", "\u202f")


def short(number: float) -> str:
    """Format a count with three digits: 987, 12.3k, 4.56M."""
    for unit, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(number) >= unit * 0.9995:
            scaled = number / unit
            return f"{scaled:.{max(0, 3 - len(str(int(abs(scaled)))))}f}{letter}"
    return f"{number:.0f}"


def percent(share: float | None, digits: int | None = None) -> str:
    """Format a share in percent; small shares with one decimal. Only exactly 0 and 1 are shown as 0 % and 100 %."""
    if share is None:
        return UNDEFINED
    value = 100 * share
    if digits is None:
        digits = 1 if abs(value) < 9.95 and value != round(value) else 0
    if value and abs(value) < 0.5 * 10**-digits:
        return f"<\u2009{10**-digits:g}\u202f%"
    if digits == 0 and 99.5 <= value < 100:
        return f"{value:.1f}\u202f%" if value < 99.95 else ">\u200999.9\u202f%"
    return f"{value:.{digits}f}\u202f%"


def plural(number: int, word: str) -> str:
    """Format a number of things: 1 image, 2 images, 2 classes."""
    many = f"{word}es" if word.endswith("s") else f"{word}s"
    return f"{count(number)}\u00a0{word if number == 1 else many}"
