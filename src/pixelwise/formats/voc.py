"""Pascal VOC: one palette PNG per image and lists of the splits; also the same layout from CVAT and labelme2voc.

    JPEGImages/  SegmentationClass/*.png  ImageSets/Segmentation/{train,val,test,trainval}.txt  labelmap.txt

These may be at the root or deeper (VOCdevkit/VOC2012/), also in several folders. A palette index is a class; 255 (the border
of objects) is ignored. The classes come from labelmap.txt, with which masks may be RGB, too; otherwise from class_names.txt,
background first, as labelme2voc writes it; otherwise they are the 21 of VOC, if an image is named like VOC's or is in the
folder of a VOC year; otherwise the ids in the masks.

SegmentationClass/ has priority. Copies of it (SegmentationClassAug/, SegmentationClassRaw/) are used only without it, or if
`data.annotations` names them; SegmentationClassPNG/, where the older labelme2voc has its masks, only beside class_names.txt.
Without lists, all images are one pool.

Source: Everingham et al.: The PASCAL Visual Object Classes Challenge 2012, development kit; CVAT's manual and datumaro's
`voc_format` (labelmap.txt); labelme's `labelme2voc.py` (class_names.txt).
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from PIL import Image

from pixelwise.errors import DataError, LabelsError, PairingError
from pixelwise.formats.base import ExportImage, Format, ReadResult, copy_image, png_bytes
from pixelwise.formats.colour_maps import (
    Entry,
    by_colour,
    by_value,
    holds_values,
    ignored_notice,
    in_colour,
    read_map,
    read_names,
)
from pixelwise.formats.dataset_root import SPLIT_NAMES, DatasetRoot, ImageIndex, make_layout
from pixelwise.formats.folders.names import by_key, key_of
from pixelwise.formats.records import ORPHAN, SPLITS, UNMASKED, Problem, Record, composed, short
from pixelwise.imageio.images import IMAGE_SUFFIXES
from pixelwise.imageio.masks import MaskRule
from pixelwise.imageio.safe_reading import read_text
from pixelwise.labels import Colour, Labels
from pixelwise.storage import write_atomic

_MASKS = ("SegmentationClass", "SegmentationClassAug", "SegmentationClassRaw", "SegmentationClassPNG")
_IMAGES = "JPEGImages"
_LISTS = PurePosixPath("ImageSets/Segmentation")
_TABLE = "labelmap.txt"
_LABELME_MASKS = _MASKS[3]
_LABELME_NAMES = "class_names.txt"
_IGNORED_ID = 255
_NAMES = (
    "background", "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow", "diningtable", "dog",
    "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor",
)  # fmt: skip
_FILE_NAMES = re.compile(r"20\d\d_\d{6}")
_YEARS = re.compile(r"VOC20\d\d", re.IGNORECASE)


def voc_colour(id_: int) -> Colour:
    """Return the colour of an id in VOC's palette: its bits are distributed to red, green and blue, highest first.

    Source: `VOClabelcolormap.m` of the development kit.
    """
    r, g, b = (sum((id_ >> 3 * k + band & 1) << 7 - k for k in range(3)) for band in range(3))
    return r, g, b


_VOC = (
    *(Entry(name, voc_colour(k), k, countable=k > 0) for k, name in enumerate(_NAMES)),
    Entry("void", voc_colour(_IGNORED_ID), _IGNORED_ID, True),
)


@dataclass(frozen=True)
class _Home:
    """A folder with masks in SegmentationClass/ (or a copy) and images in JPEGImages/."""

    dataset: DatasetRoot
    folder: Path
    masks: dict[str, Path]  # by their path below their folder, without suffix

    def short(self, path: Path) -> str:
        """Return a path relative to the root of the data set."""
        return short(path, self.dataset.root)

    @cached_property
    def images(self) -> list[Path]:
        """The images in JPEGImages/; if there are none, all images that are not in folders of masks."""
        paths = self.dataset.images.paths
        inside = [path for path in paths if path.is_relative_to(self.folder / _IMAGES)]
        return inside or [p for p in paths if not any(each.name.startswith("Segmentation") for each in p.parents)]

    @cached_property
    def _index(self) -> dict[str, list[Path]] | ImageIndex:
        if self.images and self.images[0].is_relative_to(self.folder / _IMAGES):
            return by_key(self.images, self.folder / _IMAGES)
        return ImageIndex(self.dataset.root, self.images)

    def find(self, name: str, near: Path) -> Path | str:
        """Return the image of a name, or the reason why there is none."""
        if isinstance(self._index, ImageIndex):
            return self._index.find(name, near)
        found = self._index.get(name, [])
        if len(found) == 1:
            return found[0]
        return f"{len(found)} images of that name" if found else "no such image"

    def lists(self, notices: list[str]) -> list[tuple[str, Path]]:
        """Return the lists of the splits; if there are none, all lists are of one pool (default.txt, trainval.txt)."""
        files = [p for p in self.dataset.files if p.parent == self.folder / _LISTS and p.suffix.lower() == ".txt"]
        splits = [(SPLIT_NAMES[path.stem.lower()], path) for path in files if path.stem.lower() in SPLIT_NAMES]
        unused = [path.name for path in files if path.stem.lower() not in (*SPLIT_NAMES, "trainval")]
        if splits and unused:
            lists = self.short(self.folder / _LISTS)
            notices.append(f"{lists}: not read beside the lists of splits: {', '.join(unused)}")
        self.dataset.use(*files)
        return splits or [("pool", path) for path in files]

    def divide(
        self, lists: Iterable[tuple[str, Path]], notices: list[str]
    ) -> tuple[dict[str, list[Record]], list[Problem]]:
        """Return the records and problems of the listed images.

        Raises:
            PairingError: an image in two splits.
        """
        records: dict[str, list[Record]] = defaultdict(list)
        problems: list[Problem] = []
        split_of: dict[str, str] = {}
        for split, path in lists:
            names = [name for line in read_text(path).splitlines() if (name := _parse_line(line))]
            if split == "test" and names and not self.masks.keys() & set(names):
                # VOC does not publish the masks of its test split.
                notices.append(f"{path.name}: no image has a mask ({len(names)} listed): there is no test split")
                split_of |= dict.fromkeys(names, split)
                continue
            for name in names:
                first = name not in split_of
                if split_of.setdefault(name, split) != split:
                    found = f"{name} in {split_of[name]} and {split}"
                    do = "Remove it from one of the lists."
                    raise PairingError(path, expected="every image in one split", found=found, do=do)
                image = self.find(name, path)
                if name not in self.masks:
                    problems.append(Problem(f"{self.short(path)}: {name}", "listed, but there is no mask"))
                elif isinstance(image, str):
                    problems.append(Problem(f"{self.short(path)}: {name}", f"listed, but {image}"))
                elif first:
                    records[split].append(Record(name, image, self.masks[name]))
        unlisted = len(set(self.images) - {self.find(name, self.folder) for name in split_of})
        if unlisted:
            lists_name = self.short(self.folder / _LISTS)
            text = f"{unlisted} of {len(self.images)} images are in no list of {lists_name} and are left out"
            notices.append(f"{text}; masks in none: {len(self.masks.keys() - split_of.keys())}")
            self.dataset.use(*self.images, *self.masks.values())
        return records, problems

    def pool(self) -> tuple[dict[str, list[Record]], list[Problem]]:
        """Return the records of all masks, and the images without one."""
        records: list[Record] = []
        problems: list[Problem] = []
        for name, mask in self.masks.items():
            image = self.find(name, mask)
            if isinstance(image, Path):
                records.append(Record(name, image, mask))
            else:
                problems.append(Problem(self.short(mask), ORPHAN if image == "no such image" else image))
        unmasked = sorted(set(self.images) - {record.image for record in records})
        problems += [Problem(self.short(path), UNMASKED) for path in unmasked]
        return {"pool": records}, problems


def detect(dataset: DatasetRoot) -> str | None:
    """Recognise SegmentationClass/; also SBD's .mat files and VOC's boxes, to refuse them with the fix."""
    homes = _find_homes(dataset)
    if homes:
        mask = next(iter(homes[0].masks.values()))
        return f"{short(mask, dataset.root)} is in VOC's folder of masks"
    mats = _find_mats(dataset)
    boxes = _find_boxes(dataset)
    if mats or boxes:
        return f"{short((mats or boxes)[0], dataset.root)} is in {'SBD' if mats else 'VOC'}'s folder of annotations"
    return None


def read(dataset: DatasetRoot) -> ReadResult:
    """Pair images and masks by name, and divide them by the lists.

    Raises:
        DataError: no masks as PNG.
        LabelsError: an invalid labelmap.txt, or several that differ.
        PairingError: an image in two splits.
    """
    homes = _find_homes(dataset)
    if not homes:
        raise _refusal(dataset)
    records: dict[str, list[Record]] = defaultdict(list)
    problems: list[Problem] = []
    notices: list[str] = []
    for home in homes:
        lists = home.lists(notices)
        found, home_problems = home.divide(lists, notices) if lists else home.pool()
        prefix = "" if len(homes) == 1 else f"{home.short(home.folder)}/"
        for split, each in found.items():
            records[split] += [replace(record, id=prefix + record.id) for record in each]
        problems += home_problems
    layout = make_layout("Pascal VOC", records, problems)
    labels, rule, label_notices = _find_labels(dataset, [home.folder for home in homes], layout.masks)
    return ReadResult(replace(layout, notices=(*label_notices, *notices)), labels, rule)


def _find_homes(dataset: DatasetRoot) -> list[_Home]:
    found: dict[Path, dict[str, dict[str, Path]]] = defaultdict(lambda: defaultdict(dict))
    with_names = {path.parent for path in dataset.files if path.name == _LABELME_NAMES}
    for path in dataset.annotations(".png"):
        folder = next((folder for folder in path.parents if folder.name in _MASKS), None)
        if folder is None or (folder.name == _LABELME_MASKS and folder.parent not in with_names):
            continue
        if folder.is_relative_to(dataset.root):
            found[folder.parent][folder.name][key_of(path, folder)] = path
    return [
        _Home(dataset, folder, next(masks[name] for name in _MASKS if name in masks))
        for folder, masks in sorted(found.items())
    ]


def _find_mats(dataset: DatasetRoot) -> list[Path]:
    return [path for path in dataset.files if path.suffix == ".mat" and path.parent.name in (*_MASKS, "cls")]


def _find_boxes(dataset: DatasetRoot) -> list[Path]:
    """Find VOC's boxes: XML in Annotations/ beside JPEGImages/."""
    homes = {path.parent.parent for path in dataset.files if path.parent.name == _IMAGES}
    files = (path for path in dataset.files if path.suffix == ".xml" and path.parent.name == "Annotations")
    return [path for path in files if path.parent.parent in homes]


