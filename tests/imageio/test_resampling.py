"""Resampling to another spacing: windows, Pillow's filter as oracle, and the way back."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from pixelwise.grid import Grid
from pixelwise.imageio.resampling import ResampledSource, factors_to
from pixelwise.tiles import Window


@dataclass
class Array:
    """A source in memory."""

    image: NDArray[Any]
    valid: NDArray[np.bool_] | None = None

    @property
    def shape(self) -> tuple[int, ...]:
        return self.image.shape[1:]

    @property
    def dtype(self) -> np.dtype[Any]:
        return self.image.dtype

    def read(self, window: Window | None = None) -> tuple[NDArray[Any], NDArray[np.bool_] | None]:
        place = (slice(None),) * len(self.shape) if window is None else window.slices
        return self.image[:, *place], None if self.valid is None else self.valid[place]


def source(image: NDArray[Any], factors: tuple[float, ...], valid: NDArray[np.bool_] | None = None) -> ResampledSource:
    return ResampledSource(Array(image, valid), factors)  # type: ignore[arg-type]


def noise(*shape: int, dtype: str = "uint8", seed: int = 0) -> NDArray[Any]:
    return np.random.default_rng(seed).integers(0, 250, shape).astype(dtype)


@pytest.mark.parametrize("factors", [(2.0, 2.0), (0.5, 0.5), (1.7, 3.1), (0.4, 0.7), (4.0, 0.5), (1.0, 1.0)])
def test_values_are_those_of_pillow(factors: tuple[float, float]) -> None:
    image = noise(3, 61, 83)
    found, valid = source(image, factors).read()
    assert valid is None
    assert found.dtype == np.uint8
    size = found.shape[:0:-1]
    for band, result in zip(image, found, strict=True):
        expected = np.asarray(Image.fromarray(band).resize(size, Image.Resampling.BILINEAR), int)
        assert np.abs(expected - result.astype(int)).max() <= 1


@settings(max_examples=80, deadline=None)
@given(
    size=st.lists(st.integers(1, 40), min_size=2, max_size=3),
    factors=st.lists(st.floats(0.3, 4), min_size=3, max_size=3),
    dtype=st.sampled_from(["uint8", "int16", "float32", "float64"]),
    seed=st.integers(0, 99),
    masked=st.booleans(),
)
def test_windows_are_cut_out_of_the_whole_and_go_back_to_all_pixels_once(
    size: list[int], factors: list[float], dtype: str, seed: int, masked: bool
) -> None:
    valid = np.random.default_rng(seed).random(size) < 0.8 if masked else None
    given_ = source(noise(2, *size, dtype=dtype, seed=seed), tuple(factors[: len(size)]), valid)
    whole, known = given_.read()
    back = np.full(size, -1.0)
    expected = given_.restore(whole, Window((0,) * len(size), given_.shape))
    assert expected.shape[1:] == tuple(size)
    for starts in product(*(range(0, side, 7) for side in given_.shape)):
        window = Window(starts, tuple(min(a + 7, side) for a, side in zip(starts, given_.shape, strict=True)))
        part, part_known = given_.read(window)
        np.testing.assert_allclose(
            part, whole[:, *window.slices], rtol=1e-5, atol=1 if dtype in ("uint8", "int16") else 1e-3
        )
        inside = np.ones(window.shape, bool) if part_known is None else part_known
        np.testing.assert_array_equal(inside, True if known is None else known[window.slices])
        place = given_.source_window(window)
        assert (back[place.slices] == -1).all()
        back[place.slices] = given_.restore(whole[0][window.slices], window)
    np.testing.assert_array_equal(back, expected[0])


def test_pixels_without_data_have_no_weight() -> None:
    image, valid = np.full((1, 8, 8), 100, np.uint8), np.ones((8, 8), bool)
    image[:, :, :3], valid[:, :3] = 255, False
    found, known = source(image, (2.0, 2.0), valid).read()
    assert known is not None
    assert known.tolist() == [[False, known[0, 1], True, True]] * 4
    assert (found[0][known] == 100).all()


def test_a_block_that_is_enlarged_and_reduced_is_itself() -> None:
    mask = noise(20, 30) % 4
    enlarged = source(mask[None], (0.5, 0.5))
    whole = Window((0, 0), enlarged.shape)
    doubled = mask.repeat(2, 0).repeat(2, 1)
    np.testing.assert_array_equal(enlarged.restore(doubled, whole), mask)


def geographic(latitude: float, size: float = 1e-5) -> Grid:
    return Grid((size, size), "deg", ((size, 0, 7.0), (0, -size, latitude), (0, 0, 1)), "EPSG:4326")


def mercator(latitude: float) -> Grid:
    y = 6_378_137 * np.arctanh(np.sin(np.radians(latitude)))
    return Grid((2.0, 2.0), "m", ((2, 0, 0), (0, -2, float(y)), (0, 0, 1)), "EPSG:3857")


@pytest.mark.parametrize(
    ("grid", "spacing", "unit", "expected"),
    [
        (Grid((0.5, 0.5), "m"), (2.0, 1.0), "m", (4.0, 2.0)),
        (Grid((1.0, 1.0), "ft"), (0.3048, 0.6096), "m", (1.0, 2.0)),
        (Grid((1.0, 1.0), "m"), (100.0, 100.0), "cm", (1.0, 1.0)),
        (Grid((3.0, 0.5, 0.5), "mm"), (1.0, 1.0), "mm", (1.0, 2.0, 2.0)),
        (Grid((2.0, 2.0)), (1.0, 1.0), "m", None),
        (Grid((2.0, 2.0)), (1.0, 1.0), "px", None),
        (Grid((2.0, 2.0), "deg"), (1.0, 1.0), "m", None),
        (geographic(60.0), (2.2239, 2.2239), "m", (2.0, 4.0)),
        (mercator(60.0), (2.0, 2.0), "m", (2.0, 2.0)),
        (mercator(0.0), (2.0, 2.0), "m", (1.0, 1.0)),
    ],
)
def test_factors_between_spacings(
    grid: Grid, spacing: tuple[float, ...], unit: str, expected: tuple[float, ...] | None
) -> None:
    found = factors_to(grid, (10,) * grid.ndim, spacing, unit)
    assert found == (expected if expected is None else pytest.approx(expected, rel=1e-3))
