"""Which images are chosen, and what is made of them."""

from __future__ import annotations

import base64
import io

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from pixelwise.labels import Labels
from pixelwise.reporting import choose
from pixelwise.reporting.thumbnails import EACH, area_error, crop, difference, encoded, exact, flat, panels

LABELS = Labels(("background", "disc"))


def entry(id, miou, shift=0):
    return {"id": id, "miou": miou, "pixels": 100, "counts": [[0, 50, 60, 60 + shift, 3], [1, 30, 40, 40 - shift, 0]]}


def opened(panel):
    return Image.open(io.BytesIO(base64.b64decode(panel.uri.partition(",")[2])))


def test_worst_typical_best_and_those_of_wrong_areas_are_chosen_once_each():
    images = [entry(f"{i:02}", i / 40, 20 if i in (0, 15, 16) else 0) for i in range(40)]
    chosen = choose({"per_image": images[::-1]})
    assert chosen == {
        "worst": ["00", "01", "02", "03"],
        "median": ["20", "19", "21", "18"],
        "best": ["39", "38", "37", "36"],
        "area": ["15", "16"],
    }


@given(st.lists(st.one_of(st.none(), st.floats(0, 1)), max_size=30))
def test_no_image_is_chosen_twice_nor_one_without_a_score(values):
    images = [entry(str(i), value, i) for i, value in enumerate(values)]
    chosen = choose({"per_image": images})
    ids = [id for group in chosen.values() for id in group]
    assert len(ids) == len(set(ids))
    assert all(values[int(id)] is not None for id in ids)
    assert all(1 <= len(group) <= EACH for group in chosen.values())
    assert bool(ids) == any(value is not None for value in values)
    if "worst" in chosen:
        assert values[int(chosen["worst"][0])] == min(v for v in values if v is not None)
        assert values[int(chosen["best"][0])] == max(v for v in values if v is not None)


def test_few_images_are_all_shown_and_none_are_none():
    assert choose({"per_image": [entry("b", 0.5), entry("a", 0.5), entry("c", 0.1)]}) == {"all": ["c", "a", "b"]}
    assert choose({"per_image": []}) == choose({}) == {}


def test_the_error_of_areas_by_hand():
    # Class 0 takes 20 pixels too many, class 1 takes 20 too few: 40 of 100.
    assert area_error(entry("a", 0.5, 20)) == 0.4
    assert area_error(entry("a", 0.5)) == 0.0
    assert area_error({"id": "a", "pixels": 0, "counts": []}) is None


def test_a_crop_holds_its_box_with_a_margin_inside_the_image():
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


def test_of_a_volume_the_slice_with_most_errors_is_shown():
    truth, prediction = np.zeros((5, 4, 6), np.uint8), np.zeros((5, 4, 6), np.uint8)
    truth[1] = 255
    prediction[1], prediction[3, 0] = 1, 1
    (image, t, p), place = flat((np.arange(120).reshape(1, 5, 4, 6), truth, prediction), 255)
    assert place == 3
    assert image.shape == (1, 4, 6)
    assert t.shape == p.shape == (4, 6)
    assert image[0, 0, 0] == 72
    assert flat((image, t, p), 255)[1] is None


def test_differences_are_magenta_and_void_is_white():
    truth, prediction = np.zeros((4, 4), np.uint8), np.zeros((4, 4), np.uint8)
    prediction[0, 0], truth[3, 3] = 1, 255
    shown = difference(np.full((1, 4, 4), 9, np.uint8), truth, prediction, LABELS)
    assert shown[0, 0].tolist() == [230, 0, 110]
    assert shown[3, 3].tolist() == [255, 255, 255]
    assert len(np.unique(shown[1:3].reshape(-1, 3), axis=0)) == 1


@pytest.mark.parametrize("shape", [(1, 1), (30, 40), (3000, 2000), (5000, 40), (40, 5000)])
@pytest.mark.parametrize("bands", [1, 3, 6])
def test_panels_are_small_whatever_comes(shape, bands):
    generator = np.random.default_rng(0)
    image = generator.integers(0, 60000, (bands, *shape)).astype(np.uint16)
    mask = generator.integers(0, 2, shape).astype(np.uint8)
    before = image.copy()
    made = panels((image, mask, mask), LABELS, 20_000)
    assert list(made) == ["picture", "truth", "prediction", "difference"]
    for panel in made.values():
        assert opened(panel).size == (panel.width, panel.height)
        assert 1 <= panel.width <= 480
        assert len(panel.uri) < 28_000
    np.testing.assert_array_equal(image, before)


def test_a_smaller_budget_gives_a_smaller_file():
    noise = np.random.default_rng(0).integers(0, 256, (300, 400, 3)).astype(np.uint8)
    large, small = encoded(noise, 10**6), encoded(noise, 8000)
    assert len(small.uri) < 11_000 < len(large.uri)
    assert opened(large).size == (400, 300)


def test_exact_images_keep_every_value():
    pixels = np.random.default_rng(0).integers(0, 256, (5, 7, 3)).astype(np.uint8)
    np.testing.assert_array_equal(np.asarray(opened(exact(pixels))), pixels)
