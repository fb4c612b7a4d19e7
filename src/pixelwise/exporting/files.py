"""Write models as ONNX, OpenVINO IR or torch.export programs, with their `ModelCard` in the metadata."""

from __future__ import annotations

import copy
import io
import json
import re
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from pixelwise.errors import ConfigError, UsageError, nearest
from pixelwise.exporting.deepness import deepness_metadata
from pixelwise.exporting.quantisation import Progress, float_scope, quantised
from pixelwise.inference.conversion import to_onnx
from pixelwise.inference.exported import CARD_KEY
from pixelwise.inference.openvino_backend import openvino_core, without_telemetry
from pixelwise.models.base import SegmentationModel
from pixelwise.models.card import ModelCard

PRECISIONS = ("fp32", "fp16", "bf16", "int8")
# Name of the entry in the metadata of an OpenVINO file with the precision that it was checked in.
PRECISION_KEY = "pixelwise_precision"
_HALF_MAX = float(np.finfo(np.float16).max)
# Operators whose weights are stored in half precision.
_PRODUCTS = ("Conv", "ConvTranspose", "Gemm", "MatMul")
_BATCH, _SIDES = 2, (100, 132)


@dataclass(frozen=True)
class Format:
    """A file format for models.

    Args:
        suffix: of the file.
        refused: precision → why the format does not offer it, and what does.
    """

    suffix: str
    refused: dict[str, tuple[str, str]]


FORMATS = {
    "onnx": Format(
        ".onnx",
        {"bf16": ("ONNX Runtime does not compute convolutions in bf16 on a CPU", "Use --format openvino.")},
    ),
    "openvino": Format(".xml", {}),
    "torch-export": Format(
        ".pt2",
        dict.fromkeys(
            ("fp16", "bf16", "int8"),
            ("the program computes in the precision of its weights", "Use torch.autocast when it is run."),
        ),
    ),
}


@dataclass(frozen=True)
class Settings:
    """What is exported.

    Args:
        format: one of `FORMATS`.
        precision: one of `PRECISIONS`.
        with_mask: whether the file also returns the mask.

    Raises:
        UsageError: an unknown format or precision.
        ConfigError: the format does not offer the precision.
    """

    format: str
    precision: str = "fp32"
    with_mask: bool = False

    def __post_init__(self) -> None:
        for option, value, valid in (
            ("--format", self.format, tuple(FORMATS)),
            ("--precision", self.precision, PRECISIONS),
        ):
            if value not in valid:
                do = nearest(value, valid)
                raise UsageError(option, expected=f"one of {', '.join(valid)}", found=repr(value), do=do)
        refused = FORMATS[self.format].refused
        if self.precision in refused:
            why, do = refused[self.precision]
            offered = ", ".join(name for name in PRECISIONS if name not in refused)
            found = f"{self.precision}: {why}"
            raise ConfigError("--precision", expected=f"{offered} for {self.format}", found=found, do=do)

    @property
    def suffix(self) -> str:
        """The suffix of the file."""
        return FORMATS[self.format].suffix


def write_model(
    path: Path,
    model: SegmentationModel,
    card: ModelCard,
    settings: Settings,
    *,
    calibration: Sequence[NDArray[Any]] = (),
    resolution: float | None = None,
    progress: Progress | None = None,
) -> ModelCard:
    """Write a model to a file with the suffix of its format; OpenVINO writes another one with the suffix `.bin`.

    Args:
        path: the file.
        model: is not changed.
        card: of the model.
        settings: format and precision.
        calibration: images (C, H, W) of raw pixel values, for int8.
        resolution: centimetres per pixel of the training images; None if unknown.
        progress: called with (images done, number of images) while int8 ranges are measured.

    Returns:
        The card in the metadata of the file.

    Raises:
        ConfigError: the network cannot be converted, or a library is not installed.
    """
    card = replace(card, spec=replace(card.spec, stride=model.stride, logit_scale=1))
    if settings.format == "torch-export":
        path.write_bytes(_program(model, card, settings.with_mask))
        return card
    import onnx

    proto = _converted(model, card, settings.with_mask)
    scope = float_scope(proto, model)
    _remove_traces(proto)
    int8 = settings.precision == "int8"
    text = json.dumps(card.to_dict(), allow_nan=False)
    if settings.format == "onnx":
        proto = quantised(proto, scope, calibration, progress) if int8 else proto
        if settings.precision == "fp16":
            _store_in_half_precision(proto)
        onnx.helper.set_model_props(proto, {CARD_KEY: text, **deepness_metadata(card.spec, resolution)})
        path.write_bytes(proto.SerializeToString())
        return card
    with without_telemetry():
        import openvino
    del proto.metadata_props[:]
    network = openvino_core().read_model(proto.SerializeToString())
    network = quantised(network, scope, calibration, progress) if int8 else network
    network.set_rt_info(text, [CARD_KEY])
    network.set_rt_info(settings.precision, [PRECISION_KEY])
    openvino.save_model(network, str(path), compress_to_fp16=settings.precision == "fp16")
    return card


