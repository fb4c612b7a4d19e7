"""Ultralytics: semantic segmentation metrics. Its licence is AGPL-3.0, so it is used if installed and never required."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from ultralytics.utils.metrics import SemanticMetrics

from conformance.adapters import Way, Ways

Masks = Sequence[NDArray[Any]]


def _updated(truths: Masks, predictions: Masks, num_classes: int) -> Any:
    metrics = SemanticMetrics({k: f"class {k}" for k in range(num_classes)})
    for truth, prediction in zip(truths, predictions, strict=True):
        metrics.update_stats(*(torch.from_numpy(mask.astype(np.int64))[None] for mask in (prediction, truth)))
    metrics.process()
    return metrics


def _miou(truths: Masks, predictions: Masks, num_classes: int, ignore_index: int | None = None) -> float:
    return float(_updated(truths, predictions, num_classes).miou)


def _right_pixels(truths: Masks, predictions: Masks, num_classes: int) -> int:
    return int(_updated(truths, predictions, num_classes).matrix.trace())


WAYS: Ways = {
    "miou": (Way("utils.metrics.SemanticMetrics", _miou),),
    "right_pixels": (Way("utils.metrics.SemanticMetrics", _right_pixels),),
}
