"""Folders of images beside folders of masks."""

from __future__ import annotations

import re
import shlex
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pixelwise.config import Config, DataConfig, load_config, with_overrides
from pixelwise.datasets.dataset import open_data
from pixelwise.errors import ConfigError, DataError, PairingError
from pixelwise.formats import read_dataset
from pixelwise.formats.folders.names import find_tie, folder_roles
from pixelwise.formats.folders.search import OBJECTS
from pixelwise.formats.records import Layout


def put(root: Path, *names: str) -> Path:
    """Create empty files; layouts do not open images."""
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    return root


def find(root: Path, **config: object) -> Layout:
    return read_dataset(DataConfig.model_validate({"format": "masks"} | config), root, root)[1].layout


def pairs(layout: Layout, root: Path) -> dict[str, list[tuple[str, str]]]:
    shown = {}
    for split, records in layout.splits.items():
        assert all(record.mask for record in records)
        files = ((r.image.relative_to(root).as_posix(), r.mask.relative_to(root).as_posix()) for r in records if r.mask)
        shown[split] = list(files)
    return shown


def obey(root: Path, error: DataError | ConfigError, choice: int = 0) -> Layout:
    """Apply an option that a message offers, as a shell would."""
    chosen = error.do.split(", or ")[choice].partition("--set")[2].rstrip(".")
    words = shlex.split("--set" + chosen)
    texts = [word for word in words if word != "--set"]
    config = with_overrides(Config(data=DataConfig(format="masks")), texts).data
    return read_dataset(config, root, root)[1].layout


@pytest.mark.parametrize(
    "masks", ["mask", "Labels", "annot", "ground_truth", "ground-truth", "segmentations", "target"]
)
@pytest.mark.parametrize("images", ["imgs", "img", "Image", "JPEGImages", "inputs", "photos"])
def test_every_name_of_the_table_goes_with_every_other(tmp_path: Path, images: str, masks: str) -> None:
    put(tmp_path, f"{images}/a.jpg", f"{masks}/a.png")
    assert pairs(find(tmp_path), tmp_path) == {"pool": [(f"{images}/a.jpg", f"{masks}/a.png")]}


@pytest.mark.parametrize(
    ("images", "masks"),
    [
        ("train", "trainannot"),
        ("train", "train_labels"),
        ("train", "train-masks"),
        ("train", "Train_GT"),
        ("train_images", "train_masks"),
        ("train_img", "train_annotations"),
        ("images_train", "masks_train"),
        ("imagesTr", "labelsTr"),
    ],
)
def test_folders_that_share_the_rest_of_their_names(tmp_path: Path, images: str, masks: str) -> None:
    layout = find(put(tmp_path, f"{images}/x/a.jpg", f"{masks}/x/a.png"))
    assert pairs(layout, tmp_path) == {"train": [(f"{images}/x/a.jpg", f"{masks}/x/a.png")]}
    assert layout.splits["train"][0].id == "x/a"
    assert layout.notices == (f"images and masks were found by the names of their folders: {images}/ with {masks}/",)


def test_img_dir_goes_with_ann_dir(tmp_path: Path) -> None:
    layout = find(put(tmp_path, "img_dir/train/a.jpg", "ann_dir/train/a.png", "img_dir/val/b.jpg", "ann_dir/val/b.png"))
    assert pairs(layout, tmp_path) == {
        "train": [("img_dir/train/a.jpg", "ann_dir/train/a.png")],
        "val": [("img_dir/val/b.jpg", "ann_dir/val/b.png")],
    }


def test_folders_named_mask_images_hold_masks(tmp_path: Path) -> None:
    """mask_images/ may be images or masks; beside images/ it must be masks."""
    assert [role.kind for role in folder_roles("mask_images")] == ["image", "mask"]
    layout = find(put(tmp_path, "images/a.png", "mask_images/a.png"))
    assert pairs(layout, tmp_path) == {"pool": [("images/a.png", "mask_images/a.png")]}


def test_splits_by_the_names_of_folders_as_in_camvid(tmp_path: Path) -> None:
    put(tmp_path, "train/a.png", "trainannot/a.png", "val/a.png", "valannot/a.png", "test/c.png", "testannot/c.png")
    layout = find(tmp_path)
    assert {split: [r.id for r in records] for split, records in layout.splits.items()} == {
        "train": ["a"], "val": ["a"], "test": ["c"],
    }  # fmt: skip


