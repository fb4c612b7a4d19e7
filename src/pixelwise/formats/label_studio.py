"""Label Studio: a JSON export with one task per image, in full ("JSON") or flat ("JSON-MIN").

Polygons, brush masks, rectangles and ellipses are in per cent of the image; the later region is on top. Other results are
only counted; predictions are not read. Of several annotations of a task, ground truth is preferred, then the newest that is
not cancelled. Images are given by URLs, which are never opened: their ends are looked up among the files of the data set.

Source: labelstud.io/guide/export and /tags. Rectangles rotate around their upper left corner (label-studio issue 5274),
ellipses around their centre.
"""

from __future__ import annotations

import json
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote
from xml.sax.saxutils import quoteattr

import numpy as np
from numpy.typing import NDArray

from pixelwise.errors import DataError, MaskError
from pixelwise.formats import annotated_images
from pixelwise.formats.annotated_images import AnnotatedImage, ImageMatcher, NamedRegion
from pixelwise.formats.base import IGNORED, ExportImage, Format, ReadResult, drawn_labels, load_json, mentions
from pixelwise.formats.dataset_root import DatasetRoot, split_of_file, split_of_folder
from pixelwise.formats.label_studio_brush import decode_brush, encode_brush
from pixelwise.formats.records import short
from pixelwise.formats.shapes import MAX_PIXELS, Polygon, Region, RowRLE, ellipse, finite_points, rectangle, rotate
from pixelwise.imageio.images import IMAGE_SUFFIXES
from pixelwise.labels import Labels
from pixelwise.storage import write_atomic

_INTERFACE = "interface.xml"  # of a labelling project; it holds no annotations
_MAX_PARSED_FILES = 3
_MAX_PROBED = 50  # files, and tasks of a file
_MAX_COORDINATE = 1e5  # per cent
_AREAS = ("polygonlabels", "brushlabels", "rectanglelabels", "ellipselabels")
_LABELS = (*_AREAS, "bitmasklabels", "keypointlabels", "vectorlabels", "labels")
_GEOMETRY = ("rle", "points", "x", "y", "width", "height", "radiusX", "radiusY", "rotation")
_FLAT = {*_AREAS, "rle", "points", "radiusX", "original_width"}  # keys that only regions have
_EXPORT_AGAIN = "Export the annotations again."
_BRUSH, _POLYGON, _ELLIPSE, _RECTANGLE = "a brush mask", "a polygon", "an ellipse", "a rectangle"


@dataclass
class _Task:
    """A task as in the full export."""

    file: Path
    name: str
    data: dict[str, Any]
    upload: str = ""
    annotations: list[Any] = field(default_factory=list)


@dataclass
class _Annotation:
    """The regions of an annotation, its image size, and the number of results without area by type."""

    shapes: list[NamedRegion] = field(default_factory=list)
    size: tuple[int, int] | None = None
    without_area: Counter[str] = field(default_factory=Counter)


def detect(dataset: DatasetRoot) -> str | None:
    """Recognise JSON files with tasks and annotations, or with flat records and regions."""
    paths = sorted(dataset.annotations(".json"), key=lambda path: len(path.parts))[:_MAX_PROBED]
    for path in islice(filter(_is_candidate, paths), _MAX_PARSED_FILES):
        try:
            kind = _kind(load_json(path))
        except MaskError:
            continue
        if kind is not None:
            return f"{short(path, dataset.root)} has {kind} of Label Studio"
    return None


def _is_candidate(path: Path) -> bool:
    """Return whether a file should be parsed, by the words in it."""
    is_full = mentions(path, "data") and (mentions(path, "annotations") or mentions(path, "completions"))
    return is_full or any(mentions(path, key) for key in (*_AREAS, "annotation_id", "original_width"))


def _kind(document: Any) -> str | None:
    for row in (document if isinstance(document, list) else [document])[:_MAX_PROBED]:
        if not isinstance(row, dict):
            continue
        annotations = (row.get("annotations"), row.get("completions"))
        if isinstance(row.get("data"), dict) and any(isinstance(value, list) for value in annotations):
            return "tasks"
        if isinstance(document, list) and ({"annotator", "annotation_id"} <= row.keys() or any(_flat_regions(row))):
            return "flat records"
    return None


