"""Tables beside masks that give the colour or the value of each class, and the labels that follow from them.

Supported tables: `class_dict.csv` (name,r,g,b), `label_colors.txt` ("r g b name"), CVAT's `labelmap.txt`
(name:r,g,b:parts:actions), Roboflow's `_classes.csv` (Pixel Value, Class), and JSON: a mapping from name to colour or value,
a list of {name, color, id}, or {names, palette, ignore}.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np

from pixelwise.errors import DataError, LabelsError
from pixelwise.formats.base import IGNORED, load_json
from pixelwise.imageio.images import RawMask, read_mask_values
from pixelwise.imageio.mask_colours import code, colour_codes
from pixelwise.imageio.masks import MaskRule
from pixelwise.imageio.safe_reading import read_text
from pixelwise.labels import Colour, Labels

MAPS = ("class_dict.csv", "class_dict_seg.csv", "label_colors.txt", "labelmap.txt", "colormap.json", "classes.json")
_MOST_BYTES = 4_000_000
_HIGHEST_ID = 63
_IGNORED_NAMES = ("void", "ignore", "ignored")
_NUMBERS = r"(?P<r>\d{1,3})[\s,;]+(?P<g>\d{1,3})[\s,;]+(?P<b>\d{1,3})"
_LINES = (
    re.compile(rf"{_NUMBERS}[\s,;:]+(?P<name>\S.*)"),
    re.compile(rf"(?P<name>\S.*?)\s*[\s,;:]\s*{_NUMBERS}\s*(:.*)?"),
)
_COLUMNS = {
    "name": ("name", "class", "label", "class_name", "category"),
    "r": ("r", "red"),
    "g": ("g", "green"),
    "b": ("b", "blue"),
    "id": ("pixel value", "value", "id"),
}
_NAME_KEYS = ("name", "title", "label", "class", "class_name")
_ID_KEYS = ("id", "value", "index")
_COLOUR_KEYS = ("color", "colour", "rgb")


@dataclass(frozen=True)
class Entry:
    """A class of a table: its colour or value in masks, whether it is ignored, and whether its objects are countable."""

    name: str
    colour: Colour | None = None
    id: int | None = None
    ignored: bool = False
    countable: bool = False


def find_map(folder: Path) -> Path | None:
    """Return the table in a folder, by its name."""
    return next((folder / name for name in MAPS if (folder / name).is_file()), None)


def read_map(path: Path) -> tuple[Entry, ...]:
    """Read a table.

    Raises:
        LabelsError: an invalid table, or a file too large to be one.
        MaskError: invalid JSON.
        ConfigError: not UTF-8.
    """
    if path.stat().st_size > _MOST_BYTES:
        do = "Remove it, or name data.labels."
        raise LabelsError(path, expected="a table of classes", found=f"{path.stat().st_size:,} bytes", do=do)
    if path.suffix.lower() == ".json":
        entries = [_from_item(path, item) for item in _json_items(path, load_json(path))]
    elif path.suffix.lower() == ".csv":
        entries = _from_csv(path, read_text(path))
    else:
        entries = _from_lines(path, read_text(path))
    if not entries:
        raise LabelsError(path, expected="classes with colours or values", found="none", do="Write name,r,g,b.")
    return tuple(entries)


def read_names(path: Path) -> list[str]:
    """Read the names of the ids 0, 1, …, one per line."""
    return [line.strip() for line in read_text(path).splitlines() if line.strip()]


def _from_lines(path: Path, text: str) -> list[Entry]:
    """Parse lines with a name before or after three numbers; the first line may be a heading."""
    entries = []
    for number, line in enumerate(map(str.strip, text.splitlines()), 1):
        match = next((m for pattern in _LINES if (m := pattern.fullmatch(line))), None)
        where = f"{path}, line {number}"
        if match is not None:
            entries.append(Entry(match["name"].strip(), _colour(where, [match["r"], match["g"], match["b"]])))
        elif line and not line.startswith("#") and number > 1:
            raise LabelsError(where, expected="a name and three values", found=repr(line[:80]), do="Correct the line.")
    return entries


def _from_csv(path: Path, text: str) -> list[Entry]:
    """Parse columns name, r, g, b in any order, or Pixel Value and Class; without a heading: name, r, g, b."""
    heading, _, _ = text.partition("\n")
    delimiter = ";" if ";" in heading and "," not in heading else ","  # Excel in countries with decimal commas
    try:
        rows = [
            row
            for row in csv.reader(StringIO(text, newline=""), delimiter=delimiter, skipinitialspace=True)
            if any(row)
        ]
    except csv.Error as error:
        raise LabelsError(path, expected="a .csv table", found=str(error), do="Save it as CSV again.") from error
    cells = [cell.strip().lower() for cell in rows[0]] if rows else []
    # If several names of a column occur, the first in the list is used.
    columns = {key: cells.index(name) for key, names in _COLUMNS.items() for name in reversed(names) if name in cells}
    first = 1
    if "name" in columns:
        first = 2
        rows = rows[1:]
    else:
        columns = {"name": 0, "r": 1, "g": 2, "b": 3}
    width = max(columns.values()) + 1
    entries = []
    for number, row in enumerate(rows, first):
        where = f"{path}, row {number}"
        if len(row) < width:
            raise LabelsError(where, expected=f"{width} columns", found=str(len(row)), do="Correct the row.")
        colour = _colour(where, [row[columns[key]] for key in "rgb"]) if {"r", "g", "b"} <= columns.keys() else None
        id_ = _number(where, row[columns["id"]]) if "id" in columns else None
        entries.append(Entry(row[columns["name"]].strip(), colour, id_))
    return entries


def _json_items(path: Path, plain: Any) -> Iterator[Any]:
    """Convert any of the JSON notations to items {name, color, id, ignored}."""
    if isinstance(plain, Mapping):
        names = plain.get("names", plain.get("classes", plain.get("labels")))
        if isinstance(names, list) and all(isinstance(name, str) for name in names):
            palette = next((plain[key] for key in ("palette", "colours", "colors") if plain.get(key)), None)
            ignored = plain.get("ignore")
            ignored = ignored if isinstance(ignored, list) else [ignored]
            if palette is not None and (not isinstance(palette, list) or len(palette) != len(names)):
                found = f"{len(palette)} for {len(names)} names" if isinstance(palette, list) else repr(palette)[:80]
                raise LabelsError(path, expected="a colour for every name", found=found, do="Correct the lists.")
            for id_, (name, colour) in enumerate(zip(names, palette or [None] * len(names), strict=True)):
                yield {"name": name, "color": colour, "id": id_, "ignored": id_ in ignored}
            return
        plain = names if isinstance(names, list | Mapping) else plain
    if isinstance(plain, Mapping):
        yield from (_item_of_pair(path, str(key), value) for key, value in plain.items())
    elif isinstance(plain, list):
        yield from ({"name": each, "id": id_} if isinstance(each, str) else each for id_, each in enumerate(plain))
    else:
        raise _unsupported(path, plain)


def _item_of_pair(path: Path, key: str, value: Any) -> dict[str, Any]:
    id_ = int(key) if re.fullmatch(r"\d{1,8}", key) else None
    if isinstance(value, Mapping):
        has_name = id_ is not None and any(isinstance(value.get(word), str) for word in _NAME_KEYS)
        has_id = id_ is None or any(word in value for word in _ID_KEYS)
        return {**({} if has_name else {"name": key}), **({} if has_id else {"id": id_}), **value}
    if isinstance(value, int) and not isinstance(value, bool):
        return {"name": key, "id": value}
    if isinstance(value, str) and id_ is not None:
        return {"name": value, "id": id_}
    return {"name": key, "color": _colour(str(path), value)}


def _from_item(path: Path, item: Any) -> Entry:
    if not isinstance(item, Mapping):
        raise _unsupported(path, item)
    name = next((item[key] for key in _NAME_KEYS if key in item), None)
    colour = next((item[key] for key in _COLOUR_KEYS if key in item), None)
    id_ = next((item[key] for key in _ID_KEYS if isinstance(item.get(key), int)), None)
    if not isinstance(name, str):
        raise _unsupported(path, item)
    return Entry(name, None if colour is None else _colour(str(path), colour), id_, item.get("ignored") is True)


def _unsupported(path: Path, item: Any) -> LabelsError:
    return LabelsError(
        path,
        expected="names with colours: {road: [128, 64, 128]}, or a list of {name, color}",
        found=repr(item)[:80],
        do="Use one of these notations, or name the classes in a labels.yaml.",
    )


def _colour(where: str, value: Any) -> Colour:
    """Parse three values 0–255, or #rrggbb."""
    if isinstance(value, str) and re.fullmatch(r"#[0-9a-fA-F]{6}([fF]{2})?", value):
        return int(value[1:3], 16), int(value[3:5], 16), int(value[5:7], 16)
    if isinstance(value, list | tuple) and len(value) == 3:
        r, g, b = (_number(where, each) for each in value)
        if max(r, g, b) < 256:
            return r, g, b
    raise LabelsError(where, expected="three values 0–255", found=repr(value)[:80], do="Correct the colour.")


