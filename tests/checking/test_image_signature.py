from io import BytesIO

import numpy as np
import pytest
from PIL import Image
from scipy.fft import dctn

from pixelwise.checking.image_signature import LENGTH, image_signature, unpack


def scene(seed: int, size: tuple[int, int] = (96, 128)) -> np.ndarray:
    """Draw an image (3, H, W) of soft patches."""
    rng = np.random.default_rng(seed)
    small = Image.fromarray(rng.integers(0, 255, (6, 8, 3), np.uint8))
    return np.moveaxis(np.asarray(small.resize(size[::-1], Image.Resampling.BICUBIC)), -1, 0)


def distance(one: np.ndarray, two: np.ndarray) -> float:
    vectors = unpack([image_signature(one).coefficients, image_signature(two).coefficients])
    return 1 - float(vectors[0] @ vectors[1])


def test_the_signature_is_a_low_pass_cosine_transform() -> None:
    image = scene(1, (160, 160))
    grey = image.astype(np.uint16).sum(0) // 3
    small = np.asarray(Image.fromarray(grey.astype(np.uint8)).resize((32, 32), Image.Resampling.BOX), float)
    expected = dctn(small, norm="ortho")[:12, :12].reshape(-1)[1:]
    expected /= np.linalg.norm(expected)
    assert len(image_signature(image).coefficients) == LENGTH
    assert unpack([image_signature(image).coefficients])[0] == pytest.approx(expected, abs=0.006)


def saved(image: np.ndarray, quality: int) -> np.ndarray:
    buffer = BytesIO()
    Image.fromarray(np.moveaxis(image, 0, -1)).save(buffer, "JPEG", quality=quality)
    return np.moveaxis(np.asarray(Image.open(buffer)), -1, 0)


def scaled(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    return np.moveaxis(np.asarray(Image.fromarray(np.moveaxis(image, 0, -1)).resize(size[::-1])), -1, 0)


def test_copies_are_near_and_other_images_far() -> None:
    image = scene(2)
    copies = {
        "jpeg": saved(image, 40),
        "half": scaled(image, (48, 64)),
        "twice": scaled(image, (192, 256)),
        "darker": (image * 0.6).astype(np.uint8),
        "grey": image.mean(0).astype(np.uint8)[None],
        "deep": image.astype(np.uint16) * 257,
        "fractions": (image / 255).astype(np.float32),
    }
    for name, copy in copies.items():
        assert distance(image, copy) < 0.005, name
    assert min(distance(image, scene(seed)) for seed in range(3, 30)) > 0.3


@pytest.mark.parametrize(
    "image", [np.zeros((3, 64, 64), np.uint8), np.full((1, 64, 64), 700, np.uint16), np.zeros((1, 9, 9))]
)
def test_flat_images_have_no_signature(image: np.ndarray) -> None:
    assert image_signature(image) == (b"", 0.0)


def test_noise_has_no_signature() -> None:
    rng = np.random.default_rng(0)
    image = rng.integers(100, 104, (3, 320, 320), np.uint8)
    waves, spread = image_signature(image)
    assert waves == b""
    assert 0.3 < spread < 1.5


def test_the_spread_is_that_of_the_pixels() -> None:
    rng = np.random.default_rng(0)
    image = rng.normal(1000, 50, (1, 150, 150)).astype(np.uint16)
    assert image_signature(image).spread == pytest.approx(50, rel=0.05)


@pytest.mark.parametrize("shape", [(1, 1, 1), (3, 1, 500), (4, 700, 2), (2, 33, 31)])
def test_any_shape_has_a_signature(shape: tuple[int, int, int]) -> None:
    rng = np.random.default_rng(1)
    waves, spread = image_signature(rng.integers(0, 255, shape, np.uint8))
    assert len(waves) in (0, LENGTH)
    assert np.isfinite(spread)


def test_one_band_is_not_a_copy_of_its_negative() -> None:
    image = scene(4)
    assert distance(image, 255 - image) == pytest.approx(2, abs=0.01)
