"""COCO instances: one JSON file for a whole part, with a polygon or run lengths for each object.

Comes in: a place. Goes out: a drawing per image. Polygons are filled as pycocotools fills them, so that a mask is what
`COCO.annToMask` gives, pixel for pixel; several rings are united. COCO has no order: where objects overlap, the smaller one
lies on top. A crowd is of its class like any object. An image without annotations is background.

Captions, keypoints, panoptic segments and results lie in files of the same kind beside; they are left alone.

Source: https://cocodataset.org/#format-data, and cocoapi's `PythonAPI/pycocotools/coco.py`, by what it reads.
"""

from __future__ import annotations

import json
from array import array
from collections import defaultdict
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from pixelwise.errors import DataError, MaskError
from pixelwise.formats.base import (
    BACKGROUND,
    BACKGROUNDS,
    IGNORED,
    ExportImage,
    Format,
    ReadResult,
    drawn_labels,
    mentions,
    painted,
    segments,
    shape_name,
)
from pixelwise.formats.coco_document import (
    Document,
    Match,
    add_image,
    gather_classes,
    key_of,
    largest,
    load,
    match_images,
    unlisted,
)
from pixelwise.formats.dataset_root import DatasetRoot, make_layout, split_of_file, split_of_folder
from pixelwise.formats.records import Problem, Record, short
from pixelwise.formats.shapes import Box, Drawing, Region, Runs, Shape
from pixelwise.geometry.run_lengths import of_regions
from pixelwise.labels import Labels
from pixelwise.storage import write_atomic

_PANOPTIC = "segments_info"
_LONGEST_OUTLINE = 5_000_000  # pixels: pycocotools takes 60 bytes for each

_BOX = "object with a box and no mask"
_THIN = "object whose polygons have fewer than three points"
_NUMBERS = "object whose polygons are no lists of numbers x, y, x, y"
_NO_RUNS = "object whose run lengths have no size and counts"
_SIZE = "object with run lengths of another size than its image"
_CLASS = "object of a category that its file does not list"


def detect(place: DatasetRoot) -> str | None:
    """Recognise a JSON file of images, categories, and annotations with masks or boxes."""
    found = next((path for path in largest(place) if _kind(path) and mentions(path, "category_id")), None)
    return None if found is None else f"{short(found, place.root)} holds images, categories and annotations"


def _kind(path: Path) -> str | None:
    """Tell files of objects from those of keypoints, and both from all others, by the words in them."""
    if not mentions(path, "images", "categories", "annotations") or mentions(path, _PANOPTIC):
        return None
    return "keypoints" if mentions(path, "num_keypoints") else "objects"


def read(place: DatasetRoot) -> ReadResult:
    """Read every file of objects, and find the images that they list.

    Raises:
        MaskError: a file that cannot be understood.
        DataError: no file, no class, boxes alone, no image of a file, or two files for the same images.
        LabelsError: categories that cannot be told apart.

    """
    documents = [load(path, _lightened) for path in _files(place)]
    sorted_ = [_sort(document, place) for document in documents]
    _require_masks(documents, place)
    used = {name for one in sorted_ for name in one.used}
    classes = gather_classes(documents, used)
    labels, unlabelled = drawn_labels(
        place, classes.names, ids=classes.ids, colours=classes.colours, things=classes.things
    )
    matches, problems = match_images(documents, place.images, place)
    problems += [problem for one in sorted_ for problem in one.problems]
    objects = {id(document): one.objects for document, one in zip(documents, sorted_, strict=True)}
    records: dict[str, list[Record]] = defaultdict(list)
    empty = 0
    for match in matches:
        own = objects[id(match.document)].get(match.entry.id, [])
        faults = _faults(match, own)
        if faults:
            image = short(match.image, place.root)
            problems += [Problem(f"{image} (annotation {one.name})", why) for one, why in faults]
            continue
        empty += not own
        split = split_of_file(match.document.path, place.root) or split_of_folder(match.image, place.root) or "pool"
        drawing = _drawing(match, own, place, unlabelled)
        record = Record(place.images.id_of(match.image), match.image, match.document.path, source=drawing)
        records[split].append(record)
    notices = [*classes.notices, *(notice for one in sorted_ for notice in one.notices)]
    if empty:
        notices.append(f"{empty} of {len(matches)} images have no object: {unlabelled or 'ignored'} in every pixel")
    taken = {match.image for match in matches}
    notices += unlisted(place.images.paths, taken, place, "images on disk")
    return ReadResult(make_layout("COCO annotations", records, problems, notices), labels)


