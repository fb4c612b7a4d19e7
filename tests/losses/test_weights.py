"""Class weights: their mean, their order, their cap, and a few by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pixelwise.errors import ConfigError
from pixelwise.losses import class_weights


@settings(max_examples=60, deadline=None)
@given(
    kind=st.sampled_from(["none", "inverse", "median", "effective"]),
    counts=st.lists(st.integers(0, 10**9), min_size=1, max_size=12),
)
def test_weights_average_to_one_over_the_pixels_and_never_differ_by_more_than_fifty(kind, counts):
    weights = np.array(class_weights(kind, counts))
    n = np.array(counts, float)
    assert np.isfinite(weights).all()
    assert (weights > 0).all()
    assert (weights[n == 0] == 1).all()
    if n.any():
        assert (weights * n).sum() / n.sum() == pytest.approx(1)
        present = weights[n > 0]
        assert present.max() <= 50.001 * present.min()
        order = np.argsort(n[n > 0], kind="stable")
        assert (np.diff(present[order]) <= 1e-9 * present.max()).all()


def test_weights_by_hand():
    assert class_weights("none", [7, 0, 3]) == [1, 1, 1]
    assert class_weights("inverse", [60, 30, 10]) == pytest.approx([100 / 180, 100 / 90, 100 / 30])
    # Frequencies 60/10, 30/10, 10/1 pixels per image that shows the class: the rare but large class weighs least.
    raw = np.array([1 / 6, 1 / 3, 1 / 10])
    expected = raw / ((raw * [60, 30, 10]).sum() / 100)
    assert class_weights("median", [60, 30, 10], [10, 10, 1]) == pytest.approx(expected.tolist())
    mild, strong = class_weights("effective", [900, 90, 10]), class_weights("inverse", [900, 90, 10])
    assert mild[2] / mild[0] < strong[2] / strong[0]
    assert mild[2] > mild[1] > mild[0]


def test_weights_of_a_nearly_absent_class_are_capped():
    weights = class_weights("inverse", [10**9, 3])
    assert weights[1] / weights[0] == pytest.approx(50)


def test_given_weights_are_kept_and_wrong_ones_refused():
    assert class_weights([1, 2.5], [10, 10]) == [1.0, 2.5]
    with pytest.raises(ConfigError, match="expected 2 weights, one per class, found 3"):
        class_weights([1, 2, 3], [10, 10])
    for wrong in ([0, 0], [1, -1], [1, math.nan]):
        with pytest.raises(ConfigError, match="with negative or non-finite values"):
            class_weights(wrong, [10, 10])
    with pytest.raises(ConfigError, match=r"expected none, inverse, median, effective.*found 'balanced'"):
        class_weights("balanced", [10, 10])
