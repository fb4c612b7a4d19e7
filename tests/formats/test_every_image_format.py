"""Data sets of every image format: opened, read and checked, with images in one format and masks in another."""

from pathlib import Path

import imagecodecs
import numpy as np
import pytest
from PIL import Image

import pixelwise
from pixelwise.config import DataConfig
from pixelwise.datasets.dataset import open_data
from pixelwise.imageio.images import read_mask_values

SIZE = (24, 30)
LOSSLESS = [".png", ".tif", ".bmp", ".gif", ".pgm", ".jp2", ".j2k", ".npy", ".npz"]
COLOURED = [".ppm", ".jfif", ".JPE"]


def write(path: Path, values: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix in (".jp2", ".j2k"):
        path.write_bytes(imagecodecs.jpeg2k_encode(values, reversible=True, level=0, codecformat=path.suffix[1:]))
    elif path.suffix == ".npy":
        np.save(path, values)
    elif path.suffix == ".npz":
        np.savez(path, values)
    else:
        Image.fromarray(values).save(path, "JPEG" if path.suffix in (".jfif", ".JPE") else None)


def data_set(
    root: Path, image: str, mask: str, values: tuple[int, ...] = (0, 1, 2)
) -> list[tuple[np.ndarray, np.ndarray]]:
    rng = np.random.default_rng(0)
    made = []
    for k in range(4):
        pixels = rng.integers(0, 256, SIZE if image == ".pgm" else (*SIZE, 3), dtype=np.uint8)
        ids = rng.choice(values, SIZE).astype(np.uint8)
        ids[0, : len(values)] = values
        write(root / "images" / f"{k}{image}", pixels)
        write(root / "masks" / f"{k}{mask}", ids)
        made.append((np.atleast_3d(pixels).transpose(2, 0, 1), ids))
    return made


# Without GIF images, whose colours Pillow reduces as it writes them.
@pytest.mark.parametrize("image", [suffix for suffix in (*LOSSLESS, *COLOURED) if suffix != ".gif"])
@pytest.mark.parametrize("mask", LOSSLESS)
def test_images_and_masks(tmp_path: Path, image: str, mask: str) -> None:
    made = data_set(tmp_path, image, mask)
    (split,) = open_data(DataConfig.model_validate({"split": {"val": 0}}), tmp_path)
    assert split.labels.ids == (0, 1, 2)
    for k, (pixels, ids) in enumerate(made):
        sample = split.read(k)
        if image not in (".jfif", ".JPE"):
            np.testing.assert_array_equal(sample.image, pixels)
        np.testing.assert_array_equal(sample.mask, ids)


@pytest.mark.parametrize("mask", [*LOSSLESS, ".pbm"])
def test_masks_of_black_and_white_are_two_classes(tmp_path: Path, mask: str) -> None:
    """As in DRIVE, whose masks are GIF."""
    made = data_set(tmp_path, ".tif", mask if mask != ".pbm" else ".png", (0, 255))
    for k, (_, ids) in enumerate(made):
        if mask == ".pbm":
            (tmp_path / "masks" / f"{k}.png").unlink()
            Image.fromarray(ids).convert("1").save(tmp_path / "masks" / f"{k}.pbm")
    (split,) = open_data(DataConfig.model_validate({"split": {"val": 0}}), tmp_path)
    assert split.labels.names == ("background", "foreground")
    for k, (_, ids) in enumerate(made):
        np.testing.assert_array_equal(split.read(k).mask, ids // 255)


def test_a_data_set_of_bitmaps_is_checked_trained_and_predicted(tmp_path: Path, tiny: tuple[str, ...]) -> None:
    data_set(tmp_path / "data", ".bmp", ".gif")
    assert not pixelwise.check(tmp_path / "data").blocks
    run = pixelwise.train(tmp_path / "data", steps=1, out=tmp_path / "run", overrides=[*tiny, "train.crop=[16,16]"])
    for name in ("x.bmp", "x.jp2", "x.ppm", "arrays/y.npy"):
        write(tmp_path / "new" / name, np.zeros((20, 21, 3), np.uint8))
    done = pixelwise.predict(run.folder, tmp_path / "new", out=tmp_path / "out")
    assert not done.failed
    masks = sorted(path for path in (tmp_path / "out/masks").rglob("*") if path.is_file())
    assert [path.suffix for path in masks] == [".png"] * 4
    assert {Image.fromarray(read_mask_values(path).values).size for path in masks} == {(21, 20)}
