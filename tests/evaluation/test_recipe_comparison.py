"""Runs that differ in their seed alone: what is taken together, and what few seeds can show."""

from __future__ import annotations

import math
from dataclasses import asdict, replace

import numpy as np
import pytest
from scipy import stats
from tests.evaluation.drawn import counted, miou, seeds, with_seeds, write_run

from pixelwise.evaluation import paired_scores
from pixelwise.evaluation.comparison import compare
from pixelwise.evaluation.results import TrainingRecipe
from pixelwise.evaluation.score_counts import group_by_recipe, read_run_counts, training_recipe


def test_runs_of_one_recipe_are_averaged():
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
    assert any(n.startswith("3 and 2 runs give little information on the spread between seeds") for n in found.notices)
    assert not any("effect of the seed" in s for s in found.pairs[0].sentences)


def test_the_spread_between_seeds_is_in_the_interval():
    """Images all alike: what is left is Student's t over the runs."""
    truth = np.full((20, 3), 1000)
    levels = np.array([700, 760, 820, 790, 740])

    def run(level, name, recipe, seed):
        found = np.full((20, 3), level)
        base = counted(0.5, n=20, name=name, recipe=recipe)
        return replace(base, seed=seed, counts=np.stack([found, truth, truth], 1))

    one = [run(level, f"a{i}", "a", i) for i, level in enumerate(levels)]
    other = run(760, "b", "b", 0)
    pair = compare([*one, other]).pairs[0]
    scores = levels / (2000 - levels)
    error = scores.std(ddof=1) / np.sqrt(5)
    assert pair.means["miou"].margin == pytest.approx(stats.t.ppf(0.975, 4) * error, rel=1e-6)
    assert any("One run of b: the effect of the seed" in s for s in pair.sentences)


def test_the_spread_between_seeds_of_both_recipes_is_welchs():
    """Images all alike, as above, so that scipy's t-test of the runs' scores is the whole interval."""
    truth = np.full((20, 3), 1000)

    def run(level, recipe, seed):
        base = counted(0.5, n=20, name=f"{recipe}{seed}", recipe=recipe)
        return replace(base, seed=seed, counts=np.stack([np.full((20, 3), level), truth, truth], 1))

    levels = (700, 760, 820, 790), (810, 815, 830)
    runs = [run(level, recipe, i) for recipe, each in zip("ab", levels, strict=True) for i, level in enumerate(each)]
    entry = compare(runs).pairs[0].means["miou"]
    a, b = (np.array(each) / (2000 - np.array(each)) for each in levels)
    expected = stats.ttest_ind(b, a, equal_var=False).confidence_interval(0.95)
    assert (entry.low, entry.high) == (pytest.approx(expected.low), pytest.approx(expected.high))


def test_bounds_of_two_runs_far_apart_stay_between_0_and_1():
    runs = [*seeds(0.2, (0,), "a"), *seeds(0.9, (1,), "a"), *seeds(0.5, (2, 3), "b")]
    found = compare(with_seeds(runs))
    standing, pair = found.standings[0], found.pairs[0]
    assert (standing.means["miou"].low, standing.means["miou"].high) == (0, 1)
    assert all(0 <= score.low < score.value < score.high <= 1 for score in standing.classes.values())
    for entry in (*pair.means.values(), *pair.classes):
        assert -1 <= entry.low < entry.difference < entry.high <= 1


def test_repeated_run_is_not_a_second_seed():
    a, b = with_seeds(seeds(0.8, (0, 1), "unet"))
    twice = group_by_recipe([a, replace(a, name="again"), b])[0]
    assert [r.members for r in twice] == [(0,), (1,), (2,)]
    only, notices = group_by_recipe([a, b])
    assert [r.members for r in only] == [(0,), (1,)]
    assert notices == ["these runs differ in their seed only: differences between them are due to the seed"]
    unknown, _ = group_by_recipe([counted(0.5), counted(0.5, name="b")])
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
def test_recipe_name_is_the_common_part_of_run_names(members, expected):
    runs = [counted(0.5, name=name, recipe="r") for name in members]
    other = counted(0.5, name="other", recipe="o")
    assert group_by_recipe([*with_seeds(runs), other])[0][0].name == expected


def test_recipe_names_are_unique():
    runs = [counted(0.5, name=f"r{i}", recipe=str(i % 2), seed=0) for i in range(4)]
    runs = [replace(run, seed=i) for i, run in enumerate(runs)]
    assert [r.name for r in group_by_recipe(runs)[0]] == ["r0+r2", "r1+r3"]


