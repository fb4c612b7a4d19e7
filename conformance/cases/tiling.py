"""Chapter E: tiled prediction, with networks whose output is known everywhere.

The networks are functions from image tensors (B, C, h, w) to logits (B, 2, h, w).
"""

from __future__ import annotations

import inspect
import math
from pathlib import Path
from typing import Any

import numpy as np

from conformance.case import Case, Inputs
from conformance.cases.geometry import wrong_pixels

_LOGIT = 4.0


def constant(images: Any) -> Any:
    """Return p(1) = 0.75 everywhere."""
    import torch

    logits = torch.zeros(images.shape[0], 2, *images.shape[-2:])
    logits[:, 1] = math.log(3)
    return logits


def threshold(images: Any) -> Any:
    """Return class 1 where a pixel is above 128."""
    import torch

    grey = (images[:, 0].float() - 128) / 16
    return torch.stack([-grey, grey], 1)


def first_pixel(images: Any) -> Any:
    """Return class 1 for the whole tile if its first pixel is bright, else class 0."""
    import torch

    sign = torch.where(images[:, :1, :1, :1].float() > 128, 1.0, -1.0)
    return torch.cat([-sign, sign], 1).expand(-1, -1, *images.shape[-2:]) * _LOGIT


def unequal_first_pixel(images: Any) -> Any:
    """Return logits (0, 2) if the first pixel is bright, else (10, 0)."""
    import torch

    bright = images[:, :1, :1, :1].float() > 128
    logits = torch.cat([torch.where(bright, 0.0, 10.0), torch.where(bright, 2.0, 0.0)], 1)
    return logits.expand(-1, -1, *images.shape[-2:])


def against_mean(images: Any) -> Any:
    """Compare each pixel with the mean of the tile, like a normalisation layer."""
    import torch

    grey = (images[:, 0].float() - images[:, 0].float().mean((1, 2), keepdim=True)) / 16
    return torch.stack([-grey, grey], 1)


def _call(image: Any, network: Any, tile: tuple[int, int], overlap: float, batch: int = 1) -> Inputs:
    return {"image": image, "network": network, "tile": tile, "overlap": overlap, "batch_size": batch}


def _two_tiles() -> Any:
    """Return an image of 128×192 with two tiles of 128×128: the first begins dark, the second bright."""
    image = np.full((1, 128, 192), 20, np.uint8)
    image[:, :, 64:] = 220
    return image


def _steps(answers: list[Any], rows: slice) -> float:
    """Return the largest step between neighbouring columns as a share of the difference of the two tiles."""
    share = np.asarray(answers[0], np.float64)[1, rows]
    difference = 1 / (1 + math.exp(-2 * _LOGIT)) * 2 - 1
    return float(np.abs(np.diff(share, axis=1)).max() / difference)


def _middle(_: tuple[Inputs, ...], answers: list[Any]) -> Any:
    """Return p(0) where both tiles have equal weight: between columns 95 and 96."""
    share = np.asarray(answers[0], np.float64)[0, 64]
    return float((share[95] + share[96]) / 2)


def _flat(_: tuple[Inputs, ...], answers: list[Any]) -> Any:
    return np.asarray(answers[0], np.float64)[1]


def _line(_: Path) -> tuple[Inputs, ...]:
    image = np.full((3, 40, 700), 20, np.uint8)
    image[:, 17, :] = 220
    image[:, :, 333] = 220
    return ({"image": image, "network": threshold},)


def _noise(height: int, width: int) -> Any:
    return np.random.default_rng(5).integers(0, 256, (1, height, width), np.uint8)


def _small(_: Path) -> tuple[Inputs, ...]:
    return (_call(_noise(40, 50), against_mean, (64, 64), 0.25),)


def _as_whole(inputs: tuple[Inputs, ...], answers: list[Any]) -> Any:
    import torch

    whole = against_mean(torch.from_numpy(inputs[0]["image"])[None]).softmax(1)[0].numpy()
    return float(np.abs(np.asarray(answers[0], np.float64) - whole).max())


def _batches(_: Path) -> tuple[Inputs, ...]:
    return tuple(_call(_noise(100, 130), against_mean, (64, 64), 0.5, batch) for batch in (1, 5))


def _change(_: tuple[Inputs, ...], answers: list[Any]) -> Any:
    return float(np.abs(np.asarray(answers[0], np.float64) - np.asarray(answers[1], np.float64)).max())


def _mistyped(_: tuple[Inputs, ...], answers: list[Any]) -> Any:
    """Count the parameters whose default is a tuple although their annotation does not allow one."""
    parameters = inspect.signature(answers[0]).parameters.values()
    wrong = [p.name for p in parameters if isinstance(p.default, tuple) and not _takes_tuples(str(p.annotation))]
    return len(wrong)


