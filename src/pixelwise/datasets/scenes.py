"""Divide scenes into windows, and split the windows by blocks.

Training, checking and scoring read a scene window by window, so that none decodes it as a whole. Windows of one scene are neighbours,
and neighbours are alike: if windows were drawn for the val split one by one, each of them would be next to windows of train. With
many images, whole scenes are drawn. With few, blocks are: squares of the coordinate system, many windows wide if the scene is large,
with a buffer between blocks of different splits.
"""

from __future__ import annotations

import hashlib
import itertools
import math
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from pixelwise.config import SplitConfig
from pixelwise.errors import ConfigError, DataError
from pixelwise.formats.drawing_windows import DrawnWindow, can_cut, cut_drawing
from pixelwise.formats.records import Record, Window
from pixelwise.formats.shapes import Drawing
from pixelwise.grid import Grid
from pixelwise.imageio.images import read_header
from pixelwise.imageio.raster import Header
from pixelwise.imageio.windows import LARGE, WINDOWED

Box = tuple[float, float, float, float]  # smallest and largest coordinate: row, column, row, column
Splits = dict[str, tuple[Record, ...]]
_Pieces = list[tuple[int, int, int]]  # start, stop, number of the block

SIDE = 1024  # of the largest window, pixels
_FEWEST = 10  # images or groups: with fewer, no interval could be computed over them
_PER_SIDE = 4  # blocks along the shorter side of a scene
_BUFFER = 256  # pixels, half of the usual tile
_BUFFER_SHARE = 4  # at most this part of a block
_SMALLEST = 64  # pixels: side of the smallest block, and of what may be left of a window
_SAME = 1e-6  # pixels; differences due to rounding
_SHOWN_CRS = 16  # characters
_WHY_BLOCK = f"a quarter of the shorter side of the smallest scene, at least {SIDE:,} pixels"
_WHY_BUFFER = f"{_BUFFER} pixels, at most a quarter of a block"


@dataclass(frozen=True)
class Place:
    """Where the pixels of an image are, in a coordinate system whose axes are those of the image.

    Args:
        frame: the coordinate system: that of the CRS, or one of the image's own.
        origin: row and column coordinate of the corner of the first pixel.
        step: row and column coordinates per pixel.
        unit: of the coordinates.
    """

    frame: str
    origin: tuple[float, float]
    step: tuple[float, float]
    unit: str

    @classmethod
    def of(cls, id_: str, grid: Grid | None) -> Place:
        """Return the place of an image: by its CRS, unless it is rotated or has none."""
        if grid is None:
            return cls(id_, (0.0, 0.0), (1.0, 1.0), "px")
        if grid.affine is None or grid.crs is None or grid.affine[0][1] or grid.affine[1][0]:
            return cls(id_, (0.0, 0.0), (grid.spacing[0], grid.spacing[1]), grid.unit)
        (column_step, _, x), (_, row_step, y), _ = grid.affine
        frame = grid.crs if len(grid.crs) <= _SHOWN_CRS else hashlib.sha256(grid.crs.encode()).hexdigest()[:8]
        # Coordinates of an affine are those of pixel centres.
        return cls(frame, (y - row_step / 2, x - column_step / 2), (row_step, column_step), grid.unit)

    @property
    def pixel(self) -> float:
        """The longer side of a pixel."""
        return max(map(abs, self.step))

    def box(self, window: Window) -> Box:
        """Return the coordinates of a window."""
        top, left, height, width = window
        rows = sorted(self.origin[0] + self.step[0] * edge for edge in (top, top + height))
        columns = sorted(self.origin[1] + self.step[1] * edge for edge in (left, left + width))
        return rows[0], columns[0], rows[1], columns[1]

    def pixels(self, box: Box, margin: float) -> tuple[int, int, int, int]:
        """Return top, left, bottom and right of the pixels that a box touches, grown by a margin."""
        spans = []
        for axis in (0, 1):
            low, high = box[axis] - margin, box[axis + 2] + margin
            first, last = sorted((edge - self.origin[axis]) / self.step[axis] for edge in (low, high))
            spans.append((math.floor(first + _SAME), math.ceil(last - _SAME)))
        return spans[0][0], spans[1][0], spans[0][1], spans[1][1]


