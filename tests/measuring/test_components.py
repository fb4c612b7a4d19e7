"""Components against scipy, and against themselves with other bands."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import ndimage

from pixelwise.labels import Labels
from pixelwise.measuring.components import Components, find_components
from pixelwise.measuring.masks import ArrayMask
from pixelwise.measuring.scale import AffineScale
from pixelwise.tiles import Window

RNG = np.random.default_rng(0)
PIXEL = AffineScale(np.diag([2.0, 3.0]), "mm", "given")
VOXEL = AffineScale(np.diag([2.0, 3.0, 5.0]), "mm", "given")


def noise(*shape: int, k: int = 3, ignored: float = 0.1) -> NDArray[np.uint8]:
    mask = RNG.integers(0, k, shape).astype(np.uint8)
    mask[RNG.random(shape) < ignored] = 255
    return mask


def blobs(*shape: int, k: int = 3) -> NDArray[np.uint8]:
    smooth = ndimage.gaussian_filter(RNG.normal(size=(k, *shape)), (0, *(2,) * len(shape)))
    return smooth.argmax(0).astype(np.uint8)


def spiral(side: int) -> NDArray[np.uint8]:
    """A square spiral: one component of each class, whose parts join late."""
    mask = np.zeros((side, side), np.uint8)
    row, column, direction = 0, 0, (0, 1)
    mask[0, 0] = 1
    for step in range(side - 1, 0, -2):
        for _ in range(2):
            for _ in range(step):
                row, column = row + direction[0], column + direction[1]
                if not (0 <= row < side and 0 <= column < side):
                    return mask
                mask[row, column] = 1
            direction = direction[1], -direction[0]
    return mask


def comb(side: int) -> NDArray[np.uint8]:
    mask = np.zeros((side, side), np.uint8)
    mask[:, ::2] = 1
    mask[-1] = 1
    return mask


MASKS = {
    "noise": noise(37, 41),
    "two classes": noise(30, 25, k=2, ignored=0),
    "many classes": noise(20, 30, k=150),
    "blobs": blobs(60, 50),
    "spiral": spiral(33),
    "comb": comb(21),
    "pixel": np.zeros((1, 1), np.uint8),
    "row": noise(1, 40),
    "column": noise(40, 1),
    "ignored": np.full((5, 6), 255, np.uint8),
    "volume": noise(7, 9, 8, k=2),
    "volume of blobs": blobs(12, 15, 10),
    "flat volume": noise(1, 9, 8),
    "thin volume": noise(9, 1, 8),
}


def labels(mask: NDArray[Any]) -> Labels:
    known = mask[mask != 255]
    return Labels(tuple(f"c{k}" for k in range(int(known.max()) + 1 if known.size else 1)))


def found(mask: NDArray[Any], corners: bool, band_pixels: int = 1 << 22, probability: Any = None) -> Components:
    source = ArrayMask(mask.astype(np.int64), labels(mask), probability=probability)
    source = ArrayMask(
        np.where(mask == 255, source.labels.ignore_index, mask.astype(np.int64)), source.labels, "", probability
    )
    return find_components(source, PIXEL if mask.ndim == 2 else VOXEL, corners=corners, band_pixels=band_pixels)


@pytest.mark.parametrize("corners", [True, False])
@pytest.mark.parametrize("name", MASKS)
def test_components_are_those_of_scipy(name: str, corners: bool) -> None:
    mask = MASKS[name]
    probability = RNG.random(mask.shape).astype(np.float32)
    result = found(mask, corners, probability=probability)
    structure = ndimage.generate_binary_structure(mask.ndim, mask.ndim if corners else 1)
    expected = []
    outside = np.pad(mask, 1, constant_values=255)
    open_ = ndimage.binary_dilation(outside == 255, structure)[(slice(1, -1),) * mask.ndim]
    edge = ndimage.binary_dilation(np.pad(np.zeros(mask.shape, bool), 1, constant_values=True))
    open_ |= edge[(slice(1, -1),) * mask.ndim]
    for k in range(labels(mask).num_classes):
        numbered, count = ndimage.label(mask == k, structure)
        for number in range(1, count + 1):
            inside = numbered == number
            places = np.argwhere(inside)
            first = int(np.flatnonzero(inside)[0])
            row: list[Any] = [first, k, len(places), *places.min(0), *(places.max(0) + 1), bool((inside & open_).any())]
            if mask.ndim == 2:
                background = ndimage.generate_binary_structure(2, 1 if corners else 2)
                row.append(ndimage.label(np.pad(~inside, 1, constant_values=True), background)[1] - 1)
            expected.append((row, places.mean(0), probability[inside].mean()))
    expected.sort(key=lambda each: each[0][0])
    assert len(expected) == len(result.pixels)
    for i, (row, centroid, confidence) in enumerate(expected):
        own: list[Any] = [result.first[i], result.class_index[i], result.pixels[i], *result.start[i], *result.stop[i]]
        own.append(result.border[i])
        own += [] if result.holes is None else [result.holes[i]]
        assert own == row
        np.testing.assert_allclose(result.centroid[i], centroid, atol=1e-9)
        assert result.confidence is not None
        assert result.confidence[i] == pytest.approx(confidence, rel=1e-5)
        assert result.size[i] == pytest.approx(row[2] * (6 if mask.ndim == 2 else 30))


@pytest.mark.parametrize("corners", [True, False])
@pytest.mark.parametrize("name", MASKS)
def test_bands_do_not_change_the_components(name: str, corners: bool) -> None:
    mask = MASKS[name]
    whole = found(mask, corners)
    row = int(np.prod(mask.shape[1:]))
    for rows in (1, 2, 7):
        parts = found(mask, corners, band_pixels=rows * row)
        for key in ("class_index", "pixels", "first", "start", "stop", "border", "holes", "centroid"):
            np.testing.assert_array_equal(getattr(parts, key), getattr(whole, key), err_msg=f"{key} of bands of {rows}")
        np.testing.assert_allclose(parts.size, whole.size, rtol=1e-12)


def test_sizes_that_differ_from_pixel_to_pixel_are_summed() -> None:
    sizes = RNG.random((37, 41))

    class Uneven(AffineScale):
        def sizes(self, window: Window) -> NDArray[np.float64]:
            return sizes[window.slices]

    mask = ArrayMask(MASKS["blobs"][:37, :41].astype(np.int64), Labels(("a", "b", "c")))
    for band_pixels in (41, 300, 1 << 20):
        result = find_components(mask, Uneven(np.eye(2), "m", "drawn"), band_pixels=band_pixels)
        for k in range(3):
            of_class = result.size[result.class_index == k].sum()
            assert of_class == pytest.approx(sizes[mask.mask == k].sum(), rel=1e-12)
