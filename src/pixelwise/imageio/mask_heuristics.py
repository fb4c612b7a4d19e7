"""Tell by the values of masks what they mean, where nobody says: one object per id, or two classes with soft edges.

Comes in: the raw values of some masks, one after the other. Goes out: what they show, all together. Knows nothing of files or
classes. What is not clear is no sign: class ids are the common case, and stay what they are.

Objects are numbered from 1 on in every mask, so ids have no gaps, the last one is another from mask to mask, and each is one
region. Classes leave gaps where one does not occur, end with the same id, or come in several regions.
Soft edges hold grey values nowhere but along the border between dark and bright.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from pixelwise.geometry.contours import components
from pixelwise.imageio.images import RawMask

# Objects: a last id that classes in gapless order do not reach by chance, and how far it varies.
_HANDFUL, _VARIES, _FEW = 8, 1.5, 3
_GAPLESS, _MASKS, _ONE_REGION = 0.95, 0.9, 0.8
# Soft edges: how far from the ends a value is between them, and how far from the border it may lie, in pixels.
_END, _BRIGHT, _REACH = 16, 200, 4
_ALONG, _GREYS = 0.9, 4
_SIDE = 4096  # of larger masks, their middle is looked at


@dataclass
class Signs:
    """Sum up what masks show.

    Args:
        tops: the last id of every mask that holds one.
        gapless: how many of these hold nearly every id up to it.
        grounded: how many of these hold 0, too.
        ids: how many ids there are, counted in every mask.
        whole: how many of these are one region.
        greys: the values above the darkest and below the brightest, in masks of 8 bits with bright pixels.
        between: the pixels far from dark and from bright.
        along: how many of these lie along a border.
        bright: masks of 8 bits with bright pixels.
        shades: masks of 8 bits that hold anything but 0.
        other: masks of colours, bits or negative values, which show neither.

    """

    tops: list[int] = field(default_factory=list)
    gapless: int = 0
    grounded: int = 0
    ids: int = 0
    whole: int = 0
    greys: set[int] = field(default_factory=set)
    between: int = 0
    along: int = 0
    bright: int = 0
    shades: int = 0
    other: int = 0

    def add(self, raw: RawMask) -> None:
        """Add a mask."""
        values = _middle(raw.values)
        if raw.kind not in ("index", "palette") or values.ndim != 2 or (values.size and values.min() < 0):
            self.other += 1
            return
        if raw.kind == "index" and values.dtype == np.uint8 and values.any():
            self._add_edges(values.astype(np.uint8, copy=False))
        every = np.unique(raw.values)
        ids = every[every > 0]
        if len(ids):
            self.tops.append(int(ids[-1]))
            self.gapless += len(ids) >= _GAPLESS * int(ids[-1])
            self.grounded += bool(every[0] == 0)
            shown, whole = _regions(values)
            self.ids += shown
            self.whole += whole

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
        """Say whether each id is one object."""
        masks = len(self.tops)
        if masks < 2 or self.other or max(self.tops) < _HANDFUL or max(self.tops) < _VARIES * min(self.tops):
            return False
        numbered = self.gapless >= _MASKS * masks and self.grounded >= _MASKS * masks
        return numbered and self.whole >= _ONE_REGION * self.ids

    @property
    def soft(self) -> bool:
        """Say whether these are two classes with soft edges."""
        if self.other or len(self.greys) < _GREYS or 2 * self.bright < self.shades:
            return False
        return self.along >= _ALONG * self.between


def numbered(raw: RawMask) -> bool:
    """Say whether one mask alone looks as if each id were an object: no gaps from 1 on, and nearly each one region."""
    values = _middle(raw.values)
    if raw.kind not in ("index", "palette") or not values.size or values.min() < 0:
        return False
    ids = np.unique(raw.values[raw.values > 0])
    shown, whole = _regions(values)
    return len(ids) >= _FEW and len(ids) == ids[-1] and whole >= _ONE_REGION * shown


def _middle(values: NDArray[np.integer]) -> NDArray[np.integer]:
    """Cut a mask to what can be looked at without much memory."""
    top, left = (max(side - _SIDE, 0) // 2 for side in values.shape[:2])
    return values[top : top + _SIDE, left : left + _SIDE]


def _regions(values: NDArray[np.integer]) -> tuple[int, int]:
    """Count the ids but 0, and those that are one region of 4-connected pixels each."""
    regions, total = components(values)
    owner = np.zeros(total, np.int64)
    owner[regions] = values
    parts = np.unique(owner[owner > 0], return_counts=True)[1]
    return len(parts), int(np.count_nonzero(parts == 1))


def _border(values: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Mark what lies within a few pixels of where dark meets bright."""
    size = 2 * _REACH + 1
    return (ndimage.maximum_filter(values, size) >= 128) & (ndimage.minimum_filter(values, size) < 128)
