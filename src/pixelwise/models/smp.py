"""Networks of segmentation_models.pytorch, such as `unet/resnet34` or `segformer/tu-pvt_v2_b2`; nothing is downloaded."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from pixelwise.errors import ConfigError, nearest
from pixelwise.models.base import AdaptedModel, missing_library, stages
from pixelwise.models.packaged import ENCODERS


def encoders() -> tuple[str, ...]:
    """Return the names of the encoders of the library, and those of timm whose weights a package contains, sorted.

    All other encoders of timm are available as tu-NAME, too.
    """
    own = (name for name in _library("").encoders.encoders if not name.startswith("timm-"))
    return tuple(sorted([*own, *(f"tu-{name}" for name in ENCODERS)]))


class SmpModel(AdaptedModel):
    """The network ARCHITECTURE/ENCODER of segmentation_models.pytorch.

    Raises:
        ConfigError: an unknown or incompatible architecture or encoder, or the library is not installed.
    """

    def __init__(
        self,
        name: str,
        in_channels: int = 3,
        num_classes: int = 2,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
        clip: Sequence[Sequence[float]] | None = None,
    ) -> None:
        network = _network(name, max(in_channels, 1), max(num_classes, 1))
        stride = int(network.encoder.output_stride)
        architecture = name.partition("/")[0]
        smallest = 0
        if architecture == "dpt":
            stride *= 2  # DPT halves its grid of patches once more
        elif architecture == "pan":
            smallest = 8 * stride  # PAN pools its coarsest cells three times
        super().__init__(network, in_channels, num_classes, stride, mean, std, clip, smallest)
        self.architecture = architecture

    @property
    def head(self) -> nn.Module:  # type: ignore[override]
        """The layers that compute the logits."""
        return self.network.segmentation_head

    def encoder_stages(self) -> tuple[tuple[str, ...], ...]:
        """Return the layers of the encoder in order."""
        return stages(self.network.encoder, "network.encoder.")

    @property
    def separable(self) -> bool:
        """Whether `encode` and `decode` exist: not for DPT, whose encoder also returns tokens."""
        return self.architecture != "dpt"

    def _logits(self, x: Tensor) -> tuple[Tensor, ...]:
        return (self.network(x),)

    def _features(self, x: Tensor) -> tuple[Tensor, ...]:
        return tuple(self.network.encoder(x)[1:])  # the first is `x` itself, of which decoders use only the size

    def _decoded(self, features: Sequence[Tensor], size: Sequence[int]) -> tuple[Tensor, ...]:
        image = features[0].new_empty(len(features[0]), 0, *size)
        return (self.network.segmentation_head(self.network.decoder([image, *features])),)


def _library(name: str) -> Any:
    try:
        import segmentation_models_pytorch
    except ImportError as error:
        raise missing_library(name, "segmentation-models-pytorch") from error
    return segmentation_models_pytorch


def _network(name: str, bands: int, classes: int) -> Any:
    architecture, _, encoder = name.partition("/")
    library = _library(name)
    options: dict[str, Any] = {"encoder_weights": None, "in_channels": bands, "classes": classes}
    if architecture == "dpt":
        options |= {"dynamic_img_size": True}
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about encoder names that will change
            return library.create_model(architecture, encoder, **options)
    except KeyError as error:
        raise ConfigError(
            f"model {name}",
            expected="an encoder of segmentation_models.pytorch, or tu-NAME for one of timm",
            found=f"unknown encoder {encoder!r}",
            do=nearest(name, [f"{architecture}/{known}" for known in encoders()], "See `pixelwise models`."),
        ) from error
    except (ValueError, RuntimeError, AttributeError, NotImplementedError, AssertionError, TypeError) as error:
        raise ConfigError(
            f"model {name}",
            expected="a compatible architecture and encoder",
            found=" ".join(str(error).split())[:200],
            do="Choose another encoder: see `pixelwise models`.",
        ) from error
