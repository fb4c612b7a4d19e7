"""Prediction intervals for the size of a class in one image, by split-conformal prediction.

The errors of a model on calibration images, which served no other purpose, tell how far the true number of pixels of a class is from
the predicted one. Nothing is assumed of the model or of the distribution of its errors, only that the new image is exchangeable with
the calibration images (Vovk, Gammerman & Shafer 2005; Lei et al. 2018, doi:10.1080/01621459.2017.1307116).

- The score of an image is the error as a share of its pixels, or the error divided by the length of the contour of the predicted class,
  whichever gives narrower intervals on images that are not calibrated on.
- Images in which the class is predicted and those in which it is not are calibrated apart (Mondrian categories: Vovk et al. 2005, ch. 4.5).
  Together, a class that most images lack would have intervals of width 0, also where it is predicted.
- Images of one group (patient, scene, sequence) are alike. Each group has the weight 1, divided among its images, and so has the
  unknown group of the new image, at infinity: hierarchical conformal prediction (Lee, Barber & Willett 2023, arXiv:2306.06342,
  theorem 1), exact for a random image of a new group. With groups of one image it is the order statistic ⌈level · (n + 1)⌉.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from fractions import Fraction
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from pixelwise.measuring.masks import MaskSource
from pixelwise.tiles import Window

Score = Literal["share", "boundary"]
LEVEL = 0.9
# Incremented when older versions would misread the plain form.
VERSION = 1
HOW_TO_ADD = "pixelwise evaluate MODEL DATA --set evaluate.calibrate_sizes=true"
_ROUNDING = 1e-9
# Images of other sizes than those calibrated on, by more than this factor, have no interval.
_SIZE_RANGE = 2.0
# Of the lengths of the contours: shorter ones count as this long, so that a few stray pixels do not have the largest scores.
_SHORTEST = 0.1
_BAND_PIXELS = 1 << 22


@dataclass(frozen=True, eq=False)
class ImageSizes:
    """The true and predicted sizes of K classes in N images, in pixels.

    Args:
        truth: (N, K) annotated pixels of each class.
        predicted: (N, K) predicted pixels of each class, among the annotated pixels.
        boundary: (N, K) length of the contour of each predicted class, see `boundary_lengths`.
        annotated: (N,) pixels that are not ignored.
        pixels: (N,) all pixels.
        groups: what each image belongs to (patient, scene, sequence); None for an image on its own.
    """

    truth: NDArray[np.int64]
    predicted: NDArray[np.int64]
    boundary: NDArray[np.int64]
    annotated: NDArray[np.int64]
    pixels: NDArray[np.int64]
    groups: tuple[str | None, ...]

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.groups)

    def units(self) -> NDArray[np.int64]:
        """Return the number of the group of each image, (N,); an image without a group is a group of its own."""
        return unit_numbers(self.groups)

    def subset(self, chosen: Sequence[int] | NDArray[Any]) -> ImageSizes:
        """Return some of the images."""
        index = np.asarray(chosen, np.int64)
        return ImageSizes(
            self.truth[index],
            self.predicted[index],
            self.boundary[index],
            self.annotated[index],
            self.pixels[index],
            tuple(self.groups[i] for i in index.tolist()),
        )


@dataclass(frozen=True)
class ErrorLimit:
    """The limit of the errors of one class, in one of the two categories of images.

    Args:
        score: "share" of the pixels of the image, or pixels per length of the "boundary".
        quantile: of the scores; None if there are too few images or groups.
        floor: shortest boundary; shorter ones count as this long.
        images, units: number of images, and of groups of images (or of images without groups), behind the quantile.
    """

    score: Score
    quantile: float | None
    floor: float
    images: int
    units: int


@dataclass(frozen=True)
class SizeCalibration:
    """How wide intervals of sizes have to be, per class.

    Args:
        level: share of images whose true size lies in the interval, 0…1.
        split: the images that it was calibrated on: "validation" or "test".
        images, units: their number, and the number of their groups.
        grouped: whether they have groups.
        pixels: smallest and largest size of them, in pixels.
        predicted: limits by class index, for images in which the class is predicted.
        missing: likewise for images in which it is not.
    """

    level: float
    split: str
    images: int
    units: int
    grouped: bool
    pixels: tuple[int, int]
    predicted: tuple[ErrorLimit, ...]
    missing: tuple[ErrorLimit, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return the plain form that `model.json` holds."""
        return {"version": VERSION, **asdict(self)}

    @classmethod
    def from_dict(cls, plain: Mapping[str, Any] | None) -> SizeCalibration | None:
        """Read the plain form back; None if there is none, or a later version wrote it."""
        if plain is None or plain.get("version") != VERSION:
            return None
        values = {name: plain[name] for name in cls.__dataclass_fields__}
        limits = {name: tuple(ErrorLimit(**each) for each in values[name]) for name in ("predicted", "missing")}
        return cls(**{**values, **limits, "pixels": tuple(values["pixels"])})


