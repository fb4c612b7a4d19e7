"""Make what a run works with from its configuration: model with its weights, stream, loss, card, predictor.

Comes in: a resolved configuration and an opened data set. Goes out: the parts of a run, each a function of configuration,
data and seed. Knows nothing of steps, checkpoints or how the configuration was derived.
"""

from __future__ import annotations

import difflib
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

import pixelwise.config as configs
from pixelwise.config import Config
from pixelwise.datasets.dataset import Dataset, DataSplits
from pixelwise.errors import ConfigError, DataError
from pixelwise.evaluation import quick_miou
from pixelwise.inference.predictor import Predictor
from pixelwise.inference.torch_backend import TorchBackend
from pixelwise.losses import CombinedLoss, class_weights, combined_loss
from pixelwise.models import catalogue
from pixelwise.models.base import SegmentationModel
from pixelwise.models.fetching import is_hub_name
from pixelwise.models.pretrained import Report, Source, fill, matched
from pixelwise.models.sources import WORDS, find_weights, folder_of, read_json
from pixelwise.models.transformers import CONFIG
from pixelwise.models.weights import CARD, ModelCard, save_model
from pixelwise.training.loader import Crops
from pixelwise.training.loop import Work
from pixelwise.training.optim import begin_at_prior
from pixelwise.training.plan import Weights
from pixelwise.training.transforms import CropTransform
from pixelwise.types import Fingerprint, ModelSpec

MODEL = "model"


def require_device(config: Config) -> None:
    """Refuse a device that torch cannot use here.

    Raises:
        ConfigError: it cannot.
    """
    name = config.train.device or "cpu"
    try:
        # The losses sum up in float64, which not every device knows.
        torch.empty(1, dtype=torch.float64, device=name)
    except (RuntimeError, AssertionError, TypeError) as error:
        raise ConfigError(
            "train.device",
            expected="a device that torch can use here",
            found=f"{name} ({' '.join(str(error).split())[:120]})",
            do="Say --set train.device=cpu, or go on where there is such a device.",
        ) from error


