"""Volumes of a data set, cut into the slices that a two-dimensional network learns from.

Comes in: image volumes with their masks, per part. Goes out: a record per slice, and what was decided on the way. Knows
nothing of how volumes are found or what their files are called.

All volumes are cut across one direction, that in which most of them are coarsest, so that slices are alike. The slices of a
volume are one group: they are too alike to lie in different parts. Where the pixel types differ, all are read as one that
holds every value.
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
from pixelwise.imageio.nifti import read_label_table
from pixelwise.imageio.volumes import Across, Plane, VolumeHeader, coarsest
from pixelwise.labels import Labels

_BLOCKS = 5


@dataclass(frozen=True, eq=False)
class Stack:
    """Hold one image volume.

    Args:
        id: its name.
        header: of all of it; `header.path` is the file, or the folder of a series.
        mask: the volume of its labels; None where it has none.
        slices: the files of a series, from the first along the header's last axis to the last.
        more: further volumes whose values are the next bands.
    """

    id: str
    header: VolumeHeader
    mask: Path | None = None
    slices: tuple[Path, ...] = ()
    more: tuple[VolumeHeader, ...] = ()

    @property
    def headers(self) -> tuple[VolumeHeader, ...]:
        """Give all its headers."""
        return (self.header, *self.more)


def cut(splits: Mapping[str, Sequence[Stack]]) -> tuple[dict[str, list[Record]], list[str]]:
    """Make a record of every slice.

    Returns:
        Records per part, and notices.
    """
    stacks = [stack for own in splits.values() for stack in own]
    if not stacks:
        return {}, []
    usual = coarsest([stack.header for stack in stacks if not stack.slices] or [stack.header for stack in stacks])
    kinds = sorted({header.dtype.name for stack in stacks for header in stack.headers})
    dtype = np.result_type(*kinds).name if len(kinds) > 1 else None
    alone = len(stacks) == 1 and "pool" in splits
    records = {
        split: [record for stack in own for record in _slices(stack, usual, dtype, _BLOCKS if alone else 1)]
        for split, own in splits.items()
    }
    return records, _told(stacks, usual, sum(map(len, records.values())), kinds, dtype, alone)


def _slices(stack: Stack, usual: Across, dtype: str | None, blocks: int) -> list[Record]:
    across = stack.header.across() if stack.slices else usual
    count = stack.header.size(across)[0]
    files = stack.slices[::-1] if stack.slices and stack.header.layout(across)[0][1] else stack.slices
    own = stack.header.dtype.name if stack.slices else None  # each slice is scaled by its own header
    plane = Plane(0, across, dtype or own, tuple(header.path for header in stack.more))
    digits = len(str(count - 1))
    return [
        Record(
            f"{stack.id}/{k:0{digits}}",
            files[k] if files else stack.header.path,
            stack.mask,
            stack.id if blocks == 1 else f"{stack.id}/{k * blocks // count}",
            plane=replace(plane, index=k),
        )
        for k in range(count)
    ]


def _told(
    stacks: Sequence[Stack], usual: Across, count: int, kinds: Sequence[str], dtype: str | None, alone: bool
) -> list[str]:
    named = {stack.header.across() if stack.slices else usual for stack in stacks}
    spacing = np.median([stack.header.grid(usual).spacing for stack in stacks], axis=0)
    many = "1 volume is" if alone or len(stacks) == 1 else f"{len(stacks)} volumes are"
    size = "×".join(f"{value:.4g}" for value in spacing)
    told = [f"{many} read as {count} {' and '.join(sorted(named))} slices ({size} mm between slices, rows, columns)"]
    if dtype is not None:
        told.append(f"the volumes hold {' and '.join(kinds)}: all are read as {dtype}")
    if alone:
        told.append(
            f"there is one volume only, so it is divided into {_BLOCKS} blocks of neighbouring slices: scores on a part of it"
            " say nothing of other volumes"
        )
    return told


def name_ids(records: Sequence[Record]) -> tuple[Labels | None, list[str]]:
    """Name the ids that occur in masks by the label tables that lie within them.

    Returns:
        The labels, None where there are no tables; and notices.

    Raises:
        LabelsError: the tables contradict each other.
    """
    table = merged_tables(dict.fromkeys(record.mask for record in records if record.mask is not None))
    if not table:
        return None, []
    ids: set[int] = set()
    for record in records:
        try:
            ids.update(np.unique(read_truth_ids(record, MaskRule(binary=False))).tolist())
        except DataError:
            continue  # told where the mask is used
    if not ids:
        return None, []
    table = {0: "background"} | table
    present = sorted(ids if 255 in table else ids - {255})
    nameless = [number for number in present if number not in table]
    labels = Labels(tuple(table.get(number, f"class_{number}") for number in present), tuple(present))
    unused = sum(number not in ids for number in table)
    told = f"the label tables in the masks name the classes; {unused} of {len(table)} occur nowhere and are left out"
    told += f"; {', '.join(map(str, nameless))} stand in no table" if nameless else ""
    return labels, [told]


def merged_tables(masks: Iterable[Path]) -> dict[int, str]:
    """Join the label tables of masks: names by id.

    Raises:
        LabelsError: one id has two names.
    """
    table: dict[int, str] = {}
    for path in masks:
        for number, name in read_label_table(path).items():
            if table.setdefault(number, name) != name:
                found, do = (
                    f"{table[number]!r} in another mask",
                    "Keep masks of one kind, or name the classes in a labels.yaml.",
                )
                raise LabelsError(path, expected=f"id {number} to be {name!r} everywhere", found=found, do=do)
    return table
