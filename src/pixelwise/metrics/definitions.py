"""What every score means: its name, formula, what it is taken over, and where it comes from.

Comes in: nothing. Goes out: one `Definition` per key that scores can have, and the page of documentation made of them.
Knows nothing of how scores are computed; tests hold the keys against those that an evaluation gives.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

Better = Literal["higher", "lower", "neither"]

INTRODUCTION = """\
Keys are those of `scores.json` and of `--json`; for segments and objects, at the end, see there. Beside each score stand `_low`
and `_high`, the ends of its 95 % interval, and `_n`, the number of images on which it rests. The interval is a percentile
bootstrap over images, or over groups of images that belong together (Efron & Tibshirani 1993, chapter 13)."""
SYMBOLS = (
    "TP: pixels of the class that were found. FP: pixels that were given the class and are another. "
    "FN: pixels of the class that were given another, or left open. Ratios are taken once, of sums over all images, unless said otherwise."
)
_SHARE, _OVER = "share, 0…1", "All counted pixels of all images; ignored (void) pixels count in nothing."
_UNION = "A class that neither truth nor prediction shows has none, and is left out of means."
_EVERINGHAM = "Everingham et al. 2010, doi:10.1007/s11263-009-0275-4"
_LONG = "Long, Shelhamer & Darrell 2015, arXiv:1411.4038"
_BOUNDARY = "Cheng et al. 2021, arXiv:2103.16562"
_CONTOUR = "Csurka et al. 2013, doi:10.5244/C.27.32; matching as in Perazzi et al. 2016, doi:10.1109/CVPR.2016.85"
_SURFACE = "Nikolov et al. 2018, arXiv:1809.04430"
_GUO = "Guo et al. 2017, arXiv:1706.04599"
_PANOPTIC = "Kirillov et al. 2019, arXiv:1801.00868"
_LENGTH = "length, in the unit of the grid"
_SHOWN = "Mean over the images where both truth and prediction show the class; read it beside missed and invented. Ignored pixels belong to no region."
_BANDS = (
    "Sums over all images of pixels near a border; the width is a share of each image's diagonal (2 % by default). Ignored pixels make no "
    f"border; the edge of the image does. {_UNION}"
)
_LINES = (
    "Sums over all images of contour pixels; they match where the other's contour of the same class lies within a share of the "
    "image's diagonal (0.75 % by default, one pixel at least). Ignored pixels and the edge of the image make no contour. A class without a "
    "contour has none, and is left out of means."
)
_ALONE = "Every image alone, then the mean over those where it is defined: another number than one matrix gives."
_SEGMENTS = (
    "Sums over all images; a category that neither shows is left out of means. Void pixels of the truth are left out of unions, and "
    "predictions that lie mostly in void are no false positives."
)


@dataclass(frozen=True)
class Definition:
    """Say what a score means.

    Args:
        title: what people call it.
        formula: in plain characters, see `SYMBOLS`.
        says: one sentence of plain words.
        over: what it is taken over, and how absent classes and void pixels are treated.
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
        "How much prediction and truth overlap, all classes alike: the headline.",
        f"One confusion matrix over all images. {_UNION} Ignored pixels count in nothing.",
        _EVERINGHAM,
    ),
    "miou_present": _share(
        "mIoU, true classes",
        "mean of TP / (TP + FP + FN) over classes with TP + FN > 0",
        "The same over the classes that the truth shows: inventing an absent class costs only the classes it is put over.",
        "One confusion matrix over all images; classes that no truth shows are left out. Ignored pixels count in nothing.",
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
        "The share of pixels that are right. Large classes decide it: see what a constant guess scores.",
        _OVER,
        _LONG,
    ),
    "frequency_weighted_iou": _share(
        "Frequency-weighted IoU",
        "Σ (TP + FN) · IoU / Σ (TP + FN)",
        "The mean of the classes' IoU, each weighted by its true pixels.",
        f"{_OVER} Classes that the truth lacks weigh nothing.",
        _LONG,
    ),
    "iou": _share(
        "IoU",
        "TP / (TP + FP + FN)",
        "Of all pixels that are the class or were given it, the share on which both agree.",
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
        "Of the pixels that were given the class, the share that is it.",
        f"{_OVER} Undefined for a class that was never predicted.",
        "van Rijsbergen 1979, Information Retrieval, 2nd edition, chapter 7",
    ),
    "recall": _share(
        "Recall",
        "TP / (TP + FN)",
        "Of the pixels of the class, the share that was found.",
        f"{_OVER} Undefined for a class that the truth never shows.",
        "van Rijsbergen 1979, Information Retrieval, 2nd edition, chapter 7",
    ),
    "image_miou": _share(
        "mIoU of single images",
        "mean over images of their own mIoU",
        "How good a typical image is, each counting alike whatever its size.",
        f"{_ALONE} In each, classes that neither truth nor prediction shows are left out.",
        _EVERINGHAM,
    ),
    "image_dice": _share(
        "Mean Dice of single images",
        "mean over images of their own mean Dice",
        "How good a typical image is, by Dice.",
        f"{_ALONE} In each, classes that neither truth nor prediction shows are left out.",
        "Dice 1945, doi:10.2307/1932409",
    ),
    "image_iou": _share(
        "IoU of single images",
        "mean over images of the class's IoU there",
        "How well the class is found in a typical image that shows it.",
        f"{_ALONE} Images where neither truth nor prediction shows the class are left out.",
        _EVERINGHAM,
    ),
}
_EDGES: dict[str, Definition] = {
    "boundary_miou": _share(
        "Boundary mIoU",
        "mean over classes of boundary IoU",
        "How well edges are drawn, all classes alike.",
        _BANDS,
        _BOUNDARY,
    ),
    "boundary_iou": _share(
        "Boundary IoU",
        "|T ∩ P| / |T ∪ P|, T and P the parts of the true and the predicted region near their own border",
        "The IoU of what lies near the borders: large objects cannot hide coarse edges.",
        _BANDS,
        _BOUNDARY,
    ),
    "mean_boundary_f1": _share(
        "Mean boundary F1",
        "mean over classes of boundary F1",
        "How much of the contours is met, all classes alike.",
        _LINES,
        _CONTOUR,
    ),
    "boundary_f1": _share(
        "Boundary F1",
        "2 p r / (p + r), p the share of the predicted contour that lies near the true one, r the reverse",
        "How much of the contours is met, within a small tolerance.",
        _LINES,
        _CONTOUR,
    ),
    "hausdorff": _error(
        "Hausdorff distance",
        "max over both surfaces of the distance to the other",
        "The largest distance between the true and the predicted surface: one stray pixel decides it.",
        _SHOWN,
        _SURFACE,
        _LENGTH,
    ),
    "hausdorff95": _error(
        "Hausdorff distance, 95 %",
        "larger of both directions' 95 % points of the distance, weighted by size",
        "The distance within which 95 % of each surface lies.",
        _SHOWN,
        _SURFACE,
        _LENGTH,
    ),
    "surface_distance": _error(
        "Mean surface distance",
        "mean distance to the other surface, over both surfaces, weighted by size",
        "How far the surfaces lie apart on average (ASSD).",
        _SHOWN,
        _SURFACE,
        _LENGTH,
    ),
    "surface_dice": _share(
        "Surface Dice",
        "size of both surfaces within the tolerance of the other / size of both",
        "The share of the surfaces that needs no correction (NSD).",
        "Mean over the images where truth or prediction shows the class; 0 where only one does. Ignored pixels belong to no region.",
        _SURFACE,
    ),
    "missed": _error(
        "Missed",
        "images where only the truth shows the class / images where the truth shows it",
        "How often a class that is there is not found at all.",
        "Images whose truth shows the class; ignored pixels count in nothing.",
        "pixelwise's own, so that means of distances cannot hide what has none",
    ),
    "invented": _error(
        "Invented",
        "images where only the prediction shows the class / images where the prediction shows it",
        "How often a class that was predicted is not there at all.",
        "Images whose prediction shows the class; ignored pixels count in nothing.",
        "pixelwise's own, so that means of distances cannot hide what has none",
    ),
}
_PIXELS = "All counted pixels; ignored pixels count in nothing."
_NOISE = (
    "Drawing images anew adds noise, and noise counts as error: the values behind the interval lie above the score on average, "
    "and the whole interval may."
)
_BINS = f"{_PIXELS} Bins of equal width over confidence, 15 by default. {_NOISE}"
_CLASS_BINS = (
    f"{_PIXELS} Bins of equal width over the class's own probability, not over confidence, 15 by default. {_NOISE}"
)


