"""Cityscapes, and data sets with the same layout: images in leftImg8bit/, masks and polygons in gtFine/ or gtCoarse/.

The classes are the 19 of the evaluation; all other labels are ignored. `_labelIds.png` is preferred; `_labelTrainIds.png` is
used only if there are no label ids at all, and `_polygons.json` is drawn for images with neither. gtFine has priority over
gtCoarse. If label_colors.txt at the root names other classes, as CVAT writes it, ids are indices of that table.

All pixels of the public test split are ignored. Polygons are filled by pixel centres, as in all formats here;
cityscapesScripts also fills the pixels under the contour, so masks drawn here differ from the published ones along contours.
There is no writer: the layout implies 35 fixed labels, so every tool would misread other classes.

Source: cityscapesScripts, `helpers/labels.py` (the table), `preparation/json2labelImg.py` (groups, deleted objects, and labels
with a negative id, which are not drawn).
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Container, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from pixelwise.errors import LabelsError, MaskError
from pixelwise.formats.base import Format, ReadResult, load_json
from pixelwise.formats.colour_maps import by_value, ignored_notice, read_map
from pixelwise.formats.dataset_root import DatasetRoot, make_layout, split_of_folder
from pixelwise.formats.presets import parse_classes
from pixelwise.formats.records import ORPHAN, UNMASKED, Problem, Record, short
from pixelwise.formats.shapes import Drawing, Polygon, Shape, finite_points
from pixelwise.imageio.masks import MaskRule
from pixelwise.labels import Colour, Labels

_IMAGE = "_leftImg8bit"
_FOLDERS = ("gtFine", "gtCoarse")  # by preference
_KINDS = {"labelIds": ".png", "labelTrainIds": ".png", "polygons": ".json"}  # by preference
_FILE = re.compile(r"(.+)_(gtFine|gtCoarse)_(labelIds|labelTrainIds|polygons)")

# Name, * if it has instances, id, train id, colour.
_LABELS = """
unlabeled 0 255 0 0 0, ego vehicle 1 255 0 0 0, rectification border 2 255 0 0 0, out of roi 3 255 0 0 0, static 4 255 0 0 0,
dynamic 5 255 111 74 0, ground 6 255 81 0 81, road 7 0 128 64 128, sidewalk 8 1 244 35 232, parking 9 255 250 170 160,
rail track 10 255 230 150 140, building 11 2 70 70 70, wall 12 3 102 102 156, fence 13 4 190 153 153,
guard rail 14 255 180 165 180, bridge 15 255 150 100 100, tunnel 16 255 150 120 90, pole 17 5 153 153 153,
polegroup 18 255 153 153 153, traffic light 19 6 250 170 30, traffic sign 20 7 220 220 0, vegetation 21 8 107 142 35,
terrain 22 9 152 251 152, sky 23 10 70 130 180, person* 24 11 220 20 60, rider* 25 12 255 0 0, car* 26 13 0 0 142,
truck* 27 14 0 0 70, bus* 28 15 0 60 100, caravan* 29 255 0 0 90, trailer* 30 255 0 0 110, train* 31 16 0 80 100,
motorcycle* 32 17 0 0 230, bicycle* 33 18 119 11 32, license plate -1 -1 0 0 142
"""

Annotations = Mapping[str, Mapping[tuple[str, str], Path]]  # files by key, and by folder and kind


@dataclass(frozen=True)
class Label:
    """One of the 35 labels; a train id of 255 or -1 is not evaluated, an id of -1 does not occur in masks."""

    name: str
    id: int
    train_id: int
    colour: Colour
    countable: bool

    @property
    def counts(self) -> bool:
        """Whether the label is evaluated."""
        return 0 <= self.train_id < 255


@cache
def read_table() -> tuple[Label, ...]:
    """Return the 35 labels by id."""
    return tuple(
        Label(name, id_, train_id, (r, g, b), thing) for name, thing, (id_, train_id, r, g, b) in parse_classes(_LABELS)
    )


@cache
def _by_name() -> dict[str, Label]:
    return {each.name: each for each in read_table()}


def evaluated(ignored: Container[str] = (), *, train_ids: bool = False) -> Labels:
    """Return the 19 classes of the evaluation, in the order of their train ids; all other ids are ignored.

    Args:
        ignored: further ignored classes.
        train_ids: masks hold train ids, 0–18 and 255, instead of ids, 0–33.
    """
    kept = [each for each in read_table() if each.counts and each.name not in ignored]
    kept.sort(key=lambda each: each.train_id)
    if not kept:
        do = "Remove some from the list."
        raise LabelsError("data.ignored", expected="a class that is not ignored", found="none", do=do)
    ids = tuple(each.train_id if train_ids else each.id for each in kept)
    # The first ignored id is the one that is written: 0 (unlabeled), or 255 among train ids.
    all_ids = (255, *range(19)) if train_ids else (*range(35), 255)
    return Labels(
        tuple(each.name for each in kept),
        ids,
        tuple(each.colour for each in kept),
        tuple(each.countable for each in kept),
        tuple(id_ for id_ in all_ids if id_ not in ids),
    )


def detect(dataset: DatasetRoot) -> str | None:
    """Recognise images and annotations by the endings of their names."""
    image = next((path for path in dataset.images.paths if path.stem.endswith(_IMAGE)), None)
    annotation = next((path for path in dataset.files if _match(path)), None)
    if image is None or annotation is None:
        return None
    return f"{annotation.name} goes with an image that ends in {_IMAGE}"


def read(dataset: DatasetRoot) -> ReadResult:
    """Pair images and annotations by the common part of their paths and names.

    Raises:
        MaskError: invalid polygons.
        DataError: an invalid table of classes.
    """
    images, problems, notices = _find_images(dataset)
    annotations = _find_annotations(dataset)
    kinds = {kind for files in annotations.values() for _, kind in files}
    labels, rule, label_notices = _find_labels(dataset, kinds)
    usable = [kind for kind in _KINDS if kind != "labelTrainIds" or "labelIds" not in kinds]
    preference = [(folder, kind) for folder in _FOLDERS for kind in usable]
    records: dict[str, list[Record]] = defaultdict(list)
    drawn = 0
    for key, image in images.items():
        files = annotations.get(key, {})
        mask = next((files[each] for each in preference if each in files), None)
        if mask is None:
            problems.append(Problem(short(image, dataset.root), UNMASKED))
            continue
        try:
            source = _drawing(dataset, mask) if mask.suffix.lower() == ".json" else None
        except MaskError as error:
            if not dataset.config.skip_bad:
                raise
            problems.append(Problem.from_error(error, do=error.do))
            continue
        drawn += source is not None
        records[_split(image, dataset.root)].append(Record(key, image, mask, source=source))
    for key in annotations.keys() - images.keys():
        problems.append(Problem(short(min(annotations[key].values()), dataset.root), ORPHAN))
    if drawn:
        notices.append(f"{drawn} of {len(images)} masks are drawn from polygons, since they have no labelIds")
    problems.sort(key=lambda each: each.file)
    return ReadResult(make_layout("Cityscapes", records, problems, (*notices, *label_notices)), labels, rule)


def _match(path: Path) -> re.Match[str] | None:
    match = _FILE.fullmatch(path.stem)
    return match if match is not None and path.suffix.lower() == _KINDS[match[3]] else None


def _key(path: Path, name: str, root: Path, folders: Container[str]) -> str:
    """Return what an image and its annotations share: the path below their folders, and the start of the name."""
    parents = path.relative_to(root).parent.parts if path.is_relative_to(root) else path.parent.parts
    start = max((n for n, folder in enumerate(parents, 1) if folder in folders), default=0)
    return "/".join((*parents[start:], name))


def _find_images(dataset: DatasetRoot) -> tuple[dict[str, Path], list[Problem], list[str]]:
    """Find the images: only those below leftImg8bit/ if there is such a folder, since whole videos may be beside it."""
    named = [path for path in dataset.images.paths if path.stem.endswith(_IMAGE)]
    used = [path for path in named if _IMAGE[1:] in path.parent.parts] or named
    found: dict[str, list[Path]] = defaultdict(list)
    for path in used:
        found[_key(path, path.stem.removesuffix(_IMAGE), dataset.root, (_IMAGE[1:],))].append(path)
    images = {key: paths[0] for key, paths in found.items() if len(paths) == 1}
    several = [path for paths in found.values() if len(paths) > 1 for path in paths]
    problems = [Problem(short(path, dataset.root), "several images of the same name") for path in several]
    unused = len(named) - len(used)
    return images, problems, [f"{unused} images outside leftImg8bit/ are left out"] if unused else []


def _find_annotations(dataset: DatasetRoot) -> Annotations:
    found: dict[str, dict[tuple[str, str], Path]] = defaultdict(dict)
    for path in dataset.files:
        match = _match(path)
        if match is not None:
            found[_key(path, match[1], dataset.root, _FOLDERS)].setdefault((match[2], match[3]), path)
            dataset.use(path)
    return found


def _split(path: Path, root: Path) -> str:
    """Return the split; train_extra/, which has coarse labels only, also belongs to train."""
    names = path.relative_to(root).parts if path.is_relative_to(root) else ()
    return "train" if "train_extra" in names else split_of_folder(path, root) or "pool"


def _find_labels(dataset: DatasetRoot, kinds: Container[str]) -> tuple[Labels, MaskRule, tuple[str, ...]]:
    """Return the classes of label_colors.txt if they are not Cityscapes' labels, otherwise those of the evaluation."""
    table = dataset.root / "label_colors.txt"
    dataset.use(table)
    entries = read_map(table) if table.is_file() else ()
    known = {each.name.replace(" ", ""): each.id for each in read_table()}
    if any(known.get(each.name.replace(" ", "")) not in (k, -1) for k, each in enumerate(entries)):
        labels, rule = by_value(table, entries, dataset.config.ignored)
        return labels, rule, ignored_notice(table, entries, labels)
    labels = evaluated(dataset.config.ignored, train_ids="labelIds" not in kinds and "labelTrainIds" in kinds)
    notice = f"{labels.num_classes} of Cityscapes' 35 labels are classes; the others are ignored"
    return labels, MaskRule(binary=False), (notice,)


