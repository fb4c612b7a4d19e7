"""The loss that a configuration describes: the weighted sum of its terms.

**Accumulation and several processes.** The mean over micro-batches is not the mean over the batch when micro-batches hold
different numbers of counted pixels or different classes. `CombinedLoss.normaliser(masks)` returns what a micro-batch adds to
the divisors: sum it over the micro-batches of a step and pass the sum to each call. (With several processes, all-reduce it and
multiply the loss by their number, because DDP averages gradients.) The results then add up

- exactly to the value and gradient of the whole batch for cross-entropy (also smoothed), focal and boundary, and with
  `dice_per: image` for Dice, Tversky and Lovász: these are means over pixels or images, whose number is known in advance;
- to the mean of the parts, weighted by counted pixels (by images with counted pixels if `dice_per: image`), for the rest:
  Dice, Tversky, Lovász and clDice per batch are ratios of sums, OHEM selects the hardest pixels of a part, and the number of
  images with a skeleton is not known in advance. This differs from the value of the whole batch.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from pixelwise.batch import Batch, Outputs
from pixelwise.config import LossConfig
from pixelwise.errors import ConfigError, UsageError, nearest
from pixelwise.losses.boundary import boundary_distance, signed_distances
from pixelwise.losses.cldice import soft_cldice
from pixelwise.losses.entropy import cross_entropy, focal, ohem_cross_entropy
from pixelwise.losses.inputs import wrong_weights
from pixelwise.losses.lovasz import lovasz_softmax
from pixelwise.losses.overlap import cross_entropy_dice, dice, tversky


class TermInputs(NamedTuple):
    """What a term is computed from.

    Args:
        logits: (B, K, *S).
        masks: (B, *S) integers.
        config: parameters of the terms.
        class_weights: (K,), or None.
        ignore_index: value of ignored pixels.
        divisor: sum of weights over the step; None if this batch is the whole step.
        pixel_share: share of the step's counted pixels in this batch.
        ratio_share: share by which ratios are weighted: of images with counted pixels if `dice_per: image`, else of pixels.
        distances: signed distance maps (B, K, *S); None unless the boundary term is used.
    """

    logits: Tensor
    masks: Tensor
    config: LossConfig
    class_weights: Tensor | None
    ignore_index: int
    divisor: Tensor | None
    pixel_share: Tensor
    ratio_share: Tensor
    distances: Tensor | None

    @property
    def pair(self) -> tuple[Tensor, Tensor]:
        """Logits and masks."""
        return self.logits, self.masks

    @property
    def weighting(self) -> dict[str, Any]:
        """The options of pixel-wise losses."""
        return {"ignore_index": self.ignore_index, "class_weights": self.class_weights}


def _cross_entropy_dice(weight: float, x: TermInputs) -> Tensor:
    shares = (weight, x.config.dice * x.ratio_share)
    return cross_entropy_dice(*x.pair, shares=shares, normaliser=x.divisor, **x.weighting)


def _cross_entropy(weight: float, x: TermInputs) -> Tensor:
    c = x.config
    smoothing = c.label_smoothing
    if c.ohem is None:
        return weight * cross_entropy(*x.pair, label_smoothing=smoothing, normaliser=x.divisor, **x.weighting)
    share, threshold = c.ohem, c.ohem_threshold
    hardest = ohem_cross_entropy(*x.pair, share=share, threshold=threshold, label_smoothing=smoothing, **x.weighting)
    return weight * x.pixel_share * hardest


def _focal(weight: float, x: TermInputs) -> Tensor:
    return weight * focal(*x.pair, gamma=x.config.focal_gamma, normaliser=x.divisor, **x.weighting)


def _dice(weight: float, x: TermInputs) -> Tensor:
    return weight * x.ratio_share * dice(*x.pair, per=x.config.dice_per, ignore_index=x.ignore_index)


def _tversky(weight: float, x: TermInputs) -> Tensor:
    c = x.config
    shape: dict[str, Any] = {"alpha": c.tversky_alpha, "beta": c.tversky_beta, "gamma": c.focal_tversky_gamma}
    return weight * x.ratio_share * tversky(*x.pair, per=c.dice_per, ignore_index=x.ignore_index, **shape)


def _lovasz(weight: float, x: TermInputs) -> Tensor:
    return weight * x.ratio_share * lovasz_softmax(*x.pair, per=x.config.dice_per, ignore_index=x.ignore_index)


def _boundary(weight: float, x: TermInputs) -> Tensor:
    return weight * x.pixel_share * boundary_distance(*x.pair, ignore_index=x.ignore_index, distances=x.distances)


def _cldice(weight: float, x: TermInputs) -> Tensor:
    c = x.config
    thin, steps = c.cldice_classes, c.cldice_iterations
    value = soft_cldice(*x.pair, classes=thin, iterations=steps, per=c.dice_per, ignore_index=x.ignore_index)
    return weight * x.ratio_share * value


# The terms by the key of their weight in LossConfig, in the order in which they are summed.
TERMS: dict[str, Callable[[float, TermInputs], Tensor]] = {
    "cross_entropy": _cross_entropy,
    "focal": _focal,
    "dice": _dice,
    "tversky": _tversky,
    "lovasz": _lovasz,
    "boundary": _boundary,
    "cldice": _cldice,
}


@dataclass(frozen=True)
class CombinedLoss:
    """Sum the terms of a `LossConfig` that have a weight above 0; made by `combined_loss`.

    Args:
        config: the weights of the terms and their parameters.
        class_weights: (K,) for cross-entropy and focal; None weights all classes equally.
        ignore_index: value of ignored pixels.
    """

    config: LossConfig
    class_weights: Tensor | None = None
    ignore_index: int = 255

    def __call__(self, outputs: Outputs, batch: Batch, normaliser: Tensor | None = None) -> Tensor:
        """Return the loss of the logits plus `config.auxiliary` times that of each auxiliary head, a scalar.

        Args:
            outputs: logits (B, K, *S), and those of auxiliary heads.
            batch: with masks (B, *S) on the same device.
            normaliser: sum of `self.normaliser(masks)` over all micro-batches of the step; None if this batch is the step.
        """
        distances = self.distances(batch.masks, outputs.logits.shape[1])  # shared by all heads
        value = self.of_logits(outputs.logits, batch.masks, normaliser, distances)
        for auxiliary in outputs.auxiliary:
            value = value + self.config.auxiliary * self.of_logits(auxiliary, batch.masks, normaliser, distances)
        return value

    def of_logits(
        self, logits: Tensor, masks: Tensor, normaliser: Tensor | None = None, distances: Tensor | None = None
    ) -> Tensor:
        """Return the weighted sum of the terms for one set of logits, a scalar.

        Args:
            logits: (B, K, *S).
            masks: (B, *S) integers.
            normaliser: see `__call__`.
            distances: `self.distances(masks, K)` if several logits share the masks; computed if not given.

        Raises:
            UsageError: shapes that do not match, or a normaliser without three numbers.
            MaskError: class indices outside 0…K-1.
        """
        inputs = self._inputs(logits, masks, normaliser, distances)
        weights = term_weights(self.config)
        terms = []
        if self._fused:
            terms.append(_cross_entropy_dice(weights.pop("cross_entropy"), inputs))
            del weights["dice"]
        terms += [TERMS[name](weight, inputs) for name, weight in weights.items() if weight]
        return torch.stack(terms).sum()

    def normaliser(self, masks: Tensor) -> Tensor:
        """Return what masks (B, *S) add to the divisors: sum of class weights, counted pixels, images with any; (3,) double."""
        counted = masks.long() != self.ignore_index
        pixels, images = counted.sum().double(), counted.flatten(1).any(1).sum().double()
        if self.class_weights is None:
            return torch.stack([pixels, pixels, images])
        weights = self.class_weights.to(masks.device).double()
        index = torch.where(counted, masks.long(), 0).clamp(0, len(weights) - 1)
        return torch.stack([(weights[index] * counted).sum(), pixels, images])

    def distances(self, masks: Tensor, num_classes: int) -> Tensor | None:
        """Return the distance maps of the boundary term, to share between logits; None if the term is not used.

        Raises as `signed_distances`.
        """
        return signed_distances(masks, num_classes, ignore_index=self.ignore_index) if self.config.boundary else None

    def _inputs(self, logits: Tensor, masks: Tensor, normaliser: Tensor | None, distances: Tensor | None) -> TermInputs:
        pixel_share = ratio_share = torch.ones((), device=logits.device)
        if normaliser is not None:
            if normaliser.shape != (3,):
                fix = "Sum the results of the method normaliser over all parts of the step."
                raise UsageError("normaliser", expected="shape (3,)", found=str(tuple(normaliser.shape)), do=fix)
            shares = (self.normaliser(masks) / normaliser.clamp_min(1)).to(pixel_share)
            pixel_share = shares[1]
            ratio_share = shares[2] if self.config.dice_per == "image" else pixel_share
        return TermInputs(
            logits,
            masks,
            self.config,
            self.class_weights,
            self.ignore_index,
            None if normaliser is None else normaliser[0],
            pixel_share,
            ratio_share,
            distances,
        )

    @property
    def _fused(self) -> bool:
        """Whether cross-entropy and Dice can share one softmax."""
        c = self.config
        plain = not c.label_smoothing and c.ohem is None and c.dice_per == "batch"
        return bool(c.cross_entropy and c.dice and plain)


def term_weights(config: LossConfig) -> dict[str, float]:
    """Return the weight of each term of `TERMS`: a key of its own, or an entry of `loss.terms`."""
    return {name: getattr(config, name, config.terms.get(name, 0.0)) for name in TERMS}


def combined_loss(
    config: LossConfig, *, num_classes: int, ignore_index: int = 255, class_weights: Tensor | None = None
) -> CombinedLoss:
    """Build the loss that a configuration describes.

    Raises:
        ConfigError: all weights are 0, both Tversky weights are 0, a clDice class does not exist, or there is not one class
            weight per class.
    """
    for name in config.terms:
        if name not in TERMS or name in LossConfig.model_fields:
            free = [term for term in TERMS if term not in LossConfig.model_fields]
            do = f"Set loss.{name}." if name in TERMS else nearest(name, TERMS)
            raise ConfigError(
                "loss.terms", expected=f"registered terms ({', '.join(free) or 'none so far'})", found=name, do=do
            )
    if not any(term_weights(config).values()):
        found = f"all of {', '.join(TERMS)} at 0"
        fix = "Set loss.cross_entropy or another term above 0."
        raise ConfigError("loss", expected="a term with a weight above 0", found=found, do=fix)
    if class_weights is not None and tuple(class_weights.shape) != (num_classes,):
        raise wrong_weights(num_classes, str(tuple(class_weights.shape)))
    if config.tversky and not (config.tversky_alpha or config.tversky_beta):
        raise ConfigError(
            "loss.tversky_alpha and tversky_beta",
            expected="at least one above 0",
            found="0 and 0",
            do="Use alpha 0.3 and beta 0.7; if both are 0 the term is always 0.",
        )
    thin = config.cldice_classes
    if config.cldice and thin is not None and (not thin or len(set(thin)) < len(thin) or max(thin) >= num_classes):
        raise ConfigError(
            "loss.cldice_classes",
            expected=f"one or more different class indices 0–{num_classes - 1}",
            found=str(thin),
            do="List the index of each thin class once.",
        )
    return CombinedLoss(config, class_weights, ignore_index)
