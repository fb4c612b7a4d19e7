"""`measure PREDICTIONS`: pixels, units and intervals of the classes in what `predict` wrote."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import rasterio
from numpy.typing import NDArray
from PIL import Image
from rasterio.transform import Affine
from tests.inference.backends import predictor_of

import pixelwise
from pixelwise.api.measuring.spacing import GivenSpacing
from pixelwise.api.predicting import predict_files
from pixelwise.errors import MaskError, OutputExistsError, UsageError
from pixelwise.labels import Labels
from pixelwise.measuring.conformal import ErrorLimit, SizeCalibration
from pixelwise.models.card import read_card, write_card

LABELS = Labels(("dark", "bright"), ids=(0, 7))


def bright(images: NDArray[Any]) -> NDArray[Any]:
    values = np.asarray(images, np.float32)[:, :1]
    return np.concatenate([np.full_like(values, 100), values], 1)


def pixels(size: tuple[int, ...], bright_pixels: int) -> NDArray[np.uint8]:
    values = np.zeros(size, np.uint8)
    values.reshape(-1)[:bright_pixels] = 200
    return values


def predicted(folder: Path) -> Path:
    """Predict images of every kind of unit: without one, in metres, in feet, in degrees, in Web Mercator, and a sheared volume."""
    source = folder / "in"
    source.mkdir()
    Image.fromarray(pixels((20, 30), 60)).save(source / "plain.png")
    for name, crs, size, x, y in (
        ("metres", "EPSG:32632", 0.5, 400_000, 5_600_000),
        ("feet", "EPSG:2263", 2.0, 980_000, 200_000),
        ("degrees", "EPSG:4326", 1e-5, 10, 50),
        ("mercator", "EPSG:3857", 0.5, 1e6, 6e6),
        ("local", 'LOCAL_CS["mine",UNIT["metre",1]]', 0.5, 0, 0),
    ):
        place = {"crs": crs, "transform": Affine(size, 0, x, 0, -size, y)}
        with rasterio.open(source / f"{name}.tif", "w", "GTiff", 30, 20, 1, dtype="uint8", nodata=255, **place) as file:
            values = pixels((20, 30), 60)
            values[-1] = 255
            file.write(values, 1)
    affine = np.array([[2.0, 0.5, 0, 5], [0, 1.5, 0, 6], [0, 0, 3, 7], [0, 0, 0, 1]])
    nibabel.save(nibabel.Nifti1Image(pixels((9, 8, 7), 100), affine), source / "volume.nii.gz")
    result = predict_files(predictor_of(bright, LABELS, channels=1), [str(source)], folder / "out")
    assert not result.failed
    return folder / "out"


def test_units_are_those_of_the_files(tmp_path: Path) -> None:
    result = pixelwise.measure(predicted(tmp_path))
    found = {(Path(each.image).name, each.name): each for each in result.classes}
    expected = {
        "plain.png": (60, "px²"),
        "metres.tif": (15 / 0.9996**2, "m²"),
        "feet.tif": (240 * 0.3048**2, "m²"),
        "degrees.tif": (60 * 1.1123 * 0.7170, "m²"),  # lengths of arcs of latitude and longitude at 50°
        "mercator.tif": (15 * np.cosh(6e6 / 6_378_137) ** -2, "m²"),
        "volume.nii.gz": (0.9, "ml"),
    }
    for name, (value, unit) in expected.items():
        size = found[name, "bright"].size
        assert (size.value, size.unit, size.estimator) == (pytest.approx(value, rel=5e-3), unit, "pixel count"), name
        assert size.low is size.high is None
    assert found["metres.tif", "dark"].pixels == 600 - 30 - 60  # without the row that has no data
    assert found["plain.png", "bright"].share == pytest.approx(0.1)
    assert "no pixel spacing" in found["plain.png", "dark"].provenance
    assert found["local.tif", "dark"].size.unit == "px²"
    assert "geodesic areas on WGS 84" in found["degrees.tif", "dark"].provenance
    assert "EPSG:32632" in found["metres.tif", "dark"].provenance
    assert result.notices == ("the predictions do not name their model: sizes have no intervals",)


def test_a_given_spacing_takes_precedence(tmp_path: Path) -> None:
    source = tmp_path / "in"
    source.mkdir()
    Image.fromarray(pixels((20, 30), 60)).save(source / "cloth.png")
    predict_files(predictor_of(bright, LABELS, channels=1), [str(source)], tmp_path / "out")
    size = pixelwise.measure(tmp_path / "out", spacing="0.2mm,0.3mm").classes[1]
    assert (size.size.value, size.size.unit) == (pytest.approx(3.6), "mm²")
    assert size.provenance == "pixel spacing given as 0.2mm,0.3mm"
    with pytest.raises(UsageError, match="expected one or two lengths for an image, found 1mm,1mm,2mm"):
        pixelwise.measure(tmp_path / "out", spacing="1mm,1mm,2mm")


@pytest.mark.parametrize(
    ("text", "spacing", "unit"),
    [
        ("0.21mm", (0.21,), "mm"),
        ("210 um, 180µm", (0.21, 0.18), "mm"),
        ("2.5 cm", (25,), "mm"),
        ("1in", (25.4,), "mm"),
        ("10m", (10,), "m"),
        ("3ft", (0.9144,), "m"),
        ("1e-3km", (1,), "m"),
    ],
)
def test_spacings_are_read_with_their_units(text: str, spacing: tuple[float, ...], unit: str) -> None:
    given = GivenSpacing.parse(text)
    assert given.spacing == pytest.approx(spacing)
    assert given.unit == unit


@pytest.mark.parametrize(
    "text", ["", "1", "mm", "0mm", "-1mm", "1parsec", "1mm,2m", "1.2.3mm", "1mm,1mm,1mm,1mm", "infmm"]
)
def test_what_is_no_spacing_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match=r"--spacing: expected a length such as 0\.21mm"):
        GivenSpacing.parse(text)


@pytest.fixture
def model(discs: Path, tiny: tuple[str, ...], tmp_path: Path) -> Path:
    overrides = [*tiny, "train.validations=1", "evaluate.metrics=[]"]
    return pixelwise.train(discs, out=tmp_path / "run", steps=2, overrides=overrides).folder / "model"


def test_intervals_are_those_of_the_model_and_tables_are_written(model: Path, discs: Path, tmp_path: Path) -> None:
    limits = tuple(ErrorLimit("share", 0.01, 1.0, 40, 40) for _ in range(2))
    calibration = SizeCalibration(0.9, "validation", 40, 40, False, (4096, 4096), limits, limits)
    write_card(model, replace(read_card(model), size_calibration=calibration.to_dict()))
    out = tmp_path / "predictions"
    pixelwise.predict(model, discs / "test" / "images", out=out)
    assert json.loads((out / "predictions.json").read_text())["model"] == str(model.resolve())
    result = pixelwise.measure(out, out=tmp_path / "sizes", spacing="2mm")
    assert not result.notices
    for each in result.classes:
        low, high = (min(max(each.pixels + step, 0), 4096) for step in (-40, 40))
        assert (each.size.low, each.size.high) == (pytest.approx(4 * low), pytest.approx(4 * high))
        assert each.size.note is not None
        assert each.size.note.startswith("90 % prediction interval, valid for images like the 40 validation images")
    rows = list(csv.DictReader((tmp_path / "sizes" / "classes.csv").read_text(encoding="utf-8").splitlines()))
    assert [float(row["size"]) for row in rows] == pytest.approx([each.size.value for each in result.classes], rel=1e-5)
    assert {row["unit"] for row in rows} == {"mm²"}
    plain = json.loads((tmp_path / "sizes" / "measurements.json").read_text(encoding="utf-8"))
    assert plain == json.loads(json.dumps(result.to_dict()))
    with pytest.raises(OutputExistsError):
        pixelwise.measure(out, out=tmp_path / "sizes")
    pixelwise.measure(out, out=tmp_path / "sizes", overwrite=True)


def test_another_model_in_its_place_gives_no_intervals(model: Path, discs: Path, tmp_path: Path) -> None:
    out = tmp_path / "predictions"
    pixelwise.predict(model, discs / "test" / "images", out=out)
    assert "add that with pixelwise evaluate" in str(pixelwise.measure(out).classes[0].size.note)
    summary = json.loads((out / "predictions.json").read_text())
    for change, text in (
        ({"model_sha256": "0"}, "not the model of the predictions any more"),
        ({"model": "gone"}, "not there"),
    ):
        (out / "predictions.json").write_text(json.dumps(summary | change))
        assert text in pixelwise.measure(out).notices[0]


@pytest.mark.parametrize("across", [None, "axial", "sagittal", "coronal"])
def test_volumes_are_measured_completely_in_any_direction(tmp_path: Path, across: Any) -> None:
    """The shape in `predictions.json` is in the order of the model, that of the mask in the order of its file."""
    source = tmp_path / "in"
    source.mkdir()
    image = nibabel.Nifti1Image(pixels((9, 8, 7), 100), np.diag([2.0, 1.5, 3.0, 1.0]))
    nibabel.save(image, source / "volume.nii.gz")
    predict_files(predictor_of(bright, LABELS, channels=1, across=across), [str(source)], tmp_path / "out")
    dark, light = pixelwise.measure(tmp_path / "out").classes
    assert (dark.pixels, light.pixels) == (9 * 8 * 7 - 100, 100)
    assert light.size.value == pytest.approx(0.9)


@pytest.fixture
def volume(tmp_path: Path) -> Path:
    """The predictions of one volume of 2 × 1.5 × 3 mm."""
    source = tmp_path / "in"
    source.mkdir()
    nibabel.save(nibabel.Nifti1Image(pixels((9, 8, 7), 100), np.diag([2.0, 1.5, 3.0, 1.0])), source / "volume.nii.gz")
    predict_files(predictor_of(bright, LABELS, channels=1), [str(source)], tmp_path / "out")
    return tmp_path / "out"


def test_a_spacing_of_a_volume_has_three_lengths(volume: Path) -> None:
    assert pixelwise.measure(volume, spacing="1mm,2mm,5mm").classes[1].size.value == pytest.approx(1.0)
    for text in ("1mm", "1mm,2mm"):
        with pytest.raises(UsageError, match="expected three lengths for a volume: between slices, rows, columns"):
            pixelwise.measure(volume, spacing=text)


def test_a_volume_with_other_ids_is_refused(volume: Path) -> None:
    (mask,) = (volume / "masks").iterdir()
    values = nibabel.Nifti1Image(np.full((9, 8, 7), 3, np.uint8), np.diag([2.0, 1.5, 3.0, 1.0]))
    nibabel.save(values, mask)
    with pytest.raises(MaskError, match="expected the class ids 0, 7, found others: 3"):
        pixelwise.measure(volume)


def test_regions_are_listed_with_units_and_positions(tmp_path: Path) -> None:
    folder = predicted(tmp_path)
    result = pixelwise.measure(folder, out=tmp_path / "sizes")
    with (tmp_path / "sizes" / "regions.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == len(result.regions) == 2 * 7
    bright = {Path(row["image"]).name: row for row in rows if row["class"] == "bright"}
    assert float(bright["plain.png"]["area_px²"]) == 60
    assert bright["plain.png"]["perimeter_m"] == bright["plain.png"]["area_m²"] == ""
    metres = bright["metres.tif"]  # two rows of 30 pixels at the top
    assert float(metres["area_m²"]) == pytest.approx(15 / 0.9996**2, rel=1e-3)
    assert float(metres["longest_axis_m"]) == pytest.approx(15, rel=0.02)
    assert (float(metres["x"]), float(metres["y"])) == (400_007.5, 5_599_999.5)
    assert [metres[f"{end}_{axis}"] for end in ("first", "end") for axis in ("row", "column")] == ["0", "0", "2", "30"]
    assert metres["touches_border"] == "yes"
    volume = bright["volume.nii.gz"]
    assert float(volume["volume_ml"]) == pytest.approx(0.9)
    assert volume["holes"] == "0"
    assert float(volume["surface_mm²"]) > 0
    plain = json.loads((tmp_path / "sizes" / "measurements.json").read_text())
    assert set(plain["estimators"]) == {
        "area",
        "perimeter",
        "longest_axis",
        "length",
        "width",
        "volume",
        "surface",
        "longest_axis_in_slice",
    }
    area = plain["regions"][0]["sizes"]["area"]
    assert area["low"] < area["value"] < area["high"]
    for each in result.classes:
        parts = [region for region in result.regions if (region.image, region.class_name) == (each.image, each.name)]
        assert sum(region.pixels for region in parts) == each.pixels
        sizes = [next(iter(region.measurements.values())).value for region in parts]
        assert sum(sizes) == pytest.approx(each.size.value)
