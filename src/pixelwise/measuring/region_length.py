"""The length and the width of thin regions, such as cracks, roads, vessels and roots: straight, curved, branched or closed.

The length is that of the centre line, found by thinning. Counting its pixels is up to 8 % wrong at odd angles, so that its points are smoothed
first, and it ends before the region does, so that it is continued to the contour with the curvature of its last pixels.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from pixelwise.measuring.region_contour import smoothed
from pixelwise.measuring.scale import Scale
from pixelwise.measuring.thinning import Ints, distances_outside, neighbours, thinned
from pixelwise.types import Measurement

Floats = NDArray[np.float64]
# A region has a length if its centre line is so many times longer than its largest width, and its branches so many times, on average.
ELONGATED, ELONGATED_BRANCHES = 5.0, 2.0
# Perimeter² / area: 20 of a ring that is 5 times as long as wide, more of strips; 12.6 of a disc.
_ROUNDED = 20.0
# Regions with a larger mean width, in pixels, are thinned on every second pixel, or fewer: half of it remains.
_WIDE = 32
# Pixels. Around smaller holes there is no loop.
_SMALLEST_HOLE = 10
# A branch is an artefact of the contour unless it reaches so many times the radius at its junction, plus two pixels.
_BRANCH = 2.0
# Passes of the smoothing of the centre line, a Gaussian of about √(passes / 2) pixels.
_PASSES = 4
# From an end, the line is in the middle of the region after so many times the radius: before, it may lead into a corner.
_CORNER = 1.2
# The direction and curvature of an end are measured over so many times the radius, and so many pixels at least.
_MEASURED = 4.0
_SHORTEST = 9.0
_FEWEST = 6  # points of a parabola
_STEP = 0.25  # pixels, of a continued line
# Pixels whose metric differs by less from that of squares are taken for squares.
_OBLONG = 0.02
# Standard deviation of the Gaussian before oblong pixels are divided into squares, as a share of the longer side.
_DEVIATION = 0.5
# Lengths are taken to be wrong by this share, so many pixels at each free end (of two at least), and this share of the largest width at each branch.
_RELATIVE, _END, _JUNCTION = 0.02, 0.8, 0.3
_DISAGREEING = 0.05
_LENGTH = "centre line by thinning, smoothed and continued to the contour"


@dataclass(frozen=True, eq=False)
class CentreLine:
    """The centre line of a region, as straight pieces.

    Args:
        pieces: (N, 2, 2), each from (row, column) to (row, column), in no order.
        widest: the largest width of the region, in the unit of the scale.
        ends: number of free ends.
        branches: number of lines between free ends and junctions of three, 1 at least.
    """

    pieces: Floats
    widest: float
    ends: int
    branches: int

    def length(self, scale: Scale) -> float:
        """Return the total length of all branches in the unit of the scale."""
        return float(np.linalg.norm(self._steps(scale), axis=1).sum())

    def pixel(self, scale: Scale) -> tuple[float, float]:
        """Return the size of a pixel along the line and across it, its mean over the line, in the unit of the scale."""
        steps, matrices = self._steps(scale), scale.jacobians(self.pieces.mean(1))
        total = np.linalg.norm(steps, axis=1).sum()
        normals = np.stack([-steps[:, 1], steps[:, 0]], -1)
        along, across = (
            float(np.abs(np.einsum("ni,nij->nj", direction, matrices)).max(1).sum() / total)
            for direction in (steps, normals)
        )
        return along, across

    def _steps(self, scale: Scale) -> Floats:
        steps = self.pieces[:, 1] - self.pieces[:, 0]
        return np.asarray(np.einsum("nij,nj->ni", scale.jacobians(self.pieces.mean(1)), steps))


def length_and_width(
    line: CentreLine, scale: Scale, perimeter: float, area: float, holes: int
) -> dict[str, Measurement]:
    """Return "length" and "width" of a region with their intervals, or neither if it is not thin.

    The width is area / length. An edge parallel to the pixels can lie anywhere within one, so that a strip has a pixel more or less across; at other
    angles that averages out.

    Args:
        line: of the region.
        scale: of the image.
        perimeter: of the region, in the unit of the scale.
        area: of the region, in the unit of the scale, squared.
        holes: number of holes.
    """
    length = line.length(scale)
    if length <= max(ELONGATED, ELONGATED_BRANCHES * line.branches) * line.widest:
        return {}
    along, across = line.pixel(scale)
    other = ribbon_length(perimeter, area, holes)
    differs = abs(other - length) > _DISAGREEING * length
    note = f"{other:.4g} {scale.unit} by perimeter and area, which assume one width, no branches and square ends"
    error = _RELATIVE * length + _END * max(line.ends, 2) * along + _JUNCTION * max(line.ends - 2, 0) * line.widest
    width = area / length
    return {
        "length": Measurement(
            length,
            scale.unit,
            _LENGTH,
            low=max(length - error, 0.0),
            high=length + error,
            note=note if differs else None,
        ),
        "width": Measurement(
            *(width, scale.unit, "area / length; low to high: a pixel across, and the interval of the length"),
            low=max(area / (length + error) - across, 0.0),
            high=(area / (length - error) if length > error else width) + across,
        ),
    }


def may_be_thin(perimeter: float, area: float) -> bool:
    """Return whether a region can have a length: false for round ones, of which a centre line would be of no use."""
    return perimeter**2 >= _ROUNDED * area


def ribbon_length(perimeter: float, area: float, holes: int) -> float:
    """Return the length of a region of constant width, from its perimeter and area.

    With perimeter 2 (L + χ w) and area L w, χ being 1 - holes, L = P/4 + √(P²/16 - χ A). Exact for strips, straight or curved, rings, and branches
    counted from the edge of what they branch from.
    """
    return perimeter / 4 + float(np.sqrt(max(perimeter**2 / 16 - (1 - holes) * area, 0.0)))


def centre_line(
    region: NDArray[np.bool_], scale: Scale, perimeter: float, holes: int, origin: tuple[int, int] = (0, 0)
) -> CentreLine:
    """Return the centre line of a region, up to its contour at both ends.

    Args:
        region: (H, W), not empty. The outside of the array counts as outside of the region.
        scale: of the image.
        perimeter: length of the contour in pixels.
        holes: number of holes.
        origin: added to the positions.
    """
    every = max(int(2 * region.sum() / perimeter) // (_WIDE // 2), 1)
    middle = np.array(origin) + (np.array(region.shape) - 1) / 2
    jacobian = every * scale.jacobians(middle[None])[0]
    inside, matrix, shift = _square_pixels(region[::every, ::every], jacobian)
    padded = np.pad(_without_small_holes(inside) if holes else inside, 2)
    place, pairs = neighbours(thinned(padded))
    radii = distances_outside(padded, place) - 0.5
    widest = float(2 * radii.max(initial=0.0) * np.linalg.norm(jacobian @ matrix[:, 0]))
    place, pairs, radii = _pruned(place, pairs, radii)
    points = _smooth(place.astype(np.float64), pairs)
    pieces = (_continued(padded, points, pairs, radii) - 2) @ matrix.T + shift
    ends = int((np.bincount(pairs.reshape(-1), minlength=1) == 1).sum())
    loops = max(len(pairs) - len(place) + 1, 0)
    return CentreLine(every * pieces + np.array(origin), widest, ends, max(2 * ends + 3 * loops - 3, 1))


def _square_pixels(region: NDArray[np.bool_], jacobian: Floats) -> tuple[NDArray[np.bool_], Floats, Floats]:
    """Return a region on square pixels of the shorter side, with the matrix and shift from their positions to those of its own pixels."""
    metric = jacobian.T @ jacobian
    sides = np.sqrt(np.diag(metric))
    shortest = sides.min()
    if np.abs(metric / shortest**2 - np.eye(2)).max() <= _OBLONG:
        return region, np.eye(2), np.zeros(2)
    values, vectors = np.linalg.eigh(metric)
    stretch = vectors @ np.diag(np.sqrt(values)) @ vectors.T / shortest
    smooth, level, halo = smoothed(region, sides, _DEVIATION)
    corners = np.array([(row, column) for row in (0, smooth.shape[0] - 1) for column in (0, smooth.shape[1] - 1)])
    reached = corners @ stretch.T
    start = reached.min(0)
    shape = np.ceil(np.ptp(reached, axis=0)).astype(int) + 1
    matrix = np.linalg.inv(stretch)
    above = ndimage.affine_transform(smooth, matrix, matrix @ start, tuple(shape.tolist()), order=1) >= level
    return np.asarray(above), matrix, matrix @ start - halo


def _without_small_holes(inside: NDArray[np.bool_]) -> NDArray[np.bool_]:
    outside, _ = ndimage.label(~np.pad(inside, 1))
    small = np.bincount(outside.reshape(-1)) < _SMALLEST_HOLE
    small[outside[0, 0]] = False
    return small[outside][1:-1, 1:-1] | inside


def _pruned(place: Ints, pairs: Ints, radii: Floats) -> tuple[Ints, Ints, Floats]:
    """Return pixels, pairs and the radii at the pixels, without branches that end within the width of what they branch from."""
    while True:
        degree = np.bincount(pairs.reshape(-1), minlength=len(place))
        if not (degree > 2).any():
            return place, pairs, radii
        joint = degree[pairs] > 2
        within = ~joint.any(1)
        first, second = pairs[within].T
        graph = coo_array((np.ones(len(first), np.int8), (first, second)), shape=(len(place),) * 2)
        count, branch = connected_components(graph, directed=False)
        lengths = np.linalg.norm(place[pairs[:, 0]] - place[pairs[:, 1]], axis=1)
        along = np.bincount(branch[first], lengths[within], count)
        reach, at_joint = along, np.zeros(count)
        leaving = np.flatnonzero(joint.sum(1) == 1)
        ends = pairs[leaving]
        inner = np.where(joint[leaving, 0], ends[:, 1], ends[:, 0])
        outer = np.where(joint[leaving, 0], ends[:, 0], ends[:, 1])
        reach += np.bincount(branch[inner], lengths[leaving], count)
        np.maximum.at(at_joint, branch[inner], radii[outer])
        tips = np.flatnonzero((degree <= 1) & (at_joint[branch] > 0))
        short = tips[reach[branch[tips]] + radii[tips] < _BRANCH * at_joint[branch[tips]] + 2]
        if not len(short):
            return place, pairs, radii
        kept = ~np.isin(branch, branch[short]) | (degree > 2)
        number = np.cumsum(kept) - 1
        place, pairs, radii = place[kept], number[pairs[kept[pairs].all(1)]], radii[kept]


def _smooth(points: Floats, pairs: Ints) -> Floats:
    """Return points smoothed along the line, without moving ends and junctions; applied twice to what was removed, so that bends do not shrink."""
    once = _averaged(points, pairs)
    return once + _averaged(points - once, pairs)


def _averaged(values: Floats, pairs: Ints) -> Floats:
    degree = np.bincount(pairs.reshape(-1), minlength=len(values))
    chosen = np.flatnonzero(degree == 2)
    beside = _two_neighbours(pairs, degree)[chosen]
    for _ in range(_PASSES):
        step = (values[beside[:, 0]] + values[beside[:, 1]]) / 4 - values[chosen] / 2
        values = values.copy()
        values[chosen] += step
    return values


def _two_neighbours(pairs: Ints, degree: Ints) -> Ints:
    """Return the first and the last neighbour of each point (N, 2); itself if it has none."""
    both = np.concatenate([pairs, pairs[:, ::-1]])
    order = np.argsort(both[:, 0], kind="stable")
    other = np.append(both[order, 1], 0)
    last = np.cumsum(degree)
    found = np.stack([other[last - degree], other[last - 1]], -1)
    return np.where(degree[:, None] > 0, found, np.arange(len(degree))[:, None])


def _continued(inside: NDArray[np.bool_], points: Floats, pairs: Ints, radii: Floats) -> Floats:
    """Return the pieces of the line (N, 2, 2), with its ends replaced by arcs up to the contour.

    The last points before an end may lead into a corner of the region; they are left out.
    """
    degree = np.bincount(pairs.reshape(-1), minlength=len(points))
    beside = _two_neighbours(pairs, degree)
    left_out = np.zeros(len(points), np.bool_)
    starts, curves = [], []
    for tip in np.flatnonzero(degree == 1).tolist():
        walk = _walk(tip, points, beside, degree, radii)
        cut = walk.cut if len(walk.path) - walk.cut > 2 else 0
        left_out[walk.path[:cut]] = True
        curves.append(_curve(points[walk.path[cut:]]))
        starts.append(points[walk.path[cut]])
    pieces = points[pairs[~left_out[pairs].any(1)]]
    if not curves:
        return pieces
    return np.concatenate([pieces, _extended(inside, np.array(starts), np.array(curves), float(radii.max()))])


@dataclass(frozen=True)
class _Walk:
    """Points from an end of a line inwards, and at which of them the line begins to be in the middle of the region."""

    path: list[int]
    cut: int


def _walk(tip: int, points: Floats, beside: Ints, degree: Ints, radii: Floats) -> _Walk:
    path, cut, gone = [tip, int(beside[tip, 0])], None, 0.0
    while True:
        before, now = path[-2:]
        gone += float(np.linalg.norm(points[now] - points[before]))
        if cut is None and gone >= _CORNER * radii[now]:
            cut, needed = len(path) - 1, gone + max(_SHORTEST, _MEASURED * float(radii[now]))
        if degree[now] != 2 or (cut is not None and gone >= needed):
            return _Walk(path, len(path) if cut is None else cut)
        path.append(int(beside[now, 0] if beside[now, 0] != before else beside[now, 1]))


def _curve(points: Floats) -> Floats:
    """Return the parabola (3, 2) through points (N, 2) by least squares, in powers of the distance from the first; a straight line if they are few."""
    along = np.concatenate([[0.0], np.cumsum(np.linalg.norm(np.diff(points, axis=0), axis=1))])
    degree = 2 if len(points) >= _FEWEST else 1
    found = np.zeros((3, 2))
    found[: degree + 1] = np.linalg.lstsq(along[:, None] ** np.arange(degree + 1), points, rcond=None)[0]
    return found


def _extended(inside: NDArray[np.bool_], starts: Floats, curves: Floats, reach: float) -> Floats:
    """Return the pieces (N, 2, 2) from points (E, 2) along the backward continuation of curves (E, 3, 2) to where they leave the region.

    Args:
        inside: the region.
        starts: points at the ends of the line.
        curves: parabolas by the distance inwards.
        reach: the largest radius of the region; no continuation is longer than three times that.
    """
    steps = -np.arange(_STEP, 3 * reach + 3, _STEP)
    at = np.concatenate([starts[:, None], np.einsum("sk,ekn->esn", steps[:, None] ** np.arange(3), curves)], 1)
    values = ndimage.map_coordinates(inside.astype(np.float64), at.reshape(-1, 2).T, order=1).reshape(at.shape[:2])
    within = np.logical_and.accumulate(values >= 0.5, axis=1)[:, 1:]
    return np.stack([at[:, :-1], at[:, 1:]], 2)[within]
