"""YOLO segmentation, laid out as Ultralytics, Roboflow, CVAT, Label Studio and darknet lay it out."""

from __future__ import annotations

import pickle
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image

from pixelwise.config import DataConfig, read_request
from pixelwise.datasets.convert import convert
from pixelwise.datasets.dataset import DataSplits, open_data
from pixelwise.errors import ConfigError, DataError, LabelsError, MaskError, PairingError, PixelwiseError
from pixelwise.formats import FORMATS, find_format, read_dataset
from pixelwise.formats.base import ReadResult
from pixelwise.formats.dataset_root import DatasetRoot
from pixelwise.formats.yolo import cut_open
from pixelwise.formats.yolo_splits import label_path
from pixelwise.geometry.contours import fill, trace
from pixelwise.imageio.masks import write_mask
from pixelwise.labels import Labels

LEFT = "0 0 0 0.5 0 0.5 1 0 1\n"  # the left half, class 0
TOP = "1 0 0 1 0 1 0.5 0 0.5\n"  # the upper half, class 1
NAMES = "names:\n  0: road\n  1: tree\n"
NONE = {"val": 0, "test": 0}


def put(root: Path, files: dict[str, str | bytes], size: tuple[int, int] = (4, 8)) -> Path:
    """Write text files, and images of (H, W) where the name is that of one."""
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.suffix in (".jpg", ".png") and not content:
            Image.new("RGB", size[::-1], (len(name), 90, 120)).save(path)
        elif isinstance(content, bytes):
            path.write_bytes(content)
        else:
            path.write_text(content, "utf-8")
    return root


def usual(root: Path, text: str = LEFT, described: str = f"train: images/train\nval: images/val\n{NAMES}") -> Path:
    """Lay out one image for training with the given text, and one for validation."""
    put(root, {"images/train/a.jpg": "", "labels/train/a.txt": text})
    return put(root, {"images/val/b.jpg": "", "labels/val/b.txt": TOP, "data.yaml": described})


def look(root: Path, **config: object) -> ReadResult:
    return read_dataset(DataConfig.model_validate(config), root, root)[1]


def opened(root: Path, **config: object) -> DataSplits:
    request, base = read_request(root)
    plain = request.data.model_dump() | {"split": NONE} | config
    return open_data(DataConfig.model_validate(plain), base)


def splits(found: ReadResult) -> dict[str, list[str]]:
    return {split: [record.id for record in records] for split, records in found.layout.splits.items()}


def mask_of(splits: DataSplits, stem: str) -> np.ndarray:
    for split in splits:
        for index, record in enumerate(split.records):
            if record.image.stem == stem:
                return split.labels.decode(split.read(index).mask)
    raise AssertionError(stem)


# Where things lie ----------------------------------------------------------------------------------------------------


def test_ultralytics_layout(tmp_path):
    splits = opened(usual(tmp_path))
    assert {split.name: [r.id for r in split.records] for split in splits} == {
        "train": ["images/train/a"],
        "val": ["images/val/b"],
    }
    assert splits.labels.names == ("background", "road", "tree")
    assert splits.labels.ids == (0, 1, 2)
    assert splits.labels.countable == (False, True, True)
    np.testing.assert_array_equal(mask_of(splits, "a"), [[1, 1, 1, 1, 0, 0, 0, 0]] * 4)
    np.testing.assert_array_equal(mask_of(splits, "b"), [[2] * 8] * 2 + [[0] * 8] * 2)


def test_roboflow_layout_whose_yaml_points_one_folder_too_high(tmp_path):
    for split in ("train", "valid", "test"):
        put(tmp_path, {f"{split}/images/{split}_jpg.rf.0a1b.jpg": "", f"{split}/labels/{split}_jpg.rf.0a1b.txt": LEFT})
    put(tmp_path, {"README.dataset.txt": "# road > 2024-01-01\n", "README.roboflow.txt": "\n1 2 3 of a readme\n"})
    described = (
        "train: ../train/images\nval: ../valid/images\ntest: ../test/images\n\nnc: 2\nnames: ['road', 'tree']\n\n"
        "roboflow:\n  workspace: w\n  project: p\n  version: 1\n  license: CC BY 4.0\n  url: https://x\n"
    )
    splits = opened(put(tmp_path, {"data.yaml": described}))
    assert {split.name: len(split) for split in splits} == {"train": 1, "val": 1, "test": 1}
    assert splits.skipped == ()
    assert not any("is read as" in notice for notice in splits.notices)


def test_cvat_layout_with_lists_of_images(tmp_path):
    put(tmp_path, {"images/train/a.jpg": "", "images/train/sub dir/b.png": "", "labels/train/a.txt": LEFT})
    put(tmp_path, {"labels/train/sub dir/b.txt": TOP, "train.txt": "images/train/a.jpg\nimages/train/sub dir/b.png\n"})
    put(tmp_path, {"data.yaml": "names:\n  0: road\n  1: tree\npath: .\ntrain: train.txt\n"})
    assert splits(look(tmp_path)) == {"train": ["images/train/a", "images/train/sub dir/b"]}


