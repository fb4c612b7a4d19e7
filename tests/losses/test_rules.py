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
def test_gradients_match_numerical_ones(loss, classes, batch):
    logits, masks = batch((2, 3, 3), classes=classes, void=0.2)
    masks[masks == 1] = 0  # a class that is absent
    assert torch.autograd.gradcheck(lambda z: loss(z, masks), (logits,), fast_mode=classes > 2)


@each(ALL)
@pytest.mark.parametrize("other", [-1e4, 1e4, math.inf, math.nan])
def test_logits_of_ignored_pixels_have_no_effect(loss, other, batch, value_and_gradient):
    logits, masks = batch(void=0.4)
    with torch.no_grad():
        changed = logits.clone()
        changed[:, 1][masks == 255] = other
    before, after = value_and_gradient(loss, logits, masks), value_and_gradient(loss, changed, masks)
    torch.testing.assert_close(before, after, rtol=1e-12, atol=1e-15)
    assert (before[1].movedim(1, -1)[masks == 255] == 0).all()
    assert (after[1].movedim(1, -1)[masks == 255] == 0).all()


@each(PLAIN | SMOOTHED)
def test_ignored_pixels_act_as_if_cropped(loss, batch):
    logits, masks = batch((1, 40), void=0.5)
    kept = masks[0] != 255
    torch.testing.assert_close(loss(logits, masks), loss(logits[:, :, kept], masks[:, kept]))


@each({k: v for k, v in ALL.items() if k not in ("smoothed", "boundary")})
def test_perfect_prediction_with_half_the_image_ignored_has_zero_loss(loss, batch):
    _, masks = batch((2, 8, 8), void=0.5)
    truth = torch.where(masks == 255, 1, masks)
    logits = 1e3 * F.one_hot(truth, 4).movedim(-1, 1).double()
    assert loss(logits, masks).item() == pytest.approx(0, abs=1e-12)


@each(ALL)
def test_all_ignored_gives_zero_value_and_gradient(loss, batch, value_and_gradient):
    logits, masks = batch()
    value, gradient = value_and_gradient(loss, logits, torch.full_like(masks, 255))
    assert value.item() == 0
    assert gradient is not None
    assert (gradient == 0).all()


@each(ALL)
def test_masks_are_not_modified(loss, batch):
    logits, masks = batch(void=0.3)
    before = masks.clone()
    loss(logits, masks).backward()
    assert torch.equal(masks, before)


@each(ALL)
def test_other_ignore_index(loss, batch):
    logits, masks = batch(void=0.3)
    other = torch.where(masks == 255, 65535, masks)
    torch.testing.assert_close(loss(logits, masks), loss(logits, other, ignore_index=65535))


@each(PLAIN | SMOOTHED)
def test_absent_classes_do_not_improve_a_wrong_prediction(loss):
    masks = torch.zeros(1, 6, dtype=torch.long)
    logits = torch.full((1, 5, 6), -50.0)
    logits[:, 3] = 50.0
    assert loss(logits, masks).item() > 0.99


@each(ALL)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_half_precision_logits_are_computed_in_float32(loss, dtype, batch, value_and_gradient):
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
def test_uint8_masks_give_the_same(loss, batch):
    logits, masks = batch(void=0.2)
    assert torch.equal(loss(logits, masks), loss(logits, masks.to(torch.uint8)))


@each(ALL)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("size", [500.0, 1e4])
def test_extreme_logits_stay_finite(loss, size, dtype, batch, value_and_gradient):
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
def test_single_class_has_no_gradient(loss, batch, value_and_gradient):
    logits, masks = batch(classes=1, void=0.2)
    value, gradient = value_and_gradient(loss, logits, masks)
    assert value.item() == pytest.approx(0, abs=1e-12)
    torch.testing.assert_close(gradient, torch.zeros_like(gradient))


@each(ALL)
def test_gradients_of_volumes_match_numerical_ones(loss, batch):
    logits, masks = batch((1, 2, 3, 3), classes=3, void=0.2)
    assert torch.autograd.gradcheck(lambda z: loss(z, masks), (logits,), fast_mode=True)


@each(ALL)
def test_nan_at_a_counted_pixel_propagates(loss, batch):
    logits, masks = batch()
    with torch.no_grad():
        logits[0, :, 0, 0] = math.nan
    assert not torch.isfinite(loss(logits, masks))


@each({k: v for k, v in ALL.items() if "per_image" in k})
def test_per_image_is_the_mean_over_images_with_counted_pixels(loss, batch):
    logits, masks = batch((4, 6, 6), void=0.2)
    masks[2] = 255
    alone = [loss(z, y).item() for z, y in zip(logits.split(1), masks.split(1), strict=True)]
    assert alone[2] == 0
    assert loss(logits, masks).item() == pytest.approx(sum(alone) / 3)


