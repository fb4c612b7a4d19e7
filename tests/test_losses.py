"""Losses against torch's own, segmentation_models.pytorch's, and the rules that no library keeps."""

from __future__ import annotations

import math

import pytest
import segmentation_models_pytorch as smp
import torch
from torch.nn import functional as F

from pixelwise.config import LossConfig
from pixelwise.errors import ConfigError, MaskError, UsageError
from pixelwise.losses import (
    combined_loss,
    cross_entropy,
    cross_entropy_dice,
    dice,
    focal,
    tversky,
)

FUNCTIONS = {f.__name__: f for f in (cross_entropy, focal, dice, tversky, cross_entropy_dice)}
every_loss = pytest.mark.parametrize("loss", FUNCTIONS.values(), ids=FUNCTIONS)
CONFIGS = {
    "default": LossConfig(),
    "cross_entropy": LossConfig(cross_entropy=1, dice=0),
    "dice": LossConfig(cross_entropy=0, dice=1),
    "focal": LossConfig(cross_entropy=0, dice=0, focal=1),
    "tversky": LossConfig(cross_entropy=0, dice=0, tversky=1),
    "all": LossConfig(cross_entropy=0.3, dice=0.2, focal=0.4, tversky=0.1),
}


def batch(shape=(2, 5, 6), classes=4, void=0.0, seed=0, dtype=torch.float64):
    """Draw logits that ask for gradients, and masks."""
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(shape[0], classes, *shape[1:], generator=generator, dtype=dtype) * 2
    masks = torch.randint(0, classes, shape, generator=generator)
    masks[torch.rand(shape, generator=generator) < void] = 255
    return logits.requires_grad_(), masks


def value_and_gradient(loss, logits, masks, **options):
    logits = logits.detach().clone().requires_grad_()
    value = loss(logits, masks, **options)
    value.backward()
    return value.detach(), logits.grad


# --- values, against others ---


@pytest.mark.parametrize("weights", [None, torch.tensor([0.5, 3.0, 0.0, 1.0], dtype=torch.float64)])
def test_cross_entropy_is_torchs_where_torchs_is_defined(weights):
    logits, masks = batch(void=0.3)
    ours = value_and_gradient(cross_entropy, logits, masks, class_weights=weights)
    theirs = value_and_gradient(F.cross_entropy, logits, masks, weight=weights, ignore_index=255)
    torch.testing.assert_close(ours, theirs)


def test_focal_without_focus_is_cross_entropy_and_with_it_discounts_sure_pixels():
    logits, masks = batch(void=0.3)
    torch.testing.assert_close(focal(logits, masks, gamma=0.0), cross_entropy(logits, masks))
    p = torch.tensor([0.9, 0.1], dtype=torch.float64)
    one = p.log()[None, :, None]
    expected = -((1 - 0.9) ** 2) * math.log(0.9)
    assert focal(one, torch.tensor([[0]]), gamma=2.0).item() == pytest.approx(expected)


@pytest.mark.parametrize("gamma", [0.5, 1.0])
def test_focal_has_a_finite_gradient_at_a_certain_pixel(gamma):
    logits = torch.tensor([[[200.0], [0.0]]])
    _, gradient = value_and_gradient(focal, logits, torch.tensor([[0]]), gamma=gamma)
    assert torch.isfinite(gradient).all()


def test_dice_is_that_of_segmentation_models_where_every_class_is_present():
    logits, masks = batch((3, 8, 9))
    assert len(masks.unique()) == 4
    theirs = smp.losses.DiceLoss("multiclass", smooth=0.0)
    torch.testing.assert_close(value_and_gradient(dice, logits, masks), value_and_gradient(theirs, logits, masks))


