"""Folding batch norms into the convolutions before them, for prediction; the result can be neither trained nor saved."""

from __future__ import annotations

import copy
from collections import Counter
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_weights

from pixelwise.models.base import FixedSameConv2d, SafeBatchNorm2d, SegmentationModel, evaluating

# Others may compute their weights from their parameters, or do more than convolve.
_CONVOLUTIONS = (nn.Conv2d, FixedSameConv2d, nn.ConvTranspose2d, nn.Conv3d, nn.ConvTranspose3d)
# Side of the image that shows which norm follows which convolution.
_SIDE = {2: 64, 3: 16}
# Largest difference of the logits, as a share of their range.
_TOLERANCE = 1e-4


def fold_norms(model: SegmentationModel) -> SegmentationModel:
    """Return a copy in evaluation mode in which batch norms are folded into the convolutions before them.

    A norm follows a convolution if it gets its output, in a run on a small random image. The model itself is returned if it
    has no such norms, or if the logits of the copy differ, for example since the output is also used elsewhere.
    """
    images = _example(model)
    # Networks of libraries may keep tensors, and those created in inference mode cannot be used for training.
    with torch.inference_mode(False), torch.no_grad(), evaluating(model):
        folded = copy.deepcopy(model)
        pairs, logits = _pairs(folded, images)
        names = {module: name for name, module in folded.named_modules()}
        for conv, norm in pairs:
            _fold(conv, norm)
            parent, _, name = names[norm].rpartition(".")
            setattr(folded.get_submodule(parent), name, _rest(norm))
        folded.eval()
        try:
            difference = (folded(images) - logits).abs().max()
        except (AttributeError, RuntimeError, TypeError):  # a library reads attributes of its norms
            return model
    # False for NaN.
    return folded if pairs and difference <= _TOLERANCE * (logits.max() - logits.min()) else model


def _example(model: SegmentationModel) -> Tensor:
    """Return one image (1, C, *S) of noise with the mean and the deviation of the training images."""
    size = (_SIDE[model.dimensions],) * model.dimensions
    noise = torch.randn(1, model.in_channels, *size, generator=torch.Generator().manual_seed(0))
    bands = (-1, *(1,) * len(size))
    mean, std = (values.cpu().view(bands) for values in (model.normalise.mean, model.normalise.std))
    return (noise * std + mean).to(model.normalise.mean.device)


def _pairs(model: nn.Module, images: Tensor) -> tuple[list[tuple[Any, Any]], Tensor]:
    """Return each convolution whose output is the input of a batch norm, with that norm, and the logits.

    Modules that are called more than once, or have several names, are left out.
    """
    calls: Counter[nn.Module] = Counter()
    outputs: dict[int, tuple[nn.Module, Tensor]] = {}  # with the tensors, whose ids are thus not used again
    found: list[tuple[nn.Module, nn.Module]] = []

    def convolved(conv: nn.Module, _: Any, output: Tensor) -> None:
        calls[conv] += 1
        outputs[id(output)] = conv, output

    def normalised(norm: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        calls[norm] += 1
        if inputs and id(inputs[0]) in outputs:
            found.append((outputs[id(inputs[0])][0], norm))

    hooks = []
    for module in model.modules():
        if type(module) in _CONVOLUTIONS and not hasattr(module, "parametrizations"):
            hooks.append(module.register_forward_hook(convolved))
        elif _rest(module) is not None and isinstance(getattr(module, "running_var", None), Tensor):
            hooks.append(module.register_forward_pre_hook(normalised))
    try:
        logits: Tensor = model(images)
    finally:
        for hook in hooks:
            hook.remove()
    names = Counter(module for _, module in model.named_modules(remove_duplicate=False))
    users = Counter(conv for conv, _ in found)
    once = [
        (conv, norm)
        for conv, norm in found
        if users[conv] == 1 and all(calls[m] == 1 and names[m] == 1 for m in (conv, norm))
    ]
    return [
        pair
        for pair in once
        if not (isinstance(pair[0], nn.ConvTranspose2d | nn.ConvTranspose3d) and pair[0].groups > 1)
    ], logits


def _rest(norm: nn.Module) -> nn.Module | None:
    """Return what a batch norm does after normalising; None if it is of an unknown kind, or no batch norm."""
    if type(norm) in (nn.BatchNorm2d, nn.BatchNorm3d, SafeBatchNorm2d):
        return nn.Identity()
    if type(norm).__name__ == "BatchNormAct2d":  # timm, which is imported only by the networks that need it
        return nn.Sequential(norm.drop, norm.act)  # type: ignore[arg-type]
    return None


def _fold(conv: Any, norm: Any) -> None:
    conv.weight, conv.bias = fuse_conv_bn_weights(
        conv.weight,
        conv.bias,
        norm.running_mean,
        norm.running_var,
        norm.eps,
        norm.weight,
        norm.bias,
        transpose=isinstance(conv, nn.ConvTranspose2d | nn.ConvTranspose3d),
    )
