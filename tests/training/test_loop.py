"""Gradients of one step, and the batches they are computed from."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from pixelwise.batch import Batch
from pixelwise.config import Config, LossConfig, draft, replace
from pixelwise.losses import boundary, combined_loss
from pixelwise.models.unet import UNet
from pixelwise.training import loop


class Heads(nn.Module):
    """A model with two auxiliary heads."""

    dimensions = 2

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
    assert float(value) == pytest.approx(expected, rel=1e-6)
    assert len(made) == 4 * 3, "one for each class of each image, not for each head"


def test_gradients_do_not_wait_for_the_device(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tensors on the "meta" device have no values, so that reading one, which would wait for a GPU, is an error."""
    monkeypatch.setattr(torch, "autocast", lambda *_, **__: contextlib.nullcontext())
    model = UNet(3, 4, features=(4, 8)).to("meta").train()
    group = [Batch(torch.zeros(2, 3, 16, 16), torch.zeros(2, 16, 16, dtype=torch.long), ("a", "b"))] * 2
    train = draft(replace(Config(), train={"accumulate": 2, "device": "meta"})).train
    value = loop.gradients(model, lambda outputs, batch: F.cross_entropy(outputs.logits, batch.masks), group, train)
    assert (value.device.type, value.shape, value.dtype) == ("meta", (), torch.float64)
    assert all(p.grad is not None and p.grad.device.type == "meta" for p in model.parameters())
    with pytest.raises((NotImplementedError, RuntimeError), match="meta"):
        float(value)


@pytest.mark.parametrize(("device", "pinned"), [("cpu", False), ("cuda", True), ("cuda:1", True)])
def test_batches_for_a_gpu_are_pinned(device: str, pinned: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[bool] = []

    def batches(*_: object, pin: bool, **__: object) -> Iterator[Batch]:
        made.append(pin)
        yield from ()

    monkeypatch.setattr(loop, "batches", batches)
    config = draft(replace(Config(), train={"device": device}))
    work = loop.Work(config, *[None] * 5, Path())  # type: ignore[arg-type]
    list(work.batches(0, 3))
    assert made == [pinned]


def test_features_for_a_gpu_are_pinned(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda tensor: tensor + 1)
    monkeypatch.setattr(loop, "batches", lambda *_, **__: iter(()))
    monkeypatch.setattr(loop.Work, "frozen_until", lambda *_: 1)
    zero = torch.zeros(1)
    bank = SimpleNamespace(batches=lambda **_: iter([Batch(zero, zero, ("a",), (zero, zero))]), clear=lambda: None)
    for device, value in (("cuda", 1), ("cpu", 0)):
        config = draft(replace(Config(), train={"device": device}))
        [batch] = loop.Work(config, *[None] * 5, Path(), bank=bank).batches(0, 1)  # type: ignore[arg-type]
        assert [float(t) for t in (batch.images, batch.masks, *batch.features)] == [value] * 4
        assert batch.ids == ("a",)
