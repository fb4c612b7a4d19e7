"""Chapter I: mistakes in widely copied tutorials."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from conformance.case import Case, ExpectedError, Inputs
from conformance.cases.metrics import six_images

_IGNORE = 255


def _unet(up: str) -> tuple[Inputs, ...]:
    return ({"up": up, "channels": 3, "classes": 2},)


def _some_ignored(_: Path) -> tuple[Inputs, ...]:
    logits = np.zeros((1, 2, 2, 4), np.float32)
    masks = np.array([[[0, 0, 0, _IGNORE], [1, 1, 1, _IGNORE]]], np.int64)
    return ({"logits": logits, "masks": masks, "ignore_index": _IGNORE},)


def _batched(_: Path) -> tuple[Inputs, ...]:
    truths, predictions = six_images()
    return tuple(
        {"truths": truths, "predictions": predictions, "num_classes": 6, "batch_size": size} for size in (1, 3)
    )


def _change(_: tuple[Inputs, ...], answers: list[Any]) -> Any:
    return float(answers[0]) - float(answers[1])


def _eighty(_: Path) -> tuple[Inputs, ...]:
    """Return a mask of 20×20 with 80 % background and two other classes of 10 %."""
    truth = np.zeros((20, 20), np.uint8)
    truth[:2], truth[2:4] = 1, 2
    return ({"truths": [truth], "num_classes": 3},)


def _masks_of(*shape: int) -> Inputs:
    return {"logits": np.zeros((2, 3, 4, 4), np.float32), "masks": np.zeros(shape, np.int64), "ignore_index": None}


def _ids(_: Path) -> tuple[Inputs, ...]:
    return ({"mask": np.array([[0, 1, 2, 3], [3, 2, 1, _IGNORE]] * 4, np.uint8).repeat(2, 1)},)


CASES = (
    Case(
        "I1a",
        "A U-Net that raises an error",
        "The number of parameters of the U-Net of 2015 (64…1024, batch norm, transposed convolutions, 3 bands, 2 classes), "
        "after a forward pass.",
        "unet_parameters",
        lambda _: _unet("transposed"),
        31_037_698,
        "The decoder's input has the channels of skip connection and upsampling; no bias before batch norm.",
        "Ronneberger et al. 2015, arXiv:1505.04597",
    ),
    Case(
        "I1b",
        "A bilinear U-Net that raises an error",
        "The same with bilinear upsampling and no reduction of channels.",
        "unet_parameters",
        lambda _: _unet("bilinear"),
        31_384_898,
        "The first decoder block has 512 + 1024 input channels, and so on.",
        "as I1a",
    ),
    Case(
        "I2",
        "No auxiliary output, unwanted download",
        "The number of auxiliary outputs of a DeepLabV3 in training mode, built without network access.",
        "auxiliary_outputs",
        lambda _: ({},),
        1,
        "The auxiliary head is present in training, and weights are only downloaded on request.",
        "torchvision, deeplabv3_resnet50: aux_loss, weights_backbone",
    ),
    Case(
        "I3",
        "A Dice loss that crashes on 255",
        "The Dice loss of p = 1/2 everywhere, with 3 pixels of each of two classes and 2 ignored pixels.",
        "dice_loss",
        _some_ignored,
        0.5,
        "2·(3/2) / (3 + 3) for both classes.",
        "Milletari et al. 2016, arXiv:1606.04797",
        1e-4,
        lambda _, answers: answers[0]["value"],
    ),
    Case(
        "I4a",
        "A mean over batches called mIoU",
        "The difference of the mIoU of the images of A0 between batches of 1 and batches of 3.",
        "miou_batched",
        _batched,
        0.0,
        "The mIoU of a data set does not depend on the batches.",
        "torchmetrics issue 2558",
        1e-6,
        _change,
    ),
    Case(
        "I4b",
        "High pixel accuracy for predicting background",
        "The pixel accuracy and the mIoU of predicting background everywhere, for 80 % background and two classes of 10 %.",
        "constant_guess",
        _eighty,
        np.array([0.8, 0.8 / 3]),
        "80 % of the pixels are right; the IoUs are 0.8, 0 and 0.",
        "Long et al. 2015, arXiv:1411.4038, section 5",
        1e-6,
    ),
    Case(
        "I5a",
        "Masks with a channel axis",
        "The cross-entropy of logits (2, 3, 4, 4) with masks (2, 1, 4, 4).",
        "ce_loss",
        lambda _: (_masks_of(2, 1, 4, 4),),
        ExpectedError(),
        "Broadcasting would give a meaningless number.",
        "torch.nn.CrossEntropyLoss",
        0.0,
        lambda _, answers: answers[0]["value"],
        control=lambda _: _masks_of(2, 4, 4),
    ),
    Case(
        "I5b",
        "ToTensor on a mask",
        "The ids of a mask converted to a tensor.",
        "mask_to_tensor",
        _ids,
        np.array([[0, 1, 2, 3], [3, 2, 1, _IGNORE]] * 4).repeat(2, 1),
        "Ids are not intensities: they are not divided by 255.",
        "torchvision, ToTensor",
    ),
)
