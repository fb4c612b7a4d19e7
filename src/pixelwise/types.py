"""Frozen values passed between the layers: Sample, Prediction, ModelSpec, Measurement, Scores and Fingerprint.

Shapes used throughout pixelwise:

    C channels (bands)   K classes   H W rows, columns   D slices   *S = (H, W) or (D, H, W)
    image           (C, *S)   raw pixel values in the type of the file
    mask            (*S)      class indices 0…K-1, or Labels.ignore_index
    probabilities   (K, *S)   float32, summing to 1 over K
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from pixelwise.grid import Grid
from pixelwise.labels import Labels
from pixelwise.tiles import Window

_CHUNK = 1 << 24


@dataclass(frozen=True)
class Sample:
    """An image with its ground truth, if there is any.

    Args:
        image: (C, *S), raw pixel values in the type of the file.
        mask: (*S), class indices or the ignore index, as annotated; None without ground truth.
        grid: spatial reference of the pixels.
        id: name of the image in its data set.
        group: what the image belongs to (patient, scene, sequence); None if unknown.
        valid: (*S), false where the image itself holds no data (such as nodata); None if all pixels are valid.
    """

    image: NDArray[Any]
    mask: NDArray[Any] | None
    grid: Grid
    id: str
    group: str | None = None
    valid: NDArray[np.bool_] | None = None

    def truth(self, ignore_index: int) -> NDArray[Any] | None:
        """Return the mask with `ignore_index` where the image is not valid, (*S); None without ground truth."""
        if self.mask is None or self.valid is None:
            return self.mask
        return np.where(self.valid, self.mask, self.mask.dtype.type(ignore_index))


@dataclass(frozen=True)
class Prediction:
    """The classes that a model predicts for one image, on the grid of the image.

    Args:
        mask: (*S), class indices; the ignore index where the image is not valid.
        labels: the classes.
        grid: where the pixels lie in the world.
        id: name of the image.
        probabilities: (K, *S) float32; None unless requested.
        valid: (*S), false where the image has no data; None if all pixels are valid.
    """

    mask: NDArray[Any]
    labels: Labels
    grid: Grid
    id: str = ""
    probabilities: NDArray[np.float32] | None = None
    valid: NDArray[np.bool_] | None = None

    def shares(self) -> dict[str, float]:
        """Return the share of the image's pixels in each class, 0…1, by class name."""
        flat = self.mask.reshape(-1)
        counts = np.zeros(self.labels.num_classes, np.int64)
        # In chunks, since bincount converts its input to int64.
        for start in range(0, flat.size, _CHUNK):
            counts += np.bincount(flat[start : start + _CHUNK], minlength=len(counts))[: len(counts)]
        return {name: float(counts[k] / self.mask.size) for k, name in enumerate(self.labels.names)}


