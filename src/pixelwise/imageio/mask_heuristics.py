"""Infer what the values of masks mean if nothing states it: one object per id, or two classes with soft edges.

Without clear evidence they are class ids, the most common case.

Objects are numbered from 1 on in every mask: ids have no gaps, the largest one varies from mask to mask, and each is one
region. Classes leave gaps if one does not occur, have the same largest id, or form several regions.
Soft edges have grey values only along the border between dark and bright.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import accumulate

import numpy as np
from numpy.typing import NDArray
from PIL import Image
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
MIDDLE = 4096  # of larger masks, only the regions and borders in the middle are analysed


@dataclass(frozen=True)
class MaskValues:
    """Which values a mask holds.

    Args:
        kind: see `RawMask`.
        values: those that occur, ascending; empty for colours.
        shades: whether they are 8-bit grey values other than 0.
        between: number of pixels far from dark and from bright, if they are.
    """

    kind: str
    values: NDArray[np.integer]
    shades: bool = False
    between: int = 0

    @classmethod
    def of(cls, mask: RawMask) -> MaskValues:
        """Reduce a mask to its values."""
        return cls.of_windows([mask])

    @classmethod
    def of_windows(cls, windows: Iterable[RawMask]) -> MaskValues:
        """Reduce the windows that a mask consists of to its values."""
        counts = np.zeros(256, np.int64)
        found: list[NDArray[np.integer]] = []
        for raw in (each.single_band() for each in windows):
            if raw.values.ndim != 2:
                return cls(raw.kind, np.empty(0, np.uint8))
            if raw.values.dtype == np.uint8:
                counts += np.array(
                    Image.fromarray(raw.values).histogram()
                )  # faster than bincount, which converts to int64
            else:
                found.append(np.unique(raw.values))
        if found:
            return cls(raw.kind, found[0] if len(found) == 1 else np.unique(np.concatenate(found)))
        values = np.flatnonzero(counts).astype(np.uint8)
        high = int(values[-1]) if len(values) else 0
        between = counts[_END + 1 : high - _END if high >= _BRIGHT else high + 1].sum()
        return cls(raw.kind, values, raw.kind == "index" and high > 0, int(between))

    @property
    def ids(self) -> NDArray[np.integer]:
        """The values other than 0."""
        return self.values[self.values != 0]


@dataclass
class MaskStatistics:
    """Statistics over the values of masks.

    Args:
        masks: number of masks that have an id.
        tops: the largest id of every mask that has nearly every id up to it.
        with_zero: how many of the masks with an id also contain 0.
        ids: number of ids, counted in every mask.
        greys: the values between the darkest and the brightest, in 8-bit masks with bright pixels.
        between: number of pixels of 8-bit masks far from dark and from bright.
        bright: number of 8-bit masks with bright pixels.
        shades: number of 8-bit masks with values other than 0.
        other: number of masks with colours, bits or negative values.
    """

    masks: int = 0
    tops: list[int] = field(default_factory=list)
    with_zero: int = 0
    ids: int = 0
    greys: set[int] = field(default_factory=set)
    between: int = 0
    bright: int = 0
    shades: int = 0
    other: int = 0

    def add(self, mask: MaskValues) -> None:
        """Add a mask."""
        if mask.kind not in ("index", "palette") or (mask.values[:1] < 0).any():
            self.other += 1
            return
        ids = mask.ids
        if not len(ids):
            return
        top = int(ids[-1])
        if mask.shades:
            self.shades += 1
            self.between += mask.between
            if top >= _BRIGHT:
                self.bright += 1
                self.greys.update(ids[(ids > _END) & (ids < top)].tolist())
        self.masks += 1
        if len(ids) >= _GAPLESS * top:
            self.tops.append(top)
        self.with_zero += len(ids) < len(mask.values)
        self.ids += len(ids)

    def objects(self, regions: Iterable[tuple[int, int]]) -> bool:
        """Whether each id is one object.

        Args:
            regions: `count_regions` of each mask; used if the values allow objects, and only until that is decided.
        """
        if self.other or self.masks < 2 or min(len(self.tops), self.with_zero) < _MASKS * self.masks:
            return False
        if max(self.tops) < _MIN_TOP or max(self.tops) < _MIN_RATIO * min(self.tops):
            return False
        single, several = 0, 0
        for ids, one_region in regions:
            single += one_region
            several += ids - one_region
            if several > (1 - _ONE_REGION) * self.ids:
                return False
            if single >= _ONE_REGION * self.ids:
                break
        return True

    def soft(self, off_border: Iterable[int]) -> bool:
        """Whether the masks are two classes with soft edges.

        Args:
            off_border: `count_off_border` of each mask; used if the values allow soft edges, and only until that is decided.
        """
        if self.other or len(self.greys) < _GREYS or 2 * self.bright < self.shades:
            return False
        most = (1 - _ALONG) * self.between
        return all(total <= most for total in accumulate(off_border))


def count_regions(raw: RawMask) -> tuple[int, int]:
    """Count the ids other than 0 of a mask, and those that are one 4-connected region."""
    return _regions(_middle(raw.single_band().values))


def count_off_border(raw: RawMask) -> int:
    """Count the pixels of an 8-bit mask far from dark and from bright, and not along a border between them."""
    raw = raw.single_band()
    values = _middle(raw.values)
    if raw.kind != "index" or values.dtype != np.uint8 or not values.size:
        return 0
    high = int(values.max())
    if high < _BRIGHT:
        return int(np.count_nonzero(values > _END))
    between = (values > _END) & (values < high - _END)
    return int(np.count_nonzero(between & ~_border(values))) if between.any() else 0


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
    top, left = (max(side - MIDDLE, 0) // 2 for side in values.shape[:2])
    return values[top : top + MIDDLE, left : left + MIDDLE]


def _regions(values: NDArray[np.integer]) -> tuple[int, int]:
    """Count the ids other than 0, and those that are one 4-connected region."""
    regions, total = components(values)
    owner = np.zeros(total, np.int64)
    owner[regions] = values
    parts = np.unique(owner[owner > 0], return_counts=True)[1]
    return len(parts), int(np.count_nonzero(parts == 1))


def _border(values: NDArray[np.integer]) -> NDArray[np.bool_]:
    """Mark the pixels near a border between dark and bright."""
    size = 2 * _REACH + 1
    return (ndimage.maximum_filter(values, size) >= 128) & (ndimage.minimum_filter(values, size) < 128)
