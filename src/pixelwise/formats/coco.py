"""COCO instances: one JSON file per split, with polygons or run lengths for each object.

Polygons are rasterised by pycocotools, so masks equal those of `COCO.annToMask`. COCO has no drawing order: where objects
overlap, the smaller one is on top. Crowds are treated like other objects. Captions, keypoints, panoptic segments and
results in files next to the annotations are not read.

Source: https://cocodataset.org/#format-data, and cocoapi's `PythonAPI/pycocotools/coco.py`.
"""

from __future__ import annotations

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
from pixelwise.formats import coco_json
from pixelwise.formats.annotated_images import AnnotatedImage, background, found_images, shape_notices, value_names
from pixelwise.formats.base import BACKGROUND, ExportImage, Format, ReadResult, mentions, segments
from pixelwise.formats.coco_json import Document, Match, key_of, resolve
from pixelwise.formats.dataset_root import DatasetRoot, split_of_file, split_of_folder
from pixelwise.formats.records import Problem, short
from pixelwise.formats.shapes import CocoRLE, Crop, Region
from pixelwise.geometry.run_lengths import encode_regions
from pixelwise.labels import BACKGROUNDS, Labels

_PANOPTIC = "segments_info"
_MAX_CONTOUR_LENGTH = 5_000_000  # pixels; pycocotools allocates 60 bytes for each

_NO_MASK = "object with a box but no mask"
_TOO_FEW_POINTS = "object whose polygons have fewer than three points"
_MALFORMED_POLYGONS = "object whose polygons are not lists of numbers x, y, x, y"
_NO_CATEGORY = "object without a category_id"
_MALFORMED_RLE = "object whose run lengths have no valid size and counts"
_OTHER_SIZE = "object with run lengths for another size than its image"


def detect(dataset: DatasetRoot) -> str | None:
    """Recognise a JSON file with images, categories, and annotations with a category_id."""
    found = next((path for path in coco_json.largest(dataset) if _kind(path) and mentions(path, "category_id")), None)
    return None if found is None else f"{short(found, dataset.root)} has images, categories and annotations"


def _kind(path: Path) -> str | None:
    """Return the kind of a COCO file (objects or keypoints) by the words in it, or None for other files."""
    if not mentions(path, "images", "categories", "annotations") or mentions(path, _PANOPTIC):
        return None
    return "keypoints" if mentions(path, "num_keypoints") else "objects"


def read(dataset: DatasetRoot) -> ReadResult:
    """Read every file with objects, and find the images that they list.

    Raises:
        MaskError: a malformed file.
        DataError: no file, no class, only boxes, none of a file's images, or two files for the same images.
        LabelsError: malformed or ambiguous categories.
    """
    documents = [coco_json.load(path, _compact, dataset) for path in _files(dataset)]
    indexes = [_ObjectIndex(document, short(document.path, dataset.root)) for document in documents]
    _require_masks(documents)
    labels, notices = coco_json.make_labels(dataset, documents, {name for index in indexes for name in index.used})
    matches, problems, contested = coco_json.match_images(documents, dataset.images, dataset)
    objects = {id(index.document): index.objects for index in indexes}
    images = []
    for match in matches:
        file, names = match.document.path, match.document.categories
        of_image = objects[id(match.document)].get(match.entry.id, [])
        size = _size(match, of_image)
        faults = _faults(match, of_image, size)
        if faults:
            for name, why in faults:
                where = f"{short(match.image, dataset.root)} (annotation {name})"
                problems.append(Problem(where, why, kind="size" if why == _OTHER_SIZE else "unreadable"))
            continue
        shapes = [
            (names[resolve(one.category, names)].name, one.region, 0) for one in of_image if one.region is not None
        ]
        split = split_of_file(file, dataset.root) or split_of_folder(match.image, dataset.root)
        images.append(AnnotatedImage(match.image, file, split, size, shapes))
    notices += [notice for index in indexes for notice in index.notices]
    notices += shape_notices(images, labels[1])
    listed = contested.union(match.image for match in matches)
    notices += coco_json.unlisted(dataset.images.paths, listed, dataset, "images on disk")
    return found_images(dataset, "COCO annotations", images, labels, problems, notices, overlap="area")


def _size(match: Match, objects: Sequence[_Object]) -> tuple[int, int] | None:
    """Return (H, W) of the annotated image: that of its entry, unless run lengths show that it is before rotation."""
    sizes = {one.region.size for one in objects if isinstance(one.region, CocoRLE)}
    size = match.entry.size or next(iter(sizes), None)
    return size[::-1] if size is not None and sizes == {size[::-1]} else size


def _files(dataset: DatasetRoot) -> list[Path]:
    """List the files with objects; those with keypoints only if there are no others, whose persons they repeat."""
    files = dataset.annotations(".json")
    if dataset.config.annotations is not None and files:
        for path in files:
            if mentions(path, _PANOPTIC):
                do = "Set data.format: coco-panoptic, or set data.annotations to the file with objects."
                raise MaskError(path, expected="objects with category_id", found="panoptic segments", do=do)
        return list(files)
    kinds = {path: _kind(path) for path in files}
    chosen = [path for path in files if kinds[path] == "objects"] or [path for path in files if kinds[path]]
    if not chosen:
        raise DataError(
            dataset.root,
            expected="a JSON file with images, categories and annotations",
            found=f"none among {len(files)} JSON files" if files else "no JSON file",
            do="Put it there, or set data.annotations.",
        )
    return chosen