def test_tversky_is_that_of_segmentation_models_where_every_class_is_present():
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
def test_the_fast_pair_is_the_sum_of_the_two(shape, void):
    logits, masks = batch(shape, void=void)
    weights = torch.tensor([0.5, 3.0, 0.1, 1.0], dtype=torch.float64)
    fast = value_and_gradient(cross_entropy_dice, logits, masks, shares=(0.3, 0.9), class_weights=weights)

    def plain(z, y):
        return 0.3 * cross_entropy(z, y, class_weights=weights) + 0.9 * dice(z, y)

    torch.testing.assert_close(fast, value_and_gradient(plain, logits, masks))


@every_loss
@pytest.mark.parametrize("classes", [2, 5])
def test_gradients_are_those_of_the_values(loss, classes):
    logits, masks = batch((2, 3, 3), classes=classes, void=0.2)
    masks[masks == 1] = 0  # a class that is absent
    assert torch.autograd.gradcheck(lambda z: loss(z, masks), (logits,))


def test_the_fast_pair_can_be_gone_through_twice():
    logits, masks = batch(void=0.2)
    value = cross_entropy_dice(logits, masks)
    (first,) = torch.autograd.grad(value, logits, retain_graph=True)
    (second,) = torch.autograd.grad(value, logits)
    assert torch.equal(first, second)


# --- ignored pixels ---


@every_loss
@pytest.mark.parametrize("other", [-1e4, 1e4, math.inf, math.nan])
def test_what_stands_at_an_ignored_pixel_moves_nothing(loss, other):
    logits, masks = batch(void=0.4)
    with torch.no_grad():
        changed = logits.clone()
        changed[:, 1][masks == 255] = other
    before, after = value_and_gradient(loss, logits, masks), value_and_gradient(loss, changed, masks)
    torch.testing.assert_close(before, after, rtol=1e-12, atol=1e-15)
    assert (before[1].movedim(1, -1)[masks == 255] == 0).all()
    assert (after[1].movedim(1, -1)[masks == 255] == 0).all()


@every_loss
def test_ignored_pixels_are_as_if_cut_away(loss):
    logits, masks = batch((1, 40), void=0.5)
    kept = masks[0] != 255
    torch.testing.assert_close(loss(logits, masks), loss(logits[:, :, kept], masks[:, kept]))


@every_loss
def test_a_perfect_prediction_with_half_the_picture_void_costs_nothing(loss):
    _, masks = batch((2, 8, 8), void=0.5)
    truth = torch.where(masks == 255, 1, masks)
    logits = 1e3 * F.one_hot(truth, 4).movedim(-1, 1).double()
    assert loss(logits, masks).item() == pytest.approx(0, abs=1e-12)


@every_loss
def test_a_batch_of_nothing_but_void_gives_zero_and_a_gradient_of_zeros(loss):
    logits, masks = batch()
    value, gradient = value_and_gradient(loss, logits, torch.full_like(masks, 255))
    assert value.item() == 0
    assert gradient is not None
    assert (gradient == 0).all()


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_the_combined_loss_of_void_is_zero_too(config):
    logits, masks = batch()
    loss = combined_loss(config, num_classes=4, class_weights=torch.tensor([1.0, 2.0, 3.0, 4.0]))
    value, gradient = value_and_gradient(loss, logits, torch.full_like(masks, 255))
    assert value.item() == 0
    assert (gradient == 0).all()


def test_weights_of_nothing_but_zero_where_it_counts_give_zero():
    logits, masks = batch()
    weights = torch.tensor([0.0, 0.0, 0.0, 1.0], dtype=torch.float64)
    value, gradient = value_and_gradient(cross_entropy, logits, masks.clamp(max=2), class_weights=weights)
    assert value.item() == 0
    assert (gradient == 0).all()


@every_loss
def test_masks_are_never_written_to(loss):
    logits, masks = batch(void=0.3)
    before = masks.clone()
    loss(logits, masks).backward()
    assert torch.equal(masks, before)


@every_loss
def test_another_ignore_index_is_honoured(loss):
    logits, masks = batch(void=0.3)
    other = torch.where(masks == 255, 65535, masks)
    torch.testing.assert_close(loss(logits, masks), loss(logits, other, ignore_index=65535))


