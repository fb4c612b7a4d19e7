"""The contour of a region between pixels: its length, and the longest straight distance between two of its points.

Counting pixel edges overestimates the perimeter of a disc by 27 % and of a diagonal by 41 %. Here the region is smoothed by a Gaussian of 1 px (the
longer side of oblong pixels), and the contour is the level line of marching squares. The level is the one that encloses as many pixels as the region has, so that neither
small regions nor thin ones shrink.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter
from scipy.spatial import ConvexHull, QhullError

from pixelwise.measuring.scale import Scale

Floats = NDArray[np.float64]
_CUT_OFF = 4  # standard deviations of the Gaussian
_WIDEST = 8.0  # standard deviation in pixels
_ALL_PAIRS = 64
_TILE = 128  # more than twice the reach of the widest Gaussian
_SPARSE = 16  # times as many pixels in the bounding box as in the region
# Ends of the level line in a cell of four pixels, by which of them are inside: top left 1, top right 2, bottom right 4, bottom left 8.
# Edges of the cell: 0 top, 1 right, 2 bottom, 3 left. Both diagonal cases separate the corners that are outside.
_SEGMENTS: dict[int, tuple[tuple[int, int], ...]] = {
    1: ((3, 0),),
    2: ((0, 1),),
    3: ((3, 1),),
    4: ((1, 2),),
    5: ((0, 1), (2, 3)),
    6: ((0, 2),),
    7: ((3, 2),),
    8: ((2, 3),),
    9: ((0, 2),),
    10: ((0, 3), (1, 2)),
    11: ((1, 2),),
    12: ((1, 3),),
    13: ((0, 1),),
    14: ((0, 3),),
}


def contour(region: NDArray[np.bool_], scale: Scale, origin: tuple[int, int] = (0, 0)) -> Floats:
    """Return the contour of a region as segments (N, 2, 2), each from (row, column) to (row, column), in no order.

    Args:
        region: (H, W), not empty. The outside of the array counts as outside of the region.
        scale: of the image, for the shape of its pixels.
        origin: added to the positions.
    """
    sides = pixel_sides(region, scale, origin)
    smooth, level, corners = _smoothed_tiles(region, sides)
    inside = (smooth >= level).astype(np.int8)
    kind = inside[:, :-1, :-1] + 2 * inside[:, :-1, 1:] + 4 * inside[:, 1:, 1:] + 8 * inside[:, 1:, :-1]
    tile, rows, columns = np.nonzero((kind > 0) & (kind < 15))
    kind = kind[tile, rows, columns]
    around = ((0, 0), (0, 1), (1, 1), (1, 0))  # top left, top right, bottom right, bottom left
    ends = _crossings(*(smooth[tile, rows + down, columns + right] - level for down, right in around))
    places = np.stack([rows, columns], -1) + corners[tile]
    found = []
    for case, segments in _SEGMENTS.items():
        chosen = np.flatnonzero(kind == case)
        if len(chosen):
            found += [places[chosen][:, None] + ends[chosen][:, list(pair)] for pair in segments]
    return np.concatenate(found) + np.array(origin)


def _smoothed_tiles(region: NDArray[np.bool_], sides: Floats) -> tuple[Floats, float, NDArray[np.intp]]:
    """Return a smoothed region as tiles (T, h, w), the level, and the positions (T, 2) of their first pixels relative to the region's.

    A region that fills its box is one tile; of others, such as diagonal lines, only the tiles that they reach are smoothed, with the same values.
    The last rows and columns of tiles are the first ones of their neighbours.
    """
    if region.size <= _SPARSE * int(region.sum()):
        smooth, level, halo = smoothed(region, sides)
        return smooth[None], level, -halo[None]
    sigma, halo = _gaussian(sides, 1.0)
    count = -(-(np.array(region.shape) + 2 * halo) // _TILE)
    # Of pixels that are padded by the halo, tile k holds rows _TILE · k to _TILE · (k + 1), and needs as many more as the halo has.
    reached = [
        np.stack([(place - 1) // _TILE, (place + 2 * side) // _TILE]).clip(0, number - 1)
        for place, side, number in zip(np.nonzero(region), halo, count, strict=True)
    ]
    tiles = np.unique(np.concatenate([row * count[1] + column for row in reached[0] for column in reached[1]]))
    firsts = _TILE * np.stack(np.divmod(tiles, count[1]), -1)
    size = _TILE + 1 + 2 * halo
    padding = [(2 * h, n * _TILE + s - length) for h, n, s, length in zip(halo, count, size, region.shape, strict=True)]
    padded = np.pad(region, padding)
    values = np.stack([padded[row : row + size[0], column : column + size[1]] for row, column in firsts.tolist()])
    smooth = gaussian_filter(values.astype(np.float64), (0.0, *sigma.tolist()), truncate=_CUT_OFF, mode="constant")
    smooth = smooth[:, halo[0] : -halo[0], halo[1] : -halo[1]]
    return smooth, _level(smooth[:, :-1, :-1], int(region.sum())), firsts - halo


def smoothed(
    region: NDArray[np.bool_], sides: Floats, deviation: float = 1.0
) -> tuple[Floats, float, NDArray[np.intp]]:
    """Return a region smoothed by a Gaussian, the level that encloses as many pixels as it has, and by how many pixels it was padded.

    Args:
        region: (*S), not empty.
        sides: (n,), of a pixel, in any unit.
        deviation: standard deviation of the Gaussian as a share of the longest side.
    """
    sigma, halo = _gaussian(sides, deviation)
    padded = np.pad(region, [(side, side) for side in halo.tolist()]).astype(np.float64)
    smooth = gaussian_filter(padded, sigma.tolist(), truncate=_CUT_OFF, mode="constant")
    return smooth, _level(smooth, int(region.sum())), halo


def _gaussian(sides: Floats, deviation: float) -> tuple[Floats, NDArray[np.intp]]:
    """Return the standard deviation of the Gaussian in pixels per axis, and how far it reaches, and a pixel more."""
    sigma = np.minimum(deviation * sides.max() / sides, _WIDEST)
    return sigma, np.ceil(_CUT_OFF * sigma).astype(np.intp) + 1


def pixel_sides(region: NDArray[np.bool_], scale: Scale, origin: tuple[int, ...]) -> Floats:
    """Return the sides of a pixel in the middle of a region, (n,); of a square if pixels have no size there (above a horizon)."""
    middle = np.argwhere(region).mean(axis=0) + np.array(origin)
    sides = np.linalg.norm(scale.jacobians(middle[None])[0], axis=0)
    return np.asarray(sides if (sides > 0).all() else np.ones_like(sides))


def perimeter(segments: Floats, scale: Scale) -> float:
    """Return the total length of the segments of a contour in the unit of the scale."""
    steps = segments[:, 1] - segments[:, 0]
    matrices = scale.jacobians(segments.mean(1))
    return float(np.linalg.norm(np.einsum("nij,nj->ni", matrices, steps), axis=1).sum())


def longest_axis(segments: Floats, scale: Scale) -> float:
    """Return the largest distance between two points of a contour in the unit of the scale (the maximum Feret diameter)."""
    points = _extreme(segments.reshape(-1, segments.shape[-1]))
    first, second = np.triu_indices(len(points), 1)
    return float(scale.distances(points[first], points[second]).max())


def area_bound(pixels_along: float, scale: Scale, at: tuple[float, float]) -> float:
    """Return by how much the area of a region can differ from what its pixels were drawn from, in the unit of the scale, squared.

    A pixel belongs to a region if its centre does. Where a smooth contour crosses a pixel, at most half of it is counted wrongly, and a contour of
    P pixels crosses at most √2·P of them.

    Args:
        pixels_along: length of the contour in pixels.
        scale: of the image.
        at: (row, column) of the region.
    """
    matrix = scale.jacobians(np.array([at]))[0]
    return float(np.sqrt(0.5) * pixels_along * abs(np.linalg.det(matrix)))


def _level(smooth: Floats, pixels: int) -> float:
    """Return the level that encloses a number of pixels: between the `pixels`-th largest value and the next one."""
    values = smooth.reshape(-1)
    place = len(values) - pixels
    part = np.partition(values, (place - 1, place))
    return max(float(part[place - 1] + part[place]) / 2, np.finfo(np.float64).tiny)


def _crossings(top_left: Floats, top_right: Floats, bottom_right: Floats, bottom_left: Floats) -> Floats:
    """Return where the level crosses the edges of cells, (N, 4, 2), linearly interpolated, relative to the top left pixel; arbitrary elsewhere."""
    ends = np.empty((len(top_left), 4, 2))
    ends[:, 0] = np.stack([np.zeros_like(top_left), _share(top_left, top_right)], -1)
    ends[:, 1] = np.stack([_share(top_right, bottom_right), np.ones_like(top_left)], -1)
    ends[:, 2] = np.stack([np.ones_like(top_left), _share(bottom_left, bottom_right)], -1)
    ends[:, 3] = np.stack([_share(top_left, bottom_left), np.zeros_like(top_left)], -1)
    return ends


def _share(first: Floats, second: Floats) -> Floats:
    """Return where a line from `first` to `second` is 0, as a share of the way."""
    difference = first - second
    return first / np.where(difference == 0, 1, difference)


def _extreme(points: Floats) -> Floats:
    """Return the corners of the convex hull of points (N, 2), or the points if they are few or on a line."""
    if len(points) <= _ALL_PAIRS:
        return points
    try:
        return points[ConvexHull(points).vertices]
    except QhullError:
        return points[[points[:, 0].argmin(), points[:, 0].argmax(), points[:, 1].argmin(), points[:, 1].argmax()]]
