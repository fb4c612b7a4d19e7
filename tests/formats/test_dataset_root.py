"""Lookup of images by the names in annotations, and data sets with two formats."""

from __future__ import annotations

import json
import unicodedata
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from pixelwise.config import DataConfig
from pixelwise.errors import DataError
from pixelwise.formats import read_dataset
from pixelwise.formats.dataset_root import DatasetRoot, ImageIndex
from pixelwise.formats.records import Record
from pixelwise.imageio.listing import walk


def put(root: Path, *names: str) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.array([[0, 1]], np.uint8)).save(root / name)
    return root


def read(root: Path, **config: Any) -> list[Record]:
    layout = read_dataset(DataConfig.model_validate(config), root, root)[1].layout
    return [record for own in layout.splits.values() for record in own]


def images(root: Path, **config: Any) -> list[str]:
    return [record.image.relative_to(root).as_posix() for record in read(root, **config)]


def test_a_question_mark_in_the_name_of_a_file_begins_no_query() -> None:
    root = Path("/r")
    images = ImageIndex(root, [root / name for name in ("what?.jpg", "what.jpg", "b.jpg")])
    assert images.find("x/what?.jpg") == images.find("what?") == root / "what?.jpg"
    assert images.find("http://host/what.jpg?size=2") == root / "what.jpg"
    assert images.find("http://host/gone.jpg?next=/b.jpg") == "no such image"


@pytest.mark.parametrize("forms", [("NFC", "NFD"), ("NFD", "NFC")])
def test_accents_may_be_decomposed_on_either_side(forms: tuple[str, str]) -> None:
    on_disk, named = (unicodedata.normalize(form, "fürth/é.jpg") for form in forms)
    root = Path("/r")
    images = ImageIndex(root, [root / on_disk, root / "else" / Path(on_disk).name])
    assert images.find(named) == root / on_disk
    assert isinstance(images.find(Path(named).stem), str), "two of that name"


def test_folders_with_brackets_can_be_named_and_patterns_stay_patterns(tmp_path: Path) -> None:
    put(tmp_path, "scans [final]/a.png", "part1/b.png", "part2/c.png")
    for wanted, found in (("scans [final]", ["a"]), (str(tmp_path / "scans [final]"), ["a"]), ("part[2]", ["c"])):
        place = DatasetRoot(tmp_path, tmp_path, DataConfig(images=wanted))
        assert [path.stem for path in place.images.paths] == found


def test_another_set_below_folders_of_images_and_masks_is_ambiguous(tmp_path: Path) -> None:
    inner = "VOCdevkit/VOC2012"
    put(tmp_path, "images/b.png", "masks/b.png", f"{inner}/JPEGImages/a.png", f"{inner}/SegmentationClass/a.png")
    with pytest.raises(DataError) as caught:
        read(tmp_path)
    assert "found voc (VOCdevkit/VOC2012/SegmentationClass/a.png " in str(caught.value)
    assert str(caught.value).endswith(
        "; masks (images/ with masks/, of whose images the other has none). Choose one:"
        " --set data.format=voc, or --set data.format=masks."
    )
    assert images(tmp_path, format="voc") == images(tmp_path, annotations="VOCdevkit") == [f"{inner}/JPEGImages/a.png"]
    assert images(tmp_path, format="masks") == ["images/b.png"]
    assert images(tmp_path / "VOCdevkit") == ["VOC2012/JPEGImages/a.png"]


def test_annotations_of_images_that_have_masks_besides_are_one_set(tmp_path: Path) -> None:
    put(tmp_path, "images/a.png", "masks/a_mask.png")
    square = {"id": 1, "image_id": 1, "category_id": 1, "segmentation": [[0, 0, 1, 0, 1, 1]], "area": 1, "iscrowd": 0}
    plain = {
        "images": [{"id": 1, "file_name": "a.png", "height": 1, "width": 2}],
        "categories": [{"id": 1, "name": "cat"}],
        "annotations": [square | {"bbox": [0, 0, 1, 1]}],
    }
    (tmp_path / "coco.json").write_text(json.dumps(plain))
    (record,) = read(tmp_path)
    assert record.source is not None


def test_an_exact_path_is_preferred_to_copies() -> None:
    root = Path("/r")
    names = ("images/train/a.jpg", "backup/images/train/a.jpg", "x/a.jpg", "x/y/a.jpg")
    images = ImageIndex(root, [root / name for name in names])
    assert images.find("images/train/a.jpg") == root / names[0]
    assert images.find("a.jpg", root / "x/y/a.json") == root / "x/y/a.jpg"
    assert images.find("y/a.jpg", root / "x/a.json") == root / "x/y/a.jpg"
    assert images.find("a.jpg") == "4 images of that name"


def test_names_without_suffix_are_distinguished_by_their_folders() -> None:
    root = Path("/r")
    images = ImageIndex(root, [root / name for name in ("train/frame_000000.PNG", "val/frame_000000.PNG")])
    assert images.find("val/frame_000000") == root / "val/frame_000000.PNG"


def test_many_images_with_one_name_are_found_fast() -> None:
    """Lookup is by path: comparing all 20,000 images of one name would take minutes."""
    root = Path("/r")
    paths = [root / f"patient{k:05}/slice.png" for k in range(20_000)]
    images = ImageIndex(root, paths)
    assert [images.find(f"patient{k:05}/slice.png") for k in range(20_000)] == paths


def test_folders_of_the_operating_system_are_skipped(tmp_path: Path) -> None:
    put(tmp_path, "images/a.png", "images/@eaDir/a.png/thumb.png", "$RECYCLE.BIN/b.png", "__MACOSX/images/c.png")
    (tmp_path / "images" / "again").symlink_to(tmp_path)
    assert [path.relative_to(tmp_path).as_posix() for path in walk(tmp_path)] == ["images/a.png"]
