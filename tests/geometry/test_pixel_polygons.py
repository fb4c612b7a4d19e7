"""Polygons along pixel edges, against shapely and numpy."""

from __future__ import annotations

import numpy as np
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from pixelwise.geometry.contours import components, fill
from pixelwise.geometry.pixel_polygons import PixelPolygon, find_borders

MASKS = arrays.arrays(
    np.uint8, st.tuples(st.integers(1, 9), st.integers(1, 9)), elements=st.sampled_from([0, 1, 2, 255])
)


def to_shapely(polygon: PixelPolygon) -> shapely.Polygon:
    return shapely.Polygon(polygon.outer, polygon.holes)


def painted(polygons: list[PixelPolygon], shape: tuple[int, int]) -> np.ndarray:
    """Fill every polygon by numpy; each pixel must be covered at most once."""
    mask = np.full(shape, 255, np.uint8)
    for polygon in polygons:
        top, left, inside = fill((polygon.outer, *polygon.holes), shape)
        place = mask[top : top + inside.shape[0], left : left + inside.shape[1]]
        assert (place[inside] == 255).all()
        place[inside] = polygon.class_index
    return mask


@settings(max_examples=300, deadline=None)
@given(MASKS)
def test_polygons_restore_the_mask_and_are_valid(mask: np.ndarray) -> None:
    borders = find_borders([mask], ignored=(255,))
    polygons = list(borders.polygons())
    np.testing.assert_array_equal(painted(polygons, mask.shape), mask)
    shapes = [to_shapely(polygon) for polygon in polygons]
    assert all(shape.is_valid for shape in shapes)
    assert [shape.area for shape in shapes] == [polygon.pixels for polygon in polygons]
    assert all(ring.is_ccw for shape in shapes for ring in (shape.exterior,))  # y points down
    regions, _ = components(mask)
    assert len(polygons) == len(np.unique(regions[mask != 255]))


@settings(max_examples=100, deadline=None)
@given(MASKS)
def test_no_ring_passes_a_point_twice(mask: np.ndarray) -> None:
    for polygon in find_borders([mask], ignored=(255,)).polygons():
        for ring in (polygon.outer, *polygon.holes):
            assert len(np.unique(ring, axis=0)) == len(ring) >= 4


@settings(max_examples=100, deadline=None)
@given(MASKS)
def test_each_border_is_stored_once_between_two_regions(mask: np.ndarray) -> None:
    borders = find_borders([mask], ignored=(255,))
    assert (borders.left != borders.right).all()
    used = np.bincount(borders.arcs, minlength=2 * len(borders.left))
    sides = np.stack([borders.right, borders.left], 1).reshape(-1)
    np.testing.assert_array_equal(used, (sides >= 0).astype(int))
    lengths = np.abs(np.diff(borders.points, axis=0)).sum(1)
    lengths = np.delete(lengths, borders.starts[1:-1] - 1).sum() if len(lengths) else 0
    padded = np.pad(np.where(mask == 255, -1, components(mask)[0]), 1, constant_values=-1)
    assert lengths == sum(np.count_nonzero(np.diff(padded, axis=axis)) for axis in (0, 1))


def test_a_hole_that_touches_the_outer_ring_at_a_corner() -> None:
    mask = np.ones((4, 4), np.uint8)
    mask[1, 2] = mask[0, 3] = 0
    (polygon,) = find_borders([mask], ignored=(0,)).polygons()
    assert len(polygon.holes) == 1
    assert to_shapely(polygon).area == 14


def test_straight_borders_have_no_points_between_their_ends() -> None:
    (polygon,) = find_borders([np.ones((50, 70), np.uint8)]).polygons()
    assert sorted(map(tuple, polygon.outer.tolist())) == [(0, 0), (0, 50), (70, 0), (70, 50)]


def test_small_regions_are_left_out() -> None:
    mask = np.zeros((5, 5), np.uint8)
    mask[2, 2] = 1
    assert [polygon.class_index for polygon in find_borders([mask]).polygons(smallest=2)] == [0]


@pytest.mark.parametrize("shape", [(0, 0), (0, 3), (2, 2)])
def test_masks_without_regions_have_no_polygons(shape: tuple[int, int]) -> None:
    assert list(find_borders([np.full(shape, 255, np.uint8)], ignored=(255,)).polygons()) == []


@settings(max_examples=200, deadline=None)
@given(MASKS, st.integers(1, 4))
def test_bands_give_the_same_polygons(mask: np.ndarray, rows: int) -> None:
    bands = (mask[start : start + rows] for start in range(0, len(mask), rows))
    found = list(find_borders(bands, ignored=(255,)).polygons())
    whole = list(find_borders([mask], ignored=(255,)).polygons())
    assert [(one.class_index, one.pixels) for one in found] == [(one.class_index, one.pixels) for one in whole]
    for one, other in zip(found, whole, strict=True):
        assert to_shapely(one).normalize() == to_shapely(other).normalize()
