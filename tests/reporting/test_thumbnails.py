"""Small versions of images and masks."""

from __future__ import annotations

import base64
import io

import numpy as np
import pytest
from PIL import Image

from pixelwise.labels import Labels
from pixelwise.reporting.thumbnails import crop, difference, encode, encode_png, view, worst_slice

LABELS = Labels(("background", "disc"))


def opened(thumbnail):
    return Image.open(io.BytesIO(base64.b64decode(thumbnail.uri.partition(",")[2])))


def test_a_crop_contains_its_box_with_a_margin_within_the_image():
    image, mask = np.zeros((3, 200, 300)), np.arange(60000).reshape(200, 300)
    for box in ((90, 140, 110, 160), (0, 0, 10, 10), (190, 290, 200, 300), (0, 0, 200, 300), (50, 0, 51, 300)):
        cut_image, truth, prediction = crop((image, mask, mask), box)
        assert cut_image.shape[1:] == truth.shape == prediction.shape
        for corner in (mask[box[0], box[1]], mask[box[2] - 1, box[3] - 1]):
            assert corner in truth
    _, truth, _ = crop((image, mask, mask), (90, 140, 110, 160))
    assert truth.shape == (48, 64)
    _, truth, _ = crop((image[:, :9, :7], mask[:9, :7], mask[:9, :7]), (2, 2, 5, 5))
    assert truth.shape == (9, 7)


def test_the_slice_of_a_volume_with_the_most_errors_is_shown():
    truth, prediction = np.zeros((5, 4, 6), np.uint8), np.zeros((5, 4, 6), np.uint8)
    truth[1] = 255
    prediction[1], prediction[3, 0] = 1, 1
    (image, t, p), place = worst_slice((np.arange(120).reshape(1, 5, 4, 6), truth, prediction), 255)
    assert place == 3
    assert image.shape == (1, 4, 6)
    assert t.shape == p.shape == (4, 6)
    assert image[0, 0, 0] == 72
    assert worst_slice((image, t, p), 255)[1] is None


def test_wrong_pixels_are_magenta_and_ignored_pixels_white():
    truth, prediction = np.zeros((4, 4), np.uint8), np.zeros((4, 4), np.uint8)
    prediction[0, 0], truth[3, 3] = 1, 255
    shown = difference(np.full((1, 4, 4), 9, np.uint8), truth, prediction, LABELS)
    assert shown[0, 0].tolist() == [230, 0, 110]
    assert shown[3, 3].tolist() == [255, 255, 255]
    assert len(np.unique(shown[1:3].reshape(-1, 3), axis=0)) == 1


@pytest.mark.parametrize("shape", [(1, 1), (30, 40), (3000, 2000), (5000, 40), (40, 5000)])
@pytest.mark.parametrize("bands", [1, 3, 6])
def test_panels_are_small_for_any_image(shape, bands):
    generator = np.random.default_rng(0)
    image = generator.integers(0, 60000, (bands, *shape)).astype(np.uint16)
    mask = generator.integers(0, 2, shape).astype(np.uint8)
    before = image.copy()
    panels = view((image, mask, mask), LABELS, 20_000).panels
    assert list(panels) == ["image", "truth", "prediction", "difference"]
    for panel in panels.values():
        assert opened(panel.image).size == (panel.image.width, panel.image.height)
        assert 1 <= panel.image.width <= 480
        assert len(panel.image.uri) < 28_000
    assert panels["difference"].description == "0\u202f% of the pixels differ"
    np.testing.assert_array_equal(image, before)


def test_a_smaller_budget_results_in_a_smaller_file():
    noise = np.random.default_rng(0).integers(0, 256, (300, 400, 3)).astype(np.uint8)
    large, small = encode(noise, 10**6), encode(noise, 8000)
    assert len(small.uri) < 11_000 < len(large.uri)
    assert opened(large).size == (400, 300)


def test_png_thumbnails_are_lossless():
    pixels = np.random.default_rng(0).integers(0, 256, (5, 7, 3)).astype(np.uint8)
    np.testing.assert_array_equal(np.asarray(opened(encode_png(pixels))), pixels)
