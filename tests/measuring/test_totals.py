"""Totals over images of which some are labelled: values by hand, and the coverage of intervals in simulated surveys."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray

from pixelwise.measuring.totals import Estimator, Total, estimate_totals

Floats = NDArray[np.float64]
SURVEYS = 2000
# Three standard errors of a coverage of 95 % in 2,000 surveys.
LEAST = 0.95 - 3 * math.sqrt(0.95 * 0.05 / SURVEYS)


def total(
    x: Floats,
    y: Floats,
    labelled: NDArray[np.int64],
    groups: tuple[str | None, ...] | None = None,
    estimator: Estimator = "difference",
) -> Total:
    """The total of one class from true sizes (N,) of which only the labelled ones are passed on."""
    return estimate_totals(x[:, None], y[labelled, None], labelled, groups, estimator=estimator)[0]


# Values


def test_the_difference_estimator_by_hand() -> None:
    x, y = np.array([10.0, 20, 30, 40, 50, 60]), np.array([12.0, 23, 31, 0, 0, 0])
    found = total(x, y, np.array([0, 1, 2]))
    assert found.value == pytest.approx(210 + 6 * (2 + 3 + 1) / 3)
    assert found.naive == 210
    assert found.naive_bias == pytest.approx((210 - 222) / 222)
    assert (found.low, found.high) == (None, None)
    assert found.note == "no interval: 3 labelled images, and 10 are needed"


def test_the_regression_estimator_is_the_fitted_line_at_the_mean() -> None:
    rng = np.random.default_rng(0)
    x = rng.gamma(2.0, 3.0, 300)
    y = 0.5 * x + rng.gamma(1.0, 1.0, 300)
    labelled = rng.permutation(300)[:40]
    found = total(x, y, labelled, estimator="regression")
    line = np.polyfit(x[labelled], y[labelled], 1)
    assert found.value == pytest.approx(300 * np.polyval(line, x.mean()))
    assert found.estimator == "regression"


def test_few_labelled_images_are_not_regressed() -> None:
    x = np.arange(1.0, 101)
    found = total(x, x * 2, np.arange(12), estimator="regression")
    assert found.estimator == "difference"


def test_the_interval_without_skewness_is_that_of_cochran() -> None:
    """Differences of -1 and +1 have 1/m = 1/n: the textbook's variance (eq. 7.49) times 1 + 1/n, and t with n - 1."""
    from scipy.stats import t

    x, sign = np.full(200, 50.0), np.resize([-1.0, 1.0], 200)
    found = total(x, x + sign, np.arange(40))
    variance = 200**2 * (1 - 40 / 200) / 40 * np.var(sign[:40], ddof=1) * (1 + 1 / 40)
    assert found.high == pytest.approx(found.value + t.ppf(0.975, 39) * math.sqrt(variance))
    assert found.low == pytest.approx(found.value - t.ppf(0.975, 39) * math.sqrt(variance))


def test_all_images_labelled_is_a_count() -> None:
    rng = np.random.default_rng(1)
    x, y = rng.gamma(2, 3, (2, 30))
    found = total(x, y, np.arange(30))
    assert found.value == pytest.approx(y.sum())
    assert found.low == found.high == found.value
    assert found.note == "all images are labelled"


def test_what_is_labelled_is_there_for_certain() -> None:
    x, y = np.zeros(100), np.zeros(100)
    x[:20], y[:20] = 100, 1  # the model finds far too much in the labelled images, and nothing in the others
    found = total(x, y, np.arange(20))
    assert found.low == found.value == y[:20].sum()


def test_a_class_in_few_labelled_images_has_no_interval() -> None:
    y = np.zeros(100)
    y[:4] = 5
    found = total(y * 0.9, y, np.arange(40))
    assert found.low is None
    assert found.note == "no interval: the class is in 4 of 40 labelled images, and 5 are needed"


def test_the_text_says_what_an_interval_covers() -> None:
    rng = np.random.default_rng(2)
    y = rng.gamma(2, 3, 300)
    assert total(y, y + 1, np.arange(100)).note == (
        "95 % confidence interval, if the 100 labelled of 300 images were drawn at random"
    )
    groups = tuple(f"drive {i // 4}" for i in range(80))
    assert total(y, y + 1, np.arange(80), groups).note == (
        "95 % confidence interval, if the 80 labelled of 300 images, in 20 groups, were drawn at random; the class is in 20 of them, "
        "and if the model misses one of ten such images, 88 % of these intervals hold the total"
    )


# Coverage


def unbiased(rng: np.random.Generator, n: int) -> tuple[Floats, Floats]:
    y = rng.uniform(0, 1, n)
    return np.clip(y + rng.normal(0, 0.03, n), 0, None), y


def biased(rng: np.random.Generator, n: int) -> tuple[Floats, Floats]:
    """11 % too small, as on buildings of CamVid, with errors that grow with the size."""
    y = rng.gamma(1.5, 1.0, n)
    return np.maximum(0.89 * y + 0.15 * np.sqrt(y) * rng.normal(size=n), 0), y


