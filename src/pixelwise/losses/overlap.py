"""Region losses based on overlap: Dice, Tversky, focal Tversky, and a fused cross-entropy with Dice."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from pixelwise.errors import UsageError
from pixelwise.losses.inputs import (
    Per,
    check,
    divisor,
    histogram,
    mean_over_present,
    on_cpu,
    per_image,
    pixel_weights,
    prepare,
    require_per,
)

_NOTHING = 1e-12
# Fewest classes for which channels-last logits are processed in place; with fewer, SIMD registers are not filled.
_MANY_CLASSES = 16
# Elements processed at once, chosen to stay in the processor's cache.
_CHUNK = {"cpu": 1 << 18}


def tversky(
    logits: Tensor,
    masks: Tensor,
    *,
    alpha: float = 0.3,
    beta: float = 0.7,
    gamma: float = 1.0,
    per: Per = "batch",
    ignore_index: int = 255,
) -> Tensor:
    """Compute the mean of (1 - Tversky index)^(1 / gamma): Salehi et al. 2017, arXiv:1706.05721.

    The index of a class is TP / (TP + alpha·FP + beta·FN) of summed probabilities; the mean is over the classes in the ground
    truth. An absent class has no index; pixels falsely predicted as it lower the index of their true class. A `gamma` above 1
    gives focal Tversky, Abraham & Khan 2019, arXiv:1810.07842 (they use 4/3), in which nearly correct classes have a larger
    loss and gradient than at 1.

    Args:
        logits: (B, K, *S).
        masks: (B, *S) integers, class indices or `ignore_index`.
        alpha: weight of false positives, at least 0.
        beta: weight of false negatives, at least 0; not 0 if alpha is 0.
        gamma: exponent of focal Tversky, above 0.
        per: "batch" sums over the batch, which is more stable for small classes; "image" computes each image on its own and
            averages over images with counted pixels.
        ignore_index: value of ignored pixels.

    Raises:
        UsageError: shapes that do not match, `alpha` or `beta` negative or both 0, `gamma` not above 0, or an invalid `per`.
        MaskError: class indices outside 0…K-1.
    """
    require_per(per)
    scores, pixels = prepare(logits, masks, ignore_index)
    num_classes = scores.shape[1]
    probabilities = scores.softmax(1)
    if pixels.counted is not None:
        probabilities = probabilities * pixels.counted[:, None]
    picked = probabilities.gather(1, pixels.classes[:, None])[:, 0].double()
    # Double: float32 cannot count beyond 2^24.
    if per == "batch":
        predicted, total = probabilities.sum((0, 2)).double()[None], pixels.per_class[None]
        hits = torch.zeros_like(pixels.per_class).index_add(0, pixels.classes.flatten(), picked.flatten())[None]
    else:
        predicted, total = probabilities.sum(2).double(), per_image(pixels, num_classes)
        hits = torch.zeros_like(total).scatter_add(1, pixels.classes, picked)
    missed = missed_index(hits, predicted, total, alpha, beta, gamma)
    return mean_over_present(missed, total > 0).to(scores.dtype)


def missed_index(hits: Tensor, predicted: Tensor, total: Tensor, alpha: float, beta: float, gamma: float) -> Tensor:
    """Return (1 - Tversky index)^(1 / gamma) from the sums of p·t, p and t, all (G, K) in double.

    Raises:
        UsageError: `alpha` or `beta` negative or both 0, or `gamma` not above 0.
    """
    if not (0 <= alpha < math.inf and 0 <= beta < math.inf and alpha + beta > 0):
        fix = "Use alpha 0.3 and beta 0.7 to penalise misses more; 0.5 each is Dice."
        found = f"alpha {alpha} and beta {beta}"
        raise UsageError("tversky", expected="two numbers of at least 0, not both 0", found=found, do=fix)
    if not 0 < gamma < math.inf:
        fix = "Use 1 for plain Tversky, 1.33 for focal Tversky."
        raise UsageError("gamma", expected="a number above 0", found=str(gamma), do=fix)
    size = hits + alpha * (predicted - hits) + beta * (total - hits)
    missed = 1 - hits / size.clamp_min(1e-12)
    if gamma == 1:
        return missed
    # The slope of x^(1 / gamma) is infinite at 0, where the class is perfect and the gradient should be 0.
    return torch.where(missed <= _NOTHING, 0.0, missed.clamp_min(_NOTHING) ** (1 / gamma))


def dice(logits: Tensor, masks: Tensor, *, per: Per = "batch", ignore_index: int = 255) -> Tensor:
    """Compute 1 - mean soft Dice: Milletari et al. 2016, arXiv:1606.04797, with probabilities that are not squared.

    The Dice of a class is 2·sum(p·t) / (sum(p) + sum(t)), without smoothing terms; the mean is over the classes in the ground
    truth. Arguments and errors as in `tversky`.
    """
    return tversky(logits, masks, alpha=0.5, beta=0.5, per=per, ignore_index=ignore_index)


def cross_entropy_dice(
    logits: Tensor,
    masks: Tensor,
    *,
    shares: tuple[float | Tensor, float | Tensor] = (0.5, 0.5),
    ignore_index: int = 255,
    class_weights: Tensor | None = None,
    normaliser: Tensor | None = None,
) -> Tensor:
    """Compute shares[0] · `cross_entropy` + shares[1] · `dice` with one softmax, no one-hot and a closed-form gradient.

    Equal to the sum of the two up to rounding. `class_weights` and `normaliser` apply to cross-entropy; other arguments and
    errors as there.
    """
    scores, pixels = check(logits, masks, ignore_index)
    weights = pixel_weights(pixels, class_weights, scores)
    # Channels-last logits with many classes keep their layout: converting it would dominate the run time.
    last = scores.shape[1] >= _MANY_CLASSES and scores.stride(1) == 1 and not scores.is_contiguous()
    axis, laid = (2, scores.transpose(1, 2)) if last else (1, scores)
    total: Tensor = _CrossEntropyDice.apply(laid, axis, *pixels, weights / divisor(weights, normaliser), shares)
    return total


class _CrossEntropyDice(torch.autograd.Function):
    """Cross-entropy and Dice from one softmax p; the class axis is `axis`, 1 or 2.

    With y the true class, u the normalised weight of a pixel, I = sum p·t, S = sum p + sum t per class, n classes present,
    and b the share of Dice: A = -2b / (nS), B = 2bI / (nS²) for classes present, else 0. The gradient after a logit is

        p_c · (u + B_c - t) + [c = y] · (A_y p_y - u),   t = A_y p_y + sum_k B_k p_k

    It is written into p to save one array of that size at the peak; a second backward pass computes p again.
    """

    @staticmethod
    def forward(
        ctx: Any,
        scores: Tensor,
        axis: int,
        index: Tensor,
        counted: Tensor | None,
        per_class: Tensor,
        weights: Tensor,
        shares: tuple[float | Tensor, float | Tensor],
    ) -> Tensor:
        place = index.unsqueeze(axis)
        # log-softmax followed by exp in place is three times faster than softmax on CPU, and the logarithm cannot underflow.
        logs = scores.log_softmax(axis)
        picked_log = logs.gather(axis, place)
        picked, probabilities = picked_log.exp(), logs.exp_()
        predicted = _blank(probabilities, counted, axis)
        if counted is not None:
            picked = torch.where(counted.unsqueeze(axis), picked, 0.0)
            picked_log = torch.where(counted.unsqueeze(axis), picked_log, 0.0)
        hits = histogram(index.flatten(), len(per_class), picked.flatten().double())
        size = (predicted + per_class).clamp_min(1e-12)
        present = per_class > 0
        n = present.sum().clamp_min(1)
        ctx.save_for_backward(scores, counted, place, picked, weights, hits, size, present, n)
        ctx.probabilities, ctx.axis, ctx.shares = probabilities, axis, shares
        entropy = -(weights.unsqueeze(axis) * picked_log).sum()
        overlap = torch.where(present, 1 - 2 * hits / size, 0.0).sum() / n
        return (shares[0] * entropy + shares[1] * overlap).to(scores.dtype)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, ...]:
        scores, counted, place, picked, weights, hits, size, present, n = ctx.saved_tensors
        axis, (probabilities, ctx.probabilities) = ctx.axis, (ctx.probabilities, None)
        if probabilities is None:
            probabilities = scores.log_softmax(axis).exp_()
            _blank(probabilities, counted, axis)
        dtype = probabilities.dtype
        share = upstream.double() * ctx.shares[1] / n
        own = torch.where(present, -2 * share / size, 0.0).to(dtype)
        every = torch.where(present, 2 * share * hits / size**2, 0.0).to(dtype)
        u = weights.unsqueeze(axis) * (upstream * ctx.shares[0])
        hit = own.index_select(0, place.flatten()).view_as(place) * picked
        with torch.autocast(probabilities.device.type, enabled=False):
            row = every.view(1, 1, -1)
            t = torch.matmul(row, probabilities) if axis == 1 else torch.matmul(probabilities, row.mT)
        gradient = _multiply(probabilities, u - t.add_(hit), every, axis)
        gradient.scatter_add_(axis, place, hit - u)
        return gradient, None, None, None, None, None, None


def _multiply(probabilities: Tensor, by: Tensor, every: Tensor, axis: int) -> Tensor:
    """Multiply probabilities by (`by` per pixel + `every` per class), in place and in chunks."""
    per_class, pixels = every.view(-1, 1) if axis == 1 else every, by.shape[3 - axis]
    pieces = max(_CHUNK.get(probabilities.device.type, 1 << 24) // len(every), 1)
    for image, factors in zip(probabilities, by, strict=True):
        for start in range(0, pixels, pieces):
            length = min(pieces, pixels - start)
            piece, factor = (each.narrow(2 - axis, start, length) for each in (image, factors))
            piece.copy_((piece * factor).addcmul_(piece, per_class))
    return probabilities


def _blank(probabilities: Tensor, counted: Tensor | None, axis: int) -> Tensor:
    """Set ignored pixels to zero in place and return the sums of the rest per class, (K,) double."""
    others = (0, 3 - axis)
    if counted is None:
        return probabilities.sum(others).double()
    if on_cpu(probabilities):
        # Multiplying is several times faster than filling on CPU, but does not remove NaN.
        sums = probabilities.mul_(counted.unsqueeze(axis).to(probabilities.dtype)).sum(others).double()
        if bool(sums.isfinite().all()):
            return sums
    return probabilities.masked_fill_(~counted.unsqueeze(axis), 0.0).sum(others).double()
