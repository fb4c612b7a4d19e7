"""The state of a run between two steps, as one file: safetensors with a JSON header.

Comes in: model, averaged weights, optimizer and plain facts. Goes out: a file that is whole or absent, and from it the
same state again, bit for bit. Knows nothing of data or losses, and of no pickle.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from pixelwise.errors import ModelFileError
from pixelwise.models.base import SegmentationModel
from pixelwise.storage import atomic_path

_KEPT = 2


@dataclass
class State:
    """Hold all that changes while training: tensors by reference, and plain facts."""

    model: SegmentationModel
    averaged: SegmentationModel
    optimizer: torch.optim.Optimizer
    step: int = 0
    scored_step: int = 0
    best_miou: float | None = None
    best_step: int = 0
    skipped: int = 0
    skipped_in_a_row: int = 0
    seconds: float = 0.0

    def facts(self) -> dict[str, Any]:
        """Give the plain part."""
        names = ("step", "scored_step", "best_miou", "best_step", "skipped", "skipped_in_a_row", "seconds")
        return {name: getattr(self, name) for name in names}


def save_checkpoint(folder: Path, state: State) -> Path:
    """Write the state as `step-<number>.safetensors` and drop all but the newest two.

    Raises:
        ResourceError: the disk is full; the checkpoints before stay.
    """
    tensors = {f"model.{k}": v for k, v in state.model.state_dict().items()}
    tensors |= {f"averaged.{k}": v for k, v in state.averaged.state_dict().items()}
    for place, parameter in enumerate(_parameters(state.optimizer)):
        for name, value in state.optimizer.state.get(parameter, {}).items():
            tensors[f"optimizer.{place}.{name}"] = torch.as_tensor(value)
    path = folder / f"step-{state.step:08d}.safetensors"
    with atomic_path(path) as temporary:
        whole = {k: v.detach().contiguous().clone() if v.ndim else v.detach().clone() for k, v in tensors.items()}
        try:
            save_file(whole, temporary, {"pixelwise": json.dumps(state.facts())})
        except SafetensorError as error:
            raise OSError(str(error)) from error
    for old in checkpoints(folder)[:-_KEPT]:
        old.unlink()
    return path


def checkpoints(folder: Path) -> list[Path]:
    """List the checkpoints of a folder, oldest first."""
    return sorted(folder.glob("step-*.safetensors"))


def load_checkpoint(path: Path, state: State) -> None:
    """Fill `state` from a file, in place and bit for bit.

    Raises:
        ModelFileError: the file is damaged or belongs to another model.
    """
    try:
        with safe_open(path, framework="pt") as file:
            facts = json.loads(file.metadata()["pixelwise"])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no mapping
    except (SafetensorError, OSError, KeyError, TypeError, ValueError) as error:
        raise ModelFileError(
            path, expected="a checkpoint", found=str(error), do="Delete it; the one before is used."
        ) from error
    try:
        state.model.load_state_dict(_part(tensors, "model."))
        state.averaged.load_state_dict(_part(tensors, "averaged."))
    except RuntimeError as error:
        found = " ".join(str(error).split())[:200]
        raise ModelFileError(path, expected="tensors of this model", found=found, do="Use another --out.") from error
    for place, parameter in enumerate(_parameters(state.optimizer)):
        entries = _part(tensors, f"optimizer.{place}.")
        # A tensor laid out like its parameter goes through the same kernels as before the stop.
        state.optimizer.state[parameter] = {
            name: value.clone() if value.shape != parameter.shape else torch.empty_like(parameter).copy_(value)
            for name, value in entries.items()
        }
    for name, value in facts.items():
        setattr(state, name, value)


def readable(folder: Path) -> bool:
    """Tell whether one of a folder's checkpoints can be opened."""
    for path in checkpoints(folder):
        try:
            with safe_open(path, framework="pt") as file:
                json.loads(file.metadata()["pixelwise"])
        except (SafetensorError, OSError, KeyError, TypeError, ValueError):
            continue
        return True
    return False


def load_newest(folder: Path, state: State) -> Path | None:
    """Load the newest readable checkpoint of a folder; None where there is none.

    Raises:
        ModelFileError: those that can be read belong to another model, so that there is nothing to go on with.
    """
    problem: ModelFileError | None = None
    for path in reversed(checkpoints(folder)):
        try:
            load_checkpoint(path, state)
        except ModelFileError as error:
            problem = problem or error
            continue
        return path
    if problem is not None and readable(folder):
        raise problem
    return None


def _parameters(optimizer: torch.optim.Optimizer) -> list[torch.Tensor]:
    return [p for group in optimizer.param_groups for p in group["params"]]


def _part(tensors: dict[str, torch.Tensor], prefix: str) -> dict[str, torch.Tensor]:
    return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}
