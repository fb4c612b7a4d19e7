"""Exported models: files for OpenVINO and ONNX Runtime that contain their `ModelCard`. This module must not import torch."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from pixelwise.errors import ConfigError, ModelFileError
from pixelwise.models.card import WEIGHTS, ModelCard, read_card
from pixelwise.storage import cache_folder, trim_cache, write_cache
from pixelwise.types import ModelSpec

INPUT, LOGITS, MASK = "images", "logits", "mask"
# Name of the metadata entry with the content of `model.json`.
CARD_KEY = "pixelwise"
ONNX, IR = ".onnx", ".xml"
# Incremented when files of earlier versions in the cache must not be used any more.
_CONVERSION = 2
# Of the converted networks in the cache; those used least recently are removed.
_MOST_BYTES = 4 << 30


def exported_file(path: Path) -> Path | None:
    """Return the exported file that a path names, itself or as the only one of a folder; None if there is none.

    In a model folder there is none: a file beside the weights is used only when it is named.

    Raises:
        ModelFileError: a folder with several exported files.
    """
    if path.is_file():
        return path if path.suffix.lower() in (ONNX, IR) else None
    if (path / WEIGHTS).exists():
        return None
    found = sorted(filter(is_exported, path.glob("*")))
    if len(found) > 1:
        names = ", ".join(file.name for file in found)
        raise ModelFileError(path, expected="one exported model", found=names, do="Name one of the files.")
    return found[0] if found else None


def is_exported(path: Path) -> bool:
    """Whether a file in a folder is an exported model; other programs also write `.xml` files, but without a `.bin`."""
    suffix = path.suffix.lower()
    return path.is_file() and (suffix == ONNX or (suffix == IR and path.with_suffix(".bin").is_file()))


def read_embedded_card(text: str | None, path: Path) -> ModelCard:
    """Return the card in the metadata of an exported file.

    Raises:
        ModelFileError: there is none, or it is invalid.
    """
    try:
        plain = json.loads(text or "")
    except ValueError:
        plain = None
    if not isinstance(plain, Mapping):
        raise ModelFileError(
            path,
            expected="a file written by `pixelwise export`",
            found="no description of the model in its metadata",
            do="Export the model again.",
        )
    return ModelCard.from_dict(plain, path)


def converted(folder: Path) -> tuple[bytes | Path, ModelCard]:
    """Convert a model folder to ONNX with coarse logits, or find the result in the user's cache folder.

    Returns:
        The file in the cache, or its content if it cannot be cached; and the card of the model.

    Raises:
        ConfigError: the network cannot be converted, or onnx is not installed.
        ModelFileError: the folder is not a complete model.
    """
    card = read_card(folder)
    file = converted_file(card)
    if file is not None and file.is_file():
        with suppress(OSError):
            os.utime(file)  # the files used least recently are removed first
        return file, card
    from pixelwise.inference.conversion import to_onnx
    from pixelwise.models.weights import load_model

    content = to_onnx(*load_model(folder), coarse=True)
    if file is None or not write_cache(file, content):
        return content, card
    trim_cache(file.parent, _MOST_BYTES)
    return file, card


def engines_cache() -> Path | None:
    """Return the folder for converted networks and chosen engines in the user's cache folder; None without one."""
    cache = cache_folder()
    return cache / "engines" if cache else None


def converted_file(card: ModelCard) -> Path | None:
    """Return where the network of a model folder is kept once it is converted; None without a cache folder."""
    cache = engines_cache()
    return cache / f"{model_key(card)}{ONNX}" if cache else None


def model_key(card: ModelCard) -> str:
    """Return what identifies the network with its weights, and the version of the conversion."""
    facts = [_CONVERSION, card.architecture, card.sha256, card.mean, card.std, card.clip, card.pixelwise]
    return hashlib.sha256(json.dumps(facts, sort_keys=True, default=list).encode()).hexdigest()[:24]


def read_exported_card(file: Path) -> ModelCard:
    """Return the card in the metadata of an exported file, by whichever library is installed.

    Raises:
        ConfigError: neither OpenVINO nor ONNX Runtime is installed.
        ModelFileError: the file cannot be read, or has no valid card.
    """
    from pixelwise.inference.onnxruntime_backend import read_onnx_card
    from pixelwise.inference.openvino_backend import read_openvino_card

    try:
        return read_openvino_card(file)
    except ConfigError:
        if file.suffix.lower() != ONNX:
            raise
    return read_onnx_card(file)


def spec_of(embedded: ModelCard, card: ModelCard | None) -> ModelSpec:
    """Return the input and output of a converted file; `card` is that of the model folder it was made from, if any.

    The settings for prediction in the folder may have changed since.
    """
    spec = embedded.spec
    return spec if card is None else replace(card.spec, stride=spec.stride, logit_scale=spec.logit_scale)


def missing(engine: str, package: str) -> ConfigError:
    """Return the error for an engine whose library is not installed."""
    return ConfigError(
        f"backend {engine}",
        expected=f"the library {package}",
        found="it is not installed",
        do="Run: pip install 'pixelwise[export]'.",
    )
