"""The weighted sum: of all terms, in one batch and in parts."""

from __future__ import annotations

import pytest
import torch

from pixelwise.config import LossConfig, config_from_dict
from pixelwise.errors import ConfigError, UsageError
from pixelwise.losses import (
    boundary_distance,
    combined_loss,
    cross_entropy,
    cross_entropy_dice,
    dice,
    focal,
    lovasz_softmax,
    ohem_cross_entropy,
    soft_cldice,
    tversky,
)

NONE = {"cross_entropy": 0, "dice": 0}
CONFIGS = {
    "default": LossConfig(),
    "cross_entropy": LossConfig(cross_entropy=1, dice=0),
    "smoothed": LossConfig(cross_entropy=1, dice=0, label_smoothing=0.1),
    "smoothed_dice": LossConfig(label_smoothing=0.1),
    "ohem": LossConfig(cross_entropy=1, dice=0.3, ohem=0.2, ohem_threshold=0.3, label_smoothing=0.1),
    "dice": LossConfig(cross_entropy=0, dice=1),
    "dice_per_image": LossConfig(cross_entropy=0, dice=1, dice_per="image"),
    "pair_per_image": LossConfig(dice_per="image"),
    "focal": LossConfig(**NONE, focal=1),
    "tversky": LossConfig(**NONE, tversky=1),
    "tversky_per_image": LossConfig(**NONE, tversky=1, focal_tversky_gamma=1.33, dice_per="image"),
    "lovasz": LossConfig(**NONE, lovasz=1),
    "lovasz_per_image": LossConfig(**NONE, lovasz=1, dice_per="image"),
    "boundary": LossConfig(**NONE, boundary=1),
    "cldice": LossConfig(**NONE, cldice=1, cldice_classes=[2, 1], cldice_iterations=2),
    "all": LossConfig(cross_entropy=0.3, dice=0.2, focal=0.4, tversky=0.1, lovasz=0.5, boundary=0.01, cldice=0.2),
}
EXACT = [
    "cross_entropy",
    "smoothed",
    "focal",
    "boundary",
    "dice_per_image",
    "pair_per_image",
    "tversky_per_image",
    "lovasz_per_image",
]


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_the_combined_loss_of_void_is_zero_too(config, batch, value_and_gradient):
    logits, masks = batch()
    loss = combined_loss(config, num_classes=4, class_weights=torch.tensor([1.0, 2.0, 3.0, 4.0]))
    value, gradient = value_and_gradient(loss, logits, torch.full_like(masks, 255))
    assert value.item() == 0
    assert (gradient == 0).all()


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_the_combined_loss_is_the_weighted_sum_of_its_terms(config, batch, value_and_gradient):
    logits, masks = batch(void=0.2)
    weights = torch.tensor([0.5, 3.0, 0.1, 1.0], dtype=torch.float64)
    loss = combined_loss(config, num_classes=4, class_weights=weights)

    def plain(z, y):
        c, per = config, config.dice_per
        options = {"class_weights": weights, "label_smoothing": c.label_smoothing}
        hard = {"share": c.ohem or 1.0, "threshold": c.ohem_threshold} | options
        return (
            c.cross_entropy * (ohem_cross_entropy(z, y, **hard) if c.ohem else cross_entropy(z, y, **options))
            + c.dice * dice(z, y, per=per)
            + c.focal * focal(z, y, gamma=c.focal_gamma, class_weights=weights)
            + c.tversky * tversky(z, y, alpha=0.3, beta=0.7, gamma=c.focal_tversky_gamma, per=per)
            + c.lovasz * lovasz_softmax(z, y, per=per)
            + c.boundary * boundary_distance(z, y)
            + c.cldice * soft_cldice(z, y, classes=c.cldice_classes, iterations=c.cldice_iterations)
        )

    torch.testing.assert_close(value_and_gradient(loss, logits, masks), value_and_gradient(plain, logits, masks))


def test_the_default_is_half_cross_entropy_half_dice(batch):
    logits, masks = batch()
    value = combined_loss(LossConfig(), num_classes=4)(logits, masks)
    assert value.item() == pytest.approx(0.5 * cross_entropy(logits, masks).item() + 0.5 * dice(logits, masks).item())


def test_a_sum_of_nothing_is_refused():
    with pytest.raises(ConfigError, match="loss: expected a term that weighs more than 0"):
        combined_loss(LossConfig(cross_entropy=0, dice=0), num_classes=2)


