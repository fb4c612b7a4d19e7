"""Lengths and areas on a plane, such as a road, that a camera sees obliquely.

Four points of the image and their places on the plane determine the homography between the two (Hartley & Zisserman 2004,
*Multiple View Geometry*, ch. 4). A pixel covers more of the plane the farther away it is, and those above the horizon show none of it.
Lenses are assumed to be free of distortion.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pixelwise.errors import UsageError
from pixelwise.measuring.masks import bands
from pixelwise.measuring.scale import Array
from pixelwise.tiles import Window

# Pixels below the horizon. Nearer to it the distance changes by more than a tenth from one pixel to the next.
HORIZON = 10.0
_BAND_PIXELS = 1 << 22
_SINGULAR = 1e-6


class Camera(NamedTuple):
    """The position of a camera: the point of the plane below it, (X, Y), and its height, in metres."""

    foot: tuple[float, float]
    height: float


@dataclass(frozen=True, eq=False)
class GroundPlane:
    """The scale of an image that shows a plane; see `measuring.scale.Scale`.

    Pixels above the horizon, or less than `HORIZON` pixels below it, have the size 0, and lengths there are 0.

    Args:
        matrix: (3, 3), from (column, row, 1) to homogeneous coordinates on the plane, relative to `centre`; the last is positive
            below the horizon.
        centre: (X, Y) in metres.
        points: number of points that it was computed from.
        residual: largest distance in pixels between a point of the image and the place that the plane has it at; 0 for four points.
    """

    matrix: Array
    centre: Array
    points: int
    residual: float

    unit = "m"
    reason = None

    @classmethod
    def from_points(cls, image: Array, ground: Array) -> GroundPlane:
        """Fit a plane: exactly to four points, and by least squares of the distances in the image to more.

        Args:
            image: (N, 2), x (column) and y (row) of the points in the image, with pixel centres at integers.
            ground: (N, 2), their X and Y on the plane in metres.

        Raises:
            UsageError: fewer than four points, three of four on a line, or points in another order.
        """
        image, ground = np.asarray(image, np.float64), np.asarray(ground, np.float64)
        if len(image) < 4:
            raise _unusable(f"only {len(image)}")
        centre = ground.mean(axis=0)
        matrix = _homography(image, ground - centre)
        weights = _homogeneous(image) @ matrix[2]
        if weights.min() * weights.max() <= 0:
            raise _unusable("points on both sides of the horizon that they determine")
        if len(image) > 4:
            matrix = _refined(matrix, image, ground - centre)
        matrix = matrix * np.sign((_homogeneous(image) @ matrix[2])[0])
        there = _homogeneous(ground - centre) @ np.linalg.inv(matrix).T
        residual = float(np.linalg.norm(there[:, :2] / there[:, 2:] - image, axis=1).max())
        return cls(matrix, centre, len(image), residual if len(image) > 4 else 0.0)

    @property
    def provenance(self) -> str:
        """See `Scale.provenance`."""
        fit = f", which fit to {self.residual:.2g} px" if self.points > 4 else ""
        return f"ground plane through {self.points} points{fit}"

    def sizes(self, window: Window) -> Array:
        """Return the area on the plane of each pixel of a window in m², (H, W); 0 above the horizon."""
        (top, left), (bottom, right) = window.start, window.stop
        rows, columns = np.arange(top, bottom + 1) - 0.5, np.arange(left, right + 1) - 0.5
        corners = self._weights(rows[:, None], columns[None])
        diagonal = corners[:-1, :-1] * corners[1:, 1:]
        seen = self._is_ground(np.arange(top, bottom)[:, None], np.arange(left, right)[None])
        # A triangle of the image with the area A covers A |det| / (w₁ w₂ w₃), which does not suffer from large coordinates.
        with np.errstate(divide="ignore", invalid="ignore"):
            sizes = abs(np.linalg.det(self.matrix)) / 2 * (1 / corners[:-1, 1:] + 1 / corners[1:, :-1]) / diagonal
        return np.where(seen, sizes, 0.0)

    def jacobians(self, positions: Array) -> Array:
        """See `Scale.jacobians`; zeros above the horizon."""
        at = np.asarray(positions, np.float64)
        seen = self._is_ground(at[:, 0], at[:, 1])
        weights = np.where(seen, self._weights(at[:, 0], at[:, 1]), 1.0)
        place = _homogeneous(at[:, ::-1]) @ self.matrix[:2].T / weights[:, None]
        columns_rows = (self.matrix[:2, :2] - place[:, :, None] * self.matrix[2, :2]) / weights[:, None, None]
        return np.where(seen[:, None, None], columns_rows[:, :, ::-1], 0.0)

    def distances(self, first: Array, second: Array) -> Array:
        """Return the distances on the plane between positions in metres, (N,); 0 if one of them is above the horizon."""
        found = np.linalg.norm(self._places(first) - self._places(second), axis=1)
        return np.nan_to_num(found, nan=0.0)

    def to_ground(self, positions: Array) -> Array:
        """Return (X, Y) in metres, (N, 2), of positions (row, column), (N, 2); NaN above the horizon."""
        return self._places(positions) + self.centre

    def distances_from(self, origin: tuple[float, float], positions: Array) -> Array:
        """Return the distances in metres (N,) of positions (row, column) from a place of the plane; NaN above the horizon.

        Args:
            origin: (X, Y): `(0, 0)`, or the foot of the `camera`.
            positions: (N, 2).
        """
        return np.asarray(np.linalg.norm(self.to_ground(positions) - origin, axis=1))

    def camera(self, shape: Sequence[int]) -> Camera | None:
        """Return where the camera is, if its pixels are square and its axis meets the centre of the image (H, W).

        None if it looks straight down, or if no such camera sees the plane like that.
        """
        shift = np.array([[1.0, 0.0, -(shape[1] - 1) / 2], [0.0, 1.0, -(shape[0] - 1) / 2], [0.0, 0.0, 1.0]])
        view = shift @ np.linalg.inv(self.matrix)  # K [r₁ r₂ t] with K = diag(f, f, 1)
        view = view / np.linalg.norm(view)
        (a, b), (c, d), (e, f) = view[:, :2]
        known, unknown = np.array([a * b + c * d, a * a + c * c - b * b - d * d]), np.array([e * f, e * e - f * f])
        inverse_square = -float(known @ unknown) / float(known @ known or 1.0)
        if not inverse_square > 0 or np.linalg.norm(unknown) < _SINGULAR:
            return None
        view = np.diag([inverse_square**0.5, inverse_square**0.5, 1.0]) @ view
        view = view / np.linalg.norm(view[:, :2], axis=0).mean()
        normal = np.cross(view[:, 0], view[:, 1])
        left, _, right = np.linalg.svd(np.stack([view[:, 0], view[:, 1], normal], axis=1))
        position = -(left @ right).T @ view[:, 2]
        foot = position[:2] + self.centre
        return Camera((float(foot[0]), float(foot[1])), abs(float(position[2])))

    def above_horizon(self, shape: Sequence[int]) -> int:
        """Count the pixels of an image (H, W) without a size."""
        columns = np.arange(shape[1])[None]
        return sum(
            int(np.count_nonzero(~self._is_ground(np.arange(band.start[0], band.stop[0])[:, None], columns)))
            for band in bands(shape, max(_BAND_PIXELS // shape[1], 1))
        )

    def horizon_note(self, shape: Sequence[int]) -> str | None:
        """Return how many pixels of an image (H, W) have no size and why, in one sentence; None if all have one."""
        count = self.above_horizon(shape)
        if not count:
            return None
        share = 100 * count / (shape[0] * shape[1])
        return (
            f"{count:,} pixels ({share:.3g} %) are above the horizon of the ground plane, or less than {HORIZON:g} pixels below it:"
            " they have no size, and are left out of areas and lengths"
        )

    def _weights(self, rows: NDArray[np.floating], columns: NDArray[np.floating]) -> Array:
        x, y, one = self.matrix[2]
        return np.asarray(columns * x + rows * y + one, np.float64)

    def _is_ground(self, rows: NDArray[np.generic], columns: NDArray[np.generic]) -> NDArray[np.bool_]:
        slope = float(np.hypot(*self.matrix[2, :2]))
        return self._weights(rows.astype(np.float64), columns.astype(np.float64)) > HORIZON * slope

    def _places(self, positions: Array) -> Array:
        """Return (X, Y) relative to the centre, NaN above the horizon."""
        at = np.asarray(positions, np.float64)
        seen = self._is_ground(at[:, 0], at[:, 1])
        weights = np.where(seen, self._weights(at[:, 0], at[:, 1]), np.nan)
        return np.asarray(_homogeneous(at[:, ::-1]) @ self.matrix[:2].T / weights[:, None])


def _homogeneous(points: Array) -> Array:
    return np.concatenate([points, np.ones((len(points), 1))], axis=1)


def _homography(source: Array, target: Array) -> Array:
    """Return the matrix (3, 3) from source to target points (N, 2) by the normalised direct linear transformation."""
    from_unit, to_unit = _normalisation(source), _normalisation(target)
    p, q = _homogeneous(source) @ from_unit.T, _homogeneous(target) @ to_unit.T
    zero = np.zeros_like(p)
    rows = np.concatenate([np.hstack([p, zero, -q[:, :1] * p]), np.hstack([zero, p, -q[:, 1:2] * p])])
    _, values, vectors = np.linalg.svd(rows)
    matrix = vectors[-1].reshape(3, 3)
    if values[7] < _SINGULAR * values[0] or abs(np.linalg.det(matrix)) < _SINGULAR:
        raise _unusable("points on a line")
    return np.asarray(np.linalg.inv(to_unit) @ matrix @ from_unit)


def _normalisation(points: Array) -> Array:
    """Return the matrix that moves points to the origin and scales them to a mean distance of √2."""
    middle = points.mean(axis=0)
    distance = float(np.linalg.norm(points - middle, axis=1).mean())
    if not np.isfinite(distance) or distance == 0:
        raise _unusable("the same point several times, or one that is not finite")
    scale = 2**0.5 / distance
    return np.array([[scale, 0, -scale * middle[0]], [0, scale, -scale * middle[1]], [0, 0, 1]])


def _refined(matrix: Array, image: Array, ground: Array) -> Array:
    """Minimise the squared distances in the image between the points and the projected places."""
    from scipy.optimize import least_squares

    from_unit, to_unit = _normalisation(ground), _normalisation(image)
    start = to_unit @ np.linalg.inv(matrix) @ np.linalg.inv(from_unit)
    p, q = _homogeneous(ground) @ from_unit.T, (_homogeneous(image) @ to_unit.T)[:, :2]

    def residuals(values: Array) -> Array:
        there = p @ values.reshape(3, 3).T
        return np.asarray((there[:, :2] / there[:, 2:] - q).reshape(-1))

    found = least_squares(residuals, (start / np.linalg.norm(start)).reshape(-1), xtol=1e-15, ftol=1e-15, gtol=1e-15)
    return np.asarray(np.linalg.inv(np.linalg.inv(to_unit) @ found.x.reshape(3, 3) @ from_unit))


def _unusable(found: str) -> UsageError:
    return UsageError(
        "--ground-plane",
        expected="four or more points, no three of four on a line, each with its place on the ground",
        found=found,
        do='Write "x,y=X,Y;x,y=X,Y;…": column and row in the image, metres on the ground.',
    )
