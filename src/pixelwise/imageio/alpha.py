"""What an alpha band means, from its values: the value of full opacity, and whether it is alpha at all.

Programs write 1 or 255 for full opacity into georeferenced files of any type, and mark other bands as alpha. This is decided once per
file, never per window, so windows of one file are treated alike.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pixelwise.imageio.raster import Header, Refused, top_value


@dataclass(frozen=True)
class AlphaCounts:
    """Counts of the values of an alpha band.

    Args:
        pixels: all of them.
        zero: pixels with 0.
        positive: pixels above 0.
        below_top: pixels above 0 and below the largest value of the type.
        highest: the largest value; NaN if there is one.
        at_highest: pixels with it.
    """

    pixels: int
    zero: int
    positive: int
    below_top: int
    highest: float
    at_highest: int

    @classmethod
    def of(cls, alpha: NDArray[Any], header: Header) -> AlphaCounts:
        """Count the values of a band, or of a window of it."""
        alpha = np.ascontiguousarray(alpha)  # as a band of many, it would be slow to scan several times
        above = alpha > 0
        highest = alpha.max().item()
        return cls(
            alpha.size,
            int(np.count_nonzero(alpha == 0)),
            int(np.count_nonzero(above)),
            int(np.count_nonzero(above & (alpha < top_value(header)))),
            highest,
            int(np.count_nonzero(alpha == highest)),
        )

    def __add__(self, other: AlphaCounts) -> AlphaCounts:
        """Return the counts of both together."""
        highest = self.highest if self.highest >= other.highest else other.highest
        highest = self.highest if self.highest != self.highest else highest  # NaN, as in the maximum of both
        return AlphaCounts(
            self.pixels + other.pixels,
            self.zero + other.zero,
            self.positive + other.positive,
            self.below_top + other.below_top,
            highest,
            sum(counts.at_highest for counts in (self, other) if counts.highest == highest),
        )

    def opaque(self, header: Header) -> float:
        """Return the value that means full opacity."""
        top = top_value(header)
        two_values = self.highest > 0 and self.zero + self.at_highest == self.pixels
        return self.highest if self.highest > top or (header.georeferenced and two_values) else top

    def require_alpha(self, header: Header) -> None:
        """Raise if more than half of the pixels are partly transparent.

        Raises:
            Refused: they are.
        """
        opaque = self.opaque(header)
        between = self.below_top if opaque == top_value(header) else self.positive - self.at_highest
        if between > self.pixels / 2:
            raise Refused(
                "an alpha band that is mostly opaque or transparent",
                f"partly transparent values in {between / self.pixels:.0%} of the pixels",
                "If it is a band of the image (near infrared, say), mark it so "
                "(tifffile.imwrite(…, extrasamples=['unspecified'])); otherwise save the image without alpha.",
            )
