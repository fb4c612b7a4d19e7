import sys

import pytest
import torch

from pixelwise.errors import ConfigError
from pixelwise.models.catalogue import CHECKPOINTS, ENTRIES, available, build_model, search
from pixelwise.models.licenses import NVIDIA
from pixelwise.models.unet import UNet


def test_names_build_models_with_their_arguments():
    model = build_model("unet", in_channels=1, num_classes=3, features=[4, 8], stem=2)
    assert isinstance(model, UNet)
    assert (model.in_channels, model.num_classes, model.stride) == (1, 3, 8)


def test_names_are_sorted():
    assert list(available()) == sorted(available())
    assert "unet" in available()


def test_equal_seeds_give_equal_weights():
    states = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        states.append(build_model("unet", features=(4,)).state_dict()["first.0.weight"])
    assert torch.equal(states[0], states[1])
    assert not torch.equal(states[0], states[2])


@pytest.mark.parametrize(
    ("asked", "meant"),
    [
        ("u-net", "unet"),
        ("deeplabv3_resnet50", "deeplabv3-resnet50"),
        ("segformer-b6", "segformer-b5"),
        ("u-net/resnet34", "unet/resnet34"),
    ],
)
def test_an_unknown_name_suggests_the_nearest(asked, meant):
    with pytest.raises(ConfigError, match=rf"found unknown \w+ '{asked}'\. Did you mean '{meant}'\?$"):
        build_model(asked)


def test_a_name_without_near_match_lists_all():
    with pytest.raises(ConfigError, match=r"^model.name: expected one of .*unet.*ARCHITECTURE/ENCODER, found unknown "):
        build_model("zzz")


def test_an_unknown_encoder_suggests_the_nearest():
    with pytest.raises(ConfigError, match=r"found unknown encoder 'resnet35'\. Did you mean 'unet/resnet\d+'"):
        build_model("unet/resnet35")


def test_an_incompatible_architecture_and_encoder_are_refused():
    with pytest.raises(ConfigError, match=r"^model dpt/resnet18: expected a compatible architecture and encoder"):
        build_model("dpt/resnet18")


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: entry.name)
def test_catalogue_entries_are_correct(entry):
    with torch.device("meta"):
        model = build_model(entry.name)
    assert sum(p.numel() for p in model.parameters()) == entry.parameters
    assert model.stride == entry.stride


def test_search_finds_entries_and_combinations():
    assert {e.name for e in search()} == {*available(), *(e.name for e in CHECKPOINTS)}
    assert [e.name for e in search("Intel")] == ["Intel/dpt-large-ade"]
    assert next(e.name for e in search("b3")) == "segformer-b3"
    found = {e.name: e for e in search("unet/resnet34")}
    assert found["unet/resnet34"].parameters > 20e6
    assert search("nothing of that name") == ()


def test_non_commercial_weights_are_listed_as_such():
    segformers = [{terms for _, terms in e.weights} for e in ENTRIES if e.name.startswith("segformer")]
    assert segformers == [{NVIDIA}] * 6
    found = [terms for e in search("unet/mit_b0") for _, terms in e.weights]
    assert found
    assert set(found) == {NVIDIA}


def test_a_missing_library_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "segmentation_models_pytorch", None)
    with pytest.raises(ConfigError) as caught:
        build_model("unet/resnet18")
    assert str(caught.value) == (
        "model unet/resnet18: expected the library segmentation-models-pytorch, found it is not installed. "
        "Run: pip install 'pixelwise[models]'."
    )


def test_an_unknown_argument_suggests_the_nearest():
    with pytest.raises(ConfigError) as caught:
        build_model("unet", feature=[4])
    assert str(caught.value) == (
        "model unet: expected one of in_channels, num_classes, features, up, stem, mean, std, clip, dimensions, flat, "
        "found unknown argument 'feature'. Did you mean 'features'?"
    )
