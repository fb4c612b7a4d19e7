"""The boundary loss: how far from the true contour the probability lies.

Comes in: logits (B, K, *S) and masks (B, *S) of class indices, in two or three dimensions. Goes out: one scalar, or the
signed distance maps themselves. Knows nothing of grids: the spacing is given, pixels where it is not.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor

from pixelwise.errors import UsageError
from pixelwise.losses.pixels import count, prepare


def boundary_distance(
    logits: Tensor,
    masks: Tensor,
    *,
    spacing: Sequence[float] | None = None,
    ignore_index: int = 255,
    distances: Tensor | None = None,
) -> Tensor:
    """Take the mean over the counted pixels of sum_c p_c · signed distance to class c: Kervadec et al. 2019, arXiv:1812.07032.

    That is the distance from the true contour that the predicted class is expected to have: positive on the wrong side,
    negative on the right one, so the best value is below 0. It says nothing where an image shows one class alone. The
    paper adds it to a loss of regions, with a small weight (0.01) that grows: alone it is content with an empty prediction.

    Args:
        logits: (B, K, *S), S of two or three dimensions.
        masks: (B, *S) integers, class indices or `ignore_index`.
        spacing: size of a pixel along each axis of S, in the unit the loss shall have; 1 each where not given.
        ignore_index: pixels with this value count in nothing, and are neither inside nor outside of any class.
        distances: what `signed_distances` gave for these masks, where several logits share them; made from the masks
            and the spacing where not given.

    Raises:
        UsageError: shapes or a spacing that do not fit.
        MaskError: class indices outside 0…K-1.

    """
    _require_space(masks.ndim - 1, spacing)
    scores, pixels = prepare(logits, masks, ignore_index)
    maps = distances
    if maps is None:
        maps = signed_distances(masks, logits.shape[1], spacing=spacing, ignore_index=ignore_index)
    elif maps.shape != logits.shape:
        fix = "Give what signed_distances made from these masks."
        found, wanted = str(tuple(maps.shape)), f"shape {tuple(logits.shape)}, that of the logits"
        raise UsageError("distances", expected=wanted, found=found, do=fix)
    number = pixels.per_class.sum().clamp_min(1)
    total = (scores.softmax(1) * maps.flatten(2).to(scores)).sum(dtype=torch.double)
    return (total / number).to(scores.dtype)


def signed_distances(
    masks: Tensor, num_classes: int, *, spacing: Sequence[float] | None = None, ignore_index: int = 255
) -> Tensor:
    """Measure how far each pixel is from each class: (B, K, *S) in float32, on the device of the masks.

    Outside of a class it is the distance to its nearest pixel, inside minus the distance to the nearest counted pixel of
    another class, so two classes have maps of opposite sign. (The paper's code adds one pixel inside.) 0 at ignored
    pixels, and for a class that an image does not show or shows alone: it has no contour there. Computed on the CPU, one
    distance transform for each class that an image shows.

    Args:
        masks: (B, *S) integers, class indices or `ignore_index`, S of two or three dimensions.
        num_classes: K.
        spacing: size of a pixel along each axis of S; 1 each where not given.
        ignore_index: pixels with this value are neither inside nor outside.

    Raises:
        UsageError: a spacing or number of dimensions that does not fit.
        MaskError: class indices outside 0…K-1.
    """
    _require_space(masks.ndim - 1, spacing)
    count(masks, num_classes, ignore_index)
    truth = masks.detach().cpu().numpy()
    maps = np.zeros((len(truth), num_classes, *truth.shape[1:]), np.float32)
    for one, layers in zip(truth, maps, strict=True):
        _write_distances(one, layers, ignore_index, spacing)
    return torch.from_numpy(maps).to(masks.device)


def _write_distances(
    truth: NDArray[Any], layers: NDArray[np.float32], ignore_index: int, spacing: Sequence[float] | None
) -> None:
    """Fill the layers (K, *S) of one image, zeros so far."""
    counted = truth != ignore_index
    present = np.unique(truth[counted])
    if len(present) < 2:
        return
    # The way out of a class is the shortest way into another one: no transform of its own.
    nearest_other = np.full(truth.shape, np.inf, np.float32)
    for k in present:
        layers[k] = ndimage.distance_transform_edt(truth != k, sampling=spacing)
        np.minimum(nearest_other, layers[k], out=nearest_other, where=truth != k)
    for k in present:
        np.copyto(layers[k], -nearest_other, where=truth == k)
    layers[:, ~counted] = 0


def _require_space(dimensions: int, spacing: Sequence[float] | None) -> None:
    if dimensions not in (2, 3):
        fix = "Give masks (B, H, W) or (B, D, H, W)."
        raise UsageError("masks", expected="2 or 3 spatial dimensions", found=str(dimensions), do=fix)
    if spacing is not None and (len(spacing) != dimensions or not all(np.isfinite(s) and s > 0 for s in spacing)):
        wanted = f"{dimensions} lengths above 0, one per axis of the masks"
        fix = "Give them in the order of the axes, (row, column) or (slice, row, column)."
        raise UsageError("spacing", expected=wanted, found=str(tuple(spacing)), do=fix)
