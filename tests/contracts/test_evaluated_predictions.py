"""The contract of `evaluate`: it accepts every file that `predict` writes, with the scores of the predictor itself."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import nibabel
import nrrd
import numpy as np
import pytest
import rasterio
import tifffile
from numpy.typing import NDArray
from PIL import Image
from rasterio.transform import Affine
from tests.imageio.dicom_objects import write_series

from pixelwise.api.predicting import predict_files
from pixelwise.api.predicting import scenes as predicted_scenes
from pixelwise.config import DataConfig
from pixelwise.datasets import dataset as datasets
from pixelwise.datasets import scenes
from pixelwise.datasets.dataset import Dataset, open_data
from pixelwise.errors import MaskError, PairingError
from pixelwise.evaluation import evaluate
from pixelwise.evaluation.mask_folder import open_masks
from pixelwise.grid import Grid
from pixelwise.imageio import images
from pixelwise.imageio.dicom_seg_writing import write_dicom_seg
from pixelwise.inference.predictor import Predictor
from pixelwise.labels import Labels
from pixelwise.types import ModelSpec

LABELS = Labels(("background", "liver", "tumour"))
SIZE, SHAPE = (70, 90), (5, 12, 14)


class Backend:
    """Classes by the value of each pixel alone, so that a window is predicted like the whole scene."""

    def __init__(self, channels: int) -> None:
        self.spec = ModelSpec(LABELS, channels, tile=(32, 32))

    def __call__(self, images: NDArray[Any], /) -> NDArray[np.float32]:
        value = images[:, 0].astype(np.float32)
        return np.stack([np.sin(value), np.sin(value + 2), np.sin(value + 4)], 1)


def drawn(seed: int, *shape: int) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 3, shape).astype(np.uint8)


def image(seed: int) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 255, (3, *SIZE)).astype(np.uint8)


def save_mask(root: Path, name: str, seed: int) -> None:
    (root / "masks").mkdir(exist_ok=True)
    Image.fromarray(drawn(seed, *SIZE)).save(root / f"masks/{name}.png")


def png(root: Path) -> list[Path]:
    (root / "images/deep").mkdir(parents=True)
    for seed, name in enumerate(("a", "b")):
        Image.fromarray(np.moveaxis(image(seed), 0, -1)).save(root / f"images/{name}.png")
        save_mask(root, name, seed)
    return [root / "images"]


def plain_tiff(root: Path) -> list[Path]:
    (root / "images").mkdir()
    tifffile.imwrite(root / "images/a.tif", np.moveaxis(image(0), 0, -1), photometric="rgb")
    save_mask(root, "a", 0)
    return [root / "images/a.tif"]


def geotiff(root: Path, names: str = "ab") -> list[Path]:
    """Write scenes with pixels without data."""
    for folder, count in (("images", 3), ("masks", 1)):
        (root / folder).mkdir()
        for seed, name in enumerate(names):
            values = image(seed) if count == 3 else drawn(seed, 1, *SIZE)
            place = {"crs": "EPSG:32632", "transform": Affine(2, 0, 500_000 + 1000 * seed, 0, -2, 5_600_000)}
            if count == 3:
                values[:, :30, :20] = 0
                place["nodata"] = 0
            tiles = {"tiled": True, "blockxsize": 16, "blockysize": 16}
            with rasterio.open(
                root / f"{folder}/{name}.tif", "w", "GTiff", SIZE[1], SIZE[0], count, dtype="uint8", **place, **tiles
            ) as file:
                file.write(values)
    return [root / "images"]


def nifti(root: Path, suffix: str = ".nii.gz") -> list[Path]:
    affine = np.diag([-0.8, 0.7, 2.5, 1])
    for folder in ("imagesTr", "labelsTr"):
        (root / folder).mkdir()
        for seed, name in enumerate(("p_1", "p_2")):
            values = np.random.default_rng(seed).integers(0, 900, SHAPE[::-1]).astype(np.int16)
            values = drawn(seed, *SHAPE[::-1]) if folder == "labelsTr" else values
            file = nibabel.Nifti1Image(values, affine)
            file.header.set_xyzt_units("mm")
            nibabel.save(file, root / f"{folder}/{name}{suffix}")
    return [root / "imagesTr"]


def nnunet(root: Path) -> list[Path]:
    """Write images with the number of their channel in their names."""
    nifti(root)
    for path in sorted((root / "imagesTr").iterdir()):
        path.rename(path.with_name(path.name.replace(".nii", "_0000.nii")))
    return [root / "imagesTr"]


def nrrd_files(root: Path) -> list[Path]:
    fields = {
        "space": "left-posterior-superior",
        "space directions": np.diag([0.8, 0.7, 2.5]),
        "space origin": [1, 2, 3],
    }
    for folder in ("images", "masks"):
        (root / folder).mkdir()
        for seed, name in enumerate(("a", "b")):
            values = np.random.default_rng(seed).integers(0, 900, SHAPE[::-1]).astype(np.int16)
            values = drawn(seed, *SHAPE[::-1]) if folder == "masks" else values
            nrrd.write(str(root / f"{folder}/{name}.nrrd"), values, fields)
    return [root / "images"]


def dicom(root: Path) -> list[Path]:
    for seed, name in enumerate(("one", "two")):
        files = write_series(root / name, SHAPE)
        write_dicom_seg(root / f"segmentations/{name}.dcm", drawn(seed, *SHAPE), LABELS, files)
    return [root / "one", root / "two"]


Write = Callable[[Path], list[Path]]
KINDS: dict[str, tuple[Write, int, dict[str, Any]]] = {
    "png": (png, 3, {}),
    "plain tiff": (plain_tiff, 3, {}),
    "geotiff": (geotiff, 3, {}),
    "scene": (geotiff, 3, {}),
    "nifti": (nifti, 1, {}),
    "nifti uncompressed": (lambda root: nifti(root, ".nii"), 1, {}),
    "nnunet": (nnunet, 1, {}),
    "nrrd": (nrrd_files, 1, {}),
    "dicom binary": (dicom, 1, {"dicom": "binary"}),
    "dicom labelmap": (dicom, 1, {"dicom": "labelmap"}),
    "dicom as nifti": (dicom, 1, {"dicom": "nifti"}),
}


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take small images for scenes."""
    for module in (datasets, images, scenes, predicted_scenes):
        monkeypatch.setattr(module, "LARGE", 1000)
    monkeypatch.setattr(scenes, "SIDE", 24)


