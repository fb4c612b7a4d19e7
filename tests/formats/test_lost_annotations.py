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
from tests.formats.small_data import CASES, LABELS, NAMES, Masks, annotation_files, copied, drawn, read_masks

from pixelwise.errors import DataError

FEW_JUNK: tuple[Any, ...] = (None, "?", 999, [], {"a": 1})
JUNK = (*FEW_JUNK, 5, -3, "999", {}, [1, 2], True, 1.5)


def places(plain: Any, above: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The places in a JSON tree; of lists, the first two elements."""
    children: Any = (
        plain.items() if isinstance(plain, dict) else enumerate(plain[:2]) if isinstance(plain, list) else ()
    )
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
def test_a_broken_annotation_never_becomes_background(
    name: str, written: Callable[[str], Path], tmp_path: Path
) -> None:
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
