"""COCO panoptic: PNG colours are segment ids, the JSON lists their classes, and the two must agree."""

from __future__ import annotations

import copy
import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from scipy import ndimage

from pixelwise.config import DataConfig
from pixelwise.datasets.convert import convert
from pixelwise.datasets.dataset import open_data
from pixelwise.errors import DataError, LabelsError, MaskError, PairingError, PixelwiseError
from pixelwise.formats import FORMATS, find_format, read_dataset
from pixelwise.formats.dataset_root import DatasetRoot
from pixelwise.imageio.masks import write_mask
from pixelwise.imageio.raster import apply_orientation
from pixelwise.labels import Labels

SIZE = (6, 8)
NO_SPLIT = {"split": {"val": 0, "test": 0}}
PERSON, GRASS, CROWD = 3226956, 70000, 256


def numbers() -> np.ndarray:
    """Return segment ids (H, W): three segments, and VOID in the first column."""
    ids = np.full(SIZE, GRASS)
    ids[1:4, 2:5] = PERSON
    ids[5, 4:] = CROWD
    ids[:, 0] = 0
    return ids


def write_png(path: Path, ids: np.ndarray) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.stack([ids % 256, ids // 256 % 256, ids // 65536], -1).astype(np.uint8)).save(path)
    return path


def full_image(path: Path, size: tuple[int, int] = SIZE, orientation: int = 1) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.new("RGB", size[::-1], (9, 9, 9)).save(path, exif=exif)
    return path


def document(*names: str) -> dict[str, Any]:
    segments = [
        {"id": PERSON, "category_id": 1, "iscrowd": 0, "area": 9, "bbox": [2, 1, 3, 3]},
        {"id": GRASS, "category_id": 193, "iscrowd": 0, "area": 29, "bbox": [1, 0, 7, 6]},
        {"id": CROWD, "category_id": 1, "iscrowd": 1, "area": 4, "bbox": [4, 5, 4, 1]},
    ]
    listed = list(enumerate(names or ("a",), 1))
    return {
        "images": [{"id": i, "file_name": f"{name}.jpg", "height": SIZE[0], "width": SIZE[1]} for i, name in listed],
        "annotations": [
            {"image_id": i, "file_name": f"{name}.png", "segments_info": copy.deepcopy(segments)} for i, name in listed
        ],
        "categories": [
            {"id": 1, "name": "person", "supercategory": "person", "isthing": 1, "color": [220, 20, 60]},
            {"id": 193, "name": "grass", "supercategory": "plant", "isthing": 0, "color": [152, 251, 152]},
        ],
    }


def write_dataset(root: Path, plain: dict[str, Any], name: str = "panoptic.json", masks: str | None = None) -> Path:
    """Write a JSON file, a PNG for every annotation, and every image."""
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(plain))
    folder = path.with_suffix("") if masks is None else root / masks
    for one in plain["annotations"]:
        write_png(folder / one["file_name"], numbers())
    for one in plain["images"]:
        full_image(root / "images" / one["file_name"])
    return root


def find(root: Path, **config: Any) -> Any:
    return read_dataset(DataConfig.model_validate(config), root, root)[1]


def records(found: Any) -> list[Any]:
    return [record for split in found.layout.splits.values() for record in split]


def problems_of(found: Any) -> list[tuple[str, str]]:
    return sorted((problem.file, problem.why) for problem in found.layout.problems)


def class_map(root: Path, **config: Any) -> np.ndarray:
    (split,) = open_data(DataConfig.model_validate(NO_SPLIT | config), root)
    names = np.array([*split.labels.names, *["(ignored)"] * (256 - split.labels.num_classes)])
    return names[split.read(0).mask]


# Reading --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [0, 1, 17, 42, 63, 99])
def test_real_masks_match_an_independent_decoder(real, number):
    root = real("coco_panoptic")
    plain = json.loads((root / "panoptic_val2017.json").read_text())
    (split,) = open_data(DataConfig.model_validate(NO_SPLIT), root)
    assert (split.name, len(split), split.labels.num_classes) == ("val", 100, 133)
    one = plain["annotations"][number]
    rgb = np.asarray(Image.open(root / "panoptic_val2017" / one["file_name"])).astype(int)
    ids = rgb @ np.array([1, 256, 65536])
    expected = np.zeros(ids.shape, int)
    for segment in one["segments_info"]:
        assert (ids == segment["id"]).sum() == segment["area"]
        expected[ids == segment["id"]] = segment["category_id"]
    (index,) = [n for n, record in enumerate(split.records) if Path(record.id).name == f"{one['image_id']:012d}"]
    mask = split.read(index).mask
    ours = np.append(split.labels.ids, np.zeros(256 - 133, int))[mask]
    np.testing.assert_array_equal(ours, expected)
    np.testing.assert_array_equal(mask == 255, ids == 0)


def test_real_masks_and_predictions_are_read(real):
    images = str(real("coco_panoptic") / "images")
    for name in ("gt.json", "pred.json"):
        config = NO_SPLIT | {"annotations": name, "images": images}
        (split,) = open_data(DataConfig.model_validate(config), real("fixtures") / "panoptic_coco100")
        assert sum((split.read(n).mask < 133).any() for n in range(0, 100, 9)) == 12


def test_two_files_for_the_same_images_are_ambiguous(real):
    root = real("fixtures") / "panoptic_coco100"
    with pytest.raises(DataError) as caught:
        find(root, format="coco-panoptic", images=str(real("coco_panoptic") / "images/val2017/*.jpg"))
    assert str(caught.value) == (
        f"{root}: expected one annotation file for each image, found gt.json and pred.json, which both list the same 100"
        " images. Choose one: --set data.annotations=gt.json."
    )


def test_segments_crowds_and_ignored_pixels(tmp_path):
    found = find(write_dataset(tmp_path, document()))
    assert not found.layout.problems
    assert (found.labels.names, found.labels.ids) == (("person", "grass"), (1, 193))
    assert found.labels.countable == (True, False)
    assert found.labels.colours == ((220, 20, 60), (152, 251, 152))
    expected = np.where(numbers() == GRASS, "grass", np.where(numbers() == 0, "(ignored)", "person"))
    np.testing.assert_array_equal(class_map(tmp_path), expected)
    assert class_map(tmp_path, unlabelled="grass")[0, 0] == "grass"
    assert class_map(tmp_path, ignored=["person"])[2, 3] == "(ignored)"
    with pytest.raises(DataError, match="expected background, ignore, or one of grass, person, found 'sky'"):
        find(tmp_path, unlabelled="sky")


def test_class_ids_are_kept_including_zero(tmp_path):
    plain = document()
    plain["categories"][0]["id"] = 0
    for segment in plain["annotations"][0]["segments_info"]:
        segment["category_id"] = 0 if segment["category_id"] == 1 else 193
    assert find(write_dataset(tmp_path, plain)).labels.ids == (0, 193)


def test_splits_come_from_file_names_and_masks_are_not_images(tmp_path):
    for split in ("train", "val"):
        plain = document("x/a")
        path = tmp_path / f"annotations/panoptic_{split}2017.json"
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps(plain).replace(".jpg", ".png"))
        write_png(tmp_path / f"annotations/panoptic_{split}2017/x/a.png", numbers())
        full_image(tmp_path / f"{split}2017/x/a.png")
    found = find(tmp_path)
    assert not found.layout.problems
    assert found.layout.notices == ("read as COCO panoptic: annotations/panoptic_train2017.json has segments_info",)
    for split in ("train", "val"):
        (record,) = found.layout.splits[split]
        assert record.id == f"{split}2017/x/a"
        assert record.image == tmp_path / f"{split}2017/x/a.png"
        assert record.mask == tmp_path / f"annotations/panoptic_{split}2017/x/a.png"


