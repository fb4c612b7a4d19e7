"""CVAT for images 1.1: one XML file with the shapes of many images, as CVAT exports a task, a job or a project.

Comes in: a place. Goes out: a drawing per image. Polygons, boxes, ellipses and masks are areas; a higher `z_order` lies on
top, and within one the later shape. Tags, points and polylines cover no pixels: they are counted and told, not painted.
Tracks of videos, cuboids and skeletons are refused, by what to do instead. The file is read as a stream, without DTD or
entities. Parts come from `subset`, else the folders of the image, else the name of the XML file. An image element without
shapes is an image that holds nothing; how many there are is told. Knows nothing of archives: an export is unpacked first.

Source: docs.cvat.ai, "XML annotation format", and what CVAT's exporter writes: a mask is a box and run lengths within it, row
by row, zeros first; rotation is in degrees, clockwise around the middle.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from xml.parsers import expat
from xml.sax.saxutils import escape, quoteattr

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from pixelwise.errors import DataError, MaskError
from pixelwise.formats.base import (
    IGNORED,
    ExportImage,
    Format,
    ReadResult,
    copy_image,
    drawn_labels,
    painted,
    shape_name,
)
from pixelwise.formats.dataset_root import DatasetRoot, make_layout, split_of_file, split_of_folder
from pixelwise.formats.records import Problem, Record, short
from pixelwise.formats.shapes import Drawing, Lengths, Polygon, Region, Shape, oval, turned
from pixelwise.geometry.contours import components
from pixelwise.labels import Colour, Labels, default_colours
from pixelwise.storage import write_atomic

_LOOKED_INTO, _LOOKED_AT, _CHUNK, _DEEPEST = 3, 1 << 16, 1 << 20, 64
_MOST_PIXELS, _FARTHEST = 400_000_000, 1e7
_WITHOUT_AREA = ("tag", "points", "polyline")
_LABELS_WITHOUT_AREA = (*_WITHOUT_AREA, "skeleton", "cuboid")
_AGAIN, _AS_IMAGES = "Export the annotations again.", 'Export as "CVAT for images 1.1", and unpack that.'
# What XML 1.0 cannot hold in any spelling.
_NO_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


class _Stop(Exception):  # noqa: N818 - no fault: enough is known
    """End the reading of a file."""


@dataclass
class _Image:
    """Hold one image element: what it says, or the first thing in it that cannot be understood."""

    name: str
    subset: str
    size: tuple[int, int]
    shapes: list[tuple[str, Region, int]] = field(default_factory=list)
    error: MaskError | None = None


def detect(place: DatasetRoot) -> str | None:
    """Recognise XML files whose root is `annotations`, with what CVAT puts into it."""
    ours = (path for path in place.annotations(".xml")[:_LOOKED_INTO] if _Parser(path).glance())
    return next((f"{short(path, place.root)} holds <annotations> of CVAT" for path in ours), None)


def read(place: DatasetRoot) -> ReadResult:
    """Read every XML file of CVAT, and find its images.

    Raises:
        MaskError: a file or shape that cannot be understood; with `data.skip_bad` the image of a shape is left out.
        DataError: no file of CVAT, or no class anywhere.

    """
    files = [parser for path in place.annotations(".xml") if (parser := _Parser(path)).parse()]
    if not files:
        raise DataError(place.root, expected="an annotations.xml of CVAT", found="none", do=_AS_IMAGES)
    taken, problems = _paired(place, files)
    labels, unlabelled, told = _labels(place, files, [image for *_, image in taken])
    records: dict[str, list[Record]] = defaultdict(list)
    for path, file, image in taken:
        shapes = tuple(Shape(shape_name(place, name), region, level) for name, region, level in image.shapes)
        drawing = Drawing(file.path, shapes, image.size, unlabelled, place.config.overlap or "file")
        id_ = place.images.id_of(path)
        records[_part(place, file, image, path)].append(Record(id_, path, file.path, source=drawing))
    return ReadResult(
        make_layout("CVAT XML", records, problems, (*told, *_notices(files, [one[2] for one in taken]))), labels
    )


def _paired(place: DatasetRoot, files: Sequence[_Parser]) -> tuple[list[tuple[Path, _Parser, _Image]], list[Problem]]:
    """Find the image of every image element, and tell what found no partner or cannot be read."""
    known, owner = frozenset(place.images.paths), dict[Path, str]()
    taken, problems = [], []
    for file, image in ((one, image) for one in files for image in one.images):
        path, name = _image(place, known, file, image), short(file.path, place.root)
        where, error = f"{name}: {image.name}", image.error
        if isinstance(path, str):
            problems.append(Problem(where, f"annotation without its image ({path})"))
        elif path in owner:
            problems.append(Problem(where, f"second annotation of {path.name} (also {owner[path]})"))
        elif error is not None and not place.config.skip_bad:
            raise error
        else:
            owner[path] = name
            if error is None:
                taken.append((path, file, image))
            else:
                problems.append(Problem(error.where, f"expected {error.expected}, found {error.found}"))
    lost = [path for path in place.images.paths if path not in owner]
    return taken, problems + [Problem(short(path, place.root), "image without a mask") for path in lost]


def _image(place: DatasetRoot, known: frozenset[Path], file: _Parser, image: _Image) -> Path | str:
    """Find an image where CVAT's export lays it (a project's in a folder for each subset), else by its name."""
    name = image.name.replace("\\", "/")
    bases = ["images", f"images/{image.subset}"] if image.subset else ["images"]
    for base in (*(reversed(bases) if file.project else bases), "."):
        exact = file.path.parent / base / name
        if exact in known:
            return exact
    return place.images.find(f"{image.subset}/{name}" if image.subset else name, file.path)


def _part(place: DatasetRoot, file: _Parser, image: _Image, path: Path) -> str:
    """Tell the part: by the subset, the folders of the image on disk, those of its name, or the file's name."""
    root = place.root
    ways = (root / image.subset / "x", path, root / image.name.replace("\\", "/"))
    return next(filter(None, (split_of_folder(way, root) for way in ways)), split_of_file(file.path, root)) or "pool"


