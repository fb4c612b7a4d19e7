"""Build the components of a run from its configuration: model with initial weights, crops, loss, card and predictor."""

from __future__ import annotations

import difflib
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

import pixelwise.config as configs
from pixelwise.config import Config, ResolvedConfig
from pixelwise.datasets.dataset import Dataset, DataSplits
from pixelwise.errors import ConfigError, DataError
from pixelwise.evaluation import quick_miou
from pixelwise.inference.augmentation import AXES
from pixelwise.inference.predictor import Predictor
from pixelwise.inference.torch_backend import TorchBackend
from pixelwise.losses import Loss, class_weights, combined_loss
from pixelwise.models import catalogue
from pixelwise.models.base import SegmentationModel
from pixelwise.models.card import CARD, ModelCard, read_card
from pixelwise.models.hub import is_hub_name
from pixelwise.models.pretrained import Report, Source, fill, matched
from pixelwise.models.sources import WORDS, find_weights, folder_of, read_json
from pixelwise.models.transformers import CONFIG
from pixelwise.models.weights import save_model
from pixelwise.training.features import FeatureBank
from pixelwise.training.finetune import is_encoder_frozen
from pixelwise.training.loader import Crops, Transform
from pixelwise.training.loop import Work
from pixelwise.training.optim import begin_at_prior
from pixelwise.training.plan import InitialWeights
from pixelwise.training.transforms import CropTransform
from pixelwise.training.validation import CachedImages, image_memory, seconds_per_image, spread, validated_images
from pixelwise.training.volume_crops import VolumeTransform
from pixelwise.types import Fingerprint, ModelSpec

MODEL = "model"
# Keys of the model section that are the size of a network.
_SIZES = {
    "unet": ("features", "up", "stem", "flat"),
    "fpn": ("encoder", "width", "fine", "norms"),
    "transformers": ("config",),
}


@dataclass(frozen=True)
class Components:
    """The parts of a run that do not depend on its length.

    Args:
        crops: the training images.
        model: with initial weights.
        loss: to minimise.
        report: which pretrained weights fitted the model; None without pretrained weights.
    """

    crops: Crops
    model: SegmentationModel
    loss: Loss
    report: Report | None = None


def require_device(name: str) -> None:
    """Raise if torch cannot use a device.

    Raises:
        ConfigError: the device does not exist or lacks float64, in which the losses are summed.
    """
    try:
        torch.empty(1, dtype=torch.float64, device=name)
    except (RuntimeError, AssertionError, TypeError) as error:
        raise ConfigError(
            "train.device",
            expected="a device that torch can use on this machine",
            found=f"{name} ({' '.join(str(error).split())[:120]})",
            do="Add --set train.device=cpu, or run on a machine with such a device.",
        ) from error