def test_images_beside_their_folder_of_masks(tmp_path: Path) -> None:
    layout = find(put(tmp_path / "pool", "a.jpg", "x/b.jpg", "masks/a.png", "masks/x/b.png"))
    assert pairs(layout, tmp_path / "pool") == {"pool": [("a.jpg", "masks/a.png"), ("x/b.jpg", "masks/x/b.png")]}
    layout = find(put(tmp_path / "parts", "train/a.jpg", "train/masks/a.png", "val/b.jpg", "val/masks/b.png"))
    assert {split: [r.id for r in records] for split, records in layout.splits.items()} == {
        "train": ["a"],
        "val": ["b"],
    }
    layout = find(put(tmp_path / "inside", "train/a.jpg", "valid/b.jpg", "masks/train/a.png", "masks/valid/b.png"))
    assert list(layout.splits) == ["train", "val"]
    layout = find(put(tmp_path / "fov", "a.jpg", "masks/a.png", "fov/a.png"))
    assert [record.valid for record in layout.splits["pool"]] == [tmp_path / "fov/fov/a.png"]
    assert not layout.problems


def test_folders_in_archives_in_archives(tmp_path: Path) -> None:
    layout = find(put(tmp_path, "images/images/x/a.png", "masks/masks/x/a.png"))
    assert pairs(layout, tmp_path) == {"pool": [("images/images/x/a.png", "masks/masks/x/a.png")]}


def test_several_folders_are_combined_and_reported(tmp_path: Path) -> None:
    put(tmp_path, "s1/images/a.png", "s1/masks/a.png", "s2/imgs/a.png", "s2/gt/a.png")
    layout = find(tmp_path)
    assert [record.id for record in layout.splits["pool"]] == ["s1/a", "s2/a"]
    assert layout.notices == ("the images of several folders are combined: s1/, s2/",)


def test_a_similar_folder_without_masks_is_a_problem(tmp_path: Path) -> None:
    layout = find(put(tmp_path, "s1/images/a.png", "s1/masks/a.png", "s2/images/b.png"))
    assert [(p.file, p.why) for p in layout.problems] == [("s2/images/b.png", "image without a mask")]


def test_copies_beside_the_set_are_not_taken_for_more_images(tmp_path: Path) -> None:
    layout = find(put(tmp_path, "images/a.png", "masks/a.png", "backup/images/a.png", "backup/masks/a.png"))
    assert pairs(layout, tmp_path) == {"pool": [("images/a.png", "masks/a.png")]}
    assert layout.notices == ("2 files in no folder that goes with another: left out (backup/images/a.png, …)",)


def test_a_test_split_beside_a_pool(tmp_path: Path) -> None:
    layout = find(put(tmp_path, "images/a.png", "masks/a.png", "test/images/b.png", "test/masks/b.png"))
    assert {split: [r.id for r in records] for split, records in layout.splits.items()} == {
        "pool": ["a"],
        "test": ["b"],
    }


def test_a_test_split_without_masks_is_reported_but_train_needs_masks(tmp_path: Path) -> None:
    put(tmp_path, "train/images/a.png", "train/masks/a.png", "test/images/b.png", "test/images/c.png")
    layout = find(tmp_path)
    assert layout.notices == ("2 files in test, which has no masks: left out (test/images/b.png, …)",)
    assert not layout.problems
    layout = find(put(tmp_path / "other", "val/images/a.png", "val/masks/a.png", "train/images/b.png"))
    assert [problem.file for problem in layout.problems] == ["train/images/b.png"]


def test_names_twice_in_a_split_are_kept_apart(tmp_path: Path) -> None:
    put(tmp_path, "train1/images/a.png", "train1/masks/a.png", "train2/images/a.png", "train2/masks/a.png")
    assert [r.id for r in find(tmp_path).splits["train"]] == ["train1/images/a", "train2/images/a"]


# Ambiguous layouts -------------------------------------------------------------------------------------------------


