"""The number of steps of a run and the steps at which it is validated, as functions of the configuration alone.

With a time limit, `train.steps` is the number planned at the start; `train.recounts` holds later corrections
[[step, total number of steps from there on], …], since the speed of a shared machine changes. Each entry is written to
config.yaml before it takes effect, so a run remains a function of its configuration.
"""

from __future__ import annotations

import itertools

from pixelwise.config import ResolvedTrain

_MIN_REMAINING = 10


def steps_at(train: ResolvedTrain, step: int) -> int:
    """Return the total number of steps of the run, as planned when `step` (0 …) is made."""
    return [train.steps, *(steps for border, steps in _effective_recounts(train) if border <= step)][-1]


def counted_before(train: ResolvedTrain, step: int) -> list[int]:
    """Return the last step (0 …) before each recount up to `step`."""
    return [border - 1 for border, _ in _effective_recounts(train) if border <= step]


def last_step(train: ResolvedTrain) -> int:
    """Return the total number of steps of the run, as planned now."""
    return [train.steps, *(steps for _, steps in _effective_recounts(train))][-1]


def _effective_recounts(train: ResolvedTrain) -> list[tuple[int, int]]:
    """Return the recounts that take effect: those before the last step as planned at that point."""
    steps = train.steps
    effective: list[tuple[int, int]] = []
    for border, counted in train.recounts:
        if border >= steps:
            break
        steps = max(counted, border + 1)
        effective.append((border, steps))
    return effective


def validation_steps(train: ResolvedTrain) -> frozenset[int]:
    """Return the steps after which the model is validated: denser towards the end, and always after the last one."""
    borders = [0, *(border for border, _ in _effective_recounts(train)), last_step(train)]
    count = train.validations
    due: set[int] = set()
    for begin, end in itertools.pairwise(borders):
        steps = steps_at(train, begin)
        planned = {max(1, round(steps * (1 - ((count - k) / count) ** 1.5))) for k in range(1, count)} | {steps}
        due |= {step for step in planned if begin < step <= end}
    return frozenset(due)


def next_recount(train: ResolvedTrain) -> int | None:
    """Return the step before which to recount: after a fifth of the steps, then at half of the remaining ones.

    None if too few steps remain for a change to matter.
    """
    steps = last_step(train)
    last = max((border for border, _ in _effective_recounts(train)), default=0)
    border = last + (steps - last) // 2 if last else steps // 5
    return border if border > last and steps - border >= max(steps // 5, _MIN_REMAINING) else None