# --- classes that are absent ---


@every_loss
def test_a_wholly_wrong_prediction_never_scores_on_absent_classes(loss):
    masks = torch.zeros(1, 6, dtype=torch.long)
    logits = torch.full((1, 5, 6), -50.0)
    logits[:, 3] = 50.0
    assert loss(logits, masks).item() > 0.99


def test_dice_of_a_perfect_prediction_is_zero_with_classes_absent():
    masks = torch.tensor([[0, 0, 2, 2]])
    logits = 1e3 * F.one_hot(masks, 7).movedim(-1, 1).float()
    assert dice(logits, masks).item() == 0


# --- kinds of input ---


@every_loss
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_coarse_logits_are_reckoned_in_float32(loss, dtype):
    logits, masks = batch(void=0.2, dtype=torch.float32)
    coarse = logits.detach().to(dtype)
    value, gradient = value_and_gradient(loss, coarse, masks)
    expected, slope = value_and_gradient(loss, coarse.double(), masks)
    assert value.dtype == torch.float32
    assert gradient.dtype == dtype
    assert value.item() == pytest.approx(expected.item(), rel=1e-5)
    torch.testing.assert_close(gradient.double(), slope, rtol=1e-2, atol=1e-5)


@every_loss
def test_autocast_changes_nothing(loss):
    logits, masks = batch(void=0.2, dtype=torch.float32)
    expected = value_and_gradient(loss, logits, masks)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = value_and_gradient(loss, logits, masks)
    torch.testing.assert_close(found, expected)


@every_loss
def test_channels_last_logits_give_the_same(loss):
    logits, masks = batch(void=0.2)
    expected = value_and_gradient(loss, logits, masks)
    found = value_and_gradient(loss, logits.detach().to(memory_format=torch.channels_last), masks)
    torch.testing.assert_close(found, expected)


@every_loss
def test_masks_of_bytes_give_the_same(loss):
    logits, masks = batch(void=0.2)
    assert torch.equal(loss(logits, masks), loss(logits, masks.to(torch.uint8)))


@every_loss
def test_logits_far_apart_stay_finite(loss):
    logits = torch.tensor([[[500.0, -500.0], [-500.0, 500.0]]])
    value, gradient = value_and_gradient(loss, logits, torch.tensor([[1, 1]]))
    assert torch.isfinite(value)
    assert torch.isfinite(gradient).all()


def test_the_fast_pair_knows_losses_beyond_what_a_probability_can_hold():
    logits = torch.tensor([[[500.0, 500.0], [-500.0, 500.0]]])
    value = cross_entropy_dice(logits, torch.tensor([[1, 1]]), shares=(1.0, 0.0))
    assert value.item() == pytest.approx((1000 + math.log(2)) / 2)


@every_loss
def test_masks_with_a_channel_axis_are_refused(loss):
    logits, masks = batch()
    with pytest.raises(UsageError) as error:
        loss(logits, masks[:, None])
    assert str(error.value) == (
        "masks: expected shape (2, 5, 6), as (B, *S) of logits (2, 4, 5, 6), found (2, 1, 5, 6). "
        "Drop the channel axis: masks[:, 0]."
    )


@every_loss
@pytest.mark.parametrize("odd", [4, 254, -100])
def test_indices_outside_the_classes_are_refused_by_name(loss, odd):
    logits, masks = batch(void=0.2)
    masks[0, :2, 0] = odd
    with pytest.raises(MaskError) as error:
        loss(logits, masks)
    assert str(error.value) == (
        f"masks: expected class indices 0–3 or the ignore index 255, found {odd} in 2 pixels. "
        "Translate file ids with Labels.encode, or give the model more classes."
    )


def test_masks_of_fractions_are_refused():
    logits, masks = batch()
    with pytest.raises(UsageError, match=r"masks: expected whole numbers, found torch.float32. Give class indices"):
        cross_entropy(logits, masks.float())


