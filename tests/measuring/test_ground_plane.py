"""Ground planes of known cameras: areas, lengths, distances, the horizon and the position of the camera."""

from __future__ import annotations

import numpy as np
import pytest

from pixelwise.errors import UsageError
from pixelwise.measuring.ground_plane import HORIZON, GroundPlane
from pixelwise.tiles import Window

SHAPE = (480, 640)
FOCAL = 500.0


def rotation(pitch: float, yaw: float, roll: float) -> np.ndarray:
    """From the world (X right, Y ahead, Z up) to the camera (x right, y down, z ahead), looking down by `pitch`."""
    level = np.array([[1.0, 0, 0], [0, 0, -1], [0, 1, 0]])
    c, s = np.cos(pitch), np.sin(pitch)
    down = np.array([[1, 0, 0], [0, c, -s], [0, s, c]])
    c, s = np.cos(yaw), np.sin(yaw)
    turned = np.array([[c, s, 0], [-s, c, 0], [0, 0, 1]])
    c, s = np.cos(roll), np.sin(roll)
    return np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]]) @ down @ level @ turned


def project(ground: np.ndarray, position: np.ndarray, turn: np.ndarray) -> np.ndarray:
    """Columns and rows of places on the ground."""
    seen = (np.concatenate([ground, np.zeros((len(ground), 1))], 1) - position) @ turn.T
    assert (seen[:, 2] > 0).all()
    return FOCAL * seen[:, :2] / seen[:, 2:] + (np.array(SHAPE[::-1]) - 1) / 2


CAMERAS = {
    "dash": (np.array([0.0, 0.0, 1.4]), rotation(0.1, 0.0, 0.0)),
    "mast": (np.array([3.0, -5.0, 8.0]), rotation(0.5, 0.2, 0.05)),
    "far coordinates": (np.array([500_000.0, 4_000_000.0, 6.0]), rotation(0.4, -0.3, -0.1)),
}
PLACES = np.array([(-2.0, 8.0), (2.0, 8.0), (2.5, 25.0), (-2.5, 20.0)])


def ahead(name: str) -> np.ndarray:
    """Places on the ground before a camera."""
    position, turn = CAMERAS[name]
    forward = turn.T @ np.array([0, 0, 1.0])
    forward = forward[:2] / np.linalg.norm(forward[:2])
    right = np.array([forward[1], -forward[0]])
    return position[:2] + PLACES[:, :1] * right + PLACES[:, 1:] * forward


def plane_of(name: str) -> GroundPlane:
    return GroundPlane.from_points(project(ahead(name), *CAMERAS[name]), ahead(name))


@pytest.mark.parametrize("name", CAMERAS)
def test_distances_and_areas_of_a_known_camera(name: str) -> None:
    plane, places = plane_of(name), ahead(name)
    rng = np.random.default_rng(0)
    inside = places.mean(0) + (places[rng.integers(0, 4, 50)] - places.mean(0)) * rng.random((50, 1))
    pixels = project(inside, *CAMERAS[name])[:, ::-1]
    np.testing.assert_allclose(plane.to_ground(pixels), inside, rtol=1e-9, atol=1e-6)
    np.testing.assert_allclose(
        plane.distances(pixels[:25], pixels[25:]), np.linalg.norm(inside[:25] - inside[25:], axis=1), atol=1e-6
    )
    position = CAMERAS[name][0]
    np.testing.assert_allclose(
        plane.distances_from(tuple(position[:2]), pixels), np.linalg.norm(inside - position[:2], axis=1), atol=1e-6
    )
    # The sum over the pixels of a rectangle of the image is the area of the quadrilateral that it covers.
    top, bottom = sorted(np.round(pixels[:2, 0]).astype(int))
    window = Window((max(top, 200), 300), (max(bottom, top + 40, 260), 420))
    low, high = np.array(window.start) - 0.5, np.array(window.stop) - 0.5
    x, y = (plane.to_ground(np.array([low, (low[0], high[1]), high, (high[0], low[1])])) - position[:2]).T
    area = abs(np.dot(x, np.roll(y, 1)) - np.dot(y, np.roll(x, 1))) / 2
    assert plane.sizes(window).sum() == pytest.approx(area, rel=1e-6)


