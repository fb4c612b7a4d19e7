import pytest

from pixelwise.config import Config, replace
from pixelwise.errors import ResourceError
from pixelwise.training.budget import fitting_steps, parse_duration, plan_steps, slower_pace


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
    config, reasons = plan_steps(Config(), per_step=0.5, per_validation=2.0, left=200, limit=240, final=2.0)
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
        replace(Config(), train={"validations": 3}), per_step=0.1, per_validation=1.0, left=60, limit=60, final=1.0
    )
    assert config.train.validations == 3
    assert "train.validations" not in reasons


def test_too_little_time_is_an_error() -> None:
    with pytest.raises(
        ResourceError, match=r"--time-limit: expected time for one step \(5\.0 s\).*Allow more time"
    ) as caught:
        plan_steps(Config(), per_step=5.0, per_validation=2.0, left=4, limit=10, final=2.0)
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
    short, _ = plan_steps(Config(), per_step=0.5, per_validation=2.0, left=200, limit=240, final=2.0)
    long, reasons = plan_steps(Config(), per_step=0.5, per_validation=2.0, left=200, limit=240, final=60.0)
    assert (short.train.steps or 0) - (long.train.steps or 0) > 60
    assert "60.0 s for the final scoring" in reasons["train.steps"]
    with pytest.raises(
        ResourceError, match=r"and the final scoring \(60\.0 s\), found 50 s left .* evaluate\.metrics=\[\]"
    ):
        plan_steps(Config(), per_step=0.5, per_validation=2.0, left=50, limit=60, final=60.0)
