"""From logits to masks: enlarging coarse logits, softmax, and the most probable class."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

# Pixels per piece of `most_probable`: few enough that a class and the running maximum stay in the cache.
_PIXELS = 1 << 16


def enlarge(logits: NDArray[np.float32], scale: int, shape: Sequence[int]) -> NDArray[np.float32]:
    """Enlarge logits (…, *ceil(S / scale)) to (…, *shape), linearly along each axis, with half-pixel centres.

    The values are those of torch's `interpolate` (bilinear or trilinear, `align_corners=False`) by a factor of `scale`,
    cropped to `shape`.
    """
    if scale == 1:
        return logits
    for axis, size in enumerate(shape, logits.ndim - len(shape)):
        position = np.clip((np.arange(size, dtype=np.float32) + np.float32(0.5)) / scale - np.float32(0.5), 0, None)
        low = np.minimum(position.astype(np.intp), logits.shape[axis] - 1)
        high = np.minimum(low + 1, logits.shape[axis] - 1)
        share = (position - low).astype(np.float32).reshape([-1] + [1] * (logits.ndim - 1 - axis))
        first = np.take(logits, low, axis)
        second = np.take(logits, high, axis)
        logits = first * (1 - share) + second * share
    return logits


def softmax(logits: NDArray[np.float32], axis: int) -> NDArray[np.float32]:
    """Return the probabilities of logits with the classes along `axis`."""
    result: NDArray[np.float32] = logits - logits.max(axis, keepdims=True)
    np.exp(result, out=result)
    result /= result.sum(axis, keepdims=True)
    return result


def most_probable(scores: NDArray[np.float32], dtype: np.dtype[Any]) -> NDArray[Any]:
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
            better = piece[k] > best
            np.copyto(chosen, dtype.type(k), where=better)
            np.maximum(best, piece[k], out=best)
    return result.reshape(scores.shape[1:])
