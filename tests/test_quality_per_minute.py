"""The benchmark of equal time: its data sets, the input of its baselines, its runs and its tables."""

import argparse
import json
import subprocess
from collections.abc import Sequence
from pathlib import Path

import nibabel
import numpy as np
import pytest
import timm
import torch
from benchmarks import peers, protocol, quality_per_minute, sets
from benchmarks.protocol import NOT_MEASURED
from PIL import Image

from pixelwise.config import read_request
from pixelwise.datasets.dataset import Dataset, DataSplits, open_data

RNG = np.random.default_rng(0)


def opened(description: Path) -> DataSplits:
    config, base = read_request(description)
    return open_data(config.data, base)


def datasets(splits: DataSplits) -> list[Dataset]:
    return [dataset for dataset in (splits.train, splits.val, splits.test) if dataset is not None]


# Data sets -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def volumes(tmp_path: Path) -> Path:
    """Write ten volumes of 8×6×3 voxels whose values differ by orders of magnitude."""
    for what in ("images", "labels"):
        (tmp_path / "hippocampus" / what).mkdir(parents=True)
    for number in range(10):
        name = f"hippocampus_{number:03}.nii.gz"
        values = RNG.random((8, 6, 3)) * 10.0**number
        truth = RNG.integers(0, 3, (8, 6, 3)).astype(np.uint8)
        for what, array in (("images", values), ("labels", truth)):
            nibabel.save(nibabel.Nifti1Image(array, np.eye(4)), tmp_path / "hippocampus" / what / name)
    return tmp_path


def test_slices_of_a_patient_are_in_one_split(volumes: Path, tmp_path: Path) -> None:
    splits = opened(sets.describe("hippocampus", volumes, tmp_path / "data"))
    patients = [{record.group for record in dataset.records} for dataset in datasets(splits)]
    assert len(patients) == 3
    assert all(patients)
    assert sum(map(len, patients)) == len(set.union(*patients)) == 10
    assert sum(len(dataset) for dataset in datasets(splits)) == 30


def test_slices_are_those_of_the_volume_scaled_to_bytes(volumes: Path, tmp_path: Path) -> None:
    sets.describe("hippocampus", volumes, tmp_path / "data")
    for number in range(10):
        name = f"hippocampus_{number:03}"
        values = nibabel.load(volumes / "hippocampus" / "images" / f"{name}.nii.gz").get_fdata()
        truth = nibabel.load(volumes / "hippocampus" / "labels" / f"{name}.nii.gz").get_fdata()
        for level in range(3):
            (image,) = (tmp_path / "data").glob(f"*/images/{name}_{level:02}.png")
            pixels = np.asarray(Image.open(image))
            mask = np.asarray(Image.open(image.parents[1] / "masks" / image.name))
            assert pixels.shape == (6, 8)
            # Row 0 is the front: the largest second index.
            assert all(mask[row, column] == truth[column, 5 - row, level] for row in range(6) for column in range(8))
            expected = np.interp(values[:, ::-1, level].T, np.percentile(values, (0.5, 99.5)), (0, 255))
            assert np.abs(pixels - expected).max() <= 0.51


def test_a_constant_volume_is_black() -> None:
    assert not sets.to_bytes(np.full((2, 2, 2), 7.0)).any()


def test_the_fourth_band_is_excess_green() -> None:
    image = np.array([[[10, 200]], [[20, 0]], [[5, 0]]], np.uint8)
    bands = sets.with_excess_green(image)
    assert bands.dtype == np.uint16
    assert bands[:, 0, 0].tolist() == [2000, 4000, 1000, 2 * 4000 - 2000 - 1000]
    assert bands[:, 0, 1].tolist() == [40000, 0, 0, 0]


