"""Calibration of probabilities, and scores among the most confident pixels, from sums that add up over bands and images.

Confidence is the largest probability of a pixel; the prediction is the first class that has it. Reliability bins are of equal
width: bin b holds b/bins ≤ p < (b + 1)/bins, and the last bin includes p = 1. (torchmetrics puts p = 1 in a bin of its own; Guo
et al. include the upper edge instead of the lower one.) Risk and coverage use finer bins of equal width in log-odds, because most
pixels of a good network are above 0.99; within a fine bin, pixels are not ordered.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pixelwise.errors import MaskError, UsageError
from pixelwise.metrics.confusion import Counts, Ratios, mean_defined, ratio

Singles = NDArray[np.float32]
COVERAGES = (0.5, 0.8, 0.9, 0.95, 1.0)
TINY = float(np.finfo(np.float32).tiny)
# The last fine bin begins at log-odds 16.5, the largest that float32 can distinguish from 1.
_FINE, _STEP = 128, 1 / 6
_LOWEST = 16.5 - (_FINE - 1) * _STEP
# Probabilities processed at once, chosen to stay in the cache.
_CHUNK = 1 << 18
# Probabilities stored as float16, or blended from tiles, do not sum to 1 exactly.
_SLACK = 0.01


class Parts(NamedTuple):
    """Named views on sums (…, M). `bins` and `fine` are in order of increasing confidence."""

    pixels: Ratios  # (…): counted pixels
    brier: Ratios  # (…): sum of squared errors
    nll: Ratios  # (…): sum of -log p(true class)
    top: Ratios  # (…, 3, bins): pixels, sum of confidence, correct pixels
    classes: Ratios  # (…, 3, K, bins): pixels, sum of p(class), pixels whose truth is the class
    fine: Ratios  # (…, 2, fine): pixels, correct pixels


@dataclass(frozen=True)
class Layout:
    """The layout of a row of sums.

    Args:
        num_classes: K.
        bins: reliability bins.
    """

    num_classes: int
    bins: int = 15

    @property
    def size(self) -> int:
        """Number of sums, M."""
        return 3 + 3 * self.bins + 3 * self.num_classes * self.bins + 2 * _FINE

    def split(self, sums: NDArray[Any]) -> Parts:
        """Return named views on sums (…, M)."""
        if sums.shape[-1:] != (self.size,):
            fix = "Pass sums from calibration_sums with the same number of classes and bins."
            raise UsageError("sums", expected=f"(…, {self.size})", found=str(sums.shape), do=fix)
        lead, bins = sums.shape[:-1], self.bins
        scalars, top, classes, fine = np.split(sums, np.cumsum([3, 3 * bins, 3 * self.num_classes * bins]), axis=-1)
        return Parts(
            scalars[..., 0],
            scalars[..., 1],
            scalars[..., 2],
            top.reshape(*lead, 3, bins),
            classes.reshape(*lead, 3, self.num_classes, bins),
            fine.reshape(*lead, 2, _FINE),
        )


def calibration_sums(
    probabilities: NDArray[Any],
    truth: NDArray[Any],
    *,
    ignore_index: int = 255,
    bins: int = 15,
    where: object = "probabilities",
) -> Ratios:
    """Compute the sums for all calibration scores over one image or a band of it.

    Args:
        probabilities: floats (K, *S) that sum to 1 over K; any values where the truth is ignored.
        truth: integers (*S), class indices or the ignore index.
        ignore_index: value of ignored pixels of the truth.
        bins: number of reliability bins.
        where: name of the image in error messages.

    Returns:
        Sums (M,) in the layout `Layout(K, bins)`, which add up over bands and images. In -log p, p is at least the smallest
        normal float32, 1.18e-38, so that it is at most 87.3.

    Raises:
        UsageError: the ignore index is a class index, no bins, or values that are not probabilities.
        MaskError: another size than the truth, or counted pixels outside 0…K-1.
    """
    if bins < 1:
        raise UsageError("bins", expected="at least 1", found=str(bins), do="Use 15, as most papers do.")
    layout = Layout(len(probabilities), bins)
    sums = np.zeros(layout.size)
    scalars, top, classes, fine = sums[:3], *layout.split(sums)[3:]
    offsets = bins * np.arange(layout.num_classes)
    for p, t in _chunks(probabilities, truth, ignore_index, where):
        picked = p[t, np.arange(t.size)]
        confidence = p.max(0)
        correct = picked == confidence
        level = p == confidence
        if np.count_nonzero(level) > t.size:
            # With ties the first class is predicted; always computing the argmax would take a fifth longer.
            correct &= level.argmax(0) == t
        # In double, since float32 would lose the squares of small errors next to 1.
        squares = np.einsum("kn,kn->", p, p, dtype=np.float64) - 2 * picked.sum(dtype=np.float64) + t.size
        scalars += t.size, max(squares, 0.0), -np.log(np.maximum(picked, TINY)).sum(dtype=np.float64)
        _add_bins(top, _bin(confidence, bins), confidence, correct)
        keys = _bin(p, bins)
        hits = keys[t, np.arange(t.size)] + offsets[t]
        keys += offsets[:, None]
        count = layout.num_classes * bins
        flat = keys.reshape(-1)
        classes[0] += np.bincount(flat, minlength=count).reshape(-1, bins)
        classes[1] += np.bincount(flat, p.reshape(-1), minlength=count).reshape(-1, bins)
        classes[2] += np.bincount(hits, minlength=count).reshape(-1, bins)
        _add_fine(fine, _fine_bin(confidence), correct)
    return sums


def _chunks(
    probabilities: NDArray[Any], truth: NDArray[Any], ignore_index: int, where: object
) -> Iterator[tuple[Singles, NDArray[np.intp]]]:
    """Yield the counted pixels in chunks: validated probabilities (K, n) and class indices (n,)."""
    num_classes = len(probabilities)
    if 0 <= ignore_index < num_classes:
        expected = f"a value outside the class indices 0–{num_classes - 1}"
        fix = "Choose another value for ignored pixels."
        raise UsageError("ignore_index", expected=expected, found=str(ignore_index), do=fix)
    if probabilities.dtype.kind != "f":
        found, fix = str(probabilities.dtype), "Pass probabilities (K, *S), not classes."
        raise UsageError(where, expected="floats", found=found, do=fix)
    if truth.dtype.kind not in "uib":
        found = f"truth of {truth.dtype}"
        raise MaskError(where, expected="integers", found=found, do="Pass class indices.")
    if truth.shape != probabilities.shape[1:]:
        size, fix = probabilities.shape[1:], "Score at native size: resize logits, not the truth."
        raise MaskError(where, expected=f"truth of size {size}", found=str(truth.shape), do=fix)
    columns, classes = probabilities.reshape(num_classes, truth.size), truth.reshape(-1)
    step = _CHUNK // num_classes + 1
    for start in range(0, classes.size, step):
        t, p = classes[start : start + step].astype(np.intp), columns[:, start : start + step]
        counted = t != ignore_index
        if not counted.all():
            kept = np.flatnonzero(counted)
            t, p = t[kept], p.take(kept, axis=1)
        if t.size:
            p = np.ascontiguousarray(p, np.float32)
            _require(p, t, ignore_index, where)
            yield p, t


def _require(p: Singles, t: NDArray[np.intp], ignore_index: int, where: object) -> None:
    invalid = t[(t < 0) | (t >= len(p))]
    if invalid.size:
        expected = f"class indices 0–{len(p) - 1} or the ignore index {ignore_index}"
        fix = "Check that truth and probabilities use the same labels."
        raise MaskError(where, expected=expected, found=f"{invalid[0]} in the truth", do=fix)
    total = p.sum(0)
    # The negated comparison also catches NaN.
    wrong = np.flatnonzero(~(np.abs(total - 1) <= _SLACK))
    if wrong.size or not p.min() >= 0:
        found = f"a sum of {total[wrong[0]]:.4g}" if wrong.size else f"{p.min():.4g}"
        fix = "Apply softmax to logits first."
        raise UsageError(where, expected="probabilities that sum to 1 over the classes", found=found, do=fix)


def _bin(values: Singles, bins: int) -> NDArray[np.intp]:
    return np.minimum(values * np.float32(bins), np.float32(bins - 1)).astype(np.intp)


def _fine_bin(confidence: Singles) -> NDArray[np.intp]:
    odds = np.log(confidence / np.maximum(1 - confidence, np.float32(2**-25)))
    return np.clip((odds - _LOWEST) / _STEP, 0, _FINE - 1).astype(np.intp)


def _add_bins(top: Ratios, keys: NDArray[np.intp], confidence: Singles, correct: NDArray[np.bool_]) -> None:
    bins = top.shape[-1]
    top[0] += np.bincount(keys, minlength=bins)
    top[1] += np.bincount(keys, confidence, minlength=bins)
    top[2] += np.bincount(keys[correct], minlength=bins)


def _add_fine(fine: Ratios, keys: NDArray[np.intp], correct: NDArray[np.bool_]) -> None:
    fine[0] += np.bincount(keys, minlength=_FINE)
    fine[1] += np.bincount(keys[correct], minlength=_FINE)


def calibration_scores(totals: NDArray[Any], layout: Layout) -> dict[str, Ratios]:
    """Compute all scores from totals (…, M), (…) each; NaN without counted pixels.

    - `confidence`: mean confidence; if it is above the accuracy (`accuracy_at_100`), the model is overconfident.
    - `ece`: expected calibration error, the mean over pixels of |accuracy - confidence| of their bin, and `mce`, the
      largest over bins with pixels: Guo et al. 2017, arXiv:1706.04599.
    - `classwise_ece`: the same for the probability of each class, averaged over the classes in the truth: Kull et al. 2019,
      arXiv:1910.12656, who average over all classes; absent classes would only lower it.
    - `brier`: mean over pixels of the sum over classes of (p - [class is true])²: Brier 1950; between 0 (best) and 2.
    - `nll`: mean of -log p(true class).
    - `aurc`: mean risk (share of wrong pixels) over coverages 0 to 1, the most confident pixels first: Geifman &
      El-Yaniv 2017, arXiv:1705.08500; Geifman et al. 2019, arXiv:1805.08206.
    - `accuracy_at_50`, … `_100`: pixel accuracy among the 50 … 100 % most confident pixels.
    """
    parts = layout.split(np.asarray(totals, np.float64))
    gap = np.abs(parts.top[..., 1, :] - parts.top[..., 2, :])
    each = ratio(gap, parts.top[..., 0, :])
    scores = {
        "confidence": ratio(parts.top[..., 1, :].sum(-1), parts.pixels),
        "ece": ratio(gap.sum(-1), parts.pixels),
        "mce": np.where(parts.pixels > 0, np.nan_to_num(each).max(-1), np.nan),
        "classwise_ece": mean_defined(classwise_errors(totals, layout)),
        "brier": ratio(parts.brier, parts.pixels),
        "nll": ratio(parts.nll, parts.pixels),
        "aurc": _area(parts.fine),
    }
    for coverage in COVERAGES:
        share = _accepted(parts.fine[..., 0, :], coverage)
        correct, pixels = (share * parts.fine[..., 1, :]).sum(-1), (share * parts.fine[..., 0, :]).sum(-1)
        scores[f"accuracy_at_{coverage:.0%}".removesuffix("%")] = ratio(correct, pixels)
    return scores


def classwise_errors(totals: NDArray[Any], layout: Layout) -> Ratios:
    """Compute the calibration error of each class's probability, (…, K); NaN for classes absent from the truth.

    A rare class always has a small error, because its probability is near 0 at most pixels.
    """
    parts = layout.split(np.asarray(totals, np.float64))
    gap = np.abs(parts.classes[..., 1, :, :] - parts.classes[..., 2, :, :]).sum(-1)
    shown = parts.classes[..., 2, :, :].sum(-1) > 0
    return ratio(gap, np.where(shown, parts.pixels[..., None], 0.0))


def _accepted(pixels: NDArray[Any], coverage: float) -> Ratios:
    """Return the share of each fine bin's pixels (…, fine) that is among the most confident `coverage` of all pixels."""
    before = pixels.sum(-1, keepdims=True) - np.cumsum(pixels, -1)
    accepted = coverage * pixels.sum(-1, keepdims=True)
    return np.nan_to_num(np.clip(ratio(accepted - before, pixels), 0, 1))


