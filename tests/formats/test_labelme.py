"""LabelMe: all shape types, paths from other machines, rotated images, and malformed files."""

from __future__ import annotations

import base64
import io
import json
import math
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pixelwise.config import DataConfig
from pixelwise.datasets.dataset import open_data
from pixelwise.errors import MaskError, PairingError
from pixelwise.formats import find_format, read_place
from pixelwise.formats.dataset_root import Place

SIZE = (40, 60)


def png(mask: np.ndarray) -> str:
    buffer = io.BytesIO()
    Image.fromarray(mask.astype(np.uint8) * 255).save(buffer, "PNG")
    return base64.b64encode(buffer.getvalue()).decode()


def shape(label, points, kind="polygon", **more):
    return {"label": label, "points": points, "group_id": None, "shape_type": kind, "flags": {}, **more}


def write(folder: Path, name: str, shapes, *, size=SIZE, image_file=True, path=None, exif=None, **changes) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    if image_file:
        image = Image.new("RGB", size[::-1])
        tags = Image.Exif()
        if exif:
            tags[0x0112] = exif
        image.save(folder / f"{name}.jpg", exif=tags)
    plain = {
        "version": "5.4.1", "flags": {}, "shapes": shapes, "imagePath": path or f"{name}.jpg", "imageData": None,
        "imageHeight": size[0], "imageWidth": size[1],
    }  # fmt: skip
    (folder / f"{name}.json").write_text(json.dumps(plain | changes))


def masks(folder: Path, **config) -> dict[str, np.ndarray]:
    """Return the masks as class names, by record id."""
    section = DataConfig.model_validate({"split": {"val": 0, "test": 0}, **config})
    splits = open_data(section, folder)
    names = np.array([*splits.labels.names, *["?"] * (256 - splits.labels.num_classes)])
    return {record.id: names[split.read(k).mask] for split in splits for k, record in enumerate(split.records)}


def test_detection(tmp_path):
    write(tmp_path, "a", [shape("cat", [[0, 0], [9, 0], [9, 9]])])
    kind, why = find_format(Place(tmp_path, tmp_path, DataConfig()))
    assert (kind.name, why) == ("labelme", "a.json has shapes and imagePath")


def test_rectangles_and_polygons_cover_pixels_with_their_centre_inside(tmp_path):
    square = [[10.2, 5.4], [19.7, 5.4], [19.7, 14.6], [10.2, 14.6]]
    write(tmp_path, "a", [shape("box", [[30, 20], [20, 10]], "rectangle"), shape("poly", square)])
    mask = masks(tmp_path)["a"]
    assert (mask[10:20, 20:30] == "box").all()
    assert (mask == "box").sum() == 100
    assert (mask[5:15, 10:20] == "poly").all()
    assert (mask == "poly").sum() == 100


@pytest.mark.parametrize("kind", ["rectangle", "oriented_rectangle", "rotation"])
def test_rotated_rectangles_have_four_corners(tmp_path, kind):
    write(tmp_path, "a", [shape("box", [[30, 10], [40, 20], [30, 30], [20, 20]], kind, direction=0.785)])
    mask = masks(tmp_path)["a"]
    assert (mask == "box").sum() == pytest.approx(200, abs=12)
    assert mask[20, 30] == "box"
    assert mask[11, 21] == "background"


def test_a_circle_is_its_centre_and_a_point_on_it(tmp_path):
    write(tmp_path, "a", [shape("disc", [[30, 20], [30, 8]], "circle")])
    assert (masks(tmp_path)["a"] == "disc").sum() == pytest.approx(math.pi * 144, rel=0.02)


def test_points_and_lines_have_the_width_of_labelmes_export(tmp_path):
    shapes = [shape("dot", [[10, 10]], "point"), shape("line", [[20, 30], [50, 30]], "line")]
    write(tmp_path, "a", [*shapes, shape("bend", [[30, 5], [50, 5], [50, 15]], "linestrip")])
    mask = masks(tmp_path)["a"]
    assert (mask == "dot").sum() == pytest.approx(math.pi * 25, rel=0.08)
    assert (mask[25:35, 20:50] == "line").all()
    assert (mask == "line").sum() == 300
    assert (mask[0:10, 30:50] == "bend").all()
    assert (mask[5:15, 45:55] == "bend").all()


