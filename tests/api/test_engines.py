"""The engines behind `load`, `predict` and `evaluate`: what is recorded, what a resumed job keeps, and what is not imported."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import pixelwise
from pixelwise import storage
from pixelwise.api import loading
from pixelwise.errors import ConfigError, Interrupted, ModelFileError, OutputExistsError, UsageError
from pixelwise.inference import engines
from pixelwise.inference.conversion import to_onnx
from pixelwise.inference.engines import Choice, Engine
from pixelwise.labels import Labels
from pixelwise.models.card import ModelCard
from pixelwise.models.unet import UNet
from pixelwise.models.weights import load_model, save_model
from pixelwise.types import ModelSpec

LABELS = Labels(("background", "disc"))
OPENVINO = Choice(Engine("openvino"), "2.0 times faster than torch fp32 on the first images; 100.00 % equal pixels")


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model folder."""
    torch.manual_seed(0)
    model = UNet(3, 2, features=(4, 8), mean=(100.0,) * 3, std=(60.0,) * 3)
    arguments = {"in_channels": 3, "num_classes": 2, "features": [4, 8]}
    folder = tmp_path_factory.mktemp("trained") / "model"
    save_model(folder, model.eval(), ModelCard({"name": "unet", "arguments": arguments}, ModelSpec(LABELS, 3)))
    return folder


