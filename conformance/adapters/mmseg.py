"""mmsegmentation 1.x: IoUMetric, losses, loading of masks, resizing of logits."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmseg.datasets.transforms import LoadAnnotations
from mmseg.evaluation.metrics import IoUMetric
from mmseg.models.losses import CrossEntropyLoss, DiceLoss
from mmseg.models.utils import resize
from numpy.typing import NDArray

from conformance.adapters import Way, Ways

Masks = Sequence[NDArray[Any]]


def _areas(truths: Masks, predictions: Masks, num_classes: int, ignore_index: int | None) -> list[Any]:
    counts = [
        IoUMetric.intersect_and_union(
            torch.from_numpy(p.astype(np.int64)),
            torch.from_numpy(t.astype(np.int64)),
            num_classes,
            255 if ignore_index is None else ignore_index,
        )
        for t, p in zip(truths, predictions, strict=True)
    ]
    return [sum(areas) for areas in zip(*counts, strict=True)]


def _miou(truths: Masks, predictions: Masks, num_classes: int, ignore_index: int | None = None) -> float:
    found = IoUMetric.total_area_to_metrics(*_areas(truths, predictions, num_classes, ignore_index), metrics=["mIoU"])
    return float(np.nanmean(found["IoU"]))


def _right_pixels(truths: Masks, predictions: Masks, num_classes: int) -> int:
    return int(_areas(truths, predictions, num_classes, None)[0].sum())


def _loss(make: Callable[..., Any], at_call: bool, **fixed: Any) -> Callable[..., dict[str, Any]]:
    def call(
        logits: NDArray[Any], masks: NDArray[Any], ignore_index: int | None, class_weights: Any = None
    ) -> dict[str, Any]:
        leaf = torch.from_numpy(logits).requires_grad_()
        ignore = {} if ignore_index is None else {"ignore_index": ignore_index}
        weights = {} if class_weights is None else {"class_weight": class_weights}
        loss = make(**weights, **fixed, **({} if at_call else ignore))
        value = loss(leaf, torch.from_numpy(masks), **(ignore if at_call else {}))
        (gradient,) = torch.autograd.grad(value, leaf)
        return {"value": float(value.detach()), "gradient": gradient.numpy()}

    return call


def _load(path: Path, reduce: bool = False) -> NDArray[Any]:
    results = {"seg_map_path": str(path), "seg_fields": [], "reduce_zero_label": reduce, "label_map": None}
    loaded: NDArray[Any] = LoadAnnotations()(results)["gt_seg_map"]
    return loaded


def _enlarge(logits: NDArray[Any], size: tuple[int, int]) -> NDArray[Any]:
    found: NDArray[Any] = resize(torch.from_numpy(logits)[None], size, mode="bilinear", align_corners=False)[0].numpy()
    return found


WAYS: Ways = {
    "miou": (Way("evaluation.IoUMetric", _miou),),
    "right_pixels": (Way("evaluation.IoUMetric.intersect_and_union", _right_pixels),),
    "ce_loss": (
        Way("losses.CrossEntropyLoss(avg_non_ignore=True)", _loss(CrossEntropyLoss, True, avg_non_ignore=True)),
        Way("default: losses.CrossEntropyLoss", _loss(CrossEntropyLoss, True)),
    ),
    "dice_loss": (
        Way(
            "losses.DiceLoss(use_sigmoid=False, naive_dice=True)",
            _loss(DiceLoss, False, use_sigmoid=False, naive_dice=True),
        ),
        Way("losses.DiceLoss(use_sigmoid=False)", _loss(DiceLoss, False, use_sigmoid=False)),
    ),
    "read_mask": (Way("datasets.transforms.LoadAnnotations", lambda path, ids, ignored: _load(path)),),
    "enlarge_logits": (Way("models.utils.resize(align_corners=False)", _enlarge),),
}
