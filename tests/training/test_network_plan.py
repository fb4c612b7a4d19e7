"""The choice of the network, and the values that depend on it."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
from tests.training.test_plan import CPU, FACTS

from pixelwise.config import Config, replace
from pixelwise.training.network_plan import Machine, choose_freezing, choose_network
from pixelwise.training.plan import InitialWeights, derive
from pixelwise.types import Fingerprint

GPU = Machine("cuda", 8, True)
LITE = InitialWeights("imagenet", "Apache-2.0", (127.0,) * 3, (128.0,) * 3, encoder_only=True)


@pytest.mark.parametrize(
    ("given", "machine", "available", "network"),
    [
        ({}, CPU, True, ("fpn", "imagenet")),
        ({}, CPU, False, ("unet", "none")),
        ({}, GPU, True, ("unet", "none")),
        ({"weights": "imagenet"}, GPU, True, ("fpn", "imagenet")),
        ({"weights": "imagenet"}, CPU, False, ("fpn", "imagenet")),
        ({"weights": "none"}, CPU, True, ("unet", "none")),
        ({"weights": "a/folder"}, CPU, True, ("unet", "a/folder")),
        ({"name": "unet"}, CPU, True, ("unet", None)),
        ({"name": "fpn"}, CPU, True, ("fpn", None)),
        ({"name": "segformer-b0"}, CPU, True, ("segformer-b0", None)),
        ({"features": [8, 16]}, CPU, True, ("unet", "none")),
    ],
)
def test_the_network_is_chosen_by_device_and_installed_weights(
    given: dict[str, Any], machine: Machine, available: bool, network: tuple[str, str | None]
) -> None:
    config, reasons = choose_network(replace(Config(), model=given), FACTS, machine, available)
    assert (config.model.name, config.model.weights) == network
    assert ("model.name" in reasons) is ("name" not in given)
    assert ("model.weights" in reasons) is (network[1] is not None and "weights" not in given)
    assert (config.model.encoder == "tf_efficientnet_lite0") is (network[0] == "fpn")


@pytest.mark.parametrize(
    ("median", "given", "network"),
    [
        ((36, 50), {}, "unet"),
        ((63, 500), {}, "unet"),
        ((500, 63), {}, "unet"),
        ((64, 64), {}, "fpn"),
        ((36, 50), {"weights": "imagenet"}, "fpn"),
        ((36, 50), {"name": "fpn"}, "fpn"),
    ],
)
def test_tiny_images_are_trained_from_scratch(median: tuple[int, int], given: dict[str, Any], network: str) -> None:
    facts = dataclasses.replace(FACTS, sizes=((8, 8), median, (900, 900)))
    config, reasons = choose_network(replace(Config(), model=given), facts, CPU, True)
    assert config.model.name == network
    if not given and network == "unet":
        assert reasons["model.name"].startswith(f"images of {median[0]}×{median[1]} are too small")


def derived(
    facts: Fingerprint = FACTS, weights: InitialWeights | None = LITE, **model: Any
) -> tuple[Config, dict[str, str]]:
    name = {"name": "fpn", "weights": "none" if weights is None else "imagenet"}
    config = choose_network(replace(Config(), model=name | model), facts, CPU, True)[0]
    return derive(config, facts, CPU, weights)


def test_pretrained_encoders_learn_slowly() -> None:
    config, reasons = derived()
    train, model = config.train, config.model
    assert (model.norms, model.mean, model.std) == ("folded", [127.0] * 3, [128.0] * 3)
    assert train.encoder_rate is not None
    assert train.encoder_rate < 1
    assert train.layer_decay == train.head_rate == 1.0
    assert {"train.encoder_rate", "model.norms", "model.fine"} <= reasons.keys()


@pytest.mark.parametrize(
    ("given", "model", "steps", "expected"),
    [
        ({}, {}, 1000, ("encoder", 0.1, 0.1)),
        ({}, {}, 150, ("encoder", 0.1, 0.1)),
        ({}, {}, 149, ("encoder", None, None)),
        ({"unfreeze_start": 0.3}, {}, 1000, ("encoder", 0.3, 0.3)),
        ({"unfreeze_start": 0.0}, {}, 1000, ("encoder", 0.0, 0.1)),
        ({"freeze": "none"}, {}, 5, ("none", None, None)),
        ({"freeze": 3}, {}, 5, (3, None, None)),
        ({"unfreeze": 0.5}, {}, 1000, ("encoder", None, 0.5)),
        ({}, {"weights": "none"}, 5, ("none", None, None)),
        ({}, {"name": "unet"}, 5, ("none", None, None)),
        ({}, {"name": "unet/resnet34", "weights": "imagenet"}, 5, ("none", None, None)),
    ],
)
def test_how_long_the_encoder_is_frozen(
    given: dict[str, Any], model: dict[str, Any], steps: int, expected: tuple[Any, Any, Any]
) -> None:
    config = replace(Config(), model={"name": "fpn", "weights": "imagenet"} | model, train=given)
    chosen, reasons = choose_freezing(config, steps)
    train = chosen.train
    assert (train.freeze, train.unfreeze_start, train.unfreeze) == expected
    assert ("train.freeze" in reasons) is ("freeze" not in given)


def test_random_encoders_are_trained_with_their_norms() -> None:
    train, model = (config := derived(weights=None)[0]).train, config.model
    assert (model.norms, train.encoder_rate) == ("batch", 1.0)
    assert model.mean == list(FACTS.mean)


@pytest.mark.parametrize(
    ("counts", "thickness", "size", "fine"),
    [
        ((900, 100), (15.0, 2.4), (584, 565), True),  # vessels
        ((900, 90, 10), (80.0, 12.0, 2.0), (360, 480), False),  # one thin class among others
        ((100, 900), (2.4, 15.0), (584, 565), True),
        ((900, 100), (80.0, 25.0), (40, 50), True),  # small images
        ((900,), (80.0,), (360, 480), False),
        ((900, 0), (80.0, None), (360, 480), False),
    ],
)
def test_full_resolution_is_for_thin_classes_and_small_images(
    counts: tuple[int, ...], thickness: tuple[float | None, ...], size: tuple[int, int], fine: bool
) -> None:
    facts = dataclasses.replace(FACTS, pixel_counts=counts, image_counts=counts, thickness=thickness, sizes=(size,) * 3)
    assert derived(facts)[0].model.fine is fine


@pytest.mark.parametrize(
    ("facts", "mean", "std"),
    [
        ({}, [127.0] * 3, [128.0] * 3),
        ({"channels": 1, "mean": (90.0,), "std": (20.0,)}, [127.0], [128.0]),
    ],
)
def test_the_normalisation_of_the_weights_is_used_where_it_fits(
    facts: dict[str, Any], mean: list[float], std: list[float]
) -> None:
    model = derived(dataclasses.replace(FACTS, **facts))[0].model
    assert (model.mean, model.std) == (mean, std)


@pytest.mark.parametrize(
    "weights", [LITE, dataclasses.replace(LITE, mean=(123.675, 116.28, 103.53), std=(58.395, 57.12, 57.375))]
)
@pytest.mark.parametrize(
    "facts",
    [
        {"channels": 4, "mean": (90.0, 100.0, 50.0, 0.2), "std": (20.0, 30.0, 40.0, 0.1)},
        {"dtype": "uint16", "mean": (9000.0, 4000.0, 2000.0), "std": (900.0, 1000.0, 50.0)},
    ],
)
def test_other_images_are_normalised_like_photographs(facts: dict[str, Any], weights: InitialWeights) -> None:
    model = derived(dataclasses.replace(FACTS, **facts), weights)[0].model
    assert weights.mean is not None
    assert weights.std is not None
    for k, (mean, std) in enumerate(zip(facts["mean"], facts["std"], strict=True)):
        # Oracle: what the encoder receives for a value, and for the same value of a photograph.
        for deviations in (-1.0, 0.0, 2.0):
            found = (mean + deviations * std - model.mean[k]) / model.std[k]
            photograph = (
                sum((114.495 + deviations * 57.63 - m) / s for m, s in zip(weights.mean, weights.std, strict=True)) / 3
            )
            assert found == pytest.approx(photograph, abs=0.02)


def test_bands_with_different_normalisation_are_not_summed_to_grey() -> None:
    facts = dataclasses.replace(FACTS, channels=1, mean=(90.0,), std=(20.0,))
    weights = dataclasses.replace(LITE, mean=(123.7, 116.3, 103.5))
    assert derived(facts, weights)[0].model.mean != [123.7]