@each({"dice": dice, "lovasz": lovasz_softmax, "tversky": tversky, "cldice": soft_cldice})
def test_invalid_per_is_an_error(loss, batch):
    logits, masks = batch()
    with pytest.raises(UsageError) as error:
        loss(logits, masks, per="picture")
    assert str(error.value) == (
        "per: expected batch or image, found 'picture'. "
        "Use batch to sum over all images of a batch, image to treat each on its own."
    )


# --- known errors of other libraries, B1 to B8 ---


@each(PLAIN)
def test_b1_predictions_at_ignored_pixels_are_in_no_denominator(loss, batch):
    """Other libraries treat the ignore index as a channel: Dice 0.33 for a perfect prediction with half the image ignored."""
    _, masks = batch((1, 8, 8))
    logits = 1e3 * F.one_hot(masks, 4).movedim(-1, 1).float()
    masks[:, 4:] = 255
    logits[:, :, 4:] = 1e3 * torch.randn(1, 4, 4, 8, generator=torch.Generator().manual_seed(1))
    assert loss(logits, masks).item() == pytest.approx(0, abs=1e-6)


def test_b2_b3_the_mean_is_over_counted_pixels_also_with_weights():
    """Other libraries average over all pixels (half of this value), or raise IndexError for weights with ignored pixels."""
    logits = torch.zeros(1, 2, 1, 4)
    masks = torch.tensor([[[0, 1, 255, 255]]])
    assert cross_entropy(logits, masks).item() == pytest.approx(math.log(2))
    assert cross_entropy(logits, masks, class_weights=torch.tensor([1.0, 3.0])).item() == pytest.approx(math.log(2))


def test_b4_terms_after_dice_still_ignore_pixels(batch):
    """Other libraries set ignored pixels to class 0 in place."""
    logits, masks = batch(void=0.4)
    alone = cross_entropy(logits, masks)
    for loss in ALL.values():
        loss(logits, masks)
    assert torch.equal(cross_entropy(logits, masks), alone)


@each(ALL)
def test_b5_all_ignored_is_zero_in_half_precision_too(loss, batch, value_and_gradient):
    """Other libraries give NaN, or an error."""
    logits, masks = batch(dtype=torch.float32)
    logits = torch.full_like(logits, math.nan).to(torch.bfloat16)
    value, gradient = value_and_gradient(loss, logits, torch.full_like(masks, 255))
    assert value.item() == 0
    assert (gradient == 0).all()


def test_b6_absent_classes_are_not_in_the_mean():
    """Other libraries give an entirely wrong prediction a Dice loss of 0.2 if one of five classes is present."""
    masks = torch.zeros(1, 3, 3, dtype=torch.long)
    logits = torch.full((1, 5, 3, 3), -50.0)
    logits[:, 3] = 50.0
    for loss in (dice, lovasz_softmax, partial(dice, per="image"), partial(tversky, gamma=4 / 3)):
        assert loss(logits, masks).item() == pytest.approx(1)


def test_b8_no_hidden_weights(batch):
    """In other code a file name switches weights on; here all classes weigh the same without `class_weights`."""
    logits, masks = batch(void=0.2)
    for loss in (cross_entropy, focal, cross_entropy_dice, ohem_cross_entropy):
        ones = loss(logits, masks, class_weights=torch.ones(4, dtype=torch.float64))
        torch.testing.assert_close(loss(logits, masks), ones)


@each(ALL)
def test_masks_with_a_channel_axis_are_an_error(loss, batch):
    logits, masks = batch()
    with pytest.raises(UsageError) as error:
        loss(logits, masks[:, None])
    assert str(error.value) == (
        "masks: expected shape (2, 5, 6), as (B, *S) of logits (2, 4, 5, 6), found (2, 1, 5, 6). "
        "Drop the channel axis: masks[:, 0]."
    )


@each(ALL)
@pytest.mark.parametrize("odd", [4, 254, -100])
def test_indices_outside_the_classes_are_an_error(loss, odd, batch):
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
def test_logits_with_too_few_axes_are_an_error(loss, shape):
    with pytest.raises(UsageError) as error:
        loss(torch.zeros(shape), torch.zeros((2, 3, 3), dtype=torch.long))
    assert str(error.value) == (
        f"logits: expected (B, K, *S), 3 axes or more, found {shape}. "
        "Pass a batch of logits, with a batch axis even for one image."
    )