def _labels(
    place: DatasetRoot, files: Sequence[_Parser], images: Sequence[_Image]
) -> tuple[Labels, str | None, list[str]]:
    """Make the classes: those that the files name, in their order, and those that shapes have besides."""
    used = {name for image in images for name, *_ in image.shapes}
    named: dict[str, tuple[Colour | None, bool]] = {}
    for file in files:
        for name, (colour, area) in file.labels.items():
            before = named.get(name, (None, False))
            named[name] = (before[0] or colour, before[1] or area)
    names = [name for name, (_, area) in named.items() if area or name in used]
    names += sorted(used - set(named))
    drawn = dict(zip(names, default_colours(len(names) + 1)[1:], strict=True))
    colours = [named.get(name, (None, True))[0] or drawn[name] for name in names]
    labels, unlabelled = drawn_labels(place, names, colours=colours)
    flat = [name for name in named if name not in names]
    told = f"no classes, because they are for tags, points, lines, cuboids or skeletons: {', '.join(flat)}"
    return labels, unlabelled, [told] if flat else []


def _notices(files: Iterable[_Parser], images: Sequence[_Image]) -> Iterable[str]:
    """Tell what is not painted, and what is painted over with nothing."""
    count: Counter[str] = sum((file.without_area for file in files), Counter())
    if count:
        kinds = ", ".join(f"{many} {kind}" for kind, many in sorted(count.items()))
        yield f"cover no pixels and are not painted: {kinds}"
    empty = sum(not image.shapes for image in images)
    if empty:
        yield f"{empty} of {len(images)} images are in the annotations without a shape, and count as empty"


