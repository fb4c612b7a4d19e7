"""Place annotated shapes on their images: in which orientation they were drawn, and whether they cover any pixel.

Cameras store images turned and note that in EXIF. Some tools draw on the image as it is shown, others on the image as it is
stored, and the size in the annotation need not tell which, since exporting programs often note the stored size of an image
that was annotated upright. Points beyond one of the two frames prove the other one, also for the other images of the same
annotation file. Without such points, the noted size decides.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pixelwise.errors import MaskError
from pixelwise.formats.records import Record, short
from pixelwise.formats.shapes import CocoRLE, Drawing, Shape

UNCOVERED = "shapes cover no pixel: "
_SHOWN = 3
_TOLERANCE = 0.005  # of a side, beside one pixel: tools allow points slightly outside
_LIKELY_COVERING = 1.1  # ratio of area and contour from which a shape without a pixel would be no ordinary polygon
_SCALED = 1.1  # ratio of the extent of shapes and the size of images, in both directions, that is reported

Splits = Mapping[str, tuple[Record, ...]]


def place_shapes(splits: Splits, root: Path) -> tuple[dict[str, tuple[Record, ...]], list[str]]:
    """Decide for images with an EXIF orientation how shapes were drawn, and count the shapes that cover no pixel.

    Args:
        splits: records whose drawings know the image (see `reading.require_pair`).
        root: the folder that paths in messages are relative to.

    Returns:
        The records, and notices.
    """
    records = [record for each in splits.values() for record in each]
    with np.errstate(invalid="ignore"):  # infinite coordinates are reported when the mask is drawn
        placed, notices = _orient(records, root)
        splits = {split: tuple(placed.get(id(record), record) for record in each) for split, each in splits.items()}
        notices += _uncovered([record for each in splits.values() for record in each], root)
    return splits, notices


# Orientation ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Turned:
    """An image with an EXIF orientation and shapes."""

    record: Record
    drawing: Drawing
    upright: tuple[int, int]  # (H, W)

    @property
    def stored(self) -> tuple[int, int]:
        """(H, W) as stored."""
        return self.upright[::-1] if self.drawing.orientation >= 5 else self.upright

    @property
    def noted(self) -> bool | None:
        """Whether the annotation notes the stored size; None if it notes none, or both are equal."""
        if self.drawing.size is None or self.stored == self.upright:
            return None
        return self.drawing.size == self.stored

    def proof(self) -> bool | None:
        """Return whether the shapes were drawn on the stored image if only one of the frames holds them, else None."""
        if self.stored == self.upright:
            return None
        sizes = {shape.region.size for shape in self.drawing.shapes if isinstance(shape.region, CocoRLE)}
        if len(sizes) == 1:
            return sizes.pop() == self.stored
        points = _Points.of(self.drawing, None).points
        if not len(points):
            return None
        extent = np.concatenate([points.min(0), points.max(0)])
        in_stored, in_upright = (_holds(size, extent) for size in (self.stored, self.upright))
        return None if in_stored == in_upright else in_stored


def _holds(size: tuple[int, int], extent: NDArray[np.float64]) -> bool:
    """Return whether a frame (H, W) holds left, top, right, bottom."""
    side = np.array(size[::-1], np.float64)
    margin = 1 + _TOLERANCE * side
    return bool((extent[:2] >= -margin).all() and (extent[2:] <= side + margin).all())


def _orient(records: Sequence[Record], root: Path) -> tuple[dict[int, Record], list[str]]:
    """Return the records of turned images with the decision, by the id of the object, and notices."""
    files = Counter(record.mask for record in records)
    groups: dict[Path | None, list[_Turned]] = defaultdict(list)
    for record in records:
        drawing = record.source
        if isinstance(drawing, Drawing) and drawing.orientation != 1 and drawing.shapes and drawing.image_size:
            # Files with one image each are of one tool.
            group = record.mask if files[record.mask] > 1 else None
            groups[group].append(_Turned(record, drawing, drawing.image_size))
    placed: dict[int, Record] = {}
    contrary: dict[bool, list[Record]] = {False: [], True: []}  # by whether shapes were drawn on the stored image
    unproven: dict[bool, list[Record]] = {False: [], True: []}
    for turned in groups.values():
        proofs = [one.proof() for one in turned]
        notes = [one.noted for one in turned]
        votes = Counter((noted, proof) for noted, proof in zip(notes, proofs, strict=True) if proof is not None)
        for one, proof, noted in zip(turned, proofs, notes, strict=True):
            # Images with equal sizes before and after follow those that are noted.
            alike = [noted] if noted is not None else [True, False, None]
            before, after = (sum(votes[each, way] for each in alike) for way in (True, False))
            default = any(notes) if noted is None else noted
            stored = proof if proof is not None else default if before == after else before > after
            if noted is not None and noted != stored:
                contrary[stored].append(one.record)
            elif not before + after and noted is not False:
                unproven[stored].append(one.record)
            placed[id(one.record)] = replace(one.record, source=replace(one.drawing, stored=stored))
    return placed, [*_contrary_notices(contrary, root), *_unproven_notices(unproven, root)]


def _contrary_notices(records: Mapping[bool, Sequence[Record]], root: Path) -> Iterator[str]:
    if records[False]:
        text = "annotations note the size before EXIF rotation, but shapes reach beyond it: they were drawn on the upright image"
        yield f"{text} ({_some(records[False], root)})"
    if records[True]:
        text = "annotations note the upright size, but shapes reach beyond it: they are rotated with their images, as EXIF says"
        yield f"{text} ({_some(records[True], root)})"


def _unproven_notices(records: Mapping[bool, Sequence[Record]], root: Path) -> Iterator[str]:
    doubt = "with an EXIF orientation, and no shape shows whether it was drawn before or after that rotation"
    for stored, own in records.items():
        if own:
            many = "1 image" if len(own) == 1 else f"{len(own)} images"
            choice = "the noted sizes say before: shapes are rotated" if stored else "shapes are used as drawn after it"
            yield f"{many} {doubt}: {choice}; inspect some ({_some(own, root)})"


def _some(records: Sequence[Record], root: Path) -> str:
    names = [short(record.image, root) for record in records]
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more


# Coverage ------------------------------------------------------------------------------------------------------------


def _uncovered(records: Sequence[Record], root: Path) -> list[str]:
    """Count the shapes that cover no pixel, by class, and name their images and files."""
    classes: Counter[str] = Counter()
    images: list[Record] = []
    files: dict[Path, None] = {}
    total = 0
    reach = np.zeros(2)
    seen: set[Path] = set()  # several records can be blocks of one image
    for record in records:
        drawing = record.source
        if not isinstance(drawing, Drawing) or not drawing.image_size or not drawing.shapes or record.image in seen:
            continue
        seen.add(record.image)
        total += len(drawing.shapes)
        empty = _empty_shapes(drawing)
        if empty:
            classes.update(shape.name or "ignored" for shape in empty)
            images.append(record)
            files[drawing.file] = None
            reach = np.maximum(reach, _reach(drawing))
    if not images:
        return []
    counts = ", ".join(f"{count} {name}" for name, count in sorted(classes.items()))
    shown = ", ".join(short(path, root) for path in list(files)[:_SHOWN]) + (", …" if len(files) > _SHOWN else "")
    text = f"{sum(classes.values())} of {total} {UNCOVERED}{counts}, in {_some(images, root)} ({shown})"
    if reach.min() > _SCALED:
        width, height = (f"{ratio:.2g}" for ratio in reach.tolist())
        text += (
            f"; they reach to {width} times the width and {height} times the height of the images, which may have been"
        )
        text += " scaled down after labelling"
    return [text]


def _empty_shapes(drawing: Drawing) -> list[Shape]:
    """Return the shapes that cover no pixel; only those whose box, area or run lengths suggest it are drawn."""
    assert drawing.image_size is not None
    size = drawing.image_size
    frame = size[::-1] if drawing.stored and drawing.orientation >= 5 else size
    found = _Points.of(drawing, frame)
    suspects = list(found.without)
    if found.shapes:
        boxes = found.boxes()
        # Pixel centres are at 0.5, 1.5, …
        first, last = (np.clip(np.ceil(corner - 0.5), 0, frame[::-1]) for corner in (boxes[:, :2], boxes[:, 2:]))
        beyond = (boxes[:, :2] < 0).any(1) | (boxes[:, 2:] > frame[::-1]).any(1)
        unlikely = beyond | (last <= first).any(1) | (found.thickness() < _LIKELY_COVERING)
        suspects += [found.shapes[k] for k in np.flatnonzero(unlikely).tolist()]
    return [shape for shape in suspects if not _covers(shape, frame)]


def _covers(shape: Shape, frame: tuple[int, int]) -> bool:
    try:
        return bool(shape.region.rasterize(frame)[2].any())
    except MaskError:
        return True  # reported when the mask is drawn


def _reach(drawing: Drawing) -> NDArray[np.float64]:
    """Return how far the shapes reach to the right and below, as multiples of the image's width and height."""
    assert drawing.image_size is not None
    points = _Points.of(drawing, drawing.image_size).points
    return np.asarray((points / np.array(drawing.image_size[::-1])).max(axis=0, initial=0), np.float64)


