"""Infer what the values of masks mean if nothing states it: one object per id, or two classes with soft edges.

Without clear evidence they are class ids, the most common case.

Objects are numbered from 1 on in every mask: ids have no gaps, the largest one varies from mask to mask, and each is one
region. Classes leave gaps if one does not occur, have the same largest id, or form several regions.
Soft edges have grey values only along the border between dark and bright.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from pixelwise.geometry.contours import components
from pixelwise.imageio.images import RawMask

# Objects.
_MIN_TOP = 8  # minimum of the largest id over all masks
_MIN_RATIO = 1.5  # minimum ratio of the largest ids of two masks
_MIN_IDS = 3  # minimum number of ids in a single mask
_GAPLESS = 0.95  # share of the ids up to the largest that occur
_MASKS = 0.9  # share of the masks that are gapless, and that have background
_ONE_REGION = 0.8  # share of the ids that are one region
# Soft edges.
_END = 16  # grey values differ at least by this from dark and from bright
_BRIGHT = 200
_REACH = 4  # greatest distance of grey values from the border, in pixels
_ALONG = 0.9  # share of the grey values along the border
_GREYS = 4  # minimum number of grey values
_SIDE = 4096  # of larger masks, only the middle is analysed


@dataclass
class MaskStatistics:
    """Statistics over masks.

    Args:
        tops: the largest id of every mask that has one.
        gapless: how many of these masks have nearly every id up to the largest.
        with_zero: how many of these masks also contain 0.
        ids: number of ids, counted in every mask.
        one_region: number of these that are one region.
        greys: the values between the darkest and the brightest, in 8-bit masks with bright pixels.
        between: number of pixels far from dark and from bright.
        along: number of these along a border.
        bright: number of 8-bit masks with bright pixels.
        shades: number of 8-bit masks with values other than 0.
        other: number of masks with colours, bits or negative values.
    """

    tops: list[int] = field(default_factory=list)
    gapless: int = 0
    with_zero: int = 0
    ids: int = 0
    one_region: int = 0
    greys: set[int] = field(default_factory=set)
    between: int = 0
    along: int = 0
    bright: int = 0
    shades: int = 0
    other: int = 0

    def add(self, raw: RawMask) -> None:
        """Add a mask."""
        raw = raw.single_band()
        values = _middle(raw.values)
        if raw.kind not in ("index", "palette") or values.ndim != 2 or (values.size and values.min() < 0):
            self.other += 1
            return
        if raw.kind == "index" and values.dtype == np.uint8 and values.any():
            self._add_edges(values.astype(np.uint8, copy=False))
        present = np.unique(raw.values)
        ids = present[present > 0]
        if len(ids):
            self.tops.append(int(ids[-1]))
            self.gapless += len(ids) >= _GAPLESS * int(ids[-1])
            self.with_zero += bool(present[0] == 0)
            count, one_region = _regions(values)
            self.ids += count
            self.one_region += one_region

    def _add_edges(self, values: NDArray[np.uint8]) -> None:
        self.shades += 1
        high = int(values.max())
        if high < _BRIGHT:
            self.between += int(np.count_nonzero(values > _END))
            return
        self.bright += 1
        self.greys.update(np.unique(values[(values > _END) & (values < high)]).tolist())
        between = (values > _END) & (values < high - _END)
        if between.any():
            self.between += int(np.count_nonzero(between))
            self.along += int(np.count_nonzero(between & _border(values)))

    @property
    def objects(self) -> bool:
        """Whether each id is one object."""
        masks = len(self.tops)
        if masks < 2 or self.other or max(self.tops) < _MIN_TOP or max(self.tops) < _MIN_RATIO * min(self.tops):
            return False
        numbered = self.gapless >= _MASKS * masks and self.with_zero >= _MASKS * masks
        return numbered and self.one_region >= _ONE_REGION * self.ids

    @property
    def soft(self) -> bool:
        """Whether the masks are two classes with soft edges."""
        if self.other or len(self.greys) < _GREYS or 2 * self.bright < self.shades:
            return False
        return self.along >= _ALONG * self.between


def numbered(raw: RawMask) -> bool:
    """Whether each id of a single mask is probably an object: no gaps from 1 on, and nearly each one region."""
    raw = raw.single_band()
    values = _middle(raw.values)
    if raw.kind not in ("index", "palette") or not values.size or values.min() < 0:
        return False
    ids = np.unique(raw.values[raw.values > 0])
    count, one_region = _regions(values)
    return len(ids) >= _MIN_IDS and len(ids) == ids[-1] and one_region >= _ONE_REGION * count


def _middle(values: NDArray[np.integer]) -> NDArray[np.integer]:
    """Return the middle of a large mask, to bound the memory."""
    top, left = (max(side - _SIDE, 0) // 2 for side in values.shape[:2])
    return values[top : top + _SIDE, left : left + _SIDE]


def _regions(values: NDArray[np.integer]) -> tuple[int, int]:
    """Count the ids other than 0, and those that are one 4-connected region."""
    regions, total = components(values)
    owner = np.zeros(total, np.int64)
    owner[regions] = values
    parts = np.unique(owner[owner > 0], return_counts=True)[1]
    return len(parts), int(np.count_nonzero(parts == 1))


def _border(values: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Mark the pixels near a border between dark and bright."""
    size = 2 * _REACH + 1
    return (ndimage.maximum_filter(values, size) >= 128) & (ndimage.minimum_filter(values, size) < 128)