def test_lists_may_begin_with_any_folder_and_name_what_is_missing(tmp_path):
    usual(tmp_path, described=f"train: train.txt\n{NAMES}")
    lines = "./images/train/a.jpg\n\n/content/set/images/val/b.jpg\r\ndata\\images\\train\\gone.jpg\n"
    found = look(put(tmp_path, {"train.txt": lines}))
    assert splits(found) == {"train": ["images/train/a", "images/val/b"]}
    problems = [(one.file, one.why) for one in found.layout.problems]
    assert problems == [("train.txt: data\\images\\train\\gone.jpg", "listed, but no such image")]


def test_a_line_of_a_list_that_is_a_path_from_the_yaml_means_no_copy_of_that_image(tmp_path):
    usual(tmp_path, described=f"train: train.txt\n{NAMES}")
    put(tmp_path, {"old/images/train/a.jpg": "", "old/labels/train/a.txt": TOP, "train.txt": "images/train/a.jpg\n"})
    found = look(tmp_path)
    assert splits(found) == {"train": ["images/train/a"]}
    assert found.layout.problems == ()


def test_text_files_that_are_empty_do_not_hide_the_others(tmp_path):
    for number in range(25):
        put(tmp_path, {f"images/n{number:02}.jpg": "", f"labels/n{number:02}.txt": ""})
    found = look(put(tmp_path, {"images/z.jpg": "", "labels/z.txt": LEFT}))
    assert found.layout.notices[0] == "read as YOLO segmentation: labels/z.txt holds classes and shares"
    assert len(splits(found)["pool"]) == 26


def test_images_elsewhere_than_below_the_root_raise_nothing_while_looking(tmp_path):
    put(tmp_path / "far", {"images/a.jpg": ""})
    root = put(tmp_path / "set", {"notes.txt": "words"})
    config = {"images": str(tmp_path / "far" / "images")}
    assert FORMATS["yolo"].detect(DatasetRoot(root, root, DataConfig.model_validate(config))) is None
    with pytest.raises(DataError, match=r"far/labels/a\.txt, found none at all"):
        look(root, format="yolo", **config)


def test_a_part_may_be_several_folders(tmp_path):
    usual(tmp_path, described=f"train: [images/train, images/val]\n{NAMES}")
    assert splits(look(tmp_path)) == {"train": ["images/train/a", "images/val/b"]}


@pytest.mark.parametrize(
    ("image", "label"),
    [
        ("images/train/a.jpg", "labels/train/a.txt"),
        ("train/images/a.b.JPG", "train/labels/a.b.txt"),
        ("images/x/images/a.png", "images/x/labels/a.txt"),
        ("my images/a.png", "my images/a.txt"),
        ("images.png", "images.txt"),
    ],
)
def test_the_last_images_becomes_labels(image, label, tmp_path):
    root = tmp_path / "images" / "set"  # those above the data set are none of its own
    assert label_path(root / image, root) == root / label


def test_without_a_yaml_folders_and_classes_txt_tell(tmp_path):
    put(tmp_path, {"images/a.jpg": "", "images/b.jpg": "", "labels/a.txt": TOP, "labels/classes.txt": "road\ntree\n"})
    put(tmp_path, {"classes.txt": "road\ntree\n\n", "notes.json": "{}", "preview/p.png": ""})
    found = look(tmp_path)
    assert splits(found) == {"pool": ["images/a", "images/b"]}
    assert found.labels.names == ("background", "road", "tree")
    assert found.layout.problems == ()
    assert found.layout.notices == (
        "read as YOLO segmentation: labels/a.txt holds classes and shares",
        "1 of 3 images lie where no label files belong to them and are left out",
        "1 of 2 images have no label file: they are background, as YOLO has it",
    )


def test_darknet_keeps_text_files_beside_the_images_and_lists_at_the_root(tmp_path):
    put(tmp_path, {"obj_train_data/a.jpg": "", "obj_train_data/a.txt": LEFT, "obj.names": "road\ntree\n"})
    put(tmp_path, {"obj_train_data/b.jpg": "", "obj_train_data/b.txt": TOP, "obj_train_data/README.txt": "about\n"})
    put(tmp_path, {"train.txt": "data/obj_train_data/a.jpg\n", "valid.txt": "data/obj_train_data/b.jpg\n"})
    found = look(tmp_path)
    assert splits(found) == {"train": ["obj_train_data/a"], "val": ["obj_train_data/b"]}
    assert found.layout.problems == ()


