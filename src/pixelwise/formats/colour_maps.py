"""The tables that lie beside masks and say which colour, or which value, stands for which class.

Comes in: the file of a table, some masks. Goes out: its entries, and the labels and the rule that follow from them. Knows
nothing of folders.

What is understood: `class_dict.csv` (name,r,g,b), `label_colors.txt` ("r g b name"), CVAT's `labelmap.txt`
(name:r,g,b:parts:actions), Roboflow's `_classes.csv` (Pixel Value, Class), and JSON: a mapping from name to colour or value,
a list of {name, color, id}, or {names, palette, ignore}.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np

from pixelwise.errors import DataError, LabelsError
from pixelwise.formats.base import IGNORED, load_json
from pixelwise.imageio.images import read_mask_values
from pixelwise.imageio.mask_colours import code, colour_codes
from pixelwise.imageio.masks import MaskRule
from pixelwise.imageio.safe_reading import read_text
from pixelwise.labels import Colour, Labels

MAPS = ("class_dict.csv", "class_dict_seg.csv", "label_colors.txt", "labelmap.txt", "colormap.json", "classes.json")
_MOST_BYTES = 4_000_000
_LOOKED_INTO = 4
_VOID = ("void", "ignore", "ignored")
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
_ITEM_NAMES, _ITEM_VALUES = ("name", "title", "label", "class", "class_name"), ("id", "value", "index")


@dataclass(frozen=True)
class Entry:
    """Hold one line of a table: a class, the colour or the value that stands for it, and whether it counts."""

    name: str
    colour: Colour | None = None
    id: int | None = None
    ignored: bool = False


def find_map(folder: Path) -> Path | None:
    """Find the table in a folder, by its name."""
    return next((folder / name for name in MAPS if (folder / name).is_file()), None)


def read_map(path: Path) -> tuple[Entry, ...]:
    """Read a table.

    Raises:
        LabelsError: one that is not understood, or too large to be one.
        MaskError: no JSON.
        ConfigError: no text in UTF-8.

    """
    if path.stat().st_size > _MOST_BYTES:
        found = f"{path.stat().st_size:,} bytes"
        raise LabelsError(path, expected="a table of classes", found=found, do="Take it out, or name data.labels.")
    if path.suffix.lower() == ".json":
        entries = _from_json(path, load_json(path))
    elif path.suffix.lower() == ".csv":
        entries = _from_table(path, read_text(path))
    else:
        entries = _from_lines(path, read_text(path))
    if not entries:
        raise LabelsError(path, expected="classes and what stands for them", found="none", do="Write name,r,g,b.")
    return tuple(entries)


def _from_lines(path: Path, text: str) -> list[Entry]:
    """Read lines with a name and three numbers, the one or the other first; the first line may be a heading."""
    entries = []
    for number, line in enumerate(text.splitlines()):
        line = line.strip()
        match = next((m for pattern in _LINES if (m := pattern.fullmatch(line))), None)
        if match is not None:
            colour = _colour(f"{path}, line {number + 1}", [match["r"], match["g"], match["b"]])
            entries.append(Entry(match["name"].strip(), colour))
        elif line and not line.startswith("#") and number:
            where = f"{path}, line {number + 1}"
            raise LabelsError(where, expected="a name and three values", found=repr(line[:80]), do="Correct the line.")
    return entries


def _from_table(path: Path, text: str) -> list[Entry]:
    """Read a table with the columns name, r, g, b in any order, or Pixel Value and Class; without a heading: name, r, g, b."""
    head, _, _ = text.partition("\n")
    comma = ";" if ";" in head and "," not in head else ","  # as Excel writes it where a comma stands in numbers
    try:
        table = csv.reader(StringIO(text, newline=""), delimiter=comma, skipinitialspace=True)
        rows = [row for row in table if any(row)]
    except csv.Error as error:
        raise LabelsError(path, expected="a .csv table", found=str(error), do="Save it as CSV again.") from error
    heads = [cell.strip().lower() for cell in rows[0]] if rows else []
    place = {
        key: heads.index(name) for key, names in _COLUMNS.items() for name in reversed(names) if name in heads
    }  # of several names for a column, the first in the list is taken
    first = 2 if "name" in place else 1
    if "name" in place:
        rows = rows[1:]
    else:
        place = {"name": 0, "r": 1, "g": 2, "b": 3}
    many = max(place.values()) + 1
    entries = []
    for number, row in enumerate(rows, first):
        where = f"{path}, row {number}"
        if len(row) < many:
            raise LabelsError(where, expected=f"{many} columns", found=str(len(row)), do="Correct the row.")
        colour = _colour(where, [row[place[key]] for key in "rgb"]) if {"r", "g", "b"} <= set(place) else None
        value = _number(where, row[place["id"]]) if "id" in place else None
        entries.append(Entry(row[place["name"]].strip(), colour, value))
    return entries


def _from_json(path: Path, plain: Any) -> list[Entry]:
    if isinstance(plain, Mapping):
        names = plain.get("names", plain.get("classes", plain.get("labels")))
        if isinstance(names, list) and all(isinstance(name, str) for name in names):
            return _from_lists(path, names, plain)
        if isinstance(names, list | Mapping):
            plain = names
    if isinstance(plain, list):
        return [_from_item(path, each, place) for place, each in enumerate(plain)]
    if isinstance(plain, Mapping):
        return [_from_pair(path, str(key), value) for key, value in plain.items()]
    raise _foreign(path, plain)


def _from_lists(path: Path, names: Sequence[str], plain: Mapping[str, Any]) -> list[Entry]:
    """Read {names, palette, ignore}: values are places in the list, and `ignore` is one, or several."""
    shown = next((plain[key] for key in ("palette", "colours", "colors") if plain.get(key)), [None] * len(names))
    ignored = plain.get("ignore")
    ignored = ignored if isinstance(ignored, list) else [ignored]
    if not isinstance(shown, list) or len(shown) != len(names):
        found = f"{len(shown)} for {len(names)} names" if isinstance(shown, list) else repr(shown)[:80]
        raise LabelsError(path, expected="a colour for every name", found=found, do="Correct the lists.")
    colours = [None if each is None else _colour(str(path), each) for each in shown]
    rows = enumerate(zip(names, colours, strict=True))
    return [Entry(name, colour, place, place in ignored) for place, (name, colour) in rows]


def _from_item(path: Path, item: Any, place: int) -> Entry:
    if isinstance(item, str):
        return Entry(item, None, place)
    if not isinstance(item, Mapping):
        raise _foreign(path, item)
    name = next((item[key] for key in _ITEM_NAMES if key in item), None)
    shown = next((item[key] for key in ("color", "colour", "rgb") if key in item), None)
    value = next((item[key] for key in _ITEM_VALUES if isinstance(item.get(key), int)), None)
    if not isinstance(name, str):
        raise _foreign(path, item)
    return Entry(name, None if shown is None else _colour(str(path), shown), value)


def _from_pair(path: Path, key: str, value: Any) -> Entry:
    if isinstance(value, Mapping):
        number = int(key) if re.fullmatch(r"\d{1,8}", key) else None
        named = number is not None and any(isinstance(value.get(word), str) for word in _ITEM_NAMES)
        known: dict[str, Any] = {} if named else {"name": key}
        if number is not None and not any(word in value for word in _ITEM_VALUES):
            known["id"] = number
        return _from_item(path, {**known, **value}, 0)
    if isinstance(value, int) and not isinstance(value, bool):
        return Entry(key, None, value)
    if isinstance(value, str) and re.fullmatch(r"\d{1,8}", key):
        return Entry(value, None, int(key))
    return Entry(key, _colour(str(path), value))


def _foreign(path: Path, item: Any) -> LabelsError:
    return LabelsError(
        path,
        expected="names with colours: {road: [128, 64, 128]}, or a list of {name, color}",
        found=repr(item)[:80],
        do="Write it so, or name the classes in a labels.yaml.",
    )


def _colour(where: str, value: Any) -> Colour:
    """Read three values 0–255, or #rrggbb."""
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


