"""Differences against scipy's bootstrap, hand-computed adjustments and simulated error rates; what may be compared at all."""

from __future__ import annotations

import json
from dataclasses import replace
from io import StringIO

import numpy as np
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console
from scipy import stats

import pixelwise
from pixelwise.cli import compare as cli
from pixelwise.errors import DataError, UsageError
from pixelwise.evaluation.comparison import MEANS, compare, holm
from pixelwise.evaluation.counted import Counted, aligned, counted_of_scores, names_of, read_counted, recipes_of

NAMES = ("road", "car", "pole")


def counted(quality, *, n=40, seed=0, data=0, name="a", sizes=(5000, 800, 60), spread=20.0, **more):
    """Draw what a model of some quality per class would have counted; `data` draws the pictures, `seed` its luck."""
    pictures, luck = np.random.default_rng(data), np.random.default_rng([7, seed])
    truth = pictures.poisson(sizes, (n, len(sizes)))
    quality = np.broadcast_to(quality, len(sizes)).astype(float)
    share = luck.beta(quality * spread, (1 - quality) * spread, truth.shape)
    found = luck.binomial(truth, share)
    # What is not found is predicted as the next class: predicted and true pixels have the same sum.
    predicted = found + np.roll(truth - found, 1, axis=1)
    fields = {"groups": (None,) * n, "truths": ("t",) * n, "ids": tuple(f"{i:04d}" for i in range(n))} | more
    return Counted(name, NAMES[: len(sizes)], counts=np.stack([found, truth, predicted], 1), **fields)


def miou(counts):
    found, truth, predicted = counts.sum(0)
    return np.mean(found / (truth + predicted - found))


def row(entry):
    return entry.difference, entry.low, entry.high


def test_scores_and_differences_are_those_of_the_counts():
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


def test_intervals_are_scipys():
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


def test_what_both_find_hard_falls_out_of_the_difference():
    a = counted(0.85, spread=3)
    hits, truth, predicted = np.moveaxis(a.counts, 1, 0)
    # Each picture a little better, whatever it is like.
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


def test_the_order_of_pictures_and_of_other_models_changes_nothing():
    a, b, c = counted(0.8), counted(0.82, seed=1, name="b"), counted(0.7, seed=2, name="c")
    order = np.random.default_rng(0).permutation(40)
    shuffled = replace(b, ids=tuple(b.ids[i] for i in order), counts=b.counts[order])
    assert compare([a, b]).pairs[0] == compare([a, shuffled, c]).pairs[0]
    assert compare([a, b], seed=1).pairs[0] != compare([a, b]).pairs[0]


def test_a_real_difference_is_found_and_said():
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
    assert pair.sentences[-1] == "One run each: what another seed would give is not in this interval."
    back = compare([b, a]).pairs[0]
    assert back.sentences[0].startswith("a is worse than b: its mIoU is ")
    assert " points lower (100 images)." in back.sentences[0]


def test_no_difference_is_said_with_what_was_measured():
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


def test_a_rare_class_that_a_draw_lacks_keeps_the_mean_over_the_same_classes():
    a, b = (counted(0.8, seed=i, name=str(i), n=30) for i in range(2))
    for entry in (a, b):
        entry.counts[3:, :, 2] = 0
    pair = compare([a, b]).pairs[0]
    pole = pair.classes[2]
    assert pole.n == 3
    # Were the mean over two classes in draws without poles, the interval would reach far beyond what two models can differ.
    assert pair.means["miou"].high - pair.means["miou"].low < 0.2


def test_a_class_that_one_picture_shows_gives_no_verdict():
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
def test_five_pictures_can_show_nothing(n, shown):
    """Five pictures all favour one of two equally good models in 1 of 16 cases."""
    a, b = counted(0.3, n=n), counted(0.95, n=n, seed=1, name="b")
    found = compare([a, b])
    entry = found.pairs[0].means["miou"]
    assert entry.low > 0
    assert entry.shown is shown
    assert entry.p == pytest.approx(2 / 2**n)
    assert (
        "Too few of them differ: by chance they could all fall the same way." in found.pairs[0].sentences
    ) is not shown
    assert "fewer than 10 images give intervals that are too narrow" in found.notices


