"""Chapter E: images larger than what a network takes at once, with networks whose answer is known everywhere.

The networks are functions from images (B, C, h, w) to logits (B, 2, h, w), both tensors, so that any library can call
them.
"""

from __future__ import annotations

import inspect
import math
from pathlib import Path
from typing import Any

import numpy as np

from conformance.case import Case, Inputs

_SURE = 4.0


def one_value(images: Any) -> Any:
    """Answer p(1) = 0.75 wherever it looks."""
    import torch

    logits = torch.zeros(images.shape[0], 2, *images.shape[-2:])
    logits[:, 1] = math.log(3)
    return logits


def own_pixel(images: Any) -> Any:
    """Decide each pixel by its own brightness: class 1 above 128."""
    import torch

    grey = (images[:, 0].float() - 128) / 16
    return torch.stack([-grey, grey], 1)


def own_corner(images: Any) -> Any:
    """Answer for the whole piece what its first pixel says: class 1 where it is bright, class 0 where it is dark."""
    import torch

    sign = torch.where(images[:, :1, :1, :1].float() > 128, 1.0, -1.0)
    return torch.cat([-sign, sign], 1).expand(-1, -1, *images.shape[-2:]) * _SURE


def one_sided(images: Any) -> Any:
    """Answer by the first pixel: logits (10, 0) where it is dark, (0, 2) where it is bright."""
    import torch

    bright = images[:, :1, :1, :1].float() > 128
    logits = torch.cat([torch.where(bright, 0.0, 10.0), torch.where(bright, 2.0, 0.0)], 1)
    return logits.expand(-1, -1, *images.shape[-2:])


def own_mean(images: Any) -> Any:
    """Compare each pixel with the mean of the piece that it sees, as every norm over an image does."""
    import torch

    grey = (images[:, 0].float() - images[:, 0].float().mean((1, 2), keepdim=True)) / 16
    return torch.stack([-grey, grey], 1)


def _call(image: Any, network: Any, tile: tuple[int, int], overlap: float, batch: int = 1) -> Inputs:
    return {"image": image, "network": network, "tile": tile, "overlap": overlap, "batch_size": batch}


def _two_tiles() -> Any:
    """Give an image of 128×192 whose first tile of 128×128 begins dark, and whose second, 64 on, begins bright."""
    image = np.full((1, 128, 192), 20, np.uint8)
    image[:, :, 64:] = 220
    return image


def _steps(answers: list[Any], rows: slice) -> float:
    """Give the largest step between neighbouring columns as a share of how far the two tiles are apart."""
    share = np.asarray(answers[0], np.float64)[1, rows]
    apart = 1 / (1 + math.exp(-2 * _SURE)) * 2 - 1
    return float(np.abs(np.diff(share, axis=1)).max() / apart)


def _middle(_: tuple[Inputs, ...], answers: list[Any]) -> Any:
    """Give p(0) where both tiles weigh the same: between columns 95 and 96."""
    share = np.asarray(answers[0], np.float64)[0, 64]
    return float((share[95] + share[96]) / 2)


def _flat(_: tuple[Inputs, ...], answers: list[Any]) -> Any:
    return np.asarray(answers[0], np.float64)[1]


def _line(_: Path) -> tuple[Inputs, ...]:
    image = np.full((3, 40, 700), 20, np.uint8)
    image[:, 17, :] = 220
    image[:, :, 333] = 220
    return ({"image": image, "network": own_pixel},)


def _misread(inputs: tuple[Inputs, ...], answers: list[Any]) -> Any:
    mask, wanted = np.asarray(answers[0]), (inputs[0]["image"][0] > 128).astype(np.uint8)
    return mask if mask.shape != wanted.shape else int((mask != wanted).sum())


def _noise(height: int, width: int) -> Any:
    return np.random.default_rng(5).integers(0, 256, (1, height, width), np.uint8)


def _small(_: Path) -> tuple[Inputs, ...]:
    return (_call(_noise(40, 50), own_mean, (64, 64), 0.25),)


def _as_whole(inputs: tuple[Inputs, ...], answers: list[Any]) -> Any:
    import torch

    whole = own_mean(torch.from_numpy(inputs[0]["image"])[None]).softmax(1)[0].numpy()
    return float(np.abs(np.asarray(answers[0], np.float64) - whole).max())


def _batches(_: Path) -> tuple[Inputs, ...]:
    return tuple(_call(_noise(100, 130), own_mean, (64, 64), 0.5, batch) for batch in (1, 5))


def _change(_: tuple[Inputs, ...], answers: list[Any]) -> Any:
    return float(np.abs(np.asarray(answers[0], np.float64) - np.asarray(answers[1], np.float64)).max())


def _mistyped(_: tuple[Inputs, ...], answers: list[Any]) -> Any:
    """Count parameters whose default is a tuple where the annotation knows none."""
    parameters = inspect.signature(answers[0]).parameters.values()
    odd = [p.name for p in parameters if isinstance(p.default, tuple) and not _takes_tuples(str(p.annotation))]
    return len(odd)


