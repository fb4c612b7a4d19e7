"""Masks that are drawn: shapes with class names, painted one over the other onto the grid of their image.

Comes in: outlines, run lengths or small bitmaps, as the reader of an annotation format found them, and the `Labels`. Goes
out: class indices (H, W). Knows nothing of files, formats or images.

A pixel belongs to an outline where its centre lies inside (see `outlines`). Where shapes overlap, the later one lies on top
("file"), or the smaller one ("area": a person before a bus is seen, whichever was drawn first).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from pixelwise.errors import MaskError
from pixelwise.formats.records import Record
from pixelwise.geometry.contours import Ring, fill
from pixelwise.geometry.run_lengths import fill as fill_runs
from pixelwise.geometry.run_lengths import unpack
from pixelwise.imageio.images import read_orientation
from pixelwise.imageio.raster import turn
from pixelwise.labels import Labels

Box = tuple[int, int, NDArray[np.bool_]]
Overlap = Literal["file", "area"]
_KEPT = 1 << 14


class Region(Protocol):
    """Some pixels of an image."""

    def cover(self, size: tuple[int, int]) -> Box:
        """Give row and column at which a box begins, and the box as a mask (h, w) within an image of (H, W).

        Raises:
            MaskError: what the region is made of cannot be understood; `where` names the region alone.
        """

    def parts(self) -> Iterable[bytes]:
        """Give all that makes the region, for a hash."""


@dataclass(frozen=True, eq=False)
class Polygon:
    """Hold rings (N, 2) of points x, y in pixels, or in shares of width and height where `relative`; rings in rings are holes."""

    rings: tuple[Ring, ...]
    relative: bool = False

    def cover(self, size: tuple[int, int]) -> Box:
        """Fill by the even-odd rule."""
        scale = np.array(size[::-1], np.float64) if self.relative else 1.0
        return fill(tuple(ring * scale for ring in self.rings), size)

    def parts(self) -> Iterable[bytes]:
        """Give the points, as float64."""
        yield b"polygon" + (b" relative" if self.relative else b"")
        for ring in self.rings:
            yield len(ring).to_bytes(8, "little")
            yield np.asarray(ring, "<f8").tobytes()


@dataclass(frozen=True, eq=False)
class Runs:
    """Hold COCO's compressed run lengths over a whole image of `size` (H, W); `name` is what messages call them."""

    counts: bytes
    size: tuple[int, int]
    name: str = "run lengths"

    def cover(self, size: tuple[int, int]) -> Box:
        """Decode the box around them.

        Raises:
            MaskError: another size than the image's, or run lengths that do not fill it.
        """
        wanted, fix = f"run lengths of {size[0]}×{size[1]} pixels, the image's height and width", "Export them again."
        if self.size != size:
            raise MaskError(self.name, expected=wanted, found=f"{self.size[0]}×{self.size[1]}", do=fix)
        runs = unpack(self.counts)
        if runs is None:
            raise MaskError(self.name, expected=wanted, found=f"{self.counts[:40]!r}", do=fix)
        try:
            return fill_runs(runs, size)
        except ValueError as error:
            raise MaskError(self.name, expected=wanted, found=str(error), do=fix) from error

    def parts(self) -> Iterable[bytes]:
        """Give the run lengths."""
        yield f"runs {self.size}".encode()
        yield self.counts


@dataclass(frozen=True, eq=False)
class Bitmap:
    """Hold a small mask (h, w) that begins at a row and column; packed, eight pixels a byte."""

    top: int
    left: int
    shape: tuple[int, int]
    packed: bytes

    @classmethod
    def of(cls, top: int, left: int, box: NDArray[Any]) -> Bitmap:
        """Pack a mask (h, w): what is not zero belongs to it."""
        return cls(top, left, (box.shape[0], box.shape[1]), np.packbits(box != 0).tobytes())

    def cover(self, size: tuple[int, int]) -> Box:
        """Unpack, and cut off what lies beyond the image."""
        bits = np.unpackbits(np.frombuffer(self.packed, np.uint8), count=self.shape[0] * self.shape[1])
        return _within(self.top, self.left, bits.reshape(self.shape).astype(bool), size)

    def parts(self) -> Iterable[bytes]:
        """Give place, shape and pixels."""
        yield f"bitmap {self.top} {self.left} {self.shape}".encode()
        yield self.packed


