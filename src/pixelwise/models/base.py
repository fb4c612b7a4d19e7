"""What every network promises: raw pixel values of any size in, logits of the same size out.

Comes in: images (B, C, H, W) in any numeric type, as their files gave them. Goes out: logits (B, K, H, W) float32. Knows
nothing of losses, metrics, tiles or classes' names: a model is pure.
"""

from __future__ import annotations

import abc
import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pixelwise.errors import ConfigError, DataError
from pixelwise.tiles import padded


class SegmentationModel(nn.Module, abc.ABC):
    """Turn raw pixel values into logits of the same height and width, whatever they are.

    The first layer, `normalise`, belongs to the model, so that no exporter, server or page can get it wrong. A training
    batch of one picture works from 2 × `stride` pixels per side on (batch norm needs two values per channel).

    Args:
        in_channels: C, bands per picture.
        num_classes: K.
        stride: pixels after which the network sees the same thing again; tiles that start at its multiples agree with
            the whole picture away from their borders.
        mean, std: per band, raw pixel values; 0 and 1 where not given.

    Raises:
        ConfigError: a count below 1, or `mean` and `std` that do not fit the bands.
    """

    # The part that makes the logits; training may move it faster than the rest.
    head: nn.Module

    def __init__(
        self,
        in_channels: int,
        num_classes: int,
        stride: int,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
    ) -> None:
        super().__init__()
        for name, value in (("in_channels", in_channels), ("num_classes", num_classes)):
            if value < 1:
                raise ConfigError(f"model.{name}", expected="at least 1", found=str(value), do="Correct the value.")
        self.in_channels, self.num_classes, self.stride = in_channels, num_classes, stride
        self.normalise = Normalise(in_channels, mean, std)

    @abc.abstractmethod
    def forward(self, images: Tensor) -> Tensor:
        """Give logits (B, K, H, W) float32 for images (B, C, H, W) of raw values, any numeric type, any H, W ≥ 1.

        Raises:
            DataError: not four axes, another number of bands, or no pixels.
        """


class Normalise(nn.Module):
    """Bring raw pixel values to float32 with mean 0 and standard deviation 1 per band: (x - mean) / std.

    Args:
        channels: C.
        mean, std: per band, raw pixel values; kept as buffers, so they travel with the weights.

    Raises:
        ConfigError: not one finite value per band, or a `std` that is not positive.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, channels: int, mean: Sequence[float] | None = None, std: Sequence[float] | None = None) -> None:
        super().__init__()
        self.channels = channels
        for name, values, neutral in (("mean", mean, 0.0), ("std", std, 1.0)):
            given = [neutral] * channels if values is None else [float(v) for v in values]
            if len(given) != channels or not all(math.isfinite(v) and (v > 0 or name == "mean") for v in given):
                raise ConfigError(
                    f"model.{name}",
                    expected=f"{channels} {'positive' if name == 'std' else 'finite'} values, one per band",
                    found=str(given),
                    do="Give one value per band in raw pixel values, or leave the key out.",
                )
            self.register_buffer(name, torch.tensor(given, dtype=torch.float32))

    def forward(self, images: Tensor) -> Tensor:
        """Normalise images (B, C, H, W) of any numeric type to float32.

        Raises:
            DataError: not four axes, another number of bands, or no pixels.
        """
        if images.ndim != 4:
            raise DataError(
                "images",
                expected="four axes (batch, bands, height, width)",
                found=f"shape {tuple(images.shape)}",
                do="Add or drop axes until there are four.",
            )
        if images.shape[1] != self.channels:
            raise wrong_bands("images", self.channels, images.shape[1])
        if images.shape[2] < 1 or images.shape[3] < 1:
            raise DataError(
                "images", expected="at least 1×1 pixels", found=f"shape {tuple(images.shape)}", do="Leave it out."
            )
        return (images.to(torch.float32) - self.mean.view(-1, 1, 1)) / self.std.view(-1, 1, 1)


def wrong_bands(where: object, expected: int, found: int) -> DataError:
    """Say that a picture has another number of bands than the model was trained on."""
    return DataError(
        where,
        expected=f"{expected} band{'s' if expected != 1 else ''}",
        found=str(found),
        do=f"Give pictures of the kind that the model was trained on, or train a model on {found} bands.",
    )


def pad_end(images: Tensor, multiple: int) -> Tensor:
    """Repeat the last row and column of images (B, C, H, W) until `multiple` divides both sizes.

    At the end only: nothing moves, so a tile that starts at a multiple of the stride is divided as the whole picture is.
    """
    height, width = images.shape[-2:]
    down, right = padded(height, multiple) - height, padded(width, multiple) - width
    return F.pad(images, (0, right, 0, down), mode="replicate")
