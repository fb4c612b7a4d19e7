"""What training makes small: plain functions of logits and masks, and their weighted sum.

Comes in: logits (B, K, *S) of any float type and masks (B, *S) of class indices; for yes-or-no labels masks (B, K, *S) of
0 and 1. Goes out: one scalar, float32 (float64 from float64 logits). Knows nothing of models, data or training loops.

One rule holds for all: pixels with the ignore index count in nothing, neither in the value nor in its gradient nor in
the divisor, and a batch of nothing else gives 0 with a gradient of zeros. A class that the truth does not show is left
out of every mean over classes. Masks are never written to.
"""

from __future__ import annotations

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
