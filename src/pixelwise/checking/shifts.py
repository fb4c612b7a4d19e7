"""Checks on where masks lie: whether they are shifted against their images, all of them or some.

Comes in: a `Survey`; the profiles of its images (see `drift`). Goes out: findings. Knows nothing of classes.

A profile says how well a mask would fit its image if it were moved by -8…8 pixels. Masks that fit have their peak at 0; the
mean over all images shows a peak that no single image does. How sure its place is, the bootstrap over images tells.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pixelwise.checking.alignment import LENGTH, REACH
from pixelwise.checking.findings import Finding, some
from pixelwise.checking.inspection import Seen
from pixelwise.checking.survey import Survey
from pixelwise.checking.wording import tell

_FEWEST = 8  # images with edges, to speak of a set
_LEAST = 2  # pixels: what annotators differ by is no shift
_SURE, _RESAMPLES = 0.99, 1000
# Some masks of a set: at least five and one in twenty, each of which fits a tenth better, eight of ten in one place.
_FEWEST_MOVED, _SHARE_MOVED, _CLEARLY, _AGREED = 5, 0.05, 1.1, 0.8


class Shift(NamedTuple):
    """Hold how far masks lie from their images: pixels right and down."""

    right: int
    down: int

    @property
    def words(self) -> str:
        """Say "3 pixels right of and 2 pixels below"; nothing where there is no shift."""
        said = []
        for pixels, plus, minus in ((self.right, "right of", "left of"), (self.down, "below", "above")):
            if pixels:
                said.append(f"{some(abs(pixels), 'pixel', 'pixels')} {plus if pixels > 0 else minus}")
        return " and ".join(said)

    @property
    def back(self) -> str:
        """Say where to move the masks."""
        said = []
        for pixels, plus, minus in ((self.right, "to the left", "to the right"), (self.down, "up", "down")):
            if pixels:
                said.append(f"{some(abs(pixels), 'pixel', 'pixels')} {plus if pixels > 0 else minus}")
        return " and ".join(said)


def shifted_masks(survey: Survey) -> Iterator[Finding]:
    """Find a shift that the masks of the set have in common, else one that some of them have."""
    edged = [one for one in survey.good if one.profiles.any()]
    if len(edged) < _FEWEST:
        return
    profiles = _smoothed(np.stack([one.profiles for one in edged]).astype(np.float64))
    shift = Shift(*(-_peak(profiles[:, axis]) for axis in (0, 1)))
    moved = [one for one, own in zip(edged, profiles, strict=True) if _fits_better(own, shift)]
    kind, masks = "shifted-masks", "masks lie"
    if not any(shift):
        kind, masks = "some-masks-shifted", "some masks lie"
        shift, moved = _minority(edged, profiles)
    if any(shift):
        what = (
            f"{masks} about {shift.words} their images: they would fit better elsewhere in {len(moved)} of {len(edged)}"
        )
        what += " looked at" if len(edged) < len(survey.good) else ""
        why = "The model learns borders that are not where things end, and is scored on them."
        fix = f"Move them by {shift.back}, and find the step that moved them: a crop, a resize, the offset of a tool."
        yield tell(survey, kind, "warning", moved, what, why, fix, of=len(edged), masks=True)


def _smoothed(profiles: NDArray[np.float64]) -> NDArray[np.float64]:
    """Take the mean of three neighbours, weighed 1, 2, 1: human borders are not sharp to the pixel."""
    wide = np.pad(profiles, ((0, 0), (0, 0), (1, 1)), "edge")
    return wide[..., :-2] / 4 + wide[..., 1:-1] / 2 + wide[..., 2:] / 4


def _peak(profiles: NDArray[np.float64]) -> int:
    """Give where the mean profile (of (N, 17)) peaks, if that is surely away from 0; else 0."""
    told = profiles[profiles.any(1)]
    if len(told) < _FEWEST:
        return 0
    rng = np.random.default_rng(0)
    drawn = rng.multinomial(len(told), np.full(len(told), 1 / len(told)), _RESAMPLES)
    peaks = (drawn @ told).argmax(1) - REACH
    peak = int(told.mean(0).argmax()) - REACH
    away = (peaks * np.sign(peak) >= _LEAST).mean()
    return peak if abs(peak) < REACH and away >= _SURE else 0


def _fits_better(own: NDArray[np.float64], shift: Shift) -> bool:
    """Tell whether an image's mask would fit better where the set says than where it is."""
    return bool(sum(own[axis][REACH - by] - own[axis][REACH] for axis, by in enumerate(shift) if by) > 0)


def _minority(edged: list[Seen], profiles: NDArray[np.float64]) -> tuple[Shift, list[Seen]]:
    """Find masks that clearly fit elsewhere, and nearly all in one place: what noise does points everywhere."""
    shifts = [0, 0]
    moved: set[int] = set()
    for axis in (0, 1):
        own = profiles[:, axis]
        peaks = own.argmax(1) - REACH
        here = own[:, REACH - 1 : REACH + 2].max(1)
        clear = (np.abs(peaks) > _LEAST) & (np.abs(peaks) < REACH) & (own.max(1) > _CLEARLY * here)
        counts = np.bincount(peaks[clear] + REACH, minlength=LENGTH)
        near = np.convolve(counts, (1, 1, 1), "same")
        place = int(near.argmax())
        if near[place] >= max(_FEWEST_MOVED, _SHARE_MOVED * len(edged)) and near[place] >= _AGREED * counts.sum():
            agreed = np.flatnonzero(clear & (np.abs(peaks + REACH - place) <= 1))
            shifts[axis] = -round(float(np.median(peaks[agreed])))
            moved |= set(agreed.tolist())
    return Shift(*shifts), [edged[k] for k in sorted(moved)]


CHECKS = (shifted_masks,)
