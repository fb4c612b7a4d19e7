"""NIfTI and NRRD volumes with label volumes, as in the Medical Segmentation Decathlon, nnU-Net and similar layouts; read by slices.

Classes and channels come from dataset.json; without it, label tables in the masks name the classes.

Source: medicaldecathlon.com (dataset.json); nnU-Net, documentation/dataset_format.md: `labels` from name to id, `channel_names`,
`file_ending`, the class "ignore", and images named CASE_0000, CASE_0001 by channel.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from pixelwise.errors import ConfigError, ImageError, LabelsError, MaskError
from pixelwise.formats.base import Format, ReadResult, load_json
from pixelwise.formats.dataset_root import DatasetRoot, make_layout
from pixelwise.formats.records import Layout, short
from pixelwise.formats.split_lists import divide_by_lists, find_lists
from pixelwise.formats.volume_pairs import (
    VolumePairs,
    ambiguous,
    find_by_folders,
    find_by_position,
    find_named,
    first_series,
    unreadable_volumes,
    volume_files,
)
from pixelwise.formats.volume_slices import Volume, labels_from_tables, merge_label_tables, volume_records
from pixelwise.imageio.unreadable import conversion, suffixes
from pixelwise.imageio.volume_files import SUFFIXES, files_of, is_volume
from pixelwise.labels import Labels

_DESCRIPTION = "dataset.json"


def detect(dataset: DatasetRoot) -> str | None:
    """Recognise NIfTI and NRRD files by their names, unless there is DICOM."""
    if first_series(dataset) is not None:
        return None
    path = next((path for path in volume_files(dataset) if is_volume(path)), None)
    return None if path is None else f"{short(path, dataset.root)} is a volume"


def read(dataset: DatasetRoot) -> ReadResult:
    """Find all volumes and their masks.

    Raises:
        DataError: no volumes, or invalid ones.
        ConfigError: an invalid key of the `data` section.
    """
    return read_volumes(VolumePairs(dataset), _read_description(dataset))


def read_volumes(volumes: VolumePairs, description: Mapping[str, Any]) -> ReadResult:
    """Pair the volumes of a data set, and cut them into slices unless `data.volumes` is whole.

    Args:
        volumes: the data set, with its DICOM series.
        description: the content of dataset.json.

    Raises:
        DataError: see `read`.
    """
    dataset = volumes.dataset
    config = dataset.config
    dataset.use(*(file for path in dataset.files if is_volume(path) for file in files_of(path)))
    if config.valid is not None:
        do = "Remove it; give ignored pixels a separate id, and set it as ignore_index in a labels.yaml."
        raise ConfigError("data.valid", expected="none for volumes", found=repr(config.valid), do=do)
    if dataset.named_splits:
        find_named(volumes)
    else:
        paths = [path for path in dataset.files if is_volume(path)]
        if volumes.series or not find_by_folders(volumes, paths):
            find_by_position(volumes, paths)
            _require_consistent_tables(volumes)
    layout = make_layout("volumes", volumes.splits, volumes.problems)
    lists = find_lists(config, dataset.root, dataset.base)
    dataset.use(*lists.values())
    layout = divide_by_lists(layout, lists, dataset.root) if lists else layout
    by_split, problems = volumes.volumes(layout)
    for group in by_split.values():
        _require_no_time(group, description)
    whole = config.volumes == "whole"
    records, notices = volume_records(by_split, whole, config.neighbours)
    labels: Labels | None = None
    # If the user names the classes or maps the values of masks, tables in the files do not apply.
    has_file = any((folder / "labels.yaml").is_file() for folder in (dataset.base, dataset.root))
    if config.labels is None and config.mask_values is None and not has_file:
        labels = _labels(dataset.root / _DESCRIPTION, description.get("labels"))
        if labels is None:
            labels, table_notices = labels_from_tables([record for group in records.values() for record in group])
            notices += table_notices
    splits = {split: tuple(group) for split, group in records.items()}
    others = unreadable_volumes(dataset)
    dataset.use(*others)
    if others:
        problems = [replace(problem, do=problem.do or conversion(others)) for problem in problems]
        volumes.notices.append(_describe_unreadable(others, dataset.root))
    notices = [*volumes.notices, *layout.notices, *notices]
    kind = f"{layout.kind}, {'whole' if whole else 'cut into slices'}"
    return ReadResult(Layout(kind, splits, tuple(problems), tuple(notices)), labels)


def _describe_unreadable(paths: Sequence[Path], root: Path) -> str:
    many = "1 volume of a format" if len(paths) == 1 else f"{len(paths)} volumes of formats"
    first = f"{short(min(paths), root)}{', …' if len(paths) > 1 else ''}"
    return f"{many} that cannot be read ({suffixes(paths)}): left out ({first}). {conversion(paths)}".removesuffix(".")


def _read_description(dataset: DatasetRoot) -> Mapping[str, Any]:
    """Read dataset.json; empty if there is none.

    Raises:
        MaskError: it is invalid, or describes files of another kind.
    """
    path = dataset.root / _DESCRIPTION
    plain = load_json(path) if path.is_file() else {}
    dataset.use(path)
    if not isinstance(plain, dict):
        raise MaskError(path, expected="a JSON object", found=type(plain).__name__, do="Correct it, or remove it.")
    ending = plain.get("file_ending", ".nii.gz")
    if ending not in SUFFIXES:
        do = "Convert the volumes to .nii.gz."
        raise MaskError(path, expected=f"file_ending {' or '.join(SUFFIXES)}", found=repr(ending), do=do)
    return plain


def _require_no_time(volumes: Sequence[Volume], description: Mapping[str, Any]) -> None:
    """Refuse a fourth axis that is time, unless dataset.json names as many channels."""
    channels = description.get("channel_names") or description.get("modality")
    for volume in volumes:
        header = volume.header
        if header.timed and (not isinstance(channels, dict) or len(channels) != header.bands):
            raise ImageError(
                header.path,
                expected="one volume, or one band per channel",
                found=f"{header.bands} points in time",
                do='Save one volume per file; or, if these are channels, name them in dataset.json: {"channel_names": {"0": …}}.',
            )


def _labels(path: Path, plain: Any) -> Labels | None:
    """Parse the classes of dataset.json, from id to name (MSD) or from name to id (nnU-Net)."""
    if not plain:
        return None
    if not isinstance(plain, dict) or any(isinstance(value, list) for value in plain.values()):
        found = "regions of several ids" if isinstance(plain, dict) else type(plain).__name__
        do = "Name the ids in a labels.yaml instead: names: {0: background, 1: …}."
        raise LabelsError(path, expected="one id for every class", found=found, do=do)
    try:
        names = {int(key): str(value) for key, value in plain.items()}
    except ValueError:
        try:
            names = {int(value): str(key) for key, value in plain.items()}
        except (TypeError, ValueError) as error:
            raise LabelsError(path, expected="whole numbers as ids", found=str(error), do="Correct them.") from error
    ignored = tuple(id_ for id_, name in names.items() if name == "ignore")
    kept = sorted(names.keys() - set(ignored))
    return Labels(tuple(names[id_] for id_ in kept), tuple(kept), ignore_ids=ignored or None)


def _require_consistent_tables(volumes: VolumePairs) -> None:
    """Refuse masks, paired by position, whose tables name an id differently: they are of different data sets."""
    records = (record for group in volumes.splits.values() for record in group)
    pairs: dict[Path, list[Path]] = {record.image: [record.mask] for record in records if record.mask}
    try:
        merge_label_tables(mask for masks in pairs.values() for mask in masks)
    except LabelsError as error:
        found = "masks whose label tables contradict each other"
        raise ambiguous(volumes.dataset.root, pairs, found) from error


FORMAT = Format("nifti", "NIfTI and NRRD volumes", detect, read, by_name=True)
