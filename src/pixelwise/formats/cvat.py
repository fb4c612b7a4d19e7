"""CVAT for images 1.1: one XML file with the shapes of many images, as CVAT exports a task, job or project.

A higher `z_order` is on top; within one, the later shape. Tags, points and polylines cover no pixels and are only counted.
Tracks of videos, cuboids and skeletons are errors. The file is parsed as a stream, without DTD and entities.

Source: docs.cvat.ai, "XML annotation format", and CVAT's exporter: a mask is a box with run lengths, row by row, starting
with zeros; rotation is in degrees, clockwise around the centre.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from xml.parsers import expat
from xml.sax.saxutils import escape, quoteattr

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from pixelwise.errors import DataError, MaskError
from pixelwise.formats import annotated_images, shapes
from pixelwise.formats.annotated_images import AnnotatedImage, ImageMatcher, NamedRegion
from pixelwise.formats.base import IGNORED, ExportImage, Format, ReadResult, copy_image, drawn_labels
from pixelwise.formats.dataset_root import DatasetRoot, split_of_file, split_of_folder
from pixelwise.formats.records import short
from pixelwise.formats.shapes import MAX_PIXELS, Polygon, Region, RowRLE, finite_points, row_runs
from pixelwise.geometry.contours import components
from pixelwise.imageio.safe_reading import decode, describe_unreadable
from pixelwise.labels import Colour, Labels, default_colours
from pixelwise.storage import write_atomic

_MAX_PROBED_FILES = 3
_PROBE_SIZE = 1 << 16
_CHUNK_SIZE = 1 << 20
_MAX_DEPTH = 64
_MAX_COORDINATE = 1e7
_WITHOUT_AREA = ("tag", "points", "polyline")
_LABELS_WITHOUT_AREA = (*_WITHOUT_AREA, "skeleton", "cuboid")
_EXPORT_AGAIN = "Export the annotations again."
_EXPORT_IMAGES = 'Export the annotations as "CVAT for images 1.1", and unpack the archive.'
_INVALID_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")  # not even as a reference


class _StopParsing(Exception):  # noqa: N818 - not an error
    """The rest of the file is not needed."""


@dataclass
class _Image:
    """An image element: its content, or the first error in it."""

    name: str
    subset: str
    size: tuple[int, int]
    shapes: list[NamedRegion] = field(default_factory=list)
    error: MaskError | None = None


def detect(dataset: DatasetRoot) -> str | None:
    """Recognise XML files with the root `annotations` and CVAT's elements in it."""
    paths = dataset.annotations(".xml")[:_MAX_PROBED_FILES]
    found = next((path for path in paths if _Parser(path).probe()), None)
    return None if found is None else f"{short(found, dataset.root)} has <annotations> of CVAT"


def read(dataset: DatasetRoot) -> ReadResult:
    """Read every XML file of CVAT, and find its images.

    Raises:
        MaskError: a malformed file or shape; with `data.skip_bad` the image of a shape becomes a problem.
        DataError: no file of CVAT, or no classes.
    """
    files = [parser for path in dataset.annotations(".xml") if (parser := _Parser(path)).parse()]
    dataset.use(*(file.path for file in files))
    if not files:
        raise DataError(dataset.root, expected="an annotations.xml of CVAT", found="none", do=_EXPORT_IMAGES)
    matcher = ImageMatcher(dataset)
    known = frozenset(dataset.images.paths)
    images = []
    for file, element in [(parser, element) for parser in files for element in parser.images]:
        name = short(file.path, dataset.root)
        where = f"{name}: {element.name}"
        found = _find_image(dataset, known, file, element)
        candidates = dataset.images.candidates(element.name, file.path) if isinstance(found, str) else []
        path = matcher.claim(found, where, name, candidates=candidates)
        if path is None:
            continue
        if element.error is not None:
            matcher.skip(element.error)
        else:
            split = _split(dataset.root, file, element, path)
            images.append(AnnotatedImage(path, file.path, split, element.size, element.shapes))
    images = matcher.kept(images)
    labels, notices = _labels(dataset, files, annotated_images.class_names(images))
    notices += annotated_images.shape_notices(images, labels[1], (file.without_area for file in files))
    return annotated_images.found_images(dataset, "CVAT XML", images, labels, matcher.finish(), notices)


