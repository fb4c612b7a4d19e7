"""All cases by chapter, and what is not supported or not covered yet."""

from __future__ import annotations

from conformance.case import Case
from conformance.cases import files, geometry, labels, losses, metrics, tiling, training, tutorial

CHAPTERS: dict[str, tuple[Case, ...]] = {
    "A. Metrics": metrics.CASES,
    "B. Losses": losses.CASES,
    "C. Labels and files": (*labels.CASES, *geometry.IDS),
    "D. Augmentation and geometry": geometry.CASES,
    "E. Tiles": tiling.CASES,
    "F. Training": training.CASES,
    "H. Hostile and broken files": files.CASES,
    "I. Tutorial code": tutorial.CASES,
}
CASES = tuple(case for cases in CHAPTERS.values() for case in cases)

# Cases that pixelwise has no function for: id → reason.
UNSUPPORTED = {
    "A8a": "Distributed evaluation is not implemented.",
    "H4b": "Archives are not unpacked: a data set is a folder.",
}

NOT_COVERED = {
    "E9": "GeoTIFF with CRS, transform and nodata: no case yet; pixelwise is compared with GDAL in its own tests.",
    "E10": "NIfTI and DICOM orientation and spacing: no case yet; pixelwise is compared with nibabel in its own tests.",
    "E11": "Polygons with holes: pixelwise does not write predictions as vectors yet.",
    "E12": "Exported models: pixelwise does not export models yet.",
    "G1–G5": "Areas, error-corrected counts, volumes, perimeters: pixelwise does not measure yet.",
    "H5": "Request bodies without a limit: pixelwise has no server yet.",
}