class _Parser:
    """Follow the elements of one file as they come, and keep shapes and labels only."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.images: list[_Image] = []
        self.labels: dict[str, tuple[Colour | None, bool]] = {}  # colour, and whether it is for areas
        self.without_area: Counter[str] = Counter()
        self.project = False
        self._subset = ""
        self._ours = False
        self._open: list[str] = []
        self._text: list[str] = []
        self._label: dict[str, str] = {}
        self._expat = expat.ParserCreate()
        self._expat.buffer_text = True
        self._expat.StartElementHandler = self._start
        self._expat.EndElementHandler = self._end
        self._expat.StartDoctypeDeclHandler = self._doctype

    def parse(self) -> bool:
        """Read the file; False where it is another tool's.

        Raises:
            MaskError: no XML, or nothing that can be used.

        """
        where: object = self.path
        try:
            with self.path.open("rb") as file:
                while chunk := file.read(_CHUNK):
                    self._expat.Parse(chunk, False)
            self._expat.Parse(b"", True)
        except _Stop:
            return False
        except expat.ExpatError as error:
            where, found = f"{self.path}:{error.lineno}", expat.ErrorString(error.code) or "broken XML"
        except (OSError, ValueError, LookupError) as error:
            found = " ".join(str(getattr(error, "strerror", None) or error).split())[:160]
        else:
            return True
        raise MaskError(where, expected="an XML file", found=found, do=_AGAIN)

    def glance(self) -> bool:
        """Tell from its beginning whether the file is CVAT's, be it one that will be refused."""
        try:
            with self.path.open("rb") as file:
                self._expat.Parse(file.read(_LOOKED_AT), False)
        except MaskError:
            return True
        except (_Stop, expat.ExpatError, ValueError, LookupError, OSError):
            pass
        return self._ours

    def _refuse(self, expected: str, found: str, do: str) -> MaskError:
        return MaskError(f"{self.path}:{self._expat.CurrentLineNumber}", expected=expected, found=found, do=do)

    def _doctype(self, name: str, *_: Any) -> None:
        if name != "annotations":
            raise _Stop
        raise self._refuse("XML without a DTD", "<!DOCTYPE>, which could hold entities", _AGAIN)

    def _start(self, name: str, attributes: dict[str, str]) -> None:
        self._open.append(name)
        depth = len(self._open)
        if depth == 1 and name != "annotations":
            raise _Stop
        if depth > _DEEPEST:
            raise self._refuse(f"at most {_DEEPEST} elements in each other", "more", _AGAIN)
        self._ours |= depth == 2 and name in ("version", "meta", "image")
        if depth == 2 and name == "track":
            raise self._refuse("shapes in images", "a <track> of a video", _AS_IMAGES)
        if depth == 2 and name == "image":
            self._begin_image(attributes)
        elif depth == 3 and self._open[1] == "image":
            self._add(self.images[-1], name, attributes)
        elif self._open[1:2] == ["meta"]:
            self.project |= depth == 3 and name == "project"
            if name == "label" and self._open[-2] == "labels":
                self._label = {}
            self._text.clear()
            self._expat.CharacterDataHandler = self._text.append

    def _end(self, name: str) -> None:
        inside = self._open[1:2] == ["meta"]
        if inside and self._open[-3:-1] == ["labels", "label"]:
            self._label[name] = "".join(self._text)
        elif inside and self._open[-2:] == ["labels", "label"] and self._label.get("name"):
            area = self._label.get("type") not in _LABELS_WITHOUT_AREA
            if not self._label.get("parent"):  # else a part of a skeleton
                self.labels.setdefault(self._label["name"], (_colour(self._label.get("color", "")), area))
        elif inside and name == "subset" and len(self._open) == 4:
            self._subset = "".join(self._text)
        self._expat.CharacterDataHandler = None
        self._text.clear()
        self._open.pop()

    def _begin_image(self, attributes: Mapping[str, str]) -> None:
        try:
            name, width, height = attributes["name"], int(attributes["width"]), int(attributes["height"])
            if width < 1 or height < 1 or width * height > _MOST_PIXELS:
                raise ValueError(f"{width}×{height} pixels")
        except (KeyError, ValueError) as error:
            found = f"no {error}" if isinstance(error, KeyError) else str(error)[:120]
            expected = f"an image with name, width and height, of at most {_MOST_PIXELS:,} pixels"
            raise self._refuse(expected, found, _AGAIN) from error
        self.images.append(_Image(name, attributes.get("subset") or self._subset, (height, width)))

    def _add(self, image: _Image, kind: str, attributes: Mapping[str, str]) -> None:
        """Add a shape; what cannot be understood is kept as the error of the image, for the reader to decide."""
        if kind in _WITHOUT_AREA:
            self.without_area[kind] += 1
            return
        problem = ("polygon, box, ellipse or mask", f"a {kind} in {image.name}", "Draw it as one of these in CVAT.")
        if kind in _REGIONS:
            try:
                region = _REGIONS[kind](attributes, image.size)
                image.shapes.append((attributes["label"], region, int(attributes.get("z_order", 0))))
                return
            except (KeyError, ValueError, OverflowError) as error:
                why = f"no {error}" if isinstance(error, KeyError) else " ".join(str(error).split())[:120]
                problem = ("shapes as CVAT writes them", f"a {kind} in {image.name} with {why}", _AGAIN)
        image.error = image.error or self._refuse(*problem)


def _colour(text: str) -> Colour | None:
    if not re.fullmatch("#[0-9a-fA-F]{6}", text):
        return None
    return int(text[1:3], 16), int(text[3:5], 16), int(text[5:7], 16)


def _numbers(values: Iterable[str]) -> NDArray[np.float64]:
    numbers = np.array([float(value) for value in values])
    if not (np.abs(numbers) <= _FARTHEST).all():  # nor NaN
        raise ValueError("numbers that are no places in an image")
    return numbers


def _polygon(attributes: Mapping[str, str], size: tuple[int, int]) -> Region:
    pairs = [pair.split(",") for pair in attributes["points"].split(";")]
    if len(pairs) < 3 or any(len(pair) != 2 for pair in pairs):
        raise ValueError("points that are not three or more of x,y")
    return Polygon((_numbers(value for pair in pairs for value in pair).reshape(-1, 2),))


def _box(attributes: Mapping[str, str], size: tuple[int, int]) -> Region:
    left, top, right, bottom = _numbers(attributes[key] for key in ("xtl", "ytl", "xbr", "ybr")).tolist()
    if right < left or bottom < top:
        raise ValueError("a size below zero")
    ring = np.array([(left, top), (right, top), (right, bottom), (left, bottom)])
    return _turned(ring, (left + right) / 2, (top + bottom) / 2, attributes)


