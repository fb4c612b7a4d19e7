"""Differences against scipy's bootstrap, hand-computed adjustments and simulated error rates."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from tests.evaluation.drawn import NAMES, counted, miou

from pixelwise.evaluation import comparison
from pixelwise.evaluation.comparison import compare, holm
from pixelwise.metrics import intervals


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


def test_intervals_match_scipy():
    a, b = counted(0.85, n=60), counted(0.87, n=60, seed=1, name="b")

    def difference(index):
        return miou(b.counts[index]) - miou(a.counts[index])

    other = stats.bootstrap(
        (np.arange(60),), difference, n_resamples=4000, vectorized=False, method="percentile", rng=5
    ).confidence_interval
    entry = compare([a, b], resamples=4000).pairs[0].means["miou"]
    width = other.high - other.low
    assert entry.low == pytest.approx(other.low, abs=width / 15)
    assert entry.high == pytest.approx(other.high, abs=width / 15)


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
@given(st.integers(0, 10**6), st.integers(2, 30), st.booleans())
def test_it_is_antisymmetric(seed, n, grouped):
    groups = tuple(f"g{i // 2}" for i in range(n)) if grouped else (None,) * n
    a, b = (
        counted(0.8, n=n, data=seed, groups=groups),
        counted(0.85, n=n, data=seed, seed=seed, name="b", groups=groups),
    )
    forth, back = compare([a, b], resamples=200).pairs[0], compare([b, a], resamples=200).pairs[0]
    for x, y in zip((*forth.means.values(), *forth.classes), (*back.means.values(), *back.classes), strict=True):
        assert (x.shown, x.p, x.p_adjusted, x.n) == (y.shown, y.p, y.p_adjusted, y.n)
        assert x.difference == pytest.approx(-y.difference, abs=1e-12)
        if x.low is not None:
            assert (x.low, x.high) == (pytest.approx(-y.high, abs=1e-12), pytest.approx(-y.low, abs=1e-12))


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 10**6), st.integers(2, 30))
def test_the_same_model_differs_in_nothing(seed, n):
    a = counted(0.8, n=n, data=seed)
    pair = compare([a, replace(a, name="b")], resamples=100).pairs[0]
    for entry in (*pair.means.values(), *pair.classes):
        assert row(entry) == (0.0, 0.0, 0.0)
        assert (entry.p, entry.shown) == (1.0, False)
    assert pair.sentences == (f"b and a have the same counts in every image: there is no difference ({n} images).",)


def test_order_of_images_and_other_models_do_not_matter():
    a, b, c = counted(0.8), counted(0.82, seed=1, name="b"), counted(0.7, seed=2, name="c")
    order = np.random.default_rng(0).permutation(40)
    shuffled = replace(b, ids=tuple(b.ids[i] for i in order), counts=b.counts[order])
    assert compare([a, b]).pairs[0] == compare([a, shuffled, c]).pairs[0]
    assert compare([a, b], seed=1).pairs[0] != compare([a, b]).pairs[0]


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
        pair = compare([a, b], resamples=400, seed=i).pairs[0]
        shown += pair.means["miou"].shown
        classes += any(entry.shown for entry in pair.classes)
        alone += any(entry.shown_alone for entry in pair.classes)
    # 0.01 and 0.99 points of the binomial law around 0.05 are 3 and 18; a percentile interval is a little narrow.
    assert 3 <= shown <= 20
    assert classes <= 20
    assert alone > 20


def test_means_are_over_the_same_classes_in_every_draw():
    a, b = (counted(0.8, seed=i, name=str(i), n=30) for i in range(2))
    for entry in (a, b):
        entry.counts[3:, :, 2] = 0
    pair = compare([a, b]).pairs[0]
    pole = pair.classes[2]
    assert pole.n == 3
    # Were the mean over two classes in draws without poles, the interval would reach far beyond what two models can differ.
    assert pair.means["miou"].high - pair.means["miou"].low < 0.2


def test_class_in_a_single_image_has_no_verdict():
    a = counted(0.5, n=30)
    a.counts[1:, :, 2] = 0
    counts = a.counts.copy()
    counts[0, :, 2] = counts[0, 1, 2]
    pair = compare([a, replace(a, name="b", counts=counts)]).pairs[0]
    pole = pair.classes[2]
    assert pole.difference > 0.2
    assert (pole.low, pole.high, pole.p, pole.p_adjusted, pole.shown, pole.n) == (None, None, None, None, False, 1)
    assert any(s.startswith("On road, car, pole no difference can be shown") for s in pair.sentences)


@pytest.mark.parametrize(("n", "shown"), [(5, False), (6, True)])
def test_five_images_can_show_nothing(n, shown):
    """Five images all favour one of two equally good models in 1 of 16 cases."""
    a, b = counted(0.3, n=n), counted(0.95, n=n, seed=1, name="b")
    found = compare([a, b])
    entry = found.pairs[0].means["miou"]
    assert entry.low > 0
    assert entry.shown is shown
    assert entry.p == pytest.approx(2 / 2**n)
    assert (
        "Too few of them differ: all could favour the same model by chance." in found.pairs[0].sentences
    ) is not shown
    assert "fewer than 10 images give intervals that are too narrow" in found.notices


def test_single_image_has_no_interval():
    found = compare([counted(0.3, n=1), counted(0.9, n=1, seed=1, name="b")])
    entry = found.pairs[0].means["miou"]
    assert entry.difference > 0.2
    assert (entry.low, entry.high, entry.p, entry.shown) == (None, None, None, False)
    assert found.interval == "none: a single image cannot be resampled"
    assert found.pairs[0].sentences[0] == "No difference in mIoU between b and a can be shown with 1 image."


def test_groups_are_resampled_as_a_whole():
    n = 60
    single, grouped = (None,) * n, tuple(f"g{i // 10}" for i in range(n))
    runs = [counted(0.8, n=n, spread=500), counted(0.8, n=n, seed=1, name="b", spread=500)]
    # Six videos in whose frames b is alike better or worse.
    tilt = np.repeat([1, -1, 1, 1, -1, 1], 10)[:, None] * 200
    runs[1].counts[:, 0, :1] = np.minimum(runs[1].counts[:, 0, :1] + tilt, runs[1].counts[:, 1:, :1].min(1))
    apart = compare([replace(r, groups=single) for r in runs])
    whole = compare([replace(r, groups=grouped) for r in runs])
    x, y = apart.pairs[0].classes[0], whole.pairs[0].classes[0]
    assert x.difference == y.difference
    assert y.high - y.low > 2 * (x.high - x.low)
    assert "over 6 groups of 60 images" in whole.interval
    assert "fewer than 10 groups give intervals that are too narrow" in whole.notices
    assert "can be shown with 6 groups of 60 images (" in whole.pairs[0].sentences[0]
    # Who knows of no groups takes those of the others.
    assert compare([replace(runs[0], groups=single), replace(runs[1], groups=grouped)]).pairs == whole.pairs


def test_class_in_one_prediction_only_is_reported():
    a = counted(0.8)
    a.counts[:, :, 2] = 0
    counts = a.counts.copy()
    counts[0, 2, 2] = 5
    found = compare([a, replace(a, name="b", counts=counts)])
    assert found.pairs[0].classes[2].difference is None
    assert found.pairs[0].means["miou"].difference < -0.15
    assert found.pairs[0].means["miou_present"].difference == 0
    assert any("only one of them predicts pole, absent from the ground truth" in notice for notice in found.notices)


def test_holm_by_hand():
    p = np.array([0.01, 0.04, np.nan, 0.03, 0.005])
    np.testing.assert_allclose(holm(p), [0.03, 0.06, np.nan, 0.06, 0.02])
    np.testing.assert_allclose(holm(np.array([0.6, 0.9])), [1.0, 1.0])
    assert holm(np.array([])).size == 0


def test_many_classes_can_still_be_shown():
    """With 60 classes 2000 draws could tell no p below 0.06 after adjustment."""
    sizes = (400,) * 60
    names = tuple(f"c{i}" for i in range(60))
    a, b = (
        replace(counted(q, n=40, seed=i, name=str(i), sizes=sizes, spread=50), classes=names)
        for i, q in enumerate((0.6, 0.8))
    )
    found = compare([a, b])
    assert sum(entry.shown for entry in found.pairs[0].classes) > 50
    assert "6000 resamples" in found.interval


def test_memory_is_bounded(monkeypatch):
    """Nothing but speed depends on how much is held at once."""
    names = tuple(f"c{i}" for i in range(30))
    a, b = (replace(counted(0.6, n=9, seed=i, name=str(i), sizes=(400,) * 30), classes=names) for i in (0, 1))
    found = compare([a, b], resamples=50)
    monkeypatch.setattr(intervals, "_DRAWS", 1000)
    monkeypatch.setattr(comparison, "_NUMBERS", 120)
    assert [len(totals) for totals in intervals.drawn_totals(np.ones((9, 300)), 7, 0)] == [3, 3, 1]
    assert [len(totals) for totals in intervals.drawn_totals(np.ones((400, 3)), 5, 0)] == [2, 2, 1]
    assert [len(totals) for totals in intervals.drawn_totals(np.ones((2000, 3)), 2, 0)] == [1, 1]
    assert compare([a, b], resamples=50) == found
