"""What every network promises: raw pixel values of any size in, logits of the same size out.

Comes in: images (B, C, H, W) in any numeric type, as their files gave them. Goes out: logits (B, K, H, W) float32. Knows
nothing of losses, metrics, tiles or classes' names: a model is pure.
"""

from __future__ import annotations

import abc
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pixelwise.batch import Outputs
from pixelwise.errors import ConfigError, DataError, wrong_bands
from pixelwise.tiles import padded


class SegmentationModel(nn.Module, abc.ABC):
    """Turn raw pixel values into logits of the same height and width, whatever they are.

    The first layer, `normalise`, belongs to the model, so that no exporter, server or page can get it wrong. A training
    batch of one image works from 2 × `stride` pixels per side on (batch norm needs two values per channel).

    Args:
        in_channels: C, bands per image.
        num_classes: K.
        stride: pixels after which the network sees the same thing again; tiles that start at its multiples agree with
            the whole image away from their borders.
        mean, std: per band, raw pixel values; 0 and 1 where not given.
        clip: per band, the range that raw pixel values are brought into first; None: all stay as they are.

    Raises:
        ConfigError: a count below 1, or `mean`, `std` and `clip` that do not fit the bands.
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
        clip: Sequence[Sequence[float]] | None = None,
    ) -> None:
        super().__init__()
        for name, value in (("in_channels", in_channels), ("num_classes", num_classes)):
            if value < 1:
                raise ConfigError(f"model.{name}", expected="at least 1", found=str(value), do="Correct the value.")
        self.in_channels, self.num_classes, self.stride = in_channels, num_classes, stride
        self.normalise = Normalise(in_channels, mean, std, clip)

    @abc.abstractmethod
    def forward(self, images: Tensor) -> Tensor:
        """Give logits (B, K, H, W) float32 for images (B, C, H, W) of raw values, any numeric type, any H, W ≥ 1.

        Raises:
            DataError: not four axes, another number of bands, or no pixels.
        """

    def training_outputs(self, images: Tensor) -> Outputs:
        """Give what the loss is taken of: the logits, and those of auxiliary heads where the network has some."""
        return Outputs(self(images))

    def encoder_stages(self) -> tuple[tuple[str, ...], ...]:
        """Give the encoder's stages from the input on, each as prefixes of its parameters' names; () where there is none."""
        return ()

    def tensors_for_files(self) -> dict[str, Tensor]:
        """Give the tensors by the names that files have: those of another library, where it shall find them."""
        return self.state_dict()

    def tensors_from_files(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Give the tensors of a file by the names that they have here, in the same order; unknown names stay."""
        return dict(tensors)

    def files_of_its_library(self, classes: Sequence[str]) -> Mapping[str, Mapping[str, Any]]:
        """Give the JSON files, by name, with which another library reads the model folder; classes by index."""
        return {}


class Normalise(nn.Module):
    """Bring raw pixel values to float32 with mean 0 and standard deviation 1 per band: (min(max(x, low), high) - mean) / std.

    Args:
        channels: C.
        mean, std: per band, raw pixel values; kept as buffers, so they travel with the weights.
        clip: per band, (low, high) in raw pixel values, kept likewise as `low` and `high`; None: nothing is clipped, and
            there are no such buffers.

    Raises:
        ConfigError: not one finite value per band, a `std` that is not positive, or a range that is empty.
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
    ) -> None:
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
        for name, ends in zip(("low", "high"), _ends(channels, clip), strict=True):
            self.register_buffer(name, ends)

    @property
    def clip(self) -> tuple[tuple[float, float], ...] | None:
        """Give the range per band, or None."""
        if self.low is None or self.high is None:
            return None
        return tuple(zip(self.low.tolist(), self.high.tolist(), strict=True))

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
        values = images.to(torch.float32)
        if self.low is not None and self.high is not None:
            values = values.clamp(self.low.view(-1, 1, 1), self.high.view(-1, 1, 1))
        return (values - self.mean.view(-1, 1, 1)) / self.std.view(-1, 1, 1)


def _ends(channels: int, clip: Sequence[Sequence[float]] | None) -> tuple[Tensor | None, Tensor | None]:
    """Give the lower and the upper ends of the ranges per band.

    Raises:
        ConfigError: not one per band, or one that is empty.
    """
    if clip is None:
        return None, None
    given = [[float(v) for v in ends] for ends in clip]
    if len(given) != channels or not all(len(g) == 2 and all(map(math.isfinite, g)) and g[0] < g[1] for g in given):
        raise ConfigError(
            "model.clip",
            expected=f"{channels} pairs of a smaller and a larger value, one per band",
            found=str(given),
            do="Give one pair per band in raw pixel values, or leave the key out.",
        )
    low, high = torch.tensor(given, dtype=torch.float32).unbind(1)
    return low.clone(), high.clone()


def pad_end(images: Tensor, multiple: int, smallest: int = 0) -> Tensor:
    """Repeat the last row and column of images (B, C, H, W) until `multiple` divides both sizes, of at least `smallest`.

    At the end only: nothing moves, so a tile that starts at a multiple of the stride is divided as the whole image is.
    """
    height, width = images.shape[-2:]
    # Not max: while a network is exported, that would settle which of the two is larger.
    down, right = (torch.sym_max(padded(side, multiple), smallest) - side for side in (height, width))
    return F.pad(images, (0, right, 0, down), mode="replicate")  # type: ignore[arg-type]


class AdaptedModel(SegmentationModel):
    """Keep the contract around a network of another library.

    The network sees normalised pixels, padded at the end to multiples of `stride`; coarser logits are enlarged
    bilinearly (half-pixel centres) before anything is decided, and the padding is cut off.

    Args:
        network: the library's own module; kept as `network`, so that its weights keep their names behind that prefix.
        in_channels, num_classes, stride, mean, std, clip: as for `SegmentationModel`.
        smallest: pixels per side that the network needs; smaller images are padded to as many, and to two cells at
            least: an exported network would take a single one for the rule.
    """

    network: Any  # a module whose parts its library does not type

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
        self.network, self.smallest = network, max(smallest, 2 * stride)
        forgive_single_values(network)

    @abc.abstractmethod
    def _answer(self, x: Tensor) -> tuple[Tensor, ...]:
        """Give the network's logits of any size, and in training those of its auxiliary heads."""

    def forward(self, images: Tensor) -> Tensor:
        """Give logits (B, K, H, W) float32 for images (B, C, H, W) of raw values, any numeric type, any H, W ≥ 1."""
        return self.training_outputs(images).logits

    def training_outputs(self, images: Tensor) -> Outputs:
        """Give the logits, and those of the auxiliary heads in training mode, all at the images' size."""
        height, width = images.shape[-2:]
        x = pad_end(self.normalise(images), self.stride, self.smallest)
        full = [enlarge(logits, x.shape[-2:])[..., :height, :width].float() for logits in self._answer(x)]
        return Outputs(full[0], tuple(full[1:]))


