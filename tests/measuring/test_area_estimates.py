"""Areas from samples: a published example to the printed digit, values by hand, and the coverage of intervals in simulated surveys."""

from __future__ import annotations

import math

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.stats import norm

from pixelwise.measuring.area_estimates import (
    AreaEstimates,
    Estimate,
    Estimator,
    TooFewAnswersError,
    _share_limits,
    estimate_areas,
    score_limits,
)
from pixelwise.measuring.sampling import ClassTally, Stratum, stratify

Counts = NDArray[np.int64]
# Olofsson et al. 2014, tables 8 and 9: rows deforestation, forest gain, stable forest, stable non-forest on the map; columns reference.
COUNTS = np.array([[66, 0, 5, 4], [0, 55, 8, 12], [1, 0, 153, 11], [2, 1, 9, 313]])
PIXELS = (200_000, 150_000, 3_200_000, 6_450_000)


def from_counts(strata: tuple[Stratum, ...], counts: Counts, estimator: Estimator = "stratified") -> AreaEstimates:
    """Estimate from the numbers of answers by stratum and class, (H, K)."""
    stratum, answers = np.nonzero(counts)
    repeats = counts[stratum, answers]
    return estimate_areas(
        strata, np.repeat(stratum, repeats), np.repeat(answers, repeats), counts.shape[1], estimator=estimator
    )


def example(estimator: Estimator = "olofsson") -> AreaEstimates:
    return from_counts(tuple(Stratum(k, n, float(n)) for k, n in enumerate(PIXELS)), COUNTS, estimator)


# Olofsson et al. 2014


def test_the_published_example_is_reproduced_to_the_printed_digit() -> None:
    found, total = example(), sum(PIXELS)
    area = [round(each.value * total) for each in found.shares]
    assert area[0] == 235_086
    assert round(found.shares[0].error * total) == 34_907
    assert [f"{each.value * total * 0.09:.0f}" for each in found.shares] == ["21158", "11686", "285770", "581386"]
    margins = [1.96 * each.error * total for each in found.shares]
    assert [f"{margin * 0.09:.0f}" for margin in margins] == ["6158", "3756", "15510", "16282"]
    assert round(margins[0]) == 68_418
    assert np.round(found.matrix, 4).tolist() == [
        [0.0176, 0, 0.0013, 0.0011],
        [0, 0.0110, 0.0016, 0.0024],
        [0.0019, 0, 0.2967, 0.0213],
        [0.0040, 0.0020, 0.0179, 0.6212],
    ]
    users = [f"{e.value:.2f} ± {1.96 * e.error:.2f}" for e in found.users if e]
    assert users == ["0.88 ± 0.07", "0.73 ± 0.10", "0.93 ± 0.04", "0.96 ± 0.02"]
    assert [f"{e.value:.2f}" for e in found.producers if e] == ["0.75", "0.85", "0.93", "0.96"]
    assert f"{found.overall.value:.2f} ± {1.96 * found.overall.error:.2f}" == "0.95 ± 0.02"
    assert found.counts.tolist() == COUNTS.tolist()
    first = found.shares[0]
    assert (first.low, first.high) == pytest.approx(
        (first.value - 1.96 * first.error, first.value + 1.96 * first.error), 1e-4
    )


def test_the_error_of_producers_accuracy_is_that_of_the_publication() -> None:
    """Equation 7 of Olofsson et al. 2014, by hand."""
    area, n = np.array(PIXELS, float), COUNTS.sum(1)
    shares = COUNTS / n[:, None]
    variances = area[:, None] ** 2 * shares * (1 - shares) / (n - 1)[:, None]
    total = (area[:, None] * shares).sum(0)
    for j, found in enumerate(example().producers):
        assert found is not None
        value = area[j] * shares[j, j] / total[j]
        missed = np.delete(variances[:, j], j).sum()
        expected = math.sqrt((1 - value) ** 2 * variances[j, j] + value**2 * missed) / total[j]
        assert (found.value, found.error) == pytest.approx((value, expected))


def test_the_stratified_estimator_differs_in_its_intervals_only() -> None:
    published, found = example(), example("stratified")
    assert [e.value for e in found.shares] == [e.value for e in published.shares]
    assert found.matrix.tolist() == published.matrix.tolist()
    first = found.shares[0]
    # Scores are not symmetric: a rare class is more often missed than found too often.
    assert first.high - first.value > first.value - first.low > 0


