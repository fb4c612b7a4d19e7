"""COCO instances: read as pycocotools reads them, whatever tool wrote them, and written so that it reads ours."""

from __future__ import annotations

import copy
import io
import json
import pickle
import tracemalloc
from contextlib import redirect_stdout
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from pycocotools import mask as coder
from pycocotools.coco import COCO
from scipy import ndimage

from pixelwise.config import DataConfig
from pixelwise.datasets.convert import convert
from pixelwise.datasets.dataset import open_data
from pixelwise.errors import DataError, LabelsError, MaskError, PairingError, PixelwiseError
from pixelwise.formats import FORMATS, coco, find_format, read_dataset
from pixelwise.formats.dataset_root import DatasetRoot
from pixelwise.formats.shapes import Drawing, Runs, Shape
from pixelwise.imageio.masks import write_mask
from pixelwise.imageio.raster import turn
from pixelwise.labels import Labels

# pycocotools' own way with numpy arrays, where masks are decoded.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

SIZE = (20, 30)
SQUARE = [2, 2, 12, 2, 12, 10, 2, 10]  # 10 by 8 pixels
SMALL = [4, 4, 8, 4, 8, 8, 4, 8]
NO_SPLIT = {"split": {"val": 0, "test": 0}}


def image(path: Path, size: tuple[int, int] = SIZE, orientation: int = 1) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.new("RGB", size[::-1], (9, 9, 9)).save(path, exif=exif)
    return path


def entry(number: int = 1, name: str = "a.jpg", size: tuple[int, int] = SIZE) -> dict[str, Any]:
    return {"id": number, "file_name": name, "height": size[0], "width": size[1]}


def thing(segmentation: Any, category: Any = 1, number: Any = 1, image: Any = 1, **more: Any) -> dict[str, Any]:
    return {"id": number, "image_id": image, "category_id": category, "segmentation": segmentation, "iscrowd": 0} | more


def document(*annotations: Any, images: Any = None, classes: Any = ("cat", "dog")) -> dict[str, Any]:
    categories = [{"id": i, "name": name, "supercategory": "pet"} for i, name in enumerate(classes, 1)]
    return {"images": images or [entry()], "annotations": list(annotations), "categories": categories}


def lay(root: Path, plain: Any, name: str = "annotations.json", *, images: bool = True) -> Path:
    """Write a file, and in its folder every image that it lists."""
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(plain))
    for one in plain["images"] if images else ():
        image(path.parent / one["file_name"], (one.get("height", SIZE[0]), one.get("width", SIZE[1])))
    return root


def find(root: Path, **config: Any) -> Any:
    return read_dataset(DataConfig.model_validate(config), root, root)[1]


def records(found: Any) -> list[Any]:
    return [record for split in found.layout.splits.values() for record in split]


def ids(found: Any) -> dict[str, list[str]]:
    return {split: [record.id for record in own] for split, own in found.layout.splits.items()}


def why(found: Any) -> list[tuple[str, str]]:
    return sorted((problem.file, problem.why) for problem in found.layout.problems)


def drawn(root: Path, **config: Any) -> np.ndarray:
    """Open a set of one image, and name the class of each pixel."""
    splits = open_data(DataConfig.model_validate(NO_SPLIT | config), root)
    (split,) = splits
    names = np.array([*splits.labels.names, *["(ignored)"] * (256 - splits.labels.num_classes)])
    return names[split.read(0).mask]


def index(path: Path) -> COCO:
    with redirect_stdout(io.StringIO()):
        return COCO(str(path))


def runs(mask: np.ndarray, compressed: bool = True) -> dict[str, Any]:
    """Write run lengths as COCO's own files have them: as a text, and for crowds as a list."""
    if compressed:
        return {"size": list(mask.shape), "counts": coder.encode(np.asfortranarray(mask, np.uint8))["counts"].decode()}
    flat = np.concatenate([[0], mask.T.reshape(-1), [2]])
    borders = np.flatnonzero(np.diff(flat))
    return {"size": list(mask.shape), "counts": np.diff(borders, prepend=0).tolist()}


# As pycocotools reads it ----------------------------------------------------------------------------------------------

RINGS = st.lists(
    st.lists(st.floats(-8, 38, width=32) | st.integers(-2, 34), min_size=3, max_size=9).flatmap(
        lambda xs: st.lists(st.floats(-6, 26), min_size=len(xs), max_size=len(xs)).map(
            lambda ys: [float(v) for pair in zip(xs, ys, strict=True) for v in pair]
        )
    ),
    min_size=1,
    max_size=3,
)


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.lists(RINGS, min_size=1, max_size=3))
def test_polygons_are_what_ann_to_mask_gives(tmp_path_factory, polygons):
    root = tmp_path_factory.mktemp("set")
    lay(root, document(*(thing(rings, number=n) for n, rings in enumerate(polygons, 1))))
    source = records(find(root))[0].source
    theirs = index(root / "annotations.json")
    for number, shape in enumerate(source.shapes, 1):
        ours = np.zeros(SIZE, bool)
        top, left, box = shape.region.cover(SIZE)
        ours[top : top + box.shape[0], left : left + box.shape[1]] = box
        np.testing.assert_array_equal(ours, theirs.annToMask(theirs.anns[number]))


@pytest.mark.parametrize("compressed", [True, False], ids=["text", "list"])
def test_run_lengths_and_crowds_are_their_class(tmp_path, compressed):
    mask = np.random.default_rng(0).integers(0, 2, SIZE)
    lay(tmp_path, document(thing(runs(mask, compressed), category=2, iscrowd=1)))
    np.testing.assert_array_equal(drawn(tmp_path) == "dog", mask)
    theirs = index(tmp_path / "annotations.json")
    np.testing.assert_array_equal(theirs.annToMask(theirs.anns[1]), mask)


