"""Surfaces and longest axes of bodies whose surface has a closed form, turned, with cubic, oblong and sheared voxels."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray

from pixelwise.measuring.region_surface import cavities, longest_axis, longest_axis_in_slice, surface, surface_area
from pixelwise.measuring.scale import AffineScale

Floats = NDArray[np.float64]
Body = Callable[[Floats], NDArray[np.bool_]]
MATRICES = {
    "cubes": np.eye(3),
    "oblong": np.diag([2.0, 1.0, 1.0]),
    "sheared": np.array([[2.0, 0.0, 0.0], [0.4, 1.0, 0.0], [0.0, 0.3, 1.0]]),
}


def drawn(body: Body, reach: float, matrix: Floats, seed: int) -> NDArray[np.bool_]:
    """A body around the origin, turned, at a random place between the voxels."""
    rng = np.random.default_rng(seed)
    turn = np.linalg.qr(rng.normal(size=(3, 3))).Q
    shape = np.ceil(2 * np.abs(np.linalg.inv(matrix)).sum(1) * reach).astype(int) + 5
    places = np.stack(np.meshgrid(*(np.arange(size) for size in shape), indexing="ij"), -1) - shape / 2 + rng.random(3)
    return body(places @ matrix.T @ turn)


def ellipsoid(*axes: float) -> Body:
    return lambda x: ((x / np.array(axes)) ** 2).sum(-1) <= 1


def box(*sides: float) -> Body:
    return lambda x: (np.abs(x) <= np.array(sides) / 2).all(-1)


def cylinder(radius: float, height: float) -> Body:
    return lambda x: (x[..., 0] ** 2 + x[..., 1] ** 2 <= radius**2) & (np.abs(x[..., 2]) <= height / 2)


# Body, reach, surface, longest axis, and how far both may be below and above. Edges are rounded by a voxel.
BODIES = {
    "sphere of 10": (ellipsoid(5, 5, 5), 5, 100 * np.pi, 10, (0.04, 0.06)),
    "sphere of 20": (ellipsoid(10, 10, 10), 10, 400 * np.pi, 20, (0.02, 0.03)),
    "sphere of 40": (ellipsoid(20, 20, 20), 20, 1600 * np.pi, 40, (0.01, 0.02)),
    "ellipsoid": (ellipsoid(20, 12, 12), 20, 2 * np.pi * 144 * (1 + 20 / 9.6 * np.arcsin(0.8)), 40, (0.04, 0.02)),
    "box": (box(30, 20, 16), 20, 2720, np.sqrt(1556), (0.13, 0.01)),
    "cylinder": (cylinder(8, 30), 17, 608 * np.pi, 34, (0.08, 0.01)),
}


@pytest.mark.parametrize("matrix", MATRICES)
@pytest.mark.parametrize("name", BODIES)
def test_surfaces_and_axes_are_those_of_the_body(name: str, matrix: str) -> None:
    body, reach, area, axis, (below, above) = BODIES[name]
    scale = AffineScale(MATRICES[matrix] * 0.5, "mm", "given")
    for seed in range(3):
        triangles = surface(drawn(body, reach, MATRICES[matrix], seed), scale, (5, 6, 7))
        assert (1 - below) * area / 4 < surface_area(triangles, scale) < (1 + above) * area / 4
        assert (1 - below) * axis / 2 < longest_axis(triangles, scale) < (1 + above) * axis / 2


def test_the_longest_axis_in_a_slice_is_that_of_the_largest_section() -> None:
    region = np.zeros((5, 60, 60), bool)
    row, column = np.indices((60, 60)) - 29.5
    for k, radius in enumerate((4, 12, 20, 9)):
        region[k] = row**2 + (2 * column) ** 2 <= radius**2
    scale = AffineScale(np.array([[9.0, 0, 0], [0, 1, 0], [0, 0, 2]]), "mm", "given")
    assert longest_axis_in_slice(region, scale) == pytest.approx(40, rel=0.04)
    tilted = AffineScale(np.array([[9.0, 3, 0], [0, 4, 0], [2, 0, 10]]), "mm", "given")  # rows of 5, columns of 10
    assert longest_axis_in_slice(region, tilted) == pytest.approx(200, rel=0.04)


def test_the_surface_lies_where_the_region_is() -> None:
    region = np.ones((3, 4, 5), bool)
    corners = surface(region, AffineScale(np.eye(3), "mm", "given"), (10, 20, 30)).reshape(-1, 3)
    assert (corners.min(0) > (9, 19, 29)).all()
    assert (corners.max(0) < (13, 24, 35)).all()
    assert corners.mean(0) == pytest.approx((11, 21.5, 32), abs=0.01)


def test_cavities_are_enclosed_by_faces() -> None:
    region = np.ones((7, 9, 9), bool)
    region[2, 2, 2] = region[3, 3, 3] = False  # they touch at a corner
    region[4:, 6, 6] = False  # open
    assert cavities(region) == 2
