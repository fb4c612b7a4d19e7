"""Intervals of sizes: the exact order statistic, the guarantee by enumeration, groups, and the choice of the score."""

from __future__ import annotations

import json
import math
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from pixelwise.labels import Labels
from pixelwise.measuring import conformal
from pixelwise.measuring.conformal import (
    HOW_TO_ADD,
    ImageSizes,
    SizeCalibration,
    boundary_lengths,
    boundary_lengths_of,
    calibrate,
    conformal_quantile,
    fewest_units,
    interval_of,
)
from pixelwise.measuring.masks import ArrayMask

LEVELS = [0.5, 0.8, 0.9, 0.95, 0.99]


def alone(n: int) -> NDArray[np.int64]:
    return np.arange(n)


def sizes(
    truth: Any, predicted: Any, boundary: Any = None, pixels: int = 10_000, groups: tuple[str | None, ...] | None = None
) -> ImageSizes:
    """Sizes of one class: (N,) each."""
    truth, predicted = np.asarray(truth, np.int64)[:, None], np.asarray(predicted, np.int64)[:, None]
    boundary = np.full_like(truth, 40) if boundary is None else np.asarray(boundary, np.int64)[:, None]
    size = np.full(len(truth), pixels, np.int64)
    return ImageSizes(truth, predicted, boundary, size, size, groups or (None,) * len(truth))


# The quantile


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("n", [1, 4, 9, 10, 19, 20, 99, 100, 137])
def test_without_groups_the_quantile_is_the_exact_order_statistic(n: int, level: float) -> None:
    scores = np.random.default_rng(n).permutation(n).astype(float)
    place = math.ceil(Fraction(str(level)) * (n + 1))  # exact arithmetic: 0.9 · 10 is 9, not 9.000000000000002
    expected = math.inf if place > n else float(place - 1)
    assert conformal_quantile(scores, alone(n), level) == expected
    assert (expected == math.inf) == (n < fewest_units(level))


def test_the_fewest_groups_of_a_level() -> None:
    assert [fewest_units(level) for level in (0.5, 0.8, 0.9, 0.95, 0.99)] == [1, 4, 9, 19, 99]


@pytest.mark.parametrize("level", [0.8, 0.9, 0.95])
@pytest.mark.parametrize("n", [25, 60, 199])
def test_the_quantile_is_that_of_mapie(n: int, level: float) -> None:
    from mapie.regression import SplitConformalRegressor
    from sklearn.linear_model import LinearRegression

    rng = np.random.default_rng(n)
    predicted, errors = rng.uniform(100, 900, n), rng.gamma(1.0, 50.0, n) * rng.choice([-1, 1], n)
    identity = LinearRegression(fit_intercept=False).fit(np.array([[1.0], [2.0]]), [1.0, 2.0])
    oracle = SplitConformalRegressor(identity, confidence_level=level, conformity_score="absolute", prefit=True)
    oracle.conformalize(predicted[:, None], predicted + errors)
    _, interval = oracle.predict_interval(np.array([[500.0]]))
    width = float(interval[0, 1, 0] - interval[0, 0, 0])
    assert width == pytest.approx(2 * conformal_quantile(np.abs(errors), alone(n), level), rel=1e-9)


@settings(max_examples=150, deadline=None)
@given(
    groups=st.lists(st.lists(st.integers(0, 6), min_size=1, max_size=5), min_size=1, max_size=24),
    level=st.sampled_from([0.5, 0.8, 0.9]),
)
def test_the_guarantee_holds_for_every_set_of_groups(groups: list[list[int]], level: float) -> None:
    """Exchangeable groups: each of them is the new one with equal probability, and each of its images the new image.

    So the probability of coverage is a mean over groups of means over images, for any scores, also with ties.
    """
    covered = []
    for new, images in enumerate(groups):
        others = [(score, number) for number, each in enumerate(groups) if number != new for score in each]
        scores, units = np.array(others, float).reshape(-1, 2).T
        limit = conformal_quantile(scores, units.astype(np.int64), level)
        covered.append(np.mean([score <= limit for score in images]))
    assert np.mean(covered) >= level - 1e-12