def test_real_objects_are_what_ann_to_mask_gives(real, tmp_path):
    path = real("fixtures") / "instances_coco100" / "gt_instances.json"
    theirs = index(path)
    found = find(path.parent, annotations=path.name, images=str(real("coco_panoptic") / "images/val2017/*.jpg"))
    assert {split: len(own) for split, own in ids(found).items()} == {"pool": 100}
    assert found.labels.names[:3] == ("background", "person", "bicycle")
    assert found.labels.ids[-1] == 90
    for record in records(found):
        objects = theirs.imgToAnns[int(Path(record.id).name)]
        masks = [theirs.annToMask(one) for one in objects]
        canvas = np.zeros(record.source.size, int)
        for place in sorted(range(len(objects)), key=lambda place: -int(masks[place].sum())):
            canvas[masks[place] == 1] = objects[place]["category_id"]
        mask = record.source.draw(found.labels, record.source.size)
        np.testing.assert_array_equal(np.array(found.labels.ids)[mask], canvas)


def test_real_objects_as_polygons_are_what_ann_to_mask_gives(real, tmp_path):
    """The real objects again, outlined as annotators do, with points at fractions of a pixel."""
    plain = json.loads((real("fixtures") / "instances_coco100" / "gt_instances.json").read_text())
    rng = np.random.default_rng(0)
    plain["images"] = plain["images"][:20]
    kept = {one["id"] for one in plain["images"]}
    plain["annotations"] = [one for one in plain["annotations"] if one["image_id"] in kept]
    for one in plain["annotations"]:
        x, y, width, height = one["bbox"]
        angle = np.sort(rng.random((2, 12)) * 2 * np.pi, axis=1)
        points = np.stack([x + width * (0.5 + 0.6 * np.cos(angle)), y + height * (0.5 + 0.6 * np.sin(angle))], -1)
        one["segmentation"] = np.round(points, 2).reshape(2, -1).tolist()
    lay(tmp_path, plain)
    theirs = index(tmp_path / "annotations.json")
    for record in records(find(tmp_path)):
        objects = theirs.imgToAnns[int(record.id)]
        for one, shape in zip(objects, record.source.shapes, strict=True):
            ours = np.zeros(record.source.size, bool)
            top, left, box = shape.region.cover(record.source.size)
            ours[top : top + box.shape[0], left : left + box.shape[1]] = box
            np.testing.assert_array_equal(ours, theirs.annToMask(one))


# What lies on top, and what the classes are ---------------------------------------------------------------------------


def test_the_smaller_lies_on_top_unless_the_order_of_the_file_is_asked_for(tmp_path):
    lay(tmp_path, document(thing([SMALL], 2), thing([SQUARE], 1, 2)))
    assert drawn(tmp_path)[5, 5] == "dog"
    assert drawn(tmp_path, overlap="file")[5, 5] == "cat"
    assert drawn(tmp_path)[3, 3] == "cat"
    assert drawn(tmp_path)[0, 0] == "background"


def test_ids_stay_with_their_gaps_and_move_up_where_background_needs_the_first(tmp_path):
    plain = document(thing([SQUARE], 90))
    plain["categories"] = [{"id": 90, "name": "cat"}, {"id": 3, "name": "dog"}, {"id": 7.0, "name": "never used"}]
    labels = find(lay(tmp_path / "gaps", plain)).labels
    assert (labels.names, labels.ids) == (("background", "cat", "dog", "never used"), (0, 90, 3, 7))
    assert labels.countable == (False, True, True, True)
    plain["categories"][1]["id"] = 0
    labels = find(lay(tmp_path / "zero", plain)).labels
    assert (labels.names, labels.ids) == (("background", "cat", "dog", "never used"), (0, 91, 1, 8))
    assert find(tmp_path / "zero", unlabelled="ignore").labels.ids == (90, 0, 7)


def test_things_and_colours_are_followed_where_they_are_given(tmp_path):
    plain = document(thing([SQUARE]))
    plain["categories"][0] |= {"isthing": 0, "color": [1, 2, 3]}
    plain["categories"][1] |= {"isthing": 1, "color": "#0a0b0c"}
    labels = find(lay(tmp_path, plain)).labels
    assert labels.countable == (False, False, True)
    assert labels.colours[1:] == ((1, 2, 3), (10, 11, 12))


def test_a_name_under_two_ids_is_one_class_and_told(tmp_path):
    lay(tmp_path, document(thing([SQUARE], 1), thing([SMALL], 3, 2), classes=("cat", "dog", "cat")))
    found = find(tmp_path)
    assert found.labels.names == ("background", "cat", "dog")
    assert "annotations.json: categories [1, 3] are one class, 'cat'" in found.layout.notices
    assert (drawn(tmp_path) == "cat").sum() == 80


def test_the_heading_that_roboflow_puts_first_is_no_class(tmp_path):
    plain = document(thing([SQUARE], 1))
    plain["categories"] = [
        {"id": 0, "name": "pets", "supercategory": "none"},
        {"id": 1, "name": "cat", "supercategory": "pets"},
        {"id": 2, "name": "dog", "supercategory": "pets"},
    ]
    found = find(lay(tmp_path / "heading", plain))
    assert (found.labels.names, found.labels.ids) == (("background", "cat", "dog"), (0, 1, 2))
    assert "'pets' is a heading over other classes, and no class" in found.layout.notices
    plain["annotations"].append(thing([SMALL], 0, 2))
    assert find(lay(tmp_path / "used", plain)).labels.names == ("background", "pets", "cat", "dog")
    plain["annotations"], plain["categories"] = [], [{"id": 1, "name": "cat", "supercategory": "cat"}]
    assert find(lay(tmp_path / "itself", plain), format="coco").labels.names == ("background", "cat")


