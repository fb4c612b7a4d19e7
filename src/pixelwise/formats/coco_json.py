"""The parts of COCO's JSON files that instance and panoptic annotations share: images, categories and their ids.

Ids of images, categories and annotations are valid only within their file; categories of several files are the same class
if their names are equal.
"""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Callable, Collection, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from pixelwise.errors import DataError, LabelsError, MaskError
from pixelwise.formats.annotated_images import export_copy
from pixelwise.formats.base import ExportImage, drawn_labels, load_json
from pixelwise.formats.dataset_root import DatasetRoot, ImageIndex
from pixelwise.formats.records import Problem, short
from pixelwise.labels import BACKGROUNDS, Colour, Labels
from pixelwise.storage import write_atomic

_SHOWN = 3
_MAX_PROBED_FILES = 32
_MAX_ID = 2**24 - 1  # the largest that `Labels` accepts
UNLISTED_IMAGE = "annotation of an image that its file does not list"
UNLISTED_CATEGORY = "of a category that its file does not list"


class Entry(NamedTuple):
    """One of `images`: its id, file name, and (H, W) if given."""

    id: Hashable
    name: str
    size: tuple[int, int] | None


class Category(NamedTuple):
    """One of `categories`; `thing` and `colour` are None if not given."""

    id: int
    name: str
    supercategory: str
    thing: bool | None
    colour: Colour | None


@dataclass(frozen=True)
class Document:
    """A file: images and categories by id, and annotations as converted by the hook (see `load`)."""

    path: Path
    entries: dict[Hashable, Entry]
    categories: dict[Hashable, Category]
    annotations: list[Any]


class Match(NamedTuple):
    """An image file, its entry, and the file of the entry."""

    document: Document
    entry: Entry
    image: Path


def largest(dataset: DatasetRoot) -> list[Path]:
    """List the largest JSON files: COCO has few and large ones, while other tools write one for each image."""

    def size(path: Path) -> int:
        try:
            return path.stat().st_size
        except OSError:
            return 0

    return sorted(dataset.annotations(".json"), key=size, reverse=True)[:_MAX_PROBED_FILES]


def key_of(value: Any) -> Hashable:
    """Return an id as a dictionary key; None if it is not a number or string."""
    return value if isinstance(value, int | float | str) and not isinstance(value, bool) else None


def resolve(id_: Hashable, known: Mapping[Hashable, Any]) -> Hashable:
    """Return the key that an id means; itself if there is none.

    Some tools write an id as a number in one list and as text in another. 5 and "5" are the same id unless both are keys.
    """
    if id_ in known:
        return id_
    other: Hashable = None
    if isinstance(id_, int) or (isinstance(id_, float) and id_.is_integer()):
        other = str(int(id_))
    elif isinstance(id_, str) and re.fullmatch(r"-?(0|[1-9]\d{0,18})", id_):
        other = int(id_)
    return other if other is not None and other in known else id_


def unassigned(path: Path, found: Sequence[str]) -> MaskError:
    """Return the error for annotations of no listed image: each may belong to any image, so none can be left out."""
    shown = ", ".join(found[:_SHOWN]) + (", …" if len(found) > _SHOWN else "")
    return MaskError(
        path,
        expected="the image_id of a listed image in every annotation",
        found=f"{len(found)} without ({shown})",
        do="Correct or remove these annotations. They may belong to any image of the file, so skip_bad cannot leave out theirs.",
    )


def load(path: Path, hook: Callable[[dict[str, Any]], Any], dataset: DatasetRoot | None = None) -> Document:
    """Read a file.

    Args:
        path: the file.
        hook: converts annotations to a compact form during parsing (see `base.load_json`). As plain lists of numbers, a
            file of 400 MB would need ten times as much memory.
        dataset: notes that the file is used, and its encoding.

    Raises:
        MaskError: not a JSON file of this kind.
        LabelsError: malformed or ambiguous categories.
    """
    document = load_json(path, hook, dataset)
    if dataset is not None:
        dataset.use(path)
    if not isinstance(document, dict):
        expected = "an object with images, annotations and categories"
        do = "Set data.annotations to the annotation file; a list of results is not one."
        raise MaskError(path, expected=expected, found=f"a {type(document).__name__}", do=do)
    images, annotations, categories = (_list(path, document, key) for key in ("images", "annotations", "categories"))
    return Document(path, _entries(path, images), _categories(path, categories), annotations)


