"""What training makes small: cross-entropy, focal, Dice, Tversky as plain functions, and their weighted sum.

Comes in: logits (B, K, *S) of any float type and masks (B, *S) of class indices. Goes out: one scalar, float32 (float64
from float64 logits). Knows nothing of models, data or training loops.

One rule holds for all: pixels with the ignore index count in nothing, neither in the value nor in its gradient nor in
the divisor, and a batch of nothing else gives 0 with a gradient of zeros. Masks are never written to.

**Accumulation and several processes.** The mean of means is not the mean, as soon as batches hold different numbers of
counted pixels or of weighty classes. `CombinedLoss.normaliser(masks)` gives what a batch adds to the divisors, without
logits: sum it over the micro-batches of a step (all-reduce it over processes, and multiply the loss by their number,
because DDP averages gradients) and hand it to each call; the calls then add up to the value and gradient of the whole
batch, exactly for cross-entropy and focal. Dice and Tversky are ratios of sums over a batch and do not add up: they are
taken per micro-batch and averaged by counted pixels, which is not the Dice of the whole batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from pixelwise.config import LossConfig
from pixelwise.errors import ConfigError, MaskError, UsageError

LARGEST_RATIO = 50.0


class _Pixels(NamedTuple):
    """Hold checked masks: class indices (B, N) with 0 where ignored, which pixels count (None: all), pixels per class."""

    classes: Tensor
    counted: Tensor | None
    per_class: Tensor


def cross_entropy(
    logits: Tensor,
    masks: Tensor,
    *,
    ignore_index: int = 255,
    class_weights: Tensor | None = None,
    normaliser: Tensor | None = None,
) -> Tensor:
    """Take the weighted mean of -log p(true class), sum of w·loss over sum of w: Ronneberger et al. 2015, arXiv:1505.04597.

    Args:
        logits: (B, K, *S).
        masks: (B, *S) integers, class indices or `ignore_index`.
        ignore_index: pixels with this value count in nothing.
        class_weights: (K,); 1 each where not given.
        normaliser: scalar that replaces the sum of w, so that parts of a larger batch add up.

    Raises:
        UsageError: shapes that do not fit.
        MaskError: class indices outside 0…K-1.

    """
    weights, picked = _true_class(logits, masks, ignore_index, class_weights)
    return -(weights * picked).sum() / _divisor(weights, normaliser)


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

    Divided like `cross_entropy`, so `gamma=0` is that; arguments and errors as there.
    """
    weights, picked = _true_class(logits, masks, ignore_index, class_weights)
    # The slope of x^gamma with gamma < 1 is infinite at 0, where the logarithm is 0: NaN without the floor.
    doubt = (1 - picked.exp()).clamp_min(torch.finfo(picked.dtype).eps)
    return -(weights * doubt**gamma * picked).sum() / _divisor(weights, normaliser)


def tversky(logits: Tensor, masks: Tensor, *, alpha: float = 0.3, beta: float = 0.7, ignore_index: int = 255) -> Tensor:
    """Take 1 - the mean Tversky index: Salehi et al. 2017, arXiv:1706.05721.

    The index of a class is TP / (TP + alpha·FP + beta·FN) of probabilities summed over the whole batch; the mean is over
    the classes that the batch's truth shows. A class that is absent has no index, 0 or 1 alike would be invented; what is
    falsely predicted as it is missing from the others. Arguments and errors as in `cross_entropy`.
    """
    scores, pixels = _prepare(logits, masks, ignore_index)
    probabilities = scores.softmax(1)
    if pixels.counted is not None:
        probabilities = probabilities * pixels.counted[:, None]
    picked = probabilities.gather(1, pixels.classes[:, None])
    # Double: float32 stops counting pixels at 2^24.
    hits = torch.zeros_like(pixels.per_class).index_add(0, pixels.classes.flatten(), picked.double().flatten())
    predicted = probabilities.sum((0, 2)).double()
    size = hits + alpha * (predicted - hits) + beta * (pixels.per_class - hits)
    present = pixels.per_class > 0
    index = hits / size.clamp_min(1e-12)
    return (torch.where(present, 1 - index, 0.0).sum() / present.sum().clamp_min(1)).to(scores.dtype)


