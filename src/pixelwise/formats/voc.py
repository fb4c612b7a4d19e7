"""Pascal VOC: a palette PNG for each image, lists of the parts; and what CVAT and labelme2voc write, laid out alike.

Comes in: a place. Goes out: images and masks paired by name, and the classes.

    JPEGImages/  SegmentationClass/*.png  ImageSets/Segmentation/{train,val,test,trainval}.txt  labelmap.txt

These lie at the root, or deeper (VOCdevkit/VOC2012/), in several folders even. An index of the palette is a class, 255 (the
border of objects) counts in nothing. The classes are those of labelmap.txt, with which masks may be RGB, too; else the lines
of class_names.txt, background first, as labelme2voc writes it; else the 21 of VOC, where an image is called as VOC's are or
lies in one of its years' folders; else the ids that the masks hold: other sets are laid out in the same way.
SegmentationClass/ is read where it is there, since it is what the makers of a set give; copies of it (SegmentationClassAug/,
SegmentationClassRaw/) only where it is not, or where `data.annotations` names them; SegmentationClassPNG/, where the older
labelme2voc has its masks, beside class_names.txt only. Without lists all is one pool.

Source: Everingham et al.: The PASCAL Visual Object Classes Challenge 2012, development kit; CVAT's manual and datumaro's
`voc_format` (labelmap.txt), labelme's `labelme2voc.py` (class_names.txt), by what their files hold.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from io import BytesIO
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from PIL import Image

from pixelwise.errors import DataError, LabelsError, PairingError
from pixelwise.formats.base import ExportImage, Format, ReadResult, copy_image
from pixelwise.formats.colour_maps import Entry, by_colour, by_value, holds_values, in_colour, read_map, told
from pixelwise.formats.dataset_root import DatasetRoot, ImageIndex, make_layout
from pixelwise.formats.records import ORPHAN, SPLIT_FOLDERS, SPLITS, Problem, Record, short
from pixelwise.imageio.images import IMAGE_SUFFIXES
from pixelwise.imageio.masks import MaskRule
from pixelwise.imageio.safe_reading import read_text
from pixelwise.labels import Colour, Labels
from pixelwise.storage import write_atomic

_MASKS = ("SegmentationClass", "SegmentationClassAug", "SegmentationClassRaw", "SegmentationClassPNG")
_IMAGES, _LISTS, _TABLE = "JPEGImages", PurePosixPath("ImageSets/Segmentation"), "labelmap.txt"
_LABELME_MASKS, _LABELME_NAMES = _MASKS[3], "class_names.txt"
_VOID = 255
_NAMES = (
    "background", "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow", "diningtable", "dog",
    "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor",
)  # fmt: skip

Find = Callable[[str, Path], Path | str]


def voc_colour(id_: int) -> Colour:
    """Give the colour of an id in VOC's palette: the bits of the id are dealt to red, green and blue, highest first.

    Source: `VOClabelcolormap.m` of the development kit.
    """
    bands = [sum((id_ >> 3 * k + band & 1) << 7 - k for k in range(3)) for band in range(3)]
    return bands[0], bands[1], bands[2]


_OWN_NAMES, _YEARS = re.compile(r"20\d\d_\d{6}"), re.compile(r"VOC20\d\d", re.IGNORECASE)
_VOC = (
    *(Entry(name, voc_colour(k), k) for k, name in enumerate(_NAMES)),
    Entry("void", voc_colour(_VOID), _VOID, True),
)


def detect(place: DatasetRoot) -> str | None:
    """Recognise SegmentationClass/; and what is near enough to be refused with a word: SBD's .mat files, VOC's boxes."""
    homes = _homes(place)
    if homes:
        mask = next(iter(homes[0][1].values()))
        return f"{short(mask, place.root)} is where VOC has its masks"
    mats, boxes = _mats(place), _boxes(place)
    if mats or boxes:
        return f"{short((mats or boxes)[0], place.root)} is where {'SBD' if mats else 'VOC'} has its annotations"
    return None


def read(place: DatasetRoot) -> ReadResult:
    """Pair images and masks by name, and divide them by the lists.

    Raises:
        DataError: no masks as PNG.
        LabelsError: a labelmap.txt that is not understood, or several that differ.
        PairingError: an image in two parts.

    """
    homes = _homes(place)
    if not homes:
        raise _refusal(place)
    records: dict[str, list[Record]] = defaultdict(list)
    problems: list[Problem] = []
    notices: list[str] = []
    for home, masks in homes:
        find, images = _finder(place, home)
        lists = _lists(place, home, notices)
        if lists:
            own, odd, listed = _divided(place, masks, lists, find, notices)
            lost = len(set(images) - {find(name, home) for name in listed})
            if lost:
                what = f"{lost} of {len(images)} images are in no list of {short(home / _LISTS, place.root)}"
                notices.append(f"{what} and are left out; masks in none: {len(masks.keys() - listed)}")
        else:
            own, odd = _pooled(place, masks, find, images)
        prefix = "" if len(homes) == 1 else f"{short(home, place.root)}/"
        for split, each in own.items():
            records[split] += [replace(record, id=prefix + record.id) for record in each]
        problems += odd
    labels, rule, named = _classes(place, homes, [r.mask for r in _all(records) if r.mask is not None])
    return ReadResult(make_layout("Pascal VOC", records, problems, (*named, *notices)), labels, rule)


def _all(records: Mapping[str, Iterable[Record]]) -> list[Record]:
    return [record for own in records.values() for record in own]


# Files ---------------------------------------------------------------------------------------------------------------


def _homes(place: DatasetRoot) -> list[tuple[Path, dict[str, Path]]]:
    """Find the folders that hold SegmentationClass/, and the masks of each by their path below that, without suffix."""
    found: dict[Path, dict[str, dict[str, Path]]] = defaultdict(lambda: defaultdict(dict))
    named = {path.parent for path in place.files if path.name == _LABELME_NAMES}
    for path in place.annotations(".png"):
        folder = next((folder for folder in path.parents if folder.name in _MASKS), None)
        if folder is None or (folder.name == _LABELME_MASKS and folder.parent not in named):
            continue
        if folder.is_relative_to(place.root):
            key = path.relative_to(folder).with_suffix("").as_posix()
            found[folder.parent][folder.name][key] = path
    return [(home, next(kinds[name] for name in _MASKS if name in kinds)) for home, kinds in sorted(found.items())]


def _mats(place: DatasetRoot) -> list[Path]:
    folders = (*_MASKS, "cls")
    return [path for path in place.files if path.suffix == ".mat" and path.parent.name in folders]


def _boxes(place: DatasetRoot) -> list[Path]:
    """Find VOC's boxes: XML in Annotations/ beside JPEGImages/."""
    found = [path for path in place.files if path.suffix == ".xml" and path.parent.name == "Annotations"]
    homes = {path.parent.parent for path in place.files if path.parent.name == _IMAGES}
    return [path for path in found if path.parent.parent in homes]


