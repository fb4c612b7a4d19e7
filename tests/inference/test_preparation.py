"""The same spacing and intensities for all images, before they are predicted."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.inference.backends import predictor_of
from torch.nn import functional

from pixelwise.grid import Grid
from pixelwise.inference.preparation import nearest, prepared, resampled, resampled_size, standardised
from pixelwise.labels import Labels
from pixelwise.types import ModelSpec

LABELS = Labels(("dark", "bright"))
sizes = st.tuples(st.integers(1, 9), st.integers(1, 9), st.integers(1, 9))


def grid(*spacing: float) -> Grid:
    return Grid(spacing, "mm")


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 2**32), st.sampled_from([1e-3, 1.0, 3e4]), st.sampled_from([-500.0, 0.0, 1e5]), st.booleans())
def test_standardised_images_do_not_depend_on_the_scale_of_the_scanner(
    seed: int, gain: float, offset: float, gaps: bool
) -> None:
    rng = np.random.default_rng(seed)
    image = rng.normal(size=(2, 3, 4, 5)) * [[[[1]]], [[[7]]]]
    valid = rng.random((3, 4, 5)) < 0.7 if gaps else None
    mine = standardised(image * gain + offset, valid)
    counted = mine[:, valid] if valid is not None else mine.reshape(2, -1)
    np.testing.assert_allclose(counted.mean(1), 0, atol=1e-4)
    np.testing.assert_allclose(counted.std(1), 1, atol=1e-4)
    np.testing.assert_allclose(mine, standardised(image, valid), atol=1e-3)


@pytest.mark.parametrize("value", [0, 7, -1024, 0.1, 123456.789])
def test_constant_images_become_zero(value: float) -> None:
    image = np.full((1, 4, 4, 4), value, np.float32 if isinstance(value, float) else np.int16)
    assert (standardised(image) == 0).all()
    assert (standardised(image, np.zeros((4, 4, 4), bool)) == 0).all()


@settings(max_examples=60, deadline=None)
@given(sizes, sizes, st.integers(0, 2**32))
def test_enlarging_is_that_of_torch(size: tuple[int, ...], more: tuple[int, ...], seed: int) -> None:
    larger = tuple(a + b for a, b in zip(size, more, strict=True))
    values = np.random.default_rng(seed).normal(size=(2, *size)).astype(np.float32)
    right = functional.interpolate(torch.from_numpy(values)[None], larger, mode="trilinear", align_corners=False)[0]
    mine = resampled(values, larger)
    np.testing.assert_allclose(mine, right.numpy(), atol=1e-5)
    middle = slice(larger[0] // 3, larger[0] // 3 + 1)
    np.testing.assert_allclose(resampled(values, larger, middle), mine[:, middle], atol=1e-6)


@settings(max_examples=60, deadline=None)
@given(sizes, sizes, st.integers(0, 2**32))
def test_probabilities_stay_probabilities_and_no_voxel_is_skipped(
    size: tuple[int, ...], other: tuple[int, ...], seed: int
) -> None:
    values = np.random.default_rng(seed).dirichlet([1, 1, 1], size).astype(np.float32)
    mine = resampled(np.moveaxis(values, -1, 0), other)
    assert mine.shape == (3, *other)
    assert mine.min() >= -1e-6
    np.testing.assert_allclose(mine.sum(0), 1, atol=1e-5)
    # Every voxel has weight in the result: the gradient of its sum is positive.
    for axis, (side, new) in enumerate(zip(size, other, strict=True)):
        one = np.zeros(size, np.float32)
        np.moveaxis(one, axis, 0)[side // 2] = 1
        assert resampled(one[None], tuple(new if a == axis else s for a, s in enumerate(size))).sum() > 0


def test_the_nearest_voxel_contains_the_centre() -> None:
    ids = np.arange(6)
    assert nearest(ids, (3,)).tolist() == [1, 3, 5]
    assert nearest(ids, (12,)).tolist() == [0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5]
    assert nearest(ids, (6,)).tolist() == ids.tolist()
    assert nearest(ids, (1,)).tolist() == [3]


@pytest.mark.parametrize(
    ("spacing", "wanted", "size"),
    [
        ((1, 1, 1), (1, 1, 1), None),
        ((1.04, 1, 0.96), (1, 1, 1), None),
        ((2, 1, 1), (1, 1, 1), (20, 11, 12)),
        ((1, 1, 1), (2, 1, 1), (5, 11, 12)),
        ((0.5, 1, 1), (50, 1, 1), (1, 11, 12)),
        ((2, 1, 1), None, None),
    ],
)
def test_the_size_at_another_spacing(
    spacing: tuple[float, ...], wanted: tuple[float, ...] | None, size: tuple[int, ...] | None
) -> None:
    assert resampled_size((10, 11, 12), grid(*spacing), wanted) == size


def test_without_millimetres_nothing_is_resampled() -> None:
    assert resampled_size((10, 11, 12), Grid((3, 3, 3), "px"), (1, 1, 1)) is None
    assert resampled_size((10, 11), Grid((3, 3), "mm"), (1, 1, 1)) is None


def test_images_are_unchanged_without_rules() -> None:
    image = np.arange(24, dtype=np.int16).reshape(1, 2, 3, 4)
    assert prepared(image, None, None, ModelSpec(LABELS, 1, dimensions=3)) is image


def bright(images: np.ndarray) -> np.ndarray:
    return np.stack([-images[:, 0], images[:, 0]], axis=1)


@pytest.mark.parametrize("tile", [None, (4, 8, 8)])
@pytest.mark.parametrize("spacing", [(2.0, 1.0, 1.0), (1.0, 1.0, 1.0), (0.5, 2.0, 1.5)])
def test_predictions_have_the_voxels_of_the_image_at_any_spacing(
    spacing: tuple[float, ...], tile: tuple[int, ...] | None
) -> None:
    """A ball in millimetres is predicted as the same ball, whatever the spacing of the volume and the scale of its values."""
    size = tuple(round(24 / step) for step in spacing)
    points = np.stack(
        np.meshgrid(*[(np.arange(n) + 0.5) * s for n, s in zip(size, spacing, strict=True)], indexing="ij")
    )
    distance = np.linalg.norm(points - 12, axis=0)
    truth = distance < 8
    image = (1e6 + 3e3 * (8 - distance))[None]
    seen = []
    level = (1e6 - image.mean()) / image.std()  # of the surface of the ball

    def network(images: np.ndarray) -> np.ndarray:
        seen.append(images.shape[2:])
        return 20 * bright(images - level)

    predictor = predictor_of(
        network, LABELS, channels=1, dimensions=3, intensity="image", spacing=(1.0, 1.0, 1.0), tile=tile
    )
    prediction = predictor(image, grid(*spacing), probabilities=True)
    assert prediction.mask.shape == size
    assert prediction.grid.spacing == spacing
    inside = np.abs(distance - 8) > max(spacing) / 2 + 0.5
    assert (prediction.mask == truth)[inside].all()
    assert prediction.probabilities is not None
    np.testing.assert_allclose(prediction.probabilities.sum(0), 1, atol=1e-5)
    assert (prediction.probabilities.argmax(0) == prediction.mask)[inside].all()
    assert tile is not None or seen == [(24, 24, 24)]


def test_the_temperature_does_not_change_masks_that_are_resampled() -> None:
    image = np.random.default_rng(0).normal(size=(1, 6, 9, 9))
    masks = []
    for temperature in (0.5, 1.0, 3.0):
        predictor = predictor_of(
            bright, LABELS, channels=1, dimensions=3, spacing=(1.0, 1.0, 1.0), temperature=temperature
        )
        masks.append(predictor(image, grid(2, 1.3, 1.3)).mask)
    assert (masks[0] == masks[1]).all()
    assert (masks[2] == masks[1]).all()


def test_invalid_voxels_are_ignored_and_do_not_count_for_the_scale() -> None:
    rng = np.random.default_rng(0)
    image = rng.normal(size=(1, 4, 6, 6))
    valid = np.ones((4, 6, 6), bool)
    valid[:, :, 4:] = False
    spoilt = np.where(valid, image, 1e9)
    predictor = predictor_of(bright, LABELS, channels=1, dimensions=3, intensity="image", fill=(0.0,))
    mask = predictor(spoilt, None, valid).mask
    assert (mask[~valid] == LABELS.ignore_index).all()
    alone = predictor(np.ascontiguousarray(image[..., :4])).mask
    assert (mask[..., :4] == alone).all()
