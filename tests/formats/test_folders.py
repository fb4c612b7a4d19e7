import os
from pathlib import Path

import pytest

from pixelwise.config import DataConfig, SplitFilesConfig
from pixelwise.errors import ConfigError, DataError, PairingError
from pixelwise.formats import read_dataset
from pixelwise.formats.records import Layout


def put(root: Path, *names: str) -> Path:
    """Create empty files; layouts do not open images."""
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    return root


def find(root: Path, **config: object) -> Layout:
    return read_dataset(DataConfig.model_validate(config), root, root)[1].layout


def ids(layout: Layout) -> dict[str, list[str]]:
    return {split: [record.id for record in records] for split, records in layout.splits.items()}


def why(layout: Layout) -> list[tuple[str, str]]:
    return sorted((problem.file, problem.why) for problem in layout.problems)


@pytest.mark.parametrize("masks", ["masks", "labels", "annotations", "gt", "groundtruth"])
def test_one_pool_with_any_name_of_the_masks_folder(tmp_path: Path, masks: str) -> None:
    put(tmp_path, "images/b.jpg", "images/a.PNG", "images/notes.txt", "images/.hidden.png")
    layout = find(put(tmp_path, f"{masks}/a.png", f"{masks}/b.tif"))
    assert ids(layout) == {"pool": ["a", "b"]}
    assert layout.splits["pool"][1].mask == tmp_path / masks / "b.tif"
    assert not layout.problems


def test_folders_inside_images_are_mirrored(tmp_path: Path) -> None:
    layout = find(put(tmp_path, "images/x/1.jpg", "images/y/1.jpg", "masks/x/1.png", "masks/y/1.png"))
    assert ids(layout) == {"pool": ["x/1", "y/1"]}
    assert not layout.problems


def test_splits_outside(tmp_path: Path) -> None:
    put(tmp_path, "train/images/a.png", "train/masks/a.png", "valid/images/b.png", "valid/labels/b.png")
    assert ids(find(put(tmp_path, "test/images/c.png", "test/gt/c.png"))) == {
        "train": ["a"],
        "val": ["b"],
        "test": ["c"],
    }


def test_splits_inside(tmp_path: Path) -> None:
    put(tmp_path, "images/train/a.png", "masks/train/a.png", "images/val/a.png", "masks/val/a.png")
    assert ids(find(tmp_path)) == {"train": ["a"], "val": ["a"]}


def test_lists_beside_images(tmp_path: Path) -> None:
    put(tmp_path, *(f"images/{n}.jpg" for n in "abcd"), *(f"masks/{n}.png" for n in "abcd"), "splits/val.txt")
    (tmp_path / "splits/train.txt").write_text("# first\na\nimages/b.jpg\n\n")
    (tmp_path / "splits/val.txt").write_text("./c.jpg\r\n")
    layout = find(tmp_path)
    assert ids(layout) == {"train": ["a", "b"], "val": ["c"]}
    assert layout.notices == ("1 of 4 images are in no list and are left out",)


def test_without_a_list_of_train_the_rest_is_train(tmp_path: Path) -> None:
    put(tmp_path, *(f"images/{n}.jpg" for n in "abc"), *(f"masks/{n}.png" for n in "abc"), "splits/x")
    (tmp_path / "splits/val.txt").write_text("c\n")
    layout = find(tmp_path)
    assert ids(layout) == {"val": ["c"], "train": ["a", "b"]}
    assert layout.notices == ("2 of 3 images are in no list and become the train split",)


def test_lists_need_masks_only_for_what_they_name(tmp_path: Path) -> None:
    put(tmp_path, "images/a.jpg", "images/b.jpg", "images/c.jpg", "masks/a.png", "masks/z.png", "splits/x")
    (tmp_path / "splits/train.txt").write_text("a\nb\n")
    assert why(find(tmp_path)) == [("images/b.jpg", "image without a mask")]


