"""A step fits the memory, and stays the step that was wanted."""

from pathlib import Path

import pytest
import torch

import pixelwise
from pixelwise.config import Config, load_config, replace
from pixelwise.training import memory
from pixelwise.training.memory import divided, peak_bytes

CPU = torch.device("cpu")
MIB = 2**20


def wanting(batch: int, accumulate: int = 1) -> Config:
    return replace(Config(), train={"batch_size": batch, "accumulate": accumulate, "crop": [256, 256]})


def test_what_fits_stays_and_says_what_it_takes() -> None:
    config, reasons = divided(wanting(4), 40 * MIB, 30 * MIB, 2048 * MIB)
    assert (config.train.batch_size, config.train.accumulate) == (4, 1)
    assert reasons == {
        "train.batch_size": "measured 40 MiB a crop and 30 MiB beside, of the 2.0 GiB that a run may take"
    }


@pytest.mark.parametrize(("wanted", "fitting", "batch"), [(16, 9, 8), (6, 5, 3), (6, 2, 2), (5, 4, 1), (7, 7, 7)])
def test_the_largest_batch_that_fits_and_divides_the_step_is_taken(wanted: int, fitting: int, batch: int) -> None:
    config, reasons = divided(wanting(wanted), 100 * MIB, 50 * MIB, (fitting * 100 + 60) * MIB)
    assert config.train.batch_size == batch
    assert batch * config.train.accumulate == wanted
    assert ("train.accumulate" in reasons) == (batch < wanted)


def test_accumulation_that_was_asked_for_is_kept() -> None:
    config, reasons = divided(wanting(8, accumulate=3), 100 * MIB, 0, 450 * MIB)
    assert (config.train.batch_size, config.train.accumulate) == (4, 6)
    assert reasons["train.batch_size"].startswith("8 crops a step in 2 batches: measured 100 MiB a crop")


def test_too_little_for_a_single_crop_is_said_and_batch_norm_keeps_its_two() -> None:
    config, reasons = divided(wanting(8), 100 * MIB, 50 * MIB, 100 * MIB)
    assert (config.train.batch_size, config.train.accumulate) == (1, 8)
    assert reasons["train.batch_size"].endswith("not enough even so; a smaller crop takes less")
    assert divided(wanting(8), 100 * MIB, 50 * MIB, 100 * MIB, least=2)[0].train.batch_size == 2
    assert divided(wanting(1), 100 * MIB, 50 * MIB, 100 * MIB, least=2)[0].train.batch_size == 1


def test_the_peak_is_measured_and_does_not_remember() -> None:
    def work(count: int) -> None:
        torch.ones(count, dtype=torch.uint8)  # written, so that the system brings the pages

    first = peak_bytes(lambda: work(MIB), CPU)
    if first is None:
        pytest.skip("this system keeps no mark that can begin anew")
    many, few = peak_bytes(lambda: work(400 * MIB), CPU), peak_bytes(lambda: work(80 * MIB), CPU)
    assert many is not None
    assert few is not None
    assert 0.95 * 400 * MIB < many < 1.5 * 400 * MIB
    assert 0.9 * 80 * MIB < few < 200 * MIB


def test_systems_that_do_not_count_change_nothing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(memory, "_CLEAR", tmp_path / "none" / "clear_refs")
    assert peak_bytes(lambda: None, CPU) is None
    assert peak_bytes(lambda: None, torch.device("meta")) is None


def train(discs: Path, tiny: tuple[str, ...], out: Path, *more: str) -> Config:
    few = [text for text in tiny if not text.startswith("train.batch_size")]
    end = ("evaluate.metrics=[]", "evaluate.temperature=false", "evaluate.report=false")
    pixelwise.train(discs, out=out, steps=2, overrides=(*few, *end, *more))
    return load_config(out / "config.yaml")


def test_a_run_on_a_machine_without_much_memory_makes_the_same_step_of_smaller_batches(
    discs: Path, tiny: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory, "step_bytes", lambda *_: 2 * 100 * MIB)
    monkeypatch.setattr(memory, "free_memory", lambda _: 2 * 250 * MIB)
    config = train(discs, tiny, tmp_path / "run")
    assert (config.train.batch_size, config.train.accumulate) == (2, 4)
    text = (tmp_path / "run" / "config.yaml").read_text()
    assert "8 crops a step in 4 batches" in text
    assert "accumulate: 4  # 4 batches make the step that was wanted" in text


def test_a_batch_that_was_chosen_is_not_measured(
    discs: Path, tiny: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*_: object) -> int:
        raise AssertionError

    monkeypatch.setattr(memory, "step_bytes", never)
    config = train(discs, tiny, tmp_path / "run", "train.batch_size=3")
    assert (config.train.batch_size, config.train.accumulate) == (3, 1)


def test_a_run_measures_its_own_step(discs: Path, tiny: tuple[str, ...], tmp_path: Path) -> None:
    config = train(discs, tiny, tmp_path / "run")
    assert (config.train.batch_size or 0) * config.train.accumulate == 8
    if peak_bytes(lambda: None, CPU) is not None:
        assert "; measured " in (tmp_path / "run" / "config.yaml").read_text()
