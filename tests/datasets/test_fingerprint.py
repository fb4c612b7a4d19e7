import json
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

from pixelwise.datasets.dataset import Dataset, Record
from pixelwise.datasets.fingerprint import Spacings, class_thickness, fingerprint
from pixelwise.errors import DataError, ImageError
from pixelwise.grid import Grid
from pixelwise.imageio.masks import MaskRule
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


def test_statistics_equal_those_of_all_pixels(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    pairs = [pair(rng, size) for size in ((20, 30), (17, 9), (40, 25))]
    result = fingerprint(make(tmp_path, *pairs))
    counted = np.concatenate([image[mask != 255] for image, mask in pairs]).astype(float)
    np.testing.assert_allclose(result.mean, counted.mean(0), rtol=1e-12)
    np.testing.assert_allclose(result.std, counted.std(0), rtol=1e-12)
    masks = np.concatenate([mask.reshape(-1) for _, mask in pairs])
    assert result.pixel_counts == (int((masks == 0).sum()), int((masks == 1).sum()))
    assert result.image_counts == (3, 3)
    assert result.ignored_share == pytest.approx((masks == 255).mean(), rel=1e-12)
    assert result.sizes == ((17, 9), (20, 30), (40, 25))
    assert (result.images, result.channels, result.dtype, result.distinct_sizes) == (3, 3, "uint8", 3)
    expected = np.percentile(counted, (0.5, 50, 99.5), axis=0).T
    np.testing.assert_allclose(result.percentiles, expected, rtol=1e-12)
    assert result.extremes == tuple(zip(counted.min(0), counted.max(0), strict=True))
    assert result.core == ()  # 8-bit images have no core
    plain = json.loads(json.dumps(result.to_dict(), allow_nan=False))
    assert Fingerprint.from_dict(plain) == result


@pytest.mark.parametrize("kind", ["uint16", "float32"])
def test_the_core_of_deep_images_includes_every_class(tmp_path: Path, kind: str) -> None:
    rng = np.random.default_rng(3)
    mask = np.zeros((80, 100), np.uint8)
    mask[:2, :10] = 1  # 0.25 % of the pixels, and all bright
    values = rng.uniform(100, 200, mask.shape)
    values[mask == 1] = rng.uniform(4000, 5000, 20)
    values[79, 90:] = 60000.0  # ten outliers
    image = values.astype(kind)
    tifffile.imwrite(tmp_path / "0.tif", image)
    Image.fromarray(mask).save(tmp_path / "0_mask.png")
    data = Dataset(TWO, (Record("0", tmp_path / "0.tif", tmp_path / "0_mask.png"),), MaskRule(), "train")
    result = fingerprint(data)
    ((low, high),) = result.core
    assert low == pytest.approx(np.percentile(image, 0.5))
    assert high == pytest.approx(np.percentile(image[mask == 1], 95))
    assert result.extremes == ((image.min(), 60000.0),)
    inside = np.clip(image.astype(float), low, high)
    assert result.core_mean == pytest.approx((inside.mean(),))
    assert result.core_std == pytest.approx((inside.std(),))
    assert result.mean == pytest.approx((image.astype(float).mean(),), rel=1e-6)
    assert result.dtype == kind


def test_objects_and_positions_are_in_the_fingerprint(tmp_path: Path) -> None:
    mask = np.zeros((32, 32), np.uint8)
    mask[4:8, 2:12], mask[20:22, 2:4] = 1, 1
    result = fingerprint(make(tmp_path, *[(np.zeros((32, 32, 3), np.uint8), mask)] * 6))
    assert result.object_sizes[1] == (4.0, 22.0, 40.0)
    assert result.objects_per_image == (1.0, 2.0)
    assert result.one_sided[1] == 1.0
    assert 0.1 < (result.column_spread or 0) < 1
    assert (result.spacing, result.spacing_unit, result.spacings_differ) == ((1.0, 1.0), "px", False)


def test_spacings_are_in_the_most_frequent_unit() -> None:
    spacings = Spacings()
    for spacing in ((0.5, 0.5), (0.5, 0.7), (0.5, 0.9)):
        spacings.add(Grid(spacing, "mm"), (4, 4))
    assert spacings.result() == ((0.5, 0.7), "mm", True)
    spacings.add(Grid(), (4, 4))
    assert spacings.result() == ((0.5, 0.7), "mm", True)
    same = Spacings()
    for spacing in ((0.97656, 0.97656), (0.9765625, 0.9765625)):
        same.add(Grid(spacing, "mm"), (4, 4))
    assert not same.result()[2]
    same.add(Grid((1.0, 1.0), "m"), (4, 4))
    assert same.result()[2]


def test_degrees_are_recorded_as_metres() -> None:
    spacings = Spacings()
    spacings.add(Grid((1e-5, 1e-5), "deg", ((1e-5, 0, 7), (0, -1e-5, 60), (0, 0, 1)), "EPSG:4326"), (10, 10))
    (rows, columns), unit, _ = spacings.result()
    assert unit == "m"
    assert rows == pytest.approx(1.112, rel=1e-3)
    assert columns == pytest.approx(0.556, rel=1e-3)


def test_fingerprints_of_older_versions_are_read() -> None:
    plain = {
        "images": 9, "channels": 1, "dtype": "uint8", "sizes": [[20, 30], [20, 30], [40, 50]], "mean": [1.0],
        "std": [1.0], "pixel_counts": [900, 50], "image_counts": [9, 5], "ignored_share": 0.01,
        "thickness": [20.0, None], "row_spread": 0.25, "hash": "a1",
    }  # fmt: skip
    old = Fingerprint.from_dict(plain)
    assert (old.core, old.object_sizes, old.one_sided, old.distinct_sizes) == ((), (), (), None)


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


@pytest.mark.parametrize("place", range(4))
def test_more_images_are_read_if_they_show_one_class(tmp_path: Path, place: int) -> None:
    image, bare, rare = np.zeros((8, 8, 3), np.uint8), np.zeros((8, 8), np.uint8), np.eye(8, dtype=np.uint8)
    data = make(tmp_path, *((image, rare if k == place else bare) for k in range(4)))
    result = fingerprint(data, limit=1)
    assert result.image_counts == (result.images, 1)
    assert result.pixel_counts[1] == 8


@pytest.mark.parametrize(("width", "length"), [(1, 40), (3, 40), (8, 40)])
def test_thickness_of_a_strip_across_the_image_is_its_width(width: int, length: int) -> None:
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


def test_thickness_is_the_median_over_images_that_show_the_class(tmp_path: Path) -> None:
    def strip(width: int) -> tuple[np.ndarray, np.ndarray]:
        mask = np.zeros((30, 30), np.uint8)
        mask[10 : 10 + width] = 1
        return np.zeros((30, 30, 3), np.uint8), mask

    result = fingerprint(make(tmp_path, *(strip(width) for width in (0, 2, 9, 3))))
    assert result.thickness[1] == 3
    three = Labels(("ground", "road", "never"))
    assert fingerprint(make(tmp_path, strip(2), labels=three)).thickness[2] is None


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


def test_masks_with_only_ignored_pixels(tmp_path: Path) -> None:
    image = np.zeros((8, 8, 3), np.uint8)
    three = Labels(("a", "b", "c"))
    data = make(tmp_path, (image, np.full((8, 8), 255, np.uint8)), labels=three)
    with pytest.raises(DataError, match="found only ignored pixels in 1 masks"):
        fingerprint(data)
    mixed = np.zeros((8, 8), np.uint8)
    mixed[:4] = 1
    both = make(tmp_path, (image, np.full((8, 8), 255, np.uint8)), (image, mixed), labels=three)
    assert fingerprint(both).ignored_share == 0.5


def test_different_pixel_types_name_two_files(tmp_path: Path) -> None:
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
