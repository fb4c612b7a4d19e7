"""From logits to masks: enlarging coarse logits, softmax, and the most probable class."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Indices = NDArray[np.intp]

# Pixels per piece of `most_probable`: few enough that a class and the running maximum stay in the cache.
_PIXELS = 1 << 16
# Numbers per band of rows, 4 MB as float32: few enough for the cache, and enough that the work outweighs the calls.
_BAND = 1 << 20
# Corners and pixels per group of cells in `decide`.
_CORNERS = 1 << 20
_CELL_PIXELS = 1 << 17
# A value is interpolated in two steps, each with two products and a sum. The rounding errors of two values together are at
# most half of this share of the largest corner; `_TINY` is for corners near zero, where rounding is absolute.
_ROUNDING = np.float32(2.0**-20)
_TINY = np.finfo(np.float32).tiny


def enlarge(logits: Floats, scale: int, shape: Sequence[int], rows: slice = slice(None)) -> Floats:
    """Enlarge logits (…, *n), n ≥ ceil(S / scale), to (…, *shape), linearly along each axis, with half-pixel centres.

    The values are those of torch's `interpolate` (bilinear or trilinear, `align_corners=False`) by a factor of `scale`,
    cropped to `shape`; with `rows`, only those rows of the result (without step) along the first axis of `shape`.
    """
    first, *others = shape
    start, stop, _ = rows.indices(first)
    if scale == 1:
        within: tuple[Any, ...] = (..., slice(start, stop), *map(slice, others))
        return logits[within]
    for axis, (begin, end) in enumerate([(start, stop), *((0, size) for size in others)], logits.ndim - len(shape)):
        low, share = _position(np.arange(begin, end), scale, logits.shape[axis])
        high = np.minimum(low + 1, logits.shape[axis] - 1)
        share = share.reshape([-1] + [1] * (logits.ndim - 1 - axis))
        before = np.take(logits, low, axis)
        after = np.take(logits, high, axis)
        logits = before * (1 - share) + after * share
    return logits


def enlarge_at(logits: Floats, scale: int, points: Sequence[Indices]) -> Floats:
    """Return the values (K, n) of `enlarge` for logits (K, *n) at single pixels, given by their position along each axis.

    The arithmetic is that of `enlarge`, so that the values are equal.
    """
    if scale == 1:
        place = np.ravel_multi_index(tuple(points), logits.shape[1:])
        return np.take(logits.reshape(len(logits), -1), place, 1)
    steps = np.cumprod([1, *logits.shape[:1:-1]])[::-1]
    places = [_position(pixels, scale, count) for pixels, count in zip(points, logits.shape[1:], strict=True)]
    return _between(logits.reshape(len(logits), -1), places, logits.shape[1:], steps, np.intp(0))


def _between(
    flat: Floats, places: Sequence[tuple[Indices, Floats]], counts: Sequence[int], steps: Any, at: Any
) -> Floats:
    """Interpolate along the first axes of `places`, then along the last one; `at` is the offset along further axes."""
    if not places:
        return np.take(flat, at, 1)
    (low, share), axis = places[-1], len(places) - 1
    high = np.minimum(low + 1, counts[axis] - 1)
    before, after = (_between(flat, places[:-1], counts, steps, at + end * steps[axis]) for end in (low, high))
    return before * (1 - share) + after * share


def _position(pixels: Indices, scale: int, count: int) -> tuple[Indices, Floats]:
    """Return the logit of `count` before the centre of each pixel, and the share of the next one."""
    position = np.clip((pixels.astype(np.float32) + np.float32(0.5)) / scale - np.float32(0.5), 0, None)
    low = np.minimum(position.astype(np.intp), count - 1)
    return low, (position - low).astype(np.float32)


def softmax(logits: Floats, axis: int) -> Floats:
    """Return the probabilities of logits with the classes along `axis`."""
    result: Floats = logits - logits.max(axis, keepdims=True)
    np.exp(result, out=result)
    result /= result.sum(axis, keepdims=True)
    return result


def bands(classes: int, shape: Sequence[int]) -> Iterator[slice]:
    """Divide an image of `shape` (*S) into bands of rows along its first axis, of about 4 MB of float32 (classes, *S)."""
    height, *others = shape
    step = max(1, _BAND // (classes * int(np.prod(others))))
    for start in range(0, height, step):
        yield slice(start, min(start + step, height))


def most_probable(scores: Floats, dtype: np.dtype[Any]) -> NDArray[Any]:
    """Return the index (*S) of the largest of the scores (K, *S) at each pixel, as `dtype`; of equal scores, the first.

    Equals `argmax(0)`, but works in pieces that fit into the cache, which is several times faster.
    """
    flat = scores.reshape(len(scores), -1)
    result = np.zeros(flat.shape[1], dtype)
    for start in range(0, flat.shape[1], _PIXELS):
        piece = flat[:, start : start + _PIXELS]
        best = piece[0].copy()
        chosen = result[start : start + _PIXELS]
        for k in range(1, len(piece)):
            _choose(piece[k], dtype.type(k), best, chosen)
    return result.reshape(scores.shape[1:])


def _choose(values: Floats, k: Any, best: Floats, chosen: NDArray[Any]) -> None:
    """Change `chosen` to class `k`, larger than all before, where its values exceed `best`; update `best`."""
    # Without branches, which are slow where they cannot be predicted.
    np.maximum(chosen, np.multiply((values > best).view(np.uint8), k), out=chosen)
    np.maximum(best, values, out=best)


def decide(logits: Floats, scale: int, shape: Sequence[int], dtype: np.dtype[Any]) -> NDArray[Any]:
    """Return `most_probable(enlarge(logits, scale, shape), dtype)` for finite logits (K, *n), without the array (K, *shape).

    In the square between four neighbouring logits (a cell), the class that is the largest at all four corners is the
    largest everywhere, since interpolation is monotone, also with rounding. Only in cells where the corners differ, or
    rounding could make a class of smaller index equal, pixels are interpolated, and only for the classes that can win: those
    whose largest corner reaches the best of the smallest corners. The arithmetic there is that of `enlarge`.
    """
    if scale == 1:
        return most_probable(enlarge(logits, scale, shape), dtype)
    if len(shape) != 2:
        parts = [most_probable(enlarge(logits, scale, shape, rows), dtype) for rows in bands(len(logits), shape)]
        return np.concatenate(parts)
    flat = logits.reshape(len(logits), -1)
    down, across = (_Cells.of(size, scale, count) for size, count in zip(shape, logits.shape[1:], strict=True))
    corners = np.stack(
        [
            np.add.outer(rows * logits.shape[2], columns)
            for columns in (across.low, across.high)
            for rows in (down.low, down.high)
        ]
    )
    classes, certain = _at_corners(flat)
    first = classes[corners[0]]
    decided = certain[corners].all(0) & (classes[corners[1:]] == first).all(0)
    blocks = np.empty((len(down.low), scale, len(across.low), scale), dtype)
    blocks[:] = first[:, None, :, None]
    row, column = np.nonzero(~decided)
    group = max(1, min(_CORNERS // (4 * len(logits)), _CELL_PIXELS // scale**2))
    for begin in range(0, len(row), group):
        r, c = row[begin : begin + group], column[begin : begin + group]
        values = np.take(flat, corners[:, r, c], 1)
        blocks[r, :, c, :] = _inside(values, np.take(down.share, r, 1), np.take(across.share, c, 1), dtype)
    canvas = blocks.reshape(len(down.low) * scale, -1)
    return canvas[down.offset :, across.offset :][: shape[0], : shape[1]].copy()


@dataclass(frozen=True)
class _Cells:
    """The cells along one axis: `scale` pixels each, the first and the last of them partly outside the image.

    Args:
        low, high: (n,) the logits at the two ends of each cell.
        share: (scale, n) the share of the second at each pixel.
        offset: pixels of the first cell that are outside.
    """

    low: Indices
    high: Indices
    share: Floats
    offset: int

    @classmethod
    def of(cls, size: int, scale: int, count: int) -> _Cells:
        """Return the cells of `size` pixels between `count` logits."""
        # The first cell ends at the centre of the first logit.
        offset = scale - scale // 2
        cells = np.arange(-1, (size + offset - 1) // scale)
        share = np.zeros(len(cells) * scale, np.float32)
        share[offset : offset + size] = _position(np.arange(size), scale, count)[1]
        low, high = np.clip(cells, 0, count - 1), np.minimum(cells + 1, count - 1)
        return cls(low, high, np.ascontiguousarray(share.reshape(-1, scale).T), offset)


def _at_corners(flat: Floats) -> tuple[NDArray[Any], NDArray[np.bool_]]:
    """Return the first class (n,) whose logits (K, n) reach the largest up to rounding, and whether it has the largest.

    Where both are the same at all corners of a cell, no class of smaller index becomes equal to it by rounding.
    """
    best = flat.max(0)
    almost = best - (np.abs(best).max() * _ROUNDING + _TINY)
    classes: NDArray[Any] = np.zeros(len(best), np.uint8 if len(flat) <= 256 else np.uint32)
    ahead = np.ones(len(best), bool)
    below = np.empty(len(best), bool)
    for logits in flat[:-1]:
        np.less(logits, almost, out=below)
        ahead &= below
        classes += ahead.view(np.uint8)
    return classes, flat[classes, np.arange(len(best))] == best


def _inside(values: Floats, down: Floats, across: Floats, dtype: np.dtype[Any]) -> NDArray[Any]:
    """Return the most probable class (n, s, s) of the pixels of n cells.

    Args:
        values: (K, 4, n) logits at their corners: top left, bottom left, top right, bottom right.
        down: (s, n) shares of the bottom corners.
        across: (s, n) shares of the right corners.
        dtype: of the result.
    """
    floor = values.min(1).max(0)
    candidates = values.max(1) >= floor - (np.abs(floor) * _ROUNDING + _TINY)
    # Cells with more candidates first: those with a next candidate are then the first ones.
    counts = candidates.sum(0)
    order = np.argsort(-counts, kind="stable")
    counts = counts[order]
    classes = np.nonzero(candidates[:, order].T)[1]  # of the first cell, of the second, …, ascending
    starts = np.cumsum(counts) - counts
    down, across = np.take(down, order, 1), np.take(across, order, 1)
    up, back = 1 - down, 1 - across
    cells = len(order)
    best = np.full((len(down), len(down), cells), -np.inf, np.float32)
    chosen = np.zeros(best.shape, dtype)
    for rank in range(int(counts[0])):
        n = int(np.searchsorted(-counts, -rank))
        k = classes[starts[:n] + rank]
        corner = values.reshape(-1)[k * 4 * cells + order[:n] + np.arange(4)[:, None] * cells]
        left = corner[0] * up[:, :n] + corner[1] * down[:, :n]
        right = corner[2] * up[:, :n] + corner[3] * down[:, :n]
        pixels = left[:, None] * back[:, :n] + right[:, None] * across[:, :n]
        _choose(pixels, k.astype(dtype), best[..., :n], chosen[..., :n])
    result = np.empty((cells, *best.shape[:2]), dtype)
    result[order] = chosen.transpose(2, 0, 1)
    return result
