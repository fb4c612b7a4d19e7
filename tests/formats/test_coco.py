"""COCO instances: reading agrees with pycocotools, and pycocotools reads what we write."""

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
from pixelwise.formats import FORMATS, base, coco, find_format, read_dataset
from pixelwise.formats.dataset_root import DatasetRoot
from pixelwise.formats.shapes import CocoRLE, Drawing, Shape
from pixelwise.imageio.masks import write_mask
from pixelwise.imageio.raster import apply_orientation
from pixelwise.labels import Labels

# Raised by pycocotools when it decodes masks.
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


def annotation(segmentation: Any, category: Any = 1, number: Any = 1, image: Any = 1, **more: Any) -> dict[str, Any]:
    return {"id": number, "image_id": image, "category_id": category, "segmentation": segmentation, "iscrowd": 0} | more


def document(*annotations: Any, images: Any = None, classes: Any = ("cat", "dog")) -> dict[str, Any]:
    categories = [{"id": i, "name": name, "supercategory": "pet"} for i, name in enumerate(classes, 1)]
    return {"images": images or [entry()], "annotations": list(annotations), "categories": categories}


def write_dataset(root: Path, plain: Any, name: str = "annotations.json", *, images: bool = True) -> Path:
    """Write a file, and every image that it lists to the same folder."""
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
    return {split: [record.id for record in items] for split, items in found.layout.splits.items()}


def problems_of(found: Any) -> list[tuple[str, str]]:
    return sorted((problem.file, problem.why) for problem in found.layout.problems)


def class_map(root: Path, **config: Any) -> np.ndarray:
    """Return the class name of each pixel of a data set with one image."""
    splits = open_data(DataConfig.model_validate(NO_SPLIT | config), root)
    (split,) = splits
    names = np.array([*splits.labels.names, *["(ignored)"] * (256 - splits.labels.num_classes)])
    return names[split.read(0).mask]


def index(path: Path) -> COCO:
    with redirect_stdout(io.StringIO()):
        return COCO(str(path))


def runs(mask: np.ndarray, compressed: bool = True) -> dict[str, Any]:
    """Return run lengths as in COCO's files: as a string, and for crowds as a list."""
    if compressed:
        return {"size": list(mask.shape), "counts": coder.encode(np.asfortranarray(mask, np.uint8))["counts"].decode()}
    flat = np.concatenate([[0], mask.T.reshape(-1), [2]])
    borders = np.flatnonzero(np.diff(flat))
    return {"size": list(mask.shape), "counts": np.diff(borders, prepend=0).tolist()}


# Agreement with pycocotools --------------------------------------------------------------------------------------------

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
def test_polygons_match_ann_to_mask(tmp_path_factory, polygons):
    root = tmp_path_factory.mktemp("set")
    write_dataset(root, document(*(annotation(rings, number=n) for n, rings in enumerate(polygons, 1))))
    source = records(find(root))[0].source
    reference = index(root / "annotations.json")
    for number, shape in enumerate(source.shapes, 1):
        ours = np.zeros(SIZE, bool)
        top, left, box = shape.region.rasterize(SIZE)
        ours[top : top + box.shape[0], left : left + box.shape[1]] = box
        np.testing.assert_array_equal(ours, reference.annToMask(reference.anns[number]))


@pytest.mark.parametrize("compressed", [True, False], ids=["text", "list"])
def test_run_lengths_and_crowds(tmp_path, compressed):
    mask = np.random.default_rng(0).integers(0, 2, SIZE)
    write_dataset(tmp_path, document(annotation(runs(mask, compressed), category=2, iscrowd=1)))
    np.testing.assert_array_equal(class_map(tmp_path) == "dog", mask)
    reference = index(tmp_path / "annotations.json")
    np.testing.assert_array_equal(reference.annToMask(reference.anns[1]), mask)


def test_real_objects_match_ann_to_mask(real, tmp_path):
    path = real("fixtures") / "instances_coco100" / "gt_instances.json"
    reference = index(path)
    found = find(path.parent, annotations=path.name, images=str(real("coco_panoptic") / "images/val2017/*.jpg"))
    assert {split: len(items) for split, items in ids(found).items()} == {"pool": 100}
    assert found.labels.names[:3] == ("background", "person", "bicycle")
    assert found.labels.ids[-1] == 90
    for record in records(found):
        objects = reference.imgToAnns[int(Path(record.id).name)]
        masks = [reference.annToMask(one) for one in objects]
        canvas = np.zeros(record.source.size, int)
        for number in sorted(range(len(objects)), key=lambda number: -int(masks[number].sum())):
            canvas[masks[number] == 1] = objects[number]["category_id"]
        mask = record.source.draw(found.labels, record.source.size)
        np.testing.assert_array_equal(np.array(found.labels.ids)[mask], canvas)


def test_real_objects_as_polygons_match_ann_to_mask(real, tmp_path):
    """The same objects as polygons with fractional coordinates."""
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
    write_dataset(tmp_path, plain)
    reference = index(tmp_path / "annotations.json")
    for record in records(find(tmp_path)):
        objects = reference.imgToAnns[int(record.id)]
        for one, shape in zip(objects, record.source.shapes, strict=True):
            ours = np.zeros(record.source.size, bool)
            top, left, box = shape.region.rasterize(record.source.size)
            ours[top : top + box.shape[0], left : left + box.shape[1]] = box
            np.testing.assert_array_equal(ours, reference.annToMask(one))


