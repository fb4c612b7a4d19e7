"""What moves the weights: AdamW, its learning-rate curve, and the averaged copy that is scored and shipped.

Comes in: a model and rates. Goes out: an optimizer, a rate per step, averaged weights. Knows nothing of data or losses.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence

import torch
from torch import nn

from pixelwise.models.base import SegmentationModel
from pixelwise.training.finetune import rate_factors

_RAREST_PRIOR = 1e-4


def adamw(
    model: SegmentationModel,
    learning_rate: float,
    weight_decay: float,
    head_rate: float = 1.0,
    layer_decay: float = 1.0,
) -> torch.optim.AdamW:
    """Make AdamW (Loshchilov and Hutter 2019) that decays weights, but no biases and no norms.

    Args:
        model: its `head` makes the logits.
        learning_rate: of the decoder.
        weight_decay: of weights.
        head_rate: factor on the rate of the head; every group keeps its own as `factor`, for `rate`.
        layer_decay: factor from each layer of the encoder to the one before it.
    """
    factors = rate_factors(model, head_rate, layer_decay)
    groups: dict[tuple[float, bool], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            groups.setdefault((factors[name], parameter.ndim > 1), []).append(parameter)
    return torch.optim.AdamW(
        [
            {"params": found, "weight_decay": weight_decay if decayed else 0.0, "factor": factor}
            for (factor, decayed), found in groups.items()
        ],
        lr=learning_rate,
        betas=(0.9, 0.99),
    )


def head_inputs(model: SegmentationModel) -> int:
    """Count the values that one logit is summed from: the fan-in of the head's last layer with weights."""
    weights = [p for p in model.head.parameters() if p.ndim > 1]
    return weights[-1][0].numel()


@torch.no_grad()
def begin_at_prior(model: SegmentationModel, weights: Sequence[float]) -> None:
    """Set the head's bias so that a fresh model answers with how frequent the classes are: Lin et al. 2017, arXiv:1708.02002.

    Else the first dozens of steps are spent on learning just that, and bend the head's weights on the way: behind a ReLU
    all its inputs are positive, so each of them learns to vote for the commonest class.

    Args:
        model: a head without a bias, or with another number of them than a multiple of the classes, stays as it is.
        weights: (K,) what each class weighs in the training pixels: its share times its class weight.
    """
    biases = [p for name, p in model.head.named_parameters() if name.endswith("bias")]
    if not biases or len(biases[-1]) % model.num_classes:
        return
    shares = torch.tensor(weights, dtype=torch.float64)
    shares = (shares / shares.sum()).clamp_min(_RAREST_PRIOR)
    biases[-1].copy_(shares.log().repeat_interleave(len(biases[-1]) // model.num_classes))


def rate(step: int, steps: int, learning_rate: float, warmup: float) -> float:
    """Give the learning rate of `step` (0 … steps-1): linear warm-up, then half a cosine down to 1 % of the peak.

    Args:
        step: the step about to be made.
        steps: how many there will be.
        learning_rate: the peak.
        warmup: share of the steps that rise to the peak.
    """
    rise = max(round(warmup * steps), 1)
    if step < rise:
        return learning_rate * (step + 1) / rise
    progress = (step - rise) / max(steps - rise, 1)
    return learning_rate * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * progress)))


class AveragedWeights:
    """Keep an exponential moving average of a model's weights and of its norms' statistics.

    The average forgets slowly once it is warm: its decay at step t is min(decay, (1 + t) / (10 + t)), so that the random
    weights of the beginning leave no trace. With decay 0 it is the model itself, copied.
    """

    def __init__(self, model: SegmentationModel, decay: float) -> None:
        self.model: SegmentationModel = copy.deepcopy(model).eval().requires_grad_(False)
        self.decay = decay

    @torch.no_grad()
    def update(self, model: nn.Module, step: int) -> None:
        """Take in the weights after step number `step` (0 …)."""
        keep = min(self.decay, (1 + step) / (10 + step))
        mine, theirs = _floats(self.model), _floats(model)
        torch._foreach_lerp_(mine, theirs, 1 - keep)
        for old, new in zip(self.model.buffers(), model.buffers(), strict=True):
            if not old.is_floating_point():
                old.copy_(new)


def _floats(model: nn.Module) -> list[torch.Tensor]:
    return [t.detach() for t in (*model.parameters(), *model.buffers()) if t.is_floating_point()]
