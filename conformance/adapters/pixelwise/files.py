"""pixelwise: images, masks, data sets, models."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

import pixelwise
from conformance.adapters import Way, Ways
from conformance.disk import full_disk
from pixelwise.config import DataConfig, LossConfig
from pixelwise.datasets.dataset import open_data
from pixelwise.imageio.images import read_image
from pixelwise.imageio.masks import read_mask, write_mask
from pixelwise.labels import Labels
from pixelwise.losses import combined_loss
from pixelwise.metrics.confusion import ConfusionMatrix
from pixelwise.models.card import ModelCard
from pixelwise.models.sources import find_weights
from pixelwise.models.unet import UNet
from pixelwise.models.weights import save_model
from pixelwise.training.checkpoint import State, load_checkpoint, save_checkpoint
from pixelwise.training.optim import AveragedWeights, adamw
from pixelwise.types import ModelSpec


def _labels(ids: Sequence[int], ignored: Sequence[int] = (255,)) -> Labels:
    return Labels(tuple(f"class {i}" for i in ids), tuple(ids), ignore_ids=tuple(ignored))


def _read_mask(path: Path, ids: Sequence[int], ignored: Sequence[int]) -> NDArray[Any]:
    labels = _labels(ids, ignored)
    return labels.decode(read_mask(path, labels)[0])


def _write_mask(indices: NDArray[Any], ids: Sequence[int], path: Path) -> None:
    write_mask(path, indices, _labels(ids))


def _reduce(ids: NDArray[Any]) -> NDArray[Any]:
    return _labels(range(1, 151), (0, 255)).encode(ids)[0]


def _open(folder: Path, skip_bad: bool = False) -> dict[str, int]:
    splits = open_data(DataConfig(labels=["a", "b"], skip_bad=skip_bad), folder)
    return {"images": sum(len(split) for split in splits), "skipped": len(splits.skipped)}


def _check(folder: Path) -> list[str]:
    return [str(finding.to_dict()) for finding in pixelwise.check(folder).findings]


def _read_listed(folder: Path) -> list[Any]:
    # The folder is in two formats, mask folders and VOC.
    splits = open_data(DataConfig(labels=["a", "b"], format="masks"), folder)
    return [split.read(k).image for split in splits for k in range(len(split))]


def _load_weights(path: Path) -> dict[str, NDArray[Any]]:
    imported = path.with_name("imported.safetensors")
    pixelwise.import_weights(path, imported)
    return {name: tensor.numpy() for name, tensor in find_weights("unet", str(imported)).tensors.items()}


def _counted(path: Path, ids: Sequence[int], ignored: Sequence[int]) -> NDArray[Any]:
    labels = _labels(ids, ignored)
    mask = read_mask(path, labels)[0]
    loss = combined_loss(LossConfig(), num_classes=labels.num_classes, ignore_index=labels.ignore_index)
    matrix = ConfusionMatrix(labels.num_classes, labels.ignore_index).update(mask, np.zeros_like(mask))
    return np.array([int(loss.normaliser(torch.from_numpy(mask)[None])[1]), int(matrix.sum())])


def _small() -> UNet:
    torch.manual_seed(0)
    return UNet(3, 2, features=(16, 32))


def _card() -> ModelCard:
    arguments = {"in_channels": 3, "num_classes": 2, "features": [16, 32]}
    return ModelCard(architecture={"name": "unet", "arguments": arguments}, spec=ModelSpec(_labels((0, 1)), 3))


def _save(folder: Path) -> None:
    save_model(folder / "model", _small(), _card())
    save_checkpoint(folder / "checkpoints", _state())


def _state() -> State:
    model = _small()
    return State(model, AveragedWeights(model, 0.9).model, adamw(model, 1e-3, 0.0))


def _fail(folder: Path) -> bool:
    state = _state()
    before = save_checkpoint(folder, state)
    try:
        with full_disk(before.stat().st_size // 2):
            save_checkpoint(folder, state)  # same step, same file name
    except pixelwise.PixelwiseError:
        load_checkpoint(before, _state())
        return True
    return False


WAYS: Ways = {
    "read_image": (Way("imageio.images.read_image", lambda path: read_image(path)[0]),),
    "read_mask": (Way("imageio.masks.read_mask", _read_mask),),
    "write_mask": (Way("imageio.masks.write_mask", _write_mask),),
    "reduce_labels": (Way("Labels(ids=1…150, ignore_ids=(0, 255)).encode", _reduce),),
    "open_folder": (Way("datasets.dataset.open_data", _open),),
    "check_folder": (Way("check", _check),),
    "read_listed": (Way("datasets.dataset.open_data with splits/", _read_listed),),
    "counted_pixels": (Way("Labels.ignore_index for CombinedLoss and ConfusionMatrix", _counted),),
    "load_weights": (Way("import-weights, then models.sources.find_weights", _load_weights),),
    "save_model": (Way("models.weights.save_model, training.checkpoint.save_checkpoint", _save),),
    "fail_while_saving": (Way("training.checkpoint.save_checkpoint", _fail),),
}
