"""COCO panoptic: a JSON file per split, and a folder of PNG masks whose colours are segment ids.

The id of a segment is red + 256 · green + 65536 · blue; id 0 ("VOID") means ignored pixels, or the class `data.unlabelled`.
PNG and JSON must agree on the segments. The PNG files are in a folder next to the JSON file, with the same name.

Source: https://cocodataset.org/#format-data, and panopticapi's `utils.py` (rgb2id) and `evaluation.py` (VOID, checks).
"""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Hashable
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from pixelwise.errors import DataError, MaskError
from pixelwise.formats import coco_json
from pixelwise.formats.base import (
    BACKGROUND,
    ExportImage,
    Format,
    ReadResult,
    mentions,
    png_bytes,
    segments,
    shape_name,
)
from pixelwise.formats.coco_json import Document, Match, key_of, resolve
from pixelwise.formats.dataset_root import DatasetRoot, ImageIndex, make_layout, split_of_file, split_of_folder
from pixelwise.formats.records import Problem, Record, short
from pixelwise.formats.shapes import class_indices
from pixelwise.imageio.images import read_mask_values, read_size
from pixelwise.imageio.listing import walk
from pixelwise.labels import Labels
from pixelwise.storage import write_atomic

_SHOWN = 4
_WORDS = ("segments_info", "images", "categories", "annotations")
_MAX_ID = 2**24 - 1


def detect(dataset: DatasetRoot) -> str | None:
    """Recognise a JSON file with images, categories, and annotations with `segments_info`."""
    found = next((path for path in coco_json.largest(dataset) if mentions(path, *_WORDS)), None)
    return None if found is None else f"{short(found, dataset.root)} has segments_info"


def read(dataset: DatasetRoot) -> ReadResult:
    """Read every file with segments, and find the images and PNG files that it lists.

    Raises:
        MaskError: a malformed file.
        DataError: no file, class or PNG folder, none of a file's images, or two files for the same images.
        LabelsError: malformed or ambiguous categories.
    """
    paths = [path for path in dataset.annotations(".json") if mentions(path, *_WORDS)]
    documents = [coco_json.load(path, _compact, dataset) for path in paths]
    if not documents:
        expected = "a JSON file with images, categories, and annotations with segments_info"
        raise DataError(dataset.root, expected=expected, found="none", do="Put it there, or set data.annotations.")
    indexes = {id(document): _SegmentIndex(document, dataset) for document in documents}
    # The default of `unlabelled` is meant for shapes. Here, id 0 marks the ignored pixels.
    setting = "ignore" if dataset.config.unlabelled == BACKGROUND else dataset.config.unlabelled
    config = dataset.config.model_copy(update={"unlabelled": setting})
    used = {name for index in indexes.values() for name in index.used()}
    (labels, unlabelled), notices = coco_json.make_labels(replace(dataset, config=config), documents, used)
    folders = {index.folder: index for index in indexes.values()}  # several files can share a folder
    outside = [path for path in dataset.images.paths if folders.keys().isdisjoint(path.parents)]
    images = ImageIndex(dataset.root, outside)
    matches, problems, contested = coco_json.match_images(
        documents, images, dataset, lambda entry: f"{entry.id}_leftImg8bit"
    )
    records: dict[str, list[Record]] = defaultdict(list)
    sources = [indexes[id(match.document)].source(match, unlabelled) for match in matches]
    uses = Counter(source.file for source in sources if isinstance(source, _Segments))
    for match, source in zip(matches, sources, strict=True):
        if isinstance(source, Problem):
            problems.append(source)
            continue
        if uses[source.file] > 1:
            why = f"image whose PNG mask is also that of another ({source.file.name})"
            problems.append(Problem(short(match.image, dataset.root), why))
            continue
        split = split_of_file(match.document.path, dataset.root) or split_of_folder(match.image, dataset.root) or "pool"
        records[split].append(Record(images.id_of(match.image), match.image, source.file, source=source))
    listed_images = contested.union(match.image for match in matches)
    notices += coco_json.unlisted(outside, listed_images, dataset, "images on disk")
    listed = {png for index in indexes.values() for png in index.listed}
    for folder, index in folders.items():
        notices += coco_json.unlisted(
            index.files.values(), listed, dataset, f"PNG files of {short(folder, dataset.root)}/"
        )
    problems += [problem for index in indexes.values() for problem in index.problems]
    return ReadResult(make_layout("COCO panoptic segments", records, problems, notices), labels)


class _Segment(NamedTuple):
    """One of `segments_info` in compact form."""

    id: Any
    category: Hashable
    area: Any


def _compact(row: dict[str, Any]) -> Any:
    if "category_id" not in row or "image_id" in row:
        return row
    return _Segment(row.get("id"), key_of(row["category_id"]), row.get("area"))