@pytest.mark.parametrize("name", CAMERAS)
def test_jacobians_are_derivatives(name: str) -> None:
    plane = plane_of(name)
    at = np.array([[300.0, 320.0], [400.0, 100.0], [350.0, 600.0]])
    step = 1e-4
    for k, shift in enumerate(np.eye(2) * step):
        moved = plane._places(at + shift) - plane._places(at - shift)
        np.testing.assert_allclose(plane.jacobians(at)[:, :, k], moved / (2 * step), rtol=1e-5, atol=1e-9)
    sizes = np.array([plane.sizes(Window((int(r), int(c)), (int(r) + 1, int(c) + 1))).item() for r, c in at])
    np.testing.assert_allclose(abs(np.linalg.det(plane.jacobians(at))), sizes, rtol=1e-3)


def test_pixels_above_the_horizon_have_no_size() -> None:
    plane = plane_of("dash")
    horizon = (SHAPE[0] - 1) / 2 - FOCAL * np.tan(0.1)
    sizes = plane.sizes(Window((0, 0), SHAPE))
    first = int(np.floor(horizon + HORIZON)) + 1
    assert np.isfinite(sizes).all()
    assert not sizes[:first].any()
    assert (sizes[first:] > 0).all()
    assert (np.diff(sizes[first:], axis=0) < 0).all()
    assert plane.above_horizon(SHAPE) == first * SHAPE[1]
    assert f"{first * SHAPE[1]:,} pixels" in str(plane.horizon_note(SHAPE))
    sky = np.array([[10.0, 20.0]])
    assert not plane.jacobians(sky).any()
    assert plane.distances(sky, np.array([[400.0, 300.0]])).item() == pytest.approx(0)
    assert np.isnan(plane.distances_from((0.0, 0.0), sky)).all()


def test_a_camera_that_looks_down_has_no_horizon() -> None:
    image = np.array([(0, 0), (100, 0), (100, 50), (0, 50)], float)
    plane = GroundPlane.from_points(image, image * 0.02)
    np.testing.assert_allclose(plane.sizes(Window((0, 0), (50, 100))), 0.0004)
    assert plane.horizon_note((50, 100)) is None
    assert plane.camera((50, 100)) is None


@pytest.mark.parametrize("name", CAMERAS)
def test_the_position_of_the_camera(name: str) -> None:
    found = plane_of(name).camera(SHAPE)
    assert found is not None
    np.testing.assert_allclose((*found.foot, found.height), CAMERAS[name][0], rtol=1e-9, atol=1e-4)


def test_more_points_are_fitted_in_the_image() -> None:
    rng = np.random.default_rng(1)
    x, y = np.meshgrid(np.linspace(-3, 3, 4), np.linspace(7, 30, 5))
    ground = np.stack([x.ravel(), y.ravel()], 1)
    image = project(ground, *CAMERAS["dash"])
    exact = GroundPlane.from_points(image, ground)
    assert exact.residual < 1e-6
    noisy = GroundPlane.from_points(image + rng.normal(0, 0.5, image.shape), ground)
    assert 0.3 < noisy.residual < 3
    assert "20 points, which fit to" in noisy.provenance
    at = project(np.array([[0.0, 12.0]]), *CAMERAS["dash"])[:, ::-1]
    np.testing.assert_allclose(noisy.to_ground(at), [[0.0, 12.0]], atol=0.15)


@pytest.mark.parametrize(
    ("image", "ground", "found"),
    [
        ([(0, 0), (9, 0), (9, 9)], [(0, 0), (1, 0), (1, 1)], "only 3"),
        ([(0, 0), (5, 5), (9, 9), (0, 9)], [(0, 0), (1, 1), (2, 2), (0, 2)], "line"),
        ([(0, 0), (5, 5), (9, 9), (0, 9)], [(0, 0), (1, 0), (1, 1), (0, 1)], "line"),
        ([(0, 0), (9, 0), (9, 9), (0, 9)], [(0, 0), (1, 0), (0, 1), (1, 1)], "horizon"),
        ([(4, 4)] * 4, [(0, 0), (1, 0), (1, 1), (0, 1)], "same point"),
    ],
)
def test_points_that_determine_no_plane(image: list, ground: list, found: str) -> None:
    with pytest.raises(UsageError) as error:
        GroundPlane.from_points(np.array(image, float), np.array(ground, float))
    assert found in error.value.found
