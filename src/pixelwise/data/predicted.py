"""Masks that some tool wrote, to be scored like a model's: a folder that stands in for a predictor.

Comes in: a folder of mask files, and the data set they are for. Goes out: a `Prediction` per picture. Knows nothing of where
the masks come from, of models or of scores.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pixelwise.data.dataset import Dataset
from pixelwise.data.images import IMAGE_SUFFIXES
from pixelwise.data.masks import MaskRule, read_ids, read_mask
from pixelwise.errors import DataError, MaskError, PairingError
from pixelwise.grid import Grid
from pixelwise.labels import Labels
from pixelwise.types import Prediction

_MOST_LOOKED_AT = 16


@dataclass(frozen=True)
class MaskFolder:
    """Answer with the mask file of a picture's name; pixels of an ignored id are left open, and count as missed.

    Args:
        labels: the data set's classes.
        files: the mask of each picture, by its id.
        rule: how the values of the files become class ids.
        notices: what was assumed.
    """

    labels: Labels
    files: dict[str, Path]
    rule: MaskRule
    notices: tuple[str, ...] = ()

    def __call__(self, image: NDArray[Any], grid: Grid, *, id: str = "") -> Prediction:
        """Read one mask.

        Raises:
            MaskError: it cannot be read, holds unknown ids, or is of another size than the picture.
        """
        path = self.files[id]
        mask, _ = read_mask(path, self.labels, self.rule)
        if mask.shape != image.shape[1:]:
            raise MaskError(
                path,
                expected=f"the picture's size, {'×'.join(map(str, image.shape[1:]))} (height and width)",
                found="×".join(map(str, mask.shape)),
                do="Write masks at native size: resize logits before deciding, never ids.",
            )
        return Prediction(mask, self.labels, grid, id)


def open_masks(folder: Path, dataset: Dataset) -> MaskFolder:
    """Find the mask of every picture of a data set: by its whole id, or by the end of its path.

    A folder that `predict` wrote may be named itself, or its `masks`.

    Raises:
        DataError: no such folder, or no masks in it.
        PairingError: a picture without a mask, or with several.
    """
    folder = folder / "masks" if (folder / "predictions.json").is_file() and (folder / "masks").is_dir() else folder
    if not folder.is_dir():
        raise DataError(folder, expected="a model, or a folder of masks", found="nothing", do="Check the path.")
    found = [p for p in sorted(folder.rglob("*")) if p.suffix.lower() in IMAGE_SUFFIXES and p.is_file()]
    if not found:
        wanted = f"a model, or mask files ({', '.join(IMAGE_SUFFIXES)})"
        raise DataError(folder, expected=wanted, found="neither", do="Check the path.")
    files = _paired(folder, found, [record.id for record in dataset.records])
    more = len(found) - len(set(files.values()))
    notices = (f"{more} masks in {folder} belong to no picture of this part and were not read",) if more else ()
    rule, told = _rule(list(files.values()), dataset)
    return MaskFolder(dataset.labels, files, rule, (*notices, *told))


def _paired(folder: Path, found: Sequence[Path], ids: Sequence[str]) -> dict[str, Path]:
    names: dict[str, list[Path]] = {}
    for path in found:
        parts = PurePosixPath(path.relative_to(folder).with_suffix("").as_posix()).parts
        for start in range(len(parts)):
            names.setdefault("/".join(parts[start:]), []).append(path)
    files: dict[str, Path] = {}
    missing = []
    for id in ids:
        parts = PurePosixPath(id).parts
        endings = ["/".join(parts[start:]) for start in range(len(parts))]
        name = next((ending for ending in endings if ending in names), None)
        if name is None:
            missing.append(id)
        elif len(names[name]) > 1:
            raise _several(id, names[name])
        else:
            files[id] = names[name][0]
    if missing:
        shown = ", ".join(missing[:3]) + (f" and {len(missing) - 3} more" if len(missing) > 3 else "")
        raise PairingError(
            folder,
            expected=f"a mask for each of {len(ids)} pictures, of the picture's name",
            found=f"none for {shown}",
            do="Predict these too, or choose the --split that was predicted.",
        )
    twice = _first_twice(files)
    if twice is not None:
        first, second = twice
        raise PairingError(
            files[first],
            expected="one picture for every mask",
            found=f"both {first} and {second}",
            do="Keep the folders of the pictures in the names of the masks.",
        )
    return files


def _several(id: str, paths: Sequence[Path]) -> PairingError:
    return PairingError(
        id,
        expected="one mask",
        found=", ".join(map(str, paths[:3])),
        do="Keep the folders of the pictures in the names of the masks, and each mask once.",
    )


def _first_twice(files: dict[str, Path]) -> tuple[str, str] | None:
    seen: dict[Path, str] = {}
    for id, path in files.items():
        if path in seen:
            return seen[path], id
        seen[path] = id
    return None


def _rule(paths: Sequence[Path], dataset: Dataset) -> tuple[MaskRule, tuple[str, ...]]:
    """Settle how the values are read, for all masks together.

    Class ids first, as tools write them. Where some file makes no sense so, the way in which the data set's own masks are read.
    """
    some = paths[:: max(len(paths) // _MOST_LOOKED_AT, 1)][:_MOST_LOOKED_AT]
    plain = MaskRule(binary=False)
    if _white_is_second(some, dataset.labels):
        told = f"the masks hold 0 and 255: read as {dataset.labels.names[0]} and {dataset.labels.names[1]}"
        return MaskRule(values={0: min(dataset.labels.ids), 255: max(dataset.labels.ids)}), (told,)
    if _reads(some, dataset.labels, plain) or not _reads(some, dataset.labels, dataset.rule):
        return plain, ()
    return dataset.rule, ("the masks are read as the data set's own, by data.mask_values",)


def _white_is_second(paths: Iterable[Path], labels: Labels) -> bool:
    """Tell masks of 0 and 255 from those of two ids and void: of the former none holds the second id."""
    if labels.num_classes != 2 or 255 in labels.ids:
        return False
    values: set[int] = set()
    for path in paths:
        try:
            ids = read_ids(path, MaskRule(binary=False))[0]
        except DataError:
            return False
        values.update(np.unique(ids).tolist()[:3])
    return 255 in values and values <= {0, 255}


def _reads(paths: Iterable[Path], labels: Labels, rule: MaskRule) -> bool:
    try:
        for path in paths:
            read_mask(path, labels, rule)
    except DataError:
        return False
    return True
