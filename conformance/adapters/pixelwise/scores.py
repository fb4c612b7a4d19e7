"""pixelwise: scores of folders of masks, and confusion matrices."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from numpy.typing import NDArray
from PIL import Image

import pixelwise
from conformance.adapters import Way, Ways
from pixelwise.evaluation import Evaluation
from pixelwise.imageio.masks import write_mask
from pixelwise.labels import Labels
from pixelwise.metrics.confusion import ConfusionMatrix, mean_iou
from pixelwise.metrics.instances import average_precision

Masks = Sequence[NDArray[Any]]


def _labels(count: int, first: int = 0, ignored: int | None = None) -> Labels:
    names = tuple(f"class {k}" for k in range(count))
    return Labels(names, tuple(range(first, first + count)), ignore_ids=None if ignored is None else (ignored,))


def _evaluated(ids: Masks, predictions: Masks, labels: Labels) -> Evaluation:
    """Write a data set with masks of file ids and predictions of class indices, and evaluate them."""
    with tempfile.TemporaryDirectory() as name:
        data, found = Path(name) / "data", Path(name) / "found"
        for folder in (data / "test" / "images", data / "test" / "masks", found):
            folder.mkdir(parents=True)
        (data / "labels.yaml").write_text(yaml.safe_dump(labels.to_dict()))
        for k, (truth, prediction) in enumerate(zip(ids, predictions, strict=True)):
            Image.fromarray(np.zeros_like(truth)).save(data / "test" / "images" / f"{k}.png")
            Image.fromarray(truth).save(data / "test" / "masks" / f"{k}.png")
            write_mask(found / f"{k}.png", prediction, labels)
        return pixelwise.evaluate(found, data, split="test", metrics=(), overrides=("evaluate.resamples=0",))


def _score(read: Callable[[Evaluation], Any]) -> Callable[..., Any]:
    def call(truths: Masks, predictions: Masks, num_classes: int, ignore_index: int | None = None, **_: Any) -> Any:
        return read(_evaluated(truths, predictions, _labels(num_classes, ignored=ignore_index)))

    return call


def _of_ids(ids: Masks, predictions: Masks, num_classes: int) -> float | None:
    return _evaluated(ids, predictions, _labels(num_classes, 1, 0)).scores.miou.value


def _right_pixels(truths: Masks, predictions: Masks, num_classes: int) -> int:
    counter = ConfusionMatrix(num_classes)
    for truth, prediction in zip(truths, predictions, strict=True):
        counter.update(truth, prediction)
    return int(np.trace(counter.matrix))


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


def _constant(truths: Masks, num_classes: int) -> NDArray[Any]:
    """Return the scores of the constant baseline, which do not depend on the predictions."""
    found = _evaluated(truths, truths, _labels(num_classes)).baseline
    return np.array([found.pixel_accuracy.value, found.miou.value])


def _mask_ap(truths: Masks, detections: Sequence[tuple[NDArray[np.bool_], float]]) -> float:
    from pycocotools import mask as run_lengths

    def encoded(mask: NDArray[np.bool_], **more: Any) -> dict[str, Any]:
        return {
            "image_id": 1,
            "category_id": 1,
            "segmentation": run_lengths.encode(np.asfortranarray(mask, np.uint8)),
        } | more

    truth = {
        "images": [{"id": 1, "height": truths[0].shape[0], "width": truths[0].shape[1]}],
        "categories": [{"id": 1}],
        "annotations": [encoded(mask, id=k + 1) for k, mask in enumerate(truths)],
    }
    return average_precision(truth, [encoded(mask, score=score) for mask, score in detections]).ap


WAYS: Ways = {
    "mask_ap": (Way("metrics.instances.average_precision", _mask_ap),),
    "miou": (Way("evaluate(folder of masks): scores.miou", _score(lambda found: found.scores.miou.value)),),
    "miou_present": (
        Way("evaluate(folder of masks): scores.miou_present", _score(lambda found: found.scores.miou_present.value)),
    ),
    "excluded_classes": (
        Way("evaluate(folder of masks): scores.excluded", _score(lambda found: len(found.scores.excluded))),
    ),
    "weighted_iou": (
        Way(
            "evaluate(folder of masks): scores.frequency_weighted_iou",
            _score(lambda found: found.scores.frequency_weighted_iou.value),
        ),
    ),
    "miou_of_ids": (Way("evaluate(folder of masks) with ignore_index: 0 in labels.yaml: scores.miou", _of_ids),),
    "right_pixels": (Way("metrics.confusion.ConfusionMatrix", _right_pixels),),
    "miou_sharded": (Way("ConfusionMatrix + ConfusionMatrix, metrics.confusion.mean_iou", _sharded),),
    "miou_batched": (Way("ConfusionMatrix.update, metrics.confusion.mean_iou", _batched),),
    "constant_guess": (Way("evaluate(folder of masks): baseline", _constant),),
}
