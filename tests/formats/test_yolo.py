"""YOLO segmentation in the layouts of Ultralytics, Roboflow, CVAT, Label Studio and darknet."""

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
from pixelwise.formats.yolo import label_path
from pixelwise.geometry.contours import fill, join_holes, trace
from pixelwise.imageio.masks import write_mask
from pixelwise.labels import Labels

LEFT = "0 0 0 0.5 0 0.5 1 0 1\n"  # the left half, class 0
TOP = "1 0 0 1 0 1 0.5 0 0.5\n"  # the upper half, class 1
NAMES = "names:\n  0: road\n  1: tree\n"
NONE = {"val": 0, "test": 0}


def put(root: Path, files: dict[str, str | bytes], size: tuple[int, int] = (4, 8)) -> Path:
    """Write text files, and images of (H, W) for empty files with an image's name."""
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


def make_dataset(
    root: Path, text: str = LEFT, description: str = f"train: images/train\nval: images/val\n{NAMES}"
) -> Path:
    """Write one image for training with the given text file, and one for validation."""
    put(root, {"images/train/a.jpg": "", "labels/train/a.txt": text})
    return put(root, {"images/val/b.jpg": "", "labels/val/b.txt": TOP, "data.yaml": description})


def find(root: Path, **config: object) -> ReadResult:
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


# Layouts -------------------------------------------------------------------------------------------------------------


def test_ultralytics_layout(tmp_path):
    splits = opened(make_dataset(tmp_path))
    assert {split.name: [r.id for r in split.records] for split in splits} == {
        "train": ["images/train/a"],
        "val": ["images/val/b"],
    }
    assert splits.labels.names == ("background", "road", "tree")
    assert splits.labels.ids == (0, 1, 2)
    assert splits.labels.countable == (False, True, True)
    np.testing.assert_array_equal(mask_of(splits, "a"), [[1, 1, 1, 1, 0, 0, 0, 0]] * 4)
    np.testing.assert_array_equal(mask_of(splits, "b"), [[2] * 8] * 2 + [[0] * 8] * 2)


def test_roboflow_layout(tmp_path):
    for split in ("train", "valid", "test"):
        put(tmp_path, {f"{split}/images/{split}_jpg.rf.0a1b.jpg": "", f"{split}/labels/{split}_jpg.rf.0a1b.txt": LEFT})
    put(tmp_path, {"README.dataset.txt": "# road > 2024-01-01\n", "README.roboflow.txt": "\n1 2 3 of a readme\n"})
    description = (
        "train: ../train/images\nval: ../valid/images\ntest: ../test/images\n\nnc: 2\nnames: ['road', 'tree']\n\n"
        "roboflow:\n  workspace: w\n  project: p\n  version: 1\n  license: CC BY 4.0\n  url: https://x\n"
    )
    splits = opened(put(tmp_path, {"data.yaml": description}))
    assert {split.name: len(split) for split in splits} == {"train": 1, "val": 1, "test": 1}
    assert splits.skipped == ()
    assert not any("is read as" in notice for notice in splits.notices)


def test_cvat_layout_with_lists_of_images(tmp_path):
    put(tmp_path, {"images/train/a.jpg": "", "images/train/sub dir/b.png": "", "labels/train/a.txt": LEFT})
    put(tmp_path, {"labels/train/sub dir/b.txt": TOP, "train.txt": "images/train/a.jpg\nimages/train/sub dir/b.png\n"})
    put(tmp_path, {"data.yaml": "names:\n  0: road\n  1: tree\npath: .\ntrain: train.txt\n"})
    assert splits(find(tmp_path)) == {"train": ["images/train/a", "images/train/sub dir/b"]}


def test_lists_of_images_with_other_folders_and_missing_images(tmp_path):
    make_dataset(tmp_path, description=f"train: train.txt\n{NAMES}")
    lines = "./images/train/a.jpg\n\n/content/set/images/val/b.jpg\r\ndata\\images\\train\\gone.jpg\n"
    found = find(put(tmp_path, {"train.txt": lines}))
    assert splits(found) == {"train": ["images/train/a", "images/val/b"]}
    problems = [(one.file, one.why) for one in found.layout.problems]
    assert problems == [("train.txt: data\\images\\train\\gone.jpg", "listed, but no such image")]