def _find_image(dataset: DatasetRoot, known: frozenset[Path], file: _Parser, image: _Image) -> Path | str:
    """Find an image where CVAT exports it (for projects, in a folder for each subset), else by its name."""
    name = image.name.replace("\\", "/")
    folders = ["images", f"images/{image.subset}"] if image.subset else ["images"]
    for folder in (*(reversed(folders) if file.is_project else folders), "."):
        path = file.path.parent / folder / name
        if path in known:
            return path
    return dataset.images.find(f"{image.subset}/{name}" if image.subset else name, file.path)


def _split(root: Path, file: _Parser, image: _Image, path: Path) -> str | None:
    """Return the split by subset, folders on disk, folders in the name, or the name of the XML file."""
    for candidate in (root / image.subset / "x", path, root / image.name.replace("\\", "/")):
        if split := split_of_folder(candidate, root):
            return split
    return split_of_file(file.path, root)


def _labels(
    dataset: DatasetRoot, files: Sequence[_Parser], used: set[str]
) -> tuple[tuple[Labels, str | None], list[str]]:
    """Make the labels from those of the files, in their order, and other classes of shapes; with notices."""
    declared: dict[str, tuple[Colour | None, bool]] = {}
    for file in files:
        for name, (colour, has_area) in file.labels.items():
            previous = declared.get(name, (None, False))
            declared[name] = (previous[0] or colour, previous[1] or has_area)
    names = [name for name, (_, has_area) in declared.items() if has_area or name in used]
    names += sorted(used - set(declared))
    defaults = default_colours(len(names) + 1)[1:]
    colours = [declared.get(name, (None,))[0] or default for name, default in zip(names, defaults, strict=True)]
    dropped = [name for name in declared if name not in names]
    notice = (
        f"not used as classes, because they are for tags, points, lines, cuboids or skeletons: {', '.join(dropped)}"
    )
    return drawn_labels(dataset, names, colours=colours), [notice] if dropped else []


