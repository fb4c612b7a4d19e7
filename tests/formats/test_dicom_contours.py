"""Data sets of DICOM series with contours (RTSTRUCT)."""

from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from tests.imageio.dicom_objects import AXIAL, SPACING, positions, write_contours, write_series

from pixelwise.config import DataConfig
from pixelwise.datasets.dataset import DataSplits, open_data
from pixelwise.errors import GridMismatchError, MaskError, PairingError
from pixelwise.imageio.dicom_contours import read_contour_header
from pixelwise.imageio.dicom_seg_header import segmentation_kind
from pixelwise.imageio.dicom_seg_writing import write_dicom_seg
from pixelwise.labels import Labels

SHAPE = (4, 11, 13)
DIRECTIONS = {
    "axial": AXIAL,
    "sagittal": (0.0, 1, 0, 0, 0, -1),
    "coronal": (1.0, 0, 0, 0, 0, -1),
    "feet first": (-1.0, 0, 0, 0, 1, 0),
    "tilted": (1.0, 0, 0, 0, 0.8, 0.6),
}


def opened(root: Path, **config: Any) -> DataSplits:
    return open_data(DataConfig.model_validate({"split": {"val": 0, "test": 0}, **config}), root)


def series_of(files: list[Path]) -> str:
    return str(pydicom.dcmread(files[0]).SeriesInstanceUID)


def millimetres(ring: np.ndarray, place: Any, directions: Any = AXIAL) -> np.ndarray:
    """Return, by the formula of the standard, where points (column, row) of a slice are."""
    along, down = np.array(directions[:3]), np.array(directions[3:])
    return np.array(place) + ring[:, :1] * along * SPACING[1] + ring[:, 1:] * down * SPACING[0]


def inside(ring: np.ndarray) -> np.ndarray:
    """Return whether pixel centres (H, W) are inside a ring of (column, row), by the crossings of a ray, pixel by pixel."""
    mask = np.zeros(SHAPE[1:], bool)
    for row, column in np.ndindex(mask.shape):
        for (x0, y0), (x1, y1) in zip(ring, np.roll(ring, -1, axis=0), strict=True):
            if (y0 > row) != (y1 > row) and column < x0 + (row - y0) * (x1 - x0) / (y1 - y0):
                mask[row, column] ^= True
    return mask


def star(seed: int, radius: float = 4.0) -> np.ndarray:
    """Return a ring of (column, row) around the middle of a slice, with no point on a pixel centre."""
    rng = np.random.default_rng(seed)
    angles = np.sort(rng.uniform(0, 2 * np.pi, 9))
    return np.stack([6.1 + radius * np.cos(angles), 5.2 + radius * np.sin(angles)], axis=1) + rng.normal(0, 0.2, (9, 2))


@pytest.mark.parametrize("directions", sorted(DIRECTIONS))
@pytest.mark.parametrize("seed", range(3))
def test_pixels_whose_centres_are_inside_belong_to_a_structure(tmp_path: Path, directions: str, seed: int) -> None:
    axes = DIRECTIONS[directions]
    files = write_series(tmp_path / "ct", SHAPE, axes)
    places = positions(SHAPE[0], axes)
    rings = {k: star(10 * seed + k) for k in (0, 2)}
    contours = [(7, millimetres(ring, places[k], axes)) for k, ring in rings.items()]
    path = write_contours(tmp_path / "rt", contours, {7: "liver"}, series=series_of(files))
    assert segmentation_kind(path) == "RTSTRUCT"
    splits = opened(tmp_path)
    assert splits.labels.names == ("background", "liver")
    assert splits.labels.colours[1] == (200, 70, 0)
    layout = {"sagittal": (1, 1), "coronal": (1, 1), "feet first": (1, -1), "axial": (1, 1), "tilted": (1, 1)}[
        directions
    ]
    by_image = {record.image: splits.train.read(k).mask for k, record in enumerate(splits.train.records)}
    for k, file in enumerate(files):
        expected = inside(rings[k]) if k in rings else np.zeros(SHAPE[1:], bool)
        np.testing.assert_array_equal(by_image[file], expected[:: layout[0], :: layout[1]])
    slices = [splits.train.read(k).mask for k in range(len(splits.train))]
    whole = opened(tmp_path, volumes="whole").train.read(0).mask
    np.testing.assert_array_equal(whole, slices)


