"""What users say about the size of pixels: scale bars and ground planes."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from pixelwise.api.measuring.ground_plane import GivenGroundPlane
from pixelwise.api.measuring.scale_bar import GivenScaleBar
from pixelwise.errors import ConfigError, UsageError
from pixelwise.grid import Grid
from pixelwise.tiles import Window

SHAPE = (100, 200)
POINTS = "0,0=0,0;100,0=2,0; 100,50=2,1 ;0,50=0,1;"


@pytest.mark.parametrize(
    ("text", "unit", "pixel"),
    [
        ("10,90,110,90=50mm", "mm", 0.5),
        ("10, 20, 40, 60 = 5 cm", "mm", 1.0),
        ("0,0,0,50=1km", "m", 20.0),
        ("0.5,0,100.5,0=200um", "mm", 0.002),
    ],
)
def test_scale_bars(text: str, unit: str, pixel: float) -> None:
    scale = GivenScaleBar.parse(text).scale_of(Grid(), SHAPE)
    assert scale.unit == unit
    assert scale.sizes(Window((0, 0), (2, 2))).item() == pytest.approx(pixel**2)
    assert scale.distances(np.array([[0.0, 0.0]]), np.array([[3.0, 4.0]])).item() == pytest.approx(5 * pixel)


def test_the_provenance_of_a_scale_bar_says_how_precise_it_is() -> None:
    scale = GivenScaleBar.parse("10,90,110,90=50mm").scale_of(Grid(), SHAPE)
    assert scale.provenance == "scale bar of 50mm over 100 pixels, on which one pixel is 1 % of all lengths"


@pytest.mark.parametrize(
    "text",
    ["", "50mm", "1,2,3=50mm", "1,2,3,4", "1,2,1,2=50mm", "1,2,3,4=50", "1,2,3,nan=5mm", "1,2,3,4=-5mm", "a,b,c,d=5mm"],
)
def test_malformed_scale_bars(text: str) -> None:
    with pytest.raises(UsageError, match="--scale-bar: expected both ends"):
        GivenScaleBar.parse(text)


def test_ground_planes_from_texts_and_files(tmp_path: Path) -> None:
    points = [{"image": [x, y], "metres": [x / 50, y / 50]} for x, y in ((0, 0), (100, 0), (100, 50), (0, 50))]
    (tmp_path / "a.json").write_text(json.dumps({"points": points}))
    (tmp_path / "b.yaml").write_text(
        "points:\n" + "".join(f"- {{image: {p['image']}, metres: {p['metres']}}}\n" for p in points)
    )
    for given in (POINTS, str(tmp_path / "a.json"), str(tmp_path / "b.yaml")):
        scale = GivenGroundPlane.parse(given).scale_of(Grid(), SHAPE)
        assert scale.sizes(Window((0, 0), (1, 1))).item() == pytest.approx(0.0004)
        assert (scale.unit, scale.provenance) == ("m", "ground plane through 4 points")


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("1,2=3,4;5,6=7", "5,6=7"),
        ("1,2=3,4;5,6,7=8", "5,6,7=8"),
        ("1,2=3,4;5,6=7,x", "5,6=7,x"),
        ("1,2=3,4;5,6=7,inf", "5,6=7,inf"),
        ("1,2=3,4", "only 1"),
        ("road.txt", "road.txt"),
    ],
)
def test_malformed_ground_planes(text: str, found: str) -> None:
    with pytest.raises(UsageError) as error:
        GivenGroundPlane.parse(text)
    assert error.value.found == found


@pytest.mark.parametrize(
    "content", ["{}", "points: 3", "points: [{image: [1], metres: [0, 0]}]", "points: [[1, 2, 3, 4]]"]
)
def test_malformed_files(tmp_path: Path, content: str) -> None:
    (tmp_path / "a.yaml").write_text(content)
    with pytest.raises(UsageError, match=r"a\.yaml"):
        GivenGroundPlane.parse(str(tmp_path / "a.yaml"))
    with pytest.raises(ConfigError):
        GivenGroundPlane.parse(str(tmp_path / "none.yaml"))


@pytest.mark.parametrize("given", [GivenScaleBar.parse("10,90,110,90=50mm"), GivenGroundPlane.parse(POINTS)])
def test_images_without_the_points_and_volumes_are_refused(given: GivenScaleBar | GivenGroundPlane) -> None:
    with pytest.raises(UsageError, match="60×40 pixels"):
        given.scale_of(Grid(), (40, 60))
    with pytest.raises(UsageError, match="found a volume"):
        given.scale_of(Grid((1, 1, 1)), (5, 100, 200))