# Overlap and classes ---------------------------------------------------------------------------------------------------


def test_smaller_objects_are_on_top_unless_overlap_is_file(tmp_path):
    write_dataset(tmp_path, document(annotation([SMALL], 2), annotation([SQUARE], 1, 2)))
    assert class_map(tmp_path)[5, 5] == "dog"
    assert class_map(tmp_path, overlap="file")[5, 5] == "cat"
    assert class_map(tmp_path)[3, 3] == "cat"
    assert class_map(tmp_path)[0, 0] == "background"


def test_ids_keep_gaps_and_move_up_if_background_needs_zero(tmp_path):
    plain = document(annotation([SQUARE], 90))
    plain["categories"] = [{"id": 90, "name": "cat"}, {"id": 3, "name": "dog"}, {"id": 7.0, "name": "never used"}]
    labels = find(write_dataset(tmp_path / "gaps", plain)).labels
    assert (labels.names, labels.ids) == (("background", "cat", "dog", "never used"), (0, 90, 3, 7))
    assert labels.countable == (False, True, True, True)
    plain["categories"][1]["id"] = 0
    labels = find(write_dataset(tmp_path / "zero", plain)).labels
    assert (labels.names, labels.ids) == (("background", "cat", "dog", "never used"), (0, 91, 1, 8))
    assert find(tmp_path / "zero", unlabelled="ignore").labels.ids == (90, 0, 7)


def test_isthing_and_color_are_used(tmp_path):
    plain = document(annotation([SQUARE]))
    plain["categories"][0] |= {"isthing": 0, "color": [1, 2, 3]}
    plain["categories"][1] |= {"isthing": 1, "color": "#0a0b0c"}
    labels = find(write_dataset(tmp_path, plain)).labels
    assert labels.countable == (False, False, True)
    assert labels.colours[1:] == ((1, 2, 3), (10, 11, 12))


def test_a_name_with_two_ids_is_one_class_with_a_notice(tmp_path):
    write_dataset(tmp_path, document(annotation([SQUARE], 1), annotation([SMALL], 3, 2), classes=("cat", "dog", "cat")))
    found = find(tmp_path)
    assert found.labels.names == ("background", "cat", "dog")
    assert "annotations.json: categories [1, 3] are one class, 'cat'" in found.layout.notices
    assert (class_map(tmp_path) == "cat").sum() == 80


def test_unused_supercategories_are_not_classes(tmp_path):
    plain = document(annotation([SQUARE], 1))
    plain["categories"] = [
        {"id": 0, "name": "pets", "supercategory": "none"},
        {"id": 1, "name": "cat", "supercategory": "pets"},
        {"id": 2, "name": "dog", "supercategory": "pets"},
    ]
    found = find(write_dataset(tmp_path / "heading", plain))
    assert (found.labels.names, found.labels.ids) == (("background", "cat", "dog"), (0, 1, 2))
    assert "'pets' is only a supercategory, and not used as a class" in found.layout.notices
    plain["annotations"].append(annotation([SMALL], 0, 2))
    assert find(write_dataset(tmp_path / "used", plain)).labels.names == ("background", "pets", "cat", "dog")
    plain["annotations"], plain["categories"] = [], [{"id": 1, "name": "cat", "supercategory": "cat"}]
    assert find(write_dataset(tmp_path / "itself", plain), format="coco").labels.names == ("background", "cat")


def test_ids_out_of_range_are_replaced_with_a_notice(tmp_path):
    """V7 writes CRC-32 of the name as the id of a category."""
    plain = document(annotation([SQUARE], 3086718467), annotation([SMALL], 7, 2))
    plain["categories"] = [{"id": 3086718467, "name": "cat"}, {"id": 7, "name": "dog"}, {"id": -1, "name": "cow"}]
    found = find(write_dataset(tmp_path, plain))
    assert (found.labels.names, found.labels.ids) == (("background", "cat", "dog", "cow"), (0, 8, 7, 9))
    notice = "2 category ids are outside 0–16777215 and are replaced: 'cat', 3086718467, gets id 8, …"
    assert notice in found.layout.notices
    assert class_map(tmp_path)[3, 3] == "cat"
    assert class_map(tmp_path)[5, 5] == "dog"


def test_a_background_class_is_not_countable_by_default(tmp_path):
    plain = document(annotation([SQUARE], 2), classes=("_background_", "dog"))  # as labelme2coco writes it
    assert find(write_dataset(tmp_path, plain)).labels.countable == (False, True)
    plain["categories"][0]["isthing"] = 1
    assert find(write_dataset(tmp_path, plain)).labels.countable == (True, True)


def test_background_classes_and_ignored_classes(tmp_path):
    write_dataset(
        tmp_path, document(annotation([SQUARE], 2), annotation([SMALL], 1, 2), classes=("_background_", "dog"))
    )
    assert class_map(tmp_path)[0, 0] == "_background_"
    assert class_map(tmp_path)[5, 5] == "_background_"
    assert class_map(tmp_path, ignored=["dog"])[3, 3] == "(ignored)"
    assert class_map(tmp_path, unlabelled="ignore")[0, 0] == "(ignored)"
    with pytest.raises(DataError, match=r"data.unlabelled: expected background, ignore, or one of"):
        find(tmp_path, unlabelled="sky")