def _takes_tuples(annotation: str) -> bool:
    return any(word in annotation.lower() for word in ("tuple", "sequence", "collection", "iterable", "any"))


_GAUSSIAN = "Isensee et al. 2021, nnU-Net, Nature Methods 18: Gaussian weights, sigma = tile / 8"

CASES = (
    Case(
        "E1a",
        "Seams between tiles",
        "The largest step between neighbouring pixels where two contradicting tiles of 128 overlap by 64, as a share of "
        "their difference.",
        "tiled",
        lambda _: (_call(_two_tiles(), first_pixel, (128, 128), 0.5),),
        0.0,
        "Weights that decrease towards the border blend the tiles, Gaussian weights in steps of at most 1/16. A plain mean "
        "jumps by 1/2.",
        _GAUSSIAN,
        0.1,
        lambda _, answers: _steps(answers, slice(32, 96)),
    ),
    Case(
        "E1b",
        "Seams at the image's edge",
        "The same in the outermost row of the image, where all weights are small.",
        "tiled",
        lambda _: (_call(_two_tiles(), first_pixel, (128, 128), 0.5),),
        0.0,
        "Only the ratio of the weights matters; a lower bound on them gives a plain mean at the edge.",
        _GAUSSIAN,
        0.1,
        lambda _, answers: _steps(answers, slice(0, 1)),
    ),
    Case(
        "E2",
        "Logits are averaged",
        "p(0) midway between a tile with logits (10, 0) and one with (0, 2).",
        "tiled",
        lambda _: (_call(_two_tiles(), unequal_first_pixel, (128, 128), 0.5),),
        (1 / (1 + math.exp(-10)) + 1 / (1 + math.exp(2))) / 2,
        "The mean of the two probabilities, 0.560. The mean of the logits gives 0.982: large logits dominate.",
        "nnU-Net issue 2763",
        2e-3,
        _middle,
    ),
    Case(
        "E3",
        "The overlap count overflows",
        "p(1) where up to 441 tiles overlap, with a network that always returns 0.75.",
        "tiled",
        lambda _: (_call(_noise(150, 150), constant, (64, 64), 0.95, 16),),
        np.full((150, 150), 0.75),
        "The mean of equal values is that value; an int8 count overflows at 127.",
        "DINOv3 eval/segmentation/inference.py",
        1e-4,
        _flat,
    ),
    Case(
        "E4",
        "Every image is resized to a square",
        "The number of wrong pixels in an image of 40×700 with lines one pixel wide, with a network that thresholds brightness.",
        "decide_image",
        _line,
        0,
        "The network classifies each pixel independently: at native size all are right.",
        "DINOv3 eval/segmentation/inference.py, mode whole",
        0.0,
        wrong_pixels,
    ),
    Case(
        "E5",
        "All logits of an image at once",
        "The largest buffer as a share of K·H·W for predicting a mask of 2048×128 pixels, K = 16, with tiles of 128.",
        "largest_buffer",
        lambda _: ({"size": (2048, 128), "num_classes": 16, "tile": (128, 128)},),
        0.0,
        "A mask only needs one row of tiles at a time: 2/16 of the image.",
        "MONAI pull request 9071",
        0.2,
    ),
    Case(
        "E6",
        "Windows with a step of zero",
        "p(1) of an image of 65×63 with tiles of 64 and an overlap of 0.99, with a network that always returns 0.75.",
        "tiled",
        lambda _: (_call(_noise(65, 63), constant, (64, 64), 0.99),),
        np.full((65, 63), 0.75),
        "Every pixel is covered, regardless of rounding.",
        "MONAI issue 906",
        1e-4,
        _flat,
    ),
    Case(
        "E7a",
        "The number of tiles per batch changes the result",
        "The largest change of a probability between 1 and 5 tiles per batch.",
        "tiled",
        _batches,
        0.0,
        "Tiles are independent.",
        "mmsegmentation slide_inference",
        1e-5,
        _change,
    ),
    Case(
        "E7b",
        "Padding of a small image changes the result",
        "The largest change of a probability against the untiled image, 40×50 with tiles of 64, with a network that depends "
        "on the mean of its input.",
        "tiled",
        _small,
        0.0,
        "An image that fits into one tile is predicted as a whole.",
        "MONAI sliding_window_inference, padding_mode",
        1e-4,
        _as_whole,
    ),
    Case(
        "E8",
        "Defaults of a wrong type",
        "The number of tiling parameters whose default is accidentally a tuple.",
        "tiling_settings",
        lambda _: ({},),
        0,
        "`(4,)` is not an int, and `(False,)` is truthy.",
        "TerraTorch, TiledInferenceParameters",
        0.0,
        _mistyped,
    ),
)
