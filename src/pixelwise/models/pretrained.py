"""Load pretrained weights into a network, and report which tensors fitted. `sources` finds the weights."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from torch import Tensor

from pixelwise.errors import ModelFileError
from pixelwise.models.base import SegmentationModel, adapt_bands

# With a smaller share of matching values, the weights are assumed to belong to another network.
_MIN_SHARE, _MIN_ENCODER_SHARE = 0.5, 0.9


@dataclass(frozen=True)
class Source:
    """Pretrained weights and their metadata.

    Args:
        where: file, folder or Hub name, for messages.
        tensors: by their names in the file.
        license: licence of the weights, or "unknown".
        mean, std: per band, normalisation of their training images in raw pixel values; None if unknown.
        clip: per band, the range to which values were clipped; None: not clipped.
        classes: class names of the head; None if unknown.
        dtype: numpy dtype name that `mean` and `std` refer to.
        bgr: whether the bands of their images are in the order blue, green, red.
        origin: who trained them on what, or where they are published; "" if unknown.
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
    origin: str = ""


@dataclass(frozen=True)
class Report:
    """Which pretrained tensors fitted a network.

    Args:
        taken: number of tensors loaded.
        new: tensors of the network without pretrained weights.
        unused: pretrained tensors without a counterpart in the network.
        license: licence of the weights.
        head_new: whether the layers that compute the logits are new.
        encoder_only: whether only the encoder has pretrained weights.
    """

    taken: int
    new: tuple[str, ...]
    unused: tuple[str, ...]
    license: str
    head_new: bool
    encoder_only: bool

    def sentence(self) -> str:
        """Return the report as one sentence."""
        if self.encoder_only and self.head_new:
            return f"{self.taken} tensors of the encoder loaded; the decoder is new; licence of the weights: {self.license}"
        new = ", ".join(_short(self.new)) or "none"
        unused = ", ".join(_short(self.unused)) or "none"
        return f"{self.taken} tensors loaded; new: {new}; unused: {unused}; licence of the weights: {self.license}"


def fill(model: SegmentationModel, source: Source, *, keep_head: bool = True) -> Report:
    """Load weights into a network, in place.

    The first convolution is adapted to the number of bands (`adapt_bands`). In the head and in auxiliary heads, tensors of
    another shape are not loaded; elsewhere they are an error.

    Raises:
        ModelFileError: the weights belong to another network.
    """
    taken, report = matched(model, source, keep_head=keep_head)
    model.load_state_dict({**model.state_dict(), **taken})
    return report


def matched(model: SegmentationModel, source: Source, *, keep_head: bool = True) -> tuple[dict[str, Tensor], Report]:
    """Return the tensors that `fill` would load, by the names of the network, which may be on the meta device.

    Raises:
        ModelFileError: the weights belong to another network.
    """
    source = replace(source, tensors=model.tensors_from_pretrained(source.tensors))
    state = model.state_dict()
    named = _named(model, source, state)
    first = next((n for n, t in state.items() if t.ndim == 4), "")
    head = {id(p) for p in model.head.parameters()}
    heads = {name for name, p in model.named_parameters() if id(p) in head} | {n for n in state if "aux" in n}
    taken: dict[str, Tensor] = {}
    for name, given in named.values():
        target = state[name]
        if name in heads and not keep_head:
            continue
        tensor = _adapted(given, target, model.in_channels, source.bgr) if name == first else given
        if tensor.shape == target.shape:
            taken[name] = tensor.to(target.dtype)
        elif name not in heads:
            raise ModelFileError(
                source.where,
                expected=f"{name} of shape {tuple(target.shape)}",
                found=f"{tuple(tensor.shape)}",
                do="Choose the network of these weights with --model.",
            )
    new = tuple(n for n in state if n not in taken and not n.startswith("normalise.") and "num_batches" not in n)
    encoder = [n for n in state if _in_encoder(n, model)]
    encoder_only = bool(encoder) and not any(n in taken for n in state if n not in encoder)
    expected, share = (encoder, _MIN_ENCODER_SHARE) if encoder_only else (list(state), _MIN_SHARE)
    if sum(state[n].numel() for n in expected if n in taken) < share * sum(state[n].numel() for n in expected):
        raise ModelFileError(
            source.where,
            expected=f"weights of this network ({', '.join(_short(tuple(state)))})",
            found=f"those of another one ({', '.join(_short(tuple(source.tensors)))})",
            do="Choose the network of these weights with --model.",
        )
    used = {original for original, (name, _) in named.items() if name in taken}
    left = tuple(n for n in source.tensors if n not in used and not n.startswith("normalise."))
    head_new = any(name in new and id(p) in head for name, p in model.named_parameters())
    return taken, Report(len(taken), new, left, source.license, head_new, encoder_only)


