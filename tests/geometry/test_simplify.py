"""Simplified polygons, against shapely."""

from __future__ import annotations

import numpy as np
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage
from tests.geometry.test_pixel_polygons import MASKS, to_shapely

from pixelwise.geometry.pixel_polygons import find_borders
from pixelwise.geometry.simplify import simplified


def require_same_topology(mask: np.ndarray, tolerance: float) -> tuple[int, int]:
    """Compare simplified polygons with those along pixel edges; return the numbers of points before and after."""
    borders = find_borders([mask], ignored=(255,))
    other = simplified(borders, tolerance)
    before = [to_shapely(polygon) for polygon in borders.polygons()]
    after = [to_shapely(polygon) for polygon in other.polygons()]
    assert len(before) == len(after)
    for old, new in zip(before, after, strict=True):
        assert new.is_valid
        assert len(old.interiors) == len(new.interiors)
        assert shapely.hausdorff_distance(old.boundary, new.boundary, densify=0.25) <= tolerance + 1e-6
    # No overlaps and no gaps: the whole has the sum of the areas, and its border moved with theirs.
    union = shapely.union_all(after)
    assert union.area == pytest.approx(sum(each.area for each in after), abs=1e-6)
    if before and not (mask == 255).any():
        assert union.area == pytest.approx(shapely.union_all(before).area, abs=2 * tolerance * (sum(mask.shape)))
        assert not shapely.get_parts(union)[0].interiors
    # The same regions are neighbours.
    tree, others = shapely.STRtree(before), shapely.STRtree(after)
    touching = [
        set(map(tuple, each.query(each.geometries, predicate="intersects").T.tolist())) for each in (tree, others)
    ]
    assert touching[0] == touching[1]
    return len(borders.points), len(other.points)


@settings(max_examples=300, deadline=None)
@given(MASKS, st.sampled_from([0.5, 0.75, 1.0, 2.0, 5.0]))
def test_topology_stays(mask: np.ndarray, tolerance: float) -> None:
    require_same_topology(mask, tolerance)


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("tolerance", [0.75, 1.5, 4.0])
def test_smooth_masks_need_far_fewer_points(seed: int, tolerance: float) -> None:
    rng = np.random.default_rng(seed)
    values = ndimage.gaussian_filter(rng.normal(size=(90, 110)), 5)
    mask = np.digitize(values, np.quantile(values, [0.3, 0.6, 0.8])).astype(np.uint8)
    before, after = require_same_topology(mask, tolerance)
    assert after < (0.7 if tolerance < 1 else 0.3) * before


def test_nothing_changes_without_a_tolerance() -> None:
    borders = find_borders([np.eye(5, dtype=np.uint8)])
    assert simplified(borders, 0) is borders
    empty = find_borders([np.full((3, 3), 255, np.uint8)], ignored=(255,))
    assert simplified(empty, 1.0) is empty


def test_an_island_beside_a_staircase_stays_on_its_side() -> None:
    mask = np.triu(np.ones((12, 12), np.uint8))
    mask[6, 5] = 0
    mask[4, 6] = 2  # a pixel of another class next to the border
    require_same_topology(mask, 3.0)
