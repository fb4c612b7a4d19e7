"""Dice, Tversky, focal Tversky, and Dice with cross-entropy in one go: against other libraries, and by hand."""

from __future__ import annotations

import math

import monai.losses
import pytest
import segmentation_models_pytorch as smp
import torch
from torch.nn import functional as F

from pixelwise.errors import UsageError
from pixelwise.losses import cross_entropy, cross_entropy_dice, dice, tversky


def test_dice_matches_segmentation_models_if_all_classes_are_present(batch, value_and_gradient):
    logits, masks = batch((3, 8, 9))
    assert len(masks.unique()) == 4
    theirs = smp.losses.DiceLoss("multiclass", smooth=0.0)
    torch.testing.assert_close(value_and_gradient(dice, logits, masks), value_and_gradient(theirs, logits, masks))


def test_tversky_matches_segmentation_models_if_all_classes_are_present(batch, value_and_gradient):
    logits, masks = batch((3, 8, 9))
    theirs = smp.losses.TverskyLoss("multiclass", alpha=0.2, beta=0.9, gamma=1.0, smooth=0.0)
    ours = value_and_gradient(tversky, logits, masks, alpha=0.2, beta=0.9)
    torch.testing.assert_close(ours, value_and_gradient(theirs, logits, masks))


def test_tversky_beta_weights_misses():
    missed = torch.tensor([[[9.0, 9.0, 9.0, 9.0], [-9.0, -9.0, -9.0, -9.0]]])
    masks = torch.tensor([[0, 0, 0, 1]])
    only_class_1 = 1.0
    class_0 = 1 - 3 / (3 + 0.3)  # one false positive, weighted by alpha
    expected = (class_0 + only_class_1) / 2
    assert tversky(missed, masks, alpha=0.3, beta=0.7).item() == pytest.approx(expected, abs=1e-4)


def test_dice_by_hand():
    p = torch.tensor([[[0.8, 0.4], [0.2, 0.6]]], dtype=torch.float64)
    masks = torch.tensor([[0, 1]])
    expected = 1 - (2 * 0.8 / (1.2 + 1) + 2 * 0.6 / (0.8 + 1)) / 2
    assert dice(p.log(), masks).item() == pytest.approx(expected)


@pytest.mark.parametrize("void", [0.0, 0.3])
@pytest.mark.parametrize("shape", [(2, 5), (2, 5, 6), (2, 3, 4, 5)])
def test_fused_loss_is_the_sum_of_the_two(shape, void, batch, value_and_gradient):
    logits, masks = batch(shape, void=void)
    weights = torch.tensor([0.5, 3.0, 0.1, 1.0], dtype=torch.float64)
    fast = value_and_gradient(cross_entropy_dice, logits, masks, shares=(0.3, 0.9), class_weights=weights)

    def plain(z, y):
        return 0.3 * cross_entropy(z, y, class_weights=weights) + 0.9 * dice(z, y)

    torch.testing.assert_close(fast, value_and_gradient(plain, logits, masks))


def test_fused_loss_allows_a_second_backward_pass(batch):
    logits, masks = batch(void=0.2)
    value = cross_entropy_dice(logits, masks)
    (first,) = torch.autograd.grad(value, logits, retain_graph=True)
    (second,) = torch.autograd.grad(value, logits)
    assert torch.equal(first, second)


def test_dice_of_a_perfect_prediction_is_zero_with_absent_classes():
    masks = torch.tensor([[0, 0, 2, 2]])
    logits = 1e3 * F.one_hot(masks, 7).movedim(-1, 1).float()
    assert dice(logits, masks).item() == 0


@pytest.mark.parametrize("void", [0.0, 0.3])
@pytest.mark.parametrize("classes", [4, 20])
def test_fused_loss_keeps_the_channels_last_layout(classes, void, batch):
    logits, masks = batch((2, 9, 7), classes=classes, void=void)
    beside = logits.detach().to(memory_format=torch.channels_last).requires_grad_()
    value, found = cross_entropy_dice(logits, masks), cross_entropy_dice(beside, masks)
    torch.testing.assert_close(found, value)
    (expected,) = torch.autograd.grad(value, logits)
    (first,) = torch.autograd.grad(found, beside, retain_graph=True)
    (second,) = torch.autograd.grad(found, beside)
    torch.testing.assert_close(first, expected)
    assert torch.equal(first, second)


