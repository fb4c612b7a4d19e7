"""The boundary loss: the mean signed distance of the probability mass from the true contour."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor

from pixelwise.errors import UsageError
from pixelwise.losses.inputs import count, prepare


def boundary_distance(
    logits: Tensor,
    masks: Tensor,
    *,
    spacing: Sequence[float] | None = None,
    ignore_index: int = 255,
    distances: Tensor | None = None,
) -> Tensor:
    """Compute the mean over counted pixels of sum_c p_c · signed distance to class c: Kervadec et al. 2019, arXiv:1812.07032.

    The expected distance of the predicted class from its true contour is positive on the wrong side and negative on the right
    one, so the optimum is below 0. Images with a single class contribute nothing. Combine it with a region loss, as the paper
    does with a small growing weight (0.01): on its own it has a trivial minimum at an empty prediction.

    Args:
        logits: (B, K, *S), S of two or three dimensions.
        masks: (B, *S) integers, class indices or `ignore_index`.
        spacing: size of a pixel along each axis of S, in the unit of the loss; 1 by default.
        ignore_index: value of ignored pixels; they are neither inside nor outside any class.
        distances: the result of `signed_distances` for these masks, to share it between several logits; computed if not given.

    Raises:
        UsageError: shapes or a spacing that do not match.
        MaskError: class indices outside 0…K-1.
    """
    _require_space(masks.ndim - 1, spacing)
    scores, pixels = prepare(logits, masks, ignore_index)
    maps = distances
    if maps is None:
        maps = signed_distances(masks, logits.shape[1], spacing=spacing, ignore_index=ignore_index)
    elif maps.shape != logits.shape:
        raise UsageError(
            "distances",
            expected=f"the shape of the logits, {tuple(logits.shape)}",
            found=str(tuple(maps.shape)),
            do="Pass the result of signed_distances for these masks.",
        )
    number = pixels.per_class.sum().clamp_min(1)
    total = (scores.softmax(1) * maps.flatten(2).to(scores)).sum(dtype=torch.double)
    return (total / number).to(scores.dtype)


def signed_distances(
    masks: Tensor, num_classes: int, *, spacing: Sequence[float] | None = None, ignore_index: int = 255
) -> Tensor:
    """Compute the signed distance of each pixel to each class, (B, K, *S) float32, on the device of the masks.

    Outside a class it is the distance to the nearest pixel of the class; inside it is minus the distance to the nearest counted
    pixel of another class, so with two classes the maps have opposite signs. (The paper's code adds one pixel inside.) It is 0 at
    ignored pixels, and for a class that is absent from an image or is its only class. Computed on the CPU, with one distance
    transform per class and image.

    Args:
        masks: (B, *S) integers, class indices or `ignore_index`, S of two or three dimensions.
        num_classes: K.
        spacing: size of a pixel along each axis of S; 1 by default.
        ignore_index: value of ignored pixels; they are neither inside nor outside.

    Raises:
        UsageError: a spacing or number of dimensions that does not match.
        MaskError: class indices outside 0…K-1.
    """
    _require_space(masks.ndim - 1, spacing)
    count(masks, num_classes, ignore_index)
    truth = masks.detach().cpu().numpy()
    maps = np.zeros((len(truth), num_classes, *truth.shape[1:]), np.float32)
    for image_truth, image_maps in zip(truth, maps, strict=True):
        _write_distances(image_truth, image_maps, ignore_index, spacing)
    return torch.from_numpy(maps).to(masks.device)


def _write_distances(
    truth: NDArray[Any], maps: NDArray[np.float32], ignore_index: int, spacing: Sequence[float] | None
) -> None:
    """Fill the zero-initialised maps (K, *S) of one image."""
    counted = truth != ignore_index
    present = np.unique(truth[counted])
    if len(present) < 2:
        return
    # The distance out of a class is the smallest distance into another one and needs no transform of its own.
    nearest_other = np.full(truth.shape, np.inf, np.float32)
    for k in present:
        maps[k] = ndimage.distance_transform_edt(truth != k, sampling=spacing)
        np.minimum(nearest_other, maps[k], out=nearest_other, where=truth != k)
    for k in present:
        np.copyto(maps[k], -nearest_other, where=truth == k)
    maps[:, ~counted] = 0


def _require_space(dimensions: int, spacing: Sequence[float] | None) -> None:
    if dimensions not in (2, 3):
        fix = "Pass masks (B, H, W) or (B, D, H, W)."
        raise UsageError("masks", expected="2 or 3 spatial dimensions", found=str(dimensions), do=fix)
    if spacing is not None and (len(spacing) != dimensions or not all(np.isfinite(s) and s > 0 for s in spacing)):
        expected = f"{dimensions} positive lengths, one per axis of the masks"
        fix = "Pass them in axis order, (row, column) or (slice, row, column)."
        raise UsageError("spacing", expected=expected, found=str(tuple(spacing)), do=fix)
