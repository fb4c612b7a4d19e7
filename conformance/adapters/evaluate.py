"""evaluate: the metric mean_iou, which is downloaded from the Hub on first use."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache, partial
from typing import Any

import evaluate
from numpy.typing import NDArray

from conformance.adapters import Way, Ways

Masks = Sequence[NDArray[Any]]


@cache
def _metric() -> Any:
    return evaluate.load("mean_iou")


def _miou(truths: Masks, predictions: Masks, num_classes: int, ignore_index: int | None = None) -> float:
    ignored = 255 if ignore_index is None else ignore_index
    found = _metric().compute(
        predictions=list(predictions), references=list(truths), num_labels=num_classes, ignore_index=ignored
    )
    return float(found["mean_iou"])


def _of_ids(ids: Masks, predictions: Masks, num_classes: int, ignore_index: int) -> float:
    found = _metric().compute(
        predictions=list(predictions),
        references=list(ids),
        num_labels=num_classes,
        ignore_index=ignore_index,
        reduce_labels=True,
    )
    return float(found["mean_iou"])


WAYS: Ways = {
    "miou": (Way("mean_iou(ignore_index=255)", _miou),),
    "miou_of_ids": (
        Way("mean_iou(ignore_index=255, reduce_labels=True)", partial(_of_ids, ignore_index=255)),
        Way(
            "mean_iou(ignore_index=0, reduce_labels=True), as run_semantic_segmentation.py",
            partial(_of_ids, ignore_index=0),
        ),
    ),
}
