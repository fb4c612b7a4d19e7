"""The sections of a configuration, typed and frozen: what there is to choose, and what may be left to be derived (null).

Comes in: plain values. Goes out: a frozen tree, or pydantic's complaints. Knows nothing of files, data or machines.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator

Share = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[int, Field(ge=1)]
NonNegative = Annotated[float, Field(ge=0)]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    @field_validator("*", mode="before")
    @classmethod
    def _no_yes(cls, value: Any, info: ValidationInfo) -> Any:
        """Refuse `yes` and `off` where a number is meant: they would count as 1 and 0."""
        kind = cls.model_fields[info.field_name or ""].annotation
        if isinstance(value, bool) and kind is not Any and bool not in (kind, *get_args(kind)):
            raise ValueError("a number or a word, not yes or no")
        return value


class SplitFilesConfig(_Section):
    """Name the files of one split: globs relative to the data set's root."""

    images: str | list[str]
    masks: str | None = Field(None, description="template with {stem}, {parent}, {name}; or a glob with equal stems")
    valid: str | None = Field(None, description="template of a mask that is zero where pixels do not count")


class SplitConfig(_Section):
    """Say how one pool is divided into train, val and test: by group, reproducibly."""

    val: Share = 0.2
    test: Share = 0.0
    seed: int = 0
    anew: bool = Field(False, description="divide all images, whatever parts their folders and lists name")


class DataConfig(_Section):
    """Name a data set: a folder, or images and masks by glob."""

    root: str | None = Field(
        None, description="folder that the paths start from; the YAML file's own folder where null"
    )
    images: str | list[str] | None = Field(None, description="globs of one pool that `split` divides")
    masks: str | None = Field(
        None, description="as in a part; without `images`, a folder of masks, or their names in it: {stem}_mask.png"
    )
    valid: str | None = Field(None, description="as in a part; without `images`, a folder beside the images, or none")
    train: SplitFilesConfig | str | None = None
    val: SplitFilesConfig | str | None = None
    test: SplitFilesConfig | str | None = None
    format: str | None = Field(None, description="how it is labelled: masks, coco, yolo, labelme, …; null: look")
    annotations: str | list[str] | None = Field(
        None, description="annotation files, as globs relative to the root; null: look for them"
    )
    unlabelled: str = Field(
        "background", description="what pixels are that no shape covers: background, ignore, or the name of a class"
    )
    overlap: Literal["file", "area"] | None = Field(
        None, description="which shape lies on top: the later one, the smaller one; null: as the format has it"
    )
    ignored: list[str] = Field([], description="classes of the annotations whose pixels count in nothing")
    attribute: str | None = Field(
        None,
        description="property of vector features that names their class; null: class, label, type, …, where all have it",
    )
    split: SplitConfig = SplitConfig()
    group: str | None = Field(
        None,
        description="what must stay together: the first group of a regular expression on the path, or a .csv table image,group",
    )
    labels: Any = Field(None, description="path of a labels.yaml, a list of names, or a mapping")
    mask_values: Any = Field(
        None,
        description="how mask pixels become ids: null, {threshold: 128}, {0: 0, 255: 1}, {colours: true} or {objects: true}",
    )
    bands: Literal["grey", "rgb"] | None = Field(
        None, description="bring images of one and of three bands to one kind: rgb repeats grey, grey weighs colours"
    )
    skip_bad: bool = False


class ModelConfig(_Section):
    """Choose the network and its size."""

    name: str = "unet"
    weights: str | None = Field(
        None, description="none, imagenet, coco, ade20k, cityscapes, a folder or file, or a Hub name"
    )
    config: dict[str, Any] | None = Field(None, description="of a network of transformers, as its config.json says")
    license: str | None = Field(None, description="of the weights that training begins with; user: none but the user's")
    accept_license: bool = Field(False, description="take weights whose licence allows no commercial use")
    features: list[Positive] | None = Field(None, description="channels per scale, finest first")
    up: Literal["transposed", "bilinear"] | None = None
    stem: Literal[1, 2, 4] | None = Field(
        None, description="1: full resolution; 2, 4: the first scale works on patches"
    )
    mean: list[float] | None = Field(None, description="per band, raw pixel values")
    std: list[Annotated[float, Field(gt=0)]] | None = None
    clip: Literal["none"] | list[tuple[float, float]] | None = Field(
        None, description="none, or [low, high] per band that raw pixel values are brought into before"
    )


