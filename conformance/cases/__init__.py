"""All cases, by chapter, in the order of the traps; what pixelwise has no function for, and what is not asked yet, with the reasons."""

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

# Asked of all, though pixelwise has no function for it.
OURS_LACKS = {
    "A8a": "pixelwise divides no images between processes yet.",
    "H4b": "pixelwise unpacks no archives: a data set is a folder.",
}

NOT_ASKED = {
    "E9": "GeoTIFF with CRS, transform and nodata: no case yet; ours is held against GDAL by its own tests.",
    "E10": "NIfTI and DICOM orientation and spacing: no case yet; ours is held against nibabel by its own tests.",
    "E11": "Polygons with holes: pixelwise writes no vectors yet.",
    "E12": "Exported models: pixelwise exports none yet.",
    "G1–G5": "Areas, counts corrected for errors, volumes, perimeters: pixelwise measures nothing yet.",
    "H5": "Request bodies without a limit: pixelwise has no server yet.",
}
