"""What travels between the loader, a network and its loss: `Batch` and `Outputs`, both made of tensors."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Batch:
    """Images and masks of one training step.

    Args:
        images: (B, C, *S) float32, raw pixel values; invalid pixels hold the fill value.
        masks: (B, *S) int64, class indices; invalid and ignored pixels hold the ignore index.
        ids: the image each entry was taken from.
    """

    images: Tensor
    masks: Tensor
    ids: tuple[str, ...] = ()


@dataclass(frozen=True)
class Outputs:
    """What a network computes for a batch; losses read from it what they need.

    Args:
        logits: (B, K, *S) float32, at the size of the images.
        auxiliary: logits of auxiliary heads, same shape; present in training mode only.
    """

    logits: Tensor
    auxiliary: tuple[Tensor, ...] = ()
