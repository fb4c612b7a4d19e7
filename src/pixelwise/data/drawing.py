"""Masks that are drawn: shapes with class names, painted one over the other onto the grid of their picture.

Comes in: outlines, run lengths or small bitmaps, as the reader of an annotation format found them, and the `Labels`. Goes
out: class indices (H, W). Knows nothing of files, formats or pictures.

A pixel belongs to an outline where its centre lies inside (see `outlines`). Where shapes overlap, the later one lies on top
("file"), or the smaller one ("area": a person before a bus is seen, whichever was drawn first).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from pixelwise.data.images import read_orientation
from pixelwise.data.raster import turn
from pixelwise.data.records import Record
from pixelwise.errors import MaskError
from pixelwise.labels import Labels
from pixelwise.outlines import Ring, fill

Box = tuple[int, int, NDArray[np.bool_]]
Overlap = Literal["file", "area"]


class Region(Protocol):
    """Some pixels of a picture."""

    def cover(self, size: tuple[int, int]) -> Box:
        """Give row and column at which a box begins, and the box as a mask (h, w) within a picture of (H, W)."""

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
    """Hold COCO's compressed run lengths over a whole picture of `size` (H, W), as pycocotools writes them."""

    counts: bytes
    size: tuple[int, int]

    def cover(self, size: tuple[int, int]) -> Box:
        """Decode; a size that is not the picture's is an error of the reader."""
        from pycocotools import mask as coder  # 20 ms, and most data sets hold no such file

        left, top, width, height = (int(v) for v in coder.toBbox({"size": list(self.size), "counts": self.counts}))
        whole = coder.decode({"size": list(self.size), "counts": self.counts})
        return top, left, whole[top : top + height, left : left + width].astype(bool)

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
        """Unpack, and cut off what lies beyond the picture."""
        bits = np.unpackbits(np.frombuffer(self.packed, np.uint8), count=self.shape[0] * self.shape[1])
        box = bits.reshape(self.shape).astype(bool)
        top, left = max(self.top, 0), max(self.left, 0)
        box = box[top - self.top : max(size[0] - self.top, 0), left - self.left : max(size[1] - self.left, 0)]
        return (top, left, box) if box.size else (0, 0, np.zeros((0, 0), bool))

    def parts(self) -> Iterable[bytes]:
        """Give place, shape and pixels."""
        yield f"bitmap {self.top} {self.left} {self.shape}".encode()
        yield self.packed


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
    """Hold all shapes of one picture.

    Args:
        file: the annotation file, for messages.
        shapes: in the order of the file.
        size: (H, W) of the picture as the annotation says; None where nobody says.
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
            MaskError: a class that the labels do not name.
        """
        index: dict[str | None, int] = {name: place for place, name in enumerate(labels.names)}
        index[None] = labels.ignore_index
        for name in sorted(self.names):
            if name not in index:
                raise unknown_class(self.file, name, labels)
        canvas = np.full(size, index[self.unlabelled], labels.dtype)
        covers = [(shape, *shape.region.cover(size)) for shape in self.shapes]
        if self.overlap == "area":
            covers.sort(key=lambda cover: -int(np.count_nonzero(cover[3])))
        for shape, top, left, box in sorted(covers, key=lambda cover: cover[0].level):
            canvas[top : top + box.shape[0], left : left + box.shape[1]][box] = index[shape.name]
        return canvas

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
    """Make the mask of a record with a source, upright as its picture is read.

    Annotation tools show pictures as EXIF turns them, and note that size. Where the size in the annotation is the one
    before turning, what was drawn is turned with the picture.

    Args:
        record: with a `source`.
        labels: the classes.
        size: (H, W) of the picture as it is read.

    Returns:
        The mask, of the annotation's own size where that is another, for the caller to refuse; and notices.
    """
    source = record.source
    assert source is not None
    noted = source.size or size
    if noted != size and noted == size[::-1]:
        orientation = read_orientation(record.image)
        if orientation >= 5:
            told = "what was drawn before EXIF turned the picture is turned with it"
            return np.ascontiguousarray(turn(source.draw(labels, noted), orientation)), (told,)
    return source.draw(labels, noted), ()
