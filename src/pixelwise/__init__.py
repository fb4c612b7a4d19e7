"""Segmentation masks people can trust and measure.

    import pixelwise

    run = pixelwise.train("my_data", time_limit="10m")
    prediction = run.model.predict("image.png")

Names are imported on first use, so that `import pixelwise` is fast.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pixelwise.api import (
        Model,
        Run,
        check,
        compare,
        convert,
        evaluate,
        export,
        import_weights,
        load,
        measure,
        predict,
        push,
        report,
        train,
        watch,
    )
    from pixelwise.config import Config
    from pixelwise.errors import PixelwiseError
    from pixelwise.grid import Grid
    from pixelwise.labels import Labels
    from pixelwise.models.unet import UNet
    from pixelwise.types import Fingerprint, Prediction, Sample, Score, Scores

__version__ = "0.1.0"

__all__ = [
    "Config",
    "Fingerprint",
    "Grid",
    "Labels",
    "Model",
    "PixelwiseError",
    "Prediction",
    "Run",
    "Sample",
    "Score",
    "Scores",
    "UNet",
    "check",
    "compare",
    "convert",
    "evaluate",
    "export",
    "import_weights",
    "load",
    "measure",
    "predict",
    "push",
    "report",
    "train",
    "watch",
]

_MODULES = dict.fromkeys(__all__, "api") | {
    "Config": "config",
    "Fingerprint": "types",
    "Grid": "grid",
    "Labels": "labels",
    "PixelwiseError": "errors",
    "Prediction": "types",
    "Sample": "types",
    "Score": "types",
    "Scores": "types",
    "UNet": "models.unet",
}


def __getattr__(name: str) -> Any:
    """Import a public name from its module."""
    if name not in _MODULES:
        raise AttributeError(f"module 'pixelwise' has no attribute {name!r}")
    value = getattr(importlib.import_module(f"pixelwise.{_MODULES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """List the public names."""
    return [*__all__, "__version__"]
