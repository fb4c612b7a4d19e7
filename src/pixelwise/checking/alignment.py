"""Measure how well a mask is aligned with its image: the mutual information of class and colour for shifted masks.

Along the edges of the mask, the mutual information is computed for the mask as it is and shifted by up to `REACH` pixels:
across vertical edges for shifts along x, across horizontal edges for shifts along y. It peaks at 0 for an aligned mask,
and at -3 along x if the mask is 3 pixels too far right. Unlike gradient strength it needs no sharp edges in the image.

Source: Viola, Wells 1997 (alignment by maximization of mutual information).
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

REACH = 8
LENGTH = 2 * REACH + 1
_MIN_EDGES, _MAX_EDGES = 60, 512
_LEVELS, _GREY_LEVELS = 4, 16
_MARGIN = 2 * REACH
_SAMPLING = 7  # one pixel in so many determines the colour bins


def alignment_profiles(image: NDArray[Any], mask: NDArray[Any], ignore_index: int) -> NDArray[np.float16]:
    """Compute the alignment profiles of one image.

    Args:
        image: (C, H, W); at most three bands are used.
        mask: (H, W) class indices.
        ignore_index: value of ignored pixels.

    Returns:
        (2, 2 · REACH + 1), along x and along y, each divided by its mean; 0 if there are too few edges.
    """
    bands = image[: 3 if len(image) >= 3 else 1]
    profiles = [_profile(bands, mask, ignore_index, step) for step in (1, mask.shape[1])]
    return np.stack(profiles).astype(np.float16)


def _profile(bands: NDArray[Any], mask: NDArray[Any], ignore_index: int, step: int) -> NDArray[np.float64]:
    """Compute the profile along x (`step` 1) or y (`step` the width)."""
    edges = _edges(mask, ignore_index, step)
    if len(edges) < _MIN_EDGES:
        return np.zeros(LENGTH)
    # Classes of sixteen pixels across each edge; colours of these and of eight more on either side.
    around = edges[:, None] + np.arange(1 - 2 * REACH, 2 * REACH) * step
    colours, num_colours = _colour_bins(bands.reshape(len(bands), -1).take(around, axis=1))
    present, classes = np.unique(mask.reshape(-1).take(around[:, REACH:-REACH]), return_inverse=True)
    classes = classes.reshape(len(edges), -1)
    counted = present[classes] != ignore_index
    size = len(present) * num_colours
    width = classes.shape[1]
    joint = np.empty((LENGTH, size))
    for shift in range(LENGTH):
        both = classes * num_colours + colours[:, shift : shift + width]
        joint[shift] = np.bincount(both[counted], minlength=size)
    profile = _mutual_information(joint.reshape(LENGTH, len(present), num_colours))
    mean = float(profile.mean())
    return profile / mean if mean > 0 else np.zeros(LENGTH)


def _edges(mask: NDArray[Any], ignore_index: int, step: int) -> NDArray[np.int64]:
    """Find positions in the flattened mask at which the class changes one step further; at most 512, evenly drawn."""
    height, width = mask.shape
    side = width if step == 1 else height
    if side < 2 * _MARGIN + 2:
        return np.zeros(0, np.int64)
    inner = slice(_MARGIN, side - _MARGIN)
    beyond = slice(_MARGIN + 1, side - _MARGIN + 1)
    here, there = (mask[:, inner], mask[:, beyond]) if step == 1 else (mask[inner], mask[beyond])
    places = np.flatnonzero((here != there) & (here != ignore_index) & (there != ignore_index))
    places = places[:: max(len(places) // _MAX_EDGES, 1)][:_MAX_EDGES]
    rows, columns = np.divmod(places, here.shape[1])
    return rows * width + columns + (_MARGIN if step == 1 else _MARGIN * width)


def _colour_bins(values: NDArray[Any]) -> tuple[NDArray[np.int64], int]:
    """Sort colours (bands, N, M) into bins of about equal counts: return the bins (N, M) and their number."""
    levels = _LEVELS if len(values) > 1 else _GREY_LEVELS
    bins = np.zeros(values.shape[1:], np.int64)
    for band in values:
        borders = np.quantile(band.reshape(-1)[::_SAMPLING], np.arange(1, levels) / levels)
        if band.dtype == np.uint8:  # a lookup table is faster
            bins = bins * levels + np.searchsorted(borders, np.arange(256), side="right")[band]
        else:
            bins = bins * levels + np.searchsorted(borders, band, side="right")
    return bins, levels ** len(values)


def _mutual_information(joint: NDArray[np.float64]) -> NDArray[np.float64]:
    """Compute the mutual information of class and colour, in nats, from counts (…, classes, colours)."""
    total = np.maximum(joint.sum((-2, -1)), 1)
    marginal = sum(_entropy(joint.sum(axis), total[..., None], -1) for axis in (-1, -2))
    return np.maximum(marginal - _entropy(joint, total[..., None, None], (-2, -1)), 0)


def _entropy(
    counts: NDArray[np.float64], total: NDArray[np.float64], axis: int | tuple[int, int]
) -> NDArray[np.float64]:
    share = counts / total
    return -(share * np.log(np.where(share > 0, share, 1))).sum(axis)
