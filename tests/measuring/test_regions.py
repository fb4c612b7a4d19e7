"""Regions with their sizes: the same whatever the bands, cut out without their neighbours."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from scipy import ndimage

from pixelwise.grid import Grid
from pixelwise.labels import Labels
from pixelwise.measuring.masks import ArrayMask
from pixelwise.measuring.region_contour import contour, perimeter
from pixelwise.measuring.regions import SMALLEST_CONTOUR, find_regions
from pixelwise.measuring.scale import AffineScale
from pixelwise.types import Region

RNG = np.random.default_rng(3)
LABELS = Labels(("background", "a", "b"))
SCALE = AffineScale(np.diag([0.5, 0.5]), "mm", "given")
GRID = Grid((0.5, 0.5), "mm", ((0.5, 0, 10), (0, 0.5, 20), (0, 0, 1)))


def mask() -> ArrayMask:
    smooth = ndimage.gaussian_filter(RNG.normal(size=(3, 90, 70)), (0, 2, 2))
    return ArrayMask(smooth.argmax(0), LABELS, "field")


def test_regions_of_one_class_are_cut_out_of_each_others_boxes() -> None:
    values = np.zeros((40, 40), np.int64)
    values[5:35, 5:35] = 1
    values[8:32, 8:32] = 0
    values[15:25, 15:25] = 1  # inside the ring
    ring, inner = (
        each for each in find_regions(ArrayMask(values, LABELS), SCALE, GRID, ("mm²", 1.0)) if each.class_index == 1
    )
    assert (ring.pixels, ring.holes, ring.touches_border) == (900 - 576, 1, False)
    assert (inner.pixels, inner.holes, inner.window.shape) == (100, 0, (10, 10))
    assert ring.position == pytest.approx((19.5 * 0.5 + 10, 19.5 * 0.5 + 20))
    alone = np.ones((10, 10), bool)
    assert inner.measurements["perimeter"].value == pytest.approx(perimeter(contour(alone, SCALE), SCALE))
    assert ring.measurements["area"].value == 324 / 4
    area = inner.measurements["area"]
    assert area.low is not None
    assert area.high is not None
    assert area.low < 25 < area.high


def test_bands_do_not_change_regions() -> None:
    source = mask()
    whole = find_regions(source, SCALE, GRID, ("mm²", 1.0))
    assert any("perimeter" not in each.measurements for each in whole)
    assert all(("perimeter" in each.measurements) is (each.pixels >= SMALLEST_CONTOUR) for each in whole)
    for rows in (1, 13, 40):
        parts = find_regions(source, SCALE, GRID, ("mm²", 1.0), band_pixels=70 * rows)
        assert [_without_sizes(each) for each in parts] == [_without_sizes(each) for each in whole]
        for part, expected in zip(parts, whole, strict=True):
            assert part.measurements.keys() == expected.measurements.keys()
            for name in part.measurements:
                assert part.measurements[name].value == pytest.approx(expected.measurements[name].value)


def test_volumes_have_volumes_and_surfaces() -> None:
    values = np.zeros((26, 50, 50), np.int64)
    values[1:3, 2:5, 2:4] = 2  # too small for a surface
    distance = np.linalg.norm(
        (np.indices(values.shape).transpose(1, 2, 3, 0) - (12.5, 25, 25)) * (2.0, 1.0, 1.0), axis=-1
    )
    values[distance < 20] = 1
    values[distance < 8] = 0
    scale = AffineScale(np.diag([2.0, 1.0, 1.0]), "mm", "given")
    regions = find_regions(ArrayMask(values, LABELS), scale, Grid((2.0, 1.0, 1.0), "mm"), ("ml", 1e-3))
    box = next(each for each in regions if each.class_index == 2)
    assert set(box.measurements) == {"volume"}
    assert box.measurements["volume"].value == pytest.approx(12 * 2e-3)
    assert box.measurements["volume"].note is not None
    assert (box.holes, box.position, box.centroid) == (None, None, (1.5, 3.0, 2.5))
    shell = next(each for each in regions if each.class_index == 1).measurements
    assert next(each for each in regions if each.class_index == 1).holes == 1
    assert {name: each.unit for name, each in shell.items()} == {
        "volume": "ml",
        "surface": "mm²",
        "longest_axis": "mm",
        "longest_axis_in_slice": "mm",
    }
    assert shell["volume"].value == pytest.approx(4 / 3 * np.pi * (8000 - 512) / 1000, rel=0.02)
    assert shell["surface"].value == pytest.approx(4 * np.pi * 464, rel=0.04)
    assert shell["longest_axis"].value == pytest.approx(40, rel=0.03)
    assert shell["longest_axis_in_slice"].value == pytest.approx(40, rel=0.03)


def test_only_thin_regions_have_a_length_and_a_width() -> None:
    values = np.zeros((300, 200), np.int64)
    values[20:24, 20:180] = 1
    values[60:120, 40:100] = 1
    values[140:250, 100:200] = 2
    regions = find_regions(ArrayMask(values, LABELS), SCALE, GRID, ("mm²", 1.0), band_pixels=200 * 30)
    assert [set(each.measurements) >= {"length", "width"} for each in regions] == [False, True, False, False]
    length, width = (regions[1].measurements[name] for name in ("length", "width"))
    assert (length.value, width.value) == pytest.approx((80, 2), rel=0.01)
    assert (length.unit, width.unit, length.note) == ("mm", "mm", None)
    assert width.low is not None
    assert width.high is not None
    assert (width.low, width.high) == pytest.approx((1.5, 2.5), abs=0.1)  # a pixel more or less across


def test_a_mask_without_data_has_no_regions() -> None:
    empty = ArrayMask(np.full((5, 6), LABELS.ignore_index), LABELS)
    assert find_regions(empty, SCALE, GRID, ("mm²", 1.0)) == []


def _without_sizes(region: Region) -> Region:
    return dataclasses.replace(region, measurements={})


def test_a_region_with_a_huge_box_has_no_outline_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pixelwise.measuring.regions.LARGEST_BOX", 99)
    values = np.zeros((12, 12), np.int64)
    values[1:11, 1:11] = 1
    area = find_regions(ArrayMask(values, LABELS), SCALE, GRID, ("mm²", 1.0))[1].measurements
    assert set(area) == {"area"}
    assert area["area"].note is not None
    assert area["area"].note.startswith("no contour")
