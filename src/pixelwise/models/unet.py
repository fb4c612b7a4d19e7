"""The U-Net: Ronneberger, Fischer, Brox, Convolutional Networks for Biomedical Image Segmentation, MICCAI 2015.

Unlike in the paper, convolutions are padded, so that sizes are kept, and followed by batch norm. With the defaults and
256×256 pixels:

    stem ─ 64@256² ────────────────────────────────── 64@256² ─ logits
             └ 128@128² ─────────────────────── 128@128² ┘
                 └ 256@64² ─────────────── 256@64² ┘
                     └ 512@32² ────── 512@32² ┘
                         └─ 1024@16² ─┘
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from pixelwise.batch import Outputs
from pixelwise.errors import ConfigError
from pixelwise.models.base import SegmentationModel, pad_end

Upsampling = Literal["transposed", "bilinear"]


class DoubleConv(nn.Sequential):
    """3×3 convolution, batch norm and ReLU, twice: (B, `inputs`, H, W) → (B, `outputs`, H, W)."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(*_conv(inputs, outputs), *_conv(outputs, outputs))


def _conv(inputs: int, outputs: int) -> tuple[nn.Module, nn.Module, nn.Module]:
    # No bias: the batch norm would subtract it, and adds its own.
    return nn.Conv2d(inputs, outputs, 3, padding=1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU(inplace=True)


class Down(nn.Module):
    """2×2 max pooling and `DoubleConv`: (B, `inputs`, H, W) → (B, `outputs`, H/2, W/2)."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.pool = nn.MaxPool2d(2)
        self.conv = DoubleConv(inputs, outputs)

    def forward(self, x: Tensor) -> Tensor:
        """Halve height and width."""
        return self.conv(self.pool(x))


class Up(nn.Module):
    """Upsample by 2 and join the encoder features of that scale.

    Args:
        below: channels of the coarser scale; a transposed convolution reduces them to `skip`, bilinear keeps them.
        skip: channels of the encoder features at this scale, and of the result.
        up: "transposed" (learned 2×2 convolution, as in the paper) or "bilinear".
    """

    def __init__(self, below: int, skip: int, up: Upsampling) -> None:
        super().__init__()
        if up == "transposed":
            self.up: nn.Module = nn.ConvTranspose2d(below, skip, 2, stride=2)
            below = skip
        else:
            self.up = nn.Upsample(scale_factor=2, mode="bilinear", align_corners=False)
        # The decoder's input is skip + upsampled channels: 512 + 512 in the paper, 512 + 1024 without reduction.
        self.conv = DoubleConv(skip + below, skip)

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        """Join x (B, `below`, H/2, W/2) and skip (B, `skip`, H, W) to (B, `skip`, H, W)."""
        return self.conv(torch.cat([skip, self.up(x)], dim=1))


class UNet(SegmentationModel):
    """A U-Net of any depth and width.

    Args:
        in_channels: C, bands.
        num_classes: K.
        features: channels per scale, finest first; the bottleneck below has twice the last.
        up: "transposed" or "bilinear".
        stem: 1 as in the paper; 2 or 4: the first scale works on patches of that many pixels per side (space to depth),
            which takes a quarter or a sixteenth of the work, and the head computes the logits of all pixels of a patch at
            once (sub-pixel convolution: Shi et al. 2016, arXiv:1609.05158).
        mean, std, clip: per band, raw pixel values: see `SegmentationModel`.

    Raises:
        ConfigError: an invalid value.
    """

    def __init__(
        self,
        in_channels: int = 3,
        num_classes: int = 2,
        features: Sequence[int] = (64, 128, 256, 512),
        up: Upsampling = "transposed",
        stem: Literal[1, 2, 4] = 1,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
        clip: Sequence[Sequence[float]] | None = None,
    ) -> None:
        _check(features, up, stem)
        super().__init__(in_channels, num_classes, stem * 2 ** len(features), mean, std, clip)
        widths = [*features, 2 * features[-1]]
        self.patches = nn.PixelUnshuffle(stem) if stem > 1 else nn.Identity()
        self.first = DoubleConv(in_channels * stem**2, widths[0])
        self.down = nn.ModuleList(Down(a, b) for a, b in itertools.pairwise(widths))
        self.up = nn.ModuleList(Up(b, a, up) for a, b in reversed(list(itertools.pairwise(widths))))
        self.head: nn.Conv2d = nn.Conv2d(widths[0], num_classes * stem**2, 1)
        self.pixels = nn.PixelShuffle(stem) if stem > 1 else nn.Identity()
        _initialise(self)

    @property
    def separable(self) -> bool:
        """Whether `encode` and `decode` exist: always."""
        return True

    def forward(self, images: Tensor) -> Tensor:
        """Return logits (B, K, H, W) float32 for images (B, C, H, W) of raw values of any numeric type, H, W ≥ 1."""
        return self.decode(self.encode(images), images.shape[-2:]).logits

    def encode(self, images: Tensor) -> tuple[Tensor, ...]:
        """Return the features of every scale, finest first."""
        features = [self.first(self.patches(pad_end(self.normalise(images), self.stride)))]
        for down in self.down:
            features.append(down(features[-1]))
        return tuple(features)

    def decode(self, features: Sequence[Tensor], size: Sequence[int]) -> Outputs:
        """Return the logits for images of `size` (H, W) from their features."""
        *skips, x = features
        for up in self.up:
            x = up(x, skips.pop())
        height, width = size
        return Outputs(self.pixels(self.head(x))[..., :height, :width].float())

    def encoder_stages(self) -> tuple[tuple[str, ...], ...]:
        """Return the scales of the encoder, finest first."""
        return (("first.",), *((f"down.{scale}.",) for scale in range(len(self.down))))


def _check(features: Sequence[int], up: str, stem: int) -> None:
    for name, value, valid, expected in (
        ("features", features, bool(features) and all(f >= 1 for f in features), "at least one positive width"),
        ("up", up, up in ("transposed", "bilinear"), "transposed or bilinear"),
        ("stem", stem, stem in (1, 2, 4), "1, 2 or 4"),
    ):
        if not valid:
            raise ConfigError(f"model.{name}", expected=expected, found=repr(value), do="Correct the value.")


def _initialise(model: UNet) -> None:
    """Draw weights that preserve the variance of activations (He et al. 2015), and small ones for the head."""
    for module in model.modules():
        if isinstance(module, nn.ConvTranspose2d):
            # Kernel = stride: each output pixel sums `in_channels` products, and no ReLU follows.
            nn.init.normal_(module.weight, std=module.in_channels**-0.5)
        elif isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d) and module.bias is not None:
            nn.init.zeros_(module.bias)
    # The same weights for all pixels of a patch avoid checkerboard artefacts (Aitken et al. 2017, arXiv:1707.02937).
    per_class = torch.empty(model.num_classes, *model.head.weight.shape[1:])
    nn.init.normal_(per_class, std=0.01)
    with torch.no_grad():
        model.head.weight.copy_(per_class.repeat_interleave(len(model.head.weight) // model.num_classes, 0))
