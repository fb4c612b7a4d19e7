"""Components of generated masks against labels by scipy and Euler numbers by bit quads, for any bands."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import ndimage

from pixelwise.labels import Labels
from pixelwise.measuring.components import find_components
from pixelwise.measuring.masks import ArrayMask
from pixelwise.measuring.scale import pixels

CLASSES = (1, 2, 3, 5, 150)


@st.composite
def masks(draw: st.DrawFn) -> tuple[NDArray[Any], int]:
    """A mask with noise or blocks of pixels, some ignored, and the number of its classes."""
    ndim = draw(st.sampled_from((2, 2, 3)))
    shape = draw(st.tuples(*[st.integers(1, 24 if ndim == 2 else 7)] * ndim))
    k, block = draw(st.sampled_from(CLASSES)), draw(st.integers(1, 3))
    generator = np.random.default_rng(draw(st.integers(0, 2**32)))
    mask = generator.integers(0, k, shape)
    for axis in range(ndim):
        mask = mask.repeat(block, axis)
    mask = mask[tuple(slice(0, size) for size in shape)]
    return np.where(generator.random(shape) < draw(st.sampled_from((0.0, 0.1, 0.6))), 255, mask).astype(np.uint8), k


def holes(region: NDArray[np.bool_], corners: bool) -> int:
    """The number of holes of one connected region, 1 - Euler number, from the counts of 2×2 pixels (Gray 1971)."""
    padded = np.pad(region, 1).astype(int)
    quads = np.stack([padded[:-1, :-1], padded[:-1, 1:], padded[1:, :-1], padded[1:, 1:]])
    filled = quads.sum(0)
    diagonal = (filled == 2) & (quads[0] == quads[3])
    euler4 = (filled == 1).sum() - (filled == 3).sum() + (-2 if corners else 2) * diagonal.sum()
    return 1 - int(euler4) // 4


@settings(max_examples=150, deadline=None)
@given(masks(), st.booleans(), st.integers(1, 8))
def test_components_of_generated_masks(drawn: tuple[NDArray[Any], int], corners: bool, rows: int) -> None:
    mask, k = drawn
    source = ArrayMask(mask, Labels(tuple(f"c{i}" for i in range(k))))
    scale = pixels(mask.ndim, "drawn")
    found = find_components(source, scale, corners=corners, band_pixels=rows * int(np.prod(mask.shape[1:])))
    structure = ndimage.generate_binary_structure(mask.ndim, mask.ndim if corners else 1)
    expected = []
    for index in np.unique(mask[mask != 255]).tolist():
        numbered, count = ndimage.label(mask == index, structure)
        for number in range(1, count + 1):
            places = np.argwhere(numbered == number)
            row = [int(np.ravel_multi_index(places[0], mask.shape)), index, len(places)]
            row += [*places.min(0).tolist(), *(places.max(0) + 1).tolist(), *places.sum(0).tolist()]
            expected.append(row + ([holes(numbered == number, corners)] if mask.ndim == 2 else []))
    sums = np.rint(found.centroid * found.pixels[:, None]).astype(int)
    np.testing.assert_allclose(found.centroid * found.pixels[:, None], sums, atol=1e-6)
    columns = [found.first, found.class_index, found.pixels, *found.start.T, *found.stop.T, *sums.T]
    columns += [] if found.holes is None else [found.holes]
    assert np.stack(columns, 1).tolist() == sorted(expected)
    np.testing.assert_array_equal(found.size, found.pixels)