def test_listed_names_of_no_image_or_of_several(tmp_path: Path) -> None:
    put(tmp_path, "images/x/1.jpg", "images/y/1.jpg", "masks/x/1.png", "masks/y/1.png", "splits/x")
    (tmp_path / "splits/train.txt").write_text("1\nx/1\nq\n")
    assert why(find(tmp_path)) == [
        ("train.txt: 1", "listed, but names several images"),
        ("train.txt: q", "listed, but no such image"),
    ]


def test_an_image_in_two_lists(tmp_path: Path) -> None:
    put(tmp_path, "images/a.jpg", "masks/a.png", "splits/x")
    (tmp_path / "splits/train.txt").write_text("a\n")
    (tmp_path / "splits/test.txt").write_text("a\n")
    with pytest.raises(PairingError, match=r"expected every image in one split, found a in train and test. Remove it"):
        find(tmp_path)


def test_lists_that_the_configuration_names(tmp_path: Path) -> None:
    put(tmp_path, "p/a.jpg", "p/b.jpg", "m/a_mask.png", "m/b_mask.png")
    (tmp_path / "mine.txt").write_text("b\n")
    layout = find(tmp_path, images="p/*.jpg", masks="m/{stem}_mask.png", test="mine.txt")
    assert ids(layout) == {"test": ["p/b"], "train": ["p/a"]}
    with pytest.raises(ConfigError, match=r"data.val: expected the list none.txt, found no such file"):
        find(tmp_path, images="p/*.jpg", masks="m/{stem}_mask.png", val="none.txt")


def test_files_without_splitner_in_both_directions(tmp_path: Path) -> None:
    layout = find(put(tmp_path, "images/a.png", "images/b.png", "masks/a.png", "masks/c.png"))
    assert ids(layout) == {"pool": ["a"]}
    assert why(layout) == [("images/b.png", "image without a mask"), ("masks/c.png", "mask without an image")]


def test_names_used_twice(tmp_path: Path) -> None:
    put(tmp_path, "images/a.png", "images/a.jpg", "images/b.png")
    layout = find(put(tmp_path, "masks/a.png", "masks/b.png", "masks/b.tif"))
    assert ids(layout) == {"pool": []}
    assert why(layout) == [
        ("images/a.jpg", "several images of the same name (also a.png)"),
        ("masks/b.png", "several masks of the same name (also b.tif)"),
    ]


def test_template_with_parent_beside_the_images(tmp_path: Path) -> None:
    put(tmp_path, "A/Imgs/1.jpg", "A/Imgs/1.png", "B/Imgs/1.jpg", "B/Imgs/1.png")
    layout = find(tmp_path, images="*/Imgs/*.jpg", masks="{parent}/{stem}.png")
    assert ids(layout) == {"pool": ["A/Imgs/1", "B/Imgs/1"]}
    assert layout.splits["pool"][1].mask == tmp_path / "B/Imgs/1.png"
    assert not layout.problems


def test_template_finds_masks_that_belong_to_no_image(tmp_path: Path) -> None:
    put(tmp_path, "p/a.jpg", "p/b.jpg", "m/a_mask.png", "m/c_mask.png", "m/overview.png")
    layout = find(tmp_path, images="p/*.jpg", masks="m/{stem}_mask.png")
    assert why(layout) == [("m/c_mask.png", "mask without an image"), ("p/b.jpg", "image without a mask")]


def test_template_shared_by_the_splits(tmp_path: Path) -> None:
    put(tmp_path, "tr/a.jpg", "te/b.jpg", "m/a.jpg.png", "m/b.jpg.png")
    layout = find(tmp_path, masks="m/{name}.png", train={"images": "tr/*"}, test={"images": ["te/*.jpg"]})
    assert ids(layout) == {"train": ["tr/a"], "test": ["te/b"]}
    assert not layout.problems


def test_masks_by_glob_pair_by_stem(tmp_path: Path) -> None:
    layout = find(put(tmp_path, "p/a.jpg", "m/x/a.png", "m/x/b.png"), images="p/*.jpg", masks="m/**/*.png")
    assert layout.splits["pool"][0].mask == tmp_path / "m/x/a.png"
    assert why(layout) == [("m/x/b.png", "mask without an image")]
    put(tmp_path, "q/a.jpg")
    with pytest.raises(PairingError, match=r"several files of the same name \(p/a.jpg, q/a.jpg\). Use a template"):
        find(tmp_path, images=["p/*.jpg", "q/*.jpg"], masks="m/**/*.png")


