"""pixelwise: networks and tiled prediction."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from conformance.adapters import Way, Ways
from pixelwise.config import Config, draft, replace
from pixelwise.inference.predictor import Predictor
from pixelwise.labels import Labels
from pixelwise.losses import cross_entropy
from pixelwise.models.catalogue import build_model
from pixelwise.training.finetune import Frozen
from pixelwise.types import ModelSpec

Size = tuple[int, int]
Network = Callable[[Tensor], Tensor]
_NAMES = {"unet": "unet", "deeplabv3": "deeplabv3-mobilenetv3", "segformer": "segformer-b0"}


def _predictor(network: Network, channels: int, classes: int = 2, **settings: Any) -> Predictor:
    labels = Labels(tuple(f"class {k}" for k in range(classes)))
    batch_size = settings.pop("batch_size", 1)
    return Predictor(_Torch(network, ModelSpec(labels, channels, **settings)), batch_size=batch_size)


class _Torch:
    """A backend from a function of tensors."""

    def __init__(self, network: Network, spec: ModelSpec) -> None:
        self.network = network
        self.spec = spec

    def __call__(self, images: NDArray[Any], /) -> NDArray[np.float32]:
        with torch.inference_mode():
            return self.network(torch.from_numpy(np.ascontiguousarray(images))).numpy()


def _tiled(image: NDArray[Any], network: Network, **settings: Any) -> NDArray[Any]:
    found = _predictor(network, len(image), **settings)(image, probabilities=True).probabilities
    assert found is not None
    return found


def _largest(size: Size, num_classes: int, tile: Size) -> float:
    """Find the largest allocated block of memory at each call of the network."""
    largest = 0

    def network(images: Tensor) -> Tensor:
        nonlocal largest
        largest = max(largest, *(trace.size for trace in tracemalloc.take_snapshot().traces))
        return torch.zeros(len(images), num_classes, *images.shape[2:])

    tracemalloc.start(1)
    try:
        _predictor(network, 1, num_classes, tile=tile)(np.zeros((1, *size), np.uint8))
    finally:
        tracemalloc.stop()
    return largest / 4 / (num_classes * size[0] * size[1])


def _any_size(architecture: str, size: Size) -> NDArray[Any]:
    model = build_model(_NAMES[architecture], in_channels=3, num_classes=2)
    found = _predictor(model.eval(), 3)(np.zeros((3, *size), np.uint8))
    return np.array(found.mask.shape)


def _train_on_one(architecture: str) -> bool:
    model = build_model(_NAMES[architecture], in_channels=3, num_classes=2).train()
    logits = model.outputs(torch.rand(1, 3, 64, 64) * 255).logits
    loss = cross_entropy(logits, torch.zeros(1, 64, 64, dtype=torch.int64))
    loss.backward()  # type: ignore[no-untyped-call]
    return bool(torch.isfinite(loss))


def _frozen() -> float:
    model = build_model("deeplabv3-mobilenetv3", in_channels=3, num_classes=2).train()
    frozen = Frozen(model, draft(replace(Config(), train={"freeze": "encoder"})).train)
    frozen.hold(0)
    encoder: Any = model.get_submodule("network.backbone")
    before = {name: value.clone() for name, value in encoder.named_buffers()}
    model(torch.rand(2, 3, 64, 64) * 255)
    return max(float((value - before[name]).abs().max()) for name, value in encoder.named_buffers())


def _parameters(up: str, channels: int, classes: int) -> int:
    model = build_model("unet", in_channels=channels, num_classes=classes, up=up)
    assert model(torch.zeros(1, channels, 32, 32)).shape == (1, classes, 32, 32)
    return sum(p.numel() for p in model.parameters())


def _auxiliary() -> int:
    model = build_model("deeplabv3-mobilenetv3", in_channels=3, num_classes=4).train()
    return len(model.outputs(torch.rand(2, 3, 64, 64)).auxiliary)


WAYS: Ways = {
    "tiled": (Way("inference.predictor.Predictor", _tiled),),
    "decide_image": (
        Way(
            "inference.predictor.Predictor",
            lambda image, network: _predictor(network, len(image), tile=(128, 128))(image).mask,
        ),
    ),
    "largest_buffer": (Way("inference.predictor.Predictor", _largest),),
    "tiling_settings": (Way("inference.predictor.Predictor", lambda: Predictor.__init__),),
    "any_size": (Way("models.catalogue.build_model", _any_size),),
    "train_on_one": (Way("models.catalogue.build_model", _train_on_one),),
    "frozen_statistics": (Way("train.freeze=encoder", _frozen),),
    "unet_parameters": (Way("UNet", _parameters),),
    "auxiliary_outputs": (Way("models.catalogue.build_model", _auxiliary),),
}