def require_norms(config: Config, model: SegmentationModel) -> None:
    """Refuse batches so small that batch norm has a single value per channel where the network is coarsest.

    Raises:
        ConfigError: they are.
    """
    batch, crop = config.train.batch_size or 1, config.train.crop or (1, 1)
    cells = [-(-side // model.stride) for side in crop]
    # Networks of other libraries use their statistics there: see `models.base.ForgivingBatchNorm2d`.
    if config.model.name == "unet" and batch * cells[0] * cells[1] < 2:
        raise ConfigError(
            "train.batch_size",
            expected=f"at least 2, or crops larger than the network's stride of {model.stride} pixels",
            found=f"{batch} crop of {crop[0]}×{crop[1]}",
            do="Raise one of the two: batch norm needs two values per channel.",
        )


def require_counted(val: Dataset) -> None:
    """Refuse a validation part in which no pixel counts: nothing could be called best.

    Raises:
        DataError: it has none.
    """
    for index in range(len(val)):
        mask = val.read(index).truth(val.labels.ignore_index)
        if mask is not None and (mask != val.labels.ignore_index).any():
            return
    raise DataError(
        "val masks",
        expected="at least one pixel that counts",
        found=f"only ignored ones in {len(val)} masks",
        do="Name another val part, or correct ignore_index in labels.yaml.",
    )


def named_model(config: Config) -> Config:
    """Settle which network is meant.

    A folder with a checkpoint of transformers, or its name on the Hub, given as the model's name, is configuration and
    weights. Weights of our own bring the sizes of their network.

    Raises:
        ConfigError, ResourceError: the Hub cannot be reached, or the licence has not been accepted.
    """
    wanted = config.model
    architecture = catalogue.parts(wanted.name)[0]
    known = architecture in catalogue.SMP_ARCHITECTURES or wanted.name in catalogue.available()
    # A name that is nearly an architecture's, and no folder, was meant as one: `build_model` says which.
    near = difflib.get_close_matches(architecture.lower(), catalogue.SMP_ARCHITECTURES, 1, 0.75)
    meant = known or (bool(near) and not Path(wanted.name).exists())
    folder = None if meant else folder_of(wanted.name, accept_license=wanted.accept_license)
    if folder is not None and not (folder / CONFIG).is_file() and (folder / CARD).is_file():
        raise ConfigError(
            "model.name",
            expected="the name of a network, or a checkpoint of transformers",
            found=f"{wanted.name}, a model of pixelwise",
            do="Begin with its weights: --weights, and --model as its model.json says.",
        )
    if folder is not None and (folder / CONFIG).is_file():
        plain = read_json(folder / CONFIG)
        dropped = ("id2label", "label2id", "architectures", "torch_dtype", "dtype")
        kept = {key: value for key, value in plain.items() if key not in dropped}
        weights = wanted.weights or wanted.name
        config = configs.replace(config, model={"name": "transformers", "config": kept, "weights": weights})
    return _sized(_placed(config))


def _placed(config: Config) -> Config:
    """Write a local path in full: a run goes on from any folder."""
    weights = config.model.weights
    if weights in (None, "none", *WORDS) or is_hub_name(weights) or not Path(weights).exists():
        return config
    return configs.replace(config, model={"weights": str(Path(weights).resolve())})


def _sized(config: Config) -> Config:
    """Take what a network's size is from the model folder that its weights come from, where nobody chose otherwise."""
    wanted = config.model.weights
    if wanted is None or config.model.name not in ("unet", "transformers"):
        return config
    folder = folder_of(wanted, accept_license=config.model.accept_license)
    if folder is None or not (folder / CARD).is_file():
        return config
    architecture = ModelCard.from_dict(read_json(folder / CARD), folder).architecture
    if architecture["name"] != config.model.name:
        return config
    sizes = {
        key: value
        for key in ("features", "up", "stem", "config")
        if (value := architecture["arguments"].get(key)) is not None and getattr(config.model, key) is None
    }
    return configs.replace(config, model=sizes)


def pretrained(config: Config) -> Source | None:
    """Find the weights that the configuration names; None where it names none.

    Raises:
        ConfigError, ModelFileError, ResourceError: see `models.sources.find_weights`.
    """
    wanted = config.model.weights
    if wanted in (None, "none"):
        return None
    return find_weights(config.model.name, wanted, accept_license=config.model.accept_license)


def begins_with(config: Config, train: Dataset, facts: Fingerprint, source: Source) -> Weights:
    """Say what training begins with, before anything is built: which parts of the network the weights leave fresh.

    Args:
        config: with the network's size settled.
        train: its classes decide what becomes of the head.
        facts: of the training part.
        source: the weights.
    """
    model = catalogue.build_empty(config.model.name, **arguments(config, train, facts))
    report = matched(model, source, keep_head=_keeps_head(source, train))[1]
    form = (source.mean, source.std, source.dtype)
    fresh = (report.encoder_only, report.head_new)
    return Weights(str(config.model.weights), source.license, *form, *fresh, source.clip)


def _keeps_head(source: Source, train: Dataset) -> bool:
    """Refuse a head that knows as many classes, but others: it would have to unlearn them first."""
    return source.classes in (None, train.labels.names)


def parts(
    config: Config, train: Dataset, facts: Fingerprint, source: Source | None
) -> tuple[Crops, SegmentationModel, CombinedLoss, Report | None]:
    """Make stream, model and loss; with a source, its weights are put into the model, and the report says which."""
    labels, settings = train.labels, config.train
    mean, std = tuple(config.model.mean or ()), tuple(config.model.std or ())
    if len(mean) != facts.channels or len(std) != facts.channels:
        raise ConfigError(
            "model.mean, model.std",
            expected=f"{facts.channels} values each",
            found=f"{len(mean)}, {len(std)}",
            do="Give one per band.",
        )
    form = (facts.channels, facts.dtype)
    crops = Crops(train, transform(config, train), settings.seed, settings.cache or False, form)
    torch.manual_seed(settings.seed)
    model = catalogue.build_model(config.model.name, **arguments(config, train, facts))
    require_norms(config, model)
    weights = class_weights(config.loss.class_weights or "none", facts.pixel_counts, facts.image_counts)
    begin_at_prior(model, [weight * count for weight, count in zip(weights, facts.pixel_counts, strict=True)])
    report = fill(model, source, keep_head=_keeps_head(source, train)) if source is not None else None
    loss = combined_loss(
        config.loss,
        num_classes=labels.num_classes,
        ignore_index=labels.ignore_index,
        class_weights=torch.tensor(weights, dtype=torch.float32, device=settings.device),
    )
    return crops, model, loss, report


def transform(config: Config, train: Dataset) -> CropTransform:
    """Give what turns an image into a crop."""
    crop, share = config.train.crop or (256, 256), config.train.class_crops or 0.0
    mean, std = tuple(config.model.mean or ()), tuple(config.model.std or ())
    return CropTransform(crop, config.augment, share, train.labels.ignore_index, mean, std)


def arguments(config: Config, train: Dataset, facts: Fingerprint) -> dict[str, Any]:
    """Give what `build_model` is called with: what the network knows of the `model` section, and the data's sizes."""
    known = catalogue.parameters(config.model.name)
    own = {key: value for key, value in config.model.model_dump().items() if key in known and value is not None}
    if own.get("clip") == "none":
        del own["clip"]
    return {**own, "in_channels": facts.channels, "num_classes": train.labels.num_classes}


def model_card(config: Config, splits: DataSplits, facts: Fingerprint) -> ModelCard:
    """Describe the model for whoever will use it."""
    assert splits.train is not None
    return ModelCard(
        architecture={"name": config.model.name, "arguments": arguments(config, splits.train, facts)},
        spec=ModelSpec(
            labels=splits.labels,
            channels=facts.channels,
            colour_mode=config.data.bands,
            dtype=facts.dtype,
            typical_range=_typical_range(facts),
            fill=tuple(config.model.mean or ()),
            tile=config.predict.tile or (512, 512),
            overlap=config.predict.overlap,
            mirrors=tuple(d for d in ("horizontal", "vertical") if getattr(config.augment, f"flip_{d}")),
            flips=config.predict.flips,
        ),
        license=config.model.license or "user",
        trained={
            "data": Path(config.data.root or "").name,
            "pictures": len(splits.train),
            "weights": _named_weights(config.model.weights),
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
    """Give weights a name that says something on another machine: of a local path, its last two parts."""
    text = weights or "none"
    return text if text in WORDS or is_hub_name(text) else "/".join(Path(text).parts[-2:])


def make_predictor(config: Config, model: SegmentationModel, card: ModelCard) -> Predictor:
    """Give the predictor that validates: the one that the card describes, on the run's device.

    Not in the precision of training: what is scored on the way is what the model is shipped and scored as at the end.
    """
    return Predictor(TorchBackend(model, card.spec, config.train.device or "cpu"))


def make_work(
    config: Config,
    splits: DataSplits,
    card: ModelCard,
    made: tuple[Crops, SegmentationModel, CombinedLoss],
    out: Path,
) -> Work:
    """Bring together what the loop needs; the best model goes to `out`/model."""
    val = splits.val
    assert val is not None

    def validate(averaged: SegmentationModel, check: Callable[[], None]) -> float:
        return quick_miou(val, make_predictor(config, averaged, card), stop=check)[0]

    def keep(averaged: SegmentationModel, miou: float, step: int) -> None:
        save_model(out / MODEL, averaged, replace(card, scores={"val_miou": miou, "step": step}))

    crops, model, loss = made
    return Work(config, model, loss, crops, validate, keep, out)


def validation_seconds(config: Config, model: SegmentationModel, card: ModelCard, val: Dataset) -> float:
    """Measure how long it takes to score the validation part, on three images of it."""
    few = val.subset(range(min(len(val), 3)))
    predictor = make_predictor(config, model, card)
    quick_miou(few.subset([0]), predictor)
    began = time.perf_counter()
    quick_miou(few, predictor)
    model.train()
    return (time.perf_counter() - began) / len(few) * len(val)