@dataclass(frozen=True)
class _Points:
    """The points (N, 2) of the shapes that have some, where each shape begins, and the other shapes."""

    shapes: list[Shape]
    points: NDArray[np.float64]
    starts: NDArray[np.int64]
    without: list[Shape]

    @classmethod
    def of(cls, drawing: Drawing, frame: tuple[int, int] | None) -> _Points:
        """Collect the points of a drawing in pixels of an image of (H, W)."""
        pairs = [(shape, shape.region.points(frame)) for shape in drawing.shapes]
        rings = [points for _, points in pairs if points is not None]
        lengths = np.array([len(points) for points in rings], np.int64)
        return cls(
            [shape for shape, points in pairs if points is not None],
            np.concatenate(rings) if rings else np.zeros((0, 2)),
            np.cumsum(lengths) - lengths,
            [shape for shape, points in pairs if points is None],
        )

    def boxes(self) -> NDArray[np.float64]:
        """Return left, top, right, bottom of each shape."""
        least, most = (reduce.reduceat(self.points, self.starts) for reduce in (np.minimum, np.maximum))
        return np.concatenate([least, most], axis=1)

    def thickness(self) -> NDArray[np.float64]:
        """Return the area of each shape divided by the length of its contour; several rings are joined to one."""
        after = np.append(self.points[1:], self.points[:1], axis=0)
        after[np.append(self.starts[1:], len(after)) - 1] = self.points[self.starts]
        cross = self.points[:, 0] * after[:, 1] - after[:, 0] * self.points[:, 1]
        length = np.add.reduceat(np.abs(after - self.points).max(1), self.starts)
        return np.asarray(np.abs(np.add.reduceat(cross, self.starts)) / 2 / np.maximum(length, 1e-9), np.float64)
