"""Whether a mask lies where its image does: how much a pixel's class tells of its colour, if the mask were moved.

Comes in: an image (C, H, W) and a mask (H, W). Goes out: two short profiles. Knows nothing of files or of what classes are.

Along the mask's edges, the mutual information of class and colour is taken for the mask as it is and moved by up to `REACH`
pixels: across upright edges for shifts along x, across level ones for shifts along y. It peaks at 0 where the mask fits, and at
-3 along x where the mask lies 3 pixels right of its image. Unlike the strength of edges it needs none that are sharp.

Source: Viola, Wells 1997 (alignment by mutual information).
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

REACH = 8
LENGTH = 2 * REACH + 1
_FEWEST, _MOST = 60, 512  # edges
_LEVELS, _GREYS = 4, 16
_MARGIN = 2 * REACH
_EVERY = 7  # pixels that tell where bins end


def drift_profiles(image: NDArray[Any], mask: NDArray[Any], ignored: int) -> NDArray[np.float16]:
    """Take the profiles of one image.

    Args:
        image: (C, H, W); at most three bands are looked at.
        mask: (H, W) class indices.
        ignored: value of pixels that do not count.

    Returns:
        (2, 2 · REACH + 1), along x and along y, each over its own mean; 0 where there are too few edges to tell.
    """
    bands = image[: 3 if len(image) >= 3 else 1]
    profiles = [_profile(bands, mask, ignored, step) for step in (1, mask.shape[1])]
    return np.stack(profiles).astype(np.float16)


def _profile(bands: NDArray[Any], mask: NDArray[Any], ignored: int, step: int) -> NDArray[np.float64]:
    """Take the profile along x (`step` 1) or y (`step` the width)."""
    nothing = np.zeros(LENGTH)
    edges = _edges(mask, ignored, step)
    if len(edges) < _FEWEST:
        return nothing
    # Sixteen pixels across each edge, and the colours of these and of eight more on either side.
    around = edges[:, None] + np.arange(1 - 2 * REACH, 2 * REACH) * step
    colours, kinds = _colours(bands.reshape(len(bands), -1).take(around, axis=1))
    present, classes = np.unique(mask.reshape(-1).take(around[:, REACH:-REACH]), return_inverse=True)
    classes = classes.reshape(len(edges), -1)
    known = present[classes] != ignored
    size = len(present) * kinds
    width = classes.shape[1]
    joint = np.empty((LENGTH, size))
    for place in range(LENGTH):
        both = classes * kinds + colours[:, place : place + width]
        joint[place] = np.bincount(both[known], minlength=size)
    profile = _information(joint.reshape(LENGTH, len(present), kinds))
    mean = float(profile.mean())
    return profile / mean if mean > 0 else nothing


def _edges(mask: NDArray[Any], ignored: int, step: int) -> NDArray[np.int64]:
    """Find places in the flattened mask where a class ends and another begins a step further; at most 512, evenly drawn."""
    height, width = mask.shape
    side = width if step == 1 else height
    if side < 2 * _MARGIN + 2:
        return np.zeros(0, np.int64)
    inner = slice(_MARGIN, side - _MARGIN)
    beyond = slice(_MARGIN + 1, side - _MARGIN + 1)
    here, there = (mask[:, inner], mask[:, beyond]) if step == 1 else (mask[inner], mask[beyond])
    places = np.flatnonzero((here != there) & (here != ignored) & (there != ignored))
    places = places[:: max(len(places) // _MOST, 1)][:_MOST]
    rows, columns = np.divmod(places, here.shape[1])
    return rows * width + columns + (_MARGIN if step == 1 else _MARGIN * width)


def _colours(values: NDArray[Any]) -> tuple[NDArray[np.int64], int]:
    """Sort colours (bands, N, M) into bins that hold about as many each: the bins (N, M), and how many there are."""
    levels = _LEVELS if len(values) > 1 else _GREYS
    bins = np.zeros(values.shape[1:], np.int64)
    for band in values:
        borders = np.quantile(band.reshape(-1)[::_EVERY], np.arange(1, levels) / levels)
        if band.dtype == np.uint8:  # a table of all values is soon made
            bins = bins * levels + np.searchsorted(borders, np.arange(256), side="right")[band]
        else:
            bins = bins * levels + np.searchsorted(borders, band, side="right")
    return bins, levels ** len(values)


def _information(joint: NDArray[np.float64]) -> NDArray[np.float64]:
    """Give the mutual information of class and colour, nats, from counts (…, classes, colours)."""
    total = np.maximum(joint.sum((-2, -1)), 1)
    each = sum(_entropy(joint.sum(axis), total[..., None], -1) for axis in (-1, -2))
    return np.maximum(each - _entropy(joint, total[..., None, None], (-2, -1)), 0)


def _entropy(
    counts: NDArray[np.float64], total: NDArray[np.float64], axis: int | tuple[int, int]
) -> NDArray[np.float64]:
    share = counts / total
    return -(share * np.log(np.where(share > 0, share, 1))).sum(axis)
