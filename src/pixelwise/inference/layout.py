"""Where the tiles of an image are, and in which blocks and order they are predicted."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from functools import cached_property

from pixelwise.tiles import Window, windows


@dataclass(frozen=True)
class Layout:
    """The tiles of an image.

    Args:
        shape: size *S of the image.
        tile: size of the tiles, multiples of `align`.
        overlap: minimum overlap of neighbours, as a share of the tile, 0…1.
        align: tiles start at multiples of this.
    """

    shape: tuple[int, ...]
    tile: tuple[int, ...]
    overlap: float
    align: int

    @cached_property
    def places(self) -> list[Window]:
        """The windows of the tiles, row by row."""
        overlap = [min(round(self.overlap * size), size - 1) for size in self.tile]
        return windows(self.shape, self.tile, overlap, align=self.align)

    def inside(self, box: Window) -> list[Window]:
        """Return the windows of the tiles that reach into a box."""
        return [place for place in self.places if _intersect(place, box)]

    @cached_property
    def _starts(self) -> list[list[int]]:
        """Where tiles start, per axis."""
        return [sorted({place.start[axis] for place in self.places}) for axis in range(len(self.shape))]

    @cached_property
    def rows(self) -> list[Window]:
        """The blocks of an image that is not divided into strips: from the start of one row of tiles to the next."""
        rest = self.shape[1:]
        origin = (0,) * len(rest)
        tops = itertools.pairwise([*self._starts[0], self.shape[0]])
        return [Window((top, *origin), (bottom, *rest)) for top, bottom in tops]

    @property
    def rows_held(self) -> int:
        """The number of rows of tiles that are held at once: those that reach into a block, and the next one."""
        tops = self._starts[0]
        return 1 + max(sum(top - self.tile[0] < other <= top for other in tops) for top in tops)

    def blocks(self, fitting: int) -> list[Window]:
        """Return the blocks of an image, divided into strips along the further axes, one strip after the other.

        Args:
            fitting: number of tiles of a row that fit into memory; a strip has at least one.
        """
        starts = self._starts[1:]
        widths = [len(each) for each in starts]  # of the strips, in tiles along each further axis
        for axis, count in enumerate(widths):
            widths[axis] = min(count, max(1, fitting // (math.prod(widths) // count)))
        strips = [
            itertools.pairwise([*each[::width], size])
            for each, width, size in zip(starts, widths, self.shape[1:], strict=True)
        ]
        return [
            Window((row.start[0], *first), (row.stop[0], *last))
            for first, last in (zip(*strip, strict=True) for strip in itertools.product(*strips))
            for row in self.rows
        ]


def _intersect(one: Window, other: Window) -> bool:
    return all(a < d and c < b for a, b, c, d in zip(one.start, one.stop, other.start, other.stop, strict=True))
