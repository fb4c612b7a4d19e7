"""Images of one data set that differ in their spacing, or lack it."""

from pathlib import Path

import nibabel
import numpy as np
import pytest
import rasterio
from affine import Affine
from tests.checking.drawn import findings, halves, image_of, inspected, kinds, of_kind, survey_of, typed

from pixelwise.checking.spacings import different_spacings, missing_spacings

MM = 1e-3


def spaced(*spacing: float):
    return inspected(spacing=spacing)


@pytest.mark.parametrize(
    ("factor", "severity"), [(1.005, None), (1.02, "notice"), (1.45, "notice"), (1.6, "warning"), (1 / 1.6, "warning")]
)
@pytest.mark.parametrize("axis", [0, 1])
def test_the_severity_grows_with_the_factor(factor: float, severity: str | None, axis: int) -> None:
    other = [0.5 * MM, 0.5 * MM]
    other[axis] *= factor
    found = list(different_spacings(survey_of({"train": [spaced(0.5 * MM, 0.5 * MM)] * 4 + [spaced(*other)]})))
    assert [one.severity for one in found] == ([severity] if severity else [])
    if severity:
        low, high = sorted((0.5, 0.5 * factor))
        assert found[0].what == (
            f"1 image differs in pixel spacing from most: {low:.4g} to {high:.4g} mm, median 0.5 mm"
        )
        assert (found[0].count, found[0].of, found[0].examples) == (1, 5, (("train", 4),))


def test_lengths_on_maps_are_in_metres() -> None:
    found = list(different_spacings(survey_of({"train": [spaced(10, 10), spaced(10, 10), spaced(30, 30)]})))
    assert found[0].what.endswith("10 to 30 m, median 10 m")
    assert "up to 3 times" in found[0].why


def test_the_distance_of_slices_is_a_notice() -> None:
    thin, thick = spaced(1 * MM, 0.7 * MM, 0.7 * MM), spaced(5 * MM, 0.7 * MM, 0.7 * MM)
    found = list(different_spacings(survey_of({"train": [thin, thin, thick]})))
    assert [(one.kind, one.severity, one.count) for one in found] == [("different-slices", "notice", 1)]
    assert typed(found[0].fix).data.volumes == "whole"


def test_some_images_without_a_spacing() -> None:
    found = list(missing_spacings(survey_of({"train": [spaced(1, 1), spaced(1, 1), inspected()]})))
    assert [(one.severity, one.what) for one in found] == [
        ("notice", "1 image has no pixel spacing in a unit of length, the others do")
    ]
    assert found[0].examples == (("train", 2),)


def test_images_that_all_lack_a_spacing_are_usual(good: Path) -> None:
    assert {"different-spacings", "missing-spacings"}.isdisjoint(kinds(findings(good)))
    assert not list(missing_spacings(survey_of({"train": [spaced(1, 1)] * 3})))


def geotiff(path: Path, array: np.ndarray, pixel: float, crs: str | None) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    bands = array[None] if array.ndim == 2 else np.moveaxis(array, -1, 0)
    at = {} if crs is None else {"crs": crs, "transform": Affine(pixel, 0, 5e5, 0, -pixel, 2e6)}
    profile = {"height": bands.shape[1], "width": bands.shape[2], "count": len(bands), "dtype": "uint8"}
    with rasterio.open(path, "w", driver="GTiff", **profile, **at) as file:
        file.write(bands)


@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
@pytest.mark.parametrize("crs", ["EPSG:32644", "EPSG:2263"])
def test_geotiffs(tmp_path: Path, crs: str) -> None:
    for k in range(12):
        mask = halves(20 + k)
        pixel, system = (30.0 if k == 3 else 10.0), (None if k == 5 else crs)
        geotiff(tmp_path / "train/images" / f"{k}.tif", image_of(mask, k), pixel, system)
        geotiff(tmp_path / "train/masks" / f"{k}.tif", mask, pixel, system)
    (tmp_path / "labels.yaml").write_text("names: [ground, road]\n")
    found = findings(tmp_path, split={"val": 0.2})
    differ, missing = of_kind(found, "different-spacings"), of_kind(found, "missing-spacings")
    metres = (10.0, 30.0) if crs == "EPSG:32644" else (10 * 1200 / 3937, 30 * 1200 / 3937)
    assert differ.severity == "warning"
    assert f"{metres[0]:.4g} to {metres[1]:.4g} m" in differ.what
    assert [Path(name).name for name in differ.where] == ["3.tif"]
    assert [Path(name).name for name in missing.where] == ["5.tif"]


def test_volumes_of_different_slices(tmp_path: Path) -> None:
    for k in range(5):
        rng = np.random.default_rng(k)
        labels = np.zeros((24, 20, 6), np.uint8)
        labels[4 : 10 + k, 5:12] = 1
        values = (labels * 80 + rng.integers(0, 60, labels.shape)).astype(np.int16)
        affine = np.diag([0.7, 0.7, 5.0 if k == 2 else 1.0, 1])
        for folder, array in (("imagesTr", values), ("labelsTr", labels)):
            (tmp_path / folder).mkdir(exist_ok=True)
            name = f"v{k}_0000.nii.gz" if folder == "imagesTr" else f"v{k}.nii.gz"
            nibabel.save(nibabel.Nifti1Image(array, affine), tmp_path / folder / name)
    (tmp_path / "dataset.json").write_text(
        '{"channel_names": {"0": "CT"}, "labels": {"background": 0, "organ": 1}, "numTraining": 5, "file_ending": ".nii.gz"}'
    )
    found = of_kind(findings(tmp_path, volumes="slices", split={"val": 0.2}), "different-slices")
    assert (found.severity, found.count, found.of) == ("notice", 6, 30)
    assert "1 to 5 mm, median 1 mm" in found.what
