"""The U-Net with three dimensions."""

from pathlib import Path
from typing import Any

import pytest
import torch

from pixelwise.errors import ConfigError, DataError
from pixelwise.labels import Labels
from pixelwise.models.card import ModelCard
from pixelwise.models.folding import fold_norms
from pixelwise.models.unet import UNet
from pixelwise.models.weights import load_model, save_model
from pixelwise.types import ModelSpec


def network(**arguments: Any) -> UNet:
    torch.manual_seed(0)
    model = UNet(**{"in_channels": 1, "num_classes": 3, "features": (4, 8), "dimensions": 3, **arguments})
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
        model.train()
        model(torch.randn(2, model.in_channels, 8, 8, 8))
    return model.eval()


def random_volume(*size: int, bands: int = 1) -> torch.Tensor:
    return torch.randn(1, bands, *size, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("up", ["transposed", "bilinear"])
@pytest.mark.parametrize(("flat", "classes"), [(0, 2), (1, 3), (2, 4)])
def test_any_size_in_the_same_size_out(up: str, flat: int, classes: int) -> None:
    model = network(up=up, flat=flat, num_classes=classes, in_channels=2)
    for size in ((1, 1, 1), (1, 40, 9), (5, 7, 3), (8, 8, 8), (9, 17, 12)):
        with torch.no_grad():
            logits = model(random_volume(*size, bands=2).short())
        assert logits.shape == (1, classes, *size)
        assert logits.dtype == torch.float32
        assert torch.isfinite(logits).all()


@pytest.mark.parametrize(("flat", "strides"), [(0, (8, 8, 8)), (1, (4, 8, 8)), (3, (1, 8, 8))])
def test_flat_scales_do_not_pool_slices(flat: int, strides: tuple[int, ...]) -> None:
    model = network(features=(2, 2, 2), flat=flat)
    assert (model.stride, model.strides) == (8, strides)
    seen = []
    model.down[-1].register_forward_hook(lambda _, __, out: seen.append(tuple(out.shape[2:])))
    model(random_volume(16, 16, 24))
    assert seen == [tuple(side // stride for side, stride in zip((16, 16, 24), strides, strict=True))]


@pytest.mark.parametrize("up", ["transposed", "bilinear"])
def test_a_flat_network_computes_every_slice_like_the_network_for_images(up: str) -> None:
    """With weights for neighbouring slices of 0 in the bottleneck, slices do not see each other."""
    images = _two_dimensional(up)
    volumes = network(flat=2, up=up)
    lifted = {}
    for name, value in volumes.state_dict().items():
        given = images.state_dict()[name]
        lifted[name] = given if given.shape == value.shape else _lifted(given, value.shape)
    volumes.load_state_dict(lifted)
    stack = random_volume(5, 10, 13)
    with torch.no_grad():
        together = volumes(stack)
        apart = torch.stack([images(stack[:, :, k]) for k in range(5)], dim=2)
    torch.testing.assert_close(together, apart, rtol=1e-4, atol=1e-4)


def _two_dimensional(up: str) -> UNet:
    torch.manual_seed(3)
    model = UNet(1, 3, (4, 8), up)  # type: ignore[arg-type]
    with torch.no_grad():
        model.head.weight.normal_()
        model.train()
        model(torch.randn(4, 1, 16, 16))
    return model.eval()


def _lifted(weight: torch.Tensor, shape: torch.Size) -> torch.Tensor:
    """Put a kernel for images into the middle slice of one for volumes."""
    kernel = torch.zeros(shape)
    kernel[:, :, shape[2] // 2] = weight
    return kernel


def test_slices_see_their_neighbours_unless_all_scales_are_flat() -> None:
    model, stack = network(flat=1), random_volume(8, 8, 8)
    other = stack.clone()
    other[:, :, 0] += 1
    with torch.no_grad():
        assert not torch.allclose(model(stack)[:, :, 1], model(other)[:, :, 1])


def test_a_model_folder_holds_the_dimensions(tmp_path: Path) -> None:
    model = network(flat=1)
    labels = Labels(("a", "b", "c"))
    spec = ModelSpec(labels, 1, dimensions=3, tile=(16, 16, 16), intensity="image", spacing=(3.0, 1.0, 1.0))
    arguments = {"in_channels": 1, "num_classes": 3, "features": [4, 8], "dimensions": 3, "flat": 1}
    save_model(tmp_path / "model", model, ModelCard({"name": "unet", "arguments": arguments}, spec))
    loaded, card = load_model(tmp_path / "model")
    assert (card.spec.dimensions, card.spec.intensity, card.spec.spacing) == (3, "image", (3.0, 1.0, 1.0))
    stack = random_volume(5, 9, 9)
    with torch.no_grad():
        assert torch.equal(loaded(stack), model(stack))


@pytest.mark.parametrize("up", ["transposed", "bilinear"])
def test_norms_are_folded(up: str) -> None:
    model, stack = network(flat=1, up=up), random_volume(6, 9, 9)
    folded = fold_norms(model)
    assert folded is not model
    assert not any(isinstance(module, torch.nn.BatchNorm3d) for module in folded.modules())
    with torch.no_grad():
        torch.testing.assert_close(folded(stack), model(stack), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"stem": 2}, "model.stem: expected 1 in three dimensions, found 2"),
        ({"flat": 3, "features": (4, 8)}, "model.flat: expected 0 up to the number of scales in 3-D, found 3"),
        ({"flat": 1, "dimensions": 2}, "model.flat: expected 0 up to the number of scales in 3-D, found 1"),
        ({"dimensions": 4}, "model.dimensions: expected 2 or 3, found 4"),
    ],
)
def test_invalid_arguments(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as info:
        UNet(**{"dimensions": 3, **arguments})
    assert str(info.value).startswith(message)


def test_images_are_no_volumes() -> None:
    with pytest.raises(DataError, match=r"expected five axes \(batch, bands, depth, height, width\), found shape"):
        network()(torch.zeros(1, 1, 8, 8))
    with pytest.raises(DataError, match=r"expected at least 1×1×1 pixels"):
        network()(torch.zeros(1, 1, 0, 8, 8))