def test_instances_next_to_panoptic_files_are_ambiguous(tmp_path):
    write_dataset(tmp_path, document())
    plain = document()
    plain["annotations"] = [{"id": 1, "image_id": 1, "category_id": 1, "segmentation": [[0, 0, 5, 0, 5, 5]]}]
    (tmp_path / "instances.json").write_text(json.dumps(plain))
    with pytest.raises(DataError, match=r"expected annotations of one format.*--set data.format=coco-panoptic"):
        find(tmp_path)
    assert len(records(find(tmp_path, format="coco-panoptic"))) == 1


@pytest.mark.parametrize("masks", ["elsewhere/panoptic", "elsewhere/segments"])
def test_the_mask_folder_is_found_by_its_name_or_its_files(tmp_path, masks):
    found = find(write_dataset(tmp_path, document(), masks=masks))
    assert [record.mask for record in records(found)] == [tmp_path / masks / "a.png"]


def test_a_missing_mask_folder_is_an_error(tmp_path):
    write_dataset(tmp_path, document())
    (tmp_path / "panoptic/a.png").unlink()
    (tmp_path / "panoptic").rmdir()
    with pytest.raises(DataError) as caught:
        find(tmp_path)
    assert str(caught.value) == (
        f"{tmp_path}/panoptic.json: expected a folder panoptic/ with its PNG masks next to it, found none. Put the PNG masks"
        " into panoptic/."
    )
    for folder in ("one", "two"):
        write_png(tmp_path / folder / "a.png", numbers())
    with pytest.raises(DataError, match="found 2 possible folders"):
        find(tmp_path)


