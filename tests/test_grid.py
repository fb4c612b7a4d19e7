import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pixelwise.errors import DataError
from pixelwise.grid import Affine, Grid

# A north-up GeoTIFF: 10 m pixels, rows run south.
UTM: Affine = ((10.0, 0.0, 399_960.0), (0.0, -10.0, 5_100_000.0), (0.0, 0.0, 1.0))
# 2 wide, 3 high, each row shifted by 1: the sides are 2 and √10, the area is 6.
SHEARED: Affine = ((2.0, 1.0, 0.0), (0.0, 3.0, 0.0), (0.0, 0.0, 1.0))


def test_defaults() -> None:
    grid = Grid()
    assert (grid.spacing, grid.unit, grid.ndim, grid.pixel_size) == ((1.0, 1.0), "px", 2, 1.0)
    assert grid.to_world(np.array([[2, 5]])).tolist() == [[5.0, 2.0]]


def test_pixel_size_from_the_spacing() -> None:
    assert Grid((0.5, 0.25), "mm").pixel_size == 0.125
    assert Grid((2.0, 0.5, 0.25), "mm").pixel_size == 0.25


def test_pixel_size_of_a_sheared_grid_is_the_determinant() -> None:
    grid = Grid((math.sqrt(10), 2.0), "m", SHEARED)
    assert grid.pixel_size == pytest.approx(6)
    assert math.prod(grid.spacing) == pytest.approx(6.32, abs=0.01)


def test_rows_increase_to_the_south() -> None:
    grid = Grid((10.0, 10.0), "m", UTM, "EPSG:32633")
    assert grid.pixel_size == pytest.approx(100)
    assert grid.to_world(np.array([[3, 7]])).tolist() == [[399_960 + 70, 5_100_000 - 30]]
    assert grid.to_pixels(np.array([[399_965.0, 5_099_970.0]])).tolist() == [[3.0, 0.5]]


def test_slices_rows_and_columns_are_z_y_and_x() -> None:
    grid = Grid((5.0, 2.0, 1.0), "mm")
    assert grid.to_world(np.array([[1, 10, 100]])).tolist() == [[100.0, 20.0, 5.0]]


@st.composite
def grids(draw: st.DrawFn) -> Grid:
    ndim = draw(st.sampled_from([2, 3]))
    spacing = tuple(draw(st.lists(st.floats(0.01, 100), min_size=ndim, max_size=ndim)))
    if draw(st.booleans()):
        return Grid(spacing)
    shear = np.eye(ndim) + np.triu(
        np.array(draw(st.lists(st.floats(-2, 2), min_size=9, max_size=9)))[: ndim * ndim].reshape(ndim, ndim), 1
    )
    matrix = np.eye(ndim + 1)
    matrix[:-1, :-1] = shear @ np.diag(spacing)
    matrix[:-1, -1] = draw(st.lists(st.floats(-1e5, 1e5), min_size=ndim, max_size=ndim))
    return Grid(spacing, affine=tuple(map(tuple, matrix)))


@given(grids(), st.integers(0, 2**32 - 1))
def test_to_world_and_back(grid: Grid, seed: int) -> None:
    pixels = np.random.default_rng(seed).uniform(-50, 50, (5, grid.ndim))
    np.testing.assert_allclose(grid.to_pixels(grid.to_world(pixels)), pixels, atol=1e-3)


@given(grids())
def test_pixel_size_is_the_area_between_the_corners(grid: Grid) -> None:
    corners = np.vstack([np.zeros(grid.ndim), np.eye(grid.ndim)])
    world = grid.to_world(corners)
    assert abs(np.linalg.det(world[1:] - world[0])) == pytest.approx(grid.pixel_size, rel=1e-3)


