"""The sections of a configuration as frozen pydantic models. Most unset values (None) are derived later."""

from __future__ import annotations

import math
from typing import Annotated, Any, Literal, get_args

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationInfo, field_validator

Share = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[int, Field(ge=1)]
NonNegative = Annotated[float, Field(ge=0)]


def _per_axis(sizes: tuple[int, ...]) -> tuple[int, ...]:
    if len(sizes) not in (2, 3):
        raise ValueError("(height, width) or (depth, height, width)")
    return sizes


Sizes = Annotated[tuple[Positive, ...], AfterValidator(_per_axis)]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    @field_validator("*", mode="before")
    @classmethod
    def _reject_booleans(cls, value: Any, info: ValidationInfo) -> Any:
        """Refuse YAML booleans such as `yes` where a number is expected: pydantic would read them as 1 and 0."""
        kind = cls.model_fields[info.field_name or ""].annotation
        if isinstance(value, bool) and kind is not Any and bool not in (kind, *get_args(kind)):
            raise ValueError("a number or a word, not yes or no")
        return value


class SplitFilesConfig(_Section):
    """Files of one split, as globs relative to the root of the data set."""

    images: str | list[str]
    masks: str | None = Field(
        None, description="template with {stem}, {parent}, {name}, or a glob of files with the same stems"
    )
    valid: str | None = Field(None, description="template of masks that are zero at invalid pixels")


class SplitConfig(_Section):
    """How a pool of images is split into train, val and test, by group and reproducibly."""

    val: Share = 0.2
    test: Share = 0.0
    seed: int = 0
    anew: bool = Field(False, description="split all images anew, ignoring the splits of folders and lists")
    block: Annotated[float, Field(gt=0)] | None = Field(
        None,
        description="side of the square blocks by which scenes are split, in the unit of their grid (pixels without one); null:"
        " derived, if there are fewer than 10 images",
    )
    buffer: NonNegative | None = Field(
        None, description="distance between blocks of different splits, in the unit of their grid; null: derived"
    )


class DataConfig(_Section):
    """A data set: a folder, or images and masks as globs."""

    root: str | None = Field(None, description="folder that paths are relative to; null: the folder of the YAML file")
    images: str | list[str] | None = Field(None, description="globs of one pool of images, which `split` divides")
    masks: str | None = Field(
        None, description="as in `train`; without `images`: a folder of masks, or a file name such as {stem}_mask.png"
    )
    valid: str | None = Field(None, description="as in `train`; without `images`: a folder beside the images")
    train: SplitFilesConfig | str | None = None
    val: SplitFilesConfig | str | None = None
    test: SplitFilesConfig | str | None = None
    format: str | None = Field(None, description="annotation format: masks, coco, yolo, labelme, …; null: detect")
    annotations: str | list[str] | None = Field(
        None, description="annotation files, as globs relative to the root; null: search"
    )
    unlabelled: str = Field(
        "background", description="class of pixels that no shape covers: background, ignore, or the name of a class"
    )
    overlap: Literal["file", "area"] | None = Field(
        None,
        description="which of two overlapping shapes wins: the later (file) or the smaller (area); null: by format",
    )
    ignored: list[str] = Field([], description="annotation classes whose pixels are ignored")
    attribute: str | None = Field(
        None, description="property of vector features that holds the class; null: class, label, type, … if all have it"
    )
    split: SplitConfig = SplitConfig()
    group: str | None = Field(
        None,
        description="images to keep in one split: first group of a regular expression on the path, or a CSV image,group",
    )
    labels: Any = Field(None, description="path of a labels.yaml, a list of names, or a mapping")
    mask_values: Any = Field(
        None,
        description="ids of mask values: null, {threshold: 128}, {0: 0, 255: 1}, {colours: true} or {objects: true}",
    )
    bands: Literal["grey", "rgb"] | None = Field(
        None,
        description="convert images of one or three bands to rgb (grey repeated) or grey (luminance); null: rgb if 8-bit"
        " images of both kinds are mixed",
    )
    nodata: float | Literal["nan"] | None = Field(
        None,
        description="stored value, in all images, of pixels without data, besides the value that a file itself defines",
    )
    volumes: Literal["slices", "whole"] | None = Field(
        None, description="read volumes as slices, or whole; null: whole for a network with three dimensions"
    )
    neighbours: Annotated[int, Field(ge=0, le=8)] = Field(
        0, description="slices on either side that are read as further bands of a slice of a volume"
    )
    skip_bad: bool = False

    @field_validator("nodata", mode="before")
    @classmethod
    def _number_or_nan(cls, value: Any) -> Any:
        try:
            number = 0.0 if value is None else float(value)
        except (TypeError, ValueError):
            number = math.inf
        if math.isinf(number):
            raise ValueError("a number, or nan")
        return "nan" if math.isnan(number) else value


