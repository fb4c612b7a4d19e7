"""The U-Net: Ronneberger, Fischer, Brox, Convolutional Networks for Biomedical Image Segmentation, MICCAI 2015.

Unlike in the paper, convolutions are padded, so that sizes are kept, and followed by batch norm. With the defaults and
256×256 pixels:

    stem ─ 64@256² ────────────────────────────────── 64@256² ─ logits
             └ 128@128² ─────────────────────── 128@128² ┘
                 └ 256@64² ─────────────── 256@64² ┘
                     └ 512@32² ────── 512@32² ┘
                         └─ 1024@16² ─┘

In three dimensions it is the 3D U-Net of Çiçek et al. 2016, arXiv:1606.06650, with the same blocks. Slices are often several
times thicker than pixels are wide; the finest scales then convolve and pool within slices only, as in Isensee et al.: nnU-Net,
Nature Methods 2021.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn

from pixelwise.batch import Outputs
from pixelwise.errors import ConfigError
from pixelwise.models.base import SegmentationModel, pad_end

Upsampling = Literal["transposed", "bilinear"]
# Per axis: the side of a kernel, or the factor of a change of scale.
Sides = tuple[int, ...]

_Layer = Mapping[int, Callable[..., Any]]
_CONV: _Layer = {2: nn.Conv2d, 3: nn.Conv3d}
_NORM: _Layer = {2: nn.BatchNorm2d, 3: nn.BatchNorm3d}
_POOL: _Layer = {2: nn.MaxPool2d, 3: nn.MaxPool3d}
_TRANSPOSED: _Layer = {2: nn.ConvTranspose2d, 3: nn.ConvTranspose3d}
_LINEAR = {2: "bilinear", 3: "trilinear"}


class DoubleConv(nn.Sequential):
    """Convolution, batch norm and ReLU, twice: (B, `inputs`, *S) → (B, `outputs`, *S), for as many axes as `kernel` has."""

    def __init__(self, inputs: int, outputs: int, kernel: Sides = (3, 3)) -> None:
        super().__init__(*_conv(inputs, outputs, kernel), *_conv(outputs, outputs, kernel))


def _conv(inputs: int, outputs: int, kernel: Sides) -> tuple[nn.Module, nn.Module, nn.Module]:
    axes, padding = len(kernel), tuple(side // 2 for side in kernel)
    # No bias: the batch norm would subtract it, and adds its own.
    convolution = _CONV[axes](inputs, outputs, kernel, padding=padding, bias=False)
    return convolution, _NORM[axes](outputs), nn.ReLU(inplace=True)


class Down(nn.Module):
    """Max pooling and `DoubleConv`: (B, `inputs`, *S) → (B, `outputs`, *S / `factor`)."""

    def __init__(self, inputs: int, outputs: int, factor: Sides = (2, 2), kernel: Sides = (3, 3)) -> None:
        super().__init__()
        self.pool = _POOL[len(factor)](factor)
        self.conv = DoubleConv(inputs, outputs, kernel)

    def forward(self, x: Tensor) -> Tensor:
        """Divide the size by the factor."""
        return self.conv(self.pool(x))


class Up(nn.Module):
    """Upsample and join the encoder features of that scale.

    Args:
        below: channels of the coarser scale; a transposed convolution reduces them to `skip`, bilinear keeps them.
        skip: channels of the encoder features at this scale, and of the result.
        up: "transposed" (a learned convolution, as in the paper) or "bilinear", which is trilinear for three axes.
        factor, kernel: per axis.
    """

    def __init__(self, below: int, skip: int, up: Upsampling, factor: Sides = (2, 2), kernel: Sides = (3, 3)) -> None:
        super().__init__()
        axes = len(factor)
        if up == "transposed":
            self.up: nn.Module = _TRANSPOSED[axes](below, skip, factor, stride=factor)
            below = skip
        else:
            self.up = nn.Upsample(scale_factor=tuple(map(float, factor)), mode=_LINEAR[axes], align_corners=False)
        # The decoder's input is skip + upsampled channels: 512 + 512 in the paper, 512 + 1024 without reduction.
        self.conv = DoubleConv(skip + below, skip, kernel)

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        """Join x (B, `below`, *S / `factor`) and skip (B, `skip`, *S) to (B, `skip`, *S)."""
        return self.conv(torch.cat([skip, self.up(x)], dim=1))


class UNet(SegmentationModel):
    """A U-Net of any depth and width, for images or volumes.

    Args:
        in_channels: C, bands.
        num_classes: K.
        features: channels per scale, finest first; the bottleneck below has twice the last.
        up: "transposed" or "bilinear".
        stem: 1 as in the paper; 2 or 4: the first scale works on patches of that many pixels per side (space to depth),
            which takes a quarter or a sixteenth of the work, and the head computes the logits of all pixels of a patch at
            once (sub-pixel convolution: Shi et al. 2016, arXiv:1609.05158). 1 in three dimensions.
        mean, std, clip: per band, raw pixel values: see `SegmentationModel`.
        dimensions: spatial axes, 2 or 3.
        flat: with three dimensions, how many of the finest scales convolve and pool within slices only.

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
        dimensions: Literal[2, 3] = 2,
        flat: int = 0,
    ) -> None:
        _check(features, up, stem, dimensions, flat)
        super().__init__(in_channels, num_classes, stem * 2 ** len(features), mean, std, clip, dimensions)
        widths = [*features, 2 * features[-1]]
        scales = [_scale(dimensions, level < flat) for level in range(len(widths))]
        factors, kernels = zip(*scales, strict=True)
        self.strides = tuple(stem * math.prod(sides) for sides in zip(*factors[:-1], strict=True))
        self.patches = nn.PixelUnshuffle(stem) if stem > 1 else nn.Identity()
        self.first = DoubleConv(in_channels * stem**2, widths[0], kernels[0])
        pairs = list(zip(itertools.pairwise(widths), factors, itertools.pairwise(kernels), strict=False))
        self.down = nn.ModuleList(Down(a, b, factor, kernel) for (a, b), factor, (_, kernel) in pairs)
        self.up = nn.ModuleList(Up(b, a, up, factor, kernel) for (a, b), factor, (kernel, _) in reversed(pairs))
        self.head: nn.Conv2d | nn.Conv3d = _CONV[dimensions](widths[0], num_classes * stem**2, 1)
        self.pixels = nn.PixelShuffle(stem) if stem > 1 else nn.Identity()
        _initialise(self)

    @property
    def separable(self) -> bool:
        """Whether the features of a frozen encoder can be stored: those of images."""
        return self.dimensions == 2

    def forward(self, images: Tensor) -> Tensor:
        """Return logits (B, K, *S) float32 for images (B, C, *S) of raw values of any numeric type, *S ≥ 1."""
        return self.decode(self.encode(images), images.shape[2:]).logits

    def encode(self, images: Tensor) -> tuple[Tensor, ...]:
        """Return the features of every scale, finest first."""
        features = [self.first(self.patches(pad_end(self.normalise(images), self.strides)))]
        for down in self.down:
            features.append(down(features[-1]))
        return tuple(features)

    def decode(self, features: Sequence[Tensor], size: Sequence[int]) -> Outputs:
        """Return the logits for images of `size` (*S) from their features."""
        *skips, x = features
        for up in self.up:
            x = up(x, skips.pop())
        return Outputs(self.pixels(self.head(x))[(..., *map(slice, size))].float())

    def encoder_stages(self) -> tuple[tuple[str, ...], ...]:
        """Return the scales of the encoder, finest first."""
        return (("first.",), *((f"down.{scale}.",) for scale in range(len(self.down))))