def test_the_coverage_without_groups_is_exact() -> None:
    """Each of n + 1 different scores is the new one: exactly ⌈level · (n + 1)⌉ of them are covered."""
    for n in (9, 12, 30):
        scores = np.arange(n + 1, dtype=float)
        hits = sum(scores[i] <= conformal_quantile(np.delete(scores, i), alone(n)) for i in range(n + 1))
        assert hits == math.ceil(Fraction(9, 10) * (n + 1))


def test_2000_surveys_of_groups_that_are_alike() -> None:
    """Groups of very different numbers of images, whose errors have most of their variance between groups."""
    rng = np.random.default_rng(0)
    covered, pooled = [], []
    for _ in range(2000):
        counts = rng.choice([1, 2, 40], 25)
        scale = np.where(counts == 40, 0.3, 1.0) * np.exp(rng.normal(0, 0.7, 25))  # long sequences are easy
        units = np.repeat(np.arange(25), counts)
        scores = np.abs(rng.normal(0, scale[units]))
        known = units < 24
        new = scores[~known]
        covered.append(np.mean(new <= conformal_quantile(scores[known], units[known])))
        pooled.append(np.mean(new <= conformal_quantile(scores[known], np.arange(known.sum()))))
    error = 2 * np.std(covered) / math.sqrt(2000)
    assert 0.9 - error <= np.mean(covered) <= 0.9 + 2 / 25 + error  # the upper bound of the theorem is 2 / (K + 1)
    assert np.mean(pooled) < 0.8  # images as if they were independent: what groups are for


# The calibration


def survey(rng: np.random.Generator, n: int, kind: str) -> ImageSizes:
    """Images with errors that are proportional to the contour, or the same for all."""
    side = rng.uniform(5, 90, n)
    predicted, boundary = (side**2).astype(int), (4 * side).astype(int)
    spread = boundary / 8 if kind == "boundary" else np.full(n, 60.0)
    truth = np.clip(predicted + rng.normal(0, spread), 0, 10_000).round()
    return sizes(truth, predicted, boundary)


@pytest.mark.parametrize("kind", ["share", "boundary"])
def test_the_score_with_the_narrower_intervals_is_chosen(kind: str) -> None:
    rng = np.random.default_rng(1)
    found = calibrate(survey(rng, 80, kind), survey(rng, 60, kind))
    assert found.predicted[0].score == kind


@pytest.mark.parametrize("kind", ["share", "boundary"])
def test_2000_calibrations_cover_their_level(kind: str) -> None:
    """The whole path, with the choice of the score, rounding and clipping; each survey also predicts one new image."""
    rng = np.random.default_rng(2)
    hits = 0
    for _ in range(2000):
        calibration = calibrate(survey(rng, 30, kind), survey(rng, 30, kind))
        new = survey(rng, 1, kind)
        found = interval_of(calibration, 0, int(new.predicted[0, 0]), int(new.boundary[0, 0]), 10_000)
        assert found.low is not None
        assert found.high is not None
        hits += found.low <= new.truth[0, 0] <= found.high
    error = 3 * math.sqrt(0.09 / 2000)
    # 28 of 31 equally probable places, a little more since sizes are rounded outwards and clipped.
    assert 0.9 - error <= hits / 2000 <= 28 / 31 + 0.01 + error


def test_a_rare_class_has_no_empty_intervals() -> None:
    """Most images lack the class: their errors, 0, say nothing about images in which it is predicted."""
    rng = np.random.default_rng(3)
    predicted = np.where(np.arange(400) < 40, rng.integers(100, 900, 400), 0)
    truth = np.where(predicted > 0, predicted + rng.integers(-80, 80, 400), 0)
    calibration = calibrate(sizes(truth, predicted), sizes(truth, predicted))
    absent, present = interval_of(calibration, 0, 0, 0, 10_000), interval_of(calibration, 0, 500, 40, 10_000)
    assert (absent.low, absent.high) == (0, 0)
    assert present.low is not None
    assert present.high is not None
    assert present.high - present.low > 100
    limit = calibration.predicted[0]
    assert (limit.images, limit.units) == (40, 40)


