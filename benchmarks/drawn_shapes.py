"""Shapes of known sizes, drawn into masks at any angle and place between the pixels: a pixel belongs to a shape if its centre does."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import KDTree

Floats = NDArray[np.float64]
_STEP = 0.05


@dataclass(frozen=True, eq=False)
class Thin:
    """All points closer than half the width to a line, or to several lines that begin at one point.

    Args:
        lines: (N, 2) each, as y and x.
        width: of the shape, in the unit of the lines.
        flat: whether free ends are cut at right angles; otherwise they are half discs.
        closed: whether the lines end where they begin.
    """

    lines: tuple[Floats, ...]
    width: float
    flat: bool = True
    closed: bool = False

    @property
    def length(self) -> float:
        """Length along the middle, up to the contour at free ends; branches are counted from the common point."""
        total = sum(float(np.linalg.norm(np.diff(line, axis=0), axis=1).sum()) for line in self.lines)
        ends = 0 if self.closed or self.flat else 2 if len(self.lines) == 1 else len(self.lines)
        return total + ends * self.width / 2

    def draw(self, angle: float, shift: Floats, matrix: Floats) -> NDArray[np.bool_]:
        """Return a mask whose pixel centres are inside: turned by an angle, moved by a part of a pixel (2,), on pixels of a matrix (2, 2)."""
        turn = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
        lines = [_dense(line) @ turn.T for line in self.lines]
        inverse = np.linalg.inv(matrix)
        reached = np.concatenate(lines) @ inverse.T
        margin = self.width * np.linalg.norm(inverse, 2) / 2 + 2
        start = np.floor(reached.min(0) - margin)
        shape = np.ceil(reached.max(0) + margin - start).astype(int)
        places = np.stack(np.meshgrid(*(np.arange(size) for size in shape), indexing="ij"), -1).reshape(-1, 2)
        points = (places + start + shift) @ matrix.T
        found = np.zeros(len(points), np.bool_)
        for line in lines:
            found |= self._near(line, points)
        return found.reshape(shape)

    def _near(self, line: Floats, points: Floats) -> NDArray[np.bool_]:
        distance, nearest = KDTree(line).query(points, distance_upper_bound=self.width / 2)
        found = np.isfinite(distance)
        if self.flat and not self.closed:
            for end, direction in ((-1, line[-1] - line[-2]), (0, line[0] - line[1]))[
                : 2 if len(self.lines) == 1 else 1
            ]:
                beyond = (points - line[end]) @ direction > 0
                found &= ~(beyond & (nearest == end % len(line)))
        return found


def strip(length: float, width: float, flat: bool = True) -> Thin:
    half = length / 2
    return Thin((np.array([(0.0, -half), (0.0, half)]),), width, flat)


def arc(length: float, width: float, turn: float, flat: bool = True) -> Thin:
    """An arc that turns by an angle."""
    angle = np.linspace(-turn / 2, turn / 2, 500)
    return Thin((length / turn * np.stack([np.sin(angle), np.cos(angle)], -1),), width, flat)


def ring(length: float, width: float) -> Thin:
    angle = np.linspace(0, 2 * np.pi, 1000)
    return Thin((length / (2 * np.pi) * np.stack([np.sin(angle), np.cos(angle)], -1),), width, closed=True)


def star(length: float, width: float, angles: tuple[float, ...], flat: bool = True) -> Thin:
    """Branches of equal lengths from one point, in given directions (degrees): a Y, a T, a cross."""
    each = length / len(angles)
    ends = [each * np.array([np.sin(a), np.cos(a)]) for a in np.deg2rad(angles)]
    return Thin(tuple(np.stack([np.zeros(2), end]) for end in ends), width, flat)


def wave(length: float, width: float, waves: float, slope: float, flat: bool = True) -> Thin:
    """A sine curve of a number of waves and a largest slope."""
    x = np.linspace(0, 1, 4000)
    y = slope / (2 * np.pi * waves) * np.sin(2 * np.pi * waves * x)
    return Thin((_of_length(np.stack([y, x], -1), length),), width, flat)


def spiral(length: float, width: float, turns: float, flat: bool = True) -> Thin:
    angle = np.linspace(np.pi, np.pi + 2 * np.pi * turns, 4000)
    return Thin((_of_length(angle[:, None] * np.stack([np.sin(angle), np.cos(angle)], -1), length),), width, flat)


def filled(
    inside: Callable[[Floats, Floats], NDArray[np.bool_]], reach: float, rng: np.random.Generator
) -> NDArray[np.bool_]:
    """Return a mask of a shape around the origin, given by a condition, turned and moved at random."""
    angle, places = rng.uniform(0, np.pi), np.arange(-np.ceil(reach) - 2, np.ceil(reach) + 3)
    y, x = np.meshgrid(places + rng.random(), places + rng.random(), indexing="ij")
    return inside(x * np.cos(angle) + y * np.sin(angle), y * np.cos(angle) - x * np.sin(angle))


def body(inside: Callable[[Floats], NDArray[np.bool_]], reach: float, rng: np.random.Generator) -> NDArray[np.bool_]:
    """Return a mask of a body around the origin, given by a condition on points (…, 3), turned and moved at random."""
    places = np.arange(-np.ceil(reach) - 2, np.ceil(reach) + 3)
    points = np.stack(np.meshgrid(places, places, places, indexing="ij"), -1) + rng.random(3)
    return inside(points @ np.linalg.qr(rng.normal(size=(3, 3))).Q)


def _of_length(line: Floats, length: float) -> Floats:
    return np.asarray(line * length / np.linalg.norm(np.diff(line, axis=0), axis=1).sum())


def _dense(line: Floats) -> Floats:
    along = np.concatenate([[0.0], np.cumsum(np.linalg.norm(np.diff(line, axis=0), axis=1))])
    at = np.linspace(0, along[-1], int(along[-1] / _STEP) + 2)
    return np.stack([np.interp(at, along, line[:, axis]) for axis in (0, 1)], -1)