def test_two_folders_of_masks_are_ambiguous(tmp_path: Path) -> None:
    put(tmp_path, "images/a.png", "images/b.png", "masks/a.png", "masks/b.png", "labels/a.png")
    with pytest.raises(PairingError) as error:
        find(tmp_path)
    assert str(error.value) == (
        f"{tmp_path}: expected one folder of images for one of masks, found images/ with labels/ (1 pair) and images/ with "
        "masks/ (2 pairs). Choose one: --set data.masks=labels, or --set data.masks=masks."
    )
    layout = obey(tmp_path, error.value, choice=1)
    assert pairs(layout, tmp_path) == {"pool": [("images/a.png", "masks/a.png"), ("images/b.png", "masks/b.png")]}
    assert layout.notices == ("1 file not named by data.masks: left out (labels/a.png)",)


def test_two_folders_of_images_are_ambiguous(tmp_path: Path) -> None:
    put(tmp_path, "images/a.png", "photos/a.jpg", "masks/a.png")
    with pytest.raises(
        PairingError, match=r"images/ with masks/ \(1 pair\) and photos/ with masks/ \(1 pair\)"
    ) as error:
        find(tmp_path)
    assert pairs(obey(tmp_path, error.value), tmp_path) == {"pool": [("images/a.png", "masks/a.png")]}


def test_a_folder_in_which_nothing_matches_is_left_out_and_reported(tmp_path: Path) -> None:
    layout = find(put(tmp_path, "images/a.png", "photos/z.png", "masks/a.png"))
    assert pairs(layout, tmp_path) == {"pool": [("images/a.png", "masks/a.png")]}
    assert layout.notices == ("photos/ holds no file that matches one in masks/ and is left out",)


def test_a_second_set_of_masks_is_left_out_but_two_without_a_first_are_ambiguous(tmp_path: Path) -> None:
    layout = find(put(tmp_path / "one", "images/a.png", "gt/a.png", "gt2/a.png"))
    assert pairs(layout, tmp_path / "one") == {"pool": [("images/a.png", "gt/a.png")]}
    assert layout.notices == ("gt2/ is a second set of masks beside gt/ and is left out",)
    with pytest.raises(PairingError, match=r"--set data\.masks=gt1, or --set data\.masks=gt2\."):
        find(put(tmp_path / "two", "images/a.png", "gt1/a.png", "gt2/a.png"))
    layout = find(put(tmp_path / "own", "images/a.png", "images2/b.png", "masks/a.png", "masks2/b.png"))
    assert len(layout.splits["pool"]) == 2


def test_folders_of_other_files_are_no_masks(tmp_path: Path) -> None:
    layout = find(put(tmp_path / "yolo", "images/a.png", "labels/a.txt", "masks/a.png"))
    assert pairs(layout, tmp_path / "yolo") == {"pool": [("images/a.png", "masks/a.png")]}
    with pytest.raises(DataError, match=r"as PNG or TIFF, found masks/ with only \.csv\. Add them, or set their"):
        find(put(tmp_path / "csv", "images/a.png", "masks/a.csv"))


def test_the_official_folders_of_drive(tmp_path: Path) -> None:
    """mask/ is the field of view; the vessels are in 1st_manual/, and those of a second observer in 2nd_manual/."""
    for split, word, first in (("training", "training", 21), ("test", "test", 1)):
        for k in range(first, first + 3):
            put(tmp_path, f"{split}/images/{k:02}_{word}.tif", f"{split}/mask/{k:02}_{word}_mask.gif")
            put(tmp_path, f"{split}/1st_manual/{k:02}_manual1.gif")
    put(tmp_path, "test/2nd_manual/01_manual2.gif")
    layout = find(tmp_path)
    assert pairs(layout, tmp_path)["train"][0] == (
        "training/images/21_training.tif",
        "training/1st_manual/21_manual1.gif",
    )
    assert {split: len(records) for split, records in layout.splits.items()} == {"train": 3, "test": 3}
    assert all(record.valid.parent.name == "mask" for record in layout.records)
    assert any("2nd_manual/01_manual2.gif" in notice for notice in layout.notices)
    assert not layout.problems


