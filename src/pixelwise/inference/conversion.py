"""Convert networks to ONNX, for the engines that read it and for users.

The graph takes raw pixel values, as the network does: normalisation, padding and enlarging are part of it. Batch, height and
width are free, and the depth of volumes.
"""

from __future__ import annotations

import contextlib
import copy
import io
import json
import logging
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from pixelwise.errors import ConfigError
from pixelwise.inference.exported import CARD_KEY, INPUT, LOGITS, MASK, missing
from pixelwise.models.base import SegmentationModel
from pixelwise.models.card import ModelCard

# A batch and sides that differ from each other and from 1, which torch.export would take for constants.
_BATCH, _SIDES = 2, {2: (100, 132), 3: (20, 28, 36)}
_NAMES = {2: ("height", "width"), 3: ("depth", "height", "width")}
_OPSET = 20


class _Graph(nn.Module):
    """What is exported: logits (B, K, *n), and on request the mask (B, *S)."""

    def __init__(self, model: SegmentationModel, coarse: bool, with_mask: bool) -> None:
        super().__init__()
        self.model = model
        self.coarse = coarse
        self.mask_type = (torch.uint8 if model.num_classes <= 256 else torch.int32) if with_mask else None

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Compute the outputs for images (B, C, *S) of raw pixel values."""
        with _ResizedByMatrices():
            logits = self.model.coarse(images) if self.coarse else self.model(images)
        return (logits,) if self.mask_type is None else (logits, logits.argmax(1).to(self.mask_type))


class _ResizedByMatrices(TorchFunctionMode):
    """Compute average pooling to several bins, and antialiased bicubic resizing, as two matrix products.

    torch exports the former for one size only, and OpenVINO computes the latter, with which vision transformers resize their
    position embeddings, in another way.
    """

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Replace the two functions."""
        given = kwargs or {}
        if func is F.adaptive_avg_pool2d:
            size = args[1] if len(args) > 1 else given["output_size"]
            if size not in (1, (1, 1)):
                return _resized(args[0], size, _means)
        if func is F.interpolate and len(args) <= 2 and given.get("scale_factor") is None:
            size = args[1] if len(args) == 2 else given.get("size")
            if given.get("mode") == "area":
                return _resized(args[0] if args else given["input"], size, _means)
            if given.get("mode") == "bicubic" and given.get("antialias"):
                return _resized(args[0] if args else given["input"], size, _cubic)
        return func(*args, **given)


def _resized(images: Tensor, size: Any, matrix: Callable[[int, int], Tensor]) -> Tensor:
    """Resize (B, C, H, W) along both axes by matrices (new size, size)."""
    sizes = tuple(size) if isinstance(size, Sequence) else (size, size)
    rows, columns = (
        matrix(side, side if new is None else new) for side, new in zip(images.shape[-2:], sizes, strict=True)
    )
    return rows @ images.float() @ columns.T


def _means(side: int, bins: int) -> Tensor:
    """Return the matrix (bins, side) that averages the values from floor(k·side/bins) to ceil((k+1)·side/bins)."""
    index, position = torch.arange(bins)[:, None], torch.arange(side)[None]
    start, end = index * side // bins, ((index + 1) * side + bins - 1) // bins
    return ((position >= start) & (position < end)).float() / (end - start)


def _cubic(side: int, size: int) -> Tensor:
    """Return the matrix (size, side) of antialiased bicubic resizing: Keys 1981 with a = -0.5, as in Pillow."""
    scale = torch.full((1, 1), side) / torch.full((1, 1), size)
    width = scale.clamp(min=1)
    centres = (torch.arange(size)[:, None] + 0.5) * scale
    distance = ((torch.arange(side)[None] + 0.5 - centres) / width).abs()
    near = (1.5 * distance - 2.5) * distance * distance + 1
    far = ((-0.5 * distance + 2.5) * distance - 4) * distance + 2
    weights = torch.where(distance < 1, near, torch.where(distance < 2, far, torch.zeros_like(distance)))
    return weights / weights.sum(1, keepdim=True)


def to_onnx(model: SegmentationModel, card: ModelCard, *, coarse: bool = False, with_mask: bool = False) -> bytes:
    """Convert a network to ONNX, with its card in the metadata.

    The input `images` is float32 (B, C, *S), raw pixel values. The output `logits` is float32 (B, K, *S).

    Args:
        model: is not changed.
        card: of the model; the metadata holds it as JSON under `pixelwise`.
        coarse: return the logits as the network computes them, (B, K, *n), to be enlarged by `spec.logit_scale`.
        with_mask: also return `mask` (B, *S), the most probable class: uint8 for up to 256 classes, else int32.

    Returns:
        The content of the file.

    Raises:
        ConfigError: onnx is not installed, or the network cannot be converted.
    """
    try:
        import onnx
        import onnxscript  # noqa: F401 - used by torch
    except ImportError as error:
        raise missing("ONNX", "onnx and onnxscript") from error
    model = copy.deepcopy(model).cpu().eval()
    for module in model.modules():
        # In-place operations double the time that torch needs for the analysis of free sizes.
        if hasattr(module, "inplace"):
            setattr(module, "inplace", False)  # noqa: B010 - not an attribute of every module
    # Measured here, since it must not become part of the graph.
    scale = model.logit_scale if coarse else 1
    outputs = [LOGITS, MASK] if with_mask else [LOGITS]
    names = _NAMES[model.dimensions]
    sides = [max(side, 2 * model.stride + 1 + place) for place, side in enumerate(_SIDES[model.dimensions])]
    images = torch.zeros(_BATCH, model.in_channels, *sides)
    free = {0: "batch"} | dict(enumerate(names, 2))
    with _quiet(), torch.no_grad():
        try:
            program = torch.onnx.export(
                _Graph(model, coarse, with_mask).eval(),
                (images,),
                dynamo=True,
                verbose=False,
                opset_version=_OPSET,
                input_names=[INPUT],
                output_names=outputs,
                dynamic_shapes=(free,),
                external_data=False,
            )
        except (torch.onnx.errors.OnnxExporterError, RuntimeError) as error:
            raise ConfigError(
                "export",
                expected="a network that torch.onnx can convert with free height and width",
                found=" ".join(str(error).split())[:200],
                do="Use --backend torch.",
            ) from error
    assert program is not None
    proto = program.model_proto
    _require_free_sizes(proto.graph.input[0], ("batch", None, *names))
    card = replace(card, spec=replace(card.spec, stride=model.stride, logit_scale=scale))
    onnx.helper.set_model_props(proto, {CARD_KEY: json.dumps(card.to_dict(), allow_nan=False)})
    buffer = io.BytesIO()
    onnx.save(proto, buffer)
    return buffer.getvalue()


def _require_free_sizes(value: object, names: Sequence[str | None]) -> None:
    """Raise a `ConfigError` if the batch or a side became a constant."""
    dims = value.type.tensor_type.shape.dim  # type: ignore[attr-defined]
    fixed = [name for name, dim in zip(names, dims, strict=True) if name and not dim.dim_param]
    if fixed:
        raise ConfigError(
            "export",
            expected="a network that can be converted with free height and width",
            found=f"a fixed {' and '.join(fixed)}: its library converts sizes to Python numbers",
            do="Use --backend torch.",
        )


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Suppress warnings and log messages of torch about its own exporter."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
