"""Which networks there are: a name and arguments in, a model out.

Comes in: a name, and arguments as a configuration or a `model.json` holds them. Goes out: a `SegmentationModel` with fresh
weights. Knows nothing of files or of how models are trained.
"""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from pixelwise.errors import ConfigError
from pixelwise.models.base import SegmentationModel
from pixelwise.models.unet import UNet

Builder = Callable[..., SegmentationModel]

_BUILDERS: Mapping[str, Builder] = {"unet": UNet}


def available() -> tuple[str, ...]:
    """Give the names that `build_model` knows, sorted."""
    return tuple(sorted(_BUILDERS))


def build_model(name: str, **arguments: Any) -> SegmentationModel:
    """Build the network called `name` with fresh weights, drawn from torch's global generator.

    Args:
        name: one of `available()`.
        arguments: what its builder takes: in_channels, num_classes, mean, std, and the network's own.

    Raises:
        ConfigError: an unknown name or argument (the nearest valid one is named), or a value that the network refuses.
    """
    if name not in _BUILDERS:
        raise _unknown("model.name", "model", name, available())
    parameters = inspect.signature(_BUILDERS[name]).parameters
    for key in arguments:
        if key not in parameters:
            raise _unknown(f"model {name}", "argument", key, parameters)
    return _BUILDERS[name](**arguments)


def _unknown(where: str, kind: str, found: str, valid: Iterable[str]) -> ConfigError:
    names = list(valid)
    near = difflib.get_close_matches(found, names, 1, 0.4)
    hint = f"Did you mean {near[0]!r}?" if near else "Choose one of these."
    return ConfigError(where, expected=f"one of {', '.join(names)}", found=f"unknown {kind} {found!r}", do=hint)
