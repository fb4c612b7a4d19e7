"""Windows that cover a shape, and paddings to a multiple: pure integers.

Comes in: sizes. Goes out: windows and paddings. Knows nothing of arrays, tensors or files.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Window:
    """Name a box of pixels: from `start` (inside) to `stop` (outside), one entry per axis."""

    start: tuple[int, ...]
    stop: tuple[int, ...]

    @property
    def shape(self) -> tuple[int, ...]:
        """Give the size of the box per axis."""
        return tuple(b - a for a, b in zip(self.start, self.stop, strict=True))

    @property
    def slices(self) -> tuple[slice, ...]:
        """Give the slices that cut the box out of an array's spatial axes."""
        return tuple(slice(a, b) for a, b in zip(self.start, self.stop, strict=True))


def starts(size: int, tile: int, overlap: int, align: int = 1) -> list[int]:
    """Place tiles along one axis: the fewest whose neighbours share at least `overlap`, spread evenly.

    The first begins at 0; where `tile` ≥ `size` there is one. Every start is a multiple of `align` (a network that
    pools by 16 sees the same thing again only 16 pixels further), so the last tile may reach past `size`.

    Raises:
        ValueError: sizes below 1, a `tile` that `align` does not divide, or an overlap outside 0…tile-1.
    """
    if size < 1 or tile < 1 or align < 1 or tile % align or not 0 <= overlap < tile:
        raise ValueError(
            f"size {size}, tile {tile}, overlap {overlap}, align {align}: expected sizes ≥ 1, a tile that align divides, "
            "and 0 ≤ overlap < tile"
        )
    cells, span, shared = padded(size, align) // align, tile // align, min(-(-overlap // align), tile // align - 1)
    if span >= cells:
        return [0]
    count = -(-(cells - shared) // (span - shared))
    return [k * (cells - span) // (count - 1) * align for k in range(count)]


def windows(shape: Sequence[int], tile: Sequence[int], overlap: Sequence[int], align: int = 1) -> list[Window]:
    """Cover `shape` with windows of at most `tile`, row by row; every window lies inside, every pixel is covered.

    Args:
        shape: size per axis, (H, W) or (D, H, W).
        tile: largest window per axis.
        overlap: least number of pixels that neighbours share, per axis.
        align: every window starts at a multiple of this; the last ones are shorter where it does not divide `shape`.
    """
    places = [starts(s, t, o, align) for s, t, o in zip(shape, tile, overlap, strict=True)]
    return [
        Window(corner, tuple(min(a + t, s) for a, t, s in zip(corner, tile, shape, strict=True)))
        for corner in itertools.product(*places)
    ]


def padded(size: int, multiple: int) -> int:
    """Give the smallest multiple of `multiple` that is at least `size`."""
    return -(-size // multiple) * multiple


def split_padding(size: int, target: int) -> tuple[int, int]:
    """Split `target - size` into (before, after), the odd pixel after; (0, 0) where `size` is large enough."""
    extra = max(target - size, 0)
    return extra // 2, extra - extra // 2