class ModelConfig(_Section):
    """The network and its size."""

    name: str = Field(
        "auto", description="auto: chosen by the device and the installed weights; see `pixelwise models`"
    )
    weights: str | None = Field(
        None, description="none, imagenet, coco, ade20k, cityscapes, a folder or file, or a Hub name"
    )
    config: dict[str, Any] | None = Field(None, description="config.json of a transformers network")
    license: str | None = Field(None, description="licence of the initial weights; user: trained from scratch")
    weights_origin: str | None = Field(None, description="who trained the initial weights on what, or their address")
    accept_license: bool = Field(False, description="accept weights that exclude commercial use")
    encoder: str | None = Field(None, description="encoder of fpn: name of a network of timm")
    width: Positive | None = Field(None, description="channels of the decoder of fpn")
    fine: bool | None = Field(None, description="fpn with features at half and full resolution, for thin structures")
    norms: Literal["batch", "folded"] | None = Field(
        None, description="batch norms of the encoder of fpn: trained, or folded into its convolutions"
    )
    features: list[Positive] | None = Field(None, description="channels per scale of unet, finest first")
    up: Literal["transposed", "bilinear"] | None = None
    dimensions: Literal[2, 3] | None = Field(
        None, description="3: unet for whole volumes; null: 3 if `data.volumes` is whole, otherwise 2"
    )
    flat: Annotated[int, Field(ge=0)] | None = Field(
        None, description="finest scales of a unet of three dimensions that convolve and pool within slices only"
    )
    stem: Literal[1, 2, 4] | None = Field(
        None, description="1: full resolution; 2, 4: side of the patches of the first scale"
    )
    mean: list[float] | None = Field(None, description="per band, raw pixel values")
    std: list[Annotated[float, Field(gt=0)]] | None = None
    clip: Literal["none"] | list[tuple[float, float]] | None = Field(
        None, description="none, or [low, high] per band, to which raw pixel values are clipped"
    )
    intensity: Literal["data", "image"] | None = Field(
        None,
        description="data: `mean` and `std` are those of the training data; image: each image is first brought to mean 0"
        " and standard deviation 1 per band, for MR",
    )
    spacing: list[Annotated[float, Field(gt=0)]] | None = Field(
        None, description="mm between slices, rows and columns, to which whole volumes are resampled"
    )


class AugmentConfig(_Section):
    """Augmentation of training images."""

    flip_horizontal: Share | None = Field(None, description="probability")
    flip_vertical: Share | None = None
    flip_depth: Share | None = Field(None, description="probability that the order of the slices is reversed")
    elastic: NonNegative | None = Field(
        None,
        description="largest standard deviation of a smooth deformation of volumes, in voxels of the finest spacing",
    )
    rotate: Annotated[float, Field(ge=0, le=180)] | None = Field(None, description="largest angle, degrees")
    scale: tuple[Annotated[float, Field(gt=0)], Annotated[float, Field(gt=0)]] | None = Field(
        None, description="smallest and largest zoom"
    )
    brightness: NonNegative | None = Field(None, description="largest shift, in standard deviations of the band")
    contrast: Share | None = Field(None, description="largest relative change")
    noise: NonNegative | None = Field(
        None, description="largest standard deviation, in standard deviations of the band"
    )

    @field_validator("scale")
    @classmethod
    def _ascending(cls, value: tuple[float, float] | None) -> tuple[float, float] | None:
        if value and value[0] > value[1]:
            raise ValueError("the smallest zoom first")
        return value


