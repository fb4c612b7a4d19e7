"""Compute the tiles that cover a shape, and padded sizes."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Window:
    """A box of pixels from `start` (inclusive) to `stop` (exclusive), one entry per axis."""

    start: tuple[int, ...]
    stop: tuple[int, ...]

    @property
    def shape(self) -> tuple[int, ...]:
        """The size per axis."""
        return tuple(b - a for a, b in zip(self.start, self.stop, strict=True))

    @property
    def slices(self) -> tuple[slice, ...]:
        """Slices into the spatial axes of an array."""
        return tuple(slice(a, b) for a, b in zip(self.start, self.stop, strict=True))


def window_slices(shape: Sequence[int], window: Window | None) -> tuple[slice, ...]:
    """Return slices into the axes of an array of a shape: those of a window, or everything.

    Raises:
        ValueError: the window is empty or not inside the shape.
    """
    if window is None:
        return (slice(None),) * len(shape)
    limits = zip(window.start, window.stop, shape, strict=True)
    if not all(0 <= start < stop <= size for start, stop, size in limits):
        raise ValueError(f"expected a window inside {tuple(shape)}, found {window}")
    return window.slices


def starts(size: int, tile: int, overlap: int, align: int = 1) -> list[int]:
    """Return the starts of tiles along one axis: as few as possible with at least `overlap`, evenly spaced.

    The first start is 0, the only one if `tile` ≥ `size`. All starts are multiples of `align` (a network with a stride of
    16 is equivariant only to shifts by 16 pixels), so the last tile may extend beyond `size`.

    Raises:
        ValueError: sizes below 1, a `tile` that is not a multiple of `align`, or an overlap outside 0…tile-1.
    """
    if size < 1 or tile < 1 or align < 1 or tile % align or not 0 <= overlap < tile:
        raise ValueError(
            f"size {size}, tile {tile}, overlap {overlap}, align {align}: expected sizes ≥ 1, a tile that is a "
            "multiple of align, and 0 ≤ overlap < tile"
        )
    cells = padded(size, align) // align
    span = tile // align
    shared = min(-(-overlap // align), span - 1)
    if span >= cells:
        return [0]
    count = -(-(cells - shared) // (span - shared))
    return [k * (cells - span) // (count - 1) * align for k in range(count)]


def windows(shape: Sequence[int], tile: Sequence[int], overlap: Sequence[int], align: int = 1) -> list[Window]:
    """Return windows of at most `tile` that cover `shape` and stay within it, row by row.

    Args:
        shape: size per axis, (H, W) or (D, H, W).
        tile: largest window per axis.
        overlap: minimum overlap of neighbours per axis.
        align: windows start at multiples of this; the last ones may be smaller than `tile`.
    """
    corners = [starts(s, t, o, align) for s, t, o in zip(shape, tile, overlap, strict=True)]
    return [
        Window(corner, tuple(min(a + t, s) for a, t, s in zip(corner, tile, shape, strict=True)))
        for corner in itertools.product(*corners)
    ]


def padded(size: int, multiple: int) -> int:
    """Round `size` up to a multiple of `multiple`."""
    # Not -(-size // multiple) * multiple: ONNX rounds quotients towards zero, so an exported network would crop.
    return (size + multiple - 1) // multiple * multiple
