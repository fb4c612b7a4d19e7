"""Cropped copies are found, and compared with the signatures of images that were really cropped."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from pixelwise.checking.crop_search import crop_correlations, nearest_crops
from pixelwise.checking.image_signature import image_signature, unpack
from pixelwise.checking.signature_search import Nearest, nearest


def scene(seed: int, size: tuple[int, int] = (120, 160)) -> np.ndarray:
    """Draw an image (3, H, W) of soft patches."""
    small = Image.fromarray(np.random.default_rng(seed).integers(0, 255, (6, 8, 3), np.uint8))
    return np.moveaxis(np.asarray(small.resize(size[::-1], Image.Resampling.BICUBIC)), -1, 0)


def vectors_of(*images: np.ndarray) -> np.ndarray:
    return unpack([image_signature(np.ascontiguousarray(image)).coefficients for image in images])


@pytest.mark.parametrize("top", [0, 4, 12])
@pytest.mark.parametrize("left", [0, 6, 16])
def test_a_crop_is_the_best_part_of_its_image(top: int, left: int) -> None:
    image = scene(top + left)
    part = image[:, top : top + 108, left : left + 144]
    other = scene(99)[:, top : top + 108, left : left + 144]
    whole, cropped, unrelated = vectors_of(image, part, other)
    assert crop_correlations(whole[None], cropped[None])[0] > 0.99
    assert crop_correlations(whole[None], unrelated[None])[0] < 0.8


def test_crops_are_found_in_other_splits_and_only_there() -> None:
    images = [scene(k) for k in range(30)]
    parts = [image[:, 6:, ::-1][:, :, : 160 - 8] for image in images[:5]]  # mirrored, too
    inside = images[6][:, 6:, 8:]
    vectors = vectors_of(*images, inside, *parts)
    splits = ["train"] * 31 + ["val"] * 5
    across = nearest(vectors, splits, 0.02)[1]
    crops = nearest_crops(vectors, splits, 0.15, 0.02, across)
    found = np.maximum(across.neighbour, crops.neighbour)
    assert found[31:].tolist() == [0, 1, 2, 3, 4]
    assert found[:5].tolist() == [31, 32, 33, 34, 35]
    assert (found[5:31] == -1).all()
    assert (crops.distance[crops.neighbour >= 0] <= 0.02).all()


def test_images_with_a_neighbour_are_not_compared() -> None:
    image = scene(1)
    vectors = vectors_of(image, scene(2), image[:, 6:, 8:])
    splits = ["train", "train", "val"]
    known = Nearest.of(3)
    assert nearest_crops(vectors, splits, 0.15, 0.02, known).neighbour.tolist() == [2, -1, 0]
    known.neighbour[0] = 2
    assert nearest_crops(vectors, splits, 0.15, 0.02, known).neighbour.tolist() == [-1, -1, 0]