def test_an_image_folder_named_like_the_file_is_not_the_mask_folder(tmp_path):
    write_dataset(tmp_path, document(), "val.json", masks="segments")
    (tmp_path / "images").rename(tmp_path / "val")
    found = find(tmp_path)
    assert not found.layout.problems
    assert [(record.image, record.mask) for record in records(found)] == [
        (tmp_path / "val/a.jpg", tmp_path / "segments/a.png")
    ]


def test_two_files_can_share_a_mask_folder(tmp_path):
    for split, name in (("train", "a"), ("val", "b")):
        write_dataset(tmp_path, document(name), f"panoptic_{split}.json", masks="segments")
    found = find(tmp_path)
    assert {split: [record.id for record in items] for split, items in found.layout.splits.items()} == {
        "train": ["images/a"], "val": ["images/b"]
    }  # fmt: skip
    assert found.layout.notices == ("read as COCO panoptic: panoptic_train.json has segments_info",)
    write_png(tmp_path / "segments/c.png", numbers())
    assert find(tmp_path).layout.notices[1:] == (
        "1 of 3 PNG files of segments/ are in no annotation file and are left out (segments/c.png)",
    )


def test_image_names_of_cityscapes_panoptic(tmp_path):
    """createPanopticImgs.py adds _gtFine to image names."""
    plain = document()
    name = "aachen_000000_000019"
    plain["images"][0] |= {"id": name, "file_name": f"{name}_gtFine_leftImg8bit.png"}
    plain["annotations"][0] |= {"image_id": name, "file_name": f"{name}_gtFine_panoptic.png"}
    write_dataset(tmp_path, plain, "gtFine/cityscapes_panoptic_train.json")
    (tmp_path / f"images/{name}_gtFine_leftImg8bit.png").unlink()
    full_image(tmp_path / f"leftImg8bit/train/aachen/{name}_leftImg8bit.png")
    found = find(tmp_path, format="coco-panoptic")
    assert not found.layout.problems
    assert [record.image.name for record in found.layout.splits["train"]] == [f"{name}_leftImg8bit.png"]


# Disagreement and errors------------------------------------------------------------------------------------------------


def test_segments_missing_in_the_json_are_errors(tmp_path):
    ids = numbers()
    ids[0, 1:4], ids[0, 4] = 17, 513
    write_png(write_dataset(tmp_path, document()) / "panoptic/a.png", ids)
    with pytest.raises(MaskError) as caught:
        class_map(tmp_path)
    assert str(caught.value) == (
        f"{tmp_path}/panoptic/a.png: expected segments that the JSON lists, found 17 in 3 pixels, 513 in 1 pixel. Export"
        " PNG and JSON together again; the id of a segment is red + 256 · green + 65536 · blue."
    )


