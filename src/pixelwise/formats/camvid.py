"""CamVid in the four layouts in which it is distributed, and other data sets with the same layout.

    train/ trainannot/ val/ valannot/ …      SegNet's tutorial: ids 0–10, 11 is ignored
    train/ train_labels/*_L.png …            Kaggle: colours, with class_dict.csv
    701_StillsRaw_full/ LabeledApproved_full/*_L.png     the original: colours, perhaps with label_colors.txt
    images/ labels/*_P.png codes.txt valid.txt           fast.ai: values are line numbers of codes.txt

Void is ignored. CamVid's class names are used only if the images are named like CamVid's; the classes of other data sets
come from classes.json or from their masks. There is no writer: `masks` and `colours` write the same content in folders whose
names more tools recognise.

Source: Brostow, Fauqueur, Cipolla: Semantic object classes in video, 2009 (colours); the SegNet tutorial (11 classes).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from pixelwise.errors import DataError
from pixelwise.formats.base import Format, ReadResult
from pixelwise.formats.colour_maps import (
    MAPS,
    Entry,
    by_colour,
    by_value,
    find_map,
    highest_value,
    holds_values,
    ignored_notice,
    in_colour,
    read_map,
    read_names,
)
from pixelwise.formats.dataset_root import DatasetRoot
from pixelwise.formats.presets import FolderLayout, find_layout, parse_classes, read_layout

_LAYOUTS = (
    FolderLayout("701_StillsRaw_full", "LabeledApproved_full/{stem}_L"),
    FolderLayout("images", "labels/{stem}_P", ("codes.txt",), holds_ids=True),
    FolderLayout("{split}", "{images}annot/{stem}", holds_ids=True),
    FolderLayout("{split}", "{images}_labels/{stem}_L", MAPS),
)
_FILE_NAMES = re.compile(r"(0001TP|0006R0|0016E5|Seq05VD)_")


def _entries(text: str) -> tuple[Entry, ...]:
    return tuple(Entry(name, (r, g, b), None, False, thing) for name, thing, (r, g, b) in parse_classes(text))


# Ids 0–11 of the tutorial, and the 32 classes of the original: red, green and blue.
_TUTORIAL = _entries("""
Sky 128 128 128, Building 128 0 0, Pole* 192 192 128, Road 128 64 128, Pavement 0 0 192, Tree 128 128 0,
SignSymbol* 192 128 128, Fence 64 64 128, Car* 64 0 128, Pedestrian* 64 64 0, Bicyclist* 0 128 192, Void 0 0 0
""")
_ORIGINAL = _entries("""
Animal* 64 128 64, Archway 192 0 128, Bicyclist* 0 128 192, Bridge 0 128 64, Building 128 0 0, Car* 64 0 128,
CartLuggagePram* 64 0 192, Child* 192 128 64, Column_Pole* 192 192 128, Fence 64 64 128, LaneMkgsDriv 128 0 192,
LaneMkgsNonDriv 192 0 64, Misc_Text 128 128 64, MotorcycleScooter* 192 0 192, OtherMoving* 128 64 64,
ParkingBlock 64 192 128, Pedestrian* 64 64 0, Road 128 64 128, RoadShoulder 128 128 192, Sidewalk 0 0 192,
SignSymbol* 192 128 128, Sky 128 128 128, SUVPickupTruck* 64 128 192, TrafficCone* 0 0 64, TrafficLight* 0 64 64,
Train* 192 64 128, Tree 128 128 0, Truck_Bus* 192 128 192, Tunnel 64 0 64, VegetationMisc 192 192 0, Void 0 0 0,
Wall 64 192 0
""")
_COUNTABLE = {each.name: each.countable for each in (*_TUTORIAL, *_ORIGINAL)}


def detect(dataset: DatasetRoot) -> str | None:
    """Recognise one of the four layouts by the names of its folders and tables."""
    found = find_layout(dataset, _LAYOUTS)
    if found is None:
        return None
    files = next(iter(found[1].values()))
    return f"{files.images[0]} with {files.masks}"


def read(dataset: DatasetRoot) -> ReadResult:
    """Pair images and masks, and find the classes.

    Raises:
        DataError: no such folders, or an invalid table.
        ConfigError: an invalid list.
    """
    found = find_layout(dataset, _LAYOUTS)
    if found is None:
        raise DataError(
            dataset.root,
            expected="train/ and trainannot/, train/ and train_labels/, or images/ and labels/ with codes.txt",
            found="none of these",
            do="Leave data.format out, or set data.format: masks.",
        )
    folder_layout, splits = found
    layout = read_layout(dataset, splits)
    dataset.use(dataset.root / "codes.txt", find_map(dataset.root) or dataset.root)
    masks = layout.masks
    coloured = in_colour(masks)
    where, entries = _find_entries(dataset.root, [record.image for record in layout.records], masks, coloured)
    if not entries:
        return ReadResult(replace(layout, kind="CamVid's folders"))
    by_id = not coloured if folder_layout.holds_ids else holds_values(entries, masks)
    labels, rule = (by_value if by_id else by_colour)(where, entries, dataset.config.ignored)
    if set(labels.names) <= _COUNTABLE.keys():
        labels = replace(labels, countable=tuple(_COUNTABLE[name] for name in labels.names))
    notices = (*layout.notices, *ignored_notice(where, entries, labels))
    return ReadResult(replace(layout, kind="CamVid's folders", notices=notices), labels, rule)


def _find_entries(
    root: Path, images: Sequence[Path], masks: Sequence[Path], coloured: bool
) -> tuple[Path | str, tuple[Entry, ...]]:
    """Find the classes: in codes.txt, in a table, otherwise CamVid's own if the names of images and the ids match."""
    codes = root / "codes.txt"
    if codes.is_file():
        colours = {each.name: each.colour for each in _ORIGINAL}
        return codes, tuple(Entry(name, colours.get(name), k) for k, name in enumerate(read_names(codes)))
    table = find_map(root)
    if table is not None:
        return table, read_map(table)
    if not any(_FILE_NAMES.match(image.name) for image in images):
        return "", ()
    if coloured:
        return "CamVid's 32 colours", _ORIGINAL
    return ("CamVid's 11 classes", _TUTORIAL) if highest_value(masks) < len(_TUTORIAL) else ("", ())


FORMAT = Format("camvid", "CamVid's folders", detect, read)
