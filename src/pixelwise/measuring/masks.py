"""Masks that are measured: read window by window, so that memory does not grow with the image."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from pixelwise.labels import Labels
from pixelwise.tiles import Window


class MaskSource(Protocol):
    """A mask of shape *S, (H, W) or (D, H, W), that can be read more than once."""

    @property
    def id(self) -> str:
        """Name of the image."""

    @property
    def shape(self) -> tuple[int, ...]:
        """*S."""

    @property
    def labels(self) -> Labels:
        """The classes."""

    def read(self, window: Window) -> NDArray[Any]:
        """Return class indices, or the ignore index where there is no data, in the window's shape."""

    def confidence(self, window: Window) -> NDArray[np.float32] | None:
        """Return the probability of the predicted class, 0…1, in the window's shape; None if unknown."""


@dataclass(frozen=True, eq=False)
class ArrayMask:
    """A mask in memory.

    Args:
        mask: (*S), class indices or the ignore index.
        labels: the classes.
        id: name of the image.
        probability: (*S), the probability of the predicted class; None if unknown.
    """

    mask: NDArray[Any]
    labels: Labels
    id: str = ""
    probability: NDArray[np.float32] | None = None

    @property
    def shape(self) -> tuple[int, ...]:
        """*S."""
        return self.mask.shape

    def read(self, window: Window) -> NDArray[Any]:
        """See `MaskSource.read`."""
        return self.mask[window.slices]

    def confidence(self, window: Window) -> NDArray[np.float32] | None:
        """See `MaskSource.confidence`."""
        return None if self.probability is None else self.probability[window.slices]


def bands(shape: Sequence[int], rows: int) -> list[Window]:
    """Return windows of at most `rows` rows (2-D) or slices (3-D) that cover a shape from its start to its end."""
    return [
        Window((start, *(0 for _ in shape[1:])), (min(start + rows, shape[0]), *shape[1:]))
        for start in range(0, shape[0], rows)
    ]
