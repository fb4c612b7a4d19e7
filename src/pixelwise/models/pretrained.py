"""Weights that others trained, and how they get into a network.

Comes in: a model and a `Source` of tensors. Goes out: the model with these tensors in it, and a report of what fitted.
Knows nothing of where weights come from (see `sources`) or of training.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from pixelwise.errors import ModelFileError
from pixelwise.models.base import SegmentationModel, adapt_bands

_LEAST = 0.5


@dataclass(frozen=True)
class Source:
    """Hold weights before they are in a network.

    Args:
        where: file, folder or Hub name, for messages.
        tensors: by the names of whoever wrote them.
        license: terms of the weights; "unknown" where nobody says.
        mean, std: per band of 0…255, how the pictures were normalised; None where nobody says.
        classes: names of the classes of the head, where known.
        encoder_only: they hold an encoder alone.
    """

    where: str
    tensors: Mapping[str, Tensor] = field(repr=False)
    license: str = "unknown"
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    classes: tuple[str, ...] | None = None
    encoder_only: bool = False


@dataclass(frozen=True)
class Report:
    """Say what became of the tensors: how many parameters were taken, which of the network are new, which were left over."""

    taken: int
    new: tuple[str, ...]
    left_over: tuple[str, ...]
    license: str

    def sentence(self) -> str:
        """Say it in one sentence."""
        new = f"new: {', '.join(_short(self.new))}" if self.new else "nothing is new"
        return f"{self.taken} tensors taken, {new}; licence of the weights: {self.license}"


def fill(model: SegmentationModel, source: Source, *, keep_head: bool = True) -> Report:
    """Put weights into a network, in place.

    The first convolution is adapted to the number of bands (`adapt_bands`). Tensors of another shape are left out where
    they make logits or belong to auxiliary heads, and stay fresh; anywhere else they mean another network.

    Args:
        model: with fresh weights.
        source: what to put in.
        keep_head: take the layers that make the logits, too, where they fit.

    Raises:
        ModelFileError: the weights belong to another network.
    """
    own = model.state_dict()
    given = _renamed(source, own)
    head = {id(p) for p in model.head.parameters()}
    ends = {name for name, p in model.named_parameters() if id(p) in head} | {n for n in own if "aux" in n}
    taken: dict[str, Tensor] = {}
    for name, tensor in given.items():
        wanted = own[name]
        if name in ends and not keep_head:
            continue
        if tensor.shape != wanted.shape and tensor.ndim == 4 and tensor.shape[1] == 3 and _first(name, own):
            tensor = adapt_bands(tensor, wanted.shape[1])
        if tensor.shape == wanted.shape:
            taken[name] = tensor.to(wanted.dtype)
        elif name not in ends:
            raise ModelFileError(
                source.where,
                expected=f"{name} of shape {tuple(wanted.shape)}",
                found=f"{tuple(tensor.shape)}",
                do="Choose the network that these weights belong to with --model.",
            )
    new = tuple(n for n in own if n not in taken and not n.startswith("normalise.") and "num_batches" not in n)
    body = [n for n in own if _of_encoder(n, model)] if source.encoder_only else list(own)
    if sum(own[n].numel() for n in body if n in taken) < _LEAST * sum(own[n].numel() for n in body):
        raise ModelFileError(
            source.where,
            expected=f"weights of this network ({', '.join(_short(tuple(own)))})",
            found=f"others ({', '.join(_short(tuple(source.tensors)))})",
            do="Choose the network that these weights belong to with --model.",
        )
    model.load_state_dict({**own, **taken})
    left = tuple(n for n in source.tensors if n not in _used(source, taken))
    return Report(len(taken), new, left, source.license)


def _renamed(source: Source, own: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Find the prefix that makes most of the given names ours: none, `network.`, or that of the encoder."""
    encoders = {n[: n.index(".", len("network.")) + 1] for n in own if n.startswith("network.") and n.count(".") > 1}
    prefixes = ["", "network.", *sorted(encoders), *(f"{prefix}model." for prefix in sorted(encoders))]
    best = max(prefixes, key=lambda prefix: sum(prefix + name in own for name in source.tensors))
    return {best + name: tensor for name, tensor in source.tensors.items() if best + name in own}


def _used(source: Source, taken: Mapping[str, Tensor]) -> set[str]:
    return {
        name
        for name in source.tensors
        if any(full.endswith(name) for full in (name, f"network.{name}") if full in taken)
    }


def _first(name: str, own: Mapping[str, Tensor]) -> bool:
    return name == next((n for n, t in own.items() if t.ndim == 4), None)


def _of_encoder(name: str, model: SegmentationModel) -> bool:
    return name.startswith(tuple(prefix for layer in model.encoder_stages() for prefix in layer))


def _short(names: tuple[str, ...]) -> list[str]:
    return [*names[:4], f"{len(names) - 4} more"] if len(names) > 5 else list(names)


def read_foreign(path: Path) -> dict[str, Tensor]:
    """Read the tensors of a pickled checkpoint (.pt, .pth, .bin), tensors only, for `pixelwise import-weights`.

    Even so the file is one that others wrote, and torch's reader for tensors alone was got around twice (CVE-2025-32434,
    CVE-2026-24747): only for files of people one trusts.

    Raises:
        ModelFileError: nothing there, or no dictionary of tensors.
    """
    try:
        plain = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise ModelFileError(path, expected="a checkpoint", found="nothing", do="Check the path.") from error
    except Exception as error:  # broken and hostile files raise nearly anything
        problem = " ".join(str(error).split())[:160]
        raise ModelFileError(
            path, expected="a checkpoint of tensors alone", found=problem, do="Ask its author for safetensors."
        ) from error
    for key in ("state_dict", "model", "model_state_dict"):
        if isinstance(plain, dict) and isinstance(plain.get(key), dict):
            plain = plain[key]
    if not isinstance(plain, dict):
        plain = {}
    tensors = {str(k).removeprefix("module."): v for k, v in plain.items() if isinstance(v, Tensor)}
    if not tensors:
        raise ModelFileError(
            path, expected="names and tensors", found="no tensors", do="Export the model's state_dict()."
        )
    return {k: v.detach().clone().contiguous() for k, v in tensors.items()}
