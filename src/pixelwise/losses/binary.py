"""Losses of yes-or-no labels: several of one pixel may be true at once, or there is one question alone.

Comes in: logits (B, K, *S) of K questions and masks (B, K, *S) of 0, 1 and the ignore index; with one question also
(B, *S). Goes out: one scalar. Knows nothing of classes that exclude each other; the Lovász hinge lies beside its sister.

Each label of a pixel is ignored on its own. A batch in which nothing counts gives 0 with a gradient of zeros.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from pixelwise.losses.overlap import missed_index
from pixelwise.losses.pixels import (
    Per,
    mean_over_present,
    prepare_labels,
    require_gamma,
    require_per,
    require_scalar,
    require_weights,
)


def binary_cross_entropy(
    logits: Tensor,
    masks: Tensor,
    *,
    pos_weight: Tensor | None = None,
    ignore_index: int = 255,
    normaliser: Tensor | None = None,
) -> Tensor:
    """Take the mean of -(w·t·log p + (1 - t)·log(1 - p)) over all labels that count, p the sigmoid of the logit.

    Args:
        logits: (B, K, *S).
        masks: (B, K, *S) integers, 0, 1 or `ignore_index`; or (B, *S) where K is 1.
        pos_weight: (K,), the w of each label, as in torch's `binary_cross_entropy_with_logits`; 1 each where not given.
        ignore_index: what counts in nothing; each label of a pixel has its own.
        normaliser: scalar that replaces the number of labels that count, so that parts of a larger batch add up.

    Raises:
        UsageError: shapes that do not fit, masks of fractions, an ignore index of 0 or 1, a normaliser that is no scalar.
        MaskError: values other than 0, 1 and the ignore index.
        ConfigError: not one weight per label.

    """
    losses, _, counted = _entropies(logits, masks, pos_weight, ignore_index)
    return losses.sum() / _number(counted, normaliser).to(losses.dtype)


def binary_focal(
    logits: Tensor,
    masks: Tensor,
    *,
    gamma: float = 2.0,
    pos_weight: Tensor | None = None,
    ignore_index: int = 255,
    normaliser: Tensor | None = None,
) -> Tensor:
    """Take `binary_cross_entropy` in which a label counts by (1 - p(truth))^gamma: Lin et al. 2017, arXiv:1708.02002.

    Their alpha is `pos_weight` = alpha / (1 - alpha), up to the scale of the whole. `gamma=0` is `binary_cross_entropy`;
    arguments and errors as there, and a `UsageError` for a `gamma` below 0.
    """
    require_gamma(gamma)
    losses, against, counted = _entropies(logits, masks, pos_weight, ignore_index)
    # sigmoid(-z) instead of 1 - sigmoid(z): no digits are lost. The floor is for the slope of x^gamma at 0.
    doubt = torch.sigmoid(against).clamp_min(torch.finfo(against.dtype).tiny)
    return (losses * doubt**gamma).sum() / _number(counted, normaliser).to(losses.dtype)


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
    """Take the mean of (1 - Tversky index)^(1 / gamma) over the labels that the truth shows: see `tversky`.

    A label without a single 1 has no index; what is falsely predicted as it, `binary_cross_entropy` tells. Masks and
    errors as there, the rest as in `tversky`.
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
    """Take 1 - the mean soft Dice of the labels that the truth shows; arguments and errors as in `binary_tversky`."""
    return binary_tversky(logits, masks, alpha=0.5, beta=0.5, per=per, ignore_index=ignore_index)


def _entropies(
    logits: Tensor, masks: Tensor, pos_weight: Tensor | None, ignore_index: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Give the loss of each label, 0 where ignored, the logit of its being wrong, and what counts: (B, K, N)."""
    scores, truth, counted = prepare_labels(logits, masks, ignore_index)
    weight = None
    if pos_weight is not None:
        require_weights(pos_weight, logits.shape[1])
        weight = pos_weight.to(scores)[:, None]
    losses = F.binary_cross_entropy_with_logits(scores, truth, pos_weight=weight, reduction="none")
    return losses * counted, scores * (1 - 2 * truth), counted


def _number(counted: Tensor, normaliser: Tensor | None) -> Tensor:
    if normaliser is None:
        total = counted.sum()
    else:
        require_scalar(normaliser)
        total = normaliser.detach().to(counted.device)
    return torch.where(total > 0, total, 1)
