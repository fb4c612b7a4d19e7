"""Annotation formats, one module each, and the detection of the format of a data set.

To add a format, write its module and add its `FORMAT` to `_ALL`; the contract suite tests every entry.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from pixelwise.config import DataConfig
from pixelwise.errors import ConfigError, DataError, nearest
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
from pixelwise.formats.records import short
from pixelwise.formats.unused import UNUSED, describe_files, describe_unrecognised, find_unused

__all__ = ["FORMATS", "Format", "ReadResult", "find_format", "read_dataset"]

# Specific formats before general ones; `folders` is the fallback.
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
FORMATS = {format_.name: format_ for format_ in _ALL}


def find_format(dataset: DatasetRoot) -> tuple[Format, str | None]:
    """Return the format that the configuration names, otherwise the one detected, otherwise folders of masks.

    Returns:
        The format, and the reason; None if it was named or is the fallback.

    Raises:
        ConfigError: an unknown name.
        DataError: several formats are detected.
    """
    config = dataset.config
    if config.format is not None:
        if config.format in FORMATS:
            return FORMATS[config.format], None
        do = nearest(config.format, FORMATS, "Choose one, or leave it out.")
        raise ConfigError("data.format", expected=f"one of {', '.join(FORMATS)}", found=repr(config.format), do=do)
    # If masks are named, they are mask files; images named without masks may belong to annotation files.
    masks_named = config.annotations is None and (config.images is None or config.masks is not None)
    by_name = bool(dataset.named_splits) and masks_named
    candidates = [each for each in _ALL if each is not folders.FORMAT and (each.by_name or not by_name)]
    detected = [(each, reason) for each in candidates if (reason := each.detect(dataset)) is not None]
    if len(detected) > 1:
        found = "; ".join(f"{each.name} ({reason})" for each, reason in detected)
        raise _ambiguous(dataset, found, f"--set data.format={detected[0][0].name}")
    return detected[0] if detected else (folders.FORMAT, None)


def read_dataset(config: DataConfig, root: Path, base: Path) -> tuple[Format, ReadResult]:
    """Detect the format of a data set and read its annotations.

    Raises:
        DataError: no folder, no images, invalid annotations, or a second data set in folders of masks beside.
        ConfigError: an invalid key of the `data` section.
    """
    if not root.is_dir():
        found = "a file" if root.exists() else "nothing"
        raise DataError(root, expected="the data set's folder", found=found, do="Check the path, and data.root.")
    dataset = DatasetRoot(root, base, config)
    format_, reason = find_format(dataset)
    try:
        result = format_.read(dataset)
    except DataError as error:
        others = describe_unrecognised(dataset) if type(error) is DataError and config.format is None else ""
        if not others or reason is not None:
            raise
        # Masks may not be missing: annotations may be broken.
        raise DataError(error.where, expected=error.expected, found=f"{error.found}; {others}", do=error.do) from error
    notices = list(result.layout.notices)
    if reason is not None:
        _require_no_other(dataset, format_, reason, result)
        notices.insert(0, f"read as {format_.title}: {reason}")
    for encoding, paths in dataset.encodings.items():
        notices.append(f"read as {encoding}, since they are not UTF-8: {describe_files(paths, root)}")
    unused = find_unused(dataset, result.layout)
    if unused:
        notices.append(UNUSED + describe_files(unused, root))
    return format_, replace(result, layout=replace(result.layout, notices=tuple(notices)))


def _require_no_other(dataset: DatasetRoot, format_: Format, reason: str, result: ReadResult) -> None:
    """Refuse a data set that also has matching folders of images and masks with none of the images that were read.

    Raises:
        DataError: there are such folders; it is not clear which data set is meant.
    """
    if format_ is colours.FORMAT or dataset.config.images is not None or dataset.config.annotations is not None:
        return  # colour masks are read from such folders; named files are unambiguous
    try:
        pairs = folders.find_folder_pairs(dataset)
    except DataError:
        return  # no unambiguous pair of folders
    used = {record.image for record in result.layout.records}
    for pair in pairs:
        if pair.tie.count and used.isdisjoint(path for paths in pair.images.values() for path in paths):
            shown = f"{short(pair.image_folder, dataset.root)}/ with {short(pair.mask_folder, dataset.root)}/"
            found = f"{format_.name} ({reason}); masks ({shown}, of whose images the other has none)"
            option = f"--set data.format={format_.name}, or --set data.format=masks"
            raise _ambiguous(dataset, found, option)


def _ambiguous(dataset: DatasetRoot, found: str, option: str) -> DataError:
    do = f"Choose one: {option}."
    return DataError(dataset.root, expected="annotations of one format", found=found, do=do)