def test_one_picture_leaves_nothing_to_draw_from():
    found = compare([counted(0.3, n=1), counted(0.9, n=1, seed=1, name="b")])
    entry = found.pairs[0].means["miou"]
    assert entry.difference > 0.2
    assert (entry.low, entry.high, entry.p, entry.shown) == (None, None, None, False)
    assert found.interval == "none: one image leaves nothing to draw from"
    assert found.pairs[0].sentences[0] == "No difference in mIoU between b and a can be shown with 1 image."


def test_groups_are_drawn_whole():
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


def test_a_class_that_only_a_prediction_has_is_told():
    a = counted(0.8)
    a.counts[:, :, 2] = 0
    counts = a.counts.copy()
    counts[0, 2, 2] = 5
    found = compare([a, replace(a, name="b", counts=counts)])
    assert found.pairs[0].classes[2].difference is None
    assert found.pairs[0].means["miou"].difference < -0.15
    assert found.pairs[0].means["miou_present"].difference == 0
    assert any("only one of them predicts pole, which no truth shows" in notice for notice in found.notices)


def test_holm_is_that_of_the_paper():
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


# Seeds


def seeds(quality, values, recipe):
    return [counted(quality, seed=s, name=f"{recipe}-s{s}", recipe=recipe) for s in values]


def with_seeds(runs):
    return [replace(run, seed=i) for i, run in enumerate(runs)]


def test_seeds_of_one_recipe_are_its_mean():
    one = with_seeds(seeds(0.8, (10, 11, 12), "unet"))
    other = with_seeds(seeds(0.7, (20, 21), "deeplab"))
    found = compare([one[0], other[0], one[1], other[1], one[2]])
    assert [s.name for s in found.standings] == ["unet-s*", "deeplab-s*"]
    assert found.standings[0].runs == ("unet-s10", "unet-s11", "unet-s12")
    assert found.standings[0].means["miou"].value == pytest.approx(np.mean([miou(r.counts) for r in one]))
    expected = np.mean([miou(r.counts) for r in other]) - np.mean([miou(r.counts) for r in one])
    assert found.pairs[0].means["miou"].difference == pytest.approx(expected)
    assert found.notices[0] == (
        "unet-s* is the mean over 3 runs of one recipe: unet-s10 (seed 0), unet-s11 (seed 1), unet-s12 (seed 2)"
    )
    assert any(n.startswith("3 and 2 runs tell little of the spread between seeds") for n in found.notices)
    assert not any("another seed" in s for s in found.pairs[0].sentences)


def test_the_spread_between_seeds_is_in_the_interval():
    """Pictures all alike: what is left is s² / runs, the textbook's variance of a mean."""
    truth = np.full((20, 3), 1000)
    levels = np.array([700, 760, 820, 790, 740])

    def run(level, name, recipe, seed):
        found = np.full((20, 3), level)
        base = counted(0.5, n=20, name=name, recipe=recipe)
        return replace(base, seed=seed, counts=np.stack([found, truth, truth], 1))

    one = [run(level, f"a{i}", "a", i) for i, level in enumerate(levels)]
    other = run(760, "b", "b", 0)
    pair = compare([*one, other], resamples=20000).pairs[0]
    scores = levels / (2000 - levels)
    error = scores.std(ddof=1) / np.sqrt(5)
    assert pair.means["miou"].margin == pytest.approx(1.96 * error, rel=0.08)
    assert any("One run of b: what another seed would give" in s for s in pair.sentences)


def test_a_run_named_twice_is_no_second_seed():
    a, b = with_seeds(seeds(0.8, (0, 1), "unet"))
    twice = recipes_of([a, replace(a, name="again"), b])[0]
    assert [r.members for r in twice] == [(0,), (1,), (2,)]
    only, notices = recipes_of([a, b])
    assert [r.members for r in only] == [(0,), (1,)]
    assert notices == ["these are seeds of one recipe: a difference between them is none of the recipe"]
    unknown, _ = recipes_of([counted(0.5), counted(0.5, name="b")])
    assert len(unknown) == 2