def _area(fine: Ratios) -> Ratios:
    """Compute the integral of risk over coverage, (…), in closed form, with errors spread evenly within a fine bin.

    After A pixels with E errors and x of the m pixels of a bin with e errors, the risk is (E + x e/m) / (A + x).
    """
    pixels = fine[..., 0, ::-1]
    errors = pixels - fine[..., 1, ::-1]
    pixels_before, errors_before = np.cumsum(pixels, -1) - pixels, np.cumsum(errors, -1) - errors
    rate = np.nan_to_num(ratio(errors, pixels))
    growth = np.log1p(np.nan_to_num(ratio(pixels, pixels_before)))
    return ratio((errors + (errors_before - rate * pixels_before) * growth).sum(-1), pixels.sum(-1))


@dataclass(frozen=True, eq=False)
class Reliability:
    """A reliability diagram, per bin of the largest probability (bins,) and of each class's probability (K, bins).

    Means and shares are NaN in empty bins. `accuracy` is the share of correct pixels, `class_frequency` the share of pixels whose
    truth is the class.
    """

    edges: Ratios
    pixels: Ratios
    confidence: Ratios
    accuracy: Ratios
    class_pixels: Ratios
    class_probability: Ratios
    class_frequency: Ratios


def reliability(totals: NDArray[Any], layout: Layout) -> Reliability:
    """Compute the points of the reliability diagram from totals (M,): DeGroot & Fienberg 1983, Guo et al. 2017."""
    parts = layout.split(np.asarray(totals, np.float64))
    tables = [(t[0], ratio(t[1], t[0]), ratio(t[2], t[0])) for t in (parts.top, parts.classes)]
    return Reliability(np.linspace(0, 1, layout.bins + 1), *tables[0], *tables[1])


