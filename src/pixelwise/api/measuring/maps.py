"""One predicted map, with its confidences, its image, and the windows of it that its model was trained on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pixelwise.api.measuring.predicted import PredictedImage, listed_images, read_summary
from pixelwise.api.predicting.requests import SUMMARY
from pixelwise.api.size_calibration import used_in_training
from pixelwise.config import read_yaml
from pixelwise.errors import DataError, UsageError
from pixelwise.evaluation.score_counts import listed
from pixelwise.formats.reading import file_hash
from pixelwise.grid import Grid
from pixelwise.imageio.images import read_header
from pixelwise.imageio.masks import MaskRule, read_ids
from pixelwise.imageio.scene_writing import class_ids
from pixelwise.imageio.sources import open_source
from pixelwise.labels import Labels
from pixelwise.measuring.masks import bands
from pixelwise.tiles import Window

_LABELS = "labels.yaml"
_IGNORED = 255
_ROWS = 512
_DIGITS = 16


@dataclass(frozen=True, eq=False)
class PredictedMap:
    """A predicted map; a `measuring.masks.MaskSource`.

    Args:
        image: its mask.
        source: the image that was predicted; None if it is unknown.
        model: the folder of the model; None if it is unknown.
    """

    image: PredictedImage
    source: Path | None = None
    model: Path | None = None

    @property
    def id(self) -> str:
        """Name of the image."""
        return self.image.id

    @property
    def path(self) -> Path:
        """The file of the mask."""
        return self.image.path

    @property
    def shape(self) -> tuple[int, ...]:
        """(H, W)."""
        return self.image.shape

    @property
    def grid(self) -> Grid:
        """Where the pixels are in the world."""
        return self.image.grid

    @property
    def labels(self) -> Labels:
        """The classes."""
        return self.image.labels

    def read(self, window: Window) -> NDArray[Any]:
        """See `MaskSource.read`."""
        return self.image.read(window)

    def confidence(self, window: Window) -> NDArray[np.float32] | None:
        """See `MaskSource.confidence`; NaN where there is none."""
        return self.image.confidence(window)


def open_map(path: str | Path) -> PredictedMap:
    """Open a predicted map.

    Args:
        path: an output folder of `predict` with one image, a mask in one, or a mask of any program, with a `labels.yaml` beside it or
            without, which names its ids.

    Raises:
        DataError: no mask, or several.
        UsageError: a volume.
    """
    path = Path(path)
    if path.is_dir():
        return _require_flat(_only_map(path))
    if not path.is_file():
        raise DataError(path, expected="a predicted map", found="nothing", do="Check the path.")
    for folder in path.absolute().parents[1:6]:
        if (folder / SUMMARY).is_file():
            found = [each for each in _maps_in(folder) if each.path.resolve() == path.resolve()]
            if found:
                return _require_flat(found[0])
    return _require_flat(_foreign(path))


def _only_map(folder: Path) -> PredictedMap:
    found = _maps_in(folder)
    if len(found) != 1:
        do = (
            f"Name one of the masks, such as {found[0].path}."
            if found
            else "Predict the image first: pixelwise predict"
        )
        raise DataError(
            folder, expected="an output folder of predict with one map", found=f"{len(found) or 'none'}", do=do
        )
    return found[0]


def _maps_in(folder: Path) -> list[PredictedMap]:
    """Return the maps that `predictions.json` lists."""
    known = read_summary(folder)
    if known is None:
        return []
    labels = Labels.from_dict(known["labels"])
    labels = labels if labels.ignore_ids else replace(labels, ignore_ids=(class_ids(labels)[1],))
    images, _ = listed_images(folder, known, labels, MaskRule(binary=False))
    entries = [entry for entry in known["images"] if "mask" in entry]
    model = None if known.get("model") is None else Path(known["model"])
    sources = [Path(str(entry["file"])) for entry in entries]
    return [
        PredictedMap(image, source if source.is_file() else None, model)
        for image, source in zip(images, sources, strict=True)
    ]


def _require_flat(found: PredictedMap) -> PredictedMap:
    if len(found.shape) != 2:
        raise UsageError(
            found.path, expected="a map, with rows and columns", found="a volume", do="Use --truth for its totals."
        )
    return found


def _foreign(path: Path) -> PredictedMap:
    """Open a mask of another program."""
    source = open_source(path)
    described = next((each for each in (path.parent / _LABELS, path.parent.parent / _LABELS) if each.is_file()), None)
    if described is None:
        labels = _listed_labels(path, source.shape)
    else:
        labels = Labels.from_dict(read_yaml(described)[0], str(described))
    image = PredictedImage(str(path), path, tuple(source.shape), source.grid, labels, MaskRule(binary=False))
    return PredictedMap(image)


def _listed_labels(path: Path, shape: Sequence[int]) -> Labels:
    """Return the ids that occur in a mask as classes with these names, without nodata and 255, unless 0 and 255 are all."""
    nodata = read_header(path).nodata
    found: set[int] = set()
    for band in bands(shape, _ROWS):
        found.update(map(int, np.unique(read_ids(path, MaskRule(binary=False), window=band)[0])))
        if len(found) > _IGNORED + 1:
            do = "Name the classes in a labels.yaml beside it."
            raise DataError(path, expected="a map of classes", found="more than 256 values", do=do)
    ignored = set() if nodata is None or not float(nodata).is_integer() else {int(nodata)}
    if found != {0, _IGNORED}:
        ignored.add(_IGNORED)
    ids = sorted(found - ignored)
    if not ids:
        raise DataError(path, expected="a map of classes", found="only pixels without data", do="Check the file.")
    return Labels(tuple(map(str, ids)), tuple(ids), ignore_ids=tuple(sorted(ignored)))


def training_windows(found: PredictedMap) -> tuple[list[Window], list[str]]:
    """Return the windows of a map that its model was trained or validated on, and notices; the whole map if all of it was."""
    used = None if found.model is None else used_in_training(found.model)
    if used is None or found.source is None:
        why = (
            "the model"
            if found.model is None
            else "the image"
            if found.source is None
            else "what the model was trained on"
        )
        return [], [
            f"{why} is unknown: make sure that no point is answered by the labels that the model was trained on"
        ]
    digits = file_hash(found.source)[:_DIGITS]
    entries = [entry for use in ("train", "val") for entry in used.get(use, {}).values() if entry[0] == digits]
    whole = Window((0, 0), tuple(found.shape))
    windows = [whole if entry[2] is None else Window(tuple(entry[2][0]), tuple(entry[2][1])) for entry in entries]
    return windows, []


def left_out_notices(found: PredictedMap, excluded: int) -> list[str]:
    """Return a notice of how many pixels with a class are in the windows that the model was trained on; nothing without any."""
    if not excluded:
        return []
    share = excluded / (found.shape[0] * found.shape[1])
    return [
        f"{excluded:,} pixels ({share:.1%} of the map) are left out, since the model was trained or validated on them: areas are those of "
        "the rest of the map"
    ]


def longitudes_and_latitudes(grid: Grid, positions: NDArray[np.floating]) -> NDArray[np.float64] | None:
    """Return WGS 84 longitude and latitude of positions (n, 2), row and column; None without a reference system or pyproj."""
    transform = _transformer(grid)
    if transform is None:
        return None
    found = np.stack(transform.transform(*grid.to_world(positions).T), 1)
    return found if np.isfinite(found).all() else None


def positions_of(grid: Grid, degrees: NDArray[np.float64]) -> NDArray[np.float64] | None:
    """Return the row and column of WGS 84 longitudes and latitudes (n, 2); None without a reference system or pyproj."""
    transform = _transformer(grid)
    if transform is None:
        return None
    return np.asarray(grid.to_pixels(np.stack(transform.transform(*degrees.T, direction="INVERSE"), 1)), np.float64)


def _transformer(grid: Grid) -> Any:
    if grid.crs is None or grid.affine is None:
        return None
    try:
        from pyproj import Transformer
        from pyproj.exceptions import ProjError
    except ImportError:
        return None
    try:
        return Transformer.from_crs(grid.crs, "EPSG:4326", always_xy=True)
    except ProjError:
        return None


def described_windows(windows: Sequence[Window]) -> str:
    """List windows by rows and columns."""
    return listed([f"rows {w.start[0]}–{w.stop[0] - 1}, columns {w.start[1]}–{w.stop[1] - 1}" for w in windows], 3)
