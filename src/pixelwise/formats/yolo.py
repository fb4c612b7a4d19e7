"""YOLO segmentation, as Ultralytics, Roboflow, CVAT and Label Studio write it: a text file for each image.

Comes in: a place. Goes out: a drawing per image. A line is `class x1 y1 x2 y2 …`, in shares of width and height. The text
file lies where the image does, with the last images/ in its path replaced by labels/; an image without one, or with an
empty one, is background. A YAML says where the parts are and what the classes are called; without one folders and classes.txt
do. Smaller shapes lie on top. Nothing is downloaded, whatever the YAML says.

Rings that are joined by a bridge of zero width (Ultralytics' `merge_multi_segment`) need no care: along it every edge runs
twice, which the even-odd rule counts as not at all. That is how holes are written, too.

Source: docs.ultralytics.com/datasets/segment, and ultralytics 8.3, `data/utils.py` (what it takes), by what its files hold.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Collection, Iterable, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from numpy.typing import NDArray

from pixelwise.errors import MaskError
from pixelwise.formats.base import ExportImage, Format, ReadResult, copy_image, drawn_labels, painted, shape_name
from pixelwise.formats.dataset_root import DatasetRoot, make_layout
from pixelwise.formats.records import SPLITS, Problem, Record, short
from pixelwise.formats.shapes import Drawing, Polygon, Shape
from pixelwise.formats.yolo_splits import CLASS_LISTS, Told, choose, describe, label_path, yamls
from pixelwise.geometry.contours import Outline, Ring, trace
from pixelwise.imageio.images import IMAGE_SUFFIXES
from pixelwise.labels import Labels
from pixelwise.storage import write_atomic

_SLACK = 0.01  # as Ultralytics allows: tools round, and let points lie just beyond the border
_LOOKED_INTO = 20
_DIGITS = 8  # half a unit of the last is far less than half a pixel, up to images of ten million
_DESCRIPTION = "dataset.yaml"  # data.yaml is what pixelwise calls its own
# No two ways to read a number, or a long line that does not fit would be tried in all of them.
_LINE = re.compile(r"\s*\d+(\.0*)?(\s+[-+]?(\d+(\.\d*)?|\.\d+)([eE][-+]?\d+)?){4,}\s*")
_OUTLINE = "an outline: class x1 y1 x2 y2 x3 y3 …"


def detect(place: DatasetRoot) -> str | None:
    """Recognise a YAML with parts and names, or text files with a class and shares in each line."""
    for path in yamls(place):
        return f"{short(path, place.root)} names parts and classes"
    texts = {path for path in place.files if path.suffix == ".txt"}
    labels = (label_path(image, place.root) for image in place.images.paths) if texts else iter(())
    for path in islice((label for label in labels if label in texts and _is_filled(label)), _LOOKED_INTO):
        if _looks_like_labels(path):
            return f"{short(path, place.root)} holds classes and shares"
    return None


def read(place: DatasetRoot) -> ReadResult:
    """Find the images of each part, and read the text file of each.

    Raises:
        MaskError: a line that is no outline in shares, boxes for detection among them.
        LabelsError: names that cannot be those of classes.
        PairingError: an image in two parts.
        DataError: no images where the YAML says, or no text files.

    """
    told = describe(place)
    texts = {path for path in place.files if path.suffix == ".txt"}
    chosen, problems, notices = choose(place, told, texts)
    drawn, odd, more = _drawn(place, told, chosen, texts)
    problems += [*odd, *_orphans(place, texts)]
    names = told.names
    if names is None:
        names = {kind: f"class_{kind}" for kind in sorted({kind for _, _, rows in drawn for kind, _ in rows})}
        more.append(
            "nothing names the classes: they are called class_0, class_1, …; a classes.txt would, a name a line"
        )
    labels, unlabelled = drawn_labels(place, names.values(), ids=[kind + 1 for kind in names])
    records: dict[str, list[Record]] = defaultdict(list)
    for image, label, rows in drawn:
        shapes = tuple(Shape(shape_name(place, names[kind]), polygon) for kind, polygon in rows)
        drawing = Drawing(label, shapes, None, unlabelled, place.config.overlap or "area")
        records[chosen[image]].append(Record(place.images.id_of(image), image, label, source=drawing))
    return ReadResult(make_layout("YOLO label files", records, problems, (*told.notices, *notices, *more)), labels)


def _is_filled(path: Path) -> bool:
    try:
        return path.stat().st_size > 0
    except OSError:
        return False


def _looks_like_labels(path: Path) -> bool:
    """Tell by the first line: a class and numbers, which outside of labels/ have to be shares: other tables are many."""
    try:
        with path.open(encoding="utf-8-sig") as file:
            line = file.readline(100_000)
    except (OSError, UnicodeError):
        return False
    if _LINE.fullmatch(line) is None:
        return False
    return "labels" in path.parts or max(map(float, line.split()[1:])) <= 1 + _SLACK


def _orphans(place: DatasetRoot, texts: set[Path]) -> list[Problem]:
    """Find text files that belong to no image: all in labels/, elsewhere those that look like it."""
    images = (path for path in place.files if path.suffix.lower() in IMAGE_SUFFIXES)
    lost = texts - {label_path(image, place.root) for image in images}
    lost = {path for path in lost if path.name not in CLASS_LISTS}
    inside = (p for p in sorted(lost) if "labels" in p.relative_to(place.root).parts or _looks_like_labels(p))
    return [Problem(short(path, place.root), "label file without its image") for path in inside]


def _drawn(
    place: DatasetRoot, told: Told, chosen: Iterable[Path], texts: set[Path]
) -> tuple[list[tuple[Path, Path, list[tuple[int, Polygon]]]], list[Problem], list[str]]:
    """Read the text file of each image: image, text file and its rows; with problems and notices."""
    drawn: list[tuple[Path, Path, list[tuple[int, Polygon]]]] = []
    owner: dict[Path, Path] = {}
    problems: list[Problem] = []
    bad: list[MaskError] = []
    for image in chosen:
        label = label_path(image, place.root)
        if owner.setdefault(label, image) != image:
            why = f"second image of {short(label, place.root)} (also {owner[label].name})"
            problems.append(Problem(short(image, place.root), why))
            continue
        try:
            drawn.append((image, label, _rows(label, told) if label in texts else []))
        except MaskError as error:
            if not place.config.skip_bad:
                raise
            bad.append(error)
    if bad and not any(rows for *_, rows in drawn):
        raise bad[0]  # a set of another kind: none of its files can be used
    problems += [Problem(error.where, f"expected {error.expected}, found {error.found}", error.do) for error in bad]
    missing = len(owner.keys() - texts)
    told_of = [f"{missing} of {len(owner)} images have no label file: they are background, as YOLO has it"]
    return drawn, problems, told_of if missing else []


def _rows(path: Path, told: Told) -> list[tuple[int, Polygon]]:
    try:
        text = path.read_text("utf-8-sig")
    except (OSError, UnicodeError) as error:
        found = str(getattr(error, "strerror", None) or error)[:160]
        raise MaskError(path, expected="a text file in UTF-8", found=found, do="Export it again.") from error
    lines = enumerate(text.splitlines(), 1)
    return [_row(f"{path}:{number}", line, told) for number, line in lines if line.strip()]


def _row(where: str, line: str, told: Told) -> tuple[int, Polygon]:
    """Read `class x1 y1 x2 y2 …`; what lies a little beyond the image is cut off when it is filled."""

    def refuse(found: str, do: str, expected: str = _OUTLINE) -> MaskError:
        return MaskError(where, expected=expected, found=found, do=do)

    try:
        values = np.array(line.split(), np.float64)
    except ValueError:
        raise refuse(repr(line.strip()[:60]), "Correct the line, or export it again.") from None
    kind, points = values[0], values[1:]
    if not np.isfinite(values).all():
        raise refuse("NaN or infinity", "Correct the line, or export it again.")
    if kind != round(kind) or kind < 0 or (told.names is not None and kind not in told.names):
        wanted = "a class id 0, 1, 2, …"
        if told.names is not None:
            wanted = f"a class id {_spans(told.names)}, as {told.file.name} names them"
        raise refuse(f"{kind:g}", "Correct the line, or add the class to the names.", wanted)
    if len(points) == 4:
        do = "Draw outlines, or export the set for segmentation; --skip-bad leaves such images out."
        raise refuse("a box (class cx cy w h), as for detection", do)
    if len(points) % 2 or len(points) < 6:
        found = f"{len(points)} coordinates" if len(points) % 2 else f"{len(points) // 2} points"
        raise refuse(found, "Correct the line, or remove it.")
    worst = points[np.argmax(np.abs(points - 0.5))]
    if abs(worst - 0.5) > 0.5 + _SLACK:
        do = "Divide x by the image's width and y by its height."
        raise refuse(f"{worst:g}, as in pixels" if worst > 2 else f"{worst:g}", do, "coordinates as shares, 0…1")
    return int(kind), Polygon((points.reshape(-1, 2),), relative=True)


def _spans(kinds: Collection[int]) -> str:
    gapless = len(kinds) > 1 and max(kinds) - min(kinds) == len(kinds) - 1
    return f"{min(kinds)}–{max(kinds)}" if gapless else ", ".join(map(str, islice(kinds, 12))) or "(there is none)"


# Writing -------------------------------------------------------------------------------------------------------------


def cut_open(outline: Outline, bare: NDArray[np.bool_]) -> Ring:
    """Give the outline of a region as one ring: holes in which bare pixels show are joined to it by bridges of zero width.

    A bridge runs upwards from the topmost corner of a hole, through the region, to the first ring that it meets: the outer one,
    or that of a hole further up. So bridges are short, cross nothing that is bare, and are no longer in sum than the region has
    pixels. Other holes are painted over by what lies in them: that is smaller, and on top.

    Args:
        outline: one of `trace`.
        bare: (H, W) pixels that no region paints.

    """
    holes = _showing(outline.holes, bare) if outline.holes else []
    if not holes:
        return outline.outer
    points, starts, after = _chained((outline.outer, *holes))
    (x, y), before = points.T, np.argsort(after)
    keys = y * (bare.shape[1] + 1) + x
    highest = np.repeat(np.minimum.reduceat(keys, starts), np.diff(starts, append=len(points)))
    first = np.flatnonzero(keys == highest)[1:]  # one for each ring: the topmost corner, of several the left one
    edges = _edges_above(x, y, after, first)
    # Of each hole, its door in the edge above, the door again, and the corner where its ring ends as it began.
    doors = np.stack([x[first], y[edges]], 1)
    every = np.concatenate([points, doors, doors, points[first]])
    entry, leave, end = (np.arange(len(first)) + len(points) + k * len(first) for k in range(3))
    after[before[first]], after[starts[1] - 1] = end, -1
    way = [*after.tolist(), *first.tolist(), *[0] * len(first), *leave.tolist()]
    for hole in np.lexsort((x[first], edges))[::-1].tolist():  # the last along an edge is put in first
        edge = int(edges[hole])
        way[edge], way[leave[hole]] = int(entry[hole]), way[edge]
    walk, place = [], 0
    while place >= 0:
        walk.append(place)
        place = way[place]
    return every[walk].astype(np.float64)


def _chained(rings: Sequence[Ring]) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Give the points of all rings, where each ring begins, and which point follows each."""
    points = np.concatenate(rings).astype(np.int64)
    ends = np.cumsum([len(ring) for ring in rings])
    starts = np.concatenate([[0], ends[:-1]])
    after = np.arange(1, len(points) + 1)
    after[ends - 1] = starts
    return points, starts, after


