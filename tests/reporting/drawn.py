"""Synthetic images with ground truth and predictions, and an evaluation of them."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from pixelwise.evaluation import METRICS, evaluate
from pixelwise.grid import Grid
from pixelwise.labels import Labels
from pixelwise.types import Prediction, Sample


@dataclass
class Case:
    """Annotated images with predictions; both a data set and a predictor."""

    labels: Labels
    samples: list[Sample]
    predictions: dict[str, np.ndarray]
    fetched: list[str] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.samples)

    def read(self, index: int) -> Sample:
        return self.samples[index]

    def __call__(self, image, grid, valid=None, *, id=""):
        return Prediction(self.predictions[id], self.labels, grid, id)

    def fetch(self, id: str):
        self.fetched.append(id)
        sample = next(sample for sample in self.samples if sample.id == id)
        return sample.image, sample.mask, self.predictions[id]

    def scores(self, **options: Any) -> dict[str, Any]:
        plain = evaluate(self, self, metrics=METRICS, **options).to_dict()
        return json.loads(json.dumps({"model": "runs/first", "data": "data", "split": "test", **plain}))


class ObservableCase(Case):
    """A predictor that also provides probabilities."""

    def observed(self, image, grid, valid, id, observe):
        mask, k = self.predictions[id], self.labels.num_classes
        predicted = np.where(mask == self.labels.ignore_index, 0, mask)
        probabilities = np.full((k, *mask.shape), 0.05 / max(k - 1, 1), np.float32)
        np.put_along_axis(probabilities, predicted[None].astype(np.int64), 0.95 if k > 1 else 1.0, 0)
        observe(0, probabilities / probabilities.sum(0))
        return self(image, grid, valid, id=id)


def draw(
    labels: Labels,
    images: int = 12,
    size: int = 40,
    seed: int = 0,
    bands: int = 3,
    dtype: Any = np.uint8,
    observable=True,
):
    """Draw images of rectangles with ignored pixels, and predictions that are slightly shifted."""
    generator = np.random.default_rng(seed)
    samples, predictions = [], {}
    for i in range(images):
        mask = np.zeros((size, size + 8), labels.dtype)
        for k in generator.permutation(labels.num_classes)[:6].tolist():
            top, left = generator.integers(0, size - 8, 2)
            mask[top : top + 14, left : left + 14] = k
        predicted = np.roll(mask, int(generator.integers(-3, 4)), 1)
        predicted[:6, :6] = labels.num_classes - 1
        mask[-2:] = labels.ignore_index
        image = (generator.random((bands, *mask.shape)) * np.iinfo(dtype).max).astype(dtype)
        samples.append(Sample(image, mask, Grid(), f"p{i:02}"))
        predictions[f"p{i:02}"] = predicted
    return (ObservableCase if observable else Case)(labels, samples, predictions)
