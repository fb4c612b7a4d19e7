"""Weights that others trained, and how they get into a network.

Comes in: a model and a `Source` of tensors. Goes out: the model with these tensors in it, and a report of what fitted.
Knows nothing of where weights come from (see `sources`) or of training.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from pixelwise.errors import ModelFileError
from pixelwise.models.base import SegmentationModel, adapt_bands

# Less than this share of the values, and the weights are not of this network.
_LEAST, _LEAST_OF_ENCODER = 0.5, 0.9


@dataclass(frozen=True)
class Source:
    """Hold weights before they are in a network.

    Args:
        where: file, folder or Hub name, for messages.
        tensors: by the names of whoever wrote them.
        license: terms of the weights; "unknown" where nobody says.
        mean, std: per band of 0…255, how the images were normalised; None where nobody says.
        clip: per band, the range that values were brought into before; None: they were not.
        classes: names of the classes of the head, where known.
        dtype: numpy name of the pixel type that `mean` and `std` are for.
        bgr: their images had the bands blue, green, red; ours have red first.
    """

    where: str
    tensors: Mapping[str, Tensor] = field(repr=False)
    license: str = "unknown"
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    classes: tuple[str, ...] | None = None
    dtype: str = "uint8"
    bgr: bool = False
    clip: tuple[tuple[float, float], ...] | None = None


@dataclass(frozen=True)
class Report:
    """Say what becomes of the tensors.

    Args:
        taken: how many go in.
        new: those of the network that none goes into: they stay fresh.
        left_over: those that go nowhere.
        license: their terms.
        head_new: the layers that make the logits are among the new ones.
        encoder_only: so is all that follows the encoder.
    """

    taken: int
    new: tuple[str, ...]
    left_over: tuple[str, ...]
    license: str
    head_new: bool
    encoder_only: bool

    def sentence(self) -> str:
        """Say it in one sentence."""
        new = f"new: {', '.join(_short(self.new))}" if self.new else "nothing is new"
        left = f", left over: {', '.join(_short(self.left_over))}" if self.left_over else ""
        return f"{self.taken} tensors taken, {new}{left}; licence of the weights: {self.license}"


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
    taken, report = matched(model, source, keep_head=keep_head)
    model.load_state_dict({**model.state_dict(), **taken})
    return report


def matched(model: SegmentationModel, source: Source, *, keep_head: bool = True) -> tuple[dict[str, Tensor], Report]:
    """Find what `fill` would put in, by the network's own names; the network may be without memory.

    Raises:
        ModelFileError: the weights belong to another network.
    """
    own = model.state_dict()
    named = _named(model, source, own)
    first = next((n for n, t in own.items() if t.ndim == 4), "")
    head = {id(p) for p in model.head.parameters()}
    ends = {name for name, p in model.named_parameters() if id(p) in head} | {n for n in own if "aux" in n}
    taken: dict[str, Tensor] = {}
    for name, given in named.values():
        wanted = own[name]
        if name in ends and not keep_head:
            continue
        tensor = _adapted(given, wanted, model.in_channels, source.bgr) if name == first else given
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
    encoder = [n for n in own if _of_encoder(n, model)]
    encoder_only = bool(encoder) and not any(n in taken for n in own if n not in encoder)
    body, least = (encoder, _LEAST_OF_ENCODER) if encoder_only else (list(own), _LEAST)
    if sum(own[n].numel() for n in body if n in taken) < least * sum(own[n].numel() for n in body):
        raise ModelFileError(
            source.where,
            expected=f"weights of this network ({', '.join(_short(tuple(own)))})",
            found=f"others ({', '.join(_short(tuple(source.tensors)))})",
            do="Choose the network that these weights belong to with --model.",
        )
    used = {original for original, (name, _) in named.items() if name in taken}
    left = tuple(n for n in source.tensors if n not in used and not n.startswith("normalise."))
    head_new = any(name in new and id(p) in head for name, p in model.named_parameters())
    return taken, Report(len(taken), new, left, source.license, head_new, encoder_only)


def _named(model: SegmentationModel, source: Source, own: Mapping[str, Tensor]) -> dict[str, tuple[str, Tensor]]:
    """Find for each given tensor which of ours it is: by the prefix and the spelling that make most of the names ours.

    Prefixes: none, `network.`, or that of the encoder. timm flattens lists of stages: `stages.0.` becomes `stages_0.`.
    What normalises is the configuration's to say, and left out.
    """
    encoders = {n[: n.index(".", len("network.")) + 1] for n in own if n.startswith("network.") and n.count(".") > 1}
    prefixes = ["", "network.", *sorted(encoders), *(f"{prefix}model." for prefix in sorted(encoders))]
    spelled = list(model.tensors_from_files(source.tensors))
    if len(spelled) < len(source.tensors):
        raise ModelFileError(
            source.where, expected="one tensor per name", found="two names for one", do="Save the checkpoint again."
        )
    flat = [re.sub(r"^(\w+)\.(\d+)\.", r"\1_\2.", name) for name in spelled]
    best = max(
        ([prefix + name for name in names] for prefix in prefixes for names in (spelled, flat)),
        key=lambda names: sum(name in own for name in names),
    )
    pairs = zip(source.tensors.items(), best, strict=True)
    return {
        original: (name, tensor)
        for (original, tensor), name in pairs
        if name in own and not name.startswith("normalise.")
    }


def _adapted(given: Tensor, wanted: Tensor, bands: int, bgr: bool) -> Tensor:
    """Fit the weights of the first convolution, which may work on patches: each band is a group of `wanted` inputs."""
    group = wanted.shape[1] // bands
    if given.ndim != 4 or group < 1 or given.shape[1] % group:
        return given
    by_band = given.reshape(given.shape[0], given.shape[1] // group, group * given.shape[2], given.shape[3])
    by_band = by_band.flip(1) if bgr and by_band.shape[1] == 3 else by_band
    fitted = adapt_bands(by_band, bands)
    return fitted.reshape(given.shape[0], bands * group, given.shape[2], given.shape[3])


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
