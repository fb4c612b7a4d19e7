"""Training batches whose order and augmentation are functions of (seed, epoch, sample index) alone.

Batches are the same with any number of worker processes and after any interruption. The images form an endless stream of
epochs, each a permutation drawn from (seed, epoch). A batch may span two epochs, so all batches have the same size.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import numpy as np
import torch
from torch.utils.data import DataLoader, Sampler, get_worker_info
from torch.utils.data import Dataset as TorchDataset

from pixelwise.batch import Batch
from pixelwise.datasets.dataset import Dataset
from pixelwise.errors import ImageError, PixelwiseError
from pixelwise.formats.reading import image_size, mixed_forms
from pixelwise.imageio.images import fill_invalid
from pixelwise.inference.preparation import nearest, prepared
from pixelwise.machine import free_memory
from pixelwise.training.transforms import CropTransform
from pixelwise.training.volume_crops import VolumeTransform
from pixelwise.types import ModelSpec

Key = tuple[int, int]
Draw = Callable[[torch.Tensor, torch.Tensor, np.random.Generator], tuple[torch.Tensor, torch.Tensor]]
Transform = CropTransform | VolumeTransform
_ORDER, _DRAW = 0, 1
_MOST_OF_SCENES = 1 << 29  # bytes


class Stream(Sampler[Key]):
    """Yield (epoch, sample index) for every position from `start` to `stop` of the endless stream."""

    def __init__(self, length: int, seed: int, start: int, stop: int) -> None:
        self.length = length
        self.seed = seed
        self.start = start
        self.stop = stop

    def __len__(self) -> int:
        """Return the number of positions."""
        return self.stop - self.start

    def __iter__(self) -> Iterator[Key]:
        """Yield the keys in order."""
        epoch, order = -1, np.empty(0, int)
        for position in range(self.start, self.stop):
            if position // self.length != epoch:
                epoch = position // self.length
                order = np.random.default_rng([_ORDER, self.seed, epoch]).permutation(self.length)
            yield epoch, int(order[position % self.length])


class Crops(TorchDataset[tuple[torch.Tensor, torch.Tensor, str] | PixelwiseError]):
    """Map (epoch, index) to a random crop.

    Forked workers share the cache; workers that are spawned (macOS, Windows) have a copy each.

    Args:
        dataset: images with masks.
        transform: draws the crop.
        seed: random seed.
        cache: keep decoded images in memory.
        form: number of bands and numpy dtype name of every image; None: not checked.
        spec: how images are prepared, as in prediction; None: only invalid pixels are filled.
    """

    def __init__(
        self,
        dataset: Dataset,
        transform: Transform,
        seed: int,
        cache: bool,
        form: tuple[int, str] | None = None,
        spec: ModelSpec | None = None,
    ) -> None:
        self.dataset, self.transform, self.seed, self.form, self.spec = dataset, transform, seed, form, spec
        self.kept = [self._read(i) for i in range(len(dataset))] if cache else None

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.dataset)

    def _read(self, index: int) -> tuple[torch.Tensor, torch.Tensor, str]:
        sample = self.dataset.read(index)
        found = (sample.image.shape[0], sample.image.dtype.name)
        # The fingerprint was computed from a sample of the images.
        if self.form is not None and found != self.form:
            bands, kind = self.form
            raise ImageError(
                self.dataset.records[index].image,
                expected=f"{bands} band{'s' * (bands != 1)} of {kind}, as in the other images",
                found=f"{found[0]} of {found[1]}",
                do=mixed_forms({self.form, found}) + " `pixelwise check` lists them.",
            )
        mask = sample.truth(self.transform.ignore_index)
        assert mask is not None, "training records have masks"
        if self.spec is None:
            image = fill_invalid(sample.image, sample.valid, self.transform.mean)
        else:
            image = prepared(sample.image, sample.valid, sample.grid, self.spec)
            mask = nearest(mask, image.shape[1:])
        return _tensor(image), _tensor(mask), sample.id

    def __getitem__(self, key: Key) -> tuple[torch.Tensor, torch.Tensor, str] | PixelwiseError:
        """Return the crop of image `key[1]` in epoch `key[0]`; a worker process returns an error instead of raising it."""
        return self.draw(key, self.transform, _DRAW)

    def draw(self, key: Key, transform: Draw, purpose: int) -> tuple[torch.Tensor, torch.Tensor, str] | PixelwiseError:
        """Apply a random transform to image `key[1]`; its randomness depends on the key, the seed and the purpose."""
        epoch, index = key
        try:
            image, mask, name = self.kept[index] if self.kept is not None else self._read(index)
        except PixelwiseError as error:
            if get_worker_info() is None:
                raise
            return error  # torch would raise a RuntimeError with the traceback as its message
        rng = np.random.default_rng([purpose, self.seed, epoch, index])
        return (*transform(image, mask, rng), name)


def _tensor(array: np.ndarray) -> torch.Tensor:
    """Convert an array to a tensor; unsigned types without torch arithmetic become the next larger signed type."""
    array = array.astype(array.dtype.newbyteorder("="), copy=not array.flags.writeable)
    if array.dtype == np.uint16:
        array = array.astype(np.int32)
    elif array.dtype == np.uint32:
        array = array.astype(np.int64)
    return torch.from_numpy(np.ascontiguousarray(array))


def cache_fits(dataset: Dataset, dtype: str) -> bool:
    """Whether all decoded images and masks fit a quarter of the free memory, those with windows of scenes also 512 MB.

    Whole volumes are counted as float32, to which they are normalised or resampled, at their own spacing.
    """
    left = (free_memory() or 0) / 4
    if any(record.window is not None for record in dataset.records):
        left = min(left, _MOST_OF_SCENES)  # a larger scene must not be decoded as a whole
    per_value = _tensor(np.zeros(1, dtype)).element_size()
    per_label = _tensor(np.zeros(1, dataset.labels.dtype)).element_size()
    for record in dataset.records:
        stored, *size = image_size(record)
        bands = {"rgb": 3, "grey": 1}.get(dataset.bands or "", stored) if stored in (1, 3) else stored
        left -= math.prod(size) * (bands * (max(per_value, 4) if record.stack else per_value) + per_label)
        if left < 0:
            return False
    return True


def batches(
    crops: Crops, *, batch_size: int, start: int, count: int, workers: int, pin: bool = False
) -> Iterator[Batch]:
    """Yield `count` batches, beginning with batch number `start` of the stream.

    Args:
        crops: the training images.
        batch_size: crops per batch.
        start: number of batches already used.
        count: number of batches.
        workers: number of worker processes; 0: load in this process. The batches do not depend on it.
        pin: put the batches into memory from which a GPU can copy on its own.
    """
    loader = DataLoader(
        crops,
        batch_size=batch_size,
        sampler=Stream(len(crops), crops.seed, start * batch_size, (start + count) * batch_size),
        num_workers=workers,
        collate_fn=_collate,
        worker_init_fn=quiet_worker if workers else None,
        pin_memory=pin,
        # By default the loader draws from the global generator.
        generator=torch.Generator(),
    )
    for batch in loader:
        if isinstance(batch, PixelwiseError):
            raise batch
        yield batch


def quiet_worker(_: int) -> None:
    """Let the parent process handle Ctrl-C: a worker would end with a traceback."""
    import signal

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    torch.set_num_threads(1)


def _collate(items: list[tuple[torch.Tensor, torch.Tensor, str] | PixelwiseError]) -> Batch | PixelwiseError:
    crops = []
    for item in items:
        if isinstance(item, PixelwiseError):
            return item
        crops.append(item)
    images, masks, ids = zip(*crops, strict=True)
    stacked = [torch.stack([t.as_subclass(torch.Tensor) for t in tensors]) for tensors in (images, masks)]
    return Batch(stacked[0], stacked[1], tuple(ids))
