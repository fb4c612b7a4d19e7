"""Crops of volumes with augmentation."""

from typing import Any

import numpy as np
import pytest
import torch

from pixelwise.config import ResolvedAugment
from pixelwise.training.volume_crops import VolumeTransform

IGNORE = 255
GEOMETRIES: list[dict[str, Any]] = [
    {},
    {"scale": (0.7, 1.5)},
    {"rotate": 30},
    {"flip_horizontal": 1.0, "flip_vertical": 1.0, "flip_depth": 1.0},
    {"elastic": 1.5},
    {"elastic": 1.0, "rotate": 90, "scale": (0.7, 1.5), "flip_horizontal": 0.5, "flip_depth": 0.5},
]


def transform(
    crop: tuple[int, int, int], spacing: tuple[float, ...] = (1, 1, 1), class_crops: float = 0.0, **augment: Any
) -> VolumeTransform:
    chosen = ResolvedAugment.model_validate(augment)
    return VolumeTransform(crop, chosen, class_crops, IGNORE, (0.0,), (1.0,), spacing)


def balls(seed: int, size: tuple[int, ...]) -> tuple[torch.Tensor, torch.Tensor]:
    """Draw balls of classes 1…4 in class 1; the image is 50 × the class."""
    rng = np.random.default_rng(seed)
    places = np.indices(size)
    mask = np.ones(size, np.uint8)
    for _ in range(8):
        at, radius = rng.uniform(0, size), rng.uniform(4, 9)
        mask[((places - at[:, None, None, None]) ** 2).sum(0) < radius**2] = rng.integers(2, 5)
    return torch.from_numpy(mask[None].astype(np.float32) * 50), torch.from_numpy(mask)


@pytest.mark.parametrize("augment", GEOMETRIES, ids=str)
@pytest.mark.parametrize("crop", [(16, 24, 20), (40, 12, 12), (17, 33, 9)])
@pytest.mark.parametrize("spacing", [(1.0, 1.0, 1.0), (1.2, 0.9, 1.0), (4.0, 1.0, 1.0)])
def test_image_and_mask_stay_aligned(
    crop: tuple[int, int, int], spacing: tuple[float, ...], augment: dict[str, Any]
) -> None:
    draw = transform(crop, spacing, class_crops=0.5, **augment)
    compared = equal = 0
    for seed in range(4):
        image, mask = draw(*balls(seed, (30, 36, 32)), np.random.default_rng(seed))
        values, truth = image[0].numpy(), mask.numpy()
        assert (values.shape, truth.shape, image.dtype, mask.dtype) == (crop, crop, torch.float32, torch.int64)
        known = truth != IGNORE
        compared += int(known.sum())
        equal += int((np.rint(values / 50) == truth)[known].sum())
    assert compared > 4 * np.prod(crop) / 8
    # Where the image is interpolated between two classes, it may be nearer to another one.
    assert equal / compared > (0.85 if augment.keys() & {"rotate", "scale", "elastic"} else 0.9999999)


def test_without_augmentation_a_crop_is_a_part_of_the_volume() -> None:
    image = torch.arange(10 * 11 * 12).view(1, 10, 11, 12)
    mask = (image[0] % 3).byte()
    draw = transform((4, 5, 6))
    places = set()
    for seed in range(60):
        values, truth = draw(image, mask, np.random.default_rng(seed))
        first = int(values[0, 0, 0, 0])
        z, y, x = np.unravel_index(first, (10, 11, 12))
        box = (slice(z, z + 4), slice(y, y + 5), slice(x, x + 6))
        assert torch.equal(values[0], image[0][box].float())
        assert torch.equal(truth, mask[box].long())
        places.add((int(z), int(y), int(x)))
    assert {p[0] for p in places} == set(range(7))


