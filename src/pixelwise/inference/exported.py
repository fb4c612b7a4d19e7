"""Exported models: files for OpenVINO and ONNX Runtime that contain their `ModelCard`. This module must not import torch."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from pixelwise.errors import ConfigError, ModelFileError
from pixelwise.models.card import ModelCard, read_card
from pixelwise.storage import cache_folder, write_cache
from pixelwise.types import ModelSpec

INPUT, LOGITS, MASK = "images", "logits", "mask"
# Name of the metadata entry with the content of `model.json`.
CARD_KEY = "pixelwise"
ONNX, IR = ".onnx", ".xml"
# Incremented when files of earlier versions in the cache must not be used any more.
_CONVERSION = 2


def exported_file(path: Path) -> Path | None:
    """Return the exported file that a path names, itself or as the only one of a folder; None if there is none.

    Raises:
        ModelFileError: a folder with several exported files.
    """
    if path.is_file():
        return path if path.suffix.lower() in (ONNX, IR) else None
    found = sorted(file for file in path.glob("*") if file.suffix.lower() in (ONNX, IR) and file.is_file())
    if len(found) > 1:
        names = ", ".join(file.name for file in found)
        raise ModelFileError(path, expected="one exported model", found=names, do="Name one of the files.")
    return found[0] if found else None


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
    cache = cache_folder()
    file = cache / "engines" / f"{_key(card)}{ONNX}" if cache else None
    if file is not None and file.is_file():
        return file, card
    from pixelwise.inference.conversion import to_onnx
    from pixelwise.models.weights import load_model

    content = to_onnx(*load_model(folder), coarse=True)
    return (file, card) if file is not None and write_cache(file, content) else (content, card)


def _key(card: ModelCard) -> str:
    """Return what identifies the network with its weights, and the version of the conversion."""
    facts = [_CONVERSION, card.architecture, card.sha256, card.mean, card.std, card.clip, card.pixelwise]
    return hashlib.sha256(json.dumps(facts, sort_keys=True, default=list).encode()).hexdigest()[:24]


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
