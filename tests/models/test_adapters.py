"""With the same weights, adapters and their libraries compute the same logits."""

import pytest
import segmentation_models_pytorch as smp
import torch
from torchvision.models import segmentation
from transformers import (
    AutoImageProcessor,
    AutoModelForSemanticSegmentation,
    SegformerConfig,
    SegformerForSemanticSegmentation,
)

from pixelwise.labels import Labels
from pixelwise.models.base import AdaptedModel, SafeBatchNorm2d, adapt_bands, enlarge
from pixelwise.models.card import ModelCard
from pixelwise.models.catalogue import build_model
from pixelwise.models.weights import load_model, save_model
from pixelwise.types import ModelSpec

MEAN, STD = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)


def normalised(images: torch.Tensor) -> torch.Tensor:
    return (images.float() - torch.tensor(MEAN).view(3, 1, 1)) / torch.tensor(STD).view(3, 1, 1)


def images(height: int = 64, width: int = 96) -> torch.Tensor:
    return torch.randint(0, 256, (2, 3, height, width), generator=torch.Generator().manual_seed(1)).byte()


def ours(name: str, library: torch.nn.Module, classes: int = 6) -> AdaptedModel:
    model = build_model(name, in_channels=3, num_classes=classes, mean=MEAN, std=STD)
    assert isinstance(model, AdaptedModel)
    model.network.load_state_dict(library.state_dict())
    return model.eval()


def spread(network: torch.nn.Module) -> torch.nn.Module:
    """Set statistics of the norms that differ from the defaults."""
    torch.manual_seed(0)
    network.train()
    with torch.no_grad():
        network(normalised(images()))
    return network.eval()


@pytest.mark.parametrize(
    ("name", "builder"),
    [
        ("deeplabv3-resnet50", segmentation.deeplabv3_resnet50),
        ("deeplabv3-mobilenetv3", segmentation.deeplabv3_mobilenet_v3_large),
        ("fcn-resnet50", segmentation.fcn_resnet50),
        ("lraspp-mobilenetv3", segmentation.lraspp_mobilenet_v3_large),
    ],
)
def test_torchvision(name, builder):
    torch.manual_seed(3)
    options = {} if name.startswith("lraspp") else {"aux_loss": True}
    library = spread(builder(weights=None, weights_backbone=None, num_classes=6, **options))
    model = ours(name, library)
    with torch.inference_mode():
        torch.testing.assert_close(model(images()), library(normalised(images()))["out"], rtol=1e-5, atol=1e-5)
    if options:
        heads = model.train().outputs(images()).auxiliary
        assert len(heads) == 1
        assert heads[0].shape == (2, 6, 64, 96)


@pytest.mark.parametrize(
    "name", ["unet/resnet18", "deeplabv3plus/resnet18", "fpn/resnet18", "segformer/mit_b0", "manet/resnet18"]
)
def test_segmentation_models_pytorch(name):
    torch.manual_seed(3)
    architecture, encoder = name.split("/")
    library = spread(smp.create_model(architecture, encoder, encoder_weights=None, classes=6))
    model = ours(name, library)
    with torch.inference_mode():
        torch.testing.assert_close(model(images()), library(normalised(images())), rtol=1e-5, atol=1e-5)


def test_logits_of_segformer_are_enlarged():
    torch.manual_seed(3)
    library = spread(SegformerForSemanticSegmentation(SegformerConfig(num_labels=6)))
    model = ours("segformer-b0", library)
    with torch.inference_mode():
        quarter = library(pixel_values=normalised(images())).logits
        assert quarter.shape == (2, 6, 16, 24)
        wanted = torch.nn.functional.interpolate(quarter, size=(64, 96), mode="bilinear", align_corners=False)
        torch.testing.assert_close(model(images()), wanted, rtol=1e-5, atol=1e-5)


def test_a_model_folder_is_a_transformers_checkpoint(tmp_path):
    torch.manual_seed(4)
    labels = Labels(("wall", "floor", "sky"))
    plain = {"in_channels": 3, "num_classes": 3}
    model = build_model("segformer-b0", **plain, mean=MEAN, std=STD).eval()
    save_model(tmp_path / "model", model, ModelCard({"name": "segformer-b0", "arguments": plain}, ModelSpec(labels, 3)))
    library, report = AutoModelForSemanticSegmentation.from_pretrained(tmp_path / "model", output_loading_info=True)
    assert not any(report[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    assert library.config.id2label == {0: "wall", 1: "floor", 2: "sky"}
    assert library.config.label2id == {"wall": 0, "floor": 1, "sky": 2}
    seen = AutoImageProcessor.from_pretrained(tmp_path / "model")(list(images()), return_tensors="pt")
    with torch.inference_mode():
        quarter = library.eval()(pixel_values=seen["pixel_values"]).logits
        wanted = torch.nn.functional.interpolate(quarter, size=(64, 96), mode="bilinear", align_corners=False)
        torch.testing.assert_close(model(images()), wanted, rtol=1e-5, atol=1e-5)
        loaded, _ = load_model(tmp_path / "model")
        assert torch.equal(loaded(images()), model(images()))


def test_auxiliary_heads_of_transformers_are_trained():
    config = {"model_type": "upernet", "hidden_size": 16, "auxiliary_in_channels": 24, "auxiliary_channels": 8}
    config["backbone_config"] = {
        "model_type": "convnext",
        "hidden_sizes": [8, 16, 24, 32],
        "depths": [1, 1, 1, 1],
        "out_features": ["stage1", "stage2", "stage3", "stage4"],
    }
    model = build_model("transformers", config=config, num_classes=6).train()
    outputs = model.outputs(images())
    assert [logits.shape for logits in outputs.auxiliary] == [(2, 6, 64, 96)]
    assert not model.network.auxiliary_head._forward_hooks
    assert model.eval().outputs(images()).auxiliary == ()


def test_padding_is_cut_off():
    model = build_model("unet/resnet18", num_classes=6).eval()
    image = images(50, 70)
    padded = torch.nn.functional.pad(image.float(), (0, 26, 0, 14), mode="replicate")
    with torch.inference_mode():
        torch.testing.assert_close(model(image), model(padded)[..., :50, :70], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("bands", [1, 2, 3, 4, 12])
def test_adapted_bands_keep_the_response_to_equal_bands(bands):
    weight = torch.randn(8, 3, 7, 7, generator=torch.Generator().manual_seed(0))
    grey = torch.rand(1, 1, 20, 20)
    wanted = torch.nn.functional.conv2d(grey.expand(-1, 3, -1, -1), weight)
    found = torch.nn.functional.conv2d(grey.expand(-1, bands, -1, -1), adapt_bands(weight, bands))
    if bands in (1, 3, 12):  # multiples of red, green, blue
        torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-4)
    assert adapt_bands(weight, bands).shape == (8, bands, 7, 7)


def test_a_norm_with_one_value_per_channel_uses_its_statistics():
    norm = SafeBatchNorm2d(3).train()
    x = torch.randn(1, 3, 1, 1)
    torch.testing.assert_close(norm(x), x / (1 + norm.eps) ** 0.5)
    assert norm.running_mean.abs().sum() == 0
    norm(torch.randn(2, 3, 4, 4))
    assert norm.running_mean.abs().sum() > 0


def test_logits_of_the_right_size_are_unchanged():
    logits = torch.randn(1, 2, 5, 7)
    assert enlarge(logits, (5, 7)) is logits
