"""What adapted networks share."""

import copy

import pytest
import timm
import torch

from pixelwise.models.base import fix_same_padding


@pytest.mark.parametrize("name", ["tf_efficientnet_lite0", "tf_mobilenetv3_small_minimal_100", "tf_efficientnetv2_b0"])
@pytest.mark.parametrize("size", [(32, 64), (96, 160), (64, 32)])
def test_fixed_same_padding_equals_that_of_timm(name, size):
    torch.manual_seed(0)
    theirs = timm.create_model(name, features_only=True).eval()
    ours = copy.deepcopy(theirs)
    fix_same_padding(ours)
    assert not any(type(module).__name__ == "Conv2dSame" for module in ours.modules())
    images = torch.randn(2, 3, *size)
    with torch.no_grad():
        for found, expected in zip(ours(images), theirs(images), strict=True):
            assert torch.equal(found, expected)
