"""An image reduced to what it looks like from afar, so that copies and near copies are found without the image.

Comes in: an image (C, H, W). Goes out: a sketch of 143 bytes, and how much the pixels spread. Knows nothing of files.

The sketch is the lowest 12 × 12 coefficients of the discrete cosine transform of the image at 32 × 32 grey pixels, the mean
left out, brought to length 1: brightness and contrast do not matter, and the dot product of two sketches is the correlation of
the two small images as far as these waves make them up. Unlike a hash of 64 bits it says how alike two images are.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

_SIDE, _WAVES = 32, 12
LENGTH = _WAVES * _WAVES - 1
_SCALE = 127
_SAMPLES = 160  # at least so many rows and columns are looked at
_FLAT = 1.0  # grey levels: a small image that varies less is noise and rounding


class Sketch(NamedTuple):
    """Hold what an image looks like from afar.

    Args:
        waves: int8 coefficients as bytes; empty where the image is flat.
        spread: standard deviation of the pixels, in stored values.
    """

    waves: bytes
    spread: float


def sketch(image: NDArray[Any]) -> Sketch:
    """Sketch an image (C, H, W): the mean of its first three bands, or the first."""
    grey = _grey(image)
    spread = float(grey.std(dtype=np.float64))
    small = np.asarray(Image.fromarray(grey).resize((_SIDE, _SIDE), Image.Resampling.BOX), np.float32)
    if not np.isfinite(spread) or float(small.std()) <= (_FLAT if image.dtype.kind in "iu" else 1e-3 * spread):
        return Sketch(b"", spread)
    waves = (_COSINES @ small @ _COSINES.T).reshape(-1)[1:]
    scaled = waves * (_SCALE / max(float(np.sqrt(waves @ waves)), 1e-30))
    return Sketch(np.rint(scaled).astype(np.int8).tobytes(), spread)


def unpack(waves: list[bytes]) -> NDArray[np.float32]:
    """Give sketches as vectors (N, 143) of length 1."""
    vectors = np.frombuffer(b"".join(waves), np.int8).reshape(-1, LENGTH).astype(np.float32)
    return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)


def _grey(image: NDArray[Any]) -> NDArray[Any]:
    """Give every few rows and columns, in uint8 or float32."""
    step = max(min(image.shape[1:]) // _SAMPLES, 1)
    some = image[: 3 if len(image) >= 3 else 1, ::step, ::step]
    if image.dtype != np.uint8:
        return np.ascontiguousarray(some.mean(0, dtype=np.float32))
    if len(some) == 1:
        return np.ascontiguousarray(some[0])
    total = some[0].astype(np.uint16)
    total += some[1]
    total += some[2]
    return (total // 3).astype(np.uint8)


def _cosines() -> NDArray[np.float32]:
    """Give the rows of the orthonormal DCT-II that belong to the longest waves (Ahmed, Natarajan, Rao 1974)."""
    wave, place = np.arange(_WAVES)[:, None], np.arange(_SIDE)[None]
    rows = np.sqrt(2 / _SIDE) * np.cos(np.pi * wave * (2 * place + 1) / (2 * _SIDE))
    rows[0] /= np.sqrt(2)
    return rows.astype(np.float32)


_COSINES = _cosines()
