"""Read volumes in any format: NIfTI, NRRD, or a DICOM file with one slice or several. The content decides, not the name."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from numpy.typing import NDArray

from pixelwise.errors import DataError, ImageError
from pixelwise.imageio import dicom_series, nifti, nrrd
from pixelwise.imageio.dicom import START, starts_dicom
from pixelwise.imageio.volumes import VolumeHeader

SUFFIXES = (*nifti.SUFFIXES, *nrrd.SUFFIXES)


def is_volume(path: Path) -> bool:
    """Whether a file has the name of a NIfTI or an NRRD file."""
    return nifti.is_nifti(path) or nrrd.is_nrrd(path)


def files_of(path: Path) -> tuple[Path, ...]:
    """Return the files of a volume: itself, and the data file beside a header of NRRD (.nhdr)."""
    if path.suffix.lower() != ".nhdr":
        return (path,)
    try:
        return tuple(dict.fromkeys((path, nrrd.read_data_file(path))))
    except DataError:
        return (path,)  # reported when the volume is read


def format_of(path: Path) -> Literal["NIfTI", "NRRD", "DICOM"]:
    """Return the format of a file by its first bytes; NIfTI, whose reader reports other files, if it is neither of the others."""
    try:
        with path.open("rb") as file:
            start = file.read(START)
    except OSError:
        return "NIfTI"
    return "NRRD" if nrrd.starts_nrrd(start) else "DICOM" if starts_dicom(start) else "NIfTI"


def read_header(path: Path, error: type[DataError] = ImageError) -> VolumeHeader:
    """Read the header of a volume; of a DICOM file, that of the slices in it.

    Raises:
        DataError: an `error` if it is no volume, or broken.
    """
    kind = format_of(path)
    if kind == "DICOM":
        return dicom_series.volume_of([path]).header
    return nrrd.read_header(path, error) if kind == "NRRD" else nifti.read_header(path, error)


def read_box(path: Path, box: tuple[slice, ...], error: type[DataError] = ImageError) -> NDArray[Any]:
    """Return the values (i, j, k) or (i, j, k, C) of a box along the file's axes, in real units.

    Raises:
        DataError: an `error` if the file is truncated or broken.
    """
    kind = format_of(path)
    if kind == "DICOM":
        return dicom_series.volume_of([path]).read_box(box)
    return nrrd.read_box(path, box, error) if kind == "NRRD" else nifti.read_box(path, box, error)


def read_label_table(path: Path) -> dict[int, str]:
    """Read the names of ids that some programs write into label volumes; empty if there are none."""
    kind = format_of(path)
    if kind == "DICOM":
        return {}
    return nrrd.read_label_table(path) if kind == "NRRD" else nifti.read_label_table(path)
