"""Score predictions on a data set: scores with intervals, scores per image, tables of errors, and a baseline.

Images are scored at native size, with the predictor that is used for prediction. The package does not depend on models or
training.
"""

from pixelwise.evaluation.calibrating import fitted_temperature
from pixelwise.evaluation.meters import METRICS, require_metrics
from pixelwise.evaluation.results import Evaluation, ImageScore, ScoresFile, Suspect, Tables, read_scores
from pixelwise.evaluation.scoring import (
    ImagePredictor,
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
    "ScoresFile",
    "Suspect",
    "Tables",
    "evaluate",
    "fitted_temperature",
    "majority",
    "quick_miou",
    "read_scores",
    "require_metrics",
    "truth_digest",
]
