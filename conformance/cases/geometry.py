"""Chapter D: augmentation and resizing of masks, and the order of upsampling and argmax."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from conformance.case import Case, Inputs

IGNORE = 255
_NEAREST = "half-pixel centres: PIL NEAREST, torch nearest-exact, OpenCV INTER_NEAREST_EXACT"


def _rotated(_: Path) -> tuple[Inputs, ...]:
    return (
        {
            "image": np.full((3, 32, 32), 90, np.uint8),
            "mask": np.ones((32, 32), np.uint8),
            "degrees": 45.0,
            "ignore_index": IGNORE,
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
            "ignore_index": IGNORE,
        },
    )


def _counts(_: tuple[Inputs, ...], answers: list[Any]) -> Any:
    return np.array([int((np.asarray(answers[0]) == value).sum()) for value in (IGNORE, 1)])


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


def _disagreement(_: tuple[Inputs, ...], answers: list[Any]) -> Any:
    """Count the pixels where image and mask disagree."""
    image, mask = answers[0]
    return int(((np.asarray(image)[0] > 100) != (np.asarray(mask) > 0)).sum())


def _two_values(_: Path) -> tuple[Inputs, ...]:
    return ({"logits": np.array([[[0.0, 1.0], [0.0, 1.0]]], np.float32), "size": (4, 4)},)


def coarse_logits() -> NDArray[np.float32]:
    """Return random logits (4, 12, 16) for an image of 48×64."""
    return np.random.default_rng(11).normal(size=(4, 12, 16)).astype(np.float32)


def enlarged(logits: NDArray[np.float32], size: tuple[int, int]) -> NDArray[np.float64]:
    """Interpolate (K, h, w) bilinearly with half-pixel centres and repeated edges, by the definition."""
    values = logits.astype(np.float64)
    for axis, new in ((1, size[0]), (2, size[1])):
        old = values.shape[axis]
        position = np.clip((np.arange(new) + 0.5) * old / new - 0.5, 0, old - 1)
        low = np.floor(position).astype(int)
        weight = (position - low).reshape([-1 if a == axis else 1 for a in range(3)])
        high = np.minimum(low + 1, old - 1)
        values = np.take(values, low, axis) * (1 - weight) + np.take(values, high, axis) * weight
    return values


def _coarse(_: Path) -> tuple[Inputs, ...]:
    return ({"logits": coarse_logits(), "size": (48, 64)},)


def _wrong_share(_: tuple[Inputs, ...], answers: list[Any]) -> Any:
    """Return the share of pixels with another class."""
    mask = np.asarray(answers[0])
    if mask.shape != (48, 64):
        return mask
    return float((mask != enlarged(coarse_logits(), (48, 64)).argmax(0)).mean())


def _bright(_: Path) -> tuple[Inputs, ...]:
    return ({"image": _grating(37, 53)},)


def _grating(height: int, width: int) -> NDArray[np.uint8]:
    """Return an image of bright and dark cells, too small to survive resizing."""
    rows, columns = np.indices((height, width))
    bright = ((rows // 3 + columns // 4) % 2).astype(np.uint8)
    return np.repeat((40 + 170 * bright)[None], 3, 0).astype(np.uint8)


def wrong_pixels(inputs: tuple[Inputs, ...], answers: list[Any]) -> Any:
    """Count the pixels that differ from the image thresholded at 128; a mask of another size is returned as is."""
    mask, expected = np.asarray(answers[0]), (inputs[0]["image"][0] > 128).astype(np.uint8)
    return mask if mask.shape != expected.shape else int((mask != expected).sum())


def _photograph(_: Path) -> tuple[Inputs, ...]:
    return ({"image": np.random.default_rng(2).integers(0, 256, (3, 60, 80), np.uint8)},)


def _largest_difference(_: tuple[Inputs, ...], answers: list[Any]) -> Any:
    training, serving = (np.asarray(a, np.float64) for a in answers[0])
    return float(np.abs(training - serving).max()) if training.shape == serving.shape else training


def _any_size(architecture: str) -> tuple[Inputs, ...]:
    return ({"architecture": architecture, "size": (61, 95)},)


_ANY = "Long et al. 2015, arXiv:1411.4038: correspondingly-sized output for arbitrary-sized input"

IDS = (
    Case(
        "C5",
        "Resizing invents a class",
        "The ids in a mask of 0 and 2 after resizing from 9×9 to 5×5.",
        "resize_mask",
        _zero_and_two,
        np.array([0, 2]),
        "Class 1 does not lie between classes 0 and 2: ids must not be interpolated.",
        "nearest neighbour",
        0.0,
        lambda _, answers: np.unique(answers[0]),
    ),
)

CASES = (
    Case(
        "D1a",
        "Rotation fills with class 0",
        "The corners of a mask of class 1 after rotation by 45°.",
        "rotate_mask",
        _rotated,
        np.array([IGNORE] * 4),
        "The area outside the image has no label, so it is ignored.",
        "albumentations pull request 2245; torchvision issue 6568; kornia issue 3090",
        0.0,
        _corners,
    ),
    Case(
        "D1b",
        "Padding fills with class 0",
        "The numbers of ignored pixels and of pixels of class 1 after padding a mask of class 1 from 8×8 to 16×16.",
        "pad_mask",
        _padded,
        np.array([192, 64]),
        "As in D1a.",
        "as D1a",
        0.0,
        _counts,
    ),
    Case(
        "D2a",
        "Nearest neighbour, rounded down",
        "The columns selected when a mask is resized from 7 to 4.",
        "resize_mask",
        _seven,
        np.array([0, 2, 4, 6], np.uint8)[None].repeat(4, 0),
        "The pixel centres are at 0.875, 2.625, 4.375 and 6.125 of 7.",
        _NEAREST,
    ),
    Case(
        "D2b",
        "Mask shifted against the image",
        "The number of pixels where a bright area and its mask disagree after resizing from 8×8 to 14×14.",
        "resize_pair",
        _pair,
        0,
        "Image and mask are sampled at the same points.",
        _NEAREST,
        0.0,
        _disagreement,
    ),
    Case(
        "D3",
        "Corners aligned",
        "The values 0 and 1 upsampled to four.",
        "enlarge_logits",
        _two_values,
        np.array([[[0.0, 0.25, 0.75, 1.0]] * 4]),
        "Half-pixel centres are at −0.25, 0.25, 0.75 and 1.25, clamped at the edges.",
        "torch.nn.functional.interpolate, align_corners=False; ONNX Resize half_pixel",
        1e-6,
    ),
    Case(
        "D4",
        "Argmax before upsampling",
        "The share of pixels that differ from the argmax of logits of 12×16 upsampled to 48×64.",
        "decide",
        _coarse,
        0.0,
        "Logits can be interpolated; class indices cannot.",
        "huggingface/transformers issue 44901",
        1e-3,
        _wrong_share,
    ),
    Case(
        "D5",
        "Padding is not removed",
        "The number of wrong pixels in an image of 37×53 with a network that needs multiples of 32 and thresholds brightness.",
        "predict_padded",
        _bright,
        0,
        "The padding is cropped from the logits, so every pixel keeps its position.",
        "Ultralytics pull request 24619",
        0.0,
        wrong_pixels,
    ),
    Case(
        "D6",
        "Training and prediction resize differently",
        "The largest difference, on a scale of 255, between the pixels of one image in training and in prediction: resized "
        "to 32×32, or at the original 60×80 if a library does not resize (see the way).",
        "train_and_serve",
        _photograph,
        0.0,
        "A network needs the same preprocessing in training and prediction. Not resizing is one way to ensure this, and an "
        "easier test.",
        "NVIDIA Model-Connect pull request 481",
        1.01,
        _largest_difference,
    ),
    Case(
        "D7a",
        "A batch of one raises an error",
        "Whether DeepLabV3 has a finite loss for a training batch of one image.",
        "train_on_one",
        lambda _: ({"architecture": "deeplabv3"},),
        True,
        "One image is a valid batch; only the norm after global pooling has no variance to compute.",
        "segmentation_models.pytorch and torchvision: “Expected more than 1 value per channel when training”",
    ),
    Case(
        "D7b",
        "The last batch is smaller",
        "The sizes of three batches of 2 drawn from 5 images.",
        "batch_sizes",
        lambda folder: ({"folder": folder, "images": 5, "batch_size": 2, "count": 3},),
        np.array([2, 2, 2]),
        "An endless stream has no last batch.",
        "torch.utils.data.DataLoader, drop_last",
    ),
    Case(
        "D8a",
        "Only multiples of 32",
        "The output size of a U-Net for an image of 61×95.",
        "any_size",
        lambda _: _any_size("unet"),
        np.array([61, 95]),
        "One class for each pixel.",
        _ANY,
    ),
    Case(
        "D8b",
        "Only multiples of 16",
        "The same for DeepLabV3.",
        "any_size",
        lambda _: _any_size("deeplabv3"),
        np.array([61, 95]),
        "As in D8a.",
        _ANY,
    ),
    Case(
        "D8c",
        "Output at a quarter of the size",
        "The same for SegFormer.",
        "any_size",
        lambda _: _any_size("segformer"),
        np.array([61, 95]),
        "As in D8a.",
        _ANY,
    ),
)
