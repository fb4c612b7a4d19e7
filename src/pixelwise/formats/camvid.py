"""CamVid in the four ways in which it is handed on, and other sets laid out like it.

Comes in: a place. Goes out: images and masks paired by name, and the classes.

    train/ trainannot/ val/ valannot/ …      SegNet's tutorial: ids 0–10, 11 counts in nothing
    train/ train_labels/*_L.png …            Kaggle: colours, with class_dict.csv
    701_StillsRaw_full/ LabeledApproved_full/*_L.png     the original: colours, with label_colors.txt where it lies there
    images/ labels/*_P.png codes.txt valid.txt           fast.ai: a value is a line of codes.txt

Void counts in nothing. The names of CamVid's classes are given to images that are called as CamVid's are, and to no
others: without classes.json, any other set's classes are listed from its masks. There is no writer: the same folders under
the names that more tools read are `masks`, and with colours `colours`.

Source: Brostow, Fauqueur, Cipolla: Semantic object classes in video, 2009 (colours); the SegNet tutorial (11 classes).
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from pixelwise.config import SplitFilesConfig
from pixelwise.errors import DataError
from pixelwise.formats.base import Format, ReadResult
from pixelwise.formats.colour_maps import Entry, by_colour, by_value, find_map, holds_values, in_colour, read_map, told
from pixelwise.formats.dataset_root import DatasetRoot, split_of_folder
from pixelwise.formats.folders import find_records
from pixelwise.formats.records import SPLITS, Layout
from pixelwise.imageio.images import IMAGE_SUFFIXES, read_mask_values
from pixelwise.imageio.safe_reading import read_text

_ORIGINAL = ("701_StillsRaw_full", "LabeledApproved_full")
_OWN_NAMES = re.compile(r"(0001TP|0006R0|0016E5|Seq05VD)_")
_LOOKED_INTO = 16
_THINGS = frozenset(
    ("Animal", "Bicyclist", "Car", "CartLuggagePram", "Child", "Column_Pole", "MotorcycleScooter", "OtherMoving", "Pedestrian",
     "Pole", "SignSymbol", "SUVPickupTruck", "TrafficCone", "TrafficLight", "Train", "Truck_Bus")
)  # fmt: skip

# Red, green and blue of the tutorial's ids 0–11, and of the 32 classes of the original.
_TUTORIAL = """
128 128 128 Sky, 128 0 0 Building, 192 192 128 Pole, 128 64 128 Road, 0 0 192 Pavement, 128 128 0 Tree, 192 128 128 SignSymbol,
64 64 128 Fence, 64 0 128 Car, 64 64 0 Pedestrian, 0 128 192 Bicyclist, 0 0 0 Void
"""
_ALL = """
64 128 64 Animal, 192 0 128 Archway, 0 128 192 Bicyclist, 0 128 64 Bridge, 128 0 0 Building, 64 0 128 Car,
64 0 192 CartLuggagePram, 192 128 64 Child, 192 192 128 Column_Pole, 64 64 128 Fence, 128 0 192 LaneMkgsDriv,
192 0 64 LaneMkgsNonDriv, 128 128 64 Misc_Text, 192 0 192 MotorcycleScooter, 128 64 64 OtherMoving,
64 192 128 ParkingBlock, 64 64 0 Pedestrian, 128 64 128 Road, 128 128 192 RoadShoulder, 0 0 192 Sidewalk,
192 128 128 SignSymbol, 128 128 128 Sky, 64 128 192 SUVPickupTruck, 0 0 64 TrafficCone, 0 64 64 TrafficLight,
192 64 128 Train, 128 128 0 Tree, 192 128 192 Truck_Bus, 64 0 64 Tunnel, 192 192 0 VegetationMisc, 0 0 0 Void, 64 192 0 Wall
"""


@dataclass(frozen=True)
class _Way:
    """Hold one way of laying it out.

    Args:
        why: what shows that it is this one.
        folders: those of images and masks, per part.
        ending: how the names of masks end.
        values: masks hold ids, even where they have a palette.

    """

    why: str
    folders: dict[str, tuple[str, str]]
    ending: str = ""
    values: bool = False


def detect(place: DatasetRoot) -> str | None:
    """Recognise one of the four layouts by the names of its folders and tables."""
    way = _find(place, _folders(place))
    return None if way is None else way.why


def read(place: DatasetRoot) -> ReadResult:
    """Pair images and masks, and find the classes.

    Raises:
        DataError: no such folders; a table that is not understood.
        ConfigError: a list that makes no sense.

    """
    own = _folders(place)
    way = _find(place, own)
    if way is None:
        raise DataError(
            place.root,
            expected="train/ and trainannot/, train/ and train_labels/, or images/ and labels/ with codes.txt",
            found="none of these",
            do="Leave data.format out, or set data.format: masks.",
        )
    layout = _layout(place, way, own)
    records = [record for own in layout.splits.values() for record in own]
    masks = [record.mask for record in records if record.mask is not None]
    coloured = in_colour(masks)
    where, entries = _entries(place.root, [record.image for record in records], masks, coloured)
    if not entries:
        return ReadResult(layout)
    by_id = not coloured if way.values else holds_values(entries, masks)
    labels, rule = (by_value if by_id else by_colour)(where, entries, place.config.ignored)
    if set(labels.names) <= {each.name for text in (_TUTORIAL, _ALL) for each in _table(text)}:
        labels = replace(labels, countable=tuple(each in _THINGS for each in labels.names))
    return ReadResult(replace(layout, notices=(*layout.notices, *told(where, entries, labels))), labels, rule)


Folders = Mapping[Path, Sequence[Path]]


def _folders(place: DatasetRoot) -> Folders:
    """Give the images, masks among them, that lie in each folder."""
    own: dict[Path, list[Path]] = defaultdict(list)
    for path in place.files:
        if path.suffix.lower() in IMAGE_SUFFIXES:
            own[path.parent].append(path)
    return own


def _find(place: DatasetRoot, own: Folders) -> _Way | None:
    """Find the layout: which folders hold what."""
    root = place.root
    images, masks = _ORIGINAL
    if root / images in own and root / masks in own:
        return _Way(f"{images}/ and {masks}/ are CamVid's", {"pool": (images, masks)}, "_L")
    if (root / "codes.txt").is_file() and root / "images" in own and _suffix(own.get(root / "labels", ()), "_P"):
        return _Way("codes.txt lies beside images/ and labels/", {"pool": ("images", "labels")}, "_P", values=True)
    beside = _beside(root, own, "annot", "")
    if beside:
        return _Way(f"{'/ has '.join(next(iter(beside.values())))}/ beside it", beside, values=True)
    beside = _beside(root, own, "_labels", "_L") if find_map(root) else {}
    if beside:
        return _Way(f"{'/ has '.join(next(iter(beside.values())))}/ and a table of colours beside it", beside, "_L")
    return None


def _beside(root: Path, own: Folders, behind: str, ending: str) -> dict[str, tuple[str, str]]:
    """Find the folders of parts that have one of masks beside them, called the same with something behind."""
    found: dict[str, tuple[str, str]] = {}
    for folder in sorted(path for path in own if path.parent == root):
        split, masks = split_of_folder(folder / "x", root), folder.with_name(folder.name + behind)
        if split and split not in found and _suffix(own.get(masks, ()), ending):
            found[split] = (folder.name, masks.name)
    return found


def _suffix(files: Iterable[Path], ending: str) -> str | None:
    """Give the suffix that most of those files have whose name ends so."""
    suffixes = Counter(path.suffix for path in files if path.stem.endswith(ending))
    return suffixes.most_common(1)[0][0] if suffixes else None


def _layout(place: DatasetRoot, way: _Way, own: Folders) -> Layout:
    """Pair by globs and templates, as a data.yaml would name them; what the configuration names goes before."""
    config = place.config
    notices: tuple[str, ...] = ()
    if config.images is None and not any(isinstance(getattr(config, split), SplitFilesConfig) for split in SPLITS):
        splits = {}
        for split, (images, masks) in way.folders.items():
            globs = sorted({f"{images}/*{path.suffix}" for path in own[place.root / images]})
            suffix = _suffix(own[place.root / masks], way.ending) or ".png"
            splits[split] = SplitFilesConfig(images=globs, masks=f"{masks}/{{stem}}{way.ending}{suffix}")
        pool = splits.pop("pool", None)
        update: dict[str, object] = dict(splits)
        if pool is not None:
            update |= {"images": pool.images, "masks": pool.masks}
            if (place.root / "valid.txt").is_file() and not any(getattr(config, split) for split in SPLITS):
                update["val"] = "valid.txt"
        config, notices = config.model_copy(update=update), _left_out(place, way, own)
    layout = find_records(replace(place, config=config))
    return replace(layout, kind="CamVid's folders", notices=(*layout.notices, *notices))


def _left_out(place: DatasetRoot, way: _Way, own: Folders) -> tuple[str, ...]:
    """Tell of folders of parts that are not read: without one of masks beside them, or the second of a part."""
    read = {place.root / name for folders in way.folders.values() for name in folders}
    rest = (folder for folder in sorted(own) if folder.parent == place.root and folder not in read)
    return tuple(
        f"{folder.name}/: {len(own[folder])} images are left out; no masks are beside them, or the part has another folder"
        for folder in rest
        if split_of_folder(folder / "x", place.root)
    )


def _entries(
    root: Path, images: Sequence[Path], masks: Sequence[Path], coloured: bool
) -> tuple[Path | str, tuple[Entry, ...]]:
    """Find the classes: in a table, in codes.txt, else CamVid's own where images are called so and the ids fit."""
    table, codes = find_map(root), root / "codes.txt"
    if codes.is_file():
        colours = {each.name: each.colour for each in _table(_ALL)}
        names = [line.strip() for line in read_text(codes).splitlines() if line.strip()]
        return codes, tuple(Entry(name, colours.get(name), place) for place, name in enumerate(names))
    if table is not None:
        return table, read_map(table)
    if coloured and any(_OWN_NAMES.match(image.name) for image in images):
        return "CamVid's colours", _table(_ALL)
    if any(_OWN_NAMES.match(image.name) for image in images) and _highest(masks) < len(_table(_TUTORIAL)):
        return "CamVid's 11 classes, by the names of the images", _table(_TUTORIAL)
    return "", ()


def _highest(masks: Sequence[Path]) -> int:
    """Give the highest value in some of the masks."""
    highest = 0
    for path in masks[:: max(len(masks) // _LOOKED_INTO, 1)][:_LOOKED_INTO]:
        try:
            highest = max(highest, int(read_mask_values(path).values.max()))
        except DataError:  # told where the mask is used
            continue
    return highest


def _table(text: str) -> tuple[Entry, ...]:
    rows = (each.split() for each in text.replace(chr(10), " ").strip().split(","))
    return tuple(Entry(name, (int(r), int(g), int(b))) for r, g, b, name in rows)


FORMAT = Format("camvid", "CamVid's folders", detect, read)
