"""`measure` with zones, scale bars and ground planes."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import shapely
from numpy.typing import NDArray
from PIL import Image
from rasterio.transform import Affine
from tests.api.test_measure import LABELS, bright, pixels
from tests.inference.backends import predictor_of
from typer.testing import CliRunner

import pixelwise
from pixelwise import cli
from pixelwise.api.measuring.ground_plane import GivenGroundPlane
from pixelwise.api.predicting import predict_files
from pixelwise.errors import DataError, UsageError
from pixelwise.measuring.conformal import ErrorLimit, SizeCalibration
from pixelwise.models.card import read_card, write_card
from pixelwise.tiles import Window

# Points of a road: column and row in the image, metres on the ground.
ROAD = "4,27=-2,5;25,27=2,5;17,14=2,18;12,14=-2,18"


def scenes(folder: Path, places: dict[str, tuple[float, float]]) -> Path:
    """Predict scenes of 20×30 pixels of 2 m, with the class bright in the upper half, at places in UTM zone 32."""
    source = folder / "in"
    source.mkdir()
    for name, (x, y) in places.items():
        about: dict[str, Any] = {"crs": "EPSG:32632", "transform": Affine(2, 0, x, 0, -2, y), "dtype": "uint8"}
        with rasterio.open(source / f"{name}.tif", "w", "GTiff", 30, 20, 1, **about) as file:
            file.write(pixels((20, 30), 300), 1)
    predict_files(predictor_of(bright, LABELS, channels=1), [str(source)], folder / "out")
    return folder / "out"


def zone_file(path: Path, **polygons: list[tuple[float, float]]) -> Path:
    features = [
        {
            "type": "Feature",
            "properties": {"name": name},
            "geometry": {"type": "Polygon", "coordinates": [[*map(list, ring), list(ring[0])]]},
        }
        for name, ring in polygons.items()
    ]
    system = {"type": "name", "properties": {"name": "EPSG:32632"}}
    path.write_text(json.dumps({"type": "FeatureCollection", "crs": system, "features": features}))
    return path


def test_zones_are_summed_over_adjoining_scenes(tmp_path: Path) -> None:
    x, y = 400_000.0, 5_600_000.0
    folder = scenes(tmp_path, {"west": (x, y), "east": (x + 60, y)})
    ring = [(x + 11.3, y - 7.7), (x + 101.1, y - 12.9), (x + 80.2, y - 33.3)]
    beyond = [(x + 100, y - 10), (x + 140, y - 10), (x + 140, y - 30), (x + 100, y - 30)]
    far = [(x + 1000, y), (x + 1010, y), (x + 1010, y + 10)]
    zones = zone_file(tmp_path / "zones.geojson", whole=ring, beyond=beyond, far=far)
    result = pixelwise.measure(folder, zones=zones, out=tmp_path / "sizes")
    found = {(each.zone, each.class_name): each for each in result.zones}
    upper = shapely.box(x, y - 20, x + 120, y)
    for name, polygon in (("whole", shapely.Polygon(ring)), ("beyond", shapely.Polygon(beyond))):
        light = polygon.intersection(upper).area
        assert found[name, "bright"].pixels == pytest.approx(light / 4)
        assert found[name, "bright"].size.value == pytest.approx(light / 0.9996**2, rel=1e-3)
        assert found[name, "bright"].size.unit == "m²"
    assert found["whole", "dark"].inside == pytest.approx(1, abs=1e-6)
    assert found["beyond", "dark"].inside == pytest.approx(0.5, abs=1e-3)
    assert found["far", "dark"].pixels == 0
    notices = "\n".join(result.notices)
    assert "only a part of these zones is on the images, see the column inside: beyond" in notices
    assert "these zones are not on the images: far" in notices
    assert "overlap" not in notices
    rows = list(csv.DictReader((tmp_path / "sizes" / "zones.csv").read_text(encoding="utf-8").splitlines()))
    assert [(row["zone"], row["class"]) for row in rows] == [(each.zone, each.class_name) for each in result.zones]
    assert [float(row["area"]) for row in rows] == pytest.approx([each.size.value for each in result.zones], rel=1e-5)
    plain = json.loads((tmp_path / "sizes" / "measurements.json").read_text())
    assert plain["zones"][0]["zone"] == "whole"
    printed = CliRunner().invoke(cli.app, ["measure", str(folder), "--zones", str(zones)])
    assert printed.exit_code == 0
    assert "divided at the border of the zone" in printed.stdout


def test_scenes_that_overlap_are_named(tmp_path: Path) -> None:
    x, y = 400_000.0, 5_600_000.0
    folder = scenes(tmp_path, {"west": (x, y), "east": (x + 40, y)})
    zones = zone_file(tmp_path / "zones.geojson", whole=[(x, y), (x + 100, y), (x + 100, y - 40), (x, y - 40)])
    assert any(
        "overlap: what both show counts twice" in each for each in pixelwise.measure(folder, zones=zones).notices
    )


def plain_images(folder: Path, *, size: tuple[int, int] = (30, 30)) -> Path:
    source = folder / "in"
    source.mkdir()
    Image.fromarray(pixels(size, 60)).save(source / "plain.png")
    predict_files(predictor_of(bright, LABELS, channels=1), [str(source)], folder / "out")
    return folder / "out"


def test_zones_need_images_with_a_position(tmp_path: Path) -> None:
    zones = zone_file(tmp_path / "zones.geojson", whole=[(0, 0), (1, 0), (1, 1)])
    with pytest.raises(DataError, match="expected a position in a coordinate reference system"):
        pixelwise.measure(plain_images(tmp_path), zones=zones)


def test_a_scale_bar_gives_the_unit(tmp_path: Path) -> None:
    folder = plain_images(tmp_path)
    size = pixelwise.measure(folder, scale_bar="5,3,8,7=10mm").classes[1]
    assert (size.size.value, size.size.unit) == (pytest.approx(60 * 4), "mm²")
    assert size.provenance == "scale bar of 10mm over 5 pixels, on which one pixel is 20 % of all lengths"
    with pytest.raises(UsageError, match="expected points within the image of 30×30 pixels"):
        pixelwise.measure(folder, scale_bar="5,3,80,7=10mm")
    with pytest.raises(UsageError, match="--spacing --scale-bar: expected one source of lengths, found 2"):
        pixelwise.measure(folder, spacing="1mm", scale_bar="5,3,8,7=10mm")


def test_a_ground_plane_gives_areas_on_the_road(tmp_path: Path) -> None:
    result = pixelwise.measure(plain_images(tmp_path), ground_plane=ROAD)
    light, dark = result.classes[1].size, result.classes[0].size
    assert light.unit == dark.unit == "m²"
    assert light.value == 0  # the two rows at the top are above the horizon
    plane = GivenGroundPlane.parse(ROAD).plane
    assert dark.value == pytest.approx(plane.sizes(Window((2, 0), (30, 30))).sum())
    assert any("above the horizon of the ground plane" in each for each in result.notices)
    (road,) = [each for each in result.regions if each.class_name == "dark"]
    expected = plane.distances_from((0, 0), np.array([[29.5, 14.5]]))
    assert road.measurements["distance"].value == pytest.approx(float(expected[0]))
    assert 4 < road.measurements["distance"].value < 5.5
    assert not [each for each in result.regions if each.class_name == "bright" and "distance" in each.measurements]


def test_pixels_of_different_sizes_have_no_interval(discs: Path, tiny: tuple[str, ...], tmp_path: Path) -> None:
    overrides = [*tiny, "train.validations=1", "evaluate.metrics=[]"]
    model = pixelwise.train(discs, out=tmp_path / "run", steps=2, overrides=overrides).folder / "model"
    limits = tuple(ErrorLimit("share", 0.01, 1.0, 40, 40) for _ in range(2))
    calibration = SizeCalibration(0.9, "validation", 40, 40, False, (4096, 4096), limits, limits)
    write_card(model, replace(read_card(model), size_calibration=calibration.to_dict()))
    pixelwise.predict(model, discs / "test" / "images", out=tmp_path / "out")
    sizes: NDArray[Any] = np.array([each.size for each in pixelwise.measure(tmp_path / "out").classes], object)
    assert all(size.low is not None for size in sizes)
    for each in pixelwise.measure(tmp_path / "out", ground_plane=ROAD).classes:
        assert each.size.low is each.size.high is None
        assert each.size.note == "no interval: the pixels of this image differ too much in size"
