"""Quantise an ONNX model to int8 with NNCF, without its telemetry, progress bars and messages.

Both engines read the result. The first convolution and the head stay in float, since their rounding errors affect the mask most.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import logging
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pixelwise.inference.exported import INPUT, missing
from pixelwise.models.base import SegmentationModel

Progress = Callable[[int, int], None]
_PRODUCTS = ("Conv", "ConvTranspose", "Gemm", "MatMul")
_SCOPES = "pkg.torch.onnx.name_scopes"
_TELEMETRY = "openvino_telemetry"


def quantised(
    proto: Any, model: SegmentationModel, images: Sequence[NDArray[Any]], progress: Progress | None = None
) -> Any:
    """Return a model with int8 weights and activations.

    Args:
        proto: an `onnx.ModelProto` written by `to_onnx`, with the notes of torch about the module of each node.
        model: the network it was made from.
        images: (C, H, W), raw pixel values, of which the ranges of activations are measured.
        progress: called with (images done, number of images).

    Raises:
        ConfigError: NNCF is not installed.
    """
    done = 0

    def prepared(image: NDArray[Any]) -> dict[str, NDArray[np.float32]]:
        nonlocal done
        done = done % len(images) + 1  # the images are read several times
        if progress is not None:
            progress(done, len(images))
        return {INPUT: np.ascontiguousarray(image[None], np.float32)}

    with quiet_nncf() as nncf:
        attention = any(node.op_type == "Softmax" for node in proto.graph.node)
        return nncf.quantize(
            proto,
            nncf.Dataset(images, prepared),
            subset_size=len(images),
            model_type=nncf.ModelType.TRANSFORMER if attention else None,
            ignored_scope=nncf.IgnoredScope(
                names=[*dict.fromkeys([*first_products(proto), *head_products(proto, model)])]
            ),
        )


def first_products(proto: Any) -> list[str]:
    """Return the names of the convolutions and matrix products that read the image, without another one in between."""
    raw, names = {INPUT}, []
    for node in proto.graph.node:  # sorted topologically
        if node.op_type == "Shape" or raw.isdisjoint(node.input):
            continue
        if node.op_type in _PRODUCTS:
            names.append(node.name)
        else:
            raw |= set(node.output)
    return names


def head_products(proto: Any, model: SegmentationModel) -> list[str]:
    """Return the names of the convolutions and matrix products of the head."""
    head = set(model.head.modules())
    paths = {f"model.{name}" for name, module in model.named_modules(remove_duplicate=False) if module in head}
    return [node.name for node in proto.graph.node if node.op_type in _PRODUCTS and paths & _modules(node)]


def _modules(node: Any) -> set[str]:
    """Return the paths of the modules that contain a node."""
    text = next((entry.value for entry in node.metadata_props if entry.key == _SCOPES), "")
    return set(text.strip("[]").replace("'", "").split(", "))


@contextlib.contextmanager
def quiet_nncf() -> Iterator[Any]:
    """Import NNCF, and suppress its telemetry, its progress bars and its messages."""
    logger_class = logging.getLoggerClass()
    disabled = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()), _without_telemetry():
            warnings.simplefilter("ignore")
            try:
                import nncf
            except ImportError as error:
                raise missing("int8", "nncf") from error
            logging.setLoggerClass(logger_class)  # NNCF replaces it for the whole process
            yield nncf
    finally:
        logging.disable(disabled)


@contextlib.contextmanager
def _without_telemetry() -> Iterator[None]:
    """Hide the library that sends usage data to Intel: NNCF then uses a stub, also if it was imported before."""
    before = {name: module for name, module in sys.modules.items() if name == _TELEMETRY}
    sys.modules[_TELEMETRY] = None  # type: ignore[assignment] # its import fails
    decorator: Any = None
    try:
        with contextlib.suppress(ImportError):  # reported by the import of NNCF itself
            decorator = importlib.import_module("nncf.telemetry.decorator")
            sender, decorator.telemetry = decorator.telemetry, _Nothing()
        yield
    finally:
        if decorator is not None:
            decorator.telemetry = sender
        del sys.modules[_TELEMETRY]
        sys.modules.update(before)


class _Nothing:
    """Accept all calls of the telemetry of NNCF, and do nothing."""

    def __getattr__(self, name: str) -> Callable[..., None]:
        return lambda *args, **kwargs: None
