import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from pixelwise.inference.decision import enlarge, most_probable, softmax

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


def test_pieces_of_a_large_image_are_decided_alike():
    scores = np.random.default_rng(0).normal(size=(3, 400, 400)).astype(np.float32)
    np.testing.assert_array_equal(most_probable(scores, np.dtype(np.uint8)), scores.argmax(0))


@pytest.mark.parametrize("axis", [0, 1])
def test_softmax_is_that_of_torch_even_for_extreme_logits(axis):
    logits = np.random.default_rng(1).normal(scale=200, size=(4, 5, 6)).astype(np.float32)
    np.testing.assert_allclose(softmax(logits, axis), torch.from_numpy(logits).softmax(axis).numpy(), atol=1e-6)