@pytest.mark.parametrize("size", [(1, 1, 1), (1, 9, 30), (5, 3, 7)])
@pytest.mark.parametrize("augment", [{}, {"rotate": 20, "scale": (0.8, 1.2)}], ids=str)
def test_beyond_small_volumes_the_mask_is_ignored_and_the_image_mirrored(
    size: tuple[int, ...], augment: dict[str, Any]
) -> None:
    image = torch.from_numpy(np.random.default_rng(0).uniform(3, 4, (1, *size)).astype(np.float32))
    mask = torch.zeros(size, dtype=torch.uint8)
    values, truth = transform((8, 12, 16), class_crops=0.5, **augment)(image, mask, np.random.default_rng(1))
    assert values.shape == (1, 8, 12, 16)
    # Between the points of a turned crop there may be a single voxel.
    assert {IGNORE} <= set(truth.unique().tolist()) <= {0, IGNORE}
    assert 2.99 <= float(values.min()) <= float(values.max()) <= 4.01
    if not augment:
        inside = [min(a, b) for a, b in zip(size, (8, 12, 16), strict=True)]
        assert int((truth == 0).sum()) == np.prod(inside)


@pytest.mark.parametrize(
    ("spacing", "depth", "tilted"),
    [((1.0, 1.0, 1.0), 8, True), ((3.0, 1.0, 1.0), 8, False), ((1.0, 1.0, 1.0), 4, False)],
)
def test_thick_or_few_slices_are_not_tilted(spacing: tuple[float, ...], depth: int, tilted: bool) -> None:
    mask = torch.arange(20, dtype=torch.uint8).view(20, 1, 1).expand(20, 20, 20).contiguous()
    draw = transform((depth, 8, 8), spacing, rotate=40, elastic=2)
    truths = [draw(mask[None].float(), mask, np.random.default_rng(seed))[1] for seed in range(5)]
    flat = all(len(set(truth[k].unique().tolist()) - {IGNORE}) <= 1 for truth in truths for k in range(depth))
    assert flat is not tilted


def test_rotations_keep_lengths_in_millimetres() -> None:
    """A cylinder that is round in millimetres stays round: its rows and columns differ in spacing."""
    spacing = (1.0, 2.0, 1.0)
    y, x = np.indices((30, 60)) * np.array(spacing[1:])[:, None, None] - np.array([29, 29.5])[:, None, None]
    mask = torch.from_numpy(np.broadcast_to(y**2 + x**2 < 15**2, (5, 30, 60)).astype(np.uint8).copy())
    draw = transform((5, 30, 60), spacing, rotate=90)
    for seed in range(6):
        truth = draw(mask[None].float(), mask, np.random.default_rng(seed))[1].numpy()[2]
        rows, columns = np.nonzero(truth == 1)
        heights = np.ptp(rows * 2.0) + 2, np.ptp(columns) + 1
        assert abs(heights[0] - heights[1]) <= 4, seed


def test_the_same_random_numbers_give_the_same_crop() -> None:
    draw = transform(
        (12, 12, 12), class_crops=0.5, elastic=1, rotate=30, scale=(0.8, 1.2), brightness=0.2, contrast=0.2, noise=0.1
    )
    one, other, third = (draw(*balls(0, (20, 20, 20)), np.random.default_rng(seed)) for seed in (5, 5, 6))
    assert torch.equal(one[0], other[0])
    assert torch.equal(one[1], other[1])
    assert not torch.equal(one[0], third[0])


@pytest.mark.parametrize("size", [(20, 20, 20), (40, 160, 200)], ids=str)  # the larger one is searched sparsely
@pytest.mark.parametrize("augment", [{}, {"rotate": 45, "scale": (0.8, 1.2)}], ids=str)
def test_crops_are_centred_on_rare_classes(size: tuple[int, int, int], augment: dict[str, Any]) -> None:
    mask = torch.zeros(size, dtype=torch.uint8)
    mask[14:18, 15:19, 2:6] = 1
    draw = transform((8, 8, 8), class_crops=1.0, **augment)
    for seed in range(20):
        truth = draw(mask[None].float(), mask, np.random.default_rng(seed))[1]
        assert (truth == 1).any(), seed
