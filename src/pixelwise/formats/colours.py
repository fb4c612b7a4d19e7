"""Masks of colours, or of values, with a table beside them that says what each stands for.

Comes in: a place. Goes out: images and masks as `folders` pairs them, and the classes that the table names. Which tables
are understood stands in `colour_maps`: one at the root, or Roboflow's `_classes.csv` in each part. A colour that the table
does not name is an error, and never taken for the nearest one.

Where masks hold single values that are no colours of the table, these are the places of its lines: many a set has both.

Written are RGB masks and class_dict.csv. Pixels that count in nothing have a colour of their own, `__ignore__` in the table;
where two classes share a colour, the second is given another.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable
from io import BytesIO, StringIO
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from pixelwise.errors import DataError, LabelsError, PixelwiseError
from pixelwise.formats import camvid, voc
from pixelwise.formats.base import IGNORED, ExportImage, Format, ReadResult, copy_image
from pixelwise.formats.colour_maps import Entry, by_colour, by_value, find_map, holds_values, read_map, told
from pixelwise.formats.dataset_root import DatasetRoot
from pixelwise.formats.folders import find_records
from pixelwise.formats.records import Layout, Record, short
from pixelwise.imageio.safe_reading import read_text
from pixelwise.labels import Colour, Labels, default_colours
from pixelwise.storage import write_atomic

_ROBOFLOW = "_classes.csv"
_TABLE = "class_dict.csv"
_WHITE = (255, 255, 255)


def detect(place: DatasetRoot) -> str | None:
    """Recognise a table of colours or values beside masks that `folders` would pair with images."""
    try:
        tables = _tables(place)
        # These have such tables, too, and are the more particular.
        if not tables or any(one.detect(place) is not None for one in (camvid, voc)):
            return None
        if tables[0].suffix == ".json":
            read_map(tables[0])  # of a name that other tools use as well
        masks = [record.mask for record in _records(_layout(place)) if record.mask is not None]
    except PixelwiseError:
        return None
    return f"{short(tables[0], place.root)} lies beside masks" if masks else None


def read(place: DatasetRoot) -> ReadResult:
    """Pair images and masks, and name the classes by the table.

    Raises:
        DataError: no table, or one that is not understood; no images, no masks.
        ConfigError: a template or list that makes no sense.

    """
    layout = _layout(place)
    table, entries = _entries(place)
    masks = [record.mask for record in _records(layout) if record.mask is not None]
    values = table.name == _ROBOFLOW or holds_values(entries, masks)
    name = short(table, place.root)
    labels, rule = (by_value if values else by_colour)(table, entries, place.config.ignored)
    what = "values" if values else "colours"
    notices = (*layout.notices, f"the masks hold {what}, named by {name}", *told(table, entries, labels))
    return ReadResult(Layout(f"{what}, {layout.kind}", layout.splits, layout.problems, notices), labels, rule)


def _layout(place: DatasetRoot) -> Layout:
    return find_records(place)


def _records(layout: Layout) -> Iterable[Record]:
    return (record for records in layout.splits.values() for record in records)


def _tables(place: DatasetRoot) -> tuple[Path, ...]:
    """Find the table at the root, else Roboflow's in the folders of images."""
    table = find_map(place.root)
    if table is not None:
        return (table,)
    named = [path for path in place.files if path.name == _ROBOFLOW]  # its table for classification is called so, too
    return tuple(path for path in named if read_text(path)[:64].lower().lstrip().startswith("pixel value"))


def _entries(place: DatasetRoot) -> tuple[Path, tuple[Entry, ...]]:
    """Read the table; several have to say the same."""
    tables = _tables(place)
    if not tables:
        raise DataError(
            place.root,
            expected=f"a table of colours or values ({_TABLE}, label_colors.txt, labelmap.txt, colormap.json, {_ROBOFLOW})",
            found="none",
            do=f"Write {_TABLE} with the columns name,r,g,b; or name the classes in a labels.yaml.",
        )
    entries = read_map(tables[0])
    for path in tables[1:]:
        other = read_map(path)
        odd = next((each for each in (*other, *entries) if each not in entries or each not in other), None)
        if odd is not None:
            raise LabelsError(
                path,
                expected=f"the same classes as in {short(tables[0], place.root)}",
                found=f"{odd.name!r} ({odd.id}) in one of them only",
                do="Export all parts of one version.",
            )
    return tables[0], entries


class _Writer:
    """Write images and RGB masks, in two folders for each part, and the table."""

    def __init__(self, out: Path, labels: Labels) -> None:
        self.out, self.labels = out, labels
        *self.colours, self.void = _apart((*labels.colours, _WHITE))
        self.shown = np.zeros((labels.ignore_index + 1, 3), np.uint8)
        self.shown[: labels.num_classes] = self.colours
        self.shown[labels.ignore_index] = self.void

    def add(self, image: ExportImage) -> Path:
        """Write a mask as RGB PNG."""
        target = self.out / image.split / "images" / f"{image.id}{image.image.suffix.lower()}"
        copy_image(image, target)
        mask = self.out / image.split / "masks" / f"{image.id}.png"
        mask.parent.mkdir(parents=True, exist_ok=True)
        buffer = BytesIO()
        Image.fromarray(self.shown[image.mask]).save(buffer, "PNG")
        write_atomic(mask, buffer.getvalue())
        return target

    def close(self) -> dict[str, Any]:
        """Write the table."""
        text = StringIO(newline="")
        rows = csv.writer(text, lineterminator="\n")
        rows.writerow(("name", "r", "g", "b"))
        rows.writerows((name, *colour) for name, colour in zip(self.labels.names, self.colours, strict=True))
        rows.writerow((IGNORED, *self.void))
        write_atomic(self.out / _TABLE, text.getvalue().encode())
        return {
            "format": "colours",
            "labels": {**self.labels.to_dict(), "colours": [list(colour) for colour in self.colours]},
            "mask_values": {"colours": True, "ignored": [list(self.void)]},
        }


def _apart(colours: Iterable[Colour]) -> tuple[Colour, ...]:
    """Give every colour once: those that are there already are replaced by drawn ones, and then by any that is free."""
    wanted = list(colours)
    spare = chain(default_colours(2 * len(wanted)), ((n >> 16, n >> 8 & 255, n & 255) for n in range(1 << 24)))
    taken = set(wanted)
    given: dict[Colour, None] = {}
    for colour in wanted:
        given[
            colour if colour not in given else next(each for each in spare if each not in taken and each not in given)
        ] = None
    return tuple(given)


FORMAT = Format("colours", "colour masks", detect, read, _Writer)