def test_ids_that_no_mask_holds_are_numbered_anew_and_told(tmp_path):
    """V7 writes CRC-32 of the name as the id of a category."""
    plain = document(thing([SQUARE], 3086718467), thing([SMALL], 7, 2))
    plain["categories"] = [{"id": 3086718467, "name": "cat"}, {"id": 7, "name": "dog"}, {"id": -1, "name": "cow"}]
    found = find(lay(tmp_path, plain))
    assert (found.labels.names, found.labels.ids) == (("background", "cat", "dog", "cow"), (0, 8, 7, 9))
    told = "2 ids of categories are beyond 0–16777215 and are numbered anew: 'cat', 3086718467, gets id 8, …"
    assert told in found.layout.notices
    assert drawn(tmp_path)[3, 3] == "cat"
    assert drawn(tmp_path)[5, 5] == "dog"


def test_a_class_called_background_cannot_be_counted_unless_the_file_says_so(tmp_path):
    plain = document(thing([SQUARE], 2), classes=("_background_", "dog"))  # as labelme2coco writes it
    assert find(lay(tmp_path, plain)).labels.countable == (False, True)
    plain["categories"][0]["isthing"] = 1
    assert find(lay(tmp_path, plain)).labels.countable == (True, True)


def test_a_class_called_background_is_below_and_ignored_ones_count_in_nothing(tmp_path):
    lay(tmp_path, document(thing([SQUARE], 2), thing([SMALL], 1, 2), classes=("_background_", "dog")))
    assert drawn(tmp_path)[0, 0] == "_background_"
    assert drawn(tmp_path)[5, 5] == "_background_"
    assert drawn(tmp_path, ignored=["dog"])[3, 3] == "(ignored)"
    assert drawn(tmp_path, unlabelled="ignore")[0, 0] == "(ignored)"
    with pytest.raises(DataError, match=r"data.unlabelled: expected background, ignore, or one of"):
        find(tmp_path, unlabelled="sky")


def test_files_that_number_their_classes_otherwise_agree_by_name(tmp_path):
    lay(tmp_path, document(thing([SQUARE], 1), classes=("cat", "dog")), "train/_annotations.coco.json")
    lay(tmp_path, document(thing([SQUARE], 1), classes=("dog", "cow")), "valid/_annotations.coco.json")
    found = find(tmp_path)
    assert (found.labels.names, found.labels.ids) == (("background", "cat", "dog", "cow"), (0, 1, 2, 3))
    assert "id 2 is another class in another file: 'cow' gets id 3" in found.layout.notices
    assert ids(found) == {"train": ["train/a"], "val": ["valid/a"]}
    val = found.layout.splits["val"][0].source.draw(found.labels, SIZE)
    assert found.labels.names[val[5, 5]] == "dog"


# Files, parts and images --------------------------------------------------------------------------------------------


def test_parts_come_from_the_names_of_the_files_and_other_tasks_are_left_alone(tmp_path):
    for split, number in (("train", 1), ("val", 2)):
        images = [entry(number, f"{number:012d}.jpg")]
        plain = document(thing([SQUARE], image=number), images=images)
        (tmp_path / "annotations").mkdir(exist_ok=True)
        (tmp_path / f"annotations/instances_{split}2017.json").write_text(json.dumps(plain))
        persons = document(thing([SQUARE], image=number, num_keypoints=17, keypoints=[0] * 51), images=images)
        (tmp_path / f"annotations/person_keypoints_{split}2017.json").write_text(json.dumps(persons))
        told = {"images": images, "annotations": [{"image_id": number, "id": 1, "caption": "A cat."}]}
        (tmp_path / f"annotations/captions_{split}2017.json").write_text(json.dumps(told))
        image(tmp_path / f"images/{split}2017/{number:012d}.jpg")
    (tmp_path / "annotations/image_info_test2017.json").write_text(json.dumps({"images": [], "categories": []}))
    found = find(tmp_path)
    assert ids(found) == {
        "train": ["images/train2017/000000000001"],
        "val": ["images/val2017/000000000002"],
    }
    assert {record.mask.name for record in records(found)} == {"instances_train2017.json", "instances_val2017.json"}
    assert not found.layout.problems
    only = find(tmp_path, format="coco", annotations="annotations/person_keypoints_val2017.json")
    assert ids(only) == {"val": ["images/val2017/000000000002"]}


def test_images_of_one_file_may_lie_in_folders_of_parts(tmp_path):
    images = [entry(1, "train/a.jpg"), entry(2, "val/a.jpg"), entry(3, "more/a.jpg")]
    found = find(lay(tmp_path, document(thing([SQUARE]), images=images), "all.json"))
    assert ids(found) == {"train": ["train/a", "more/a"], "val": ["val/a"]}


def test_panoptic_files_beside_ask_which_is_meant(tmp_path):
    lay(tmp_path, document(thing([SQUARE])))
    segments = document({"image_id": 1, "file_name": "a.png", "segments_info": []})
    (tmp_path / "panoptic.json").write_text(json.dumps(segments))
    with pytest.raises(DataError, match=r"annotations of one format.*--set data.format=coco"):
        find(tmp_path)
    assert len(records(find(tmp_path, format="coco"))) == 1
    with pytest.raises(MaskError, match=r"panoptic.json: expected objects .* Set data.format: coco-panoptic"):
        find(tmp_path, format="coco", annotations="panoptic.json")


