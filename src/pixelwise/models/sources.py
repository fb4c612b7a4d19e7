"""Where pretrained weights come from, and under which licence.

Comes in: the name of a network and of weights: `imagenet`, `coco`, `ade20k`, `cityscapes`, a folder, a file, or a Hub name.
Goes out: a `Source`. Another machine is reached only for weights that are named; nothing pickled is opened but the files of
torchvision whose hash their name carries. Knows nothing of how weights get into a network.
"""

from __future__ import annotations

import contextlib
import json
import re
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
from torch import Tensor

from pixelwise.errors import ConfigError, ModelFileError, ResourceError
from pixelwise.models.catalogue import NVIDIA, origin, parts
from pixelwise.models.pretrained import Source
from pixelwise.models.transformers import CONFIG, PROCESSOR
from pixelwise.models.weights import CARD, ModelCard

# ImageNet's mean and deviation, as the networks of all three libraries saw it: red, green, blue of 0…255.
IMAGENET = ((123.675, 116.28, 103.53), (58.395, 57.12, 57.375))
TENSORS = "model.safetensors"
_FILES = (".safetensors", ".pt", ".pth", ".bin", ".ckpt")


def find_weights(name: str, weights: str, *, accept_license: bool = False) -> Source:
    """Find weights for the network called `name`.

    Args:
        name: of the network, as for `build_model`.
        weights: imagenet, coco, ade20k, cityscapes; a folder with `model.safetensors`; a .safetensors file; or
            OWNER/NAME on the Hub.
        accept_license: take weights that allow no commercial use.

    Raises:
        ConfigError: there are no such weights for this network, or their licence has not been accepted.
        ModelFileError: the file or folder cannot be used.
        ResourceError: they are not here and cannot be reached.
    """
    path = Path(weights)
    if path.is_dir():
        found = _from_folder(path / "model" if (path / "model").is_dir() else path, path)
    elif path.is_file() or path.suffix.lower() in _FILES:
        found = _from_file(path)
    elif weights in ("imagenet", "coco", "ade20k", "cityscapes"):
        known = _license_of(name, weights)  # before anything is fetched
        _require_license(known, accept_license, f"{weights} of {name}")
        found = _from_catalogue(name, weights)
    elif weights.count("/") == 1:
        _require_license(NVIDIA if weights.startswith("nvidia/") else "", accept_license, weights)
        found = _from_folder(downloaded(weights), weights)
    else:
        raise _no_such_weights(weights)
    _require_license(found.license, accept_license, weights)
    return found


def _no_such_weights(weights: str) -> ConfigError:
    return ConfigError(
        "model.weights",
        expected="none, imagenet, coco, ade20k, cityscapes, a folder, a .safetensors file or OWNER/NAME on the Hub",
        found=repr(weights),
        do="Choose one of these: `pixelwise models` tells which there are for a network.",
    )


def _from_file(path: Path) -> Source:
    if not path.is_file():
        raise ModelFileError(path, expected="a .safetensors file", found="nothing", do="Check the path.")
    if path.suffix != ".safetensors":
        raise ModelFileError(
            path,
            expected="a .safetensors file",
            found=f"{path.suffix or 'no suffix'}, which may be a pickle, and a pickle runs whatever its author wrote",
            do="Where you trust who made it: pixelwise import-weights FILE --out FILE.safetensors",
        )
    return Source(str(path), _tensors(path))


def _tensors(path: Path) -> dict[str, Tensor]:
    try:
        return safetensors.torch.load_file(path)
    except (safetensors.SafetensorError, OSError) as error:
        raise ModelFileError(path, expected="safetensors", found=str(error), do="Copy the file again.") from error


def _from_folder(folder: Path, where: object) -> Source:
    """Read a folder of ours (model.json) or of transformers (config.json), each with model.safetensors."""
    if not (folder / TENSORS).is_file():
        raise ModelFileError(
            where,
            expected=f"a folder with {TENSORS}",
            found=", ".join(sorted(p.name for p in folder.iterdir())[:5]) or "an empty folder",
            do="Save the checkpoint as safetensors: model.save_pretrained(folder).",
        )
    tensors = _tensors(folder / TENSORS)
    if (folder / CARD).is_file():
        card = ModelCard.from_dict(_json(folder / CARD), folder / CARD)
        return Source(str(where), tensors, card.license, card.mean, card.std, card.labels.names, dtype=card.dtype)
    config = _json(folder / CONFIG) if (folder / CONFIG).is_file() else {}
    mean, std, bgr = _processor(folder)
    made_of = str(config.get("_name_or_path", ""))
    license = NVIDIA if "nvidia/" in f"{where} {made_of}" else _license_in(folder / "README.md")
    return Source(str(where), tensors, license, mean, std, _classes(config), bgr=bgr)


