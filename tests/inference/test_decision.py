import tracemalloc

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from pixelwise.inference.decision import bands, decide, enlarge, most_probable, softmax

MODES = {1: "linear", 2: "bilinear", 3: "trilinear"}


@settings(max_examples=80, deadline=None)
@given(data=st.data(), dimensions=st.sampled_from([2, 3]), scale=st.sampled_from([1, 2, 3, 4, 8]))
def test_enlarging_is_what_torch_interpolates(data, dimensions, scale):
    shape = data.draw(st.tuples(*[st.integers(1, 19)] * dimensions))
    logits = np.random.default_rng(len(shape)).normal(size=(2, 3, *(-(-size // scale) for size in shape)))
    logits = logits.astype(np.float32)
    full = F.interpolate(
        torch.from_numpy(logits), scale_factor=scale, mode=MODES[dimensions], align_corners=False
    ).numpy()
    expected = full[(slice(None), slice(None), *(slice(size) for size in shape))]
    np.testing.assert_allclose(enlarge(logits, scale, shape), expected, atol=1e-5)


@settings(max_examples=60, deadline=None)
@given(
    classes=st.integers(1, 300),
    shape=st.one_of(st.tuples(st.integers(1, 9), st.integers(1, 9)), st.tuples(*[st.integers(1, 5)] * 3)),
    levels=st.integers(1, 4),
    seed=st.integers(0, 99),
)
def test_the_most_probable_class_is_the_first_of_the_largest(classes, shape, levels, seed):
    scores = np.random.default_rng(seed).integers(0, levels, (classes, *shape)).astype(np.float32)
    found = most_probable(scores, np.dtype(np.uint16))
    assert found.dtype == np.uint16
    np.testing.assert_array_equal(found, scores.argmax(0))


def logits_of(kind, shape, rng):
    """Draw logits (K, h, w): noise, many ties, neighbours in float32, smooth ones, or of any magnitude."""
    if kind == "integers":
        return rng.integers(0, 3, shape).astype(np.float32)
    if kind == "neighbours":
        values = np.full(shape, rng.normal(), np.float32)
        for _ in range(3):
            values = np.where(rng.random(shape) < 0.5, np.nextafter(values, np.float32(9)), values)
        return values
    if kind == "smooth":
        coarse = rng.normal(scale=4, size=(shape[0], 2, 2)).astype(np.float32)
        return enlarge(coarse, 8, shape[1:]) + rng.normal(scale=0.1, size=shape).astype(np.float32)
    values = rng.normal(size=shape).astype(np.float32)
    if kind == "magnitudes":
        values *= 10.0 ** rng.integers(-40, 37, shape)
    elif kind == "one for all":
        values[...] = values.max()
    return values.astype(np.float32)


KINDS = ("noise", "integers", "neighbours", "smooth", "magnitudes", "one for all")


@settings(max_examples=400, deadline=None)
@given(
    kind=st.sampled_from(KINDS),
    classes=st.one_of(st.integers(1, 12), st.integers(1, 150)),
    sides=st.tuples(st.integers(1, 9), st.integers(1, 9)),
    scale=st.sampled_from([1, 2, 3, 4, 5, 7, 8, 16]),
    data=st.data(),
    seed=st.integers(0, 1 << 30),
)
def test_deciding_is_enlarging_and_taking_the_most_probable(kind, classes, sides, scale, data, seed):
    # One or more logits beyond the image along an axis, as with padding.
    shape = tuple(side if scale == 1 else data.draw(st.integers(1, side * scale)) for side in sides)
    logits = logits_of(kind, (classes, *sides), np.random.default_rng(seed))
    found = decide(logits, scale, shape, np.dtype(np.uint8))
    assert found.dtype == np.uint8
    assert found.shape == shape
    np.testing.assert_array_equal(found, enlarge(logits, scale, shape).argmax(0))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("classes", "scale"), [(20, 4), (300, 2)])
def test_many_cells_are_decided_in_groups(kind, classes, scale):
    logits = logits_of(kind, (classes, 90, 70), np.random.default_rng(0))
    shape = (90 * scale - 3, 70 * scale - 1)
    found = decide(logits, scale, shape, np.dtype(np.uint16))
    np.testing.assert_array_equal(found, enlarge(logits, scale, shape).argmax(0))


def test_a_class_may_win_between_the_corners_only():
    logits = np.array([[[8, 0]], [[0, 8]], [[5, 5]]], np.float32)
    assert decide(logits, 8, (1, 16), np.dtype(np.uint8)).tolist() == [[0] * 7 + [2] * 2 + [1] * 7]


def test_rounding_may_make_a_class_before_the_best_one_equal():
    """The second class is larger at both corners by the least step, but some of its interpolated values are equal."""
    low = np.float32([[1.7, 1.1]])
    logits = np.stack([low, np.nextafter(low, np.float32(2))])
    full = enlarge(logits, 16, (1, 32))
    assert (full[0] == full[1]).any()
    assert (full[0] < full[1]).any()
    np.testing.assert_array_equal(decide(logits, 16, (1, 32), np.dtype(np.uint8)), (full[0] < full[1]))


def test_volumes_are_decided_like_images():
    logits = np.random.default_rng(0).integers(0, 4, (5, 4, 6, 3)).astype(np.float32)
    found = decide(logits, 4, (13, 24, 10), np.dtype(np.uint8))
    np.testing.assert_array_equal(found, enlarge(logits, 4, (13, 24, 10)).argmax(0))


def test_deciding_needs_no_array_of_all_classes_and_pixels():
    logits = np.random.default_rng(0).normal(size=(150, 128, 128)).astype(np.float32)
    tracemalloc.start()
    decide(logits, 4, (512, 512), np.dtype(np.uint8))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 150 * 512 * 512 * 4 / 5


@pytest.mark.parametrize("scale", [1, 4])
@pytest.mark.parametrize("shape", [(37, 20), (1, 1), (9, 5, 7)])
def test_rows_are_those_of_the_whole(scale, shape):
    sides = tuple(-(-size // scale) + 2 for size in shape)
    logits = np.random.default_rng(0).normal(size=(3, *sides)).astype(np.float32)
    whole = enlarge(logits, scale, shape)
    assert whole.shape == (3, *shape)
    for rows in (slice(0, 4), slice(5, 9), slice(None)):
        np.testing.assert_array_equal(enlarge(logits, scale, shape, rows), whole[:, rows])


@pytest.mark.parametrize("shape", [(1, 1), (1000, 700), (5, 3_000_000), (40, 200, 300)])
def test_bands_cover_the_image_once(shape):
    found = list(bands(20, shape))
    assert [row for rows in found for row in range(rows.start, rows.stop)] == list(range(shape[0]))
    # 4 MB of float32, or a single row.
    assert max(rows.stop - rows.start for rows in found) * 20 * np.prod(shape[1:]) <= max(
        1 << 20, 20 * np.prod(shape[1:])
    )


def test_pieces_of_a_large_image_are_decided_alike():
    scores = np.random.default_rng(0).normal(size=(3, 400, 400)).astype(np.float32)
    np.testing.assert_array_equal(most_probable(scores, np.dtype(np.uint8)), scores.argmax(0))


@pytest.mark.parametrize("axis", [0, 1])
def test_softmax_is_that_of_torch_even_for_extreme_logits(axis):
    logits = np.random.default_rng(1).normal(scale=200, size=(4, 5, 6)).astype(np.float32)
    np.testing.assert_allclose(softmax(logits, axis), torch.from_numpy(logits).softmax(axis).numpy(), atol=1e-6)