def test_images_without_objects_are_background_and_images_in_no_file_are_told(tmp_path):
    lay(tmp_path, document(thing([SQUARE]), images=[entry(1), entry(2, "empty.jpg")]))
    image(tmp_path / "more/b.jpg")
    found = find(tmp_path)
    assert found.layout.notices[1:] == (
        "1 of 2 images have no object: background in every pixel",
        "1 of 3 images on disk are in no annotation file and are left out (more/b.jpg)",
    )
    empty = next(record for record in records(found) if record.id == "empty")
    assert not empty.source.draw(found.labels, SIZE).any()
    assert not found.layout.problems


def test_images_that_are_missing_are_told_and_names_are_no_paths(tmp_path):
    image(tmp_path / "outside/secret.jpg")
    lay(tmp_path / "set", document(thing([SQUARE])))
    images = [entry(1), entry(2, "gone.jpg"), entry(3, "../outside/secret.jpg"), entry(4, "/etc/passwd"), entry(5, "")]
    found = find(lay(tmp_path / "set", document(thing([SQUARE]), images=images), images=False))
    missing = "annotation without its image (no such image)"
    names = ("''", "'../outside/secret.jpg'", "'/etc/passwd'", "'gone.jpg'")
    assert why(found) == [(f"annotations.json: {name}", missing) for name in names]


def test_a_image_of_another_folder_is_not_taken_for_one_that_is_missing(tmp_path):
    plain = document(
        thing([SQUARE]), thing([SQUARE], image=2, number=2), images=[entry(1, "b/1.jpg"), entry(2, "b/2.jpg")]
    )
    lay(tmp_path, plain, images=False)
    for name in ("a/1.jpg", "b/2.jpg"):
        image(tmp_path / name)
    found = find(tmp_path)
    assert [record.image for record in records(found)] == [tmp_path / "b/2.jpg"]
    assert [(p.file, p.why) for p in found.layout.problems if "annotation" in p.why] == [
        ("annotations.json: 'b/1.jpg'", "annotation without its image (no such image in b/)")
    ]


def test_that_names_are_not_clear_is_said_where_nothing_is_found(tmp_path):
    lay(tmp_path, document(thing([SQUARE])), images=False)
    for name in ("images/a.jpg", "masks/a.jpg"):
        image(tmp_path / name)
    with pytest.raises(DataError, match=r"found none of 1 \('a\.jpg'\): 2 images of that name\. .*data\.images"):
        find(tmp_path)


def test_a_file_of_which_no_image_is_there_is_an_error_that_says_what_to_do(tmp_path):
    lay(tmp_path, document(thing([SQUARE])), "val/annotations.json")
    (tmp_path / "instances_train.json").write_text(json.dumps(document(thing([SQUARE]), images=[entry(1, "b.jpg")])))
    with pytest.raises(DataError) as caught:
        find(tmp_path)
    assert str(caught.value) == (
        f"{tmp_path}/instances_train.json: expected images of the names it lists, below {tmp_path}, found none of 1"
        " ('b.jpg'): no such image. Put them there, name their folder (data.images), or the annotation files that are meant"
        " (data.annotations)."
    )


def test_images_may_lie_elsewhere(tmp_path):
    lay(tmp_path / "set", document(thing([SQUARE])), images=False)
    image(tmp_path / "elsewhere/deep/a.jpg")
    for images in (str(tmp_path / "elsewhere"), str(tmp_path / "else*/deep/*.jpg"), "../elsewhere/**/*.jpg"):
        splits = open_data(DataConfig.model_validate(NO_SPLIT | {"format": "coco", "images": images}), tmp_path / "set")
        assert [record.id for split in splits for record in split.records] == ["a"]


def test_two_files_for_the_same_images_are_an_error_and_a_image_in_both_is_told(tmp_path):
    images = [entry(number, f"{number}.jpg") for number in range(1, 6)]
    lay(tmp_path, document(thing([SQUARE]), images=images), "first.json")
    lay(tmp_path, document(thing([SMALL]), images=images[:2]), "second.json")
    with pytest.raises(DataError) as caught:
        find(tmp_path)
    assert str(caught.value) == (
        f"{tmp_path}: expected one annotation file for each image, found first.json and second.json, which both list the"
        " same 2 images. Say which is meant: --set data.annotations=first.json."
    )
    assert len(records(find(tmp_path, annotations="second.json"))) == 2
    more = [*images[:1], *(entry(number, f"{number}.jpg") for number in (6, 7, 8))]
    lay(tmp_path, document(thing([SMALL]), images=more), "second.json")
    assert why(find(tmp_path)) == [("1.jpg", "image in two files, first.json and second.json")]


def test_of_images_of_one_name_that_in_the_folder_of_the_file_or_of_its_part_is_meant(tmp_path):
    for split in ("train", "val"):
        for name in ("a.jpg", "x/a.jpg", "x/y/a.jpg"):
            image(tmp_path / split / name)
        images = [entry(1, "a.jpg"), entry(2, "x/a.jpg"), entry(3, "y\\a.jpg")]
        lay(tmp_path, document(thing([SQUARE]), images=images), f"annotations/instances_{split}.json", images=False)
    assert ids(find(tmp_path)) == {
        split: [f"{split}/{name}" for name in ("a", "x/a", "x/y/a")] for split in ("train", "val")
    }


def test_lvis_names_images_by_address(tmp_path):
    plain = document(thing([SQUARE]))
    address = "http://images.cocodataset.org/train2017/a.jpg"
    plain["images"][0] = {"id": 1, "coco_url": address, "height": SIZE[0], "width": SIZE[1]}
    image(tmp_path / "train2017/a.jpg")
    assert ids(find(lay(tmp_path, plain, images=False))) == {"train": ["train2017/a"]}