class _Parser:
    """A streaming parser of one file that keeps only images, shapes and labels."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.images: list[_Image] = []
        self.labels: dict[str, tuple[Colour | None, bool]] = {}  # colour, and whether it is used for areas
        self.without_area: Counter[str] = Counter()
        self.is_project = False
        self._is_cvat = False
        self._subset = ""
        self._stack: list[str] = []
        self._text: list[str] = []
        self._label: dict[str, str] = {}
        self._expat = expat.ParserCreate()
        self._expat.buffer_text = True
        self._expat.StartElementHandler = self._start
        self._expat.EndElementHandler = self._end
        self._expat.StartDoctypeDeclHandler = self._doctype

    def parse(self) -> bool:
        """Read the file; False if it is not CVAT's.

        Raises:
            MaskError: not an XML file, or unsupported content.
        """
        where = str(self.path)
        try:
            with self.path.open("rb") as file:
                while chunk := file.read(_CHUNK_SIZE):
                    self._expat.Parse(chunk, False)
            self._expat.Parse(b"", True)
        except _StopParsing:
            return False
        except expat.ExpatError as error:
            where = f"{self.path}:{error.lineno}"
            found = _foreign_encoding(self.path) or expat.ErrorString(error.code) or "broken XML"
        except (OSError, ValueError, LookupError) as error:
            found = " ".join(str(getattr(error, "strerror", None) or error).split())[:160]
        else:
            return True
        raise MaskError(where, expected="an XML file", found=found, do=_EXPORT_AGAIN)

    def probe(self) -> bool:
        """Return whether the file begins like CVAT's, even if `parse` will refuse it."""
        try:
            with self.path.open("rb") as file:
                self._expat.Parse(file.read(_PROBE_SIZE), False)
        except MaskError:
            return True
        except (_StopParsing, expat.ExpatError, ValueError, LookupError, OSError):
            pass
        return self._is_cvat

    def _error(self, expected: str, found: str, do: str = _EXPORT_AGAIN) -> MaskError:
        return MaskError(f"{self.path}:{self._expat.CurrentLineNumber}", expected=expected, found=found, do=do)

    def _doctype(self, name: str, *_: Any) -> None:
        if name != "annotations":
            raise _StopParsing
        raise self._error("XML without a DTD", "<!DOCTYPE>, which can define entities")

    def _start(self, name: str, attributes: dict[str, str]) -> None:
        self._stack.append(name)
        depth = len(self._stack)
        if depth == 1 and name != "annotations":
            raise _StopParsing
        if depth > _MAX_DEPTH:
            raise self._error(f"at most {_MAX_DEPTH} nested elements", "more")
        if depth == 2:
            self._is_cvat |= name in ("version", "meta", "image")
            if name == "track":
                raise self._error("shapes in images", "a <track> of a video", _EXPORT_IMAGES)
            if name == "image":
                self.images.append(self._image(attributes))
            if name in _REGIONS:
                raise self._error("shapes in images", f"a <{name}> outside of any <image>")
        elif depth == 3 and self._stack[1] == "image":
            self._add_shape(self.images[-1], name, attributes)
        if self._stack[1:2] == ["meta"]:
            self.is_project |= depth == 3 and name == "project"
            if self._stack[-2:] == ["labels", "label"]:
                self._label = {}
            self._text.clear()
            self._expat.CharacterDataHandler = self._text.append

    def _end(self, name: str) -> None:
        text = "".join(self._text)
        if self._stack[1:2] == ["meta"]:
            if self._stack[-3:-1] == ["labels", "label"]:
                self._label[name] = text
            elif self._stack[-2:] == ["labels", "label"]:
                self._add_label(self._label)
            elif name == "subset" and len(self._stack) == 4:
                self._subset = text
        self._expat.CharacterDataHandler = None
        self._text.clear()
        self._stack.pop()

    def _add_label(self, label: dict[str, str]) -> None:
        if label.get("name") and not label.get("parent"):  # with a parent, it is a point of a skeleton
            colour = label.get("color", "")
            rgb = bytes.fromhex(colour[1:]) if re.fullmatch("#[0-9a-fA-F]{6}", colour) else None
            has_area = label.get("type") not in _LABELS_WITHOUT_AREA
            self.labels.setdefault(label["name"], ((rgb[0], rgb[1], rgb[2]) if rgb else None, has_area))

    def _image(self, attributes: Mapping[str, str]) -> _Image:
        try:
            name, width, height = attributes["name"], int(attributes["width"]), int(attributes["height"])
            if width < 1 or height < 1 or width * height > MAX_PIXELS:
                raise ValueError(f"{width}×{height} pixels")
        except (KeyError, ValueError) as error:
            expected = f"an image with name, width and height, of at most {MAX_PIXELS:,} pixels"
            raise self._error(expected, annotated_images.describe(error)) from error
        return _Image(name, attributes.get("subset") or self._subset, (height, width))

    def _add_shape(self, image: _Image, kind: str, attributes: Mapping[str, str]) -> None:
        """Add a shape. Errors are kept in the image: whether they are raised depends on the configuration."""
        if kind in _WITHOUT_AREA:
            self.without_area[kind] += 1
        elif kind not in _REGIONS:
            found = f"a {kind} in {image.name}"
            error = self._error("polygon, box, ellipse or mask", found, "Draw it as one of these in CVAT.")
            image.error = image.error or error
        else:
            try:
                region = _REGIONS[kind](attributes, image.size)
                image.shapes.append((attributes["label"], region, int(attributes.get("z_order", 0))))
            except (KeyError, ValueError, OverflowError) as problem:
                found = f"a {kind} in {image.name} with {annotated_images.describe(problem)}"
                image.error = image.error or self._error("shapes as CVAT writes them", found)


def _foreign_encoding(path: Path) -> str:
    """Describe the encoding of a file that is not Unicode, which expat calls an invalid token; "" for others."""
    try:
        encoding = decode(path.read_bytes())[1]
    except UnicodeError as error:
        return describe_unreadable(error)
    return f"text in {encoding}, which its first line does not declare; save it as UTF-8" if encoding else ""


def _polygon(attributes: Mapping[str, str], size: tuple[int, int]) -> Region:
    pairs = [pair.split(",") for pair in attributes["points"].split(";")]
    if len(pairs) < 3 or any(len(pair) != 2 for pair in pairs):
        raise ValueError("points that are not three or more of x,y")
    return Polygon((finite_points(pairs, _MAX_COORDINATE),))


def _box(attributes: Mapping[str, str], size: tuple[int, int]) -> Region:
    corners = finite_points([attributes[key] for key in ("xtl", "ytl", "xbr", "ybr")], _MAX_COORDINATE)
    (left, top), (right, bottom) = corners.tolist()
    return _rotated(shapes.rectangle(left, top, right, bottom), (left + right) / 2, (top + bottom) / 2, attributes)


