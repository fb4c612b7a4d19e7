"""Training on the features of a frozen encoder, which are computed once per augmented copy of an image.

While the encoder is frozen, its features depend only on the image. Each image gets several augmented copies; epoch e uses copy
(e + index) mod copies. The decoder is trained on windows of the features, aligned to the stride of the model.

Features are rounded to fp16 and computed one copy at a time, whether they are stored or not, so the result of training does not
depend on how many are stored, where, or after which interruption.
"""

from __future__ import annotations

import shutil
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as TorchDataset

from pixelwise.batch import Batch
from pixelwise.config import ResolvedTrain
from pixelwise.errors import PixelwiseError
from pixelwise.machine import free_memory
from pixelwise.models.base import SegmentationModel, evaluating
from pixelwise.tiles import padded
from pixelwise.training.loader import Crops, Key, Stream, quiet_worker
from pixelwise.training.transforms import CropTransform, class_pixel

# Larger images are represented by copies of a part of them.
LARGEST_COPY = 512
FILE = "features.bin"
_COPY, _WINDOW = 2, 3
_MEMORY_SHARE, _DISK_SHARE = 0.4, 0.5
_LARGEST_FP16 = 65504.0


@dataclass(frozen=True)
class Features:
    """The features of one copy.

    Args:
        maps: fp16 (c, h, w) each.
        mask: (H, W), class indices; H and W are multiples of the stride of the model.
        name: of the image.
    """

    maps: tuple[Tensor, ...]
    mask: Tensor
    name: str

    @property
    def bytes(self) -> int:
        """Memory of all tensors."""
        return sum(t.numel() * t.element_size() for t in (*self.maps, self.mask))