def test_every_file_is_parsed_once(tmp_path, monkeypatch):
    lay(tmp_path, document(thing([SQUARE])), "train/_annotations.coco.json")
    lay(tmp_path, document(thing([SQUARE])), "valid/_annotations.coco.json")
    parsed = []
    loads = base.json.loads
    monkeypatch.setattr(base.json, "loads", lambda *a, **k: parsed.append(1) or loads(*a, **k))
    open_data(DataConfig(), tmp_path)
    assert len(parsed) == 2


# Sizes ----------------------------------------------------------------------------------------------------------------


def test_a_size_that_is_not_the_images_is_an_error(tmp_path):
    lay(tmp_path, document(thing([SQUARE]), images=[entry(size=(21, 30))]), images=False)
    image(tmp_path / "a.jpg")
    with pytest.raises(PairingError, match=r"expected 20×30 pixels, the height and width of a.jpg, found 21×30"):
        open_data(DataConfig(), tmp_path)


@pytest.mark.parametrize("orientation", [5, 6, 7, 8])
def test_what_was_drawn_before_exif_turned_the_image_is_turned_with_it(tmp_path, orientation):
    """30 wide and 20 high as stored, 20 wide and 30 high as shown."""
    image(tmp_path / "a.jpg", SIZE, orientation)
    lay(tmp_path, document(thing([SQUARE]), images=[entry(size=SIZE)]), images=False)
    lain = drawn(tmp_path)
    expected = np.zeros(SIZE, bool)
    expected[2:10, 2:12] = True
    np.testing.assert_array_equal(lain == "cat", turn(expected, orientation))
    lay(tmp_path, document(thing([SQUARE]), images=[entry(size=SIZE[::-1])]), images=False)
    shown = drawn(tmp_path)
    assert shown.shape == SIZE[::-1]
    assert (shown[2:10, 2:12] == "cat").all()


@pytest.mark.parametrize("size", [{}, {"height": None, "width": None}, {"height": 0, "width": 0}])
def test_where_no_size_is_noted_that_of_the_image_or_of_the_run_lengths_counts(tmp_path, size):
    plain = document(thing([SQUARE]))
    plain["images"][0] = {"id": 1, "file_name": "a.jpg"} | size
    image(tmp_path / "a.jpg")
    assert (drawn(lay(tmp_path, plain, images=False))[2:10, 2:12] == "cat").all()
    plain["annotations"].append(thing(runs(np.ones((5, 5), int)), number=2))
    lay(tmp_path, plain, images=False)
    with pytest.raises(PairingError, match=r"expected 20×30 pixels, the height and width of a.jpg, found 5×5"):
        open_data(DataConfig(), tmp_path)


def test_run_lengths_of_another_size_make_a_image_unusable(tmp_path):
    plain = document(thing([SQUARE]), thing(runs(np.ones((5, 5), int)), number=2), thing([SMALL], image=2, number=3))
    plain["images"].append(entry(2, "b.jpg"))
    found = find(lay(tmp_path, plain))
    assert why(found) == [("a.jpg (annotation 2)", "object with run lengths of another size than its image")]
    assert ids(found) == {"pool": ["b"]}  # without the object, its pixels would be background


# Broken and hostile ---------------------------------------------------------------------------------------------------


def test_boxes_alone_are_no_masks(tmp_path):
    boxes = [thing([], number=1, bbox=[1, 2, 3, 4]), thing([[]], number=2, bbox=[1, 2, 3, 4])]
    without = thing(None, number=3, bbox=[1, 2, 3, 4])
    del without["segmentation"]
    with pytest.raises(DataError) as caught:
        find(lay(tmp_path, document(*boxes, without)))
    assert str(caught.value) == (
        f"{tmp_path}/annotations.json: expected objects with a segmentation: polygons or run lengths, found 3 with a box"
        " alone, which is a file for detection. Export it as COCO segmentation; where other files hold the masks, name"
        " their format: data.format."
    )


@pytest.mark.parametrize(
    ("segmentation", "told"),
    [
        ([], "object with a box and no mask"),
        (None, "object with a box and no mask"),
        ([[1, 1, 5, 5]], "object whose polygons have fewer than three points"),  # pycocotools would take it for a box
        ([[1, 1, 5, 5, 3]], "object whose polygons are no lists of numbers x, y, x, y"),
        ([[1, 1, 5, 5, 3, 3, 2]], "object whose polygons are no lists of numbers x, y, x, y"),
        ([["1", "1", "5", "5", "3", "3"]], "object whose polygons are no lists of numbers x, y, x, y"),
        (
            [[[1, 1], [5, 5], [3, 3], [4, 4], [5, 5], [6, 6]]],
            "object whose polygons are no lists of numbers x, y, x, y",
        ),
        ([[10**400, 1, 5, 5, 3, 3]], "object whose polygons are no lists of numbers x, y, x, y"),
        ("somewhere", "object whose polygons are no lists of numbers x, y, x, y"),
        (7, "object whose polygons are no lists of numbers x, y, x, y"),
        ({"size": [20, 30]}, "object whose run lengths have no size and counts"),
        ({"size": [20, 30], "counts": [1, -1, 600]}, "object whose run lengths have no size and counts"),
        ({"size": [20, 30], "counts": [0.5, 599.5]}, "object whose run lengths have no size and counts"),
        ({"size": [20, 30], "counts": [2**70]}, "object whose run lengths have no size and counts"),
        ({"size": [20, 30], "counts": []}, "object whose run lengths have no size and counts"),
        ({"size": [20, 30], "counts": "é"}, "object whose run lengths have no size and counts"),
        ({"size": "20, 30", "counts": "0"}, "object whose run lengths have no size and counts"),
        ({"size": [-20, -30], "counts": "0"}, "object whose run lengths have no size and counts"),
    ],
)
def test_an_object_without_a_mask_among_others_makes_its_image_unusable(tmp_path, segmentation, told):
    images = [entry(1), entry(2, "b.jpg")]
    lay(tmp_path, document(thing([SQUARE]), thing(segmentation, number="x", image=2), images=images))
    found = find(tmp_path)
    assert why(found) == [("b.jpg (annotation x)", told)]
    assert ids(found) == {"pool": ["a"]}
    with pytest.raises(PairingError, match=told):
        open_data(DataConfig(), tmp_path)
    splits = open_data(DataConfig.model_validate(NO_SPLIT | {"skip_bad": True}), tmp_path)
    assert splits.skipped == (f"b.jpg (annotation x): {told}",)