def test_segments_missing_in_the_png_are_errors(tmp_path):
    plain = document()
    segments = plain["annotations"][0]["segments_info"]
    segments += [{"id": 5, "category_id": 1, "area": 840}, *({"id": 900 + n, "category_id": 193} for n in range(6))]
    write_dataset(tmp_path, plain)
    with pytest.raises(MaskError) as caught:
        class_map(tmp_path)
    assert (
        "expected every segment that the JSON lists, found 5 (person, 840 pixels in the JSON) in no pixel, 900 (grass,"
        in (str(caught.value))
    )
    assert "and 3 more" in str(caught.value)


def test_a_mask_without_colours_is_an_error(tmp_path):
    write_dataset(tmp_path, document())
    Image.fromarray((numbers() % 256).astype(np.uint8)).save(tmp_path / "panoptic/a.png")
    with pytest.raises(MaskError, match="expected an RGB PNG whose colours are segment ids, found index values"):
        class_map(tmp_path)


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"id": 0}, ("images/a.jpg (segment 0)", "segment whose id is not a unique positive integer")),
        ({"id": "7"}, ("images/a.jpg (segment '7')", "segment whose id is not a unique positive integer")),
        ({"id": 2**24}, ("images/a.jpg (segment 16777216)", "segment whose id is not a unique positive integer")),
        ({"id": GRASS}, ("images/a.jpg (segment 70000)", "segment whose id is not a unique positive integer")),
        (
            {"category_id": 9},
            (f"images/a.jpg (segment {PERSON})", "segment of a category that its file does not list"),
        ),
        (
            {"category_id": []},
            (f"images/a.jpg (segment {PERSON})", "segment of a category that its file does not list"),
        ),
    ],
)
def test_a_malformed_segment_makes_its_image_unusable(tmp_path, change, problem):
    plain = document("a", "b")
    plain["annotations"][0]["segments_info"][0] |= change
    found = find(write_dataset(tmp_path, plain))
    assert problems_of(found) == [problem]
    assert [record.id for record in records(found)] == ["images/b"]


def test_unmatched_files_and_annotations_are_problems(tmp_path):
    plain = document("a", "b", "c", "d", "e", "f")
    notes = plain["annotations"]
    notes[1]["image_id"] = 99
    notes[2]["image_id"] = 1
    del notes[3]["segments_info"]
    write_dataset(tmp_path, plain)
    (tmp_path / "images/e.jpg").unlink()
    (tmp_path / "panoptic/f.png").unlink()
    full_image(tmp_path / "images/more.jpg")
    write_png(tmp_path / "panoptic/more.png", numbers())
    found = find(tmp_path)
    assert problems_of(found) == [
        ("images/a.jpg", "image in panoptic.json without an annotation"),
        ("images/b.jpg", "image in panoptic.json without an annotation"),
        ("images/c.jpg", "image in panoptic.json without an annotation"),
        ("images/d.jpg", "image in panoptic.json without an annotation"),
        ("images/f.jpg", "image without its PNG mask in panoptic/"),
        ("panoptic.json: 'e.jpg'", "annotation without its image (no such image)"),
        ("panoptic.json: annotations[1]", "annotation of an image that its file does not list"),
        ("panoptic.json: annotations[2]", "second annotation of an image"),
        ("panoptic.json: annotations[3]", "annotation without image_id and segments_info"),
    ]
    assert found.layout.notices[1:] == (
        "1 of 6 images on disk are in no annotation file and are left out (images/more.jpg)",
        "6 of 6 PNG files of panoptic/ are in no annotation file and are left out (panoptic/a.png, …)",
    )


def test_sizes_must_agree_and_masks_are_rotated_with_their_image(tmp_path):
    plain = document()
    plain["images"][0]["height"] = 7
    assert problems_of(find(write_dataset(tmp_path / "json", plain))) == [
        ("panoptic/a.png", "PNG mask of another size than in panoptic.json")
    ]
    write_dataset(tmp_path / "image", document())
    full_image(tmp_path / "image/images/a.jpg", (6, 9))
    with pytest.raises(PairingError, match=r"a.png: expected 6×9 pixels, the height and width of a.jpg, found 6×8"):
        class_map(tmp_path / "image")
    write_dataset(tmp_path / "rotated", document())
    full_image(tmp_path / "rotated/images/a.jpg", SIZE, 6)
    np.testing.assert_array_equal(class_map(tmp_path / "rotated") == "grass", apply_orientation(numbers() == GRASS, 6))