def test_exact_paths_in_lists_are_preferred(tmp_path):
    make_dataset(tmp_path, description=f"train: train.txt\n{NAMES}")
    put(tmp_path, {"old/images/train/a.jpg": "", "old/labels/train/a.txt": TOP, "train.txt": "images/train/a.jpg\n"})
    found = find(tmp_path)
    assert splits(found) == {"train": ["images/train/a"]}
    assert found.layout.problems == ()


def test_detection_skips_empty_text_files(tmp_path):
    for number in range(25):
        put(tmp_path, {f"images/n{number:02}.jpg": "", f"labels/n{number:02}.txt": ""})
    found = find(put(tmp_path, {"images/z.jpg": "", "labels/z.txt": LEFT}))
    assert found.layout.notices[0] == "read as YOLO segmentation: labels/z.txt has classes and coordinates"
    assert len(splits(found)["pool"]) == 26


def test_detection_with_images_outside_the_root(tmp_path):
    put(tmp_path / "outside", {"images/a.jpg": ""})
    root = put(tmp_path / "set", {"notes.txt": "words"})
    config = {"images": str(tmp_path / "outside" / "images")}
    assert FORMATS["yolo"].detect(DatasetRoot(root, root, DataConfig.model_validate(config))) is None
    with pytest.raises(DataError, match=r"outside/labels/a\.txt, found none"):
        find(root, format="yolo", **config)


def test_a_split_can_be_several_folders(tmp_path):
    make_dataset(tmp_path, description=f"train: [images/train, images/val]\n{NAMES}")
    assert splits(find(tmp_path)) == {"train": ["images/train/a", "images/val/b"]}


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
def test_label_path(image, label, tmp_path):
    root = tmp_path / "images" / "set"  # folders above the root are not changed
    assert label_path(root / image, root) == root / label


def test_without_a_yaml_folders_and_classes_txt_are_used(tmp_path):
    put(tmp_path, {"images/a.jpg": "", "images/b.jpg": "", "labels/a.txt": TOP, "labels/classes.txt": "road\ntree\n"})
    put(tmp_path, {"classes.txt": "road\ntree\n\n", "notes.json": "{}", "preview/p.png": ""})
    found = find(tmp_path)
    assert splits(found) == {"pool": ["images/a", "images/b"]}
    assert found.labels.names == ("background", "road", "tree")
    assert found.layout.problems == ()
    assert found.layout.notices == (
        "read as YOLO segmentation: labels/a.txt has classes and coordinates",
        "1 of 3 images are in folders without label files and are left out",
        "1 of 2 images have no label file: they are background",
        "not used: 1 file (notes.json)",
    )


def test_darknet_layout(tmp_path):
    put(tmp_path, {"obj_train_data/a.jpg": "", "obj_train_data/a.txt": LEFT, "obj.names": "road\ntree\n"})
    put(tmp_path, {"obj_train_data/b.jpg": "", "obj_train_data/b.txt": TOP, "obj_train_data/README.txt": "about\n"})
    put(tmp_path, {"train.txt": "data/obj_train_data/a.jpg\n", "valid.txt": "data/obj_train_data/b.jpg\n"})
    found = find(tmp_path)
    assert splits(found) == {"train": ["obj_train_data/a"], "val": ["obj_train_data/b"]}
    assert found.layout.problems == ()


def test_classes_without_names_are_numbered(tmp_path):
    found = find(put(tmp_path, {"images/a.jpg": "", "labels/a.txt": LEFT + "7 0 0 1 0 1 1\n"}))
    assert found.labels.names == ("background", "class_0", "class_7")
    assert found.labels.ids == (0, 1, 8)
    assert "the classes have no names" in found.layout.notices[-1]


def test_nc_without_names_gives_numbered_names(tmp_path):
    make_dataset(tmp_path)
    (tmp_path / "data.yaml").unlink()
    put(tmp_path, {"set.yaml": "train: images/train\nval: images/val\nnames:\nnc: 3\n"})
    assert find(tmp_path).labels.names == ("background", "class_0", "class_1", "class_2")