def _accuracy_at(coverage: int) -> Definition:
    return _share(
        f"Accuracy at {coverage}\u00a0%",
        f"pixel accuracy among the {coverage} % of pixels with the highest confidence",
        "What remains right where the least certain pixels are left to people."
        if coverage < 100
        else "Pixel accuracy of all pixels, by their most probable class.",
        f"{_PIXELS} Pixels of all images are ranked together.",
        "Geifman & El-Yaniv 2017, arXiv:1705.08500",
    )


_TRUST: dict[str, Definition] = {
    "confidence": Definition(
        "Mean confidence",
        "mean over pixels of the largest probability",
        "How sure the model is; above its accuracy it believes itself too much.",
        _PIXELS,
        _GUO,
        _SHARE,
        "neither",
    ),
    "ece": _error(
        "Expected calibration error",
        "Σ over bins of (pixels in bin / pixels) · |accuracy − confidence|",
        "How far confidence and accuracy lie apart on average.",
        _BINS,
        _GUO,
    ),
    "mce": _error(
        "Maximum calibration error",
        "max over bins with pixels of |accuracy − confidence|",
        "How far confidence and accuracy lie apart in the worst bin, which may hold few pixels.",
        _BINS,
        _GUO,
    ),
    "classwise_ece": _error(
        "Class-wise calibration error",
        "mean over classes of the calibration error of the class's probability",
        "How far each class's probability lies from how often it is true.",
        f"{_CLASS_BINS} Classes that the truth lacks are left out.",
        "Kull et al. 2019, arXiv:1910.12656",
    ),
    "calibration_error": _error(
        "Calibration error of a class",
        "Σ over bins of (pixels in bin / pixels) · |frequency − mean probability| of the class",
        "How far the class's probability lies from how often it is true. Small for rare classes whatever they do.",
        f"{_CLASS_BINS} Undefined for a class that the truth lacks.",
        "Kull et al. 2019, arXiv:1910.12656",
    ),
    "brier": _error(
        "Brier score",
        "mean over pixels of Σ over classes of (p − [class is true])²",
        "The squared error of the probabilities: 0 is best, 2 worst.",
        _PIXELS,
        "Brier 1950, doi:10.1175/1520-0493(1950)078<0001:VOFEIT>2.0.CO;2",
        "0…2",
    ),
    "nll": _error(
        "Negative log-likelihood",
        "mean over pixels of −ln p(true class)",
        "How surprised the model is by the truth; what cross-entropy trains.",
        f"{_PIXELS} Probabilities below 1.2e-38 count as that.",
        _GUO,
        "nats",
    ),
    "aurc": _error(
        "Area under risk–coverage",
        "mean over coverages 0…1 of the share of wrong pixels among the most confident",
        "How well confidence tells right pixels from wrong ones.",
        f"{_PIXELS} Pixels of all images are ranked together.",
        "Geifman et al. 2019, arXiv:1805.08206",
    ),
    **{f"accuracy_at_{coverage}": _accuracy_at(coverage) for coverage in (50, 80, 90, 95, 100)},
}
_OBJECTS: dict[str, Definition] = {
    "pq": _share(
        "Panoptic quality",
        "ΣIoU of matched segments / (TP + FP/2 + FN/2), matched where IoU > 0.5",
        "How well segments are found and outlined: SQ · RQ in each category.",
        _SEGMENTS,
        _PANOPTIC,
    ),
    "sq": _share(
        "Segmentation quality",
        "ΣIoU of matched segments / TP",
        "How well found segments are outlined.",
        _SEGMENTS,
        _PANOPTIC,
    ),
    "rq": _share(
        "Recognition quality", "TP / (TP + FP/2 + FN/2)", "How well segments are found.", _SEGMENTS, _PANOPTIC
    ),
    "boundary_pq": _share(
        "Boundary panoptic quality",
        "PQ with min(mask IoU, boundary IoU) in place of IoU",
        "Panoptic quality that coarse edges lower.",
        _SEGMENTS,
        _BOUNDARY,
    ),
    "ap": _share(
        "Average precision",
        "area under precision over recall, mean over categories and IoU thresholds 0.50, 0.55 … 0.95",
        "How well objects are found and outlined, whatever confidence is asked for.",
        "Objects of all images, at most 100 detections an image and category; categories without an object in the truth are left out, "
        "crowds are neither hits nor misses.",
        "Lin et al. 2014, arXiv:1405.0312",
    ),
}
FUNCTIONS = """\
No evaluation gives these, and no interval comes with them: they are taken by functions, of maps of segments or of
objects in the format of COCO. `panoptic_sums` adds up over images; with `boundary_share=0.02` it is that of boundary PQ.

```python
import numpy as np
from pixelwise.metrics.instances import average_precision
from pixelwise.metrics.panoptic import Segment, panoptic_quality, panoptic_sums

truth, prediction = np.array([[1, 1, 1, 2, 2]]), np.array([[1, 1, 1, 1, 2]])
segments = {1: Segment(category=7), 2: Segment(category=8)}
quality = panoptic_quality(panoptic_sums(truth, prediction, segments, segments, categories=[7, 8]))
quality.pq, quality.sq, quality.rq  # one number per category: 0.75 and 0 (an IoU of 1/2 is no match)

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
DEFINITIONS: Mapping[str, Definition] = {key: one for family in FAMILIES.values() for key, one in family.items()}


def documentation() -> str:
    """Give the page of documentation as Markdown: every score by its key, by family."""
    better = {"neither": "neither high nor low is good in itself"}
    lines = ["# What the scores mean", "", INTRODUCTION, "", SYMBOLS, ""]
    lines += ["This page is made from `pixelwise.metrics.definitions`; change it there."]
    for family, entries in FAMILIES.items():
        lines += ["", f"## {family}", *(["", FUNCTIONS] if entries is _OBJECTS else [])]
        for key, one in entries.items():
            lines += ["", f"### `{key}`: {one.title}", "", one.says, "", f"    {one.formula}", ""]
            lines += [f"- Over: {one.over}", f"- Unit: {one.unit}; {better.get(one.better, f'{one.better} is better')}"]
            lines.append(f"- Source: {one.source}")
    return "\n".join(lines) + "\n"
