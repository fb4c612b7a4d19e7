import errno
import hashlib
import json
import os
import pickle
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import safetensors.torch
import torch

from pixelwise.errors import ModelFileError, ResourceError
from pixelwise.labels import Labels
from pixelwise.models import weights
from pixelwise.models.card import ModelCard, read_card
from pixelwise.models.catalogue import build_model
from pixelwise.models.weights import load_model, save_model
from pixelwise.storage import write_atomic
from pixelwise.types import ModelSpec

ARGUMENTS = {"in_channels": 3, "num_classes": 2, "features": [4, 8], "up": "bilinear", "stem": 2}
SPEC = ModelSpec(
    Labels(("sky", "rue"), ids=(0, 7)),
    channels=3,
    dtype="uint16",
    typical_range=(3.0, 4000.0),
    fill=(1.0, 2.0, 3.0),
    stride=8,
    tile=(64, 96),
    overlap=0.3,
    temperature=1.5,
)
CARD = ModelCard(
    {"name": "unet", "arguments": ARGUMENTS},
    SPEC,
    data_hash="ab" * 32,
    scores={"miou": 0.5},
)
AGAIN = "Copy the model folder again, or train the model again."


@pytest.fixture
def model():
    torch.manual_seed(0)
    model = build_model("unet", **ARGUMENTS, mean=(1, 2, 3), std=(0.1, 0.2, 1 / 3))
    model.train()(torch.rand(2, 3, 32, 32))
    return model


@pytest.fixture
def folder(tmp_path, model):
    save_model(tmp_path / "model", model, CARD)
    return tmp_path / "model"


def edit(folder, **values):
    path = folder / "model.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def refused(folder):
    with pytest.raises(ModelFileError) as caught:
        load_model(folder)
    return str(caught.value)


def test_the_round_trip_is_bit_identical(folder, model):
    loaded, card = load_model(folder)
    before, after = model.state_dict(), loaded.state_dict()
    assert list(before) == list(after)
    assert all(torch.equal(before[name], after[name]) and before[name].dtype == after[name].dtype for name in before)
    assert not loaded.training
    assert all(parameter.requires_grad for parameter in loaded.parameters())
    images = torch.randint(0, 255, (1, 3, 37, 41))
    with torch.inference_mode():
        assert torch.equal(loaded(images), model.eval()(images))
    assert replace(card, mean=(), std=(), sha256="", pixelwise="") == CARD


def test_keys_of_newer_versions_are_ignored(folder):
    edit(folder, horizon={"left": 3})
    assert load_model(folder)[1] == read_card(folder)


def test_models_of_version_1_are_read(folder, model):
    """Before there was a spec: no stride, fill, range or dimensions, and the temperature stood under `calibration`."""
    plain = json.loads((folder / "model.json").read_text())
    later = ("dimensions", "typical_range", "fill", "stride", "logit_scale", "temperature", "task")
    old = {key: value for key, value in plain.items() if key not in later}
    old |= {"format_version": 1, "calibration": {"temperature": 1.25, "fitted_on": "val"}}
    (folder / "model.json").write_text(json.dumps(old))
    loaded, card = load_model(folder)
    assert torch.equal(loaded.head.bias, model.head.bias)
    assert (card.spec.stride, card.spec.logit_scale, card.spec.dimensions) == (model.stride, 1, 2)
    assert card.spec.temperature == 1.25
    assert card.spec.fill == (1, 2, 3)
    low, high = card.spec.typical_range
    assert low == pytest.approx(1 - 2.58 * 0.1)
    assert high == pytest.approx(3 + 2.58 / 3)


