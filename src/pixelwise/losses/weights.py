"""Weights of classes against their imbalance.

Comes in: how often each class is seen in the training part. Goes out: one weight per class. Knows nothing of tensors,
data sets or losses.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from pixelwise.errors import ConfigError
from pixelwise.losses.pixels import wrong_weights

LARGEST_RATIO = 50.0


def class_weights(
    kind: str | Sequence[float], pixel_counts: Sequence[int], image_counts: Sequence[int] | None = None
) -> list[float]:
    """Weigh the classes against their imbalance.

    Args:
        kind: "none": 1 each. "inverse": 1 / share of pixels. "median": median frequency / frequency, Eigen & Fergus 2015,
            arXiv:1411.4734, where a class's frequency is its pixels per image that shows it. "effective":
            (1 - b) / (1 - b^n), Cui et al. 2019, arXiv:1901.05555, with b = 1 - 1 / (mean pixels per class), because
            their fixed b of up to 0.9999 counts images and would call millions of pixels all alike. Or the weights.
        pixel_counts: (K,) pixels of each class in the training part.
        image_counts: (K,) images that show each class, for "median"; all images show all classes where not given.

    Returns:
        K weights. Unless given as a list, they are scaled so that their mean over the pixels is 1, no weight is more than
        50 times another (else a handful of wrongly labelled pixels of a rare class would steer the training), and a class
        that never occurs has 1, which counts nowhere.

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
        wanted = "none, inverse, median, effective, or one number per class"
        raise ConfigError("loss.class_weights", expected=wanted, found=repr(kind), do="Choose one of these.")
    raw = np.minimum(raw, raw.min() * LARGEST_RATIO)
    weights = np.ones(len(counts))
    weights[present] = raw * n.sum() / (raw * n).sum()
    return [float(w) for w in weights]


def _given_weights(weights: Sequence[float], num_classes: int) -> list[float]:
    values = [float(w) for w in weights]
    if len(values) != num_classes:
        raise wrong_weights(num_classes, str(len(values)))
    if not (np.isfinite(values).all() and min(values) >= 0 and max(values) > 0):
        raise wrong_weights(num_classes, f"{values}, not all finite and at least 0, or all 0")
    return values
