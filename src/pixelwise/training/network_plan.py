"""Choose the network and its initial weights, and derive the values that depend on the network."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from pixelwise.config import Config, Reasons, draft, replace
from pixelwise.errors import ConfigError
from pixelwise.models import packaged
from pixelwise.types import Fingerprint

AUTO = "auto"
CROP = 256
UNET_RATE, OTHER_RATE, FPN_RATE = 1.5e-3, 5e-4, 2e-3
_MIN_CELLS = 4  # per side, at the coarsest scale of the U-Net
_THIN_PIXELS, _FINE_PIXELS = 1.5, 3.0
_SMALL_IMAGE = 96
# At the coarsest scale of the encoder of `fpn`, 1/32, fewer than two cells per side.
_TINY_IMAGE = 64
_PRETRAINED = "pretrained on ImageNet: learns from fewer images and in less time"
_WIDTH = 128
_ENCODER_RATE = 0.1
# With fewer steps of the whole network, a frozen encoder gives better masks: see docs/decisions/0015-pretrained-by-default.md.
_FEW_STEPS = 150
_DECODER_ALONE = 0.1


@dataclass(frozen=True)
class Machine:
    """The hardware that training runs on.

    Args:
        device: "cpu", "cuda", ….
        cores: number of processor cores.
        cache_fits: whether the decoded images fit the memory.
    """

    device: str
    cores: int
    cache_fits: bool


Derivation = Callable[[Config, Fingerprint, Machine], tuple[Any, str]]


def constant(value: Any, reason: str) -> Derivation:
    """Return a rule with a constant result."""
    return lambda config, facts, machine: (value, reason)


def choose_network(
    config: Config, facts: Fingerprint, machine: Machine, available: bool, of_weights: str | None = None
) -> tuple[Config, Reasons]:
    """Set `model.name`, `model.weights` and `model.encoder`, unless they are given.

    Args:
        config: the user's configuration.
        facts: fingerprint of the training split.
        machine: what training runs on.
        available: whether the pretrained weights of the encoder of `fpn` are installed.
        of_weights: name of the network whose weights were given; None if it is unknown.

    Raises:
        ConfigError: a network that does not exist with three dimensions.
    """
    model = config.model
    reasons: Reasons = {}
    if model.name == AUTO:
        chosen, why = _default_network(config, facts, machine, available, of_weights)
        reasons = {"model.name": why} | ({"model.weights": why} if model.weights is None else {})
        config = replace(config, model={"name": chosen[0], "weights": chosen[1]})
    if config.model.dimensions == 3 and config.model.name != "unet":
        raise ConfigError(
            "model.name",
            expected="unet, the only network with three dimensions",
            found=config.model.name,
            do="Use --model unet, or read volumes as slices: --set model.dimensions=2.",
        )
    if config.model.name == "fpn" and config.model.encoder is None:
        config = replace(config, model={"encoder": packaged.DEFAULT})
        reasons["model.encoder"] = "its pretrained weights are installed with pixelwise"
    return config, reasons


def _default_network(
    config: Config, facts: Fingerprint, machine: Machine, available: bool, of_weights: str | None
) -> tuple[tuple[str, str], str]:
    """Return the network and its initial weights, unless these are given, and why."""
    model = config.model
    of_unet = [key for key in ("features", "up", "stem") if getattr(model, key) is not None]
    if of_weights is not None:
        return (of_weights, model.weights or "none"), "the network of the weights"
    if model.dimensions == 3:
        return ("unet", model.weights or "none"), "the network for whole volumes"
    if of_unet:
        return ("unet", model.weights or "none"), f"model.{of_unet[0]} was set"
    if model.weights == "imagenet":
        return ("fpn", "imagenet"), _PRETRAINED
    if model.weights is not None:
        return ("unet", model.weights), "no other network was chosen"
    if machine.device != "cpu":
        return ("unet", "none"), "not measured on this device: trained from scratch"
    if not available:
        return ("unet", "none"), "the weights for fpn are not installed: trained from scratch"
    if min(facts.sizes[1]) < _TINY_IMAGE:
        size = f"{facts.sizes[1][0]}×{facts.sizes[1][1]}"
        return ("unet", "none"), f"images of {size} are too small for a pretrained encoder: trained from scratch"
    return ("fpn", "imagenet"), _PRETRAINED


def _stem(_: Config, facts: Fingerprint, machine: Machine) -> tuple[int, str]:
    if machine.device != "cpu":
        return 1, "full resolution: this device is fast enough"
    thinnest = min((t for t in facts.thickness if t is not None), default=math.inf)
    thickness = f"the thinnest class is about {thinnest:.1f} pixels thick"
    if thinnest < _THIN_PIXELS or min(facts.sizes[1]) < _SMALL_IMAGE:
        return 1, f"full resolution: {thickness} in images of {facts.sizes[1][0]}×{facts.sizes[1][1]}"
    return 2, f"half resolution takes a quarter of the time; {thickness}"


def _features(config: Config, facts: Fingerprint, machine: Machine) -> tuple[list[int], str]:
    """Choose the width by the device, and as many scales as leave `_MIN_CELLS` cells per side at the coarsest one."""
    side = min(*facts.sizes[1], *(config.train.crop or (CROP, CROP)))
    stem = config.model.stem or 1
    features = [64, 128, 256, 512]
    why = "as published"
    if machine.device == "cpu":
        features = [16, 32, 64, 128]
        why = "a quarter of the published width, for about 16 times as many steps in the same time on a CPU"
    scales = max(int(math.log2(max(side / (stem * _MIN_CELLS), 1))), 1)
    if scales < len(features):
        cells = max(side // (stem * 2**scales), 1)
        why += f"; {scales} of 4 scales, since {side} pixels are {cells} cells at the coarsest scale"
    return features[:scales], why


def _fine(_: Config, facts: Fingerprint, __: Machine) -> tuple[bool, str]:
    """Use full resolution if most classes besides the most frequent one are thin, or images are small."""
    frequent = max(range(len(facts.pixel_counts)), key=lambda k: facts.pixel_counts[k])
    others = [t for k, t in enumerate(facts.thickness) if t is not None and k != frequent]
    median = statistics.median(others) if others else math.inf
    fine = median < _FINE_PIXELS or min(facts.sizes[1]) < _SMALL_IMAGE
    thickness = "" if math.isinf(median) else f"classes are typically {median:.1f} pixels thick, in "
    return fine, f"{thickness}images of {facts.sizes[1][0]}×{facts.sizes[1][1]}"


def _norms(config: Config, _: Fingerprint, __: Machine) -> tuple[str, str]:
    if config.model.weights in (None, "none"):
        return "batch", "random initial weights"
    return "folded", "statistics of the pretraining; faster in training and prediction"


def learning_rate(config: Config, _: Fingerprint, __: Machine) -> tuple[float, str]:
    """Choose the learning rate of the decoder by the network and the number of crops per step."""
    train = draft(config).train
    crops = train.batch_size * train.accumulate
    base = {"unet": UNET_RATE, "fpn": FPN_RATE}.get(config.model.name, OTHER_RATE)
    rate = round(base * math.sqrt(min(crops, 64) / 4), 6)
    return rate, f"{base:g} for 4 crops per step, scaled to {crops} with the square root"


def choose_freezing(config: Config, steps: float) -> tuple[Config, Reasons]:
    """Choose how long the encoder is frozen, unless that is set.

    While it is frozen, its features are stored and steps are several times faster, but it does not adapt to the images. Training
    the new decoder first keeps what the encoder has learned: Kumar et al. 2022, arXiv:2202.10054.

    Args:
        config: of a network with or without pretrained weights.
        steps: number of steps of the whole network for which there is time.
    """
    train = config.train
    if train.freeze is not None:
        return config, {}
    if config.model.name != "fpn" or config.model.weights in (None, "none"):
        return replace(config, train={"freeze": "none"}), {"train.freeze": "all layers are trained"}
    values: dict[str, Any] = {"freeze": "encoder"}
    if train.unfreeze is not None:
        why = "train.unfreeze was set"
    elif steps < _FEW_STEPS:
        why = f"there is time for {steps:.0f} steps of the whole network, too few to adapt the pretrained encoder"
    else:
        why = "the new decoder learns alone at first, then all layers"
        start = _DECODER_ALONE if train.unfreeze_start is None else train.unfreeze_start
        values |= {"unfreeze_start": start, "unfreeze": max(start, _DECODER_ALONE)}
    return replace(config, train=values), {f"train.{key}": why for key in values}


def _pretrained_only(value: Any, reason: str, default: Any) -> Derivation:
    """Return a rule whose result differs with random initial weights."""

    def rule(config: Config, _: Fingerprint, __: Machine) -> tuple[Any, str]:
        if config.model.weights in (None, "none"):
            return default, "random initial weights"
        return value, reason

    return rule


# In this order: a rule may depend on values that earlier rules set.
_UNET_RULES: dict[str, Derivation] = {
    "model.stem": _stem,
    "model.features": _features,
    "model.up": constant("transposed", "as published"),
}
_FPN_RULES: dict[str, Derivation] = {
    "model.width": constant(_WIDTH, "light enough for minutes on a CPU"),
    "model.fine": _fine,
    "model.norms": _norms,
    "train.encoder_rate": _pretrained_only(
        _ENCODER_RATE, "pretrained weights need smaller changes than the new decoder", 1.0
    ),
    "train.layer_decay": constant(1.0, "the same rate for all layers of the encoder"),
    "train.head_rate": constant(1.0, "as fast as the decoder"),
}
NETWORK_RULES = {"unet": _UNET_RULES, "fpn": _FPN_RULES}
