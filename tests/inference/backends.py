"""Backends for tests: any function of images, or a small network, behind the interface of `Backend`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pixelwise.inference.predictor import Predictor
from pixelwise.labels import Labels
from pixelwise.types import ModelSpec


class FunctionBackend:
    """Compute logits with a function of images (B, C, *S)."""

    def __init__(self, function: Callable[[NDArray[Any]], NDArray[Any]], spec: ModelSpec) -> None:
        self.function = function
        self.spec = spec

    def __call__(self, images: NDArray[Any], /) -> NDArray[np.float32]:
        return np.asarray(self.function(images), np.float32)


def predictor_of(
    model: Any,
    labels: Labels,
    *,
    channels: int,
    flips: bool | tuple[str, ...] = False,
    batch_size: int = 1,
    **spec: Any,
) -> Predictor:
    """Make a Predictor of a function or of a torch model; `spec` holds fields of ModelSpec."""
    if not isinstance(flips, bool):
        spec |= {"mirrors": flips, "flips": bool(flips)}
    else:
        spec |= {"flips": flips}
    described = ModelSpec(labels, channels, **spec)
    if hasattr(model, "parameters"):
        from pixelwise.inference.torch_backend import TorchBackend

        return Predictor(TorchBackend(model, described), batch_size=batch_size)
    return Predictor(FunctionBackend(model, described), batch_size=batch_size)
