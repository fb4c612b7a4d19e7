"""Shapes on images with an EXIF orientation: whether they were drawn before or after it is proved by the shapes themselves.

The oracle draws on the upright image with Pillow. Annotations are written by hand in each format, with the stored or the
upright size, and with coordinates on the stored or on the upright image.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageOps

from pixelwise.config import DataConfig
from pixelwise.datasets.dataset import DataSplits, open_data
from pixelwise.formats.reading import image_orientation, mask_header, mask_orientation
from pixelwise.imageio.images import read_image

STORED = (48, 64)  # (H, W) of the file
Boxes = list[tuple[int, int, int, int]]  # left, top, right, bottom
Write = Callable[[Path, list[str], list[Boxes], tuple[int, int]], dict[str, Any]]
# Each box is read on the image before or after rotation; the far ones fit only into one of the two frames.
LOW: Boxes = [(5, 50, 25, 62)]  # below the stored frame
RIGHT: Boxes = [(50, 4, 62, 20)]  # right of the upright frame, if that is turned
NEAR: Boxes = [(8, 6, 30, 20), (20, 30, 40, 40)]


def corners(box: tuple[int, int, int, int]) -> list[tuple[int, int]]:
    left, top, right, bottom = box
    return [(left, top), (right, top), (right, bottom), (left, bottom)]


def coco(root: Path, names: list[str], boxes: list[Boxes], size: tuple[int, int]) -> dict[str, Any]:
    images = [{"id": k, "file_name": name, "height": size[0], "width": size[1]} for k, name in enumerate(names)]
    shapes = [
        {
            "id": 10 * k + n,
            "image_id": k,
            "category_id": 1,
            "segmentation": [[float(v) for xy in corners(box) for v in xy]],
        }
        for k, own in enumerate(boxes)
        for n, box in enumerate(own)
    ]
    plain = {"images": images, "annotations": shapes, "categories": [{"id": 1, "name": "car"}]}
    (root / "instances.json").write_text(json.dumps(plain))
    return {}


def labelme(root: Path, names: list[str], boxes: list[Boxes], size: tuple[int, int]) -> dict[str, Any]:
    for name, own in zip(names, boxes, strict=True):
        shapes = [{"label": "car", "points": corners(box), "shape_type": "polygon"} for box in own]
        plain = {"shapes": shapes, "imagePath": name, "imageHeight": size[0], "imageWidth": size[1]}
        (root / name).with_suffix(".json").write_text(json.dumps(plain))
    return {}


def cvat(root: Path, names: list[str], boxes: list[Boxes], size: tuple[int, int], mask: bool = False) -> dict[str, Any]:
    lines = ["<annotations><version>1.1</version>"]
    for k, (name, own) in enumerate(zip(names, boxes, strict=True)):
        lines.append(f'<image id="{k}" name="{name}" width="{size[1]}" height="{size[0]}">')
        for left, top, right, bottom in own:
            box = f'xtl="{left}" ytl="{top}" xbr="{right}" ybr="{bottom}"'
            rle = f'left="{left}" top="{top}" width="{right - left}" height="{bottom - top}"'
            rle += f' rle="0, {(right - left) * (bottom - top)}"'
            lines.append(f'<mask label="car" {rle}/>' if mask else f'<box label="car" {box}/>')
        lines.append("</image>")
    (root / "annotations.xml").write_text("".join([*lines, "</annotations>"]))
    return {}


def cvat_masks(root: Path, names: list[str], boxes: list[Boxes], size: tuple[int, int]) -> dict[str, Any]:
    return cvat(root, names, boxes, size, mask=True)


def label_studio(root: Path, names: list[str], boxes: list[Boxes], size: tuple[int, int]) -> dict[str, Any]:
    tasks = []
    for k, (name, own) in enumerate(zip(names, boxes, strict=True)):
        results = [
            {"id": f"{k}_{n}", "type": "polygonlabels", "original_width": size[1], "original_height": size[0],
             "value": {"points": (np.array(corners(box)) * 100 / size[::-1]).tolist(), "polygonlabels": ["car"]}}
            for n, box in enumerate(own)
        ]  # fmt: skip
        tasks.append({"id": k, "data": {"image": name}, "annotations": [{"id": k, "result": results}]})
    (root / "tasks.json").write_text(json.dumps(tasks))
    return {}


WRITERS: list[Write] = [coco, labelme, cvat, cvat_masks, label_studio]
SIZED = pytest.mark.parametrize("write", WRITERS)


def photos(root: Path, *orientations: int) -> list[str]:
    for k, orientation in enumerate(orientations):
        exif = Image.Exif()
        exif[0x0112] = orientation
        pixels = np.random.default_rng(k).integers(0, 255, (*STORED, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(root / f"p{k}.jpg", exif=exif)
    return [f"p{k}.jpg" for k in range(len(orientations))]


def oracle(path: Path, boxes: Boxes, *, before: bool) -> NDArray[np.bool_]:
    """Draw on the image as it is stored, and turn the drawing as Pillow turns the image; or draw on the upright image."""
    with Image.open(path) as image:
        turned = ImageOps.exif_transpose(image)
        canvas = Image.new("L", image.size if before else turned.size)
        for left, top, right, bottom in boxes:
            ImageDraw.Draw(canvas).rectangle((left, top, right - 1, bottom - 1), fill=1)
        if before:
            canvas.info["exif"] = image.info["exif"]
            canvas.getexif()[0x0112] = image.getexif()[0x0112]
            canvas = ImageOps.exif_transpose(canvas)
        assert canvas.size == turned.size
        return np.asarray(canvas) > 0


def opened(root: Path, **config: Any) -> DataSplits:
    return open_data(DataConfig.model_validate({"split": {"val": 0, "test": 0}, **config}), root)


def masks(splits: DataSplits) -> list[NDArray[np.bool_]]:
    (split,) = splits
    found = []
    for index in range(len(split)):
        sample = split.read(index)
        assert sample.mask is not None
        found.append(sample.mask == split.labels.names.index("car"))
    return found


@SIZED
@pytest.mark.parametrize("noted", ["stored", "upright"])
@pytest.mark.parametrize("before", [False, True], ids=["drawn upright", "drawn on the stored image"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_points_beyond_a_frame_prove_how_shapes_were_drawn(
    tmp_path: Path, orientation: int, before: bool, noted: str, write: Write
) -> None:
    names = photos(tmp_path, orientation, orientation)
    turned = orientation >= 5
    far = RIGHT if before or not turned else LOW
    upright = STORED[::-1] if turned else STORED
    config = write(tmp_path, names, [[*NEAR, *far], NEAR], STORED if noted == "stored" else upright)
    splits = opened(tmp_path, **config)
    if not turned:  # the frames are equal: nothing can be proved, and shapes are used as drawn on the upright image
        before = False
        assert any("no shape shows" in notice for notice in splits.notices) == (orientation != 1)
    for name, mask, boxes in zip(names, masks(splits), [[*NEAR, *far], NEAR], strict=True):
        np.testing.assert_array_equal(mask, oracle(tmp_path / name, boxes, before=before))
    contrary = turned and (noted == "stored") != before
    assert any("reach beyond it" in notice for notice in splits.notices) == contrary


@SIZED
@pytest.mark.parametrize("orientation", range(2, 9))
def test_without_proof_the_noted_size_decides_and_the_doubt_is_reported(
    tmp_path: Path, orientation: int, write: Write
) -> None:
    names = photos(tmp_path, orientation)
    config = write(tmp_path, names, [NEAR], STORED)
    splits = opened(tmp_path, **config)
    before = orientation >= 5
    np.testing.assert_array_equal(masks(splits)[0], oracle(tmp_path / names[0], NEAR, before=before))
    (doubt,) = (notice for notice in splits.notices if "no shape shows whether it was drawn before or after" in notice)
    assert doubt.startswith("1 ")
    assert doubt.endswith("inspect some (p0.jpg)")


@pytest.mark.parametrize("write", [coco, labelme, cvat, label_studio])
def test_the_proof_of_one_image_holds_for_all_images_of_the_tool(tmp_path: Path, write: Write) -> None:
    """Also for images turned by 180 degrees, where the frames are equal; images without EXIF are left alone."""
    names = photos(tmp_path, 6, 8, 3, 1, 5)
    boxes = [[*NEAR, *LOW], NEAR, NEAR, NEAR, NEAR]
    config = write(tmp_path, names, boxes, STORED)
    for name, mask, own in zip(names, masks(opened(tmp_path, **config)), boxes, strict=True):
        np.testing.assert_array_equal(mask, oracle(tmp_path / name, own, before=False))


@pytest.mark.parametrize("write", [coco, labelme, cvat, label_studio])
def test_a_tool_that_shows_stored_images_does_so_for_all(tmp_path: Path, write: Write) -> None:
    names = photos(tmp_path, 6, 3, 1)
    boxes = [[*NEAR, *RIGHT], NEAR, NEAR]
    config = write(tmp_path, names, boxes, STORED)
    splits = opened(tmp_path, **config)
    for name, mask, own in zip(names, masks(splits), boxes, strict=True):
        np.testing.assert_array_equal(mask, oracle(tmp_path / name, own, before=True))
    (split,) = splits
    assert [mask_orientation(record, mask_header(record)) for record in split.records] == [6, 3, 1]
    assert [image_orientation(record) for record in split.records] == [6, 3, 1]


@pytest.mark.parametrize("noted", [STORED, STORED[::-1], None])
@pytest.mark.parametrize("before", [False, True])
@pytest.mark.parametrize("orientation", range(5, 9))
def test_run_lengths_have_the_size_of_the_image_on_which_they_were_drawn(
    tmp_path: Path, orientation: int, before: bool, noted: tuple[int, int] | None
) -> None:
    names = photos(tmp_path, orientation)
    coco(tmp_path, names, [NEAR], noted or (0, 0))
    plain = json.loads((tmp_path / "instances.json").read_text())
    for shape, (left, top, right, bottom) in zip(plain["annotations"], NEAR, strict=True):
        mask = np.zeros(STORED if before else STORED[::-1], bool)
        mask[top:bottom, left:right] = True
        ends = np.flatnonzero(np.diff(np.concatenate([[False], mask.T.reshape(-1)])))
        runs = np.diff(np.append(ends, mask.size), prepend=0).tolist()
        shape["segmentation"] = {"size": list(mask.shape), "counts": runs}
    (tmp_path / "instances.json").write_text(json.dumps(plain))
    np.testing.assert_array_equal(masks(opened(tmp_path))[0], oracle(tmp_path / "p0.jpg", NEAR, before=before))


def test_points_slightly_outside_prove_nothing(tmp_path: Path) -> None:
    names = photos(tmp_path, 6)
    coco(tmp_path, names, [[(8, 6, 30, 49)]], STORED)
    np.testing.assert_array_equal(
        masks(opened(tmp_path))[0], oracle(tmp_path / "p0.jpg", [(8, 6, 30, 48)], before=True)
    )


def test_fractions_are_those_of_the_upright_image(tmp_path: Path) -> None:
    """YOLO notes no size; a note says that images with an EXIF orientation should be inspected."""
    (name,) = photos(tmp_path, 6)
    points = " ".join(f"{x / STORED[0]:.6f} {y / STORED[1]:.6f}" for x, y in corners(NEAR[0]))
    (tmp_path / "p0.txt").write_text(f"0 {points}\n")
    (tmp_path / "classes.txt").write_text("car\n")
    splits = opened(tmp_path)
    np.testing.assert_array_equal(masks(splits)[0], oracle(tmp_path / name, NEAR[:1], before=False))
    assert any("used as drawn after it; inspect some (p0.jpg)" in notice for notice in splits.notices)


def test_the_oracle_turns_drawings_like_images(tmp_path: Path) -> None:
    for orientation in range(1, 9):
        (name,) = photos(tmp_path, orientation)
        image = read_image(tmp_path / name)[0]
        assert image.shape[1:] == oracle(tmp_path / name, NEAR, before=True).shape
