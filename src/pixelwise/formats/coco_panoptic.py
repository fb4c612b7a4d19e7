"""COCO panoptic: a JSON file for a whole part, and a folder of PNG masks whose colours are the numbers of segments.

Comes in: a place. Goes out: a source per image that reads its PNG and gives each segment its class. The number of a
segment is red + 256 · green + 65536 · blue; number 0 ("VOID") counts in nothing, or is the class that `data.unlabelled` names.
Segments that only the PNG or only the JSON has are errors. The PNG files lie in a folder beside the JSON file, called like it.

Source: https://cocodataset.org/#format-data, and panopticapi's `utils.py` (rgb2id) and `evaluation.py` (VOID, what must agree).
"""

from __future__ import annotations

import hashlib
import json
from collections import defaultdict
from collections.abc import Hashable
from dataclasses import dataclass, replace
from io import BytesIO
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from pixelwise.errors import DataError, MaskError
from pixelwise.formats.base import (
    BACKGROUND,
    ExportImage,
    Format,
    ReadResult,
    drawn_labels,
    mentions,
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
from pixelwise.formats.dataset_root import DatasetRoot, ImageIndex, make_layout, split_of_file, split_of_folder, walk
from pixelwise.formats.records import Problem, Record, short
from pixelwise.formats.shapes import unknown_class
from pixelwise.imageio.images import read_mask_values, read_size
from pixelwise.labels import Labels
from pixelwise.storage import write_atomic

_SHOWN = 4
_WORDS = ("segments_info", "images", "categories", "annotations")
_MAX_ID = 2**24 - 1


def detect(place: DatasetRoot) -> str | None:
    """Recognise a JSON file of images, categories and annotations with `segments_info`."""
    found = next((path for path in largest(place) if mentions(path, *_WORDS)), None)
    return None if found is None else f"{short(found, place.root)} holds segments_info"


def read(place: DatasetRoot) -> ReadResult:
    """Read every file of segments, and find the images and PNG files that it lists.

    Raises:
        MaskError: a file that cannot be understood.
        DataError: no file, no class, no PNG folder, no image of a file, or two files for the same images.
        LabelsError: categories that cannot be told apart.

    """
    documents = [load(path, _lightened) for path in place.annotations(".json") if mentions(path, *_WORDS)]
    if not documents:
        expected = "a JSON file with images, categories, and annotations with segments_info"
        raise DataError(place.root, expected=expected, found="none", do="Put it there, or name it: data.annotations.")
    sheets = {id(document): _Sheets(document, _folder(document, place), place) for document in documents}
    classes = gather_classes(documents, {name for one in sheets.values() for name in one.used()})
    # What `unlabelled` says by default is meant for shapes; here it is written down which pixels are nothing.
    void = "ignore" if place.config.unlabelled == BACKGROUND else place.config.unlabelled
    config = place.config.model_copy(update={"unlabelled": void})
    labels, unlabelled = drawn_labels(
        replace(place, config=config), classes.names, ids=classes.ids, colours=classes.colours, things=classes.things
    )
    folders = {one.folder for one in sheets.values()}
    outside = [path for path in place.images.paths if folders.isdisjoint(path.parents)]
    images = ImageIndex(place.root, outside)
    matches, problems = match_images(documents, images, place, lambda entry: f"{entry.id}_leftImg8bit")
    records: dict[str, list[Record]] = defaultdict(list)
    for match in matches:
        source = sheets[id(match.document)].source(match, place, unlabelled)
        if isinstance(source, Problem):
            problems.append(source)
            continue
        split = split_of_file(match.document.path, place.root) or split_of_folder(match.image, place.root) or "pool"
        records[split].append(Record(images.id_of(match.image), match.image, source.file, source=source))
    notices = [*classes.notices, *unlisted(outside, {match.image for match in matches}, place, "images on disk")]
    taken = {png for one in sheets.values() for png in one.taken}
    for one in sheets.values():
        problems += one.problems
    for one in {one.folder: one for one in sheets.values()}.values():  # several files may share a folder
        notices += unlisted(one.files.values(), taken, place, f"PNG files of {short(one.folder, place.root)}/")
    return ReadResult(make_layout("COCO panoptic segments", records, problems, notices), labels)


class _Segment(NamedTuple):
    """One of `segments_info`, made small while its file is parsed."""

    id: Any
    category: Hashable
    area: Any


def _lightened(plain: dict[str, Any]) -> Any:
    if "category_id" not in plain or "image_id" in plain:
        return plain
    return _Segment(plain.get("id"), key_of(plain["category_id"]), plain.get("area"))


def _folder(document: Document, place: DatasetRoot) -> Path:
    """Find the folder of a file's PNG masks: beside it, called like it; else anywhere below the root, by either name."""
    stem = document.path.stem
    beside = document.path.with_suffix("")
    if beside.is_dir() and any(path.suffix.lower() == ".png" for path in walk(beside)):
        return beside
    pngs = [path for path in place.files if path.suffix.lower() == ".png"]
    called = {above for path in pngs for above in path.parents if above.name == stem and above != place.root}
    if len(called) == 1:
        return called.pop()
    names = [PurePosixPath(str(one.get("file_name"))).name for one in document.annotations if isinstance(one, dict)]
    images = {PurePosixPath(entry.name).name for entry in document.entries.values()}
    own = set(names) - images  # a PNG image of the same name is no mask
    holding = {path.parent for path in pngs if path.name in own}
    if len(holding) == 1:
        return holding.pop()
    found = "none" if not called | holding else f"{len(called or holding)} that it could be"
    raise DataError(
        document.path,
        expected=f"a folder {stem}/ with its PNG masks beside it",
        found=found,
        do=f"Put the PNG masks into {short(beside, place.root)}/.",
    )


class _Sheets:
    """Find the PNG mask of every image of one file.

    Args:
        document: the file.
        folder: of its PNG masks.
        place: for names in messages.
    """

    def __init__(self, document: Document, folder: Path, place: DatasetRoot) -> None:
        self.document, self.folder = document, folder
        self.name = short(document.path, place.root)
        self.files = {
            path.relative_to(folder).as_posix(): path
            for path in sorted(walk(folder))
            if path.suffix.lower() == ".png"
        }  # fmt: skip
        self.by_name = ImageIndex(folder, self.files.values())
        self.taken: set[Path] = set()
        self.problems: list[Problem] = []
        self.annotations: dict[Hashable, dict[str, Any]] = {}
        for number, one in enumerate(document.annotations):
            image = key_of(one.get("image_id")) if isinstance(one, dict) else None
            if image is None or not isinstance(one.get("segments_info"), list):
                why = "annotation without image_id and segments_info"
            elif image not in document.entries:
                why = "annotation of an image that its file does not list"
            elif image in self.annotations:
                why = "second annotation of an image"
            else:
                self.annotations[image] = one
                continue
            self.problems.append(Problem(f"{self.name}: annotations[{number}]", why))

    def used(self) -> set[str]:
        """Name the classes that occur."""
        known = self.document.categories
        every = (one for own in self.annotations.values() for one in own["segments_info"] if isinstance(one, _Segment))
        return {known[one.category].name for one in every if one.category in known}

    def source(self, match: Match, place: DatasetRoot, void: str | None) -> _Segments | Problem:
        """Give what makes an image's mask, or why there is none."""
        own = self.annotations.get(match.entry.id)
        image = short(match.image, place.root)
        if own is None:
            return Problem(image, f"image in {self.name} without an annotation")
        name = str(own.get("file_name") or f"{PurePosixPath(match.entry.name).stem}.png")
        png = self.files.get(name) or self.by_name.find(name)
        if isinstance(png, str):
            return Problem(image, f"image without its PNG mask in {short(self.folder, place.root)}/")
        self.taken.add(png)
        table: dict[int, tuple[str | None, int | None]] = {}
        for one in own["segments_info"]:
            whole = isinstance(one, _Segment) and type(one.id) is int and 0 < one.id <= _MAX_ID
            if not whole or one.id in table:
                return Problem(
                    f"{image} (segment {getattr(one, 'id', one)!r})", "segment whose id is no number of its own"
                )
            if one.category not in self.document.categories:
                return Problem(f"{image} (segment {one.id})", "segment of a category that its file does not list")
            area = one.area if isinstance(one.area, int) else None
            table[one.id] = (shape_name(place, self.document.categories[one.category].name), area)
        try:
            size = read_size(png)[1:]
        except DataError as error:
            return Problem(error.where, f"expected {error.expected}, found {error.found}")
        if match.entry.size not in (None, size):
            return Problem(short(png, place.root), f"PNG mask of another size than {self.name} says")
        return _Segments(png, tuple(sorted((key, *value) for key, value in table.items())), size, void)


@dataclass(frozen=True, eq=False)
class _Segments:
    """Make a mask from a PNG of segments.

    Args:
        file: the PNG.
        table: of each segment its number, its class (None: counts in nothing), and its pixels as the JSON says.
        size: (H, W) of the PNG.
        void: the class of number 0; None: it counts in nothing.
    """

    file: Path
    table: tuple[tuple[int, str | None, int | None], ...]
    size: tuple[int, int]
    void: str | None = None

    @property
    def names(self) -> frozenset[str]:
        """Name the classes that occur."""
        return frozenset(name for name in (self.void, *(row[1] for row in self.table)) if name is not None)

    def draw(self, labels: Labels, size: tuple[int, int]) -> NDArray[Any]:
        """Read the PNG: class indices (H, W), of the PNG's own size.

        Raises:
            MaskError: no PNG of colours, a class that the labels do not name, or segments that only the PNG or only the
                JSON has.

        """
        index: dict[str | None, int] = {name: place for place, name in enumerate(labels.names)}
        index[None] = labels.ignore_index
        for name in sorted(self.names):
            if name not in index:
                raise unknown_class(self.file, name, labels)
        raw = read_mask_values(self.file)
        if raw.kind != "colour":
            wanted, found = "an RGB PNG, whose colours are the numbers of segments", f"{raw.kind} values"
            raise MaskError(self.file, expected=wanted, found=found, do="Export the masks again, in RGB.")
        bands = raw.values.astype(np.uint32)
        numbers = bands[..., 0] | bands[..., 1] << 8 | bands[..., 2] << 16
        known = np.array([0, *(row[0] for row in self.table)], np.uint32)
        place = np.minimum(np.searchsorted(known, numbers), len(known) - 1)
        self._require_agreement(numbers[known[place] != numbers], np.bincount(place.reshape(-1), minlength=len(known)))
        classes = [index[self.void], *(index[row[1]] for row in self.table)]
        return np.array(classes, labels.dtype)[place]

    def _require_agreement(self, strange: NDArray[Any], counts: NDArray[Any]) -> None:
        """Refuse numbers that the JSON lacks, and segments without a pixel."""
        if strange.size:
            numbers, pixels = (values.tolist() for values in np.unique(strange, return_counts=True))
            rows = sorted(zip(numbers, pixels, strict=True), key=lambda row: -row[1])
            found = [f"{number} in {count} pixel{'s' * (count != 1)}" for number, count in rows]
            wanted = "segments that the JSON lists"
        else:
            lost = [row for row, count in zip(self.table, counts[1:], strict=True) if not count]
            found = [f"{row[0]} ({row[1] or 'ignored'}, {_area(row[2])}) in no pixel" for row in lost]
            wanted = "every segment that the JSON lists"
        if found:
            more = f" and {len(found) - _SHOWN} more" if len(found) > _SHOWN else ""
            fix = "Export PNG and JSON together again; the numbers are red + 256 · green + 65536 · blue."
            raise MaskError(self.file, expected=wanted, found=f"{', '.join(found[:_SHOWN])}{more}", do=fix)

    def digest(self) -> str:
        """Give the SHA-256, in hex, over the PNG's content and what its numbers mean."""
        with self.file.open("rb") as file:
            total = hashlib.file_digest(file, "sha256")
        meaning = [(row[0], row[1]) for row in self.table]
        total.update(repr((meaning, self.void)).encode("utf-8", "surrogatepass"))
        return total.hexdigest()


def _area(pixels: int | None) -> str:
    return "no area given" if pixels is None else f"{pixels} pixels by the JSON"


class _Writer:
    """Write a JSON file and a folder of PNG masks for each part."""

    def __init__(self, out: Path, labels: Labels) -> None:
        self.out, self.labels = out, labels
        self.splits: dict[str, dict[str, list[Any]]] = {}

    def add(self, exported: ExportImage) -> Path:
        """Write the PNG, note every segment, and copy the image into the folder of its part."""
        target, split, image_id = add_image(exported, self.out, self.splits)
        numbers, values = segments(exported.mask, self.labels)
        ids = np.cumsum(np.array(values) != self.labels.ignore_index)
        ids[np.array(values) == self.labels.ignore_index] = 0
        shown = ids[numbers]
        rgb = np.stack([shown & 255, shown >> 8 & 255, shown >> 16], -1).astype(np.uint8)
        buffer = BytesIO()
        Image.fromarray(rgb).save(buffer, "PNG")
        write_atomic(self.out / "annotations" / f"panoptic_{exported.split}" / f"{exported.id}.png", buffer.getvalue())
        areas = np.bincount(numbers.reshape(-1), minlength=len(values))
        info = [
            {
                "id": int(ids[number]), "category_id": self.labels.ids[values[number]], "iscrowd": 0,
                "area": int(areas[number]),
                "bbox": [columns.start, rows.start, columns.stop - columns.start, rows.stop - rows.start],
            }
            for number, (rows, columns) in enumerate(ndimage.find_objects(numbers + 1))
            if ids[number]
        ]  # fmt: skip
        note = {"image_id": image_id, "file_name": f"{exported.id}.png", "segments_info": info}
        split["annotations"].append(note)
        return target

    def close(self) -> dict[str, Any]:
        """Write the JSON files."""
        rows = zip(self.labels.ids, self.labels.names, self.labels.countable, self.labels.colours, strict=True)
        categories = [
            {"id": id_, "name": name, "supercategory": "", "isthing": int(countable), "color": list(colour)}
            for id_, name, countable, colour in rows
        ]
        for split, plain in self.splits.items():
            whole = {"info": {}, "licenses": [], "categories": categories, **plain}
            write_atomic(self.out / "annotations" / f"panoptic_{split}.json", json.dumps(whole))
        return {"format": "coco-panoptic"}


FORMAT = Format("coco-panoptic", "COCO panoptic", detect, read, _Writer)
