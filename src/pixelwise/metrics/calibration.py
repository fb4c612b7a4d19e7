"""Whether probabilities can be believed: how far confidence and accuracy lie apart, and what doubtful pixels cost.

Comes in: probabilities (K, *S) and truth (*S), an image or a band of rows at a time. Goes out: sums that add up over
bands and images, and the scores of their totals. Knows nothing of models or files.

Confidence is the largest probability of a pixel, and the first class that has it is the prediction. Reliability bins
are of equal width; bin b holds b/bins ≤ p < (b + 1)/bins, and the last one holds p = 1, too. (torchmetrics gives p = 1
a bin of its own, Guo et al. count the upper edge instead of the lower one.) Risk and coverage are counted in finer
bins, equal in log-odds, because most pixels of a good network lie above 0.99; within a fine bin pixels count as
accepted in no order.
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
# The last fine bin begins at log-odds 16.5 and so holds what float32 can just tell from 1.
_FINE, _STEP = 128, 1 / 6
_LOWEST = 16.5 - (_FINE - 1) * _STEP
# So many probabilities stay in the cache while they are counted.
_CHUNK = 1 << 18
# Probabilities kept as float16, or blended from tiles, do not sum to 1 exactly.
_SLACK = 0.01


class Parts(NamedTuple):
    """Name the sums: views on (…, M), the leading axes kept. `bins` and `fine` run from low to high confidence."""

    pixels: Ratios  # (…): counted pixels
    brier: Ratios  # (…): sum of squared errors
    nll: Ratios  # (…): sum of -log p(true class)
    top: Ratios  # (…, 3, bins): pixels, sum of confidence, pixels that are right
    classes: Ratios  # (…, 3, K, bins): pixels, sum of p(class), pixels whose truth is the class
    fine: Ratios  # (…, 2, fine): pixels, pixels that are right


@dataclass(frozen=True)
class Layout:
    """Say where in a row of sums what lies.

    Args:
        num_classes: K.
        bins: reliability bins.

    """

    num_classes: int
    bins: int = 15

    @property
    def size(self) -> int:
        """Count the sums, M."""
        return 3 + 3 * self.bins + 3 * self.num_classes * self.bins + 2 * _FINE

    def split(self, sums: NDArray[Any]) -> Parts:
        """Give the named views on sums (…, M)."""
        if sums.shape[-1:] != (self.size,):
            found, fix = str(sums.shape), "Give what calibration_sums made with as many classes and bins."
            raise UsageError("sums", expected=f"(…, {self.size})", found=found, do=fix)
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
    """Sum up what all scores of calibration are made of, over one image or one band of it.

    Args:
        probabilities: floats (K, *S) that sum to 1 over K; anything where the truth is ignored.
        truth: integers (*S), class indices or the ignore index.
        ignore_index: true pixels with this value count in nothing.
        bins: reliability bins.
        where: what messages call the image.

    Returns:
        Sums (M,) as `Layout(K, bins)` names them; add them up over bands and images. -log p is taken at no less than
        the smallest normal float32, 1.18e-38, and so is 87.3 at most.

    Raises:
        UsageError: an ignore index that is a class, no bins, or values that are no probabilities.
        MaskError: another size than the truth's, or counted pixels outside 0…K-1.

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
        right = picked == confidence
        level = p == confidence
        if np.count_nonzero(level) > t.size:
            # Of equal classes the first is predicted; looking for it always would take a fifth longer.
            right &= level.argmax(0) == t
        # In double: beside 1, single squares of small errors would be lost.
        squares = np.einsum("kn,kn->", p, p, dtype=np.float64) - 2 * picked.sum(dtype=np.float64) + t.size
        scalars += t.size, max(squares, 0.0), -np.log(np.maximum(picked, TINY)).sum(dtype=np.float64)
        _add_bins(top, _bin(confidence, bins), confidence, right)
        keys = _bin(p, bins)
        hits = keys[t, np.arange(t.size)] + offsets[t]
        keys += offsets[:, None]
        count = layout.num_classes * bins
        flat = keys.reshape(-1)
        classes[0] += np.bincount(flat, minlength=count).reshape(-1, bins)
        classes[1] += np.bincount(flat, p.reshape(-1), minlength=count).reshape(-1, bins)
        classes[2] += np.bincount(hits, minlength=count).reshape(-1, bins)
        _add_fine(fine, _fine_bin(confidence), right)
    return sums


