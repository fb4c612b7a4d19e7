"""`export`: write a model as a file for other programs, and prove that its masks are the same."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pixelwise.api.loading import Model, load
from pixelwise.api.scoring import require_classes, require_sections
from pixelwise.errors import ConfigError, DataError, ModelFileError, PixelwiseError

if TYPE_CHECKING:
    from pixelwise.datasets.dataset import Dataset, DataSplits
    from pixelwise.exporting.export import Exported
    from pixelwise.exporting.images import DrawnImages, SplitImages

# The most images that are used.
_COMPARED, _SCORED, _CALIBRATED = 8, 200, 128
# Centimetres per unit of a grid.
_CENTIMETRES = {"m": 100.0, "cm": 1.0, "mm": 0.1}


def export(
    model: str | Path | Model,
    *,
    format: str,
    out: str | Path,
    precision: str = "fp32",
    with_mask: bool = False,
    data: str | Path | None = None,
    overrides: Sequence[str] = (),
    overwrite: bool = False,
    progress: Callable[[str, int, int], None] | None = None,
) -> Exported:
    """Write a model as a file for other programs, compared with the original on real images.

    Args:
        model: a run or model folder, or a loaded model.
        format: onnx, openvino or torch-export.
        out: a new folder for the file, `parity.json`, the licences and a README; or a file with the suffix of the format
            (.onnx, .xml, .pt2), then nothing else is written.
        precision: fp32, fp16 (weights stored in half precision), bf16 (computed by OpenVINO) or int8.
        with_mask: the file also returns the mask.
        data: images for the comparison, and for the calibration of int8; by default those of the run.
        overrides: configuration overrides of `data`.
        overwrite: replace an earlier export in `out`.
        progress: called with (what is done, steps done, number of steps).

    Raises:
        ConfigError: the network, or this precision in this format, cannot be exported.
        ParityError: the masks differ by more than the tolerance; nothing is written.
        DataError: the images cannot be opened, or int8 without images.
        OutputExistsError: `out` holds files.
    """
    from pixelwise.exporting.export import export as write
    from pixelwise.exporting.export import require_engines, require_output
    from pixelwise.exporting.files import Settings
    from pixelwise.models.weights import load_model

    require_sections(overrides, "data")
    settings = Settings(format, precision, with_mask)
    single = require_output(Path(out), settings, overwrite)
    require_engines(settings)
    loaded = model if isinstance(model, Model) else _load(model)
    if loaded.spec.dimensions != 2:
        raise ConfigError(
            "export",
            expected="a network with two dimensions",
            found="one with three",
            do="Predict with the model folder, which torch computes.",
        )
    run = _run_of(loaded.folder)
    splits, name, notices = _opened(loaded, run, data, overrides, required=precision == "int8")
    images, calibration = _images(loaded, splits, name, int8=precision == "int8")
    network, card = load_model(loaded.folder)
    result = write(
        network,
        card,
        Path(out),
        settings,
        images,
        single=single,
        calibration=calibration,
        resolution=None if run is None else _resolution(run),
        stages=progress,
    )
    return replace(result, notices=(*notices, *result.notices))


def _load(model: str | Path) -> Model:
    path = Path(model)
    if path.is_file() or (path / "parity.json").is_file():
        raise ModelFileError(
            path,
            expected="a model folder or a run folder",
            found="an exported model",
            do="Export the model that it was made from.",
        )
    return load(model)


def _run_of(folder: Path) -> Path | None:
    """Return the run folder of a model folder, if it is in one."""
    from pixelwise.storage import RUN_MARKER

    return folder.parent if folder.name == "model" and (folder.parent / RUN_MARKER).is_file() else None


def _opened(
    loaded: Model, run: Path | None, data: str | Path | None, overrides: Sequence[str], required: bool
) -> tuple[DataSplits | None, str, tuple[str, ...]]:
    """Open the images, and return them with the name of the data set and notices; None if there are none.

    Raises:
        DataError: `data` cannot be opened; or nothing can, and images are required.
    """
    from pixelwise.config import read_request
    from pixelwise.datasets.dataset import open_data, without_unreadable

    place = data if data is not None else run / "config.yaml" if run is not None else None
    why = "none: this is no run folder, and --data is not given"
    if place is not None:
        try:
            config, base = read_request(Path(place), overrides)
            section = config.data
            if section.nodata is None:
                section = section.model_copy(update={"nodata": loaded.card.spec.nodata})
            splits = open_data(section, base)
            splits = without_unreadable(splits) if section.skip_bad else splits
            for split in splits:
                require_classes(split, loaded, place)
        except PixelwiseError as error:
            if data is not None:
                raise
            why = str(error)
        else:
            name = Path(config.data.root or place).name or str(place)
            return splits, name, splits.notices if data is not None else ()
    if required:
        raise DataError(
            "--precision int8",
            expected="images to measure the ranges of values, and images with masks to check the result",
            found=why,
            do="Name a data set with the same classes with --data, or use --precision fp16.",
        )
    notice = "compared on drawn images" + (f", since the data of the run cannot be opened: {why}" if run else "")
    return None, "", (f"{notice}. Name images with --data.",)


def _images(
    loaded: Model, splits: DataSplits | None, name: str, int8: bool
) -> tuple[SplitImages | DrawnImages, SplitImages | None]:
    """Return the images for the comparison, and those for calibration: the validation and the training split."""
    from pixelwise.exporting.images import DrawnImages, SplitImages

    spec = loaded.card.spec
    if splits is None:
        return DrawnImages(spec), None
    compared = _first(splits.val, splits.test, splits.train)
    images = SplitImages(compared, spec, _SCORED if int8 else _COMPARED, name)
    return images, SplitImages(_first(splits.train, splits.val, splits.test), spec, _CALIBRATED, name) if int8 else None


def _first(*splits: Dataset | None) -> Dataset:
    return next(split for split in splits if split is not None)


def _resolution(run: Path) -> float | None:
    """Return the size of the pixels of the training images in centimetres; None if it is unknown or differs."""
    path = run / "data.json"
    facts: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))["fingerprint"] if path.is_file() else {}
    spacing: list[float] = facts.get("spacing") or []
    unit = facts.get("spacing_unit")
    if unit not in _CENTIMETRES or facts.get("spacings_differ") or len(set(spacing)) != 1:
        return None
    return spacing[0] * _CENTIMETRES[unit]