def test_an_unreadable_png_is_a_problem_and_names_are_not_paths(tmp_path):
    write_dataset(tmp_path, document("a", "b", "c"))
    (tmp_path / "panoptic/a.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    secret = write_png(tmp_path / "secret/b.png", numbers())
    plain = document("a", "b", "c")
    plain["annotations"][1]["file_name"] = str(secret)
    plain["annotations"][2]["file_name"] = "../secret/c.png"
    (tmp_path / "panoptic.json").write_text(json.dumps(plain))
    found = find(tmp_path)
    (problem,) = problems_of(found)
    assert problem[0] == f"{tmp_path}/panoptic/a.png"
    assert problem[1].startswith("expected a complete PNG, found one that ")
    assert {record.mask for record in records(found)} == {tmp_path / "panoptic/b.png", tmp_path / "panoptic/c.png"}


@pytest.mark.parametrize(
    ("change", "kind", "message"),
    [
        ({"images": 3}, MaskError, "expected a list of images, found a int"),
        ({"categories": []}, LabelsError, "expected the classes, found none"),
        ({"annotations": {"segments_info": 1}}, MaskError, "expected a list of annotations, found a dict"),
    ],
)
def test_malformed_files_are_errors(tmp_path, change, kind, message):
    write_dataset(tmp_path, document())
    (tmp_path / "panoptic.json").write_text(json.dumps(document() | change | {"segments_info": 0}))
    with pytest.raises(kind, match=message):
        find(tmp_path)
    (tmp_path / "panoptic.json").write_text("{}")
    with pytest.raises(
        DataError, match="expected a JSON file with images, categories, and annotations with segments_info"
    ):
        find(tmp_path, format="coco-panoptic")


JUNK = st.sampled_from([None, [], {}, "", "x", -1, 0, 1.5, True, [[]], [None], {"id": 1}, 10**30, float("nan")])


def paths_in(plain, path=()):
    yield path
    children = plain.items() if isinstance(plain, dict) else enumerate(plain) if isinstance(plain, list) else ()
    for key, value in children:
        yield from paths_in(value, (*path, key))


@settings(max_examples=120, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.data())
def test_junk_anywhere_in_a_file_is_read_or_rejected(tmp_path_factory, data):
    root = write_dataset(tmp_path_factory.mktemp("set"), document())
    broken = document()
    *above, key = data.draw(st.sampled_from(list(paths_in(broken))[1:]))
    holder = broken
    for step in above:
        holder = holder[step]
    holder[key] = data.draw(JUNK)
    (root / "panoptic.json").write_text(json.dumps(broken))
    try:
        config = NO_SPLIT | {"format": "coco-panoptic", "skip_bad": True}
        (split,) = open_data(DataConfig.model_validate(config), root)
        assert split.read(0).mask.shape == SIZE
    except PixelwiseError as error:
        assert error.do  # noqa: PT017 - both outcomes are valid


def test_sources_can_be_pickled_and_their_digest_covers_png_and_classes(tmp_path):
    write_dataset(tmp_path, document())
    found = find(tmp_path)
    source = records(found)[0].source
    copied = pickle.loads(pickle.dumps(source))
    np.testing.assert_array_equal(copied.draw(found.labels, SIZE), source.draw(found.labels, SIZE))
    first = source.digest()
    assert copied.digest() == first
    plain = document()
    plain["annotations"][0]["segments_info"].reverse()
    (tmp_path / "panoptic.json").write_text(json.dumps(plain))
    assert records(find(tmp_path))[0].source.digest() == first
    plain["annotations"][0]["segments_info"][0]["category_id"] = 193
    (tmp_path / "panoptic.json").write_text(json.dumps(plain))
    assert records(find(tmp_path))[0].source.digest() != first
    assert records(find(tmp_path, unlabelled="grass"))[0].source.digest() != first
    ids = numbers()
    ids[0, 0] = GRASS
    write_png(tmp_path / "panoptic/a.png", ids)
    (tmp_path / "panoptic.json").write_text(json.dumps(document()))
    assert records(find(tmp_path))[0].source.digest() != first


# Writing --------------------------------------------------------------------------------------------------------------


def test_written_segments_are_objects_and_other_classes(tmp_path):
    labels = Labels(("background", "nucleus", "tissue"), (0, 7, 3), countable=(False, True, False))
    rng = np.random.default_rng(0)
    masks = {
        f"{split}/{name}": np.kron(rng.choice([0, 1, 2, 255], (6, 8), p=[0.4, 0.3, 0.2, 0.1]), np.ones((4, 4), int))
        for split, name in (("train", "a"), ("train", "x/a"), ("val", "a"))
    }
    for name, mask in masks.items():
        full_image(tmp_path / "in" / f"{name.replace('/', '/images/', 1)}.png", mask.shape)
        target = tmp_path / "in" / f"{name.replace('/', '/masks/', 1)}.png"
        target.parent.mkdir(parents=True, exist_ok=True)
        write_mask(target, mask.astype(np.uint8), labels)
    splits = open_data(DataConfig.model_validate(NO_SPLIT | {"labels": labels.to_dict()}), tmp_path / "in")
    out = tmp_path / "out"
    out.mkdir()
    done = convert(splits, FORMATS["coco-panoptic"], out)
    assert (done.images, done.changed_pixels, done.loses) == (3, 0, "")
    assert find_format(DatasetRoot(out, out, DataConfig()))[0].name == "coco-panoptic"
    back = find(out)
    assert (back.labels.names, back.labels.ids) == (labels.names, labels.ids)
    assert (back.labels.countable, back.labels.colours) == (labels.countable, labels.colours)
    for split, count in (("train", 2), ("val", 1)):
        plain = json.loads((out / f"annotations/panoptic_{split}.json").read_text())
        assert len(plain["annotations"]) == len(plain["images"]) == count
        for image, one in zip(plain["images"], plain["annotations"], strict=True):
            mask = masks[f"{split}/{Path(image['file_name']).with_suffix('').as_posix()}"]
            rgb = np.asarray(Image.open(out / f"annotations/panoptic_{split}" / one["file_name"])).astype(int)
            ids = rgb @ np.array([1, 256, 65536])
            assert sorted(segment["id"] for segment in one["segments_info"]) == np.unique(ids[ids > 0]).tolist()
            np.testing.assert_array_equal(ids == 0, mask == 255)
            for segment in one["segments_info"]:
                pixels = ids == segment["id"]
                assert (labels.ids[mask[pixels][0]], len(np.unique(mask[pixels]))) == (segment["category_id"], 1)
                rows, columns = ndimage.find_objects(pixels.astype(int))[0]
                box = [columns.start, rows.start, columns.stop - columns.start, rows.stop - rows.start]
                assert (segment["area"], segment["bbox"]) == (pixels.sum(), box)
            counts = [sum(segment["category_id"] == i for segment in one["segments_info"]) for i in (0, 7, 3)]
            assert counts == [1, ndimage.label(mask == 1)[1], 1]


def test_more_segments_than_one_colour_band_holds(tmp_path):
    labels = Labels(("background", "dot"), countable=(False, True))
    mask = np.zeros((60, 60), np.uint8)
    mask[::2, ::2] = 1  # 900 dots
    full_image(tmp_path / "in/images/a.png", mask.shape)
    (tmp_path / "in/masks").mkdir()
    write_mask(tmp_path / "in/masks/a.png", mask, labels)
    splits = open_data(DataConfig.model_validate(NO_SPLIT | {"labels": labels.to_dict()}), tmp_path / "in")
    (tmp_path / "out").mkdir()
    assert convert(splits, FORMATS["coco-panoptic"], tmp_path / "out").changed_pixels == 0
    plain = json.loads((tmp_path / "out/annotations/panoptic_train.json").read_text())
    assert sorted(segment["id"] for segment in plain["annotations"][0]["segments_info"]) == list(range(1, 902))
