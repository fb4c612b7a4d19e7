"""Outlines of regions: from class ids to closed rings along the edges of pixels, and back, without losing one.

Comes in: an integer array (H, W), or rings of points. Goes out: rings, or a mask. Knows nothing of classes, files, units or tensors.

Points are (x, y) in pixels; (0, 0) is the upper left *corner* of the first pixel, so pixel (row, column) has its centre
at (column + 0.5, row + 0.5). A pixel is inside a ring where its centre is; a centre exactly on an edge belongs to the side
on its right, or below (so neighbours that share an edge share no pixel and leave none out).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

Ring = NDArray[np.float64]
_RIGHT, _DOWN, _LEFT, _UP = range(4)


@dataclass(frozen=True)
class Outline:
    """Hold one region of 4-connected pixels of equal id.

    Args:
        id: its id.
        outer: (N, 2) corners x, y, clockwise as seen on a screen; not closed by a copy of the first.
        holes: rings of the same kind, counter-clockwise.
        area: pixels in it, holes not counted.
    """

    id: int
    outer: Ring
    holes: tuple[Ring, ...]
    area: int

    @property
    def filled(self) -> int:
        """Count the pixels within the outer ring, those of the holes, too."""
        return round(abs(_signed_area(self.outer)))


def fill(rings: tuple[Ring, ...], size: tuple[int, int]) -> tuple[int, int, NDArray[np.bool_]]:
    """Fill rings by the even-odd rule: a ring within a ring is a hole.

    Args:
        rings: each (N, 2) points x, y, closed or not, in any direction; what lies beyond the image is cut off.
        size: (H, W) of the image.

    Returns:
        Row and column at which the box begins, and the box as a mask (h, w); an empty one where nothing is covered.
    """
    starts = [np.asarray(ring, np.float64).reshape(-1, 2) for ring in rings]
    starts = [ring for ring in starts if len(ring) >= 3]
    if not starts:
        return 0, 0, np.zeros((0, 0), bool)
    ends = [np.roll(ring, -1, axis=0) for ring in starts]
    first, second = np.concatenate(starts), np.concatenate(ends)
    low = np.floor(np.maximum(np.minimum(first.min(0), size[::-1]), 0)).astype(int)
    high = np.ceil(np.maximum(np.minimum(first.max(0), size[::-1]), 0)).astype(int)
    (left, top), (right, bottom) = low.tolist(), high.tolist()
    if right <= left or bottom <= top:
        return 0, 0, np.zeros((0, 0), bool)
    rows, xs = _crossings(first, second, top, bottom)
    columns = np.clip(np.ceil(xs - 0.5), left, right).astype(np.int64) - left
    turns = np.zeros((bottom - top, right - left + 1), np.uint8)  # beyond 255 it begins anew: odd stays odd
    np.add.at(turns, (rows - top, columns), np.uint8(1))
    return top, left, (np.cumsum(turns, axis=1, dtype=np.uint8)[:, :-1] & 1).astype(bool)


def _crossings(first: Ring, second: Ring, top: int, bottom: int) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Find where edges cross the middle lines of the rows top…bottom - 1: rows and x, an edge's lower end left out."""
    upper = np.where((first[:, 1] <= second[:, 1])[:, None], first, second)
    lower = np.where((first[:, 1] <= second[:, 1])[:, None], second, first)
    begin = np.clip(np.ceil(upper[:, 1] - 0.5), top, bottom).astype(np.int64)
    end = np.clip(np.ceil(lower[:, 1] - 0.5), top, bottom).astype(np.int64)
    many = end - begin
    edge = np.repeat(np.arange(len(many)), many)
    within = np.arange(len(edge)) - np.repeat(np.cumsum(many) - many, many)
    rows = begin[edge] + within
    (x0, y0), (x1, y1) = upper[edge].T, lower[edge].T
    return rows, x0 + (rows + 0.5 - y0) * ((x1 - x0) / np.where(y1 > y0, y1 - y0, 1))


def components(ids: NDArray[Any]) -> tuple[NDArray[np.int32], int]:
    """Number the regions of 4-connected pixels of equal id: (H, W) from 0 on, and how many there are."""
    height, width = ids.shape
    starts = np.ones((height, width), bool)
    starts[:, 1:] = ids[:, 1:] != ids[:, :-1]
    runs = np.cumsum(starts.reshape(-1), dtype=np.int64).reshape(height, width) - 1
    meets = (starts[1:] | starts[:-1]) & (ids[1:] == ids[:-1])
    one, other = runs[:-1][meets], runs[1:][meets]
    count = int(runs[-1, -1]) + 1 if runs.size else 0
    graph = coo_array((np.ones(len(one), np.bool_), (one, other)), shape=(count, count))
    total, names = connected_components(graph, directed=False)
    return names.astype(np.int32)[runs], int(total)


