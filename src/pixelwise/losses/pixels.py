"""Which pixels count: masks held against logits, once, for every loss.

Comes in: logits and masks as the caller has them. Goes out: float logits (B, K, N), class indices or labels without the
ignore index, which pixels count, and how many there are of each class. Knows nothing of any loss.
"""

from __future__ import annotations

import math
from typing import Literal, NamedTuple, NoReturn

import torch
from torch import Tensor

from pixelwise.errors import ConfigError, MaskError, UsageError

Per = Literal["batch", "image"]


class Pixels(NamedTuple):
    """Hold checked masks: class indices (B, N) with 0 where ignored, which pixels count (None: all), pixels per class."""

    classes: Tensor
    counted: Tensor | None
    per_class: Tensor


def check(logits: Tensor, masks: Tensor, ignore_index: int) -> tuple[Tensor, Pixels]:
    """Hold masks (B, *S) against logits (B, K, *S).

    The device is waited for once, for all that must be known on the host.

    Returns:
        The logits as float32, or float64 if they were, (B, K, N); and the masks.

    Raises:
        UsageError: shapes that do not fit, masks of fractions.
        MaskError: class indices outside 0…K-1.
    """
    require_logits(logits)
    wanted = (logits.shape[0], *logits.shape[2:])
    if tuple(masks.shape) != wanted:
        channel = masks.ndim == logits.ndim and masks.shape[1] == 1
        fix = "Drop the channel axis: masks[:, 0]." if channel else "Give masks (B, *S) beside logits (B, K, *S)."
        _refuse_shape(f"shape {wanted}, as (B, *S) of logits {tuple(logits.shape)}", masks, fix)
    return _floats(logits).flatten(2), count(masks, logits.shape[1], ignore_index)


def count(masks: Tensor, num_classes: int, ignore_index: int) -> Pixels:
    """Check masks (B, *S) on their own; errors as in `check`."""
    ids = _whole(masks).flatten(1).long()
    counted = ids != ignore_index
    index = torch.where(counted, ids, 0)
    if index.numel() == 0:
        return Pixels(index, None, torch.zeros(num_classes, dtype=torch.double, device=masks.device))
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
    return Pixels(index, None if number == index.numel() else counted, per_class)


def prepare(logits: Tensor, masks: Tensor, ignore_index: int) -> tuple[Tensor, Pixels]:
    """Do as `check`, with logits that are 0, without gradient, at ignored pixels."""
    scores, pixels = check(logits, masks, ignore_index)
    return (scores if pixels.counted is None else scores.masked_fill(~pixels.counted[:, None], 0.0)), pixels


def prepare_labels(logits: Tensor, masks: Tensor, ignore_index: int) -> tuple[Tensor, Tensor, Tensor]:
    """Hold masks of 0, 1 and the ignore index against logits of as many yes-or-no questions.

    Args:
        logits: (B, K, *S).
        masks: (B, K, *S), or (B, *S) where K is 1.
        ignore_index: what counts in nothing; each label of a pixel has its own.

    Returns:
        Logits (B, K, N) as `prepare` gives them, truth of 0 and 1 in their type, and what counts, in bool.

    Raises:
        UsageError: shapes that do not fit, masks of fractions, an ignore index of 0 or 1.
        MaskError: values other than 0, 1 and the ignore index.
    """
    if ignore_index in (0, 1):
        found, fix = str(ignore_index), "Choose another value for what does not count, 255 by habit."
        raise UsageError("ignore_index", expected="a value other than 0 and 1", found=found, do=fix)
    require_logits(logits)
    one = logits.shape[1] == 1
    if one and tuple(masks.shape) == (logits.shape[0], *logits.shape[2:]):
        masks = masks[:, None]
    if masks.shape != logits.shape:
        shorter = f", or without the axis of size 1, as (B, 1, *S) of logits {tuple(logits.shape)}"
        others = f", as (B, K, *S) of logits {tuple(logits.shape)}"
        fix = "Give one mask of 0 and 1 per label; class indices belong to the other losses."
        _refuse_shape(f"shape {tuple(logits.shape)}{shorter if one else others}", masks, fix)
    scores, ids = _floats(logits).flatten(2), _whole(masks).flatten(2).long()
    counted = ids != ignore_index
    odd = counted & (ids != 0) & (ids != 1)
    if bool(odd.any()):
        raise MaskError(
            "masks",
            expected=f"0, 1 or the ignore index {ignore_index}",
            found=f"{int(ids[odd][0])} among {int(odd.sum())} values",
            do="Give one mask of 0 and 1 per label.",
        )
    return scores.masked_fill(~counted, 0.0), ((ids == 1) & counted).to(scores.dtype), counted


