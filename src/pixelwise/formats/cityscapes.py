"""Cityscapes: leftImg8bit/ with images, gtFine/ or gtCoarse/ with masks and polygons, and what is laid out like it.

Comes in: a place. Goes out: images with their masks, and the 19 classes of the evaluation; every other label counts in
nothing. `_labelIds.png` is read where there is one, `_labelTrainIds.png` where none is anywhere, and `_polygons.json` drawn
where an image has neither; gtFine goes before gtCoarse. Where label_colors.txt lies at the root and names other classes, as
CVAT writes it, an id is a line of that table.

The masks of the public test part hold no label that counts. Polygons are drawn as everywhere in this house, by the centres of
pixels; cityscapesScripts fills the pixels under an outline, too, so that a mask drawn here differs from the published one
along the outlines. There is no writer: the layout says which of 35 fixed labels a pixel is, and classes that are others would
be read as those by every tool.

Source: cityscapesScripts, `helpers/labels.py` (the table), `preparation/json2labelImg.py` (groups, deleted objects, and that
labels with a negative id are not drawn).
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Container, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from pixelwise.errors import LabelsError, MaskError
from pixelwise.formats.base import Format, ReadResult, load_json
from pixelwise.formats.colour_maps import by_value, read_map, told
from pixelwise.formats.dataset_root import DatasetRoot, make_layout, split_of_folder
from pixelwise.formats.records import ORPHAN, Problem, Record, short
from pixelwise.formats.shapes import Drawing, Polygon, Shape
from pixelwise.imageio.masks import MaskRule
from pixelwise.labels import Colour, Labels

_IMAGE = "_leftImg8bit"
_GROUNDS = ("gtFine", "gtCoarse")  # the better first
_KINDS = {"labelIds": ".png", "labelTrainIds": ".png", "polygons": ".json"}

# name, id, trainId, category, colour, and * for labels that have instances; by id.
_LABELS = """
unlabeled 0 255 void 0,0,0
ego vehicle 1 255 void 0,0,0
rectification border 2 255 void 0,0,0
out of roi 3 255 void 0,0,0
static 4 255 void 0,0,0
dynamic 5 255 void 111,74,0
ground 6 255 void 81,0,81
road 7 0 flat 128,64,128
sidewalk 8 1 flat 244,35,232
parking 9 255 flat 250,170,160
rail track 10 255 flat 230,150,140
building 11 2 construction 70,70,70
wall 12 3 construction 102,102,156
fence 13 4 construction 190,153,153
guard rail 14 255 construction 180,165,180
bridge 15 255 construction 150,100,100
tunnel 16 255 construction 150,120,90
pole 17 5 object 153,153,153
polegroup 18 255 object 153,153,153
traffic light 19 6 object 250,170,30
traffic sign 20 7 object 220,220,0
vegetation 21 8 nature 107,142,35
terrain 22 9 nature 152,251,152
sky 23 10 sky 70,130,180
person 24 11 human 220,20,60 *
rider 25 12 human 255,0,0 *
car 26 13 vehicle 0,0,142 *
truck 27 14 vehicle 0,0,70 *
bus 28 15 vehicle 0,60,100 *
caravan 29 255 vehicle 0,0,90 *
trailer 30 255 vehicle 0,0,110 *
train 31 16 vehicle 0,80,100 *
motorcycle 32 17 vehicle 0,0,230 *
bicycle 33 18 vehicle 119,11,32 *
license plate -1 -1 vehicle 0,0,142
"""
_ROW = re.compile(r"(.+) (-?\d+) (-?\d+) (\w+) (\d+),(\d+),(\d+)( \*)?")
_FILE = re.compile(r"(.+)_(gtFine|gtCoarse)_(labelIds|labelTrainIds|polygons)")


@dataclass(frozen=True)
class Label:
    """Hold one of Cityscapes' 35 labels; a train id of 255 or -1 is not evaluated, an id of -1 is in no mask."""

    name: str
    id: int
    train_id: int
    category: str
    colour: Colour
    countable: bool

    @property
    def counts(self) -> bool:
        """Tell whether the label is evaluated."""
        return 0 <= self.train_id < 255