def _list(path: Path, document: dict[str, Any], key: str) -> list[Any]:
    value = document.get(key)
    if isinstance(value, list):
        return value
    found = f"a {type(value).__name__}" if key in document else f"the keys {', '.join(map(str, document))[:80]}"
    raise MaskError(path, expected=f"a list of {key}", found=found, do="Export the annotations again, as COCO.")


def _entries(path: Path, images: Iterable[Any]) -> dict[Hashable, Entry]:
    entries: dict[Hashable, Entry] = {}
    for image in images:
        key = key_of(image.get("id")) if isinstance(image, dict) else None
        if key is None or key in entries:
            found = repr(image)[:80] if key is None else f"id {key!r} twice"
            do = "Give each image a unique id, or export the annotations again."
            raise MaskError(f"{path}: images", expected="images with unique ids", found=found, do=do)
        name = image.get("file_name") or image.get("coco_url") or ""  # LVIS has only URLs
        height, width = _side(image.get("height")), _side(image.get("width"))
        entries[key] = Entry(key, str(name), None if height is None or width is None else (height, width))
    return entries


def _side(value: Any) -> int | None:
    """Return a side in pixels; None if it is missing or 0, as some tools write it."""
    is_whole = isinstance(value, int) or (isinstance(value, float) and value.is_integer())
    return int(value) if is_whole and value > 0 else None


def _categories(path: Path, rows: Iterable[Any]) -> dict[Hashable, Category]:
    categories: dict[Hashable, Category] = {}
    where = f"{path}: categories"
    do = "Give each class a unique id and a name, or export the annotations again."
    for row in rows:
        key = key_of(row.get("id")) if isinstance(row, dict) else None
        if (isinstance(key, float) and key.is_integer()) or (isinstance(key, str) and key.isdecimal()):
            key = int(key)
        if not isinstance(key, int) or row.get("name") in (None, ""):
            raise LabelsError(where, expected="categories with an integer id and a name", found=repr(row)[:80], do=do)
        thing = row.get("isthing")
        above = str(row.get("supercategory") or "")
        category = Category(key, str(row["name"]), above, None if thing is None else bool(thing), _colour(row))
        if key in categories and categories[key].name != category.name:
            found = f"id {category.id} for {categories[key].name!r} and {category.name!r}"
            raise LabelsError(where, expected="unique ids", found=found, do=do)
        categories[key] = category
    if not categories:
        raise LabelsError(where, expected="the classes", found="none", do=do)
    return categories


def _colour(category: dict[str, Any]) -> Colour | None:
    """Read [r, g, b], as in COCO, or "#rrggbb", as in COCO Annotator."""
    value = category.get("color")
    if isinstance(value, str) and len(value) == 7 and value[0] == "#":
        try:
            value = list(bytes.fromhex(value[1:]))
        except ValueError:
            return None
    if not isinstance(value, list) or len(value) != 3 or not all(type(v) is int and 0 <= v <= 255 for v in value):
        return None
    return value[0], value[1], value[2]