def risk_coverage(totals: NDArray[Any], layout: Layout) -> tuple[Ratios, Ratios]:
    """Return increasing coverages up to 1 and the share of wrong pixels at each, from totals (M,); empty without pixels."""
    pixels, correct_pixels = layout.split(np.asarray(totals, np.float64)).fine[:, ::-1]
    used = pixels > 0
    covered, correct = np.cumsum(pixels[used]), np.cumsum(correct_pixels[used])
    return covered / pixels.sum().clip(1), 1 - correct / covered


def coverage_counts(
    probabilities: NDArray[Any], truth: NDArray[Any], *, ignore_index: int = 255, where: object = "probabilities"
) -> Counts:
    """Count per class and fine bin of confidence: true positives, true and predicted pixels, int64 (3, fine, K).

    Arguments and errors as in `calibration_sums`.
    """
    shape = (3, _FINE, len(probabilities))
    counts = np.zeros(shape, np.int64)
    for p, t in _chunks(probabilities, truth, ignore_index, where):
        prediction = p.argmax(0)
        rows = _fine_bin(p.max(0)) * shape[2]
        for place, keys in enumerate(((rows + t)[prediction == t], rows + t, rows + prediction)):
            counts[place] += np.bincount(keys, minlength=_FINE * shape[2]).reshape(shape[1:])
    return counts


@dataclass(frozen=True, eq=False)
class CoverageScores:
    """Scores (C,) among the most confident pixels; `classes` is the number of classes with a union there."""

    coverages: tuple[float, ...]
    mean_iou: Ratios
    pixel_accuracy: Ratios
    classes: Counts


def coverage_scores(counts: Counts, coverages: Sequence[float] = COVERAGES) -> CoverageScores:
    """Score the most confident pixels only: mean IoU over the classes with a union among them, and pixel accuracy.

    Args:
        counts: totals of `coverage_counts`. If a bin is needed in part, that part of its counts is used.
        coverages: shares of pixels, above 0 and at most 1.
    """
    shares = np.stack([_accepted(counts[1].sum(-1), coverage) for coverage in coverages])
    hits, truth, predicted = np.moveaxis(np.tensordot(shares, counts, (1, 1)), 1, 0)
    iou = ratio(hits, truth + predicted - hits)
    accuracy = ratio(hits.sum(-1), truth.sum(-1))
    return CoverageScores(tuple(coverages), mean_defined(iou), accuracy, (~np.isnan(iou)).sum(-1))