def opened(root: Path) -> Dataset:
    (root / "labels.yaml").write_text("names: [background, liver, tumour]")
    data = open_data(DataConfig.model_validate({"split": {"val": 0}}), root).train
    assert data is not None
    return data


@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
@pytest.mark.parametrize("kind", KINDS)
def test_masks_written_by_predict_have_the_scores_of_the_predictor(
    kind: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    write, channels, options = KINDS[kind]
    if kind == "scene":
        request.getfixturevalue("small")
    (tmp_path / "data").mkdir()
    sources = write(tmp_path / "data")
    data = opened(tmp_path / "data")
    predictor = Predictor(Backend(channels))
    done = predict_files(predictor, [*map(str, sources)], tmp_path / "out", **options)
    assert not done.failed, done.failed
    expected = evaluate(data, predictor, intervals=False)
    for folder in (tmp_path / "out", tmp_path / "out/masks"):
        masks = open_masks(folder, data)
        assert masks.notices == ()
        found = evaluate(data, masks, intervals=False)
        assert [image.id for image in found.images] == [image.id for image in expected.images]
        assert found.scores.miou == expected.scores.miou
        assert [image.counts for image in found.images] == [image.counts for image in expected.images]
    if kind == "scene":
        assert len(data) > 10
        assert all(record.window is not None for record in data.records)


def test_windows_are_scored_from_masks_of_their_own_or_of_their_scene(tmp_path: Path, small: None) -> None:
    (tmp_path / "data").mkdir()
    geotiff(tmp_path / "data", "a")
    data = opened(tmp_path / "data")
    for record in data.records:
        path = tmp_path / f"windows/{record.id}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.ones(record.window[2:], np.uint8)).save(path)
    whole = tmp_path / "whole/a.png"
    whole.parent.mkdir()
    Image.fromarray(np.ones(SIZE, np.uint8)).save(whole)
    scores = [evaluate(data, open_masks(tmp_path / name, data), intervals=False) for name in ("windows", "whole")]
    assert scores[0].images == scores[1].images
    Image.fromarray(np.ones((71, 90), np.uint8)).save(whole)
    with pytest.raises(MaskError, match=r"expected the image's size, 70×90 \(height and width\), found 71×90"):
        evaluate(data, open_masks(whole.parent, data), intervals=False)
    whole.rename(whole.with_name("b.png"))
    with pytest.raises(PairingError, match="a mask with the name of the image for each of 1 images, found none for a"):
        open_masks(whole.parent, data)


def test_ids_of_predict_are_never_two_classes_by_their_values(tmp_path: Path) -> None:
    """Masks of 0 and 255 show the first class, and pixels without data."""
    (tmp_path / "data").mkdir()
    geotiff(tmp_path / "data")
    (tmp_path / "data/labels.yaml").write_text("names: [ground, field, x]")
    data = open_data(DataConfig.model_validate({"split": {"val": 0}}), tmp_path / "data").train
    assert data is not None
    data = replace(data, labels=Labels(("ground", "field")))
    for record in data.records:
        values = np.zeros(SIZE, np.uint8)
        values[:10] = 255
        path = tmp_path / f"out/masks/{record.id}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(values).save(path)
    (tmp_path / "out/predictions.json").write_text("{}")
    for folder in (tmp_path / "out", tmp_path / "out/masks"):
        mask = open_masks(folder, data)(np.zeros((3, *SIZE)), Grid(), id="a").mask
        assert np.unique(mask).tolist() == [0, 255]