def dice(logits: Tensor, masks: Tensor, *, ignore_index: int = 255) -> Tensor:
    """Take 1 - the mean soft Dice: Milletari et al. 2016, arXiv:1606.04797, with probabilities not squared.

    The Dice of a class is 2·sum(p·t) / (sum(p) + sum(t)) over the whole batch (not per picture, where small classes come
    and go); the mean is over the classes that the batch's truth shows. Arguments and errors as in `cross_entropy`.
    """
    return tversky(logits, masks, alpha=0.5, beta=0.5, ignore_index=ignore_index)


def cross_entropy_dice(
    logits: Tensor,
    masks: Tensor,
    *,
    shares: tuple[float | Tensor, float | Tensor] = (0.5, 0.5),
    ignore_index: int = 255,
    class_weights: Tensor | None = None,
    normaliser: Tensor | None = None,
) -> Tensor:
    """Take shares[0] · `cross_entropy` + shares[1] · `dice` in one go: one softmax, no one-hot, a gradient in closed form.

    Equal to the sum of the two to rounding. `shares` is what cross-entropy and Dice are multiplied by; `class_weights` and `normaliser` are cross-entropy's.
    Arguments and errors as there.
    """
    scores, pixels = _check(logits, masks, ignore_index)
    weights = _pixel_weights(pixels, class_weights, scores)
    total: Tensor = _CrossEntropyDice.apply(scores, *pixels, weights / _divisor(weights, normaliser), shares)
    return total


class _CrossEntropyDice(torch.autograd.Function):
    """Share one softmax p between cross-entropy and Dice.

    With y the true class, u the normalised weight of a pixel, I = sum p·t, S = sum p + sum t per class, n classes present,
    and b the share of Dice: A = -2b / (nS), B = 2bI / (nS²) for classes present, else 0. The gradient after a logit is

        p_c · (u + B_c - t) + [c = y] · (A_y p_y - u),   t = A_y p_y + sum_k B_k p_k
    """

    @staticmethod
    def forward(
        ctx: Any,
        scores: Tensor,
        index: Tensor,
        counted: Tensor | None,
        per_class: Tensor,
        weights: Tensor,
        shares: tuple[float | Tensor, float | Tensor],
    ) -> Tensor:
        place = index[:, None]
        # log-softmax, then exp in place: three times faster than softmax on CPU, and the logarithm never underflows.
        logs = scores.log_softmax(1)
        picked_log = logs.gather(1, place)
        picked, probabilities = picked_log.exp(), logs.exp_()
        predicted = _blank(probabilities, counted)
        if counted is not None:
            picked = torch.where(counted[:, None], picked, 0.0)
            picked_log = torch.where(counted[:, None], picked_log, 0.0)
        hits = torch.bincount(index.flatten(), picked.flatten().double(), minlength=len(per_class))
        size = (predicted + per_class).clamp_min(1e-12)
        present = per_class > 0
        n = present.sum().clamp_min(1)
        ctx.save_for_backward(probabilities, place, picked, weights, hits, size, present, n)
        ctx.shares = shares
        entropy = -(weights[:, None] * picked_log).sum()
        overlap = torch.where(present, 1 - 2 * hits / size, 0.0).sum() / n
        return (shares[0] * entropy + shares[1] * overlap).to(scores.dtype)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, ...]:
        probabilities, place, picked, weights, hits, size, present, n = ctx.saved_tensors
        dtype = probabilities.dtype
        share = upstream.double() * ctx.shares[1] / n
        own = torch.where(present, -2 * share / size, 0.0).to(dtype)
        every = torch.where(present, 2 * share * hits / size**2, 0.0).to(dtype)
        u = weights[:, None] * (upstream * ctx.shares[0])
        hit = own.index_select(0, place.flatten()).view_as(place) * picked
        with torch.autocast(probabilities.device.type, enabled=False):
            t = torch.matmul(every.view(1, 1, -1), probabilities).add_(hit)
        gradient = probabilities * (u - t)
        gradient.addcmul_(probabilities, every.view(1, -1, 1))
        gradient.scatter_add_(1, place, hit - u)
        return gradient, None, None, None, None, None


def _blank(probabilities: Tensor, counted: Tensor | None) -> Tensor:
    """Set ignored pixels to zero in place, and sum the rest per class: (K,), double."""
    if counted is None:
        return probabilities.sum((0, 2)).double()
    if probabilities.device.type == "cpu":
        # Multiplying is several times faster than filling on CPU, but keeps NaN.
        sums = probabilities.mul_(counted[:, None].to(probabilities.dtype)).sum((0, 2)).double()
        if bool(sums.isfinite().all()):
            return sums
    return probabilities.masked_fill_(~counted[:, None], 0.0).sum((0, 2)).double()


