"""Shapes that cover no pixel are counted and named when a data set is opened."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from pycocotools import mask as coder

from pixelwise.checking import check
from pixelwise.config import DataConfig
from pixelwise.datasets.dataset import open_data

SIZE = (12, 16)
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")


def notices(root: Path) -> list[str]:
    splits = open_data(DataConfig.model_validate({"split": {"val": 0, "test": 0}}), root)
    return [notice for notice in splits.notices if "cover no pixel: " in notice]


def labelme(root: Path, name: str, shapes: list[tuple[str, Any]], size: tuple[int, int] = SIZE) -> None:
    Image.new("RGB", size[::-1]).save(root / f"{name}.png")
    plain = [{"label": label, "points": points, "shape_type": "polygon"} for label, points in shapes]
    (root / f"{name}.json").write_text(json.dumps({"shapes": plain, "imagePath": f"{name}.png"}))


def covers_a_centre(points: list[tuple[float, float]]) -> bool:
    """Test every pixel centre against every edge (even-odd)."""
    rows, columns = np.mgrid[: SIZE[0], : SIZE[1]] + 0.5
    inside = np.zeros(SIZE, bool)
    for (x0, y0), (x1, y1) in zip(points, points[1:] + points[:1], strict=True):
        crosses = (y0 <= rows) != (y1 <= rows)
        with np.errstate(divide="ignore", invalid="ignore"):
            inside ^= crosses & (columns > x0 + (rows - y0) * (x1 - x0) / (y1 - y0) if y0 != y1 else False)
    return bool(inside.any())


# Coordinates that are not on pixel centres, near and beyond the frame; often close together, so that shapes are thin.
X, Y = (st.integers(-12, 34).map(lambda value, shift=shift: value / 2 + shift) for shift in (0.12373, 0.21917))
POLYGON = st.lists(st.tuples(X, Y), min_size=3, max_size=6)
THIN = st.tuples(X, Y, X, Y, st.sampled_from([0, 0.1, 0.4, 0.9, 1.6])).map(
    lambda t: [(t[0], t[1]), (t[2], t[3]), (t[2] + t[4], t[3] + t[4] / 3), (t[0] + t[4], t[1] + t[4] / 3)]
)


@settings(max_examples=80, deadline=None, suppress_health_check=list(HealthCheck), database=None)
@given(st.lists(POLYGON | THIN, min_size=1, max_size=8))
def test_polygons_without_a_pixel_centre_are_counted(tmp_path_factory: Any, polygons: list[Any]) -> None:
    root = tmp_path_factory.mktemp("polygons")
    labelme(root, "a", [("car", points) for points in polygons])
    expected = sum(not covers_a_centre(points) for points in polygons)
    start = f"{expected} of {len(polygons)} shapes cover no pixel: {expected} car, in a.png (a.json)"
    found = notices(root)
    assert [notice.startswith(start) for notice in found] == [True] * (expected > 0)


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck), database=None)
@given(st.lists(POLYGON | THIN, min_size=1, max_size=8))
def test_polygons_of_coco_are_counted_as_pycocotools_draws_them(tmp_path_factory: Any, polygons: list[Any]) -> None:
    root = tmp_path_factory.mktemp("coco")
    Image.new("RGB", SIZE[::-1]).save(root / "a.png")
    rings = [[float(value) for point in points for value in point] for points in polygons]
    shapes = [{"id": k, "image_id": 1, "category_id": 1, "segmentation": [ring]} for k, ring in enumerate(rings)]
    images, categories = [{"id": 1, "file_name": "a.png"}], [{"id": 1, "name": "car"}]
    (root / "a.json").write_text(json.dumps({"images": images, "annotations": shapes, "categories": categories}))
    expected = sum(int(coder.area(coder.frPyObjects([ring], *SIZE))[0]) == 0 for ring in rings)
    assert [notice.split(" of ")[0] for notice in notices(root)] == [str(expected)] * (expected > 0)


def test_they_are_named_by_class_image_and_file_and_are_a_warning_of_check(tmp_path: Path) -> None:
    whole = [(1, 1), (9, 1), (9, 9), (1, 9)]
    outside = [(20, 14), (40, 14), (40, 30)]
    line = [(2, 2), (9, 2), (9, 2)]
    for number in range(6):
        labelme(tmp_path, f"p{number}", [("car", whole), ("tree", outside if number < 4 else whole)])
    labelme(tmp_path, "q", [("car", line), ("tree", whole), ("car", whole)])
    splits = open_data(DataConfig.model_validate({"split": {"val": 0, "test": 0}}), tmp_path)
    (finding,) = (one for one in check(splits, workers=0) if one.kind == "uncovered-shapes")
    assert finding.severity == "warning"
    assert finding.what == (
        "5 of 15 shapes cover no pixel: 1 car, 4 tree, in p0.png, p1.png, p2.png and 2 more (p0.json, p1.json, p2.json, …);"
        " they reach to 2.5 times the width and 2.5 times the height of the images, which may have been scaled down after"
        " labelling"
    )


def test_empty_masks_are_counted(tmp_path: Path) -> None:
    """Run lengths of zeros only, in CVAT's box and in COCO's form."""
    Image.new("RGB", SIZE[::-1]).save(tmp_path / "a.png")
    masks = [f'<mask label="car" left="1" top="1" width="2" height="2" rle="{rle}"/>' for rle in ("4", "0, 4")]
    image = f'<image id="0" name="a.png" width="{SIZE[1]}" height="{SIZE[0]}">{"".join(masks)}</image>'
    (tmp_path / "a.xml").write_text(f"<annotations><version>1.1</version>{image}</annotations>")
    assert [notice.split(":")[0] for notice in notices(tmp_path)] == ["1 of 2 shapes cover no pixel"]
    (tmp_path / "a.xml").unlink()
    shapes = [
        {"id": k, "image_id": 1, "category_id": 1, "segmentation": {"size": list(SIZE), "counts": counts}}
        for k, counts in enumerate(([12 * 16], [0, 12 * 16], [5, 1, 12 * 16 - 6]))
    ]
    images, categories = [{"id": 1, "file_name": "a.png"}], [{"id": 1, "name": "car"}]
    (tmp_path / "a.json").write_text(json.dumps({"images": images, "annotations": shapes, "categories": categories}))
    assert [notice.split(":")[0] for notice in notices(tmp_path)] == ["1 of 3 shapes cover no pixel"]
