"""pixelwise: losses as functions of logits and masks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from numpy.typing import NDArray

from conformance.adapters import Way, Ways
from pixelwise import losses
from pixelwise.config import LossConfig
from pixelwise.losses import combined_loss

Arrays = tuple[NDArray[Any], NDArray[Any]]


def _of(function: Callable[..., torch.Tensor]) -> Callable[..., dict[str, Any]]:
    def call(
        logits: NDArray[Any], masks: NDArray[Any], ignore_index: int | None, class_weights: list[float] | None = None
    ) -> dict[str, Any]:
        leaf = torch.from_numpy(logits).requires_grad_()
        options: dict[str, Any] = {} if ignore_index is None else {"ignore_index": ignore_index}
        if class_weights is not None:
            options["class_weights"] = torch.tensor(class_weights)
        value = function(leaf, torch.from_numpy(masks), **options)
        (gradient,) = torch.autograd.grad(value, leaf)
        return {"value": float(value.detach()), "gradient": gradient.numpy()}

    return call


def _accumulated(micro_batches: Sequence[Arrays], class_weights: list[float], ignore_index: int) -> float:
    config = LossConfig(cross_entropy=1.0, dice=0.0)
    loss = combined_loss(
        config, num_classes=len(class_weights), ignore_index=ignore_index, class_weights=torch.tensor(class_weights)
    )
    tensors = [(torch.from_numpy(a), torch.from_numpy(b)) for a, b in micro_batches]
    shared = torch.stack([loss.normaliser(masks) for _, masks in tensors]).sum(0)
    return sum(float(loss.of_logits(logits, masks, normaliser=shared)) for logits, masks in tensors)


WAYS: Ways = {
    "ce_loss": (Way("losses.cross_entropy", _of(losses.cross_entropy)),),
    "dice_loss": (Way("losses.dice", _of(losses.dice)),),
    "focal_loss": (Way("losses.focal", _of(losses.focal)),),
    "lovasz_loss": (Way("losses.lovasz_softmax", _of(losses.lovasz_softmax)),),
    "accumulated_ce": (Way("CombinedLoss.normaliser over the micro-batches", _accumulated),),
}