def _refusal(dataset: DatasetRoot) -> DataError:
    mats = _find_mats(dataset)
    boxes = _find_boxes(dataset)
    if mats:
        more = ", …" if len(mats) > 1 else ""
        found = f".mat files as in SBD ({len(mats)}: {short(mats[0], dataset.root)}{more})"
        do = (
            "Save the content of each, scipy.io.loadmat(file)['GTcls']['Segmentation'][0, 0], as PNG of the same name in"
            " SegmentationClass/; or use SegmentationClassAug/, which was made from them."
        )
    elif boxes:
        found = f"only boxes ({short(boxes[0], dataset.root)})"
        do = "Annotate the contours of objects: boxes are not a segmentation."
    else:
        found = "none"
        do = "Check the path, and data.annotations."
    return DataError(dataset.root, expected="masks as PNG in SegmentationClass/", found=found, do=do)


def _parse_line(line: str) -> str:
    """Parse a line of a list: a name, or a path below JPEGImages/, with or without the suffix of the image."""
    path = PurePosixPath(composed(line.strip()))
    return str(path.with_suffix("") if path.suffix.lower() in IMAGE_SUFFIXES else path) if line.strip() else ""


# Classes -------------------------------------------------------------------------------------------------------------


def _find_labels(
    dataset: DatasetRoot, homes: Sequence[Path], masks: Sequence[Path]
) -> tuple[Labels | None, MaskRule, tuple[str, ...]]:
    """Name the classes by labelmap.txt, class_names.txt, or as VOC's; None if there is no source of names."""
    folders = (*homes, dataset.root)
    found = ([folder / name for folder in folders if (folder / name).is_file()] for name in (_TABLE, _LABELME_NAMES))
    tables = next((paths for paths in found if paths), [])
    dataset.use(*tables)
    maps = {path: read_map(path) if path.name == _TABLE else _read_class_names(path) for path in tables}
    if len(set(maps.values())) > 1:
        differ = ", ".join(short(path, dataset.root) for path in maps)
        expected = f"the same classes in each {tables[0].name}"
        raise LabelsError(dataset.root, expected=expected, found=differ, do="Keep one.")
    entries = maps[tables[0]] if tables else _VOC
    where = short(tables[0], dataset.root) if tables else "VOC's 21 classes"
    values = holds_values(entries, masks) if tables and tables[0].name == _TABLE else not in_colour(masks)
    if values and not tables and not any(_is_from_voc(mask) for mask in masks):
        notice = "no labelmap.txt, and no image is named like Pascal VOC's: the ids in the masks are the classes; 255 is ignored"
        return None, MaskRule(binary=False), (notice,)
    if values:
        labels, _ = by_value(where, entries, dataset.config.ignored)
        rule = MaskRule(binary=False)  # 255 is never a class
        ignored = labels.ignore_ids or ()
        if _IGNORED_ID not in (*labels.ids, *ignored):  # if the table names another ignored id
            labels = replace(labels, ignore_ids=(*ignored, _IGNORED_ID))
    else:
        labels, rule = by_colour(where, entries, dataset.config.ignored)
        border = voc_colour(_IGNORED_ID)
        if border not in (*labels.colours, *rule.ignored):  # labelmap.txt need not contain it
            rule = replace(rule, ignored=(*rule.ignored, border))
    if not tables:
        return labels, rule, ("no labelmap.txt: the classes are the 21 of Pascal VOC",)
    return labels, rule, ignored_notice(where, entries, labels)


