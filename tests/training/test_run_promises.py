"""Errors before a run begins, and properties of a finished run."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from safetensors.torch import load_file

import pixelwise
from pixelwise.errors import ConfigError, DataError, OutOfMemoryError, UsageError
from pixelwise.training import assembly, loop, plan
from pixelwise.training.runlog import RunLog, read_log


@pytest.fixture(scope="module")
def short(discs: Path, tiny: tuple[str, ...], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of two steps."""
    out = tmp_path_factory.mktemp("short") / "run"
    return pixelwise.train(discs, out=out, steps=2, overrides=tiny).folder


def test_a_validation_split_of_ignored_pixels_is_refused_before_training(
    discs: Path, tiny: tuple[str, ...], tmp_path: Path
) -> None:
    shutil.copytree(discs, tmp_path / "data")
    for mask in (tmp_path / "data" / "val" / "masks").iterdir():
        Image.new("L", (64, 64), 255).save(mask)
    with pytest.raises(
        DataError, match=r"^val masks: expected at least one annotated pixel, found only ignored pixels in 4 masks"
    ):
        pixelwise.train(tmp_path / "data", out=tmp_path / "run", steps=2, overrides=tiny)
    assert not (tmp_path / "run" / "config.yaml").exists()


@pytest.mark.parametrize("device", ["gpu", "cuda:99", "meta:x"])
def test_an_unavailable_device_is_refused(discs: Path, tiny: tuple[str, ...], tmp_path: Path, device: str) -> None:
    with pytest.raises(
        ConfigError, match=rf"^train\.device: expected a device that torch can use on this machine, found {device} "
    ):
        pixelwise.train(discs, out=tmp_path / "run", steps=2, overrides=(*tiny, f"train.device={device}"))


@pytest.mark.parametrize(("chosen", "derived_for"), [("cpu", "cpu"), ("cuda:1", "cuda"), (None, "cuda")])
def test_values_are_derived_for_the_chosen_device(
    discs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, chosen: str | None, derived_for: str
) -> None:
    seen: list[plan.Machine] = []

    def derive(_: object, __: object, machine: plan.Machine, ___: object = None) -> None:
        seen.append(machine)
        raise RuntimeError("enough")

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(plan, "derive", derive)
    overrides = () if chosen is None else (f"train.device={chosen}",)
    with pytest.raises(RuntimeError, match="enough"):
        pixelwise.train(discs, out=tmp_path / "run", steps=1, overrides=overrides)
    assert [machine.device for machine in seen] == [derived_for]


def test_a_batch_too_small_for_batch_norm_is_refused(discs: Path, tiny: tuple[str, ...], tmp_path: Path) -> None:
    overrides = (*tiny, "train.batch_size=1", "train.crop=[4,4]")
    with pytest.raises(ConfigError, match=r"^train\.batch_size: expected at least 2, or crops larger than .* 4 pixels"):
        pixelwise.train(discs, out=tmp_path / "run", steps=2, overrides=overrides)


@pytest.mark.parametrize("seed", [-1, 2**60])
def test_an_invalid_seed_is_refused(discs: Path, tmp_path: Path, seed: int) -> None:
    with pytest.raises(ConfigError, match=r"train\.seed"):
        pixelwise.train(discs, out=tmp_path / "run", steps=2, overrides=(f"train.seed={seed}",))


