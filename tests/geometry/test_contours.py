"""Outlines: exact both ways, whatever touches, nests or lies at the border."""

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
    for outline in trace(ids):
        top, left, box = fill((outline.outer,), ids.shape)
        canvas[top : top + box.shape[0], left : left + box.shape[1]][box] = outline.id
    return canvas


@settings(max_examples=1000)
@given(MASKS)
def test_painting_outer_rings_from_large_to_small_gives_the_array_again(ids):
    np.testing.assert_array_equal(painted(ids), ids)


@settings(max_examples=300)
@given(MASKS)
def test_each_region_with_its_holes_has_its_pixels_and_no_other(ids):
    covered = np.zeros(ids.shape, int)
    for outline in trace(ids):
        top, left, box = fill((outline.outer, *outline.holes), ids.shape)
        view = (slice(top, top + box.shape[0]), slice(left, left + box.shape[1]))
        assert box.sum() == outline.area
        assert (ids[view][box] == outline.id).all()
        covered[view] += box
    assert (covered == 1).all()


@settings(max_examples=300)
@given(MASKS)
def test_components_are_those_of_scipy(ids):
    found, count = components(ids)
    for value in np.unique(ids):
        wanted, many = ndimage.label(ids == value)
        assert len(np.unique(found[ids == value])) == many
        pairs = np.unique(np.stack([wanted[ids == value], found[ids == value]]), axis=1)
        assert pairs.shape[1] == many
    assert found.max() == count - 1


def test_pixels_that_touch_at_a_corner_stay_apart():
    ids = np.eye(2, dtype=int)
    assert sorted(outline.area for outline in trace(ids)) == [1, 1, 1, 1]
    assert all(len(outline.outer) == 4 for outline in trace(ids))


def test_what_is_closed_at_a_corner_alone_is_no_hole():
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
def test_a_pixel_is_inside_where_its_centre_is(ring, inside):
    whole = np.zeros((3, 3), int)
    top, left, box = fill((np.array(ring, float),), (3, 3))
    whole[top : top + box.shape[0], left : left + box.shape[1]] = box
    np.testing.assert_array_equal(whole, inside)


def test_a_disc_has_the_area_of_a_disc():
    angle = np.linspace(0, 2 * np.pi, 400, endpoint=False)
    ring = np.stack([50 + 40 * np.cos(angle), 50 + 40 * np.sin(angle)], 1)
    assert fill((ring,), (100, 100))[2].sum() == pytest.approx(np.pi * 1600, rel=2e-3)


def test_a_row_may_be_crossed_more_often_than_a_byte_counts():
    teeth = [point for k in range(0, 600, 2) for point in ((k, 2), (k + 1, 2), (k + 1, 0), (k + 2, 0))]
    top, left, box = fill((np.array([*teeth, (600, 3), (0, 3)], float),), (3, 600))
    assert (top, left) == (0, 0)
    np.testing.assert_array_equal(box[:2], np.tile([False, True], (2, 300)))
    assert box[2].all()
    np.testing.assert_array_equal(fill((np.array([(0, 0), (0, 2)] * 200 + [(1, 1)], float),), (2, 2))[2], [[False]] * 2)


def test_regions_come_by_what_they_enclose_the_first_of_equal_ones_first():
    ids = np.random.default_rng(0).integers(0, 3, (60, 70))
    found = trace(ids)
    filled = [outline.filled for outline in found]
    assert filled == sorted(filled, reverse=True)
    ones = [(outline.outer[:, 1].min(), outline.outer[:, 0].min()) for outline in found if outline.filled == 1]
    assert len(ones) > 100
    assert ones == sorted(ones)
    assert sum(outline.area for outline in found) == ids.size


def test_nothing_has_no_outlines():
    assert trace(np.zeros((0, 5), int)) == []
    assert fill((), (4, 4))[2].size == 0