# From entries to labels ----------------------------------------------------------------------------------------------


def by_colour(where: object, entries: Iterable[Entry], ignored: Container[str] = ()) -> tuple[Labels, MaskRule]:
    """Make the labels of masks that hold colours; what counts in nothing becomes a colour of the rule.

    Args:
        where: the table, for messages.
        entries: its lines.
        ignored: classes that count in nothing, beside those that the table marks, and those called `__ignore__`, else void or ignore.

    Raises:
        LabelsError: a class without a colour, twice, or with another's.

    """
    entries = tuple(entries)
    bare = [each.name for each in entries if each.colour is None]
    if bare:
        found = f"none for {', '.join(bare[:4])}"
        raise LabelsError(where, expected="a colour for every class", found=found, do="Add the colours.")
    void = dict(zip(entries, _void(entries, ignored), strict=True))
    owner: dict[Colour | None, Entry] = {}
    for each in entries:
        other = owner.setdefault(each.colour, each)
        if other != each and not (void[each] and void[other]):
            found = f"{each.colour} for {other.name!r} and {each.name!r}"
            raise LabelsError(where, expected="a colour of its own for every class", found=found, do="Correct one.")
    counted = _counted(where, [each for each in void if not void[each]])
    labels = _labels(where, [each.name for each in counted], colours=[c for e in counted if (c := e.colour)])
    return labels, MaskRule(colours=True, ignored=tuple(c for c, each in owner.items() if c and void[each]))


