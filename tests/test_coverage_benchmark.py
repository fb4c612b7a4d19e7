"""The study of the coverage of sizes, on drawn sizes instead of real images."""

import numpy as np
import pytest
from benchmarks import coverage_sizes

from pixelwise.measuring.conformal import ImageSizes


def drawn(groups: int | None) -> ImageSizes:
    rng = np.random.default_rng(0)
    n = 120
    units = np.arange(n) if groups is None else np.arange(n) % groups
    predicted = rng.integers(200, 900, (n, 2))
    spread = np.exp(rng.normal(0, 0.6, n))[units]
    truth = np.maximum(predicted + rng.normal(20, 30 * spread[:, None], (n, 2)).astype(int), 0)
    size = np.full(n, 10_000)
    names = (None,) * n if groups is None else tuple(f"patient {unit}" for unit in units)
    return ImageSizes(truth, predicted, np.full((n, 2), 60), size, size, names)


@pytest.mark.parametrize(
    ("groups", "ways"), [(None, {"images"}), (30, {"images", "mixed", "groups"}), (9, {"images", "mixed"})]
)
def test_every_way_that_the_set_allows_is_measured(groups: int | None, ways: set[str]) -> None:
    found = coverage_sizes.conformal(drawn(groups), 60)
    assert set(found) == ways
    assert 0.85 < found["images"]["coverage"] < 0.97
    if "groups" in found:
        assert found["groups"]["coverage"] > 0.87


def test_totals_are_surveyed_by_unit(monkeypatch: pytest.MonkeyPatch) -> None:
    found = coverage_sizes.totals(drawn(None), 60)
    assert set(found) == {"10", "20", "50"}
    assert all(each["coverage"] > 0.85 for each in found.values())
    assert found["50"]["width"] < found["10"]["width"]
    assert set(coverage_sizes.totals(drawn(30), 60)) == {"10", "20"}


def test_groups_are_named_where_the_set_does_not() -> None:
    assert coverage_sizes.group_of("camvid", "test/0001TP_008550", None) == "0001TP"
    assert coverage_sizes.group_of("hippocampus", "hippocampus_001/12", "hippocampus_001") == "hippocampus_001"
    assert coverage_sizes.group_of("nuclei", "a", None) is None
