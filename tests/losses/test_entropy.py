"""Cross-entropy, plain, smoothed and of the hardest pixels, and focal loss: against torch's, and by hand."""

from __future__ import annotations

import math

import pytest
import torch
from torch.nn import functional as F

from pixelwise.errors import ConfigError, UsageError
from pixelwise.losses import cross_entropy, cross_entropy_dice, focal, ohem_cross_entropy


@pytest.mark.parametrize("weights", [None, torch.tensor([0.5, 3.0, 0.0, 1.0], dtype=torch.float64)])
def test_cross_entropy_matches_torch(weights, batch, value_and_gradient):
    logits, masks = batch(void=0.3)
    ours = value_and_gradient(cross_entropy, logits, masks, class_weights=weights)
    theirs = value_and_gradient(F.cross_entropy, logits, masks, weight=weights, ignore_index=255)
    torch.testing.assert_close(ours, theirs)


def test_focal_is_cross_entropy_for_gamma_0_and_reduces_the_weight_of_confident_pixels(batch):
    logits, masks = batch(void=0.3)
    torch.testing.assert_close(focal(logits, masks, gamma=0.0), cross_entropy(logits, masks))
    p = torch.tensor([0.9, 0.1], dtype=torch.float64)
    one = p.log()[None, :, None]
    expected = -((1 - 0.9) ** 2) * math.log(0.9)
    assert focal(one, torch.tensor([[0]]), gamma=2.0).item() == pytest.approx(expected)


@pytest.mark.parametrize("gamma", [0.5, 1.0])
def test_focal_has_a_finite_gradient_at_a_certain_pixel(gamma, value_and_gradient):
    logits = torch.tensor([[[200.0], [0.0]]])
    _, gradient = value_and_gradient(focal, logits, torch.tensor([[0]]), gamma=gamma)
    assert torch.isfinite(gradient).all()


def test_zero_weight_of_all_present_classes_gives_zero(batch, value_and_gradient):
    logits, masks = batch()
    weights = torch.tensor([0.0, 0.0, 0.0, 1.0], dtype=torch.float64)
    value, gradient = value_and_gradient(cross_entropy, logits, masks.clamp(max=2), class_weights=weights)
    assert value.item() == 0
    assert (gradient == 0).all()


def test_floating_point_masks_are_an_error(batch):
    logits, masks = batch()
    with pytest.raises(UsageError, match=r"masks: expected integers, found torch.float32. Pass class indices"):
        cross_entropy(logits, masks.float())


def test_class_weights_of_wrong_length_are_an_error(batch):
    logits, masks = batch()
    with pytest.raises(ConfigError, match=r"expected 4 weights, one per class, found \(3,\)"):
        cross_entropy(logits, masks, class_weights=torch.ones(3))


def test_label_smoothing_is_torchs_with_equal_class_weights(batch, value_and_gradient):
    logits, masks = batch(void=0.3)
    ours = value_and_gradient(cross_entropy, logits, masks, label_smoothing=0.1)
    theirs = value_and_gradient(F.cross_entropy, logits, masks, label_smoothing=0.1, ignore_index=255)
    torch.testing.assert_close(ours, theirs)


def test_a_smoothed_pixel_keeps_the_weight_of_its_true_class(batch):
    logits, masks = batch(void=0.3)
    weights = torch.tensor([0.5, 3.0, 0.0, 1.0], dtype=torch.float64)
    each = F.cross_entropy(logits, masks, label_smoothing=0.2, ignore_index=255, reduction="none")
    w = torch.where(masks == 255, 0.0, weights[masks % 255])
    found = cross_entropy(logits, masks, label_smoothing=0.2, class_weights=weights)
    torch.testing.assert_close(found, (w * each).sum() / w.sum())


@pytest.mark.parametrize("wrong", [-0.1, 1.1, math.nan])
def test_smoothing_out_of_range_is_an_error(wrong, batch):
    with pytest.raises(
        UsageError, match=r"label_smoothing: expected a number in 0–1, found .*\. Use, for example, 0.1"
    ):
        cross_entropy(*batch(), label_smoothing=wrong)


# --- hard example mining ---

# Probabilities of the true class: 0.9, 0.8, 0.6, 0.1, and one pixel that is ignored.
SURE = torch.tensor([[[0.9, 0.8, 0.6, 0.1, 0.01], [0.1, 0.2, 0.4, 0.9, 0.99]]], dtype=torch.float64).log()
TRUTH = torch.tensor([[0, 0, 0, 0, 255]])