def test_thin_rings_beside_others_cover_nothing_and_are_told(tmp_path):
    found = find(lay(tmp_path, document(thing([SQUARE, [1, 1, 20, 15], [3, 3]]))))
    assert "annotations.json: 2 polygons of fewer than three points cover nothing" in found.layout.notices
    assert (drawn(tmp_path) == "cat").sum() == 80


def test_a_ring_without_a_list_around_it_is_one_polygon(tmp_path):
    lay(tmp_path, document(thing(SQUARE)))
    assert (drawn(tmp_path)[2:10, 2:12] == "cat").all()


def test_annotations_of_nothing_known_are_told(tmp_path):
    strange = [
        thing([SQUARE], 99),
        thing([SMALL], number=2, image=77),
        {"id": 3},
        4,
        thing([SMALL], number=5, image=[1]),
    ]
    plain = document(*strange, thing([SMALL], "1", 6), thing([SMALL], [1], 7))
    of_none = "annotation of an image that its file does not list"
    assert why(find(lay(tmp_path, plain))) == [
        ("a.jpg (annotation 1)", "object of a category that its file does not list"),
        ("a.jpg (annotation 6)", "object of a category that its file does not list"),
        ("a.jpg (annotation 7)", "object of a category that its file does not list"),
        ("annotations.json: annotation 2 (image_id 77)", of_none),
        ("annotations.json: annotation 5 (image_id None)", of_none),
        ("annotations.json: annotations[2]", "annotation without image_id and category_id"),
        ("annotations.json: annotations[3]", "annotation without image_id and category_id"),
    ]


def test_annotations_of_one_id_are_all_drawn_and_told(tmp_path):
    lay(tmp_path, document(thing([SQUARE], 1), thing([[20, 2, 25, 2, 25, 9, 20, 9]], 2)))
    found = find(tmp_path)
    told = "annotations.json: 1 ids of annotations are used again; every annotation is drawn all the same"
    assert told in found.layout.notices
    assert {"cat", "dog"} <= set(drawn(tmp_path).ravel().tolist())


def test_a_image_listed_twice_is_told(tmp_path):
    found = find(lay(tmp_path, document(thing([SQUARE]), images=[entry(1), entry(2)])))
    assert why(found) == [("annotations.json: 'a.jpg'", "second entry of an image")]


@pytest.mark.parametrize(
    ("change", "kind", "told"),
    [
        ({"images": [entry(1), entry(1, "b.jpg")]}, MaskError, "images: expected images with an id, each once, found id 1 twice"),
        ({"images": [{"file_name": "a.jpg"}]}, MaskError, "images: expected images with an id"),
        ({"images": 5}, MaskError, "expected a list of images, found a int"),
        ({"images": [7]}, MaskError, "images: expected images with an id, each once, found 7"),
        ({"categories": None}, MaskError, "expected a list of categories"),
        ({"categories": []}, LabelsError, "annotations.json: categories: expected the classes, found none"),
        ({"categories": [{"id": "cat", "name": "cat"}]}, LabelsError, "expected categories with a whole number as id"),
        ({"categories": [{"id": 1.5, "name": "cat"}]}, LabelsError, "expected categories with a whole number as id"),
        ({"categories": [{"id": True, "name": "cat"}]}, LabelsError, "expected categories with a whole number as id"),
        ({"categories": [{"id": 1}]}, LabelsError, "expected categories with a whole number as id, and a name"),
        ({"categories": [{"id": 1, "name": "a"}, {"id": 1, "name": "b"}]}, LabelsError, "id 1 for 'a' and 'b'"),
        ({"annotations": {}}, MaskError, "expected a list of annotations, found a dict"),
    ],
)  # fmt: skip
def test_a_file_that_makes_no_sense_is_an_error_with_words(tmp_path, change, kind, told):
    image(tmp_path / "a.jpg")
    (tmp_path / "annotations.json").write_text(json.dumps(document(thing([SQUARE])) | change))
    with pytest.raises(kind) as caught:
        find(tmp_path, format="coco")
    assert told in str(caught.value)


@pytest.mark.parametrize("text", ["", "{", "[" * 100_000, "[]", '{"images": [], "annotations": [], "categories"'])
def test_a_file_that_is_no_json_is_an_error(tmp_path, text):
    (tmp_path / "annotations.json").write_text(text)
    with pytest.raises(MaskError, match=r"annotations.json: expected (a JSON file|an object with images)"):
        find(tmp_path, format="coco", annotations="annotations.json")
    with pytest.raises(DataError):
        find(tmp_path, format="coco")