def test_four_bands_keep_the_split_of_three(tmp_path: Path) -> None:
    source = tmp_path / "aerial_roads"
    for what in ("images", "groundtruth"):
        (source / what).mkdir(parents=True)
    for number in range(10):
        Image.fromarray(RNG.integers(0, 255, (4, 5, 3), np.uint8)).save(source / "images" / f"{number}.png")
        Image.fromarray(RNG.integers(0, 2, (4, 5), np.uint8) * 255).save(source / "groundtruth" / f"{number}.png")
    three, four = (
        opened(sets.describe(name, tmp_path, tmp_path / name / "description"))
        for name in ("aerial_roads", "aerial_roads_4band")
    )
    assert four.labels.names == three.labels.names
    for one, other in zip(datasets(three), datasets(four), strict=True):
        assert sorted(r.image.stem for r in one.records) == sorted(r.image.stem for r in other.records)
        masks = [{d.records[i].image.stem: d.read(i).mask for i in range(len(d))} for d in (one, other)]
        assert all(np.array_equal(masks[0][stem], masks[1][stem]) for stem in masks[0])
        assert other.read(0).image.shape == (4, 4, 5)


# Baselines -----------------------------------------------------------------------------------------------------------


def pool(folder: Path, images: Sequence[np.ndarray]) -> Dataset:
    """Write images with masks (background and one class), and open them as a training split."""
    for what in ("images", "masks"):
        (folder / what).mkdir(parents=True)
    for number, image in enumerate(images):
        np.save(folder / "images" / f"{number}.npy", image)
        mask = RNG.integers(0, 2, image.shape[-2:], np.uint8)
        Image.fromarray(mask).save(folder / "masks" / f"{number}.png")
    (folder / "data.yaml").write_text(
        "images: images/*.npy\nmasks: 'masks/{stem}.png'\nsplit: {val: 0, test: 0}\nlabels: [background, object]\n"
    )
    train = opened(folder).train
    assert train is not None
    return train


def test_bytes_have_the_documented_normalisation(tmp_path: Path) -> None:
    train = pool(tmp_path, [RNG.integers(0, 255, (3, 40, 300), np.uint8)] * 3)
    given = peers.describe_input(train, (1.0, 2.0, 3.0), (4.0, 5.0, 6.0))
    assert given == peers.Input((1.0, 2.0, 3.0), (4.0, 5.0, 6.0), (64, 256))


