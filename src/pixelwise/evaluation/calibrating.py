"""One temperature for a model's probabilities, fitted on images it did not learn from.

Comes in: a data set and a predictor that shows its probabilities. Goes out: a `Temperature`. Knows nothing of models or of
where the temperature is kept.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from pixelwise.evaluation.scoring import LabelledImages, Observable, Progress, Stop
from pixelwise.metrics.temperature import PixelSample, Temperature, fit_temperature, log_probabilities

IMAGES = 64
PIXELS = 4000


def fitted_temperature(
    dataset: LabelledImages,
    predictor: Observable,
    *,
    images: int = IMAGES,
    pixels: int = PIXELS,
    seed: int = 0,
    progress: Progress | None = None,
    stop: Stop | None = None,
) -> Temperature:
    """Fit a temperature to some pixels of some images, evenly chosen: Guo et al. 2017, arXiv:1706.04599.

    Args:
        dataset: images with masks that the model did not learn from.
        predictor: its probabilities must not be corrected yet.
        images: so many at most.
        pixels: so many of each at most, chosen by the image's id.
        seed: another seed chooses other pixels.
        progress: called with (images done, images in all) after each.
        stop: called before each image; raises to end the work.
    """
    sample = PixelSample(pixels, dataset.labels.ignore_index, seed)
    count = min(len(dataset), images)
    logs: list[Any] = [np.zeros((0, dataset.labels.num_classes), np.float32)]
    truths: list[Any] = [np.zeros(0, np.int64)]
    for done, index in enumerate(np.linspace(0, len(dataset) - 1, count).round().astype(int).tolist(), 1):
        if stop is not None:
            stop()
        image = dataset.read(index)
        truth = image.truth(dataset.labels.ignore_index)
        if truth is None:
            continue
        places, width = sample.places(truth, image.id), truth.shape[-1]
        bands: list[Any] = []

        def keep(top: int, band: Any, places: Any = places, width: int = width, bands: list[Any] = bands) -> None:
            bands.append(log_probabilities(band, places, top * width))

        predictor.observed(image.image, image.grid, image.valid, image.id, keep)
        logs.append(np.concatenate(bands))
        truths.append(truth.reshape(-1)[places].astype(np.int64))
        if progress is not None:
            progress(done, count)
    return fit_temperature(np.concatenate(logs), np.concatenate(truths))
