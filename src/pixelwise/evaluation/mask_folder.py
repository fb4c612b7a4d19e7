"""Folders of mask files, written by any tool, as predictors to be scored."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from pixelwise.datasets.dataset import Dataset
from pixelwise.errors import DataError, MaskError, PairingError
from pixelwise.evaluation.score_counts import listed
from pixelwise.grid import Grid
from pixelwise.imageio.file_formats import READABLE
from pixelwise.imageio.images import IMAGE_SUFFIXES
from pixelwise.imageio.listing import walk
from pixelwise.imageio.masks import MaskRule, read_ids, read_mask
from pixelwise.labels import Labels
from pixelwise.types import Prediction

Values = Literal["ids", "data"]


@dataclass(frozen=True)
class MaskFolder:
    """A predictor that reads the mask file of each image; pixels with an ignored id have no predicted class.

    Args:
        labels: the data set's classes.
        files: the mask of each image, by image id.
        rule: how the values of the files map to class ids.
        notices: assumptions made.
    """

    labels: Labels
    files: dict[str, Path]
    rule: MaskRule
    notices: tuple[str, ...] = ()

    def __call__(
        self, image: NDArray[Any], grid: Grid, valid: NDArray[np.bool_] | None = None, *, id: str = ""
    ) -> Prediction:
        """Read one mask.

        Raises:
            MaskError: it cannot be read, has unknown ids, or differs from the image in size.
        """
        path = self.files[id]
        mask, _ = read_mask(path, self.labels, self.rule)
        if mask.shape != image.shape[1:]:
            raise MaskError(
                path,
                expected=f"the image's size, {'×'.join(map(str, image.shape[1:]))} (height and width)",
                found="×".join(map(str, mask.shape)),
                do="Write masks at native size: resize logits, not class ids.",
            )
        return Prediction(mask, self.labels, grid, id)


def open_masks(folder: Path, dataset: Dataset, values: Values | None = None) -> MaskFolder:
    """Find the mask of every image of a data set, whose path must end with the image's id or the reverse.

    Args:
        folder: of mask files; an output folder of `predict` stands for its subfolder `masks`.
        dataset: the images to score.
        values: whether the files hold class "ids", or the values of the "data" set's own masks (`data.mask_values`); by default
            the interpretation that is valid for all files.

    Raises:
        DataError: no such folder, or no masks in it.
        PairingError: an image without a mask, or with several.
        MaskError: both interpretations are valid, and differ.
    """
    predicted = (folder / "predictions.json").is_file() and (folder / "masks").is_dir()
    inside_predicted = folder.name == "masks" and (folder.parent / "predictions.json").is_file()
    folder = folder / "masks" if predicted else folder
    if not folder.is_dir():
        raise DataError(folder, expected="a model, or a folder of masks", found="nothing", do="Check the path.")
    paths = [p for p in sorted(walk(folder)) if p.suffix.lower() in IMAGE_SUFFIXES and p.is_file()]
    if not paths:
        expected = f"a model, or mask files ({READABLE})"
        raise DataError(folder, expected=expected, found="neither", do="Check the path.")
    files = _paired(folder, paths, [record.id for record in dataset.records])
    unused = len(paths) - len(set(files.values()))
    notices: tuple[str, ...] = ()
    if unused:
        notices = (f"{unused} mask{'s' * (unused > 1)} without an image in this split: not read",)
    if values is None and (predicted or inside_predicted):
        values = "ids"
    rule, rule_notices = _rule(list(files.values()), dataset, values)
    return MaskFolder(dataset.labels, files, rule, (*notices, *rule_notices))


def _paired(folder: Path, paths: Sequence[Path], ids: Sequence[str]) -> dict[str, Path]:
    by_name: dict[str, list[Path]] = {}
    by_suffix: dict[str, list[Path]] = {}
    for path in paths:
        name = path.relative_to(folder).with_suffix("").as_posix()
        by_name.setdefault(name, []).append(path)
        for suffix in _suffixes(name):
            by_suffix.setdefault(suffix, []).append(path)
    files: dict[str, Path] = {}
    image_of: dict[Path, str] = {}
    missing = []
    for id in ids:
        # One path must contain the other; a common suffix is not enough, since each of two videos has a frame 0.
        candidates = by_suffix.get(id) or next((by_name[suffix] for suffix in _suffixes(id) if suffix in by_name), [])
        if not candidates:
            missing.append(id)
            continue
        if len(candidates) > 1:
            raise PairingError(
                id,
                expected="one mask",
                found=", ".join(map(str, candidates[:3])),
                do="Keep the folders of the images in the names of the masks, and one mask per image.",
            )
        files[id] = candidates[0]
    if missing:
        raise PairingError(
            folder,
            expected=f"a mask with the name of the image for each of {len(ids)} images",
            found=f"none for {listed(missing, 3)}",
            do="Predict these images too, or choose the --split that was predicted.",
        )
    for id, path in files.items():
        if path in image_of:
            raise PairingError(
                path,
                expected="one image for every mask",
                found=f"both {image_of[path]} and {id}",
                do="Keep the folders of the images in the names of the masks.",
            )
        image_of[path] = id
    return files


def _suffixes(name: str) -> list[str]:
    """Return a path and all its suffixes: a/b/c, b/c, c."""
    parts = PurePosixPath(name).parts
    return ["/".join(parts[start:]) for start in range(len(parts))]


def _rule(paths: Sequence[Path], dataset: Dataset, values: Values | None) -> tuple[MaskRule, tuple[str, ...]]:
    """Choose how values are read, the same for all masks: as class ids, or as the data set's own masks.

    All files are read if necessary, since the decisive values may be in the last one.
    """
    labels, data_rule = dataset.labels, dataset.rule
    binary = _binary_values(paths, labels)
    id_rule, id_notices = MaskRule(binary=False), tuple[str, ...]()
    if binary is not None:
        names = dict(zip(labels.ids, labels.names, strict=True))
        id_rule = MaskRule(values=binary)
        id_notices = (f"the masks hold 0 and 255: read as {names[binary[0]]} and {names[binary[255]]}",)
    if values == "ids" or (values is None and data_rule.stored):
        return id_rule, id_notices
    data_notices = ("the masks are read like the data set's own masks, by data.mask_values",)
    if values == "data":
        return data_rule, data_notices
    as_ids, as_data, differ = True, True, False
    for path in paths:
        by_ids = _read(path, labels, id_rule) if as_ids else None
        by_data = _read(path, labels, data_rule) if as_data else None
        as_ids, as_data = by_ids is not None, by_data is not None
        differ = differ or (by_ids is not None and by_data is not None and bool((by_ids != by_data).any()))
    # A threshold is valid for any values, and would map all ids to the first class.
    if as_ids and as_data and differ and data_rule.threshold is None:
        raise MaskError(
            paths[0].parent,
            expected="unambiguous values",
            found="values that are valid as class ids and, differently, by data.mask_values",
            do="Add --set evaluate.masks=ids, or --set evaluate.masks=data.",
        )
    return (data_rule, data_notices) if as_data and not as_ids else (id_rule, id_notices)


def _binary_values(paths: Iterable[Path], labels: Labels) -> dict[int, int] | None:
    """Map 0 and 255 to the two class ids if no mask has other values; None if 255 is an id, or an ignored value."""
    if labels.num_classes != 2 or 255 in labels.ids:
        return None
    values: set[int] = set()
    for path in paths:
        try:
            ids = read_ids(path, MaskRule(binary=False))[0]
        except DataError:
            return None
        values.update(np.unique(ids).tolist()[:3])
    return {0: min(labels.ids), 255: max(labels.ids)} if 255 in values and values <= {0, 255} else None


def _read(path: Path, labels: Labels, rule: MaskRule) -> NDArray[Any] | None:
    """Read a mask by a rule; return None if the rule is not valid for it."""
    try:
        return read_mask(path, labels, rule)[0]
    except DataError:
        return None