def test_classes_of_several_files_are_merged_by_name(tmp_path):
    write_dataset(tmp_path, document(annotation([SQUARE], 1), classes=("cat", "dog")), "train/_annotations.coco.json")
    write_dataset(tmp_path, document(annotation([SQUARE], 1), classes=("dog", "cow")), "valid/_annotations.coco.json")
    found = find(tmp_path)
    assert (found.labels.names, found.labels.ids) == (("background", "cat", "dog", "cow"), (0, 1, 2, 3))
    assert "id 2 is another class in another file: 'cow' gets id 3" in found.layout.notices
    assert ids(found) == {"train": ["train/a"], "val": ["valid/a"]}
    val = found.layout.splits["val"][0].source.draw(found.labels, SIZE)
    assert found.labels.names[val[5, 5]] == "dog"


# Files, splits and images -------------------------------------------------------------------------------------------


def test_splits_come_from_file_names_and_other_tasks_are_not_read(tmp_path):
    for split, number in (("train", 1), ("val", 2)):
        images = [entry(number, f"{number:012d}.jpg")]
        plain = document(annotation([SQUARE], image=number), images=images)
        (tmp_path / "annotations").mkdir(exist_ok=True)
        (tmp_path / f"annotations/instances_{split}2017.json").write_text(json.dumps(plain))
        persons = document(annotation([SQUARE], image=number, num_keypoints=17, keypoints=[0] * 51), images=images)
        (tmp_path / f"annotations/person_keypoints_{split}2017.json").write_text(json.dumps(persons))
        captions = {"images": images, "annotations": [{"image_id": number, "id": 1, "caption": "A cat."}]}
        (tmp_path / f"annotations/captions_{split}2017.json").write_text(json.dumps(captions))
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


def test_images_of_one_file_can_be_in_split_folders(tmp_path):
    images = [entry(1, "train/a.jpg"), entry(2, "val/a.jpg"), entry(3, "more/a.jpg")]
    found = find(write_dataset(tmp_path, document(annotation([SQUARE]), images=images), "all.json"))
    assert ids(found) == {"train": ["train/a", "more/a"], "val": ["val/a"]}


def test_panoptic_files_next_to_instances_are_ambiguous(tmp_path):
    write_dataset(tmp_path, document(annotation([SQUARE])))
    segments = document({"image_id": 1, "file_name": "a.png", "segments_info": []})
    (tmp_path / "panoptic.json").write_text(json.dumps(segments))
    with pytest.raises(DataError, match=r"annotations of one format.*--set data.format=coco"):
        find(tmp_path)
    assert len(records(find(tmp_path, format="coco"))) == 1
    with pytest.raises(MaskError, match=r"panoptic.json: expected objects .* Set data.format: coco-panoptic"):
        find(tmp_path, format="coco", annotations="panoptic.json")


def test_images_without_objects_and_images_in_no_file(tmp_path):
    write_dataset(tmp_path, document(annotation([SQUARE]), images=[entry(1), entry(2, "empty.jpg")]))
    image(tmp_path / "more/b.jpg")
    found = find(tmp_path)
    assert found.layout.notices[1:] == (
        "1 of 2 images have no shapes: all their pixels are background",
        "1 of 3 images on disk are in no annotation file and are left out (more/b.jpg)",
    )
    empty = next(record for record in records(found) if record.id == "empty")
    assert not empty.source.draw(found.labels, SIZE).any()
    assert not found.layout.problems


def test_missing_images_are_problems_and_names_are_not_paths(tmp_path):
    image(tmp_path / "outside/secret.jpg")
    write_dataset(tmp_path / "set", document(annotation([SQUARE])))
    images = [entry(1), entry(2, "gone.jpg"), entry(3, "../outside/secret.jpg"), entry(4, "/etc/passwd"), entry(5, "")]
    found = find(write_dataset(tmp_path / "set", document(annotation([SQUARE]), images=images), images=False))
    missing = "annotation without its image (no such image)"
    names = ("''", "'../outside/secret.jpg'", "'/etc/passwd'", "'gone.jpg'")
    assert problems_of(found) == [(f"annotations.json: {name}", missing) for name in names]


def test_an_image_in_another_folder_does_not_replace_a_missing_one(tmp_path):
    plain = document(
        annotation([SQUARE]), annotation([SQUARE], image=2, number=2), images=[entry(1, "b/1.jpg"), entry(2, "b/2.jpg")]
    )
    write_dataset(tmp_path, plain, images=False)
    for name in ("a/1.jpg", "b/2.jpg"):
        image(tmp_path / name)
    found = find(tmp_path)
    assert [record.image for record in records(found)] == [tmp_path / "b/2.jpg"]
    assert [(p.file, p.why) for p in found.layout.problems if "annotation" in p.why] == [
        ("annotations.json: 'b/1.jpg'", "annotation without its image (no such image in b/)")
    ]


def test_ambiguous_names_are_reported_if_no_image_is_found(tmp_path):
    write_dataset(tmp_path, document(annotation([SQUARE])), images=False)
    for name in ("images/a.jpg", "masks/a.jpg"):
        image(tmp_path / name)
    with pytest.raises(DataError, match=r"found none of 1 \('a\.jpg'\): 2 images of that name\. .*data\.images"):
        find(tmp_path)


