"""pixelwise: training crops, batches, and prediction from the logits of adapted networks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn

from conformance.adapters import Way, Ways
from pixelwise.config import DataConfig, ResolvedAugment, SplitConfig
from pixelwise.datasets.dataset import open_data
from pixelwise.inference.predictor import Predictor
from pixelwise.inference.torch_backend import TorchBackend
from pixelwise.labels import Labels
from pixelwise.models.base import AdaptedModel, enlarge
from pixelwise.training.loader import Crops, batches
from pixelwise.training.transforms import CropTransform
from pixelwise.types import ModelSpec

Size = tuple[int, int]


class _Fixed:
    """A random generator that returns the upper end of every range."""

    def uniform(self, low: Any, high: Any = None, size: Any = None) -> Any:
        return high if size is None else np.full(size, high)

    def random(self) -> float:
        return 0.5


def _crop(
    image: NDArray[Any], mask: NDArray[Any], size: Size, augment: ResolvedAugment, ignore_index: int = 255
) -> tuple[Tensor, Tensor]:
    transform = CropTransform(size, augment, 0.0, ignore_index, (0.0,) * len(image), (1.0,) * len(image))
    generator: Any = _Fixed()
    return transform(torch.from_numpy(image), torch.from_numpy(mask), generator)


def _zoomed(image: NDArray[Any], mask: NDArray[Any], size: Size) -> tuple[NDArray[Any], NDArray[Any]]:
    zoom = size[0] / mask.shape[0]
    crop, truth = _crop(image, mask, size, ResolvedAugment(scale=(zoom, zoom)))
    return crop.numpy(), truth.numpy()


def _resize(mask: NDArray[Any], size: Size) -> NDArray[Any]:
    return _zoomed(np.zeros((1, *mask.shape), np.uint8), mask, size)[1]


def _rotate(image: NDArray[Any], mask: NDArray[Any], degrees: float, ignore_index: int) -> NDArray[Any]:
    return _crop(image, mask, mask.shape, ResolvedAugment(rotate=degrees), ignore_index)[1].numpy()


def _pad(image: NDArray[Any], mask: NDArray[Any], size: Size, ignore_index: int) -> NDArray[Any]:
    return _crop(image, mask, size, ResolvedAugment(), ignore_index)[1].numpy()


class _Answer(AdaptedModel):
    """A network that always returns these logits."""

    def __init__(self, logits: Tensor) -> None:
        super().__init__(nn.Identity(), 3, logits.shape[0], 1)
        self.logits = logits[None]

    def _logits(self, x: Tensor) -> tuple[Tensor, ...]:
        return (self.logits,)


class _Brightness(AdaptedModel):
    """A network that needs multiples of 32 and thresholds each pixel at 128."""

    def __init__(self) -> None:
        super().__init__(nn.Identity(), 3, 2, 32)

    def _logits(self, x: Tensor) -> tuple[Tensor, ...]:
        if x.shape[2] % 32 or x.shape[3] % 32:
            raise ValueError("expected multiples of 32")
        return (torch.stack([128 - x[:, 0], x[:, 0] - 128], 1),)


def _labels(count: int) -> Labels:
    return Labels(tuple(f"class {k}" for k in range(count)))


def _decide(logits: NDArray[Any], size: Size) -> NDArray[Any]:
    predictor = Predictor(TorchBackend(_Answer(torch.from_numpy(logits)), ModelSpec(_labels(len(logits)), 3)))
    return predictor(np.zeros((3, *size), np.uint8)).mask


def _padded(image: NDArray[Any]) -> NDArray[Any]:
    return Predictor(TorchBackend(_Brightness(), ModelSpec(_labels(2), 3)))(image).mask


def _train_and_serve(image: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
    training, _ = _crop(image, np.zeros(image.shape[1:], np.uint8), image.shape[1:], ResolvedAugment())
    inputs = []

    class Recorder:
        spec = ModelSpec(_labels(2), 3)

        def __call__(self, images: NDArray[Any], /) -> NDArray[np.float32]:
            inputs.append(images[0])
            return np.zeros((1, 2, *images.shape[2:]), np.float32)

    Predictor(Recorder())(image)
    return training.numpy(), inputs[0]


def _batch_sizes(folder: Path, images: int, batch_size: int, count: int) -> NDArray[Any]:
    for kind in ("images", "masks"):
        (folder / kind).mkdir()
        for k in range(images):
            Image.fromarray(np.zeros((8, 8), np.uint8)).save(folder / kind / f"{k}.png")
    train = open_data(DataConfig(labels=["a", "b"], split=SplitConfig(val=0.0)), folder).train
    assert train is not None
    crops = Crops(train, CropTransform((8, 8), ResolvedAugment(), 0.0, 255, (0.0,), (1.0,)), 0, cache=True)
    stream = batches(crops, batch_size=batch_size, start=0, count=count, workers=0)
    return np.array([len(batch.images) for batch in stream])


def _to_tensor(mask: NDArray[Any]) -> NDArray[Any]:
    return _crop(np.zeros((1, *mask.shape), np.uint8), mask, mask.shape, ResolvedAugment())[1].numpy()


WAYS: Ways = {
    "resize_mask": (Way("training.transforms.CropTransform, scaled", _resize),),
    "resize_pair": (Way("training.transforms.CropTransform, scaled", _zoomed),),
    "rotate_mask": (Way("training.transforms.CropTransform, rotated", _rotate),),
    "pad_mask": (Way("training.transforms.CropTransform, larger than the image", _pad),),
    "mask_to_tensor": (Way("training.transforms.CropTransform", _to_tensor),),
    "enlarge_logits": (
        Way("models.base.enlarge", lambda logits, size: enlarge(torch.from_numpy(logits)[None], size)[0].numpy()),
    ),
    "decide": (Way("AdaptedModel and Predictor", _decide),),
    "predict_padded": (Way("AdaptedModel and Predictor", _padded),),
    "train_and_serve": (Way("CropTransform and Predictor, without resizing", _train_and_serve),),
    "batch_sizes": (Way("training.loader.batches", _batch_sizes),),
}