def _refusal(place: DatasetRoot) -> DataError:
    mats, boxes = _mats(place), _boxes(place)
    if mats:
        found = (
            f".mat files as SBD has them ({len(mats)}: {short(mats[0], place.root)}{', …' if len(mats) > 1 else ''})"
        )
        do = (
            "Save what is in each, scipy.io.loadmat(file)['GTcls']['Segmentation'][0, 0], as PNG of the same name in"
            " SegmentationClass/; or take SegmentationClassAug/, which others made from them."
        )
    elif boxes:
        found, do = f"boxes alone ({short(boxes[0], place.root)})", "Draw outlines: boxes are no segmentation."
    else:
        found, do = "none", "Check the path, and data.annotations."
    return DataError(place.root, expected="masks as PNG in SegmentationClass/", found=found, do=do)


def _finder(place: DatasetRoot, home: Path) -> tuple[Find, Sequence[Path]]:
    """Give what finds the image of a name: in JPEGImages/; without that, anywhere but among masks. And all of them."""
    inside = [path for path in place.images.paths if path.is_relative_to(home / _IMAGES)]
    if not inside:
        rest = [p for p in place.images.paths if not any(f.name.startswith("Segmentation") for f in p.parents)]
        return ImageIndex(place.root, rest).find, rest
    keys: dict[str, list[Path]] = defaultdict(list)
    for path in inside:
        keys[path.relative_to(home / _IMAGES).with_suffix("").as_posix()].append(path)

    def find(name: str, near: Path) -> Path | str:
        found = keys.get(name, [])
        if len(found) == 1:
            return found[0]
        return f"{len(found)} images of that name" if found else "no such image"

    return find, inside


