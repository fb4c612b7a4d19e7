"""The configuration: typed sections, YAML files and overrides.

`Config` may have unset values (None); `resolve` returns a `ResolvedConfig`, in which every value is set.
"""

from pixelwise.config.files import (
    Reasons,
    config_from_dict,
    dump_config,
    is_yolo,
    load_config,
    read_request,
    read_yaml,
    replace,
    with_overrides,
    yolo_home,
)
from pixelwise.config.resolved import ResolvedAugment, ResolvedConfig, ResolvedTrain, draft, resolve
from pixelwise.config.tree import (
    AugmentConfig,
    Config,
    DataConfig,
    EvaluateConfig,
    LossConfig,
    MeasureConfig,
    ModelConfig,
    PredictConfig,
    SplitConfig,
    SplitFilesConfig,
    TrainConfig,
)

__all__ = [
    "AugmentConfig",
    "Config",
    "DataConfig",
    "EvaluateConfig",
    "LossConfig",
    "MeasureConfig",
    "ModelConfig",
    "PredictConfig",
    "Reasons",
    "ResolvedAugment",
    "ResolvedConfig",
    "ResolvedTrain",
    "SplitConfig",
    "SplitFilesConfig",
    "TrainConfig",
    "config_from_dict",
    "draft",
    "dump_config",
    "is_yolo",
    "load_config",
    "read_request",
    "read_yaml",
    "replace",
    "resolve",
    "with_overrides",
    "yolo_home",
]