def pixel_weights(pixels: Pixels, weights: Tensor | None, scores: Tensor) -> Tensor:
    """Give each pixel the weight of its true class, 0 where ignored: (B, N).

    Raises:
        ConfigError: not one weight per class.
    """
    if weights is None:
        return (
            torch.ones_like(pixels.classes, dtype=scores.dtype) if pixels.counted is None else pixels.counted.to(scores)
        )
    require_weights(weights, scores.shape[1])
    each = weights.to(scores).index_select(0, pixels.classes.flatten()).view_as(pixels.classes)
    return each if pixels.counted is None else each * pixels.counted


def divisor(weights: Tensor, normaliser: Tensor | None) -> Tensor:
    """Give the sum of weights, or what replaces it; 1 instead of 0, over which nothing is divided.

    Raises:
        UsageError: a normaliser that is no scalar.
    """
    if normaliser is None:
        total = weights.sum(dtype=torch.double)
    else:
        require_scalar(normaliser)
        total = normaliser.detach().to(weights.device).double()
    return torch.where(total > 0, total, 1.0).to(weights.dtype)


def per_image(pixels: Pixels, num_classes: int) -> Tensor:
    """Count the pixels of each class in each image: (B, K), double."""
    rows = torch.arange(len(pixels.classes), device=pixels.classes.device)[:, None]
    keys = (pixels.classes + num_classes * rows).flatten()
    weights = None if pixels.counted is None else pixels.counted.flatten().double()
    counts = torch.bincount(keys, weights, minlength=num_classes * len(rows))
    return counts.view(len(rows), num_classes).double()


def mean_over_present(losses: Tensor, present: Tensor) -> Tensor:
    """Take the mean over the classes that are present, then over the groups that have any.

    Args:
        losses: (G, K), one group for a batch, or one per image.
        present: (G, K) in bool.

    Returns:
        A scalar, 0 where nothing is present.
    """
    each = torch.where(present, losses, 0.0).sum(1) / present.sum(1).clamp_min(1)
    return each.sum() / present.any(1).sum().clamp_min(1)


def require_logits(logits: Tensor) -> None:
    """Refuse logits that have no axis of images, of classes, or of space.

    Raises:
        UsageError: they have none.
    """
    if logits.ndim < 3:
        fix = "Give a batch of logits as the network makes them, with an axis for the images even of one."
        raise UsageError("logits", expected="(B, K, *S), 3 axes or more", found=str(tuple(logits.shape)), do=fix)


def require_scalar(normaliser: Tensor) -> None:
    """Refuse a normaliser that is not one number: others would be spread over the pixels.

    Raises:
        UsageError: it is not.
    """
    if not isinstance(normaliser, Tensor) or normaliser.ndim:
        found = f"shape {tuple(normaliser.shape)}" if isinstance(normaliser, Tensor) else type(normaliser).__name__
        fix = "Sum the weights that count over all parts; the three numbers of CombinedLoss.normaliser are for CombinedLoss."
        raise UsageError("normaliser", expected="a tensor of one number, of shape ()", found=found, do=fix)


def require_gamma(gamma: float) -> None:
    """Refuse an exponent of focal loss that would weigh easy pixels more than hard ones.

    Raises:
        UsageError: it is below 0, or not finite.
    """
    if not 0 <= gamma < math.inf:
        fix = "Say 2 as in the paper; 0 is plain cross-entropy."
        raise UsageError("gamma", expected="a number from 0 on", found=str(gamma), do=fix)


def require_per(per: Per) -> None:
    """Refuse what is neither "batch" nor "image".

    Raises:
        UsageError: it is another word.
    """
    if per not in ("batch", "image"):
        fix = "Say batch for sums over all images of a batch, image for each on its own."
        raise UsageError("per", expected="batch or image", found=repr(per), do=fix)


def require_weights(weights: Tensor, num_classes: int) -> None:
    """Refuse weights that are not (K,).

    Raises:
        ConfigError: they are not.
    """
    if tuple(weights.shape) != (num_classes,):
        raise wrong_weights(num_classes, str(tuple(weights.shape)))


def wrong_weights(num_classes: int, found: str) -> ConfigError:
    """Make the error that tells how many weights there should be."""
    wanted = f"{num_classes} weights, one per class"
    return ConfigError("loss.class_weights", expected=wanted, found=found, do="Give one per class, in their order.")


def _floats(logits: Tensor) -> Tensor:
    return logits if logits.dtype == torch.float64 else logits.float()


def _whole(masks: Tensor) -> Tensor:
    if masks.is_floating_point():
        raise UsageError("masks", expected="whole numbers", found=str(masks.dtype), do="Give class indices as int64.")
    return masks


def _refuse_shape(expected: str, masks: Tensor, do: str) -> NoReturn:
    raise UsageError("masks", expected=expected, found=str(tuple(masks.shape)), do=do)
