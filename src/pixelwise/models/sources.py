"""Find pretrained weights and their licence: by a word such as `imagenet`, a folder, a file, or a Hub name.

Only what the user names is downloaded. No pickle is opened except files of torchvision and of `packaged`, whose hash is
checked.
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
from pixelwise.models import packaged
from pixelwise.models.card import CARD, WEIGHTS, read_card
from pixelwise.models.catalogue import origin, split_name
from pixelwise.models.hub import download, is_hub_name, unreachable
from pixelwise.models.licenses import (
    NVIDIA,
    kind_of_encoder,
    license_of_encoder,
    license_of_repository,
    require_license,
)
from pixelwise.models.pretrained import Source
from pixelwise.models.readme import README
from pixelwise.models.transformers import CONFIG, PROCESSOR

# Mean and standard deviation of ImageNet that all three libraries use: red, green, blue, 0…255.
IMAGENET = ((123.675, 116.28, 103.53), (58.395, 57.12, 57.375))
WORDS = ("imagenet", "coco", "ade20k", "cityscapes")
_FILES = (".safetensors", ".pt", ".pth", ".bin", ".ckpt")


def find_weights(name: str, weights: str, *, encoder: str | None = None, accept_license: bool = False) -> Source:
    """Return pretrained weights for the network `name`.

    Args:
        name: as for `build_model`.
        weights: imagenet, coco, ade20k, cityscapes; a folder with `model.safetensors`; a .safetensors file; or
            OWNER/NAME on the Hub.
        encoder: name in timm, for networks with an encoder that is not part of `name`.
        accept_license: whether to accept weights that exclude commercial use.

    Raises:
        ConfigError: the network has no such weights, their package is not installed, or their licence was not accepted.
        ModelFileError: the file or folder cannot be used.
        ResourceError: the weights are not on this machine and cannot be downloaded.
    """
    folder = folder_of(weights, accept_license=accept_license)
    if weights in WORDS:
        encoder = f"tu-{encoder}" if encoder else _encoder_of(name)
        require_license(_known_license(name, encoder), accept_license, f"{weights} of {name}")  # before downloading
        found = _from_catalogue(name, encoder, weights)
    elif folder is not None:
        found = _from_folder(folder, weights)
    elif Path(weights).is_file() or Path(weights).suffix.lower() in _FILES:
        found = _from_file(Path(weights))
    else:
        raise _no_such_weights(weights)
    require_license(found.license, accept_license, weights)
    return replace(found, origin=found.origin or _address(found.where))


def _address(where: str) -> str:
    """Return the address of published weights; "" for files on this machine, whose paths are private."""
    if is_hub_name(where):
        return f"https://huggingface.co/{where}"
    return where if where.startswith("https://") else ""


def folder_of(weights: str, *, accept_license: bool = False) -> Path | None:
    """Return the folder with the weights, downloaded from the Hub if necessary; None if `weights` is a word or a file.

    Raises:
        ConfigError: NVIDIA's weights on the Hub, whose licence was not accepted.
        ModelFileError, ResourceError: see `hub.download`.
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
    return download(weights)


def _no_such_weights(weights: str) -> ConfigError:
    return ConfigError(
        "model.weights",
        expected="none, imagenet, coco, ade20k, cityscapes, a folder, a .safetensors file or OWNER/NAME on the Hub",
        found=repr(weights),
        do="Choose one of these; `pixelwise models` lists the weights of each network.",
    )


def _from_file(path: Path) -> Source:
    if not path.is_file():
        raise ModelFileError(path, expected="a .safetensors file", found="nothing", do="Check the path.")
    if path.suffix != ".safetensors":
        raise ModelFileError(
            path,
            expected="a .safetensors file",
            found=f"{path.suffix or 'no suffix'}, which may be a pickle that runs arbitrary code",
            do="If you trust its author, run: pixelwise import-weights FILE --out FILE.safetensors",
        )
    return Source(str(path), _tensors(path))


def _tensors(path: Path) -> dict[str, Tensor]:
    try:
        return safetensors.torch.load_file(path)
    except (safetensors.SafetensorError, OSError) as error:
        raise ModelFileError(path, expected="safetensors", found=str(error), do="Copy the file again.") from error


def _from_folder(folder: Path, where: object) -> Source:
    """Read a model folder (model.json) or a transformers checkpoint (config.json), each with model.safetensors."""
    if not (folder / WEIGHTS).is_file():
        raise ModelFileError(
            where,
            expected=f"a folder with {WEIGHTS}",
            found=", ".join(sorted(p.name for p in folder.iterdir())[:5]) or "an empty folder",
            do="Save the checkpoint as safetensors: model.save_pretrained(folder).",
        )
    tensors = _tensors(folder / WEIGHTS)
    if (folder / CARD).is_file():
        card = read_card(folder)
        return Source(
            str(where),
            tensors,
            card.license,
            card.mean,
            card.std,
            card.labels.names,
            card.spec.dtype or "uint8",
            clip=card.clip,
            origin=str((card.trained or {}).get("weights_origin") or ""),
        )
    config = read_json(folder / CONFIG) if (folder / CONFIG).is_file() else {}
    if (folder / PROCESSOR).is_file():
        mean, std, bgr = _processor_normalisation(folder)
    else:
        mean, std, bgr = *_encoder_normalisation(config), False
    license = license_of_repository(folder / README, config, str(where))
    return Source(str(where), tensors, license, mean, std, _classes(config), bgr=bgr)


def _classes(config: Mapping[str, Any]) -> tuple[str, ...] | None:
    names = config.get("id2label")
    return tuple(str(names[key]) for key in sorted(names, key=int)) if isinstance(names, dict) else None