def _showing(holes: Sequence[Ring], bare: NDArray[np.bool_]) -> list[Ring]:
    """Keep the holes in which bare pixels show.

    How many do is the sum, over the upright edges of a ring, of the bare pixels to the left of each, with its direction.
    """
    points, starts, after = _chained(holes)
    (left, top), (right, bottom) = points.min(0).tolist(), points.max(0).tolist()
    counts = np.zeros((bottom - top + 1, right - left + 1), np.int32)
    np.cumsum(bare[top:bottom, left:right], axis=0, dtype=np.int32, out=counts[1:, 1:])
    np.cumsum(counts, axis=1, dtype=np.int32, out=counts)
    x, y = points.T
    above = counts[y - top, x - left]
    seen = np.add.reduceat(np.where(x == x[after], above[after] - above, 0), starts)
    return [hole for hole, many in zip(holes, seen.tolist(), strict=True) if many]


def _edges_above(
    x: NDArray[np.int64], y: NDArray[np.int64], after: NDArray[np.int64], corners: NDArray[np.int64]
) -> NDArray[np.int64]:
    """Find the edge above each corner, the nearest with the region below it: those run to the right."""
    right = np.flatnonzero(x[after] > x)
    many = x[after[right]] - x[right]
    edges = np.repeat(right, many)
    columns = x[edges] + np.arange(len(edges)) - np.repeat(np.cumsum(many) - many, many)
    tall = int(y.max()) + 1
    keys = columns * tall + y[edges]
    order = np.argsort(keys)
    return edges[order[np.searchsorted(keys, x[corners] * tall + y[corners], sorter=order) - 1]]


