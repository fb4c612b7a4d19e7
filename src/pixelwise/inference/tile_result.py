"""What a network computed for one image or tile, and the classes and probabilities that follow from it.

Logits stay as coarse as the network computes them; they are enlarged in bands of rows, or at single pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pixelwise.inference.augmentation import average_over_flips
from pixelwise.inference.decision import bands, decide, enlarge, enlarge_at, most_probable, softmax

Floats = NDArray[np.float32]
Copy = tuple[tuple[int, ...], Floats]


@dataclass(frozen=True, eq=False)
class TileResult:
    """Logits of one image or tile.

    Args:
        shape: its size *S.
        copies: for each mirrored copy the axes along which it is mirrored, counted from the last, and its finite logits
            (K, *n); the first copy is not mirrored.
        scale: pixels per logit along each axis.
    """

    shape: tuple[int, ...]
    copies: Sequence[Copy]
    scale: int = 1

    def mask(self, dtype: np.dtype[Any]) -> NDArray[Any]:
        """Return the most probable classes (*S)."""
        if len(self.copies) == 1:
            # Not from probabilities: in float32, softmax may round different logits to equal ones.
            return decide(self.copies[0][1], self.scale, self.shape, dtype)
        mask = np.empty(self.shape, dtype)
        for rows in bands(len(self.copies[0][1]), self.shape):
            mask[rows] = most_probable(self.probabilities(rows), dtype)
        return mask

    def probabilities(self, rows: slice) -> Floats:
        """Return the mean probabilities (K, rows, *S[1:]) of all copies for some rows."""
        return average_over_flips(
            (axes, softmax(enlarge(logits, self.scale, self.shape, self._rows(rows, axes)), 0))
            for axes, logits in self.copies
        )

    def probabilities_at(self, points: Sequence[NDArray[np.intp]]) -> Floats:
        """Return the mean probabilities (K, n) of all copies at n pixels, given by their position along each axis."""
        if len(points[0]) == 1:
            # Of a single column, numpy sums the classes in pairs, which rounds differently.
            return self.probabilities_at([np.repeat(position, 2) for position in points])[:, :1]
        dimensions = len(self.shape)
        total = np.zeros(0, np.float32)
        for number, (axes, logits) in enumerate(self.copies):
            place = [
                self.shape[axis] - 1 - position if axis - dimensions in axes else position
                for axis, position in enumerate(points)
            ]
            found = softmax(enlarge_at(logits, self.scale, place), 0)
            total = total + found if number else found
        return total / np.float32(len(self.copies)) if len(self.copies) > 1 else total

    def _rows(self, rows: slice, mirrored: tuple[int, ...]) -> slice:
        """Return where these rows are in a copy that is mirrored along some axes."""
        upside_down = -len(self.shape) in mirrored
        return slice(self.shape[0] - rows.stop, self.shape[0] - rows.start) if upside_down else rows
