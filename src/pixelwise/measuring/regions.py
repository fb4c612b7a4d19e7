"""The regions of a mask: connected pixels of one class, with their sizes.

Areas, positions and holes are exact for images of any size, since components are found band by band. Contours are traced in a second pass over
blocks of rows; regions whose bounding boxes have more than 16 million pixels have none, nor have those of less than 16 pixels. The same holds for
the surfaces of volumes.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from pixelwise.grid import Grid
from pixelwise.measuring.components import BAND_PIXELS, Components, find_components
from pixelwise.measuring.ground_plane import GroundPlane
from pixelwise.measuring.masks import MaskSource, bands
from pixelwise.measuring.region_contour import area_bound, contour, longest_axis, perimeter
from pixelwise.measuring.region_length import CentreLine, centre_line, length_and_width, may_be_thin
from pixelwise.measuring.region_surface import cavities, longest_axis_in_slice, surface, surface_area
from pixelwise.measuring.region_surface import longest_axis as longest_axis_3d
from pixelwise.measuring.scale import Scale, pixels
from pixelwise.tiles import Window
from pixelwise.types import Measurement, Region

# Pixels. The perimeters of smaller discs are up to 30 % wrong.
SMALLEST_CONTOUR = 16
LARGEST_BOX = 1 << 24
_COUNT = "pixel count; low to high of an area: what the size of the pixels leaves open"
_NO_CONTOUR = f"no contour: fewer than {SMALLEST_CONTOUR} pixels, or a box of more than {LARGEST_BOX:,}"
_NO_SURFACE = _NO_CONTOUR.replace("contour", "surface").replace("pixels", "voxels")
_SMOOTHED = "marching squares after a Gaussian of 1 px"
_AXIS = "largest distance between two points of the contour or surface, after a Gaussian of 1 px"
_FOOT = "from the origin of the ground coordinates to the middle of the lower edge of the bounding box"
_CUBES = "marching cubes after a Gaussian of 1 voxel"


@dataclass(frozen=True, eq=False)
class _Lengths:
    """What follows from the contour of a region.

    Args:
        around: perimeter in the unit of the scale.
        around_pixels: perimeter in pixels.
        axis: the longest axis in the unit of the scale.
        line: the centre line of a region that may be thin.
    """

    around: float
    around_pixels: float
    axis: float
    line: CentreLine | None


@dataclass(frozen=True, eq=False)
class _Surface:
    """What follows from the surface of a region of a volume: its area, the longest axes in the unit of the scale, and the number of cavities."""

    area: float
    axis: float
    axis_in_slice: float
    cavities: int


def find_regions(
    mask: MaskSource, scale: Scale, grid: Grid, unit: tuple[str, float], *, band_pixels: int = BAND_PIXELS
) -> list[Region]:
    """Return the regions of all classes, in the order of their first pixels.

    Args:
        mask: (H, W) or (D, H, W). Pixels that touch at a corner are connected.
        scale: of the image.
        grid: gives world coordinates to the centroids.
        unit: of areas or volumes, and by what sizes in the unit of the scale are multiplied.
        band_pixels: about how many pixels are read at a time.
    """
    found = find_components(mask, scale, band_pixels=band_pixels)
    flat = len(mask.shape) == 2
    contours = dict(_contours(mask, scale, found, band_pixels)) if flat else {}
    surfaces = {} if flat else dict(_surfaces(mask, scale, found))
    confidence = found.confidence
    world = grid.to_world(found.centroid) if grid.affine is not None and len(found.pixels) else None
    return [
        Region(
            image=mask.id,
            number=i + 1,
            class_index=int(found.class_index[i]),
            class_name=mask.labels.names[found.class_index[i]],
            pixels=int(found.pixels[i]),
            window=Window(tuple(found.start[i].tolist()), tuple(found.stop[i].tolist())),
            centroid=tuple(found.centroid[i].tolist()),
            position=None if world is None else tuple(world[i].tolist()),
            touches_border=bool(found.border[i]),
            holes=int(found.holes[i]) if found.holes is not None else surfaces[i].cavities if i in surfaces else None,
            confidence=None if confidence is None or np.isnan(confidence[i]) else float(confidence[i]),
            measurements=(
                _measurements(unit, scale, found, i, contours.get(i)) | _distance(scale, found.start[i], found.stop[i])
                if flat
                else _sizes_of_volume(unit, scale, float(found.size[i]), surfaces.get(i))
            ),
        )
        for i in range(len(found.pixels))
    ]


def _measurements(
    unit: tuple[str, float], scale: Scale, found: Components, i: int, lengths: _Lengths | None
) -> dict[str, Measurement]:
    """Return the sizes of region i of an image."""
    of_sizes, factor = unit
    value = factor * float(found.size[i])
    if lengths is None:
        return {"area": Measurement(value, of_sizes, _COUNT, note=_NO_CONTOUR)}
    bound = factor * area_bound(lengths.around_pixels, scale, (found.centroid[i, 0], found.centroid[i, 1]))
    thin = {}
    if lengths.line is not None and found.holes is not None:
        thin = length_and_width(lengths.line, scale, lengths.around, float(found.size[i]), int(found.holes[i]))
    area = Measurement(value, of_sizes, _COUNT, low=max(value - bound, 0.0), high=value + bound)
    return {
        "area": area,
        "perimeter": Measurement(lengths.around, scale.unit, _SMOOTHED),
        "longest_axis": Measurement(lengths.axis, scale.unit, _AXIS),
    } | thin


def _distance(scale: Scale, start: NDArray[np.intp], stop: NDArray[np.intp]) -> dict[str, Measurement]:
    """Return the distance of a region on a ground plane, where it stands: at the middle of the lower edge of its bounding box."""
    if not isinstance(scale, GroundPlane):
        return {}
    foot = np.array([[stop[0] - 0.5, (start[1] + stop[1] - 1) / 2]])
    distance = float(scale.distances_from((0.0, 0.0), foot)[0])
    return {} if np.isnan(distance) else {"distance": Measurement(distance, scale.unit, _FOOT)}


def _sizes_of_volume(
    unit: tuple[str, float], scale: Scale, size: float, enclosing: _Surface | None
) -> dict[str, Measurement]:
    """Return the sizes of a region of a volume, of which `size` is in the unit of the scale."""
    volume = Measurement(unit[1] * size, unit[0], "voxel count", note=_NO_SURFACE if enclosing is None else None)
    if enclosing is None:
        return {"volume": volume}
    return {
        "volume": volume,
        "surface": Measurement(enclosing.area, f"{scale.unit}²", _CUBES),
        "longest_axis": Measurement(enclosing.axis, scale.unit, _AXIS),
        "longest_axis_in_slice": Measurement(
            enclosing.axis_in_slice, scale.unit, f"largest distance within the contour in one slice, {_SMOOTHED}"
        ),
    }


def _surfaces(mask: MaskSource, scale: Scale, found: Components) -> Iterator[tuple[int, _Surface]]:
    """Yield the number of each region of a volume that has a surface, and what follows from it. The volume is read as a whole."""
    kept = np.flatnonzero((found.pixels >= SMALLEST_CONTOUR) & ((found.stop - found.start).prod(axis=1) <= LARGEST_BOX))
    if not len(kept):
        return
    cut = _Cut(mask.read(Window((0, 0, 0), mask.shape)), (0, 0, 0), mask.shape, found)
    for i in kept.tolist():
        inside = cut.region(i)
        origin = tuple(found.start[i].tolist())
        triangles = surface(inside, scale, origin)
        yield (
            i,
            _Surface(
                area=surface_area(triangles, scale),
                axis=longest_axis_3d(triangles, scale),
                axis_in_slice=longest_axis_in_slice(inside, scale, origin),
                cavities=cavities(inside),
            ),
        )


def _contours(mask: MaskSource, scale: Scale, found: Components, band_pixels: int) -> Iterator[tuple[int, _Lengths]]:
    """Yield the number of each region with a contour, and its lengths; none along the background, which is what lies between."""
    rows = max(band_pixels // mask.shape[1], 1)
    flat, holes = pixels(2, ""), np.zeros(0) if found.holes is None else found.holes
    names = mask.labels.names
    background = -1 if mask.labels.background is None else names.index(mask.labels.background)
    kept = (found.pixels >= SMALLEST_CONTOUR) & ((found.stop - found.start).prod(axis=1) <= LARGEST_BOX)
    tall = found.stop[:, 0] - found.start[:, 0] > rows
    blocks = [
        (band.start[0], 0, mask.shape[1], _starting_in(band, found, kept & ~tall)) for band in bands(mask.shape, rows)
    ]
    blocks += [(*found.start[i].tolist(), int(found.stop[i, 1]), np.array([i])) for i in np.flatnonzero(kept & tall)]
    for top, left, right, chosen in blocks:
        if not len(chosen):
            continue
        values = mask.read(Window((top, left), (int(found.stop[chosen, 0].max()), right)))
        cut = _Cut(values, (top, left), mask.shape, found)
        for i in chosen.tolist():
            inside = cut.region(i)
            origin = tuple(found.start[i].tolist())
            segments = contour(inside, scale, origin)
            around, around_pixels = perimeter(segments, scale), perimeter(segments, flat)
            thin = may_be_thin(around, float(found.size[i])) and found.class_index[i] != background
            thin = thin and not isinstance(scale, GroundPlane)  # whose pixels differ too much along a line
            line = centre_line(inside, scale, around_pixels, int(holes[i]), origin) if thin else None
            yield i, _Lengths(around, around_pixels, longest_axis(segments, scale), line)


def _starting_in(band: Window, found: Components, kept: NDArray[np.bool_]) -> NDArray[np.intp]:
    return np.flatnonzero(kept & (found.start[:, 0] >= band.start[0]) & (found.start[:, 0] < band.stop[0]))


class _Cut:
    """Regions in a window, cut out of their bounding boxes without other regions of their classes. The window contains them as a whole.

    Args:
        values: class indices in the window.
        start: where the window begins.
        shape: of the mask.
        found: the regions.
    """

    def __init__(
        self, values: NDArray[np.generic], start: tuple[int, ...], shape: tuple[int, ...], found: Components
    ) -> None:
        self.values, self.start, self.shape, self.found = values, np.array(start), shape, found
        self.numbered: dict[int, NDArray[np.integer]] = {}

    def region(self, i: int) -> NDArray[np.bool_]:
        """Return region i in its bounding box."""
        low, high = self.found.start[i] - self.start, self.found.stop[i] - self.start
        box = Window(tuple(low.tolist()), tuple(high.tolist())).slices
        class_index = int(self.found.class_index[i])
        inside = np.asarray(self.values[box] == class_index)
        if int(inside.sum()) == self.found.pixels[i]:
            return inside
        if class_index not in self.numbered:  # once per class, since regions that interleave have the same box
            around = np.ones((3,) * len(self.shape), int)
            self.numbered[class_index] = ndimage.label(self.values == class_index, around)[0]
        numbered = self.numbered[class_index]
        first = np.array(np.unravel_index(self.found.first[i], self.shape)) - self.start
        return np.asarray(numbered[box] == numbered[tuple(first)])
