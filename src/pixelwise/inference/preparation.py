"""Prepare images before the network, or the division into tiles: the same spacing, and the same intensities, for all of them.

Both depend on the whole image, so they cannot be layers of the network, which sees tiles or crops. Training and prediction use
the same functions. The volumes of a scanner have their own spacing, and raw values of MR have no unit: those of two scanners may
differ by a factor of a thousand.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pixelwise.grid import Grid
from pixelwise.imageio.images import fill_invalid
from pixelwise.imageio.resampling import triangle
from pixelwise.types import ModelSpec

# Volumes whose spacing differs by less are not resampled: that would cost more detail than it gains.
_SAME_SPACING = 0.05


def prepared(image: NDArray[Any], valid: NDArray[np.bool_] | None, grid: Grid | None, spec: ModelSpec) -> NDArray[Any]:
    """Return an image as the network, or its tiles, take it: (C, *P), in its own type if nothing has to be computed.

    Args:
        image: (C, *S) of raw values.
        valid: (*S), false where the image has no data; there it gets the fill value.
        grid: of the image.
        spec: of the model: `intensity`, `spacing` and `fill`.

    Returns:
        The image in the size of `resampled_size`.
    """
    if spec.intensity == "image":
        image = standardised(image, valid)
    image = fill_invalid(image, valid, spec.fill or (0.0,) * spec.channels)
    size = resampled_size(image.shape[1:], grid, spec.spacing)
    return image if size is None else resampled(image, size)


def standardised(image: NDArray[Any], valid: NDArray[np.bool_] | None = None) -> NDArray[np.float32]:
    """Return an image (C, *S) with mean 0 and standard deviation 1 per band over its valid pixels (*S), float32.

    A constant band becomes 0.
    """
    flat = image.reshape(len(image), -1) if valid is None else image[:, valid]
    if not flat.size:
        return np.zeros(image.shape, np.float32)
    shape = (-1, *(1,) * (image.ndim - 1))
    mean = flat.mean(axis=1, dtype=np.float64)
    std = flat.std(axis=1, dtype=np.float64)
    # Rounding gives constant bands a tiny deviation.
    std[std <= 1e-9 * np.abs(mean)] = np.inf
    # In double, since the values may be large and close to each other.
    return ((image - mean.reshape(shape)) / std.reshape(shape)).astype(np.float32)


def resampled_size(shape: Sequence[int], grid: Grid | None, spacing: Sequence[float] | None) -> tuple[int, ...] | None:
    """Return the size at which pixels have a spacing in millimetres; None if the image is used as it is.

    That is the case without a spacing in `mm`, or if it differs by less than a twentieth along each axis.
    """
    if spacing is None or grid is None or grid.unit != "mm" or len(spacing) != grid.ndim:
        return None
    factors = [own / wanted for own, wanted in zip(grid.spacing, spacing, strict=True)]
    if all(abs(factor - 1) <= _SAME_SPACING for factor in factors):
        return None
    size = tuple(max(round(side * factor), 1) for side, factor in zip(shape, factors, strict=True))
    return None if size == tuple(shape) else size


def resampled(values: NDArray[Any], size: Sequence[int], rows: slice = slice(None)) -> NDArray[np.float32]:
    """Resize values (N, *S) to (N, *size) linearly along each axis, with half-pixel centres, as float32.

    An axis that shrinks is averaged with a triangle as wide as two pixels of the result, so that no pixel is skipped. Constants
    stay as they are, and probabilities sum to 1.

    Args:
        values: numbers of any type.
        size: of the result.
        rows: return only these rows (without step) along the first axis of `size`.
    """
    result = values.astype(np.float32, copy=False)
    for axis, side in enumerate(size, 1):
        count = values.shape[axis]
        start, stop, _ = rows.indices(side) if axis == 1 else (0, side, 1)
        if side == count == stop - start:
            continue
        first, weights = triangle(start, stop, count / side, count)
        along = np.moveaxis(result, axis, 0)[first : first + weights.shape[1]]
        product = weights @ along.reshape(len(along), -1)
        result = np.moveaxis(product.reshape(len(weights), *along.shape[1:]), 0, axis)
    return np.ascontiguousarray(result)


def nearest(values: NDArray[Any], size: Sequence[int]) -> NDArray[Any]:
    """Resize values (*S) to `size` by taking the pixel that contains the centre of the new one."""
    for axis, side in enumerate(size):
        count = values.shape[axis]
        if count == side:
            continue
        values = np.take(values, (2 * np.arange(side) + 1) * count // (2 * side), axis)
    return values
