"""The rules that hold for every loss: what is ignored, absent, extreme or empty; and who breaks them elsewhere."""

from __future__ import annotations

import math
from functools import partial

import pytest
import torch
from torch.nn import functional as F

from pixelwise.errors import MaskError, UsageError
from pixelwise.losses import (
    boundary_distance,
    cross_entropy,
    cross_entropy_dice,
    dice,
    focal,
    lovasz_softmax,
    ohem_cross_entropy,
    soft_cldice,
    tversky,
)

PLAIN = {
    "cross_entropy": cross_entropy,
    "ohem": partial(ohem_cross_entropy, share=0.3, threshold=0.2),
    "focal": focal,
    "dice": dice,
    "dice_per_image": partial(dice, per="image"),
    "tversky": tversky,
    "focal_tversky": partial(tversky, gamma=4 / 3),
    "cross_entropy_dice": cross_entropy_dice,
    "lovasz": lovasz_softmax,
    "lovasz_per_image": partial(lovasz_softmax, per="image"),
}
SMOOTHED = {"smoothed": partial(cross_entropy, label_smoothing=0.1)}
SPATIAL = {
    "boundary": boundary_distance,
    "cldice": partial(soft_cldice, iterations=2),
    "cldice_per_image": partial(soft_cldice, per="image", iterations=1),
}
ALL = PLAIN | SMOOTHED | SPATIAL


def each(losses):
    return pytest.mark.parametrize("loss", losses.values(), ids=losses)


@each(ALL)
@pytest.mark.parametrize("classes", [2, 5])
def test_gradients_are_those_of_the_values(loss, classes, batch):
    logits, masks = batch((2, 3, 3), classes=classes, void=0.2)
    masks[masks == 1] = 0  # a class that is absent
    assert torch.autograd.gradcheck(lambda z: loss(z, masks), (logits,), fast_mode=classes > 2)


@each(ALL)
@pytest.mark.parametrize("other", [-1e4, 1e4, math.inf, math.nan])
def test_what_stands_at_an_ignored_pixel_moves_nothing(loss, other, batch, value_and_gradient):
    logits, masks = batch(void=0.4)
    with torch.no_grad():
        changed = logits.clone()
        changed[:, 1][masks == 255] = other
    before, after = value_and_gradient(loss, logits, masks), value_and_gradient(loss, changed, masks)
    torch.testing.assert_close(before, after, rtol=1e-12, atol=1e-15)
    assert (before[1].movedim(1, -1)[masks == 255] == 0).all()
    assert (after[1].movedim(1, -1)[masks == 255] == 0).all()


@each(PLAIN | SMOOTHED)
def test_ignored_pixels_are_as_if_cut_away(loss, batch):
    logits, masks = batch((1, 40), void=0.5)
    kept = masks[0] != 255
    torch.testing.assert_close(loss(logits, masks), loss(logits[:, :, kept], masks[:, kept]))


@each({k: v for k, v in ALL.items() if k not in ("smoothed", "boundary")})
def test_a_perfect_prediction_with_half_the_image_void_costs_nothing(loss, batch):
    _, masks = batch((2, 8, 8), void=0.5)
    truth = torch.where(masks == 255, 1, masks)
    logits = 1e3 * F.one_hot(truth, 4).movedim(-1, 1).double()
    assert loss(logits, masks).item() == pytest.approx(0, abs=1e-12)


@each(ALL)
def test_a_batch_of_nothing_but_void_gives_zero_and_a_gradient_of_zeros(loss, batch, value_and_gradient):
    logits, masks = batch()
    value, gradient = value_and_gradient(loss, logits, torch.full_like(masks, 255))
    assert value.item() == 0
    assert gradient is not None
    assert (gradient == 0).all()


@each(ALL)
def test_masks_are_never_written_to(loss, batch):
    logits, masks = batch(void=0.3)
    before = masks.clone()
    loss(logits, masks).backward()
    assert torch.equal(masks, before)


@each(ALL)
def test_another_ignore_index_is_honoured(loss, batch):
    logits, masks = batch(void=0.3)
    other = torch.where(masks == 255, 65535, masks)
    torch.testing.assert_close(loss(logits, masks), loss(logits, other, ignore_index=65535))


@each(PLAIN | SMOOTHED)
def test_a_wholly_wrong_prediction_never_scores_on_absent_classes(loss):
    masks = torch.zeros(1, 6, dtype=torch.long)
    logits = torch.full((1, 5, 6), -50.0)
    logits[:, 3] = 50.0
    assert loss(logits, masks).item() > 0.99