@dataclass(frozen=True)
class ModelSpec:
    """Everything needed to prepare the input of a model and to interpret its output, except the network itself.

    Args:
        labels: the classes.
        channels: C, bands per image.
        dimensions: spatial axes, 2 or 3.
        colour_mode: "rgb" or "grey" if images of one or three bands are converted to it; None: no conversion.
        dtype: numpy name of the pixel type of the training images; None if any is accepted.
        typical_range: the 0.5 % and 99.5 % percentiles of the training pixels over all bands, in raw values; None if unknown.
        fill: raw value per band that replaces invalid pixels; () for zeros.
        nodata: stored value of pixels without data, besides the value that a file defines; None if there is none.
        stride: pixels per step of the coarsest feature map; tiles start at its multiples.
        logit_scale: image pixels per logit along each axis; 1 if logits have the size of the image.
        tile: size of the tiles, (*S); None if images are predicted whole.
        overlap: minimum overlap of neighbouring tiles, as a share of the tile, 0…1.
        intensity: "image" if each image is brought to mean 0 and standard deviation 1 per band before the network sees it;
            "data" if it is not.
        spacing: distance between neighbouring pixels per axis, in mm, to which images with another spacing are resampled; None
            if they are not.
        neighbours: slices on either side whose bands follow one another in the C bands of a slice of a volume; 0 for other images.
        across: the direction in which the slices of volumes are stacked; None for the coarsest of each volume.
        mirrors: directions in which images were mirrored in training: "horizontal", "vertical", "depth".
        flips: whether probabilities are averaged over copies mirrored in these directions.
        temperature: divisor of the logits before the softmax (Guo et al. 2017, arXiv:1706.04599); no effect on masks.
        task: "semantic", "instance" or "panoptic".
        trained_spacing: median distance between neighbouring pixels of the training images per axis, in array order; None if
            unknown.
        trained_unit: its unit.
        trained_bands: names of the bands of the training images; () if they have none.
    """

    labels: Labels
    channels: int
    dimensions: int = 2
    colour_mode: Literal["rgb", "grey"] | None = None
    dtype: str | None = None
    typical_range: tuple[float, float] | None = None
    fill: tuple[float, ...] = ()
    nodata: float | None = None
    stride: int = 1
    logit_scale: int = 1
    tile: tuple[int, ...] | None = None
    overlap: float = 0.25
    intensity: Literal["data", "image"] = "data"
    spacing: tuple[float, ...] | None = None
    neighbours: int = 0
    across: Literal["axial", "coronal", "sagittal"] | None = None
    mirrors: tuple[str, ...] = ("horizontal", "vertical")
    flips: bool = False
    temperature: float = 1.0
    task: Literal["semantic", "instance", "panoptic"] = "semantic"
    trained_spacing: tuple[float, ...] | None = None
    trained_unit: str = "px"
    trained_bands: tuple[str, ...] = ()


@dataclass(frozen=True)
class Measurement:
    """A physical size, the estimator that computed it, and the limits of its error.

    Args:
        value: in `unit`.
        unit: "mm", "m²", "ml", …; "px", "px²" or "voxels" if the image has no spacing.
        estimator: how the value was computed, in a few words ("pixel count").
        bound: largest error due to the pixel grid, in `unit`; None if unknown.
        low, high: limits of a confidence or prediction interval, in `unit`; None if there is none.
        note: what the interval covers, or what limits the value; None if there is nothing to say.
    """

    value: float
    unit: str
    estimator: str
    bound: float | None = None
    low: float | None = None
    high: float | None = None
    note: str | None = None


@dataclass(frozen=True)
class Region:
    """Connected pixels of one class, with their sizes.

    Args:
        image: name of the image.
        number: 1…N within the image, in the order of the first pixel (row by row).
        class_index: class index.
        class_name: name of the class.
        pixels: number of pixels.
        window: bounding box.
        centroid: mean position of the pixels, in (row, column) or (slice, row, column), with pixel centres at integers.
        position: the centroid in world coordinates (x, y[, z]); None if the image has no position.
        touches_border: whether pixels lie on the border of the image or beside pixels without data, so that the region may continue there.
        holes: number of holes, or of cavities in a volume; None if unknown.
        confidence: mean probability of the class over the pixels, 0…1; None if unknown.
        measurements: sizes by name: "area", "perimeter" and "longest_axis", and "length" and "width" of thin regions; or "volume", "surface",
            "longest_axis", and "longest_axis_in_slice".
    """

    image: str
    number: int
    class_index: int
    class_name: str
    pixels: int
    window: Window
    centroid: tuple[float, ...]
    position: tuple[float, ...] | None
    touches_border: bool
    holes: int | None
    confidence: float | None
    measurements: Mapping[str, Measurement]


@dataclass(frozen=True)
class Score:
    """The value of a metric, its confidence interval, and the number n of images behind it; None where undefined."""

    value: float | None
    low: float | None = None
    high: float | None = None
    n: int | None = None


@dataclass(frozen=True)
class ClassScores:
    """Scores of one class over a data set; `more` holds further scores by the keys of `metrics.definitions`."""

    name: str
    iou: Score
    dice: Score
    precision: Score
    recall: Score
    pixels: int
    more: Mapping[str, Score] = field(default_factory=dict)


