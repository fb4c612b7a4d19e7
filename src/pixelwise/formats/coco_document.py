"""What all of COCO's JSON files have in common: images with ids, categories with ids, and annotations that name both.

Comes in: JSON files. Goes out: documents, the classes of all of them together, and the image on disk that each entry means.
Knows nothing of what an annotation draws.

Ids of images, categories and annotations mean something within their file only; classes are the same where their names are.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Hashable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from pixelwise.errors import DataError, LabelsError, MaskError
from pixelwise.formats.base import BACKGROUNDS, ExportImage, copy_image, load_json
from pixelwise.formats.dataset_root import DatasetRoot, ImageIndex
from pixelwise.formats.records import Problem, short
from pixelwise.labels import Colour

_SHOWN = 3
_LOOKED_INTO = 32
_LARGEST_ID = 2**24 - 1  # that `Labels` takes


class Entry(NamedTuple):
    """One of `images`: its id, the name that it gives the image, and (H, W) where it says so."""

    id: Hashable
    name: str
    size: tuple[int, int] | None


class Category(NamedTuple):
    """One of `categories`; `thing` and `colour` are None where it does not say."""

    id: int
    name: str
    above: str
    thing: bool | None
    colour: Colour | None


@dataclass(frozen=True)
class Document:
    """Hold one file: images and categories by their ids, and annotations as `hook` left them (see `load`)."""

    path: Path
    entries: dict[Hashable, Entry]
    categories: dict[Hashable, Category]
    annotations: list[Any]


class Match(NamedTuple):
    """An image on disk, the entry that means it, and the file that the entry stands in."""

    document: Document
    entry: Entry
    image: Path


@dataclass(frozen=True)
class Classes:
    """Hold the classes of several files together: names, an id and a colour for each (or none), and which are countable."""

    names: tuple[str, ...]
    ids: tuple[int, ...]
    colours: tuple[Colour, ...]
    things: frozenset[str]
    notices: tuple[str, ...]


def largest(place: DatasetRoot) -> list[Path]:
    """List the JSON files worth a look: COCO has few and large ones, other tools one for each image."""

    def size(path: Path) -> int:
        try:
            return path.stat().st_size
        except OSError:
            return 0

    return sorted(place.annotations(".json"), key=size, reverse=True)[:_LOOKED_INTO]


def key_of(value: Any) -> Hashable:
    """Give an id as a key: ids are numbers or texts; None for anything else."""
    return value if isinstance(value, int | float | str) and not isinstance(value, bool) else None


def load(path: Path, hook: Callable[[dict[str, Any]], Any]) -> Document:
    """Read a file.

    Args:
        path: the file.
        hook: makes annotations small while the file is parsed (see `format.load_json`): of a file of 400 MB, plain lists
            of numbers would take ten times as much.

    Raises:
        MaskError: no JSON of this kind.
        LabelsError: categories that cannot be told apart.

    """
    plain = load_json(path, hook)
    if not isinstance(plain, dict):
        wanted, found = "an object with images, annotations and categories", f"a {type(plain).__name__}"
        fix = "Name the file of the annotations, data.annotations; a list alone is what a model predicted."
        raise MaskError(path, expected=wanted, found=found, do=fix)
    images, annotations, categories = (_list(path, plain, key) for key in ("images", "annotations", "categories"))
    return Document(path, _entries(path, images), _categories(path, categories), annotations)


def _list(path: Path, plain: dict[str, Any], key: str) -> list[Any]:
    value = plain.get(key)
    if isinstance(value, list):
        return value
    found = f"the keys {', '.join(map(str, plain))[:80]}" if key not in plain else f"a {type(value).__name__}"
    fix = "Export the annotations again, as COCO."
    raise MaskError(path, expected=f"a list of {key}", found=found, do=fix)


def _entries(path: Path, images: Iterable[Any]) -> dict[Hashable, Entry]:
    entries: dict[Hashable, Entry] = {}
    where, fix = f"{path}: images", "Give each image its own id, or export the annotations again."
    for one in images:
        own = key_of(one.get("id")) if isinstance(one, dict) else None
        if own is None or own in entries:
            found = f"id {own!r} twice" if own is not None else repr(one)[:80]
            raise MaskError(where, expected="images with an id, each once", found=found, do=fix)
        name = one.get("file_name") or one.get("coco_url") or ""  # LVIS gives addresses only
        height, width = _pixels(one.get("height")), _pixels(one.get("width"))
        entries[own] = Entry(own, str(name), (height, width) if height is not None and width is not None else None)
    return entries


def _pixels(value: Any) -> int | None:
    """Give a side in pixels; None where nobody says: some tools leave it out, others write 0 for it."""
    whole = isinstance(value, int) or (isinstance(value, float) and value.is_integer())
    return int(value) if whole and value > 0 else None


def _categories(path: Path, plain: Iterable[Any]) -> dict[Hashable, Category]:
    categories: dict[Hashable, Category] = {}
    where, fix = f"{path}: categories", "Give each class its own id and a name, or export the annotations again."
    for one in plain:
        own = key_of(one.get("id")) if isinstance(one, dict) else None
        number = int(own) if isinstance(own, int) or (isinstance(own, float) and own.is_integer()) else None
        if number is None or one.get("name") in (None, ""):
            wanted, found = "categories with a whole number as id, and a name", repr(one)[:80]
            raise LabelsError(where, expected=wanted, found=found, do=fix)
        thing, above = one.get("isthing"), one.get("supercategory")
        new = Category(number, str(one["name"]), str(above or ""), None if thing is None else bool(thing), _colour(one))
        if own in categories and categories[own].name != new.name:
            found = f"id {new.id} for {categories[own].name!r} and {new.name!r}"
            raise LabelsError(where, expected="every id once", found=found, do=fix)
        categories[own] = new
    if not categories:
        raise LabelsError(where, expected="the classes", found="none", do=fix)
    return categories


def _colour(category: dict[str, Any]) -> Colour | None:
    """Read [r, g, b], as COCO has it, or "#rrggbb", as COCO Annotator has it."""
    value = category.get("color")
    if isinstance(value, str) and len(value) == 7 and value[0] == "#":
        try:
            value = list(bytes.fromhex(value[1:]))
        except ValueError:
            return None
    if not isinstance(value, list) or len(value) != 3 or not all(type(v) is int and 0 <= v <= 255 for v in value):
        return None
    return value[0], value[1], value[2]


def gather_classes(documents: Sequence[Document], used: Collection[str]) -> Classes:
    """Make one list of classes of all files: the same name is the same class, with the id that it has first.

    A category that nothing is of, and that others call their `supercategory`, is a heading (Roboflow puts one in front).

    Args:
        documents: the files.
        used: the names of the classes that annotations are of.

    """
    every = [one for document in documents for one in document.categories.values()]
    above = {one.above for one in every if one.above != one.name}
    heads = sorted({one.name for one in every} & above - set(used))
    heads = heads if {one.name for one in every} - set(heads) else []
    notices = [f"{name!r} is a heading over other classes, and no class" for name in heads]
    first: dict[str, Category] = {}
    taken: set[int] = set()
    for document in documents:
        notices += _same_names(document)
        for one in document.categories.values():
            if one.name in first or one.name in heads:
                continue
            own = one.id if one.id not in taken else max(taken) + 1
            if own != one.id:
                notices.append(f"id {one.id} is another class in another file: {one.name!r} gets id {own}")
            first[one.name] = one._replace(id=own)
            taken.add(own)
    notices += _number_anew(first)
    colours = [one.colour for one in first.values() if one.colour is not None]
    things = frozenset(
        name for name, one in first.items() if (name not in BACKGROUNDS if one.thing is None else one.thing)
    )
    shown = tuple(colours) if len(colours) == len(first) else ()
    return Classes(tuple(first), tuple(one.id for one in first.values()), shown, things, tuple(notices))


def _number_anew(classes: dict[str, Category]) -> list[str]:
    """Give other ids to the classes whose own no mask can hold, and tell so: V7 writes checksums of the names."""
    beyond = [one for one in classes.values() if not 0 <= one.id <= _LARGEST_ID]
    if not beyond:
        return []
    free = max((one.id for one in classes.values() if 0 <= one.id <= _LARGEST_ID), default=0) + 1
    for own, one in enumerate(beyond, free):
        classes[one.name] = one._replace(id=own)
    what = f"{len(beyond)} ids of categories are beyond 0–{_LARGEST_ID} and are numbered anew"
    return [f"{what}: {beyond[0].name!r}, {beyond[0].id}, gets id {free}{', …' if len(beyond) > 1 else ''}"]


def _same_names(document: Document) -> list[str]:
    ids: dict[str, list[int]] = defaultdict(list)
    for one in document.categories.values():
        ids[one.name].append(one.id)
    file = document.path.name
    return [f"{file}: categories {own} are one class, {name!r}" for name, own in ids.items() if len(own) > 1]


def match_images(
    documents: Sequence[Document],
    images: ImageIndex,
    place: DatasetRoot,
    other: Callable[[Entry], str | None] | None = None,
) -> tuple[list[Match], list[Problem]]:
    """Find the image on disk of every entry.

    Args:
        documents: the files.
        images: where images are looked for.
        place: for names in messages.
        other: another name to try where there is no image of the first.

    Raises:
        DataError: files of which no image is there, or several for the same images.

    """
    owner: dict[Path, Document] = {}
    matches: list[Match] = []
    problems: list[Problem] = []
    shared: dict[tuple[Path, Path], list[Path]] = defaultdict(list)
    for document in documents:
        found, lost = _find_images(document, images, place, other)
        problems += lost
        for entry, image in found:
            if image not in owner:
                owner[image] = document
                matches.append(Match(document, entry, image))
            elif owner[image] is document:
                problems.append(
                    Problem(f"{short(document.path, place.root)}: {entry.name!r}", "second entry of an image")
                )
            else:
                shared[owner[image].path, document.path].append(image)
    for (one, two), both in shared.items():
        if 2 * len(both) >= min(len(document.entries) for document in documents if document.path in (one, two)):
            raise _same_images(one, two, len(both), place)
        why = f"image in two files, {short(one, place.root)} and {short(two, place.root)}"
        problems += [Problem(short(image, place.root), why) for image in both]
    return matches, problems


def _find_images(
    document: Document, images: ImageIndex, place: DatasetRoot, other: Callable[[Entry], str | None] | None
) -> tuple[list[tuple[Entry, Path]], list[Problem]]:
    """Find the images of one file, and tell those that are missing."""
    found: list[tuple[Entry, Path]] = []
    lost: list[Problem] = []
    reasons: list[str] = []
    for entry in document.entries.values():
        image = images.find(entry.name, document.path)
        if isinstance(image, str) and other is not None and (name := other(entry)):
            image = images.find(name, document.path)
        folder = PurePosixPath(entry.name.replace("\\", "/")).parent.name
        if isinstance(image, Path) and folder in images.folders and folder not in image.parent.parts:
            image = f"no such image in {folder}/"
        if isinstance(image, str):
            where = f"{short(document.path, place.root)}: {entry.name!r}"
            lost.append(Problem(where, f"annotation without its image ({image})"))
            reasons.append(image)
        else:
            found.append((entry, image))
    if lost and not found:
        raise _no_images(document, place, reasons[0])
    return found, lost


def _no_images(document: Document, place: DatasetRoot, why: str) -> DataError:
    many = len(document.entries)
    first = ", ".join(repr(entry.name) for entry in list(document.entries.values())[:_SHOWN])
    return DataError(
        document.path,
        expected=f"images of the names it lists, below {place.root}",
        found=f"none of {many} ({first}{', …' if many > _SHOWN else ''}): {why}",
        do="Put them there, name their folder (data.images), or the annotation files that are meant (data.annotations).",
    )


def _same_images(one: Path, two: Path, many: int, place: DatasetRoot) -> DataError:
    names = short(one, place.root), short(two, place.root)
    return DataError(
        place.root,
        expected="one annotation file for each image",
        found=f"{names[0]} and {names[1]}, which both list the same {many} images",
        do=f"Say which is meant: --set data.annotations={names[0]}.",
    )


def unlisted(files: Iterable[Path], taken: Collection[Path], place: DatasetRoot, what: str) -> tuple[str, ...]:
    """Tell how many files on disk no annotation speaks of; nothing where there are none."""
    every = list(files)
    rest = [path for path in every if path not in taken]
    if not rest:
        return ()
    first = f"{short(rest[0], place.root)}{', …' if len(rest) > 1 else ''}"
    return (f"{len(rest)} of {len(every)} {what} are in no annotation file and are left out ({first})",)


def add_image(
    exported: ExportImage, out: Path, splits: dict[str, dict[str, list[Any]]]
) -> tuple[Path, dict[str, list[Any]], int]:
    """Copy an image into the folder of its part, and note it among the images of that part's document.

    Returns:
        Where the copy is, the part's document, and the image's id in it.

    """
    name = f"{exported.id}{exported.image.suffix.lower()}"
    target = out / exported.split / name
    copy_image(exported, target)
    split = splits.setdefault(exported.split, {"images": [], "annotations": []})
    height, width = exported.size
    image_id = len(split["images"]) + 1
    split["images"].append({"id": image_id, "file_name": name, "height": height, "width": width})
    return target, split, image_id