def test_a_file_without_any_of_its_images_is_an_error(tmp_path):
    write_dataset(tmp_path, document(annotation([SQUARE])), "val/annotations.json")
    (tmp_path / "instances_train.json").write_text(
        json.dumps(document(annotation([SQUARE]), images=[entry(1, "b.jpg")]))
    )
    with pytest.raises(DataError) as caught:
        find(tmp_path)
    assert str(caught.value) == (
        f"{tmp_path}/instances_train.json: expected the images it lists, in {tmp_path}, found none of 1"
        " ('b.jpg'): no such image. Move them there, or set data.images to their folder or data.annotations to the right"
        " files."
    )


def test_images_outside_the_root(tmp_path):
    write_dataset(tmp_path / "set", document(annotation([SQUARE])), images=False)
    image(tmp_path / "elsewhere/deep/a.jpg")
    for images in (str(tmp_path / "elsewhere"), str(tmp_path / "else*/deep/*.jpg"), "../elsewhere/**/*.jpg"):
        splits = open_data(DataConfig.model_validate(NO_SPLIT | {"format": "coco", "images": images}), tmp_path / "set")
        assert [record.id for split in splits for record in split.records] == ["a"]


def test_two_files_for_the_same_images(tmp_path):
    images = [entry(number, f"{number}.jpg") for number in range(1, 6)]
    write_dataset(tmp_path, document(annotation([SQUARE]), images=images), "first.json")
    write_dataset(tmp_path, document(annotation([SMALL]), images=images[:2]), "second.json")
    with pytest.raises(DataError) as caught:
        find(tmp_path)
    assert str(caught.value) == (
        f"{tmp_path}: expected one annotation file for each image, found first.json and second.json, which both list the"
        " same 2 images. Choose one: --set data.annotations=first.json."
    )
    assert len(records(find(tmp_path, annotations="second.json"))) == 2
    more = [*images[:1], *(entry(number, f"{number}.jpg") for number in (6, 7, 8))]
    write_dataset(tmp_path, document(annotation([SMALL]), images=more), "second.json")
    assert problems_of(find(tmp_path)) == [("1.jpg", "image in two files, first.json and second.json")]


def test_images_with_equal_names_are_resolved_by_folder_and_split(tmp_path):
    for split in ("train", "val"):
        for name in ("a.jpg", "x/a.jpg", "x/y/a.jpg"):
            image(tmp_path / split / name)
        images = [entry(1, "a.jpg"), entry(2, "x/a.jpg"), entry(3, "y\\a.jpg")]
        write_dataset(
            tmp_path, document(annotation([SQUARE]), images=images), f"annotations/instances_{split}.json", images=False
        )
    assert ids(find(tmp_path)) == {
        split: [f"{split}/{name}" for name in ("a", "x/a", "x/y/a")] for split in ("train", "val")
    }


def test_lvis_identifies_images_by_url(tmp_path):
    plain = document(annotation([SQUARE]))
    url = "http://images.cocodataset.org/train2017/a.jpg"
    plain["images"][0] = {"id": 1, "coco_url": url, "height": SIZE[0], "width": SIZE[1]}
    image(tmp_path / "train2017/a.jpg")
    assert ids(find(write_dataset(tmp_path, plain, images=False))) == {"train": ["train2017/a"]}


def test_every_file_is_parsed_once(tmp_path, monkeypatch):
    write_dataset(tmp_path, document(annotation([SQUARE])), "train/_annotations.coco.json")
    write_dataset(tmp_path, document(annotation([SQUARE])), "valid/_annotations.coco.json")
    parsed = []
    loads = base.json.loads
    monkeypatch.setattr(base.json, "loads", lambda *a, **k: parsed.append(1) or loads(*a, **k))
    open_data(DataConfig(), tmp_path)
    assert len(parsed) == 2


# Sizes ----------------------------------------------------------------------------------------------------------------


def test_a_size_other_than_the_images_is_an_error(tmp_path):
    write_dataset(tmp_path, document(annotation([SQUARE]), images=[entry(size=(21, 30))]), images=False)
    image(tmp_path / "a.jpg")
    with pytest.raises(PairingError, match=r"expected 20×30 pixels, the height and width of a.jpg, found 21×30"):
        open_data(DataConfig(), tmp_path)


@pytest.mark.parametrize("orientation", [5, 6, 7, 8])
def test_annotations_made_before_exif_rotation_are_rotated(tmp_path, orientation):
    """The image is 30×20 as stored, and 20×30 as shown (width × height)."""
    image(tmp_path / "a.jpg", SIZE, orientation)
    write_dataset(tmp_path, document(annotation([SQUARE]), images=[entry(size=SIZE)]), images=False)
    stored = class_map(tmp_path)
    expected = np.zeros(SIZE, bool)
    expected[2:10, 2:12] = True
    np.testing.assert_array_equal(stored == "cat", apply_orientation(expected, orientation))
    write_dataset(tmp_path, document(annotation([SQUARE]), images=[entry(size=SIZE[::-1])]), images=False)
    shown = class_map(tmp_path)
    assert shown.shape == SIZE[::-1]
    assert (shown[2:10, 2:12] == "cat").all()


