"""What the tests of losses share: drawn logits and masks, and a value with its gradient."""

from __future__ import annotations

import pytest
import torch


def _batch(shape=(2, 5, 6), classes=4, void=0.0, seed=0, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(shape[0], classes, *shape[1:], generator=generator, dtype=dtype) * 2
    masks = torch.randint(0, classes, shape, generator=generator)
    masks[torch.rand(shape, generator=generator) < void] = 255
    return logits.requires_grad_(), masks


def _value_and_gradient(loss, logits, masks, **options):
    logits = logits.detach().clone().requires_grad_()
    value = loss(logits, masks, **options)
    value.backward()
    return value.detach(), logits.grad


@pytest.fixture
def batch():
    """Draw logits that ask for gradients, and masks."""
    return _batch


@pytest.fixture
def value_and_gradient():
    """Give the value of a loss and the gradient after its logits."""
    return _value_and_gradient
