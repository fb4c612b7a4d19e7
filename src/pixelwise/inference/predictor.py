"""The `Predictor`: predict images of any size, whole or in overlapping tiles that are blended.

It works with numpy arrays of two or three spatial axes and with any `Backend`. This module must not import an engine.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from pixelwise.errors import ConfigError, DataError, wrong_bands
from pixelwise.formats.reading import as_bands
from pixelwise.grid import Grid
from pixelwise.imageio.images import fill_invalid
from pixelwise.inference.augmentation import average_over_flips, mirrored_axes
from pixelwise.inference.backend import Backend
from pixelwise.inference.blending import blend
from pixelwise.inference.decision import enlarge, most_probable, softmax
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
        _require("tile", spec.tile, spec.tile is None or min(spec.tile) >= 1, "positive sizes")
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
        """Predict one image.

        Args:
            image: (C, *S), raw pixel values of any numeric type, any *S ≥ 1.
            grid: spatial reference of the image; a spacing of 1 pixel if not given.
            valid: (*S), false where the image has no data: they are replaced by `spec.fill` and get the ignore index.
            id: name of the image, for messages and for the prediction.
            probabilities: also return them, (K, *S) float32. Otherwise only one row of tiles is held in memory.

        Raises:
            DataError: wrong axes, bands, size, pixel type or value range, or values that are not finite.
        """
        if not probabilities:
            return self._predict(image, grid, valid, id, None)
        kept: list[Floats] = []
        prediction = self._predict(image, grid, valid, id, lambda _, slab: kept.append(slab))
        return replace(prediction, probabilities=np.concatenate(kept, axis=1))

    def observed(
        self, image: NDArray[Any], grid: Grid | None, valid: NDArray[np.bool_] | None, id: str, observe: Observer
    ) -> Prediction:
        """Predict one image as in a call, and pass its probabilities on slab by slab, in the memory of one row of tiles.

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
        if image.ndim == 3 and self.spec.dimensions == 2:
            image = as_bands(image, self.spec.colour_mode)
        self._require_image(image, valid, where)
        image = fill_invalid(image, valid, self.spec.fill or (0.0,) * self.spec.channels)
        masks = []
        top = 0
        for slab, kind in self._slabs(image):
            if not np.isfinite(slab.sum(dtype=np.float64)):
                raise _not_finite(where)
            masks.append(most_probable(slab, labels.dtype))
            if observe is not None:
                observe(top, self._probabilities_of(slab, kind))
            top += slab.shape[1]
        mask = np.concatenate(masks)
        if valid is not None:
            mask[~valid] = labels.ignore_index
        return Prediction(mask, labels, grid or Grid().with_axes(self.spec.dimensions), id, valid=valid)

    def _probabilities_of(self, slab: Floats, kind: Literal["logits", "probabilities"]) -> Floats:
        """Return calibrated probabilities; masks do not depend on the temperature."""
        return tempered(softmax(slab, 0) if kind == "logits" else slab, self.spec.temperature)

    def _slabs(self, image: NDArray[Any]) -> Iterator[tuple[Floats, Literal["logits", "probabilities"]]]:
        """Yield (K, rows, *S[1:]) from the first row to the last: logits of a single pass, or else mean probabilities."""
        tile = self.spec.tile
        shape = image.shape[1:]
        if tile is None or all(size <= side for size, side in zip(shape, tile, strict=True)):
            if len(self.copies) == 1:
                # Softmax in float32 may round different logits to equal probabilities.
                yield self._logits(image[None])[0], "logits"
            else:
                yield self._probabilities(image[None])[0], "probabilities"
            return
        overlap = [min(round(self.spec.overlap * size), size - 1) for size in tile]
        places = windows(shape, tile, overlap, align=self.spec.stride)
        for slab in blend(places, self._tiles(image, places), tile):
            yield slab, "probabilities"

    def _tiles(self, image: NDArray[Any], places: Sequence[Window]) -> Iterator[Floats]:
        """Yield the probabilities (K, *window.shape) of each window; neighbours of equal shape are computed together."""
        for _, group in itertools.groupby(places, lambda window: window.shape):
            alike = list(group)
            for first in range(0, len(alike), self.batch_size):
                batch = [image[:, *window.slices] for window in alike[first : first + self.batch_size]]
                yield from self._probabilities(np.stack(batch))

    def _probabilities(self, images: NDArray[Any]) -> Floats:
        return average_over_flips(lambda copy: softmax(self._logits(copy), 1), images, self.copies)

    def _logits(self, images: NDArray[Any]) -> Floats:
        """Return logits (B, K, *S) at the size of the images."""
        logits = self.backend(images)
        scale = self.spec.logit_scale
        shape = images.shape[2:]
        expected = (len(images), self.spec.labels.num_classes, *(-(-size // scale) for size in shape))
        if logits.shape != expected:
            raise DataError(
                "model",
                expected=f"logits of shape {expected}",
                found=str(logits.shape),
                do="Use labels with as many classes as the model has.",
            )
        return enlarge(logits, scale, shape)

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


def _not_finite(where: str) -> DataError:
    return DataError(
        where,
        expected="values from which the model computes finite numbers",
        found="NaN or infinity in its output",
        do="Replace extreme values (such as a nodata value of -1e308), or train the model again.",
    )


def _require(name: str, value: object, valid: bool, expected: str) -> None:
    if not valid:
        raise ConfigError(f"predict.{name}", expected=expected, found=str(value), do="Correct the value.")
