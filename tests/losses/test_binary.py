"""Losses of yes-or-no labels: against torch's and segmentation_models.pytorch's, and the rules of all losses."""

from __future__ import annotations

import math
from functools import partial

import pytest
import segmentation_models_pytorch as smp
import torch
from torch.nn import functional as F
from torchvision.ops import sigmoid_focal_loss

from pixelwise.errors import ConfigError, MaskError, UsageError
from pixelwise.losses import binary_cross_entropy, binary_dice, binary_focal, binary_tversky, lovasz_hinge

LOSSES = {
    "cross_entropy": binary_cross_entropy,
    "weighted": partial(binary_cross_entropy, pos_weight=torch.tensor([0.5, 3.0, 1.0])),
    "focal": binary_focal,
    "dice": binary_dice,
    "dice_per_image": partial(binary_dice, per="image"),
    "tversky": binary_tversky,
    "focal_tversky": partial(binary_tversky, gamma=4 / 3),
    "hinge": lovasz_hinge,
    "hinge_per_image": partial(lovasz_hinge, per="image"),
}
every_loss = pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES)


def labels(shape=(2, 3, 5, 6), void=0.0, seed=0, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(shape, generator=generator, dtype=dtype) * 2
    masks = torch.randint(0, 2, shape, generator=generator)
    masks[torch.rand(shape, generator=generator) < void] = 255
    return logits.requires_grad_(), masks


# --- values, compared with other libraries ---


@pytest.mark.parametrize("weights", [None, torch.tensor([0.5, 3.0, 0.0], dtype=torch.float64)])
def test_cross_entropy_matches_torch_over_counted_labels(weights, value_and_gradient):
    logits, masks = labels(void=0.3)

    def theirs(z, y):
        weight = None if weights is None else weights[:, None, None]
        each = F.binary_cross_entropy_with_logits(z, (y == 1).double(), pos_weight=weight, reduction="none")
        return each[y != 255].mean()

    ours = value_and_gradient(binary_cross_entropy, logits, masks, pos_weight=weights)
    torch.testing.assert_close(ours, value_and_gradient(theirs, logits, masks))


@pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0])
def test_focal_matches_torchvision(gamma, value_and_gradient):
    logits, masks = labels()

    def theirs(z, y):
        return sigmoid_focal_loss(z, y.double(), alpha=-1, gamma=gamma, reduction="mean")

    ours = value_and_gradient(binary_focal, logits, masks, gamma=gamma)
    torch.testing.assert_close(ours, value_and_gradient(theirs, logits, masks))


def test_dice_and_tversky_match_segmentation_models(value_and_gradient):
    logits, masks = labels()
    theirs = smp.losses.DiceLoss("multilabel", smooth=0.0)
    torch.testing.assert_close(
        value_and_gradient(binary_dice, logits, masks), value_and_gradient(theirs, logits, masks)
    )
    theirs = smp.losses.TverskyLoss("multilabel", alpha=0.2, beta=0.9, gamma=1.0, smooth=0.0)
    ours = value_and_gradient(binary_tversky, logits, masks, alpha=0.2, beta=0.9)
    torch.testing.assert_close(ours, value_and_gradient(theirs, logits, masks))


def test_dice_by_hand():
    logits = torch.tensor([[[0.8, 0.4, 0.9]]], dtype=torch.float64).logit()
    masks = torch.tensor([[1, 0, 255]])
    assert binary_dice(logits, masks).item() == pytest.approx(1 - 2 * 0.8 / (1.2 + 1))


def test_single_label_masks_may_omit_the_axis():
    logits, masks = labels((2, 1, 5, 6), void=0.2)
    for loss in (binary_cross_entropy, binary_focal, binary_dice, binary_tversky, lovasz_hinge):
        assert torch.equal(loss(logits, masks[:, 0]), loss(logits, masks))


# --- common rules ---


@every_loss
@pytest.mark.parametrize("shape", [(2, 3, 3, 2), (1, 3, 2, 2, 2)])
def test_gradients_match_numerical_ones(loss, shape):
    logits, masks = labels(shape, void=0.2)
    assert torch.autograd.gradcheck(lambda z: loss(z, masks), (logits,), fast_mode=len(shape) > 4)


@every_loss
@pytest.mark.parametrize("other", [-1e4, 1e4, math.inf, math.nan])
def test_logits_of_ignored_labels_have_no_effect(loss, other, value_and_gradient):
    logits, masks = labels(void=0.4)
    changed = torch.where(masks == 255, other, logits.detach())
    before, after = value_and_gradient(loss, logits, masks), value_and_gradient(loss, changed, masks)
    torch.testing.assert_close(before, after, rtol=1e-12, atol=1e-15)
    assert (after[1][masks == 255] == 0).all()


@every_loss
def test_all_ignored_gives_zero_value_and_gradient(loss, value_and_gradient):
    logits, masks = labels()
    value, gradient = value_and_gradient(loss, logits, torch.full_like(masks, 255))
    assert value.item() == 0
    assert (gradient == 0).all()


