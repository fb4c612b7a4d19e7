"""Sentences on the calibration of DICOM files, from the files themselves."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest

import pixelwise.imageio as imageio
from pixelwise.imageio.dicom import _flat_grid
from pixelwise.measuring.calibration import _TEXTS, calibration_text, volume_refusal

RADIOGRAPHS = {
    "calibrated": ({"PixelSpacing": [0.1, 0.1], "ImagerPixelSpacing": [0.12, 0.12]}, "calibrated to the body", False),
    "detector": ({"ImagerPixelSpacing": [0.12, 0.12]}, "at the detector", True),
    "not calibrated": ({"PixelSpacing": [0.1, 0.1], "ImagerPixelSpacing": [0.1, 0.1]}, "at the detector", True),
    "magnified": (
        {"ImagerPixelSpacing": [0.12, 0.12], "EstimatedRadiographicMagnificationFactor": 1.2},
        "in the body, where the device assumed",
        True,
    ),
    "film": ({"NominalScannedPixelSpacing": [0.1, 0.1]}, "scanned film", True),
    "nothing": ({}, "pixel spacing of the files", False),
}


@pytest.mark.parametrize("kind", RADIOGRAPHS)
def test_radiographs(kind: str) -> None:
    tags, text, refused = RADIOGRAPHS[kind]
    grid = _flat_grid(SimpleNamespace(get=tags.get))
    assert text in calibration_text(grid.calibration)
    reason = volume_refusal(grid.calibration)
    assert (reason is not None) == refused
    assert reason is None or "projections" in reason


def test_every_calibration_that_readers_write_has_a_sentence() -> None:
    sources = "".join(path.read_text() for path in Path(imageio.__file__).parent.glob("*.py"))
    assert all(f'"{name}"' in sources for name in _TEXTS)
    assert calibration_text("another") == "pixel spacing of the files (another)"
