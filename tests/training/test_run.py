import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file

import pixelwise
from pixelwise.config import load_config
from pixelwise.errors import DataError, DivergedError, Interrupted, OutputExistsError, ResourceError, UsageError
from pixelwise.training import assembly, budget, checkpoint, loop
from pixelwise.training.assembly import Components
from pixelwise.training.runlog import read_log
from pixelwise.training.schedule import last_step

STEPS = 30


def command(data: Path, out: Path, tiny: tuple[str, ...], steps: int = STEPS, workers: int = 0) -> list[str]:
    sets = [part for text in (*tiny, f"train.workers={workers}") for part in ("--set", text)]
    return [sys.executable, "-m", "pixelwise", "train", str(data), "--out", str(out), "--steps", str(steps), *sets]


def weights(run: Path) -> dict[str, torch.Tensor]:
    newest = checkpoint.checkpoints(run / "checkpoints")[-1]
    return load_file(newest) | {f"best.{k}": v for k, v in load_file(run / "model" / "model.safetensors").items()}


def assert_same_weights(one: Path, other: Path) -> None:
    a, b = weights(one), weights(other)
    assert a.keys() == b.keys()
    assert len(a) > 20
    for name in a:
        assert torch.equal(a[name], b[name]), name


@pytest.fixture(scope="module")
def whole(discs: Path, tiny: tuple[str, ...], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run without interruption."""
    out = tmp_path_factory.mktemp("whole") / "run"
    subprocess.run(command(discs, out, tiny), check=True, capture_output=True)
    return out


def wait_for(path: Path, seconds: float = 60) -> None:
    until = time.monotonic() + seconds
    while not path.exists():
        assert time.monotonic() < until, f"{path} did not appear"
        time.sleep(0.02)


def steps_logged(out: Path) -> int:
    return max((e.get("step", 0) for e in read_log(out / "log.jsonl")), default=0)


def test_the_run_folder_is_complete(whole: Path, discs: Path) -> None:
    assert {p.name for p in whole.iterdir()} == {
        "config.yaml",
        "data.json",
        "request.json",
        "log.jsonl",
        "checkpoints",
        "model",
        "scores.json",
        "report.html",
    }
    scores = json.loads((whole / "scores.json").read_text())
    assert scores["images"] == 4
    assert scores["split"] == "val"
    assert (scores["engine"]["name"], scores["engine"]["precision"]) == ("torch", "fp32")
    assert [c["name"] for c in scores["classes"]] == ["background", "disc"]
    # Validation and the saved model have the same score.
    best = max(e["miou"] for e in read_log(whole / "log.jsonl") if e["event"] == "validation")
    assert scores["miou"] == pytest.approx(best, abs=1e-12)
    assert pixelwise.evaluate(whole, discs, split="val").scores.miou.value == pytest.approx(best, abs=1e-12)


def test_every_derived_value_has_a_reason(whole: Path) -> None:
    text = (whole / "config.yaml").read_text()
    for key in ("mean", "std", "up", "class_weights", "learning_rate", "ema", "flip_vertical", "tile"):
        line = next(line for line in text.splitlines() if line.startswith(f"  {key}:"))
        assert "  # " in line, line
    left = [line.strip() for line in text.split("\nmodel:")[1].splitlines() if "null" in line]
    # For networks of other libraries, or null means "never", "all" or "detect".
    loss, end = ["ohem: null", "cldice_classes: null"], ["masks: null", "surface_tolerance: null", "rules: null"]
    of_fpn = [f"{key}: null" for key in ("encoder", "width", "fine", "norms")]
    of_videos = [f"{key}: null" for key in ("start", "stop", "smoothing", "video_masks", "regions")]
    assert left == [
        "config: null",
        "weights_origin: null",
        *of_fpn,
        "spacing: null",
        "unfreeze: null",
        "validation_images: null",
        *loss,
        *of_videos,
        *end,
    ]


def test_the_same_seed_gives_the_same_weights_with_any_number_of_workers(
    whole: Path, discs: Path, tiny: tuple[str, ...], tmp_path: Path
) -> None:
    subprocess.run(command(discs, tmp_path / "run", tiny, workers=2), check=True, capture_output=True)
    assert_same_weights(whole, tmp_path / "run")


@pytest.mark.parametrize("workers", [pytest.param(0, marks=pytest.mark.slow), 2])
def test_a_killed_run_resumes_bit_for_bit(
    whole: Path, discs: Path, tiny: tuple[str, ...], tmp_path: Path, workers: int
) -> None:
    out = tmp_path / "run"
    process = subprocess.Popen(command(discs, out, tiny, workers=workers), stderr=subprocess.DEVNULL)
    # The first validation writes the first checkpoint; the run is killed some steps later.
    wait_for(out / "model" / "model.json")
    seen = steps_logged(out)
    while process.poll() is None and steps_logged(out) < min(seen + 3, STEPS):
        time.sleep(0.005)
    process.kill()
    process.wait()
    assert not (out / "scores.json").exists(), "the run was killed too late for this test"
    again = subprocess.run(command(discs, out, tiny, workers=workers), check=True, capture_output=True, text=True)
    assert "resuming at step" in again.stderr
    assert_same_weights(whole, out)


@pytest.mark.parametrize("number", [signal.SIGINT, pytest.param(signal.SIGTERM, marks=pytest.mark.slow)])
def test_an_interrupted_run_exits_with_130_and_resumes_bit_for_bit(
    whole: Path, discs: Path, tiny: tuple[str, ...], tmp_path: Path, number: signal.Signals
) -> None:
    out = tmp_path / "run"
    process = subprocess.Popen(command(discs, out, tiny), stderr=subprocess.PIPE, text=True)
    wait_for(out / "log.jsonl")
    while process.poll() is None and steps_logged(out) < 3:
        time.sleep(0.005)
    os.kill(process.pid, number)
    began = time.monotonic()
    _, errors = process.communicate(timeout=30)
    assert time.monotonic() - began < 5
    assert process.returncode == 130, errors
    assert ": interrupted; checkpoint saved. Run the same command again to resume." in errors
    assert checkpoint.checkpoints(out / "checkpoints")
    subprocess.run(command(discs, out, tiny), check=True, capture_output=True)
    assert_same_weights(whole, out)


def test_an_unfinished_run_is_resumed_even_with_overwrite(
    whole: Path, discs: Path, tiny: tuple[str, ...], tmp_path: Path
) -> None:
    """The error message asks to repeat the command, which may contain --overwrite."""
    again = [*command(discs, tmp_path / "run", tiny), "--overwrite"]
    process = subprocess.Popen(again, stderr=subprocess.DEVNULL)
    wait_for(tmp_path / "run" / "model" / "model.json")
    process.kill()
    process.wait()
    assert not (tmp_path / "run" / "scores.json").exists(), "the run was killed too late for this test"
    done = subprocess.run(again, check=True, capture_output=True, text=True)
    assert "resuming at step" in done.stderr
    assert_same_weights(whole, tmp_path / "run")
    # A finished run is replaced.
    done = subprocess.run(again, check=True, capture_output=True, text=True)
    assert "going on" not in done.stderr
    assert_same_weights(whole, tmp_path / "run")


@pytest.mark.parametrize("left", [".config.yaml.tmp", ".data.json.tmp"])
def test_a_run_killed_while_writing_its_plan_starts_again(
    whole: Path, discs: Path, tiny: tuple[str, ...], tmp_path: Path, left: str
) -> None:
    out = tmp_path / "run"
    out.mkdir()
    (out / "request.json").write_bytes((whole / "request.json").read_bytes())
    (out / left).write_text("half")
    run = pixelwise.train(discs, out=out, steps=2, overrides=tiny)
    assert run.scores["images"] == 4
    assert not (out / left).exists()


def test_a_folder_with_another_configuration_is_no_run(discs: Path, tiny: tuple[str, ...], tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text(f"data: {{root: {discs}}}\n")
    for overwrite in (False, True):
        with pytest.raises(OutputExistsError):
            pixelwise.train(tmp_path / "config.yaml", out=tmp_path, steps=2, overrides=tiny, overwrite=overwrite)
    assert (tmp_path / "config.yaml").read_text().startswith("data:")


def test_a_changed_recipe_is_another_request(discs: Path, tiny: tuple[str, ...], tmp_path: Path) -> None:
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(f"data: {{root: {discs}}}\ntrain: {{learning_rate: 0.002}}\n")
    out = _stopped(recipe, tiny, tmp_path)
    recipe.write_text(f"data: {{root: {discs}}}\ntrain: {{learning_rate: 0.001}}\n")
    with pytest.raises(
        OutputExistsError, match=r"expected an unfinished run with train\.learning_rate = 0\.001, found one with 0\.002"
    ):
        pixelwise.train(recipe, out=out, steps=9, overrides=tiny)


def test_a_finished_run_is_not_overwritten(whole: Path, discs: Path, tiny: tuple[str, ...]) -> None:
    with pytest.raises(
        OutputExistsError, match=r"expected no finished run, found one\. Choose another --out, or add --overwrite"
    ):
        pixelwise.train(discs, out=whole, steps=STEPS, overrides=tiny)


def test_another_request_does_not_resume_a_run(discs: Path, tiny: tuple[str, ...], tmp_path: Path) -> None:
    out = _stopped(discs, tiny, tmp_path)
    with pytest.raises(OutputExistsError, match="expected an unfinished run with steps = 7, found one with 9"):
        pixelwise.train(discs, out=out, steps=7, overrides=tiny)


def test_another_number_of_epochs_does_not_resume_a_run(discs: Path, tiny: tuple[str, ...], tmp_path: Path) -> None:
    """The learning rate falls over the given epochs; with more of them it would jump up again."""

    out = _stopped(discs, tiny, tmp_path, at=7, epochs=3)
    with pytest.raises(OutputExistsError, match="expected an unfinished run with epochs = 5, found one with 3"):
        pixelwise.train(discs, out=out, epochs=5, overrides=tiny)
    run = pixelwise.train(discs, out=out, epochs=3, overrides=tiny)
    assert any(event["event"] == "resume" for event in read_log(run.folder / "log.jsonl"))
    assert steps_logged(run.folder) == 9


@pytest.mark.parametrize(("split", "name"), [("train", "training"), ("val", "validation")])
def test_a_run_with_changed_data_is_not_resumed(
    discs: Path, tiny: tuple[str, ...], tmp_path: Path, split: str, name: str
) -> None:
    import shutil

    data = tmp_path / "data"
    shutil.copytree(discs, data)
    out = _stopped(data, tiny, tmp_path)
    first, other = sorted((data / split / "masks").iterdir())[:2]
    shutil.copy(other, first)
    with pytest.raises(DataError, match=f"expected the {name} split as it was when the run began, found other files"):
        pixelwise.train(data, out=out, steps=9, overrides=tiny)


@pytest.mark.parametrize("what", ["data", "run", "both", "description"])
def test_a_run_is_resumed_after_moving_data_or_run(
    discs: Path, tiny: tuple[str, ...], tmp_path: Path, what: str
) -> None:
    old, new = tmp_path / "old", tmp_path / "new" / "place"
    shutil.copytree(discs, old / "data")
    (old / "recipe.yaml").write_text("data: {root: data}\n")
    source = "recipe.yaml" if what == "description" else "data"
    out = _stopped(old / source, tiny, tmp_path, at=7)
    new.parent.mkdir()
    if what != "run":
        old.rename(new)
    if what in ("run", "both"):
        out = out.rename(tmp_path / "renamed")
    place = old if what == "run" else new
    run = pixelwise.train(place / source, out=out, steps=9, overrides=tiny)
    assert any(event["event"] == "resume" for event in read_log(run.folder / "log.jsonl"))
    assert steps_logged(run.folder) == 9
    config = load_config(run.folder / "config.yaml")
    assert config.data.root == str(place / "data")
    assert (run.folder / "config.yaml").read_text().count("# ") > 20  # the reasons are kept
    pixelwise.evaluate(run.folder, run.folder / "config.yaml", split="val")


def test_other_data_do_not_resume_a_run_and_replace_it_only_with_overwrite(
    discs: Path, tiny: tuple[str, ...], tmp_path: Path
) -> None:
    other = tmp_path / "other"
    shutil.copytree(discs, other)
    first, second = sorted((other / "train" / "masks").iterdir())[:2]
    shutil.copy(second, first)
    out = _stopped(discs, tiny, tmp_path)
    before = {path.name: path.read_bytes() for path in out.iterdir() if path.is_file()}
    with pytest.raises(
        OutputExistsError, match=r"expected an unfinished run with data\.root = '.*other', found one with"
    ):
        pixelwise.train(other, out=out, steps=9, overrides=tiny)
    assert {path.name: path.read_bytes() for path in out.iterdir() if path.is_file()} == before
    run = pixelwise.train(other, out=out, steps=9, overrides=tiny, overwrite=True)
    assert not any(event["event"] == "resume" for event in read_log(run.folder / "log.jsonl"))


def test_a_labels_file_may_be_moved_but_not_changed(discs: Path, tiny: tuple[str, ...], tmp_path: Path) -> None:
    labels = yaml.safe_load((discs / "labels.yaml").read_text())
    for name, content in (
        ("a.yaml", labels),
        ("b.yaml", labels),
        ("c.yaml", labels | {"names": ["x", *labels["names"][1:]]}),
    ):
        (tmp_path / name).write_text(yaml.safe_dump(content))
    setting = "data.labels={}".format
    out = _stopped(discs, (*tiny, setting(tmp_path / "a.yaml")), tmp_path, at=7)
    with pytest.raises(OutputExistsError, match=r"an unfinished run with data\.labels\.names = \['x'"):
        pixelwise.train(discs, out=out, steps=9, overrides=(*tiny, setting(tmp_path / "c.yaml")))
    run = pixelwise.train(discs, out=out, steps=9, overrides=(*tiny, setting(tmp_path / "b.yaml")))
    assert any(event["event"] == "resume" for event in read_log(run.folder / "log.jsonl"))


def _stopped(data: Path, tiny: tuple[str, ...], tmp_path: Path, at: int = 5, **length: int) -> Path:
    """Return a run, by default of 9 steps, that was stopped at step `at`."""

    def stop(event: dict) -> None:
        if event["event"] == "step" and event["step"] == at:
            raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        pixelwise.train(data, out=tmp_path / "run", overrides=tiny, listener=stop, **(length or {"steps": 9}))
    return tmp_path / "run"


def test_a_step_that_is_not_finite_is_skipped_and_logged(
    discs: Path, tiny: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, calls = loop.gradients, []

    def sometimes_nan(*args: object) -> torch.Tensor:
        calls.append(None)
        value = real(*args)
        return torch.full_like(value, torch.nan) if len(calls) in (3, 4) else value

    monkeypatch.setattr(loop, "gradients", sometimes_nan)
    run = pixelwise.train(discs, out=tmp_path / "run", steps=8, overrides=tiny)
    skipped = [e for e in read_log(run.folder / "log.jsonl") if e["event"] == "skipped"]
    assert [e["step"] for e in skipped] == [3, 4]
    assert skipped[0]["loss"] == "nan"
    assert len(skipped[0]["samples"]) == 4
    assert all(torch.isfinite(t).all() for t in weights(run.folder).values())


def test_a_skipped_step_does_not_change_the_norms(
    discs: Path, tiny: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Infinite values change the running statistics of batch norm before the loss is known."""
    real, calls = loop.gradients, []

    def poisoned(model: object, loss: object, group: list, train: object) -> float:
        calls.append(None)
        if len(calls) == 2:
            group[0].images[0] = float("inf")
        return real(model, loss, group, train)

    monkeypatch.setattr(loop, "gradients", poisoned)
    run = pixelwise.train(discs, out=tmp_path / "run", steps=4, overrides=tiny)
    assert [e["step"] for e in read_log(run.folder / "log.jsonl") if e["event"] == "skipped"] == [2]
    assert all(torch.isfinite(t).all() for t in weights(run.folder).values())


def test_three_skipped_steps_in_a_row_end_the_run(
    discs: Path, tiny: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop, "gradients", lambda *_: torch.tensor(torch.inf, dtype=torch.float64))
    with pytest.raises(
        DivergedError, match=r"NaN or infinity in 3 steps in a row, last on .*Check these images, or lower"
    ):
        pixelwise.train(discs, out=tmp_path / "run", steps=8, overrides=tiny)
    assert not checkpoint.checkpoints(tmp_path / "run" / "checkpoints")


def test_steps_skipped_in_a_row_are_counted_across_a_stop(
    discs: Path, tiny: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two before an interruption and one after it are three."""

    def stop(event: dict) -> None:
        if event["event"] == "skipped" and event["step"] == 2:
            os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(loop, "gradients", lambda *_: torch.tensor(torch.inf, dtype=torch.float64))
    with pytest.raises(Interrupted):
        pixelwise.train(discs, out=tmp_path / "run", steps=8, overrides=tiny, listener=stop)
    with pytest.raises(DivergedError, match="3 steps in a row"):
        pixelwise.train(discs, out=tmp_path / "run", steps=8, overrides=tiny)
    skipped = [e["step"] for e in read_log(tmp_path / "run" / "log.jsonl") if e["event"] == "skipped"]
    assert skipped == [1, 2, 3]


def test_a_full_disk_keeps_the_previous_checkpoint(
    discs: Path, tiny: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, calls = checkpoint.save_file, []

    def full(tensors: dict, path: Path, metadata: dict) -> None:
        calls.append(None)
        if len(calls) == 2:
            Path(path).write_bytes(b"half")
            raise OSError(28, "No space left on device")
        real(tensors, path, metadata)

    monkeypatch.setattr(checkpoint, "save_file", full)
    with pytest.raises(
        ResourceError,
        match=r"expected a writable disk with free space, found No space left on device\. Free disk space",
    ):
        pixelwise.train(discs, out=tmp_path / "run", steps=8, overrides=tiny)
    kept = checkpoint.checkpoints(tmp_path / "run" / "checkpoints")
    assert len(kept) == 1
    assert load_file(kept[0])
    assert list((tmp_path / "run" / "checkpoints").iterdir()) == kept, "no half file is left"
    monkeypatch.undo()
    run = pixelwise.train(discs, out=tmp_path / "run", steps=8, overrides=tiny)
    assert run.scores["images"] == 4


def test_accumulated_batches_equal_one_large_batch(discs: Path) -> None:
    """With class weights and unequal numbers of ignored pixels, the mean of means would differ."""
    from pixelwise.batch import Batch
    from pixelwise.config import Config, LossConfig, draft, replace
    from pixelwise.losses import combined_loss
    from pixelwise.models.unet import UNet

    torch.manual_seed(0)
    images, masks = torch.rand(4, 3, 16, 16) * 255, torch.randint(0, 2, (4, 16, 16))
    masks[0, :12] = 255
    loss = combined_loss(
        LossConfig(cross_entropy=1, dice=0), num_classes=2, ignore_index=255, class_weights=torch.tensor([1.0, 7.0])
    )
    model = UNet(3, 2, features=(4, 8)).eval()  # eval: batch norm depends on the batches
    gradients = []
    for sizes in ([4], [1, 3]):
        model.zero_grad()
        parts = zip(images.split(sizes), masks.split(sizes), strict=True)
        group = [Batch(i, m, ()) for i, m in parts]
        value = loop.gradients(model, loss, group, draft(replace(Config(), train={"accumulate": len(sizes)})).train)
        gradients.append((value, [p.grad.clone() for p in model.parameters()]))
    torch.testing.assert_close(gradients[0][0], gradients[1][0], rtol=1e-5, atol=0)
    for one, two in zip(gradients[0][1], gradients[1][1], strict=True):
        torch.testing.assert_close(one, two, rtol=1e-4, atol=1e-6)


def test_a_truncated_image_is_an_error_or_skipped_and_counted(
    discs: Path, tiny: tuple[str, ...], tmp_path: Path
) -> None:
    import shutil

    data = tmp_path / "data"
    shutil.copytree(discs, data)
    broken = sorted((data / "train" / "images").iterdir())[3]
    broken.write_bytes(broken.read_bytes()[:-200])
    with pytest.raises(DataError, match=broken.name):
        pixelwise.train(data, out=tmp_path / "run", steps=2, overrides=tiny)
    run = pixelwise.train(data, out=tmp_path / "other", steps=2, overrides=tiny, skip_bad=True)
    facts = json.loads((run.folder / "data.json").read_text())
    assert facts["splits"]["skipped"] == 1
    assert broken.name in facts["skipped"][0]


def test_only_one_length_can_be_given(discs: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="expected one of time_limit, steps, epochs, found steps and epochs"):
        pixelwise.train(discs, out=tmp_path / "run", steps=3, epochs=1)


@pytest.mark.parametrize("given", [{"steps": 3}, {"epochs": 1}, {"time_limit": "5s"}])
@pytest.mark.parametrize("override", ["train.steps=9", "train.steps = 9"])
def test_a_length_among_the_overrides_counts(discs: Path, tmp_path: Path, given: dict, override: str) -> None:
    option = "--" + next(iter(given)).replace("_", "-")
    with pytest.raises(
        UsageError, match=f"expected one of .*, found {option} and --set {override}. Choose one of them"
    ):
        pixelwise.train(discs, out=tmp_path / "run", overrides=(override,), **given)


def test_epochs_become_steps(discs: Path, tiny: tuple[str, ...], tmp_path: Path) -> None:
    run = pixelwise.train(discs, out=tmp_path / "run", epochs=2, overrides=tiny)
    text = (run.folder / "config.yaml").read_text()
    assert "steps: 6  # 2 epochs of 12 images, 4 per step" in text


def test_a_time_limit_becomes_steps(discs: Path, tmp_path: Path) -> None:
    began = time.monotonic()
    run = pixelwise.train(discs, out=tmp_path / "run", time_limit="15s", overrides=("model.features=[4,8]",))
    assert time.monotonic() - began < 60, "far beyond the limit"
    text = (run.folder / "config.yaml").read_text()
    steps = next(line for line in text.splitlines() if line.startswith("  steps:"))
    assert "# 15 s limit, measured" in steps
    assert int(steps.split()[1]) >= 1


def test_a_run_within_a_time_limit_is_a_function_of_its_configuration(
    discs: Path, tiny: tuple[str, ...], tmp_path: Path
) -> None:
    """After a kill, a resume and several recounts, config.yaml alone gives the same weights."""
    timed, again = tmp_path / "timed", tmp_path / "again"
    began = command(discs, timed, tiny)
    place = began.index("--steps")
    lean = [f"evaluate.{text}" for text in ("report=false", "temperature=false", "metrics=[]")]
    # Long enough for a step on a busy machine.
    began[place : place + 2] = ["--time-limit", "12s", *(part for text in lean for part in ("--set", text))]
    process = subprocess.Popen(began, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    wait_for(timed / "checkpoints")
    process.kill()
    process.wait()
    subprocess.run(began, check=True, capture_output=True)
    config = load_config(timed / "config.yaml").train
    assert config.recounts
    assert steps_logged(timed) == last_step(config)
    assert "measured during the run" in (timed / "config.yaml").read_text()
    pixelwise.train(timed / "config.yaml", out=again)
    assert_same_weights(timed, again)


def test_the_estimated_end_grows_if_validations_are_slower_than_measured(
    discs: Path, tiny: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The end predicts the same images as a validation, so a slower machine shows in the first validation."""
    planned: list[tuple[float, float]] = []
    fitting_steps, score = budget.fitting_steps, assembly.quick_miou

    def recorded(per_step: float, per_validation: float, validations: int, left: float, final: float) -> int:
        planned.append((per_validation, final))
        return min(fitting_steps(per_step, per_validation, validations, left, final), 60)

    def slow(*args: Any, stop: Any = None) -> Any:
        if stop is not None:  # a validation of the run, not its measurement
            time.sleep(0.5)
        return score(*args, stop=stop)

    monkeypatch.setattr(budget, "fitting_steps", recorded)
    monkeypatch.setattr(assembly, "quick_miou", slow)
    pixelwise.train(discs, out=tmp_path / "run", time_limit=60, overrides=(*tiny, "evaluate.report=false"))
    (before, final), (after, grown) = planned[1], planned[-1]
    assert after > 0.5 > 2 * before
    assert grown > final * 0.4 / before


def test_a_given_length_overrides_the_configuration(discs: Path, tiny: tuple[str, ...], tmp_path: Path) -> None:
    file = tmp_path / "other.yaml"
    file.write_text(f"data: {{root: {discs}}}\ntrain: {{steps: 100, recounts: [[3, 200]]}}\n")
    assert steps_logged(pixelwise.train(file, out=tmp_path / "a", steps=4, overrides=tiny).folder) == 4
    assert steps_logged(pixelwise.train(file, out=tmp_path / "b", epochs=1, overrides=tiny).folder) == 3
    own = (*tiny, "train.steps=5")
    assert steps_logged(pixelwise.train(file, out=tmp_path / "c", overrides=own).folder) == 5


def test_a_new_run_starts_with_the_class_frequencies(discs: Path, tiny: tuple[str, ...], tmp_path: Path) -> None:
    still = ("train.learning_rate=1.0e-12", "train.ema=0", "loss.class_weights=none")
    run = pixelwise.train(discs, out=tmp_path / "run", steps=1, overrides=(*tiny, *still))
    counts = json.loads((run.folder / "data.json").read_text())["fingerprint"]["pixel_counts"]
    bias = load_file(run.folder / "model" / "model.safetensors")["head.bias"].view(2, -1)
    expected = (torch.tensor(counts) / sum(counts)).log()
    torch.testing.assert_close(bias, expected[:, None].expand_as(bias), atol=1e-5, rtol=0)


@pytest.mark.slow
def test_steps_are_measured_with_augmentation(
    discs: Path, tiny: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    measured = []

    def step_seconds(_: object, components: Components, __: int, ___: object) -> float:
        measured.append(components.crops.transform.augment)
        return 0.5

    monkeypatch.setattr(budget, "step_seconds", step_seconds)
    run = pixelwise.train(discs, out=tmp_path / "run", time_limit=20, overrides=tiny)
    trained = load_config(run.folder / "config.yaml").augment
    assert measured[0].flip_horizontal == 0.0
    assert (measured[-1].flip_horizontal, measured[-1].flip_vertical) == (
        trained.flip_horizontal,
        trained.flip_vertical,
    )
    assert trained.flip_horizontal == 0.5
