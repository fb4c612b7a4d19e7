"""Search for similar signatures under the eight symmetries of the square, so that turned and mirrored copies are found.

Mirroring an image changes the sign of the coefficients of odd frequency along that axis, and transposing it transposes
them. So no image is decoded again, and the coefficients' absolute values (the values, if both frequencies are even), sorted
in each pair of transposed places, are the same for all eight variants. These invariants bound the distance from below: for any numbers, ||a| - |b|| ≤ |a - b|,
and of two pairs of numbers sorted in the same order the sum of squared differences is the least. The same holds for the
first invariants with the norm of the others as one more (Cauchy and Schwarz). Pairs that these few numbers cannot rule
out are compared exactly, so that no pair is missed.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pixelwise.checking.image_signature import FREQUENCIES

Vectors = NDArray[np.float32]
Places = NDArray[np.int64]

# What turns the first image of a pair into the second, clockwise; in the order of `correlations`.
SYMMETRIES = (
    "",
    "mirrored",
    "mirrored upside down",
    "turned by 180°",
    "turned by 90° and mirrored",
    "turned by 270°",
    "turned by 90°",
    "turned by 270° and mirrored",
)
_INVARIANTS = 32  # compared first
_BLOCK = 512  # vectors; a block of distances stays in the processor's cache
_DENSE = 0.03  # share of the pairs of a block beyond which comparing all is faster
_PAIRS = 1 << 16  # compared at once
_NONE = 9.0  # distance of images without a neighbour
_ROUNDING = 1e-5


class Nearest(NamedTuple):
    """Index of the nearest other image (`neighbour`) of each image, -1 if none is within the limit, and its distance."""

    neighbour: NDArray[np.int64]
    distance: NDArray[np.float32]

    @classmethod
    def of(cls, count: int) -> Nearest:
        """Return no neighbours of a number of images."""
        return cls(np.full(count, -1), np.full(count, _NONE, np.float32))

    def update(self, images: Places, others: Places, distance: NDArray[np.float32]) -> None:
        """Replace neighbours by nearer ones: `others[k]` is at `distance[k]` from `images[k]`."""
        nearer = distance < self.distance[images]
        images, others, distance = images[nearer][::-1], others[nearer][::-1], distance[nearer][::-1]
        np.minimum.at(self.distance, images, distance)
        best = distance == self.distance[images]
        self.neighbour[images[best]] = others[best]  # the last assignment remains, which is the first of equal ones


def correlations(first: Vectors, second: Vectors) -> NDArray[np.float32]:
    """Compute the correlations (N, 8) of the vectors (N, 143) of two images for each of `SYMMETRIES`."""
    sums = ((first * others) @ _PARITY for others in (second, second[:, _TRANSPOSED]))
    return np.concatenate([kinds @ _SIGNS for kinds in sums], axis=1, dtype=np.float32)


def turn(vectors: Vectors, symmetry: Places) -> Vectors:
    """Turn the images of vectors (N, 143) so that they lie like those of the first image of a pair.

    Args:
        vectors: of the second images.
        symmetry: (N,), the place in `SYMMETRIES`.
    """
    as_they_are = np.where(symmetry[:, None] < len(_SIGNS), vectors, vectors[:, _TRANSPOSED])
    return as_they_are * (_PARITY @ _SIGNS).T[symmetry % len(_SIGNS)]


def typical_distance(vectors: Vectors, identity: NDArray[np.int64]) -> float:
    """Compute the median distance of random pairs (fixed seed) whose `identity` numbers differ; 1 if there are none."""
    if len(vectors) < 2:
        return 1.0
    first, second = np.random.default_rng(0).integers(0, len(vectors), (2, 4096))
    differ = identity[first] != identity[second]
    if not differ.any():
        return 1.0
    return float(np.median(1 - correlations(vectors[first[differ]], vectors[second[differ]]).max(axis=1)))


def nearest(vectors: Vectors, splits: Sequence[str], limit: float) -> tuple[Nearest, Nearest]:
    """Find the nearest image of the same split and of any other split, under any of `SYMMETRIES`.

    Args:
        vectors: (N, 143) of length 1.
        splits: the split of each image; images of one split are adjacent.
        limit: greatest distance of neighbours.
    """
    inside, across = Nearest.of(len(vectors)), Nearest.of(len(vectors))
    invariants = _first_invariants(vectors)
    for rows, columns in block_pairs(splits):
        possible = invariants[rows] @ invariants[columns].T >= 1 - limit - _ROUNDING
        if rows == columns:
            possible = np.triu(possible, 1)
        if possible.any():
            found = inside if splits[rows.start] == splits[columns.start] else across
            _compare(vectors, rows, columns, possible, limit, found)
    return inside, across


def block_pairs(splits: Sequence[str]) -> Iterator[tuple[slice, slice]]:
    """Yield all pairs of blocks of images, each block in one split; the splits are those of `nearest`."""
    count = len(splits)
    borders = [0, *(k for k in range(1, count) if splits[k] != splits[k - 1]), count]
    blocks = [
        slice(start, min(start + _BLOCK, end))
        for begin, end in itertools.pairwise(borders)
        for start in range(begin, end, _BLOCK)
    ]
    return itertools.combinations_with_replacement(blocks, 2)


def _compare(
    vectors: Vectors, rows: slice, columns: slice, possible: NDArray[np.bool_], limit: float, found: Nearest
) -> None:
    """Compare the `possible` pairs of a block."""
    if np.count_nonzero(possible) > _DENSE * possible.size:
        distance = 1 - largest_correlation(vectors[rows], vectors[columns])
        first, second = np.nonzero((distance <= limit) & possible)
        _update(found, first + rows.start, second + columns.start, distance[first, second])
        return
    places = np.flatnonzero(possible)
    for start in range(0, len(places), _PAIRS):
        first, second = np.divmod(places[start : start + _PAIRS], possible.shape[1])
        first, second = first + rows.start, second + columns.start
        distance = 1 - correlations(vectors[first], vectors[second]).max(axis=1)
        near = distance <= limit
        _update(found, first[near], second[near], distance[near])


def _update(found: Nearest, first: Places, second: Places, distance: NDArray[np.float32]) -> None:
    distance = np.maximum(distance, 0)
    found.update(first, second, distance)
    found.update(second, first, distance)


def largest_correlation(rows: Vectors, columns: Vectors, used: NDArray[np.bool_] | None = None) -> NDArray[np.float32]:
    """Compute the largest correlation over the symmetries for all pairs: (R, C).

    Args:
        rows: vectors (R, 143).
        columns: vectors (C, 143).
        used: (143,), false for coefficients that are 0 in all vectors; None if all are used.
    """
    largest: list[NDArray[np.float32]] = []
    kinds = (_PARITY.T > 0) if used is None else (_PARITY.T > 0) & used
    for others in (columns, columns[:, _TRANSPOSED]):
        same, across, down, both = (rows[:, kind] @ others[:, kind].T for kind in kinds)
        # The largest of ± across ± down ± both, with an even number of minus signs; in place, since allocating is slow.
        most = across + down
        across -= down
        np.abs(most, out=most)
        np.abs(across, out=across)
        most += both
        across -= both
        np.maximum(most, across, out=most)
        most += same
        largest.append(most)
    return np.maximum(largest[0], largest[1])


def _first_invariants(vectors: Vectors) -> Vectors:
    """Return the invariants (N, 32) of lowest frequency, the last one the norm of all others."""
    magnitudes = np.where(_PARITY[:, 0] > 0, vectors, np.abs(vectors))  # even along both axes: the sign never changes
    others = magnitudes[:, _TRANSPOSED]
    row, column = frequencies()
    # The larger of two transposed coefficients takes the place above the diagonal.
    kept = np.where(row <= column, np.maximum(magnitudes, others), np.minimum(magnitudes, others))
    kept = kept[:, np.argsort(row**2 + column**2, kind="stable")[: _INVARIANTS - 1]]
    rest = np.sqrt(np.maximum(1 - np.einsum("nd,nd->n", kept, kept), 0))
    return np.concatenate([kept, rest[:, None]], axis=1)


def frequencies() -> NDArray[np.int64]:
    """Return the vertical and the horizontal frequency of each coefficient, (2, 143)."""
    return np.indices((FREQUENCIES, FREQUENCIES)).reshape(2, -1)[:, 1:]


def _parity() -> NDArray[np.float32]:
    """Return which coefficients are even along both axes, odd along x, along y, and along both: (143, 4)."""
    row, column = frequencies() % 2
    return (2 * row + column == np.arange(4)[:, None]).T.astype(np.float32)


_TRANSPOSED = np.arange(FREQUENCIES**2).reshape(FREQUENCIES, FREQUENCIES).T.reshape(-1)[1:] - 1
_PARITY = _parity()
# Signs of these four kinds (rows) in an image as it is, mirrored along x, along y, and along both (columns).
_SIGNS = np.array([[1, 1, 1, 1], [1, -1, 1, -1], [1, 1, -1, -1], [1, -1, -1, 1]], np.float32)