def _files(place: DatasetRoot) -> list[Path]:
    """List the files of objects; those of keypoints only where there are none, for they repeat the persons of the others."""
    files = place.annotations(".json")
    if place.config.annotations is not None and files:
        for path in files:
            if mentions(path, _PANOPTIC):
                fix = "Set data.format: coco-panoptic, or name the file of the objects: data.annotations."
                raise MaskError(path, expected="objects with category_id", found="panoptic segments", do=fix)
        return list(files)
    kinds = {path: _kind(path) for path in files}
    chosen = [path for path in files if kinds[path] == "objects"] or [path for path in files if kinds[path]]
    if not chosen:
        raise DataError(
            place.root,
            expected="a JSON file with images, categories and annotations",
            found=f"none among {len(files)} JSON files" if files else "no JSON file",
            do="Put it there, or name it: data.annotations.",
        )
    return chosen


class _Object(NamedTuple):
    """One annotation, made small while its file is parsed; without a region, `fault` says why."""

    name: str
    image: Hashable
    category: Hashable
    region: Region | None
    fault: str
    thin: int


def _lightened(plain: dict[str, Any]) -> Any:
    """Turn an annotation into an `_Object`; anything else stays."""
    if "image_id" not in plain or "category_id" not in plain:
        return plain
    name = str(plain.get("id"))[:40]
    name = name if name.isprintable() else ascii(name)
    region, fault, thin = _region(name, plain.get("segmentation"))
    return _Object(name, key_of(plain["image_id"]), key_of(plain["category_id"]), region, fault, thin)


def _region(name: str, plain: Any) -> tuple[Region | None, str, int]:
    """Read a segmentation: the region, or what is wrong with it; and how many rings have no area."""
    if not plain or (isinstance(plain, list) and all(ring == [] for ring in plain)):
        return None, _BOX, 0
    if isinstance(plain, dict):
        return (*_runs(name, plain), 0)
    if not isinstance(plain, list):
        return None, _NUMBERS, 0
    rings = plain if isinstance(plain[0], list) else [plain]
    try:
        wide = [array("d", ring) for ring in rings if len(ring) >= 6]
        odd = any(len(ring) % 2 for ring in rings)
    except (TypeError, OverflowError):
        return None, _NUMBERS, 0
    if odd or not wide:
        return None, _NUMBERS if odd else _THIN, 0
    points = b"".join(ring.tobytes() for ring in wide)
    return _Rings(name, points, tuple(len(ring) for ring in wide)), "", len(rings) - len(wide)


def _runs(name: str, plain: dict[str, Any]) -> tuple[Region | None, str]:
    """Read run lengths, compressed or as a list of numbers."""
    size, counts = plain.get("size"), plain.get("counts")
    if not isinstance(size, list) or len(size) != 2 or not all(type(side) is int and side > 0 for side in size):
        return None, _NO_RUNS
    if isinstance(counts, list):
        from pycocotools import mask as coder  # 20 ms, and most data sets hold no such file

        runs = np.array(counts) if all(type(run) is int for run in counts) else np.zeros(0)
        if runs.dtype.kind != "i" or runs.min() < 0 or runs.max() >= 1 << 32:
            return None, _NO_RUNS
        counts = coder.frPyObjects({"size": [1, 1], "counts": counts}, 1, 1)["counts"].decode("ascii")
    if not isinstance(counts, str) or not counts.isascii():
        return None, _NO_RUNS
    return Runs(counts.encode("ascii"), (size[0], size[1]), f"annotation {name}"), ""