def test_recipes_are_identified_by_configuration(tmp_path):
    def config(seed, rate=0.1, **train):
        return {"data": {"root": "d"}, "train": {"seed": seed, "learning_rate": rate, **train}, "evaluate": {"x": seed}}

    run = counted(0.8)
    first = read_run_counts(write_run(tmp_path / "a0", run, config=config(0, workers=2), split="val"), "a0")
    second = read_run_counts(write_run(tmp_path / "a1", run, config=config(1, workers=4, recounts=[[1, 2]])), "a1")
    third = read_run_counts(write_run(tmp_path / "b", run, config=config(0, rate=0.2)), "b")
    assert first.recipe == second.recipe != third.recipe
    assert (first.seed, second.seed) == (0, 1)
    assert first.selected
    assert not second.selected
    # What was evaluated elsewhere names the model, and thereby the run.
    for model in (tmp_path / "a1", tmp_path / "a1" / "model"):
        model.mkdir(exist_ok=True)
        scored = write_run(tmp_path / f"e-{model.name}", run, model=str(model), split="val")
        found = read_run_counts(scored, "e")
        assert (found.recipe, found.seed, found.selected) == (first.recipe, 1, True)
    assert read_run_counts(write_run(tmp_path / "c", run, model=str(tmp_path / "gone")), "c").recipe is None


def test_runs_with_equal_time_limit_are_one_recipe(tmp_path):
    run, found = counted(0.8), []
    for seed, (steps, limit) in enumerate([(100, 60.0), (130, 60.0), (130, 90.0)]):
        config = {"train": {"seed": seed, "steps": steps}}
        asked = {"time_limit": limit, "seed": seed, "config": {"train": {"seed": seed, "steps": None}}}
        found.append(read_run_counts(write_run(tmp_path / str(seed), run, config=config, request=asked), str(seed)))
    assert found[0].recipe == found[1].recipe != found[2].recipe


def test_scores_file_contains_the_recipe(tmp_path, monkeypatch):
    """A relative path, read in another folder, names another run or none."""
    run, config = counted(0.8), {"train": {"seed": 3, "rate": 0.1}}
    write_run(tmp_path / "here" / "run", run, config=config)
    write_run(tmp_path / "there" / "run", run, config={"train": {"seed": 8, "rate": 0.5}})
    facts = training_recipe(tmp_path / "here" / "run")
    assert facts == TrainingRecipe(read_run_counts(tmp_path / "here" / "run", "a").recipe, 3)
    (tmp_path / "here" / "run" / "model").mkdir()
    monkeypatch.chdir(tmp_path / "here" / "run" / "model")
    assert training_recipe(".") == facts
    monkeypatch.chdir(tmp_path / "there")
    told = read_run_counts(write_run(tmp_path / "x", run, model="run", recipe=asdict(facts)), "x")
    assert (told.recipe, told.seed) == (facts.hash, 3)
    moved = write_run(tmp_path / "y", run, model=str(tmp_path / "there" / "run"), recipe=asdict(facts))
    assert read_run_counts(moved, "y").recipe == facts.hash
    older = read_run_counts(write_run(tmp_path / "z", run, model="run", split="val"), "z")
    assert (older.recipe, older.seed, older.selected) == (None, None, False)


def test_other_folders_have_no_recipe(tmp_path):
    assert training_recipe(tmp_path / "none") is None
    assert training_recipe(write_run(tmp_path / "masks", counted(0.8), config={"data": {}})) is None
    write_run(tmp_path / "run", counted(0.8), config={"train": {"seed": 0}})
    (tmp_path / "run" / "masks").mkdir()
    assert training_recipe(tmp_path / "run" / "masks") is None


# What few seeds can show


def recipes(a, b, low=0.8, high=0.8, luck=0.0, data=0):
    """Draw runs of two recipes that seeds move by `luck`."""
    moved = np.random.default_rng([5, data]).normal(0, luck, a + b) if luck else np.zeros(a + b)
    runs = []
    for i, move in enumerate(moved):
        recipe, quality = ("A", low) if i < a else ("B", high)
        seed = data * 100 + i
        runs.append(counted(quality + move, seed=seed, data=data, name=f"{recipe}-{i}", recipe=recipe, spread=200))
    return with_seeds(runs)


@pytest.mark.parametrize(("a", "b", "percent"), [(2, 2, 33), (3, 3, 10), (1, 5, 33), (5, 1, 33), (3, 4, 6)])
def test_too_few_runs_show_nothing(a, b, percent):
    found = compare(recipes(a, b, 0.5, 0.9))
    pair = found.pairs[0]
    assert pair.means["miou"].low > 0.2
    assert pair.means["miou"].p == pytest.approx(2 / math.comb(a + b, a))
    assert not any(entry.shown or entry.shown_alone for entry in (*pair.means.values(), *pair.classes))
    assert pair.sentences[0].startswith("No difference in mIoU between B")
    assert pair.sentences[1] == (
        f"{a} and {b} runs are too few: runs of equally good recipes are completely separated in {percent} % of comparisons."
    )
    assert f"{a} and {b} runs give little information on the spread between seeds: intervals are wide" in found.notices


