"""Chapter B: what training makes small, at logits whose loss can be computed by hand."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from conformance.case import Case, Inputs

VOID = 255
_CE = "torch.nn.CrossEntropyLoss, documentation: weighted mean over the targets that are not ignored"
_DICE = "Milletari et al. 2016, arXiv:1606.04797; the mean over the classes of the soft Dice of the batch"


def _sure(classes: NDArray[np.int64], count: int, logit: float = 30.0) -> NDArray[np.float32]:
    """Give logits (1, K, H, W) that leave no doubt about these classes."""
    return (np.arange(count)[:, None, None] == classes)[None].astype(np.float32) * np.float32(logit)


def _half_void() -> NDArray[np.int64]:
    mask = np.zeros((1, 4, 8), np.int64)
    mask[:, :, 2:] = 1
    mask[:, :, 4:] = VOID
    return mask


def _one(logits: NDArray[np.float32], masks: NDArray[np.int64], void: int | None = VOID, **more: Any) -> Inputs:
    return {"logits": logits, "masks": masks, "ignore_index": void, **more}


def _only_void_differs(_: Path) -> tuple[Inputs, ...]:
    generator = np.random.default_rng(3)
    logits = generator.normal(size=(1, 3, 4, 8)).astype(np.float32)
    other = logits.copy()
    other[..., 4:] += generator.normal(size=(1, 3, 4, 4)).astype(np.float32) * 3
    return _one(logits, _half_void()), _one(other, _half_void())


def _perfect_but_void(_: Path) -> tuple[Inputs, ...]:
    mask = _half_void()
    guess = np.where(mask == VOID, 0, mask)[0]
    return (_one(_sure(guess, 2), mask),)


def _two_classes(_: Path) -> tuple[Inputs, ...]:
    logits = np.zeros((1, 2, 4, 4), np.float32)
    logits[:, 1] = math.log(3)
    mask = np.zeros((1, 4, 4), np.int64)
    mask[:, 3] = 1
    return (_one(logits, mask, None),)


def _uniform_half_void(_: Path) -> tuple[Inputs, ...]:
    return (_one(np.zeros((1, 2, 4, 8), np.float32), _half_void()),)


def _weighted(void: bool) -> tuple[Inputs, ...]:
    logits = np.zeros((1, 2, 4, 8), np.float32)
    logits[:, 1] = math.log(3)
    mask = _half_void()
    mask[:, :, 1] = 1
    if not void:
        mask[mask == VOID] = 0
    return (_one(logits, mask, class_weights=[1.0, 3.0]),)


def _plain(_: Path) -> tuple[Inputs, ...]:
    logits = np.zeros((1, 2, 4, 4), np.float32)
    logits[:, 1] = math.log(3)
    mask = np.zeros((1, 4, 4), np.int64)
    mask[:, 3] = 1
    return (_one(logits, mask, None),)


def _all_void(_: Path) -> tuple[Inputs, ...]:
    logits = np.random.default_rng(0).normal(size=(2, 3, 4, 4)).astype(np.float32)
    return (_one(logits, np.full((2, 4, 4), VOID, np.int64)),)


def _totally_wrong(_: Path) -> tuple[Inputs, ...]:
    """Take class 0 for class 1 everywhere, of two classes and of five."""
    truth = np.zeros((1, 8, 8), np.int64)
    return tuple(_one(_sure(np.ones((8, 8), np.int64), classes), truth, None) for classes in (2, 5))


def _parts(_: Path) -> tuple[Inputs, ...]:
    """Give two images: the first with 28 void pixels of 32, the second with none."""
    logits = np.zeros((2, 2, 4, 8), np.float32)
    logits[:, 1] = math.log(3)
    masks = np.zeros((2, 4, 8), np.int64)
    masks[0] = VOID
    masks[0, 0, :4] = 1
    splits = [(logits[k : k + 1], masks[k : k + 1]) for k in range(2)]
    return ({"splits": splits, "class_weights": [1.0, 3.0], "ignore_index": VOID},)


def _named(folder: Path) -> tuple[Inputs, ...]:
    return ({"folder": folder / "cityscapes"}, {"folder": folder / "streets"})


def _value(_: tuple[Inputs, ...], answers: list[Any]) -> Any:
    return answers[0]["value"]


def _size(_: tuple[Inputs, ...], answers: list[Any]) -> Any:
    """Give the value and the largest gradient."""
    return np.array([answers[0]["value"], np.abs(answers[0]["gradient"]).max()], np.float64)


def _change(_: tuple[Inputs, ...], answers: list[Any]) -> Any:
    return answers[1]["value"] - answers[0]["value"]


def _void_gradient(inputs: tuple[Inputs, ...], answers: list[Any]) -> Any:
    void = inputs[0]["masks"] == VOID
    return float(np.abs(np.moveaxis(answers[0]["gradient"], 1, -1)[void]).max())


def _untouched(inputs: tuple[Inputs, ...], _: list[Any]) -> Any:
    return inputs[0]["masks"]


_NOTHING = np.zeros(2)
# p = 1/4 and 3/4 everywhere; 12 pixels of class 0, 4 of class 1.
_TWO_DICE = 1 - ((2 * 12 / 4) / (12 + 16 / 4) + (2 * 4 * 3 / 4) / (4 + 16 * 3 / 4)) / 2
_LOG_4, _LOG_4_3 = math.log(4), math.log(4 / 3)

CASES = (
    Case(
        "B1a",
        "Ignored pixels move the Dice loss",
        "How much the Dice loss changes when only logits at void pixels do.",
        "dice_loss",
        _only_void_differs,
        0.0,
        "Void counts in nothing, the denominator included.",
        _DICE,
        1e-6,
        _change,
    ),
    Case(
        "B1b",
        "A perfect prediction with void is punished",
        "The Dice loss of a prediction that is right wherever there is a label, half of the image void.",
        "dice_loss",
        _perfect_but_void,
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
        "Void pixels are in the divisor",
        "The cross-entropy of p = 1/2 everywhere, half of the pixels void.",
        "ce_loss",
        _uniform_half_void,
        math.log(2),
        "The mean over the labelled pixels; each has log 2.",
        _CE,
        1e-5,
        _value,
    ),
    Case(
        "B2b",
        "Class weights and void together",
        "The weighted cross-entropy of p = (1/4, 3/4), weights (1, 3), a quarter of the labelled pixels class 0, "
        "half of the image void.",
        "ce_loss",
        lambda _: _weighted(True),
        (4 * _LOG_4 + 36 * _LOG_4_3) / 40,
        "4 pixels of class 0 weigh 1, 12 of class 1 weigh 3: sum of w·loss over sum of w.",
        _CE,
        1e-5,
        _value,
    ),
    Case(
        "B2c",
        "Class weights are normalised twice or not at all",
        "The same with the void pixels labelled as class 0.",
        "ce_loss",
        lambda _: _weighted(False),
        (20 * _LOG_4 + 36 * _LOG_4_3) / 56,
        "20 pixels weigh 1, 12 weigh 3.",
        _CE,
        1e-5,
        _value,
    ),
    Case(
        "B3",
        "A drop-in cross-entropy that crashes",
        "The cross-entropy of p = (1/4, 3/4), 12 pixels of class 0 and 4 of class 1, no void, no option set.",
        "ce_loss",
        _plain,
        (12 * _LOG_4 + 4 * _LOG_4_3) / 16,
        "The mean of −log p over the pixels.",
        _CE,
        1e-5,
        _value,
    ),
    Case(
        "B4a",
        "The Dice loss writes into the masks",
        "The masks after a Dice loss.",
        "dice_loss",
        _perfect_but_void,
        _half_void(),
        "The next term of a sum of losses sees the same masks.",
        "PaddleSeg models/losses/dice_loss.py",
        0.0,
        _untouched,
    ),
    Case(
        "B4b",
        "The cross-entropy writes into the masks",
        "The masks after a cross-entropy.",
        "ce_loss",
        _uniform_half_void,
        _half_void(),
        "as B4a",
        "as B4a",
        0.0,
        _untouched,
    ),
    Case(
        "B5a",
        "Cross-entropy of nothing but void",
        "Value and largest gradient of a batch that is all void.",
        "ce_loss",
        _all_void,
        _NOTHING,
        "Nothing is learned of nothing: 0 with a gradient of zeros; NaN would end the run.",
        "pytorch/pytorch: CrossEntropyLoss gives NaN when all targets are ignored",
        1e-6,
        _size,
    ),
    Case(
        "B5b",
        "Dice of nothing but void",
        "The same for the Dice loss.",
        "dice_loss",
        _all_void,
        _NOTHING,
        "as B5a",
        _DICE,
        1e-6,
        _size,
    ),
    Case(
        "B5c",
        "Focal of nothing but void",
        "The same for the focal loss.",
        "focal_loss",
        _all_void,
        _NOTHING,
        "as B5a",
        "Lin et al. 2017, arXiv:1708.02002",
        1e-6,
        _size,
    ),
    Case(
        "B5d",
        "Lovász of nothing but void",
        "The same for the Lovász-softmax loss.",
        "lovasz_loss",
        _all_void,
        _NOTHING,
        "as B5a",
        "Berman et al. 2018, arXiv:1705.08790",
        1e-6,
        _size,
    ),
    Case(
        "B5e",
        "Void gets a gradient",
        "The largest gradient of the cross-entropy at a void pixel.",
        "ce_loss",
        _uniform_half_void,
        0.0,
        "Void counts in nothing, the gradient included.",
        _CE,
        1e-9,
        _void_gradient,
    ),
    Case(
        "B6",
        "Absent classes dilute the Dice loss",
        "How much the Dice loss of a prediction that is wrong at every pixel changes from 2 classes to 5, where neither "
        "truth nor prediction shows the other three.",
        "dice_loss",
        _totally_wrong,
        0.0,
        "The same pixels are as wrong, however many classes somebody listed. This is a convention: a mean over all K "
        "classes makes the same mistake cheaper for each class that is nowhere.",
        "house rule; Tilborghs et al. 2022, arXiv:2207.09521, on how the choices for empty labels differ",
        1e-3,
        _change,
    ),
    Case(
        "B7",
        "Parts of a batch do not add up (cross-entropy)",
        "The weighted cross-entropy of two micro-batches that make one step, 4 and 32 labelled pixels.",
        "accumulated_ce",
        _parts,
        (3 * 4 * _LOG_4_3 + 32 * _LOG_4) / (12 + 32),
        "The same as in one batch: sum of w·loss over sum of w of both.",
        _CE,
        1e-5,
    ),
    Case(
        "B8",
        "A file name chooses the class weights",
        "Whether the loss is the same where the same data set is called cityscapes.",
        "loss_settings",
        _named,
        True,
        "A name is no property of the images.",
        "Ultralytics 8.4, utils/loss.py",
        0.0,
        lambda _, answers: answers[0] == answers[1],
    ),
)