def test_classes_that_nobody_names_are_numbered_and_that_is_told(tmp_path):
    found = look(put(tmp_path, {"images/a.jpg": "", "labels/a.txt": LEFT + "7 0 0 1 0 1 1\n"}))
    assert found.labels.names == ("background", "class_0", "class_7")
    assert found.labels.ids == (0, 1, 8)
    assert "nothing names the classes" in found.layout.notices[-1]


def test_the_number_of_classes_alone_names_them_as_ultralytics_does(tmp_path):
    usual(tmp_path)
    (tmp_path / "data.yaml").unlink()
    put(tmp_path, {"set.yaml": "train: images/train\nval: images/val\nnames:\nnc: 3\n"})
    assert look(tmp_path).labels.names == ("background", "class_0", "class_1", "class_2")


def test_lists_of_classes_that_differ_are_refused(tmp_path):
    put(tmp_path, {"images/a.jpg": "", "labels/a.txt": LEFT, "classes.txt": "a\n", "labels/classes.txt": "b\n"})
    with pytest.raises(LabelsError, match=r"expected one list of classes, found classes\.txt, labels/classes\.txt\."):
        look(tmp_path)


def test_paths_of_another_machine_are_matched_by_their_end_and_that_is_told(tmp_path):
    usual(tmp_path, described=f"train: /content/drive/set/images/train\nval: D:\\set\\images\\val\n{NAMES}")
    found = look(tmp_path)
    assert splits(found) == {"train": ["images/train/a"], "val": ["images/val/b"]}
    assert "/content/drive/set/images/train is read as images/train" in found.layout.notices


@pytest.mark.parametrize("entry", ["../secret/images/train", "/etc", "../../..", "nowhere", "train.txt"])
def test_no_entry_leads_out_of_the_folder(entry, tmp_path):
    put(tmp_path / "secret", {"images/train/s.jpg": "", "labels/train/s.txt": LEFT})
    root = usual(tmp_path / "set", described=f"train: {entry}\n{NAMES}")
    put(root, {"train.txt": "../secret/images/train/s.jpg\nimages/train/a.jpg\n"})
    if entry in ("/etc", "nowhere"):
        with pytest.raises(DataError, match=rf"data\.yaml: train: expected images at {entry}, found nothing of that"):
            look(root)
    else:
        assert set(splits(look(root))["train"]) <= {"images/train/a", "images/val/b"}  # its own, by the end of the name


def test_parts_that_are_not_there_or_not_labelled_are_left_out_and_told(tmp_path):
    usual(tmp_path, described=f"train: images/train\nval: images/val\ntest: images/test\nvalidation: x\n{NAMES}")
    (tmp_path / "labels/val/b.txt").unlink()
    found = look(put(tmp_path, {"images/other/c.jpg": ""}))
    assert splits(found) == {"train": ["images/train/a"]}
    assert found.layout.notices[1:] == (
        "no image of val has a label file (1 looked at): the part is left out",
        "there are no images at images/test: it is left out of test",
        "2 of 3 images are in no part that data.yaml names and are left out",
    )


def test_no_text_file_at_all_is_no_set_of_background(tmp_path):
    root = put(tmp_path, {"images/train/a.jpg": "", "data.yaml": f"train: images/train\n{NAMES}"})
    with pytest.raises(DataError, match=r"as labels/train/a\.txt, found none at all\. Put labels/ beside images/; or"):
        look(root)


def test_val_that_is_train_once_more_is_told_and_a_image_in_two_parts_refused(tmp_path):
    found = look(usual(tmp_path, described=f"train: images/train\nval: images/train\n{NAMES}"))
    assert splits(found) == {"train": ["images/train/a"]}
    assert "val names the same images as train, and is no part of its own" in found.layout.notices
    (tmp_path / "data.yaml").write_text(f"train: images\nval: images/val\n{NAMES}")
    with pytest.raises(
        PairingError, match=r"expected every image in one part, found images/val/b\.jpg in train and val"
    ):
        look(tmp_path)


# The request ---------------------------------------------------------------------------------------------------------


def test_a_yaml_of_yolo_is_taken_as_data_and_its_folder_too(tmp_path):
    usual(tmp_path)
    for data in (tmp_path, tmp_path / "data.yaml"):
        config, base = read_request(data)
        assert (config.data.format, config.data.root, base) == ("yolo", None, tmp_path)
        assert config.data.annotations == str(tmp_path / "data.yaml")
    named = (tmp_path / "data.yaml").rename(tmp_path / "my set.yaml")
    assert read_request(named)[0].data.annotations == str(named)
    assert read_request(named, ["data.format=masks"])[0].data.format == "masks"
    assert {split.name: len(split) for split in opened(named)} == {"train": 1, "val": 1}


