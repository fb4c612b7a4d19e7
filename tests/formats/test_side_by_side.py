"""Images and masks side by side in one folder."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from pixelwise.config import Config, DataConfig, with_overrides
from pixelwise.datasets.dataset import open_data
from pixelwise.errors import DataError, LabelsError, PairingError
from pixelwise.formats import read_dataset
from pixelwise.formats.folders.names import Role, stem_role
from pixelwise.formats.records import Layout


def put(root: Path, *names: str) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    return root


def find(root: Path, **config: object) -> Layout:
    return read_dataset(DataConfig.model_validate({"format": "masks"} | config), root, root)[1].layout


def pairs(layout: Layout, root: Path) -> list[tuple[str, str]]:
    records = [record for own in layout.splits.values() for record in own]
    return sorted(
        (r.image.relative_to(root).as_posix(), r.mask.relative_to(root).as_posix()) for r in records if r.mask
    )


def obey(root: Path, words: list[str]) -> Layout:
    return read_dataset(with_overrides(Config(data=DataConfig(format="masks")), words).data, root, root)[1].layout


def options(error: DataError) -> list[list[str]]:
    """Parse the options that a message offers, as a shell would."""
    offers = error.do.partition("--set")[2].rstrip(".").split(", or ")
    return [[word for word in shlex.split("--set" + one.removeprefix("--set")) if word != "--set"] for one in offers]


@pytest.mark.parametrize(
    "mask",
    [
        "a_mask",
        "a_masks",
        "a_seg",
        "a_segmentation",
        "a_label",
        "a_gt",
        "a_GT",
        "a_L",
        "a_P",
        "mask_a",
        "a-mask",
        "a.mask",
    ],
)
@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_masks_named_as_their_images_with_a_word(tmp_path: Path, mask: str, suffix: str) -> None:
    layout = find(put(tmp_path, f"x/y/a{suffix}", f"x/y/{mask}{suffix}"))
    assert pairs(layout, tmp_path) == [(f"x/y/a{suffix}", f"x/y/{mask}{suffix}")]
    assert layout.notices == (f"masks are beside their images in x/y/: a{suffix} with {mask}{suffix}",)
    assert not layout.problems


@pytest.mark.parametrize("stem", ["street", "mask", "L", "a_l", "unlabel", "gt", "1_2", "_mask"])
def test_stems_without_a_role(stem: str) -> None:
    assert stem_role(stem) is None


def test_words_at_the_end_come_before_those_at_the_beginning() -> None:
    assert stem_role("image_1_mask") == Role("mask", "image_1")
    assert stem_role("image_1") == Role("image", "1")
    assert stem_role("benign (3)_mask_1") == Role("mask", "benign (3)", 1)


def test_images_with_a_word_of_their_own(tmp_path: Path) -> None:
    layout = find(put(tmp_path, "train/1_sat.jpg", "train/1_mask.png", "valid/2_sat.jpg", "test/3_sat.jpg"))
    assert pairs(layout, tmp_path) == [("train/1_sat.jpg", "train/1_mask.png")]
    assert list(layout.splits) == ["train"]
    assert layout.notices[1:] == (
        "1 file in test, which has no masks: left out (test/3_sat.jpg)",
        "1 file in val, which has no masks: left out (valid/2_sat.jpg)",
    )


def test_lossy_images_with_masks_of_the_same_name(tmp_path: Path) -> None:
    put(tmp_path, "A/Imgs/1.jpg", "A/Imgs/1.png", "B/Imgs/1.JPEG", "B/Imgs/1.PNG", "B/Imgs/2.webp", "B/Imgs/2.tif")
    layout = find(tmp_path)
    assert pairs(layout, tmp_path) == [
        ("A/Imgs/1.jpg", "A/Imgs/1.png"), ("B/Imgs/1.JPEG", "B/Imgs/1.PNG"), ("B/Imgs/2.webp", "B/Imgs/2.tif"),
    ]  # fmt: skip
    assert [record.id for record in layout.splits["pool"]] == ["A/Imgs/1", "B/Imgs/1", "B/Imgs/2"]
    assert layout.notices[0].endswith(", in 2 folders, whose names are not read as classes")


def test_files_without_splitner(tmp_path: Path) -> None:
    put(tmp_path, "A/Imgs/1.jpg", "A/Imgs/1.png", "A/Imgs/2.jpg", "A/Imgs/3_mask.png", "Free/Imgs/4.jpg", "docs/5.png")
    layout = find(tmp_path)
    assert sorted((problem.file, problem.why) for problem in layout.problems) == [
        ("A/Imgs/2.jpg", "image without a mask"),
        ("A/Imgs/3_mask.png", "mask without an image"),
        ("Free/Imgs/4.jpg", "image without a mask"),
    ]
    assert layout.notices[1:] == ("1 file in no folder that goes with another: left out (docs/5.png)",)


def test_several_masks_of_one_image_in_pieces_are_problems(tmp_path: Path) -> None:
    put(tmp_path, "b (1).png", "b (1)_mask.png", "b (2).png", "b (2)_mask.png", "b (2)_mask_1.png")
    layout = find(tmp_path)
    assert pairs(layout, tmp_path) == [("b (1).png", "b (1)_mask.png")]
    assert {problem.file for problem in layout.problems} == {"b (2).png", "b (2)_mask.png", "b (2)_mask_1.png"}


def test_two_masks_that_claim_one_image_are_ambiguous(tmp_path: Path) -> None:
    put(tmp_path, "x.jpg", "x_mask.png", "x_seg.png", "y.jpg", "y_mask.png", "y_seg.png")
    with pytest.raises(PairingError) as error:
        find(tmp_path)
    assert str(error.value) == (
        "x.jpg: expected one image and one mask, found x.jpg and x_mask.png and x_seg.png. Choose the mask: "
        "--set 'data.masks=\"{stem}_mask.png\"', or --set 'data.masks=\"{stem}_seg.png\"'."
    )
    for words, mask in zip(options(error.value), ("mask", "seg"), strict=True):
        layout = obey(tmp_path, words)
        assert pairs(layout, tmp_path) == [("x.jpg", f"x_{mask}.png"), ("y.jpg", f"y_{mask}.png")]
        assert layout.notices[1].startswith("2 files not named by data.masks: left out (x_")


def test_either_of_two_lossless_files_may_be_the_mask(tmp_path: Path) -> None:
    put(tmp_path, "d/x.tif", "d/x.png")
    with pytest.raises(
        PairingError, match=r"d/x\.png: expected an image and its mask, found x\.png and x\.tif"
    ) as error:
        find(tmp_path)
    found = [obey(tmp_path, words) for words in options(error.value)]
    assert [pairs(layout, tmp_path) for layout in found] == [[("d/x.tif", "d/x.png")], [("d/x.png", "d/x.tif")]]


def test_an_image_that_may_be_the_mask_of_another_is_ambiguous(tmp_path: Path) -> None:
    put(tmp_path, "x.jpg", "x.png", "x_mask.png")
    with pytest.raises(PairingError, match=r"found x\.jpg and x\.png and x_mask\.png") as error:
        find(tmp_path)
    found = [obey(tmp_path, words) for words in options(error.value)]
    assert [pairs(layout, tmp_path) for layout in found] == [[("x.jpg", "x.png")], [("x.jpg", "x_mask.png")]]


def test_folders_that_belong_together_come_first(tmp_path: Path) -> None:
    layout = find(put(tmp_path, "images/a.jpg", "images/a.png", "masks/a.png"))
    assert [(problem.file, problem.why) for problem in layout.problems] == [
        ("images/a.jpg", "several images of the same name (also a.png)")
    ]


def test_real_magnetic_tile_needs_one_option(real: Callable[[str], Path]) -> None:
    root = real("magnetic_tile")
    layout = find(root)
    assert len(layout.splits["pool"]) == 492
    assert not layout.problems
    assert all(record.mask == record.image.with_suffix(".png") for record in layout.splits["pool"])
    with pytest.raises(
        LabelsError, match=r"expected class ids in the masks, found dark and bright, and \d+ grey"
    ) as error:
        open_data(DataConfig(), root)
    words = shlex.split(error.value.do.partition("128: ")[2].partition("}'.")[0] + "}'")
    assert words == ["--set", "data.mask_values={threshold: 128}"]
    splits = open_data(with_overrides(Config(), words[1:]).data, root)
    assert sum(len(split) for split in splits) == 492
    assert splits.train is not None
    mask = splits.train.read(0).mask
    assert mask is not None
    assert set(np.unique(mask).tolist()) <= {0, 1}


def test_names_below_the_current_folder_are_not_cut(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(put(tmp_path, "a.jpg", "a_mask.png", "b.jpg", "b_mask.png"))
    assert [record.id for record in find(Path()).splits["pool"]] == ["a", "b"]


def test_accents_in_names_are_equal_however_they_are_stored(tmp_path: Path) -> None:
    layout = find(put(tmp_path, "caf\u00e9.jpg", "cafe\u0301_mask.png"))
    assert len(pairs(layout, tmp_path)) == 1
