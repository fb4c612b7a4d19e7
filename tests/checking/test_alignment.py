import numpy as np
import pytest
from tests.checking.drawn import halves, image_of

from pixelwise.checking.alignment import LENGTH, REACH, alignment_profiles

IGNORED = 255


def blobs(seed: int, size: int = 128) -> np.ndarray:
    """Draw a mask of three classes in patches with uneven borders."""
    rng = np.random.default_rng(seed)
    field = np.kron(rng.random((9, 9)), np.ones((16, 16)))[:size, :size]
    for _ in range(3):
        field = (field + np.roll(field, 3, 0) + np.roll(field, 3, 1) + np.roll(field, -2, 0)) / 4
    return np.digitize(field, (0.4, 0.6)).astype(np.uint8)


def painted(mask: np.ndarray, seed: int, bands: int = 3) -> np.ndarray:
    rng = np.random.default_rng(seed)
    colours = rng.integers(30, 220, (4, bands))
    image = colours[np.minimum(mask, 3)] + rng.normal(0, 12, (*mask.shape, bands))
    return np.moveaxis(np.clip(image, 0, 255).astype(np.uint8), -1, 0)


def moved(mask: np.ndarray, right: int, down: int) -> np.ndarray:
    out = np.full_like(mask, IGNORED)
    height, width = mask.shape
    out[max(down, 0) : height + min(down, 0), max(right, 0) : width + min(right, 0)] = mask[
        max(-down, 0) : height + min(-down, 0), max(-right, 0) : width + min(-right, 0)
    ]
    return out


@pytest.mark.parametrize("shift", [(0, 0), (3, 0), (-5, 0), (0, 4), (0, -2), (2, -3)])
@pytest.mark.parametrize("bands", [1, 3, 5])
def test_the_peak_is_at_the_shift(shift: tuple[int, int], bands: int) -> None:
    mask = blobs(1)
    profiles = alignment_profiles(painted(mask, 2, bands), moved(mask, *shift), IGNORED)
    assert profiles.shape == (2, LENGTH)
    assert tuple(REACH - profiles.argmax(1)) == shift


def test_other_pixel_types_give_the_same_profile() -> None:
    mask = blobs(3)
    image = painted(mask, 4)
    expected = alignment_profiles(image, moved(mask, 3, -1), IGNORED)
    for other in (image.astype(np.uint16) * 257, image.astype(np.float32) / 255 - 3):
        assert np.array_equal(alignment_profiles(other, moved(mask, 3, -1), IGNORED), expected)


def test_a_profile_has_mean_one() -> None:
    mask = blobs(5)
    assert np.allclose(alignment_profiles(painted(mask, 6), mask, IGNORED).mean(1), 1, atol=1e-2)


def test_masks_with_too_few_edges_have_no_profile() -> None:
    image = np.moveaxis(image_of(halves(), 1), -1, 0)
    assert not alignment_profiles(image, np.zeros((64, 64), np.uint8), IGNORED).any()
    along_x, along_y = alignment_profiles(image, halves(), IGNORED)
    assert along_x.any()
    assert not along_y.any()
    few = np.zeros((64, 64), np.uint8)
    few[20:24, 20:24] = 1
    assert not alignment_profiles(image, few, IGNORED).any()


def test_edges_next_to_ignored_pixels_do_not_count() -> None:
    image = np.moveaxis(image_of(halves(), 1), -1, 0)
    mask = halves()
    mask[:, 30:34] = IGNORED
    assert not alignment_profiles(image, mask, IGNORED).any()


@pytest.mark.parametrize("size", [(1, 1), (3, 200), (20, 20), (33, 33), (34, 34)])
def test_small_images_give_finite_profiles(size: tuple[int, int]) -> None:
    rng = np.random.default_rng(0)
    mask = rng.integers(0, 2, size, np.uint8)
    image = rng.integers(0, 255, (3, *size), np.uint8)
    assert np.isfinite(alignment_profiles(image, mask, IGNORED)).all()


def test_a_constant_image_has_no_profile() -> None:
    assert not alignment_profiles(np.full((3, 128, 128), 9, np.uint8), blobs(7), IGNORED).any()
