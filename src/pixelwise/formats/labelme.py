"""LabelMe: one JSON file per image, with shapes in pixels.

Points and lines get the size they have in LabelMe's own export: a radius of 5 pixels, a width of 10. The class
`__ignore__` marks ignored pixels, as in LabelMe. A labels.txt at the root sets the order of the classes.

Source: labelme 5, `labelme/label_file.py` (fields) and `utils/shape.py` (what a shape covers).
"""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from io import BytesIO
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pixelwise.errors import MaskError
from pixelwise.formats import annotated_images
from pixelwise.formats.annotated_images import AnnotatedImage, ImageMatcher, NamedRegion
from pixelwise.formats.base import IGNORED, ExportImage, Format, ReadResult, drawn_labels, load_json, mentions, painted
from pixelwise.formats.dataset_root import DatasetRoot, split_of_folder
from pixelwise.formats.records import short
from pixelwise.formats.shapes import MAX_PIXELS, Polygon, Region, RowRLE, ellipse, finite_points, row_runs
from pixelwise.imageio.safe_reading import read_text
from pixelwise.labels import Labels
from pixelwise.storage import write_atomic

_POINT_RADIUS = 5.0
_LINE_WIDTH = 10.0
# LabelMe's and X-AnyLabeling's rotated rectangles; the latter also writes upright ones with four corners.
_RECTANGLES = ("rectangle", "oriented_rectangle", "rotation")
_MALFORMED = (LookupError, TypeError, ValueError, OSError, OverflowError, SyntaxError, Image.DecompressionBombError)
_MAX_PROBED_FILES = 3


def detect(dataset: DatasetRoot) -> str | None:
    """Recognise JSON files with `shapes` and `imagePath`."""
    for path in dataset.annotations(".json")[:_MAX_PROBED_FILES]:
        if not mentions(path, "shapes", "imagePath"):  # other tools' files can be large
            continue
        try:
            document = load_json(path)
        except MaskError:
            continue
        if _is_labelme(document) and "imagePath" in document:
            return f"{short(path, dataset.root)} has shapes and imagePath"
    return None


def _is_labelme(document: Any) -> bool:
    return isinstance(document, dict) and isinstance(document.get("shapes"), list)


def read(dataset: DatasetRoot) -> ReadResult:
    """Read every JSON file and find its image.

    Raises:
        MaskError: a malformed file; with `data.skip_bad` it becomes a problem.
        DataError: no classes.
    """
    matcher = ImageMatcher(dataset)
    images = []
    for path in dataset.annotations(".json"):
        name = short(path, dataset.root)
        document: Any = {}
        shapes: list[NamedRegion] | None = None
        try:
            document = load_json(path, dataset=dataset)
            if not _is_labelme(document):
                continue  # of another tool; its image, if it has one, is without a mask
            dataset.use(path)
            shapes = [region for shape in document["shapes"] for region in _regions(path, shape)]
        except MaskError as error:
            matcher.skip(error, path)
            dataset.use(path)
        wanted = str(document.get("imagePath") or path.stem)
        found = _find_image(dataset, path, wanted)
        if shapes is None and isinstance(found, str):  # the file is already a problem
            matcher.leave_out(dataset.images.candidates(wanted, path), name)
            continue
        hint = "; save the image in imageData to a file" if document.get("imageData") else ""
        candidates = dataset.images.candidates(wanted, path) if isinstance(found, str) else []
        image = matcher.claim(found, name, hint=hint, candidates=candidates)
        if image is not None and shapes is not None:
            split = split_of_folder(image, dataset.root) or split_of_folder(path, dataset.root)
            images.append(AnnotatedImage(image, path, split, _size(document), shapes))
    images = matcher.kept(images)
    labels = drawn_labels(dataset, _ordered(dataset, annotated_images.class_names(images)))
    return annotated_images.found_images(dataset, "LabelMe files", images, labels, matcher.finish())


def _find_image(dataset: DatasetRoot, path: Path, name: str) -> Path | str:
    """Find the image by `imagePath`, else an image next to the JSON file with the same name."""
    found = dataset.images.find(name, path)
    if isinstance(found, Path):
        return found
    beside = dataset.images.find(path.stem, path)
    return beside if isinstance(beside, Path) and beside.parent == path.parent else found


def _ordered(dataset: DatasetRoot, names: set[str]) -> list[str]:
    """Sort classes as in labels.txt, the others by name."""
    listed: list[str] = []
    if (dataset.root / "labels.txt").is_file():
        dataset.use(dataset.root / "labels.txt")
        listed = [line.strip() for line in read_text(dataset.root / "labels.txt").splitlines() if line.strip()]
    return [*listed, *sorted(names - set(listed))]