def make_labels(
    dataset: DatasetRoot, documents: Sequence[Document], used: Collection[str]
) -> tuple[tuple[Labels, str | None], list[str]]:
    """Merge the categories of all files by name; each class keeps its first id if it is free.

    A category that is the `supercategory` of others is dropped (Roboflow adds one) unless it is in `used`, the names of
    the classes that have annotations.

    Returns:
        The labels and the class of unlabelled pixels (see `base.drawn_labels`); notices.
    """
    categories = [category for document in documents for category in document.categories.values()]
    names = {category.name for category in categories}
    above = {category.supercategory for category in categories if category.supercategory != category.name}
    dropped = names & above - set(used)
    dropped = dropped if names - dropped else set()
    notices = [f"{name!r} is only a supercategory, and not used as a class" for name in sorted(dropped)]
    classes: dict[str, Category] = {}
    ids: set[int] = set()
    for document in documents:
        notices += _duplicate_names(document)
        for category in document.categories.values():
            if category.name in classes or category.name in dropped:
                continue
            id_ = category.id if category.id not in ids else max(ids) + 1
            if id_ != category.id:
                notices.append(f"id {category.id} is another class in another file: {category.name!r} gets id {id_}")
            classes[category.name] = category._replace(id=id_)
            ids.add(id_)
    notices += _renumber(classes)
    colours = [category.colour for category in classes.values() if category.colour is not None]
    is_thing = {c.name: c.name not in BACKGROUNDS if c.thing is None else c.thing for c in classes.values()}
    labels = drawn_labels(
        dataset,
        classes,
        ids=[category.id for category in classes.values()],
        colours=colours if len(colours) == len(classes) else (),
        things=[name for name, thing in is_thing.items() if thing],
    )
    return labels, notices


def _renumber(classes: dict[str, Category]) -> list[str]:
    """Replace ids that are out of range and return a notice; V7 writes checksums of the names as ids."""
    invalid = [category for category in classes.values() if not 0 <= category.id <= _MAX_ID]
    if not invalid:
        return []
    free = max((category.id for category in classes.values() if 0 <= category.id <= _MAX_ID), default=0) + 1
    for id_, category in enumerate(invalid, free):
        classes[category.name] = category._replace(id=id_)
    example = f"{invalid[0].name!r}, {invalid[0].id}, gets id {free}{', …' if len(invalid) > 1 else ''}"
    return [f"{len(invalid)} category ids are outside 0–{_MAX_ID} and are replaced: {example}"]


def _duplicate_names(document: Document) -> list[str]:
    ids: dict[str, list[int]] = defaultdict(list)
    for category in document.categories.values():
        ids[category.name].append(category.id)
    file = document.path.name
    return [f"{file}: categories {same} are one class, {name!r}" for name, same in ids.items() if len(same) > 1]


def match_images(
    documents: Sequence[Document], images: ImageIndex, dataset: DatasetRoot, other: Callable[[Entry], str] | None = None
) -> tuple[list[Match], list[Problem], set[Path]]:
    """Find the image file of every entry.

    Args:
        documents: the files.
        images: the image files.
        dataset: for names in messages.
        other: returns another name to try if there is no image of the first.

    Returns:
        A match for every entry whose image is found and that no other entry may describe; the problems; and the images
        that several entries may describe.

    Raises:
        DataError: a file without any of its images, or two files for the same images.
    """
    owner: dict[Path, Document] = {}
    matches: list[Match] = []
    problems: list[Problem] = []
    shared: dict[tuple[Path, Path], list[Path]] = defaultdict(list)
    contested: set[Path] = set()  # whose annotations cannot be told from those of another entry
    for document in documents:
        found, missing, ambiguous = _find_images(document, images, dataset, other)
        problems += missing
        contested |= ambiguous
        for entry, image in found:
            if image not in owner:
                owner[image] = document
                matches.append(Match(document, entry, image))
            elif owner[image] is document:
                where = f"{short(document.path, dataset.root)}: {entry.name!r}"
                problems.append(Problem(where, "second entry of an image"))
                contested.add(image)
            else:
                shared[owner[image].path, document.path].append(image)
    for files, both in shared.items():
        first, second = (short(path, dataset.root) for path in files)
        if 2 * len(both) >= min(len(document.entries) for document in documents if document.path in files):
            raise DataError(
                dataset.root,
                expected="one annotation file for each image",
                found=f"{first} and {second}, which both list the same {len(both)} images",
                do=f"Choose one: --set data.annotations={first}.",
            )
        problems += [Problem(short(image, dataset.root), f"image in two files, {first} and {second}") for image in both]
        contested.update(both)
    return [match for match in matches if match.image not in contested], problems, contested


