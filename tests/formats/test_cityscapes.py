"""Cityscapes: choice of files, classes of labels, and polygons as in the published script."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image, ImageDraw
from scipy import ndimage

from pixelwise.config import DataConfig
from pixelwise.datasets.dataset import DataSplits, open_data
from pixelwise.errors import DataError, LabelsError, MaskError, PairingError
from pixelwise.formats import find_format
from pixelwise.formats.cityscapes import evaluated, read_table
from pixelwise.formats.dataset_root import DatasetRoot
from pixelwise.imageio.masks import write_mask

# What cityscapesScripts prints for the evaluated labels: id and trainId, by name.
EVALUATED = {
    "road": (7, 0), "sidewalk": (8, 1), "building": (11, 2), "wall": (12, 3), "fence": (13, 4), "pole": (17, 5),
    "traffic light": (19, 6), "traffic sign": (20, 7), "vegetation": (21, 8), "terrain": (22, 9), "sky": (23, 10),
    "person": (24, 11), "rider": (25, 12), "car": (26, 13), "truck": (27, 14), "bus": (28, 15), "train": (31, 16),
    "motorcycle": (32, 17), "bicycle": (33, 18),
}  # fmt: skip
ALL_IDS = np.arange(34, dtype=np.uint8).reshape(2, 17)
TRAIN_IDS = np.full(34, 255, np.uint8)
for _id, _train in EVALUATED.values():
    TRAIN_IDS[_id] = _train


def put(
    root: Path, key: str, truth: np.ndarray | dict[str, Any], kind: str = "labelIds", ground: str = "gtFine"
) -> Path:
    """Write an image, and one of its annotations, where Cityscapes has them."""
    image = root / "leftImg8bit" / f"{key}_leftImg8bit.png"
    path = root / ground / f"{key}_{ground}_{kind}{'.json' if isinstance(truth, dict) else '.png'}"
    for each in (image, path):
        each.parent.mkdir(parents=True, exist_ok=True)
    size = (truth["imgHeight"], truth["imgWidth"]) if isinstance(truth, dict) else truth.shape[:2]
    Image.fromarray(np.zeros((*size, 3), np.uint8)).save(image)
    if isinstance(truth, dict):
        path.write_text(json.dumps(truth))
    else:
        Image.fromarray(truth).save(path)
    return path


def polygons(*objects: dict[str, Any], size: tuple[int, int] = (20, 30)) -> dict[str, Any]:
    return {"imgHeight": size[0], "imgWidth": size[1], "objects": list(objects)}


def box(label: str, x0: float, y0: float, x1: float, y1: float, **more: Any) -> dict[str, Any]:
    return {"label": label, "polygon": [[x0, y0], [x1, y0], [x1, y1], [x0, y1]], **more}


def opened(root: Path, **config: Any) -> DataSplits:
    return open_data(DataConfig.model_validate({"split": {"val": 0, "test": 0}, **config}), root)


def mask(root: Path, **config: Any) -> np.ndarray:
    train = opened(root, **config).train
    assert train is not None
    read = train.read(0).mask
    assert read is not None
    return read


def test_the_table_holds_the_labels_as_published() -> None:
    table = read_table()
    assert [each.id for each in table] == [*range(34), -1]
    assert {each.name: (each.id, each.train_id) for each in table if each.counts} == EVALUATED
    assert [each.name for each in table if each.countable] == [
        "person", "rider", "car", "truck", "bus", "caravan", "trailer", "train", "motorcycle", "bicycle"
    ]  # fmt: skip
    assert evaluated().colours[:2] == ((128, 64, 128), (244, 35, 232))
    assert len(set(evaluated().colours)) == 19


def test_label_ids_become_the_nineteen_classes_and_every_other_is_ignored(tmp_path: Path) -> None:
    put(tmp_path, "train/aachen/aachen_000000_000019", ALL_IDS)
    splits = opened(tmp_path)
    assert splits.description["format"] == "cityscapes"
    assert splits.labels.names == tuple(EVALUATED)
    assert splits.labels.ids == tuple(pair[0] for pair in EVALUATED.values())
    np.testing.assert_array_equal(mask(tmp_path), TRAIN_IDS[ALL_IDS])
    assert "19 of Cityscapes' 35 labels are classes; the others are ignored" in splits.notices


def test_splits_and_cities_are_kept_and_the_better_file_is_used(tmp_path: Path) -> None:
    road, sky = np.full((2, 2), 7, np.uint8), np.full((2, 2), 23, np.uint8)
    put(tmp_path, "train/aachen/aachen_000000_000019", road)
    put(tmp_path, "train/aachen/aachen_000000_000019", TRAIN_IDS[sky], "labelTrainIds")
    put(tmp_path, "train/aachen/aachen_000000_000019", sky, ground="gtCoarse")
    put(tmp_path, "train/aachen/aachen_000000_000019", np.zeros((2, 2, 3), np.uint8), "color")
    put(tmp_path, "train/aachen/aachen_000000_000019", np.full((2, 2), 7001, np.uint16), "instanceIds")
    put(tmp_path, "train_extra/nuernberg/nuernberg_000000_000000", sky, ground="gtCoarse")
    put(tmp_path, "val/lindau/lindau_000000_000019", sky)
    put(tmp_path, "test/berlin/berlin_000000_000019", np.full((2, 2), 3, np.uint8))
    splits = opened(tmp_path)
    ids = {split.name: [record.id for record in split.records] for split in splits}
    assert ids == {
        "train": ["train/aachen/aachen_000000_000019", "train_extra/nuernberg/nuernberg_000000_000000"],
        "val": ["val/lindau/lindau_000000_000019"],
        "test": ["test/berlin/berlin_000000_000019"],
    }
    assert splits.train
    assert splits.test
    assert splits.train.read(0).mask.tolist() == [[0, 0], [0, 0]]
    assert splits.train.read(1).mask.tolist() == [[10, 10], [10, 10]]
    # The masks of the public test split are "out of roi" and similar: all ignored.
    assert (splits.test.read(0).mask == splits.labels.ignore_index).all()


def test_train_ids_are_read_where_no_label_ids_are(tmp_path: Path) -> None:
    put(tmp_path, "train/a/a_000000_000000", TRAIN_IDS[ALL_IDS], "labelTrainIds")
    splits = opened(tmp_path)
    assert splits.labels.ids == tuple(range(19))
    assert splits.labels.ignore_ids == (255,)
    np.testing.assert_array_equal(mask(tmp_path), TRAIN_IDS[ALL_IDS])
    # Among label ids, train ids would be other classes: such an image has no mask.
    put(tmp_path, "train/b/b_000000_000000", ALL_IDS)
    with pytest.raises(
        PairingError, match=r"image without a mask: 1 \(leftImg8bit/train/a/a_000000_000000_leftImg8bit"
    ):
        opened(tmp_path)


def test_images_and_annotations_without_a_splitner_are_reported(tmp_path: Path) -> None:
    path = put(tmp_path, "train/a/a_000000_000000", ALL_IDS)
    lost = put(tmp_path, "train/a/a_000000_000001", ALL_IDS)
    lost.rename(lost.with_name("a_000000_000002_gtFine_labelIds.png"))
    with pytest.raises(PairingError) as caught:
        opened(tmp_path)
    assert "image without a mask: 1 (leftImg8bit/train/a/a_000000_000001_leftImg8bit.png)" in str(caught.value)
    assert "mask without an image: 1 (gtFine/train/a/a_000000_000002_gtFine_labelIds.png)" in str(caught.value)
    splits = opened(tmp_path, skip_bad=True)
    assert splits.train is not None
    assert [record.mask for record in splits.train.records] == [path]
    assert len(splits.skipped) == 2


def test_frames_of_a_video_beside_the_images_are_left_out_and_reported(tmp_path: Path) -> None:
    put(tmp_path, "train/a/a_000000_000000", ALL_IDS)
    frame = tmp_path / "leftImg8bit_sequence" / "train" / "a" / "a_000000_000001_leftImg8bit.png"
    frame.parent.mkdir(parents=True)
    frame.touch()
    assert "1 images outside leftImg8bit/ are left out" in opened(tmp_path).notices


# Polygons ------------------------------------------------------------------------------------------------------------


def test_polygons_are_drawn_in_file_order_by_the_published_rules(tmp_path: Path) -> None:
    truth = polygons(
        box("road", 0, 0, 30, 20),
        box("cargroup", 0, 0, 10, 10),  # a group of cars are cars
        box("license plate", 2, 2, 4, 4),  # has no id: not drawn, the car stays
        box("sky", 0, 0, 30, 20, deleted=1),
        box("person", 5, 5, 15, 15),  # later shapes are on top
        box("polegroup", 20, 0, 24, 20),  # a label of its own, not evaluated
        box("out of roi", 0, 18, 30, 20),
    )
    put(tmp_path, "train/a/a_000000_000000", truth, "polygons")
    splits, drawn = opened(tmp_path), mask(tmp_path)
    road, car, person, void = (*map(splits.labels.names.index, ("road", "car", "person")), 255)
    assert (drawn[:5, :10] == car).all()
    assert (drawn[5:15, 5:15] == person).all()
    assert (drawn[:18, 20:24] == void).all()
    assert (drawn[18:] == void).all()
    assert (drawn[:18, 24:] == road).all()
    assert "1 of 1 masks are drawn from polygons, since they have no labelIds" in splits.notices


def test_what_no_polygon_covers_is_ignored(tmp_path: Path) -> None:
    put(tmp_path, "train/a/a_000000_000000", polygons(box("road", 0, 0, 5, 5)), "polygons", "gtCoarse")
    drawn = mask(tmp_path)
    assert (drawn[:5, :5] == 0).all()
    assert np.count_nonzero(drawn == 255) == drawn.size - 25


def by_the_makers(truth: dict[str, Any]) -> np.ndarray:
    """Draw as json2labelImg does: Pillow's polygons of ids on 0, unlabeled."""
    image = Image.new("L", (truth["imgWidth"], truth["imgHeight"]), 0)
    ids = {each.name: each.id for each in read_table()}
    for item in truth["objects"]:
        ImageDraw.Draw(image).polygon([tuple(point) for point in item["polygon"]], fill=ids[item["label"]])
    return TRAIN_IDS[np.asarray(image)]