def test_masks_are_placed_in_their_box(tmp_path):
    inner = np.random.default_rng(0).random((8, 12)) > 0.5
    write(tmp_path, "a", [shape("blob", [[7, 3], [18, 10]], "mask", mask=png(inner))])
    np.testing.assert_array_equal(masks(tmp_path)["a"][3:11, 7:19] == "blob", inner)


def test_later_shapes_are_on_top_unless_overlap_is_area(tmp_path):
    small, large = [[10, 10], [20, 20]], [[5, 5], [40, 30]]
    write(tmp_path, "a", [shape("small", small, "rectangle"), shape("large", large, "rectangle")])
    assert (masks(tmp_path)["a"] == "small").sum() == 0
    assert (masks(tmp_path, overlap="area")["a"] == "small").sum() == 100


def test_ignored_and_unlabelled_pixels(tmp_path):
    write(
        tmp_path,
        "a",
        [
            shape("cat", [[0, 0], [30, 40]], "rectangle"),
            shape("dog", [[40, 0], [50, 40]], "rectangle"),
            shape("__ignore__", [[0, 0], [9, 9]], "rectangle"),
        ],
    )
    mask = masks(tmp_path)["a"]
    assert set(np.unique(mask)) == {"background", "cat", "dog", "?"}
    assert (mask[:9, :9] == "?").all()
    assert set(np.unique(masks(tmp_path, unlabelled="ignore")["a"])) == {"cat", "dog", "?"}
    assert set(np.unique(masks(tmp_path, ignored=["cat"])["a"])) == {"background", "dog", "?"}


def test_labels_txt_sets_the_class_order(tmp_path):
    write(tmp_path, "a", [shape("ant", [[0, 0], [9, 9]], "rectangle"), shape("zebra", [[20, 0], [29, 9]], "rectangle")])
    (tmp_path / "labels.txt").write_text("__ignore__\n_background_\nzebra\nant\n")
    labels = open_data(DataConfig.model_validate({"split": {"val": 0, "test": 0}}), tmp_path).labels
    assert labels.names == ("_background_", "zebra", "ant")
    assert labels.countable == (False, True, True)


@pytest.mark.parametrize("path", [r"C:\shots\a.jpg", "../images/a.jpg", "/home/her/a.jpg", "gone.jpg"])
def test_paths_from_other_machines_and_renamed_images(tmp_path, path):
    write(tmp_path, "a", [shape("cat", [[0, 0], [9, 9]], "rectangle")], path=path)
    assert (masks(tmp_path)["a"] == "cat").sum() == 81


@pytest.mark.parametrize("stored_size", ["upright", "unrotated"])
def test_masks_of_rotated_images_are_upright(tmp_path, stored_size):
    """The image is 40×60 as stored and 60×40 as shown (EXIF orientation 6)."""
    if stored_size == "upright":
        box, size = [[0, 0], [10, 5]], (60, 40)
    else:
        box, size = [[0, 30], [5, 40]], (40, 60)
    write(tmp_path, "a", [shape("cat", box, "rectangle")], exif=6, imageHeight=size[0], imageWidth=size[1])
    mask = masks(tmp_path)["a"]
    assert mask.shape == (60, 40)
    assert (mask[:5, :10] == "cat").all()
    assert (mask == "cat").sum() == 50


def test_splits_come_from_folders_not_from_file_names(tmp_path):
    for split in ("train", "valid"):
        write(tmp_path / split, "test_1", [shape("cat", [[0, 0], [9, 9]], "rectangle")])
    splits = open_data(DataConfig(), tmp_path)
    assert {split.name: len(split) for split in splits} == {"train": 1, "val": 1}


def test_splits_come_from_annotation_folders_if_images_share_one(tmp_path):
    for split, name in (("train", "a"), ("val", "b")):
        write(tmp_path / split, name, [shape("cat", [[0, 0], [9, 9]], "rectangle")], image_file=False)
        (tmp_path / "images").mkdir(exist_ok=True)
        Image.new("RGB", SIZE[::-1]).save(tmp_path / "images" / f"{name}.jpg")
    splits = open_data(DataConfig(), tmp_path)
    assert {split.name: [record.id for record in split.records] for split in splits} == {
        "train": ["images/a"],
        "val": ["images/b"],
    }


def test_ids_of_images_outside_the_root(tmp_path):
    write(tmp_path / "set", "a", [shape("cat", [[0, 0], [9, 9]], "rectangle")], image_file=False)
    (tmp_path / "outside").mkdir()
    Image.new("RGB", SIZE[::-1]).save(tmp_path / "outside" / "a.jpg")
    config = DataConfig.model_validate({"format": "labelme", "images": str(tmp_path / "outside")})
    layout = read_place(config, tmp_path / "set", tmp_path / "set")[1].layout
    assert [record.id for record in layout.splits["pool"]] == ["a"]