def _chunks(
    probabilities: NDArray[Any], truth: NDArray[Any], ignore_index: int, where: object
) -> Iterator[tuple[Singles, NDArray[np.intp]]]:
    """Give the counted pixels piece by piece: probabilities (K, n) and class indices (n,), both checked."""
    num_classes = len(probabilities)
    if 0 <= ignore_index < num_classes:
        expected = f"a value outside the class indices 0–{num_classes - 1}"
        fix = "Choose another value for pixels that do not count."
        raise UsageError("ignore_index", expected=expected, found=str(ignore_index), do=fix)
    if probabilities.dtype.kind != "f":
        found, fix = str(probabilities.dtype), "Give probabilities (K, *S), not classes."
        raise UsageError(where, expected="floats", found=found, do=fix)
    if truth.dtype.kind not in "uib":
        found = f"truth of {truth.dtype}"
        raise MaskError(where, expected="whole numbers", found=found, do="Give class indices.")
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
    odd = t[(t < 0) | (t >= len(p))]
    if odd.size:
        expected = f"class indices 0–{len(p) - 1} or the ignore index {ignore_index}"
        fix = "Check that truth and probabilities use the same labels."
        raise MaskError(where, expected=expected, found=f"{odd[0]} in the truth", do=fix)
    total = p.sum(0)
    # Written so that NaN fails, too.
    wrong = np.flatnonzero(~(np.abs(total - 1) <= _SLACK))
    if wrong.size or not p.min() >= 0:
        found = f"a sum of {total[wrong[0]]:.4g}" if wrong.size else f"{p.min():.4g}"
        fix = "Take the softmax of logits first."
        raise UsageError(where, expected="probabilities that sum to 1 over the classes", found=found, do=fix)


def _bin(values: Singles, bins: int) -> NDArray[np.intp]:
    return np.minimum(values * np.float32(bins), np.float32(bins - 1)).astype(np.intp)


def _fine_bin(confidence: Singles) -> NDArray[np.intp]:
    odds = np.log(confidence / np.maximum(1 - confidence, np.float32(2**-25)))
    return np.clip((odds - _LOWEST) / _STEP, 0, _FINE - 1).astype(np.intp)


def _add_bins(top: Ratios, keys: NDArray[np.intp], confidence: Singles, right: NDArray[np.bool_]) -> None:
    bins = top.shape[-1]
    top[0] += np.bincount(keys, minlength=bins)
    top[1] += np.bincount(keys, confidence, minlength=bins)
    top[2] += np.bincount(keys[right], minlength=bins)


def _add_fine(fine: Ratios, keys: NDArray[np.intp], right: NDArray[np.bool_]) -> None:
    fine[0] += np.bincount(keys, minlength=_FINE)
    fine[1] += np.bincount(keys[right], minlength=_FINE)


def calibration_scores(totals: NDArray[Any], layout: Layout) -> dict[str, Ratios]:
    """Give every score of totals (…, M), each (…); NaN where no pixel counts. Stack the values for a bootstrap.

    - `confidence`: mean confidence; above the accuracy (`accuracy_at_100`) the model believes itself too much.
    - `ece`: expected calibration error, the mean over pixels of |accuracy - confidence| of their bin, and `mce`, the
      largest over bins with pixels: Guo et al. 2017, arXiv:1706.04599.
    - `classwise_ece`: the same of every class's probability against how often it is true, mean over the classes that
      the truth shows: Kull et al. 2019, arXiv:1910.12656, who take all classes; those that never occur would only
      flatter.
    - `brier`: mean over pixels of the sum over classes of (p - [class is true])²: Brier 1950. 0 is best, 2 is worst.
    - `nll`: mean of -log p(true class).
    - `aurc`: mean risk (share of wrong pixels) over coverages 0 to 1, the most confident pixels first: Geifman &
      El-Yaniv 2017, arXiv:1705.08500; Geifman et al. 2019, arXiv:1805.08206.
    - `accuracy_at_50`, … `_100`: pixel accuracy among the 50 … 100 % of pixels with the most confidence.
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
        right, pixels = (share * parts.fine[..., 1, :]).sum(-1), (share * parts.fine[..., 0, :]).sum(-1)
        scores[f"accuracy_at_{coverage:.0%}".removesuffix("%")] = ratio(right, pixels)
    return scores


def classwise_errors(totals: NDArray[Any], layout: Layout) -> Ratios:
    """Give the calibration error of each class's probability, (…, K); NaN where the truth lacks the class.

    A rare class has a small error whatever it does: its probability is near 0 at most pixels.
    """
    parts = layout.split(np.asarray(totals, np.float64))
    gap = np.abs(parts.classes[..., 1, :, :] - parts.classes[..., 2, :, :]).sum(-1)
    shown = parts.classes[..., 2, :, :].sum(-1) > 0
    return ratio(gap, np.where(shown, parts.pixels[..., None], 0.0))


def _accepted(pixels: NDArray[Any], coverage: float) -> Ratios:
    """Give the share of each fine bin's pixels (…, fine) that are among the most confident `coverage` of all."""
    before = pixels.sum(-1, keepdims=True) - np.cumsum(pixels, -1)
    wanted = coverage * pixels.sum(-1, keepdims=True)
    return np.nan_to_num(np.clip(ratio(wanted - before, pixels), 0, 1))


