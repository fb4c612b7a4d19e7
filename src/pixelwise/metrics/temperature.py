"""One temperature that corrects probabilities: the pixels it is fitted to, the fit, and the correction.

Comes in: probabilities (K, *S) and truth (*S) of images. Goes out: a sample of pixels, the temperature that makes their
negative log-likelihood smallest, and tempered probabilities. Knows nothing of models or files.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pixelwise.errors import UsageError
from pixelwise.metrics.calibration import TINY, Layout, Singles, calibration_scores, calibration_sums
from pixelwise.metrics.confusion import Ratios

COLDEST, HOTTEST = 0.05, 20.0
# So many probabilities stay in the cache while they are used.
_CHUNK = 1 << 18


@dataclass(frozen=True)
class PixelSample:
    """Choose pixels of an image by (seed, key) alone, whatever was seen before: what a temperature is fitted to.

    Args:
        number: so many pixels of an image at most.
        ignore_index: true pixels with this value are never chosen.
        seed: another seed chooses others.

    """

    number: int = 2000
    ignore_index: int = 255
    seed: int = 0

    def places(self, truth: NDArray[Any], key: str) -> NDArray[np.intp]:
        """Give the chosen places (n,) in the flat truth of a whole image, ascending; `key` is the image's id."""
        counted = np.flatnonzero(truth.reshape(-1) != self.ignore_index)
        if counted.size <= self.number:
            return counted
        words = np.frombuffer(hashlib.sha256(key.encode("utf-8", "surrogateescape")).digest(), "<u4").tolist()
        chosen = np.random.default_rng([self.seed, *words]).choice(counted.size, self.number, replace=False)
        return counted[np.sort(chosen)]


def log_probabilities(probabilities: NDArray[Any], places: NDArray[np.intp], start: int = 0) -> Singles:
    """Give log p (n, K) at those flat places of an image that lie in this band of it.

    Args:
        probabilities: (K, *S) of the image, or (K, rows, W) of a band.
        places: from `PixelSample.places`.
        start: the flat place of the band's first pixel, its first row times W.

    Returns:
        Logarithms, none below that of the smallest normal float32; those of bands, one after another, are the
        image's.

    """
    columns = probabilities.reshape(len(probabilities), -1)
    here = places[(places >= start) & (places < start + columns.shape[1])] - start
    return np.log(np.maximum(columns[:, here].T.astype(np.float32), np.float32(TINY)))


@dataclass(frozen=True)
class Temperature:
    """Hold what divides logits, and what that did to the pixels it was fitted to; `reason` tells a missing optimum."""

    value: float
    nll_before: float
    nll_after: float
    ece_before: float
    ece_after: float
    pixels: int
    reason: str = ""


def fit_temperature(log_probabilities: NDArray[Any], truth: NDArray[Any]) -> Temperature:
    """Find the T in 0.05…20 that makes the mean -log softmax(log p / T)[true class] smallest: Guo et al. 2017.

    The mean is convex in 1/T; Newton steps within a shrinking bracket go down to 1e-10 of the value.

    Args:
        log_probabilities: (N, K) logarithms of probabilities, or logits; more than 87.3 below the largest counts as
            87.3.
        truth: integers (N,), class indices only.

    Returns:
        The temperature. It is 1 with a reason where the pixels do not determine it (none at all, one class, all right,
        all classes alike), and the bound with a reason where the optimum lies outside.

    Raises:
        UsageError: shapes that do not fit, NaN, or classes outside 0…K-1.

    """
    scores, t = _fit_input(log_probabilities, truth)
    n, k = scores.shape
    first = _slopes(scores, t, 1.0) if n else (float("nan"),) * 3
    value, reason = 1.0, ""
    if not n:
        reason = "no pixels"
    elif k == 1:
        reason = "one class"
    elif first[2] == 0:
        reason = "all classes are alike at every pixel"
    elif bool((scores[np.arange(n), t] == 0).all()):
        reason = "every pixel is right"
    elif _slopes(scores, t, 1 / HOTTEST)[1] >= 0:
        value, reason = HOTTEST, f"the optimum lies above {HOTTEST}"
    elif _slopes(scores, t, 1 / COLDEST)[1] <= 0:
        value, reason = COLDEST, f"the optimum lies below {COLDEST}"
    else:
        value = 1 / _root(scores, t)
    after = first[0] if value == 1 else _slopes(scores, t, 1 / value)[0]
    return Temperature(value, first[0], after, _sample_ece(scores, t, 1.0), _sample_ece(scores, t, value), n, reason)