def test_masks_of_valid_pixels(tmp_path: Path) -> None:
    put(tmp_path, "p/a.jpg", "p/b.jpg", "m/a.png", "m/b.png", "v/a.png")
    layout = find(tmp_path, images="p/*.jpg", masks="m/{stem}.png", valid="v/{stem}.png")
    assert [record.valid for record in layout.splits["pool"]] == [tmp_path / "v/a.png"]
    assert why(layout) == [("p/b.jpg", "image without its mask of valid pixels")]


def test_pool_beside_a_split(tmp_path: Path) -> None:
    put(tmp_path, "a/1.png", "a/m/1.png", "b/2.png", "b/m/2.png")
    layout = find(tmp_path, images="a/*.png", masks="{parent}/m/{stem}.png", test={"images": "b/*.png"})
    assert ids(layout) == {"test": ["b/2"], "pool": ["a/1"]}


def test_invalid_configurations(tmp_path: Path) -> None:
    put(tmp_path, "p/a.jpg", "m/a.png")
    with pytest.raises(ConfigError, match=r"data.masks: expected where the masks are, found nothing. Add masks"):
        find(tmp_path, images="p/*.jpg")
    with pytest.raises(ConfigError, match=r"data.masks: expected a template with \{stem\}.*found 'm/\{stam\}.png'"):
        find(tmp_path, images="p/*.jpg", masks="m/{stam}.png")
    with pytest.raises(
        DataError, match=r"data.images: expected images, found none that match p/\*.png in .* data.root"
    ):
        find(tmp_path, images="p/*.png", masks="m/{stem}.png")
    with pytest.raises(ConfigError, match=r"expected either `images` or `train.images`, found both"):
        find(tmp_path, images="p/*", masks="m/{stem}.png", train=SplitFilesConfig(images="p/*"))
    with pytest.raises(ConfigError, match=r"data.images: expected a pattern relative to the root"):
        find(tmp_path, images="/p/*.png", masks="m/{stem}.png")


def test_folders_without_usable_files(tmp_path: Path) -> None:
    with pytest.raises(DataError) as error:
        find(tmp_path)
    assert str(error.value) == (
        f"{tmp_path}: expected images and masks in folders (images/ and masks/, or train/ and train_masks/) or side "
        "by side (a.jpg and a_mask.png), found an empty folder. "
        "Set their paths: --set 'data.images=…/*' --set 'data.masks=…/{stem}.png'."
    )
    with pytest.raises(DataError, match=r"found nothing. Check the path, and data.root"):
        find(tmp_path / "none")
    with pytest.raises(DataError, match="found 1 loose image"):
        find(put(tmp_path, "a.png"))
    with pytest.raises(
        DataError, match=r"found masks, scans\. If masks/ holds the masks of scans/: --set 'data.images"
    ):
        find(put(tmp_path / "odd", "scans/a.png", "masks/a.png"))


def test_images_without_masks(tmp_path: Path) -> None:
    with pytest.raises(
        DataError, match=r"expected masks beside images/, in one of masks/, labels/.* found images/ only"
    ):
        find(put(tmp_path, "images/a.png"))


def test_images_folder_without_images(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"images: expected images \(PNG.* found none. Put them there"):
        find(put(tmp_path, "images/readme.txt", "masks/a.png"))


def test_a_template_gives_every_image_a_mask_of_its_own(tmp_path: Path) -> None:
    put(tmp_path, "a/img/1.png", "b/img/1.png", "masks/1.png", "camera.png")
    with pytest.raises(PairingError, match=r"expected a separate mask for every image, found masks/1\.png for several"):
        find(tmp_path, images="*/img/*.png", masks="masks/{stem}.png")
    put(tmp_path, "masks/a/img/1.png", "masks/b/img/1.png")
    layout = find(tmp_path, images="*/img/*.png", masks="masks/{parent}/{stem}.png", valid="{parent}/../../camera.png")
    # One mask of valid pixels may serve several images.
    assert {record.valid.resolve() for record in layout.splits["pool"]} == {tmp_path / "camera.png"}


