"""DICOM series with segmentations in DICOM (SEG, RTSTRUCT), or label volumes in NIfTI or NRRD on their voxels; read by slices.

Each folder is one series, or one file with all slices. Localizers, reports and screenshots in it are left out, with a notice. NIfTI and
NRRD volumes that are no masks are read as images.
"""

from __future__ import annotations

from pathlib import Path

from pixelwise.errors import DataError
from pixelwise.formats.base import Format, ReadResult
from pixelwise.formats.dataset_root import DatasetRoot
from pixelwise.formats.dicom_seg import read_segmentations
from pixelwise.formats.nifti import read_volumes
from pixelwise.formats.records import short
from pixelwise.formats.volume_pairs import VolumePairs, dicom_candidates, first_series, unreadable_volumes
from pixelwise.imageio.dicom import is_dicom
from pixelwise.imageio.dicom_seg_header import segmentation_kind
from pixelwise.imageio.dicom_series import read_series
from pixelwise.imageio.unreadable import conversion
from pixelwise.imageio.volume_files import is_volume


def detect(dataset: DatasetRoot) -> str | None:
    """Recognise DICOM by the content of a few files in each folder."""
    folder = first_series(dataset)
    return None if folder is None else f"{short(folder, dataset.root)}/ holds DICOM"


def read(dataset: DatasetRoot) -> ReadResult:
    """Find all series and their masks.

    Raises:
        DataError: an invalid series, no masks, or masks on other voxels.
        ConfigError: an invalid key of the `data` section.
    """
    volumes = VolumePairs(dataset)
    series = {}
    segmentations: list[Path] = []
    for folder, candidates in dicom_candidates(dataset).items():
        paths = [path for path in candidates if is_dicom(path)]
        objects = set(filter(segmentation_kind, paths))
        segmentations += sorted(objects)
        paths = [path for path in paths if path not in objects]
        if paths:
            try:
                found, left_out = read_series(paths)
            except DataError as error:
                volumes.problems.append(volumes.skip(error))
                continue
            series[folder] = (found.header, found.files)
            volumes.notices += [f"{short(folder, dataset.root)}/: left out {each}" for each in left_out]
    volumes.series = series
    result = read_segmentations(volumes, segmentations)
    if result is not None:
        return result
    if not dataset.named_splits and not any(map(is_volume, dataset.files)):
        others = unreadable_volumes(dataset)
        raise DataError(
            dataset.root,
            expected="a segmentation in DICOM (SEG, RTSTRUCT), or a label volume in NIfTI (.nii.gz) or NRRD, of a series",
            found=f"DICOM files, and {short(others[0], dataset.root)}" if others else "only DICOM files",
            do=conversion(others) or "Add the segmentations to the folder, at any place in it.",
        )
    return read_volumes(volumes, {})


FORMAT = Format("dicom", "DICOM series", detect, read, by_name=True)
