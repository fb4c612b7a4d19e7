import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchvision import tv_tensors

from pixelwise.config import ResolvedAugment
from pixelwise.training.transforms import CropTransform

IGNORE = 255
EVERYTHING = ResolvedAugment(rotate=180, scale=(0.5, 2), flip_horizontal=0.5, flip_vertical=0.5)


def transform(
    crop: tuple[int, int] = (48, 48), *, bands: int = 1, class_crops: float = 0.0, **augment: object
) -> CropTransform:
    # Outside the image the value is 0, unlike any class below.
    return CropTransform(
        crop, ResolvedAugment.model_validate(augment), class_crops, IGNORE, (0.0,) * bands, (1.0,) * bands
    )


def image_that_is_its_mask(seed: int, size: tuple[int, int] = (100, 120)) -> tuple[torch.Tensor, torch.Tensor]:
    """Draw discs of classes 1…4; the image is 50 × the class, so that 0 occurs in neither."""
    rng = np.random.default_rng(seed)
    rows, columns = np.mgrid[: size[0], : size[1]]
    mask = np.ones(size, np.uint8)
    for _ in range(12):
        at, radius = rng.uniform(0, size), rng.uniform(6, 14)
        mask[(rows - at[0]) ** 2 + (columns - at[1]) ** 2 < radius**2] = rng.integers(1, 5)
    return torch.from_numpy(mask[None].astype(np.float32) * 50), torch.from_numpy(mask)


def eroded(mask: np.ndarray, by: int) -> np.ndarray:
    """Mark the pixels whose neighbourhood has a single class and is inside the crop."""
    inside = np.zeros(mask.shape, bool)
    inside[by:-by, by:-by] = True
    for down in range(-by, by + 1):
        for right in range(-by, by + 1):
            inside &= np.roll(mask, (down, right), (0, 1)) == mask
    return inside


GEOMETRIES = [
    {},
    {"scale": (0.5, 2.0)},
    {"scale": (2.0, 3.0)},
    {"rotate": 30},
    {"flip_horizontal": 1.0, "flip_vertical": 1.0},
    {"rotate": 180, "scale": (0.5, 2.0), "flip_horizontal": 0.5, "flip_vertical": 0.5},
]


@pytest.mark.parametrize("augment", GEOMETRIES, ids=str)
@pytest.mark.parametrize("crop", [(48, 48), (24, 80), (33, 46)])
def test_image_and_mask_stay_aligned(crop: tuple[int, int], augment: dict[str, object]) -> None:
    draw = transform(crop, class_crops=0.3, **augment)
    slope, shift, compared = np.zeros((2, 2)), np.zeros(2), 0
    for seed in range(20):
        image, mask = draw(*image_that_is_its_mask(seed, (160, 200)), np.random.default_rng(seed))
        full_image, truth = image[0].numpy(), mask.numpy()
        assert (full_image.shape, truth.shape) == (crop, crop)
        sure = eroded(truth, 3) & (truth != IGNORE)
        compared += int(sure.sum())
        np.testing.assert_array_equal(np.rint(full_image / 50)[sure], truth[sure])
        # The shift between image and mask, to first order, over all edges.
        known = np.where(truth == IGNORE, 0, truth) * 50.0
        flat = eroded(np.where(truth == IGNORE, 255, 0), 2)
        down, right = (g[flat] for g in np.gradient(known))
        rest = (full_image - known)[flat]
        slope += [[down @ down, down @ right], [down @ right, right @ right]]
        shift += [down @ rest, right @ rest]
    assert compared > 3000
    moved = np.linalg.solve(slope, shift)
    # Class indices rounded down instead of to the nearest centre would be shifted by 0.3 to 0.5 pixels.
    assert np.abs(moved).max() < 0.15, moved


def test_a_crop_without_zoom_is_a_slice_of_the_image() -> None:
    image = torch.arange(5 * 60 * 70, dtype=torch.int32).reshape(5, 60, 70)
    mask = (torch.arange(60 * 70) % 7).reshape(60, 70)
    crop, truth = transform((16, 20), bands=5)(image, mask, np.random.default_rng(3))
    top, left = divmod(int(crop[0, 0, 0]), 70)
    assert torch.equal(crop, image[:, top : top + 16, left : left + 20].float())
    assert torch.equal(truth, mask[top : top + 16, left : left + 20])
    assert (crop.dtype, truth.dtype) == (torch.float32, torch.int64)
    assert isinstance(crop, tv_tensors.Image)
    assert isinstance(truth, tv_tensors.Mask)


