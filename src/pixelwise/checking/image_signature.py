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

_SIDE, _FREQUENCIES = 32, 12
LENGTH = _FREQUENCIES * _FREQUENCIES - 1
_SCALE = 127
_SAMPLES = 160  # minimum number of rows and columns that are sampled
_FLAT = 1.0  # grey levels; a small image that varies less shows noise and rounding only
_LARGE = 1e15  # squares of much larger values overflow in float32
_PAIRS = 4096  # random pairs for the typical distance


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
    small = np.asarray(Image.fromarray(grey).resize((_SIDE, _SIDE), Image.Resampling.BOX), np.float32)
    if not np.isfinite(spread) or float(small.std()) * scale <= (_FLAT if image.dtype.kind in "iu" else 1e-3 * spread):
        return Signature(b"", spread)
    coefficients = (_COSINES @ small @ _COSINES.T).reshape(-1)[1:]
    scaled = coefficients * (_SCALE / max(float(np.sqrt(coefficients @ coefficients)), 1e-30))
    return Signature(np.rint(scaled).astype(np.int8).tobytes(), spread)


def unpack(signatures: Sequence[bytes]) -> NDArray[np.float32]:
    """Return signatures as vectors (N, 143) of length 1."""
    vectors = np.frombuffer(b"".join(signatures), np.int8).reshape(-1, LENGTH).astype(np.float32)
    return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)


def distances(vectors: NDArray[np.float32], first: NDArray[np.int64], second: NDArray[np.int64]) -> NDArray[np.float32]:
    """Compute 1 - correlation of pairs of signatures: 0 for copies, about 1 for unrelated images."""
    return 1 - np.einsum("nd,nd->n", vectors[first], vectors[second])


def typical_distance(vectors: NDArray[np.float32], identity: NDArray[np.int64]) -> float:
    """Compute the median distance of random pairs (fixed seed) whose `identity` numbers differ; 1 if there are none."""
    if len(vectors) < 2:
        return 1.0
    first, second = np.random.default_rng(0).integers(0, len(vectors), (2, _PAIRS))
    differ = identity[first] != identity[second]
    return float(np.median(distances(vectors, first[differ], second[differ]))) if differ.any() else 1.0


def _grey(image: NDArray[Any]) -> NDArray[Any]:
    """Sample rows and columns evenly and average the bands, in uint8 or float32."""
    step = max(min(image.shape[1:]) // _SAMPLES, 1)
    sampled = image[: 3 if len(image) >= 3 else 1, ::step, ::step]
    if image.dtype != np.uint8:
        return np.ascontiguousarray(sampled.mean(0, dtype=np.float32))
    if len(sampled) == 1:
        return np.ascontiguousarray(sampled[0])
    return (sampled.sum(0, dtype=np.uint16) // 3).astype(np.uint8)


def _cosines() -> NDArray[np.float32]:
    """Compute the low-frequency rows of the orthonormal DCT-II (Ahmed, Natarajan, Rao 1974)."""
    frequency, position = np.arange(_FREQUENCIES)[:, None], np.arange(_SIDE)[None]
    rows = np.sqrt(2 / _SIDE) * np.cos(np.pi * frequency * (2 * position + 1) / (2 * _SIDE))
    rows[0] /= np.sqrt(2)
    return rows.astype(np.float32)


_COSINES = _cosines()