@pytest.mark.parametrize(
    ("members", "expected"),
    [
        (["unet-s0", "unet-s1"], "unet-s*"),
        (["unet-s10", "unet-s11"], "unet-s*"),
        (["s1/unet", "s2/unet"], "s*/unet"),
        (["x", "y"], "x+y"),
    ],
)
def test_a_recipe_is_named_after_what_its_runs_have_in_common(members, expected):
    runs = [counted(0.5, name=name, recipe="r") for name in members]
    other = counted(0.5, name="other", recipe="o")
    assert recipes_of([*with_seeds(runs), other])[0][0].name == expected


def test_two_recipes_never_share_a_name():
    runs = [counted(0.5, name=f"r{i}", recipe=str(i % 2), seed=0) for i in range(4)]
    runs = [replace(run, seed=i) for i, run in enumerate(runs)]
    assert [r.name for r in recipes_of(runs)[0]] == ["r0+r2", "r1+r3"]


# What may be compared


def test_other_pictures_are_refused_by_name():
    a = counted(0.8, n=6)
    b = replace(counted(0.8, n=6, name="b"), ids=("0000", "x", "y", "z", "v", "w"))
    with pytest.raises(DataError) as error:
        aligned([a, b])
    assert str(error.value) == (
        "b against a: expected the same images, found 5 only in a (0001, 0002, 0003 and 2 more) and 5 only in b "
        "(v, w, x and 2 more). Evaluate both on the same pictures: name them by --data."
    )
    short = replace(a, name="c", ids=a.ids[:5], truths=a.truths[:5], groups=a.groups[:5], counts=a.counts[:5])
    with pytest.raises(DataError, match=r"found 1 only in a \(0005\)\. Evaluate"):
        aligned([a, short])


@pytest.mark.parametrize("what", ["hash", "pixels"])
def test_other_masks_of_the_same_names_are_refused(what):
    a, b = counted(0.8), counted(0.8, name="b")
    if what == "hash":
        b = replace(b, truths=("t",) * 39 + ("u",))
    else:
        b.counts[39, 1, 0] += 1
    with pytest.raises(DataError) as error:
        aligned([a, b])
    assert str(error.value) == (
        "b against a: expected the same masks, found other masks for the same names: 0039. Evaluate both on the same masks: "
        "name them by --data."
    )


def test_other_classes_are_refused():
    with pytest.raises(DataError) as error:
        aligned([counted(0.8), replace(counted(0.8, name="b"), classes=("road", "car", "tree"))])
    assert str(error.value) == (
        "b against a: expected the classes road, car, pole, found other classes: road, car, tree. Compare models of the same "
        "classes in the same order."
    )


def test_one_model_or_no_pixel_is_nothing_to_compare():
    with pytest.raises(UsageError, match=r"^compare: expected two runs or more, found 1\. Name what to compare\.$"):
        compare([counted(0.8)])
    empty = replace(counted(0.8), counts=np.zeros((40, 3, 3), np.int64))
    with pytest.raises(DataError, match="expected at least one pixel that counts, found none"):
        compare([empty, replace(empty, name="b")])


# Files


def plain(run):
    images = [
        {
            "id": i,
            "group": g,
            "truth": t,
            "counts": [[k, *map(int, c[:, k]), 0] for k in np.flatnonzero(c.any(0)).tolist()],
        }
        for i, g, t, c in zip(run.ids, run.groups, run.truths, run.counts, strict=True)
    ]
    return {"classes": [{"name": name} for name in run.classes], "per_image": images}


def write_run(folder, run, *, config=None, request=None, **more):
    folder.mkdir(parents=True)
    (folder / "scores.json").write_text(json.dumps(plain(run) | more))
    if config is not None:
        (folder / "config.yaml").write_text(yaml.safe_dump(config))
    if request is not None:
        (folder / "request.json").write_text(json.dumps(request))
    return folder


def test_counts_are_read_back(tmp_path):
    run = counted(0.8, sizes=(5000, 800, 1), groups=("g", None) * 20)
    found = read_counted(write_run(tmp_path / "a", run), "a")
    np.testing.assert_array_equal(found.counts, run.counts)
    assert replace(found, counts=run.counts) == replace(run)
    assert read_counted(tmp_path / "a" / "scores.json", "a").ids == run.ids


