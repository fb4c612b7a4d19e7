"""Checkpoints: the state of a run between two steps, as one safetensors file with a JSON header."""

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
_UNREADABLE = (SafetensorError, OSError, KeyError, TypeError, ValueError)


@dataclass
class State:
    """Everything that changes during training; the seconds of the last validation are not part of a checkpoint."""

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
    validation_seconds: float | None = None

    def facts(self) -> dict[str, Any]:
        """Return the values that are not tensors."""
        names = ("step", "scored_step", "best_miou", "best_step", "skipped", "skipped_in_a_row", "seconds")
        return {name: getattr(self, name) for name in names}


def save_checkpoint(folder: Path, state: State) -> Path:
    """Write the state as `step-<number>.safetensors` and delete all but the newest two checkpoints.

    Raises:
        ResourceError: the disk is full; earlier checkpoints are kept.
    """
    tensors = {f"model.{k}": v for k, v in state.model.state_dict().items()}
    tensors |= {f"averaged.{k}": v for k, v in state.averaged.state_dict().items()}
    for index, parameter in enumerate(_parameters(state.optimizer)):
        for name, value in state.optimizer.state.get(parameter, {}).items():
            tensors[f"optimizer.{index}.{name}"] = torch.as_tensor(value)
    path = folder / f"step-{state.step:08d}.safetensors"
    with atomic_path(path) as temporary:
        copies = {k: v.detach().contiguous().clone() if v.ndim else v.detach().clone() for k, v in tensors.items()}
        try:
            save_file(copies, temporary, {"pixelwise": json.dumps(state.facts())})
        except SafetensorError as error:
            raise OSError(str(error)) from error
    for old in checkpoints(folder)[:-_KEPT]:
        old.unlink()
    return path


def checkpoints(folder: Path) -> list[Path]:
    """Return the checkpoints of a folder, oldest first."""
    return sorted(folder.glob("step-*.safetensors"))


def load_checkpoint(path: Path, state: State) -> None:
    """Load a checkpoint into `state`, in place and bit for bit.

    Raises:
        ModelFileError: the file is damaged or belongs to another model.
    """
    try:
        with safe_open(path, framework="pt") as file:
            facts = json.loads(file.metadata()["pixelwise"])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a mapping
    except _UNREADABLE as error:
        raise ModelFileError(
            path, expected="a checkpoint", found=str(error), do="Delete it to resume from the previous one."
        ) from error
    try:
        state.model.load_state_dict(_with_prefix(tensors, "model."))
        state.averaged.load_state_dict(_with_prefix(tensors, "averaged."))
    except RuntimeError as error:
        found = " ".join(str(error).split())[:200]
        raise ModelFileError(path, expected="tensors of this model", found=found, do="Use another --out.") from error
    for index, parameter in enumerate(_parameters(state.optimizer)):
        entries = _with_prefix(tensors, f"optimizer.{index}.")
        # A moment with the memory layout of its parameter is computed by the same kernels as before the interruption; a
        # fused step counts on the device.
        device = parameter.device if state.optimizer.defaults["fused"] else torch.device("cpu")
        state.optimizer.state[parameter] = {
            name: value.clone().to(device)
            if value.shape != parameter.shape
            else torch.empty_like(parameter).copy_(value)
            for name, value in entries.items()
        }
    for name, value in facts.items():
        setattr(state, name, value)


def readable(folder: Path) -> bool:
    """Whether at least one checkpoint of a folder can be opened."""
    for path in checkpoints(folder):
        try:
            with safe_open(path, framework="pt") as file:
                json.loads(file.metadata()["pixelwise"])
        except _UNREADABLE:
            continue
        return True
    return False


def load_newest(folder: Path, state: State) -> Path | None:
    """Load the newest readable checkpoint of a folder; return None if there is none.

    Raises:
        ModelFileError: the readable checkpoints belong to another model.
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


def _with_prefix(tensors: dict[str, torch.Tensor], prefix: str) -> dict[str, torch.Tensor]:
    return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}
