"""`model.json`: the `ModelSpec` of a model with its architecture and provenance. This module must not import torch."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from pixelwise.errors import LabelsError, ModelFileError
from pixelwise.labels import Labels
from pixelwise.storage import previous_folder, write_json
from pixelwise.types import ModelSpec

CARD, WEIGHTS = "model.json", "model.safetensors"
# Incremented when older versions would misread the file; not for additional keys.
FORMAT_VERSION = 2
COPY_AGAIN = "Copy the model folder again, or train the model again."


@dataclass(frozen=True)
class ModelCard:
    """What a model is, how it is used, and where it comes from.

    Args:
        architecture: {"name": …, "arguments": {…}} for `build_model`.
        spec: how to feed the model and read its output.
        calibration: how the temperature of `spec` was fitted; None if it was not.
        size_calibration: how wide intervals of sizes are, the plain form of `measuring.conformal.SizeCalibration`; None if unknown.
        rules: by which `measure` judges images, the plain form of `measuring.rules.Rules`; None if there are none.
        license: terms of the weights; "user" if the person who trained the model chooses them.
        trained: data, number of images and initial weights of its training; None if unknown.
        data_hash: SHA-256 over the training data.
        names_hash: SHA-256 over the names of the training images.
        scores: scores on held-out data, as plain values.
        mean, std, clip: normalisation per band, a copy of the model's buffers. Filled in on saving.
        sha256: of the weights file. Filled in on saving.
        pixelwise: version that wrote the folder. Filled in on saving.
    """

    architecture: Mapping[str, Any]
    spec: ModelSpec
    calibration: Mapping[str, Any] | None = None
    size_calibration: Mapping[str, Any] | None = None
    rules: Mapping[str, Any] | None = None
    license: str = "user"
    trained: Mapping[str, Any] | None = None
    data_hash: str | None = None
    names_hash: str | None = None
    scores: Mapping[str, Any] | None = field(default=None, repr=False)
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    clip: tuple[tuple[float, float], ...] | None = None
    sha256: str = ""
    pixelwise: str = ""

    @property
    def labels(self) -> Labels:
        """The classes."""
        return self.spec.labels

    def to_dict(self) -> dict[str, Any]:
        """Return the plain form that `model.json` holds, with the fields of `spec` beside the others."""
        spec = {name: getattr(self.spec, name) for name in ModelSpec.__dataclass_fields__}
        spec["labels"] = self.labels.to_dict()
        spec["bands"] = spec.pop("colour_mode")
        spec["nodata"] = "nan" if self.spec.nodata != self.spec.nodata else self.spec.nodata  # JSON has no NaN
        others = {name: getattr(self, name) for name in ModelCard.__dataclass_fields__ if name != "spec"}
        return {"format_version": FORMAT_VERSION, "architecture": others.pop("architecture"), **spec, **others}

    @classmethod
    def from_dict(cls, plain: Mapping[str, Any], where: object = CARD) -> ModelCard:
        """Read the plain form back; keys that this version does not know are ignored.

        Raises:
            ModelFileError: an unknown format version, or missing or invalid values.
        """
        version = plain.get("format_version")
        if version not in range(1, FORMAT_VERSION + 1):
            raise ModelFileError(
                where,
                expected=f"format_version 1 to {FORMAT_VERSION}",
                found=str(version),
                do="Install the version of pixelwise that wrote this model, or a newer one.",
            )
        try:
            return _Plain.model_validate(plain).card()
        except (LabelsError, ValidationError, ValueError) as error:
            raise ModelFileError(where, expected="a valid model card", found=_problem(error), do=COPY_AGAIN) from error


Size = Annotated[int, Field(gt=0, strict=True)]


class _Plain(BaseModel):
    """The keys of `model.json` and their types."""

    model_config = ConfigDict(extra="ignore")

    architecture: dict[str, Any]
    labels: dict[str, Any]
    channels: Size
    dimensions: Literal[2, 3] = 2
    bands: Literal["rgb", "grey"] | None = None
    dtype: str | None = None
    typical_range: tuple[float, float] | None = None
    fill: tuple[float, ...] = ()
    nodata: float | None = None
    stride: Size = 1
    logit_scale: Size = 1
    tile: tuple[Size, ...] | None = None
    overlap: Annotated[float, Field(ge=0, le=1)] = 0.25
    intensity: Literal["data", "image"] = "data"
    spacing: tuple[Annotated[float, Field(gt=0)], ...] | None = None
    neighbours: Annotated[int, Field(ge=0)] = 0
    across: Literal["axial", "coronal", "sagittal"] | None = None
    mirrors: tuple[str, ...] = ()
    flips: Annotated[bool, Field(strict=True)] = False
    temperature: float | None = None
    task: Literal["semantic", "instance", "panoptic"] = "semantic"
    trained_spacing: tuple[Annotated[float, Field(gt=0)], ...] | None = None
    trained_unit: str = "px"
    trained_bands: tuple[str, ...] = ()
    calibration: dict[str, Any] | None = None
    size_calibration: dict[str, Any] | None = None
    rules: dict[str, Any] | None = None
    license: str = "user"
    trained: dict[str, Any] | None = None
    data_hash: str | None = None
    names_hash: str | None = None
    scores: dict[str, Any] | None = None
    mean: tuple[float, ...]
    std: tuple[float, ...]
    clip: tuple[tuple[float, float], ...] | None = None
    sha256: str
    pixelwise: str = ""

    def card(self) -> ModelCard:
        """Return the card, with values that version 1 did not record derived from others."""
        if self.tile is not None and len(self.tile) != self.dimensions:
            raise ValueError(f"tile: {self.tile!r}")
        np.dtype(self.dtype or "uint8")
        temperature = self.temperature
        if temperature is None:
            temperature = float((self.calibration or {}).get("temperature", 1.0))
        derived: dict[str, Any] = {
            "labels": Labels.from_dict(self.labels),
            "colour_mode": self.bands,
            "typical_range": self.typical_range or _typical_range(self.mean, self.std),
            "fill": self.fill or self.mean,
            "temperature": temperature,
        }
        same = {name: getattr(self, name) for name in ModelSpec.__dataclass_fields__ if name not in derived}
        others = {name: getattr(self, name) for name in ModelCard.__dataclass_fields__ if name != "spec"}
        return ModelCard(spec=ModelSpec(**derived, **same), **others)


def _typical_range(mean: tuple[float, ...], std: tuple[float, ...]) -> tuple[float, float] | None:
    """Approximate the central 99 % of the training pixels by the mean ± 2.58 standard deviations."""
    if not mean:
        return None
    low = min(m - 2.58 * s for m, s in zip(mean, std, strict=True))
    high = max(m + 2.58 * s for m, s in zip(mean, std, strict=True))
    return low, high


def _problem(error: Exception) -> str:
    if not isinstance(error, ValidationError):
        return str(error)
    first = error.errors()[0]
    key = ".".join(str(part) for part in first["loc"])
    return f"no key `{key}`" if first["type"] == "missing" else f"{key}: {first.get('input')!r}"


def existing(folder: Path) -> Path:
    """Return the folder, or the previous version of it if a process was killed while replacing it."""
    previous = previous_folder(folder)
    return previous if previous.exists() and not folder.exists() else folder


def write_card(folder: Path, card: ModelCard) -> None:
    """Replace the `model.json` of a model folder, whose weights stay as they are.

    Raises:
        ResourceError: no space or no permission to write; the file is unchanged.
    """
    write_json(existing(folder) / CARD, card.to_dict())


def read_card(folder: Path) -> ModelCard:
    """Read the `model.json` of a model folder.

    Raises:
        ModelFileError: it is missing, not JSON, or invalid.
    """
    path = folder / CARD
    try:
        plain = json.loads((existing(folder) / CARD).read_bytes())
        if not isinstance(plain, dict):
            raise ValueError(f"a {type(plain).__name__} instead of an object")
    except FileNotFoundError as error:
        raise ModelFileError(
            folder,
            expected=f"a model folder with {CARD} and model.safetensors",
            found=f"no {CARD}" if folder.exists() else "nothing",
            do="Check the path, or copy the folder again.",
        ) from error
    except OSError as error:
        problem = error.strerror or str(error)
        raise ModelFileError(path, expected="a readable file", found=problem, do=COPY_AGAIN) from error
    except ValueError as error:
        raise ModelFileError(path, expected="JSON", found=str(error), do=COPY_AGAIN) from error
    return ModelCard.from_dict(plain, path)
