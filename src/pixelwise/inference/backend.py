"""What computes logits: torch here, others later, all behind one call.

Comes in: images (B, C, H, W) of raw pixel values, numpy or torch. Goes out: logits (B, K, H, W) float32. Knows nothing of
tiles, classes or files.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any, Literal, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from pixelwise.models.base import SegmentationModel


class Backend(Protocol):
    """Give logits (B, K, H, W) float32, as a tensor on any device or as numpy, for images (B, C, H, W) of raw values.

    The logits of one image must not depend on the others in its batch.
    """

    def __call__(self, images: NDArray[Any]) -> Tensor | NDArray[np.float32]:
        """Compute."""


class TorchBackend:
    """Compute logits by torch, in evaluation mode and without gradients.

    The model is moved to `device` and otherwise left as it is: its training mode comes back after each call, layer by
    layer, and its weights keep their memory format, so scoring in the middle of a training run changes nothing.

    Args:
        model: maps raw images to logits.
        device: "cpu", "cuda", …
        precision: "fp32", or "bf16" for the layers where torch holds it safe.
        channels_last: lay images out with bands innermost, which convolutions often prefer.
    """

    def __init__(
        self,
        model: SegmentationModel,
        device: str | torch.device = "cpu",
        precision: Literal["fp32", "bf16"] = "fp32",
        channels_last: bool = True,
    ) -> None:
        self.device = torch.device(device)
        self.model = model.to(self.device)
        self.precision, self.channels_last = precision, channels_last

    def __call__(self, images: NDArray[Any] | Tensor) -> Tensor:
        """Give logits (B, K, H, W) float32 on the backend's device."""
        batch = images if isinstance(images, Tensor) else torch.from_numpy(_native(images))
        layout = torch.channels_last if self.channels_last else torch.contiguous_format
        low = self.precision == "bf16"
        with torch.inference_mode(), _evaluating(self.model), torch.autocast(self.device.type, torch.bfloat16, low):
            logits: Tensor = self.model(batch.to(self.device).contiguous(memory_format=layout))
            return logits.float()


def _native(images: NDArray[Any]) -> NDArray[Any]:
    """Give an array that torch can share: native byte order, positive strides, writable."""
    native = np.asarray(images, images.dtype.newbyteorder("="))
    return np.require(native, requirements=["C", "W"])


@contextlib.contextmanager
def _evaluating(model: nn.Module) -> Iterator[None]:
    # Not `model.train()` afterwards: that would wake layers which somebody froze on purpose.
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, mode in modes:
            module.training = mode
