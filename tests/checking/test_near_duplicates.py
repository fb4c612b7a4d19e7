import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pixelwise.checking import near_duplicates
from pixelwise.checking.image_signature import typical_distance
from pixelwise.checking.near_duplicates import nearest


def unit(vectors: np.ndarray) -> np.ndarray:
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def by_hand(vectors: np.ndarray, splits: list[str], limit: float, same: bool) -> tuple[np.ndarray, np.ndarray]:
    """Compare every pair."""
    distances = 1 - vectors.astype(np.float64) @ vectors.astype(np.float64).T
    own = np.array(splits)[:, None] == np.array(splits)
    distances[own != same] = 9
    np.fill_diagonal(distances, 9)
    return distances.min(1), distances.min(1) <= limit


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 40), st.floats(0.001, 0.5))
def test_no_neighbour_within_the_limit_is_missed(seed: int, count: int, limit: float) -> None:
    rng = np.random.default_rng(seed)
    splits = sorted(rng.choice(["test", "train", "val"], count).tolist())
    centres = rng.standard_normal((5, 60))
    vectors = unit(centres[rng.integers(0, 5, count)] + rng.uniform(0, 0.6) * rng.standard_normal((count, 60)))
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
            assert 1 - float(vectors[one] @ vectors[other]) == pytest.approx(distance[one], abs=1e-5)


def test_the_block_size_does_not_change_the_result(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    vectors = unit(np.repeat(rng.standard_normal((30, 143)), 3, axis=0) + 0.05 * rng.standard_normal((90, 143)))
    splits = ["train"] * 50 + ["val"] * 15 + ["test"] * 25
    whole = nearest(vectors, splits, 0.02)
    monkeypatch.setattr(near_duplicates, "_BLOCK", 7)
    for one, two in zip(whole, nearest(vectors, splits, 0.02), strict=True):
        assert np.array_equal(one.neighbour, two.neighbour)
        assert two.distance == pytest.approx(one.distance, abs=1e-5)
    assert (whole[0].neighbour >= 0).sum() > 50


def test_thousands_that_are_all_alike_take_no_memory_for_their_pairs() -> None:
    vectors = unit(np.ones((3000, 20)) + 1e-4 * np.random.default_rng(0).standard_normal((3000, 20)))
    inside, across = nearest(vectors, ["train"] * 3000, 0.02)
    assert (inside.neighbour >= 0).all()
    assert (across.neighbour == -1).all()


def test_the_usual_distance_leaves_copies_out() -> None:
    vectors = unit(np.eye(4)[[0, 0, 0, 0, 0, 0, 1, 2]])
    assert typical_distance(vectors, np.array([0, 0, 0, 0, 0, 0, 1, 2])) == pytest.approx(1)
    assert typical_distance(vectors[:6], np.zeros(6, np.int64)) == 1
    assert typical_distance(vectors[:1], np.zeros(1, np.int64)) == 1
