"""The model folder: `model.safetensors` with the weights, `model.json` with all that one must know to use them.

Comes in: a model and its `ModelCard`. Goes out: a folder that is complete or not there at all, and from it the same model,
bit for bit. Knows nothing of training or of how images are read. Nothing here is pickled.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch

from pixelwise.errors import ConfigError, LabelsError, ModelFileError
from pixelwise.labels import Labels
from pixelwise.models.base import SegmentationModel
from pixelwise.models.catalogue import build_empty
from pixelwise.storage import atomic_folder, previous_folder

WEIGHTS, CARD = "model.safetensors", "model.json"
FORMAT_VERSION = 1


@dataclass(frozen=True)
class ModelCard:
    """Say what a model is, what it was trained on, and how it wants to be used.

    Args:
        architecture: {"name": …, "arguments": {…}} for `build_model`.
        labels: the classes.
        channels: bands per image.
        dtype: numpy name of the training images' pixel type.
        bands: "rgb" or "grey" where images of one and of three bands were brought to that; None: all had `channels`.
        tile: (height, width) of the pieces of larger images; None: images are taken whole.
        overlap: share of a tile that neighbours have in common, 0…1.
        mirrors: directions in which training mirrored its images; test-time flips keep to them.
        flips: whether the scores were made with test-time flips, and prediction uses them unless told otherwise.
        calibration: how probabilities are corrected; None: not at all.
        license: terms of the weights; "user": they belong to whoever trained them.
        trained: what it was trained on, and what training began with: data, images, weights; None: nobody says.
        data_hash: SHA-256 over the training data.
        names_hash: SHA-256 over the names of the training images.
        scores: plain form of the scores on held-out data.
        mean, std, clip: per band; a copy to read, the model's own buffers count. Filled in on saving.
        sha256: of `model.safetensors`. Filled in on saving.
        pixelwise: version that wrote the folder. Filled in on saving.
    """

    architecture: Mapping[str, Any]
    labels: Labels
    channels: int
    dtype: str = "uint8"
    tile: tuple[int, int] | None = None
    overlap: float = 0.25
    calibration: Mapping[str, Any] | None = None
    mirrors: tuple[str, ...] = ("horizontal", "vertical")
    flips: bool = False
    license: str = "user"
    trained: Mapping[str, Any] | None = None
    data_hash: str | None = None
    names_hash: str | None = None
    scores: Mapping[str, Any] | None = field(default=None, repr=False)
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    clip: tuple[tuple[float, float], ...] | None = None
    bands: str | None = None
    sha256: str = ""
    pixelwise: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Give the plain form that `model.json` holds."""
        plain = {f.name: getattr(self, f.name) for f in fields(self)}
        return {"format_version": FORMAT_VERSION, **plain, "labels": self.labels.to_dict()}

    @classmethod
    def from_dict(cls, plain: Mapping[str, Any], where: object = CARD) -> ModelCard:
        """Read the plain form back.

        Raises:
            ModelFileError: another format version, or missing, unknown or unfit keys.
        """
        data = dict(plain)
        version = data.pop("format_version", None)
        if version != FORMAT_VERSION:
            raise ModelFileError(
                where,
                expected=f"format_version {FORMAT_VERSION}",
                found=str(version),
                do="Install the version of pixelwise that wrote this model, or a newer one.",
            )
        data = {"trained": None, "clip": None, "bands": None} | data  # came later
        known = {f.name for f in fields(cls)}
        odd = sorted(known ^ data.keys())
        if odd:
            found = f"{'unknown' if odd[0] in data else 'no'} key `{odd[0]}`"
            raise ModelFileError(where, expected="the keys of a model card", found=found, do=_AGAIN)
        try:
            for key, kind in _KINDS.items():
                if not isinstance(data[key], kind):
                    raise TypeError(f"{key}: {data[key]!r}")
            if data["tile"] is not None and not (len(data["tile"]) == 2 and all(_positive(v) for v in data["tile"])):
                raise TypeError(f"tile: {data['tile']!r}")
            for key in ("tile", "mirrors", "mean", "std"):
                data[key] = None if data[key] is None else tuple(data[key])
            data["clip"] = (
                None if data["clip"] is None else tuple((float(low), float(high)) for low, high in data["clip"])
            )
            return cls(**(data | {"labels": Labels.from_dict(data["labels"])}))
        except (LabelsError, TypeError, ValueError) as error:
            raise ModelFileError(where, expected="a model card", found=str(error), do=_AGAIN) from error