def _scale(dimensions: int, flat: bool) -> tuple[Sides, Sides]:
    """Return the factor from a scale to the next coarser one, and the side of the kernels, per axis."""
    within = dimensions - 1 if flat else dimensions
    ones = (1,) * (dimensions - within)
    return (*ones, *(2,) * within), (*ones, *(3,) * within)


def _check(features: Sequence[int], up: str, stem: int, dimensions: int, flat: int) -> None:
    stems = (1, 2, 4) if dimensions == 2 else (1,)
    for name, value, valid, expected in (
        ("features", features, bool(features) and all(f >= 1 for f in features), "at least one positive width"),
        ("up", up, up in ("transposed", "bilinear"), "transposed or bilinear"),
        ("dimensions", dimensions, dimensions in (2, 3), "2 or 3"),
        ("stem", stem, stem in stems, "1, 2 or 4" if dimensions == 2 else "1 in three dimensions"),
        (
            "flat",
            flat,
            flat == 0 or (dimensions == 3 and 0 < flat <= len(features)),
            "0 up to the number of scales in 3-D",
        ),
    ):
        if not valid:
            raise ConfigError(f"model.{name}", expected=expected, found=repr(value), do="Correct the value.")


def _initialise(model: UNet) -> None:
    """Draw weights that preserve the variance of activations (He et al. 2015), and small ones for the head."""
    for module in model.modules():
        if isinstance(module, nn.ConvTranspose2d | nn.ConvTranspose3d):
            # Kernel = stride: each output pixel sums `in_channels` products, and no ReLU follows.
            nn.init.normal_(module.weight, std=module.in_channels**-0.5)
        elif isinstance(module, nn.Conv2d | nn.Conv3d):
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
        if (
            isinstance(module, nn.Conv2d | nn.Conv3d | nn.ConvTranspose2d | nn.ConvTranspose3d)
            and module.bias is not None
        ):
            nn.init.zeros_(module.bias)
    # The same weights for all pixels of a patch avoid checkerboard artefacts (Aitken et al. 2017, arXiv:1707.02937).
    per_class = torch.empty(model.num_classes, *model.head.weight.shape[1:])
    nn.init.normal_(per_class, std=0.01)
    with torch.no_grad():
        model.head.weight.copy_(per_class.repeat_interleave(len(model.head.weight) // model.num_classes, 0))
