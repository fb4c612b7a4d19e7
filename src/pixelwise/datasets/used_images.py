"""Which images a model was trained on, by the contents of their files, so that they are not used as if they were new.

Names do not identify an image: another data set may have an image of the same name, and a copy another name.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from pixelwise.formats.reading import file_hash, window_of
from pixelwise.formats.records import Record

_DIGITS = 16


def used_image(record: Record) -> list[Any]:
    """Return the plain form for `data.json`: digits of the SHA-256 of the file, and its slice or window if it is one.

    Raises:
        OSError: the file cannot be opened.
    """
    plane = record.plane
    place = None if plane is None or record.stack else [plane.across, plane.index]
    window = window_of(record)
    box = None if window is None else [list(window.start), list(window.stop)]
    return [file_hash(record.image)[:_DIGITS], place, box]


def used_images(records: Iterable[Record]) -> dict[str, list[Any]]:
    """Return `used_image` of each image, by id."""
    return {record.id: used_image(record) for record in records}


def shared_images(records: Iterable[Record], used: Mapping[str, Sequence[Any]]) -> list[str]:
    """Return the ids of the images that were used, or of which a part was."""
    by_file: dict[str, list[Sequence[Any]]] = {}
    for entry in used.values():
        by_file.setdefault(entry[0], []).append(entry)
    return [record.id for record in records if _is_shared(used_image(record), by_file)]


def _is_shared(image: Sequence[Any], by_file: Mapping[str, Sequence[Sequence[Any]]]) -> bool:
    return any(_overlap(image, entry) for entry in by_file.get(image[0], ()))


def _overlap(first: Sequence[Any], second: Sequence[Any]) -> bool:
    """Whether two images of one file have pixels in common."""
    if first[1] is not None and second[1] is not None:
        return bool(first[1][0] != second[1][0] or first[1][1] == second[1][1])
    if first[2] is None or second[2] is None:
        return True
    boxes = zip(*first[2], *second[2], strict=True)
    return all(start < other_stop and other_start < stop for start, stop, other_start, other_stop in boxes)
