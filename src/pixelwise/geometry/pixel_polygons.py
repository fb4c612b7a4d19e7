"""Divide a mask into polygons with holes along pixel edges; neighbours share their borders.

The mask is a planar graph. Its nodes are the corners at which three or four pixel edges meet. Its arcs are the borders
between two regions from one node to the next, or closed. A border is stored once, so that both neighbours keep the same
points whatever is done to it.

Points are (x, y) in pixels. (0, 0) is the upper left corner of the first pixel.

A region is one of 4-connected pixels of a class. Where two of its pixels touch only at a corner, its rings turn so that
none passes the corner twice: the ring of a hole touches the outer ring, or another hole, at that point. Such polygons are
valid as defined by OGC Simple Features.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pixelwise.geometry.contours import components

Ints = NDArray[np.int64]
Points = NDArray[np.float64]
_NO_REGION = -1


@dataclass(frozen=True, eq=False)
class PixelPolygon:
    """A region of 4-connected pixels of one class.

    Args:
        class_index: of the pixels.
        pixels: number of pixels.
        outer: (N, 2) points x, y, clockwise on screen; the first is not repeated at the end.
        holes: rings of the same kind, counter-clockwise.
    """

    class_index: int
    pixels: int
    outer: Points
    holes: tuple[Points, ...]


@dataclass(frozen=True, eq=False)
class Borders:
    """The borders of all regions of a mask, each stored once.

    An arc in its direction is number 2k, against it 2k + 1. On screen, a region is to the right of its arcs.

    Args:
        points: (P, 2), those of all arcs, from the first to the last of each; a closed arc ends with its first point.
        starts: (A + 1,), where each arc begins in `points`.
        right, left: (A,), the regions beside each arc; -1 outside of all.
        classes, pixels: (R,), class index and number of pixels of each region, by their first pixels row by row.
        arcs: those of all rings, in walking order.
        ring_starts: (M + 1,), where each ring begins in `arcs`.
        ring_regions: (M,), the region of each ring.
        ring_holes: (M,), whether each ring is a hole of its region.
    """

    points: Points
    starts: Ints
    right: Ints
    left: Ints
    classes: Ints
    pixels: Ints
    arcs: Ints
    ring_starts: Ints
    ring_regions: Ints
    ring_holes: NDArray[np.bool_]

    def with_points(self, points: Points, starts: Ints) -> Borders:
        """Return the same borders along other points; the ends of arcs must be the same."""
        return replace(self, points=points, starts=starts)

    def ring(self, index: int) -> Points:
        """Return the points of a ring, (N, 2); the first is not repeated."""
        begin, end = self.ring_starts[index], self.ring_starts[index + 1]
        parts = []
        for arc in self.arcs[begin:end].tolist():
            points = self.points[self.starts[arc >> 1] : self.starts[(arc >> 1) + 1]]
            parts.append(points[:0:-1] if arc & 1 else points[:-1])
        return np.concatenate(parts)

    def polygons(self, smallest: int = 1) -> Iterator[PixelPolygon]:
        """Yield the polygon of every region with at least `smallest` pixels, by their first pixels row by row."""
        order = np.lexsort((self.ring_holes, self.ring_regions))  # the outer ring first
        first = np.flatnonzero(np.diff(self.ring_regions[order], prepend=-1))
        for rings in np.split(order, first[1:]) if len(order) else []:
            region = int(self.ring_regions[rings[0]])
            if self.pixels[region] >= smallest:
                outer, *holes = (self.ring(index) for index in rings.tolist())
                yield PixelPolygon(int(self.classes[region]), int(self.pixels[region]), outer, tuple(holes))


def find_borders(mask: NDArray[Any], ignored: Sequence[int] = ()) -> Borders:
    """Find the borders of all regions of a mask.

    Args:
        mask: (H, W) integers.
        ignored: values of pixels that belong to no region.
    """
    regions, classes, pixels = _regions(mask, ignored)
    starts, stops, horizontal, owners, is_node = _segments(regions)
    # End 2k is the first corner of segment k, end 2k + 1 its last. Half segment 2k runs from the first to the last corner,
    # 2k + 1 back: half segment h begins at end h, and ends at end h ^ 1.
    corners = np.stack([starts, stops], 1).reshape(-1)
    nodes = np.stack(is_node, 1).reshape(-1)
    following = _following(corners, nodes)
    chain, first = _chains(following.tolist(), np.flatnonzero(nodes).tolist())
    last = np.append(first, len(chain))[1:] - 1
    width = mask.shape[1] + 1
    places = np.insert(corners[chain], last + 1, corners[chain[last] ^ 1])
    points = np.stack([places % width, places // width], 1)
    begins = np.append(first + np.arange(len(first)), len(points))
    owner = owners.reshape(-1)
    right, left = owner[chain[first]], owner[chain[first] ^ 1]
    direction = np.where(np.repeat(horizontal, 2), 0, 1) + np.tile([0, 2], len(starts))
    half_ends = np.stack([chain[first], chain[last] ^ 1], 1).reshape(-1)  # where each half arc begins
    arcs, ring_starts = _rings(corners[half_ends], direction[half_ends], owner[half_ends], nodes[half_ends])
    areas = _areas(points, begins, arcs, ring_starts)
    return Borders(
        points.astype(np.float64),
        begins,
        right,
        left,
        classes,
        pixels,
        arcs,
        ring_starts,
        owner[half_ends][arcs[ring_starts[:-1]]],
        areas < 0,
    )


def _regions(mask: NDArray[Any], ignored: Sequence[int]) -> tuple[NDArray[np.int32], Ints, Ints]:
    """Return the number of the region of each pixel, -1 for none, and class and size of each region."""
    if not mask.size:
        return np.zeros(mask.shape, np.int32), np.zeros(0, np.int64), np.zeros(0, np.int64)
    regions, count = components(mask)
    classes = np.zeros(count, np.int64)
    classes[regions] = mask
    pixels = np.bincount(regions.reshape(-1), minlength=count)
    kept = ~np.isin(classes, ignored)
    numbers = np.where(kept, np.cumsum(kept) - 1, _NO_REGION).astype(np.int32)
    return numbers[regions], classes[kept], pixels[kept]


def _segments(
    regions: NDArray[np.int32],
) -> tuple[Ints, Ints, NDArray[np.bool_], Ints, tuple[NDArray[np.bool_], NDArray[np.bool_]]]:
    """List the straight segments of borders, from one corner to the next.

    Returns:
        The corners where segments start and stop, as row × (W + 1) + column; whether each is horizontal; the regions to the
        right of each on the way forth and back (N, 2); whether the corner at its start, and at its stop, is a node.
    """
    padded = np.pad(regions, 1, constant_values=_NO_REGION)
    height, width = regions.shape
    across = padded[:-1, 1:-1] != padded[1:, 1:-1]  # (H + 1, W), edges along rows
    down = padded[1:-1, :-1] != padded[1:-1, 1:]  # (H, W + 1), edges along columns
    after, before = np.zeros((2, height + 1, width + 1), bool)
    below, above = np.zeros((2, height + 1, width + 1), bool)
    after[:, :-1] = before[:, 1:] = across
    below[:-1] = above[1:] = down
    node = after.view(np.int8) + before.view(np.int8) + below.view(np.int8) + above.view(np.int8) > 2
    corner = node | (after != before) | (below != above)
    forth = _split(across, corner, node, padded[1:, 1:-1], padded[:-1, 1:-1])
    back = _split(down.T, corner.T, node.T, padded[1:-1, :-1].T, padded[1:-1, 1:].T)
    starts, stops = (
        np.concatenate([first[0] * (width + 1) + first[1], second[1] * (width + 1) + second[0]])
        for first, second in zip(forth[:2], back[:2], strict=True)
    )
    horizontal = np.arange(len(starts)) < len(forth[2])
    owners = np.concatenate([forth[2], back[2]])
    first, last = (np.concatenate(pair) for pair in zip(forth[3:], back[3:], strict=True))
    return starts, stops, horizontal, owners, (first, last)


def _split(
    edges: NDArray[np.bool_],
    corner: NDArray[np.bool_],
    node: NDArray[np.bool_],
    right: NDArray[np.int32],
    left: NDArray[np.int32],
) -> tuple[Ints, Ints, Ints, NDArray[np.bool_], NDArray[np.bool_]]:
    """Join edges along rows up to the next corner: starts and stops (2, N), regions beside (N, 2), nodes at both ends."""
    row, column = np.nonzero(edges)
    first = corner[row, column]
    last = corner[row, column + 1]
    starts = np.stack([row[first], column[first]])
    stops = np.stack([row[last], column[last] + 1])
    owners = np.stack([right[tuple(starts)], left[tuple(starts)]], 1).astype(np.int64)
    return starts, stops, owners, node[tuple(starts)], node[tuple(stops)]


def _following(corners: Ints, nodes: NDArray[np.bool_]) -> Ints:
    """Return the half segment after each half segment; -1 at nodes. At other corners exactly two segments meet."""
    order = np.argsort(corners, kind="stable")
    pairs = order[~nodes[order]].reshape(-1, 2)
    partner = np.full(len(corners), -1, np.int64)
    partner[pairs] = pairs[:, ::-1]
    return partner[np.arange(len(corners)) ^ 1]


def _chains(following: list[int], from_nodes: list[int]) -> tuple[Ints, Ints]:
    """Return the half segments of all arcs, in one direction each, and where each arc begins."""
    visited = bytearray(len(following) // 2)
    chain: list[int] = []
    first: list[int] = []
    for starts in (from_nodes, range(0, len(following), 2)):
        for half in starts:
            if visited[half >> 1]:
                continue
            first.append(len(chain))
            while half >= 0 and not visited[half >> 1]:
                visited[half >> 1] = 1
                chain.append(half)
                half = following[half]
    return np.array(chain, np.int64), np.array(first, np.int64)


def _rings(begin: Ints, direction: Ints, owner: Ints, node: NDArray[np.bool_]) -> tuple[Ints, Ints]:
    """Join half arcs to rings.

    Args:
        begin: (2A,), the corner at which each half arc begins; it ends where its reverse begins.
        direction: (2A,), of its first segment: 0 right, then clockwise.
        owner: (2A,), the region to its right.
        node: (2A,), whether that corner is a node; others are those of closed arcs.
    """
    reverse = np.arange(len(begin)) ^ 1
    arrival = (direction[reverse] + 2) % 4
    order = np.argsort(begin * 4 + direction, kind="stable")
    keys = (begin * 4 + direction)[order]
    following = np.arange(len(begin))
    at_node = node[reverse]
    for turn in (1, 0, 3):  # the left turn comes last and wins, so that no ring passes a corner twice
        candidates = begin[reverse] * 4 + (arrival + turn) % 4
        at = np.minimum(np.searchsorted(keys, candidates), len(keys) - 1)
        fits = at_node & (keys[at] == candidates) & (owner[order[at]] == owner)
        following = np.where(fits, order[at], following)
    return _cycles(following.tolist(), owner.tolist())


def _cycles(following: list[int], owner: list[int]) -> tuple[Ints, Ints]:
    """Return the half arcs of all rings of regions, and where each ring begins, with the end of the last."""
    visited = bytearray(len(following))
    arcs: list[int] = []
    starts: list[int] = []
    for start in range(len(following)):
        if visited[start] or owner[start] < 0:
            continue
        starts.append(len(arcs))
        arc = start
        while not visited[arc]:
            visited[arc] = 1
            arcs.append(arc)
            arc = following[arc]
    return np.array(arcs, np.int64), np.array([*starts, len(arcs)], np.int64)


def _areas(points: Ints, starts: Ints, arcs: Ints, ring_starts: Ints) -> Ints:
    """Return twice the signed area of each ring; positive if clockwise on screen."""
    if not len(arcs):
        return np.zeros(0, np.int64)
    (x0, y0), (x1, y1) = points[:-1].T, points[1:].T
    cross = np.append(x0 * y1 - x1 * y0, 0)
    cross[starts[1:] - 1] = 0  # from the end of an arc to the start of the next
    of_arc = np.add.reduceat(cross, starts[:-1])
    return np.add.reduceat(np.where(arcs & 1, -1, 1) * of_arc[arcs >> 1], ring_starts[:-1])
