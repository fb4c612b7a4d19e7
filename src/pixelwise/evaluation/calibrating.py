"""Fit one temperature to a model's probabilities on images that it was not trained on."""

from __future__ import annotations

import math
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
    """Fit a temperature to a sample of pixels of evenly spaced images: Guo et al. 2017, arXiv:1706.04599.

    Args:
        dataset: images with masks that the model was not trained on.
        predictor: its probabilities must not be calibrated yet.
        images: maximum number of images.
        pixels: maximum number of pixels per image; which ones depends on the image's id.
        seed: random seed of the choice of pixels.
        progress: called with (images done, number of images) after each image.
        stop: called before each image; may raise to interrupt.
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
        places, width = sample.places(truth, image.id), math.prod(truth.shape[1:])
        bands: list[Any] = []

        def keep(top: int, band: Any, places: Any = places, width: int = width, bands: list[Any] = bands) -> None:
            bands.append(log_probabilities(band, places, top * width))

        predictor.observed(image.image, image.grid, image.valid, image.id, keep)
        logs.append(np.concatenate(bands))
        truths.append(truth.reshape(-1)[places].astype(np.int64))
        if progress is not None:
            progress(done, count)
    return fit_temperature(np.concatenate(logs), np.concatenate(truths))
