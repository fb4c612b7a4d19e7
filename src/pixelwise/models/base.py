"""`SegmentationModel`, the interface of all networks, and the adapter for networks of other libraries."""

from __future__ import annotations

import abc
import contextlib
import functools
import math
import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pixelwise.batch import Outputs
from pixelwise.errors import ConfigError, DataError, wrong_bands
from pixelwise.tiles import padded

_NUMBERS = {2: "four", 3: "five"}


class SegmentationModel(nn.Module, abc.ABC):
    """Compute logits of the same height and width from raw pixel values, for images of any size.

    The first layer, `normalise`, is part of the model. Training with a batch of one image needs 2 × `stride` pixels per
    side, since batch norm needs two values per channel.

    Args:
        in_channels: C, number of bands.
        num_classes: K.
        stride: period, in pixels, with which the network is shift-equivariant; predictions of tiles that start at
            multiples of it equal those of the full image, except near their borders.
        mean, std: per band, raw pixel values; by default 0 and 1.
        clip: per band, the range to which raw pixel values are clipped first; None: no clipping.
        dimensions: spatial axes of the images, 2 or 3.

    Attributes:
        strides: `stride` per axis; smaller along axes that are pooled less often.

    Raises:
        ConfigError: a count below 1, or `mean`, `std` or `clip` do not fit the bands.
    """

    # The layers that compute the logits; their learning rate may differ from that of the other layers.
    head: nn.Module
    # Images with smaller sides are padded to it.
    smallest: int = 0

    def __init__(
        self,
        in_channels: int,
        num_classes: int,
        stride: int,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
        clip: Sequence[Sequence[float]] | None = None,
        dimensions: int = 2,
    ) -> None:
        super().__init__()
        for name, value in (("in_channels", in_channels), ("num_classes", num_classes)):
            if value < 1:
                raise ConfigError(f"model.{name}", expected="at least 1", found=str(value), do="Correct the value.")
        self.in_channels = in_channels
        self.num_classes = num_classes
        self.stride = stride
        self.strides: tuple[int, ...] = (stride,) * dimensions
        self.dimensions = dimensions
        self.normalise = Normalise(in_channels, mean, std, clip, dimensions)

    @abc.abstractmethod
    def forward(self, images: Tensor) -> Tensor:
        """Return logits (B, K, H, W) float32 for images (B, C, H, W) of raw values of any numeric type, H, W ≥ 1.

        Raises:
            DataError: not four axes, another number of bands, or no pixels.
        """

    def outputs(self, images: Tensor) -> Outputs:
        """Return logits (B, K, H, W), and in training mode those of the auxiliary heads, for images (B, C, H, W)."""
        return Outputs(self(images))

    @property
    def logit_scale(self) -> int:
        """Pixels of the image per coarse logit along each axis; 1 if the network computes logits of full size."""
        return 1

    def coarse(self, images: Tensor) -> Tensor:
        """Return logits (B, K, *n) float32 as the network computes them, n ≥ ceil(S / `logit_scale`) along each axis.

        Enlarged bilinearly by `logit_scale` with half-pixel centres, and cropped to (H, W), they are what `forward` returns.
        Those beyond the image belong to its padding, and are needed for that at the lower and the right border.
        """
        return self(images)

    @property
    def separable(self) -> bool:
        """Whether `encode` and `decode` exist, so that the features of a frozen encoder can be stored."""
        return False

    def encode(self, images: Tensor) -> tuple[Tensor, ...]:
        """Return the feature maps (B, c, h, w) of the encoder for images (B, C, H, W) of raw values."""
        raise NotImplementedError(f"{type(self).__name__} does not compute its encoder separately")

    def decode(self, features: Sequence[Tensor], size: Sequence[int]) -> Outputs:
        """Return what `outputs` returns for images of `size` (H, W), from their features."""
        raise NotImplementedError(f"{type(self).__name__} does not compute its decoder separately")

    def training_outputs(self, images: Tensor) -> Outputs:
        """Deprecated name of `outputs`."""
        message = f"{type(self).__name__}.training_outputs is now called outputs"
        warnings.warn(message, DeprecationWarning, stacklevel=2)
        return self.outputs(images)

    def encoder_stages(self) -> tuple[tuple[str, ...], ...]:
        """Return the layers of the encoder from the input on, each as prefixes of its parameter names; () without encoder."""
        return ()

    def tensors_for_files(self) -> dict[str, Tensor]:
        """Return the tensors by the names used in files, which may be those of another library."""
        return self.state_dict()

    def tensors_from_files(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return the tensors of a file by the names used in this model, in the same order; unknown names are kept."""
        return dict(tensors)

    def tensors_from_pretrained(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return pretrained tensors in the form of this model, for example with norms folded into convolutions."""
        return dict(tensors)

    def files_of_its_library(self, classes: Sequence[str]) -> Mapping[str, Mapping[str, Any]]:
        """Return the JSON files, by name, that another library needs to read the model folder with these classes."""
        return {}


class Normalise(nn.Module):
    """Normalise raw pixel values per band, as float32: (min(max(x, low), high) - mean) / std.

    Args:
        channels: C.
        mean, std: per band, raw pixel values; stored as buffers.
        clip: per band, (low, high) in raw pixel values; stored as buffers `low` and `high`; None: no clipping.
        dimensions: spatial axes, 2 or 3.

    Raises:
        ConfigError: not one finite value per band, a `std` that is not positive, or an empty range.
    """

    mean: Tensor
    std: Tensor
    low: Tensor | None
    high: Tensor | None

    def __init__(
        self,
        channels: int,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
        clip: Sequence[Sequence[float]] | None = None,
        dimensions: int = 2,
    ) -> None:
        super().__init__()
        self.channels = channels
        self.axes = ("depth", "height", "width")[-dimensions:]
        for name, values, neutral in (("mean", mean, 0.0), ("std", std, 1.0)):
            numbers = [neutral] * channels if values is None else [float(v) for v in values]
            if len(numbers) != channels or not all(math.isfinite(v) and (v > 0 or name == "mean") for v in numbers):
                raise ConfigError(
                    f"model.{name}",
                    expected=f"{channels} {'positive' if name == 'std' else 'finite'} values, one per band",
                    found=str(numbers),
                    do="Give one raw pixel value per band, or remove the key.",
                )
            self.register_buffer(name, torch.tensor(numbers, dtype=torch.float32))
        for name, ends in zip(("low", "high"), _clip_ends(channels, clip), strict=True):
            self.register_buffer(name, ends)

    @property
    def clip(self) -> tuple[tuple[float, float], ...] | None:
        """Return the range per band, or None."""
        if self.low is None or self.high is None:
            return None
        return tuple(zip(self.low.tolist(), self.high.tolist(), strict=True))

    def forward(self, images: Tensor) -> Tensor:
        """Normalise images (B, C, *S) of any numeric type to float32.

        Raises:
            DataError: another number of axes or bands, or no pixels.
        """
        if images.ndim != 2 + len(self.axes):
            raise DataError(
                "images",
                expected=f"{_NUMBERS[len(self.axes)]} axes (batch, bands, {', '.join(self.axes)})",
                found=f"shape {tuple(images.shape)}",
                do="Add or remove an axis.",
            )
        if images.shape[1] != self.channels:
            raise wrong_bands("images", self.channels, images.shape[1])
        if any(side < 1 for side in images.shape[2:]):
            raise DataError(
                "images",
                expected=f"at least {'×'.join('1' * len(self.axes))} pixels",
                found=f"shape {tuple(images.shape)}",
                do="Remove empty images.",
            )
        values = images.to(torch.float32)
        bands = (-1, *(1,) * len(self.axes))
        if self.low is not None and self.high is not None:
            values = values.clamp(self.low.view(bands), self.high.view(bands))
        return (values - self.mean.view(bands)) / self.std.view(bands)


def _clip_ends(channels: int, clip: Sequence[Sequence[float]] | None) -> tuple[Tensor | None, Tensor | None]:
    """Return the lower and the upper ends of the ranges, (C,) each."""
    if clip is None:
        return None, None
    ranges = [[float(v) for v in ends] for ends in clip]
    if len(ranges) != channels or not all(len(r) == 2 and all(map(math.isfinite, r)) and r[0] < r[1] for r in ranges):
        raise ConfigError(
            "model.clip",
            expected=f"{channels} pairs of a smaller and a larger value, one per band",
            found=str(ranges),
            do="Give one pair of raw pixel values per band, or remove the key.",
        )
    low, high = torch.tensor(ranges, dtype=torch.float32).unbind(1)
    return low.clone(), high.clone()


def pad_end(images: Tensor, multiple: int | Sequence[int], smallest: int = 0) -> Tensor:
    """Pad images (B, C, *S) by repeating the last pixels, to multiples of `multiple` and at least `smallest` along each axis.

    Only the end is padded, so that tiles that start at multiples of the stride match the full image.
    """
    sides = images.shape[2:]
    multiples = (multiple,) * len(sides) if isinstance(multiple, int) else multiple
    # `max` would fix the larger of the two during export.
    ends: list[Any] = [
        torch.sym_max(padded(side, m), smallest) - side for side, m in zip(sides, multiples, strict=True)
    ]
    return F.pad(images, [end for last in reversed(ends) for end in (0, last)], mode="replicate")


def memory_layout(dimensions: int, channels_last: bool) -> torch.memory_format:
    """Return the memory format of images and weights with two or three spatial axes."""
    if not channels_last:
        return torch.contiguous_format
    return torch.channels_last if dimensions == 2 else torch.channels_last_3d


class AdaptedModel(SegmentationModel):
    """Base class of networks of other libraries.

    Images are normalised and padded at the end to multiples of `stride`. Coarse logits are enlarged bilinearly (half-pixel
    centres), and the padding is removed.

    Args:
        network: module of the library; its tensors keep their names, with the prefix `network.`.
        in_channels, num_classes, stride, mean, std, clip: as for `SegmentationModel`.
        smallest: smallest side that the network accepts, pixels; smaller images are padded to it, and to at least two
            cells, since an exported network would specialise to a single one.
    """

    network: Any  # without type annotations in its library

    def __init__(
        self,
        network: nn.Module,
        in_channels: int,
        num_classes: int,
        stride: int,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
        clip: Sequence[Sequence[float]] | None = None,
        smallest: int = 0,
    ) -> None:
        super().__init__(in_channels, num_classes, stride, mean, std, clip)
        self.network = network
        self.smallest = max(smallest, 2 * stride)
        allow_single_values(network)
        fix_same_padding(network)

    @abc.abstractmethod
    def _logits(self, x: Tensor) -> tuple[Tensor, ...]:
        """Return the logits at any size, followed by those of auxiliary heads in training mode."""

    def forward(self, images: Tensor) -> Tensor:
        """Return logits (B, K, H, W) float32 for images (B, C, H, W) of raw values of any numeric type, H, W ≥ 1."""
        return self.outputs(images).logits

    def outputs(self, images: Tensor) -> Outputs:
        """Return the logits, and in training mode those of the auxiliary heads, at the size of the images."""
        x = self._padded(images)
        return _at_full_size(self._logits(x), x.shape[-2:], images.shape[-2:])

    @functools.cached_property
    def logit_scale(self) -> int:
        """Pixels of the image per coarse logit along each axis; 1 if they are not the same whole number on both.

        Measured once, by computing the logits of a small image in evaluation mode.
        """
        # Sides that differ; a factor that depends on the size cannot be the same for both.
        size = (padded(self.smallest, self.stride), padded(self.smallest, self.stride) + self.stride)
        device = self.normalise.mean.device
        # Networks of libraries may keep tensors, and those created in inference mode cannot be used for training.
        with torch.inference_mode(False), torch.no_grad(), evaluating(self):
            logits = self._logits(torch.zeros(1, self.in_channels, *size, device=device))[0]
        factor = size[0] // logits.shape[-2]
        return factor if all(factor * n == s for n, s in zip(logits.shape[-2:], size, strict=True)) else 1

    def coarse(self, images: Tensor) -> Tensor:
        """Return logits (B, K, *n) float32 as the network computes them, n ≥ ceil(S / `logit_scale`) along each axis."""
        if self.logit_scale == 1:
            return self(images)
        return self._logits(self._padded(images))[0].float()

    def encode(self, images: Tensor) -> tuple[Tensor, ...]:
        """Return the feature maps (B, c, h, w) of the encoder for images (B, C, H, W), padded to multiples of the stride."""
        if not self.separable:
            return super().encode(images)
        return self._features(self._padded(images))

    def decode(self, features: Sequence[Tensor], size: Sequence[int]) -> Outputs:
        """Return what `outputs` returns for images of `size` (H, W), from their features."""
        if not self.separable:
            return super().decode(features, size)
        height, width = (max(padded(side, self.stride), self.smallest) for side in size)
        return _at_full_size(self._decoded(features, (height, width)), (height, width), size)

    def _padded(self, images: Tensor) -> Tensor:
        return pad_end(self.normalise(images), self.stride, self.smallest)

    def _features(self, x: Tensor) -> tuple[Tensor, ...]:
        """Return the features of normalised and padded images; only if the model is `separable`."""
        raise NotImplementedError

    def _decoded(self, features: Sequence[Tensor], size: Sequence[int]) -> tuple[Tensor, ...]:
        """Return what `_logits` returns, from the features of padded images of `size`; only if the model is `separable`."""
        raise NotImplementedError


def _at_full_size(logits: Sequence[Tensor], padded_size: Sequence[int], size: Sequence[int]) -> Outputs:
    """Enlarge logits to the size of the padded images, and remove the padding."""
    height, width = size
    full = [enlarge(each, padded_size)[..., :height, :width].float() for each in logits]
    return Outputs(full[0], tuple(full[1:]))


@contextlib.contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Put a module into evaluation mode, and restore the mode of every layer afterwards."""
    # `model.train()` afterwards would also put frozen layers into training mode.
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, mode in modes:
            module.training = mode


def enlarge(logits: Tensor, size: Sequence[int]) -> Tensor:
    """Resize logits (B, K, h, w) to `size` bilinearly, with half-pixel centres."""
    if logits.shape[-2:] == torch.Size(size):
        return logits
    return F.interpolate(logits, size=tuple(size), mode="bilinear", align_corners=False)


class SafeBatchNorm2d(nn.BatchNorm2d):
    """Batch norm that uses the running statistics if there is a single value per channel, for which torch raises.

    This is the case after global pooling with a batch of one.
    """

    def forward(self, input: Tensor) -> Tensor:
        """Normalise (B, C, H, W)."""
        if self.training and input.numel() == input.shape[1]:
            return F.batch_norm(
                input, self.running_mean, self.running_var, self.weight, self.bias, False, 0.0, self.eps
            )
        return super().forward(input)


def allow_single_values(network: nn.Module) -> None:
    """Turn every `BatchNorm2d` of a network into a `SafeBatchNorm2d`, in place."""
    for module in network.modules():
        if type(module) is nn.BatchNorm2d:
            module.__class__ = SafeBatchNorm2d


class FixedSameConv2d(nn.Conv2d):
    """Convolution with "same" padding as in TensorFlow, for inputs whose sides are multiples of its stride.

    The padding is then independent of the size. timm derives it from each input, which takes `torch.export` minutes to
    analyse for free sizes.
    """

    def forward(self, input: Tensor) -> Tensor:
        """Convolve (B, C, H, W)."""
        pads = []
        for size, stride, dilation in zip(self.kernel_size[::-1], self.stride[::-1], self.dilation[::-1], strict=True):
            total = max((size - 1) * dilation + 1 - stride, 0)
            pads += [total // 2, total - total // 2]
        x = F.pad(input, pads)
        return F.conv2d(x, self.weight, self.bias, self.stride, 0, self.dilation, self.groups)


def fix_same_padding(network: nn.Module) -> None:
    """Turn every `Conv2dSame` of timm into a `FixedSameConv2d`, in place; images are padded to multiples of the stride."""
    for module in network.modules():
        if type(module).__name__ == "Conv2dSame":
            module.__class__ = FixedSameConv2d


def stages(encoder: nn.Module, prefix: str) -> tuple[tuple[str, ...], ...]:
    """Return the layers of an encoder from the input on, each as prefixes of its parameter names.

    Layers are the children in order of definition. Each block of a list is a layer; a norm belongs to the layer before
    it; `patch_embed1`, `block1` and `norm1` of a mixed transformer are one layer. Parameters without a child module
    (positions, class tokens) belong to the first layer.
    """
    layers = _layers(encoder, prefix)
    mixed = any(name.endswith(".patch_embed1.") for name, _ in layers)
    groups: dict[str, list[str]] = {}
    for name, module in layers:
        numbered = re.search(r"\.(?:patch_embed|block|norm)(\d+)\.", name) if mixed else None
        if numbered:
            groups.setdefault(numbered[1], []).append(name)
        elif groups and all(p.ndim == 1 for p in module.parameters()):
            groups[next(reversed(groups))].append(name)
        else:
            groups[name] = [name]
    grouped = tuple(name for names in groups.values() for name in names)
    others = [prefix + name for name, _ in encoder.named_parameters() if not (prefix + name).startswith(grouped)]
    if groups:
        groups[next(iter(groups))] += others
    return tuple(map(tuple, groups.values()))


def _layers(module: nn.Module, prefix: str) -> list[tuple[str, nn.Module]]:
    layers: list[tuple[str, nn.Module]] = []
    # The classifier of a pretrained encoder is not used.
    named = [(name, child) for name, child in module.named_children() if name not in ("head", "classifier", "fc")]
    children = [(name, child) for name, child in named if any(True for _ in child.parameters())]
    for name, child in children:
        path = f"{prefix}{name}."
        only_child = len(children) == 1 and any(True for _ in child.children())
        blocks = isinstance(child, nn.ModuleList) or re.fullmatch(r"_?(blocks|layers?)", name)
        wraps = isinstance(child, nn.Module) and [type(c) for c in child.children()] == [nn.ModuleList]
        layers += _layers(child, path) if only_child or blocks or wraps else [(path, child)]
    return layers


def adapt_bands(weight: Tensor, bands: int) -> Tensor:
    """Adapt the weights of a first convolution to another number of bands, keeping the scale of its outputs.

    As in timm (Wightman 2019): one band gets the sum over red, green and blue; more bands repeat them in turn, scaled by
    3 / bands. The response to an image with equal bands is kept exactly if `bands` is a multiple of 3.

    Args:
        weight: (O, 3, h, w), or with another number of bands.
        bands: C.

    Returns:
        (O, C, h, w).
    """
    if bands == weight.shape[1]:
        return weight
    if bands == 1:
        return weight.sum(1, keepdim=True)
    repeats = -(-bands // weight.shape[1])
    return weight.repeat(1, repeats, 1, 1)[:, :bands] * (weight.shape[1] / bands)


def missing_library(name: str, package: str) -> ConfigError:
    """Return the error for a model whose library is not installed."""
    return ConfigError(
        f"model {name}",
        expected=f"the library {package}",
        found="it is not installed",
        do="Run: pip install 'pixelwise[models]'.",
    )
