import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import ndimage

from pixelwise.datasets import object_sizes as objects
from pixelwise.datasets.object_sizes import ObjectSizes


@settings(max_examples=40, deadline=None)
@given(arrays(np.uint8, st.tuples(st.integers(1, 20), st.integers(1, 20)), elements=st.sampled_from([0, 1, 2, 255])))
def test_sizes_are_those_of_another_library(mask: np.ndarray) -> None:
    sizes = ObjectSizes(3)
    sizes.add(mask)
    for k in range(3):
        regions, count = ndimage.label(mask == k)
        if not count:
            assert (sizes.sizes()[k], sizes.per_image()[k]) == (None, None)
            continue
        areas = np.bincount(regions.reshape(-1))[1:]
        assert sizes.sizes()[k] == pytest.approx(np.percentile(areas, (5, 50, 95)), abs=0.051)
        assert sizes.per_image()[k] == count


def test_large_areas_are_accurate_to_one_percent() -> None:
    for side in (31, 33, 57, 400, 1001):
        mask = np.zeros((side + 2, side + 2), np.uint8)
        mask[1:-1, 1:-1] = 1
        sizes = ObjectSizes(2)
        sizes.add(mask)
        found = sizes.sizes()[1]
        assert found is not None
        assert found[1] == pytest.approx(side**2, rel=0.006)


def test_images_without_the_class_do_not_count() -> None:
    sizes = ObjectSizes(2)
    mask = np.zeros((8, 8), np.uint8)
    sizes.add(mask)
    mask[1, 1] = mask[3, 3] = mask[5, 5] = 1
    sizes.add(mask)
    assert sizes.per_image() == (1.0, 3.0)


def test_very_large_masks_are_cropped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(objects, "_SIDE", 10)
    mask = np.zeros((30, 12), np.uint8)
    mask[0, 0] = mask[15, 5] = 1
    sizes = ObjectSizes(2)
    sizes.add(mask)
    assert sizes.sizes() == ((99.0, 99.0, 99.0), (1.0, 1.0, 1.0))
