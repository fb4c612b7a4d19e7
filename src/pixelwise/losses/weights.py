"""Class weights against class imbalance, from the pixel counts of the training split."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from pixelwise.errors import ConfigError, nearest
from pixelwise.losses.inputs import wrong_weights

LARGEST_RATIO = 50.0


def class_weights(
    kind: str | Sequence[float], pixel_counts: Sequence[int], image_counts: Sequence[int] | None = None
) -> list[float]:
    """Compute class weights against class imbalance.

    Args:
        kind: "none": 1 each. "inverse": 1 / share of pixels. "median": median frequency / frequency, Eigen & Fergus 2015,
            arXiv:1411.4734, where the frequency of a class is its pixels per image that contains it. "effective":
            (1 - b) / (1 - b^n), Cui et al. 2019, arXiv:1901.05555, with b = 1 - 1 / (mean pixels per class), because
            the paper's b of up to 0.9999 is meant for image counts and saturates for millions of pixels. Or a list of weights.
        pixel_counts: (K,) pixels of each class in the training split.
        image_counts: (K,) images that contain each class, for "median"; by default every image contains every class.

    Returns:
        K weights. Unless given as a list, they are scaled to a mean of 1 over the pixels, and the ratio of two weights is
        limited to 50, so that a few wrongly labelled pixels of a rare class cannot dominate the training. The weight of a class
        that never occurs is 1.

    Raises:
        ConfigError: an unknown kind, or weights that are negative, all zero or not one per class.
    """
    counts = np.asarray(pixel_counts, np.float64)
    if not isinstance(kind, str):
        return _given_weights(kind, len(counts))
    present = counts > 0
    if kind == "none" or not present.any():
        return [1.0] * len(counts)
    n = counts[present]
    if kind == "inverse":
        raw = 1 / n
    elif kind == "median":
        shown = np.ones(len(n)) if image_counts is None else np.asarray(image_counts, np.float64)[present]
        raw = np.maximum(shown, 1) / n
    elif kind == "effective":
        raw = -1 / np.expm1(n * np.log1p(-1 / max(float(n.mean()), 2.0)))
    else:
        expected = "none, inverse, median, effective, or one number per class"
        fix = nearest(kind, ("none", "inverse", "median", "effective"))
        raise ConfigError("loss.class_weights", expected=expected, found=repr(kind), do=fix)
    raw = np.minimum(raw, raw.min() * LARGEST_RATIO)
    weights = np.ones(len(counts))
    weights[present] = raw * n.sum() / (raw * n).sum()
    return [float(w) for w in weights]


def _given_weights(weights: Sequence[float], num_classes: int) -> list[float]:
    values = [float(w) for w in weights]
    if len(values) != num_classes:
        raise wrong_weights(num_classes, str(len(values)))
    if not (np.isfinite(values).all() and min(values) >= 0 and max(values) > 0):
        raise wrong_weights(num_classes, f"{values}, with negative or non-finite values or all 0")
    return values