def test_different_class_lists_are_an_error(tmp_path):
    put(tmp_path, {"images/a.jpg": "", "labels/a.txt": LEFT, "classes.txt": "a\n", "labels/classes.txt": "b\n"})
    with pytest.raises(LabelsError, match=r"expected one list of classes, found classes\.txt, labels/classes\.txt\."):
        find(tmp_path)


def test_paths_from_another_machine_are_matched_by_their_end(tmp_path):
    make_dataset(tmp_path, description=f"train: /content/drive/set/images/train\nval: D:\\set\\images\\val\n{NAMES}")
    found = find(tmp_path)
    assert splits(found) == {"train": ["images/train/a"], "val": ["images/val/b"]}
    assert "/content/drive/set/images/train is read as images/train" in found.layout.notices


@pytest.mark.parametrize("entry", ["../secret/images/train", "/etc", "../../..", "nowhere", "train.txt"])
def test_paths_never_lead_outside_the_root(entry, tmp_path):
    put(tmp_path / "secret", {"images/train/s.jpg": "", "labels/train/s.txt": LEFT})
    root = make_dataset(tmp_path / "set", description=f"train: {entry}\n{NAMES}")
    put(root, {"train.txt": "../secret/images/train/s.jpg\nimages/train/a.jpg\n"})
    if entry in ("/etc", "nowhere"):
        with pytest.raises(DataError, match=rf"data\.yaml: train: expected images at {entry}, found no such path"):
            find(root)
    else:
        assert set(splits(find(root))["train"]) <= {"images/train/a", "images/val/b"}  # found by the end of the path


def test_splits_without_images_or_labels_are_left_out(tmp_path):
    make_dataset(
        tmp_path, description=f"train: images/train\nval: images/val\ntest: images/test\nvalidation: x\n{NAMES}"
    )
    (tmp_path / "labels/val/b.txt").unlink()
    found = find(put(tmp_path, {"images/other/c.jpg": ""}))
    assert splits(found) == {"train": ["images/train/a"]}
    assert found.layout.notices[1:] == (
        "none of the 1 images of val has a label file: val is left out",
        "there are no images at images/test: it is left out of test",
        "2 of 3 images are in no split of data.yaml and are left out",
    )


def test_a_data_set_without_text_files_is_an_error(tmp_path):
    root = put(tmp_path, {"images/train/a.jpg": "", "data.yaml": f"train: images/train\n{NAMES}"})
    with pytest.raises(DataError, match=r"such as labels/train/a\.txt, found none\. Put labels/ next to images/; if"):
        find(root)


def test_val_equal_to_train_is_left_out_and_an_image_in_two_splits_is_an_error(tmp_path):
    found = find(make_dataset(tmp_path, description=f"train: images/train\nval: images/train\n{NAMES}"))
    assert splits(found) == {"train": ["images/train/a"]}
    assert "val lists the same images as train and is left out" in found.layout.notices
    (tmp_path / "data.yaml").write_text(f"train: images\nval: images/val\n{NAMES}")
    with pytest.raises(
        PairingError, match=r"expected every image in one split, found images/val/b\.jpg in train and val"
    ):
        find(tmp_path)


# The request ---------------------------------------------------------------------------------------------------------


def test_a_yolo_yaml_or_its_folder_as_data(tmp_path):
    make_dataset(tmp_path)
    for data in (tmp_path, tmp_path / "data.yaml"):
        config, base = read_request(data)
        assert (config.data.format, config.data.root, base) == ("yolo", None, tmp_path)
        assert config.data.annotations == str(tmp_path / "data.yaml")
    named = (tmp_path / "data.yaml").rename(tmp_path / "my set.yaml")
    assert read_request(named)[0].data.annotations == str(named)
    assert read_request(named, ["data.format=masks"])[0].data.format == "masks"
    assert {split.name: len(split) for split in opened(named)} == {"train": 1, "val": 1}


@pytest.mark.parametrize("key", ["images: 'a/*.png'", "labels: [a]", "format: masks", "root: x"])
def test_pixelwise_yaml_is_not_taken_for_yolo(key, tmp_path):
    path = put(tmp_path, {"data.yaml": f"train: splits/train.txt\n{key}\n"}) / "data.yaml"
    assert read_request(path)[0].data.format in (None, "masks")
    path.write_text(f"train: splits/train.txt\n{key}\nnames: [a]\n")
    with pytest.raises(ConfigError, match="unknown key `names`"):
        read_request(path)


