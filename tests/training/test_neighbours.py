"""Slices of volumes with their neighbours as further bands, from training to prediction."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from tests.training.test_volume_run import write_volumes

import pixelwise
from pixelwise.config.tree import DataConfig
from pixelwise.datasets.dataset import open_data
from pixelwise.errors import ConfigError, DataError
from pixelwise.formats.reading import image_size
from pixelwise.imageio.sources import open_source

TINY = ("data.neighbours=1", "model.name=unet", "model.features=[4,8]", "train.crop=[8,8]", "train.batch_size=2")
TINY += ("train.precision=fp32", "train.channels_last=false", "train.validations=1", "evaluate.report=false")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_volumes(tmp_path_factory.mktemp("volumes"))


@pytest.fixture(scope="module")
def run(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("run") / "run"
    pixelwise.train(data, out=out, steps=4, overrides=TINY)
    return out


@pytest.mark.parametrize("neighbours", [1, 2])
def test_slices_are_read_with_their_neighbours(data: Path, neighbours: int) -> None:
    config = DataConfig(neighbours=neighbours)
    plain = open_data(DataConfig(), data)
    stacked = open_data(config, data)
    for alone, with_others in zip(plain, stacked, strict=True):
        slices = [alone.read(i) for i in range(len(alone))]
        for i, record in enumerate(with_others.records):
            sample = with_others.read(i)
            volume = [k for k, each in enumerate(alone.records) if each.group == record.group]
            around = np.arange(i - neighbours, i + neighbours + 1).clip(volume[0], volume[-1])
            assert np.array_equal(sample.image, np.concatenate([slices[k].image for k in around]))
            assert np.array_equal(sample.mask, slices[i].mask)
            assert image_size(record) == sample.image.shape


def test_volumes_are_predicted_as_in_evaluation(run: Path, data: Path, tmp_path: Path) -> None:
    model = pixelwise.load(run)
    assert (model.spec.channels, model.spec.neighbours) == (3, 1)
    splits = open_data(DataConfig(neighbours=1), data)
    assert splits.val is not None
    files = sorted({record.image for record in splits.val.records})
    pixelwise.predict(run, [str(path) for path in files], out=tmp_path / "out")
    for path in files:
        found = open_source(tmp_path / "out" / "masks" / path.name, across="axial").read()[0][0]
        own = [i for i, record in enumerate(splits.val.records) if record.image == path]
        slices = np.stack([model.predictor(splits.val.read(i).image).mask for i in own])
        assert np.array_equal(found, slices)


def test_scores_of_slices_and_of_volumes(run: Path, data: Path) -> None:
    by_slice = pixelwise.evaluate(run, data, split="val")
    whole = pixelwise.evaluate(run, data, split="val", overrides=["data.volumes=whole"])
    assert (len(by_slice.images), len(whole.images)) == (6, 1)
    assert 0 <= by_slice.scores.miou.value <= 1
    assert 0 <= whole.scores.miou.value <= 1


def test_an_image_has_no_neighbours(run: Path, data: Path) -> None:
    with pytest.raises(DataError, match="expected a volume, since the model sees each slice with 1 on either side"):
        pixelwise.load(run).predictor(np.zeros((1, 9, 9), np.float32))
    with pytest.raises(
        ConfigError, match=r"data\.neighbours: expected volumes that are read as slices, found whole volumes"
    ):
        open_data(DataConfig(neighbours=1, volumes="whole"), data)