@pytest.mark.parametrize("template", ["m/{stem.png}", "m/{stem[x]}", "m/{other}", "m/{}", "m/{stem"])
def test_invalid_templates_are_refused(tmp_path: Path, template: str) -> None:
    put(tmp_path, "images/a.png")
    with pytest.raises(ConfigError, match=r"expected a template with \{stem\}, \{name\} or \{parent\}, found"):
        find(tmp_path, images="images/*", masks=template)


def test_images_beside_the_folders_of_splits_are_reported(tmp_path: Path) -> None:
    put(tmp_path, "images/train/a.png", "masks/train/a.png", "images/extra/b.png", "images/c.png", "masks/extra/b.png")
    layout = find(tmp_path)
    assert ids(layout) == {"train": ["a"]}
    assert layout.notices == ("2 files in no folder of a split: left out (images/c.png, …)",)


def test_a_split_whose_images_are_elsewhere_is_reported(tmp_path: Path) -> None:
    put(tmp_path, "train/images/a.png", "train/masks/a.png", "val/scans/b.png", "test/notes.txt", "docs/c.png")
    layout = find(tmp_path)
    assert ids(layout) == {"train": ["a"]}
    assert layout.notices == (
        "1 file in val, which has no masks: left out (val/scans/b.png)",
        "1 file in no folder that goes with another: left out (docs/c.png)",
    )


@pytest.mark.skipif(os.name == "nt", reason="links need rights there")
def test_links_to_folders_are_followed_except_loops(tmp_path: Path) -> None:
    put(tmp_path / "far", "images/b.png", "masks/b.png")
    put(tmp_path / "d", "images/a.png", "masks/a.png")
    for kind in ("images", "masks"):
        (tmp_path / "d" / kind / "site").symlink_to(tmp_path / "far" / kind)
        (tmp_path / "d" / kind / "self").symlink_to(tmp_path / "d" / kind)
    assert ids(find(tmp_path / "d")) == {"pool": ["a", "site/b"]}


def test_a_folder_that_cannot_be_listed_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(tmp_path, "images/a.png", "images/locked/b.png", "masks/a.png")
    real = os.scandir

    def scandir(path: str) -> object:
        if str(path).endswith("locked"):
            raise PermissionError(13, "Permission denied", path)
        return real(path)

    monkeypatch.setattr(os, "scandir", scandir)
    with pytest.raises(DataError, match=r"locked: expected a folder that can be read, found Permission denied"):
        find(tmp_path)


def test_lists_in_another_encoding_are_refused(tmp_path: Path) -> None:
    put(tmp_path, "images/a.png", "masks/a.png", "splits/train.txt")
    (tmp_path / "splits" / "train.txt").write_bytes("Straße".encode("cp1252"))
    with pytest.raises(ConfigError, match=r"train\.txt: expected a text file in UTF-8, found .* Save it as UTF-8\."):
        find(tmp_path)


def test_a_pattern_without_a_suffix_means_images(tmp_path: Path) -> None:
    put(tmp_path, "p/a.jpg", "p/Thumbs.db", "p/a.txt", "p/a.jgw", "m/a.png", "m/Thumbs.db")
    for masks in ("m/{stem}.png", "m/*"):
        layout = find(tmp_path, images="p/*", masks=masks)
        assert ids(layout) == {"pool": ["p/a"]}
        assert not layout.problems
    put(tmp_path, "p/b.heic")  # which cannot be read: that is said, and it is not passed over
    assert why(find(tmp_path, images="p/*", masks="m/*")) == [("p/b.heic", "image without a mask")]


def test_folders_with_brackets_in_the_command_that_names_them(tmp_path: Path) -> None:
    put(tmp_path, "scans [2024]/a.jpg", "drawn/a.png")
    with pytest.raises(DataError, match=r"--set 'data\.images=scans \[\[\]2024\]/\*'"):
        find(tmp_path)
    layout = find(tmp_path, images="scans [[]2024]/*", masks="drawn/{stem}.png")
    assert len(layout.splits["pool"]) == 1
