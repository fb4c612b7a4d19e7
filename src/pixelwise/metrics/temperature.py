"""Temperature scaling: sampling pixels, fitting the temperature, and applying it to probabilities."""

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
# Probabilities processed at once, chosen to stay in the cache.
_CHUNK = 1 << 18


@dataclass(frozen=True)
class PixelSample:
    """A random choice of pixels of each image that depends on (seed, image id) only.

    Args:
        number: maximum number of pixels per image.
        ignore_index: value of ignored pixels of the truth, which are never chosen.
        seed: random seed.
    """

    number: int = 2000
    ignore_index: int = 255
    seed: int = 0

    def places(self, truth: NDArray[Any], key: str) -> NDArray[np.intp]:
        """Return the chosen indices (n,) into the flattened truth of an image, ascending; `key` is the image's id."""
        counted = np.flatnonzero(truth.reshape(-1) != self.ignore_index)
        if counted.size <= self.number:
            return counted
        words = np.frombuffer(hashlib.sha256(key.encode("utf-8", "surrogateescape")).digest(), "<u4").tolist()
        chosen = np.random.default_rng([self.seed, *words]).choice(counted.size, self.number, replace=False)
        return counted[np.sort(chosen)]


def log_probabilities(probabilities: NDArray[Any], places: NDArray[np.intp], start: int = 0) -> Singles:
    """Return log p (n, K) at the chosen pixels of an image that are in this band.

    Args:
        probabilities: (K, *S) of the image, or (K, rows, *S[1:]) of a band.
        places: from `PixelSample.places`.
        start: flat index of the band's first pixel, its first row times the pixels of a row.

    Returns:
        Logarithms, at least that of the smallest normal float32. Concatenated over bands they are those of the image.
    """
    columns = probabilities.reshape(len(probabilities), -1)
    here = places[(places >= start) & (places < start + columns.shape[1])] - start
    return np.log(np.maximum(columns[:, here].T.astype(np.float32), np.float32(TINY)))


@dataclass(frozen=True)
class Temperature:
    """A temperature, and its effect on the pixels it was fitted to; `reason` explains a missing optimum."""

    value: float
    nll_before: float
    nll_after: float
    ece_before: float
    ece_after: float
    pixels: int
    reason: str = ""


