"""Calibration against torchmetrics, sklearn, scipy's optimiser, sorting every pixel, and cases computed by hand."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image
from scipy.ndimage import gaussian_filter
from scipy.optimize import brentq, minimize_scalar
from scipy.special import log_softmax, softmax
from sklearn import metrics as sk
from torchmetrics.classification import BinaryCalibrationError, MulticlassCalibrationError

from pixelwise.errors import MaskError, UsageError
from pixelwise.metrics import calibration, confusion, temperature
from pixelwise.metrics.calibration import (
    Layout,
    calibration_scores,
    calibration_sums,
    classwise_errors,
    coverage_counts,
    coverage_scores,
    reliability,
    risk_coverage,
)
from pixelwise.metrics.confusion import ConfusionMatrix
from pixelwise.metrics.intervals import Statistic, estimate
from pixelwise.metrics.temperature import PixelSample, fit_temperature, log_probabilities, tempered


def drawn(k, shape=(60, 50), void=0.1, seed=0, sharpness=2.0, honest=1.0):
    """Draw probabilities, and a truth that follows them: honest at 1, over-confident below, under-confident above."""
    generator = np.random.default_rng(seed)
    logits = generator.normal(0, sharpness, (k, *shape))
    truth = (honest * logits + generator.gumbel(size=logits.shape)).argmax(0).astype(np.uint8)
    truth[generator.random(shape) < void] = 255
    return softmax(logits, 0).astype(np.float32), truth


def scored(probabilities, truth, bins=15, ignore=255):
    layout = Layout(len(probabilities), bins)
    return calibration_scores(calibration_sums(probabilities, truth, ignore_index=ignore, bins=bins), layout)


def kept(probabilities, truth):
    """Give what counts, as the oracles want it: (N, K) double and (N,)."""
    return probabilities[:, truth != 255].T.astype(np.float64), truth[truth != 255].astype(np.int64)


# --- scores ---


@pytest.mark.parametrize(("k", "bins"), [(2, 15), (5, 15), (5, 10), (19, 15), (3, 1)])
def test_calibration_errors_match_torchmetrics(k, bins):
    probabilities, truth = drawn(k, honest=0.5)
    p, t = (torch.from_numpy(a) for a in kept(probabilities, truth))
    found = scored(probabilities, truth, bins)
    for name, norm in (("ece", "l1"), ("mce", "max")):
        theirs = MulticlassCalibrationError(k, n_bins=bins, norm=norm)(p.float(), t)
        assert found[name] == pytest.approx(float(theirs), rel=1e-4), name


def test_probability_of_one_is_in_the_last_bin():
    """Torchmetrics gives it a bin of its own."""
    probabilities = np.array([[1.0, 0.95], [0.0, 0.05]], np.float32)
    truth = np.array([1, 0])
    theirs = MulticlassCalibrationError(2)(torch.from_numpy(probabilities.T), torch.from_numpy(truth))
    assert float(theirs) == pytest.approx((1 + 0.05) / 2)
    assert scored(probabilities, truth)["ece"] == pytest.approx((1.95 - 1) / 2)


def test_lower_edge_belongs_to_its_bin():
    first = np.array([0, 0.25, 0.5, 0.75, 1, 0.24, 0.76], np.float32)
    probabilities = np.stack([first, 1 - first])
    points = reliability(calibration_sums(probabilities, np.zeros(7, int), bins=4), Layout(2, 4))
    np.testing.assert_array_equal(points.edges, [0, 0.25, 0.5, 0.75, 1])
    np.testing.assert_array_equal(points.class_pixels[0], np.histogram(first, 4, (0, 1))[0])
    np.testing.assert_array_equal(points.pixels, [0, 0, 1, 6])


@pytest.mark.parametrize("k", [2, 6])
def test_classwise_errors_match_torchmetrics_for_each_class(k):
    probabilities, truth = drawn(k, honest=0.6)
    sums, layout = calibration_sums(probabilities, truth), Layout(k)
    p, t = kept(probabilities, truth)
    for name in range(k):
        theirs = BinaryCalibrationError(15)(torch.from_numpy(p[:, name]).float(), torch.from_numpy((t == name) * 1))
        assert classwise_errors(sums, layout)[name] == pytest.approx(float(theirs), rel=1e-4)
    assert calibration_scores(sums, layout)["classwise_ece"] == pytest.approx(classwise_errors(sums, layout).mean())


def test_absent_classes_have_no_error_and_are_not_in_the_mean():
    probabilities, truth = drawn(3)
    wide = np.concatenate([probabilities, np.zeros_like(probabilities[:1])])
    errors = classwise_errors(calibration_sums(wide, truth), Layout(4))
    assert np.isnan(errors[3])
    assert scored(wide, truth)["classwise_ece"] == pytest.approx(scored(probabilities, truth)["classwise_ece"])


@pytest.mark.parametrize("k", [2, 5])
def test_brier_and_nll_match_sklearn(k):
    probabilities, truth = drawn(k, honest=0.7)
    p, t = kept(probabilities, truth)
    p /= p.sum(1, keepdims=True)  # sklearn wants the sum exact in double
    found = scored(probabilities, truth)
    assert found["brier"] == pytest.approx(
        sk.brier_score_loss(t, p, labels=list(range(k)), scale_by_half=False), rel=1e-6
    )
    assert found["nll"] == pytest.approx(sk.log_loss(t, p, labels=list(range(k))), rel=1e-6)


def test_brier_and_nll_of_the_best_and_the_worst():
    sure = np.array([[1.0, 1.0], [0.0, 0.0]], np.float32)
    best, worst = scored(sure, np.array([0, 0])), scored(sure, np.array([1, 1]))
    assert (best["brier"], best["nll"], best["ece"], best["aurc"]) == (0, 0, 0, 0)
    assert (worst["brier"], worst["ece"], worst["aurc"]) == (2, 1, 1)
    assert worst["nll"] == pytest.approx(-np.log(np.finfo(np.float32).tiny), rel=1e-6)  # clipped, not infinite


def test_ties_predict_the_first_class():
    probabilities = np.array([[0.5, 0.2, 0.5], [0.5, 0.4, 0.5], [0.0, 0.4, 0.0]], np.float32)
    found = scored(probabilities, np.array([0, 2, 1]))
    assert found["accuracy_at_100"] == pytest.approx(1 / 3)
    assert found["confidence"] == pytest.approx(1.4 / 3)
    counts = coverage_counts(probabilities, np.array([0, 2, 1]))
    np.testing.assert_array_equal(counts.sum(1), [[1, 0, 0], [1, 1, 1], [2, 1, 0]])


def test_calibrated_probabilities_have_small_errors_and_others_do_not():
    honest, over = (scored(*drawn(4, (400, 400), honest=h)) for h in (1.0, 0.5))
    assert honest["ece"] < 0.004
    assert honest["classwise_ece"] < 0.003
    assert over["ece"] > 0.1
    assert over["confidence"] > over["accuracy_at_100"] + 0.1
    assert honest["confidence"] == pytest.approx(honest["accuracy_at_100"], abs=0.004)


def test_nothing_counted_is_undefined():
    probabilities, truth = drawn(3)
    void = np.full_like(truth, 255)
    sums = calibration_sums(probabilities, void)
    assert not sums.any()
    assert all(np.isnan(value) for value in scored(probabilities, void).values())
    assert risk_coverage(sums, Layout(3))[0].size == 0
    nothing = coverage_scores(coverage_counts(probabilities, void))
    assert np.isnan(nothing.mean_iou).all()
    assert np.isnan(nothing.pixel_accuracy).all()
    assert not nothing.classes.any()
    assert np.isnan(reliability(sums, Layout(3)).accuracy).all()


# --- risk and coverage ---


@pytest.mark.parametrize(("k", "sharpness"), [(2, 0.5), (5, 2.0), (5, 12.0)])
def test_risk_and_coverage_match_sorting_all_pixels(k, sharpness):
    probabilities, truth = drawn(k, (200, 200), sharpness=sharpness, honest=0.5)
    p, t = kept(probabilities, truth)
    order = np.argsort(-p.max(1), kind="stable")
    wrong = (p.argmax(1) != t)[order]
    risks = np.cumsum(wrong) / np.arange(1, t.size + 1)
    found = scored(probabilities, truth)
    assert found["aurc"] == pytest.approx(risks.mean(), rel=0.01)
    for coverage in (0.5, 0.8, 0.9, 0.95):
        expected = 1 - risks[round(coverage * t.size) - 1]
        assert found[f"accuracy_at_{coverage * 100:.0f}"] == pytest.approx(expected, abs=0.002)
    assert found["accuracy_at_100"] == pytest.approx(1 - wrong.mean(), rel=1e-12)
    covered, risk = risk_coverage(calibration_sums(probabilities, truth), Layout(k))
    assert (np.diff(covered) > 0).all()
    np.testing.assert_allclose(risk, risks[np.round(covered * t.size).astype(int) - 1])
    assert covered[-1] == 1


def test_risk_and_coverage_by_hand():
    """4 pixels at 0.9, 1 of them wrong, then 4 at 0.6, 2 of them wrong."""
    high = np.repeat(np.float32([0.9, 0.6]), 4)
    truth = np.array([0, 0, 0, 1, 0, 0, 1, 1])
    found = scored(np.stack([high, 1 - high]), truth)
    assert found["accuracy_at_50"] == pytest.approx(3 / 4)
    assert found["accuracy_at_80"] == pytest.approx((3 + 0.6 * 2) / 6.4)
    x = np.linspace(0, 4, 100_001)
    later = (1 + x / 2) / (4 + x)
    assert found["aurc"] == pytest.approx((4 * 0.25 + np.trapezoid(later, x)) / 8, rel=1e-9)


def test_confidence_close_to_one_is_resolved():
    doubt = np.float32([2**-22, 2**-18, 2**-12])
    counts = coverage_counts(np.stack([1 - doubt, doubt]), np.zeros(3, int))
    assert np.count_nonzero(counts[1].sum(-1)) == 3


def test_scores_at_coverage_match_the_accepted_pixels():
    probabilities, truth = drawn(4, (300, 300), honest=0.5)
    p, t = kept(probabilities, truth)
    order = np.argsort(-p.max(1), kind="stable")
    found = coverage_scores(coverage_counts(probabilities, truth))
    for place, coverage in enumerate(found.coverages):
        few = order[: round(coverage * t.size)]
        predicted = p.argmax(1)[few]
        iou = sk.jaccard_score(t[few], predicted, average="macro")
        assert found.mean_iou[place] == pytest.approx(iou, abs=0.003)
        assert found.pixel_accuracy[place] == pytest.approx(sk.accuracy_score(t[few], predicted), abs=0.002)
    assert found.mean_iou[0] > found.mean_iou[-1] + 0.05
    np.testing.assert_array_equal(found.classes, 4)


def test_number_of_classes_with_confident_pixels():
    probabilities = np.array([[0.99, 0.99, 0.4], [0.01, 0.01, 0.6]], np.float32)
    found = coverage_scores(coverage_counts(probabilities, np.array([0, 0, 1])), (2 / 3, 1.0))
    np.testing.assert_array_equal(found.classes, [1, 2])
    np.testing.assert_allclose(found.mean_iou, 1)


def test_counts_at_full_coverage_match_the_confusion_matrix():
    probabilities, truth = drawn(7)
    matrix = ConfusionMatrix(7)
    matrix.update(truth, probabilities.argmax(0))
    counts = coverage_counts(probabilities, truth)
    assert counts.dtype == np.int64
    np.testing.assert_array_equal(counts.sum(1), confusion.margins(matrix.matrix))
    assert coverage_scores(counts).mean_iou[-1] == pytest.approx(confusion.mean_iou(matrix.matrix), rel=1e-12)


# --- sums ---


@settings(max_examples=40, deadline=None)
@given(
    hnp.arrays(np.float32, (3, 6, 5), elements=st.floats(-20, 20, width=32)),
    hnp.arrays(np.uint8, (6, 5), elements=st.sampled_from([0, 1, 2, 255])),
    st.integers(0, 6),
)
def test_bands_and_images_add_up(logits, truth, cut):
    probabilities = softmax(logits, 0)
    for function in (calibration_sums, coverage_counts):
        whole = function(probabilities, truth)
        upper, lower = function(probabilities[:, :cut], truth[:cut]), function(probabilities[:, cut:], truth[cut:])
        np.testing.assert_allclose(upper + lower, whole, rtol=1e-12, atol=1e-12)
    parts = Layout(3).split(calibration_sums(probabilities, truth))
    n = np.count_nonzero(truth != 255)
    assert parts.pixels == parts.top[0].sum() == parts.fine[0].sum() == parts.classes[2].sum() == n
    assert parts.classes[0].sum() == 3 * n
    assert parts.classes[1].sum() == pytest.approx(n, rel=1e-5)
    assert parts.top[2].sum() == parts.fine[1].sum()


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32), st.sampled_from([0.0, 7.0, -3.0, np.nan, np.inf]))
def test_values_at_ignored_pixels_have_no_effect(seed, anything):
    probabilities, truth = drawn(3, (9, 8), void=0.4, seed=seed)
    changed = np.where(truth == 255, np.float32(anything), probabilities)
    for function in (calibration_sums, coverage_counts):
        np.testing.assert_array_equal(function(changed, truth), function(probabilities, truth))
        alone = function(probabilities[:, truth != 255], truth[truth != 255])
        np.testing.assert_allclose(function(probabilities, truth), alone, rtol=1e-12)


def test_sums_do_not_depend_on_chunks_or_memory_order(monkeypatch):
    probabilities, truth = drawn(5)
    whole, counts = calibration_sums(probabilities, truth), coverage_counts(probabilities, truth)
    turned = np.ascontiguousarray(np.moveaxis(probabilities, 0, -1))
    np.testing.assert_allclose(calibration_sums(np.moveaxis(turned, -1, 0), truth), whole, rtol=1e-12)
    monkeypatch.setattr(calibration, "_CHUNK", 100)
    np.testing.assert_allclose(calibration_sums(probabilities, truth), whole, rtol=1e-9)
    np.testing.assert_array_equal(coverage_counts(probabilities, truth), counts)


def test_any_number_of_dimensions_and_any_float_type():
    probabilities, truth = drawn(3, (4, 6, 5))
    flat = calibration_sums(probabilities.reshape(3, -1), truth.reshape(-1))
    np.testing.assert_array_equal(calibration_sums(probabilities, truth), flat)
    np.testing.assert_array_equal(calibration_sums(probabilities.astype(np.float64), truth.astype(np.int64)), flat)
    half = scored(probabilities.astype(np.float16), truth)
    assert half["brier"] == pytest.approx(float(scored(probabilities, truth)["brier"]), rel=1e-3)


def test_single_class_is_always_correct():
    found = scored(np.ones((1, 4, 4), np.float32), np.zeros((4, 4), np.uint8))
    assert (found["ece"], found["nll"], found["accuracy_at_50"]) == (0, 0, 1)


def test_inputs_are_not_modified():
    probabilities, truth = drawn(4)
    probabilities.setflags(write=False)
    truth.setflags(write=False)
    calibration_sums(probabilities, truth)
    coverage_counts(probabilities, truth)
    tempered(probabilities, 2.0)
    log_probabilities(probabilities, PixelSample(10).places(truth, "a"))
    rows, t = kept(probabilities, truth)
    rows.setflags(write=False)
    fit_temperature(np.log(rows), t)


def test_the_memory_does_not_grow_with_the_image():
    probabilities, truth = drawn(2, (1500, 1500))
    tracemalloc.start()
    calibration_sums(probabilities, truth)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < probabilities.nbytes


def test_totals_are_scored_at_once_and_have_intervals():
    layout = Layout(3)
    images = [drawn(3, (20, 20), seed=s, honest=0.6 + 0.02 * s) for s in range(20)]
    sums = np.stack([calibration_sums(*image) for image in images])
    rows = calibration_scores(sums, layout)
    for name, value in rows.items():
        assert value.shape == (20,)
        assert value[7] == pytest.approx(calibration_scores(sums[7], layout)[name])
    points = calibration_scores(sums.sum(0), layout)

    def statistic(totals, _):
        return np.stack([*calibration_scores(totals, layout).values()], -1)

    low, high = estimate(sums, Statistic(statistic, tuple(points), scales={"nll": "distance"})).bounds()
    for place, name in enumerate(points):
        assert 0 <= low[place] < points[name] < high[place] < 2, name


def test_real_masks_with_soft_borders_match_other_libraries(real):
    """Mostly probabilities of exactly 0 and 1, as a trained network gives."""
    path = sorted((real("camvid") / "testannot").glob("*.png"))[0]
    truth = np.asarray(Image.open(path))
    truth = np.where(truth >= 11, 255, truth).astype(np.uint8)
    soft = np.stack([gaussian_filter((truth == k).astype(np.float32), 3, truncate=2) for k in range(11)])
    soft = (soft + 1e-9) / (soft + 1e-9).sum(0)
    p, t = kept(soft, truth)
    found = scored(soft, truth)
    p /= p.sum(1, keepdims=True)
    assert found["nll"] == pytest.approx(sk.log_loss(t, p, labels=list(range(11))), rel=1e-5)
    matrix = ConfusionMatrix(11)
    matrix.update(truth, soft.argmax(0))
    assert found["accuracy_at_100"] == pytest.approx(confusion.pixel_accuracy(matrix.matrix), rel=1e-12)
    at = coverage_scores(coverage_counts(soft, truth))
    assert at.mean_iou[-1] == pytest.approx(confusion.mean_iou(matrix.matrix), rel=1e-12)
    edges = np.linspace(0, 1, 16)
    bins = np.clip(np.digitize(p.max(1), edges) - 1, 0, 14)
    gaps = [abs((p.max(1) - (p.argmax(1) == t))[bins == b].sum()) for b in range(15)]
    assert found["ece"] == pytest.approx(sum(gaps) / len(t), rel=1e-4)


# --- errors ---


@pytest.mark.parametrize("function", [calibration_sums, coverage_counts])
def test_invalid_probabilities_are_errors(function):
    logits = np.array([[2.0], [-1.5]], np.float32)
    with pytest.raises(UsageError) as error:
        function(logits, np.array([0]), where="a.png")
    assert str(error.value) == (
        "a.png: expected probabilities that sum to 1 over the classes, found a sum of 0.5. "
        "Apply softmax to logits first."
    )
    with pytest.raises(UsageError, match=r"sum to 1 over the classes, found -0\.5\."):
        function(np.array([[1.5], [-0.5]], np.float32), np.array([0]))
    with pytest.raises(UsageError, match="found a sum of nan"):
        function(np.array([[np.nan], [0.5]], np.float32), np.array([0]))
    with pytest.raises(UsageError, match=r"expected floats, found uint8\. Pass probabilities"):
        function(np.array([[1], [0]], np.uint8), np.array([0]))


def test_mismatched_truths_are_errors():
    probabilities, truth = drawn(3)
    with pytest.raises(MaskError) as error:
        calibration_sums(probabilities, truth[:5], where="b.png")
    assert str(error.value) == (
        "b.png: expected truth of size (60, 50), found (5, 50). Score at native size: resize logits, not the truth."
    )
    with pytest.raises(MaskError, match="class indices 0–2 or the ignore index 254, found 255 in the truth"):
        calibration_sums(probabilities, truth, ignore_index=254)
    with pytest.raises(MaskError, match="found -1 in the truth"):
        calibration_sums(probabilities, np.full(truth.shape, -1))
    with pytest.raises(MaskError, match="expected integers, found truth of float32"):
        calibration_sums(probabilities, truth.astype(np.float32))
    with pytest.raises(UsageError, match="expected a value outside the class indices 0–2, found 0"):
        calibration_sums(probabilities, truth, ignore_index=0)
    with pytest.raises(UsageError, match="bins: expected at least 1, found 0"):
        calibration_sums(probabilities, truth, bins=0)


def test_sums_of_another_layout_are_an_error():
    sums = calibration_sums(*drawn(3))
    with pytest.raises(UsageError, match=r"sums: expected \(…, 484\), found \(439,\)"):
        calibration_scores(sums, Layout(4))


# --- temperature ---


def nll(logits, truth, temperature):
    return -log_softmax(logits / temperature, 1)[np.arange(len(truth)), truth].mean()


def confident(seed, k=4, n=3000, honest=0.4):
    generator = np.random.default_rng(seed)
    logits = generator.normal(0, 3, (n, k))
    return logits, (honest * logits + generator.gumbel(size=(n, k))).argmax(1)


@pytest.mark.parametrize(("seed", "k", "honest"), [(0, 2, 0.4), (1, 4, 1.7), (2, 11, 0.1), (3, 4, 0.08), (4, 3, 6.0)])
def test_temperature_matches_scipys_optimum(seed, k, honest):
    logits, truth = confident(seed, k, honest=honest)
    found = fit_temperature(log_softmax(logits, 1), truth)
    options = {"xatol": 1e-12}
    theirs = minimize_scalar(
        lambda u: nll(logits, truth, np.exp(u)), bounds=(np.log(0.05), np.log(20)), method="bounded", options=options
    )
    # scipy compares values, whose floor is flat over the root of the rounding error.
    assert found.value == pytest.approx(np.exp(theirs.x), rel=2e-6)
    picked = logits[np.arange(3000), truth]
    root = brentq(lambda b: ((softmax(b * logits, 1) * logits).sum(1) - picked).mean(), 0.05, 20, xtol=1e-14)
    assert found.value == pytest.approx(1 / root, rel=1e-9)
    assert found.nll_after <= theirs.fun + 1e-12
    assert found.nll_before == pytest.approx(nll(logits, truth, 1), rel=1e-12)
    assert found.nll_after == pytest.approx(nll(logits, truth, found.value), rel=1e-12)
    assert (found.pixels, found.reason) == (3000, "")


def test_no_temperature_on_a_grid_is_better():
    logits, truth = confident(5)
    found = fit_temperature(logits, truth)
    grid = [nll(logits, truth, t) for t in np.geomspace(0.05, 20, 2000)]
    assert found.nll_after <= min(grid)
    assert found.nll_after == pytest.approx(min(grid), rel=1e-5)


@settings(max_examples=20, deadline=None)
@given(st.floats(0.2, 5), st.integers(0, 100))
def test_a_known_factor_is_recovered(factor, seed):
    logits, truth = confident(seed, n=500, honest=1.0)
    plain = fit_temperature(logits, truth)
    assert plain.value == pytest.approx(1, abs=0.25)
    assert fit_temperature(factor * logits, truth).value == pytest.approx(factor * plain.value, rel=1e-8)


def test_many_pixels_recover_the_factor_and_calibrated_probabilities():
    logits, truth = confident(0, n=200_000, honest=1.0)
    found = fit_temperature((2.5 * logits).astype(np.float32), truth)
    assert found.value == pytest.approx(2.5, rel=0.01)
    assert found.ece_before > 0.04
    assert found.ece_after < 0.004
    corrected = tempered(softmax(2.5 * logits, 1).T.astype(np.float32), found.value)
    assert scored(corrected, truth, ignore=-1)["ece"] == pytest.approx(found.ece_after, abs=1e-4)
    assert scored(corrected, truth, ignore=-1)["nll"] == pytest.approx(found.nll_after, rel=1e-5)


def test_fitting_does_not_depend_on_chunks(monkeypatch):
    logits, truth = confident(6)
    whole = fit_temperature(logits, truth)
    monkeypatch.setattr(temperature, "_CHUNK", 64)
    pieces = fit_temperature(logits, truth)
    assert pieces.value == pytest.approx(whole.value, rel=1e-9)
    assert pieces.ece_after == pytest.approx(whole.ece_after, rel=1e-9)


@pytest.mark.parametrize(
    ("logits", "truth", "value", "reason"),
    [
        (np.zeros((0, 3)), [], 1.0, "no pixels"),
        (np.zeros((4, 1)), [0] * 4, 1.0, "one class"),
        (np.zeros((4, 3)), [0, 1, 2, 0], 1.0, "all classes have the same probability at every pixel"),
        (np.array([[0.0, -np.inf]] * 4), [0] * 4, 1.0, "every pixel is correct"),
        (np.array([[0.0, -1.0]] * 4), [0] * 4, 1.0, "every pixel is correct"),
        (np.array([[0.0, -np.inf]] * 4), [1] * 4, 20.0, "the optimum is above 20.0"),
        (np.array([[0.0, -1.0]] * 4), [1] * 4, 20.0, "the optimum is above 20.0"),
        (np.array([[0.0, -0.1]] * 99 + [[0.0, 0.001]]), [0] * 100, 0.05, "the optimum is below 0.05"),
    ],
)
def test_undetermined_temperature_has_a_reason(logits, truth, value, reason):
    found = fit_temperature(logits, np.array(truth, int))
    assert (found.value, found.reason, found.pixels) == (value, reason, len(truth))
    assert len(truth) == 0 or found.nll_after <= found.nll_before + 1e-12
    assert np.isnan(found.nll_before) == (len(truth) == 0)


def test_true_class_of_probability_zero_has_a_finite_loss():
    logits, truth = confident(7)
    rows = log_softmax(logits, 1)
    rows[0, truth[0]] = -np.inf
    found = fit_temperature(rows, truth)
    assert np.isfinite(found.nll_before)
    assert found.value > fit_temperature(logits, truth).value


def test_invalid_fitting_inputs_are_errors():
    rows = np.log(np.full((3, 2), 0.5))
    with pytest.raises(UsageError) as error:
        fit_temperature(rows, np.array([0, 1, 255]))
    assert str(error.value) == (
        "truth: expected class indices 0–1, found 255. Leave out ignored pixels, as PixelSample does."
    )
    with pytest.raises(UsageError, match="found -1"):
        fit_temperature(rows, np.array([0, 1, -1]))
    with pytest.raises(UsageError, match=r"expected floats \(N, K\) and integers \(N,\), found \(3, 2\)"):
        fit_temperature(rows, np.array([0, 1]))
    for bad in (np.nan, np.inf):
        with pytest.raises(UsageError, match="expected a finite largest value per pixel, found NaN or infinity"):
            fit_temperature(np.array([[0.0, bad]]), np.array([0]))
    with pytest.raises(UsageError, match="finite largest value"):
        fit_temperature(np.full((1, 2), -np.inf), np.array([0]))


@pytest.mark.parametrize("temperature", [0.05, 0.3, 1.7, 20.0])
def test_tempered_probabilities_match_the_softmax_of_divided_logits(temperature):
    logits = np.random.default_rng(0).normal(0, 4, (6, 30, 20))
    found = tempered(softmax(logits, 0).astype(np.float32), temperature)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, softmax(logits / temperature, 0), rtol=1e-4, atol=1e-7)


def test_a_temperature_of_one_changes_nothing():
    probabilities, _ = drawn(3)
    assert tempered(probabilities, 1.0) is probabilities


UNEVEN = st.one_of(st.floats(0, 1, width=32), st.sampled_from([0.0, 0.5, float(np.nextafter(np.float32(0.5), 1)), 1.0]))


@settings(max_examples=300, deadline=None)
@given(hnp.arrays(np.float32, (4, 7), elements=UNEVEN), st.floats(0.05, 20))
def test_no_temperature_changes_a_prediction_or_swaps_classes(weights, temperature):
    weights[0, weights.sum(0) == 0] = 1
    probabilities = (weights / weights.sum(0)).astype(np.float32)
    found = tempered(probabilities, temperature)
    np.testing.assert_array_equal(found.argmax(0), probabilities.argmax(0))
    np.testing.assert_array_equal(found == found.max(0), probabilities == probabilities.max(0))
    lower = probabilities[:, None] < probabilities[None]
    assert (found[:, None] <= found[None] * np.float32(1 + 1e-6))[lower].all()
    assert (found[probabilities == 0] == 0).all()
    np.testing.assert_allclose(found.sum(0), 1, rtol=1e-6)


def test_classes_one_ulp_apart_stay_apart():
    """0.49999997^(1/20) and 0.5^(1/20) are one float32."""
    probabilities = np.array([[np.nextafter(np.float32(0.5), np.float32(0))], [0.5]], np.float32)
    found = tempered(probabilities, 20.0)
    assert found.argmax(0) == 1
    assert found[1, 0] - found[0, 0] <= 6e-8


def test_pixels_of_zero_probabilities_stay_zero():
    assert not tempered(np.zeros((3, 2), np.float32), 2.0).any()


@pytest.mark.parametrize("temperature", [0.0, -1.0, np.nan, np.inf])
def test_invalid_temperature_is_an_error(temperature):
    with pytest.raises(
        UsageError, match=r"temperature: expected a number above 0, found .*\. Use the result of fit_temperature"
    ):
        tempered(np.ones((1, 2), np.float32), temperature)


# --- sample ---


def test_sample_depends_only_on_seed_and_image():
    _, truth = drawn(3)
    first = PixelSample(100, seed=1).places(truth, "a.png")
    PixelSample(100, seed=1).places(truth, "b.png")
    np.testing.assert_array_equal(PixelSample(100, seed=1).places(truth, "a.png"), first)
    assert not np.array_equal(PixelSample(100, seed=2).places(truth, "a.png"), first)
    assert not np.array_equal(PixelSample(100, seed=1).places(truth, "b.png"), first)


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 200), st.floats(0, 1), st.text(max_size=5))
def test_sample_contains_counted_pixels_once(number, void, key):
    probabilities, truth = drawn(3, (12, 9), void=void)
    places = PixelSample(number).places(truth, key)
    assert places.size == min(number, np.count_nonzero(truth != 255))
    assert (np.diff(places) > 0).all()
    rows = log_probabilities(probabilities, places)
    assert (truth.reshape(-1)[places] < 3).all()
    assert rows.dtype == np.float32
    np.testing.assert_allclose(np.exp(rows), probabilities.reshape(3, -1)[:, places].T, rtol=1e-5)


def test_names_with_undecodable_bytes_are_accepted():
    """A file name may be any bytes."""
    truth = np.zeros((20, 20), np.uint8)
    assert len(PixelSample(10).places(truth, "caf\udce9.png")) == 10


def test_all_counted_pixels_are_equally_likely():
    truth = np.zeros(40, np.uint8)
    truth[::4] = 255
    seen = np.bincount(np.concatenate([PixelSample(6).places(truth, str(i)) for i in range(2000)]), minlength=40)
    assert not seen[::4].any()
    np.testing.assert_allclose(seen[truth == 0] / 2000, 6 / 30, atol=0.04)


def test_bands_give_the_rows_of_the_image():
    probabilities, truth = drawn(3)
    sample = PixelSample(50)
    places = sample.places(truth, "a")
    whole = log_probabilities(probabilities, places)
    bands = [log_probabilities(probabilities[:, a:b], places, a * 50) for a, b in ((0, 7), (7, 31), (31, 60))]
    np.testing.assert_array_equal(np.concatenate(bands), whole)


def test_logarithms_have_a_floor():
    probabilities = np.array([[1.0], [0.0]], np.float32)
    rows = log_probabilities(probabilities, np.array([0]))
    np.testing.assert_array_equal(rows, np.log(np.float32([[1.0, np.finfo(np.float32).tiny]])))