def _drawing(dataset: DatasetRoot, path: Path) -> Drawing:
    plain = load_json(path, dataset=dataset)
    objects = plain.get("objects") if isinstance(plain, Mapping) else None
    if not isinstance(objects, list):
        raise MaskError(path, expected="objects with label and polygon", found="none", do="Export it again.")
    height, width = plain.get("imgHeight"), plain.get("imgWidth")
    size = (height, width) if isinstance(height, int) and isinstance(width, int) else None
    shapes = tuple(shape for each in objects if (shape := _shape(dataset, path, each)) is not None)
    return Drawing(path, shapes, size, None, dataset.config.overlap or "file")


def _shape(dataset: DatasetRoot, path: Path, item: Any) -> Shape | None:
    """Read one object; None if it is deleted, or has a label that is not drawn (license plate)."""
    try:
        if item.get("deleted"):
            return None
        name = str(item["label"])
        ring = finite_points(item["polygon"])
        if len(ring) < 3:
            raise ValueError(f"{len(ring)} points")
    except (AttributeError, KeyError, TypeError, ValueError, OverflowError) as error:
        found = f"an object that cannot be read ({' '.join(str(error).split())[:120]})"
        raise MaskError(path, expected="objects with label and polygon", found=found, do="Export it again.") from error
    label = _by_name().get(name) or _by_name().get(name.removesuffix("group"))
    if label is None:
        return Shape(None if name in dataset.config.ignored else name, Polygon((ring,)))
    if label.id < 0:
        return None
    ignored = not label.counts or label.name in dataset.config.ignored
    return Shape(None if ignored else label.name, Polygon((ring,)))


FORMAT = Format("cityscapes", "Cityscapes", detect, read)
