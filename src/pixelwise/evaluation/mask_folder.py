"""Masks that some tool wrote, to be scored like a model's: a folder that stands in for a predictor.

Comes in: a folder of mask files, and the data set they are for. Goes out: a `Prediction` per image. Knows nothing of where
the masks come from, of models or of scores.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from pixelwise.datasets.dataset import Dataset
from pixelwise.errors import DataError, MaskError, PairingError
from pixelwise.grid import Grid
from pixelwise.imageio.images import IMAGE_SUFFIXES
from pixelwise.imageio.masks import MaskRule, read_ids, read_mask
from pixelwise.labels import Labels
from pixelwise.types import Prediction

Values = Literal["ids", "data"]


@dataclass(frozen=True)
class MaskFolder:
    """Answer with the mask file of an image's name; pixels of an ignored id are left open, and count as missed.

    Args:
        labels: the data set's classes.
        files: the mask of each image, by its id.
        rule: how the values of the files become class ids.
        notices: what was assumed.
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
            MaskError: it cannot be read, holds unknown ids, or is of another size than the image.
        """
        path = self.files[id]
        mask, _ = read_mask(path, self.labels, self.rule)
        if mask.shape != image.shape[1:]:
            raise MaskError(
                path,
                expected=f"the image's size, {'×'.join(map(str, image.shape[1:]))} (height and width)",
                found="×".join(map(str, mask.shape)),
                do="Write masks at native size: resize logits before deciding, never ids.",
            )
        return Prediction(mask, self.labels, grid, id)


def open_masks(folder: Path, dataset: Dataset, values: Values | None = None) -> MaskFolder:
    """Find the mask of every image of a data set: one whose path is the end of the image's id, or the other way round.

    Args:
        folder: of mask files; of one that `predict` wrote, `masks` in it is meant.
        dataset: the images that are to be scored.
        values: whether the files hold class "ids", as tools write them, or the values of the "data" set's own masks; where
            not given, what makes sense of the files.

    Raises:
        DataError: no such folder, or no masks in it.
        PairingError: an image without a mask, or with several.
        MaskError: files that make sense both ways, and mean something else each way.
    """
    ours = (folder / "predictions.json").is_file() and (folder / "masks").is_dir()
    ours_inside = folder.name == "masks" and (folder.parent / "predictions.json").is_file()
    folder = folder / "masks" if ours else folder
    if not folder.is_dir():
        raise DataError(folder, expected="a model, or a folder of masks", found="nothing", do="Check the path.")
    found = [p for p in sorted(folder.rglob("*")) if p.suffix.lower() in IMAGE_SUFFIXES and p.is_file()]
    if not found:
        wanted = f"a model, or mask files ({', '.join(IMAGE_SUFFIXES)})"
        raise DataError(folder, expected=wanted, found="neither", do="Check the path.")
    files = _paired(folder, found, [record.id for record in dataset.records])
    more = len(found) - len(set(files.values()))
    many = "1 mask belongs" if more == 1 else f"{more} masks belong"
    notices = (f"{many} to no image of this part and {'was' if more == 1 else 'were'} not read",) if more else ()
    wanted_values = "ids" if values is None and (ours or ours_inside) else values
    rule, told = _rule(list(files.values()), dataset, wanted_values)
    return MaskFolder(dataset.labels, files, rule, (*notices, *told))


def _paired(folder: Path, found: Sequence[Path], ids: Sequence[str]) -> dict[str, Path]:
    whole: dict[str, list[Path]] = {}
    ends: dict[str, list[Path]] = {}
    for path in found:
        name = path.relative_to(folder).with_suffix("").as_posix()
        whole.setdefault(name, []).append(path)
        for end in _ends(name):
            ends.setdefault(end, []).append(path)
    files: dict[str, Path] = {}
    missing = []
    for id in ids:
        # A tail in common is not enough: each of two videos has a frame 0.
        fitting = ends.get(id) or next((whole[end] for end in _ends(id) if end in whole), [])
        if not fitting:
            missing.append(id)
        elif len(fitting) > 1:
            raise _several(id, fitting)
        else:
            files[id] = fitting[0]
    if missing:
        shown = ", ".join(missing[:3]) + (f" and {len(missing) - 3} more" if len(missing) > 3 else "")
        raise PairingError(
            folder,
            expected=f"a mask for each of {len(ids)} images, of the image's name",
            found=f"none for {shown}",
            do="Predict these too, or choose the --split that was predicted.",
        )
    twice = _first_twice(files)
    if twice is not None:
        first, second = twice
        raise PairingError(
            files[first],
            expected="one image for every mask",
            found=f"both {first} and {second}",
            do="Keep the folders of the images in the names of the masks.",
        )
    return files


def _ends(name: str) -> list[str]:
    """Give a path and all its ends: a/b/c, b/c, c."""
    splits = PurePosixPath(name).parts
    return ["/".join(splits[start:]) for start in range(len(splits))]


def _several(id: str, paths: Sequence[Path]) -> PairingError:
    return PairingError(
        id,
        expected="one mask",
        found=", ".join(map(str, paths[:3])),
        do="Keep the folders of the images in the names of the masks, and each mask once.",
    )


def _first_twice(files: dict[str, Path]) -> tuple[str, str] | None:
    seen: dict[Path, str] = {}
    for id, path in files.items():
        if path in seen:
            return seen[path], id
        seen[path] = id
    return None


def _rule(paths: Sequence[Path], dataset: Dataset, values: Values | None) -> tuple[MaskRule, tuple[str, ...]]:
    """Settle how the values are read, for all masks together: class ids, or as the data set's own, whichever makes sense.

    All files are looked at where it matters: what decides may stand in the last one.
    """
    labels, rule = dataset.labels, dataset.rule
    white = _white(paths, labels)
    plain = MaskRule(binary=False) if white is None else MaskRule(values=white)
    told = () if white is None else (_told_white(white, labels),)
    if values == "ids" or (values is None and rule.stored):
        return plain, told
    by_data = ("the masks are read as the data set's own, by data.mask_values",)
    if values == "data":
        return rule, by_data
    as_ids, as_data, differ = True, True, False
    for path in paths:
        one = _read(path, labels, plain) if as_ids else None
        other = _read(path, labels, rule) if as_data else None
        as_ids, as_data = as_ids and one is not None, as_data and other is not None
        differ = differ or (one is not None and other is not None and bool((one != other).any()))
    # A threshold makes sense of anything: of ids it makes nothing but the first class.
    if as_ids and as_data and differ and rule.threshold is None:
        raise MaskError(
            paths[0].parent,
            expected="values that mean one thing",
            found="values that are class ids, and others by data.mask_values",
            do="Add --set evaluate.masks=ids, or --set evaluate.masks=data.",
        )
    return (rule, by_data) if as_data and not as_ids else (plain, told)


def _told_white(white: dict[int, int], labels: Labels) -> str:
    names = dict(zip(labels.ids, labels.names, strict=True))
    return f"the masks hold 0 and 255: read as {names[white[0]]} and {names[white[255]]}"


def _white(paths: Iterable[Path], labels: Labels) -> dict[int, int] | None:
    """Tell masks of 0 and 255 from those of two ids and void: of the former none holds the second id."""
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
    """Read a mask by a rule; None where it makes no sense so."""
    try:
        return read_mask(path, labels, rule)[0]
    except DataError:
        return None