def test_the_out_of_memory_error_names_what_to_lower(
    discs: Path, tiny: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def short(*_: object) -> float:
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes")

    monkeypatch.setattr(loop, "gradients", short)
    with pytest.raises(OutOfMemoryError, match=r"expected enough memory, found .* Lower --set train\.batch_size"):
        pixelwise.train(discs, out=tmp_path / "run", steps=2, overrides=tiny)


def test_all_verbs_use_the_flips_of_the_scores(discs: Path, tiny: tuple[str, ...], tmp_path: Path) -> None:
    run = pixelwise.train(discs, out=tmp_path / "run", steps=6, overrides=(*tiny, "predict.flips=true"))
    assert len(run.model.predictor.copies) == 4
    scored = pixelwise.evaluate(run.model, discs, split="val").scores.miou.value
    assert scored == pytest.approx(run.scores["miou"], abs=1e-12)
    plain = pixelwise.load(run.folder, flips=False)
    assert len(plain.predictor.copies) == 1
    assert len(pixelwise.load(run.folder, flips=True).predictor.copies) == 4


def test_validations_are_measured_with_flips(
    discs: Path, tiny: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mirrors = []
    real = assembly.validation_seconds

    def measured(config: object, model: object, card: object, val: object) -> float:
        mirrors.append((card.spec.flips, card.spec.mirrors))  # type: ignore[attr-defined]
        return real(config, model, card, val)  # type: ignore[arg-type]

    monkeypatch.setattr(assembly, "validation_seconds", measured)
    pixelwise.train(discs, out=tmp_path / "run", time_limit=6, overrides=(*tiny, "predict.flips=true"))
    assert mirrors == [(True, ("horizontal", "vertical"))] * 2


def test_the_saved_weights_are_those_that_were_scored(
    discs: Path, tiny: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are the averaged weights of the best step, not the current ones or those of the last step."""
    scored: list[dict[str, torch.Tensor]] = []
    real = assembly.make_predictor

    def seen(config: object, model: torch.nn.Module, card: object) -> object:
        scored.append({name: tensor.clone() for name, tensor in model.state_dict().items()})
        return real(config, model, card)  # type: ignore[arg-type]

    monkeypatch.setattr(assembly, "make_predictor", seen)
    own = ("train.validations=4", "train.ema=0.9")
    run = pixelwise.train(discs, out=tmp_path / "run", steps=12, overrides=(*tiny, *own))
    marks = [event for event in read_log(run.folder / "log.jsonl") if event["event"] == "validation"]
    assert len(scored) == len(marks) == 4
    best = max(k for k, mark in enumerate(marks) if mark["best"])
    assert marks[best]["miou"] == max(mark["miou"] for mark in marks)
    shipped = load_file(run.folder / "model" / "model.safetensors")
    assert shipped.keys() == scored[best].keys()
    assert all(torch.equal(tensor, scored[best][name]) for name, tensor in shipped.items())
    newest = load_file(max((run.folder / "checkpoints").glob("*.safetensors")))
    assert torch.equal(newest["averaged.head.weight"], scored[-1]["head.weight"])
    assert not torch.equal(newest["model.head.weight"], scored[-1]["head.weight"])


def test_ignored_pixels_with_more_than_255_classes(tiny: tuple[str, ...], tmp_path: Path) -> None:
    """With 256 classes or more the ignore index is another number in loss, score and fingerprint."""
    ids = (np.arange(64 * 64) // 4 % 260).reshape(64, 64).astype(np.uint16)
    ids[:32] = 900
    for part in ("train", "val"):
        image = np.random.default_rng(len(part)).integers(0, 256, (64, 64, 3), np.uint8)
        for kind, values in (("images", image), ("masks", ids)):
            (tmp_path / "data" / part / kind).mkdir(parents=True)
            Image.fromarray(values).save(tmp_path / "data" / part / kind / "a.png")
    labels = {"names": [f"class {k}" for k in range(260)], "ignore_index": 900}
    (tmp_path / "data" / "labels.yaml").write_text(yaml.safe_dump(labels))
    end = ("evaluate.metrics=[]", "evaluate.temperature=false", "evaluate.report=false", "evaluate.resamples=0")
    run = pixelwise.train(tmp_path / "data", out=tmp_path / "run", steps=2, overrides=(*tiny, *end))
    facts = json.loads((run.folder / "data.json").read_text())["fingerprint"]
    counts = np.bincount(ids[32:].reshape(-1), minlength=260).tolist()
    assert (facts["pixel_counts"], facts["ignored_share"]) == (counts, 0.5)
    assert run.scores["ignored_pixels"] == 32 * 64
    assert [one["pixels"] for one in run.scores["classes"]] == counts
    assert counts[255] == 8


def test_a_model_left_by_an_interrupted_replacement_is_found(short: Path, tmp_path: Path) -> None:
    """After a kill between two renames the model has its temporary name."""
    shutil.copytree(short, tmp_path / "run")
    (tmp_path / "run" / "model").rename(tmp_path / "run" / ".model.previous")
    for path in (tmp_path / "run", tmp_path / "run" / "model"):
        assert pixelwise.load(path).labels.names == ("background", "disc")


def test_scoring_another_split_than_that_of_the_training_is_reported(
    discs: Path, tiny: tuple[str, ...], tmp_path: Path
) -> None:
    for kind in ("images", "masks"):
        shutil.copytree(discs / "train" / kind, tmp_path / "pool" / kind)
    shutil.copy(discs / "labels.yaml", tmp_path / "pool")
    pool = tmp_path / "pool"
    run = pixelwise.train(pool, out=tmp_path / "run", steps=1, overrides=(*tiny, "data.split.seed=5"))
    assert run.splits == ("train", "val")
    other = pixelwise.evaluate(run.model, pool, split="val")
    assert any("differs from the split used in training" in notice for notice in other.notices)
    same = pixelwise.evaluate(run.model, run.folder / "config.yaml", split="val")
    assert not any("differs from the split used in training" in notice for notice in same.notices)
    assert same.scores.miou.value == pytest.approx(run.scores["miou"], abs=1e-12)


def test_overrides_that_a_verb_does_not_use_are_refused(short: Path, discs: Path) -> None:
    message = r"^--set predict\.flips=true: expected a key of data( or evaluate)?, found a key that this command"
    with pytest.raises(UsageError, match=message):
        pixelwise.check(discs, overrides=("predict.flips=true",))
    with pytest.raises(UsageError, match=message):
        pixelwise.evaluate(short, discs, overrides=("predict.flips=true",))


def test_a_log_is_replaced_atomically(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    log = RunLog(path, 0, None)
    for step in range(1, 6):
        log.write("step", step=step)
    log.close()
    log = RunLog(path, 3, None)
    assert [e["step"] for e in read_log(path)] == [1, 2, 3]
    log.write("step", step=4)
    log.close()
    assert [e["step"] for e in read_log(path)] == [1, 2, 3, 4]
    assert [p.name for p in tmp_path.iterdir()] == ["log.jsonl"]