@dataclass(frozen=True)
class Division:
    """Images of a data set, with large ones divided into windows.

    Args:
        splits: records of images and windows; groups are blocks, if there are any.
        places: of the images that may have windows in several splits.
        sides: of the blocks, by the unit of the coordinates; empty without blocks.
        notices: what was done.
    """

    splits: Splits
    places: Mapping[Path, Place] = field(default_factory=dict)
    sides: Mapping[str, float] = field(default_factory=dict)
    notices: tuple[str, ...] = ()


def divide_scenes(
    splits: Mapping[str, tuple[Record, ...]], large: Mapping[Path, Header], config: SplitConfig, rule: str | None
) -> Division:
    """Divide images of more than `windows.LARGE` pixels into windows, and choose their groups.

    With `data.split.block`, or with fewer than ten images or groups, groups are blocks; other images of a format that is read by windows
    are then divided as well, if they are larger than a block. Otherwise all windows of a scene are one group.

    Args:
        splits: records of the data set.
        large: headers of large images.
        config: `data.split`.
        rule: `data.group`.

    Raises:
        ConfigError: blocks and `data.group`, or blocks of fewer than 64 pixels.
    """
    records = [record for group in splits.values() for record in group]
    scenes = {record.image: record for record in records if record.image in large and _is_divisible(record)}
    if config.block is not None and rule is not None:
        do = "Remove one of them."
        raise ConfigError("data.split.block", expected="blocks or data.group", found="both", do=do)
    few = rule is None and len({record.group or str(record.image) for record in records}) < _FEWEST
    if config.block is None and not (scenes and few):
        return _windows_of_scenes(dict(splits), scenes, large, config)
    headers = {record.image: read_header(record.image) for record in records if record.plane is None}
    places = {r.image: Place.of(r.id, headers[r.image].grid) for r in records if r.image in headers}
    sides = _sides(config.block, places, {path: headers[path] for path in (scenes or headers)})
    first = _origins(places, headers)
    divided: Splits = {}
    for split, group in splits.items():
        divided[split] = tuple(
            piece
            for record in group
            for piece in (
                [record]
                if record.plane is not None
                else _in_blocks(record, headers[record.image], places[record.image], sides, first)
            )
        )
    return Division(divided, places, sides, tuple(_block_notices(divided, scenes, sides, config)))


def _is_divisible(record: Record) -> bool:
    """Whether windows of a record can be read."""
    if record.plane is not None or record.window is not None:
        return False
    return record.source is None or (isinstance(record.source, Drawing) and can_cut(record.source))


def _windows_of_scenes(
    splits: Splits, scenes: Mapping[Path, Record], large: Mapping[Path, Header], config: SplitConfig
) -> Division:
    """Divide scenes into windows; all windows of a scene are one group."""
    divided: Splits = {}
    places = {}
    for split, records in splits.items():
        pieces: list[Record] = []
        for record in records:
            if record.image in scenes:
                rows, columns = (_windows(0, size, 0) for size in large[record.image].oriented_size)
                group = record.id if record.group is None else record.group
                pieces += _cut(record, large[record.image], rows, columns, lambda row, column, group=group: group)  # type: ignore[misc]
            else:
                pieces.append(record)
        divided[split] = tuple(pieces)
        for record in records:
            if record.window is not None and record.plane is None and record.image not in places:
                places[record.image] = Place.of(str(record.image), read_header(record.image).grid)
    notices = []
    if scenes:
        count = sum(record.image in scenes for group in divided.values() for record in group)
        notices.append(f"{_scenes(len(scenes))} read as {count} windows; all windows of a scene are in one split")
    if config.buffer and not places:
        notices.append("data.split.buffer has no effect, since no image is split by blocks (data.split.block)")
    return Division(divided, places, {}, tuple(notices))