class Copies(TorchDataset[tuple[Tensor, Tensor, str] | PixelwiseError]):
    """Map (copy, index) to an augmented copy of an image: pixels (C, H, W) float32 and mask (H, W) int64.

    A copy has the size of the image, rounded up to multiples of the stride, and at least that of a window; of images larger
    than `LARGEST_COPY`, it shows a part.
    """

    def __init__(self, crops: Crops, model: SegmentationModel) -> None:
        self.crops, self.stride, self.smallest = crops, model.stride, model.smallest

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.crops)

    def __getitem__(self, key: Key) -> tuple[Tensor, Tensor, str] | PixelwiseError:
        """Return copy `key[0]` of image `key[1]`; a worker process returns an error instead of raising it."""
        return self.crops.draw(key, self._whole, _COPY)

    def window(self) -> list[int]:
        """Return the size of a window: that of a crop, rounded up to what the model needs."""
        return [padded(max(side, self.smallest), self.stride) for side in self.crops.transform.crop]

    def _whole(self, image: Tensor, mask: Tensor, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
        height, width = (
            max(padded(min(side, LARGEST_COPY), self.stride), window)
            for side, window in zip(mask.shape, self.window(), strict=True)
        )
        transform = self.crops.transform
        assert isinstance(transform, CropTransform), "features are those of images"
        return replace(transform, crop=(height, width), class_crops=0.0)(image, mask, rng)


def encode(model: SegmentationModel, image: Tensor, train: ResolvedTrain) -> tuple[Tensor, ...]:
    """Return the features (c, h, w) of one image (C, H, W) as fp16, on the CPU."""
    device = torch.device(train.device)
    layout = torch.channels_last if train.channels_last else torch.contiguous_format
    bf16 = train.precision == "bf16"
    with torch.no_grad(), evaluating(model), torch.autocast(device.type, torch.bfloat16, bf16):
        maps = model.encode(image[None].to(device, memory_format=layout))
    return tuple(each[0].float().clamp(-_LARGEST_FP16, _LARGEST_FP16).half().cpu() for each in maps)


class FeatureBank:
    """Batches of windows of the features of a frozen encoder.

    Args:
        crops: the training images, the size of a window, and the augmentation of the copies.
        model: `separable`, with an encoder that does not change.
        train: device, precision and number of copies.
        folder: for a file with features that do not fit into memory.
    """

    def __init__(self, crops: Crops, model: SegmentationModel, train: ResolvedTrain, folder: Path) -> None:
        self.copies = Copies(crops, model)
        self.crops, self.model, self.train = crops, model, train
        self.path = folder / FILE
        self.stored: dict[Key, Features] = {}
        self.bytes = 0
        self.place = "memory"

    def features(self, key: Key) -> Features:
        """Return the features of copy `key[0]` of image `key[1]`, stored or computed.

        Raises:
            PixelwiseError: the image cannot be read.
        """
        return self.stored.get(key) or self._computed(self.copies[key])

    def _computed(self, item: tuple[Tensor, Tensor, str] | PixelwiseError) -> Features:
        if isinstance(item, PixelwiseError):
            raise item
        image, mask, name = item[0].as_subclass(Tensor), item[1].as_subclass(Tensor), item[2]
        # Masks have at most 65,536 values: see `Labels.dtype`.
        small = mask.to(torch.uint8 if self.crops.dataset.labels.dtype == np.uint8 else torch.int32)
        return Features(encode(self.model, image, self.train), small, name)

    def cost(self) -> tuple[float, int]:
        """Measure the seconds and bytes of the features of one copy, reading and augmentation included.

        The seconds are the median of three, the bytes their mean.
        """
        self.features((0, 0))
        count = min(len(self.crops), 3)
        seconds, size = [], 0
        for index in range(count):
            started = time.perf_counter()
            size += self.features((0, index)).bytes
            seconds.append(time.perf_counter() - started)
        return statistics.median(seconds), max(size // count, 1)

    def fill(
        self, seconds_left: Callable[[], float], progress: Callable[[int, int], None], check: Callable[[], None]
    ) -> None:
        """Compute and store features, copy by copy, until all are stored, or memory, disk or time are used up.

        Args:
            seconds_left: time that is left for it.
            progress: called with (done, total).
            check: called between two images; raises if the user wants to stop.
        """
        self.clear()  # the file of a run that was killed
        keys = [(copy, index) for copy in range(self.train.copies) for index in range(len(self.crops))]
        loader = DataLoader(
            self.copies,
            batch_size=None,
            sampler=keys,
            num_workers=self.train.workers,
            worker_init_fn=quiet_worker if self.train.workers else None,
            generator=torch.Generator(),
        )
        store = _Store(self.path)
        try:
            for done, (key, item) in enumerate(zip(keys, loader, strict=True)):
                features = self._computed(item)
                if not store.put(key, features, len(keys) - done):
                    break
                progress(done + 1, len(keys))
                check()
                if seconds_left() <= 0:
                    break
        finally:
            self.stored = store.close()
            self.place = "disk" if store.file else "memory"
        self.bytes = sum(features.bytes for features in self.stored.values())

    def clear(self) -> None:
        """Release memory and disk."""
        self.stored.clear()
        with suppress(OSError):
            self.path.unlink(missing_ok=True)

    def batches(self, *, batch_size: int, start: int, count: int) -> Iterator[Batch]:
        """Yield `count` batches, beginning with batch number `start` of the stream; see `loader.batches`."""
        stream = Stream(len(self.crops), self.crops.seed, start * batch_size, (start + count) * batch_size)
        keys = iter(stream)
        for _ in range(count):
            windows = [self._window(next(keys)) for _ in range(batch_size)]
            maps = tuple(torch.stack(each) for each in zip(*(w.maps for w in windows), strict=True))
            masks = torch.stack([w.mask for w in windows]).long()
            yield Batch(masks.new_empty(batch_size, 0, *masks.shape[1:]), masks, tuple(w.name for w in windows), maps)

    def _window(self, key: Key) -> Features:
        """Return the window that epoch `key[0]` uses of image `key[1]`."""
        epoch, index = key
        whole = self.features(((epoch + index) % self.train.copies, index))
        rng = np.random.default_rng([_WINDOW, self.crops.seed, epoch, index])
        stride, transform = self.model.stride, self.crops.transform
        size = self.copies.window()
        last = [(side - n) // stride for side, n in zip(whole.mask.shape, size, strict=True)]
        cell = [int(rng.integers(0, most + 1)) for most in last]
        if rng.random() < transform.class_crops:
            pixel = class_pixel(whole.mask.numpy(), transform.ignore_index, rng)
            if pixel is not None:
                shift = rng.uniform(-0.25, 0.25, 2) * size
                cell = [round((at - n / 2 + s) / stride) for at, n, s in zip(pixel, size, shift, strict=True)]
        begin = [min(max(at, 0), most) * stride for at, most in zip(cell, last, strict=True)]
        box = [(at, at + n) for at, n in zip(begin, size, strict=True)]
        maps = tuple(_part(each, box, whole.mask.shape) for each in whole.maps)
        return Features(maps, _part(whole.mask, box, whole.mask.shape), whole.name)


def _part(tensor: Tensor, box: Sequence[tuple[int, int]], size: Sequence[int]) -> Tensor:
    """Return the part of a map that covers a box of the image; a map with values for the image as a whole is kept."""
    slices = []
    for (begin, end), side, cells in zip(box, size, tensor.shape[-2:], strict=True):
        if begin * cells % side or end * cells % side:
            return tensor
        slices.append(slice(begin * cells // side, end * cells // side))
    return tensor[..., slices[0], slices[1]]


def storable_bytes() -> float:
    """Return the size of the features that may be kept in memory."""
    return (free_memory() or 0) * _MEMORY_SHARE


class _Store:
    """Features in memory, or in one file if they do not fit.

    Args:
        path: of the file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.kept: dict[Key, Features] = {}
        self.file: IO[bytes] | None = None
        self.left: float | None = None
        self.filed: list[tuple[Key, Features]] = []

    def put(self, key: Key, features: Features, remaining: int) -> bool:
        """Store features; return false if there is no space.

        Args:
            key: copy and index.
            features: to store.
            remaining: number of features to come, these included.
        """
        if self.left is None:
            self._choose(features.bytes * remaining)
        assert self.left is not None
        if self.left < features.bytes:
            return False
        self.left -= features.bytes
        if self.file is None:
            self.kept[key] = features
            return True
        try:
            for tensor in (*features.maps, features.mask):
                self.file.write(np.ascontiguousarray(tensor.numpy()).tobytes())
        except OSError:  # the disk is full
            return False
        empty = tuple(torch.empty(t.shape, dtype=t.dtype, device="meta") for t in (*features.maps, features.mask))
        self.filed.append((key, Features(empty[:-1], empty[-1], features.name)))
        return True

    def _choose(self, expected: int) -> None:
        """Choose memory or disk."""
        memory = storable_bytes()
        if expected > memory:
            with suppress(OSError):
                disk = shutil.disk_usage(self.path.parent).free * _DISK_SHARE
                if disk > memory:
                    self.file, self.left = self.path.open("wb"), disk
                    return
        self.left = memory

    def close(self) -> dict[Key, Features]:
        """Return all stored features; those of a file are mapped into memory."""
        if self.file is None:
            return self.kept
        with suppress(OSError):
            self.file.close()
        size = sum(features.bytes for _, features in self.filed)
        if not size or self.path.stat().st_size < size:
            return {}
        data, offset = np.memmap(self.path, np.uint8, "c", shape=(size,)), 0
        for key, features in self.filed:
            tensors = []
            for shape in (*features.maps, features.mask):
                count = shape.numel() * shape.element_size()
                tensors.append(_mapped(data[offset : offset + count], shape))
                offset += count
            self.kept[key] = Features(tuple(tensors[:-1]), tensors[-1], features.name)
        return self.kept


def _mapped(part: np.ndarray, like: Tensor) -> Tensor:
    kind = {torch.float16: np.float16, torch.uint8: np.uint8, torch.int32: np.int32}[like.dtype]
    return torch.from_numpy(part.view(kind).reshape(like.shape))
