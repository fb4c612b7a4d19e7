"""Which layers learn when, and how fast: freezing, thawing layer by layer, slower rates towards the input.

Comes in: a model with its encoder's layers, and the `train` section. Goes out: which parameters stand still at a step, and
a factor on each parameter's rate: functions of the step alone. Knows nothing of data, losses or checkpoints.
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import nn

from pixelwise.config import TrainConfig
from pixelwise.errors import ConfigError
from pixelwise.models.base import SegmentationModel
from pixelwise.training.schedule import counted_before, steps_at


def frozen_layers(train: TrainConfig, layers: int, step: int) -> int:
    """Give how many of the encoder's first layers stand still when step number `step` (0 …) is made.

    They thaw one after the other, those next to the decoder first (Howard and Ruder 2018, arXiv:1801.06146), evenly until
    the share `train.unfreeze` of the steps is over.

    Args:
        train: with `freeze` and `unfreeze`.
        layers: of the encoder.
        step: about to be made.

    Raises:
        ConfigError: more layers than there are.
    """
    wanted = train.freeze if train.freeze is not None else "none"
    count = {"none": 0, "encoder": layers}[wanted] if isinstance(wanted, str) else wanted
    if count > layers or (wanted == "encoder" and not layers):
        raise ConfigError(
            "train.freeze",
            expected=f"at most {layers} layers, as many as the encoder has" if layers else "a model with an encoder",
            found=str(wanted),
            do="Choose fewer, or none.",
        )
    if train.unfreeze is None or not count:
        return count
    # What has thawed does not freeze again where a recount makes the run longer.
    return min(_not_thawed(train, count, at) for at in (*counted_before(train, step), step))


def _not_thawed(train: TrainConfig, count: int, step: int) -> int:
    passed = step / max((train.unfreeze or 1.0) * steps_at(train, step), 1.0)
    return max(count - int(passed * count), 0) if passed < 1 else 0


def head_alone(train: TrainConfig, step: int) -> bool:
    """Tell whether only the head learns in step number `step`; once all learn, they go on."""
    share = train.head_warmup or 0.0
    return all(at < share * steps_at(train, at) for at in (*counted_before(train, step), step))


def rate_factors(model: SegmentationModel, head_rate: float, layer_decay: float) -> dict[str, float]:
    """Give the factor on the learning rate of every parameter, by name.

    The head has `head_rate`, the decoder 1, the encoder's last layer `layer_decay`, the one before it `layer_decay`
    squared, and so on to the input: Clark et al. 2020, arXiv:2003.10555.
    """
    layers = model.encoder_stages()
    head = {id(p) for p in model.head.parameters()}
    factors = {}
    for name, parameter in model.named_parameters():
        depth = next((k for k, prefixes in enumerate(layers) if name.startswith(prefixes)), len(layers))
        factors[name] = head_rate if id(parameter) in head else layer_decay ** (len(layers) - depth)
    return factors


class Frozen:
    """Hold parts of a model still, their norms' statistics included.

    Args:
        model: whose parameters learn all unless held.
        train: with `freeze`, `unfreeze` and `head_warmup`.

    Raises:
        ConfigError: more layers to freeze than there are.
    """

    def __init__(self, model: SegmentationModel, train: TrainConfig) -> None:
        self.model, self.train, self.layers = model, train, model.encoder_stages()
        self.head = {id(p) for p in model.head.parameters()}
        self.learned = {name: p for name, p in model.named_parameters() if p.requires_grad}
        self.now: tuple[int, bool] | None = None
        frozen_layers(train, len(self.layers), 0)

    def hold(self, step: int) -> None:
        """Let exactly those parameters learn that shall at step number `step`; the model must be in training mode."""
        state = (frozen_layers(self.train, len(self.layers), step), head_alone(self.train, step))
        if state == self.now:
            return
        self.now = state
        count, alone = state
        still = tuple(prefix for prefixes in self.layers[:count] for prefix in prefixes)
        for name, parameter in self.learned.items():
            parameter.requires_grad_(not (name.startswith(still) or (alone and id(parameter) not in self.head)))
        for name, module in self.model.named_modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                learns = [p.requires_grad for p in module.parameters()] or [not (alone or name.startswith(still))]
                module.train(any(learns))

    def release(self) -> None:
        """Let all learn again: whoever goes on with this model makes its optimizer of all parameters."""
        for parameter in self.learned.values():
            parameter.requires_grad_(True)

    def counts(self) -> Mapping[str, int]:
        """Count the parameters that learn now, and all."""
        learning = sum(p.numel() for p in self.learned.values() if p.requires_grad)
        return {"learning": learning, "parameters": sum(p.numel() for p in self.model.parameters())}
