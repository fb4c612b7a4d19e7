"""What the values of masks mean is decided from all masks, wherever the one that decides is."""

from __future__ import annotations

import shlex
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pixelwise.config import Config, DataConfig, with_overrides
from pixelwise.datasets import mask_values
from pixelwise.datasets.dataset import DataSplits, open_data
from pixelwise.errors import LabelsError

MANY = 150
BINARY, IGNORING, CLASSES = ([0, 0, 255, 255], [0, 1, 255, 255], [0, 0, 1, 1])


def write(root: Path, masks: list[list[int]], dtype: type[np.generic] = np.uint8) -> Path:
    """Write masks of 2×2 pixels, or of any size if given as arrays, and images."""
    for kind in ("images", "masks"):
        (root / kind).mkdir(parents=True, exist_ok=True)
    for k, values in enumerate(masks):
        mask = np.array(values, dtype)
        mask = mask.reshape(2, 2) if mask.ndim == 1 else mask
        Image.fromarray(np.full(mask.shape, k, np.uint8)).save(root / "images" / f"{k:03}.png")
        Image.fromarray(mask).save(root / "masks" / f"{k:03}.png")
    return root


def opened(root: Path, *options: str) -> DataSplits:
    data = with_overrides(Config(), ["data.split.val=0", *options]).data
    return open_data(DataConfig.model_validate(data.model_dump()), root)


def read(splits: DataSplits) -> list[list[int]]:
    assert splits.train is not None
    masks = [splits.train.read(k).mask for k in range(len(splits.train))]
    return [mask.reshape(-1).tolist() for mask in masks if mask is not None]


@pytest.mark.parametrize("described", [False, True])
@pytest.mark.parametrize(
    ("usual", "odd"), [(BINARY, IGNORING), (BINARY, CLASSES), (CLASSES, BINARY), (IGNORING, BINARY)]
)
@pytest.mark.parametrize("place", [1, 76, MANY - 1])
def test_one_mask_that_contradicts_the_others_is_named(
    tmp_path: Path, described: bool, usual: list[int], odd: list[int], place: int
) -> None:
    masks = [usual] * MANY
    masks[place] = odd
    write(tmp_path, masks)
    if described:
        (tmp_path / "labels.yaml").write_text("names: [ground, crack]")
    with pytest.raises(LabelsError) as caught:
        opened(tmp_path)
    text, name = str(caught.value), f"masks/{place:03}.png"
    assert name in text
    assert ("masks/000.png" if place else "masks/001.png") in text
    for meaning, options in zip((1, 255), (caught.value.do.split("--set ")[k] for k in (1, 2)), strict=True):
        words = shlex.split(options.partition("}'")[0] + "}'")
        expected = [[meaning if value == 255 else value for value in values] for values in masks]
        assert read(opened(tmp_path, *words)) == expected


@pytest.mark.parametrize("described", [False, True])
@pytest.mark.parametrize("place", [1, 76, MANY - 1])
def test_one_mask_decides_what_it_can(tmp_path: Path, described: bool, place: int) -> None:
    """An ignored pixel in one mask, and the second class in one mask."""
    for k, (usual, odd) in enumerate([(CLASSES, IGNORING), ([0, 0, 0, 0], BINARY), ([0, 0, 0, 0], IGNORING)]):
        masks = [usual] * MANY
        masks[place] = odd
        root = write(tmp_path / str(k), masks)
        if described:
            (root / "labels.yaml").write_text("names: [ground, crack]")
        meaning = 1 if odd is BINARY else 255
        assert read(opened(root)) == [[meaning if value == 255 else value for value in values] for values in masks]


def test_a_stated_rule_needs_no_decision(tmp_path: Path) -> None:
    write(tmp_path, [BINARY, IGNORING])
    (tmp_path / "labels.yaml").write_text("{names: [ground, crack], ignore_index: 255}")
    assert read(opened(tmp_path)) == [BINARY, IGNORING]
    (tmp_path / "labels.yaml").unlink()
    assert read(opened(tmp_path, "data.mask_values={binary: false}")) == [BINARY, IGNORING]