@pytest.mark.parametrize("own", ["images: 'a/*.png'", "labels: [a]", "format: masks", "root: x"])
def test_our_own_description_is_still_read_as_ours_and_mistakes_in_it_are_told(own, tmp_path):
    path = put(tmp_path, {"data.yaml": f"train: splits/train.txt\n{own}\n"}) / "data.yaml"
    assert read_request(path)[0].data.format in (None, "masks")
    path.write_text(f"train: splits/train.txt\n{own}\nnames: [a]\n")
    with pytest.raises(ConfigError, match="unknown key `names`"):
        read_request(path)


def test_path_is_followed_where_it_leads_somewhere_and_told(tmp_path):
    usual(tmp_path / "sets" / "roads", described="")
    root = tmp_path / "sets" / "roads"
    path = put(tmp_path, {"yaml/roads.yaml": f"path: ../sets/roads\ntrain: images/train\n{NAMES}"}) / "yaml/roads.yaml"
    (root / "data.yaml").unlink()
    splits = opened(path)
    assert splits.description["root"].endswith("sets/roads")
    assert [split.name for split in splits] == ["train"]
    assert any(
        n.startswith("images are read below") and n.endswith("as `path` in roads.yaml says") for n in splits.notices
    )


@pytest.mark.parametrize("lost", ["/home/me/datasets/roads", "../datasets/roads", "x" * 5000, "a\\0b"])
def test_path_that_leads_nowhere_is_told_and_the_yamls_own_folder_taken(lost, tmp_path):
    usual(tmp_path, described=f'path: "{lost}"\ntrain: images/train\nval: images/val\n{NAMES}')
    splits = opened(tmp_path)
    assert {split.name: len(split) for split in splits} == {"train": 1, "val": 1}
    assert any(f"leads nowhere on this machine: images are looked for below {tmp_path}" in n for n in splits.notices)


def test_path_may_lie_below_the_yaml_or_elsewhere_than_a_folder_that_was_named(tmp_path):
    usual(tmp_path / "in", described="")
    (tmp_path / "in/data.yaml").unlink()
    put(tmp_path, {"dataset.yaml": f"path: in\ntrain: images/train\nval: images/val\n{NAMES}"})
    assert splits(look(tmp_path)) == {"train": ["in/images/train/a"], "val": ["in/images/val/b"]}
    root = usual(tmp_path / "copy", described="")
    (root / "data.yaml").unlink()
    found = look(put(root, {"dataset.yaml": f"path: {tmp_path / 'in'}\ntrain: images/train\n{NAMES}"}))
    assert [record.image for record in found.layout.splits["train"]] == [root / "images/train/a.jpg"]
    assert "is not in the data set's folder" in found.layout.notices[1]


def test_download_is_never_followed(tmp_path):
    script = f"download: |\n  from pathlib import Path\n  Path({str(tmp_path / 'ran')!r}).touch()\n"
    opened(usual(tmp_path, described=f"train: images/train\nval: images/val\n{script}{NAMES}"))
    assert not (tmp_path / "ran").exists()


def test_several_yamls_at_the_root_are_asked_about(tmp_path):
    usual(tmp_path)
    put(tmp_path, {"fold2.yaml": f"train: images/val\nval: images/train\n{NAMES}"})
    do = "--set data.annotations=data.yaml"
    with pytest.raises(ConfigError, match=f"expected one YAML .*, found data.yaml, fold2.yaml. Say which: {do}"):
        look(tmp_path)
    found = look(tmp_path, annotations="fold2.yaml", format="yolo")
    assert splits(found) == {"train": ["images/val/b"], "val": ["images/train/a"]}


@pytest.mark.parametrize(("open_", "close"), [("[", "]"), ("{", "}")])
def test_a_yaml_whose_aliases_stand_for_billions_is_refused_at_once(open_, close, tmp_path):
    key = ("" if open_ == "[" else "x: ", "" if open_ == "[" else "y: ")
    rows = [f"a{k}: &a{k} {open_}{key[0]}*a{k - 1}, {key[1]}*a{k - 1}{close}" for k in range(1, 40)]
    usual(tmp_path, described="\n".join(["a0: &a0 [1]", *rows, "train: images/train", "names: *a39"]) + "\n")
    with pytest.raises(ConfigError, match=r"data\.yaml: expected at most 1,000,000 values, found aliases that stand"):
        read_request(tmp_path)
    assert find_format(DatasetRoot(tmp_path, tmp_path, DataConfig()))[0].name == "yolo"  # by its text files


def test_annotations_that_are_no_yaml_of_yolo_are_refused(tmp_path):
    usual(tmp_path)
    with pytest.raises(ConfigError, match=r"data\.annotations: expected the YAML of a YOLO data set, found 'labels'"):
        look(tmp_path, annotations="labels", format="yolo")
    (tmp_path / "data.yaml").write_text("train: [\n")
    with pytest.raises(ConfigError, match=r"data\.yaml: expected a readable YAML file"):
        look(tmp_path, annotations="data.yaml", format="yolo")