def _converted(model: SegmentationModel, card: ModelCard, with_mask: bool) -> Any:
    """Return the ONNX model, as a `ModelProto`."""
    try:
        content = to_onnx(model, card, with_mask=with_mask)
    except ConfigError as error:
        raise _not_convertible(card, error) if error.where == "export" else error from error
    import onnx

    return onnx.load_from_string(content)


def _not_convertible(card: ModelCard, error: ConfigError) -> ConfigError:
    return ConfigError(
        f"model {card.architecture['name']}",
        expected=error.expected,
        found=error.found,
        do="Train one of the networks that docs/export.md lists, or predict with this model folder.",
    )


def _remove_traces(proto: Any) -> None:
    """Remove the notes of torch about the source of each node: they contain paths of this machine, and half of the file."""
    for part in (*proto.graph.node, *proto.graph.input, *proto.graph.output, *proto.graph.value_info, proto.graph):
        part.doc_string = ""
        del part.metadata_props[:]
    proto.doc_string = ""


def _store_in_half_precision(proto: Any) -> None:
    """Store the weights of convolutions and matrix products as fp16, and convert them to fp32 when the model is loaded.

    Computing in fp16 would overflow for 16-bit images, and processors convert it to fp32 in any case.
    """
    import onnx
    from onnx import numpy_helper

    used = {name for node in proto.graph.node if node.op_type in _PRODUCTS for name in node.input}
    conversions = []
    for tensor in proto.graph.initializer:
        if tensor.name not in used or tensor.data_type != onnx.TensorProto.FLOAT:
            continue
        values = numpy_helper.to_array(tensor)
        if not np.abs(values).max(initial=0.0) <= _HALF_MAX:
            continue
        name = tensor.name
        tensor.CopyFrom(numpy_helper.from_array(values.astype(np.float16), f"{name}_fp16"))
        conversions.append(onnx.helper.make_node("Cast", [f"{name}_fp16"], [name], to=onnx.TensorProto.FLOAT))
    nodes = [*conversions, *proto.graph.node]
    del proto.graph.node[:]
    proto.graph.node.extend(nodes)


class _Masks(torch.nn.Module):
    """Return logits and masks."""

    def __init__(self, model: SegmentationModel) -> None:
        super().__init__()
        self.model = model
        self.mask_type = torch.uint8 if model.num_classes <= 256 else torch.int32

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        logits = self.model(images)
        return logits, logits.argmax(1).to(self.mask_type)


def _program(model: SegmentationModel, card: ModelCard, with_mask: bool) -> bytes:
    """Return the content of a .pt2 file, without pickles and without paths of this machine."""
    network = copy.deepcopy(model).cpu().eval()
    sides = [max(side, 2 * model.stride + 1 + place) for place, side in enumerate(_SIDES)]
    images = torch.zeros(_BATCH, model.in_channels, *sides)
    free = dict.fromkeys((0, 2, 3), torch.export.Dim.DYNAMIC)
    try:
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")
            program = torch.export.export(_Masks(network) if with_mask else network, (images,), dynamic_shapes=(free,))
    except (RuntimeError, ValueError) as error:
        raise _not_convertible(
            card,
            ConfigError(
                "export",
                expected="a network that torch.export can convert with free height and width",
                found=" ".join(re.sub(r"\x1b\[[0-9;]*m", "", str(error)).split())[:200],
                do="",
            ),
        ) from error
    for part in program.graph_module.modules():
        for node in part.graph.nodes if isinstance(part, torch.fx.GraphModule) else ():
            node.meta.pop("stack_trace", None)
    program.example_inputs = None  # they would be pickled
    buffer = io.BytesIO()
    torch.export.save(program, buffer, extra_files={CARD_KEY: json.dumps(card.to_dict(), allow_nan=False)})
    return buffer.getvalue()
