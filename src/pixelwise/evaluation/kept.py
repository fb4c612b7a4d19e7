"""Predictions that are used more than once: for the temperature, the scores and the report, each image is predicted once."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from pixelwise.evaluation.scoring import ImagePredictor, Observable
from pixelwise.grid import Grid
from pixelwise.labels import Labels
from pixelwise.metrics.temperature import tempered
from pixelwise.types import Prediction

Observe = Callable[[int, NDArray[np.float32]], None]
_Bands = list[tuple[int, NDArray[np.float32]]]
_MASK_BYTES = 1 << 28


class _ProbabilityPredictor(ImagePredictor, Observable, Protocol):
    """A predictor of masks that passes its probabilities to a callback if asked to."""


class KeptMasks:
    """Predicted masks by the id of the image, compressed.

    Args:
        memory: bytes that they may take; further masks are not kept.
    """

    def __init__(self, memory: int = _MASK_BYTES) -> None:
        self.left = memory
        self.masks: dict[str, tuple[bytes, tuple[int, ...], np.dtype[Any], Labels]] = {}

    def add(self, prediction: Prediction) -> None:
        """Keep the mask of a prediction, if there is space."""
        mask = prediction.mask
        compressed = zlib.compress(np.ascontiguousarray(mask).data, 1)
        if len(compressed) <= self.left:
            self.left -= len(compressed)
            self.masks[prediction.id] = compressed, mask.shape, mask.dtype, prediction.labels

    def predictor(self, otherwise: Callable[[], ImagePredictor]) -> ImagePredictor:
        """Return a predictor with these masks; the one that `otherwise` returns predicts all other images."""

        def predict(
            image: NDArray[Any], grid: Grid, valid: NDArray[np.bool_] | None = None, *, id: str = ""
        ) -> Prediction:
            if id not in self.masks:
                return otherwise()(image, grid, valid, id=id)
            compressed, shape, dtype, labels = self.masks[id]
            return Prediction(np.frombuffer(zlib.decompress(compressed), dtype).reshape(shape), labels, grid, id)

        return predict


def keep_all(*keeps: Callable[[Prediction], None] | None) -> Callable[[Prediction], None]:
    """Return a function that calls each of some functions that are not None with a prediction."""
    wanted = [keep for keep in keeps if keep is not None]

    def keep(prediction: Prediction) -> None:
        for each in wanted:
            each(prediction)

    return keep


class RecordingPredictor:
    """Predict as another predictor does, and keep masks and probabilities until `replayed` returns them.

    Args:
        predictor: its probabilities are not calibrated.
        memory: bytes that the probabilities may take; for images that exceed them, only the mask is kept.
    """

    def __init__(self, predictor: _ProbabilityPredictor, memory: int) -> None:
        self.predictor, self.left = predictor, memory
        self.kept: dict[str, tuple[Prediction, _Bands | None]] = {}

    def observed(
        self, image: NDArray[Any], grid: Grid, valid: NDArray[np.bool_] | None, id: str, observe: Observe, /
    ) -> Prediction:
        """Predict one image; see `Observable`."""
        bands: _Bands = []
        left = self.left

        def both(top: int, band: NDArray[np.float32]) -> None:
            nonlocal left
            observe(top, band)
            left -= band.nbytes
            if left >= 0:
                bands.append((top, band.copy()))  # the predictor may use its memory again
            else:
                bands.clear()

        prediction = self.predictor.observed(image, grid, valid, id, both)
        if left >= 0:
            self.left = left
        self.kept[id] = prediction, bands if left >= 0 else None
        return prediction

    def replayed(self, predictor: _ProbabilityPredictor, temperature: float) -> _ProbabilityPredictor:
        """Return a predictor that returns each kept prediction once, without computing it again.

        Args:
            predictor: predicts all other images; the same model with `temperature`.
            temperature: applied to the probabilities that were kept.
        """
        return _ReplayingPredictor(self.kept, predictor, temperature)


class _ReplayingPredictor:
    """Return kept predictions, releasing their memory, and predict other images."""

    def __init__(
        self,
        kept: dict[str, tuple[Prediction, _Bands | None]],
        predictor: _ProbabilityPredictor,
        temperature: float,
    ) -> None:
        self.kept, self.predictor, self.temperature = kept, predictor, temperature

    def __call__(
        self, image: NDArray[Any], grid: Grid, valid: NDArray[np.bool_] | None = None, *, id: str = ""
    ) -> Prediction:
        """Return the mask of one image."""
        if id in self.kept:
            return self.kept.pop(id)[0]
        return self.predictor(image, grid, valid, id=id)

    def observed(
        self, image: NDArray[Any], grid: Grid, valid: NDArray[np.bool_] | None, id: str, observe: Observe, /
    ) -> Prediction:
        """Return the mask of one image, and pass on its probabilities; see `Observable`."""
        prediction, bands = self.kept.pop(id, (None, None))
        if prediction is None or bands is None:
            return self.predictor.observed(image, grid, valid, id, observe)
        for top, band in bands:
            observe(top, tempered(band, self.temperature))
        return prediction