def _png_folder(document: Document, dataset: DatasetRoot) -> Path:
    """Find the folder with a file's PNG masks: next to it with the same name, else anywhere by its name or their names."""
    stem = document.path.stem
    beside = document.path.with_suffix("")
    if beside.is_dir() and any(path.suffix.lower() == ".png" for path in walk(beside)):
        return beside
    pngs = [path for path in dataset.files if path.suffix.lower() == ".png"]
    same_name = {folder for path in pngs for folder in path.parents if folder.name == stem and folder != dataset.root}
    names = {PurePosixPath(str(row.get("file_name"))).name for row in document.annotations if isinstance(row, dict)}
    names -= {PurePosixPath(entry.name).name for entry in document.entries.values()}  # images can have the same name
    holding = {path.parent for path in pngs if path.name in names}
    for candidates in (same_name, holding):
        if len(candidates) == 1:
            return candidates.pop()
    raise DataError(
        document.path,
        expected=f"a folder {stem}/ with its PNG masks next to it",
        found=f"{len(same_name or holding)} possible folders" if same_name or holding else "none",
        do=f"Put the PNG masks into {short(beside, dataset.root)}/.",
    )


class _SegmentIndex:
    """The annotations and PNG masks of one file."""

    def __init__(self, document: Document, dataset: DatasetRoot) -> None:
        self.document = document
        self.dataset = dataset
        self.folder = _png_folder(document, dataset)
        self.name = short(document.path, dataset.root)
        paths = sorted(path for path in walk(self.folder) if path.suffix.lower() == ".png")
        self.files = {path.relative_to(self.folder).as_posix(): path for path in paths}
        self.by_name = ImageIndex(self.folder, paths)
        self.listed: set[Path] = set()
        self.problems: list[Problem] = []
        self.annotations: dict[Hashable, dict[str, Any]] = {}
        seen: set[Hashable] = set()
        for number, row in enumerate(document.annotations):
            image = key_of(row.get("image_id")) if isinstance(row, dict) else None
            image = resolve(image, document.entries)
            if image is None or not isinstance(row.get("segments_info"), list):
                why = "annotation without image_id and segments_info"
            elif image not in document.entries:
                why = coco_json.UNLISTED_IMAGE
            elif image in seen:
                why = "second annotation of an image"
                self.annotations.pop(image, None)  # it cannot be told which one is right
            else:
                self.annotations[image] = row
                seen.add(image)
                continue
            self.problems.append(Problem(f"{self.name}: annotations[{number}]", why))

    def used(self) -> set[str]:
        """Return the names of the classes that occur."""
        categories = self.document.categories
        rows = (row for annotation in self.annotations.values() for row in annotation["segments_info"])
        keys = {resolve(row.category, categories) for row in rows if isinstance(row, _Segment)}
        return {categories[key].name for key in keys if key in categories}

    def source(self, match: Match, unlabelled: str | None) -> _Segments | Problem:
        """Return the mask source of an image, or why it has none."""
        annotation = self.annotations.get(match.entry.id)
        image = short(match.image, self.dataset.root)
        if annotation is None:
            return Problem(image, f"image in {self.name} without an annotation")
        name = str(annotation.get("file_name") or f"{PurePosixPath(match.entry.name).stem}.png")
        png = self.files.get(name) or self.by_name.find(name)
        if isinstance(png, str):
            return Problem(image, f"image without its PNG mask in {short(self.folder, self.dataset.root)}/")
        self.listed.add(png)
        table: dict[int, tuple[str | None, int | None]] = {}
        for row in annotation["segments_info"]:
            is_id = isinstance(row, _Segment) and type(row.id) is int and 0 < row.id <= _MAX_ID
            if not is_id or row.id in table:
                where = f"{image} (segment {getattr(row, 'id', row)!r})"
                return Problem(where, "segment whose id is not a unique positive integer", kind="unreadable")
            category = resolve(row.category, self.document.categories)
            if category not in self.document.categories:
                where = f"{image} (segment {row.id})"
                return Problem(where, f"segment {coco_json.UNLISTED_CATEGORY}", kind="unreadable")
            area = row.area if isinstance(row.area, int) else None
            table[row.id] = (shape_name(self.dataset, self.document.categories[category].name), area)
        try:
            size = read_size(png)[1:]
        except DataError as error:
            return Problem.from_error(error)
        if match.entry.size not in (None, size):
            return Problem(short(png, self.dataset.root), f"PNG mask of another size than in {self.name}", kind="size")
        return _Segments(png, tuple(sorted((id_, *value) for id_, value in table.items())), size, unlabelled)