@dataclass(frozen=True, eq=False)
class Lengths:
    """Hold a mask (h, w) that begins at a row and column as run lengths: row by row, what does not belong to it first."""

    top: int
    left: int
    shape: tuple[int, int]
    runs: bytes

    @classmethod
    def of(cls, top: int, left: int, shape: tuple[int, int], runs: Sequence[int] | NDArray[np.int64]) -> Lengths:
        """Keep run lengths, four bytes each.

        Raises:
            ValueError: they are negative, or do not add up to the pixels of the mask.
        """
        lengths = np.asarray(runs, np.int64).reshape(-1)
        if (lengths < 0).any():
            raise ValueError("run lengths below zero")
        if lengths.sum(dtype=np.float64) != shape[0] * shape[1]:  # whole numbers could overflow to the right sum
            raise ValueError(f"run lengths of {lengths.sum(dtype=np.float64):.0f} for {shape[0] * shape[1]} pixels")
        return cls(top, left, shape, lengths.astype("<u4").tobytes())

    def cover(self, size: tuple[int, int]) -> Box:
        """Decode, and cut off what lies beyond the image."""
        lengths = np.frombuffer(self.runs, "<u4")
        box = np.repeat(np.arange(len(lengths)) % 2 == 1, lengths).reshape(self.shape)
        return _within(self.top, self.left, box, size)

    def parts(self) -> Iterable[bytes]:
        """Give place, shape and run lengths."""
        yield f"lengths {self.top} {self.left} {self.shape}".encode()
        yield self.runs


def _within(row: int, column: int, box: NDArray[np.bool_], size: tuple[int, int]) -> Box:
    """Cut off what lies beyond an image of (H, W)."""
    top, left = max(row, 0), max(column, 0)
    box = box[top - row : max(size[0] - row, 0), left - column : max(size[1] - column, 0)]
    return (top, left, box) if box.size else (0, 0, np.zeros((0, 0), bool))


def oval(centre: tuple[float, float], radii: tuple[float, float]) -> Ring:
    """Give the ring of an ellipse, (N, 2) points x, y; less than 0.04 pixels off up to a radius of 4000."""
    angle = np.linspace(0, 2 * np.pi, max(32, min(720, int(4 * max(radii)))), endpoint=False)
    return np.array(centre) + np.stack([np.cos(angle), np.sin(angle)], 1) * np.array(radii)


def turned(ring: Ring, pivot: tuple[float, float], degrees: float) -> Ring:
    """Turn points (N, 2) around a pivot, clockwise as seen on a screen."""
    cos, sin = np.cos(np.deg2rad(degrees)), np.sin(np.deg2rad(degrees))
    return (ring - np.array(pivot)) @ np.array([[cos, sin], [-sin, cos]]) + np.array(pivot)


@dataclass(frozen=True, eq=False)
class Several:
    """Hold regions that are one: what any of them covers."""

    regions: tuple[Region, ...]

    def cover(self, size: tuple[int, int]) -> Box:
        """Unite what they cover."""
        boxes = [box for region in self.regions if (box := region.cover(size))[2].size]
        if not boxes:
            return 0, 0, np.zeros((0, 0), bool)
        top, left = min(box[0] for box in boxes), min(box[1] for box in boxes)
        bottom = max(box[0] + box[2].shape[0] for box in boxes)
        right = max(box[1] + box[2].shape[1] for box in boxes)
        whole = np.zeros((bottom - top, right - left), bool)
        for row, column, mask in boxes:
            whole[row - top : row - top + mask.shape[0], column - left : column - left + mask.shape[1]] |= mask
        return top, left, whole

    def parts(self) -> Iterable[bytes]:
        """Give what makes each of them."""
        yield f"several {len(self.regions)}".encode()
        for region in self.regions:
            yield from region.parts()


@dataclass(frozen=True, eq=False)
class Shape:
    """Hold one region with the name of its class; None: its pixels count in nothing. Higher levels lie on top."""

    name: str | None
    region: Region
    level: int = 0


