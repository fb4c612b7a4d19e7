"""Images of validations: decoded once within a bound, evenly spaced, and within a tenth of the time."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import pixelwise
from pixelwise.config import Config, load_config, replace
from pixelwise.datasets.dataset import Dataset, open_data
from pixelwise.training import assembly, budget, validation
from pixelwise.training.budget import FEWEST_VALIDATED, plan_validations
from pixelwise.training.runlog import read_log
from pixelwise.training.validation import CachedImages, evenly_spaced, seconds_per_image


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data set with more validation images than are scored at least."""
    from pixelwise.demo.synthetic import write_discs

    folder = tmp_path_factory.mktemp("many")
    write_discs(folder, train=4, val=FEWEST_VALIDATED + 8, test=1, size=(32, 32), seed=0)
    return folder


@pytest.fixture
def val(many: Path) -> Dataset:
    split = open_data(Config().data, many).val
    assert split is not None
    return split


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Ids of the images that are decoded."""
    ids: list[str] = []
    real = Dataset.inspect

    def inspect(split: Dataset, index: int) -> Any:
        ids.append(split.records[index].id)
        return real(split, index)

    monkeypatch.setattr(Dataset, "inspect", inspect)
    return ids


def test_images_are_decoded_once(val: Dataset, decoded: list[str]) -> None:
    images = CachedImages(val, 10**9)
    some = images.subset([3, 1, 2]).subset([0, 2])
    assert [some.read(k).id for k in range(len(some))] == [val.records[k].id for k in (3, 2)]
    assert len(some) == 2
    for _ in range(2):
        assert [images.read(k).id for k in range(len(images))] == [record.id for record in val.records]
    assert sorted(decoded) == sorted(record.id for record in val.records)


def test_images_beyond_the_memory_are_decoded_again(val: Dataset, decoded: list[str]) -> None:
    sample = val.read(0)
    assert sample.mask is not None
    decoded.clear()
    images = CachedImages(val, 3 * (sample.image.nbytes + sample.mask.nbytes))
    for _ in range(2):
        for k in range(5):
            images.read(k)
    assert len(decoded) == 5 + 2


@given(st.integers(1, 300), st.integers(1, 300))
def test_evenly_spaced_indices(length: int, count: int) -> None:
    found = evenly_spaced(length, count)
    assert len(found) == len(set(found)) == min(length, count)
    assert found == sorted(found)
    assert found[0] == 0
    if count > 1:
        assert found[-1] == length - 1
        gaps = [b - a for a, b in itertools.pairwise(found)]
        assert max(gaps, default=1) - min(gaps, default=1) <= 1


@given(
    seconds=st.floats(1, 1e5),
    per_image=st.floats(1e-3, 10),
    images=st.integers(1, 5000),
    most=st.integers(1, 10),
    validations=st.none() | st.integers(1, 20),
    subset=st.none() | st.integers(1, 6000),
)
def test_validations_take_a_tenth_of_the_time(
    seconds: float, per_image: float, images: int, most: int, validations: int | None, subset: int | None
) -> None:
    given = replace(Config(), train={"validations": validations, "validation_images": subset})
    config, reasons = plan_validations(given, seconds, per_image, images, most)
    count, scored = config.train.validations, min(config.train.validation_images or images, images)
    assert count is not None
    assert 1 <= count <= max(most, validations or 0)
    assert validations in (None, count)
    assert subset in (None, config.train.validation_images)
    assert set(reasons) <= {"train.validations", "train.validation_images"}
    if subset is None:
        assert scored >= min(images, FEWEST_VALIDATED)
    # Less only where the least number of validations and images takes longer.
    if count * scored * per_image > 0.1 * seconds * 1.001:
        assert count == (validations or 1)
        assert subset is not None or scored <= FEWEST_VALIDATED
    # Without need, no image is left out.
    if subset is None and max(3, validations or 0) * images * per_image <= 0.1 * seconds:
        assert scored == images


def test_one_slow_moment_does_not_change_the_estimate(val: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    now, calls = [0.0], [0]

    def work(split: Dataset) -> None:
        assert len(split) == 1
        now[0] += [60.0, 0.2, 9.0, 0.2][calls[0]]  # a warm-up, and one outlier
        calls[0] += 1

    monkeypatch.setattr(validation.time, "perf_counter", lambda: now[0])
    assert seconds_per_image(work, val) == pytest.approx(0.2)
    assert calls[0] == 4


def test_a_large_validation_split_is_represented_by_a_part_of_it(
    many: Path,
    val: Dataset,
    tiny: tuple[str, ...],
    tmp_path: Path,
    decoded: list[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Fixed and recorded; the final scores are those of all images."""
    monkeypatch.setattr(assembly, "validation_seconds", lambda *_: 0.5)
    monkeypatch.setattr(budget, "step_seconds", lambda *_: 0.1)
    reasons: dict[str, str] = {}
    seen: list[list[str]] = []

    def listen(event: dict[str, Any]) -> None:
        if event["event"] == "plan":
            reasons.update(event["reasons"])
        elif event["event"] == "start":
            decoded.clear()
        elif event["event"] == "validation":
            assert event["images"] == FEWEST_VALIDATED
            seen.append([id for id in decoded if id.startswith("val")])

    run = pixelwise.train(many, out=tmp_path / "run", steps=4, overrides=tiny, listener=listen)
    config, total = load_config(run.folder / "config.yaml"), FEWEST_VALIDATED + 8
    assert config.train.validation_images == FEWEST_VALIDATED
    assert reasons["train.validation_images"].startswith(f"of {total}, evenly spaced: 500 ms per image")
    subset = [val.records[k].id for k in evenly_spaced(total, FEWEST_VALIDATED)]
    assert seen == [subset, subset], "the second validation decodes nothing"
    assert run.scores["images"] == total


def test_a_part_may_be_requested(many: Path, tiny: tuple[str, ...], tmp_path: Path) -> None:
    sets = (*tiny, "train.validation_images=5")
    run = pixelwise.train(many, out=tmp_path / "run", steps=2, overrides=sets)
    validations = [event for event in read_log(run.folder / "log.jsonl") if event["event"] == "validation"]
    assert [event["images"] for event in validations] == [5, 5]
    assert run.scores["images"] == FEWEST_VALIDATED + 8
