"""Polygons beside predicted masks."""

from __future__ import annotations

import json
from pathlib import Path

import nibabel
import numpy as np
import pyogrio
import pytest
import rasterio
import shapely
from affine import Affine
from rasterio.features import rasterize
from tests.api.test_predicting import predictor, put

from pixelwise.api.predicting import predict_files, predict_settings, scenes
from pixelwise.api.predicting.journal import complete
from pixelwise.errors import ConfigError, UsageError

TRANSFORM = Affine(4.3, 3.6, 500000, 2.6, -6.0, 5_500_000)


def geotiff(path: Path, transform: Affine = TRANSFORM) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(0).integers(1, 200, (3, 60, 70)).astype(np.uint8)
    pixels[:, :10, :20] = 0
    with rasterio.open(
        path,
        "w",
        driver="GTiff",
        height=60,
        width=70,
        count=3,
        dtype="uint8",
        crs="EPSG:32633",
        transform=transform,
        nodata=0,
    ) as file:
        file.write(pixels)
    return path


@pytest.mark.parametrize("large", [10, 10**6])
def test_images_and_scenes_get_polygons_of_their_masks(
    large: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scenes, "LARGE", large)
    source = geotiff(tmp_path / "a.tif")
    out = tmp_path / "out"
    (entry,) = predict_files(predictor(), [str(source)], out, polygons=("gpkg", "geojson", "coco")).images
    assert entry["polygons"] == {
        "gpkg": "polygons/a.gpkg",
        "geojson": "polygons/a.geojson",
        "coco": "polygons/a.json",
    }
    listed = json.loads((out / "predictions.json").read_text())["images"][0]["polygons"]
    assert listed == entry["polygons"]
    with rasterio.open(out / entry["mask"]) as file:
        mask, ignored = file.read(1), int(file.nodata)
    meta, _, geometry, columns = pyogrio.raw.read(out / entry["polygons"]["gpkg"])
    ids = dict(zip(meta["fields"], columns, strict=True))["id"]
    shapes = zip(shapely.from_wkb(geometry), ids, strict=True)
    burnt = rasterize(shapes, mask.shape, fill=ignored, transform=TRANSFORM, dtype="uint8")
    np.testing.assert_array_equal(burnt, mask)
    assert (mask[:10, :20] == ignored).all()
    features = json.loads((out / entry["polygons"]["geojson"]).read_text())["features"]
    assert len(features) == len(ids)
    assert sum(feature["properties"]["pixels"] for feature in features) == (mask != ignored).sum()
    assert features[0]["properties"]["area_m2"] > 0


def test_images_without_map_get_polygons_in_pixels(tmp_path: Path) -> None:
    put(tmp_path / "in", "a.png")
    out = tmp_path / "out"
    (entry,) = predict_files(predictor(), [str(tmp_path / "in")], out, polygons=("geojson",)).images
    plain = json.loads((out / entry["polygons"]["geojson"]).read_text())
    dark, bright = (shapely.geometry.shape(feature["geometry"]) for feature in plain["features"])
    assert dark.equals(shapely.box(0, 0, 3, 4))
    assert bright.equals(shapely.box(3, 0, 6, 4))


def test_places_outside_of_the_system_give_a_notice_and_the_mask_is_kept(tmp_path: Path) -> None:
    source = geotiff(tmp_path / "a.tif", Affine(10, 0, 1e12, 0, -10, 1e12))
    result = predict_files(predictor(), [str(source)], tmp_path / "out", polygons=("geojson", "gpkg"))
    assert not result.failed
    (entry,) = result.images
    assert entry["polygons"] == {"gpkg": "polygons/a.gpkg"}
    assert "Write a GeoPackage" in entry["notices"][0]


def test_a_file_whose_polygons_are_missing_is_not_complete(tmp_path: Path) -> None:
    entry = {"mask": "a.png", "polygons": {"coco": "a.json"}}
    (tmp_path / "a.png").touch()
    assert not complete(tmp_path, entry)
    (tmp_path / "a.json").touch()
    assert complete(tmp_path, entry)


def test_volumes_are_refused_at_the_start(tmp_path: Path) -> None:
    put(tmp_path / "in", "a.png")
    nibabel.save(nibabel.Nifti1Image(np.zeros((4, 5, 6), np.float32), np.eye(4)), tmp_path / "in" / "b.nii.gz")
    with pytest.raises(UsageError, match=r"b\.nii\.gz: expected an image, .* found a volume"):
        predict_files(predictor(channels=1), [str(tmp_path / "in")], tmp_path / "out", polygons=("coco",))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("text", "found"),
    [("gpkg", ("gpkg",)), ("[geojson, coco]", ("geojson", "coco")), ("[]", ()), ("geojson", ("geojson",))],
)
def test_the_key_takes_one_format_or_a_list(text: str, found: tuple[str, ...]) -> None:
    assert predict_settings([f"predict.polygons={text}"]) == ({}, {"polygons": found})


def test_unknown_formats_are_refused() -> None:
    with pytest.raises(ConfigError, match="polygons"):
        predict_settings(["predict.polygons=shapefile"])
