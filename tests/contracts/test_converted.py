"""The contract of engines that read ONNX: the logits of torch, for any size and batch, from a folder or an exported file."""

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest
import torch
from tests.contracts.test_models import FIXED, MODELS, MORE, settled

from pixelwise import storage
from pixelwise.errors import ConfigError, ModelFileError
from pixelwise.inference import exported
from pixelwise.inference.backend import BACKENDS, concurrent, open_backend
from pixelwise.inference.conversion import to_onnx
from pixelwise.inference.decision import enlarge
from pixelwise.inference.openvino_backend import supports_bf16
from pixelwise.inference.predictor import Predictor
from pixelwise.labels import Labels
from pixelwise.machine import cores
from pixelwise.models.card import ModelCard
from pixelwise.models.catalogue import build_model
from pixelwise.models.weights import load_model, save_model
from pixelwise.types import ModelSpec

ENGINES = [engine for engine in BACKENDS if engine != "torch"]
FAST = ("unet", "fpn")
CASES = [
    pytest.param(str(case), marks=() if case[0] in FAST and case in MODELS else pytest.mark.slow)
    for case in (*MODELS, *MORE)
    if not any(kind in str(case) for kind in FIXED)
]
SHAPES = [(1, 1, 1), (1, 5, 7), (3, 33, 18), (2, 64, 97)]


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(storage, "user_cache_path", lambda name: folder / name)
        yield folder / "pixelwise" / "engines"


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    saved = {}

    def folder(case):
        if case not in saved:
            name, arguments = next(one for one in (*MODELS, *MORE) if str(one) == case)
            arguments = arguments | {"in_channels": 3, "num_classes": 5}
            labels = Labels(tuple("abcde"))
            card = ModelCard({"name": name, "arguments": arguments}, ModelSpec(labels, 3))
            saved[case] = tmp_path_factory.mktemp("model") / "model"
            save_model(saved[case], settled(case), card)
        return saved[case]

    return folder


def images(batch, height, width):
    return np.random.default_rng(0).integers(0, 256, (batch, 3, height, width), np.uint8)


def reference(folder, batch):
    """Return the full-size logits of the network itself."""
    model, _ = load_model(folder)
    with torch.inference_mode():
        return model(torch.from_numpy(batch)).numpy()


def full_size(backend, batch):
    """Return the logits of a backend at the size of the images."""
    return enlarge(backend(batch), backend.spec.logit_scale, batch.shape[2:])


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("case", CASES)
def test_logits_are_those_of_torch(case, engine, folders, cache):
    backend = open_backend(folders(case), engine)
    for shape in SHAPES:
        batch = images(*shape)
        found, expected = full_size(backend, batch), reference(folders(case), batch)
        assert found.dtype == np.float32
        np.testing.assert_allclose(found, expected, rtol=0, atol=2e-4 * max(np.abs(expected).max(), 1))


@pytest.fixture(scope="module", params=["transposed", "bilinear"])
def deep(request, tmp_path_factory):
    """The folder of a 3-D U-Net that halves one axis less often than the others."""
    torch.manual_seed(0)
    arguments = {"in_channels": 1, "num_classes": 3, "features": [4, 8, 8], "dimensions": 3, "up": request.param}
    model = build_model("unet", **arguments, mean=(120.0,), std=(60.0,))
    folder = tmp_path_factory.mktemp("deep") / "model"
    spec = ModelSpec(Labels(tuple("abc")), 1, dimensions=3, tile=(16, 16, 16))
    save_model(folder, model, ModelCard({"name": "unet", "arguments": arguments}, spec))
    return folder


@pytest.mark.parametrize("engine", ENGINES)
def test_volumes_are_computed_as_by_torch(engine, deep, cache):
    backend, random = open_backend(deep, engine), np.random.default_rng(0)
    for batch, *shape in ((1, 1, 1, 1), (1, 5, 7, 3), (2, 18, 33, 20), (3, 24, 16, 17)):
        volumes = random.integers(0, 256, (batch, 1, *shape), np.uint8)
        expected = reference(deep, volumes)
        np.testing.assert_allclose(backend(volumes), expected, rtol=0, atol=2e-4 * max(np.abs(expected).max(), 1))
    volume = random.integers(0, 256, (1, 30, 25, 40), np.uint8)
    masks = [Predictor(each)(volume).mask for each in (backend, open_backend(deep, "torch", device="cpu"))]
    assert (masks[0] == masks[1]).mean() > 0.999


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("dtype", ["uint8", ">u2", "int32", "float64"])
def test_the_pixel_type_does_not_matter(engine, dtype, folders, cache):
    backend = open_backend(folders(str(MODELS[0])), engine)
    batch = images(1, 20, 30)
    np.testing.assert_array_equal(backend(batch.astype(dtype)), backend(batch.astype(np.float32)))


@pytest.mark.parametrize("engine", ENGINES)
def test_a_converted_model_is_cached(engine, folders, cache, monkeypatch):
    folder = folders(str(MODELS[0]))
    first = open_backend(folder, engine)(images(1, 20, 30))
    monkeypatch.setattr("pixelwise.inference.conversion.to_onnx", None)  # it is not converted again
    np.testing.assert_array_equal(open_backend(folder, engine)(images(1, 20, 30)), first)


