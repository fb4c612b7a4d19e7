"""DICOM series with label volumes in NIfTI, each on the voxels of its series.

Comes in: a place. Goes out: a record for every slice. A folder is one series. Other NIfTI volumes in the place are images,
too. Knows nothing of segmentations within DICOM (SEG, RTSTRUCT): what is to be done with those is said.
"""

from __future__ import annotations

from pathlib import Path

from pixelwise.errors import DataError
from pixelwise.formats.base import Format, ReadResult
from pixelwise.formats.dataset_root import DatasetRoot
from pixelwise.formats.nifti import read_volumes
from pixelwise.formats.records import short
from pixelwise.formats.stack_pairs import Volumes, candidates, first_series, named_splits
from pixelwise.imageio.dicom import is_dicom, read_series
from pixelwise.imageio.nifti import is_nifti


def detect(place: DatasetRoot) -> str | None:
    """Recognise DICOM by the content of a few files of each folder, below the root or among what the configuration names."""
    folder = first_series(place)
    return None if folder is None else f"{short(folder, place.root)}/ holds DICOM"


def read(place: DatasetRoot) -> ReadResult:
    """Find all series, and their masks.

    Raises:
        DataError: a series that cannot be understood, no masks, or masks that lie elsewhere.
        ConfigError: a key of the `data` section that makes no sense.

    """
    volumes = Volumes(place)
    series = {}
    for folder, paths in candidates(place).items():
        own = [path for path in paths if is_dicom(path)]
        if not own:
            continue
        try:
            series[folder] = read_series(own)
        except DataError as error:
            if not place.config.skip_bad:
                raise
            volumes.problem(Path(error.where), f"expected {error.expected}, found {error.found}")
    volumes.series = series
    if not named_splits(place) and not any(is_nifti(path) for path in place.files):
        raise DataError(
            place.root,
            expected="a label volume in NIfTI (.nii.gz) on the voxels of a series",
            found="DICOM alone",
            do="Convert the segmentation (SEG with dcmqi's segimage2itkimage, RTSTRUCT with plastimatch) to NIfTI beside it.",
        )
    return read_volumes(volumes, {})


FORMAT = Format("dicom", "DICOM series", detect, read, by_name=True)
