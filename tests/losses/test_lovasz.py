"""Lovász-softmax and hinge: against other libraries, against the Jaccard index itself, and by hand."""

from __future__ import annotations

from functools import partial

import pytest
import segmentation_models_pytorch as smp
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pixelwise.losses import lovasz_hinge, lovasz_softmax


@pytest.mark.parametrize("void", [0.0, 0.3])
@pytest.mark.parametrize("per", ["batch", "image"])
def test_softmax_matches_segmentation_models(void, per, batch, value_and_gradient):
    logits, masks = batch((3, 8, 9), void=void, dtype=torch.float32)  # segmentation_models does not accept float64
    masks[1][masks[1] == 2] = 0  # a class that is absent from one image
    theirs = smp.losses.LovaszLoss("multiclass", per_image=per == "image", ignore_index=255)
    ours = value_and_gradient(lovasz_softmax, logits, masks, per=per)
    torch.testing.assert_close(ours, value_and_gradient(theirs, logits, masks), rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("per", ["batch", "image"])
def test_hinge_matches_segmentation_models(per, batch, value_and_gradient):
    logits, _ = batch((3, 8, 9), classes=1, dtype=torch.float32)
    truth = (torch.rand(3, 8, 9, generator=torch.Generator().manual_seed(1)) < 0.3).long()
    truth[0, :4] = 255
    theirs = smp.losses.LovaszLoss("binary", per_image=per == "image", ignore_index=255)
    ours = value_and_gradient(lovasz_hinge, logits, truth, per=per)
    theirs = value_and_gradient(lambda z, y: theirs(z[:, 0], y), logits, truth)
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-7)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 2)), min_size=1, max_size=12))
def test_hard_predictions_give_one_minus_mean_iou_of_present_classes(pairs):
    """On hard predictions the extension equals the Jaccard loss."""
    truth, prediction = (torch.tensor(side) for side in zip(*pairs, strict=True))
    logits = 1e3 * torch.nn.functional.one_hot(prediction, 3).T[None].double()
    ious = [
        ((truth == k) & (prediction == k)).sum().item() / ((truth == k) | (prediction == k)).sum().item()
        for k in truth.unique().tolist()
    ]
    expected = 1 - sum(ious) / len(ious)
    assert lovasz_softmax(logits, truth[None]).item() == pytest.approx(expected, abs=1e-12)


def test_softmax_by_hand():
    """One image, class 1 true at the first pixel: errors 0.3, 0.4, 0.2, the largest first."""
    p = torch.tensor([[[0.3, 0.6, 0.8], [0.7, 0.4, 0.2]]], dtype=torch.float64)
    masks = torch.tensor([[1, 0, 0]])
    # Jaccard losses after each pixel joins the wrong ones, in order of error, 0.4, 0.3, 0.2.
    of_class_1 = 0.4 * (1 - 1 / 2) + 0.3 * (1 - 1 / 2) + 0.2 * 0
    of_class_0 = 0.4 * (1 - 1 / 2) + 0.3 * (1 / 2 - 1 / 3) + 0.2 * (1 / 3)
    assert lovasz_softmax(p.log(), masks).item() == pytest.approx((of_class_0 + of_class_1) / 2)


def test_many_pixels_are_counted_exactly():
    """The slopes sum to 1, the Jaccard loss if everything is wrong; float32 sums would not."""
    masks = torch.zeros(1, 1, 200_000, dtype=torch.long)
    masks[..., ::3] = 1
    logits = torch.stack([masks, 1 - masks], 1).float() * 1e3
    assert lovasz_softmax(logits, masks).item() == pytest.approx(1, abs=1e-6)


def test_order_of_equal_errors_does_not_matter(batch):
    _, masks = batch((1, 40), classes=3)
    logits = torch.zeros(1, 3, 40, dtype=torch.float64)
    shuffled = masks[:, torch.randperm(40, generator=torch.Generator().manual_seed(2))]
    torch.testing.assert_close(lovasz_softmax(logits, masks), lovasz_softmax(logits, shuffled))


def test_label_without_positives_is_left_out(batch):
    logits, _ = batch(classes=2)
    truth = torch.zeros(2, 2, 5, 6, dtype=torch.long)
    truth[0, 1, 2:] = 1
    alone = lovasz_hinge(logits[:, 1:], truth[:, 1:])
    torch.testing.assert_close(lovasz_hinge(logits, truth), alone)
    torch.testing.assert_close(lovasz_hinge(logits, truth, per="image"), lovasz_hinge(logits[:1, 1:], truth[:1, 1:]))


@pytest.mark.parametrize("loss", [lovasz_softmax, partial(lovasz_softmax, per="image")])
def test_many_classes_of_which_few_are_present(loss, value_and_gradient):
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(2, 150, 16, 16, generator=generator)
    masks = torch.randint(7, 9, (2, 16, 16), generator=generator)
    value, gradient = value_and_gradient(loss, logits, masks)
    assert 0.9 < value.item() < 1
    assert (gradient != 0).any(dim=(0, 2, 3)).all()  # the softmax connects all logits