@each(ALL)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_coarse_logits_are_reckoned_in_float32(loss, dtype, batch, value_and_gradient):
    logits, masks = batch(void=0.2, dtype=torch.float32)
    coarse = logits.detach().to(dtype)
    value, gradient = value_and_gradient(loss, coarse, masks)
    expected, slope = value_and_gradient(loss, coarse.double(), masks)
    assert value.dtype == torch.float32
    assert gradient.dtype == dtype
    assert value.item() == pytest.approx(expected.item(), rel=1e-5)
    torch.testing.assert_close(gradient.double(), slope, rtol=1e-2, atol=1e-5)


@each(ALL)
def test_autocast_changes_nothing(loss, batch, value_and_gradient):
    logits, masks = batch(void=0.2, dtype=torch.float32)
    expected = value_and_gradient(loss, logits, masks)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = value_and_gradient(loss, logits, masks)
    torch.testing.assert_close(found, expected)


@each(ALL)
def test_channels_last_logits_give_the_same(loss, batch, value_and_gradient):
    logits, masks = batch(void=0.2)
    expected = value_and_gradient(loss, logits, masks)
    found = value_and_gradient(loss, logits.detach().to(memory_format=torch.channels_last), masks)
    torch.testing.assert_close(found, expected)


@each(ALL)
def test_masks_of_bytes_give_the_same(loss, batch):
    logits, masks = batch(void=0.2)
    assert torch.equal(loss(logits, masks), loss(logits, masks.to(torch.uint8)))


@each(ALL)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("size", [500.0, 1e4])
def test_logits_far_apart_stay_finite(loss, size, dtype, batch, value_and_gradient):
    logits, masks = batch((2, 5, 6), void=0.2, dtype=torch.float32)
    value, gradient = value_and_gradient(loss, (logits.sign() * size).to(dtype), masks)
    assert torch.isfinite(value)
    assert torch.isfinite(gradient).all()


@each(ALL)
@pytest.mark.parametrize("shape", [(0, 4, 5, 6), (2, 4, 0, 6), (2, 4, 5, 0)])
def test_a_batch_without_pixels_gives_zero(loss, shape, value_and_gradient):
    masks = torch.zeros(shape[0], *shape[2:], dtype=torch.long)
    value, gradient = value_and_gradient(loss, torch.zeros(shape), masks)
    assert value.item() == 0
    assert gradient.shape == shape


@each(ALL)
def test_with_one_class_there_is_nothing_to_learn(loss, batch, value_and_gradient):
    logits, masks = batch(classes=1, void=0.2)
    value, gradient = value_and_gradient(loss, logits, masks)
    assert value.item() == pytest.approx(0, abs=1e-12)
    torch.testing.assert_close(gradient, torch.zeros_like(gradient))


@each(ALL)
def test_volumes_have_gradients_that_are_those_of_the_values(loss, batch):
    logits, masks = batch((1, 2, 3, 3), classes=3, void=0.2)
    assert torch.autograd.gradcheck(lambda z: loss(z, masks), (logits,), fast_mode=True)


@each(ALL)
def test_a_logit_that_is_no_number_is_not_hidden_where_it_counts(loss, batch):
    logits, masks = batch()
    with torch.no_grad():
        logits[0, :, 0, 0] = math.nan
    assert not torch.isfinite(loss(logits, masks))


@each({k: v for k, v in ALL.items() if "per_image" in k})
def test_per_image_is_the_mean_over_the_images_in_which_anything_counts(loss, batch):
    logits, masks = batch((4, 6, 6), void=0.2)
    masks[2] = 255
    alone = [loss(z, y).item() for z, y in zip(logits.split(1), masks.split(1), strict=True)]
    assert alone[2] == 0
    assert loss(logits, masks).item() == pytest.approx(sum(alone) / 3)


@each({"dice": dice, "lovasz": lovasz_softmax, "tversky": tversky, "cldice": soft_cldice})
def test_neither_batch_nor_image_is_refused(loss, batch):
    logits, masks = batch()
    with pytest.raises(UsageError) as error:
        loss(logits, masks, per="picture")
    assert str(error.value) == (
        "per: expected batch or image, found 'picture'. "
        "Say batch for sums over all images of a batch, image for each on its own."
    )


# --- the traps, B1 to B8, where others fall into them ---