@pytest.mark.parametrize(
    "content",
    [
        {"classes": []},
        {"per_image": []},
        {"per_image": [{"id": "a", "miou": 0.5}]},
        [],
        None,
    ],
)
def test_an_older_file_is_to_be_made_again(tmp_path, content):
    (tmp_path / "scores.json").write_text(json.dumps(content))
    with pytest.raises(DataError) as error:
        read_counted(tmp_path, "a")
    assert str(error.value) == (
        f"{tmp_path / 'scores.json'}: expected counts per image, found none: an older or another file. Evaluate it again with "
        "--out, and compare what that writes; or compare with --data."
    )


@pytest.mark.parametrize("damage", ["class", "negative class", "short", "name", "text", "twice"])
def test_a_damaged_file_is_refused(damage):
    content = plain(counted(0.8))
    first = content["per_image"][0]
    if damage.endswith("class"):
        first["counts"][0][0] = 3 if damage == "class" else -4
    elif damage == "short":
        first["counts"][0] = [0, 1]
    elif damage == "name":
        del first["id"]
    elif damage == "text":
        first["counts"][0][1] = "many"
    else:
        content["per_image"][1]["id"] = first["id"]
    with pytest.raises(DataError, match=r"here: expected .* Evaluate it again"):
        counted_of_scores(content, "here", "a")


def test_what_is_not_there_teaches(tmp_path):
    with pytest.raises(DataError) as error:
        read_counted(tmp_path / "none", "a")
    assert str(error.value).endswith(
        "none: expected a folder with scores.json, or the file, found nothing. Check the path."
    )
    with pytest.raises(
        DataError, match=r"expected scores\.json, found none\. Name a finished run or what evaluate wrote"
    ):
        read_counted(tmp_path, "a")
    (tmp_path / "scores.json").write_text("{")
    with pytest.raises(DataError, match=r"expected a readable scores\.json, found .* Evaluate it again\."):
        read_counted(tmp_path, "a")


def test_recipes_are_told_by_their_configuration(tmp_path):
    def config(seed, rate=0.1, **train):
        return {"data": {"root": "d"}, "train": {"seed": seed, "learning_rate": rate, **train}, "evaluate": {"x": seed}}

    run = counted(0.8)
    first = read_counted(write_run(tmp_path / "a0", run, config=config(0, workers=2), split="val"), "a0")
    second = read_counted(write_run(tmp_path / "a1", run, config=config(1, workers=4, recounts=[[1, 2]])), "a1")
    third = read_counted(write_run(tmp_path / "b", run, config=config(0, rate=0.2)), "b")
    assert first.recipe == second.recipe != third.recipe
    assert (first.seed, second.seed) == (0, 1)
    assert first.selected
    assert not second.selected
    # What was evaluated elsewhere names the model, and thereby the run.
    for model in (tmp_path / "a1", tmp_path / "a1" / "model"):
        model.mkdir(exist_ok=True)
        scored = write_run(tmp_path / f"e-{model.name}", run, model=str(model), split="val")
        found = read_counted(scored, "e")
        assert (found.recipe, found.seed, found.selected) == (first.recipe, 1, False)
    assert read_counted(write_run(tmp_path / "c", run, model=str(tmp_path / "gone")), "c").recipe is None


def test_runs_of_equal_time_are_of_one_recipe_though_their_steps_differ(tmp_path):
    run, found = counted(0.8), []
    for seed, (steps, limit) in enumerate([(100, 60.0), (130, 60.0), (130, 90.0)]):
        config = {"train": {"seed": seed, "steps": steps}}
        asked = {"time_limit": limit, "seed": seed, "config": {"train": {"seed": seed, "steps": None}}}
        found.append(read_counted(write_run(tmp_path / str(seed), run, config=config, request=asked), str(seed)))
    assert found[0].recipe == found[1].recipe != found[2].recipe


@pytest.mark.parametrize(
    ("paths", "names"),
    [
        (["runs/a", "runs/b/"], ["a", "b"]),
        (["a/scores.json", "b/scores.json"], ["a", "b"]),
        (["x/run", "y/run", "z"], ["x/run", "y/run", "z"]),
        (["runs/a", "runs/a"], ["a", "a (2)"]),
    ],
)
def test_names_are_short_and_stand_once(paths, names):
    assert names_of(paths) == names


# The verb


def test_scores_of_validation_flatter(tmp_path):
    folders = [write_run(tmp_path / n, counted(0.8, seed=i), split="val") for i, n in enumerate("ab")]
    notices = pixelwise.compare(folders).notices
    assert any(notice.startswith("these are scores on val") for notice in notices)


