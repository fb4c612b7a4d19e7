"""The configuration after planning: the sections of `tree` with every value that training needs set.

The defaults here are the values that a `config.yaml` written by an older version may lack.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import ValidationError

from pixelwise.config.tree import (
    AugmentConfig,
    Config,
    LossConfig,
    ModelConfig,
    NonNegative,
    Positive,
    PredictConfig,
    Share,
    Sizes,
    TrainConfig,
)
from pixelwise.errors import ConfigError


class ResolvedModel(ModelConfig):
    """`ModelConfig` without unset values."""

    name: str = "unet"
    weights: str = "none"
    license: str = "user"
    mean: list[float]
    std: list[float]
    clip: Literal["none"] | list[tuple[float, float]] = "none"
    dimensions: Literal[2, 3] = 2
    flat: int = 0
    intensity: Literal["data", "image"] = "data"


class ResolvedTrain(TrainConfig):
    """`TrainConfig` without unset values."""

    steps: Positive
    crop: Sizes
    batch_size: Positive
    class_crops: Share = 0.0
    learning_rate: float
    head_rate: float = 1.0
    layer_decay: float = 1.0
    freeze: Literal["none", "encoder"] | int = "none"
    unfreeze_start: Share = 0.0
    copies: int = 0
    encoder_rate: float = 1.0
    head_warmup: Share = 0.0
    ema: Share = 0.0
    precision: Literal["fp32", "bf16"] = "fp32"
    channels_last: bool = False
    validations: Positive
    size_calibration: int = 0
    workers: int = 0
    cache: bool = False
    device: str = "cpu"


class ResolvedAugment(AugmentConfig):
    """`AugmentConfig` without unset values; by default nothing is augmented."""

    flip_horizontal: Share = 0.0
    flip_vertical: Share = 0.0
    flip_depth: Share = 0.0
    elastic: NonNegative = 0.0
    rotate: NonNegative = 0.0
    scale: tuple[float, float] = (1.0, 1.0)
    brightness: NonNegative = 0.0
    contrast: Share = 0.0
    noise: NonNegative = 0.0


class ResolvedLoss(LossConfig):
    """`LossConfig` without unset values."""

    class_weights: Literal["none", "inverse", "median", "effective"] | list[NonNegative] = "none"


class ResolvedPredict(PredictConfig):
    """`PredictConfig` without unset values."""

    tile: Sizes = (512, 512)


class ResolvedConfig(Config):
    """A configuration in which every value that training needs is set."""

    model: ResolvedModel
    train: ResolvedTrain
    augment: ResolvedAugment
    loss: ResolvedLoss
    predict: ResolvedPredict


def resolve(config: Config, where: object = "config") -> ResolvedConfig:
    """Return a configuration in which every value that training needs is set.

    Raises:
        ConfigError: a value without a default is unset; the message names it.
    """
    plain = {
        section: {key: value for key, value in values.items() if value is not None}
        for section, values in config.model_dump().items()
    }
    try:
        return ResolvedConfig.model_validate(plain)
    except ValidationError as error:
        key = ".".join(map(str, error.errors()[0]["loc"]))
        raise ConfigError(
            where, expected=f"a value of {key}", found="none", do=f"Set it, e.g. with --set {key}=VALUE."
        ) from error


_PLACEHOLDERS: dict[str, dict[str, Any]] = {
    "model": {"mean": [], "std": []},
    "train": {"steps": 1, "validations": 1, "crop": (256, 256), "batch_size": 1, "learning_rate": 1e-3},
}


def draft(config: Config) -> ResolvedConfig:
    """Return a resolved configuration for measurements during planning: values that are not planned yet are placeholders."""
    plain = config.model_dump()
    for section, values in _PLACEHOLDERS.items():
        for key, value in values.items():
            if plain[section][key] is None:
                plain[section][key] = value
    return resolve(Config.model_validate(plain))
