"""Gradients of one step with auxiliary heads."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from torch import nn

from pixelwise.batch import Batch
from pixelwise.config import Config, LossConfig, draft, replace
from pixelwise.losses import boundary, combined_loss
from pixelwise.training import loop


class Heads(nn.Module):
    """A model with two auxiliary heads."""

    def __init__(self) -> None:
        super().__init__()
        self.parts = nn.ModuleList(nn.Conv2d(3, 3, 1) for _ in range(3))

    def outputs(self, images: torch.Tensor) -> SimpleNamespace:
        first, *others = (part(images) for part in self.parts)
        return SimpleNamespace(logits=first, auxiliary=tuple(others))


def test_distances_are_computed_once_for_all_heads(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    model, loss = Heads(), combined_loss(LossConfig(boundary=0.3, auxiliary=0.25), num_classes=3)
    images, masks = torch.rand(4, 3, 8, 8), torch.randint(0, 3, (4, 8, 8))
    masks[0, :5] = 255
    total = loss.normaliser(masks)
    parts = list(zip(images.split([1, 3]), masks.split([1, 3]), strict=True))
    expected = 0.0
    for x, y in parts:
        outputs = model.outputs(x)
        of_heads = sum(loss.of_logits(z, y, total) for z in outputs.auxiliary)
        expected += (loss.of_logits(outputs.logits, y, total) + 0.25 * of_heads).item()
    transform, made = boundary.ndimage.distance_transform_edt, []
    monkeypatch.setattr(
        boundary.ndimage, "distance_transform_edt", lambda *a, **k: made.append(1) or transform(*a, **k)
    )
    group = [Batch(x, y, ()) for x, y in parts]
    value = loop.gradients(model, loss, group, draft(replace(Config(), train={"accumulate": 2})).train)  # type: ignore[arg-type]
    assert value == pytest.approx(expected, rel=1e-6)
    assert len(made) == 4 * 3, "one for each class of each image, not for each head"