def test_enough_runs_show_a_difference():
    found = compare(recipes(4, 4, 0.5, 0.9))
    pair = found.pairs[0]
    assert pair.means["miou"].p == pytest.approx(2 / 70)
    assert pair.means["miou"].shown
    assert pair.sentences[0].startswith("B-* is better than A-*: its mIoU is ")
    assert "if at most one in twenty permutations of the runs gives as much" in found.interval
    # Three classes at this p are not told from chance.
    assert [(entry.shown_alone, entry.shown) for entry in pair.classes] == [(True, False)] * 3


def test_single_runs_are_compared_by_images_only():
    found = compare(recipes(1, 1, 0.5, 0.9))
    assert found.pairs[0].means["miou"].shown
    assert "permutations" not in found.interval


def test_permutation_p_matches_scipy():
    """Sides of unequal size, where twice the smaller tail would be another p."""
    runs = recipes(2, 8, 0.8, 0.82, luck=0.015, data=6)
    scores = np.array([miou(run.counts) for run in runs])
    entry = compare(runs).pairs[0].means["miou"]
    other = stats.permutation_test(
        (scores[:2], scores[2:]), lambda x, y: abs(x.mean() - y.mean()), alternative="greater", n_resamples=np.inf
    )
    assert 0.05 < other.pvalue < 0.5
    assert entry.p == pytest.approx(max(other.pvalue, 2 / 45))


def test_difference_common_among_permutations_is_explained():
    """Both runs of A above the mean of B: the interval excludes 0, but so do those of many other divisions."""
    for data in range(40):
        pair = compare(recipes(2, 8, luck=0.02, data=data)).pairs[0]
        entry = pair.means["miou"]
        if entry.low * entry.high > 0 and not entry.shown:
            break
    assert pair.sentences[1] == (
        f"In {100 * entry.p:.0f} % of random divisions of the same runs the difference is as large."
    )


def test_sampled_permutations_approximate_all(monkeypatch):
    runs = recipes(5, 6, luck=0.02, data=3)
    whole = compare(runs).pairs[0]
    monkeypatch.setattr(paired_scores, "_DIVISIONS", 200)
    some = compare(runs).pairs[0]
    assert some.means["miou"].p == pytest.approx(whole.means["miou"].p, abs=0.12)
    assert compare(runs).pairs[0] == some
    # The division that was found is one of them.
    apart = compare(recipes(5, 6, 0.5, 0.9)).pairs[0]
    assert apart.means["miou"].p == pytest.approx(max(1 / 200, 2 / 1001))


def test_order_of_runs_does_not_change_p():
    runs = recipes(3, 5, 0.8, 0.82, luck=0.01)
    forth, back = compare(runs).pairs[0], compare(runs[::-1]).pairs[0]
    for x, y in zip((*forth.means.values(), *forth.classes), (*back.means.values(), *back.classes), strict=True):
        assert (x.p, x.shown) == (y.p, y.shown)
        assert x.difference == pytest.approx(-y.difference, abs=1e-12)


def test_class_missing_from_some_runs_has_a_p():
    runs = recipes(4, 4, 0.5, 0.9)
    for i, run in enumerate(runs):
        run.counts[:, :, 2] = 0
        if i in (0, 5):
            run.counts[:, 2, 2] = 7  # predicted, and never there
    pole = compare(runs).pairs[0].classes[2]
    assert (pole.difference, pole.shown) == (0.0, False)
    assert pole.p == 1.0


@pytest.mark.parametrize(("a", "b"), [(3, 3), (4, 4)])
def test_intervals_of_equal_recipes_contain_0(a, b):
    excluded, shown = 0, 0
    for data in range(60):
        entry = compare(recipes(a, b, luck=0.02, data=data)).pairs[0].means["miou"]
        excluded += entry.low * entry.high > 0
        shown += entry.shown
    assert shown <= excluded <= 7  # the 0.99 point of the binomial law at 0.05


@pytest.mark.slow
@pytest.mark.parametrize(("a", "b"), [(2, 2), (3, 3), (4, 4), (2, 8), (3, 5), (5, 5), (1, 5)])
def test_equal_recipes_are_rarely_shown_as_different(a, b):
    """Seeds move a run by two points: with a single run of one recipe, 31 % of the intervals exclude 0."""
    shown = 0
    for data in range(200):
        pair = compare(recipes(a, b, luck=0.02, data=data)).pairs[0]
        shown += pair.means["miou"].shown
    # The 0.99 point of the binomial law at 0.05.
    assert shown <= 18
