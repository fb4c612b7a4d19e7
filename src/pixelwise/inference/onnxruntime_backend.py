"""The ONNX Runtime engine: compute logits from an exported ONNX file or a model folder. Does not import torch."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from pixelwise.errors import ConfigError, ModelFileError
from pixelwise.inference.exported import (
    CARD_KEY,
    INPUT,
    LOGITS,
    ONNX,
    converted,
    exported_file,
    missing,
    read_embedded_card,
    spec_of,
)
from pixelwise.machine import cores
from pixelwise.models.card import ModelCard
from pixelwise.types import ModelSpec

# Exceptions for files that cannot be loaded, which have no common base class.
_FAILURES = ("Fail", "InvalidArgument", "InvalidProtobuf", "InvalidGraph", "NoSuchFile", "NotImplemented")
_PROVIDERS = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}


class OnnxRuntimeBackend:
    """Compute logits with ONNX Runtime, in fp32.

    Args:
        session: an `onnxruntime.InferenceSession` with the output `logits`.
        spec: input and output of the model.
    """

    engine = "onnxruntime"
    precision = "fp32"

    def __init__(self, session: Any, spec: ModelSpec) -> None:
        self.spec = spec
        self._session = session

    def __call__(self, images: NDArray[Any], /) -> NDArray[np.float32]:
        """Return logits (B, K, *n) float32 for images (B, C, *S) of raw pixel values."""
        logits: NDArray[np.float32] = self._session.run([LOGITS], {INPUT: np.ascontiguousarray(images, np.float32)})[0]
        return logits


def open_onnxruntime(
    folder: Path, *, precision: Literal["fp32"] = "fp32", device: str | None = None
) -> OnnxRuntimeBackend:
    """Open an exported ONNX file or a model folder with ONNX Runtime.

    Raises:
        ConfigError: ONNX Runtime is not installed, another precision than fp32, a device that it does not offer, or the
            network cannot be converted.
        ModelFileError: the model is incomplete or not readable.
    """
    onnxruntime = _onnxruntime()
    provider = _PROVIDERS.get(device or "cpu")
    if provider not in onnxruntime.get_available_providers():
        found = device or ""
        raise ConfigError("backend onnxruntime", expected="the device cpu", found=found, do="Use --backend torch.")
    if precision != "fp32":
        raise ConfigError("precision", expected="fp32 for onnxruntime", found=precision, do="Use --backend openvino.")
    file = exported_file(folder)
    if file is not None and file.suffix.lower() != ONNX:
        raise ModelFileError(
            file, expected="an ONNX file", found="a model of OpenVINO", do="Use --backend openvino, or export to onnx."
        )
    content, card = (file, None) if file is not None else converted(folder)
    session = _session(content, folder, provider)
    return OnnxRuntimeBackend(session, spec_of(_card(session, folder), card))


def read_onnx_card(file: Path) -> ModelCard:
    """Return the card in the metadata of an ONNX file; raises as `open_onnxruntime`."""
    return _card(_session(file, file), file)


def _card(session: Any, where: Path) -> ModelCard:
    return read_embedded_card(session.get_modelmeta().custom_metadata_map.get(CARD_KEY), where)


def _session(content: bytes | Path, where: Path, provider: str | None = "CPUExecutionProvider") -> Any:
    onnxruntime = _onnxruntime()
    failures = onnxruntime.capi.onnxruntime_pybind11_state
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = cores()
    options.log_severity_level = 3
    try:
        return onnxruntime.InferenceSession(
            content if isinstance(content, bytes) else str(content), options, providers=[provider]
        )
    except tuple(getattr(failures, name) for name in _FAILURES) as error:
        problem = " ".join(str(error).split())[:200]
        raise ModelFileError(where, expected="a readable ONNX model", found=problem, do="Export it again.") from error


def _onnxruntime() -> Any:
    try:
        import onnxruntime
    except ImportError as error:
        raise missing("onnxruntime", "onnxruntime") from error
    onnxruntime.disable_telemetry_events()  # of its builds for Windows
    return onnxruntime