def fit_temperature(log_probabilities: NDArray[Any], truth: NDArray[Any]) -> Temperature:
    """Find the T in 0.05…20 that minimises the mean -log softmax(log p / T)[true class]: Guo et al. 2017.

    The mean is convex in 1/T and minimised by Newton steps within a shrinking bracket, to a relative precision of 1e-10.

    Args:
        log_probabilities: (N, K) logarithms of probabilities, or logits; differences to the largest are limited to 87.3.
        truth: integers (N,), class indices only.

    Returns:
        The temperature. It is 1 with a reason if the pixels do not determine it (no pixels, one class, all correct, all classes
        equal), and the bound with a reason if the optimum is outside.

    Raises:
        UsageError: shapes that do not match, NaN, or classes outside 0…K-1.
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
        reason = "all classes have the same probability at every pixel"
    elif bool((scores[np.arange(n), t] == 0).all()):
        reason = "every pixel is correct"
    elif _slopes(scores, t, 1 / HOTTEST)[1] >= 0:
        value, reason = HOTTEST, f"the optimum is above {HOTTEST}"
    elif _slopes(scores, t, 1 / COLDEST)[1] <= 0:
        value, reason = COLDEST, f"the optimum is below {COLDEST}"
    else:
        value = 1 / _root(scores, t)
    after = first[0] if value == 1 else _slopes(scores, t, 1 / value)[0]
    return Temperature(value, first[0], after, _sample_ece(scores, t, 1.0), _sample_ece(scores, t, value), n, reason)


def _fit_input(scores: NDArray[Any], truth: NDArray[Any]) -> tuple[NDArray[Any], NDArray[np.intp]]:
    """Validate, and return scores (N, K) shifted to a maximum of 0 and limited to at least log(TINY)."""
    found = f"{scores.shape} of {scores.dtype} and {truth.shape} of {truth.dtype}"
    if scores.ndim != 2 or truth.shape != scores.shape[:1] or scores.dtype.kind != "f" or truth.dtype.kind not in "uib":
        expected, fix = "floats (N, K) and integers (N,)", "Pass one row of log-probabilities per pixel."
        raise UsageError("log_probabilities", expected=expected, found=found, do=fix)
    t, k = truth.astype(np.intp), scores.shape[1]
    if t.size and not 0 <= t.min() <= t.max() < k:
        invalid, fix = int(t.max() if t.max() >= k else t.min()), "Leave out ignored pixels, as PixelSample does."
        raise UsageError("truth", expected=f"class indices 0–{k - 1}", found=str(invalid), do=fix)
    peak = scores.max(1, keepdims=True, initial=-np.inf)
    if not np.isfinite(peak).all():
        expected, fix = "a finite largest value per pixel", "Use logarithms of probabilities above 0."
        raise UsageError("log_probabilities", expected=expected, found="NaN or infinity", do=fix)
    return np.maximum(scores - peak, np.asarray(np.log(TINY), scores.dtype)), t


def _softmaxes(
    scores: NDArray[Any], t: NDArray[np.intp], inverse: float
) -> Iterator[tuple[Ratios, NDArray[np.intp], Ratios, Ratios]]:
    """Yield in chunks the scores (n, K), truth, softmax(scores · inverse) and the logarithm of its divisor (n, 1)."""
    step = _CHUNK // scores.shape[1] + 1
    for start in range(0, len(t), step):
        piece = scores[start : start + step].astype(np.float64)
        powers = np.exp(piece * inverse)
        divisor = powers.sum(1, keepdims=True)
        yield piece, t[start : start + step], powers / divisor, np.log(divisor)


def _slopes(scores: NDArray[Any], t: NDArray[np.intp], inverse: float) -> tuple[float, float, float]:
    """Return the mean -log p(true class) at T = 1 / inverse, and its first and second derivative with respect to `inverse`."""
    total = np.zeros(3)
    for piece, true, p, divisor in _softmaxes(scores, t, inverse):
        picked = piece[np.arange(len(true)), true]
        mean = (p * piece).sum(1)
        spread = p * (piece - mean[:, None]) ** 2
        total += divisor.sum() - inverse * picked.sum(), (mean - picked).sum(), spread.sum()
    value, slope, curvature = (total / len(t)).tolist()
    return value, slope, curvature


def _root(scores: NDArray[Any], t: NDArray[np.intp]) -> float:
    """Find the root of the slope by Newton steps, or the geometric mean of the bracket if a step leaves it."""
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
    """Compute p^(1/T) divided by its sum over axis 0, which is softmax(logits / T) for p = softmax(logits).

    The first class with the largest probability stays the first, so predictions do not change. A probability of 0 stays 0.

    Args:
        probabilities: float32 (K, …) that sum to 1 over K.
        temperature: T; above 1 lowers confidence, below 1 raises it, 1 returns the array itself.

    Raises:
        UsageError: the temperature is not above 0.
    """
    if not 0 < temperature < np.inf:
        fix = "Use the result of fit_temperature."
        raise UsageError("temperature", expected="a number above 0", found=str(temperature), do=fix)
    if temperature == 1:
        return probabilities
    peak = probabilities.max(0)
    # Relative to the largest, which is exactly 1, so that the powers cannot all underflow.
    result: Singles = probabilities / np.maximum(peak, np.float32(TINY))
    np.power(result, np.float32(1 / temperature), out=result)
    total = np.maximum(result.sum(0), np.float32(TINY))
    result /= total
    top = 1 / total
    level = (result >= top) & (probabilities < peak)
    if level.any():
        # Classes just below the largest were rounded up to it.
        np.copyto(result, np.nextafter(top, np.float32(0)), where=level)
    return result