@pytest.mark.parametrize("size", [{}, {"height": None, "width": None}, {"height": 0, "width": 0}])
def test_a_missing_size_is_taken_from_the_run_lengths_or_the_image(tmp_path, size):
    plain = document(annotation([SQUARE]))
    plain["images"][0] = {"id": 1, "file_name": "a.jpg"} | size
    image(tmp_path / "a.jpg")
    assert (class_map(write_dataset(tmp_path, plain, images=False))[2:10, 2:12] == "cat").all()
    plain["annotations"].append(annotation(runs(np.ones((5, 5), int)), number=2))
    write_dataset(tmp_path, plain, images=False)
    with pytest.raises(PairingError, match=r"expected 20×30 pixels, the height and width of a.jpg, found 5×5"):
        open_data(DataConfig(), tmp_path)


def test_run_lengths_of_another_size_make_an_image_unusable(tmp_path):
    plain = document(
        annotation([SQUARE]), annotation(runs(np.ones((5, 5), int)), number=2), annotation([SMALL], image=2, number=3)
    )
    plain["images"].append(entry(2, "b.jpg"))
    found = find(write_dataset(tmp_path, plain))
    assert problems_of(found) == [("a.jpg (annotation 2)", "object with run lengths for another size than its image")]
    assert ids(found) == {"pool": ["b"]}  # its pixels must not become background


# Malformed and hostile files---------------------------------------------------------------------------------------------


def test_files_with_only_boxes_are_rejected(tmp_path):
    boxes = [annotation([], number=1, bbox=[1, 2, 3, 4]), annotation([[]], number=2, bbox=[1, 2, 3, 4])]
    without = annotation(None, number=3, bbox=[1, 2, 3, 4])
    del without["segmentation"]
    with pytest.raises(DataError) as caught:
        find(write_dataset(tmp_path, document(*boxes, without)))
    assert str(caught.value) == (
        f"{tmp_path}/annotations.json: expected objects with a segmentation: polygons or run lengths, found 3 with only a"
        " box, as for detection. Export the annotations as COCO segmentation; if other files hold the masks, set data.format."
    )


@pytest.mark.parametrize(
    ("segmentation", "why_unusable"),
    [
        ([], "object with a box but no mask"),
        (None, "object with a box but no mask"),
        ([[1, 1, 5, 5]], "object whose polygons have fewer than three points"),  # pycocotools takes it for a box
        ([[1, 1, 5, 5, 3]], "object whose polygons are not lists of numbers x, y, x, y"),
        ([[1, 1, 5, 5, 3, 3, 2]], "object whose polygons are not lists of numbers x, y, x, y"),
        ([["1", "1", "5", "5", "3", "3"]], "object whose polygons are not lists of numbers x, y, x, y"),
        (
            [[[1, 1], [5, 5], [3, 3], [4, 4], [5, 5], [6, 6]]],
            "object whose polygons are not lists of numbers x, y, x, y",
        ),
        ([[10**400, 1, 5, 5, 3, 3]], "object whose polygons are not lists of numbers x, y, x, y"),
        ("somewhere", "object whose polygons are not lists of numbers x, y, x, y"),
        (7, "object whose polygons are not lists of numbers x, y, x, y"),
        ({"size": [20, 30]}, "object whose run lengths have no valid size and counts"),
        ({"size": [20, 30], "counts": [1, -1, 600]}, "object whose run lengths have no valid size and counts"),
        ({"size": [20, 30], "counts": [0.5, 599.5]}, "object whose run lengths have no valid size and counts"),
        ({"size": [20, 30], "counts": [2**70]}, "object whose run lengths have no valid size and counts"),
        ({"size": [20, 30], "counts": []}, "object whose run lengths have no valid size and counts"),
        ({"size": [20, 30], "counts": "é"}, "object whose run lengths have no valid size and counts"),
        ({"size": "20, 30", "counts": "0"}, "object whose run lengths have no valid size and counts"),
        ({"size": [-20, -30], "counts": "0"}, "object whose run lengths have no valid size and counts"),
    ],
)
def test_an_object_without_a_mask_makes_its_image_unusable(tmp_path, segmentation, why_unusable):
    images = [entry(1), entry(2, "b.jpg")]
    write_dataset(
        tmp_path, document(annotation([SQUARE]), annotation(segmentation, number="x", image=2), images=images)
    )
    found = find(tmp_path)
    assert problems_of(found) == [("b.jpg (annotation x)", why_unusable)]
    assert ids(found) == {"pool": ["a"]}
    with pytest.raises(PairingError, match=why_unusable):
        open_data(DataConfig(), tmp_path)
    splits = open_data(DataConfig.model_validate(NO_SPLIT | {"skip_bad": True}), tmp_path)
    assert splits.skipped == (f"b.jpg (annotation x): {why_unusable}",)


def test_degenerate_rings_next_to_valid_ones_get_a_notice(tmp_path):
    found = find(write_dataset(tmp_path, document(annotation([SQUARE, [1, 1, 20, 15], [3, 3]]))))
    assert "annotations.json: 2 polygons with fewer than three points cover no pixels" in found.layout.notices
    assert (class_map(tmp_path) == "cat").sum() == 80


def test_a_flat_list_is_one_polygon(tmp_path):
    write_dataset(tmp_path, document(annotation(SQUARE)))
    assert (class_map(tmp_path)[2:10, 2:12] == "cat").all()


