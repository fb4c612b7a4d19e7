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


def test_dice_is_that_of_segmentation_models_where_every_class_is_present(batch, value_and_gradient):
    logits, masks = batch((3, 8, 9))
    assert len(masks.unique()) == 4
    theirs = smp.losses.DiceLoss("multiclass", smooth=0.0)
    torch.testing.assert_close(value_and_gradient(dice, logits, masks), value_and_gradient(theirs, logits, masks))


def test_tversky_is_that_of_segmentation_models_where_every_class_is_present(batch, value_and_gradient):
    logits, masks = batch((3, 8, 9))
    theirs = smp.losses.TverskyLoss("multiclass", alpha=0.2, beta=0.9, gamma=1.0, smooth=0.0)
    ours = value_and_gradient(tversky, logits, masks, alpha=0.2, beta=0.9)
    torch.testing.assert_close(ours, value_and_gradient(theirs, logits, masks))


def test_tversky_beta_weighs_what_is_missed():
    missed = torch.tensor([[[9.0, 9.0, 9.0, 9.0], [-9.0, -9.0, -9.0, -9.0]]])
    masks = torch.tensor([[0, 0, 0, 1]])
    only_class_1 = 1.0
    class_0 = 1 - 3 / (3 + 0.3)  # one false positive, weighed by alpha
    expected = (class_0 + only_class_1) / 2
    assert tversky(missed, masks, alpha=0.3, beta=0.7).item() == pytest.approx(expected, abs=1e-4)


def test_dice_by_hand():
    p = torch.tensor([[[0.8, 0.4], [0.2, 0.6]]], dtype=torch.float64)
    masks = torch.tensor([[0, 1]])
    expected = 1 - (2 * 0.8 / (1.2 + 1) + 2 * 0.6 / (0.8 + 1)) / 2
    assert dice(p.log(), masks).item() == pytest.approx(expected)


@pytest.mark.parametrize("void", [0.0, 0.3])
@pytest.mark.parametrize("shape", [(2, 5), (2, 5, 6), (2, 3, 4, 5)])
def test_the_fast_pair_is_the_sum_of_the_two(shape, void, batch, value_and_gradient):
    logits, masks = batch(shape, void=void)
    weights = torch.tensor([0.5, 3.0, 0.1, 1.0], dtype=torch.float64)
    fast = value_and_gradient(cross_entropy_dice, logits, masks, shares=(0.3, 0.9), class_weights=weights)

    def plain(z, y):
        return 0.3 * cross_entropy(z, y, class_weights=weights) + 0.9 * dice(z, y)

    torch.testing.assert_close(fast, value_and_gradient(plain, logits, masks))


def test_the_fast_pair_can_be_gone_through_twice(batch):
    logits, masks = batch(void=0.2)
    value = cross_entropy_dice(logits, masks)
    (first,) = torch.autograd.grad(value, logits, retain_graph=True)
    (second,) = torch.autograd.grad(value, logits)
    assert torch.equal(first, second)


def test_dice_of_a_perfect_prediction_is_zero_with_classes_absent():
    masks = torch.tensor([[0, 0, 2, 2]])
    logits = 1e3 * F.one_hot(masks, 7).movedim(-1, 1).float()
    assert dice(logits, masks).item() == 0


@pytest.mark.parametrize("void", [0.0, 0.3])
@pytest.mark.parametrize("classes", [4, 20])
def test_the_fast_pair_keeps_the_layout_of_channels_last_logits(classes, void, batch):
    logits, masks = batch((2, 9, 7), classes=classes, void=void)
    beside = logits.detach().to(memory_format=torch.channels_last).requires_grad_()
    value, found = cross_entropy_dice(logits, masks), cross_entropy_dice(beside, masks)
    torch.testing.assert_close(found, value)
    (expected,) = torch.autograd.grad(value, logits)
    (first,) = torch.autograd.grad(found, beside, retain_graph=True)
    (second,) = torch.autograd.grad(found, beside)
    torch.testing.assert_close(first, expected)
    assert torch.equal(first, second)


def test_the_fast_pair_is_worked_out_in_pieces_as_in_one(batch, value_and_gradient, monkeypatch):
    """A piece of one pixel and of all pixels."""
    logits, masks = batch((2, 9, 7), void=0.2, dtype=torch.float32)
    whole = value_and_gradient(cross_entropy_dice, logits, masks)
    monkeypatch.setattr("pixelwise.losses.overlap._PIECE", {"cpu": 1})
    single = value_and_gradient(cross_entropy_dice, logits, masks)
    torch.testing.assert_close(single, whole, rtol=1e-6, atol=1e-9)


def test_the_fast_pair_knows_losses_beyond_what_a_probability_can_hold():
    logits = torch.tensor([[[500.0, 500.0], [-500.0, 500.0]]])
    value = cross_entropy_dice(logits, torch.tensor([[1, 1]]), shares=(1.0, 0.0))
    assert value.item() == pytest.approx((1000 + math.log(2)) / 2)


def test_dice_per_image_is_that_of_monai_where_every_image_shows_every_class(batch, value_and_gradient):
    logits, masks = batch((3, 12, 12))
    assert all(len(one.unique()) == 4 for one in masks)
    theirs = monai.losses.DiceLoss(softmax=True, to_onehot_y=True, smooth_nr=0.0, smooth_dr=1e-12, batch=False)
    ours = value_and_gradient(dice, logits, masks, per="image")
    torch.testing.assert_close(ours, value_and_gradient(lambda z, y: theirs(z, y[:, None]), logits, masks))


def test_dice_per_image_by_hand():
    """The first image shows both classes, the second one alone: a mean of means, not of three classes."""
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
def test_focal_tversky_has_a_finite_gradient_where_all_is_right(gamma, batch, value_and_gradient):
    _, masks = batch((1, 4, 4))
    for sure in (30.0, 1e3):
        logits = sure * F.one_hot(masks, 4).movedim(-1, 1).float()
        _, gradient = value_and_gradient(tversky, logits, masks, gamma=gamma)
        assert torch.isfinite(gradient).all()


def test_a_gamma_of_nothing_is_refused(batch):
    with pytest.raises(UsageError, match=r"gamma: expected a number above 0, found 0.0. Say 1 for plain Tversky"):
        tversky(*batch(), gamma=0.0)


@pytest.mark.parametrize(("alpha", "beta"), [(0.0, 0.0), (-0.1, 0.7), (0.3, -0.7), (math.nan, 0.5), (0.5, math.inf)])
def test_weights_that_switch_tversky_off_or_turn_it_around_are_refused(alpha, beta, batch):
    with pytest.raises(UsageError) as error:
        tversky(*batch(), alpha=alpha, beta=beta)
    assert str(error.value) == (
        f"tversky: expected two numbers from 0 on, not both 0, found alpha {alpha} and beta {beta}. "
        "Say alpha 0.3 and beta 0.7 where what is missed is worse; 0.5 each is Dice."
    )


def test_one_weight_of_tversky_may_be_0():
    p = torch.tensor([[[0.8, 0.4], [0.2, 0.6]]], dtype=torch.float64)
    masks = torch.tensor([[0, 1]])
    recall = 1 - (0.8 + 0.6) / 2
    assert tversky(p.log(), masks, alpha=0, beta=1).item() == pytest.approx(recall)
