"""Soft clDice, a loss for the connectivity of thin structures, and the soft skeleton it is based on.

Ignored pixels are treated like pixels beyond the edge of the image: they neither thin nor thicken their neighbours.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import reduce

import torch
from torch import Tensor
from torch.nn import functional as F

from pixelwise.errors import UsageError
from pixelwise.losses.inputs import Per, mean_over_present, prepare, require_logits, require_per


def soft_cldice(
    logits: Tensor,
    masks: Tensor,
    *,
    classes: Sequence[int] | None = None,
    iterations: int = 3,
    per: Per = "batch",
    ignore_index: int = 255,
) -> Tensor:
    """Compute 1 - mean soft clDice: Shit et al. 2021, arXiv:2003.07311.

    clDice is the harmonic mean of the share of the predicted skeleton inside the true class and the share of the true skeleton
    inside the predicted class, without the paper's smoothing term of 1, so it does not depend on size. The mean is over those of
    `classes` with a true skeleton. It does not measure width: combine it with Dice or cross-entropy.

    Args:
        logits: (B, K, *S), S of two or three dimensions.
        masks: (B, *S) integers, class indices or `ignore_index`.
        classes: indices of the thin classes, at least one; all but the first by default.
        iterations: number of thinning steps, at least half the width of the widest structure in pixels.
        per: "batch" sums over the batch; "image" computes each image on its own and averages over those with a skeleton.
        ignore_index: value of ignored pixels.

    Raises:
        UsageError: shapes that do not match, a class that does not exist, or an invalid `per`.
        MaskError: class indices outside 0…K-1.
    """
    require_per(per)
    require_logits(logits)
    num_classes = logits.shape[1]
    chosen = list(range(1, num_classes)) if classes is None else list(classes)
    if classes is not None:
        require_thin(chosen, num_classes)
    scores, pixels = prepare(logits, masks, ignore_index)
    space = tuple(masks.shape[1:])
    counted = None if pixels.counted is None else pixels.counted.view(len(masks), 1, *space)
    predicted = scores.softmax(1)[:, chosen].view(len(masks), len(chosen), *space)
    which = torch.tensor(chosen, dtype=torch.long, device=masks.device).view(-1, *(1,) * len(space))
    true = (pixels.classes.view(len(masks), 1, *space) == which).to(scores.dtype)
    if counted is not None:
        predicted, true = predicted * counted, true * counted
    thin, true_thin = (soft_skeleton(each, iterations, counted) for each in (predicted, true))
    axes = tuple(range(2, 2 + len(space)))
    sums = [each.sum(axes, dtype=torch.double) for each in (thin * true, thin, true_thin * predicted, true_thin)]
    if per == "batch":
        sums = [each.sum(0, keepdim=True) for each in sums]
    right, length, found, true_length = sums
    # The harmonic mean of right / length and found / true_length, with a single division.
    index = 2 * right * found / (right * true_length + found * length).clamp_min(1e-12)
    return mean_over_present(1 - index, true_length > 0).to(scores.dtype)


def soft_skeleton(values: Tensor, iterations: int = 3, counted: Tensor | None = None) -> Tensor:
    """Compute the soft skeleton of values in 0…1 by min- and max-pooling: Shit et al. 2021, algorithm 1.

    Args:
        values: (B, K, *S), S of two or three dimensions.
        iterations: number of thinning steps.
        counted: (B, 1, *S) bool; other pixels are 0 in the result and treated as beyond the edge. None: all count.

    Raises:
        UsageError: not two or three dimensions, or negative iterations.
    """
    dimensions = values.ndim - 2
    if dimensions not in (2, 3):
        fix = "Pass masks (B, H, W) or (B, D, H, W)."
        raise UsageError("masks", expected="2 or 3 spatial dimensions", found=str(dimensions), do=fix)
    if iterations < 0:
        fix = "Use at least half the width of the widest structure."
        raise UsageError("iterations", expected="a number of at least 0", found=str(iterations), do=fix)
    if values.numel() == 0:
        return values  # torch's pooling raises an error for empty tensors
    skeleton, left = torch.zeros_like(values), values
    for step in range(iterations + 1):
        left = _erode(left, counted) if step else left
        opened = _dilate(_erode(left, counted), counted)
        more = (left - opened).relu()
        skeleton = skeleton + (1 - skeleton) * more
    return skeleton if counted is None else skeleton * counted


def require_thin(classes: Sequence[int], num_classes: int) -> None:
    """Raise a `UsageError` for classes that do not exist or are repeated, and for an empty list, which always gives 0."""
    if not classes or len(set(classes)) != len(classes) or any(not 0 <= k < num_classes for k in classes):
        expected = f"one or more different class indices 0–{num_classes - 1}"
        fix = "List the index of each thin class once."
        raise UsageError("cldice classes", expected=expected, found=str(list(classes)), do=fix)


def _erode(values: Tensor, counted: Tensor | None) -> Tensor:
    """Return the minimum of each pixel and its neighbours along the axes."""
    if counted is not None:
        values = values.masked_fill(~counted, 1.0)
    dimensions, pool = values.ndim - 2, _pool(values)
    lines = [tuple(3 if a == axis else 1 for a in range(dimensions)) for axis in range(dimensions)]
    return reduce(torch.minimum, [-pool(-values, line, 1, tuple(side // 2 for side in line)) for line in lines])


def _dilate(values: Tensor, counted: Tensor | None) -> Tensor:
    """Return the maximum of each pixel and all its neighbours, including diagonal ones."""
    if counted is not None:
        values = values.masked_fill(~counted, 0.0)
    return _pool(values)(values, 3, 1, 1)


def _pool(values: Tensor) -> Callable[..., Tensor]:
    return F.max_pool2d if values.ndim == 4 else F.max_pool3d