@dataclass(frozen=True, eq=False)
class Drawing:
    """Hold all shapes of one image.

    Args:
        file: the annotation file, for messages.
        shapes: in the order of the file.
        size: (H, W) of the image as the annotation says; None where nobody says.
        unlabelled: class of the pixels that no shape covers; None: they count in nothing.
        overlap: which shape lies on top.
    """

    file: Path
    shapes: tuple[Shape, ...]
    size: tuple[int, int] | None = None
    unlabelled: str | None = "background"
    overlap: Overlap = "file"

    @property
    def names(self) -> frozenset[str]:
        """Name the classes that occur."""
        return frozenset(name for name in (self.unlabelled, *(shape.name for shape in self.shapes)) if name is not None)

    def draw(self, labels: Labels, size: tuple[int, int]) -> NDArray[Any]:
        """Paint the shapes: class indices (H, W).

        Raises:
            MaskError: a class that the labels do not name, or a region that cannot be understood.
        """
        index: dict[str | None, int] = {name: place for place, name in enumerate(labels.names)}
        index[None] = labels.ignore_index
        for name in sorted(self.names):
            if name not in index:
                raise unknown_class(self.file, name, labels)
        canvas = np.full(size, index[self.unlabelled], labels.dtype)
        drawn: Iterable[tuple[Shape, Box | None]] = [(shape, None) for shape in self.shapes]
        if self.overlap == "area" and len(self.shapes) > 1:
            drawn = self._by_area(size)
        for shape, known in sorted(drawn, key=lambda one: one[0].level):
            top, left, box = known or self._cover(shape, size)
            canvas[top : top + box.shape[0], left : left + box.shape[1]][box] = index[shape.name]
        return canvas

    def _by_area(self, size: tuple[int, int]) -> list[tuple[Shape, Box | None]]:
        """Put the larger first; boxes are kept where they are small: a hundred that fill a slide would take all memory."""
        sized: list[tuple[int, Shape, Box | None]] = []
        for shape in self.shapes:
            cover = self._cover(shape, size)
            sized.append((int(np.count_nonzero(cover[2])), shape, cover if cover[2].size <= _KEPT else None))
        return [(shape, cover) for _, shape, cover in sorted(sized, key=lambda one: -one[0])]

    def _cover(self, shape: Shape, size: tuple[int, int]) -> Box:
        try:
            return shape.region.cover(size)
        except MaskError as error:
            where = f"{self.file}: {error.where}"
            raise MaskError(where, expected=error.expected, found=error.found, do=error.do) from error

    def digest(self) -> str:
        """Give the SHA-256, in hex, over names, regions and the rules by which they are painted."""
        total = hashlib.sha256(repr((self.size, self.unlabelled, self.overlap)).encode())
        for shape in self.shapes:
            total.update(repr((shape.name, shape.level)).encode("utf-8", "surrogatepass"))
            for part in shape.region.parts():
                total.update(part)
        return total.hexdigest()


def unknown_class(where: object, name: str, labels: Labels) -> MaskError:
    """Make the error for a class that the labels do not name."""
    shown = ", ".join(labels.names[:8]) + (", …" if labels.num_classes > 8 else "")
    do = f"Add {name!r} to the labels, or let its pixels count in nothing: data.ignored: [{name!r}]."
    return MaskError(where, expected=f"the classes {shown}", found=repr(name), do=do)


def draw_upright(record: Record, labels: Labels, size: tuple[int, int]) -> tuple[NDArray[Any], tuple[str, ...]]:
    """Make the mask of a record with a source, upright as its image is read.

    Annotation tools show images as EXIF turns them, and note that size. Where the size in the annotation is the one
    before turning, what was drawn is turned with the image.

    Args:
        record: with a `source`.
        labels: the classes.
        size: (H, W) of the image as it is read.

    Returns:
        The mask, of the annotation's own size where that is another, for the caller to refuse; and notices.
    """
    source = record.source
    assert source is not None
    noted = source.size or size
    if noted != size and noted == size[::-1]:
        orientation = read_orientation(record.image)
        if orientation >= 5:
            told = "what was drawn before EXIF turned the image is turned with it"
            return np.ascontiguousarray(turn(source.draw(labels, noted), orientation)), (told,)
    return source.draw(labels, noted), ()
