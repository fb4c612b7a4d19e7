"""The baselines of `quality_per_minute`: a tutorial's U-Net, and segmentation_models.pytorch as documented.

All use the data loading of pixelwise (decoded once, cached in memory) with random crops of 256×256, spend no time on
validation, and are scored by pixelwise on whole images at native size. Crops of smaller images have the size of the largest
image, rounded up to a multiple of 32. Values of other types than 8 bits are scaled to 0–255 by the 0.5 % and 99.5 %
percentiles of training images; a fourth band takes the normalisation of the first.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import cycle, islice

import numpy as np
import segmentation_models_pytorch as smp
import timm
import torch
from torch import Tensor, nn

from pixelwise.config import ResolvedAugment
from pixelwise.datasets.dataset import Dataset
from pixelwise.inference.predictor import Predictor
from pixelwise.inference.torch_backend import TorchBackend
from pixelwise.models.unet import UNet
from pixelwise.training.loader import Crops, batches
from pixelwise.training.transforms import CropTransform
from pixelwise.types import ModelSpec

BATCH, SIDE, STRIDE = 8, 256, 32
ENCODER = "tf_efficientnet_lite0"
IMAGENET_MEAN, IMAGENET_STD = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)
_SAMPLE = 16  # training images for percentiles and sizes


@dataclass(frozen=True)
class Input:
    """What a network gets to see: mean and standard deviation per band, in raw values, and the size of the crops."""

    mean: tuple[float, ...]
    std: tuple[float, ...]
    crop: tuple[int, int]


class Padded(nn.Module):
    """Normalise, pad to a multiple of 32 as crops are in training, by reflection, call the network, crop the padding."""

    def __init__(self, network: nn.Module, given: Input) -> None:
        super().__init__()
        self.network = network
        self.register_buffer("mean", torch.tensor(given.mean).view(1, -1, 1, 1))
        self.register_buffer("std", torch.tensor(given.std).view(1, -1, 1, 1))

    def forward(self, images: Tensor) -> Tensor:
        x = (images.float() - self.mean) / self.std
        height, width = x.shape[-2:]
        for axis, size in ((2, height), (3, width)):
            if size % STRIDE:
                x = x.index_select(axis, reflected(size, size + -size % STRIDE))
        return self.network(x)[..., :height, :width]


def reflected(size: int, padded: int) -> Tensor:
    """Return the indices 0…size-1 continued by reflection without repeating the last one, (padded,)."""
    period = max(2 * size - 2, 1)
    place = torch.arange(padded) % period
    return torch.where(place < size, place, period - place)


def tutorial(train: Dataset, seed: int, deadline: float) -> tuple[Predictor, int]:
    """Plain U-Net [32, 64, 128, 256], AdamW 1e-3, decay 0.01, cosine, CE + Dice 0.5/0.5, batch 8, clip 1.0, no augmentation."""
    torch.manual_seed(seed)
    given = describe_input(train, IMAGENET_MEAN, IMAGENET_STD)
    channels = len(given.mean)
    model = Padded(UNet(channels, train.labels.num_classes, features=(32, 64, 128, 256)), given)
    ignore_index = train.labels.ignore_index

    def loss(logits: Tensor, masks: Tensor) -> Tensor:
        entropy = nn.functional.cross_entropy(logits, masks, ignore_index=ignore_index)
        return 0.5 * entropy + 0.5 * plain_dice(logits, masks, ignore_index)

    optimizer = torch.optim.AdamW(model.parameters(), 1e-3, weight_decay=0.01)
    stream = _stream(train, given, ResolvedAugment(), seed)
    steps = _fit(model, optimizer, loss, stream, deadline, floor=0.0, clip=1.0)
    return _predictor(model, train, channels), steps


def smp_scratch(train: Dataset, seed: int, deadline: float) -> tuple[Predictor, int]:
    """smp.Unet("resnet18") with random weights, trained as documented."""
    torch.manual_seed(seed)
    given = describe_input(train, IMAGENET_MEAN, IMAGENET_STD)
    network = smp.Unet("resnet18", encoder_weights=None, in_channels=len(given.mean), classes=train.labels.num_classes)
    return _as_documented(network, given, train, seed, deadline)


def smp_pretrained(train: Dataset, seed: int, deadline: float) -> tuple[Predictor, int]:
    """smp.Unet with EfficientNet-Lite0 and its ImageNet weights and normalisation, trained as documented."""
    torch.manual_seed(seed)
    documented = smp.encoders.get_preprocessing_params(f"tu-{ENCODER}")  # of values from 0 to 1
    mean, std = ([255 * value for value in documented[key]] for key in ("mean", "std"))
    given = describe_input(train, mean, std)
    return _as_documented(pretrained_unet(len(given.mean), train.labels.num_classes), given, train, seed, deadline)


def pretrained_unet(channels: int, classes: int) -> nn.Module:
    """Return smp.Unet with EfficientNet-Lite0, its first layer adapted to the number of bands as timm does it."""
    network = smp.Unet(f"tu-{ENCODER}", encoder_weights=None, in_channels=channels, classes=classes)
    tensors = dict(imagenet_weights())
    tensors["conv_stem.weight"] = timm.models.adapt_input_conv(channels, tensors["conv_stem.weight"])
    found = network.encoder.model.load_state_dict(tensors, strict=False)
    left_out = {name.partition(".")[0] for name in found.unexpected_keys}
    assert not found.missing_keys, found.missing_keys
    assert left_out == {"conv_head", "bn2", "classifier"}, left_out
    return network


def imagenet_weights() -> Mapping[str, Tensor]:
    """Return the ImageNet weights of the encoder by timm's names: the same that pixelwise loads."""
    from pixelwise.models import packaged

    source = packaged.find(ENCODER)
    assert source is not None
    return source.tensors


