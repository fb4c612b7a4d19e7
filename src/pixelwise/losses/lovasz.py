"""The Lovász extension of the Jaccard index: IoU itself, made differentiable, for classes and for yes-or-no labels.

Comes in: logits with masks of class indices, or of 0 and 1. Goes out: one scalar. Knows nothing of other losses.

The extension is linear as long as the order of the errors stays: the slope of each error is what the Jaccard loss grows by
when its pixel joins the wrong ones, worst first. So the slopes are found without gradient, and the sum of slope · error
has the exact value and gradient. The order of equal errors may be any: the value does not depend on it.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from pixelwise.losses.pixels import Per, mean_over_present, per_image, prepare, prepare_labels, require_per

_OfClass = Callable[[int], tuple[Tensor, Tensor]]


def lovasz_softmax(logits: Tensor, masks: Tensor, *, per: Per = "batch", ignore_index: int = 255) -> Tensor:
    """Take the mean Lovász-softmax loss: Berman et al. 2018, arXiv:1705.08790.

    The error of a pixel for a class is |[true class is that one] - p|. The mean is over the classes that the truth shows.

    Args:
        logits: (B, K, *S).
        masks: (B, *S) integers, class indices or `ignore_index`.
        per: "batch" takes the IoU of a class over all images together; "image" over each, then the mean over the
            images in which anything counts.
        ignore_index: pixels with this value count in nothing.

    Raises:
        UsageError: shapes that do not fit, or another `per`.
        MaskError: class indices outside 0…K-1.

    """
    require_per(per)
    scores, pixels = prepare(logits, masks, ignore_index)
    place = pixels.classes[:, None]
    probabilities = scores.softmax(1)
    errors = probabilities.scatter(1, place, 1 - probabilities.gather(1, place))
    counted = torch.ones_like(pixels.classes, dtype=torch.bool) if pixels.counted is None else pixels.counted
    present = per_image(pixels, logits.shape[1]) > 0
    return _mean_extension(errors, lambda k: (pixels.classes == k, counted), present, per)


def lovasz_hinge(logits: Tensor, masks: Tensor, *, per: Per = "batch", ignore_index: int = 255) -> Tensor:
    """Take the mean Lovász hinge loss of yes-or-no labels: Yu & Blaschko 2015; Berman et al. 2018, arXiv:1705.08790.

    The error of a pixel is the hinge, 1 - logit where the label is 1 and 1 + logit where it is 0, at least 0. The mean is
    over the labels that the truth shows anywhere: without a single 1 there is no IoU, and the term tells nothing.

    Args:
        logits: (B, K, *S).
        masks: (B, K, *S) of 0, 1 and `ignore_index`, or (B, *S) where K is 1.
        per: as in `lovasz_softmax`.
        ignore_index: what counts in nothing.

    Raises:
        UsageError, MaskError: as `binary_cross_entropy`.

    """
    require_per(per)
    scores, truth, counted = prepare_labels(logits, masks, ignore_index)
    errors = (1 - scores * (2 * truth - 1)).relu()
    return _mean_extension(errors, lambda k: (truth[:, k] > 0, counted[:, k]), (truth > 0).any(2), per)


def _mean_extension(errors: Tensor, of_class: _OfClass, present: Tensor, per: Per) -> Tensor:
    """Sum slope · error: errors (B, K, N), what is true of a class and counts (B, N), what an image shows (B, K)."""
    slopes = torch.zeros_like(errors)
    if per == "batch":
        present = present.any(0, keepdim=True)
    with torch.no_grad():
        for k in present.any(0).nonzero().flatten().tolist():
            true, counted = of_class(k)
            for g in present[:, k].nonzero().flatten().tolist():
                rows = slice(None) if per == "batch" else slice(g, g + 1)
                inside = counted[rows]
                # Indexed twice with a view between, so that the values land in `slopes`.
                slopes[rows, k][inside] = _slopes(errors[rows, k][inside], true[rows][inside])
    losses = (errors * slopes).sum(2, dtype=torch.double)
    losses = losses.sum(0, keepdim=True) if per == "batch" else losses
    return mean_over_present(losses, present).to(errors.dtype)


def _slopes(errors: Tensor, truth: Tensor) -> Tensor:
    """Give the growth of the Jaccard loss by each pixel, worst first: (M,) errors and truth in bool."""
    order = errors.argsort(descending=True)
    hit = truth[order]
    total = hit.sum()
    missed = hit.cumsum(0)
    # Integers up to here, then double: float32 stops counting at 2^24.
    jaccard = 1 - (total - missed).double() / (total + torch.arange(1, len(hit) + 1, device=hit.device) - missed)
    slopes = torch.empty_like(errors)
    slopes[order] = jaccard.diff(prepend=jaccard.new_zeros(1)).to(errors.dtype)
    return slopes