def _named(model: SegmentationModel, source: Source, state: Mapping[str, Tensor]) -> dict[str, tuple[str, Tensor]]:
    """Map the name of each tensor to its name in the network, by the prefix and spelling that match most tensors.

    Prefixes: none, `network.`, or that of the encoder.
    The normalisation is not mapped, since it is taken from the configuration.
    """
    encoders = {n[: n.index(".", len("network.")) + 1] for n in state if n.startswith("network.") and n.count(".") > 1}
    prefixes = ["", "network.", *sorted(encoders), *(f"{prefix}model." for prefix in sorted(encoders))]
    spelled = list(model.tensors_from_files(source.tensors))
    if len(spelled) < len(source.tensors):
        raise ModelFileError(
            source.where,
            expected="one tensor per name",
            found="two names for the same tensor",
            do="Save the checkpoint again.",
        )
    best = max(
        ([_spelling(prefix, name, state) for name in spelled] for prefix in prefixes),
        key=lambda names: sum(name in state for name in names),
    )
    pairs = zip(source.tensors.items(), best, strict=True)
    return {
        original: (name, tensor)
        for (original, tensor), name in pairs
        if name in state and not name.startswith("normalise.")
    }


def _spelling(prefix: str, name: str, state: Mapping[str, Tensor]) -> str:
    """Return the name with its prefix, flattened as in the encoders of timm if only that exists: `stages.0.` as `stages_0.`."""
    flat = prefix + name.replace(".", "_", 1)
    return flat if flat in state and prefix + name not in state else prefix + name


def _adapted(given: Tensor, target: Tensor, bands: int, bgr: bool) -> Tensor:
    """Adapt the weights of the first convolution to the bands. With patches, each band is a group of inputs."""
    group = target.shape[1] // bands
    if given.ndim != 4 or group < 1 or given.shape[1] % group:
        return given
    by_band = given.reshape(given.shape[0], given.shape[1] // group, group * given.shape[2], given.shape[3])
    by_band = by_band.flip(1) if bgr and by_band.shape[1] == 3 else by_band
    fitted = adapt_bands(by_band, bands)
    return fitted.reshape(given.shape[0], bands * group, given.shape[2], given.shape[3])


def _in_encoder(name: str, model: SegmentationModel) -> bool:
    return name.startswith(tuple(prefix for layer in model.encoder_stages() for prefix in layer))


def _short(names: tuple[str, ...]) -> list[str]:
    return [*names[:4], f"{len(names) - 4} more"] if len(names) > 5 else list(names)


def read_foreign(path: Path) -> dict[str, Tensor]:
    """Read the tensors of a pickled checkpoint (.pt, .pth, .bin) with `weights_only`, for `pixelwise import-weights`.

    Only for files from trusted sources: `weights_only` was circumvented twice (CVE-2025-32434, CVE-2026-24747).

    Raises:
        ModelFileError: no such file, or no dictionary of tensors.
    """
    try:
        plain = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise ModelFileError(path, expected="a checkpoint", found="nothing", do="Check the path.") from error
    except Exception as error:  # damaged and malicious files may raise anything
        problem = " ".join(str(error).split())[:160]
        raise ModelFileError(
            path, expected="a checkpoint with tensors only", found=problem, do="Ask its author for safetensors."
        ) from error
    for key in ("state_dict", "model", "model_state_dict"):
        if isinstance(plain, dict) and isinstance(plain.get(key), dict):
            plain = plain[key]
    if not isinstance(plain, dict):
        plain = {}
    tensors = {str(k).removeprefix("module."): v for k, v in plain.items() if isinstance(v, Tensor)}
    if not tensors:
        raise ModelFileError(
            path, expected="a dictionary of tensors", found="no tensors", do="Save the state_dict() of the model."
        )
    return {k: v.detach().clone().contiguous() for k, v in tensors.items()}
