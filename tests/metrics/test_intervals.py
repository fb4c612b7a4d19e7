"""Intervals against closed forms, explicit recomputation and simulated coverage."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from scipy.special import expit, logit

from pixelwise.metrics import intervals
from pixelwise.metrics.intervals import Statistic, by_group, estimate, score_sums
from pixelwise.metrics.scores import overlap_scores, overlap_statistic


def ratio(totals, _):
    """Give the first column as a share of the second: (R, 1)."""
    with np.errstate(invalid="ignore"):
        return totals[:, :1] / totals[:, 1:]


SHARE = Statistic(ratio, ("share",), weights=lambda sums: sums[:, 1:])


def images(n, seed=0):
    """Draw images of 100 to 200 pixels that are right with a probability of their own."""
    generator = np.random.default_rng(seed)
    size = generator.integers(100, 200, n)
    return np.stack([generator.binomial(size, generator.beta(8, 2, n)), size], 1)


def classes(n, k=3, seed=0):
    """Draw overlap sums (n, 3·k) of images in which the last class is in every third image only."""
    generator = np.random.default_rng(seed)
    truth = generator.poisson(200, (n, k))
    truth[np.arange(n) % 3 > 0, -1] = 0
    hits = generator.binomial(truth, generator.beta(6, 3, (n, k)))
    return np.concatenate([hits, truth, hits + np.roll(truth - hits, 1, 1)], 1)


def interval(sums, statistic=SHARE):
    """Give value, bounds and effective number of units of the first score."""
    spread = estimate(sums, statistic)
    low, high = spread.bounds()
    return spread.values[0], low[0], high[0], spread.effective[0]


def freedom(deviations, effective):
    """Degrees of freedom of a variance by the kurtosis of its sample, times 3/4, at most the effective number."""
    d = deviations / np.abs(deviations).max()
    found = 2 * 0.75 / ((d**4).sum() / (d**2).sum() ** 2 - 1 / len(d))
    return min(max(found, 1), effective)


# --- one score ---


@pytest.mark.parametrize("n", [10, 25, 400])
def test_share_of_equal_units_by_hand(n):
    shares = np.random.default_rng(n).beta(6, 2, n)
    value, low, high, effective = interval(np.stack([shares * 50, np.full(n, 50.0)], 1))
    p, error = shares.mean(), stats.sem(shares) * np.sqrt(1 + 1 / n)
    reach = stats.t.ppf(0.975, freedom(shares - p, n)) * error / (p * (1 - p))
    assert value == pytest.approx(p)
    assert effective == pytest.approx(n)
    assert (low, high) == (pytest.approx(expit(logit(p) - reach)), pytest.approx(expit(logit(p) + reach)))


def test_many_units_have_the_interval_of_a_mean():
    shares = np.random.default_rng(0).beta(6, 2, 2000)
    value, low, high, _ = interval(np.stack([shares, np.ones(2000)], 1))
    expected = stats.t.interval(0.95, 1999, value, stats.sem(shares))
    assert (low, high) == (pytest.approx(expected[0], abs=2e-4), pytest.approx(expected[1], abs=2e-4))


def test_ratio_of_unequal_units_by_the_textbook():
    """The linearised variance of a ratio (Cochran 1977, chapter 6), each residual divided by 1 - w (HC2)."""
    sums = images(30).astype(float)
    sums[:3] *= 20
    hits, size = sums.T
    total, p = size.sum(), hits.sum() / size.sum()
    w = size / total
    m = 1 / (w**2).sum()
    variance = ((hits - p * size) ** 2 / (1 - w)).sum() / total**2
    df = freedom((hits - p * size) / (1 - w), m)
    reach = stats.t.ppf(0.975, df) * np.sqrt(variance * (1 + 1 / m)) / (p * (1 - p))
    value, low, high, effective = interval(sums)
    assert (value, effective) == (pytest.approx(p), pytest.approx(m))
    assert m < 15
    assert (low, high) == (pytest.approx(expit(logit(p) - reach)), pytest.approx(expit(logit(p) + reach)))


@pytest.mark.parametrize("scale", ["distance", "difference"])
def test_other_scales_by_hand(scale):
    """A mean of distances on the log scale, and of signed numbers as they are."""
    values = np.random.default_rng(1).gamma(3, 4, 20) - (10 if scale == "difference" else 0)
    statistic = Statistic(ratio, ("mean",), scales={"mean": scale})
    value, low, high, _ = interval(np.stack([values, np.ones(20)], 1), statistic)
    df = freedom(values - values.mean(), 20)
    reach = stats.t.ppf(0.975, df) * stats.sem(values) * np.sqrt(1 + 1 / 20)
    mean = values.mean()
    if scale == "distance":
        expected = mean * np.exp(np.array([-1, 1]) * reach / mean)
    else:
        expected = mean + np.array([-1, 1]) * reach
    assert value == pytest.approx(mean)
    assert [low, high] == pytest.approx(expected)


def test_an_interval_over_pixels_would_be_too_narrow():
    """Why images are the units: pixels of one image are wrong together."""
    sums = images(60)
    p, low, high, _ = interval(sums)
    assert high - low > 2.5 * 2 * 1.96 * np.sqrt(p * (1 - p) / sums[:, 1].sum())


def test_one_huge_image_among_small_ones_is_one_unit():
    sums = images(30)
    huge = sums.copy()
    huge[0] = (60_000, 100_000)
    alike, apart = interval(sums), interval(huge)
    assert alike[3] > 25
    assert 1 < apart[3] < 1.2
    assert estimate(huge, SHARE).freedom[0] < 1.2
    assert apart[2] - apart[1] > 3 * (alike[2] - alike[1])


@pytest.mark.parametrize("value", [0, 1])
@pytest.mark.parametrize("n", [10, 100])
def test_perfect_and_zero_scores_have_an_interval(value, n):
    found, low, high, _ = interval(np.tile([40 * value, 40], (n, 1)))
    assert found == value
    assert 0 <= low <= value <= high <= 1
    assert low < high
    other = interval(np.tile([40 * value, 40], (10 * n, 1)))
    assert other[2] - other[1] < high - low


@pytest.mark.parametrize("n", [10, 30, 200])
def test_ends_have_the_exact_bound_of_independent_units(n):
    """Clopper & Pearson 1934: the 97.5 % point of a beta distribution, as for 0 or n events in n."""
    ones = np.stack([np.full(n, 7), np.full(n, 7)], 1)
    assert interval(ones)[1] == pytest.approx(stats.beta.ppf(0.025, n, 1), rel=1e-6)
    assert interval(ones * [0, 1])[2] == pytest.approx(stats.beta.ppf(0.975, 1, n), rel=1e-6)


def test_rare_events_are_covered():
    """A share of images, such as those in which an object was missed: zero events say little about a rare one."""
    statistic, generator = Statistic(ratio, ("missed",)), np.random.default_rng(0)
    for share, n in ((0.02, 10), (0.05, 10), (0.05, 50)):
        covered = 0
        for _ in range(300):
            events = generator.random(n) < share
            _, low, high, _ = interval(np.stack([events, np.ones(n)], 1), statistic)
            covered += low <= share <= high
        assert covered / 300 > 0.9, (share, n)


def test_a_distance_of_zero_has_no_interval():
    statistic = Statistic(ratio, ("mean",), scales={"mean": "distance"})
    low, high = estimate(np.tile([0.0, 1.0], (12, 1)), statistic).bounds()
    assert np.isnan([low[0], high[0]]).all()


def test_units_without_pixels_do_not_count():
    sums = np.concatenate([images(9), np.zeros((20, 2))])
    spread = estimate(sums, SHARE)
    assert spread.units == 9
    assert spread.withheld().all()
    assert not estimate(np.concatenate([images(10), np.zeros((20, 2))]), SHARE).withheld().any()


# --- several scores ---


def by_hand(sums, k):
    """Give standard errors of the IoU of k classes on the logit scale, with loops, and their effective numbers of units."""
    n = len(sums)
    hits, truth, predicted = np.split(sums.astype(float), 3, 1)
    union = truth + predicted - hits
    values = hits.sum(0) / union.sum(0)
    effective, relative = np.zeros(k), np.zeros(k)
    for c in range(k):
        variance = 0.0
        for i in range(n):
            rest = [j for j in range(n) if j != i]
            left_out = hits[rest, c].sum() / union[rest, c].sum()
            variance += (1 - union[i, c] / union[:, c].sum()) * (values[c] - left_out) ** 2
        effective[c] = union[:, c].sum() ** 2 / (union[:, c] ** 2).sum()
        relative[c] = variance * effective[c] / (values[c] * (1 - values[c]))
    mean = sum((m - 1) * r for m, r in zip(effective, relative, strict=True)) / (effective - 1).sum()
    shrunk = ((effective - 1) * relative + mean) / effective
    return np.sqrt(shrunk / effective * (1 + 1 / effective) / (values * (1 - values))), effective


def test_errors_match_leaving_out_each_image():
    sums = classes(24, 4)
    spread = estimate(sums, overlap_statistic(4))
    errors, effective = by_hand(sums, 4)
    np.testing.assert_allclose(spread.errors[5:9], errors)
    np.testing.assert_allclose(spread.effective[5:9], effective)
    expected = [freedom(column, m) for column, m in zip(spread.deviations[:, 5:9].T, effective, strict=True)]
    np.testing.assert_allclose(spread.freedom[5:9], expected)
    low, high = spread.bounds()
    reach = stats.t.ppf(0.975, expected) * errors
    np.testing.assert_allclose(low[5:9], expit(logit(spread.values[5:9]) - reach))
    np.testing.assert_allclose(high[5:9], expit(logit(spread.values[5:9]) + reach))
    assert spread.present[5:9].tolist() == (sums.reshape(24, 3, 4)[:, 1:].any(1)).sum(0).tolist()


def test_mean_of_equal_classes_has_their_interval():
    """Classes that are right and wrong in the same images tell no more than one of them."""
    one = classes(20, 2)[:, [0, 2, 4]]
    low, high = estimate(np.repeat(one, 6, 1), overlap_statistic(6)).bounds()
    alone = estimate(one, overlap_statistic(1)).bounds()
    assert (low[0], high[0]) == (pytest.approx(alone[0][0]), pytest.approx(alone[1][0]))
    assert (low[0], high[0]) == (pytest.approx(low[5]), pytest.approx(high[5]))


def test_mean_of_independent_classes_is_more_certain_than_each():
    generator = np.random.default_rng(0)
    hits = generator.binomial(100, generator.beta(6, 3, (60, 8)))
    low, high = estimate(np.concatenate([hits, hits * 0 + 100, hits * 0 + 100], 1), overlap_statistic(8)).bounds()
    width = (high - low)[5:13].mean()
    assert width / np.sqrt(8) < high[0] - low[0] < 1.5 * width / np.sqrt(8)


def test_class_of_one_image_has_its_spread_from_the_others():
    sums = classes(30).reshape(30, 3, 3)
    sums[1:, :, 2] = 0
    spread = estimate(sums.reshape(30, 9), overlap_statistic(3))
    low, high = spread.bounds()
    assert spread.withheld()[5:8].tolist() == [False, False, True]
    assert spread.effective[7] == 1
    assert 0 < low[7] < spread.values[7] < high[7] < 1
    assert high[7] - low[7] > 0.8
    assert not spread.withheld()[:3].any()


@pytest.mark.parametrize(("present", "withheld"), [(1, True), (4, True), (5, False)])
def test_class_in_fewer_than_five_units_has_no_interval(present, withheld):
    sums = classes(15).reshape(15, 3, 3)
    sums[:, :, 2] = 0
    sums[:present, :, 2] = (3, 5, 6)
    found = score_sums(sums.reshape(15, 9), overlap_statistic(3), [None] * 15)
    assert (found[7].low is None, found[7].high is None, found[7].n) == (withheld, withheld, present)
    assert found[0].low < found[0].value < found[0].high


@pytest.mark.parametrize("n", [1, 2, 3, 9])
def test_fewer_than_ten_units_have_no_interval(n):
    for sums, groups in ((classes(n), [None] * n), (classes(3 * n), [i % n for i in range(3 * n)])):
        for score in score_sums(sums, overlap_statistic(3), groups):
            assert score.value is not None
            assert (score.low, score.high) == (None, None)


def test_ten_units_have_intervals():
    assert all(score.low < score.high for score in score_sums(classes(30), overlap_statistic(3), [None] * 30))
    assert score_sums(images(10), SHARE, [None] * 10)[0].low is not None
    assert score_sums(images(10), SHARE, [None] * 10, intervals=False)[0].low is None


def test_groups_of_unequal_size_are_one_unit_each():
    sums = images(60)
    groups = [f"g{i}" for i in np.repeat(range(12), [1, 1, 1, 1, 2, 2, 3, 4, 5, 10, 10, 20])]
    units, kind = by_group(sums, groups)
    assert (len(units), kind) == (12, "groups")
    np.testing.assert_array_equal(units[[0, 11]], [sums[0], sums[40:].sum(0)])
    (found,) = score_sums(sums, SHARE, groups)
    value, low, high, effective = interval(units)
    assert (found.value, found.low, found.high, found.n) == (value, low, high, 60)
    assert 4 < effective < 6
    (alone,) = score_sums(sums, SHARE, [None] * 60)
    assert alone.value == found.value
    assert found.high - found.low > 1.2 * (alone.high - alone.low)


def test_order_scale_and_pieces_do_not_matter(monkeypatch):
    sums = classes(40, 4)
    statistic = overlap_statistic(4)
    first = np.array(estimate(sums, statistic).bounds())
    np.testing.assert_array_equal(estimate(sums, statistic).bounds(), first)
    np.testing.assert_allclose(estimate(sums[::-1], statistic).bounds(), first, rtol=1e-9)
    for factor in (0.001, 1000):
        np.testing.assert_allclose(estimate(sums * factor, statistic).bounds(), first, rtol=1e-9)
    monkeypatch.setattr(intervals, "_PIECE", 7)
    np.testing.assert_allclose(estimate(sums, statistic).bounds(), first, rtol=1e-12)


def test_memory_is_bounded():
    seen = []

    def values(totals, reference):
        seen.append(len(totals))
        return ratio(totals, reference)

    estimate(images(2000), Statistic(values, ("share",), weights=lambda sums: sums[:, 1:]))
    assert max(seen) == intervals._PIECE < 2000


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_bounds_are_on_the_scale_and_enclose_the_value(data):
    """Any counts: empty images and classes, one class, huge and tiny images, and images that are all the same."""
    n, k = data.draw(st.integers(1, 30)), data.draw(st.integers(1, 5))
    generator = np.random.default_rng(data.draw(st.integers(0, 10**6)))
    size = 10.0 ** generator.uniform(0, data.draw(st.sampled_from([0, 2, 7])), (n, k))
    truth = np.where(generator.random((n, k)) < data.draw(st.sampled_from([0.05, 0.5, 1])), size, 0).astype(np.int64)
    quality = np.clip(generator.beta(1, 1, (n, k)) + data.draw(st.sampled_from([-1, -0.5, 0, 0.5, 1])), 0, 1)
    hits = (truth * quality).astype(np.int64)
    sums = np.concatenate([hits, truth, hits + np.roll(truth - hits, 1, 1)], 1)
    spread = estimate(sums, overlap_statistic(k))
    low, high = spread.bounds()
    np.testing.assert_array_equal(np.isnan(low), np.isnan(spread.values))
    defined = ~np.isnan(low)
    assert (low[defined] >= 0).all()
    assert (low[defined] <= spread.values[defined]).all()
    assert (spread.values[defined] <= high[defined]).all()
    assert (high[defined] <= 1).all()
    wider = spread.bounds(0.99)
    assert (wider[0][defined] <= low[defined]).all()
    assert (high[defined] <= wider[1][defined]).all()


# --- p-values ---


def paired(totals, reference):
    """Give the overlap scores of B minus those of A."""
    a, b = np.split(totals, 2, 1)
    reference_a, reference_b = np.split(reference, 2, 1)
    return overlap_scores(b, reference_b) - overlap_scores(a, reference_a)


def difference_statistic(k):
    plain = overlap_statistic(k)
    return Statistic(
        paired,
        plain.names,
        lambda sums: sum(plain.weights(side) for side in np.split(sums, 2, 1)),
        lambda totals: plain.means(totals[: 3 * k]),
        dict.fromkeys(plain.names, "difference"),
    )


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**6), st.integers(10, 40), st.floats(0, 0.2))
def test_p_is_at_most_five_percent_where_the_interval_excludes_0(seed, n, better):
    sums = classes(n, 4, seed)
    hits, truth, predicted = np.split(sums, 3, 1)
    moved = np.random.default_rng(seed).normal(better, 0.1, (n, 1))
    other = np.clip(hits + (truth * moved).astype(int), 0, np.minimum(truth, predicted))
    spread = estimate(np.concatenate([sums, other, truth, predicted], 1), difference_statistic(4))
    (low, high), p = spread.bounds(), spread.p_values()
    np.testing.assert_array_equal(p <= 0.05, (low > 0) | (high < 0))
    assert ((p > 0) & (p <= 1)).all()
    # An interval of the level 1 - p ends at 0.
    touching = np.flatnonzero((p > 1e-6) & (p < 1))
    low, high = spread.bounds(1 - p)
    ends = np.where(spread.values > 0, low, high)[touching]
    np.testing.assert_allclose(ends, 0, atol=1e-6)


def test_p_of_a_mean_difference_is_students():
    values = np.random.default_rng(0).normal(0.1, 0.3, 25)
    spread = estimate(np.stack([values, np.ones(25)], 1), Statistic(ratio, ("d",), scales={"d": "difference"}))
    t = values.mean() / (stats.sem(values) * np.sqrt(1 + 1 / 25))
    assert spread.p_values()[0] == pytest.approx(2 * stats.t.sf(abs(t), freedom(values - values.mean(), 25)), rel=1e-6)


def test_p_of_no_and_of_a_constant_difference():
    for value, expected in ((0.0, 1.0), (0.1, pytest.approx(1e-15, rel=0.5))):
        spread = estimate(np.tile([value, 1.0], (12, 1)), Statistic(ratio, ("d",), scales={"d": "difference"}))
        assert spread.p_values()[0] == expected


# --- coverage ---


def population(n=3000):
    """Draw overlap sums of images: two common classes, one in half of the images, one in a quarter, in a few of them large."""
    generator = np.random.default_rng(0)
    has = generator.random((n, 4)) < (1, 1, 0.5, 0.25)
    size = np.array([6000, 2000, 1500, 800]) * generator.lognormal(0, (0.3, 0.8, 1, 1), (n, 4))
    truth, quality = (has * size).astype(np.int64), np.array([0.9, 0.7, 0.6, 0.5])
    hits = generator.binomial(truth, generator.beta(4 * quality, 4 - 4 * quality, (n, 4)))
    return np.concatenate([hits, truth, hits + np.roll(truth - hits, 1, 1)], 1)


def bootstrap(units, generator, resamples=200):
    """Give bounds by the percentile bootstrap, with which the test compares."""
    counts = generator.multinomial(len(units), np.full(len(units), 1 / len(units)), resamples)
    drawn = overlap_scores((counts @ units).astype(float), units.sum(0, keepdims=True).astype(float))
    shown = ~np.isnan(drawn).all(0)
    low, high = np.full((2, drawn.shape[1]), np.nan)
    low[shown], high[shown] = np.nanquantile(drawn[:, shown], [0.025, 0.975], axis=0)
    return low, high


@pytest.mark.parametrize(("n", "widest"), [(10, 1.7), (20, 1.6), (50, 1.45)])
def test_coverage_is_nominal_where_that_of_the_bootstrap_is_not(n, widest):
    """mIoU and IoU of a population, of which n images are drawn 250 times; the rarest class is in five or more of them.

    The standard error of a coverage of 0.95 is 0.014. `widest`: width of the mIoU's interval, relative to that of a normal
    distribution with the true standard error.
    """
    whole, generator = population(), np.random.default_rng(n)
    total = whole.sum(0, keepdims=True).astype(float)
    scores = [0, *range(5, 9)]  # mIoU, and the IoU of each class
    truth = overlap_scores(total, total)[0, scores]
    found, other, counted, miou, widths = np.zeros(5), np.zeros(5), np.zeros(5), [], []
    for _ in range(250):
        units = whole[generator.integers(0, len(whole), n)]
        spread = estimate(units, overlap_statistic(4))
        shown = ~(spread.withheld() | np.isnan(spread.values))[scores]
        low, high = (bound[scores] for bound in spread.bounds())
        found += shown & (low <= truth) & (truth <= high)
        low_other, high_other = (bound[scores] for bound in bootstrap(units, generator))
        other += shown & (low_other <= truth) & (truth <= high_other)
        counted += shown
        miou.append(spread.values[0])
        widths.append(high[0] - low[0])
    coverage, of_bootstrap = found / counted, other / counted
    assert (coverage >= 0.91).all(), coverage
    assert (coverage[1:] <= 0.995).all(), coverage
    assert (of_bootstrap[1:] < 0.94).any(), of_bootstrap
    assert of_bootstrap[4] < 0.91, of_bootstrap
    assert of_bootstrap[0] < 0.91 or n == 50, of_bootstrap
    assert np.mean(widths) < widest * 2 * 1.96 * np.std(miou)