def _is_from_voc(mask: Path) -> bool:
    """Whether a file is named like VOC's, 2007_000032, or is in the folder of a year, VOC2007."""
    return bool(_FILE_NAMES.fullmatch(mask.stem)) or any(_YEARS.fullmatch(name) for name in mask.parts)


def _read_class_names(path: Path) -> tuple[Entry, ...]:
    names = read_names(path)
    if not names:
        do = "Write one class name per line, background first; or remove the file."
        raise LabelsError(path, expected="names of classes", found="none", do=do)
    return tuple(Entry(name, voc_colour(k), k) for k, name in enumerate(names))


# Writing -------------------------------------------------------------------------------------------------------------


class _Writer:
    """Writes images, palette masks, lists and labelmap.txt; ids are kept if they are 0…254."""

    def __init__(self, out: Path, labels: Labels) -> None:
        if labels.num_classes > _IGNORED_ID:
            do = "Convert it to folders of masks: --to masks."
            raise LabelsError(
                "convert", expected=f"at most {_IGNORED_ID} classes", found=str(labels.num_classes), do=do
            )
        self.out = out
        self.labels = labels
        self.ids = labels.ids if max(labels.ids) < _IGNORED_ID else tuple(range(labels.num_classes))
        distinct = len({*labels.colours, voc_colour(_IGNORED_ID)}) == labels.num_classes + 1
        self.colours = labels.colours if distinct else tuple(map(voc_colour, self.ids))
        self.table = np.full(labels.ignore_index + 1, _IGNORED_ID, np.uint8)
        self.table[: labels.num_classes] = self.ids
        palette = np.array([voc_colour(k) for k in range(256)], np.uint8)
        palette[list(self.ids)] = self.colours
        self.palette = palette.tobytes()
        self.lists: dict[str, list[str]] = {}
        self.used_names: set[str] = set()

    def add(self, image: ExportImage) -> Path:
        """Write a mask as palette PNG; all splits share a folder, so a repeated name is prefixed with its split."""
        name = "/".join(" ".join(piece.split()) or "_" for piece in image.id.split("/"))
        name = name.encode("utf-8", "replace").decode()
        while name.lower() in self.used_names:
            name = f"{image.split}_{name}"
        self.used_names.add(name.lower())
        self.lists.setdefault(image.split, []).append(name)
        target = self.out / _IMAGES / f"{name}{image.image.suffix.lower()}"
        copy_image(image, target)
        mask = Image.fromarray(self.table[image.mask])
        mask.putpalette(self.palette)
        write_atomic(self.out / _MASKS[0] / f"{name}.png", png_bytes(mask))
        return target

    def close(self) -> dict[str, Any]:
        """Write lists and labelmap.txt."""
        lists = {split: self.lists[split] for split in SPLITS if split in self.lists}
        if "train" in lists and "val" in lists:
            lists["trainval"] = lists["train"] + lists["val"]
        for split, names in lists.items():
            write_atomic(self.out / _LISTS / f"{split}.txt", "".join(f"{name}\n" for name in names))
        rows = [*zip(self.labels.names, self.colours, strict=True), ("ignored", voc_colour(_IGNORED_ID))]
        lines = [f"{' '.join(name.split())}:{','.join(map(str, colour))}::\n" for name, colour in rows]
        write_atomic(self.out / _TABLE, "# label:color_rgb:parts:actions\n" + "".join(lines))
        values: dict[Any, Any] = {"binary": False}
        ignored = self.labels.ignore_ids or ()
        if self.ids != self.labels.ids or (ignored and _IGNORED_ID not in ignored):
            values = dict(zip(self.ids, self.labels.ids, strict=True)) | ({_IGNORED_ID: ignored[0]} if ignored else {})
        return {"format": "voc", "mask_values": values}


FORMAT = Format("voc", "Pascal VOC", detect, read, _Writer)
