import pytest

from pixelwise.config import Config, replace
from pixelwise.errors import ResourceError
from pixelwise.training.budget import parse_duration, plan_steps


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90", 90), ("90s", 90), ("10m", 600), ("1h30m", 5400), ("1.5h", 5400), ("2m30s", 150), ("0.5s", 0.5)],
)
def test_durations_are_read(text: str, seconds: float) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["", "ten", "10x", "0", "0m", "-5m", "m"])
def test_other_texts_are_no_durations(text: str) -> None:
    with pytest.raises(ValueError, match=text or "^$"):
        parse_duration(text)


def test_steps_and_validations_fit_the_time_that_is_left() -> None:
    config, reasons = plan_steps(Config(), per_step=0.5, per_validation=2.0, left=200, limit=240)
    steps, validations = config.train.steps or 0, config.train.validations or 0
    needed = steps * 0.5 + (validations + 1) * 2.0
    assert 0.9 * 200 < needed <= 200
    assert 2 <= validations <= 10
    assert reasons["train.steps"] == "240 s limit, measured 0.500 s a step and 2.0 s a validation"


def test_a_given_number_of_validations_stays() -> None:
    config, reasons = plan_steps(
        replace(Config(), train={"validations": 3}), per_step=0.1, per_validation=1.0, left=60, limit=60
    )
    assert config.train.validations == 3
    assert "train.validations" not in reasons


def test_too_little_time_is_said() -> None:
    with pytest.raises(
        ResourceError, match=r"--time-limit: expected time for at least one step \(5\.0 s\).*Give more time"
    ) as caught:
        plan_steps(Config(), per_step=5.0, per_validation=2.0, left=4, limit=10)
    assert caught.value.exit_code == 4