def _number(where: str, value: Any) -> int:
    text = str(value).strip()
    if isinstance(value, bool) or not re.fullmatch(r"[0-9]{1,8}", text):
        raise LabelsError(where, expected="whole numbers", found=repr(value)[:80], do="Correct it.")
    return int(text)


# Labels from entries -------------------------------------------------------------------------------------------------


def by_colour(where: object, entries: Iterable[Entry], ignored: Container[str] = ()) -> tuple[Labels, MaskRule]:
    """Return the labels of masks that hold colours, and a rule with the colours of ignored pixels.

    Args:
        where: the table, for messages.
        entries: its entries.
        ignored: further ignored classes, beside those marked in the table and those named `__ignore__` (if there is
            none: void or ignore).

    Raises:
        LabelsError: a class without a colour, or two classes with one name or colour.
    """
    entries = tuple(entries)
    bare = [each.name for each in entries if each.colour is None]
    if bare:
        found = f"none for {', '.join(bare[:4])}"
        raise LabelsError(where, expected="a colour for every class", found=found, do="Add the colours.")
    kept, dropped = _divide(where, entries, ignored)
    owner: dict[Colour | None, Entry] = {each.colour: each for each in dropped}
    for each in kept:
        other = owner.setdefault(each.colour, each)
        if other != each:
            found = f"{each.colour} for {other.name!r} and {each.name!r}"
            raise LabelsError(where, expected="a different colour for every class", found=found, do="Correct one.")
    rule = MaskRule(colours=True, ignored=tuple(dict.fromkeys(each.colour for each in dropped if each.colour)))
    return _labels(where, list(dict.fromkeys(kept)), ids=False), rule


