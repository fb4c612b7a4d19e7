"""Annotations that cannot be attached never become background: with `skip_bad`, images are left out, or all is refused.

Each format is written by its own writer, one annotation is broken, and what is read is compared with the masks that were
written: every image of the opened data set must have exactly its mask.
"""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import yaml
from affine import Affine
from numpy.typing import NDArray
from PIL import Image

from pixelwise.config import DataConfig
from pixelwise.datasets.convert import convert
from pixelwise.datasets.dataset import open_data
from pixelwise.errors import DataError
from pixelwise.formats import FORMATS
from pixelwise.imageio.masks import write_mask
from pixelwise.labels import Labels

LABELS = Labels(("background", "car", "tree"))
SIZE = (12, 16)
NAMES = ("a", "b", "c", "d")
WRITERS = [name for name, one in FORMATS.items() if one.write is not None]
Masks = dict[str, NDArray[Any]]


def drawn(number: int) -> NDArray[Any]:
    """A mask with three regions, different for each number, so that no annotation fits two images."""
    mask = np.zeros(SIZE, np.uint8)
    mask[1 + number : 5 + number, 1:6] = 1
    mask[7:11, 8 + number : 12 + number] = 2
    mask[0, 12 + number :] = 1
    return mask


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    source = tmp_path_factory.mktemp("source")
    for number, name in enumerate(NAMES):
        for kind in ("images", "masks"):
            (source / kind).mkdir(exist_ok=True)
        pixels = np.random.default_rng(number).integers(0, 255, (*SIZE, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(source / "images" / f"{name}.png")
        write_mask(source / "masks" / f"{name}.png", drawn(number), LABELS)
    config = DataConfig.model_validate({"labels": LABELS.to_dict(), "split": {"val": 0, "test": 0}})
    splits = open_data(config, source)
    folders: dict[str, Path] = {}

    def write(name: str) -> Path:
        if name not in folders:
            folders[name] = tmp_path_factory.mktemp(name.replace("/", "_"))
            if name in BY_HAND:
                BY_HAND[name](folders[name])
                (folders[name] / "data.yaml").write_text(f"format: {name.partition('/')[0]}\n")
            else:
                assert convert(splits, FORMATS[name], folders[name]).changed_pixels == 0
        return folders[name]

    return write


def boxes(number: int) -> list[tuple[str, list[list[float]]]]:
    """Class and corners x, y of the regions of `drawn`."""
    sides = ((1, 1, 1 + number, 6, 5 + number), (2, 8 + number, 7, 12 + number, 11), (1, 12 + number, 0, 16, 1))
    return [(LABELS.names[k], [[x0, y0], [x1, y0], [x1, y1], [x0, y1]]) for k, x0, y0, x1, y1 in sides]


def save_image(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", SIZE[::-1]).save(path)


def coco_polygons(root: Path) -> None:
    entries, shapes = [], []
    for number, name in enumerate(NAMES):
        save_image(root / f"{name}.png")
        entries.append({"id": number + 1, "file_name": f"{name}.png", "height": SIZE[0], "width": SIZE[1]})
        for label, ring in boxes(number):
            own = {"id": len(shapes) + 1, "image_id": number + 1, "category_id": LABELS.names.index(label)}
            shapes.append({**own, "iscrowd": 0, "segmentation": [[value for point in ring for value in point]]})
    categories = [{"id": 1, "name": "car"}, {"id": 2, "name": "tree"}]
    text = json.dumps({"images": entries, "annotations": shapes, "categories": categories})
    (root / "instances.json").write_text(text)


def labelme_rectangles(root: Path) -> None:
    for number, name in enumerate(NAMES):
        save_image(root / f"{name}.png")
        shapes = [
            {"label": label, "points": [ring[0], ring[2]], "shape_type": "rectangle"} for label, ring in boxes(number)
        ]
        size = {"imageHeight": SIZE[0], "imageWidth": SIZE[1]}
        (root / f"{name}.json").write_text(json.dumps({"shapes": shapes, "imagePath": f"{name}.png", **size}))


def label_studio_min(root: Path) -> None:
    rows = []
    for number, name in enumerate(NAMES):
        save_image(root / f"{name}.png")
        regions = [
            {"points": (np.array(ring) * 100 / SIZE[::-1]).tolist(), "closed": True, "polygonlabels": [label],
             "original_width": SIZE[1], "original_height": SIZE[0]}
            for label, ring in boxes(number)
        ]  # fmt: skip
        rows.append({"image": f"/data/upload/1/{name}.png", "id": number, "annotator": 1, "annotation_id": number})
        rows[-1]["label"] = regions
    (root / "project.json").write_text(json.dumps(rows))


def cityscapes_polygons(root: Path) -> None:
    for number, name in enumerate(NAMES):
        save_image(root / "leftImg8bit" / f"{name}_leftImg8bit.png")
        objects = [{"label": {"tree": "road"}.get(label, label), "polygon": ring} for label, ring in boxes(number)]
        ground = {"label": "sky", "polygon": [[0, 0], [SIZE[1], 0], SIZE[::-1], [0, SIZE[0]]]}
        plain = {"imgHeight": SIZE[0], "imgWidth": SIZE[1], "objects": [ground, *objects]}
        (root / "gtFine").mkdir(exist_ok=True)
        (root / "gtFine" / f"{name}_gtFine_polygons.json").write_text(json.dumps(plain))


def geojson(root: Path) -> None:
    for number, name in enumerate(NAMES):
        left, top = 500_000 + 1000 * number, 4_000_000
        with rasterio.open(
            root / f"{name}.tif", "w", driver="GTiff", height=SIZE[0], width=SIZE[1], count=1, dtype="uint8",
            crs="EPSG:32633", transform=Affine(1, 0, left, 0, -1, top),
        ) as file:  # fmt: skip
            file.write(np.full((1, *SIZE), 9, np.uint8))
        features = [
            {"type": "Feature", "properties": {"class": label}, "geometry": {
                "type": "Polygon", "coordinates": [[[left + x, top - y] for x, y in (*ring, ring[0])]]}}
            for label, ring in boxes(number)
        ]  # fmt: skip
        crs = {"type": "name", "properties": {"name": "EPSG:32633"}}
        plain = {"type": "FeatureCollection", "crs": crs, "features": features}
        (root / f"{name}.geojson").write_text(json.dumps(plain))


BY_HAND = {
    "coco/polygons": coco_polygons,
    "labelme/rectangles": labelme_rectangles,
    "label-studio/flat": label_studio_min,
    "cityscapes/polygons": cityscapes_polygons,
    "geojson": geojson,
}
CASES = [*WRITERS, *BY_HAND]


def read_masks(root: Path) -> Masks:
    """Open a data set with skip_bad; the masks of the images that are read, by name, in class names."""
    config = yaml.safe_load((root / "data.yaml").read_text()) | {"skip_bad": True, "root": None}
    config["split"] = {"val": 0, "test": 0}
    found: Masks = {}
    for split in open_data(DataConfig.model_validate(config), root):
        for index, record in enumerate(split.records):
            try:
                mask = split.read(index).mask
            except DataError:
                continue  # left out by `without_unreadable`
            assert mask is not None
            names = np.array([*split.labels.names, "ignored"])
            stem = record.image.stem.removesuffix("_leftImg8bit")
            found[stem] = names[np.minimum(mask, split.labels.num_classes)]
    return found


def copied(source: Path, target: Path) -> Path:
    for path in source.rglob("*"):
        if path.is_file():
            (target / path.relative_to(source)).parent.mkdir(parents=True, exist_ok=True)
            (target / path.relative_to(source)).write_bytes(path.read_bytes())
    return target


def annotation_files(root: Path) -> list[Path]:
    """The files that hold annotations; images, class lists and settings are not broken here."""
    skipped = {"data.yaml", "dataset.yaml", "labels.txt", "interface.xml", "class_dict.csv", "labelmap.txt"}
    files = [p for p in sorted(root.rglob("*")) if p.is_file() and p.name not in skipped]
    masks = [p for p in files if {"masks", "SegmentationClass", "panoptic_train"} & set(p.parts)]
    return [p for p in files if p.suffix in (".json", ".geojson", ".xml") or (p.suffix == ".txt" and "ImageSets" not in p.parts)] + masks


FEW_JUNK: tuple[Any, ...] = (None, "?", 999, [], {"a": 1})
JUNK = (*FEW_JUNK, 5, -3, "999", {}, [1, 2], True, 1.5)


def places(plain: Any, above: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The places in a JSON tree; of lists, the first two elements."""
    children: Any = plain.items() if isinstance(plain, dict) else enumerate(plain[:2]) if isinstance(plain, list) else ()
    for key, value in children:
        yield (*above, key)
        yield from places(value, (*above, key))


def broken_json(path: Path, values: tuple[Any, ...]) -> Iterator[tuple[str, bytes]]:
    """Every way to remove or replace one value of a JSON file, except for values that another value is valid for."""
    plain = json.loads(path.read_bytes())
    # Another class name, size or version is valid, and so is an annotation without shapes, or one that is not drawn.
    free = {
        "version", "flags", "group_id", "description", "info", "licenses", "imageData", "color", "supercategory", "area",
        "bbox", "isthing", "predictions", "created_at", "label", "brushlabels", "name", "ground_truth", "was_cancelled",
        "from_name", "mask", "shape_type", "class", "crs", "polygonlabels", "annotator", "annotation_id", "closed",
    }  # fmt: skip
    for where in places(plain):
        if free & set(map(str, where)) or (where[0] == "categories"):
            continue
        for junk in ("removed", *values):
            changed = copy.deepcopy(plain)
            holder: Any = changed
            for key in where[:-1]:
                holder = holder[key]
            if junk == "removed":
                if isinstance(holder, list):
                    continue  # an annotation less, or other coordinates: nothing in the file shows it
                del holder[where[-1]]
            elif _is_valid(holder, where, junk):
                continue
            else:
                holder[where[-1]] = junk
            yield f"{'.'.join(map(str, where))}={junk!r}", json.dumps(changed).encode()


def _is_valid(holder: Any, where: tuple[Any, ...], junk: Any) -> bool:
    """Whether a value can be replaced without breaking the file: by an equal one, other coordinates, or no annotations."""
    old, key = holder[where[-1]], where[-1]
    number = isinstance(old, int | float) and isinstance(junk, int | float)
    if key in ("annotations", "shapes", "result", "segments_info", "objects", "features", "coordinates") and junk == []:
        return True
    if key == "geometry" and junk is None:
        return True  # RFC 7946: a feature without a place
    points = not {"points", "polygon", "coordinates", "segmentation"}.isdisjoint(map(str, where))
    if isinstance(holder, list) and (number or (points and junk in ("999", [1, 2]))):
        return True  # a coordinate or a run length: another is valid
    return type(old) is type(junk) and old == junk


def other_ways(path: Path) -> Iterator[tuple[str, bytes]]:
    """Ways to break a file of any kind."""
    data = path.read_bytes()
    yield "cut", data[: len(data) // 2]
    yield "noise", b"\x80\xff" + data[2:]
    yield "open", data.rstrip()[:-1] if path.suffix in (".json", ".xml") else data[:-1][:20]


def broken_text(path: Path) -> Iterator[tuple[str, bytes]]:
    text = path.read_text()
    if path.suffix == ".xml":
        for attribute in ("name", "label", "rle", "left", "top", "width", "height"):
            places_ = list(re.finditer(rf'<(?:mask|image)[^>]*? ({attribute}="[^"]*")', text))
            for match in places_[:3]:
                begin, end = match.span(1)
                for change in ("", f'{attribute}=""', f'{attribute}="?"', f'{attribute}="a.png"', f'{attribute}="-1"'):
                    if not (attribute == "label" and change.endswith(('"?"', '"a.png"', '"-1"', '""'))):
                        yield f"{match[1][:20]}→{change}", (text[:begin] + change + text[end:]).encode()
        yield "another element", text.replace("<mask", "<blob", 1).replace("</mask>", "</blob>", 1).encode()
        image = text.index("  <image")
        shape = '<mask label="car" rle="0, 4" left="0" top="0" width="2" height="2" z_order="0"/>\n'
        yield "outside", (text[:image] + shape + text[image:]).encode()
    if path.suffix == ".txt":
        first, *rest = text.split("\n", 1)
        numbers = first.split()
        for changed in (["9", *numbers[1:]], numbers[1:], numbers[:4], [*numbers[:-1], "x"], [*numbers[:-1], "7"]):
            yield f"line {' '.join(changed)[:20]}", "\n".join([" ".join(changed), *rest]).encode()


def ways(path: Path, values: tuple[Any, ...]) -> Iterator[tuple[str, bytes]]:
    if path.suffix in (".json", ".geojson"):
        yield from broken_json(path, values)
    elif path.suffix in (".xml", ".txt"):
        yield from broken_text(path)
    yield from other_ways(path)


def differing(root: Path, truth: Masks) -> list[str]:
    """The images that are read with another mask than that which was written."""
    try:
        found = read_masks(root)
    except DataError:
        return []  # refused
    return [name for name in found if not np.array_equal(found[name], truth[name.removeprefix("lost_")])]


def require_no_background(root: Path, truth: Masks, values: tuple[Any, ...]) -> None:
    tried, wrong = 0, []
    for path in annotation_files(root)[:2]:
        intact = path.read_bytes()
        for way, data in ways(path, values):
            path.write_bytes(data)
            tried += 1
            wrong += [f"{path.name}: {way}: {image}" for image in differing(root, truth)]
        path.write_bytes(intact)
    assert tried >= 6
    assert not wrong, wrong


@pytest.mark.parametrize("name", CASES)
def test_a_broken_annotation_never_becomes_background(name: str, written: Callable[[str], Path], tmp_path: Path) -> None:
    root = copied(written(name), tmp_path)
    truth = read_masks(root)
    assert sorted(truth) == sorted(NAMES)
    if name != "cityscapes/polygons":  # whose classes are fixed
        for number, stem in enumerate(NAMES):
            np.testing.assert_array_equal(truth[stem], np.array(LABELS.names)[drawn(number)])
    require_no_background(root, truth, FEW_JUNK)


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_more_ways_to_break_an_annotation(name: str, written: Callable[[str], Path], tmp_path: Path) -> None:
    root = copied(written(name), tmp_path)
    require_no_background(root, read_masks(root), JUNK)


@pytest.mark.parametrize("name", CASES)
def test_a_renamed_or_missing_file_never_becomes_background(
    name: str, written: Callable[[str], Path], tmp_path: Path
) -> None:
    """Of annotations and of images, and a second copy in another folder."""
    root = copied(written(name), tmp_path)
    truth = read_masks(root)
    annotations = annotation_files(root)
    images = [p for p in sorted(root.rglob("*")) if p.suffix in (".png", ".tif") and p not in annotations]
    wrong = []
    for path in (*images, *annotations):
        renamed = path.with_name(f"lost_{path.name}")
        path.rename(renamed)
        wrong += [f"{path.name} renamed: {image}" for image in differing(root, truth)]
        renamed.rename(path)
        # An image of YOLO without a text file is background, and a raster in the extent of all features.
        if name not in ("yolo", "geojson"):
            data = path.read_bytes()
            path.unlink()
            wrong += [f"{path.name} removed: {image}" for image in differing(root, truth)]
            path.write_bytes(data)
        if name != "yolo" or path in annotations:
            (path.parent / "again").mkdir()
            (path.parent / "again" / path.name).write_bytes(path.read_bytes())
            wrong += [f"{path.name} twice: {image}" for image in differing(root, truth)]
            (path.parent / "again" / path.name).unlink()
            (path.parent / "again").rmdir()
    assert not wrong, wrong
