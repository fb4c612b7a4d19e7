"""Polygons of predicted masks of images."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pixelwise.api.predicting.sources import Item
from pixelwise.errors import DataError, UsageError
from pixelwise.imageio.masks import MaskRule, read_mask
from pixelwise.imageio.scene_writing import class_ids
from pixelwise.imageio.sources import Source
from pixelwise.imageio.volume_files import is_volume
from pixelwise.imageio.volume_sources import VolumeSource
from pixelwise.labels import Labels
from pixelwise.measuring.grid_scale import grid_scale
from pixelwise.measuring.masks import ArrayMask, MaskSource
from pixelwise.measuring.vectors import SUFFIXES, VectorFormat, write_vectors
from pixelwise.tiles import Window
from pixelwise.types import Prediction


@dataclass(frozen=True, eq=False)
class _SceneMask:
    """The mask of a scene, read by windows; see `MaskSource`."""

    id: str
    path: Path
    shape: tuple[int, ...]
    labels: Labels

    def read(self, window: Window) -> NDArray[Any]:
        return read_mask(self.path, self.labels, MaskRule(binary=False), window=window)[0]

    def confidence(self, window: Window) -> NDArray[np.float32] | None:
        return None


def require_images(items: Iterable[Item], formats: Sequence[VectorFormat]) -> None:
    """Raise UsageError if polygons are wanted of a volume or a video."""
    for item in items if formats else ():
        found = "a video" if item.is_video else "a volume" if _is_volume(item) else None
        if found is not None:
            raise UsageError(
                item.path,
                expected="an image, since polygons lie in a plane (predict.polygons)",
                found=found,
                do="Leave out predict.polygons, or predict it by itself.",
            )


def _is_volume(item: Item) -> bool:
    return not item.error and (isinstance(item.source, VolumeSource) or is_volume(item.path))


def prediction_polygons(
    name: str, source: Source, prediction: Prediction, out: Path, formats: Sequence[VectorFormat], simplify: float
) -> dict[str, Any]:
    """Write the polygons of an image; return its additions to the entry in `predictions.json`."""
    mask = ArrayMask(prediction.mask, prediction.labels, str(source.path))
    return _written(name, source, mask, out, formats, simplify)


def scene_polygons(
    name: str, source: Source, path: Path, labels: Labels, out: Path, formats: Sequence[VectorFormat], simplify: float
) -> dict[str, Any]:
    """Write the polygons of a scene, whose mask is read back from `path`; return its additions to the entry."""
    known = labels if labels.ignore_ids else replace(labels, ignore_ids=(class_ids(labels)[1],))
    return _written(
        name, source, _SceneMask(str(source.path), path, tuple(source.shape), known), out, formats, simplify
    )


def with_polygons(entry: Mapping[str, Any], more: Mapping[str, Any]) -> dict[str, Any]:
    """Return an entry with what was written of polygons, and with the notices of both."""
    notices = [*entry.get("notices", ()), *more.get("notices", ())]
    return {**entry, **more} | ({"notices": notices} if notices else {})


def _written(
    name: str, source: Source, mask: MaskSource, out: Path, formats: Sequence[VectorFormat], simplify: float
) -> dict[str, Any]:
    if not formats:
        return {}
    files, notices = {}, []
    scale = grid_scale(source.grid, source.shape)
    for format in formats:
        file = f"polygons/{name}{SUFFIXES[format]}"
        try:
            write_vectors(mask, source.grid, out / file, format=format, simplify=simplify, scale=scale)
            files[format] = file
        except DataError as error:  # the mask is kept
            notices.append(str(error))
    return {"polygons": files} | ({"notices": notices} if notices else {})