POINTS = st.lists(st.tuples(st.integers(0, 40), st.integers(0, 30)), min_size=3, max_size=7)
OBJECTS = st.lists(st.tuples(st.sampled_from(["road", "sky", "car", "parking"]), POINTS), min_size=1, max_size=5)


@settings(max_examples=60, deadline=None, database=None, suppress_health_check=list(HealthCheck))
@given(OBJECTS)
def test_polygons_differ_from_the_published_script_only_along_contours(tmp_path_factory: Any, objects: Any) -> None:
    root = tmp_path_factory.mktemp("drawn")
    truth = polygons(*({"label": name, "polygon": points} for name, points in objects), size=(31, 41))
    put(root, "train/a/a_000000_000000", truth, "polygons")
    outlines = Image.new("1", (41, 31))
    for _, points in objects:
        ImageDraw.Draw(outlines).line([*points, points[0]], fill=1)
    near = ndimage.binary_dilation(np.asarray(outlines), np.ones((3, 3)))
    assert not ((mask(root) != by_the_makers(truth)) & ~near).any()


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("{", "Expecting property name"),
        ("[]", "found none"),
        ('{"objects": {}}', "found none"),
        ('{"objects": [7]}', "found an object that cannot be read"),
        ('{"objects": [{"polygon": []}]}', "found an object that cannot be read ('label')"),
        ('{"objects": [{"label": "car", "polygon": [[1, 2], [3]]}]}', "found an object that cannot be read"),
        ('{"objects": [{"label": "car", "polygon": [[1, NaN]]}]}', "coordinates that are not finite"),
        ('{"objects": [{"label": "car", "polygon": "x"}]}', "found an object that cannot be read"),
        ("[" * 100_000, "recursion"),
    ],
)
def test_broken_polygons_fail_by_name(tmp_path: Path, text: str, found: str) -> None:
    path = put(tmp_path, "train/a/a_000000_000000", polygons(), "polygons")
    path.write_text(text)
    with pytest.raises(MaskError) as caught:
        opened(tmp_path)
    assert str(caught.value).startswith(f"{path}: expected ")
    assert found in str(caught.value)
    assert str(caught.value).endswith("again.")


