"""Predictions of consecutive frames: exponential smoothing of probabilities in time, and the flicker of masks."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pixelwise.inference.decision import Floats, most_probable
from pixelwise.inference.predictor import Predictor

# Levels of 255 by which the luminance of a pixel may differ between frames in which it counts as unchanged: the noise of
# sensors and of compression.
UNCHANGED = 4
_WEIGHTS = (77, 150, 29)  # red, green, blue: ITU-R BT.601 in 1/256


class Smoothing:
    """Exponential moving average of probabilities: p ← p + (1 - exp(-Δt / τ)) · (new - p), pixel by pixel.

    Motion is not followed. The time constant τ makes the result independent of the frame rate: after a change, the average is
    63 % of the way to the new probabilities after τ seconds.

    Args:
        time_constant: τ in seconds.
        probabilities: (K, H, W) of the frames before; None before the first frame.
        seconds: the time of the last frame.
    """

    def __init__(self, time_constant: float, probabilities: Floats | None = None, seconds: float = 0.0) -> None:
        self.time_constant = time_constant
        self.probabilities = probabilities
        self.seconds = seconds

    def __call__(
        self, predictor: Predictor, image: NDArray[Any], seconds: float, id: str = ""
    ) -> tuple[NDArray[Any], NDArray[Any]]:
        """Predict the frame (C, H, W) at a time; return the smoothed mask and the mask of this frame alone, (H, W)."""
        first = self.probabilities is None
        if self.probabilities is None:
            self.probabilities = np.empty((predictor.labels.num_classes, *image.shape[1:]), np.float32)
        state = self.probabilities
        weight = np.float32(-math.expm1(-(seconds - self.seconds) / self.time_constant))

        def blend(top: int, band: Floats) -> None:
            before = state[:, top : top + band.shape[1]]
            before[:] = band if first else before + weight * (band - before)

        raw = predictor.observed(image, None, None, id, blend).mask
        self.seconds = seconds
        return most_probable(state, predictor.labels.dtype), raw


class Flicker:
    """The share of pixels that change class between consecutive frames, among those where the image does not change.

    The image does not change where its luminance differs by at most `UNCHANGED` levels.

    Args:
        pixels: pixels compared so far.
        changed: how many of them changed class, per kind of mask.
    """

    def __init__(self, pixels: int = 0, changed: tuple[int, ...] = ()) -> None:
        self.pixels = pixels
        self.changed = changed
        self.luminance: NDArray[np.uint8] | None = None
        self.masks: tuple[NDArray[Any], ...] = ()

    def add(self, image: NDArray[np.uint8], *masks: NDArray[Any]) -> None:
        """Compare a frame, RGB (3, H, W), and masks of it (H, W) of one or more kinds, with those before."""
        now = luminance(image)
        if self.luminance is not None:
            still = np.maximum(now, self.luminance) - np.minimum(now, self.luminance) <= UNCHANGED
            self.pixels += int(np.count_nonzero(still))
            counts = [
                int(np.count_nonzero(still & (mask != before))) for mask, before in zip(masks, self.masks, strict=True)
            ]
            self.changed = tuple(map(sum, zip(self.changed or [0] * len(counts), counts, strict=True)))
        self.luminance, self.masks = now, masks

    def shares(self) -> list[float | None]:
        """Return the share, 0…1, per kind of mask; None without pixels to compare."""
        return [count / self.pixels if self.pixels else None for count in self.changed or [0] * len(self.masks)]


def luminance(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return the luminance (H, W) uint8 of an RGB image (3, H, W)."""
    total = np.zeros(image.shape[1:], np.uint16)
    for weight, plane in zip(_WEIGHTS, image, strict=True):
        total += plane * np.uint16(weight)
    return (total >> 8).astype(np.uint8)