def require_norms(config: ResolvedConfig, model: SegmentationModel) -> None:
    """Raise if batch norm would have a single value per channel at the coarsest scale.

    Raises:
        ConfigError: batch and crop are too small.
    """
    batch, crop = config.train.batch_size, config.train.crop
    require_axes("train.crop", crop, config.model.dimensions)
    cells = [-(-side // stride) for side, stride in zip(crop, model.strides, strict=True)]
    # Networks of other libraries fall back to running statistics: see `models.base.SafeBatchNorm2d`.
    if config.model.name == "unet" and batch * math.prod(cells) < 2:
        raise ConfigError(
            "train.batch_size",
            expected=f"at least 2, or crops larger than the network's stride of {model.stride} pixels",
            found=f"{batch} crop of {'×'.join(map(str, crop))}",
            do="Increase one of them: batch norm needs two values per channel.",
        )


def require_axes(key: str, values: Sequence[float], dimensions: int) -> None:
    """Raise if a key of the configuration does not have one value per axis.

    Raises:
        ConfigError: more or fewer.
    """
    if len(values) == dimensions:
        return
    expected = "(height, width)" if dimensions == 2 else "(depth, height, width), as for model.dimensions=3"
    raise ConfigError(key, expected=expected, found=str(list(values)), do="Give one value per axis.")


def require_annotated_pixels(val: Dataset) -> None:
    """Raise if all pixels of the validation split are ignored, since no model could be selected.

    Raises:
        DataError: there are only ignored pixels.
    """
    for index in range(len(val)):
        mask = val.read(index).truth(val.labels.ignore_index)
        if mask is not None and (mask != val.labels.ignore_index).any():
            return
    raise DataError(
        "val masks",
        expected="at least one annotated pixel",
        found=f"only ignored pixels in {len(val)} masks",
        do="Choose another validation split, or correct ignore_index in labels.yaml.",
    )


def with_network(config: Config) -> Config:
    """Return the configuration with the network and its size determined.

    `model.name` may be a folder with a transformers checkpoint, or its name on the Hub; it then provides architecture and
    weights. Weights from a model folder provide the size of the network.

    Raises:
        ConfigError, ResourceError: the Hub cannot be reached, or the licence was not accepted.
    """
    model = config.model
    architecture = catalogue.split_name(model.name)[0]
    known = architecture in catalogue.SMP_ARCHITECTURES or model.name in catalogue.available()
    # A misspelt architecture is not a Hub name: `build_model` reports the nearest valid name.
    misspelt = bool(difflib.get_close_matches(architecture.lower(), catalogue.SMP_ARCHITECTURES, 1, 0.75))
    folder = None
    if not known and not (misspelt and not Path(model.name).exists()):
        folder = folder_of(model.name, accept_license=model.accept_license)
    if folder is not None and (folder / CONFIG).is_file():
        dropped = ("id2label", "label2id", "architectures", "torch_dtype", "dtype")
        network = {key: value for key, value in read_json(folder / CONFIG).items() if key not in dropped}
        weights = model.weights or model.name
        config = configs.replace(config, model={"name": "transformers", "config": network, "weights": weights})
    elif folder is not None and (folder / CARD).is_file():
        raise ConfigError(
            "model.name",
            expected="the name of a network, or a transformers checkpoint",
            found=f"{model.name}, a pixelwise model",
            do="Use it with --weights, and --model with the architecture in its model.json.",
        )
    return _with_size_of_weights(_with_absolute_weights(config))


def _with_absolute_weights(config: Config) -> Config:
    """Make a local path of weights absolute, so that a run can be resumed from any folder."""
    weights = config.model.weights
    if weights in (None, "none", *WORDS) or is_hub_name(weights) or not Path(weights).exists():
        return config
    return configs.replace(config, model={"weights": str(Path(weights).resolve())})


def architecture_of_weights(config: Config) -> Mapping[str, Any] | None:
    """Return the architecture in the card of the weights, {"name": …, "arguments": {…}}; None if they are no model folder."""
    model = config.model
    folder = None if model.weights is None else folder_of(model.weights, accept_license=model.accept_license)
    return read_card(folder).architecture if folder is not None and (folder / CARD).is_file() else None


def _with_size_of_weights(config: Config) -> Config:
    """Take unset sizes of the network from the model folder of its weights."""
    architecture = architecture_of_weights(config) if config.model.name in _SIZES else None
    if architecture is None or architecture["name"] != config.model.name:
        return config
    sizes = {
        key: value
        for key in _SIZES[config.model.name]
        if (value := architecture["arguments"].get(key)) is not None and getattr(config.model, key) is None
    }
    return configs.replace(config, model=sizes)


def pretrained(config: Config) -> Source | None:
    """Return the pretrained weights that the configuration names, if any.

    Raises:
        ConfigError, ModelFileError, ResourceError: see `models.sources.find_weights`.
    """
    weights = config.model.weights
    if weights in (None, "none"):
        return None
    return find_weights(
        config.model.name, weights, encoder=config.model.encoder, accept_license=config.model.accept_license
    )


def initial_weights(config: Config, train: Dataset, facts: Fingerprint, source: Source) -> InitialWeights:
    """Describe the pretrained weights, and which layers of the network they do not contain."""
    model = catalogue.build_empty(config.model.name, **arguments(config, train, facts))
    report = matched(model, source, keep_head=_keeps_head(source, train))[1]
    return InitialWeights(
        name=str(config.model.weights),
        license=source.license,
        mean=source.mean,
        std=source.std,
        dtype=source.dtype,
        encoder_only=report.encoder_only,
        head_new=report.head_new,
        clip=source.clip,
        origin=source.origin,
    )


def _keeps_head(source: Source, train: Dataset) -> bool:
    """Whether to keep the head: not if it was trained on other classes, even if there are as many."""
    return source.classes in (None, train.labels.names)


def build(config: ResolvedConfig, train: Dataset, facts: Fingerprint, source: Source | None) -> Components:
    """Build crops, model and loss; put the weights of `source` into the model.

    Raises:
        ConfigError: mean and std do not fit the bands, or batch and crop are too small for batch norm.
    """
    settings = config.train
    mean, std = config.model.mean, config.model.std
    if len(mean) != facts.channels or len(std) != facts.channels:
        raise ConfigError(
            "model.mean, model.std",
            expected=f"{facts.channels} values each",
            found=f"{len(mean)}, {len(std)}",
            do="Give one value per band.",
        )
    if config.model.spacing is not None:
        if config.model.dimensions == 2:
            do = "Remove it, or add --set model.dimensions=3."
            raise ConfigError(
                "model.spacing", expected="none in two dimensions", found=str(config.model.spacing), do=do
            )
        require_axes("model.spacing", config.model.spacing, config.model.dimensions)
    spec = input_spec(config, train, facts)
    form = (facts.channels, facts.dtype)
    crops = Crops(train, transform(config, train), settings.seed, settings.cache, form, spec)
    torch.manual_seed(settings.seed)
    model = catalogue.build_model(config.model.name, **arguments(config, train, facts))
    require_norms(config, model)
    weights = class_weights(config.loss.class_weights, facts.pixel_counts, facts.image_counts)
    begin_at_prior(model, [weight * count for weight, count in zip(weights, facts.pixel_counts, strict=True)])
    report = fill(model, source, keep_head=_keeps_head(source, train)) if source is not None else None
    loss = combined_loss(
        config.loss,
        num_classes=train.labels.num_classes,
        ignore_index=train.labels.ignore_index,
        class_weights=torch.tensor(weights, dtype=torch.float32, device=settings.device),
    )
    return Components(crops, model, loss, report)


def transform(config: ResolvedConfig, train: Dataset) -> Transform:
    """Return the transform that draws crops.

    Raises:
        ConfigError: an augmentation that exists for volumes only.
    """
    spacing = tuple(config.model.spacing or (1.0, 1.0, 1.0))
    whole = config.model.dimensions == 3
    for key in ("flip_depth", "elastic"):
        value = getattr(config.augment, key)
        if value and not whole:
            raise ConfigError(f"augment.{key}", expected="0 in two dimensions", found=str(value), do="Remove it.")
    draw: Callable[..., Transform] = partial(VolumeTransform, spacing=spacing) if whole else CropTransform
    return draw(
        crop=config.train.crop,
        augment=config.augment,
        class_crops=config.train.class_crops,
        ignore_index=train.labels.ignore_index,
        mean=tuple(config.model.mean),
        std=tuple(config.model.std),
    )


def arguments(config: Config, train: Dataset, facts: Fingerprint) -> dict[str, Any]:
    """Return the arguments of `build_model`: values of the `model` section that the network takes, bands and classes."""
    known = catalogue.parameters(config.model.name)
    chosen = {key: value for key, value in config.model.model_dump().items() if key in known and value is not None}
    if chosen.get("clip") == "none":
        del chosen["clip"]
    if chosen.get("dimensions") == 2:
        chosen = {key: value for key, value in chosen.items() if key not in ("dimensions", "flat")}
    return {**chosen, "in_channels": facts.channels, "num_classes": train.labels.num_classes}


def input_spec(config: Config, train: Dataset, facts: Fingerprint) -> ModelSpec:
    """Return how images are prepared, for training as for prediction."""
    model = config.model
    own_intensity = model.intensity == "image"
    planes = [record.plane for record in train.records if record.plane is not None]
    neighbours = config.data.neighbours
    directions = {plane.across for plane in planes} if neighbours or train.records[0].stack else set()
    return ModelSpec(
        labels=train.labels,
        channels=facts.channels,
        dimensions=model.dimensions or 2,
        colour_mode=config.data.bands,
        # Images of any kind have the same values once they are normalised.
        dtype=None if own_intensity else facts.dtype,
        typical_range=None if own_intensity else _typical_range(facts),
        fill=tuple(model.mean or ()),
        intensity=model.intensity or "data",
        spacing=None if model.spacing is None else tuple(model.spacing),
        neighbours=neighbours,
        across=directions.pop() if len(directions) == 1 else None,
    )


def model_card(config: Config, splits: DataSplits, facts: Fingerprint) -> ModelCard:
    """Return the card of the model."""
    assert splits.train is not None
    return ModelCard(
        architecture={"name": config.model.name, "arguments": arguments(config, splits.train, facts)},
        spec=replace(
            input_spec(config, splits.train, facts),
            nodata=None if config.data.nodata is None else float(config.data.nodata),
            tile=config.predict.tile or (512,) * (config.model.dimensions or 2),
            overlap=config.predict.overlap,
            mirrors=tuple(d for d in AXES if getattr(config.augment, f"flip_{d}")),
            flips=config.predict.flips,
            trained_spacing=facts.spacing if facts.spacing_unit != "px" else None,
            trained_unit=facts.spacing_unit,
            trained_bands=facts.bands,
        ),
        rules=config.measure.rules,
        license=config.model.license or "user",
        trained={
            "data": Path(config.data.root or "").name,
            "images": len(splits.train),
            "weights": _named_weights(config.model.weights),
            **_terms_of_weights(config),
        },
        data_hash=facts.hash,
        names_hash=splits.train.names_hash(),
    )


def _typical_range(facts: Fingerprint) -> tuple[float, float] | None:
    """Return the 0.5 % and 99.5 % percentiles over all bands; None for fingerprints of older versions."""
    if not facts.percentiles:
        return None
    return min(low for low, _, _ in facts.percentiles), max(high for _, _, high in facts.percentiles)


def _named_weights(weights: str | None) -> str:
    """Return a name of weights that makes sense on another machine: of a local path, the last two components."""
    text = weights or "none"
    return text if text in WORDS or is_hub_name(text) else "/".join(Path(text).parts[-2:])


def _terms_of_weights(config: Config) -> dict[str, str | None]:
    """Return licence and origin of the initial weights; nothing for random weights."""
    if config.model.weights in (None, "none"):
        return {}
    return {"weights_license": config.model.license, "weights_origin": config.model.weights_origin}


def make_predictor(config: Config, model: SegmentationModel, card: ModelCard) -> Predictor:
    """Return the predictor for validation, in full precision, so that validation scores are those of the final model."""
    return Predictor(TorchBackend(model, card.spec, config.train.device or "cpu"))


def make_bank(config: ResolvedConfig, components: Components, out: Path) -> FeatureBank | None:
    """Return the store of features of a frozen encoder; None if it is not frozen, or `train.copies` is 0.

    Raises:
        ConfigError: the network does not compute its encoder separately.
    """
    model, train = components.model, config.train
    if not train.copies or not is_encoder_frozen(train, len(model.encoder_stages()), 0):
        return None
    if not model.separable:
        raise ConfigError(
            "train.copies",
            expected="a network whose features can be stored",
            found=f"{train.copies} with {config.model.name}",
            do="Set it to 0, or choose another network.",
        )
    return FeatureBank(components.crops, model, train, out)


def make_work(config: ResolvedConfig, val: Dataset, card: ModelCard, components: Components, out: Path) -> Work:
    """Return the input of the training loop, which saves the best model in `out`/model."""
    images = CachedImages(spread(val, validated_images(config.train, len(val))), image_memory())

    def validate(averaged: SegmentationModel, check: Callable[[], None]) -> float:
        return quick_miou(images, make_predictor(config, averaged, card), stop=check)[0]

    def keep(averaged: SegmentationModel, miou: float, step: int) -> None:
        save_model(out / MODEL, averaged, replace(card, scores={"val_miou": miou, "step": step}))

    bank = make_bank(config, components, out)
    return Work(config, components.model, components.loss, components.crops, validate, keep, out, bank)


def validation_seconds(config: Config, model: SegmentationModel, card: ModelCard, val: Dataset) -> float:
    """Estimate the seconds per image of a validation."""
    predictor = make_predictor(config, model, card)
    seconds = seconds_per_image(lambda split: quick_miou(split, predictor), val)
    model.train()
    return seconds