@pytest.fixture(scope="module")
def exported(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same model, exported."""
    file = tmp_path_factory.mktemp("exported") / "model.onnx"
    file.write_bytes(to_onnx(*load_model(trained)))
    return file


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, user_cache: Path) -> Path:
    """A cache folder of its own, with the converted network of other tests."""
    folder = tmp_path / "cache" / "pixelwise" / "engines"
    folder.mkdir(parents=True)
    for file in (user_cache / "engines").glob("*.onnx"):
        (folder / file.name).hardlink_to(file)
    monkeypatch.setattr(storage, "user_cache_path", lambda name: tmp_path / "cache" / name)
    return folder


@pytest.fixture(scope="module", autouse=True)
def converted(trained: Path, user_cache: Path) -> None:
    """Convert the network once for all tests."""
    pixelwise.load(trained).engines.open(Engine("openvino"))


@pytest.fixture
def images(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    for k in range(4):
        (tmp_path / "images").mkdir(exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (50, 60, 3), np.uint8)).save(tmp_path / "images" / f"{k}.png")
    return tmp_path / "images"


def write_choice(model: Path, choice: Choice = OPENVINO, shape: tuple[int, int] = (50, 60)) -> None:
    """Write a choice to the cache, as if it had been measured."""
    file = pixelwise.load(model).engines._choice_file(shape)
    assert file is not None
    file.write_text(json.dumps(asdict(choice)))


def masks(folder: Path) -> list[Any]:
    return [np.asarray(Image.open(file)) for file in sorted((folder / "masks").iterdir())]


def test_a_choice_from_the_cache_is_used_and_recorded(trained: Path, cache: Path, images: Path, tmp_path: Path) -> None:
    before = pixelwise.predict(trained, images, out=tmp_path / "before")
    assert before.engine is not None
    assert (before.engine["name"], before.engine["precision"]) == ("torch", "fp32")
    assert before.engine["why"] == "a small job: not measured"
    write_choice(trained)
    pixelwise.predict(trained, images, out=tmp_path / "after")
    facts = json.loads((tmp_path / "after" / "predictions.json").read_text())["engine"]
    assert facts.pop("version")
    assert facts.pop("processor")
    assert facts == {"name": "openvino", "precision": "fp32", "why": OPENVINO.why}
    for one, other in zip(masks(tmp_path / "before"), masks(tmp_path / "after"), strict=True):
        assert (one == other).mean() > 0.999
    assert sorted(path.name for path in trained.iterdir()) == ["model.json", "model.safetensors"]


def test_single_images_use_a_choice_and_measure_nothing(trained: Path, cache: Path, images: Path) -> None:
    def engine(model: loading.Model) -> str:
        return model.for_shape((50, 60)).predictor.backend.engine  # type: ignore[attr-defined,no-any-return]

    image = np.asarray(Image.open(images / "0.png"))
    model = pixelwise.load(trained)
    expected = model.predict(image.transpose(2, 0, 1)).mask
    assert engine(model) == "torch"
    write_choice(trained)
    model = pixelwise.load(trained)
    assert engine(model) == "openvino"
    assert model.for_shape((500, 500)).engine is None
    for source in (image.transpose(2, 0, 1), images / "0.png"):
        assert (model.predict(source).mask == expected).mean() > 0.999
    assert engine(pixelwise.load(trained, backend="torch", precision="fp32")) == "torch"


PROGRAM = """
import socket, sys
attempts = []

def refuse(*arguments, **options):
    attempts.append(arguments)
    raise OSError("no network")

socket.socket.connect = socket.socket.connect_ex = socket.getaddrinfo = socket.create_connection = refuse
sys.argv = ["pixelwise", "predict", {model!r}, {images!r}, "--out", {out!r}]
from pixelwise import cli
try:
    cli.main()
except SystemExit as end:
    assert not end.code, end.code
loaded = {{name.partition(".")[0] for name in sys.modules}}
assert not attempts
assert "openvino" in loaded
assert not loaded & {{"torch", "torchvision", "onnx", "onnxruntime", "timm", "openvino_telemetry"}}, sorted(loaded)
"""


@pytest.mark.parametrize("kind", ["model folder", "exported file"])
def test_a_prediction_with_openvino_needs_neither_torch_nor_a_network(
    kind: str, trained: Path, exported: Path, cache: Path, images: Path, tmp_path: Path
) -> None:
    write_choice(trained)
    model = trained if kind == "model folder" else exported
    program = PROGRAM.format(model=str(model), images=str(images), out=str(tmp_path / "out"))
    (tmp_path / "home").mkdir()
    environment = os.environ | {"XDG_CACHE_HOME": str(cache.parents[1]), "HOME": str(tmp_path / "home")}
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    why = OPENVINO.why if kind == "model folder" else "a small job: not measured"
    assert f"engine: openvino, fp32 ({why})" in done.stderr
    assert len(masks(tmp_path / "out")) == 4
    assert not list((tmp_path / "home").iterdir())  # where the telemetry of OpenVINO keeps its identifier


SIGNAL = """
import os, signal, sys
from pathlib import Path
from pixelwise.inference.backend import open_backend

signal.signal(signal.SIGINT, signal.default_int_handler)
opened = [open_backend(Path(sys.argv[1]), "openvino") for _ in range(3)]
while opened:
    del opened[0]
try:
    os.kill(os.getpid(), signal.SIGINT)
    for _ in range(1000):
        pass
except KeyboardInterrupt:
    sys.exit(42)
"""


def test_ctrl_c_interrupts_after_engines_were_closed(exported: Path) -> None:
    assert subprocess.run([sys.executable, "-c", SIGNAL, str(exported)], check=False).returncode == 42


def interrupted(model: Path, images: Path, out: Path) -> None:
    def stop(done: int, total: int, name: str) -> None:
        raise KeyboardInterrupt

    with pytest.raises(Interrupted):
        pixelwise.predict(model, images, out=out, progress=stop)
    assert (out / "journal.jsonl").is_file()


def test_a_resumed_job_keeps_its_engine(trained: Path, cache: Path, images: Path, tmp_path: Path) -> None:
    interrupted(trained, images, tmp_path / "out")
    write_choice(trained)  # which a new job would use
    result = pixelwise.predict(trained, images, out=tmp_path / "out")
    assert result.engine is not None
    assert (result.engine["name"], len(result.images)) == ("torch", 4)


def test_a_resumed_job_whose_engine_is_gone_uses_another_and_says_so(
    trained: Path, cache: Path, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_choice(trained)
    interrupted(trained, images, tmp_path / "out")
    monkeypatch.setitem(sys.modules, "openvino", None)
    result = pixelwise.predict(trained, images, out=tmp_path / "out")
    assert result.engine is not None
    assert result.engine["name"] == "torch"
    assert result.engine["why"].startswith("openvino fp32, with which the folder was begun, is not available; ")


def test_another_engine_does_not_resume_a_folder(trained: Path, cache: Path, images: Path, tmp_path: Path) -> None:
    interrupted(trained, images, tmp_path / "out")
    with pytest.raises(OutputExistsError, match="with the same backend"):
        pixelwise.predict(pixelwise.load(trained, backend="onnxruntime"), images, out=tmp_path / "out")


def test_a_model_that_cannot_be_opened_does_not_remove_an_earlier_result(
    trained: Path, images: Path, tmp_path: Path
) -> None:
    pixelwise.predict(trained, images, out=tmp_path / "out")
    incomplete = tmp_path / "incomplete"
    incomplete.mkdir()
    (incomplete / "model.json").write_bytes((trained / "model.json").read_bytes())
    with pytest.raises(ModelFileError):
        pixelwise.predict(incomplete, images, out=tmp_path / "out", overwrite=True)
    assert len(masks(tmp_path / "out")) == 4


def test_a_large_job_is_measured(
    trained: Path, cache: Path, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engines, "_PAYS", 0)
    monkeypatch.setattr(engines, "_FEW", 0)
    shown: list[str] = []
    result = pixelwise.predict(
        trained, images, out=tmp_path / "out", progress=lambda done, total, name: shown.append(name)
    )
    assert result.engine is not None
    assert result.engine["shape"] == [50, 60]
    assert shown[0] == "choosing the engine"
    (file,) = cache.glob("*.json")
    trials = json.loads(file.read_text())["trials"]
    assert trials[0]["engine"]["name"] == "torch"
    assert any(trial["seconds"] and trial["engine"]["name"] != "torch" for trial in trials)
    # The choice is used without another measurement.
    assert pixelwise.load(trained).for_shape((50, 60)).engine is not None


def test_an_exported_file_is_a_model(exported: Path, trained: Path, images: Path, tmp_path: Path) -> None:
    import openvino

    image = np.asarray(Image.open(images / "0.png")).transpose(2, 0, 1)
    expected = pixelwise.load(trained).predict(image).mask
    (tmp_path / "ir").mkdir()
    openvino.save_model(openvino.Core().read_model(str(exported)), tmp_path / "ir" / "model.xml", False)
    for place in (exported, exported.parent, tmp_path / "ir" / "model.xml", tmp_path / "ir"):
        model = pixelwise.load(place)
        assert model.labels == LABELS
        assert {engine.name for engine in model.engines.candidates} <= {"openvino", "onnxruntime"}
        assert (model.predict(image).mask == expected).mean() > 0.999
    onnx = pixelwise.load(exported, backend="onnxruntime")
    assert (onnx.predict(image).mask == expected).mean() > 0.999


ALONE = """
import sys
sys.modules["openvino"] = None
import numpy as np
import pixelwise
model = pixelwise.load(sys.argv[1])
assert [str(engine) for engine in model.engines.candidates] == ["onnxruntime fp32"]
assert model.predict(np.zeros((3, 20, 30), np.uint8)).mask.shape == (20, 30)
sys.modules["onnxruntime"] = None
try:
    pixelwise.load(sys.argv[1])
except pixelwise.PixelwiseError as error:
    assert "pip install 'pixelwise[export]'" in str(error), error
    sys.exit(42)
"""


def test_one_library_is_enough_for_an_exported_file(exported: Path) -> None:
    assert subprocess.run([sys.executable, "-c", ALONE, str(exported)], check=False).returncode == 42


def test_an_exported_file_has_no_torch(exported: Path) -> None:
    with pytest.raises(ConfigError, match=r"--backend torch: expected a model folder, found model\.onnx"):
        pixelwise.load(exported, backend="torch")


def test_an_exported_file_beside_a_model_is_used_only_when_named(trained: Path, exported: Path, tmp_path: Path) -> None:
    for name in ("model.json", "model.safetensors"):
        (tmp_path / name).write_bytes((trained / name).read_bytes())
    (tmp_path / "old.onnx").write_bytes(exported.read_bytes())
    assert not pixelwise.load(tmp_path).engines.is_file
    assert pixelwise.load(tmp_path / "old.onnx").engines.is_file


def test_evaluate_says_which_engine_computed_the_scores(
    trained: Path, exported: Path, cache: Path, discs: Path, tmp_path: Path
) -> None:
    options: dict[str, Any] = {"split": "val", "metrics": ()}
    write_choice(trained, shape=(64, 64))
    chosen = pixelwise.evaluate(trained, discs, out=tmp_path / "chosen", **options)
    assert chosen.engine is not None
    plain = json.loads((tmp_path / "chosen" / "scores.json").read_text())
    assert plain["engine"] == dict(chosen.engine)
    assert (plain["engine"]["name"], plain["engine"]["precision"]) == ("openvino", "fp32")
    report = (tmp_path / "chosen" / "report.html").read_text()
    assert f"openvino, {plain['engine']['version']}, fp32, {OPENVINO.why}." in report
    torch_ = pixelwise.evaluate(trained, discs, backend="torch", precision="fp32", **options)
    assert torch_.engine is not None
    assert torch_.engine["name"] == "torch"
    of_file = pixelwise.evaluate(exported, discs, **options)
    for other in (torch_, of_file):
        np.testing.assert_allclose(other.scores.confusion, chosen.scores.confusion, atol=2)
    comparison = pixelwise.compare([trained, exported], data=discs, split="val")
    assert len(comparison.standings) == 2


def test_masks_have_no_engine(discs: Path) -> None:
    with pytest.raises(UsageError, match="expected the path of a model, found masks"):
        pixelwise.evaluate(discs / "val" / "masks", discs, split="val", backend="openvino")
    assert pixelwise.evaluate(discs / "val" / "masks", discs, split="val", metrics=()).engine is None


def test_the_command_line_takes_engine_and_precision(
    trained: Path, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from pixelwise import cli

    arguments = ["predict", str(trained), str(images), "--backend", "onnxruntime", "--precision", "fp32", "--json"]
    monkeypatch.setattr(sys, "argv", ["pixelwise", *arguments, "--out", str(tmp_path / "out")])
    with pytest.raises(SystemExit) as end:
        cli.main()
    assert end.value.code in (0, None)
    shown = capsys.readouterr()
    assert json.loads(shown.out)["engine"]["name"] == "onnxruntime"
    assert shown.err.endswith("engine: onnxruntime, fp32 (as requested)\n")