def test_annotations_without_a_listed_category_are_problems(tmp_path):
    bad = [annotation([SQUARE], 99), annotation([SMALL], [1], 7), {"id": 3, "image_id": 1, "segmentation": [SMALL]}]
    assert problems_of(find(write_dataset(tmp_path, document(*bad)))) == [
        ("a.jpg (annotation 1)", "object of a category that its file does not list"),
        ("a.jpg (annotation 3)", "object without a category_id"),
        ("a.jpg (annotation 7)", "object of a category that its file does not list"),
    ]


@pytest.mark.parametrize("skip_bad", [False, True])
def test_annotations_without_a_listed_image_are_refused(tmp_path, skip_bad):
    """They may belong to any image, so none of the images can be trusted."""
    unknown = [annotation([SMALL], number=2, image=77), {"id": 3}, 4, annotation([SMALL], number=5, image=[1])]
    write_dataset(tmp_path, document(annotation([SQUARE]), *unknown))
    with pytest.raises(MaskError) as error:
        find(tmp_path, skip_bad=skip_bad)
    assert str(error.value) == (
        f"{tmp_path}/annotations.json: expected the image_id of a listed image in every annotation, found 4 without"
        " (annotation 2: 77, annotations[2], annotations[3], …). Correct or remove these annotations. They may belong to"
        " any image of the file, so skip_bad cannot leave out theirs."
    )


def test_ids_may_be_numbers_in_one_list_and_text_in_another(tmp_path):
    images = [entry("1"), entry(2, "b.jpg"), entry("3", "c.jpg"), entry(3, "d.jpg")]
    shapes = [annotation([SQUARE], "1", k, image=id_) for k, id_ in enumerate((1, "2", "3", 3, 3.0))]
    found = find(write_dataset(tmp_path, document(*shapes, images=images)))
    assert [len(record.source.shapes) for record in records(found)] == [1, 1, 1, 2]
    assert {shape.name for record in records(found) for shape in record.source.shapes} == {"cat"}
    assert (
        "annotations.json: 2 annotations have numbers for image ids that are text, or the reverse: they are matched"
        in found.layout.notices
    )


def test_annotations_with_the_same_id_are_all_drawn(tmp_path):
    write_dataset(tmp_path, document(annotation([SQUARE], 1), annotation([[20, 2, 25, 2, 25, 9, 20, 9]], 2)))
    found = find(tmp_path)
    notice = "annotations.json: 1 annotation ids are duplicates; all annotations are drawn"
    assert notice in found.layout.notices
    assert {"cat", "dog"} <= set(class_map(tmp_path).ravel().tolist())


def test_an_image_listed_twice_is_a_problem(tmp_path):
    found = find(write_dataset(tmp_path, document(annotation([SQUARE]), images=[entry(1), entry(2)])))
    assert problems_of(found) == [("annotations.json: 'a.jpg'", "second entry of an image")]


@pytest.mark.parametrize(
    ("change", "kind", "message"),
    [
        ({"images": [entry(1), entry(1, "b.jpg")]}, MaskError, "images: expected images with unique ids, found id 1 twice"),
        ({"images": [{"file_name": "a.jpg"}]}, MaskError, "images: expected images with unique ids"),
        ({"images": 5}, MaskError, "expected a list of images, found a int"),
        ({"images": [7]}, MaskError, "images: expected images with unique ids, found 7"),
        ({"categories": None}, MaskError, "expected a list of categories"),
        ({"categories": []}, LabelsError, "annotations.json: categories: expected the classes, found none"),
        ({"categories": [{"id": "cat", "name": "cat"}]}, LabelsError, "expected categories with an integer id"),
        ({"categories": [{"id": 1.5, "name": "cat"}]}, LabelsError, "expected categories with an integer id"),
        ({"categories": [{"id": True, "name": "cat"}]}, LabelsError, "expected categories with an integer id"),
        ({"categories": [{"id": 1}]}, LabelsError, "expected categories with an integer id and a name"),
        ({"categories": [{"id": 1, "name": "a"}, {"id": 1, "name": "b"}]}, LabelsError, "id 1 for 'a' and 'b'"),
        ({"annotations": {}}, MaskError, "expected a list of annotations, found a dict"),
    ],
)  # fmt: skip
def test_malformed_files_are_errors(tmp_path, change, kind, message):
    image(tmp_path / "a.jpg")
    (tmp_path / "annotations.json").write_text(json.dumps(document(annotation([SQUARE])) | change))
    with pytest.raises(kind) as caught:
        find(tmp_path, format="coco")
    assert message in str(caught.value)


@pytest.mark.parametrize("text", ["", "{", "[" * 100_000, "[]", '{"images": [], "annotations": [], "categories"'])
def test_files_that_are_not_json_are_errors(tmp_path, text):
    (tmp_path / "annotations.json").write_text(text)
    with pytest.raises(MaskError, match=r"annotations.json: expected (a JSON file|an object with images)"):
        find(tmp_path, format="coco", annotations="annotations.json")
    with pytest.raises(DataError):
        find(tmp_path, format="coco")