def test_the_card_is_read_without_torch(folder):
    code = (
        "import sys; from pathlib import Path; from pixelwise.models.card import read_card\n"
        f"assert read_card(Path({str(folder)!r})).spec.tile == (64, 96)\n"
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_models_of_before_there_was_clipping_are_read(folder, model):
    plain = json.loads((folder / "model.json").read_text())
    assert plain.pop("clip") is None
    (folder / "model.json").write_text(json.dumps(plain))
    loaded, card = load_model(folder)
    assert card.clip is None
    assert torch.equal(loaded.head.bias, model.head.bias)


@pytest.mark.parametrize("clip", [[[0, 1]], [[0, "x"], [0, 1], [0, 1]], [1, 2, 3], "none", [[2, 1], [0, 1], [0, 1]]])
def test_a_card_with_another_range_than_the_weights_is_refused(folder, clip):
    plain = json.loads((folder / "model.json").read_text())
    (folder / "model.json").write_text(json.dumps(plain | {"clip": clip}))
    with pytest.raises(ModelFileError):
        load_model(folder)


def test_a_second_save_writes_the_same_bytes(folder, tmp_path):
    loaded, card = load_model(folder)
    assert save_model(tmp_path / "again", loaded, card) == card
    for name in ("model.safetensors", "model.json"):
        assert (tmp_path / "again" / name).read_bytes() == (folder / name).read_bytes()


def test_the_folder_holds_two_files_that_tell_everything(folder):
    assert sorted(p.name for p in folder.iterdir()) == ["model.json", "model.safetensors"]
    plain = json.loads((folder / "model.json").read_text())
    assert plain["format_version"] == 2
    assert plain["architecture"] == {"name": "unet", "arguments": ARGUMENTS}
    assert plain["labels"]["names"] == ["sky", "rue"]
    assert plain["mean"] == [1, 2, 3]
    assert plain["std"] == pytest.approx([0.1, 0.2, 1 / 3])
    assert plain["license"] == "user"
    assert plain["sha256"] == hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()


def test_memory_layout_is_no_obstacle(tmp_path, model):
    save_model(tmp_path / "m", model.to(memory_format=torch.channels_last), CARD)
    loaded, _ = load_model(tmp_path / "m")
    assert all(torch.equal(a, b) for a, b in zip(loaded.parameters(), model.parameters(), strict=True))


def test_loading_draws_no_random_number(folder):
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    load_model(folder)
    assert torch.equal(torch.rand(1), expected)


def test_saving_again_replaces_and_leaves_nothing_beside(folder, model):
    with torch.no_grad():
        model.head.bias.add_(1)
    save_model(folder, model, CARD)
    assert torch.equal(load_model(folder)[0].head.bias, model.head.bias)
    assert [p.name for p in folder.parent.iterdir()] == ["model"]


def test_what_a_killed_save_left_is_no_obstacle(folder, model):
    """Killed between the two renames: the new one lies half ready, the old one under its waiting name."""
    (folder.parent / ".model.tmp").mkdir()
    (folder.parent / ".model.tmp" / "model.json").write_text("{")
    folder.rename(folder.parent / ".model.previous")
    assert torch.equal(load_model(folder)[0].head.bias, model.head.bias)
    save_model(folder, model, CARD)
    assert [p.name for p in folder.parent.iterdir()] == ["model"]


def test_the_current_folder_can_be_loaded(folder, monkeypatch):
    monkeypatch.chdir(folder)
    assert load_model(Path())[1].labels == CARD.labels


@pytest.mark.parametrize("name", ["model.json", "model.safetensors"])
def test_a_missing_file_is_named(folder, name):
    (folder / name).unlink()
    assert refused(folder) == (
        f"{folder}: expected a model folder with model.json and model.safetensors, found no {name}. "
        "Check the path, or copy the folder again."
    )


def test_a_missing_folder_is_named(tmp_path):
    assert refused(tmp_path / "m").startswith(f"{tmp_path / 'm'}: expected a model folder with model.json and ")
    assert "found nothing. Check the path" in refused(tmp_path / "m")


def test_altered_weights_are_refused(folder):
    path = folder / "model.safetensors"
    before = hashlib.sha256(path.read_bytes()).hexdigest()
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    after = hashlib.sha256(data).hexdigest()
    assert refused(folder) == (
        f"{path}: expected the weights that model.json was written for (sha256 {before[:12]}…), "
        f"found other weights (sha256 {after[:12]}…). {AGAIN}"
    )


def test_cut_weights_are_refused(folder):
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])
    assert "found other weights (sha256" in refused(folder)


def test_an_unknown_version_is_refused(folder):
    edit(folder, format_version=99)
    assert refused(folder) == (
        f"{folder / 'model.json'}: expected format_version 1 to 2, found 99. "
        "Install the version of pixelwise that wrote this model, or a newer one."
    )


def test_broken_json_is_refused(folder):
    (folder / "model.json").write_text('{"format_version": 1,')
    assert refused(folder).startswith(f"{folder / 'model.json'}: expected JSON, found ")
    (folder / "model.json").write_text("[1]")
    assert "found a list instead of an object." in refused(folder)


def test_odd_keys_and_values_are_refused(folder):
    plain = json.loads((folder / "model.json").read_text())
    del plain["channels"]
    (folder / "model.json").write_text(json.dumps(plain))
    assert "found no key `channels`." in refused(folder)
    edit(folder, channels="three")
    assert "expected a valid model card, found channels: 'three'." in refused(folder)
    for tile in ([512], ["512", "512"], [512, 0], [512, True]):
        edit(folder, channels=3, tile=tile)
        assert "expected a valid model card, found tile" in refused(folder)
    edit(folder, tile=None, labels={"names": []})
    assert "expected a valid model card, found labels:" in refused(folder)