def by_value(where: object, entries: Iterable[Entry], ignored: Container[str] = ()) -> tuple[Labels, MaskRule]:
    """Make the labels of masks that hold values: those of the table, else the places of its lines.

    Args:
        where: the table, for messages.
        entries: its lines.
        ignored: classes that count in nothing, beside those that the table marks, and those called `__ignore__`, else void or ignore.

    Raises:
        LabelsError: a class or a value twice.

    """
    valued = [Entry(e.name, e.colour, place if e.id is None else e.id, e.ignored) for place, e in enumerate(entries)]
    void = _void(valued, ignored)
    counted = _counted(where, [each for each, is_void in zip(valued, void, strict=True) if not is_void])
    lost = tuple(dict.fromkeys(e.id for e, is_void in zip(valued, void, strict=True) if is_void and e.id is not None))
    colours = [each.colour for each in counted if each.colour is not None]
    labels = _labels(
        where,
        [each.name for each in counted],
        ids=[each.id for each in counted if each.id is not None],
        colours=colours if len(colours) == len(counted) else [],
        ignore_ids=lost or None,
    )
    return labels, MaskRule(binary=255 not in lost)


def holds_values(entries: Sequence[Entry], masks: Sequence[Path]) -> bool:
    """Tell whether masks hold the values of a table, and not its colours, from some of them.

    Grey values and palettes may be either: colours, where every one of them is a colour of the table.
    """
    if any(each.colour is None for each in entries):
        return True
    colours = {code(each.colour) for each in entries if each.colour is not None}
    values = {place if each.id is None else each.id for place, each in enumerate(entries)} | {255}
    fits = False
    for path in masks[:: max(len(masks) // _LOOKED_INTO, 1)][:_LOOKED_INTO]:
        try:
            raw = read_mask_values(path)
        except DataError:
            continue  # told where the mask is used
        if raw.values.ndim == 3:
            return False
        if not set(np.unique(raw.values).tolist()) <= values:
            return False
        fits = fits or not set(np.unique(colour_codes(raw)).tolist()) <= colours
    return fits


def in_colour(masks: Sequence[Path]) -> bool:
    """Tell whether the first mask that can be read has bands of colour."""
    for path in masks[:_LOOKED_INTO]:
        try:
            return read_mask_values(path).values.ndim == 3
        except DataError:
            continue  # told where the mask is used
    return False


def _void(entries: Sequence[Entry], ignored: Container[str]) -> list[bool]:
    """Tell which entries count in nothing; where one is called `__ignore__`, others called void are classes."""
    words = () if any(each.name == IGNORED for each in entries) else _VOID
    return [
        each.ignored or each.name == IGNORED or each.name in ignored or each.name.lower() in words for each in entries
    ]


def _counted(where: object, entries: Iterable[Entry]) -> list[Entry]:
    counted = list(entries)
    if not counted:
        raise LabelsError(where, expected="a class that counts", found="none", do="Add one.")
    return counted


def _labels(where: object, names: list[str], **rest: Any) -> Labels:
    try:
        return Labels(tuple(names), **{key: value and tuple(value) for key, value in rest.items()})
    except LabelsError as error:
        raise LabelsError(where, expected=error.expected, found=error.found, do=error.do) from error


def told(where: Path | str, entries: Iterable[Entry], labels: Labels) -> tuple[str, ...]:
    """Say which classes of a table count in nothing, as one notice."""
    name = where.name if isinstance(where, Path) else where
    lost = sorted({each.name for each in entries} - set(labels.names))
    return (f"{name}: {', '.join(lost)} count{'s' * (len(lost) == 1)} in nothing",) if lost else ()