def _as_documented(
    network: nn.Module, given: Input, train: Dataset, seed: int, deadline: float
) -> tuple[Predictor, int]:
    """DiceLoss, Adam 2e-4, cosine to 1e-5, flips, scaling and colour changes, as in the CamVid example of smp."""
    model = Padded(network, given)
    loss = smp.losses.DiceLoss(smp.losses.MULTICLASS_MODE, from_logits=True, ignore_index=train.labels.ignore_index)
    optimizer = torch.optim.Adam(model.parameters(), 2e-4)
    augment = ResolvedAugment(flip_horizontal=0.5, scale=(0.5, 1.5), brightness=0.2, contrast=0.2, noise=0.05)
    stream = _stream(train, given, augment, seed)
    steps = _fit(model, optimizer, loss, stream, deadline, floor=1e-5 / 2e-4, clip=None)
    return _predictor(model, train, len(given.mean)), steps


def describe_input(train: Dataset, mean: Sequence[float], std: Sequence[float]) -> Input:
    """Return the normalisation of raw values and the size of the crops.

    Args:
        train: the training split.
        mean: red, green, blue, of values from 0 to 255.
        std: likewise.
    """
    chosen = sorted({len(train) * number // _SAMPLE for number in range(_SAMPLE)})
    images = [train.read(index).image for index in chosen]
    sides = (max(image.shape[axis] for image in images) for axis in (1, 2))
    height, width = (min(SIDE, math.ceil(side / STRIDE) * STRIDE) for side in sides)
    bands = len(images[0])
    shift, scale = np.zeros(bands), np.ones(bands)
    if images[0].dtype != np.uint8:
        pixels = np.concatenate([image.reshape(bands, -1) for image in images], axis=1)
        shift, high = np.percentile(pixels, (0.5, 99.5), axis=1)
        scale = np.maximum(high - shift, 1e-9) / 255
    means, stds = (np.array(list(islice(cycle(values), bands))) for values in (mean, std))
    return Input(tuple((shift + scale * means).tolist()), tuple((scale * stds).tolist()), (height, width))


def plain_dice(logits: Tensor, masks: Tensor, ignore_index: int) -> Tensor:
    """The Dice loss of tutorials, restricted to the labelled pixels, without which it raises an error."""
    keep = (masks != ignore_index)[:, None]
    truth = nn.functional.one_hot(masks.where(masks != ignore_index, 0), logits.shape[1]).movedim(-1, 1) * keep
    probabilities = logits.softmax(1) * keep
    intersections = (probabilities * truth).sum((0, 2, 3))
    sums = (probabilities + truth).sum((0, 2, 3))
    return 1 - ((2 * intersections + 1) / (sums + 1)).mean()


def _stream(train: Dataset, given: Input, augment: ResolvedAugment, seed: int) -> Iterator[tuple[Tensor, Tensor]]:
    transform = CropTransform(given.crop, augment, 0.0, train.labels.ignore_index, given.mean, given.std)
    crops = Crops(train, transform, seed, cache=True)
    for batch in batches(crops, batch_size=BATCH, start=0, count=10**6, workers=0):
        yield batch.images, batch.masks


def _fit(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    loss: Callable[[Tensor, Tensor], Tensor],
    stream: Iterator[tuple[Tensor, Tensor]],
    deadline: float,
    *,
    floor: float,
    clip: float | None,
) -> int:
    """Train until the deadline; the cosine schedule follows the clock, so that it always completes."""
    model.train()
    began = time.monotonic()
    seconds = deadline - began
    peak, step, per_step = optimizer.param_groups[0]["lr"], 0, 0.0
    while (elapsed := time.monotonic() - began) + per_step < seconds:
        optimizer.param_groups[0]["lr"] = peak * (
            floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * elapsed / seconds))
        )
        images, masks = next(stream)
        value = loss(model(images), masks)
        optimizer.zero_grad()
        value.backward()
        if clip:
            nn.utils.clip_grad_norm_(model.parameters(), clip)
        optimizer.step()
        step, per_step = step + 1, time.monotonic() - began - elapsed
    return step


def _predictor(model: nn.Module, train: Dataset, channels: int) -> Predictor:
    return Predictor(TorchBackend(model, ModelSpec(train.labels, channels, stride=STRIDE), channels_last=False))


METHODS: Mapping[str, Callable[[Dataset, int, float], tuple[Predictor, int]]] = {
    "tutorial": tutorial,
    "smp": smp_scratch,
    "smp_pretrained": smp_pretrained,
}