class _Object(NamedTuple):
    """An annotation in compact form; without a region, `fault` says why. `thin` counts rings without area."""

    name: str
    image: Hashable
    category: Hashable
    region: Region | None
    fault: str
    thin: int


def _compact(row: dict[str, Any]) -> Any:
    """Convert an annotation to an `_Object`, and leave other objects as they are."""
    if "image_id" not in row:
        return row
    name = str(row.get("id"))[:40]
    name = name if name.isprintable() else ascii(name)
    if "category_id" not in row:
        return _Object(name, key_of(row["image_id"]), None, None, _NO_CATEGORY, 0)
    region, fault, thin = _region(name, row.get("segmentation"))
    return _Object(name, key_of(row["image_id"]), key_of(row["category_id"]), region, fault, thin)


def _region(name: str, segmentation: Any) -> tuple[Region | None, str, int]:
    """Read a segmentation: the region, or what is wrong with it; and the number of rings without area."""
    if not segmentation or (isinstance(segmentation, list) and all(ring == [] for ring in segmentation)):
        return None, _NO_MASK, 0
    if isinstance(segmentation, dict):
        region = _run_lengths(name, segmentation.get("size"), segmentation.get("counts"))
        return region, "" if region else _MALFORMED_RLE, 0
    if not isinstance(segmentation, list):
        return None, _MALFORMED_POLYGONS, 0
    rings = segmentation if isinstance(segmentation[0], list) else [segmentation]
    try:
        valid = [array("d", ring) for ring in rings if len(ring) >= 6]
        is_odd = any(len(ring) % 2 for ring in rings)
    except (TypeError, OverflowError):
        return None, _MALFORMED_POLYGONS, 0
    if is_odd or not valid:
        return None, _MALFORMED_POLYGONS if is_odd else _TOO_FEW_POINTS, 0
    points = b"".join(ring.tobytes() for ring in valid)
    return _CocoPolygons(name, points, tuple(len(ring) for ring in valid)), "", len(rings) - len(valid)


def _run_lengths(name: str, size: Any, counts: Any) -> CocoRLE | None:
    """Read run lengths, compressed or as a list of numbers; None if they are malformed."""
    if not isinstance(size, list) or len(size) != 2 or not all(type(side) is int and side > 0 for side in size):
        return None
    if isinstance(counts, list):
        if not counts or not all(type(run) is int and 0 <= run < 1 << 32 for run in counts):
            return None
        counts = _compressed(counts)
    if not isinstance(counts, str) or not counts.isascii():
        return None
    return CocoRLE(counts.encode("ascii"), (size[0], size[1]), f"annotation {name}")


def _compressed(runs: list[int]) -> str:
    from pycocotools import mask as coder  # takes 20 ms, and many data sets do not need it

    return str(coder.frPyObjects({"size": [1, 1], "counts": runs}, 1, 1)["counts"], "ascii")


@dataclass(frozen=True, eq=False, slots=True)
class _CocoPolygons:
    """The union of polygons x, y, x, y, … (float64), rasterised by pycocotools, whose rule for pixels differs from ours."""

    name: str
    coordinates: bytes
    lengths: tuple[int, ...]

    def rasterize(self, size: tuple[int, int]) -> Crop:
        """Fill every ring."""
        from pycocotools import mask as coder

        rings = np.split(np.frombuffer(self.coordinates, np.float64), np.cumsum(self.lengths)[:-1])
        for ring in rings:
            self._validate(ring.reshape(-1, 2), size)
        merged = coder.merge(coder.frPyObjects(rings, size[0], size[1]))
        return CocoRLE(merged["counts"], size, f"annotation {self.name}").rasterize(size)

    def _validate(self, ring: NDArray[np.float64], size: tuple[int, int]) -> None:
        """Refuse rings that take pycocotools too long: it walks along edges in steps of a fifth of a pixel."""
        side = np.array(size[::-1])
        outside = ring[~((ring >= -side) & (ring <= 2 * side)).all(axis=1)]
        if len(outside):
            expected = f"points x, y within an image of {side[0]}×{side[1]}"
            found = f"{outside[0, 0]:g}, {outside[0, 1]:g}"
            do = "Correct the polygon; coordinates are in pixels, not fractions."
            raise MaskError(f"annotation {self.name}", expected=expected, found=found, do=do)
        length = np.abs(np.diff(ring, axis=0, append=ring[:1])).max(axis=1).sum()
        if length > _MAX_CONTOUR_LENGTH:
            expected = f"a contour of at most {_MAX_CONTOUR_LENGTH:,} pixels"
            do = "Remove it, or draw it again."
            raise MaskError(f"annotation {self.name}", expected=expected, found=f"{length:,.0f}", do=do)

    def points(self, size: tuple[int, int] | None) -> NDArray[np.float64]:
        """Return the points of all rings."""
        return np.frombuffer(self.coordinates, np.float64).reshape(-1, 2)

    def content(self) -> Iterable[bytes]:
        """Yield the points as float64."""
        yield f"coco rings {self.lengths}".encode()
        yield self.coordinates