def test_the_configuration_may_name_a_folder_that_the_table_lacks(tmp_path: Path) -> None:
    put(tmp_path, "images/a.png", "truthmaps/a.png")
    assert len(find(tmp_path, masks="truthmaps").splits["pool"]) == 1
    with pytest.raises(
        ConfigError, match=r"data\.masks: expected a folder 'truthmap' of masks .*, found images/, truthmaps/\."
    ):
        find(tmp_path, masks="truthmap")
    with pytest.raises(
        ConfigError, match=r"data\.masks: expected the name of a folder, .* found 'masks/\*\.png'. Set the path"
    ):
        find(tmp_path, masks="masks/*.png")
    with pytest.raises(ConfigError, match=r"data\.valid: expected a folder 'fow' beside the images"):
        find(tmp_path, masks="truthmaps", valid="fow")


def test_folders_with_other_names_get_the_command_that_names_them(tmp_path: Path) -> None:
    put(tmp_path, "scans/a.jpg", "scans/b.jpg", "drawn by hand/a.png", "drawn by hand/b.png")
    with pytest.raises(DataError) as error:
        find(tmp_path)
    assert error.value.do == (
        "If drawn by hand/ holds the masks of scans/: --set 'data.images=scans/*' "
        "--set 'data.masks=drawn by hand/{stem}.png'."
    )
    assert len(obey(tmp_path, error.value).splits["pool"]) == 2


# Masks of valid pixels -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["fov", "roi", "valid"])
def test_masks_of_valid_pixels_are_used_and_reported(tmp_path: Path, name: str) -> None:
    layout = find(put(tmp_path, "images/a.png", "masks/a.png", f"{name}/a_{name}.png"))
    assert layout.splits["pool"][0].valid == tmp_path / name / f"a_{name}.png"
    assert layout.notices == (f"pixels that are zero in {name}/ are ignored (to use them: --set data.valid=none)",)
    assert find(tmp_path, valid="none").splits["pool"][0].valid is None
    assert find(tmp_path, valid=name).splits["pool"][0].valid is not None


def test_a_split_called_valid_is_no_mask_of_valid_pixels(tmp_path: Path) -> None:
    put(tmp_path, "train/images/a.png", "train/masks/a.png", "valid/images/a.png", "valid/masks/a.png")
    layout = find(tmp_path)
    assert {split: [r.valid for r in records] for split, records in layout.splits.items()} == {
        "train": [None],
        "val": [None],
    }


def test_an_image_without_its_mask_of_valid_pixels_is_a_problem(tmp_path: Path) -> None:
    layout = find(put(tmp_path, "images/a.png", "images/b.png", "masks/a.png", "masks/b.png", "fov/a.png"))
    assert [(p.file, p.why) for p in layout.problems] == [("images/b.png", "image without its mask of valid pixels")]
    with pytest.raises(
        PairingError, match=r"found fov/ and roi/\. Choose one: --set data\.valid=fov, or --set data\.valid=none"
    ):
        find(put(tmp_path, "roi/a.png", "roi/b.png", "fov/b.png"))


# Real data sets -----------------------------------------------------------------------------------------------------------


def test_real_drive_needs_no_configuration(real: Callable[[str], Path]) -> None:
    root = real("drive")
    splits = open_data(DataConfig(), root)
    assert {split.name: len(split) for split in splits} == {"train": 16, "val": 4, "test": 20}
    for split in splits:
        for record in split.records:
            assert record.mask is not None
            assert record.valid is not None
            assert record.image.stem == record.mask.stem == record.valid.stem
            assert (record.mask.parent.name, record.valid.parent.name) == ("gt", "fov")
            assert record.image.parents[1] == record.mask.parents[1] == record.valid.parents[1]
    assert "test/gt2/ is a second set of masks beside gt/ and is left out" in splits.notices
    config = load_config(Path(__file__).parents[2] / "recipes" / "drive.yaml").data.model_copy(
        update={"root": str(root)}
    )
    assert splits.test is not None
    by_recipe = open_data(config, root).test
    assert by_recipe is not None
    np.testing.assert_array_equal(by_recipe.read(3).mask, splits.test.read(3).mask)


# Every file is accounted for -------------------------------------------------------------------------------------------------------

NAMES = st.sampled_from(
    ["images", "masks", "labels", "gt", "gt2", "fov", "train", "trainannot", "val", "test", "Imgs", "x", "train_masks"]
)
FILES = st.sampled_from(["a.png", "b.png", "a.jpg", "a_mask.png", "b_seg.png", "c_sat.jpg", "c_mask.png", "a.txt"])


