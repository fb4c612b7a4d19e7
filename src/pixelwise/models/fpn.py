"""A feature pyramid network: a pretrained encoder of timm with a light decoder.

Lin et al. 2017, arXiv:1612.03144, with the semantic head of Kirillov et al. 2019, arXiv:1901.02446, reduced to what trains
well in minutes: 1×1 laterals, top-down sums, 3×3 convolutions at the two finest scales, and logits by sub-pixel convolution.

    image ─ encoder ┬ stride 4 ── lateral ─ + ─ 3×3 ─ head ─ logits
                    ├ stride 8 ── lateral ─ + ─ 3×3 ┘
                    ├ stride 16 ─ lateral ─ + ┘
                    └ stride 32 ─ lateral ────┘
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal

import timm
import torch
import torch.nn.functional as F
from timm.layers.norm_act import BatchNormAct2d
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_weights

from pixelwise.errors import ConfigError, nearest
from pixelwise.models import packaged
from pixelwise.models.base import AdaptedModel, stages

_FINE_CHANNELS, _SMOOTHED = 16, 2
_NORM = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")


class FPN(AdaptedModel):
    """An encoder of timm with a light decoder.

    Args:
        in_channels: C, bands.
        num_classes: K.
        encoder: name of a network of timm.
        width: channels of the decoder.
        fine: also use the features at stride 2, and the image itself at full resolution, for thin structures.
        norms: "batch", or "folded": batch norms of the encoder are folded into the convolutions before them, with the
            statistics of pretraining, which is faster and keeps them frozen; only with pretrained weights.
        mean, std, clip: per band, raw pixel values: see `SegmentationModel`.

    Raises:
        ConfigError: an unknown or unsuitable encoder, or an invalid value.
    """

    def __init__(
        self,
        in_channels: int = 3,
        num_classes: int = 2,
        encoder: str = packaged.DEFAULT,
        width: int = 128,
        fine: bool = False,
        norms: Literal["batch", "folded"] = "batch",
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
        clip: Sequence[Sequence[float]] | None = None,
    ) -> None:
        body = _encoder(encoder, max(in_channels, 1))
        channels, strides = body.feature_info.channels(), body.feature_info.reduction()
        self._norms_folded_into = _fold_norms(body) if norms == "folded" else {}
        used = [index for index, stride in enumerate(strides) if stride >= 4 or fine] or [len(strides) - 1]
        network = nn.Module()
        network.encoder = body
        network.decoder = Decoder(
            [channels[i] for i in used],
            [strides[i] for i in used],
            in_channels=max(in_channels, 1),
            num_classes=max(num_classes, 1),
            width=width,
            fine=fine,
        )
        super().__init__(network, in_channels, num_classes, math.lcm(*strides), mean, std, clip)
        self.fine = fine
        self.used = used
        self.channels_innermost = getattr(body, "output_fmt", "NCHW") == "NHWC"

    @property
    def head(self) -> nn.Module:  # type: ignore[override]
        """The layer that computes the logits."""
        return self.network.decoder.head

    @property
    def separable(self) -> bool:
        """Whether `encode` and `decode` exist: always."""
        return True

    def encoder_stages(self) -> tuple[tuple[str, ...], ...]:
        """Return the layers of the encoder in order."""
        return stages(self.network.encoder, "network.encoder.")

    def tensors_from_pretrained(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Fold the batch norms of the encoder into its convolutions, if those of this model are folded."""
        return _folded(tensors, self._norms_folded_into)

    def _features(self, x: Tensor) -> tuple[Tensor, ...]:
        """Return the features from fine to coarse; with `fine`, the first is the image itself."""
        # On processors, depthwise convolutions are slower in bf16.
        with torch.autocast(x.device.type, enabled=torch.is_autocast_enabled(x.device.type) and x.device.type != "cpu"):
            features = self.network.encoder(x)
        chosen = [features[i].permute(0, 3, 1, 2) if self.channels_innermost else features[i] for i in self.used]
        return (x, *chosen) if self.fine else tuple(chosen)

    def _decoded(self, features: Sequence[Tensor], size: Sequence[int]) -> tuple[Tensor, ...]:
        return (self.network.decoder(features),)

    def _logits(self, x: Tensor) -> tuple[Tensor, ...]:
        return self._decoded(self._features(x), x.shape[-2:])


