"""Reduce an image to a compact signature by which copies and near-duplicates are found without the image.

The signature holds the lowest 12 × 12 coefficients of the discrete cosine transform of the image at 32 × 32 grey pixels,
without the mean, scaled to length 1: brightness and contrast do not matter, and the dot product of two signatures is the
correlation of the two low-pass images. Unlike a 64-bit perceptual hash it measures how similar two images are.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

SIDE, FREQUENCIES = 32, 12
LENGTH = FREQUENCIES * FREQUENCIES - 1
_SCALE = 127
_SAMPLES = 160  # minimum number of rows and columns that are sampled
_FLAT = 1.0  # grey levels; a small image that varies less shows noise and rounding only
_LARGE = 1e15  # squares of much larger values overflow in float32


class Signature(NamedTuple):
    """Signature of an image.

    Args:
        coefficients: 143 int8 coefficients as bytes; empty if the image is flat.
        spread: standard deviation of the pixels, in stored values.
    """

    coefficients: bytes
    spread: float


def image_signature(image: NDArray[Any]) -> Signature:
    """Compute the signature of an image (C, H, W) from the mean of its first three bands, or from its first band."""
    grey = _grey(image)
    scale = 1.0
    if grey.dtype == np.float32 and (top := float(np.abs(grey).max())) > _LARGE:
        grey, scale = grey / np.float32(top), top
    spread = float(grey.std(dtype=np.float64)) * scale
    small = np.asarray(Image.fromarray(grey).resize((SIDE, SIDE), Image.Resampling.BOX), np.float32)
    if not np.isfinite(spread) or float(small.std()) * scale <= (_FLAT if image.dtype.kind in "iu" else 1e-3 * spread):
        return Signature(b"", spread)
    coefficients = (COSINES @ small @ COSINES.T).reshape(-1)[1:]
    scaled = coefficients * (_SCALE / max(float(np.sqrt(coefficients @ coefficients)), 1e-30))
    return Signature(np.rint(scaled).astype(np.int8).tobytes(), spread)


def unpack(signatures: Sequence[bytes]) -> NDArray[np.float32]:
    """Return signatures as vectors (N, 143) of length 1."""
    vectors = np.frombuffer(b"".join(signatures), np.int8).reshape(-1, LENGTH).astype(np.float32)
    return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)


def distances(vectors: NDArray[np.float32], first: NDArray[np.int64], second: NDArray[np.int64]) -> NDArray[np.float32]:
    """Compute 1 - correlation of pairs of signatures: 0 for copies, about 1 for unrelated images."""
    return 1 - np.einsum("nd,nd->n", vectors[first], vectors[second])


def _grey(image: NDArray[Any]) -> NDArray[Any]:
    """Sample rows and columns and average the bands, in uint8 or float32."""
    step = max(min(image.shape[1:]) // _SAMPLES, 1)
    sampled = image[: 3 if len(image) >= 3 else 1]
    if step > 1:
        rows, columns = (_places(size, step) for size in image.shape[1:])
        sampled = sampled.take(rows, axis=1).take(columns, axis=2)
    if image.dtype != np.uint8:
        return np.ascontiguousarray(sampled.mean(0, dtype=np.float32))
    if len(sampled) == 1:
        return np.ascontiguousarray(sampled[0])
    return (sampled.sum(0, dtype=np.uint16) // 3).astype(np.uint8)


def _places(size: int, step: int) -> NDArray[np.int64]:
    """Return every `step`-th place up to `size`, the same from both ends, so that a mirrored image has the same samples."""
    last = (size - 1 - step) // 2
    half = np.arange(last % step, last + 1, step)
    return np.concatenate([half, size - 1 - half[::-1]])


def _cosines() -> NDArray[np.float32]:
    """Compute the low-frequency rows of the orthonormal DCT-II (Ahmed, Natarajan, Rao 1974)."""
    frequency, position = np.arange(FREQUENCIES)[:, None], np.arange(SIDE)[None]
    rows = np.sqrt(2 / SIDE) * np.cos(np.pi * frequency * (2 * position + 1) / (2 * SIDE))
    rows[0] /= np.sqrt(2)
    return rows.astype(np.float32)


COSINES = _cosines()
