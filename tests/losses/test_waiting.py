"""On a device, losses do not make the CPU wait. Without a device, the same code runs on the CPU."""

from __future__ import annotations

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from pixelwise.config import LossConfig
from pixelwise.losses import combined_loss, inputs, overlap

NONE = {"cross_entropy": 0, "dice": 0}
CONFIGS = {
    "default": LossConfig(),
    "smoothed": LossConfig(label_smoothing=0.1),
    "per_image": LossConfig(dice_per="image"),
    "focal": LossConfig(**NONE, focal=1),
    "tversky": LossConfig(**NONE, tversky=1, focal_tversky_gamma=1.33),
}
# What needs a value, or a size that depends on values.
WAITING = {"_local_scalar_dense", "bincount", "nonzero", "masked_select", "unique"}


class NoWaiting(TorchDispatchMode):
    """Fail at operations for which the CPU waits for a device."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        assert func.overloadpacket.__name__ not in WAITING
        return func(*args, **(kwargs or {}))


def value_and_gradient(config, logits, masks):
    loss = combined_loss(config, num_classes=4, class_weights=torch.tensor([1.0, 2.0, 3.0, 4.0]))
    leaf = logits.detach().clone().requires_grad_()
    value = loss.of_logits(leaf, masks, loss.normaliser(masks))
    value.backward()
    return value.detach(), leaf.grad


@pytest.mark.parametrize("ignored", [True, False])
@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_nothing_waits_for_a_device_and_the_results_are_the_same(config, ignored, batch, monkeypatch):
    logits, masks = batch()
    masks = masks if ignored else masks.clamp(max=3)
    expected = value_and_gradient(config, logits, masks)
    for module in (inputs, overlap):
        monkeypatch.setattr(module, "on_cpu", lambda tensor: False)
    with NoWaiting():
        found = value_and_gradient(config, logits, masks)
    torch.testing.assert_close(found, expected)


def test_the_test_notices_a_value_that_is_looked_at():
    with NoWaiting(), pytest.raises(AssertionError):
        torch.ones(3).sum().item()


@pytest.mark.parametrize("size", [1, 3, 150])
def test_a_histogram_of_many_places_is_a_histogram(size, monkeypatch):
    keys = torch.randint(size, (10_000,), generator=torch.Generator().manual_seed(size))
    weights = torch.rand(10_000, dtype=torch.double)
    expected = inputs.histogram(keys, size), inputs.histogram(keys, size, weights)
    monkeypatch.setattr(inputs, "on_cpu", lambda tensor: False)
    found = inputs.histogram(keys, size), inputs.histogram(keys, size, weights)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=0)
