"""Samples of a map: the same whatever the bands, equal probabilities in each stratum, and areas right where pixels differ."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
from numpy.typing import NDArray

from pixelwise.labels import Labels
from pixelwise.measuring.area_estimates import estimate_areas
from pixelwise.measuring.masks import ArrayMask
from pixelwise.measuring.sampling import (
    FEWEST_POINTS,
    ClassTally,
    allocate,
    classes_at,
    inside,
    propose,
    sizes_at,
    stratify,
    tally_classes,
)
from pixelwise.measuring.scale import pixels
from pixelwise.tiles import Window

LABELS = Labels(("land", "water", "road"))
PIXELS = pixels(2, "drawn")


@dataclass(frozen=True)
class ByRow:
    """A scale whose pixels are larger in lower rows, as in degrees."""

    full: bool = False
    unit: str = "m"
    provenance: str = "drawn"
    reason: str | None = None

    def sizes(self, window: Window) -> NDArray[np.float64]:
        rows = 1 + np.arange(window.start[0], window.stop[0]) / 20
        return np.broadcast_to(rows[:, None], window.shape) if self.full else rows[:, None]

    def jacobians(self, positions: NDArray[np.float64]) -> NDArray[np.float64]:
        raise NotImplementedError

    def distances(self, first: NDArray[np.float64], second: NDArray[np.float64]) -> NDArray[np.float64]:
        raise NotImplementedError


def drawn(shape: tuple[int, int] = (80, 70), seed: int = 0, confidence: bool = True) -> ArrayMask:
    rng = np.random.default_rng(seed)
    mask = rng.choice(3, shape, p=[0.7, 0.25, 0.05]).astype(np.uint8)
    mask[:5, :7] = LABELS.ignore_index
    probability = rng.uniform(0.4, 1, shape).astype(np.float32)
    probability[10:12, :3] = np.nan
    return ArrayMask(mask, LABELS, "map", probability if confidence else None)


@pytest.mark.parametrize("confidence", [True, False])
def test_the_points_depend_on_the_seed_but_not_on_the_bands(confidence: bool) -> None:
    mask = drawn(confidence=confidence)
    first = propose(mask, PIXELS, 120, seed=3)
    for rows in (1, 7, 64):
        again = propose(mask, PIXELS, 120, seed=3, band_rows=rows)
        assert again.strata == first.strata
        assert (again.positions == first.positions).all()
        assert (again.stratum == first.stratum).all()
    assert (propose(mask, PIXELS, 120, seed=4).positions != first.positions).any()


@pytest.mark.parametrize("confidence", [True, False])
def test_each_point_is_a_pixel_of_its_stratum(confidence: bool) -> None:
    mask = drawn(confidence=confidence)
    sample = propose(mask, PIXELS, 150)
    assert len({tuple(at) for at in sample.positions.tolist()}) == len(sample.positions) == 150
    assert [int(n) for n in np.bincount(sample.stratum)] == [each.points for each in sample.strata]
    values = classes_at(mask, sample.positions)
    for at, h, value in zip(sample.positions, sample.stratum, values, strict=True):
        stratum = sample.strata[h]
        assert value == stratum.class_index
        if mask.probability is not None:
            percent = np.rint(100 * np.nan_to_num(mask.probability[tuple(at)]))
            assert stratum.low <= percent <= stratum.high
    counted = np.bincount(mask.mask[mask.mask < 3], minlength=3)
    assert [sum(s.pixels for s in sample.strata if s.class_index == k) for k in range(3)] == counted.tolist()


def test_points_are_in_random_order() -> None:
    """Neither the order of the strata nor that of the rows shows what the map says."""
    sample = propose(drawn(), PIXELS, 200)
    for values in (sample.stratum, sample.positions[:, 0]):
        assert abs(np.corrcoef(np.arange(200), values)[0, 1]) < 0.25


def test_every_pixel_of_a_stratum_is_equally_likely() -> None:
    mask = drawn((12, 10), confidence=False)
    counts = np.zeros(mask.shape)
    for seed in range(1500):
        sample = propose(mask, PIXELS, 30, seed=seed)
        counts[tuple(sample.positions.T)] += 1
    for stratum in sample.strata:
        own = counts[mask.mask == stratum.class_index]
        expected, deviation = (
            1500 * stratum.probability,
            np.sqrt(1500 * stratum.probability * (1 - stratum.probability)),
        )
        assert abs(own - expected).max() <= 4.5 * deviation


@pytest.mark.parametrize("full", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_areas_are_unbiased_where_pixels_differ_in_area(full: bool) -> None:
    """The true class depends on the row, as the areas do."""
    mask, scale = drawn(confidence=False), ByRow(full)
    rows = np.arange(80)[:, None]
    truth = np.where(rows + np.zeros((1, 70)) > 55, 2, mask.mask)
    area = np.broadcast_to(1 + rows / 20, mask.shape)
    known = mask.mask < 3
    share = float(area[known & (truth == 2)].sum() / area[known].sum())
    found, held = [], 0
    for seed in range(100):
        sample = propose(mask, scale, 90, seed=seed)
        answers = truth[tuple(sample.positions.T)].astype(np.int64)
        estimate = estimate_areas(sample.strata, sample.stratum, answers, 3, sizes=sample.sizes).shares[2]
        found.append(estimate.value)
        held += estimate.low <= share <= estimate.high
    assert np.mean(found) == pytest.approx(share, abs=4 * np.std(found) / 10)
    assert held / 100 >= 0.88
    assert sum(each.area for each in sample.strata) == pytest.approx(area[known].sum())
    assert sample.sizes == pytest.approx(area[tuple(sample.positions.T)])


def test_excluded_windows_have_no_points() -> None:
    mask = drawn()
    windows = [Window((0, 0), (40, 70)), Window((60, 30), (200, 200))]
    sample = propose(mask, PIXELS, 200, excluded=windows, band_rows=7)
    assert not inside(sample.positions, windows).any()
    out = np.zeros(mask.shape, bool)
    for window in windows:
        out[window.slices] = True
    assert sample.excluded.tolist() == np.bincount(mask.mask[out & (mask.mask < 3)], minlength=3).tolist()
    assert sum(each.pixels for each in sample.strata) == (~out & (mask.mask < 3)).sum()


def test_a_small_map_is_drawn_completely() -> None:
    mask = ArrayMask(np.array([[0, 0, 1], [1, 1, 255]], np.uint8), LABELS)
    sample = propose(mask, PIXELS, 100)
    assert len(sample.positions) == 5
    assert [each.probability for each in sample.strata] == [1, 1]


def test_too_few_points_and_empty_maps_are_errors() -> None:
    with pytest.raises(ValueError, match="needs 15 points or more, found 14"):
        propose(drawn(), PIXELS, 14)
    with pytest.raises(ValueError, match="no pixels"):
        propose(ArrayMask(np.full((4, 4), 255, np.uint8), LABELS), PIXELS, 14)


def test_points_are_half_proportional_and_half_by_deviation() -> None:
    assert allocate([900, 100], [0.1, 0.9], 100) == [70, 30]
    assert allocate([10**6, 10], [0.3, 0.3], 50) == [45, 5]
    assert allocate([10**6, 3], [0.3, 0.3], 50) == [47, 3]
    assert allocate([10, 10], [0.3, 0.3], 50) == [10, 10]
    for size in range(15, 60):
        points = allocate([500, 40, 3000], [0.4, 0.1, 0.2], size)
        assert sum(points) == size
        assert min(points) >= FEWEST_POINTS


def test_strata_share_the_doubt_of_a_class() -> None:
    pixels_ = np.zeros((1, 101), np.int64)
    pixels_[0, 50], pixels_[0, 99] = 1000, 10_000
    strata, table = stratify(ClassTally(pixels_, pixels_.astype(float), np.zeros(1, np.int64), True), 400)
    assert [(each.low, each.high, each.pixels) for each in strata] == [(50, 50, 1000), (99, 99, 10_000)]
    assert table[0, 50] == 0
    assert table[0, 99] == 1
    assert table[0, 70] == -1
    # Few pixels that are half wrong deserve more points than their share.
    assert strata[0].points > 400 / 11


def test_the_tally_sums_up_areas() -> None:
    mask = drawn()
    tally = tally_classes(mask, ByRow())
    area = np.broadcast_to(1 + np.arange(80)[:, None] / 20, mask.shape)
    assert tally.areas.sum(1) == pytest.approx([area[mask.mask == k].sum() for k in range(3)])
    assert sizes_at(ByRow(), np.array([[20, 3]])).tolist() == [2.0]