def test_path_is_used_if_it_exists(tmp_path):
    make_dataset(tmp_path / "sets" / "roads", description="")
    root = tmp_path / "sets" / "roads"
    path = put(tmp_path, {"yaml/roads.yaml": f"path: ../sets/roads\ntrain: images/train\n{NAMES}"}) / "yaml/roads.yaml"
    (root / "data.yaml").unlink()
    splits = opened(path)
    assert splits.description["root"].endswith("sets/roads")
    assert [split.name for split in splits] == ["train"]
    assert any(n.startswith("images are read from") and n.endswith("the `path` in roads.yaml") for n in splits.notices)


@pytest.mark.parametrize("missing", ["/home/me/datasets/roads", "../datasets/roads", "x" * 5000, "a\\0b"])
def test_a_path_that_does_not_exist_is_replaced_by_the_folder_of_the_yaml(missing, tmp_path):
    make_dataset(tmp_path, description=f'path: "{missing}"\ntrain: images/train\nval: images/val\n{NAMES}')
    splits = opened(tmp_path)
    assert {split.name: len(split) for split in splits} == {"train": 1, "val": 1}
    assert any(f"does not exist on this machine: images are looked up in {tmp_path}" in n for n in splits.notices)


def test_path_below_the_yaml_or_outside_the_root(tmp_path):
    make_dataset(tmp_path / "in", description="")
    (tmp_path / "in/data.yaml").unlink()
    put(tmp_path, {"dataset.yaml": f"path: in\ntrain: images/train\nval: images/val\n{NAMES}"})
    assert splits(find(tmp_path)) == {"train": ["in/images/train/a"], "val": ["in/images/val/b"]}
    root = make_dataset(tmp_path / "copy", description="")
    (root / "data.yaml").unlink()
    found = find(put(root, {"dataset.yaml": f"path: {tmp_path / 'in'}\ntrain: images/train\n{NAMES}"}))
    assert [record.image for record in found.layout.splits["train"]] == [root / "images/train/a.jpg"]
    assert "is outside the data set's folder" in found.layout.notices[1]


def test_download_is_ignored(tmp_path):
    script = f"download: |\n  from pathlib import Path\n  Path({str(tmp_path / 'ran')!r}).touch()\n"
    opened(make_dataset(tmp_path, description=f"train: images/train\nval: images/val\n{script}{NAMES}"))
    assert not (tmp_path / "ran").exists()


def test_several_yamls_at_the_root_are_ambiguous(tmp_path):
    make_dataset(tmp_path)
    put(tmp_path, {"fold2.yaml": f"train: images/val\nval: images/train\n{NAMES}"})
    do = "--set data.annotations=data.yaml"
    with pytest.raises(ConfigError, match=f"expected one YAML .*, found data.yaml, fold2.yaml. Choose one: {do}"):
        find(tmp_path)
    found = find(tmp_path, annotations="fold2.yaml", format="yolo")
    assert splits(found) == {"train": ["images/val/b"], "val": ["images/train/a"]}


@pytest.mark.parametrize(("open_", "close"), [("[", "]"), ("{", "}")])
def test_yaml_alias_bombs_are_errors(open_, close, tmp_path):
    key = ("" if open_ == "[" else "x: ", "" if open_ == "[" else "y: ")
    rows = [f"a{k}: &a{k} {open_}{key[0]}*a{k - 1}, {key[1]}*a{k - 1}{close}" for k in range(1, 40)]
    make_dataset(tmp_path, description="\n".join(["a0: &a0 [1]", *rows, "train: images/train", "names: *a39"]) + "\n")
    with pytest.raises(ConfigError, match=r"data\.yaml: expected at most 1,000,000 values, found aliases that expand"):
        read_request(tmp_path)
    assert find_format(DatasetRoot(tmp_path, tmp_path, DataConfig()))[0].name == "yolo"  # recognised by its text files


