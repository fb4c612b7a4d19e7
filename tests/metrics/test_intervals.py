"""Intervals against scipy's bootstrap, closed forms and simulated coverage."""

from __future__ import annotations

import numpy as np
import pytest

from pixelwise.metrics import intervals
from pixelwise.metrics.intervals import bootstrap, percentiles


def share(totals):
    """Give the share of the first column in the second: (R, 1)."""
    return totals[:, :1] / totals[:, 1:]


def images(n, seed=0):
    """Draw images of 100 to 200 pixels that are right with a probability of their own."""
    generator = np.random.default_rng(seed)
    size = generator.integers(100, 200, n)
    return np.stack([generator.binomial(size, generator.beta(8, 2, n)), size], 1)


def test_bounds_match_explicit_resampling():
    sums = images(40)
    generator = np.random.default_rng(99)
    totals = np.stack([sums[generator.integers(0, 40, 40)].sum(0) for _ in range(4000)])
    low, high = np.quantile(totals[:, 0] / totals[:, 1], [0.025, 0.975])
    found = bootstrap(sums, share, resamples=4000, seed=1)
    assert found[0][0] == pytest.approx(low, abs=0.004)
    assert found[1][0] == pytest.approx(high, abs=0.004)


def test_bounds_of_a_mean_match_the_normal_distribution():
    values = np.random.default_rng(0).normal(10, 2, (400, 1))
    low, high = bootstrap(values, lambda totals: totals / 400, resamples=4000)
    half = 1.96 * values.std() / 20
    assert low[0] == pytest.approx(values.mean() - half, abs=0.03)
    assert high[0] == pytest.approx(values.mean() + half, abs=0.03)


def test_intervals_have_nominal_coverage():
    truth, hits, runs = 0.8, 0, 300
    for run in range(runs):
        low, high = bootstrap(images(60, seed=run), share, resamples=300, seed=run)
        hits += low[0] <= truth <= high[0]
    assert 0.90 <= hits / runs <= 0.985


def test_an_interval_over_pixels_would_be_too_narrow():
    """Why images are drawn: pixels of one image are wrong together."""
    sums = images(60)
    low, high = bootstrap(sums, share)
    p, n = sums[:, 0].sum() / sums[:, 1].sum(), sums[:, 1].sum()
    assert high[0] - low[0] > 2.5 * 2 * 1.96 * np.sqrt(p * (1 - p) / n)


def test_bounds_depend_on_the_seed_only(monkeypatch):
    sums = images(30)
    first, other = bootstrap(sums, share, seed=3), bootstrap(sums, share, seed=4)
    monkeypatch.setattr(intervals, "_DRAWS", 100)
    np.testing.assert_array_equal(bootstrap(sums, share, seed=3), first)
    assert not np.array_equal(first, other)


def test_memory_is_bounded(monkeypatch):
    monkeypatch.setattr(intervals, "_DRAWS", 1000)
    seen = []

    def statistic(totals):
        seen.append(len(totals))
        return share(totals)

    bootstrap(images(100), statistic, resamples=95)
    assert max(seen) == 10
    assert sum(seen) == 95


@pytest.mark.parametrize(("count", "resamples"), [(1, 1000), (40, 0), (40, 1)])
def test_no_interval_without_images_or_resamples(count, resamples):
    low, high = bootstrap(images(count), share, resamples=resamples)
    assert np.isnan(low).all()
    assert np.isnan(high).all()


def test_undefined_draws_are_left_out():
    values = np.array([[0.0, np.nan, 1.0], [10.0, np.nan, np.nan], [5.0, np.nan, 3.0]])
    low, high = percentiles(values, level=0.5)
    np.testing.assert_allclose(low, [2.5, np.nan, 1.5])
    np.testing.assert_allclose(high, [7.5, np.nan, 2.5])