@pytest.mark.parametrize("name", EXACT)
@pytest.mark.parametrize("weights", [None, torch.tensor([0.5, 3.0, 0.1, 1.0], dtype=torch.float64)])
def test_accumulated_parts_have_the_gradient_of_the_whole(name, weights, batch, value_and_gradient):
    """TRAPS B7: one image is nearly void, one is all void, one has one class alone: a mean of means is far off."""
    logits, masks = batch((4, 6, 6))
    masks[0, 1:] = 255
    masks[1] = 255
    masks[2, :5] = 1
    loss = combined_loss(CONFIGS[name], num_classes=4, class_weights=weights)
    whole, slope = value_and_gradient(loss, logits, masks)
    total = sum(loss.normaliser(part) for part in masks.split([1, 3]))
    both = list(zip(logits.split([1, 3]), masks.split([1, 3]), strict=True))
    parts = [value_and_gradient(loss, z, y, normaliser=total) for z, y in both]
    # Shares of images are float32.
    close = {"rtol": 1e-6, "atol": 1e-7}
    torch.testing.assert_close(torch.stack([value for value, _ in parts]).sum(), whole, **close)
    torch.testing.assert_close(torch.cat([gradient for _, gradient in parts]), slope, **close)
    naive = sum(loss(z, y) for z, y in both) / 2
    assert abs(naive.item() - whole.item()) > 0.01


def test_the_pair_accumulates_cross_entropy_exactly_and_dice_by_counted_pixels(batch):
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
def test_one_part_with_its_own_normaliser_is_the_whole(config, batch):
    logits, masks = batch(void=0.2)
    loss = combined_loss(config, num_classes=4, class_weights=torch.tensor([0.5, 3.0, 0.1, 1.0]))
    torch.testing.assert_close(loss(logits, masks, loss.normaliser(masks)), loss(logits, masks), rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("config", [LossConfig(), LossConfig(auxiliary=0.2)], ids=["default", "auxiliary"])
def test_the_default_goes_through_one_softmax(config, batch):
    """The same bits as `cross_entropy_dice`: no new option may move them."""
    logits, masks = batch(void=0.2, dtype=torch.float32)
    assert torch.equal(combined_loss(config, num_classes=4)(logits, masks), cross_entropy_dice(logits, masks))


def test_a_thin_class_that_is_not_there_is_refused():
    with pytest.raises(ConfigError) as error:
        combined_loss(LossConfig(cldice=1, cldice_classes=[1, 4]), num_classes=4)
    assert str(error.value) == (
        "loss.cldice_classes: expected one or more different class indices 0–3, found [1, 4]. "
        "Name each thin class once, by its index."
    )


def test_a_list_of_no_thin_classes_is_refused_in_words():
    with pytest.raises(ConfigError) as error:
        config_from_dict({"loss": {"cldice": 1, "cldice_classes": []}})
    assert str(error.value) == (
        "config: loss.cldice_classes: expected one class index or more, or null for all but the first, found []. "
        "Correct the value."
    )


def test_a_tversky_term_that_is_always_0_is_refused():
    never = {"tversky_alpha": 0, "tversky_beta": 0}
    with pytest.raises(ConfigError) as error:
        combined_loss(LossConfig(tversky=1, **never), num_classes=4)
    assert str(error.value) == (
        "loss.tversky_alpha and tversky_beta: expected a number above 0 in one of them, found 0 and 0. "
        "Say alpha 0.3 and beta 0.7; with 0 twice the term is always 0."
    )
    combined_loss(LossConfig(tversky=0, **never), num_classes=4)  # not in use


def test_a_normaliser_of_another_kind_is_refused(batch):
    logits, masks = batch()
    with pytest.raises(UsageError) as error:
        combined_loss(LossConfig(), num_classes=4)(logits, masks, normaliser=torch.tensor(60.0))
    assert str(error.value) == (
        "normaliser: expected shape (3,), found (). Sum what the method normaliser gives for all parts of the step."
    )


def test_distances_are_made_once_for_all_that_share_the_masks(batch, value_and_gradient, monkeypatch):
    logits, masks = batch((2, 8, 9), void=0.2)
    loss = combined_loss(CONFIGS["all"], num_classes=4)
    expected = value_and_gradient(loss, logits, masks)
    distances = loss.distances(masks, 4)
    monkeypatch.setattr("pixelwise.losses.boundary.signed_distances", None)  # a second time would fail
    torch.testing.assert_close(value_and_gradient(loss, logits, masks, distances=distances), expected, rtol=0, atol=0)
    assert combined_loss(LossConfig(), num_classes=4).distances(masks, 4) is None


def test_a_configuration_of_before_these_terms_loads_and_means_the_same():
    old = {"cross_entropy": 0.5, "dice": 0.5, "focal": 0.0, "tversky": 0.0, "focal_gamma": 2.0, "tversky_alpha": 0.3}
    old |= {"tversky_beta": 0.7, "auxiliary": 0.5, "class_weights": "inverse"}
    assert LossConfig.model_validate(old) == LossConfig(class_weights="inverse")


@pytest.mark.parametrize(
    "wrong",
    [
        {"label_smoothing": 1.0},
        {"ohem": 0.0},
        {"dice_per": "picture"},
        {"focal_tversky_gamma": 0},
        {"cldice_iterations": 0},
        {"cldice_classes": []},
        {"focal_gamma": -1},
        {"tversky_alpha": -0.1},
    ],
)
def test_values_out_of_range_are_refused(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        LossConfig.model_validate(wrong)
