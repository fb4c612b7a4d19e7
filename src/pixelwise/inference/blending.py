"""Weighted mean of the probabilities of overlapping tiles, in bounded memory."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Iterable, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from pixelwise.tiles import Window


def gaussian(tile: Sequence[int]) -> NDArray[np.float32]:
    """Return weights (*S) that decrease from the centre of a tile to its border, where a network has the least context.

    A Gaussian with sigma = tile / 8 along each axis (Isensee et al.: nnU-Net, Nature Methods 2021); positive everywhere.
    """
    return functools.reduce(np.multiply.outer, [_bell(size) for size in tile])


def _bell(size: int) -> NDArray[np.float32]:
    position = np.arange(size, dtype=np.float32) - np.float32((size - 1) / 2)
    return np.exp(np.float32(-0.5) * np.square(position / np.float32(size / 8)))


def blend(
    windows: Sequence[Window], tiles: Iterable[NDArray[np.float32]], tile: Sequence[int]
) -> Iterator[NDArray[np.float32]]:
    """Average the probabilities of overlapping tiles, weighted by `gaussian`.

    Probabilities are averaged, not logits, since the extreme logits of one tile would dominate the mean. Only one row of
    tiles is held in memory.

    Args:
        windows: in the order of `pixelwise.tiles.windows`, last axis fastest.
        tiles: the probabilities (K, *window.shape) of each window, in the same order.
        tile: largest shape of a window.

    Yields:
        Consecutive slabs (K, rows, *S[1:]) along the first spatial axis.
    """
    source = iter(tiles)
    weights = gaussian(tile)
    rest = tuple(max(window.stop[axis] for window in windows) for axis in range(1, len(tile)))
    rows = [list(row) for _, row in itertools.groupby(windows, lambda window: window.start[0])]
    total = np.zeros((0, 0, *rest), np.float32)
    share = np.zeros((0, *rest), np.float32)
    for row, following in itertools.pairwise([*rows, None]):
        assert row is not None
        top = row[0].start[0]
        bottom = row[0].stop[0]
        for window in row:
            probabilities = next(source)
            if not total.shape[0]:
                total = np.zeros((len(probabilities), 0, *rest), np.float32)
            # The buffers begin at `top` and grow to the height of this row of tiles.
            total = _extended(total, 1, bottom - top)
            share = _extended(share, 0, bottom - top)
            weight = weights[tuple(slice(size) for size in window.shape)]
            place = (slice(window.shape[0]), *window.slices[1:])
            total[(slice(None), *place)] += probabilities * weight
            share[place] += weight
        done = (bottom if following is None else following[0].start[0]) - top
        yield total[:, :done] / share[:done]
        total = total[:, done:]
        share = share[done:]


def _extended(buffer: NDArray[np.float32], axis: int, size: int) -> NDArray[np.float32]:
    """Append zeros along `axis` until it has at least `size` entries."""
    missing = size - buffer.shape[axis]
    if missing <= 0:
        return buffer
    shape = list(buffer.shape)
    shape[axis] = missing
    return np.concatenate([buffer, np.zeros(shape, np.float32)], axis)