def test_arrays_and_lists_are_equivalent() -> None:
    grid = Grid([10, 10], "m", np.array(UTM))  # type: ignore[arg-type]
    assert grid == Grid((10.0, 10.0), "m", UTM)
    assert hash(grid) == hash(Grid((10.0, 10.0), "m", UTM))
    grid.require_same(Grid((10.0, 10.0), "m", np.array(UTM)), "m.tif")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"spacing": (0.0, 1.0)}, "grid.spacing: expected two or three positive distances, found (0.0, 1.0)."),
        ({"spacing": (-1.0, 1.0)}, "grid.spacing: expected two or three positive distances, found (-1.0, 1.0)."),
        ({"spacing": (math.nan, 1.0)}, "grid.spacing: expected two or three positive distances, found (nan, 1.0)."),
        ({"spacing": (1.0,)}, "grid.spacing: expected two or three positive distances, found (1.0,)."),
        ({"spacing": ()}, "grid.spacing: expected two or three positive distances, found ()."),
        ({"affine": ((1.0, 0.0), (0.0, 1.0))}, "grid.affine: expected a 3×3 matrix, found shape (2, 2)."),
        ({"spacing": (1.0, 1.0, 1.0), "affine": UTM}, "grid.affine: expected a 4×4 matrix, found shape (3, 3)."),
        ({"affine": ((1.0, 0.0, 0.0), (2.0, 0.0, 0.0), (0.0, 0.0, 1.0))}, "grid.affine: expected a matrix with an"),
        ({"affine": ((math.nan, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0))}, "grid.affine: expected a matrix with"),
    ],
)
def test_invalid_grids(fields: dict[str, object], message: str) -> None:
    with pytest.raises(DataError) as error:
        Grid(**fields)  # type: ignore[arg-type]
    assert str(error.value).startswith(message)


def moved(pixels: float) -> Affine:
    return ((10.0, 0.0, UTM[0][2] + 10 * pixels), UTM[1], UTM[2])


def test_tolerance_of_a_ten_thousandth_of_a_pixel() -> None:
    here = Grid((10.0, 10.0), "m", UTM, "EPSG:32633")
    here.require_same(Grid((10.0, 10.0), "m", moved(0.00009), "EPSG:32633"), "m.tif")
    here.require_same(Grid((10.0, 10.000_5), "m", UTM, "EPSG:32633"), "m.tif")
    with pytest.raises(DataError, match=r"^m\.tif: expected the image's affine \(\(10\.0, .* Resample the mask to"):
        here.require_same(Grid((10.0, 10.0), "m", moved(0.0002), "EPSG:32633"), "m.tif")


def test_tolerance_is_relative_to_small_pixels() -> None:
    def at(x: float) -> Grid:
        return Grid(affine=((1e-5, 0.0, x), (0.0, -1e-5, 48.0), (0.0, 0.0, 1.0)))

    at(9.0).require_same(at(9.0 + 1e-10), "m.tif")
    with pytest.raises(DataError, match="affine"):
        at(9.0).require_same(at(9.0 + 1e-5), "m.tif")


@pytest.mark.parametrize(
    ("other", "field"),
    [
        (Grid((10.0, 11.0), "m", UTM, "EPSG:32633"), "spacing"),
        (Grid((10.0, 10.0, 10.0), "m", crs="EPSG:32633"), "spacing"),
        (Grid((10.0, 10.0), "mm", UTM, "EPSG:32633"), "unit"),
        (Grid((10.0, 10.0), "m", None, "EPSG:32633"), "affine"),
        (Grid((10.0, 10.0), "m", UTM, "EPSG:32634"), "crs"),
        (Grid((10.0, 10.0), "m", UTM), "crs"),
    ],
)
def test_a_different_grid_is_an_error(other: Grid, field: str) -> None:
    with pytest.raises(DataError, match=f"expected the image's {field} "):
        Grid((10.0, 10.0), "m", UTM, "EPSG:32633").require_same(other, "m.tif")


def test_the_calibration_is_not_compared() -> None:
    Grid(calibration="PixelSpacing").require_same(Grid(), "m.tif")


def test_with_another_number_of_axes() -> None:
    grid = Grid((10.0, 10.0), "m", UTM)
    assert grid.with_axes(2) is grid
    assert grid.with_axes(3) == Grid((1.0, 1.0, 1.0))
