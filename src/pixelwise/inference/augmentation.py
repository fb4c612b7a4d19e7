"""Mirrored copies of an image, averaged: what a model thinks of it seen from other sides.

Comes in: a function from images to probabilities, and which mirrors to use. Goes out: the mean of its answers, each mirrored
back. Knows nothing of models, tiles or files.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Collection
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from pixelwise.errors import ConfigError

Flip = Literal["horizontal", "vertical"]
_AXES: dict[Flip, int] = {"vertical": -2, "horizontal": -1}


def mirrors(flips: bool | Collection[Flip]) -> tuple[tuple[int, ...], ...]:
    """List the axes along which each copy is mirrored; the first copy is the image itself.

    Args:
        flips: True for both directions (four copies), or those that make sense ("horizontal" alone for streets).

    Raises:
        ConfigError: another direction.
    """
    chosen = tuple(_AXES) if flips is True else tuple(flips or ())
    for flip in chosen:
        if flip not in _AXES:
            raise ConfigError(
                "predict.flips", expected="horizontal, vertical or both", found=str(flip), do="Correct the value."
            )
    axes = sorted({_AXES[flip] for flip in chosen})
    return tuple(copy for n in range(len(axes) + 1) for copy in itertools.combinations(axes, n))


def averaged(
    predict: Callable[[NDArray[Any]], Tensor], images: NDArray[Any], copies: tuple[tuple[int, ...], ...]
) -> Tensor:
    """Give the mean of the probabilities (B, K, H, W) that `predict` gives for mirrored copies of images (B, C, H, W)."""
    total: Tensor | None = None
    for axes in copies:
        probabilities = predict(np.ascontiguousarray(np.flip(images, axes))).flip(axes)
        total = probabilities if total is None else total + probabilities
    assert total is not None
    return total / len(copies)