def _positive(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


_KINDS: Mapping[str, Any] = {
    "architecture": dict,
    "channels": int,
    "overlap": int | float,
    "sha256": str,
    "tile": list | None,
    "mirrors": list,
    "flips": bool,
    "trained": dict | None,
    "bands": str | None,
    "mean": list,
    "std": list,
    "clip": list | None,
}
_AGAIN = "Copy the model folder again, or train the model anew."


def save_model(folder: Path, model: SegmentationModel, card: ModelCard) -> ModelCard:
    """Write a model folder at once: another process sees the previous one or this one, never half of it.

    Args:
        folder: where to; a model that stands there is replaced, the caller decides whether it may be.
        model: its weights are written as they are.
        card: what is known; mean, std, clip, sha256 and pixelwise are filled in.

    Returns:
        The card as written.

    Raises:
        ResourceError: no space, or no right to write; what stood there before is untouched.
    """
    folder = Path(folder)
    weights = safetensors.torch.save(_for_file(model))
    card = replace(
        card,
        mean=tuple(model.normalise.mean.tolist()),
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


@torch.inference_mode(False)  # tensors made in that mode compute otherwise, and cannot be trained
def load_model(folder: Path) -> tuple[SegmentationModel, ModelCard]:
    """Read a model folder.

    Returns:
        The model, in evaluation mode on the CPU with exactly the weights that were saved, and its card.

    Raises:
        ModelFileError: a file is missing, altered, of an unknown version, or does not fit the other.
    """
    folder = Path(folder)
    previous = previous_folder(folder)
    source = previous if previous.exists() and not folder.exists() else folder
    text, weights = _read(folder, source / CARD), _read(folder, source / WEIGHTS)
    try:
        plain = json.loads(text)
        if not isinstance(plain, dict):
            raise ValueError(f"a {type(plain).__name__} instead of keys and values")
    except ValueError as error:
        raise ModelFileError(folder / CARD, expected="JSON", found=str(error), do=_AGAIN) from error
    card = ModelCard.from_dict(plain, folder / CARD)
    digest = hashlib.sha256(weights).hexdigest()
    if digest != card.sha256:
        raise ModelFileError(
            folder / WEIGHTS,
            expected=f"the weights that {CARD} was written for (sha256 {card.sha256[:12]}…)",
            found=f"others (sha256 {digest[:12]}…)",
            do=_AGAIN,
        )
    try:
        tensors = safetensors.torch.load(weights)
    except safetensors.SafetensorError as error:
        raise ModelFileError(folder / WEIGHTS, expected="safetensors", found=str(error), do=_AGAIN) from error
    return _assemble(folder, card, tensors), card


def _assemble(folder: Path, card: ModelCard, tensors: dict[str, torch.Tensor]) -> SegmentationModel:
    where = folder / CARD
    try:
        name, arguments = card.architecture["name"], dict(card.architecture["arguments"])
        model = build_empty(name, **arguments)
    except (ConfigError, KeyError, TypeError, ValueError, RuntimeError) as error:
        raise ModelFileError(
            where, expected="an architecture of this version of pixelwise", found=str(error), do=_AGAIN
        ) from error
    tensors = model.tensors_from_files(tensors)
    own = {"mean": card.mean, "std": card.std}
    if card.clip is not None:
        own |= {"low": tuple(low for low, _ in card.clip), "high": tuple(high for _, high in card.clip)}
    for key, values in own.items():  # not in the files that another library reads, too
        tensors.setdefault(f"normalise.{key}", torch.tensor(values, dtype=torch.float32))
    wanted, given = _shapes(model.state_dict()), _shapes(tensors)
    for key in sorted(wanted.keys() | given.keys()):
        if wanted.get(key) != given.get(key):
            raise ModelFileError(
                folder / WEIGHTS,
                expected=f"tensor {key} {wanted.get(key, 'not to be there')} as {CARD} describes the model",
                found=given.get(key, "none"),
                do=_AGAIN,
            )
    for key, said, means in (
        ("num_classes", card.labels.num_classes, "classes"),
        ("in_channels", card.channels, "bands"),
    ):
        if getattr(model, key) != said:
            raise ModelFileError(where, expected=f"{getattr(model, key)} {means}", found=f"{said} {means}", do=_AGAIN)
    # Copies begin where torch would put them; in the middle of a file's bytes, sums may come out in another order.
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
        raise ModelFileError(folder / path.name, expected="a readable file", found=problem, do=_AGAIN) from error