# What the YAML says --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ("names: [road, road]", "names: expected every class once, found 'road' twice. Rename one."),
        ("names: [no, tree]", "names: expected names of classes, found False. Put the name in quotes."),
        ("names: {a: road}", "names: expected whole numbers for the classes, found 'a'. Write 0: name."),
        ("names: road", "names: expected a list of names, found 'road'. Write names: [a, b]."),
        ("names: [road, tree]\nnc: 3", "nc: expected 2, as there are names, found 3. Correct nc, or add the names."),
        ("names:\nnc: 99999999", "nc: expected a number of classes, found 99999999. Correct it."),
        ("names:\nnc: true", "nc: expected a number of classes, found True. Correct it."),
        (
            "names: [a]\nkpt_shape: [17, 3]",
            "expected a set for segmentation, found kpt_shape, a set of key points. Points",
        ),
        (
            "names: [a]\nmasks_dir: masks",
            "found masks_dir 'masks', masks as PNG. Read it as folders of masks: --set data.",
        ),
        (
            "names: [a]\nval: {images: x}",
            "val: expected a folder, a list of folders, or a .txt list of images, found {'im",
        ),
    ],
)
def test_a_yaml_that_cannot_be_meant_is_refused(said, message, tmp_path):
    usual(tmp_path, described=f"train: images/train\n{said}\n")
    with pytest.raises(PixelwiseError) as error:
        look(tmp_path)
    assert str(error.value).startswith(f"{tmp_path / 'data.yaml'}: ")
    assert message in str(error.value)


# Lines ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("0 0.5 0.5 0.2 0.2", "expected an outline: class x1 y1 x2 y2 x3 y3 …, found a box (class cx cy w h), as for detection"
         ". Draw outlines, or export the set for segmentation; --skip-bad leaves such images out."),
        ("0 0.5 0.5", "found 1 points. Correct the line, or remove it."),
        ("0", "found 0 points."),
        ("0 .1 .1 .5 .1 .5 .5 .9", "found 7 coordinates. Correct the line, or remove it."),
        ("0 0 0 320 0 320 240", "expected coordinates as shares, 0…1, found 320, as in pixels. Divide x by the image's width"),
        ("0 0 0 1.2 0 1 1", "expected coordinates as shares, 0…1, found 1.2. Divide"),
        ("0 0 0 1 -0.3 1 1", "found -0.3."),
        ("2 0 0 1 0 1 1", "expected a class id 0–1, as data.yaml names them, found 2. Correct the line, or add the class"),
        ("-1 0 0 1 0 1 1", "found -1."),
        ("0.5 0 0 1 0 1 1", "found 0.5."),
        ("0 0 nan 1 0 1 1", "found NaN or infinity."),
        ("inf 0 0 1 0 1 1", "found NaN or infinity."),
        ("road 0 0 1 0 1 1", "found 'road 0 0 1 0 1 1'. Correct the line, or export it again."),
        ("0,0,0,1,0,1,1", "found '0,0,0,1,0,1,1'."),
        ("1 rle 4 8 0X20", "found '1 rle 4 8 0X20'."),
    ],
)  # fmt: skip
def test_a_line_that_is_no_outline_is_refused_with_its_number_and_left_out_on_request(line, message, tmp_path):
    usual(tmp_path, f"{LEFT}\n{line}\n")
    with pytest.raises(MaskError) as error:
        look(tmp_path)
    assert str(error.value).startswith(f"{tmp_path / 'labels/train/a.txt'}:3: expected ")
    assert message in str(error.value)
    found = look(tmp_path, skip_bad=True)
    assert splits(found) == {"val": ["images/val/b"]}
    assert [one.file for one in found.layout.problems] == [f"{tmp_path / 'labels/train/a.txt'}:3"]
    assert found.layout.problems[0].why in str(error.value)


def test_a_set_for_detection_is_refused_even_where_bad_files_may_be_left_out(tmp_path):
    usual(tmp_path, "0 0.5 0.5 0.2 0.2\n")
    (tmp_path / "labels/val/b.txt").write_text("1 0.5 0.5 0.2 0.2\n")
    with pytest.raises(MaskError, match=r"found a box \(class cx cy w h\), as for detection"):
        look(tmp_path, skip_bad=True)


def test_text_that_is_not_utf_8_is_refused(tmp_path):
    usual(tmp_path)
    (tmp_path / "labels/train/a.txt").write_bytes(LEFT.encode("utf-16"))
    with pytest.raises(MaskError, match=r"a\.txt: expected a text file in UTF-8, found"):
        look(tmp_path)


def test_oriented_boxes_are_outlines_and_what_lies_just_outside_is_cut_off(tmp_path):
    usual(tmp_path, "\ufeff1.0 -0.004 0 0.5 0 0.5 1.006 0 1\r\n\r\n")
    np.testing.assert_array_equal(mask_of(opened(tmp_path), "a"), [[2, 2, 2, 2, 0, 0, 0, 0]] * 4)


