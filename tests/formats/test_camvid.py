"""CamVid in its four distributed layouts, and other data sets with the same layout."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from pixelwise.config import DataConfig, read_yaml
from pixelwise.datasets.dataset import DataSplits, open_data
from pixelwise.errors import DataError, LabelsError, MaskError, PairingError
from pixelwise.formats import find_format
from pixelwise.formats.dataset_root import DatasetRoot

ELEVEN = [
    "Sky",
    "Building",
    "Pole",
    "Road",
    "Pavement",
    "Tree",
    "SignSymbol",
    "Fence",
    "Car",
    "Pedestrian",
    "Bicyclist",
]
ROAD, CAR, VOID = (128, 64, 128), (64, 0, 128), (0, 0, 0)


def put(path: Path, pixels: Any, palette: Any = None) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(np.asarray(pixels, np.uint8) if not isinstance(pixels, np.ndarray) else pixels)
    if palette is not None:
        image.putpalette(palette)
    image.save(path)
    return path


def image(path: Path, size: tuple[int, int] = (1, 3)) -> Path:
    return put(path, np.zeros((*size, 3), np.uint8))


def opened(root: Path, **config: Any) -> DataSplits:
    return open_data(DataConfig.model_validate({"split": {"val": 0, "test": 0}, **config}), root)


def kind(root: Path) -> str:
    return find_format(DatasetRoot(root, root, DataConfig()))[0].name


def first(splits: DataSplits) -> list[list[int]]:
    assert splits.train is not None
    mask = splits.train.read(0).mask
    assert mask is not None
    return mask.tolist()


def ids(splits: DataSplits) -> dict[str, list[str]]:
    return {split.name: [record.id for record in split.records] for split in splits}


# The tutorial's ------------------------------------------------------------------------------------------------------


def tutorial(
    root: Path, mask: Any = ((0, 3, 11),), name: str = "0001TP_006690", splits: str = "train val test"
) -> Path:
    for split in splits.split():
        image(root / split / f"{name}.png")
        put(
            root / f"{split}annot" / f"{name}.png",
            np.array(mask, np.uint8) if not isinstance(mask, np.ndarray) else mask,
        )
    return root


def test_the_tutorials_folders_have_eleven_classes_and_void(tmp_path: Path) -> None:
    splits = opened(tutorial(tmp_path))
    assert splits.description["format"] == "camvid"
    assert ids(splits) == {split: [f"{split}/0001TP_006690"] for split in ("train", "val", "test")}
    assert list(splits.labels.names) == ELEVEN
    assert (splits.labels.ids, splits.labels.ignore_ids) == (tuple(range(11)), (11,))
    assert first(splits) == [[0, 3, 255]]
    assert "ignored classes of CamVid's 11 classes: Void" in splits.notices


def test_real_camvid_needs_no_configuration_and_equals_its_recipe(real: Any) -> None:
    root = real("camvid")
    splits = opened(root)
    assert {split.name: len(split) for split in splits} == {"train": 367, "val": 101, "test": 233}
    recipe, _ = read_yaml(Path(__file__).parents[2] / "recipes" / "camvid.yaml")
    named = open_data(DataConfig.model_validate({**recipe["data"], "root": str(root)}), root)
    assert splits.labels == named.labels
    assert ids(splits) == ids(named)
    assert splits.train
    assert named.train
    for place in (0, 99, 366):
        ours, theirs = splits.train.read(place).mask, named.train.read(place).mask
        np.testing.assert_array_equal(ours, theirs)
    assert splits.description["format"] == "camvid"


@pytest.mark.parametrize(
    ("mask", "name"), [(((0, 1, 1),), "street_01"), (((0, 7, 12),), "0001TP_006690"), (((0, 1, 255),), "a")]
)
def test_other_sets_in_such_folders_are_not_given_camvids_names(tmp_path: Path, mask: Any, name: str) -> None:
    splits = opened(tutorial(tmp_path, mask, name))
    assert splits.description["format"] == "camvid"
    assert not set(splits.labels.names) & set(ELEVEN)
    assert splits.labels.ids == tuple(sorted({*mask[0]} - {255}))


def test_classes_json_names_any_classes(tmp_path: Path) -> None:
    tutorial(tmp_path, ((0, 1, 2),), "a")
    plain = {"names": ["sea", "void of all", "boat"], "ignore": 1, "palette": [[0, 0, 9], [0, 0, 0], [9, 0, 0]]}
    (tmp_path / "classes.json").write_text(json.dumps(plain))
    splits = opened(tmp_path)
    assert splits.labels.names == ("sea", "boat")
    assert splits.labels.ids == (0, 2)
    assert splits.labels.colours == ((0, 0, 9), (9, 0, 0))
    assert splits.labels.ignore_ids == (1,)
    assert splits.labels.countable == (False, False)
    assert first(splits) == [[0, 255, 1]]
    assert "ignored classes of classes.json: void of all" in splits.notices
    assert opened(tmp_path, ignored=["sea"]).labels.names == ("boat",)


def test_two_classes_of_0_and_255_are_not_read_as_one_and_void(tmp_path: Path) -> None:
    tutorial(tmp_path, ((0, 255, 255),), "a")
    assert first(opened(tmp_path)) == [[0, 1, 1]]
    (tmp_path / "classes.json").write_text(json.dumps({"names": ["ground", "crack"]}))
    splits = opened(tmp_path)
    assert splits.labels.names == ("ground", "crack")
    assert first(splits) == [[0, 1, 1]]
    # Unless 255 is declared as ignored.
    (tmp_path / "classes.json").write_text(json.dumps({"names": {"0": "ground", "1": "crack", "255": "ignore"}}))
    assert first(opened(tmp_path)) == [[0, 255, 255]]


def test_palettes_are_read_as_indices_and_16_bits_are_not_truncated(tmp_path: Path) -> None:
    tutorial(tmp_path)
    for split in ("train", "val", "test"):
        # A palette of the tutorial's colours, in another order than its ids.
        put(
            tmp_path / f"{split}annot/0001TP_006690.png",
            [[0, 3, 11]],
            [*CAR, *ROAD, *(128, 128, 128), *VOID, *[7] * 24],
        )
    assert first(opened(tmp_path)) == [[0, 3, 255]]
    (tmp_path / "classes.json").write_text(json.dumps({"names": [f"class {i}" for i in range(300)]}))
    for split in ("train", "val", "test"):
        put(tmp_path / f"{split}annot/0001TP_006690.png", np.array([[0, 256, 299]], np.uint16))
    assert first(opened(tmp_path)) == [[0, 256, 299]]


def test_files_without_a_partner_are_reported(tmp_path: Path) -> None:
    tutorial(tmp_path)
    image(tmp_path / "train/0001TP_006720.png")
    put(tmp_path / "valannot/0001TP_006750.png", [[0, 1, 2]])
    with pytest.raises(PairingError) as caught:
        opened(tmp_path)
    assert "image without a mask: 1 (train/0001TP_006720.png)" in str(caught.value)
    assert "mask without an image: 1 (valannot/0001TP_006750.png)" in str(caught.value)


def test_folders_of_splits_that_are_not_read_are_reported(tmp_path: Path) -> None:
    tutorial(tmp_path, splits="train training")
    image(tmp_path / "test/0001TP_000001.png")  # whose masks are kept secret
    with pytest.raises(DataError, match=r"found camvid \(.*\); masks \(training/ with trainingannot/"):
        opened(tmp_path)
    splits = opened(tmp_path, format="camvid")
    assert ids(splits) == {"train": ["train/0001TP_006690"]}
    why = "1 images are left out; no masks are beside them, or the split has another folder"
    assert [notice for notice in splits.notices if "left out" in notice] == [f"test/: {why}", f"training/: {why}"]
    assert not any("left out" in notice for notice in opened(tutorial(tmp_path / "whole")).notices)


def test_upper_case_suffixes_and_other_files_are_accepted(tmp_path: Path) -> None:
    tutorial(tmp_path, splits="val")
    image(tmp_path / "train/0001TP_000001.PNG")
    (tmp_path / "train/Thumbs.db").touch()
    put(tmp_path / "trainannot/0001TP_000001.tif", [[0, 3, 11]])
    (tmp_path / "trainannot/notes.txt").touch()
    assert ids(opened(tmp_path))["train"] == ["train/0001TP_000001"]


# Kaggle's, the original, fast.ai's -----------------------------------------------------------------------------------


def test_kaggles_folders_have_colours_and_void(tmp_path: Path) -> None:
    for split in ("train", "val", "test"):
        image(tmp_path / split / "0001TP_009210.png")
        put(tmp_path / f"{split}_labels/0001TP_009210_L.png", [[ROAD, CAR, VOID]])
    rows = "name,r,g,b\nCar,64,0,128\nRoad,128,64,128\nVoid,0,0,0\n"
    (tmp_path / "class_dict.csv").write_text(rows)
    assert kind(tmp_path) == "camvid"
    splits = opened(tmp_path)
    assert ids(splits) == {split: [f"{split}/0001TP_009210"] for split in ("train", "val", "test")}
    assert splits.labels.names == ("Car", "Road")
    assert splits.labels.countable == (True, False)
    assert first(splits) == [[1, 0, 255]]
    # The written configuration reads the same masks in the same way.
    assert splits.description["mask_values"] == {"colours": True, "ignored": [[0, 0, 0]]}
    again = opened(tmp_path, labels=splits.labels.to_dict(), mask_values=splits.description["mask_values"])
    assert first(again) == first(splits)


def test_the_original_has_32_colours_with_or_without_its_table(tmp_path: Path) -> None:
    image(tmp_path / "701_StillsRaw_full/0006R0_f00930.png")
    put(tmp_path / "LabeledApproved_full/0006R0_f00930_L.png", [[ROAD, CAR, VOID]])
    splits = opened(tmp_path)
    assert splits.labels.num_classes == 31
    assert ids(splits) == {"train": ["701_StillsRaw_full/0006R0_f00930"]}
    shown = [splits.labels.names[i] if i < 31 else None for i in first(splits)[0]]
    assert shown == ["Road", "Car", None]
    (tmp_path / "label_colors.txt").write_text("64 0 128\tCar\n128 64 128\tRoad\n0 0 0\t\tVoid\n")
    assert opened(tmp_path).labels.names == ("Car", "Road")


def test_an_unknown_colour_is_reported_with_its_share(tmp_path: Path) -> None:
    image(tmp_path / "701_StillsRaw_full/0006R0_f00930.png")
    put(tmp_path / "LabeledApproved_full/0006R0_f00930_L.png", [[ROAD, CAR, (9, 200, 9)]])
    with pytest.raises(MaskError, match=r"found \(9, 200, 9\) in 1 pixel \(33\.3 %\)"):
        first(opened(tmp_path))


def fast_ai(root: Path) -> Path:
    for name in ("0001TP_006690", "0016E5_01110", "Seq05VD_f00000"):
        image(root / f"images/{name}.png")
        put(root / f"labels/{name}_P.png", [[0, 1, 2]])
    (root / "codes.txt").write_text("Animal\nRoad\nVoid\n")
    (root / "valid.txt").write_text("0016E5_01110.png\n")
    return root


def test_fast_ais_folder_has_lines_for_ids_and_its_own_list(tmp_path: Path) -> None:
    splits = opened(fast_ai(tmp_path))
    assert splits.description["format"] == "camvid"
    assert ids(splits) == {
        "train": ["images/0001TP_006690", "images/Seq05VD_f00000"], "val": ["images/0016E5_01110"]
    }  # fmt: skip
    assert splits.labels.names == ("Animal", "Road")
    assert splits.labels.ignore_ids == (2,)
    assert first(splits) == [[0, 1, 255]]
    (tmp_path / "valid.txt").unlink()
    assert list(ids(opened(tmp_path))) == ["train"]


def test_the_configuration_has_priority_over_the_folders(tmp_path: Path) -> None:
    fast_ai(tmp_path)
    splits = opened(tmp_path, format="camvid", images="images/*", masks="labels/{stem}_P.png")
    assert list(ids(splits)) == ["train"]  # valid.txt is not named
    assert splits.labels.names == ("Animal", "Road")


def test_a_named_format_that_does_not_match_is_an_error(tmp_path: Path) -> None:
    image(tmp_path / "images/a.png")
    with pytest.raises(
        Exception, match=r"expected train/ and trainannot/, .*, found none of these\. Leave data\.format out"
    ):
        opened(tmp_path, format="camvid")


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("classes.json", "[[", "expected a JSON file"),
        (
            "classes.json",
            '{"names": ["a", "b"], "palette": [[0, 0, 0]]}',
            "expected a colour for every name, found 1 for 2",
        ),
        ("classes.json", '{"names": []}', "expected classes with colours or values, found none"),
        ("classes.json", '{"names": ["a", "a"]}', "expected unique entries, found a twice"),
        ("class_dict.csv", "name,r,g,b\nroad,1,2\n", "row 2: expected 4 columns, found 3"),
        ("class_dict.csv", "name,r,g,b\nroad,1,2,300\n", "row 2: expected three values 0–255"),
        ("label_colors.txt", "1 2 3 road\nnonsense\n", "line 2: expected a name and three values, found 'nonsense'"),
    ],
)
def test_broken_tables_fail_by_name(tmp_path: Path, name: str, text: str, words: str) -> None:
    tutorial(tmp_path)
    (tmp_path / name).write_text(text)
    with pytest.raises((LabelsError, MaskError)) as caught:
        opened(tmp_path)
    assert str(caught.value).startswith(str(tmp_path / name))
    assert words in str(caught.value)