def test_annotations_other_than_a_yolo_yaml_are_errors(tmp_path):
    make_dataset(tmp_path)
    with pytest.raises(ConfigError, match=r"data\.annotations: expected the YAML of a YOLO data set, found 'labels'"):
        find(tmp_path, annotations="labels", format="yolo")
    (tmp_path / "data.yaml").write_text("train: [\n")
    with pytest.raises(ConfigError, match=r"data\.yaml: expected a readable YAML file"):
        find(tmp_path, annotations="data.yaml", format="yolo")


# Content of the YAML ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("names: [road, road]", "names: expected unique names and ids, found 'road'. Rename one of the duplicates."),
        ("names: [no, tree]", "names: expected class names, found False. Put the name in quotes."),
        ("names: {a: road}", "names: expected integer class ids, found 'a'. Write 0: name."),
        ("names: road", "names: expected a list of names, found 'road'. Write names: [a, b]."),
        ("names: [road, tree]\nnc: 3", "nc: expected 2, the number of names, found 3. Correct nc, or add the names."),
        ("names:\nnc: 99999999", "nc: expected a number of classes, found 99999999. Correct it."),
        ("names:\nnc: true", "nc: expected a number of classes, found True. Correct it."),
        (
            "names: [a]\nkpt_shape: [17, 3]",
            "expected a data set for segmentation, found kpt_shape, for keypoints. Export",
        ),
        (
            "names: [a]\nmasks_dir: masks",
            "found masks_dir 'masks', masks as PNG. Read them as folders of masks: --set data.",
        ),
        (
            "names: [a]\nval: {images: x}",
            "val: expected a folder, a list of folders, or a .txt list of images, found {'im",
        ),
    ],
)
def test_invalid_yaml_content_is_an_error(content, message, tmp_path):
    make_dataset(tmp_path, description=f"train: images/train\n{content}\n")
    with pytest.raises(PixelwiseError) as error:
        find(tmp_path)
    assert str(error.value).startswith(f"{tmp_path / 'data.yaml'}: ")
    assert message in str(error.value)


# Lines ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("0 0.5 0.5 0.2 0.2", "expected a polygon: class x1 y1 x2 y2 x3 y3 …, found a box (class cx cy w h), as for detection"
         ". Draw polygons, or export the data set for segmentation; --skip-bad leaves such images out."),
        ("0 0.5 0.5", "found 1 points. Correct the line, or remove it."),
        ("0", "found 0 points."),
        ("0 .1 .1 .5 .1 .5 .5 .9", "found 7 coordinates. Correct the line, or remove it."),
        ("0 0 0 320 0 320 240", "expected coordinates as fractions, 0…1, found 320, as in pixels. Divide x by the image's width"),
        ("0 0 0 1.2 0 1 1", "expected coordinates as fractions, 0…1, found 1.2. Divide"),
        ("0 0 0 1 -0.3 1 1", "found -0.3."),
        ("2 0 0 1 0 1 1", "expected a class id 0–1, as in data.yaml, found 2. Correct the line, or add the class"),
        ("-1 0 0 1 0 1 1", "found -1."),
        ("0.5 0 0 1 0 1 1", "found 0.5."),
        ("0 0 nan 1 0 1 1", "found NaN or infinity."),
        ("inf 0 0 1 0 1 1", "found NaN or infinity."),
        ("road 0 0 1 0 1 1", "found 'road 0 0 1 0 1 1'. Correct the line, or export it again."),
        ("0,0,0,1,0,1,1", "found '0,0,0,1,0,1,1'."),
        ("1 rle 4 8 0X20", "found '1 rle 4 8 0X20'."),
    ],
)  # fmt: skip
def test_malformed_lines_are_errors_with_their_number_and_can_be_skipped(line, message, tmp_path):
    make_dataset(tmp_path, f"{LEFT}\n{line}\n")
    with pytest.raises(MaskError) as error:
        find(tmp_path)
    assert str(error.value).startswith(f"{tmp_path / 'labels/train/a.txt'}:3: expected ")
    assert message in str(error.value)
    found = find(tmp_path, skip_bad=True)
    assert splits(found) == {"val": ["images/val/b"]}
    assert [one.file for one in found.layout.problems] == [f"{tmp_path / 'labels/train/a.txt'}:3"]
    assert found.layout.problems[0].why in str(error.value)