@dataclass(frozen=True, eq=False, slots=True)
class _Rings:
    """Hold polygons as COCO has them, x, y, x, y, …, united; filled by pycocotools, whose rule for pixels is its own."""

    name: str
    points: bytes
    lengths: tuple[int, ...]

    def cover(self, size: tuple[int, int]) -> Box:
        """Fill every ring.

        Raises:
            MaskError: points far from the image, or an outline so long that filling it would take all memory.

        """
        from pycocotools import mask as coder

        rings = np.split(np.frombuffer(self.points, np.float64), np.cumsum(self.lengths)[:-1])
        for ring in rings:
            self._hold(ring.reshape(-1, 2), size)
        whole = coder.merge(coder.frPyObjects(rings, size[0], size[1]))
        return Runs(whole["counts"], size, f"annotation {self.name}").cover(size)

    def _hold(self, ring: NDArray[np.float64], size: tuple[int, int]) -> None:
        """Refuse what pycocotools would walk along for ever: it goes from point to point in steps of a fifth of a pixel."""
        side = np.array(size[::-1])
        far = ring[~((ring >= -side) & (ring <= 2 * side)).all(axis=1)]
        if len(far):
            wanted, found = f"points x, y within an image of {side[0]}×{side[1]}", f"{far[0, 0]:g}, {far[0, 1]:g}"
            fix = "Correct the polygon; coordinates are pixels, not shares."
            raise MaskError(f"annotation {self.name}", expected=wanted, found=found, do=fix)
        length = np.abs(np.diff(ring, axis=0, append=ring[:1])).max(axis=1).sum()
        if length > _LONGEST_OUTLINE:
            wanted, found = f"an outline of at most {_LONGEST_OUTLINE:,} pixels", f"{length:,.0f}"
            raise MaskError(f"annotation {self.name}", expected=wanted, found=found, do="Take it out, or draw it anew.")

    def parts(self) -> Iterable[bytes]:
        """Give the points, as float64."""
        yield f"coco rings {self.lengths}".encode()
        yield self.points


@dataclass(frozen=True)
class _Sorted:
    """Hold the objects of a file by image, the classes that occur, and what was found on the way."""

    objects: dict[Hashable, list[_Object]]
    used: set[str]
    problems: list[Problem]
    notices: list[str]


def _sort(document: Document, place: DatasetRoot) -> _Sorted:
    """Sort the objects of a file by image; those of no image are told."""
    file = short(document.path, place.root)
    objects: dict[Hashable, list[_Object]] = defaultdict(list)
    problems, used = [], set()
    for number, one in enumerate(document.annotations):
        if not isinstance(one, _Object):
            why = "annotation without image_id and category_id"
            problems.append(Problem(f"{file}: annotations[{number}]", why))
        elif one.image not in document.entries:
            why = "annotation of an image that its file does not list"
            problems.append(Problem(f"{file}: annotation {one.name} (image_id {one.image!r})", why))
        else:
            objects[one.image].append(one)
            if one.category in document.categories:
                used.add(document.categories[one.category].name)
    own = [one for ones in objects.values() for one in ones]
    thin, twice = sum(one.thin for one in own), len(own) - len({one.name for one in own})
    notices = [f"{file}: {thin} polygons of fewer than three points cover nothing"] if thin else []
    if twice and not all(one.name == "None" for one in own):
        notices.append(f"{file}: {twice} ids of annotations are used again; every annotation is drawn all the same")
    return _Sorted(objects, used, problems, notices)


def _require_masks(documents: Sequence[Document], place: DatasetRoot) -> None:
    """Refuse files for detection: where nothing but boxes is drawn, there is no mask to learn from."""
    objects = [one for document in documents for one in document.annotations if isinstance(one, _Object)]
    if not objects or not all(one.fault == _BOX for one in objects):
        return
    raise DataError(
        documents[0].path,
        expected="objects with a segmentation: polygons or run lengths",
        found=f"{len(objects)} with a box alone, which is a file for detection",
        do="Export it as COCO segmentation; where other files hold the masks, name their format: data.format.",
    )