@pytest.mark.parametrize("engine", ENGINES)
def test_without_a_cache_folder_the_model_is_converted_in_memory(engine, folders, monkeypatch):
    monkeypatch.setattr(exported, "cache_folder", lambda: None)
    folder = folders(str(MODELS[0]))
    assert open_backend(folder, engine)(images(1, 20, 30)).shape == (1, 5, 20, 30)


@pytest.mark.parametrize("engine", ENGINES)
def test_settings_for_prediction_come_from_the_folder(engine, folders, cache, tmp_path):
    model, card = load_model(folders(str(MODELS[0])))
    for temperature in (1.0, 2.5):
        save_model(tmp_path / "model", model, replace(card, spec=replace(card.spec, temperature=temperature)))
        assert open_backend(tmp_path / "model", engine).spec.temperature == temperature


@pytest.mark.parametrize("engine", ENGINES)
def test_other_weights_are_converted_again(engine, folders, cache, tmp_path):
    model, card = load_model(folders(str(MODELS[0])))
    batch = images(1, 20, 30)
    before = open_backend(folders(str(MODELS[0])), engine)(batch)
    with torch.no_grad():
        next(model.parameters()).mul_(1.5)
    save_model(tmp_path / "model", model, card)
    after = open_backend(tmp_path / "model", engine)(batch)
    assert np.abs(after - before).max() > 1e-3
    np.testing.assert_allclose(after, reference(tmp_path / "model", batch), atol=1e-3)


def test_the_mask_is_a_second_output(folders, tmp_path):
    import onnxruntime

    model, card = load_model(folders(str(MODELS[0])))
    file = tmp_path / "model.onnx"
    file.write_bytes(to_onnx(model, card, with_mask=True))
    batch = images(2, 33, 50)
    session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    logits, mask = session.run(None, {"images": batch.astype(np.float32)})
    assert mask.dtype == np.uint8
    np.testing.assert_array_equal(mask, logits.argmax(1))
    for engine in ENGINES:  # which compute the logits only
        assert open_backend(file, engine)(batch).shape == (2, 5, 33, 50)


@pytest.mark.parametrize("engine", ENGINES)
def test_an_exported_file_needs_no_torch(engine, folders, tmp_path):
    file = tmp_path / "model.onnx"
    file.write_bytes(to_onnx(*load_model(folders(str(MODELS[0])))))
    program = f"""
import sys
from dataclasses import replace
from pathlib import Path
import numpy as np
from pixelwise.inference.backend import open_backend
from pixelwise.inference.predictor import Predictor
image = np.zeros((3, 20, 30), np.uint8)
assert Predictor(open_backend(Path({str(file)!r}), {engine!r}))(image).mask.shape == (20, 30)
assert not {{"torch", "onnx"}} & set(sys.modules)
"""
    subprocess.run([sys.executable, "-W", "ignore", "-c", program], check=True)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("content", [b"", b"not a model", "no card"])
def test_files_that_are_no_exported_model_are_refused(engine, content, folders, tmp_path):
    file = tmp_path / "model.onnx"
    if content == "no card":
        import onnx

        content = to_onnx(*load_model(folders(str(MODELS[0]))))
        proto = onnx.load_from_string(content)
        del proto.metadata_props[:]
        content = proto.SerializeToString()
    file.write_bytes(content)
    with pytest.raises(ModelFileError, match=r"expected .*, found .*"):
        open_backend(file, engine)


@pytest.mark.parametrize("engine", ENGINES)
def test_a_missing_library_is_named(engine, folders, monkeypatch):
    monkeypatch.setitem(sys.modules, engine, None)
    with pytest.raises(ConfigError, match=r"it is not installed\. Run: pip install 'pixelwise\[export\]'"):
        open_backend(folders(str(MODELS[0])), engine)


@pytest.mark.parametrize("engine", ENGINES)
def test_other_devices_are_refused(engine, folders):
    with pytest.raises(ConfigError, match="expected the device cpu, found tpu"):
        open_backend(folders(str(MODELS[0])), engine, device="tpu")


def test_bf16_is_computed_or_refused(folders, cache):
    folder = folders(str(MODELS[0]))
    if not supports_bf16():
        with pytest.raises(ConfigError, match="bf16 instructions"):
            open_backend(folder, "openvino", precision="bf16")
        return
    batch = images(1, 64, 64)
    found, expected = open_backend(folder, "openvino", precision="bf16")(batch), reference(folder, batch)
    difference = np.abs(found - expected).max()
    assert 0 < difference < 0.1 * np.abs(expected).max()


@pytest.mark.parametrize("name", CASES)
def test_several_calls_at_the_same_time_compute_the_same_logits(name, folders):
    single = open_backend(folders(name), "openvino")
    several, calls = concurrent(single)
    assert (calls, several.concurrent) == (cores(), several)
    batches = [images(batch, 64, 32 * size) for batch, size in ((1, 2), (2, 3), (1, 4), (3, 2)) * 3]
    with ThreadPoolExecutor(calls + 1) as pool:
        found = list(pool.map(several, batches))
    for batch, logits in zip(batches, found, strict=True):
        np.testing.assert_array_equal(logits, single(batch))


def test_onnxruntime_computes_in_fp32_only(folders):
    with pytest.raises(ConfigError, match="expected fp32 for onnxruntime, found bf16"):
        open_backend(folders(str(MODELS[0])), "onnxruntime", precision="bf16")
