"""Simplify the borders of regions without changing how regions touch and contain each other.

Points are removed one by one, those first that move a border least (Visvalingam & Whyatt 1993, doi:10.1179/000870493786962263, with
distances instead of areas). A point may go if no other point of any border lies in the triangle with its neighbours: then no border can
cross the new edge, and nothing can change sides. Neighbours share their borders, so that both stay equal.
"""

from __future__ import annotations

import heapq
from collections import defaultdict

import numpy as np
from numpy.typing import NDArray

from pixelwise.geometry.pixel_polygons import Borders

Points = NDArray[np.float64]
# Side of the cells in which points are looked up, in pixels.
_CELL = 8.0
# A distance that differs by less is equal to the tolerance.
_ROUNDING = 1e-9
_FEW = 20


def simplified(borders: Borders, tolerance: float) -> Borders:
    """Return borders with fewer points, none of whose former points is farther from the new border than a tolerance.

    Ends of arcs, where several borders meet, stay. Rings stay simple, and keep at least three points.

    Args:
        borders: along pixel edges.
        tolerance: in pixels; 0 changes nothing.
    """
    if tolerance <= 0 or not len(borders.points):
        return borders
    kept = _Simplification(borders.points, borders.starts, tolerance).run()
    counts = np.add.reduceat(kept.astype(np.int64), borders.starts[:-1])
    return borders.with_points(borders.points[kept], np.append(0, np.cumsum(counts)))


class _Simplification:
    """Points of all arcs as linked lists, with the edges and the points that are left."""

    def __init__(self, points: Points, starts: NDArray[np.int64], tolerance: float) -> None:
        self.points, self.limit = points, tolerance + _ROUNDING
        self.at = [tuple(point) for point in points.tolist()]
        count = len(points)
        self.before, self.after = list(range(-1, count - 1)), list(range(1, count + 1))
        self.kept = np.ones(count, np.bool_)
        self.fixed = np.zeros(count, np.bool_)
        self.fixed[starts[:-1]] = self.fixed[starts[1:] - 1] = True
        self.edges: dict[tuple[tuple[float, ...], tuple[float, ...]], int] = defaultdict(int)
        for i in np.flatnonzero(np.isin(np.arange(count), starts[1:] - 1, invert=True)).tolist():
            self.edges[self._edge(i, i + 1)] += 1
        self.cells: dict[tuple[int, int], set[int]] = defaultdict(set)
        for i, (x, y) in enumerate(self.at):
            self.cells[int(x // _CELL), int(y // _CELL)].add(i)

    def run(self) -> NDArray[np.bool_]:
        """Return which points are kept."""
        queue = [
            (distance, i) for i in np.flatnonzero(~self.fixed).tolist() if (distance := self._distance(i)) <= self.limit
        ]
        heapq.heapify(queue)
        while queue:
            distance, i = heapq.heappop(queue)
            if not self.kept[i] or distance != self._distance(i) or not self._may_go(i):
                continue
            a, c = self.before[i], self.after[i]
            self._remove(i, a, c)
            for j in (a, c):
                if not self.fixed[j] and (moved := self._distance(j)) <= self.limit:
                    heapq.heappush(queue, (moved, j))
        return self.kept

    def _edge(self, i: int, j: int) -> tuple[tuple[float, ...], tuple[float, ...]]:
        first, second = self.at[i], self.at[j]
        return (first, second) if first <= second else (second, first)

    def _distance(self, i: int) -> float:
        """Return the largest distance of the former points between the neighbours of a point from the edge without it."""
        a, c = self.before[i], self.after[i]
        (ax, ay), (cx, cy) = self.at[a], self.at[c]
        dx, dy = cx - ax, cy - ay
        length = dx * dx + dy * dy or 1.0
        if c - a <= _FEW:  # numpy takes longer for these
            squares = []
            for x, y in self.at[a + 1 : c]:
                share = min(max(((x - ax) * dx + (y - ay) * dy) / length, 0.0), 1.0)
                squares.append((x - ax - share * dx) ** 2 + (y - ay - share * dy) ** 2)
            return float(max(squares) ** 0.5)
        away = self.points[a + 1 : c] - (ax, ay)
        shares = (away @ (dx, dy) / length).clip(0, 1)
        return float(((away - shares[:, None] * (dx, dy)) ** 2).sum(1).max() ** 0.5)

    def _may_go(self, i: int) -> bool:
        """Whether no other point is in the triangle of a point and its neighbours, and the new edge is not one that exists."""
        a, c = self.before[i], self.after[i]
        corners = (self.at[a], self.at[i], self.at[c])
        if corners[0] == corners[2] or self.edges[self._edge(a, c)]:
            return False
        (low_x, high_x), (low_y, high_y) = ((min(values), max(values)) for values in zip(*corners, strict=True))
        for column in range(int(low_x // _CELL), int(high_x // _CELL) + 1):
            for row in range(int(low_y // _CELL), int(high_y // _CELL) + 1):
                for j in self.cells.get((column, row), ()):
                    if self.at[j] not in corners and _is_inside(self.at[j], corners):
                        return False
        return True

    def _remove(self, i: int, a: int, c: int) -> None:
        self.kept[i] = False
        self.after[a], self.before[c] = c, a
        self.edges[self._edge(a, i)] -= 1
        self.edges[self._edge(i, c)] -= 1
        self.edges[self._edge(a, c)] += 1
        x, y = self.at[i]
        self.cells[int(x // _CELL), int(y // _CELL)].discard(i)


def _is_inside(point: tuple[float, ...], corners: tuple[tuple[float, ...], ...]) -> bool:
    """Whether a point is in a triangle or on its border."""
    x, y = point
    sides = [
        (bx - ax) * (y - ay) - (by - ay) * (x - ax)
        for (ax, ay), (bx, by) in zip(corners, (*corners[1:], corners[0]), strict=True)
    ]
    return min(sides) >= 0 or max(sides) <= 0
