import numpy as np
import pytest
from numpy.typing import NDArray
from tests.inference.backends import predictor_of

from pixelwise.inference.predictor import Predictor
from pixelwise.inference.temporal import UNCHANGED, Flicker, Smoothing, luminance
from pixelwise.labels import Labels


def of_values(**settings: object) -> Predictor:
    """A model of two classes whose logits are ± the first band, in tens."""

    def logits(images: NDArray[np.generic]) -> NDArray[np.float32]:
        values = np.asarray(images, np.float32)[:, :1] / 10 - 10
        return np.concatenate([-values, values], 1)

    return predictor_of(logits, Labels(("a", "b")), channels=3, **settings)


def frames(count: int, size: tuple[int, int] = (40, 30)) -> list[NDArray[np.uint8]]:
    rng = np.random.default_rng(0)
    return [rng.integers(70, 130, (3, *size)).astype(np.uint8) for _ in range(count)]


@pytest.mark.parametrize("settings", [{}, {"tile": (16, 16)}, {"flips": True}, {"temperature": 2.0}])
def test_smoothing_is_an_exponential_average_at_any_distance_of_times(settings: dict) -> None:
    by, smoothing, state = of_values(**settings), Smoothing(0.5), None
    before = 0.0
    for image, seconds in zip(frames(5), (3.0, 3.1, 3.15, 4.0, 9.0), strict=True):
        smooth, raw = smoothing(by, image, seconds)
        alone = by(image, probabilities=True)
        weight = 1 - np.exp(-(seconds - before) / 0.5)
        state = alone.probabilities if state is None else state + weight * (alone.probabilities - state)
        before = seconds
        np.testing.assert_allclose(smoothing.probabilities, state, atol=1e-6)
        np.testing.assert_array_equal(raw, alone.mask)
        clear = np.abs(state[0] - state[1]) > 1e-5
        np.testing.assert_array_equal(smooth[clear], state.argmax(0)[clear])
        assert smooth.dtype == raw.dtype


def test_smoothing_continues_from_a_state() -> None:
    by, whole = of_values(), Smoothing(0.2)
    images = frames(4)
    masks = [whole(by, image, 0.1 * number)[0] for number, image in enumerate(images)]
    first = Smoothing(0.2)
    for number in (0, 1):
        first(by, images[number], 0.1 * number)
    second = Smoothing(0.2, first.probabilities.copy(), 0.1)
    for number in (2, 3):
        np.testing.assert_array_equal(second(by, images[number], 0.1 * number)[0], masks[number])


def test_flicker_counts_changes_of_class_where_the_image_does_not_change() -> None:
    still = np.full((3, 2, 4), 100, np.uint8)
    moved = still.copy()
    moved[:, 0] += UNCHANGED + 1
    noise = still + np.uint8(UNCHANGED)
    flicker = Flicker()
    zeros = np.zeros((2, 4), np.uint8)
    changed = zeros.copy()
    changed[:, 0] = 1
    flicker.add(still, zeros, zeros)
    assert flicker.shares() == [None, None]
    flicker.add(noise, changed, zeros)  # all 8 pixels are compared, 2 change class
    assert flicker.shares() == [2 / 8, 0.0]
    flicker.add(still, changed, zeros)
    flicker.add(moved, zeros, zeros)  # of the lower row, 1 of 4 changes class
    assert flicker.shares() == [3 / 20, 0.0]


def test_luminance() -> None:
    image = np.random.default_rng(0).integers(0, 256, (3, 30, 20)).astype(np.uint8)
    exact = np.tensordot([0.299, 0.587, 0.114], image.astype(float), 1)
    assert np.abs(luminance(image) - exact).max() < 2
    assert luminance(np.full((3, 1, 1), 255, np.uint8)) == 255
