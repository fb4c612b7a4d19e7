"""Where pretrained weights come from, and under which licence.

Comes in: the name of a network and of weights: `imagenet`, `coco`, `ade20k`, `cityscapes`, a folder, a file, or a Hub name.
Goes out: a `Source`. Another machine is reached only for weights that are named; nothing pickled is opened but the files of
torchvision whose hash their name carries. Knows nothing of how weights get into a network.
"""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
from torch import Tensor

from pixelwise.errors import ConfigError, ModelFileError
from pixelwise.models.catalogue import origin, parts
from pixelwise.models.fetching import README, downloaded, is_hub_name, unreachable
from pixelwise.models.licenses import (
    NVIDIA,
    kind_of_encoder,
    license_of_encoder,
    license_of_repository,
    require_license,
)
from pixelwise.models.pretrained import Source
from pixelwise.models.transformers import CONFIG, PROCESSOR
from pixelwise.models.weights import CARD, WEIGHTS, ModelCard

# ImageNet's mean and deviation, as the networks of all three libraries saw it: red, green, blue of 0…255.
IMAGENET = ((123.675, 116.28, 103.53), (58.395, 57.12, 57.375))
WORDS = ("imagenet", "coco", "ade20k", "cityscapes")
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
    folder = folder_of(weights, accept_license=accept_license)
    if weights in WORDS:
        require_license(_known_license(name), accept_license, f"{weights} of {name}")  # before anything is fetched
        found = _from_catalogue(name, weights)
    elif folder is not None:
        found = _from_folder(folder, weights)
    elif Path(weights).is_file() or Path(weights).suffix.lower() in _FILES:
        found = _from_file(Path(weights))
    else:
        raise _no_such_weights(weights)
    require_license(found.license, accept_license, weights)
    return found


def folder_of(weights: str, *, accept_license: bool = False) -> Path | None:
    """Give the folder that holds weights: one that is named, or fetched from the Hub; None for words, files and nothing.

    Raises:
        ConfigError: it is NVIDIA's on the Hub, and the licence has not been accepted.
        ModelFileError, ResourceError: see `fetching.downloaded`.
    """
    path = Path(weights)
    if weights in (*WORDS, "none"):
        return None
    if path.is_dir():
        return path / "model" if (path / "model").is_dir() else path
    if path.name == WEIGHTS and path.is_file() and any((path.parent / name).is_file() for name in (CARD, CONFIG)):
        return path.parent
    if path.suffix.lower() in _FILES or not is_hub_name(weights):
        return None
    require_license(NVIDIA if weights.startswith("nvidia/") else "", accept_license, weights)
    return downloaded(weights)


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
    if not (folder / WEIGHTS).is_file():
        raise ModelFileError(
            where,
            expected=f"a folder with {WEIGHTS}",
            found=", ".join(sorted(p.name for p in folder.iterdir())[:5]) or "an empty folder",
            do="Save the checkpoint as safetensors: model.save_pretrained(folder).",
        )
    tensors = _tensors(folder / WEIGHTS)
    if (folder / CARD).is_file():
        card = ModelCard.from_dict(read_json(folder / CARD), folder / CARD)
        return Source(
            str(where),
            tensors,
            card.license,
            card.mean,
            card.std,
            card.labels.names,
            card.spec.dtype or "uint8",
            clip=card.clip,
        )
    config = read_json(folder / CONFIG) if (folder / CONFIG).is_file() else {}
    mean, std, bgr = _processor(folder) if (folder / PROCESSOR).is_file() else (*_encoder_numbers(config), False)
    license = license_of_repository(folder / README, config, str(where))
    return Source(str(where), tensors, license, mean, std, _classes(config), bgr=bgr)


def _classes(config: Mapping[str, Any]) -> tuple[str, ...] | None:
    names = config.get("id2label")
    return tuple(str(names[key]) for key in sorted(names, key=int)) if isinstance(names, dict) else None


def _encoder_numbers(config: Mapping[str, Any]) -> tuple[tuple[float, ...] | None, tuple[float, ...] | None]:
    """Read how an encoder of timm, or of segmentation_models.pytorch, saw its images, in raw values of 0…255."""
    plain = config.get("pretrained_cfg", config)
    mean, std = plain.get("mean"), plain.get("std")
    if not isinstance(mean, list) or not isinstance(std, list):
        return None, None
    scale = 255 / float((plain.get("input_range") or [0, 1])[1])
    return tuple(float(v) * scale for v in mean), tuple(float(v) * scale for v in std)