class LossConfig(_Section):
    """Weights and parameters of the loss terms; see docs/losses.md."""

    cross_entropy: NonNegative = 0.5
    dice: NonNegative = 0.5
    focal: NonNegative = 0.0
    tversky: NonNegative = 0.0
    lovasz: NonNegative = Field(0.0, description="Lovász-softmax, a surrogate of IoU")
    boundary: NonNegative = Field(
        0.0, description="distance from the true contour, pixels; about 0.01, with other terms"
    )
    cldice: NonNegative = Field(0.0, description="connectivity of thin structures, with other terms")
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = Field(0.0, description="of cross-entropy")
    ohem: Annotated[float, Field(gt=0, le=1)] | None = Field(
        None, description="smallest share of pixels, the hardest, that cross-entropy keeps; null: all"
    )
    ohem_threshold: Share = Field(0.7, description="pixels whose true class is less probable are always kept")
    focal_gamma: NonNegative = 2.0
    tversky_alpha: Share = 0.3
    tversky_beta: Share = 0.7
    focal_tversky_gamma: Annotated[float, Field(gt=0)] = Field(1.0, description="1: plain Tversky; 1.33 in the paper")
    dice_per: Literal["batch", "image"] = Field(
        "batch", description="Dice, Tversky, Lovász and clDice are computed per batch or per image"
    )
    cldice_classes: list[Annotated[int, Field(ge=0)]] | None = Field(
        None, description="indices of the thin classes; null: all but the first"
    )
    cldice_iterations: Positive = Field(3, description="at least half the width of the widest thin structure, pixels")
    auxiliary: NonNegative = Field(0.5, description="weight of the loss of auxiliary heads")
    terms: dict[str, NonNegative] = Field({}, description="weights of further registered terms, by name")
    class_weights: Literal["none", "inverse", "median", "effective"] | list[NonNegative] | None = Field(
        None, description="none, inverse, median, effective, or one weight per class"
    )

    @field_validator("cldice_classes")
    @classmethod
    def _not_empty(cls, value: list[int] | None) -> list[int] | None:
        if value == []:
            raise ValueError("one class index or more, or null for all but the first")  # without classes, the term is 0
        return value


class TrainConfig(_Section):
    """Length of the training, batches, optimizer and hardware."""

    seed: Annotated[int, Field(ge=0, lt=2**40)] = 0
    steps: Positive | None = None
    recounts: tuple[tuple[Positive, Positive], ...] = ()  # see `training.schedule`
    crop: Sizes | None = Field(
        None, description="(height, width), or (depth, height, width), of a training crop, pixels"
    )
    batch_size: Positive | None = None
    accumulate: Positive = Field(1, description="batches per optimizer step")
    class_crops: Share | None = Field(None, description="share of crops centred on a randomly drawn class")
    learning_rate: Annotated[float, Field(gt=0)] | None = None
    head_rate: Annotated[float, Field(gt=0)] | None = Field(None, description="factor on the learning rate of the head")
    layer_decay: Annotated[float, Field(gt=0, le=1)] | None = Field(
        None, description="factor on the learning rate from each encoder layer to the layer before it"
    )
    freeze: Literal["none", "encoder"] | Annotated[int, Field(ge=0)] | None = Field(
        None, description="layers to freeze: none, encoder, or its first N layers"
    )
    unfreeze: Annotated[float, Field(gt=0, le=1)] | None = Field(
        None, description="share of the steps after which all layers are unfrozen, last layers first; null: never"
    )
    unfreeze_start: Share | None = Field(None, description="share of the steps before the first layer is unfrozen")
    copies: Annotated[int, Field(ge=0)] | None = Field(
        None,
        description="augmented copies per image whose features are stored while the encoder is frozen; 0: the encoder is"
        " computed in every step",
    )
    encoder_rate: Annotated[float, Field(gt=0)] | None = Field(
        None, description="factor on the learning rate of the encoder"
    )
    head_warmup: Share | None = Field(None, description="share of the steps in which only the head learns")
    weight_decay: NonNegative = 0.01
    warmup: Share = Field(0.05, description="share of the steps with a rising learning rate")
    clip: Annotated[float, Field(gt=0)] = Field(1.0, description="largest gradient norm")
    ema: Share | None = Field(None, description="decay per step of the averaged weights; 0: no averaging")
    precision: Literal["fp32", "bf16"] | None = None
    channels_last: bool | None = None
    validations: Positive | None = Field(None, description="how many times the validation split is scored")
    validation_images: Positive | None = Field(
        None, description="evenly spaced images of the validation split that are scored during training; null: all"
    )
    size_calibration: Annotated[int, Field(ge=0)] | None = Field(
        None,
        description="images of the validation split, or groups of images, that are set aside to calibrate intervals of sizes"
        " and used for nothing else; 0: none; null: derived",
    )
    workers: Annotated[int, Field(ge=0)] | None = Field(None, description="data loading processes")
    cache: bool | None = Field(None, description="keep decoded images in memory")
    device: str | None = Field(None, description="cpu, cuda, …")


