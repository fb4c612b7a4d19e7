"""The `Predictor`: predict images of any size, whole or in overlapping tiles that are blended.

It works with numpy arrays of two or three spatial axes and with any `Backend`. This module must not import an engine.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pixelwise.errors import ConfigError, DataError, wrong_bands
from pixelwise.formats.reading import as_bands
from pixelwise.grid import Grid
from pixelwise.inference.augmentation import average_over_flips, mirrored_axes
from pixelwise.inference.backend import Backend
from pixelwise.inference.blending import blend
from pixelwise.inference.decision import bands, decide, enlarge, most_probable, softmax
from pixelwise.inference.preparation import prepared, resampled
from pixelwise.labels import Labels
from pixelwise.metrics.temperature import tempered
from pixelwise.tiles import Window, padded, windows
from pixelwise.types import ModelSpec, Prediction

Floats = NDArray[np.float32]
Observer = Callable[[int, Floats], None]


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
        self.batch_size = batch_size
        self.copies = mirrored_axes(spec.mirrors if spec.flips else (), spec.dimensions)
        self.spec = replace(spec, tile=_aligned(spec))

    @property
    def labels(self) -> Labels:
        """The classes."""
        return self.spec.labels

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
            probabilities: also return them, (K, *S) float32. Otherwise only one row of tiles is held in memory, or the
                logits of the backend if the image is predicted whole.

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
        if image.ndim == 3 and self.spec.dimensions == 2:
            image = as_bands(image, self.spec.colour_mode)
        self._require_image(image, valid, where)
        shape, temperature = image.shape[1:], self.spec.temperature
        image = prepared(image, valid, grid, self.spec)

        def calibrated(top: int, band: Floats) -> None:
            if observe is not None:
                observe(top, tempered(band, temperature))  # masks do not depend on the temperature

        keep = None if observe is None else calibrated
        if image.shape[1:] == shape:
            mask = self._decided(image, where, keep)
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
            counted = None if valid is None else valid[index]
            name = f"{id or 'image'}, slice {index}"
            masks.append(self._predict(image[:, index], None, counted, name, observe and keep).mask)
            if observe is not None:
                observe(index, slab)
        return Prediction(np.stack(masks), self.labels, grid or Grid().with_axes(3), id, valid=valid)

    def _decided(self, image: NDArray[Any], where: str, observe: Observer | None) -> NDArray[Any]:
        """Return the mask (*S) of a prepared image, and pass its probabilities on in bands."""
        tile, shape = self.spec.tile, image.shape[1:]
        fits = tile is None or all(size <= side for size, side in zip(shape, tile, strict=True))
        return (self._whole if fits else self._tiled)(image, where, observe)

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

        self._decided(image, where, keep)
        mask = np.empty(shape, labels.dtype)
        for rows in bands(labels.num_classes, shape):
            band = resampled(small, shape, rows)
            mask[rows] = most_probable(band, labels.dtype)
            if observe is not None:
                observe(rows.start, band)
        return mask

    def _whole(self, image: NDArray[Any], where: str, observe: Observer | None) -> NDArray[Any]:
        """Return the mask (*S) of an image that is not divided, and pass its probabilities on in bands."""
        labels, scale, shape = self.spec.labels, self.spec.logit_scale, image.shape[1:]
        copies = [(axes, self._logits(_mirrored(image[None], axes))[0]) for axes in self.copies]
        if len(copies) == 1:
            # Not from probabilities: in float32, softmax may round different logits to equal ones.
            _require_finite(copies[0][1], where)
            mask = decide(copies[0][1], scale, shape, labels.dtype)
            if observe is None:
                return mask
        else:
            mask = np.empty(shape, labels.dtype)
        for rows in bands(labels.num_classes, shape):
            band = average_over_flips(
                (axes, softmax(enlarge(logits, scale, shape, self._rows(rows, axes, shape[0])), 0))
                for axes, logits in copies
            )
            if len(copies) > 1:
                _require_finite(band, where)
                mask[rows] = most_probable(band, labels.dtype)
            if observe is not None:
                observe(rows.start, band)
        return mask

    def _rows(self, rows: slice, mirrored: tuple[int, ...], height: int) -> slice:
        """Return where these rows are in a copy that is mirrored along some axes."""
        upside_down = -self.spec.dimensions in mirrored
        return slice(height - rows.stop, height - rows.start) if upside_down else rows

    def _tiled(self, image: NDArray[Any], where: str, observe: Observer | None) -> NDArray[Any]:
        """Return the mask (*S) of an image that is divided into tiles, and pass its mean probabilities on slab by slab."""
        tile = self.spec.tile
        assert tile is not None
        overlap = [min(round(self.spec.overlap * size), size - 1) for size in tile]
        places = windows(image.shape[1:], tile, overlap, align=self.spec.stride)
        masks = []
        top = 0
        for slab in blend(places, self._tiles(image, places), tile):
            _require_finite(slab, where)
            masks.append(most_probable(slab, self.spec.labels.dtype))
            if observe is not None:
                observe(top, slab)
            top += slab.shape[1]
        return np.concatenate(masks)

    def _tiles(self, image: NDArray[Any], places: Sequence[Window]) -> Iterator[Floats]:
        """Yield the probabilities (K, *window.shape) of each window; neighbours of equal shape are computed together."""
        for _, group in itertools.groupby(places, lambda window: window.shape):
            alike = list(group)
            for first in range(0, len(alike), self.batch_size):
                batch = [image[:, *window.slices] for window in alike[first : first + self.batch_size]]
                yield from self._probabilities(np.stack(batch))

    def _probabilities(self, images: NDArray[Any]) -> Floats:
        """Return probabilities (B, K, *S) for images (B, C, *S)."""
        scale, shape = self.spec.logit_scale, images.shape[2:]
        return average_over_flips(
            (axes, softmax(enlarge(self._logits(_mirrored(images, axes)), scale, shape), 1)) for axes in self.copies
        )

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

    def _require_image(self, image: NDArray[Any], valid: NDArray[np.bool_] | None, where: str) -> None:
        axes = ("depth", "height", "width")[-self.spec.dimensions :]
        if image.ndim != len(axes) + 1 or image.size == 0:
            raise DataError(
                where,
                expected=f"an image (bands, {', '.join(axes)}) with at least one pixel",
                found=f"shape {image.shape}",
                do="Reorder the axes, or leave the image out.",
            )
        if image.shape[0] != self.spec.channels:
            raise wrong_bands(where, self.spec.channels, image.shape[0])
        if valid is not None and valid.shape != image.shape[1:]:
            raise DataError(
                where,
                expected=f"a validity mask of shape {image.shape[1:]}",
                found=str(valid.shape),
                do="Use a mask with the size of the image.",
            )
        _require_values(image, valid, self.spec, where)


def _aligned(spec: ModelSpec) -> tuple[int, ...] | None:
    """Return the tile rounded up to multiples of the stride."""
    least = 2 * spec.stride if spec.overlap else spec.stride
    return None if spec.tile is None else tuple(padded(max(size, least), spec.stride) for size in spec.tile)


def _require_values(image: NDArray[Any], valid: NDArray[np.bool_] | None, spec: ModelSpec, where: str) -> None:
    """Raise if the pixel values differ in kind from those that the model was trained on.

    Raises:
        DataError: another number of bits, NaN or infinity, or floats 0…1 for a model trained on larger integers.
    """
    trained = None if spec.dtype is None else np.dtype(spec.dtype)
    if trained is not None and {_bits(image.dtype), _bits(trained)} == {8, 16}:
        raise DataError(
            where,
            expected=f"{_bits(trained)}-bit values, as in training ({trained})",
            found=f"{_bits(image.dtype)}-bit values ({image.dtype})",
            do="Use images of the kind that the model was trained on.",
        )
    if image.dtype.kind != "f":
        return
    values = image if valid is None else image[:, valid]
    finite = np.isfinite(values)
    if not finite.all():
        count = int(np.count_nonzero(~finite.all(axis=0)))
        raise DataError(
            where,
            expected="finite values",
            found=f"NaN or infinity in {count} pixel{'s' if count != 1 else ''}",
            do="Replace these values, mark the pixels as nodata, or leave the image out.",
        )
    integers = trained is not None and trained.kind in "ui"
    if not (integers and spec.typical_range is not None and spec.typical_range[1] > 1 and values.size):
        return
    # Zeros mean the same on either scale.
    if values.min() >= 0 and 0 < values.max() <= 1:
        top = 2 ** _bits(trained) - 1 if trained is not None else 255
        raise DataError(
            where,
            expected=f"values as in training ({trained}, up to about {spec.typical_range[1]:g})",
            found="floats between 0 and 1",
            do=f"Undo the scaling first, e.g. (image * {top}).round().astype('{trained}').",
        )


def _bits(dtype: np.dtype[Any]) -> int:
    """Return the bits of integers, 0 for floats."""
    return 8 * dtype.itemsize if dtype.kind in "ui" else 0


def _mirrored(images: NDArray[Any], axes: tuple[int, ...]) -> NDArray[Any]:
    return np.ascontiguousarray(np.flip(images, axes))


def _require_finite(values: Floats, where: str) -> None:
    """Raise if logits or probabilities are not finite."""
    # NaN is passed on by `min` and `max`.
    if not (np.isfinite(values.min()) and np.isfinite(values.max())):
        raise DataError(
            where,
            expected="values from which the model computes finite numbers",
            found="NaN or infinity in its output",
            do="Replace extreme values (such as a nodata value of -1e308), or train the model again.",
        )


def _require(name: str, value: object, valid: bool, expected: str) -> None:
    if not valid:
        raise ConfigError(f"predict.{name}", expected=expected, found=str(value), do="Correct the value.")
