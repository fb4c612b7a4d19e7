"""Freezing of layers, gradual unfreezing, and learning rates per layer: functions of the step alone."""

from __future__ import annotations

from torch import nn

from pixelwise.config import ResolvedTrain
from pixelwise.errors import ConfigError
from pixelwise.models.base import SegmentationModel
from pixelwise.training.schedule import counted_before, steps_at


def frozen_layers(train: ResolvedTrain, layers: int, step: int) -> int:
    """Return how many of the first encoder layers are frozen at `step` (0 …).

    Layers are unfrozen one by one, the last one first (Howard and Ruder 2018, arXiv:1801.06146), evenly spread between the
    shares `train.unfreeze_start` and `train.unfreeze` of the steps.

    Raises:
        ConfigError: `train.freeze` exceeds the number of layers.
    """
    count = {"none": 0, "encoder": layers}[train.freeze] if isinstance(train.freeze, str) else train.freeze
    if count > layers or (train.freeze == "encoder" and not layers):
        raise ConfigError(
            "train.freeze",
            expected=f"at most {layers} layers, as many as the encoder has" if layers else "a model with an encoder",
            found=str(train.freeze),
            do="Freeze fewer layers, or none.",
        )
    if train.unfreeze is None or not count:
        return count
    # A layer stays unfrozen when a recount makes the run longer.
    return min(_still_frozen(train, count, at) for at in (*counted_before(train, step), step))


def _still_frozen(train: ResolvedTrain, count: int, step: int) -> int:
    steps = steps_at(train, step)
    begin, end = train.unfreeze_start * steps, (train.unfreeze or 0.0) * steps
    if step >= max(end, 1.0):
        return 0
    return count - int(max(step - begin, 0.0) / (end - begin) * count) if end > begin else count


def is_encoder_frozen(train: ResolvedTrain, layers: int, step: int) -> bool:
    """Whether the whole encoder, of `layers` layers, is frozen at `step` (0 …)."""
    return layers > 0 and frozen_layers(train, layers, step) == layers


def head_alone(train: ResolvedTrain, step: int) -> bool:
    """Whether only the head learns at `step` (0 …)."""
    return all(at < train.head_warmup * steps_at(train, at) for at in (*counted_before(train, step), step))


def rate_factors(
    model: SegmentationModel, head_rate: float, layer_decay: float, encoder_rate: float = 1.0
) -> dict[str, float]:
    """Return the factor on the learning rate of every parameter, by name.

    The factor is `head_rate` for the head, 1 for the decoder, `encoder_rate` × `layer_decay` for the last layer of the
    encoder, `encoder_rate` × `layer_decay` squared for the one before it, and so on: Clark et al. 2020, arXiv:2003.10555.
    """
    layers = model.encoder_stages()
    head = {id(p) for p in model.head.parameters()}
    factors = {}
    for name, parameter in model.named_parameters():
        depth = next((k for k, prefixes in enumerate(layers) if name.startswith(prefixes)), len(layers))
        factor = layer_decay ** (len(layers) - depth) * (encoder_rate if depth < len(layers) else 1.0)
        factors[name] = head_rate if id(parameter) in head else factor
    return factors


class Frozen:
    """Freeze and unfreeze the parameters of a model, and the statistics of its norms, during training.

    Args:
        model: parameters that do not require gradients from the start stay frozen.
        train: with `freeze`, `unfreeze` and `head_warmup`.

    Raises:
        ConfigError: `train.freeze` exceeds the number of layers.
    """

    def __init__(self, model: SegmentationModel, train: ResolvedTrain) -> None:
        self.model = model
        self.train = train
        self.layers = model.encoder_stages()
        self.head = {id(p) for p in model.head.parameters()}
        self.trainable = {name: p for name, p in model.named_parameters() if p.requires_grad}
        self.now: tuple[int, bool] | None = None
        frozen_layers(train, len(self.layers), 0)

    def hold(self, step: int) -> None:
        """Set which parameters learn at `step`; the model must be in training mode."""
        state = (frozen_layers(self.train, len(self.layers), step), head_alone(self.train, step))
        if state == self.now:
            return
        self.now = state
        count, alone = state
        frozen = tuple(prefix for prefixes in self.layers[:count] for prefix in prefixes)
        for name, parameter in self.trainable.items():
            parameter.requires_grad_(not (name.startswith(frozen) or (alone and id(parameter) not in self.head)))
        for name, module in self.model.named_modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                learns = [p.requires_grad for p in module.parameters()] or [not (alone or name.startswith(frozen))]
                module.train(any(learns))

    def release(self) -> None:
        """Unfreeze all parameters, since a later call of `fit` creates an optimizer for all of them."""
        for parameter in self.trainable.values():
            parameter.requires_grad_(True)
