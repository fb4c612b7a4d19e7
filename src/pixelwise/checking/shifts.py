"""Check whether masks are shifted against their images, all of them or some.

An alignment profile shows how well a mask would fit its image if it were shifted by -8…8 pixels (see `alignment`). The
mean profile over all images has a peak even if single profiles are noisy; its position is tested by bootstrapping images.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pixelwise.checking.alignment import LENGTH, REACH
from pixelwise.checking.findings import Finding, image_finding, plural
from pixelwise.checking.inspection import Inspection
from pixelwise.checking.survey import Survey

_MIN_IMAGES = 8  # images with edges
_MIN_SHIFT = 2  # pixels; annotators differ by less
_CONFIDENCE, _RESAMPLES = 0.99, 1000
# Some masks are shifted if at least five and one in twenty fit 10 % better elsewhere, eight of ten at the same shift.
_MIN_SHIFTED, _SHIFTED_SHARE, _CLEARLY, _AGREEMENT = 5, 0.05, 1.1, 0.8


class Shift(NamedTuple):
    """Offset of masks from their images, in pixels right and down."""

    right: int
    down: int

    @property
    def words(self) -> str:
        """Return "3 pixels right of and 2 pixels below"; "" without a shift."""
        return self._describe(("right of", "left of"), ("below", "above"))

    @property
    def correction(self) -> str:
        """Return "3 pixels to the left and 2 pixels up", which undoes the shift."""
        return self._describe(("to the left", "to the right"), ("up", "down"))

    def _describe(self, horizontal: tuple[str, str], vertical: tuple[str, str]) -> str:
        axes = ((self.right, horizontal), (self.down, vertical))
        return " and ".join(
            f"{plural(abs(pixels), 'pixel', 'pixels')} {words[pixels < 0]}" for pixels, words in axes if pixels
        )


def shifted_masks(survey: Survey) -> Iterator[Finding]:
    """Find a shift common to all masks, otherwise one common to some of them."""
    examined = [image for image in survey.usable if image.profiles.any()]
    if len(examined) < _MIN_IMAGES:
        return
    profiles = _smoothed(np.stack([image.profiles for image in examined]).astype(np.float64))
    shift = Shift(*(-_peak(profiles[:, axis]) for axis in (0, 1)))
    shifted = [image for image, profile in zip(examined, profiles, strict=True) if _fits_better(profile, shift)]
    kind, subject = "shifted-masks", "masks are"
    if not any(shift):
        kind, subject = "some-masks-shifted", "some masks are"
        shift, shifted = _minority(examined, profiles)
    if any(shift):
        what = (
            f"{subject} about {shift.words} their images: {len(shifted)} of {len(examined)} would fit better elsewhere"
        )
        what += " (of those examined)" if len(examined) < len(survey.usable) else ""
        why = "The model learns wrong borders, and is scored on them."
        fix = f"Move the masks {shift.correction}, and find the cause: a crop, a resize, the offset of a tool."
        yield image_finding(survey, kind, "warning", shifted, what, why, fix, of=len(examined), masks=True)


def _smoothed(profiles: NDArray[np.float64]) -> NDArray[np.float64]:
    """Smooth profiles with weights 1, 2, 1, since hand-drawn borders are not exact to the pixel."""
    wide = np.pad(profiles, ((0, 0), (0, 0), (1, 1)), "edge")
    return wide[..., :-2] / 4 + wide[..., 1:-1] / 2 + wide[..., 2:] / 4


def _peak(profiles: NDArray[np.float64]) -> int:
    """Return the peak of the mean of profiles (N, 17) if it is significantly away from 0, otherwise 0."""
    profiles = profiles[profiles.any(1)]
    count = len(profiles)
    if count < _MIN_IMAGES:
        return 0
    resamples = np.random.default_rng(0).multinomial(count, np.full(count, 1 / count), _RESAMPLES)
    peaks = (resamples @ profiles).argmax(1) - REACH
    peak = int(profiles.mean(0).argmax()) - REACH
    away = (peaks * np.sign(peak) >= _MIN_SHIFT).mean()
    return peak if abs(peak) < REACH and away >= _CONFIDENCE else 0


def _fits_better(profile: NDArray[np.float64], shift: Shift) -> bool:
    """Whether a mask would fit better if the common shift were undone."""
    return bool(sum(profile[axis][REACH - by] - profile[axis][REACH] for axis, by in enumerate(shift) if by) > 0)


def _minority(examined: list[Inspection], profiles: NDArray[np.float64]) -> tuple[Shift, list[Inspection]]:
    """Find masks that clearly fit elsewhere, most of them at the same shift; noise has no common direction."""
    shifts = [0, 0]
    shifted: set[int] = set()
    for axis in (0, 1):
        profile = profiles[:, axis]
        peaks = profile.argmax(1) - REACH
        here = profile[:, REACH - 1 : REACH + 2].max(1)
        clear = (np.abs(peaks) > _MIN_SHIFT) & (np.abs(peaks) < REACH) & (profile.max(1) > _CLEARLY * here)
        counts = np.bincount(peaks[clear] + REACH, minlength=LENGTH)
        near = np.convolve(counts, (1, 1, 1), "same")
        place = int(near.argmax())
        enough = near[place] >= max(_MIN_SHIFTED, _SHIFTED_SHARE * len(examined))
        if enough and near[place] >= _AGREEMENT * counts.sum():
            agreeing = np.flatnonzero(clear & (np.abs(peaks + REACH - place) <= 1))
            shifts[axis] = -round(float(np.median(peaks[agreeing])))
            shifted |= set(agreeing.tolist())
    return Shift(*shifts), [examined[k] for k in sorted(shifted)]


CHECKS = (shifted_masks,)