def test_every_position_of_the_image_is_reached() -> None:
    image = torch.zeros(1, 12, 10)
    mask = torch.arange(120).reshape(12, 10)
    draw, corners = transform((10, 8)), set()
    for seed in range(200):
        corners.add(int(draw(image, mask, np.random.default_rng(seed))[1][0, 0]))
    assert corners == {row * 10 + column for row in range(3) for column in range(3)}


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    crop=st.tuples(st.integers(1, 40), st.integers(1, 40)),
    size=st.tuples(st.integers(1, 40), st.integers(1, 40)),
    rotate=st.sampled_from([0, 1, 45, 180]),
    scale=st.sampled_from([(1.0, 1.0), (0.25, 0.25), (0.5, 4.0), (8.0, 8.0)]),
    class_crops=st.sampled_from([0.0, 1.0]),
)
def test_no_new_classes_or_values_appear(
    seed: int,
    crop: tuple[int, int],
    size: tuple[int, int],
    rotate: float,
    scale: tuple[float, float],
    class_crops: float,
) -> None:
    # Neither 0, the usual fill value, nor values between 3 and 9 may appear.
    rng = np.random.default_rng(seed)
    mask = torch.from_numpy(rng.choice(np.array([3, 9], np.uint8), size))
    image = mask[None].float() * 10
    draw = transform(crop, rotate=rotate, scale=scale, flip_horizontal=0.5, flip_vertical=0.5, class_crops=class_crops)
    full_image, truth = draw(image, mask, rng)
    assert (tuple(full_image.shape), tuple(truth.shape)) == ((1, *crop), crop)
    assert set(truth.unique().tolist()) <= {3, 9, IGNORE}
    assert full_image.isfinite().all()
    assert full_image.min() >= -1e-3
    assert full_image.max() <= 90 + 1e-3


@pytest.mark.parametrize("augment", [{}, {"scale": (0.5, 0.5)}, {"rotate": 180}])
@pytest.mark.parametrize("ignore", [255, 65535])
def test_outside_the_image_the_mask_is_ignored_and_the_image_continues(augment: dict[str, object], ignore: int) -> None:
    draw = CropTransform((64, 64), ResolvedAugment.model_validate(augment), 0.0, ignore, (7.0, 30.0), (1.0, 1.0))
    image, mask = torch.full((2, 20, 24), 100.0), torch.ones(20, 24, dtype=torch.int32)
    for seed in range(8):
        full_image, truth = draw(image, mask, np.random.default_rng(seed))
        zoom = augment.get("scale", (1, 1))[0]  # type: ignore[index]
        assert set(truth.unique().tolist()) == {1, ignore}
        assert (truth == 1).sum() == pytest.approx(20 * 24 * zoom**2, rel=0.08)
        assert full_image.numpy() == pytest.approx(100.0, abs=1e-3)


@pytest.mark.parametrize("rotate", [0.0, 1e-5], ids=["cut out", "looked up"])
def test_outside_the_image_values_are_mirrored(rotate: float) -> None:
    image, mask = torch.arange(12.0).view(1, 3, 4), torch.ones(3, 4, dtype=torch.uint8)
    full_image, truth = transform((11, 20), rotate=rotate)(image, mask, np.random.default_rng(0))
    around = ((4, 4), (8, 8))  # more than the size of the image: reflected twice
    np.testing.assert_allclose(full_image[0], np.pad(image[0], around, mode="symmetric"), atol=1e-4)
    np.testing.assert_array_equal(truth == 1, np.pad(np.ones((3, 4), bool), around))


@pytest.mark.parametrize("crop", [(32, 32), (24, 80), (31, 32), (2, 60)])
def test_a_rotated_crop_inside_the_image_has_no_ignored_pixels(crop: tuple[int, int]) -> None:
    image, mask = torch.full((1, 200, 200), 100.0), torch.ones(200, 200, dtype=torch.uint8)
    for seed in range(20):
        full_image, truth = transform(crop, rotate=180)(image, mask, np.random.default_rng(seed))
        assert (truth == 1).all()
        assert full_image.numpy() == pytest.approx(100.0, abs=1e-3)


def test_ignored_pixels_stay_ignored() -> None:
    image, mask = torch.zeros(1, 64, 64), torch.full((64, 64), IGNORE, dtype=torch.uint8)
    draw = transform((32, 32), class_crops=1.0, rotate=90, scale=(0.5, 2.0))
    for seed in range(5):
        assert (draw(image, mask, np.random.default_rng(seed))[1] == IGNORE).all()


@pytest.mark.parametrize(
    ("crop", "augment"),
    [((32, 32), {}), ((32, 32), {"rotate": 180, "scale": (0.7, 1.5)}), ((16, 64), {"rotate": 180}), ((64, 16), {})],
    ids=str,
)
def test_class_crops_show_the_drawn_class(crop: tuple[int, int], augment: dict[str, object]) -> None:
    image, mask = torch.zeros(1, 300, 300), torch.zeros(300, 300, dtype=torch.uint8)
    mask[149:152, 149:152] = 2  # one in ten thousand
    mask[:1] = IGNORE

    def share(class_crops: float) -> float:
        draw = transform(crop, class_crops=class_crops, **augment)
        shown = [(draw(image, mask, np.random.default_rng(seed))[1] == 2).any() for seed in range(60)]
        return float(np.mean(shown))

    # The most frequent class is not drawn, so every crop is centred on the rare one; with a third class about half.
    assert share(0.0) < 0.15
    assert share(0.5) > 0.3
    assert share(1.0) > 0.95
    mask[10:14, 10:14] = 1
    assert 0.3 < share(1.0) < 0.7


