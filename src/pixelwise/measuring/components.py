"""Connected components of all classes of a mask, found band by band, so that memory does not grow with the image.

Runs of equal pixels along the last axis are the nodes of a graph; runs of one class that touch are its edges. Of each band only the
runs of its last row (or slice) are kept for the next one, so memory holds one band and a few numbers per component.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from pixelwise.measuring.masks import MaskSource, bands
from pixelwise.measuring.scale import Scale
from pixelwise.tiles import Window

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
BAND_PIXELS = 1 << 22


@dataclass(frozen=True, eq=False)
class Components:
    """The components of a mask with n axes, in the order of their first pixels, row by row; one entry each.

    Args:
        class_index: (N,).
        pixels: (N,), number of pixels.
        first: (N,), the place of the first pixel in the flattened mask.
        start, stop: (N, n), bounding boxes.
        centroid: (N, n), mean positions in array order, with pixel centres at integers.
        size: (N,), area or volume in the unit of the scale.
        border: (N,), whether pixels lie on the border of the image, or touch pixels without data.
        holes: (N,), number of holes; None for volumes.
        confidence: (N,), mean probability of the class; None if unknown.
    """

    class_index: Ints
    pixels: Ints
    first: Ints
    start: Ints
    stop: Ints
    centroid: Floats
    size: Floats
    border: NDArray[np.bool_]
    holes: Ints | None
    confidence: Floats | None


@dataclass(frozen=True, eq=False)
class _Runs:
    """Runs along the last axis, sorted; rows are counted over all other axes of the whole mask."""

    row: Ints
    start: Ints
    stop: Ints
    value: Ints

    def __len__(self) -> int:
        return len(self.row)

    def take(self, index: NDArray[np.bool_]) -> _Runs:
        return _Runs(self.row[index], self.start[index], self.stop[index], self.value[index])

    def joined(self, other: _Runs) -> _Runs:
        pairs = zip(
            (self.row, self.start, self.stop, self.value),
            (other.row, other.start, other.stop, other.value),
            strict=True,
        )
        return _Runs(*(np.concatenate(pair) for pair in pairs))


def find_components(
    mask: MaskSource, scale: Scale, *, corners: bool = True, band_pixels: int = BAND_PIXELS
) -> Components:
    """Find the components of all classes; ignored pixels belong to none.

    Args:
        mask: read once, band by band.
        scale: gives the sizes of pixels.
        corners: whether pixels that touch at a corner (or edge of a volume) only are connected: 8 or 26 neighbours, else 4 or 6.
        band_pixels: about how many pixels are read at a time; does not change the result.
    """
    rows = max(band_pixels // max(math.prod(mask.shape[1:]), 1), 1)
    collected = _Collected(mask.shape)
    carried, carried_ids = _Runs(*(np.zeros(0, np.int64) for _ in range(4))), np.zeros(0, np.int64)
    for band in bands(mask.shape, rows):
        values = mask.read(band)
        own = _runs_of(values, band, mask.shape)
        runs = carried.joined(own)
        first, second = _touching(runs, mask.shape, corners)
        known = runs.value < mask.labels.num_classes
        joined = (runs.value[first] == runs.value[second]) & known[first]
        ids = collected.identify(runs, carried_ids, first[joined], second[joined])
        fresh = slice(len(carried), None)
        open_ = _beside_unknown(runs, known, first, second, mask.shape)
        counted = (first[joined], second[joined]) if len(mask.shape) == 2 else None
        collected.add(own, ids, known, open_, _sums(own, values, scale, mask, band), counted, fresh)
        last = runs.row >= (band.stop[0] - 1) * math.prod(mask.shape[1:-1])
        carried, carried_ids = runs.take(last), ids[last]
    return collected.components()


def _runs_of(values: NDArray[np.generic], band: Window, shape: Sequence[int]) -> _Runs:
    """Return the runs of a band; they cover all of its pixels in their order."""
    width = shape[-1]
    table = values.reshape(-1, width)
    begins = np.ones(table.shape, bool)
    begins[:, 1:] = table[:, 1:] != table[:, :-1]
    places = np.flatnonzero(begins)
    row, start = np.divmod(places, width)
    ends = np.append(places[1:], table.size)
    stop = start + ends - places
    offset = band.start[0] * math.prod(shape[1:-1])
    return _Runs(row + offset, start, stop, table.reshape(-1)[places].astype(np.int64))


def _touching(runs: _Runs, shape: Sequence[int], corners: bool) -> tuple[Ints, Ints]:
    """Return the indices of runs in neighbouring rows that touch, of any value."""
    pairs: list[tuple[Ints, Ints]] = []
    if len(shape) == 2:
        pairs.append(_overlapping(runs, np.arange(len(runs)), 1, shape[-1], corners))
    else:
        within = runs.row % shape[1]
        below, above = np.flatnonzero(within < shape[1] - 1), np.flatnonzero(within > 0)
        pairs += [
            _overlapping(runs, below, 1, shape[-1], corners),
            _overlapping(runs, np.arange(len(runs)), shape[1], shape[-1], corners),
        ]
        if corners:
            pairs += [
                _overlapping(runs, below, shape[1] + 1, shape[-1], corners),
                _overlapping(runs, above, shape[1] - 1, shape[-1], corners),
            ]
    first, second = (np.concatenate(each) for each in zip(*pairs, strict=True))
    return first, second


def _overlapping(runs: _Runs, of: Ints, distance: int, width: int, corners: bool) -> tuple[Ints, Ints]:
    """Return pairs of runs: those of `of`, and the runs `distance` rows further that overlap them, or touch their corners."""
    key, reach = width + 2, int(corners)
    row = (runs.row[of] + distance) * key
    low = np.searchsorted(runs.row * key + runs.stop, row + runs.start[of] - reach, side="right")
    high = np.searchsorted(runs.row * key + runs.start, row + runs.stop[of] + reach, side="left")
    count = np.maximum(high - low, 0)
    first = np.repeat(of, count)
    second = np.arange(len(first)) - np.repeat(np.cumsum(count) - count, count) + np.repeat(low, count)
    return first, second


def _beside_unknown(
    runs: _Runs, known: NDArray[np.bool_], first: Ints, second: Ints, shape: Sequence[int]
) -> NDArray[np.bool_]:
    """Return whether runs lie on the border of the image or touch pixels without data."""
    found = (runs.start == 0) | (runs.stop == shape[-1])
    rest = runs.row
    for size in reversed(shape[:-1]):
        rest, place = np.divmod(rest, size)
        found |= (place == 0) | (place == size - 1)
    found[first[~known[second]]] = True
    found[second[~known[first]]] = True
    follows = np.flatnonzero((runs.row[1:] == runs.row[:-1]) & (runs.start[1:] == runs.stop[:-1]))
    found[follows[~known[follows + 1]]] = True
    found[follows[~known[follows]] + 1] = True
    return found


def _sums(
    runs: _Runs, values: NDArray[np.generic], scale: Scale, mask: MaskSource, band: Window
) -> tuple[Floats, Floats | None]:
    """Return the size of each run, and the sum of the confidences of its pixels."""
    width = values.shape[-1]
    offset = int(runs.row[0]) if len(runs) else 0
    places = (runs.row - offset) * width + runs.start
    sizes = scale.sizes(band)
    lengths = (runs.stop - runs.start).astype(np.float64)
    if sizes.size == 1:
        size = lengths * float(sizes.item())
    else:
        size = np.add.reduceat(np.broadcast_to(sizes, values.shape).reshape(-1), places)
    confidence = mask.confidence(band)
    if confidence is None:
        return size, None
    return size, np.add.reduceat(np.asarray(confidence, np.float64).reshape(-1), places)


class _Collected:
    """The parts of components in the bands so far; a part is known by a provisional id."""

    def __init__(self, shape: Sequence[int]) -> None:
        self.shape = tuple(shape)
        self.count = 0
        self.edges: list[tuple[Ints, Ints]] = []
        self.ids: list[Ints] = []
        self.numbers: list[
            Ints
        ] = []  # (parts, …): class, pixels, first, border, runs, pairs, start…, stop…, twice the sums of positions…
        self.sizes: list[Floats] = []
        self.confidences: list[Floats | None] = []

    def identify(self, runs: _Runs, carried: Ints, first: Ints, second: Ints) -> Ints:
        """Return a provisional id for each run; the first ones are known as `carried`. Ids that turn out to be one component are noted."""
        graph = coo_array((np.ones(len(first), bool), (first, second)), shape=(len(runs), len(runs)))
        parts, part = connected_components(graph, directed=False)
        ids = np.full(parts, -1, np.int64)
        old = part[: len(carried)]
        ids[old] = carried
        self.edges.append((ids[old], carried))
        new = np.flatnonzero(ids < 0)
        ids[new] = self.count + np.arange(len(new))
        self.count += len(new)
        return ids[part]

    def add(
        self,
        own: _Runs,
        ids: Ints,
        known: NDArray[np.bool_],
        border: NDArray[np.bool_],
        sums: tuple[Floats, Floats | None],
        pairs: tuple[Ints, Ints] | None,
        fresh: slice,
    ) -> None:
        """Add the runs of a band: `ids`, `known` and `border` are of all runs, of which `fresh` are in this band."""
        found, part = np.unique(ids[known], return_inverse=True)
        index = np.full(len(ids), -1)
        index[known] = part
        table = np.zeros((len(found), 6 + 3 * len(self.shape)), np.int64)
        n = len(self.shape)
        table[:, 2] = table[:, 6 : 6 + n] = np.iinfo(np.int64).max
        np.logical_or.at(at_border := np.zeros(len(found), bool), part, border[known])
        table[:, 3] = at_border
        mine, at = known[fresh], index[fresh]
        at, runs = at[mine], _Runs(own.row[mine], own.start[mine], own.stop[mine], own.value[mine])
        lengths = runs.stop - runs.start
        table[at, 0] = runs.value
        np.add.at(table[:, 1], at, lengths)
        np.minimum.at(table[:, 2], at, runs.row * self.shape[-1] + runs.start)
        np.add.at(table[:, 4], at, 1)
        if pairs is not None:
            np.add.at(table[:, 5], index[pairs[0]], 1)
        for axis, (low, high) in enumerate(self._positions(runs)):
            np.minimum.at(table[:, 6 + axis], at, low)
            np.maximum.at(table[:, 6 + n + axis], at, high + 1)
            np.add.at(table[:, 6 + 2 * n + axis], at, (low + high) * lengths)
        self.ids.append(found)
        self.numbers.append(table)
        self.sizes.append(np.bincount(at, sums[0][mine], len(found)).astype(np.float64))
        self.confidences.append(
            None if sums[1] is None else np.bincount(at, sums[1][mine], len(found)).astype(np.float64)
        )

    def _positions(self, runs: _Runs) -> Iterator[tuple[Ints, Ints]]:
        """Yield the first and last position of runs along each axis."""
        for place in np.unravel_index(runs.row, self.shape[:-1]):
            yield place.astype(np.int64), place.astype(np.int64)
        yield runs.start, runs.stop - 1

    def components(self) -> Components:
        """Join the parts."""
        n = len(self.shape)
        first, second = (np.concatenate(each) for each in zip(*self.edges, strict=True))
        graph = coo_array((np.ones(len(first), bool), (first, second)), shape=(self.count, self.count))
        count, root = connected_components(graph, directed=False)
        at, table = root[np.concatenate(self.ids)], np.concatenate(self.numbers)
        joined = np.zeros((count, table.shape[1]), np.int64)
        joined[:, 2] = joined[:, 6 : 6 + n] = np.iinfo(np.int64).max
        for column in range(table.shape[1]):
            smallest, largest = column == 2 or 6 <= column < 6 + n, column in (0, 3) or 6 + n <= column < 6 + 2 * n
            join = np.minimum if smallest else np.maximum if largest else np.add
            join.at(joined[:, column], at, table[:, column])
        kept = np.flatnonzero(joined[:, 1])  # ids of ignored runs have no pixels
        order = kept[np.argsort(joined[kept, 2])]
        joined = joined[order]
        size = np.bincount(at, np.concatenate(self.sizes), count)[order].astype(np.float64)
        known = [each for each in self.confidences if each is not None]
        confidence = np.bincount(at, np.concatenate(known), count)[order] if len(known) == len(self.ids) else None
        pixels = joined[:, 1]
        return Components(
            class_index=joined[:, 0],
            pixels=pixels,
            first=joined[:, 2],
            start=joined[:, 6 : 6 + n],
            stop=joined[:, 6 + n : 6 + 2 * n],
            centroid=joined[:, 6 + 2 * n :] / (2 * pixels[:, None]),
            size=size,
            border=joined[:, 3].astype(bool),
            holes=1 - joined[:, 4] + joined[:, 5] if n == 2 else None,
            confidence=None if confidence is None else confidence / pixels,
        )
