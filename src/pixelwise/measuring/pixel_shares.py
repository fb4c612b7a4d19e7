"""The share of each pixel that lies inside a polygon, exactly.

Edges are cut at the borders of pixels. Each piece adds the area between itself and the right border of its pixel to that pixel, and its height to
all pixels to the right of it, which a cumulative sum along the row does; pieces of shared edges cancel, so that polygons that tile an image
have shares that sum to 1.

Source: the accumulation of signed areas in font rasterisers (FreeType, libart).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pixelwise.measuring.scale import Array
from pixelwise.tiles import Window


@dataclass(frozen=True, eq=False)
class Edges:
    """The edges of polygons on the pixels of an image.

    Args:
        segments: (N, 5): row and column of both ends, with pixel (i, j) from i to i + 1 and from j to j + 1; and 1 or -1.
    """

    segments: Array

    @classmethod
    def from_rings(cls, rings: Sequence[tuple[Array, bool]]) -> Edges:
        """Combine closed rings (N, 2) of positions (row, column), each an exterior or a hole, in either direction."""
        found = [np.zeros((0, 5))]
        for points, hole in rings:
            away = points - points[0]
            area = float(np.sum(away[:-1, 1] * away[1:, 0] - away[1:, 1] * away[:-1, 0]))
            sign = np.full((len(points) - 1, 1), np.sign(area) if hole else -np.sign(area))
            found.append(np.hstack([points[:-1], points[1:], sign]))
        return cls(np.concatenate(found))

    def box(self, shape: Sequence[int]) -> Window | None:
        """Return the pixels of an image (H, W) that the polygons may cover; None if there are none."""
        if not len(self.segments):
            return None
        ends = self.segments[:, :4].reshape(-1, 2)
        start = np.clip(np.floor(ends.min(axis=0)), 0, shape).astype(int)
        stop = np.clip(np.ceil(ends.max(axis=0)), 0, shape).astype(int)
        return None if (start >= stop).any() else Window(tuple(start.tolist()), tuple(stop.tolist()))

    def shares(self, window: Window) -> Array:
        """Return the share of each pixel of a window that is inside, 0…1, (H, W)."""
        (top, left), (bottom, right) = window.start, window.stop
        high, wide = window.shape
        pieces = _within_rows(self.segments, top, bottom)
        pieces = _cut(_cut(pieces, 0, top, bottom), 1, left, right)
        height = np.abs(pieces[:, 2] - pieces[:, 0]) * pieces[:, 4]
        row = np.clip(np.floor((pieces[:, 0] + pieces[:, 2]) / 2).astype(int), top, bottom - 1) - top
        middle = np.maximum((pieces[:, 1] + pieces[:, 3]) / 2, left)
        seen = middle < right
        row, middle, height = row[seen], middle[seen] - left, height[seen]
        column = np.floor(middle).astype(int)
        beyond = (middle - column) * height
        place = row * (wide + 1) + column
        added = np.bincount(place, height - beyond, high * (wide + 1)) + np.bincount(
            place + 1, beyond, high * (wide + 1)
        )
        return np.clip(np.cumsum(added.reshape(high, wide + 1), axis=1)[:, :-1], 0.0, 1.0)


def _within_rows(segments: Array, top: int, bottom: int) -> Array:
    """Return the pieces of segments between two rows, downwards; the sign is negated where that turns them."""
    up = segments[:, 0] > segments[:, 2]
    chosen = np.where(up[:, None], segments[:, [2, 3, 0, 1, 4]] * (1, 1, 1, 1, -1), segments)
    chosen = chosen[(chosen[:, 0] < chosen[:, 2]) & (chosen[:, 0] < bottom) & (chosen[:, 2] > top)]
    if not len(chosen):
        return chosen
    first, last = chosen[:, :2].copy(), chosen[:, 2:4].copy()
    slope = (last[:, 1] - first[:, 1]) / (last[:, 0] - first[:, 0])
    pieces = chosen.copy()
    above, below = first[:, 0] < top, last[:, 0] > bottom
    pieces[above, 0], pieces[above, 1] = top, (first[:, 1] + slope * (top - first[:, 0]))[above]
    pieces[below, 2], pieces[below, 3] = bottom, (first[:, 1] + slope * (bottom - first[:, 0]))[below]
    return pieces


def _cut(segments: Array, axis: int, low: int, high: int) -> Array:
    """Cut segments where their coordinate along an axis is a whole number from `low` to `high`; they may be turned, but keep their signs."""
    turned = segments[:, axis] > segments[:, axis + 2]
    segments = np.where(turned[:, None], segments[:, [2, 3, 0, 1, 4]], segments)
    start, stop = segments[:, axis], segments[:, axis + 2]
    first = np.maximum(np.floor(start) + 1, low)
    count = np.maximum(np.minimum(np.ceil(stop) - 1, high) - first + 1, 0).astype(int)
    which = np.repeat(np.arange(len(segments)), count + 1)
    number = np.arange(len(which)) - np.repeat(np.cumsum(count + 1) - count - 1, count + 1)
    pieces = segments[which]
    other = 1 - axis
    slope = (segments[:, other + 2] - segments[:, other]) / np.where(stop > start, stop - start, 1.0)
    for inner, end, at in (
        (number > 0, 0, first[which] + number - 1),
        (number < count[which], 2, first[which] + number),
    ):
        pieces[inner, axis + end] = at[inner]
        pieces[inner, other + end] = (segments[which, other] + slope[which] * (at - start[which]))[inner]
    return pieces


def ring_of(positions: NDArray[np.floating]) -> Array:
    """Return a ring for `Edges` from positions (N, 2) with pixel centres at whole numbers."""
    return np.asarray(positions, np.float64) + 0.5
