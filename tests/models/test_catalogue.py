import pytest
import torch

from pixelwise.errors import ConfigError
from pixelwise.models.catalogue import available, build_model
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


def test_an_unknown_name_is_met_with_the_nearest():
    with pytest.raises(ConfigError) as caught:
        build_model("u-net")
    assert str(caught.value) == "model.name: expected one of unet, found unknown model 'u-net'. Did you mean 'unet'?"


def test_a_name_that_is_near_to_nothing_gets_the_list():
    with pytest.raises(ConfigError, match=r"expected one of unet, found unknown model 'zzz'\. Choose one of these\.$"):
        build_model("zzz")


def test_an_unknown_argument_is_met_with_the_nearest():
    with pytest.raises(ConfigError) as caught:
        build_model("unet", feature=[4])
    assert str(caught.value) == (
        "model unet: expected one of in_channels, num_classes, features, up, stem, mean, std, "
        "found unknown argument 'feature'. Did you mean 'features'?"
    )