def _find_images(
    document: Document, images: ImageIndex, dataset: DatasetRoot, other: Callable[[Entry], str] | None
) -> tuple[list[tuple[Entry, Path]], list[Problem], set[Path]]:
    """Find the images of one file, report those that are missing, and return those that an ambiguous name may mean."""
    found: list[tuple[Entry, Path]] = []
    missing: list[Problem] = []
    ambiguous: set[Path] = set()
    reason = ""
    for entry in document.entries.values():
        image = images.find(entry.name, document.path)
        if isinstance(image, str) and other is not None:
            image = images.find(other(entry), document.path)
        folder = PurePosixPath(entry.name.replace("\\", "/")).parent.name
        if isinstance(image, Path) and folder in images.folders and folder not in image.parent.parts:
            image = f"no such image in {folder}/"
        if isinstance(image, Path):
            found.append((entry, image))
        else:
            where = f"{short(document.path, dataset.root)}: {entry.name!r}"
            missing.append(Problem(where, f"annotation without its image ({image})"))
            ambiguous.update(images.candidates(entry.name, document.path))
            reason = reason or image
    if missing and not found:
        names = [repr(entry.name) for entry in document.entries.values()]
        examples = ", ".join(names[:_SHOWN]) + (", …" if len(names) > _SHOWN else "")
        raise DataError(
            document.path,
            expected=f"the images it lists, in {dataset.root}",
            found=f"none of {len(names)} ({examples}): {reason}",
            do="Move them there, or set data.images to their folder or data.annotations to the right files.",
        )
    return found, missing, ambiguous


def unlisted(files: Iterable[Path], listed: Collection[Path], dataset: DatasetRoot, what: str) -> tuple[str, ...]:
    """Describe the files that no annotation file lists; empty if there are none."""
    paths = list(files)
    rest = [path for path in paths if path not in listed]
    if not rest:
        return ()
    dataset.use(*rest)
    example = f"{short(rest[0], dataset.root)}{', …' if len(rest) > 1 else ''}"
    return (f"{len(rest)} of {len(paths)} {what} are in no annotation file and are left out ({example})",)


class SplitDocuments:
    """Collect the images and annotations of one JSON document per split, named by a prefix: "instances" or "panoptic"."""

    def __init__(self, out: Path, prefix: str) -> None:
        self.out = out
        self.prefix = prefix
        self._documents: dict[str, dict[str, list[Any]]] = {}

    def add(self, exported: ExportImage) -> tuple[Path, int, list[Any]]:
        """Copy an image: the path of the copy, its image id, and the list for its annotations."""
        target = export_copy(exported, self.out)
        document = self._documents.setdefault(exported.split, {"images": [], "annotations": []})
        image_id = len(document["images"]) + 1
        name = target.relative_to(self.out / exported.split).as_posix()
        height, width = exported.size
        document["images"].append({"id": image_id, "file_name": name, "height": height, "width": width})
        return target, image_id, document["annotations"]

    def write(self, categories: list[dict[str, Any]]) -> None:
        """Write annotations/PREFIX_SPLIT.json."""
        for split, document in self._documents.items():
            content = {"info": {}, "licenses": [], "categories": categories, **document}
            write_atomic(self.out / "annotations" / f"{self.prefix}_{split}.json", json.dumps(content))


def category_rows(labels: Labels) -> list[dict[str, Any]]:
    """Return `categories`, in the order of the labels."""
    return list(map(category_row, labels.ids, labels.names, labels.countable, labels.colours))


def category_row(id_: int, name: str, countable: bool, colour: Colour) -> dict[str, Any]:
    """Return one of `categories`."""
    return {"id": id_, "name": name, "supercategory": "", "isthing": int(countable), "color": list(colour)}


def bbox(rows: slice, columns: slice) -> list[int]:
    """Return a box as COCO has it: x, y, width, height."""
    return [columns.start, rows.start, columns.stop - columns.start, rows.stop - rows.start]
