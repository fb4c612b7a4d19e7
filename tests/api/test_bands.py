"""Bands in another order than in training: refused where files name their bands, in training, prediction and evaluation."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import rasterio
from PIL import Image
from rasterio.transform import Affine

import pixelwise
from pixelwise.errors import ImageError

NAMES = ("blue", "green", "red", "nir")


def write(path: Path, names: tuple[str, ...], seed: int) -> None:
    random = np.random.default_rng(seed)
    mask = np.zeros((64, 64), np.uint8)
    mask[10:40, 20:50] = 1
    path.parent.mkdir(parents=True, exist_ok=True)
    place = {"transform": Affine(10, 0, 500_000, 0, -10, 5_600_000), "crs": "EPSG:32632"}
    with rasterio.open(path, "w", "GTiff", 64, 64, 4, dtype="uint8", photometric="MINISBLACK", **place) as file:
        file.write(100 * mask + random.integers(0, 50, (4, 64, 64), np.uint8))
        file.descriptions = names
    if path.parent.name == "images":
        target = path.parents[1] / "masks" / f"{path.stem}.png"
        target.parent.mkdir(exist_ok=True)
        Image.fromarray(mask).save(target)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, tiny: tuple[str, ...]) -> pixelwise.Run:
    data = tmp_path_factory.mktemp("bands") / "data"
    for split, number in (("train", 4), ("val", 2), ("test", 2)):
        for index in range(number):
            write(data / split / "images" / f"{split}{index}.tif", NAMES, index)
    overrides = [*tiny, "train.validations=1", "evaluate.metrics=[]"]
    return pixelwise.train(data, out=data.parent / "run", steps=2, model="unet", overrides=overrides)


def test_the_model_knows_its_bands_and_refuses_another_order(run: pixelwise.Run, tmp_path: Path) -> None:
    assert run.model.spec.trained_bands == NAMES
    assert pixelwise.load(run.folder).spec.trained_bands == NAMES
    write(tmp_path / "in" / "right.tif", NAMES, 5)
    write(tmp_path / "in" / "turned.tif", NAMES[::-1], 5)
    write(tmp_path / "in" / "others.tif", ("B2", "B3", "B4", "B8"), 5)
    result = pixelwise.predict(run.folder, [str(tmp_path / "in")], out=tmp_path / "out")
    by_name = {Path(entry["file"]).stem: entry for entry in result.images}
    assert sorted(by_name) == ["others", "right"]
    assert "notices" not in by_name["right"]
    assert "its bands are named B2, B3, B4, B8, those of the training blue" in by_name["others"]["notices"][0]
    (failed,) = result.failed
    assert "expected the bands blue, green, red, nir, in this order, as in training" in failed["error"]
    assert "gdal_translate -b 4 -b 3 -b 2 -b 1 turned.tif" in failed["error"]
    with pytest.raises(ImageError, match="in this order, as in training"):
        run.model.predict(tmp_path / "in" / "turned.tif")


def test_data_in_another_order_are_neither_scored_nor_mixed(
    run: pixelwise.Run, tmp_path: Path, tiny: tuple[str, ...]
) -> None:
    for index in range(4):
        write(tmp_path / "data" / "test" / "images" / f"{index}.tif", NAMES[::-1], index)
        for split in ("train", "val"):
            write(tmp_path / "data" / split / "images" / f"{index}.tif", NAMES if index % 2 else NAMES[::-1], index)
    with pytest.raises(ImageError, match="in this order, as in training"):
        pixelwise.evaluate(run.folder, tmp_path / "data", split="test")
    with pytest.raises(ImageError, match=r"\d\.tif: expected the bands .*, in this order, as in \d\.tif"):
        pixelwise.train(tmp_path / "data", out=tmp_path / "mixed", steps=1, model="unet", overrides=[*tiny])
