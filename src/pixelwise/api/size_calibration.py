"""Add calibrated intervals of sizes to a model, from images that an evaluation predicts."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pixelwise.api.loading import Model
from pixelwise.errors import DataError, UsageError

if TYPE_CHECKING:
    from pixelwise.datasets.dataset import Dataset
    from pixelwise.measuring.conformal import ImageSizes

_KEY = "evaluate.calibrate_sizes"
# One of four images, or groups of images, chooses the kind of error of each class.
_CHOOSING = 4
_OTHERS = "Name another --split, or other labelled images."


def used_in_training(folder: Path) -> Mapping[str, Mapping[str, Sequence[Any]]] | None:
    """Return the images that a model was trained and validated on, by use (see `datasets.used_images`); None if unknown.

    Args:
        folder: the model folder or the run folder.
    """
    from pixelwise.storage import RUN_MARKER

    run = next((each for each in (folder, folder.parent) if (each / RUN_MARKER).is_file()), None)
    if run is None:
        return None
    try:
        used = json.loads((run / "data.json").read_text(encoding="utf-8")).get("used")
    except (OSError, ValueError):
        return None
    return used if isinstance(used, dict) else None


def require_unused(folder: Path, images: Dataset, where: object, purpose: str, do: str = _OTHERS) -> str | None:
    """Raise an error if a model was trained or validated on some of the images.

    Args:
        folder: the model folder or the run folder.
        images: the images.
        where: named in the error.
        purpose: what they are for.
        do: advice if it was.

    Returns:
        A notice if the images that the model was trained on are unknown.

    Raises:
        DataError: it was.
    """
    from pixelwise.datasets.used_images import shared_images
    from pixelwise.evaluation.score_counts import listed

    used = used_in_training(folder)
    if used is None:
        return (
            f"the images that {folder} was trained on are unknown: make sure that none of them are used for {purpose}"
        )
    seen = {**used.get("train", {}), **{f"val {name}": entry for name, entry in used.get("val", {}).items()}}
    shared = shared_images(images.records, seen)
    if shared:
        raise DataError(
            where,
            expected=f"images for {purpose} that the model was neither trained nor validated on",
            found=f"{len(shared)} of {len(images)} that it was ({listed(shared, 3)})",
            do=do,
        )
    return None


def require_calibratable(scored: object, folder: Path, images: Dataset, data: object) -> tuple[str, ...]:
    """Raise an error unless intervals of sizes can be calibrated on some images and written into a model; return notices.

    Args:
        scored: the model, or masks.
        folder: the model folder or the run folder.
        images: the images.
        data: named in errors.

    Raises:
        UsageError: masks or an exported file instead of a model folder.
        DataError: too few images, or some that the model was trained or validated on.
    """
    _require_writable(scored)
    unknown = require_unused(folder, images, data, "intervals of sizes")
    _require_enough(images, data)
    return () if unknown is None else (unknown,)


def _require_writable(scored: object) -> None:
    """Raise a `UsageError` for masks or an exported file instead of a model folder."""
    if not isinstance(scored, Model) or not scored.folder.is_dir():
        raise UsageError(
            f"--set {_KEY}=true",
            expected="a run or model folder, into which the calibration is written",
            found="masks" if not isinstance(scored, Model) else str(scored.folder),
            do="Name the folder of the model, or leave this out.",
        )


def _require_enough(images: Dataset, data: object) -> None:
    """Raise a `DataError` if there are too few images, or groups of images, to calibrate intervals of sizes."""
    from pixelwise.measuring.conformal import fewest_units

    units, needed = images.groups(), next(n for n in range(100) if n - n // _CHOOSING >= fewest_units())
    if units < needed:
        what = "groups of images" if any(record.group is not None for record in images.records) else "images"
        raise DataError(
            data,
            expected=f"{needed} {what} or more to calibrate intervals of sizes",
            found=str(units),
            do="Name a larger split, or label more images.",
        )


def write_size_calibration(model: Model, sizes: ImageSizes, split: str) -> str:
    """Calibrate the intervals of sizes, and write them into the `model.json` of a model.

    Args:
        model: loaded from a folder.
        sizes: in images that the model was neither trained nor validated on.
        split: name of the split, for the text beside the intervals.

    Returns:
        A notice of what was done.
    """
    from pixelwise.datasets.set_aside import drawn_units
    from pixelwise.measuring.conformal import calibrate
    from pixelwise.models.card import read_card, write_card

    names = [str(unit) for unit in sizes.units()]
    order = drawn_units(names)
    choosing = set(order[: len(order) // _CHOOSING])
    first, rest = ([i for i, name in enumerate(names) if (name in choosing) is chosen] for chosen in (True, False))
    calibration = calibrate(sizes.subset(first), sizes.subset(rest), split)
    write_card(model.folder, replace(read_card(model.folder), size_calibration=calibration.to_dict()))
    return (
        f"intervals of sizes were calibrated on {calibration.images} images (the kind of error was chosen on {len(first)} others) and "
        f"written into {model.folder / 'model.json'}"
    )