def test_white_of_one_bit_is_the_second_class_beside_either(tmp_path: Path) -> None:
    for k, (values, bright) in enumerate([(BINARY, 255), (CLASSES, 1)]):
        for described in (False, True):
            root = write(tmp_path / f"{k}{described}", [values] * 2)
            Image.fromarray(np.array([[0, 0], [0, 255]], np.uint8)).convert("1").save(root / "masks" / "001.png")
            if described:
                (root / "labels.yaml").write_text("names: [ground, crack]")
            assert read(opened(root)) == [[int(value == bright) for value in values], [0, 0, 0, 1]]


def test_several_classes_may_leave_only_class_0_and_ignored_pixels_in_some_masks(tmp_path: Path) -> None:
    several = [0, 1, 2, 255]
    few = write(tmp_path / "few", [several, several, BINARY])
    assert read(opened(few)) == [several, several, BINARY]
    many = write(tmp_path / "many", [several, BINARY, BINARY])
    with pytest.raises(LabelsError, match=r"masks/001\.png: expected 255 with the same meaning in all masks") as caught:
        opened(many)
    words = shlex.split(caught.value.do.split("--set ")[1].partition("}'")[0] + "}'")
    assert read(opened(many, *words)) == [[0, 1, 2, 3], [0, 0, 3, 3], [0, 0, 3, 3]]


def test_one_smoothed_mask_is_found_and_named(tmp_path: Path) -> None:
    edge = np.tile(np.array([0, 0, 0, 40, 90, 170, 220, 255, 255, 255], np.uint8), (6, 1))
    masks = [np.where(edge > 127, 255, 0).tolist()] * MANY
    masks[76] = edge.tolist()
    with pytest.raises(LabelsError, match=r"4 grey values .*\(smoothed masks, such as 076\.png\)"):
        opened(write(tmp_path, masks))


def test_masks_that_number_no_objects_count_wherever_they_are(tmp_path: Path) -> None:
    """Every other mask has objects, and the others have classes in several regions."""
    objects = [np.arange(1 + k % 15, dtype=np.uint8).reshape(1, -1).repeat(2, 0).tolist() for k in range(MANY)]
    assert opened(write(tmp_path / "all", objects)).description["mask_values"] == {"objects": True}
    gaps = [[[0, 3, 9, 0, 9, 3, 0, 12, 0, 12]] for _ in range(MANY)]
    mixed = [gaps[k] if k % 2 else objects[k] for k in range(MANY)]
    assert opened(write(tmp_path / "mixed", mixed)).labels.num_classes == 15


def test_masks_are_read_once_until_they_change(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read_files: list[str] = []
    usual = mask_values.read_whole_mask
    monkeypatch.setattr(mask_values, "read_whole_mask", lambda path: (read_files.append(path.name), usual(path))[1])
    write(tmp_path, [BINARY] * 20)
    for _ in range(2):
        assert opened(tmp_path).description["mask_values"] == {0: 0, 255: 1}
        assert len(read_files) == 20
    Image.fromarray(np.full((2, 2), 3, np.uint8)).save(tmp_path / "masks" / "007.png")
    with pytest.raises(LabelsError, match=r"007\.png"):
        opened(tmp_path)
    assert read_files[20:] == ["007.png"]


def test_reading_ends_when_it_is_decided(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read_files: list[str] = []
    usual = mask_values.read_whole_mask
    monkeypatch.setattr(mask_values, "read_whole_mask", lambda path: (read_files.append(path.name), usual(path))[1])
    write(tmp_path, [BINARY, CLASSES, *[BINARY] * MANY])
    (tmp_path / "labels.yaml").write_text("names: [ground, crack]")
    with pytest.raises(LabelsError):
        opened(tmp_path)
    assert len(read_files) < MANY / 2
