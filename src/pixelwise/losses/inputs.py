"""Validation and preparation of logits and masks, shared by all losses."""

from __future__ import annotations

import math
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from pixelwise.errors import ConfigError, MaskError, UsageError

Per = Literal["batch", "image"]
_HISTOGRAMS = 256


class Pixels(NamedTuple):
    """Checked masks: class indices (B, N), 0 where ignored; whether each pixel counts (None: all do); pixels per class."""

    classes: Tensor
    counted: Tensor | None
    per_class: Tensor


def check(logits: Tensor, masks: Tensor, ignore_index: int) -> tuple[Tensor, Pixels]:
    """Check masks (B, *S) against logits (B, K, *S).

    Returns:
        The logits as float32, or float64 if they were, (B, K, N); and the masks.

    Raises:
        UsageError: shapes that do not match, or floating-point masks.
        MaskError: class indices outside 0…K-1. On other devices than the CPU they are not looked for, since the CPU would have to
            wait: the kernels that use them fail, as those of `torch.nn.functional.cross_entropy`.
    """
    require_logits(logits)
    shape = (logits.shape[0], *logits.shape[2:])
    if tuple(masks.shape) != shape:
        channel = masks.ndim == logits.ndim and masks.shape[1] == 1
        fix = "Drop the channel axis: masks[:, 0]." if channel else "Pass masks (B, *S) with logits (B, K, *S)."
        raise _wrong_shape(f"shape {shape}, as (B, *S) of logits {tuple(logits.shape)}", masks, fix)
    return _floats(logits).flatten(2), count(masks, logits.shape[1], ignore_index)


def count(masks: Tensor, num_classes: int, ignore_index: int) -> Pixels:
    """Check masks (B, *S) without logits; raises as `check`."""
    ids = _integers(masks).flatten(1).long()
    counted = ids != ignore_index
    index = torch.where(counted, ids, 0)
    if index.numel() == 0:
        return Pixels(index, None, torch.zeros(num_classes, dtype=torch.double, device=masks.device))
    if not on_cpu(index):
        per_class = histogram(index.flatten(), num_classes)
        per_class[0] -= (~counted).sum()
        return Pixels(index, counted, per_class)
    low, high, number = torch.stack([*index.aminmax(), counted.sum()]).tolist()
    if low < 0 or high >= num_classes:
        invalid = high if high >= num_classes else low
        raise MaskError(
            "masks",
            expected=f"class indices 0–{num_classes - 1} or the ignore index {ignore_index}",
            found=f"{invalid} in {int((ids == invalid).sum())} pixels",
            do="Translate file ids with Labels.encode, or give the model more classes.",
        )
    per_class = histogram(index.flatten(), num_classes)
    per_class[0] -= index.numel() - number
    return Pixels(index, None if number == index.numel() else counted, per_class)


def on_cpu(tensor: Tensor) -> bool:
    """Whether values of a tensor can be looked at without waiting for a device."""
    return tensor.device.type == "cpu"


def histogram(keys: Tensor, size: int, weights: Tensor | None = None) -> Tensor:
    """Count keys (N,) of 0…size-1, or sum their weights, (size,) double, without waiting for the device."""
    if on_cpu(keys):
        return torch.bincount(keys, weights, minlength=size).double()
    # Elsewhere, bincount waits for the largest key. Additions to one place queue, so there are several places for each key.
    place = keys + size * (torch.arange(len(keys), device=keys.device) % _HISTOGRAMS)
    added = torch.ones_like(keys, dtype=torch.double) if weights is None else weights.double()
    sums = torch.zeros(size * _HISTOGRAMS, dtype=torch.double, device=keys.device).scatter_add_(0, place, added)
    return sums.view(_HISTOGRAMS, size).sum(0)


def prepare(logits: Tensor, masks: Tensor, ignore_index: int) -> tuple[Tensor, Pixels]:
    """Check as `check`, and set logits to 0, without gradient, at ignored pixels."""
    scores, pixels = check(logits, masks, ignore_index)
    if pixels.counted is not None:
        scores = scores.masked_fill(~pixels.counted[:, None], 0.0)
    return scores, pixels


def prepare_labels(logits: Tensor, masks: Tensor, ignore_index: int) -> tuple[Tensor, Tensor, Tensor]:
    """Check binary masks against logits.

    Args:
        logits: (B, K, *S).
        masks: (B, K, *S) of 0, 1 and the ignore index; or (B, *S) if K is 1.
        ignore_index: value of ignored labels; each label of a pixel is ignored on its own.

    Returns:
        Logits (B, K, N) as from `prepare`, labels of 0 and 1 in the type of the logits, and whether each label counts (bool).

    Raises:
        UsageError: shapes that do not match, floating-point masks, or an ignore index of 0 or 1.
        MaskError: values other than 0, 1 and the ignore index.
    """
    if ignore_index in (0, 1):
        fix = "Choose another value for ignored labels, such as 255."
        raise UsageError("ignore_index", expected="a value other than 0 and 1", found=str(ignore_index), do=fix)
    require_logits(logits)
    single = logits.shape[1] == 1
    if single and tuple(masks.shape) == (logits.shape[0], *logits.shape[2:]):
        masks = masks[:, None]
    if masks.shape != logits.shape:
        shape = tuple(logits.shape)
        layout = f", or without the axis of size 1, as (B, 1, *S) of logits {shape}"
        if not single:
            layout = f", as (B, K, *S) of logits {shape}"
        fix = "Pass one mask of 0 and 1 per label; for class indices use the multi-class losses."
        raise _wrong_shape(f"shape {shape}{layout}", masks, fix)
    scores, ids = _floats(logits).flatten(2), _integers(masks).flatten(2).long()
    counted = ids != ignore_index
    invalid = counted & (ids != 0) & (ids != 1)
    if bool(invalid.any()):
        raise MaskError(
            "masks",
            expected=f"0, 1 or the ignore index {ignore_index}",
            found=f"{int(ids[invalid][0])} among {int(invalid.sum())} invalid values",
            do="Pass one mask of 0 and 1 per label.",
        )
    return scores.masked_fill(~counted, 0.0), ((ids == 1) & counted).to(scores.dtype), counted