def test_class_weights_of_another_length_are_refused():
    logits, masks = batch()
    with pytest.raises(ConfigError, match=r"expected 4 weights, one per class, found \(3,\)"):
        cross_entropy(logits, masks, class_weights=torch.ones(3))


# --- the weighted sum ---


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_the_combined_loss_is_the_weighted_sum_of_its_terms(config):
    logits, masks = batch(void=0.2)
    weights = torch.tensor([0.5, 3.0, 0.1, 1.0], dtype=torch.float64)
    loss = combined_loss(config, num_classes=4, class_weights=weights)

    def plain(z, y):
        return (
            config.cross_entropy * cross_entropy(z, y, class_weights=weights)
            + config.dice * dice(z, y)
            + config.focal * focal(z, y, gamma=config.focal_gamma, class_weights=weights)
            + config.tversky * tversky(z, y, alpha=config.tversky_alpha, beta=config.tversky_beta)
        )

    torch.testing.assert_close(value_and_gradient(loss, logits, masks), value_and_gradient(plain, logits, masks))


def test_the_default_is_half_cross_entropy_half_dice():
    logits, masks = batch()
    value = combined_loss(LossConfig(), num_classes=4)(logits, masks)
    assert value.item() == pytest.approx(0.5 * cross_entropy(logits, masks).item() + 0.5 * dice(logits, masks).item())


def test_a_sum_of_nothing_is_refused():
    with pytest.raises(ConfigError, match="loss: expected a term that weighs more than 0"):
        combined_loss(LossConfig(cross_entropy=0, dice=0), num_classes=2)


@pytest.mark.parametrize("name", ["cross_entropy", "focal"])
@pytest.mark.parametrize("weights", [None, torch.tensor([0.5, 3.0, 0.1, 1.0], dtype=torch.float64)])
def test_accumulated_parts_have_the_gradient_of_the_whole(name, weights):
    """One part is nearly all void and one has other classes: a mean of means is far off."""
    logits, masks = batch((4, 6, 6))
    masks[0, 1:] = 255
    masks[1] = 1
    loss = combined_loss(CONFIGS[name], num_classes=4, class_weights=weights)
    whole, slope = value_and_gradient(loss, logits, masks)
    total = sum(loss.normaliser(part) for part in masks.split(1))
    parts = [
        value_and_gradient(loss, z, y, normaliser=total) for z, y in zip(logits.split(1), masks.split(1), strict=True)
    ]
    torch.testing.assert_close(torch.stack([value for value, _ in parts]).sum(), whole)
    torch.testing.assert_close(torch.cat([gradient for _, gradient in parts]), slope)
    naive = sum(loss(z, y) for z, y in zip(logits.split(1), masks.split(1), strict=True)) / 4
    assert abs(naive.item() - whole.item()) > 0.01


def test_the_pair_accumulates_cross_entropy_exactly_and_dice_by_counted_pixels():
    logits, masks = batch((4, 6, 6), void=0.1)
    masks[0, 1:] = 255
    loss = combined_loss(LossConfig(), num_classes=4)
    total = sum(loss.normaliser(part) for part in masks.split(1))
    parts = list(zip(logits.split(1), masks.split(1), strict=True))
    found = sum(loss(z, y, normaliser=total) for z, y in parts)
    counted = (masks != 255).sum((1, 2)).double()
    dices = torch.stack([dice(z, y) for z, y in parts])
    expected = 0.5 * cross_entropy(logits, masks) + 0.5 * (dices * counted).sum() / counted.sum()
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_one_part_with_its_own_normaliser_is_the_whole(config):
    logits, masks = batch(void=0.2)
    loss = combined_loss(config, num_classes=4, class_weights=torch.tensor([0.5, 3.0, 0.1, 1.0]))
    torch.testing.assert_close(loss(logits, masks, loss.normaliser(masks)), loss(logits, masks), rtol=1e-6, atol=1e-7)
