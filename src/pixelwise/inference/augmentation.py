"""Test-time flips: the mean of the probabilities that a model predicts for mirrored copies of an image."""

from __future__ import annotations

import itertools
from collections.abc import Collection, Iterable

import numpy as np
from numpy.typing import NDArray

from pixelwise.errors import ConfigError

AXES = {"horizontal": -1, "vertical": -2, "depth": -3}


def mirrored_axes(flips: Collection[str], dimensions: int = 2) -> tuple[tuple[int, ...], ...]:
    """Return the axes along which each copy is mirrored; the first copy is the image itself.

    Args:
        flips: directions of `AXES`; with n directions there are 2^n copies.
        dimensions: spatial axes of the images.

    Raises:
        ConfigError: a direction that the images do not have.
    """
    valid = list(AXES)[:dimensions]
    for flip in flips:
        if flip not in valid:
            raise ConfigError(
                "predict.flips", expected=f"one or more of {', '.join(valid)}", found=flip, do="Correct the value."
            )
    axes = sorted({AXES[flip] for flip in flips})
    return tuple(copy for count in range(len(axes) + 1) for copy in itertools.combinations(axes, count))


def average_over_flips(copies: Iterable[tuple[tuple[int, ...], NDArray[np.float32]]]) -> NDArray[np.float32]:
    """Return the mean of the probabilities (…, *S) of mirrored copies, each with the axes along which it is mirrored.

    The first copy is not mirrored, and its array is used for the result.
    """
    total = np.zeros(0, np.float32)
    count = 0
    for count, (axes, probabilities) in enumerate(copies, 1):
        if count == 1:
            total = probabilities
        else:
            total += np.flip(probabilities, axes)
    if count > 1:
        total /= np.float32(count)
    return total