def _fit_input(scores: NDArray[Any], truth: NDArray[Any]) -> tuple[NDArray[Any], NDArray[np.intp]]:
    """Check, and give scores (N, K) whose largest is 0 and whose smallest is log(TINY) at least."""
    found = f"{scores.shape} of {scores.dtype} and {truth.shape} of {truth.dtype}"
    if scores.ndim != 2 or truth.shape != scores.shape[:1] or scores.dtype.kind != "f" or truth.dtype.kind not in "uib":
        expected, fix = "floats (N, K) and whole numbers (N,)", "Give one row of log-probabilities per pixel."
        raise UsageError("log_probabilities", expected=expected, found=found, do=fix)
    t, k = truth.astype(np.intp), scores.shape[1]
    if t.size and not 0 <= t.min() <= t.max() < k:
        odd, fix = int(t.max() if t.max() >= k else t.min()), "Leave ignored pixels out, as PixelSample does."
        raise UsageError("truth", expected=f"class indices 0–{k - 1}", found=str(odd), do=fix)
    peak = scores.max(1, keepdims=True, initial=-np.inf)
    if not np.isfinite(peak).all():
        expected, fix = "a finite largest value per pixel", "Take logarithms of probabilities above 0."
        raise UsageError("log_probabilities", expected=expected, found="NaN or infinity", do=fix)
    return np.maximum(scores - peak, np.asarray(np.log(TINY), scores.dtype)), t


def _softmaxes(
    scores: NDArray[Any], t: NDArray[np.intp], inverse: float
) -> Iterator[tuple[Ratios, NDArray[np.intp], Ratios, Ratios]]:
    """Give by pieces scores (n, K), truth, softmax(scores · inverse) and the logarithm of its divisor (n, 1)."""
    step = _CHUNK // scores.shape[1] + 1
    for start in range(0, len(t), step):
        piece = scores[start : start + step].astype(np.float64)
        powers = np.exp(piece * inverse)
        divisor = powers.sum(1, keepdims=True)
        yield piece, t[start : start + step], powers / divisor, np.log(divisor)


def _slopes(scores: NDArray[Any], t: NDArray[np.intp], inverse: float) -> tuple[float, float, float]:
    """Give the mean -log p(true class) at T = 1 / inverse, and its first and second derivative after `inverse`."""
    total = np.zeros(3)
    for piece, true, p, divisor in _softmaxes(scores, t, inverse):
        picked = piece[np.arange(len(true)), true]
        mean = (p * piece).sum(1)
        spread = p * (piece - mean[:, None]) ** 2
        total += divisor.sum() - inverse * picked.sum(), (mean - picked).sum(), spread.sum()
    value, slope, curvature = (total / len(t)).tolist()
    return value, slope, curvature


def _root(scores: NDArray[Any], t: NDArray[np.intp]) -> float:
    """Find where the slope is 0: Newton steps, and the bracket's geometric middle where they leave it."""
    low, high, at = 1 / HOTTEST, 1 / COLDEST, 1.0
    for _ in range(100):
        _, slope, curvature = _slopes(scores, t, at)
        low, high = (at, high) if slope < 0 else (low, at)
        step = -slope / curvature if curvature > 0 else np.inf
        if not low <= at + step <= high:
            step = float(np.sqrt(low * high)) - at
        at += step
        if abs(step) <= 1e-10 * at:
            break
    return at


def _sample_ece(scores: NDArray[Any], t: NDArray[np.intp], temperature: float) -> float:
    layout = Layout(scores.shape[1])
    sums = np.zeros(layout.size)
    for _, true, p, _ in _softmaxes(scores, t, 1 / temperature):
        sums += calibration_sums(p.T, true, ignore_index=-1)
    return float(calibration_scores(sums, layout)["ece"])


def tempered(probabilities: Singles, temperature: float) -> Singles:
    """Give p^(1/T) divided by its sum over axis 0: softmax(logits / T) where p is softmax(logits).

    The first class with the largest probability stays the first, so no prediction changes. A probability of 0 stays 0.

    Args:
        probabilities: float32 (K, …) that sum to 1 over K.
        temperature: T; above 1 lowers confidence, below 1 raises it, 1 gives the array itself.

    Raises:
        UsageError: a temperature that is not above 0.

    """
    if not 0 < temperature < np.inf:
        fix = "Use what fit_temperature found."
        raise UsageError("temperature", expected="a number above 0", found=str(temperature), do=fix)
    if temperature == 1:
        return probabilities
    peak = probabilities.max(0)
    # Relative to the largest, which stays 1 exactly, no power of all classes can vanish.
    result: Singles = probabilities / np.maximum(peak, np.float32(TINY))
    np.power(result, np.float32(1 / temperature), out=result)
    total = np.maximum(result.sum(0), np.float32(TINY))
    result /= total
    top = 1 / total
    level = (result >= top) & (probabilities < peak)
    if level.any():
        # Classes just below the largest have met it by rounding.
        np.copyto(result, np.nextafter(top, np.float32(0)), where=level)
    return result
