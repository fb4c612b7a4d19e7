"""Fitting a step into memory without changing it."""

from pathlib import Path

import pytest
import torch

import pixelwise
from pixelwise.config import Config, ResolvedTrain, draft, load_config, replace
from pixelwise.training import memory
from pixelwise.training.memory import divided, peak_bytes

CPU = torch.device("cpu")
MIB = 2**20


def desired(batch: int, accumulate: int = 1) -> ResolvedTrain:
    return draft(replace(Config(), train={"batch_size": batch, "accumulate": accumulate})).train


def fitted(train: ResolvedTrain, *bytes: float, least: int = 1) -> tuple[int, int, dict[str, str]]:
    values, reasons = divided(train, *bytes, least=least)
    return values.get("batch_size", train.batch_size), values.get("accumulate", train.accumulate), reasons


def test_a_batch_that_fits_is_kept_with_a_reason() -> None:
    batch, accumulate, reasons = fitted(desired(4), 40 * MIB, 30 * MIB, 2048 * MIB)
    assert (batch, accumulate) == (4, 1)
    assert reasons == {"train.batch_size": "measured 40 MiB per crop plus 30 MiB; 2.0 GiB available"}


@pytest.mark.parametrize(("wanted", "fitting", "expected"), [(16, 9, 8), (6, 5, 3), (6, 2, 2), (5, 4, 1), (7, 7, 7)])
def test_the_largest_batch_that_fits_and_divides_the_step_is_taken(wanted: int, fitting: int, expected: int) -> None:
    batch, accumulate, reasons = fitted(desired(wanted), 100 * MIB, 50 * MIB, (fitting * 100 + 60) * MIB)
    assert batch == expected
    assert batch * accumulate == wanted
    assert ("train.accumulate" in reasons) == (batch < wanted)


def test_given_accumulation_is_kept() -> None:
    batch, accumulate, reasons = fitted(desired(8, accumulate=3), 100 * MIB, 0, 450 * MIB)
    assert (batch, accumulate) == (4, 6)
    assert reasons["train.batch_size"].startswith("8 crops per step in 2 batches: measured 100 MiB per crop")


def test_too_little_memory_for_one_crop_is_reported_and_batch_norm_keeps_two() -> None:
    batch, accumulate, reasons = fitted(desired(8), 100 * MIB, 50 * MIB, 100 * MIB)
    assert (batch, accumulate) == (1, 8)
    assert reasons["train.batch_size"].endswith("not enough; a smaller crop needs less")
    assert fitted(desired(8), 100 * MIB, 50 * MIB, 100 * MIB, least=2)[0] == 2
    assert fitted(desired(1), 100 * MIB, 50 * MIB, 100 * MIB, least=2)[0] == 1


def test_the_peak_is_reset_before_each_measurement() -> None:
    def work(count: int) -> None:
        torch.ones(count, dtype=torch.uint8)  # written, so that the pages are allocated

    first = peak_bytes(lambda: work(MIB), CPU)
    if first is None:
        pytest.skip("this system cannot reset the peak memory")
    many, few = peak_bytes(lambda: work(400 * MIB), CPU), peak_bytes(lambda: work(80 * MIB), CPU)
    assert many is not None
    assert few is not None
    assert 0.95 * 400 * MIB < many < 1.5 * 400 * MIB
    assert 0.9 * 80 * MIB < few < 200 * MIB


def test_systems_without_a_peak_counter_measure_nothing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(memory, "_CLEAR", tmp_path / "none" / "clear_refs")
    assert peak_bytes(lambda: None, CPU) is None
    assert peak_bytes(lambda: None, torch.device("meta")) is None


def train(discs: Path, tiny: tuple[str, ...], out: Path, *more: str) -> Config:
    others = [text for text in tiny if not text.startswith("train.batch_size")]
    end = ("evaluate.metrics=[]", "evaluate.temperature=false", "evaluate.report=false")
    pixelwise.train(discs, out=out, steps=2, overrides=(*others, *end, *more))
    return load_config(out / "config.yaml")


def test_a_run_on_a_machine_without_much_memory_makes_the_same_step_of_smaller_batches(
    discs: Path, tiny: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory, "step_bytes", lambda *_: 2 * 100 * MIB)
    monkeypatch.setattr(memory, "free_memory", lambda _: 2 * 250 * MIB)
    config = train(discs, tiny, tmp_path / "run")
    assert (config.train.batch_size, config.train.accumulate) == (2, 4)
    text = (tmp_path / "run" / "config.yaml").read_text()
    assert "8 crops per step in 4 batches" in text
    assert "accumulate: 4  # 4 batches per step, since a single one does not fit into memory" in text


def test_a_given_batch_size_is_not_measured(
    discs: Path, tiny: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*_: object) -> int:
        raise AssertionError

    monkeypatch.setattr(memory, "step_bytes", never)
    config = train(discs, tiny, tmp_path / "run", "train.batch_size=3")
    assert (config.train.batch_size, config.train.accumulate) == (3, 1)


def test_a_run_measures_its_step(discs: Path, tiny: tuple[str, ...], tmp_path: Path) -> None:
    config = train(discs, tiny, tmp_path / "run")
    assert (config.train.batch_size or 0) * config.train.accumulate == 8
    if peak_bytes(lambda: None, CPU) is not None:
        assert "; measured " in (tmp_path / "run" / "config.yaml").read_text()
