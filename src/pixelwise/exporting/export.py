"""Write an export: the file, the comparison with the model, the model card, licences and a README."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pixelwise.errors import ConfigError, OutputExistsError, UsageError
from pixelwise.exporting.files import FORMATS, Settings, write_model
from pixelwise.exporting.images import SplitImages
from pixelwise.exporting.parity import Agreement, Images, candidates, compare, machine, reference, require_agreement
from pixelwise.exporting.texts import licences, readme
from pixelwise.inference.openvino_backend import supports_bf16
from pixelwise.models.base import SegmentationModel
from pixelwise.models.card import CARD, ModelCard
from pixelwise.storage import atomic_folder, require_claimable, write_atomic

PARITY, LICENCES, README, STEM = "parity.json", "LICENSES.txt", "README.md", "model"
FILES = (*(f"{STEM}{kind.suffix}" for kind in FORMATS.values()), f"{STEM}.bin", CARD, PARITY, LICENCES, README)
# Called with (what is done, steps done, number of steps).
Stages = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Exported:
    """Result of an export.

    Args:
        out: the folder, or the file.
        files: what was written, relative to the folder.
        bytes: size of the model.
        parity: the content of `parity.json`.
        notices: what was assumed.
    """

    out: Path
    files: tuple[str, ...]
    bytes: int
    parity: dict[str, Any]
    notices: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, as printed by `--json`."""
        return {
            "out": str(self.out),
            "files": list(self.files),
            "bytes": self.bytes,
            "parity": self.parity,
            "notices": list(self.notices),
        }


def require_output(out: Path, settings: Settings, overwrite: bool) -> bool:
    """Return whether `out` names a single file rather than a folder.

    Raises:
        UsageError: the suffix is that of another format.
        OutputExistsError: it exists and may not be replaced.
    """
    suffix = out.suffix.lower()
    if suffix not in {kind.suffix for kind in FORMATS.values()} or out.is_dir():
        require_claimable(out, overwrite, FILES, PARITY)
        return False
    if suffix != settings.suffix:
        raise UsageError(
            "--out",
            expected=f"a folder, or a {settings.suffix} file, for --format {settings.format}",
            found=str(out),
            do="Change the suffix or the format.",
        )
    if out.exists() and not overwrite:
        raise OutputExistsError(
            out, expected="a new file", found="an existing file", do="Choose another --out, or add --overwrite."
        )
    return True


def require_engines(settings: Settings) -> None:
    """Raise a `ConfigError` if the processor cannot compute in the precision, so that it cannot be checked."""
    if settings.precision == "bf16" and not supports_bf16():
        raise ConfigError(
            "--precision",
            expected="a processor with bf16 instructions (AVX-512 BF16 or AMX), to check the export",
            found=machine()["processor"],
            do="Use --precision fp32: OpenVINO computes an fp32 file in bf16 on such processors, too.",
        )


def export(
    model: SegmentationModel,
    card: ModelCard,
    out: Path,
    settings: Settings,
    images: Images,
    *,
    single: bool = False,
    calibration: SplitImages | None = None,
    resolution: float | None = None,
    stages: Stages | None = None,
) -> Exported:
    """Convert a model, compare the result with it, and write it if the masks are the same.

    Args:
        model: is not changed.
        card: of the model.
        out: a folder, which is replaced, or a file if `single`.
        settings: format and precision.
        images: for the comparison.
        single: write only the file of the model.
        calibration: for int8.
        resolution: centimetres per pixel of the training images; None if unknown.
        stages: called with (what is done, steps done, number of steps).

    Raises:
        ConfigError: the network cannot be converted, or a library is not installed.
        ParityError: the masks differ by more than the tolerance; nothing is written.
        ResourceError: the disk is full or cannot be written.
    """
    report = stages or (lambda what, done, total: None)
    with tempfile.TemporaryDirectory() as place:
        file = Path(place) / f"{out.stem if single else STEM}{settings.suffix}"
        report("converting", 0, 1)
        ranges = [] if calibration is None else [calibration.read(k)[0] for k in range(len(calibration))]
        card = write_model(
            file,
            model,
            card,
            settings,
            calibration=ranges,
            resolution=resolution,
            progress=lambda done, total: report("measuring ranges for int8", done, total),
        )
        agreements = compare(
            reference(model, card.spec),
            candidates(file, settings),
            images,
            settings.precision,
            lambda done, total: report("comparing", done, total),
        )
        require_agreement(agreements, settings.precision, out)
        parity = {
            "format": settings.format,
            "precision": settings.precision,
            "reference": "torch, fp32",
            "images": images.source,
            "calibration": None if calibration is None else calibration.source,
            "machine": machine(),
            "engines": [agreement.to_dict() for agreement in agreements],
        }
        contents = {path.name: path.read_bytes() for path in sorted(file.parent.iterdir())}
    size = sum(map(len, contents.values()))
    notices = tuple(_notices(settings, agreements))
    if single:
        for name in sorted(contents, key=lambda name: name == file.name):  # the file that names the other comes last
            write_atomic(out.with_name(name), contents[name])
        return Exported(out, tuple(contents), size, parity, notices)
    contents |= _texts(card, settings, agreements, parity)
    with atomic_folder(out) as fresh:
        for name, content in contents.items():
            (fresh / name).write_bytes(content)
    return Exported(out, tuple(sorted(contents)), size, parity, notices)


def _texts(
    card: ModelCard, settings: Settings, agreements: Sequence[Agreement], parity: dict[str, Any]
) -> dict[str, bytes]:
    """Return the files beside the model by name: its card, the comparison, licences and a README."""
    texts = {
        CARD: json.dumps(card.to_dict(), indent=2, ensure_ascii=False, allow_nan=False) + "\n",
        PARITY: json.dumps(parity, indent=1, ensure_ascii=False, allow_nan=False) + "\n",
        LICENCES: licences(card),
        README: readme(card, settings, agreements, parity["images"]),
    }
    return {name: text.encode("utf-8", "backslashreplace") for name, text in texts.items()}


def _notices(settings: Settings, agreements: Sequence[Agreement]) -> Iterator[str]:
    """Yield a notice if OpenVINO does not compute an int8 model in ONNX as ONNX Runtime does."""
    if settings.precision == "int8" and not all(agreement.within_tolerance for agreement in agreements):
        yield "OpenVINO computes other masks from this file than ONNX Runtime; use --format openvino for OpenVINO"
