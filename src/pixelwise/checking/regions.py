"""The regions of a mask, summed up per class in one pass over its runs: areas, thickness, specks, blended edges.

Comes in: class indices (H, W). Goes out: a small table with a row per class. Knows nothing of files or of what is made of it.

A run is pixels of one class side by side in a row. Runs that touch from row to row, be it at a corner, make a region
(8-connected, or a slanting line of one pixel would be as many specks). Its thickness is 2 · area / perimeter, as in the
fingerprint: a long strip has its width, and the image's border is no edge.
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
SPECK = 5  # pixels; a smaller region is a speck
_LINE = 2.0


class Column(IntEnum):
    """Name the columns of a table."""

    CLASS = 0  # class index; K stands for the ignored pixels
    PIXELS = 1
    REGIONS = 2
    SPECKS = 3  # regions of under 5 pixels that the image's border does not cut
    THIN = 4  # four columns: regions whose thickness is below 4, 8, 16 and 32 pixels
    THIN_PIXELS = 8  # four columns: pixels in these
    LINES = 12  # pixels in regions whose thickness is below 2 pixels
    BETWEEN = 13  # pixels in runs of 1 or 2 whose id lies between the ids on either side, as blending makes them


COLUMNS = Column.BETWEEN + 1


class Runs(NamedTuple):
    """Hold the runs of a mask, in reading order.

    Args:
        starts: places in the flattened mask where runs begin.
        ends: one behind their last pixels.
        ids: class index of each.
        width: of the mask.
    """

    starts: NDArray[np.int64]
    ends: NDArray[np.int64]
    ids: NDArray[Any]
    width: int

    def digest(self) -> bytes:
        """Give 8 bytes of a hash over all of it."""
        whole = sha256(np.array([self.width, self.ends[-1]], "<i8").tobytes())
        whole.update(self.starts.astype("<i8").tobytes())
        whole.update(self.ids.astype("<i8").tobytes())
        return whole.digest()[:8]


def runs_of(mask: NDArray[Any]) -> Runs:
    """Find the runs of a mask (H, W)."""
    width = mask.shape[1]
    flat = np.ascontiguousarray(mask).reshape(-1)
    begins = np.empty(flat.size, bool)
    np.not_equal(flat[1:], flat[:-1], out=begins[1:])
    begins[::width] = True
    starts = np.flatnonzero(begins)
    return Runs(starts, np.append(starts[1:], flat.size), flat[starts], width)


def tabulate(runs: Runs, num_classes: int, file_ids: NDArray[np.int64], shorter: int) -> NDArray[np.uint32]:
    """Sum up the regions per class.

    Args:
        runs: of a mask of class indices; whatever is no class counts as ignored.
        num_classes: K.
        file_ids: (K + 1,) the id of each class in the files, and of ignored pixels: blending happens to these.
        shorter: the shorter side of the mask, above which nothing is thick.

    Returns:
        (P, `COLUMNS`), a row per class that occurs, by index.
    """
    classes = np.minimum(runs.ids, num_classes).astype(np.int64)
    names, count, perimeter = _regions(runs)
    lengths = runs.ends - runs.starts
    area = np.bincount(names, lengths, count)
    of_class = np.zeros(count, np.int64)
    of_class[names] = classes
    thickness = np.minimum(2 * area / np.maximum(perimeter, 1), shorter)
    size = num_classes + 1
    table = np.zeros((size, COLUMNS), np.uint32)
    table[:, Column.CLASS] = np.arange(size)
    table[:, Column.PIXELS] = np.bincount(of_class, area, size)
    table[:, Column.REGIONS] = np.bincount(of_class, minlength=size)
    specks = (area < SPECK) & (np.bincount(names, _at_border(runs), count) == 0)
    table[:, Column.SPECKS] = np.bincount(of_class[specks], minlength=size)
    for place, stride in enumerate(STRIDES):
        thin = thickness < stride
        table[:, Column.THIN + place] = np.bincount(of_class[thin], minlength=size)
        table[:, Column.THIN_PIXELS + place] = np.bincount(of_class[thin], area[thin], size)
    lines = thickness < _LINE
    table[:, Column.LINES] = np.bincount(of_class[lines], area[lines], size)
    blended = _between(runs, file_ids[classes], lengths)
    table[:, Column.BETWEEN] = np.bincount(classes[blended], lengths[blended], size)
    return table[table[:, Column.PIXELS] > 0]


def _at_border(runs: Runs) -> NDArray[np.bool_]:
    """Tell which runs touch the image's border."""
    starts, ends, _, width = runs
    sides = (starts % width == 0) | (ends % width == 0)
    return sides | (starts < width) | (ends > ends[-1] - width)


def _regions(runs: Runs) -> tuple[NDArray[np.int32], int, NDArray[np.float64]]:
    """Give the region of every run, how many there are, and the perimeter of each: edges to pixels of other classes."""
    starts, ends, ids, width = runs
    upper, lower = _touching(runs)
    same = ids[upper] == ids[lower]
    joined, rows = upper[same], lower[same]
    kept = np.minimum(ends[joined] + width, ends[rows]) - np.maximum(starts[joined] + width, starts[rows])
    size = len(starts)
    left, right = starts % width > 0, ends % width > 0
    # Above and below a run is edged by all that it does not share with its own class; along the row it has two ends.
    levels = (starts >= width).astype(np.float64) + (ends <= ends[-1] - width)
    edges = levels * (ends - starts) + left + right
    edges -= np.bincount(joined, kept, size) + np.bincount(rows, kept, size)
    # `lower` ascends, so the pairs are the rows of a sparse matrix as they are.
    graph = csr_array((np.ones(len(joined)), joined, np.searchsorted(rows, np.arange(size + 1))), shape=(size, size))
    count, names = connected_components(graph, directed=False)
    return names, int(count), np.bincount(names, edges, count).astype(np.float64)


def _touching(runs: Runs) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Pair every run with those of the row above that touch it, be it at a corner: (upper, lower), lower ascending."""
    starts, ends, width = runs.starts, runs.ends, runs.width
    below = int(np.searchsorted(starts, width))
    lower_starts, lower_ends = starts[below:], ends[below:]
    # Where each lower run begins in the row above, and where the last one ends.
    above = np.append(lower_starts, ends[-1:]) - width
    first = np.searchsorted(starts, above, "right") - 1
    last = first[1:] - (starts[first[1:]] == above[1:])
    first = first[:-1]
    # Corners: one more to the left where an upper run begins just there, one more to the right where one ends just there.
    last = last + ((ends[last] == lower_ends - width) & (lower_ends % width > 0))
    first = first - ((starts[first] == above[:-1]) & (lower_starts % width > 0))
    many = last - first + 1
    lower = np.repeat(np.arange(below, len(starts)), many)
    upper = np.arange(len(lower)) - np.repeat(np.cumsum(many) - many - first, many)
    return upper, lower


def _between(runs: Runs, ids: NDArray[np.int64], lengths: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Tell which runs are 1 or 2 long and have an id between those of their neighbours in the row."""
    found = np.zeros(len(ids), bool)
    if len(ids) < 3:
        return found
    before, own, behind = ids[:-2], ids[1:-1], ids[2:]
    inner = (runs.starts[1:-1] % runs.width > 0) & (runs.ends[1:-1] % runs.width > 0)
    between = ((before < own) & (own < behind)) | ((before > own) & (own > behind))
    found[1:-1] = inner & between & (lengths[1:-1] <= 2)
    return found
