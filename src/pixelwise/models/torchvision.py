"""Networks of torchvision: DeepLabV3, FCN and LR-ASPP, with their auxiliary heads trained.

Comes in: a name of `NAMES` and the sizes. Goes out: a `SegmentationModel` with fresh weights; nothing is ever downloaded
here. Knows nothing of where pretrained weights come from.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn
from torchvision.models import segmentation

from pixelwise.models.base import AdaptedModel, stages

# Name → torchvision's builder, and how many pixels make one of its coarsest cells (the backbones are dilated).
NAMES: Mapping[str, tuple[str, int]] = {
    "deeplabv3-resnet50": ("deeplabv3_resnet50", 8),
    "deeplabv3-resnet101": ("deeplabv3_resnet101", 8),
    "deeplabv3-mobilenetv3": ("deeplabv3_mobilenet_v3_large", 16),
    "fcn-resnet50": ("fcn_resnet50", 8),
    "fcn-resnet101": ("fcn_resnet101", 8),
    "lraspp-mobilenetv3": ("lraspp_mobilenet_v3_large", 16),
}


class TorchvisionModel(AdaptedModel):
    """Wrap a segmentation network of torchvision.

    Args:
        name: one of `NAMES`.
        in_channels, num_classes, mean, std, clip: as for `SegmentationModel`.
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
        builder, stride = NAMES[name]
        # Without these two, torchvision downloads the backbone, and leaves the auxiliary head out.
        options: dict[str, Any] = {"weights": None, "weights_backbone": None, "num_classes": max(num_classes, 1)}
        if not name.startswith("lraspp"):
            options["aux_loss"] = True
        network: nn.Module = getattr(segmentation, builder)(**options)
        _set_bands(network, max(in_channels, 1))
        super().__init__(network, in_channels, num_classes, stride, mean, std, clip)

    @property
    def head(self) -> nn.Module:  # type: ignore[override]
        """Give the layers that make the logits."""
        classifier = self.network.classifier
        if hasattr(classifier, "high_classifier"):
            return nn.ModuleList([classifier.low_classifier, classifier.high_classifier])
        return classifier[-1]

    def encoder_stages(self) -> tuple[tuple[str, ...], ...]:
        """Give the backbone's layers in order."""
        return stages(self.network.backbone, "network.backbone.")

    def _answer(self, x: Tensor) -> tuple[Tensor, ...]:
        # The parts and not the whole, which would enlarge by itself, and train its auxiliary head in vain at prediction.
        network = self.network
        features = network.backbone(x)
        if "out" not in features:
            return (network.classifier(features),)
        if not self.training:
            return (network.classifier(features["out"]),)
        return network.classifier(features["out"]), network.aux_classifier(features["aux"])


def _set_bands(network: nn.Module, bands: int) -> None:
    """Replace the first convolution where there are not three bands."""
    if bands == 3:
        return
    for parent in network.modules():
        for name, child in parent.named_children():
            if isinstance(child, nn.Conv2d) and child.in_channels == 3:
                fresh = nn.Conv2d(
                    bands,
                    child.out_channels,
                    child.kernel_size,  # type: ignore[arg-type]
                    child.stride,  # type: ignore[arg-type]
                    child.padding,  # type: ignore[arg-type]
                    bias=child.bias is not None,
                )
                nn.init.kaiming_normal_(fresh.weight, mode="fan_out", nonlinearity="relu")
                setattr(parent, name, fresh)
                return
    raise AssertionError("a network of torchvision begins with a convolution of three bands")
