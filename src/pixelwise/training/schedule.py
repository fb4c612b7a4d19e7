"""How long a run is and when it is scored: functions of the configuration alone.

Comes in: the `train` section. Goes out: the number of steps as it stood at a step, the steps at which the validation part
is scored, and where a run within a time limit counts its steps again. Knows nothing of clocks, models or data.

A machine that other work shares does not keep its pace. `train.steps` is what the measurement at the start gave;
`train.recounts` holds what was found later, [[step, steps in all from there on], …]. Each entry is written down before
it takes effect, so the run remains a function of its configuration.
"""

from __future__ import annotations

import itertools

from pixelwise.config import TrainConfig

_FEWEST_LEFT = 10


def steps_at(train: TrainConfig, step: int) -> int:
    """Give how many steps the run has in all, as it stood when step number `step` (0 …) was about to be made."""
    return [train.steps or 1, *(steps for border, steps in _reached(train) if border <= step)][-1]


def counted_before(train: TrainConfig, step: int) -> list[int]:
    """Give the steps (0 …) that were the last before the run's steps were counted again, up to `step`."""
    return [border - 1 for border, _ in _reached(train) if border <= step]


def last_step(train: TrainConfig) -> int:
    """Give how many steps the run has in all, as it stands now."""
    return [train.steps or 1, *(steps for _, steps in _reached(train))][-1]


def _reached(train: TrainConfig) -> list[tuple[int, int]]:
    """Give the recounts that come to pass: a run that ends before one (of fewer steps than were given) never sees it."""
    steps, reached = train.steps or 1, list[tuple[int, int]]()
    for border, counted in train.recounts:
        if border >= steps:
            break
        steps = max(counted, border + 1)
        reached.append((border, steps))
    return reached


def validation_steps(train: TrainConfig) -> frozenset[int]:
    """Spread the validations over the run, denser towards the end, where the best weights are; always the last step."""
    borders = [0, *(border for border, _ in _reached(train)), last_step(train)]
    count, due = train.validations or 1, set[int]()
    for begin, end in itertools.pairwise(borders):
        steps = steps_at(train, begin)
        planned = {max(1, round(steps * (1 - ((count - k) / count) ** 1.5))) for k in range(1, count)} | {steps}
        due |= {step for step in planned if begin < step <= end}
    return frozenset(due)


def next_recount(train: TrainConfig) -> int | None:
    """Give the step before which the steps are to be counted again: after a fifth, then at half of what is left.

    None where too little is left to change anything.
    """
    steps, last = last_step(train), max((border for border, _ in _reached(train)), default=0)
    border = last + (steps - last) // 2 if last else steps // 5
    return border if border > last and steps - border >= max(steps // 5, _FEWEST_LEFT) else None
