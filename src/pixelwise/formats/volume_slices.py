"""Cut volumes into the slices that a two-dimensional network is trained on, or keep them whole for a three-dimensional one.

All volumes are cut across the direction in which most of them are coarsest, so that slices are alike. The slices of a volume
are one group, since they are too similar to be in different splits. If pixel types differ, all are read as a type that holds
every value.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from pixelwise.errors import DataError, LabelsError
from pixelwise.formats.reading import read_truth_ids
from pixelwise.formats.records import Record
from pixelwise.imageio.masks import MaskRule
from pixelwise.imageio.volume_files import read_label_table
from pixelwise.imageio.volumes import Across, Plane, VolumeHeader, coarsest
from pixelwise.labels import Labels

_BLOCKS = 5


@dataclass(frozen=True, eq=False)
class Volume:
    """An image volume and its label volume."""

    id: str
    header: VolumeHeader  # `header.path` is the file, or the folder of a series
    mask: Path
    slices: tuple[Path, ...] = ()  # the files of a series, in the order of the header's last axis
    more: tuple[VolumeHeader, ...] = ()  # headers of volumes with further bands

    def across(self, common: Across) -> Across:
        """Return the direction of the slices: that of a series is fixed by its files."""
        return self.header.across() if self.slices else common


def volume_records(
    splits: Mapping[str, Sequence[Volume]], whole: bool, neighbours: int = 0
) -> tuple[dict[str, list[Record]], list[str]]:
    """Return a record per slice of the volumes of each split, or per volume if they are kept whole, and notices.

    Slices have the bands of as many neighbours on either side, too.
    """
    volumes = [volume for group in splits.values() for volume in group]
    if not volumes:
        return {}, []
    common = coarsest([v.header for v in volumes if not v.slices] or [v.header for v in volumes])
    dtypes = sorted({header.dtype.name for volume in volumes for header in (volume.header, *volume.more)})
    dtype = np.result_type(*dtypes).name if len(dtypes) > 1 else None
    blocks = _BLOCKS if len(volumes) == 1 and "pool" in splits and not whole else 1
    records = {
        split: [record for volume in group for record in _records(volume, common, dtype, blocks, whole, neighbours)]
        for split, group in splits.items()
    }
    directions = " and ".join(sorted({volume.across(common) for volume in volumes}))
    spacing = np.median([volume.header.grid(common).spacing for volume in volumes], axis=0)
    size = "×".join(f"{value:.4g}" for value in spacing)
    many = "1 volume is" if len(volumes) == 1 else f"{len(volumes)} volumes are"
    count = f"{sum(map(len, records.values()))} {directions} slices"
    read_as = f"read whole, as stacks of {directions} slices" if whole else f"read as {count}"
    notices = [f"{many} {read_as} ({size} mm between slices, rows, columns)"]
    if neighbours and not whole:
        notices.append(
            f"each slice is read with {neighbours} on either side as further bands; at the ends the last one is repeated"
        )
    if dtype is not None:
        notices.append(f"the volumes hold {' and '.join(dtypes)}: all are read as {dtype}")
    if blocks > 1:
        notices.append(
            f"the only volume is divided into {_BLOCKS} blocks of neighbouring slices: scores on some of its blocks do not"
            " apply to other volumes"
        )
    return records, notices


def _records(
    volume: Volume, common: Across, dtype: str | None, blocks: int, whole: bool, neighbours: int
) -> list[Record]:
    across = volume.across(common)
    count = volume.header.size(across)[0]
    files = volume.slices[::-1] if volume.slices and volume.header.layout(across)[0][1] else volume.slices
    own_dtype = volume.header.dtype.name if volume.slices else None  # each slice is scaled by its own header
    plane = Plane(0, across, dtype or own_dtype, tuple(header.path for header in volume.more))
    if whole:
        stack = files or (volume.header.path,)
        return [Record(volume.id, stack[0], volume.mask, plane=plane, stack=stack)]
    digits = len(str(count - 1))
    places = [(files[k] if files else volume.header.path, k) for k in range(count)]
    return [
        Record(
            f"{volume.id}/{k:0{digits}}",
            places[k][0],
            volume.mask,
            volume.id if blocks == 1 else f"{volume.id}/{k * blocks // count}",
            plane=replace(plane, index=k, beside=_beside(places, k, neighbours)),
        )
        for k in range(count)
    ]


def _beside(places: Sequence[tuple[Path, int]], k: int, neighbours: int) -> tuple[tuple[Path, int], ...]:
    """Return the places of a slice and of its neighbours on either side; beyond the ends that of the last slice."""
    steps = range(-neighbours, neighbours + 1) if neighbours else ()
    return tuple(places[min(max(k + step, 0), len(places) - 1)] for step in steps)


def labels_from_tables(records: Sequence[Record]) -> tuple[Labels | None, list[str]]:
    """Name the ids in masks by the label tables in the mask files.

    Returns:
        The labels, None if there are no tables; and notices.

    Raises:
        LabelsError: the tables contradict each other.
    """
    table = merge_label_tables(dict.fromkeys(record.mask for record in records if record.mask is not None))
    if not table:
        return None, []
    ids: set[int] = set()
    for record in records:
        try:
            ids.update(np.unique(read_truth_ids(record, MaskRule(binary=False))).tolist())
        except DataError:
            continue  # reported when the mask is used
    if not ids:
        return None, []
    table = {0: "background"} | table
    ids = {id_ for id_ in ids if id_ >= 0}  # negative ids are reported when the mask is used
    present = sorted(ids if 255 in table else ids - {255})
    unnamed = [id_ for id_ in present if id_ not in table]
    labels = Labels(tuple(table.get(id_, f"class_{id_}") for id_ in present), tuple(present))
    unused = sum(id_ not in ids for id_ in table)
    notice = f"the label tables in the masks name the classes; {unused} of {len(table)} do not occur and are left out"
    return labels, [notice + (f"; {', '.join(map(str, unnamed))} are in no table" if unnamed else "")]


def merge_label_tables(masks: Iterable[Path]) -> dict[int, str]:
    """Return the names by id of the label tables in masks.

    Raises:
        LabelsError: an id with two names.
    """
    table: dict[int, str] = {}
    for path in masks:
        for id_, name in read_label_table(path).items():
            if table.setdefault(id_, name) != name:
                expected = f"id {id_} to be {name!r} everywhere"
                do = "Keep masks of one kind, or name the classes in a labels.yaml."
                raise LabelsError(path, expected=expected, found=f"{table[id_]!r} in another mask", do=do)
    return table
