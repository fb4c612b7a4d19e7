"""What the pixel spacing of a file refers to, in one sentence.

Source: DICOM PS3.3, 10.7.1 (calibration of projections) and C.8.5.5 (ultrasound); NIfTI-1 (qform and sform).
"""

from __future__ import annotations

_UNKNOWN = "pixel spacing of the files"
_TEXTS = {
    "PixelSpacing": "PixelSpacing: distances in the plane of the slice, or in a projection calibrated to the body",
    "ImagerPixelSpacing": "ImagerPixelSpacing: distances at the detector, where objects appear enlarged, so that sizes are upper limits",
    "EstimatedRadiographicMagnificationFactor": "ImagerPixelSpacing divided by EstimatedRadiographicMagnificationFactor: distances in the "
    "body, where the device assumed the object",
    "NominalScannedPixelSpacing": "NominalScannedPixelSpacing: distances on the scanned film or paper, where objects may appear enlarged",
    "SequenceOfUltrasoundRegions": "PhysicalDelta of the ultrasound regions: distances in the tissue, at the assumed speed of sound",
    "sform": "affine matrix of NIfTI (sform)",
    "qform": "affine matrix of NIfTI (qform)",
    "pixdim": "pixdim of NIfTI: voxel sizes without a position",
    "space directions": "space directions of NRRD",
    "spacings": "spacings of NRRD: voxel sizes without a position",
    "GeoTransform": "geotransform of the files",
}
# Distances in these are those of a shadow: they differ with the depth of the object, and along the rays there is none.
_PROJECTIONS = ("ImagerPixelSpacing", "EstimatedRadiographicMagnificationFactor", "NominalScannedPixelSpacing")


def calibration_text(calibration: str | None) -> str:
    """Return where a spacing comes from and what it refers to, from `Grid.calibration`."""
    if calibration is None:
        return _UNKNOWN
    return _TEXTS.get(calibration, f"{_UNKNOWN} ({calibration})")


def volume_refusal(calibration: str | None) -> str | None:
    """Return why a stack of images with this calibration has no volume, in one sentence; None if it may have one."""
    if calibration not in _PROJECTIONS:
        return None
    return f"no volume: the images are projections ({calibration}), which have no depth"
