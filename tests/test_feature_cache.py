"""The benchmark of stored features: its data, and its table with extrapolated rows."""

import json
from pathlib import Path

import pytest
from benchmarks import feature_cache
from benchmarks.protocol import NOT_MEASURED
from PIL import Image

from pixelwise.config import read_request
from pixelwise.datasets.dataset import open_data


def test_images_of_all_splits_are_used_once(tmp_path: Path) -> None:
    root = tmp_path / "camvid"
    for split, count in (("train", 3), ("val", 2), ("test", 7)):
        for folder in (split, f"{split}annot"):
            (root / folder).mkdir(parents=True)
        for number in range(count):
            Image.new("RGB", (20, 10)).save(root / split / f"{split}{number}.jpg")
            Image.new("L", (20, 10)).save(root / f"{split}annot" / f"{split}{number}.png")
    description, megapixels = feature_cache.write_description(root, 8, tmp_path)
    config, base = read_request(description)
    splits = open_data(config.data, base)
    assert splits.train is not None
    assert splits.val is not None
    assert len({record.image for record in (*splits.train.records, *splits.val.records)}) == 8 + 4
    assert len(splits.train) == 8
    assert megapixels == pytest.approx(8 * 200 / 1e6)
    with pytest.raises(SystemExit, match="expected more than 12 images, found 12"):
        feature_cache.write_description(root, 12, tmp_path)


def test_extrapolated_rows_are_marked(tmp_path: Path) -> None:
    assert feature_cache.table(tmp_path) == NOT_MEASURED
    about = {"cores": 2, "processor": "X", "torch": "2", "commit": "a1", "model": {"encoder": "lite0"}}
    for count, seconds in ((500, 40.0), (100, 9.0)):
        facts = {"images": count, "megapixels": count / 5, "seconds": seconds, "bytes": count * 2**20}
        (tmp_path / f"{count}.json").write_text(json.dumps(about | facts | {"place": "memory"}))
    assert feature_cache.table(tmp_path).splitlines()[2:] == [
        "| 100 | 20 | 9 s | 0.45 | 100 MiB | 5 | memory |",
        "| 500 | 100 | 40 s | 0.40 | 500 MiB | 5 | memory |",
        "| 10,000 (extrapolated) | 2,000 | 800 s | 0.40 | 10,000 MiB | 5 | – |",
        "",
        "One copy per image, encoder lite0, fp16; 2 cores of X, torch 2; pixelwise at a1.",
    ]