def _takes_tuples(annotation: str) -> bool:
    return any(word in annotation.lower() for word in ("tuple", "sequence", "collection", "iterable", "any"))


_GAUSSIAN = "Isensee et al. 2021, nnU-Net, Nature Methods 18: Gaussian weights, sigma = tile / 8"

CASES = (
    Case(
        "E1a",
        "Seams between tiles",
        "The largest step from pixel to pixel where two tiles of 128 that disagree wholly share 64, as a share "
        "of their disagreement.",
        "tiled",
        lambda _: (_call(_two_tiles(), own_corner, (128, 128), 0.5),),
        0.0,
        "Weights that fall towards the border pass from one tile to the other; Gaussian ones in steps of at most "
        "1/16. A plain mean jumps by half.",
        _GAUSSIAN,
        0.1,
        lambda _, answers: _steps(answers, slice(32, 96)),
    ),
    Case(
        "E1b",
        "Seams at the image's edge",
        "The same in the outermost rows of the image, where every weight is small.",
        "tiled",
        lambda _: (_call(_two_tiles(), own_corner, (128, 128), 0.5),),
        0.0,
        "Small weights have the same ratio as large ones; a floor under them makes a plain mean of the edge.",
        _GAUSSIAN,
        0.1,
        lambda _, answers: _steps(answers, slice(0, 1)),
    ),
    Case(
        "E2",
        "Logits are averaged",
        "p(0) half-way between a tile with logits (10, 0) and one with (0, 2).",
        "tiled",
        lambda _: (_call(_two_tiles(), one_sided, (128, 128), 0.5),),
        (1 / (1 + math.exp(-10)) + 1 / (1 + math.exp(2))) / 2,
        "The mean of the two probabilities, 0.560. The mean of the logits says 0.982, for who shouts outvotes "
        "who speaks.",
        "nnU-Net issue 2763",
        2e-3,
        _middle,
    ),
    Case(
        "E3",
        "The count of overlaps runs over",
        "p(1) where each pixel is seen up to 441 times, by a network that always says 0.75.",
        "tiled",
        lambda _: (_call(_noise(150, 150), one_value, (64, 64), 0.95, 16),),
        np.full((150, 150), 0.75),
        "A mean of equal values is that value; an int8 ends at 127.",
        "DINOv3 eval/segmentation/inference.py",
        1e-4,
        _flat,
    ),
    Case(
        "E4",
        "Any image is squashed to a square",
        "Pixels decided wrongly in an image of 40×700 with lines of one pixel, by a network that reads brightness off.",
        "decide_picture",
        _line,
        0,
        "The network decides each pixel by itself: at native size all are right.",
        "DINOv3 eval/segmentation/inference.py, mode whole",
        0.0,
        _misread,
    ),
    Case(
        "E5",
        "All logits of an image at once",
        "The largest buffer as a share of K·H·W, for the mask of 2048×128 pixels, K = 16, tiles of 128.",
        "largest_buffer",
        lambda _: ({"size": (2048, 128), "num_classes": 16, "tile": (128, 128)},),
        0.0,
        "For a mask a row of tiles is enough: 2/16 of it, and nothing more.",
        "MONAI pull request 9071",
        0.2,
    ),
    Case(
        "E6",
        "Windows that do not move",
        "p(1) of an image of 65×63 with tiles of 64 and an overlap of 0.99, by a network that always says 0.75.",
        "tiled",
        lambda _: (_call(_noise(65, 63), one_value, (64, 64), 0.99),),
        np.full((65, 63), 0.75),
        "Every pixel is covered, whatever the rounding.",
        "MONAI issue 906",
        1e-4,
        _flat,
    ),
    Case(
        "E7a",
        "The batch of tiles changes the answer",
        "The largest change of a probability from 1 to 5 tiles at once.",
        "tiled",
        _batches,
        0.0,
        "Tiles do not know of each other.",
        "mmsegmentation slide_inference",
        1e-5,
        _change,
    ),
    Case(
        "E7b",
        "What is padded around a small image is seen",
        "The largest change of a probability against the whole image, 40×50 with tiles of 64, by a network "
        "that knows the mean of what it sees.",
        "tiled",
        _small,
        0.0,
        "An image that fits into a tile is the tile.",
        "MONAI sliding_window_inference, padding_mode",
        1e-4,
        _as_whole,
    ),
    Case(
        "E8",
        "Defaults of another type",
        "The number of the tiling's parameters whose default is a tuple by mistake.",
        "tiling_settings",
        lambda _: ({},),
        0,
        "`(4,)` is no int, and `(False,)` is true.",
        "TerraTorch, TiledInferenceParameters",
        0.0,
        _mistyped,
    ),
)
