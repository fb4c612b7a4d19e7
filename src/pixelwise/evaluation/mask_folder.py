"""Folders of mask files, written by any tool, as predictors to be scored.

A mask file belongs to an image, or to the scene or volume of which images are windows or slices: those are read from it. So what
`predict` writes for a source is scored on the windows or slices of that source.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from pixelwise.datasets.dataset import Dataset
from pixelwise.errors import DataError, MaskError, PairingError
from pixelwise.evaluation.score_counts import listed
from pixelwise.formats.dicom_seg import SegmentedSlice
from pixelwise.formats.reading import read_truth, read_truth_ids
from pixelwise.formats.records import Record
from pixelwise.grid import Grid
from pixelwise.imageio import volume_files
from pixelwise.imageio.dicom_seg import read_dicom_seg
from pixelwise.imageio.dicom_seg_header import read_identifiers, read_segmentation_header, segmentation_kind
from pixelwise.imageio.file_formats import READABLE
from pixelwise.imageio.images import IMAGE_SUFFIXES, read_size
from pixelwise.imageio.listing import walk
from pixelwise.imageio.masks import MaskRule
from pixelwise.imageio.scene_writing import class_ids
from pixelwise.labels import Labels
from pixelwise.types import Prediction

Values = Literal["ids", "data"]
_DICOM = (".dcm",)
_SLICER = ".seg.nrrd"  # of segmentations of 3D Slicer
_PREDICT = "Predict these images too, or choose the --split that was predicted."


@dataclass(frozen=True)
class MaskFolder:
    """A predictor that reads the mask file of each image; pixels with an ignored id have no predicted class.

    Args:
        labels: the data set's classes.
        masks: the mask of each image, by image id: the record of the image with the predicted mask as its mask.
        rule: how the values of the files map to class ids.
        notices: assumptions made.
    """

    labels: Labels
    masks: dict[str, Record]
    rule: MaskRule
    notices: tuple[str, ...] = ()

    def __call__(
        self, image: NDArray[Any], grid: Grid, valid: NDArray[np.bool_] | None = None, *, id: str = ""
    ) -> Prediction:
        """Read one mask.

        Raises:
            MaskError: it cannot be read, has unknown ids, or differs from the image in size.
        """
        record = self.masks[id]
        path = record.mask
        assert path is not None
        if record.window is not None:
            _require_size(path, read_size(path)[1:], read_size(record.image)[1:])
        if isinstance(record.source, SegmentedSlice):
            record = replace(record, source=replace(record.source, unlabelled=self.labels.background))
        mask, _ = read_truth(record, self.labels, self.rule)
        _require_size(path, mask.shape, image.shape[1:])
        return Prediction(mask, self.labels, grid, id)


def _require_size(path: Path, found: Sequence[int], expected: Sequence[int]) -> None:
    if tuple(found) != tuple(expected):
        raise MaskError(
            path,
            expected=f"the image's size, {'×'.join(map(str, expected))} (height and width)",
            found="×".join(map(str, found)),
            do="Write masks at native size: resize logits, not class ids.",
        )


def open_masks(folder: Path, dataset: Dataset, values: Values | None = None, missing: str = _PREDICT) -> MaskFolder:
    """Find the mask of every image of a data set, whose path must end with the image's id or the reverse.

    Args:
        folder: of mask files; an output folder of `predict` stands for its subfolder `masks`.
        dataset: the images to score.
        values: whether the files hold class "ids", or the values of the "data" set's own masks (`data.mask_values`); by default
            the interpretation that is valid for all files.
        missing: advice if images have no mask.

    Raises:
        DataError: no such folder, or no masks in it.
        PairingError: an image without a mask, or with several.
        MaskError: both interpretations are valid, and differ.
    """
    predicted = _is_predicted(folder)
    inside_predicted = folder.name == "masks" and (folder.parent / "predictions.json").is_file()
    paths = mask_paths(folder)
    folder = folder / "masks" if predicted else folder
    masks, used = _masks(folder, paths, dataset.records, missing)
    unused = len(paths) - len(used)
    notices: tuple[str, ...] = ()
    if unused:
        notices = (f"{unused} mask{'s' * (unused > 1)} without an image in this split: not read",)
    if values is None and (predicted or inside_predicted):
        # `predict` writes ids: a mask of 0 and 255 shows the first class and ignored pixels.
        return MaskFolder(_written_labels(dataset.labels), masks, MaskRule(binary=False), notices)
    rule, rule_notices = _rule(list(masks.values()), dataset, values)
    return MaskFolder(dataset.labels, masks, rule, (*notices, *rule_notices))


def mask_paths(folder: Path) -> list[Path]:
    """Return the mask files in a folder, or in the subfolder `masks` of an output folder of `predict`.

    Raises:
        DataError: no such folder, or no masks in it.
    """
    folder = folder / "masks" if _is_predicted(folder) else folder
    if not folder.is_dir():
        raise DataError(folder, expected="a model, or a folder of masks", found="nothing", do="Check the path.")
    paths = [path for path in sorted(walk(folder)) if _is_mask(path)]
    if not paths:
        expected = f"a model, or mask files ({READABLE}, NIfTI, NRRD, DICOM)"
        raise DataError(folder, expected=expected, found="neither", do="Check the path.")
    return paths


def _is_predicted(folder: Path) -> bool:
    return (folder / "predictions.json").is_file() and (folder / "masks").is_dir()


def _written_labels(labels: Labels) -> Labels:
    """Return labels with the id that `predict` writes for ignored pixels."""
    return labels if labels.ignore_ids else replace(labels, ignore_ids=(class_ids(labels)[1],))


def _is_mask(path: Path) -> bool:
    named = path.suffix.lower() in (*IMAGE_SUFFIXES, *_DICOM) or volume_files.is_volume(path)
    return named and path.is_file()


def _stem(path: Path) -> str:
    """Return a path without the suffix of an image or a volume (.nii.gz and .seg.nrrd are one each)."""
    name = path.as_posix()
    ends = [end for end in (_SLICER, *volume_files.SUFFIXES) if name.lower().endswith(end)]
    return name[: -max(map(len, ends))] if ends else path.with_suffix("").as_posix()


def _masks(
    folder: Path, paths: Sequence[Path], records: Sequence[Record], missing: str
) -> tuple[dict[str, Record], set[Path]]:
    """Return the mask of each record, and the files that are used.

    Windows and slices are read from the mask of their scene or volume, unless each has a mask of its own.
    """
    names = _Names(folder, paths)
    pieces = [record for record in records if _is_piece(record)]
    apart = bool(pieces) and all(names.has(record.id) for record in pieces)
    own = [record for record in records if apart or not _is_piece(record)]
    files = _paired(folder, paths, [record.id for record in own], missing)
    wholes = {} if apart else _paired_wholes(folder, paths, pieces, names, missing)
    masks = {record.id: replace(record, mask=files[record.id], source=None, window=None, plane=None) for record in own}
    if not apart:
        masks |= {record.id: _piece_of(record, wholes[record.id]) for record in pieces}
    return masks, {*files.values(), *wholes.values()}


def _is_piece(record: Record) -> bool:
    return record.window is not None or record.plane is not None


def _piece_of(record: Record, path: Path) -> Record:
    """Return the record of a window or slice with the mask of the scene or volume as its mask."""
    if record.plane is None or volume_files.format_of(path) != "DICOM":
        return replace(record, mask=path, source=None)
    known = record.source.header if isinstance(record.source, SegmentedSlice) else read_dicom_seg(path).header
    segments = tuple(dict.fromkeys(segment.name for segment in read_segmentation_header(path).segments))
    return replace(record, mask=path, source=SegmentedSlice((path,), known, record.plane, segments, frozenset(), None))


class _Names:
    """The names of mask files, and their ends."""

    def __init__(self, folder: Path, paths: Sequence[Path]) -> None:
        self._whole = {_stem(path.relative_to(folder)) for path in paths}
        self._ends = {end for name in self._whole for end in _suffixes(name)}

    def has(self, name: str) -> bool:
        """Whether the name of a file ends with this one, or the reverse."""
        return name in self._ends or not self._whole.isdisjoint(_suffixes(name))


def _paired_wholes(
    folder: Path, paths: Sequence[Path], pieces: Sequence[Record], names: _Names, missing: str
) -> dict[str, Path]:
    """Return the mask of the scene or volume of each window or slice, by the id of the piece.

    It refers to the DICOM series, was written for the image according to `predictions.json`, or has the id of the scene or volume or
    the name of its file.
    """
    groups: dict[str, list[Record]] = {}
    for record in pieces:
        groups.setdefault(record.id.rpartition("/")[0], []).append(record)
    by_series = _by_series(paths) if any(record.plane is not None for record in pieces) else {}
    written = _by_source(folder)
    found: dict[str, Path] = {}
    chosen: dict[str, str] = {}
    for name, (first, *_) in groups.items():
        files = by_series.get(_series_of(first), []) if by_series else []
        sources = (first.image, first.image.parent) if first.plane is not None else (first.image,)
        files = files or next((written[each.resolve()] for each in sources if each.resolve() in written), [])
        if len(files) == 1:
            found[name] = files[0]
            continue
        parent, file = name.rpartition("/")[0], _stem(Path(first.image.name))
        chosen[name] = next((each for each in (name, f"{parent}/{file}".lstrip("/"), file) if names.has(each)), name)
    named = _paired(folder, paths, list(chosen.values()), missing)
    found |= {name: named[each] for name, each in chosen.items()}
    return {record.id: found[name] for name, group in groups.items() for record in group}


def _by_series(paths: Sequence[Path]) -> dict[str, list[Path]]:
    """Return the segmentation objects among files, by the identifiers of the series that they refer to."""
    found: dict[str, list[Path]] = {}
    for path in paths:
        if segmentation_kind(path) == "SEG":
            for series in read_segmentation_header(path).series:
                found.setdefault(series, []).append(path)
    return found


def _series_of(record: Record) -> str:
    """Return the identifier of the DICOM series of a slice; "" if it is none."""
    return read_identifiers(record.image).series if volume_files.format_of(record.image) == "DICOM" else ""


def _by_source(folder: Path) -> dict[Path, list[Path]]:
    """Return the masks of each image, or folder of a series, that `predictions.json` beside a folder of masks names."""
    listed = folder.parent / "predictions.json"
    if not listed.is_file():
        return {}
    found: dict[Path, list[Path]] = {}
    try:
        entries = json.loads(listed.read_text(encoding="utf-8")).get("images", [])
        for entry in entries:
            if (mask := folder.parent / entry["mask"]).is_file():
                found.setdefault(Path(entry["file"]).resolve(), []).append(mask)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}  # written by another program, or an older version
    return found


def _paired(folder: Path, paths: Sequence[Path], ids: Sequence[str], advice: str) -> dict[str, Path]:
    by_name: dict[str, list[Path]] = {}
    by_suffix: dict[str, list[Path]] = {}
    for path in paths:
        name = _stem(path.relative_to(folder))
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
            do=advice,
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


def _rule(masks: Sequence[Record], dataset: Dataset, values: Values | None) -> tuple[MaskRule, tuple[str, ...]]:
    """Choose how values are read, the same for all masks: as class ids, or as the data set's own masks.

    All files are read if necessary, since the decisive values may be in the last one.
    """
    labels, data_rule = dataset.labels, dataset.rule
    masks = [record for record in masks if record.source is None]  # segments have names
    binary = _binary_values(masks, labels)
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
    for record in masks:
        by_ids = _read(record, labels, id_rule) if as_ids else None
        by_data = _read(record, labels, data_rule) if as_data else None
        as_ids, as_data = by_ids is not None, by_data is not None
        differ = differ or (by_ids is not None and by_data is not None and bool((by_ids != by_data).any()))
    # A threshold is valid for any values, and would map all ids to the first class.
    if as_ids and as_data and differ and data_rule.threshold is None:
        raise MaskError(
            masks[0].mask.parent if masks[0].mask is not None else "masks",
            expected="unambiguous values",
            found="values that are valid as class ids and, differently, by data.mask_values",
            do="Add --set evaluate.masks=ids, or --set evaluate.masks=data.",
        )
    return (data_rule, data_notices) if as_data and not as_ids else (id_rule, id_notices)


def _binary_values(masks: Iterable[Record], labels: Labels) -> dict[int, int] | None:
    """Map 0 and 255 to the two class ids if no mask has other values; None if 255 is an id, or an ignored value."""
    if labels.num_classes != 2 or 255 in labels.ids:
        return None
    values: set[int] = set()
    for record in masks:
        try:
            ids = read_truth_ids(record, MaskRule(binary=False))
        except DataError:
            return None
        values.update(np.unique(ids).tolist()[:3])
    return {0: min(labels.ids), 255: max(labels.ids)} if 255 in values and values <= {0, 255} else None


def _read(record: Record, labels: Labels, rule: MaskRule) -> NDArray[Any] | None:
    """Read a mask by a rule; return None if the rule is not valid for it."""
    try:
        return read_truth(record, labels, rule)[0]
    except DataError:
        return None
