"""Tracing and filling contours is lossless for regions that touch, nest or reach the border."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from scipy import ndimage

from pixelwise.geometry.contours import components, fill, trace

MASKS = arrays(np.uint8, array_shapes(min_dims=2, max_dims=2, max_side=9), elements=st.integers(0, 2))


def painted(ids):
    canvas = np.full(ids.shape, 99, np.int64)
    for contour in trace(ids):
        top, left, box = fill((contour.outer,), ids.shape)
        canvas[top : top + box.shape[0], left : left + box.shape[1]][box] = contour.id
    return canvas


@settings(max_examples=1000)
@given(MASKS)
def test_painting_outer_rings_from_large_to_small_restores_the_array(ids):
    np.testing.assert_array_equal(painted(ids), ids)


@settings(max_examples=300)
@given(MASKS)
def test_filling_all_rings_restores_each_region(ids):
    covered = np.zeros(ids.shape, int)
    for contour in trace(ids):
        top, left, box = fill((contour.outer, *contour.holes), ids.shape)
        view = (slice(top, top + box.shape[0]), slice(left, left + box.shape[1]))
        assert box.sum() == contour.area
        assert (ids[view][box] == contour.id).all()
        covered[view] += box
    assert (covered == 1).all()


@settings(max_examples=300)
@given(MASKS)
def test_components_match_scipy(ids):
    regions, count = components(ids)
    for value in np.unique(ids):
        expected, count_of_value = ndimage.label(ids == value)
        assert len(np.unique(regions[ids == value])) == count_of_value
        pairs = np.unique(np.stack([expected[ids == value], regions[ids == value]]), axis=1)
        assert pairs.shape[1] == count_of_value
    assert regions.max() == count - 1


def test_pixels_touching_at_a_corner_are_separate_regions():
    ids = np.eye(2, dtype=int)
    assert sorted(contour.area for contour in trace(ids)) == [1, 1, 1, 1]
    assert all(len(contour.outer) == 4 for contour in trace(ids))


def test_area_enclosed_only_at_a_corner_is_not_a_hole():
    ids = np.array([[1, 1, 1, 0], [1, 0, 1, 0], [1, 1, 0, 1], [0, 0, 1, 1]])
    largest = trace(ids)[0]
    assert (largest.id, largest.area, largest.filled, len(largest.holes)) == (1, 7, 7, 0)


@pytest.mark.parametrize(
    ("ring", "inside"),
    [
        ([(0, 0), (2, 0), (2, 2), (0, 2)], [[1, 1, 0], [1, 1, 0], [0, 0, 0]]),
        ([(0, 0), (2, 0), (2, 2), (0, 2), (0, 0)], [[1, 1, 0], [1, 1, 0], [0, 0, 0]]),  # closed by a copy
        ([(0.5, 0.5), (1.5, 0.5), (1.5, 1.5), (0.5, 1.5)], [[1, 0, 0], [0, 0, 0], [0, 0, 0]]),  # centres on edges
        ([(-5, -5), (9, -5), (9, 9), (-5, 9)], [[1, 1, 1]] * 3),  # beyond the image
        ([(0, 0), (3, 0), (0, 3)], [[1, 1, 0], [1, 0, 0], [0, 0, 0]]),  # a triangle, centres on its long side
        ([(0.6, 0.6), (0.9, 0.6), (0.9, 0.9)], [[0, 0, 0]] * 3),  # between centres
        ([(7, 7), (9, 7), (9, 9)], [[0, 0, 0]] * 3),
        ([(0, 0), (2, 2)], [[0, 0, 0]] * 3),
    ],
)
def test_a_pixel_is_inside_if_its_centre_is(ring, inside):
    canvas = np.zeros((3, 3), int)
    top, left, box = fill((np.array(ring, float),), (3, 3))
    canvas[top : top + box.shape[0], left : left + box.shape[1]] = box
    np.testing.assert_array_equal(canvas, inside)


def test_area_of_a_filled_disc():
    angle = np.linspace(0, 2 * np.pi, 400, endpoint=False)
    ring = np.stack([50 + 40 * np.cos(angle), 50 + 40 * np.sin(angle)], 1)
    assert fill((ring,), (100, 100))[2].sum() == pytest.approx(np.pi * 1600, rel=2e-3)


def test_rows_with_more_than_255_crossings():
    teeth = [point for k in range(0, 600, 2) for point in ((k, 2), (k + 1, 2), (k + 1, 0), (k + 2, 0))]
    top, left, box = fill((np.array([*teeth, (600, 3), (0, 3)], float),), (3, 600))
    assert (top, left) == (0, 0)
    np.testing.assert_array_equal(box[:2], np.tile([False, True], (2, 300)))
    assert box[2].all()
    np.testing.assert_array_equal(fill((np.array([(0, 0), (0, 2)] * 200 + [(1, 1)], float),), (2, 2))[2], [[False]] * 2)


def test_contours_are_sorted_by_enclosed_area():
    ids = np.random.default_rng(0).integers(0, 3, (60, 70))
    found = trace(ids)
    filled = [contour.filled for contour in found]
    assert filled == sorted(filled, reverse=True)
    ones = [(contour.outer[:, 1].min(), contour.outer[:, 0].min()) for contour in found if contour.filled == 1]
    assert len(ones) > 100
    assert ones == sorted(ones)
    assert sum(contour.area for contour in found) == ids.size


def test_empty_input():
    assert trace(np.zeros((0, 5), int)) == []
    assert fill((), (4, 4))[2].size == 0
