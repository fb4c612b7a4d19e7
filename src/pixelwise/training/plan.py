"""Derive from the data what the user did not choose, and say why.

Comes in: a configuration with gaps, the data set's fingerprint, the machine's means. Goes out: the same configuration
without gaps (but for what only a measurement can tell: steps, precision, layout), and a reason per derived value.
`derive` comes before that measurement, `settle` after it.
Knows nothing of tensors or of how training works.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from pixelwise.config import Config, Reasons, replace
from pixelwise.types import Fingerprint

_RARE = 0.02
_HEAVIEST = 20.0
_THIN = 1.5
_SMALL = 96
_UPRIGHT = 0.1
_ONE_SIDED, _CHANCE = 0.9, 0.75
_TAIL = 4.0
_CELLS = 4
_NO_DISGUISE, _FULL_DISGUISE = 3.0, 300.0


@dataclass(frozen=True)
class Machine:
    """Name the means at hand: device ("cpu", "cuda"), processor cores, and whether the decoded images fit memory."""

    device: str
    cores: int
    cache_fits: bool


@dataclass(frozen=True)
class Weights:
    """Name the weights that training begins with.

    Args:
        name: as the user gave it.
        license: their terms.
        mean, std: how their images were normalised, raw pixel values; None where nobody says.
        dtype: numpy name of the pixel type that these are for.
        encoder_only: the decoder has to be learned from the beginning.
        head_new: the layers that make the logits have to be.
        clip: the range per band that values were brought into before; None: they were not.
    """

    name: str
    license: str
    mean: tuple[float, ...] | None
    std: tuple[float, ...] | None
    dtype: str = "uint8"
    encoder_only: bool = False
    head_new: bool = True
    clip: tuple[tuple[float, float], ...] | None = None


Derivation = Callable[[Config, Fingerprint, Machine], tuple[Any, str]]


def derive(
    config: Config, facts: Fingerprint, machine: Machine, weights: Weights | None = None
) -> tuple[Config, Reasons]:
    """Fill every gap that data, machine and pretrained weights decide.

    Args:
        config: as the user gave it; values that are set stay.
        facts: fingerprint of the training part.
        machine: what there is to train on.
        weights: what training begins with; None: fresh ones.
    """
    reasons: Reasons = {}
    if weights is not None:
        config, reasons = _filled(config, _from_weights(facts, weights))
        # Their terms are a fact and no choice; what another run's configuration says holds for its weights.
        config = replace(config, model={"license": weights.license})
        reasons["model.license"] = f"of the weights {weights.name}"
    rules = _UNET_RULES | _RULES if config.model.name == "unet" else _RULES
    if weights is not None and not weights.encoder_only:  # else all that follows the encoder is fresh
        rules = rules | {"train.learning_rate": _tuned_rate}
    for key, rule in rules.items():
        section, name = key.split(".")
        if getattr(getattr(config, section), name) is None:
            value, reason = rule(config, facts, machine)
            config = replace(config, **{section: {name: value}})
            reasons[key] = reason
    if (config.loss.cross_entropy, config.loss.dice) == (0.5, 0.5):  # whoever gives these says the same
        rarest = f"{100 * _rarest(facts):.2g} %"
        reasons["loss.cross_entropy"] = "half: it gives every pixel a gradient"
        reasons["loss.dice"] = f"half: in it every class counts alike, and the rarest has {rarest} of the pixels"
    return config, reasons


def _from_weights(facts: Fingerprint, weights: Weights) -> dict[str, tuple[Any, str]]:
    """Choose what pretrained weights want: their own normalisation, and smaller rates the nearer to the input."""
    why = f"training begins with the weights {weights.name}"
    wanted: dict[str, tuple[Any, str]] = {
        "train.layer_decay": (_LAYER_DECAY, f"{why}: the nearer to the input, the less there is to learn anew"),
    }
    if weights.encoder_only:
        wanted["train.head_warmup"] = (0.0, f"{why}: all that follows the encoder is fresh, not the head alone")
    elif weights.head_new:
        wanted["train.head_warmup"] = (_HEAD_WARMUP, f"{why}: the new head would spoil them at first")
    else:
        wanted["train.head_warmup"] = (0.0, f"{why}: the head knows these classes already")
    if facts.dtype == weights.dtype and weights.mean and weights.std and len(weights.mean) == facts.channels:
        wanted["model.mean"] = (list(weights.mean), f"{why}: these values made them")
        wanted["model.std"] = (list(weights.std), f"{why}: these values made them")
        clip = "none" if weights.clip is None else [list(ends) for ends in weights.clip]
        wanted["model.clip"] = (clip, f"{why}: as their images were")
    return wanted


def _weights(_: Config, __: Fingerprint, ___: Machine) -> tuple[str, str]:
    return "none", "no weights were named: training begins with fresh ones"


def _license(_: Config, __: Fingerprint, ___: Machine) -> tuple[str, str]:
    return "user", "the weights are made here"


def _freeze(_: Config, __: Fingerprint, ___: Machine) -> tuple[str, str]:
    return "none", "every layer learns; slower rates towards the input keep what is known"


def _layer_decay(_: Config, __: Fingerprint, ___: Machine) -> tuple[float, str]:
    return 1.0, "fresh weights: all layers learn alike"


def _head_warmup(_: Config, __: Fingerprint, ___: Machine) -> tuple[float, str]:
    return 0.0, "fresh weights: all learn from the first step on"


def _device(_: Config, __: Fingerprint, machine: Machine) -> tuple[str, str]:
    bits = "; two runs of one seed may differ in their last bits on it" if machine.device == "cuda" else ""
    return machine.device, f"the fastest device here{bits}"


def _clip(config: Config, facts: Fingerprint, _: Machine) -> tuple[str | list[list[float]], str]:
    """Bring values into the range of nearly all of them where some lie far beyond: nnU-Net's rule for CT, by measure."""
    if config.model.mean is not None or config.model.std is not None:
        return "none", "how values are normalised was given"
    if not facts.core:
        return "none", f"{facts.dtype}: no value lies far beyond the others"
    tail = max(
        max(low - least, most - high) / max(std, 1e-12)
        for (low, high), (least, most), std in zip(facts.core, facts.extremes, facts.core_std, strict=True)
    )
    told = f"the farthest value lies {tail:.1f} standard deviations beyond the range of 99 % of the pixels and 90 % of every class's"
    if tail < _TAIL:
        return "none", told
    rounded = [[_rounded(end, std) for end in ends] for ends, std in zip(facts.core, facts.core_std, strict=True)]
    return [[low, high if low < high else low + 1] for low, high in rounded], f"{told}: values are brought into it"