def test_data_sets_for_detection_are_errors_even_with_skip_bad(tmp_path):
    make_dataset(tmp_path, "0 0.5 0.5 0.2 0.2\n")
    (tmp_path / "labels/val/b.txt").write_text("1 0.5 0.5 0.2 0.2\n")
    with pytest.raises(MaskError, match=r"found a box \(class cx cy w h\), as for detection"):
        find(tmp_path, skip_bad=True)


def test_text_of_an_unknown_encoding_is_an_error(tmp_path):
    make_dataset(tmp_path)
    (tmp_path / "labels/train/a.txt").write_bytes(b"# Stra\xdfe\n" + LEFT.encode())
    with pytest.raises(MaskError, match=r"a\.txt: expected a text file in UTF-8, found"):
        find(tmp_path)


def test_oriented_boxes_are_polygons_and_points_just_outside_are_clipped(tmp_path):
    make_dataset(tmp_path, "\ufeff1.0 -0.004 0 0.5 0 0.5 1.006 0 1\r\n\r\n")
    np.testing.assert_array_equal(mask_of(opened(tmp_path), "a"), [[2, 2, 2, 2, 0, 0, 0, 0]] * 4)


def test_empty_and_missing_text_files_are_background(tmp_path):
    make_dataset(tmp_path)
    put(tmp_path, {"images/train/c.jpg": "", "labels/train/c.txt": "\n \n", "images/train/d.jpg": ""})
    splits = opened(tmp_path)
    assert not mask_of(splits, "c").any()
    assert not mask_of(splits, "d").any()
    assert splits.notices == ("1 of 4 images have no label file: they are background",)
    assert splits.train.hash() != splits.val.hash()


def test_unmatched_text_files_and_second_images_are_problems(tmp_path):
    make_dataset(tmp_path)
    put(tmp_path, {"labels/train/lost.txt": LEFT, "labels/notes.txt": "words", "images/train/a.png": ""})
    put(tmp_path, {"notes.txt": "words", "images/train/stray.txt": LEFT})
    problems = sorted((one.file, one.why) for one in find(tmp_path).layout.problems)
    assert problems == [
        ("images/train/a.jpg", "one of 2 images of labels/train/a.txt"),
        ("images/train/a.png", "one of 2 images of labels/train/a.txt"),
        ("images/train/stray.txt", "label file without its image"),
        ("labels/notes.txt", "label file without its image"),
        ("labels/train/lost.txt", "label file without its image"),
    ]


def test_images_without_a_label_file_are_left_out_if_one_may_be_lost(tmp_path):
    """Otherwise they are background; a label file without its image may belong to any of them."""
    make_dataset(tmp_path)
    put(tmp_path, {"images/train/c.jpg": "", "images/train/d.jpg": "", "labels/train/d.txt": ""})
    assert splits(find(tmp_path, skip_bad=True))["train"] == ["images/train/a", "images/train/c", "images/train/d"]
    put(tmp_path, {"labels/train/cc.txt": LEFT})
    found = find(tmp_path, skip_bad=True)
    assert splits(found)["train"] == ["images/train/a", "images/train/d"]
    why = "no label file; labels/train/cc.txt or another without its image may belong to it"
    assert ("images/train/c.jpg", why) in [(one.file, one.why) for one in found.layout.problems]


def test_a_yaml_that_cannot_be_parsed_is_an_error(tmp_path):
    make_dataset(tmp_path)
    (tmp_path / "data.yaml").rename(tmp_path / "other.yaml")
    (tmp_path / "other.yaml").write_text("names: [a, b\n")
    with pytest.raises(ConfigError, match=r"other\.yaml: expected a readable YAML file"):
        find(tmp_path)


def test_smaller_shapes_are_on_top_unless_overlap_is_file(tmp_path):
    small = "1 0.125 0.25 0.375 0.25 0.375 0.75 0.125 0.75\n"
    make_dataset(tmp_path, small + LEFT)
    expected = np.array([[1, 1, 1, 1, 0, 0, 0, 0]] * 4)
    np.testing.assert_array_equal(mask_of(opened(tmp_path, overlap="file"), "a"), expected)
    expected[1:3, 1:3] = 2
    np.testing.assert_array_equal(mask_of(opened(tmp_path), "a"), expected)