def test_a_class_at_the_border_is_included() -> None:
    image, mask = torch.zeros(1, 90, 90), torch.full((90, 90), IGNORE, dtype=torch.uint8)
    mask[0, 89] = 1
    for seed in range(10):
        assert (transform((32, 32), class_crops=1.0)(image, mask, np.random.default_rng(seed))[1] == 1).sum() == 1


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int16, torch.int32, torch.float32, torch.float64])
@pytest.mark.parametrize("bands", [1, 5])
def test_raw_values_of_any_type_and_number_of_bands(dtype: torch.dtype, bands: int) -> None:
    values = torch.tensor([3, 60, 100, 7, 120])[:bands, None, None]
    if dtype == torch.int16:
        values = values * -200
    image, mask = values.expand(bands, 80, 80).to(dtype), torch.zeros(80, 80, dtype=torch.uint8)
    full_image, _ = transform((32, 32), bands=bands, rotate=20, scale=(0.8, 1.2))(image, mask, np.random.default_rng(0))
    assert full_image.dtype == torch.float32
    assert torch.allclose(full_image, values.float().expand(bands, 32, 32), rtol=1e-4)


def test_randomness_comes_only_from_the_generator() -> None:
    image, mask = image_that_is_its_mask(0)
    draw = CropTransform(
        (40, 40),
        EVERYTHING.model_copy(update={"noise": 0.2, "brightness": 0.3, "contrast": 0.2}),
        0.5,
        IGNORE,
        (0.0,),
        (50.0,),
    )
    state = torch.random.get_rng_state()
    one, two, other = (draw(image, mask, np.random.default_rng(seed)) for seed in (5, 5, 6))
    assert torch.equal(one[0], two[0])
    assert torch.equal(one[1], two[1])
    assert not torch.equal(one[0], other[0])
    assert torch.equal(torch.random.get_rng_state(), state)


def test_the_input_image_is_not_modified() -> None:
    # Cached images are used many times.
    image, mask = image_that_is_its_mask(0, (40, 40))
    before = image.clone(), mask.clone()
    draw = CropTransform(
        (40, 40), ResolvedAugment(noise=1, brightness=1, contrast=0.5, flip_vertical=1), 0, IGNORE, (0.0,), (50.0,)
    )
    draw(image, mask, np.random.default_rng(0))
    assert torch.equal(image, before[0])
    assert torch.equal(mask, before[1])


def tinted(**augment: float) -> np.ndarray:
    """Return the changes of many draws to an image of two bands of values 10 and 1000."""
    draw = CropTransform((8, 8), ResolvedAugment.model_validate(augment), 0, IGNORE, (8.0, 900.0), (2.0, 100.0))
    image = torch.tensor([10.0, 1000.0])[:, None, None].expand(2, 8, 8)
    mask = torch.zeros(8, 8, dtype=torch.uint8)
    draws = [draw(image, mask, np.random.default_rng(seed))[0] - image for seed in range(200)]
    return torch.stack(draws).numpy()


def test_brightness_is_in_standard_deviations_of_the_band() -> None:
    changes = tinted(brightness=0.5)
    assert np.ptp(changes, axis=(2, 3)).max() < 1e-3  # constant over the crop
    peaks = np.abs(changes).max(axis=(0, 2, 3)) / [2.0, 100.0]
    assert (peaks <= 0.5 * 1.3 + 1e-5).all()
    assert (peaks > 0.4).all()
    bands = changes[:, :, 0, 0] / [2.0, 100.0]
    assert np.corrcoef(bands.T)[0, 1] > 0.8  # mostly shared by the bands
    assert np.abs(bands[:, 0] - bands[:, 1]).max() > 0.05


def test_contrast_keeps_the_mean() -> None:
    changes = np.abs(tinted(contrast=0.2)).max(axis=(0, 2, 3))
    # 10 is 2 above the mean of its band, 1000 is 100 above.
    assert (changes <= 0.2 * 1.3 * np.array([2, 100]) + 1e-3).all()
    assert (changes > 0.15 * np.array([2, 100])).all()


def test_noise_differs_from_pixel_to_pixel() -> None:
    changes = tinted(noise=0.5)
    deviation = changes.std(axis=(2, 3)) / [2.0, 100.0]
    assert np.abs(changes.mean(axis=(0, 2, 3)) / [2.0, 100.0]).max() < 0.02
    assert deviation.max() < 0.75
    assert 0.2 < deviation.mean() < 0.3  # uniform between 0 and 0.5


def test_without_augmentation_nothing_is_changed() -> None:
    assert not tinted().any()
