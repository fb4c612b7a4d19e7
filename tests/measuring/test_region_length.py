"""Lengths and widths of thin drawn shapes at any angle and place between the pixels, on square, oblong and sheared pixels."""

from __future__ import annotations

import numpy as np
import pytest
from benchmarks.drawn_shapes import Thin, arc, ring, spiral, star, strip, wave
from numpy.typing import NDArray
from scipy import ndimage

from pixelwise.measuring.region_contour import contour, perimeter
from pixelwise.measuring.region_length import centre_line, length_and_width, may_be_thin, ribbon_length
from pixelwise.measuring.scale import AffineScale
from pixelwise.measuring.thinning import neighbours, thinned
from pixelwise.types import Measurement

PIXELS = AffineScale(np.eye(2), "px", "none")
MATRICES = {"square": np.eye(2), "oblong": np.diag([2.0, 1.0]), "sheared": np.array([[1.0, 0.0], [0.5, 1.0]])}
# Width 1 and length 20, 30 or 60; the last number is the tolerance of the length for long ones.
SHAPES: dict[str, tuple[Thin, float]] = {
    "strip": (strip(20, 1), 0.02),
    "strip with round ends": (strip(20, 1, flat=False), 0.02),
    "quarter of a ring": (arc(20, 1, np.pi / 2), 0.02),
    "half of a ring": (arc(20, 1, np.pi, flat=False), 0.02),
    "ring": (ring(20, 1), 0.02),
    "wave": (wave(30, 1, 2, 1.0), 0.02),
    "spiral": (spiral(60, 1, 2), 0.02),
    "Y": (star(30, 1, (0, 120, 240)), 0.02),
    "T": (star(30, 1, (0, 90, 180)), 0.03),
    "cross": (star(40, 1, (0, 90, 180, 270)), 0.02),
    "branches at 60°": (star(60, 1, (0, 60, 200), flat=False), 0.03),
}


def scaled(shape: Thin, factor: float) -> Thin:
    return Thin(tuple(factor * line for line in shape.lines), factor * shape.width, shape.flat, shape.closed)


def measured(region: NDArray[np.bool_], scale: AffineScale) -> dict[str, Measurement]:
    segments = contour(region, scale)
    around, area = perimeter(segments, scale), float(region.sum()) * abs(np.linalg.det(scale.matrix))
    holes = ndimage.label(~np.pad(region, 1))[1] - 1
    if not may_be_thin(around, area):
        return {}
    return length_and_width(centre_line(region, scale, perimeter(segments, PIXELS), holes), scale, around, area, holes)


def draws(
    name: str, matrix: str, widths: tuple[float, ...], count: int
) -> list[tuple[Thin, AffineScale, NDArray[np.bool_]]]:
    """A shape in several widths, in longest sides of pixels, turned and moved."""
    rng = np.random.default_rng(sum(name.encode()) + len(matrix))
    scale = AffineScale(MATRICES[matrix] * 0.5, "mm", "given")
    side = float(np.linalg.norm(scale.matrix, axis=0).max())
    found = []
    for width in widths:
        shape = scaled(SHAPES[name][0], width * side)
        for angle in np.linspace(0, np.pi, count, endpoint=False) + rng.random():
            found.append((shape, scale, shape.draw(angle, rng.random(2), scale.matrix)))
    return found


@pytest.mark.parametrize("matrix", MATRICES)
@pytest.mark.parametrize("name", SHAPES)
def test_lengths_and_widths_are_those_of_the_shape(name: str, matrix: str) -> None:
    """Within 2 or 3 % and 1.6 px, and in their intervals."""
    for shape, scale, region in draws(name, matrix, (2.5, 5.0), 8):
        found = measured(region, scale)
        error = abs(found["length"].value - shape.length)
        assert error <= SHAPES[name][1] * shape.length + 1.6 * np.linalg.norm(scale.matrix, axis=0).max()
        assert found["length"].low <= shape.length <= found["length"].high
        assert found["width"].low <= shape.width <= found["width"].high


