"""Networks of torchvision: DeepLabV3, FCN and LR-ASPP, with auxiliary heads; nothing is downloaded."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn
from torchvision.models import segmentation

from pixelwise.models.base import AdaptedModel, stages

# Name → builder in torchvision, and stride in pixels (the backbones are dilated).
NAMES: Mapping[str, tuple[str, int]] = {
    "deeplabv3-resnet50": ("deeplabv3_resnet50", 8),
    "deeplabv3-resnet101": ("deeplabv3_resnet101", 8),
    "deeplabv3-mobilenetv3": ("deeplabv3_mobilenet_v3_large", 16),
    "fcn-resnet50": ("fcn_resnet50", 8),
    "fcn-resnet101": ("fcn_resnet101", 8),
    "lraspp-mobilenetv3": ("lraspp_mobilenet_v3_large", 16),
}


class TorchvisionModel(AdaptedModel):
    """A segmentation network of torchvision, one of `NAMES`."""

    def __init__(
        self,
        name: str,
        in_channels: int = 3,
        num_classes: int = 2,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
        clip: Sequence[Sequence[float]] | None = None,
    ) -> None:
        builder, stride = NAMES[name]
        # By default torchvision downloads the backbone, and omits the auxiliary head.
        options: dict[str, Any] = {"weights": None, "weights_backbone": None, "num_classes": max(num_classes, 1)}
        if not name.startswith("lraspp"):
            options["aux_loss"] = True
        network: nn.Module = getattr(segmentation, builder)(**options)
        _set_bands(network, max(in_channels, 1))
        super().__init__(network, in_channels, num_classes, stride, mean, std, clip)
        self._feature_names = ("low", "high") if name.startswith("lraspp") else ("out", "aux")

    @property
    def head(self) -> nn.Module:  # type: ignore[override]
        """The layers that compute the logits."""
        classifier = self.network.classifier
        if hasattr(classifier, "high_classifier"):
            return nn.ModuleList([classifier.low_classifier, classifier.high_classifier])
        return classifier[-1]

    def encoder_stages(self) -> tuple[tuple[str, ...], ...]:
        """Return the layers of the backbone in order."""
        return stages(self.network.backbone, "network.backbone.")

    @property
    def separable(self) -> bool:
        """Whether `encode` and `decode` exist: always."""
        return True

    def _logits(self, x: Tensor) -> tuple[Tensor, ...]:
        # Not `network(x)`, which enlarges the logits, and computes the auxiliary head in evaluation mode, too.
        return self._decoded(self._features(x), x.shape[-2:])

    def _features(self, x: Tensor) -> tuple[Tensor, ...]:
        features = self.network.backbone(x)
        return tuple(features[key] for key in self._feature_names)

    def _decoded(self, features: Sequence[Tensor], size: Sequence[int]) -> tuple[Tensor, ...]:
        network, named = self.network, dict(zip(self._feature_names, features, strict=True))
        if "out" not in named:
            return (network.classifier(named),)
        if not self.training:
            return (network.classifier(named["out"]),)
        return network.classifier(named["out"]), network.aux_classifier(named["aux"])


def _set_bands(network: nn.Module, bands: int) -> None:
    """Replace the first convolution if the number of bands is not three."""
    if bands == 3:
        return
    for parent in network.modules():
        for name, child in parent.named_children():
            if isinstance(child, nn.Conv2d) and child.in_channels == 3:
                replacement = nn.Conv2d(
                    bands,
                    child.out_channels,
                    child.kernel_size,  # type: ignore[arg-type]
                    child.stride,  # type: ignore[arg-type]
                    child.padding,  # type: ignore[arg-type]
                    bias=child.bias is not None,
                )
                nn.init.kaiming_normal_(replacement.weight, mode="fan_out", nonlinearity="relu")
                setattr(parent, name, replacement)
                return
    raise AssertionError("a network of torchvision begins with a convolution of three bands")
