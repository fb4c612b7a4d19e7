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

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from pixelwise.geometry.contours import components

Ints = NDArray[np.int64]
Points = NDArray[np.float64]
_NONE = -1  # the value and the region of pixels of no region, and outside of the mask


@dataclass(frozen=True, eq=False)
class PixelPolygon:
    """A region of 4-connected pixels of one class.

    Args:
        class_index: of the pixels.
        pixels: number of pixels.
        size: sum of the sizes of the pixels.
        outer: (N, 2) points x, y, clockwise on screen; the first is not repeated at the end.
        holes: rings of the same kind, counter-clockwise.
    """

    class_index: int
    pixels: int
    size: float
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
        classes, pixels, sizes: (R,), class index, number of pixels and sum of their sizes of each region, by their first
            pixels row by row.
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
    sizes: Points
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
                size = float(self.sizes[region])
                yield PixelPolygon(int(self.classes[region]), int(self.pixels[region]), size, outer, tuple(holes))


def find_borders(
    bands: Iterable[NDArray[Any]],
    ignored: Sequence[int] = (),
    sizes: Callable[[slice], NDArray[np.float64]] | None = None,
) -> Borders:
    """Find the borders of all regions of a mask.

    Memory holds one band and all borders, so it grows with the length of the borders and not with the number of pixels.

    Args:
        bands: (h, W) class indices each, from the top of the mask to its bottom.
        ignored: values of pixels that belong to no region.
        sizes: returns the sizes of the pixels in some rows, in a shape that broadcasts to theirs; None for 1 each.
    """
    scan = _Scan(ignored, sizes)
    for band in bands:
        if band.size:
            scan.add(band)
    corners, owner, horizontal, classes, pixels, areas = scan.finish()
    # End 2k is the first corner of segment k, end 2k + 1 its last. Half segment 2k runs from the first to the last corner,
    # 2k + 1 back: half segment h begins at end h, and ends at end h ^ 1.
    following = _following(corners)
    nodes = following[np.arange(len(corners)) ^ 1] < 0
    chain, first = _chains(following.tolist(), np.flatnonzero(nodes).tolist(), 2 * np.flatnonzero(horizontal))
    last = np.append(first, len(chain))[1:] - 1
    direction = np.where(np.repeat(horizontal, 2), 0, 1) + np.tile([0, 2], len(horizontal))
    points, starts = _arc_points(corners, direction, chain, first, last, scan.width)
    ends = np.stack([chain[first], chain[last] ^ 1], 1).reshape(-1)  # where each half arc begins
    arcs, ring_starts = _rings(corners[ends], direction[ends], owner[ends], nodes[ends])
    return Borders(
        points.astype(np.float64),
        starts,
        owner[chain[first]],
        owner[chain[first] ^ 1],
        classes,
        pixels,
        areas,
        arcs,
        ring_starts,
        owner[ends][arcs[ring_starts[:-1]]],
        _areas(points, starts, arcs, ring_starts) < 0,
    )


class _Scan:
    """Collect the straight segments of borders band by band. A segment down the columns ends at the end of its band."""

    def __init__(self, ignored: Sequence[int], sizes: Callable[[slice], NDArray[np.float64]] | None) -> None:
        self.ignored, self.sizes = list(ignored), sizes
        self.width = self.rows = self.count = 0
        self._last: NDArray[np.int32] | None = None  # (2, W + 2) values and regions of the last row, with a margin
        self._segments: list[tuple[Ints, Ints, NDArray[np.bool_]]] = []
        self._regions: list[tuple[Ints, Ints, Points]] = []
        self._joined: list[Ints] = []

    def add(self, band: NDArray[Any]) -> None:
        """Add the next rows of the mask, (h, W)."""
        values = band.astype(np.int32)
        values[np.isin(band, self.ignored)] = _NONE
        sizes = None if self.sizes is None else self.sizes(slice(self.rows, self.rows + len(band)))
        regions, classes, pixels, areas = _regions(values, sizes)
        self._regions.append((classes, pixels, areas))
        regions[regions >= 0] += self.count
        self.count += len(classes)
        self._scan(values, regions)

    def finish(self) -> tuple[Ints, Ints, NDArray[np.bool_], Ints, Ints, Points]:
        """Return segments and regions.

        These are the corners at both ends of all segments (2N,), the region to the right of each on the way forth and back
        (2N,), and whether each is horizontal (N,); the class, the number of pixels and the size of each region (R,).
        """
        if not self.width:
            none = np.zeros(0, np.int64)
            return none, none, none.astype(bool), none, none, none.astype(np.float64)
        outside = np.full((1, self.width), _NONE, np.int32)
        self._scan(outside, outside)  # for the edges below the last row
        corners, owners, horizontal = (np.concatenate(parts) for parts in zip(*self._segments, strict=True))
        upper, lower = np.concatenate(self._joined, 1)
        graph = coo_array((np.ones(len(upper), bool), (upper, lower)), shape=(self.count, self.count))
        total, numbers = connected_components(graph, directed=False)
        of_bands = [np.concatenate(parts) for parts in zip(*self._regions, strict=True)]
        classes, pixels = np.zeros((2, total), np.int64)
        sizes = np.zeros(total)
        classes[numbers] = of_bands[0]
        np.add.at(pixels, numbers, of_bands[1])
        np.add.at(sizes, numbers, of_bands[2])
        numbers = np.append(numbers, _NONE).astype(np.int64)  # -1 stays -1
        return corners.reshape(-1), numbers[owners.reshape(-1)], horizontal, classes, pixels, sizes

    def _scan(self, values: NDArray[np.int32], regions: NDArray[np.int32]) -> None:
        """Add the edges above each row of a band and those between its columns."""
        height, self.width = values.shape
        rows = np.pad(np.stack([values, regions]), ((0, 0), (0, 0), (1, 1)), constant_values=_NONE)
        before = np.full_like(rows[:, 0], _NONE) if self._last is None else self._last
        values, regions = np.concatenate([before[:, None], rows], 1)
        self._last = rows[:, -1].copy()
        same = (values[0] == values[1]) & (values[0] != _NONE)
        self._joined.append(regions[:2, same].astype(np.int64))
        across = values[:-1, 1:-1] != values[1:, 1:-1]  # (h, W), above each row
        down = values[:, :-1] != values[:, 1:]  # (h + 1, W + 1), also of the row before the band
        right, left = np.zeros((2, height, self.width + 1), bool)
        right[:, :-1] = left[:, 1:] = across
        degree = sum(edges.view(np.int8) for edges in (right, left, down[:-1], down[1:]))
        corner = np.ones((height + 1, self.width + 1), bool)
        corner[:-1] = (degree > 2) | (right != left)
        forth = _split(across, corner[:-1], regions[1:, 1:-1], regions[:-1, 1:-1])
        corner[0] = True
        back = _split(down[1:].T, corner.T, regions[1:, :-1].T, regions[1:, 1:].T)
        for (ends, owners), (row, column) in ((forth, (0, 1)), (back, (1, 0))):
            corners = (ends[row] + self.rows) * (self.width + 1) + ends[column]
            self._segments.append((corners, owners, np.full(len(owners), row == 0)))
        self.rows += height