def _classes(config: Mapping[str, Any]) -> tuple[str, ...] | None:
    names = config.get("id2label")
    return tuple(str(names[key]) for key in sorted(names, key=int)) if isinstance(names, dict) else None


def _license_in(readme: Path) -> str:
    """Read the licence from the header of a repository's README."""
    text = readme.read_text(encoding="utf-8", errors="replace") if readme.is_file() else ""
    header = text.split("---", 2)[1] if text.startswith("---") and text.count("---") >= 2 else ""
    found = re.search(r"^license:\s*['\"]?([\w.+-]+)", header, re.M)
    return found[1] if found else "unknown"


def _processor(folder: Path) -> tuple[tuple[float, ...] | None, tuple[float, ...] | None, bool]:
    """Read how the checkpoint's own processor normalises, in raw values of 0…255, and whether blue comes first."""
    if not (folder / PROCESSOR).is_file():
        return None, None, False
    plain = _json(folder / PROCESSOR)
    bgr = bool(plain.get("do_flip_channel_order"))
    mean, std = plain.get("image_mean"), plain.get("image_std")
    # A processor that names no numbers leaves values between 0 and 1.
    if (plain.get("do_normalize") is None and mean is None) or plain.get("do_normalize") is False:
        return (0.0, 0.0, 0.0), (255.0, 255.0, 255.0), bgr
    factor = float(plain.get("rescale_factor") or 1 / 255) if plain.get("do_rescale", True) else 1.0
    if mean is None or std is None:
        return None, None, bgr
    mean, std = (tuple(float(v) / factor for v in values) for values in (mean, std))
    # Ours are red first, as are the bands of the pictures here.
    return (mean[::-1], std[::-1], bgr) if bgr else (mean, std, bgr)


def _json(path: Path) -> dict[str, Any]:
    try:
        plain = json.loads(path.read_text(encoding="utf-8"))
        if isinstance(plain, dict):
            return plain
        found = type(plain).__name__
    except (ValueError, OSError) as error:
        found = str(error)
    raise ModelFileError(path, expected="JSON with keys and values", found=found, do="Copy the file again.")


def _require_license(license: str, accepted: bool, what: str) -> None:
    """Refuse weights that allow no commercial use where nobody has said that this is fine.

    Raises:
        ConfigError: nobody has.
    """
    if not accepted and _RESTRICTED.search(license):
        raise ConfigError(
            f"weights {what}",
            expected="a licence that you have accepted",
            found=license,
            do="Read it, and add --accept-license where your use is allowed; it is written into model.json.",
        )


_RESTRICTED = re.compile(r"\bnc\b|non-?commercial|research|amlr|nvidia", re.I)


def _license_of(name: str, weights: str) -> str:
    """Give the licence of a catalogue's weights where it is known without fetching them."""
    source, encoder = origin(name), parts(name)[1]
    if source == "transformers" or encoder.startswith("mit_"):
        return NVIDIA
    if source == "segmentation_models.pytorch" and not encoder.startswith("tu-"):
        kind = _kind(encoder)
        return "CC-BY-NC-4.0" if kind in ("ssl", "swsl", "instagram") else "unknown"
    return ""


def _kind(encoder: str) -> str:
    """Give which of the weights of an encoder of segmentation_models.pytorch the word imagenet means."""
    from segmentation_models_pytorch.encoders import encoders

    settings = encoders.get(encoder, {}).get("pretrained_settings", {})
    return "imagenet" if "imagenet" in settings else str(next(iter(settings), "none"))


def _from_catalogue(name: str, weights: str) -> Source:
    """Find the weights that a library offers for a network under one of our four words."""
    source = origin(name)
    if source == "torchvision":
        return _from_torchvision(name, weights)
    if source == "transformers" and name.startswith("segformer-") and weights in _NVIDIA_NAMES:
        repository = _NVIDIA_NAMES[weights].format(size=name.removeprefix("segformer-"))
        found = _from_folder(downloaded(repository), repository)
        return replace(found, license=NVIDIA, encoder_only=weights == "imagenet")
    if source == "segmentation_models.pytorch" and weights == "imagenet":
        return _from_smp(parts(name)[1])
    raise ConfigError(
        "model.weights",
        expected=f"weights that there are for {name}",
        found=weights,
        do="See `pixelwise models`, or name a file.",
    )


_NVIDIA_NAMES = {
    "imagenet": "nvidia/mit-{size}",
    "ade20k": "nvidia/segformer-{size}-finetuned-ade-512-512",
    "cityscapes": "nvidia/segformer-{size}-finetuned-cityscapes-1024-1024",
}


