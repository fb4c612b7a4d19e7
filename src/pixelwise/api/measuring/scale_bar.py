"""A scale bar that the user has found in the images: `--scale-bar 40,900,440,900=50mm`."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pixelwise.api.measuring.ground_plane import require_inside
from pixelwise.api.measuring.spacing import LENGTH_UNITS, parse_length
from pixelwise.errors import UsageError
from pixelwise.grid import Grid
from pixelwise.measuring.scale import AffineScale


@dataclass(frozen=True)
class GivenScaleBar:
    """The ends of a line in the image, as columns and rows, and its length in `unit` ("mm" or "m")."""

    ends: tuple[float, float, float, float]
    length: float
    unit: str
    text: str

    @classmethod
    def parse(cls, text: str) -> GivenScaleBar:
        """Read "x1,y1,x2,y2=50mm".

        Raises:
            UsageError: something else, or a line without a length.
        """
        left, _, right = text.partition("=")
        ends, length = _ends(left), parse_length(right)
        if ends is None or length is None:
            raise UsageError(
                "--scale-bar",
                expected="both ends of the bar (columns and rows in pixels) and its length, such as 40,900,440,900=50mm",
                found=text,
                do=f"Use two different points, and one of the units {', '.join(LENGTH_UNITS)}.",
            )
        return cls(ends, *length, text)

    @property
    def pixels(self) -> float:
        """The length in pixels."""
        x1, y1, x2, y2 = self.ends
        return math.hypot(x2 - x1, y2 - y1)

    def scale_of(self, grid: Grid, shape: Sequence[int]) -> AffineScale:
        """Return the scale of an image (H, W), whose pixels are taken for square.

        Raises:
            UsageError: a volume, or an image that does not contain the bar.
        """
        if len(shape) != 2:
            do = "Measure images and volumes with separate commands; --spacing takes three lengths for a volume."
            raise UsageError("--scale-bar", expected="images", found="a volume", do=do)
        require_inside("--scale-bar", np.array(self.ends).reshape(2, 2), shape)
        origin = (
            f"scale bar of {self.text.partition('=')[2].strip()} over {self.pixels:.4g} pixels, on which one pixel is"
        )
        return AffineScale(
            np.eye(2) * self.length / self.pixels, self.unit, f"{origin} {100 / self.pixels:.2g} % of all lengths"
        )


def _ends(text: str) -> tuple[float, float, float, float] | None:
    """Return four finite numbers, of two different points."""
    try:
        x1, y1, x2, y2 = (float(value) for value in text.split(","))
    except ValueError:
        return None
    return (x1, y1, x2, y2) if 0 < math.hypot(x2 - x1, y2 - y1) < math.inf else None
