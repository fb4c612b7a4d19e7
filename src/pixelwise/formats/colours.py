"""Masks of colours, or of values, with a table beside them that names the classes.

Images and masks are paired as in `folders`; `colour_maps` lists the supported tables: one at the root, or Roboflow's
`_classes.csv` in each split. A colour that is not in the table is an error. If masks hold single values that are not colours
of the table, these are indices of its entries.

The writer writes RGB masks and class_dict.csv. Ignored pixels have a colour of their own, `__ignore__` in the table; if two
classes share a colour, the second gets another.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable
from dataclasses import replace
from io import StringIO
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from pixelwise.errors import DataError, LabelsError, PixelwiseError
from pixelwise.formats import camvid, voc
from pixelwise.formats.base import IGNORED, ExportImage, Format, ReadResult, png_bytes
from pixelwise.formats.colour_maps import (
    Entry,
    by_colour,
    by_value,
    find_map,
    holds_values,
    ignored_notice,
    read_map,
)
from pixelwise.formats.dataset_root import DatasetRoot
from pixelwise.formats.folders import copy_into_folders, find_records
from pixelwise.formats.records import short
from pixelwise.imageio.safe_reading import read_text
from pixelwise.labels import Colour, Labels, default_colours
from pixelwise.storage import write_atomic

_ROBOFLOW = "_classes.csv"
_TABLE = "class_dict.csv"
_WHITE = (255, 255, 255)


def detect(dataset: DatasetRoot) -> str | None:
    """Recognise a table of colours or values beside masks that `folders` can pair with images."""
    try:
        tables = _find_tables(dataset)
        # These more specific formats have such tables, too.
        if not tables or any(each.detect(dataset) is not None for each in (camvid, voc)):
            return None
        if tables[0].suffix == ".json":
            read_map(tables[0])  # other tools use such names, too
        masks = find_records(dataset).masks
    except PixelwiseError:
        return None
    return f"{short(tables[0], dataset.root)} beside masks" if masks else None


def read(dataset: DatasetRoot) -> ReadResult:
    """Pair images and masks, and name the classes by the table.

    Raises:
        DataError: no table, or an invalid one; no images, no masks.
        ConfigError: an invalid template or list.
    """
    layout = find_records(dataset)
    table, entries = _read_tables(dataset)
    values = table.name == _ROBOFLOW or holds_values(entries, layout.masks)
    labels, rule = (by_value if values else by_colour)(table, entries, dataset.config.ignored)
    content = "values" if values else "colours"
    notice = f"the masks hold {content}, named by {short(table, dataset.root)}"
    notices = (*layout.notices, notice, *ignored_notice(table, entries, labels))
    return ReadResult(replace(layout, kind=f"{content}, {layout.kind}", notices=notices), labels, rule)


def _find_tables(dataset: DatasetRoot) -> tuple[Path, ...]:
    """Find the table at the root, otherwise Roboflow's in the folders of images."""
    table = find_map(dataset.root)
    if table is not None:
        return (table,)
    named = [path for path in dataset.files if path.name == _ROBOFLOW]  # also the name of its table for classification
    return tuple(path for path in named if read_text(path)[:64].lower().lstrip().startswith("pixel value"))


def _read_tables(dataset: DatasetRoot) -> tuple[Path, tuple[Entry, ...]]:
    """Read the table; if there are several, they must be equal."""
    tables = _find_tables(dataset)
    if not tables:
        raise DataError(
            dataset.root,
            expected=f"a table of colours or values ({_TABLE}, label_colors.txt, labelmap.txt, colormap.json, {_ROBOFLOW})",
            found="none",
            do=f"Write {_TABLE} with the columns name,r,g,b; or name the classes in a labels.yaml.",
        )
    dataset.use(*tables)
    entries = read_map(tables[0])
    for path in tables[1:]:
        other = read_map(path)
        different = next((each for each in (*other, *entries) if each not in entries or each not in other), None)
        if different is not None:
            raise LabelsError(
                path,
                expected=f"the same classes as in {short(tables[0], dataset.root)}",
                found=f"{different.name!r} ({different.id}) in one of them only",
                do="Export all splits of one version.",
            )
    return tables[0], entries


class _Writer:
    """Writes images and RGB masks in two folders per split, and the table."""

    def __init__(self, out: Path, labels: Labels) -> None:
        self.out = out
        self.labels = labels
        *self.colours, self.ignored = _distinct((*labels.colours, _WHITE))
        self.table = np.zeros((labels.ignore_index + 1, 3), np.uint8)
        self.table[: labels.num_classes] = self.colours
        self.table[labels.ignore_index] = self.ignored

    def add(self, image: ExportImage) -> Path:
        """Write a mask as RGB PNG."""
        target, mask = copy_into_folders(self.out, image)
        write_atomic(mask, png_bytes(Image.fromarray(self.table[image.mask])))
        return target

    def close(self) -> dict[str, Any]:
        """Write the table."""
        text = StringIO(newline="")
        rows = csv.writer(text, lineterminator="\n")
        rows.writerow(("name", "r", "g", "b"))
        rows.writerows((name, *colour) for name, colour in zip(self.labels.names, self.colours, strict=True))
        rows.writerow((IGNORED, *self.ignored))
        write_atomic(self.out / _TABLE, text.getvalue().encode())
        return {
            "format": "colours",
            "labels": {**self.labels.to_dict(), "colours": [list(colour) for colour in self.colours]},
            "mask_values": {"colours": True, "ignored": [list(self.ignored)]},
        }


def _distinct(colours: Iterable[Colour]) -> list[Colour]:
    """Replace repeated colours by generated ones, and then by any that is free."""
    requested = list(colours)
    spare = chain(default_colours(2 * len(requested)), ((n >> 16, n >> 8 & 255, n & 255) for n in range(1 << 24)))
    result: list[Colour] = []
    for colour in requested:
        free = (each for each in spare if each not in requested and each not in result)
        result.append(next(free) if colour in result else colour)
    return result


FORMAT = Format("colours", "colour masks", detect, read, _Writer)