@dataclass(frozen=True)
class SizeInterval:
    """An interval of the true size in pixels, and a sentence on what it covers; without limits, why there are none."""

    low: int | None
    high: int | None
    note: str


def unit_numbers(groups: Sequence[str | None]) -> NDArray[np.int64]:
    """Return the number of the group of each image, (N,), from 0 on; an image without a group is a group of its own."""
    names = [(group is None, str(number) if group is None else group) for number, group in enumerate(groups)]
    place = {name: number for number, name in enumerate(dict.fromkeys(names))}
    return np.array([place[name] for name in names], np.int64)


def fewest_units(level: float = LEVEL) -> int:
    """Return how many groups (or images without groups) a level needs: 9 for 90 %, 19 for 95 %."""
    share = Fraction(level).limit_denominator(10**6)
    return math.ceil(share / (1 - share))


def conformal_quantile(scores: NDArray[Any], units: NDArray[np.int64], level: float = LEVEL) -> float:
    """Return the smallest score that covers a new image of a new group with probability `level` or more.

    Args:
        scores: (N,) of the calibration images.
        units: (N,) number of the group of each.
        level: 0…1.

    Returns:
        The score; infinity if there are fewer groups than `fewest_units`.
    """
    _, unit, counts = np.unique(units, return_inverse=True, return_counts=True)
    order = np.argsort(scores, kind="stable")
    reached = np.cumsum(1 / counts[unit[order]])
    place = int(np.searchsorted(reached, level * (len(counts) + 1) - _ROUNDING))
    return float(scores[order[place]]) if place < len(order) else math.inf


def calibrate(
    choosing: ImageSizes, images: ImageSizes, split: str = "validation", level: float = LEVEL
) -> SizeCalibration:
    """Calibrate the intervals of sizes of every class.

    Args:
        choosing: images on which the score of each class is chosen; none of `images`.
        images: the images to calibrate on, which must have served no other purpose.
        split: where they come from, for the text beside the intervals.
        level: share of images that intervals are to cover, 0…1.
    """
    classes = range(images.truth.shape[1])
    units = images.units()
    present, absent = [], []
    for k in classes:
        here = images.predicted[:, k] > 0
        score, floor = _choose_score(choosing, k, level)
        present.append(_limit(images, units, k, here, (score, floor), level))
        absent.append(_limit(images, units, k, ~here, ("share", 1.0), level))
    return SizeCalibration(
        level=level,
        split=split,
        images=len(images),
        units=len(np.unique(units)),
        grouped=any(group is not None for group in images.groups),
        pixels=(int(images.pixels.min(initial=1 << 62)), int(images.pixels.max(initial=0))),
        predicted=tuple(present),
        missing=tuple(absent),
    )


def _limit(
    images: ImageSizes,
    units: NDArray[np.int64],
    k: int,
    chosen: NDArray[np.bool_],
    score: tuple[Score, float],
    level: float,
) -> ErrorLimit:
    """Return the limit of the errors of one class on the chosen images (N,)."""
    errors = np.abs(images.truth[:, k] - images.predicted[:, k])[chosen]
    scores = errors / _unit_of_error(images, k, *score)[chosen]
    quantile = conformal_quantile(scores, units[chosen], level)
    count = len(np.unique(units[chosen]))
    return ErrorLimit(score[0], quantile if math.isfinite(quantile) else None, score[1], len(scores), count)


def _unit_of_error(images: ImageSizes, k: int, score: Score, floor: float) -> NDArray[np.float64]:
    """Return by what the errors of one class are divided, (N,)."""
    if score == "share":
        return np.maximum(images.annotated, 1).astype(np.float64)
    return np.maximum(images.boundary[:, k], floor)