# By hand


def test_one_stratum_has_the_interval_of_wilson() -> None:
    strata = (Stratum(0, 10**12, 1.0),)
    found = from_counts(strata, np.array([[33, 7]])).shares[1]
    n, p, z = 40, 7 / 40, norm.ppf(0.975)
    # The variance has n - 1: Wilson's interval of 39 points around the same share.
    centre, reach = p + z**2 / 2 / (n - 1), z * math.sqrt(p * (1 - p) / (n - 1) + z**2 / 4 / (n - 1) ** 2)
    factor = 1 + z**2 / (n - 1)
    assert (found.low, found.high) == pytest.approx(((centre - reach) / factor, (centre + reach) / factor), rel=1e-6)


def test_a_class_that_no_answer_names_has_an_upper_limit() -> None:
    found = from_counts((Stratum(0, 10**9, 3.0), Stratum(0, 10**9, 1.0, low=50)), np.array([[40, 0], [40, 0]]))
    assert (found.shares[1].value, found.shares[1].low) == (0, 0)
    assert 0.05 < found.shares[1].high < 0.12
    assert found.shares[0].high == 1
    assert found.producers[1] is None
    assert found.users == (found.overall, None)


def test_an_area_that_was_answered_completely_is_exact() -> None:
    found = from_counts((Stratum(0, 40, 40.0), Stratum(1, 20, 20.0)), np.array([[30, 10], [5, 15]]))
    for share, true in zip(found.shares, (35 / 60, 25 / 60), strict=True):
        assert (share.low, share.value, share.high) == pytest.approx((true, true, true), abs=1e-6)


def test_strata_are_parts_of_the_classes_of_the_map() -> None:
    strata = (Stratum(0, 900, 900.0), Stratum(0, 100, 100.0, low=50), Stratum(1, 200, 200.0))
    found = from_counts(strata, np.array([[20, 0], [6, 4], [1, 9]]))
    assert found.mapped == pytest.approx([1000 / 1200, 200 / 1200])
    assert found.matrix == pytest.approx(np.array([[960, 40], [20, 180]]) / 1200)
    assert [e.value for e in found.users if e] == pytest.approx([0.96, 0.9])
    assert [e.value for e in found.producers if e] == pytest.approx([960 / 980, 180 / 220])
    assert found.overall.value == pytest.approx(1140 / 1200)


def test_strata_with_less_than_two_answers_are_joined() -> None:
    strata = (Stratum(0, 100, 100.0, low=0), Stratum(0, 300, 300.0, low=50), Stratum(0, 600, 600.0, low=90))
    found = from_counts(strata, np.array([[1, 0], [3, 3], [10, 0]]))
    assert found.joined == (0, 1)
    # Each answer represents the pixels of its own stratum.
    assert found.shares[1].value == pytest.approx(0.15)
    last = from_counts(strata, np.array([[4, 4], [9, 1], [0, 0]]))
    assert last.joined == (1, 2)
    assert last.shares[1].value == pytest.approx(0.05 + 0.09)


@pytest.mark.parametrize("answers", [0, 1])
def test_a_class_of_the_map_without_answers_is_an_error(answers: int) -> None:
    with pytest.raises(TooFewAnswersError) as error:
        from_counts((Stratum(0, 100, 1.0), Stratum(1, 100, 1.0)), np.array([[5, 0], [0, answers]]))
    assert (error.value.class_index, error.value.found) == (1, answers)


def test_points_count_by_their_area() -> None:
    found = estimate_areas(
        (Stratum(0, 1000, 1500.0),), np.zeros(4, int), np.array([0, 0, 1, 1]), 2, sizes=np.array([1.0, 1, 2, 2])
    )
    assert found.shares[1].value == pytest.approx(2 / 3)


def test_a_share_of_two_areas_contains_its_value() -> None:
    none, some = Estimate(0.0, 0.0, 0.0, 0.02), Estimate(0.3, 0.02, 0.26, 0.34)
    assert _share_limits(some, none) == pytest.approx(
        (0.26 * 0.34 / (0.26 * 0.34 + 0.02 * math.sqrt(0.26 * 0.34)), 1), abs=1e-2
    )
    low, high = _share_limits(none, some)
    assert (low, high) == pytest.approx((0, 1 - _share_limits(some, none)[0]))
    low, high = _share_limits(some, Estimate(0.1, 0.01, 0.08, 0.13))
    assert low < 0.75 < high


