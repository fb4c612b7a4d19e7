"""The results of an evaluation as the report uses them, parsed from the content of `scores.json`.

This is the only place that reads the dictionary. Keys that are missing, as in files of other versions, lead to empty or
undefined values, and the report leaves out what depends on them.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pixelwise.evaluation import Suspect
from pixelwise.metrics.definitions import DEFINITIONS, FAMILIES


@dataclass(frozen=True)
class Value:
    """A score with its 95 % interval and number of images; None where undefined."""

    key: str
    value: float | None = None
    low: float | None = None
    high: float | None = None
    n: int | None = None


@dataclass(frozen=True)
class ClassResult:
    """The scores of one class, and its number of annotated pixels."""

    name: str
    pixels: int
    scores: Mapping[str, Value]

    def score(self, key: str) -> Value:
        """Return a score; undefined if it was not computed."""
        return self.scores.get(key, Value(key))


@dataclass(frozen=True)
class ImageResult:
    """The scores of one image.

    Args:
        id: the image.
        miou: mIoU of this image alone; None where undefined.
        pixels: number of pixels that are not ignored.
        area_error: Σ over classes of |predicted − annotated pixels|, divided by `pixels`: 0 if every class covers the
            correct area, wherever it is, and at most 2; None where undefined.
    """

    id: str
    miou: float | None
    pixels: int
    area_error: float | None


@dataclass(frozen=True)
class PeerResult:
    """A score computed by the convention of another library: the call, its value, and the rule in words."""

    call: str
    score: Value
    rule: str


@dataclass(frozen=True)
class Results:
    """The results of an evaluation.

    Args:
        model, data, split: what was evaluated; empty where unknown.
        images: number of images.
        ignored_pixels: number of ignored pixels.
        unassigned_pixels: number of pixels to which the prediction assigned no class.
        scores: scores over all classes.
        classes: scores by class.
        excluded: names of classes left out of the means.
        baseline_class: most frequent class.
        baseline_miou, baseline_accuracy: scores of predicting that class everywhere; None where unknown.
        confusion: int64 (K, K), or (K, K + 1) with the pixels without a predicted class in the last column; None where
            unknown. Rows are annotated, columns predicted classes.
        per_image: scores by image.
        suspects: regions that may be annotated wrongly.
        tables: further plain tables of the evaluation.
        peer: name and scores of another library's convention; None where not requested.
        calibration: how the probabilities were calibrated.
        convention: how absent classes and ignored pixels are treated.
        interval: how the intervals are computed.
        notices: notices of the evaluation.
    """

    model: str
    data: str
    split: str
    images: int
    ignored_pixels: int
    unassigned_pixels: int
    scores: Mapping[str, Value]
    classes: tuple[ClassResult, ...]
    excluded: tuple[str, ...]
    baseline_class: str
    baseline_miou: float | None
    baseline_accuracy: float | None
    confusion: NDArray[np.int64] | None
    per_image: tuple[ImageResult, ...]
    suspects: tuple[Suspect, ...]
    tables: Mapping[str, Any]
    peer: tuple[str, tuple[PeerResult, ...]] | None
    calibration: Mapping[str, Any]
    convention: str
    interval: str
    notices: tuple[str, ...]

    def score(self, key: str) -> Value:
        """Return a score over all classes; undefined if it was not computed."""
        return self.scores.get(key, Value(key))

    @property
    def score_keys(self) -> list[str]:
        """The keys of the scores over all classes, in the order of their definitions."""
        return [key for family in FAMILIES.values() for key in family if key in self.scores]

    @property
    def class_score_keys(self) -> list[str]:
        """The keys of the scores by class, in the order of their definitions; unknown keys last."""
        keys = {key for entry in self.classes for key in entry.scores}
        return [key for key in DEFINITIONS if key in keys] + sorted(keys - set(DEFINITIONS))

    @classmethod
    def from_dict(cls, plain: Mapping[str, Any]) -> Results:
        """Parse the plain form, `Evaluation.to_dict()` with "model", "data", "split" and "calibration" where known."""
        baseline = plain.get("baseline") or {}
        tables = plain.get("tables") or {}
        classes = tuple(
            ClassResult(str(row.get("name")), int(row.get("pixels") or 0), _scores(row))
            for row in plain.get("classes") or ()
        )
        unassigned = int(plain.get("unassigned_pixels") or 0)
        return cls(
            model=str(plain.get("model") or ""),
            data=str(plain.get("data") or ""),
            split=str(plain.get("split") or ""),
            images=int(plain.get("images") or 0),
            ignored_pixels=int(plain.get("ignored_pixels") or 0),
            unassigned_pixels=unassigned,
            scores=_scores(plain),
            classes=classes,
            excluded=tuple(map(str, plain.get("excluded") or ())),
            baseline_class=str(baseline.get("answer", "one class")),
            baseline_miou=number(baseline.get("miou")),
            baseline_accuracy=number(baseline.get("pixel_accuracy")),
            confusion=_confusion(plain.get("confusion") or [], classes, unassigned),
            per_image=tuple(map(_image, plain.get("per_image") or ())),
            suspects=suspects_from(tables.get("suspects") or ()),
            tables=tables,
            peer=_peer(plain.get("peer")),
            calibration=plain.get("calibration") or {},
            convention=str(plain.get("convention") or ""),
            interval=str(plain.get("interval") or ""),
            notices=tuple(map(str, plain.get("notices") or ())),
        )


def number(value: object) -> float | None:
    """Return a finite number, or None for anything else."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if math.isfinite(value) else None


def value_of(plain: Mapping[str, Any], key: str) -> Value:
    """Read a score and its `_low`, `_high` and `_n`."""
    n = number(plain.get(f"{key}_n"))
    low = number(plain.get(f"{key}_low"))
    high = number(plain.get(f"{key}_high"))
    return Value(key, number(plain.get(key)), low, high, None if n is None else int(n))


def _scores(plain: Mapping[str, Any]) -> dict[str, Value]:
    return {key: value_of(plain, key) for key in plain if f"{key}_n" in plain}


def _image(plain: Mapping[str, Any]) -> ImageResult:
    pixels = int(plain.get("pixels") or 0)
    counts = plain.get("counts")
    area_error = None
    if pixels and counts:
        area_error = float(sum(abs(predicted - true) for _, _, true, predicted, *_ in counts) / pixels)
    return ImageResult(str(plain["id"]), number(plain.get("miou")), pixels, area_error)


def _confusion(counts: Any, classes: tuple[ClassResult, ...], unassigned: int) -> NDArray[np.int64] | None:
    matrix = np.asarray(counts, np.int64)
    if not classes or matrix.shape != (len(classes), len(classes)):
        return None
    missing = np.array([entry.pixels for entry in classes], np.int64) - matrix.sum(1)
    return np.column_stack([matrix, missing]) if unassigned and (missing >= 0).all() else matrix


def suspects_from(plain: Iterable[Mapping[str, Any]]) -> tuple[Suspect, ...]:
    """Read the plain form of suspects."""
    keys = [key.name for key in fields(Suspect)]
    return tuple(Suspect(**{key: entry[key] for key in keys}) for entry in plain)


def _peer(plain: Mapping[str, Any] | None) -> tuple[str, tuple[PeerResult, ...]] | None:
    if not plain:
        return None
    scores = tuple(
        PeerResult(str(entry.get("call")), value_of(entry, "value"), str(entry.get("says") or ""))
        for entry in plain.get("scores") or ()
    )
    return str(plain.get("convention")), scores