def _flat_regions(record: dict[str, Any]) -> Iterator[Any]:
    """Yield the regions of a flat record, with the malformed ones among them."""
    for value in record.values():
        if isinstance(value, list) and any(isinstance(region, dict) and _FLAT & region.keys() for region in value):
            yield from value


def _tasks(path: Path, document: Any) -> list[_Task]:
    """Convert both exports to tasks; flat records with the same task id are annotations of one task."""
    kind = _kind(document)
    tasks: dict[str, _Task] = {}
    for number, row in enumerate(document if isinstance(document, list) else [document]):
        if kind is None or not isinstance(row, dict):
            continue
        name = f"task {row['id']}" if isinstance(row.get("id"), int | str) else f"task number {number + 1}"
        if kind == "tasks":
            data, upload = row.get("data"), row.get("file_upload")
            annotations = row.get("annotations", row.get("completions"))
            tasks[str(number)] = _Task(
                path,
                name,
                data if isinstance(data, dict) else {},
                upload if isinstance(upload, str) else "",
                annotations if isinstance(annotations, list) else [],
            )
        else:
            sizes = ("original_width", "original_height")
            values = [value if isinstance(value, dict) else {} for value in _flat_regions(row)]
            results = [{"value": value, **{key: value.get(key) for key in sizes}} for value in values]
            times = {key: row.get(key) for key in ("created_at", "updated_at")}
            tasks.setdefault(name, _Task(path, name, row)).annotations.append({"result": results, **times})
    return list(tasks.values())


def read(dataset: DatasetRoot) -> ReadResult:
    """Read every export, choose one annotation per task, and find its image.

    Raises:
        MaskError: a malformed file or region; with `data.skip_bad` the image of a region becomes a problem.
        DataError: no export of Label Studio, or no classes.
    """
    paths = [path for path in dataset.annotations(".json") if _is_candidate(path)]
    tasks = [task for path in paths for task in _tasks(path, load_json(path, dataset=dataset))]
    dataset.use(dataset.root / _INTERFACE, *{task.file for task in tasks})
    if not tasks:
        do = 'Export as "JSON", or as "JSON-MIN" if each image has one annotator.'
        raise DataError(dataset.root, expected="a JSON export of Label Studio", found="none", do=do)
    matcher = ImageMatcher(dataset)
    urls = _ImageUrls(dataset)
    images = []
    without_area = []
    ambiguous = 0
    for task in tasks:
        where = f"{short(task.file, dataset.root)}: {task.name}"
        dicts = [one for one in task.annotations if isinstance(one, dict)]
        valid = [one for one in dicts if not (one.get("was_cancelled") or one.get("skipped"))]
        texts = _url_candidates(task, valid)
        if len(texts) > 1:
            matcher.add_problem(where, "task with several texts that could be its image")
            matcher.leave_out(urls.candidates(texts, task.file), where)
            continue
        named = [*texts, task.upload]
        found = urls.find(named, task.file)
        if isinstance(found, str):
            where = f"{where} ({next(iter(texts), task.upload)[:200]})"
            if not valid:
                matcher.add_problem(where, f"task without an annotation and without its image ({found})")
        candidates = urls.candidates(named, task.file) if isinstance(found, str) else []
        image = matcher.claim(found, where, candidates=candidates) if valid else None
        if image is None:
            continue
        ambiguous += len(valid) > 1
        try:
            if len(dicts) < len(task.annotations):
                found = "one that is none"
                raise MaskError(f"{task.file}: {task.name}", expected="annotations", found=found, do=_EXPORT_AGAIN)
            annotation = _read_annotation(f"{task.file}: {task.name}", _preferred(valid))
        except MaskError as error:
            matcher.skip(error)
            continue
        split = split_of_folder(image, dataset.root) or split_of_file(task.file, dataset.root)
        images.append(AnnotatedImage(image, task.file, split, annotation.size, annotation.shapes))
        without_area.append(annotation.without_area)
    images = matcher.kept(images)
    labels = drawn_labels(dataset, sorted(annotated_images.class_names(images)))
    rule = "ground truth is used, else the newest that is not cancelled"
    notices = [f"{ambiguous} images have several annotations: {rule}"] if ambiguous else []
    notices += annotated_images.shape_notices(images, labels[1], without_area)
    return annotated_images.found_images(dataset, "Label Studio JSON", images, labels, matcher.finish(), notices)


