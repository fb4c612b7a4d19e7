"""Statistics of the regions of a mask per class, from its runs: areas, thickness, specks, blended edges.

A run is a sequence of adjacent pixels of one class in a row. Runs that touch from row to row form a region (8-connected:
otherwise a diagonal line one pixel wide would be many specks). The thickness of a region is 2 · area / perimeter, as in
the fingerprint: a long strip has its width, and the border of the image is no edge.
"""

from __future__ import annotations

from enum import IntEnum
from hashlib import sha256
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array
from scipy.sparse.csgraph import connected_components

STRIDES = (4, 8, 16, 32)
SPECK = 5  # pixels; smaller regions are specks
_LINE = 2.0  # pixels; thinner regions are lines


class Column(IntEnum):
    """Columns of a region table."""

    CLASS = 0  # class index; K for ignored pixels
    PIXELS = 1
    REGIONS = 2
    SPECKS = 3  # regions of under 5 pixels that do not touch the border of the image
    THIN = 4  # four columns: regions whose thickness is below 4, 8, 16 and 32 pixels
    THIN_PIXELS = 8  # four columns: pixels in those regions
    LINES = 12  # pixels in regions whose thickness is below 2 pixels
    BETWEEN = 13  # pixels in runs of 1 or 2 whose id lies between the ids on either side, as produced by interpolation


COLUMNS = Column.BETWEEN + 1


class Runs(NamedTuple):
    """The runs of a mask, in row-major order.

    Args:
        starts: positions in the flattened mask of the first pixels.
        ends: positions after the last pixels.
        ids: class index of each.
        width: of the mask.
    """

    starts: NDArray[np.int64]
    ends: NDArray[np.int64]
    ids: NDArray[Any]
    width: int

    def digest(self) -> bytes:
        """Return 8 bytes of a hash of the mask."""
        digest = sha256(np.array([self.width, self.ends[-1]], "<i8").tobytes())
        digest.update(self.starts.astype("<i8").tobytes())
        digest.update(self.ids.astype("<i8").tobytes())
        return digest.digest()[:8]


def find_runs(mask: NDArray[Any]) -> Runs:
    """Find the runs of a mask (H, W)."""
    width = mask.shape[1]
    flat = np.ascontiguousarray(mask).reshape(-1)
    begins = np.empty(flat.size, bool)
    np.not_equal(flat[1:], flat[:-1], out=begins[1:])
    begins[::width] = True
    starts = np.flatnonzero(begins)
    return Runs(starts, np.append(starts[1:], flat.size), flat[starts], width)


def region_table(runs: Runs, num_classes: int, file_ids: NDArray[np.int64], shorter: int) -> NDArray[np.uint32]:
    """Compute the statistics of the regions of each class.

    Args:
        runs: of a mask of class indices; other values count as ignored.
        num_classes: K.
        file_ids: (K + 1,) the id of each class in the files, and of ignored pixels; interpolation mixes these.
        shorter: the shorter side of the mask, an upper limit of the thickness.

    Returns:
        (P, `COLUMNS`), a row per class that occurs, by index.
    """
    classes = np.minimum(runs.ids, num_classes).astype(np.int64)
    regions, count, perimeter = _regions(runs)
    lengths = runs.ends - runs.starts
    area = np.bincount(regions, lengths, count)
    region_class = np.zeros(count, np.int64)
    region_class[regions] = classes
    thickness = np.minimum(2 * area / np.maximum(perimeter, 1), shorter)
    size = num_classes + 1
    table = np.zeros((size, COLUMNS), np.uint32)
    table[:, Column.CLASS] = np.arange(size)
    table[:, Column.PIXELS] = np.bincount(region_class, area, size)
    table[:, Column.REGIONS] = np.bincount(region_class, minlength=size)
    specks = (area < SPECK) & (np.bincount(regions, _at_border(runs), count) == 0)
    table[:, Column.SPECKS] = np.bincount(region_class[specks], minlength=size)
    for place, stride in enumerate(STRIDES):
        thin = thickness < stride
        table[:, Column.THIN + place] = np.bincount(region_class[thin], minlength=size)
        table[:, Column.THIN_PIXELS + place] = np.bincount(region_class[thin], area[thin], size)
    lines = thickness < _LINE
    table[:, Column.LINES] = np.bincount(region_class[lines], area[lines], size)
    blended = _between(runs, file_ids[classes], lengths)
    table[:, Column.BETWEEN] = np.bincount(classes[blended], lengths[blended], size)
    return table[table[:, Column.PIXELS] > 0]


def _at_border(runs: Runs) -> NDArray[np.bool_]:
    """Return which runs touch the border of the image."""
    starts, ends, _, width = runs
    sides = (starts % width == 0) | (ends % width == 0)
    return sides | (starts < width) | (ends > ends[-1] - width)


def _regions(runs: Runs) -> tuple[NDArray[np.int32], int, NDArray[np.float64]]:
    """Return the region of every run, the number of regions, and their perimeters: edges to pixels of other classes."""
    starts, ends, ids, width = runs
    upper, lower = _touching(runs)
    same = ids[upper] == ids[lower]
    joined, rows = upper[same], lower[same]
    kept = np.minimum(ends[joined] + width, ends[rows]) - np.maximum(starts[joined] + width, starts[rows])
    size = len(starts)
    left, right = starts % width > 0, ends % width > 0
    # Above and below, a run has edges where it does not touch its class; along the row it has two ends.
    levels = (starts >= width).astype(np.float64) + (ends <= ends[-1] - width)
    edges = levels * (ends - starts) + left + right
    edges -= np.bincount(joined, kept, size) + np.bincount(rows, kept, size)
    # `lower` is ascending, so the pairs are already in the order of a sparse matrix.
    graph = csr_array((np.ones(len(joined)), joined, np.searchsorted(rows, np.arange(size + 1))), shape=(size, size))
    count, regions = connected_components(graph, directed=False)
    return regions, int(count), np.bincount(regions, edges, count).astype(np.float64)


def _touching(runs: Runs) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Pair every run with those of the row above that touch it, also at a corner: (upper, lower), lower ascending."""
    starts, ends, width = runs.starts, runs.ends, runs.width
    below = int(np.searchsorted(starts, width))
    lower_starts, lower_ends = starts[below:], ends[below:]
    # Start of each lower run projected to the row above, and the end of the last one.
    above = np.append(lower_starts, ends[-1:]) - width
    first = np.searchsorted(starts, above, "right") - 1
    last = first[1:] - (starts[first[1:]] == above[1:])
    first = first[:-1]
    # Corners: also the upper runs that end or begin diagonally adjacent to the run.
    last = last + ((ends[last] == lower_ends - width) & (lower_ends % width > 0))
    first = first - ((starts[first] == above[:-1]) & (lower_starts % width > 0))
    many = last - first + 1
    lower = np.repeat(np.arange(below, len(starts)), many)
    upper = np.arange(len(lower)) - np.repeat(np.cumsum(many) - many - first, many)
    return upper, lower


def _between(runs: Runs, ids: NDArray[np.int64], lengths: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Return which runs are 1 or 2 pixels long with an id between those of their neighbours in the row."""
    found = np.zeros(len(ids), bool)
    if len(ids) < 3:
        return found
    left, middle, right = ids[:-2], ids[1:-1], ids[2:]
    inner = (runs.starts[1:-1] % runs.width > 0) & (runs.ends[1:-1] % runs.width > 0)
    between = ((left < middle) & (middle < right)) | ((left > middle) & (middle > right))
    found[1:-1] = inner & between & (lengths[1:-1] <= 2)
    return found
