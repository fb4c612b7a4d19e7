"""Draw windows of an annotated image, so that the mask of a large scene is never drawn as a whole."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pixelwise.formats.records import Window
from pixelwise.formats.shapes import Drawing, Polygon, RowRLE, Shape
from pixelwise.labels import Labels


@dataclass(frozen=True, eq=False)
class DrawnWindow:
    """The shapes in a window of an image: a `MaskSource`.

    Args:
        drawing: the shapes that may reach into the window, in the order in which they are painted, in pixels of the whole image.
        window: top, left, height and width.
        whole: digest of the drawing of the whole image.
    """

    drawing: Drawing
    window: Window
    whole: str

    @property
    def size(self) -> tuple[int, int]:
        """(H, W) of the window."""
        return self.window[2:]

    @property
    def names(self) -> frozenset[str]:
        """Names of the classes that may occur."""
        return self.drawing.names

    def draw(self, labels: Labels, size: tuple[int, int]) -> NDArray[Any]:
        """Return class indices (H, W) of the window; raises as `Drawing.draw`."""
        top, left, *_ = self.window
        shapes = tuple(replace(shape, region=_moved(shape.region, top, left)) for shape in self.drawing.shapes)
        return replace(self.drawing, shapes=shapes).draw(labels, size)

    def digest(self) -> str:
        """Return the SHA-256, in hex, of the drawing and the window."""
        return hashlib.sha256(f"{self.whole} {self.window}".encode()).hexdigest()


def can_cut(drawing: Drawing) -> bool:
    """Whether windows can be drawn on their own: upright shapes, none of them in run lengths for the whole image."""
    upright = drawing.orientation == 1 or not drawing.stored
    return upright and all(isinstance(shape.region, Polygon | RowRLE) for shape in drawing.shapes)


def cut_drawing(drawing: Drawing, windows: Sequence[Window], size: tuple[int, int]) -> list[DrawnWindow]:
    """Return the part of a drawing in each window.

    Args:
        drawing: for which `can_cut` is true.
        windows: top, left, height and width of each.
        size: (H, W) of the image.
    """
    whole = drawing.digest()
    shapes = [replace(shape, region=_in_pixels(shape.region, size)) for shape in drawing.painted(size)]
    boxes = np.array([_box(shape, size) for shape in shapes]).reshape(-1, 4)
    found = []
    for top, left, height, width in windows:
        low, high = (left, top), (left + width, top + height)
        inside = (boxes[:, :2] < high).all(axis=1) & (boxes[:, 2:] > low).all(axis=1)
        chosen = tuple(shapes[index] for index in np.flatnonzero(inside).tolist())
        part = replace(drawing, shapes=chosen, overlap="file", size=None)
        found.append(DrawnWindow(part, (top, left, height, width), whole))
    return found


def _in_pixels(region: Any, size: tuple[int, int]) -> Polygon | RowRLE:
    """Return a region in pixels of an image of (H, W)."""
    if isinstance(region, Polygon) and region.relative:
        return Polygon(tuple(ring * np.array(size[::-1], np.float64) for ring in region.rings))
    assert isinstance(region, Polygon | RowRLE)
    return region


def _box(shape: Shape, size: tuple[int, int]) -> tuple[float, ...]:
    """Return left, top, right and bottom of a shape; an empty box without points."""
    points = shape.region.points(size)
    return (0.0, 0.0, 0.0, 0.0) if points is None else (*points.min(axis=0).tolist(), *points.max(axis=0).tolist())


def _moved(region: Any, top: int, left: int) -> Polygon | RowRLE:
    """Return a region in pixels of a window that begins at a row and column."""
    if isinstance(region, Polygon):
        return Polygon(tuple(ring - (left, top) for ring in region.rings))
    assert isinstance(region, RowRLE)
    return replace(region, top=region.top - top, left=region.left - left, clip=True)
