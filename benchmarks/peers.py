"""The baselines of `quality_per_minute`: a tutorial's U-Net, and segmentation_models.pytorch as documented.

Both use the data loading of pixelwise (decoded once, cached in memory) with random crops of 256×256, spend no time on
validation, and are scored by pixelwise on whole images at native size.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator

import segmentation_models_pytorch as smp
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

BATCH, SIZE = 8, (256, 256)
IMAGENET_MEAN, IMAGENET_STD = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)


class Padded(nn.Module):
    """Normalise with the ImageNet statistics, pad to a multiple of 32, call the network, crop the padding."""

    def __init__(self, network: nn.Module, channels: int) -> None:
        super().__init__()
        self.network = network
        self.register_buffer("mean", torch.tensor(IMAGENET_MEAN[:channels]).view(1, -1, 1, 1))
        self.register_buffer("std", torch.tensor(IMAGENET_STD[:channels]).view(1, -1, 1, 1))

    def forward(self, images: Tensor) -> Tensor:
        x = (images.float() - self.mean) / self.std
        height, width = x.shape[-2:]
        x = nn.functional.pad(x, (0, -width % 32, 0, -height % 32))
        return self.network(x)[..., :height, :width]


def tutorial(train: Dataset, channels: int, seed: int, seconds: float) -> tuple[Predictor, int]:
    """Plain U-Net [32, 64, 128, 256], AdamW 1e-3, decay 0.01, cosine, CE + Dice 0.5/0.5, batch 8, clip 1.0, no augmentation."""
    began = time.monotonic()
    torch.manual_seed(seed)
    model = Padded(UNet(channels, train.labels.num_classes, features=(32, 64, 128, 256)), channels)
    ignore_index = train.labels.ignore_index

    def loss(logits: Tensor, masks: Tensor) -> Tensor:
        entropy = nn.functional.cross_entropy(logits, masks, ignore_index=ignore_index)
        return 0.5 * entropy + 0.5 * _plain_dice(logits, masks, ignore_index)

    optimizer = torch.optim.AdamW(model.parameters(), 1e-3, weight_decay=0.01)
    steps = _fit(model, optimizer, loss, _stream(train, ResolvedAugment(), seed), began, seconds, floor=0.0, clip=1.0)
    return _predictor(model, train, channels), steps


def documented_smp(train: Dataset, channels: int, seed: int, seconds: float) -> tuple[Predictor, int]:
    """smp.Unet("resnet18", untrained), DiceLoss, Adam 2e-4, cosine to 1e-5, flips, scaling and colour changes as in its CamVid example."""
    began = time.monotonic()
    torch.manual_seed(seed)
    network = smp.Unet("resnet18", encoder_weights=None, in_channels=channels, classes=train.labels.num_classes)
    model = Padded(network, channels)
    loss = smp.losses.DiceLoss(smp.losses.MULTICLASS_MODE, from_logits=True, ignore_index=train.labels.ignore_index)
    optimizer = torch.optim.Adam(model.parameters(), 2e-4)
    augment = ResolvedAugment(flip_horizontal=0.5, scale=(0.5, 1.5), brightness=0.2, contrast=0.2, noise=0.05)
    steps = _fit(model, optimizer, loss, _stream(train, augment, seed), began, seconds, floor=1e-5 / 2e-4, clip=None)
    return _predictor(model, train, channels), steps


def _plain_dice(logits: Tensor, masks: Tensor, ignore_index: int) -> Tensor:
    """The Dice loss of tutorials, restricted to the labelled pixels, without which it raises an error."""
    keep = (masks != ignore_index)[:, None]
    truth = nn.functional.one_hot(masks.where(masks != ignore_index, 0), logits.shape[1]).movedim(-1, 1) * keep
    probabilities = logits.softmax(1) * keep
    intersections = (probabilities * truth).sum((0, 2, 3))
    sums = (probabilities + truth).sum((0, 2, 3))
    return 1 - ((2 * intersections + 1) / (sums + 1)).mean()


def _stream(train: Dataset, augment: ResolvedAugment, seed: int) -> Iterator[tuple[Tensor, Tensor]]:
    bands = train.read(0).image.shape[0]
    transform = CropTransform(
        SIZE, augment, 0.0, train.labels.ignore_index, IMAGENET_MEAN[:bands], IMAGENET_STD[:bands]
    )
    crops = Crops(train, transform, seed, cache=True)
    for batch in batches(crops, batch_size=BATCH, start=0, count=10**6, workers=0):
        yield batch.images, batch.masks


def _fit(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    loss: Callable[[Tensor, Tensor], Tensor],
    stream: Iterator[tuple[Tensor, Tensor]],
    began: float,
    seconds: float,
    *,
    floor: float,
    clip: float | None,
) -> int:
    """Train until the time is up; the cosine schedule follows the clock, so that it always completes."""
    model.train()
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
    return Predictor(TorchBackend(model, ModelSpec(train.labels, channels, stride=32), channels_last=False))
