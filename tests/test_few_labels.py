"""The benchmark of few labels: each seed draws its own images, and the table is by number of images and method."""

import argparse
import json
from pathlib import Path

import pytest
from benchmarks import few_labels
from benchmarks.pretraining import subset
from benchmarks.protocol import NOT_MEASURED
from PIL import Image

from pixelwise.config import read_request
from pixelwise.datasets.dataset import open_data


@pytest.fixture
def camvid(tmp_path: Path) -> Path:
    """Write the layout of CamVid with 30 train, 3 val and 4 test images."""
    root = tmp_path / "camvid"
    for split, count in (("train", 30), ("val", 3), ("test", 4)):
        for folder in (split, f"{split}annot"):
            (root / folder).mkdir(parents=True)
        for number in range(count):
            Image.new("RGB", (8, 8)).save(root / split / f"{split}{number:02}.jpg")
            Image.new("L", (8, 8), number % 11).save(root / f"{split}annot" / f"{split}{number:02}.png")
    return root


def drawn(root: Path, count: int, seed: int, folder: Path) -> dict[str, set[str]]:
    config, base = read_request(subset(root, count, seed, folder))
    splits = open_data(config.data, base)
    every = (splits.train, splits.val, splits.test)
    return {d.name: {record.image.stem for record in d.records} for d in every if d is not None}


def test_each_seed_draws_its_own_images_and_larger_draws_contain_smaller_ones(camvid: Path, tmp_path: Path) -> None:
    by_seed = []
    for seed in (0, 1):
        one, five, twenty, every = (drawn(camvid, n, seed, tmp_path / f"{seed}-{n}") for n in (1, 5, 20, 367))
        assert [len(d["train"]) for d in (one, five, twenty, every)] == [1, 5, 20, 30]
        assert one["train"] < five["train"] < twenty["train"] < every["train"]
        assert all(len(d["val"]) == 3 and len(d["test"]) == 4 for d in (one, five, twenty, every))
        by_seed.append(five["train"])
    assert by_seed[0] != by_seed[1]


def test_every_method_is_measured_with_every_number_of_images(tmp_path: Path) -> None:
    args = argparse.Namespace(seeds=None, counts=None, methods=None, minutes=4.0, results=tmp_path)
    runs = list(few_labels.runs(args))
    assert len({path for path, _ in runs}) == len(runs) == 3 * 5 * 3
    assert [run for _, run in runs[:3]] == [(1, "4", method, 0) for method in few_labels.METHODS]


def test_the_table_is_by_number_of_images(tmp_path: Path) -> None:
    assert few_labels.table(results=tmp_path) == NOT_MEASURED
    for count, method, seed, miou in ((20, "default", 0, 0.4), (20, "default", 1, 0.5), (5, "scratch", 0, 0.1)):
        facts = {"images": count, "method": method, "commit": "a1", "cores": 2, "processor": "X", "torch": "2"}
        path = few_labels.result_path(count, 4.0, method, seed, tmp_path)
        path.write_text(json.dumps(facts | {"scores": {"miou": miou}}))
    assert few_labels.table(results=tmp_path).splitlines() == [
        "| CamVid images | default | all layers from the start | from scratch |",
        "|---|---|---|---|",
        "| 5 | – | – | 10.0 |",
        "| 20 | 45.0 (40.0–50.0, n = 2) | – | – |",
        "",
        "2 cores of X, torch 2; pixelwise at a1.",
    ]
