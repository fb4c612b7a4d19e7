"""Compare an exported model with the network it was made from: the proof that both give the same masks.

The reference is torch in fp32. Every engine that reads the file is compared with it on whole images, one at a time, and on crops
of three odd sizes, three at a time.
"""

from __future__ import annotations

import platform
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from pixelwise.errors import ParityError, PixelwiseError
from pixelwise.export.files import Settings
from pixelwise.inference.backend import Backend, open_backend
from pixelwise.inference.decision import most_probable
from pixelwise.inference.exported import CARD_KEY, read_embedded_card
from pixelwise.inference.openvino_backend import supports_bf16
from pixelwise.inference.torch_backend import TorchBackend
from pixelwise.labels import Labels
from pixelwise.machine import cores
from pixelwise.metrics.confusion import ConfusionMatrix, mean_iou
from pixelwise.models.base import SegmentationModel
from pixelwise.types import ModelSpec

Progress = Callable[[int, int], None]
Mask = NDArray[Any]
# Largest share of pixels whose class differs.
SHARES = {"fp32": 1e-4, "fp16": 1e-3, "bf16": 1e-3}
# Smallest mIoU of the mask with that of the reference.
MASK_MIOU = {"fp16": 0.995, "bf16": 0.995}
# Largest decrease of the mIoU with the ground truth.
MIOU_LOSS = {"int8": 0.01}
_PARTS = ((3, 4, 1, 2), (1, 2, 3, 4), (1, 3, 1, 3))
_CROPPED = 4
_ROUNDS, _SECONDS = 7, 20.0
# Threads of an engine keep a core busy for a while after a call, waiting for the next one.
_PAUSE = 0.1
_FEATURES = (
    "avx2",
    "avx512f",
    "avx_vnni",
    "avx512_vnni",
    "avx512_bf16",
    "amx_bf16",
    "amx_int8",
    "asimd",
    "i8mm",
    "bf16",
)


class Images(Protocol):
    """Images for the comparison."""

    source: str

    def __len__(self) -> int:
        """Return the number of images."""
        ...

    def read(self, index: int) -> tuple[NDArray[Any], Mask | None]:
        """Return an image (C, H, W) of raw pixel values, and its ground truth (H, W) if there is one."""
        ...


@dataclass(frozen=True)
class Candidate:
    """An engine with an opened file.

    Args:
        engine: its name.
        precision: in which it computes.
        backend: computes logits.
        required: whether the export fails if this engine differs by more than the tolerance.
    """

    engine: str
    precision: str
    backend: Backend
    required: bool = True


