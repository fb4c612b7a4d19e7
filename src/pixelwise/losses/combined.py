"""The loss that a configuration describes: the weighted sum of its terms.

Comes in: a `LossConfig`; then logits (B, K, *S) and masks (B, *S). Goes out: one scalar. Knows nothing of models or loops.

**Accumulation and several processes.** The mean of means is not the mean, as soon as batches hold different numbers of
counted pixels or of weighty classes. `CombinedLoss.normaliser(masks)` gives what a batch adds to the divisors, without
logits: sum it over the micro-batches of a step (all-reduce it over processes, and multiply the loss by their number,
because DDP averages gradients) and hand it to each call. Then the calls add up

- to the value and gradient of the whole batch, exactly, for cross-entropy (smoothed too), focal and boundary, and with
  `dice_per: image` for Dice, Tversky and Lovász: these are means over pixels or images, whose number is known before;
- to the mean of the parts by counted pixels (by images in which anything counts, with `dice_per: image`) for the rest:
  Dice, Tversky, Lovász and clDice per batch are ratios of sums over a part, the hardest pixels are the hardest of a
  part, and how many images have a skeleton is not known before. That is not what the whole batch would give.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from pixelwise.config import LossConfig
from pixelwise.errors import ConfigError, UsageError
from pixelwise.losses.boundary import boundary_distance, signed_distances
from pixelwise.losses.cldice import soft_cldice
from pixelwise.losses.entropy import cross_entropy, focal, ohem_cross_entropy
from pixelwise.losses.lovasz import lovasz_softmax
from pixelwise.losses.overlap import cross_entropy_dice, dice, tversky
from pixelwise.losses.pixels import wrong_weights

TERMS = ("cross_entropy", "dice", "focal", "tversky", "lovasz", "boundary", "cldice")


class _Part(NamedTuple):
    """Hold how a micro-batch enters its step: the divisor of weighted means, its share of pixels and of ratios."""

    divisor: Tensor | None
    pixels: Tensor
    ratios: Tensor


@dataclass(frozen=True)
class CombinedLoss:
    """Add up the terms of a `LossConfig` that weigh more than nothing; made by `combined_loss`.

    Args:
        config: the weights of the terms and their parameters.
        class_weights: (K,) for cross-entropy and focal; None weighs all alike.
        ignore_index: pixels with this value count in nothing.

    """

    config: LossConfig
    class_weights: Tensor | None = None
    ignore_index: int = 255

    def normaliser(self, masks: Tensor) -> Tensor:
        """Give what these masks add to the divisors: (3,) double, sum of class weights, counted pixels, images with any."""
        counted = masks.long() != self.ignore_index
        pixels, images = counted.sum().double(), counted.flatten(1).any(1).sum().double()
        if self.class_weights is None:
            return torch.stack([pixels, pixels, images])
        weights = self.class_weights.to(masks.device).double()
        index = torch.where(counted, masks.long(), 0).clamp(0, len(weights) - 1)
        return torch.stack([(weights[index] * counted).sum(), pixels, images])

    def distances(self, masks: Tensor, num_classes: int) -> Tensor | None:
        """Give what the boundary term needs of these masks, for all calls that share them; None where it weighs nothing.

        Errors as in `signed_distances`.
        """
        return signed_distances(masks, num_classes, ignore_index=self.ignore_index) if self.config.boundary else None

    def __call__(
        self, logits: Tensor, masks: Tensor, normaliser: Tensor | None = None, distances: Tensor | None = None
    ) -> Tensor:
        """Give the weighted sum of the terms as a scalar.

        Args:
            logits: (B, K, *S).
            masks: (B, *S) integers.
            normaliser: sum of `self.normaliser(masks)` over all parts of the step; these masks alone where not given.
            distances: `self.distances(masks, K)`, where several logits (auxiliary heads) share the masks; made anew where
                not given.

        Raises:
            UsageError, MaskError: as `cross_entropy`, and a normaliser without three numbers; `boundary_distance` and `soft_cldice` where they weigh anything.

        """
        part = self._part(logits, masks, normaliser)
        return torch.stack(
            [*self._of_pixels(logits, masks, part), *self._of_regions(logits, masks, part, distances)]
        ).sum()

    def _part(self, logits: Tensor, masks: Tensor, normaliser: Tensor | None) -> _Part:
        whole = torch.ones((), device=logits.device)
        if normaliser is None:
            return _Part(None, whole, whole)
        if normaliser.shape != (3,):
            fix = "Sum what the method normaliser gives for all parts of the step."
            raise UsageError("normaliser", expected="shape (3,)", found=str(tuple(normaliser.shape)), do=fix)
        _, *shares = (self.normaliser(masks) / normaliser.clamp_min(1)).to(whole).unbind()
        return _Part(normaliser[0], shares[0], shares[self.config.dice_per == "image"])

    def _of_pixels(self, logits: Tensor, masks: Tensor, part: _Part) -> list[Tensor]:
        """Give cross-entropy, with Dice where the two share a softmax, and focal."""
        c, void, weights, terms = self.config, self.ignore_index, self.class_weights, list[Tensor]()
        if self._fused:
            shares = (c.cross_entropy, c.dice * part.ratios)
            pair = cross_entropy_dice(
                logits, masks, shares=shares, ignore_index=void, class_weights=weights, normaliser=part.divisor
            )
            terms.append(pair)
        elif c.cross_entropy and c.ohem is not None:
            hardest = ohem_cross_entropy(
                logits,
                masks,
                share=c.ohem,
                threshold=c.ohem_threshold,
                label_smoothing=c.label_smoothing,
                ignore_index=void,
                class_weights=weights,
            )
            terms.append(c.cross_entropy * part.pixels * hardest)
        elif c.cross_entropy:
            mean = cross_entropy(
                logits,
                masks,
                label_smoothing=c.label_smoothing,
                ignore_index=void,
                class_weights=weights,
                normaliser=part.divisor,
            )
            terms.append(c.cross_entropy * mean)
        if c.focal:
            gamma, divisor = c.focal_gamma, part.divisor
            mean = focal(logits, masks, gamma=gamma, ignore_index=void, class_weights=weights, normaliser=divisor)
            terms.append(c.focal * mean)
        return terms

    def _of_regions(self, logits: Tensor, masks: Tensor, part: _Part, distances: Tensor | None) -> list[Tensor]:
        """Give Dice where it stands alone, Tversky, Lovász, boundary and clDice."""
        c, void, per, terms = self.config, self.ignore_index, self.config.dice_per, list[Tensor]()
        if c.dice and not self._fused:
            terms.append(c.dice * part.ratios * dice(logits, masks, per=per, ignore_index=void))
        if c.tversky:
            shape = {"alpha": c.tversky_alpha, "beta": c.tversky_beta, "gamma": c.focal_tversky_gamma}
            terms.append(c.tversky * part.ratios * tversky(logits, masks, per=per, ignore_index=void, **shape))
        if c.lovasz:
            terms.append(c.lovasz * part.ratios * lovasz_softmax(logits, masks, per=per, ignore_index=void))
        if c.boundary:
            mean = boundary_distance(logits, masks, ignore_index=void, distances=distances)
            terms.append(c.boundary * part.pixels * mean)
        if c.cldice:
            thin, times = c.cldice_classes, c.cldice_iterations
            value = soft_cldice(logits, masks, classes=thin, iterations=times, per=per, ignore_index=void)
            terms.append(c.cldice * part.ratios * value)
        return terms

    @property
    def _fused(self) -> bool:
        """Tell whether cross-entropy and Dice can share one softmax."""
        c = self.config
        plain = not c.label_smoothing and c.ohem is None and c.dice_per == "batch"
        return bool(c.cross_entropy and c.dice and plain)


def combined_loss(
    config: LossConfig, *, num_classes: int, ignore_index: int = 255, class_weights: Tensor | None = None
) -> CombinedLoss:
    """Make the loss that a configuration describes.

    Raises:
        ConfigError: every term weighs nothing, Tversky is switched off by its own weights, a thin class is not there,
            or the number of class weights is not the number of classes.

    """
    if not any(getattr(config, term) for term in TERMS):
        found, fix = f"{', '.join(TERMS[:-1])} and {TERMS[-1]} at 0", "Set loss.cross_entropy or another term above 0."
        raise ConfigError("loss", expected="a term that weighs more than 0", found=found, do=fix)
    if class_weights is not None and tuple(class_weights.shape) != (num_classes,):
        raise wrong_weights(num_classes, str(tuple(class_weights.shape)))
    if config.tversky and not (config.tversky_alpha or config.tversky_beta):
        wanted, fix = (
            "a number above 0 in one of them",
            "Say alpha 0.3 and beta 0.7; with 0 twice the term is always 0.",
        )
        raise ConfigError("loss.tversky_alpha and tversky_beta", expected=wanted, found="0 and 0", do=fix)
    thin = config.cldice_classes
    if config.cldice and thin is not None and (not thin or len(set(thin)) < len(thin) or max(thin) >= num_classes):
        wanted, fix = (
            f"one or more different class indices 0–{num_classes - 1}",
            "Name each thin class once, by its index.",
        )
        raise ConfigError("loss.cldice_classes", expected=wanted, found=str(thin), do=fix)
    return CombinedLoss(config, class_weights, ignore_index)