@pytest.mark.parametrize(
    ("segmentation", "told"),
    [
        ({"size": [20, 30], "counts": "0"}, "annotation 1: expected run lengths of 20×30 pixels.* found 0 pixels"),
        ({"size": [20, 30], "counts": [600, 2**31]}, "found a run of 2147483648"),
        ({"size": [20, 30], "counts": "oooooooooo0"}, "found b'oooooooooo0'"),
        ({"size": [20, 30], "counts": [1, 2, 3]}, "found 6 pixels"),
        ([[1, 1, 1e9, 1, 5, 5]], r"annotation 1: expected points x, y within an image of 30×20, found 1e\+09, 1"),
        ([[1, 1, float("nan"), 1, 5, 5]], "found nan, 1"),
        ([[1, 1, float("-inf"), 1, 5, 5]], "found -inf, 1"),
        ([[-30, 0, 60, 0] * 60_000], "expected an outline of at most 5,000,000 pixels, found 10,8"),
    ],
)
def test_what_would_take_all_memory_or_show_that_of_others_is_refused_when_the_mask_is_read(
    tmp_path, segmentation, told
):
    lay(tmp_path, document(thing(segmentation)))
    split = open_data(DataConfig.model_validate(NO_SPLIT), tmp_path).train
    assert split is not None
    with pytest.raises(MaskError, match=told) as caught:
        split.read(0)
    assert str(caught.value).startswith(f"{tmp_path}/annotations.json: annotation 1: expected ")


def test_run_lengths_refuse_another_image_than_their_own():
    whole = Runs(coder.encode(np.asfortranarray(np.eye(4, 5, dtype=np.uint8)))["counts"], (4, 5), "annotation 3")
    assert whole.cover((4, 5))[2].sum() == 4
    with pytest.raises(MaskError) as caught:
        whole.cover((5, 4))
    assert str(caught.value) == (
        "annotation 3: expected run lengths of 5×4 pixels, the image's height and width, found 4×5. Export them again."
    )


def test_a_hundred_objects_that_fill_a_large_image_take_no_more_memory_than_a_few():
    size = (800, 800)
    full = coder.encode(np.asfortranarray(np.ones(size, np.uint8)))["counts"]
    shapes = tuple(Shape("cat", Runs(full, size)) for _ in range(100))
    tracemalloc.start()
    Drawing(Path("a.json"), shapes, size, "background", "area").draw(Labels(("background", "cat")), size)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 20 * size[0] * size[1]


def test_a_size_without_end_is_refused_before_memory_is_taken(tmp_path):
    far = 10**9
    plain = document(thing({"size": [far, far], "counts": [far * 2, far]}), images=[entry(size=(far, far))])
    image(lay(tmp_path, plain, images=False) / "a.jpg")
    with pytest.raises(PairingError, match="expected 20×30 pixels"):
        open_data(DataConfig(), tmp_path)


JUNK = st.sampled_from([None, [], {}, "", "x", -1, 0, 1.5, True, [[]], [None], {"id": 1}, 10**30, float("nan")])


def places(plain, path=()):
    yield path
    children = plain.items() if isinstance(plain, dict) else enumerate(plain) if isinstance(plain, list) else ()
    for key, value in children:
        yield from places(value, (*path, key))


@settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.data())
def test_a_file_with_anything_anywhere_is_read_or_refused_in_words(tmp_path_factory, data):
    mask = np.ones(SIZE, int)
    plain = document(thing([SQUARE]), thing(runs(mask), 2, 2), thing(runs(mask, False), 2, 3))
    root = tmp_path_factory.mktemp("set")
    image(root / "a.jpg")
    broken = copy.deepcopy(plain)
    *above, key = data.draw(st.sampled_from(list(places(plain))[1:]))
    holder = broken
    for step in above:
        holder = holder[step]
    holder[key] = data.draw(JUNK)
    (root / "annotations.json").write_text(json.dumps(broken))
    try:
        (split,) = open_data(DataConfig.model_validate(NO_SPLIT | {"format": "coco", "skip_bad": True}), root)
        assert split.read(0).mask.shape == SIZE
    except PixelwiseError as error:
        assert error.do  # noqa: PT017 - either is fine


def test_records_travel_to_workers_and_the_hash_covers_the_shapes_but_no_ids(tmp_path):
    lay(tmp_path, document(thing([SQUARE]), thing(runs(np.eye(*SIZE, dtype=int)), 2, 2)))
    found = find(tmp_path)
    source = records(found)[0].source
    sent = pickle.loads(pickle.dumps(source))
    np.testing.assert_array_equal(sent.draw(found.labels, SIZE), source.draw(found.labels, SIZE))
    assert sent.digest() == source.digest()
    lay(tmp_path, document(thing([SQUARE], number=7), thing(runs(np.eye(*SIZE, dtype=int)), 2, 8)))
    assert records(find(tmp_path))[0].source.digest() == source.digest()
    lay(tmp_path, document(thing([[*SQUARE[:-1], 11]]), thing(runs(np.eye(*SIZE, dtype=int)), 2, 2)))
    assert records(find(tmp_path))[0].source.digest() != source.digest()


# Writing --------------------------------------------------------------------------------------------------------------


def written(tmp_path: Path, masks: dict[str, np.ndarray], labels: Labels) -> Path:
    for name, mask in masks.items():
        image(tmp_path / "in" / name.replace("/", "/images/", 1), mask.shape)
        target = tmp_path / "in" / Path(name.replace("/", "/masks/", 1)).with_suffix(".png")
        target.parent.mkdir(parents=True, exist_ok=True)
        write_mask(target, mask, labels)
    splits = open_data(DataConfig.model_validate(NO_SPLIT | {"labels": labels.to_dict()}), tmp_path / "in")
    (tmp_path / "out").mkdir()
    done = convert(splits, FORMATS["coco"], tmp_path / "out")
    assert (done.images, done.changed_pixels, done.loses) == (len(masks), 0, "")
    return tmp_path / "out"


