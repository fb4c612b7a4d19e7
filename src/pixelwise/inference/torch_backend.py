"""The torch engine: compute logits with a torch module in evaluation mode."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from pixelwise.machine import cores
from pixelwise.models.base import evaluating, memory_layout
from pixelwise.types import ModelSpec

_MANY_PIXELS = 1 << 16
_BLOCK = 2048


class TorchBackend:
    """Compute logits with torch, in evaluation mode and without gradients.

    The model is moved to `device` and not changed otherwise: the training mode of every layer is restored after each call,
    and the weights keep their memory format, so scoring during training has no effect on it.

    Args:
        model: maps raw images to logits of the same size. If its `logit_scale` is above 1, its `coarse` is used instead.
        spec: its input and output; `stride` and `logit_scale` are replaced by those of the model, if it has them.
        device: "cpu", "cuda", …; the fastest one available if None.
        precision: "fp32", or "bf16" for the operations that torch's autocast considers safe.
        channels_last: pass images with channels innermost, which is often faster for convolutions.
    """

    engine = "torch"

    def __init__(
        self,
        model: nn.Module,
        spec: ModelSpec,
        device: str | torch.device | None = None,
        precision: Literal["fp32", "bf16"] = "fp32",
        channels_last: bool = True,
    ) -> None:
        limit_threads()
        self.device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        self.model = model.to(self.device)
        scale = getattr(model, "logit_scale", spec.logit_scale)
        self.spec = replace(spec, stride=getattr(model, "stride", spec.stride), logit_scale=scale)
        self._compute: Callable[[torch.Tensor], torch.Tensor] = getattr(model, "coarse", model) if scale > 1 else model
        self.precision = precision
        self.channels_last = channels_last

    def __call__(self, images: NDArray[Any], /) -> NDArray[np.float32]:
        """Return logits (B, K, *n) float32 for images (B, C, *S) of raw pixel values: see `Backend`."""
        batch = torch.from_numpy(_native(images))
        layout = memory_layout(self.spec.dimensions, self.channels_last and batch.ndim == 2 + self.spec.dimensions)
        bf16 = self.precision == "bf16"
        with torch.inference_mode(), evaluating(self.model), torch.autocast(self.device.type, torch.bfloat16, bf16):
            logits = self._compute(batch.to(self.device).contiguous(memory_format=layout))
            return _contiguous(logits.float().cpu())


def open_torch(
    folder: Path, *, device: str | None = None, precision: Literal["fp32", "bf16"] = "fp32", channels_last: bool = True
) -> TorchBackend:
    """Open a model folder with torch; batch norms are folded into convolutions, whose weights get the layout of the images.

    Raises:
        ModelFileError: the folder is not a complete model.
    """
    from pixelwise.models.folding import fold_norms
    from pixelwise.models.weights import load_model

    loaded, card = load_model(folder)
    model = fold_norms(loaded)
    if channels_last:
        model.to(memory_format=memory_layout(card.spec.dimensions, channels_last))
    return TorchBackend(model, card.spec, device, precision, channels_last)


def _contiguous(logits: torch.Tensor) -> NDArray[np.float32]:
    """Return logits (B, K, *n) on the CPU as a contiguous array.

    The classes of a pixel lie side by side if the model is channels-last. Many pixels are rearranged in blocks that fit into the cache,
    which takes a third of the time of torch's copy in two dimensions, and a tenth or less in three.
    """
    beside = logits.movedim(1, -1)
    if logits.is_contiguous() or not beside.is_contiguous() or logits[0, 0].numel() < _MANY_PIXELS:
        return np.asarray(logits.contiguous().numpy())
    found = np.empty(tuple(logits.shape), np.float32)
    by_class = found.reshape(*found.shape[:2], -1)
    by_pixel = beside.reshape(len(logits), -1, logits.shape[1]).numpy()
    for start in range(0, by_class.shape[2], _BLOCK):
        by_class[:, :, start : start + _BLOCK] = by_pixel[:, start : start + _BLOCK].transpose(0, 2, 1)
    return found


def limit_threads() -> None:
    """Let torch use no more threads than the CPU quota of a container has cores; more would wait for each other."""
    if torch.get_num_threads() > cores():
        torch.set_num_threads(cores())


def _native(images: NDArray[Any]) -> NDArray[Any]:
    """Return an array that torch can share: native byte order, positive strides, writable."""
    native = np.asarray(images, images.dtype.newbyteorder("="))
    return np.require(native, requirements=["C", "W"])
