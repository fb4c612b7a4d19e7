"""One mask, and on request one array of probabilities, from the results of overlapping tiles, in bounded memory.

Where all tiles at a pixel have the same most probable class, it is also that of their mean; so probabilities are computed
only where the tiles differ, which takes a small part of the time and memory.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pixelwise.inference.decision import bands, most_probable
from pixelwise.inference.tile_result import TileResult
from pixelwise.tiles import Window

Floats = NDArray[np.float32]

# Numbers in the array of probabilities of pixels whose tiles differ: 64 MB as float32.
_NUMBERS = 1 << 24


@dataclass(frozen=True, eq=False)
class Tile:
    """A tile of an image.

    Args:
        window: its place in the image.
        result: what the network computed for it; None where the image has no data.
        valid: (*window.shape), false where the image has no data; None if all of it is valid.
    """

    window: Window
    result: TileResult | None
    valid: NDArray[np.bool_] | None = None


@dataclass(frozen=True, eq=False)
class Block:
    """A finished piece of a prediction.

    Args:
        window: its place in the image.
        mask: class indices (*window.shape); any value where the image has no data.
        valid: (*window.shape), false where the image has no data; None if all of it is valid.
        probabilities: (K, *window.shape), weighted by `gaussian`; None unless requested.
    """

    window: Window
    mask: NDArray[Any]
    valid: NDArray[np.bool_] | None
    probabilities: Floats | None = None


def gaussian(tile: Sequence[int]) -> Floats:
    """Return weights (*S) that decrease from the centre of a tile to its border, where a network has the least context.

    A Gaussian with sigma = tile / 8 along each axis (Isensee et al.: nnU-Net, Nature Methods 2021); positive everywhere.
    """
    return functools.reduce(np.multiply.outer, [_bell(size) for size in tile])


def _bell(size: int) -> Floats:
    position = np.arange(size, dtype=np.float32) - np.float32((size - 1) / 2)
    return np.exp(np.float32(-0.5) * np.square(position / np.float32(size / 8)))


def blend(
    windows: Sequence[Window],
    tiles: Iterable[Tile],
    tile: Sequence[int],
    classes: int,
    dtype: np.dtype[Any],
    *,
    box: Window | None = None,
    probabilities: bool = False,
) -> Iterator[Block]:
    """Combine overlapping tiles: the class with the largest mean of the probabilities, weighted by `gaussian`.

    Probabilities are averaged, not logits, since the extreme logits of one tile would dominate the mean. Only the rows of
    tiles that reach into the next block are held in memory.

    Args:
        windows: of all tiles that intersect `box`, in the order of `pixelwise.tiles.windows`, last axis fastest.
        tiles: in the same order.
        tile: largest shape of a window.
        classes: K.
        dtype: of the mask.
        box: the region to predict; None for all windows. The result does not depend on it.
        probabilities: return them, too.

    Yields:
        Blocks that divide the box along the first axis.
    """
    source = iter(tiles)
    box = box or Window(
        windows[0].start, tuple(max(window.stop[axis] for window in windows) for axis in range(len(tile)))
    )
    canvas = _Canvas(box, gaussian(tile), classes, dtype, probabilities)
    rows = [list(row) for _, row in itertools.groupby(windows, lambda window: window.start[0])]
    for row, following in itertools.pairwise([*rows, None]):
        assert row is not None
        for _ in row:
            canvas.add(next(source))
        end = box.stop[0] if following is None else min(following[0].start[0], box.stop[0])
        if end > canvas.top:
            yield canvas.finish(end)


class _Canvas:
    """The rows of a region of which tiles are known but that are not finished.

    Args:
        box: the region.
        weights: of a tile.
        classes, dtype, probabilities: see `blend`.
    """

    def __init__(self, box: Window, weights: Floats, classes: int, dtype: np.dtype[Any], probabilities: bool) -> None:
        self.box, self.weights, self.classes = box, weights, classes
        self.top = box.start[0]
        self.tiles: list[Tile] = []  # those that reach into unfinished rows
        rest = box.shape[1:]
        self.mask = np.zeros((0, *rest), dtype)
        self.seen, self.differ, self.invalid = (np.zeros((0, *rest), bool) for _ in range(3))
        self.total = np.zeros((classes, 0, *rest), np.float32) if probabilities else None
        self.share = np.zeros((0, *rest), np.float32)

    def add(self, tile: Tile) -> None:
        """Add the next tile."""
        place, inner = self._places(tile.window)
        self._extend(place[0].stop)
        if tile.valid is not None:
            self.invalid[place] = ~tile.valid[inner]
        if tile.result is None:
            self.invalid[place] = True
            return
        mask = tile.result.mask(self.mask.dtype)[inner]
        before, seen = self.mask[place], self.seen[place]
        self.differ[place] |= seen & (before != mask)
        self.mask[place] = np.where(seen, before, mask)
        self.seen[place] = True
        self.tiles.append(tile)
        if self.total is not None:
            self._add_probabilities(tile.result, place, inner)

    def finish(self, end: int) -> Block:
        """Return the block of the rows up to `end`, and remove them."""
        rows = slice(0, end - self.top)
        window = Window((self.top, *self.box.start[1:]), (end, *self.box.stop[1:]))
        self._settle(rows)
        valid = None if not self.invalid[rows].any() else ~self.invalid[rows]
        probabilities = None
        if self.total is not None:
            share: Floats = np.where(self.share[rows] > 0, self.share[rows], np.float32(1)).astype(np.float32)
            probabilities = self.total[:, rows] / share
            self.total, self.share = self.total[:, rows.stop :], self.share[rows.stop :]
        block = Block(window, self.mask[rows].copy(), valid, probabilities)
        self.mask, self.seen = self.mask[rows.stop :], self.seen[rows.stop :]
        self.differ, self.invalid = self.differ[rows.stop :], self.invalid[rows.stop :]
        self.tiles = [tile for tile in self.tiles if tile.window.stop[0] > end]
        self.top = end
        return block

    def _places(self, window: Window) -> tuple[tuple[slice, ...], tuple[slice, ...]]:
        """Return where a window is on the canvas, and which part of it that is."""
        origin = (self.top, *self.box.start[1:])
        limits = [
            (max(a, start), min(b, stop), a, start)
            for a, b, start, stop in zip(window.start, window.stop, origin, self.box.stop, strict=True)
        ]
        place = tuple(slice(a - start, b - start) for a, b, _, start in limits)
        return place, tuple(slice(a - first, b - first) for a, b, first, _ in limits)

    def _extend(self, size: int) -> None:
        """Append empty rows, so that there are at least `size`."""
        missing = size - len(self.mask)
        if missing <= 0:
            return
        self.mask, self.seen, self.differ, self.invalid = (
            _longer(each, missing) for each in (self.mask, self.seen, self.differ, self.invalid)
        )
        if self.total is not None:
            self.share = _longer(self.share, missing)
            more = np.zeros((self.classes, missing, *self.total.shape[2:]), np.float32)
            self.total = np.concatenate([self.total, more], axis=1)

    def _add_probabilities(self, result: TileResult, place: tuple[slice, ...], inner: tuple[slice, ...]) -> None:
        assert self.total is not None
        weights = self.weights[inner]
        first, *others = inner
        for part in bands(self.classes, weights.shape):
            found = result.probabilities(slice(first.start + part.start, first.start + part.stop))
            rows = slice(place[0].start + part.start, place[0].start + part.stop)
            self.total[:, rows, *place[1:]] += found[:, :, *others] * weights[part]
        self.share[place] += weights

    def _settle(self, rows: slice) -> None:
        """Decide the pixels of finished rows whose tiles differ, by their mean probabilities."""
        differ = self.differ[rows]
        if not differ.any():
            return
        count = int(np.count_nonzero(differ))
        if self.total is not None:
            mean = self.total[:, rows][:, differ] / self.share[rows][differ]
            self.mask[rows][differ] = most_probable(mean, self.mask.dtype)
            return
        kind = np.int32 if differ.size < 2**31 else np.int64
        number = np.cumsum(differ.reshape(-1), dtype=kind).reshape(differ.shape)  # of each pixel, from 1
        chosen = np.empty(count, self.mask.dtype)
        step = max(1, _NUMBERS // self.classes)
        for begin in range(0, count, step):
            chosen[begin : begin + step] = self._decide(differ, number, begin, min(begin + step, count))
        self.mask[rows][differ] = chosen

    def _decide(self, differ: NDArray[np.bool_], number: NDArray[Any], begin: int, end: int) -> NDArray[Any]:
        """Return the classes of the pixels with the numbers from `begin` to `end`, counted from 0."""
        everything = begin == 0 and end == number.reshape(-1)[-1]
        total = np.zeros((self.classes, end - begin), np.float32)
        share = np.zeros(end - begin, np.float32)
        for tile in self.tiles:
            place, inner = self._places(tile.window)
            within, which = differ[place], number[place]
            within = within if everything else within & (which > begin) & (which <= end)
            points = np.nonzero(within)
            if tile.result is None or not len(points[0]):
                continue
            index = which[within].astype(np.intp) - (1 + begin)
            local = [each + part.start for each, part in zip(points, inner, strict=True)]
            weights = self.weights.take(np.ravel_multi_index(local, self.weights.shape))
            found = tile.result.probabilities_at(local)
            found *= weights
            for sums, values in zip((*total, share), (*found, weights), strict=True):
                sums[index] = sums.take(index) + values  # several times as fast as adding to all rows at once
        total /= share
        return most_probable(total, self.mask.dtype)


def _longer(rows: NDArray[Any], missing: int) -> NDArray[Any]:
    """Append zeros."""
    return np.concatenate([rows, np.zeros((missing, *rows.shape[1:]), rows.dtype)])
