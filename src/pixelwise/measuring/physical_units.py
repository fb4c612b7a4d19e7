"""Sizes with units in text, such as "2 mm" or "1.5 cm²", and their conversion."""

from __future__ import annotations

import re

# In metres.
LENGTHS = {
    "nm": 1e-9,
    "um": 1e-6,
    "µm": 1e-6,
    "mm": 1e-3,
    "cm": 1e-2,
    "m": 1.0,
    "km": 1e3,
    "in": 0.0254,
    "ft": 0.3048,
    "yd": 0.9144,
}
# What a unit measures, and how many of the basic unit (m, m², m³, 1, pixel) it is.
UNITS: dict[str, tuple[str, float]] = {
    **{unit: ("length", metres) for unit, metres in LENGTHS.items()},
    **{f"{unit}²": ("area", metres**2) for unit, metres in LENGTHS.items()},
    **{f"{unit}³": ("volume", metres**3) for unit, metres in LENGTHS.items()},
    "ha": ("area", 1e4),
    "ml": ("volume", 1e-6),
    "l": ("volume", 1e-3),
    "%": ("share", 1e-2),
    "": ("number", 1.0),
    "px": ("pixels", 1.0),
    "px²": ("square pixels", 1.0),
    "voxels": ("voxels", 1.0),
}
_SIZE = re.compile(r"\s*([0-9]+(?:\.[0-9]*)?(?:e[-+]?[0-9]+)?)\s*(\S*)\s*", re.I)


def parse_size(text: str) -> tuple[float, str] | None:
    """Return a number and its unit, as in `UNITS`; None if the text is something else. mm2 and mm^2 are read as mm²."""
    found = _SIZE.fullmatch(text)
    if found is None:
        return None
    unit = found[2].replace("^", "").replace("\u03bc", "µ")
    unit = unit[:-1] + {"2": "²", "3": "³"}.get(unit[-1:], unit[-1:])
    return (float(found[1]), unit) if unit in UNITS else None


def converted(value: float, unit: str, to: str) -> float | None:
    """Return a value in another unit; None if the two measure different things."""
    kind, factor = UNITS.get(unit, (None, 1.0))
    other, divisor = UNITS[to]
    return value * factor / divisor if kind == other else None
