"""Decode, fill and encode COCO's run lengths.

Runs go down the columns, starting at the left one, and begin with a run of zeros, which may be empty. pycocotools does not
validate: counts that do not fill the image make it return uninitialised memory. So masks from files are decoded here.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

_BASE, _MORE, _SIGN = 48, 32, 16
_MAX_GROUPS = 7  # of 5 bits: enough for 32 bits


def unpack(counts: str | bytes) -> NDArray[np.int64] | None:
    """Decode COCO's compressed counts to run lengths (N,); None if they are malformed.

    Each number is written in groups of 5 bits, the lowest first, as characters from "0" on. Bit 6 means that more groups
    follow, and the highest bit of the last group is the sign. From the fourth run on, the difference to the last but one is
    stored. Lengths can be negative in a malformed file; `fill` checks them.

    Source: `rleFrString` in cocoapi, common/maskApi.c.
    """
    raw = counts.encode("utf-8", "surrogatepass") if isinstance(counts, str) else counts
    groups = np.frombuffer(raw, np.uint8).astype(np.int64) - _BASE
    if not groups.size or groups.min() < 0 or groups.max() > 63 or groups[-1] & _MORE:
        return None
    ends = np.flatnonzero(groups & _MORE == 0)
    starts = np.concatenate([[0], ends[:-1] + 1])
    position = np.arange(groups.size) - np.repeat(starts, ends - starts + 1)
    if position.max() >= _MAX_GROUPS:
        return None
    runs = np.add.reduceat((groups & 31) << (5 * position), starts)
    runs -= np.where(groups[ends] & _SIGN, 1 << (5 * (ends - starts + 1)), 0)
    for first in (1, 2):
        runs[first::2] = np.cumsum(runs[first::2])
    return runs


def fill(runs: NDArray[np.int64], size: tuple[int, int]) -> tuple[int, int, NDArray[np.bool_]]:
    """Fill the runs of ones; memory is allocated only for their bounding box.

    Args:
        runs: lengths (N,), starting with zeros.
        size: (H, W) of the image.

    Returns:
        Top row and left column of the bounding box, and the mask (h, w) inside it; an empty mask if no pixel is covered.

    Raises:
        ValueError: a negative length, or a sum that is not H·W. The message says what was found.
    """
    height, pixels = size[0], size[0] * size[1]
    if runs.size and (runs.min() < 0 or runs.max() > pixels):
        raise ValueError(f"a run of {int(runs.min() if runs.min() < 0 else runs.max())}")
    ends = np.cumsum(runs)
    total = int(ends[-1]) if runs.size else 0
    if total != pixels:
        raise ValueError(f"{total} pixels")
    stops = ends[1::2][runs[1::2] > 0]
    starts = stops - runs[1::2][runs[1::2] > 0]
    if not starts.size:
        return 0, 0, np.zeros((0, 0), bool)
    columns, rows = starts // height, starts % height
    left, right = int(columns[0]), int(stops[-1] - 1) // height + 1
    top, bottom = int(rows.min()), int(((stops - 1) % height).max()) + 1
    if ((stops - 1) // height != columns).any():  # a run over several columns reaches both edges
        top, bottom = 0, height
    begin = (columns - left) * (bottom - top) + rows - top
    steps = np.zeros((bottom - top) * (right - left) + 1, np.int8)
    steps[begin] = 1
    steps[begin + stops - starts] -= 1
    return top, left, np.cumsum(steps[:-1], dtype=np.int8).astype(bool).reshape(right - left, bottom - top).T


def encode_regions(regions: NDArray[np.integer]) -> Iterator[tuple[int, NDArray[np.int64]]]:
    """Encode every region of an array in one pass.

    Args:
        regions: (H, W) region numbers.

    Yields:
        A number, in ascending order, and its runs (N,); they add up to H·W, without an empty run at the end.
    """
    flat = regions.T.reshape(-1)
    if not flat.size:
        return
    starts = np.flatnonzero(np.concatenate([[True], flat[1:] != flat[:-1]]))
    stops = np.append(starts[1:], flat.size)
    owner = flat[starts]
    order = np.argsort(owner, kind="stable")
    first = np.flatnonzero(np.diff(owner[order], prepend=owner[order[0]] - 1))
    for runs in np.split(order, first[1:]):
        borders = np.stack([starts[runs], stops[runs]], 1).reshape(-1)
        borders = borders if borders[-1] == flat.size else np.append(borders, flat.size)
        yield int(owner[runs[0]]), np.diff(borders, prepend=0)
