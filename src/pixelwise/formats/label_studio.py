"""Label Studio: a JSON export with one task per image, in full ("JSON") or flat ("JSON-MIN").

Comes in: a place. Goes out: a drawing per image. Polygons, brush strokes, rectangles and ellipses are areas, in per cent of
the image; the later region lies on top. Key points and what else covers no pixels is counted and told. Predictions are no
labels. Of several annotations of a task the newest that is not cancelled counts, those marked as ground truth first. Images
are addresses; their ends are looked for among the files: what follows `?d=`, or the path, or the name of an upload, with the
eight digits that Label Studio puts before it or without them.

Source: labelstud.io/guide/export and /tags. Rectangles turn around their upper left corner (label-studio issue 5274),
ellipses around their middle, which is what their x and y are. For brush strokes see `brush`.
"""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from typing import Any
from urllib.parse import quote
from xml.sax.saxutils import quoteattr

import numpy as np
from numpy.typing import NDArray

from pixelwise.errors import DataError, MaskError
from pixelwise.formats.addresses import Addresses, ends
from pixelwise.formats.base import (
    IGNORED,
    ExportImage,
    Format,
    ReadResult,
    copy_image,
    drawn_labels,
    load_json,
    mentions,
    painted,
    shape_name,
)
from pixelwise.formats.brush import decode_brush, encode_brush
from pixelwise.formats.dataset_root import DatasetRoot, make_layout, split_of_file, split_of_folder
from pixelwise.formats.records import Problem, Record, short
from pixelwise.formats.shapes import Drawing, Lengths, Polygon, Region, Shape, oval, turned
from pixelwise.imageio.images import IMAGE_SUFFIXES
from pixelwise.labels import Labels
from pixelwise.storage import write_atomic

_LOOKED_INTO, _FIRST = 3, 50
_MOST_PIXELS, _FARTHEST = 400_000_000, 1e5  # per cent
_AREAS = ("polygonlabels", "brushlabels", "rectanglelabels", "ellipselabels")
_LABELS = (*_AREAS, "bitmasklabels", "keypointlabels", "vectorlabels", "labels")
_GEOMETRY = ("rle", "points", "x", "y", "width", "height", "radiusX", "radiusY", "rotation")
_AGAIN = "Export the annotations again."
_AS_BRUSH = "Draw with BrushLabels, or convert the bitmasks to PNG."


@dataclass
class _Task:
    """Hold one task in the form of the full export, whichever it came from."""

    file: Path
    name: str
    data: dict[str, Any]
    upload: str = ""
    annotations: list[Any] = field(default_factory=list)


@dataclass
class _Drawn:
    """Hold the regions of one annotation, and how many results of each type cover no pixels."""

    shapes: list[tuple[str, Region]] = field(default_factory=list)
    size: tuple[int, int] | None = None
    without_area: Counter[str] = field(default_factory=Counter)


def detect(place: DatasetRoot) -> str | None:
    """Recognise JSON files with tasks and annotations, or flat records with regions."""
    likely = sorted(place.annotations(".json"), key=lambda path: len(path.parts))[:_FIRST]  # there may be one an image
    for path in islice(filter(_promises, likely), _LOOKED_INTO):
        try:
            kind = _kind(load_json(path))
        except MaskError:
            continue
        if kind is not None:
            return f"{short(path, place.root)} holds {kind} of Label Studio"
    return None


def _promises(path: Path) -> bool:
    """Say whether a file is worth to be parsed."""
    full = mentions(path, "data") and (mentions(path, "annotations") or mentions(path, "completions"))
    return full or mentions(path, "annotation_id") or any(mentions(path, key) for key in (*_AREAS, "original_width"))


def _kind(plain: Any) -> str | None:
    for one in (plain if isinstance(plain, list) else [plain])[:_FIRST]:
        if not isinstance(one, dict):
            continue
        if isinstance(one.get("data"), dict) and any(
            isinstance(one.get(k), list) for k in ("annotations", "completions")
        ):
            return "tasks"
        if isinstance(plain, list) and ({"annotator", "annotation_id"} <= one.keys() or any(_flat_regions(one))):
            return "flat records"
    return None