class _Writer:
    """Write images and text files in two folders for each part, and a YAML as Ultralytics reads it."""

    def __init__(self, out: Path, labels: Labels) -> None:
        self.out, self.labels = out, labels
        self.unlabelled = painted(np.zeros((0, 0), np.uint8), labels)[1]
        self.kinds = {name: kind for kind, name in enumerate(n for n in labels.names if n != self.unlabelled)}
        self.splits: set[str] = set()

    def add(self, image: ExportImage) -> Path:
        """Write one ring for each region that is not background, the largest first."""
        target = self.out / "images" / image.split / f"{image.id}{image.image.suffix.lower()}"
        copy_image(image, target)
        self.splits.add(image.split)
        kinds = np.full(self.labels.ignore_index + 1, -1)
        kinds[: self.labels.num_classes] = [self.kinds.get(name, -1) for name in self.labels.names]
        mask = kinds[image.mask]
        bare = mask < 0
        lines = []
        for outline in trace(mask):
            if outline.id >= 0:
                shares = cut_open(outline, bare) / image.mask.shape[::-1]
                lines.append(f"{outline.id} {' '.join(map(_number, shares.reshape(-1).tolist()))}\n")
        write_atomic(label_path(target, self.out), "".join(lines))
        return target

    def close(self) -> dict[str, Any]:
        """Write the YAML; without `path`, which Ultralytics takes from the current folder, all starts from the YAML's own."""
        plain: dict[str, Any] = {split: f"images/{split}" for split in SPLITS if split in self.splits}
        plain["names"] = {kind: name for name, kind in self.kinds.items()}
        write_atomic(self.out / _DESCRIPTION, yaml.safe_dump(plain, sort_keys=False, allow_unicode=True))
        return {"format": "yolo", "annotations": _DESCRIPTION, "unlabelled": self.unlabelled}


def _number(share: float) -> str:
    return f"{share:.{_DIGITS}f}".rstrip("0").rstrip(".")


FORMAT = Format(
    "yolo",
    "YOLO segmentation",
    detect,
    read,
    _Writer,
    "pixels that count in nothing become background, where a class is called that; holes stay, cut open by bridges of zero"
    " width, which some tools draw as a line",
)
