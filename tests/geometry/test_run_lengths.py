"""Run lengths agree with pycocotools, and malformed ones are rejected."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from pycocotools import mask as coder

from pixelwise.geometry.run_lengths import encode_regions, fill, unpack

MASKS = arrays(np.uint8, array_shapes(min_dims=2, max_dims=2, max_side=9), elements=st.integers(0, 1))


def encoded(mask):
    return coder.encode(np.asfortranarray(mask))["counts"]


def filled(runs, size):
    canvas = np.zeros(size, bool)
    top, left, box = fill(runs, size)
    canvas[top : top + box.shape[0], left : left + box.shape[1]] = box
    return canvas


@settings(max_examples=500, deadline=None)
@given(MASKS)
def test_masks_from_pycocotools_round_trip_with_a_tight_box(mask):
    runs = unpack(encoded(mask))
    np.testing.assert_array_equal(filled(runs, mask.shape), mask)
    box = fill(runs, mask.shape)[2]
    assert not box.size or (box.any(0)[[0, -1]].all() and box.any(1)[[0, -1]].all())


@pytest.mark.parametrize("size", [(1, 1), (1, 7), (7, 1), (3, 4)])
def test_empty_and_full_masks(size):
    assert fill(unpack(encoded(np.zeros(size, np.uint8))), size)[2].size == 0
    assert fill(unpack(encoded(np.ones(size, np.uint8))), size)[2].all()
    assert filled(unpack(encoded(np.ones(size, np.uint8))), size).all()


def test_empty_runs_in_the_middle():
    np.testing.assert_array_equal(filled(np.array([0, 2, 0, 1, 3]), (3, 2)).T.reshape(-1), [1, 1, 1, 0, 0, 0])


@settings(max_examples=300, deadline=None)
@given(arrays(np.int32, array_shapes(min_dims=2, max_dims=2, max_side=9), elements=st.integers(-2, 3)))
def test_the_runs_encode_regions_are_those_of_each_region_alone(regions):
    encoded_regions = dict(encode_regions(regions))
    assert list(encoded_regions) == np.unique(regions).tolist()
    for number, runs in encoded_regions.items():
        np.testing.assert_array_equal(runs, unpack(encoded((regions == number).astype(np.uint8))))


def test_long_runs():
    mask = np.zeros((3000, 2000), np.uint8)
    mask[:, 900:1100] = 1
    mask[5, 7] = 1
    np.testing.assert_array_equal(filled(unpack(encoded(mask)), mask.shape), mask)


@pytest.mark.parametrize("counts", ["", " ", "é", "\ud800", "P", "0P", b"\xff", "PPPPPPPP0", "a b"])
def test_malformed_counts_are_none(counts):
    assert unpack(counts) is None


@pytest.mark.parametrize(
    ("runs", "found"),
    [
        ([5], "5 pixels"),
        ([-1, 13], "a run of -1"),
        ([2**40], f"a run of {2**40}"),
        ([], "0 pixels"),
        ([6, 7], "13 pixels"),
    ],
)
def test_runs_that_do_not_fill_the_image_are_rejected(runs, found):
    with pytest.raises(ValueError, match=found):
        fill(np.array(runs, np.int64), (3, 4))


@settings(max_examples=500, deadline=None)
@given(st.binary(max_size=40))
def test_random_counts_give_a_mask_or_an_error(raw):
    runs = unpack(bytes(48 + (byte & 63) for byte in raw))
    if runs is None:
        return
    try:
        top, left, box = fill(runs, (5, 6))
    except ValueError:
        return
    assert runs.sum() == 30
    assert top + box.shape[0] <= 5
    assert left + box.shape[1] <= 6