def test_the_interval_of_a_width_is_one_pixel_across_and_no_wider_than_needed() -> None:
    """A strip of 3 px has 35 % more or less. At some angle and place, strips along the pixels are nearly a pixel wrong."""
    reached, rng = 0.0, np.random.default_rng(5)
    for angle in [0.0, np.pi / 2] * 8 + rng.uniform(0, np.pi, 32).tolist():
        for width in (2.0, 3.0, 4.5):
            found = measured(strip(60, width).draw(angle, rng.random(2), np.eye(2)), PIXELS)["width"]
            assert found.low <= width <= found.high
            assert found.high - found.value < 1 + 0.1 * width
            reached = max(reached, abs(found.value - width))
    assert reached > 0.4


@pytest.mark.parametrize("width", [1.0, 2.0, 40.0])
def test_lines_of_one_pixel_and_wide_strips(width: float) -> None:
    length = max(60, 8 * width)
    for angle in np.linspace(0.1, np.pi, 8):
        region = strip(length, width).draw(angle, np.full(2, 0.3), np.eye(2))
        assert measured(region, PIXELS)["length"].value == pytest.approx(length, abs=0.02 * length + 2)


def test_other_regions_have_no_length() -> None:
    y, x = np.indices((90, 90)) - 44.7
    blob = np.hypot(x, y) < 25 + 5 * np.cos(5 * np.arctan2(y, x))
    row, column = np.indices((90, 90))
    land = (row % 30 < 18) | (column % 30 < 18)  # between lakes
    for region in (
        x**2 + y**2 < 900,
        (abs(x) < 30) & (abs(y) < 30),
        (abs(x) < 30) & (abs(y) < 10),
        (x / 40) ** 2 + (y / 14) ** 2 < 1,
        (x**2 + y**2 < 1200) & (x**2 + y**2 > 25),
        blob,
        land,
    ):
        assert measured(region, PIXELS) == {}


def test_a_rough_edge_adds_no_branches() -> None:
    rng = np.random.default_rng(1)
    region = np.zeros((40, 220), bool)
    region[15:24, 10:210] = True
    region[14, 10:210], region[24, 10:210] = rng.random((2, 200)) < 0.5
    assert measured(region, PIXELS)["length"].value == pytest.approx(200, rel=0.02)


def test_the_other_estimator_is_named_when_they_disagree() -> None:
    straight = measured(strip(100, 4).draw(0.3, np.zeros(2), np.eye(2)), PIXELS)
    branched = measured(star(100, 8, (0, 120, 240)).draw(0.3, np.zeros(2), np.eye(2)), PIXELS)
    assert straight["length"].note is None
    assert branched["length"].note is not None
    assert "px by perimeter and area" in branched["length"].note
    assert ribbon_length(2 * (100 + 4), 400, 0) == pytest.approx(100)
    assert ribbon_length(200, 400, 1) == pytest.approx(100)


@pytest.mark.parametrize("seed", range(20))
def test_thinning_keeps_components_and_holes(seed: int) -> None:
    rng = np.random.default_rng(seed)
    region = ndimage.gaussian_filter(rng.normal(size=(60, 70)), rng.uniform(0.5, 4)) > 0
    line = thinned(region)
    assert not (line & ~region).any()
    for connected, outside in ((np.ones((3, 3)), False), (None, True)):
        before, after = (np.pad(each, 1) != outside for each in (region, line))
        assert ndimage.label(before, connected)[1] == ndimage.label(after, connected)[1]
    place, pairs = neighbours(line)
    assert len(place) == line.sum()
    assert (abs(place[pairs[:, 0]] - place[pairs[:, 1]]).max(1) == 1).all()


@pytest.mark.parametrize("seed", range(30))
def test_any_region_on_any_pixels_has_sizes_within_their_intervals(seed: int) -> None:
    rng = np.random.default_rng(seed)
    values = ndimage.gaussian_filter(rng.normal(size=(50, 60)), rng.uniform(0.3, 3)) > rng.uniform(-0.05, 0.05)
    scale = AffineScale(rng.normal(size=(2, 2)) + 2 * np.eye(2), "m", "given")
    numbered, count = ndimage.label(values, np.ones((3, 3)))
    for k in range(1, count + 1):
        if (numbered == k).sum() < 16:
            continue
        for found in measured(numbered == k, scale).values():
            assert 0 <= found.low <= found.value <= found.high < np.inf
