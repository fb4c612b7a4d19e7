"""The OpenVINO engine: compute logits on a CPU from an exported model or a model folder. Does not import torch.

OpenVINO reads ONNX and its own IR. A model folder is converted once (see `exported.converted`).
"""

from __future__ import annotations

import contextlib
import functools
import queue
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from pixelwise.errors import ConfigError, ModelFileError
from pixelwise.inference.exported import (
    CARD_KEY,
    LOGITS,
    converted,
    exported_file,
    missing,
    read_embedded_card,
    spec_of,
)
from pixelwise.machine import cores
from pixelwise.models.card import ModelCard
from pixelwise.types import ModelSpec

_TELEMETRY = "openvino_telemetry"
_HINTS = {"fp32": "f32", "bf16": "bf16"}


class OpenVinoBackend:
    """Compute logits with OpenVINO on the CPU.

    Args:
        model: an `openvino.Model` with the output `logits`.
        spec: input and output of the model.
        precision: "fp32", or "bf16" where the processor has instructions for it.
        calls: calls from different threads that are computed at the same time, on a share of the cores each. One call on all cores
            has the shortest time, several have the highest rate. The logits are the same.

    Raises:
        ConfigError: the processor does not have this precision.
    """

    engine = "openvino"

    def __init__(
        self, model: Any, spec: ModelSpec, precision: Literal["fp32", "bf16"] = "fp32", calls: int = 1
    ) -> None:
        core = openvino_core()
        if precision == "bf16" and not supports_bf16():
            raise ConfigError(
                "precision",
                expected="a processor with bf16 instructions (AVX-512 BF16 or AMX) for bf16",
                found=core.get_property("CPU", "FULL_DEVICE_NAME"),
                do="Use --precision fp32.",
            )
        hints = {
            "INFERENCE_PRECISION_HINT": _HINTS[precision],
            # Without it, fp32 may be computed with fewer bits.
            "EXECUTION_MODE_HINT": "ACCURACY" if precision == "fp32" else "PERFORMANCE",
            "NUM_STREAMS": calls,
            "INFERENCE_NUM_THREADS": cores(),
            # Threads of several processes would be pinned to the same cores.
            "ENABLE_CPU_PINNING": False,
        }
        self.spec, self.precision, self.calls = spec, precision, calls
        self._model = model
        compiled = core.compile_model(_logits_only(model), "CPU", hints)
        self._requests: queue.SimpleQueue[Any] = queue.SimpleQueue()
        for _ in range(calls):
            self._requests.put(compiled.create_infer_request())

    def __call__(self, images: NDArray[Any], /) -> NDArray[np.float32]:
        """Return logits (B, K, *n) float32 for images (B, C, *S) of raw pixel values."""
        values = np.ascontiguousarray(images, np.float32)
        request = self._requests.get()
        try:
            request.infer([values], share_inputs=True)
            logits: NDArray[np.float32] = request.get_output_tensor(0).data.copy()  # it is used again
        finally:
            self._requests.put(request)
        return logits

    @functools.cached_property
    def concurrent(self) -> OpenVinoBackend:
        """The same model for as many calls at the same time as there are cores."""
        return self if self.calls == cores() else OpenVinoBackend(self._model, self.spec, self.precision, cores())


def open_openvino(
    folder: Path, *, precision: Literal["fp32", "bf16"] = "fp32", device: str | None = None
) -> OpenVinoBackend:
    """Open an exported model or a model folder with OpenVINO.

    Raises:
        ConfigError: OpenVINO is not installed, another device than the CPU, or the network cannot be converted.
        ModelFileError: the model is incomplete or not readable.
    """
    _openvino()
    if device not in (None, "cpu"):
        raise ConfigError("backend openvino", expected="the device cpu", found=device or "", do="Use --backend torch.")
    file = exported_file(folder)
    content, card = (file, None) if file is not None else converted(folder)
    model = _read(content, folder)
    return OpenVinoBackend(model, spec_of(read_embedded_card(_metadata(model), folder), card), precision)


def read_openvino_card(file: Path) -> ModelCard:
    """Return the card in the metadata of an exported file; raises as `open_openvino`."""
    return read_embedded_card(_metadata(_read(file, file)), file)


def _read(content: bytes | Path, where: Path) -> Any:
    """Read a file, or its content, as an `openvino.Model`."""
    try:
        return openvino_core().read_model(content if isinstance(content, bytes) else str(content))
    except RuntimeError as error:
        raise ModelFileError(
            where, expected="a readable ONNX or OpenVINO model", found=_first_line(error), do="Export it again."
        ) from error


def supports_bf16() -> bool:
    """Whether OpenVINO computes bf16 on this processor with its own instructions."""
    capabilities: list[str] = openvino_core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    return "BF16" in capabilities


def _metadata(model: Any) -> str | None:
    """Return the card in the metadata: of ONNX files it is under `framework`."""
    for path in ([CARD_KEY], ["framework", CARD_KEY]):
        if model.has_rt_info(path):
            return str(model.get_rt_info(path).value)
    return None


def _logits_only(model: Any) -> Any:
    """Return a model without other outputs than the logits, whose computation would take time."""
    outputs = [output for output in model.outputs if LOGITS in output.get_names()]
    if len(model.outputs) == 1 or not outputs:
        return model
    return _openvino().Model([output.node.input_value(0) for output in outputs], model.get_parameters())


@functools.cache
def openvino_core() -> Any:
    """Return the only `openvino.Core` of this process, which is never closed.

    Each one sets a stack for signals, and restores the one before when it is closed. If two were closed in the order in which
    they were opened, that would be the stack of the first, which no longer exists, and Ctrl-C would end the process.
    """
    return _openvino().Core()


def _openvino() -> Any:
    try:
        with without_telemetry():
            import openvino
    except ImportError as error:
        raise missing("openvino", "openvino") from error
    return openvino


@contextlib.contextmanager
def without_telemetry() -> Iterator[None]:
    """Import OpenVINO or NNCF without openvino-telemetry.

    With it, they report their import to Google Analytics and write to ~/intel, unless the user has opted out. Both do without
    it where it is not installed.
    """
    before = sys.modules.get(_TELEMETRY)
    # As documented, importing it then fails.
    sys.modules[_TELEMETRY] = None  # type: ignore[assignment]
    try:
        yield
    finally:
        del sys.modules[_TELEMETRY]
        if before is not None:
            sys.modules[_TELEMETRY] = before


def _first_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1][:200] if lines else type(error).__name__