class Decoder(nn.Module):
    """Laterals, top-down sums, and a sub-pixel head.

    Args:
        channels, strides: of the features, from fine to coarse.
        in_channels: bands of the image.
        num_classes: K.
        width: channels inside.
        fine: whether the image is the first of the features.
    """

    def __init__(
        self,
        channels: Sequence[int],
        strides: Sequence[int],
        *,
        in_channels: int,
        num_classes: int,
        width: int,
        fine: bool,
    ) -> None:
        super().__init__()
        if width < 1:
            raise ConfigError("model.width", expected="at least 1", found=str(width), do="Correct the value.")
        self.factors = [coarse / finer for finer, coarse in itertools.pairwise(strides)]
        self.laterals = nn.ModuleList(_conv(c, width, 1) for c in channels)
        self.smooth = nn.ModuleList(_conv(width, width, 3) for _ in range(min(_SMOOTHED, len(channels))))
        patch = strides[0]
        # Patches of a vision transformer are too large for one sub-pixel convolution.
        self.upsample = nn.ModuleList()
        while patch > 4 and patch % 2 == 0:
            self.upsample.append(_conv(width, width, 3))
            patch //= 2
        self.pixels = nn.PixelShuffle(patch)
        if fine:
            self.to_pixels = _conv(width, _FINE_CHANNELS * patch**2, 1)
            self.stem = _conv(in_channels, _FINE_CHANNELS, 3)
            self.join = _conv(2 * _FINE_CHANNELS, _FINE_CHANNELS, 3)
            self.head = nn.Conv2d(_FINE_CHANNELS, num_classes, 1)
        else:
            self.head = nn.Conv2d(width, num_classes * patch**2, 1)
        self.fine = fine
        # The same weights for all pixels of a patch avoid checkerboard artefacts (Aitken et al. 2017, arXiv:1707.02937).
        per_class = torch.empty(num_classes, *self.head.weight.shape[1:])
        nn.init.normal_(per_class, std=0.01)
        nn.init.zeros_(self.head.bias)  # type: ignore[arg-type]
        with torch.no_grad():
            self.head.weight.copy_(per_class.repeat_interleave(len(self.head.weight) // num_classes, 0))

    def forward(self, features: Sequence[Tensor]) -> Tensor:
        """Return logits (B, K, H, W) for features from fine to coarse."""
        image, *maps = features if self.fine else (None, *features)
        x = self.laterals[-1](maps[-1])
        for level in range(len(maps) - 1, -1, -1):
            if level < len(maps) - 1:
                x = self.laterals[level](maps[level]) + _enlarged(x, self.factors[level])
            if level < len(self.smooth):
                x = self.smooth[level](x)
        for conv in self.upsample:
            x = conv(_enlarged(x, 2))
        if not self.fine:
            return self.pixels(self.head(x))
        return self.head(self.join(torch.cat([self.pixels(self.to_pixels(x)), self.stem(image)], dim=1)))


def _conv(inputs: int, outputs: int, size: int) -> nn.Sequential:
    conv = nn.Conv2d(inputs, outputs, size, padding=size // 2, bias=False)
    nn.init.kaiming_normal_(conv.weight, nonlinearity="relu")
    return nn.Sequential(conv, nn.BatchNorm2d(outputs), nn.ReLU(inplace=True))


def _enlarged(x: Tensor, factor: float) -> Tensor:
    return x if factor == 1 else F.interpolate(x, scale_factor=factor, mode="bilinear", align_corners=False)


def _encoder(name: str, bands: int) -> Any:
    """Return an encoder of timm with random weights."""
    options: dict[str, Any] = {"features_only": True, "pretrained": False, "in_chans": bands}
    # Transformers of timm accept other sizes than those of their training only with one of these.
    failure: Exception | None = None
    choices: tuple[dict[str, Any], ...] = ({"dynamic_img_size": True}, {"strict_img_size": False}, {})
    for more in choices:
        try:
            return timm.create_model(name, **options, **more)
        except TypeError as error:
            failure = error
        except (RuntimeError, ValueError, AttributeError) as error:
            failure = error
            break
    known = timm.list_models()
    raise ConfigError(
        "model.encoder",
        expected="a network of timm that returns its features",
        found=f"{name!r} ({' '.join(str(failure).split())[:120]})",
        do=nearest(name, known, "See timm.list_models()."),
    ) from failure


def _fold_norms(encoder: nn.Module) -> dict[str, tuple[str, float]]:
    """Fold every batch norm that follows a convolution into it, in place.

    Returns:
        Name of each convolution → name of its norm, and its epsilon.
    """
    found: dict[str, tuple[str, float]] = {}
    for path, parent in list(encoder.named_modules()):
        before = ("", nn.Module())
        for name, child in list(parent.named_children()):
            conv_name, conv = before
            if isinstance(child, nn.BatchNorm2d) and isinstance(conv, nn.Conv2d):
                prefix = f"{path}." if path else ""
                found[prefix + conv_name] = (prefix + name, child.eps)
                if conv.bias is None:
                    conv.bias = nn.Parameter(conv.weight.new_zeros(conv.out_channels))
                setattr(parent, name, child.act if isinstance(child, BatchNormAct2d) else nn.Identity())
            before = (name, child)
    return found


def _folded(tensors: Mapping[str, Tensor], folded: Mapping[str, tuple[str, float]]) -> dict[str, Tensor]:
    """Fold the norms among tensors into their convolutions; tensors without these norms are returned as they are."""
    result = dict(tensors)
    # timm flattens the names of the stages of some encoders: `stages.0.` becomes `stages_0.`.
    original = {name.replace(".", "_", 1): name for name in tensors} | {name: name for name in tensors}
    prefix = _common_prefix(original, [f"{norm}.running_var" for norm, _ in folded.values()])
    if prefix is None:
        return result
    for conv, (norm, eps) in folded.items():
        weight_name, bias_name = (original.get(f"{prefix}{conv}.{part}") for part in ("weight", "bias"))
        names = [original.get(f"{prefix}{norm}.{part}") for part in _NORM]
        gamma, beta, mean, var, _ = (None if name is None else tensors[name] for name in names)
        if weight_name is None or mean is None or var is None:
            continue
        before = None if bias_name is None else tensors[bias_name]
        weight, bias = fuse_conv_bn_weights(tensors[weight_name], before, mean, var, eps, gamma, beta)
        result[weight_name] = weight.detach()
        result[weight_name.removesuffix("weight") + "bias"] = bias.detach()
        for name in names:
            result.pop(name or "", None)
    return result


def _common_prefix(names: Iterable[str], endings: Sequence[str]) -> str | None:
    """Return the prefix with which most of `endings` are among the names; None if there is none."""
    known = set(names)
    prefixes = {n[: -len(e)] for n in known for e in endings if n.endswith(e) and n[: -len(e)][-1:] in ("", ".")}
    return max(sorted(prefixes), key=lambda p: sum(p + e in known for e in endings), default=None)
