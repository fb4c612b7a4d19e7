"""What is derived for networks with three dimensions."""

from dataclasses import replace
from typing import Any

import pytest

from pixelwise import config as configs
from pixelwise.config import Config
from pixelwise.errors import ConfigError
from pixelwise.training.network_plan import Machine, choose_network
from pixelwise.training.plan import derive, settle
from pixelwise.training.volume_plan import within
from pixelwise.types import Fingerprint

CPU, GPU = Machine("cpu", 2, True), Machine("cuda", 8, True)


def facts(size: tuple[int, int, int] = (36, 50, 35), **values: Any) -> Fingerprint:
    found = Fingerprint(
        images=20,
        channels=1,
        dtype="int16",
        sizes=(size, size, size),
        mean=(300.0,),
        std=(100.0,),
        pixel_counts=(900, 50, 50),
        image_counts=(20, 20, 20),
        ignored_share=0.0,
        thickness=(9.0, 4.0, 4.0),
        row_spread=0.3,
        hash="",
        spacing=(1.0, 1.0, 1.0),
        spacing_unit="mm",
        extremes=((-1024.0, 3000.0),),
        percentiles=((0.0, 300.0, 900.0),),
        core=((-900.0, 900.0),),
        core_mean=(250.0,),
        core_std=(150.0,),
        depth_spread=0.01,
        contrast_ratio=1.5,
    )
    return replace(found, **values)


def derived(found: Fingerprint, machine: Machine = CPU, **model: Any) -> Config:
    config = configs.replace(Config(), model={"name": "unet", "dimensions": 3, **model})
    return derive(config, found, machine)[0]


@pytest.mark.parametrize(
    ("lowest", "ratio", "intensity"),
    [(-1000.0, 1.5, "data"), (-1000.0, 50.0, "image"), (0.0, 1.5, "image"), (0.0, 3000.0, "image")],
)
def test_intensities_are_those_of_the_scanner_unless_they_are_calibrated(
    lowest: float, ratio: float, intensity: str
) -> None:
    model = derived(facts(percentiles=((lowest, 0.0, 900.0),), contrast_ratio=ratio)).model
    assert model.intensity == intensity
    if intensity == "image":
        assert (model.mean, model.std, model.clip) == ([0.0], [1.0], "none")
    else:  # clipped to the foreground's range, as outliers are far outside of it
        assert (model.mean, model.std, model.clip) == ([250.0], [150.0], [(-900.0, 900.0)])


@pytest.mark.parametrize(
    ("size", "spacing", "features", "flat"),
    [
        ((36, 50, 35), (1.0, 1.0, 1.0), 3, 0),
        ((100, 512, 512), (1.0, 1.0, 1.0), 4, 0),
        ((100, 512, 512), (2.0, 1.0, 1.0), 4, 0),
        ((100, 512, 512), (5.0, 1.0, 1.0), 4, 2),  # 5, then 2.5 times as thick as wide
        ((100, 512, 512), (8.0, 0.5, 0.5), 4, 3),
        ((20, 512, 512), (1.0, 1.0, 1.0), 4, 2),  # 20 slices can be pooled twice
        ((1, 64, 64), (1.0, 1.0, 1.0), 4, 4),
        ((3, 5, 5), (1.0, 1.0, 1.0), 1, 1),
    ],
)
def test_slices_are_pooled_once_they_are_as_thick_as_pixels_are_wide(
    size: tuple[int, int, int], spacing: tuple[float, ...], features: int, flat: int
) -> None:
    config = derived(facts(size, spacing=spacing))
    assert (len(config.model.features or ()), config.model.flat) == (features, flat)
    assert config.model.spacing == list(spacing)


@pytest.mark.parametrize("machine", [CPU, GPU], ids=lambda machine: machine.device)
@pytest.mark.parametrize("size", [(1, 1, 1), (36, 50, 35), (20, 512, 512), (300, 512, 512)])
def test_crops_are_multiples_of_the_strides_and_bounded(size: tuple[int, int, int], machine: Machine) -> None:
    config = derived(facts(size), machine)
    flat, scales = config.model.flat or 0, len(config.model.features or ())
    strides = (2 ** (scales - flat), 2**scales, 2**scales)
    crop, tile = config.train.crop or (), config.predict.tile or ()
    assert all(side % stride == 0 for side, stride in zip((*crop, *tile), strides * 2, strict=True))
    assert crop[0] * crop[1] * crop[2] <= (64**3 if machine is CPU else 128**3)
    assert all(side <= padded for side, padded in zip(crop, within(size, strides, 10**12), strict=True))
    assert 2 <= (config.train.batch_size or 0) <= 8


def test_without_millimetres_there_is_no_common_spacing() -> None:
    assert derived(facts(spacing_unit="px")).model.spacing is None


def test_slices_are_mirrored_only_if_classes_do_not_depend_on_them() -> None:
    for spread, probability in ((0.01, 0.5), (0.5, 0.0), (None, 0.0)):
        config = settle(derived(facts()), facts(depth_spread=spread), 20)[0]
        assert config.augment.flip_depth == probability


def test_other_networks_have_no_three_dimensions() -> None:
    for name in ("fpn", "segformer-b0", "unet/resnet18"):
        config = configs.replace(Config(), model={"name": name, "dimensions": 3})
        with pytest.raises(ConfigError, match="expected unet, the only network with three dimensions, found " + name):
            choose_network(config, facts(), CPU, True)
    config = configs.replace(Config(), model={"dimensions": 3})
    assert choose_network(config, facts(), CPU, True)[0].model.name == "unet"
