"""The regions of a mask: connected pixels of one class, with their sizes.

Areas, positions and holes are exact for images of any size, since components are found band by band. Contours are traced in a second pass over
blocks of rows; regions whose bounding boxes have more than 16 million pixels have none, nor have those of less than 16 pixels.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from pixelwise.grid import Grid
from pixelwise.measuring.components import BAND_PIXELS, Components, find_components
from pixelwise.measuring.masks import MaskSource, bands
from pixelwise.measuring.region_contour import area_bound, contour, longest_axis, perimeter
from pixelwise.measuring.region_length import CentreLine, centre_line, length_and_width, may_be_thin
from pixelwise.measuring.scale import Scale, pixels
from pixelwise.tiles import Window
from pixelwise.types import Measurement, Region

# Pixels. The perimeters of smaller discs are up to 30 % wrong.
SMALLEST_CONTOUR = 16
LARGEST_BOX = 1 << 24
_COUNT = "pixel count; low to high of an area: what the size of the pixels leaves open"
_NO_CONTOUR = f"no contour: fewer than {SMALLEST_CONTOUR} pixels, or a box of more than {LARGEST_BOX:,}"
_SMOOTHED = "marching squares after a Gaussian of 1 px"


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
    contours = dict(_contours(mask, scale, found, band_pixels)) if len(mask.shape) == 2 else {}
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
            holes=None if found.holes is None else int(found.holes[i]),
            confidence=None if confidence is None or np.isnan(confidence[i]) else float(confidence[i]),
            measurements=_measurements(unit, scale, found, i, contours.get(i)),
        )
        for i in range(len(found.pixels))
    ]


def _measurements(
    unit: tuple[str, float], scale: Scale, found: Components, i: int, lengths: _Lengths | None
) -> dict[str, Measurement]:
    """Return the sizes of region i."""
    name = "area" if found.start.shape[1] == 2 else "volume"
    of_sizes, factor = unit
    value = factor * float(found.size[i])
    if lengths is None:
        note = None if name == "volume" else _NO_CONTOUR
        return {name: Measurement(value, of_sizes, _COUNT, note=note)}
    bound = factor * area_bound(lengths.around_pixels, scale, (found.centroid[i, 0], found.centroid[i, 1]))
    thin = {}
    if lengths.line is not None and found.holes is not None:
        thin = length_and_width(lengths.line, scale, lengths.around, float(found.size[i]), int(found.holes[i]))
    area = Measurement(value, of_sizes, _COUNT, low=max(value - bound, 0.0), high=value + bound)
    return {
        name: area,
        "perimeter": Measurement(lengths.around, scale.unit, _SMOOTHED),
        "longest_axis": Measurement(lengths.axis, scale.unit, f"largest distance within the contour, {_SMOOTHED}"),
    } | thin


def _contours(
    mask: MaskSource, scale: Scale, found: Components, band_pixels: int
) -> Iterator[tuple[int, _Lengths]]:
    """Yield the number of each region with a contour, and its lengths."""
    rows = max(band_pixels // mask.shape[1], 1)
    flat = pixels(2, "")
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
        for i in chosen.tolist():
            inside = _region(values, (top, left), found, i, mask.shape[1])
            origin = tuple(found.start[i].tolist())
            segments = contour(inside, scale, origin)
            around, around_pixels = perimeter(segments, scale), perimeter(segments, flat)
            thin = may_be_thin(around, float(found.size[i]))
            line = centre_line(inside, scale, around_pixels, origin) if thin else None
            yield i, _Lengths(around, around_pixels, longest_axis(segments, scale), line)


def _starting_in(band: Window, found: Components, kept: NDArray[np.bool_]) -> NDArray[np.intp]:
    return np.flatnonzero(kept & (found.start[:, 0] >= band.start[0]) & (found.start[:, 0] < band.stop[0]))


def _region(
    values: NDArray[np.generic], origin: tuple[int, int], found: Components, i: int, width: int
) -> NDArray[np.bool_]:
    """Cut region i out of a window that begins at `origin`: its bounding box without other regions of its class."""
    start, stop = found.start[i] - origin, found.stop[i] - origin
    inside = values[start[0] : stop[0], start[1] : stop[1]] == found.class_index[i]
    if int(inside.sum()) == found.pixels[i]:
        return inside
    numbered, _ = ndimage.label(inside, np.ones((3, 3), int))
    row, column = np.array(divmod(int(found.first[i]), width)) - found.start[i]
    return np.asarray(numbered == numbered[row, column])