@pytest.mark.parametrize(
    ("share", "threshold", "kept"),
    [
        (0.25, 0.0, [0.1]),
        (0.26, 0.0, [0.1, 0.6]),
        (0.25, 0.7, [0.1, 0.6]),
        (0.75, 0.7, [0.1, 0.6, 0.8]),
        (0.01, 0.85, [0.1, 0.6, 0.8]),
        (0.01, 0.05, [0.1]),
        (1.0, 0.0, [0.1, 0.6, 0.8, 0.9]),
    ],
)
def test_the_hardest_pixels_by_hand(share, threshold, kept):
    expected = -sum(math.log(p) for p in kept) / len(kept)
    assert ohem_cross_entropy(SURE, TRUTH, share=share, threshold=threshold).item() == pytest.approx(expected)


def test_all_pixels_kept_are_cross_entropy(batch, value_and_gradient):
    logits, masks = batch(void=0.3)
    weights = torch.tensor([0.5, 3.0, 0.0, 1.0], dtype=torch.float64)
    options = {"class_weights": weights, "label_smoothing": 0.1}
    whole = value_and_gradient(cross_entropy, logits, masks, **options)
    torch.testing.assert_close(value_and_gradient(ohem_cross_entropy, logits, masks, share=1.0, **options), whole)
    torch.testing.assert_close(value_and_gradient(ohem_cross_entropy, logits, masks, threshold=1.0, **options), whole)


def test_dropped_pixels_have_no_gradient():
    logits = SURE.clone().requires_grad_()
    ohem_cross_entropy(logits, TRUTH, share=0.5, threshold=0.0).backward()
    assert (logits.grad[0] != 0).all(0).tolist() == [False, False, True, True, False]


def test_class_weights_do_not_affect_the_selection():
    weights = torch.tensor([1.0, 100.0], dtype=torch.float64)
    truth = torch.tensor([[0, 1, 0, 0, 255]])
    found = ohem_cross_entropy(SURE, truth, share=0.5, threshold=0.0, class_weights=weights)
    expected = -(math.log(0.1) + 100 * math.log(0.2)) / 101
    assert found.item() == pytest.approx(expected)


def test_ties_with_the_last_pixel_are_kept(batch):
    masks = torch.tensor([[0, 1, 0, 1, 0, 1]])
    logits = torch.zeros(1, 2, 6)
    assert ohem_cross_entropy(logits, masks, share=0.1, threshold=0.0).item() == pytest.approx(math.log(2))
    logits = torch.zeros(1, 2, 6, requires_grad=True)
    ohem_cross_entropy(logits, masks, share=0.1, threshold=0.0).backward()
    assert (logits.grad != 0).all()


@pytest.mark.parametrize(("share", "threshold"), [(0.0, 0.7), (1.5, 0.7), (0.5, -0.1), (0.5, 1.1)])
def test_shares_and_thresholds_out_of_range_are_errors(share, threshold, batch):
    with pytest.raises(UsageError) as error:
        ohem_cross_entropy(*batch(), share=share, threshold=threshold)
    assert str(error.value) == (
        f"ohem: expected a share above 0 and at most 1, and a threshold in 0–1, found share {share} and threshold {threshold}. "
        "Use, for example, share 0.25 and threshold 0.7."
    )


# --- invalid options ---


@pytest.mark.parametrize("gamma", [-1.0, math.nan, math.inf])
def test_invalid_gamma_is_an_error(gamma, batch):
    with pytest.raises(UsageError) as error:
        focal(*batch(), gamma=gamma)
    assert str(error.value) == (
        f"gamma: expected a number of at least 0, found {gamma}. Use 2 as in the paper; 0 is plain cross-entropy."
    )


@pytest.mark.parametrize("loss", [cross_entropy, focal, cross_entropy_dice])
def test_normaliser_that_is_not_a_scalar_is_an_error(loss, batch):
    with pytest.raises(UsageError) as error:
        loss(*batch(), normaliser=torch.ones(3))
    assert str(error.value) == (
        "normaliser: expected a scalar tensor, of shape (), found shape (3,). Sum the weights of the counted pixels over all "
        "parts; CombinedLoss.normaliser is for CombinedLoss only."
    )
    with pytest.raises(UsageError, match=r"expected a scalar tensor, .* found float"):
        loss(*batch(), normaliser=60.0)