def _preferred(annotations: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return ground truth if there is any, else the newest annotation."""
    order = [(bool(one.get("ground_truth")), _time(one), number) for number, one in enumerate(annotations)]
    return annotations[max(order)[2]]


def _time(annotation: dict[str, Any]) -> float:
    """Return when an annotation was last changed, in seconds; older exports store seconds, later ones dates."""
    when = annotation.get("updated_at") or annotation.get("created_at")
    try:
        if isinstance(when, int | float):
            return float(when)
        date = datetime.fromisoformat(str(when))
        return (date if date.tzinfo else date.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError):
        return 0.0


def _url_candidates(task: _Task, annotations: Iterable[dict[str, Any]]) -> list[str]:
    """Return the texts of a task that could be the URL of its image; one if it can be determined."""
    texts = {key: value for key, value in task.data.items() if isinstance(value, str)}
    texts = {key: text for key, text in texts.items() if _names(text)[0].lower().endswith(IMAGE_SUFFIXES)} or texts
    if len(texts) > 1:  # older exports have "$image"; later ones the name of the tag, which is often the key
        results = [result for annotation in annotations for result in _results(annotation)]
        keys = {str(result.get(key)).removeprefix("$") for result in results for key in ("source", "to_name")}
        texts = {key: text for key, text in texts.items() if key in keys} or texts
    return list(dict.fromkeys(texts.values()))


# Images by URL -------------------------------------------------------------------------------------------------------

_NOT_FOUND = "no such image"
_UPLOAD_PREFIX = re.compile("[0-9a-f]{8}-(?=.)")


class _ImageUrls:
    """Find image files by Label Studio's URLs.

    Local files are served as `/data/local-files/?d=folder/name.jpg`. Uploads are stored with a prefix of eight digits and
    a dash, underscores instead of spaces, and without special characters.
    """

    def __init__(self, dataset: DatasetRoot) -> None:
        self.dataset = dataset
        self._known = frozenset(dataset.images.paths)
        self._by_upload_name: dict[str, list[Path]] = defaultdict(list)
        for path in dataset.images.paths:
            self._by_upload_name[re.sub(r"[^-\w.]", "", path.name.strip().replace(" ", "_"))].append(path)

    def find(self, urls: Iterable[str], near: Path) -> Path | str:
        """Find an image.

        Args:
            urls: in order of preference.
            near: the annotation file; names can be relative to it.

        Returns:
            The image; or why there is none.
        """
        reason = _NOT_FOUND
        names = [name for url in urls if url for name in _names(url)]
        for name in names:
            exact = near.parent / name
            found = exact if exact in self._known else self.dataset.images.find(name, near)
            if isinstance(found, Path):
                return found
            reason = found if reason == _NOT_FOUND else reason
        uploads = [name.rpartition("/")[2] for name in names if _is_upload(name)]
        uploads = [_UPLOAD_PREFIX.sub("", name, 1) for name in uploads if _UPLOAD_PREFIX.match(name)]
        paths = {path for name in uploads for path in self._by_upload_name.get(name, [])}
        return paths.pop() if len(paths) == 1 and reason == _NOT_FOUND else reason

    def candidates(self, urls: Iterable[str], near: Path) -> list[Path]:
        """Return the images that URLs can mean if `find` finds none, or several."""
        names = [name for url in urls if url for name in _names(url)]
        return list(dict.fromkeys(path for name in names for path in self.dataset.images.candidates(name, near)))


def _names(url: str) -> list[str]:
    """Return the file names that a URL can mean, in order of preference: decoded or not, with or without upload prefix."""
    local = re.search(r"[?&]d=([^&]*)", url)
    path = local[1] if local else url.split("?", 1)[0]
    names = []
    for name in (unquote(path, errors="surrogateescape").replace("\\", "/"), path):
        names.append(name)
        if _is_upload(name):
            folder, slash, last = name.rpartition("/")
            names.append(f"{folder}{slash}{_UPLOAD_PREFIX.sub('', last, 1)}")
    return list(dict.fromkeys(names))


def _is_upload(name: str) -> bool:
    """Return whether a name can be an upload's: elsewhere, eight digits and a dash can be a date."""
    return "upload/" in name or "/" not in name


# Regions -------------------------------------------------------------------------------------------------------------


def _results(annotation: dict[str, Any]) -> list[dict[str, Any]]:
    results = annotation.get("result")
    return [result for result in results if isinstance(result, dict)] if isinstance(results, list) else []


def _require_regions(where: str, annotation: dict[str, Any]) -> None:
    """Refuse results that are neither regions nor relations between them: without them, their pixels would be background.

    Raises:
        MaskError: there is one, or no list of results.
    """
    results = annotation.get("result")
    if not isinstance(results, list):
        raise MaskError(where, expected="a list of results", found="none", do=_EXPORT_AGAIN)
    for result in results:
        is_region = isinstance(result, dict) and (isinstance(result.get("value"), dict) and result["value"])
        if not is_region and not (isinstance(result, dict) and result.get("type") == "relation"):
            raise MaskError(where, expected="results with a value", found=f"{result!r:.80}", do=_EXPORT_AGAIN)


def _read_annotation(where: str, annotation: dict[str, Any]) -> _Annotation:
    """Read the regions of an annotation. Results with the same id and geometry are one region.

    Raises:
        MaskError: a malformed region, or one without a label or with several.
    """
    _require_regions(where, annotation)
    read_ = _Annotation()
    regions: dict[str, tuple[dict[str, Any], list[str]]] = {}
    for result in _results(annotation):
        value = result.get("value")
        if not isinstance(value, dict):
            continue  # a relation between regions
        geometry = {key: value[key] for key in _GEOMETRY if key in value}
        if _kind_of(value) is None:
            kinds = [key for key in _LABELS if key in value]
            if "bitmasklabels" in kinds or "imageDataURL" in value:
                do = "Draw with BrushLabels, or convert the bitmasks to PNG."
                raise MaskError(where, expected=" or ".join(_AREAS), found="bitmasklabels", do=do)
            if not {*_AREAS}.isdisjoint(kinds) or result.get("type") in _AREAS:
                found = f"{next(iter(kinds), result.get('type'))} without coordinates"
                raise MaskError(where, expected="regions as Label Studio writes them", found=found, do=_EXPORT_AGAIN)
            read_.without_area.update(kinds[:1])
            continue
        _require_upright(where, result)
        read_.size = _size(where, result, read_.size)
        _, names = regions.setdefault(f"{result.get('id') or ''} {json.dumps(geometry)}", (geometry, []))
        names += [str(label) for key in _LABELS if isinstance(value.get(key), list) for label in value[key]]
    for geometry, names in regions.values():
        names = list(dict.fromkeys(names))
        if len(names) != 1:
            found = f"{_kind_of(geometry)} with {' and '.join(map(repr, names[:4])) or 'no label'}"
            do = 'Give every region one label in Label Studio (choice="single"), and export again.'
            raise MaskError(where, expected="one label for every region", found=found, do=do)
        read_.shapes.append((names[0], _region(where, geometry, read_.size), 0))
    return read_


def _kind_of(value: Mapping[str, Any]) -> str | None:
    if "rle" in value:
        return _BRUSH
    if "points" in value:
        return _POLYGON
    if "radiusX" in value:
        return _ELLIPSE
    return _RECTANGLE if {"x", "y", "width", "height"} <= value.keys() else None


def _require_upright(where: str, result: dict[str, Any]) -> None:
    rotation = result.get("image_rotation")
    if rotation not in (None, 0, 360, -360):
        raise MaskError(
            where,
            expected="regions on the unrotated image",
            found=f"a region on the image rotated by {rotation!s:.20} degrees",
            do="Rotate the image back in Label Studio and draw again, or rotate the file itself before annotating.",
        )
    if result.get("item_index"):
        found = "a region on another of several images"
        raise MaskError(where, expected="one image per task", found=found, do="Annotate one image per task.")


def _size(where: str, result: dict[str, Any], previous: tuple[int, int] | None) -> tuple[int, int] | None:
    """Return (H, W); None in the oldest exports, which do not store it."""
    height, width = result.get("original_height"), result.get("original_width")
    if height is None and width is None:
        return previous
    if (
        isinstance(height, int)
        and isinstance(width, int)
        and min(height, width) > 0
        and height * width <= MAX_PIXELS
        and previous in (None, (height, width))
    ):
        return height, width
    found = f"{width!s:.40}×{height!s:.40}" + (f" and {previous[1]}×{previous[0]}" if previous else "")
    expected = f"one original_width and original_height, of at most {MAX_PIXELS:,} pixels"
    raise MaskError(where, expected=expected, found=found, do=_EXPORT_AGAIN)


def _region(where: str, value: dict[str, Any], size: tuple[int, int] | None) -> Region:
    kind = _kind_of(value)
    try:
        if size is None and (kind == _BRUSH or value.get("rotation")):
            raise ValueError("no original_width and original_height")
        if size is not None and kind == _BRUSH:
            return RowRLE.from_runs(0, 0, size, decode_brush(value["rle"], size[0] * size[1]))
        return Polygon((_ring(value, np.array(size or (1, 1))[::-1] / 100),), relative=size is None)
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        found = f"{kind} with {annotated_images.describe(error)}"
        raise MaskError(where, expected="regions as Label Studio writes them", found=found, do=_EXPORT_AGAIN) from error


def _ring(value: dict[str, Any], scale: NDArray[np.float64]) -> NDArray[np.float64]:
    """Convert a polygon, rectangle or ellipse in per cent to a ring (N, 2), times a scale."""
    kind = _kind_of(value)
    if kind == _POLYGON:
        points = finite_points(value["points"], _MAX_COORDINATE)
        if len(points) < 3:
            raise ValueError("fewer than three points")
        return points * scale
    keys = ("x", "y", "radiusX", "radiusY") if kind == _ELLIPSE else ("x", "y", "width", "height")
    (x, y), (width, height) = (finite_points([value[key] for key in keys], _MAX_COORDINATE) * scale).tolist()
    ring = ellipse((x, y), (width, height)) if kind == _ELLIPSE else rectangle(x, y, x + width, y + height)
    return rotate(ring, (x, y), float(value.get("rotation") or 0))


class _Writer:
    """Write tasks.json, images/ with a folder for each split, and the labelling interface."""

    def __init__(self, out: Path, labels: Labels) -> None:
        self.out = out
        self.labels = labels
        self.unlabelled, self.background = annotated_images.background(labels)
        self.tasks: list[str] = []

    def add(self, image: ExportImage) -> Path:
        """Copy the image, and write a brush mask for every class."""
        target = annotated_images.export_copy(image, self.out / "images")
        number = len(self.tasks) + 1
        names = annotated_images.value_names(self.labels)
        results = [
            {
                "id": f"{number}_{value}", "type": "brushlabels", "from_name": "label", "to_name": "image",
                "original_width": image.size[1], "original_height": image.size[0], "image_rotation": 0,
                "value": {"format": "rle", "rle": encode_brush(image.mask == value), "brushlabels": [names[value]]},
            }
            for value in np.unique(image.mask).tolist() if value != self.background
        ]  # fmt: skip
        annotation = {"id": number, "result": results, "was_cancelled": False, "ground_truth": False}
        data = {"image": quote(target.relative_to(self.out).as_posix(), errors="surrogateescape")}
        self.tasks.append(json.dumps({"id": number, "data": data, "annotations": [annotation], "predictions": []}))
        return target

    def close(self) -> dict[str, Any]:
        """Write the tasks, and the labelling interface for a new project."""
        colours = dict(zip((*self.labels.names, IGNORED), (*self.labels.colours, (0, 0, 0)), strict=True))
        labels = "".join(
            f'    <Label value={quoteattr(name)} background="#{r:02x}{g:02x}{b:02x}"/>\n'
            for name, (r, g, b) in colours.items()
        )
        brush = f'  <BrushLabels name="label" toName="image">\n{labels}  </BrushLabels>\n'
        view = f'<View>\n  <Image name="image" value="$image"/>\n{brush}</View>\n'
        write_atomic(self.out / _INTERFACE, view)
        write_atomic(self.out / "tasks.json", "[\n" + ",\n".join(self.tasks) + "\n]\n")
        return {"format": "label-studio", "unlabelled": self.unlabelled}


FORMAT = Format("label-studio", "Label Studio JSON", detect, read, _Writer)
