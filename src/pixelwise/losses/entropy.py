"""Pixel-wise losses: cross-entropy, with label smoothing or hard example mining, and focal loss."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from pixelwise.errors import UsageError
from pixelwise.losses.inputs import divisor, pixel_weights, prepare, require_gamma


def cross_entropy(
    logits: Tensor,
    masks: Tensor,
    *,
    label_smoothing: float = 0.0,
    ignore_index: int = 255,
    class_weights: Tensor | None = None,
    normaliser: Tensor | None = None,
) -> Tensor:
    """Compute the weighted mean of -log p(true class), sum of w·loss over sum of w: Ronneberger et al. 2015, arXiv:1505.04597.

    With label smoothing e, Szegedy et al. 2016, arXiv:1512.00567, the loss of a pixel is (1 - e) · (-log p(true class)) +
    e · the mean of -log p over all classes, weighted by the weight of its true class.

    Args:
        logits: (B, K, *S).
        masks: (B, *S) integers, class indices or `ignore_index`.
        label_smoothing: e, in 0…1.
        ignore_index: value of ignored pixels.
        class_weights: (K,); 1 by default.
        normaliser: scalar that replaces the sum of w, so that parts of a larger batch add up.

    Raises:
        UsageError: shapes that do not match, a smoothing outside 0…1, or a normaliser that is not a scalar.
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
    """Compute the cross-entropy of the hardest pixels (OHEM): Shrivastava et al. 2016, arXiv:1604.03540, applied to pixels.

    Keep all pixels whose true class has a probability below `threshold`, and at least a share `share` of the counted pixels,
    least probable first; ties with the last pixel kept are kept, so pixel order does not matter. The mean is over the kept
    pixels of the batch; it does not add up over parts of a batch.

    Args:
        logits: (B, K, *S).
        masks: (B, *S) integers, class indices or `ignore_index`.
        share: minimum share of the counted pixels to keep, above 0, at most 1.
        threshold: probability of the true class below which every pixel is kept; 0 keeps only `share`.
        label_smoothing: as in `cross_entropy`.
        ignore_index: value of ignored pixels.
        class_weights: (K,); they do not affect which pixels are selected.

    Raises:
        UsageError: shapes that do not match, or a share or threshold out of range.
        MaskError: class indices outside 0…K-1.
    """
    if not (0 < share <= 1 and 0 <= threshold <= 1):
        found, fix = f"share {share} and threshold {threshold}", "Use, for example, share 0.25 and threshold 0.7."
        raise UsageError("ohem", expected="a share above 0 and at most 1, and a threshold in 0–1", found=found, do=fix)
    weights, gains, picked, counted = _gains(logits, masks, ignore_index, class_weights, label_smoothing)
    with torch.no_grad():
        # Not from the weights, which may be 0 for a class.
        hard = picked.flatten() if counted is None else picked[counted]
        if hard.numel():
            bar = hard.kthvalue(math.ceil(share * hard.numel())).values
            # Selects the easy pixels rather than the hard ones, so that NaN is kept and shows up in the loss.
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
    """Compute cross-entropy with each pixel weighted by (1 - p(true class))^gamma: Lin et al. 2017, arXiv:1708.02002.

    The divisor is that of `cross_entropy`, so `gamma=0` is `cross_entropy`; arguments and errors as there. Raises a `UsageError`
    if `gamma` is negative.
    """
    require_gamma(gamma)
    weights, picked, *_ = _gains(logits, masks, ignore_index, class_weights, 0.0)
    # The floor prevents NaN: for gamma < 1 the slope of x^gamma is infinite at 0, where the logarithm is 0.
    uncertainty = (1 - picked.exp()).clamp_min(torch.finfo(picked.dtype).eps)
    return -(weights * uncertainty**gamma * picked).sum() / divisor(weights, normaliser)


def _gains(
    logits: Tensor, masks: Tensor, ignore_index: int, class_weights: Tensor | None, smoothing: float
) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
    """Return each pixel's weight (0 if ignored), smoothed log p, log p(true class), and whether it counts, (B, N) each."""
    if not 0 <= smoothing <= 1:
        fix = "Use, for example, 0.1; 0 turns smoothing off."
        raise UsageError("label_smoothing", expected="a number in 0–1", found=str(smoothing), do=fix)
    scores, pixels = prepare(logits, masks, ignore_index)
    logs = scores.log_softmax(1)
    picked = logs.gather(1, pixels.classes[:, None])[:, 0]
    gains = (1 - smoothing) * picked + smoothing * logs.mean(1) if smoothing else picked
    return pixel_weights(pixels, class_weights, scores), gains, picked, pixels.counted