class _ObjectIndex:
    """The objects of a file by image, the names of the classes that occur, and notices.

    Raises:
        MaskError: an annotation that refers to none of the images.
    """

    def __init__(self, document: Document, file: str) -> None:
        self.document = document
        self.objects: dict[Hashable, list[_Object]] = defaultdict(list)
        self.used: set[str] = set()
        self.notices: list[str] = []
        thin = retyped = 0
        names: list[str] = []
        lost: list[str] = []
        for number, one in enumerate(document.annotations):
            if not isinstance(one, _Object):
                lost.append(f"annotations[{number}]")
                continue
            image = resolve(one.image, document.entries)
            if image not in document.entries:
                lost.append(f"annotation {one.name}: {one.image!r:.40}")
                continue
            retyped += type(image) is not type(one.image)
            self.objects[image].append(one)
            thin += one.thin
            names.append(one.name)
            category = resolve(one.category, document.categories)
            if category in document.categories:
                self.used.add(document.categories[category].name)
        if lost:
            raise coco_json.unassigned(document.path, lost)
        duplicates = len(names) - len(set(names))
        if retyped:
            self.notices.append(
                f"{file}: {retyped} annotations have numbers for image ids that are text, or the reverse: they are matched"
            )
        if thin:
            self.notices.append(f"{file}: {thin} polygons with fewer than three points cover no pixels")
        if duplicates and set(names) != {"None"}:
            self.notices.append(f"{file}: {duplicates} annotation ids are duplicates; all annotations are drawn")


def _require_masks(documents: Sequence[Document]) -> None:
    """Refuse files for detection, which have only boxes."""
    objects = [one for document in documents for one in document.annotations if isinstance(one, _Object)]
    if not objects or not all(one.fault == _NO_MASK for one in objects):
        return
    raise DataError(
        documents[0].path,
        expected="objects with a segmentation: polygons or run lengths",
        found=f"{len(objects)} with only a box, as for detection",
        do="Export the annotations as COCO segmentation; if other files hold the masks, set data.format.",
    )


def _faults(match: Match, objects: Sequence[_Object], size: tuple[int, int] | None) -> list[tuple[str, str]]:
    """Return annotations that make an image unusable, since without them their pixels would be background; and why."""
    faults = []
    for one in objects:
        is_listed = resolve(one.category, match.document.categories) in match.document.categories
        why = one.fault or ("" if is_listed else f"object {coco_json.UNLISTED_CATEGORY}")
        if not why and isinstance(one.region, CocoRLE) and one.region.size != size:
            why = _OTHER_SIZE
        if why:
            faults.append((one.name, why))
    return faults


class _Writer:
    """Write a JSON file per split, with the exact pixels of every object as run lengths."""

    def __init__(self, out: Path, labels: Labels) -> None:
        self.labels = labels
        self.documents = coco_json.SplitDocuments(out, "instances")
        self.unlabelled, self.background = background(labels)
        self.count = 0
        self.ids = dict(enumerate(labels.ids))

    def add(self, exported: ExportImage) -> Path:
        """Copy the image and add its objects."""
        target, image_id, annotations = self.documents.add(exported)
        numbers, values = segments(exported.mask, self.labels)
        boxes = ndimage.find_objects(numbers + 1)
        for number, runs in encode_regions(numbers):
            index = values[number]
            if index == self.background and self.unlabelled != "ignore":
                continue
            if index == self.labels.ignore_index:
                self.ids[index] = next(iter(self.labels.ignore_ids or ()), max(self.labels.ids) + 1)
            self.count += 1
            annotations.append({
                "id": self.count, "image_id": image_id, "category_id": self.ids[index], "iscrowd": 0,
                "segmentation": {"size": list(exported.size), "counts": _compressed(runs.tolist())},
                "area": int(runs[1::2].sum()), "bbox": coco_json.bbox(*boxes[number]),
            })  # fmt: skip
        return target

    def close(self) -> dict[str, Any]:
        """Write the files."""
        rows = coco_json.category_rows(self.labels)
        # A background with another name, or one of two backgrounds, is kept: `unlabelled` refers to it by name.
        if self.unlabelled == BACKGROUND and sum(name in BACKGROUNDS for name in self.labels.names) == 1:
            del rows[self.background]
        ignored = self.ids.get(self.labels.ignore_index)
        if ignored is not None:
            rows.append(
                coco_json.category_row(
                    ignored, value_names(self.labels)[self.labels.ignore_index], False, (244, 244, 240)
                )
            )
        self.documents.write(rows)
        return {"format": "coco", "unlabelled": self.unlabelled}


FORMAT = Format("coco", "COCO instances", detect, read, _Writer)