def _mean(config: Config, facts: Fingerprint, _: Machine) -> tuple[list[float], str]:
    mean, std, of = _moments(config, facts)
    return [_rounded(m, s) for m, s in zip(mean, std, strict=True)], f"mean of {facts.images} training images{of}"


def _std(config: Config, facts: Fingerprint, _: Machine) -> tuple[list[float], str]:
    mean, std, of = _moments(config, facts)
    # A band that is constant, or nearly so within float32, is not blown up.
    some = [s if s > 1e-6 * abs(m) else 1.0 for m, s in zip(mean, std, strict=True)]
    return [_rounded(s, s) for s in some], f"standard deviation of {facts.images} training images{of}"


def _moments(config: Config, facts: Fingerprint) -> tuple[tuple[float, ...], tuple[float, ...], str]:
    if isinstance(config.model.clip, list) and facts.core:
        return facts.core_mean, facts.core_std, ", clipped"
    return facts.mean, facts.std, ""


def _rounded(value: float, std: float) -> float:
    """Leave out digits that are less than a thousandth of a deviation, and of a pixel value."""
    return round(value, 3 + max(math.ceil(-math.log10(std)), 0)) if std > 0 else round(value, 6)


def _stem(_: Config, facts: Fingerprint, machine: Machine) -> tuple[int, str]:
    thin = [t for t in facts.thickness if t is not None]
    thinnest = min(thin, default=math.inf)
    if machine.device != "cpu":
        return 1, "full resolution: this device is fast enough"
    thick = f"the thinnest class is about {thinnest:.1f} pixels thick"
    if thinnest < _THIN or min(facts.sizes[1]) < _SMALL:
        return 1, f"full resolution: {thick} in {facts.sizes[1]} images"
    return 2, f"half resolution takes a quarter of the time, and {thick}"


def _features(config: Config, facts: Fingerprint, machine: Machine) -> tuple[list[int], str]:
    """Choose the width by the machine, and no more scales than leave the coarsest one something to look at."""
    side, stem = min(*facts.sizes[1], *(config.train.crop or (_CROP, _CROP))), config.model.stem or 1
    features, why = [64, 128, 256, 512], "the published size"
    if machine.device == "cpu":
        features = [16, 32, 64, 128]
        why = "a quarter of the published width: a processor makes about 16 times as many steps with it"
    scales = max(int(math.log2(max(side / (stem * _CELLS), 1))), 1)
    if scales < len(features):
        why += f"; {scales} of 4 scales: of {side} pixels the coarsest sees {max(side // (stem * 2**scales), 1)} cells"
    return features[:scales], why


def _up(_: Config, __: Fingerprint, ___: Machine) -> tuple[str, str]:
    return "transposed", "as published"


