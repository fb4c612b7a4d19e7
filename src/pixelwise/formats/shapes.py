"""Rasterise annotated shapes: paint polygons and run lengths with class names onto the pixel grid of their image.

A pixel belongs to a polygon if its centre is inside (see `geometry.contours`). Where shapes overlap, the later one is on
top ("file"), or the smaller one ("area").
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
from pixelwise.imageio.raster import apply_orientation
from pixelwise.labels import Labels

MAX_PIXELS = 400_000_000
Crop = tuple[int, int, NDArray[np.bool_]]
Overlap = Literal["file", "area"]
_CACHED_CROP = 1 << 14  # pixels


class Region(Protocol):
    """A set of pixels of an image, in vector or run-length form."""

    def rasterize(self, size: tuple[int, int]) -> Crop:
        """Return top row, left column and mask (h, w) of a box that contains the region, clipped to an image of (H, W).

        Raises:
            MaskError: the region is malformed; `where` names only the region.
        """

    def points(self, size: tuple[int, int] | None) -> NDArray[np.float64] | None:
        """Return points (N, 2) whose box holds the region, in pixels of an image of (H, W).

        None if the region is in run lengths for the whole image; or if it is in fractions, and no size is given.
        """

    def content(self) -> Iterable[bytes]:
        """Yield everything that defines the region, for a hash."""


@dataclass(frozen=True, eq=False)
class Polygon:
    """Rings (N, 2) of points x, y in pixels, or in fractions of width and height if `relative`; a ring in a ring is a hole."""

    rings: tuple[Ring, ...]
    relative: bool = False

    def rasterize(self, size: tuple[int, int]) -> Crop:
        """Fill the rings."""
        scale = np.array(size[::-1], np.float64) if self.relative else 1.0
        return fill(tuple(ring * scale for ring in self.rings), size)

    def points(self, size: tuple[int, int] | None) -> NDArray[np.float64] | None:
        """Return the points of all rings."""
        if (self.relative and size is None) or not any(map(len, self.rings)):
            return None
        points = self.rings[0] if len(self.rings) == 1 else np.concatenate(self.rings)
        return points * np.array(size[::-1], np.float64) if self.relative and size is not None else points

    def content(self) -> Iterable[bytes]:
        """Yield the points as float64."""
        yield b"polygon" + (b" relative" if self.relative else b"")
        for ring in self.rings:
            yield len(ring).to_bytes(8, "little")
            yield np.asarray(ring, "<f8").tobytes()


@dataclass(frozen=True, eq=False)
class CocoRLE:
    """COCO's compressed run lengths for an image of `size` (H, W); `name` is used in messages."""

    counts: bytes
    size: tuple[int, int]
    name: str = "run lengths"

    def rasterize(self, size: tuple[int, int]) -> Crop:
        """Decode the bounding box."""
        found = None
        runs = unpack(self.counts)
        if self.size != size:
            found = f"{self.size[0]}×{self.size[1]}"
        elif runs is None:
            found = f"{self.counts[:40]!r}"
        else:
            try:
                return fill_runs(runs, size)
            except ValueError as error:
                found = str(error)
        expected = f"run lengths for {size[0]}×{size[1]} pixels, the image's height and width"
        raise MaskError(self.name, expected=expected, found=found, do="Export the annotations again.")

    def points(self, size: tuple[int, int] | None) -> None:
        """Return None: the box is not known before decoding."""

    def content(self) -> Iterable[bytes]:
        """Yield size and run lengths."""
        yield f"runs {self.size}".encode()
        yield self.counts