def _faults(match: Match, objects: Sequence[_Object]) -> list[tuple[_Object, str]]:
    """Find what makes an image unusable: an object left out would be background."""
    size = _size(match, objects)
    faults = []
    for one in objects:
        why = one.fault or ("" if one.category in match.document.categories else _CLASS)
        if isinstance(one.region, Runs) and one.region.size != size:
            why = why or _SIZE
        if why:
            faults.append((one, why))
    return faults


def _drawing(match: Match, objects: Sequence[_Object], place: DatasetRoot, unlabelled: str | None) -> Drawing:
    names = match.document.categories
    shapes = tuple(
        Shape(shape_name(place, names[one.category].name), one.region) for one in objects if one.region is not None
    )
    overlap = place.config.overlap or "area"
    return Drawing(match.document.path, shapes, _size(match, objects), unlabelled, overlap)


def _size(match: Match, objects: Iterable[_Object]) -> tuple[int, int] | None:
    """Give (H, W) as `images` has it, else as the first run lengths have it."""
    return match.entry.size or next((one.region.size for one in objects if isinstance(one.region, Runs)), None)


class _Writer:
    """Write a JSON file for each part, with the exact pixels of every object as run lengths."""

    def __init__(self, out: Path, labels: Labels) -> None:
        self.out, self.labels = out, labels
        self.unlabelled = painted(np.zeros((0, 0), np.uint8), labels)[1]
        self.ground = None if self.unlabelled == "ignore" else labels.names.index(self.unlabelled)
        self.splits: dict[str, dict[str, list[Any]]] = {}
        self.count = 0
        self.ids = dict(enumerate(labels.ids))

    def add(self, exported: ExportImage) -> Path:
        """Note every object, and copy the image into the folder of its part."""
        target, split, image_id = add_image(exported, self.out, self.splits)
        numbers, values = segments(exported.mask, self.labels)
        boxes = ndimage.find_objects(numbers + 1)
        for number, runs in of_regions(numbers):
            index = values[number]
            if index == self.ground:
                continue
            if index == self.labels.ignore_index:
                self.ids[index] = next(iter(self.labels.ignore_ids or ()), max(self.labels.ids) + 1)
            self.count += 1
            rows, columns = boxes[number]
            split["annotations"].append({
                "id": self.count, "image_id": image_id, "category_id": self.ids[index], "iscrowd": 0,
                "segmentation": {"size": list(exported.size), "counts": _packed(runs)}, "area": int(runs[1::2].sum()),
                "bbox": [columns.start, rows.start, columns.stop - columns.start, rows.stop - rows.start],
            })  # fmt: skip
        return target

    def close(self) -> dict[str, Any]:
        """Write the files."""
        rows = [*zip(self.labels.ids, self.labels.names, self.labels.countable, self.labels.colours, strict=True)]
        # Where two classes are called background or the like, or one is called otherwise, its name tells what lies below.
        if self.unlabelled == BACKGROUND and sum(name in BACKGROUNDS for name in self.labels.names) == 1:
            del rows[self.labels.names.index(BACKGROUND)]
        if self.labels.ignore_index in self.ids:
            rows.append((self.ids[self.labels.ignore_index], IGNORED, False, (244, 244, 240)))
        categories = [
            {"id": id_, "name": name, "supercategory": "", "isthing": int(countable), "color": list(colour)}
            for id_, name, countable, colour in rows
        ]
        for split, plain in self.splits.items():
            whole = {"info": {}, "licenses": [], "categories": categories, **plain}
            write_atomic(self.out / "annotations" / f"instances_{split}.json", json.dumps(whole))
        return {"format": "coco", "unlabelled": self.unlabelled}


def _packed(runs: NDArray[np.int64]) -> str:
    from pycocotools import mask as coder

    return str(coder.frPyObjects({"size": [1, 1], "counts": runs.tolist()}, 1, 1)["counts"], "ascii")


FORMAT = Format("coco", "COCO instances", detect, read, _Writer)
