"""The benchmark of estimators: the drawn shapes have the sizes that are stated, and the methods measure them."""

from __future__ import annotations

import numpy as np
import pytest
from benchmarks import estimators
from scipy import ndimage


def test_the_methods_are_measured_on_all_shapes() -> None:
    found = estimators.measure(draws=2, draws_3d=1)
    assert {name: set(shapes) for name, shapes in found.items() if name != "held"} == {
        "perimeter": set(estimators.solids()),
        "length": set(estimators.thin_shapes()),
        "surface": set(estimators.bodies()),
    }
    for quantity in ("perimeter", "length", "surface"):
        for shape, methods in found[quantity].items():
            assert abs(methods[estimators.OURS]["worst"]) < 0.15, shape
    assert found["length"]["strip"]["skimage skeleton pixels"]["rms"] > found["length"]["strip"][estimators.OURS]["rms"]


@pytest.mark.parametrize("name", estimators.thin_shapes())
def test_thin_shapes_have_their_area(name: str) -> None:
    """Area = length times width, but for branches, which share a part, and round ends, which lack the corners."""
    shape = estimators.thin_shapes()[name][-1]
    area = shape.draw(0.4, np.array([0.2, 0.7]), np.eye(2)).sum()
    branches, ends = len(shape.lines), 0 if shape.closed or shape.flat else 2
    shared = (branches > 1) * branches * shape.width**2 / 4
    corners = ends * shape.width**2 * (0.5 - np.pi / 8)
    assert area == pytest.approx(shape.length * shape.width - corners - shared, rel=0.02)


def test_faces_are_counted() -> None:
    assert estimators.faces(np.ones((2, 3), bool)) == 10
    assert estimators.faces(np.ones((2, 3, 4), bool)) == 2 * (6 + 8 + 12)
    assert estimators.holes(ndimage.binary_dilation(np.zeros((5, 5), bool))) == 0