def _flat_regions(record: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for value in record.values():
        if isinstance(value, list):
            regions = (one for one in value if isinstance(one, dict))
            yield from (one for one in regions if not {*_AREAS, "rle", "original_width"}.isdisjoint(one))


def _tasks(path: Path, plain: Any) -> list[_Task]:
    """Bring both exports into one form; flat records of the same task are its annotations."""
    kind, tasks = _kind(plain), dict[str, _Task]()
    for number, one in enumerate(plain if isinstance(plain, list) else [plain]):
        if kind is None or not isinstance(one, dict):
            continue
        name = f"task {one['id']}" if isinstance(one.get("id"), int | str) else f"task at place {number + 1}"
        if kind == "tasks":
            data, annotations = one.get("data"), one.get("annotations", one.get("completions"))
            task = tasks[str(number)] = _Task(path, name, data if isinstance(data, dict) else {})
            task.upload = one["file_upload"] if isinstance(one.get("file_upload"), str) else ""
            task.annotations = annotations if isinstance(annotations, list) else []
        else:
            sizes = ("original_width", "original_height")
            results = [{"value": value, **{key: value.get(key) for key in sizes}} for value in _flat_regions(one)]
            times = {key: one.get(key) for key in ("created_at", "updated_at")}
            tasks.setdefault(name, _Task(path, name, one)).annotations.append({"result": results, **times})
    return list(tasks.values())


def read(place: DatasetRoot) -> ReadResult:
    """Read every export, choose one annotation a task, and find its image.

    Raises:
        MaskError: a file or region that cannot be understood; with `data.skip_bad` the image of a region is left out.
        DataError: no export of Label Studio, or no class anywhere.

    """
    tasks = [task for path in place.annotations(".json") if _promises(path) for task in _tasks(path, load_json(path))]
    if not tasks:
        do = 'Export as "JSON" (not "JSON-MIN", where several people labelled).'
        raise DataError(place.root, expected="a JSON export of Label Studio", found="none", do=do)
    taken, problems, notices = _paired(place, tasks)
    names = sorted({name for *_, drawn in taken for name, _ in drawn.shapes})
    labels, unlabelled = drawn_labels(place, names)
    records: dict[str, list[Record]] = defaultdict(list)
    for image, task, drawn in taken:
        shapes = tuple(Shape(shape_name(place, name), region) for name, region in drawn.shapes)
        drawing = Drawing(task.file, shapes, drawn.size, unlabelled, place.config.overlap or "file")
        split = split_of_folder(image, place.root) or split_of_file(task.file, place.root) or "pool"
        records[split].append(Record(place.images.id_of(image), image, task.file, source=drawing))
    return ReadResult(make_layout("Label Studio JSON", records, problems, notices), labels)


def _paired(
    place: DatasetRoot, tasks: Iterable[_Task]
) -> tuple[list[tuple[Path, _Task, _Drawn]], list[Problem], Iterable[str]]:
    """Find the image of every labelled task and read its regions; tell what found no partner or cannot be read."""
    addresses, owner = Addresses(place), dict[Path, str]()
    taken, problems, several = [], [], 0
    for task in tasks:
        where = f"{short(task.file, place.root)}: {task.name}"
        valid = [one for one in task.annotations if isinstance(one, dict)]
        valid = [one for one in valid if not (one.get("was_cancelled") or one.get("skipped"))]
        texts = list(dict.fromkeys(_texts(task, valid).values()))
        image = addresses.find([*texts, task.upload], task.file)
        if len(texts) > 1:
            problems.append(Problem(where, "task with several texts that may name its image"))
        elif isinstance(image, str):
            what = "annotation" if valid else "task without an annotation and"
            name = next(iter(texts), task.upload)[:200]
            problems.append(Problem(f"{where} ({name})", f"{what} without its image ({image})"))
        elif valid and image in owner:
            problems.append(Problem(where, f"second annotation of {image.name} (also {owner[image]})"))
        elif valid:
            owner[image] = where
            several += len(valid) > 1
            chosen = max(enumerate(valid), key=lambda one: (bool(one[1].get("ground_truth")), _time(one[1]), one[0]))
            try:
                taken.append((image, task, _draw(f"{task.file}: {task.name}", chosen[1])))
            except MaskError as error:
                if not place.config.skip_bad:
                    raise
                problems.append(Problem(error.where, f"expected {error.expected}, found {error.found}"))
    lost = [image for image in place.images.paths if image not in owner]
    problems += [Problem(short(image, place.root), "image without a mask") for image in lost]
    return taken, problems, _notices([drawn for *_, drawn in taken], several)


def _notices(drawn: list[_Drawn], several: int) -> Iterator[str]:
    """Tell what was chosen, what is not painted, and how many images hold nothing."""
    if several:
        yield f"{several} images have several annotations: ground truth counts, else the newest that is not cancelled"
    count = sum((one.without_area for one in drawn), Counter[str]())
    if count:
        kinds = ", ".join(f"{many} {kind}" for kind, many in sorted(count.items()))
        yield f"cover no pixels and are not painted: {kinds}"
    empty = sum(not one.shapes for one in drawn)
    if empty:
        yield f"{empty} of {len(drawn)} images are annotated without a region, and count as empty"


def _time(annotation: dict[str, Any]) -> float:
    """Give when an annotation was last changed: a date, or seconds in older exports."""
    when = annotation.get("updated_at") or annotation.get("created_at")
    try:
        if isinstance(when, int | float):
            return float(when)
        date = datetime.fromisoformat(str(when))
        return (date if date.tzinfo else date.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError):
        return 0.0


def _texts(task: _Task, annotations: Iterable[dict[str, Any]]) -> dict[str, str]:
    """Give what may be the address of the task's image, by key; one where that can be told."""
    texts = {key: value for key, value in task.data.items() if isinstance(value, str)}
    texts = {key: text for key, text in texts.items() if ends(text)[0].lower().endswith(IMAGE_SUFFIXES)} or texts
    if len(texts) > 1:  # "$image" in older exports, else the name of the tag, which often is that of the key
        results = [one for annotation in annotations for one in _results(annotation)]
        meant = {str(one.get(key)).removeprefix("$") for one in results for key in ("source", "to_name")}
        texts = {key: text for key, text in texts.items() if key in meant} or texts
    return texts


def _results(annotation: dict[str, Any]) -> list[dict[str, Any]]:
    results = annotation.get("result")
    return [one for one in results if isinstance(one, dict)] if isinstance(results, list) else []


def _draw(where: str, annotation: dict[str, Any]) -> _Drawn:
    """Read the regions of an annotation. What stands in several results of one id and geometry is one region.

    Raises:
        MaskError: a region that cannot be understood, with no label or with several.

    """
    if not isinstance(annotation.get("result"), list):
        raise MaskError(where, expected="a list of results", found="none", do=_AGAIN)
    drawn = _Drawn()
    regions: dict[str, tuple[dict[str, Any], list[str]]] = {}
    for one in _results(annotation):
        value = one.get("value")
        if not isinstance(value, dict):
            continue  # a relation between regions, say
        labels = [label for key in _LABELS if isinstance(value.get(key), list) for label in value[key]]
        geometry = {key: value[key] for key in _GEOMETRY if key in value}
        if _shape_of(value) is None:
            kinds = [key for key in _LABELS if key in value]
            if "bitmasklabels" in kinds or "imageDataURL" in value:
                raise MaskError(where, expected=" or ".join(_AREAS), found="bitmasklabels", do=_AS_BRUSH)
            drawn.without_area.update(kinds[:1])
            continue
        _require_upright(where, one)
        drawn.size = _size(where, one, drawn.size)
        known = regions.setdefault(f"{one.get('id') or ''} {json.dumps(geometry)}", (geometry, []))
        known[1].extend(str(label) for label in labels if str(label) not in known[1])
    for geometry, labels in regions.values():
        if len(labels) != 1:
            found = f"{_shape_of(geometry)} with {' and '.join(map(repr, labels[:4])) or 'no label'}"
            do = 'Give every region one label in Label Studio (choice="single"), and export again.'
            raise MaskError(where, expected="one label for every region", found=found, do=do)
        drawn.shapes.append((labels[0], _region(where, geometry, drawn.size)))
    return drawn


def _shape_of(value: Mapping[str, Any]) -> str | None:
    if "rle" in value:
        return "a brush stroke"
    if "points" in value:
        return "a polygon"
    if "radiusX" in value:
        return "an ellipse"
    return "a rectangle" if {"x", "y", "width", "height"} <= value.keys() else None


def _require_upright(where: str, result: dict[str, Any]) -> None:
    if result.get("image_rotation") not in (None, 0, 360, -360):
        raise MaskError(
            where,
            expected="regions drawn on the image as it is",
            found=f"one drawn on the image turned by {result['image_rotation']!s:.20} degrees",
            do="Turn the image back in Label Studio and draw again, or turn the file itself before labelling.",
        )
    if result.get("item_index"):
        do = "Label one image a task."
        raise MaskError(where, expected="one image in a task", found="a region on another of several", do=do)


def _size(where: str, result: dict[str, Any], before: tuple[int, int] | None) -> tuple[int, int] | None:
    """Give (H, W) as the result notes it; None where it notes nothing, as the oldest exports do."""
    height, width = result.get("original_height"), result.get("original_width")
    if height is None and width is None:
        return before
    if (
        isinstance(height, int)
        and isinstance(width, int)
        and min(height, width) > 0
        and height * width <= _MOST_PIXELS
        and before in (None, (height, width))
    ):
        return height, width
    found = f"{width!s:.40}×{height!s:.40}" + (f" beside {before[1]}×{before[0]}" if before else "")
    expected = f"one original_width and original_height, of at most {_MOST_PIXELS:,} pixels"
    raise MaskError(where, expected=expected, found=found, do=_AGAIN)


def _region(where: str, value: dict[str, Any], size: tuple[int, int] | None) -> Region:
    shape = _shape_of(value)
    try:
        if size is None and (shape == "a brush stroke" or value.get("rotation")):
            raise ValueError("no original_width and original_height")
        if size is not None and shape == "a brush stroke":
            return Lengths.of(0, 0, size, decode_brush(value["rle"], size[0] * size[1]))
        return Polygon((_ring(value, np.array(size or (1, 1))[::-1] / 100),), relative=size is None)
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        why = f"no {error}" if isinstance(error, KeyError) else " ".join(str(error).split())[:120]
        expected = "regions as Label Studio writes them"
        raise MaskError(where, expected=expected, found=f"{shape} with {why}", do=_AGAIN) from error


def _ring(value: dict[str, Any], scale: NDArray[np.float64]) -> NDArray[np.float64]:
    """Give the outline (N, 2) of a polygon, rectangle or ellipse in per cent, times a scale."""
    shape = _shape_of(value)
    keys = ("x", "y", "radiusX", "radiusY") if shape == "an ellipse" else ("x", "y", "width", "height")
    given = value["points"] if shape == "a polygon" else [value[key] for key in keys]
    points = np.array(given, np.float64).reshape(-1, 2)
    degrees = float(value.get("rotation") or 0)
    if not (np.abs(points) <= _FARTHEST).all() or not abs(degrees) <= _FARTHEST:  # nor NaN
        raise ValueError("numbers that are no places in an image")
    if shape == "a polygon":
        if len(points) < 3:
            raise ValueError("less than three points")
        return points * scale
    (x, y), (across, down) = (points * scale).tolist()
    if across < 0 or down < 0:
        raise ValueError("a size below zero")
    ring = np.array([(x, y), (x + across, y), (x + across, y + down), (x, y + down)])
    return turned(oval((x, y), (across, down)) if shape == "an ellipse" else ring, (x, y), degrees)


class _Writer:
    """Write tasks.json, with names relative to it, beside images/ with a folder for each part, and the labelling interface."""

    def __init__(self, out: Path, labels: Labels) -> None:
        self.out, self.labels = out, labels
        self.unlabelled = painted(np.zeros((0, 0), np.uint8), labels)[1]
        self.tasks: list[str] = []

    def add(self, image: ExportImage) -> Path:
        """Write a brush stroke for every class."""
        name = f"images/{image.split}/{image.id}{image.image.suffix.lower()}"
        copy_image(image, self.out / name)
        number, names = len(self.tasks) + 1, dict(enumerate(self.labels.names)) | {self.labels.ignore_index: IGNORED}
        ground = self.labels.ignore_index if self.unlabelled == "ignore" else self.labels.names.index(self.unlabelled)
        results = [
            {
                "id": f"{number}_{index}", "type": "brushlabels", "from_name": "label", "to_name": "image",
                "original_width": image.size[1], "original_height": image.size[0], "image_rotation": 0,
                "value": {"format": "rle", "rle": encode_brush(image.mask == index), "brushlabels": [names[index]]},
            }
            for index in np.unique(image.mask).tolist() if index != ground
        ]  # fmt: skip
        annotation = {"id": number, "result": results, "was_cancelled": False, "ground_truth": False}
        data = {"image": quote(name, errors="surrogateescape")}
        self.tasks.append(json.dumps({"id": number, "data": data, "annotations": [annotation], "predictions": []}))
        return self.out / name

    def close(self) -> dict[str, Any]:
        """Write the tasks, and the interface that a project is made with."""
        named = dict(zip((*self.labels.names, IGNORED), (*self.labels.colours, (0, 0, 0)), strict=True))
        labels = "".join(
            f'    <Label value={quoteattr(name)} background="#{r:02x}{g:02x}{b:02x}"/>\n'
            for name, (r, g, b) in named.items()
        )
        brush = f'  <BrushLabels name="label" toName="image">\n{labels}  </BrushLabels>\n'
        view = f'<View>\n  <Image name="image" value="$image"/>\n{brush}</View>\n'
        write_atomic(self.out / "interface.xml", view)
        write_atomic(self.out / "tasks.json", "[\n" + ",\n".join(self.tasks) + "\n]\n")
        return {"format": "label-studio", "unlabelled": self.unlabelled}


FORMAT = Format("label-studio", "Label Studio JSON", detect, read, _Writer)
