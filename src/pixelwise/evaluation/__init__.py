"""How good a predictor is on a data set: data set × predictor × metrics → Scores.

Comes in: a data set of labelled images and anything that turns an image into a `Prediction`. Goes out: scores with
intervals, one line per image, where the errors lie, and what a constant guess would have scored. Knows nothing of models
or training.

Everything is scored at the image's native size, through the same predictor that later predicts: what you score is what
you ship.
"""

from pixelwise.evaluation.calibrating import fitted_temperature
from pixelwise.evaluation.meters import METRICS
from pixelwise.evaluation.scoring import (
    Evaluation,
    ImagePredictor,
    ImageScore,
    LabelledImages,
    evaluate,
    majority,
    quick_miou,
    truth_digest,
)

__all__ = [
    "METRICS",
    "Evaluation",
    "ImagePredictor",
    "ImageScore",
    "LabelledImages",
    "evaluate",
    "fitted_temperature",
    "majority",
    "quick_miou",
    "truth_digest",
]