@dataclass(frozen=True)
class Scores:
    """Scores of predictions over a data set.

    Args:
        miou: mean over the classes with a union (see `convention`).
        classes: one entry per class, in the order of the labels.
        images: number of images scored.
        excluded: classes excluded from the means, since neither ground truth nor prediction contains them.
        convention: how absent classes and ignored pixels are treated, one sentence.
        interval: how `low` and `high` were computed, one sentence.
        interval_method: the same for programs: method, unit, n, effective_n.
        confusion: int64 (K, K), rows ground truth, columns prediction.
        more: further scores over all classes, by the keys of `metrics.definitions`.
    """

    miou: Score
    miou_present: Score
    mean_dice: Score
    pixel_accuracy: Score
    frequency_weighted_iou: Score
    classes: tuple[ClassScores, ...]
    images: int
    ignored_pixels: int
    excluded: tuple[str, ...]
    convention: str
    interval: str
    confusion: NDArray[np.int64] = field(repr=False)
    more: Mapping[str, Score] = field(default_factory=dict)
    interval_method: Mapping[str, Any] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Return the plain form of `scores.json`: each score with `_low`, `_high` and `_n` beside it."""
        plain: dict[str, Any] = {}
        for name in ("miou", "miou_present", "mean_dice", "pixel_accuracy", "frequency_weighted_iou"):
            plain |= spread(name, getattr(self, name))
        for name, score in self.more.items():
            plain |= spread(name, score)
        plain["images"] = self.images
        plain["ignored_pixels"] = self.ignored_pixels
        plain["classes"] = []
        for entry in self.classes:
            row: dict[str, Any] = {"name": entry.name}
            for name in ("iou", "dice", "precision", "recall"):
                row |= spread(name, getattr(entry, name))
            for name, score in entry.more.items():
                row |= spread(name, score)
            plain["classes"].append(row | {"pixels": entry.pixels})
        plain["excluded"] = list(self.excluded)
        plain["convention"] = self.convention
        plain["interval"] = self.interval
        plain["interval_method"] = dict(self.interval_method)
        plain["confusion"] = self.confusion.tolist()
        return plain

    @classmethod
    def from_dict(cls, plain: Mapping[str, Any]) -> Scores:
        """Read the plain form; missing scores are undefined, and unknown keys are ignored."""
        overall = _scores_in(plain)
        means = ("miou", "miou_present", "mean_dice", "pixel_accuracy", "frequency_weighted_iou")
        classes = []
        for row in plain.get("classes") or ():
            found = _scores_in(row)
            iou, dice, precision, recall = (
                found.pop(key, Score(None)) for key in ("iou", "dice", "precision", "recall")
            )
            pixels = int(row.get("pixels") or 0)
            classes.append(ClassScores(str(row["name"]), iou, dice, precision, recall, pixels, found))
        return cls(
            **{name: overall.pop(name, Score(None)) for name in means},
            classes=tuple(classes),
            images=int(plain.get("images") or 0),
            ignored_pixels=int(plain.get("ignored_pixels") or 0),
            excluded=tuple(map(str, plain.get("excluded") or ())),
            convention=str(plain.get("convention") or ""),
            interval=str(plain.get("interval") or ""),
            confusion=np.asarray(plain.get("confusion") or np.zeros((0, 0)), np.int64),
            more=overall,
            interval_method=dict(plain.get("interval_method") or {}),
        )


def spread(name: str, score: Score) -> dict[str, float | None]:
    """Return the plain form of one score: `name`, `name_low`, `name_high`, `name_n`."""
    return {name: score.value, f"{name}_low": score.low, f"{name}_high": score.high, f"{name}_n": score.n}


def unspread(name: str, plain: Mapping[str, Any]) -> Score:
    """Read one score from its plain form; missing values are None."""
    return Score(*(plain.get(key) for key in (name, f"{name}_low", f"{name}_high", f"{name}_n")))


def _scores_in(plain: Mapping[str, Any]) -> dict[str, Score]:
    return {key: unspread(key, plain) for key in plain if f"{key}_n" in plain}


@dataclass(frozen=True)
class Fingerprint:
    """Statistics of a training split, from which a configuration is derived.

    Files of older versions lack the fields after `hash`, which are empty or None then.

    Args:
        images: number of images.
        channels: bands per image.
        dtype: numpy name of the pixel type.
        sizes: smallest, median and largest *S.
        mean, std: per band, over all valid and annotated pixels, in raw pixel values.
        pixel_counts: pixels per class.
        image_counts: images per class in which it occurs.
        ignored_share: share of ignored pixels.
        thickness: per class, the median over images of 2 × area / perimeter in pixels, a lower bound of the thickness of its
            objects; None for classes that never occur.
        row_spread: how strongly the class depends on the row, 0…1: the share of the classes' entropy that the row explains.
            About 0.4 for road scenes, about 0 for cells and tiles.
        hash: SHA-256 over names and contents of every file of the split.
        distinct_sizes: number of different *S.
        spacing: distance between neighbouring pixels per axis, in array order: the median over the images.
        spacing_unit: its unit; "px" if the files do not specify one.
        spacings_differ: whether images differ in spacing or unit.
        extremes: per band, the smallest and the largest value.
        percentiles: per band, the 0.5, 50 and 99.5 % percentiles of the pixel values.
        core: per band, the range that holds 99 % of all values and at least 90 % of the values of each class; empty for
            8-bit pixels.
        core_mean, core_std: like `mean` and `std`, of values clipped to `core`.
        object_sizes: per class, the 5 %, 50 % and 95 % percentiles of the area of its connected regions in pixels; None for
            classes that never occur.
        objects_per_image: per class, the mean number of regions in images where it occurs.
        column_spread: like `row_spread`, for columns.
        one_sided: per class, the share of its pixels without a counterpart in the mirrored image: 0 if mirroring left and
            right changes nothing, 1 for a left kidney; None for classes that never occur.
        one_sided_by_chance: the value of `one_sided` expected by chance, given the number and variety of the images.
        depth_spread: like `row_spread`, for the slices of whole volumes; None for images.
        contrast_ratio: the largest over the smallest standard deviation of a whole volume, of the band in which they differ
            most; None for images.
        bands: names of the bands; () if the images have none, or different ones.
    """

    images: int
    channels: int
    dtype: str
    sizes: tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    pixel_counts: tuple[int, ...]
    image_counts: tuple[int, ...]
    ignored_share: float
    thickness: tuple[float | None, ...]
    row_spread: float
    hash: str
    distinct_sizes: int | None = None
    spacing: tuple[float, ...] | None = None
    spacing_unit: str = "px"
    spacings_differ: bool = False
    extremes: tuple[tuple[float, float], ...] = ()
    percentiles: tuple[tuple[float, float, float], ...] = ()
    core: tuple[tuple[float, float], ...] = ()
    core_mean: tuple[float, ...] = ()
    core_std: tuple[float, ...] = ()
    object_sizes: tuple[tuple[float, float, float] | None, ...] = ()
    objects_per_image: tuple[float | None, ...] = ()
    column_spread: float | None = None
    one_sided: tuple[float | None, ...] = ()
    one_sided_by_chance: tuple[float | None, ...] = ()
    depth_spread: float | None = None
    contrast_ratio: float | None = None
    bands: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Return the plain form that `data.json` holds."""
        return asdict(self)

    @classmethod
    def from_dict(cls, plain: Mapping[str, Any]) -> Fingerprint:
        """Read the plain form back."""
        data = {k: _tuples(v) for k, v in plain.items()}
        return cls(**data)


def _tuples(value: Any) -> Any:
    return tuple(_tuples(v) for v in value) if isinstance(value, list) else value
