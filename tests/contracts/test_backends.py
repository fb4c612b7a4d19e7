"""What every backend promises to the Predictor. A new backend is one more line in BACKENDS."""

from __future__ import annotations

import sys
import types
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from tests.inference.backends import FunctionBackend

from pixelwise.errors import UsageError
from pixelwise.inference import backend as backends
from pixelwise.inference.backend import Backend, open_backend
from pixelwise.inference.decision import enlarge
from pixelwise.inference.predictor import Predictor
from pixelwise.inference.torch_backend import TorchBackend
from pixelwise.labels import Labels
from pixelwise.models.base import AdaptedModel
from pixelwise.models.card import ModelCard
from pixelwise.models.catalogue import build_model
from pixelwise.models.weights import load_model, save_model
from pixelwise.types import ModelSpec

LABELS = Labels(("a", "b", "c"))
ARGUMENTS = {"in_channels": 3, "num_classes": 3, "features": [4, 8], "stem": 2}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small trained-looking U-Net in a model folder."""
    torch.manual_seed(0)
    model = build_model("unet", **ARGUMENTS, mean=(120,) * 3, std=(60,) * 3)
    with torch.no_grad():
        model.head.weight.normal_()
    model.train()(torch.randint(0, 256, (4, 3, 32, 32)))
    path = tmp_path_factory.mktemp("model") / "model"
    save_model(path, model, ModelCard({"name": "unet", "arguments": ARGUMENTS}, ModelSpec(LABELS, 3, dtype="uint8")))
    return path


def numpy_quarter(_: Path) -> Backend:
    """Logits at a quarter of the size, with numpy alone."""

    def compute(images: np.ndarray) -> np.ndarray:
        padded = np.pad(images, [(0, 0), (0, 0), *((0, -size % 4) for size in images.shape[2:])], mode="edge")
        return padded[:, :, ::4, ::4].astype(np.float32) / 50

    return FunctionBackend(compute, ModelSpec(LABELS, 3, stride=4, logit_scale=4))


class Quarter(AdaptedModel):
    """A network of another library whose logits have a quarter of the size."""

    def __init__(self) -> None:
        super().__init__(torch.nn.Conv2d(3, 3, 7, 4, 3, padding_mode="replicate"), 3, 3, 8, (120,) * 3, (60,) * 3)

    @property
    def head(self) -> torch.nn.Module:  # type: ignore[override]
        return self.network

    def _logits(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return (self.network(x),)


def torch_quarter(_: Path) -> Backend:
    """Logits of padded images at a quarter of their size, with torch."""
    torch.manual_seed(0)
    return TorchBackend(Quarter(), ModelSpec(LABELS, 3), device="cpu")


BACKENDS: dict[str, Callable[[Path], Backend]] = {
    "torch": lambda folder: open_backend(folder, "torch", device="cpu"),
    "torch-bf16": lambda folder: open_backend(folder, "torch", device="cpu", precision="bf16"),
    "torch-coarse": torch_quarter,
    "numpy": numpy_quarter,
}
each = pytest.mark.parametrize("name", BACKENDS)


def images(count: int, height: int, width: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, 3, height, width), np.uint8)


@each
@pytest.mark.parametrize("size", [(1, 1), (3, 50), (33, 18), (64, 64)])
@pytest.mark.parametrize("count", [1, 3])
def test_logits_have_the_shape_that_the_spec_says(folder: Path, name: str, size: tuple[int, int], count: int) -> None:
    backend = BACKENDS[name](folder)
    logits = backend(images(count, *size))
    scale = backend.spec.logit_scale
    assert isinstance(logits, np.ndarray)
    assert logits.dtype == np.float32
    assert logits.shape[:2] == (count, 3)
    least = [-(-side // scale) for side in size]
    assert (
        list(logits.shape[2:]) == least
        if scale == 1
        else all(n >= m for n, m in zip(logits.shape[2:], least, strict=True))
    )
    assert np.isfinite(logits).all()


@each
def test_an_image_does_not_depend_on_others_in_its_batch(folder: Path, name: str) -> None:
    backend = BACKENDS[name](folder)
    batch = images(3, 32, 48)
    alone = np.concatenate([backend(batch[k : k + 1]) for k in range(3)])
    close = 0.05 if "bf16" in name else 1e-4
    np.testing.assert_allclose(backend(batch), alone, atol=close * np.abs(alone).max())


@each
def test_later_calls_do_not_change_a_result(folder: Path, name: str) -> None:
    backend = BACKENDS[name](folder)
    first = backend(images(1, 20, 30))
    before = first.copy()
    backend(images(1, 20, 30, seed=1))
    np.testing.assert_array_equal(first, before)


def test_coarse_logits_are_those_of_the_model(folder: Path) -> None:
    """Enlarged and cropped, they are what the model returns, also at the border, where its padding counts."""
    backend = torch_quarter(folder)
    assert isinstance(backend, TorchBackend)
    assert (backend.spec.logit_scale, backend.spec.stride) == (4, 8)
    for size in [(1, 1), (9, 50), (33, 18), (64, 64)]:
        batch = images(2, *size)
        with torch.inference_mode():
            whole = backend.model(torch.from_numpy(batch)).numpy()
        np.testing.assert_allclose(enlarge(backend(batch), 4, size), whole, atol=1e-5)
        found = Predictor(backend)(batch[0], probabilities=True)
        np.testing.assert_array_equal(found.mask, enlarge(backend(batch[:1])[0], 4, size).argmax(0))


@each
@pytest.mark.parametrize("dtype", ["u1", ">u2", "i4", "f4", "f8"])
def test_the_type_of_the_pixels_changes_nothing(folder: Path, name: str, dtype: str) -> None:
    backend = BACKENDS[name](folder)
    batch = images(1, 16, 16)
    np.testing.assert_allclose(backend(batch.astype(dtype)), backend(batch), atol=1e-4)


@each
def test_input_is_left_alone_and_may_be_a_read_only_view(folder: Path, name: str) -> None:
    batch = images(1, 20, 24)
    before = batch.copy()
    batch.setflags(write=False)
    view = batch[:, :, ::-1, ::2]
    backend = BACKENDS[name](folder)
    np.testing.assert_array_equal(backend(view), backend(view.copy()))
    np.testing.assert_array_equal(batch, before)


@each
def test_the_predictor_tiles_any_backend(folder: Path, name: str) -> None:
    predictor = Predictor(BACKENDS[name](folder), tile=(32, 32), flips=True)
    found = predictor(images(1, 70, 45)[0], probabilities=True)
    assert found.mask.shape == (70, 45)
    np.testing.assert_allclose(found.probabilities.sum(0), 1, rtol=1e-4)


def test_a_folder_is_opened_with_norms_folded_and_channels_innermost(folder: Path) -> None:
    opened, (model, card) = open_backend(folder, "torch", device="cpu"), load_model(folder)
    assert isinstance(opened, TorchBackend)
    plain = TorchBackend(model, card.spec, "cpu")
    norms = [[m for m in each.model.modules() if isinstance(m, torch.nn.BatchNorm2d)] for each in (opened, plain)]
    assert (len(norms[0]), len(norms[1])) == (0, 10)
    wide = [p for p in opened.model.parameters() if p.ndim == 4 and min(p.shape) > 1]
    assert all(p.is_contiguous(memory_format=torch.channels_last) for p in wide)
    batch = images(2, 33, 18)
    np.testing.assert_allclose(opened(batch), plain(batch), atol=1e-4 * np.ptp(plain(batch)))


def test_a_new_backend_is_one_module_and_one_registration(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    module = types.ModuleType("toy_backend")
    module.open_toy = lambda folder, level=0.0: FunctionBackend(  # type: ignore[attr-defined]
        lambda images: images.astype(np.float32) + level, ModelSpec(LABELS, 3)
    )
    monkeypatch.setitem(sys.modules, "toy_backend", module)
    monkeypatch.setitem(backends.BACKENDS, "toy", "toy_backend:open_toy")
    assert Predictor(open_backend(folder, "toy", level=1.0))(images(1, 4, 4)[0]).mask.shape == (4, 4)


def test_an_unknown_backend_is_named(folder: Path) -> None:
    with pytest.raises(UsageError) as caught:
        open_backend(folder, "torhc")
    known = ", ".join(backends.BACKENDS)
    assert str(caught.value) == f"backend: expected one of {known}, found torhc. Did you mean 'torch'?"
