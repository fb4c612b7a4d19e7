from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image
from sklearn.metrics import mutual_info_score

from pixelwise.data.dataset import Dataset, Record
from pixelwise.data.fingerprint import Moments, class_thickness, count_rows, fingerprint, row_spread
from pixelwise.data.masks import MaskRule
from pixelwise.errors import DataError, ImageError
from pixelwise.labels import Labels
from pixelwise.types import Fingerprint

TWO = Labels(("ground", "road"))


def make(root: Path, *pairs: tuple[np.ndarray, np.ndarray], labels: Labels = TWO) -> Dataset:
    records = []
    for k, (image, mask) in enumerate(pairs):
        Image.fromarray(image).save(root / f"{k}.png")
        Image.fromarray(mask).save(root / f"{k}_mask.png")
        records.append(Record(str(k), root / f"{k}.png", root / f"{k}_mask.png"))
    return Dataset(labels, tuple(records), MaskRule(), "train")


def pair(rng: np.random.Generator, size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    mask = rng.choice(np.array([0, 1, 255], np.uint8), size)
    mask[0, :2] = 0, 1
    return rng.integers(0, 256, (*size, 3), np.uint8), mask


def test_facts_equal_those_of_all_pixels_at_once(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    pairs = [pair(rng, size) for size in ((20, 30), (17, 9), (40, 25))]
    facts = fingerprint(make(tmp_path, *pairs))
    counted = np.concatenate([image[mask != 255] for image, mask in pairs]).astype(float)
    np.testing.assert_allclose(facts.mean, counted.mean(0), rtol=1e-12)
    np.testing.assert_allclose(facts.std, counted.std(0), rtol=1e-12)
    masks = np.concatenate([mask.reshape(-1) for _, mask in pairs])
    assert facts.pixel_counts == (int((masks == 0).sum()), int((masks == 1).sum()))
    assert facts.image_counts == (3, 3)
    assert facts.ignored_share == pytest.approx((masks == 255).mean(), rel=1e-12)
    assert facts.sizes == ((17, 9), (20, 30), (40, 25))
    assert (facts.images, facts.channels, facts.dtype) == (3, 3, "uint8")
    assert Fingerprint.from_dict(facts.to_dict()) == facts


def test_moments_keep_small_spreads_on_large_values() -> None:
    rng = np.random.default_rng(1)
    moments = Moments()
    values = (1e6 + rng.normal(0, 0.5, (2, 300, 400))).astype(np.float32)
    for part in np.array_split(values, 7, axis=1):
        moments.add(part, np.ones(part.shape[1:], bool))
    moments.add(values[:, :0], np.ones((0, 400), bool))
    np.testing.assert_allclose(moments.std, values.astype(float).std((1, 2)), rtol=1e-9)


def test_the_choice_is_reproducible_and_limited(tmp_path: Path) -> None:
    rng = np.random.default_rng(2)
    data = make(tmp_path, *(pair(rng, (8, 8)) for _ in range(12)))
    seen: list[tuple[int, int]] = []
    one = fingerprint(data, limit=4, progress=lambda done, total: seen.append((done, total)))
    assert seen == [(1, 4), (2, 4), (3, 4), (4, 4)]
    assert one.images == 4
    assert fingerprint(data.subset(range(11, -1, -1)), limit=4) == one
    assert fingerprint(data, limit=4, seed=1).mean != one.mean
    assert one.hash == data.hash()


@pytest.mark.parametrize(("width", "length"), [(1, 40), (3, 40), (8, 40)])
def test_thickness_of_a_strip_across_the_picture_is_its_width(width: int, length: int) -> None:
    mask = np.zeros((30, length), np.uint8)
    mask[10 : 10 + width] = 1
    assert class_thickness(mask, TWO)[1] == width


def test_thickness_by_hand() -> None:
    mask = np.zeros((6, 6), np.uint8)
    mask[1:3, 1:4] = 1  # 2 × 3: area 6, 10 edges
    mask[5, 5] = 255  # 2 edges with ground
    assert class_thickness(mask, TWO) == [2 * 29 / 12, 2 * 6 / 10]
    assert class_thickness(np.full((5, 9), 1, np.uint8), TWO) == [None, 5.0]
    assert class_thickness(np.full((5, 9), 255, np.uint8), TWO) == [None, None]


def test_thickness_of_a_disc() -> None:
    y, x = np.mgrid[:201, :201] - 100
    disc = (y**2 + x**2 <= 60**2).astype(np.uint8)
    assert class_thickness(disc, TWO)[1] == pytest.approx(60 * np.pi / 4, rel=0.02)


def test_thickness_is_the_median_over_pictures_that_show_the_class(tmp_path: Path) -> None:
    def strip(width: int) -> tuple[np.ndarray, np.ndarray]:
        mask = np.zeros((30, 30), np.uint8)
        mask[10 : 10 + width] = 1
        return np.zeros((30, 30, 3), np.uint8), mask

    facts = fingerprint(make(tmp_path, *(strip(width) for width in (0, 2, 9, 3))))
    assert facts.thickness[1] == 3
    three = Labels(("ground", "road", "never"))
    assert fingerprint(make(tmp_path, strip(2), labels=three)).thickness[2] is None


@settings(max_examples=40, deadline=None)
@given(arrays(np.uint8, st.tuples(st.integers(16, 40), st.integers(1, 12)), elements=st.integers(0, 2)))
def test_row_spread_equals_the_definition(mask: np.ndarray) -> None:
    labels = Labels(("a", "b", "c"))
    bands = np.repeat((np.arange(len(mask)) * 16 // len(mask))[:, None], mask.shape[1], 1)
    entropy = mutual_info_score(mask.reshape(-1), mask.reshape(-1))
    expected = mutual_info_score(mask.reshape(-1), bands.reshape(-1)) / entropy if entropy > 1e-12 else 0.0
    assert row_spread(count_rows(mask, labels)) == pytest.approx(expected, abs=1e-9)


def test_row_spread_of_sky_over_ground_and_of_noise() -> None:
    mask = np.zeros((32, 50), np.uint8)
    mask[16:] = 1
    assert row_spread(count_rows(mask, TWO)) == pytest.approx(1)
    noise = np.random.default_rng(0).integers(0, 2, (160, 400), np.uint8)
    assert row_spread(count_rows(noise, TWO)) < 0.001
    mask[mask == 0] = 255
    assert row_spread(count_rows(mask, TWO)) == 0


def test_one_class_alone_is_an_error(tmp_path: Path) -> None:
    image = np.zeros((8, 8, 3), np.uint8)
    void = np.zeros((8, 8), np.uint8)
    void[0] = 7
    labels = Labels(("ground", "road"), ignore_ids=(7,))
    with pytest.raises(DataError) as error:
        fingerprint(make(tmp_path, (image, np.zeros((8, 8), np.uint8)), (image, void), labels=labels))
    assert str(error.value) == (
        "train masks: expected at least two classes, found only 'ground' in 2 masks. "
        "Check the masks, and that labels.yaml and data.mask_values name the ids that they hold."
    )


def test_masks_that_are_all_ignored(tmp_path: Path) -> None:
    image = np.zeros((8, 8, 3), np.uint8)
    three = Labels(("a", "b", "c"))
    data = make(tmp_path, (image, np.full((8, 8), 255, np.uint8)), labels=three)
    with pytest.raises(DataError, match="found only ignored pixels in 1 masks"):
        fingerprint(data)
    mixed = np.zeros((8, 8), np.uint8)
    mixed[:4] = 1
    both = make(tmp_path, (image, np.full((8, 8), 255, np.uint8)), (image, mixed), labels=three)
    assert fingerprint(both).ignored_share == 0.5


def test_pictures_of_different_kinds_name_two_files(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    image, mask = pair(rng, (8, 8))
    data = make(tmp_path, (image, mask), (image[..., 0], mask))
    with pytest.raises(ImageError) as error:
        fingerprint(data)
    text = str(error.value)
    assert str(tmp_path / "0.png") in text
    assert str(tmp_path / "1.png") in text
    assert "3 bands of uint8" in text
    assert "1 band of uint8" in text
    deep = make(tmp_path, (image[..., 0], mask), (image[..., 0].astype(np.uint16) * 200, mask))
    with pytest.raises(ImageError, match="1 band of uint16"):
        fingerprint(deep)