@settings(max_examples=200, deadline=None, database=None)
@given(st.sets(st.tuples(st.lists(NAMES, max_size=3), FILES).map(lambda n: "/".join([*n[0], n[1]])), max_size=12))
def test_every_image_is_paired_or_reported(tmp_path_factory: pytest.TempPathFactory, names: set[str]) -> None:
    root = put(tmp_path_factory.mktemp("any"), *names)
    try:
        layout = find(root)
    except (DataError, ConfigError):
        return  # reported as an error
    used = [p for own in layout.splits.values() for r in own for p in (r.image, r.mask, r.valid) if p is not None]
    assert len(used) == len(set(used)), "no file is used twice"
    left = {n for n in names if not n.endswith(".txt")} - {p.relative_to(root).as_posix() for p in used}
    if not layout.problems and not any("in no folder of a split" in notice for notice in layout.notices):
        # Problems and this notice do not list the masks of the images that they list.
        aside = [m[1] + "/" for notice in layout.notices if (m := re.match(r"(\S+)/ (?:is a second|holds no)", notice))]
        told = sum(int(m[1]) for notice in layout.notices if (m := re.match(r"([0-9]+) files? ", notice)))
        assert len([name for name in left if not name.startswith(tuple(aside))]) == told
    assert not left or layout.notices or layout.problems
    for own in layout.splits.values():
        assert len({record.id for record in own}) == len(own)


def test_a_mask_of_valid_pixels_without_an_image_is_reported(tmp_path: Path) -> None:
    layout = find(put(tmp_path, "a.png", "masks/a.png", "fov/a.png", "fov/b.png"))
    assert [record.valid for record in layout.splits["pool"]] == [tmp_path / "fov/a.png"]
    assert any(notice.startswith("1 file ") and "fov/b.png" in notice for notice in layout.notices)


# Several masks of one image -----------------------------------------------------------------------------------------


def told(layout: Layout) -> set[str]:
    return {problem.do for problem in layout.problems if problem.do}


def test_a_folder_for_every_image_with_a_mask_for_every_object(tmp_path: Path) -> None:
    for name in ("1a", "2b"):
        put(tmp_path, f"s/{name}/images/{name}.png", f"s/{name}/masks/q.png", f"s/{name}/masks/r.png")
    (message,) = told(find(tmp_path))
    assert message == OBJECTS
    with pytest.raises(PairingError, match=r"If each of them is one object, merge them into one mask per image"):
        open_data(DataConfig(), tmp_path)
    with pytest.raises(DataError, match=r"none that can be used \(image without a mask: 2 .* image: 4 .* If each"):
        open_data(DataConfig(skip_bad=True), tmp_path)


@pytest.mark.parametrize(
    "masks",
    [
        [f"{n}_0.png" for n in "abcd"] + ["a_1.png"],
        ["a.png", "b.png", "c.png", "d.png", "a_2.png", "a_3.png", "a_4.png"],
        ["a/1.png", "a/2.png", "b/1.png", "c/1.png", "c/2.png", "d/1.png", "d/2.png"],
    ],
)
def test_objects_in_files_of_their_own(tmp_path: Path, masks: list[str]) -> None:
    layout = find(put(tmp_path, *(f"images/{n}.jpg" for n in "abcd"), *(f"masks/{name}" for name in masks)))
    assert told(layout) == {OBJECTS}


def test_numbers_behind_all_names_are_ambiguous_as_objects(tmp_path: Path) -> None:
    put(tmp_path, "images/a.jpg", "images/b.jpg", *(f"masks/{n}_mask_{k}.png" for n in "ab" for k in (1, 2)))
    with pytest.raises(PairingError) as error:
        find(tmp_path)
    assert error.value.do.startswith(
        OBJECTS + " If one is the ground truth: --set 'data.masks=\"{stem}_mask_1.png\"', or "
    )


