import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from sklearn.metrics import mutual_info_score

from pixelwise.datasets.position_statistics import Positions, count_columns, count_rows, one_sided, spread

MASKS = arrays(np.uint8, st.tuples(st.integers(16, 40), st.integers(1, 40)), elements=st.integers(0, 2))


@settings(max_examples=40, deadline=None)
@given(MASKS)
def test_the_spread_equals_its_definition(mask: np.ndarray) -> None:
    bands = np.repeat((np.arange(len(mask)) * 16 // len(mask))[:, None], mask.shape[1], 1)
    entropy = mutual_info_score(mask.reshape(-1), mask.reshape(-1))
    expected = mutual_info_score(mask.reshape(-1), bands.reshape(-1)) / entropy if entropy > 1e-12 else 0.0
    assert spread(count_rows(mask, 3)) == pytest.approx(expected, abs=1e-9)


def test_spread_of_sky_over_ground_and_of_noise() -> None:
    mask = np.zeros((32, 50), np.uint8)
    mask[16:] = 1
    assert spread(count_rows(mask, 2)) == pytest.approx(1)
    assert spread(count_columns(mask, 2)) == 0
    assert spread(count_columns(mask.T, 2)) == pytest.approx(1)
    noise = np.random.default_rng(0).integers(0, 2, (160, 400), np.uint8)
    assert spread(count_rows(noise, 2)) < 0.001
    mask[mask == 0] = 255
    assert spread(count_rows(mask, 2)) == 0


@settings(max_examples=40, deadline=None)
@given(MASKS)
def test_a_mirrored_mask_has_mirrored_column_counts(mask: np.ndarray) -> None:
    counts = count_columns(mask, 3)
    np.testing.assert_array_equal(count_columns(mask[:, ::-1], 3), counts[::-1])
    middle = mask.shape[1] // 2
    kept = np.delete(mask, middle, 1) if mask.shape[1] % 2 else mask
    assert counts.sum(0).tolist() == [int((kept == k).sum()) for k in range(3)]


@settings(max_examples=40, deadline=None)
@given(MASKS)
def test_an_image_and_its_mirror_image_are_not_one_sided(mask: np.ndarray) -> None:
    both = np.concatenate([mask, mask[:, ::-1]], axis=1)
    assert one_sided(count_columns(both, 3)) == pytest.approx(0, abs=1e-12)


def test_one_sidedness_by_hand() -> None:
    mask = np.zeros((1, 16), np.uint8)
    mask[0, [0, 1, 15]] = 1  # the first has a counterpart at the other end, the second has none
    assert one_sided(count_columns(mask, 3)).tolist() == pytest.approx([1 / 13, 1 / 3, 0])
    mask[0, 14] = 255  # the counterpart of the second is ignored
    assert one_sided(count_columns(mask, 3)).tolist() == [0, 0, 0]


def kidney(rng: np.random.Generator, mirrored: bool) -> np.ndarray:
    mask = np.zeros((64, 64), np.uint8)
    row, column = rng.integers(20, 40), rng.integers(4, 20)
    mask[row : row + 4, column : column + 5] = 1
    return mask[:, ::-1] if mirrored else mask


def test_a_class_always_on_one_side_exceeds_chance() -> None:
    rng = np.random.default_rng(0)
    always, by_chance, few = Positions(3), Positions(3), Positions(3)
    for k in range(40):
        always.add(kidney(rng, mirrored=False), (k,))
        by_chance.add(kidney(rng, mirrored=k % 2 == 0), (k,))
    (_, own, never), (_, chance, _) = always.one_sided()
    assert (own, never) == (1.0, None)
    assert chance is not None
    assert chance < 0.6
    (_, own, _), (_, chance, _) = by_chance.one_sided()
    assert (own or 1) < 1.5 * (chance or 0)
    for k in range(3):  # all three may be on the same side by chance
        few.add(kidney(rng, mirrored=False), (k,))
    assert few.one_sided()[0][1] == few.one_sided()[1][1] == 1.0


def test_resamples_are_reproducible_and_pixels_are_counted() -> None:
    rng, one, other = np.random.default_rng(1), Positions(3), Positions(3)
    masks = [rng.integers(0, 4, (20, 30)) for _ in range(5)]
    for k in range(5):
        assert one.add(masks[k], (k, 1)).tolist() == [int((masks[k] == c).sum()) for c in range(3)]
    for k in reversed(range(5)):
        other.add(masks[k], (k, 1))
    assert one.one_sided() == other.one_sided()