def _lists(place: DatasetRoot, home: Path, notices: list[str]) -> list[tuple[str, Path]]:
    """Find the lists of the parts; without those of parts, all lists are of one pool (CVAT's default.txt, trainval.txt)."""
    files = [path for path in place.files if path.parent == home / _LISTS and path.suffix == ".txt"]
    words = {word: split for split, names in SPLIT_FOLDERS.items() for word in names}
    splits = [(words[path.stem.lower()], path) for path in files if path.stem.lower() in words]
    unused = [path.name for path in files if path.stem.lower() not in (*words, "trainval")]
    if splits and unused:
        notices.append(f"{short(home / _LISTS, place.root)}: not read beside the lists of parts: {', '.join(unused)}")
    return splits or [("pool", path) for path in files]


def _divided(
    place: DatasetRoot, masks: Mapping[str, Path], lists: Iterable[tuple[str, Path]], find: Find, notices: list[str]
) -> tuple[dict[str, list[Record]], list[Problem], set[str]]:
    """Take what the lists name: records, problems, and all names."""
    records: dict[str, list[Record]] = defaultdict(list)
    problems: list[Problem] = []
    chosen: dict[str, str] = {}
    for split, path in lists:
        names = [name for line in read_text(path).splitlines() if (name := _name(line))]
        if split == "test" and names and not any(name in masks for name in names):
            # VOC keeps those of its test part to itself.
            notices.append(f"{path.name}: no image has a mask ({len(names)} listed): there is no test part")
            chosen |= dict.fromkeys(names, split)
            continue
        for name in names:
            where, first = f"{short(path, place.root)}: {name}", name not in chosen
            if chosen.setdefault(name, split) != split:
                found, do = f"{name} in {chosen[name]} and {split}", "Take it out of one of the lists."
                raise PairingError(path, expected="every image in one part", found=found, do=do)
            image = find(name, path)
            if name not in masks:
                problems.append(Problem(where, "listed, but there is no mask"))
            elif isinstance(image, str):
                problems.append(Problem(where, f"listed, but {image}"))
            elif first:
                records[split].append(Record(name, image, masks[name]))
    return records, problems, set(chosen)


def _name(line: str) -> str:
    """Read a line of a list: a name, or a path below JPEGImages/, with the image's suffix or without."""
    path = PurePosixPath(line.strip())
    return str(path.with_suffix("") if path.suffix.lower() in IMAGE_SUFFIXES else path) if line.strip() else ""


def _pooled(
    place: DatasetRoot, masks: Mapping[str, Path], find: Find, images: Iterable[Path]
) -> tuple[dict[str, list[Record]], list[Problem]]:
    """Take every image that has a mask: without lists nobody says that others are to have none."""
    records: list[Record] = []
    problems: list[Problem] = []
    for name, mask in masks.items():
        image = find(name, mask)
        if isinstance(image, Path):
            records.append(Record(name, image, mask))
        else:
            why = ORPHAN if image == "no such image" else image
            problems.append(Problem(short(mask, place.root), why))
    lost = sorted(set(images) - {record.image for record in records})
    problems += [Problem(short(path, place.root), "image without a mask") for path in lost]
    return {"pool": records}, problems


# Classes -------------------------------------------------------------------------------------------------------------


def _classes(
    place: DatasetRoot, homes: Sequence[tuple[Path, Any]], masks: Sequence[Path]
) -> tuple[Labels | None, MaskRule, tuple[str, ...]]:
    """Name the classes: as labelmap.txt does, else as class_names.txt does, else as VOC does; None: nobody does."""
    folders = (*(home for home, _ in homes), place.root)
    found = ([folder / name for folder in folders if (folder / name).is_file()] for name in (_TABLE, _LABELME_NAMES))
    tables = next((paths for paths in found if paths), [])
    maps = {path: read_map(path) if path.name == _TABLE else _read_names(path) for path in tables}
    if len(set(maps.values())) > 1:
        differ = ", ".join(short(path, place.root) for path in maps)
        wanted = f"the same classes in each {tables[0].name}"
        raise LabelsError(place.root, expected=wanted, found=differ, do="Keep one.")
    entries = maps[tables[0]] if tables else _VOC
    where = short(tables[0], place.root) if tables else "VOC's 21 classes"
    values = holds_values(entries, masks) if tables and tables[0].name == _TABLE else not in_colour(masks)
    if values and not tables and not any(_is_vocs(mask) for mask in masks):
        own = "the ids in the masks are the classes, since no image is called as Pascal VOC's are, and 255 counts in nothing"
        return None, MaskRule(binary=False), (f"no labelmap.txt: {own}",)
    if not values:
        labels, rule = by_colour(where, entries, place.config.ignored)
        void = voc_colour(_VOID)
        if void not in (*labels.colours, *rule.ignored):  # which a labelmap.txt need not name
            rule = replace(rule, ignored=(*rule.ignored, void))
    else:
        labels, rule = by_value(where, entries, place.config.ignored)
        rule = MaskRule(binary=False)  # 255 never is a class
        ignored = labels.ignore_ids or ()
        if _VOID not in (*labels.ids, *ignored):  # where the table names another that counts in nothing
            labels = replace(labels, ignore_ids=(*ignored, _VOID))
    if not tables:
        labels = replace(labels, countable=tuple(name != _NAMES[0] for name in labels.names))
        return labels, rule, ("no labelmap.txt: the classes are the 21 of Pascal VOC",)
    return labels, rule, told(where, entries, labels)


