"""A small data set in every format: written by pixelwise where there is a writer, otherwise by hand."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
import yaml
from affine import Affine
from numpy.typing import NDArray
from PIL import Image

from pixelwise.config import DataConfig
from pixelwise.datasets.convert import convert
from pixelwise.datasets.dataset import DataSplits, open_data
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
    return [
        p
        for p in files
        if p.suffix in (".json", ".geojson", ".xml") or (p.suffix == ".txt" and "ImageSets" not in p.parts)
    ] + masks


def write_source(root: Path) -> DataSplits:
    """Write and open folders of images and masks."""
    for number, name in enumerate(NAMES):
        for kind in ("images", "masks"):
            (root / kind).mkdir(exist_ok=True)
        pixels = np.random.default_rng(number).integers(0, 255, (*SIZE, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(root / "images" / f"{name}.png")
        write_mask(root / "masks" / f"{name}.png", drawn(number), LABELS)
    return open_data(DataConfig.model_validate({"labels": LABELS.to_dict(), "split": {"val": 0, "test": 0}}), root)


def write_format(splits: DataSplits, name: str, root: Path) -> Path:
    """Write the data set in a format, with a data.yaml that reads it."""
    if name in BY_HAND:
        BY_HAND[name](root)
        (root / "data.yaml").write_text(f"format: {name.partition('/')[0]}\n")
    else:
        assert convert(splits, FORMATS[name], root).changed_pixels == 0
    return root
