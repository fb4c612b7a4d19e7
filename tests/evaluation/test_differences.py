"""Differences against scipy, hand-computed adjustments and simulated error rates."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from tests.evaluation.drawn import NAMES, counted, miou, with_seeds
from tests.metrics.test_intervals import freedom

from pixelwise.evaluation import paired_scores
from pixelwise.evaluation.comparison import compare
from pixelwise.evaluation.paired_scores import holm
from pixelwise.metrics import intervals
from pixelwise.metrics.intervals import score_sums
from pixelwise.metrics.scores import overlap_statistic


def row(entry):
    return entry.difference, entry.low, entry.high


def test_scores_and_differences_match_the_counts():
    a, b = counted(0.8), counted(0.9, seed=1, name="b")
    found = compare([a, b])
    assert found.standings[0].means["miou"].value == pytest.approx(miou(a.counts), abs=1e-12)
    assert found.pairs[0].means["miou"].difference == pytest.approx(miou(b.counts) - miou(a.counts), abs=1e-12)
    hits, truth, predicted = b.counts.sum(0)
    classes = [found.standings[1].classes[name].value for name in NAMES]
    np.testing.assert_allclose(classes, hits / (truth + predicted - hits), rtol=1e-12)
    means = found.standings[1].means
    assert means["pixel_accuracy"].value == pytest.approx(hits.sum() / truth.sum())
    assert means["mean_dice"].value == pytest.approx(np.mean(2 * hits / (truth + predicted)))


def test_intervals_of_many_images_match_a_bootstrap():
    a, b = counted(0.85, n=60), counted(0.87, n=60, seed=1, name="b")

    def difference(index):
        return miou(b.counts[index]) - miou(a.counts[index])

    other = stats.bootstrap(
        (np.arange(60),), difference, n_resamples=4000, vectorized=False, method="percentile", rng=5
    ).confidence_interval
    entry = compare([a, b]).pairs[0].means["miou"]
    width = other.high - other.low
    assert entry.low == pytest.approx(other.low, abs=width / 15)
    assert entry.high == pytest.approx(other.high, abs=width / 15)


def test_difference_in_one_class_is_that_of_a_paired_t_test():
    """Images of equal size, all of one class but for false positives on ignored pixels: the IoU is the mean of hits."""
    generator = np.random.default_rng(0)
    truth = np.full((30, 1), 1000)
    a, b = (
        replace(counted(0.5, n=30, name=name, sizes=(1,)), counts=np.stack([hits, truth, hits], 1))
        for name, hits in (("a", generator.integers(500, 800, (30, 1))), ("b", generator.integers(550, 850, (30, 1))))
    )
    entry = compare([a, b]).pairs[0].classes[0]
    shares = (b.counts - a.counts)[:, 0, 0] / 1000
    error = shares.std(ddof=1) / np.sqrt(30) * np.sqrt(1 + 1 / 30)
    assert entry.difference == pytest.approx(shares.mean())
    df = freedom(shares - shares.mean(), 30)
    assert entry.low == pytest.approx(shares.mean() - stats.t.ppf(0.975, df) * error)
    assert entry.high == pytest.approx(shares.mean() + stats.t.ppf(0.975, df) * error)
    assert entry.p == pytest.approx(2 * stats.t.sf(abs(shares.mean()) / error, df), rel=1e-6)
    # Nearly the p of scipy's paired test, whose degrees of freedom are one fewer.
    assert entry.p == pytest.approx(stats.ttest_rel(*((run.counts[:, 0, 0]) for run in (a, b))).pvalue, rel=0.5)


def test_scores_of_models_are_those_of_their_evaluations():
    runs = [counted(0.8, groups=("g", "g", *[None] * 38)), counted(0.9, seed=1, name="b")]
    found = compare(runs)
    for run, standing in zip(runs, found.standings, strict=True):
        units = run.counts.reshape(40, -1)
        alone = score_sums(units, overlap_statistic(3), runs[0].groups)
        assert [(s.value, s.low, s.high) for s in standing.means.values()] == [
            (s.value, pytest.approx(s.low), pytest.approx(s.high)) for s in alone[:4]
        ]
        assert [(s.low, s.high) for s in standing.classes.values()] == [
            (pytest.approx(s.low), pytest.approx(s.high)) for s in alone[5:8]
        ]
    assert found.interval_method["method"] == intervals.METHOD
    assert (found.interval_method["unit"], found.interval_method["n"]) == ("group", 39)
    assert 35 < found.interval_method["effective_n"] < 39


def test_common_difficulty_cancels():
    a = counted(0.85, spread=3)
    hits, truth, predicted = np.moveaxis(a.counts, 1, 0)
    # Each image a little better, whatever it is like.
    better = hits + (truth - hits) // 10
    b = replace(a, name="b", counts=np.stack([better, truth, predicted], 1))
    found = compare([a, b])
    entry, alone = found.pairs[0].means["miou"], found.standings[0].means["miou"]
    assert entry.shown
    assert alone.high - alone.low > 5 * (entry.high - entry.low)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10**6), st.integers(2, 40), st.booleans())
def test_it_is_antisymmetric(seed, n, grouped):
    groups = tuple(f"g{i // 2}" for i in range(n)) if grouped else (None,) * n
    a, b = (
        counted(0.8, n=n, data=seed, groups=groups),
        counted(0.85, n=n, data=seed, seed=seed, name="b", groups=groups),
    )
    forth, back = compare([a, b]).pairs[0], compare([b, a]).pairs[0]
    for x, y in zip((*forth.means.values(), *forth.classes), (*back.means.values(), *back.classes), strict=True):
        assert (x.shown, x.p, x.p_adjusted, x.n) == (y.shown, y.p, y.p_adjusted, y.n)
        assert x.difference == pytest.approx(-y.difference, abs=1e-12)
        assert (x.low is None) == (y.low is None) == (x.p is None) == (n < (19 if grouped else 10)), x
        if x.low is not None:
            assert (x.low, x.high) == (pytest.approx(-y.high, abs=1e-12), pytest.approx(-y.low, abs=1e-12))


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 10**6), st.integers(2, 30))
def test_the_same_model_differs_in_nothing(seed, n):
    a = counted(0.8, n=n, data=seed)
    pair = compare([a, replace(a, name="b")]).pairs[0]
    for entry in (*pair.means.values(), *pair.classes):
        assert row(entry) == ((0.0, 0.0, 0.0) if n >= 10 else (0.0, None, None))
        assert (entry.p, entry.shown) == (1.0 if n >= 10 else None, False)
    assert pair.sentences == (f"b and a have the same counts in every image: there is no difference ({n} images).",)


def test_order_of_images_and_other_models_do_not_matter():
    a, b, c = counted(0.8), counted(0.82, seed=1, name="b"), counted(0.7, seed=2, name="c")
    order = np.random.default_rng(0).permutation(40)
    shuffled = replace(b, ids=tuple(b.ids[i] for i in order), counts=b.counts[order])
    assert compare([a, b]).pairs[0] == compare([a, shuffled, c]).pairs[0]
    # Only the random swaps behind p depend on the seed.
    entry, other = (compare([a, b], seed=seed).pairs[0].means["miou"] for seed in (0, 1))
    assert row(entry) == row(other)
    assert entry.p == pytest.approx(other.p, abs=0.02)


def test_real_difference_is_found_and_described():
    a = counted((0.9, 0.7, 0.5), n=100)
    b = counted((0.9, 0.85, 0.5), n=100, seed=1, name="b")
    pair = compare([a, b]).pairs[0]
    verdicts = {entry.name: entry.shown for entry in pair.classes}
    assert verdicts["car"]
    car = pair.classes[1]
    assert car.low < car.difference < car.high
    assert pair.sentences[0] == (
        f"b is better than a: its mIoU is {100 * pair.means['miou'].difference:.1f} ± "
        f"{50 * (pair.means['miou'].high - pair.means['miou'].low):.1f} points higher (100 images)."
    )
    assert any(s.startswith("b is better than a on car by ") and s.endswith("(100 images).") for s in pair.sentences)
    assert pair.sentences[-1] == "One run each: the effect of the seed is not in this interval."
    back = compare([b, a]).pairs[0]
    assert back.sentences[0].startswith("a is worse than b: its mIoU is ")
    assert " points lower (100 images)." in back.sentences[0]


def test_no_difference_is_described_with_the_measured_interval():
    pair = compare([counted(0.8), counted(0.8, seed=1, name="b")]).pairs[0]
    low, high, between = (
        100 * x for x in (pair.means["miou"].low, pair.means["miou"].high, pair.means["miou"].difference)
    )
    assert pair.sentences[0] == (
        f"No difference in mIoU between b and a can be shown with 40 images ({between:+.1f} points, 95 % interval "
        f"{low:+.1f} to {high:+.1f})."
    )
    assert "On road, car, pole no difference can be shown with 40 images." in pair.sentences


def test_under_the_null_about_one_in_twenty_is_shown():
    shown, classes, alone = 0, 0, 0
    for i in range(200):
        a = counted(0.8, n=50, data=i, seed=2 * i)
        b = counted(0.8, n=50, data=i, seed=2 * i + 1, name="b")
        pair = compare([a, b], seed=i).pairs[0]
        shown += pair.means["miou"].shown
        classes += any(entry.shown for entry in pair.classes)
        alone += any(entry.shown_alone for entry in pair.classes)
    # 0.01 and 0.99 points of the binomial law around 0.05 are 3 and 18.
    assert 3 <= shown <= 18
    assert classes <= 18
    assert alone > 18


@pytest.mark.parametrize(
    ("n", "rare"),
    [pytest.param(10, 0.9, marks=pytest.mark.slow), (20, 0.4), pytest.param(50, 0.2, marks=pytest.mark.slow)],
)
def test_exchangeable_models_are_rarely_shown_as_different(n, rare):
    """In each image the models are swapped at random. A class is in `rare` of the images, in some of them large."""
    shown, classes, alone = 0, 0, 0
    for i in range(120):
        generator = np.random.default_rng([1, n, i])
        both = [
            counted((0.85, 0.7, 0.5), n=n, data=i, seed=2 * i + j, spread=5, sizes=(4000, 900, 300)) for j in (0, 1)
        ]
        has = generator.random(n) < rare
        size = np.where(has, generator.lognormal(0, 1, n), 0)
        counts = [(run.counts * np.stack([size**0, size**0, size], 1)[:, None]).astype(np.int64) for run in both]
        swapped = generator.random(n)[:, None, None] < 0.5
        a, b = (np.where(swapped, counts[j], counts[1 - j]) for j in (0, 1))
        pair = compare([replace(both[0], counts=a), replace(both[1], counts=b, name="b")]).pairs[0]
        shown += pair.means["miou"].shown
        classes += any(entry.shown for entry in pair.classes)
        alone += sum(entry.shown_alone for entry in pair.classes)
    # The 0.99 points of the binomial law at 0.05: 12 of 120, and 28 of 360.
    assert shown <= 12
    assert classes <= 12
    assert alone <= 28


def test_class_in_few_images_has_no_verdict_and_widens_the_mean():
    """A class in one image of 30 has no interval of its own, in four neither, in five it has."""
    widths = {}
    for few in (1, 4, 5):
        a, b = (counted(0.5, n=30, seed=i, name="ab"[i]) for i in (0, 1))
        a.counts[few:, :, 2] = b.counts[few:, :, 2] = 0
        truth = b.counts[:few, 1, 2]
        b.counts[:few, 0, 2], b.counts[:few, 2, 2] = np.maximum(truth - np.arange(few), 0), truth
        found = compare([a, b])
        pair = found.pairs[0]
        pole = pair.classes[2]
        assert pole.difference > 0.2
        assert (pole.low is None, pole.p is None, pole.p_adjusted is None, pole.n) == (*[few < 5] * 3, few)
        assert pole.shown is False
        assert any(s.startswith("On road, car, pole no difference can be shown") for s in pair.sentences)
        assert ("no interval for pole: in fewer than 5 images" in found.notices) is (few < 5)
        assert (found.standings[0].classes["pole"].low is None) is (few < 5)
        miou = pair.means["miou"]
        assert miou.shown is False or few > 1
        assert -1 < miou.low < miou.difference < miou.high < 1
        widths[few] = miou.high - miou.low
    assert widths[1] > 5 * max(widths[4], widths[5])


@pytest.mark.parametrize(("differing", "shown"), [(5, False), (6, True)])
def test_five_images_can_show_nothing(differing, shown):
    """Five images all favour one of two equally good models in 1 of 16 cases."""
    a = counted(0.3, n=12, sizes=(5000,), spread=400)
    counts = a.counts.copy()
    counts[:differing, 0] = counts[:differing, 1] * 95 // 100
    found = compare([a, replace(a, name="b", counts=counts)])
    entry = found.pairs[0].means["miou"]
    assert entry.low > 0
    assert entry.shown is shown
    assert entry.p >= 2 / 2**differing
    assert (
        "Too few of them differ: all could favour the same model by chance." in found.pairs[0].sentences
    ) is not shown


@pytest.mark.parametrize(("n", "found"), [(1, "1 image is"), (2, "2 images are"), (9, "9 images are")])
def test_fewer_than_ten_images_have_no_interval(n, found):
    comparison = compare([counted(0.3, n=n), counted(0.9, n=n, seed=1, name="b")])
    for entry in (*comparison.pairs[0].means.values(), *comparison.pairs[0].classes):
        assert entry.difference > 0.2
        assert (entry.low, entry.high, entry.p, entry.shown) == (None, None, None, False)
    assert comparison.standings[0].means["miou"].low is None
    assert comparison.interval == f"none: {found} too few, at least 10 are needed"
    assert comparison.interval_method["method"] == "none"
    assert comparison.pairs[0].sentences[0] == (
        f"No difference in mIoU between b and a can be shown with {found.rpartition(' ')[0]}."
    )


def test_groups_are_one_unit():
    n = 120
    single, grouped = (None,) * n, tuple(f"g{i // 10}" for i in range(n))
    runs = [counted(0.8, n=n, spread=500), counted(0.8, n=n, seed=1, name="b", spread=500)]
    # Twelve videos in whose frames b is alike better or worse.
    tilt = np.repeat([1, -1, 1, 1, -1, 1] * 2, 10)[:, None] * 200
    runs[1].counts[:, 0, :1] = np.minimum(runs[1].counts[:, 0, :1] + tilt, runs[1].counts[:, 1:, :1].min(1))
    apart = compare([replace(r, groups=single) for r in runs])
    whole = compare([replace(r, groups=grouped) for r in runs])
    x, y = apart.pairs[0].classes[0], whole.pairs[0].classes[0]
    assert x.difference == y.difference
    assert y.high - y.low > 2 * (x.high - x.low)
    assert "over 12 groups of 120 images" in whole.interval
    assert "can be shown with 12 groups of 120 images (" in whole.pairs[0].sentences[0]
    # Who knows of no groups takes those of the others.
    assert compare([replace(runs[0], groups=single), replace(runs[1], groups=grouped)]).pairs == whole.pairs
    # As one image with the pixels of all images of the group.
    summed = [
        replace(
            r, counts=r.counts.reshape(12, 10, 3, 3).sum(1), ids=r.ids[:12], truths=r.truths[:12], groups=(None,) * 12
        )
        for r in runs
    ]
    assert row(compare(summed).pairs[0].classes[0]) == pytest.approx(row(y))
    few = compare([replace(r, groups=tuple(f"g{i // 20}" for i in range(n))) for r in runs])
    assert few.interval == "none: 6 groups of 120 images are too few, at least 10 are needed"


def test_class_in_one_prediction_only_is_reported():
    a = counted(0.8)
    a.counts[:, :, 2] = 0
    counts = a.counts.copy()
    counts[0, 2, 2] = 5
    found = compare([a, replace(a, name="b", counts=counts)])
    assert found.pairs[0].classes[2].difference is None
    assert found.pairs[0].means["miou"].difference < -0.15
    assert not found.pairs[0].means["miou"].shown  # five pixels in one image
    present = found.pairs[0].means["miou_present"]
    assert (present.difference, present.low, present.high) == (0, 0, 0)
    assert any("only one of them predicts pole, absent from the ground truth" in notice for notice in found.notices)


def test_holm_by_hand():
    p = np.array([0.01, 0.04, np.nan, 0.03, 0.005])
    np.testing.assert_allclose(holm(p), [0.03, 0.06, np.nan, 0.06, 0.02])
    np.testing.assert_allclose(holm(np.array([0.6, 0.9])), [1.0, 1.0])
    assert holm(np.array([])).size == 0


def test_many_classes_can_still_be_shown():
    """The adjustment multiplies p by up to 60."""
    sizes = (400,) * 60
    names = tuple(f"c{i}" for i in range(60))
    a, b = (
        replace(counted(q, n=40, seed=i, name=str(i), sizes=sizes, spread=50), classes=names)
        for i, q in enumerate((0.6, 0.8))
    )
    found = compare([a, b])
    assert sum(entry.shown for entry in found.pairs[0].classes) > 50


def test_memory_is_bounded(monkeypatch):
    """Nothing but speed depends on how much is held at once."""
    names = tuple(f"c{i}" for i in range(30))
    runs = [
        replace(counted(0.6, n=12, seed=i, name=f"{i}", sizes=(400,) * 30), classes=names, recipe="ab"[i // 3])
        for i in range(6)
    ]
    found = compare(with_seeds(runs))
    monkeypatch.setattr(paired_scores, "_NUMBERS", 120)
    monkeypatch.setattr(intervals, "_PIECE", 5)
    assert compare(with_seeds(runs)) == found


@pytest.mark.parametrize("images", [1, 2])
def test_one_or_two_images_do_not_decide_a_mean(images):
    """Two models that hardly differ, but for a class in one or two images, which either finds by chance."""
    shown = 0
    for seed in range(40):
        generator = np.random.default_rng(seed)
        truth = np.tile([4000, 2000, 0], (30, 1))
        truth[:images, 2] = 500
        hits = np.minimum(truth, (truth * generator.beta(60, 20, truth.shape)).astype(int))
        a = hits + generator.integers(-2, 3, hits.shape) * (hits > 10)
        b = hits + generator.integers(-2, 3, hits.shape) * (hits > 10)
        found = generator.random((images, 2)) < 0.5
        a[:images, 2], b[:images, 2] = 500 * found[:, 0], 500 * found[:, 1]
        runs = [
            replace(counted(0.8, n=30, name=name), counts=np.stack([each, truth, each], 1))
            for name, each in (("a", a), ("b", b))
        ]
        shown += compare(runs).pairs[0].means["miou"].shown
    assert shown <= 4
