"""LabelMe: a JSON file for each image, beside it or elsewhere, with shapes in pixels.

Comes in: a place. Goes out: a drawing per image. Polygons, rectangles, circles and masks are areas; points, lines and
line strips have the size that LabelMe's own export gives them (5 pixels around a point, 10 across a line). Later shapes lie
on top. `__ignore__` counts in nothing, as LabelMe has it. Where labels.txt lies at the root, it gives the order of the classes.

Source: labelme 5, `labelme/label_file.py` (fields) and `utils/shape.py` (what a shape covers), by what its files hold.
"""

from __future__ import annotations

import base64
import json
from collections import defaultdict
from io import BytesIO
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pixelwise.errors import MaskError
from pixelwise.formats.base import (
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
from pixelwise.formats.dataset_root import DatasetRoot, make_layout, split_of_folder
from pixelwise.formats.records import Problem, Record, short
from pixelwise.formats.shapes import Bitmap, Drawing, Polygon, Region, Several, Shape
from pixelwise.imageio.safe_reading import read_text
from pixelwise.labels import Labels
from pixelwise.storage import write_atomic

_POINT, _LINE = 5.0, 10.0
# Those that lie askew, as LabelMe and X-AnyLabeling call them; the latter gives all rectangles four corners.
_CORNERED = ("rectangle", "oriented_rectangle", "rotation")
# The last two are Pillow's.
_BROKEN = (
    KeyError,
    TypeError,
    ValueError,
    IndexError,
    OSError,
    OverflowError,
    SyntaxError,
    Image.DecompressionBombError,
)
_DRAW = "Draw it again, or take it out."
_LOOKED_INTO = 3


def detect(place: DatasetRoot) -> str | None:
    """Recognise JSON files with `shapes` and `imagePath`."""
    for path in place.annotations(".json")[:_LOOKED_INTO]:
        if not mentions(path, "shapes", "imagePath"):  # another tool's file may be large
            continue
        try:
            plain = load_json(path)
        except MaskError:
            continue
        if isinstance(plain, dict) and isinstance(plain.get("shapes"), list) and "imagePath" in plain:
            return f"{short(path, place.root)} holds shapes and imagePath"
    return None


def read(place: DatasetRoot) -> ReadResult:
    """Read every JSON file, and find its image.

    Raises:
        MaskError: a file that cannot be understood.
        DataError: no class anywhere.

    """
    drawn: list[tuple[Path, Path, tuple[int, int] | None, list[tuple[str, Region]]]] = []
    problems: list[Problem] = []
    owner: dict[Path, Path] = {}
    for path in place.annotations(".json"):
        try:
            plain = load_json(path)
            if not (isinstance(plain, dict) and isinstance(plain.get("shapes"), list)):
                continue  # another tool's, or a description of the set
            shapes = [_shape(path, one) for one in plain["shapes"]]
        except MaskError as error:
            if not place.config.skip_bad:
                raise
            problems.append(Problem(short(path, place.root), f"expected {error.expected}, found {error.found}"))
            owner |= {image: path for image in [place.images.find(path.stem, path)] if isinstance(image, Path)}
            continue
        image = _image(place, path, plain)
        if isinstance(image, str):
            inside = "; it stands in imageData: export it to a file" if plain.get("imageData") else ""
            problems.append(Problem(short(path, place.root), f"annotation without its image ({image}{inside})"))
        elif image in owner:
            why = f"second annotation of {image.name} (also {short(owner[image], place.root)})"
            problems.append(Problem(short(path, place.root), why))
        else:
            owner[image] = path
            drawn.append((path, image, _size(plain), shapes))  # without imageData, which can be the whole image
    lost = [image for image in place.images.paths if image not in owner]
    problems += [Problem(short(image, place.root), "image without a mask") for image in lost]
    labels, unlabelled = drawn_labels(place, _names(place, {name for *_, own in drawn for name, _ in own}))
    records: dict[str, list[Record]] = defaultdict(list)
    for path, image, size, regions in drawn:
        painted_on = tuple(Shape(shape_name(place, name), region) for name, region in regions)
        drawing = Drawing(path, painted_on, size, unlabelled, place.config.overlap or "file")
        split = split_of_folder(image, place.root) or split_of_folder(path, place.root) or "pool"
        records[split].append(Record(place.images.id_of(image), image, path, source=drawing))
    return ReadResult(make_layout("LabelMe files", records, problems), labels)


def _image(place: DatasetRoot, path: Path, plain: dict[str, Any]) -> Path | str:
    """Find the image by `imagePath`; where that is of another machine or renamed, by the name of the JSON file."""
    found = place.images.find(str(plain.get("imagePath") or ""), path)
    if isinstance(found, Path):
        return found
    beside = place.images.find(path.stem, path)
    return beside if isinstance(beside, Path) and beside.parent == path.parent else found


def _names(place: DatasetRoot, used: set[str]) -> list[str]:
    """Order the classes as labels.txt does, then by name."""
    listed: list[str] = []
    if (place.root / "labels.txt").is_file():
        listed = [line.strip() for line in read_text(place.root / "labels.txt").splitlines() if line.strip()]
    return [*listed, *sorted(used - set(listed))]


def _size(plain: dict[str, Any]) -> tuple[int, int] | None:
    height, width = plain.get("imageHeight"), plain.get("imageWidth")
    return (height, width) if isinstance(height, int) and isinstance(width, int) else None


def _shape(path: Path, shape: Any) -> tuple[str, Region]:
    label = shape.get("label") if isinstance(shape, dict) else None
    if not isinstance(label, str) or not label:
        raise MaskError(path, expected="shapes with a label", found=repr(shape)[:80], do="Label it, or take it out.")
    return label, _region(path, shape)


def _region(path: Path, shape: dict[str, Any]) -> Region:
    kind = shape.get("shape_type") or "polygon"
    try:
        points = np.array(shape["points"], np.float64)
        if points.size and (points.ndim != 2 or points.shape[1] != 2):
            raise ValueError("points that are not x, y")
        points = points.reshape(-1, 2)
        if not np.isfinite(points).all():
            raise ValueError("points that are no numbers")
        if kind == "polygon":
            if len(points) < 3:
                raise ValueError(f"{len(points)} points")
            return Polygon((points,))
        if kind in _CORNERED and len(points) == 4:
            return Polygon((points,))
        if kind == "rectangle":
            (x0, y0), (x1, y1) = points
            return Polygon((np.array([(x0, y0), (x1, y0), (x1, y1), (x0, y1)]),))
        if kind == "circle":
            return Polygon((_disc(points[0], float(np.hypot(*(points[1] - points[0])))),))
        if kind == "mask":
            return _bitmap(points, shape["mask"])
        if kind in ("point", "points"):
            return Several(tuple(Polygon((_disc(point, _POINT),)) for point in points))
        if kind in ("line", "linestrip"):
            return Several(tuple(Polygon((_bar(a, b),)) for a, b in pairwise(points)))
        if kind in _CORNERED:
            raise ValueError(f"{len(points)} points")
    except _BROKEN as error:
        found = f"a {kind} that cannot be read ({' '.join(str(error).split())[:120]})"
        raise MaskError(path, expected="shapes as LabelMe writes them", found=found, do=_DRAW) from error
    raise MaskError(
        path,
        expected="polygon, rectangle, circle, mask, point, line or linestrip",
        found=f"shape_type {kind!r}",
        do="Draw it as one of these.",
    )


def _bitmap(points: NDArray[np.float64], text: str) -> Bitmap:
    """Read a mask: a PNG in base64 that fills the box between two corners, both within it."""
    with Image.open(BytesIO(base64.b64decode(text, validate=True)), formats=["PNG"]) as image:
        if image.width * image.height > 400_000_000:
            raise ValueError("a mask of more than 400 million pixels")
        box = np.asarray(image.convert("L")) != 0
    left, top = (int(value) for value in points[0])
    return Bitmap.of(top, left, box)


def _disc(centre: NDArray[np.float64], radius: float) -> NDArray[np.float64]:
    angle = np.linspace(0, 2 * np.pi, max(16, min(720, int(4 * radius))), endpoint=False)
    return centre + radius * np.stack([np.cos(angle), np.sin(angle)], 1)


def _bar(first: NDArray[np.float64], second: NDArray[np.float64]) -> NDArray[np.float64]:
    """Give a line its width; it ends where its points are."""
    along = second - first
    length = float(np.hypot(*along))
    across = _LINE / 2 * np.array([-along[1], along[0]]) / length if length else np.zeros(2)
    return np.array([first + across, second + across, second - across, first - across])


class _Writer:
    """Write a JSON file beside a copy of each image, in a folder for each part."""

    def __init__(self, out: Path, labels: Labels) -> None:
        self.out, self.labels = out, labels
        self.unlabelled = painted(np.zeros((0, 0), np.uint8), labels)[1]

    def add(self, image: ExportImage) -> Path:
        """Write the outlines, the larger before those within."""
        target = self.out / image.split / f"{image.id}{image.image.suffix.lower()}"
        copy_image(image, target)
        shapes = [
            {"label": name, "points": outline.outer.tolist(), "group_id": None, "description": "", "shape_type": "polygon",
             "flags": {}, "mask": None}
            for name, outline in painted(image.mask, self.labels)[0]
        ]  # fmt: skip
        plain: dict[str, Any] = {
            "version": "5.5.0", "flags": {}, "shapes": shapes, "imagePath": target.name, "imageData": None,
            "imageHeight": image.size[0], "imageWidth": image.size[1],
        }  # fmt: skip
        write_atomic(target.with_suffix(".json"), json.dumps(plain))
        return target

    def close(self) -> dict[str, Any]:
        """Write the list of the classes that LabelMe is started with."""
        names = ["__ignore__", *self.labels.names]
        write_atomic(self.out / "labels.txt", "".join(f"{name}\n" for name in names).encode())
        return {"format": "labelme", "unlabelled": self.unlabelled}


FORMAT = Format("labelme", "LabelMe", detect, read, _Writer)