def _encoder_normalisation(config: Mapping[str, Any]) -> tuple[tuple[float, ...] | None, tuple[float, ...] | None]:
    """Return mean and std (raw values, 0…255) of an encoder of timm or segmentation_models.pytorch."""
    plain = config.get("pretrained_cfg", config)
    mean, std = plain.get("mean"), plain.get("std")
    if not isinstance(mean, list) or not isinstance(std, list):
        return None, None
    scale = 255 / float((plain.get("input_range") or [0, 1])[1])
    return tuple(float(v) * scale for v in mean), tuple(float(v) * scale for v in std)


def _processor_normalisation(folder: Path) -> tuple[tuple[float, ...] | None, tuple[float, ...] | None, bool]:
    """Return mean and std (raw values, 0…255) of the processor of a checkpoint, and whether its bands are in BGR order."""
    plain = read_json(folder / PROCESSOR)
    bgr = bool(plain.get("do_flip_channel_order"))
    mean, std = plain.get("image_mean"), plain.get("image_std")
    # By default, a processor only scales values to 0…1.
    if (plain.get("do_normalize") is None and mean is None) or plain.get("do_normalize") is False:
        return (0.0, 0.0, 0.0), (255.0, 255.0, 255.0), bgr
    factor = float(plain.get("rescale_factor") or 1 / 255) if plain.get("do_rescale", True) else 1.0
    if mean is None or std is None:
        return None, None, bgr
    mean, std = (tuple(float(v) / factor for v in values) for values in (mean, std))
    # In RGB order, as the bands of images in pixelwise.
    return (mean[::-1], std[::-1], bgr) if bgr else (mean, std, bgr)


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON file of a model folder.

    Raises:
        ModelFileError: the file is missing or is not a JSON object (a Git LFS pointer, for example).
    """
    try:
        plain = json.loads(path.read_text(encoding="utf-8"))
        if isinstance(plain, dict):
            return plain
        found = type(plain).__name__
    except (ValueError, OSError) as error:
        found = str(error)
    raise ModelFileError(path, expected="a JSON object", found=found, do="Copy the file again.")


def _from_catalogue(name: str, encoder: str, weights: str) -> Source:
    """Return the weights that a package or the library of a network offers for one of `WORDS`."""
    if encoder and weights == "imagenet":
        return _from_smp(encoder)
    source = origin(name)
    if source == "torchvision":
        return _from_torchvision(name, weights)
    if source == "transformers" and name.startswith("segformer-") and weights in _NVIDIA_NAMES:
        repository = _NVIDIA_NAMES[weights].format(size=name[10:], side=640 if name.endswith("b5") else 512)
        return replace(_from_folder(download(repository), repository), license=NVIDIA)
    raise ConfigError(
        "model.weights",
        expected=f"weights that exist for {name}",
        found=weights,
        do="Choose weights listed by `pixelwise models`, or a file.",
    )


def _encoder_of(name: str) -> str:
    """Return the encoder of ARCHITECTURE/ENCODER; "" for other networks.

    Raises:
        ConfigError: an unknown name.
    """
    return split_name(name)[1] if origin(name) == "segmentation_models.pytorch" else ""


def _known_license(name: str, encoder: str) -> str:
    """Return the licence of the weights of a network if it is known before downloading them; otherwise ""."""
    if encoder:
        return license_of_encoder(encoder)
    return NVIDIA if origin(name) == "transformers" else ""


_NVIDIA_NAMES = {
    "imagenet": "nvidia/mit-{size}",
    "ade20k": "nvidia/segformer-{size}-finetuned-ade-{side}-{side}",
    "cityscapes": "nvidia/segformer-{size}-finetuned-cityscapes-1024-1024",
}


def _from_torchvision(name: str, weights: str) -> Source:
    """Download weights of torchvision: the hash in the file name is checked, and only tensors are read."""
    from torchvision.models import get_model_weights

    from pixelwise.models.torchvision import NAMES

    builder = NAMES[name][0]
    backbone = {"resnet50": "resnet50", "resnet101": "resnet101"}.get(name.partition("-")[2], "mobilenet_v3_large")
    offered = {"coco": builder, "imagenet": backbone}
    if weights not in offered:
        raise ConfigError("model.weights", expected="imagenet or coco", found=weights, do="Choose one of them.")
    found = next(w for w in get_model_weights(offered[weights]) if "COCO" in w.name or "IMAGENET1K_V1" in w.name)
    try:
        # torch prints a message about the download, but standard output is for results only.
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
    """Return the weights of an encoder of segmentation_models.pytorch or timm, from an installed package or the Hub."""
    if encoder.startswith("tu-"):
        found = packaged.find(encoder[3:])
        if found is not None:
            return found
        import timm

        config = timm.get_pretrained_cfg(encoder[3:])
        if config is None or not config.hf_hub_id:
            raise ConfigError("model.weights", expected=f"weights for {encoder}", found="none", do="Use a file.")
        found = _from_folder(download(config.hf_hub_id), config.hf_hub_id)
        if not found.mean:
            mean, std = (tuple(255.0 * v for v in values) for values in (config.mean, config.std))
            found = replace(found, mean=mean, std=std)
        return replace(found, license=config.license or found.license)
    from segmentation_models_pytorch.encoders import encoders

    kind = kind_of_encoder(encoder)
    settings = encoders.get(encoder, {}).get("pretrained_settings", {})
    if kind not in settings:
        raise ConfigError("model.weights", expected=f"weights for {encoder}", found="none", do="Use a file.")
    repository = settings[kind]["repo_id"]
    found = _from_folder(download(repository, settings[kind].get("revision")), repository)
    return replace(found, license=license_of_encoder(encoder))
