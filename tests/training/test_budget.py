import pytest
from hypothesis import given
from hypothesis import strategies as st

from pixelwise.config import Config, replace
from pixelwise.errors import ResourceError
from pixelwise.training import budget
from pixelwise.training.budget import Pace, fitting_steps, parse_duration, plan_steps, slower_pace


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90", 90), ("90s", 90), ("10m", 600), ("1h30m", 5400), ("1.5h", 5400), ("2m30s", 150), ("0.5s", 0.5)],
)
def test_durations_are_read(text: str, seconds: float) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["", "ten", "10x", "0", "0m", "-5m", "m"])
def test_invalid_durations_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match=text or "^$"):
        parse_duration(text)


def test_steps_and_validations_fit_the_time_that_is_left() -> None:
    config, reasons = plan_steps(Config(), per_step=0.5, per_image=2.0, images=1, left=200, limit=240, final=2.0)
    steps, validations = config.train.steps or 0, config.train.validations or 0
    needed = steps * 0.5 + (validations + 1) * 2.0
    assert 0.9 * 200 < needed <= 200
    assert 2 <= validations <= 10
    assert (
        reasons["train.steps"]
        == "240 s limit, measured 0.500 s per step, 2.0 s per validation, 2.0 s for the final scoring"
    )


def test_a_given_number_of_validations_is_kept() -> None:
    config, reasons = plan_steps(
        replace(Config(), train={"validations": 3}), per_step=0.1, per_image=1.0, images=1, left=60, limit=60, final=1.0
    )
    assert config.train.validations == 3
    assert "train.validations" not in reasons


def test_too_little_time_is_an_error() -> None:
    with pytest.raises(
        ResourceError, match=r"--time-limit: expected time for one step \(5\.0 s\).*Allow more time"
    ) as caught:
        plan_steps(Config(), per_step=5.0, per_image=2.0, images=1, left=4, limit=10, final=2.0)
    assert caught.value.exit_code == 4


def test_the_pace_excludes_validations() -> None:
    assert slower_pace([(0, 0.0), (100, 30.0)], {50, 100, 300}, 5.0) == pytest.approx(0.2)


@pytest.mark.parametrize(
    ("seconds", "pace"), [(60.0, 0.8), (40.0, 0.4), (22.0, 0.22)], ids=["slower now", "even", "faster now"]
)
def test_the_slower_of_overall_and_recent_pace_is_used(seconds: float, pace: float) -> None:
    assert slower_pace([(0, 0.0), (50, 20.0), (100, seconds)], (), 5.0) == pytest.approx(pace)


def test_overestimated_validations_leave_a_tenth_of_the_time_for_steps() -> None:
    assert slower_pace([(0, 0.0), (100, 30.0)], {100}, 60.0) == pytest.approx(0.03)


def test_fitting_steps_subtracts_reserve_validations_and_final_scoring() -> None:
    assert fitting_steps(0.5, 2.0, 3, 102.0, 2.0) == 180  # (0.96 × 100 - 6) / 0.5
    assert fitting_steps(0.5, 2.0, 3, 5.0, 2.0) < 0


def test_a_long_final_scoring_leaves_fewer_steps() -> None:
    short, _ = plan_steps(Config(), per_step=0.5, per_image=2.0, images=1, left=200, limit=240, final=2.0)
    long, reasons = plan_steps(Config(), per_step=0.5, per_image=2.0, images=1, left=200, limit=240, final=60.0)
    assert (short.train.steps or 0) - (long.train.steps or 0) > 60
    assert "60.0 s for the final scoring" in reasons["train.steps"]
    with pytest.raises(
        ResourceError, match=r"and the final scoring \(60\.0 s\), found 50 s left .* evaluate\.metrics=\[\]"
    ):
        plan_steps(Config(), per_step=0.5, per_image=2.0, images=1, left=50, limit=60, final=60.0)


@given(st.floats(0.01, 1.0), st.floats(0.01, 1.0), st.floats(0.0, 1.0), st.integers(10, 5000), st.integers(0, 5000))
def test_units_of_two_kinds_of_steps(frozen: float, full: float, share: float, steps: int, step: int) -> None:
    pace, border = Pace(frozen, full, share), round(share * steps)
    # Oracle: the seconds of one step after the other.
    seconds = [frozen if k < border else full for k in range(steps)]
    step = min(step, steps)
    assert pace.units(step, border) * pace.mean == pytest.approx(sum(seconds[:step]), rel=1e-6, abs=1e-9)
    # The rest of the run takes as many units as were left, whatever was planned.
    left = pace.units(steps, border) - pace.units(step, border)
    # The border is rounded to a whole step, and the result, too.
    rounding = 1 + 0.5 * abs(full - frozen) / pace.mean
    assert pace.total_steps(left, step, border) == pytest.approx(steps, abs=rounding + 1e-6)


def test_the_border_moves_with_the_number_of_steps_until_it_is_reached() -> None:
    pace = Pace(frozen=0.1, full=0.3, share=0.5)
    assert pace.mean == pytest.approx(0.2)
    assert pace.total_steps(100, 0, 500) == 100
    assert pace.total_steps(100, 20, 500) == 110  # 20 steps at half of the average cost
    assert pace.total_steps(30, 60, 50) == 80  # 30 units of 0.2 s are 20 steps of 0.3 s


@pytest.mark.parametrize(
    ("images", "per_copy", "limit", "uses", "copies"),
    [
        (16, 0.02, 240.0, 6400.0, 64),  # few images: as many as are useful
        (367, 0.025, 240.0, 4400.0, 3),
        (367, 0.025, None, 4400.0, 3),
        (367, 0.025, 240.0, 1300.0, 1),  # each copy would be used once or twice
        (367, 0.2, 240.0, 44000.0, 1),
        (10_000, 0.05, 240.0, 4400.0, 0),  # most images are used once at most
    ],
)
def test_copies_by_time_and_use(
    monkeypatch: pytest.MonkeyPatch, images: int, per_copy: float, limit: float | None, uses: float, copies: int
) -> None:
    monkeypatch.setattr(budget, "storable_bytes", lambda: 1e12)
    found, reason = budget.choose_copies(images, per_copy, 10**6, limit, uses)
    assert found == copies
    assert f"of {images} images" in reason


def test_copies_by_space(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(budget, "storable_bytes", lambda: 5e8)
    assert budget.choose_copies(100, 0.001, 10**6, 600.0, 1e5)[0] == 5
    monkeypatch.setattr(budget, "storable_bytes", lambda: 0.0)
    assert budget.choose_copies(100, 0.001, 10**6, 600.0, 1e5)[0] == 1