def test_a_ring_in_a_ring_is_a_hole_and_the_smaller_structure_is_on_top(tmp_path: Path) -> None:
    files = write_series(tmp_path / "ct", SHAPE)
    places = positions(SHAPE[0])
    outer, hole, small = star(1, 5.0), star(2, 1.5), star(3, 3.0)
    contours = [(1, millimetres(ring, places[1])) for ring in (outer, hole)]
    contours += [(2, millimetres(small, places[1])), (1, millimetres(star(4), places[2]))]
    write_contours(tmp_path / "rt", contours, {2: "tumour", 1: "liver"}, series=series_of(files))
    splits = opened(tmp_path)
    mask = {record.image: splits.train.read(k).mask for k, record in enumerate(splits.train.records)}[files[1]]
    names = np.array(splits.labels.names, object)[mask]
    expected = np.where(inside(outer) ^ inside(hole), "liver", "background").astype(object)
    expected[inside(small)] = "tumour"
    np.testing.assert_array_equal(names, expected)
    assert any("the structure with the smaller volume is on top" in notice for notice in splits.notices)


def test_points_and_lines_are_no_areas(tmp_path: Path) -> None:
    files = write_series(tmp_path / "ct", SHAPE)
    contours = [(1, millimetres(star(1), positions(1)[0]))]
    path = write_contours(tmp_path / "rt", contours, {1: "a"}, series=series_of(files), geometry="OPEN_PLANAR")
    with pytest.raises(MaskError, match="expected closed contours, found none"):
        read_contour_header(path)


@pytest.mark.parametrize(("shift", "found"), [(1.0, "at slice 0.4"), (-2.5, "at slice -1"), (10.0, "at slice 4")])
def test_contours_in_no_slice_are_refused(tmp_path: Path, shift: float, found: str) -> None:
    for patient in ("p1", "p2"):
        files = write_series(tmp_path / patient / "ct", SHAPE)
        points = millimetres(star(1), positions(1)[0]) + np.array([0, 0, shift * (patient == "p2")])
        write_contours(tmp_path / patient / "rt", [(1, points)], {1: "liver"}, series=series_of(files))
    with pytest.raises(
        GridMismatchError, match=rf"expected contours in the 4 slices of ct, found one of 'liver' {found}"
    ):
        opened(tmp_path)
    splits = opened(tmp_path, skip_bad=True)
    assert {record.group for record in splits.train.records} <= {f"p1/ct/{k}" for k in range(5)}


def test_contours_and_segmentations_of_one_series_need_a_choice(tmp_path: Path) -> None:
    files = write_series(tmp_path / "ct", SHAPE)
    write_contours(tmp_path / "rt", [(1, millimetres(star(1), positions(1)[0]))], {1: "a"}, series=series_of(files))
    mask = np.ones(SHAPE, np.uint8)
    write_dicom_seg(tmp_path / "seg", mask, Labels(("background", "b")), files)
    with pytest.raises(PairingError, match=r"segmentations \(SEG\) and contours \(RTSTRUCT\) of one series"):
        opened(tmp_path)
    assert opened(tmp_path, images="ct", masks="rt").labels.names == ("background", "a")
    assert opened(tmp_path, images="ct", masks="seg").labels.names == ("background", "b")


def test_ignored_structures_are_ignored_pixels(tmp_path: Path) -> None:
    files = write_series(tmp_path / "ct", SHAPE)
    contours = [(k, millimetres(star(k, k * 2.0), positions(1)[0])) for k in (1, 2)]
    write_contours(tmp_path / "rt", contours, {1: "a", 2: "b"}, series=series_of(files))
    splits = opened(tmp_path, ignored=["b"])
    mask = {record.image: splits.train.read(k).mask for k, record in enumerate(splits.train.records)}[files[0]]
    np.testing.assert_array_equal(mask == 255, inside(star(2, 4.0)) & ~inside(star(1, 2.0)))
