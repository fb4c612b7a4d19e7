"""segmentation_models.pytorch: scores from `get_stats`, losses, networks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import segmentation_models_pytorch as smp
import torch
from numpy.typing import NDArray
from segmentation_models_pytorch import losses
from segmentation_models_pytorch.base import SegmentationHead
from segmentation_models_pytorch.metrics import get_stats, iou_score

from conformance.adapters import Way, Ways
from conformance.case import Unsupported

Masks = Sequence[NDArray[Any]]
_MODE = "multiclass"


def _stats(truths: Masks, predictions: Masks, num_classes: int, ignore_index: int | None) -> list[torch.Tensor]:
    """Count per image, as in the documented CamVid example."""
    counts = [
        get_stats(
            torch.from_numpy(p.astype(np.int64))[None], torch.from_numpy(t.astype(np.int64))[None],
            mode=_MODE, num_classes=num_classes, ignore_index=ignore_index,
        )
        for t, p in zip(truths, predictions, strict=True)
    ]  # fmt: skip
    return [torch.cat(values) for values in zip(*counts, strict=True)]


def _miou(
    truths: Masks,
    predictions: Masks,
    num_classes: int,
    ignore_index: int | None = None,
    *,
    reduction: str,
    absent: float | None,
) -> float:
    options = {} if absent is None else {"zero_division": absent}
    return float(iou_score(*_stats(truths, predictions, num_classes, ignore_index), reduction=reduction, **options))


def _weighted(
    truths: Masks, predictions: Masks, num_classes: int, weights: Sequence[float], *, reduction: str
) -> float:
    stats = _stats(truths, predictions, num_classes, None)
    return float(iou_score(*stats, reduction=reduction, class_weights=list(weights)))


def _right_pixels(truths: Masks, predictions: Masks, num_classes: int) -> int:
    return int(_stats(truths, predictions, num_classes, None)[0].sum())


def _batched(truths: Masks, predictions: Masks, num_classes: int, batch_size: int, *, reduction: str) -> float:
    stats = [
        _stats([np.stack(truths[k : k + batch_size])], [np.stack(predictions[k : k + batch_size])], num_classes, None)
        for k in range(0, len(truths), batch_size)
    ]
    return float(iou_score(*[torch.cat(values) for values in zip(*stats, strict=True)], reduction=reduction))


def _loss(make: Callable[..., Any], **fixed: Any) -> Callable[..., dict[str, Any]]:
    def call(
        logits: NDArray[Any], masks: NDArray[Any], ignore_index: int | None, class_weights: Any = None
    ) -> dict[str, Any]:
        options = dict(fixed) if ignore_index is None else {**fixed, "ignore_index": ignore_index}
        if class_weights is not None:
            if make is losses.SoftCrossEntropyLoss:
                raise Unsupported("SoftCrossEntropyLoss has no class weights")
            options["class_weights"] = class_weights
        leaf = torch.from_numpy(logits).requires_grad_()
        value = make(**options)(leaf, torch.from_numpy(masks))
        (gradient,) = torch.autograd.grad(value, leaf)
        return {"value": float(value.detach()), "gradient": gradient.numpy()}

    return call


def _enlarge(logits: NDArray[Any], size: tuple[int, int]) -> NDArray[Any]:
    """Upsample with the segmentation head, its convolution set to the identity."""
    head = SegmentationHead(1, 1, kernel_size=1, upsampling=size[0] // logits.shape[1])
    with torch.no_grad():
        head[0].weight.fill_(1)
        head[0].bias.zero_()
        found: NDArray[Any] = head(torch.from_numpy(logits)[None])[0].numpy()
    return found


_NETWORKS: dict[str, Callable[..., Any]] = {"unet": smp.Unet, "deeplabv3": smp.DeepLabV3, "segformer": smp.Segformer}


def _network(architecture: str) -> Any:
    return _NETWORKS[architecture]("resnet18", encoder_weights=None, classes=2)


def _any_size(architecture: str, size: tuple[int, int]) -> NDArray[Any]:
    with torch.no_grad():
        return np.array(_network(architecture).eval()(torch.rand(1, 3, *size)).shape[2:])


def _train_on_one(architecture: str) -> bool:
    loss = losses.DiceLoss(_MODE)(
        _network(architecture).train()(torch.rand(1, 3, 64, 64)), torch.zeros(1, 64, 64).long()
    )
    loss.backward()
    return bool(torch.isfinite(loss))


def _frozen() -> float:
    model = _network("unet").train()
    model.freeze_encoder()
    before = {name: value.clone() for name, value in model.encoder.named_buffers()}
    model(torch.rand(2, 3, 64, 64))
    return max(float((value - before[name]).abs().max()) for name, value in model.encoder.named_buffers())


def _save(folder: Path) -> None:
    _network("unet").save_pretrained(folder / "model")


WAYS: Ways = {
    "miou": tuple(
        Way(f"metrics.iou_score(reduction={reduction!r}{text})", partial(_miou, reduction=reduction, absent=absent))
        for reduction, text, absent in (
            ("macro", "", None),
            ("micro", "", None),
            ("macro-imagewise", "", None),
            ("macro", ", zero_division=0.0", 0.0),
        )
    ),
    "weighted_iou": tuple(
        Way(f"metrics.iou_score(reduction={r!r}, class_weights=…)", partial(_weighted, reduction=r))
        for r in ("weighted", "weighted-imagewise")
    ),
    "right_pixels": (Way("metrics.get_stats", _right_pixels),),
    "miou_batched": (Way("metrics.iou_score(reduction='macro')", partial(_batched, reduction="macro")),),
    "dice_loss": (Way("losses.DiceLoss('multiclass')", _loss(losses.DiceLoss, mode=_MODE)),),
    "ce_loss": (
        Way("losses.SoftCrossEntropyLoss(smooth_factor=0.0)", _loss(losses.SoftCrossEntropyLoss, smooth_factor=0.0)),
        Way("default: losses.SoftCrossEntropyLoss()", _loss(losses.SoftCrossEntropyLoss)),
    ),
    "focal_loss": (Way("losses.FocalLoss('multiclass')", _loss(losses.FocalLoss, mode=_MODE)),),
    "lovasz_loss": (Way("losses.LovaszLoss('multiclass')", _loss(losses.LovaszLoss, mode=_MODE)),),
    "enlarge_logits": (Way("base.SegmentationHead(upsampling=2)", _enlarge),),
    "any_size": (Way("Unet, DeepLabV3, Segformer", _any_size),),
    "train_on_one": (Way("DeepLabV3", _train_on_one),),
    "frozen_statistics": (Way("Unet.freeze_encoder", _frozen),),
    "save_model": (Way("Unet.save_pretrained", _save),),
}