def pixel_weights(pixels: Pixels, weights: Tensor | None, scores: Tensor) -> Tensor:
    """Return the weight of each pixel's true class, 0 where ignored, (B, N).

    Raises:
        ConfigError: not one weight per class.
    """
    if weights is None:
        if pixels.counted is None:
            return torch.ones_like(pixels.classes, dtype=scores.dtype)
        return pixels.counted.to(scores)
    require_weights(weights, scores.shape[1])
    each = weights.to(scores).index_select(0, pixels.classes.flatten()).view_as(pixels.classes)
    return each if pixels.counted is None else each * pixels.counted


def divisor(weights: Tensor, normaliser: Tensor | None) -> Tensor:
    """Return the sum of weights, or the normaliser if given; 1 instead of 0.

    Raises:
        UsageError: the normaliser is not a scalar.
    """
    if normaliser is None:
        total = weights.sum(dtype=torch.double)
    else:
        require_scalar(normaliser)
        total = normaliser.detach().to(weights.device).double()
    return torch.where(total > 0, total, 1.0).to(weights.dtype)


def per_image(pixels: Pixels, num_classes: int) -> Tensor:
    """Count the pixels of each class in each image, (B, K), double."""
    rows = torch.arange(len(pixels.classes), device=pixels.classes.device)[:, None]
    keys = (pixels.classes + num_classes * rows).flatten()
    weights = None if pixels.counted is None else pixels.counted.flatten().double()
    return histogram(keys, num_classes * len(rows), weights).view(len(rows), num_classes)


def mean_over_present(losses: Tensor, present: Tensor) -> Tensor:
    """Average over the present classes, then over the groups that have any.

    Args:
        losses: (G, K); one group per batch, or one per image.
        present: (G, K), bool.

    Returns:
        A scalar; 0 if nothing is present.
    """
    each = torch.where(present, losses, 0.0).sum(1) / present.sum(1).clamp_min(1)
    return each.sum() / present.any(1).sum().clamp_min(1)


def require_logits(logits: Tensor) -> None:
    """Raise a `UsageError` unless logits have axes for images, classes and space."""
    if logits.ndim < 3:
        fix = "Pass a batch of logits, with a batch axis even for one image."
        raise UsageError("logits", expected="(B, K, *S), 3 axes or more", found=str(tuple(logits.shape)), do=fix)


def require_scalar(normaliser: Tensor) -> None:
    """Raise a `UsageError` unless the normaliser is a scalar tensor; other shapes would broadcast over the pixels."""
    if not isinstance(normaliser, Tensor) or normaliser.ndim:
        found = f"shape {tuple(normaliser.shape)}" if isinstance(normaliser, Tensor) else type(normaliser).__name__
        fix = "Sum the weights of the counted pixels over all parts; CombinedLoss.normaliser is for CombinedLoss only."
        raise UsageError("normaliser", expected="a scalar tensor, of shape ()", found=found, do=fix)


def require_gamma(gamma: float) -> None:
    """Raise a `UsageError` if the focal exponent is negative or not finite."""
    if not 0 <= gamma < math.inf:
        fix = "Use 2 as in the paper; 0 is plain cross-entropy."
        raise UsageError("gamma", expected="a number of at least 0", found=str(gamma), do=fix)


def require_per(per: Per) -> None:
    """Raise a `UsageError` unless `per` is "batch" or "image"."""
    if per not in ("batch", "image"):
        fix = "Use batch to sum over all images of a batch, image to treat each on its own."
        raise UsageError("per", expected="batch or image", found=repr(per), do=fix)


def require_weights(weights: Tensor, num_classes: int) -> None:
    """Raise a `ConfigError` unless the weights have shape (K,)."""
    if tuple(weights.shape) != (num_classes,):
        raise wrong_weights(num_classes, str(tuple(weights.shape)))


def wrong_weights(num_classes: int, found: str) -> ConfigError:
    """Return the error for class weights of a wrong number or value."""
    expected = f"{num_classes} weights, one per class"
    return ConfigError("loss.class_weights", expected=expected, found=found, do="List one per class, in class order.")


def _floats(logits: Tensor) -> Tensor:
    return logits if logits.dtype == torch.float64 else logits.float()


def _integers(masks: Tensor) -> Tensor:
    if masks.is_floating_point():
        raise UsageError("masks", expected="integers", found=str(masks.dtype), do="Pass class indices as int64.")
    return masks


def _wrong_shape(expected: str, masks: Tensor, do: str) -> UsageError:
    return UsageError("masks", expected=expected, found=str(tuple(masks.shape)), do=do)
