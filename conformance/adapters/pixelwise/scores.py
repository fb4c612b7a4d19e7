"""Scores of pixelwise: one matrix over the set, `Scores` from it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from conformance.adapters import Way, Ways
from pixelwise.evaluation import majority
from pixelwise.grid import Grid
from pixelwise.labels import Labels
from pixelwise.metrics.confusion import ConfusionMatrix, mean_iou
from pixelwise.metrics.instances import average_precision
from pixelwise.metrics.scores import scores
from pixelwise.types import Sample, Scores

Masks = Sequence[NDArray[Any]]


def _labels(count: int) -> Labels:
    return Labels(tuple(f"class {k}" for k in range(count)))


def _scored(truths: Masks, predictions: Masks, num_classes: int, ignore_index: int | None = None, **_: Any) -> Scores:
    counter = ConfusionMatrix(num_classes, 255 if ignore_index is None else ignore_index)
    matrices = [counter.update(t, p) for t, p in zip(truths, predictions, strict=True)]
    return scores(matrices, _labels(num_classes), resamples=0)


def _of_ids(ids: Masks, predictions: Masks, num_classes: int) -> float | None:
    labels = Labels(tuple(f"class {k}" for k in range(num_classes)), tuple(range(1, num_classes + 1)), ignore_ids=(0,))
    return _scored([labels.encode(i)[0] for i in ids], predictions, num_classes, labels.ignore_index).miou.value


def _right_pixels(truths: Masks, predictions: Masks, num_classes: int) -> int:
    return int(np.trace(_scored(truths, predictions, num_classes).confusion))


def _sharded(shards: Sequence[tuple[Masks, Masks]], num_classes: int) -> float:
    counters = []
    for truths, predictions in shards:
        counter = ConfusionMatrix(num_classes)
        for truth, prediction in zip(truths, predictions, strict=True):
            counter.update(truth, prediction)
        counters.append(counter)
    return float(mean_iou((counters[0] + counters[1]).matrix))


def _batched(truths: Masks, predictions: Masks, num_classes: int, batch_size: int) -> float:
    counter = ConfusionMatrix(num_classes)
    for first in range(0, len(truths), batch_size):
        piece = slice(first, first + batch_size)
        counter.update(np.stack(truths[piece]), np.stack(predictions[piece]))
    return float(mean_iou(counter.matrix))


class _Pictures:
    def __init__(self, truths: Masks, num_classes: int) -> None:
        self.truths, self.labels = truths, _labels(num_classes)

    def __len__(self) -> int:
        return len(self.truths)

    def read(self, index: int) -> Sample:
        truth = self.truths[index]
        return Sample(np.zeros((1, *truth.shape), np.uint8), truth, Grid(), str(index))


def _constant(truths: Masks, num_classes: int) -> NDArray[Any]:
    found = majority(_Pictures(truths, num_classes), resamples=0)
    return np.array([found.pixel_accuracy.value, found.miou.value])


def _mask_ap(truths: Masks, detections: Sequence[tuple[NDArray[np.bool_], float]]) -> float:
    from pycocotools import mask as run_lengths

    def plain(mask: NDArray[np.bool_], **more: Any) -> dict[str, Any]:
        return {
            "image_id": 1,
            "category_id": 1,
            "segmentation": run_lengths.encode(np.asfortranarray(mask, np.uint8)),
        } | more

    truth = {
        "images": [{"id": 1, "height": truths[0].shape[0], "width": truths[0].shape[1]}],
        "categories": [{"id": 1}],
        "annotations": [plain(mask, id=k + 1) for k, mask in enumerate(truths)],
    }
    return average_precision(truth, [plain(mask, score=score) for mask, score in detections]).ap


WAYS: Ways = {
    "mask_ap": (Way("metrics.instances.average_precision", _mask_ap),),
    "miou": (Way("evaluate: Scores.miou", lambda **given: _scored(**given).miou.value),),
    "miou_present": (Way("evaluate: Scores.miou_present", lambda **given: _scored(**given).miou_present.value),),
    "excluded_classes": (Way("evaluate: Scores.excluded", lambda **given: len(_scored(**given).excluded)),),
    "weighted_iou": (
        Way("evaluate: Scores.frequency_weighted_iou", lambda **given: _scored(**given).frequency_weighted_iou.value),
    ),
    "miou_of_ids": (Way("Labels.encode, then Scores.miou", _of_ids),),
    "right_pixels": (Way("metrics.confusion.ConfusionMatrix", _right_pixels),),
    "miou_sharded": (Way("ConfusionMatrix + ConfusionMatrix", _sharded),),
    "miou_batched": (Way("metrics.confusion.mean_iou", _batched),),
    "constant_guess": (Way("evaluation.majority", _constant),),
}