def _choose_score(images: ImageSizes, k: int, level: float) -> tuple[Score, float]:
    """Choose the score with the narrower intervals, and the shortest boundary; "share" if too few images have the class."""
    here = images.predicted[:, k] > 0
    if here.sum() < fewest_units(level):
        return "share", 1.0
    floor = max(float(np.quantile(images.boundary[here, k], _SHORTEST)), 1.0)
    errors = np.abs(images.truth[:, k] - images.predicted[:, k])[here]
    widths = {}
    for score in ("share", "boundary"):
        unit = _unit_of_error(images, k, score, floor)[here]
        reach = np.quantile(errors / unit, level) * unit
        low = np.maximum(images.predicted[here, k] - reach, 0)
        high = np.minimum(images.predicted[here, k] + reach, images.annotated[here])
        widths[score] = float((high - low).mean())
    return ("boundary" if widths["boundary"] < widths["share"] else "share"), floor


def interval_of(
    calibration: SizeCalibration | None, class_index: int, predicted: int, boundary: int, pixels: int, ignored: int = 0
) -> SizeInterval:
    """Return the interval of the true size of a class in one image, clipped to 0 and the size of the image.

    Args:
        calibration: of the model that predicted the image; None if it has none.
        class_index: class index.
        predicted: number of predicted pixels of the class.
        boundary: length of the contour of the predicted class, see `boundary_lengths`.
        pixels: number of pixels of the image.
        ignored: how many of them are ignored.
    """
    if calibration is None:
        return SizeInterval(
            None, None, f"no interval: the sizes of this model are not calibrated; add that with {HOW_TO_ADD}"
        )
    smallest, largest = calibration.pixels
    if not smallest / _SIZE_RANGE <= pixels <= largest * _SIZE_RANGE:
        known = f"{smallest} pixels" if smallest == largest else f"{smallest} to {largest} pixels"
        return SizeInterval(None, None, f"no interval: calibrated on images of {known}, this one has {pixels}")
    limit = (calibration.predicted if predicted else calibration.missing)[class_index]
    if limit.quantile is None:
        return SizeInterval(None, None, _too_few(calibration, limit, bool(predicted)))
    counted = max(pixels - ignored, 1)
    unit = counted if limit.score == "share" else max(boundary, limit.floor)
    reach = math.floor(limit.quantile * unit * (1 + _ROUNDING) + _ROUNDING)  # sizes are whole numbers
    return SizeInterval(max(predicted - reach, 0), min(predicted + reach, counted), _covers(calibration))


def _too_few(calibration: SizeCalibration, limit: ErrorLimit, predicted: bool) -> str:
    what = "groups" if calibration.grouped else "images"
    needed = fewest_units(calibration.level)
    return (
        f"no interval: the class is {'' if predicted else 'not '}predicted in {limit.units} of the calibration {what}, and "
        f"{needed} are needed"
    )


def _covers(calibration: SizeCalibration) -> str:
    """Return the sentence on what an interval covers."""
    like = f"the {calibration.images} {calibration.split} images"
    if calibration.grouped:
        like += f" of {calibration.units} groups, for a new group"
    return (
        f"{100 * calibration.level:g} % prediction interval, valid for images like {like}; a new site or camera can cost 5 to 30 "
        "points of coverage"
    )


def boundary_lengths(mask: NDArray[Any], num_classes: int) -> NDArray[np.int64]:
    """Return the length of the contour of each class, (K,): edges (2-D) or faces (3-D) of pixels between it and another class.

    Edges on the border of the image and beside ignored pixels do not count.

    Args:
        mask: (*S) class indices; other values are ignored.
        num_classes: K.
    """
    lengths = np.zeros(num_classes, np.int64)
    for axis in range(mask.ndim):
        before, after = (np.moveaxis(mask, axis, 0)[part] for part in (slice(None, -1), slice(1, None)))
        differ = before != after
        pairs = np.stack([before[differ], after[differ]])
        pairs = pairs[:, (pairs < num_classes).all(0)]
        lengths += np.bincount(pairs.reshape(-1), minlength=num_classes)
    return lengths


def boundary_lengths_of(mask: MaskSource) -> NDArray[np.int64]:
    """Return `boundary_lengths` of a mask that is read in bands of rows, (K,)."""
    num_classes, shape = mask.labels.num_classes, mask.shape
    rows = max(_BAND_PIXELS // max(math.prod(shape[1:]), 1), 1)
    lengths = np.zeros(num_classes, np.int64)
    for start in range(0, shape[0], rows):
        # One row further, whose own edges belong to the next band.
        stop = min(start + rows + 1, shape[0])
        band = mask.read(Window((start, *(0 for _ in shape[1:])), (stop, *shape[1:])))
        lengths += boundary_lengths(band, num_classes)
        if stop > start + rows:
            lengths -= boundary_lengths(band[-1], num_classes)
    return lengths
