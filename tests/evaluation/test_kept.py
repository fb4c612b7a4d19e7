"""Predictions that are kept between calibration, scoring and report."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from pixelwise.evaluation.kept import KeptMasks, RecordingPredictor
from pixelwise.grid import Grid
from pixelwise.labels import Labels
from pixelwise.metrics.temperature import tempered
from pixelwise.types import Prediction

LABELS = Labels(("a", "b", "c"))
SHAPE = (7, 5)
IMAGE = np.zeros((1, *SHAPE), np.uint8)
Observe = Callable[[int, NDArray[np.float32]], None]


class Drawn:
    """Probabilities from the id, passed on in bands of two rows whose memory is used again."""

    def __init__(self, temperature: float = 1.0) -> None:
        self.temperature, self.predicted = temperature, list[str]()

    def probabilities(self, id: str) -> NDArray[np.float32]:
        scores = np.random.default_rng(list(id.encode())).random((3, *SHAPE), np.float32)
        return tempered(scores / scores.sum(0), self.temperature)

    def __call__(self, image: Any, grid: Grid, valid: Any = None, *, id: str = "") -> Prediction:
        self.predicted.append(id)
        return Prediction(self.probabilities(id).argmax(0).astype(np.uint8), LABELS, grid, id)

    def observed(self, image: Any, grid: Grid, valid: Any, id: str, observe: Observe, /) -> Prediction:
        found, band = self.probabilities(id), np.empty((3, 2, SHAPE[1]), np.float32)
        for top in range(0, SHAPE[0], 2):
            rows = min(2, SHAPE[0] - top)
            band[:, :rows] = found[:, top : top + rows]
            observe(top, band[:, :rows])
            band[:] = -1
        return self(image, grid, valid, id=id)


def observed(predictor: Any, id: str) -> tuple[Prediction, NDArray[np.float32]]:
    """Return the prediction, and its probabilities put together from the bands."""
    bands: list[NDArray[np.float32]] = []

    def observe(top: int, band: NDArray[np.float32]) -> None:
        assert top == sum(each.shape[1] for each in bands)
        bands.append(band.copy())

    return predictor.observed(IMAGE, Grid(), None, id, observe), np.concatenate(bands, 1)


@pytest.mark.parametrize("images", [0, 1, 2])
def test_replayed_predictions_are_those_of_the_predictor(images: int) -> None:
    """With memory for the probabilities of some images, the others are predicted again."""
    size = 4 * 3 * SHAPE[0] * SHAPE[1]
    first, second = Drawn(), Drawn(1.7)
    recording = RecordingPredictor(first, memory=images * size + 1)
    for id in "xy":
        found, probabilities = observed(recording, id)
        np.testing.assert_array_equal(probabilities, first.probabilities(id))
        assert found.id == id
    replayed = recording.replayed(second, 1.7)
    for id in "xyz":
        found, probabilities = observed(replayed, id)
        np.testing.assert_array_equal(probabilities, second.probabilities(id))
        np.testing.assert_array_equal(found.mask, first.probabilities(id).argmax(0))
    assert second.predicted == list("xyz")[images:]
    assert not recording.kept, "memory is released as soon as a prediction was used"


def test_masks_are_replayed_without_probabilities() -> None:
    second = Drawn()
    recording = RecordingPredictor(Drawn(), memory=0)
    expected, _ = observed(recording, "x")
    replayed = recording.replayed(second, 2.0)
    assert replayed(IMAGE, Grid(), id="x") is expected
    replayed(IMAGE, Grid(), id="y")
    assert second.predicted == ["y"]


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("shape", [(40, 30), (3, 40, 30)])
def test_kept_masks_are_returned_unchanged(dtype: type, shape: tuple[int, ...]) -> None:
    rng = np.random.default_rng(0)
    # A mask that is not contiguous.
    found = [np.asfortranarray(rng.integers(0, 3, shape).astype(dtype)) for _ in range(3)]
    masks, predicted = KeptMasks(), list[str]()

    def otherwise(image: Any, grid: Grid, valid: Any = None, *, id: str = "") -> Prediction:
        predicted.append(id)
        return Prediction(np.zeros(shape, dtype), LABELS, grid, id)

    for number, mask in enumerate(found):
        masks.add(Prediction(mask, LABELS, Grid(), str(number)))
    predictor = masks.predictor(lambda: otherwise)
    for number, mask in enumerate(found):
        kept = predictor(IMAGE, Grid(), id=str(number)).mask
        np.testing.assert_array_equal(kept, mask)
        assert kept.dtype == mask.dtype
    assert not predicted
    predictor(IMAGE, Grid(), id="unknown")
    assert predicted == ["unknown"]


def test_masks_beyond_the_memory_are_predicted() -> None:
    masks = KeptMasks(memory=100)
    noise = np.random.default_rng(0).integers(0, 3, (100, 100), np.uint8)
    for id, mask in (("large", noise), ("small", np.zeros((100, 100), np.uint8))):
        masks.add(Prediction(mask, LABELS, Grid(), id))
    assert list(masks.masks) == ["small"]
