import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pixelwise.tiles import Window, padded, starts, windows


@st.composite
def axes(draw, largest=300):
    align = draw(st.sampled_from([1, 1, 2, 4, 16]))
    tile = align * draw(st.integers(1, 12))
    return draw(st.integers(1, largest)), tile, draw(st.integers(0, tile - 1)), align


@given(axes())
def test_starts_are_aligned_increasing_and_cover_the_axis(case):
    size, tile, overlap, align = case
    places = starts(size, tile, overlap, align)
    assert places[0] == 0
    assert all(place % align == 0 for place in places)
    assert all(0 < b - a <= tile for a, b in itertools.pairwise(places))
    assert places[-1] < size <= places[-1] + tile


@given(axes())
def test_neighbours_overlap_as_requested(case):
    size, tile, overlap, align = case
    least = min(padded(overlap, align), tile - align)
    assert all(a + tile - b >= least for a, b in itertools.pairwise(starts(size, tile, overlap, align)))


@given(axes())
def test_the_number_of_tiles_is_minimal(case):
    size, tile, overlap, align = case
    count = len(starts(size, tile, overlap, align))
    least = min(padded(overlap, align), tile - align)
    fewer = count - 1
    reach = fewer * tile - max(fewer - 1, 0) * least
    assert fewer == 0 or reach < padded(size, align)


@given(axes())
def test_tiles_are_evenly_spaced(case):
    places = starts(*case[:3], case[3])
    steps = {b - a for a, b in itertools.pairwise(places)}
    assert not steps or max(steps) - min(steps) <= case[3]


@given(st.tuples(axes(60), axes(60)), st.sampled_from([1, 4]))
def test_windows_stay_within_and_cover_the_shape_row_by_row(cases, align):
    shape = [case[0] for case in cases]
    tile = [padded(case[1], align) for case in cases]
    found = windows(shape, tile, [case[2] for case in cases], align)
    seen = np.zeros(shape, int)
    for window in found:
        assert all(0 <= a < b <= s for a, b, s in zip(window.start, window.stop, shape, strict=True))
        assert all(n <= t for n, t in zip(window.shape, tile, strict=True))
        seen[window.slices] += 1
    assert seen.min() >= 1
    assert [w.start for w in found] == sorted(w.start for w in found)


def test_one_window_if_the_tile_is_as_large_as_the_shape():
    assert windows((5, 7), (8, 8), (4, 4), 4) == [Window((0, 0), (5, 7))]


def test_only_the_last_window_is_smaller():
    assert [w.shape[1] for w in windows((8, 21), (8, 8), (0, 4), 4)] == [8, 8, 8, 8, 5]


def test_three_axes():
    assert len(windows((2, 2, 2), (1, 1, 1), (0, 0, 0))) == 8


@pytest.mark.parametrize("case", [(0, 4, 0, 1), (5, 0, 0, 1), (5, 6, 0, 4), (5, 4, 4, 1), (5, 4, -1, 1), (5, 4, 0, 0)])
def test_invalid_arguments(case):
    with pytest.raises(
        ValueError, match=rf"^size {case[0]}, tile {case[1]}, overlap {case[2]}, align {case[3]}: expected"
    ):
        starts(*case)


@given(st.integers(0, 1000), st.integers(1, 64))
def test_padded_is_the_next_multiple(size, multiple):
    assert padded(size, multiple) % multiple == 0
    assert size <= padded(size, multiple) < size + multiple
