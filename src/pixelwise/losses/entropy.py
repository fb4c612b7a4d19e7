"""Losses of single pixels: cross-entropy, also smoothed or of the hardest pixels alone, and focal loss.

Comes in: logits (B, K, *S) and masks (B, *S) of class indices. Goes out: a weighted mean over the pixels that count.
Knows nothing of regions, shapes or neighbours.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from pixelwise.errors import UsageError
from pixelwise.losses.pixels import divisor, pixel_weights, prepare, require_gamma


def cross_entropy(
    logits: Tensor,
    masks: Tensor,
    *,
    label_smoothing: float = 0.0,
    ignore_index: int = 255,
    class_weights: Tensor | None = None,
    normaliser: Tensor | None = None,
) -> Tensor:
    """Take the weighted mean of -log p(true class), sum of w·loss over sum of w: Ronneberger et al. 2015, arXiv:1505.04597.

    With label smoothing e, Szegedy et al. 2016, arXiv:1512.00567, the loss of a pixel is (1 - e) · (-log p(true class)) +
    e · the mean of -log p over all classes. The pixel keeps the one weight of its true class.

    Args:
        logits: (B, K, *S).
        masks: (B, *S) integers, class indices or `ignore_index`.
        label_smoothing: e, in 0…1.
        ignore_index: pixels with this value count in nothing.
        class_weights: (K,); 1 each where not given.
        normaliser: scalar that replaces the sum of w, so that parts of a larger batch add up.

    Raises:
        UsageError: shapes that do not fit, an e outside 0…1, or a normaliser that is no scalar.
        MaskError: class indices outside 0…K-1.

    """
    weights, gains, *_ = _gains(logits, masks, ignore_index, class_weights, label_smoothing)
    return -(weights * gains).sum() / divisor(weights, normaliser)


def ohem_cross_entropy(
    logits: Tensor,
    masks: Tensor,
    *,
    share: float = 0.25,
    threshold: float = 0.7,
    label_smoothing: float = 0.0,
    ignore_index: int = 255,
    class_weights: Tensor | None = None,
) -> Tensor:
    """Take the cross-entropy of the hardest pixels: Shrivastava et al. 2016, arXiv:1604.03540, for pixels.

    Kept are all pixels whose true class has a probability below `threshold`, and at least `share` of those that count,
    the least probable first. Pixels as hard as the last one kept are kept too, so the order of pixels decides nothing. The
    mean is over the kept pixels of the batch; it does not add up over parts of a batch.

    Args:
        logits: (B, K, *S).
        masks: (B, *S) integers, class indices or `ignore_index`.
        share: least share of the counted pixels that is kept, above 0, at most 1.
        threshold: probability of the true class below which every pixel is kept; 0 keeps `share` alone.
        label_smoothing: as in `cross_entropy`.
        ignore_index: pixels with this value count in nothing, not even in the share.
        class_weights: (K,); they weigh the loss, not which pixels are hard.

    Raises:
        UsageError: shapes that do not fit, or a share or threshold out of range.
        MaskError: class indices outside 0…K-1.

    """
    if not (0 < share <= 1 and 0 <= threshold <= 1):
        found, fix = f"share {share} and threshold {threshold}", "Choose, say, share 0.25 and threshold 0.7."
        raise UsageError("ohem", expected="a share above 0 and up to 1, a threshold in 0–1", found=found, do=fix)
    weights, gains, picked, counted = _gains(logits, masks, ignore_index, class_weights, label_smoothing)
    with torch.no_grad():
        # Not the weights tell what counts: they may be 0 for a class.
        hard = picked.flatten() if counted is None else picked[counted]
        if hard.numel():
            bar = hard.kthvalue(math.ceil(share * hard.numel())).values
            # "Not easier" instead of "harder": a NaN must be kept, or nobody would see it.
            easy = (picked > bar) & (picked >= (math.log(threshold) if threshold else -math.inf))
            weights = weights.masked_fill(easy, 0.0)
    return -(weights * gains).sum() / divisor(weights, None)


def focal(
    logits: Tensor,
    masks: Tensor,
    *,
    gamma: float = 2.0,
    ignore_index: int = 255,
    class_weights: Tensor | None = None,
    normaliser: Tensor | None = None,
) -> Tensor:
    """Take cross-entropy in which a pixel counts by (1 - p(true class))^gamma: Lin et al. 2017, arXiv:1708.02002.

    Divided like `cross_entropy`, so `gamma=0` is that; arguments and errors as there, and a `UsageError` for a `gamma` below 0.
    """
    require_gamma(gamma)
    weights, picked, *_ = _gains(logits, masks, ignore_index, class_weights, 0.0)
    # The slope of x^gamma with gamma < 1 is infinite at 0, where the logarithm is 0: NaN without the floor.
    doubt = (1 - picked.exp()).clamp_min(torch.finfo(picked.dtype).eps)
    return -(weights * doubt**gamma * picked).sum() / divisor(weights, normaliser)


def _gains(
    logits: Tensor, masks: Tensor, ignore_index: int, class_weights: Tensor | None, smoothing: float
) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
    """Give each pixel's weight, 0 where ignored, its smoothed log p, log p(true class), and whether it counts: (B, N)."""
    if not 0 <= smoothing <= 1:
        fix = "Choose, say, 0.1; 0 smooths nothing."
        raise UsageError("label_smoothing", expected="a number in 0–1", found=str(smoothing), do=fix)
    scores, pixels = prepare(logits, masks, ignore_index)
    logs = scores.log_softmax(1)
    picked = logs.gather(1, pixels.classes[:, None])[:, 0]
    gains = (1 - smoothing) * picked + smoothing * logs.mean(1) if smoothing else picked
    return pixel_weights(pixels, class_weights, scores), gains, picked, pixels.counted