def _regions(
    values: NDArray[np.int32], sizes: NDArray[np.float64] | None
) -> tuple[NDArray[np.int32], Ints, Ints, Points]:
    """Return the number of the region of each pixel, -1 for none, and class, pixels and size of each region."""
    regions, count = components(values)
    classes = np.zeros(count, np.int64)
    classes[regions] = values
    pixels = np.bincount(regions.reshape(-1), minlength=count)
    kept = classes != _NONE
    numbers = np.where(kept, np.cumsum(kept) - 1, _NONE).astype(np.int32)
    areas = pixels.astype(np.float64)
    if sizes is not None:
        weights = np.broadcast_to(sizes, values.shape).reshape(-1)
        areas = np.bincount(regions.reshape(-1), weights=weights, minlength=count).astype(np.float64)
    return numbers[regions], classes[kept], pixels[kept], areas[kept]


def _split(
    edges: NDArray[np.bool_], corner: NDArray[np.bool_], right: NDArray[np.int32], left: NDArray[np.int32]
) -> tuple[Ints, Ints]:
    """Join edges along rows up to the next corner: row and column of both ends, (2, N, 2), and the regions beside, (N, 2)."""
    row, column = np.nonzero(edges)
    first = corner[row, column]
    last = corner[row, column + 1]
    ends = np.stack([np.stack([row[first], row[last]], 1), np.stack([column[first], column[last] + 1], 1)])
    owners = np.stack([right[row[first], column[first]], left[row[first], column[first]]], 1)
    return ends, owners.astype(np.int64)


def _following(corners: Ints) -> Ints:
    """Return the half segment after each half segment; -1 at nodes, where three or four meet. Elsewhere exactly two do."""
    order = np.argsort(corners, kind="stable")
    starts = np.flatnonzero(np.diff(corners[order], prepend=-1))
    counts = np.diff(np.append(starts, len(order)))
    pairs = order[starts[counts == 2, None] + np.arange(2)]
    partner = np.full(len(corners), -1, np.int64)
    partner[pairs] = pairs[:, ::-1]
    return partner[np.arange(len(corners)) ^ 1]


def _chains(following: list[int], from_nodes: list[int], closed: Ints) -> tuple[Ints, Ints]:
    """Return the half segments of all arcs, in one direction each, and where each arc begins.

    Args:
        following: the half segment after each; -1 at nodes.
        from_nodes: those that begin at a node.
        closed: where arcs without nodes may begin.
    """
    visited = bytearray(len(following) // 2)
    chain: list[int] = []
    first: list[int] = []
    for half in (*from_nodes, *closed.tolist()):
        if visited[half >> 1]:
            continue
        first.append(len(chain))
        while half >= 0 and not visited[half >> 1]:
            visited[half >> 1] = 1
            chain.append(half)
            half = following[half]
    return np.array(chain, np.int64), np.array(first, np.int64)


def _arc_points(corners: Ints, direction: Ints, chain: Ints, first: Ints, last: Ints, width: int) -> tuple[Ints, Ints]:
    """Return the points of all arcs, without those on straight lines, and where each arc begins, with the end of the last."""
    turns = np.ones(len(chain), bool)
    turns[1:] = direction[chain[1:]] != direction[chain[:-1]]
    turns[first] = True
    places = np.insert(corners[chain], last + 1, corners[chain[last] ^ 1])
    kept = np.insert(turns, last + 1, True)
    places = places[kept]
    counts = np.add.reduceat(turns.astype(np.int64), first) + 1 if len(first) else first
    return np.stack([places % (width + 1), places // (width + 1)], 1), np.append(0, np.cumsum(counts))


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
