"""The boundary loss: its distance maps against a search through all pairs, and by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from scipy import ndimage
from scipy.spatial.distance import cdist

from pixelwise.errors import MaskError, UsageError
from pixelwise.losses import boundary_distance, signed_distances


def test_maps_by_hand():
    masks = torch.tensor([[[0, 0, 1, 1, 1]]])
    of_one = [2, 1, -1, -2, -3]
    maps = signed_distances(masks, 3)
    assert maps[0, 1, 0].tolist() == of_one
    assert maps[0, 0, 0].tolist() == [-d for d in of_one]
    assert (maps[0, 2] == 0).all(), "an absent class has no contour"


def test_ignored_pixels_are_neither_inside_nor_outside():
    masks = torch.tensor([[[0, 255, 1, 1, 255]]])
    assert signed_distances(masks, 2)[0, 1, 0].tolist() == [2, 0, -2, -3, 0]
    assert (signed_distances(torch.tensor([[[1, 1, 255]]]), 2) == 0).all(), "one class alone has no contour"


def test_the_loss_by_hand():
    """Mean over three counted pixels of the expected distance: p of class 1 times ±d, p of class 0 times the opposite."""
    p = torch.tensor([[[[0.9, 0.5, 0.4, 0.2]], [[0.1, 0.5, 0.6, 0.8]]]], dtype=torch.float64)
    masks = torch.tensor([[[0, 255, 1, 1]]])
    expected = (2 * (0.1 - 0.9) - 2 * (0.6 - 0.4) - 3 * (0.8 - 0.2)) / 3
    assert boundary_distance(p.log(), masks).item() == pytest.approx(expected)


@settings(max_examples=60, deadline=None)
@given(arrays(np.uint8, array_shapes(min_dims=2, max_dims=3, max_side=5), elements=st.sampled_from([0, 1, 2, 255])))
def test_maps_match_a_brute_force_search(mask):
    spacing = (3.0, 0.5, 1.5)[: mask.ndim]
    maps = signed_distances(torch.from_numpy(mask)[None], 3, spacing=spacing)[0].numpy()
    places = np.argwhere(np.ones(mask.shape)) * spacing
    apart, ids = cdist(places, places), mask.ravel()
    for k in range(3):
        inside, outside = ids == k, (ids != k) & (ids != 255)
        expected = np.zeros(mask.size)
        if inside.any() and outside.any():
            expected[outside] = apart[outside][:, inside].min(1)
            expected[inside] = -apart[inside][:, outside].min(1)
        np.testing.assert_allclose(maps[k].ravel(), expected, rtol=1e-6)


def test_one_transform_per_present_class(monkeypatch):
    made = []
    transform = ndimage.distance_transform_edt
    monkeypatch.setattr(ndimage, "distance_transform_edt", lambda *a, **k: made.append(1) or transform(*a, **k))
    signed_distances(torch.tensor([[[0, 1, 4, 255]], [[1, 1, 0, 0]], [[2, 2, 255, 2]]]), 6)
    assert len(made) == 3 + 2


def test_maps_can_be_passed_in(batch, value_and_gradient):
    logits, masks = batch((2, 5, 6), void=0.2)
    maps = signed_distances(masks, 4, spacing=(2.0, 1.0))
    given = value_and_gradient(boundary_distance, logits, masks, distances=maps)
    own = value_and_gradient(boundary_distance, logits, masks, spacing=(2.0, 1.0))
    torch.testing.assert_close(given, own, rtol=0, atol=0)
    with pytest.raises(UsageError) as error:
        boundary_distance(logits, masks, distances=maps[:1])
    assert str(error.value) == (
        "distances: expected the shape of the logits, (2, 4, 5, 6), found (1, 4, 5, 6). "
        "Pass the result of signed_distances for these masks."
    )


def test_spacing_scales_the_loss(batch):
    logits, masks = batch((2, 3, 4, 5), void=0.2)
    plain = boundary_distance(logits, masks)
    torch.testing.assert_close(boundary_distance(logits, masks, spacing=(2.5, 2.5, 2.5)), 2.5 * plain)


def test_loss_grows_with_distance():
    masks = torch.zeros(1, 9, 9, dtype=torch.long)
    masks[0, :, :2] = 1
    sure = 20.0 * torch.nn.functional.one_hot(masks, 2).movedim(-1, 1)
    costs = [boundary_distance(sure, masks).item()]
    for column in (2, 5, 8):
        logits = sure.clone()
        logits[:, :, 4, column] = torch.tensor([0.0, 20.0])
        costs.append(boundary_distance(logits, masks).item())
    assert costs[0] < 0
    assert costs == sorted(set(costs))


def test_ignored_columns_at_the_edge_act_as_if_cropped(batch):
    logits, masks = batch((2, 5, 6))
    masks[:, :, 4:] = 255
    torch.testing.assert_close(boundary_distance(logits, masks), boundary_distance(logits[..., :4], masks[..., :4]))


def test_mismatched_arguments_are_errors(batch):
    logits, masks = batch()
    with pytest.raises(UsageError) as error:
        boundary_distance(logits, masks, spacing=(1.0, 0.0))
    assert str(error.value) == (
        "spacing: expected 2 positive lengths, one per axis of the masks, found (1.0, 0.0). "
        "Pass them in axis order, (row, column) or (slice, row, column)."
    )
    with pytest.raises(UsageError, match=r"spacing: expected 2 positive lengths.*found \(1.0, 1.0, 1.0\)"):
        boundary_distance(logits, masks, spacing=(1.0, 1.0, 1.0))
    with pytest.raises(UsageError, match=r"masks: expected 2 or 3 spatial dimensions, found 1. Pass masks \(B, H, W\)"):
        boundary_distance(logits.flatten(2), masks.flatten(1))
    with pytest.raises(MaskError, match="expected class indices 0–1 or the ignore index 255, found 3"):
        signed_distances(masks, 2)
