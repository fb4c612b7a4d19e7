"""Stored features of a frozen encoder: values, windows, space, and training that does not depend on storage."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import pixelwise
from pixelwise.config import Config, ResolvedAugment, draft, replace
from pixelwise.datasets.dataset import open_data
from pixelwise.errors import ConfigError
from pixelwise.models.catalogue import build_model
from pixelwise.training import features as module
from pixelwise.training.features import FeatureBank, Features, encode
from pixelwise.training.loader import Crops
from pixelwise.training.runlog import read_log
from pixelwise.training.transforms import CropTransform

ENCODER = "mobilenetv3_small_050"
FULL = ResolvedAugment(
    flip_horizontal=0.5, flip_vertical=0.5, rotate=20, scale=(0.7, 1.5), brightness=0.2, contrast=0.2, noise=0.05
)


FPN = ("fpn", {"encoder": ENCODER, "width": 8, "norms": "folded"})
NETWORKS = [
    FPN,
    ("fpn", {"encoder": "vit_tiny_patch16_224", "width": 8}),
    ("fpn", {"encoder": "resnet10t", "width": 8, "fine": True}),
    ("unet", {"features": (4, 8)}),
    ("unet/resnet18", {}),
    ("segformer/mit_b0", {}),
    ("segformer-b0", {}),
    ("deeplabv3-mobilenetv3", {}),
    ("lraspp-mobilenetv3", {}),
]


def bank(
    discs: Path,
    folder: Path,
    *,
    copies: int = 2,
    crop: tuple[int, int] = (32, 32),
    workers: int = 0,
    network: tuple[str, dict[str, Any]] = FPN,
) -> FeatureBank:
    """A bank over the training images of discs, with random weights."""
    torch.manual_seed(0)
    splits = open_data(Config.model_validate({"data": {"root": str(discs)}}).data, discs)
    assert splits.train is not None
    transform = CropTransform(crop, FULL, 0.5, splits.labels.ignore_index, (100.0,) * 3, (50.0,) * 3)
    model = build_model(network[0], num_classes=2, **network[1]).eval()
    values = {"copies": copies, "freeze": "encoder", "workers": workers}
    return FeatureBank(
        Crops(splits.train, transform, 7, cache=True), model, draft(replace(Config(), train=values)).train, folder
    )


def filled(source: FeatureBank) -> FeatureBank:
    source.fill(lambda: 60.0, lambda done, total: None, lambda: None)
    return source


def assert_same_batches(one: FeatureBank, other: FeatureBank, count: int = 6) -> None:
    for a, b in zip(*(x.batches(batch_size=3, start=2, count=count) for x in (one, other)), strict=True):
        assert a.ids == b.ids
        assert torch.equal(a.masks, b.masks)
        assert len(a.features) == len(b.features) >= 1
        assert all(torch.equal(x, y) for x, y in zip(a.features, b.features, strict=True))


@pytest.mark.parametrize("network", NETWORKS, ids=str)
def test_stored_and_computed_features_are_equal(
    discs: Path, tmp_path: Path, network: tuple[str, dict[str, Any]]
) -> None:
    stored, computed = (bank(discs, tmp_path, copies=1, network=network) for _ in range(2))
    assert_same_batches(filled(stored), computed, count=2)
    # The decoder accepts them, and only the decoder gets gradients.
    (batch,) = stored.batches(batch_size=2, start=0, count=1)
    model = stored.model.train()
    logits = model.decode([f.float() for f in batch.features], batch.masks.shape[-2:]).logits
    assert logits.shape == (2, 2, *batch.masks.shape[-2:])
    logits.sum().backward()
    prefixes = tuple(prefix for layer in model.encoder_stages() for prefix in layer)
    assert not [name for name, p in model.named_parameters() if name.startswith(prefixes) and p.grad is not None]


def test_worker_processes_do_not_change_the_features(discs: Path, tmp_path: Path) -> None:
    assert_same_batches(filled(bank(discs, tmp_path, workers=2)), filled(bank(discs, tmp_path)))


def test_features_are_those_of_the_copy_and_rounded_to_fp16(discs: Path, tmp_path: Path) -> None:
    source = bank(discs, tmp_path)
    item = source.copies[1, 3]
    assert not isinstance(item, Exception)
    with torch.inference_mode():
        expected = source.model.encode(item[0][None])
    found = source.features((1, 3))
    for one, other in zip(found.maps, expected, strict=True):
        assert one.dtype == torch.float16
        assert torch.equal(one, other[0].half())
    assert torch.equal(found.mask.long(), item[1].as_subclass(torch.Tensor))


@pytest.mark.parametrize("crop", [(32, 32), (64, 96), (40, 200)])
def test_windows_of_whole_copies_give_the_outputs_of_the_model(
    discs: Path, tmp_path: Path, crop: tuple[int, int]
) -> None:
    # Images of 64×64 pixels: a window is the whole copy, and larger than a crop that the encoder cannot take.
    source = bank(discs, tmp_path, crop=crop, copies=1)
    source.crops.transform = dataclasses.replace(source.crops.transform, class_crops=0.0)
    source.model.half().float()  # weights that do not round differently
    for (batch,), index in zip(([b] for b in source.batches(batch_size=1, start=0, count=4)), range(4), strict=True):
        name = batch.ids[0]
        found = next(i for i in range(len(source.crops)) if source.features((0, i)).name == name)
        item = source.copies[0, found]
        assert not isinstance(item, Exception), index
        with torch.inference_mode():
            expected = source.model(item[0][None])
            logits = source.model.decode([f.float() for f in batch.features], batch.masks.shape[-2:]).logits
        assert torch.equal(batch.masks[0], item[1].as_subclass(torch.Tensor))
        torch.testing.assert_close(logits, expected, rtol=0.01, atol=0.01 * float(expected.abs().max()))


def test_values_beyond_fp16_are_clipped(discs: Path, tmp_path: Path) -> None:
    source = bank(discs, tmp_path)

    class Large(torch.nn.Module):
        def encode(self, images: torch.Tensor) -> tuple[torch.Tensor, ...]:
            return (torch.full((1, 1, 2, 2), 1e6),)

    (found,) = encode(Large(), torch.zeros(3, 4, 4), source.train)  # type: ignore[arg-type]
    assert found.unique().tolist() == [65504.0]


def test_every_copy_of_every_image_is_used_equally_often(discs: Path, tmp_path: Path) -> None:
    source = bank(discs, tmp_path, copies=3)
    used: list[tuple[int, int]] = []
    original = source.features
    source.features = lambda key: used.append(key) or original(key)  # type: ignore[method-assign, func-returns-value]
    images = len(source.crops)
    list(source.batches(batch_size=1, start=0, count=3 * images))
    assert sorted(used) == [(copy, index) for copy in range(3) for index in range(images)]


def test_copies_differ_and_depend_on_the_seed(discs: Path, tmp_path: Path) -> None:
    source = bank(discs, tmp_path)
    one, two = source.features((0, 0)), source.features((1, 0))
    assert not torch.equal(one.maps[0], two.maps[0])
    source.crops.seed = 8
    assert not torch.equal(source.features((0, 0)).maps[0], one.maps[0])


def test_windows_of_features_and_mask_show_the_same_place(discs: Path, tmp_path: Path) -> None:
    source = bank(discs, tmp_path, crop=(32, 32))
    size, stride = (192, 320), source.model.stride
    rows, columns = torch.meshgrid(torch.arange(size[0]), torch.arange(size[1]), indexing="ij")
    # Every pixel of the mask and every cell of the maps holds its own place.
    maps = tuple(torch.stack([rows[::s, ::s], columns[::s, ::s]]).half() for s in (1, 4, 32))
    place = Features((*maps, torch.ones(5, 1, 1).half()), (rows * 1000 + columns).int(), "x")
    source.features = lambda key: place  # type: ignore[method-assign]
    source.crops.transform = CropTransform((64, 128), FULL, 0.0, 10**6, (0.0,) * 3, (1.0,) * 3)
    corners = set()
    for batch in source.batches(batch_size=1, start=0, count=400):
        mask = batch.masks[0]
        assert mask.shape == (64, 128)
        top, left = divmod(int(mask[0, 0]), 1000)
        assert top % stride == left % stride == 0
        corners.add((top, left))
        for each, s in zip(batch.features, (1, 4, 32), strict=False):
            assert torch.equal(each[0, 0], rows[top : top + 64 : s, left : left + 128 : s].half())
            assert torch.equal(each[0, 1], columns[top : top + 64 : s, left : left + 128 : s].half())
        assert batch.features[-1].shape == (1, 5, 1, 1), "a map for the whole image is not cut"
    assert corners == {(t, x) for t in range(0, 129, 32) for x in range(0, 193, 32)}


def test_windows_centred_on_a_class_contain_it(discs: Path, tmp_path: Path) -> None:
    source = bank(discs, tmp_path)
    mask = torch.zeros(256, 256, dtype=torch.uint8)
    mask[250, 3] = 1
    source.features = lambda key: Features((torch.zeros(1, 64, 64).half(),), mask, "x")  # type: ignore[method-assign]
    source.crops.transform = CropTransform((64, 64), FULL, 1.0, 255, (0.0,) * 3, (1.0,) * 3)
    assert all((batch.masks == 1).any() for batch in source.batches(batch_size=1, start=0, count=50))


@pytest.fixture
def on_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "storable_bytes", lambda: 1000.0)


@pytest.mark.usefixtures("on_disk")
def test_features_that_do_not_fit_into_memory_are_mapped_from_a_file(discs: Path, tmp_path: Path) -> None:
    source = filled(bank(discs, tmp_path))
    assert source.place == "disk"
    assert len(source.stored) == 2 * len(source.crops)
    assert (tmp_path / module.FILE).stat().st_size == source.bytes
    assert_same_batches(source, bank(discs, tmp_path))
    source.clear()
    assert not (tmp_path / module.FILE).exists()
    assert not source.stored


@pytest.mark.usefixtures("on_disk")
def test_a_full_disk_leaves_fewer_stored_features(discs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Full:
        """A file on a disk with space for 10 kB."""

        def __init__(self, file: object) -> None:
            self.file, self.left = file, 200_000

        def write(self, data: bytes) -> int:
            self.left -= len(data)
            if self.left < 0:
                raise OSError(28, "No space left on device")
            return self.file.write(data)  # type: ignore[attr-defined, no-any-return]

        def close(self) -> None:
            self.file.close()  # type: ignore[attr-defined]

    opened = Path.open
    monkeypatch.setattr(
        Path, "open", lambda self, *a, **k: Full(opened(self, *a, **k)) if a == ("wb",) else opened(self, *a, **k)
    )
    source = filled(bank(discs, tmp_path))
    assert 0 < len(source.stored) < 2 * len(source.crops)
    assert_same_batches(source, bank(discs, tmp_path))


def test_little_memory_and_a_read_only_disk(discs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = bank(discs, tmp_path)
    size = source.features((0, 0)).bytes
    monkeypatch.setattr(module, "storable_bytes", lambda: 2.5 * size)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: (_ for _ in ()).throw(PermissionError()))
    assert len(filled(source).stored) == 2
    assert_same_batches(source, bank(discs, tmp_path))


def test_filling_stops_when_its_time_is_over(discs: Path, tmp_path: Path) -> None:
    source = bank(discs, tmp_path)
    left: Iterator[float] = iter([1.0, 1.0, 0.0])
    source.fill(lambda: next(left), lambda done, total: None, lambda: None)
    assert len(source.stored) == 3
    assert set(source.stored) == {(0, 0), (0, 1), (0, 2)}, "all images before the second copy"
    assert_same_batches(source, bank(discs, tmp_path))


@settings(max_examples=40, deadline=None)
@given(
    size=st.tuples(st.integers(1, 9), st.integers(1, 9)),
    window=st.tuples(st.integers(1, 9), st.integers(1, 9)),
    at=st.tuples(st.integers(0, 8), st.integers(0, 8)),
)
def test_parts_of_maps_against_repeated_cells(
    size: tuple[int, int], window: tuple[int, int], at: tuple[int, int]
) -> None:
    begin = [min(a, s - 1) for a, s in zip(at, size, strict=True)]
    end = [min(b + w, s) for b, w, s in zip(begin, window, size, strict=True)]
    cells = torch.arange(size[0] * size[1]).view(1, *size)
    # A map with one cell per 4 pixels, enlarged by repeating, and the same part of both.
    box = [(4 * b, 4 * e) for b, e in zip(begin, end, strict=True)]
    pixels = cells.repeat_interleave(4, 1).repeat_interleave(4, 2)
    full = (4 * size[0], 4 * size[1])
    part = module._part(cells, box, full)
    assert torch.equal(
        part.repeat_interleave(4, 1).repeat_interleave(4, 2),
        pixels[:, box[0][0] : box[0][1], box[1][0] : box[1][1]],
    )


TINY = (
    f"model.encoder={ENCODER}",
    "model.width=8",
    "train.freeze=encoder",
    "train.crop=[32,32]",
    "train.batch_size=2",
    "train.precision=fp32",
    "train.channels_last=false",
    "evaluate.report=false",
    "evaluate.metrics=[]",
    "evaluate.temperature=false",
    "train.device=cpu",
    "train.validations=1",
)


def weights_after(discs: Path, out: Path, *more: str) -> dict[str, torch.Tensor]:
    from safetensors.torch import load_file

    run = pixelwise.train(discs, model="fpn", out=out, steps=6, seed=3, overrides=(*TINY, *more))
    return load_file(run.folder / "model" / "model.safetensors")


def test_training_does_not_depend_on_what_is_stored(
    discs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stored = weights_after(discs, tmp_path / "a", "train.copies=2")
    (event,) = (e for e in read_log(tmp_path / "a" / "log.jsonl") if e["event"] == "features stored")
    assert event["stored"] == event["total"] > 4
    monkeypatch.setattr(module, "storable_bytes", lambda: 0.0)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: (_ for _ in ()).throw(PermissionError()))
    computed = weights_after(discs, tmp_path / "b", "train.copies=2", "train.workers=2")
    (event,) = (e for e in read_log(tmp_path / "b" / "log.jsonl") if e["event"] == "features stored")
    assert event["stored"] == 0
    assert stored.keys() == computed.keys()
    assert all(torch.equal(tensor, computed[name]) for name, tensor in stored.items())


def test_the_encoder_is_unfrozen_at_its_step(discs: Path, tmp_path: Path) -> None:
    def encoder(out: Path, *more: str) -> dict[str, torch.Tensor]:
        found = weights_after(discs, out, "train.copies=1", "train.ema=0", *more)
        return {name: tensor for name, tensor in found.items() if name.startswith("network.encoder.")}

    frozen = encoder(tmp_path / "frozen")
    late = encoder(tmp_path / "late", "train.unfreeze_start=0.5", "train.unfreeze=0.5")
    assert frozen.keys() == late.keys()
    changed = [name for name in frozen if not torch.equal(frozen[name], late[name])]
    assert len(changed) > 0.5 * len(frozen)
    assert not (tmp_path / "late" / module.FILE).exists()


def test_networks_without_separate_features_are_refused(discs: Path, tmp_path: Path) -> None:
    pytest.importorskip("segmentation_models_pytorch")
    with pytest.raises(
        ConfigError, match=r"^train\.copies: expected a network whose features can be stored, found 2 with dpt"
    ):
        pixelwise.train(
            discs,
            model="dpt/tu-vit_tiny_patch16_224",
            out=tmp_path / "run",
            steps=2,
            overrides=("train.freeze=encoder", "train.copies=2", "train.crop=[32,32]", "train.device=cpu"),
        )