@pytest.mark.parametrize(
    ("segmentation", "message"),
    [
        ({"size": [20, 30], "counts": "0"}, "annotation 1: expected run lengths for 20×30 pixels.* found 0 pixels"),
        ({"size": [20, 30], "counts": [600, 2**31]}, "found a run of 2147483648"),
        ({"size": [20, 30], "counts": "oooooooooo0"}, "found b'oooooooooo0'"),
        ({"size": [20, 30], "counts": [1, 2, 3]}, "found 6 pixels"),
        ([[1, 1, 1e9, 1, 5, 5]], r"annotation 1: expected points x, y within an image of 30×20, found 1e\+09, 1"),
        ([[1, 1, float("nan"), 1, 5, 5]], "found nan, 1"),
        ([[1, 1, float("-inf"), 1, 5, 5]], "found -inf, 1"),
        ([[-30, 0, 60, 0] * 60_000], "expected a contour of at most 5,000,000 pixels, found 10,8"),
    ],
)
def test_segmentations_unsafe_for_pycocotools_are_rejected_when_the_mask_is_read(tmp_path, segmentation, message):
    write_dataset(tmp_path, document(annotation(segmentation)))
    split = open_data(DataConfig.model_validate(NO_SPLIT), tmp_path).train
    assert split is not None
    with pytest.raises(MaskError, match=message) as caught:
        split.read(0)
    assert str(caught.value).startswith(f"{tmp_path}/annotations.json: annotation 1: expected ")


def test_run_lengths_for_another_size_are_rejected():
    region = CocoRLE(coder.encode(np.asfortranarray(np.eye(4, 5, dtype=np.uint8)))["counts"], (4, 5), "annotation 3")
    assert region.rasterize((4, 5))[2].sum() == 4
    with pytest.raises(MaskError) as caught:
        region.rasterize((5, 4))
    assert str(caught.value) == (
        "annotation 3: expected run lengths for 5×4 pixels, the image's height and width, found 4×5. Export the"
        " annotations again."
    )


def test_many_large_objects_need_little_memory():
    size = (800, 800)
    full = coder.encode(np.asfortranarray(np.ones(size, np.uint8)))["counts"]
    shapes = tuple(Shape("cat", CocoRLE(full, size)) for _ in range(100))
    tracemalloc.start()
    Drawing(Path("a.json"), shapes, size, "background", "area").draw(Labels(("background", "cat")), size)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 20 * size[0] * size[1]


def test_huge_sizes_are_rejected_before_memory_is_allocated(tmp_path):
    side = 10**9
    plain = document(annotation({"size": [side, side], "counts": [side * 2, side]}), images=[entry(size=(side, side))])
    image(write_dataset(tmp_path, plain, images=False) / "a.jpg")
    with pytest.raises(PairingError, match="expected 20×30 pixels"):
        open_data(DataConfig(), tmp_path)


JUNK = st.sampled_from([None, [], {}, "", "x", -1, 0, 1.5, True, [[]], [None], {"id": 1}, 10**30, float("nan")])


def paths_in(plain, path=()):
    yield path
    children = plain.items() if isinstance(plain, dict) else enumerate(plain) if isinstance(plain, list) else ()
    for key, value in children:
        yield from paths_in(value, (*path, key))


@settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.data())
def test_junk_anywhere_in_a_file_is_read_or_rejected(tmp_path_factory, data):
    mask = np.ones(SIZE, int)
    plain = document(annotation([SQUARE]), annotation(runs(mask), 2, 2), annotation(runs(mask, False), 2, 3))
    root = tmp_path_factory.mktemp("set")
    image(root / "a.jpg")
    broken = copy.deepcopy(plain)
    *above, key = data.draw(st.sampled_from(list(paths_in(plain))[1:]))
    holder = broken
    for step in above:
        holder = holder[step]
    holder[key] = data.draw(JUNK)
    (root / "annotations.json").write_text(json.dumps(broken))
    try:
        (split,) = open_data(DataConfig.model_validate(NO_SPLIT | {"format": "coco", "skip_bad": True}), root)
        assert split.read(0).mask.shape == SIZE
    except PixelwiseError as error:
        assert error.do  # noqa: PT017 - both outcomes are valid


def test_sources_can_be_pickled_and_their_digest_covers_shapes_but_not_ids(tmp_path):
    write_dataset(tmp_path, document(annotation([SQUARE]), annotation(runs(np.eye(*SIZE, dtype=int)), 2, 2)))
    found = find(tmp_path)
    source = records(found)[0].source
    copied = pickle.loads(pickle.dumps(source))
    np.testing.assert_array_equal(copied.draw(found.labels, SIZE), source.draw(found.labels, SIZE))
    assert copied.digest() == source.digest()
    write_dataset(tmp_path, document(annotation([SQUARE], number=7), annotation(runs(np.eye(*SIZE, dtype=int)), 2, 8)))
    assert records(find(tmp_path))[0].source.digest() == source.digest()
    write_dataset(
        tmp_path, document(annotation([[*SQUARE[:-1], 11]]), annotation(runs(np.eye(*SIZE, dtype=int)), 2, 2))
    )
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