def predicted(discs, folder, wrong):
    """Write the masks of the test part with some rows turned around."""
    from PIL import Image

    folder.mkdir()
    for path in sorted((discs / "test" / "masks").iterdir()):
        mask = np.array(Image.open(path))
        mask[:wrong] = 1 - np.minimum(mask[:wrong], 1)
        Image.fromarray(mask).save(folder / path.name)
    return folder


def test_masks_are_evaluated_and_compared(discs, tmp_path):
    good, bad = predicted(discs, tmp_path / "good", 1), predicted(discs, tmp_path / "bad", 20)
    seen = []
    found = pixelwise.compare([bad, good], data=discs, progress=lambda *event: seen.append(event))
    assert seen == [(name, i + 1, 4) for name in ("bad", "good") for i in range(4)]
    assert found.images == 4
    scores = [pixelwise.evaluate(folder, discs, out=tmp_path / f"{folder.name}-scores") for folder in (bad, good)]
    for standing, alone in zip(found.standings, scores, strict=True):
        assert standing.means["miou"].value == alone.scores.miou.value
        assert standing.classes["disc"].value == alone.scores.classes[1].iou.value
    again = pixelwise.compare([tmp_path / "bad-scores", tmp_path / "good-scores" / "scores.json"])
    assert again.pairs[0].means == found.pairs[0].means
    assert not found.pairs[0].means["miou"].shown  # four pictures
    assert found.ranking()[0].name == "good"


def test_the_document_has_the_promised_keys(tmp_path):
    runs = [counted(q, seed=i, name=n) for i, (q, n) in enumerate([(0.8, "a"), (0.9, "b"), (0.7, "c")])]
    document = json.loads(json.dumps(compare(runs).to_dict(), allow_nan=False))
    assert {"names", "scores", "pairs", "convention", "interval", "notices"} <= set(document)
    assert document["names"] == ["a", "b", "c"]
    assert document["ranking"] == ["b", "a", "c"]
    assert [(p["a"], p["b"]) for p in document["pairs"]] == [("a", "b"), ("a", "c")]
    pair = document["pairs"][0]
    for name in MEANS:
        assert {"a", "b", "difference", "low", "high", "p", "shown", "n"} == set(pair[name])
    assert [c["name"] for c in pair["classes"]] == list(NAMES)
    assert {"p_adjusted", "shown_alone"} <= set(pair["classes"][0])
    assert {"miou", "miou_low", "miou_high", "classes", "runs"} <= set(document["scores"][0])
    assert "the mIoU of 3 models is not adjusted" in document["interval"]


@pytest.mark.parametrize("long", [False, True])
def test_the_table_fits_80_columns_and_says_all(long):
    names = ("a-model-with-a-rather-long-name", "another-[model]-with-a-long-name") if long else ("a", "b")
    classes = ("traffic sign of whatever kind there is", "car", "[pole]") if long else NAMES
    runs = [replace(counted(q, seed=i, name=names[i]), classes=classes) for i, q in enumerate((0.6, 0.9))]
    document = compare(runs).to_dict()
    written = StringIO()
    console = Console(file=written, width=80, highlight=False)
    console.print(cli._table(document["pairs"][0], document["images"]))
    console.print(cli._ranking(document["scores"]))
    text = written.getvalue()
    assert max(map(len, text.splitlines())) <= 80
    assert text.count("better") == 6
    entry = document["pairs"][0]["miou"]
    assert f"{100 * entry['difference']:+.1f}" in text
    assert f"{100 * entry['low']:+.1f} to {100 * entry['high']:+.1f}" in text
    assert "pole" in text


def test_the_command_prints_tables_ranking_and_sentences(tmp_path, capsys):
    folders = [str(write_run(tmp_path / n, counted(0.7 + i / 10, seed=i, name=n))) for i, n in enumerate("abc")]
    cli.run(folders)
    out = capsys.readouterr().out
    assert "by mIoU" in out
    assert "b against a, 40 pictures" in out
    assert "c is better than a: its mIoU is " in out
    cli.run(folders[:2], as_json=True)
    assert json.loads(capsys.readouterr().out)["names"] == ["a", "b"]
