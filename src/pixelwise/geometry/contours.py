"""Trace the contours of labelled regions along pixel edges, and fill contours again, both without loss.

Points are (x, y) in pixels. (0, 0) is the upper left corner of the first pixel, so pixel (row, column) has its centre at
(column + 0.5, row + 0.5). A pixel is inside a ring if its centre is. A centre exactly on an edge belongs to the side to
its right, or below, so that neighbours sharing an edge neither share nor lose a pixel.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

Ring = NDArray[np.float64]
_RIGHT, _DOWN, _LEFT, _UP = range(4)


@dataclass(frozen=True)
class Contour:
    """The contour of a region of 4-connected pixels with the same id.

    Args:
        id: the id of the pixels.
        outer: (N, 2) corners x, y, clockwise on screen; the first is not repeated at the end.
        holes: rings of the same kind, counter-clockwise.
        area: number of pixels, without holes.
    """

    id: int
    outer: Ring
    holes: tuple[Ring, ...]
    area: int

    @property
    def filled(self) -> int:
        """Number of pixels inside the outer ring, including holes."""
        x, y = self.outer.T
        return round(abs(float(np.sum(x * np.roll(y, -1) - np.roll(x, -1) * y)) / 2))


def fill(rings: tuple[Ring, ...], size: tuple[int, int]) -> tuple[int, int, NDArray[np.bool_]]:
    """Fill rings by the even-odd rule: a ring inside a ring is a hole.

    Args:
        rings: each (N, 2) points x, y, closed or not, in either direction; clipped to the image.
        size: (H, W) of the image.

    Returns:
        Top row and left column of the bounding box, and the mask (h, w) inside it; an empty mask if no pixel is covered.
    """
    starts = [np.asarray(ring, np.float64).reshape(-1, 2) for ring in rings]
    starts = [ring for ring in starts if len(ring) >= 3]
    if not starts:
        return 0, 0, np.zeros((0, 0), bool)
    first = np.concatenate(starts)
    second = np.concatenate([np.roll(ring, -1, axis=0) for ring in starts])
    left, top = np.floor(np.clip(first.min(0), 0, size[::-1])).astype(int).tolist()
    right, bottom = np.ceil(np.clip(first.max(0), 0, size[::-1])).astype(int).tolist()
    if right <= left or bottom <= top:
        return 0, 0, np.zeros((0, 0), bool)
    rows, xs = _crossings(first, second, top, bottom)
    columns = np.clip(np.ceil(xs - 0.5), left, right).astype(np.int64) - left
    crossings = np.zeros((bottom - top, right - left + 1), np.uint8)  # overflow at 256 keeps the parity
    np.add.at(crossings, (rows - top, columns), np.uint8(1))
    return top, left, (np.cumsum(crossings, axis=1, dtype=np.uint8)[:, :-1] & 1).astype(bool)


def runs_of_rings(rings: tuple[Ring, ...], size: tuple[int, int]) -> NDArray[np.int64]:
    """Fill rings as `fill` does, and return run lengths down the columns, as in COCO (see `run_lengths`).

    Args:
        rings: each (N, 2) points x, y within the image; the first is not repeated at the end.
        size: (H, W) of the image.
    """
    first = np.concatenate(rings)[:, ::-1]
    second = np.concatenate([np.roll(ring, -1, axis=0) for ring in rings])[:, ::-1]
    columns, ys = _crossings(first, second, 0, size[1])
    toggles = np.sort(columns * size[0] + np.clip(np.ceil(ys - 0.5), 0, size[0]).astype(np.int64))
    starts = np.flatnonzero(np.diff(toggles, prepend=-1))
    odd = np.diff(np.append(starts, len(toggles))) % 2 == 1  # a run that goes on in the next column does not end
    borders = toggles[starts][odd]
    total = size[0] * size[1]
    return np.diff(borders if len(borders) and borders[-1] == total else np.append(borders, total), prepend=0)


def _crossings(first: Ring, second: Ring, top: int, bottom: int) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Return row and x of every crossing of an edge with the centre line of a row; the lower end of an edge is excluded."""
    upper = np.where((first[:, 1] <= second[:, 1])[:, None], first, second)
    lower = np.where((first[:, 1] <= second[:, 1])[:, None], second, first)
    begin = np.clip(np.ceil(upper[:, 1] - 0.5), top, bottom).astype(np.int64)
    end = np.clip(np.ceil(lower[:, 1] - 0.5), top, bottom).astype(np.int64)
    edge, offset = _expand(end - begin)
    rows = begin[edge] + offset
    (x0, y0), (x1, y1) = upper[edge].T, lower[edge].T
    return rows, x0 + (rows + 0.5 - y0) * ((x1 - x0) / np.where(y1 > y0, y1 - y0, 1))