def by_value(where: object, entries: Iterable[Entry], ignored: Container[str] = ()) -> tuple[Labels, MaskRule]:
    """Return the labels of masks that hold the ids of a table, or the indices of its entries if it has none.

    Args:
        where: the table, for messages.
        entries: its entries.
        ignored: further ignored classes, as in `by_colour`.

    Raises:
        LabelsError: two classes with one name or value.
    """
    with_ids = [replace(each, id=k if each.id is None else each.id) for k, each in enumerate(entries)]
    kept, dropped = _divide(where, with_ids, ignored)
    ignore_ids = tuple(dict.fromkeys(each.id for each in dropped if each.id is not None))
    return _labels(where, kept, ids=True, ignore_ids=ignore_ids or None), MaskRule(binary=255 not in ignore_ids)


def _divide(where: object, entries: Sequence[Entry], ignored: Container[str]) -> tuple[list[Entry], list[Entry]]:
    """Return the classes and the ignored entries; if one is named `__ignore__`, others named void are classes."""
    names = () if any(each.name == IGNORED for each in entries) else _IGNORED_NAMES
    kept: list[Entry] = []
    dropped: list[Entry] = []
    for each in entries:
        drop = each.ignored or each.name == IGNORED or each.name in ignored or each.name.lower() in names
        (dropped if drop else kept).append(each)
    if not kept:
        raise LabelsError(where, expected="a class that is not ignored", found="none", do="Add one.")
    return kept, dropped


def _labels(where: object, entries: Sequence[Entry], *, ids: bool, ignore_ids: tuple[int, ...] | None = None) -> Labels:
    colours = tuple(each.colour for each in entries if each.colour is not None)
    try:
        return Labels(
            tuple(each.name for each in entries),
            tuple(each.id for each in entries if each.id is not None) if ids else (),
            colours if len(colours) == len(entries) else (),
            tuple(each.countable for each in entries),
            ignore_ids,
        )
    except LabelsError as error:
        raise LabelsError(where, expected=error.expected, found=error.found, do=error.do) from error


def ignored_notice(where: Path | str, entries: Iterable[Entry], labels: Labels) -> tuple[str, ...]:
    """Return a notice about the ignored classes of a table, if there are any."""
    name = where.name if isinstance(where, Path) else where
    dropped = sorted({each.name for each in entries} - set(labels.names))
    return (f"ignored classes of {name}: {', '.join(dropped)}",) if dropped else ()


# What masks hold -----------------------------------------------------------------------------------------------------


def sample_masks(masks: Sequence[Path], count: int = 4) -> Iterator[tuple[Path, RawMask]]:
    """Read up to `count` evenly spaced masks; unreadable ones are skipped, since they are reported when they are used."""
    for path in masks[:: max(len(masks) // count, 1)][:count]:
        try:
            yield path, read_mask_values(path)
        except DataError:
            continue


def highest_value(masks: Sequence[Path], count: int = 16) -> int:
    """Return the highest value in a sample of masks; -1 if none can be read, and 256 if one holds colours."""
    return max(
        (int(raw.values.max()) if raw.values.ndim == 2 else 256 for _, raw in sample_masks(masks, count)), default=-1
    )


def in_colour(masks: Sequence[Path]) -> bool:
    """Whether the masks of a sample have colours: the first whose bands differ, or that has one band, decides.

    Three equal bands may be either: without other masks, low values are ids; black and bright ones are colours.
    """
    highest = -1
    for _, raw in sample_masks(masks):
        single = raw.single_band()
        if raw.values.ndim == 2 or single is raw:
            return raw.values.ndim == 3
        highest = max(highest, int(single.values.max()))
    return highest == 0 or highest > _HIGHEST_ID


def holds_values(entries: Sequence[Entry], masks: Sequence[Path]) -> bool:
    """Whether a sample of masks holds the values of a table rather than its colours.

    Grey values and palettes may be either; they are colours if all of them are colours of the table.
    """
    if any(each.colour is None for each in entries):
        return True
    colours = {code(each.colour) for each in entries if each.colour is not None}
    values = {k if each.id is None else each.id for k, each in enumerate(entries)} | {255}
    other_colours = False
    for raw in (raw.single_band() for _, raw in sample_masks(masks)):
        if raw.values.ndim == 3 or not set(np.unique(raw.values).tolist()) <= values:
            return False
        other_colours = other_colours or not set(np.unique(colour_codes(raw)).tolist()) <= colours
    return other_colours
