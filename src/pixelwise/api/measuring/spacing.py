"""A pixel spacing that the user gives: `--spacing 0.21mm`."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pixelwise.errors import UsageError
from pixelwise.grid import Grid
from pixelwise.measuring.scale import AffineScale

# Units, and what one of them is in the unit of the results.
LENGTH_UNITS = {
    "nm": (1e-6, "mm"),
    "um": (1e-3, "mm"),
    "µm": (1e-3, "mm"),
    "mm": (1.0, "mm"),
    "cm": (10.0, "mm"),
    "in": (25.4, "mm"),
    "m": (1.0, "m"),
    "km": (1e3, "m"),
    "ft": (0.3048, "m"),
}
_LENGTH = re.compile(r"\s*([0-9.]+(?:e[-+]?[0-9]+)?)\s*([a-zµμ]+)\s*", re.I)


@dataclass(frozen=True)
class GivenSpacing:
    """Distances between neighbouring pixels in array order, or one for both axes of an image, in `unit` ("mm" or "m").

    A volume needs three, since the distance of its slices is seldom that of its pixels.
    """

    spacing: tuple[float, ...]
    unit: str
    text: str

    @classmethod
    def parse(cls, text: str) -> GivenSpacing:
        """Read "0.21mm", or one length per axis, separated by commas.

        Raises:
            UsageError: something else.
        """
        found = [parse_length(part) for part in text.split(",")]
        lengths = [each for each in found if each is not None]
        if len(lengths) != len(found) or len(found) > 3 or len({unit for _, unit in lengths}) > 1:
            raise UsageError(
                "--spacing",
                expected="a length such as 0.21mm, or one per axis such as 0.21mm,0.18mm (between rows, between columns)",
                found=text,
                do=f"Use one of the units {', '.join(LENGTH_UNITS)}.",
            )
        return cls(tuple(length for length, _ in lengths), lengths[0][1], text)

    def scale_of(self, grid: Grid, shape: Sequence[int]) -> AffineScale:
        """Return the scale of an image of size *S.

        Raises:
            UsageError: another number of lengths than the image has axes.
        """
        volume = len(shape) == 3
        spacing = self.spacing * 2 if len(self.spacing) == 1 and not volume else self.spacing
        if len(spacing) != len(shape):
            raise UsageError(
                "--spacing",
                expected="three lengths for a volume: between slices, rows, columns"
                if volume
                else "one or two lengths for an image",
                found=self.text,
                do="Measure images and volumes with separate commands.",
            )
        return AffineScale(np.diag(spacing), self.unit, f"pixel spacing given as {self.text}")


def parse_length(text: str) -> tuple[float, str] | None:
    """Return a length and its unit, "mm" or "m"; None if the text is no positive length."""
    found = _LENGTH.fullmatch(text)
    if found is None:
        return None
    factor, unit = LENGTH_UNITS.get(found[2].lower().replace("\u03bc", "µ"), (0.0, ""))
    try:
        length = float(found[1]) * factor
    except ValueError:
        return None
    return (length, unit) if length > 0 and math.isfinite(length) else None