def enlarge(logits: Tensor, size: Sequence[int]) -> Tensor:
    """Bring logits (B, K, h, w) to `size`, bilinearly with half-pixel centres."""
    if logits.shape[-2:] == torch.Size(size):
        return logits
    return F.interpolate(logits, size=tuple(size), mode="bilinear", align_corners=False)


class ForgivingBatchNorm2d(nn.BatchNorm2d):
    """Normalise over the batch; with a single value per channel, by the running statistics.

    Behind a global pooling a batch of one has one value per channel, and its variance is none: torch raises there.
    """

    def forward(self, input: Tensor) -> Tensor:
        """Normalise (B, C, H, W)."""
        if self.training and input.numel() == input.shape[1]:
            return F.batch_norm(
                input, self.running_mean, self.running_var, self.weight, self.bias, False, 0.0, self.eps
            )
        return super().forward(input)


def forgive_single_values(network: nn.Module) -> None:
    """Turn every `BatchNorm2d` inside into a `ForgivingBatchNorm2d`; weights, names and all else stay."""
    for module in network.modules():
        if type(module) is nn.BatchNorm2d:
            module.__class__ = ForgivingBatchNorm2d


def stages(encoder: nn.Module, prefix: str) -> tuple[tuple[str, ...], ...]:
    """Give the layers of an encoder from the input on, each as prefixes of its parameters' names.

    Children count in the order of their definition; lists of blocks count block by block, norms with what stands before
    them, and where a mixed transformer defines `patch_embed1`, `block1` and `norm1` apart, these are one. Parameters that
    belong to no child (positions, class tokens) count with the first layer.
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
    found = tuple(name for names in groups.values() for name in names)
    alone = [prefix + name for name, _ in encoder.named_parameters() if not (prefix + name).startswith(found)]
    if groups:
        groups[next(iter(groups))] += alone
    return tuple(map(tuple, groups.values()))


def _layers(module: nn.Module, prefix: str) -> list[tuple[str, nn.Module]]:
    found: list[tuple[str, nn.Module]] = []
    # A classifier that came with the encoder is no layer of it: it is never asked.
    named = [(name, child) for name, child in module.named_children() if name not in ("head", "classifier", "fc")]
    children = [(name, child) for name, child in named if any(True for _ in child.parameters())]
    for name, child in children:
        path = f"{prefix}{name}."
        alone = len(children) == 1 and any(True for _ in child.children())
        blocks = isinstance(child, nn.ModuleList) or re.fullmatch(r"_?(blocks|layers?)", name)
        wraps = isinstance(child, nn.Module) and [type(c) for c in child.children()] == [nn.ModuleList]
        found += _layers(child, path) if alone or blocks or wraps else [(path, child)]
    return found


def adapt_bands(weight: Tensor, bands: int) -> Tensor:
    """Make a first convolution's weights for RGB (or other bands) fit another number, keeping the size of its answers.

    One band gets the sum over red, green and blue; more get them in turn, scaled by 3 / bands: as timm does (Wightman
    2019). The response to an image whose bands are alike stays where these are whole turns, and nearly so elsewhere.

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
    turns = -(-bands // weight.shape[1])
    return weight.repeat(1, turns, 1, 1)[:, :bands] * (weight.shape[1] / bands)


def missing_library(name: str, package: str) -> ConfigError:
    """Say that a model needs a library that is not installed."""
    return ConfigError(
        f"model {name}",
        expected=f"the library {package}",
        found="it is not installed",
        do="Say: pip install 'pixelwise[models]'.",
    )