def _processor(folder: Path) -> tuple[tuple[float, ...] | None, tuple[float, ...] | None, bool]:
    """Read how the checkpoint's own processor normalises, in raw values of 0…255, and whether blue comes first."""
    plain = read_json(folder / PROCESSOR)
    bgr = bool(plain.get("do_flip_channel_order"))
    mean, std = plain.get("image_mean"), plain.get("image_std")
    # A processor that names no numbers leaves values between 0 and 1.
    if (plain.get("do_normalize") is None and mean is None) or plain.get("do_normalize") is False:
        return (0.0, 0.0, 0.0), (255.0, 255.0, 255.0), bgr
    factor = float(plain.get("rescale_factor") or 1 / 255) if plain.get("do_rescale", True) else 1.0
    if mean is None or std is None:
        return None, None, bgr
    mean, std = (tuple(float(v) / factor for v in values) for values in (mean, std))
    # Ours are red first, as are the bands of the images here.
    return (mean[::-1], std[::-1], bgr) if bgr else (mean, std, bgr)


def read_json(path: Path) -> dict[str, Any]:
    """Read a file of a model folder.

    Raises:
        ModelFileError: it is none, or holds no keys with values (a pointer left by Git LFS, say).
    """
    try:
        plain = json.loads(path.read_text(encoding="utf-8"))
        if isinstance(plain, dict):
            return plain
        found = type(plain).__name__
    except (ValueError, OSError) as error:
        found = str(error)
    raise ModelFileError(path, expected="JSON with keys and values", found=found, do="Copy the file again.")


def _from_catalogue(name: str, weights: str) -> Source:
    """Find the weights that a library offers for a network under one of our four words."""
    source = origin(name)
    if source == "torchvision":
        return _from_torchvision(name, weights)
    if source == "transformers" and name.startswith("segformer-") and weights in _NVIDIA_NAMES:
        repository = _NVIDIA_NAMES[weights].format(size=name[10:], side=640 if name.endswith("b5") else 512)
        return replace(_from_folder(downloaded(repository), repository), license=NVIDIA)
    if source == "segmentation_models.pytorch" and weights == "imagenet":
        return _from_smp(parts(name)[1])
    raise ConfigError(
        "model.weights",
        expected=f"weights that there are for {name}",
        found=weights,
        do="See `pixelwise models`, or name a file.",
    )


def _known_license(name: str) -> str:
    """Give the licence of a catalogue's weights where it is known without fetching them."""
    source = origin(name)
    if source == "transformers":
        return NVIDIA
    return license_of_encoder(parts(name)[1]) if source == "segmentation_models.pytorch" else ""


_NVIDIA_NAMES = {
    "imagenet": "nvidia/mit-{size}",
    "ade20k": "nvidia/segformer-{size}-finetuned-ade-{side}-{side}",
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
        raise unreachable(
            f"{weights} weights of {name}", found.url, "~/.cache/torch/hub/checkpoints/", error
        ) from error
    if weights == "imagenet" and backbone == "mobilenet_v3_large":
        tensors = {key.removeprefix("features."): tensor for key, tensor in tensors.items()}
    classes = tuple(found.meta["categories"]) if weights == "coco" else None
    return Source(found.url, tensors, "BSD-3-Clause", *IMAGENET, classes)


def _from_smp(encoder: str) -> Source:
    """Take the encoder's weights from where segmentation_models.pytorch, or timm, keeps them."""
    if encoder.startswith("tu-"):
        import timm

        config = timm.get_pretrained_cfg(encoder[3:])
        if config is None or not config.hf_hub_id:
            raise ConfigError("model.weights", expected=f"weights for {encoder}", found="none", do="Name a file.")
        found = _from_folder(downloaded(config.hf_hub_id), config.hf_hub_id)
        numbers = (tuple(255.0 * v for v in values) for values in (config.mean, config.std))
        mean, std = (found.mean, found.std) if found.mean else numbers
        return replace(found, mean=mean, std=std, license=config.license or found.license)
    from segmentation_models_pytorch.encoders import encoders

    kind, settings = kind_of_encoder(encoder), encoders.get(encoder, {}).get("pretrained_settings", {})
    if kind not in settings:
        raise ConfigError("model.weights", expected=f"weights for {encoder}", found="none", do="Name a file.")
    repository = settings[kind]["repo_id"]
    found = _from_folder(downloaded(repository, settings[kind].get("revision")), repository)
    return replace(found, license=license_of_encoder(encoder))
