"""One adapter per library: how its users would do each task with its own functions.

An adapter only converts arrays and calls the library. If there are several documented ways to do a task, all are tried,
and the one with the most right answers counts. A way whose name begins with "default" uses no options.
"""

from __future__ import annotations

import importlib
import importlib.metadata
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Way:
    """A documented way to do a task."""

    name: str
    call: Callable[..., Any]


Ways = Mapping[str, tuple[Way, ...]]


@dataclass(frozen=True)
class Library:
    """A library: its name in the table, its distributions, and the module of its adapter."""

    name: str
    packages: tuple[str, ...]
    module: str

    def version(self) -> str | None:
        """Return the versions of its distributions; None if one is not installed."""
        try:
            return ", ".join(f"{name} {importlib.metadata.version(name)}" for name in self.packages)
        except importlib.metadata.PackageNotFoundError:
            return None

    def ways(self) -> Ways:
        """Import the adapter, and with it the library; return capability → ways."""
        ways: Ways = importlib.import_module(f"conformance.adapters.{self.module}").WAYS
        return ways


LIBRARIES = (
    Library("pixelwise", ("pixelwise",), "pixelwise"),
    Library("segmentation_models_pytorch", ("segmentation_models_pytorch",), "smp"),
    Library("torchmetrics", ("torchmetrics",), "torchmetrics"),
    Library("MONAI", ("monai",), "monai"),
    Library("transformers", ("transformers",), "transformers"),
    Library("torchvision", ("torchvision", "torch"), "torchvision"),
    Library("scikit-learn", ("scikit-learn",), "sklearn"),
    Library("evaluate", ("evaluate",), "evaluate"),
    Library("mmsegmentation", ("mmsegmentation", "mmcv", "mmengine"), "mmseg"),
    Library("Ultralytics", ("ultralytics",), "ultralytics"),
)