class PredictConfig(_Section):
    """How images are predicted."""

    tile: Sizes | None = Field(None, description="(height, width) or (depth, height, width); larger images are tiled")
    overlap: Share = Field(0.25, description="overlap of neighbouring tiles, as a share of the tile")
    flips: bool = Field(False, description="average over mirrored copies of the image")
    mosaic: bool = Field(
        False, description="predict the adjoining GeoTIFFs of a folder, or of a local VRT, as one scene without seams"
    )
    resample: bool = Field(
        False, description="predict at the pixel spacing of the training, masks on the image's own grid"
    )
    confidence: bool = Field(False, description="predict: also write the largest probability at each pixel, in percent")
    polygons: tuple[Literal["geojson", "gpkg", "coco"], ...] = Field(
        (), description="predict: also write the regions of images as polygons: geojson, gpkg, coco, or a list of these"
    )
    simplify: NonNegative = Field(
        0.0, description="predict: largest distance in pixels by which the borders of polygons may move; 0: pixel edges"
    )
    dicom: Literal["binary", "labelmap", "nifti"] = Field(
        "binary", description="masks of DICOM series: the type of the DICOM segmentation, or NIfTI"
    )
    generate_uids: bool = Field(
        False, description="generate identifiers that a DICOM segmentation needs and the series lacks"
    )
    every: Positive = Field(1, description="of a video: predict each N-th frame")
    start: NonNegative | None = Field(None, description="of a video: first time that is predicted, seconds")
    stop: Annotated[float, Field(gt=0)] | None = Field(None, description="of a video: time to stop before, seconds")
    smoothing: Annotated[float, Field(gt=0)] | None = Field(
        None, description="of a video: time constant of the exponential smoothing of probabilities, seconds; null: none"
    )
    video_codec: Literal["vp9", "mpeg4", "h264"] = Field("vp9", description="codec of overlay videos")
    video_masks: Literal["png", "ffv1"] | None = Field(
        None, description="masks of a video: a PNG per frame, or a lossless video; null: none"
    )
    regions: Any = Field(
        None, description="of a video: polygons {name: [[x, y], …]} in pixels, or the path of a JSON or GeoJSON file"
    )

    @field_validator("polygons", mode="before")
    @classmethod
    def _one_or_several(cls, value: Any) -> Any:
        return (value,) if isinstance(value, str) else value


class EvaluateConfig(_Section):
    """What is scored besides the overlap metrics."""

    metrics: list[str] = Field(
        ["boundary", "calibration", "diagnosis"],
        description="metric families in addition to overlap; the error for an unknown name lists the valid ones",
    )
    masks: Literal["ids", "data"] | None = Field(
        None, description="content of mask files to score: class ids, or values as in data.mask_values; null: detect"
    )
    surface_tolerance: Annotated[float, Field(gt=0)] | None = Field(
        None, description="tolerance of surface Dice, in the unit of the grid; null: coarsest spacing of each image"
    )
    resamples: Annotated[int, Field(ge=0)] = Field(1000, description="0: no intervals; other numbers have no effect")
    report: bool = Field(True, description="write report.html at the end of training")
    temperature: bool = Field(
        True, description="calibrate probabilities after training with a temperature fitted on val"
    )
    calibrate_sizes: bool = Field(
        False,
        description="evaluate: calibrate intervals of sizes on the images that are scored, and write them into the model",
    )


class MeasureConfig(_Section):
    """Sizes of classes and regions."""

    rules: Any = Field(
        None,
        description="limits of sizes: a mapping, or the path of a YAML file; given in training, they are kept in the model",
    )
    parquet: bool = Field(False, description="write tables also as Parquet; needs pyarrow")


class Config(_Section):
    """The whole configuration; equal configurations on equal data give equal weights."""

    data: DataConfig = DataConfig()
    model: ModelConfig = ModelConfig()
    train: TrainConfig = TrainConfig()
    augment: AugmentConfig = AugmentConfig()
    loss: LossConfig = LossConfig()
    predict: PredictConfig = PredictConfig()
    evaluate: EvaluateConfig = EvaluateConfig()
    measure: MeasureConfig = MeasureConfig()
