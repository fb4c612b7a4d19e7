"""Perimeters and longest axes of shapes whose contour has a closed form, at every angle, with square and oblong pixels."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.special import ellipe

from pixelwise.measuring import region_contour
from pixelwise.measuring.region_contour import area_bound, contour, longest_axis, perimeter
from pixelwise.measuring.scale import AffineScale

PIXELS = AffineScale(np.eye(2), "px", "none")
ANGLES = np.linspace(0, np.pi, 24, endpoint=False)
Shape = Callable[[NDArray[np.float64], NDArray[np.float64]], NDArray[np.bool_]]


def drawn(shape: Shape, reach: float, angle: float, spacing: tuple[float, float], seed: int) -> NDArray[np.bool_]:
    """A shape around the origin, turned, at a random place between the pixels."""
    shift = np.random.default_rng(seed).random(2)
    counts = [int(2 * reach / step) + 6 for step in spacing]
    rows, columns = (
        (np.arange(count) - count / 2 + part) * step for count, part, step in zip(counts, shift, spacing, strict=True)
    )
    y, x = np.meshgrid(rows, columns, indexing="ij")
    return shape(x * np.cos(angle) + y * np.sin(angle), y * np.cos(angle) - x * np.sin(angle))


def ellipse(a: float, b: float) -> Shape:
    return lambda u, v: (u / a) ** 2 + (v / b) ** 2 <= 1


def rectangle(a: float, b: float) -> Shape:
    return lambda u, v: (abs(u) <= a / 2) & (abs(v) <= b / 2)


# Shape, reach, perimeter, longest axis, area, and tolerances of the lengths.
SHAPES = {
    "disc of 10": (ellipse(5, 5), 5, 10 * np.pi, 10, 25 * np.pi, 0.03, 0.06),
    "disc of 40": (ellipse(20, 20), 20, 40 * np.pi, 40, 400 * np.pi, 0.012, 0.02),
    "disc of 200": (ellipse(100, 100), 100, 200 * np.pi, 200, 1e4 * np.pi, 0.008, 0.006),
    "ellipse": (ellipse(60, 15), 60, 240 * ellipe(1 - 1 / 16), 120, 900 * np.pi, 0.012, 0.02),
    "square": (rectangle(80, 80), 60, 320, 80 * np.sqrt(2), 6400, 0.02, 0.02),
    "strip": (rectangle(120, 4), 62, 248, np.hypot(120, 4), 480, 0.02, 0.02),
}


@pytest.mark.parametrize("name", SHAPES)
def test_lengths_are_those_of_the_shape_at_every_angle(name: str) -> None:
    shape, reach, around, axis, area, tolerance, of_axis = SHAPES[name]
    scale = AffineScale(np.eye(2) * 0.5, "mm", "given")
    for seed, angle in enumerate(ANGLES):
        region = drawn(shape, reach, angle, (1.0, 1.0), seed)
        segments = contour(region, scale)
        assert perimeter(segments, scale) == pytest.approx(around / 2, rel=tolerance), angle
        assert longest_axis(segments, scale) == pytest.approx(axis / 2, rel=of_axis), angle
        found, bound = region.sum() / 4, area_bound(perimeter(segments, scale) * 2, scale, (0, 0))
        assert abs(found - area / 4) <= bound


@pytest.mark.parametrize("ratio", [2.0, 5.0])
def test_pixels_may_be_oblong(ratio: float) -> None:
    scale = AffineScale(np.diag([ratio, 1.0]), "mm", "given")
    for seed, angle in enumerate(ANGLES):
        segments = contour(drawn(ellipse(100, 100), 100, angle, (ratio, 1.0), seed), scale)
        assert perimeter(segments, scale) == pytest.approx(200 * np.pi, rel=0.02)
        assert longest_axis(segments, scale) == pytest.approx(200, rel=0.02)


def test_a_sheared_grid_gives_the_lengths_of_the_sheared_shape() -> None:
    matrix = np.array([[1.0, 0.0], [0.5, 1.0]])
    found = AffineScale(matrix, "mm", "given")
    segments = contour(drawn(ellipse(60, 60), 60, 0.0, (1.0, 1.0), 0), found)
    angles = np.linspace(0, 2 * np.pi, 20_001)
    sheared = matrix @ np.stack([np.sin(angles), np.cos(angles)]) * 60
    exact = np.linalg.norm(np.diff(sheared, axis=1), axis=0).sum()
    assert perimeter(segments, found) == pytest.approx(exact, rel=0.01)
    assert longest_axis(segments, found) == pytest.approx(120 * np.linalg.svd(matrix)[1][0], rel=0.01)


def test_every_region_has_a_closed_outline_at_its_place() -> None:
    rng = np.random.default_rng(0)
    for pixels in (1, 2, 5, 30):
        region = np.zeros((9, 12), bool)
        region.reshape(-1)[rng.permutation(108)[:pixels]] = True
        segments = contour(region, PIXELS, (100, 200))
        ends, counts = np.unique(segments.reshape(-1, 2).round(9), axis=0, return_counts=True)
        assert (counts % 2 == 0).all()
        assert ((ends > (99, 199)) & (ends < (110, 213))).all()


@pytest.mark.parametrize("tile", [7, 16, 64])
@pytest.mark.parametrize("ratio", [1.0, 3.0])
def test_tiles_give_the_same_contour(monkeypatch: pytest.MonkeyPatch, tile: int, ratio: float) -> None:
    """Lines, arcs and scattered blocks, of which most tiles are empty or cut."""
    rng = np.random.default_rng(tile)
    row, column = np.indices((190, 230))
    scale = AffineScale(np.diag([ratio, 1.0]), "mm", "given")
    blocks = np.kron(rng.random((19, 23)) < 0.03, np.ones((10, 10))).astype(bool)
    for region in (abs(row - column) < 3, abs(np.hypot(row, column) - 150) < 4, blocks, row * column == 0):
        found = []
        for sparse in (10**9, 0):
            monkeypatch.setattr(region_contour, "_SPARSE", sparse)
            monkeypatch.setattr(region_contour, "_TILE", tile + 2 * int(4 * ratio))
            segments = contour(region, scale, (1000, 2000))
            found.append(segments[np.lexsort(segments.reshape(-1, 4).T)])
        assert found[1] == pytest.approx(found[0], abs=1e-9)
