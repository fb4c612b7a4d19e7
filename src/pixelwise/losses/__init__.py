"""Loss functions of logits and masks, and their weighted sum.

Functions take logits (B, K, *S) of any float type and masks (B, *S) of class indices (binary losses: masks (B, K, *S) of 0
and 1), and return a scalar in float32 (float64 for float64 logits).

The same rules hold for all: ignored pixels are excluded from the value, the gradient and the divisor, and a batch of ignored
pixels alone gives 0 with a zero gradient. A class that is absent from the ground truth is left out of means over classes.
"""

from __future__ import annotations

from pixelwise.losses.base import Loss, NormalisedLoss, accumulated
from pixelwise.losses.binary import binary_cross_entropy, binary_dice, binary_focal, binary_tversky
from pixelwise.losses.boundary import boundary_distance, signed_distances
from pixelwise.losses.cldice import soft_cldice, soft_skeleton
from pixelwise.losses.combined import CombinedLoss, combined_loss
from pixelwise.losses.entropy import cross_entropy, focal, ohem_cross_entropy
from pixelwise.losses.lovasz import lovasz_hinge, lovasz_softmax
from pixelwise.losses.overlap import cross_entropy_dice, dice, tversky
from pixelwise.losses.weights import LARGEST_RATIO, class_weights

__all__ = [
    "LARGEST_RATIO",
    "CombinedLoss",
    "Loss",
    "NormalisedLoss",
    "accumulated",
    "binary_cross_entropy",
    "binary_dice",
    "binary_focal",
    "binary_tversky",
    "boundary_distance",
    "class_weights",
    "combined_loss",
    "cross_entropy",
    "cross_entropy_dice",
    "dice",
    "focal",
    "lovasz_hinge",
    "lovasz_softmax",
    "ohem_cross_entropy",
    "signed_distances",
    "soft_cldice",
    "soft_skeleton",
    "tversky",
]
