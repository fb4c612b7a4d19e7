"""Losses for binary labels: one class, or several that do not exclude each other.

Each label of a pixel is ignored on its own. The Lovász hinge is in `losses.lovasz`.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from pixelwise.losses.inputs import (
    Per,
    mean_over_present,
    prepare_labels,
    require_gamma,
    require_per,
    require_scalar,
    require_weights,
)
from pixelwise.losses.overlap import missed_index


def binary_cross_entropy(
    logits: Tensor,
    masks: Tensor,
    *,
    pos_weight: Tensor | None = None,
    ignore_index: int = 255,
    normaliser: Tensor | None = None,
) -> Tensor:
    """Compute the mean of -(w·t·log p + (1 - t)·log(1 - p)) over all counted labels, p the sigmoid of the logit.

    Args:
        logits: (B, K, *S).
        masks: (B, K, *S) integers, 0, 1 or `ignore_index`; or (B, *S) if K is 1.
        pos_weight: (K,), the w of each label, as in torch's `binary_cross_entropy_with_logits`; 1 by default.
        ignore_index: value of ignored labels.
        normaliser: scalar that replaces the number of counted labels, so that parts of a larger batch add up.

    Raises:
        UsageError: shapes that do not match, floating-point masks, an ignore index of 0 or 1, or a normaliser that is not a scalar.
        MaskError: values other than 0, 1 and the ignore index.
        ConfigError: not one weight per label.
    """
    losses, _, counted = _entropies(logits, masks, pos_weight, ignore_index)
    return losses.sum() / _count(counted, normaliser).to(losses.dtype)


def binary_focal(
    logits: Tensor,
    masks: Tensor,
    *,
    gamma: float = 2.0,
    pos_weight: Tensor | None = None,
    ignore_index: int = 255,
    normaliser: Tensor | None = None,
) -> Tensor:
    """Compute `binary_cross_entropy` with each label weighted by (1 - p(truth))^gamma: Lin et al. 2017, arXiv:1708.02002.

    Their alpha corresponds to `pos_weight` = alpha / (1 - alpha), up to a constant factor. `gamma=0` is
    `binary_cross_entropy`; arguments and errors as there. Raises a `UsageError` if `gamma` is negative.
    """
    require_gamma(gamma)
    losses, against, counted = _entropies(logits, masks, pos_weight, ignore_index)
    # sigmoid(-z) is more precise than 1 - sigmoid(z). The floor avoids an infinite slope of x^gamma at 0.
    uncertainty = torch.sigmoid(against).clamp_min(torch.finfo(against.dtype).tiny)
    return (losses * uncertainty**gamma).sum() / _count(counted, normaliser).to(losses.dtype)


def binary_tversky(
    logits: Tensor,
    masks: Tensor,
    *,
    alpha: float = 0.3,
    beta: float = 0.7,
    gamma: float = 1.0,
    per: Per = "batch",
    ignore_index: int = 255,
) -> Tensor:
    """Compute the mean of (1 - Tversky index)^(1 / gamma) over the labels present in the ground truth: see `tversky`.

    Labels without a positive pixel are left out, so this term does not penalise false positives there; `binary_cross_entropy`
    does. Masks and errors as there, the rest as in `tversky`.
    """
    require_per(per)
    scores, truth, counted = prepare_labels(logits, masks, ignore_index)
    probabilities = torch.sigmoid(scores) * counted
    axes = (0, 2) if per == "batch" else (2,)
    hits, predicted, total = (
        each.sum(axes, dtype=torch.double).view(-1, scores.shape[1])
        for each in (probabilities * truth, probabilities, truth)
    )
    missed = missed_index(hits, predicted, total, alpha, beta, gamma)
    return mean_over_present(missed, total > 0).to(scores.dtype)


def binary_dice(logits: Tensor, masks: Tensor, *, per: Per = "batch", ignore_index: int = 255) -> Tensor:
    """Compute 1 - mean soft Dice of the labels present in the ground truth; arguments and errors as in `binary_tversky`."""
    return binary_tversky(logits, masks, alpha=0.5, beta=0.5, per=per, ignore_index=ignore_index)


def _entropies(
    logits: Tensor, masks: Tensor, pos_weight: Tensor | None, ignore_index: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Return each label's loss (0 if ignored), the logit of the wrong answer, and whether it counts, (B, K, N) each."""
    scores, truth, counted = prepare_labels(logits, masks, ignore_index)
    weight = None
    if pos_weight is not None:
        require_weights(pos_weight, logits.shape[1])
        weight = pos_weight.to(scores)[:, None]
    losses = F.binary_cross_entropy_with_logits(scores, truth, pos_weight=weight, reduction="none")
    return losses * counted, scores * (1 - 2 * truth), counted


def _count(counted: Tensor, normaliser: Tensor | None) -> Tensor:
    if normaliser is None:
        total = counted.sum()
    else:
        require_scalar(normaliser)
        total = normaliser.detach().to(counted.device)
    return torch.where(total > 0, total, 1)