def test_limits_stay_inside_the_image_and_ignored_pixels_do_not_count() -> None:
    calibration = calibrate(sizes([], []), sizes(np.full(20, 5000), np.full(20, 2000)))
    low = interval_of(calibration, 0, 1000, 40, 10_000)
    assert (low.low, low.high) == (0, 4000)
    high = interval_of(calibration, 0, 7900, 40, 10_000, ignored=2000)
    assert (high.low, high.high) == (5500, 8000)  # 30 % of the 8,000 pixels that are not ignored


def test_the_text_says_what_an_interval_covers() -> None:
    groups = tuple(f"patient {i // 2}" for i in range(40))
    calibration = calibrate(sizes([], []), sizes(np.full(40, 90), np.full(40, 80), groups=groups))
    assert interval_of(calibration, 0, 80, 40, 10_000).note == (
        "90 % prediction interval, valid for images like the 40 validation images of 20 groups, for a new group; a new site or "
        "camera can cost 5 to 30 points of coverage"
    )


@pytest.mark.parametrize("groups", [8, 9])
def test_fewer_than_nine_groups_have_no_interval(groups: int) -> None:
    names = tuple(f"patient {i % groups}" for i in range(90))
    calibration = calibrate(sizes([], []), sizes(np.full(90, 90), np.full(90, 80), groups=names))
    found = interval_of(calibration, 0, 80, 40, 10_000)
    if groups == 9:
        assert (found.low, found.high) == (70, 90)
    else:
        assert found.low is None
        assert found.note == "no interval: the class is predicted in 8 of the calibration groups, and 9 are needed"


def test_a_model_without_calibration_names_the_command() -> None:
    found = interval_of(None, 0, 80, 40, 10_000)
    assert (found.low, found.high) == (None, None)
    assert HOW_TO_ADD in found.note


@pytest.mark.parametrize(("pixels", "known"), [(4999, False), (5000, True), (20_000, True), (20_001, False)])
def test_images_of_another_size_have_no_interval(pixels: int, known: bool) -> None:
    calibration = calibrate(sizes([], []), sizes(np.full(20, 90), np.full(20, 80)))
    found = interval_of(calibration, 0, 80, 40, pixels)
    assert (found.low is not None) == known
    assert known or "calibrated on images of 10000 pixels" in found.note


def test_the_plain_form_is_read_back() -> None:
    rng = np.random.default_rng(4)
    calibration = calibrate(survey(rng, 30, "boundary"), survey(rng, 30, "boundary"))
    plain = json.loads(json.dumps(calibration.to_dict(), allow_nan=False))
    assert SizeCalibration.from_dict(plain) == calibration
    assert SizeCalibration.from_dict(None) is None
    assert SizeCalibration.from_dict({**plain, "version": 2}) is None


# The length of contours


def edges(mask: NDArray[Any], k: int) -> NDArray[np.int64]:
    """Count neighbours one by one."""
    lengths = np.zeros(k, np.int64)
    for place in np.ndindex(mask.shape):
        for axis in range(mask.ndim):
            other = (*place[:axis], place[axis] + 1, *place[axis + 1 :])
            if other[axis] < mask.shape[axis]:
                a, b = int(mask[place]), int(mask[other])
                if a != b and max(a, b) < k:
                    lengths[[a, b]] += 1
    return lengths


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 1000),
    shape=st.sampled_from([(7, 9), (1, 5), (6, 1), (4, 5, 6), (3, 1, 4)]),
    k=st.integers(1, 4),
)
def test_contours_are_counted_edge_by_edge_also_in_bands(seed: int, shape: tuple[int, ...], k: int) -> None:
    values = [*range(k), 255]
    mask = np.random.default_rng(seed).choice(values, shape).astype(np.uint8)
    expected = edges(mask, k).tolist()
    assert boundary_lengths(mask, k).tolist() == expected
    labels = Labels(tuple(f"class {i}" for i in range(k)))
    for rows in (1, 2, 3, 100):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(conformal, "_BAND_PIXELS", rows * math.prod(shape[1:]))
            assert boundary_lengths_of(ArrayMask(mask, labels)).tolist() == expected