@cache
def read_table() -> tuple[Label, ...]:
    """Give the 35 labels, by id."""
    rows = (match.groups() for line in _LABELS.splitlines() if (match := _ROW.fullmatch(line)))
    return tuple(
        Label(name, int(id_), int(train), category, (int(r), int(g), int(b)), star is not None)
        for name, id_, train, category, r, g, b, star in rows
    )


@cache
def _by_name() -> dict[str, Label]:
    return {each.name: each for each in read_table()}


def evaluated(ignored: Container[str] = (), *, train_ids: bool = False) -> Labels:
    """Give the 19 classes of the evaluation, in the order of their train ids; all other ids count in nothing.

    Args:
        ignored: classes that count in nothing, too.
        train_ids: masks hold train ids, 0–18 and 255, and not ids, 0–33.

    """
    counted = sorted((each for each in read_table() if each.counts), key=lambda each: each.train_id)
    rows = [(each, each.train_id if train_ids else each.id) for each in counted if each.name not in ignored]
    if not rows:
        raise LabelsError("data.ignored", expected="a class that counts", found="none", do="Take some out of the list.")
    ids = {value for _, value in rows}
    # What is written for ignored pixels is the first of these: 0, unlabeled; or 255 among train ids.
    void = (255, *range(19)) if train_ids else (*range(35), 255)
    return Labels(
        tuple(each.name for each, _ in rows),
        tuple(value for _, value in rows),
        tuple(each.colour for each, _ in rows),
        tuple(each.countable for each, _ in rows),
        tuple(value for value in void if value not in ids),
    )


def detect(place: DatasetRoot) -> str | None:
    """Recognise images and annotations by the endings of their names."""
    image = next((path for path in place.images.paths if path.stem.endswith(_IMAGE)), None)
    truth = next((path for path in place.files if _file(path)), None)
    if image is None or truth is None:
        return None
    return f"{truth.name} goes with an image that ends in {_IMAGE}"


def read(place: DatasetRoot) -> ReadResult:
    """Pair images and annotations by what their paths and names have in common.

    Raises:
        MaskError: polygons that cannot be understood.
        DataError: a table of own classes that is not understood.

    """
    images, problems, notices = _images(place)
    truths = _truths(place)
    labels, rule, own_notices = _labels(place, truths)
    kinds = [kind for kind in _KINDS if kind != "labelTrainIds" or not _any(truths, "labelIds")]
    records: dict[str, list[Record]] = defaultdict(list)
    drawn = 0
    for key, image in images.items():
        files = truths.get(key, {})
        mask = next((files[pair] for ground in _GROUNDS for kind in kinds if (pair := (ground, kind)) in files), None)
        if mask is None:
            problems.append(Problem(short(image, place.root), "image without a mask"))
            continue
        source = _drawing(place, mask) if mask.suffix == ".json" else None
        drawn += source is not None
        records[_part(image, place.root)].append(Record(key, image, mask, source=source))
    for key in truths.keys() - images.keys():
        problems.append(Problem(short(min(truths[key].values()), place.root), ORPHAN))
    if drawn:
        notices.append(f"{drawn} of {len(images)} masks are drawn from polygons: no labelIds lie there")
    layout = make_layout("Cityscapes", records, sorted(problems, key=lambda each: each.file), (*notices, *own_notices))
    return ReadResult(layout, labels, rule)


Truths = Mapping[str, Mapping[tuple[str, str], Path]]


def _file(path: Path) -> re.Match[str] | None:
    match = _FILE.fullmatch(path.stem)
    return match if match is not None and path.suffix == _KINDS[match[3]] else None


def _key(path: Path, base: str, root: Path, folders: Container[str]) -> str:
    """Name what an image and its annotations have in common: the path below their folders, and the begin of the name."""
    above = path.relative_to(root).parent.parts if path.is_relative_to(root) else path.parent.parts
    place = max((n for n, name in enumerate(above, 1) if name in folders), default=0)
    return "/".join((*above[place:], base))


