"""Predicted masks that are measured: those that `predictions.json` lists, or the files in a folder."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pixelwise.api.predicting.requests import SUMMARY
from pixelwise.errors import MaskError
from pixelwise.evaluation.mask_folder import mask_paths
from pixelwise.grid import Grid
from pixelwise.imageio.dicom_seg import read_dicom_seg
from pixelwise.imageio.masks import MaskRule, read_mask
from pixelwise.imageio.sources import open_source
from pixelwise.imageio.volume_files import is_volume
from pixelwise.labels import Labels
from pixelwise.measuring.masks import bands
from pixelwise.tiles import Window

_BAND_PIXELS = 1 << 24
_NO_CONFIDENCE = 255


@dataclass(frozen=True, eq=False)
class PredictedImage:
    """One predicted image; a `measuring.masks.MaskSource`.

    Args:
        id: name of the image.
        path: of the mask.
        shape: *S.
        grid: of the image.
        labels: the classes.
        rule: how the values of the mask map to class ids.
        confidences: the file of the confidences in percent, of an image; None if there is none.
    """

    id: str
    path: Path
    shape: tuple[int, ...]
    grid: Grid
    labels: Labels
    rule: MaskRule
    confidences: Path | None = None

    def read(self, window: Window) -> NDArray[Any]:
        """Return class indices, or the ignore index, in a window of the mask."""
        if self._is_dicom:
            return _segments(self.path, self.labels)[window.slices]  # in the order of the file
        if is_volume(self.path):
            indices, unknown = self.labels.encode(open_source(self.path).read()[0][0][window.slices].astype(np.int64))
            if unknown:
                raise MaskError(
                    self.path,
                    expected=f"the class ids {', '.join(map(str, self.labels.ids))}",
                    found=f"others: {', '.join(map(str, list(unknown)[:5]))}",
                    do="The mask was changed since it was predicted: predict the image again.",
                )
            return indices
        part = None if window.shape == self.shape else window
        return read_mask(self.path, self.labels, self.rule, window=part)[0]

    def confidence(self, window: Window) -> NDArray[np.float32] | None:
        """Return the confidences, 0…1, in a window; NaN where there is none; None if they were not written."""
        if self.confidences is None:
            return None
        percent = open_source(self.confidences).read(window)[0][0]
        return np.where(percent == _NO_CONFIDENCE, np.float32("nan"), percent.astype(np.float32) / np.float32(100))

    @property
    def _is_dicom(self) -> bool:
        return self.path.suffix.lower() == ".dcm"

    def bands(self) -> list[Window]:
        """Return windows that cover the mask, each of a size that fits into memory; one for a volume file, which is read as a whole."""
        whole = self._is_dicom or is_volume(self.path)
        return bands(self.shape, self.shape[0] if whole else max(_BAND_PIXELS // math.prod(self.shape[1:]), 1))


def _segments(path: Path, labels: Labels) -> NDArray[Any]:
    """Return class indices (D, H, W) of a DICOM segmentation, whose slices are in the order of their positions."""
    volume = read_dicom_seg(path)
    outside = labels.ignore_index if labels.background is None else labels.names.index(labels.background)
    table = np.array([outside, *(labels.names.index(name) for name in volume.names)])
    return table[volume.numbers].transpose()


def segmentation(path: Path) -> tuple[NDArray[Any], Labels, Grid]:
    """Return class indices (D, H, W) of a DICOM segmentation of any tool, its segments as classes after the background, and its grid."""
    names = tuple(name for name in read_dicom_seg(path).names if name != "background")
    labels = Labels(("background", *names))
    return _segments(path, labels), labels, read_dicom_seg(path).header.grid("axial")


def read_summary(folder: Path) -> dict[str, Any] | None:
    """Return the content of `predictions.json`; None for masks of another tool."""
    try:
        plain = json.loads((folder / SUMMARY).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return plain if isinstance(plain, dict) and plain.get("images") else None


def listed_images(
    folder: Path, summary: Mapping[str, Any], labels: Labels, rule: MaskRule
) -> tuple[list[PredictedImage], list[str]]:
    """Return the images that `predictions.json` lists, and the files without a mask (videos)."""
    found, without = [], []
    for entry in summary["images"]:
        if "mask" not in entry:
            without.append(str(entry.get("file")))
            continue
        shape = tuple(int(entry[key]) for key in ("depth", "height", "width") if key in entry)
        about = entry.get("grid") or {}
        grid = Grid((1.0,) * len(shape)) if not about else Grid(**{**about, "spacing": tuple(about["spacing"])})
        path = folder / entry["mask"]
        if path.suffix.lower() == ".dcm":
            shape = _segments(path, labels).shape
            grid = read_dicom_seg(path).header.grid("axial")
        elif is_volume(path):  # a model may stack the slices in another direction than the file is read in
            source = open_source(path)
            shape, grid = tuple(source.shape), source.grid
        confidences = folder / entry["confidence"] if "confidence" in entry and len(shape) == 2 else None
        confidences = confidences if confidences is not None and confidences.is_file() else None
        found.append(PredictedImage(str(entry["file"]), path, shape, grid, labels, rule, confidences))
    return found, without


def images_in_folder(folder: Path, labels: Labels, rule: MaskRule) -> list[PredictedImage]:
    """Return the masks in a folder."""
    found = []
    for path in mask_paths(folder):
        source = open_source(path)
        found.append(PredictedImage(str(path), path, tuple(source.shape), source.grid, labels, rule))
    return found