def _expand(counts: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Repeat each index as often as its count says: the indices, and the number of each repetition from 0."""
    index = np.repeat(np.arange(len(counts)), counts)
    return index, np.arange(len(index)) - np.repeat(np.cumsum(counts) - counts, counts)


def components(ids: NDArray[Any]) -> tuple[NDArray[np.int32], int]:
    """Number the regions of 4-connected pixels with equal ids: (H, W) from 0 on, and the number of regions."""
    starts = np.ones(ids.shape, bool)
    starts[:, 1:] = ids[:, 1:] != ids[:, :-1]
    runs = np.cumsum(starts.reshape(-1), dtype=np.int64).reshape(ids.shape) - 1
    touching = (starts[1:] | starts[:-1]) & (ids[1:] == ids[:-1])
    upper = runs[:-1][touching]
    lower = runs[1:][touching]
    count = int(runs[-1, -1]) + 1 if runs.size else 0
    graph = coo_array((np.ones(len(upper), np.bool_), (upper, lower)), shape=(count, count))
    total, region_of_run = connected_components(graph, directed=False)
    return region_of_run.astype(np.int32)[runs], int(total)


def trace(ids: NDArray[Any]) -> list[Contour]:
    """Trace the contour of every region of 4-connected pixels with equal ids.

    `fill` restores a region from all its rings. Painting only the outer rings, sorted by `filled` from large to small,
    restores the whole array.

    Args:
        ids: (H, W) integers.

    Returns:
        All contours, the largest by `filled` first.
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
    for region, area, ring in _rings(regions):
        if area > 0:
            outer[region] = ring
            filled[region] = area
        else:
            holes[region].append(ring)
    order = np.argsort(-filled, kind="stable").tolist()
    return [Contour(int(values[k]), outer[k], tuple(holes[k]), int(areas[k])) for k in order]


def _rings(regions: NDArray[np.int32]) -> Iterator[tuple[int, int, Ring]]:
    """Chain boundary edges to rings: the region to the right of each ring, its signed area, its corners."""
    owner, x, y, direction = _edges(regions)
    width = regions.shape[1] + 1
    step = np.array([(1, 0), (0, 1), (-1, 0), (0, -1)])
    base = owner.astype(np.int64) * (regions.shape[0] + 1)
    start = (base + y) * width + x
    end = (base + y + step[direction, 1]) * width + x + step[direction, 0]
    keys = start * 4 + direction
    order = np.argsort(keys, kind="stable")
    keys = keys[order]
    follower = np.full(len(keys), -1, np.int64)
    for turn in (3, 0, 1):  # the right turn comes last and wins, so pixels that touch only at a corner stay separate
        candidates = end * 4 + (direction + turn) % 4
        at = np.minimum(np.searchsorted(keys, candidates), len(keys) - 1)
        follower = np.where(keys[at] == candidates, order[at], follower)
    edges, first = _cycles(follower.tolist())
    before = np.roll(edges, 1)
    before[first] = edges[np.append(first[1:], len(edges)) - 1]
    is_corner = direction[edges] != direction[before]
    counts = np.add.reduceat(is_corner.astype(np.int64), first)
    ends = np.cumsum(counts)
    corners = np.stack([x, y], 1)[edges[is_corner]]
    after = np.roll(corners, -1, axis=0)
    after[ends - 1] = corners[ends - counts]
    areas = np.add.reduceat(corners[:, 0] * after[:, 1] - after[:, 0] * corners[:, 1], ends - counts) // 2
    rings = corners.astype(np.float64)
    rows = zip(owner[edges[first]].tolist(), areas.tolist(), (ends - counts).tolist(), ends.tolist(), strict=True)
    return ((region, area, rings[begin:end]) for region, area, begin, end in rows)


def _cycles(follower: list[int]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return all edges in walking order, ring after ring, and the positions at which rings begin."""
    visited = bytearray(len(follower))
    chain: list[int] = []
    first: list[int] = []
    for start in range(len(follower)):
        if visited[start]:
            continue
        first.append(len(chain))
        edge = start
        while not visited[edge]:
            visited[edge] = 1
            chain.append(edge)
            edge = follower[edge]
    return np.array(chain, np.int64), np.array(first, np.int64)


def _edges(regions: NDArray[np.int32]) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any], NDArray[Any]]:
    """List the directed pixel edges between two regions or at the image border: owner, x, y, direction."""
    padded = np.pad(regions, 1, constant_values=-1)
    sides = (
        (padded[:-2, 1:-1], 0, 0, _RIGHT),
        (padded[1:-1, 2:], 1, 0, _DOWN),
        (padded[2:, 1:-1], 1, 1, _LEFT),
        (padded[1:-1, :-2], 0, 1, _UP),
    )
    edges = []
    for neighbour, right, down, direction in sides:
        row, column = np.nonzero(neighbour != regions)
        edges.append((regions[row, column], column + right, row + down, np.full(len(row), direction)))
    owner, x, y, directions = (np.concatenate(values) for values in zip(*edges, strict=True))
    return owner, x, y, directions


def join_holes(contour: Contour, background: NDArray[np.bool_]) -> Ring:
    """Return a contour as one ring, with the holes that show background joined to it by bridges of zero width.

    A bridge runs up from the topmost corner of a hole, through the region, to the first ring it meets: the outer one, or
    that of a hole further up. So bridges cross no background, and their total length is at most the region's area. Holes
    without background are dropped: the regions in them are smaller, and painted later.

    Args:
        contour: a result of `trace`.
        background: (H, W), True for pixels that no region paints.
    """
    holes = _holes_with_background(contour.holes, background) if contour.holes else []
    if not holes:
        return contour.outer
    points, starts, following = _linked((contour.outer, *holes))
    x, y = points.T
    preceding = np.argsort(following)
    keys = y * (background.shape[1] + 1) + x
    topmost = np.repeat(np.minimum.reduceat(keys, starts), np.diff(starts, append=len(points)))
    first = np.flatnonzero(keys == topmost)[1:]  # of each hole, the leftmost of its topmost corners
    edges = _edges_above(x, y, following, first)
    # Three points are added for each hole: the foot of the bridge on the edge above (on the way down, and on the way up
    # again), and a copy of the corner at which the hole's ring begins and ends.
    feet = np.stack([x[first], y[edges]], 1)
    vertices = np.concatenate([points, feet, feet, points[first]])
    down, up, last = (np.arange(len(first)) + len(points) + k * len(first) for k in range(3))
    following[preceding[first]] = last
    following[starts[1] - 1] = -1
    successors = [*following.tolist(), *first.tolist(), *[0] * len(first), *up.tolist()]
    for hole in np.lexsort((x[first], edges))[::-1].tolist():  # the last along an edge is inserted first
        edge = int(edges[hole])
        successors[up[hole]] = successors[edge]
        successors[edge] = int(down[hole])
    order = []
    vertex = 0
    while vertex >= 0:
        order.append(vertex)
        vertex = successors[vertex]
    return vertices[order].astype(np.float64)


def _linked(rings: Sequence[Ring]) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Return the points of all rings, the index at which each ring begins, and the index of the point after each point."""
    points = np.concatenate(rings).astype(np.int64)
    ends = np.cumsum([len(ring) for ring in rings])
    starts = np.concatenate([[0], ends[:-1]])
    following = np.arange(1, len(points) + 1)
    following[ends - 1] = starts
    return points, starts, following


def _holes_with_background(holes: Sequence[Ring], background: NDArray[np.bool_]) -> list[Ring]:
    """Keep the holes with background in them.

    The number of background pixels in a ring is the sum, over its vertical edges, of those to the left of the edge,
    with the sign of its direction.
    """
    points, starts, following = _linked(holes)
    (left, top), (right, bottom) = points.min(0).tolist(), points.max(0).tolist()
    integral = np.zeros((bottom - top + 1, right - left + 1), np.int32)
    np.cumsum(background[top:bottom, left:right], axis=0, dtype=np.int32, out=integral[1:, 1:])
    np.cumsum(integral, axis=1, dtype=np.int32, out=integral)
    x, y = points.T
    above = integral[y - top, x - left]
    counts = np.add.reduceat(np.where(x == x[following], above[following] - above, 0), starts)
    return [hole for hole, count in zip(holes, counts.tolist(), strict=True) if count]


def _edges_above(
    x: NDArray[np.int64], y: NDArray[np.int64], following: NDArray[np.int64], corners: NDArray[np.int64]
) -> NDArray[np.int64]:
    """Find the nearest edge above each corner that has the region below it: these edges run to the right."""
    rightward = np.flatnonzero(x[following] > x)
    index, offset = _expand(x[following[rightward]] - x[rightward])
    edges = rightward[index]
    height = int(y.max()) + 1
    keys = (x[edges] + offset) * height + y[edges]
    order = np.argsort(keys)
    return edges[order[np.searchsorted(keys, x[corners] * height + y[corners], sorter=order) - 1]]