def _is_vocs(mask: Path) -> bool:
    """Tell whether a file is called as VOC's are, 2007_000032, or lies in the folder of one of its years, VOC2007."""
    return bool(_OWN_NAMES.fullmatch(mask.stem)) or any(_YEARS.fullmatch(name) for name in mask.parts)


def _read_names(path: Path) -> tuple[Entry, ...]:
    """Read the names of the ids 0, 1, …, one a line."""
    names = [line.strip() for line in read_text(path).splitlines() if line.strip()]
    if not names:
        do = "Write the name of a class in each line, background first; or take the file out."
        raise LabelsError(path, expected="names of classes", found="none", do=do)
    return tuple(Entry(name, voc_colour(k), k) for k, name in enumerate(names))


# Writing -------------------------------------------------------------------------------------------------------------


class _Writer:
    """Write images, palette masks, lists and labelmap.txt; the ids are those of the labels where they are 0…254."""

    def __init__(self, out: Path, labels: Labels) -> None:
        if labels.num_classes > _VOID:
            do = "Convert it to folders of masks: --to masks."
            raise LabelsError("convert", expected=f"at most {_VOID} classes", found=str(labels.num_classes), do=do)
        self.out, self.labels = out, labels
        self.ids = labels.ids if max(labels.ids) < _VOID else tuple(range(labels.num_classes))
        apart = len({*labels.colours, voc_colour(_VOID)}) == labels.num_classes + 1
        self.colours = labels.colours if apart else tuple(map(voc_colour, self.ids))
        self.table = np.full(labels.ignore_index + 1, _VOID, np.uint8)
        self.table[: labels.num_classes] = self.ids
        palette = np.array([voc_colour(k) for k in range(256)], np.uint8)
        palette[list(self.ids)] = self.colours
        self.palette = palette.tobytes()
        self.lists: dict[str, list[str]] = {}
        self.taken: set[str] = set()

    def add(self, image: ExportImage) -> Path:
        """Write a mask as palette PNG; images of all parts lie together, so a name that is taken is given the part's."""
        name = "/".join(" ".join(piece.split()) or "_" for piece in image.id.split("/"))
        name = name.encode("utf-8", "replace").decode()
        while name.lower() in self.taken:
            name = f"{image.split}_{name}"
        self.taken.add(name.lower())
        self.lists.setdefault(image.split, []).append(name)
        target = self.out / _IMAGES / f"{name}{image.image.suffix.lower()}"
        copy_image(image, target)
        mask = Image.fromarray(self.table[image.mask])
        mask.putpalette(self.palette)
        buffer = BytesIO()
        mask.save(buffer, "PNG")
        write_atomic(self.out / _MASKS[0] / f"{name}.png", buffer.getvalue())
        return target

    def close(self) -> dict[str, Any]:
        """Write lists and labelmap.txt."""
        lists = {split: self.lists[split] for split in SPLITS if split in self.lists}
        if "train" in lists and "val" in lists:
            lists["trainval"] = lists["train"] + lists["val"]
        for split, names in lists.items():
            write_atomic(self.out / _LISTS / f"{split}.txt", "".join(f"{name}\n" for name in names))
        rows = [*zip(self.labels.names, self.colours, strict=True), ("ignored", voc_colour(_VOID))]
        lines = [f"{' '.join(name.split())}:{','.join(map(str, colour))}::\n" for name, colour in rows]
        write_atomic(self.out / _TABLE, "# label:color_rgb:parts:actions\n" + "".join(lines))
        values: dict[Any, Any] = {"binary": False}
        ignored = self.labels.ignore_ids or ()
        if self.ids != self.labels.ids or (ignored and _VOID not in ignored):
            values = dict(zip(self.ids, self.labels.ids, strict=True)) | ({_VOID: ignored[0]} if ignored else {})
        return {"format": "voc", "mask_values": values}


FORMAT = Format("voc", "Pascal VOC", detect, read, _Writer)
