"""The surface of a region of a volume between voxels: its area, and the longest straight distance between two of its points.

Counting the faces of voxels overestimates the surface of a sphere by 50 %. Here the region is smoothed by a Gaussian of one voxel (the longest side of
oblong voxels), and the surface is that of marching cubes, at the level that encloses as many voxels as the region has.
"""

from __future__ import annotations

from functools import cache

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.spatial import ConvexHull
from scipy.spatial.distance import pdist

from pixelwise.measuring import region_contour
from pixelwise.measuring.region_contour import contour, smoothed
from pixelwise.measuring.scale import AffineScale, Scale

Floats = NDArray[np.float64]
_ALL_PAIRS = 1000
_DIRECTIONS = 2000


def surface(region: NDArray[np.bool_], scale: Scale, origin: tuple[int, int, int] = (0, 0, 0)) -> Floats:
    """Return the surface of a region as triangles (N, 3, 3), each of three positions (slice, row, column), in no order.

    Args:
        region: (D, H, W), not empty. The outside of the array counts as outside of the region.
        scale: of the volume, for the shape of its voxels.
        origin: added to the positions.
    """
    from skimage.measure import marching_cubes

    sides = np.linalg.norm(scale.jacobians(np.array([origin], np.float64))[0], axis=0)
    smooth, level, halo = smoothed(region, sides)
    corners, triangles, _, _ = marching_cubes(smooth, level)  # type: ignore[no-untyped-call]
    return np.asarray(corners[triangles], np.float64) + np.array(origin) - halo


def surface_area(triangles: Floats, scale: Scale) -> float:
    """Return the total area of triangles (N, 3, 3) in the unit of the scale, squared."""
    matrices = scale.jacobians(triangles.mean(1))
    first, second = (np.einsum("nij,nj->ni", matrices, triangles[:, k] - triangles[:, 0]) for k in (1, 2))
    return float(np.linalg.norm(np.cross(first, second), axis=1).sum() / 2)


def longest_axis(triangles: Floats, scale: Scale) -> float:
    """Return the largest distance between two points of a surface in the unit of the scale, to 0.1 %.

    If the convex hull has many corners, only the outermost ones in 2,000 directions are compared, which are 2° apart.
    """
    corners = triangles.reshape(-1, 3)
    points = corners @ scale.jacobians(corners[:1])[0].T
    points = points[ConvexHull(points).vertices]
    if len(points) > _ALL_PAIRS:
        points = points[np.unique((points @ _directions()).argmax(0))]
    return float(pdist(points).max())


@cache
def _directions() -> Floats:
    """Return directions (3, N), evenly distributed on a sphere by the golden angle."""
    place = np.arange(_DIRECTIONS) + 0.5
    height, angle = 1 - 2 * place / _DIRECTIONS, place * np.pi * (3 - np.sqrt(5))
    radius = np.sqrt(1 - height**2)
    return np.stack([height, radius * np.cos(angle), radius * np.sin(angle)])


def longest_axis_in_slice(region: NDArray[np.bool_], scale: Scale, origin: tuple[int, int, int] = (0, 0, 0)) -> float:
    """Return the largest distance between two points of the contour in one slice, as in RECIST, in the unit of the scale."""
    matrix = scale.jacobians(np.array([origin], np.float64))[0]
    within = AffineScale(np.linalg.qr(matrix[:, 1:]).R, scale.unit, scale.provenance)
    return max(region_contour.longest_axis(contour(each, within), within) for each in region if each.any())


def cavities(region: NDArray[np.bool_]) -> int:
    """Return the number of cavities of a region (D, H, W): parts of the outside, connected over faces, that it encloses."""
    return int(ndimage.label(~np.pad(region, 1))[1]) - 1