def weak(rng: np.random.Generator, n: int) -> tuple[Floats, Floats]:
    y = rng.gamma(4, 1.0, n)
    return 0.4 * y + rng.gamma(2, 0.8, n), y


def skewed(rng: np.random.Generator, n: int) -> tuple[Floats, Floats]:
    """Sizes over two orders of magnitude, wrong by a factor."""
    y = np.exp(rng.normal(0, 1.2, n))
    return y * np.exp(rng.normal(-0.1, 0.3, n)), y


def rare(rng: np.random.Generator, n: int) -> tuple[Floats, Floats]:
    """In 30 % of the images, of which one in ten is missed; false alarms in 3 %."""
    y = np.where(rng.random(n) < 0.3, rng.gamma(2, 1, n), 0)
    return np.where(rng.random(n) < 0.9, y * 0.9, 0) + np.where(rng.random(n) < 0.03, rng.gamma(1, 0.5, n), 0), y


Draw = Callable[[np.random.Generator, int], tuple[Floats, Floats]]


def surveys(draw: Draw, labelled: int, estimator: Estimator, images: int = 500, seed: int = 0) -> tuple[float, float]:
    """Return the coverage and the mean error, in standard errors of the mean, of 2,000 surveys of as many populations."""
    rng = np.random.default_rng(seed)
    hits, errors = [], []
    for _ in range(SURVEYS):
        x, y = draw(rng, images)
        found = total(x, y, rng.permutation(images)[:labelled], estimator=estimator)
        errors.append(found.value / y.sum() - 1)
        if found.low is not None and found.high is not None:
            hits.append(found.low <= y.sum() <= found.high)
    assert len(hits) > SURVEYS / 2
    return float(np.mean(hits)), float(np.mean(errors) / (np.std(errors) / math.sqrt(SURVEYS)))


@pytest.mark.parametrize("labelled", [10, 20, 50, 250])
@pytest.mark.parametrize("draw", [unbiased, biased, weak, skewed])
def test_2000_surveys_with_the_difference_estimator(draw: Draw, labelled: int) -> None:
    coverage, bias = surveys(draw, labelled, "difference")
    assert coverage >= LEAST
    assert abs(bias) < 4


@pytest.mark.parametrize("labelled", [20, 50, 250])
@pytest.mark.parametrize("draw", [unbiased, biased, weak])
def test_2000_surveys_with_the_regression_estimator(draw: Draw, labelled: int) -> None:
    coverage, _ = surveys(draw, labelled, "regression")
    assert coverage >= LEAST


@pytest.mark.parametrize("labelled", [20, 50, 250])
def test_rare_classes_are_covered_less_which_the_text_says(labelled: int) -> None:
    coverage, bias = surveys(rare, labelled, "difference")
    assert coverage >= 0.88 - 3 * math.sqrt(0.88 * 0.12 / SURVEYS)
    assert abs(bias) < 4


def test_rare_classes_in_enough_labelled_images_are_covered() -> None:
    coverage, _ = surveys(rare, 350, "difference", images=2000)
    assert coverage >= LEAST


def test_the_sum_of_predictions_is_biased_and_the_estimate_is_not() -> None:
    rng = np.random.default_rng(3)
    naive, estimates = [], []
    for _ in range(300):
        x, y = biased(rng, 500)
        found = total(x, y, rng.permutation(500)[:50])
        naive.append(found.naive / y.sum() - 1)
        estimates.append(found.value / y.sum() - 1)
    assert np.mean(naive) < -0.08
    assert abs(np.mean(estimates)) < 0.01


def clustered(rng: np.random.Generator) -> tuple[Floats, Floats, NDArray[np.int64]]:
    """60 drives of 2 to 30 frames; the error of the model depends on the drive."""
    units = np.repeat(np.arange(60), rng.integers(2, 31, 60))
    y = rng.gamma(3, 1.0, len(units)) * np.exp(rng.normal(0, 0.3, 60))[units]
    x = y * np.exp(rng.normal(-0.1, 0.1, 60))[units] + rng.normal(0, 0.05, len(units))
    return np.maximum(x, 0), y, units


@pytest.mark.parametrize("whole", [True, False])
def test_2000_surveys_of_groups(whole: bool) -> None:
    """Whole groups at random, or images at random from all groups: intervals hold, and those without groups only for the latter."""
    rng = np.random.default_rng(4)
    hits, without = [], []
    for _ in range(SURVEYS):
        x, y, units = clustered(rng)
        if whole:
            labelled = np.flatnonzero(np.isin(units, rng.permutation(60)[:18]))
        else:
            labelled = rng.permutation(len(y))[: len(y) // 4]
        names = tuple(f"drive {unit}" for unit in units[labelled])
        for groups, covered in ((names, hits), (None, without)):
            found = total(x, y, labelled, groups)
            assert found.low is not None
            assert found.high is not None
            covered.append(found.low <= y.sum() <= found.high)
    assert np.mean(hits) >= LEAST
    assert np.mean(without) < 0.75 if whole else np.mean(without) >= LEAST
