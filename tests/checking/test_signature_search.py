"""The search for near-duplicates against a comparison of every pair under every symmetry."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from pixelwise.checking import signature_search as module
from pixelwise.checking.image_signature import image_signature, unpack
from pixelwise.checking.signature_search import SYMMETRIES, Nearest, correlations, nearest, typical_distance


def unit(vectors: np.ndarray) -> np.ndarray:
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def variants(vectors: np.ndarray) -> list[np.ndarray]:
    """Turn and mirror the images that the coefficients (N, 143) describe, by the cosine transform of pixels."""
    position, frequency = np.arange(32), np.arange(12)[:, None]
    cosines = np.cos(np.pi * frequency * (2 * position + 1) / 64) * np.where(frequency, 0.25, 0.125**0.5 / 2)
    blocks = np.pad(vectors.astype(np.float64), ((0, 0), (1, 0))).reshape(-1, 12, 12)
    images = cosines.T @ blocks @ cosines
    turned = [np.rot90(one, k, (1, 2)) for one in (images, images[:, :, ::-1]) for k in range(4)]
    return [(cosines @ one @ cosines.T).reshape(-1, 144)[:, 1:] for one in turned]


def by_hand(vectors: np.ndarray, splits: list[str], limit: float, same: bool) -> tuple[np.ndarray, np.ndarray]:
    """Compare every pair under every symmetry."""
    distances = 1 - np.max([vectors.astype(np.float64) @ other.T for other in variants(vectors)], axis=0)
    own = np.array(splits)[:, None] == np.array(splits)
    distances[own != same] = 9
    np.fill_diagonal(distances, 9)
    return distances.min(1), distances.min(1) <= limit


def drawn(rng: np.random.Generator, count: int) -> np.ndarray:
    """Draw vectors around a few centres, each under a random symmetry."""
    centres = rng.standard_normal((5, 143)) / np.arange(1, 144) ** rng.uniform(0, 0.8)
    vectors = unit(centres[rng.integers(0, 5, count)])
    vectors = np.array(variants(vectors))[rng.integers(0, 8, count), np.arange(count)]
    return unit(vectors + rng.uniform(0, 0.05) * rng.standard_normal((count, 143)))


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 40), st.floats(0.001, 0.5), st.sampled_from([0.0, 0.03, 2.0]))
def test_no_neighbour_within_the_limit_is_missed(seed: int, count: int, limit: float, dense: float) -> None:
    rng = np.random.default_rng(seed)
    splits = sorted(rng.choice(["test", "train", "val"], count).tolist())
    vectors = drawn(rng, count)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_DENSE", dense)
        results = nearest(vectors, splits, limit)
    for ours, same in zip(results, (True, False), strict=True):
        distance, near = by_hand(vectors, splits, limit, same)
        clear = np.abs(distance - limit) > 1e-5  # no rounding at the limit itself
        assert np.array_equal((ours.neighbour >= 0)[clear], near[clear])
        found = (ours.neighbour >= 0) & clear
        assert ours.distance[found] == pytest.approx(distance[found], abs=1e-5)
        for one in np.flatnonzero(found).tolist():
            other = int(ours.neighbour[one])
            assert other != one
            assert (splits[one] == splits[other]) is same
            between = 1 - correlations(vectors[[one]], vectors[[other]]).max()
            assert between == pytest.approx(distance[one], abs=1e-5)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_the_first_comparison_rules_no_pair_out(seed: int) -> None:
    vectors = drawn(np.random.default_rng(seed), 30)
    bound = module._first_invariants(vectors)
    exact = np.max([vectors @ other.T for other in variants(vectors)], axis=0)
    assert (bound @ bound.T >= exact - 1e-5).all()


@pytest.mark.parametrize("dense", [0.0, 2.0])
def test_the_block_size_does_not_change_the_result(monkeypatch: pytest.MonkeyPatch, dense: float) -> None:
    rng = np.random.default_rng(0)
    vectors = unit(np.repeat(rng.standard_normal((30, 143)), 3, axis=0) + 0.05 * rng.standard_normal((90, 143)))
    splits = ["train"] * 50 + ["val"] * 15 + ["test"] * 25
    whole = nearest(vectors, splits, 0.02)
    monkeypatch.setattr(module, "_BLOCK", 7)
    monkeypatch.setattr(module, "_PAIRS", 3)
    monkeypatch.setattr(module, "_DENSE", dense)
    for one, two in zip(whole, nearest(vectors, splits, 0.02), strict=True):
        assert np.array_equal(one.neighbour, two.neighbour)
        assert two.distance == pytest.approx(one.distance, abs=1e-5)
    assert (whole[0].neighbour >= 0).sum() > 50


def test_of_equal_neighbours_the_first_is_kept() -> None:
    found = Nearest(np.full(3, -1), np.full(3, 9, np.float32))
    found.update(np.array([0, 0, 0]), np.array([2, 1, 2]), np.array([0.5, 0.25, 0.25], np.float32))
    found.update(np.array([0]), np.array([2]), np.array([0.25], np.float32))
    assert found.neighbour.tolist() == [1, -1, -1]
    assert found.distance.tolist() == [0.25, 9, 9]


def test_thousands_that_are_all_alike_take_no_memory_for_their_pairs() -> None:
    vectors = unit(np.ones((3000, 143)) + 1e-4 * np.random.default_rng(0).standard_normal((3000, 143)))
    inside, across = nearest(vectors, ["train"] * 3000, 0.02)
    assert (inside.neighbour >= 0).all()
    assert (across.neighbour == -1).all()


def test_the_usual_distance_leaves_copies_out_and_is_the_least_under_the_symmetries() -> None:
    vectors = np.zeros((8, 143), np.float32)
    vectors[np.arange(8), [10, 10, 10, 10, 10, 10, 20, 40]] = 1
    assert typical_distance(vectors, np.array([0, 0, 0, 0, 0, 0, 1, 2])) == pytest.approx(1)
    assert typical_distance(vectors[:6], np.zeros(6, np.int64)) == 1
    assert typical_distance(vectors[:1], np.zeros(1, np.int64)) == 1
    mirrored = variants(unit(np.random.default_rng(0).standard_normal((1, 143))))
    same = unit(np.concatenate(mirrored))
    assert typical_distance(same, np.arange(8)) == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("size", [(64, 64), (163, 200), (400, 331), (330, 400), (97, 1005), (1999, 1608)], ids=str)
def test_the_signature_of_a_turned_image_is_that_of_the_image_turned(size: tuple[int, int]) -> None:
    """Also where rows and columns are sampled with a step that does not divide the size, and with noise in every pixel."""
    rng = np.random.default_rng(size)
    small = Image.fromarray(rng.integers(0, 155, (6, 8, 3), np.uint8))
    image = np.asarray(small.resize(size[::-1], Image.Resampling.BICUBIC)) + rng.integers(0, 100, (*size, 3), np.uint8)
    turned = {
        "": image,
        "mirrored": image[:, ::-1],
        "mirrored upside down": image[::-1],
        "turned by 180°": image[::-1, ::-1],
        "turned by 90°": np.rot90(image, -1),
        "turned by 270°": np.rot90(image),
        "turned by 90° and mirrored": np.rot90(image, -1)[:, ::-1],
        "turned by 270° and mirrored": np.rot90(image)[:, ::-1],
    }
    vectors = unpack([image_signature(np.moveaxis(turned[name], -1, 0)).coefficients for name in SYMMETRIES])
    between = correlations(np.repeat(vectors[:1], 8, axis=0), vectors)
    assert between.argmax(axis=1).tolist() == list(range(8))
    assert between.diagonal().min() > 0.999