def test_tensors_that_do_not_fit_are_refused(folder):
    edit(folder, architecture={"name": "unet", "arguments": ARGUMENTS | {"features": [4, 16]}})
    assert refused(folder) == (
        f"{folder / 'model.safetensors'}: expected tensor down.0.conv.0.weight (16, 4, 3, 3) float32, as in model.json, "
        f"found (8, 4, 3, 3) float32. {AGAIN}"
    )


def rewrite(folder, tensors):
    data = tensors if isinstance(tensors, bytes) else safetensors.torch.save(tensors)
    (folder / "model.safetensors").write_bytes(data)
    edit(folder, sha256=hashlib.sha256(data).hexdigest())


def test_missing_and_surplus_tensors_are_refused(folder):
    tensors = safetensors.torch.load((folder / "model.safetensors").read_bytes())
    bias = tensors.pop("head.bias")
    rewrite(folder, tensors)
    assert "expected tensor head.bias (8,) float32, as in model.json, found none." in refused(folder)
    rewrite(folder, tensors | {"head.bias": bias, "more": bias.clone()})
    assert "expected no tensor more, found (8,) float32." in refused(folder)


def test_a_pickle_under_the_right_name_is_never_run(folder, tmp_path):
    class Trap:
        def __reduce__(self):
            return Path.touch, (tmp_path / "sprung",)

    rewrite(folder, pickle.dumps(Trap()))
    assert refused(folder).startswith(f"{folder / 'model.safetensors'}: expected safetensors, found ")
    assert not (tmp_path / "sprung").exists()


@pytest.mark.parametrize(
    "architecture",
    [
        {"name": "vnet", "arguments": {}},
        {"name": "unet"},
        {"name": "unet", "arguments": {"feature": [4]}},
        {"name": "unet", "arguments": {"features": ["4"]}},
    ],
)
def test_an_architecture_nobody_knows_is_refused(folder, architecture):
    edit(folder, architecture=architecture)
    assert refused(folder).startswith(
        f"{folder / 'model.json'}: expected an architecture of this version of pixelwise, found "
    )


def test_a_card_that_disagrees_with_the_model_is_refused(folder):
    edit(folder, labels={"names": ["a", "b", "c"]})
    assert refused(folder) == f"{folder / 'model.json'}: expected 2 classes, found 3 classes. {AGAIN}"
    edit(folder, labels={"names": ["a", "b"]}, channels=4)
    assert refused(folder) == f"{folder / 'model.json'}: expected 3 bands, found 4 bands. {AGAIN}"


def full(*_):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_a_write_that_the_system_cuts_leaves_the_previous_file(tmp_path):
    resource = pytest.importorskip("resource", reason="the system knows no file size limit")
    write_atomic(tmp_path / "a", b"one")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, hard))
    try:
        with pytest.raises(ResourceError, match=r"expected a writable disk with free space, found File too large\."):
            write_atomic(tmp_path / "a", b"x" * 100_000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert (tmp_path / "a").read_bytes() == b"one"
    assert [p.name for p in tmp_path.iterdir()] == ["a"]


def test_a_full_disk_leaves_the_previous_model(folder, model, monkeypatch):
    before = {p.name: p.read_bytes() for p in folder.iterdir()}
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(
        ResourceError, match=rf"^{folder}: expected a writable disk with free space, found No space left"
    ):
        save_model(folder, model, CARD)
    monkeypatch.undo()
    assert {p.name: p.read_bytes() for p in folder.iterdir()} == before
    assert [p.name for p in folder.parent.iterdir()] == ["model"]


def test_a_rename_that_fails_brings_the_previous_model_back(folder, model, monkeypatch):
    before = {p.name: p.read_bytes() for p in folder.iterdir()}
    rename = Path.rename

    def fails_for_the_new(self, target):
        if self.name == ".model.tmp":
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", fails_for_the_new)
    with pytest.raises(ResourceError, match="found Permission denied"):
        save_model(folder, model, CARD)
    assert {p.name: p.read_bytes() for p in folder.iterdir()} == before


def test_the_module_cannot_unpickle():
    source = Path(weights.__file__).read_text()
    assert "torch.load" not in source.replace("safetensors.torch.load", "")
    assert "import pickle" not in source


def test_a_copied_folder_works_elsewhere(folder, tmp_path):
    shutil.copytree(folder, tmp_path / "elsewhere")
    assert load_model(tmp_path / "elsewhere")[1] == load_model(folder)[1]
