"""The Lovász extension of the Jaccard index, a differentiable surrogate of IoU, for classes and for binary labels.

The extension is linear as long as the order of the errors does not change: the slope of each error is the increase of the
Jaccard loss when its pixel joins the wrong ones, largest error first. The slopes are therefore computed without gradient, and
the sum of slope · error has the exact value and gradient. The order of equal errors does not affect the value.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from pixelwise.losses.inputs import Per, mean_over_present, per_image, prepare, prepare_labels, require_per

_OfClass = Callable[[int], tuple[Tensor, Tensor]]


def lovasz_softmax(logits: Tensor, masks: Tensor, *, per: Per = "batch", ignore_index: int = 255) -> Tensor:
    """Compute the mean Lovász-softmax loss: Berman et al. 2018, arXiv:1705.08790.

    The error of a pixel for a class is |t - p|, t being 1 for the true class. The mean is over the classes in the ground truth.

    Args:
        logits: (B, K, *S).
        masks: (B, *S) integers, class indices or `ignore_index`.
        per: "batch" takes the IoU of a class over the batch; "image" over each image, averaged over images with counted pixels.
        ignore_index: value of ignored pixels.

    Raises:
        UsageError: shapes that do not match, or an invalid `per`.
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
    """Compute the mean Lovász hinge loss of binary labels: Yu & Blaschko 2015; Berman et al. 2018, arXiv:1705.08790.

    The error of a pixel is the hinge, max(0, 1 - logit) for label 1 and max(0, 1 + logit) for label 0. The mean is over the
    labels with at least one positive pixel; others have no IoU and contribute nothing.

    Args:
        logits: (B, K, *S).
        masks: (B, K, *S) of 0, 1 and `ignore_index`, or (B, *S) if K is 1.
        per: as in `lovasz_softmax`.
        ignore_index: value of ignored labels.

    Raises:
        UsageError, MaskError: as `binary_cross_entropy`.
    """
    require_per(per)
    scores, truth, counted = prepare_labels(logits, masks, ignore_index)
    errors = (1 - scores * (2 * truth - 1)).relu()
    return _mean_extension(errors, lambda k: (truth[:, k] > 0, counted[:, k]), (truth > 0).any(2), per)


def _mean_extension(errors: Tensor, of_class: _OfClass, present: Tensor, per: Per) -> Tensor:
    """Average the sums of slope · error over the present classes.

    Args:
        errors: (B, K, N).
        of_class: returns for a class which pixels are true and which count, (B, N) each.
        present: whether each image contains each class, (B, K).
        per: "batch" or "image".
    """
    slopes = torch.zeros_like(errors)
    if per == "batch":
        present = present.any(0, keepdim=True)
    with torch.no_grad():
        for k in present.any(0).nonzero().flatten().tolist():
            true, counted = of_class(k)
            for g in present[:, k].nonzero().flatten().tolist():
                rows = slice(None) if per == "batch" else slice(g, g + 1)
                inside = counted[rows]
                # The first index makes a view, so that the assignment writes to `slopes`.
                slopes[rows, k][inside] = _slopes(errors[rows, k][inside], true[rows][inside])
    losses = (errors * slopes).sum(2, dtype=torch.double)
    losses = losses.sum(0, keepdim=True) if per == "batch" else losses
    return mean_over_present(losses, present).to(errors.dtype)


def _slopes(errors: Tensor, truth: Tensor) -> Tensor:
    """Return the increase of the Jaccard loss by each pixel, largest error first, (M,), from errors and truth (M,)."""
    order = errors.argsort(descending=True)
    hit = truth[order]
    total = hit.sum()
    missed = hit.cumsum(0)
    # Counts are integers, then double: float32 cannot count beyond 2^24.
    jaccard = 1 - (total - missed).double() / (total + torch.arange(1, len(hit) + 1, device=hit.device) - missed)
    slopes = torch.empty_like(errors)
    slopes[order] = jaccard.diff(prepend=jaccard.new_zeros(1)).to(errors.dtype)
    return slopes