def _area(fine: Ratios) -> Ratios:
    """Give the integral of risk over coverage, (…), in closed form: errors come evenly within a fine bin.

    After A pixels with E errors, a bin of m pixels with e errors has the risk (E + x e/m) / (A + x) after x of its
    pixels.
    """
    pixels = fine[..., 0, ::-1]
    errors = pixels - fine[..., 1, ::-1]
    pixels_before, errors_before = np.cumsum(pixels, -1) - pixels, np.cumsum(errors, -1) - errors
    rate = np.nan_to_num(ratio(errors, pixels))
    growth = np.log1p(np.nan_to_num(ratio(pixels, pixels_before)))
    return ratio((errors + (errors_before - rate * pixels_before) * growth).sum(-1), pixels.sum(-1))


@dataclass(frozen=True, eq=False)
class Reliability:
    """Hold what a reliability diagram shows, per bin of the largest probability (bins,) and of each class's (K, bins).

    Means and shares are NaN in bins without pixels. `accuracy` is the share of right pixels, `class_frequency` the
    share of pixels whose truth is the class.
    """

    edges: Ratios
    pixels: Ratios
    confidence: Ratios
    accuracy: Ratios
    class_pixels: Ratios
    class_probability: Ratios
    class_frequency: Ratios


def reliability(totals: NDArray[Any], layout: Layout) -> Reliability:
    """Give the points of the reliability diagram of totals (M,): DeGroot & Fienberg 1983, Guo et al. 2017."""
    parts = layout.split(np.asarray(totals, np.float64))
    tables = [(t[0], ratio(t[1], t[0]), ratio(t[2], t[0])) for t in (parts.top, parts.classes)]
    return Reliability(np.linspace(0, 1, layout.bins + 1), *tables[0], *tables[1])


def risk_coverage(totals: NDArray[Any], layout: Layout) -> tuple[Ratios, Ratios]:
    """Give coverages from small to 1 and the share of wrong pixels at each, of totals (M,); empty without pixels."""
    pixels, right = layout.split(np.asarray(totals, np.float64)).fine[:, ::-1]
    used = pixels > 0
    covered, correct = np.cumsum(pixels[used]), np.cumsum(right[used])
    return covered / pixels.sum().clip(1), 1 - correct / covered


def coverage_counts(
    probabilities: NDArray[Any], truth: NDArray[Any], *, ignore_index: int = 255, where: object = "probabilities"
) -> Counts:
    """Count per class and fine bin of confidence: hits, true and predicted pixels, int64 (3, fine, K), to be added up.

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
    """Hold scores (C,) among the most confident pixels; `classes` says how many classes have a union there."""

    coverages: tuple[float, ...]
    mean_iou: Ratios
    pixel_accuracy: Ratios
    classes: Counts


def coverage_scores(counts: Counts, coverages: Sequence[float] = COVERAGES) -> CoverageScores:
    """Score only the most confident pixels: mean IoU over the classes with a union among them, and pixel accuracy.

    Args:
        counts: what `coverage_counts` gave, added up. Where the last bin needed is needed in part, its counts are
            shared.
        coverages: shares of pixels, above 0 and up to 1.

    """
    shares = np.stack([_accepted(counts[1].sum(-1), coverage) for coverage in coverages])
    hits, truth, predicted = np.moveaxis(np.tensordot(shares, counts, (1, 1)), 1, 0)
    iou = ratio(hits, truth + predicted - hits)
    accuracy = ratio(hits.sum(-1), truth.sum(-1))
    return CoverageScores(tuple(coverages), mean_defined(iou), accuracy, (~np.isnan(iou)).sum(-1))