@dataclass(frozen=True, eq=False)
class _Segments:
    """The mask source of a PNG with segments."""

    file: Path
    table: tuple[tuple[int, str | None, int | None], ...]  # id, class (None: ignored pixels), area in the JSON
    size: tuple[int, int]  # (H, W)
    unlabelled: str | None = None  # the class of id 0; None: ignored pixels

    @property
    def names(self) -> frozenset[str]:
        """Names of the classes that occur."""
        return frozenset(name for name in (self.unlabelled, *(name for _, name, _ in self.table)) if name is not None)

    def draw(self, labels: Labels, size: tuple[int, int]) -> NDArray[Any]:
        """Read the PNG: class indices (H, W), in the PNG's own size."""
        index = class_indices(self.file, self.names, labels)
        raw = read_mask_values(self.file)
        if raw.kind != "colour":
            expected = "an RGB PNG whose colours are segment ids"
            do = "Export the masks again, in RGB."
            raise MaskError(self.file, expected=expected, found=f"{raw.kind} values", do=do)
        bands = raw.values.astype(np.uint32)
        ids = bands[..., 0] | bands[..., 1] << 8 | bands[..., 2] << 16
        known = np.array([0, *(row[0] for row in self.table)], np.uint32)
        rows = np.minimum(np.searchsorted(known, ids), len(known) - 1)
        self._require_agreement(ids[known[rows] != ids], np.bincount(rows.reshape(-1), minlength=len(known)))
        classes = [index[self.unlabelled], *(index[name] for _, name, _ in self.table)]
        return np.array(classes, labels.dtype)[rows]

    def _require_agreement(self, unknown: NDArray[Any], counts: NDArray[Any]) -> None:
        """Refuse ids that the JSON lacks, and segments without a pixel."""
        if unknown.size:
            ids, pixels = (values.tolist() for values in np.unique(unknown, return_counts=True))
            rows = sorted(zip(ids, pixels, strict=True), key=lambda row: -row[1])
            found = [f"{id_} in {count} pixel{'s' * (count != 1)}" for id_, count in rows]
            expected = "segments that the JSON lists"
        else:
            missing = [row for row, count in zip(self.table, counts[1:], strict=True) if not count]
            areas = ["no area given" if area is None else f"{area} pixels in the JSON" for _, _, area in missing]
            found = [
                f"{row[0]} ({row[1] or 'ignored'}, {area}) in no pixel"
                for row, area in zip(missing, areas, strict=True)
            ]
            expected = "every segment that the JSON lists"
        if found:
            more = f" and {len(found) - _SHOWN} more" if len(found) > _SHOWN else ""
            do = "Export PNG and JSON together again; the id of a segment is red + 256 · green + 65536 · blue."
            raise MaskError(self.file, expected=expected, found=f"{', '.join(found[:_SHOWN])}{more}", do=do)

    def digest(self) -> str:
        """Return the SHA-256, in hex, of the PNG file and the classes of its segments."""
        with self.file.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256")
        classes = [(id_, name) for id_, name, _ in self.table]
        digest.update(repr((classes, self.unlabelled)).encode("utf-8", "surrogatepass"))
        return digest.hexdigest()


class _Writer:
    """Write a JSON file and a folder of PNG masks per split."""

    def __init__(self, out: Path, labels: Labels) -> None:
        self.out = out
        self.labels = labels
        self.documents = coco_json.SplitDocuments(out, "panoptic")

    def add(self, exported: ExportImage) -> Path:
        """Copy the image, write its PNG and add its segments."""
        target, image_id, annotations = self.documents.add(exported)
        numbers, values = segments(exported.mask, self.labels)
        is_segment = np.array(values) != self.labels.ignore_index
        ids = np.where(is_segment, np.cumsum(is_segment), 0)
        pixels = ids[numbers]
        rgb = np.stack([pixels & 255, pixels >> 8 & 255, pixels >> 16], -1).astype(np.uint8)
        file = self.out / "annotations" / f"panoptic_{exported.split}" / f"{exported.id}.png"
        write_atomic(file, png_bytes(Image.fromarray(rgb)))
        areas = np.bincount(numbers.reshape(-1), minlength=len(values))
        info = [
            {
                "id": int(ids[number]), "category_id": self.labels.ids[values[number]], "iscrowd": 0,
                "area": int(areas[number]), "bbox": coco_json.bbox(*box),
            }
            for number, box in enumerate(ndimage.find_objects(numbers + 1))
            if ids[number]
        ]  # fmt: skip
        annotations.append({"image_id": image_id, "file_name": f"{exported.id}.png", "segments_info": info})
        return target

    def close(self) -> dict[str, Any]:
        """Write the JSON files."""
        self.documents.write(coco_json.category_rows(self.labels))
        return {"format": "coco-panoptic"}


FORMAT = Format("coco-panoptic", "COCO panoptic", detect, read, _Writer)
