"""Measurements with a fake clock: one slow moment changes no choice."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import pixelwise.config as configs
from pixelwise.batch import Batch
from pixelwise.config import Config
from pixelwise.training import budget, features, timing
from pixelwise.training.assembly import Components
from pixelwise.training.timing import alternating, first_or_clearly_faster, mean_without_slowest

CPU = torch.device("cpu")
# Of a step, per setting: precision, channels last.
Costs = dict[tuple[str, bool], float]


class Clock:
    """A clock that moves only by work."""

    def __init__(self) -> None:
        self.now = 0.0
        self.calls = 0
        self.slow: dict[int, float] = {}

    def __call__(self) -> float:
        return self.now

    def work(self, seconds: float) -> None:
        """Take some time, and more in a call that is slow."""
        self.now += seconds + self.slow.get(self.calls, 0.0)
        self.calls += 1


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    found = Clock()
    for module in (timing, budget, features):
        monkeypatch.setattr(module.time, "perf_counter", found)
    return found


def timed(clock: Clock, seconds: Sequence[float]) -> list[list[float]]:
    return alternating([lambda s=s: clock.work(s) for s in seconds], CPU)  # type: ignore[misc]


@given(st.permutations([1.0, 0.5, 0.8]), st.integers(0, 40), st.floats(0.0, 1000.0))
def test_one_outlier_does_not_change_the_choice(seconds: list[float], slow: int, by: float) -> None:
    clock = Clock()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(timing.time, "perf_counter", clock)
        undisturbed = first_or_clearly_faster(timed(clock, seconds), 0.9)
        clock.calls, clock.slow = 0, {slow: by}
        found = first_or_clearly_faster(timed(clock, seconds), 0.9)
    assert found == undisturbed == seconds.index(0.5)


@pytest.mark.parametrize(
    ("seconds", "chosen"), [([1.0, 0.95], 0), ([1.0, 0.91, 0.82], 2), ([1.0, 0.89], 1), ([1.0], 0)]
)
def test_the_first_is_kept_without_a_clear_margin(clock: Clock, seconds: list[float], chosen: int) -> None:
    assert first_or_clearly_faster(timed(clock, seconds), 0.9) == chosen


def test_work_alternates_and_the_slowest_is_dropped(clock: Clock) -> None:
    order: list[str] = []

    def work(name: str, seconds: float) -> Callable[[], None]:
        return lambda: (order.append(name), clock.work(seconds))[0]

    found = alternating([work("a", 1.0), work("b", 0.9), work("c", 1.6)], CPU)
    assert "".join(order) == "abc" + "abc" * 2 + "ab"  # a warm-up, and three rounds of a and b
    assert [len(each) for each in found] == [3, 3, 2]


def test_short_work_is_timed_more_often(clock: Clock) -> None:
    assert [len(each) for each in timed(clock, [0.01, 0.012])] == [11, 11]
    assert [len(each) for each in timed(clock, [0.5, 0.4])] == [4, 4]
    assert [len(each) for each in timed(clock, [50.0, 40.0])] == [3, 3]


def test_a_machine_that_becomes_slower_does_not_favour_the_first(clock: Clock) -> None:
    """Times of the same round are compared: every round takes twice as long as the one before."""
    paces = iter([1.0, 1.0, *itertools.chain.from_iterable((2.0**k, 2.0**k) for k in range(20))])
    works = [lambda: clock.work(next(paces)), lambda: clock.work(0.8 * next(paces))]
    assert first_or_clearly_faster(alternating(works, CPU), 0.9) == 1


def test_the_mean_without_the_slowest() -> None:
    assert mean_without_slowest([1.0, 90.0, 2.0]) == 1.5
    assert mean_without_slowest([3.0]) == 3.0


@pytest.fixture
def components(discs: Path, tiny: tuple[str, ...]) -> tuple[Config, Components]:
    from pixelwise.datasets.dataset import open_data
    from pixelwise.datasets.fingerprint import fingerprint
    from pixelwise.training import assembly, plan
    from pixelwise.training.network_plan import Machine

    unset = [text for text in tiny if "precision" not in text and "channels_last" not in text]
    config, base = configs.read_request(discs, ("model.name=unet", *unset))
    train = open_data(config.data, base).train
    assert train is not None
    facts = fingerprint(train)
    config, _ = plan.derive(config, facts, Machine("cpu", 2, True))
    return config, assembly.build(configs.draft(config), train, facts, None)


@pytest.mark.parametrize(
    ("costs", "chosen"),
    [
        ({("fp32", False): 1.0, ("fp32", True): 0.97, ("bf16", True): 0.93}, ("fp32", False)),
        ({("fp32", False): 1.0, ("fp32", True): 0.6, ("bf16", True): 0.57}, ("fp32", True)),
        ({("fp32", False): 1.0, ("fp32", True): 0.9, ("bf16", True): 0.3}, ("bf16", True)),
    ],
)
@pytest.mark.parametrize("slow", [None, *range(24)])
def test_precision_and_format_do_not_depend_on_one_slow_trial(
    costs: Costs,
    chosen: tuple[str, bool],
    slow: int | None,
    components: tuple[Config, Components],
    clock: Clock,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def gradients(_: object, __: object, group: list[Batch], train: Any) -> float:
        assert len(group[0].ids) == 2
        clock.work(costs[train.precision, train.channels_last])
        return 0.0

    clock.slow = {} if slow is None else {slow: 10.0}
    monkeypatch.setattr(budget, "gradients", gradients)
    monkeypatch.setattr(budget, "_is_emulated", lambda *_: False)
    config, reasons = budget.choose_precision(*components)
    assert (config.train.precision, config.train.channels_last) == chosen
    assert reasons["train.precision"] == reasons["train.channels_last"]
    assert reasons["train.precision"].startswith("measured on 2 crops: fp32 1000 ms, fp32 channels-last ")


def test_the_weights_are_not_changed_by_the_measurement(components: tuple[Config, Components]) -> None:
    before = copy.deepcopy(components[1].model.state_dict())
    config, _ = budget.choose_precision(*components)
    assert config.train.precision in ("fp32", "bf16")
    for name, tensor in components[1].model.state_dict().items():
        assert torch.equal(tensor, before[name]), name
    assert all(p.grad is None for p in components[1].model.parameters())


@pytest.mark.parametrize(("bf16", "emulated"), [(0.2, True), (0.05, False), (0.01, False)])
@pytest.mark.parametrize("slow", [None, 2, 3, 4, 5])
def test_emulated_bf16_is_recognised(
    bf16: float, emulated: bool, slow: int | None, components: tuple[Config, Components], clock: Clock
) -> None:
    model = copy.deepcopy(components[1].model)
    fp32 = 0.005 if bf16 == 0.01 else 0.04  # emulation of less than 20 ms is not noticed

    def forward(images: torch.Tensor) -> torch.Tensor:
        clock.work(bf16 if torch.is_autocast_enabled("cpu") else fp32)
        return images

    model.forward = forward  # type: ignore[method-assign]
    clock.slow = {} if slow is None else {slow: 5.0}
    train = configs.draft(configs.replace(components[0], train={"precision": "bf16", "channels_last": True})).train
    batch = Batch(torch.zeros(2, 3, 64, 64), torch.zeros(2, 64, 64, dtype=torch.long), ("a", "b"))
    assert budget._is_emulated(model, batch, train) == emulated


@pytest.mark.parametrize("slow", [None, 1, 2, 3])
def test_one_slow_step_does_not_change_the_pace(
    slow: int | None, components: tuple[Config, Components], clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    config, parts = components

    def gradients(*_: object) -> float:
        clock.work(0.5)
        return 0.0

    def stream() -> Iterator[Batch]:
        while True:
            yield Batch(torch.zeros(0), torch.zeros(0), ())

    clock.slow = {0: 100.0} if slow is None else {slow: 100.0}
    monkeypatch.setattr(budget, "gradients", gradients)
    assert budget.step_seconds(configs.draft(config), parts, 3, stream()) == pytest.approx(0.5)
