"""From an image of any size to its mask: whole where it fits, else in overlapping tiles that are blended.

Comes in: one image (C, H, W) of raw pixel values, and its grid. Goes out: a `Prediction` of the same height and width on the
same grid. Knows nothing of files, truth, or which network stands behind the backend.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Collection, Iterator
from dataclasses import replace
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pixelwise.errors import ConfigError, DataError
from pixelwise.formats.reading import as_bands
from pixelwise.grid import Grid
from pixelwise.imageio.images import fill_invalid
from pixelwise.inference.augmentation import Flip, averaged, mirrors
from pixelwise.inference.backend import Backend, TorchBackend
from pixelwise.inference.blending import blend
from pixelwise.labels import Labels
from pixelwise.metrics.temperature import tempered
from pixelwise.models.base import SegmentationModel, wrong_bands
from pixelwise.models.weights import ModelCard
from pixelwise.tiles import Window, padded, windows
from pixelwise.types import Prediction


class Predictor:
    """Predict one image at a time, of any size.

    Args:
        backend: maps images (B, C, H, W) to logits (B, K, H, W).
        labels: the K classes.
        channels: C, bands that the model was trained on.
        stride: pixels after which the model sees the same thing again; tiles start at its multiples.
        tile: (height, width) of the pieces of larger images, rounded up to multiples of `stride`, two at least where
            they shall overlap; None: every image is taken whole.
        overlap: least share of a tile that neighbours have in common, 0…1, in multiples of `stride`.
        flips: average over mirrored copies; True for both directions, or a choice of "horizontal" and "vertical".
        batch_size: tiles computed at once. Changes the speed only.
        dtype: numpy name of the training images' pixel type; 8-bit images are refused where it has 16 bits, and
            the other way round. None: all are taken.
        bands: "rgb" or "grey" where images of one and of three bands are brought to that, as in training.
        temperature: what logits are divided by, as fitted on held-out images (Guo et al. 2017, arXiv:1706.04599). It is
            applied to what comes out of blending and averaging, and so to any backend; it changes no mask.

    Raises:
        ConfigError: a value out of range.
    """

    def __init__(
        self,
        backend: Backend,
        labels: Labels,
        *,
        channels: int,
        stride: int = 1,
        tile: tuple[int, int] | None = None,
        overlap: float = 0.25,
        flips: bool | Collection[Flip] = False,
        batch_size: int = 1,
        dtype: str | None = None,
        bands: str | None = None,
        temperature: float = 1.0,
    ) -> None:
        _check("tile", tile, tile is None or min(tile) >= 1, "two positive sizes (height, width)")
        _check("overlap", overlap, 0 <= overlap <= 1, "a share 0…1")
        _check("batch_size", batch_size, batch_size >= 1, "at least 1")
        self.backend, self.labels, self.channels, self.stride = backend, labels, channels, stride
        _check("temperature", temperature, temperature > 0 and np.isfinite(temperature), "a positive number")
        self.temperature, self.bands = temperature, bands
        least = 2 * stride if overlap else stride
        self.tile = None if tile is None else (padded(max(tile[0], least), stride), padded(max(tile[1], least), stride))
        self.dtype = None if dtype is None else np.dtype(dtype)
        self.overlap, self.copies, self.batch_size = overlap, mirrors(flips), batch_size

    @classmethod
    def from_model(
        cls,
        model: SegmentationModel,
        card: ModelCard,
        *,
        device: str | torch.device = "cpu",
        precision: Literal["fp32", "bf16"] = "fp32",
        channels_last: bool = True,
        **settings: Any,
    ) -> Predictor:
        """Make the predictor that a model's card describes; `settings` (tile, overlap, flips, …) override it."""
        described: dict[str, Any] = {
            "tile": card.tile,
            "overlap": card.overlap,
            "dtype": card.dtype,
            "bands": card.bands,
        }
        described["flips"] = card.mirrors if card.flips else False
        described["temperature"] = float((card.calibration or {}).get("temperature", 1.0))
        backend = TorchBackend(model, device, precision, channels_last)
        return cls(backend, card.labels, channels=card.channels, stride=model.stride, **(described | settings))

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
            image: (C, H, W), raw pixel values of any numeric type, any H, W ≥ 1.
            grid: where the image lies; plain pixels where not given.
            valid: (H, W), false where the image holds no data: these pixels are replaced by the smallest valid value.
            id: name of the image, for messages and for the prediction.
            probabilities: give them too, (K, H, W) float32. Without them only one row of tiles is held in memory.

        Raises:
            DataError: wrong axes, bands, size or pixel type, or values that are no numbers or too large for any.
        """
        if not probabilities:
            return self._predict(fill_invalid(image, valid), grid, id, None)
        kept: list[NDArray[np.float32]] = []
        prediction = self._predict(fill_invalid(image, valid), grid, id, lambda _, band: kept.append(band))
        return replace(prediction, probabilities=np.concatenate(kept, axis=1))

    def observed(
        self,
        image: NDArray[Any],
        grid: Grid,
        valid: NDArray[np.bool_] | None,
        id: str,
        observe: Callable[[int, NDArray[np.float32]], None],
    ) -> Prediction:
        """Predict one image and show its probabilities on the way, in the memory of one row of tiles.

        `observe` is called with (first row, probabilities (K, rows, W) float32), from the first row to the last; the rest is
        as in a call.
        """
        return self._predict(fill_invalid(image, valid), grid, id, observe)

    def _predict(
        self,
        image: NDArray[Any],
        grid: Grid | None,
        id: str,
        observe: Callable[[int, NDArray[np.float32]], None] | None,
    ) -> Prediction:
        where = id or "image"
        if image.ndim == 3:
            image = as_bands(image, self.bands)
        self._check_image(image, where)
        shape, top = (image.shape[1], image.shape[2]), 0
        masks = []
        with torch.inference_mode():
            for band, kind in self._bands(image, shape):
                if not bool(torch.isfinite(band).all()):
                    raise _not_finite(where)
                masks.append(self._decide(band))
                if observe is not None:
                    observe(top, self._corrected(band, kind))
                top += band.shape[1]
        return Prediction(np.concatenate(masks), self.labels, Grid() if grid is None else grid, id)

    def _corrected(self, band: Tensor, kind: Literal["logits", "probabilities"]) -> NDArray[np.float32]:
        """Give probabilities (K, rows, W), their logits divided by the temperature; no mask depends on it."""
        probabilities = torch.softmax(band, dim=0) if kind == "logits" else band
        return tempered(probabilities.cpu().numpy(), self.temperature)

    def _bands(
        self, image: NDArray[Any], shape: tuple[int, int]
    ) -> Iterator[tuple[Tensor, Literal["logits", "probabilities"]]]:
        """Give (K, rows, W) from the first row to the last: logits where one pass decides, else blended probabilities."""
        if self.tile is None or (shape[0] <= self.tile[0] and shape[1] <= self.tile[1]):
            if len(self.copies) == 1:
                # Softmax in float32 can make equal what the logits tell apart.
                yield self._logits(image[None])[0], "logits"
            else:
                yield self._probabilities(image[None])[0], "probabilities"
            return
        overlap = [min(round(self.overlap * size), size - 1) for size in self.tile]
        places = windows(shape, self.tile, overlap, align=self.stride)
        for band in blend(places, self._tiles(image, places), self.tile):
            yield band, "probabilities"

    def _tiles(self, image: NDArray[Any], places: list[Window]) -> Iterator[Tensor]:
        """Give the probabilities (K, h, w) of each window in turn; neighbours of equal shape are computed together."""
        for _, group in itertools.groupby(places, lambda window: window.shape):
            alike = list(group)
            for first in range(0, len(alike), self.batch_size):
                batch = [image[:, *window.slices] for window in alike[first : first + self.batch_size]]
                yield from self._probabilities(np.stack(batch))

    def _probabilities(self, images: NDArray[Any]) -> Tensor:
        return averaged(lambda copy: torch.softmax(self._logits(copy), dim=1), images, self.copies)

    def _logits(self, images: NDArray[Any]) -> Tensor:
        logits = torch.as_tensor(self.backend(images))
        expected = (len(images), self.labels.num_classes, *images.shape[-2:])
        if tuple(logits.shape) != expected:
            raise DataError(
                "model",
                expected=f"logits of shape {expected}",
                found=str(tuple(logits.shape)),
                do="Give labels and a model with the same number of classes.",
            )
        return logits

    def _decide(self, scores: Tensor) -> NDArray[Any]:
        # `max` finds the same first place as `argmax`, and on the CPU several times faster.
        best = scores.max(dim=0).indices
        small = torch.uint8 if self.labels.dtype == np.uint8 else torch.int32
        return best.to(small).cpu().numpy().astype(self.labels.dtype, copy=False)

    def _check_image(self, image: NDArray[Any], where: str) -> None:
        if image.ndim != 3 or image.size == 0:
            raise DataError(
                where,
                expected="an image (bands, height, width) with at least 1×1 pixels",
                found=f"shape {image.shape}",
                do="Bring the axes into this order, or leave the image out.",
            )
        if image.shape[0] != self.channels:
            raise wrong_bands(where, self.channels, image.shape[0])
        if self.dtype is not None and {_bits(image.dtype), _bits(self.dtype)} == {8, 16}:
            raise DataError(
                where,
                expected=f"{_bits(self.dtype)}-bit values, as in training ({self.dtype})",
                found=f"{_bits(image.dtype)}-bit values ({image.dtype})",
                do="Give images of the kind that the model was trained on.",
            )
        if image.dtype.kind == "f" and not np.isfinite(image).all():
            count = int(np.count_nonzero(~np.isfinite(image).all(axis=0)))
            raise DataError(
                where,
                expected="finite values",
                found=f"NaN or infinity in {count} pixel{'s' if count != 1 else ''}",
                do="Fill these pixels with a value, or leave the image out.",
            )


def _bits(dtype: np.dtype[Any]) -> int:
    """Give the bits of whole numbers, 0 for floats."""
    return 8 * dtype.itemsize if dtype.kind in "ui" else 0


def _not_finite(where: str) -> DataError:
    return DataError(
        where,
        expected="values from which the model computes finite numbers",
        found="NaN or infinity in its answer",
        do="Replace values far out of range (a nodata value of -1e308, say), or train the model anew.",
    )


def _check(name: str, value: object, right: bool, expected: str) -> None:
    if not right:
        raise ConfigError(f"predict.{name}", expected=expected, found=str(value), do="Correct the value.")