def _scenes(count: int) -> str:
    return "1 scene is" if count == 1 else f"{count} scenes are"


def _sides(given: float | None, places: Mapping[Path, Place], headers: Mapping[Path, Header]) -> dict[str, float]:
    """Return the side of the blocks by unit: the one given, or a quarter of the shorter side of the smallest scene.

    A derived side is at least that of the largest window, in any of the scenes.
    """
    quarter: dict[str, float] = {}
    window: dict[str, float] = {}
    for place in places.values():
        if given is not None and given < _SMALLEST * place.pixel:
            raise ConfigError(
                "data.split.block",
                expected=f"blocks of at least {_SMALLEST} pixels, {_SMALLEST * place.pixel:g} {place.unit}",
                found=f"{given:g} {place.unit}",
                do="Enlarge them, or leave it out to derive the side.",
            )
    for path, header in headers.items():
        place = places[path]
        shorter = min(abs(step) * size for step, size in zip(place.step, header.oriented_size, strict=True))
        quarter[place.unit] = min(shorter / _PER_SIDE, quarter.get(place.unit, math.inf))
        window[place.unit] = max(SIDE * place.pixel, window.get(place.unit, 0))
    sides = {unit: max(side, window[unit]) if given is None else given for unit, side in quarter.items()}
    return {place.unit: sides.get(place.unit, math.inf) for place in places.values()}


def _origins(places: Mapping[Path, Place], headers: Mapping[Path, Header]) -> dict[str, tuple[float, float]]:
    """Return where the blocks of each frame begin: at the smallest coordinates of its images."""
    first: dict[str, tuple[float, float]] = {}
    for path, place in places.items():
        row, column, *_ = place.box((0, 0, *headers[path].oriented_size))
        before = first.get(place.frame, (row, column))
        first[place.frame] = min(row, before[0]), min(column, before[1])
    return first


def _in_blocks(
    record: Record, header: Header, place: Place, sides: Mapping[str, float], first: Mapping[str, tuple[float, float]]
) -> list[Record]:
    """Return the windows of an image with their blocks as groups; a small image belongs to the block of its centre."""
    side, size = sides[place.unit], header.oriented_size
    if math.isinf(side):
        return [record]
    lengths = [abs(step) * pixels for step, pixels in zip(place.step, size, strict=True)]
    exceeds = max(lengths) > side * (1 + _SAME) or math.prod(size) > LARGE
    divides = header.format in WINDOWED and _is_divisible(record) and exceeds
    rows, columns = (
        _axis(size[axis], place.origin[axis], place.step[axis], first[place.frame][axis], side, whole=not divides)
        for axis in (0, 1)
    )

    def group(row: int, column: int) -> str:
        return f"{place.frame} block {row},{column}"

    if not divides:
        return [replace(record, group=group(rows[0][2], columns[0][2]))]
    return _cut(record, header, rows, columns, group)


def _axis(size: int, origin: float, step: float, first: float, side: float, *, whole: bool) -> _Pieces:
    """Divide an axis of an image into windows, each in one block; less than half a block at an end belongs to its neighbour.

    Args:
        size: pixels.
        origin: coordinate of the first pixel's corner.
        step: coordinates per pixel.
        first: coordinate where the blocks begin.
        side: of a block.
        whole: return the whole axis with the block of its centre.
    """

    def number(start: int, stop: int) -> int:
        return math.floor((origin + step * (start + stop) / 2 - first) / side)

    if whole:
        return [(0, size, number(0, size))]
    ends = sorted((origin - first, origin + step * size - first))
    lines = range(math.ceil(ends[0] / side), math.floor(ends[1] / side) + 1)
    edges = sorted({round((first + line * side - origin) / step) for line in lines})
    half = side / abs(step) / 2
    edges = [edge for edge in edges if half <= edge <= size - half]
    return [
        window
        for start, stop in itertools.pairwise([0, *edges, size])
        for window in _windows(start, stop, number(start, stop))
    ]


