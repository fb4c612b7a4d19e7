"""`Backend`, the interface of the engines that compute logits for the `Predictor`, and `open_backend`."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from pixelwise.errors import UsageError, nearest
from pixelwise.types import ModelSpec


class Backend(Protocol):
    """Compute logits for a batch of images.

    The logits of one image must not depend on the other images of its batch, and later calls must not change them. With `spec.logit_scale` s, logit j along an
    axis belongs to the pixels j·s … (j+1)·s - 1; the Predictor enlarges them bilinearly with half-pixel centres. With s > 1
    there may be more than ceil(S / s) logits, for a network that pads images at the end: those beyond the image make the
    interpolation at its border equal to that of the network.
    """

    @property
    def spec(self) -> ModelSpec:
        """The input and output of the model."""
        ...

    def __call__(self, images: NDArray[Any], /) -> NDArray[np.float32]:
        """Return logits (B, K, *n), n ≥ ceil(S / s), float32 for images (B, C, *S) of raw pixel values, any *S ≥ 1."""
        ...


class ConcurrentBackend(Backend, Protocol):
    """A backend for several calls at the same time, from as many threads."""

    @property
    def calls(self) -> int:
        """The number of calls that are computed at the same time."""
        ...


def concurrent(backend: Backend) -> tuple[Backend, int]:
    """Return the backend for the highest rate, and from how many threads it is to be called.

    That is its `concurrent`, a `ConcurrentBackend` that computes the same logits; without one, itself from one thread.
    """
    other: ConcurrentBackend | None = getattr(backend, "concurrent", None)
    return (backend, 1) if other is None else (other, other.calls)


# Name of the engine → "module:function"; the function takes (folder, **options) and returns a `Backend`.
BACKENDS: dict[str, str] = {
    "torch": "pixelwise.inference.torch_backend:open_torch",
    "openvino": "pixelwise.inference.openvino_backend:open_openvino",
    "onnxruntime": "pixelwise.inference.onnxruntime_backend:open_onnxruntime",
}


def open_backend(folder: Path, engine: str = "torch", **options: Any) -> Backend:
    """Open a model folder with one of the engines in `BACKENDS`.

    Args:
        folder: the model folder.
        engine: name of the engine, whose module is imported by this call.
        **options: passed on to the engine, e.g. `device` and `precision` for torch.

    Raises:
        UsageError: an unknown engine.
        ModelFileError: the folder is not a complete model.
    """
    if engine not in BACKENDS:
        raise UsageError(
            "backend", expected=f"one of {', '.join(BACKENDS)}", found=engine, do=nearest(engine, BACKENDS)
        )
    module, _, function = BACKENDS[engine].partition(":")
    backend: Backend = getattr(importlib.import_module(module), function)(folder, **options)
    return backend