def test_chunk_size_does_not_matter(batch, value_and_gradient, monkeypatch):
    """Chunks of one pixel and of all pixels."""
    logits, masks = batch((2, 9, 7), void=0.2, dtype=torch.float32)
    whole = value_and_gradient(cross_entropy_dice, logits, masks)
    monkeypatch.setattr("pixelwise.losses.overlap._CHUNK", {"cpu": 1})
    single = value_and_gradient(cross_entropy_dice, logits, masks)
    torch.testing.assert_close(single, whole, rtol=1e-6, atol=1e-9)


def test_fused_loss_does_not_underflow():
    logits = torch.tensor([[[500.0, 500.0], [-500.0, 500.0]]])
    value = cross_entropy_dice(logits, torch.tensor([[1, 1]]), shares=(1.0, 0.0))
    assert value.item() == pytest.approx((1000 + math.log(2)) / 2)


def test_dice_per_image_matches_monai_if_all_classes_are_present(batch, value_and_gradient):
    logits, masks = batch((3, 12, 12))
    assert all(len(one.unique()) == 4 for one in masks)
    theirs = monai.losses.DiceLoss(softmax=True, to_onehot_y=True, smooth_nr=0.0, smooth_dr=1e-12, batch=False)
    ours = value_and_gradient(dice, logits, masks, per="image")
    torch.testing.assert_close(ours, value_and_gradient(lambda z, y: theirs(z, y[:, None]), logits, masks))


def test_dice_per_image_by_hand():
    """The first image has both classes, the second only one: the result is a mean of image means."""
    p = torch.tensor([[[0.8, 0.4], [0.2, 0.6]], [[0.5, 1.0], [0.5, 0.0]]], dtype=torch.float64)
    masks = torch.tensor([[0, 1], [0, 255]])
    first = 1 - (2 * 0.8 / (1.2 + 1) + 2 * 0.6 / (0.8 + 1)) / 2
    second = 1 - 2 * 0.5 / (0.5 + 1)
    assert dice(p.clamp_min(1e-30).log(), masks, per="image").item() == pytest.approx((first + second) / 2)


def test_focal_tversky_by_hand():
    p = torch.tensor([[[0.8, 0.4], [0.2, 0.6]]], dtype=torch.float64)
    masks = torch.tensor([[0, 1]])
    first = 0.8 / (0.8 + 0.3 * 0.4 + 0.7 * 0.2)
    second = 0.6 / (0.6 + 0.3 * 0.2 + 0.7 * 0.4)
    expected = ((1 - first) ** 0.75 + (1 - second) ** 0.75) / 2
    assert tversky(p.log(), masks, gamma=4 / 3).item() == pytest.approx(expected)


@pytest.mark.parametrize("gamma", [4 / 3, 3.0])
def test_focal_tversky_has_a_finite_gradient_at_the_optimum(gamma, batch, value_and_gradient):
    _, masks = batch((1, 4, 4))
    for sure in (30.0, 1e3):
        logits = sure * F.one_hot(masks, 4).movedim(-1, 1).float()
        _, gradient = value_and_gradient(tversky, logits, masks, gamma=gamma)
        assert torch.isfinite(gradient).all()


def test_gamma_of_zero_is_an_error(batch):
    with pytest.raises(UsageError, match=r"gamma: expected a number above 0, found 0.0. Use 1 for plain Tversky"):
        tversky(*batch(), gamma=0.0)


@pytest.mark.parametrize(("alpha", "beta"), [(0.0, 0.0), (-0.1, 0.7), (0.3, -0.7), (math.nan, 0.5), (0.5, math.inf)])
def test_invalid_tversky_weights_are_errors(alpha, beta, batch):
    with pytest.raises(UsageError) as error:
        tversky(*batch(), alpha=alpha, beta=beta)
    assert str(error.value) == (
        f"tversky: expected two numbers of at least 0, not both 0, found alpha {alpha} and beta {beta}. "
        "Use alpha 0.3 and beta 0.7 to penalise misses more; 0.5 each is Dice."
    )


def test_one_tversky_weight_may_be_0():
    p = torch.tensor([[[0.8, 0.4], [0.2, 0.6]]], dtype=torch.float64)
    masks = torch.tensor([[0, 1]])
    recall = 1 - (0.8 + 0.6) / 2
    assert tversky(p.log(), masks, alpha=0, beta=1).item() == pytest.approx(recall)