@dataclass(frozen=True)
class CombinedLoss:
    """Add up the terms of a `LossConfig` that weigh more than nothing; made by `combined_loss`.

    Args:
        config: the weights of the terms and their parameters.
        class_weights: (K,) for cross-entropy and focal; None weighs all alike.
        ignore_index: pixels with this value count in nothing.

    """

    config: LossConfig
    class_weights: Tensor | None = None
    ignore_index: int = 255

    def normaliser(self, masks: Tensor) -> Tensor:
        """Give what these masks add to the divisors: (2,) double, the sum of class weights and the counted pixels."""
        counted = masks.long() != self.ignore_index
        pixels = counted.sum().double()
        if self.class_weights is None:
            return torch.stack([pixels, pixels])
        weights = self.class_weights.to(masks.device).double()
        index = torch.where(counted, masks.long(), 0).clamp(0, len(weights) - 1)
        return torch.stack([(weights[index] * counted).sum(), pixels])

    def __call__(self, logits: Tensor, masks: Tensor, normaliser: Tensor | None = None) -> Tensor:
        """Give the weighted sum of the terms as a scalar.

        Args:
            logits: (B, K, *S).
            masks: (B, *S) integers.
            normaliser: sum of `self.normaliser(masks)` over all parts of the step; these masks alone where not given.

        Raises:
            UsageError, MaskError: as `cross_entropy`.

        """
        c, void, part, divisor = self.config, self.ignore_index, torch.ones((), device=logits.device), None
        if normaliser is not None:
            divisor, part = normaliser[0], (self.normaliser(masks)[1] / normaliser[1].clamp_min(1)).to(part)
        given: dict[str, Any] = {"ignore_index": void, "class_weights": self.class_weights, "normaliser": divisor}
        terms: list[Tensor] = []
        if c.cross_entropy and c.dice:
            terms.append(cross_entropy_dice(logits, masks, shares=(c.cross_entropy, c.dice * part), **given))
        elif c.cross_entropy:
            terms.append(c.cross_entropy * cross_entropy(logits, masks, **given))
        elif c.dice:
            terms.append(c.dice * part * dice(logits, masks, ignore_index=void))
        if c.focal:
            terms.append(c.focal * focal(logits, masks, gamma=c.focal_gamma, **given))
        if c.tversky:
            shape = {"alpha": c.tversky_alpha, "beta": c.tversky_beta}
            terms.append(c.tversky * part * tversky(logits, masks, ignore_index=void, **shape))
        return torch.stack(terms).sum()


def combined_loss(
    config: LossConfig, *, num_classes: int, ignore_index: int = 255, class_weights: Tensor | None = None
) -> CombinedLoss:
    """Make the loss that a configuration describes.

    Raises:
        ConfigError: every term weighs nothing, or the number of class weights is not the number of classes.

    """
    if not any((config.cross_entropy, config.dice, config.focal, config.tversky)):
        found, fix = "cross_entropy, dice, focal and tversky at 0", "Set loss.cross_entropy or another term above 0."
        raise ConfigError("loss", expected="a term that weighs more than 0", found=found, do=fix)
    if class_weights is not None and tuple(class_weights.shape) != (num_classes,):
        raise _wrong_weights(num_classes, str(tuple(class_weights.shape)))
    return CombinedLoss(config, class_weights, ignore_index)