def _windows(start: int, stop: int, block: int) -> _Pieces:
    """Divide a part of an axis evenly into windows."""
    count = -(-(stop - start) // SIDE)
    edges = np.linspace(start, stop, count + 1).astype(int).tolist()
    return [(low, high, block) for low, high in itertools.pairwise(edges)]


def _cut(
    record: Record, header: Header, rows: _Pieces, columns: _Pieces, group: Callable[[int, int], str]
) -> list[Record]:
    """Return the windows of an image; those that are ignored as a whole, since no shape reaches into them, are left out."""
    digits = [len(str(len(axis) - 1)) for axis in (rows, columns)]
    cut: list[Record] = []
    for (i, (top, bottom, row)), (j, (left, right, column)) in itertools.product(enumerate(rows), enumerate(columns)):
        id_ = f"{record.id}/{i:0{digits[0]}}-{j:0{digits[1]}}"
        cut.append(replace(record, id=id_, group=group(row, column), window=(top, left, bottom - top, right - left)))
    if not isinstance(record.source, Drawing):
        return cut
    windows = [each.window for each in cut if each.window is not None]
    drawn = cut_drawing(record.source, windows, header.oriented_size)
    cut = [replace(each, source=source) for each, source in zip(cut, drawn, strict=True)]
    shown = [each for each, source in zip(cut, drawn, strict=True) if source.drawing.shapes]
    return shown if shown and record.source.unlabelled is None else cut


def _block_notices(
    divided: Splits, scenes: Mapping[Path, Record], sides: Mapping[str, float], config: SplitConfig
) -> Iterator[str]:
    windows = [each for group in divided.values() for each in group if each.plane is None]
    known = {unit: side for unit, side in sides.items() if not math.isinf(side)}
    size = " and ".join(f"{side:.6g} {unit}" for unit, side in known.items())
    blocks = len({each.group for each in windows})
    read = f"{_scenes(len(scenes))} read as windows" if scenes else f"{len(windows)} images and windows"
    why = "as set" if config.block is not None else _WHY_BLOCK
    yield f"{read}: {len(windows)}, in {blocks} blocks of {size} (data.split.block: {why})"


def resolved_blocks(config: SplitConfig, description: Mapping[str, Any]) -> tuple[SplitConfig, str]:
    """Return `data.split` with the derived sizes of blocks and buffer, and their reasons; unchanged if there are no blocks.

    Args:
        config: `data.split`.
        description: of the split, from `DataSplits.description`.
    """
    found, reasons = {}, []
    for key, reason in (("block", _WHY_BLOCK), ("buffer", _WHY_BUFFER)):
        values = set(description.get(key, {}).values())
        if getattr(config, key) is None and len(values) == 1:  # images in several units have no common value
            found[key] = values.pop()
            reasons.append(f"{key}: {reason}")
    return config.model_copy(update=found), "; ".join(reasons)


# Buffer --------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Apart:
    """Splits with a buffer between them.

    Args:
        splits: without the windows, and parts of windows, that are in the buffer of another split.
        buffers: width by unit.
        lost: share of the pixels of each split that was left out.
    """

    splits: Splits
    buffers: Mapping[str, float]
    lost: Mapping[str, float]


def keep_apart(splits: Splits, division: Division, buffer: float | None) -> Apart:
    """Leave out what is nearer than the buffer to a split of higher rank: of train near val and test, of val near test.

    Args:
        splits: drawn from one pool.
        division: of the images.
        buffer: `data.split.buffer`, or None to derive it.

    Raises:
        DataError: nothing is left of a split.
    """
    records = [record for group in splits.values() for record in group]
    buffers = _buffers(records, division, buffer)
    taken: dict[str, list[Box]] = defaultdict(list)
    kept: Splits = {}
    lost: dict[str, float] = {}
    for split in sorted(splits, key=("test", "val", "train").index):
        boxes: dict[str, list[Box]] = defaultdict(list)
        pieces: list[Record] = []
        before = after = 0
        arrays = {frame: np.array(own) for frame, own in taken.items()}
        for record in splits[split]:
            place = division.places.get(record.image)
            if place is None:
                pieces.append(record)
                continue
            window = record.window or (0, 0, *read_header(record.image).oriented_size)
            left = _outside(window, place, arrays.get(place.frame), buffers[place.unit])
            before += window[2] * window[3]
            if left is None:
                continue
            after += left[2] * left[3]
            boxes[place.frame].append(place.box(left))
            pieces.append(record if left == window else _narrowed(record, left))
        if splits[split] and not pieces:
            raise DataError(
                "data.split.buffer",
                expected=f"images of {split} farther than {_described(buffers)} from the other splits",
                found="none",
                do="Lower data.split.buffer, or choose another data.split.seed.",
            )
        for frame, own in boxes.items():
            taken[frame] += own
        kept[split] = tuple(pieces)
        lost[split] = 1 - after / before if before else 0.0
    return Apart({split: kept[split] for split in splits}, buffers, lost)


def _buffers(records: Sequence[Record], division: Division, given: float | None) -> dict[str, float]:
    """Return the width of the buffer by unit."""
    buffers: dict[str, float] = {}
    for record in records:
        place = division.places.get(record.image)
        if place is None:
            continue
        side = division.sides.get(place.unit, math.inf)
        if record.window is not None and not division.sides:
            side = min(abs(step) * size for step, size in zip(place.step, record.window[2:], strict=True))
        width = min(_BUFFER * place.pixel, side / _BUFFER_SHARE) if given is None else given
        buffers[place.unit] = min(width, buffers.get(place.unit, width))
    return buffers


def _outside(window: Window, place: Place, taken: np.ndarray | None, buffer: float) -> Window | None:
    """Return the largest part of a window that is farther than the buffer from some boxes; None if there is too little."""
    if taken is None:
        return window
    low, left, high, right = place.box(window)
    grown = buffer - _SAME * place.pixel
    near = (
        (taken[:, 0] - grown < high)
        & (taken[:, 2] + grown > low)
        & (taken[:, 1] - grown < right)
        & (taken[:, 3] + grown > left)
    )
    part: Window | None = window
    for box in taken[near].tolist():
        part = None if part is None else _without(part, place.pixels(tuple(box), buffer))
    if part is None or min(part[2:]) < min(_SMALLEST, min(window[2:]) / 2):
        return None
    return part


def _without(window: Window, other: tuple[int, int, int, int]) -> Window | None:
    """Return the largest rectangle of a window that is outside of another one: above, below, left or right of it."""
    top, left, height, width = window
    bottom, right = top + height, left + width
    if other[0] >= bottom or other[2] <= top or other[1] >= right or other[3] <= left:
        return window
    parts = [
        (top, left, other[0] - top, width),
        (other[2], left, bottom - other[2], width),
        (top, left, height, other[1] - left),
        (top, other[3], height, right - other[3]),
    ]
    largest = max(parts, key=lambda part: max(part[2], 0) * max(part[3], 0))
    return largest if min(largest[2:]) > 0 else None


def _narrowed(record: Record, window: Window) -> Record:
    source = record.source
    return replace(
        record, window=window, source=replace(source, window=window) if isinstance(source, DrawnWindow) else source
    )


def _described(lengths: Mapping[str, float]) -> str:
    return " and ".join(f"{value:.6g} {unit}" for unit, value in lengths.items())


def apart_notices(apart: Apart) -> Iterator[str]:
    """Describe how wide the buffer is, and how much was left out for it."""
    if any(apart.buffers.values()):
        lost = [f"{100 * share:.1f} % of {split}" for split, share in apart.lost.items() if share]
        yield f"splits are {_described(apart.buffers)} apart (data.split.buffer): {' and '.join(lost) or 'nothing'} is left out"
