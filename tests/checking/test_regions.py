import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import ndimage

from pixelwise.checking.regions import COLUMNS, STRIDES, Column, find_runs, region_table
from pixelwise.datasets.fingerprint import class_thickness
from pixelwise.labels import Labels


def table_of(mask: np.ndarray, num_classes: int) -> dict[int, np.ndarray]:
    ids = np.arange(num_classes + 1)
    table = region_table(find_runs(mask), num_classes, ids, min(mask.shape))
    return {int(row[Column.CLASS]): row.astype(np.int64) for row in table}


def by_hand(mask: np.ndarray, num_classes: int) -> dict[int, np.ndarray]:
    """Compute the table with scipy's labelling, region by region."""
    found = {}
    for k in np.unique(mask).tolist():
        row = np.zeros(COLUMNS, np.int64)
        row[Column.CLASS], row[Column.PIXELS] = k, (mask == k).sum()
        numbered, count = ndimage.label(mask == k, np.ones((3, 3)))
        row[Column.REGIONS] = count
        for region in range(1, count + 1):
            own = numbered == region
            area, edges = int(own.sum()), 0
            for one, other, same in (
                (own[1:], own[:-1], mask[1:] == mask[:-1]),
                (own[:, 1:], own[:, :-1], mask[:, 1:] == mask[:, :-1]),
            ):
                edges += int(((one != other) & ~same).sum())
            thickness = min(2 * area / max(edges, 1), min(mask.shape))
            row[Column.SPECKS] += area < 5 and not (own[[0, -1]].any() or own[:, [0, -1]].any())
            for place, stride in enumerate(STRIDES):
                row[Column.THIN + place] += thickness < stride
                row[Column.THIN_PIXELS + place] += area * (thickness < stride)
            row[Column.LINES] += area * (thickness < 2)
        row[Column.BETWEEN] = sum(
            1 for line in mask for place in range(len(line)) if line[place] == k and lies_between(line.tolist(), place)
        )
        found[k] = row
    return found


def lies_between(line: list[int], place: int) -> bool:
    """Whether a pixel is in a run of at most two with an id between those of its neighbours."""
    first = last = place
    while first and line[first - 1] == line[place]:
        first -= 1
    while last + 1 < len(line) and line[last + 1] == line[place]:
        last += 1
    if last - first > 1 or first == 0 or last == len(line) - 1:
        return False
    one, two = sorted((line[first - 1], line[last + 1]))
    return one < line[place] < two


@given(hnp.arrays(np.uint8, st.tuples(st.integers(1, 12), st.integers(1, 12)), elements=st.integers(0, 3)))
def test_the_table_is_what_scipy_counts(mask: np.ndarray) -> None:
    ours, theirs = table_of(mask, 4), by_hand(mask, 4)
    assert ours.keys() == theirs.keys()
    for k in ours:
        assert ours[k].tolist() == theirs[k].tolist()


@given(hnp.arrays(np.uint8, (7, 5), elements=st.integers(0, 2)), st.integers(1, 4), st.integers(1, 4))
def test_the_table_of_patches_is_what_scipy_counts(small: np.ndarray, tall: int, wide: int) -> None:
    mask = np.kron(small, np.ones((tall, wide), np.uint8))
    assert {k: row.tolist() for k, row in table_of(mask, 3).items()} == {
        k: row.tolist() for k, row in by_hand(mask, 3).items()
    }


def test_other_values_count_as_ignored() -> None:
    mask = np.array([[0, 0, 255], [1, 255, 255]], np.uint8)
    table = table_of(mask, 2)
    assert {k: int(row[Column.PIXELS]) for k, row in table.items()} == {0: 2, 1: 1, 2: 3}


def test_blended_ids_refer_to_the_ids_in_files() -> None:
    """Class indices 0, 1, 2 have the ids 10, 30 and 20, and 20 is between 10 and 30."""
    mask = np.array([[0, 0, 2, 1, 1]] * 3, np.uint8)
    table = region_table(find_runs(mask), 3, np.array([10, 30, 20, 255]), 3)
    assert table[:, Column.BETWEEN].tolist() == [0, 0, 3]
    table = region_table(find_runs(mask), 3, np.array([10, 20, 30, 255]), 3)
    assert table[:, Column.BETWEEN].tolist() == [0, 0, 0]


def test_thickness_is_that_of_the_fingerprint() -> None:
    mask = np.zeros((40, 60), np.uint8)
    mask[10:16] = 1
    expected = class_thickness(mask, Labels(("a", "b")))[1]
    assert expected == pytest.approx(6)
    assert table_of(mask, 2)[1][Column.THIN : Column.THIN + 4].tolist() == [0, 1, 1, 1]


def test_digests_of_equal_and_different_masks() -> None:
    one = np.zeros((4, 6), np.uint8)
    one[2, 3] = 1
    two = one.copy()
    two[2, 3] = 2
    shapes = [one, two, one.reshape(6, 4), np.zeros((4, 6), np.uint8)]
    assert len({find_runs(mask).digest() for mask in shapes}) == 4
    assert find_runs(one).digest() == find_runs(one.astype(np.uint16)).digest()
    assert len(find_runs(one).digest()) == 8