def _size(document: dict[str, Any]) -> tuple[int, int] | None:
    height, width = document.get("imageHeight"), document.get("imageWidth")
    return (height, width) if isinstance(height, int) and isinstance(width, int) else None


def _regions(path: Path, shape: Any) -> list[NamedRegion]:
    label = shape.get("label") if isinstance(shape, dict) else None
    if not isinstance(label, str) or not label:
        raise MaskError(path, expected="shapes with a label", found=repr(shape)[:80], do="Label it, or remove it.")
    kind = shape.get("shape_type") or "polygon"
    try:
        regions = _convert(kind, finite_points(shape["points"]), shape)
    except _MALFORMED as error:
        found = f"a malformed {kind} ({annotated_images.describe(error)})"
        do = "Draw it again, or remove it."
        raise MaskError(path, expected="shapes as LabelMe writes them", found=found, do=do) from error
    if regions is None:
        expected = "polygon, rectangle, circle, mask, point, line or linestrip"
        do = "Draw it as one of these."
        raise MaskError(path, expected=expected, found=f"shape_type {kind!r}", do=do)
    return [(label, region, 0) for region in regions]


def _convert(kind: str, points: NDArray[np.float64], shape: dict[str, Any]) -> Sequence[Region] | None:
    """Convert a shape; None if its type is unknown. Malformed shapes raise one of `_MALFORMED`."""
    count = len(points)
    if (kind == "polygon" and count >= 3) or (kind in _RECTANGLES and count == 4):
        return [Polygon((points,))]
    if kind == "rectangle" and count == 2:
        (x0, y0), (x1, y1) = points
        return [Polygon((np.array([(x0, y0), (x1, y0), (x1, y1), (x0, y1)]),))]
    if kind == "polygon" or kind in _RECTANGLES:
        raise ValueError(f"{count} points")
    if kind == "circle":
        return [_disc(points[0], float(np.hypot(*(points[1] - points[0]))))]
    if kind == "mask":
        return [_mask(points, shape["mask"])]
    if kind in ("point", "points"):
        return [_disc(point, _POINT_RADIUS) for point in points]
    if kind in ("line", "linestrip"):
        return [_thick_line(start, end) for start, end in pairwise(points)]
    return None


def _mask(points: NDArray[np.float64], text: str) -> RowRLE:
    """Read a PNG in base64, placed with its upper left corner at the first point."""
    with Image.open(BytesIO(base64.b64decode(text, validate=True)), formats=["PNG"]) as image:
        if image.width * image.height > MAX_PIXELS:
            raise ValueError(f"a mask of more than {MAX_PIXELS:,} pixels")
        mask = np.asarray(image.convert("L")) != 0
    left, top = (int(value) for value in points[0])
    return RowRLE.from_runs(top, left, (mask.shape[0], mask.shape[1]), row_runs(mask))


def _disc(centre: NDArray[np.float64], radius: float) -> Polygon:
    return Polygon((ellipse((centre[0], centre[1]), (radius, radius)),))


def _thick_line(start: NDArray[np.float64], end: NDArray[np.float64]) -> Polygon:
    """Return a line as a rectangle that ends at its end points."""
    x, y = end - start
    length = float(np.hypot(x, y))
    across = _LINE_WIDTH / 2 * np.array([-y, x]) / length if length else np.zeros(2)
    return Polygon((np.array([start + across, end + across, end - across, start - across]),))


class _Writer:
    """Write a JSON file next to a copy of each image, in one folder per split."""

    def __init__(self, out: Path, labels: Labels) -> None:
        self.out = out
        self.labels = labels

    def add(self, image: ExportImage) -> Path:
        """Write contours, sorted so that inner regions come after those around them."""
        target = annotated_images.export_copy(image, self.out)
        shapes = [
            {"label": name, "points": contour.outer.tolist(), "group_id": None, "description": "", "shape_type": "polygon",
             "flags": {}, "mask": None}
            for name, contour in painted(image.mask, self.labels)[0]
        ]  # fmt: skip
        document: dict[str, Any] = {
            "version": "5.5.0", "flags": {}, "shapes": shapes, "imagePath": target.name, "imageData": None,
            "imageHeight": image.size[0], "imageWidth": image.size[1],
        }  # fmt: skip
        write_atomic(target.with_suffix(".json"), json.dumps(document))
        return target

    def close(self) -> dict[str, Any]:
        """Write labels.txt, which LabelMe takes as `--labels`."""
        write_atomic(self.out / "labels.txt", "".join(f"{name}\n" for name in (IGNORED, *self.labels.names)).encode())
        return {"format": "labelme", "unlabelled": annotated_images.background(self.labels)[0]}


FORMAT = Format("labelme", "LabelMe", detect, read, _Writer)
