"""Comparing engines by fake clocks: which one is chosen, and what is not tried."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import chain, repeat
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.metrics import jaccard_score

from pixelwise.errors import ConfigError
from pixelwise.inference.trials import Engine, Trial, Trials, fastest, parity

REFERENCE = Engine("torch")
FAST, MIDDLE, SLOW = Engine("openvino", "bf16"), Engine("openvino"), Engine("onnxruntime")
MASK = (np.arange(40_000) % 5).astype(np.uint8).reshape(200, 200)


@dataclass
class Machine:
    """Engines with given times per pass: each uses up its times in turn, and then repeats the last one."""

    times: dict[Engine, list[float]]
    wrong: dict[Engine, int] = field(default_factory=dict)
    errors: dict[Engine, Exception] = field(default_factory=dict)
    now: float = 0.0
    opened: list[Engine] = field(default_factory=list)
    passes: dict[Engine, int] = field(default_factory=dict)

    def open(self, engine: Engine) -> Callable[[int], NDArray[Any]]:
        self.opened.append(engine)
        if engine in self.errors:
            raise self.errors[engine]
        left: Iterator[float] = chain(self.times[engine], repeat(self.times[engine][-1]))

        def predict(_: int) -> NDArray[Any]:
            self.now += next(left)
            self.passes[engine] = self.passes.get(engine, 0) + 1
            mask = MASK.copy()
            mask.reshape(-1)[: self.wrong.get(engine, 0)] = 4
            return mask

        return predict

    def run(self, *candidates: Engine, examples: int = 1) -> tuple[Trial, ...]:
        predict = self.open(REFERENCE)
        predict(0)
        some, seconds = [*range(examples)], [self.now]
        trials = Trials(
            REFERENCE, predict, seconds, some, [MASK] * examples, self.open, 255, lambda: self.now, lambda _: None
        )
        return trials.run(candidates)

    def choose(self, *candidates: Engine, examples: int = 1) -> Engine:
        return fastest(self.run(*candidates, examples=examples), (*candidates, REFERENCE), REFERENCE)


def test_the_fastest_engine_with_the_same_masks_is_chosen() -> None:
    times = {REFERENCE: [1.0], FAST: [0.2], MIDDLE: [0.25], SLOW: [0.3]}
    assert Machine(times).choose(FAST, MIDDLE, SLOW) == FAST
    assert Machine(times | {MIDDLE: [0.1]}).choose(FAST, MIDDLE, SLOW) == MIDDLE
    assert Machine(times | {REFERENCE: [0.05]}).choose(FAST, MIDDLE, SLOW) == REFERENCE


@pytest.mark.parametrize(("wrong", "chosen"), [(30, FAST), (300, MIDDLE)])
def test_an_engine_with_other_masks_is_left_out(wrong: int, chosen: Engine) -> None:
    machine = Machine({REFERENCE: [1.0], FAST: [0.1], MIDDLE: [0.3]}, wrong={FAST: wrong})
    trials = machine.run(FAST, MIDDLE)
    assert fastest(trials, (FAST, MIDDLE, REFERENCE), REFERENCE) == chosen
    assert trials[1].equal == pytest.approx(1 - 0.8 * wrong / MASK.size)
    assert trials[1].problem == ("" if chosen == FAST else "other masks")


def test_fp32_engines_must_have_the_same_masks_too() -> None:
    machine = Machine({REFERENCE: [1.0], MIDDLE: [0.1], SLOW: [0.2]}, wrong={MIDDLE: 400, SLOW: 400})
    assert machine.choose(MIDDLE, SLOW) == REFERENCE


@pytest.mark.parametrize("error", [RuntimeError("unsupported"), MemoryError(), ValueError("shape")])
def test_an_engine_that_raises_is_left_out(error: Exception) -> None:
    machine = Machine({REFERENCE: [1.0], MIDDLE: [0.3]}, errors={FAST: error})
    trials = machine.run(FAST, MIDDLE)
    assert fastest(trials, (FAST, MIDDLE, REFERENCE), REFERENCE) == MIDDLE
    assert trials[1].problem == (str(error) or "MemoryError")


def test_a_network_that_cannot_be_converted_is_converted_once() -> None:
    bf16 = Engine("torch", "bf16")
    problem = ConfigError("export", expected="a network", found="another", do="Use torch.")
    machine = Machine({REFERENCE: [1.0], bf16: [0.5]}, errors={FAST: problem, MIDDLE: problem, SLOW: problem})
    assert machine.choose(FAST, MIDDLE, SLOW, bf16) == bf16
    assert machine.opened == [REFERENCE, FAST, bf16]


@pytest.mark.parametrize("noisy", [FAST, MIDDLE, REFERENCE])
def test_single_slow_passes_do_not_decide(noisy: Engine) -> None:
    # The second pass is the first that is measured.
    times = {REFERENCE: [0.4], FAST: [0.2, 0.2], MIDDLE: [0.28, 0.28]}
    for slow_pass in range(4):
        some = [times[noisy][0]] * slow_pass + [3.0, times[noisy][0]]
        trials = Machine(times | {noisy: some}).run(FAST, MIDDLE)
        assert fastest(trials, (FAST, MIDDLE, REFERENCE), REFERENCE) == FAST, slow_pass
        assert trials[0].seconds == pytest.approx(0.4)
        assert trials[1].seconds == pytest.approx(0.2)


def test_the_first_of_short_passes_after_a_pause_does_not_count() -> None:
    times = {REFERENCE: [0.1], FAST: [0.3, *[0.3, 0.05] * 9]}
    trials = Machine(times).run(FAST)
    assert trials[1].seconds == pytest.approx(0.05)


def test_a_slower_engine_costs_two_passes_besides_the_first() -> None:
    machine = Machine({REFERENCE: [1.0], FAST: [0.1], MIDDLE: [0.5]})
    machine.run(FAST, MIDDLE)
    assert machine.passes[MIDDLE] == 3


def test_trials_of_slow_networks_end_when_a_faster_engine_is_known() -> None:
    machine = Machine({REFERENCE: [9.0], FAST: [2.0], MIDDLE: [4.0], SLOW: [4.0]})
    trials = machine.run(FAST, MIDDLE, SLOW)
    assert SLOW not in machine.opened
    assert trials[3].problem == "not measured, since a faster one had been found"
    assert machine.passes == {REFERENCE: 3, FAST: 4, MIDDLE: 3}


def test_a_gain_of_a_few_percent_is_not_worth_another_engine() -> None:
    assert Machine({REFERENCE: [1.0], FAST: [0.95]}).choose(FAST) == REFERENCE


def test_the_default_is_used_if_no_allowed_engine_has_the_same_masks() -> None:
    trials = Machine({REFERENCE: [1.0], FAST: [0.1], MIDDLE: [0.3]}, wrong={FAST: 400, MIDDLE: 400}).run(FAST, MIDDLE)
    assert fastest(trials, (FAST, MIDDLE), MIDDLE) == MIDDLE


@pytest.mark.parametrize("seed", range(20))
def test_parity_is_that_of_scikit_learn(seed: int) -> None:
    rng = np.random.default_rng(seed)
    classes = int(rng.integers(1, 7))
    shapes = [(int(rng.integers(1, 20)), int(rng.integers(1, 20))) for _ in range(3)]
    expected = [rng.integers(0, classes, shape).astype(np.uint8) for shape in shapes]
    found = [np.where(rng.random(mask.shape) < 0.1, classes, mask).astype(np.uint8) for mask in expected]
    for ours, theirs in zip(found, expected, strict=True):
        invalid = rng.random(ours.shape) < 0.1
        invalid[0, 0] = False
        ours[invalid], theirs[invalid] = 255, 255
    ours, theirs = (np.concatenate([mask.ravel() for mask in masks]) for masks in (found, expected))
    ours, theirs = ours[theirs != 255], theirs[theirs != 255]
    equal, iou = parity(found, expected, 255)
    assert equal == pytest.approx((ours == theirs).mean())
    assert iou == pytest.approx(jaccard_score(theirs, ours, average="macro"))


def test_images_without_data_have_no_parity() -> None:
    nothing = np.full((4, 4), 255, np.uint8)
    assert parity([nothing], [nothing], 255) == (0.0, 0.0)