# Simulated surveys

SURVEYS = 2000
Z = float(norm.ppf(0.975))


def population(prevalence: float, apart: float, confident: float, seed: int = 0) -> tuple[Counts, Counts, Counts]:
    """Return the true and the mapped class and the confidence in percent of 300,000 pixels, of a model that is too confident by a factor."""
    rng = np.random.default_rng(seed)
    truth = rng.random(300_000) < prevalence
    score = rng.normal(size=truth.size) + apart * truth
    logit = confident * (apart * score - apart**2 / 2 + math.log(prevalence / (1 - prevalence)))
    return truth.astype(int), (logit > 0).astype(int), np.rint(100 / (1 + np.exp(-np.abs(logit)))).astype(int)


def simulated(
    prevalence: float, apart: float, confident: float, points: int, *, by_confidence: bool = True
) -> tuple[float, float]:
    """Return the coverage and the mean width of the intervals of the share of a class."""
    truth, mapped, confidence = population(prevalence, apart, confident)
    pixels = np.zeros((2, 101), np.int64)
    np.add.at(pixels, (mapped, confidence if by_confidence else 0), 1)
    strata, table = stratify(ClassTally(pixels, pixels.astype(float), np.zeros(2, np.int64), by_confidence), points)
    stratum = table[mapped, confidence if by_confidence else 0]
    area = np.array([each.pixels for each in strata]) / len(truth)
    positives = np.bincount(stratum, truth, len(strata)).astype(int)
    drawn = np.array([each.points for each in strata])
    rng = np.random.default_rng(1)
    hits = rng.hypergeometric(positives, np.array([s.pixels for s in strata]) - positives, drawn, (SURVEYS, len(drawn)))
    low, high = score_limits(area, hits / drawn, drawn.astype(float), Z)
    return float(((low <= truth.mean()) & (truth.mean() <= high)).mean()), float((high - low).mean())


@pytest.mark.parametrize("points", [200, 400, 1000])
@pytest.mark.parametrize("confident", [1.0, 3.0])
@pytest.mark.parametrize("apart", [2.5, 3.5])
@pytest.mark.parametrize("prevalence", [0.03, 0.2])
def test_intervals_cover_the_true_area(prevalence: float, apart: float, confident: float, points: int) -> None:
    """93 % of 2,000 surveys or more, by strata of confidence and by classes, also of a model that is too sure of itself."""
    for by_confidence in (True, False):
        covered, _ = simulated(prevalence, apart, confident, points, by_confidence=by_confidence)
        assert covered >= 0.93, by_confidence


@pytest.mark.parametrize("prevalence", [0.03, 0.2])
def test_strata_by_confidence_are_narrower_than_the_classes(prevalence: float) -> None:
    """16 % or more, with a model whose confidences are right."""
    _, width = simulated(prevalence, 2.5, 1.0, 400)
    _, by_class = simulated(prevalence, 2.5, 1.0, 400, by_confidence=False)
    assert 0.70 < width / by_class < 0.84


def test_accuracies_are_covered() -> None:
    """Producer's, user's and overall accuracy, in 150 complete surveys: 93 % less three standard errors."""
    truth, mapped, confidence = population(0.1, 2.5, 1.0)
    pixels = np.zeros((2, 101), np.int64)
    np.add.at(pixels, (mapped, confidence), 1)
    strata, table = stratify(ClassTally(pixels, pixels.astype(float), np.zeros(2, np.int64), True), 400)
    stratum = table[mapped, confidence]
    positives = np.bincount(stratum, truth, len(strata)).astype(int)
    drawn = np.array([each.points for each in strata])
    rng = np.random.default_rng(2)
    hits = rng.hypergeometric(positives, np.array([s.pixels for s in strata]) - positives, drawn, (150, len(drawn)))
    both = ((truth == 1) & (mapped == 1)).sum()
    true = np.array([both / (truth == 1).sum(), both / (mapped == 1).sum(), (truth == mapped).mean()])
    held = np.zeros(3)
    for each in hits:
        found = from_counts(strata, np.stack([drawn - each, each], 1))
        for i, estimate in enumerate((found.producers[1], found.users[1], found.overall)):
            assert estimate is not None
            held[i] += estimate.low <= true[i] <= estimate.high
    assert (held / 150 > 0.93 - 3 * math.sqrt(0.93 * 0.07 / 150)).all(), held / 150