class AugmentConfig(_Section):
    """Choose what may happen to a training image."""

    flip_horizontal: Share | None = Field(None, description="probability")
    flip_vertical: Share | None = None
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
    """Weigh the terms of the loss; docs/losses.md tells what each is good for."""

    cross_entropy: NonNegative = 0.5
    dice: NonNegative = 0.5
    focal: NonNegative = 0.0
    tversky: NonNegative = 0.0
    lovasz: NonNegative = Field(0.0, description="IoU itself, made differentiable")
    boundary: NonNegative = Field(0.0, description="distance from the true contour, in pixels: 0.01 beside other terms")
    cldice: NonNegative = Field(0.0, description="whether thin structures hang together, beside other terms")
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = Field(0.0, description="of cross-entropy")
    ohem: Annotated[float, Field(gt=0, le=1)] | None = Field(
        None, description="least share of the pixels, the hardest, that cross-entropy keeps; null: all"
    )
    ohem_threshold: Share = Field(0.7, description="pixels whose true class is less probable are kept in any case")
    focal_gamma: NonNegative = 2.0
    tversky_alpha: Share = 0.3
    tversky_beta: Share = 0.7
    focal_tversky_gamma: Annotated[float, Field(gt=0)] = Field(1.0, description="1: plain Tversky; the paper's is 1.33")
    dice_per: Literal["batch", "image"] = Field(
        "batch", description="what Dice, Tversky, Lovász and clDice are taken over: batch, image"
    )
    cldice_classes: list[Annotated[int, Field(ge=0)]] | None = Field(
        None, description="indices of the thin classes; null: all but the first"
    )
    cldice_iterations: Positive = Field(3, description="at least half the width of the widest thin structure, pixels")
    auxiliary: NonNegative = Field(0.5, description="weight of the same loss on a network's auxiliary heads")
    class_weights: Literal["none", "inverse", "median", "effective"] | list[NonNegative] | None = Field(
        None, description="none, inverse, median, effective, or one weight per class"
    )

    @field_validator("cldice_classes")
    @classmethod
    def _some(cls, value: list[int] | None) -> list[int] | None:
        if value == []:
            raise ValueError("one class index or more, or null for all but the first")  # of none, the term is always 0
        return value


class TrainConfig(_Section):
    """Say how long and how the weights are learned."""

    seed: Annotated[int, Field(ge=0, lt=2**40)] = 0
    steps: Positive | None = None
    recounts: tuple[tuple[Positive, Positive], ...] = ()  # see `training.schedule`
    crop: tuple[Positive, Positive] | None = Field(None, description="(height, width) of a training crop, pixels")
    batch_size: Positive | None = None
    accumulate: Positive = Field(1, description="batches whose gradients make one step")
    class_crops: Share | None = Field(None, description="share of the crops that are centred on a drawn class")
    learning_rate: Annotated[float, Field(gt=0)] | None = None
    head_rate: Annotated[float, Field(gt=0)] | None = Field(None, description="factor on the head's learning rate")
    layer_decay: Annotated[float, Field(gt=0, le=1)] | None = Field(
        None, description="factor on the learning rate from each layer of the encoder to the one before it"
    )
    freeze: Literal["none", "encoder"] | Annotated[int, Field(ge=0)] | None = Field(
        None, description="what stands still at first: none, encoder, or its first N layers"
    )
    unfreeze: Annotated[float, Field(gt=0, le=1)] | None = Field(
        None, description="share of the steps after which all of that learns, last layers first; null: never"
    )
    head_warmup: Share | None = Field(None, description="share of the steps in which the head alone learns")
    weight_decay: NonNegative = 0.01
    warmup: Share = Field(0.05, description="share of the steps")
    clip: Annotated[float, Field(gt=0)] = Field(1.0, description="largest gradient norm")
    ema: Share | None = Field(None, description="decay per step of the averaged weights; 0: none")
    precision: Literal["fp32", "bf16"] | None = None
    channels_last: bool | None = None
    validations: Positive | None = Field(None, description="how often the validation part is scored")
    workers: Annotated[int, Field(ge=0)] | None = Field(None, description="processes that prepare batches")
    cache: bool | None = Field(None, description="keep decoded images in memory")
    device: str | None = Field(None, description="cpu, cuda, …")


class PredictConfig(_Section):
    """Say how whole images are predicted."""

    tile: tuple[Positive, Positive] | None = Field(None, description="(height, width); larger images are tiled")
    overlap: Share = Field(0.25, description="share of a tile that neighbours have in common")
    flips: bool = Field(False, description="average over mirrored copies")


class EvaluateConfig(_Section):
    """Say what is scored beside the overlap of areas."""

    metrics: list[str] = Field(
        ["boundary", "calibration", "diagnosis"],
        description="metric families in addition to overlap; an unknown name lists the valid ones",
    )
    masks: Literal["ids", "data"] | None = Field(
        None, description="what mask files to be scored hold: class ids, or values as data.mask_values says; null: see"
    )
    surface_tolerance: Annotated[float, Field(gt=0)] | None = Field(
        None, description="for surface Dice, in the unit of the grids; each image's coarsest spacing where null"
    )
    resamples: Annotated[int, Field(ge=0)] = Field(1000, description="draws of the bootstrap behind the intervals")
    report: bool = Field(True, description="write report.html at the end of training")
    temperature: bool = Field(
        True, description="after training, correct probabilities by one temperature, fitted on val"
    )


class Config(_Section):
    """Hold everything that makes a run; equal configs on equal data give equal weights."""

    data: DataConfig = DataConfig()
    model: ModelConfig = ModelConfig()
    train: TrainConfig = TrainConfig()
    augment: AugmentConfig = AugmentConfig()
    loss: LossConfig = LossConfig()
    predict: PredictConfig = PredictConfig()
    evaluate: EvaluateConfig = EvaluateConfig()