def test_other_types_are_scaled_by_percentiles(tmp_path: Path) -> None:
    images = [RNG.integers(1000, 5000, (4, 32, 32)).astype(np.uint16) for _ in range(20)]
    train = pool(tmp_path, images)
    given = peers.describe_input(train, (0.0, 127.5, 255.0), (25.5, 51.0, 51.0))
    assert given.crop == (32, 32)
    # 0, half and all of the range from about 1000 to about 5000; the fourth band is as the first.
    assert np.allclose(given.mean, (1000, 3000, 5000, 1000), atol=60)
    assert np.allclose(given.std, (400, 800, 800, 400), rtol=0.02)


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_the_encoder_has_the_weights_and_an_adapted_first_layer(channels: int, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    tensors = timm.create_model(peers.ENCODER, pretrained=False).state_dict()
    monkeypatch.setattr(peers, "imagenet_weights", lambda: tensors)
    network = peers.pretrained_unet(channels, 2)
    loaded = network.encoder.model.state_dict()
    assert all(torch.equal(loaded[name], tensors[name]) for name in loaded if name != "conv_stem.weight")
    rgb = tensors["conv_stem.weight"]
    expected = {1: rgb.sum(1, keepdim=True), 3: rgb, 4: 0.75 * rgb[:, [0, 1, 2, 0]]}[channels]
    assert torch.allclose(loaded["conv_stem.weight"], expected, atol=1e-6)


@pytest.mark.parametrize("method", ["tutorial", "smp"])
def test_baselines_stop_at_the_deadline_and_predict(method: str, tmp_path: Path) -> None:
    train = pool(tmp_path, [RNG.integers(0, 255, (1, 20, 30), np.uint8)] * 3)
    predictor, steps = peers.METHODS[method](train, 0, 0.0)  # a deadline in the past
    assert steps == 0
    assert predictor(train.read(0).image).mask.shape == (20, 30)


# Runs and tables -----------------------------------------------------------------------------------------------------


def arguments(**given: object) -> argparse.Namespace:
    return argparse.Namespace(**{"budgets": None, "seeds": None, "sets": None, "methods": None} | given)


def test_methods_are_the_inner_loop(tmp_path: Path) -> None:
    every = list(quality_per_minute.runs(arguments(results=tmp_path)))
    assert len({path for path, _ in every}) == len(every) == 3 * len(sets.SETS) * 5
    assert [run[2] for _, run in every[:5]] == list(quality_per_minute.METHODS)
    assert {run[3] for _, run in every[:35]} == {0}
    few = quality_per_minute.runs(
        arguments(results=tmp_path, budgets=[1.0, 10.0], seeds=[0], sets=["drive"], methods=["smp"])
    )
    assert [run for _, run in few] == [("drive", "1", "smp", 0), ("drive", "10", "smp", 0)]


def test_finished_runs_are_not_repeated_and_failed_ones_do_not_stop_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started = []

    def run(command: list[str]) -> subprocess.CompletedProcess[str]:
        started.append(command[command.index("--one") + 1 :])
        return subprocess.CompletedProcess(command, returncode=command[-1] == "1")

    monkeypatch.setattr(protocol.subprocess, "run", run)
    paths = [tmp_path / f"{number}.json" for number in range(4)]
    paths[0].write_text("{}")
    runs = [(path, ("camvid", number)) for number, path in enumerate(paths)]
    with pytest.raises(SystemExit, match=r"1 runs failed: 1\."):
        protocol.run_each("quality_per_minute", argparse.Namespace(root=tmp_path, results=tmp_path), runs)
    assert started == [["camvid", "1"], ["camvid", "2"], ["camvid", "3"]]


def write(folder: Path, name: str, minutes: float, method: str, seed: int, miou: float, commit: str = "a1") -> None:
    classes = [{"name": "vessel", "dice": miou / 2, "iou": miou / 4}]
    facts = {"set": name, "minutes": minutes, "method": method, "seed": seed, "commit": commit}
    facts |= {"cores": 2, "processor": "X", "torch": "2", "scores": {"miou": miou, "classes": classes}}
    path = quality_per_minute.result_path(name, minutes, method, seed, folder)
    path.write_text(json.dumps(facts))


def test_the_table_shows_every_budget_that_was_measured(tmp_path: Path) -> None:
    assert quality_per_minute.table(tmp_path) == NOT_MEASURED
    for seed, miou in enumerate((0.5, 0.6, 0.7)):
        write(tmp_path, "drive", 4, "pixelwise", seed, miou)
    write(tmp_path, "drive", 4, "smp_pretrained", 0, 0.3)
    write(tmp_path, "drive", 1, "smp", 0, 0.2)
    write(tmp_path, "camvid", 10, "scratch", 0, 0.4, commit="b2")
    assert quality_per_minute.table(tmp_path).splitlines() == [
        "| mIoU | pixelwise | scratch | tutorial | smp | smp_pretrained |",
        "|---|---|---|---|---|---|",
        "| camvid, 10 min | – | 40.0 | – | – | – |",
        "| drive, 1 min | – | – | – | 20.0 | – |",
        "| drive, 4 min | 60.0 (50.0–70.0, n = 3) | – | – | – | 30.0 |",
        "",
        "| one class | pixelwise | scratch | tutorial | smp | smp_pretrained |",
        "|---|---|---|---|---|---|",
        "| drive, Dice of vessel, 1 min | – | – | – | 10.0 | – |",
        "| drive, Dice of vessel, 4 min | 30.0 (25.0–35.0, n = 3) | – | – | – | 15.0 |",
        "",
        "2 cores of X, torch 2; pixelwise at a1, b2.",
    ]


def test_the_classes_of_the_second_table_are_those_of_the_recipes() -> None:
    for name, label, _ in quality_per_minute.CLASS_SCORES:
        if (recipe := protocol.RECIPES / f"{name}.yaml").exists():
            config, _ = read_request(recipe)
            assert label in config.data.labels["names"]


def test_images_are_padded_as_crops_are_in_training():
    images = torch.arange(5.0).view(1, 1, 1, 5).expand(1, 1, 32, 5)
    seen: list[torch.Tensor] = []

    def network(padded: torch.Tensor) -> torch.Tensor:
        seen.append(padded)
        return padded

    model = peers.Padded(network, peers.Input((0.0,), (1.0,), (32, 32)))
    assert torch.equal(model(images), images)
    assert seen[0][0, 0, 0, :10].tolist() == [0, 1, 2, 3, 4, 3, 2, 1, 0, 1]
    assert peers.reflected(1, 3).tolist() == [0, 0, 0]
