"""Find values far outside of all others in an image, such as -9999: pixels without data that nothing marks as such."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

_STEP = 16  # one value in so many is examined first
_MOST = 3  # values per band
_HUGE = 1e19  # ±FLT_MAX, 1e20 (climate models), 9.97e36 (netCDF)
_MINIMA = {-(2**15), 1 - 2**15, -(2**31), 1 - 2**31}
_MAXIMA = {2**15 - 1, 2**16 - 1, 2**31 - 1, 2**32 - 1}
_FEWEST, _LEAST_SHARE = 16, 1e-3  # pixels of a value that is not known as a mark


@dataclass(frozen=True, slots=True)
class FarValue:
    """A value far outside of the others.

    Args:
        value: as stored.
        pixels: number of pixels with that value in any band.
        low, high: the range of all other values in these bands.
        spread_with, spread: largest standard deviation of a band with, and without, the value.
    """

    value: float
    pixels: int
    low: float
    high: float
    spread_with: float
    spread: float


def far_values(image: NDArray[Any], valid: NDArray[np.bool_] | None = None) -> tuple[FarValue, ...]:
    """Find the far values of an image (C, *S), the most frequent first; pixels that are not valid (*S) do not count.

    A value is far if the gap to the nearest other value exceeds the range of all others by a factor. The factor is small for
    numbers that usually mark missing data. Bytes are not examined: there, 0 and 255 are also black borders and white paper.
    """
    if image.dtype.kind not in "iuf" or image.dtype.itemsize == 1:
        return ()
    bands = image.reshape(len(image), -1) if valid is None else image[:, valid]
    by_band = [_far_in_band(band) for band in bands]
    found = []
    for value in dict.fromkeys(value for values in by_band for value in values):
        within = [(band, values) for band, values in zip(bands, by_band, strict=True) if value in values]
        rest = [band[~np.isin(band, values)] for band, values in within]
        pixels = int(np.count_nonzero((bands == value).any(axis=0)))
        low = min((float(values.min()) for values in rest if values.size), default=value)
        high = max((float(values.max()) for values in rest if values.size), default=value)
        # Scaled, since squares of ±FLT_MAX overflow.
        scale = max(abs(float(value)), 1.0)
        with_value = scale * max(float((band / scale).std(dtype=np.float64)) for band, _ in within)
        without = max((float(values.std(dtype=np.float64)) for values in rest if values.size), default=0.0)
        found.append(FarValue(value, pixels, low, high, with_value, without))
    return tuple(sorted(found, key=lambda far: -far.pixels))


def _far_in_band(band: NDArray[Any]) -> list[float]:
    """Return the far values of the pixels of one band (N,)."""
    found: list[float] = []
    while len(found) < _MOST and band.size:
        value = next((end for end in (band.min().item(), band.max().item()) if _is_far(end, band)), None)
        if value is None:
            break
        found.append(value)
        band = band[band != value]
    return found


def _is_far(end: float, band: NDArray[Any]) -> bool:
    """Whether the lowest or highest value of a band is far from all others."""
    factor, fewest = _required(end, band.size)
    sample = band[::_STEP]
    if factor is None or not _gap_exceeds(factor, end, sample[sample != end]):
        return False
    rest = band[band != end]
    return band.size - rest.size >= fewest and _gap_exceeds(factor, end, rest)


def _gap_exceeds(factor: float, end: float, rest: NDArray[Any]) -> bool:
    """Whether the gap between a value and the others exceeds the range of these by a factor."""
    if not rest.size:
        return True
    low, high = float(rest.min()), float(rest.max())
    if low == high and not (end < 0 or abs(end) >= _HUGE):
        return False  # two values: a drawing, or a threshold
    gap = low / 2 - end / 2 if end < low else end / 2 - high / 2  # halves, since differences overflow
    return gap > factor * (high / 2 - low / 2)


def _required(value: float, size: int) -> tuple[float | None, int]:
    """Return by what factor the gap must exceed the range, and in how many of `size` pixels; None if no value is far enough."""
    if abs(value) >= _HUGE:
        return 0.5, 1
    if value in _MINIMA or (value <= -999 and value == int(value) and set(str(int(-value))) == {"9"}):
        return 0.3, 1
    fewest = max(_FEWEST, round(_LEAST_SHARE * size))
    if value in _MAXIMA:
        return 2.0, fewest
    return (None if value == 0 else 10.0), fewest
