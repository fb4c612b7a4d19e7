"""Which networks there are: a name and arguments in, a model out; and what one should know before choosing.

Comes in: a name, and arguments as a configuration or a `model.json` holds them. Goes out: a `SegmentationModel` with fresh
weights, or entries to read. Knows nothing of files or of how models are trained. Libraries are imported when one of their
networks is built.
"""

from __future__ import annotations

import difflib
import importlib
import inspect
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from typing import Any

from pixelwise.errors import ConfigError
from pixelwise.models.base import SegmentationModel

SMP_ARCHITECTURES = (
    "unet", "unetplusplus", "manet", "linknet", "fpn", "pspnet", "deeplabv3", "deeplabv3plus", "pan", "upernet",
    "segformer", "dpt",
)  # fmt: skip
NVIDIA = "NVIDIA Source Code License for SegFormer: non-commercial"


@dataclass(frozen=True)
class Entry:
    """Say what one should know before choosing a network.

    Args:
        name: for `--model`.
        source: whose code it is.
        parameters: with three bands and two classes.
        stride: pixels per side of its coarsest cells.
        paper: where it was described.
        weights: what pretrained weights know, by the name that `--weights` takes, with their licence.
        license: of the code.
    """

    name: str
    source: str
    parameters: int
    stride: int
    paper: str
    weights: tuple[tuple[str, str], ...] = ()
    license: str = "Apache-2.0"


_COCO = (("coco", "BSD-3-Clause"), ("imagenet", "BSD-3-Clause"))
_MIT = (("ade20k", NVIDIA), ("cityscapes", NVIDIA), ("imagenet", NVIDIA))
_DEEPLAB, _SEGFORMER = "Chen et al. 2017, arXiv:1706.05587", "Xie et al. 2021, arXiv:2105.15203"
_FCN, _LRASPP = "Long et al. 2015, arXiv:1411.4038", "Howard et al. 2019, arXiv:1905.02244"
_VISION, _HUGGING = "torchvision", "transformers"

ENTRIES = (
    Entry("unet", "pixelwise", 31_037_698, 16, "Ronneberger et al. 2015, arXiv:1505.04597"),
    Entry("deeplabv3-resnet50", _VISION, 0, 8, _DEEPLAB, _COCO, "BSD-3-Clause"),
    Entry("deeplabv3-resnet101", _VISION, 0, 8, _DEEPLAB, _COCO, "BSD-3-Clause"),
    Entry("deeplabv3-mobilenetv3", _VISION, 0, 16, _DEEPLAB, _COCO, "BSD-3-Clause"),
    Entry("fcn-resnet50", _VISION, 0, 8, _FCN, _COCO, "BSD-3-Clause"),
    Entry("fcn-resnet101", _VISION, 0, 8, _FCN, _COCO, "BSD-3-Clause"),
    Entry("lraspp-mobilenetv3", _VISION, 0, 16, _LRASPP, _COCO, "BSD-3-Clause"),
    *(Entry(f"segformer-b{size}", _HUGGING, 0, 32, _SEGFORMER, _MIT) for size in range(6)),
)
_ENTRY = {entry.name: entry for entry in ENTRIES}


def available() -> tuple[str, ...]:
    """Give the names of `ENTRIES`, sorted; ARCHITECTURE/ENCODER of segmentation_models.pytorch come on top."""
    return tuple(sorted(_ENTRY))


def build_model(name: str, **arguments: Any) -> SegmentationModel:
    """Build the network called `name` with fresh weights, drawn from torch's global generator.

    Args:
        name: one of `available()`, ARCHITECTURE/ENCODER, or "transformers" with a `config`.
        arguments: what its builder takes: in_channels, num_classes, mean, std, and the network's own.

    Raises:
        ConfigError: an unknown name or argument (the nearest valid one is named), a value that the network refuses, or a
            library that is not installed.
    """
    builder = _builder(name)
    for key in arguments:
        if key not in parameters(name):
            raise _unknown(f"model {name}", "argument", key, parameters(name))
    return builder(**arguments)


def parameters(name: str) -> tuple[str, ...]:
    """Give the arguments that the network called `name` takes.

    Raises:
        ConfigError: an unknown name.
    """
    return tuple(key for key in inspect.signature(_builder(name)).parameters if key != "name")


def _builder(name: str) -> Callable[..., SegmentationModel]:
    module, kind, named = _place(name)
    cls = getattr(importlib.import_module(f"pixelwise.models.{module}"), kind)
    return partial(cls, name) if named else cls


def _place(name: str) -> tuple[str, str, bool]:
    """Give module and class of a network, and whether the class wants the name."""
    architecture, slash, encoder = name.partition("/")
    if slash and encoder and architecture in SMP_ARCHITECTURES:
        return "smp", "SmpModel", True
    if name == "unet":
        return "unet", "UNet", False
    if name == "transformers" or (name in _ENTRY and _ENTRY[name].source == _HUGGING):
        return "transformers", "TransformersModel", True
    if name in _ENTRY:
        return "torchvision", "TorchvisionModel", True
    if slash:
        raise _unknown("model.name", "architecture", name, [f"{a}/{encoder or 'ENCODER'}" for a in SMP_ARCHITECTURES])
    raise _unknown("model.name", "model", name, [*available(), "ARCHITECTURE/ENCODER"])


def _unknown(where: str, kind: str, found: str, valid: Iterable[str]) -> ConfigError:
    names = list(valid)
    near = difflib.get_close_matches(found, names, 1, 0.4)
    hint = f"Did you mean {near[0]!r}?" if near else "Choose one of these."
    return ConfigError(where, expected=f"one of {', '.join(names)}", found=f"unknown {kind} {found!r}", do=hint)