def _ellipse(attributes: Mapping[str, str], size: tuple[int, int]) -> Region:
    (x, y), radii = finite_points([attributes[key] for key in ("cx", "cy", "rx", "ry")], _MAX_COORDINATE).tolist()
    return _rotated(shapes.ellipse((x, y), radii), x, y, attributes)


def _rotated(ring: NDArray[np.float64], x: float, y: float, attributes: Mapping[str, str]) -> Region:
    return Polygon((shapes.rotate(ring, (x, y), float(attributes.get("rotation", "0"))),))


def _mask(attributes: Mapping[str, str], size: tuple[int, int]) -> Region:
    left, top, width, height = (int(attributes[key]) for key in ("left", "top", "width", "height"))
    # The noted size can be that before EXIF rotation; the mask is checked again when it is drawn.
    fits = any(left + width <= right and top + height <= bottom for bottom, right in (size, size[::-1]))
    if min(left, top) < 0 or min(width, height) < 1 or not fits:
        raise ValueError(f"{width}×{height} pixels at {left}, {top}, which is outside the image")
    region = RowRLE.from_runs(top, left, (height, width), [int(run) for run in attributes["rle"].split(",")])
    return replace(region, clip=False)


_REGIONS = {"polygon": _polygon, "box": _box, "ellipse": _ellipse, "mask": _mask}


class _Writer:
    """Write annotations.xml for a task whose images are those in images/, with a folder for each split.

    Image elements have no `subset`, since tasks have none and Datumaro drops images that have one.
    """

    def __init__(self, out: Path, labels: Labels) -> None:
        self.out = out
        self.labels = labels
        self.unlabelled, self.background = annotated_images.background(labels)
        self.images: dict[str, str] = {}
        self.has_ignored = False

    def add(self, image: ExportImage) -> Path:
        """Copy the image, and write a mask for every region."""
        stem = f"{image.split}/{_INVALID_XML.sub('_', image.id)}"
        suffix = image.image.suffix.lower()
        while (name := f"{stem}{suffix}") in self.images:
            stem += "_"
        copy_image(image, self.out / "images" / name)
        height, width = image.size
        head = f'  <image id="{len(self.images)}" name={quoteattr(name)} width="{width}" height="{height}">\n'
        self.images[name] = "".join((head, *self._masks(image.mask), "  </image>\n"))
        return self.out / "images" / name

    def _masks(self, mask: NDArray[Any]) -> Iterable[str]:
        """Write every region except background as a box with run lengths."""
        names = annotated_images.value_names(self.labels)
        regions, _ = components(mask)
        for number, (rows, columns) in enumerate(ndimage.find_objects(regions + 1)):
            box = regions[rows, columns] == number
            value = int(mask[rows, columns][box][0])
            if value == self.background:
                continue
            self.has_ignored |= value == self.labels.ignore_index
            yield (
                f'    <mask label={quoteattr(names[value])} source="manual" occluded="0"'
                f' rle="{", ".join(map(str, row_runs(box)))}" left="{columns.start}" top="{rows.start}"'
                f' width="{box.shape[1]}" height="{box.shape[0]}" z_order="0">\n    </mask>\n'
            )

    def close(self) -> dict[str, Any]:
        """Write the file: the metadata of a task, the labels, and all images."""
        colours = dict(zip(self.labels.names, self.labels.colours, strict=True))
        if self.has_ignored:
            colours.setdefault(IGNORED, (0, 0, 0))
        label = "        <label>\n          <name>{}</name>\n          <color>#{:02x}{:02x}{:02x}</color>\n"
        label += "          <type>any</type>\n          <attributes>\n          </attributes>\n        </label>\n"
        labels = "".join(label.format(escape(name), *colour) for name, colour in colours.items())
        head = '<?xml version="1.0" encoding="utf-8"?>\n<annotations>\n  <version>1.1</version>\n  <meta>\n    <task>\n'
        head += f"      <name>pixelwise</name>\n      <size>{len(self.images)}</size>\n      <mode>annotation</mode>\n"
        head += f"      <labels>\n{labels}      </labels>\n    </task>\n  </meta>\n"
        write_atomic(self.out / "annotations.xml", "".join((head, *self.images.values(), "</annotations>\n")))
        return {"format": "cvat", "unlabelled": self.unlabelled}


FORMAT = Format("cvat", "CVAT XML 1.1", detect, read, _Writer)
