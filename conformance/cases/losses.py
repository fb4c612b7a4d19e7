"""Chapter B: losses of logits for which they can be computed by hand."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from conformance.case import Case, Inputs

IGNORE = 255
_CE = "torch.nn.CrossEntropyLoss, documentation: weighted mean over the targets that are not ignored"
_DICE = "Milletari et al. 2016, arXiv:1606.04797; the mean over the classes of the soft Dice of the batch"


def _confident(classes: NDArray[np.int64], count: int, logit: float = 30.0) -> NDArray[np.float32]:
    """Return logits (1, K, H, W) with a probability near 1 for these classes."""
    return (np.arange(count)[:, None, None] == classes)[None].astype(np.float32) * np.float32(logit)


def _half_ignored() -> NDArray[np.int64]:
    mask = np.zeros((1, 4, 8), np.int64)
    mask[:, :, 2:] = 1
    mask[:, :, 4:] = IGNORE
    return mask


def _inputs(
    logits: NDArray[np.float32], masks: NDArray[np.int64], ignore_index: int | None = IGNORE, **more: Any
) -> Inputs:
    return {"logits": logits, "masks": masks, "ignore_index": ignore_index, **more}


def _only_ignored_differ(_: Path) -> tuple[Inputs, ...]:
    generator = np.random.default_rng(3)
    logits = generator.normal(size=(1, 3, 4, 8)).astype(np.float32)
    other = logits.copy()
    other[..., 4:] += generator.normal(size=(1, 3, 4, 4)).astype(np.float32) * 3
    return _inputs(logits, _half_ignored()), _inputs(other, _half_ignored())


def _perfect_where_labelled(_: Path) -> tuple[Inputs, ...]:
    mask = _half_ignored()
    guess = np.where(mask == IGNORE, 0, mask)[0]
    return (_inputs(_confident(guess, 2), mask),)


def _two_classes(_: Path) -> tuple[Inputs, ...]:
    logits = np.zeros((1, 2, 4, 4), np.float32)
    logits[:, 1] = math.log(3)
    mask = np.zeros((1, 4, 4), np.int64)
    mask[:, 3] = 1
    return (_inputs(logits, mask, None),)


def _uniform_half_ignored(_: Path) -> tuple[Inputs, ...]:
    return (_inputs(np.zeros((1, 2, 4, 8), np.float32), _half_ignored()),)


def _weighted(ignoring: bool) -> tuple[Inputs, ...]:
    logits = np.zeros((1, 2, 4, 8), np.float32)
    logits[:, 1] = math.log(3)
    mask = _half_ignored()
    mask[:, :, 1] = 1
    if not ignoring:
        mask[mask == IGNORE] = 0
    return (_inputs(logits, mask, class_weights=[1.0, 3.0]),)


def _all_ignored(_: Path) -> tuple[Inputs, ...]:
    logits = np.random.default_rng(0).normal(size=(2, 3, 4, 4)).astype(np.float32)
    return (_inputs(logits, np.full((2, 4, 4), IGNORE, np.int64)),)


def _totally_wrong(_: Path) -> tuple[Inputs, ...]:
    """Predict class 1 for class 0 everywhere, with two classes and with five."""
    truth = np.zeros((1, 8, 8), np.int64)
    return tuple(_inputs(_confident(np.ones((8, 8), np.int64), classes), truth, None) for classes in (2, 5))


def _micro_batches(_: Path) -> tuple[Inputs, ...]:
    """Return two images: the first with 28 of 32 pixels ignored, the second with none."""
    logits = np.zeros((2, 2, 4, 8), np.float32)
    logits[:, 1] = math.log(3)
    masks = np.zeros((2, 4, 8), np.int64)
    masks[0] = IGNORE
    masks[0, 0, :4] = 1
    micro_batches = [(logits[k : k + 1], masks[k : k + 1]) for k in range(2)]
    return ({"micro_batches": micro_batches, "class_weights": [1.0, 3.0], "ignore_index": IGNORE},)


def _named(folder: Path) -> tuple[Inputs, ...]:
    return ({"folder": folder / "cityscapes"}, {"folder": folder / "streets"})


def _value(_: tuple[Inputs, ...], answers: list[Any]) -> Any:
    return answers[0]["value"]


def _value_and_gradient(_: tuple[Inputs, ...], answers: list[Any]) -> Any:
    """Return the value and the largest gradient."""
    return np.array([answers[0]["value"], np.abs(answers[0]["gradient"]).max()], np.float64)


def _change(_: tuple[Inputs, ...], answers: list[Any]) -> Any:
    return answers[1]["value"] - answers[0]["value"]


def _gradient_at_ignored(inputs: tuple[Inputs, ...], answers: list[Any]) -> Any:
    ignored = inputs[0]["masks"] == IGNORE
    return float(np.abs(np.moveaxis(answers[0]["gradient"], 1, -1)[ignored]).max())


def _masks(inputs: tuple[Inputs, ...], _: list[Any]) -> Any:
    return inputs[0]["masks"]


_ZEROS = np.zeros(2)
# p = 1/4 and 3/4 everywhere; 12 pixels of class 0, 4 of class 1.
_TWO_DICE = 1 - ((2 * 12 / 4) / (12 + 16 / 4) + (2 * 4 * 3 / 4) / (4 + 16 * 3 / 4)) / 2
_LOG_4, _LOG_4_3 = math.log(4), math.log(4 / 3)

CASES = (
    Case(
        "B1a",
        "Ignored pixels change the Dice loss",
        "The change of the Dice loss if only logits at ignored pixels change.",
        "dice_loss",
        _only_ignored_differ,
        0.0,
        "Ignored pixels do not contribute, not even to the denominator.",
        _DICE,
        1e-6,
        _change,
    ),
    Case(
        "B1b",
        "A perfect prediction is penalised for ignored pixels",
        "The Dice loss of a prediction that is right at every labelled pixel, half of the image ignored.",
        "dice_loss",
        _perfect_where_labelled,
        0.0,
        "Both classes have Dice 1 over the labelled pixels.",
        _DICE,
        1e-4,
        _value,
    ),
    Case(
        "B1c",
        "Classes are flattened into one Dice",
        "The Dice loss of p = (1/4, 3/4) everywhere, 12 pixels of class 0 and 4 of class 1.",
        "dice_loss",
        _two_classes,
        _TWO_DICE,
        "Class 0: 2·3 / (4 + 12); class 1: 2·3 / (12 + 4); the mean of the two is 3/8.",
        _DICE,
        1e-4,
        _value,
    ),
    Case(
        "B2a",
        "Ignored pixels are in the divisor",
        "The cross-entropy of p = 1/2 everywhere, half of the pixels ignored.",
        "ce_loss",
        _uniform_half_ignored,
        math.log(2),
        "The mean over the labelled pixels, log 2 each.",
        _CE,
        1e-5,
        _value,
    ),
    Case(
        "B2b",
        "Class weights together with ignored pixels",
        "The weighted cross-entropy of p = (1/4, 3/4), weights (1, 3), a quarter of the labelled pixels class 0, "
        "half of the image ignored.",
        "ce_loss",
        lambda _: _weighted(True),
        (4 * _LOG_4 + 36 * _LOG_4_3) / 40,
        "4 pixels of class 0 have weight 1, 12 of class 1 have weight 3: sum of w·loss over sum of w.",
        _CE,
        1e-5,
        _value,
    ),
    Case(
        "B2c",
        "Class weights are normalised twice or not at all",
        "The same with the ignored pixels labelled as class 0.",
        "ce_loss",
        lambda _: _weighted(False),
        (20 * _LOG_4 + 36 * _LOG_4_3) / 56,
        "20 pixels have weight 1, 12 have weight 3.",
        _CE,
        1e-5,
        _value,
    ),
    Case(
        "B3",
        "A drop-in cross-entropy that crashes",
        "The cross-entropy of p = (1/4, 3/4), 12 pixels of class 0 and 4 of class 1, no ignored pixels, default options.",
        "ce_loss",
        _two_classes,
        (12 * _LOG_4 + 4 * _LOG_4_3) / 16,
        "The mean of −log p over the pixels.",
        _CE,
        1e-5,
        _value,
    ),
    Case(
        "B4a",
        "The Dice loss modifies the masks",
        "The masks after computing the Dice loss.",
        "dice_loss",
        _perfect_where_labelled,
        _half_ignored(),
        "The next term of a combined loss needs the same masks.",
        "PaddleSeg models/losses/dice_loss.py",
        0.0,
        _masks,
    ),
    Case(
        "B4b",
        "The cross-entropy modifies the masks",
        "The masks after computing the cross-entropy.",
        "ce_loss",
        _uniform_half_ignored,
        _half_ignored(),
        "As in B4a.",
        "as B4a",
        0.0,
        _masks,
    ),
    Case(
        "B5a",
        "Cross-entropy of ignored pixels only",
        "The value and the largest gradient for a batch in which all pixels are ignored.",
        "ce_loss",
        _all_ignored,
        _ZEROS,
        "Without labels, the loss is 0 and the gradients are zero; NaN would break the training run.",
        "pytorch/pytorch: CrossEntropyLoss gives NaN when all targets are ignored",
        1e-6,
        _value_and_gradient,
    ),
    Case(
        "B5b",
        "Dice of ignored pixels only",
        "The same for the Dice loss.",
        "dice_loss",
        _all_ignored,
        _ZEROS,
        "As in B5a.",
        _DICE,
        1e-6,
        _value_and_gradient,
    ),
    Case(
        "B5c",
        "Focal loss of ignored pixels only",
        "The same for the focal loss.",
        "focal_loss",
        _all_ignored,
        _ZEROS,
        "As in B5a.",
        "Lin et al. 2017, arXiv:1708.02002",
        1e-6,
        _value_and_gradient,
    ),
    Case(
        "B5d",
        "Lovász of ignored pixels only",
        "The same for the Lovász-softmax loss.",
        "lovasz_loss",
        _all_ignored,
        _ZEROS,
        "As in B5a.",
        "Berman et al. 2018, arXiv:1705.08790",
        1e-6,
        _value_and_gradient,
    ),
    Case(
        "B5e",
        "Ignored pixels get a gradient",
        "The largest gradient of the cross-entropy at an ignored pixel.",
        "ce_loss",
        _uniform_half_ignored,
        0.0,
        "Ignored pixels do not contribute, not even to the gradient.",
        _CE,
        1e-9,
        _gradient_at_ignored,
    ),
    Case(
        "B6",
        "Absent classes dilute the Dice loss",
        "The change of the Dice loss of a prediction that is wrong at every pixel from 2 classes to 5, three of which are "
        "in neither ground truth nor prediction.",
        "dice_loss",
        _totally_wrong,
        0.0,
        "The same error should cost the same, however many classes are declared. This is a convention: with a mean over "
        "all K classes, each absent class makes the same error cheaper.",
        "convention of pixelwise; Tilborghs et al. 2022, arXiv:2207.09521, on how the choices for empty labels differ",
        1e-3,
        _change,
    ),
    Case(
        "B7",
        "Accumulated micro-batches differ from one batch (cross-entropy)",
        "The weighted cross-entropy of two micro-batches of one step, with 4 and 32 labelled pixels.",
        "accumulated_ce",
        _micro_batches,
        (3 * 4 * _LOG_4_3 + 32 * _LOG_4) / (12 + 32),
        "The same as in one batch: sum of w·loss over sum of w of both.",
        _CE,
        1e-5,
    ),
    Case(
        "B8",
        "A folder name changes the class weights",
        "Whether the loss stays the same if the folder of the data set is named cityscapes.",
        "loss_settings",
        _named,
        True,
        "The name says nothing about the images.",
        "Ultralytics 8.4, utils/loss.py",
        0.0,
        lambda _, answers: answers[0] == answers[1],
    ),
)
