"""Run lengths as COCO writes masks: from text to numbers, from numbers to pixels, and from regions to numbers.

Comes in: compressed counts, run lengths, or an array of region numbers. Goes out: run lengths, or a mask. Knows nothing of
files, classes, tensors, or of pycocotools, which trusts what it is given: counts that do not fill the image make it
return memory that nobody wrote.

Runs go down the columns, from the left one on, and begin with a run of zeros, which may be empty.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

_BASE, _MORE, _SIGN = 48, 32, 16
_MOST_GROUPS = 7  # of 5 bits: enough for 32


def unpack(counts: str | bytes) -> NDArray[np.int64] | None:
    """Give the runs of COCO's compressed counts, or None where they are none.

    Each number is written in groups of 5 bits, the lowest first, as characters from "0" on; bit 6 says that more follow,
    and the highest bit of the last group is the sign. From the fourth run on, the difference to the last but one is written.

    Source: `rleFrString` of cocoapi, common/maskApi.c, by what it reads.

    Args:
        counts: as they stand in a file.

    Returns:
        Lengths (N,); they may be negative where somebody made them up (see `fill`).
    """
    raw = counts.encode("utf-8", "surrogatepass") if isinstance(counts, str) else counts
    groups = np.frombuffer(raw, np.uint8).astype(np.int64) - _BASE
    if not groups.size or groups.min() < 0 or groups.max() > 63 or groups[-1] & _MORE:
        return None
    ends = np.flatnonzero(groups & _MORE == 0)
    starts = np.concatenate([[0], ends[:-1] + 1])
    place = np.arange(groups.size) - np.repeat(starts, ends - starts + 1)
    if place.max() >= _MOST_GROUPS:
        return None
    runs = np.add.reduceat((groups & 31) << (5 * place), starts)
    runs -= np.where(groups[ends] & _SIGN, 1 << (5 * (ends - starts + 1)), 0)
    for first in (1, 2):
        runs[first::2] = np.cumsum(runs[first::2])
    return runs


def fill(runs: NDArray[np.int64], size: tuple[int, int]) -> tuple[int, int, NDArray[np.bool_]]:
    """Fill the runs of ones; no more memory is taken than the box around them needs.

    Args:
        runs: lengths (N,), those of zeros first.
        size: (H, W) of the image that they fill.

    Returns:
        Row and column at which the box begins, and the box as a mask (h, w); an empty one where nothing is covered.

    Raises:
        ValueError: negative lengths, or such as do not add up to the image: it says what was found.
    """
    height, pixels = size[0], size[0] * size[1]
    if runs.size and (runs.min() < 0 or runs.max() > pixels):
        raise ValueError(f"a run of {int(runs.min() if runs.min() < 0 else runs.max())}")
    ends = np.cumsum(runs)
    if (int(ends[-1]) if runs.size else 0) != pixels:
        raise ValueError(f"{int(ends[-1]) if runs.size else 0} pixels")
    stops = ends[1::2][runs[1::2] > 0]
    starts = stops - runs[1::2][runs[1::2] > 0]
    if not starts.size:
        return 0, 0, np.zeros((0, 0), bool)
    columns, rows = starts // height, starts % height
    left, right = int(columns[0]), int(stops[-1] - 1) // height + 1
    top, bottom = int(rows.min()), int(((stops - 1) % height).max()) + 1
    if ((stops - 1) // height != columns).any():  # a run that goes on in the next column reaches both ends of the image
        top, bottom = 0, height
    begin = (columns - left) * (bottom - top) + rows - top
    turns = np.zeros((bottom - top) * (right - left) + 1, np.int8)
    turns[begin] = 1
    turns[begin + stops - starts] -= 1
    return top, left, np.cumsum(turns[:-1], dtype=np.int8).astype(bool).reshape(right - left, bottom - top).T


def of_regions(regions: NDArray[np.integer]) -> Iterator[tuple[int, NDArray[np.int64]]]:
    """Give the run lengths of every region of an array, in one go through it.

    Args:
        regions: (H, W) numbers; equal ones are one region.

    Yields:
        A number and its runs (N,), from small numbers to large; they add up to the array, with no empty run at the end.
    """
    flat = regions.T.reshape(-1)
    if not flat.size:
        return
    starts = np.flatnonzero(np.concatenate([[True], flat[1:] != flat[:-1]]))
    stops = np.append(starts[1:], flat.size)
    owner = flat[starts]
    order = np.argsort(owner, kind="stable")
    first = np.flatnonzero(np.diff(owner[order], prepend=owner[order[0]] - 1))
    for own in np.split(order, first[1:]):
        borders = np.stack([starts[own], stops[own]], 1).reshape(-1)
        borders = borders if borders[-1] == flat.size else np.append(borders, flat.size)
        yield int(owner[own[0]]), np.diff(borders, prepend=0)
