import tracemalloc
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from pixelwise.datasets import intensity
from pixelwise.datasets.intensity import (
    Histogram,
    Intensities,
    Moments,
    PixelSample,
    percentiles_of_counts,
    weighted_percentiles,
)


def added(values: Intensities, image: np.ndarray, mask: np.ndarray | None = None, seed: int = 0) -> Intensities:
    mask = np.zeros(image.shape[1:], np.uint8) if mask is None else mask
    values.add(image, mask, mask != 255, (seed,))
    return values


@pytest.mark.parametrize("kind", ["uint8", "int8", "uint16", "int16", "bool"])
def test_integers_of_up_to_16_bits_are_exact(kind: str) -> None:
    rng = np.random.default_rng(0)
    low, high = (0, 1) if kind == "bool" else (np.iinfo(kind).min, np.iinfo(kind).max)
    image = rng.integers(low, high, (2, 50, 60), endpoint=True).astype(kind)
    values = Intensities(2, np.dtype(kind), 1)
    mask = np.where(rng.random((50, 60)) < 0.2, 255, 0).astype(np.uint8)
    for k, (top, bottom) in enumerate(pairwise((0, 7, 30, 50))):
        added(values, image[:, top:bottom], mask[top:bottom], k)
    result, all_of_it = values.statistics(), image[:, mask == 0].astype(float)
    np.testing.assert_allclose(result.mean, all_of_it.mean(1), rtol=1e-12)
    np.testing.assert_allclose(result.std, all_of_it.std(1), rtol=1e-12)
    np.testing.assert_allclose(result.percentiles, np.percentile(all_of_it, (0.5, 50, 99.5), axis=1).T, atol=1e-9)
    assert result.extremes == tuple(zip(all_of_it.min(1), all_of_it.max(1), strict=True))
    assert bool(result.core) == (kind in ("uint16", "int16"))


@pytest.mark.parametrize("kind", ["float32", "float64", "int32", "uint32", ">f4", ">u2"])
def test_small_samples_hold_all_pixels(kind: str) -> None:
    rng = np.random.default_rng(1)
    image = rng.gamma(2.0, 900.0, (1, 80, 90)).astype(kind)
    result = added(Intensities(1, image.dtype, 3), image, rng.integers(0, 3, (80, 90)).astype(np.uint8)).statistics()
    np.testing.assert_allclose(result.percentiles[0], np.percentile(image.astype(float), (0.5, 50, 99.5)), rtol=1e-9)
    assert result.extremes == ((float(image.min()), float(image.max())),)
    assert result.std[0] == pytest.approx(image.astype(float).std(), rel=1e-9)


def test_large_data_sets_are_sampled_in_constant_memory() -> None:
    rng = np.random.default_rng(2)
    values = Intensities(1, np.dtype(np.float32), 2)
    images = [rng.lognormal(0, 1, (1, 300, 300)).astype(np.float32) for _ in range(6)]
    masks = [(rng.random((300, 300)) < 0.01).astype(np.uint8) for _ in images]
    for k, (image, mask) in enumerate(zip(images, masks, strict=True)):
        added(values, image, mask, k)
    assert values.sample is not None
    assert [len(keys) for keys in values.sample.keys] == [32768, int(sum(m.sum() for m in masks))]
    result, all_of_it = values.statistics(), np.concatenate([p.reshape(-1) for p in images]).astype(float)
    below = [(all_of_it < p).mean() for p in result.percentiles[0]]
    assert below == pytest.approx([0.005, 0.5, 0.995], abs=0.01)
    assert below[0] == pytest.approx(0.005, abs=0.0015)
    inside = np.clip(all_of_it, *result.core[0])
    assert result.core_std[0] == pytest.approx(inside.std(), rel=0.03)


def test_the_sample_does_not_depend_on_the_order() -> None:
    rng = np.random.default_rng(3)
    images = [rng.normal(size=(2, 40, 50)) for _ in range(5)]
    masks = [rng.integers(0, 3, (40, 50)) for _ in images]
    found = []
    for order in ((0, 1, 2, 3, 4), (4, 2, 0, 3, 1)):
        drawn = PixelSample(2, 2)
        drawn.most = 500
        for k in order:
            drawn.add(images[k], masks[k], np.random.default_rng(k))
        found.append([set(map(tuple, held.T.tolist())) for held in drawn.values])
        assert drawn.counts.tolist() == [sum(int((m == k).sum()) for m in masks) for k in (0, 1)]
    assert found[0] == found[1]
    assert [len(held) for held in found[0]] == [500, 500]


