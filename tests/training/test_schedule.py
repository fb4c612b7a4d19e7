"""Number of steps and validations of a run."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pixelwise.config import ResolvedTrain
from pixelwise.training.schedule import last_step, next_recount, steps_at, validation_steps


def train(steps: int, *recounts: tuple[int, int], validations: int = 5) -> ResolvedTrain:
    return ResolvedTrain(
        steps=steps, recounts=recounts, validations=validations, crop=(8, 8), batch_size=1, learning_rate=1.0
    )


def test_a_recount_applies_from_its_step_on() -> None:
    run = train(100, (20, 150), (80, 120))
    assert [steps_at(run, step) for step in (0, 19, 20, 79, 80, 119)] == [100, 100, 150, 150, 120, 120]
    assert last_step(run) == 120


def test_recounts_after_the_end_of_a_shorter_run_have_no_effect() -> None:
    run = train(15, (20, 150), (80, 120))
    assert last_step(run) == 15
    assert max(validation_steps(run)) == 15


def test_a_recount_that_leaves_no_time_ends_after_one_more_step() -> None:
    assert last_step(train(100, (20, 1))) == 21


@pytest.mark.parametrize(
    ("steps", "borders"), [(1, []), (11, []), (12, [2]), (100, [20, 60, 80]), (800, [160, 480, 640])]
)
def test_recounts_are_after_a_fifth_and_at_half_of_the_remaining_steps(steps: int, borders: list[int]) -> None:
    run, found = train(steps), []
    while (border := next_recount(run)) is not None:
        found.append(border)
        run = train(steps, *run.recounts, (border, steps))
    assert found == borders


@given(
    steps=st.integers(1, 2000),
    paces=st.lists(st.floats(0.1, 8.0), max_size=8),
    validations=st.integers(1, 12),
)
def test_a_run_ends_with_a_validation_at_any_pace(steps: int, paces: list[float], validations: int) -> None:
    run = train(steps, validations=validations)
    for pace in paces:
        border = next_recount(run)
        if border is None:
            break
        left = max(int((last_step(run) - border) * pace), 1)
        run = train(steps, *run.recounts, (border, border + left), validations=validations)
    due = sorted(validation_steps(run))
    assert due[-1] == last_step(run)
    assert due[0] >= 1
    borders = [border for border, _ in run.recounts]
    assert all(a < b for a, b in itertools.pairwise(borders))
    assert all(border < last_step(run) for border in borders)
