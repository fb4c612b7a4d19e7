"""The formats that people label in, one file each, and which of them a place is in.

Comes in: the `data` section and a root folder. Goes out: the records of the images, and what the format says of the
classes. To add a format, write its file and add its `FORMAT` to `_ALL`; the contract suite picks it up from there.
"""

from __future__ import annotations

import difflib
from dataclasses import replace
from pathlib import Path

from pixelwise.config import DataConfig, SplitFilesConfig
from pixelwise.errors import ConfigError, DataError
from pixelwise.formats import (
    ade20k,
    camvid,
    cityscapes,
    coco,
    coco_panoptic,
    colours,
    cvat,
    dicom,
    folders,
    geojson,
    label_studio,
    labelme,
    nifti,
    voc,
    yolo,
)
from pixelwise.formats.base import Format, ReadResult
from pixelwise.formats.dataset_root import DatasetRoot
from pixelwise.formats.folders.siblings import Search
from pixelwise.formats.folders.tree import Tree, Wanted
from pixelwise.formats.records import SPLITS, short

__all__ = ["FORMATS", "Format", "ReadResult", "find_format", "read_dataset"]

# The more particular before the general: `folders` takes what nobody else knows.
_ALL = (
    dicom.FORMAT,
    nifti.FORMAT,
    geojson.FORMAT,
    coco_panoptic.FORMAT,
    coco.FORMAT,
    labelme.FORMAT,
    label_studio.FORMAT,
    cvat.FORMAT,
    yolo.FORMAT,
    voc.FORMAT,
    cityscapes.FORMAT,
    ade20k.FORMAT,
    camvid.FORMAT,
    colours.FORMAT,
    folders.FORMAT,
)
FORMATS = {one.name: one for one in _ALL}


def find_format(place: DatasetRoot) -> tuple[Format, str | None]:
    """Find the format of a place: the one that the configuration names, else the one that recognises it.

    Returns:
        The format, and why in words; None where it was named, or nothing else fits.

    Raises:
        ConfigError: an unknown name.
        DataError: several formats recognise the place.

    """
    config = place.config
    if config.format is not None:
        if config.format in FORMATS:
            return FORMATS[config.format], None
        near = difflib.get_close_matches(config.format, FORMATS, 1, 0.4)
        do = f"Did you mean {near[0]!r}?" if near else "Choose one, or leave it out."
        raise ConfigError("data.format", expected=f"one of {', '.join(FORMATS)}", found=repr(config.format), do=do)
    by_name = config.images is not None or any(isinstance(getattr(config, split), SplitFilesConfig) for split in SPLITS)
    # Named masks are files of masks; images that are named alone may be those of some annotations.
    masks = by_name and config.annotations is None and (config.images is None or config.masks is not None)
    asked = [one for one in _ALL if one is not folders.FORMAT and (one.by_name or not masks)]
    claims = [(one, why) for one in asked if (why := one.detect(place)) is not None]
    if len(claims) > 1:
        found = "; ".join(f"{one.name} ({why})" for one, why in claims)
        raise DataError(
            place.root,
            expected="annotations of one format",
            found=found,
            do=f"Say which is meant: --set data.format={claims[0][0].name}.",
        )
    return claims[0] if claims else (folders.FORMAT, None)


def read_dataset(config: DataConfig, root: Path, base: Path) -> tuple[Format, ReadResult]:
    """Find the format of a data set, and read it.

    Raises:
        DataError: no folder, no images, nothing that is understood; or another set beside, in folders of masks.
        ConfigError: a key of the `data` section that makes no sense.

    """
    if not root.is_dir():
        found = "a file" if root.exists() else "nothing"
        raise DataError(root, expected="the data set's folder", found=found, do="Check the path, and data.root.")
    place = DatasetRoot(root, base, config)
    kind, why = find_format(place)
    read = kind.read(place)
    if why is None:
        return kind, read
    _require_no_other(place, kind, why, read)
    told = f"read as {kind.title}: {why}"
    return kind, replace(read, layout=replace(read.layout, notices=(told, *read.layout.notices)))


def _require_no_other(place: DatasetRoot, kind: Format, why: str, read: ReadResult) -> None:
    """Refuse a place where folders of images and masks belong together, too, of whose images the format reads none.

    Neither lies there by accident, and which is meant does not follow from which lies deeper.

    Raises:
        DataError: there are some.

    """
    if kind is colours.FORMAT or place.config.images is not None or place.config.annotations is not None:
        return  # colours are read from such folders themselves; and who names files says what is meant
    try:
        pairs = Search(Tree(place), Wanted()).pairs(place.root)
    except DataError:
        return  # nothing that belongs together without a question
    used = {record.image for records in read.layout.splits.values() for record in records}
    for one in pairs:
        if one.tie.count and used.isdisjoint(path for paths in one.images.values() for path in paths):
            folders = f"{short(one.image_folder, place.root)}/ with {short(one.masks, place.root)}/"
            raise DataError(
                place.root,
                expected="annotations of one format",
                found=f"{kind.name} ({why}); masks ({folders}, of whose images the other has none)",
                do=f"Say which is meant: --set data.format={kind.name}, or --set data.format=masks.",
            )