def test_empty_and_missing_text_files_are_background_and_the_missing_are_counted(tmp_path):
    usual(tmp_path)
    put(tmp_path, {"images/train/c.jpg": "", "labels/train/c.txt": "\n \n", "images/train/d.jpg": ""})
    splits = opened(tmp_path)
    assert not mask_of(splits, "c").any()
    assert not mask_of(splits, "d").any()
    assert splits.notices == ("1 of 4 images have no label file: they are background, as YOLO has it",)
    assert splits.train.hash() != splits.val.hash()


def test_text_files_without_a_image_and_second_images_are_problems(tmp_path):
    usual(tmp_path)
    put(tmp_path, {"labels/train/lost.txt": LEFT, "labels/notes.txt": "words", "images/train/a.png": ""})
    put(tmp_path, {"notes.txt": "words", "images/train/stray.txt": LEFT})
    problems = sorted((one.file, one.why) for one in look(tmp_path).layout.problems)
    assert problems == [
        ("images/train/a.png", "second image of labels/train/a.txt (also a.jpg)"),
        ("images/train/stray.txt", "label file without its image"),
        ("labels/notes.txt", "label file without its image"),
        ("labels/train/lost.txt", "label file without its image"),
    ]


def test_the_smaller_shape_lies_on_top_unless_the_order_of_the_file_is_asked_for(tmp_path):
    small = "1 0.125 0.25 0.375 0.25 0.375 0.75 0.125 0.75\n"
    usual(tmp_path, small + LEFT)
    expected = np.array([[1, 1, 1, 1, 0, 0, 0, 0]] * 4)
    np.testing.assert_array_equal(mask_of(opened(tmp_path, overlap="file"), "a"), expected)
    expected[1:3, 1:3] = 2
    np.testing.assert_array_equal(mask_of(opened(tmp_path), "a"), expected)


def test_classes_may_be_ignored_and_so_may_what_no_shape_covers(tmp_path):
    usual(tmp_path, LEFT + "1 0.5 0 1 0 1 0.5 0.5 0.5\n")
    splits = opened(tmp_path, ignored=["tree"], unlabelled="ignore")
    assert splits.labels.names == ("road",)
    np.testing.assert_array_equal(mask_of(splits, "a"), [[1] * 4 + [255] * 4] * 4)


def test_shares_are_of_the_image_as_exif_turns_it(tmp_path):
    usual(tmp_path)
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (4, 8)).save(tmp_path / "images/train/a.jpg", exif=exif)
    np.testing.assert_array_equal(mask_of(opened(tmp_path), "a"), [[1, 1, 1, 1, 0, 0, 0, 0]] * 4)


@pytest.mark.parametrize(
    "line",
    ["1 " + "1234567890 " * 5000 + "x", "1" * 50_000 + "x", "3 " + "0.12345678 " * 5000 + "-", "0 12 7 9 300 2 2"],
)
def test_tables_of_numbers_beside_images_are_not_taken_for_labels_and_take_no_time(line, tmp_path):
    put(tmp_path, {"a.jpg": "", "a.txt": line})
    assert FORMATS["yolo"].detect(DatasetRoot(tmp_path, tmp_path, DataConfig())) is None


def test_records_can_be_sent_to_worker_processes(tmp_path):
    splits = opened(usual(tmp_path))
    again = pickle.loads(pickle.dumps(splits.train))
    assert again.hash() == splits.train.hash()
    np.testing.assert_array_equal(again.read(0).mask, splits.train.read(0).mask)


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck), database=None)
@given(st.one_of(st.binary(max_size=80), st.text("0123456789.-e \n\tna_", max_size=80).map(str.encode)))
def test_no_content_gives_a_traceback(tmp_path_factory, content):
    root = usual(tmp_path_factory.mktemp("any"))
    (root / "labels/train/a.txt").write_bytes(content)
    try:
        told = ""
        mask_of(opened(root), "a")
    except DataError as error:
        told = str(error)
    assert not told or "labels/train/a.txt" in told


# Bridges -------------------------------------------------------------------------------------------------------------


def merged(rings: list[np.ndarray]) -> np.ndarray:
    """Join rings by bridges between nearest points, as `merge_multi_segment` is documented: there and back."""
    ways = []
    for one, other in pairwise(rings):
        apart = ((one[:, None] - other[None]) ** 2).sum(-1)
        ways.append(np.unravel_index(apart.argmin(), apart.shape))

    def walk(k: int, start: int) -> list[np.ndarray]:
        ring = np.roll(rings[k], -start, axis=0)
        if k == len(rings) - 1:
            return [ring, ring[:1]]
        leave = (ways[k][0] - start) % len(ring)
        return [ring[: leave + 1], *walk(k + 1, ways[k][1]), ring[leave:], ring[:1]]

    return np.concatenate(walk(0, 0))


