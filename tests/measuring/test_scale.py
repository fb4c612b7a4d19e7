"""Scales that are the same everywhere, and bands of masks."""

import numpy as np
import pytest

from pixelwise.measuring.masks import bands
from pixelwise.measuring.scale import AffineScale, pixels
from pixelwise.tiles import Window


def test_a_sheared_scale_measures_areas_by_its_determinant():
    scale = AffineScale(np.array([[3.0, 1.0], [0.0, 2.0]]), "mm", "affine")
    assert scale.sizes(Window((4, 4), (9, 9))) == pytest.approx(np.array([[6.0]]))


def test_pixels_have_a_reason():
    scale = pixels(3, "The file has no spacing.")
    assert (scale.unit, scale.reason) == ("px", "The file has no spacing.")
    assert scale.sizes(Window((0, 0, 0), (2, 2, 2))).item() == pytest.approx(1)


@pytest.mark.parametrize(("shape", "rows", "count"), [((10, 4), 3, 4), ((1, 5), 8, 1), ((6, 2, 2), 2, 3)])
def test_bands_cover_a_shape_once(shape, rows, count):
    found = bands(shape, rows)
    seen = np.zeros(shape, int)
    for window in found:
        seen[window.slices] += 1
    assert len(found) == count
    assert (seen == 1).all()
