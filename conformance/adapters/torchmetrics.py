"""torchmetrics: multiclass Jaccard index, confusion matrix, segmentation and detection metrics."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torchmetrics import Metric
from torchmetrics.classification import MulticlassConfusionMatrix, MulticlassJaccardIndex
from torchmetrics.detection import MeanAveragePrecision
from torchmetrics.segmentation import MeanIoU

from conformance.adapters import Way, Ways

Masks = Sequence[NDArray[Any]]


def _tensor(mask: NDArray[Any]) -> torch.Tensor:
    return torch.from_numpy(mask.astype(np.int64))[None]


def _updated(metric: Metric, truths: Masks, predictions: Masks) -> Metric:
    for truth, prediction in zip(truths, predictions, strict=True):
        metric.update(_tensor(prediction), _tensor(truth))
    return metric


def _jaccard(
    truths: Masks,
    predictions: Masks,
    num_classes: int,
    ignore_index: int | None = None,
    *,
    average: str = "macro",
    **_: Any,
) -> float:
    metric = MulticlassJaccardIndex(num_classes, average=average, ignore_index=ignore_index)
    return float(_updated(metric, truths, predictions).compute())


def _segmentation(truths: Masks, predictions: Masks, num_classes: int, ignore_index: int | None = None) -> float:
    return float(_updated(MeanIoU(num_classes, input_format="index"), truths, predictions).compute())


def _right_pixels(truths: Masks, predictions: Masks, num_classes: int) -> int:
    return int(_updated(MulticlassConfusionMatrix(num_classes), truths, predictions).compute().trace())


def _sharded(shards: Sequence[tuple[Masks, Masks]], num_classes: int, *, make: Callable[[int], Metric]) -> float:
    first, second = (_updated(make(num_classes), *shard) for shard in shards)
    first.merge_state(second)
    return float(first.compute())


def _batched(
    truths: Masks, predictions: Masks, num_classes: int, batch_size: int, *, make: Callable[[int], Metric]
) -> float:
    metric = make(num_classes)
    for k in range(0, len(truths), batch_size):
        piece = slice(k, k + batch_size)
        metric.update(*(torch.from_numpy(np.stack(masks[piece]).astype(np.int64)) for masks in (predictions, truths)))
    return float(metric.compute())


def _mask_ap(truths: Masks, detections: Sequence[tuple[NDArray[np.bool_], float]]) -> float:
    metric = MeanAveragePrecision(iou_type="segm")
    masks, scores = zip(*detections, strict=True)
    found = {
        "masks": torch.from_numpy(np.stack(masks)),
        "scores": torch.tensor(scores),
        "labels": torch.ones(len(masks)).long(),
    }
    truth = {"masks": torch.from_numpy(np.stack(truths)), "labels": torch.ones(len(truths)).long()}
    metric.update([found], [truth])
    return float(metric.compute()["map"])


_KINDS: tuple[tuple[str, Callable[[int], Metric]], ...] = (
    ("classification.MulticlassJaccardIndex", MulticlassJaccardIndex),
    ("segmentation.MeanIoU(input_format='index')", partial(MeanIoU, input_format="index")),
)

WAYS: Ways = {
    "miou": (
        Way("default: classification.MulticlassJaccardIndex", _jaccard),
        Way("classification.MulticlassJaccardIndex(average='micro')", partial(_jaccard, average="micro")),
        Way("segmentation.MeanIoU(input_format='index')", _segmentation),
    ),
    "weighted_iou": (
        Way("classification.MulticlassJaccardIndex(average='weighted')", partial(_jaccard, average="weighted")),
    ),
    "right_pixels": (Way("classification.MulticlassConfusionMatrix", _right_pixels),),
    "miou_sharded": tuple(Way(f"{name}.merge_state", partial(_sharded, make=make)) for name, make in _KINDS),
    "miou_batched": tuple(Way(name, partial(_batched, make=make)) for name, make in _KINDS),
    "mask_ap": (Way("detection.MeanAveragePrecision(iou_type='segm')", _mask_ap),),
}
