"""Definitions of all scores: title, formula, explanation and source, and the documentation page made from them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

Better = Literal["higher", "lower", "neither"]

INTRODUCTION = """\
Keys are those of `scores.json` and of `--json`, except for segments and objects (last section). Each score comes with `_low`
and `_high`, the ends of its 95 % interval, and `_n`, the number of images it is based on. The interval is a percentile
bootstrap over images, or over groups of images (Efron & Tibshirani 1993, chapter 13)."""
SYMBOLS = (
    "TP: pixels of the class predicted as the class. FP: pixels of other classes predicted as the class. "
    "FN: pixels of the class predicted as another class, or without a prediction. Unless stated otherwise, ratios are computed from sums over all images."
)
_SHARE, _OVER = "share, 0…1", "All counted pixels of all images; ignored pixels are excluded."
_UNION = "A class that is in neither ground truth nor prediction has no score and is left out of means."
_EVERINGHAM = "Everingham et al. 2010, doi:10.1007/s11263-009-0275-4"
_LONG = "Long, Shelhamer & Darrell 2015, arXiv:1411.4038"
_BOUNDARY = "Cheng et al. 2021, arXiv:2103.16562"
_CONTOUR = "Csurka et al. 2013, doi:10.5244/C.27.32; matching as in Perazzi et al. 2016, doi:10.1109/CVPR.2016.85"
_SURFACE = "Nikolov et al. 2018, arXiv:1809.04430"
_GUO = "Guo et al. 2017, arXiv:1706.04599"
_PANOPTIC = "Kirillov et al. 2019, arXiv:1801.00868"
_LENGTH = "length, in the unit of the grid"
_SHOWN = "Mean over the images where both ground truth and prediction contain the class; consider it together with missed and invented. Ignored pixels belong to no region."
_BANDS = (
    "Sums over all images of pixels near a border; the width is a share of each image's diagonal (2 % by default). There is no border "
    f"along ignored pixels, but along the edge of the image. {_UNION}"
)
_LINES = (
    "Sums over all images of contour pixels; a pixel is matched if the other contour of the same class is within a share of the "
    "image's diagonal (0.75 % by default, at least one pixel). There is no contour along ignored pixels or the edge of the image. A class "
    "without a contour has no score and is left out of means."
)
_ALONE = "Computed for each image, then averaged over the images where it is defined; this differs from the score of one matrix."
_SEGMENTS = (
    "Sums over all images; a category without segments is left out of means. Unlabelled pixels of the ground truth are left out of "
    "unions, and predictions mostly on unlabelled pixels are not false positives."
)


@dataclass(frozen=True)
class Definition:
    """The definition of a score.

    Args:
        title: common name.
        formula: in plain characters, see `SYMBOLS`.
        says: explanation in one or two sentences.
        over: what it is computed over, and how absent classes and ignored pixels are treated.
        source: paper with arXiv id or DOI.
        unit: of its values.
        better: whether higher or lower values are better.
    """

    title: str
    formula: str
    says: str
    over: str
    source: str
    unit: str
    better: Better


def _share(title: str, formula: str, says: str, over: str, source: str) -> Definition:
    return Definition(title, formula, says, over, source, _SHARE, "higher")


def _error(title: str, formula: str, says: str, over: str, source: str, unit: str = _SHARE) -> Definition:
    return Definition(title, formula, says, over, source, unit, "lower")


_OVERLAP: dict[str, Definition] = {
    "miou": _share(
        "mIoU",
        "mean over classes of TP / (TP + FP + FN)",
        "How well prediction and ground truth overlap, with equal weight for all classes: the main score.",
        f"One confusion matrix over all images. {_UNION} Ignored pixels are excluded.",
        _EVERINGHAM,
    ),
    "miou_present": _share(
        "mIoU, true classes",
        "mean of TP / (TP + FP + FN) over classes with TP + FN > 0",
        "mIoU over the classes in the ground truth: predicting an absent class only lowers the scores of the classes it replaces.",
        "One confusion matrix over all images; classes absent from the ground truth are left out. Ignored pixels are excluded.",
        _EVERINGHAM,
    ),
    "mean_dice": _share(
        "Mean Dice",
        "mean over classes of 2 TP / (2 TP + FP + FN)",
        "The mean of the classes' Dice; for each class Dice = 2 IoU / (1 + IoU).",
        f"{_OVER} {_UNION}",
        "Dice 1945, doi:10.2307/1932409",
    ),
    "pixel_accuracy": _share(
        "Pixel accuracy",
        "ΣTP / counted pixels",
        "The share of correct pixels. Large classes dominate it: compare with the baseline of a constant prediction.",
        _OVER,
        _LONG,
    ),
    "frequency_weighted_iou": _share(
        "Frequency-weighted IoU",
        "Σ (TP + FN) · IoU / Σ (TP + FN)",
        "The mean of the classes' IoU, each weighted by its true pixels.",
        f"{_OVER} Classes absent from the ground truth have no weight.",
        _LONG,
    ),
    "iou": _share(
        "IoU",
        "TP / (TP + FP + FN)",
        "Of all pixels with the class in ground truth or prediction, the share with the class in both.",
        f"{_OVER} {_UNION}",
        "Jaccard 1912, doi:10.1111/j.1469-8137.1912.tb05611.x",
    ),
    "dice": _share(
        "Dice",
        "2 TP / (2 TP + FP + FN)",
        "The harmonic mean of precision and recall, also called F1.",
        f"{_OVER} {_UNION}",
        "Dice 1945, doi:10.2307/1932409",
    ),
    "precision": _share(
        "Precision",
        "TP / (TP + FP)",
        "The share of pixels predicted as the class that are correct.",
        f"{_OVER} Undefined for a class that was never predicted.",
        "van Rijsbergen 1979, Information Retrieval, 2nd edition, chapter 7",
    ),
    "recall": _share(
        "Recall",
        "TP / (TP + FN)",
        "The share of pixels of the class that are found.",
        f"{_OVER} Undefined for a class absent from the ground truth.",
        "van Rijsbergen 1979, Information Retrieval, 2nd edition, chapter 7",
    ),
    "image_miou": _share(
        "mIoU of single images",
        "mean over images of their own mIoU",
        "How good a typical image is, with equal weight for images of all sizes.",
        f"{_ALONE} In each image, classes in neither ground truth nor prediction are left out.",
        _EVERINGHAM,
    ),
    "image_dice": _share(
        "Mean Dice of single images",
        "mean over images of their own mean Dice",
        "How good a typical image is, by Dice.",
        f"{_ALONE} In each image, classes in neither ground truth nor prediction are left out.",
        "Dice 1945, doi:10.2307/1932409",
    ),
    "image_iou": _share(
        "IoU of single images",
        "mean over images of the class's IoU in the image",
        "How well the class is found in a typical image that contains it.",
        f"{_ALONE} Images with the class in neither ground truth nor prediction are left out.",
        _EVERINGHAM,
    ),
}
_EDGES: dict[str, Definition] = {
    "boundary_miou": _share(
        "Boundary mIoU",
        "mean over classes of boundary IoU",
        "How accurate edges are, with equal weight for all classes.",
        _BANDS,
        _BOUNDARY,
    ),
    "boundary_iou": _share(
        "Boundary IoU",
        "|T ∩ P| / |T ∪ P|, T and P the pixels of the true and the predicted region near their own border",
        "The IoU of pixels near borders, which large interiors do not dominate.",
        _BANDS,
        _BOUNDARY,
    ),
    "mean_boundary_f1": _share(
        "Mean boundary F1",
        "mean over classes of boundary F1",
        "How much of the contours is matched, with equal weight for all classes.",
        _LINES,
        _CONTOUR,
    ),
    "boundary_f1": _share(
        "Boundary F1",
        "2 p r / (p + r), p the share of the predicted contour that is near the true one, r the reverse",
        "How much of the contours is matched within a small tolerance.",
        _LINES,
        _CONTOUR,
    ),
    "hausdorff": _error(
        "Hausdorff distance",
        "max over both surfaces of the distance to the other",
        "The largest distance between the true and the predicted surface; a single outlier can determine it.",
        _SHOWN,
        _SURFACE,
        _LENGTH,
    ),
    "hausdorff95": _error(
        "Hausdorff distance, 95 %",
        "larger of both directions' 95 % points of the distance, weighted by size",
        "The distance within which 95 % of each surface is from the other.",
        _SHOWN,
        _SURFACE,
        _LENGTH,
    ),
    "surface_distance": _error(
        "Mean surface distance",
        "mean distance to the other surface, over both surfaces, weighted by size",
        "The average distance between the surfaces (ASSD).",
        _SHOWN,
        _SURFACE,
        _LENGTH,
    ),
    "surface_dice": _share(
        "Surface Dice",
        "size of both surfaces within the tolerance of the other / size of both",
        "The share of the surfaces that needs no correction (NSD).",
        "Mean over the images where ground truth or prediction contains the class; 0 if only one does. Ignored pixels belong to no region.",
        _SURFACE,
    ),
    "missed": _error(
        "Missed",
        "images with the class in the ground truth only / images with it in the ground truth",
        "How often a class in the ground truth is not found at all.",
        "Images whose ground truth contains the class; ignored pixels are excluded.",
        "pixelwise's own; it complements mean distances, which are undefined in such images",
    ),
    "invented": _error(
        "Invented",
        "images with the class in the prediction only / images with it in the prediction",
        "How often a predicted class is not in the ground truth at all.",
        "Images whose prediction contains the class; ignored pixels are excluded.",
        "pixelwise's own; it complements mean distances, which are undefined in such images",
    ),
}
_PIXELS = "All counted pixels; ignored pixels are excluded."
_NOISE = (
    "Resampling images adds noise, and noise counts as error: the resampled values are above the score on average, "
    "and so may be the whole interval."
)
_BINS = f"{_PIXELS} Bins of equal width over confidence, 15 by default. {_NOISE}"
_CLASS_BINS = (
    f"{_PIXELS} Bins of equal width over the class's own probability, not over confidence, 15 by default. {_NOISE}"
)


def _accuracy_at(coverage: int) -> Definition:
    return _share(
        f"Accuracy at {coverage}\u00a0%",
        f"pixel accuracy among the {coverage} % of pixels with the highest confidence",
        "Accuracy if the least confident pixels are left to human review."
        if coverage < 100
        else "Pixel accuracy of the most probable class, over all pixels.",
        f"{_PIXELS} Pixels of all images are ranked together.",
        "Geifman & El-Yaniv 2017, arXiv:1705.08500",
    )


_TRUST: dict[str, Definition] = {
    "confidence": Definition(
        "Mean confidence",
        "mean over pixels of the largest probability",
        "How confident the model is; above its accuracy it is overconfident.",
        _PIXELS,
        _GUO,
        _SHARE,
        "neither",
    ),
    "ece": _error(
        "Expected calibration error",
        "Σ over bins of (pixels in bin / pixels) · |accuracy − confidence|",
        "Average difference between confidence and accuracy.",
        _BINS,
        _GUO,
    ),
    "mce": _error(
        "Maximum calibration error",
        "max over bins with pixels of |accuracy − confidence|",
        "Difference between confidence and accuracy in the worst bin, which may have few pixels.",
        _BINS,
        _GUO,
    ),
    "classwise_ece": _error(
        "Class-wise calibration error",
        "mean over classes of the calibration error of the class's probability",
        "Average difference between each class's probability and its frequency.",
        f"{_CLASS_BINS} Classes absent from the ground truth are left out.",
        "Kull et al. 2019, arXiv:1910.12656",
    ),
    "calibration_error": _error(
        "Calibration error of a class",
        "Σ over bins of (pixels in bin / pixels) · |frequency − mean probability| of the class",
        "Average difference between the class's probability and its frequency. Always small for rare classes.",
        f"{_CLASS_BINS} Undefined for a class absent from the ground truth.",
        "Kull et al. 2019, arXiv:1910.12656",
    ),
    "brier": _error(
        "Brier score",
        "mean over pixels of Σ over classes of (p − [class is true])²",
        "The squared error of the probabilities, between 0 (best) and 2.",
        _PIXELS,
        "Brier 1950, doi:10.1175/1520-0493(1950)078<0001:VOFEIT>2.0.CO;2",
        "0…2",
    ),
    "nll": _error(
        "Negative log-likelihood",
        "mean over pixels of −ln p(true class)",
        "The mean cross-entropy of the probabilities, which cross-entropy training minimises.",
        f"{_PIXELS} Probabilities below 1.2e-38 are set to that value.",
        _GUO,
        "nats",
    ),
    "aurc": _error(
        "Area under risk–coverage",
        "mean over coverages 0…1 of the share of wrong pixels among the most confident",
        "How well confidence separates correct from wrong pixels.",
        f"{_PIXELS} Pixels of all images are ranked together.",
        "Geifman et al. 2019, arXiv:1805.08206",
    ),
    **{f"accuracy_at_{coverage}": _accuracy_at(coverage) for coverage in (50, 80, 90, 95, 100)},
}
_OBJECTS: dict[str, Definition] = {
    "pq": _share(
        "Panoptic quality",
        "ΣIoU of matched segments / (TP + FP/2 + FN/2), matched where IoU > 0.5",
        "How well segments are found and delineated: SQ · RQ in each category.",
        _SEGMENTS,
        _PANOPTIC,
    ),
    "sq": _share(
        "Segmentation quality",
        "ΣIoU of matched segments / TP",
        "How well found segments are delineated.",
        _SEGMENTS,
        _PANOPTIC,
    ),
    "rq": _share(
        "Recognition quality", "TP / (TP + FP/2 + FN/2)", "How well segments are found.", _SEGMENTS, _PANOPTIC
    ),
    "boundary_pq": _share(
        "Boundary panoptic quality",
        "PQ with min(mask IoU, boundary IoU) in place of IoU",
        "Panoptic quality with a penalty for inaccurate edges.",
        _SEGMENTS,
        _BOUNDARY,
    ),
    "ap": _share(
        "Average precision",
        "area under precision over recall, mean over categories and IoU thresholds 0.50, 0.55 … 0.95",
        "How well objects are found and delineated, over all confidence thresholds.",
        "Objects of all images, at most 100 detections per image and category; categories without an object in the ground truth are "
        "left out, and crowds are neither hits nor misses.",
        "Lin et al. 2014, arXiv:1405.0312",
    ),
}
FUNCTIONS = """\
These scores are not part of an evaluation and have no intervals: they are computed by functions, from maps of segments or from
objects in COCO format. Sums from `panoptic_sums` add up over images; use `boundary_share=0.02` for boundary PQ.

