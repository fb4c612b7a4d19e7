"""The weighted sum of loss terms, over one batch and accumulated over parts."""

from __future__ import annotations

import pytest
import torch

from pixelwise.batch import Batch, Outputs
from pixelwise.config import LossConfig, config_from_dict
from pixelwise.errors import ConfigError, UsageError
from pixelwise.losses import (
    NormalisedLoss,
    accumulated,
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
def test_combined_loss_is_zero_if_all_pixels_are_ignored(config, batch, value_and_gradient):
    logits, masks = batch()
    loss = combined_loss(config, num_classes=4, class_weights=torch.tensor([1.0, 2.0, 3.0, 4.0]))
    value, gradient = value_and_gradient(loss.of_logits, logits, torch.full_like(masks, 255))
    assert value.item() == 0
    assert (gradient == 0).all()


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_combined_loss_is_the_weighted_sum_of_its_terms(config, batch, value_and_gradient):
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

    torch.testing.assert_close(
        value_and_gradient(loss.of_logits, logits, masks), value_and_gradient(plain, logits, masks)
    )


def test_default_is_half_cross_entropy_half_dice(batch):
    logits, masks = batch()
    value = combined_loss(LossConfig(), num_classes=4).of_logits(logits, masks)
    assert value.item() == pytest.approx(0.5 * cross_entropy(logits, masks).item() + 0.5 * dice(logits, masks).item())


def test_all_weights_zero_is_an_error():
    with pytest.raises(ConfigError, match="loss: expected a term with a weight above 0"):
        combined_loss(LossConfig(cross_entropy=0, dice=0), num_classes=2)


@pytest.mark.parametrize("name", EXACT)
@pytest.mark.parametrize("weights", [None, torch.tensor([0.5, 3.0, 0.1, 1.0], dtype=torch.float64)])
def test_accumulated_parts_match_the_whole_batch(name, weights, batch, value_and_gradient):
    """One image is almost ignored, one is entirely ignored, one has a single class: the mean of means is far off."""
    logits, masks = batch((4, 6, 6))
    masks[0, 1:] = 255
    masks[1] = 255
    masks[2, :5] = 1
    loss = combined_loss(CONFIGS[name], num_classes=4, class_weights=weights)
    whole, slope = value_and_gradient(loss.of_logits, logits, masks)
    total = sum(loss.normaliser(part) for part in masks.split([1, 3]))
    both = list(zip(logits.split([1, 3]), masks.split([1, 3]), strict=True))
    parts = [value_and_gradient(loss.of_logits, z, y, normaliser=total) for z, y in both]
    # Shares of images are float32.
    close = {"rtol": 1e-6, "atol": 1e-7}
    torch.testing.assert_close(torch.stack([value for value, _ in parts]).sum(), whole, **close)
    torch.testing.assert_close(torch.cat([gradient for _, gradient in parts]), slope, **close)
    naive = sum(loss.of_logits(z, y) for z, y in both) / 2
    assert abs(naive.item() - whole.item()) > 0.01


def test_default_accumulates_cross_entropy_exactly_and_dice_by_counted_pixels(batch):
    logits, masks = batch((4, 6, 6), void=0.1)
    masks[0, 1:] = 255
    loss = combined_loss(LossConfig(), num_classes=4)
    total = sum(loss.normaliser(part) for part in masks.split(1))
    parts = list(zip(logits.split(1), masks.split(1), strict=True))
    found = sum(loss.of_logits(z, y, normaliser=total) for z, y in parts)
    counted = (masks != 255).sum((1, 2)).double()
    dices = torch.stack([dice(z, y) for z, y in parts])
    expected = 0.5 * cross_entropy(logits, masks) + 0.5 * (dices * counted).sum() / counted.sum()
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_own_normaliser_changes_nothing(config, batch):
    logits, masks = batch(void=0.2)
    loss = combined_loss(config, num_classes=4, class_weights=torch.tensor([0.5, 3.0, 0.1, 1.0]))
    torch.testing.assert_close(
        loss.of_logits(logits, masks, loss.normaliser(masks)), loss.of_logits(logits, masks), rtol=1e-6, atol=1e-7
    )


@pytest.mark.parametrize("config", [LossConfig(), LossConfig(auxiliary=0.2)], ids=["default", "auxiliary"])
def test_default_is_the_fused_loss(config, batch):
    """Bitwise equal to `cross_entropy_dice`."""
    logits, masks = batch(void=0.2, dtype=torch.float32)
    assert torch.equal(combined_loss(config, num_classes=4).of_logits(logits, masks), cross_entropy_dice(logits, masks))


def test_unknown_cldice_class_is_an_error():
    with pytest.raises(ConfigError) as error:
        combined_loss(LossConfig(cldice=1, cldice_classes=[1, 4]), num_classes=4)
    assert str(error.value) == (
        "loss.cldice_classes: expected one or more different class indices 0–3, found [1, 4]. "
        "List the index of each thin class once."
    )


def test_empty_cldice_classes_are_an_error():
    with pytest.raises(ConfigError) as error:
        config_from_dict({"loss": {"cldice": 1, "cldice_classes": []}})
    assert str(error.value) == (
        "config: loss.cldice_classes: expected one class index or more, or null for all but the first, found []. "
        "Correct the value."
    )


def test_tversky_weights_of_zero_are_an_error():
    never = {"tversky_alpha": 0, "tversky_beta": 0}
    with pytest.raises(ConfigError) as error:
        combined_loss(LossConfig(tversky=1, **never), num_classes=4)
    assert str(error.value) == (
        "loss.tversky_alpha and tversky_beta: expected at least one above 0, found 0 and 0. "
        "Use alpha 0.3 and beta 0.7; if both are 0 the term is always 0."
    )
    combined_loss(LossConfig(tversky=0, **never), num_classes=4)  # not used


def test_normaliser_of_another_shape_is_an_error(batch):
    logits, masks = batch()
    with pytest.raises(UsageError) as error:
        combined_loss(LossConfig(), num_classes=4).of_logits(logits, masks, normaliser=torch.tensor(60.0))
    assert str(error.value) == (
        "normaliser: expected shape (3,), found (). Sum the results of the method normaliser over all parts of the step."
    )


def test_distances_can_be_shared_between_logits(batch, value_and_gradient, monkeypatch):
    logits, masks = batch((2, 8, 9), void=0.2)
    loss = combined_loss(CONFIGS["all"], num_classes=4)
    expected = value_and_gradient(loss.of_logits, logits, masks)
    distances = loss.distances(masks, 4)
    monkeypatch.setattr("pixelwise.losses.boundary.signed_distances", None)  # a second call would fail
    torch.testing.assert_close(
        value_and_gradient(loss.of_logits, logits, masks, distances=distances), expected, rtol=0, atol=0
    )
    assert combined_loss(LossConfig(), num_classes=4).distances(masks, 4) is None


def test_auxiliary_heads_are_weighted(batch):
    loss = combined_loss(LossConfig(boundary=0.1, auxiliary=0.25), num_classes=4)
    logits, masks = batch(void=0.2)
    first, second = batch(seed=1)[0], batch(seed=2)[0]
    images = torch.zeros(len(masks), 3, *masks.shape[1:])
    value = loss(Outputs(logits, (first, second)), Batch(images, masks))
    expected = loss.of_logits(logits, masks)
    expected = expected + 0.25 * loss.of_logits(first, masks) + 0.25 * loss.of_logits(second, masks)
    torch.testing.assert_close(value, expected)


def test_any_function_of_outputs_and_batch_is_a_loss(batch):
    def mean_square(outputs, batch):
        return outputs.logits.square().mean()

    logits, masks = batch()
    one = Batch(torch.zeros(2, 3, 5, 6), masks)
    assert accumulated(mean_square, [masks]) is mean_square
    halves = accumulated(mean_square, [masks, masks])
    torch.testing.assert_close(halves(Outputs(logits), one) * 2, mean_square(Outputs(logits), one))
    assert isinstance(combined_loss(LossConfig(), num_classes=4), NormalisedLoss)
    assert not isinstance(mean_square, NormalisedLoss)


def test_configuration_without_newer_terms_means_the_same():
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
def test_values_out_of_range_are_errors(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        LossConfig.model_validate(wrong)
