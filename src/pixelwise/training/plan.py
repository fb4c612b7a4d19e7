"""Derive the values that the user did not set from the data set, the machine and the initial weights, with reasons.

`derive` sets what is known before any measurement of the training speed; `settle` sets what depends on the number of steps.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pixelwise.config import Config, Reasons, draft, replace
from pixelwise.models.sources import IMAGENET
from pixelwise.training.network_plan import CROP, NETWORK_RULES, Derivation, Machine, constant, learning_rate
from pixelwise.training.volume_plan import VOLUME_NETWORK_RULES, VOLUME_RULES
from pixelwise.types import Fingerprint

_TAIL_DEVIATIONS = 4.0
_RARE_SHARE = 0.02
_MAX_WEIGHT_RATIO = 20.0
_PRETRAINED_FACTOR = 0.4
_LAYER_DECAY, _HEAD_WARMUP = 0.9, 0.05
_UPRIGHT_SPREAD = 0.1
_ONE_SIDED, _BY_CHANCE = 0.9, 0.75
_FEW_PASSES, _MANY_PASSES = 3.0, 300.0
_TURNED, _BENT = 30.0, 2.0
_OWN_SCALE = "each image is brought to mean 0 and standard deviation 1"


@dataclass(frozen=True)
class InitialWeights:
    """The pretrained weights that training starts from.

    Args:
        name: as given by the user.
        license: licence of the weights.
        mean, std: normalisation of their training images, raw pixel values; None if unknown.
        dtype: numpy dtype name that `mean` and `std` refer to.
        encoder_only: whether the weights are those of an encoder, without a decoder.
        head_new: whether the layers that compute the logits are new.
        clip: per band, the range to which values were clipped; None: not clipped.
        origin: who trained them on what, or where they are published; "" if unknown.
    """

    name: str
    license: str
    mean: tuple[float, ...] | None
    std: tuple[float, ...] | None
    dtype: str = "uint8"
    encoder_only: bool = False
    head_new: bool = True
    clip: tuple[tuple[float, float], ...] | None = None
    origin: str = ""


def derive(
    config: Config, facts: Fingerprint, machine: Machine, weights: InitialWeights | None = None
) -> tuple[Config, Reasons]:
    """Set the unset values that follow from data, machine and initial weights.

    Args:
        config: the user's configuration; values that are set are kept.
        facts: fingerprint of the training split.
        machine: what training runs on.
        weights: initial weights; None: random.
    """
    whole = config.model.dimensions == 3
    network_rules = VOLUME_NETWORK_RULES if whole else NETWORK_RULES.get(config.model.name, {})
    config, reasons = _apply(network_rules, config, facts, machine)
    if weights is not None:
        config, found = _with_defaults(config, _from_weights(facts, weights))
        reasons |= found
        # Not choices: licence and origin in a reused configuration belong to other weights.
        config = replace(config, model={"license": weights.license, "weights_origin": weights.origin or None})
        reasons["model.license"] = f"licence of the weights {weights.name}"
    rules = _RULES | VOLUME_RULES if whole else _RULES
    if weights is not None and not weights.encoder_only:  # otherwise the whole decoder is new
        rules = rules | {"train.learning_rate": _pretrained_learning_rate}
    config, derived = _apply(rules, config, facts, machine)
    reasons |= derived
    if weights is not None and weights.encoder_only and {"model.mean", "model.std"} <= derived.keys():
        config, adapted = _like_photographs(config, weights, reasons)
        reasons |= adapted
    if (config.loss.cross_entropy, config.loss.dice) == (0.5, 0.5):
        rarest = f"{100 * _rarest(facts):.2g} %"
        reasons["loss.cross_entropy"] = "half of the loss: has a gradient at every pixel"
        reasons["loss.dice"] = (
            f"half of the loss: gives all classes equal weight; the rarest has {rarest} of the pixels"
        )
    return config, reasons


def _apply(
    rules: Mapping[str, Derivation], config: Config, facts: Fingerprint, machine: Machine
) -> tuple[Config, Reasons]:
    """Set the values that are unset, one rule after the other."""
    reasons: Reasons = {}
    for key, rule in rules.items():
        if _is_unset(config, key):
            config, reason = _with_defaults(config, {key: rule(config, facts, machine)})
            reasons |= reason
    return config, reasons


def _is_unset(config: Config, key: str) -> bool:
    section, name = key.split(".")
    return getattr(getattr(config, section), name) is None


def _with_defaults(config: Config, values: Mapping[str, tuple[Any, str]]) -> tuple[Config, Reasons]:
    """Set those of `values` (dotted key → value, reason) that are unset."""
    reasons: Reasons = {}
    for key, (value, reason) in values.items():
        if _is_unset(config, key):
            section, name = key.split(".")
            config = replace(config, **{section: {name: value}})
            reasons[key] = reason
    return config, reasons


def _from_weights(facts: Fingerprint, weights: InitialWeights) -> dict[str, tuple[Any, str]]:
    """Return the normalisation of pretrained weights, and lower learning rates for layers near the input."""
    why = f"pretrained weights {weights.name}"
    values: dict[str, tuple[Any, str]] = {
        "train.layer_decay": (_LAYER_DECAY, f"{why}: layers near the input need the least change")
    }
    if weights.encoder_only:
        values["train.head_warmup"] = (0.0, f"{why}: the whole decoder is new, not only the head")
    elif weights.head_new:
        reason = f"{why}: the gradients of an untrained head would distort them"
        values["train.head_warmup"] = (_HEAD_WARMUP, reason)
    else:
        values["train.head_warmup"] = (0.0, f"{why}: the head was trained on these classes")
    return values | _normalisation(facts, weights)


def _normalisation(facts: Fingerprint, weights: InitialWeights) -> dict[str, tuple[Any, str]]:
    """Return the normalisation that the weights were trained with, if it fits the pixel type and the bands.

    A grey image is treated as one whose bands are equal (see `models.base.adapt_bands`).
    """
    if facts.dtype != weights.dtype or not weights.mean or not weights.std:
        return {}
    mean, std, clip = weights.mean, weights.std, weights.clip
    if facts.channels == 1 and len({*mean}) == len({*std}) == len({*(clip or ())} or {0}) == 1:
        mean, std, clip = mean[:1], std[:1], clip[:1] if clip else None
    if len(mean) != facts.channels:
        return {}
    why = f"pretrained weights {weights.name}: the normalisation they were trained with"
    ranges = "none" if clip is None else [list(ends) for ends in clip]
    return {"model.mean": (list(mean), why), "model.std": (list(std), why), "model.clip": (ranges, why)}


def _like_photographs(config: Config, weights: InitialWeights, reasons: Reasons) -> tuple[Config, Reasons]:
    """Normalise other images to the mean and contrast that the photographs of ImageNet have for the encoder.

    Some encoders were trained with a normalisation that does not give their images a standard deviation of 1.
    """
    if not weights.mean or not weights.std or config.model.mean is None or config.model.std is None:
        return config, {}
    mean, std = (statistics.fmean(values) for values in IMAGENET)
    contrast = std / statistics.fmean(weights.std)
    offset = (mean - statistics.fmean(weights.mean)) / std
    pairs = list(zip(config.model.mean, config.model.std, strict=True))
    values = {
        "mean": [_rounded(m - offset * s, s) for m, s in pairs],
        "std": [_rounded(s / contrast, s) for _, s in pairs],
    }
    why = f"; mean and contrast like those of photographs for the weights {weights.name}"
    return replace(config, model=values), {f"model.{key}": reasons[f"model.{key}"] + why for key in values}


def _device(_: Config, __: Fingerprint, machine: Machine) -> tuple[str, str]:
    bits = "; two runs with the same seed may differ in the last bits" if machine.device == "cuda" else ""
    return machine.device, f"the fastest device of this machine{bits}"


def _clip(config: Config, facts: Fingerprint, _: Machine) -> tuple[str | list[list[float]], str]:
    """Clip values to the range of nearly all pixels if outliers are far outside, as nnU-Net does for CT."""
    if config.model.intensity == "image":
        return "none", _OWN_SCALE
    if config.model.mean is not None or config.model.std is not None:
        return "none", "model.mean or model.std was set"
    if not facts.core:
        return "none", f"{facts.dtype} values have no outliers"
    tail = max(
        max(low - least, most - high) / max(std, 1e-12)
        for (low, high), (least, most), std in zip(facts.core, facts.extremes, facts.core_std, strict=True)
    )
    reason = (
        f"the largest outlier is {tail:.1f} standard deviations outside the range of 99 % of all pixels and 90 % of "
        "each class"
    )
    if tail < _TAIL_DEVIATIONS:
        return "none", reason
    rounded = [[_rounded(end, std) for end in ends] for ends, std in zip(facts.core, facts.core_std, strict=True)]
    return [[low, high if low < high else low + 1] for low, high in rounded], f"{reason}: values are clipped to it"


def _mean(config: Config, facts: Fingerprint, _: Machine) -> tuple[list[float], str]:
    if config.model.intensity == "image":
        return [0.0] * facts.channels, _OWN_SCALE
    mean, std, clipped = _moments(config, facts)
    return [_rounded(m, s) for m, s in zip(mean, std, strict=True)], f"mean of {facts.images} training images{clipped}"


def _std(config: Config, facts: Fingerprint, _: Machine) -> tuple[list[float], str]:
    if config.model.intensity == "image":
        return [1.0] * facts.channels, _OWN_SCALE
    mean, std, clipped = _moments(config, facts)
    # A band that is constant within the precision of float32 is not amplified.
    positive = [s if s > 1e-6 * abs(m) else 1.0 for m, s in zip(mean, std, strict=True)]
    return [_rounded(s, s) for s in positive], f"standard deviation of {facts.images} training images{clipped}"


def _moments(config: Config, facts: Fingerprint) -> tuple[tuple[float, ...], tuple[float, ...], str]:
    if isinstance(config.model.clip, list) and facts.core:
        return facts.core_mean, facts.core_std, ", clipped"
    return facts.mean, facts.std, ""


def _rounded(value: float, std: float) -> float:
    """Round to a thousandth of a standard deviation, or of a pixel value if that is finer."""
    return round(value, 3 + max(math.ceil(-math.log10(std)), 0)) if std > 0 else round(value, 6)


def _crop_limit(config: Config) -> tuple[int, ...]:
    return config.train.crop or (CROP, CROP)


def _stride(config: Config) -> int:
    model = config.model
    if model.name != "unet" or model.stem is None or model.features is None:
        return 32
    return int(model.stem * 2 ** len(model.features))


def _crop(config: Config, facts: Fingerprint, _: Machine) -> tuple[tuple[int, int], str]:
    stride, median = _stride(config), facts.sizes[1]
    height, width = (max(min(side, CROP) // stride, 1) * stride for side in median)
    why = f"multiple of the stride {stride} within the median image {median[0]}×{median[1]} and {CROP}²"
    largest = max((sizes[1] for sizes in facts.object_sizes if sizes), default=0.0)
    if largest > height * width:
        why += f"; half of the regions of one class are larger than a crop ({largest:.0f} pixels or more)"
    return (height, width), why


def _batch_size(config: Config, facts: Fingerprint, machine: Machine) -> tuple[int, str]:
    height, width = _crop_limit(config)[-2:]
    target = 4 if machine.device == "cpu" else 16
    size = max(2, min(target * 2, round(target * CROP**2 / (height * width)), max(facts.images, 2)))
    return size, f"as many pixels per step as about {target} crops of {CROP}²"


def _class_crops(_: Config, facts: Fingerprint, __: Machine) -> tuple[float, str]:
    fewest = min(count for count in facts.image_counts if count)
    return 0.33, (
        "a third of the crops are centred on a class other than the most frequent one of the image; the rarest class "
        f"has {100 * _rarest(facts):.2g} % of the pixels, and one class occurs in only {fewest} of {facts.images} images"
    )


def _class_weights(_: Config, facts: Fingerprint, __: Machine) -> tuple[str | list[float], str]:
    """Weight rare classes by the inverse square root of their share: the full inverse leads to false positives."""
    rarest, total = _rarest(facts), sum(facts.pixel_counts)
    if rarest >= _RARE_SHARE:
        return "none", f"every class has at least {100 * _RARE_SHARE:.0f} % of the pixels"
    shares = [count / total for count in facts.pixel_counts]
    raw = [min(share**-0.5, _MAX_WEIGHT_RATIO * max(shares) ** -0.5) if share else 1.0 for share in shares]
    mean = sum(w * share for w, share in zip(raw, shares, strict=True))
    reason = f"1 / square root of the share of pixels; the rarest class has {100 * rarest:.2g} %"
    return [round(w / mean, 3) if share else 1.0 for w, share in zip(raw, shares, strict=True)], reason


def _rarest(facts: Fingerprint) -> float:
    total = sum(facts.pixel_counts)
    return min(count / total for count in facts.pixel_counts if count)


def _pretrained_learning_rate(config: Config, facts: Fingerprint, machine: Machine) -> tuple[float, str]:
    rate, why = learning_rate(config, facts, machine)
    return (
        round(_PRETRAINED_FACTOR * rate, 6),
        f"pretrained weights: {_PRETRAINED_FACTOR:g} times the rate for random weights ({why})",
    )


def head_rate(inputs: int, weights: InitialWeights | None = None) -> tuple[float, str]:
    """Choose the factor on the learning rate of the layer that computes the logits.

    Adam changes every weight by at most the learning rate, so the logits of a layer with 16 inputs change 32 times more
    slowly than those of a layer with 512 inputs. A factor of 512 / inputs compensates, where `inputs` is the fan-in.
    """
    rate = round(max(512 / inputs, 1.0), 2)
    if weights is not None and not weights.encoder_only:
        if not weights.head_new:
            return 1.0, "the head was trained on these classes"
        factor = max(10.0, round(rate / _PRETRAINED_FACTOR, 2))
        return factor, "the head is new, the other layers are pretrained: as fast as in a new network"
    return rate, f"each logit is a sum of {inputs} values: makes it change as fast as a sum of 512"


def _workers(_: Config, __: Fingerprint, machine: Machine) -> tuple[int, str]:
    if machine.device == "cpu":
        return 0, "batches are loaded between the steps, which use all cores"
    return max(min(machine.cores - 2, 12), 1), f"{machine.cores} cores"


def _cache(_: Config, __: Fingerprint, machine: Machine) -> tuple[bool, str]:
    fits = "fit" if machine.cache_fits else "do not fit"
    return machine.cache_fits, f"the decoded images {fits} into a quarter of the free memory"


def _tile(config: Config, facts: Fingerprint, machine: Machine) -> tuple[tuple[int, int], str]:
    stride = _stride(config)
    largest = 768 if machine.device == "cpu" else 1024
    height, width = (min(-(-side // stride) * stride, largest) for side in facts.sizes[2])
    return (height, width), f"the size of the largest image, at most {largest}²"


# In this order: a rule may depend on values that earlier rules set.
_RULES: dict[str, Derivation] = {
    "train.device": _device,
    "model.weights": constant("none", "no pretrained weights were chosen"),
    "model.license": constant("user", "trained from scratch"),
    "model.clip": _clip,
    "model.mean": _mean,
    "model.std": _std,
    "train.layer_decay": constant(1.0, "random initial weights: the same rate for all layers"),
    "train.head_warmup": constant(0.0, "random initial weights: all layers learn from the first step"),
    "train.crop": _crop,
    "train.batch_size": _batch_size,
    "train.class_crops": _class_crops,
    "loss.class_weights": _class_weights,
    "train.learning_rate": learning_rate,
    "train.workers": _workers,
    "train.cache": _cache,
    "predict.tile": _tile,
}


def settle(config: Config, facts: Fingerprint, distinct: int) -> tuple[Config, Reasons]:
    """Set what depends on how often each image is used: augmentation, and the decay of the averaged weights.

    Images used once or twice need no augmentation, which slows learning down; images used hundreds of times are memorised
    without it. In between, the ranges grow with the logarithm of the number of passes.
    `distinct` is the number of groups, since the images of a group show the same scene.
    """
    train, median = draft(config).train, facts.sizes[1]
    drawn = train.steps * train.accumulate * train.batch_size * math.prod(train.crop)
    passes = drawn / (distinct * math.prod(median))
    strength = min(max(math.log(max(passes, 1e-9) / _FEW_PASSES) / math.log(_MANY_PASSES / _FEW_PASSES), 0.0), 1.0)
    upright = facts.row_spread >= _UPRIGHT_SPREAD
    orientation = (
        f"classes {'depend' if upright else 'hardly depend'} on the row ({facts.row_spread:.2f}): "
        f"images {'have an' if upright else 'have no'} upright orientation"
    )
    one_sided = _one_sided(facts)
    times = f"{passes:,.0f}" if passes >= 10 else f"{passes:.2g}"  # .2g would write 120 as 1.2e+02
    usage = f"each of {distinct} distinct images is used about {times} times: {100 * strength:.0f} % of the full range"
    rotation = round((5.0 if upright or one_sided else 45.0) * strength, 1)
    depth: tuple[float, str] = (0.0, "images have no slices")
    elastic: tuple[float, str] = (0.0, "images are not deformed")
    turned = "; ".join(filter(None, (orientation, one_sided, usage)))
    if facts.depth_spread is not None:
        # Volumes are few, and no two bodies have the same shape and position.
        rotation, turned = round(_TURNED * strength, 1), usage
        elastic = (round(_BENT * strength, 2), usage)
        ordered = facts.depth_spread >= _UPRIGHT_SPREAD
        depth = (
            0.0 if ordered else 0.5,
            f"classes {'' if ordered else 'hardly '}depend on the slice ({facts.depth_spread:.2f})",
        )
    return _with_defaults(
        config,
        {
            "augment.flip_horizontal": (0.0 if one_sided else 0.5, one_sided or "mirrored images are equally likely"),
            "augment.flip_vertical": (0.0 if upright else 0.5, orientation),
            "augment.flip_depth": depth,
            "augment.elastic": elastic,
            "augment.rotate": (rotation, turned),
            "augment.scale": ((round(0.7**strength, 3), round(1.5**strength, 3)), usage),
            "augment.brightness": (round(0.2 * strength, 3), usage),
            "augment.contrast": (round(0.25 * strength, 3), usage),
            "augment.noise": (round(0.05 * strength, 3), usage),
            "train.ema": (
                round(min(max(1 - 10 / train.steps, 0.8), 0.9995), 5),
                f"averages over about a tenth of the {train.steps} steps",
            ),
        },
    )


def _one_sided(facts: Fingerprint) -> str:
    """Return a reason if some classes are always on the same side of the image, as organs are; otherwise "".

    Rare classes, which may be there by chance, are not counted.
    """
    pairs = zip(facts.one_sided, facts.one_sided_by_chance, strict=True)
    classes = [
        k for k, (share, chance) in enumerate(pairs) if (share or 0) >= _ONE_SIDED and (chance or 0) <= _BY_CHANCE
    ]
    if not classes:
        return ""
    listed = ", ".join(map(str, classes[:5])) + (", …" if len(classes) > 5 else "")
    several = len(classes) > 1
    return f"{'classes' if several else 'class'} {listed} {'are' if several else 'is'} always on the same side"