def test_ignored_classes_and_ignored_unlabelled_pixels(tmp_path):
    make_dataset(tmp_path, LEFT + "1 0.5 0 1 0 1 0.5 0.5 0.5\n")
    splits = opened(tmp_path, ignored=["tree"], unlabelled="ignore")
    assert splits.labels.names == ("road",)
    np.testing.assert_array_equal(mask_of(splits, "a"), [[1] * 4 + [255] * 4] * 4)


def test_fractions_refer_to_the_upright_image(tmp_path):
    make_dataset(tmp_path)
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (4, 8)).save(tmp_path / "images/train/a.jpg", exif=exif)
    np.testing.assert_array_equal(mask_of(opened(tmp_path), "a"), [[1, 1, 1, 1, 0, 0, 0, 0]] * 4)


@pytest.mark.parametrize(
    "line",
    ["1 " + "1234567890 " * 5000 + "x", "1" * 50_000 + "x", "3 " + "0.12345678 " * 5000 + "-", "0 12 7 9 300 2 2"],
)
def test_other_tables_of_numbers_are_not_recognised(line, tmp_path):
    put(tmp_path, {"a.jpg": "", "a.txt": line})
    assert FORMATS["yolo"].detect(DatasetRoot(tmp_path, tmp_path, DataConfig())) is None


def test_splits_can_be_pickled(tmp_path):
    splits = opened(make_dataset(tmp_path))
    again = pickle.loads(pickle.dumps(splits.train))
    assert again.hash() == splits.train.hash()
    np.testing.assert_array_equal(again.read(0).mask, splits.train.read(0).mask)


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck), database=None)
@given(st.one_of(st.binary(max_size=80), st.text("0123456789.-e \n\tna_", max_size=80).map(str.encode)))
def test_random_content_is_read_or_rejected(tmp_path_factory, content):
    root = make_dataset(tmp_path_factory.mktemp("any"))
    (root / "labels/train/a.txt").write_bytes(content)
    try:
        message = ""
        mask_of(opened(root), "a")
    except DataError as error:
        message = str(error)
    assert not message or "labels/train/a.txt" in message


# Bridges -------------------------------------------------------------------------------------------------------------


def merged(rings: list[np.ndarray]) -> np.ndarray:
    """Join rings by bridges between nearest points, like `merge_multi_segment`."""
    bridges = []
    for one, other in pairwise(rings):
        distances = ((one[:, None] - other[None]) ** 2).sum(-1)
        bridges.append(np.unravel_index(distances.argmin(), distances.shape))

    def walk(k: int, start: int) -> list[np.ndarray]:
        ring = np.roll(rings[k], -start, axis=0)
        if k == len(rings) - 1:
            return [ring, ring[:1]]
        leave = (bridges[k][0] - start) % len(ring)
        return [ring[: leave + 1], *walk(k + 1, bridges[k][1]), ring[leave:], ring[:1]]

    return np.concatenate(walk(0, 0))


def inside(ring: np.ndarray, x: float, y: float) -> bool:
    """Count crossings to the left, edge by edge: an independent oracle."""
    is_odd = False
    for (x0, y0), (x1, y1) in zip(ring, np.roll(ring, -1, axis=0), strict=True):
        if (y0 > y) != (y1 > y) and x0 + (y - y0) * (x1 - x0) / (y1 - y0) <= x:
            is_odd = not is_odd
    return is_odd


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
def test_rings_joined_by_bridges_are_read_as_separate(rings, form, tmp_path):
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
def test_joined_rings_cover_the_region_and_its_painted_holes(mask):
    background = mask == 0
    for contour in trace(mask):
        joined = np.zeros(mask.shape, bool)
        top, left, filled = fill((join_holes(contour, background),), mask.shape)
        joined[top : top + filled.shape[0], left : left + filled.shape[1]] = filled
        expected = np.zeros(mask.shape, bool)
        for ring in (contour.outer, *contour.holes):
            top, left, filled = fill((ring,), mask.shape)
            view = expected[top : top + filled.shape[0], left : left + filled.shape[1]]
            if (
                ring is contour.outer
                or background[top : top + filled.shape[0], left : left + filled.shape[1]][filled].any()
            ):
                view ^= filled
        np.testing.assert_array_equal(joined, expected)