def inside(ring: np.ndarray, x: float, y: float) -> bool:
    """Count crossings to the left, edge by edge: an oracle that shares nothing with `outlines`."""
    odd = False
    for (x0, y0), (x1, y1) in zip(ring, np.roll(ring, -1, axis=0), strict=True):
        if (y0 > y) != (y1 > y) and x0 + (y - y0) * (x1 - x0) / (y1 - y0) <= x:
            odd = not odd
    return odd


def box(left: float, top: float, right: float, bottom: float) -> np.ndarray:
    return np.array([(left, top), (right, top), (right, bottom), (left, bottom)], np.float64)


def text(kind: int, ring: np.ndarray, size: tuple[int, int], form: str = "%.17g") -> str:
    shares = (ring / np.array(size[::-1])).reshape(-1)
    return " ".join([str(kind), *(form % value for value in shares)]) + "\n"


@pytest.mark.parametrize("form", ["%.17g", "%g"])  # %g, six digits, is what Ultralytics' converters write
@pytest.mark.parametrize(
    "rings",
    [
        [box(1, 1, 9, 5), box(12, 7, 25, 15)],
        [box(1, 1, 9, 5), box(12, 2, 17, 15), box(20, 1, 29, 7)],
        [box(1, 1, 27, 15), box(5, 4, 12, 10)],  # a hole
        [box(1, 1, 27, 15), box(5, 4, 12, 10), box(7, 6, 9, 8)],  # and an island in it
        [np.array([(2.3, 1.1), (13.7, 3.2), (6.1, 14.9)]), np.array([(17.2, 2.4), (28.8, 9.3), (19.9, 15.1)])],
    ],
)
def test_rings_joined_by_bridges_give_their_parts(rings, form, tmp_path):
    size = (17, 31)
    expected = np.array(
        [[sum(inside(r, x + 0.5, y + 0.5) for r in rings) % 2 for x in range(size[1])] for y in range(size[0])]
    )
    assert 0 < expected.sum() < expected.size
    put(tmp_path, {"images/train/a.png": ""}, size)
    put(tmp_path, {"labels/train/a.txt": text(0, merged(rings), size, form), "classes.txt": "thing\n"})
    np.testing.assert_array_equal(mask_of(opened(tmp_path), "a"), expected)


@settings(max_examples=100, deadline=None, database=None)
@given(arrays(np.uint8, (11, 13), elements=st.integers(0, 2)))
def test_regions_with_holes_cut_open_cover_themselves_and_the_holes_that_are_painted_over(mask):
    bare = mask == 0
    for outline in trace(mask):
        own = np.zeros(mask.shape, bool)
        top, left, filled = fill((cut_open(outline, bare),), mask.shape)
        own[top : top + filled.shape[0], left : left + filled.shape[1]] = filled
        expected = np.zeros(mask.shape, bool)
        for ring in (outline.outer, *outline.holes):
            top, left, filled = fill((ring,), mask.shape)
            view = expected[top : top + filled.shape[0], left : left + filled.shape[1]]
            if ring is outline.outer or bare[top : top + filled.shape[0], left : left + filled.shape[1]][filled].any():
                view ^= filled
        np.testing.assert_array_equal(own, expected)


def test_bridges_of_many_holes_are_no_longer_in_sum_than_the_region_has_pixels():
    mask = np.ones((201, 201), np.uint8)
    mask[1::2, 1::2] = 0
    outline = trace(mask)[0]
    assert len(outline.holes) == 10_000
    ring, rings = cut_open(outline, mask == 0), (outline.outer, *outline.holes)
    around = sum(np.abs(np.diff(one, axis=0, append=one[:1])).sum() for one in rings)
    assert np.abs(np.diff(ring, axis=0, append=ring[:1])).sum() <= around + 2 * outline.area
    np.testing.assert_array_equal(fill((ring,), mask.shape)[2], mask == 1)


# Writing -------------------------------------------------------------------------------------------------------------


def written(folder: Path, masks: dict[str, np.ndarray], labels: Labels) -> tuple[DataSplits, Path]:
    """Lay out masks of one part each, "train/a" say, and give them opened, and a folder to write into."""
    for name, mask in masks.items():
        split, stem = name.split("/", 1)
        put(folder, {f"in/{split}/images/{stem}.png": ""}, mask.shape)
        path = folder / "in" / split / "masks" / f"{stem}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        write_mask(path, mask, labels)
    (folder / "out").mkdir()
    config = DataConfig.model_validate({"labels": labels.to_dict(), "split": NONE})
    return open_data(config, folder / "in"), folder / "out"


WITH, WITHOUT = Labels(("background", "road", "tree")), Labels(("sky", "road", "tree"), (4, 0, 9))


