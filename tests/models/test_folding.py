"""Norms are folded only where this changes nothing. That it works for every network is in tests/contracts/test_models.py."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils.parametrizations import weight_norm

from pixelwise.models.base import SegmentationModel
from pixelwise.models.folding import fold_norms
from pixelwise.models.unet import UNet


class Net(SegmentationModel):
    """A function of modules between normalisation and logits."""

    def __init__(self, compute, **modules):
        super().__init__(3, 4, 1, mean=(100.0,) * 3, std=(50.0,) * 3)
        for name, module in modules.items():
            self.add_module(name, module)
        self.compute = compute
        with torch.no_grad():
            for module in self.modules():
                if isinstance(module, nn.BatchNorm2d):
                    for values in (module.running_mean, module.running_var, module.weight, module.bias):
                        if values is not None:
                            values.uniform_(0.5, 2)

    def forward(self, images):
        return self.compute(self, self.normalise(images))


def conv(groups=1):
    return nn.Conv2d(3, 4, 3, padding=1, groups=groups, bias=False)


class Scaled(nn.BatchNorm2d):
    """A norm that does more than its class says."""

    def forward(self, x):
        return super().forward(x) * 2


FOLDED = {
    "sequence": (lambda m, x: m.norm(m.conv(x)), {"conv": conv(), "norm": nn.BatchNorm2d(4)}),
    "transposed": (
        lambda m, x: m.norm(m.conv(x)),
        {"conv": nn.ConvTranspose2d(3, 4, 3, padding=1), "norm": nn.BatchNorm2d(4)},
    ),
    "without weights": (lambda m, x: m.norm(m.conv(x)), {"conv": conv(), "norm": nn.BatchNorm2d(4, affine=False)}),
}
KEPT = {
    "other order": (lambda m, x: m.conv(m.norm(x)), {"conv": conv(), "norm": nn.BatchNorm2d(3)}),
    "function between": (lambda m, x: m.norm(F.relu(m.conv(x))), {"conv": conv(), "norm": nn.BatchNorm2d(4)}),
    "change in place between": (lambda m, x: m.norm(m.conv(x).relu_()), {"conv": conv(), "norm": nn.BatchNorm2d(4)}),
    "output used twice": (lambda m, x: (y := m.conv(x)) + m.norm(y), {"conv": conv(), "norm": nn.BatchNorm2d(4)}),
    "two norms": (
        lambda m, x: m.one(y := m.conv(x)) + m.two(y),
        {"conv": conv(), "one": nn.BatchNorm2d(4), "two": nn.BatchNorm2d(4)},
    ),
    "convolution called twice": (
        lambda m, x: m.norm(m.conv(x)) + m.conv(x),
        {"conv": conv(), "norm": nn.BatchNorm2d(4)},
    ),
    "norm called twice": (lambda m, x: m.norm(m.norm(m.conv(x))), {"conv": conv(), "norm": nn.BatchNorm2d(4)}),
    "norm of two names": (
        lambda m, x: m.norm(m.conv(x)),
        {"conv": conv(), "norm": (shared := nn.BatchNorm2d(4)), "other": shared},
    ),
    "no statistics": (
        lambda m, x: m.norm(m.conv(x)),
        {"conv": conv(), "norm": nn.BatchNorm2d(4, track_running_stats=False)},
    ),
    "parametrised weight": (lambda m, x: m.norm(m.conv(x)), {"conv": weight_norm(conv()), "norm": nn.BatchNorm2d(4)}),
    "groups of a transposed": (
        lambda m, x: m.norm(m.conv(torch.cat([x, x[:, :1]], 1))),
        {"conv": nn.ConvTranspose2d(4, 4, 3, padding=1, groups=2), "norm": nn.BatchNorm2d(4)},
    ),
    "another kind of norm": (lambda m, x: m.norm(m.conv(x)), {"conv": conv(), "norm": Scaled(4)}),
    "attribute of the norm": (
        lambda m, x: m.norm(m.conv(x)) + m.norm.running_mean.mean(),
        {"conv": conv(), "norm": nn.BatchNorm2d(4)},
    ),
    "no norm": (lambda m, x: m.conv(x), {"conv": conv()}),
}


def norms(model):
    return sum(isinstance(module, nn.BatchNorm2d) for module in model.modules())


@pytest.mark.parametrize("case", FOLDED)
def test_norms_after_convolutions_are_folded(case):
    compute, modules = FOLDED[case]
    model = Net(compute, **copy.deepcopy(modules))
    model.train()
    before = copy.deepcopy(model.state_dict())
    folded = fold_norms(model)
    assert (norms(folded), norms(model)) == (0, 1)
    assert model.training
    assert all(module.training for module in model.modules())
    assert not any(module.training for module in folded.modules())
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    images = torch.randint(0, 256, (2, 3, 9, 7))
    with torch.no_grad():
        torch.testing.assert_close(folded(images), model.eval()(images), rtol=1e-4, atol=1e-5)
        assert not torch.allclose(folded(images), torch.zeros(()), atol=0.1)


@pytest.mark.parametrize("case", KEPT)
def test_other_norms_are_kept(case):
    compute, modules = KEPT[case]
    model = Net(compute, **modules)
    assert fold_norms(model) is model


def test_values_that_are_not_finite_are_kept():
    model = UNet(3, 4, (4,))
    model.first[1].weight.data.fill_(torch.nan)
    assert fold_norms(model) is model
