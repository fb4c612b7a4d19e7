"""Chapter D: what augmentation and resizing do to a mask, and where decisions are taken."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from conformance.case import Case, Inputs

VOID = 255
_NEAREST = "half-pixel centres: PIL NEAREST, torch nearest-exact, OpenCV INTER_NEAREST_EXACT"


def _rotated(_: Path) -> tuple[Inputs, ...]:
    return (
        {
            "image": np.full((3, 32, 32), 90, np.uint8),
            "mask": np.ones((32, 32), np.uint8),
            "degrees": 45.0,
            "ignore_index": VOID,
        },
    )


def _corners(_: tuple[Inputs, ...], answers: list[Any]) -> Any:
    return np.asarray(answers[0])[[0, 0, -1, -1], [0, -1, 0, -1]]


def _padded(_: Path) -> tuple[Inputs, ...]:
    return (
        {
            "image": np.full((3, 8, 8), 90, np.uint8),
            "mask": np.ones((8, 8), np.uint8),
            "size": (16, 16),
            "ignore_index": VOID,
        },
    )


def _void_pixels(_: tuple[Inputs, ...], answers: list[Any]) -> Any:
    return np.array([int((np.asarray(answers[0]) == value).sum()) for value in (VOID, 1)])


def _seven(_: Path) -> tuple[Inputs, ...]:
    return ({"mask": np.arange(7, dtype=np.uint8)[None].repeat(7, 0), "size": (4, 4)},)


def _zero_and_two(_: Path) -> tuple[Inputs, ...]:
    mask = np.zeros((9, 9), np.uint8)
    mask[2:7, 3:8] = 2
    return ({"mask": mask, "size": (5, 5)},)


def _edge() -> NDArray[np.uint8]:
    mask = np.zeros((8, 8), np.uint8)
    mask[:, 3:] = 1
    return mask


def _pair(_: Path) -> tuple[Inputs, ...]:
    mask = _edge()
    return ({"image": (mask * 200)[None].repeat(3, 0), "mask": mask, "size": (14, 14)},)


def _apart(_: tuple[Inputs, ...], answers: list[Any]) -> Any:
    """Count the pixels where the image is bright and the mask says otherwise."""
    image, mask = answers[0]
    return int(((np.asarray(image)[0] > 100) != (np.asarray(mask) > 0)).sum())


def _two_values(_: Path) -> tuple[Inputs, ...]:
    return ({"logits": np.array([[[0.0, 1.0], [0.0, 1.0]]], np.float32), "size": (4, 4)},)


def coarse_logits() -> NDArray[np.float32]:
    """Draw logits (4, 12, 16) for an image of 48×64."""
    return np.random.default_rng(11).normal(size=(4, 12, 16)).astype(np.float32)


def enlarged(logits: NDArray[np.float32], size: tuple[int, int]) -> NDArray[np.float64]:
    """Interpolate (K, h, w) bilinearly with half-pixel centres, edges repeated: the definition, written out."""
    values = logits.astype(np.float64)
    for axis, new in ((1, size[0]), (2, size[1])):
        old = values.shape[axis]
        at = np.clip((np.arange(new) + 0.5) * old / new - 0.5, 0, old - 1)
        low = np.floor(at).astype(int)
        share = (at - low).reshape([-1 if a == axis else 1 for a in range(3)])
        high = np.minimum(low + 1, old - 1)
        values = np.take(values, low, axis) * (1 - share) + np.take(values, high, axis) * share
    return values


def _decided(_: Path) -> tuple[Inputs, ...]:
    return ({"logits": coarse_logits(), "size": (48, 64)},)


def _wrongly(_: tuple[Inputs, ...], answers: list[Any]) -> Any:
    """Give the share of pixels that are decided otherwise."""
    mask = np.asarray(answers[0])
    if mask.shape != (48, 64):
        return mask
    return float((mask != enlarged(coarse_logits(), (48, 64)).argmax(0)).mean())


def _bright(_: Path) -> tuple[Inputs, ...]:
    return ({"image": _grating(37, 53)},)


def _grating(height: int, width: int) -> NDArray[np.uint8]:
    """Draw an image whose pixels are bright or dark by a fixed rule, fine enough that no resizing keeps it."""
    rows, columns = np.indices((height, width))
    bright = ((rows // 3 + columns // 4) % 2).astype(np.uint8)
    return np.repeat((40 + 170 * bright)[None], 3, 0).astype(np.uint8)


def _misread(inputs: tuple[Inputs, ...], answers: list[Any]) -> Any:
    mask, wanted = np.asarray(answers[0]), (inputs[0]["image"][0] > 128).astype(np.uint8)
    return mask if mask.shape != wanted.shape else int((mask != wanted).sum())


def _photograph(_: Path) -> tuple[Inputs, ...]:
    return ({"image": np.random.default_rng(2).integers(0, 256, (3, 60, 80), np.uint8)},)


def _gap(_: tuple[Inputs, ...], answers: list[Any]) -> Any:
    training, serving = (np.asarray(a, np.float64) for a in answers[0])
    return float(np.abs(training - serving).max()) if training.shape == serving.shape else training


def _any_size(architecture: str) -> tuple[Inputs, ...]:
    return ({"architecture": architecture, "size": (61, 95)},)


_ANY = "Long et al. 2015, arXiv:1411.4038: correspondingly-sized output for arbitrary-sized input"

IDS = (
    Case(
        "C5",
        "Resizing invents a class",
        "The ids in a mask of 0 and 2 after resizing 9×9 to 5×5.",
        "resize_mask",
        _zero_and_two,
        np.array([0, 2]),
        "Between class 0 and class 2 there is no class 1.",
        "nearest neighbour",
        0.0,
        lambda _, answers: np.unique(answers[0]),
    ),
)

CASES = (
    Case(
        "D1a",
        "Turning fills with class 0",
        "The corners of a mask of class 1 that was turned by 45°.",
        "rotate_mask",
        _rotated,
        np.array([VOID] * 4),
        "Nobody labelled what lies outside: it is ignored.",
        "albumentations pull request 2245; torchvision issue 6568; kornia issue 3090",
        0.0,
        _corners,
    ),
    Case(
        "D1b",
        "Padding fills with class 0",
        "Pixels that are void and class 1 in a mask of 8×8 class 1, padded to 16×16.",
        "pad_mask",
        _padded,
        np.array([192, 64]),
        "as D1a",
        "as D1a",
        0.0,
        _void_pixels,
    ),
    Case(
        "D2a",
        "Nearest, rounded down",
        "Which of 7 columns are in a mask of 4.",
        "resize_mask",
        _seven,
        np.array([0, 2, 4, 6], np.uint8)[None].repeat(4, 0),
        "The centres of 4 lie at 0.875, 2.625, 4.375 and 6.125 of 7.",
        _NEAREST,
    ),
    Case(
        "D2b",
        "Labels slip against the image",
        "Pixels where a bright half and its mask disagree after resizing 8×8 to 14×14.",
        "resize_pair",
        _pair,
        0,
        "Image and mask are read at the same points.",
        _NEAREST,
        0.0,
        _apart,
    ),
    Case(
        "D3",
        "Corners aligned",
        "The values 0, 1 enlarged to 4.",
        "enlarge_logits",
        _two_values,
        np.array([[[0.0, 0.25, 0.75, 1.0]] * 4]),
        "Half-pixel centres lie at −0.25, 0.25, 0.75 and 1.25, held at the edges.",
        "torch.nn.functional.interpolate, align_corners=False; ONNX Resize half_pixel",
        1e-6,
    ),
    Case(
        "D4",
        "Decided first, enlarged then",
        "The share of pixels that are decided otherwise than by enlarging logits of 12×16 to 48×64 and then deciding.",
        "decide",
        _decided,
        0.0,
        "The network says probabilities, and those are interpolated; classes have no values between them.",
        "huggingface/transformers issue 44901",
        1e-3,
        _wrongly,
    ),
    Case(
        "D5",
        "Padding is not cut off",
        "Pixels decided wrongly in an image of 37×53 by a network that needs multiples of 32 and reads brightness off.",
        "predict_padded",
        _bright,
        0,
        "Padding is cut off at the logits; then every pixel keeps its place.",
        "Ultralytics pull request 24619",
        0.0,
        _misread,
    ),
    Case(
        "D6",
        "Training and serving resize differently",
        "The largest difference, of 255, between the pixels of one image in training and in prediction: resized to "
        "32×32, or at its own 60×80 where a library resizes nothing (the way says which).",
        "train_and_serve",
        _photograph,
        0.0,
        "The network learned from the pixels that it will see. To resize nothing is one way to get there, and an easier "
        "question.",
        "NVIDIA Model-Connect pull request 481",
        1.01,
        _gap,
    ),
    Case(
        "D7a",
        "A batch of one ends the epoch",
        "Whether DeepLabV3 gives a finite loss for a training batch of one image.",
        "train_on_one",
        lambda _: ({"architecture": "deeplabv3"},),
        True,
        "One image is a batch; norms behind a global pooling need not be asked for its variance.",
        "segmentation_models.pytorch and torchvision: “Expected more than 1 value per channel when training”",
    ),
    Case(
        "D7b",
        "The last batch is smaller",
        "The sizes of three batches of 2 from 5 images.",
        "batch_sizes",
        lambda folder: ({"folder": folder, "images": 5, "batch_size": 2, "count": 3},),
        np.array([2, 2, 2]),
        "A stream without an end has no last batch.",
        "torch.utils.data.DataLoader, drop_last",
    ),
    Case(
        "D8a",
        "Only multiples of 32",
        "The size of a U-Net's answer for 61×95.",
        "any_size",
        lambda _: _any_size("unet"),
        np.array([61, 95]),
        "A class for each pixel.",
        _ANY,
    ),
    Case(
        "D8b",
        "Only multiples of 16",
        "The same for DeepLabV3.",
        "any_size",
        lambda _: _any_size("deeplabv3"),
        np.array([61, 95]),
        "as D8a",
        _ANY,
    ),
    Case(
        "D8c",
        "A quarter of the size",
        "The same for SegFormer.",
        "any_size",
        lambda _: _any_size("segformer"),
        np.array([61, 95]),
        "as D8a",
        _ANY,
    ),
)
