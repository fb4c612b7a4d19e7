"""Quantise a model in ONNX or OpenVINO to int8 with NNCF, without its telemetry, progress bars and messages.

The first convolution and the head stay in float, since their rounding errors affect the mask most.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import logging
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pixelwise.inference.exported import INPUT, missing
from pixelwise.inference.openvino_backend import without_telemetry
from pixelwise.models.base import SegmentationModel

Progress = Callable[[int, int], None]
_PRODUCTS = ("Conv", "ConvTranspose", "Gemm", "MatMul")
_OPENVINO = (
    "Convolution", "GroupConvolution", "ConvolutionBackpropData", "GroupConvolutionBackpropData", "MatMul",
)  # fmt: skip
_SCOPES = "pkg.torch.onnx.name_scopes"


def quantised(target: Any, scope: FloatScope, images: Sequence[NDArray[Any]], progress: Progress | None = None) -> Any:
    """Return a model with int8 weights and activations.

    Args:
        target: an `onnx.ModelProto` or an `openvino.Model`, converted from the model of the scope.
        scope: what stays in float.
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

    is_onnx = hasattr(target, "graph")
    with quiet_nncf() as nncf:
        return nncf.quantize(
            target,
            nncf.Dataset(images, prepared),
            subset_size=len(images),
            model_type=nncf.ModelType.TRANSFORMER if scope.attention else None,
            ignored_scope=nncf.IgnoredScope(
                names=list(scope.nodes) if is_onnx else _openvino_names(target, scope.nodes)
            ),
            # In NNCF 3.4 the correction of biases makes U-Nets in ONNX five times less accurate, see docs/decisions/0017.
            advanced_parameters=nncf.AdvancedQuantizationParameters(disable_bias_correction=is_onnx),
        )


@dataclass(frozen=True)
class FloatScope:
    """What is not quantised.

    Args:
        nodes: names of ONNX nodes: the first convolutions and the head.
        attention: whether the network has attention, whose products are sensitive.
    """

    nodes: tuple[str, ...]
    attention: bool


def float_scope(proto: Any, model: SegmentationModel) -> FloatScope:
    """Return what is not quantised.

    Args:
        proto: an `onnx.ModelProto` written by `to_onnx`, with the notes of torch about the module of each node.
        model: the network it was made from.
    """
    nodes = dict.fromkeys((*first_products(proto), *head_products(proto, model)))
    return FloatScope(tuple(nodes), any(node.op_type == "Softmax" for node in proto.graph.node))


def _openvino_names(network: Any, nodes: Sequence[str]) -> list[str]:
    """Return the names that operations have in an `openvino.Model` that was read from ONNX: NODE, or NODE/WithoutBiases."""
    names = [operation.get_friendly_name() for operation in network.get_ops() if operation.get_type_name() in _OPENVINO]
    return [name for name in names if name.partition("/")[0] in nodes]


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
        ignored = warnings.catch_warnings(action="ignore")
        with ignored, contextlib.redirect_stdout(io.StringIO()), without_telemetry(), _muted():
            logging.setLoggerClass(logger_class)  # NNCF replaces it for the whole process
            yield importlib.import_module("nncf")
    finally:
        logging.disable(disabled)


@contextlib.contextmanager
def _muted() -> Iterator[None]:
    """Replace the sender of usage data in NNCF, for the case that another part of the program has imported it."""
    try:
        decorator: Any = importlib.import_module("nncf.telemetry.decorator")
    except ImportError as error:
        raise missing("int8", "nncf") from error
    sender, decorator.telemetry = decorator.telemetry, _Nothing()
    try:
        yield
    finally:
        decorator.telemetry = sender


class _Nothing:
    """Accept all calls of the telemetry of NNCF, and do nothing."""

    def __getattr__(self, name: str) -> Callable[..., None]:
        return lambda *args, **kwargs: None
