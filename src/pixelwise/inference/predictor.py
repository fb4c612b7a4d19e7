"""The `Predictor`: predict images of any size, whole or in overlapping tiles that are blended.

It works with numpy arrays of two or three spatial axes and with any `Backend`. This module must not import an engine.
"""

from __future__ import annotations

import copy
import itertools
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pixelwise.errors import ConfigError, DataError
from pixelwise.formats.reading import as_bands
from pixelwise.grid import Grid
from pixelwise.imageio.sources import Readable
from pixelwise.inference.ahead import ahead, mapped
from pixelwise.inference.augmentation import mirrored_axes
from pixelwise.inference.backend import Backend, concurrent
from pixelwise.inference.blending import Block, Tile, blend
from pixelwise.inference.decision import bands, most_probable
from pixelwise.inference.layout import Layout
from pixelwise.inference.preparation import prepared, resampled
from pixelwise.inference.tile_result import TileResult
from pixelwise.inference.values import require_finite_output, require_image, require_range
from pixelwise.labels import Labels
from pixelwise.metrics.temperature import tempered
from pixelwise.tiles import Window, padded
from pixelwise.types import ModelSpec, Prediction

Floats = NDArray[np.float32]
Observer = Callable[[int, Floats], None]
Piece = tuple[NDArray[Any], NDArray[np.bool_] | None]
Read = Callable[[Window], Piece]

# Bytes of the logits, and of probabilities that are returned, of neighbouring rows of tiles in `stream`.
_HELD_BYTES = 1 << 29
# Tiles that are read, and that are computed, in advance: enough for the time that a block takes to be decided and written.
_READ_AHEAD = 2
_COMPUTED_AHEAD = 8
# Tiles whose values are compared with those of the training.
_SAMPLE = 9


