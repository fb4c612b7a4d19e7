"""The feature pyramid network: encoders of timm, folded norms, and pretrained weights."""

from __future__ import annotations

import pytest
import timm
import torch

from pixelwise.errors import ConfigError, ModelFileError
from pixelwise.models.base import AdaptedModel
from pixelwise.models.catalogue import build_empty, build_model
from pixelwise.models.pretrained import Source, fill


def trained(encoder: str) -> torch.nn.Module:
    """A classifier of timm whose norms have statistics other than 0 and 1."""
    torch.manual_seed(0)
    network = timm.create_model(encoder, pretrained=False)
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_()
            module.running_var.uniform_(0.5, 2)
            torch.nn.init.uniform_(module.weight, 0.5, 1.5)
            torch.nn.init.normal_(module.bias)
    return network.eval()


def features(model: AdaptedModel, side: int = 64) -> tuple[torch.Tensor, ...]:
    image = torch.randint(0, 256, (1, model.in_channels, side, side), generator=torch.Generator().manual_seed(2))
    with torch.inference_mode():
        return model.eval().encode(image)


# Flattened and plain names, norms before and after convolutions, no norms to fold.
@pytest.mark.parametrize(
    "encoder",
    [
        "tf_efficientnet_lite0",
        "resnet18",
        "resnet10t",
        "resnetv2_50",
        "regnety_002",
        "hgnetv2_b0",
        "densenet121",
        "convnext_atto",
    ],
)
def test_folded_norms_compute_the_features_of_the_original(encoder: str) -> None:
    source = Source("test", trained(encoder).state_dict())
    plain, folded = (build_model("fpn", encoder=encoder, width=8, norms=norms) for norms in ("batch", "folded"))
    assert fill(plain, source).encoder_only
    report = fill(folded, source)
    assert report.encoder_only
    assert not [name for name in report.new if name.startswith("network.encoder.")]
    for one, other in zip(features(folded), features(plain), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-4 * float(other.abs().max()))


@pytest.mark.parametrize("bands", [1, 4])
def test_folding_and_other_bands_go_together(bands: int) -> None:
    source = Source("test", trained("resnet18").state_dict())
    plain, folded = (
        build_model("fpn", encoder="resnet18", in_channels=bands, width=8, norms=norms) for norms in ("batch", "folded")
    )
    for model in (plain, folded):
        fill(model, source)
    for one, other in zip(features(folded), features(plain), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-4 * float(other.abs().max()))


def test_a_trained_model_with_norms_starts_one_with_folded_norms() -> None:
    plain = build_model("fpn", encoder="resnet18", width=8)
    fill(plain, Source("test", trained("resnet18").state_dict()))
    folded = build_model("fpn", encoder="resnet18", width=8, norms="folded")
    report = fill(folded, Source("a model folder", plain.state_dict()))
    assert not report.encoder_only
    assert report.new == ()
    with torch.inference_mode():
        image = torch.randint(0, 256, (1, 3, 40, 50))
        torch.testing.assert_close(folded.eval()(image), plain.eval()(image), rtol=1e-3, atol=1e-4)


def test_folded_norms_leave_no_norm_in_the_encoder() -> None:
    model = build_model("fpn", norms="folded")
    assert not any(isinstance(m, torch.nn.BatchNorm2d) for m in model.network.encoder.modules())
    assert model.state_dict().keys() == build_empty("fpn", norms="folded").state_dict().keys()


def test_weights_of_another_encoder_are_refused() -> None:
    with pytest.raises(ModelFileError, match=r"expected .*found .*Choose the network of these weights with --model"):
        fill(build_model("fpn", encoder="resnet18"), Source("x", trained("tf_efficientnet_lite0").state_dict()))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"encoder": "resnet_18"}, r"^model\.encoder: expected a network of timm .*'resnet_18'.*resnet18"),
        ({"width": 0}, r"^model\.width: expected at least 1, found 0\. Correct the value\.$"),
    ],
)
def test_invalid_arguments(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        build_model("fpn", **arguments)


@pytest.mark.parametrize("classes", [2, 150])
@pytest.mark.parametrize("fine", [False, True])
def test_the_smallest_images_and_many_classes(classes: int, fine: bool) -> None:
    model = build_model("fpn", num_classes=classes, encoder="mobilenetv3_small_050", width=8, fine=fine).eval()
    with torch.inference_mode():
        assert model(torch.zeros(1, 3, 3, 3)).shape == (1, classes, 3, 3)
