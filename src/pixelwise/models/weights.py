"""Read and write model folders: the weights in `model.safetensors`, all else in `model.json`.

A folder is written completely or not at all, and the loaded model is identical bit for bit. Nothing is pickled.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import safetensors
import safetensors.torch
import torch

from pixelwise.errors import ConfigError, ModelFileError
from pixelwise.models.base import SegmentationModel
from pixelwise.models.card import CARD, COPY_AGAIN, WEIGHTS, ModelCard, existing, read_card
from pixelwise.models.catalogue import build_empty
from pixelwise.storage import atomic_folder


def save_model(folder: Path, model: SegmentationModel, card: ModelCard) -> ModelCard:
    """Write a model folder atomically: other processes read either the previous model or the new one.

    Args:
        folder: the model folder; an existing model is replaced.
        model: its weights are written as they are.
        card: describes the model; mean, std, clip, sha256 and pixelwise are filled in.

    Returns:
        The card as written.

    Raises:
        ResourceError: no space or no permission to write; an existing model is unchanged.
    """
    folder = Path(folder)
    weights = safetensors.torch.save(_for_file(model))
    mean = tuple(model.normalise.mean.tolist())
    card = replace(
        card,
        spec=replace(card.spec, stride=model.stride, fill=card.spec.fill or mean),
        mean=mean,
        std=tuple(model.normalise.std.tolist()),
        clip=model.normalise.clip,
        sha256=hashlib.sha256(weights).hexdigest(),
        pixelwise=importlib.metadata.version("pixelwise"),
    )
    texts = {CARD: card.to_dict(), **model.files_of_its_library(card.labels.names)}
    with atomic_folder(folder) as fresh:
        (fresh / WEIGHTS).write_bytes(weights)
        for name, plain in texts.items():
            text = json.dumps(plain, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
            (fresh / name).write_text(text, encoding="utf-8")
    return card


def _for_file(model: SegmentationModel) -> dict[str, torch.Tensor]:
    # Copies, since tied weights may not share their memory in a file.
    return {name: t.detach().cpu().contiguous().clone() for name, t in model.tensors_for_files().items()}


@torch.inference_mode(False)  # tensors created in inference mode cannot be trained
def load_model(folder: Path) -> tuple[SegmentationModel, ModelCard]:
    """Read a model folder.

    Returns:
        The model, in evaluation mode on the CPU with exactly the weights that were saved, and its card.

    Raises:
        ModelFileError: a file is missing, modified, of an unknown version, or does not match the other.
    """
    folder = Path(folder)
    card = read_card(folder)
    weights = _read(folder, existing(folder) / WEIGHTS)
    digest = hashlib.sha256(weights).hexdigest()
    if digest != card.sha256:
        raise ModelFileError(
            folder / WEIGHTS,
            expected=f"the weights that {CARD} was written for (sha256 {card.sha256[:12]}…)",
            found=f"other weights (sha256 {digest[:12]}…)",
            do=COPY_AGAIN,
        )
    try:
        tensors = safetensors.torch.load(weights)
    except safetensors.SafetensorError as error:
        raise ModelFileError(folder / WEIGHTS, expected="safetensors", found=str(error), do=COPY_AGAIN) from error
    model = _assemble(folder, card, tensors)
    # Version 1 of the file did not record the stride.
    return model, replace(card, spec=replace(card.spec, stride=model.stride))


def _assemble(folder: Path, card: ModelCard, tensors: dict[str, torch.Tensor]) -> SegmentationModel:
    where = folder / CARD
    try:
        name, arguments = card.architecture["name"], dict(card.architecture["arguments"])
        model = build_empty(name, **arguments)
    except (ConfigError, KeyError, TypeError, ValueError, RuntimeError) as error:
        raise ModelFileError(
            where, expected="an architecture of this version of pixelwise", found=str(error), do=COPY_AGAIN
        ) from error
    tensors = model.tensors_from_files(tensors)
    normalisation = {"mean": card.mean, "std": card.std}
    if card.clip is not None:
        normalisation |= {"low": tuple(low for low, _ in card.clip), "high": tuple(high for _, high in card.clip)}
    for key, values in normalisation.items():  # not in the weights of a folder that is also a transformers checkpoint
        tensors.setdefault(f"normalise.{key}", torch.tensor(values, dtype=torch.float32))
    expected, found = _shapes(model.state_dict()), _shapes(tensors)
    for key in sorted(expected.keys() | found.keys()):
        if expected.get(key) != found.get(key):
            raise ModelFileError(
                folder / WEIGHTS,
                expected=f"tensor {key} {expected[key]}, as in {CARD}" if key in expected else f"no tensor {key}",
                found=found.get(key, "none"),
                do=COPY_AGAIN,
            )
    for unit, of_model, of_card in (
        ("classes", model.num_classes, card.labels.num_classes),
        ("bands", model.in_channels, card.spec.channels),
    ):
        if of_model != of_card:
            raise ModelFileError(where, expected=f"{of_model} {unit}", found=f"{of_card} {unit}", do=COPY_AGAIN)
    # Copies are aligned as usual; with the alignment of the file, sums may be computed in another order.
    model.load_state_dict({name: tensor.clone() for name, tensor in tensors.items()}, assign=True)
    return model.eval()


def _shapes(tensors: Mapping[str, torch.Tensor]) -> dict[str, str]:
    return {k: f"{tuple(t.shape)} {str(t.dtype).removeprefix('torch.')}" for k, t in tensors.items()}


def _read(folder: Path, path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError as error:
        found = f"no {path.name}" if path.parent.exists() else "nothing"
        raise ModelFileError(
            folder,
            expected=f"a model folder with {CARD} and {WEIGHTS}",
            found=found,
            do="Check the path, or copy the folder again.",
        ) from error
    except OSError as error:
        problem = error.strerror or str(error)
        raise ModelFileError(folder / path.name, expected="a readable file", found=problem, do=COPY_AGAIN) from error
