"""The optimizer (AdamW), its learning-rate schedule, the initial bias of the head, and averaged weights."""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence

import torch
from torch import nn

from pixelwise.models.base import SegmentationModel
from pixelwise.training.finetune import rate_factors

_MIN_PRIOR = 1e-4
_FUSED_DEVICES = ("cpu", "cuda")


def adamw(
    model: SegmentationModel,
    learning_rate: float,
    weight_decay: float,
    head_rate: float = 1.0,
    layer_decay: float = 1.0,
    encoder_rate: float = 1.0,
) -> torch.optim.AdamW:
    """Return an AdamW optimizer (Loshchilov and Hutter 2019) for a model.

    Args:
        model: the parameters that require gradients are optimized.
        learning_rate: of the decoder.
        weight_decay: of all parameters except biases and norms.
        head_rate: factor on the rate of the head. Every parameter group stores its factor as `factor`.
        layer_decay: factor from each layer of the encoder to the layer before it.
        encoder_rate: factor on the rate of the encoder.
    """
    factors = rate_factors(model, head_rate, layer_decay, encoder_rate)
    fused = all(p.device.type in _FUSED_DEVICES for p in model.parameters())
    groups: dict[tuple[float, bool], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            groups.setdefault((factors[name], parameter.ndim > 1), []).append(parameter)
    optimizer = torch.optim.AdamW(
        [
            {"params": parameters, "weight_decay": weight_decay if decayed else 0.0, "factor": factor}
            for (factor, decayed), parameters in groups.items()
        ],
        lr=learning_rate,
        betas=(0.9, 0.99),
        # One pass over the memory instead of ten.
        fused=fused,
    )
    optimizer.register_step_pre_hook(_lay_out_gradients)
    return optimizer


def _lay_out_gradients(optimizer: torch.optim.Optimizer, _: object, __: object) -> None:
    """Copy gradients whose memory layout is not that of their parameter.

    Automatic differentiation does so for almost all parameters. The fused step of torch 2.15 takes it for granted on the CPU,
    and pairs other elements if the layouts differ.
    """
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            if parameter.grad is not None and parameter.grad.stride() != parameter.stride():
                parameter.grad = torch.empty_like(parameter).copy_(parameter.grad)


def head_inputs(model: SegmentationModel) -> int:
    """Return the fan-in of the last layer of the head: the number of values summed into one logit."""
    weights = [p for p in model.head.parameters() if p.ndim > 1]
    return weights[-1][0].numel()


@torch.no_grad()
def begin_at_prior(model: SegmentationModel, weights: Sequence[float]) -> None:
    """Set the bias of the head so that a new model predicts the class frequencies: Lin et al. 2017, arXiv:1708.02002.

    Otherwise the first few dozen steps only learn the frequencies. This also distorts the weights of the head: its inputs
    follow a ReLU and are positive, so all of them learn to predict the most frequent class.

    Args:
        model: unchanged if its head has no bias, or a bias whose length is not a multiple of the number of classes.
        weights: (K,) share of each class in the training pixels times its class weight.
    """
    biases = [p for name, p in model.head.named_parameters() if name.endswith("bias")]
    if not biases or len(biases[-1]) % model.num_classes:
        return
    shares = torch.tensor(weights, dtype=torch.float64)
    shares = (shares / shares.sum()).clamp_min(_MIN_PRIOR)
    biases[-1].copy_(shares.log().repeat_interleave(len(biases[-1]) // model.num_classes))


def rate(step: int, steps: int, learning_rate: float, warmup: float) -> float:
    """Return the learning rate of `step` (0 … steps-1): linear warm-up, then half a cosine down to 1 % of the peak."""
    rise = max(round(warmup * steps), 1)
    if step < rise:
        return learning_rate * (step + 1) / rise
    progress = (step - rise) / max(steps - rise, 1)
    return learning_rate * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * progress)))


class AveragedWeights:
    """Exponential moving average of the parameters of a model and of the statistics of its norms.

    Parameters that were frozen from the start are equal in both, so they are left out while they are frozen.

    The decay at step t is min(decay, (1 + t) / (10 + t)), so that the random initial weights have no lasting effect. With
    decay 0 the average is a copy of the model.
    """

    def __init__(self, model: SegmentationModel, decay: float) -> None:
        self.model: SegmentationModel = copy.deepcopy(model).eval().requires_grad_(False)
        self.decay = decay

    @torch.no_grad()
    def update(self, model: nn.Module, step: int) -> None:
        """Update the average with the weights after `step` (0 …)."""
        decay = min(self.decay, (1 + step) / (10 + step))
        averages, currents = [], []
        for averaged, current in zip(_tensors(self.model), _tensors(model), strict=True):
            if not averaged.is_floating_point():
                averaged.copy_(current)
            elif current.requires_grad or not isinstance(current, nn.Parameter):
                averages.append(averaged.detach())
                currents.append(current.detach())
        torch._foreach_lerp_(averages, currents, 1 - decay)


def _tensors(model: nn.Module) -> list[torch.Tensor]:
    return [*model.parameters(), *model.buffers()]