def _stride(config: Config) -> int:
    return (config.model.stem or 1) * 2 ** len(config.model.features or ()) if config.model.name == "unet" else 32


def _crop(config: Config, facts: Fingerprint, _: Machine) -> tuple[tuple[int, int], str]:
    stride, median = _stride(config), facts.sizes[1]
    crop = [max(min(side, _CROP) // stride, 1) * stride for side in median]
    why = f"multiple of the stride {stride}, within the median image {median[0]}×{median[1]} and {_CROP}²"
    largest = max((sizes[1] for sizes in facts.object_sizes if sizes), default=0.0)
    if largest > crop[0] * crop[1]:
        why += f"; half of the regions of a class have {largest:.0f} pixels or more: no crop shows these whole"
    return (crop[0], crop[1]), why


def _batch_size(config: Config, facts: Fingerprint, machine: Machine) -> tuple[int, str]:
    height, width = config.train.crop or (_CROP, _CROP)
    wanted = 4 if machine.device == "cpu" else 16
    fitting = max(2, min(wanted * 2, round(wanted * _CROP**2 / (height * width)), max(facts.images, 2)))
    return fitting, f"about {wanted} crops of {_CROP}² a step"


def _class_crops(_: Config, facts: Fingerprint, __: Machine) -> tuple[float, str]:
    why = "a third of the crops look for a class that is not the commonest of its image"
    shown = min(count for count in facts.image_counts if count)
    return (
        0.33,
        f"{why}; the rarest class is in {100 * _rarest(facts):.2g} % of the pixels, one in {shown} of {facts.images} images",
    )


def _class_weights(_: Config, facts: Fingerprint, __: Machine) -> tuple[str | list[float], str]:
    """Weigh rare classes by the root of their rarity: in full, they are seen everywhere; not at all, nowhere."""
    rare, total = _rarest(facts), sum(facts.pixel_counts)
    if rare >= _RARE:
        return "none", f"every class has at least {100 * _RARE:.0f} % of the pixels"
    shares = [count / total for count in facts.pixel_counts]
    raw = [min(share**-0.5, _HEAVIEST * max(shares) ** -0.5) if share else 1.0 for share in shares]
    mean = sum(w * share for w, share in zip(raw, shares, strict=True))
    reason = f"1 / square root of the share of pixels, since the rarest class has {100 * rare:.2g} %"
    return [round(w / mean, 3) if share else 1.0 for w, share in zip(raw, shares, strict=True)], reason


def _rarest(facts: Fingerprint) -> float:
    total = sum(facts.pixel_counts)
    return min(count / total for count in facts.pixel_counts if count)


def _learning_rate(config: Config, _: Fingerprint, __: Machine) -> tuple[float, str]:
    batch = (config.train.batch_size or 8) * config.train.accumulate
    base = 1.5e-3 if config.model.name == "unet" else _FRESH_RATE
    rate = round(base * math.sqrt(min(batch, 64) / 4), 6)
    return rate, f"{base:g} for 4 crops a step, by the square root for {batch}"


def _tuned_rate(config: Config, facts: Fingerprint, machine: Machine) -> tuple[float, str]:
    rate, why = _learning_rate(config, facts, machine)
    return round(_TUNED * rate, 6), f"pretrained weights: {_TUNED:g} of the rate for fresh ones ({why})"


def head_rate(inputs: int, weights: Weights | None = None) -> tuple[float, str]:
    """Choose how much faster the layer that makes the logits learns.

    Adam moves every weight by at most the learning rate, so the logits of a layer with 16 inputs move 32 times slower
    than those of one with 512, and hold the whole network up: 512 / inputs makes them move alike.

    Args:
        inputs: values that one logit is summed from.
        weights: what training begins with.
    """
    rate = round(max(512 / inputs, 1.0), 2)
    if weights is not None and not weights.encoder_only:
        if not weights.head_new:
            return 1.0, "the head knows these classes already"
        return max(10.0, round(rate / _TUNED, 2)), "the head is new, the rest is not: it learns as fast as a fresh one"
    return rate, f"each logit is a sum of {inputs} values: it moves as if they were 512"


def _workers(_: Config, __: Fingerprint, machine: Machine) -> tuple[int, str]:
    if machine.device == "cpu":
        return 0, "batches are drawn between steps: the processor is busy with the steps anyway"
    return max(min(machine.cores - 2, 12), 1), f"{machine.cores} cores"


def _cache(_: Config, facts: Fingerprint, machine: Machine) -> tuple[bool, str]:
    return machine.cache_fits, "decoded images " + (
        "fit" if machine.cache_fits else "do not fit"
    ) + " a quarter of the memory"


def _tile(config: Config, facts: Fingerprint, machine: Machine) -> tuple[tuple[int, int], str]:
    stride = _stride(config)
    largest = 768 if machine.device == "cpu" else 1024
    tile = [min(-(-side // stride) * stride, largest) for side in facts.sizes[2]]
    return (tile[0], tile[1]), f"the largest image, at most {largest}²"


_CROP = 256
_FRESH_RATE, _TUNED = 5e-4, 0.4
_LAYER_DECAY, _HEAD_WARMUP = 0.9, 0.05
_UNET_RULES: dict[str, Derivation] = {
    "train.device": _device,
    "model.stem": _stem,
    "model.features": _features,
    "model.up": _up,
}
_RULES: dict[str, Derivation] = {
    "train.device": _device,
    "model.weights": _weights,
    "model.license": _license,
    "model.clip": _clip,
    "model.mean": _mean,
    "model.std": _std,
    "train.freeze": _freeze,
    "train.layer_decay": _layer_decay,
    "train.head_warmup": _head_warmup,
    "train.crop": _crop,
    "train.batch_size": _batch_size,
    "train.class_crops": _class_crops,
    "loss.class_weights": _class_weights,
    "train.learning_rate": _learning_rate,
    "train.workers": _workers,
    "train.cache": _cache,
    "predict.tile": _tile,
}


def settle(config: Config, facts: Fingerprint, apart: int) -> tuple[Config, Reasons]:
    """Fill what depends on how often each image will be seen: augmentation, and the averaging of weights.

    Images seen once or twice need no disguise, and learning from disguised ones takes longer; images seen hundreds of
    times are learned by heart without. In between the ranges widen with the logarithm of the passes.

    Args:
        config: with `train.steps`.
        facts: fingerprint of the training part.
        apart: images in it; those of one group show the same thing and count as one.
    """
    train = config.train
    crop, median = train.crop or (1, 1), facts.sizes[1]
    drawn = (train.steps or 1) * train.accumulate * (train.batch_size or 1) * crop[0] * crop[1]
    passes = drawn / (apart * median[0] * median[1])
    strength = min(max(math.log(max(passes, 1e-9) / _NO_DISGUISE) / math.log(_FULL_DISGUISE / _NO_DISGUISE), 0.0), 1.0)
    upright = facts.row_spread >= _UPRIGHT
    up = f"classes {'' if upright else 'hardly '}depend on the row ({facts.row_spread:.2f}): there is {'an' if upright else 'no'} up"
    sided = _one_sided(facts)
    times = f"{passes:,.0f}" if passes >= 10 else f"{passes:.2g}"  # else 120 would be told as 1.2e+02
    seen = f"each of {apart} different images is seen about {times} times: {100 * strength:.0f} % of the full range"
    wanted: dict[str, tuple[Any, str]] = {
        "augment.flip_horizontal": (0.0 if sided else 0.5, sided or "mirrored images are as likely"),
        "augment.flip_vertical": (0.0 if upright else 0.5, up),
        "augment.rotate": (
            round((5.0 if upright or sided else 45.0) * strength, 1),
            f"{up}{sided and '; ' + sided}; {seen}",
        ),
        "augment.scale": ((round(0.7**strength, 3), round(1.5**strength, 3)), seen),
        "augment.brightness": (round(0.2 * strength, 3), seen),
        "augment.contrast": (round(0.25 * strength, 3), seen),
        "augment.noise": (round(0.05 * strength, 3), seen),
        "train.ema": _averaging(train.steps or 1),
    }
    return _filled(config, wanted)


def _one_sided(facts: Fingerprint) -> str:
    """Say which classes left and right decide on, as those of a body; "" where none.

    Only where chance would not do it: of a class in three images all may be on one side.
    """
    pairs = zip(facts.one_sided, facts.one_sided_by_chance, strict=True)
    found = [k for k, (own, chance) in enumerate(pairs) if (own or 0) >= _ONE_SIDED and (chance or 0) <= _CHANCE]
    if not found:
        return ""
    which = ", ".join(map(str, found[:5])) + (", …" if len(found) > 5 else "")
    return f"class{'es' * (len(found) > 1)} {which} {'are' if len(found) > 1 else 'is'} always on the same side: left and right are not alike"


def _filled(config: Config, wanted: Mapping[str, tuple[Any, str]]) -> tuple[Config, Reasons]:
    reasons: Reasons = {}
    for key, (value, reason) in wanted.items():
        section, name = key.split(".")
        if getattr(getattr(config, section), name) is None:
            config, reasons[key] = replace(config, **{section: {name: value}}), reason
    return config, reasons


def _averaging(steps: int) -> tuple[float, str]:
    """Choose the decay of the averaged weights: about the last tenth of the run counts."""
    return round(min(max(1 - 10 / steps, 0.8), 0.9995), 5), f"about a tenth of the {steps} steps counts"