@pytest.mark.parametrize("labels", [WITH, WITHOUT], ids=["with background", "without"])
def test_only_ignored_pixels_are_lost_and_only_where_there_is_a_background(labels, tmp_path):
    rng = np.random.default_rng(7)
    coarse = rng.choice([0, 1, 2, 255], (40, 50), p=[0.4, 0.3, 0.2, 0.1])
    masks = {
        "train/noise": rng.choice(np.array([0, 1, 2, 255], np.uint8), (97, 131)),
        "train/patches": np.kron(coarse, np.ones((7, 9), int)).astype(np.uint8)[:211, :333],
        "val/rings": (np.add.outer(np.abs(np.arange(64) - 31), np.abs(np.arange(80) - 40)) // 3 % 3).astype(np.uint8),
        "test/one": np.full((1, 1), 1, np.uint8),
    }
    splits, out = written(tmp_path, masks, labels)
    done = convert(splits, FORMATS["yolo"], out)
    lost = sum(int((mask == 255).sum()) for mask in masks.values())
    assert done.images == 4
    assert done.changed_pixels == (lost if labels is WITH else 0)


def test_what_is_written_is_what_ultralytics_reads(tmp_path):
    mask = np.zeros((10, 20), np.uint8)
    mask[2:8, 4:14] = 2
    mask[4:6, 6:10] = 0  # a hole that shows background
    mask[0:2, 0:5] = 1
    splits, out = written(tmp_path, {"train/sub/a.v1": mask, "val/b": np.zeros((4, 4), np.uint8)}, WITH)
    assert convert(splits, FORMATS["yolo"], out).changed_pixels == 0
    described = yaml.safe_load((out / "dataset.yaml").read_text())
    assert described == {"train": "images/train", "val": "images/val", "names": {0: "road", 1: "tree"}}
    files = sorted(path.relative_to(out).as_posix() for path in out.rglob("*") if path.is_file())
    assert files == [
        "data.yaml", "dataset.yaml", "images/train/a.v1.png", "images/val/b.png", "labels/train/a.v1.txt",
        "labels/val/b.txt",
    ]  # fmt: skip
    assert (out / "labels/val/b.txt").read_text() == ""
    assert (out / "labels/train/a.v1.txt").read_text().splitlines() == [
        "1 0.2 0.2 0.3 0.2 0.3 0.4 0.3 0.6 0.5 0.6 0.5 0.4 0.3 0.4 0.3 0.2 0.7 0.2 0.7 0.8 0.2 0.8",
        "0 0 0 0.25 0 0.25 0.2 0 0.2",
    ]


def test_a_image_in_a_folder_called_images_keeps_its_text_file_where_it_is_looked_for(tmp_path):
    splits, out = written(tmp_path, {f"train/{name}": np.eye(5, dtype=np.uint8) for name in ("images/a", "b")}, WITH)
    assert convert(splits, FORMATS["yolo"], out).changed_pixels == 0
    assert (out / "images/train/labels/a.txt").is_file()


def test_coordinates_have_digits_enough_for_a_wide_image(tmp_path):
    mask = np.zeros((3, 20_011), np.uint8)
    mask[1, 1::2] = 1
    splits, out = written(tmp_path, {"train/wide": mask}, WITH)
    assert convert(splits, FORMATS["yolo"], out).changed_pixels == 0


def test_names_that_yaml_could_misread_and_a_set_of_background_alone_come_back(tmp_path):
    labels = Labels(("background", "no", "1.5", "straße: a", " x"))
    mask = np.arange(5, dtype=np.uint8)[None].repeat(2, 0)
    splits, out = written(tmp_path / "names", {"test/a": mask}, labels)
    assert convert(splits, FORMATS["yolo"], out).changed_pixels == 0
    (out / "data.yaml").unlink()
    assert look(out).labels.names == labels.names
    splits, out = written(tmp_path / "bare", {"train/a": mask * 0}, Labels(("background",)))
    assert convert(splits, FORMATS["yolo"], out).changed_pixels == 0


def test_real_masks_come_back_save_for_void(real, tmp_path):
    folder = real("camvid")
    config = DataConfig.model_validate({"split": NONE})
    splits = open_data(config, folder)
    few = DataSplits(splits.train.subset(range(0, 6)), None, None, splits.labels, (), (), splits.description)
    before = [few.train.read(index).mask for index in range(6)]
    (tmp_path / "out").mkdir()
    done = convert(few, FORMATS["yolo"], tmp_path / "out")
    void = sum(int((mask == few.labels.ignore_index).sum()) for mask in before)
    assert done.changed_pixels == (void if "background" in few.labels.names else 0)


def test_a_folder_with_masks_in_labels_is_not_taken_for_yolo(tmp_path):
    put(tmp_path, {"images/a.png": "", "labels/a.png": "", "notes.txt": "0 0 0 1 1 0 1\n"})
    assert find_format(DatasetRoot(tmp_path, tmp_path, DataConfig()))[0].name == "masks"