def test_embedded_images_are_not_kept_in_memory(tmp_path):
    for number in range(20):
        shapes = [shape("cat", [[0, 0], [9, 9]], "rectangle")]
        write(tmp_path, f"p{number}", shapes, imageData="A" * 1_000_000)
    tracemalloc.start()
    layout = read_place(DataConfig(format="labelme"), tmp_path, tmp_path)[1].layout
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(layout.splits["pool"]) == 20
    assert peak < 10_000_000


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (shape("cat", [[0, 0], [9, 9]]), r"found a malformed polygon \(2 points\)"),
        (shape("cat", [[0, math.nan], [9, 9], [9, 0]]), "coordinates that are not finite"),
        (shape("cat", [[0, 0]], "rectangle"), "found a malformed rectangle"),
        (
            shape("cat", [[0, 0]] * 3, "rotation"),
            r"found a malformed rotation \(3 points\)\. Draw it again, or",
        ),
        (shape("cat", [[0, 0, 1], [9, 0, 1], [9, 9, 1], [0, 9, 1]]), "points that are not pairs x, y"),
        (shape("cat", [[0, 10**400], [9, 9], [9, 0]]), "int too large to convert to float"),
        (shape("cat", [[0, 0], [9, 9]], "mask", mask="!!!"), "found a malformed mask"),
        (shape("cat", [[0, 0], [9, 9]], "mask", mask=base64.b64encode(b"GIF89a").decode()), "found a malformed mask"),
        (shape("cat", [[0, 0], [9, 9]], "blob"), "expected polygon, rectangle, .*, found shape_type 'blob'"),
        (shape("cat", "nonsense"), "found a malformed polygon"),
        (shape(None, [[0, 0], [9, 9], [0, 9]]), "expected shapes with a label"),
        ("text", "expected shapes with a label"),
    ],
)
def test_malformed_shapes_are_errors_and_can_be_skipped(tmp_path, bad, message):
    write(tmp_path, "a", [shape("cat", [[0, 0], [9, 9]], "rectangle")])
    write(tmp_path, "b", [bad])
    with pytest.raises(MaskError, match=rf"b\.json: .*{message}"):
        masks(tmp_path)
    assert list(masks(tmp_path, skip_bad=True)) == ["a"]


def test_malformed_json_is_an_error(tmp_path):
    write(tmp_path, "a", [shape("cat", [[0, 0], [9, 9]], "rectangle")])
    write(tmp_path, "b", [])
    (tmp_path / "b.json").write_text('{"shapes": [')
    with pytest.raises(MaskError, match=r"b\.json: expected a JSON file, found .*line 1"):
        masks(tmp_path)


def test_unmatched_images_and_annotations_are_problems(tmp_path):
    write(tmp_path, "a", [shape("cat", [[0, 0], [9, 9]], "rectangle")])
    write(tmp_path, "b", [shape("cat", [[0, 0], [9, 9]], "rectangle")], image_file=False, imageData="aGk=")
    Image.new("RGB", (4, 4)).save(tmp_path / "c.png")
    with pytest.raises(PairingError) as error:
        masks(tmp_path)
    assert "no such image; save the image in imageData to a file): 1 (b.json)" in str(error.value)
    assert "image without a mask: 1 (c.png)" in str(error.value)
    (tmp_path / "c.png").unlink()
    write(tmp_path, "d", [], image_file=False, path="a.jpg")
    with pytest.raises(PairingError, match=r"second annotation of a\.jpg \(also a\.json\): 1 \(d\.json\)"):
        masks(tmp_path)


def test_a_mask_of_another_size_than_its_image_is_an_error(tmp_path):
    write(tmp_path, "a", [shape("cat", [[0, 0], [9, 9]], "rectangle")], imageHeight=41)
    with pytest.raises(
        PairingError, match=r"a\.json: expected 40×60 pixels, the height and width of a\.jpg, found 41×60"
    ):
        masks(tmp_path)


def test_a_missing_size_is_taken_from_the_image(tmp_path):
    write(tmp_path, "a", [shape("cat", [[0, 0], [9, 9]], "rectangle")], imageHeight=None, imageWidth=None)
    assert masks(tmp_path)["a"].shape == SIZE
