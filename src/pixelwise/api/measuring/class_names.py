"""Name the classes of mask files that come without a model: by a labels.yaml, by tables in the files, or by their ids."""

from __future__ import annotations

import html
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np

from pixelwise.config.files import read_yaml
from pixelwise.errors import MaskError
from pixelwise.imageio import volume_files
from pixelwise.imageio.images import read_header
from pixelwise.imageio.masks import MaskRule, read_ids
from pixelwise.imageio.sources import open_source
from pixelwise.labels import Labels
from pixelwise.measuring.masks import bands

LABELS = "labels.yaml"
_TIFF = (".tif", ".tiff")
_METADATA = 42112  # GDAL_METADATA, XML
_IGNORED = 255
_BAND_PIXELS = 1 << 24
_MOST = 1000
_IDS = MaskRule(binary=False)


def labels_of(files: Sequence[Path], root: Path) -> Labels:
    """Return the classes of mask files, one or more.

    They are those of a `labels.yaml` in `root`; otherwise, those that the files name, and all ids that occur, as "class 3". The nodata
    value of the files is ignored, and so is 255, unless it is named or 0 is the only other id.

    Raises:
        MaskError: colours, fractions, or more than 1,000 ids.
        LabelsError: two ids of one name.
    """
    described = root / LABELS
    if described.is_file():
        return Labels.from_dict(read_yaml(described)[0], str(described))
    names: dict[int, str] = {}
    ignored: set[int] = set()
    ids: set[int] = set()
    for path in files:
        names |= _names_in(path)
        ignored |= _nodata(path)
        ids |= _ids_in(path)
    if _IGNORED not in names and ids - {0, _IGNORED}:
        ignored.add(_IGNORED)
    ignored -= set(names)
    every = sorted((ids | set(names)) - ignored) or [0]
    texts = tuple(names.get(each, f"class {each}") for each in every)
    return Labels(texts, tuple(every), ignore_ids=tuple(sorted(ignored)))


def _names_in(path: Path) -> dict[int, str]:
    """Return the names by id that a file holds."""
    if volume_files.is_volume(path):
        return volume_files.read_label_table(path)
    if path.suffix.lower() not in _TIFF:
        return {}
    import tifffile

    with tifffile.TiffFile(path) as file:
        tag = file.pages.first.tags.get(_METADATA)
        return {} if tag is None else _classes(str(tag.value))  # read only now


def _classes(metadata: str) -> dict[int, str]:
    """Return the table that `predict` writes as the item CLASSES: JSON, from id to name."""
    try:
        for item in ElementTree.fromstring(metadata.strip("\0")).iter("Item"):
            if item.get("name") == "CLASSES":
                plain: Mapping[str, Any] = json.loads(html.unescape(item.text or "{}"))  # GDAL escapes twice
                return {int(key): str(value) for key, value in plain.items()}
    except (ElementTree.ParseError, ValueError, AttributeError):
        return {}  # of another program
    return {}


def _nodata(path: Path) -> set[int]:
    if volume_files.is_volume(path):
        return set()
    value = read_header(path).nodata
    return {int(value)} if value is not None and float(value).is_integer() else set()


def _ids_in(path: Path) -> set[int]:
    """Return the ids that occur in a file, reading it by bands of rows or slices."""
    shape = tuple(open_source(path).shape)
    found: set[int] = set()
    for window in bands(shape, max(_BAND_PIXELS // int(np.prod(shape[1:])), 1)):
        if volume_files.is_volume(path):
            values = open_source(path).read(window)[0][0]
        else:
            values = read_ids(path, _IDS, window=window)[0]
        present = np.unique(values)
        if (present != np.rint(present)).any():
            raise MaskError(path, expected="class ids", found="fractions", do="Name a mask, not an image.")
        found |= {int(value) for value in present}
        if len(found) > _MOST:
            found_text = f"more than {_MOST:,} different values"
            raise MaskError(path, expected="class ids", found=found_text, do="Name a mask, not an image.")
    return found
