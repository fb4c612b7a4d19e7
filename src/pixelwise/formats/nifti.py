"""NIfTI volumes with label volumes, as the Medical Segmentation Decathlon, nnU-Net and many others lay them out.

Comes in: a place. Goes out: a record for every slice. What dataset.json says of classes and channels is followed; without it,
label tables within the masks name the classes. Knows nothing of other kinds of volumes.

Source: medicaldecathlon.com (dataset.json); nnU-Net, documentation/dataset_format.md: `labels` from name to id, `channel_names`,
`file_ending`, the class "ignore" that counts in nothing, and images called CASE_0000, CASE_0001 by channel.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pixelwise.errors import ConfigError, ImageError, LabelsError, MaskError
from pixelwise.formats.base import Format, ReadResult, load_json
from pixelwise.formats.dataset_root import DatasetRoot, make_layout
from pixelwise.formats.records import Layout, short
from pixelwise.formats.split_lists import divide_by_lists, find_lists
from pixelwise.formats.stack_pairs import (
    Volumes,
    ambiguous,
    files_of,
    find_by_folders,
    find_by_place,
    find_named,
    first_series,
    named_splits,
    named_volumes,
)
from pixelwise.formats.stacks import Stack, cut, merged_tables, name_ids
from pixelwise.imageio.nifti import SUFFIXES, is_nifti
from pixelwise.labels import Labels

_DESCRIPTION = "dataset.json"


def detect(place: DatasetRoot) -> str | None:
    """Recognise NIfTI files by their names, below the root or among what the configuration names, without DICOM beside."""
    if first_series(place) is not None:
        return None
    paths = files_of(named_volumes(place)) if named_splits(place) else place.files
    found = next((path for path in paths if is_nifti(path)), None)
    return None if found is None else f"{short(found, place.root)} is a volume"


def read(place: DatasetRoot) -> ReadResult:
    """Find all volumes and their masks.

    Raises:
        DataError: no volumes, or some that cannot be understood.
        ConfigError: a key of the `data` section that makes no sense.

    """
    return read_volumes(Volumes(place), _described(place))


def read_volumes(volumes: Volumes, told: Mapping[str, Any]) -> ReadResult:
    """Pair the volumes of a place, DICOM series among them, and cut them into slices.

    Args:
        volumes: with the series that were found.
        told: what dataset.json says.

    Raises:
        DataError: see `read`.

    """
    place = volumes.place
    if place.config.valid is not None:
        do = "Leave it out; give pixels that do not count an id of their own, and name it as ignore_index in a labels.yaml."
        raise ConfigError("data.valid", expected="none for volumes", found=repr(place.config.valid), do=do)
    if named_splits(place):
        find_named(volumes)
    else:
        paths = [path for path in place.files if is_nifti(path)]
        if volumes.series or not find_by_folders(volumes, paths):
            find_by_place(volumes, paths)
            _require_one_vocabulary(volumes)
    layout = make_layout("volumes", volumes.splits, volumes.problems)
    lists = find_lists(place.config, place.root, place.base)
    layout = divide_by_lists(layout, lists, place.root) if lists else layout
    stacks, problems = volumes.stacks(layout)
    for own in stacks.values():
        _require_bands(own, told)
    records, notices = cut(stacks)
    every = [record for own in records.values() for record in own]
    labels = _labels(place, told)
    named: list[str] = []
    if labels is None and not _is_named(place):
        labels, named = name_ids(every)
    notices = [*volumes.notices, *layout.notices, *notices, *named]
    splits = {split: tuple(own) for split, own in records.items()}
    return ReadResult(Layout(f"{layout.kind}, cut into slices", splits, tuple(problems), tuple(notices)), labels)


def _described(place: DatasetRoot) -> Mapping[str, Any]:
    """Read dataset.json; empty where there is none.

    Raises:
        MaskError: it cannot be read, or tells of files of another kind.

    """
    path = place.root / _DESCRIPTION
    plain = load_json(path) if path.is_file() else {}
    if not isinstance(plain, dict):
        raise MaskError(path, expected="names and values", found=type(plain).__name__, do="Correct it, or take it out.")
    ending = plain.get("file_ending", ".nii.gz")
    if ending not in SUFFIXES:
        do = "Convert the volumes to .nii.gz."
        raise MaskError(path, expected=f"file_ending {' or '.join(SUFFIXES)}", found=repr(ending), do=do)
    return plain


def _require_bands(stacks: Sequence[Stack], told: Mapping[str, Any]) -> None:
    """Refuse a fourth axis that is time; where channels are named, it is none."""
    channels = told.get("channel_names") or told.get("modality")
    for stack in stacks:
        header = stack.header
        if header.timed and (not isinstance(channels, dict) or len(channels) != header.bands):
            raise ImageError(
                header.path,
                expected="one volume, or one band a channel",
                found=f"{header.bands} points in time",
                do='Save one volume a file; or, if these are channels, name them in dataset.json: {"channel_names": {"0": …}}.',
            )


def _is_named(place: DatasetRoot) -> bool:
    """Say whether the user names the classes, or how mask values become others: tables in the masks then say nothing."""
    described = any((folder / "labels.yaml").is_file() for folder in (place.base, place.root))
    return place.config.labels is not None or place.config.mask_values is not None or described


def _labels(place: DatasetRoot, told: Mapping[str, Any]) -> Labels | None:
    """Read the classes of dataset.json, from id to name (MSD) or from name to id (nnU-Net)."""
    plain = told.get("labels")
    if not plain or _is_named(place):
        return None
    where = place.root / _DESCRIPTION
    if not isinstance(plain, dict) or any(isinstance(value, list) for value in plain.values()):
        found = "regions of several ids" if isinstance(plain, dict) else type(plain).__name__
        do = "Name the ids in a labels.yaml instead: names: {0: background, 1: …}."
        raise LabelsError(where, expected="one id for every class", found=found, do=do)
    try:
        names = {int(key): str(value) for key, value in plain.items()}
    except ValueError:
        try:
            names = {int(value): str(key) for key, value in plain.items()}
        except (TypeError, ValueError) as error:
            raise LabelsError(where, expected="whole numbers as ids", found=str(error), do="Correct them.") from error
    ignored = tuple(number for number, name in names.items() if name == "ignore")
    kept = sorted(number for number in names if number not in ignored)
    return Labels(tuple(names[number] for number in kept), tuple(kept), ignore_ids=ignored or None)


def _require_one_vocabulary(volumes: Volumes) -> None:
    """Ask where masks that were paired by place alone name the same id differently: they are of different sets."""
    pairs: dict[Path, list[Path]] = {
        record.image: [record.mask] for own in volumes.splits.values() for record in own if record.mask
    }
    try:
        merged_tables(mask for masks in pairs.values() for mask in masks)
    except LabelsError as error:
        found = "masks whose label tables contradict each other"
        raise ambiguous(volumes.place.root, pairs, found) from error


FORMAT = Format("nifti", "NIfTI volumes", detect, read, by_name=True)
