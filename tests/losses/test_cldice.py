"""Soft clDice: against MONAI's, against cut images, and by hand."""

from __future__ import annotations

import pytest
import torch
from monai.losses import cldice as monai_cldice
from torch.nn import functional as F

from pixelwise.errors import UsageError
from pixelwise.losses import dice, soft_cldice, soft_skeleton


@pytest.mark.parametrize("shape", [(2, 1, 9, 11), (1, 2, 7, 8, 6)])
@pytest.mark.parametrize("iterations", [0, 1, 4])
def test_skeleton_matches_monai(shape, iterations):
    values = torch.rand(shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    torch.testing.assert_close(soft_skeleton(values, iterations), monai_cldice.soft_skel(values, iterations))


@pytest.mark.parametrize("shape", [(2, 12, 14), (1, 8, 9, 7)])
def test_loss_matches_monai_without_smoothing(shape, batch, value_and_gradient):
    logits, masks = batch(shape, classes=2)
    theirs = monai_cldice.SoftclDiceLoss(
        softmax=True, to_onehot_y=True, include_background=False, smooth_nr=0.0, smooth_dr=1e-12, smooth=1e-12
    )

    def monai(z, y):
        return theirs(z, y[:, None])

    ours = value_and_gradient(soft_cldice, logits, masks, per="batch" if shape[0] == 1 else "image")
    found = value_and_gradient(monai, logits, masks) if shape[0] == 1 else _mean_of_images(monai, logits, masks)
    torch.testing.assert_close(ours, found)


def _mean_of_images(loss, logits, masks):
    logits = logits.detach().clone().requires_grad_()
    value = torch.stack([loss(z, y) for z, y in zip(logits.split(1), masks.split(1), strict=True)]).mean()
    value.backward()
    return value.detach(), logits.grad


def line(*gaps):
    """Draw a line of class 1 through the middle row of 7×12, with gaps."""
    masks = torch.zeros(1, 7, 12, dtype=torch.long)
    masks[0, 3] = 1
    for gap in gaps:
        masks[0, 3, gap] = 0
    return masks


def sure(masks):
    return 1e3 * F.one_hot(masks, 2).movedim(-1, 1).double()


def test_line_is_its_own_skeleton():
    values = line().double()[:, None]
    assert torch.equal(soft_skeleton(values, 3), values)


def test_broken_line_by_hand():
    """All predicted pixels are correct; 10 of the 12 pixels of the true line are found."""
    found = soft_cldice(sure(line(4, 8)), line())
    assert found.item() == pytest.approx(1 - 2 * 1 * (10 / 12) / (1 + 10 / 12))


def test_breaks_cost_more_than_width():
    """A line that is three times too wide has the correct skeleton."""
    wide = torch.zeros(1, 7, 12, dtype=torch.long)
    wide[0, 2:5] = 1
    assert soft_cldice(sure(wide), line()).item() == pytest.approx(0)
    assert dice(sure(wide), line()).item() > 0.2


def test_classes_default_to_all_but_the_first(batch):
    logits, masks = batch((2, 8, 8), void=0.1)
    each = [soft_cldice(logits, masks, classes=[k]) for k in range(4)]
    torch.testing.assert_close(soft_cldice(logits, masks), torch.stack(each[1:]).mean())
    torch.testing.assert_close(soft_cldice(logits, masks, classes=(0, 3)), (each[0] + each[3]) / 2)


def test_classes_that_are_absent_or_without_a_skeleton_are_left_out(batch):
    logits, masks = batch((1, 8, 8), classes=3)
    masks = masks.clamp(max=1)
    torch.testing.assert_close(soft_cldice(logits, masks), soft_cldice(logits, masks, classes=[1]))
    # A class that fills the image has no skeleton.
    assert soft_cldice(logits, torch.ones_like(masks)).item() == 0


@pytest.mark.parametrize("shape", [(2, 8, 9), (1, 5, 6, 7)])
def test_ignored_pixels_at_the_edge_act_as_if_cropped(shape, batch):
    logits, masks = batch(shape)
    masks[..., 5:] = 255
    torch.testing.assert_close(soft_cldice(logits, masks), soft_cldice(logits[..., :5], masks[..., :5]))


def test_ignored_pixel_does_not_break_a_line():
    masks = line()
    masks[0, 3, 5] = 255
    assert soft_cldice(sure(line()), masks).item() == pytest.approx(0)


def test_mismatched_arguments_are_errors(batch):
    logits, masks = batch()
    for classes in ([4], [-1], [1, 1], []):
        with pytest.raises(UsageError) as error:
            soft_cldice(logits, masks, classes=classes)
        assert str(error.value) == (
            f"cldice classes: expected one or more different class indices 0–3, found {classes}. "
            "List the index of each thin class once."
        )
    with pytest.raises(UsageError, match="masks: expected 2 or 3 spatial dimensions, found 1"):
        soft_cldice(logits.flatten(2), masks.flatten(1))
    with pytest.raises(UsageError, match="iterations: expected a number of at least 0, found -1"):
        soft_cldice(logits, masks, iterations=-1)