class Predictor:
    """Predict one image at a time, of any size.

    Args:
        backend: computes logits; its `spec` describes how images are prepared and logits interpreted.
        batch_size: tiles computed at once. It affects the speed only.
        **settings: fields of `ModelSpec` that replace those of the backend: `tile`, `overlap`, `flips`, `mirrors`, `temperature`.
            Tiles are rounded up to multiples of the stride, and to at least two strides if they overlap.

    Raises:
        ConfigError: a value out of range.
    """

    def __init__(self, backend: Backend, *, batch_size: int = 1, **settings: Any) -> None:
        spec = replace(backend.spec, **settings)
        fits = spec.tile is None or (len(spec.tile) == spec.dimensions and min(spec.tile) >= 1)
        _require("tile", spec.tile, fits, f"{spec.dimensions} positive sizes")
        _require("overlap", spec.overlap, 0 <= spec.overlap <= 1, "a share 0…1")
        _require("batch_size", batch_size, batch_size >= 1, "at least 1")
        positive = bool(np.isfinite(spec.temperature)) and spec.temperature > 0
        _require("temperature", spec.temperature, positive, "a positive number")
        self.backend = backend
        self.calls = 1
        self.batch_size = batch_size
        self.copies = mirrored_axes(spec.mirrors if spec.flips else (), spec.dimensions)
        self.spec = replace(spec, tile=_aligned(spec))

    @property
    def labels(self) -> Labels:
        """The classes."""
        return self.spec.labels

    def concurrent(self) -> Predictor:
        """Return the predictor for the highest rate, to be called from `calls` threads at the same time. Predictions are the same.

        Its `stream` computes as many tiles at the same time.
        """
        other = copy.copy(self)
        other.backend, other.calls = concurrent(self.backend)
        return other

    def __call__(
        self,
        image: NDArray[Any],
        grid: Grid | None = None,
        valid: NDArray[np.bool_] | None = None,
        *,
        id: str = "",
        probabilities: bool = False,
    ) -> Prediction:
        """Predict one image. A volume is predicted slice by slice if the model has two dimensions.

        Args:
            image: (C, *S), raw pixel values of any numeric type, any *S ≥ 1.
            grid: spatial reference of the image; a spacing of 1 pixel if not given.
            valid: (*S), false where the image has no data: they are replaced by `spec.fill` and get the ignore index.
            id: name of the image, for messages and for the prediction.
            probabilities: also return them, (K, *S) float32. Otherwise only the logits of neighbouring rows of tiles are held
                in memory, or those of the whole image if it is not divided.

        Raises:
            DataError: wrong axes, bands, size, pixel type or value range, or values that are not finite.
        """
        if not probabilities:
            return self._predict(image, grid, valid, id, None)
        kept = np.empty((self.labels.num_classes, *image.shape[1:]), np.float32)

        def keep(top: int, band: Floats) -> None:
            kept[:, top : top + band.shape[1]] = band

        return replace(self._predict(image, grid, valid, id, keep), probabilities=kept)

    def observed(
        self, image: NDArray[Any], grid: Grid | None, valid: NDArray[np.bool_] | None, id: str, observe: Observer
    ) -> Prediction:
        """Predict one image as in a call, and pass its probabilities on in bands of rows, in the same memory.

        `observe` is called with (first row, probabilities (K, rows, *S[1:]) float32), from the first row to the last.
        """
        return self._predict(image, grid, valid, id, observe)

    def _predict(
        self,
        image: NDArray[Any],
        grid: Grid | None,
        valid: NDArray[np.bool_] | None,
        id: str,
        observe: Observer | None,
    ) -> Prediction:
        where = id or "image"
        labels = self.spec.labels
        if image.ndim == 4 and self.spec.dimensions == 2:
            return self._by_slices(image, grid, valid, id, observe)
        image = self._checked(image, valid, where)
        require_range(image, valid, self.spec, where)
        shape, temperature = image.shape[1:], self.spec.temperature
        image = prepared(image, valid, grid, self.spec)

        def calibrated(top: int, band: Floats) -> None:
            if observe is not None:
                observe(top, tempered(band, temperature))  # masks do not depend on the temperature

        keep = None if observe is None else calibrated
        if image.shape[1:] == shape:
            mask = self._decided(image, valid, where, keep)
        else:
            mask = self._resampled(image, shape, where, keep)
        if valid is not None:
            mask[~valid] = labels.ignore_index
        return Prediction(mask, labels, grid or Grid().with_axes(self.spec.dimensions), id, valid=valid)

    def _by_slices(
        self,
        image: NDArray[Any],
        grid: Grid | None,
        valid: NDArray[np.bool_] | None,
        id: str,
        observe: Observer | None,
    ) -> Prediction:
        """Predict each slice of a volume (C, D, H, W) as an image."""
        masks = []
        slab: Floats = np.empty((self.labels.num_classes, 1, *image.shape[2:]), np.float32)

        def keep(top: int, band: Floats) -> None:
            slab[:, 0, top : top + band.shape[1]] = band

        for index in range(image.shape[1]):
            around = self._around(index, image.shape[1])
            stacked = np.concatenate([image[:, other] for other in around])
            counted = None if valid is None else np.asarray(valid[around].all(axis=0))
            name = f"{id or 'image'}, slice {index}"
            masks.append(self._predict(stacked, None, counted, name, observe and keep).mask)
            if observe is not None:
                observe(index, slab)
        return Prediction(np.stack(masks), self.labels, grid or Grid().with_axes(3), id, valid=valid)

    def _around(self, index: int, depth: int) -> list[int]:
        """Return the slices whose bands a network sees for one of them, as `formats.volume_slices` has them in training."""
        reach = self.spec.neighbours
        return [min(max(other, 0), depth - 1) for other in range(index - reach, index + reach + 1)]

    def _decided(
        self, image: NDArray[Any], valid: NDArray[np.bool_] | None, where: str, observe: Observer | None
    ) -> NDArray[Any]:
        """Return the mask (*S) of a prepared image, and pass its probabilities on in bands."""
        tile, shape = self.spec.tile, image.shape[1:]
        if tile is None or all(size <= side for size, side in zip(shape, tile, strict=True)):
            return self._whole(image, where, observe)
        mask = np.empty(shape, self.labels.dtype)
        every = self.blocks(shape) if observe is None else self.layout(shape).rows
        for block in self._blocks(every, shape, _reader(image, valid), where, probabilities=observe is not None):
            mask[block.window.slices] = block.mask
            if observe is not None and block.probabilities is not None:
                observe(block.window.start[0], block.probabilities)
        return mask

    def _resampled(
        self, image: NDArray[Any], shape: tuple[int, ...], where: str, observe: Observer | None
    ) -> NDArray[Any]:
        """Return the mask in the size of the image before it was resampled: the most probable class after resampling back.

        The probabilities at the size of the network are held in memory.
        """
        labels = self.spec.labels
        small = np.empty((labels.num_classes, *image.shape[1:]), np.float32)

        def keep(top: int, band: Floats) -> None:
            small[:, top : top + band.shape[1]] = band

        self._decided(image, None, where, keep)
        mask = np.empty(shape, labels.dtype)
        for rows in bands(labels.num_classes, shape):
            band = resampled(small, shape, rows)
            mask[rows] = most_probable(band, labels.dtype)
            if observe is not None:
                observe(rows.start, band)
        return mask

    def _whole(self, image: NDArray[Any], where: str, observe: Observer | None) -> NDArray[Any]:
        """Return the mask (*S) of an image that is not divided, and pass its probabilities on in bands."""
        labels = self.spec.labels
        (result,) = self._results(image[None], where)
        if observe is not None:
            for rows in bands(labels.num_classes, image.shape[1:]):
                observe(rows.start, result.probabilities(rows))
        return result.mask(labels.dtype)

    def stream(self, source: Readable, where: str, *, probabilities: bool = False, done: int = 0) -> Iterator[Block]:
        """Predict an image in tiles, block by block, in memory that does not grow with its size.

        Only for models with `spec.intensity` "data" and without `spec.spacing`: others need the whole image first.
        Reading, computing and the work of the caller overlap. The blocks are those of `blocks`, and their masks those of a
        call on the whole image, with the ignore index where it has no data.

        Args:
            source: the image.
            where: its name in messages.
            probabilities: return them, too.
            done: number of blocks that are known from an earlier call, and left out.

        Raises:
            DataError: see `__call__`. Values are compared with those of the training in a sample of the image.
        """
        labels, shape = self.spec.labels, source.shape

        def read(window: Window) -> Piece:
            image, valid = source.read(window)
            return prepared(self._checked(image, valid, where), valid, None, self.spec), valid

        if source.dtype.kind == "f" and not done:
            self._require_range_of(source, where)
        every = self.blocks(shape, probabilities=probabilities)[done:]
        for block in self._blocks(every, shape, read, where, probabilities=probabilities, overlapping=True):
            if block.valid is not None:
                block.mask[~block.valid] = labels.ignore_index
            if block.probabilities is not None:
                block = replace(block, probabilities=tempered(block.probabilities, self.spec.temperature))
            yield block

    def blocks(self, shape: Sequence[int], *, probabilities: bool = False) -> list[Window]:
        """Return the windows of the blocks in which `stream` predicts an image of size *S, in their order.

        A block has the rows between the starts of two rows of tiles. Where the logits of these rows would exceed a limit, the
        image is divided into strips along the further axes, one after the other.
        """
        layout = self.layout(shape)
        logits = math.prod(-(-size // self.spec.logit_scale) for size in layout.tile) * len(self.copies)
        more = 2 * math.prod(layout.tile) if probabilities else 0
        numbers = self.labels.num_classes * (layout.rows_held * logits + more)
        return layout.blocks(_HELD_BYTES // (4 * numbers))

    def layout(self, shape: Sequence[int]) -> Layout:
        """Return the tiles of an image of size *S; without `spec.tile`, one for the whole image."""
        tile = self.spec.tile or tuple(padded(size, self.spec.stride) for size in shape)
        return Layout(tuple(shape), tile, self.spec.overlap, self.spec.stride)

    def _blocks(
        self,
        every: Sequence[Window],
        shape: tuple[int, ...],
        read: Read,
        where: str,
        *,
        probabilities: bool,
        overlapping: bool = False,
    ) -> Iterator[Block]:
        """Predict blocks of an image, with their probabilities before the temperature."""
        layout, labels = self.layout(shape), self.labels
        for _, strip in itertools.groupby(every, lambda window: (window.start[1:], window.stop[1:])):
            blocks = list(strip)
            box = Window(blocks[0].start, blocks[-1].stop)
            inside = layout.inside(box)
            tiles = self._tiles(read, inside, where, overlapping=overlapping)
            yield from blend(
                inside, tiles, layout.tile, labels.num_classes, labels.dtype, box=box, probabilities=probabilities
            )

    def _tiles(self, read: Read, places: Sequence[Window], where: str, *, overlapping: bool = False) -> Iterator[Tile]:
        """Compute the tiles of the windows; neighbours of equal shape are computed together.

        With `overlapping`, the next ones are read and computed by threads.
        """
        batches = [
            batch
            for _, alike in itertools.groupby(places, lambda window: window.shape)
            for batch in _batched(alike, self.batch_size)
        ]
        pieces = ([read(window) for window in batch] for batch in batches)
        compute = partial(self._computed, where)
        if overlapping:
            read_ahead = zip(batches, ahead(pieces, _READ_AHEAD + self.calls), strict=True)
            results = mapped(compute, read_ahead, self.calls, _COMPUTED_AHEAD)
        else:
            results = map(compute, zip(batches, pieces, strict=True))
        return itertools.chain.from_iterable(results)

    def _computed(self, where: str, found: tuple[Sequence[Window], Sequence[Piece]]) -> list[Tile]:
        """Compute tiles of equal shape; those without any data are left out."""
        batch, pieces = found
        images = [image for image, valid in pieces if valid is None or valid.any()]
        results = iter(self._results(np.stack(images), where) if images else ())
        return [
            Tile(window, None if valid is not None and not valid.any() else next(results), valid)
            for window, (_, valid) in zip(batch, pieces, strict=True)
        ]

    def _results(self, images: NDArray[Any], where: str) -> list[TileResult]:
        """Compute the logits of images (B, C, *S) and of their mirrored copies.

        Raises:
            DataError: they are not finite, or of another shape than the spec says.
        """
        copies = [(axes, self._logits(_mirrored(images, axes))) for axes in self.copies]
        for _, logits in copies:
            require_finite_output(logits, where)
        return [
            TileResult(images.shape[2:], [(axes, logits[index]) for axes, logits in copies], self.spec.logit_scale)
            for index in range(len(images))
        ]

    def _require_range_of(self, source: Readable, where: str) -> None:
        """Raise as `require_range`, by a sample of the tiles of an image."""
        places = self.layout(source.shape).places
        sample = [source.read(place) for place in places[:: max(1, len(places) // _SAMPLE)]]
        image = np.concatenate([part.reshape(len(part), -1) for part, _ in sample], axis=1)
        valid = np.concatenate([np.ones(part[0].size, bool) if v is None else v.reshape(-1) for part, v in sample])
        require_range(image, valid, self.spec, where)

    def _checked(self, image: NDArray[Any], valid: NDArray[np.bool_] | None, where: str) -> NDArray[Any]:
        """Return an image in the bands of the model, after checking it."""
        if image.ndim == 3 and self.spec.dimensions == 2:
            image = as_bands(image, self.spec.colour_mode)
        require_image(image, valid, self.spec, where)
        return image

    def _logits(self, images: NDArray[Any]) -> Floats:
        """Return logits (B, K, *n) as the backend computes them.

        Raises:
            DataError: another number of classes or of logits than the spec says.
        """
        logits = self.backend(images)
        scale = self.spec.logit_scale
        expected = (len(images), self.spec.labels.num_classes, *(-(-size // scale) for size in images.shape[2:]))
        found = logits.shape
        if scale > 1 and len(found) == len(expected):
            # A network may compute logits of its padding, too.
            found = (*found[:2], *map(min, found[2:], expected[2:]))
        if found != expected:
            raise DataError(
                "model",
                expected=f"logits of shape {expected}" + (", or more rows and columns" if scale > 1 else ""),
                found=str(logits.shape),
                do="Use labels with as many classes as the model has.",
            )
        return logits


def _batched(windows: Iterable[Window], size: int) -> Iterator[list[Window]]:
    source = iter(windows)
    while batch := list(itertools.islice(source, size)):
        yield batch


def _reader(image: NDArray[Any], valid: NDArray[np.bool_] | None) -> Read:
    """Return a function that cuts windows out of an image in memory."""
    return lambda window: (image[:, *window.slices], None if valid is None else valid[window.slices])


def _aligned(spec: ModelSpec) -> tuple[int, ...] | None:
    """Return the tile rounded up to multiples of the stride."""
    least = 2 * spec.stride if spec.overlap else spec.stride
    return None if spec.tile is None else tuple(padded(max(size, least), spec.stride) for size in spec.tile)


def _mirrored(images: NDArray[Any], axes: tuple[int, ...]) -> NDArray[Any]:
    return np.ascontiguousarray(np.flip(images, axes))


def _require(name: str, value: object, valid: bool, expected: str) -> None:
    if not valid:
        raise ConfigError(f"predict.{name}", expected=expected, found=str(value), do="Correct the value.")
