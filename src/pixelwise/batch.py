"""`Batch` and `Outputs`: what is passed between the data loader, a model and its loss."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Batch:
    """Images and masks of one batch.

    Args:
        images: (B, C, *S) float32, raw pixel values; invalid pixels have the fill value.
        masks: (B, *S) int64, class indices; invalid and ignored pixels have the ignore index.
        ids: name of each image.
        features: (B, c, h, w) each, of a frozen encoder, if these were computed before; `images` then has no bands.
    """

    images: Tensor
    masks: Tensor
    ids: tuple[str, ...] = ()
    features: tuple[Tensor, ...] = ()

    def pin_memory(self) -> Batch:
        """Return the batch in pinned memory, from which a GPU copies while the CPU goes on; `DataLoader` calls it."""
        pinned = [tensor.pin_memory() for tensor in (self.images, self.masks, *self.features)]
        return Batch(pinned[0], pinned[1], self.ids, tuple(pinned[2:]))


@dataclass(frozen=True)
class Outputs:
    """Outputs of a model for a batch.

    Args:
        logits: (B, K, *S) float32, at the size of the images.
        auxiliary: logits of auxiliary heads, same shape; in training mode only.
    """

    logits: Tensor
    auxiliary: tuple[Tensor, ...] = ()