def test_the_sample_of_a_class_is_uniform() -> None:
    image = np.arange(4000, dtype=np.float64).reshape(1, 40, 100)
    hits = np.zeros(4)
    for seed in range(40):
        drawn = PixelSample(1, 1)
        drawn.most = 400
        for split in np.split(image, 4, axis=1):  # four images
            drawn.add(split, np.zeros((10, 100), np.uint8), np.random.default_rng([seed, int(split[0, 0, 0])]))
        hits += np.bincount((drawn.values[0][0] // 1000).astype(int), minlength=4)
    assert hits.sum() == 40 * 400
    np.testing.assert_allclose(hits / hits.sum(), 0.25, atol=0.02)


def test_images_are_added_in_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(4)
    image, mask = rng.normal(5, 2, (3, 33, 41)).astype(np.float32), rng.integers(0, 3, (33, 41)).astype(np.uint8)
    whole = added(Intensities(3, image.dtype, 2), image, mask).statistics()
    monkeypatch.setattr(intensity, "_CHUNK", 100)
    pieces = added(Intensities(3, image.dtype, 2), image, mask).statistics()
    np.testing.assert_allclose(whole.core, pieces.core, rtol=1e-12)
    np.testing.assert_allclose(whole.std, pieces.std, rtol=1e-12)


def test_chunks_are_smaller_for_many_bands(monkeypatch: pytest.MonkeyPatch) -> None:
    values = np.random.default_rng(5).random((200, 5000), np.float32)
    monkeypatch.setattr(intensity, "_CHUNK", 5000)
    moments = Moments()
    tracemalloc.start()
    moments.add(values)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < values.nbytes / 4
    np.testing.assert_allclose(moments.mean, values.mean(1, dtype=np.float64), rtol=1e-12)


def test_a_nearly_constant_band_keeps_its_extremes() -> None:
    image = np.zeros((1, 100, 100), np.uint16)
    image[0, 0, :5] = 7
    assert added(Intensities(1, image.dtype, 1), image).statistics().core == ((0.0, 7.0),)
    assert added(Intensities(1, image.dtype, 1), image[:, 1:]).statistics().core == ((0.0, 0.0),)


def test_moments_of_large_values_with_a_small_spread() -> None:
    rng = np.random.default_rng(1)
    moments = Moments()
    values = (1e6 + rng.normal(0, 0.5, (2, 120_000))).astype(np.float32)
    for split in np.array_split(values, 7, axis=1):
        moments.add(split)
    moments.add(values[:, :0])
    np.testing.assert_allclose(moments.std, values.astype(float).std(1), rtol=1e-9)
    assert moments.extremes == tuple((float(v.min()), float(v.max())) for v in values)


@settings(max_examples=60, deadline=None)
@given(arrays(np.uint8, st.integers(1, 60)), st.floats(0, 100))
def test_percentiles_of_counts_are_those_of_the_values(values: np.ndarray, percent: float) -> None:
    counts = np.bincount(values, minlength=256)
    found = percentiles_of_counts(np.arange(256.0), counts, (percent,))
    assert found == pytest.approx([np.percentile(values, percent)], abs=1e-9)


@settings(max_examples=60, deadline=None)
@given(arrays(np.float32, st.integers(1, 60), elements=st.floats(-1e3, 1e3, width=32)), st.floats(0, 100))
def test_weighted_percentiles_with_equal_weights_are_numpys(values: np.ndarray, percent: float) -> None:
    values = values.astype(float)
    found = weighted_percentiles(values, np.full(len(values), 7.5), (percent,))
    assert found == pytest.approx([np.percentile(values, percent)], abs=1e-6)


def test_a_weight_counts_as_so_many_values() -> None:
    found = weighted_percentiles(np.array([3.0, 1.0, 2.0]), np.array([1.0, 1.0, 998.0]), (25, 50, 75))
    assert found == pytest.approx([1.5, 2.0, 2.5], abs=0.01)


def test_a_histogram_of_signed_numbers_begins_below_zero() -> None:
    histogram = Histogram(1, np.dtype(np.int16))
    histogram.add(np.array([[-1024, -1024, 3071]], np.int16))
    assert histogram.extremes == ((-1024.0, 3071.0),)
    assert histogram.count == 3
    assert histogram.mean[0] == pytest.approx(1023 / 3)