def _images(place: DatasetRoot) -> tuple[dict[str, Path], list[Problem], list[str]]:
    """Find the images: those below leftImg8bit/ where there is such a folder, for whole videos may lie beside it."""
    named = [path for path in place.images.paths if path.stem.endswith(_IMAGE)]
    inside = [path for path in named if _IMAGE[1:] in path.parent.parts]
    wanted = inside or named
    images: dict[str, Path] = {}
    problems = []
    for path in wanted:
        key = _key(path, path.stem.removesuffix(_IMAGE), place.root, (_IMAGE[1:],))
        if images.setdefault(key, path) != path:
            why = f"several images of the same name (also {images[key].name})"
            problems.append(Problem(short(path, place.root), why))
    left = len(named) - len(wanted)
    notices = [f"{left} images are in other folders than leftImg8bit/ and are left out"] if left else []
    return images, problems, notices


def _truths(place: DatasetRoot) -> Truths:
    found: dict[str, dict[tuple[str, str], Path]] = defaultdict(dict)
    for path in place.files:
        match = _file(path)
        if match is not None:
            found[_key(path, match[1], place.root, _GROUNDS)].setdefault((match[2], match[3]), path)
    return found


def _any(truths: Truths, kind: str) -> bool:
    return any(own == kind for files in truths.values() for _, own in files)


def _part(path: Path, root: Path) -> str:
    """Tell the part; what is labelled coarsely only, train_extra/, is for training, too."""
    names = path.relative_to(root).parts if path.is_relative_to(root) else ()
    return "train" if "train_extra" in names else split_of_folder(path, root) or "pool"


def _labels(place: DatasetRoot, truths: Truths) -> tuple[Labels, MaskRule, tuple[str, ...]]:
    """Find the classes: those of label_colors.txt where they are others, else those of the evaluation."""
    table = place.root / "label_colors.txt"
    entries = read_map(table) if table.is_file() else ()
    known = {each.name.replace(" ", ""): each.id for each in read_table()}
    if any(known.get(each.name.replace(" ", "")) not in (line, -1) for line, each in enumerate(entries)):
        labels, rule = by_value(table, entries, place.config.ignored)
        return labels, rule, told(table, entries, labels)
    labels = evaluated(place.config.ignored, train_ids=not _any(truths, "labelIds") and _any(truths, "labelTrainIds"))
    notice = f"{labels.num_classes} of Cityscapes' 35 labels are classes; the others count in nothing"
    return labels, MaskRule(binary=False), (notice,)


def _drawing(place: DatasetRoot, path: Path) -> Drawing:
    plain = load_json(path)
    objects = plain.get("objects") if isinstance(plain, Mapping) else None
    if not isinstance(objects, list):
        raise MaskError(path, expected="objects with label and polygon", found="none", do="Export it again.")
    size = plain.get("imgHeight"), plain.get("imgWidth")
    noted = (size[0], size[1]) if isinstance(size[0], int) and isinstance(size[1], int) else None
    shapes = tuple(shape for each in objects if (shape := _shape(place, path, each)) is not None)
    return Drawing(path, shapes, noted, None, place.config.overlap or "file")


def _shape(place: DatasetRoot, path: Path, item: Any) -> Shape | None:
    """Read one object; None where it is deleted, or of a label that is not drawn (license plate)."""
    try:
        if item.get("deleted"):
            return None
        name = str(item["label"])
        ring = np.array(item["polygon"], np.float64).reshape(-1, 2)
        if not np.isfinite(ring).all():
            raise ValueError("points that are no numbers")
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        found = f"an object that cannot be read ({' '.join(str(error).split())[:120]})"
        raise MaskError(path, expected="objects with label and polygon", found=found, do="Export it again.") from error
    label = _by_name().get(name) or _by_name().get(name.removesuffix("group"))
    if label is not None and label.id < 0:
        return None
    if label is not None:
        name = label.name
    counts = (label is None or label.counts) and name not in place.config.ignored
    return Shape(name if counts else None, Polygon((ring,)))


FORMAT = Format("cityscapes", "Cityscapes", detect, read)