def test_an_unknown_label_in_polygons_is_reported_with_the_fix(tmp_path: Path) -> None:
    put(tmp_path, "train/a/a_000000_000000", polygons(box("road", 0, 0, 9, 9), box("tram", 2, 2, 5, 5)), "polygons")
    with pytest.raises(LabelsError, match=r"found 'tram' in 1 image\. Add them, or .* data\.ignored: \[tram\]\."):
        opened(tmp_path)
    assert (mask(tmp_path, ignored=["tram"])[2:5, 2:5] == 255).all()


def test_a_size_other_than_that_of_the_image_is_an_error(tmp_path: Path) -> None:
    path = put(tmp_path, "train/a/a_000000_000000", polygons(box("road", 0, 0, 9, 9)), "polygons")
    path.write_text(json.dumps(polygons(box("road", 0, 0, 9, 9), size=(21, 30))))
    with pytest.raises(PairingError, match="expected 20×30 pixels"):
        opened(tmp_path)


# Mask values ---------------------------------------------------------------------------------------------------------------


def test_palettes_are_read_as_indices_and_16_bits_are_not_truncated(tmp_path: Path) -> None:
    path = put(tmp_path, "train/a/a_000000_000000", ALL_IDS)
    image = Image.fromarray(ALL_IDS)
    image.putpalette(np.random.default_rng(0).integers(0, 256, 768, np.uint8).tobytes())
    image.save(path)
    np.testing.assert_array_equal(mask(tmp_path), TRAIN_IDS[ALL_IDS])
    Image.fromarray(ALL_IDS.astype(np.uint16) + 256).save(path)
    with pytest.raises(MaskError, match="found 256 in 1 pixel, 257 in 1 pixel"):
        mask(tmp_path)