@dataclass(frozen=True, eq=False)
class RowRLE:
    """A mask (h, w) at a row and column as run lengths (uint32), row by row, starting with zeros.

    It may reach beyond the image if `clip` is set.
    """

    top: int
    left: int
    shape: tuple[int, int]
    runs: bytes
    clip: bool = True

    @classmethod
    def from_runs(cls, top: int, left: int, shape: tuple[int, int], runs: Sequence[int] | NDArray[np.int64]) -> RowRLE:
        """Check and keep run lengths.

        Raises:
            ValueError: negative run lengths, or a sum that is not h·w.
        """
        lengths = np.asarray(runs, np.int64).reshape(-1)
        if (lengths < 0).any():
            raise ValueError("negative run lengths")
        if lengths.sum(dtype=np.float64) != shape[0] * shape[1]:  # an integer sum could overflow
            raise ValueError(f"run lengths of {lengths.sum(dtype=np.float64):.0f} for {shape[0] * shape[1]} pixels")
        return cls(top, left, shape, lengths.astype("<u4").tobytes())

    def rasterize(self, size: tuple[int, int]) -> Crop:
        """Decode, and clip to the image."""
        beyond = self.top + self.shape[0] > size[0] or self.left + self.shape[1] > size[1]
        if not self.clip and beyond:
            found = f"{self.shape[1]}×{self.shape[0]} pixels at {self.left}, {self.top}"
            expected = f"a mask within the image of {size[1]}×{size[0]} pixels"
            raise MaskError("a mask", expected=expected, found=found, do="Export the annotations again.")
        lengths = np.frombuffer(self.runs, "<u4")
        mask = np.repeat(np.arange(len(lengths)) % 2 == 1, lengths).reshape(self.shape)
        top = max(self.top, 0)
        left = max(self.left, 0)
        mask = mask[top - self.top : max(size[0] - self.top, 0), left - self.left : max(size[1] - self.left, 0)]
        return (top, left, mask) if mask.size else (0, 0, np.zeros((0, 0), bool))

    def points(self, size: tuple[int, int] | None) -> NDArray[np.float64]:
        """Return the corners of the box."""
        bottom, right = self.top + self.shape[0], self.left + self.shape[1]
        if len(self.runs) <= 4:  # zeros only
            return np.full((3, 2), (self.left, self.top), np.float64)
        return np.array([(self.left, self.top), (right, self.top), (right, bottom), (self.left, bottom)], np.float64)

    def content(self) -> Iterable[bytes]:
        """Yield position, shape and run lengths."""
        yield f"lengths {self.top} {self.left} {self.shape}".encode()
        yield self.runs