def scattered(seed: int, size: tuple[int, int] = (24, 32)) -> np.ndarray:
    rng = np.random.default_rng(seed)
    coarse = rng.choice([0, 1, 2, 255], (size[0] // 4, size[1] // 4), p=[0.4, 0.3, 0.2, 0.1])
    return np.kron(coarse, np.ones((4, 4))).astype(np.uint8)


def test_what_is_written_loads_in_pycocotools_and_its_masks_are_ours(tmp_path):
    labels = Labels(("background", "nucleus", "tissue"), (0, 7, 3), countable=(False, True, False))
    masks = {"train/a.png": scattered(1), "train/x/a.png": scattered(2), "val/a.png": scattered(3)}
    out = written(tmp_path, masks, labels)
    assert sorted(path.relative_to(out).as_posix() for path in out.rglob("*.*")) == [
        "annotations/instances_train.json", "annotations/instances_val.json", "data.yaml",
        "train/a.png", "train/x/a.png", "val/a.png",
    ]  # fmt: skip
    for split in ("train", "val"):
        theirs = index(out / f"annotations/instances_{split}.json")
        assert {one["name"]: i for i, one in theirs.cats.items()} == {"nucleus": 7, "tissue": 3, "__ignore__": 255}
        for number, one in theirs.imgs.items():
            mask = masks[f"{split}/{one['file_name']}"]
            canvas = np.zeros(mask.shape, int)
            for own in theirs.imgToAnns[number]:
                pixels = theirs.annToMask(own).astype(bool)
                assert not canvas[pixels].any()  # nothing is painted over
                canvas[pixels] = own["category_id"]
                assert own["id"] > 0  # 0 means "no match" to pycocotools
                assert own["area"] == pixels.sum() == coder.area(own["segmentation"])
                assert own["bbox"] == coder.toBbox(own["segmentation"]).tolist()
                assert own["iscrowd"] == 0
            translate = np.zeros(256, int)
            translate[[0, 1, 2, 255]] = 0, 7, 3, 255
            np.testing.assert_array_equal(canvas, translate[mask])
            many = [sum(own["category_id"] == i for own in theirs.imgToAnns[number]) for i in (7, 3)]
            assert many == [ndimage.label(mask == 1)[1], 1]


def test_without_a_background_every_class_is_written_and_nothing_lies_below(tmp_path):
    out = written(tmp_path, {"train/a.png": scattered(4)}, Labels(("sky", "road", "tree")))
    plain = json.loads((out / "annotations/instances_train.json").read_text())
    assert [one["name"] for one in plain["categories"]] == ["sky", "road", "tree", "__ignore__"]
    assert "unlabelled: ignore" in (out / "data.yaml").read_text()
    back = drawn(out, **NO_SPLIT)
    np.testing.assert_array_equal(back == "(ignored)", scattered(4) == 255)  # also where nobody says what lies below


def test_of_two_classes_called_background_one_is_written(tmp_path):
    out = written(tmp_path, {"train/a.png": scattered(5)}, Labels(("background", "unlabeled", "road")))
    plain = json.loads((out / "annotations/instances_train.json").read_text())
    assert [one["name"] for one in plain["categories"]] == ["background", "unlabeled", "road", "__ignore__"]
    assert {one["category_id"] for one in plain["annotations"]} == {1, 2, 255}


@pytest.mark.parametrize("name", ["_background_", "__background__", "unlabeled"])
def test_a_background_of_another_name_is_written_and_comes_back(tmp_path, name):
    mask = np.where(scattered(6) == 2, 0, scattered(6)).astype(np.uint8)
    out = written(tmp_path, {"train/a.png": mask}, Labels((name, "road")))
    plain = json.loads((out / "annotations/instances_train.json").read_text())
    assert [one["name"] for one in plain["categories"]] == [name, "road", "__ignore__"]
    assert {one["category_id"] for one in plain["annotations"]} == {1, 255}
    (out / "data.yaml").unlink()
    assert find(out).labels.names == (name, "road")


def test_ids_that_a_terminal_would_obey_are_escaped(tmp_path):
    found = find(lay(tmp_path, document(thing([SQUARE]), thing([], number="\x1b[2J\n"))))
    assert why(found) == [("a.jpg (annotation '\\x1b[2J\\n')", "object with a box and no mask")]


def test_groups_are_told_by_the_paths_of_images_that_lie_elsewhere(tmp_path):
    lay(tmp_path / "set", document(thing([SQUARE]), images=[entry(1, "a_1.jpg"), entry(2, "b_1.jpg")]), images=False)
    for name in ("a_1", "b_1"):
        image(tmp_path / f"elsewhere/{name}.jpg")
    config = NO_SPLIT | {"format": "coco", "images": str(tmp_path / "elsewhere"), "group": "([ab])_[0-9]"}
    (split,) = open_data(DataConfig.model_validate(config), tmp_path / "set")
    assert [record.group for record in split.records] == ["a", "b"]


def test_real_masks_come_back_as_they_were(real, tmp_path):
    path = real("fixtures") / "instances_coco100" / "gt_instances.json"
    config = NO_SPLIT | {"annotations": path.name, "images": str(real("coco_panoptic") / "images/val2017")}
    (split,) = open_data(DataConfig.model_validate(config), path.parent)
    some = split.subset(range(0, 100, 12))
    splits = open_data(DataConfig.model_validate(config), path.parent)
    done = convert(replace(splits, train=some), FORMATS["coco"], tmp_path)
    assert (done.images, done.changed_pixels) == (9, 0)
    assert find_format(DatasetRoot(tmp_path, tmp_path, DataConfig()))[0].name == "coco"
    theirs = index(tmp_path / "annotations/instances_train.json")
    assert len(theirs.imgs) == 9


def test_detection_looks_no_further_than_it_must(tmp_path, monkeypatch):
    for number in range(100):
        (tmp_path / f"{number}.json").write_text("{}")
    asked = []
    monkeypatch.setattr(coco, "mentions", lambda path, *words: asked.append(path) or False)
    assert coco.detect(DatasetRoot(tmp_path, tmp_path, DataConfig())) is None
    assert len(set(asked)) <= 32