@every_loss
@pytest.mark.parametrize("shape", [(0, 3, 5, 6), (2, 3, 0, 6)])
def test_a_batch_without_pixels_gives_zero(loss, shape, value_and_gradient):
    value, gradient = value_and_gradient(loss, torch.zeros(shape), torch.zeros(shape, dtype=torch.long))
    assert value.item() == 0
    assert gradient.shape == shape


@every_loss
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_extreme_logits_stay_finite_in_any_type(loss, dtype, value_and_gradient):
    logits, masks = labels(void=0.2, dtype=torch.float32)
    for size in (500.0, 1e4):
        value, gradient = value_and_gradient(loss, (logits.detach().sign() * size).to(dtype), masks)
        assert value.dtype == torch.float32
        assert gradient.dtype == dtype
        assert torch.isfinite(value)
        assert torch.isfinite(gradient).all()


@every_loss
def test_perfect_prediction_has_zero_loss(loss):
    _, masks = labels(void=0.4)
    assert loss((masks * 2 - 1) * 1e3 * 1.0, masks).item() == pytest.approx(0, abs=1e-6)


@every_loss
def test_masks_are_not_modified_and_may_be_uint8(loss):
    logits, masks = labels(void=0.3)
    before = masks.clone()
    value = loss(logits, masks)
    assert torch.equal(masks, before)
    assert torch.equal(loss(logits, masks.to(torch.uint8)), value)
    assert torch.equal(loss(logits, torch.where(masks == 255, -1, masks), ignore_index=-1), value)


@pytest.mark.parametrize("loss", [binary_dice, binary_tversky])
def test_label_without_positives_is_left_out(loss):
    logits, masks = labels()
    masks[:, 1] = 0
    masks[0, 2] = 0
    kept = [0, 2]
    torch.testing.assert_close(loss(logits, masks), loss(logits[:, kept], masks[:, kept]))
    first, second = loss(logits[:1, :1], masks[:1, :1]), loss(logits[1:][:, kept], masks[1:][:, kept])
    torch.testing.assert_close(loss(logits, masks, per="image"), (first + second) / 2)


@pytest.mark.parametrize("loss", [binary_cross_entropy, binary_focal])
def test_parts_add_up_to_the_whole_batch(loss, value_and_gradient):
    logits, masks = labels(void=0.1)
    masks[0, :, 1:] = 255
    whole, slope = value_and_gradient(loss, logits, masks)
    number = (masks != 255).sum()
    parts = [
        value_and_gradient(loss, z, y, normaliser=number) for z, y in zip(logits.split(1), masks.split(1), strict=True)
    ]
    torch.testing.assert_close(parts[0][0] + parts[1][0], whole)
    torch.testing.assert_close(torch.cat([gradient for _, gradient in parts]), slope)


@every_loss
def test_class_indices_are_an_error(loss):
    logits, masks = labels()
    masks[0, 0, 0, :2] = 2
    with pytest.raises(MaskError) as error:
        loss(logits, masks)
    assert str(error.value) == (
        "masks: expected 0, 1 or the ignore index 255, found 2 among 2 invalid values. Pass one mask of 0 and 1 per label."
    )
    with pytest.raises(UsageError) as wrong:
        loss(logits, masks[:, 0])
    assert str(wrong.value) == (
        "masks: expected shape (2, 3, 5, 6), as (B, K, *S) of logits (2, 3, 5, 6), found (2, 5, 6). "
        "Pass one mask of 0 and 1 per label; for class indices use the multi-class losses."
    )


def test_mismatched_arguments_are_errors():
    logits, masks = labels()
    with pytest.raises(UsageError, match="ignore_index: expected a value other than 0 and 1, found 1"):
        binary_dice(logits, masks, ignore_index=1)
    with pytest.raises(ConfigError, match=r"expected 3 weights, one per class, found \(2,\)"):
        binary_cross_entropy(logits, masks, pos_weight=torch.ones(2))
    with pytest.raises(UsageError, match=r"masks: expected integers, found torch.float64"):
        binary_focal(logits, masks.double())


def test_invalid_parameters_are_errors():
    logits, masks = labels()
    with pytest.raises(UsageError, match="gamma: expected a number of at least 0, found -2"):
        binary_focal(logits, masks, gamma=-2)
    with pytest.raises(UsageError, match=r"normaliser: expected a scalar tensor.*found shape \(3,\)"):
        binary_cross_entropy(logits, masks, normaliser=torch.ones(3))
    with pytest.raises(UsageError, match="tversky: expected two numbers of at least 0, not both 0"):
        binary_tversky(logits, masks, alpha=0, beta=0)
    with pytest.raises(UsageError, match=r"logits: expected \(B, K, \*S\), 3 axes or more, found \(6,\)"):
        binary_dice(torch.zeros(6), torch.zeros(6, dtype=torch.long))
