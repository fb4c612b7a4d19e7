"""Images that look alike: for each of them the nearest of its own part and the nearest of another, by their sketches.

Comes in: sketches as vectors, and the part of each. Goes out: who is near, and how far. Knows nothing of files or of what is
made of it.

The distance of two images is 1 - the correlation of what they look like from afar (see `sketch`): 0 for copies, about 1
for images that have nothing in common. No pair within the limit is missed: pairs are compared block by block along the few
coordinates that differ most, along which they cannot be further apart than along all; only what is left is compared in full.
What is kept grows with the number of images alone, however many of them are alike.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

_BLOCK = 4096
_FIRST = 40  # coordinates that are compared first
_PAIRS = 50_000  # up to which pairs are compared one by one
_DRAWN = 4096
_ROUNDING = 1e-4
FAR = 9.0  # no partner

Vectors = NDArray[np.float32]


class Nearest(NamedTuple):
    """Hold the nearest other image of each, if it is within the limit: its place, else -1, and its distance."""

    place: NDArray[np.int64]
    distance: Vectors

    @classmethod
    def none(cls, count: int) -> Nearest:
        """Begin with nobody near."""
        return cls(np.full(count, -1, np.int64), np.full(count, FAR, np.float32))

    def take(self, mine: NDArray[np.int64], theirs: NDArray[np.int64], distances: Vectors) -> None:
        """Keep what is nearer than what was known; whoever stands in `mine` more than once gets the nearest."""
        order = np.argsort(-distances, kind="stable")  # of equal places the last one stays
        mine, theirs, distances = mine[order], theirs[order], distances[order]
        nearer = distances < self.distance[mine]
        self.distance[mine[nearer]] = distances[nearer]
        self.place[mine[nearer]] = theirs[nearer]


def nearest(vectors: Vectors, splits: Sequence[str], limit: float) -> tuple[Nearest, Nearest]:
    """Find the nearest image of the same part, and of any other part.

    Args:
        vectors: (N, D) of length 1.
        splits: the split of each, those of one split side by side.
        limit: distance beyond which nobody is near.
    """
    inside, across = Nearest.none(len(vectors)), Nearest.none(len(vectors))
    left, right = _first(vectors)
    blocks = [
        slice(k, min(k + _BLOCK, mine.stop))
        for mine in _stretches(splits)
        for k in range(mine.start, mine.stop, _BLOCK)
    ]
    for number, rows in enumerate(blocks):
        for columns in blocks[number:]:
            # The product is minus half the squared distance along the first coordinates.
            near = left[rows] @ right[:, columns] >= -limit - _ROUNDING
            if near.any():
                best = inside if splits[rows.start] == splits[columns.start] else across
                _compare(vectors, near, (rows.start, columns.start), best, limit)
    return inside, across


def _first(vectors: Vectors) -> tuple[Vectors, Vectors]:
    """Give the coordinates that differ most, with what makes a product of two of them minus half their squared distance."""
    first = vectors[:, np.argsort(-vectors.var(0), kind="stable")[:_FIRST]]
    half = np.square(first).sum(1, keepdims=True) / -2
    one = np.ones_like(half)
    return np.hstack([first, half, one]), np.ascontiguousarray(np.hstack([first, one, half]).T)


def _compare(vectors: Vectors, near: NDArray[np.bool_], start: tuple[int, int], best: Nearest, limit: float) -> None:
    """Compare the pairs of a block that may be near in full, for either side."""
    if np.count_nonzero(near) <= _PAIRS:
        mine, theirs = (places + first for places, first in zip(np.nonzero(near), start, strict=True))
        distances = 1 - np.einsum("nd,nd->n", vectors[mine], vectors[theirs])
        kept = (mine != theirs) & (distances <= limit)
        mine, theirs, distances = mine[kept], theirs[kept], np.maximum(distances[kept], 0)
        best.take(mine, theirs, distances)
        best.take(theirs, mine, distances)
        return
    mine, theirs = (np.flatnonzero(near.any(axis)) + first for axis, first in zip((1, 0), start, strict=True))
    apart = 1 - vectors[mine] @ vectors[theirs].T
    apart[mine[:, None] == theirs] = FAR  # nobody is his own partner
    for one, other, all_of_them in ((mine, theirs, apart), (theirs, mine, apart.T)):
        place = all_of_them.argmin(1)
        found = all_of_them[np.arange(len(one)), place]
        kept = found <= limit
        best.take(one[kept], other[place[kept]], np.maximum(found[kept], 0))


def _stretches(splits: Sequence[str]) -> list[slice]:
    """Give where each part lies."""
    borders = [0, *(k for k in range(1, len(splits)) if splits[k] != splits[k - 1]), len(splits)]
    return [slice(one, two) for one, two in itertools.pairwise(borders) if two > one]


def usual_distance(vectors: Vectors, known: NDArray[np.int64]) -> float:
    """Give the median distance of pairs drawn at random, the same every time; those of equal numbers in `known` are left out."""
    count = len(vectors)
    if count < 2:
        return 1.0
    one, two = np.random.default_rng(0).integers(0, count, (2, _DRAWN))
    apart = known[one] != known[two]
    if not apart.any():
        return 1.0
    one, two = one[apart], two[apart]
    return float(np.median(1 - np.einsum("nd,nd->n", vectors[one], vectors[two])))
