"""Masks with a table beside them, in whatever folders; and what is written comes back, colour by colour."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from pixelwise.config import DataConfig
from pixelwise.datasets.convert import convert
from pixelwise.datasets.dataset import DataSplits, open_data
from pixelwise.errors import ConfigError, LabelsError, MaskError
from pixelwise.formats import FORMATS, find_format
from pixelwise.formats.dataset_root import Place
from pixelwise.imageio.masks import write_mask
from pixelwise.labels import Labels

ROAD, SKY, VOID = (128, 64, 128), (70, 130, 180), (0, 0, 0)
TABLE = "name,r,g,b\nroad,128,64,128\nsky,70,130,180\nvoid,0,0,0\n"


def put(path: Path, pixels: Any, palette: Any = None, dtype: Any = np.uint8) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(np.asarray(pixels, dtype))
    if palette is not None:
        image.putpalette(palette)
    image.save(path)
    return path


def full_image(path: Path, size: tuple[int, int] = (1, 3)) -> Path:
    return put(path, np.zeros((*size, 3)))


def opened(root: Path, **config: Any) -> DataSplits:
    return open_data(DataConfig.model_validate({"split": {"val": 0, "test": 0}, **config}), root)


def kind(root: Path, **config: Any) -> str:
    return find_format(Place(root, root, DataConfig.model_validate(config)))[0].name


def first(splits: DataSplits) -> list[list[int]]:
    assert splits.train is not None
    mask = splits.train.read(0).mask
    assert mask is not None
    return mask.tolist()


def coloured(root: Path, pixels: Any = ((ROAD, SKY, VOID),), **more: Any) -> Path:
    full_image(root / "images/a.jpg", np.shape(pixels)[:2])
    put(root / "masks/a.png", pixels, **more)
    (root / "class_dict.csv").write_text(TABLE)
    return root


def test_a_table_beside_images_and_masks_names_the_colours(tmp_path: Path) -> None:
    splits = opened(coloured(tmp_path))
    assert splits.description["format"] == "colours"
    assert splits.labels.names == ("road", "sky")
    assert splits.labels.colours == (ROAD, SKY)
    assert first(splits) == [[0, 1, 255]]
    assert "the masks hold colours, named by class_dict.csv" in splits.notices
    assert "class_dict.csv: void counts in nothing" in splits.notices


@pytest.mark.parametrize("name", ["label_colors.txt", "labelmap.txt", "colormap.json", "classes.json"])
def test_the_other_tables_do_as_well(tmp_path: Path, name: str) -> None:
    (coloured(tmp_path) / "class_dict.csv").unlink()
    assert kind(tmp_path) == "masks"
    texts = {
        "label_colors.txt": "128 64 128\troad\n70 130 180\tsky\n0 0 0\tVoid\n",
        "labelmap.txt": "# label:color_rgb:parts:actions\nroad:128,64,128::\nsky:70,130,180::\nignore:0,0,0::\n",
        "colormap.json": '{"road": [128, 64, 128], "sky": [70, 130, 180], "void": "#000000"}',
        "classes.json": '[{"name": "road", "color": "#804080"}, {"name": "sky", "color": "#4682b4"},'
        ' {"name": "void", "color": "#000000"}]',
    }
    (tmp_path / name).write_text(texts[name])
    assert first(opened(tmp_path)) == [[0, 1, 255]]


@pytest.mark.parametrize(
    ("image", "mask"),
    [
        ("train/images/a.jpg", "train/masks/a.png"),
        ("images/train/a.jpg", "labels/train/a.png"),
        ("train/119_sat.jpg", "train/119_mask.png"),
    ],
)
def test_any_folders_that_are_understood_without_a_table_are_with_one(tmp_path: Path, image: str, mask: str) -> None:
    full_image(tmp_path / image)
    put(tmp_path / mask, [[ROAD, SKY, VOID]])
    (tmp_path / "class_dict.csv").write_text(TABLE)
    assert first(opened(tmp_path)) == [[0, 1, 255]]


def test_the_configuration_may_name_folders_and_format(tmp_path: Path) -> None:
    full_image(tmp_path / "left/a.jpg")
    put(tmp_path / "right/a_x.png", [[ROAD, SKY, VOID]])
    (tmp_path / "class_dict.csv").write_text(TABLE)
    named = {"images": "left/*", "masks": "right/{stem}_x.png"}
    assert first(opened(tmp_path, format="colours", **named)) == [[0, 1, 255]]
    (tmp_path / "class_dict.csv").unlink()
    with pytest.raises(
        Exception, match=r"expected a table of colours or values .*, found none\. Write class_dict\.csv with"
    ):
        opened(tmp_path, format="colours", **named)


def test_colours_of_a_palette_count_and_its_indices_do_not(tmp_path: Path) -> None:
    coloured(tmp_path, [[0, 1, 2]], palette=[*VOID, *SKY, *ROAD])
    assert first(opened(tmp_path)) == [[255, 1, 0]]


def test_single_values_that_are_lines_of_the_table_are_read_as_these(tmp_path: Path) -> None:  # TRAPS C1
    coloured(tmp_path, [[0, 1, 2]])
    splits = opened(tmp_path)
    assert first(splits) == [[0, 1, 255]]
    assert "the masks hold values, named by class_dict.csv" in splits.notices
    assert splits.labels.ignore_ids == (2,)
    coloured(tmp_path, [[0, 1, 2]], palette=[9, 9, 9, 8, 8, 8, 7, 7, 7])  # a palette of other colours
    assert first(opened(tmp_path)) == [[0, 1, 255]]


def test_values_of_sixteen_bits_are_not_cut(tmp_path: Path) -> None:  # TRAPS C6
    full_image(tmp_path / "images/a.jpg")
    put(tmp_path / "masks/a.png", [[0, 256, 511]], dtype=np.uint16)
    (tmp_path / "classes.json").write_text('{"ground": 0, "house": 256, "tree": 511}')
    splits = opened(tmp_path)
    assert splits.labels.ids == (0, 256, 511)
    assert first(splits) == [[0, 1, 2]]


@pytest.mark.parametrize("bits", [False, True])
def test_black_and_white_are_the_colours_that_the_table_names(tmp_path: Path, bits: bool) -> None:  # TRAPS C2, C3
    coloured(tmp_path, [[0, 255, 255]], dtype=bool if bits else np.uint8)
    (tmp_path / "class_dict.csv").write_text("name,r,g,b\nroad,255,255,255\nbackground,0,0,0\n")
    assert first(opened(tmp_path)) == [[1, 0, 0]]


def test_lossy_masks_are_refused(tmp_path: Path) -> None:  # TRAPS C4
    full_image(tmp_path / "images/a.png", (16, 16))
    put(tmp_path / "masks/a.jpg", np.full((16, 16, 3), ROAD))
    (tmp_path / "class_dict.csv").write_text(TABLE)
    with pytest.raises(MaskError, match="found lossy JPEG"):
        first(opened(tmp_path))


def test_an_unknown_colour_is_told_with_its_share_and_data_ignored_takes_classes_out(tmp_path: Path) -> None:
    coloured(tmp_path, [[ROAD, SKY, (9, 200, 9), (9, 200, 9)]])
    with pytest.raises(MaskError, match=r"found \(9, 200, 9\) in 2 pixels \(50 %\)\. Assign that colour to a class"):
        first(opened(tmp_path))
    coloured(tmp_path)
    splits = opened(tmp_path, ignored=["sky"])
    assert splits.labels.names == ("road",)
    assert first(splits) == [[0, 255, 255]]


def test_a_broken_table_is_told_and_not_passed_over(tmp_path: Path) -> None:
    coloured(tmp_path)
    (tmp_path / "class_dict.csv").write_text("name,r,g,b\nroad,128,64\n")
    with pytest.raises(LabelsError, match=r"class_dict\.csv, row 2: expected 4 columns, found 3"):
        opened(tmp_path)
    (tmp_path / "class_dict.csv").write_bytes(b"name,r,g,b\nstra\xdfe,1,2,3\n")
    with pytest.raises(ConfigError, match="expected a text file in UTF-8"):
        opened(tmp_path)
    # classes.json is a name that many tools use: what is in it decides.
    (tmp_path / "class_dict.csv").unlink()
    (tmp_path / "classes.json").write_text('{"version": 7, "items": [{}]}')
    assert kind(tmp_path) == "masks"


def test_a_table_alone_makes_no_data_set(tmp_path: Path) -> None:
    (tmp_path / "class_dict.csv").write_text(TABLE)
    full_image(tmp_path / "images/a.jpg")
    assert kind(tmp_path) == "masks"


def test_labels_that_name_classes_alone_have_the_colours_of_the_table(tmp_path: Path) -> None:
    coloured(tmp_path)
    splits = opened(tmp_path, labels=["sky", "road"])
    assert splits.labels.colours == (SKY, ROAD)
    assert first(splits) == [[1, 0, 255]]
    assert "colours of the classes are taken from the annotations" in splits.notices
    # What the table leaves out may be made a class.
    own = {"names": ["road", "sky", "hole"], "colours": [list(ROAD), list(SKY), [0, 0, 0]]}
    assert first(opened(tmp_path, labels=own)) == [[0, 1, 2]]
    with pytest.raises(MaskError, match=r"found \(70, 130, 180\) in 1 pixel"):
        first(opened(tmp_path, labels=["road"]))


# Roboflow ------------------------------------------------------------------------------------------------------------


def roboflow(root: Path) -> Path:
    """What "Semantic Segmentation Masks" exports: values, and the table in each part."""
    for split, name in (("train", "a_jpg.rf.01"), ("valid", "b_jpg.rf.02"), ("test", "c_jpg.rf.03")):
        full_image(root / split / f"{name}.jpg")
        put(root / split / f"{name}_mask.png", [[0, 1, 2]])
        (root / split / "_classes.csv").write_text("Pixel Value, Class\n0, background\n1, crack\n2, rust\n")
    (root / "README.roboflow.txt").write_text("see roboflow.com")
    return root


def test_roboflows_masks_beside_images_hold_values(tmp_path: Path) -> None:
    splits = opened(roboflow(tmp_path))
    assert splits.description["format"] == "colours"
    assert {split.name: len(split) for split in splits} == {"train": 1, "val": 1, "test": 1}
    assert splits.labels.names == ("background", "crack", "rust")
    assert first(splits) == [[0, 1, 2]]


def test_roboflows_parts_have_to_be_of_one_version(tmp_path: Path) -> None:
    (roboflow(tmp_path) / "valid/_classes.csv").write_text("Pixel Value, Class\n0, background\n1, rust\n2, crack\n")
    with pytest.raises(
        LabelsError, match=r"expected the same classes as in test/_classes\.csv, found 'rust' \(1\) in one"
    ):
        opened(tmp_path)
    # Its table of classification is called the same.
    for split in ("train", "valid", "test"):
        (tmp_path / split / "_classes.csv").write_text("filename, crack, rust\na.jpg, 1, 0\n")
    assert kind(tmp_path) == "masks"


# Writing -------------------------------------------------------------------------------------------------------------


def written(tmp_path: Path, labels: Labels, mask: Any) -> tuple[Path, int]:
    """Convert one mask of indices; give the folder, and how many pixels came back otherwise."""
    for folder in ("in", "out"):
        (tmp_path / folder).mkdir()
    full_image(tmp_path / "in/train/images/a.png", np.shape(mask)[:2])
    (tmp_path / "in/train/masks").mkdir()
    write_mask(tmp_path / "in/train/masks/a.png", np.asarray(mask, np.uint8), labels)
    done = convert(opened(tmp_path / "in", labels=labels.to_dict()), FORMATS["colours"], tmp_path / "out")
    return tmp_path / "out", done.changed_pixels


def test_written_masks_are_rgb_with_a_table_and_ignored_pixels_have_a_colour_of_their_own(tmp_path: Path) -> None:
    labels = Labels(("sky", "road, wet"), (4, 9), (SKY, ROAD), ignore_ids=(0,))
    out, changed = written(tmp_path, labels, [[0, 1, 255]])
    assert changed == 0
    mask = Image.open(out / "train/masks/a.png")
    assert mask.mode == "RGB"
    assert np.asarray(mask).tolist() == [[list(SKY), list(ROAD), [255, 255, 255]]]
    with (out / "class_dict.csv").open(newline="") as file:
        rows = list(csv.reader(file))
    assert rows == [["name", "r", "g", "b"], ["sky", "70", "130", "180"], ["road, wet", "128", "64", "128"],
                    ["__ignore__", "255", "255", "255"]]  # fmt: skip
    (out / "data.yaml").unlink()
    splits = opened(out)
    assert splits.labels.names == labels.names
    assert first(splits) == [[0, 1, 255]]


@pytest.mark.parametrize(
    "colours",
    [
        (ROAD, ROAD, ROAD),
        ((255, 255, 255), ROAD, SKY),
        ((38, 40, 48), (38, 40, 48), (255, 255, 255)),
        (VOID, VOID, SKY),
    ],
)
def test_colours_that_are_not_unique_are_made_so_and_nothing_is_lost(tmp_path: Path, colours: Any) -> None:
    out, changed = written(tmp_path, Labels(("a", "b", "c"), colours=colours), [[0, 1, 2, 255]])
    assert changed == 0
    shown = np.asarray(Image.open(out / "train/masks/a.png")).reshape(-1, 3).tolist()
    assert len({tuple(each) for each in shown}) == 4
    assert tuple(shown[0]) == colours[0]


def test_classes_called_void_stay_classes_for_the_table_says_what_is_ignored(tmp_path: Path) -> None:
    out, changed = written(tmp_path, Labels(("void", "ignore")), [[0, 1, 255]])
    assert changed == 0
    (out / "data.yaml").unlink()
    assert opened(out).labels.names == ("void", "ignore")
    assert first(opened(out)) == [[0, 1, 255]]


def test_more_classes_than_a_byte_holds_come_back(tmp_path: Path) -> None:
    labels = Labels(tuple(f"class {i}" for i in range(300)), colours=((1, 2, 3),) * 300, ignore_ids=(65535,))
    for folder in ("in", "out"):
        (tmp_path / folder).mkdir()
    full_image(tmp_path / "in/images/a.png", (1, 301))
    (tmp_path / "in/masks").mkdir()
    write_mask(tmp_path / "in/masks/a.png", np.array([[*range(300), 65535]], np.uint16), labels)
    done = convert(opened(tmp_path / "in", labels=labels.to_dict()), FORMATS["colours"], tmp_path / "out")
    assert (done.pixels, done.changed_pixels) == (301, 0)