```python
import numpy as np
from pixelwise.metrics.instances import average_precision
from pixelwise.metrics.panoptic import Segment, panoptic_quality, panoptic_sums

truth, prediction = np.array([[1, 1, 1, 2, 2]]), np.array([[1, 1, 1, 1, 2]])
segments = {1: Segment(category=7), 2: Segment(category=8)}
quality = panoptic_quality(panoptic_sums(truth, prediction, segments, segments, categories=[7, 8]))
quality.pq, quality.sq, quality.rq  # one number per category: 0.75 and 0 (an IoU of 1/2 is not a match)

car = {"image_id": 0, "category_id": 3, "bbox": [10, 10, 20, 20]}
objects = {"images": [{"id": 0}], "categories": [{"id": 3}], "annotations": [car]}
average_precision(objects, [car | {"score": 0.9}], kind="box").ap  # kind: mask, box or boundary
```"""
FAMILIES: Mapping[str, Mapping[str, Definition]] = {
    "Overlap of areas": _OVERLAP,
    "Edges and surfaces": _EDGES,
    "Probabilities": _TRUST,
    "Segments and objects": _OBJECTS,
}
DEFINITIONS: Mapping[str, Definition] = {
    key: definition for family in FAMILIES.values() for key, definition in family.items()
}


def documentation() -> str:
    """Return the documentation page as Markdown: every score by its key, by family."""
    better = {"neither": "neither higher nor lower is better"}
    lines = ["# Metrics", "", INTRODUCTION, "", SYMBOLS, ""]
    lines += ["This page is generated from `pixelwise.metrics.definitions`."]
    for family, entries in FAMILIES.items():
        lines += ["", f"## {family}", *(["", FUNCTIONS] if entries is _OBJECTS else [])]
        for key, d in entries.items():
            lines += ["", f"### `{key}`: {d.title}", "", d.says, "", f"    {d.formula}", ""]
            lines += [f"- Over: {d.over}", f"- Unit: {d.unit}; {better.get(d.better, f'{d.better} is better')}"]
            lines.append(f"- Source: {d.source}")
    return "\n".join(lines) + "\n"