def test_an_id_that_is_none_of_the_labels_is_an_error(tmp_path: Path) -> None:
    put(tmp_path, "train/a/a_000000_000000", np.array([[7, 35], [34, 255]], np.uint8))
    with pytest.raises(MaskError, match=r"expected class ids .*, found 35 in 1 pixel\."):
        mask(tmp_path)


def test_ignored_classes_are_ignored_and_what_is_written_holds_ids_of_the_evaluation_server(
    tmp_path: Path,
) -> None:
    put(tmp_path, "train/a/a_000000_000000", ALL_IDS)
    splits = opened(tmp_path, ignored=["road", "sky"])
    assert splits.labels.num_classes == 17
    assert not {"road", "sky"} & set(splits.labels.names)
    assert (mask(tmp_path, ignored=["road", "sky"])[ALL_IDS == 23] == 255).all()
    labels = opened(tmp_path).labels
    write_mask(tmp_path / "out.png", np.array([[0, 18, labels.ignore_index]], np.uint8), labels)
    assert np.asarray(Image.open(tmp_path / "out.png")).tolist() == [[7, 33, 0]]
    with pytest.raises(LabelsError, match="expected a class that is not ignored"):
        evaluated(tuple(EVALUATED))


def test_own_classes_of_an_export_in_this_layout_are_those_of_its_table(tmp_path: Path) -> None:
    """CVAT's "Cityscapes 1.0": ids are lines of label_colors.txt."""
    put(tmp_path, "default/frame_000000", np.array([[0, 1], [2, 2]], np.uint8))
    (tmp_path / "leftImg8bit").rename(tmp_path / "moved")
    (tmp_path / "imgsFine").mkdir()
    (tmp_path / "moved").rename(tmp_path / "imgsFine" / "leftImg8bit")
    table = "# color_rgb (RGB) label\n0 0 0 background\n128 0 0 crack\n0 128 0 rust\n"
    (tmp_path / "label_colors.txt").write_text(table)
    splits = opened(tmp_path)
    assert splits.labels.names == ("background", "crack", "rust")
    assert splits.labels.colours[1] == (128, 0, 0)
    assert mask(tmp_path).tolist() == [[0, 1], [2, 2]]
    # A table of all Cityscapes labels changes nothing.
    rows = (f"{r} {g} {b} {each.name.replace(' ', '')}" for each in read_table() for r, g, b in [each.colour])
    (tmp_path / "label_colors.txt").write_text("\n".join(rows))
    assert opened(tmp_path).labels.names == tuple(EVALUATED)


def test_names_alone_do_not_make_cityscapes(tmp_path: Path) -> None:
    def name(root: Path) -> str:
        return find_format(DatasetRoot(root, root, DataConfig()))[0].name

    (tmp_path / "a_leftImg8bit.png").touch()
    assert name(tmp_path) == "masks"
    (tmp_path / "a_gtFine_color.png").touch()
    assert name(tmp_path) == "masks"
    (tmp_path / "a_gtFine_labelIds.png").touch()
    assert name(tmp_path) == "cityscapes"
    with pytest.raises(DataError):
        opened(tmp_path)