def test_the_total_length_of_bridges_is_limited():
    mask = np.ones((201, 201), np.uint8)
    mask[1::2, 1::2] = 0
    contour = trace(mask)[0]
    assert len(contour.holes) == 10_000
    ring, rings = join_holes(contour, mask == 0), (contour.outer, *contour.holes)
    perimeter = sum(np.abs(np.diff(one, axis=0, append=one[:1])).sum() for one in rings)
    assert np.abs(np.diff(ring, axis=0, append=ring[:1])).sum() <= perimeter + 2 * contour.area
    np.testing.assert_array_equal(fill((ring,), mask.shape)[2], mask == 1)


# Writing -------------------------------------------------------------------------------------------------------------


def written(folder: Path, masks: dict[str, np.ndarray], labels: Labels) -> tuple[DataSplits, Path]:
    """Write masks by name, such as "train/a": the opened data set, and an output folder."""
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


@pytest.mark.parametrize("labels", [WITH, WITHOUT], ids=["with background", "without background"])
def test_only_ignored_pixels_are_lost_and_only_with_a_background_class(labels, tmp_path):
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


def test_written_files_are_read_by_ultralytics(tmp_path):
    mask = np.zeros((10, 20), np.uint8)
    mask[2:8, 4:14] = 2
    mask[4:6, 6:10] = 0  # a hole with background
    mask[0:2, 0:5] = 1
    splits, out = written(tmp_path, {"train/sub/a.v1": mask, "val/b": np.zeros((4, 4), np.uint8)}, WITH)
    assert convert(splits, FORMATS["yolo"], out).changed_pixels == 0
    description = yaml.safe_load((out / "dataset.yaml").read_text())
    assert description == {"train": "images/train", "val": "images/val", "names": {0: "road", 1: "tree"}}
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


def test_ids_with_a_folder_named_images(tmp_path):
    splits, out = written(tmp_path, {f"train/{name}": np.eye(5, dtype=np.uint8) for name in ("images/a", "b")}, WITH)
    assert convert(splits, FORMATS["yolo"], out).changed_pixels == 0
    assert (out / "images/train/labels/a.txt").is_file()


def test_coordinates_are_precise_enough_for_wide_images(tmp_path):
    mask = np.zeros((3, 20_011), np.uint8)
    mask[1, 1::2] = 1
    splits, out = written(tmp_path, {"train/wide": mask}, WITH)
    assert convert(splits, FORMATS["yolo"], out).changed_pixels == 0


def test_special_names_and_data_sets_of_only_background_round_trip(tmp_path):
    labels = Labels(("background", "no", "1.5", "straße: a", " x"))
    mask = np.arange(5, dtype=np.uint8)[None].repeat(2, 0)
    splits, out = written(tmp_path / "names", {"test/a": mask}, labels)
    assert convert(splits, FORMATS["yolo"], out).changed_pixels == 0
    (out / "data.yaml").unlink()
    assert find(out).labels.names == labels.names
    splits, out = written(tmp_path / "background", {"train/a": mask * 0}, Labels(("background",)))
    assert convert(splits, FORMATS["yolo"], out).changed_pixels == 0


def test_real_masks_round_trip_except_ignored_pixels(real, tmp_path):
    folder = real("camvid")
    config = DataConfig.model_validate({"split": NONE})
    splits = open_data(config, folder)
    subset = DataSplits(splits.train.subset(range(0, 6)), None, None, splits.labels, (), (), splits.description)
    before = [subset.train.read(index).mask for index in range(6)]
    (tmp_path / "out").mkdir()
    done = convert(subset, FORMATS["yolo"], tmp_path / "out")
    ignored = sum(int((mask == subset.labels.ignore_index).sum()) for mask in before)
    assert done.changed_pixels == (ignored if "background" in subset.labels.names else 0)


def test_a_labels_folder_with_masks_is_not_yolo(tmp_path):
    put(tmp_path, {"images/a.png": "", "labels/a.png": "", "notes.txt": "0 0 0 1 1 0 1\n"})
    assert find_format(DatasetRoot(tmp_path, tmp_path, DataConfig()))[0].name == "masks"
