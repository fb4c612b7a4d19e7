"""The whole configuration as one typed, frozen tree, which is one YAML file.

What is null in it is derived from the data later, by those who know them.
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
from pixelwise.config.tree import (
    AugmentConfig,
    Config,
    DataConfig,
    EvaluateConfig,
    LossConfig,
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
    "ModelConfig",
    "PredictConfig",
    "Reasons",
    "SplitConfig",
    "SplitFilesConfig",
    "TrainConfig",
    "config_from_dict",
    "dump_config",
    "is_yolo",
    "load_config",
    "read_request",
    "read_yaml",
    "replace",
    "with_overrides",
    "yolo_home",
]
