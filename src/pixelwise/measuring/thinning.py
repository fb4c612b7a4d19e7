"""Thinning of regions to lines one pixel wide, as graphs of neighbouring pixels.

The method is that of Guo & Hall 1989 (doi:10.1145/62065.62074): pixels of the border are deleted as long as the region stays connected and no
hole appears or vanishes. Only the border is looked at, so that the time grows with the pixels of the region, not with its bounding box.
"""

from __future__ import annotations

from functools import cache

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import KDTree

Ints = NDArray[np.intp]
# The neighbours of a pixel clockwise, from above: bit k of a code is neighbour k.
_AROUND = ((-1, 0), (-1, 1), (0, 1), (1, 1), (1, 0), (1, -1), (0, -1), (-1, -1))


def thinned(region: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Return the centre lines of a region (H, W), one pixel wide, with its components and its holes."""
    padded = np.pad(region, 1).astype(np.uint8)
    offsets = np.array([row * padded.shape[1] + column for row, column in _AROUND])
    flat = padded.reshape(-1)
    place = np.flatnonzero(flat)
    border = place[_codes(flat, place, offsets) != 255]
    unchanged = 0
    while unchanged < 2:
        for deletable in _deletable():
            gone = border[deletable[_codes(flat, border, offsets)]]
            unchanged = 0 if len(gone) else unchanged + 1
            flat[gone] = 0
            beside = (gone[:, None] + offsets).reshape(-1)
            border = np.unique(np.concatenate([border, beside]))
            border = border[flat[border] == 1]
    return padded[1:-1, 1:-1].astype(np.bool_)


def neighbours(line: NDArray[np.bool_]) -> tuple[Ints, Ints]:
    """Return the pixels of a thinned region (N, 2), and pairs of neighbours (E, 2) as indices into them.

    Diagonal neighbours that have another neighbour in common beside them are none, so that corners and branches do not form triangles.
    """
    padded = np.pad(line, 1)
    number = np.full(padded.shape, -1, np.intp)
    number[padded] = np.arange(int(line.sum()))
    rows, columns = np.nonzero(padded)
    pairs = []
    for step_row, step_column in ((0, 1), (1, 0), (1, 1), (1, -1)):
        joined = padded[rows + step_row, columns + step_column]
        if step_row and step_column:
            joined &= ~padded[rows + step_row, columns] & ~padded[rows, columns + step_column]
        first = np.flatnonzero(joined)
        pairs.append(np.stack([first, number[rows[first] + step_row, columns[first] + step_column]], -1))
    return np.stack([rows, columns], -1) - 1, np.concatenate(pairs)


def distances_outside(region: NDArray[np.bool_], place: Ints) -> NDArray[np.float64]:
    """Return the distances (N,) from pixels (N, 2) of a region to the nearest pixels outside, in a time that grows with the region, not its box.

    Args:
        region: (H, W), nowhere at the edge of the array.
        place: (N, 2).
    """
    flat = region.reshape(-1)
    offsets = np.array([row * region.shape[1] + column for row, column in _AROUND])
    inside = np.flatnonzero(flat)
    beside = np.concatenate([inside[~flat[inside + step]] + step for step in offsets[::2]])
    outside = np.stack(np.divmod(np.unique(beside), region.shape[1]), -1)
    return np.asarray(KDTree(outside).query(place)[0])


def _codes(flat: NDArray[np.uint8], place: Ints, offsets: Ints) -> Ints:
    """Return which neighbours of pixels are inside, as codes (N,) of 8 bits."""
    return (flat[place[:, None] + offsets].astype(np.intp) << np.arange(8)).sum(1)


@cache
def _deletable() -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Return by code whether a pixel is deleted, in odd and in even iterations."""
    up, up_right, right, down_right, down, down_left, left, up_left = (
        (np.arange(256) >> k & 1).astype(np.bool_) for k in range(8)
    )
    lines = ((up, up_right, right), (right, down_right, down), (down, down_left, left), (left, up_left, up))
    connected = sum((~first & (corner | second)).astype(int) for first, corner, second in lines)
    clockwise = sum((first | corner).astype(int) for first, corner, _ in lines)
    otherwise = sum((corner | second).astype(int) for _, corner, second in lines)
    fewest = np.minimum(clockwise, otherwise)
    simple = (connected == 1) & (fewest >= 2) & (fewest <= 3)
    return simple & ~((up | up_right | ~down_right) & right), simple & ~((down | down_left | ~up_left) & left)