def trace(ids: NDArray[Any]) -> list[Outline]:
    """Trace every region of 4-connected pixels of equal id along the edges of its pixels.

    `fill` of a region's rings gives its pixels again; painting the outer rings alone, by `filled` from large to small, gives
    the whole array.

    Args:
        ids: (H, W) integers.

    Returns:
        All regions, the largest by `filled` first.
    """
    if not ids.size:
        return []
    regions, count = components(ids)
    values = np.zeros(count, np.int64)
    values[regions] = ids
    areas = np.bincount(regions.reshape(-1), minlength=count)
    filled = np.zeros(count, np.int64)
    outer: list[Ring] = [np.zeros((0, 2))] * count
    holes: list[list[Ring]] = [[] for _ in range(count)]
    for region, within, ring in _rings(regions):
        if within > 0:
            outer[region], filled[region] = ring, within
        else:
            holes[region].append(ring)
    order = np.argsort(-filled, kind="stable").tolist()
    return [Outline(int(values[k]), outer[k], tuple(holes[k]), int(areas[k])) for k in order]


def _rings(regions: NDArray[np.int32]) -> Iterator[tuple[int, int, Ring]]:
    """Chain the edges between regions to rings: the region to the right of each, its signed area, its corners."""
    owner, x, y, way = _edges(regions)
    width = regions.shape[1] + 1
    step = np.array([(1, 0), (0, 1), (-1, 0), (0, -1)])
    ahead = x + step[way, 0], y + step[way, 1]
    place = (owner.astype(np.int64) * (regions.shape[0] + 1) + y) * width + x
    goal = (owner.astype(np.int64) * (regions.shape[0] + 1) + ahead[1]) * width + ahead[0]
    keys = place * 4 + way
    order = np.argsort(keys, kind="stable")
    keys = keys[order]
    follower = np.full(len(keys), -1, np.int64)
    for turn in (3, 0, 1):  # a turn to the right comes last and wins: pixels that touch at a corner stay apart
        wanted = goal * 4 + (way + turn) % 4
        at = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
        follower = np.where(keys[at] == wanted, order[at], follower)
    edges, first = _cycles(follower.tolist())
    before = np.roll(edges, 1)
    before[first] = edges[np.append(first[1:], len(edges)) - 1]
    turns = way[edges] != way[before]
    counts = np.add.reduceat(turns.astype(np.int64), first)
    ends = np.cumsum(counts)
    corners = np.stack([x, y], 1)[edges[turns]]
    after = np.roll(corners, -1, axis=0)
    after[ends - 1] = corners[ends - counts]
    areas = np.add.reduceat(corners[:, 0] * after[:, 1] - after[:, 0] * corners[:, 1], ends - counts) // 2
    rings = corners.astype(np.float64)
    rows = zip(owner[edges[first]].tolist(), areas.tolist(), (ends - counts).tolist(), ends.tolist(), strict=True)
    return ((region, area, rings[begin:end]) for region, area, begin, end in rows)


def _cycles(follower: list[int]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Give all edges, ring after ring in the order of walking, and the places at which rings begin."""
    seen = bytearray(len(follower))
    chain: list[int] = []
    first: list[int] = []
    for start in range(len(follower)):
        if seen[start]:
            continue
        first.append(len(chain))
        edge = start
        while not seen[edge]:
            seen[edge] = 1
            chain.append(edge)
            edge = follower[edge]
    return np.array(chain, np.int64), np.array(first, np.int64)


def _edges(regions: NDArray[np.int32]) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any], NDArray[Any]]:
    """List the directed edges of all pixels that lie between two regions, or at the border: owner, x, y, direction."""
    framed = np.pad(regions, 1, constant_values=-1)
    inner = framed[1:-1, 1:-1]
    sides = (
        (framed[:-2, 1:-1], 0, 0, _RIGHT),  # the neighbour above: along its lower edge, to the right
        (framed[1:-1, 2:], 1, 0, _DOWN),
        (framed[2:, 1:-1], 1, 1, _LEFT),
        (framed[1:-1, :-2], 0, 1, _UP),
    )
    owners, xs, ys, ways = [], [], [], []
    for neighbour, right, down, way in sides:
        row, column = np.nonzero(neighbour != inner)
        owners.append(inner[row, column])
        xs.append(column + right)
        ys.append(row + down)
        ways.append(np.full(len(row), way))
    return np.concatenate(owners), np.concatenate(xs), np.concatenate(ys), np.concatenate(ways)


def _signed_area(ring: Ring) -> float:
    """Give the area by the shoelace formula; positive where the ring runs clockwise on a screen (y downwards)."""
    x, y = ring.T
    return float(np.sum(x * np.roll(y, -1) - np.roll(x, -1) * y) / 2)
