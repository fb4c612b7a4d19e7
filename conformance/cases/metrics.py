"""Chapter A: scores of predictions that can be computed by hand."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from conformance.case import Case, ExpectedError, Inputs

Mask = NDArray[np.uint8]
IGNORE = 255
_MIOU = "Everingham et al. 2015, The PASCAL VOC Challenge: A Retrospective: TP / (TP + FP + FN) over the whole test set"


def _mask(*rows: str) -> Mask:
    """Read rows of digits; a dot is an ignored pixel."""
    return np.array([[IGNORE if c == "." else int(c) for c in row] for row in rows], np.uint8)


def _call(
    truths: list[Mask], predictions: list[Mask], classes: int, ignore_index: int | None = None
) -> tuple[Inputs, ...]:
    return ({"truths": truths, "predictions": predictions, "num_classes": classes, "ignore_index": ignore_index},)


def six_images() -> tuple[list[Mask], list[Mask]]:
    """Draw six 12×16 images of six classes; class 4 is not in the ground truth, class 5 is in neither mask."""
    generator = np.random.default_rng(7)
    truths, predictions = [], []
    for image in range(6):
        truth = np.zeros((12, 16), np.uint8)
        truth[2 : 4 + image, 3:12] = 1 + image % 2
        if image in (1, 4):
            truth[9:11, 12:15] = 3
        noise = generator.random(truth.shape)
        guess = generator.integers(0, 5, truth.shape).astype(np.uint8)
        truths.append(truth)
        predictions.append(np.where(noise < 0.2 + 0.08 * image, guess, truth))
    return truths, predictions


def plain_miou(truths: list[Mask], predictions: list[Mask], classes: int, ignore_index: int = IGNORE) -> float:
    """Compute the mIoU by its definition: integer counts, one division per class."""
    ratios = []
    for k in range(classes):
        hit = union = 0
        for truth, prediction in zip(truths, predictions, strict=True):
            valid = truth != ignore_index
            hit += int(((truth == k) & (prediction == k) & valid).sum())
            union += int((((truth == k) | (prediction == k)) & valid).sum())
        if union:
            ratios.append(Fraction(hit, union))
    return float(sum(ratios) / len(ratios))


def _six_images(_: Path) -> tuple[Inputs, ...]:
    return _call(*six_images(), classes=6)


def _unequal(_: Path) -> tuple[Inputs, ...]:
    truths = [_mask("0000", "0000", "0001", "0011"), _mask("1111", "1111", "1111", "1111")]
    predictions = [_mask("0000", "0000", "0001", "0001"), _mask("1111", "1111", "1111", "0000")]
    return _call(truths, predictions, 2)


def _perfect_with_absent(_: Path) -> tuple[Inputs, ...]:
    truth = _mask("0011", "0011")
    return _call([truth], [truth.copy()], 4)


def _wrong_with_absent(_: Path) -> tuple[Inputs, ...]:
    return _call([_mask("0011", "0011")], [_mask("0111", "0111")], 4)


def _false_class(_: Path) -> tuple[Inputs, ...]:
    return _call([_mask("0011", "0011")], [_mask("0211", "0011")], 3)


def _weighted(truth: Mask, prediction: Mask, weights: tuple[float, ...]) -> tuple[Inputs, ...]:
    return ({"truths": [truth], "predictions": [prediction], "num_classes": 4, "weights": weights},)


def _half_ignored(_: Path) -> tuple[Inputs, ...]:
    return _call([_mask("00..", "0011", "....")], [_mask("0011", "0111", "0101")], 2, IGNORE)


def _six_images_with_ignored(_: Path) -> tuple[Inputs, ...]:
    truths, predictions = six_images()
    for truth in truths:
        truth[:, :5] = IGNORE
    return _call(truths, predictions, 6, IGNORE)


def _reduced(unlabelled: int) -> tuple[Inputs, ...]:
    ids = np.tile(np.array([[1, 2, 3, 1], [2, 3, 1, 2]], np.uint8), (4, 4))
    prediction = ids - 1
    ids[:, :unlabelled] = 0
    return ({"ids": [ids], "predictions": [prediction], "num_classes": 3},)


def _other_size(_: Path) -> tuple[Inputs, ...]:
    return _call([np.zeros((8, 12), np.uint8)], [np.zeros((4, 6), np.uint8)], 2)


def _many(_: Path) -> tuple[Inputs, ...]:
    large, small = np.zeros((4096, 4096), np.uint8), np.zeros((1, 1), np.uint8)
    return ({"truths": [large, small, small, small], "predictions": [large, small, small, small], "num_classes": 2},)


def _shards(_: Path) -> tuple[Inputs, ...]:
    truths, predictions = six_images()
    shards = [(truths[k:5:2], predictions[k:5:2]) for k in range(2)]
    return ({"shards": shards, "num_classes": 6},)


def _assignments(_: tuple[Inputs, ...], answers: list[Any]) -> Any:
    """Count how often each of the five images is assigned."""
    return np.bincount([index for indices in answers[0] for index in indices], minlength=5)


def _rectangles(_: Path) -> tuple[Inputs, ...]:
    """Two squares of 40×40 pixels: one detected exactly, one 31 pixels wide, and a false detection between them."""

    def square(left: int, width: int) -> NDArray[np.bool_]:
        mask = np.zeros((100, 200), bool)
        mask[30:70, left : left + width] = True
        return mask

    return (
        {
            "truths": [square(10, 40), square(120, 40)],
            "detections": [(square(10, 40), 0.9), (square(65, 40), 0.8), (square(120, 31), 0.7)],
        },
    )


def _frequencies(truth: Mask) -> tuple[float, ...]:
    return tuple((np.bincount(truth.ravel(), minlength=4) / truth.size).tolist())


_FOUR = np.repeat(np.arange(4, dtype=np.uint8), 4).reshape(4, 4)
_THREE_TO_ONE = _mask("0000", "0000", "0000", "1111")
_ONE_ROW_OFF = _mask("0000", "0000", "1111", "1111")


def _first_five() -> float:
    truths, predictions = six_images()
    return plain_miou(truths[:5], predictions[:5], 6)


def _without_left() -> float:
    truths, predictions = six_images()
    return plain_miou([t[:, 5:] for t in truths], [p[:, 5:] for p in predictions], 6)


CASES = (
    Case(
        "A0",
        "Every library has its own mIoU",
        "The mIoU of six images with six classes, without ignored pixels.",
        "miou",
        _six_images,
        plain_miou(*six_images(), 6),
        "By definition: intersections and unions are summed over the data set as integers, divided once per class, and "
        "averaged over the five classes with a union.",
        _MIOU,
        1e-6,
    ),
    Case(
        "A1",
        "The mean of per-image values in place of the data set's value",
        "The mIoU of an easy and a hard image, 16 pixels each.",
        "miou",
        _unequal,
        (13 / 18 + 14 / 19) / 2,
        "Class 0: 13 pixels right, union 18; class 1: 14 pixels right, union 19. The mean of the "
        "images' values is a different number.",
        _MIOU,
        1e-6,
    ),
    Case(
        "A2a",
        "Absent classes count as 0",
        "The mIoU of a perfect prediction that contains 2 of 4 classes.",
        "miou",
        _perfect_with_absent,
        1.0,
        "A class without a union has no IoU, so the mean excludes it.",
        _MIOU,
        1e-6,
    ),
    Case(
        "A2b",
        "Absent classes count as 1",
        "The mIoU of a prediction with 2 of 8 pixels wrong and 2 of 4 classes present.",
        "miou",
        _wrong_with_absent,
        (2 / 4 + 4 / 6) / 2,
        "The IoUs are 2/4 for class 0 and 4/6 for class 1; the two absent classes are excluded.",
        _MIOU,
        1e-6,
    ),
    Case(
        "A2c",
        "A class that is only predicted is not penalised",
        "The mIoU if one pixel is predicted as a class that is not in the ground truth.",
        "miou",
        _false_class,
        (3 / 4 + 1 + 0) / 3,
        "This class has a union of one pixel and no intersection: its IoU is 0.",
        _MIOU,
        1e-6,
    ),
    Case(
        "A2d",
        "Excluded classes are not reported",
        "The number of classes that the mean excludes.",
        "excluded_classes",
        _wrong_with_absent,
        2,
        "Two of four classes have a union.",
        _MIOU,
    ),
    Case(
        "A2e",
        "Two different means under one name",
        "The mean IoU over the classes that are in the ground truth.",
        "miou_present",
        _false_class,
        (3 / 4 + 1) / 2,
        "Class 2 is not in the ground truth, so this mean excludes it and needs a name of its own.",
        _MIOU,
        1e-6,
    ),
    Case(
        "A3a",
        "A weighted mean that is 0.25 for a perfect prediction",
        "The frequency-weighted IoU of a perfect prediction of four equally frequent classes.",
        "weighted_iou",
        lambda _: _weighted(_FOUR, _FOUR.copy(), (0.25,) * 4),
        1.0,
        "Every IoU is 1, and so is every weighted mean.",
        "Long et al. 2015, arXiv:1411.4038, section 5",
        1e-6,
    ),
    Case(
        "A3b",
        "A weighted mean with the wrong divisor",
        "The frequency-weighted IoU if one row of class 0 is predicted as class 1.",
        "weighted_iou",
        lambda _: _weighted(_THREE_TO_ONE, _ONE_ROW_OFF, _frequencies(_THREE_TO_ONE)),
        0.75 * 2 / 3 + 0.25 / 2,
        "The IoUs are 8/12 for class 0 (weight 3/4) and 4/8 for class 1 (weight 1/4).",
        "Long et al. 2015, arXiv:1411.4038, section 5",
        1e-6,
    ),
    Case(
        "A4a",
        "The ignore index is not supported",
        "The mIoU of 6 labelled and 6 ignored (255) pixels.",
        "miou",
        _half_ignored,
        (3 / 4 + 2 / 3) / 2,
        "The IoUs over the labelled pixels are 3/4 and 2/3; predictions at ignored pixels do not count.",
        _MIOU,
        1e-6,
    ),
    Case(
        "A4b",
        "Ignored pixels change the score",
        "The mIoU of the images of A0, ignoring the left 5 of 16 columns.",
        "miou",
        _six_images_with_ignored,
        _without_left(),
        "The same as after cropping these columns.",
        _MIOU,
        1e-6,
    ),
    Case(
        "A5a",
        "Labels are reduced twice",
        "The mIoU of a perfect prediction if file id 0 means “no label” and ids 1–3 are the classes.",
        "miou_of_ids",
        lambda _: _reduced(2),
        1.0,
        "Every labelled pixel is right; id 0 is ignored.",
        "ADE20K's convention, Zhou et al. 2017; huggingface/transformers examples/pytorch/semantic-segmentation",
        1e-6,
    ),
    Case(
        "A5b",
        "Reducing the labels loses a class",
        "The same without pixels of id 0.",
        "miou_of_ids",
        lambda _: _reduced(0),
        1.0,
        "File id 1 is class 0 of the model, and all pixels are right.",
        "as A5a",
        1e-6,
    ),
    Case(
        "A6",
        "Scored at a different size",
        "Score a prediction of half the size of the ground truth.",
        "miou",
        _other_size,
        ExpectedError(),
        "Scores refer to the ground truth at its original size; resizing changes it.",
        "Cordts et al. 2016, arXiv:1604.01685, section 4",
        control=lambda _: _call([_FOUR], [_FOUR], 4)[0],
    ),
    Case(
        "A7",
        "Counts stop at 2²⁴",
        "The number of correct pixels in one image of 2²⁴ pixels and three of one pixel, all correct.",
        "right_pixels",
        _many,
        2**24 + 3,
        "Integers are exact; float32 cannot represent 2²⁴ + 1.",
        "IEEE 754, binary32 has 24 bits of significand",
    ),
    Case(
        "A8a",
        "Distributed evaluation counts an image twice",
        "How often each of 5 images is assigned if 2 processes evaluate them together.",
        "process_indices",
        lambda _: ({"images": 5, "processes": 2},),
        np.ones(5, np.int64),
        "Each image counts once: three in one process, two in the other.",
        "pytorch/pytorch issue 25162",
        0.0,
        _assignments,
    ),
    Case(
        "A8b",
        "Metric states cannot be merged",
        "The mIoU of five images counted in two states, three images in one and two in the other.",
        "miou_sharded",
        _shards,
        _first_five(),
        "Counts are additive, so this is the mIoU of all five.",
        _MIOU,
        1e-6,
    ),
    Case(
        "A10",
        "Average precision differs between implementations",
        "The mask AP (IoU 0.50:0.95) of three detections of two squares.",
        "mask_ap",
        _rectangles,
        float(np.mean([(51 + 50 * 2 / 3) / 101] * 6 + [51 / 101] * 4)),
        "The second square is detected with IoU 0.775: a match at the six thresholds up to 0.75. A false detection has a "
        "higher score, so over the 101 recall levels precision is 1 up to recall 0.5 and 2/3 beyond. At higher "
        "thresholds, recall ends at 0.5.",
        "Lin et al. 2014, arXiv:1405.0312; pycocotools COCOeval",
        1e-6,
    ),
)