def row_runs(mask: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Encode a mask (h, w) as run lengths, row by row, starting with zeros."""
    flat = np.concatenate([[False], mask.reshape(-1)])
    ends = np.flatnonzero(np.diff(flat))
    return np.diff(np.append(ends, mask.size), prepend=0)


def finite_points(values: Any, limit: float = np.inf) -> NDArray[np.float64]:
    """Convert numbers or strings to points (N, 2).

    Raises:
        ValueError: an odd number of values, NaN, infinity, or an absolute value above `limit`.
        TypeError, OverflowError: values that are not numbers.
    """
    array = np.array(values, np.float64)
    if array.size % 2 or (array.ndim == 2 and array.size and array.shape[1] != 2):
        raise ValueError("points that are not pairs x, y")
    if not (np.isfinite(array) & (np.abs(array) <= limit)).all():
        raise ValueError("coordinates that are not finite or out of range")
    return array.reshape(-1, 2)


def rectangle(left: float, top: float, right: float, bottom: float) -> Ring:
    """Return the corners (4, 2) of a rectangle.

    Raises:
        ValueError: a negative size.
    """
    if right < left or bottom < top:
        raise ValueError("a negative size")
    return np.array([(left, top), (right, top), (right, bottom), (left, bottom)], np.float64)


def ellipse(centre: tuple[float, float], radii: tuple[float, float]) -> Ring:
    """Return an ellipse as a ring (N, 2), with an error below 0.04 pixels up to a radius of 4000.

    Raises:
        ValueError: a negative radius.
    """
    if min(radii) < 0:
        raise ValueError("a negative size")
    angle = np.linspace(0, 2 * np.pi, max(32, min(720, int(4 * max(radii)))), endpoint=False)
    return np.array(centre) + np.stack([np.cos(angle), np.sin(angle)], 1) * np.array(radii)


def rotate(ring: Ring, pivot: tuple[float, float], degrees: float) -> Ring:
    """Rotate points (N, 2) around a pivot, clockwise on screen.

    Raises:
        ValueError: an angle that is not finite.
    """
    if not np.isfinite(degrees):
        raise ValueError("a rotation that is not finite")
    cos, sin = np.cos(np.deg2rad(degrees)), np.sin(np.deg2rad(degrees))
    return (ring - np.array(pivot)) @ np.array([[cos, sin], [-sin, cos]]) + np.array(pivot)


@dataclass(frozen=True, eq=False)
class Shape:
    """A region with the name of its class (None: ignored pixels); higher levels are on top."""

    name: str | None
    region: Region
    level: int = 0


@dataclass(frozen=True, eq=False)
class Drawing:
    """All shapes of one image, in the order of the file: a `MaskSource`."""

    file: Path  # with the annotation
    shapes: tuple[Shape, ...]
    size: tuple[int, int] | None = None  # (H, W) according to the annotation; None if not given
    unlabelled: str | None = "background"  # class of the pixels without a shape; None: they are ignored
    overlap: Overlap = "file"
    image_size: tuple[int, int] | None = (
        None  # (H, W) of the upright image, and its EXIF orientation, once it is opened
    )
    orientation: int = 1
    stored: bool = False  # whether the shapes were drawn on the image before EXIF rotation (see `shape_placement`)

    @property
    def names(self) -> frozenset[str]:
        """Names of the classes that occur."""
        return frozenset(name for name in (self.unlabelled, *(shape.name for shape in self.shapes)) if name is not None)

    def draw(self, labels: Labels, size: tuple[int, int]) -> NDArray[Any]:
        """Paint the shapes: class indices (H, W).

        Raises:
            MaskError: a class that is not in the labels, or a malformed region.
        """
        index = class_indices(self.file, self.names, labels)
        mask = np.full(size, index[self.unlabelled], labels.dtype)
        painted: Iterable[tuple[Shape, Crop | None]] = [(shape, None) for shape in self.shapes]
        if self.overlap == "area" and len(self.shapes) > 1:
            painted = self._by_area(size)
        for shape, cached in sorted(painted, key=lambda item: item[0].level):
            top, left, crop = cached or self._rasterize(shape, size)
            mask[top : top + crop.shape[0], left : left + crop.shape[1]][crop] = index[shape.name]
        return mask

    def painted(self, size: tuple[int, int]) -> tuple[Shape, ...]:
        """Return the shapes in the order in which they are painted on an image of (H, W), except for their levels."""
        if self.overlap == "file" or len(self.shapes) < 2:
            return self.shapes
        return tuple(shape for shape, _ in self._by_area(size))

    def _by_area(self, size: tuple[int, int]) -> list[tuple[Shape, Crop | None]]:
        """Sort by area, the largest first. Only small crops are kept: many large ones would exhaust memory."""
        rows: list[tuple[int, Shape, Crop | None]] = []
        for shape in self.shapes:
            crop = self._rasterize(shape, size)
            rows.append((int(np.count_nonzero(crop[2])), shape, crop if crop[2].size <= _CACHED_CROP else None))
        return [(shape, crop) for _, shape, crop in sorted(rows, key=lambda row: -row[0])]

    def _rasterize(self, shape: Shape, size: tuple[int, int]) -> Crop:
        try:
            return shape.region.rasterize(size)
        except MaskError as error:
            where = f"{self.file}: {error.where}"
            raise MaskError(where, expected=error.expected, found=error.found, do=error.do) from error

    def digest(self) -> str:
        """Return the SHA-256, in hex, of names, regions and painting rules."""
        stored = (self.orientation,) if self.stored else ()
        digest = hashlib.sha256(repr((self.size, self.unlabelled, self.overlap, *stored)).encode())
        for shape in self.shapes:
            digest.update(repr((shape.name, shape.level)).encode("utf-8", "surrogatepass"))
            for content in shape.region.content():
                digest.update(content)
        return digest.hexdigest()


def class_indices(where: object, names: Iterable[str], labels: Labels) -> dict[str | None, int]:
    """Map class names to class indices, and None to the ignore index.

    Raises:
        MaskError: one of `names` is not in the labels.
    """
    for name in sorted(set(names) - set(labels.names)):
        shown = ", ".join(labels.names[:8]) + (", …" if labels.num_classes > 8 else "")
        do = f"Add {name!r} to the labels, or ignore its pixels: data.ignored: [{name!r}]."
        raise MaskError(where, expected=f"the classes {shown}", found=repr(name), do=do)
    return {**{name: index for index, name in enumerate(labels.names)}, None: labels.ignore_index}


def draw_upright(record: Record, labels: Labels, size: tuple[int, int]) -> tuple[NDArray[Any], tuple[str, ...]]:
    """Make the mask of a record with a source, in the orientation in which its image is read.

    Shapes that were drawn before EXIF rotation, and masks of the size before rotation, are rotated with the image.

    Args:
        record: with a source.
        labels: the classes.
        size: (H, W) of the upright image.

    Returns:
        The mask, in the annotation's size (which can differ from `size`), and notices.
    """
    source = record.source
    assert source is not None
    annotated = source.size or size
    orientation = 1
    if isinstance(source, Drawing) and source.orientation != 1:
        orientation = source.orientation if source.stored else 1
        annotated = size[::-1] if orientation >= 5 else size
    elif annotated != size and annotated == size[::-1]:
        exif = read_orientation(record.image)
        orientation = exif if exif >= 5 else 1
    mask = source.draw(labels, annotated)
    if orientation == 1:
        return mask, ()
    notice = "annotations made before EXIF rotation are rotated with their images"
    return np.ascontiguousarray(apply_orientation(mask, orientation)), (notice,)