def _ellipse(attributes: Mapping[str, str], size: tuple[int, int]) -> Region:
    x, y, across, down = _numbers(attributes[key] for key in ("cx", "cy", "rx", "ry")).tolist()
    if across < 0 or down < 0:
        raise ValueError("a size below zero")
    return _turned(oval((x, y), (across, down)), x, y, attributes)


def _turned(ring: NDArray[np.float64], x: float, y: float, attributes: Mapping[str, str]) -> Region:
    (degrees,) = _numbers([attributes.get("rotation", "0")])
    return Polygon((turned(ring, (x, y), degrees),))


def _mask(attributes: Mapping[str, str], size: tuple[int, int]) -> Region:
    left, top, width, height = (int(attributes[key]) for key in ("left", "top", "width", "height"))
    if min(left, top) < 0 or min(width, height) < 1 or left + width > size[1] or top + height > size[0]:
        raise ValueError(f"{width}×{height} pixels from {left}, {top} on, which is not within the image")
    return Lengths.of(top, left, (height, width), [int(run) for run in attributes["rle"].split(",")])


_REGIONS = {"polygon": _polygon, "box": _box, "ellipse": _ellipse, "mask": _mask}


class _Writer:
    """Write annotations.xml for a task of CVAT that is made of images/, with a folder for each part and so in the names.

    In a task images have no `subset`; Datumaro drops those that have one.
    """

    def __init__(self, out: Path, labels: Labels) -> None:
        self.out, self.labels = out, labels
        self.unlabelled = painted(np.zeros((0, 0), np.uint8), labels)[1]
        self.images: dict[str, str] = {}
        self.ignored = False

    def add(self, image: ExportImage) -> Path:
        """Write a mask for every region."""
        stem, suffix = f"{image.split}/{_NO_XML.sub('_', image.id)}", image.image.suffix.lower()
        while (name := f"{stem}{suffix}") in self.images:
            stem += "_"
        copy_image(image, self.out / "images" / name)
        (height, width), number = image.size, len(self.images)
        head = f'  <image id="{number}" name={quoteattr(name)} width="{width}" height="{height}">\n'
        self.images[name] = "".join((head, *self._masks(image.mask), "  </image>\n"))
        return self.out / "images" / name

    def _masks(self, mask: NDArray[Any]) -> Iterable[str]:
        """Write what is not the ground, region by region, as a box and run lengths within it."""
        names = dict(enumerate(self.labels.names)) | {self.labels.ignore_index: IGNORED}
        ground = self.labels.ignore_index if self.unlabelled == "ignore" else self.labels.names.index(self.unlabelled)
        regions, _ = components(mask)
        for number, (rows, columns) in enumerate(ndimage.find_objects(regions + 1)):
            box = regions[rows, columns] == number
            index = int(mask[rows, columns][box][0])
            if index == ground:
                continue
            self.ignored |= index == self.labels.ignore_index
            runs = np.diff(np.flatnonzero(np.diff(box.reshape(-1), prepend=False, append=~box[-1, -1])), prepend=0)
            yield (
                f'    <mask label={quoteattr(names[index])} source="manual" occluded="0"'
                f' rle="{", ".join(map(str, runs))}" left="{columns.start}" top="{rows.start}"'
                f' width="{box.shape[1]}" height="{box.shape[0]}" z_order="0">\n    </mask>\n'
            )

    def close(self) -> dict[str, Any]:
        """Write the file: what a task of CVAT says of itself, the labels, and all images."""
        named = dict(zip(self.labels.names, self.labels.colours, strict=True))
        if self.ignored:
            named.setdefault(IGNORED, (0, 0, 0))
        label = "        <label>\n          <name>{}</name>\n          <color>#{:02x}{:02x}{:02x}</color>\n"
        label += "          <type>any</type>\n          <attributes>\n          </attributes>\n        </label>\n"
        labels = "".join(label.format(escape(name), *colour) for name, colour in named.items())
        head = '<?xml version="1.0" encoding="utf-8"?>\n<annotations>\n  <version>1.1</version>\n  <meta>\n    <task>\n'
        head += f"      <name>pixelwise</name>\n      <size>{len(self.images)}</size>\n      <mode>annotation</mode>\n"
        head += f"      <labels>\n{labels}      </labels>\n    </task>\n  </meta>\n"
        write_atomic(self.out / "annotations.xml", "".join((head, *self.images.values(), "</annotations>\n")))
        return {"format": "cvat", "unlabelled": self.unlabelled}


FORMAT = Format("cvat", "CVAT XML 1.1", detect, read, _Writer)