def test_written_files_load_in_pycocotools_with_equal_masks(tmp_path):
    labels = Labels(("background", "nucleus", "tissue"), (0, 7, 3), countable=(False, True, False))
    masks = {"train/a.png": scattered(1), "train/x/a.png": scattered(2), "val/a.png": scattered(3)}
    out = written(tmp_path, masks, labels)
    assert sorted(path.relative_to(out).as_posix() for path in out.rglob("*.*")) == [
        "annotations/instances_train.json", "annotations/instances_val.json", "data.yaml",
        "train/a.png", "train/x/a.png", "val/a.png",
    ]  # fmt: skip
    for split in ("train", "val"):
        reference = index(out / f"annotations/instances_{split}.json")
        assert {one["name"]: i for i, one in reference.cats.items()} == {"nucleus": 7, "tissue": 3, "__ignore__": 255}
        for number, one in reference.imgs.items():
            mask = masks[f"{split}/{one['file_name']}"]
            canvas = np.zeros(mask.shape, int)
            for items in reference.imgToAnns[number]:
                pixels = reference.annToMask(items).astype(bool)
                assert not canvas[pixels].any()  # no overlap
                canvas[pixels] = items["category_id"]
                assert items["id"] > 0  # 0 means "no match" to pycocotools
                assert items["area"] == pixels.sum() == coder.area(items["segmentation"])
                assert items["bbox"] == coder.toBbox(items["segmentation"]).tolist()
                assert items["iscrowd"] == 0
            translate = np.zeros(256, int)
            translate[[0, 1, 2, 255]] = 0, 7, 3, 255
            np.testing.assert_array_equal(canvas, translate[mask])
            counts = [sum(items["category_id"] == i for items in reference.imgToAnns[number]) for i in (7, 3)]
            assert counts == [ndimage.label(mask == 1)[1], 1]


def test_without_a_background_every_class_is_written(tmp_path):
    out = written(tmp_path, {"train/a.png": scattered(4)}, Labels(("sky", "road", "tree")))
    plain = json.loads((out / "annotations/instances_train.json").read_text())
    assert [one["name"] for one in plain["categories"]] == ["sky", "road", "tree", "__ignore__"]
    assert "unlabelled: ignore" in (out / "data.yaml").read_text()
    back = class_map(out, **NO_SPLIT)
    np.testing.assert_array_equal(back == "(ignored)", scattered(4) == 255)  # also without `unlabelled`


def test_two_background_classes(tmp_path):
    out = written(tmp_path, {"train/a.png": scattered(5)}, Labels(("background", "unlabeled", "road")))
    plain = json.loads((out / "annotations/instances_train.json").read_text())
    assert [one["name"] for one in plain["categories"]] == ["background", "unlabeled", "road", "__ignore__"]
    assert {one["category_id"] for one in plain["annotations"]} == {1, 2, 255}


@pytest.mark.parametrize("name", ["_background_", "__background__", "unlabeled"])
def test_a_background_with_another_name_round_trips(tmp_path, name):
    mask = np.where(scattered(6) == 2, 0, scattered(6)).astype(np.uint8)
    out = written(tmp_path, {"train/a.png": mask}, Labels((name, "road")))
    plain = json.loads((out / "annotations/instances_train.json").read_text())
    assert [one["name"] for one in plain["categories"]] == [name, "road", "__ignore__"]
    assert {one["category_id"] for one in plain["annotations"]} == {1, 255}
    (out / "data.yaml").unlink()
    assert find(out).labels.names == (name, "road")


def test_control_characters_in_ids_are_escaped(tmp_path):
    found = find(write_dataset(tmp_path, document(annotation([SQUARE]), annotation([], number="\x1b[2J\n"))))
    assert problems_of(found) == [("a.jpg (annotation '\\x1b[2J\\n')", "object with a box but no mask")]


def test_groups_of_images_outside_the_root(tmp_path):
    write_dataset(
        tmp_path / "set",
        document(annotation([SQUARE]), images=[entry(1, "a_1.jpg"), entry(2, "b_1.jpg")]),
        images=False,
    )
    for name in ("a_1", "b_1"):
        image(tmp_path / f"elsewhere/{name}.jpg")
    config = NO_SPLIT | {"format": "coco", "images": str(tmp_path / "elsewhere"), "group": "([ab])_[0-9]"}
    (split,) = open_data(DataConfig.model_validate(config), tmp_path / "set")
    assert [record.group for record in split.records] == ["a", "b"]


def test_real_masks_round_trip(real, tmp_path):
    path = real("fixtures") / "instances_coco100" / "gt_instances.json"
    config = NO_SPLIT | {"annotations": path.name, "images": str(real("coco_panoptic") / "images/val2017")}
    (split,) = open_data(DataConfig.model_validate(config), path.parent)
    some = split.subset(range(0, 100, 12))
    splits = open_data(DataConfig.model_validate(config), path.parent)
    done = convert(replace(splits, train=some), FORMATS["coco"], tmp_path)
    assert (done.images, done.changed_pixels) == (9, 0)
    assert find_format(DatasetRoot(tmp_path, tmp_path, DataConfig()))[0].name == "coco"
    reference = index(tmp_path / "annotations/instances_train.json")
    assert len(reference.imgs) == 9


def test_detection_reads_few_files(tmp_path, monkeypatch):
    for number in range(100):
        (tmp_path / f"{number}.json").write_text("{}")
    probed = []
    monkeypatch.setattr(coco, "mentions", lambda path, *words: probed.append(path) or False)
    assert coco.detect(DatasetRoot(tmp_path, tmp_path, DataConfig())) is None
    assert len(set(probed)) <= 32