def class_weights(
    kind: str | Sequence[float], pixel_counts: Sequence[int], image_counts: Sequence[int] | None = None
) -> list[float]:
    """Weigh the classes against their imbalance.

    Args:
        kind: "none": 1 each. "inverse": 1 / share of pixels. "median": median frequency / frequency, Eigen & Fergus 2015,
            arXiv:1411.4734, where a class's frequency is its pixels per picture that shows it. "effective":
            (1 - b) / (1 - b^n), Cui et al. 2019, arXiv:1901.05555, with b = 1 - 1 / (mean pixels per class), because
            their fixed b of up to 0.9999 counts pictures and would call millions of pixels all alike. Or the weights.
        pixel_counts: (K,) pixels of each class in the training part.
        image_counts: (K,) pictures that show each class, for "median"; all pictures show all classes where not given.

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
        raise _wrong_weights(num_classes, str(len(values)))
    if not (np.isfinite(values).all() and min(values) >= 0 and max(values) > 0):
        raise _wrong_weights(num_classes, f"{values}, not all finite and at least 0, or all 0")
    return values


def _wrong_weights(num_classes: int, found: str) -> ConfigError:
    wanted = f"{num_classes} weights, one per class"
    return ConfigError("loss.class_weights", expected=wanted, found=found, do="Give one per class, in their order.")


def _prepare(logits: Tensor, masks: Tensor, ignore_index: int) -> tuple[Tensor, _Pixels]:
    """Give logits (B, K, N) in float32 or float64 that are 0, without gradient, at ignored pixels; and the masks."""
    scores, pixels = _check(logits, masks, ignore_index)
    return (scores if pixels.counted is None else scores.masked_fill(~pixels.counted[:, None], 0.0)), pixels


def _true_class(logits: Tensor, masks: Tensor, ignore_index: int, weights: Tensor | None) -> tuple[Tensor, Tensor]:
    """Give each pixel's weight, 0 where ignored, and log p(true class): (B, N) both."""
    scores, pixels = _prepare(logits, masks, ignore_index)
    picked = scores.log_softmax(1).gather(1, pixels.classes[:, None])[:, 0]
    return _pixel_weights(pixels, weights, scores), picked


def _check(logits: Tensor, masks: Tensor, ignore_index: int) -> tuple[Tensor, _Pixels]:
    """Hold masks against logits; the device is waited for once, for all that must be known on the host."""
    wanted = (logits.shape[0], *logits.shape[2:])
    if logits.ndim < 3 or tuple(masks.shape) != wanted:
        channel = masks.ndim == logits.ndim and masks.shape[1] == 1
        raise UsageError(
            "masks",
            expected=f"shape {wanted}, as (B, *S) of logits {tuple(logits.shape)}",
            found=str(tuple(masks.shape)),
            do="Drop the channel axis: masks[:, 0]." if channel else "Give masks (B, *S) beside logits (B, K, *S).",
        )
    if masks.is_floating_point():
        raise UsageError("masks", expected="whole numbers", found=str(masks.dtype), do="Give class indices as int64.")
    scores = (logits if logits.dtype == torch.float64 else logits.float()).flatten(2)
    num_classes = logits.shape[1]
    ids = masks.flatten(1).long()
    counted = ids != ignore_index
    index = torch.where(counted, ids, 0)
    if index.numel() == 0:
        return scores, _Pixels(index, None, torch.zeros(num_classes, dtype=torch.double, device=masks.device))
    low, high, number = torch.stack([*index.aminmax(), counted.sum()]).tolist()
    if low < 0 or high >= num_classes:
        odd = high if high >= num_classes else low
        raise MaskError(
            "masks",
            expected=f"class indices 0–{num_classes - 1} or the ignore index {ignore_index}",
            found=f"{odd} in {int((ids == odd).sum())} pixels",
            do="Translate file ids with Labels.encode, or give the model more classes.",
        )
    per_class = torch.bincount(index.flatten(), minlength=num_classes).double()
    per_class[0] -= index.numel() - number
    return scores, _Pixels(index, None if number == index.numel() else counted, per_class)


def _pixel_weights(pixels: _Pixels, weights: Tensor | None, scores: Tensor) -> Tensor:
    """Give each pixel the weight of its true class, 0 where ignored: (B, N)."""
    if weights is None:
        return (
            torch.ones_like(pixels.classes, dtype=scores.dtype) if pixels.counted is None else pixels.counted.to(scores)
        )
    if tuple(weights.shape) != (scores.shape[1],):
        raise _wrong_weights(scores.shape[1], str(tuple(weights.shape)))
    each = weights.to(scores).index_select(0, pixels.classes.flatten()).view_as(pixels.classes)
    return each if pixels.counted is None else each * pixels.counted


def _divisor(weights: Tensor, normaliser: Tensor | None) -> Tensor:
    """Give the sum of weights, or what replaces it; 1 instead of 0, over which nothing is divided."""
    total = weights.sum(dtype=torch.double) if normaliser is None else normaliser.detach().to(weights.device).double()
    return torch.where(total > 0, total, 1.0).to(weights.dtype)