@dataclass(frozen=True)
class Agreement:
    """How far the masks of an engine agree with those of the reference.

    Args:
        engine, precision, required: see `Candidate`.
        largest_logit_difference: over all pixels and classes.
        largest_logit: of the reference, in absolute value, to compare the difference with.
        different_pixels: share of pixels whose class differs, 0…1.
        mask_miou: mIoU of the masks of the engine with those of the reference.
        miou, reference_miou: with the ground truth; None without one.
        seconds, reference_seconds: median time for one whole image.
        within_tolerance: whether the differences are within the tolerance.
    """

    engine: str
    precision: str
    required: bool
    largest_logit_difference: float
    largest_logit: float
    different_pixels: float
    mask_miou: float
    miou: float | None
    reference_miou: float | None
    seconds: float
    reference_seconds: float
    within_tolerance: bool = False

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, with the difference in mIoU and the speed as a ratio to the reference."""
        known = self.miou is not None and self.reference_miou is not None
        difference = None if not known else self.miou - self.reference_miou  # type: ignore[operator]
        return asdict(self) | {"miou_difference": difference, "speed_ratio": self.reference_seconds / self.seconds}


def candidates(path: Path, settings: Settings) -> list[Candidate]:
    """Open an exported file with every engine that reads it.

    Where the processor computes bf16, OpenVINO is also compared in this precision, in which it is fastest.
    """
    if settings.format == "torch-export":
        return [Candidate("torch", "fp32", ProgramBackend(path))]
    int8 = settings.precision == "int8"
    plain, mixed = ("int8", "int8 and bf16") if int8 else ("fp32", "bf16")
    found = []
    if settings.format == "onnx":
        found.append(Candidate("onnxruntime", plain, open_backend(path, "onnxruntime")))
    # OpenVINO does not compute every int8 model in ONNX as its operators are defined: see docs/decisions/0017.
    exact = settings.precision != "bf16" and not (int8 and settings.format == "onnx")
    found.append(Candidate("openvino", plain, open_backend(path, "openvino"), exact))
    if supports_bf16():
        required = settings.precision == "bf16" or (int8 and settings.format == "openvino")
        found.append(Candidate("openvino", mixed, open_backend(path, "openvino", precision="bf16"), required))
    return found


def reference(model: SegmentationModel, spec: ModelSpec) -> Backend:
    """Return the network as it was trained: plain torch in fp32, with logits of the size of the images."""
    # Without the attributes of the network, by which the backend would compute coarse logits.
    return TorchBackend(torch.nn.Sequential(model), replace(spec, logit_scale=1), "cpu", channels_last=False)


class ProgramBackend:
    """Compute logits with a program of torch.export."""

    def __init__(self, path: Path) -> None:
        files = {CARD_KEY: ""}
        self._module = torch.export.load(path, extra_files=files).module()
        self.spec: ModelSpec = read_embedded_card(files[CARD_KEY], path).spec

    def __call__(self, images: NDArray[Any], /) -> NDArray[np.float32]:
        """Return logits (B, K, H, W) float32 for images (B, C, H, W) of raw pixel values."""
        with torch.inference_mode():
            outputs = self._module(torch.from_numpy(np.ascontiguousarray(images, np.float32)))
        logits = outputs[0] if isinstance(outputs, tuple | list) else outputs
        result: NDArray[np.float32] = logits.numpy()
        return result


class _Counts:
    """Sums over all images for one engine."""

    def __init__(self, labels: Labels) -> None:
        self.truth, self.masks = (ConfusionMatrix(labels.num_classes, labels.ignore_index) for _ in range(2))
        self.largest = 0.0
        self.different = self.pixels = 0

    def add(self, mask: Mask, reference: Mask, truth: Mask | None) -> None:
        """Count the pixels of a batch; the mask may be that of the reference itself."""
        self.masks.update(reference, mask)
        self.different += int((mask != reference).sum())
        self.pixels += mask.size
        if truth is not None:
            self.truth.update(truth, mask)

    @property
    def miou(self) -> float | None:
        """The mIoU with the ground truth; None without annotated pixels."""
        value = float(mean_iou(self.truth.matrix))
        return None if np.isnan(value) else value


def compare(
    original: Backend, found: Sequence[Candidate], images: Images, precision: str, progress: Progress | None = None
) -> list[Agreement]:
    """Compare engines with the reference.

    Args:
        original: see `reference`.
        found: the engines.
        images: for the comparison.
        precision: of the export, which determines the tolerance.
        progress: called with (images done, number of images).

    Returns:
        One entry per engine.

    Raises:
        ParityError: an engine computes values that are not finite.
    """
    labels = original.spec.labels
    own, counts = _Counts(labels), [_Counts(labels) for _ in found]
    largest = 0.0
    for index in range(len(images)):
        image, truth = images.read(index)
        for batch, masks in _batches(image, truth, crops=index < _CROPPED):
            logits = original(batch)
            largest = max(largest, float(np.abs(logits).max()))
            expected = _decided(logits, labels)
            own.add(expected, expected, masks)
            for candidate, count in zip(found, counts, strict=True):
                others = _computed(candidate, batch)
                count.largest = max(count.largest, float(np.abs(others - logits).max()))
                count.add(_decided(others, labels), expected, masks)
        if progress is not None:
            progress(index + 1, len(images))
    first = images.read(0)[0][None]
    times = _times([original, *(candidate.backend for candidate in found)], first)
    agreements = [
        Agreement(
            candidate.engine,
            candidate.precision,
            candidate.required,
            count.largest,
            largest,
            count.different / count.pixels,
            float(mean_iou(count.masks.matrix)),
            count.miou,
            own.miou,
            seconds,
            times[0],
        )
        for candidate, count, seconds in zip(found, counts, times[1:], strict=True)
    ]
    return [_judged(agreement, precision) for agreement in agreements]


def _computed(candidate: Candidate, batch: NDArray[Any]) -> NDArray[np.float32]:
    """Return the logits of an engine.

    Raises:
        ParityError: it fails for the size, or computes values that are not finite.
    """
    where = f"{candidate.engine} in {candidate.precision}"
    try:
        logits = candidate.backend(batch)
    except (PixelwiseError, MemoryError):
        raise
    except Exception as error:  # the libraries have classes of their own
        raise ParityError(
            where,
            expected="logits for images of any size",
            found=f"a failure for {batch.shape}: {' '.join(str(error).split())[:160]}",
            do="Nothing was written. docs/export.md lists the networks that can be exported.",
        ) from error
    if not np.isfinite(logits).all():
        raise ParityError(
            where,
            expected="finite logits",
            found="infinite or undefined values",
            do="Nothing was written. Use --precision fp32.",
        )
    return logits


def _batches(image: NDArray[Any], truth: Mask | None, crops: bool) -> Iterator[tuple[NDArray[Any], Mask | None]]:
    """Yield the whole image with its ground truth, and crops of three odd sizes without one, three per batch."""
    yield image[None], None if truth is None else truth[None]
    if not crops:
        return
    height, width = image.shape[1:]
    for up, down, left, right in _PARTS:
        rows, columns = (_odd(side, *part) for side, part in ((height, (up, down)), (width, (left, right))))
        places = [((height - rows) * k // 2, (width - columns) * k // 2) for k in range(3)]
        yield np.stack([image[:, y : y + rows, x : x + columns] for y, x in places]), None


def _odd(side: int, part: int, whole: int) -> int:
    """Return an odd length of about a part of a side, at least 1."""
    length = max(side * part // whole, 1)
    return length if length % 2 else length - 1


def _decided(logits: NDArray[np.float32], labels: Labels) -> Mask:
    """Return the masks (B, H, W) of logits (B, K, H, W)."""
    return np.stack([most_probable(each, labels.dtype) for each in logits])


def _times(backends: Sequence[Backend], batch: NDArray[Any]) -> list[float]:
    """Return the median time of each backend for a batch, in seconds, measured in turns."""
    spent: list[list[float]] = [[] for _ in backends]
    begin = time.perf_counter()
    for turn in range(_ROUNDS):
        if turn >= 2 and time.perf_counter() - begin > _SECONDS:
            break
        for backend, times in zip(backends, spent, strict=True):
            time.sleep(_PAUSE)
            started = time.perf_counter()
            backend(batch)
            times.append(time.perf_counter() - started)
    return [statistics.median(times) for times in spent]


def _judged(agreement: Agreement, precision: str) -> Agreement:
    return replace(agreement, within_tolerance=not differences(agreement, precision))


def differences(agreement: Agreement, precision: str) -> list[str]:
    """Return what is beyond the tolerance of a precision, in words."""
    beyond = []
    equal, enough = 1 - agreement.different_pixels, 1 - SHARES.get(precision, 1)
    if equal < enough:
        beyond.append(f"{100 * equal:.3f} % equal pixels instead of {100 * enough:.2f} %")
    if agreement.mask_miou < MASK_MIOU.get(precision, 0):
        beyond.append(f"a mask mIoU of {100 * agreement.mask_miou:.2f} % instead of {100 * MASK_MIOU[precision]:.1f} %")
    if precision in MIOU_LOSS and agreement.miou is not None and agreement.reference_miou is not None:
        loss = agreement.reference_miou - agreement.miou
        if loss > MIOU_LOSS[precision]:
            beyond.append(
                f"an mIoU of {100 * agreement.miou:.2f} % instead of {100 * agreement.reference_miou:.2f} %, more than"
                f" {100 * MIOU_LOSS[precision]:g} lower"
            )
    return beyond


def require_agreement(agreements: Sequence[Agreement], precision: str, path: Path) -> None:
    """Raise if an engine that is required differs by more than the tolerance.

    Raises:
        ParityError: with the differences.
    """
    for agreement in agreements:
        beyond = differences(agreement, precision)
        if agreement.required and beyond:
            raise ParityError(
                path,
                expected=f"the masks of the {precision} export in {agreement.engine} to be those of the model",
                found=", ".join(beyond),
                do=_ADVICE[precision],
            )


_ADVICE = {
    "fp32": "Nothing was written. Use --format torch-export, or predict with the model folder.",
    "fp16": "Nothing was written. Use --precision fp32.",
    "bf16": "Nothing was written. Use --precision fp32; networks that were trained longer have fewer undecided pixels.",
    "int8": "Nothing was written. Use --precision fp16, or more images with --data.",
}


def machine() -> dict[str, Any]:
    """Return the processor, the number of cores that were used, the instructions that matter, and the versions of the engines."""
    lines = []
    info = Path("/proc/cpuinfo")
    if info.is_file():
        lines = [line.partition(":") for line in info.read_text(encoding="utf-8", errors="replace").splitlines()]
    facts = {key.strip(): value.strip() for key, _, value in lines}
    flags = (facts.get("flags") or facts.get("Features") or "").split()
    names = ("torch", "onnxruntime", "openvino")
    return {
        "processor": facts.get("model name") or platform.processor() or platform.machine(),
        "cores": cores(),
        "features": [name for name in _FEATURES if name in flags],
        "system": platform.system(),
        "versions": {name: version(name) for name in names if _is_installed(name)},
    }


def _is_installed(name: str) -> bool:
    import importlib.util

    return importlib.util.find_spec(name) is not None