def _from_torchvision(name: str, weights: str) -> Source:
    """Take torchvision's own files: their names carry the hash they are checked against, and only tensors are read."""
    from torchvision.models import get_model_weights

    from pixelwise.models.torchvision import NAMES

    builder = NAMES[name][0]
    backbone = {"resnet50": "resnet50", "resnet101": "resnet101"}.get(name.partition("-")[2], "mobilenet_v3_large")
    offered = {"coco": builder, "imagenet": backbone}
    if weights not in offered:
        raise ConfigError("model.weights", expected="imagenet or coco", found=weights, do="Choose one of these.")
    found = next(w for w in get_model_weights(offered[weights]) if "COCO" in w.name or "IMAGENET1K_V1" in w.name)
    try:
        # The note of a download goes to standard error, with all else that is no result.
        with contextlib.redirect_stdout(sys.stderr):
            tensors = found.get_state_dict(progress=False, check_hash=True, weights_only=True)
    except (OSError, RuntimeError) as error:
        raise _unreachable(
            f"{weights} weights of {name}", found.url, "~/.cache/torch/hub/checkpoints/", error
        ) from error
    if weights == "imagenet" and backbone == "mobilenet_v3_large":
        tensors = {key.removeprefix("features."): tensor for key, tensor in tensors.items()}
    classes = tuple(found.meta["categories"]) if weights == "coco" else None
    return Source(found.url, tensors, "BSD-3-Clause", *IMAGENET, classes, weights == "imagenet")


def _from_smp(encoder: str) -> Source:
    """Take the encoder's weights from where segmentation_models.pytorch, or timm, keeps them."""
    if encoder.startswith("tu-"):
        import timm

        config = timm.get_pretrained_cfg(encoder[3:])
        if config is None or not config.hf_hub_id:
            raise ConfigError("model.weights", expected=f"weights for {encoder}", found="none", do="Name a file.")
        folder = downloaded(config.hf_hub_id)
        mean, std = (tuple(255.0 * v for v in values) for values in (config.mean, config.std))
        return Source(config.hf_hub_id, _tensors(folder / TENSORS), config.license or "unknown", mean, std, None, True)
    from segmentation_models_pytorch.encoders import encoders

    kind, settings = _kind(encoder), encoders.get(encoder, {}).get("pretrained_settings", {})
    if kind not in settings:
        raise ConfigError("model.weights", expected=f"weights for {encoder}", found="none", do="Name a file.")
    repository = settings[kind]["repo_id"]
    folder = downloaded(repository, settings[kind].get("revision"))
    plain = _json(folder / CONFIG)
    scale = float(plain.get("input_range", [0, 1])[1]) / 255
    mean, std = (tuple(float(v) / scale for v in plain[key]) for key in ("mean", "std"))
    license = _license_of(f"unet/{encoder}", "imagenet")
    return Source(repository, _tensors(folder / TENSORS), license, mean, std, None, True)


def network_errors() -> tuple[type[Exception], ...]:
    """Give what the Hub's library raises where there is no network, or no right to what was asked for."""
    import huggingface_hub.utils

    httpx: Any = getattr(huggingface_hub.utils, "httpx", None)
    return (OSError, ValueError, *([httpx.HTTPError] if httpx else []))


def downloaded(repository: str, revision: str | None = None) -> Path:
    """Fetch configuration, processor and weights of a Hub repository; those that are in the cache are taken from there."""
    try:
        from huggingface_hub import hf_hub_download
        from huggingface_hub.errors import EntryNotFoundError
    except ImportError as error:
        raise ConfigError(
            "model.weights",
            expected="the library huggingface_hub",
            found="it is not installed",
            do="Say: pip install 'pixelwise[models]'.",
        ) from error
    found: Path | None = None
    missing: tuple[type[Exception], ...] = (EntryNotFoundError, *network_errors())
    for name in (TENSORS, CONFIG, PROCESSOR, CARD, "README.md"):
        try:
            found = Path(hf_hub_download(repository, name, revision=revision)).parent
        except missing as error:
            if name == TENSORS:
                raise _unreachable(repository, f"https://huggingface.co/{repository}", "a folder", error) from error
    assert found is not None
    return found


def _unreachable(what: str, address: str, place: str, error: Exception) -> ResourceError:
    problem = " ".join(str(error).split())[:160] or type(error).__name__
    where = (
        f"Put it into {place}" if place != "a folder" else f"Put its {CONFIG}, {PROCESSOR} and {TENSORS} into a folder"
    )
    follow = "say the same again" if place != "a folder" else "say --weights FOLDER"
    return ResourceError(
        what,
        expected="the file, or a way to fetch it",
        found=f"neither ({problem})",
        do=f"Fetch {address} on a machine with a network. {where} here, and {follow}.",
    )
