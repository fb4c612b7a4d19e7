"""Whatever stops training, `check` reports as an error (exit code 1) or raises."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

import pixelwise
from pixelwise.errors import PixelwiseError
from pixelwise.training.run import Request, train_run

SIZE = 32
rng = np.random.default_rng(0)


def truth(size: tuple[int, int] = (SIZE, SIZE)) -> np.ndarray:
    mask = np.zeros(size, np.uint8)
    mask[:, size[1] // 2 :] = 1
    return mask


def picture(*shape: int, dtype: str = "uint8") -> np.ndarray:
    return (rng.random(shape or (SIZE, SIZE, 3)) * 200).astype(dtype)


def put(path: Path, array: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".tif":
        photometric = "rgb" if array.ndim == 3 and array.shape[-1] == 3 and array.dtype == np.uint8 else "minisblack"
        tifffile.imwrite(path, array, photometric=photometric, planarconfig="contig" if array.ndim == 3 else None)
    else:
        Image.fromarray(array).save(path)


def draw(
    root: Path, image: Callable[[], np.ndarray] = picture, suffix: str = ".png", counts: tuple[int, int] = (4, 3)
) -> Path:
    """Draw a valid data set of two splits."""
    for split, count in zip(("train", "val"), counts, strict=True):
        for k in range(count):
            array = image()
            put(root / split / "images" / f"{split}{k}{suffix}", array)
            put(root / split / "masks" / f"{split}{k}.png", truth(array.shape[:2]))
    (root / "labels.yaml").write_text("names: [ground, road]\n")
    return root


def masks(root: Path, split: str) -> list[Path]:
    return sorted((root / split / "masks").iterdir())


def images(root: Path, split: str) -> list[Path]:
    return sorted((root / split / "images").iterdir())


def fill_masks(value: int, *splits: str) -> Callable[[Path], None]:
    def spoil(root: Path) -> None:
        draw(root)
        for split in splits:
            for path in masks(root, split):
                put(path, np.full((SIZE, SIZE), value, np.uint8))

    return spoil


def replace_image(split: str, array: Callable[[], np.ndarray], suffix: str = ".png") -> Callable[[Path], None]:
    def spoil(root: Path) -> None:
        draw(root)
        path = images(root, split)[1]
        path.unlink()
        put(path.with_suffix(suffix), array())

    return spoil


def replace_mask(split: str, array: Callable[[], np.ndarray], suffix: str = ".png") -> Callable[[Path], None]:
    def spoil(root: Path) -> None:
        draw(root)
        path = masks(root, split)[1]
        path.unlink()
        put(path.with_suffix(suffix), array())

    return spoil


def floats(change: Callable[[np.ndarray], None]) -> Callable[[Path], None]:
    """Images of floats of which a corner, or more, is changed."""

    def image() -> np.ndarray:
        array = picture(SIZE, SIZE, dtype="float64")
        change(array)
        return array

    return lambda root: draw(root, image, ".tif") and None


def corner(value: float) -> Callable[[np.ndarray], None]:
    def change(array: np.ndarray) -> None:
        array[:8] = value

    return change


def truncate(split: str, which: Callable[[Path, str], list[Path]]) -> Callable[[Path], None]:
    def spoil(root: Path) -> None:
        draw(root)
        path = which(root, split)[1]
        path.write_bytes(path.read_bytes()[:-30])

    return spoil


def remove(split: str, which: Callable[[Path, str], list[Path]], all_: bool = False) -> Callable[[Path], None]:
    def spoil(root: Path) -> None:
        draw(root)
        for path in which(root, split)[: None if all_ else 1]:
            path.unlink()

    return spoil


def no_data(root: Path) -> None:
    """Images whose only value is their nodata value."""
    for split, count in (("train", 4), ("val", 3)):
        for k in range(count):
            path = root / split / "images" / f"{split}{k}.tif"
            path.parent.mkdir(parents=True, exist_ok=True)
            tifffile.imwrite(path, np.zeros((SIZE, SIZE), np.uint8), extratags=[(42113, "s", 0, "0", True)])
            put(root / split / "masks" / f"{split}{k}.png", truth())
    (root / "labels.yaml").write_text("names: [ground, road]\n")


def coco(annotations: list[dict[str, object]]) -> Callable[[Path], None]:
    def spoil(root: Path) -> None:
        for k in range(4):
            put(root / f"{k}.png", picture())
        described = [{"id": k, "file_name": f"{k}.png", "width": SIZE, "height": SIZE} for k in range(4)]
        plain = {"images": described, "categories": [{"id": 1, "name": "road"}], "annotations": annotations}
        (root / "annotations.json").write_text(json.dumps(plain))

    return spoil


def labels(text: str) -> Callable[[Path], None]:
    def spoil(root: Path) -> None:
        draw(root)
        (root / "labels.yaml").write_text(text)

    return spoil


BROKEN: dict[str, Callable[[Path], None]] = {
    "no mask": remove("train", masks),
    "no image": remove("val", images),
    "no masks": remove("train", masks, all_=True),
    "truncated image in train": truncate("train", images),
    "truncated image in val": truncate("val", images),
    "truncated mask": truncate("train", masks),
    "mask of another size": replace_mask("val", lambda: truth((SIZE, SIZE + 1))),
    "unknown id in train": replace_mask("train", lambda: truth() * np.uint8(7)),
    "unknown id in val": replace_mask("val", lambda: truth() * np.uint8(7)),
    "coloured mask": replace_mask("train", lambda: np.full((SIZE, SIZE, 3), (1, 2, 3), np.uint8)),
    "lossy mask": replace_mask("train", truth, ".jpg"),
    "fractions in a mask": replace_mask("train", lambda: truth() / np.float32(2), ".tif"),
    "one class": fill_masks(1, "train", "val"),
    "one class in train": fill_masks(0, "train"),
    "train ignored": fill_masks(255, "train"),
    "val ignored": fill_masks(255, "val"),
    "other bands in train": replace_image("train", lambda: picture(SIZE, SIZE, 4, dtype="uint8"), ".tif"),
    "other bands in val": replace_image("val", lambda: picture(SIZE, SIZE, 5), ".tif"),
    "other type in train": replace_image("train", lambda: picture(SIZE, SIZE, 3, dtype="uint16"), ".tif"),
    "other type in val": replace_image("val", lambda: picture(SIZE, SIZE, 3, dtype="uint16"), ".tif"),
    "several pages": replace_image("train", lambda: picture(2, SIZE, SIZE), ".tif"),
    "complex numbers": replace_image("train", lambda: picture(SIZE, SIZE, dtype="complex64"), ".tif"),
    "NaN": floats(corner(np.nan)),
    "only NaN": floats(lambda array: array.fill(np.nan)),
    "infinity": floats(corner(np.inf)),
    "1e300": floats(corner(1e300)),
    "-1.8e308": floats(corner(-1.79e308)),
    "up to 1e200": floats(lambda array: np.multiply(array, 1e200, out=array)),
    "no data anywhere": no_data,
    "one pixel": lambda root: draw(root, lambda: picture(1, 1, 3)) and None,
    "one image": lambda root: draw(root, counts=(1, 0)) and None,
    "only val": lambda root: draw(root, counts=(0, 3)) and None,
    "nothing annotated": coco([]),
    "broken labels": labels("names: [ground, ground]\n"),
    "labels of other ids": labels("names: {5: ground, 6: road}\n"),
    "more classes than ids": labels("names: [ground]\n"),
}
EXTREME: dict[str, Callable[[Path], None]] = {
    "-3.4e38": floats(corner(float(np.finfo(np.float32).min))),
    "-9999": floats(corner(-9999)),
    "one row": lambda root: draw(root, lambda: picture(1, 40, 3)) and None,
    "constant": lambda root: draw(root, lambda: np.full((SIZE, SIZE, 3), 9, np.uint8)) and None,
    "int64": lambda root: draw(root, lambda: picture(SIZE, SIZE, dtype="int64") * 2**52, ".tif") and None,
}


def stops_training(data: Path, out: Path, *, skip_bad: bool = False) -> str:
    """Train for one step; return the error that stops it, or an empty text."""
    settings = ("model.features=[4, 8]", "evaluate.report=false")
    try:
        train_run(Request(str(data), steps=1, overrides=settings, skip_bad=skip_bad), out)
    except PixelwiseError as error:
        return str(error)
    return ""


def stops_check(data: Path, *overrides: str) -> bool:
    try:
        return pixelwise.check(data, overrides=overrides).blocks
    except PixelwiseError:
        return True


@pytest.mark.parametrize("name", BROKEN)
def test_check_stops_where_training_stops(tmp_path: Path, name: str) -> None:
    (tmp_path / "data").mkdir()
    BROKEN[name](tmp_path / "data")
    assert stops_training(tmp_path / "data", tmp_path / "run")
    assert stops_check(tmp_path / "data")


@pytest.mark.parametrize("which", [images, masks])
@pytest.mark.parametrize("split", ["train", "val"])
def test_check_stops_where_nothing_is_left_of_a_split(
    tmp_path: Path, split: str, which: Callable[[Path, str], list[Path]]
) -> None:
    draw(tmp_path / "data")
    for path in which(tmp_path / "data", split):
        path.write_bytes(path.read_bytes()[:-30])
    assert stops_training(tmp_path / "data", tmp_path / "run", skip_bad=True)
    assert stops_check(tmp_path / "data", "data.skip_bad=true")


@pytest.mark.parametrize("name", EXTREME)
def test_extreme_values_break_neither(tmp_path: Path, name: str) -> None:
    (tmp_path / "data").mkdir()
    EXTREME[name](tmp_path / "data")
    assert not stops_training(tmp_path / "data", tmp_path / "run")
    stops_check(tmp_path / "data")


def test_what_trains_passes_the_check(tmp_path: Path) -> None:
    draw(tmp_path / "data")
    assert not stops_training(tmp_path / "data", tmp_path / "run")
    assert not stops_check(tmp_path / "data")