@each(PLAIN)
def test_b1_what_is_predicted_at_ignored_pixels_is_in_no_denominator(loss, batch):
    """Elsewhere Dice takes the ignore index for a channel: 0.33 for a perfect prediction with half the image void."""
    _, masks = batch((1, 8, 8))
    logits = 1e3 * F.one_hot(masks, 4).movedim(-1, 1).float()
    masks[:, 4:] = 255
    logits[:, :, 4:] = 1e3 * torch.randn(1, 4, 4, 8, generator=torch.Generator().manual_seed(1))
    assert loss(logits, masks).item() == pytest.approx(0, abs=1e-6)


def test_b2_b3_the_mean_is_over_counted_pixels_also_with_weights():
    """Elsewhere the mean is over all pixels (half of this), and weights beside an ignored pixel raise IndexError."""
    logits = torch.zeros(1, 2, 1, 4)
    masks = torch.tensor([[[0, 1, 255, 255]]])
    assert cross_entropy(logits, masks).item() == pytest.approx(math.log(2))
    assert cross_entropy(logits, masks, class_weights=torch.tensor([1.0, 3.0])).item() == pytest.approx(math.log(2))


def test_b4_a_term_after_dice_sees_the_ignored_pixels_as_such(batch):
    """Elsewhere Dice sets them to class 0 in place."""
    logits, masks = batch(void=0.4)
    alone = cross_entropy(logits, masks)
    for loss in ALL.values():
        loss(logits, masks)
    assert torch.equal(cross_entropy(logits, masks), alone)


@each(ALL)
def test_b5_all_ignored_is_zero_in_half_precision_too(loss, batch, value_and_gradient):
    """Elsewhere it is NaN, or an error."""
    logits, masks = batch(dtype=torch.float32)
    logits = torch.full_like(logits, math.nan).to(torch.bfloat16)
    value, gradient = value_and_gradient(loss, logits, torch.full_like(masks, 255))
    assert value.item() == 0
    assert (gradient == 0).all()


def test_b6_absent_classes_are_not_in_the_mean():
    """Elsewhere a wholly wrong prediction has a Dice loss of 0.2 where one of five classes is present."""
    masks = torch.zeros(1, 3, 3, dtype=torch.long)
    logits = torch.full((1, 5, 3, 3), -50.0)
    logits[:, 3] = 50.0
    for loss in (dice, lovasz_softmax, partial(dice, per="image"), partial(tversky, gamma=4 / 3)):
        assert loss(logits, masks).item() == pytest.approx(1)


def test_b8_no_weight_is_hidden(batch):
    """Elsewhere a file's name switches weights on: without `class_weights` every class counts alike here."""
    logits, masks = batch(void=0.2)
    for loss in (cross_entropy, focal, cross_entropy_dice, ohem_cross_entropy):
        ones = loss(logits, masks, class_weights=torch.ones(4, dtype=torch.float64))
        torch.testing.assert_close(loss(logits, masks), ones)


@each(ALL)
def test_masks_with_a_channel_axis_are_refused(loss, batch):
    logits, masks = batch()
    with pytest.raises(UsageError) as error:
        loss(logits, masks[:, None])
    assert str(error.value) == (
        "masks: expected shape (2, 5, 6), as (B, *S) of logits (2, 4, 5, 6), found (2, 1, 5, 6). "
        "Drop the channel axis: masks[:, 0]."
    )


@each(ALL)
@pytest.mark.parametrize("odd", [4, 254, -100])
def test_indices_outside_the_classes_are_refused_by_name(loss, odd, batch):
    logits, masks = batch(void=0.2)
    masks[0, :2, 0] = odd
    with pytest.raises(MaskError) as error:
        loss(logits, masks)
    assert str(error.value) == (
        f"masks: expected class indices 0–3 or the ignore index 255, found {odd} in 2 pixels. "
        "Translate file ids with Labels.encode, or give the model more classes."
    )


@each(ALL)
@pytest.mark.parametrize("shape", [(), (6,), (2, 6)])
def test_logits_without_images_classes_or_space_are_refused(loss, shape):
    with pytest.raises(UsageError) as error:
        loss(torch.zeros(shape), torch.zeros((2, 3, 3), dtype=torch.long))
    assert str(error.value) == (
        f"logits: expected (B, K, *S), 3 axes or more, found {shape}. "
        "Give a batch of logits as the network makes them, with an axis for the images even of one."
    )