def test_a_folder_of_masks_for_every_class(tmp_path: Path) -> None:
    put(tmp_path, "images/1.jpg", "images/2.jpg", "masks/car/1.tif", "masks/road/1.tif", "masks/road/2.tif")
    with pytest.raises(PairingError) as error:
        open_data(DataConfig(), tmp_path)
    assert error.value.do == (
        "If masks/car/, masks/road/ hold the masks of one class each, merge them into one mask per image, with an id"
        " for each class. If one of them is the ground truth: --set 'data.images=images/*' --set 'data.masks=masks/car/{stem}.tif'."
    )
    deep = put(tmp_path / "deep", "images/x/1.jpg", "masks/car/x/1.png", "masks/road/x/1.png")
    (message,) = told(find(deep))
    assert message.startswith("If masks/…/car/, masks/…/road/ hold")


def test_files_without_a_partner_get_no_such_advice(tmp_path: Path) -> None:
    layout = find(put(tmp_path, *(f"images/{n}.jpg" for n in "abc"), "masks/a.png", "masks/b.png", "masks/z.png"))
    assert len(layout.problems) == 2
    assert not told(layout)


def test_many_masks_with_long_names_are_fast() -> None:
    """DSB 2018 has 670 folders with names of 64 letters: 2,080 pieces each, of which one is as long as an image's name."""
    masks: dict[str, list[Path]] = {f"{k << 200:064x}": [] for k in range(1, 25)}
    start = time.process_time()
    for k in range(1, 671):
        assert find_tie({f"{k:064x}": []}, masks).count == 0
    assert time.process_time() - start < 2


# Left out ---------------------------------------------------------------------------------------------


def test_a_test_folder_inside_images_without_masks_is_reported(tmp_path: Path) -> None:
    put(tmp_path, "images/train/a.png", "masks/train/a.png", "images/test/b.png", "images/test/c.png")
    layout = find(tmp_path)
    assert pairs(layout, tmp_path) == {"train": [("images/train/a.png", "masks/train/a.png")]}
    assert layout.notices == ("2 files in test, which has no masks: left out (images/test/b.png, …)",)
    assert not layout.problems
    layout = find(put(tmp_path, "masks/test/b.png"))
    assert [(p.file, p.why) for p in layout.problems] == [("images/test/c.png", "image without a mask")]


def test_images_of_kinds_that_are_not_read_are_reported(tmp_path: Path) -> None:
    layout = find(put(tmp_path / "some", "images/a.png", "masks/a.png", "images/b.heic", "masks/b.TGA"))
    assert layout.notices == (
        "2 files of kinds that cannot be read (.heic, .tga): left out (images/b.heic, …). Save them as PNG, with the same values",
    )
    with pytest.raises(
        DataError,
        match=r"expected images and masks as PNG, .*, found 2 files of other kinds \(\.tga\)\. Save them",
    ):
        find(
            put(tmp_path / "textures", "train/a.jpg", "train/b.jpg", "train_masks/a_mask.tga", "train_masks/b_mask.tga")
        )


@pytest.mark.parametrize(
    "kind", [".bmp", ".gif", ".jp2", ".J2K", ".pgm", ".ppm", ".npy", ".npz", ".avif", ".jfif", ".JPE"]
)
def test_every_suffix_of_an_image_is_paired(tmp_path: Path, kind: str) -> None:
    layout = find(put(tmp_path / "images", f"images/a{kind}", "masks/a.png"))
    assert pairs(layout, tmp_path / "images") == {"pool": [(f"images/a{kind}", "masks/a.png")]}
    layout = find(put(tmp_path / "masks", "images/a.jpg", f"masks/a{kind}"))
    assert pairs(layout, tmp_path / "masks") == {"pool": [("images/a.jpg", f"masks/a{kind}")]}
    layout = find(put(tmp_path / "beside", "a.jpg", f"a_mask{kind}"))
    assert pairs(layout, tmp_path / "beside") == {"pool": [("a.jpg", f"a_mask{kind}")]}


def test_volumes_that_cannot_be_read_are_named_with_their_conversion(tmp_path: Path) -> None:
    layout = find(put(tmp_path / "some", "images/a.png", "masks/a.png", "ct/b.mha"))
    assert "cannot be read (.mha): left out (ct/b.mha). Convert the volumes to NIfTI" in layout.notices[0]
    with pytest.raises(
        DataError, match=r"\.mgz, \.mha\)\. Convert .*\(SimpleITK.ReadImage\('a\.mha'\), 'a\.nii\.gz'\)"
    ):
        find(put(tmp_path / "all", "images/a.mha", "masks/a.mgz"))
