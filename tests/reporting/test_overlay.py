from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pixelwise.errors import ResourceError
from pixelwise.labels import Labels
from pixelwise.reporting import overlay as module
from pixelwise.reporting.overlay import colourise, contact_sheet, overlay, write_png

GREEN, RED = (0, 200, 0), (200, 0, 0)
LABELS = Labels(("background", "leaf", "rust"), colours=((9, 9, 9), GREEN, RED))


def test_classes_have_their_colours_and_ignored_pixels_are_white() -> None:
    painted = colourise(np.array([[0, 1], [2, 255]], np.uint8), LABELS)
    assert painted.dtype == np.uint8
    assert painted.tolist() == [[[9, 9, 9], [0, 200, 0]], [[200, 0, 0], [255, 255, 255]]]


def test_more_than_256_classes() -> None:
    labels = Labels(tuple(f"c{k}" for k in range(300)), ignore_ids=(999,))
    painted = colourise(np.array([[255, 299, 65535]], np.uint16), labels)
    assert painted[0].tolist() == [list(labels.colours[255]), list(labels.colours[299]), [255, 255, 255]]


def test_the_background_is_not_tinted() -> None:
    image = np.full((3, 6, 6), 100, np.uint8)
    mask = np.zeros((6, 6), np.uint8)
    mask[:, 3:] = 1
    shown = overlay(image, mask, LABELS, opacity=0.5)
    assert (shown[:, :2] == 100).all()
    assert (shown[:, 3:] == [50, 150, 50]).all()
    assert (shown[:, 2] == 45).all()  # darker contours
    assert (overlay(image, mask, LABELS, opacity=1)[:, 3:] == GREEN).all()


def test_a_first_class_that_is_not_a_background_is_tinted() -> None:
    labels = Labels(("road", "car"), colours=(RED, GREEN))
    assert (overlay(np.full((3, 2, 2), 100, np.uint8), np.zeros((2, 2), np.uint8), labels, 1) == RED).all()


def blended(image: np.ndarray, mask: np.ndarray, labels: Labels, opacity: float) -> np.ndarray:
    """Blend pixel by pixel in floats."""
    shown = np.zeros((*mask.shape, 3))
    for row, column in np.ndindex(mask.shape):
        k = mask[row, column]
        colour = labels.colours[k] if k < labels.num_classes else (255, 255, 255)
        share = 0 if k == 0 and labels.names[0] == "background" else opacity
        right, below = mask[row, column + 1 : column + 2], mask[row + 1 : row + 2, column]
        dark = 0.45 if (right != k).any() or (below != k).any() else 1
        shown[row, column] = dark * ((1 - share) * image[:, row, column] + share * np.array(colour))
    return shown


@pytest.mark.parametrize("opacity", [0, 0.3, 0.55, 0.999, 1])
@pytest.mark.parametrize("labels", [LABELS, Labels(("road", "car")), Labels(tuple(f"c{k}" for k in range(300)))])
def test_colours_are_blended_by_their_weights(labels: Labels, opacity: float) -> None:
    generator = np.random.default_rng(0)
    mask = generator.integers(0, labels.num_classes, (13, 21)).astype(labels.dtype)
    mask[5:9, 2:14], mask[2:4] = labels.ignore_index, labels.num_classes - 1
    image = generator.integers(0, 256, (3, 13, 21), np.uint8)
    image[:, :, :4], image[:, :, 4:6] = 255, 0
    found = overlay(image, mask, labels, opacity)
    assert np.abs(found - blended(image, mask, labels, opacity)).max() <= 1.5


def test_strips_have_no_seams(monkeypatch: pytest.MonkeyPatch) -> None:
    generator = np.random.default_rng(0)
    image = generator.integers(0, 60000, (3, 23, 17)).astype(np.uint16)
    mask = generator.integers(0, 3, (23, 17)).astype(np.uint8)
    expected = overlay(image, mask, LABELS)
    monkeypatch.setattr(module, "_STRIP", 4)
    np.testing.assert_array_equal(overlay(image, mask, LABELS), expected)


def test_image_and_mask_are_not_modified() -> None:
    image, mask = np.full((3, 4, 4), 100, np.uint8), np.eye(4, dtype=np.uint8)
    overlay(image, mask, LABELS)
    contact_sheet([(image, mask, mask)], LABELS, 40)
    assert (image == 100).all()
    np.testing.assert_array_equal(mask, np.eye(4))


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int16, np.float32])
@pytest.mark.parametrize("bands", [1, 2, 3, 5])
def test_any_image_can_be_shown(dtype: type, bands: int) -> None:
    image = np.random.default_rng(0).integers(0, 120, (bands, 7, 9)).astype(dtype)
    shown = overlay(image, np.zeros((7, 9), np.uint8), LABELS)
    assert (shown.shape, shown.dtype) == ((7, 9, 3), np.uint8)
    assert shown.std() > 5


@pytest.mark.parametrize("size", [(1, 1), (1, 5), (5, 1)])
def test_the_smallest_images(size: tuple[int, int]) -> None:
    assert overlay(np.zeros((3, *size), np.uint8), np.full(size, 255, np.uint8), LABELS).shape == (*size, 3)
    assert contact_sheet([(np.zeros((1, *size), np.uint8), None, np.zeros(size, np.uint8))], LABELS, 40).ndim == 3


def test_a_sheet_shows_image_truth_prediction_and_difference() -> None:
    image = np.full((3, 40, 40), 100, np.uint8)
    truth = np.zeros((40, 40), np.uint8)
    truth[:20] = 255
    prediction = np.full((40, 40), 1, np.uint8)
    sheet = contact_sheet([(image, truth, prediction)], LABELS, width=40)
    assert sheet.dtype == np.uint8
    assert sheet.shape[1] == 4 * 40 + 3 * 6
    row = sheet[24 : 24 + 40]
    assert (row[:, :40] == 100).all()
    difference = row[:, 3 * 46 :]
    # Ignored pixels are not wrong; wrong pixels show the predicted class.
    assert (difference[2:17] == 25).all()
    assert np.abs(difference[24:].astype(int) - GREEN).max() <= 1


def test_rows_of_different_shapes_and_without_truth() -> None:
    mask = np.zeros((30, 60), np.uint8)
    wide = (np.zeros((1, 30, 60), np.uint16), None, mask)
    tall = (np.zeros((3, 60, 30), np.uint8), mask.T, mask.T)
    sheet = contact_sheet([wide, tall], LABELS, width=60)
    assert sheet.shape[1] == 4 * 60 + 3 * 6
    assert sheet.shape[0] > 24 + 30 + 6 + 120


def test_the_legend_of_many_classes_is_wrapped() -> None:
    many = Labels(tuple(f"a class of a long name {k}" for k in range(12)))
    row = (np.zeros((3, 10, 10), np.uint8), None, np.zeros((10, 10), np.uint8))
    one, twelve = contact_sheet([row], LABELS, 100), contact_sheet([row], many, 100)
    assert twelve.shape[1] == one.shape[1]
    assert twelve.shape[0] > one.shape[0] + 3 * 22
    # All colours are on the sheet.
    seen = {tuple(pixel) for pixel in twelve.reshape(-1, 3).tolist()}
    assert set(many.colours) <= seen


def test_png_files_are_written(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (5, 7, 3), np.uint8)
    write_png(tmp_path / "new" / "a.png", pixels)
    with Image.open(tmp_path / "new" / "a.png") as image:
        np.testing.assert_array_equal(np.asarray(image), pixels)
    (tmp_path / "file").touch()
    with pytest.raises(ResourceError):
        write_png(tmp_path / "file" / "a.png", pixels)
