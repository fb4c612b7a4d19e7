"""Networks of segmentation_models.pytorch: every architecture with every encoder of its list, and of timm's.

Comes in: a name like `unet/resnet34` or `segformer/tu-pvt_v2_b2`, and the sizes. Goes out: a `SegmentationModel` with
fresh weights; nothing is ever downloaded here. Knows nothing of where pretrained weights come from.
"""

from __future__ import annotations

import difflib
import warnings
from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from pixelwise.errors import ConfigError
from pixelwise.models.base import AdaptedModel, missing_library, stages


def encoders() -> tuple[str, ...]:
    """Give the names of the library's own encoders, sorted; those of timm come on top, as tu-NAME."""
    return tuple(sorted(name for name in _library("").encoders.encoders if not name.startswith("timm-")))


class SmpModel(AdaptedModel):
    """Wrap a network of segmentation_models.pytorch.

    Args:
        name: ARCHITECTURE/ENCODER.
        in_channels, num_classes, mean, std, clip: as for `SegmentationModel`.

    Raises:
        ConfigError: an unknown architecture or encoder, or two that do not go together; or the library is missing.
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
        stride, architecture = int(network.encoder.output_stride), name.partition("/")[0]
        # DPT halves its grid of patches once more; PAN pools its coarsest cells three times.
        stride, smallest = (
            (2 * stride if architecture == "dpt" else stride),
            (8 * stride if architecture == "pan" else 0),
        )
        super().__init__(network, in_channels, num_classes, stride, mean, std, clip, smallest)

    @property
    def head(self) -> nn.Module:  # type: ignore[override]
        """Give the layers that make the logits."""
        return self.network.segmentation_head

    def encoder_stages(self) -> tuple[tuple[str, ...], ...]:
        """Give the encoder's layers in order, norms with what they follow."""
        return stages(self.network.encoder, "network.encoder.")

    def _answer(self, x: Tensor) -> tuple[Tensor, ...]:
        return (self.network(x),)


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
            warnings.simplefilter("ignore")  # of names that are about to change, for whoever keeps lists of them
            return library.create_model(architecture, encoder, **options)
    except KeyError as error:
        known = encoders()
        near = difflib.get_close_matches(encoder, known, 1, 0.4)
        raise ConfigError(
            f"model {name}",
            expected="an encoder of segmentation_models.pytorch, or tu-NAME for one of timm's",
            found=f"unknown encoder {encoder!r}",
            do=f"Did you mean {architecture}/{near[0]}?" if near else "See `pixelwise models`.",
        ) from error
    except (ValueError, RuntimeError, AttributeError, NotImplementedError, AssertionError, TypeError) as error:
        raise ConfigError(
            f"model {name}",
            expected="an architecture and an encoder that go together",
            found=" ".join(str(error).split())[:200],
            do="Choose another encoder: see `pixelwise models`.",
        ) from error
