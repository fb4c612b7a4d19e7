"""Logits of channels-last networks are rearranged without changing a value."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from pixelwise.inference import torch_backend
from pixelwise.inference.torch_backend import TorchBackend
from pixelwise.labels import Labels
from pixelwise.types import ModelSpec


@pytest.mark.parametrize("many", [1, 100, 1 << 30])
@pytest.mark.parametrize("shape", [(1, 1, 4, 5), (2, 1, 33, 70), (1, 1, 3, 9, 11), (2, 1, 16, 17, 18)])
@pytest.mark.parametrize("channels_last", [True, False])
def test_logits_are_those_of_the_network(
    shape: tuple[int, ...], channels_last: bool, many: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch_backend, "_MANY_PIXELS", many)
    monkeypatch.setattr(torch_backend, "_BLOCK", 64)
    torch.manual_seed(0)
    dimensions = len(shape) - 2
    layer = {2: torch.nn.Conv2d, 3: torch.nn.Conv3d}[dimensions](1, 5, 3, padding=1)
    spec = ModelSpec(Labels(tuple("abcde")), 1, dimensions=dimensions)
    images = np.random.default_rng(0).random(shape, np.float32)
    found = TorchBackend(layer, spec, channels_last=channels_last)(images)
    assert found.flags.c_contiguous
    with torch.inference_mode():
        expected = layer(torch.from_numpy(images)).numpy()
    np.testing.assert_allclose(found, expected, atol=1e-6)
