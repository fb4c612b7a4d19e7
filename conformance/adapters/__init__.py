"""One adapter per library: how a user of that library would have each question answered, by its own functions.

Comes in: the name of a library. Goes out: its ways to answer. Knows nothing of cases.

An adapter converts arrays and calls; it computes nothing that the library should compute. Where a library has several
documented ways, all are asked, and the one that is right most often counts. A way whose name begins with "default" is
what one gets without a choice.
"""

from __future__ import annotations

import importlib
import importlib.metadata
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Way:
    """Name a documented way to have a question answered, and do it."""

    name: str
    call: Callable[..., Any]


Ways = Mapping[str, tuple[Way, ...]]


@dataclass(frozen=True)
class Library:
    """Say where the adapter of a library is, and which distributions it stands for."""

    name: str
    packages: tuple[str, ...]
    module: str

    def version(self) -> str | None:
        """Give the versions of its distributions; None where one is not installed."""
        try:
            return ", ".join(f"{name} {importlib.metadata.version(name)}" for name in self.packages)
        except importlib.metadata.PackageNotFoundError:
            return None

    def ways(self) -> Ways:
        """Import the adapter: only then the library itself."""
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
