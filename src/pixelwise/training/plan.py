"""Derive from the data what the user did not choose, and say why.

Comes in: a configuration with gaps, the data set's fingerprint, the machine's means. Goes out: the same configuration
without gaps (but for what only a measurement can tell: steps, precision, layout), and a reason per derived value.
Knows nothing of tensors or of how training works.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from pixelwise.config import Config, Reasons, replace
from pixelwise.types import Fingerprint

_RARE = 0.02
_THIN = 6.0
_UPRIGHT = 0.1


@dataclass(frozen=True)
class Machine:
    """Name the means at hand: device ("cpu", "cuda"), processor cores, and whether the decoded pictures fit memory."""

    device: str
    cores: int
    cache_fits: bool


Derivation = Callable[[Config, Fingerprint, Machine], tuple[Any, str]]


def derive(config: Config, facts: Fingerprint, machine: Machine) -> tuple[Config, Reasons]:
    """Fill every gap that data and machine decide.

    Args:
        config: as the user gave it; values that are set stay.
        facts: fingerprint of the training part.
        machine: what there is to train on.
    """
    reasons: Reasons = {}
    for key, rule in _RULES.items():
        section, name = key.split(".")
        if getattr(getattr(config, section), name) is None:
            value, reason = rule(config, facts, machine)
            config = replace(config, **{section: {name: value}})
            reasons[key] = reason
    return config, reasons


def _device(_: Config, __: Fingerprint, machine: Machine) -> tuple[str, str]:
    return machine.device, "the fastest device here"


def _mean(_: Config, facts: Fingerprint, __: Machine) -> tuple[list[float], str]:
    return [round(m, 3) for m in facts.mean], f"mean of {facts.images} training pictures"


def _std(_: Config, facts: Fingerprint, __: Machine) -> tuple[list[float], str]:
    return [max(round(s, 3), 1e-3) for s in facts.std], f"standard deviation of {facts.images} training pictures"


def _stem(_: Config, facts: Fingerprint, machine: Machine) -> tuple[int, str]:
    thin = [t for t in facts.thickness if t is not None]
    thinnest = min(thin, default=math.inf)
    if machine.device != "cpu":
        return 1, "full resolution: this device is fast enough"
    if thinnest < _THIN / 2:
        return 1, f"full resolution: the thinnest class is about {thinnest:.1f} pixels thick"
    return 2, f"half resolution costs a quarter, and the thinnest class is about {thinnest:.1f} pixels thick"


def _features(config: Config, _: Fingerprint, machine: Machine) -> tuple[list[int], str]:
    if machine.device != "cpu":
        return [64, 128, 256, 512], "the published size"
    if config.model.stem == 1:
        return [16, 32, 64, 128], "a quarter of the published width: a processor makes 16 times as many steps with it"
    return [32, 64, 128], "half the published width and one scale less, since the first works on patches"


def _up(_: Config, __: Fingerprint, ___: Machine) -> tuple[str, str]:
    return "transposed", "as published"


def _crop(config: Config, facts: Fingerprint, _: Machine) -> tuple[tuple[int, int], str]:
    stride = (config.model.stem or 1) * 2 ** len(config.model.features or ())
    median = facts.sizes[1]
    crop = [max(min(side, _CROP) // stride, 1) * stride for side in median]
    return (
        crop[0],
        crop[1],
    ), f"multiple of the stride {stride}, within the median picture {median[0]}×{median[1]} and {_CROP}²"


def _batch_size(config: Config, facts: Fingerprint, machine: Machine) -> tuple[int, str]:
    height, width = config.train.crop or (_CROP, _CROP)
    wanted = 8 if machine.device == "cpu" else 16
    fitting = max(2, min(wanted * 2, round(wanted * _CROP**2 / (height * width)), max(facts.images, 2)))
    return fitting, f"about {wanted} crops of {_CROP}² a step"


def _class_crops(_: Config, facts: Fingerprint, __: Machine) -> tuple[float, str]:
    rare = _rarest(facts)
    if rare < _RARE:
        return 0.5, f"the rarest class has {100 * rare:.2g} % of the pixels: half of the crops look for a class"
    return 0.25, "a quarter of the crops look for a class"


def _class_weights(_: Config, facts: Fingerprint, __: Machine) -> tuple[str, str]:
    rare = _rarest(facts)
    if rare < _RARE:
        return "median", f"the rarest class has {100 * rare:.2g} % of the pixels"
    return "none", f"every class has at least {100 * _RARE:.0f} % of the pixels"


def _rarest(facts: Fingerprint) -> float:
    total = sum(facts.pixel_counts)
    return min(count / total for count in facts.pixel_counts if count)


def _learning_rate(config: Config, _: Fingerprint, __: Machine) -> tuple[float, str]:
    batch = (config.train.batch_size or 8) * config.train.accumulate
    return round(3e-3 * math.sqrt(min(batch, 64) / 8), 6), f"0.003 for 8 crops a step, by the square root for {batch}"


def _workers(_: Config, __: Fingerprint, machine: Machine) -> tuple[int, str]:
    if machine.device == "cpu":
        return 0, "batches are drawn between steps: the processor is busy with the steps anyway"
    return max(min(machine.cores - 2, 12), 1), f"{machine.cores} cores"


def _cache(_: Config, facts: Fingerprint, machine: Machine) -> tuple[bool, str]:
    return machine.cache_fits, "decoded pictures " + (
        "fit" if machine.cache_fits else "do not fit"
    ) + " a quarter of the memory"


def _flip_horizontal(_: Config, __: Fingerprint, ___: Machine) -> tuple[float, str]:
    return 0.5, "mirrored pictures are as likely"


def _flip_vertical(_: Config, facts: Fingerprint, __: Machine) -> tuple[float, str]:
    if facts.row_spread < _UPRIGHT:
        return 0.5, f"classes hardly depend on the row ({facts.row_spread:.2f}): there is no up"
    return 0.0, f"classes depend on the row ({facts.row_spread:.2f}): there is an up"


def _rotate(_: Config, facts: Fingerprint, __: Machine) -> tuple[float, str]:
    if facts.row_spread < _UPRIGHT:
        return 45.0, "there is no up: with the flips every direction occurs"
    return 5.0, "there is an up: pictures are tilted a little only"


def _scale(_: Config, __: Fingerprint, ___: Machine) -> tuple[tuple[float, float], str]:
    return (0.7, 1.5), "things come nearer and farther"


def _brightness(_: Config, __: Fingerprint, ___: Machine) -> tuple[float, str]:
    return 0.3, "light changes"


def _contrast(_: Config, __: Fingerprint, ___: Machine) -> tuple[float, str]:
    return 0.3, "light changes"


def _noise(_: Config, __: Fingerprint, ___: Machine) -> tuple[float, str]:
    return 0.05, "sensors differ"


def _tile(config: Config, facts: Fingerprint, machine: Machine) -> tuple[tuple[int, int], str]:
    stride = (config.model.stem or 1) * 2 ** len(config.model.features or ())
    largest = 768 if machine.device == "cpu" else 1024
    tile = [min(-(-side // stride) * stride, largest) for side in facts.sizes[2]]
    return (tile[0], tile[1]), f"the largest picture, at most {largest}²"


_CROP = 256
_RULES: dict[str, Derivation] = {
    "train.device": _device,
    "model.mean": _mean,
    "model.std": _std,
    "model.stem": _stem,
    "model.features": _features,
    "model.up": _up,
    "train.crop": _crop,
    "train.batch_size": _batch_size,
    "train.class_crops": _class_crops,
    "loss.class_weights": _class_weights,
    "train.learning_rate": _learning_rate,
    "train.workers": _workers,
    "train.cache": _cache,
    "augment.flip_horizontal": _flip_horizontal,
    "augment.flip_vertical": _flip_vertical,
    "augment.rotate": _rotate,
    "augment.scale": _scale,
    "augment.brightness": _brightness,
    "augment.contrast": _contrast,
    "augment.noise": _noise,
    "predict.tile": _tile,
}
